package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// activeOnly keeps the rows that a word of the application says it of. It ends with a
// comment, and reads a column that is not carried.
const activeOnly = `, batch_rows: 5, columns: {exclude: [password_hash, active]}, where: "people.active -- and no others"`

func (w *world) sameActive(when string) {
	w.t.Helper()
	w.sameRows(when, `SELECT id::text, email, first FROM people WHERE active`, "SELECT CAST(id AS STRING), email, first FROM shop.people WHERE NOT _deleted", "")
}

// whereChanges have rows enter and leave the condition in every way.
func whereChanges(m method) []string {
	out := []string{
		`INSERT INTO people (id, email, active) VALUES (20, 'in', true), (21, 'out', false), (22, 'nobody knows', NULL)`,
		`UPDATE people SET active = false WHERE id IN (1, 2)`,
		`UPDATE people SET active = true, first = 'entered' WHERE id IN (3, 21, 22)`,
		`UPDATE people SET active = NULL WHERE id IN (4, 5)`,
		`UPDATE people SET email = 'changed' WHERE id BETWEEN 1 AND 8`,
		`BEGIN; UPDATE people SET active = false WHERE id = 7; UPDATE people SET active = true, first = 'again' WHERE id = 7; COMMIT`,
		`BEGIN; INSERT INTO people (id, active) VALUES (30, true); UPDATE people SET active = false WHERE id = 30; COMMIT`,
		`UPDATE people SET active = NOT active`, // more than one read takes
		`UPDATE people SET active = true WHERE active IS NULL`,
	}
	if m.deletes {
		out = append(out,
			`UPDATE people SET id = id + 100 WHERE id IN (6, 7, 8, 9)`,
			`UPDATE people SET id = id + 200, active = NOT active WHERE id IN (10, 11)`,
			`DELETE FROM people WHERE id IN (1, 3, 106, 107)`,
			`BEGIN; DELETE FROM people WHERE id = 4; INSERT INTO people (id, active) VALUES (4, false); COMMIT`,
			`BEGIN; DELETE FROM people WHERE id = 5; INSERT INTO people (id, active) VALUES (5, true); COMMIT`)
	}
	return out
}

// TestWhere: what the condition holds for is there, and nothing else is, by every
// capture method and after every kind of change.
func TestWhere(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		for _, deletes := range []string{"soft", "hard"} {
			t.Run(name+" "+deletes, func(t *testing.T) {
				t.Parallel()
				w := newPeople(t, m, activeOnly+", deletes: "+deletes)
				w.tick()
				w.sameActive("at first")
				for _, change := range whereChanges(m) {
					w.exec(change)
					w.tick()
					w.sameActive(change)
				}
				if name == "changelog" || name == "wal" {
					w.exec(`BEGIN; TRUNCATE people; INSERT INTO people (id, active) VALUES (1, true), (2, false); COMMIT`)
					w.tick()
					w.sameActive("truncated")
				}
				must(t, w.extractOn(w.product, `{"full":true}`))
				w.sameActive("full")
				if n := w.count("SELECT COUNT(*) FROM shop.people_log WHERE first = 'entered'"); n == 0 {
					t.Error("nothing entered")
				}
			})
		}
	}
}

// TestWhereKeepsWhatLeft under deletes: ignore, and sends nothing of rows that never
// were in.
func TestWhereKeepsWhatLeft(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPeople(t, m, activeOnly+", deletes: ignore")
			w.tick()
			w.exec(`UPDATE people SET active = false WHERE id = 1; UPDATE people SET email = 'never in' WHERE id IN (3, 6); UPDATE people SET active = true WHERE id = 9`)
			w.tick()
			got := map[string]int64{
				"who left":      w.count("SELECT COUNT(*) FROM shop.people WHERE id = 1 AND email = 'C1EAR1@example.org'"),
				"who entered":   w.count("SELECT COUNT(*) FROM shop.people WHERE id = 9"),
				"who never was": w.count("SELECT COUNT(*) FROM shop.people_log WHERE id IN (3, 6)"),
				"tombstones":    w.count("SELECT COUNT(*) FROM shop.people_log WHERE _deleted"),
			}
			if diff := cmp.Diff(map[string]int64{"who left": 1, "who entered": 1, "who never was": 0, "tombstones": 0}, got); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWhereOfTenants: the condition and the tenant both hold, whatever the condition is
// made of (I8).
func TestWhereOfTenants(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		if m.logical || name == "application log" { // neither goes with tenants and deletes
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, `
pipeline: app
destination: {dataset: app}
tenants: {query: "SELECT n AS id, n AS slug FROM generate_series(1, 2) n", column: org, dataset: "org_{slug}"}
tables:
  - {name: people, capture: `+m.capture+`, batch_rows: 5, columns: {exclude: [org, password_hash]}, where: "active OR first = 'last8'"}
`, people, `UPDATE people SET org = 1 + id % 2`)
			tick := func(when string) {
				t.Helper()
				w.tick()
				messages := w.published
				w.published = nil
				for _, m := range messages {
					text, err := json.Marshal(m)
					if err != nil {
						t.Fatal(err)
					}
					must(t, w.extractOn(w.product, string(text)))
				}
				for _, org := range []string{"1", "2"} {
					w.sameRows(when+" of "+org, `SELECT id::text, first FROM people WHERE org = `+org+` AND (active OR first = 'last8')`,
						"SELECT CAST(id AS STRING), first FROM org_"+org+".people WHERE NOT _deleted", "")
				}
			}
			tick("at first")
			for _, change := range whereChanges(m) {
				w.exec(change)
				tick(change)
			}
		})
	}
}

// TestWhereDuringBackfill: rows enter and leave while the table is being read, behind
// the reading and before it, by keys and by blocks.
func TestWhereDuringBackfill(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		if name == "snapshot" { // has no backfill
			continue
		}
		for _, kind := range []string{"keys", "blocks"} {
			if kind == "blocks" && name != "changelog" {
				continue
			}
			t.Run(name+" by "+kind, func(t *testing.T) {
				t.Parallel()
				sql := []string{`DELETE FROM people; INSERT INTO people (id, email, first, active) SELECT n, 'mail', repeat('x', 200), n % 2 = 0 FROM generate_series(1, 20000) n`}
				if kind == "blocks" {
					sql = append(sql, `ALTER TABLE people DROP CONSTRAINT people_pkey; CREATE UNIQUE INDEX people_key ON people (id DESC NULLS LAST)`)
				}
				w := newPeople(t, m, `, key: [id], where: active, deletes: hard`, sql...)
				w.little("", "first")
				if left := w.value(`SELECT count(*) FROM tidemark.backfill_chunks WHERE NOT done`); left == "0" {
					t.Fatal("the backfill is done before anything changed")
				}
				w.exec(`UPDATE people SET active = NOT active, first = 'changed' WHERE id % 10 < 2`)
				w.little("", "second")
				w.exec(`UPDATE people SET active = NOT active, first = 'again' WHERE id % 100 < 20`)
				for range 20 {
					w.tick()
				}
				w.sameActive("after the backfill")
			})
		}
	}
}

// TestWhereFindsLateCommits: a row that leaves, and one that enters, in a transaction
// that is committed long after later ones were read (I2).
func TestWhereFindsLateCommits(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPeople(t, m, activeOnly+", deletes: hard")
			w.tick()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			late, err := w.db.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := late.Exec(ctx, `UPDATE people SET active = NOT active WHERE id IN (1, 3)`); err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				w.exec(fmt.Sprintf(`UPDATE people SET first = 'later %d', active = NOT active WHERE id IN (5, 6)`, n))
				w.tick()
			}
			if err := late.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			w.tick()
			w.sameActive("late")
		})
	}
}

// TestWhereChanges: another condition has the table read again, and what it does not
// hold for leaves.
func TestWhereChanges(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPeople(t, m, "")
			w.tick()
			for _, where := range []string{"id > 3", "id > 3 AND (first IS NOT NULL OR active)", "NOT (id > 3)", "true"} {
				must(t, w.extractOn(w.with(peopleFile(m, `, where: "`+where+`"`)), ""))
				w.sameRows(where, `SELECT id::text, email FROM people WHERE `+where, "SELECT CAST(id AS STRING), email FROM shop.people WHERE NOT _deleted", "")
			}
		})
	}
}

// TestErrorsTellNoValues: a computed column that a row cannot have stops the table, and
// what is said of it has nothing of the row.
func TestErrorsTellNoValues(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPeople(t, m, `, columns: {exclude: [password_hash, email], compute: {number: "email::int"}}`, `UPDATE people SET email = '7'`)
			w.tick()
			w.exec(`UPDATE people SET email = 'C1EAR' WHERE id = 3`)
			err := w.extractOn(w.product, "")
			if err == nil || strings.Contains(err.Error(), "C1EAR") || !strings.Contains(err.Error(), "22P02") {
				t.Errorf("got %v", err)
			}
			if got := w.value(`SELECT string_agg(r::text, ' ') FROM tidemark.runs r`); strings.Contains(got, "C1EAR") {
				t.Errorf("a run has the value: %s", got)
			}
		})
	}
}

// TestFeedsBesideAnOpenTransaction: while some transaction is open, what is noted for the
// next read of a log, or of a query's table, changes nothing of this one (I2).
func TestFeedsBesideAnOpenTransaction(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]string{
		"application log": `{name: people, batch_rows: 4, capture: {method: changelog, log: {table: audit, cursor: id, object: object_id}}, columns: {include: [id, first]}}`,
		"query":           `{name: people, batch_rows: 4, key: [id], query: "SELECT id, first, updated_at FROM people", capture: {method: watermark, cursor: updated_at}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - "+table+"\n", people)
			w.tick()
			w.exec(`UPDATE people SET first = 'changed'`)
			w.little("", "the first batch")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			open, err := w.db.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := open.Exec(ctx, `CREATE TABLE of_no_concern ()`); err != nil {
				t.Fatal(err)
			}
			w.exec(`CREATE TABLE later ()`) // so that the next snapshot lists what is open
			w.little("", "the second batch")
			if err := open.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
			w.tick()
			w.sameRows("after it", `SELECT id::text, first FROM people`, "SELECT CAST(id AS STRING), first FROM shop.people", "")
		})
	}
}

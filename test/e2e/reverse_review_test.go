package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// TestLedgerOfTwoSpellings: BigQuery tells two spellings of a uuid apart, and Postgres
// does not: the row that has changed its spelling stays.
func TestLedgerOfTwoSpellings(t *testing.T) {
	t.Parallel()
	file := strings.Replace(changesFile("mirror", "changes: ledger"), "batch_size: 7", "batch_size: 7, max_delete_percent: 100, max_swing_percent: 100", 1)
	w := newWorld(t, file, `CREATE TABLE scores (id uuid PRIMARY KEY, score int CHECK (score < 1000))`)
	w.rows("CREATE SCHEMA crm")
	source := func(a5, score string) {
		t.Helper()
		w.rows("CREATE OR REPLACE TABLE crm.scores AS SELECT CONCAT('00000000-0000-4000-8000-0000000000', x) AS id, " + score + " AS score, CURRENT_TIMESTAMP() AS scored_at FROM UNNEST(['a1', 'a2', 'a3', '" + a5 + "']) AS x")
		w.ahead.Add(int64(time.Minute))
	}
	there := func(when string) {
		t.Helper()
		if got := w.value(`SELECT count(*) FROM scores`); got != "4" {
			t.Fatalf("%s: %s rows, want 4", when, got)
		}
	}
	source("a5", "1")
	must(t, w.reverse(""))
	source("A5", "1")
	must(t, w.reverse(`{"pipeline":"crm","sync":"scores","full":true}`))
	must(t, w.reverse(""))
	there("after a whole comparison")
	source("a5", "1")
	must(t, w.reverse(""))
	must(t, w.reverse(""))
	there("after a run of what has changed")
	source("A5", "IF(x = 'A5', 99999999999, 1)") // refused: of the row nothing is decided
	must(t, w.reverse(""))
	must(t, w.reverse(""))
	there("where the other spelling is refused")
	source("a1", "1") // a5 is gone, and a1 comes twice
	must(t, w.reverse(""))
	if got := w.value(`SELECT string_agg(right(id::text, 2), ' ' ORDER BY id) FROM scores`); got != "a1 a2 a3" {
		t.Errorf("the rows are %s", got)
	}
}

// TestLedgerOfAnotherDatabase: what one database was told, another one was not.
func TestLedgerOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changesFile("upsert", "changes: ledger"), scoresSQL)
	w.rows("CREATE SCHEMA crm")
	w.rows("CREATE TABLE crm.scores AS SELECT n AS id, n AS score, CURRENT_TIMESTAMP() AS scored_at FROM UNNEST(GENERATE_ARRAY(1, 10)) AS n")
	must(t, w.reverse(""))
	w.exec(`CREATE TABLE backup AS SELECT * FROM tidemark.reverse_state; CREATE TABLE rows AS SELECT * FROM scores`)
	w.ahead.Add(int64(time.Minute))
	w.rows("UPDATE crm.scores SET score = 100 WHERE id = 3")
	must(t, w.reverse(""))
	w.read("1/1/0/0")
	// The database is restored to before that.
	w.exec(`DELETE FROM tidemark.reverse_state; INSERT INTO tidemark.reverse_state SELECT * FROM backup; DELETE FROM scores; INSERT INTO scores SELECT * FROM rows`)
	w.ahead.Add(int64(time.Minute))
	must(t, w.reverse(""))
	w.read("10/1/0/0")
	w.ahead.Add(int64(time.Minute))
	must(t, w.reverse(""))
	w.read("0/0/0/0")
}

// TestLedgerOfAnEmptySource: the brakes for the source as a whole hold for runs that read
// only what has changed, too.
func TestLedgerOfAnEmptySource(t *testing.T) {
	t.Parallel()
	for limits, rows := range map[string]string{"max_delete_percent: 100, max_swing_percent: 100": "0", "max_delete_percent: 100, max_swing_percent: 20": "7"} {
		w := newWorld(t, strings.Replace(changesFile("mirror", "changes: ledger"), "batch_size: 7", limits, 1), scoresSQL)
		w.rows("CREATE SCHEMA crm")
		w.rows("CREATE TABLE crm.scores AS SELECT n AS id, n AS score, CURRENT_TIMESTAMP() AS scored_at FROM UNNEST(GENERATE_ARRAY(1, 10)) AS n")
		must(t, w.reverse(""))
		w.ahead.Add(int64(time.Minute))
		w.rows("DELETE FROM crm.scores WHERE id > " + rows)
		if err := w.reverse(""); err == nil || !strings.Contains(err.Error(), "stopped by its brakes") {
			t.Errorf("%s: %v", limits, err)
		}
		if got := w.value(`SELECT count(*) FROM scores`); got != "10" {
			t.Errorf("%s: %s rows are left", limits, got)
		}
	}
}

// TestOverrideIsNotUsedUpInVain: a run that came no further has not had it.
func TestOverrideIsNotUsedUpInVain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirrorFile("lock_timeout: 100ms"), regionsSQL)
	w.rows("CREATE SCHEMA crm")
	w.regions(80)
	run := w.braked("20 rows of 100")
	tx, err := w.db.Begin(t.Context())
	must(t, err)
	if _, err := tx.Exec(t.Context(), `SELECT FROM regions FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	override := `{"pipeline":"crm","sync":"regions","override":` + run + `}`
	err = w.reverse(override)
	if class, _ := fault.Classify(err); err == nil || class != fault.Transient {
		t.Errorf("all rows are held, and the message is answered %v", err)
	}
	must(t, tx.Rollback(t.Context()))
	must(t, w.reverse(override))
	if got := w.value(`SELECT count(*) FROM regions`); got != "80" {
		t.Errorf("%s regions, want 80", got)
	}
}

// TestDryRunKeepsRejects, which are not of its making.
func TestDryRunKeepsRejects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("update", "SELECT 1 AS id, NUMERIC '5' AS score UNION ALL SELECT NULL, NUMERIC '6'", "score: score", ""), contactsSQL)
	must(t, w.reverse(""))
	w.exec(`UPDATE tidemark.rejects SET key = NULL`) // as of rows that came from a file
	must(t, w.reverse(`{"dry_run":true}`))
	if got := w.value(`SELECT count(*) FROM tidemark.rejects`); got != "1" {
		t.Errorf("%s rejects are kept, want 1", got)
	}
}

// TestPlanOfAWholeComparison is applied as it was planned, by another read of all.
func TestPlanOfAWholeComparison(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changesFile("upsert", "cursor: scored_at"), scoresSQL)
	w.rows("CREATE SCHEMA crm")
	w.rows("CREATE TABLE crm.scores AS SELECT n AS id, n AS score, TIMESTAMP '2026-01-01 00:00:00+00' AS scored_at FROM UNNEST(GENERATE_ARRAY(1, 10)) AS n")
	w.rows("UPDATE crm.scores SET scored_at = TIMESTAMP '2026-02-01 00:00:00+00' WHERE id = 10")
	must(t, w.reverse(""))
	w.exec(`UPDATE scores SET score = -1 WHERE id = 3`)
	must(t, w.reverse(`{"pipeline":"crm","sync":"scores","full":true,"dry_run":true}`))
	plan := w.value(`SELECT max(id) FROM tidemark.runs WHERE outcome = 'dry_run'`)
	must(t, w.reverse(`{"pipeline":"crm","sync":"scores","plan":`+plan+`}`))
	if got := w.value(`SELECT score FROM scores WHERE id = 3`); got != "3" {
		t.Errorf("score 3 is %s", got)
	}
}

// TestInsertWaitsForNobodyWithRowsInHand: the application is about to insert a key that the
// sync inserts too, and then writes a row that the sync has in the same batch.
func TestInsertWaitsForNobodyWithRowsInHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("upsert", "SELECT id, CONCAT('n', CAST(id AS STRING)) AS name FROM UNNEST(GENERATE_ARRAY(95, 105)) AS id", "name: name", "    limits: {batch_size: 100, lock_timeout: 20s}\n"), contactsSQL)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tx, err := w.db.Begin(ctx)
	must(t, err)
	if _, err := tx.Exec(ctx, `INSERT INTO contacts (id, name) VALUES (103, 'own')`); err != nil {
		t.Fatal(err)
	}
	synced := make(chan error, 1)
	go func() { synced <- w.reverse("") }()
	until(t, func() bool { return w.value(`SELECT count(*) FROM contacts WHERE name = 'n97'`) == "1" })
	if _, err := tx.Exec(ctx, `UPDATE contacts SET code = 'app' WHERE id BETWEEN 95 AND 100`); err != nil {
		t.Fatalf("the application's write failed: %v", err)
	}
	must(t, tx.Commit(ctx))
	must(t, <-synced)
	if got := w.value(`SELECT count(*) FILTER (WHERE name = 'n' || id) || ' ' || count(*) FILTER (WHERE code = 'app') FROM contacts WHERE id >= 95`); got != "11 6" {
		must(t, w.reverse(""))
		if got = w.value(`SELECT count(*) FILTER (WHERE name = 'n' || id) || ' ' || count(*) FILTER (WHERE code = 'app') FROM contacts WHERE id >= 95`); got != "11 6" {
			t.Errorf("as the query has it, and written by the application: %s", got)
		}
	}
}

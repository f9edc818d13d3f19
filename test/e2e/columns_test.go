package e2e_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/tidemark-data/tidemark/shared/fault"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// people is a table with something to hide, that every capture method can follow: its
// cursor grows with every change, and the application logs what it does.
const people = `
	CREATE TABLE people (
		id bigint PRIMARY KEY, org int NOT NULL DEFAULT 1, email text, phone varchar(40), password_hash text NOT NULL DEFAULT 'S3CRET-hash', first text, last text,
		born date, seen timestamptz, balance numeric(12,2) NOT NULL DEFAULT 12.50, score bigint, active boolean, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON people (updated_at, id);
	CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, object_id text NOT NULL, was text);
	CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END $$;
	CREATE TRIGGER changed BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION changed();
	CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF TG_OP <> 'INSERT' THEN INSERT INTO audit (object_id, was) VALUES (OLD.id, OLD.password_hash || OLD.email); END IF;
		IF TG_OP <> 'DELETE' THEN INSERT INTO audit (object_id, was) VALUES (NEW.id, NEW.password_hash || NEW.email); END IF;
		RETURN NULL; END $$;
	CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON people FOR EACH ROW EXECUTE FUNCTION audited();
	INSERT INTO people (id, email, phone, first, last, born, seen, score, active)
		SELECT n, 'C1EAR' || n || '@example.org', '0C1EAR' || n, 'first' || n, 'last' || n, date '1980-01-01' + n, timestamptz '2026-03-01 12:00+01' + n * interval '1 hour', n * 10, n % 3 > 0
		  FROM generate_series(1, 12) n;
	INSERT INTO people (id) VALUES (13)`

// method is a way to follow the people.
type method struct {
	capture string
	deletes bool // it sees them, and changes of the key
	logical bool // it needs wal_level
}

func methods() map[string]method {
	return map[string]method{
		"watermark":       {capture: "{method: watermark, cursor: updated_at}"},
		"changelog":       {capture: "{method: changelog}", deletes: true},
		"application log": {capture: "{method: changelog, log: {table: audit, cursor: id, object: object_id}}", deletes: true},
		"wal":             {capture: "{method: wal}", deletes: true, logical: true},
		"snapshot":        {capture: "{method: snapshot}", deletes: true},
	}
}

// newPeople starts a world with the people, followed by the method; options go into
// the table's declaration. What is hashed is hashed with hashKey.
func newPeople(t *testing.T, m method, options string, sql ...string) *world {
	t.Helper()
	start := newWorld
	if m.logical {
		start = newLogicalWorld
	}
	w := start(t, peopleFile(m, options), append([]string{people}, sql...)...)
	w.product.HashKey = []byte(hashKey)
	return w
}

const hashKey = "a key of the test, of 32 bytes..."

func peopleFile(m method, options string) string {
	return "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: people, capture: " + m.capture + options + "}\n"
}

// hashed is what a text becomes.
func hashed(key, text string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// sameRows compares the rows of two queries of texts, one on Postgres and one on
// BigQuery. hash are the columns of the first to be hashed with the key.
func (w *world) sameRows(when, postgres, bigquery, key string, hash ...int) {
	w.t.Helper()
	tx, err := w.db.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { must(w.t, tx.Rollback(w.t.Context())) }()
	if _, err := tx.Exec(w.t.Context(), `SET LOCAL timezone = 'UTC'`); err != nil {
		w.t.Fatal(err)
	}
	rows, err := tx.Query(w.t.Context(), postgres)
	if err != nil {
		w.t.Fatalf("%s: %v", postgres, err)
	}
	var want, got []string
	for rows.Next() {
		line := make([]string, len(rows.RawValues()))
		for i, raw := range rows.RawValues() {
			switch {
			case raw == nil:
				line[i] = "NULL"
			case slices.Contains(hash, i):
				line[i] = hashed(key, string(raw))
			default:
				line[i] = string(raw)
			}
		}
		want = append(want, strings.Join(line, " | "))
	}
	if err := rows.Err(); err != nil {
		w.t.Fatalf("%s: %v", postgres, err)
	}
	for _, row := range w.rows(bigquery) {
		line := make([]string, len(row))
		for i, value := range row {
			if line[i] = fmt.Sprint(value); value == nil {
				line[i] = "NULL"
			}
		}
		got = append(got, strings.Join(line, " | "))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// columns are the names of a table's columns in BigQuery.
func (w *world) columns(table string) []string {
	w.t.Helper()
	md, err := w.client.Dataset("shop").Table(table).Metadata(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	names := make([]string, len(md.Schema))
	for i, f := range md.Schema {
		names[i] = f.Name
	}
	slices.Sort(names)
	return names
}

// everyColumnOption is one of each; two names are swapped, one of them of a hashed column.
const everyColumnOption = `, deletes: hard, columns: {
	exclude: [password_hash, score, seen, org],
	rename: {id: person_id, first: last, last: first, email: email_hash},
	hash: [email, phone, born, balance],
	as: {updated_at: DATETIME, active: STRING},
	compute: {full_name: "first || ' ' || last -- as it is written", cents: "(people.balance * 100)::bigint", score: "score / 10", day: "to_char(seen, 'YYYY-MM-DD HH24')"}}`

func (w *world) everyColumn(when string) {
	w.t.Helper()
	w.sameRows(when,
		`SELECT id::text, first, last, email, phone, born::text, balance::text, active::text, first || ' ' || last, (balance * 100)::bigint::text, (score / 10)::text,
		        to_char(seen AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24'), to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM people`,
		"SELECT CAST(person_id AS STRING), `last`, `first`, email_hash, phone, born, balance, active, full_name, CAST(cents AS STRING), CAST(score AS STRING), day, FORMAT_DATETIME('%Y-%m-%d %H:%M:%E6S', updated_at) FROM shop.people",
		hashKey, 3, 4, 5, 6)
}

// peopleChanges are made of people; those of the second list only where a method sees deletes.
func peopleChanges(m method) []string {
	out := []string{
		`INSERT INTO people (id, email, first, active) VALUES (20, NULL, 'no last', true), (21, '', '', NULL), (22, 'C1EAR', 'ü', false)`,
		`UPDATE people SET email = 'C1EAR-new' || id, born = NULL, balance = 12.5, active = NOT active WHERE id < 6`,
		`BEGIN; UPDATE people SET first = last, last = first WHERE id > 6; UPDATE people SET score = 77 WHERE id = 7; COMMIT`,
	}
	if m.deletes {
		out = append(out,
			`DELETE FROM people WHERE id IN (1, 2, 20)`,
			`UPDATE people SET id = id + 100 WHERE id IN (3, 4)`,
			`BEGIN; DELETE FROM people WHERE id = 5; INSERT INTO people (id, email) VALUES (5, 'C1EAR back'); COMMIT`)
	}
	return out
}

// TestColumns: every option of columns, by every capture method, with the same result.
func TestColumns(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPeople(t, m, everyColumnOption)
			w.tick()
			w.everyColumn("at first")
			for _, change := range peopleChanges(m) {
				w.exec(change)
				w.tick()
				w.everyColumn(change)
			}
			must(t, w.extractOn(w.product, `{"full":true}`))
			w.everyColumn("full")
			want := []string{"_deleted", "_synced_at", "_version", "active", "balance", "born", "cents", "day", "email_hash", "first", "full_name", "last", "person_id", "phone", "score", "updated_at"}
			if diff := cmp.Diff(want, w.columns("people")); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
			if n := w.value(`SELECT count(*) FROM tidemark.rejects`); n != "0" {
				t.Errorf("%s rejects", n)
			}
		})
	}
}

// TestIncludeAlone carries what is named, and a cursor column need not be.
func TestIncludeAlone(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPeople(t, m, ", batch_rows: 4, deletes: hard, columns: {include: [id, first]}")
			w.tick()
			for _, change := range peopleChanges(m) {
				w.exec(change)
				w.tick()
				w.sameRows(change, `SELECT id::text, first FROM people`, "SELECT CAST(id AS STRING), first FROM shop.people", hashKey)
			}
			if diff := cmp.Diff([]string{"_deleted", "_synced_at", "_version", "first", "id"}, w.columns("people")); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
		})
	}
}

// TestColumnsOfQuery: include, exclude, hash and as go with a query too.
func TestColumnsOfQuery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
pipeline: shop
destination: {dataset: shop}
tables:
  - name: cards
    key: [id]
    query: SELECT id, email, password_hash, upper(first) AS name, score, updated_at FROM people
    capture: {method: watermark, cursor: updated_at}
    deletes: hard
    columns: {exclude: [password_hash, updated_at], hash: [email, id], as: {score: STRING}}
`, people)
	w.product.HashKey = []byte(hashKey)
	w.tick()
	for _, change := range peopleChanges(methods()["watermark"]) {
		w.exec(change)
		w.tick()
		w.sameRows(change, `SELECT id::text, email, upper(first), score::text FROM people`, "SELECT id, email, name, score FROM shop.cards", hashKey, 0, 1)
	}
}

// TestHashedKey: of a key that nobody may see rows leave as of any other.
func TestHashedKey(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		for kind, key := range map[string]string{
			"bigint": "", "text": `ALTER TABLE people ALTER id TYPE text USING 'k' || id`, "uuid": `ALTER TABLE people ALTER id TYPE uuid USING lpad(id::text, 32, '0')::uuid`,
			"timestamptz": `ALTER TABLE people ALTER id TYPE timestamptz USING timestamptz '2026-07-01 12:00+02' + id * interval '1 day'`,
			"char":        `ALTER TABLE people ALTER id TYPE char(12) USING 'k' || id`,
		} {
			if kind != "bigint" && name != "wal" && name != "changelog" {
				continue
			}
			t.Run(name+" by "+kind, func(t *testing.T) {
				t.Parallel()
				w := newPeople(t, m, ", deletes: hard, columns: {hash: [id], include: [id, score]}", key,
					`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$`)
				same := func(when string) {
					t.Helper()
					w.sameRows(when, `SELECT id::text, score::text FROM people`, "SELECT id, CAST(score AS STRING) FROM shop.people", hashKey, 0)
				}
				w.tick()
				same("at first")
				w.exec(`UPDATE people SET score = score + 1`)
				w.tick()
				same("changed")
				if m.deletes {
					w.exec(`DELETE FROM people WHERE score > 61`)
					w.tick()
					same("deleted")
				}
			})
		}
	}
}

// secrets collects what leaves: requests to BigQuery and log lines.
type secrets struct {
	mu   sync.Mutex
	seen bytes.Buffer
}

func (s *secrets) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Write(p)
}

func (s *secrets) observe(c emulator.Call) error {
	if m, ok := c.Request.(proto.Message); ok && c.Phase == emulator.Before {
		b, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		_, err = s.Write(b)
		return err
	}
	return nil
}

// TestHiddenValuesStayHidden: what is excluded or hashed is in nothing that is sent or
// logged, and in no table of ours, rejects and errors among it.
func TestHiddenValuesStayHidden(t *testing.T) { //nolint:paralleltest // it takes the place of the default logger
	var out secrets
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)
	for name, m := range methods() { //nolint:paralleltest // see above
		t.Run(name, func(t *testing.T) {
			w := newPeople(t, m, ", max_reject_percent: 100, deletes: hard, columns: {exclude: [password_hash], hash: [email, phone]}")
			w.bq.Intercept(out.observe)
			w.exec(`UPDATE people SET born = 'infinity' WHERE id = 4`)
			w.tick()
			for _, change := range peopleChanges(m) {
				w.exec(change)
				w.exec(`UPDATE people SET born = 'infinity' WHERE id = 8`)
				w.exec(`INSERT INTO audit (object_id, was) VALUES ('nobody', 'S3CRET, of no order')`)
				w.tick()
			}
			if n := w.value(`SELECT count(*) FROM tidemark.rejects WHERE row->>'first' IS NOT NULL`); n == "0" {
				t.Error("nothing was rejected")
			}
			tables := w.value(`SELECT string_agg(format('SELECT t::text FROM tidemark.%I AS t', relname), ' UNION ALL ') FROM pg_class WHERE relnamespace = 'tidemark'::regnamespace AND relkind = 'r'`)
			kept := w.value(`SELECT string_agg(t, ' ') FROM (` + tables + `) AS kept(t)`)
			out.mu.Lock()
			defer out.mu.Unlock()
			for where, text := range map[string]string{"sent or logged": out.seen.String(), "kept": kept} {
				for _, secret := range []string{"S3CRET", "C1EAR"} {
					if at := strings.Index(text, secret); at >= 0 {
						t.Errorf("%s is %s: ..%s..", secret, where, text[max(0, at-200):min(len(text), at+100)])
					}
				}
				if !strings.Contains(text, "last8") {
					t.Errorf("the test does not see what is %s", where)
				}
			}
		})
	}
}

// TestDeclarationChanges: under another declaration old rows are as new ones would be.
func TestDeclarationChanges(t *testing.T) {
	t.Parallel()
	for name, m := range methods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPeople(t, m, "")
			w.tick()
			for _, change := range []struct {
				options, key       string
				postgres, bigquery string
				again              bool // the whole table is read
			}{
				{", deletes: hard, columns: {hash: [email]}", hashKey, "email", "email", true},
				{", deletes: hard, columns: {hash: [email]}", "another key of 32 bytes or more.....", "email", "email", true},
				{", deletes: hard, schema_changes: resync, columns: {hash: [email], as: {score: STRING}}", hashKey, "email, score::text", "email, score", true},
				{", deletes: hard, schema_changes: resync, columns: {exclude: [email, password_hash]}", hashKey, "NULL, score::text", "NULL, CAST(score AS STRING)", true},
				{", deletes: hard, columns: {exclude: [email, password_hash, first]}", hashKey, "NULL, last", "NULL, last", false},
				{", deletes: hard, columns: {exclude: [email, password_hash]}", hashKey, "NULL, first", "NULL, first", true},
				{", deletes: hard, columns: {exclude: [email, password_hash], compute: {c: score + 1}}", hashKey, "NULL, (score + 1)::text", "NULL, CAST(c AS STRING)", true},
				{", deletes: hard, columns: {exclude: [email, password_hash], compute: {c: score + 2}}", hashKey, "NULL, (score + 2)::text", "NULL, CAST(c AS STRING)", true},
			} {
				generation := w.value(`SELECT generation FROM tidemark.sync_state WHERE table_name = 'people'`)
				product := w.with(peopleFile(m, change.options))
				product.HashKey = []byte(change.key)
				must(t, w.extractOn(product, ""))
				w.exec(`UPDATE people SET first = 'changed ' || first WHERE id = 2`) // while it may not be carried
				must(t, w.extractOn(product, ""))
				w.sameRows(change.options, "SELECT "+change.postgres+" FROM people", "SELECT "+change.bigquery+" FROM shop.people", change.key, 0)
				if after := w.value(`SELECT generation FROM tidemark.sync_state WHERE table_name = 'people'`); (after != generation) != change.again {
					t.Errorf("%s: generation %s after %s", change.options, after, generation)
				}
			}
		})
	}
}

// TestColumnsRefused: what a declaration gets wrong about the source stops its table,
// and says what the table has.
func TestColumnsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, peopleFile(methods()["watermark"], ""), people)
	for options, want := range map[string]string{
		"exclude: [password]":        "password_hash",
		"include: [id, nope]":        "password_hash",
		"hash: [emial]":              "password_hash",
		"rename: {emial: mail}":      "password_hash",
		"include: [email]":           "columns.include",
		"hash: [email]":              "TIDEMARK_HASH_KEY", // none is set
		"as: {email: DATE}":          "STRING",
		`compute: {c: "now()"}`:      "clock",
		"rename: {first: LAST}":      "rename",
		`compute: {First: "first"}`:  "rename",
		`compute: {c: "nope"}`:       "correct its name",
		`compute: {c: "(SELECT 1)"}`: "row alone",
	} {
		err := w.extractOn(w.with(peopleFile(methods()["watermark"], ", columns: {"+options+"}")), "")
		if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, want) {
			t.Errorf("%s: %v: %v, remedy %q", options, err, class, remedy)
		}
	}
	if n := w.value(`SELECT count(*) FROM tidemark.sync_state WHERE cursor IS NOT NULL`); n != "0" {
		t.Error("something was landed all the same")
	}
}

// TestRightsToTheColumns: to read some columns of a table takes the right to those alone,
// and the remedy for a missing one grants no more.
func TestRightsToTheColumns(t *testing.T) {
	t.Parallel()
	const options = `, deletes: hard, columns: {exclude: [password_hash, phone, org, updated_at], hash: [email], compute: {area: "left(phone, 2)"}}, where: "seen > '2020-01-01'"`
	for name, m := range methods() {
		if m.logical { // a publication takes the table's owner
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPeople(t, m, options, `ALTER TABLE people ADD hidden text DEFAULT 'S3CRET'`)
			c := w.connectAs("clerk", "GRANT SELECT ON audit TO %s")
			c.Pipelines, c.HashKey = w.pipelines(peopleFile(m, strings.Replace(options, "[password_hash,", "[password_hash, hidden,", 1))), []byte(hashKey)
			same := func(when string) {
				t.Helper()
				w.sameRows(when, `SELECT id::text, first, left(phone, 2), email FROM people WHERE seen > '2020-01-01'`, "SELECT CAST(id AS STRING), first, area, email FROM shop.people", hashKey, 3)
			}
			for range 3 {
				err := w.extractOn(c, "")
				if err == nil {
					break
				}
				class, remedy := fault.Classify(err)
				if class != fault.Permanent || !strings.Contains(remedy, "GRANT") {
					t.Fatalf("%v: remedy %q", err, remedy)
				}
				w.exec(remedy)
			}
			same("at first")
			for _, column := range []string{"password_hash", "hidden", "org"} {
				if got := w.value(`SELECT bool_or(has_column_privilege(rolname, 'people', $1, 'SELECT')) FROM pg_roles WHERE rolname LIKE 'clerk%' || current_database()`, column); got != "false" {
					t.Errorf("the remedy grants %s", column)
				}
			}
			for _, change := range peopleChanges(m) {
				w.exec(change)
				must(t, w.extractOn(c, ""))
				same(change)
			}
			must(t, w.extractOn(c, `{"full":true}`))
			same("full")
		})
	}
}

package e2e_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/reverse"
	"github.com/tidemark-data/tidemark/shared/tick"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

const contactsSQL = `
	CREATE TYPE tier AS ENUM ('gold', 'silver');
	CREATE TABLE contacts (
		id bigint PRIMARY KEY, name text NOT NULL, score numeric(6,2) CHECK (score < 1000), tier tier, seen timestamptz,
		code varchar(4), touched int NOT NULL DEFAULT 0, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON contacts (updated_at, id);
	CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;
	CREATE TRIGGER touch BEFORE UPDATE ON contacts FOR EACH ROW EXECUTE FUNCTION touch();
	INSERT INTO contacts (id, name) SELECT n, 'contact ' || n FROM generate_series(1, 100) n`

func reverseFile(mode, query, columns, options string) string {
	return "pipeline: crm\ndestination: {dataset: crm}\ntables:\n  - {name: contacts, capture: {method: watermark, cursor: updated_at}}\n" +
		"reverse_etl:\n  - name: scores\n    query: " + query + "\n    mode: " + mode + "\n    target: {table: contacts, key: {id: id}, columns: {" + columns + "}}\n" + options
}

func TestReverseUpdate(t *testing.T) {
	t.Parallel()
	query := "SELECT id, CAST(id AS NUMERIC) / 4 AS score, IF(MOD(id, 2) = 0, 'gold', 'silver') AS tier FROM `{dataset}.contacts` UNION ALL SELECT 5000, NUMERIC '1', 'gold'"
	w := newWorld(t, reverseFile("update", query, "score: score, tier: tier", "    limits: {batch_size: 7}\n"), contactsSQL)
	w.tick()
	must(t, w.reverse(`{"dry_run":true}`))
	if got := w.value(`SELECT count(score) FROM contacts`); got != "0" {
		t.Fatalf("a dry run wrote %s scores", got)
	}
	if got := w.value(`SELECT outcome || ' ' || (detail->>'update') || ' ' || (detail->>'absent') || ' ' || jsonb_array_length(detail->'samples') || ' ' || rows_written FROM tidemark.runs WHERE kind = 'reverse_etl'`); got != "dry_run 100 1 5 0" {
		t.Errorf("dry run recorded %q", got)
	}
	must(t, w.reverse(""))
	if got := w.value(`SELECT count(*) FROM contacts WHERE score = id / 4.0 AND tier = CASE WHEN id % 2 = 0 THEN 'gold' ELSE 'silver' END::tier AND touched = 1`); got != "100" {
		t.Errorf("%s contacts are right, want 100", got)
	}
	// Nothing has changed: nothing is written, no trigger fires.
	must(t, w.reverse(""))
	w.exec(`UPDATE contacts SET score = 999 WHERE id = 7`)
	must(t, w.reverse(""))
	if got := w.value(`SELECT sum(touched) FROM contacts`); got != "102" {
		t.Errorf("rows were written %s times, want 100, one by the test and one to mend it", got)
	}
	if got := w.value(`SELECT string_agg(rows_written || '/' || (detail->>'unchanged'), ',' ORDER BY id) FROM tidemark.runs WHERE kind = 'reverse_etl' AND outcome = 'ok'`); got != "100/0,0/100,1/99" {
		t.Errorf("runs recorded %s", got)
	}
	w.noStaging()
}

// noStaging fails if a staging table was left behind.
func (w *world) noStaging() {
	w.t.Helper()
	if got := w.value(`SELECT count(*) FROM pg_class WHERE relname LIKE 'stage\_%'`); got != "0" {
		w.t.Errorf("%s staging relations are left", got)
	}
}

func TestReverseUpsertAndRejects(t *testing.T) {
	t.Parallel()
	query := `SELECT * FROM UNNEST([
      STRUCT(1 AS id, 'one' AS name, NUMERIC '10.50' AS score, 'gold' AS tier, 'abcd' AS code),
      (200, 'new', NUMERIC '20', 'silver', 'x'),
      (201, 'new', NULL, NULL, NULL),
      (202, 'too precise', NUMERIC '1.005', NULL, NULL),
      (203, 'too big', NUMERIC '99999.99', NULL, NULL),
      (204, 'check', NUMERIC '1500', NULL, NULL),
      (205, 'enum', NUMERIC '1', 'bronze', NULL),
      (206, 'long', NUMERIC '1', NULL, 'abcde'),
      (207, NULL, NUMERIC '1', NULL, NULL),
      (208, 'twice', NUMERIC '1', NULL, NULL),
      (208, 'twice', NUMERIC '2', NULL, NULL),
      (NULL, 'no key', NUMERIC '1', NULL, NULL)])`
	w := newWorld(t, reverseFile("upsert", "|\n      "+query, "name: name, score: score, tier: tier, code: code", "    limits: {batch_size: 4}\n"), contactsSQL)
	must(t, w.reverse(""))
	if got := w.value(`SELECT string_agg(id || ' ' || name || ' ' || coalesce(score::text, '-'), ', ' ORDER BY id) FROM contacts WHERE id IN (1) OR id >= 200`); got != "1 one 10.50, 200 new 20.00, 201 new -" {
		t.Errorf("contacts: %s", got)
	}
	if got := w.value(`SELECT rows_read || ' ' || rows_written || ' ' || rows_rejected FROM tidemark.runs WHERE kind = 'reverse_etl'`); got != "12 3 9" {
		t.Errorf("run recorded %s", got)
	}
	if got := w.value(`SELECT string_agg(coalesce(row->>'id', 'null') || ':' || substr(reason, 1, 14), ' ' ORDER BY row->>'id', reason) FROM tidemark.rejects`); got != "202:the value woul 203:SQLSTATE 22003 204:SQLSTATE 23514 205:SQLSTATE 22P02 206:the value woul 207:SQLSTATE 23502 208:the query give 208:the query give null:the key is NUL" {
		t.Errorf("rejects: %s", got)
	}
	w.noStaging()
}

// TestReverseContinuationFindsTheLeaseFree stops for the deadline after one batch:
// the message that goes on must not meet the lease of the run that sent it.
func TestReverseContinuationFindsTheLeaseFree(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("update", "SELECT id, NUMERIC '5' AS score FROM UNNEST(GENERATE_ARRAY(1, 50)) AS id", "score: score", "    limits: {batch_size: 10}\n"), contactsSQL)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := w.product
	d := w.dispatcher(c, tick.TopicReverseETL)
	var sent int
	d.Publish = func(context.Context, ...tick.Message) error {
		sent++
		if got := w.value(`SELECT bool_and(expires_at <= clock_timestamp()) FROM tidemark.leases`); got != "true" {
			t.Error("the continuation was sent under the lease")
		}
		return nil
	}
	r := reverse.Runner{Dispatcher: d, Target: c.Source, Control: c.Control, Warehouse: c.Warehouse}
	must(t, r.Run(ctx, w.delivery("")))
	if got := w.value(`SELECT count(score) FROM contacts`); got != "10" || sent != 1 {
		t.Errorf("%s rows were written and %d continuations sent, want one batch of 10 and 1", got, sent)
	}
}

// TestReverseFailureKeepsRejects fails before it has looked at a row.
func TestReverseFailureKeepsRejects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("update", "SELECT CAST(NULL AS INT64) AS id, NUMERIC '5' AS score", "score: score", ""), contactsSQL)
	must(t, w.reverse(""))
	w.bq.Intercept(func(c emulator.Call) error {
		if c.Method == "CreateReadSession" && c.Phase == emulator.Before {
			return status.Error(codes.PermissionDenied, "not now")
		}
		return nil
	})
	if err := w.reverse(""); err == nil {
		t.Fatal("a result that cannot be read counted as done")
	}
	if got := w.value(`SELECT count(*) FROM tidemark.rejects`); got != "1" {
		t.Errorf("%s rejects are kept, want 1", got)
	}
}

// TestReverseQueryFailsOnData: BigQuery's error has the row's value in it, which belongs
// into no log; what is told is the job that has it.
func TestReverseQueryFailsOnData(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("update", "SELECT id, CAST(name AS NUMERIC) AS score FROM `{dataset}.contacts`", "score: score", ""), contactsSQL)
	w.provoked = []string{"Invalid Input Error: Could not cast"}
	w.tick()
	err := w.reverse("")
	class, remedy := fault.Classify(err)
	if err == nil || class != fault.Permanent || !strings.Contains(remedy, "bq show -j ") {
		t.Fatalf("got %v with the remedy %q", err, remedy)
	}
	if strings.Contains(err.Error(), "contact ") {
		t.Errorf("the error has a row's value: %v", err)
	}
	if got := w.value(`SELECT outcome || ' ' || rows_written FROM tidemark.runs WHERE kind = 'reverse_etl'`); got != "failed 0" {
		t.Errorf("recorded as %s", got)
	}
}

func TestReverseLeftOverStaging(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("update", "SELECT 1 AS id, NUMERIC '5' AS score", "score: score", ""), contactsSQL)
	must(t, w.reverse(""))
	// What a run killed before its clean-up leaves: tables under its own token.
	name := w.value(`SELECT 'stage_' || substr(encode(sha256('crm//scores'), 'hex'), 1, 16) || '_1_raw'`)
	w.exec(`CREATE UNLOGGED TABLE tidemark.` + name + ` (n int)`)
	must(t, w.reverse(""))
	w.noStaging()
}

// TestReverseUnstorable: a value Postgres has no form for costs its row, not the
// sync, and the row is kept so that it can be read.
func TestReverseUnstorable(t *testing.T) {
	t.Parallel()
	query := `SELECT * FROM UNNEST([STRUCT(1 AS id, 'one' AS name, NUMERIC '10.50' AS score, CAST(NULL AS FLOAT64) AS ratio, TRUE AS fit, ['x', 'y'] AS tags),
      (2, 'a\x00b', NUMERIC '-0.25', 0.5, FALSE, ['x']), (3, 'three', NUMERIC '30', 0.5, TRUE, ['z'])])`
	w := newWorld(t, reverseFile("update", "|\n      "+query, "name: name, score: score, ratio: ratio, fit: fit, tags: tags", ""),
		contactsSQL, "ALTER TABLE contacts ADD ratio real, ADD fit boolean, ADD tags text[]")
	must(t, w.reverse(""))
	if got := w.value(`SELECT string_agg(id || ' ' || name || ' ' || coalesce(score::text, '-'), ', ' ORDER BY id) FROM contacts WHERE id <= 3`); got != "1 one 10.50, 2 contact 2 -, 3 three 30.00" {
		t.Errorf("contacts: %s", got)
	}
	if got := w.value(`SELECT column_name || ': ' || reason || ': ' || row::jsonb::text FROM tidemark.rejects`); got != `name: text has a NUL byte, which PostgreSQL cannot store: {"id": 2, "fit": false, "name": "a\\u0000b", "tags": ["x"], "ratio": 0.5, "score": -0.250000000}` {
		t.Errorf("kept %s", got)
	}
	if got := w.value(`SELECT outcome || ' ' || rows_read || ' ' || rows_written || ' ' || rows_rejected FROM tidemark.runs WHERE kind = 'reverse_etl'`); got != "ok 3 2 1" {
		t.Errorf("run recorded %s", got)
	}
	w.noStaging()
}

// TestReverseLocked: rows another transaction holds are left and come later, by
// a message while that is of use, else by the next tick.
func TestReverseLocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("update", "SELECT id, NUMERIC '5' AS score FROM UNNEST(GENERATE_ARRAY(1, 20)) AS id", "score: score", "    limits: {batch_size: 7, lock_timeout: 100ms}\n"), contactsSQL)
	tx, err := w.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT FROM contacts WHERE id IN (2, 9) FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	must(t, w.reverse(""))
	continuation := []tick.Message{{Pipeline: "crm", Sync: "scores"}}
	if !slices.Equal(w.published, continuation) {
		t.Errorf("published %v, want %v", w.published, continuation)
	}
	must(t, w.reverse(`{"pipeline":"crm","sync":"scores"}`))
	if !slices.Equal(w.published, continuation) {
		t.Errorf("published %v: a run that could do nothing is to be followed by none", w.published)
	}
	must(t, tx.Rollback(t.Context()))
	must(t, w.reverse(""))
	if got := w.value(`SELECT count(*) FROM contacts WHERE score = 5`); got != "20" {
		t.Errorf("%s rows are written, want 20", got)
	}
	if got := w.value(`SELECT string_agg(outcome || ' ' || rows_written || '/' || (detail->>'locked'), ', ' ORDER BY id) FROM tidemark.runs WHERE kind = 'reverse_etl'`); got != "ok 18/2, ok 0/2, ok 2/0" {
		t.Errorf("runs recorded %s", got)
	}
	w.noStaging()
}

// TestReverseRefusesByName: what a message asks for and no run would do is an error.
func TestReverseRefusesByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("update", "SELECT 1 AS id, NUMERIC '5' AS score", "score: score", ""), contactsSQL)
	for _, message := range []string{`{"pipeline":"crm","sync":"scores","override":77}`, `{"pipeline":"crm","sync":"scores","plan":77}`, `{"sync":"score"}`, `{"table":"contact"}`, `{"sync":"scores","table":"orders"}`} {
		err := w.reverse(message)
		if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
			t.Errorf("%s: %v, want a permanent error with its remedy", message, err)
		}
	}
	if got := w.value(`SELECT count(*) FROM contacts WHERE score IS NOT NULL`); got != "0" {
		t.Errorf("%s rows were written", got)
	}
	must(t, w.reverse(`{"table":"contacts","dry_run":false}`))
	if got := w.value(`SELECT count(*) FROM contacts WHERE score = 5`); got != "1" {
		t.Errorf("%s rows were written, want 1", got)
	}
}

// TestPoisonRowInEveryBatch: a row that only its write finds to be refused is in every
// batch; all others land, and those are listed with the constraint's name.
func TestPoisonRowInEveryBatch(t *testing.T) {
	t.Parallel()
	query := "SELECT id, IF(MOD(id, 10) = 3, 'taken', CONCAT('c', CAST(id AS STRING))) AS code FROM UNNEST(GENERATE_ARRAY(1, 100)) AS id"
	w := newWorld(t, reverseFile("upsert", query, "code: code", "    limits: {batch_size: 10}\n"),
		`CREATE TABLE contacts (id bigint PRIMARY KEY, code text CONSTRAINT one_code UNIQUE, updated_at timestamptz DEFAULT now()); CREATE INDEX ON contacts (updated_at, id);
		 INSERT INTO contacts (id, code) SELECT n, 'old' || n FROM generate_series(1, 50) n; INSERT INTO contacts (id, code) VALUES (1000, 'taken')`)
	must(t, w.reverse(""))
	if got := w.value(`SELECT count(*) FILTER (WHERE code = 'c' || id) || ' ' || count(*) FILTER (WHERE code LIKE 'old%') || ' ' || count(*) FROM contacts`); got != "90 5 96" {
		t.Errorf("right, as before, all: %s", got)
	}
	if got := w.value(`SELECT count(*) || ' ' || count(DISTINCT row->>'id') || ' ' || bool_and(reason LIKE 'SQLSTATE 23505%(constraint one_code)') FROM tidemark.rejects`); got != "10 10 true" {
		t.Errorf("rejects: %s", got)
	}
	groups, err := controlplane.RejectGroups(t.Context(), w.db, "crm", "scores")
	if err != nil || len(groups) != 1 || groups[0].Rows != 10 || groups[0].Reason != "SQLSTATE 23505 (constraint one_code)" {
		t.Errorf("listed as %+v, %v", groups, err)
	}
	// The next run writes nothing, and has only those to try.
	must(t, w.reverse(""))
	if got := w.value(`SELECT rows_written || ' ' || rows_rejected || ' ' || (detail->>'unchanged') FROM tidemark.runs ORDER BY id DESC LIMIT 1`); got != "0 10 90" {
		t.Errorf("again: %s", got)
	}
}

package e2e_test

import (
	"testing"
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

package target_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// TestWritesOnlyWhatChanged: of 50,000 rows that are as they should be no tuple is
// written, nor locked, and the write-ahead log hears of the run's own tables alone; of
// those with 1,000 changed among them, 1,000 are.
func TestWritesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	const rows = 50_000
	d, _ := server(t, postgres.Options{Settings: map[string]string{"autovacuum": "off", "checkpoint_timeout": "1h"}},
		`CREATE TABLE t (id bigint PRIMARY KEY, name varchar(40), score numeric(10,2), seen timestamptz, ratio double precision, tags text[])`,
		fmt.Sprintf(`INSERT INTO t SELECT g, 'contact ' || g, g / 100.0, timestamptz '2026-01-01 00:00+00' + g * interval '1 second', g / 7.0::float8, ARRAY['a', 'b'] FROM generate_series(1, %d) g`, rows),
		`CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('fired'); RETURN NEW; END $$`, `CREATE SEQUENCE fired`,
		`CREATE TRIGGER fired BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION fired()`,
		`CREATE TRIGGER once AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION fired()`)
	for _, changed := range []int{0, 1000} {
		was := d.written()
		name := "'contact ' || g"
		if changed > 0 {
			name = fmt.Sprintf("'contact ' || CASE WHEN g %% %d = 0 THEN -g ELSE g END", rows/changed)
		}
		d.exec("CREATE TABLE before AS SELECT id, ctid AS at, xmin AS by, xmax AS lock FROM t")
		start := d.value("pg_current_wal_insert_lsn()")
		s := sync(pipeline.ModeUpsert, []string{"id"}, []string{"name", "score", "seen", "ratio", "tags"})
		s.Limits.BatchSize = 10_000
		stage := d.staged(s, fmt.Sprintf("SELECT g::bigint, %s, (g / 100.0)::numeric, timestamptz '2026-01-01 00:00+00' + g * interval '1 second', g / 7.0::float8, ARRAY['a', 'b'] FROM generate_series(1, %d) g", name, rows),
			id, target.Column{Name: "name", Type: "text"}, target.Column{Name: "score", Type: "numeric"}, target.Column{Name: "seen", Type: "timestamptz"},
			target.Column{Name: "ratio", Type: "double precision"}, target.Column{Name: "tags", Type: "text[]"})
		if p := d.plan(stage); p.Unchanged != int64(rows-changed) || p.Update != int64(changed) {
			t.Errorf("plan %s, want %d to change", mustJSON(t, p), changed)
		}
		got := d.apply(stage)
		if err := stage.Drop(t.Context()); err != nil {
			t.Error(err)
		}
		if got.Updated != int64(changed) || got.Inserted != 0 || !got.Done {
			t.Errorf("applied %s, want %d updated", mustJSON(t, got), changed)
		}
		logged := d.value("pg_current_wal_insert_lsn() - '" + start + "'::pg_lsn")
		if n, err := strconv.Atoi(logged); err != nil || n > 1_000_000+changed*1000 { // the table has 5 MB
			t.Errorf("with %d rows changed the write-ahead log grew by %s bytes, %v", changed, logged, err)
		}
		d.expect("SELECT count(*) FROM t JOIN before b USING (id) WHERE t.ctid <> b.at OR t.xmin <> b.by OR t.xmax <> b.lock", strconv.Itoa(changed))
		d.expect("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM fired", strconv.Itoa(changed+min(changed, 1))) // row by row, and one statement
		now := d.written()
		if want := [3]int{was[0], was[1] + changed, was[2]}; now != want {
			t.Errorf("tuples inserted, updated, deleted: %v, want %v", now, want)
		}
		d.exec("DROP TABLE before")
	}
}

// written are the tuples of t that were inserted, updated and deleted since there was
// a server. A session has told all when it is over.
func (d *database) written() (out [3]int) {
	d.t.Helper()
	d.product.Reset()
	d.app.Reset()
	d.until("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
	if err := d.app.QueryRow(d.t.Context(), "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname = 't'").Scan(&out[0], &out[1], &out[2]); err != nil {
		d.t.Fatal(err)
	}
	return out
}

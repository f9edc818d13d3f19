package bench_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/reverse"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	"github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/postgres"
)

const (
	reverseRows   = 1_000_000 // of a key and five columns
	reverseRounds = 2
)

// contacts are the rows of the table, their columns in the order of the mapping; of
// another version all but the key and the tags differ.
func contacts(version, rows int) string {
	return fmt.Sprintf(`SELECT g::bigint AS id, 'contact ' || g || ' v%[1]d' AS name, g / (7.0::float8 + %[1]d) AS ratio, (g / 100.0 + %[1]d)::numeric(10,2) AS score,
		timestamptz '2026-01-01 00:00+00' + g * interval '1 second' + %[1]d * interval '1 day' AS seen, ARRAY['a', 'b'] AS tags
		FROM generate_series(1, %[2]d) g`, version, rows)
}

const createContacts = `DROP TABLE IF EXISTS t;
	CREATE TABLE t (id bigint PRIMARY KEY, name varchar(40), ratio double precision, score numeric(10,2), seen timestamptz, tags text[]);`

// byHand is what people write.
const byHand = `
	CREATE UNLOGGED TABLE by_hand (LIKE t);
	\copy by_hand FROM '%s' CSV
	INSERT INTO t SELECT * FROM by_hand ON CONFLICT (id) DO UPDATE
	   SET name = excluded.name, score = excluded.score, seen = excluded.seen, ratio = excluded.ratio, tags = excluded.tags;
	DROP TABLE by_hand;`

// BenchmarkReverse writes a million rows, all changed: psql copies them as CSV into a
// staging table and upserts them in one statement; staging has the same rows from a
// file, and validates, compares and applies them in paced batches; and the whole
// product has them from BigQuery's emulator. They take turns, and the ratios of their
// rates are the figures.
func BenchmarkReverse(b *testing.B) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	url := reverseServer(b)
	csv, binary := filepath.Join(b.TempDir(), "contacts.csv"), filepath.Join(b.TempDir(), "contacts.copy")
	export(b, url, csv, "CSV", contacts(2, reverseRows))
	export(b, url, binary, "BINARY", contacts(2, reverseRows))
	pool := newPool(b, url)
	sync, runner := reverseSync(b), reverseRunner(b, url)
	took, phases := map[string]time.Duration{}, map[string]time.Duration{}
	turns := []struct {
		name string
		run  func() error
	}{
		{"psql", func() error { script(b, url, fmt.Sprintf(byHand, csv)); return nil }},
		{"staging", func() error { return stage(b.Context(), pool, sync, binary, phases) }},
		{"reverse", func() error {
			return runner.Run(b.Context(), tick.Delivery{Message: tick.Message{Sync: "contacts"}})
		}},
	}
	for range b.N {
		for range reverseRounds {
			for _, turn := range turns {
				fillContacts(b, url, reverseRows)
				start := time.Now()
				if err := turn.run(); err != nil {
					b.Fatalf("%s: %v", turn.name, err)
				}
				took[turn.name] += time.Since(start)
				if n := number(b, url, "SELECT count(*) FROM t JOIN ("+contacts(2, reverseRows)+") w USING (id, name, ratio, score, seen, tags)"); n != reverseRows {
					b.Fatalf("%s: %d rows are as they should be, want %d", turn.name, n, reverseRows)
				}
			}
		}
	}
	for name, d := range phases {
		b.ReportMetric(d.Seconds()/float64(reverseRounds*b.N), name+"-s")
	}
	for name, d := range took {
		b.ReportMetric(float64(reverseRounds*reverseRows*b.N)/d.Seconds(), name+"-rows/s")
	}
	b.ReportMetric(took["psql"].Seconds()/took["staging"].Seconds(), "staging/psql")
	b.ReportMetric(took["psql"].Seconds()/took["reverse"].Seconds(), "reverse/psql")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkReverseUnchanged has a million rows of which none, or a thousand, differ
// from those of the table: as many tuples are written.
func BenchmarkReverseUnchanged(b *testing.B) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	url := reverseServer(b)
	sync := reverseSync(b)
	const counted = "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 't'"
	for _, changed := range []int{0, 1000} {
		b.Run(strconv.Itoa(changed), func(b *testing.B) {
			file := filepath.Join(b.TempDir(), "contacts.copy")
			export(b, url, file, "BINARY", fmt.Sprintf("SELECT id, CASE WHEN id %% 1000 = 0 AND id <= 1000 * %d THEN 'changed' ELSE name END, ratio, score, seen, tags FROM (%s) c", changed, contacts(1, reverseRows)))
			fillContacts(b, url, reverseRows)
			for range b.N {
				pool, phases := newPool(b, url), map[string]time.Duration{}
				tuples, wal := number(b, url, counted), number(b, url, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
				start := time.Now()
				if err := stage(b.Context(), pool, sync, file, phases); err != nil {
					b.Fatal(err)
				}
				took := time.Since(start)
				wal = number(b, url, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint") - wal
				pool.Close() // a session that is over has told what it wrote
				for number(b, url, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()") > 0 {
					continue
				}
				if tuples = number(b, url, counted) - tuples; tuples != int64(changed) {
					b.Fatalf("%d tuples were written, want %d", tuples, changed)
				}
				b.ReportMetric(reverseRows/took.Seconds(), "rows/s")
				b.ReportMetric(float64(tuples), "tuples-written")
				b.ReportMetric(float64(wal), "wal-bytes")
				if changed > 0 {
					execute(b, url, "UPDATE t SET name = c.name FROM ("+contacts(1, reverseRows)+") c WHERE c.id = t.id AND t.name = 'changed'")
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func newPool(b *testing.B, url string) *pgxpool.Pool {
	b.Helper()
	pool, err := pgxpool.New(context.WithoutCancel(b.Context()), url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return pool
}

// reverseServer is set up as a server in production would be, with a disk to wait for.
func reverseServer(b *testing.B) string {
	b.Helper()
	server, err := postgres.Start(b.Context(), postgres.Options{Settings: map[string]string{
		"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off",
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Stop(); err != nil {
			b.Error(err)
		}
	})
	return server.URL("postgres")
}

func export(b *testing.B, url, file, format, rows string) {
	b.Helper()
	script(b, url, fmt.Sprintf("CREATE TEMP VIEW v AS %s;\n\\copy (SELECT * FROM v) TO '%s' (FORMAT %s)", rows, file, format))
}

// script runs psql on commands of several lines.
func script(b *testing.B, url, commands string) {
	b.Helper()
	file := filepath.Join(b.TempDir(), "script.sql")
	if err := os.WriteFile(file, []byte(commands), 0o600); err != nil {
		b.Fatal(err)
	}
	if out, err := exec.CommandContext(b.Context(), "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", file).CombinedOutput(); err != nil {
		b.Fatalf("psql: %v: %s", err, out)
	}
}

// fillContacts makes the table anew.
func fillContacts(b *testing.B, url string, rows int) {
	b.Helper()
	execute(b, url, createContacts+"INSERT INTO t "+contacts(1, rows))
	execute(b, url, "VACUUM ANALYZE t")
	execute(b, url, "CHECKPOINT")
}

func number(b *testing.B, url, sql string) (n int64) {
	b.Helper()
	ctx := b.Context()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, sql).Scan(&n); err != nil {
		b.Fatal(err)
	}
	return n
}

// reverseFile has a sync with the limits of all that say nothing of them.
const reverseFile = `
pipeline: bench
destination: {dataset: bench}
reverse_etl:
  - name: contacts
    query: |
      SELECT g AS id, CONCAT('contact ', CAST(g AS STRING), ' v2') AS name, g / 9.0 AS ratio, CAST(g AS NUMERIC) / 100 + 2 AS score,
             TIMESTAMP_ADD(TIMESTAMP '2026-01-03 00:00:00+00', INTERVAL g SECOND) AS seen, ['a', 'b'] AS tags
        FROM UNNEST(GENERATE_ARRAY(1, 1000000)) AS g
    mode: upsert
    target: {table: t, key: {id: id}, columns: {name: name, score: score, seen: seen, ratio: ratio, tags: tags}}
`

// reversePipelines reads it.
func reversePipelines(b *testing.B) []pipeline.Pipeline {
	b.Helper()
	pipelines, err := pipeline.Load(fstest.MapFS{"bench.yaml": {Data: []byte(reverseFile)}}, schemas.PipelineSchema())
	if err != nil {
		b.Fatal(err)
	}
	return pipelines
}

// reverseRunner is the product between BigQuery's emulator and the server.
func reverseRunner(b *testing.B, url string) *reverse.Runner {
	b.Helper()
	tables, err := bigquery.Start(b.Context(), bigquery.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := tables.Close(); err != nil {
			b.Error(err)
		}
	})
	source := cloudsql.Config{URL: url}
	c, err := instance.Connect(b.Context(), instance.Config{
		Source: source, Control: source, Pipelines: reversePipelines(b),
		Warehouse: warehouse.Config{Project: "bench", Host: tables.RESTHost(), StorageHost: tables.StorageHost()},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	return &reverse.Runner{Dispatcher: c.Dispatcher(tick.TopicReverseETL), Target: c.Source, Control: c.Control, Warehouse: c.Warehouse, Project: "bench"}
}

func reverseSync(b *testing.B) *pipeline.Sync {
	b.Helper()
	return &reversePipelines(b)[0].ReverseETL[0]
}

// stage does the walk from a result in a file to the table, and adds what each phase took.
func stage(ctx context.Context, pool *pgxpool.Pool, sync *pipeline.Sync, file string, phases map[string]time.Duration) error {
	last := time.Now()
	phase := func(name string) {
		phases[name] += time.Since(last)
		last = time.Now()
	}
	stage, err := target.Open(ctx, pool, sync, "public", "bench//contacts", 1, []target.Column{
		{Name: "id", Type: "bigint"},
		{Name: "name", Type: "text"},
		{Name: "score", Type: "numeric"},
		{Name: "seen", Type: "timestamptz"},
		{Name: "ratio", Type: "double precision"},
		{Name: "tags", Type: "text[]"},
	})
	if err != nil {
		return err
	}
	phase("open")
	loaded, err := stage.Load(ctx, func(w io.Writer) error { return send(w, file) })
	if err != nil {
		return err
	}
	phase("load")
	plan, err := stage.Plan(ctx, target.Extent{Whole: true})
	if err != nil {
		return err
	}
	phase("plan")
	applied, err := stage.Apply(ctx, func() bool { return true })
	if err != nil {
		return err
	}
	phase("apply")
	if !applied.Done || plan.Update+plan.Unchanged != loaded || applied.Updated != plan.Update {
		return fmt.Errorf("of %d rows %d were to change, and %d did", loaded, plan.Update, applied.Updated)
	}
	defer phase("drop")
	return stage.Drop(ctx)
}

func send(w io.Writer, file string) error {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(w, f)
	return err
}

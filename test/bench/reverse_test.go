package bench_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// reverseRows of a key and five columns.
const reverseRows = 1_000_000

// contacts are the rows of the table; of another version all columns but the key and
// the tags differ.
func contacts(version, rows int) string {
	return fmt.Sprintf(`SELECT g::bigint AS id, 'contact ' || g || ' v%[1]d' AS name, (g / 100.0 + %[1]d)::numeric(10,2) AS score,
		timestamptz '2026-01-01 00:00+00' + g * interval '1 second' + %[1]d * interval '1 day' AS seen, g / (7.0::float8 + %[1]d) AS ratio, ARRAY['a', 'b'] AS tags
		FROM generate_series(1, %[2]d) g`, version, rows)
}

const createContacts = `DROP TABLE IF EXISTS t;
	CREATE TABLE t (id bigint PRIMARY KEY, name varchar(40), score numeric(10,2), seen timestamptz, ratio double precision, tags text[]);`

// byHand is what people write.
const byHand = `
	CREATE UNLOGGED TABLE by_hand (LIKE t);
	\copy by_hand FROM '%s' CSV
	INSERT INTO t SELECT * FROM by_hand ON CONFLICT (id) DO UPDATE
	   SET name = excluded.name, score = excluded.score, seen = excluded.seen, ratio = excluded.ratio, tags = excluded.tags;
	DROP TABLE by_hand;`

// BenchmarkReverse writes a million rows, all changed, through staging, validation,
// comparison and paced batches; and has psql copy the same rows as CSV into a staging
// table and upsert them in one statement, in turns. The ratio of their rates is the
// figure.
func BenchmarkReverse(b *testing.B) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	url := reverseServer(b)
	csv, binary := filepath.Join(b.TempDir(), "contacts.csv"), filepath.Join(b.TempDir(), "contacts.copy")
	export(b, url, csv, "CSV", reverseRows)
	export(b, url, binary, "BINARY", reverseRows)
	pool, err := pgxpool.New(context.WithoutCancel(b.Context()), url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	var hand, staged time.Duration
	phases := map[string]time.Duration{}
	for range b.N {
		for round := range 4 {
			fillContacts(b, url, reverseRows)
			start := time.Now()
			if round%2 == 0 {
				script(b, url, fmt.Sprintf(byHand, csv))
				hand += time.Since(start)
			} else {
				stage(b, pool, binary, reverseRows, phases)
				staged += time.Since(start)
			}
			if got := scan(b, url, "SELECT count(*) FROM t JOIN ("+contacts(2, reverseRows)+") w USING (id, name, seen, ratio, tags) WHERE t.score = w.score"); got != reverseRows {
				b.Fatalf("%d rows are as they should be, want %d", got, reverseRows)
			}
		}
	}
	n := float64(2 * reverseRows * b.N)
	for name, took := range phases {
		b.ReportMetric(took.Seconds()/float64(2*b.N), name+"-s")
	}
	b.ReportMetric(n/staged.Seconds(), "reverse-rows/s")
	b.ReportMetric(n/hand.Seconds(), "psql-rows/s")
	b.ReportMetric(hand.Seconds()/staged.Seconds(), "reverse/psql")
	b.ReportMetric(0, "ns/op")
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

func export(b *testing.B, url, file, format string, rows int) {
	b.Helper()
	script(b, url, fmt.Sprintf("CREATE TEMP VIEW v AS %s;\n\\copy (SELECT * FROM v) TO '%s' (FORMAT %s)", contacts(2, rows), file, format))
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

func scan(b *testing.B, url, sql string) (n int64) {
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
    query: SELECT * FROM contacts
    mode: upsert
    target: {table: t, key: {id: id}, columns: {name: name, score: score, seen: seen, ratio: ratio, tags: tags}}
`

func reverseSync(b *testing.B) *pipeline.Sync {
	b.Helper()
	pipelines, err := pipeline.Load(fstest.MapFS{"bench.yaml": {Data: []byte(reverseFile)}}, schemas.PipelineSchema())
	if err != nil {
		b.Fatal(err)
	}
	return &pipelines[0].ReverseETL[0]
}

// stage does the walk from a result in a file to the table, and adds what each phase took.
func stage(b *testing.B, pool *pgxpool.Pool, file string, rows int64, phases map[string]time.Duration) {
	b.Helper()
	ctx := b.Context()
	last := time.Now()
	phase := func(name string) {
		phases[name] += time.Since(last)
		last = time.Now()
	}
	stage, err := target.Open(ctx, pool, reverseSync(b), "public", "bench//contacts", 1, []target.Column{
		{Name: "id", Type: "bigint"},
		{Name: "name", Type: "text"},
		{Name: "score", Type: "numeric"},
		{Name: "seen", Type: "timestamptz"},
		{Name: "ratio", Type: "double precision"},
		{Name: "tags", Type: "text[]"},
	})
	if err != nil {
		b.Fatal(err)
	}
	phase("open")
	if _, err := stage.Load(ctx, func(w io.Writer) error { return send(w, file) }); err != nil {
		b.Fatal(err)
	}
	phase("load")
	if plan, err := stage.Plan(ctx, target.Extent{Whole: true}); err != nil || plan.Update != rows {
		b.Fatal(plan, err)
	}
	phase("plan")
	if applied, err := stage.Apply(ctx, func() bool { return true }); err != nil || !applied.Done {
		b.Fatal(applied, err)
	}
	phase("apply")
	if err := stage.Drop(ctx); err != nil {
		b.Fatal(err)
	}
	phase("drop")
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

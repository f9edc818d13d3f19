package bench_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/test/postgres"
)

const (
	idleTables = 100
	idleRows   = 100_000
)

func idleFile(capture string) string {
	var b strings.Builder
	b.WriteString("pipeline: idle\ndestination: {dataset: idle}\ntables:\n")
	for n := range idleTables {
		fmt.Fprintf(&b, "  - {name: t%d, capture: {%s}}\n", n, capture)
	}
	return b.String()
}

// BenchmarkIdleTick is what a tick costs the database, planning and execution of every
// statement, when nothing has changed in 100 tables of 100,000 rows.
func BenchmarkIdleTick(b *testing.B) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	server, err := postgres.Start(b.Context(), postgres.Options{Settings: postgres.StatementSettings()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Stop(); err != nil {
			b.Error(err)
		}
	})
	conn, err := pgx.Connect(b.Context(), server.URL("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	exec := func(sql string) {
		b.Helper()
		if _, err := conn.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	exec(`CREATE DATABASE template_idle`)
	template, err := pgx.Connect(b.Context(), server.URL("template_idle"))
	if err != nil {
		b.Fatal(err)
	}
	for n := range idleTables {
		if _, err := template.Exec(b.Context(), fmt.Sprintf(`
			CREATE TABLE t%[1]d AS SELECT n AS id, timestamptz '2026-01-01' + n * interval '1 second' AS updated_at, 'row ' || n AS name FROM generate_series(1, %[2]d) n;
			ALTER TABLE t%[1]d ADD PRIMARY KEY (id), ALTER updated_at SET NOT NULL; CREATE INDEX ON t%[1]d (updated_at, id); ANALYZE t%[1]d`, n, idleRows)); err != nil {
			b.Fatal(err)
		}
	}
	if err := template.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	for _, capture := range []string{"method: watermark, cursor: updated_at", "method: changelog"} {
		method, _, _ := strings.Cut(strings.TrimPrefix(capture, "method: "), ",")
		b.Run(method, func(b *testing.B) {
			exec(`CREATE DATABASE ` + method + ` TEMPLATE template_idle`)
			b.Cleanup(func() { execute(b, server.URL("postgres"), `DROP DATABASE `+method+` WITH (FORCE)`) })
			idle(b, server.URL(method), idleFile(capture))
		})
	}
}

func idle(b *testing.B, url, file string) {
	b.Helper()
	product, sink, warehouse := connect(b, url, file)
	calls := func() (n int) {
		for _, c := range warehouse.Calls() {
			n += c
		}
		return n + int(sink.Committed())
	}
	extractOnce(b, product) // follows the tables, and reads them
	extractOnce(b, product)
	before := calls()
	var total time.Duration
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		if err := postgres.ResetStatements(b.Context(), url); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		extractOnce(b, product)
		b.StopTimer()
		statements, spent, err := postgres.Statements(b.Context(), url)
		if err != nil {
			b.Fatal(err)
		}
		total += spent
		for _, s := range statements[:min(5, len(statements))] {
			b.Logf("%6d calls %8.2f ms plan %8.2f ms execute  %.90s", s.Calls, s.Plan.Seconds()*1000, s.Execute.Seconds()*1000, strings.Join(strings.Fields(s.Query), " "))
		}
	}
	if after := calls(); after != before {
		b.Fatalf("idle ticks made %d calls of BigQuery", after-before)
	}
	b.ReportMetric(total.Seconds()*1000/float64(b.N), "database-ms/tick")
	b.ReportMetric(0, "ns/op")
}

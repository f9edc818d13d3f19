package target_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/test/postgres"
)

const benchRows = 200_000

const benchTable = `CREATE TABLE t (id bigint PRIMARY KEY, name varchar(40), score numeric(10,2), seen timestamptz, ratio double precision, tags text[]);
	INSERT INTO t SELECT g, 'contact ' || g, g / 100.0, timestamptz '2026-01-01 00:00+00' + g * interval '1 second', g / 7.0, ARRAY['a', 'b'] FROM generate_series(1, 200000) g;
	VACUUM ANALYZE t`

// BenchmarkSync times the walk from staging to the last batch for 200,000 rows,
// of which all, or none, are in the table as they should be.
func BenchmarkSync(b *testing.B) {
	for name, score := range map[string]string{"unchanged": "g / 100.0", "changed": "g / 50.0"} {
		b.Run(name, func(b *testing.B) {
			ctx := context.Background()
			url := postgres.NewDatabase(b)
			pool, err := pgxpool.New(ctx, url+"&search_path=public")
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(pool.Close)
			conn, err := pgx.Connect(ctx, url+"&search_path=public")
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = conn.Close(ctx) })
			for b.Loop() {
				b.StopTimer()
				if _, err := conn.Exec(ctx, "DROP TABLE IF EXISTS t"); err != nil {
					b.Fatal(err)
				}
				if err := script(ctx, conn, benchTable); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				benchRun(b, pool, url, score)
			}
			b.ReportMetric(float64(benchRows*b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// script runs statements one after the other, each in its own transaction.
func script(ctx context.Context, conn *pgx.Conn, sql string) error {
	var errs []error
	for _, s := range []string{sql[:len(sql)-len("VACUUM ANALYZE t")], "VACUUM ANALYZE t"} {
		_, err := conn.Exec(ctx, s)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func benchRun(b *testing.B, pool *pgxpool.Pool, url, score string) {
	b.Helper()
	ctx := context.Background()
	s := sync(pipeline.ModeUpsert, []string{"id"}, []string{"name", "score", "seen", "ratio", "tags"})
	s.Limits.BatchSize = 1000
	stage, err := target.Open(ctx, pool, s, "public", "p//s", 1, []target.Column{
		id,
		{Name: "name", Type: "text"},
		{Name: "score", Type: "numeric"},
		{Name: "seen", Type: "timestamptz"},
		{Name: "ratio", Type: "double precision"},
		{Name: "tags", Type: "text[]"},
	})
	if err != nil {
		b.Fatal(err)
	}
	phase := func(what string, from time.Time) { b.ReportMetric(time.Since(from).Seconds(), what+"-s") }
	start := time.Now()
	if _, err := stage.Load(ctx, func(w io.Writer) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		_, err = conn.PgConn().CopyTo(ctx, w, "COPY (SELECT g::bigint, 'contact ' || g, ("+score+")::numeric, timestamptz '2026-01-01 00:00+00' + g * interval '1 second', (g / 7.0)::float8, ARRAY['a', 'b'] FROM generate_series(1, 200000) g) TO STDOUT (FORMAT binary)")
		return errors.Join(err, conn.Close(ctx))
	}); err != nil {
		b.Fatal(err)
	}
	phase("load", start)
	start = time.Now()
	plan, err := stage.Plan(ctx, target.Extent{})
	if err != nil || plan.Update+plan.Unchanged != benchRows || len(plan.Rejects) != 0 {
		b.Fatal(plan, err)
	}
	phase("plan", start)
	start = time.Now()
	if _, err := stage.Apply(ctx, always); err != nil {
		b.Fatal(err)
	}
	phase("apply", start)
	if err := stage.Drop(ctx); err != nil {
		b.Fatal(err)
	}
}

// Package bench_test measures, as ratios within one run, so that the machine
// cancels out.
package bench_test

import (
	"context"
	"io"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/extract"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	"github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/discard"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// rows of 14 mixed columns: what an orders table of a shop may look like.
const rows = 2_000_000

const create = `
	CREATE TABLE public.wide (
		id bigint PRIMARY KEY, customer int NOT NULL, line smallint, active boolean, price numeric(12,2), weight double precision,
		name text, status varchar(16), reference uuid, day date, created_at timestamptz NOT NULL, local_at timestamp,
		attributes jsonb, updated_at timestamptz NOT NULL);
	INSERT INTO public.wide
	SELECT n, n % 100000, n % 9, n % 3 = 0, n * 0.37, sqrt(n), 'name of row ' || n, 'status' || n % 5, md5(n::text)::uuid,
	       date '2020-01-01' + (n % 2000), timestamptz '2020-01-01' + n * interval '10 second', timestamp '2020-01-01' + n * interval '7 second',
	       jsonb_build_object('a', n, 'b', 'x' || n % 100), timestamptz '2020-01-01' + n * interval '10 second'
	  FROM generate_series(1, $ROWS) n;
	CREATE INDEX ON public.wide (updated_at, id);
	ANALYZE public.wide;`

const file = `
pipeline: bench
destination: {dataset: bench}
tables:
  - {name: wide, capture: {method: watermark, cursor: updated_at}}
`

// BenchmarkExtract moves 2 million rows into a server that checks and discards
// them, and psql throws the same COPY away, in turns; the ratio of their rates
// is the figure.
func BenchmarkExtract(b *testing.B) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	url := prepare(b)
	copied, extracted := time.Duration(0), time.Duration(0)
	product, sink, _ := connect(b, url, file)
	b.ResetTimer()
	for range b.N {
		for range 3 {
			copied += psql(b, url)
			extracted += run(b, product, sink, url)
		}
	}
	b.StopTimer()
	n := float64(3 * rows * b.N)
	b.ReportMetric(n/extracted.Seconds(), "extract-rows/s")
	b.ReportMetric(n/copied.Seconds(), "psql-copy-rows/s")
	b.ReportMetric(copied.Seconds()/extracted.Seconds(), "extract/psql")
	b.ReportMetric(0, "ns/op")
}

func prepare(b *testing.B) string {
	b.Helper()
	ctx := b.Context()
	server, err := postgres.Start(ctx, postgres.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Stop(); err != nil {
			b.Error(err)
		}
	})
	url := server.URL("postgres")
	execute(b, url, strings.ReplaceAll(create, "$ROWS", strconv.Itoa(rows)))
	return url
}

func psql(b *testing.B, url string) time.Duration {
	b.Helper()
	start := time.Now()
	cmd := exec.CommandContext(b.Context(), "psql", "-X", "-q", "-d", url, "-c", "COPY public.wide TO STDOUT (FORMAT binary)")
	cmd.Stdout = nil // the null device
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

func connect(b *testing.B, url, file string) (*instance.Connections, *discard.Server, *bigquery.Server) {
	b.Helper()
	ctx := b.Context()
	sink, err := discard.Start(ctx)
	if err != nil {
		b.Fatal(err)
	}
	tables, err := bigquery.Start(ctx, bigquery.Options{})
	if err != nil {
		b.Fatal(err)
	}
	pipelines, err := pipeline.Load(fstest.MapFS{"bench.yaml": {Data: []byte(file)}}, schemas.PipelineSchema())
	if err != nil {
		b.Fatal(err)
	}
	source := cloudsql.Config{URL: url}
	c, err := instance.Connect(ctx, instance.Config{
		Source: source, Control: source, Pipelines: pipelines,
		Warehouse: warehouse.Config{Project: "bench", Host: tables.RESTHost(), StorageHost: sink.Host()},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for _, closer := range []io.Closer{c, sink, tables} {
			if err := closer.Close(); err != nil {
				b.Error(err)
			}
		}
	})
	return c, sink, tables
}

func run(b *testing.B, c *instance.Connections, sink *discard.Server, url string) time.Duration {
	b.Helper()
	execute(b, url, `DELETE FROM tidemark.sync_state`)
	before := sink.Committed()
	start := time.Now()
	extractOnce(b, c)
	took := time.Since(start)
	if n := sink.Committed() - before; n != rows {
		b.Fatalf("%d rows were committed, want %d", n, rows)
	}
	return took
}

func extractOnce(b *testing.B, c *instance.Connections) {
	b.Helper()
	r := extract.Runner{Dispatcher: c.Dispatcher(tick.TopicExtract), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse, HashKey: c.HashKey}
	if err := r.Run(b.Context(), tick.Delivery{}); err != nil {
		b.Fatal(err)
	}
}

func execute(b *testing.B, url, sql string) {
	b.Helper()
	ctx := context.WithoutCancel(b.Context()) // clean-ups run when it is over
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		b.Fatal(err)
	}
}

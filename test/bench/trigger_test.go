package bench_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/test/postgres"
)

const (
	pgbenchScale  = 10
	pgbenchRounds = 5
	pgbenchPeriod = "4" // seconds of a round
)

// workload is what pgbench does.
type workload struct {
	name    string
	clients int
	rows    int    // a transaction
	script  string // of its own; empty: the built-in one that is TPC-B-like
}

// Ranges of accounts are scanned in one order, so that transactions wait for each
// other and do not deadlock.
const (
	updateRows = `
		\set first random(1, 100000 * :scale - 999)
		UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid BETWEEN :first AND :first + 999;`
	insertRows = `
		\set first random(1, 100000 * :scale - 999)
		INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) SELECT 1, 1, aid, 1, now() FROM generate_series(:first, :first + 999) AS aid;`
)

// BenchmarkTriggers measures pgbench on two databases of one server with fsync, of
// which one has the triggers of our change log on every table, in turns; the ratio of
// their transactions per second is the figure. They cost most where a statement writes
// many rows for one commit to wait for.
func BenchmarkTriggers(b *testing.B) {
	without, with, program := pgbenchServer(b)
	for _, w := range []workload{
		{name: "tpcb", clients: 4, rows: 4},
		{name: "update-1000", clients: 2, rows: 1000, script: updateRows},
		{name: "insert-1000", clients: 2, rows: 1000, script: insertRows},
	} {
		b.Run(w.name, func(b *testing.B) {
			script := ""
			if w.script != "" {
				script = filepath.Join(b.TempDir(), w.name+".sql")
				if err := os.WriteFile(script, []byte(w.script), 0o600); err != nil {
					b.Fatal(err)
				}
			}
			var before, after, ratios, costs []float64
			for range b.N {
				for round := range pgbenchRounds {
					tps := map[string]float64{}
					for turn := range 2 { // each goes first as often as the other
						database := []string{without, with}[(round+turn)%2]
						if database == with {
							execute(b, with, `TRUNCATE tidemark.change_log`) // as ticks would have trimmed it
						}
						tps[database] = pgbench(b, program, database, script, w.clients)
					}
					before, after = append(before, tps[without]), append(after, tps[with])
					ratios = append(ratios, tps[with]/tps[without])
					costs = append(costs, 1e6*float64(w.clients)*(1/tps[with]-1/tps[without])/float64(w.rows))
				}
			}
			b.ReportMetric(median(before), "tps-without")
			b.ReportMetric(median(after), "tps-with")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(costs), "µs/logged-row")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// pgbenchServer starts the server and fills both databases: the second has the
// triggers. The history has no key as pgbench makes it, so it is given one in both.
func pgbenchServer(b *testing.B) (without, with, program string) {
	b.Helper()
	ctx := b.Context()
	server, err := postgres.Start(ctx, postgres.Options{Settings: map[string]string{
		"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Stop(); err != nil {
			b.Error(err)
		}
	})
	if program, err = server.Program("pgbench"); err != nil {
		b.Fatal(err)
	}
	urls := map[string]string{"without": "", "with": ""}
	for name := range urls {
		execute(b, server.URL("postgres"), `CREATE DATABASE "`+name+`"`)
		urls[name] = server.URL(name)
		if out, err := exec.CommandContext(ctx, program, "--initialize", "--quiet", "--scale", strconv.Itoa(pgbenchScale), urls[name]).CombinedOutput(); err != nil {
			b.Fatalf("pgbench --initialize: %v: %s", err, out)
		}
		execute(b, urls[name], `ALTER TABLE pgbench_history ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY`)
	}
	install(b, urls["with"], "pgbench_accounts", "pgbench_branches", "pgbench_history", "pgbench_tellers")
	execute(b, server.URL("postgres"), `CHECKPOINT`)
	return urls["without"], urls["with"], program
}

// install has the product put its triggers on tables.
func install(b *testing.B, url string, tables ...string) {
	b.Helper()
	ctx := b.Context()
	pool, closePool, err := cloudsql.Open(ctx, cloudsql.Config{URL: url}, 2)
	if err != nil {
		b.Fatal(err)
	}
	defer closePool()
	for _, name := range tables {
		table, err := catalog.Describe(ctx, pool, "public", name)
		if err != nil {
			b.Fatal(err)
		}
		rows, err := source.NewRows(source.Rows{Table: table})
		if err != nil {
			b.Fatal(err)
		}
		capture, _, err := source.NewCapture(ctx, source.Spec{
			Pipeline: &pipeline.Pipeline{Name: "bench", Schema: "public"}, Rows: rows, Source: pool, Control: pool,
			Table: &pipeline.Table{Name: name, Capture: pipeline.Capture{Method: pipeline.MethodChangelog}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := capture.Start(ctx, pool); err != nil {
			b.Fatal(err)
		}
	}
}

// pgbench runs one round and returns its transactions per second.
func pgbench(b *testing.B, program, url, script string, clients int) float64 {
	b.Helper()
	args := []string{"--no-vacuum", "--client", strconv.Itoa(clients), "--jobs", "2", "--time", pgbenchPeriod, "--scale", strconv.Itoa(pgbenchScale), "--protocol", "prepared"}
	if script != "" {
		args = append(args, "--file", script)
	}
	out, err := exec.CommandContext(b.Context(), program, append(args, url)...).CombinedOutput()
	if err != nil {
		b.Fatalf("pgbench: %v: %s", err, out)
	}
	found := regexp.MustCompile(`(?m)^tps = ([0-9.]+) `).FindSubmatch(out)
	if found == nil {
		b.Fatalf("pgbench gave no rate: %s", out)
	}
	tps, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return tps
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

package bench_test

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/test/postgres"
)

const (
	loadedRows = 500_000
	loadRate   = 400 // transactions a second
	// One row is written and others are read, all over the table, by its key.
	loadScript = `
		\set id random(1, 500000)
		\set other random(1, 500000)
		BEGIN;
		SELECT name, score FROM t WHERE id = :other;
		UPDATE t SET touched = touched + 1 WHERE id = :id;
		END;`
)

// transaction is one of pgbench: when it was over, and how long it took from when it
// was due.
type transaction struct {
	at      time.Time
	latency time.Duration
}

// BenchmarkReverseBesideLoad measures the 99th percentile of the latency of an
// application's transactions on a table of 500,000 rows, and again while a sync
// changes all of them, with the limits a sync has by default; the ratio is the figure.
func BenchmarkReverseBesideLoad(b *testing.B) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	server, err := postgres.Start(b.Context(), postgres.Options{Settings: map[string]string{
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
	url := server.URL("postgres")
	pool := newPool(b, url)
	load := newLoad(b, server)
	binary := filepath.Join(b.TempDir(), "contacts.copy")
	export(b, url, binary, "BINARY", contacts(2, loadedRows))
	sync := reverseSync(b)
	var ratios []float64
	for range b.N {
		fillContacts(b, url, loadedRows)
		execute(b, url, "ALTER TABLE t ADD touched int NOT NULL DEFAULT 0")
		load.run() // caches
		without := p99(load.run())
		phases, ended := map[string]time.Duration{}, make(chan struct{})
		start := time.Now()
		go func() {
			defer close(ended)
			if err := stage(b.Context(), pool, sync, binary, phases); err != nil {
				b.Error(err)
			}
		}()
		during := slices.DeleteFunc(load.until(ended), func(t transaction) bool { return t.at.Before(start) })
		took := time.Duration(0)
		for _, d := range phases {
			took += d
		}
		during = slices.DeleteFunc(during, func(t transaction) bool { return t.at.After(start.Add(took)) })
		if len(during) < 500 {
			b.Fatalf("%d transactions beside the sync tell nothing", len(during))
		}
		with := p99(during)
		ratios = append(ratios, with.Seconds()/without.Seconds())
		b.ReportMetric(without.Seconds()*1000, "p99-without-ms")
		b.ReportMetric(with.Seconds()*1000, "p99-with-ms")
		b.ReportMetric(loadedRows/took.Seconds(), "reverse-rows/s")
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(0, "ns/op")
}

// pgbenchLoad is what an application does, at a rate.
type pgbenchLoad struct {
	b                    *testing.B
	program, script, url string
}

func newLoad(b *testing.B, server *postgres.Server) *pgbenchLoad {
	b.Helper()
	program, err := server.Program("pgbench")
	if err != nil {
		b.Fatal(err)
	}
	script := filepath.Join(b.TempDir(), "load.sql")
	if err := os.WriteFile(script, []byte(loadScript), 0o600); err != nil {
		b.Fatal(err)
	}
	return &pgbenchLoad{b, program, script, server.URL("postgres")}
}

// until runs rounds of it until ended is closed.
func (l *pgbenchLoad) until(ended <-chan struct{}) []transaction {
	var out []transaction
	for {
		out = append(out, l.run()...)
		select {
		case <-ended:
			return out
		default:
		}
	}
}

// run does one round and returns its transactions.
func (l *pgbenchLoad) run() []transaction {
	dir := l.b.TempDir()
	out, err := exec.CommandContext(l.b.Context(), l.program, "--no-vacuum", "--client", "4", "--time", "10", "--rate", strconv.Itoa(loadRate), "--protocol", "prepared",
		"--file", l.script, "--log", "--log-prefix", filepath.Join(dir, "log"), l.url).CombinedOutput()
	if err != nil {
		l.b.Errorf("pgbench: %v: %s", err, out)
		return nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "log.*"))
	if err != nil || len(files) == 0 {
		l.b.Errorf("pgbench wrote no log: %v", err)
		return nil
	}
	var all []transaction
	for _, file := range files {
		text, err := os.ReadFile(filepath.Clean(file))
		if err != nil {
			l.b.Error(err)
			return nil
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			t, err := parseTransaction(lines.Text())
			if err != nil {
				l.b.Error(err)
				return nil
			}
			all = append(all, t)
		}
	}
	return all
}

// parseTransaction reads a line of pgbench's log: client, number, latency in
// microseconds, script, and when it was over in seconds and microseconds.
func parseTransaction(line string) (transaction, error) {
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return transaction{}, fmt.Errorf("pgbench logged %q", line)
	}
	var numbers [3]int64
	for i, at := range []int{2, 4, 5} {
		n, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			return transaction{}, fmt.Errorf("pgbench logged %q: %w", line, err)
		}
		numbers[i] = n
	}
	return transaction{time.Unix(numbers[1], numbers[2]*1000), time.Duration(numbers[0]) * time.Microsecond}, nil
}

func p99(all []transaction) time.Duration {
	slices.SortFunc(all, func(a, b transaction) int { return int(a.latency - b.latency) })
	return all[len(all)*99/100].latency
}

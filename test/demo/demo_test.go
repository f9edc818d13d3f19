package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/sample"
)

// dudVariable makes this test binary functions that acknowledge everything and do
// nothing.
const dudVariable = "TIDEMARK_TEST_DUD"

func TestMain(m *testing.M) {
	if os.Getenv(dudVariable) != "" {
		server := http.Server{
			Addr: net.JoinHostPort("127.0.0.1", os.Getenv("PORT")), ReadHeaderTimeout: time.Minute,
			Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		}
		_ = server.ListenAndServe() // until it is killed
		return
	}
	postgres.Main(m)
}

// The demo as `make demo` runs it where there is no terminal, with less to do.
func TestDemoEndsByItselfWithBothSidesEqual(t *testing.T) {
	t.Parallel()
	status, text := runDemo(t, "-for", "8s", "-patience", "60s", "-contacts", "200", "-messages", "3000")
	if status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	for _, want := range append(sample.Tables(), "contact_labels", "by changelog to merge,", "by wal       to cdc,", "by snapshot  to replace,", "to history,", "deleted rows are kept", "labels were renamed", "Both sides agree.", "Where to look:", "each back in contacts") {
		if !strings.Contains(text, want) {
			t.Errorf("the summary says nothing of %q:\n%s", want, text)
		}
	}
}

func TestDemoFailsWhereNothingArrives(t *testing.T) {
	t.Setenv(dudVariable, "1")
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	status, text := runDemo(t, "-for", "1s", "-patience", "3s", "-contacts", "10", "-messages", "10", "-functions", executable)
	if status != 1 {
		t.Errorf("status %d, want 1; it said:\n%s", status, text)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	if status, _ := runDemo(t, "-no-such-argument"); status != 2 {
		t.Errorf("status %d, want 2", status)
	}
	if status, _ := runDemo(t, "-help"); status != 0 {
		t.Errorf("status %d for -help, want 0", status)
	}
}

func TestDisplayRedrawsInPlaceWithinTheTerminalsWidth(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	view := display{out: &out, live: true, width: func() int { return 30 }, began: time.Now()}
	s := state{tables: []tableState{{name: "messages", postgres: side{rows: 1234567, newest: time.Unix(9, 5e8)}, bigquery: side{rows: 1, newest: time.Unix(7, 0)}}}}
	view.show(s, &sample.Counters{})
	first := out.String()
	out.Reset()
	view.show(s, &sample.Counters{})
	lines := strings.Split(first, "\x1b[K\n")
	for _, line := range lines {
		if len([]rune(line)) > 30 {
			t.Errorf("line %q is longer than the terminal is wide", line)
		}
	}
	if want := "\x1b[" + thousands(int64(len(lines)-1)) + "A" + first; out.String() != want {
		t.Errorf("the second drawing is %q, want %q", out.String(), want)
	}
}

func TestLineSaysHowFarBehindBigQueryIs(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	view := display{out: &out, began: time.Now()}
	view.show(state{
		tables: []tableState{
			{name: "ahead", postgres: side{rows: 5, newest: time.Unix(1, 0)}, bigquery: side{rows: 5, newest: time.Unix(2, 0)}},
			{name: "behind", postgres: side{rows: 1_000, newest: time.Unix(9, 5e8)}, bigquery: side{rows: 1, newest: time.Unix(7, 0)}},
			{name: "not there yet", postgres: side{rows: 3, newest: time.Unix(9, 0)}},
		},
		scored: 7, scoresBack: 6,
	}, nil)
	want := "   0 s: 1,008 rows in Postgres, 6 in BigQuery, at most 2.5 s behind; 6 of 7 scores are back in Postgres\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestThousands(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -123456: "-123,456", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s, want %s", n, got, want)
		}
	}
}

func runDemo(t *testing.T, args ...string) (int, string) {
	t.Helper()
	folder := t.TempDir()
	out, err := os.Create(filepath.Join(folder, "out"))
	if err != nil {
		t.Fatal(err)
	}
	status := run(t.Context(), append([]string{"-folder", folder}, args...), out)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return status, string(text)
}

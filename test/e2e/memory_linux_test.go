package e2e_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/tidemark-data/tidemark/test/discard"
)

// TestMemoryDoesNotGrowWithTheTable extracts one million rows and five million,
// each time in a fresh process, and compares the most memory a process ever had
// (I11). When a garbage collection comes is chance, and adds to it: of several
// runs the least says what the work needs.
func TestMemoryDoesNotGrowWithTheTable(t *testing.T) {
	t.Parallel()
	sink, err := discard.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, sink.Close()) })
	s := startStack(t, itemsFile(byHand), itemsSQL)
	conn := connect(t, s.DatabaseURL())
	fill := func(from, to int) {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(`INSERT INTO items SELECT n, 'the name of item ' || n, timestamptz '2026-01-01' + n * interval '1 second' FROM generate_series(%d, %d) n`, from, to)); err != nil {
			t.Fatal(err)
		}
	}
	once := func(want int64) int64 {
		if _, err := conn.Exec(t.Context(), `DROP SCHEMA IF EXISTS tidemark CASCADE`); err != nil {
			t.Fatal(err)
		}
		must(t, s.StopFunctions(syscall.SIGTERM))
		if err := s.StartFunctions(t.Context(), "BIGQUERY_STORAGE_EMULATOR_HOST="+sink.Host()); err != nil {
			t.Fatal(err)
		}
		before := sink.Committed()
		if err := s.Push(t.Context(), "Extract", `{}`); err != nil {
			t.Fatal(err)
		}
		if n := sink.Committed() - before; n != want {
			t.Fatalf("%d rows were committed, want %d", n, want)
		}
		return peakMemory(t, s.FunctionsPid())
	}
	extract := func(want int64) int64 { return min(once(want), once(want), once(want)) }
	fill(1, 1_000_000)
	one := extract(1_000_000)
	fill(1_000_001, 5_000_000)
	five := extract(5_000_000)
	t.Logf("peak resident memory: %d kB for 1 million rows, %d kB for 5 million", one, five)
	if five > one+one/10 {
		t.Errorf("memory grew from %d to %d kB", one, five)
	}
}

var peakLine = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peakMemory is the most resident memory a process ever had, in kB.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := peakLine.FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

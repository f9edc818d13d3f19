package e2e_test

import (
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

func TestTwoTicksAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
	other := w.connect(itemsFile(""))
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.bq.Intercept(func(c emulator.Call) error {
		if c.Method == "BatchCommitWriteStreams" && c.Phase == emulator.Before {
			once.Do(func() { close(arrived); <-release })
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- w.extractOn(w.product, "") }()
	<-arrived
	if err := w.extractOn(other, ""); err != nil {
		t.Errorf("the second tick failed: %v", err)
	}
	close(release)
	must(t, <-done)
	w.once("shop", "items")
	if got := w.value(`SELECT string_agg(outcome, ',' ORDER BY outcome) FROM tidemark.runs`); got != "ok,skipped" {
		t.Errorf("outcomes %s, want one ok and one skipped", got)
	}
}

func TestMessageDeliveredTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
	w.tick()
	before := w.bq.Calls()["CreateWriteStream"]
	w.tick()
	w.once("shop", "items")
	if after := w.bq.Calls()["CreateWriteStream"]; after != before {
		t.Errorf("the second delivery created %d streams", after-before)
	}
}

func TestIdleTickCallsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL)
	w.tick()
	total := func() (n int) {
		for _, c := range w.bq.Calls() {
			n += c
		}
		return n
	}
	before, runs := total(), w.value(`SELECT count(*) FROM tidemark.runs`)
	w.exec(`CREATE TABLE unrelated (x int); INSERT INTO unrelated VALUES (1)`)
	w.tick()
	w.tick()
	if after := total(); after != before {
		t.Errorf("idle ticks made %d calls to BigQuery", after-before)
	}
	if got := w.value(`SELECT count(*) FROM tidemark.runs`); got != runs {
		t.Errorf("there were %s run records, and idle ticks made it %s", runs, got)
	}
	if got := w.value(`SELECT succeeded_at > clock_timestamp() - interval '1 minute' FROM tidemark.sync_state`); got != "true" {
		t.Error("idle ticks did not record that they looked")
	}
}

// TestLostAnswers loses the answer to each call of a batch in turn. Whatever is
// lost, a later tick leaves one copy of every row.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"CreateWriteStream", "AppendRows", "FinalizeWriteStream", "BatchCommitWriteStreams"} {
		for name, phase := range map[string]emulator.Phase{"before": emulator.Before, "after": emulator.After} {
			t.Run(method+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
				var once sync.Once
				w.bq.Intercept(func(c emulator.Call) (err error) {
					if c.Method == method && c.Phase == phase {
						once.Do(func() { err = status.Error(codes.Unavailable, "the answer is lost") })
					}
					return err
				})
				failed := w.extractOn(w.product, "")
				if method == "AppendRows" && failed != nil {
					t.Errorf("an interrupted append was not resumed: %v", failed)
				}
				w.bq.Intercept(nil)
				w.tick()
				w.once("shop", "items")
			})
		}
	}
}

// TestForgottenStream settles a commit after BigQuery has forgotten the stream:
// the log itself tells whether the rows are there.
func TestForgottenStream(t *testing.T) {
	t.Parallel()
	for name, phase := range map[string]emulator.Phase{"not committed": emulator.Before, "committed": emulator.After} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, itemsFile(""), itemsSQL)
			w.tick()
			w.exec(`INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
			w.bq.Intercept(func(c emulator.Call) error {
				if c.Method == "BatchCommitWriteStreams" && c.Phase == phase {
					return status.Error(codes.Internal, "no answer")
				}
				return nil
			})
			if err := w.extractOn(w.product, ""); err == nil {
				t.Fatal("a commit without an answer counted as done")
			}
			if got := w.value(`SELECT pending->>'stream' FROM tidemark.sync_state`); !strings.HasPrefix(got, "projects/") {
				t.Fatalf("no pending stream was saved: %s", got)
			}
			forgotten := w.value(`SELECT pending->>'stream' FROM tidemark.sync_state`)
			w.bq.Intercept(func(c emulator.Call) error {
				if r, ok := c.Request.(*storagepb.BatchCommitWriteStreamsRequest); ok && c.Phase == emulator.Before && r.GetWriteStreams()[0] == forgotten {
					return status.Error(codes.NotFound, "no such stream")
				}
				return nil
			})
			w.tick()
			w.once("shop", "items")
		})
	}
}

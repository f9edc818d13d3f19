package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/shared/dedup"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/tick"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

func (w *world) dedupIn(ctx context.Context, file, message string) error {
	c := w.with(file)
	r := dedup.Runner{Dispatcher: w.dispatcher(c, tick.TopicDedup), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse}
	return r.Run(ctx, w.delivery(message))
}

// TestCleanUpThatDoesNotEnd holds the DELETE job: an answer in time is not an
// end, and nothing may be recorded as cleaned.
func TestCleanUpThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 10) n`)
	w.tick()
	w.exec(`UPDATE items SET name = 'changed', updated_at = clock_timestamp()`)
	w.tick()
	release := make(chan struct{})
	w.bq.HoldJobs(func(j emulator.Job) <-chan struct{} {
		if strings.HasPrefix(j.SQL, "DELETE") {
			return release
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := w.dedupIn(ctx, itemsFile(""), "")
	if class, _ := fault.Classify(err); err == nil || class != fault.Transient {
		t.Errorf("got %v, want a transient error", err)
	}
	if got := w.value(`SELECT count(*) FROM tidemark.dirty_partitions`); got != "1" {
		t.Errorf("%s partitions are to be cleaned, want 1", got)
	}
	if got := w.value(`SELECT outcome FROM tidemark.runs WHERE kind = 'dedup'`); got != "failed" {
		t.Errorf("recorded as %s", got)
	}
	close(release)
	w.bq.HoldJobs(nil)
	w.dedup("")
	if n := w.count("SELECT COUNT(*) FROM shop.items_log"); n != 10 {
		t.Errorf("%d versions are left of 10 rows", n)
	}
	if got := w.value(`SELECT count(*) FROM tidemark.dirty_partitions`); got != "0" {
		t.Errorf("%s partitions are still to be cleaned", got)
	}
}

// TestCleanUpRefusedForItsRate: BigQuery fails a job that is one too many in ten
// seconds, and says so at once. The message is to be delivered again; it must not
// wait for its deadline.
func TestCleanUpRefusedForItsRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 3) n`)
	w.provoked = []string{"Exceeded rate limits"}
	var err error
	for range 60 {
		w.exec(`UPDATE items SET name = 'changed', updated_at = clock_timestamp()`)
		w.tick()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err = w.dedupIn(ctx, itemsFile(""), "")
		waited := ctx.Err()
		cancel()
		if waited != nil {
			t.Fatalf("it waited for its deadline: %v", err)
		}
		if err != nil {
			break
		}
	}
	if class, _ := fault.Classify(err); err == nil || class != fault.Transient {
		t.Fatalf("got %v, want a transient error", err)
	}
	if got := w.value(`SELECT count(*) FROM tidemark.dirty_partitions`); got != "1" {
		t.Errorf("%s partitions are to be cleaned, want 1", got)
	}
}

// TestCleanUpTouchesWhatChanged has three months of a log and changes in one:
// the DELETE is bounded to that partition, and none runs when nothing changed.
func TestCleanUpTouchesWhatChanged(t *testing.T) {
	t.Parallel()
	file := "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: items, capture: {method: watermark, cursor: updated_at}, partition_by: {column: created_at, granularity: month}}\n"
	w := newWorld(t, file, itemsSQL, `ALTER TABLE items ADD created_at timestamptz NOT NULL DEFAULT now()`,
		`INSERT INTO items (id, created_at) SELECT n, timestamptz '2026-01-15' + (n % 3) * interval '31 days' FROM generate_series(1, 30) n`)
	w.tick()
	w.dedup("")
	w.exec(`UPDATE items SET name = 'changed', updated_at = clock_timestamp() WHERE created_at < '2026-02-01'`)
	w.tick()
	before := len(w.bq.Statements())
	w.dedup("")
	w.dedup("")
	var deletes []emulator.Statement
	for _, s := range w.bq.Statements()[before:] {
		if s.Kind == "DELETE" && !s.DryRun {
			deletes = append(deletes, s)
		}
	}
	if len(deletes) != 1 || deletes[0].RowsAffected != 10 || strings.Join(deletes[0].Partitions, " ") != "202601" {
		t.Errorf("deletes %+v, want one of 10 rows in 202601", deletes)
	}
	w.same("shop", "items")
}

// TestCleanUpOfATableOfOnePipeline names a table that one pipeline has and another
// has not: that is no error of the other's.
func TestCleanUpOfATableOfOnePipeline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 10) n`)
	w.tick()
	c := w.with(itemsFile(""))
	c.Pipelines = append(c.Pipelines, w.pipelines("pipeline: other\ndestination: {dataset: other}\ntables:\n  - {name: others, capture: {method: watermark, cursor: updated_at}}\n")...)
	r := dedup.Runner{Dispatcher: w.dispatcher(c, tick.TopicDedup), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse}
	must(t, r.Run(t.Context(), w.delivery(`{"table":"items"}`)))
	if got := w.value(`SELECT count(*) FROM tidemark.dirty_partitions`); got != "0" {
		t.Errorf("%s partitions are still to be cleaned", got)
	}
	if len(w.published) != 0 {
		t.Errorf("messages were published: %v", w.published)
	}
}

// TestCleanUpOverItsLimit is refused before it runs.
func TestCleanUpOverItsLimit(t *testing.T) {
	t.Parallel()
	file := itemsFile("") + "dedup: {every: 90m, max_bytes: 10}\n"
	w := newWorld(t, file, itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 1000) n`)
	w.tick()
	err := w.dedupIn(t.Context(), file, `{"cadence":"90m"}`)
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, "max_bytes") {
		t.Errorf("got %v, want it refused with a remedy", err)
	}
	for _, s := range w.bq.Statements() {
		if s.Kind == "DELETE" && !s.DryRun {
			t.Errorf("it ran: %s", s.SQL)
		}
	}
}

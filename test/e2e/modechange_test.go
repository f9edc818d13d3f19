package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// changing is a world whose table of pairs changes how it is followed and how it lands,
// while a writer writes to it and a reader asks for it.
type changing struct {
	*sides
	pairs *pairs
	way   way

	halves  atomic.Bool  // a reader may see half of a batch: cdc
	swaps   atomic.Bool  // a reader may find no table: a view takes the place of a table
	missing atomic.Int64 // times that it did
}

// way is how a table is followed, and lands.
type way struct{ method, write string }

func (w way) String() string { return w.method + " " + w.write }

func newChanging(t *testing.T, url string, first way) *changing {
	t.Helper()
	c := &changing{sides: &sides{world: &world{t: t, url: url, db: pool(t, url)}, follow: map[string]*instance.Connections{}}, way: first}
	c.pairs = newPairs(t, c.sides, 1)
	c.tables = []string{"pairs"}
	c.world = newWorldOn(t, c.url, c.declared())
	c.follow["shop"] = c.product
	c.upToDate("shop", "")
	c.agrees()
	return c
}

// declared is the pipeline file.
func (c *changing) declared() string {
	method := c.way.method
	if method == "watermark" {
		method += ", cursor: updated_at"
	}
	deletes := ""
	if c.way.write != "replace" {
		deletes = map[bool]string{true: ", deletes: soft", false: ", deletes: hard"}[c.way.write == "history"]
	}
	if c.way.write == "cdc" {
		deletes += ", max_staleness: 0s"
	}
	return fmt.Sprintf("pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: pairs, capture: {method: %s}, write: %s%s, partition_by: {column: day, granularity: month}}\n", method, c.way.write, deletes)
}

// to has the table follow and land in another way from now on.
func (c *changing) to(next way) {
	c.t.Helper()
	c.halves.Store(c.way.write == "cdc" || next.write == "cdc")
	c.way = next
	c.follow["shop"] = c.with(c.declared())
	c.pairs.keep.Store(next.method == "watermark")
}

// agrees fails unless what people query is what the source has.
func (c *changing) agrees() {
	c.t.Helper()
	view := "shop.pairs"
	if c.way.write == "history" {
		view = "shop.newest_pairs"
		c.rows(fmt.Sprintf("CREATE OR REPLACE VIEW %s AS %s", view, newestOf("shop.pairs", "id")))
	}
	if report := c.compareTo(view, "pairs"); !report.Agrees() {
		c.t.Errorf("as %s: %s", c.way, report)
		c.t.Log(c.value(`SELECT row_to_json(s)::text FROM tidemark.sync_state s`))
	}
	if got := c.value(`SELECT live FROM tidemark.sync_state`); got != "true" {
		c.t.Errorf("as %s: live is %s", c.way, got)
	}
}

// during runs f while the table is written to and read.
func (c *changing) during(f func()) {
	c.t.Helper()
	sql, check := wholePairs("("+newestOf("shop.pairs", "id")+")", "")
	_, lenient := wholePairs("", "cdc")
	r := c.poll(func(err error) bool {
		if fault.HTTPStatus(err) != http.StatusNotFound || !c.swaps.Load() {
			return false
		}
		c.missing.Add(1)
		return true
	}, map[string]func([]bigquery.Value) error{sql: func(row []bigquery.Value) error {
		if c.halves.Load() {
			return lenient(row)
		}
		return check(row)
	}})
	ctx, cancel := context.WithCancel(c.t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for range pace.C {
			if ctx.Err() != nil {
				return
			}
			if err := c.pairs.write(c.t.Context(), 1); err != nil {
				c.t.Errorf("writing: %v", err)
				return
			}
		}
	})
	f()
	cancel()
	writer.Wait()
	if polls := r.stop(); polls == 0 {
		c.t.Error("nobody read the table meanwhile")
	} else {
		c.t.Logf("%d polls, %d of them in the moment of a swap; %+v", polls, c.missing.Load(), c.pairs.did)
	}
}

// TestModeChanges takes a table from every write mode to every other, with T a view from
// the beginning: for those who ask for it nothing changes.
func TestModeChanges(t *testing.T) {
	t.Parallel()
	for method, writes := range map[string][]string{
		// Every change between two of them once.
		"changelog": {"append", "merge", "cdc", "history", "append", "history", "merge", "append", "cdc", "merge", "history", "cdc", "append"},
		"snapshot":  {"append", "replace", "merge", "replace", "cdc", "replace", "history", "replace", "append"},
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			c := newChanging(t, postgres.NewDatabase(t), way{method, writes[0]})
			for _, write := range writes[1:] {
				before := c.value(`SELECT destination FROM tidemark.sync_state`)
				c.during(func() {
					c.to(way{method, write})
					c.upToDate("shop", "")
					c.upToDate("shop", "")
				})
				c.upToDate("shop", "")
				c.agrees()
				if rows := c.count("SELECT COUNT(*) FROM shop." + before); rows == 0 {
					t.Errorf("before %s: nothing is left of %s", write, before)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestCaptureChanges takes a table from every capture method to every other.
func TestCaptureChanges(t *testing.T) {
	t.Parallel()
	methods := []string{"watermark", "changelog", "wal", "snapshot", "watermark", "snapshot", "wal", "watermark", "wal", "changelog", "snapshot", "changelog", "watermark"}
	for _, write := range []string{"append", "merge", "cdc", "history"} {
		t.Run(write, func(t *testing.T) {
			t.Parallel()
			_, url := logicalServer(t)
			c := newChanging(t, url, way{methods[0], write})
			for _, method := range methods[1:] {
				c.pairs.keep.Store(true) // which is all that a watermark finds
				c.during(func() {
					c.upToDate("shop", "")
					c.to(way{method, write})
					c.upToDate("shop", "")
				})
				c.upToDate("shop", "")
				c.agrees()
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestTableBecomesView: BigQuery puts no view in the place of a table, so that a query
// may find none for a moment. It never sees less than before.
func TestTableBecomesView(t *testing.T) {
	t.Parallel()
	for _, first := range []way{{"changelog", "merge"}, {"changelog", "cdc"}, {"changelog", "history"}, {"snapshot", "replace"}} {
		t.Run(first.write, func(t *testing.T) {
			t.Parallel()
			c := newChanging(t, postgres.NewDatabase(t), first)
			c.provoked = []string{"Cannot rename table", "Not found: Table"}
			c.swaps.Store(true)
			c.during(func() {
				c.upToDate("shop", "")
				c.to(way{first.method, "append"})
				c.upToDate("shop", "")
				if first.write == "cdc" || first.write == "history" {
					// Rows were streamed to it: BigQuery renames it only hours later.
					c.ahead.Add(int64(6 * time.Hour))
					c.upToDate("shop", "")
				}
			})
			c.upToDate("shop", "")
			c.agrees()
			var names []string
			for it := c.client.Dataset("shop").Tables(t.Context()); ; {
				table, err := it.Next()
				if errors.Is(err, iterator.Done) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, table.TableID)
			}
			if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "pairs_before_") }) {
				t.Errorf("the table before is gone: there are %q", names)
			}
		})
	}
}

// TestCrashDuringAModeChange cancels the run that takes a table to another mode at each
// of its calls to BigQuery, before and after the effect, and expects the next runs to
// bring it to the end.
func TestCrashDuringAModeChange(t *testing.T) {
	t.Parallel()
	for _, writes := range [][2]string{{"append", "merge"}, {"cdc", "history"}} {
		t.Run(writes[0]+" and "+writes[1], func(t *testing.T) {
			t.Parallel()
			c := newChanging(t, postgres.NewDatabase(t), way{"changelog", "append"})
			c.during(func() {
				for n, reached := int64(1), true; reached && !t.Failed(); n++ {
					c.to(way{"changelog", writes[n%2]})
					reached = c.crash(n, func(emulator.Call) bool { return true })
					c.upToDate("shop", "")
				}
			})
			c.upToDate("shop", "")
			c.agrees()
		})
	}
}

// TestCrashWhileATableBecomesAView does so around the rename and the making of the view.
func TestCrashWhileATableBecomesAView(t *testing.T) {
	t.Parallel()
	for n, reached := int64(1), true; reached && !t.Failed(); n++ {
		c := newChanging(t, postgres.NewDatabase(t), way{"changelog", "merge"})
		c.provoked = append(c.provoked, "Not found: Table") // what the call that was cut off had renamed after all
		must(t, c.pairs.write(t.Context(), 10))
		c.to(way{"changelog", "append"})
		var renaming atomic.Bool
		reached = c.crash(n, func(call emulator.Call) bool {
			if call.Method == "jobs.insert" {
				renaming.Store(true)
			}
			return renaming.Load()
		})
		c.upToDate("shop", "")
		c.agrees()
		if !renaming.Load() {
			t.Error("nothing was renamed")
		}
	}
}

// effective reports whether a call changes anything.
func effective(c emulator.Call) bool {
	r, ok := c.Request.(*http.Request)
	return !ok || r.Method != http.MethodGet
}

// crash cancels a run at the n-th of its calls that count, and reports whether there
// were so many.
func (c *changing) crash(n int64, counts func(emulator.Call) bool) (reached bool) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	var calls atomic.Int64
	c.bq.Intercept(func(call emulator.Call) error {
		if ofReader(call) || !effective(call) || !counts(call) || calls.Add(1) < n {
			return nil
		}
		cancel() // and the dead make no further call
		return context.Canceled
	})
	defer c.bq.Intercept(nil)
	err := c.extract(ctx, "shop", "")
	if reached = calls.Load() >= n; !reached && err != nil {
		c.t.Errorf("a run that nothing disturbed: %v", err)
	}
	return reached
}

// TestTypeChangeMakesTheTableAnew: where the file says so, and readers see the old rows
// until all of the new ones are there.
func TestTypeChangeMakesTheTableAnew(t *testing.T) {
	t.Parallel()
	for _, write := range []string{"append", "merge", "cdc"} {
		t.Run(write, func(t *testing.T) {
			t.Parallel()
			options := ", deletes: hard, schema_changes: resync, batch_rows: 7, write: " + write
			if write == "cdc" {
				options += ", max_staleness: 0s"
			}
			w := newWorld(t, changelogFile(options), orders)
			w.tick()
			first := w.value(`SELECT destination FROM tidemark.sync_state`)
			w.exec(`ALTER TABLE orders ALTER status TYPE int USING length(status); DELETE FROM orders WHERE id = 3; INSERT INTO orders VALUES (30, 7, 'after')`)
			var seen []int64
			w.bq.Intercept(func(c emulator.Call) error {
				if c.Phase == emulator.Before || ofReader(c) || c.Method != "BatchCommitWriteStreams" {
					return nil
				}
				seen = append(seen, w.countAsReader("SELECT COUNT(*) FROM shop.orders"))
				return nil
			})
			if write != "append" { // rows were streamed to T, or may have been
				w.ahead.Add(int64(6 * time.Hour))
			}
			w.tick()
			w.bq.Intercept(nil)
			w.same("shop", "orders")
			if write != "cdc" && (len(seen) < 3 || slices.ContainsFunc(seen, func(n int64) bool { return n != 20 })) {
				t.Errorf("while the new table was filled, readers saw %d rows, want 20 each time", seen)
			}
			second := w.value(`SELECT destination FROM tidemark.sync_state`)
			if want := map[string]string{"append": "orders_log_2", "merge": "orders_merge", "cdc": "orders_cdc"}[write]; second != want || first == second {
				t.Errorf("the rows are in %s, and were in %s", second, first)
			}
			w.exec(`UPDATE orders SET status = 9 WHERE id = 5; DELETE FROM orders WHERE id = 6`)
			w.tick()
			w.same("shop", "orders")
		})
	}
}

// countAsReader asks with the mark of a reader, on whose calls no interceptor runs.
func (w *world) countAsReader(sql string) int64 {
	w.t.Helper()
	row, err := ask(w.t.Context(), w.reader(), sql)
	if err != nil {
		w.t.Errorf("%s: %v", sql, err)
		return -1
	}
	n, ok := row[0].(int64)
	if !ok {
		w.t.Errorf("%s: no number", sql)
	}
	return n
}

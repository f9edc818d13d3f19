package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/api/googleapi"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

const monthlyFile = "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: items, capture: {method: watermark, cursor: updated_at}, partition_by: {column: created_at, granularity: month}}\n"

// monthly is a world with thirty rows in three months that are no neighbours, all of
// which were changed since.
func monthly(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, monthlyFile, itemsSQL, `ALTER TABLE items ADD created_at timestamptz NOT NULL DEFAULT now()`,
		`INSERT INTO items (id, created_at) SELECT n, timestamptz '2026-01-15' + (n % 3) * interval '62 days' FROM generate_series(1, 30) n`)
	w.tick()
	w.exec(`UPDATE items SET name = 'changed', updated_at = clock_timestamp()`)
	w.tick()
	return w
}

// dirty are the partitions that are to be cleaned.
func (w *world) dirty() string {
	w.t.Helper()
	return w.value(`SELECT coalesce(string_agg(partition, ' ' ORDER BY partition), '') FROM tidemark.dirty_partitions`)
}

// cancelling has every job that begins so cancelled, once it runs.
func (w *world) cancelling(prefix string) func(emulator.Job) <-chan struct{} {
	var group sync.WaitGroup
	w.t.Cleanup(group.Wait)
	return func(j emulator.Job) <-chan struct{} {
		if !strings.HasPrefix(j.SQL, prefix) {
			return nil
		}
		group.Go(func() {
			job, err := w.client.JobFromID(w.t.Context(), j.ID)
			if err == nil {
				err = job.Cancel(w.t.Context())
			}
			must(w.t, err)
		})
		return make(chan struct{})
	}
}

// deleting calls f when a clean-up's statement is about to run.
func (w *world) deleting(f func()) {
	w.bq.HoldJobs(func(j emulator.Job) <-chan struct{} {
		if strings.HasPrefix(j.SQL, "DELETE") {
			f()
		}
		return nil
	})
}

// TestCleanUpThatFailsIsNotRecorded: however a clean-up ends, but well, its partitions
// are still to be cleaned, its record says that it failed, and the next one does it.
func TestCleanUpThatFailsIsNotRecorded(t *testing.T) {
	t.Parallel()
	const all = "202601 202603 202605"
	for name, c := range map[string]struct {
		happens func(*world, context.CancelFunc)
		class   fault.Class
		cause   error
		dirty   string // in the end
	}{
		"its job is refused": {
			happens: func(w *world, _ context.CancelFunc) {
				var mu sync.Mutex
				inserted := 0
				w.bq.Intercept(func(c emulator.Call) error {
					mu.Lock()
					defer mu.Unlock()
					if c.Method != "jobs.insert" || c.Phase != emulator.Before {
						return nil
					}
					if inserted++; inserted == 2 { // the first is the estimate
						return &googleapi.Error{Code: http.StatusForbidden, Message: "no right", Errors: []googleapi.ErrorItem{{Reason: "accessDenied"}}}
					}
					return nil
				})
			},
			class: fault.Permanent,
			dirty: all,
		},
		"its job ends in an error": {
			happens: func(w *world, _ context.CancelFunc) { w.bq.HoldJobs(w.cancelling("DELETE")) },
			class:   fault.Transient,
			dirty:   all,
		},
		"its run is cancelled": {
			happens: func(w *world, cancel context.CancelFunc) { w.deleting(cancel) },
			class:   fault.Transient,
			dirty:   all,
		},
		"its lease is lost": {
			happens: func(w *world, _ context.CancelFunc) {
				w.deleting(func() {
					w.exec(`UPDATE tidemark.leases SET holder = 'another', token = token + 1 WHERE unit LIKE 'dedup/%'`)
				})
			},
			class: fault.Transient,
			cause: controlplane.ErrLost,
			dirty: all,
		},
		"the second of its jobs ends in an error": {
			happens: func(w *world, _ context.CancelFunc) {
				cancelling := w.cancelling("DELETE")
				jobs := 0
				w.bq.HoldJobs(func(j emulator.Job) <-chan struct{} {
					if jobs++; jobs < 2 {
						return nil
					}
					return cancelling(j)
				})
			},
			class: fault.Transient,
			dirty: "202603 202605",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := monthly(t)
			if got := w.dirty(); got != all {
				t.Fatalf("%q are to be cleaned, want %q", got, all)
			}
			w.provoked = []string{"Job execution was cancelled"}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c.happens(w, cancel)
			err := w.dedupIn(ctx, monthlyFile, "")
			if class, _ := fault.Classify(err); err == nil || class != c.class {
				t.Errorf("got %v, want an error of class %s", err, c.class)
			}
			if c.cause != nil && !errors.Is(err, c.cause) {
				t.Errorf("got %v, want it to say %v", err, c.cause)
			}
			if got := w.dirty(); got != c.dirty {
				t.Errorf("%q are still to be cleaned, want %q", got, c.dirty)
			}
			if got := w.value(`SELECT string_agg(outcome, ' ') FROM tidemark.runs WHERE kind = 'dedup'`); got != "failed" {
				t.Errorf("recorded as %s", got)
			}
			w.bq.Intercept(nil)
			w.bq.HoldJobs(nil)
			w.exec(`UPDATE tidemark.leases SET expires_at = clock_timestamp() WHERE unit LIKE 'dedup/%'`)
			must(t, w.dedupIn(t.Context(), monthlyFile, ""))
			if n, got := w.count("SELECT COUNT(*) FROM shop.items_log"), w.dirty(); n != 30 || got != "" {
				t.Errorf("%d versions are left of 30 rows, and %q to be cleaned", n, got)
			}
			w.same("shop", "items")
		})
	}
}

// TestCleanUpBesideAnExtract has versions land while the DELETE is under way: what they
// were written to is still to be cleaned after it, the partition that it is about, too.
func TestCleanUpBesideAnExtract(t *testing.T) {
	t.Parallel()
	w := monthly(t)
	var once sync.Once
	w.deleting(func() {
		once.Do(func() {
			w.exec(`UPDATE items SET name = 'meanwhile', updated_at = clock_timestamp() WHERE created_at < '2026-02-01'`)
			w.exec(`INSERT INTO items (id, created_at) VALUES (100, '2026-09-09')`)
			w.tick()
		})
	})
	must(t, w.dedupIn(t.Context(), monthlyFile, ""))
	if got := w.dirty(); got != "202601 202609" {
		t.Errorf("%q are to be cleaned, want those written to meanwhile", got)
	}
	if got := w.value(`SELECT outcome FROM tidemark.runs WHERE kind = 'dedup'`); got != "ok" {
		t.Errorf("recorded as %s", got)
	}
	w.same("shop", "items")
	must(t, w.dedupIn(t.Context(), monthlyFile, ""))
	if n, got := w.count("SELECT COUNT(*) FROM shop.items_log"), w.dirty(); n != 31 || got != "" {
		t.Errorf("%d versions are left of 31 rows, and %q to be cleaned", n, got)
	}
}

// TestCleanUpOverItsLimitInOnePartition does the others, once.
func TestCleanUpOverItsLimitInOnePartition(t *testing.T) {
	t.Parallel()
	w := monthly(t)
	w.exec(`UPDATE items SET name = repeat('x', 1000), updated_at = clock_timestamp() WHERE created_at > '2026-05-01'`)
	w.tick()
	file := monthlyFile + "dedup: {every: 90m, max_bytes: 5000}\n"
	for range 2 {
		err := w.dedupIn(t.Context(), file, "")
		if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, "max_bytes") {
			t.Errorf("got %v, want it refused with a remedy", err)
		}
		if got := w.dirty(); got != "202605" {
			t.Errorf("%q are still to be cleaned, want the one that is over the limit", got)
		}
	}
	deletes := 0
	for _, s := range w.bq.Statements() {
		if s.Kind == "DELETE" && !s.DryRun {
			deletes++
		}
	}
	if deletes != 2 {
		t.Errorf("%d clean-ups ran, want one of each of the others", deletes)
	}
}

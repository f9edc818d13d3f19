package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

const events = `
	CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz, note text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON events (updated_at, id)`

// farAndNear adds rows with the ids above n: of fifteen years ago, of two years ahead, of
// now and of no time at all.
func farAndNear(n int) string {
	return fmt.Sprintf(`INSERT INTO events SELECT %d + i, CASE i %% 4 WHEN 0 THEN now() - interval '15 years' WHEN 1 THEN now() + interval '2 years' WHEN 2 THEN now() END, 'note ' || i FROM generate_series(1, 40) i`, n)
}

func eventsBy(method, options string) string {
	return strings.ReplaceAll(ordersBy(method, ", partition_by: {column: at, granularity: month}"+options), "name: orders", "name: events")
}

// TestFarPartitions: rows of partitions that take no streamed ones go by load job, the
// whole batch at once, and the bucket is empty afterwards.
func TestFarPartitions(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"watermark", "changelog", "wal", "snapshot"} {
		for _, write := range []string{"append", "history"} {
			t.Run(method+" "+write, func(t *testing.T) {
				t.Parallel()
				world := newWorld
				if method == "wal" {
					world = newLogicalWorld
				}
				w := world(t, eventsBy(method, ", write: "+write), events, farAndNear(0))
				w.atEase()
				w.tick() // a backfill
				w.landedFar()
				for round, change := range []string{
					farAndNear(100),
					`UPDATE events SET note = 'nearer', at = now(), updated_at = clock_timestamp() WHERE id % 4 = 0`,
					`UPDATE events SET note = 'farther', at = now() - interval '20 years', updated_at = clock_timestamp() WHERE id % 4 = 1`,
				} {
					log := "shop." + w.value(`SELECT destination FROM tidemark.sync_state`)
					before := w.rows("SELECT MAX(_version) FROM " + log)[0][0]
					w.exec(change)
					w.tick()
					w.landedFar()
					if n := w.count(fmt.Sprintf("SELECT COUNT(DISTINCT SUBSTR(_version, 1, 25)) FROM %s WHERE _version > '%s'", log, before)); n != 1 && method != "snapshot" {
						t.Errorf("after change %d: its rows came in %d batches, want one", round, n)
					}
				}
				if n := w.value(`SELECT count(*) FROM tidemark.load_jobs`); n < "3" {
					t.Errorf("%s load jobs are counted, want 3 or more", n)
				}
			})
		}
	}
}

// atEase has BigQuery's clock run ahead, whose quotas are per seconds.
func (w *world) atEase() {
	w.bq.Intercept(func(emulator.Call) error {
		w.ahead.Add(int64(time.Second))
		return nil
	})
}

// landedFar expects every row, none of them refused, and nothing left in the bucket.
func (w *world) landedFar() {
	w.t.Helper()
	w.rows("CREATE OR REPLACE VIEW shop.newest_events AS " + newestOf("shop.events", "id"))
	if report := w.compareTo("shop.newest_events", "events"); !report.Agrees() {
		w.t.Errorf("%s", report)
	}
	if got := w.rejects("events"); len(got) != 0 {
		w.t.Errorf("rejects: %v", got)
	}
	w.emptyBucket()
}

func (w *world) emptyBucket() {
	w.t.Helper()
	left, err := w.storage.Objects(stagingBucket, "")
	if err != nil {
		w.t.Fatal(err)
	}
	if len(left) > 0 {
		w.t.Errorf("the bucket still has %q", left)
	}
}

// TestFarPartitionsWithoutABucket are quarantined with their reason, and the others land.
func TestFarPartitionsWithoutABucket(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"watermark", "changelog"} {
		w := newWorld(t, eventsBy(method, ""), events)
		without := *w.product
		without.Warehouse = warehouse.NewClient(warehouse.Config{Project: project, Host: w.bq.RESTHost(), StorageHost: w.bq.StorageHost()})
		t.Cleanup(func() { must(t, without.Warehouse.Close()) })
		must(t, w.extractOn(&without, ""))
		w.exec(farAndNear(0))
		must(t, w.extractOn(&without, ""))
		reasons := map[string]int{}
		for _, reason := range w.rejects("events") {
			reasons[reason]++
		}
		if diff := cmp.Diff(map[string]int{"at: row belongs to a partition outside the window that takes streamed rows": 20}, reasons); diff != "" {
			t.Errorf("rejects (-want +got):\n%s", diff)
		}
		if n := w.count("SELECT COUNT(*) FROM shop.events"); n != 20 {
			t.Errorf("%d rows landed, want 20", n)
		}
	}
}

// TestFarPartitionsByMerge need no load: the statement may write to any partition.
func TestFarPartitionsByMerge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, eventsBy("changelog", ", write: merge"), events, farAndNear(0))
	w.tick()
	w.exec(farAndNear(100))
	w.exec(`UPDATE events SET at = at - interval '3 years' WHERE id % 3 = 0; UPDATE events SET at = now() WHERE id % 7 = 0; DELETE FROM events WHERE id % 5 = 0`)
	w.tick()
	w.same("shop", "events")
	if got := w.rejects("events"); len(got) != 0 {
		t.Errorf("rejects: %v", got)
	}
	if n := w.value(`SELECT count(*) FROM tidemark.load_jobs`); n != "0" {
		t.Errorf("%s load jobs", n)
	}
}

// TestLoadJobsOfADay: BigQuery allows 1,500 of a table. Another is not started, and
// nothing is lost.
func TestLoadJobsOfADay(t *testing.T) {
	t.Parallel()
	for method, file := range map[string]string{
		"far partitions": eventsBy("changelog", ""),
		"replace":        strings.ReplaceAll(ordersBy("snapshot", ", write: replace"), "name: orders", "name: events"),
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, file, events)
			w.atEase()
			w.tick()
			w.exec(`DELETE FROM tidemark.load_jobs`)
			w.exec(`INSERT INTO tidemark.load_jobs (pipeline, tenant, table_name, started_at) SELECT 'shop', '', 'events', clock_timestamp() - interval '23 hours' FROM generate_series(1, $1)`, warehouse.LoadsPerDay-1)
			w.exec(farAndNear(0))
			w.tick() // the last one
			w.same("shop", "events")
			started := w.bq.Calls()["jobs.insert"]
			w.exec(farAndNear(100))
			for range 2 { // of which the second finds what the first left
				err := w.extractOn(w.product, "")
				if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, "less often") {
					t.Errorf("one load job more: %v (%v: %s)", err, class, remedy)
				}
				w.emptyBucket()
			}
			if now := w.bq.Calls()["jobs.insert"]; now != started {
				t.Errorf("%d jobs were started beyond the limit", now-started)
			}
			if n := w.value(`SELECT count(*) FROM tidemark.load_jobs`); n != fmt.Sprint(warehouse.LoadsPerDay) {
				t.Errorf("%s load jobs are counted", n)
			}
			w.exec(`UPDATE tidemark.load_jobs SET started_at = started_at - interval '2 hours'`)
			w.tick()
			w.same("shop", "events")
		})
	}
}

// TestFarBatchIsWhole: readers see all of a batch with far and near rows, or nothing of
// it, and one whose load is ambiguous comes once (I6, I4).
func TestFarBatchIsWhole(t *testing.T) {
	t.Parallel()
	for _, phase := range []emulator.Phase{emulator.Before, emulator.After} {
		w := newWorld(t, eventsBy("changelog", ""), events, farAndNear(0))
		w.tick()
		r := w.poll(func(error) bool { return false }, map[string]func([]bigquery.Value) error{
			"SELECT COUNT(*) FROM shop.events_log": func(row []bigquery.Value) error {
				if n, ok := row[0].(int64); !ok || n%40 != 0 {
					return fmt.Errorf("it has %v rows of batches of 40", row)
				}
				return nil
			},
		})
		for round := range 3 {
			w.exec(farAndNear(100 * (1 + round)))
			failed := false
			w.bq.Intercept(func(c emulator.Call) error {
				if ofReader(c) || c.Method != "jobs.insert" || c.Phase != phase || failed {
					return nil
				}
				failed = true
				return &googleapi.Error{Code: http.StatusForbidden, Message: "no", Errors: []googleapi.ErrorItem{{Reason: "accessDenied", Message: "no"}}}
			})
			if err := w.extractOn(w.product, ""); err == nil || !failed {
				t.Errorf("a load job whose start failed: %v", err)
			}
			w.atEase()
			w.tick()
			w.landedFar()
		}
		r.stop()
		if n := w.count("SELECT COUNT(*) FROM shop.events_log"); n != 160 {
			t.Errorf("the log has %d versions of 160 rows", n)
		}
	}
}

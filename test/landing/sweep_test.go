package landing_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// truncated is a log of three rows, one of them deleted, and the sweep of a TRUNCATE
// that follows.
func truncated(t *testing.T, s *shore, deletes warehouse.Deletes) (*warehouse.Table, []version, warehouse.Sweep) {
	t.Helper()
	table := s.table(deletes)
	s.ensure(t, table)
	b := batch{Generation: 1, Position: 1, Rows: []version{
		{Key: 1, Name: "one", Day: "2026-01-05"}, {Key: 2, Name: "two", Day: "2026-03-07"}, {Key: 3, Name: "three"}, {Key: 3, Deleted: true},
	}}
	b.number()
	s.land(t, table, b)
	version := warehouse.VersionAt(1, 2, 5)
	return table, b.Rows, warehouse.Sweep{Below: version, Version: version, At: now, Labels: map[string]string{"tidemark-pipeline": "shop"}}
}

// TestTruncate: what was there is deleted, what came after it in the same batch stays.
func TestTruncate(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table, before, sweep := truncated(t, s, warehouse.SoftDeletes)
	after := batch{Generation: 1, Position: 2}
	for key := range int64(8) {
		after.Rows = append(after.Rows, version{Key: 90 + key, Name: "of the batch"})
	}
	after.Rows[6].Key = 1 // inserted again
	after.number()
	layout := table.Layout(now, false)
	layout.SyncedAt, layout.VersionPrefix = after.Rows[0].SyncedAt, warehouse.Version(1, 2)
	const truncation = 5 // has an ordinal of its own
	_, err := s.landWith(t.Context(), layout, table, func(tr *rowwire.Transcoder) error {
		for i, row := range after.Rows {
			if i == truncation {
				at, err := tr.SkipPosition()
				if err != nil || sweep.Version != warehouse.VersionAt(1, 2, at) {
					return fmt.Errorf("the truncation is at %d: %w", at, err)
				}
				continue
			}
			if err := tr.Tuple(row.fields()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	after.Rows = slices.Delete(after.Rows, truncation, truncation+1)
	log := append(append([]version{}, before...), after.Rows...)
	got, err := s.client.Sweep(t.Context(), table, sweep)
	if err != nil {
		t.Fatal(err)
	}
	tombstones := swept(warehouse.SoftDeletes, log, sweep)
	if len(tombstones) != 6 { // 2, and 90 to 94
		t.Fatalf("the model has tombstones %v", tombstones)
	}
	want := warehouse.Swept{Rows: 6, Bytes: got.Bytes, Job: got.Job, Partitions: []string{warehouse.NullPartition}}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("swept (-want +got):\n%s", diff)
	}
	same(t, "view", shown(warehouse.SoftDeletes, append(log, tombstones...)), s.view(t, table))
	job, err := s.look.JobFromID(t.Context(), got.Job)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.Job, "tidemark_sweep_"+table.Name) || got.Bytes == 0 || got.Bytes != job.LastStatus().Statistics.TotalBytesProcessed {
		t.Errorf("job %s processed %d bytes", got.Job, got.Bytes)
	}
	if config, err := job.Config(); err != nil || config.(*bigquery.QueryConfig).Labels["tidemark-pipeline"] != "shop" { //nolint:forcetypeassert // a query's
		t.Errorf("labels of %+v, %v", config, err)
	}
}

// TestPartitionsOfASweep: what a clean-up is to be given because of a sweep is enough
// for it to delete everything that the sweep supersedes.
func TestPartitionsOfASweep(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	for name, c := range map[string]struct {
		deletes warehouse.Deletes
		change  func(*warehouse.Table)
		want    []string
	}{
		"soft":                       {warehouse.SoftDeletes, func(*warehouse.Table) {}, []string{warehouse.NullPartition}},
		"hard":                       {warehouse.HardDeletes, func(*warehouse.Table) {}, []string{warehouse.WholeLog}},
		"ignore":                     {warehouse.IgnoreDeletes, func(*warehouse.Table) {}, nil},
		"soft, not partitioned":      {warehouse.SoftDeletes, func(t *warehouse.Table) { t.Partition = nil }, []string{warehouse.WholeLog}},
		"soft, partitioned by a key": {warehouse.SoftDeletes, func(t *warehouse.Table) { t.Key = []string{"id", "day"} }, []string{warehouse.WholeLog}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := s.table(c.deletes)
			c.change(table)
			s.ensure(t, table)
			b := batch{Generation: 1, Position: 1, Rows: []version{{Key: 1, Day: "2026-01-05"}, {Key: 2, Day: "2026-03-07"}}}
			b.number()
			s.land(t, table, b)
			sweep := warehouse.Sweep{Below: warehouse.GenerationPrefix(2), Version: warehouse.VersionAt(2, 1, 0), At: now}
			got, err := s.client.Sweep(t.Context(), table, sweep)
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.client.Sweep(t.Context(), table, sweep) // as after the death of a process that has not noted the partitions
			if err != nil || again.Rows != 0 {
				t.Fatalf("again: %+v, %v", again, err)
			}
			for _, partitions := range [][]string{got.Partitions, again.Partitions} {
				if diff := gocmp.Diff(c.want, partitions); diff != "" {
					t.Errorf("partitions (-want +got):\n%s", diff)
				}
			}
			if (got.Job == "") != (c.deletes == warehouse.IgnoreDeletes) {
				t.Errorf("job %q", got.Job)
			}
			if len(got.Partitions) == 0 {
				return
			}
			if _, err := s.client.Dedup(t.Context(), table, got.Partitions, 1<<40, nil); err != nil {
				t.Fatal(err)
			}
			live := s.read(t, "SELECT COUNTIF(NOT _deleted), COUNTIF(_deleted) FROM shop."+table.BaseName())[0]
			values := int64(2)
			if c.deletes == warehouse.HardDeletes {
				values = 0
			}
			if diff := gocmp.Diff([]bigquery.Value{values, int64(2)}, live); diff != "" {
				t.Errorf("values and tombstones left (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSweepOfAProcessThatDied: its job goes on without it. Another sweep begins
// before that job has done anything, the table goes on, and then the first job runs.
func TestSweepOfAProcessThatDied(t *testing.T) {
	t.Parallel()
	for name, deletes := range map[string]warehouse.Deletes{"soft": warehouse.SoftDeletes, "hard": warehouse.HardDeletes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShore(t)
			table, log, sweep := truncated(t, s, deletes)
			release := make(chan struct{})
			s.server.HoldJobs(func(emulator.Job) <-chan struct{} { return release })
			ctx, die := context.WithCancel(t.Context())
			s.server.Intercept(func(c emulator.Call) error {
				if c.Method == "jobs.get" { // the job has begun, and it looks how that is going
					die()
				}
				return nil
			})
			died, err := s.client.Sweep(ctx, table, sweep)
			if !errors.Is(err, context.Canceled) || died.Job == "" {
				t.Fatalf("the first: %+v, %v", died, err)
			}
			s.server.HoldJobs(nil)
			s.server.Intercept(nil)
			second := sweep
			second.At = now.Add(time.Minute)
			if got, err := s.client.Sweep(t.Context(), table, second); err != nil || got.Rows != 2 {
				t.Fatalf("the second: %+v, %v", got, err)
			}
			log = append(log, swept(deletes, log, second)...)
			next := batch{Generation: 1, Position: 3, Rows: []version{{Key: 1, Name: "back", Day: "2026-01-05"}}}
			next.number()
			s.land(t, table, next)
			log = append(log, next.Rows...)
			if _, err := s.client.Dedup(t.Context(), table, []string{warehouse.WholeLog}, 1<<40, nil); err != nil {
				t.Fatal(err)
			}
			close(release)
			job, err := s.look.JobFromID(t.Context(), died.Job)
			if err != nil {
				t.Fatal(err)
			}
			status, err := job.Wait(t.Context())
			if err != nil || status.Err() != nil {
				t.Fatalf("the first job: %v, %v", err, status)
			}
			same(t, "log", cleaned(deletes, log, []string{warehouse.WholeLog}), s.log(t, table))
			same(t, "view", shown(deletes, log), s.view(t, table))
		})
	}
}

// TestSweepRefusedForItsRate is to be tried again: the reason is the job's, not the
// call's.
func TestSweepRefusedForItsRate(t *testing.T) {
	t.Parallel()
	s := newShore(t, "Exceeded rate limits")
	table, _, sweep := truncated(t, s, warehouse.SoftDeletes)
	var err error
	for range 100 { // the clock stands still: all of them in one window of ten seconds
		if _, err = s.client.Sweep(t.Context(), table, sweep); err != nil {
			break
		}
	}
	if class, _ := fault.Classify(err); err == nil || class != fault.Transient {
		t.Errorf("got %v, want a transient error", err)
	}
}

// TestSweepOfATableThatIsGone says so, and started no job.
func TestSweepOfATableThatIsGone(t *testing.T) {
	t.Parallel()
	s := newShore(t, "Table test-project:shop.", "Not found")
	table, _, sweep := truncated(t, s, warehouse.SoftDeletes)
	if err := s.look.Dataset(dataset).Table(table.BaseName()).Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := s.client.Sweep(t.Context(), table, sweep)
	if err == nil || got.Rows != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestSweepKeeps leaves out the rows that the source has and that could not be carried.
func TestSweepKeeps(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	for _, mode := range []warehouse.Mode{warehouse.Append, warehouse.Merge} {
		for _, deletes := range []warehouse.Deletes{warehouse.SoftDeletes, warehouse.HardDeletes} {
			table := s.table(deletes)
			table.Mode, table.Key = mode, []string{"id", "name"}
			s.ensure(t, table)
			b := batch{Generation: 1, Position: 1, Rows: []version{{Key: 1, Name: "a"}, {Key: 2, Name: "größe "}, {Key: 2, Name: "b"}, {Key: 12, Name: ":"}, {Key: 1, Name: "2:"}}}
			b.number()
			s.land(t, table, b)
			if !table.TellsKeys() {
				t.Fatal("keys of numbers and texts are not told")
			}
			sweep := warehouse.Sweep{Below: warehouse.GenerationPrefix(2), Version: warehouse.VersionAt(2, 0, 0), At: now, Keep: [][]string{{"2", "größe"}, {"12", ":"}}}
			if swept, err := s.client.Sweep(t.Context(), table, sweep); err != nil || swept.Rows != 3 {
				t.Fatalf("%s: swept %+v, %v", mode, swept, err)
			}
			var left []string
			for _, v := range s.view(t, table) {
				if !v.Deleted {
					left = append(left, fmt.Sprintf("%d %s", v.Key, v.Name))
				}
			}
			if diff := gocmp.Diff([]string{"2 größe ", "12 :"}, left); diff != "" {
				t.Errorf("%s: left (-want +got):\n%s", mode, diff)
			}
		}
	}
	table := s.table(warehouse.SoftDeletes)
	table.Key = []string{"day"}
	if table.TellsKeys() {
		t.Error("a date is told by its text")
	}
}

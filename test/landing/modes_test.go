package landing_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// TestModesAgree: whatever arrives in whatever order, and however often, a table kept by
// MERGE or by BigQuery's change data capture shows what the view of a log does.
func TestModesAgree(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	for _, mode := range []warehouse.Mode{warehouse.Merge, warehouse.CDC} {
		rapid.Check(t, func(rt *rapid.T) {
			table := s.table(drawPolicy(rt))
			table.Mode = mode
			if rapid.Bool().Draw(rt, "whole") {
				table.Partition = nil
			}
			s.ensure(rt, table)
			var arrived []version
			for _, b := range drawLog(rt) {
				if table.Deletes == warehouse.IgnoreDeletes { // nothing writes tombstones then
					b.Rows = slices.DeleteFunc(b.Rows, func(v version) bool { return v.Deleted })
				}
				if len(b.Rows) == 0 {
					continue
				}
				b.number()
				s.land(rt, table, b)
				arrived = append(arrived, b.Rows...)
				same(rt, fmt.Sprintf("%s after batch %d of generation %d", mode, b.Position, b.Generation), withoutLast(shown(table.Deletes, arrived)), withoutLast(s.view(rt, table)))
			}
			sweep := drawSweep(rt)
			tombstones := swept(table.Deletes, arrived, sweep)
			got, err := s.client.Sweep(rt.Context(), table, sweep)
			if err != nil {
				rt.Fatalf("sweeping: %v", err)
			}
			if int(got.Rows) != len(tombstones) {
				rt.Fatalf("the sweep took %d rows, want %d", got.Rows, len(tombstones))
			}
			after := withoutLast(s.view(rt, table))
			for i := range after { // its tombstones have a section more
				if after[i].Deleted && mode == warehouse.CDC {
					after[i].Version = after[i].Version[:min(len(after[i].Version), len(sweep.Version))]
				}
			}
			same(rt, "swept", withoutLast(shown(table.Deletes, append(arrived, tombstones...))), after)
		})
	}
}

// withoutLast leaves out what the modes differ in: the last values of deleted rows, which
// CDC does not keep, and MERGE only of what it had.
func withoutLast(rows []version) []version {
	out := slices.Clone(rows)
	for i := range out {
		if out[i].Deleted {
			out[i].Name, out[i].Tags, out[i].Day, out[i].SyncedAt = "", nil, "", 0
		}
	}
	return out
}

// TestForgottenBatch: what was given up before it was merged is merged by nobody, and
// who still tries learns of it; what was merged stays.
func TestForgottenBatch(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.HardDeletes)
	table.Mode = warehouse.Merge
	s.ensure(t, table)
	staged := func(position int64) warehouse.Batch {
		b := batch{Generation: 1, Position: position, Rows: []version{{Key: position, Name: "staged", Day: "2026-01-05"}}}
		b.number()
		layout := table.Layout(now, false)
		layout.SyncedAt, layout.VersionPrefix = b.Rows[0].SyncedAt, warehouse.Version(1, position)
		sink, partitions, err := s.fill(t.Context(), layout, table, func(tr *rowwire.Transcoder) error { return tr.Tuple(b.Rows[0].fields()) })
		if err != nil {
			t.Fatal(err)
		}
		defer sink.Close()
		return warehouse.Batch{Name: sink.Name(), Version: layout.VersionPrefix, At: time.UnixMicro(layout.SyncedAt), Partitions: partitions}
	}
	kept, lost := staged(1), staged(2)
	if err := s.client.Commit(t.Context(), table, kept); err != nil {
		t.Fatal(err)
	}
	for _, b := range []warehouse.Batch{kept, lost, lost} {
		if err := s.client.Forget(t.Context(), table, b); err != nil {
			t.Fatal(err)
		}
	}
	var refused *warehouse.CommitError
	if err := s.client.Commit(t.Context(), table, lost); !errors.As(err, &refused) {
		t.Errorf("a batch that was given up: %v", err)
	}
	if done, err := s.client.Settle(t.Context(), table, lost); done || err != nil {
		t.Errorf("a batch that was given up is settled: %t, %v", done, err)
	}
	if got := s.view(t, table); len(got) != 1 || got[0].Key != 1 {
		t.Errorf("the table shows %v", got)
	}
}

// TestCleanUpOfAnotherModesTable: a pipeline file that says append, of a table that
// keeps its history, and that nothing has been loaded from yet.
func TestCleanUpOfAnotherModesTable(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.HardDeletes)
	table.Mode = warehouse.History
	s.ensure(t, table)
	for position := range int64(3) {
		b := batch{Generation: 1, Position: position, Rows: []version{{Key: 1, Deleted: position == 2}}}
		b.number()
		s.land(t, table, b)
	}
	declared := *table
	declared.Mode = warehouse.Append
	if done, err := s.client.Dedup(t.Context(), &declared, []string{warehouse.WholeLog}, 1<<40, nil); err != nil || done.Deleted != 0 {
		t.Errorf("cleaned up %+v, %v", done, err)
	}
	if done, err := s.client.Expire(t.Context(), &declared, warehouse.Retention{Keep: time.Microsecond, Below: "f"}, 1<<40, nil); err != nil || done.Deleted != 0 {
		t.Errorf("removed %+v, %v", done, err)
	}
	if got := s.view(t, table); len(got) != 3 {
		t.Errorf("the history has %d versions", len(got))
	}
}

// TestHistoryKeepsAll: every version there ever was, tombstones among them.
func TestHistoryKeepsAll(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.SoftDeletes)
	table.Mode = warehouse.History
	s.ensure(t, table)
	var arrived []version
	for position := range int64(4) {
		b := batch{Generation: 1, Position: position, Rows: []version{{Key: 1, Name: fmt.Sprint(position), Day: "2026-01-05"}, {Key: 2, Deleted: position%2 == 1}}}
		b.number()
		s.land(t, table, b)
		arrived = append(arrived, b.Rows...)
	}
	if _, err := s.client.Dedup(t.Context(), table, []string{warehouse.WholeLog}, 1<<40, nil); err != nil {
		t.Fatal(err)
	}
	same(t, "history", cleaned(warehouse.SoftDeletes, arrived, nil), s.view(t, table))
}

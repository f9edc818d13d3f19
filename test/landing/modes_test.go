package landing_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

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

package landing_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// months are partitions that have no neighbours, so that each is cleaned on its own.
func months() []string { return []string{"2026-01-05", "2026-03-07", "2026-05-09", ""} }

// drawLog draws batches in the order in which they arrive, which is not that of
// their versions: a backfill comes after the changes it is older than.
func drawLog(t *rapid.T) []batch {
	var out []batch
	places := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7}).Draw(t, "order")
	for _, place := range places[:rapid.IntRange(1, 6).Draw(t, "batches")] {
		b := batch{Generation: 1 + place/3, Position: int64(place%3) * 10}
		for i := range rapid.IntRange(1, 5).Draw(t, "rows") {
			v := version{
				Key:  rapid.Int64Range(1, 4).Draw(t, "key"),
				Name: fmt.Sprintf("%d.%d", place, i),
				Day:  rapid.SampledFrom(months()).Draw(t, "day"),
			}
			if rapid.Bool().Draw(t, "tagged") {
				v.Tags = []string{"a", v.Name}
			}
			v.Deleted = rapid.IntRange(0, 2).Draw(t, "kind") == 0
			b.Rows = append(b.Rows, v)
		}
		b.number()
		out = append(out, b)
		if rapid.IntRange(0, 4).Draw(t, "double") == 0 { // as the default stream may write them
			out = append(out, b)
		}
	}
	return out
}

func drawPolicy(t *rapid.T) warehouse.Deletes {
	return rapid.SampledFrom([]warehouse.Deletes{warehouse.SoftDeletes, warehouse.HardDeletes, warehouse.IgnoreDeletes}).Draw(t, "policy")
}

func flat(batches []batch) []version {
	var out []version
	for _, b := range batches {
		out = append(out, b.Rows...)
	}
	return out
}

// superseded is the rule of a clean-up over everything: newer is enough under hard
// deletes; else a tombstone supersedes only tombstones.
func superseded(deletes warehouse.Deletes, old version, by version) bool {
	if old.Key != by.Key || by.Version <= old.Version {
		return false
	}
	return deletes == warehouse.HardDeletes || old.Deleted || !by.Deleted
}

// cleaned is the log after a clean-up of partitions.
func cleaned(deletes warehouse.Deletes, log []version, partitions []string) []version {
	whole := slices.Contains(partitions, warehouse.WholeLog)
	out := slices.DeleteFunc(slices.Clone(log), func(old version) bool {
		if !whole && !slices.Contains(partitions, old.month()) {
			return false
		}
		return slices.ContainsFunc(log, func(by version) bool {
			looked := whole || by.month() == old.month() || deletes == warehouse.HardDeletes && by.month() == warehouse.NullPartition
			return looked && superseded(deletes, old, by)
		})
	})
	slices.SortStableFunc(out, func(a, b version) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Version, b.Version)) })
	return out
}

// TestCleanUpChangesNoView: under every policy, whatever is in the log and however
// often which partitions are cleaned while more arrives, readers see what the policy
// says of all that ever arrived; and what is deleted is what the partitions allow.
func TestCleanUpChangesNoView(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	rapid.Check(t, func(rt *rapid.T) {
		deletes := drawPolicy(rt)
		ctx := rt.Context()
		table := s.table(deletes)
		s.ensure(rt, table)
		arrived, log := []version(nil), []version(nil)
		for _, b := range drawLog(rt) {
			s.land(rt, table, b)
			arrived, log = append(arrived, b.Rows...), append(log, b.Rows...)
			if rapid.IntRange(0, 2).Draw(rt, "clean") > 0 {
				continue
			}
			ids := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"202601", "202603", "202605", "202609", warehouse.NullPartition, warehouse.WholeLog}), 0, 3, rapid.ID[string]).Draw(rt, "partitions")
			done, err := s.client.Dedup(ctx, table, ids, 1<<40, nil)
			if err != nil {
				rt.Fatalf("cleaning up: %v", err)
			}
			left := cleaned(deletes, log, ids)
			same(rt, fmt.Sprintf("log after a clean-up of %q", ids), left, s.log(rt, table))
			if int(done.Deleted) != len(log)-len(left) {
				rt.Fatalf("%d versions were deleted, %d are reported", len(log)-len(left), done.Deleted)
			}
			log = left
			same(rt, "view after a clean-up", shown(deletes, arrived), s.view(rt, table))
		}
		same(rt, "view", shown(deletes, arrived), s.view(rt, table))
		if _, err := s.client.Dedup(ctx, table, []string{warehouse.WholeLog}, 1<<40, nil); err != nil {
			rt.Fatalf("cleaning up: %v", err)
		}
		same(rt, "log in the end", cleaned(deletes, arrived, []string{warehouse.WholeLog}), s.log(rt, table))
		same(rt, "view in the end", shown(deletes, arrived), s.view(rt, table))
	})
}

// TestPolicyMayChange: the clean-up under one policy leaves what soft deletes and
// those that are ignored need, so that each shows the same after the other.
func TestPolicyMayChange(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	rapid.Check(t, func(rt *rapid.T) {
		table := s.table(warehouse.SoftDeletes)
		s.ensure(rt, table)
		batches := drawLog(rt)
		for _, b := range batches {
			s.land(rt, table, b)
		}
		for range 2 {
			table.Deletes = rapid.SampledFrom([]warehouse.Deletes{warehouse.SoftDeletes, warehouse.IgnoreDeletes}).Draw(rt, "policy")
			s.ensure(rt, table)
			if _, err := s.client.Dedup(rt.Context(), table, []string{warehouse.WholeLog}, 1<<40, nil); err != nil {
				rt.Fatalf("cleaning up: %v", err)
			}
			same(rt, "view", shown(table.Deletes, flat(batches)), s.view(rt, table))
		}
		table.Deletes = warehouse.HardDeletes
		s.ensure(rt, table)
		same(rt, "view under hard deletes", shown(table.Deletes, flat(batches)), s.view(rt, table))
	})
}

// TestSweepLeavesWhatIsNewer: whatever is in the log, exactly the keys whose newest
// version is below the bound get a tombstone, and again none.
func TestSweepLeavesWhatIsNewer(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	rapid.Check(t, func(rt *rapid.T) {
		deletes := drawPolicy(rt)
		ctx := rt.Context()
		table := s.table(deletes)
		s.ensure(rt, table)
		batches := drawLog(rt)
		for _, b := range batches {
			s.land(rt, table, b)
		}
		log := flat(batches)
		sweep := drawSweep(rt)
		tombstones := swept(deletes, log, sweep)
		log = append(log, tombstones...)
		for i, want := range []int{len(tombstones), 0} {
			got, err := s.client.Sweep(ctx, table, sweep)
			if err != nil {
				rt.Fatalf("sweeping: %v", err)
			}
			if int(got.Rows) != want {
				rt.Fatalf("sweep %d wrote %d tombstones, want %d", i, got.Rows, want)
			}
			same(rt, "view", shown(deletes, log), s.view(rt, table))
		}
		if _, err := s.client.Dedup(ctx, table, []string{warehouse.WholeLog}, 1<<40, nil); err != nil {
			rt.Fatalf("cleaning up: %v", err)
		}
		same(rt, "log in the end", cleaned(deletes, log, []string{warehouse.WholeLog}), s.log(rt, table))
		if got, err := s.client.Sweep(ctx, table, sweep); err != nil || got.Rows != 0 {
			rt.Fatalf("sweep after a clean-up: %+v, %v", got, err)
		}
	})
}

// drawSweep draws a truncation between two batches, or the end of a resync.
func drawSweep(t *rapid.T) warehouse.Sweep {
	generation := rapid.IntRange(1, 4).Draw(t, "generation")
	s := warehouse.Sweep{At: now.Add(-time.Second)}
	s.Version = warehouse.VersionAt(generation, rapid.Int64Range(1, 31).Filter(func(n int64) bool { return n%10 != 0 }).Draw(t, "position"), 7)
	switch rapid.IntRange(0, 2).Draw(t, "bound") {
	case 0: // of a truncation
		s.Below = s.Version
	case 1: // of a resync
		s.Below = warehouse.GenerationPrefix(generation)
	default: // that a row may have, which stays
		s.Below = warehouse.VersionAt(generation, 0, rapid.Int64Range(0, 2).Draw(t, "ordinal"))
	}
	return s
}

// swept are the tombstones that a sweep writes.
func swept(deletes warehouse.Deletes, log []version, s warehouse.Sweep) []version {
	var out []version
	for _, row := range shown(warehouse.SoftDeletes, log) {
		if deletes != warehouse.IgnoreDeletes && !row.Deleted && row.Version < s.Below {
			out = append(out, version{Key: row.Key, Version: s.Version, SyncedAt: s.At.UnixMicro(), Deleted: true})
		}
	}
	return out
}

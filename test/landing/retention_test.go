package landing_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

const keep = 24 * time.Hour

// landAged appends a batch that was read some time ago.
func (s *shore) landAged(t fatal, table *warehouse.Table, b *batch, age time.Duration) {
	t.Helper()
	for i := range b.Rows {
		b.Rows[i].SyncedAt = now.Add(-age).UnixMicro()
	}
	s.land(t, table, *b)
}

// expired are the versions that a retention removes: of each key whose tombstones are
// all of long ago, and below the bound, those up to the newest of them.
func expired(deletes warehouse.Deletes, log []version, r warehouse.Retention) func(version) bool {
	upto, out := map[int64]string{}, map[int64]bool{}
	for _, v := range log {
		if v.Deleted {
			upto[v.Key] = max(upto[v.Key], v.Version)
			out[v.Key] = out[v.Key] || v.Version >= r.Below || v.SyncedAt >= now.Add(-r.Keep).UnixMicro()
		}
	}
	return func(v version) bool {
		return deletes != warehouse.IgnoreDeletes && !out[v.Key] && v.Version <= upto[v.Key]
	}
}

// TestRetentionForgetsWhatWasDeletedLongAgo: whatever is in the log, wherever its
// versions lie and whatever was cleaned before, exactly the rows that were deleted long
// ago leave with all they had, and nothing else that readers see changes.
func TestRetentionForgetsWhatWasDeletedLongAgo(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	rapid.Check(t, func(rt *rapid.T) {
		table := s.table(drawPolicy(rt))
		switch rapid.IntRange(0, 2).Draw(rt, "layout") {
		case 0:
			table.Partition = nil
		case 1:
			table.Partition.Granularity = "year"
		}
		s.ensure(rt, table)
		var log []version
		ages := map[string]time.Duration{} // doubles are alike
		for _, b := range drawLog(rt) {
			at := warehouse.Version(b.Generation, b.Position)
			if _, ok := ages[at]; !ok {
				ages[at] = rapid.SampledFrom([]time.Duration{time.Hour, 2 * keep, 20 * keep}).Draw(rt, "age")
			}
			s.landAged(rt, table, &b, ages[at])
			log = append(log, b.Rows...)
		}
		if ids := []string{"202601", "202605", warehouse.NullPartition}; table.Partition != nil && table.Partition.Granularity == "month" && rapid.Bool().Draw(rt, "cleaned") {
			if _, err := s.client.Dedup(rt.Context(), table, ids, 1<<40, nil); err != nil {
				rt.Fatalf("cleaning up: %v", err)
			}
			log = cleaned(table.Deletes, log, ids)
		}
		r := warehouse.Retention{Keep: keep, Below: warehouse.Version(rapid.IntRange(1, 4).Draw(rt, "generation"), rapid.Int64Range(0, 30).Draw(rt, "position"))}
		gone := expired(table.Deletes, log, r)
		left := without(log, gone)
		slices.SortStableFunc(left, func(a, b version) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Version, b.Version)) })
		for i, want := range []int{len(log) - len(left), 0} {
			done, err := s.client.Expire(rt.Context(), table, r, 1<<40, nil)
			if err != nil {
				rt.Fatalf("removing: %v", err)
			}
			if int(done.Deleted) != want {
				rt.Fatalf("time %d: %d versions are reported as deleted, want %d", i, done.Deleted, want)
			}
			same(rt, "log", left, s.log(rt, table))
			same(rt, "view", shown(table.Deletes, left), s.view(rt, table))
		}
		// Readers see what they saw, less the rows that are due to go.
		before := without(shown(table.Deletes, log), func(v version) bool { return v.Deleted && gone(v) })
		same(rt, "view beside", before, shown(table.Deletes, left))
	})
}

// without returns the others.
func without(log []version, gone func(version) bool) (left []version) {
	for _, v := range log {
		if !gone(v) {
			left = append(left, v)
		}
	}
	return left
}

// TestRetentionReachesEveryPartitionOfARow: the versions of a deleted row lie in several
// partitions, apart from its tombstone. All go with one statement, which touches those
// partitions and no others.
func TestRetentionReachesEveryPartitionOfARow(t *testing.T) {
	t.Parallel()
	for name, deletes := range map[string]warehouse.Deletes{"soft": warehouse.SoftDeletes, "hard": warehouse.HardDeletes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShore(t)
			table := s.table(deletes)
			s.ensure(t, table)
			b := batch{Generation: 1, Position: 1, Rows: []version{
				{Key: 1, Name: "was", Day: "2026-01-05"},
				{Key: 1, Name: "moved", Day: "2026-03-07"},
				{Key: 2, Name: "other", Day: "2026-05-09"},
				{Key: 3, Name: "beside", Day: "2026-03-07"},
			}}
			b.number()
			s.landAged(t, table, &b, 3*keep)
			gone := batch{Generation: 1, Position: 2, Rows: []version{{Key: 1, Deleted: true}}}
			gone.number()
			s.landAged(t, table, &gone, 2*keep)
			before := len(s.server.Statements())
			done, err := s.client.Expire(t.Context(), table, warehouse.Retention{Keep: keep, Below: warehouse.Version(1, 3)}, 1<<40, nil)
			if err != nil {
				t.Fatal(err)
			}
			deletes := deletesOf(s, before)
			if len(deletes) != 1 || deletes[0].RowsAffected != 3 || done.Deleted != 3 {
				t.Fatalf("deletes %+v, %d reported, want one of 3 versions", deletes, done.Deleted)
			}
			want := []string{"202601", "202603", warehouse.NullPartition}
			if diff := gocmp.Diff(want, deletes[0].Partitions); diff != "" {
				t.Errorf("partitions touched (-want +got):\n%s", diff)
			}
			slices.Sort(done.Partitions)
			if diff := gocmp.Diff(want, done.Partitions); diff != "" {
				t.Errorf("partitions reported (-want +got):\n%s", diff)
			}
			same(t, "log", []version{b.Rows[2], b.Rows[3]}, s.log(t, table))
		})
	}
}

// TestRetentionOfAKeyWithThePartition has the tombstones where their rows are.
func TestRetentionOfAKeyWithThePartition(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.HardDeletes)
	table.Key = []string{"id", "day"}
	table.Columns[3].Required = true
	s.ensure(t, table)
	rows := func(position int64, age time.Duration, deleted bool, keys ...int64) {
		layout := table.Layout(now, false)
		layout.SyncedAt, layout.VersionPrefix = now.Add(-age).UnixMicro(), warehouse.Version(1, position)
		var fields [][][]byte
		var tombstones []bool
		for _, key := range keys {
			f := version{Key: key, Name: "x", Day: months()[key]}.fields()
			if deleted {
				f[1], f[2] = nil, nil
			}
			fields, tombstones = append(fields, f), append(tombstones, deleted)
		}
		if _, err := s.landRows(t.Context(), layout, table, fields, tombstones); err != nil {
			t.Fatal(err)
		}
	}
	rows(1, 3*keep, false, 0, 1, 2)
	rows(2, 2*keep, true, 1)
	rows(3, time.Hour, true, 2)
	before := len(s.server.Statements())
	if _, err := s.client.Expire(t.Context(), table, warehouse.Retention{Keep: keep, Below: warehouse.Version(1, 4)}, 1<<40, nil); err != nil {
		t.Fatal(err)
	}
	deletes := deletesOf(s, before)
	if len(deletes) != 1 || deletes[0].RowsAffected != 2 || strings.Join(deletes[0].Partitions, " ") != "202603" {
		t.Errorf("deletes %+v, want one of 2 versions in 202603", deletes)
	}
}

// TestRetentionCostsWhatItFinds: where nothing is due, a look at the tombstones is all,
// whatever else the log has.
func TestRetentionCostsWhatItFinds(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.SoftDeletes)
	s.ensure(t, table)
	b := batch{Generation: 1, Position: 1, Rows: []version{{Key: 1, Deleted: true}, {Key: 2, Deleted: true}}}
	for key := range int64(1000) {
		b.Rows = append(b.Rows, version{Key: 10 + key, Name: strings.Repeat("x", 100), Day: "2026-01-05"})
	}
	b.number()
	s.landAged(t, table, &b, time.Hour)
	before := len(s.server.Statements())
	done, err := s.client.Expire(t.Context(), table, warehouse.Retention{Keep: keep, Below: warehouse.Version(1, 2)}, 1<<40, nil)
	if err != nil {
		t.Fatal(err)
	}
	ran := slices.DeleteFunc(s.server.Statements()[before:], func(st emulator.Statement) bool { return st.DryRun })
	const each = 8 + (8 + 1 + 16 + 1 + 8 + 2) + 8 + 1 // key, version, time and flag
	if len(ran) != 1 || ran[0].Kind != "SELECT" || done.Bytes != 2*each {
		t.Errorf("it processed %d bytes by %+v, want %d by one look", done.Bytes, ran, 2*each)
	}
}

// TestRetentionOverItsLimit is refused before anything is deleted.
func TestRetentionOverItsLimit(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.SoftDeletes)
	s.ensure(t, table)
	b := batch{Generation: 1, Position: 1, Rows: []version{{Key: 1, Name: strings.Repeat("x", 1000), Day: "2026-01-05"}, {Key: 1, Deleted: true}}}
	b.number()
	s.landAged(t, table, &b, 2*keep)
	r := warehouse.Retention{Keep: keep, Below: warehouse.Version(1, 2)}
	_, err := s.client.Expire(t.Context(), table, r, 500, nil)
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, "max_bytes") {
		t.Errorf("got %v, want it refused with a remedy", err)
	}
	if n := len(deletesOf(s, 0)); n != 0 {
		t.Errorf("%d statements deleted", n)
	}
	if done, err := s.client.Expire(t.Context(), table, r, 5000, nil); err != nil || done.Deleted != 2 {
		t.Errorf("%d versions deleted, %v, want 2", done.Deleted, err)
	}
}

// TestRetentionBesideWhatLands holds the DELETE while rows land whose times are of long
// ago, as under a clock that is wrong: a row deleted only now keeps its tombstone, for
// nobody has looked where its values are; a row that came back stays.
func TestRetentionBesideWhatLands(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.SoftDeletes)
	s.ensure(t, table)
	land := func(position int64, rows ...version) []version {
		b := batch{Generation: 1, Position: position, Rows: rows}
		b.number()
		s.landAged(t, table, &b, 2*keep)
		return b.Rows
	}
	land(1, version{Key: 1, Name: "was", Day: "2026-01-05"}, version{Key: 2, Name: "was", Day: "2026-01-05"})
	other := land(2, version{Key: 3, Name: "other", Day: "2026-05-09"})
	land(3, version{Key: 1, Deleted: true}, version{Key: 2, Deleted: true})
	var late []version
	s.server.HoldJobs(func(j emulator.Job) <-chan struct{} {
		if strings.HasPrefix(j.SQL, "DELETE") {
			late = land(4, version{Key: 3, Deleted: true}, version{Key: 2, Name: "is", Day: "2026-03-07"})
		}
		return nil
	})
	done, err := s.client.Expire(t.Context(), table, warehouse.Retention{Keep: keep, Below: warehouse.Version(1, 4)}, 1<<40, nil)
	if err != nil || done.Deleted != 4 {
		t.Fatalf("%d versions deleted, %v, want 4", done.Deleted, err)
	}
	left := []version{late[1], other[0], late[0]}
	same(t, "log", left, s.log(t, table))
	same(t, "view", shown(warehouse.SoftDeletes, left), s.view(t, table))
}

// TestRetentionTakesHostileNames: the statements have names of their own beside those of
// the columns.
func TestRetentionTakesHostileNames(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	for i, names := range [][2]string{{"v", "old"}, {"old", "v"}, {"gone", "upto"}, {"upto", "gone"}, {"since", "deleted"}, {"select", "from"}} {
		table := s.table(warehouse.SoftDeletes)
		table.Columns[0].Name, table.Columns[3].Name = names[0], names[1]
		table.Key, table.Partition.Column = []string{names[0]}, names[1]
		s.ensure(t, table)
		b := batch{Generation: 1, Position: 1, Rows: []version{{Key: 1, Name: "was", Day: "2026-01-05"}, {Key: 2, Name: "is", Day: "2026-01-05"}, {Key: 1, Deleted: true}}}
		b.number()
		s.landAged(t, table, &b, 2*keep)
		done, err := s.client.Expire(t.Context(), table, warehouse.Retention{Keep: keep, Below: warehouse.Version(1, 2)}, 1<<40, nil)
		if err != nil || done.Deleted != 2 {
			t.Errorf("%q: %d versions deleted, %v, want 2", names, done.Deleted, err)
		}
		if n := s.read(t, fmt.Sprintf("SELECT COUNT(*) FROM %s.%s", dataset, table.BaseName()))[0][0]; n != int64(1) {
			t.Errorf("%d %q: %v versions are left, want 1", i, names, n)
		}
	}
}

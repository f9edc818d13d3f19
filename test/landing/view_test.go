package landing_test

import (
	"testing"

	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// TestWhatReadersSeeOfADelete is the policies' promise, case by case.
func TestWhatReadersSeeOfADelete(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	put := func(key int64, name string) version {
		return version{Key: key, Name: name, Tags: []string{name}, Day: "2026-03-07"}
	}
	gone := func(key int64) version { return version{Key: key, Deleted: true} }
	first := batch{Generation: 1, Position: 1, Rows: []version{
		put(1, "lives"), put(2, "deleted"), put(3, "back"), put(4, "twice deleted"), gone(5), put(6, "old"), gone(7), put(8, "gone and back at once"), gone(8), put(8, "new"),
	}}
	second := batch{Generation: 1, Position: 2, Rows: []version{gone(2), gone(3), gone(4), put(6, "changed"), gone(6)}}
	third := batch{Generation: 2, Position: 3, Rows: []version{put(3, "is back"), gone(4)}}
	first.number()
	second.number()
	third.number()
	is := func(v, metadata version) version {
		v.Version, v.SyncedAt, v.Deleted = metadata.Version, metadata.SyncedAt, metadata.Deleted
		return v
	}
	a, b, c := first.Rows, second.Rows, third.Rows
	for name, want := range map[string]struct {
		deletes warehouse.Deletes
		rows    []version
	}{
		"soft": {warehouse.SoftDeletes, []version{
			a[0], is(a[1], b[0]), c[0], is(a[3], c[1]), is(version{Key: 5}, a[4]), is(b[3], b[4]), is(version{Key: 7}, a[6]), a[9],
		}},
		"hard":   {warehouse.HardDeletes, []version{a[0], c[0], a[9]}},
		"ignore": {warehouse.IgnoreDeletes, []version{a[0], a[1], c[0], a[3], b[3], a[9]}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := s.table(want.deletes)
			s.ensure(t, table)
			for _, landed := range []batch{first, third, second} { // the order of arrival does not count
				s.land(t, table, landed)
			}
			same(t, "view", want.rows, s.view(t, table))
			if _, err := s.client.Dedup(t.Context(), table, []string{warehouse.WholeLog}, 1<<40, nil); err != nil {
				t.Fatal(err)
			}
			same(t, "view after a clean-up", want.rows, s.view(t, table))
		})
	}
}

// TestViewFollowsThePolicy: the view is made anew when the declaration changes, and
// only then.
func TestViewFollowsThePolicy(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.SoftDeletes)
	s.ensure(t, table)
	b := batch{Generation: 1, Position: 1, Rows: []version{{Key: 1, Name: "x"}, {Key: 1, Deleted: true}}}
	b.number()
	s.land(t, table, b)
	for i, deletes := range []warehouse.Deletes{warehouse.HardDeletes, warehouse.IgnoreDeletes, warehouse.SoftDeletes, warehouse.SoftDeletes} {
		table.Deletes = deletes
		s.ensure(t, table)
		same(t, "view", shown(deletes, b.Rows), s.view(t, table))
		if updates, want := s.server.Calls()["tables.patch"], min(i+1, 3); updates != want {
			t.Errorf("%d updates of the view, want %d", updates, want)
		}
	}
}

// TestNamesOfStatements has columns called as the statements' own names are, and a
// key of two columns of which one is the partition's: nothing is taken for another.
func TestNamesOfStatements(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	for name, deletes := range map[string]warehouse.Deletes{"soft": warehouse.SoftDeletes, "hard": warehouse.HardDeletes, "ignore": warehouse.IgnoreDeletes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := s.table(deletes)
			table.Key = []string{"v", "old"}
			table.Columns = []warehouse.Column{{Name: "v", Kind: rowwire.Int8, Required: true}, {Name: "old", Kind: rowwire.Text, Required: true}}
			for _, other := range []string{"newer", "newest", "log", table.BaseName(), "below", "version", "at", "from", "order", "MAX_BY", "größe"} {
				table.Columns = append(table.Columns, warehouse.Column{Name: other, Kind: rowwire.Int8})
			}
			table.Columns = append(table.Columns, warehouse.Column{Name: "to", Kind: rowwire.Date})
			table.Partition.Column = "to"
			s.ensure(t, table)
			number := func(n byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, n} }
			row := func(key byte, value byte, day []byte) [][]byte {
				out := [][]byte{number(key), []byte("k")}
				for range 11 {
					out = append(out, number(value))
				}
				return append(out, day)
			}
			tombstone := append([][]byte{number(2), []byte("k")}, make([][]byte, 12)...)
			layout := table.Layout(now, false)
			layout.VersionPrefix = warehouse.Version(1, 1)
			day := []byte{0, 0, 0x26, 0x40} // 2026-10-25
			rows, deleted := [][][]byte{row(1, 1, day), row(2, 2, day), row(1, 3, day), tombstone}, []bool{false, false, false, true}
			if _, err := s.landRows(t.Context(), layout, table, rows, deleted); err != nil {
				t.Fatal(err)
			}
			look := func() int64 {
				n, ok := s.read(t, "SELECT COALESCE(SUM(`größe` * 10 + v), 0) FROM shop."+table.Name)[0][0].(int64)
				if !ok {
					t.Fatal("no number")
				}
				return n
			}
			want := map[warehouse.Deletes]int64{warehouse.SoftDeletes: 31 + 22, warehouse.HardDeletes: 31, warehouse.IgnoreDeletes: 31 + 22}[deletes]
			for _, partitions := range [][]string{nil, {"202610", warehouse.NullPartition}, {warehouse.WholeLog}} {
				if _, err := s.client.Dedup(t.Context(), table, partitions, 1<<40, nil); err != nil {
					t.Fatal(err)
				}
				if got := look(); got != want {
					t.Errorf("after a clean-up of %q readers see %d, want %d", partitions, got, want)
				}
			}
			sweep := warehouse.Sweep{Below: warehouse.GenerationPrefix(2), Version: warehouse.VersionAt(2, 1, 0), At: now}
			if _, err := s.client.Sweep(t.Context(), table, sweep); err != nil {
				t.Fatal(err)
			}
			if deletes == warehouse.HardDeletes {
				want = 0
			}
			if got := look(); got != want {
				t.Errorf("after a sweep readers see %d, want %d", got, want)
			}
		})
	}
}

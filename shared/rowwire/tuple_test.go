package rowwire_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// tombstoneLayout is a table with a key, values of both shapes and a partition column.
func tombstoneLayout() rowwire.Layout {
	return rowwire.Layout{
		Columns: []rowwire.Column{
			{Name: "id", Kind: rowwire.Int4, Field: 1},
			{Name: "name", Kind: rowwire.Text, Field: 2},
			{Name: "tags", Kind: rowwire.Text, Repeated: true, Field: 3},
			{Name: "day", Kind: rowwire.Date, Field: 4},
		},
		VersionField: 5, SyncedAtField: 6, DeletedField: 7, VersionPrefix: "p/", SyncedAt: 42,
		Partition: &rowwire.Partition{Column: 3, Granularity: rowwire.Month},
	}
}

func wireRow(deleted int64, position int, values ...wireValue) []wireValue {
	return append(values, text(5, fmt.Sprintf("p/%08x", position)), varint(6, 42), varint(7, deleted))
}

// collected is what a transcoder hands over, decoded.
type collected struct {
	Rows    [][]wireValue
	Rejects []rejected
}

func collecting(t *testing.T, l rowwire.Layout) (*rowwire.Transcoder, *collected) {
	t.Helper()
	out := new(collected)
	tr, err := rowwire.NewTranscoder(l, nil, func(b *rowwire.Batch) (*rowwire.Batch, error) {
		for _, row := range b.Rows {
			out.Rows = append(out.Rows, decode(t, row))
		}
		return b, nil
	}, func(r rowwire.Reject) error {
		out.Rejects = append(out.Rejects, rejected{Row: r.Row, Column: r.Column, Reason: r.Reason})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr, out
}

// done calls what must succeed.
func done(t *testing.T, calls ...func() error) {
	t.Helper()
	for i, call := range calls {
		if err := call(); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
}

func TestTombstonesAmongRows(t *testing.T) {
	t.Parallel()
	tr, out := collecting(t, tombstoneLayout())
	november := days(day(2026, 11, 3))
	row := []field{be32(1), field("one"), arrayField(1, field("a")), november}
	write := func(b []byte) func() error {
		return func() error { _, err := tr.Write(b); return err }
	}
	put := func(fields ...field) func() error { return func() error { return tr.Tuple(fields) } }
	mark := func(on bool) func() error { return func() error { tr.Deleted(on); return nil } }
	truncation := func() error {
		at, err := tr.SkipPosition()
		if at != 4 || tr.Position() != 5 {
			t.Errorf("skipped %d, the next is %d", at, tr.Position())
		}
		return err
	}
	done(
		t,
		mark(true), put(be32(9), nil, nil, nil), mark(false), // before a COPY
		write([]byte(copyHeader)), write(tuple(row...)), mark(true), write(tuple(be32(2), nil, nil, nil)), mark(false), write(tuple(row...)), write([]byte{0xff, 0xff}),
		truncation, // after it
		put(row...),
		tr.Continue,
		mark(true), put(be32(3), nil, nil, nil), // between two
		write(stream(tuple(be32(4), nil, nil, nil))), // it stays until it is called again
		tr.Continue, mark(false), put(row...), // and without a last COPY
		tr.Close,
	)
	values := []wireValue{varint(1, 1), text(2, "one"), text(3, "a"), varint(4, day(2026, 11, 3).Unix()/86400)}
	key := func(id int64) []wireValue { return []wireValue{varint(1, id)} }
	want := collected{Rows: [][]wireValue{
		wireRow(1, 0, key(9)...),
		wireRow(0, 1, slices.Clone(values)...), wireRow(1, 2, key(2)...), wireRow(0, 3, slices.Clone(values)...),
		wireRow(0, 5, slices.Clone(values)...), wireRow(1, 6, key(3)...), wireRow(1, 7, key(4)...), wireRow(0, 8, slices.Clone(values)...),
	}}
	if diff := cmp.Diff(want, *out); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"202611", "__NULL__"}, tr.Partitions()); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	if tr.Rows() != 8 || tr.Rejected() != 0 || tr.Position() != 9 {
		t.Errorf("%d rows, %d rejects, next position %d", tr.Rows(), tr.Rejected(), tr.Position())
	}
}

func TestDeletedNeedsItsField(t *testing.T) {
	t.Parallel()
	tr, out := collecting(t, oneColumn(rowwire.Int4, false))
	tr.Deleted(false)
	done(t, func() error { return tr.Tuple([]field{be32(1)}) })
	tr.Deleted(true)
	for name, err := range map[string]error{"Tuple": tr.Tuple([]field{be32(2)}), "Close": tr.Close()} {
		if err == nil {
			t.Errorf("%s took a tombstone without a field to say so: %v", name, out.Rows)
		}
	}
}

// TestTupleOutsideOfACopyOnly: inside of one, a row would take the place of one that has begun.
func TestTupleOutsideOfACopyOnly(t *testing.T) {
	t.Parallel()
	whole := stream(tuple(be32(1)))
	for n := 1; n < len(whole); n++ {
		for name, call := range map[string]func(*rowwire.Transcoder) error{
			"Tuple":        func(tr *rowwire.Transcoder) error { return tr.Tuple([]field{be32(2)}) },
			"SkipPosition": func(tr *rowwire.Transcoder) error { _, err := tr.SkipPosition(); return err },
		} {
			tr, out := collecting(t, oneColumn(rowwire.Int4, false))
			if _, err := tr.Write(whole[:n]); err != nil {
				t.Fatal(err)
			}
			err := call(tr)
			if err == nil || !errors.Is(tr.Close(), err) || len(out.Rows) != 0 {
				t.Errorf("%s after %d bytes: %v, rows %v", name, n, err, out.Rows)
			}
		}
	}
}

// TestTheEndWithoutACopy: rows and positions given singly need none, one that has begun must end.
func TestTheEndWithoutACopy(t *testing.T) {
	t.Parallel()
	one := func(tr *rowwire.Transcoder) error { return tr.Tuple([]field{be32(1)}) }
	skip := func(tr *rowwire.Transcoder) error { _, err := tr.SkipPosition(); return err }
	write := func(b []byte) func(*rowwire.Transcoder) error {
		return func(tr *rowwire.Transcoder) error { _, err := tr.Write(b); return err }
	}
	next := (*rowwire.Transcoder).Continue
	whole := stream(tuple(be32(1)))
	for _, tc := range []struct {
		name  string
		calls []func(*rowwire.Transcoder) error
		ok    bool
	}{
		{"nothing", nil, false},
		{"a row", []func(*rowwire.Transcoder) error{one}, true},
		{"a position", []func(*rowwire.Transcoder) error{skip}, true},
		{"a row and a COPY", []func(*rowwire.Transcoder) error{one, write(whole)}, true},
		{"a row and half a header", []func(*rowwire.Transcoder) error{one, write(whole[:5])}, false},
		{"a row and half a COPY", []func(*rowwire.Transcoder) error{one, write(whole[:len(whole)-1])}, false},
		{"a COPY and a row", []func(*rowwire.Transcoder) error{write(whole), one}, true},
		{"a COPY announced and not sent", []func(*rowwire.Transcoder) error{write(whole), one, next}, false},
		{"a row in place of a COPY announced", []func(*rowwire.Transcoder) error{write(whole), next, one}, true},
		{"a row, and a COPY announced twice", []func(*rowwire.Transcoder) error{one, next, one, next, write(whole)}, true},
		{"a row after the end", []func(*rowwire.Transcoder) error{one, (*rowwire.Transcoder).Close, one}, false},
		{"a COPY unannounced", []func(*rowwire.Transcoder) error{write(whole), one, write(whole)}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr, _ := collecting(t, oneColumn(rowwire.Int4, false))
			var err error
			for _, call := range tc.calls {
				err = errors.Join(err, call(tr))
			}
			if tc.ok && err != nil {
				t.Fatal(err)
			}
			if err = errors.Join(err, tr.Close()); tc.ok != (err == nil) {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

func TestTuplesAreChecked(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string][]field{
		"too few fields":  {be32(1)},
		"too many fields": {be32(1), nil, nil, nil, nil},
		"no fields":       {},
		"a short field":   {be16(1), nil, nil, nil},
	} {
		tr, _ := collecting(t, tombstoneLayout())
		var fe *rowwire.FormatError
		if err := tr.Tuple(fields); !errors.As(err, &fe) || fe.Row != 0 {
			t.Errorf("%s: got %v", name, err)
		}
		if err := tr.Tuple([]field{be32(1), nil, nil, nil}); !errors.As(err, &fe) {
			t.Errorf("%s: it went on: %v", name, err)
		}
	}
	tr, out := collecting(t, tombstoneLayout())
	boom := field("\xff")
	done(
		t,
		func() error { return tr.Tuple([]field{be32(1), boom, nil, nil}) },
		func() error { return tr.Tuple([]field{be32(2), nil, arrayField(1, nil), nil}) },
		func() error { return tr.Tuple([]field{be32(3), field("good"), nil, nil}) },
		tr.Close,
	)
	want := collected{
		Rows:    [][]wireValue{wireRow(0, 2, varint(1, 3), text(2, "good"))},
		Rejects: []rejected{{Row: 0, Column: 1, Reason: rowwire.InvalidUTF8}, {Row: 1, Column: 2, Reason: rowwire.NullElement}},
	}
	if diff := cmp.Diff(want, *out); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// TestAnyMixture: a row is encoded alike, rejected alike and at the same position whether it comes in a COPY or singly.
func TestAnyMixture(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := drawLayout(rt)
		l.DeletedField, l.KeepLast = 101, true
		if l.Columns[0].Kind == rowwire.Date && !l.Columns[0].Repeated {
			l.Partition = &rowwire.Partition{Granularity: rowwire.Year}
		}
		var tuples [][]byte
		for range rapid.IntRange(1, 12).Draw(rt, "rows") {
			tuples = append(tuples, drawTuple(rt, l.Columns))
		}
		deleted := rapid.SliceOfN(rapid.Bool(), len(tuples), len(tuples)).Draw(rt, "deleted")
		want := mixture(t, rt, l, tuples, deleted, make([]bool, len(tuples)))
		single := rapid.SliceOfN(rapid.Bool(), len(tuples), len(tuples)).Draw(rt, "single")
		got := mixture(t, rt, l, tuples, deleted, single)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("single rows differ (-COPY +mixed):\n%s", diff)
		}
	})
}

// mixed is all that a mixture of COPYs and single rows gave.
type mixed struct {
	Rows       []string
	Rejects    []rejected
	Last       [][]field
	Partitions []string
	Numbers    [4]int64
}

// mixture gives each tuple to the transcoder, in a COPY or singly.
func mixture(t *testing.T, rt *rapid.T, l rowwire.Layout, tuples [][]byte, deleted, single []bool) mixed {
	t.Helper()
	var out mixed
	tr, err := rowwire.NewTranscoder(l, nil, func(b *rowwire.Batch) (*rowwire.Batch, error) {
		for _, row := range b.Rows {
			out.Rows = append(out.Rows, string(row))
		}
		return b, nil
	}, func(r rowwire.Reject) error {
		kept := rejected{Row: r.Row, Column: r.Column, Reason: r.Reason}
		for _, f := range r.Tuple {
			kept.Tuple = append(kept.Tuple, slices.Clone(f))
		}
		out.Rejects = append(out.Rejects, kept)
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
	inside, copied := false, false
	do := func(err error) {
		if err != nil {
			rt.Fatal(err)
		}
	}
	write := func(b []byte) {
		_, err := tr.Write(b)
		do(err)
	}
	for i, tu := range tuples {
		tr.Deleted(deleted[i])
		if single[i] && inside {
			write([]byte{0xff, 0xff})
			inside = false
		}
		if single[i] {
			do(tr.Tuple(fieldsOf(tu)))
		} else {
			if !inside && copied {
				do(tr.Continue())
			}
			if !inside {
				write([]byte(copyHeader))
				inside, copied = true, true
			}
			write(tu)
		}
		var last []field
		for _, f := range tr.Last() {
			last = append(last, slices.Clone(f))
		}
		out.Last = append(out.Last, last)
	}
	if inside {
		write([]byte{0xff, 0xff})
	}
	do(tr.Close())
	out.Partitions = tr.Partitions()
	out.Numbers = [4]int64{tr.Rows(), tr.Rejected(), tr.Bytes(), tr.Position()}
	return out
}

// fieldsOf are the fields of a tuple, which it is cut into.
func fieldsOf(tu []byte) []field {
	var out []field
	for at := 2; at < len(tu); {
		size := int(int32(uint32(tu[at])<<24 | uint32(tu[at+1])<<16 | uint32(tu[at+2])<<8 | uint32(tu[at+3])))
		at += 4
		if size < 0 {
			out = append(out, nil)
			continue
		}
		out = append(out, tu[at:at+size])
		at += size
	}
	return out
}

// TestTuplesAreNotKept: the memory of the fields belongs to the caller again.
func TestTuplesAreNotKept(t *testing.T) {
	t.Parallel()
	l := tombstoneLayout()
	l.KeepLast = true
	tr, out := collecting(t, l)
	name := field("first")
	done(t, func() error { return tr.Tuple([]field{be32(1), name, nil, nil}) })
	copy(name, "ZZZZZ")
	if diff := cmp.Diff([]field{be32(1), field("first"), nil, nil}, tr.Last()); diff != "" {
		t.Errorf("last (-want +got):\n%s", diff)
	}
	long := strings.Repeat("x", 2<<20)
	done(t, func() error { return tr.Tuple([]field{be32(2), field(long), nil, nil}) }, func() error { return tr.Tuple([]field{be32(3), field("third"), nil, nil}) }, tr.Close)
	want := [][]wireValue{wireRow(0, 0, varint(1, 1), text(2, "first")), wireRow(0, 1, varint(1, 2), text(2, long)), wireRow(0, 2, varint(1, 3), text(2, "third"))}
	if diff := cmp.Diff(want, out.Rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestNoAllocationPerTuple(t *testing.T) { //nolint:paralleltest // testing.AllocsPerRun forbids it
	keep := func(b *rowwire.Batch) (*rowwire.Batch, error) { return b, nil }
	tr, err := rowwire.NewTranscoder(mixedLayout(), nil, keep, func(r rowwire.Reject) error { return fmt.Errorf("column %d: %v", r.Column, r.Reason) })
	if err != nil {
		t.Fatal(err)
	}
	fields := fieldsOf(mixedTuple(7))
	put := func() {
		if err := tr.Tuple(fields); err != nil {
			t.Fatal(err)
		}
	}
	for range 5000 { // fills batches to their final size
		put()
	}
	if n := testing.AllocsPerRun(5000, put); n != 0 {
		t.Errorf("%v allocations per row", n)
	}
}

// BenchmarkTuple14 is BenchmarkTranscode14 with single rows.
func BenchmarkTuple14(b *testing.B) {
	keep := func(batch *rowwire.Batch) (*rowwire.Batch, error) { return batch, nil }
	tr, err := rowwire.NewTranscoder(mixedLayout(), nil, keep, func(r rowwire.Reject) error { return fmt.Errorf("column %d: %v", r.Column, r.Reason) })
	if err != nil {
		b.Fatal(err)
	}
	const canned = 4096
	rows := make([][]field, canned)
	for i := range rows {
		rows[i] = fieldsOf(mixedTuple(i))
	}
	b.SetBytes(int64(len(mixedTuple(canned / 2))))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := tr.Tuple(rows[i%canned]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

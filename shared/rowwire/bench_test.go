package rowwire_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// mixedLayout is 14 columns such as an application's table has.
func mixedLayout() rowwire.Layout {
	kinds := []rowwire.Kind{
		rowwire.Int8, rowwire.Int4, rowwire.Int2, rowwire.Bool, rowwire.Float8, rowwire.Numeric, rowwire.Text,
		rowwire.Text, rowwire.Text, rowwire.JSONB, rowwire.UUID, rowwire.Date, rowwire.DateTime, rowwire.Timestamp,
	}
	l := rowwire.Layout{
		VersionField: 15, SyncedAtField: 16, DeletedField: 17,
		VersionPrefix: "00000001/0005f3a2b1c00000/", SyncedAt: 1_795_000_000_000_000,
		Partition: &rowwire.Partition{Column: 13, Granularity: rowwire.Month},
	}
	for i, k := range kinds {
		l.Columns = append(l.Columns, rowwire.Column{Name: fmt.Sprint("c", i+1), Kind: k, Field: int32(i + 1)})
	}
	return l
}

func mixedTuple(i int) []byte {
	return tuple(
		be64(int64(i)), be32(int64(i%9000)), be16(i%100), field{byte(i & 1)},
		be64(int64(math.Float64bits(float64(i)*0.25))),
		numericField(fmt.Sprintf("%d.%02d", i%100000, i%100)),
		field(fmt.Sprintf("customer %d", i)), field("a short status text"), field("Some longer description that fills a line of a note."),
		field(fmt.Sprintf("\x01{\"id\": %d, \"name\": \"thing\", \"tags\": [\"a\", \"b\"], \"score\": 1.5}", i)),
		field("\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"),
		be32(int64(9000+i%365)), be64(820_000_000_000_000+int64(i)*1_234_567), be64(820_000_000_000_000+int64(i)*1_000_000),
	)
}

// BenchmarkTranscode14 transcodes canned tuples, one per Write, as PostgreSQL sends them. One operation is one row.
func BenchmarkTranscode14(b *testing.B) {
	const canned = 4096
	tuples := make([][]byte, canned)
	size := 0
	for i := range tuples {
		tuples[i] = mixedTuple(i)
		size += len(tuples[i])
	}
	flush := func(batch *rowwire.Batch) (*rowwire.Batch, error) { return batch, nil }
	reject := func(r rowwire.Reject) error { return fmt.Errorf("row %d, column %d: %v", r.Row, r.Column, r.Reason) }
	tr, err := rowwire.NewTranscoder(mixedLayout(), nil, flush, reject)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := tr.Write([]byte(copyHeader)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size / canned))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := tr.Write(tuples[i%canned]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkKind measures each kind on its own.
func BenchmarkKind(b *testing.B) {
	layout := mixedLayout()
	for column, name := range []string{
		"Int8", "Int4", "Int2", "Bool", "Float8", "Numeric", "Text15", "Text19", "Text50", "JSONB", "UUID", "Date",
		"DateTime", "Timestamp",
	} {
		b.Run(name, func(b *testing.B) {
			l := rowwire.Layout{Columns: layout.Columns[column : column+1]}
			keep := func(batch *rowwire.Batch) (*rowwire.Batch, error) { return batch, nil }
			tr, err := rowwire.NewTranscoder(l, nil, keep, func(rowwire.Reject) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
			if _, err := tr.Write([]byte(copyHeader)); err != nil {
				b.Fatal(err)
			}
			one := columnOf(mixedTuple(1234), column)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tr.Write(one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// columnOf returns a tuple of only one column of another.
func columnOf(t []byte, column int) []byte {
	at := 2
	for {
		size := int(t[at])<<24 | int(t[at+1])<<16 | int(t[at+2])<<8 | int(t[at+3])
		if column == 0 {
			return tuple(t[at+4 : at+4+size])
		}
		at += 4 + size
		column--
	}
}

// BenchmarkJSONLines writes the rows of BenchmarkTranscode14 as lines. One operation is one row; bytes are those of lines.
func BenchmarkJSONLines(b *testing.B) {
	l := mixedLayout()
	var tuples [][]byte
	for i := range 4096 {
		tuples = append(tuples, mixedTuple(i))
	}
	out, err := run(b, l, stream(tuples...))
	if err != nil {
		b.Fatal(err)
	}
	lines, err := rowwire.NewJSONLines(l, columnNames(l))
	if err != nil {
		b.Fatal(err)
	}
	var dst []byte
	for _, row := range out.Rows {
		if dst, err = lines.Append(dst, row); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(dst) / len(out.Rows)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if dst, err = lines.Append(dst[:0], out.Rows[i%len(out.Rows)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkConverted measures the kinds that are not as PostgreSQL has them.
func BenchmarkConverted(b *testing.B) {
	for name, test := range map[string]struct {
		column rowwire.Column
		value  field
	}{
		"Hash":         {rowwire.Column{Kind: rowwire.Text, Field: 1, HashKey: []byte("key")}, field("somebody@example.org")},
		"IntervalText": {rowwire.Column{Kind: rowwire.IntervalText, Field: 1}, interval(14, 3, 3_723_500_000)},
		"Interval":     {rowwire.Column{Kind: rowwire.Interval, Field: 1}, interval(14, 3, 3_723_500_000)},
		"NumericInt":   {rowwire.Column{Kind: rowwire.NumericInt, Field: 1}, numericField("1234567")},
		"NumericFloat": {rowwire.Column{Kind: rowwire.NumericFloat, Field: 1}, numericField("12345.67")},
		"JSONText":     {rowwire.Column{Kind: rowwire.JSONText, Field: 1}, field(`{"id": 17, "name": "thing", "tags": ["a", "b"], "score": 1.5}`)},
		"Geography":    {rowwire.Column{Kind: rowwire.Geography, Field: 1}, field("SRID=4326;LINESTRING(1.5 2.5,3.5 4.5)")},
	} {
		b.Run(name, func(b *testing.B) {
			keep := func(batch *rowwire.Batch) (*rowwire.Batch, error) { return batch, nil }
			tr, err := rowwire.NewTranscoder(rowwire.Layout{Columns: []rowwire.Column{test.column}}, nil, keep, func(rowwire.Reject) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
			if _, err := tr.Write([]byte(copyHeader)); err != nil {
				b.Fatal(err)
			}
			one := tuple(test.value)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tr.Write(one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

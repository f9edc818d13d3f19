package rowwire_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/decimal256"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

func jsonMark() arrow.Metadata {
	return arrow.NewMetadata([]string{"ARROW:extension:name"}, []string{"google:sqlType:json"})
}

func TestStagingType(t *testing.T) {
	t.Parallel()
	decimal := &arrow.Decimal128Type{Precision: 38, Scale: 9}
	for _, tc := range []struct {
		field arrow.Field
		want  string // empty: refused
	}{
		{arrow.Field{Type: arrow.PrimitiveTypes.Int64}, "bigint"},
		{arrow.Field{Type: arrow.PrimitiveTypes.Float64}, "double precision"},
		{arrow.Field{Type: arrow.BinaryTypes.String}, "text"},
		{arrow.Field{Type: arrow.BinaryTypes.String, Metadata: jsonMark()}, "jsonb"},
		{arrow.Field{Type: arrow.BinaryTypes.Binary}, "bytea"},
		{arrow.Field{Type: arrow.FixedWidthTypes.Boolean}, "boolean"},
		{arrow.Field{Type: arrow.FixedWidthTypes.Date32}, "date"},
		{arrow.Field{Type: arrow.FixedWidthTypes.Time64us}, "time"},
		{arrow.Field{Type: arrow.FixedWidthTypes.Timestamp_us}, "timestamptz"},
		{arrow.Field{Type: &arrow.TimestampType{Unit: arrow.Microsecond}}, "timestamp"},
		{arrow.Field{Type: decimal}, "numeric"},
		{arrow.Field{Type: &arrow.Decimal256Type{Precision: 76, Scale: 38}}, "numeric"},
		{arrow.Field{Type: arrow.ListOf(arrow.PrimitiveTypes.Int64)}, "bigint[]"},
		{arrow.Field{Type: arrow.ListOf(decimal)}, "numeric[]"},
		{arrow.Field{Type: arrow.ListOf(arrow.BinaryTypes.String), Metadata: jsonMark()}, "jsonb[]"},
		{arrow.Field{Type: arrow.ListOfField(arrow.Field{Name: "item", Type: arrow.BinaryTypes.String, Metadata: jsonMark()})}, "jsonb[]"},
		{arrow.Field{Type: arrow.PrimitiveTypes.Int32}, ""},
		{arrow.Field{Type: arrow.PrimitiveTypes.Uint64}, ""},
		{arrow.Field{Type: arrow.BinaryTypes.LargeString}, ""},
		{arrow.Field{Type: arrow.FixedWidthTypes.Time64ns}, ""},
		{arrow.Field{Type: arrow.FixedWidthTypes.Timestamp_ns}, ""},
		{arrow.Field{Type: &arrow.TimestampType{Unit: arrow.Second}}, ""},
		{arrow.Field{Type: &arrow.Decimal128Type{Precision: 38, Scale: -1}}, ""},
		{arrow.Field{Type: arrow.ListOf(arrow.ListOf(arrow.PrimitiveTypes.Int64))}, ""},
		{arrow.Field{Type: arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int64})}, ""},
		{arrow.Field{Type: arrow.FixedWidthTypes.MonthDayNanoInterval}, ""},
	} {
		tc.field.Name = "c"
		t.Run(fmt.Sprint(tc.field.Type, tc.want), func(t *testing.T) {
			t.Parallel()
			got, err := rowwire.StagingType(tc.field)
			_, writerErr := rowwire.NewCopyWriter(&bytes.Buffer{}, arrow.NewSchema([]arrow.Field{tc.field}, nil))
			if tc.want != "" {
				if got != tc.want || err != nil || writerErr != nil {
					t.Errorf("got %q, %v, writer %v", got, err, writerErr)
				}
				return
			}
			for _, err := range []error{err, writerErr} {
				var ue *rowwire.UnsupportedTypeError
				if !errors.As(err, &ue) || ue.Column != "c" || ue.Type != tc.field.Type.String() {
					t.Errorf("error = %v", err)
				}
			}
		})
	}
}

// backAndForth has one column of each type there is, plain and as a list, and the kinds that read them back.
func backAndForth() (*arrow.Schema, []rowwire.Column) {
	types := []struct {
		dataType arrow.DataType
		kind     rowwire.Kind
		metadata arrow.Metadata
	}{
		{arrow.PrimitiveTypes.Int64, rowwire.Int8, arrow.Metadata{}},
		{arrow.PrimitiveTypes.Float64, rowwire.Float8, arrow.Metadata{}},
		{arrow.BinaryTypes.String, rowwire.Text, arrow.Metadata{}},
		{arrow.BinaryTypes.String, rowwire.JSONB, jsonMark()},
		{arrow.BinaryTypes.Binary, rowwire.Bytes, arrow.Metadata{}},
		{arrow.FixedWidthTypes.Boolean, rowwire.Bool, arrow.Metadata{}},
		{arrow.FixedWidthTypes.Date32, rowwire.Date, arrow.Metadata{}},
		{arrow.FixedWidthTypes.Time64us, rowwire.Time, arrow.Metadata{}},
		{arrow.FixedWidthTypes.Timestamp_us, rowwire.Timestamp, arrow.Metadata{}},
		{&arrow.TimestampType{Unit: arrow.Microsecond}, rowwire.DateTime, arrow.Metadata{}},
		{&arrow.Decimal128Type{Precision: 38, Scale: 9}, rowwire.Numeric, arrow.Metadata{}},
		{&arrow.Decimal256Type{Precision: 76, Scale: 38}, rowwire.BigNumeric, arrow.Metadata{}},
	}
	var fields []arrow.Field
	var columns []rowwire.Column
	for i, c := range types {
		name := fmt.Sprint("c", i)
		fields = append(fields,
			arrow.Field{Name: name, Type: c.dataType, Nullable: true, Metadata: c.metadata},
			arrow.Field{Name: name + "s", Type: arrow.ListOf(c.dataType), Nullable: true, Metadata: c.metadata})
		columns = append(columns,
			rowwire.Column{Name: name, Kind: c.kind, Field: int32(len(columns) + 1)},
			rowwire.Column{Name: name + "s", Kind: c.kind, Repeated: true, Field: int32(len(columns) + 2)})
	}
	return arrow.NewSchema(fields, nil), columns
}

// appendDrawn appends a drawn value to an Arrow builder and returns what the transcoder makes of it.
func appendDrawn(t *rapid.T, b array.Builder, isJSON bool, field int) wireValue {
	us := func(least, most int64) int64 { return rapid.Int64Range(least, most).Draw(t, "us") }
	first, last := day(1, 1, 1).UnixMicro(), day(10000, 1, 1).UnixMicro()-1
	switch b := b.(type) {
	case *array.Int64Builder:
		v := rapid.Int64().Draw(t, "int")
		b.Append(v)
		return varint(field, v)
	case *array.Float64Builder:
		v := rapid.Float64().Draw(t, "float")
		b.Append(v)
		return fixed64(field, math.Float64bits(v))
	case *array.StringBuilder:
		v := strings.ReplaceAll(rapid.String().Draw(t, "text"), "\x00", "")
		if isJSON {
			v = rapid.SampledFrom([]string{`{}`, `[1, "\u00e9"]`, `"\\u0000"`, `null`}).Draw(t, "json")
		}
		b.Append(v)
		return text(field, v)
	case *array.BinaryBuilder:
		v := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		b.Append(v)
		return text(field, string(v))
	case *array.BooleanBuilder:
		v := rapid.Bool().Draw(t, "bool")
		b.Append(v)
		n := int64(0)
		if v {
			n = 1
		}
		return varint(field, n)
	case *array.Date32Builder:
		v := rapid.Int32Range(-719162, 2932896).Draw(t, "days")
		b.Append(arrow.Date32(v))
		return varint(field, int64(v))
	case *array.Time64Builder:
		v := us(0, 86_400_000_000-1)
		b.Append(arrow.Time64(v))
		return text(field, arrow.Time64(v).ToTime(arrow.Microsecond).Format("15:04:05.999999"))
	case *array.TimestampBuilder:
		v := us(first, last)
		b.Append(arrow.Timestamp(v))
		if dt, ok := b.Type().(*arrow.TimestampType); ok && dt.TimeZone == "" {
			return text(field, arrow.Timestamp(v).ToTime(arrow.Microsecond).Format("2006-01-02 15:04:05.999999"))
		}
		return varint(field, v)
	case *array.Decimal128Builder:
		units := drawUnits(t, new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil))
		b.Append(decimal128.FromBigInt(units))
		return text(field, decimalText(t, units, 9))
	case *array.Decimal256Builder:
		units := drawUnits(t, new(big.Int).Lsh(big.NewInt(1), 255))
		b.Append(decimal256.FromBigInt(units))
		return text(field, decimalText(t, units, 38))
	}
	t.Fatalf("no value for %T", b)
	return wireValue{}
}

// drawUnits draws an integer between -limit and limit, both left out, of any size.
func drawUnits(t *rapid.T, limit *big.Int) *big.Int {
	n, _ := new(big.Int).SetString(rapid.StringMatching(`[0-9]{1,80}`).Draw(t, "units"), 10)
	n.Mod(n, limit)
	if rapid.Bool().Draw(t, "negative") {
		n.Neg(n)
	}
	return n
}

func decimalText(t *rapid.T, units *big.Int, scale int64) string {
	denominator := new(big.Int).Exp(big.NewInt(10), big.NewInt(scale), nil)
	return normal(t, new(big.Rat).SetFrac(units, denominator).FloatString(int(scale)))
}

// TestBackAndForth: what a CopyWriter writes, a Transcoder reads as the same values.
func TestBackAndForth(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		schema, columns := backAndForth()
		var buf bytes.Buffer
		w, err := rowwire.NewCopyWriter(&buf, schema)
		if err != nil {
			rt.Fatal(err)
		}
		var want [][]wireValue
		for range rapid.IntRange(0, 3).Draw(rt, "records") {
			rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
			rows := rapid.IntRange(0, 5).Draw(rt, "rows")
			for range rows {
				want = append(want, drawRow(rt, rb, schema))
			}
			record := rb.NewRecord()
			from := rapid.IntRange(0, rows).Draw(rt, "slice from")
			sliced := record.NewSlice(int64(from), int64(rows))
			want = append(want[:len(want)-rows], want[len(want)-rows+from:]...)
			if err := w.WriteRecord(sliced); err != nil {
				rt.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			rt.Fatal(err)
		}
		if w.Rows() != int64(len(want)) {
			rt.Fatalf("Rows() = %d, want %d", w.Rows(), len(want))
		}
		out, err := run(t, rowwire.Layout{Columns: columns}, buf.Bytes())
		if err != nil {
			rt.Fatal(err)
		}
		var got [][]wireValue
		for _, row := range out.Rows {
			got = append(got, decode(t, row))
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("rows (-want +got):\n%s\nrejects %v", diff, out.Rejects)
		}
	})
}

func drawRow(t *rapid.T, rb *array.RecordBuilder, schema *arrow.Schema) []wireValue {
	var row []wireValue
	for i, f := range schema.Fields() {
		isJSON := f.Metadata.Len() > 0
		b := rb.Field(i)
		if rapid.IntRange(0, 5).Draw(t, "null") == 0 {
			b.AppendNull()
			continue
		}
		list, ok := b.(*array.ListBuilder)
		if !ok {
			row = append(row, appendDrawn(t, b, isJSON, i+1))
			continue
		}
		list.Append(true)
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			row = append(row, appendDrawn(t, list.ValueBuilder(), isJSON, i+1))
		}
	}
	return row
}

// badRows is a record of one column whose second row PostgreSQL cannot store.
func badRows(field arrow.Field, fill func(array.Builder)) arrow.Record {
	rb := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{field}, nil))
	rb.Field(0).AppendNull()
	fill(rb.Field(0))
	rb.Field(0).AppendNull()
	return rb.NewRecord()
}

func TestValueErrors(t *testing.T) {
	t.Parallel()
	textField := arrow.Field{Name: "c", Type: arrow.BinaryTypes.String, Nullable: true}
	jsonField := arrow.Field{Name: "c", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: jsonMark()}
	str := func(v string) func(array.Builder) {
		return func(b array.Builder) { b.(*array.StringBuilder).Append(v) } //nolint:forcetypeassert // by the field
	}
	for _, tc := range []struct {
		name   string
		record arrow.Record
		want   rowwire.Reason
	}{
		{"nul in text", badRows(textField, str("a\x00b")), rowwire.NulByte},
		{"text not UTF-8", badRows(textField, str("a\xff")), rowwire.InvalidUTF8},
		{"nul in json", badRows(jsonField, str(`{"a": "\u0000"}`)), rowwire.JSONNul},
		{"surrogate in json", badRows(jsonField, str(`"\ud800"`)), rowwire.JSONSurrogate},
		{"not json", badRows(jsonField, str(`{a: 1}`)), rowwire.InvalidJSON},
		{"empty json", badRows(jsonField, str(``)), rowwire.InvalidJSON},
		{
			"date", badRows(arrow.Field{Name: "c", Type: arrow.FixedWidthTypes.Date32, Nullable: true}, func(b array.Builder) {
				b.(*array.Date32Builder).Append(math.MinInt32) //nolint:forcetypeassert // by the field
			}), rowwire.TemporalRange,
		},
		{
			"time", badRows(arrow.Field{Name: "c", Type: arrow.FixedWidthTypes.Time64us, Nullable: true}, func(b array.Builder) {
				b.(*array.Time64Builder).Append(86_400_000_001) //nolint:forcetypeassert // by the field
			}), rowwire.TemporalRange,
		},
		{
			"timestamp", badRows(arrow.Field{Name: "c", Type: arrow.FixedWidthTypes.Timestamp_us, Nullable: true}, func(b array.Builder) {
				b.(*array.TimestampBuilder).Append(math.MinInt64) //nolint:forcetypeassert // by the field
			}), rowwire.TemporalRange,
		},
		{
			"list", badRows(arrow.Field{Name: "c", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}, func(b array.Builder) {
				list := b.(*array.ListBuilder) //nolint:forcetypeassert // by the field
				list.Append(true)
				str("fine")(list.ValueBuilder())
				str("\x00")(list.ValueBuilder())
			}), rowwire.NulByte,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var buf bytes.Buffer
			w, err := rowwire.NewCopyWriter(&buf, tc.record.Schema())
			if err != nil {
				t.Fatal(err)
			}
			want := &rowwire.ValueError{Column: "c", Row: 1, Reason: tc.want}
			var got *rowwire.ValueError
			if err := w.WriteRecord(tc.record); !errors.As(err, &got) {
				t.Fatalf("WriteRecord = %v", err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			var seen []*rowwire.ValueError
			w.Reject = func(e *rowwire.ValueError) error {
				seen = append(seen, e)
				return nil
			}
			if err := w.WriteRecord(tc.record); err != nil {
				t.Fatal(err)
			}
			want.Row = 4
			if diff := cmp.Diff([]*rowwire.ValueError{want}, seen); diff != "" {
				t.Errorf("rejects (-want +got):\n%s", diff)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			null := tuple(nil)
			if diff := cmp.Diff(stream(null, null, null), buf.Bytes()); diff != "" {
				t.Errorf("bytes (-want +got):\n%s", diff)
			}
			if w.Rows() != 3 {
				t.Errorf("Rows() = %d", w.Rows())
			}
		})
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestCopyWriterErrors(t *testing.T) {
	t.Parallel()
	field := arrow.Field{Name: "c", Type: arrow.BinaryTypes.String, Nullable: true}
	schema := arrow.NewSchema([]arrow.Field{field}, nil)
	t.Run("writer fails", func(t *testing.T) {
		t.Parallel()
		boom := errors.New("boom")
		w, err := rowwire.NewCopyWriter(failingWriter{boom}, schema)
		if err != nil {
			t.Fatal(err)
		}
		large := badRows(field, func(b array.Builder) {
			b.(*array.StringBuilder).Append(strings.Repeat("x", 1<<20)) //nolint:forcetypeassert // by the field
		})
		for range 2 {
			if err := w.WriteRecord(large); !errors.Is(err, boom) {
				t.Errorf("WriteRecord = %v", err)
			}
		}
		if err := w.Close(); !errors.Is(err, boom) {
			t.Errorf("Close = %v", err)
		}
	})
	t.Run("other schema", func(t *testing.T) {
		t.Parallel()
		w, err := rowwire.NewCopyWriter(&bytes.Buffer{}, schema)
		if err != nil {
			t.Fatal(err)
		}
		other := badRows(arrow.Field{Name: "c", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, func(b array.Builder) { b.AppendNull() })
		if err := w.WriteRecord(other); err == nil {
			t.Error("a record of other types was written")
		}
	})
	t.Run("reject fails", func(t *testing.T) {
		t.Parallel()
		boom := errors.New("boom")
		w, err := rowwire.NewCopyWriter(&bytes.Buffer{}, schema)
		if err != nil {
			t.Fatal(err)
		}
		w.Reject = func(*rowwire.ValueError) error { return boom }
		bad := badRows(field, func(b array.Builder) {
			b.(*array.StringBuilder).Append("\x00") //nolint:forcetypeassert // by the field
		})
		if err := w.WriteRecord(bad); !errors.Is(err, boom) {
			t.Errorf("WriteRecord = %v", err)
		}
	})
	t.Run("no columns", func(t *testing.T) {
		t.Parallel()
		if _, err := rowwire.NewCopyWriter(&bytes.Buffer{}, arrow.NewSchema(nil, nil)); err == nil {
			t.Error("an empty schema was accepted")
		}
	})
}

// BenchmarkCopyWriter writes records of 1,000 rows of six columns. One operation is one record.
func BenchmarkCopyWriter(b *testing.B) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "score", Type: arrow.PrimitiveTypes.Float64},
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us},
		{Name: "price", Type: &arrow.Decimal128Type{Precision: 38, Scale: 9}},
		{Name: "profile", Type: arrow.BinaryTypes.String, Metadata: jsonMark()},
	}, nil)
	const rows = 1000
	rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i := range rows {
		err := rb.UnmarshalJSON(fmt.Appendf(nil, `{"id": %d, "score": %d.5, "name": "customer %d", "at": %d, "price": "%d.25", "profile": "{\"a\": %d}"}`,
			i, i, i, 1_700_000_000_000_000+i, i, i))
		if err != nil {
			b.Fatal(err)
		}
	}
	record := rb.NewRecord()
	var discard discarded
	w, err := rowwire.NewCopyWriter(&discard, schema)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.WriteRecord(record); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
}

type discarded struct{ n int }

func (d *discarded) Write(p []byte) (int, error) {
	d.n += len(p)
	return len(p), nil
}

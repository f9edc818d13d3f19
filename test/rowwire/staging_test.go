package rowwire_test

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/decimal256"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// stagingCase is one Arrow type with values and the text that PostgreSQL must show for each.
type stagingCase struct {
	name     string
	dataType arrow.DataType
	json     bool
	values   []any
	want     []string
}

func units(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		panic(s)
	}
	return n
}

func stagingCases() []stagingCase {
	const nines38 = "99999999999999999999999999999999999999"
	two255 := new(big.Int).Lsh(big.NewInt(1), 255)
	us := func(s string) int64 {
		at, err := time.Parse("2006-01-02 15:04:05.999999", s)
		if err != nil {
			panic(err)
		}
		return at.UnixMicro()
	}
	return []stagingCase{
		{
			name: "int64", dataType: arrow.PrimitiveTypes.Int64, values: []any{int64(math.MinInt64), int64(math.MaxInt64), int64(0)},
			want: []string{"-9223372036854775808", "9223372036854775807", "0"},
		},
		{
			name: "float64", dataType: arrow.PrimitiveTypes.Float64, values: []any{0.1, math.NaN(), math.Inf(-1), math.Copysign(0, -1), 5e-324},
			want: []string{"0.1", "NaN", "-Infinity", "-0", "5e-324"},
		},
		{name: "utf8", dataType: arrow.BinaryTypes.String, values: []any{"", "a\tb\n\\", "héllo 😀"}, want: []string{"", "a\tb\n\\", "héllo 😀"}},
		{
			name: "json", dataType: arrow.BinaryTypes.String, json: true, values: []any{`{"b":1.10,"a":[null]}`, `"\\u0000"`, `18446744073709551615`},
			want: []string{`{"a": [null], "b": 1.10}`, `"\\u0000"`, `18446744073709551615`},
		},
		{name: "binary", dataType: arrow.BinaryTypes.Binary, values: []any{[]byte{}, []byte{0, 255}}, want: []string{`\x`, `\x00ff`}},
		{name: "bool", dataType: arrow.FixedWidthTypes.Boolean, values: []any{true, false}, want: []string{"true", "false"}},
		{
			name: "date32", dataType: arrow.FixedWidthTypes.Date32,
			values: []any{arrow.Date32(-719162), arrow.Date32(2932896), arrow.Date32(0), arrow.Date32(-2440588)},
			want:   []string{"0001-01-01", "9999-12-31", "1970-01-01", "4714-11-24 BC"},
		},
		{
			name: "time64", dataType: arrow.FixedWidthTypes.Time64us, values: []any{arrow.Time64(0), arrow.Time64(86_400_000_000 - 1)},
			want: []string{"00:00:00", "23:59:59.999999"},
		},
		{
			name: "timestamp with zone", dataType: arrow.FixedWidthTypes.Timestamp_us,
			values: []any{arrow.Timestamp(0), arrow.Timestamp(us("0001-01-01 00:00:00")), arrow.Timestamp(us("9999-12-31 23:59:59.999999"))},
			want:   []string{"1970-01-01 00:00:00+00", "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"},
		},
		{
			name: "timestamp without zone", dataType: &arrow.TimestampType{Unit: arrow.Microsecond},
			values: []any{arrow.Timestamp(us("2026-11-20 08:16:17.5")), arrow.Timestamp(-210866803200000000), arrow.Timestamp(math.MaxInt64)},
			want:   []string{"2026-11-20 08:16:17.5", "4714-11-24 00:00:00 BC", "294247-01-10 04:00:54.775807"},
		},
		{
			name: "decimal128", dataType: &arrow.Decimal128Type{Precision: 38, Scale: 9},
			values: []any{units(nines38), units("-" + nines38), units("0"), units("1"), units("1500000000"), units("-10000000000000"), units("123456789012"), units("10000")},
			want: []string{
				"99999999999999999999999999999.999999999", "-99999999999999999999999999999.999999999", "0", "0.000000001", "1.5", "-10000",
				"123.456789012", "0.00001",
			},
		},
		{
			name: "decimal128 scale 0", dataType: &arrow.Decimal128Type{Precision: 38, Scale: 0},
			values: []any{units(nines38), units("10000"), units("-120"), units("0"), new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 127))},
			want:   []string{nines38, "10000", "-120", "0", "-170141183460469231731687303715884105728"},
		},
		{
			name: "decimal256", dataType: &arrow.Decimal256Type{Precision: 76, Scale: 38},
			values: []any{new(big.Int).Sub(two255, big.NewInt(1)), new(big.Int).Neg(two255), units("1"), units("-25" + strings.Repeat("0", 36)), units("0")},
			want: []string{
				"578960446186580977117854925043439539266.34992332820282019728792003956564819967",
				"-578960446186580977117854925043439539266.34992332820282019728792003956564819968",
				"0." + strings.Repeat("0", 37) + "1", "-0.25", "0",
			},
		},
	}
}

func appendValue(t *testing.T, b array.Builder, v any) {
	t.Helper()
	switch b := b.(type) {
	case *array.Int64Builder:
		b.Append(v.(int64)) //nolint:forcetypeassert // the table pairs them
	case *array.Float64Builder:
		b.Append(v.(float64)) //nolint:forcetypeassert // the table pairs them
	case *array.StringBuilder:
		b.Append(v.(string)) //nolint:forcetypeassert // the table pairs them
	case *array.BinaryBuilder:
		b.Append(v.([]byte)) //nolint:forcetypeassert // the table pairs them
	case *array.BooleanBuilder:
		b.Append(v.(bool)) //nolint:forcetypeassert // the table pairs them
	case *array.Date32Builder:
		b.Append(v.(arrow.Date32)) //nolint:forcetypeassert // the table pairs them
	case *array.Time64Builder:
		b.Append(v.(arrow.Time64)) //nolint:forcetypeassert // the table pairs them
	case *array.TimestampBuilder:
		b.Append(v.(arrow.Timestamp)) //nolint:forcetypeassert // the table pairs them
	case *array.Decimal128Builder:
		b.Append(decimal128.New(int64(word(v, 1)), word(v, 0)))
	case *array.Decimal256Builder:
		b.Append(decimal256.New(word(v, 3), word(v, 2), word(v, 1), word(v, 0)))
	default:
		t.Fatalf("no value for %T", b)
	}
}

// word returns the i-th 64 bits, from the lowest, of an integer's two's complement. Arrow's own FromBigInt refuses the
// least value of each type.
func word(v any, i uint) uint64 {
	n := new(big.Int).Rsh(v.(*big.Int), 64*i) //nolint:forcetypeassert // the table pairs them
	return n.And(n, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
}

// stage creates a table for the schema and copies the records into it.
func stage(t *testing.T, conn *pgx.Conn, schema *arrow.Schema, reject func(*rowwire.ValueError) error, records ...arrow.Record) {
	t.Helper()
	var columns []string
	for _, f := range schema.Fields() {
		pgType, err := rowwire.StagingType(f)
		if err != nil {
			t.Fatal(err)
		}
		columns = append(columns, f.Name+" "+pgType)
	}
	execute(t, conn, "CREATE UNLOGGED TABLE stage (n serial, "+strings.Join(columns, ", ")+")")
	names := make([]string, schema.NumFields())
	for i, f := range schema.Fields() {
		names[i] = f.Name
	}
	var buf bytes.Buffer
	w, err := rowwire.NewCopyWriter(&buf, schema)
	if err != nil {
		t.Fatal(err)
	}
	w.Reject = reject
	for _, r := range records {
		if err := w.WriteRecord(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sql := fmt.Sprintf("COPY stage (%s) FROM STDIN (FORMAT binary)", strings.Join(names, ", "))
	tag, err := conn.PgConn().CopyFrom(t.Context(), &buf, sql)
	if err != nil {
		t.Fatal(err)
	}
	if tag.RowsAffected() != w.Rows() {
		t.Errorf("PostgreSQL took %d rows, %d were written", tag.RowsAffected(), w.Rows())
	}
}

func TestStaging(t *testing.T) {
	t.Parallel()
	for _, tc := range stagingCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var metadata arrow.Metadata
			if tc.json {
				metadata = arrow.NewMetadata([]string{"ARROW:extension:name"}, []string{"google:sqlType:json"})
			}
			schema := arrow.NewSchema([]arrow.Field{
				{Name: "v", Type: tc.dataType, Nullable: true, Metadata: metadata},
				{Name: "vs", Type: arrow.ListOf(tc.dataType), Nullable: true, Metadata: metadata},
			}, nil)
			rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
			list, ok := rb.Field(1).(*array.ListBuilder)
			if !ok {
				t.Fatalf("second builder is %T", rb.Field(1))
			}
			for _, v := range tc.values {
				appendValue(t, rb.Field(0), v)
				list.Append(true)
				appendValue(t, list.ValueBuilder(), v)
				list.ValueBuilder().AppendNull()
				appendValue(t, list.ValueBuilder(), v)
			}
			rb.Field(0).AppendNull()
			list.AppendNull()
			rb.Field(0).AppendNull()
			list.AppendEmptyValue()
			conn := connect(t)
			stage(t, conn, schema, nil, rb.NewRecord())

			var want [][]*string
			three, null, none := "3", "true", "0"
			for i := range tc.want {
				want = append(want, []*string{&tc.want[i], &tc.want[i], &tc.want[i], &null, &three})
			}
			want = append(want, []*string{nil, nil, nil, nil, nil}, []*string{nil, nil, nil, nil, &none})
			got := texts(t, conn, `SELECT v::text, vs[1]::text, vs[3]::text,
				CASE WHEN cardinality(vs) > 0 THEN (vs[2] IS NULL)::text END, cardinality(vs)::text FROM stage ORDER BY n`)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			if strings.HasPrefix(tc.name, "decimal") { // what PostgreSQL reads must be what it would have written
				same := texts(t, conn, "SELECT n::text FROM stage WHERE numeric_send(v) <> numeric_send(v::text::numeric)")
				if len(same) != 0 {
					t.Errorf("%d numerics differ from PostgreSQL's own", len(same))
				}
			}
		})
	}
}

func TestStagingLeavesOutBadRows(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String},
		{
			Name: "profile", Type: arrow.BinaryTypes.String,
			Metadata: arrow.NewMetadata([]string{"ARROW:extension:name"}, []string{"google:sqlType:json"}),
		},
	}, nil)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i, row := range []struct{ name, profile string }{
		{"good", `{}`}, {"nul\x00", `{}`}, {"nul in json", `"\u0000"`}, {"surrogate", `"\udead"`}, {"broken", `{`}, {"last", `[1]`},
	} {
		appendValue(t, rb.Field(0), int64(i))
		appendValue(t, rb.Field(1), row.name)
		appendValue(t, rb.Field(2), row.profile)
	}
	var rejects []rowwire.ValueError
	conn := connect(t)
	stage(t, conn, schema, func(e *rowwire.ValueError) error {
		rejects = append(rejects, *e)
		return nil
	}, rb.NewRecord())
	want := []rowwire.ValueError{
		{Column: "name", Row: 1, Reason: rowwire.NulByte},
		{Column: "profile", Row: 2, Reason: rowwire.JSONNul},
		{Column: "profile", Row: 3, Reason: rowwire.JSONSurrogate},
		{Column: "profile", Row: 4, Reason: rowwire.InvalidJSON},
	}
	if diff := cmp.Diff(want, rejects); diff != "" {
		t.Errorf("rejects (-want +got):\n%s", diff)
	}
	good, last, first, sixth := "good", "last", "0", "5"
	if diff := cmp.Diff([][]*string{{&first, &good}, {&sixth, &last}}, texts(t, conn, "SELECT id::text, name FROM stage ORDER BY n")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

package rowwire_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

const (
	epochDays   = 10957
	epochMicros = epochDays * 86_400_000_000
)

func oneColumn(kind rowwire.Kind, repeated bool) rowwire.Layout {
	return rowwire.Layout{Columns: []rowwire.Column{{Name: "c", Kind: kind, Repeated: repeated, Field: 1}}}
}

// micros is the COPY bytes of a timestamp.
func micros(t time.Time) field { return be64(t.UnixMicro() - epochMicros) }

// days is the COPY bytes of a date.
func days(t time.Time) field { return be32(t.Unix()/86400 - epochDays) }

func day(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

func bits(f float64) field { return be64(int64(math.Float64bits(f))) }

func TestValues(t *testing.T) {
	t.Parallel()
	nan32 := be32(int64(math.Float32bits(float32(math.NaN()))))
	for _, tc := range []struct {
		name string
		kind rowwire.Kind
		in   field
		want wireValue
	}{
		{"true", rowwire.Bool, field{1}, varint(1, 1)},
		{"false", rowwire.Bool, field{0}, varint(1, 0)},
		{"int2 min", rowwire.Int2, be16(math.MinInt16), varint(1, math.MinInt16)},
		{"int2 max", rowwire.Int2, be16(math.MaxInt16), varint(1, math.MaxInt16)},
		{"int4 min", rowwire.Int4, be32(math.MinInt32), varint(1, math.MinInt32)},
		{"int4 max", rowwire.Int4, be32(math.MaxInt32), varint(1, math.MaxInt32)},
		{"int8 min", rowwire.Int8, be64(math.MinInt64), varint(1, math.MinInt64)},
		{"int8 max", rowwire.Int8, be64(math.MaxInt64), varint(1, math.MaxInt64)},
		{"int8 zero", rowwire.Int8, be64(0), varint(1, 0)},
		{"float4", rowwire.Float4, be32(int64(math.Float32bits(0.1))), fixed64(1, math.Float64bits(float64(float32(0.1))))},
		{"float4 NaN", rowwire.Float4, nan32, fixed64(1, math.Float64bits(float64(float32(math.NaN()))))},
		{"float8", rowwire.Float8, bits(0.1), fixed64(1, math.Float64bits(0.1))},
		{"float8 negative zero", rowwire.Float8, bits(math.Copysign(0, -1)), fixed64(1, 1<<63)},
		{"float8 NaN", rowwire.Float8, bits(math.NaN()), fixed64(1, math.Float64bits(math.NaN()))},
		{"float8 -Inf", rowwire.Float8, bits(math.Inf(-1)), fixed64(1, math.Float64bits(math.Inf(-1)))},
		{"numeric zero", rowwire.Numeric, numericField("0.00"), text(1, "0")},
		{"numeric trailing zeros", rowwire.Numeric, numericField("1.10"), text(1, "1.1")},
		{"numeric small", rowwire.Numeric, numericField("-0.000000001"), text(1, "-0.000000001")},
		{
			"numeric max", rowwire.Numeric, numericField("99999999999999999999999999999.999999999"),
			text(1, "99999999999999999999999999999.999999999"),
		},
		{
			"numeric min", rowwire.Numeric, numericField("-99999999999999999999999999999.999999999"),
			text(1, "-99999999999999999999999999999.999999999"),
		},
		{"numeric round", rowwire.Numeric, numericField("10000000000000000"), text(1, "10000000000000000")},
		{"numeric zero digits sent", rowwire.Numeric, numericParts(2, 0, 3, 0, 7, 0, 5000, 0), text(1, "70000.5")},
		{
			"bignumeric max", rowwire.BigNumeric,
			numericField("578960446186580977117854925043439539266.34992332820282019728792003956564819967"),
			text(1, "578960446186580977117854925043439539266.34992332820282019728792003956564819967"),
		},
		{
			"bignumeric min", rowwire.BigNumeric,
			numericField("-578960446186580977117854925043439539266.34992332820282019728792003956564819968"),
			text(1, "-578960446186580977117854925043439539266.34992332820282019728792003956564819968"),
		},
		{
			"bignumeric smallest", rowwire.BigNumeric, numericField("0." + strings.Repeat("0", 37) + "1"),
			text(1, "0."+strings.Repeat("0", 37)+"1"),
		},
		{
			"bignumeric 39 digits", rowwire.BigNumeric, numericField("500000000000000000000000000000000000000"),
			text(1, "500000000000000000000000000000000000000"),
		},
		{"text", rowwire.Text, field("héllo"), text(1, "héllo")},
		{"text empty", rowwire.Text, field{}, text(1, "")},
		{"text long", rowwire.Text, field(strings.Repeat("x", 70000)), text(1, strings.Repeat("x", 70000))},
		{"json", rowwire.JSON, field(`{"a": [1, 2.50, "\ud83d\ude00"]}`), text(1, `{"a": [1, 2.50, "\ud83d\ude00"]}`)},
		{"jsonb", rowwire.JSONB, field("\x01null"), text(1, "null")},
		{"bytes", rowwire.Bytes, field("\x00\xff\xfe"), text(1, "\x00\xff\xfe")},
		{
			"uuid", rowwire.UUID, field("\xde\xad\xbe\xef\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\xff"),
			text(1, "deadbeef-0001-0203-0405-060708090aff"),
		},
		{"interval text", rowwire.IntervalText, interval(-14, 3, -3_723_000_001), text(1, "P-1Y-2M3DT-1H-2M-3.000001S")},
		{"interval text zero", rowwire.IntervalText, interval(0, 0, 0), text(1, "PT0S")},
		{"interval text second", rowwire.IntervalText, interval(0, 0, 500_000), text(1, "PT0.5S")},
		{"interval text min", rowwire.IntervalText, interval(math.MinInt32, math.MinInt32, math.MinInt64+1), text(1, "P-178956970Y-8M-2147483648DT-2562047788H-54.775807S")},
		{"interval", rowwire.Interval, interval(-14, 3, -3_723_000_001), text(1, "-1-2 3 -1:2:3.000001")},
		{"interval zero", rowwire.Interval, interval(0, 0, 0), text(1, "0-0 0 0:0:0")},
		{"interval max", rowwire.Interval, interval(120_000, 3_660_000, 87_840_000*3_600_000_000), text(1, "10000-0 3660000 87840000:0:0")},
		{"interval min", rowwire.Interval, interval(-120_000, -3_660_000, -87_840_000*3_600_000_000), text(1, "-10000-0 -3660000 -87840000:0:0")},
		{"numeric as int", rowwire.NumericInt, numericField("-9223372036854775808"), varint(1, math.MinInt64)},
		{"numeric as int max", rowwire.NumericInt, numericField("9223372036854775807"), varint(1, math.MaxInt64)},
		{"numeric as int zero", rowwire.NumericInt, numericField("0.00"), varint(1, 0)},
		{"numeric as int round", rowwire.NumericInt, numericField("1000000000000000000.00"), varint(1, 1_000_000_000_000_000_000)},
		{"numeric as float", rowwire.NumericFloat, numericField("-0.1"), fixed64(1, math.Float64bits(-0.1))},
		{"numeric as float 17 digits", rowwire.NumericFloat, numericField("1.7976931348623157"), fixed64(1, math.Float64bits(1.7976931348623157))},
		{"numeric as float max", rowwire.NumericFloat, numericField("17976931348623157" + strings.Repeat("0", 292)), fixed64(1, math.Float64bits(math.MaxFloat64))},
		{"numeric as float zero", rowwire.NumericFloat, numericField("0"), fixed64(1, 0)},
		{"numeric as float NaN", rowwire.NumericFloat, numericField("NaN"), fixed64(1, math.Float64bits(math.NaN()))},
		{"numeric as float -Inf", rowwire.NumericFloat, numericField("-Infinity"), fixed64(1, math.Float64bits(math.Inf(-1)))},
		{"text as json", rowwire.JSONText, field(` {"a": 1} `), text(1, ` {"a": 1} `)},
		{"geography", rowwire.Geography, field("SRID=4326;POINT(-180 90)"), text(1, "POINT(-180 90)")},
		{"geography collection", rowwire.Geography, field("SRID=4326;GEOMETRYCOLLECTION(MULTIPOINT((1e-7 2),(-3.5 4)),POLYGON((0 0,1 0,1 1,0 0)),POINT EMPTY)"), text(1, "GEOMETRYCOLLECTION(MULTIPOINT((1e-7 2),(-3.5 4)),POLYGON((0 0,1 0,1 1,0 0)),POINT EMPTY)")},
		{"date min", rowwire.Date, days(day(1, 1, 1)), varint(1, -719162)},
		{"date max", rowwire.Date, days(day(9999, 12, 31)), varint(1, 2932896)},
		{"time min", rowwire.Time, be64(0), text(1, "00:00:00")},
		{"time max", rowwire.Time, be64(86_400_000_000 - 1), text(1, "23:59:59.999999")},
		{"time fraction", rowwire.Time, be64(45_296_120_000), text(1, "12:34:56.12")},
		{"datetime min", rowwire.DateTime, micros(day(1, 1, 1)), text(1, "0001-01-01 00:00:00")},
		{"datetime max", rowwire.DateTime, micros(day(10000, 1, 1).Add(-time.Microsecond)), text(1, "9999-12-31 23:59:59.999999")},
		{"datetime leap", rowwire.DateTime, micros(day(2000, 2, 29).Add(time.Microsecond)), text(1, "2000-02-29 00:00:00.000001")},
		{"timestamp epoch", rowwire.Timestamp, micros(time.Unix(0, 0)), varint(1, 0)},
		{"timestamp min", rowwire.Timestamp, micros(day(1, 1, 1)), varint(1, day(1, 1, 1).UnixMicro())},
		{
			"timestamp max", rowwire.Timestamp, micros(day(10000, 1, 1).Add(-time.Microsecond)),
			varint(1, day(10000, 1, 1).UnixMicro()-1),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, oneColumn(tc.kind, false), stream(tuple(tc.in), tuple(nil)))
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Rows) != 2 || len(out.Rejects) != 0 {
				t.Fatalf("got %d rows, rejects %v", len(out.Rows), out.Rejects)
			}
			if diff := cmp.Diff([]wireValue{tc.want}, decode(t, out.Rows[0])); diff != "" {
				t.Errorf("value (-want +got):\n%s", diff)
			}
			if len(out.Rows[1]) != 0 {
				t.Errorf("NULL was encoded as %x", out.Rows[1])
			}
			out, err = run(t, oneColumn(tc.kind, true), stream(tuple(arrayField(1, tc.in, tc.in))))
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Rows) != 1 {
				t.Fatalf("array: rejects %v", out.Rejects)
			}
			if diff := cmp.Diff([]wireValue{tc.want, tc.want}, decode(t, out.Rows[0])); diff != "" {
				t.Errorf("array (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRejects(t *testing.T) {
	t.Parallel()
	emptyArray := append(append(be32(0), be32(0)...), be32(25)...)
	twoDimensions := append(append(append(be32(2), be32(0)...), be32(25)...), make([]byte, 16)...)
	nested := func(n int) field { return field(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	for _, tc := range []struct {
		name     string
		kind     rowwire.Kind
		repeated bool
		in       field
		want     rowwire.Reason // 0: accepted
	}{
		{"array from 0", rowwire.Int4, true, arrayField(0, be32(1)), rowwire.ShiftedArray},
		{"array from -3", rowwire.Int4, true, arrayField(-3, be32(1)), rowwire.ShiftedArray},
		{"interval infinity", rowwire.IntervalText, false, interval(math.MaxInt32, math.MaxInt32, math.MaxInt64), rowwire.TemporalInfinity},
		{"interval -infinity", rowwire.Interval, false, interval(math.MinInt32, math.MinInt32, math.MinInt64), rowwire.TemporalInfinity},
		{"interval of more months", rowwire.Interval, false, interval(120_001, 0, 0), rowwire.IntervalRange},
		{"interval of more days", rowwire.Interval, false, interval(0, -3_660_001, 0), rowwire.IntervalRange},
		{"interval of more microseconds", rowwire.Interval, false, interval(0, 0, 87_840_000*3_600_000_000+1), rowwire.IntervalRange},
		{"interval of least microseconds", rowwire.Interval, false, interval(0, 0, math.MinInt64), rowwire.IntervalRange},
		{"numeric as int fraction", rowwire.NumericInt, false, numericField("1.5"), rowwire.NumericScale},
		{"numeric as int over", rowwire.NumericInt, false, numericField("9223372036854775808"), rowwire.NumericRange},
		{"numeric as int under", rowwire.NumericInt, false, numericField("-9223372036854775809"), rowwire.NumericRange},
		{"numeric as int 20 digits", rowwire.NumericInt, false, numericField("18446744073709551617"), rowwire.NumericRange},
		{"numeric as int NaN", rowwire.NumericInt, false, numericField("NaN"), rowwire.NumericNaN},
		{"numeric as float 2^53+1", rowwire.NumericFloat, false, numericField("9007199254740993"), rowwire.InexactFloat},
		{"numeric as float 18 digits", rowwire.NumericFloat, false, numericField("0.123456789012345678"), rowwire.InexactFloat},
		{"numeric as float many digits", rowwire.NumericFloat, false, numericField(strings.Repeat("1234", 20)), rowwire.InexactFloat},
		{"numeric as float 1e309", rowwire.NumericFloat, false, numericField("1" + strings.Repeat("0", 309)), rowwire.InexactFloat},
		{"text as json empty", rowwire.JSONText, false, field{}, rowwire.InvalidJSON},
		{"text as json open", rowwire.JSONText, false, field(`{"a": `), rowwire.InvalidJSON},
		{"text as json number", rowwire.JSONText, false, field(`[1e309]`), rowwire.JSONNumber},
		{"text as json twice", rowwire.JSONText, false, field(`{"a": 1, "a": 2}`), rowwire.JSONDuplicateKey},
		{"geography without SRID", rowwire.Geography, false, field("POINT(1 2)"), rowwire.GeographySRID},
		{"geography of another SRID", rowwire.Geography, false, field("SRID=3857;POINT(1 2)"), rowwire.GeographySRID},
		{"geography with Z", rowwire.Geography, false, field("SRID=4326;POINT(1 2 3)"), rowwire.GeographyShape},
		{"geography with M", rowwire.Geography, false, field("SRID=4326;POINTM(1 2 3)"), rowwire.GeographyShape},
		{"geography NaN", rowwire.Geography, false, field("SRID=4326;POINT(NaN 2)"), rowwire.GeographyShape},
		{"geography of one number", rowwire.Geography, false, field("SRID=4326;POINT(1)"), rowwire.GeographyShape},
		{"geography curve", rowwire.Geography, false, field("SRID=4326;CIRCULARSTRING(0 0,1 1,2 0)"), rowwire.GeographyShape},
		{"geography beyond 180", rowwire.Geography, false, field("SRID=4326;LINESTRING(1 2,180.1 2)"), rowwire.GeographyRange},
		{"geography beyond -90", rowwire.Geography, false, field("SRID=4326;POINT(1 -90.5)"), rowwire.GeographyRange},
		{"geography of other signs", rowwire.Geography, false, field("SRID=4326;POINT(1;2)"), rowwire.GeographyShape},
		{"numeric NaN", rowwire.Numeric, false, numericField("NaN"), rowwire.NumericNaN},
		{"numeric Infinity", rowwire.Numeric, false, numericField("Infinity"), rowwire.NumericInfinity},
		{"bignumeric -Infinity", rowwire.BigNumeric, false, numericField("-Infinity"), rowwire.NumericInfinity},
		{"numeric 30 digits", rowwire.Numeric, false, numericField("100000000000000000000000000000"), rowwire.NumericRange},
		{"numeric scale 10", rowwire.Numeric, false, numericField("0.0000000001"), rowwire.NumericScale},
		{"numeric scale 10 of zeros", rowwire.Numeric, false, numericField("0.1000000000"), 0},
		{"numeric huge weight", rowwire.Numeric, false, numericParts(32767, 0, 0, 1), rowwire.NumericRange},
		{"numeric tiny weight", rowwire.Numeric, false, numericParts(-32768, 0, 16383, 1), rowwire.NumericScale},
		{
			"bignumeric over max", rowwire.BigNumeric, false,
			numericField("578960446186580977117854925043439539266.34992332820282019728792003956564819968"), rowwire.NumericRange,
		},
		{
			"bignumeric under min", rowwire.BigNumeric, false,
			numericField("-578960446186580977117854925043439539266.34992332820282019728792003956564819969"), rowwire.NumericRange,
		},
		{"bignumeric 40 digits", rowwire.BigNumeric, false, numericField("1" + strings.Repeat("0", 39)), rowwire.NumericRange},
		{"bignumeric 39 nines", rowwire.BigNumeric, false, numericField(strings.Repeat("9", 39)), rowwire.NumericRange},
		{"bignumeric scale 39", rowwire.BigNumeric, false, numericField("0." + strings.Repeat("0", 38) + "1"), rowwire.NumericScale},
		{"text not UTF-8", rowwire.Text, false, field("a\xff"), rowwire.InvalidUTF8},
		{"json not UTF-8", rowwire.JSON, false, field("\"\xff\""), rowwire.InvalidUTF8},
		{"date infinity", rowwire.Date, false, be32(math.MaxInt32), rowwire.TemporalInfinity},
		{"date -infinity", rowwire.Date, false, be32(math.MinInt32), rowwire.TemporalInfinity},
		{"date year 0", rowwire.Date, false, days(day(0, 12, 31)), rowwire.YearRange},
		{"date year 10000", rowwire.Date, false, days(day(10000, 1, 1)), rowwire.YearRange},
		{"time 24:00:00", rowwire.Time, false, be64(86_400_000_000), rowwire.EndOfDay},
		{"datetime infinity", rowwire.DateTime, false, be64(math.MaxInt64), rowwire.TemporalInfinity},
		{"datetime year 10000", rowwire.DateTime, false, micros(day(10000, 1, 1)), rowwire.YearRange},
		{"timestamp -infinity", rowwire.Timestamp, false, be64(math.MinInt64), rowwire.TemporalInfinity},
		{"timestamp year 0", rowwire.Timestamp, false, micros(day(1, 1, 1).Add(-time.Microsecond)), rowwire.YearRange},
		{"timestamp far", rowwire.Timestamp, false, be64(math.MaxInt64 - 1), rowwire.YearRange},
		{"array NULL element", rowwire.Text, true, arrayField(1, field("a"), nil), rowwire.NullElement},
		{"array two dimensions", rowwire.Text, true, twoDimensions, rowwire.MultiDimensional},
		{"array empty", rowwire.Text, true, emptyArray, 0},
		{"array bad element", rowwire.Date, true, arrayField(1, be32(0), be32(math.MaxInt32)), rowwire.TemporalInfinity},
		{"json depth 500", rowwire.JSON, false, nested(500), 0},
		{"json depth 501", rowwire.JSON, false, nested(501), rowwire.JSONDepth},
		{"json wide", rowwire.JSON, false, field(strings.Repeat("[],", 600)), 0},
		{"jsonb number", rowwire.JSONB, false, field("\x0118446744073709551616"), rowwire.JSONNumber},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, oneColumn(tc.kind, tc.repeated), stream(tuple(tc.in)))
			if err != nil {
				t.Fatal(err)
			}
			var want []rejected
			if tc.want != 0 {
				want = []rejected{{Column: 0, Reason: tc.want, Tuple: [][]byte{tc.in}}}
			}
			if diff := cmp.Diff(want, out.Rejects); diff != "" {
				t.Errorf("rejects (-want +got):\n%s", diff)
			}
			if got := len(out.Rows); got != 1-len(want) {
				t.Errorf("%d rows accepted", got)
			}
		})
	}
}

func TestRowsKeepTheirPositionBesideRejects(t *testing.T) {
	t.Parallel()
	l := rowwire.Layout{
		Columns: []rowwire.Column{
			{Name: "id", Kind: rowwire.Int4, Field: 1},
			{Name: "price", Kind: rowwire.Numeric, Field: 2},
			{Name: "day", Kind: rowwire.Date, Field: 3},
		},
		VersionField: 4, SyncedAtField: 5, DeletedField: 2000,
		VersionPrefix: "00000001/00ab/", SyncedAt: 123456789,
		Partition: &rowwire.Partition{Column: 2, Granularity: rowwire.Month},
	}
	var tuples [][]byte
	for i := range 20 {
		price := "1.5"
		if i%3 == 0 {
			price = "NaN"
		}
		tuples = append(tuples, tuple(be32(int64(i)), numericField(price), days(day(2026, time.Month(1+i%2), 3))))
	}
	tuples = append(tuples, tuple(nil, numericField("2"), nil))
	out, err := run(t, l, stream(tuples...))
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Rejects) != 7 || len(out.Rows) != 14 {
		t.Fatalf("%d rows, %d rejects", len(out.Rows), len(out.Rejects))
	}
	at := 0
	for i := range 20 {
		if i%3 == 0 {
			r := out.Rejects[i/3]
			if r.Row != int64(i) || r.Column != 1 || r.Reason != rowwire.NumericNaN {
				t.Errorf("reject %d = %+v", i/3, r)
			}
			if diff := cmp.Diff([][]byte{be32(int64(i)), numericField("NaN"), days(day(2026, time.Month(1+i%2), 3))}, r.Tuple); diff != "" {
				t.Errorf("tuple of reject (-want +got):\n%s", diff)
			}
			continue
		}
		want := []wireValue{
			varint(1, int64(i)), text(2, "1.5"), varint(3, day(2026, time.Month(1+i%2), 3).Unix()/86400),
			text(4, fmt.Sprintf("00000001/00ab/%08x", i)), varint(5, 123456789), varint(2000, 0),
		}
		if diff := cmp.Diff(want, decode(t, out.Rows[at])); diff != "" {
			t.Errorf("row %d (-want +got):\n%s", i, diff)
		}
		at++
	}
	if diff := cmp.Diff([]string{"202601", "202602", "__NULL__"}, out.Partitions); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 8, 59, 59, 999_999_000, time.UTC)
	early := day(1, 1, 1)
	for _, tc := range []struct {
		name        string
		kind        rowwire.Kind
		granularity rowwire.Granularity
		want        []string
	}{
		{"hour", rowwire.Timestamp, rowwire.Hour, []string{"0001010100", "2026112008", "2026112009"}},
		{"day", rowwire.DateTime, rowwire.Day, []string{"00010101", "20261120"}},
		{"month", rowwire.Timestamp, rowwire.Month, []string{"000101", "202611"}},
		{"year", rowwire.Timestamp, rowwire.Year, []string{"0001", "2026"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := oneColumn(tc.kind, false)
			l.Partition = &rowwire.Partition{Granularity: tc.granularity}
			out, err := run(t, l, stream(
				tuple(micros(at)), tuple(micros(at.Add(time.Microsecond))), tuple(micros(early)), tuple(micros(at)),
			))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, out.Partitions); diff != "" {
				t.Errorf("partitions (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("agrees with time", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			us := rapid.Int64Range(day(1, 1, 1).UnixMicro(), day(10000, 1, 1).UnixMicro()-1).Draw(t, "us")
			g := rapid.IntRange(0, 3).Draw(t, "granularity")
			l := oneColumn(rowwire.Timestamp, false)
			l.Partition = &rowwire.Partition{Granularity: rowwire.Hour + rowwire.Granularity(g)}
			tr, err := rowwire.NewTranscoder(l, nil,
				func(b *rowwire.Batch) (*rowwire.Batch, error) { return b, nil },
				func(rowwire.Reject) error { return errors.New("rejected") })
			if err != nil {
				t.Fatal(err)
			}
			next := min(us+int64(rapid.IntRange(0, 86_400_000_000*40).Draw(t, "step")), day(10000, 1, 1).UnixMicro()-1)
			if _, err := tr.Write(stream(tuple(be64(us-epochMicros)), tuple(be64(next-epochMicros)))); err != nil {
				t.Fatal(err)
			}
			form := []string{"2006010215", "20060102", "200601", "2006"}[g]
			want := []string{time.UnixMicro(us).UTC().Format(form)}
			if other := time.UnixMicro(next).UTC().Format(form); other != want[0] {
				want = append(want, other)
			}
			if diff := cmp.Diff(want, tr.Partitions()); diff != "" {
				t.Fatalf("partitions (-want +got):\n%s", diff)
			}
		})
	})
}

func TestPartitionWindow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	earliest, latest := now.AddDate(-10, 0, 0), now.AddDate(1, 0, 0)
	midnight := earliest.Truncate(24 * time.Hour)
	for _, tc := range []struct {
		name string
		kind rowwire.Kind
		from time.Time
		in   field
		ok   bool
	}{
		{"date at midnight", rowwire.Date, midnight, days(midnight), true},
		{"date before midnight", rowwire.Date, midnight, days(midnight.AddDate(0, 0, -1)), false},
		{"timestamp earliest", rowwire.Timestamp, earliest, micros(earliest), true},
		{"timestamp before", rowwire.Timestamp, earliest, micros(earliest.Add(-time.Microsecond)), false},
		{"datetime latest", rowwire.DateTime, earliest, micros(latest), true},
		{"datetime after", rowwire.DateTime, earliest, micros(latest.Add(time.Microsecond)), false},
		{"date earliest", rowwire.Date, earliest, days(earliest), true},
		{"date before", rowwire.Date, earliest, days(earliest.AddDate(0, 0, -1)), false},
		{"date latest", rowwire.Date, earliest, days(latest), true},
		{"date after", rowwire.Date, earliest, days(latest.AddDate(0, 0, 1)), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := oneColumn(tc.kind, false)
			l.Partition = &rowwire.Partition{Granularity: rowwire.Day, Earliest: tc.from, Latest: latest}
			out, err := run(t, l, stream(tuple(tc.in)))
			if err != nil {
				t.Fatal(err)
			}
			if tc.ok {
				if len(out.Rows) != 1 || len(out.Partitions) != 1 {
					t.Errorf("got %+v", out)
				}
				return
			}
			want := []rejected{{Reason: rowwire.OutsidePartitionWindow, Tuple: [][]byte{tc.in}}}
			if diff := cmp.Diff(want, out.Rejects); diff != "" {
				t.Errorf("rejects (-want +got):\n%s", diff)
			}
			if len(out.Partitions) != 0 {
				t.Errorf("a rejected row's partition was noted: %v", out.Partitions)
			}
		})
	}
}

func TestBatchLimits(t *testing.T) {
	t.Parallel()
	l := oneColumn(rowwire.Text, false)
	l.BatchBytes, l.BatchRows, l.MaxRow = 100, 4, 200
	size := func(n int) []byte { return tuple(field(strings.Repeat("x", n-2))) } // tag and length take two
	large := func(n int) []byte { return tuple(field(strings.Repeat("x", n-3))) }
	for _, tc := range []struct {
		name   string
		tuples [][]byte
		want   []int
	}{
		{"by rows", [][]byte{size(5), size(5), size(5), size(5), size(5)}, []int{4, 1}},
		{"exactly full", [][]byte{size(50), size(50), size(50)}, []int{2, 1}},
		{"one over", [][]byte{size(60), size(41)}, []int{1, 1}},
		{"never over", [][]byte{size(60), size(60), size(30)}, []int{1, 2}},
		{"large row alone", [][]byte{size(30), large(200), size(30)}, []int{1, 1, 1}},
		{"too large row", [][]byte{size(30), large(201), size(30)}, []int{2}},
		{"far too large row", [][]byte{size(30), large(100_000), size(30)}, []int{2}},
		{"empty", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, l, stream(tc.tuples...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, out.Batches); diff != "" {
				t.Errorf("batches (-want +got):\n%s", diff)
			}
			if strings.Contains(tc.name, "too large") {
				if len(out.Rejects) != 1 || out.Rejects[0].Reason != rowwire.RowTooLarge || out.Rejects[0].Column != -1 {
					t.Errorf("rejects = %v", out.Rejects)
				}
			}
			var want []string
			for _, tu := range tc.tuples {
				if len(tu) < 300 && len(tu) != 2+4+198 {
					want = append(want, string(tu[6:]))
				}
			}
			var got []string
			for _, row := range out.Rows {
				got = append(got, decode(t, row)[0].Text)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

// A callee that keeps batches while others are filled must find them unchanged.
func TestBatchesMayBeKept(t *testing.T) {
	t.Parallel()
	l := mixedLayout()
	l.BatchBytes = 2000
	var tuples [][]byte
	for i := range 500 {
		tuples = append(tuples, mixedTuple(i))
	}
	want, err := run(t, l, stream(tuples...))
	if err != nil {
		t.Fatal(err)
	}
	var kept []*rowwire.Batch
	var got [][]byte
	take := func(b *rowwire.Batch) {
		for _, row := range b.Rows {
			got = append(got, append([]byte(nil), row...))
		}
	}
	flush := func(b *rowwire.Batch) (*rowwire.Batch, error) {
		kept = append(kept, b)
		if len(kept) < 3 {
			return new(rowwire.Batch), nil
		}
		oldest := kept[0]
		kept = kept[1:]
		take(oldest)
		return oldest, nil
	}
	tr, err := rowwire.NewTranscoder(l, nil, flush, func(rowwire.Reject) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Write(stream(tuples...)); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	for _, b := range kept {
		take(b)
	}
	if diff := cmp.Diff(want.Rows, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	header := []byte(copyHeader)
	with := func(b ...[]byte) []byte { return append(append([]byte{}, header...), flat(b)...) }
	one := func(kind rowwire.Kind, repeated bool, f field) ([]byte, rowwire.Layout) {
		return stream(tuple(f)), oneColumn(kind, repeated)
	}
	type testCase struct {
		name   string
		in     []byte
		layout rowwire.Layout
		column int
	}
	text := oneColumn(rowwire.Text, false)
	cases := []testCase{
		{"empty", nil, text, -1},
		{"short header", header[:10], text, -1},
		{"text format", []byte("1\tone\n2\ttwo\n3\tthree\n"), text, -1},
		{"critical flag", append([]byte("PGCOPY\n\xff\r\n\x00\x00\x01\x00\x00"), 0, 0, 0, 0, 0xff, 0xff), text, -1},
		{"negative extension", []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\xff\xff\xff\xff"), text, -1},
		{"no trailer", with(tuple(field("a"))), text, -1},
		{"cut tuple", with(tuple(field("abc"))[:8]), text, -1},
		{"too many fields", with(tuple(field("a"), field("b"))), text, -1},
		{"negative field count", with(be16(-2)), text, -1},
		{"negative length", with(be16(1), be32(-2)), text, 0},
		{"after trailer", append(stream(), 0), text, -1},
	}
	for _, f := range []struct {
		name     string
		kind     rowwire.Kind
		repeated bool
		in       field
	}{
		{"bool of 2", rowwire.Bool, false, field{2}},
		{"bool empty", rowwire.Bool, false, field{}},
		{"int2", rowwire.Int2, false, be32(1)},
		{"int4", rowwire.Int4, false, be16(1)},
		{"int8", rowwire.Int8, false, be32(1)},
		{"float4", rowwire.Float4, false, be16(1)},
		{"float8", rowwire.Float8, false, be32(1)},
		{"numeric short", rowwire.Numeric, false, be32(0)},
		{"numeric digit count", rowwire.Numeric, false, numericField("1")[:8]},
		{"numeric digit 10000", rowwire.Numeric, false, numericParts(0, 0, 0, 10000)},
		{"numeric digit 65535", rowwire.BigNumeric, false, numericParts(0, 0, 0, -1)},
		{"numeric sign", rowwire.Numeric, false, numericParts(0, 0x1234, 0, 1)},
		{"json empty", rowwire.JSON, false, field{}},
		{"jsonb version", rowwire.JSONB, false, field("\x02{}")},
		{"jsonb empty", rowwire.JSONB, false, field("\x01")},
		{"uuid", rowwire.UUID, false, be64(1)},
		{"date", rowwire.Date, false, be64(1)},
		{"time", rowwire.Time, false, be32(1)},
		{"time negative", rowwire.Time, false, be64(-1)},
		{"time late", rowwire.Time, false, be64(86_400_000_001)},
		{"datetime", rowwire.DateTime, false, be32(1)},
		{"timestamp", rowwire.Timestamp, false, be32(1)},
		{"array short", rowwire.Text, true, be64(1)},
		{"array empty with rest", rowwire.Text, true, make([]byte, 16)},
		{"array without bounds", rowwire.Text, true, arrayField(1)[:12]},
		{"array of 7 dimensions", rowwire.Text, true, append(be32(7), make([]byte, 64)...)},
		{"array cut", rowwire.Text, true, arrayField(1, field("abc"))[:25]},
		{"array cut length", rowwire.Text, true, arrayField(1, field("abc"))[:22]},
		{"array with rest", rowwire.Text, true, append(arrayField(1, field("abc")), 0)},
		{"array negative length", rowwire.Text, true, append(arrayField(1, field{})[:20], be32(-2)...)},
		{"array negative count", rowwire.Text, true, append(append(be32(1), make([]byte, 8)...), append(be32(-1), be32(1)...)...)},
	} {
		in, layout := one(f.kind, f.repeated, f.in)
		cases = append(cases, testCase{f.name, in, layout, 0})
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, tc.layout, tc.in)
			var fe *rowwire.FormatError
			if !errors.As(err, &fe) {
				t.Fatalf("error = %v, want a FormatError; %+v", err, out)
			}
			if fe.Column != tc.column {
				t.Errorf("column = %d, want %d (%v)", fe.Column, tc.column, err)
			}
			if len(out.Rejects) != 0 {
				t.Errorf("rejects = %v", out.Rejects)
			}
		})
	}
}

func flat(parts [][]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func TestErrorsEndTheTranscoding(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	keep := func(b *rowwire.Batch) (*rowwire.Batch, error) { return b, nil }
	nan := stream(tuple(numericField("NaN")))
	one := stream(tuple(numericField("1")))
	t.Run("reject", func(t *testing.T) {
		t.Parallel()
		tr, err := rowwire.NewTranscoder(oneColumn(rowwire.Numeric, false), nil, keep, func(rowwire.Reject) error { return boom })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Write(nan); !errors.Is(err, boom) {
			t.Errorf("Write = %v", err)
		}
		if _, err := tr.Write(nil); !errors.Is(err, boom) {
			t.Errorf("second Write = %v", err)
		}
		if err := tr.Close(); !errors.Is(err, boom) {
			t.Errorf("Close = %v", err)
		}
	})
	for name, flush := range map[string]func(*rowwire.Batch) (*rowwire.Batch, error){
		"flush":    func(*rowwire.Batch) (*rowwire.Batch, error) { return nil, boom },
		"no batch": func(*rowwire.Batch) (*rowwire.Batch, error) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, err := rowwire.NewTranscoder(oneColumn(rowwire.Numeric, false), nil, flush, func(rowwire.Reject) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tr.Write(one); err != nil {
				t.Errorf("Write = %v", err)
			}
			err = tr.Close()
			if err == nil || name == "flush" && !errors.Is(err, boom) {
				t.Errorf("Close = %v", err)
			}
		})
	}
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		tr, err := rowwire.NewTranscoder(oneColumn(rowwire.Numeric, false), nil, keep, func(rowwire.Reject) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Write(one); err != nil {
			t.Fatal(err)
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Write(one); err == nil {
			t.Error("Write after Close succeeded")
		}
	})
}

func TestLayoutIsChecked(t *testing.T) {
	t.Parallel()
	column := func(kind rowwire.Kind, field int32) rowwire.Column {
		return rowwire.Column{Name: "c", Kind: kind, Field: field}
	}
	for name, l := range map[string]rowwire.Layout{
		"no columns":         {},
		"no kind":            {Columns: []rowwire.Column{column(0, 1)}},
		"unknown kind":       {Columns: []rowwire.Column{column(100, 1)}},
		"no field number":    {Columns: []rowwire.Column{column(rowwire.Text, 0)}},
		"reserved number":    {Columns: []rowwire.Column{column(rowwire.Text, 19500)}},
		"number too large":   {Columns: []rowwire.Column{column(rowwire.Text, 1<<29)}},
		"number twice":       {Columns: []rowwire.Column{column(rowwire.Text, 1), column(rowwire.Text, 1)}},
		"number of metadata": {Columns: []rowwire.Column{column(rowwire.Text, 1)}, VersionField: 1},
		"negative limit":     {Columns: []rowwire.Column{column(rowwire.Text, 1)}, MaxRow: -1},
		"partition column":   {Columns: []rowwire.Column{column(rowwire.Date, 1)}, Partition: &rowwire.Partition{Column: 1, Granularity: rowwire.Day}},
		"partition kind":     {Columns: []rowwire.Column{column(rowwire.Text, 1)}, Partition: &rowwire.Partition{Granularity: rowwire.Day}},
		"hours of a date":    {Columns: []rowwire.Column{column(rowwire.Date, 1)}, Partition: &rowwire.Partition{Granularity: rowwire.Hour}},
		"no granularity":     {Columns: []rowwire.Column{column(rowwire.Date, 1)}, Partition: &rowwire.Partition{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := run(t, l); err == nil {
				t.Error("layout was accepted")
			}
		})
	}
}

// TestSeveralCopies: positions, counts and batches go on from one COPY to the next, and Last tells of the one at hand.
func TestSeveralCopies(t *testing.T) {
	t.Parallel()
	l := rowwire.Layout{
		Columns: []rowwire.Column{
			{Name: "id", Kind: rowwire.Int4, Field: 1}, {Name: "price", Kind: rowwire.Numeric, Field: 2}, {Name: "note", Kind: rowwire.Text, Field: 3},
		},
		VersionField: 4, KeepLast: true,
	}
	var versions []string
	flush := func(b *rowwire.Batch) (*rowwire.Batch, error) {
		for _, row := range b.Rows {
			fields := decode(t, row)
			versions = append(versions, fields[len(fields)-1].Text)
		}
		return b, nil
	}
	tr, err := rowwire.NewTranscoder(l, nil, flush, func(rowwire.Reject) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if tr.Last() != nil {
		t.Error("there is a last row before the first")
	}
	good, bad := numericField("1"), numericField("NaN")
	for _, copied := range []struct {
		rows [][]field
		last []field
	}{
		{[][]field{{be32(1), good, field{}}, {be32(2), good, nil}}, []field{be32(2), good, nil}},
		{nil, nil},
		{[][]field{{be32(3), good, nil}, {be32(4), bad, field("x")}}, []field{be32(4), bad, field("x")}},
		{[][]field{{be32(5), good, field{}}}, []field{be32(5), good, {}}},
	} {
		var tuples [][]byte
		for _, row := range copied.rows {
			tuples = append(tuples, tuple(row...))
		}
		whole := stream(tuples...)
		for _, chunk := range [][]byte{whole[:len(whole)/2], whole[len(whole)/2:]} {
			if _, err := tr.Write(append([]byte{}, chunk...)); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(copied.last, tr.Last()); diff != "" {
			t.Errorf("last row (-want +got):\n%s", diff)
		}
		if len(copied.last) > 0 && copied.last[0][3] == 5 {
			break
		}
		if err := tr.Continue(); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"00000000", "00000001", "00000002", "00000004"}, versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if tr.Rows() != 4 || tr.Rejected() != 1 {
		t.Errorf("%d rows, %d rejected", tr.Rows(), tr.Rejected())
	}
	if err := tr.Continue(); err == nil {
		t.Error("a closed transcoder went on")
	}
}

func TestContinueNeedsAWholeCopy(t *testing.T) {
	t.Parallel()
	keep := func(b *rowwire.Batch) (*rowwire.Batch, error) { return b, nil }
	tr, err := rowwire.NewTranscoder(oneColumn(rowwire.Int4, false), nil, keep, func(rowwire.Reject) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	whole := stream(tuple(be32(1)))
	if _, err := tr.Write(whole[:len(whole)-1]); err != nil {
		t.Fatal(err)
	}
	var fe *rowwire.FormatError
	if err := tr.Continue(); !errors.As(err, &fe) {
		t.Errorf("Continue = %v", err)
	}
	if err := tr.Close(); !errors.As(err, &fe) {
		t.Errorf("Close = %v", err)
	}
}

// TestNoAllocationPerRow uses every kind, arrays and what JSON's slow paths need.
func TestNoAllocationPerRow(t *testing.T) { //nolint:paralleltest // testing.AllocsPerRun forbids it
	l := mixedLayout()
	l.KeepLast = true
	l.Partition.Granularity = rowwire.Hour
	extra := []struct {
		kind rowwire.Kind
		in   field
	}{
		{rowwire.JSON, field(`{"a": 0.30000000000000004, "b": [{"c": -1.7976931348623157e308}, 18446744073709551615], "d": "\u00e9\ud83d\ude00"}`)},
		{rowwire.JSON, field(`{"k1":1,"k2":1,"k3":1,"k4":1,"k5":1,"k6":1,"k7":1,"k8":1,"k9":1,"k10":1,"k11":1,"k12":1,"k13":1}`)},
		{rowwire.BigNumeric, numericField("-578960446186580977117854925043439539266.34992332820282019728792003956564819968")},
		{rowwire.Bytes, field("\x00\x01")},
		{rowwire.Time, be64(45_296_120_000)},
		{rowwire.Float4, be32(1)},
	}
	arrays := []field{arrayField(1, field("a"), field("b")), arrayField(1, be64(1), be64(2))}
	next := int32(100)
	add := func(kind rowwire.Kind, repeated bool) {
		l.Columns = append(l.Columns, rowwire.Column{Name: "extra", Kind: kind, Repeated: repeated, Field: next})
		next++
	}
	for _, e := range extra {
		add(e.kind, false)
	}
	add(rowwire.Text, true)
	add(rowwire.Timestamp, true)
	one := mixedTuple(7)[2:]
	for _, e := range extra {
		one = append(one, tuple(e.in)[2:]...)
	}
	for _, a := range arrays {
		one = append(one, tuple(a)[2:]...)
	}
	one = append(be16(len(l.Columns)), one...)
	keep := func(b *rowwire.Batch) (*rowwire.Batch, error) { return b, nil }
	tr, err := rowwire.NewTranscoder(l, nil, keep, func(r rowwire.Reject) error { return fmt.Errorf("column %d: %v", r.Column, r.Reason) })
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		if _, err := tr.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte(copyHeader))
	for range 5000 { // fills batches to their final size
		write(one)
	}
	if n := testing.AllocsPerRun(5000, func() { write(one) }); n != 0 {
		t.Errorf("%v allocations per row", n)
	}
}

// drawField draws the bytes of a value of the kind, good, bad and malformed ones.
func drawField(t *rapid.T, kind rowwire.Kind) field {
	if rapid.IntRange(0, 9).Draw(t, "null") == 0 {
		return nil
	}
	switch kind {
	case rowwire.Bool:
		return field{byte(rapid.IntRange(0, 1).Draw(t, "bool"))}
	case rowwire.Int2:
		return be16(int(rapid.Int16().Draw(t, "int2")))
	case rowwire.Int4, rowwire.Float4, rowwire.Date:
		return be32(int64(rapid.Int32().Draw(t, "four")))
	case rowwire.Int8, rowwire.Float8, rowwire.DateTime, rowwire.Timestamp:
		return be64(rapid.Int64().Draw(t, "eight"))
	case rowwire.Time:
		return be64(rapid.Int64Range(0, 86_400_000_000).Draw(t, "time"))
	case rowwire.Numeric, rowwire.BigNumeric:
		return numericField(drawDecimal(t))
	case rowwire.JSON:
		return field(rapid.SampledFrom([]string{`{}`, `{"a":1,"a":2}`, `[1e309]`, `"\ud800"`, `{"x":[0.1,{"y":null}]}`}).Draw(t, "json"))
	case rowwire.JSONB:
		return field("\x01" + rapid.SampledFrom([]string{`{}`, `18446744073709551616`, `["x", 2.5]`}).Draw(t, "jsonb"))
	case rowwire.UUID:
		return rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")
	default:
		return rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")
	}
}

func drawDecimal(t *rapid.T) string {
	s := rapid.StringMatching(`-?(0|[1-9][0-9]{0,42})(\.[0-9]{0,42})?`).Draw(t, "decimal")
	return strings.TrimSuffix(s, ".")
}

func drawLayout(t *rapid.T) rowwire.Layout {
	l := rowwire.Layout{
		VersionField: 100, VersionPrefix: "p/", BatchBytes: rapid.IntRange(1, 500).Draw(t, "batch bytes"),
		BatchRows: rapid.IntRange(1, 5).Draw(t, "batch rows"), MaxRow: rapid.IntRange(40, 300).Draw(t, "max row"),
	}
	for i := range rapid.IntRange(1, 6).Draw(t, "columns") {
		l.Columns = append(l.Columns, rowwire.Column{
			Name: fmt.Sprint("c", i), Field: int32(i*9 + 1),
			Kind:     rowwire.Kind(rapid.IntRange(int(rowwire.Bool), int(rowwire.Timestamp)).Draw(t, "kind")),
			Repeated: rapid.IntRange(0, 3).Draw(t, "repeated") == 0,
		})
	}
	return l
}

func drawTuple(t *rapid.T, columns []rowwire.Column) []byte {
	var fields []field
	for _, c := range columns {
		f := drawField(t, c.Kind)
		if c.Repeated && f != nil {
			elements := []field{f}
			for range rapid.IntRange(0, 2).Draw(t, "elements") {
				elements = append(elements, drawField(t, c.Kind))
			}
			f = arrayField(1, elements...)
		}
		fields = append(fields, f)
	}
	return tuple(fields...)
}

// TestAnyChunking: however the stream is cut, the outcome is that of one Write.
func TestAnyChunking(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := drawLayout(rt)
		var tuples [][]byte
		for range rapid.IntRange(0, 12).Draw(rt, "rows") {
			tuples = append(tuples, drawTuple(rt, l.Columns))
		}
		whole := stream(tuples...)
		want, wantErr := run(t, l, whole)
		if wantErr != nil {
			rt.Fatalf("whole stream: %v", wantErr)
		}
		if n := len(want.Rows) + len(want.Rejects); n != len(tuples) {
			rt.Fatalf("%d rows came of %d", n, len(tuples))
		}
		var chunks [][]byte
		for rest := whole; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), rapid.SampledFrom([]int{1, 3, 60, 1000}).Draw(rt, "up to"))).Draw(rt, "chunk")
			chunks = append(chunks, append([]byte{}, rest[:n]...)) // each its own memory: nothing may be kept
			rest = rest[n:]
		}
		got, err := run(t, l, chunks...)
		if err != nil {
			rt.Fatalf("chunks: %v", err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("chunking matters (-whole +chunks):\n%s", diff)
		}
		perRow := append([][]byte{[]byte(copyHeader)}, tuples...)
		got, err = run(t, l, append(perRow, []byte{0xFF, 0xFF})...)
		if err != nil {
			rt.Fatalf("rows: %v", err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("a row per Write matters (-whole +rows):\n%s", diff)
		}
	})
}

// FuzzTranscoder: no input panics, and what is accepted is a valid message.
func FuzzTranscoder(f *testing.F) {
	f.Add(stream(mixedTuple(1), mixedTuple(2))[len(copyHeader):], uint8(7))
	f.Add(stream(tuple(arrayField(1, field("a"), nil)))[len(copyHeader):], uint8(1))
	var all []rowwire.Layout
	all = append(all, mixedLayout())
	for kind := rowwire.Bool; kind <= rowwire.Timestamp; kind++ {
		all = append(all, oneColumn(kind, false), oneColumn(kind, true))
	}
	f.Fuzz(func(t *testing.T, body []byte, seed uint8) {
		l := all[int(seed)%len(all)]
		in := append([]byte(copyHeader), body...)
		whole, wholeErr := run(t, l, in)
		cut := min(len(in), int(seed))
		parts, partsErr := run(t, l, in[:cut], in[cut:])
		if (wholeErr == nil) != (partsErr == nil) {
			t.Fatalf("whole: %v, parts: %v", wholeErr, partsErr)
		}
		if wholeErr != nil {
			var fe *rowwire.FormatError
			if !errors.As(wholeErr, &fe) {
				t.Fatal(wholeErr)
			}
			return
		}
		if diff := cmp.Diff(whole, parts, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("chunking matters:\n%s", diff)
		}
		for _, row := range whole.Rows {
			decode(t, row)
		}
	})
}

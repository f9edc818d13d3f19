package rowwire_test

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// typeCase is one PostgreSQL type: the values BigQuery takes, and those it does not with the reason.
type typeCase struct {
	name     string
	sqlType  string // as CREATE TABLE takes it
	kind     rowwire.Kind
	text     string // SQL that gives the text of column v which the message must equal; "" for v::text
	accepted []string
	rejected map[string]rowwire.Reason
}

func typeCases() []typeCase {
	const (
		nine29    = "99999999999999999999999999999"
		bigWhole  = "578960446186580977117854925043439539266"
		bigFrac   = "34992332820282019728792003956564819967"
		bigBeyond = "34992332820282019728792003956564819968"
		bigUnder  = "34992332820282019728792003956564819969"
		trimmed   = "trim_scale(v)::text"
	)
	return []typeCase{
		{name: "boolean", sqlType: "boolean", kind: rowwire.Bool, accepted: []string{"true", "false"}},
		{name: "smallint", sqlType: "smallint", kind: rowwire.Int2, accepted: []string{"-32768", "32767", "0", "-1"}},
		{name: "integer", sqlType: "integer", kind: rowwire.Int4, accepted: []string{"-2147483648", "2147483647", "0"}},
		{name: "bigint", sqlType: "bigint", kind: rowwire.Int8, accepted: []string{"-9223372036854775808", "9223372036854775807", "0"}},
		{
			name: "real", sqlType: "real", kind: rowwire.Float4, text: "v::float8::text",
			accepted: []string{"0.1", "-0", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45"},
		},
		{
			name: "double", sqlType: "double precision", kind: rowwire.Float8,
			accepted: []string{"0.1", "-0", "NaN", "Infinity", "-Infinity", "1.7976931348623157e308", "5e-324", "1e15", "123456.789"},
		},
		{
			name: "numeric", sqlType: "numeric", kind: rowwire.Numeric, text: trimmed,
			accepted: []string{
				"0", "0.00", "1.10", "-1.5", "10000", "12345678.9", "0.0001", "0.00001", "100000000000.000000001", "0.100000000000",
				nine29 + ".999999999", "-" + nine29 + ".999999999", "0.000000001", "1000", "9999", "10", "0.1234",
			},
			rejected: map[string]rowwire.Reason{
				"NaN": rowwire.NumericNaN, "Infinity": rowwire.NumericInfinity, "-Infinity": rowwire.NumericInfinity,
				"1" + "00000000000000000000000000000": rowwire.NumericRange, "0.0000000001": rowwire.NumericScale,
				"-100000000000000000000000000000.5": rowwire.NumericRange, "1e1000": rowwire.NumericRange, "1e-1000": rowwire.NumericScale,
			},
		},
		{
			name: "bignumeric", sqlType: "numeric", kind: rowwire.BigNumeric, text: trimmed,
			accepted: []string{
				"0", bigWhole + "." + bigFrac, "-" + bigWhole + "." + bigBeyond, bigWhole, nine29 + nine29[:9], "1e-38", "-1e38",
				"0.12345678901234567890123456789012345678", "123.4500000000000000000000000000000000000000",
			},
			rejected: map[string]rowwire.Reason{
				bigWhole + "." + bigBeyond: rowwire.NumericRange, "-" + bigWhole + "." + bigUnder: rowwire.NumericRange,
				"6e38": rowwire.NumericRange, "1e39": rowwire.NumericRange, "1e-39": rowwire.NumericScale, "NaN": rowwire.NumericNaN,
				"Infinity": rowwire.NumericInfinity,
			},
		},
		{name: "text", sqlType: "text", kind: rowwire.Text, accepted: []string{"", "a", "héllo 😀 \"quoted\"\n", "NULL"}},
		{name: "varchar", sqlType: "varchar(10)", kind: rowwire.Text, accepted: []string{"", "abc"}},
		{name: "char", sqlType: "char(5)", kind: rowwire.Text, text: "v::bpchar || repeat(' ', 5 - length(v))", accepted: []string{"ab", "abcde"}},
		{name: "name", sqlType: "name", kind: rowwire.Text, accepted: []string{"some_name"}},
		{name: "enum", sqlType: "mood", kind: rowwire.Text, accepted: []string{"glad", "très triste"}},
		{name: "domain", sqlType: "year", kind: rowwire.Int4, accepted: []string{"1901", "2155"}},
		{
			name: "json", sqlType: "json", kind: rowwire.JSON,
			accepted: []string{`{"a": 1,  "b": [1.10, "x"]}`, `null`, `"\ud83d\ude00"`, `9223372036854775807`, `18446744073709551615`, `1e20`},
			rejected: map[string]rowwire.Reason{
				`{"a": 1, "a": 2}`: rowwire.JSONDuplicateKey, `"\ud800"`: rowwire.JSONSurrogate, `"\u0000"`: rowwire.JSONNul,
				`[1e309]`: rowwire.JSONNumber, `18446744073709551616`: rowwire.JSONNumber, `0.1000000000000000055511151231257827`: rowwire.JSONNumber,
			},
		},
		{
			name: "jsonb", sqlType: "jsonb", kind: rowwire.JSONB,
			accepted: []string{`{"a": 1, "b": [1.10, "x"]}`, `{"a": 1, "a": 2}`, `"\u0001\\u0000\""`, `9007199254740993`, `0.1`, `{}`},
			rejected: map[string]rowwire.Reason{
				`1e309`: rowwire.JSONNumber, `18446744073709551616`: rowwire.JSONNumber, `-9223372036854775809`: rowwire.JSONNumber,
				`9007199254740993.5`: rowwire.JSONNumber,
			},
		},
		{
			name: "interval text", sqlType: "interval", kind: rowwire.IntervalText,
			accepted: []string{
				"0", "1 year 2 mons 3 days 04:05:06.789", "-1 mon", "-14 mons +3 days -00:00:00.000001", "1 day -1 us", "25 hours", "-178000000 years -8 mons",
				"2562047788:00:54.775807", "-2562047788:00:54.775807", "2147483647 days", "59.999999 s", "-0.5 s", "1 mon -1 day",
			},
		},
		{
			name: "interval", sqlType: "interval", kind: rowwire.Interval,
			text: `(SELECT CASE WHEN d IS NOT NULL THEN concat(sm, y, '-', m, ' ', d, ' ', st, h, ':', mi, ':', trim_scale(s)) END FROM (SELECT
				CASE WHEN mons < 0 THEN '-' END AS sm, abs(mons) / 12 AS y, abs(mons) % 12 AS m, extract(day FROM v)::bigint AS d,
				CASE WHEN us < 0 THEN '-' END AS st, div(abs(us), 3600000000) AS h, div(abs(us) % 3600000000, 60000000) AS mi, (abs(us) % 60000000) / 1000000 AS s
				FROM (SELECT extract(year FROM v)::bigint * 12 + extract(month FROM v)::bigint AS mons,
					extract(hour FROM v) * 3600000000 + extract(minute FROM v) * 60000000 + extract(microseconds FROM v) AS us) AS a) AS b)`,
			accepted: []string{
				"0", "1 year 2 mons 3 days 04:05:06.789", "-1 mon", "-14 mons +3 days -00:00:00.000001", "25 hours", "-0.5 s", "10000 years 3660000 days 87840000:00:00",
				"-10000 years -3660000 days -87840000:00:00",
			},
			rejected: map[string]rowwire.Reason{
				"10000 years 1 mon": rowwire.IntervalRange, "-3660001 days": rowwire.IntervalRange, "87840000:00:00.000001": rowwire.IntervalRange,
			},
		},
		{
			name: "numeric as int", sqlType: "numeric", kind: rowwire.NumericInt, text: "v::bigint::text",
			accepted: []string{"0", "-0.00", "10000", "99990000", "1e18", "9223372036854775807", "-9223372036854775808", "123456789012.000"},
			rejected: map[string]rowwire.Reason{
				"0.5": rowwire.NumericScale, "9223372036854775808": rowwire.NumericRange, "-9223372036854775809": rowwire.NumericRange, "1e19": rowwire.NumericRange,
				"NaN": rowwire.NumericNaN, "Infinity": rowwire.NumericInfinity,
			},
		},
		{
			name: "numeric as float", sqlType: "numeric", kind: rowwire.NumericFloat, text: "v::float8::text",
			accepted: []string{"0", "0.1", "-1.10", "9007199254740992", "1.7976931348623157e308", "5e-324", "NaN", "Infinity", "-Infinity", "1e-7", "10000.0001"},
			rejected: map[string]rowwire.Reason{
				"9007199254740993": rowwire.InexactFloat, "0.1000000000000000055": rowwire.InexactFloat, "1e309": rowwire.InexactFloat, "1e-400": rowwire.InexactFloat,
				"1.23456789012345678": rowwire.InexactFloat,
			},
		},
		{
			name: "text as json", sqlType: "text", kind: rowwire.JSONText, accepted: []string{`{"a": 1,  "b": [1.10, "x"]}`, `true`},
			rejected: map[string]rowwire.Reason{``: rowwire.InvalidJSON, `{`: rowwire.InvalidJSON, `{"a": 1, "a": 2}`: rowwire.JSONDuplicateKey, `1e309`: rowwire.JSONNumber},
		},
		{name: "bytea", sqlType: "bytea", kind: rowwire.Bytes, text: "encode(v, 'hex')", accepted: []string{`\x`, `\x00ff10`, `\xdeadbeef`}},
		{
			name: "uuid", sqlType: "uuid", kind: rowwire.UUID,
			accepted: []string{"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "00000000-0000-0000-0000-000000000000"},
		},
		{
			name: "date", sqlType: "date", kind: rowwire.Date,
			accepted: []string{"0001-01-01", "9999-12-31", "1970-01-01", "2000-02-29", "1969-12-31", "1900-02-28"},
			rejected: map[string]rowwire.Reason{
				"infinity": rowwire.TemporalInfinity, "-infinity": rowwire.TemporalInfinity, "0001-12-31 BC": rowwire.YearRange,
				"10000-01-01": rowwire.YearRange, "4713-01-01 BC": rowwire.YearRange, "5874897-12-31": rowwire.YearRange,
			},
		},
		{
			name: "time", sqlType: "time", kind: rowwire.Time,
			accepted: []string{"00:00:00", "23:59:59.999999", "12:34:56.1", "01:02:03.000100"},
			rejected: map[string]rowwire.Reason{"24:00:00": rowwire.EndOfDay},
		},
		{
			name: "timestamp", sqlType: "timestamp", kind: rowwire.DateTime,
			accepted: []string{"0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "2026-11-20 08:16:17.5", "1969-12-31 23:59:59.999999"},
			rejected: map[string]rowwire.Reason{
				"infinity": rowwire.TemporalInfinity, "-infinity": rowwire.TemporalInfinity, "10000-01-01": rowwire.YearRange,
				"0001-12-31 23:59:59.999999 BC": rowwire.YearRange, "294276-12-31 23:59:59.999999": rowwire.YearRange, "4713-01-01 BC": rowwire.YearRange,
			},
		},
		{
			name: "timestamptz", sqlType: "timestamptz", kind: rowwire.Timestamp, text: "(v AT TIME ZONE 'UTC')::text",
			accepted: []string{"0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00", "2026-11-20 08:16:17.000001-05:30", "1970-01-01+00"},
			rejected: map[string]rowwire.Reason{
				"infinity": rowwire.TemporalInfinity, "-infinity": rowwire.TemporalInfinity,
				"9999-12-31 23:59:59-01": rowwire.YearRange, "0001-01-01 00:00:00+01": rowwire.YearRange,
			},
		},
	}
}

// canonical returns a decoded value as PostgreSQL's text shows it.
func canonical(tb testing.TB, kind rowwire.Kind, v protoreflect.Value) string {
	tb.Helper()
	switch kind {
	case rowwire.Bytes:
		return hex.EncodeToString(v.Bytes())
	case rowwire.Date:
		return time.Unix(v.Int()*86400, 0).UTC().Format(time.DateOnly)
	case rowwire.Timestamp:
		return time.UnixMicro(v.Int()).UTC().Format("2006-01-02 15:04:05.999999")
	case rowwire.Float4, rowwire.Float8, rowwire.NumericFloat:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	default:
		return v.String()
	}
}

// canonicalText rewrites PostgreSQL's text of a float64 the way canonical does.
func canonicalText(tb testing.TB, kind rowwire.Kind, s string) string {
	tb.Helper()
	if kind != rowwire.Float4 && kind != rowwire.Float8 && kind != rowwire.NumericFloat {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func TestTypes(t *testing.T) {
	t.Parallel()
	for _, tc := range typeCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn := tableOf(t, tc.sqlType)
			const insert = "INSERT INTO t (v, vs) SELECT x, ARRAY[x, x] FROM (SELECT $1::text::%s AS x) AS s"
			for _, v := range tc.accepted {
				execute(t, conn, fmt.Sprintf(insert, tc.sqlType), v)
			}
			execute(t, conn, "INSERT INTO t (v, vs) VALUES (NULL, NULL), (NULL, '{}')")
			good := len(tc.accepted) + 2
			wantRejects := map[int64]rowwire.Reason{}
			for v, reason := range tc.rejected {
				wantRejects[int64(good+len(wantRejects))] = reason
				execute(t, conn, fmt.Sprintf(insert, tc.sqlType), v)
			}
			if tc.text == "" {
				tc.text = "v::text"
			}
			want := texts(t, conn, "SELECT "+tc.text+" FROM t ORDER BY id LIMIT "+strconv.Itoa(good))
			for _, repeated := range []bool{false, true} {
				column, name := rowwire.Column{Name: "v", Kind: tc.kind, Field: 3}, "v"
				if repeated {
					column, name = rowwire.Column{Name: "v", Kind: tc.kind, Field: 3, Repeated: true}, "vs"
				}
				got := extract(t, conn, rowwire.Layout{Columns: []rowwire.Column{column}}, "SELECT "+name+" FROM t ORDER BY id")
				if diff := cmp.Diff(wantRejects, got.Rejects); diff != "" {
					t.Errorf("%s: rejects (-want +got):\n%s", name, diff)
				}
				if len(got.Messages) != good {
					t.Fatalf("%s: %d rows, want %d", name, len(got.Messages), good)
				}
				for i, m := range got.Messages {
					compareValue(t, column, m, want[i][0])
				}
			}
		})
	}
}

// compareValue checks field v of a message: the text, twice if repeated; absent for NULL.
func compareValue(t *testing.T, c rowwire.Column, m *dynamicpb.Message, want *string) {
	t.Helper()
	f := m.Descriptor().Fields().ByName("v")
	if want == nil {
		if m.Has(f) {
			t.Errorf("%v: NULL became %v", c.Kind, m.Get(f))
		}
		return
	}
	text := canonicalText(t, c.Kind, *want)
	if !c.Repeated {
		if got := canonical(t, c.Kind, m.Get(f)); !m.Has(f) || got != text {
			t.Errorf("%v: got %q, want %q", c.Kind, got, text)
		}
		return
	}
	list := m.Get(f).List()
	if list.Len() != 2 {
		t.Errorf("%v: %d elements of %q", c.Kind, list.Len(), text)
		return
	}
	for i := range 2 {
		if got := canonical(t, c.Kind, list.Get(i)); got != text {
			t.Errorf("%v: element %d is %q, want %q", c.Kind, i, got, text)
		}
	}
}

// tableOf makes a table t with a column v of a type and a column vs of an array of it.
func tableOf(t *testing.T, sqlType string) *pgx.Conn {
	t.Helper()
	conn := connect(t)
	execute(t, conn, "SET intervalstyle = 'iso_8601'")
	execute(t, conn, "CREATE TYPE mood AS ENUM ('glad', 'très triste')")
	execute(t, conn, "CREATE DOMAIN year AS integer CHECK (VALUE BETWEEN 1901 AND 2155)")
	execute(t, conn, "CREATE TABLE t (id serial PRIMARY KEY, v "+sqlType+", vs "+sqlType+"[])")
	return conn
}

func TestArrays(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	for _, tc := range []struct {
		sql    string
		want   []string
		reason rowwire.Reason
	}{
		{sql: "'{a,b,\"c d\"}'::text[]", want: []string{"a", "b", "c d"}},
		{sql: "'[5:6]={x,y}'::text[]", reason: rowwire.ShiftedArray},
		{sql: "'[0:0]={x}'::text[]", reason: rowwire.ShiftedArray},
		{sql: "'{}'::text[]"},
		{sql: "NULL::text[]"},
		{sql: "'{\"\"}'::text[]", want: []string{""}},
		{sql: "'{a,NULL}'::text[]", reason: rowwire.NullElement},
		{sql: "'{{a,b},{c,d}}'::text[]", reason: rowwire.MultiDimensional},
		{sql: "'{{a}}'::text[]", reason: rowwire.MultiDimensional},
	} {
		l := rowwire.Layout{Columns: []rowwire.Column{{Name: "v", Kind: rowwire.Text, Repeated: true, Field: 1}}}
		got := extract(t, conn, l, "SELECT "+tc.sql)
		if got.Rejects[0] != tc.reason {
			t.Errorf("%s: %v, want %v", tc.sql, got.Rejects[0], tc.reason)
		}
		var elements []string
		for _, m := range got.Messages {
			list := m.Get(m.Descriptor().Fields().Get(0)).List()
			for i := range list.Len() {
				elements = append(elements, list.Get(i).String())
			}
		}
		if diff := cmp.Diff(tc.want, elements); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.sql, diff)
		}
	}
}

// TestManyRandomRows compares rows of 14 columns, of random values, with PostgreSQL's texts of them.
func TestManyRandomRows(t *testing.T) {
	t.Parallel()
	const rows = 20_000
	conn := connect(t)
	createMixed(t, conn, rows)
	execute(t, conn, "UPDATE mixed SET c6 = NULL, c7 = NULL, c14 = NULL WHERE c1 % 7 = 0")
	want := texts(t, conn, `SELECT c1::text, c2::text, c3::text, c4::text, c5::text, trim_scale(c6)::text, c7, c8, c9, c10::text,
		c11::text, c12::text, c13::text, (c14 AT TIME ZONE 'UTC')::text FROM mixed ORDER BY mixed.c1`)
	l := mixedLayout()
	got := extract(t, conn, l, "SELECT * FROM mixed ORDER BY c1")
	if len(got.Rejects) != 0 || len(got.Messages) != rows {
		t.Fatalf("%d rows, rejects %v", len(got.Messages), got.Rejects)
	}
	for i, m := range got.Messages {
		fields := m.Descriptor().Fields()
		for j, c := range l.Columns {
			f := fields.ByNumber(protoreflect.FieldNumber(c.Field))
			switch {
			case want[i][j] == nil:
				if m.Has(f) {
					t.Fatalf("row %d, %s: NULL became %v", i, c.Name, m.Get(f))
				}
			case !m.Has(f) || canonical(t, c.Kind, m.Get(f)) != canonicalText(t, c.Kind, *want[i][j]):
				t.Fatalf("row %d, %s: got %v, want %q", i, c.Name, m.Get(f), *want[i][j])
			}
		}
		version := fmt.Sprintf("00000001/0005f3a2b1c00000/%08x", i)
		if v := m.Get(fields.ByName("_version")).String(); v != version {
			t.Fatalf("row %d: version %q, want %q", i, v, version)
		}
	}
}

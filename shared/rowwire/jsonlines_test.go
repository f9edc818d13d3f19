package rowwire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// member is one key of a JSON object with the text of its value.
type member struct{ Key, Value string }

// parseLine reads one line with encoding/json, keeping the order of the keys and keys that are twice in it.
func parseLine(tb interface{ Fatalf(string, ...any) }, line []byte) []member {
	if len(line) == 0 || bytes.IndexByte(line, '\n') != len(line)-1 || bytes.IndexByte(line, '\r') >= 0 {
		tb.Fatalf("not one line: %q", line)
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		tb.Fatalf("reading %q: %v, %v", line, token, err)
	}
	var out []member
	for dec.More() {
		token, err := dec.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			tb.Fatalf("reading key of %q: %v, %v", line, token, err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			tb.Fatalf("reading %q of %q: %v", key, line, err)
		}
		out = append(out, member{key, string(value)})
	}
	if token, err := dec.Token(); err != nil || token != json.Delim('}') || dec.InputOffset() != int64(len(line)-1) {
		tb.Fatalf("ending %q: %v, %v", line, token, err)
	}
	return out
}

// jsonMeaning is what a load job makes of a JSON text for a column of the kind, written so that it can be compared.
func jsonMeaning(kind rowwire.Kind, text string) (string, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", err
	}
	s, isString := v.(string)
	n, isNumber := v.(json.Number)
	switch kind {
	case rowwire.Bool:
		if b, ok := v.(bool); ok {
			return strconv.FormatBool(b), nil
		}
	case rowwire.Float4, rowwire.Float8, rowwire.NumericFloat:
		if isString && (s == "NaN" || s == "Infinity" || s == "-Infinity") {
			return s, nil
		}
		if isNumber {
			f, err := n.Float64()
			return strconv.FormatUint(math.Float64bits(f), 16), err
		}
	case rowwire.Bytes:
		if isString {
			b, err := base64.StdEncoding.DecodeString(s)
			return string(b), err
		}
	case rowwire.JSON, rowwire.JSONB, rowwire.JSONText:
		var b bytes.Buffer
		err := json.Compact(&b, []byte(text))
		return b.String(), err
	default:
		if isString {
			return s, nil
		}
	}
	return "", fmt.Errorf("%s for %v", text, kind)
}

// wireMeaning is the same of a value as it is on the wire.
func wireMeaning(kind rowwire.Kind, v wireValue) string {
	switch kind {
	case rowwire.Bool:
		return strconv.FormatBool(v.Number == 1)
	case rowwire.Int2, rowwire.Int4, rowwire.Int8, rowwire.NumericInt:
		return strconv.FormatInt(int64(v.Number), 10)
	case rowwire.Float4, rowwire.Float8, rowwire.NumericFloat:
		switch f := math.Float64frombits(v.Number); {
		case math.IsNaN(f):
			return "NaN"
		case math.IsInf(f, 1):
			return "Infinity"
		case math.IsInf(f, -1):
			return "-Infinity"
		}
		return strconv.FormatUint(v.Number, 16)
	case rowwire.Date:
		return time.Unix(int64(v.Number)*86400, 0).UTC().Format(time.DateOnly)
	case rowwire.Timestamp:
		return time.UnixMicro(int64(v.Number)).UTC().Format("2006-01-02 15:04:05.999999 UTC")
	case rowwire.Interval:
		return isoInterval(v.Text)
	case rowwire.JSON, rowwire.JSONB, rowwire.JSONText:
		var b bytes.Buffer
		if err := json.Compact(&b, []byte(v.Text)); err != nil {
			panic(err)
		}
		return b.String()
	default:
		return v.Text
	}
}

// isoInterval rewrites "Y-M D H:M:S.F", with a sign before each part, in ISO 8601.
func isoInterval(text string) string {
	signs, parts := [3]string{}, strings.Split(text, " ")
	for i, part := range parts {
		if rest, ok := strings.CutPrefix(part, "-"); ok {
			signs[i], parts[i] = "-", rest
		}
	}
	months, clock := strings.Split(parts[0], "-"), strings.Split(parts[2], ":")
	out := fmt.Sprintf("P%[1]s%[2]sY%[1]s%[3]sM%[4]s%[5]sDT%[6]s%[7]sH%[6]s%[8]sM%[6]s%[9]sS",
		signs[0], months[0], months[1], signs[1], parts[1], signs[2], clock[0], clock[1], clock[2])
	return regexp.MustCompile(`-0([A-Z])`).ReplaceAllString(out, "0$1")
}

// namedColumn is a column with the name it has in BigQuery.
type namedColumn struct {
	rowwire.Column
	name string
}

// compareLine compares a line with the row that it was made of, as protowire reads it.
func compareLine(tb interface{ Fatalf(string, ...any) }, columns []namedColumn, row []wireValue, line []byte) {
	members := parseLine(tb, line)
	for _, c := range columns {
		var want []string
		for len(row) > 0 && row[0].Field == protowire.Number(c.Field) {
			want = append(want, wireMeaning(c.Kind, row[0]))
			row = row[1:]
		}
		if want == nil {
			continue
		}
		if len(members) == 0 || members[0].Key != c.name {
			tb.Fatalf("line %q lacks column %q", line, c.name)
		}
		texts := []json.RawMessage{json.RawMessage(members[0].Value)}
		if c.Repeated {
			texts = nil
			if err := json.Unmarshal([]byte(members[0].Value), &texts); err != nil {
				tb.Fatalf("column %q: %v", c.name, err)
			}
		}
		var got []string
		for _, text := range texts {
			s, err := jsonMeaning(c.Kind, string(text))
			if err != nil {
				tb.Fatalf("column %q: %v", c.name, err)
			}
			got = append(got, s)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			tb.Fatalf("column %q, %v (-want +got):\n%s", c.name, c.Kind, diff)
		}
		members = members[1:]
	}
	if len(row) > 0 || len(members) > 0 {
		tb.Fatalf("left over: %v of the row, %v of the line", row, members)
	}
}

// drawGood draws the COPY bytes of a value that BigQuery takes, as PostgreSQL sends them.
func drawGood(t *rapid.T, kind rowwire.Kind) field {
	switch kind {
	case rowwire.Float4:
		return be32(int64(math.Float32bits(rapid.OneOf(rapid.Float32(), rapid.SampledFrom([]float32{
			float32(math.NaN()), float32(math.Inf(1)), float32(math.Copysign(0, -1)),
		})).Draw(t, "float4"))))
	case rowwire.Float8:
		return bits(rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Int64(), func(i int64) float64 { return float64(i) }), rapid.SampledFrom([]float64{
			math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 1e21, 1 << 53, math.MaxFloat64, 5e-324,
		})).Draw(t, "float8"))
	case rowwire.Date:
		return be32(rapid.Int64Range(-719162, 2932896).Draw(t, "days") - epochDays)
	case rowwire.DateTime, rowwire.Timestamp:
		return be64(rapid.Int64Range(day(1, 1, 1).UnixMicro(), day(10000, 1, 1).UnixMicro()-1).Draw(t, "us") - epochMicros)
	case rowwire.Time:
		return be64(rapid.Int64Range(0, 86_400_000_000-1).Draw(t, "time"))
	case rowwire.Numeric, rowwire.BigNumeric:
		return numericField(rapid.StringMatching(`-?(0|[1-9][0-9]{0,28})(\.[0-9]{1,9})?`).Draw(t, "decimal"))
	case rowwire.Text:
		return field(rapid.String().Draw(t, "text"))
	case rowwire.JSON:
		return field(drawJSON(t, 3))
	case rowwire.JSONB:
		return field("\x01" + drawJSON(t, 3))
	case rowwire.JSONText:
		return field(drawJSON(t, 3))
	case rowwire.Interval, rowwire.IntervalText:
		limit := func(n int64) int64 { return rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(-n, n)).Draw(t, "part") }
		return interval(int32(limit(120_000)), int32(limit(3_660_000)), limit(87_840_000*3_600_000_000))
	case rowwire.NumericInt:
		return numericField(strconv.FormatInt(rapid.Int64().Draw(t, "int"), 10))
	case rowwire.NumericFloat:
		return numericField(rapid.OneOf(rapid.SampledFrom([]string{"NaN", "Infinity", "-Infinity", "1000000"}), rapid.StringMatching(`-?[1-9][0-9]{0,6}(\.[0-9]{1,7})?`)).Draw(t, "decimal"))
	case rowwire.Geography:
		return field(fmt.Sprintf("SRID=4326;LINESTRING(0 0,%d %d)", rapid.IntRange(-180, 180).Draw(t, "longitude"), rapid.IntRange(-90, 90).Draw(t, "latitude")))
	default:
		for {
			if f := drawField(t, kind); f != nil {
				return f
			}
		}
	}
}

// drawJSON draws JSON text as a json column may have it: with any white space and any spelling of numbers.
func drawJSON(t *rapid.T, depth int) string {
	space := rapid.SampledFrom([]string{"", " ", "\n", "\r\n", "\t", "\n\n"})
	in := func(s string) string { return space.Draw(t, "before") + s + space.Draw(t, "after") }
	form := 4
	if depth > 0 {
		form = 6
	}
	switch rapid.IntRange(0, form).Draw(t, "form") {
	case 0:
		return in("null")
	case 1:
		return in(rapid.SampledFrom([]string{"true", "false"}).Draw(t, "bool"))
	case 2:
		return in(rapid.SampledFrom([]string{"0", "-0", "1.10", "18446744073709551615", "-9223372036854775808", "1e2", "5E-3"}).Draw(t, "number"))
	case 3, 4:
		b, err := json.Marshal(strings.ReplaceAll(rapid.String().Draw(t, "string"), "\x00", ""))
		if err != nil {
			t.Fatalf("%v", err)
		}
		return in(string(b))
	case 5:
		var elements []string
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			elements = append(elements, drawJSON(t, depth-1))
		}
		return in("[" + strings.Join(elements, ",") + in("]"))
	default:
		var members []string
		for i := range rapid.IntRange(0, 3).Draw(t, "members") {
			members = append(members, in(fmt.Sprintf(`"k%d"`, i))+":"+drawJSON(t, depth-1))
		}
		return in("{" + strings.Join(members, ",") + in("}"))
	}
}

// drawNamed draws columns of any kind, with any names.
func drawNamed(t *rapid.T) []namedColumn {
	taken := map[string]bool{"_version": true, "_synced_at": true, "_deleted": true}
	var out []namedColumn
	for i := range rapid.IntRange(1, 8).Draw(t, "columns") {
		name := rapid.StringN(1, 20, -1).Filter(func(s string) bool { return !taken[strings.ToLower(s)] }).Draw(t, "name")
		taken[strings.ToLower(name)] = true
		out = append(out, namedColumn{name: name, Column: rowwire.Column{
			Name: fmt.Sprint("c", i), Field: int32(i*200 + 1),
			Kind:     rowwire.Kind(rapid.IntRange(int(rowwire.Bool), int(rowwire.Geography)).Draw(t, "kind")),
			Repeated: rapid.IntRange(0, 3).Draw(t, "repeated") == 0,
		}})
	}
	return out
}

// TestJSONLinesKeepEveryValue: what encoding/json reads from a line is what protowire reads from the row.
func TestJSONLinesKeepEveryValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		columns := drawNamed(rt)
		l := rowwire.Layout{VersionField: 5000, SyncedAtField: 5001, DeletedField: 5002, VersionPrefix: `v"\/`, SyncedAt: 1_795_000_000_123_400}
		var names []string
		for _, c := range columns {
			l.Columns = append(l.Columns, c.Column)
			names = append(names, c.name)
		}
		var tuples [][]byte
		for range rapid.IntRange(1, 4).Draw(rt, "rows") {
			var fields []field
			for _, c := range columns {
				var f field
				switch {
				case rapid.IntRange(0, 5).Draw(rt, "null") == 0:
				case c.Repeated:
					var elements []field
					for range rapid.IntRange(1, 4).Draw(rt, "elements") {
						elements = append(elements, drawGood(rt, c.Kind))
					}
					f = arrayField(1, elements...)
				default:
					f = drawGood(rt, c.Kind)
				}
				fields = append(fields, f)
			}
			tuples = append(tuples, tuple(fields...))
		}
		out, err := run(t, l, stream(tuples...))
		if err != nil {
			rt.Fatalf("transcoding: %v", err)
		}
		lines, err := rowwire.NewJSONLines(l, names)
		if err != nil {
			rt.Fatalf("%v", err)
		}
		columns = append(columns,
			namedColumn{name: "_version", Column: rowwire.Column{Kind: rowwire.Text, Field: 5000}},
			namedColumn{name: "_synced_at", Column: rowwire.Column{Kind: rowwire.Timestamp, Field: 5001}},
			namedColumn{name: "_deleted", Column: rowwire.Column{Kind: rowwire.Bool, Field: 5002}})
		for _, row := range out.Rows {
			wire := decode(t, row)
			before := []byte("kept")
			got, err := lines.Append(before, row)
			rest, kept := bytes.CutPrefix(got, before)
			var bad *rowwire.JSONLineError
			switch {
			case !kept:
				rt.Fatalf("Append wrote over what was there: %q", got)
			case hasNullElement(columns, wire):
				if !errors.As(err, &bad) || bad.Reason != rowwire.NullElement || len(rest) != 0 {
					rt.Fatalf("JSON null in an array: error %v, line %q", err, rest)
				}
			case err != nil:
				rt.Fatalf("%v", err)
			default:
				compareLine(rt, columns, wire, rest)
			}
		}
	})
}

// hasNullElement says whether an array of JSON has a JSON null, which a load job does not take.
func hasNullElement(columns []namedColumn, row []wireValue) bool {
	return slices.ContainsFunc(row, func(v wireValue) bool {
		return slices.ContainsFunc(columns, func(c namedColumn) bool {
			return c.Field == int32(v.Field) && c.Repeated && (c.Kind == rowwire.JSON || c.Kind == rowwire.JSONB || c.Kind == rowwire.JSONText) && strings.TrimSpace(v.Text) == "null"
		})
	})
}

// TestJSONLine fixes the form of each kind.
func TestJSONLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		kind rowwire.Kind
		in   field
		want string
	}{
		{rowwire.Bool, field{1}, `true`},
		{rowwire.Int2, be16(-7), `"-7"`},
		{rowwire.Int4, be32(math.MaxInt32), `"2147483647"`},
		{rowwire.Int8, be64(math.MinInt64), `"-9223372036854775808"`},
		{rowwire.Int8, be64(1<<53 + 1), `"9007199254740993"`},
		{rowwire.Float4, be32(int64(math.Float32bits(0.1))), `0.10000000149011612`},
		{rowwire.Float8, bits(0.1), `0.1`},
		{rowwire.Float8, bits(1e300), `1e+300`},
		{rowwire.Float8, bits(math.Copysign(0, -1)), `-0.0`},
		{rowwire.Float8, bits(math.NaN()), `"NaN"`},
		{rowwire.Float8, bits(math.Inf(1)), `"Infinity"`},
		{rowwire.Float8, bits(math.Inf(-1)), `"-Infinity"`},
		{rowwire.Numeric, numericField("1.10"), `"1.1"`},
		{rowwire.BigNumeric, numericField("-0.00000000000000000000000000000000000001"), `"-0.00000000000000000000000000000000000001"`},
		{rowwire.Text, field(""), `""`},
		{rowwire.Text, field("\x1f"), `"\u001f"`},
		{rowwire.Text, field("a\"b\\c\x01\x1f\n\r\t\x7f\u2028é😀</"), `"a\"b\\c\u0001\u001f\n\r\t` + "\x7f\u2028é😀</\""},
		{rowwire.Text, field("01234567\x1f1234567\"1234567\\"), `"01234567\u001f1234567\"1234567\\"`},
		{rowwire.JSON, field("{\"a\":\r\n 1.10}\n"), `{"a":   1.10}`},
		{rowwire.JSON, field(`"{\"a\": 1}"`), `"{\"a\": 1}"`},
		{rowwire.JSON, field(`null`), `null`},
		{rowwire.JSONB, field("\x0118446744073709551615"), `18446744073709551615`},
		{rowwire.Bytes, field(""), `""`},
		{rowwire.Bytes, field("\x00\xff\xfe\xfb"), `"AP/++w=="`},
		{rowwire.UUID, field("\xde\xad\xbe\xef\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\xff"), `"deadbeef-0001-0203-0405-060708090aff"`},
		{rowwire.Interval, interval(-14, 3, -3_723_000_001), `"P-1Y-2M3DT-1H-2M-3.000001S"`},
		{rowwire.Interval, interval(0, -1, -500_000), `"P0Y0M-1DT0H0M-0.5S"`},
		{rowwire.Interval, interval(-120_000, -3_660_000, -87_840_000*3_600_000_000), `"P-10000Y0M-3660000DT-87840000H0M0S"`},
		{rowwire.IntervalText, interval(0, 0, 0), `"PT0S"`},
		{rowwire.NumericInt, numericField("9007199254740993"), `"9007199254740993"`},
		{rowwire.NumericFloat, numericField("0.1"), `0.1`},
		{rowwire.Geography, field("SRID=4326;POINT(1 2)"), `"POINT(1 2)"`},
		{rowwire.Date, days(day(1, 1, 1)), `"0001-01-01"`},
		{rowwire.Date, days(day(9999, 12, 31)), `"9999-12-31"`},
		{rowwire.Time, be64(45_296_120_000), `"12:34:56.12"`},
		{rowwire.DateTime, micros(day(1969, 12, 31).Add(time.Microsecond)), `"1969-12-31 00:00:00.000001"`},
		{rowwire.Timestamp, micros(day(1, 1, 1)), `"0001-01-01 00:00:00 UTC"`},
		{rowwire.Timestamp, micros(day(10000, 1, 1).Add(-time.Microsecond)), `"9999-12-31 23:59:59.999999 UTC"`},
	} {
		t.Run(tc.kind.String(), func(t *testing.T) {
			t.Parallel()
			for _, repeated := range []bool{false, true} {
				in, want := tc.in, tc.want
				if repeated {
					in, want = arrayField(1, tc.in, tc.in), "["+tc.want+","+tc.want+"]"
				}
				l := oneColumn(tc.kind, repeated)
				out, err := run(t, l, stream(tuple(in), tuple(nil)))
				if err != nil || len(out.Rows) != 2 {
					t.Fatal(out.Rejects, err)
				}
				lines, err := rowwire.NewJSONLines(l, []string{"a \"ü\"\n"})
				if err != nil {
					t.Fatal(err)
				}
				if repeated && tc.want == "null" {
					want = ""
				} else {
					want = `{"a \"ü\"\n":` + want + "}\n"
				}
				var bad *rowwire.JSONLineError
				got, err := lines.Append(nil, out.Rows[0])
				if string(got) != want || (err != nil) != (want == "") || err != nil && !errors.As(err, &bad) {
					t.Errorf("got %q, want %q (error %v)", got, want, err)
				}
				if got, err := lines.Append(nil, out.Rows[1]); string(got) != "{}\n" || err != nil {
					t.Errorf("NULL became %q (error %v)", got, err)
				}
			}
		})
	}
}

func TestNewJSONLinesRefuses(t *testing.T) {
	t.Parallel()
	two := rowwire.Layout{VersionField: 3, Columns: []rowwire.Column{{Kind: rowwire.Int4, Field: 1}, {Kind: rowwire.Text, Field: 2}}}
	for name, names := range map[string][]string{
		"too few names": {"a"}, "same name": {"a", "a"}, "same but for case": {"ä", "Ä"}, "name of metadata": {"a", "_VERSION"},
		"no name": {"a", ""}, "not UTF-8": {"a", "\xff"},
	} {
		if _, err := rowwire.NewJSONLines(two, names); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := rowwire.NewJSONLines(two, []string{"a", "_synced_at"}); err != nil {
		t.Errorf("a column may be named as metadata that the layout leaves out: %v", err)
	}
	unknown := rowwire.Layout{Columns: []rowwire.Column{{Kind: 200, Field: 1}}}
	if _, err := rowwire.NewJSONLines(unknown, []string{"a"}); err == nil {
		t.Error("an unknown kind was taken")
	}
}

// TestJSONLinesRefuseWhatIsNoRow: bytes that are not a row of the layout are an error and never a line.
func TestJSONLinesRefuseWhatIsNoRow(t *testing.T) {
	t.Parallel()
	l := rowwire.Layout{DeletedField: 9, Columns: []rowwire.Column{
		{Kind: rowwire.Int4, Field: 1},
		{Kind: rowwire.Text, Field: 2},
		{Kind: rowwire.Date, Field: 3},
		{Kind: rowwire.Timestamp, Field: 4},
		{Kind: rowwire.Float8, Field: 5},
		{Kind: rowwire.JSON, Field: 6},
		{Kind: rowwire.Int8, Field: 7, Repeated: true},
		{Kind: rowwire.Interval, Field: 10},
	}}
	lines, err := rowwire.NewJSONLines(l, []string{"a", "b", "c", "d", "e", "f", "g", "h"})
	if err != nil {
		t.Fatal(err)
	}
	number := func(field protowire.Number, v int64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), uint64(v))
	}
	sized := func(field protowire.Number, v string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), v)
	}
	for name, row := range map[string][]byte{
		"unknown field":       number(8, 1),
		"other wire type":     sized(1, "1"),
		"field twice":         append(number(1, 1), number(1, 2)...),
		"fields out of order": append(sized(2, "x"), number(1, 1)...),
		"array interrupted":   append(append(number(7, 1), number(9, 1)...), number(7, 2)...),
		"tag cut off":         {0x80},
		"number cut off":      {0x08, 0x80},
		"text cut off":        sized(2, "abc")[:4:4],
		"double cut off":      {0x29, 1, 2, 3},
		"date out of range":   number(3, 2932897),
		"time out of range":   number(4, day(10000, 1, 1).UnixMicro()),
		"time before year 1":  number(4, day(1, 1, 1).UnixMicro()-1),
		"empty JSON":          sized(6, " "),
		"bool of 2":           number(9, 2),
		"interval cut off":    sized(10, "0-0 0 0:0"),
		"interval with more":  sized(10, "0-0 0 0:0:0 "),
		"interval otherwise":  sized(10, "0-0-0 0:0:0"),
		"interval of nothing": sized(10, ""),
	} {
		got, err := lines.Append([]byte("kept"), row)
		var lineError *rowwire.JSONLineError
		if err == nil || errors.As(err, &lineError) || string(got) != "kept" {
			t.Errorf("%s: %q, error %v", name, got, err)
		}
	}
}

// TestJSONLineTooLong: BigQuery takes no row of more than 100 MB, which escapes can make of a smaller message.
func TestJSONLineTooLong(t *testing.T) {
	t.Parallel()
	l := oneColumn(rowwire.Text, false)
	lines, err := rowwire.NewJSONLines(l, []string{"c"})
	if err != nil {
		t.Fatal(err)
	}
	const around = len(`{"c":""}` + "\n")
	for controls, want := range map[int]bool{(100_000_000 - around) / 6: true, (100_000_000-around)/6 + 1: false} {
		row := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), strings.Repeat("\x01", controls))
		got, err := lines.Append(nil, row)
		var bad *rowwire.JSONLineError
		switch {
		case want && (err != nil || len(got) != around+6*controls):
			t.Errorf("%d bytes, error %v", len(got), err)
		case !want && (!errors.As(err, &bad) || bad.Reason != rowwire.RowTooLarge || bad.Column != -1 || len(got) != 0):
			t.Errorf("too long: %d bytes, error %v", len(got), err)
		}
	}
}

// TestJSONLinesDoNotAllocate: a line costs nothing beyond the buffer it goes to.
func TestJSONLinesDoNotAllocate(t *testing.T) { //nolint:paralleltest // allocations of others would be counted
	l := mixedLayout()
	out, err := run(t, l, stream(mixedTuple(7)))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := rowwire.NewJSONLines(l, columnNames(l))
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := lines.Append(dst, out.Rows[0]); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per row", n)
	}
	value := parseLine(t, mustAppend(t, lines, out.Rows[0]))[5]
	if r, ok := new(big.Rat).SetString(strings.Trim(value.Value, `"`)); !ok || r.Cmp(big.NewRat(707, 100)) != 0 {
		t.Errorf("numeric of the row is %s", value.Value)
	}
}

func mustAppend(tb testing.TB, lines *rowwire.JSONLines, row []byte) []byte {
	tb.Helper()
	line, err := lines.Append(nil, row)
	if err != nil {
		tb.Fatal(err)
	}
	return line
}

func columnNames(l rowwire.Layout) []string {
	var names []string
	for _, c := range l.Columns {
		names = append(names, c.Name)
	}
	return names
}

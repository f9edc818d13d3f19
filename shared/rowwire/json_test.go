package rowwire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// checkJSON returns why a JSON text is rejected, 0 if it is not.
func checkJSON(tb testing.TB, in string) rowwire.Reason {
	tb.Helper()
	out, err := run(tb, oneColumn(rowwire.JSON, false), stream(tuple(field(in))))
	if err != nil {
		tb.Fatal(err)
	}
	if len(out.Rejects) == 1 {
		return out.Rejects[0].Reason
	}
	if got := decode(tb, out.Rows[0])[0].Text; got != in {
		tb.Fatalf("%s became %s", in, got)
	}
	return 0
}

func TestJSON(t *testing.T) {
	t.Parallel()
	manyKeys := func(last string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range 40 {
			fmt.Fprintf(&b, `"key%d": {"a": %d}, `, i, i)
		}
		return b.String() + last + ": 1}"
	}
	for _, tc := range []struct {
		in   string
		want rowwire.Reason
	}{
		{`null`, 0},
		{` { } `, 0},
		{`-0`, 0},
		{`-0.0`, 0},
		{`0e5`, 0},
		{`0.000e-999999`, 0},
		{`9223372036854775807`, 0},
		{`18446744073709551615`, 0},
		{`18446744073709551616`, rowwire.JSONNumber},
		{`-9223372036854775808`, 0},
		{`-9223372036854775809`, rowwire.JSONNumber},
		{`[1, -18446744073709551615]`, rowwire.JSONNumber},
		{`100000000000000000000`, 0},
		{`100000000000000000001`, rowwire.JSONNumber},
		{`67.174118`, rowwire.JSONNumber}, // would come out as 67.17411800000001
		{`67.17411800000001`, 0},
		{`0.01207`, rowwire.JSONNumber},
		{`0.01208`, 0},
		{`-0.0`, 0},
		{`-2.2250738585072014e-308`, 0},
		{`1e20`, 0},
		{`1E+2`, 0},
		{`0.1`, 0},
		{`1.10`, 0},
		{`1.100000000000000000000000000000`, 0},
		{`0.30000000000000004`, 0},
		{`0.30000000000000003`, rowwire.JSONNumber},
		{`0.1000000000000000055511151231257827`, rowwire.JSONNumber},
		{`9007199254740993.0`, rowwire.JSONNumber},
		{`9007199254740992.0`, 0},
		{`1e308`, 0},
		{`1.7976931348623157e308`, 0},
		{`1e309`, rowwire.JSONNumber},
		{`-1e309`, rowwire.JSONNumber},
		{`5e-324`, 0},
		{`4e-324`, rowwire.JSONNumber},
		{`1e-400`, rowwire.JSONNumber},
		{`1e99999999999999999999`, rowwire.JSONNumber},
		{`0.` + strings.Repeat("0", 330) + `1`, rowwire.JSONNumber},
		{`0.` + strings.Repeat("0", 300) + `1`, 0},
		{`"1e309 18446744073709551616"`, 0},
		{`"\ud83d\ude00"`, 0},
		{`"\uD83D\uDE00"`, 0},
		{`"\ud800"`, rowwire.JSONSurrogate},
		{`"\udc00"`, rowwire.JSONSurrogate},
		{`"\ud800\ud800"`, rowwire.JSONSurrogate},
		{`"\ud800x"`, rowwire.JSONSurrogate},
		{`"\ude00\ud83d"`, rowwire.JSONSurrogate},
		{`"\\ud800"`, 0},
		{`"\\\ud800"`, rowwire.JSONSurrogate},
		{`"a\u0000b"`, rowwire.JSONNul},
		{`{"\u0000": 1}`, rowwire.JSONNul},
		{`"\\u0000"`, 0},
		{`"\u00001"`, rowwire.JSONNul},
		{`"\"{[1e309"`, 0},
		{`{"a": 1, "b": {"a": 2}, "c": [{"a": 1}, {"a": 2}]}`, 0},
		{`{"a": 1, "b": 2, "a": 3}`, rowwire.JSONDuplicateKey},
		{`{"a": {"x": 1, "x": 1}}`, rowwire.JSONDuplicateKey},
		{`{"a": [], "b": "a", "c": ["a", "a"]}`, 0},
		{`{"a" : 1, "\u0061" : 2}`, rowwire.JSONDuplicateKey},
		{`{"\ud83d\ude00": 1, "😀": 2}`, rowwire.JSONDuplicateKey},
		{`{"\n": 1, "\u000a": 2}`, rowwire.JSONDuplicateKey},
		{`{"\/": 1, "/": 2}`, rowwire.JSONDuplicateKey},
		{`{"\\u0061": 1, "a": 2}`, 0},
		{manyKeys(`"key40"`), 0},
		{manyKeys(`"key7"`), rowwire.JSONDuplicateKey},
		{manyKeys(`"\u006bey7"`), rowwire.JSONDuplicateKey},
	} {
		t.Run(tc.in[:min(len(tc.in), 40)], func(t *testing.T) {
			t.Parallel()
			if got := checkJSON(t, tc.in); got != tc.want {
				t.Errorf("%s: %v, want %v", tc.in, got, tc.want)
			}
		})
	}
}

// TestJSONNumbers: an integer of 64 bits is kept, and so is a number that its float64 tells from its neighbours in so
// many digits; nothing that says more than a float64 does. (test/rowwire compares each case with GoogleSQL.)
func TestJSONNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		lit := rapid.OneOf(
			rapid.StringMatching(`-?(0|[1-9][0-9]{0,24})`),
			rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})\.[0-9]{1,20}`),
			rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?[eE][+-]?[0-9]{1,3}`),
			rapid.Map(rapid.Float64(), func(f float64) string { return strconv.FormatFloat(f, 'e', -1, 64) }),
			rapid.Map(rapid.Float64Range(-1e20, 1e20), func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }),
		).Draw(rt, "literal")
		value, ok := new(big.Rat).SetString(lit)
		if !ok {
			rt.Fatalf("not a number: %s", lit)
		}
		f, err := strconv.ParseFloat(lit, 64)
		shortest, _ := new(big.Rat).SetString(strconv.FormatFloat(f, 'e', -1, 64))
		digits := strings.Trim(strings.ReplaceAll(strings.TrimLeft(strings.Split(strings.ToLower(lit), "e")[0], "-"), ".", ""), "0")
		accepted := checkJSON(t, `{"n": [`+lit+`]}`) == 0
		switch {
		case !strings.ContainsAny(lit, ".eE") && (value.Num().IsInt64() || value.Num().IsUint64()):
			if !accepted {
				rt.Fatalf("%s is not accepted", lit)
			}
		case accepted && (err != nil || len(digits) > 17):
			rt.Fatalf("%s is accepted", lit)
		case accepted && shortest.Cmp(value) != 0 && len(digits) < 16:
			rt.Fatalf("%s is accepted, and float64 says %s", lit, shortest)
		case !accepted && shortest != nil && shortest.Cmp(value) == 0 && len(digits) < 4:
			rt.Fatalf("%s is not accepted", lit)
		}
	})
}

// FuzzJSON: no text panics, and strings never hide or invent a number.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"a": 1}`, `["\ud83d\ude00", 1e309]`, `{"a":1,"a":2}`, `"\\`, `{"k`, `[[[`, `-`, `1e`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if in == "" {
			return
		}
		reason := checkJSON(t, in)
		if !json.Valid([]byte(in)) {
			return
		}
		if want := slowCheck(t, in); (reason == 0) != (want == nil) {
			t.Fatalf("%q: %v, want %v", in, reason, want)
		}
	})
}

// slowCheck is the rule spelled out with encoding/json's tokens; escapes and UTF-8 aside, which it would replace.
func slowCheck(tb testing.TB, in string) error {
	tb.Helper()
	if strings.ToValidUTF8(in, "") != in {
		return errors.New("UTF-8")
	}
	d := json.NewDecoder(strings.NewReader(in))
	d.UseNumber()
	return slowValue(tb, d, in, 0)
}

func slowValue(tb testing.TB, d *json.Decoder, in string, depth int) error {
	tb.Helper()
	tok, err := d.Token()
	if err != nil {
		return err
	}
	switch v := tok.(type) {
	case json.Number:
		if reason := checkJSON(tb, string(v)); reason != 0 {
			return errors.New(reason.String())
		}
		return nil
	case string:
		return slowString(d, in)
	case json.Delim:
		if depth++; depth > 500 {
			return errors.New("depth")
		}
		keys := map[string]bool{}
		for d.More() {
			if v == '{' {
				key, err := d.Token()
				if err != nil {
					return err
				}
				if err := slowString(d, in); err != nil {
					return err
				}
				if keys[fmt.Sprint(key)] {
					return errors.New("duplicate")
				}
				keys[fmt.Sprint(key)] = true
			}
			if err := slowValue(tb, d, in, depth); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return err
	}
	return nil
}

// slowString judges the string that the decoder has just read by its source text.
func slowString(d *json.Decoder, in string) error {
	end := int(d.InputOffset())
	start := 0
	for i, open := 0, false; i < end; i++ { // the last quote that opens a string before end
		switch {
		case in[i] == '\\' && open:
			i++
		case in[i] == '"':
			if open = !open; open {
				start = i
			}
		}
	}
	raw := in[start:end]
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++
		if raw[i] != 'u' {
			continue
		}
		unit, err := strconv.ParseUint(raw[i+1:i+5], 16, 32)
		if err != nil {
			return err
		}
		i += 4
		if unit == 0 {
			return errors.New("nul")
		}
		if unit >= 0xD800 && unit < 0xE000 {
			if unit >= 0xDC00 || i+7 > len(raw) || raw[i+1:i+3] != `\u` {
				return errors.New("surrogate")
			}
			low, err := strconv.ParseUint(raw[i+3:i+7], 16, 32)
			if err != nil || low < 0xDC00 || low >= 0xE000 {
				return errors.New("surrogate")
			}
			i += 6
		}
	}
	return nil
}

package bigquery

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func TestNormalizeJSON(t *testing.T) {
	t.Parallel()
	cases := []struct{ in, want string }{
		{` { "b" : 1 , "a" : [ ] } `, `{"a":[],"b":1}`},
		{`{"a":1,"a":2}`, `{"a":1}`},
		{`{"":{"z":1,"y":{}}}`, `{"":{"y":{},"z":1}}`},
		{`[1.0,1.50,-0,1e2,1E-7,1e20,123456789012345678]`, `[1.0,1.5,-0.0,100.0,1e-07,1e+20,123456789012345678]`},
		{`18446744073709551615`, `18446744073709551615`},
		{`-9223372036854775808`, `-9223372036854775808`},
		{`0.1`, `0.1`},
		{`"a\/b\u0041\ud83d\ude00\u0000\n\"\\"`, `"a/bA😀\u0000\n\"\\"`},
		{`true`, `true`},
		{`null`, `null`},
	}
	for _, c := range cases {
		got, err := normalizeJSON(c.in)
		if err != nil || got != c.want {
			t.Errorf("normalizeJSON(%s) = %s, %v, want %s", c.in, got, err, c.want)
		}
	}
}

func TestNormalizeJSONRefuses(t *testing.T) {
	t.Parallel()
	cases := []struct {
		in   string
		want error
	}{
		{``, errJSON},
		{`{`, errJSON},
		{`[1,]`, errJSON},
		{`{"a" 1}`, errJSON},
		{`01`, errJSON},
		{`1.`, errJSON},
		{`.5`, errJSON},
		{`+1`, errJSON},
		{`nul`, errJSON},
		{`"a`, errJSON},
		{"\"\n\"", errJSON},
		{`"\x"`, errJSON},
		{`"\udc00"`, errJSON},
		{`1 2`, errJSON},
		{"\"\xff\"", errJSON},
		{`1e309`, errJSONNumber},
		{`18446744073709551617`, errJSONNumber},
		{`1.00000000000000000001`, errJSONNumber},
	}
	for _, c := range cases {
		if got, err := normalizeJSON(c.in); !errors.Is(err, c.want) {
			t.Errorf("normalizeJSON(%q) = %q, %v, want %v", c.in, got, err, c.want)
		}
	}
}

// What encoding/json writes is read, keeps its value, and stays as it is when
// normalized again.
func TestNormalizeJSONKeepsValues(t *testing.T) {
	t.Parallel()
	scalar := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }),
	)
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.MapOf(rapid.String(), rapid.SliceOf(scalar)).Draw(t, "value")
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := normalizeJSON(string(text))
		if err != nil {
			t.Fatalf("normalizeJSON(%s): %v", text, err)
		}
		var before, after any
		if err := errors.Join(json.Unmarshal(text, &before), json.Unmarshal([]byte(got), &after)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%s became %s", text, got)
		}
		if again, err := normalizeJSON(got); err != nil || again != got {
			t.Fatalf("%s became %s, %v", got, again, err)
		}
	})
}

package catalog

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRepeated(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", identifierBytes)
	for _, test := range []struct{ query, relation, want string }{
		{"SELECT t.a FROM t", "t", ""},
		{"SELECT t . a FROM s.t", "t", ""},
		{"SELECT a.x FROM t a, t b", "t", "t"},
		{"SELECT a.x FROM T a, \"t\" b", "t", "t"},
		{"SELECT a.x FROM T a, \"T\" b", "t", ""},
		{`SELECT a.x FROM "o""d" a, "o""d" b`, `o"d`, `o"d`},
		{"SELECT 't', E'\\'t', $$ t $$, $q$ t $$ t $q$, N't' FROM t -- t\n/* t /* t */ t */", "t", ""},
		{"SELECT 'it''s t' FROM t", "t", ""},
		{`SELECT 'back\' FROM t, t`, "t", "t"},
		{"SELECT $1, t$1 FROM t", "t", ""},
		{"SELECT a.$1 FROM t WHERE $2 = (SELECT 1 FROM t)", "t", "t"},
		{"SELECT 1e5t FROM t, t2", "t", ""},
		{`SELECT 1 FROM t, U&"\0074"`, "t", "t"},
		{"SELECT 1 FROM " + long + "yz a, " + long + "yw b", long, long},
		{"SELECT 1 FROM été, été e", "été", "été"},
		{"WITH c AS (SELECT * FROM t) SELECT c.a FROM c", "t", ""},
		{"WITH c AS (SELECT * FROM t) SELECT a.a FROM c a, c b", "t", "c"},
		{`WITH "C" (x, y) AS MATERIALIZED (SELECT * FROM t) SELECT a.a FROM "C" a, "C" b`, "t", "C"},
		{"WITH c AS NOT MATERIALIZED(SELECT * FROM t) SELECT a.a FROM c a, C b", "t", "c"},
		{"SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY a)", "t", ""},
		{"SELECT f.a FROM t, g(1) AS f(a int)", "t", ""},
		{"", "t", ""},
		{"AS (", "t", ""},
		{") AS (", "t", ""},
		{"'", "t", ""},
		{`"`, "t", ""},
		{"$$", "t", ""},
	} {
		if got := repeated(test.query, test.relation); got != test.want {
			t.Errorf("%s: %q, want %q", test.query, got, test.want)
		}
	}
}

// TestSplitEnds: whatever the text, and a name that stands twice between what is
// left out is found twice.
func TestSplitEnds(t *testing.T) {
	t.Parallel()
	filler := rapid.SliceOf(rapid.SampledFrom([]string{"'it''s'", "E'\\''", "$$ ' $$", "$a$ \" $a$", "-- ' \"\n", "/* ' /* \" */ */", `"o""d"`, " ", "1.5", "$1 ", "( ", "x.", "é "}))
	rapid.Check(t, func(t *rapid.T) {
		_ = split(rapid.String().Draw(t, "text"))
		parts := make([]string, 3)
		for i := range parts {
			parts[i] = strings.Join(filler.Draw(t, "filler"), " ")
		}
		if got := repeated(strings.Join(parts, " t\n"), "t"); got != "t" {
			t.Fatalf("%q names t twice", strings.Join(parts, " t\n"))
		}
	})
}

package pipeline

import (
	"testing"

	"pgregory.net/rapid"
)

// TestUnquoted: what Postgres reads as SQL, and what as text.
func TestUnquoted(t *testing.T) {
	t.Parallel()
	tests := []struct {
		sql, want string
		ended     bool
	}{
		{"a = 1", "a = 1", true},
		{"a = 'x;y' AND b", "a = q AND b", true},
		{"a = 'it''s; ' ; b", "a = q ; b", true},
		{`a = 'back\'; b`, "a = q; b", true},
		{`a = E'back\'; b'; c`, "a = q; c", true},
		{`a = e'back\\'; c`, "a = q; c", true},
		{`E'\';'`, "q", true},
		{`a = nice'x'`, "a = niceq", true},
		{`"a;""b" = 1; c`, "q = 1; c", true},
		{"a = $$x;'y$$; b", "a = q; b", true},
		{"a = $tag$ $$ ; $tag$; b", "a = q; b", true},
		{"a$b$ = 1; c$b$", "a$b$ = 1; c$b$", true},
		{"a = $1; b", "a = $1; b", true},
		{"a -- b; 'c\n AND d", "a  \n AND d", true},
		{"a -- b;", "a  ", true},
		{"a --\n; b", "a  \n; b", true},
		{"a = $$$$; b", "a = q; b", true},
		{"a /* ; /* ; */ ; */ ; b", "a   ; b", true},
		{"a /*/ ; */ b", "a   b", true},
		{"é = 'ü;'", "é = q", true},
		{"a = 'x", "", false},
		{`a = E'x\'`, "", false},
		{`"a`, "", false},
		{"$$ $", "", false},
		{"/* /* */", "", false},
		{"", "", true},
	}
	for _, test := range tests {
		if got, ended := unquoted(test.sql); got != test.want || ended != test.ended {
			t.Errorf("unquoted(%s) = %q, %t, want %q, %t", test.sql, got, ended, test.want, test.ended)
		}
	}
}

// TestUnquotedEnds: whatever is written, it is read to its end.
func TestUnquotedEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sql := rapid.StringMatching(`[aeE'"$/*\\\n;() -]{0,40}`).Draw(t, "sql")
		got, ended := unquoted(sql)
		if len(got) > len(sql) || !ended && got != "" {
			t.Fatalf("unquoted(%q) = %q, %t", sql, got, ended)
		}
	})
}

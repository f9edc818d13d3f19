package rowwire_test

import (
	"strings"
	"testing"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

func TestKindsAndReasonsHaveTexts(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{"invalid": true}
	for k := rowwire.Bool; k <= rowwire.Geography; k++ {
		if seen[k.String()] {
			t.Errorf("kind %d is called %q like another", k, k)
		}
		seen[k.String()] = true
	}
	if got := (rowwire.Geography + 2).String(); got != "invalid" {
		t.Errorf("an unknown kind is called %q", got)
	}
	for r := rowwire.NumericNaN; r <= rowwire.GeographyRange; r++ {
		if s := r.String(); seen[s] || strings.HasPrefix(s, "reason ") {
			t.Errorf("reason %d says %q", r, s)
		}
		seen[r.String()] = true
	}
	if got := rowwire.Reason(200).String(); got != "reason 200" {
		t.Errorf("an unknown reason says %q", got)
	}
}

func TestErrorTexts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&rowwire.FormatError{Row: 3, Column: -1, Problem: "is cut"}, "reading COPY data: row 3: is cut"},
		{&rowwire.FormatError{Row: 3, Column: 2, Problem: "is cut"}, "reading COPY data: row 3, column 2: is cut"},
		{&rowwire.ValueError{Row: 3, Column: "c", Reason: rowwire.NulByte}, `writing row 3, column "c": text has a NUL byte, which PostgreSQL cannot store`},
		{&rowwire.ValueError{Row: 3, Reason: rowwire.ValueTooLarge}, "writing row 3: row is larger than PostgreSQL can take"},
		{&rowwire.UnsupportedTypeError{Column: "c", Type: "int32"}, `staging column "c": Arrow type int32 cannot be written to PostgreSQL`},
	} {
		if got := tc.err.Error(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

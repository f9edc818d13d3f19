package rowwire_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// TestHash: values are carried as their HMAC under the column's own key, NULL as NULL.
func TestHash(t *testing.T) {
	t.Parallel()
	mac := func(key, value string) string {
		m := hmac.New(sha256.New, []byte(key))
		m.Write([]byte(value))
		return hex.EncodeToString(m.Sum(nil))
	}
	l := rowwire.Layout{Columns: []rowwire.Column{
		{Name: "a", Kind: rowwire.Text, Field: 1, HashKey: []byte("one")},
		{Name: "b", Kind: rowwire.Text, Field: 2, HashKey: []byte("two")},
		{Name: "c", Kind: rowwire.Text, Field: 3},
		{Name: "d", Kind: rowwire.Text, Repeated: true, Field: 4, HashKey: []byte("one")},
	}}
	long := strings.Repeat("long", 1000)
	out, err := run(t, l, stream(
		tuple(field("me@x.org"), field("me@x.org"), field("me@x.org"), arrayField(1, field("me@x.org"), field{})),
		tuple(nil, field{}, nil, nil),
		tuple(field(long), field("\xff"), nil, nil),
	))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]wireValue{
		{text(1, mac("one", "me@x.org")), text(2, mac("two", "me@x.org")), text(3, "me@x.org"), text(4, mac("one", "me@x.org")), text(4, mac("one", ""))},
		{text(2, mac("two", ""))},
		{text(1, mac("one", long)), text(2, mac("two", "\xff"))},
	}
	if len(out.Rows) != len(want) {
		t.Fatalf("%d rows, rejects %v", len(out.Rows), out.Rejects)
	}
	for i, row := range out.Rows {
		if diff := cmp.Diff(want[i], decode(t, row)); diff != "" {
			t.Errorf("row %d (-want +got):\n%s", i, diff)
		}
	}
}

// TestHashLayout: only text is hashed, and under some key.
func TestHashLayout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]rowwire.Column{
		"an empty key": {Name: "a", Kind: rowwire.Text, Field: 1, HashKey: []byte{}},
		"a number":     {Name: "a", Kind: rowwire.Int8, Field: 1, HashKey: []byte("k")},
		"JSON":         {Name: "a", Kind: rowwire.JSON, Field: 1, HashKey: []byte("k")},
	} {
		if _, err := rowwire.NewTranscoder(rowwire.Layout{Columns: []rowwire.Column{c}}, nil, func(b *rowwire.Batch) (*rowwire.Batch, error) { return b, nil }, func(rowwire.Reject) error { return nil }); err == nil {
			t.Errorf("%s is hashed", name)
		}
	}
}

package pipeline

import (
	"testing"

	"pgregory.net/rapid"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"capture", "cluster_by", "every", "key", "name"}
	tests := map[string]string{"captrue": "capture", "keys": "key", "evry": "every", "cluster-by": "cluster_by", "target": "", "nam": "name", "": ""}
	for word, want := range tests {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// TestEdits: the distance is a metric, and one edit is a distance of one.
func TestEdits(t *testing.T) {
	t.Parallel()
	word := rapid.StringMatching(`[a-c]{0,8}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		ab := edits(a, b)
		if ab != edits(b, a) || (ab == 0) != (a == b) || edits(a, c) > ab+edits(b, c) || ab > max(len(a), len(b)) {
			t.Fatalf("edits(%q, %q) = %d, edits(b, a) = %d, edits(a, %q) = %d, edits(b, c) = %d", a, b, ab, edits(b, a), c, edits(a, c), edits(b, c))
		}
		at := rapid.IntRange(0, len(a)).Draw(t, "at")
		if d := edits(a, a[:at]+"x"+a[at:]); d != 1 {
			t.Fatalf("an insertion into %q is %d edits", a, d)
		}
	})
}

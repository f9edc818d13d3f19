package warehouse

import (
	"math"
	"slices"
	"testing"
)

// TestSpansHoldEveryFingerprintOnce: none is confirmed twice, nor left out.
func TestSpansHoldEveryFingerprintOnce(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, maxFingerprints, maxFingerprints + 1, 2*maxFingerprints + 1} {
		keys := make([]int64, 0, 2*n)
		for i := range int64(n) {
			keys = append(keys, -3*i, -3*i) // neither in order nor once
		}
		found := spans(keys)
		next, listed := int64(math.MinInt64), 0
		for i, s := range found {
			if s.from != next || s.to < s.from {
				t.Errorf("%d keys: span %d is from %d to %d, want it from %d", n, i, s.from, s.to, next)
			}
			if outside := slices.ContainsFunc(s.keys, func(k int64) bool { return k < s.from || k > s.to }); outside || len(s.keys) > maxFingerprints || s.keys == nil {
				t.Errorf("%d keys: span %d lists %d keys, some outside of it: %t", n, i, len(s.keys), outside)
			}
			listed += len(s.keys)
			next = s.to + 1
		}
		if want := max(1, (n+maxFingerprints-1)/maxFingerprints); next != math.MinInt64 || listed != n || len(found) != want { // one past the last of all is the first
			t.Errorf("%d keys: %d spans list %d and end at %d, want %d spans", n, len(found), listed, next-1, want)
		}
	}
}

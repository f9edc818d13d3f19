package wal_test

import (
	"regexp"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/wal"
)

func TestSlotNamesAreValidAndDistinct(t *testing.T) {
	t.Parallel()
	valid := regexp.MustCompile(`^tidemark_[a-z0-9_]{1,54}$`)
	pipeline := rapid.StringMatching(`[a-z][a-z0-9_-]{0,62}`)
	database := rapid.StringN(1, 63, 63)
	rapid.Check(t, func(t *rapid.T) {
		p, q := pipeline.Draw(t, "pipeline"), pipeline.Draw(t, "another")
		d, e := database.Draw(t, "database"), database.Draw(t, "another database")
		name := wal.SlotName(d, p)
		if !valid.MatchString(name) {
			t.Fatalf("%s of %q is no slot's name", name, p)
		}
		if same := wal.SlotName(e, q) == name; same != (d == e && p == q) {
			t.Fatalf("%q in %q and %q in %q: same name: %t", p, d, q, e, same)
		}
	})
}

func TestSlotNamesThatDifferInPunctuationOnly(t *testing.T) {
	t.Parallel()
	if a, b := wal.SlotName("app", "a-b"), wal.SlotName("app", "a_b"); a == b {
		t.Errorf("a-b and a_b share the slot %s", a)
	}
	if got, want := wal.SlotName("app", "shop"), "tidemark_shop_"; got[:len(want)] != want || len(got) != len(want)+10 {
		t.Errorf("got %s, want %s and ten digits", got, want)
	}
}

package wal_test

import (
	"testing"

	"github.com/tidemark-data/tidemark/shared/wal"
)

func TestSnapshotSees(t *testing.T) {
	t.Parallel()
	const epoch = "42949672" // leaves room for two more digits: 4294967200 is 96 below the wrap
	tests := []struct {
		snapshot string
		xid      uint32
		want     bool
	}{
		{"100:110:100,105", 99, true},
		{"100:110:100,105", 100, false},
		{"100:110:100,105", 104, true},
		{"100:110:100,105", 105, false},
		{"100:110:100,105", 109, true},
		{"100:110:100,105", 110, false},
		{"100:100:", 99, true},
		{"100:100:", 100, false},
		{epoch + "00:" + epoch + "10:", 4294967199, true},
		{epoch + "00:" + epoch + "10:", 3, false},              // of the next epoch
		{"4294967300:4294967310:4294967305", 4294967295, true}, // of the epoch before
		{"4294967300:4294967310:4294967305", 9, false},
		{"4294967300:4294967310:4294967305", 8, true},
	}
	for _, test := range tests {
		s, err := wal.ParseSnapshot(test.snapshot)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Sees(test.xid); got != test.want {
			t.Errorf("%s sees %d: got %t", test.snapshot, test.xid, got)
		}
	}
}

func TestFenceIsOpenFromItsOwnTransactionOn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"99:120:99": false, "100:120:100": true, "101:101:": true} {
		s, err := wal.ParseSnapshot(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := (wal.Fence{XID: 100}).Open(s); got != want {
			t.Errorf("%s: got %t", text, got)
		}
	}
}

func TestParseSnapshotRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "1:2", "1:2:3:4", "a:2:", "1::", "1:2:x", "-1:2:"} {
		if s, err := wal.ParseSnapshot(text); err == nil {
			t.Errorf("%q was read as %+v", text, s)
		}
	}
}

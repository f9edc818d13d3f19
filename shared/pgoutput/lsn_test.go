package pgoutput_test

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/pgoutput"
)

func TestLSNIsWrittenAsPostgresWritesIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]pgoutput.LSN{
		"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1, "0/1A": 0x1A, "1/0": 1 << 32,
	} {
		got, err := pgoutput.ParseLSN(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: got %d, %v, written %s; want %d", text, got, err, got, want)
		}
	}
	for _, text := range []string{"", "/", "1", "1/", "/1", "1/2/3", "G/0", "-1/0", "+1/0", "100000000/0", "000000001/0", "0x1/0", "1_0/0", " 1/0", "0/1 "} {
		if got, err := pgoutput.ParseLSN(text); err == nil {
			t.Errorf("%q was read as %s", text, got)
		}
	}
}

func TestLSNRoundTrips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := pgoutput.LSN(rapid.Uint64().Draw(t, "lsn"))
		var scanned, fromBytes, fromJSON pgoutput.LSN
		if err := scanned.Scan(want.String()); err != nil {
			t.Fatal(err)
		}
		if err := fromBytes.Scan([]byte(want.String())); err != nil {
			t.Fatal(err)
		}
		encoded, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encoded, &fromJSON); err != nil {
			t.Fatal(err)
		}
		if scanned != want || fromBytes != want || fromJSON != want {
			t.Fatalf("got %s, %s, %s; want %s", scanned, fromBytes, fromJSON, want)
		}
	})
}

func TestLSNScansNullAndRefusesNumbers(t *testing.T) {
	t.Parallel()
	l := pgoutput.LSN(5)
	if err := l.Scan(nil); err != nil || l != 0 {
		t.Errorf("NULL: got %s, %v; want 0/0", l, err)
	}
	if err := l.Scan(int64(7)); err == nil {
		t.Errorf("a number was read as %s", l)
	}
}

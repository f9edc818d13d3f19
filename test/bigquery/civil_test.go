package bigquery

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseTimestamp(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 11, 20, 8, 30, 0, 500_000_000, time.UTC).UnixMicro()
	for _, in := range []string{
		"2026-11-20 08:30:00.5", "2026-11-20T08:30:00.5Z", "2026-11-20 08:30:00.500000 UTC", "2026-11-20 09:30:00.5+01:00",
		"2026-11-20 03:00:00.5-05:30", "2026-11-20 09:30:00.5 +01",
	} {
		if got, err := parseTimestamp(in); err != nil || got != want {
			t.Errorf("parseTimestamp(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "now", "2026-13-01", "2026-11-20 25:00:00", "0000-12-31", "10000-01-01", "2026-11-20 08:30", "2026-11-20 08:30:00 CET", "0001-01-01 00:00:00+01"} {
		if got, err := parseTimestamp(in); err == nil {
			t.Errorf("parseTimestamp(%q) = %d, want an error", in, got)
		}
	}
}

// Every microsecond from year 1 to 9999 survives its text and its packed form.
func TestCivilTimesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.Int64Range(minMicros, maxMicros).Draw(t, "micros")
		if got, err := parseDatetime(datetimeText(at)); err != nil || got != at {
			t.Fatalf("%s became %d, %v", datetimeText(at), got, err)
		}
		c := time.UnixMicro(at).UTC()
		packed := int64(c.Year())<<46 | int64(c.Month())<<42 | int64(c.Day())<<37 |
			int64(c.Hour())<<32 | int64(c.Minute())<<26 | int64(c.Second())<<20 | int64(c.Nanosecond()/1000)
		if got, err := unpackDatetime(packed); err != nil || got != at {
			t.Fatalf("packed %s became %d, %v", datetimeText(at), got, err)
		}
		clock := clockOf(c)
		if got, err := parseTime(timeText(clock)); err != nil || got != clock {
			t.Fatalf("%s became %d, %v", timeText(clock), got, err)
		}
	})
}

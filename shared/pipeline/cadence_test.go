package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

func TestParseCadence(t *testing.T) {
	t.Parallel()
	tests := map[string]pipeline.Cadence{
		"":                        "",
		"60s":                     "1m",
		"1m":                      "1m",
		"1m0s":                    "1m",
		"90m":                     "1h30m",
		"1.5h":                    "1h30m",
		"60m":                     "1h",
		"3600s":                   "1h",
		"24h":                     "24h",
		"10m":                     "10m",
		"100h":                    "100h",
		"90s":                     "1m30s",
		"1h0m30s":                 "1h0m30s",
		"1s":                      "1s",
		"0 3 * * *":               "0 3 * * *",
		"  0   3 *\t* * ":         "0 3 * * *",
		"*/15 9-17 * JAN-MAR MON": "*/15 9-17 * JAN-MAR MON",

		"CRON_TZ=Europe/Berlin 0 6 * * *":           "CRON_TZ=Europe/Berlin 0 6 * * *",
		" CRON_TZ=America/New_York \t0 6  * * MON ": "CRON_TZ=America/New_York 0 6 * * MON",
		"CRON_TZ=UTC 0 6 * * *":                     "CRON_TZ=UTC 0 6 * * *",
	}
	for text, want := range tests {
		if got, err := pipeline.ParseCadence(text); err != nil || got != want {
			t.Errorf("ParseCadence(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"0", "0s", "-5m", "999ms", "soon", "5", "1 d", "1m every", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "@reboot",
		"1.5s", "1m0.5s", "1000001us", "0 0 30 2 *",
		"CRON_TZ=Europe/Berlin", "CRON_TZ=Europe/Berlin ", "CRON_TZ=Europe/Berlin 1m", "CRON_TZ=Europe/Berlin @daily", "CRON_TZ=Europe/Berlin 0 6 * *",
		"CRON_TZ=Europe/Berlin 0 6 30 2 *", "CRON_TZ=Europe/Berlin CRON_TZ=Europe/Berlin 0 6 * *", "CRON_TZ= 0 6 * * *", "CRON_TZ=Local 0 6 * * *",
		"CRON_TZ=Europe/Berln 0 6 * * *", "CRON_TZ=../zoneinfo/UTC 0 6 * * *", "0 6 * * * CRON_TZ=UTC", "cron_tz=UTC 0 6 * * *",
		"TZ=Europe/Berlin 0 6 * * *", "TZ=Europe/Berlin", "CRON_TZ=UTC TZ=UTC 0 6 * * *", "CRON_TZ=UTC TZ=UTC * * * *",
	} {
		if got, err := pipeline.ParseCadence(text); err == nil {
			t.Errorf("ParseCadence(%q) = %q, want an error", text, got)
		}
	}
}

// TestParseCadenceSays what is wrong with one that is nearly right.
func TestParseCadenceSays(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	want := map[string]string{
		"TZ=Europe/Berlin 0 6 * * *":     `"TZ=Europe/Berlin 0 6 * * *" is no cron expression: write its time zone as CRON_TZ=Europe/Berlin`,
		"CRON_TZ=Europe/Berln 0 6 * * *": `there is no time zone "Europe/Berln", as "CRON_TZ=Europe/Berln 0 6 * * *" has it`,
		"1.5s":                           `the interval "1.5s" is no whole number of seconds`,
		"0 0 30 2 *":                     `the cron expression "0 0 30 2 *" names no day that exists`,
	}
	for text := range want {
		if _, err := pipeline.ParseCadence(text); err != nil {
			got[text] = err.Error()
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseCadence (-want +got):\n%s", diff)
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	// Berlin goes from 02:00 to 03:00 on March 29 and from 03:00 back to 02:00 on October 25, 2026, each at 01:00 UTC.
	tests := []struct {
		cadence    pipeline.Cadence
		from, want string // from in some zone or other: it is the moment that counts
	}{
		{"30s", "2026-02-28T23:59:30+05:00", "2026-02-28T19:00:00Z"},
		{"1h30m", "2026-02-28T23:59:30+05:00", "2026-02-28T20:29:30Z"},
		{"0 * * * *", "2026-02-28T23:59:30+05:00", "2026-02-28T19:00:00Z"},
		{"0 0 * * *", "2026-02-28T23:59:30+05:00", "2026-03-01T00:00:00Z"}, // UTC, wherever this runs
		{"30 2 1 * *", "2026-02-28T23:59:30+05:00", "2026-03-01T02:30:00Z"},
		{"0 3 29 2 *", "2026-02-28T23:59:30+05:00", "2028-02-29T03:00:00Z"},
		{"*/15 * * * *", "2026-02-28T23:59:30+05:00", "2026-02-28T19:00:00Z"},
		{"*/15 * * * *", "2026-02-28T19:00:00Z", "2026-02-28T19:15:00Z"}, // a tick is not its own next
		{"0 6 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T06:00:00Z"},
		{"CRON_TZ=UTC 0 6 * * *", "2026-10-24T12:00:00+02:00", "2026-10-25T06:00:00Z"},
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "2026-10-23T12:00:00+02:00", "2026-10-24T04:00:00Z"},
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "2026-10-24T04:00:00Z", "2026-10-25T05:00:00Z"},  // 25 hours later
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "2026-03-28T05:00:00Z", "2026-03-29T04:00:00Z"},  // 23 hours later
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"}, // skipped on the 29th
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z"}, // 02:30, the first
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"}, // and again
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"},
		{"CRON_TZ=America/Sao_Paulo 0 0 * * *", "2018-11-03T12:00:00Z", "2018-11-05T02:00:00Z"}, // no midnight on the 4th
		{"CRON_TZ=Asia/Kathmandu 0 6 * * MON", "2026-05-01T00:00:00Z", "2026-05-04T00:15:00Z"},
		{"", "2026-05-01T00:00:00Z", "0001-01-01T00:00:00Z"},
		{"never", "2026-05-01T00:00:00Z", "0001-01-01T00:00:00Z"},
	}
	for _, test := range tests {
		if got := test.cadence.Next(at(t, test.from)).Format(time.RFC3339); got != test.want {
			t.Errorf("%q: after %s comes %s, want %s", test.cadence, test.from, got, test.want)
		}
	}
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

// TestNextGoesOn: from any moment in any zone, the next tick is later, and shows the
// time of the expression on the clocks of the zone.
func TestNextGoesOn(t *testing.T) {
	t.Parallel()
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(zones).Draw(t, "zone")
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		hour, minute := rapid.IntRange(0, 23).Draw(t, "hour"), rapid.IntRange(0, 59).Draw(t, "minute")
		c, err := pipeline.ParseCadence(fmt.Sprintf("CRON_TZ=%s %d %d * * *", name, minute, hour))
		if err != nil {
			t.Fatal(err)
		}
		from := time.Unix(rapid.Int64Range(1_200_000_000, 1_900_000_000).Draw(t, "from"), 0)
		next := c.Next(from)
		if local := next.In(zone); !next.After(from) || next.Sub(from) > 49*time.Hour || local.Hour() != hour || local.Minute() != minute || local.Second() != 0 {
			t.Fatalf("%q: after %v comes %v", c, from.In(zone), local)
		}
	})
}

// TestOverdue: three ticks without success, and ten minutes at least (I9).
func TestOverdue(t *testing.T) {
	t.Parallel()
	const since = "2026-10-23T06:00:20Z"
	tests := []struct {
		cadence pipeline.Cadence
		now     string
		want    bool
	}{
		{"1m", "2026-10-23T06:10:20Z", false},
		{"1m", "2026-10-23T06:10:21Z", true},
		{"1s", "2026-10-23T06:10:20Z", false},
		{"* * * * *", "2026-10-23T06:10:20Z", false},
		{"* * * * *", "2026-10-23T06:10:21Z", true},
		{"1h", "2026-10-23T09:00:20Z", false},
		{"1h", "2026-10-23T09:00:21Z", true},
		{"0 6 * * *", "2026-10-26T06:00:00Z", false},
		{"0 6 * * *", "2026-10-26T06:00:01Z", true},
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "2026-10-26T05:00:00Z", false}, // 06:00 in winter, the third
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "2026-10-26T05:00:01Z", true},
		{"CRON_TZ=Europe/Berlin 0 6 * * MON-FRI", "2026-10-27T05:00:01Z", false}, // a weekend is no silence
		{"CRON_TZ=Europe/Berlin 0 6 * * MON-FRI", "2026-10-28T05:00:01Z", true},
		{"0 0 29 2 *", "2036-02-29T00:00:00Z", false},
		{"0 0 29 2 *", "2036-02-29T00:00:01Z", true},
		{"", "2046-10-23T06:00:00Z", false},
		{"1m", "2026-10-23T05:00:00Z", false}, // a clock set back
	}
	for _, test := range tests {
		if got := test.cadence.Overdue(at(t, since), at(t, test.now)); got != test.want {
			t.Errorf("%q at %s: overdue %t, want %t", test.cadence, test.now, got, test.want)
		}
	}
}

// TestIntervalIsCanonical: every spelling of an interval is one cadence, which
// reads as itself.
func TestIntervalIsCanonical(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seconds := rapid.Int64Range(1, 400*24*3600).Draw(t, "seconds")
		want := time.Duration(seconds) * time.Second
		spellings := []string{
			fmt.Sprintf("%ds", seconds), fmt.Sprintf("%dm%ds", seconds/60, seconds%60),
			fmt.Sprintf("%dh%dm%ds", seconds/3600, seconds/60%60, seconds%60), want.String(), fmt.Sprintf("%dms", seconds*1000),
		}
		first, err := pipeline.ParseCadence(spellings[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append(spellings, string(first)) {
			if c, err := pipeline.ParseCadence(s); err != nil || c != first {
				t.Fatalf("ParseCadence(%q) = %q, %v; want %q as for %q", s, c, err, first, spellings[0])
			}
		}
		if d, ok := first.Interval(); !ok || d != want {
			t.Fatalf("%q is %v, %t; want %v", first, d, ok, want)
		}
	})
}

func TestIntervalOfCron(t *testing.T) {
	t.Parallel()
	for _, c := range []pipeline.Cadence{"", "0 3 * * *", "CRON_TZ=UTC 0 3 * * *"} {
		if d, ok := c.Interval(); ok {
			t.Errorf("%q is an interval of %v", c, d)
		}
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	tests := []struct {
		work, tick pipeline.Cadence
		want       bool
	}{
		{"1m", "1m", true},
		{"1m", "5m", false},
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "CRON_TZ=Europe/Berlin 0 6 * * *", true},
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "0 6 * * *", false},
		{"1m", "", true}, // an operator's own run
		{"", "", true},
		{"", "1m", false}, // only when asked
	}
	for _, test := range tests {
		if got := test.work.Due(test.tick); got != test.want {
			t.Errorf("%q.Due(%q) = %t", test.work, test.tick, got)
		}
	}
}

func TestCadences(t *testing.T) {
	t.Parallel()
	pipelines := []pipeline.Pipeline{
		{
			Tables:     []pipeline.Table{{Every: "5m"}, {Every: "1m"}, {Every: "5m"}},
			Dedup:      &pipeline.Dedup{Every: "24h"},
			ReverseETL: []pipeline.Sync{{Every: ""}, {Every: "15m"}},
		},
		{Tables: []pipeline.Table{{Every: "1m"}, {Every: "0 3 * * *"}}},
	}
	got := [][]pipeline.Cadence{
		pipeline.Cadences(pipelines, pipeline.ExtractCadences), pipeline.Cadences(pipelines, pipeline.DedupCadences),
		pipeline.Cadences(pipelines, pipeline.ReverseCadences), pipeline.Cadences(nil, pipeline.ExtractCadences),
	}
	if diff := cmp.Diff([][]pipeline.Cadence{{"5m", "1m", "0 3 * * *"}, {"24h"}, {"15m"}, nil}, got); diff != "" {
		t.Errorf("Cadences (-want +got):\n%s", diff)
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	values := map[string]string{"slug": "acme", "id": "{slug}", "i": "x"}
	tests := map[string]string{
		"org_{slug}":    "org_acme",
		"{slug}_{slug}": "acme_acme",
		"{id}":          "{slug}", // what is filled in is not a template
		"{nope}_{i}":    "{nope}_x",
		"plain":         "plain",
	}
	for template, want := range tests {
		if got := pipeline.Fill(template, values); got != want {
			t.Errorf("Fill(%q) = %q, want %q", template, got, want)
		}
	}
}

func TestProblemString(t *testing.T) {
	t.Parallel()
	got := []string{
		pipeline.Problem{File: "a.yaml", Line: 3, What: "wrong", Remedy: "mend it"}.String(),
		pipeline.Problem{File: "a.yaml", What: "wrong"}.String(),
	}
	if diff := cmp.Diff([]string{"a.yaml:3: wrong; mend it", "a.yaml: wrong"}, got); diff != "" {
		t.Errorf("Problem (-want +got):\n%s", diff)
	}
}

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
	}
	for text, want := range tests {
		if got, err := pipeline.ParseCadence(text); err != nil || got != want {
			t.Errorf("ParseCadence(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"0", "0s", "-5m", "999ms", "soon", "5", "1 d", "1m every", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "@reboot"} {
		if got, err := pipeline.ParseCadence(text); err == nil {
			t.Errorf("ParseCadence(%q) = %q, want an error", text, got)
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
	for _, c := range []pipeline.Cadence{"", "0 3 * * *"} {
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

package tick_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// push is the event the functions framework makes of a push body.
func push(t *testing.T, body string) event.Event {
	t.Helper()
	e := event.New()
	e.SetID("event-1")
	e.SetSource("//pubsub.googleapis.com/projects/p/topics/t")
	e.SetType("google.cloud.pubsub.topic.v1.messagePublished")
	if err := e.SetData(event.ApplicationJSON, []byte(body)); err != nil {
		t.Fatal(err)
	}
	return e
}

func wantPermanent(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	if class, remedy := fault.Classify(err); class != fault.Permanent || remedy == "" {
		t.Errorf("%v is %v with the remedy %q, want permanent with one", err, class, remedy)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	tests := map[string]tick.Message{
		"":                          {},
		" \n\t":                     {},
		"{}":                        {},
		`{"cadence":"60s"}`:         {Cadence: "1m"},
		`{"cadence":" 0 3 * * * "}`: {Cadence: "0 3 * * *"},
		` {"cadence":"1m","pipeline":"shop","tenant":"acme","table":"orders","sync":"customer_scores","full":true,"dry_run":true} `: {
			Cadence: "1m", Pipeline: "shop", Tenant: "acme", Table: "orders", Sync: "customer_scores", Full: true, DryRun: true,
		},
		`{"pipeline":"shop","table":"orders","retry":true}`:                             {Pipeline: "shop", Table: "orders", Retry: true},
		`{"full":true,"retry":false}`:                                                   {Full: true},
		`{"pipeline":"shop","sync":"scores","override":12}`:                             {Pipeline: "shop", Sync: "scores", Override: 12},
		`{"pipeline":"shop","sync":"scores","override":12,"full":true,"tenant":"acme"}`: {Pipeline: "shop", Sync: "scores", Override: 12, Full: true, Tenant: "acme"},
		`{"pipeline":"shop","sync":"scores","override":12,"retry":true}`:                {Pipeline: "shop", Sync: "scores", Override: 12, Retry: true},
		`{"pipeline":"shop","sync":"scores","plan":9223372036854775807}`:                {Pipeline: "shop", Sync: "scores", Plan: 1<<63 - 1},
	}
	for data, want := range tests {
		got, err := tick.Parse([]byte(data))
		if err != nil {
			t.Errorf("Parse(%q): %v", data, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", data, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"no JSON":         "run everything",
		"cut short":       `{"cadence":"1m"`,
		"unknown field":   `{"cadence":"1m","pipelines":"shop"}`,
		"an array":        `[{"cadence":"1m"}]`,
		"a string":        `"1m"`,
		"trailing object": `{"cadence":"1m"}{"cadence":"5m"}`,
		"trailing text":   `{"cadence":"1m"} please`,
		"trailing brace":  `{"cadence":"1m"}}`,
		"cadence number":  `{"cadence":60}`,
		"full as text":    `{"full":"true"}`,
		"table as list":   `{"table":["orders"]}`,
		"unknown cadence": `{"cadence":"soon"}`,
		"cadence too low": `{"cadence":"1ms"}`,
		"retry as text":   `{"retry":"true"}`,
		"full and retry":  `{"full":true,"retry":true}`,

		"override of no run":        `{"pipeline":"shop","sync":"scores","override":-1}`,
		"override as text":          `{"pipeline":"shop","sync":"scores","override":"12"}`,
		"override of half a run":    `{"pipeline":"shop","sync":"scores","override":1.5}`,
		"override without pipeline": `{"sync":"scores","override":12}`,
		"override without sync":     `{"pipeline":"shop","override":12}`,
		"override and dry run":      `{"pipeline":"shop","sync":"scores","override":12,"dry_run":true}`,
		"plan of no run":            `{"pipeline":"shop","sync":"scores","plan":-1}`,
		"plan without pipeline":     `{"sync":"scores","plan":12}`,
		"plan without sync":         `{"pipeline":"shop","plan":12}`,
		"plan and dry run":          `{"pipeline":"shop","sync":"scores","plan":12,"dry_run":true}`,
		"plan and full":             `{"pipeline":"shop","sync":"scores","plan":12,"full":true}`,
		"plan and retry":            `{"pipeline":"shop","sync":"scores","plan":12,"retry":true}`,
		"plan and override":         `{"pipeline":"shop","sync":"scores","plan":12,"override":13}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tick.Parse([]byte(data))
			wantPermanent(t, err)
		})
	}
}

// TestParseNeverTransient: whatever comes is read or is a permanent error.
func TestParseNeverTransient(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		data := []byte(rapid.OneOf(rapid.String(), rapid.StringMatching(`[{}\[\]":,a-z0-9]{0,30}`)).Draw(t, "data"))
		if _, err := tick.Parse(data); err != nil {
			if class, _ := fault.Classify(err); class != fault.Permanent {
				t.Fatalf("%q: %v is %v", data, err, class)
			}
		}
	})
}

// TestMessageRoundTrip: what one instance publishes, another reads.
func TestMessageRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := tick.Message{
			Cadence:  pipeline.Cadence(rapid.SampledFrom([]string{"", "1m", "1h30m", "0 3 * * *"}).Draw(t, "cadence")),
			Pipeline: rapid.String().Draw(t, "pipeline"), Tenant: rapid.String().Draw(t, "tenant"), Table: rapid.String().Draw(t, "table"),
			Sync: rapid.String().Draw(t, "sync"), Full: rapid.Bool().Draw(t, "full"), DryRun: rapid.Bool().Draw(t, "dry_run"),
		}
		want.Retry = !want.Full && rapid.Bool().Draw(t, "retry")
		if want.Pipeline != "" && want.Sync != "" && !want.DryRun {
			want.Override = rapid.Int64Min(0).Draw(t, "override")
			if !want.Full && !want.Retry && want.Override == 0 {
				want.Plan = rapid.Int64Min(0).Draw(t, "plan")
			}
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tick.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
	})
}

func TestDecode(t *testing.T) {
	t.Parallel()
	published := time.Date(2026, 5, 1, 10, 0, 0, 123000000, time.UTC)
	tests := []struct {
		name, body string
		want       tick.Delivery
	}{
		{
			"a tick", `{"subscription":"s","message":{"data":"eyJjYWRlbmNlIjoiNjBzIn0=","messageId":"m-1","publishTime":"2026-05-01T10:00:00.123Z","attributes":{"a":"b"}}}`,
			tick.Delivery{Message: tick.Message{Cadence: "1m"}, ID: "m-1", Published: published, Data: []byte(`{"cadence":"60s"}`)},
		},
		{"no data", `{"message":{"messageId":"m-2"}}`, tick.Delivery{ID: "m-2"}},
		{"empty data, no id", `{"message":{"data":""}}`, tick.Delivery{ID: "event-1", Data: []byte{}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := tick.Decode(push(t, test.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Decode (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecodeRefuses: also what cannot be read says which message it was, and
// keeps the data for the log of runs.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		id, data   string
	}{
		{"no JSON", `data`, "event-1", ""},
		{"empty", ``, "event-1", ""},
		{"an array", `[]`, "event-1", ""},
		{"message is text", `{"message":"x"}`, "event-1", ""},
		{"data is no base64", `{"message":{"data":"{}","messageId":"m"}}`, "event-1", ""},
		{"data is an object", `{"message":{"data":{},"messageId":"m"}}`, "event-1", ""},
		{"publish time is none", `{"message":{"publishTime":"yesterday"}}`, "event-1", ""},
		{"unknown field", `{"message":{"data":"eyJ4IjoxfQ==","messageId":"m"}}`, "m", `{"x":1}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := tick.Decode(push(t, test.body))
			wantPermanent(t, err)
			if got.ID != test.id || string(got.Data) != test.data {
				t.Errorf("delivery %q with data %q, want %q with %q", got.ID, got.Data, test.id, test.data)
			}
		})
	}
}

func TestStale(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	tests := []struct {
		name      string
		cadence   pipeline.Cadence
		published time.Time
		want      bool
	}{
		{"fresh", "1m", now.Add(-time.Minute), false},
		{"just in time", "1m", now.Add(-10 * time.Minute), false},
		{"too old", "1m", now.Add(-10*time.Minute - 1), true},
		{"as old as its interval", "1h30m", now.Add(-90 * time.Minute), false},
		{"older than its interval", "1h30m", now.Add(-90*time.Minute - 1), true},
		{"nightly, of today", "0 3 * * *", now.Add(-24 * time.Hour), false},
		{"nightly, of yesterday", "0 3 * * *", now.Add(-24*time.Hour - 1), true},
		{"from a clock ahead", "1m", now.Add(time.Hour), false},
		{"of unknown age", "1m", time.Time{}, false},
		{"an operator's own run", "", now.Add(-24 * time.Hour), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := tick.Delivery{Message: tick.Message{Cadence: test.cadence}, Published: test.published}
			if got := d.Stale(now); got != test.want {
				t.Errorf("Stale = %t", got)
			}
		})
	}
}

func TestUnknownListsWhatThereIs(t *testing.T) {
	t.Parallel()
	err := tick.Unknown("table", "ordres", []string{"orders", "items"})
	wantPermanent(t, err)
	if _, remedy := fault.Classify(err); !strings.Contains(remedy, "orders, items") {
		t.Errorf("remedy %q", remedy)
	}
}

// TestSkipped: only where the next tick is far off is a held lease worth a retry.
func TestSkipped(t *testing.T) {
	t.Parallel()
	held := errors.New("held")
	for cadence, again := range map[pipeline.Cadence]bool{"": false, "1m": false, "5m": false, "5m1s": true, "24h": true, "0 3 * * *": true} {
		err := tick.Delivery{Message: tick.Message{Cadence: cadence}}.Skipped(held)
		if errors.Is(err, tick.ErrSkipped) == again {
			t.Errorf("Skipped at %q = %v", cadence, err)
		}
		for _, m := range []tick.Message{{Cadence: cadence, Override: 1}, {Cadence: cadence, Plan: 1}} { // which the run under way does not do
			if err := (tick.Delivery{Message: m}).Skipped(held); errors.Is(err, tick.ErrSkipped) {
				t.Errorf("Skipped(%+v) = %v", m, err)
			}
		}
		if class, _ := fault.Classify(err); again && (class != fault.Transient || !errors.Is(err, held) || !fault.IsRecorded(err)) {
			t.Errorf("Skipped at %q = %v, %v", cadence, class, err)
		}
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	all := tick.Message{Table: "t", Sync: "s", Full: true, DryRun: true, Retry: true, Override: 1, Plan: 2}
	for _, field := range []string{"table", "sync", "full", "dry_run", "retry", "override", "plan"} {
		wantPermanent(t, all.Refuse("extract", field))
		if err := (tick.Message{Cadence: "1m", Pipeline: "p", Tenant: "t"}).Refuse("extract", field); err != nil {
			t.Errorf("a message without %s: %v", field, err)
		}
	}
	if err := all.Refuse("extract"); err != nil {
		t.Errorf("nothing to refuse: %v", err)
	}
}

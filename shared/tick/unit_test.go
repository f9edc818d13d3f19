package tick_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
)

func TestDispatch(t *testing.T) {
	t.Parallel()
	tenants := []tick.Tenant{
		{ID: "1", Values: map[string]string{"id": "1", "slug": "acme"}},
		{ID: "2", Values: map[string]string{"id": "2", "slug": "hooli"}},
	}
	plain := pipeline.Pipeline{Name: "plain", Dataset: "d", Tables: []pipeline.Table{{Every: "1m"}}}
	slow := pipeline.Pipeline{Name: "slow", Tables: []pipeline.Table{{Every: "24h"}}}
	fanned := pipeline.Pipeline{Name: "fanned", Dataset: "all", Tables: []pipeline.Table{{Every: "1m"}}, Tenants: &pipeline.Tenants{Query: "q", Dataset: "org_{slug}"}}
	type outcome struct {
		Unit, Dataset string // pipeline/tenant of what is to be done here
		Published     []tick.Message
		Permanent     bool
		Queries       int
	}
	tests := []struct {
		name      string
		pipelines []pipeline.Pipeline
		message   tick.Message
		want      outcome
	}{
		{"nothing due", []pipeline.Pipeline{slow}, tick.Message{Cadence: "1m"}, outcome{}},
		{"nothing declared", nil, tick.Message{Cadence: "1m"}, outcome{}},
		{"one unit is done here", []pipeline.Pipeline{plain, slow}, tick.Message{Cadence: "1m"}, outcome{Unit: "plain/", Dataset: "d"}},
		{"an operator's run ignores cadence", []pipeline.Pipeline{plain, slow}, tick.Message{Pipeline: "slow", Full: true}, outcome{Unit: "slow/"}},
		{
			"several are sent on, with all that the message says",
			[]pipeline.Pipeline{plain, slow},
			tick.Message{Table: "t", Sync: "s", Full: true, DryRun: true},
			outcome{Published: []tick.Message{
				{Pipeline: "plain", Table: "t", Sync: "s", Full: true, DryRun: true},
				{Pipeline: "slow", Table: "t", Sync: "s", Full: true, DryRun: true},
			}},
		},
		{
			"each tenant is a unit",
			[]pipeline.Pipeline{plain, fanned},
			tick.Message{Cadence: "1m"},
			outcome{Queries: 1, Published: []tick.Message{
				{Cadence: "1m", Pipeline: "plain"}, {Cadence: "1m", Pipeline: "fanned", Tenant: "1"}, {Cadence: "1m", Pipeline: "fanned", Tenant: "2"},
			}},
		},
		{"one tenant", []pipeline.Pipeline{plain, fanned}, tick.Message{Cadence: "1m", Pipeline: "fanned", Tenant: "2"}, outcome{Unit: "fanned/2", Dataset: "org_hooli", Queries: 1}},
		{"a tenant of any pipeline", []pipeline.Pipeline{plain, fanned}, tick.Message{Tenant: "1"}, outcome{Unit: "fanned/1", Dataset: "org_acme", Queries: 1}},
		{"no such tenant", []pipeline.Pipeline{fanned}, tick.Message{Tenant: "3"}, outcome{Permanent: true, Queries: 1}},
		{"a tenant of a pipeline without", []pipeline.Pipeline{plain}, tick.Message{Pipeline: "plain", Tenant: "1"}, outcome{Permanent: true}},
		{"no such pipeline", []pipeline.Pipeline{plain, slow}, tick.Message{Pipeline: "plan"}, outcome{Permanent: true}},
		{"not due by name", []pipeline.Pipeline{plain, slow}, tick.Message{Cadence: "1m", Pipeline: "slow"}, outcome{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got outcome
			d := tick.Dispatcher{
				Pipelines: test.pipelines,
				Tenants: func(_ context.Context, query string) ([]tick.Tenant, error) {
					got.Queries++
					if query != "q" {
						t.Errorf("ran %q", query)
					}
					return tenants, nil
				},
				Publish: func(_ context.Context, messages ...tick.Message) error {
					got.Published = append(got.Published, messages...)
					return nil
				},
			}
			unit, err := d.Dispatch(t.Context(), test.message, due)
			if err != nil {
				class, remedy := fault.Classify(err)
				got.Permanent = class == fault.Permanent && remedy != ""
				if !got.Permanent {
					t.Errorf("error %v", err)
				}
			}
			if unit != nil {
				got.Unit, got.Dataset = unit.Pipeline.Name+"/"+unit.Tenant.ID, unit.Dataset()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Dispatch (-want +got):\n%s", diff)
			}
		})
	}
}

func due(p *pipeline.Pipeline, m tick.Message) bool {
	for _, t := range p.Tables {
		if t.Every.Due(m.Cadence) {
			return true
		}
	}
	return false
}

// TestDispatchErrors: what fails on the way is handed up as it is, to be
// classified there.
func TestDispatchErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	two := []pipeline.Pipeline{{Name: "a"}, {Name: "b"}}
	always := func(*pipeline.Pipeline, tick.Message) bool { return true }
	d := tick.Dispatcher{Pipelines: two, Publish: func(context.Context, ...tick.Message) error { return broken }}
	if unit, err := d.Dispatch(t.Context(), tick.Message{}, always); unit != nil || !errors.Is(err, broken) {
		t.Errorf("where publishing fails: %v, %v", unit, err)
	}
	d = tick.Dispatcher{
		Pipelines: []pipeline.Pipeline{{Name: "a", Tenants: &pipeline.Tenants{}}},
		Tenants:   func(context.Context, string) ([]tick.Tenant, error) { return nil, broken },
	}
	if unit, err := d.Dispatch(t.Context(), tick.Message{}, always); unit != nil || !errors.Is(err, broken) {
		t.Errorf("where the tenants cannot be listed: %v, %v", unit, err)
	}
}

// TestDispatchPartly: a pipeline whose tenants cannot be listed, or a tenant
// without a dataset of its own, is an error and holds up nobody else (I7, I8).
func TestDispatchPartly(t *testing.T) {
	t.Parallel()
	fanned := func(name, query string) pipeline.Pipeline {
		return pipeline.Pipeline{Name: name, Tenants: &pipeline.Tenants{Query: query, Dataset: "org_{slug}"}}
	}
	row := func(id, slug string) tick.Tenant {
		return tick.Tenant{ID: id, Values: map[string]string{"id": id, "slug": slug}}
	}
	listed := map[string][]tick.Tenant{
		"good":           {row("1", "acme"), row("2", "hooli")},
		"shared dataset": {row("1", "acme"), row("2", "acme"), row("3", "hooli")},
		"twice":          {row("1", "acme"), row("1", "hooli"), row("2", "initech")},
		"no name":        {row("1", ""), row("2", "a-b"), row("3", "a.b"), row("4", "acme"), row("5", "{id}")},
		"none":           nil,
	}
	tests := []struct {
		name, query string
		tenant      string
		want        []string // tenants sent on, besides the plain pipeline
		refused     int
	}{
		{"all is well", "good", "", []string{"1", "2"}, 0},
		{"nobody", "none", "", nil, 0},
		{"the query fails", "broken", "", nil, 1},
		{"two tenants in one dataset", "shared dataset", "", []string{"3"}, 2},
		{"one tenant twice", "twice", "", []string{"2"}, 2},
		{"names that are none", "no name", "", []string{"4"}, 4},
		{"one of two in one dataset, by name", "shared dataset", "1", nil, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			d := tick.Dispatcher{
				Pipelines: []pipeline.Pipeline{fanned("fanned", test.query), {Name: "plain"}, {Name: "other"}},
				Tenants: func(_ context.Context, query string) ([]tick.Tenant, error) {
					if query == "broken" {
						return nil, errors.New("broken")
					}
					return listed[query], nil
				},
				Publish: func(_ context.Context, messages ...tick.Message) error {
					for _, m := range messages {
						if m.Pipeline == "fanned" {
							got = append(got, m.Tenant)
						}
					}
					if test.tenant == "" && len(messages) != len(test.want)+2 {
						t.Errorf("%d messages: %+v", len(messages), messages)
					}
					return nil
				},
			}
			unit, err := d.Dispatch(t.Context(), tick.Message{Cadence: "1m", Tenant: test.tenant}, func(*pipeline.Pipeline, tick.Message) bool { return true })
			if unit != nil {
				t.Errorf("unit %+v", unit)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("tenants (-want +got):\n%s", diff)
			}
			refused := 0
			if err != nil {
				refused = len(fault.Parts(err))
			}
			if refused != test.refused {
				t.Errorf("%d refused, want %d: %v", refused, test.refused, err)
			}
		})
	}
}

// TestServe: one done line for a unit that a message finished, and none where
// anything failed or the message was only sent on.
func TestServe(t *testing.T) { //nolint:paralleltest // the default logger belongs to the process
	broken := errors.New("broken")
	plain := pipeline.Pipeline{Name: "plain"}
	fanned := pipeline.Pipeline{Name: "fanned", Tenants: &pipeline.Tenants{Dataset: "org_{slug}"}}
	done := func(pipeline, tenant, cadence string, tables float64) string {
		return fmt.Sprintf("INFO done %s/%s %s %v", pipeline, tenant, cadence, tables)
	}
	tests := []struct {
		name      string
		pipelines []pipeline.Pipeline
		message   tick.Message
		work      []error
		want      string // the log
		failures  []string
	}{
		{"done", []pipeline.Pipeline{plain}, tick.Message{Cadence: "1m"}, []error{nil, nil}, done("plain", "", "1m", 2), nil},
		{"done for an operator", []pipeline.Pipeline{plain}, tick.Message{}, []error{nil}, done("plain", "", "", 1), nil},
		{"done for a tenant", []pipeline.Pipeline{fanned}, tick.Message{Cadence: "1m", Tenant: "2"}, []error{nil}, done("fanned", "2", "1m", 1), nil},
		{"another run has one", []pipeline.Pipeline{plain}, tick.Message{}, []error{tick.ErrSkipped, nil}, done("plain", "", "", 1), nil},
		{"another run has all", []pipeline.Pipeline{plain}, tick.Message{}, []error{tick.ErrSkipped}, "", nil},
		{"one failed", []pipeline.Pipeline{plain}, tick.Message{}, []error{nil, broken, tick.ErrSkipped}, "", []string{"plain/: broken"}},
		{"all failed", []pipeline.Pipeline{fanned}, tick.Message{Tenant: "1"}, []error{broken, broken}, "", []string{"fanned/1: broken", "fanned/1: broken"}},
		{
			"to be tried again",
			[]pipeline.Pipeline{plain},
			tick.Message{Cadence: "24h"},
			[]error{nil, tick.Delivery{Message: tick.Message{Cadence: "24h"}}.Skipped(broken)},
			"",
			[]string{"plain/: broken"},
		},
		{"sent on", []pipeline.Pipeline{plain, {Name: "other"}}, tick.Message{}, nil, "", nil},
		{"nothing due", nil, tick.Message{Cadence: "1m"}, nil, "", nil},
		{"a tenant refused", []pipeline.Pipeline{fanned}, tick.Message{}, nil, "", []string{`fanned/3: listing the tenants of fanned: tenant "3" has no name for a dataset: "org_"`}},
	}
	for _, test := range tests { //nolint:paralleltest // as above
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			before := slog.Default()
			defer slog.SetDefault(before)
			slog.SetDefault(telemetry.NewLogger(&out, ""))
			d := tick.Dispatcher{
				Pipelines: test.pipelines,
				Tenants: func(context.Context, string) ([]tick.Tenant, error) {
					return []tick.Tenant{{ID: "1", Values: map[string]string{"slug": "acme"}}, {ID: "2", Values: map[string]string{"slug": "hooli"}}, {ID: "3", Values: map[string]string{"slug": ""}}}, nil
				},
				Publish: func(context.Context, ...tick.Message) error { return nil },
			}
			err := d.Serve(t.Context(), test.message, func(*pipeline.Pipeline, tick.Message) bool { return true },
				func(context.Context, tick.Unit) []error { return test.work })
			var failures []string
			if err != nil {
				for ctx, part := range telemetry.Failures(t.Context(), err) {
					failures = append(failures, scope(ctx, t)+": "+part.Error())
				}
			}
			if diff := cmp.Diff(test.failures, failures); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
			if got := doneLine(t, out.Bytes()); got != test.want {
				t.Errorf("logged %q, want %q", got, test.want)
			}
		})
	}
}

// doneLine is the one line of a log, or "".
func doneLine(t *testing.T, log []byte) string {
	t.Helper()
	if len(log) == 0 {
		return ""
	}
	var line struct {
		Severity, Message, Pipeline, Tenant, Cadence string
		Tables                                       float64
	}
	if err := json.Unmarshal(log, &line); err != nil {
		t.Fatalf("%s: %v", log, err)
	}
	return fmt.Sprintf("%s %s %s/%s %s %v", line.Severity, line.Message, line.Pipeline, line.Tenant, line.Cadence, line.Tables)
}

// scope is pipeline/tenant of what is logged with the context.
func scope(ctx context.Context, t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	telemetry.NewLogger(&out, "").InfoContext(ctx, "x")
	var line struct{ Pipeline, Tenant string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	return line.Pipeline + "/" + line.Tenant
}

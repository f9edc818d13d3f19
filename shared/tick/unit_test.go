package tick_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
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
			"several are sent on, with all that the message says", []pipeline.Pipeline{plain, slow}, tick.Message{Table: "t", Sync: "s", Full: true, DryRun: true},
			outcome{Published: []tick.Message{
				{Pipeline: "plain", Table: "t", Sync: "s", Full: true, DryRun: true},
				{Pipeline: "slow", Table: "t", Sync: "s", Full: true, DryRun: true},
			}},
		},
		{
			"each tenant is a unit", []pipeline.Pipeline{plain, fanned}, tick.Message{Cadence: "1m"},
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

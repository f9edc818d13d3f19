// Package reverse writes the result of a BigQuery query into a Postgres table:
// it runs the query, stages the rows, compares them with the table and applies
// the differences in paced batches. A dry run does all but the last.
package reverse

import (
	"context"
	"log/slog"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// Runner does reverse ETL messages.
type Runner struct {
	tick.Dispatcher // publishes to the reverse ETL topic

	Target    *target.Database
	Control   *controlplane.Store
	Warehouse *warehouse.Client
	Project   string // of BigQuery's datasets
	StandIn   bool   // the syncs have a file of the caller's in place of their source, of which nothing is remembered
}

// Run does the due syncs of the unit, one after the other: they share one
// production database (I10). The error joins those of the syncs that failed;
// the others are done (I7). A notification sends each sync that follows it a message.
func (r *Runner) Run(ctx context.Context, d tick.Delivery) error {
	if d.Ended != nil {
		_, err := r.Follow(ctx, *d.Ended, r.Project)
		return err
	}
	if err := r.check(d.Message); err != nil {
		return err
	}
	anyDue := func(p *pipeline.Pipeline, m tick.Message) bool { return len(due(p, m)) > 0 }
	return r.Serve(ctx, d.Message, anyDue, func(ctx context.Context, u tick.Unit) []error { return r.unit(ctx, u, d) })
}

func (r *Runner) unit(ctx context.Context, u tick.Unit, d tick.Delivery) []error {
	var errs []error
	for _, s := range due(u.Pipeline, d.Message) {
		ctx := telemetry.With(ctx, slog.String("sync", s.Name), slog.String("table", s.Table))
		_, err := r.Sync(ctx, u, s, d)
		errs = append(errs, telemetry.Scope(ctx, err))
	}
	return errs
}

func due(p *pipeline.Pipeline, m tick.Message) []*pipeline.Sync {
	var out []*pipeline.Sync
	for i := range p.ReverseETL {
		s := &p.ReverseETL[i]
		if (m.Sync == "" || s.Name == m.Sync) && (m.Table == "" || s.Table == m.Table) && s.Every.Due(m.Cadence) {
			out = append(out, s)
		}
	}
	return out
}

// check refuses, by name, what a message asks for and no run could give.
func (r *Runner) check(m tick.Message) error {
	var names, tables []string
	var sync, table bool
	for _, p := range r.Pipelines {
		for _, s := range p.ReverseETL {
			names, tables = append(names, s.Name), append(tables, s.Table)
			concerned := m.Pipeline == "" || p.Name == m.Pipeline
			sync = sync || concerned && s.Name == m.Sync
			table = table || concerned && s.Table == m.Table && (m.Sync == "" || s.Name == m.Sync)
		}
	}
	switch {
	case m.Sync != "" && !sync:
		return tick.Unknown("sync", m.Sync, names)
	case m.Table != "" && !table:
		return tick.Unknown("target table", m.Table, tables)
	}
	return nil
}

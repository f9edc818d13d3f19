// Package reverse writes the result of a BigQuery query into a Postgres table:
// it runs the query, stages the rows, compares them with the table and applies
// the differences in paced batches. A dry run does all but the last.
package reverse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/rowwire"
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
}

// Run does the due syncs of the unit, one after the other: they share one
// production database (I10). The error joins those of the syncs that failed;
// the others are done (I7).
func (r *Runner) Run(ctx context.Context, d tick.Delivery) error {
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
		errs = append(errs, telemetry.Scope(ctx, r.sync(ctx, u, s, d)))
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
	case m.Full:
		return fault.Fix(errors.New("full is not served by ReverseETL: every run compares the whole result with the table"), "send the message without full")
	case m.Retry:
		return fault.Fix(errors.New("retry is not served by ReverseETL: every run tries every row"), "send the message without retry")
	case m.Sync != "" && !sync:
		return tick.Unknown("sync", m.Sync, names)
	case m.Table != "" && !table:
		return tick.Unknown("target table", m.Table, tables)
	}
	return nil
}

// Outcome is what a run did, as tidemark.runs keeps it in detail.
type Outcome struct {
	Job       string          `json:"job"` // of BigQuery
	Rows      int64           `json:"rows"`
	Insert    int64           `json:"insert"` // planned, in a dry run; else done
	Update    int64           `json:"update"`
	Unchanged int64           `json:"unchanged"`
	Absent    int64           `json:"absent"`
	Rejected  int64           `json:"rejected"`
	Locked    int64           `json:"locked"`            // held by other transactions, left for a later run
	Samples   []target.Sample `json:"samples,omitempty"` // of a dry run

	bytes int64
	more  bool
}

// sync does one sync under its lease, and records how it went.
func (r *Runner) sync(ctx context.Context, u tick.Unit, s *pipeline.Sync, d tick.Delivery) error {
	unit := controlplane.Unit{Pipeline: u.Pipeline.Name, Tenant: u.Tenant.ID, Table: s.Name}
	run := controlplane.Run{Kind: "reverse_etl", Unit: unit, MessageID: d.ID}
	lease, err := r.Control.Take(ctx, run)
	if errors.Is(err, controlplane.ErrHeld) {
		return d.Skipped(err)
	}
	if err != nil {
		return err
	}
	o := &Outcome{}
	err = r.recorded(ctx, u, s, lease, run, d.DryRun, o)
	lease.Release(ctx) // before the continuation is sent, which would be skipped for it
	if err == nil && o.more {
		err = r.Publish(ctx, tick.Message{Pipeline: unit.Pipeline, Tenant: unit.Tenant, Sync: s.Name})
	}
	return err
}

func (r *Runner) recorded(ctx context.Context, u tick.Unit, s *pipeline.Sync, lease *controlplane.Lease, run controlplane.Run, dry bool, o *Outcome) error {
	id, err := r.Control.StartRun(ctx, run)
	if err != nil {
		return err
	}
	rejects, failure := r.do(lease.Context(), u, s, lease, dry, o)
	return r.finish(ctx, id, run, dry, o, rejects, failure)
}

func (r *Runner) finish(ctx context.Context, id int64, run controlplane.Run, dry bool, o *Outcome, rejects []controlplane.Reject, failure error) error {
	ctx, cancel := controlplane.Ending(ctx)
	defer cancel()
	run.Outcome, run.Detail, run.Read, run.Rejected, run.Bytes = controlplane.OutcomeOK, o, o.Rows, o.Rejected, o.bytes
	if dry {
		run.Outcome = controlplane.OutcomeDryRun
	} else {
		run.Written = o.Insert + o.Update
	}
	if failure != nil {
		failure = fmt.Errorf("reverse sync %s: %w", run.Unit.Table, failure)
	} else {
		slog.InfoContext(ctx, "synced", "dry_run", dry, "rows", o.Rows, "insert", o.Insert, "update", o.Update,
			"unchanged", o.Unchanged, "absent", o.Absent, "rejected", o.Rejected, "locked", o.Locked)
	}
	if failure == nil || len(rejects) > 0 { // a run that failed before it found any says nothing of those there are
		fresh, err := r.Control.RecordRejects(ctx, run.Unit, id, rejects)
		failure = errors.Join(failure, err)
		telemetry.Reject(ctx, fresh) // of the others an earlier run has told
	}
	telemetry.Bill(ctx, o.bytes, o.Job)
	return r.Control.FinishRun(ctx, id, run, failure)
}

// do is the walk from the query to the table. Staging is dropped however it
// ends; if the process dies, by the next run.
func (r *Runner) do(ctx context.Context, u tick.Unit, s *pipeline.Sync, lease *controlplane.Lease, dry bool, o *Outcome) (rejects []controlplane.Reject, err error) {
	result, err := r.Warehouse.Query(ctx, u.Dataset(), pipeline.Fill(s.Query, map[string]string{"dataset": u.Dataset()}),
		map[string]string{"tidemark-pipeline": u.Pipeline.Name, "tidemark-sync": s.Name})
	if result != nil { // the query ran, whatever became of its result
		o.Job, o.bytes = result.Job, result.Bytes
	}
	if err != nil {
		return nil, err
	}
	columns, err := stagedColumns(result.Schema)
	if err != nil {
		return nil, err
	}
	stage, err := target.Open(ctx, r.Target, s, u.Pipeline.Schema, u.Pipeline.Name+"/"+u.Tenant.ID+"/"+s.Name, lease.Token(), columns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Drop(ctx)) }()
	found, err := stageRows(ctx, stage, result, o)
	if err != nil {
		return keep(found, o), err
	}
	plan, err := stage.Plan(ctx)
	found = append(found, plan.Rejects...)
	if err != nil {
		return keep(found, o), err
	}
	o.Insert, o.Update, o.Unchanged, o.Absent = plan.Insert, plan.Update, plan.Unchanged, plan.Absent
	if dry {
		o.Samples, err = stage.Samples(ctx)
		return keep(found, o), err
	}
	applied, err := stage.Apply(ctx, func() bool { return tick.TimeLeft(ctx) })
	o.Insert, o.Update, o.Locked = applied.Inserted, applied.Updated, applied.Locked
	// Without a row written another run would come no further now.
	o.more = !applied.Done && applied.Written() > 0
	if err == nil && !applied.Done && !o.more {
		slog.WarnContext(ctx, "nothing written: other transactions hold the rows; the next tick tries again", "locked", applied.Locked)
	}
	return keep(append(found, applied.Rejects...), o), err
}

func keep(found []target.Reject, o *Outcome) []controlplane.Reject {
	o.Rejected = int64(len(found))
	out := make([]controlplane.Reject, len(found))
	for i, r := range found {
		out[i] = controlplane.Reject{Column: r.Column, Reason: r.Reason, Row: r.Row}
	}
	return out
}

func stagedColumns(schema *arrow.Schema) ([]target.Column, error) {
	out := make([]target.Column, schema.NumFields())
	for i, f := range schema.Fields() {
		typ, err := rowwire.StagingType(f)
		if err != nil {
			return nil, fault.Fix(err, "cast the column in the query")
		}
		out[i] = target.Column{Name: f.Name, Type: typ}
	}
	return out, nil
}

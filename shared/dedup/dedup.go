// Package dedup removes from the logs the versions that newer ones supersede,
// in the partitions that received any since their last clean-up. Readers of the
// views notice nothing (I6).
package dedup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/mapping"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// Runner does dedup messages.
type Runner struct {
	tick.Dispatcher // publishes to the dedup topic

	Source    *cloudsql.Pool
	Control   *controlplane.Store
	Warehouse *warehouse.Client
	HashKey   []byte // of hashed columns; none where there are none
}

// defaultMaxBytes is the cap of a clean-up somebody asks for where the pipeline
// file has no dedup section: 1 TiB.
const defaultMaxBytes = 1 << 40

// Run cleans up the tables the message concerns: those with new versions, or
// with full all of every log. The error joins those of the tables that failed;
// the others are done (I7).
func (r *Runner) Run(ctx context.Context, d tick.Delivery) error {
	if err := d.Refuse("Dedup", "sync", "dry_run", "retry", "override", "plan"); err != nil {
		return err
	}
	if err := r.CheckTable(d.Message); err != nil {
		return err
	}
	return r.Serve(ctx, d.Message, due, func(ctx context.Context, u tick.Unit) []error { return r.unit(ctx, u, d) })
}

func (r *Runner) unit(ctx context.Context, u tick.Unit, d tick.Delivery) []error {
	var errs []error
	for i := range u.Pipeline.Tables {
		t := &u.Pipeline.Tables[i]
		if d.Table == "" || t.Name == d.Table {
			ctx := telemetry.With(ctx, slog.String("table", t.Name))
			errs = append(errs, telemetry.Scope(ctx, r.table(ctx, u, t, d)))
		}
	}
	return errs
}

func due(p *pipeline.Pipeline, m tick.Message) bool {
	if m.Table != "" && p.Table(m.Table) == nil {
		return false
	}
	if m.Cadence == "" {
		return true
	}
	return p.Dedup != nil && p.Dedup.Every.Due(m.Cadence)
}

// work is one run of one table.
type work struct {
	*Runner
	from  tick.Unit
	unit  controlplane.Unit
	spec  *pipeline.Table
	lease *controlplane.Lease
	run   controlplane.Run
}

func (r *Runner) table(ctx context.Context, u tick.Unit, t *pipeline.Table, d tick.Delivery) error {
	unit := controlplane.Unit{Pipeline: u.Pipeline.Name, Tenant: u.Tenant.ID, Table: t.Name}
	dirty, err := r.dirty(ctx, unit, d.Full)
	if err != nil {
		return err
	}
	expiring, err := r.expiring(ctx, u, t, unit, d.Full)
	if err != nil || len(dirty.Partitions) == 0 && !expiring {
		return err
	}
	run := controlplane.Run{Kind: "dedup", Unit: unit, MessageID: d.ID}
	lease, err := r.Control.Take(ctx, run)
	if errors.Is(err, controlplane.ErrHeld) {
		return d.Skipped(err)
	}
	if err != nil {
		return err
	}
	defer lease.Release(ctx)
	w := &work{Runner: r, from: u, unit: unit, spec: t, lease: lease, run: run}
	var failed []error
	if len(dirty.Partitions) > 0 {
		failed = append(failed, w.recorded(ctx, "cleaning up", func(ctx context.Context) (warehouse.Cleanup, error) { return w.clean(ctx, dirty) }))
	}
	if expiring && lease.Context().Err() == nil {
		failed = append(failed, w.expire(ctx))
	}
	return errors.Join(failed...)
}

// recorded does a part of the work under the lease, as a run of the log.
func (w *work) recorded(ctx context.Context, what string, do func(context.Context) (warehouse.Cleanup, error)) error {
	id, err := w.Control.StartRun(ctx, w.run)
	if err != nil {
		return err
	}
	done, failure := do(w.lease.Context())
	if lost := context.Cause(w.lease.Context()); failure != nil && errors.Is(lost, controlplane.ErrLost) {
		failure = errors.Join(lost, failure)
	}
	telemetry.Bill(ctx, done.Bytes, done.Jobs...)
	run := w.run
	run.Outcome, run.Deleted, run.Bytes = controlplane.OutcomeOK, done.Deleted, done.Bytes
	run.Detail = map[string]any{"did": what, "partitions": done.Partitions, "jobs": done.Jobs}
	if failure != nil {
		failure = fmt.Errorf("%s %s: %w", what, w.spec.Name, failure)
	}
	return w.Control.FinishRun(ctx, id, run, failure)
}

// dirty is what there is to clean: with full, the whole of a log that has any
// rows at all.
func (r *Runner) dirty(ctx context.Context, unit controlplane.Unit, full bool) (controlplane.Dirty, error) {
	dirty, err := r.Control.Dirty(ctx, unit)
	if err != nil || !full {
		return dirty, err
	}
	state, err := r.Control.State(ctx, unit)
	if err != nil || state.Position == 0 {
		return controlplane.Dirty{}, err
	}
	dirty.Position = max(dirty.Position, state.Position)
	if !slices.Contains(dirty.Partitions, warehouse.WholeLog) {
		dirty.Partitions = append(dirty.Partitions, warehouse.WholeLog)
	}
	return dirty, nil
}

// target is the table as far as cleaning it up takes. A query declares its key, and
// could be described only with a right to what it reads, which there is no need of here.
func (w *work) target(ctx context.Context, state controlplane.State) (*warehouse.Table, error) {
	t, dataset := w.spec, w.from.Dataset()
	target := mapping.Log(t, dataset, t.Key)
	if t.Query == "" {
		table, err := source.Describe(ctx, w.Source, w.from.Pipeline.Schema, t, w.HashKey)
		if err != nil {
			return nil, err
		}
		key, err := table.CheckKey(t.Key)
		if err != nil {
			return nil, err
		}
		if target, err = mapping.Destination(t, dataset, table, key); err != nil {
			return nil, err
		}
	}
	target.Base = state.Destination
	return target, nil
}

// clean deletes superseded versions and, once BigQuery has finished with a partition,
// forgets that it was dirty.
func (w *work) clean(ctx context.Context, dirty controlplane.Dirty) (warehouse.Cleanup, error) {
	state, err := w.Control.State(ctx, w.unit)
	if err != nil {
		return warehouse.Cleanup{}, err
	}
	target, err := w.target(ctx, state)
	if err != nil {
		return warehouse.Cleanup{}, err
	}
	done, err := w.Warehouse.Dedup(ctx, target, dirty.Partitions, w.maxBytes(), w.labels())
	if dirty.Partitions = done.Partitions; len(done.Partitions) > 0 {
		slog.InfoContext(ctx, "superseded versions deleted", "rows", done.Deleted, "bytes", done.Bytes, "partitions", len(done.Partitions))
		err = errors.Join(err, w.Control.Cleaned(ctx, w.lease, w.unit, dirty))
	}
	return done, err
}

func (w *work) maxBytes() int64 {
	if w.from.Pipeline.Dedup == nil {
		return defaultMaxBytes
	}
	return w.from.Pipeline.Dedup.MaxBytes
}

func (w *work) labels() map[string]string {
	return map[string]string{"tidemark-pipeline": w.from.Pipeline.Name}
}

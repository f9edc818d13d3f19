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
}

// defaultMaxBytes is the cap of a clean-up somebody asks for where the pipeline
// file has no dedup section: 1 TiB.
const defaultMaxBytes = 1 << 40

// Run cleans up the tables the message concerns: those with new versions, or
// with full all of every log. The error joins those of the tables that failed;
// the others are done (I7).
func (r *Runner) Run(ctx context.Context, d tick.Delivery) error {
	if err := d.Refuse("Dedup", "sync", "dry_run"); err != nil {
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

func (r *Runner) table(ctx context.Context, u tick.Unit, t *pipeline.Table, d tick.Delivery) error {
	unit := controlplane.Unit{Pipeline: u.Pipeline.Name, Tenant: u.Tenant.ID, Table: t.Name}
	dirty, err := r.dirty(ctx, unit, d.Full)
	if err != nil || len(dirty.Partitions) == 0 {
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
	id, err := r.Control.StartRun(ctx, run)
	if err != nil {
		return err
	}
	cleanup, failure := r.clean(lease.Context(), u, t, lease, unit, dirty)
	telemetry.Bill(ctx, cleanup.Bytes, cleanup.Jobs...)
	run.Outcome, run.Deleted, run.Bytes = controlplane.OutcomeOK, cleanup.Deleted, cleanup.Bytes
	run.Detail = map[string]any{"partitions": dirty.Partitions, "jobs": cleanup.Jobs}
	if failure != nil {
		failure = fmt.Errorf("cleaning up %s: %w", t.Name, failure)
	}
	return r.Control.FinishRun(ctx, id, run, failure)
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
func (r *Runner) target(ctx context.Context, u tick.Unit, t *pipeline.Table) (*warehouse.Table, error) {
	if t.Query != "" {
		return mapping.Log(t, u.Dataset(), t.Key), nil
	}
	table, err := source.Describe(ctx, r.Source, u.Pipeline.Schema, t, nil)
	if err != nil {
		return nil, err
	}
	key, err := table.CheckKey(t.Key)
	if err != nil {
		return nil, err
	}
	return mapping.Destination(t, u.Dataset(), table, key)
}

// clean deletes and, once BigQuery has finished, forgets what was dirty.
func (r *Runner) clean(ctx context.Context, u tick.Unit, t *pipeline.Table, lease *controlplane.Lease, unit controlplane.Unit, dirty controlplane.Dirty) (warehouse.Cleanup, error) {
	target, err := r.target(ctx, u, t)
	if err != nil {
		return warehouse.Cleanup{}, err
	}
	state, err := r.Control.State(ctx, unit)
	if err != nil {
		return warehouse.Cleanup{}, err
	}
	target.Base = state.Destination
	limit := int64(defaultMaxBytes)
	if u.Pipeline.Dedup != nil {
		limit = u.Pipeline.Dedup.MaxBytes
	}
	done, err := r.Warehouse.Dedup(ctx, target, dirty.Partitions, limit, map[string]string{"tidemark-pipeline": u.Pipeline.Name})
	if err != nil {
		return done, err
	}
	slog.InfoContext(ctx, "superseded versions deleted", "rows", done.Deleted, "bytes", done.Bytes, "partitions", len(dirty.Partitions))
	return done, r.Control.Cleaned(ctx, lease, unit, dirty)
}

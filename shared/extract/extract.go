// Package extract moves changes from Postgres to BigQuery: for every due table
// of a unit it takes the lease, reads what changed in one snapshot, appends it,
// and moves the cursor once the rows are durable.
//
// The order of effects per batch is: rows into a pending stream, the stream
// finalized, its name saved with the cursor it earns, the stream committed, the
// cursor moved with the run's record. A process may die between any two of them
// (I4): an unfinished stream is never seen, a saved one is asked after.
package extract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/mapping"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// Runner does extract messages.
type Runner struct {
	tick.Dispatcher // publishes to the extract topic

	Source    *cloudsql.Pool
	Control   *controlplane.Store
	Warehouse *warehouse.Client
	HashKey   []byte // of hashed columns; none where there are none
}

// tablesAtOnce bounds the tables of a unit that run together: each holds one
// connection for its snapshot and needs another now and then (I10).
const tablesAtOnce = 4

// Run does what the message asks: the unit's due tables, or, where it stands
// for several units, a message to each. The error joins those of the tables
// that failed; the others are done (I7).
func (r *Runner) Run(ctx context.Context, d tick.Delivery) error {
	if err := d.Refuse("Extract", "sync", "dry_run", "override", "plan"); err != nil {
		return err
	}
	if err := r.CheckTable(d.Message); err != nil {
		return err
	}
	anyDue := func(p *pipeline.Pipeline, m tick.Message) bool { return len(due(p, m)) > 0 }
	return r.Serve(ctx, d.Message, anyDue, func(ctx context.Context, u tick.Unit) []error { return r.unit(ctx, u, d) })
}

// due are the tables a message concerns.
func due(p *pipeline.Pipeline, m tick.Message) []*pipeline.Table {
	var out []*pipeline.Table
	for i := range p.Tables {
		t := &p.Tables[i]
		if (m.Table == "" || t.Name == m.Table) && t.Every.Due(m.Cadence) {
			out = append(out, t)
		}
	}
	return out
}

func (r *Runner) unit(ctx context.Context, u tick.Unit, d tick.Delivery) []error {
	var mu sync.Mutex
	var errs []error
	group := errgroup.Group{}
	group.SetLimit(tablesAtOnce)
	run := func(f func() []error) {
		group.Go(func() error {
			failed := f()
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, failed...)
			return nil // I7: the others go on
		})
	}
	slot := false
	for _, t := range due(u.Pipeline, d.Message) {
		if t.Capture.Method == pipeline.MethodWAL {
			slot = true
			continue
		}
		run(func() []error {
			ctx := telemetry.With(ctx, slog.String("table", t.Name))
			return []error{telemetry.Scope(ctx, r.table(ctx, u, t, d))}
		})
	}
	if slot {
		run(func() []error { return r.slot(ctx, u, d) })
	}
	_ = group.Wait()
	r.removeTriggers(ctx, u)
	r.tellLag(ctx, u)
	r.tellStale(ctx, u)
	return errs
}

// removeTriggers drops what was installed for tables that are no longer followed by
// their change log: every write of theirs would go on to be logged, for nobody.
func (r *Runner) removeTriggers(ctx context.Context, u tick.Unit) {
	removed, err := source.RemoveTriggers(ctx, r.Source, r.Control.Pool(), u.Pipeline)
	if err != nil {
		slog.WarnContext(ctx, "removing triggers that nothing needs", "error", err)
	}
	for _, feed := range removed {
		slog.InfoContext(ctx, "removed the triggers of a table that is no longer followed by them", "feed", feed)
	}
}

// tellStale logs the tables of the unit that have gone without success for too long,
// whether they were due or not: of one whose own ticks fail to come, those of the
// others tell (I9). One that never succeeded counts from its first run.
func (r *Runner) tellStale(ctx context.Context, u tick.Unit) {
	ctx, cancel := controlplane.Ending(ctx)
	defer cancel()
	succeeded, now, err := r.Control.Succeeded(ctx, u.Pipeline.Name, u.Tenant.ID)
	if err != nil {
		slog.WarnContext(ctx, "looking for stale tables", "error", err)
		return
	}
	for _, t := range u.Pipeline.Tables {
		if since, ok := succeeded[t.Name]; ok && t.Every.Overdue(since, now) {
			ctx := telemetry.With(ctx, slog.String("table", t.Name))
			telemetry.Emit(ctx, telemetry.Stale, slog.Time("since", since.UTC()), slog.String("every", string(t.Every)))
		}
	}
}

// table brings one table up to date under its lease, and records how it went.
func (r *Runner) table(ctx context.Context, u tick.Unit, t *pipeline.Table, d tick.Delivery) error {
	unit := controlplane.Unit{Pipeline: u.Pipeline.Name, Tenant: u.Tenant.ID, Table: t.Name}
	lease, err := r.Control.Take(ctx, controlplane.Run{Kind: "extract", Unit: unit, MessageID: d.ID})
	if errors.Is(err, controlplane.ErrHeld) {
		return d.Skipped(err)
	}
	if err != nil {
		return err
	}
	w := &work{Runner: r, from: u, unit: unit, spec: t, lease: lease, messageID: d.ID, full: d.Full, retrying: d.Retry}
	more, err := w.run(lease.Context())
	if lost := context.Cause(lease.Context()); errors.Is(lost, controlplane.ErrLost) {
		err = errors.Join(lost, err)
	}
	err = w.finish(ctx, w.waiting(ctx, err))
	lease.Release(ctx)
	if err == nil && more {
		err = r.Publish(ctx, tick.Message{Pipeline: unit.Pipeline, Tenant: unit.Tenant, Table: unit.Table, Retry: w.retrying})
	}
	if err != nil {
		return fmt.Errorf("extracting %s: %w", t.Name, err)
	}
	return nil
}

// work is one run of one table.
type work struct {
	*Runner
	from      tick.Unit
	unit      controlplane.Unit
	spec      *pipeline.Table
	lease     *controlplane.Lease
	messageID string
	full      bool
	retrying  bool // rows that were refused

	capture  source.Capture
	source   *source.Rows
	target   *warehouse.Table
	buffers  warehouse.Buffers
	state    controlplane.State
	runID    int64 // 0: nothing worth a record has happened yet
	warnings []string
	detail   map[string]any // of the run's record
	merging  sync.Mutex     // of chunks that land together
	load     atomic.Bool    // some rows cannot be streamed: from here on the run's batches are loaded
}

// record opens the run's entry in the log when there is something to put in it.
func (w *work) record(ctx context.Context) error {
	if w.runID != 0 {
		return nil
	}
	var err error
	w.runID, err = w.Control.StartRun(ctx, controlplane.Run{Kind: "extract", Unit: w.unit, MessageID: w.messageID, CursorBefore: w.state.Cursor})
	return err
}

// finish closes the entry. A failure is always recorded, with its remedy, even
// when the context of the run is over.
func (w *work) finish(ctx context.Context, failure error) error {
	if w.runID == 0 && failure == nil && len(w.warnings) == 0 {
		return nil
	}
	ctx, cancel := controlplane.Ending(ctx)
	defer cancel()
	if err := w.record(ctx); err != nil {
		return errors.Join(failure, err)
	}
	run := controlplane.Run{Outcome: controlplane.OutcomeOK}
	detail := maps.Clone(w.detail)
	if len(w.warnings) > 0 {
		if detail == nil {
			detail = map[string]any{}
		}
		detail["warnings"] = w.warnings
	}
	if detail != nil {
		run.Detail = detail
	}
	return w.Control.FinishRun(ctx, w.runID, run, failure)
}

// run resolves what an earlier run left, then moves batch after batch, and between
// them what a backfill still has to read. more says that it stopped for the deadline
// with work left.
func (w *work) run(ctx context.Context) (more bool, err error) {
	if w.state, err = w.Control.State(ctx, w.unit); err != nil {
		return false, err
	}
	if err := w.describe(ctx); err != nil {
		return false, err
	}
	if err := w.prepare(ctx, w.source.Table); err != nil {
		return false, err
	}
	if err := w.resolve(ctx); err != nil {
		return false, err
	}
	if err := w.begin(ctx); err != nil {
		return false, err
	}
	for {
		if more, err = w.batch(ctx); err != nil {
			return false, err
		}
		if !more {
			if more, err = w.backfill(ctx); err != nil {
				return false, err
			}
		}
		if !more {
			err := w.settle(ctx)
			return w.retrying, err
		}
		if !tick.TimeLeft(ctx) {
			return true, nil
		}
	}
}

// settle does what is to be done once there is nothing more to move.
func (w *work) settle(ctx context.Context) error {
	if err := w.retry(ctx); err != nil || w.retrying {
		return err
	}
	return w.goLive(ctx)
}

// goLive has what people query show the table, where that is another one than before:
// once all of it is there.
func (w *work) goLive(ctx context.Context) error {
	if w.state.Live || !w.whole() {
		return nil
	}
	retired, err := w.Warehouse.GoLive(ctx, w.target)
	if err != nil {
		return err
	}
	if err := w.Control.WentLive(ctx, w.lease, w.unit); err != nil {
		return err
	}
	w.state.Live = true
	left := "the table before is still there: drop it when nothing needs it"
	if retired != "" {
		left = "the table before is now " + retired + ": drop it when nothing needs it"
	}
	w.warn(ctx, fmt.Sprintf("%s now shows %s; %s", w.target.Name, w.target.BaseName(), left))
	return nil
}

// whole reports whether the destination has every row of the table.
func (w *work) whole() bool {
	if w.spec.Capture.Method == pipeline.MethodSnapshot {
		return w.state.Cursor != nil
	}
	return w.state.Backfill != nil && w.state.Backfill.Finished
}

// describe reads what the table is now, and what its declaration makes of it.
func (w *work) describe(ctx context.Context) error {
	table, err := source.Describe(ctx, w.Source, w.from.Pipeline.Schema, w.spec, w.HashKey)
	if err != nil {
		return err
	}
	if err := table.Readable(); err != nil {
		return err
	}
	rows := source.Rows{Table: table, Key: w.spec.Key, Deletes: w.spec.Deletes != pipeline.DeletesIgnore}
	if tenants := w.from.Pipeline.Tenants; tenants != nil { // I8
		rows.Filters = []source.Filter{{Column: tenants.Column, Value: w.from.Tenant.ID}}
	}
	if w.source, err = source.NewRows(rows); err != nil {
		return err
	}
	w.capture, w.warnings, err = source.NewCapture(ctx, source.Spec{
		Pipeline: w.from.Pipeline, Table: w.spec, Rows: w.source, Source: w.Source, Control: w.Control.Pool(),
	})
	if err != nil {
		return err
	}
	w.target, err = mapping.Destination(w.spec, w.from.Dataset(), table, w.source.Key)
	if err != nil {
		return err
	}
	w.target.Base = w.state.Destination
	return mapping.CheckContract(w.spec, w.target)
}

// prepare makes the destination fit when the source has changed shape, and only
// then: an idle tick makes no call to BigQuery.
func (w *work) prepare(ctx context.Context, table *catalog.Table) error {
	fingerprint := mapping.Fingerprint(table, w.target, w.capture.Basis())
	if w.state.Fingerprint == fingerprint {
		w.warnings = nil // they were given when the shape was new
		return nil
	}
	for _, warning := range w.warnings {
		slog.WarnContext(ctx, "the table should be mended", "warning", warning)
	}
	shape := mapping.ShapeOf(table, w.target)
	reread, err := w.drift(ctx, &shape)
	if err != nil {
		return err
	}
	p := controlplane.Preparation{Fingerprint: fingerprint, Reread: reread != ""}
	if p.Shape, err = json.Marshal(shape); err != nil {
		return fmt.Errorf("writing the shape of the table: %w", err)
	}
	placed, err := w.Warehouse.Ensure(ctx, w.target)
	if err != nil {
		return err
	}
	w.target.Base, p.Destination, p.Live = placed.Base, placed.Base, placed.Live
	p.Basis = w.capture.Basis() + " into " + placed.Identity
	if w.state.Basis != "" && w.state.Basis != p.Basis || p.Reread {
		if err := w.forget(ctx); err != nil {
			return err
		}
	}
	before := w.state.Generation
	if w.state, err = w.Control.Prepared(ctx, w.lease, w.unit, p); err != nil {
		return err
	}
	switch {
	case w.state.Generation == before:
	case reread != "":
		w.warn(ctx, "the table is read again: "+reread)
	default:
		w.warn(ctx, "the table is loaded anew: its cursor, key or destination is another one")
	}
	return nil
}

// forget makes sure that no batch of before lands once the table is loaded anew: one may
// be on its way yet (I5).
func (w *work) forget(ctx context.Context) error {
	pending, err := w.pending(ctx)
	if err != nil {
		return err
	}
	for place, p := range pending {
		if err := w.Warehouse.Forget(ctx, w.target, w.batchOf(place, *p)); err != nil {
			return fmt.Errorf("giving up an interrupted commit: %w", err)
		}
	}
	return nil
}

// drift looks what has happened to the columns since the destination was made to fit.
// Where the table is loaded anew whatever that is, a change that BigQuery cannot follow
// is none of the rows that come.
func (w *work) drift(ctx context.Context, now *mapping.Shape) (reread string, err error) {
	if w.state.Shape == nil {
		return "", nil
	}
	var before mapping.Shape
	if err := json.Unmarshal(w.state.Shape, &before); err != nil {
		return "", fmt.Errorf("reading the shape of the table: %w", err)
	}
	now.Inherit(before)
	anew := !strings.HasPrefix(w.state.Basis, w.capture.Basis()+" into ") && w.spec.SchemaChanges != pipeline.SchemaStop
	if w.state.Cursor == nil || anew {
		return "", nil
	}
	reread, stopped := now.Since(before).Follow(w.spec.SchemaChanges, w.spec.Name)
	if stopped == nil {
		return reread, nil
	}
	dropped, err := w.Warehouse.Dropped(ctx, w.target)
	if err != nil || dropped {
		return "", err
	}
	if _, ok := w.capture.(*source.Keyed); ok {
		// A stopped table must not stop the application, whose writes fail while the
		// triggers name a key column that is gone (I10).
		if _, err := w.capture.Start(ctx, w.Source); err != nil {
			return "", errors.Join(stopped, err)
		}
	}
	return "", stopped
}

// warn logs what an operator should know of the run and puts it into its record.
func (w *work) warn(ctx context.Context, warning string) {
	slog.WarnContext(ctx, "the table needs attention", "warning", warning, "generation", w.state.Generation)
	w.warnings = append(w.warnings, warning)
}

// batch moves the rows of one read: what changed since the cursor, at most about
// BatchRows of it. more says that there is further.
func (w *work) batch(ctx context.Context) (more bool, err error) {
	read, err := w.capture.Begin(ctx, w.Source, w.state.Cursor)
	if lost, ok := errors.AsType[*source.LostError](err); ok {
		return true, w.startOver(ctx, lost.Reason, "")
	}
	if err != nil {
		return false, err
	}
	defer read.Close(ctx)
	if read.Unchanged() {
		read.Close(ctx) // its connection first: never wait for a second one
		return false, w.Control.Touch(ctx, w.lease, w.unit, w.state.Cursor)
	}
	position := max(w.state.Position+1, read.At().UnixMicro())
	l := &landing{work: w, place: controlplane.Place{Unit: w.unit}, read: read, position: position, buffers: &w.buffers}
	if w.spec.Capture.Method == pipeline.MethodSnapshot { // whatever was refused before is read again
		if l.resolved, err = w.refused(ctx); err != nil {
			return false, err
		}
	}
	result, err := l.land(ctx)
	if lost, ok := errors.AsType[*source.LostError](err); ok {
		read.Close(ctx)
		return true, w.startOver(ctx, lost.Reason, "")
	}
	if errors.Is(err, errUnstreamable) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if result.Trim {
		w.trim(ctx, result.Cursor)
	}
	return result.More, nil
}

// waiting turns what only has to wait for a later run into no error. What waits for
// max_staleness is as current as was asked for: that is no silence.
func (w *work) waiting(ctx context.Context, err error) error {
	stale := errors.Is(err, warehouse.ErrStale)
	if !stale && !errors.Is(err, warehouse.ErrInUse) {
		return err
	}
	slog.InfoContext(ctx, "the table waits", "reason", err)
	if stale {
		return w.Control.Touch(ctx, w.lease, w.unit, w.state.Cursor)
	}
	return nil
}

// trim has the source forget what was consumed, and what it keeps for tenants that are
// not followed. What cannot be forgotten now is by the next.
func (w *work) trim(ctx context.Context, cursor json.RawMessage) {
	err := w.capture.Trim(ctx, w.Source, cursor)
	if keyed, ok := w.capture.(*source.Keyed); ok && err == nil && w.from.Pipeline.Tenants != nil {
		_, err = keyed.Purge(ctx, w.Source, func(ctx context.Context) ([]string, error) { return w.Control.Tenants(ctx, w.unit.Pipeline) })
	}
	if err != nil {
		slog.WarnContext(ctx, "trimming what was consumed", "error", err)
	}
}

// resolve settles the batches that were saved before their commit and whose run died
// or lost its answer: the commit is made, if it was not, and the cursor moves. Only a
// stream that can no longer be committed is given up, and its rows read again.
func (w *work) resolve(ctx context.Context) error {
	pending, err := w.pending(ctx)
	if err != nil {
		return err
	}
	for place, p := range pending {
		if err := w.resolvePlace(ctx, place, *p); err != nil {
			return fmt.Errorf("resolving an interrupted commit: %w", err)
		}
	}
	return nil
}

// pending are the batches whose commit is not known to have happened.
func (w *work) pending(ctx context.Context) (map[controlplane.Place]*controlplane.Pending, error) {
	out := map[controlplane.Place]*controlplane.Pending{}
	if w.state.Pending != nil {
		out[controlplane.Place{Unit: w.unit}] = w.state.Pending
	}
	if b := w.state.Backfill; b != nil && !b.Finished {
		chunks, err := w.Control.Chunks(ctx, w.unit)
		if err != nil {
			return nil, err
		}
		for _, c := range chunks {
			if c.Pending != nil {
				out[controlplane.Place{Unit: w.unit, Chunk: c.ID}] = c.Pending
			}
		}
	}
	return out, nil
}

func (w *work) resolvePlace(ctx context.Context, place controlplane.Place, p controlplane.Pending) error {
	if err := w.record(ctx); err != nil {
		return err
	}
	committed := p.Stream == ""
	if !committed {
		var err error
		if committed, err = w.Warehouse.Settle(ctx, w.target, w.batchOf(place, p)); err != nil {
			return err
		}
	}
	slog.InfoContext(ctx, "resolved an interrupted commit", "committed", committed, "rows", p.Rows, "chunk", place.Chunk)
	if !committed {
		if err := w.Control.DiscardPending(ctx, w.lease, place, p); err != nil {
			return err
		}
		if place.Chunk == 0 {
			w.state.Position, w.state.Pending = max(w.state.Position, p.Position), nil
		}
		return nil
	}
	p.RunID = w.runID // the run that earned it is over; this one records it
	return w.settled(ctx, place, p, nil)
}

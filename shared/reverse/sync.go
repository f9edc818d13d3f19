package reverse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// walk is one run of one sync, from the source to the table.
type walk struct {
	*Runner

	unit    tick.Unit
	own     controlplane.Unit
	sync    *pipeline.Sync
	message tick.Message
	lease   *controlplane.Lease
	o       *Outcome

	state    controlplane.SyncState
	allowed  allowance
	approved Outcome // the dry run whose plan is applied
	end      controlplane.SyncEnd
}

// Sync does one sync for a unit as the message says, under its lease, and records how
// it went. The outcome is nil where another run holds the lease, or has applied the plan
// that the message names; with an error it says what is known.
func (r *Runner) Sync(ctx context.Context, u tick.Unit, s *pipeline.Sync, d tick.Delivery) (*Outcome, error) {
	w := &walk{Runner: r, unit: u, sync: s, message: d.Message, o: &Outcome{Override: d.Override, Plan: d.Plan, StandIn: r.StandIn}}
	w.own = controlplane.Unit{Pipeline: u.Pipeline.Name, Tenant: u.Tenant.ID, Table: s.Name}
	run := controlplane.Run{Kind: "reverse_etl", Unit: w.own, MessageID: d.ID}
	var err error
	w.lease, err = r.Control.Take(ctx, run)
	if errors.Is(err, controlplane.ErrHeld) {
		return nil, d.Skipped(err)
	}
	if err != nil {
		return nil, err
	}
	err = w.recorded(ctx, run)
	w.lease.Release(ctx) // before the continuation is sent, which would be skipped for it
	if errors.Is(err, errApplied) {
		slog.InfoContext(ctx, "the plan has been applied by another run", "plan", d.Plan, "by", w.allowed.used)
		return nil, nil //nolint:nilnil // nothing was done, and nothing is wrong
	}
	if err == nil && w.o.More {
		next := d.Message // not w.message: what it takes over from a plan, it does again
		next.Cadence, next.Since = "", time.Time{}
		next.Pipeline, next.Tenant, next.Table, next.Sync = w.own.Pipeline, w.own.Tenant, "", s.Name
		err = r.Publish(ctx, next)
	}
	return w.o, err
}

// errApplied says that the plan of the message has been applied.
var errApplied = errors.New("the plan has been applied")

func (w *walk) recorded(ctx context.Context, run controlplane.Run) error {
	var err error
	if w.allowed, w.approved, err = w.Runner.allowed(ctx, w.own, w.message); err != nil {
		return fault.Recorded(errors.Join(err, w.refused(ctx, run, err)))
	}
	if w.message.Plan != 0 {
		if w.allowed.used != 0 { // the message came twice
			return errApplied
		}
		w.message.Full, w.message.Retry = w.approved.Full, w.approved.Retry
	}
	w.o.Full, w.o.Retry = w.message.Full, w.message.Retry
	if w.o.Run, err = w.Control.StartRun(ctx, run); err != nil {
		return err
	}
	return w.finish(ctx, run, w.do(w.lease.Context()))
}

// refused records a message that refers to no run that it could.
func (w *walk) refused(ctx context.Context, run controlplane.Run, cause error) error {
	run.Outcome, run.Error = controlplane.OutcomeFailed, cause.Error()
	_, run.Remedy = fault.Classify(cause)
	return w.Control.RecordRun(ctx, run)
}

func (w *walk) finish(ctx context.Context, run controlplane.Run, failure error) error {
	o := w.o
	run.Outcome, run.Detail, run.Read, run.Rejected, run.Bytes = controlplane.OutcomeOK, o, o.Rows, o.Rejected, o.bytes
	switch {
	case o.DryRun:
		run.Outcome = controlplane.OutcomeDryRun
	case o.applied:
		run.Written, run.Deleted = o.Insert+o.Update, o.Delete
	}
	if failure != nil {
		failure = fmt.Errorf("reverse sync %s: %w", run.Unit.Table, failure)
	} else {
		slog.InfoContext(ctx, "synced", "dry_run", o.DryRun, "rows", o.Rows, "insert", o.Insert, "update", o.Update, "delete", o.Delete,
			"unchanged", o.Unchanged, "absent", o.Absent, "rejected", o.Rejected, "locked", o.Locked, "paused_s", o.Paused, "brakes", len(o.Brakes))
	}
	ended, cancel := controlplane.Ending(ctx)
	defer cancel()
	fresh, err := w.Control.FinishSync(ended, w.lease, o.Run, run, w.end, failure)
	telemetry.Reject(ctx, fresh) // of the others an earlier run has told
	telemetry.Bill(ctx, o.bytes, o.Job)
	return err
}

// do is the walk itself. Staging is dropped however it ends; if the process dies, by the
// next run.
func (w *walk) do(ctx context.Context) (err error) {
	if w.state, err = w.Control.SyncState(ctx, w.own); err != nil {
		return err
	}
	scoped, err := w.scoped(ctx)
	if err != nil {
		return err
	}
	in, err := w.open(ctx)
	if in != nil {
		defer func() { err = errors.Join(err, in.close()) }()
	}
	if err != nil {
		return err
	}
	w.o.Whole = in.whole
	stage, err := target.Open(ctx, w.Target, scoped, w.unit.Pipeline.Schema, w.own.Pipeline+"/"+w.own.Tenant+"/"+w.own.Table, w.lease.Token(), in.columns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Drop(ctx)) }()
	found, err := stageRows(ctx, stage, in, w.o)
	in.unstaged = found
	if err != nil {
		return w.met(found, err)
	}
	plan, err := stage.Plan(ctx, target.Extent{Whole: in.whole, Unstaged: len(found)})
	w.o.planned(plan)
	if found = append(found, plan.Rejects...); err != nil {
		return w.met(found, err)
	}
	if err := w.countSource(ctx); err != nil {
		return err
	}
	if err := w.brake(); err != nil || w.o.DryRun {
		return w.preview(ctx, stage, found, err)
	}
	if err := w.check(ctx, stage); err != nil {
		return err
	}
	applied, err := stage.Apply(ctx, func() bool { return tick.TimeLeft(ctx) })
	w.applied(ctx, applied)
	if err = w.met(append(found, applied.Rejects...), err); err == nil {
		err = w.settle(ctx, in, stage, applied.Done)
	}
	return errors.Join(err, w.rest(ctx, stage), w.unfinished())
}

// met notes the rows that were refused, to be kept.
func (w *walk) met(found []target.Reject, err error) error {
	w.o.Rejected, w.end.Rejects = int64(len(found)), keep(found)
	return err
}

// scoped is the sync with its rows narrowed to those of the tenant (I8).
func (w *walk) scoped(ctx context.Context) (*pipeline.Sync, error) {
	tenants := w.unit.Pipeline.Tenants
	if tenants == nil {
		return w.sync, nil
	}
	has, err := target.HasColumn(ctx, w.Target, w.unit.Pipeline.Schema, w.sync.Table, tenants.Column)
	if err != nil {
		return nil, err
	}
	if !has && w.sync.Mode == pipeline.ModeMirror {
		return nil, fault.Fix(fmt.Errorf("table %s has no column %s, so that a mirror of one tenant would delete the rows of the others", w.sync.Table, tenants.Column),
			"add the column, or use mode upsert")
	}
	s := *w.sync
	if has {
		s.Where = target.Within(s.Where, tenants.Column, w.unit.Tenant.ID)
	}
	return &s, nil
}

// countSource counts the rows of a source of which only a part was read, where some are to
// be deleted: that it is empty, or half of what it was, is no less a mistake then.
func (w *walk) countSource(ctx context.Context) error {
	if w.o.Whole || w.o.Delete == 0 {
		return nil
	}
	rows, bytes, err := w.Warehouse.Count(ctx, w.source())
	w.o.Source = &rows
	w.o.bytes += bytes
	return err
}

// brake decides whether the plan may be applied: the error of brakes that are on, or
// nil, with DryRun set if it is only to be shown.
func (w *walk) brake() error {
	w.o.Brakes = append(w.o.Brakes, brakes(w.sync, w.o, w.state.Rows)...)
	if w.o.DryRun = w.dry(); w.o.DryRun {
		return nil
	}
	var on []Brake
	for _, b := range w.o.Brakes {
		if !w.allowed.allows(b) {
			on = append(on, b)
		}
	}
	if w.o.Brakes = on; len(on) > 0 {
		return stopped(w.own, w.o, on, w.allowed)
	}
	return nil
}

// dry reports whether the run only shows what it would do.
func (w *walk) dry() bool { return w.message.DryRun || w.sync.Approve && w.message.Plan == 0 }

// preview shows what would be done, and leaves everything as it is, the rows refused
// before among it.
func (w *walk) preview(ctx context.Context, stage *target.Staging, found []target.Reject, stopped error) error {
	w.o.Rejected, w.o.Rejects = int64(len(found)), found[:min(len(found), shownRejects)]
	var err error
	if w.o.Samples, err = stage.Samples(ctx); err != nil {
		return errors.Join(stopped, err)
	}
	if w.o.Digest, err = stage.Digest(ctx); err != nil {
		return errors.Join(stopped, err)
	}
	w.end.Kept = true
	if !w.message.DryRun && stopped == nil && w.o.Written() > 0 && !w.o.StandIn {
		slog.WarnContext(ctx, "the plan awaits approval", "plan", w.o.Run, "remedy", unapproved(w.own, w.o.Run))
	}
	return stopped
}

// check refuses an approved plan that is no longer the plan.
func (w *walk) check(ctx context.Context, stage *target.Staging) error {
	if w.message.Plan == 0 {
		return nil
	}
	digest, err := stage.Digest(ctx)
	if err != nil {
		return err
	}
	if digest != w.approved.Digest {
		w.end.Kept = true
		return fault.Fix(fmt.Errorf("the plan of run %d is no longer what would be done: the source or the table has changed since", w.message.Plan),
			"run it dry again, and approve that plan")
	}
	return nil
}

// applied takes over what was done in place of what was planned.
func (w *walk) applied(ctx context.Context, a target.Applied) {
	w.o.applied = true
	w.o.Insert, w.o.Update, w.o.Delete, w.o.Locked, w.o.Paused = a.Inserted, a.Updated, a.Deleted, a.Locked, a.Paused.Seconds()
	// Without a row written another run would come no further now.
	w.o.Left = !a.Done
	w.o.More = !a.Done && a.Written() > 0
	if !a.Done && !w.o.More {
		slog.WarnContext(ctx, "nothing written: other transactions hold the rows, or the database is busy; the next tick tries again", "locked", a.Locked, "paused_s", w.o.Paused)
	}
}

// rest notes what is left of an approved plan, however the apply has ended, so that it can
// be sent for again.
func (w *walk) rest(ctx context.Context, stage *target.Staging) (err error) {
	if w.end.Plan = w.message.Plan; w.end.Plan == 0 {
		return nil
	}
	ctx, cancel := controlplane.Ending(ctx)
	defer cancel()
	w.end.Rest, err = stage.Digest(ctx)
	return err
}

// unfinished is the error of a run that a person asked for and that came no further now:
// the message has to come again.
func (w *walk) unfinished() error {
	m := w.message
	if !w.o.Left || w.o.More || m.Override == 0 && m.Plan == 0 && !m.Full && !m.Retry {
		return nil
	}
	return &fault.Error{Class: fault.Transient, Err: errors.New("nothing could be written: other transactions hold the rows, or the database is busy")}
}

// settle notes where the sync stands after the plan was applied: only once all of it
// was, does the next run begin behind it (I1).
func (w *walk) settle(ctx context.Context, in *input, stage *target.Staging, done bool) error {
	if in.confirm != nil {
		if err := in.confirm(ctx, stage, done); err != nil {
			return err
		}
	}
	w.end.Whole = in.whole
	switch {
	case !done, in.standIn:
		w.end.Kept = true // of rows that were not read again, or are from elsewhere
	case w.message.Retry: // the others were not looked at
	default:
		w.end.Full = in.whole && w.o.Withheld == ""
		w.end.State = &controlplane.SyncState{Mapping: w.mapping(), Position: in.next(), Rows: cmp.Or(w.o.sourceRows(), w.state.Rows)}
	}
	return nil
}

// full reports whether every row of the source is to be compared with the table. A
// ledger knows by itself what it has told of, the others by the position they came to.
func (w *walk) full() bool {
	unknown := w.state.Mapping != w.mapping() || w.state.Position == nil && w.sync.Changes != pipeline.ChangesLedger
	old := w.sync.FullEvery > 0 && (w.state.FullAge == nil || *w.state.FullAge >= w.sync.FullEvery)
	return w.sync.Changes == pipeline.ChangesFull || w.message.Full || unknown || old
}

package extract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pgoutput"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/wal"
)

// completeRows is how many rows a batch leaves out before it reads them from the table.
const completeRows = 10_000

// slotUnit is the name of the lease of a pipeline's slot, which is read for all of its
// tables together.
const slotUnit = "(slot)"

// logged is a table of the slot on its run.
type logged struct {
	work
	wal        *source.WAL
	membership wal.Membership
	at         source.LogPosition
	err        error // why it is left out of the rest of the run; the others go on (I7)
	landing    *landing
	batch      *source.LogBatch
	result     source.Result
	truncated  bool // since its partitions were looked at, and nothing was written after
	again      bool // what it has in this pull is taken from the next
}

// slot is one run of the tables that are followed by a pipeline's slot.
type slot struct {
	*Runner
	from   tick.Unit
	lease  *controlplane.Lease
	tables []*logged
	state  wal.Slot
	limit  int // messages of the next pull; 0: the tables say
}

// followed are the tables of a pipeline that its slot has.
func followed(p *pipeline.Pipeline) (out []*pipeline.Table) {
	for i := range p.Tables {
		if p.Tables[i].Capture.Method == pipeline.MethodWAL {
			out = append(out, &p.Tables[i])
		}
	}
	return out
}

// slot brings all tables of the pipeline's slot up to date under one lease, and
// records how each went. It returns an error for each, nil for one that is done.
func (r *Runner) slot(ctx context.Context, u tick.Unit, d tick.Delivery) []error {
	tables := followed(u.Pipeline)
	errs := make([]error, len(tables))
	all := func(err error) []error {
		for i := range errs {
			errs[i] = telemetry.Scope(telemetry.With(ctx, slog.String("table", tables[i].Name)), err)
		}
		return errs
	}
	unit := controlplane.Unit{Pipeline: u.Pipeline.Name, Tenant: u.Tenant.ID, Table: slotUnit}
	lease, err := r.Control.Take(ctx, controlplane.Run{Kind: "extract", Unit: unit, MessageID: d.ID})
	if errors.Is(err, controlplane.ErrHeld) {
		return all(d.Skipped(err))
	}
	if err != nil {
		return all(err)
	}
	defer lease.Release(ctx)
	s := &slot{Runner: r, from: u, lease: lease}
	for _, t := range tables {
		own := unit
		own.Table = t.Name
		// Its own lease, too: another version may follow the table by another method (I5).
		held, err := r.Control.Take(ctx, controlplane.Run{Kind: "extract", Unit: own, MessageID: d.ID})
		if errors.Is(err, controlplane.ErrHeld) {
			return all(d.Skipped(err))
		}
		if err != nil {
			return all(err)
		}
		defer held.Release(ctx)
		full := d.Full && (d.Table == "" || d.Table == t.Name)
		s.tables = append(s.tables, &logged{work: work{Runner: r, from: u, unit: own, spec: t, lease: held, messageID: d.ID, full: full, retrying: d.Retry && (d.Table == "" || d.Table == t.Name)}})
	}
	more, err := s.run(lease.Context())
	if lost := context.Cause(lease.Context()); errors.Is(lost, controlplane.ErrLost) {
		err = errors.Join(lost, err)
	}
	for i, t := range s.tables {
		ctx := t.context(ctx)
		failure := errors.Join(err, t.waiting(ctx, t.err))
		t.detail = map[string]any{"slot": s.state.Name, "lag_bytes": s.state.Lag}
		if failure = t.finish(ctx, failure); failure != nil {
			errs[i] = telemetry.Scope(ctx, fmt.Errorf("extracting %s: %w", t.spec.Name, failure))
		}
	}
	if err == nil && more {
		next := []tick.Message{{Pipeline: unit.Pipeline, Table: tables[0].Name}}
		for _, t := range s.tables {
			if t.retrying && t.err == nil {
				next = append(next, tick.Message{Pipeline: unit.Pipeline, Table: t.spec.Name, Retry: true})
			}
		}
		if err := r.Publish(ctx, next...); err != nil {
			return all(err)
		}
	}
	return errs
}

func (t *logged) context(ctx context.Context) context.Context {
	return telemetry.With(ctx, slog.String("table", t.spec.Name))
}

// each does something for every table that is not left out, and leaves out those that
// fail.
func (s *slot) each(ctx context.Context, f func(context.Context, *logged) error) {
	for _, t := range s.tables {
		if t.err == nil {
			t.err = f(t.context(ctx), t)
		}
	}
}

// run brings every table to where the log ends. An error is that of all of them; more
// says that it stopped for the deadline with work left.
func (s *slot) run(ctx context.Context) (more bool, err error) {
	if err := s.begin(ctx); err != nil {
		return false, err
	}
	for {
		// What is durable already is confirmed first: a server that crashed may have
		// gone back behind it.
		if _, err := s.confirm(ctx); err != nil {
			return false, err
		}
		pulled, err := s.pull(ctx)
		if err != nil {
			return false, err
		}
		confirmed, err := s.confirm(ctx)
		if err != nil {
			return false, err
		}
		if confirmed >= pulled.Upto {
			s.limit = 0
		}
		more = pulled.More
		if !more {
			s.each(ctx, func(ctx context.Context, t *logged) error {
				left, err := t.backfill(ctx)
				if more = more || left; err != nil || left {
					return err
				}
				err = t.settle(ctx)
				more = more || t.retrying
				return err
			})
		}
		if !more || !tick.TimeLeft(ctx) {
			return more, nil
		}
	}
}

// begin describes the tables, has the slot fit them, settles what an earlier run left,
// and starts what is not followed yet, or has a gap.
func (s *slot) begin(ctx context.Context) error {
	if err := wal.Check(ctx, s.Source); err != nil {
		return err
	}
	s.each(ctx, func(ctx context.Context, t *logged) error { return t.look(ctx) })
	if err := s.ensure(ctx); err != nil {
		return err
	}
	s.each(ctx, func(ctx context.Context, t *logged) error {
		if t.membership.Err != nil {
			return t.membership.Err
		}
		if err := t.prepare(ctx, t.source.Table); err != nil {
			return err
		}
		if err := t.resolve(ctx); err != nil {
			return err
		}
		return t.start(ctx, s.state)
	})
	return nil
}

// look reads what the table is, before anything is made to fit it.
func (t *logged) look(ctx context.Context) error {
	var err error
	if t.state, err = t.Control.State(ctx, t.unit); err != nil {
		return err
	}
	if err := t.describe(ctx); err != nil {
		return err
	}
	var ok bool
	if t.wal, ok = t.capture.(*source.WAL); !ok {
		return fmt.Errorf("table %s is not followed by the log", t.spec.Name)
	}
	return nil
}

// ensure makes publication and slot fit the tables that could be described. One that
// could not for now stays in it; one that never can be leaves.
func (s *slot) ensure(ctx context.Context) error {
	var members []wal.Member
	var of []*logged
	for _, t := range s.tables {
		if t.err != nil {
			if class, _ := fault.Classify(t.err); class == fault.Transient {
				return t.err
			}
			continue
		}
		members, of = append(members, wal.Member{Table: t.source.Table, Key: t.source.Key}), append(of, t)
	}
	if len(members) == 0 {
		return nil
	}
	var err error
	if s.state, err = wal.Ensure(ctx, s.Source, s.from.Pipeline.Name, members); err != nil {
		return err
	}
	lost := s.state.Lost
	if lost != "" {
		slog.WarnContext(ctx, "the replication slot is lost and made anew", "slot", s.state.Name, "reason", lost)
		if err := wal.DropSlot(ctx, s.Source, s.state.Name); err != nil {
			return err
		}
		if s.state, err = wal.Ensure(ctx, s.Source, s.from.Pipeline.Name, members); err != nil {
			return err
		}
		s.state.Lost = lost
	}
	for i, t := range of {
		t.membership = s.state.Members[i]
		if lost != "" {
			t.warnings = append(t.warnings, "the replication slot was lost: "+lost)
		}
	}
	return nil
}

// start begins to follow the table where the slot is, and reads it whole: at first
// sight, where changes are missing, or where a message asks for it.
func (t *logged) start(ctx context.Context, s wal.Slot) error {
	at, err := t.wal.Position(t.state.Cursor)
	if err != nil {
		return err
	}
	reason := ""
	switch {
	case at == nil:
	case s.Lost != "":
		reason = "the replication slot was lost: " + s.Lost
	case s.Created:
		reason = "the replication slot was gone"
	case at.Membership != t.membership.OID:
		reason = "the table had left the publication"
	case at.LSN > s.Restart+pgoutput.LSN(max(s.Lag, 0)): // beyond the end of the log
		reason = "the server's log went back, as after a restore"
	case at.LSN < s.Confirmed:
		reason = "somebody else moved the replication slot"
	}
	if at != nil && reason == "" {
		t.at = *at
		return t.begin(ctx)
	}
	t.at = source.LogPosition{LSN: s.Confirmed, Membership: t.membership.OID}
	if t.at.Leaves, _, err = t.source.Leaves(ctx, t.Source, nil, false); err != nil {
		return err
	}
	cursor, err := json.Marshal(t.at)
	if err != nil {
		return fmt.Errorf("writing the cursor: %w", err)
	}
	first := t.state.Cursor == nil
	t.state.Cursor = cursor
	if first {
		return t.startBackfill(ctx, t.state.Generation, "", t.requestedBy(t.full))
	}
	return t.resync(ctx, reason, "")
}

// confirm tells the slot how far every table has come, and returns it. One that was left
// out holds it where it was (I1).
func (s *slot) confirm(ctx context.Context) (pgoutput.LSN, error) {
	low := pgoutput.LSN(math.MaxUint64)
	for _, t := range s.tables {
		if t.at.Membership != 0 {
			low = min(low, t.at.LSN)
		} else if held, err := t.held(); err != nil {
			return 0, err
		} else if held != nil {
			low = min(low, held.LSN)
		}
	}
	if low == math.MaxUint64 || low == 0 {
		return low, nil
	}
	return low, wal.Advance(ctx, s.Source, s.state.Name, low)
}

// held is where a table that was left out before it was started stands.
func (t *logged) held() (*source.LogPosition, error) {
	if t.wal == nil { // it could not be described, and is not in the publication
		return nil, nil //nolint:nilnil // it holds nothing
	}
	return t.wal.Position(t.state.Cursor)
}

// pull lands what the slot has next, a batch for every table that changed.
func (s *slot) pull(ctx context.Context) (pulled wal.Pulled, err error) {
	following := map[string]*logged{}
	batch, landed := 0, pgoutput.LSN(math.MaxUint64)
	for _, t := range s.tables {
		if t.err == nil {
			following[t.wal.Name()] = t
			batch, landed = max(batch, t.spec.BatchRows), min(landed, t.at.LSN)
		}
	}
	if len(following) == 0 {
		return pulled, nil
	}
	limit := max(batch, s.limit)
	defer func() {
		for _, t := range s.tables {
			t.drop()
		}
	}()
	conn, err := s.Source.Acquire(ctx)
	if err != nil {
		return pulled, fmt.Errorf("connecting to the source: %w", err)
	}
	defer conn.Release()
	var clock time.Time
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&clock); err != nil {
		return pulled, fmt.Errorf("reading the clock: %w", err)
	}
	pulled, err = wal.Pull(ctx, conn.Conn(), s.state.Name, limit, func(c wal.Change) error {
		if t := following[c.Schema+"."+c.Table]; t != nil {
			t.follow(ctx, c, clock)
		}
		return ctx.Err()
	})
	if err != nil {
		return pulled, err
	}
	// Where a table that was left out holds the slot, the next pull begins with all that
	// the others had of this one: it has to go further than that (I7).
	if s.limit = pulled.Messages + batch; pulled.Upto <= landed {
		s.limit = 2 * limit
	}
	conn.Release() // before the tables need it
	s.each(ctx, func(ctx context.Context, t *logged) error { return t.deferred(ctx, t.land(ctx, pulled)) })
	for _, t := range s.tables {
		pulled.More = pulled.More || t.again
		t.again = false
	}
	return pulled, nil
}

// follow takes a change that has not landed before. What fails concerns this table
// alone, which is left out from here on.
func (t *logged) follow(ctx context.Context, c wal.Change, clock time.Time) {
	if t.err != nil || t.again || c.Commit < t.at.LSN {
		return
	}
	err := t.take(t.context(ctx), c, clock)
	if t.err = t.deferred(ctx, err); err != nil {
		t.drop()
	}
}

// deferred leaves what no stream can carry to the next pull, which has it loaded.
func (t *logged) deferred(ctx context.Context, err error) error {
	if !errors.Is(err, errUnstreamable) {
		if t.landing != nil {
			err = t.landing.doubted(ctx, err)
		}
		return err
	}
	t.again = true
	return nil
}

// take writes one change of the table.
func (t *logged) take(ctx context.Context, c wal.Change, clock time.Time) error {
	if t.landing == nil {
		t.batch, t.result = &source.LogBatch{WAL: t.wal, Clock: clock}, source.Result{}
		t.landing = &landing{
			work: &t.work, place: controlplane.Place{Unit: t.unit}, read: t.batch,
			position: max(t.state.Position+1, clock.UnixMicro()), buffers: &t.buffers,
		}
		if err := t.landing.open(ctx); err != nil {
			return err
		}
	}
	rows := t.landing.rows
	if c.Kind == wal.Truncate {
		at, err := rows.SkipPosition()
		t.result.Truncated, t.truncated = &at, true
		return err
	}
	// What was written after a truncation may have gone with a single partition since:
	// of the two only the first is in the log, and the files do not tell them apart.
	t.truncated = false
	if err := t.batch.Write(ctx, rows, c); err != nil {
		return err
	}
	if t.batch.Incomplete() >= completeRows {
		return t.batch.Complete(ctx, rows)
	}
	return nil
}

// land commits what was taken, with the position it earns, and has the table read
// again where something happened to its partitions that no log has.
func (t *logged) land(ctx context.Context, pulled wal.Pulled) error {
	if t.again {
		return nil
	}
	at := source.LogPosition{LSN: max(pulled.Upto, t.at.LSN), Membership: t.at.Membership, Leaves: t.at.Leaves}
	missed := ""
	if !pulled.More { // a truncation of all of them may be among what is left
		var err error
		if at.Leaves, missed, err = t.source.Leaves(ctx, t.Source, t.at.Leaves, t.truncated); err != nil {
			return err
		}
		t.truncated = false
	}
	cursor, err := json.Marshal(at)
	if err != nil {
		return fmt.Errorf("writing the cursor: %w", err)
	}
	if t.landing == nil {
		if err := t.Control.Touch(ctx, t.lease, t.unit, cursor); err != nil {
			return err
		}
	} else {
		if err := t.batch.Complete(ctx, t.landing.rows); err != nil {
			return err
		}
		if err := t.landing.finish(ctx); err != nil {
			return err
		}
		t.result.Cursor, t.result.Deleted = cursor, t.batch.Deleted
		if err := t.landing.commit(ctx, t.result); err != nil {
			return err
		}
	}
	t.at, t.state.Cursor, t.result = at, cursor, source.Result{}
	t.drop()
	if missed != "" {
		return t.resync(ctx, missed, "")
	}
	return nil
}

// drop forgets a batch that is committed, or never will be.
func (t *logged) drop() {
	if t.landing != nil {
		t.landing.close()
		t.landing, t.batch = nil, nil
	}
}

// tellLag logs the slots that hold back more of the log than the pipeline allows,
// those that nothing reads any more among them, and drops the pipeline's own when it
// no longer follows anything by it.
func (r *Runner) tellLag(ctx context.Context, u tick.Unit) {
	lags, err := wal.Lags(ctx, r.Source)
	if err != nil {
		slog.WarnContext(ctx, "reading the lag of replication slots", "error", err)
		return
	}
	own := wal.SlotName(r.Source.Config().ConnConfig.Database, u.Pipeline.Name)
	for _, lag := range lags {
		telemetry.HoldBack(ctx, lag.Slot, lag.Bytes, u.Pipeline.WAL.MaxLag, lag.Status)
		if lag.Slot == own && len(followed(u.Pipeline)) == 0 {
			if err := wal.Drop(ctx, r.Source, u.Pipeline.Name); err != nil {
				slog.WarnContext(ctx, "dropping a replication slot that nothing needs", "slot", lag.Slot, "error", err)
				continue
			}
			slog.InfoContext(ctx, "dropped a replication slot that nothing needs", "slot", lag.Slot)
		}
	}
}

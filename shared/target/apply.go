package target

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Applied is what a run wrote.
type Applied struct {
	Inserted, Updated int64
	Locked            int64 // rows left alone because another transaction held them
	Rejects           []Reject
	Done              bool // false: rows of the plan are left for a later run
}

// Written is how many rows of the table were written.
func (a Applied) Written() int64 { return a.Inserted + a.Updated }

// errStopped ends a range whose rest is left for a later run.
var errStopped = errors.New("stopped")

// Apply writes the plan in batches of the sync's size, each its own short
// transaction, until it is through or keepGoing says no between two batches; the
// first batch is not asked for. What it has written stays written; a later run
// finds the rest. A plan of which nothing could be done is an error: another run
// would come no further.
func (s *Staging) Apply(ctx context.Context, keepGoing func() bool) (Applied, error) {
	var done Applied
	last, err := s.number(ctx, "SELECT coalesce(max(n), 0) FROM "+s.plan)
	if err != nil {
		return done, s.explained(ctx, done, fmt.Errorf("counting the plan: %w", err))
	}
	through, err := s.batches(ctx, last, keepGoing, &done)
	if err != nil {
		return done, s.explained(ctx, done, err)
	}
	done.Done = through && done.Locked == 0
	if !through && done.Written() == 0 && done.Locked == 0 {
		return done, noTime(fmt.Errorf("writing to %s: the time ended with none of %d rows written", s.table.Name, last))
	}
	return done, nil
}

// batches reports whether it came to the end of the plan.
func (s *Staging) batches(ctx context.Context, last int64, keepGoing func() bool, done *Applied) (bool, error) {
	w := work{
		table: s.plan, rejects: &done.Rejects, keepGoing: keepGoing,
		run:  func(ctx context.Context, from, to int64, skip bool) error { return s.batch(ctx, from, to, skip, done) },
		held: func(from, to int64) { done.Locked += to - from + 1 },
	}
	size := int64(s.sync.Limits.BatchSize)
	for from := int64(1); from <= last; from += size {
		if from > 1 && !keepGoing() {
			return false, nil
		}
		err := s.isolate(ctx, from, min(from+size-1, last), w)
		if errors.Is(err, errStopped) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("writing to %s: %w", s.table.Name, err)
		}
		if from+size <= last {
			if err := pause(ctx, s.sync.Limits.Pause); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// explained tells a run that came to nothing for want of time from others.
func (s *Staging) explained(ctx context.Context, done Applied, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && done.Written() == 0 {
		return noTime(err)
	}
	return err
}

func noTime(err error) error {
	return fault.Fix(err, "narrow the query, or raise the function's timeout: reading and comparing took all of it")
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errAppeared rolls a batch back in which rows to insert were there already.
var errAppeared = errors.New("rows to insert have appeared")

// batch writes one range of the plan in one transaction. With skip it leaves the
// rows that others hold, instead of waiting for them.
func (s *Staging) batch(ctx context.Context, from, to int64, skip bool, done *Applied) error {
	for strict := true; ; {
		var now Applied
		err := s.tx(ctx, s.sync.Limits.StatementTimeout, func(tx pgx.Tx) error {
			now = Applied{}
			return s.write(ctx, tx, from, to, skip, strict, &now)
		})
		switch {
		case err == nil:
			done.Inserted += now.Inserted
			done.Updated += now.Updated
			done.Locked += now.Locked
			return nil
		case !errors.Is(err, errAppeared):
			return err
		}
		// What has appeared since the plan is updated instead; what does not
		// appear to us and yet cannot be inserted is another's decision, a trigger's
		// or a policy's.
		if strict, err = s.appeared(ctx, from, to); err != nil {
			return err
		}
	}
}

// appeared turns inserts into updates where the row exists by now, and reports
// whether there were any.
func (s *Staging) appeared(ctx context.Context, from, to int64) (bool, error) {
	var found int64
	err := s.tx(ctx, s.sync.Limits.StatementTimeout, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, fmt.Sprintf("UPDATE %s s SET action = 'update' WHERE n BETWEEN $1 AND $2 AND action = 'insert' AND EXISTS (SELECT FROM %s t WHERE %s)",
			s.plan, s.table.SQLName(), s.match("t", "s")), from, to)
		found = tag.RowsAffected()
		return err
	})
	return found > 0, err
}

func (s *Staging) write(ctx context.Context, tx pgx.Tx, from, to int64, skip, strict bool, now *Applied) error {
	if len(s.values) > 0 { // else there is nothing to update, and maybe no right to
		if err := s.lock(ctx, tx, from, to, skip, now); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, s.updateSQL("s.n BETWEEN $1 AND $2"), from, to)
		if err != nil {
			return err
		}
		now.Updated = tag.RowsAffected()
	}
	if s.sync.Mode != pipeline.ModeUpsert {
		return nil
	}
	var planned int64
	if err := tx.QueryRow(ctx, fmt.Sprintf("WITH fresh AS (%s RETURNING 1) SELECT (SELECT count(*) FROM %s WHERE n BETWEEN $1 AND $2 AND action = 'insert'), (SELECT count(*) FROM fresh)",
		s.insertSQL("n BETWEEN $1 AND $2"), s.plan), from, to).Scan(&planned, &now.Inserted); err != nil {
		return fmt.Errorf("inserting: %w", err)
	}
	if strict && now.Inserted < planned {
		return errAppeared
	}
	return nil
}

// lock locks the rows to update in key order: UPDATE .. FROM does it in none,
// and two writers without an order deadlock. With skip, rows that others hold are
// taken out of the plan.
func (s *Staging) lock(ctx context.Context, tx pgx.Tx, from, to int64, skip bool, now *Applied) error {
	// LATERAL goes by the key's index row by row: a join would be free to read
	// the whole table for each batch.
	sql := fmt.Sprintf("SELECT s.n FROM (SELECT * FROM %s WHERE n BETWEEN $1 AND $2 AND action = 'update' ORDER BY n) s CROSS JOIN LATERAL (SELECT FROM %s t WHERE %s FOR NO KEY UPDATE OF t",
		s.plan, s.table.SQLName(), s.match("t", "s"))
	if !skip {
		_, err := tx.Exec(ctx, sql+") held", from, to)
		return err
	}
	rows, err := tx.Query(ctx, sql+" SKIP LOCKED) free", from, to)
	if err != nil {
		return err
	}
	free, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("locking rows: %w", err)
	}
	tag, err := tx.Exec(ctx, fmt.Sprintf("UPDATE %s s SET action = 'held' WHERE n BETWEEN $1 AND $2 AND action = 'update' AND n <> ALL ($3) AND EXISTS (SELECT FROM %s t WHERE %s)",
		s.plan, s.table.SQLName(), s.match("t", "s")), from, to, free)
	now.Locked = tag.RowsAffected()
	return err
}

// updateSQL compares again under the lock: what the application has written
// since the plan is not written over without need. Key columns are never SET.
func (s *Staging) updateSQL(which string) string {
	sets := make([]string, len(s.values))
	for i, c := range s.values {
		sets[i] = catalog.Quote(c.column.Name) + " = s." + c.name
	}
	narrow := ""
	if len(s.keys) == 1 { // the index is worth using for a batch, whatever the join
		narrow = fmt.Sprintf(" AND t.%s OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT s.%s FROM %s s WHERE %s AND s.action = 'update'))",
			catalog.Quote(s.keys[0].column.Name), s.keys[0].name, s.plan, which)
	}
	return fmt.Sprintf("UPDATE %s t SET %s FROM %s s WHERE %s AND %s AND s.action = 'update' AND %s%s",
		s.table.SQLName(), strings.Join(sets, ", "), s.plan, s.match("t", "s"), which, s.changed("t", "s"), narrow)
}

// insertSQL inserts in key order what is not there. It uses no system column:
// partitioned tables return none.
func (s *Staging) insertSQL(which string) string {
	columns, conflict := make([]string, 0, len(s.keys)+len(s.values)), make([]string, len(s.keys))
	for _, c := range s.all() {
		columns = append(columns, catalog.Quote(c.column.Name))
	}
	for i, k := range s.keys {
		conflict[i] = catalog.Quote(k.column.Name)
	}
	return fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s WHERE %s AND action = 'insert' ORDER BY n ON CONFLICT (%s) DO NOTHING",
		s.table.SQLName(), strings.Join(columns, ", "), strings.Join(names(s.all()), ", "), s.plan, which, strings.Join(conflict, ", "))
}

// attempts bounds how often a range is tried again after losing a lock, a
// deadlock or a serialization.
const attempts = 5

// work is something to do to ranges of the rows of a staging table.
type work struct {
	table   string
	run     func(ctx context.Context, from, to int64, skip bool) error
	rejects *[]Reject

	held      func(from, to int64) // counts rows that others hold; nil: to lose against others is an error
	keepGoing func() bool          // asked before more is tried around rows that others hold
	skip      bool
}

// isolate does the work on a range of rows. A range that fails for its data is
// halved until the one bad row is found, which is rejected with the reason,
// while every other row goes through (I7). A range that lost against another
// writer is tried again, then without the rows that are held, then halved until
// the one row is found that cannot be had now.
func (s *Staging) isolate(ctx context.Context, from, to int64, w work) error {
	if from > to {
		return nil
	}
	err := retry(ctx, w.skip, func() error { return w.run(ctx, from, to, w.skip) })
	var data *dataError
	isData, isLost := errors.As(err, &data), lost(err) && w.held != nil
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil || !isData && !isLost:
		return err
	case isData && from == to:
		return s.reject(ctx, from, w, data)
	case isLost && from == to && w.skip:
		w.held(from, to)
		return nil
	case isLost && !w.keepGoing():
		w.held(from, to)
		return errStopped
	case isLost && !w.skip:
		if err := s.available(ctx); err != nil {
			return err
		}
		w.skip = true
		return s.isolate(ctx, from, to, w)
	}
	middle := from + (to-from)/2
	if err := s.isolate(ctx, from, middle, w); err != nil {
		return err
	}
	return s.isolate(ctx, middle+1, to, w)
}

// available fails if the table as a whole is locked: then there is no use in
// trying its rows one by one. To explain a statement takes the lock to write.
func (s *Staging) available(ctx context.Context) error {
	return s.tx(ctx, s.sync.Limits.StatementTimeout, func(tx pgx.Tx) error { return s.explain(ctx, tx) })
}

func (s *Staging) reject(ctx context.Context, n int64, w work, cause *dataError) error {
	r := Reject{Column: cause.column, Reason: "SQLSTATE " + cause.code + ": " + cause.message, n: n}
	if cause.constraint != "" {
		r.Reason += " (constraint " + cause.constraint + ")"
	}
	if len(*w.rejects) == MaxRejects {
		return TooMany(cause.Error())
	}
	if err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT "+s.object("s", false)+" FROM "+w.table+" s WHERE n = $1", n).Scan(&r.Row)
	}); err != nil {
		return fmt.Errorf("reading a rejected row: %w", err)
	}
	*w.rejects = append(*w.rejects, r)
	return nil
}

// lost reports whether a statement lost against other transactions: a lock or
// the time for the statement (waiting counts), a deadlock, a serialization.
func lost(err error) bool {
	switch fault.SQLState(err) {
	case "55P03", "57014", "40P01", "40001":
		return true
	}
	return false
}

// retry repeats f while it loses against other writers, with growing, jittered
// pauses. once is for ranges that have been tried enough; what took all the time
// of a statement is not tried again either.
func retry(ctx context.Context, once bool, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		if once || attempt == attempts || !lost(err) || fault.SQLState(err) == "57014" {
			return err
		}
		if err := pause(ctx, time.Duration(attempt)*100*time.Millisecond+rand.N(100*time.Millisecond)); err != nil { //nolint:gosec // jitter
			return err
		}
	}
}

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
	Inserted, Updated, Deleted int64
	Locked                     int64 // rows left alone because another transaction held them
	Rejects                    []Reject
	Done                       bool          // false: rows of the plan are left for a later run
	Paused                     time.Duration // waited for others, see Limits
}

// Written is how many rows of the table were written.
func (a Applied) Written() int64 { return a.Inserted + a.Updated + a.Deleted }

// errStopped ends a range whose rest is left for a later run.
var errStopped = errors.New("stopped")

// Apply writes the plan in batches of the sync's size, each its own short
// transaction, until it is through or keepGoing says no between two batches; the
// first batch is not asked for. What it has written stays written; a later run
// finds the rest. A plan of which nothing could be done is an error: another run
// would come no further.
func (s *Staging) Apply(ctx context.Context, keepGoing func() bool) (Applied, error) {
	var done Applied
	first, last, err := s.bounds(ctx)
	if err != nil {
		return done, s.explained(ctx, done, fmt.Errorf("counting the plan: %w", err))
	}
	through, err := s.batches(ctx, first, last, keepGoing, &done)
	if err != nil {
		return done, s.explained(ctx, done, err)
	}
	if done.Written() > 0 {
		if err := s.flush(ctx); err != nil {
			return done, err
		}
	}
	done.Done = through && done.Locked == 0
	if !through && done.Written() == 0 && done.Locked == 0 && done.Paused == 0 {
		return done, noTime(fmt.Errorf("writing to %s: the time ended with none of %d rows written", s.table.Name, last-first+1))
	}
	return done, s.fingerprint(ctx, done.Rejects)
}

// bounds are the numbers of the first and the last row of the plan, and notes those of its
// updates, which stand together.
func (s *Staging) bounds(ctx context.Context) (first, last int64, err error) {
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT coalesce(min(n), 1), coalesce(max(n), 0), coalesce(min(n) FILTER (WHERE action = 'update'), 1), coalesce(max(n) FILTER (WHERE action = 'update'), 0) FROM "+s.plan).
			Scan(&first, &last, &s.updatesFrom, &s.updatesTo)
	})
	return first, last, err
}

// batches reports whether it came to the end of the plan.
func (s *Staging) batches(ctx context.Context, first, last int64, keepGoing func() bool, done *Applied) (bool, error) {
	load, batch := watch{}, pace{most: s.sync.Limits.BatchSize, target: s.sync.Limits.BatchTime}
	defer func() { done.Paused = load.paused }()
	var took time.Duration // of the batch before
	w := work{
		table: s.plan, staged: "staged", rejects: &done.Rejects, keepGoing: keepGoing,
		run: func(ctx context.Context, from, to int64) error {
			return s.batch(ctx, from, to, took < quickBatch, done)
		},
		held: func(ctx context.Context, from, to int64) error {
			batch.lost()
			return s.mark(ctx, "held", from, to)
		},
		refused: func(ctx context.Context, n int64) error { return s.mark(ctx, "refused", n, n) },
		passed:  func(n int64) { s.through = n },
	}
	var wait patience
	for from := first; ; {
		if from > last {
			var err error
			if done.Locked, err = s.held(ctx); err != nil || done.Locked == 0 {
				return err == nil, err
			}
			if !keepGoing() || !wait.again(ctx, s.sync.Limits.LockTimeout) {
				return true, ctx.Err()
			}
			if err := s.requeue(ctx, last); err != nil {
				return false, err
			}
			last += done.Locked
		}
		if from > first && !keepGoing() {
			return false, nil
		}
		if calm, err := s.settle(ctx, &load, keepGoing); err != nil || !calm {
			return false, err
		}
		to := min(from+int64(batch.next())-1, last)
		began := time.Now()
		err := s.isolate(ctx, from, to, w)
		if errors.Is(err, errStopped) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("writing to %s: %w", s.table.Name, err)
		}
		took = time.Since(began)
		batch.took(int(to-from+1), took)
		if from = to + 1; from <= last {
			if err := pause(ctx, s.sync.Limits.Pause); err != nil {
				return false, err
			}
		}
	}
}

// patience is how long rows that others hold are asked for again.
type patience struct{ waited, next time.Duration }

// again waits before another attempt, and reports whether there should be one: until
// as long has been waited as a lock is waited for.
func (p *patience) again(ctx context.Context, limit time.Duration) bool {
	if p.waited >= limit {
		return false
	}
	p.next = min(max(2*p.next, 20*time.Millisecond), limit-p.waited)
	p.waited += p.next
	return pause(ctx, p.next) == nil
}

// held counts the rows that were left to others.
func (s *Staging) held(ctx context.Context) (int64, error) {
	return s.count(ctx, "SELECT count(*) FROM "+s.plan+" WHERE action LIKE 'held %'")
}

// requeue puts the rows that were left to others at the end of the plan.
func (s *Staging) requeue(ctx context.Context, last int64) error {
	err := s.exec(ctx, fmt.Sprintf(`
		UPDATE %[1]s s SET n = h.n, action = substr(action, length('held ') + 1)
		  FROM (SELECT n AS was, $1 + row_number() OVER (ORDER BY n) AS n FROM %[1]s WHERE action LIKE 'held %%') h WHERE s.n = h.was`, s.plan), last)
	if err != nil {
		return fmt.Errorf("asking again for rows that others hold: %w", err)
	}
	return nil
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

// mark takes rows out of the plan that were left or refused: their action is that of no
// statement any more, and still tells what it was.
func (s *Staging) mark(ctx context.Context, as string, from, to int64) error {
	return s.exec(ctx, "UPDATE "+s.plan+" SET action = $3 || ' ' || action WHERE n BETWEEN $1 AND $2 AND action NOT LIKE '% %'", from, to, as)
}

// errAppeared rolls a batch back in which rows to insert were there already.
var errAppeared = errors.New("rows to insert have appeared")

// insertWait is how long an insert waits for a key that another transaction is about to
// insert: no longer than it takes that one to commit, and far shorter than Postgres takes
// to look for a deadlock (deadlock_timeout, 1s), for which the application might pay.
const insertWait = 50 * time.Millisecond

// unhurried has a transaction not wait for the disk and for standbys: there are many, and
// flush waits once for all.
const unhurried = "set_config('synchronous_commit', 'off', true)"

// flush returns once all that was written so far is as durable as the server's commits
// are: one that writes to the log, as this of the catalogue does, comes after them.
func (s *Staging) flush(ctx context.Context) error {
	if err := s.exec(ctx, "ALTER TABLE "+s.raw+" SET (fillfactor = 99)"); err != nil {
		return fmt.Errorf("waiting for what was written to be durable: %w", err)
	}
	return nil
}

// batch writes one range of the plan, but for the rows that others hold: what is updated
// and deleted in one transaction, what is inserted in another, since an insert may wait
// and must not hold rows that the application waits for.
func (s *Staging) batch(ctx context.Context, from, to int64, quick bool, done *Applied) error {
	if quick && s.plain && s.sync.Where == "" && from >= s.updatesFrom && to <= s.updatesTo {
		if updated, err := s.updateAtOnce(ctx, from, to); updated > 0 || err != nil {
			done.Updated += updated
			return err
		}
	}
	var now Applied
	var inserts int64
	if err := s.tx(ctx, s.sync.Limits.StatementTimeout, func(tx pgx.Tx) (err error) {
		now = Applied{}
		inserts, err = s.change(ctx, tx, from, to, &now)
		return err
	}); err != nil {
		return err
	}
	done.Updated += now.Updated
	done.Deleted += now.Deleted
	if inserts == 0 {
		return nil
	}
	return s.insertBatch(ctx, from, to, done)
}

// Bounds of what may wait for rows while it holds others. Whoever is in a circle with
// it finds that out after a second (deadlock_timeout), and by then both the wait and the
// whole transaction are long over.
const (
	hopefulWait = 5 * time.Millisecond
	quickBatch  = 250 * time.Millisecond
)

// updateAtOnce updates a range of updates alone in one statement, which takes half the
// work of locking the rows first, by the index and in the plan's order, which is that of the
// locks. It returns 0 where others hold some of the rows, or none differs any more.
func (s *Staging) updateAtOnce(ctx context.Context, from, to int64) (updated int64, err error) {
	err = s.txWithin(ctx, min(hopefulWait, s.sync.Limits.LockTimeout), s.sync.Limits.StatementTimeout, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, fmt.Sprintf("UPDATE %s t SET %s FROM (SELECT * FROM %s WHERE n BETWEEN $1 AND $2 AND action = 'update' ORDER BY n) s WHERE %s AND %s",
			s.table.SQLName(), s.sets(), s.plan, s.match("t", "s"), s.changed("t", "s")), from, to)
		updated = tag.RowsAffected()
		return err
	}, unhurried, "set_config('enable_hashjoin', 'off', true)", "set_config('enable_mergejoin', 'off', true)", "set_config('enable_seqscan', 'off', true)")
	if lost(err) {
		return 0, nil
	}
	return updated, err
}

func (s *Staging) insertBatch(ctx context.Context, from, to int64, done *Applied) error {
	for strict := true; ; {
		var inserted int64
		err := s.txWithin(ctx, min(insertWait, s.sync.Limits.LockTimeout), s.sync.Limits.StatementTimeout, func(tx pgx.Tx) (err error) {
			inserted, err = s.insert(ctx, tx, from, to, strict)
			return err
		})
		switch {
		case err == nil:
			done.Inserted += inserted
			return nil
		case !errors.Is(err, errAppeared):
			return err
		}
		// What has appeared since the plan is updated instead, if the mode does that;
		// what does not appear to us and yet cannot be inserted is another's decision,
		// a trigger's or a policy's.
		if strict, err = s.appeared(ctx, from, to); err != nil {
			return err
		}
		if strict && s.updates() {
			return s.batch(ctx, from, to, false, done)
		}
	}
}

// appeared turns inserts into updates where the row exists by now, and reports
// whether there were any.
func (s *Staging) appeared(ctx context.Context, from, to int64) (bool, error) {
	action := "update"
	if !s.updates() {
		action = "present"
	}
	var found int64
	err := s.tx(ctx, s.sync.Limits.StatementTimeout, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, fmt.Sprintf("UPDATE %s s SET action = '%s' WHERE n BETWEEN $1 AND $2 AND action = 'insert' AND EXISTS (SELECT FROM %s t WHERE %s)",
			s.plan, action, s.table.SQLName(), s.match("t", "s")), from, to)
		found = tag.RowsAffected()
		return err
	})
	return found > 0, err
}

// change updates and deletes, and returns how many rows of the range are to be inserted. A
// statement is sent only for rows that need it: triggers of a statement fire even for
// none.
func (s *Staging) change(ctx context.Context, tx pgx.Tx, from, to int64, now *Applied) (inserts int64, err error) {
	var updates, deletes int64
	if err := tx.QueryRow(ctx, "SELECT count(*) FILTER (WHERE action = 'insert'), count(*) FILTER (WHERE action = 'update'), count(*) FILTER (WHERE action = 'delete'), "+unhurried+" FROM "+s.plan+" WHERE n BETWEEN $1 AND $2",
		from, to).Scan(&inserts, &updates, &deletes, new(string)); err != nil {
		return 0, fmt.Errorf("reading the plan: %w", err)
	}
	for _, step := range []struct {
		rows      int64
		action    string
		statement func(string) string
		count     *int64
	}{{deletes, "delete", s.deleteSQL, &now.Deleted}, {updates, "update", s.updateSQL, &now.Updated}} {
		needed, err := s.lock(ctx, tx, step.action, step.rows, from, to)
		if err != nil {
			return 0, err
		}
		if needed == 0 {
			continue
		}
		tag, err := tx.Exec(ctx, step.statement("s.n BETWEEN $1 AND $2"), from, to)
		if err != nil {
			return 0, err
		}
		*step.count = tag.RowsAffected()
	}
	return inserts, s.checkWithin(ctx, tx, "update", from, to)
}

func (s *Staging) insert(ctx context.Context, tx pgx.Tx, from, to int64, strict bool) (inserted int64, err error) {
	var planned int64
	if err := tx.QueryRow(ctx, fmt.Sprintf("WITH fresh AS (%s RETURNING 1) SELECT (SELECT count(*) FROM %s WHERE n BETWEEN $1 AND $2 AND action = 'insert'), (SELECT count(*) FROM fresh), %s",
		s.insertSQL("n BETWEEN $1 AND $2"), s.plan, unhurried), from, to).Scan(&planned, &inserted, new(string)); err != nil {
		return 0, fmt.Errorf("inserting: %w", err)
	}
	if strict && inserted < planned {
		return 0, errAppeared
	}
	return inserted, s.checkWithin(ctx, tx, "insert", from, to)
}

// checkWithin refuses rows that have become such as the sync may not write.
func (s *Staging) checkWithin(ctx context.Context, tx pgx.Tx, action string, from, to int64) error {
	if s.sync.Where == "" {
		return nil
	}
	var outside bool
	if err := tx.QueryRow(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s s JOIN %s t ON %s WHERE s.n BETWEEN $1 AND $2 AND s.action = '%s' AND NOT %s)",
		s.plan, s.table.SQLName(), s.match("t", "s"), action, s.within("t")), from, to).Scan(&outside); err != nil {
		return fmt.Errorf("looking for rows outside of the sync's where: %w", err)
	}
	if outside {
		return &dataError{code: "44000", table: s.table.Name, message: "the row would be outside of the sync's where"} // with_check_option_violation
	}
	return nil
}

// lock locks the rows of an action, of which the range has so many, and returns how many
// still need it. It waits for none: who holds rows and waits for others has a deadlock
// with whoever does the same, and that one may be the application. Rows that others hold
// are taken out of the plan until later.
func (s *Staging) lock(ctx context.Context, tx pgx.Tx, action string, rows, from, to int64) (needed int64, err error) {
	if rows == 0 || !s.updates() { // to lock is to have the right to update
		return rows, nil
	}
	condition, strength := "true", "NO KEY UPDATE"
	if action == "update" {
		condition = s.changed("held", "s")
	} else if s.deleted == nil {
		strength = "UPDATE"
	}
	// LATERAL goes by the key's index row by row: a join would be free to read
	// the whole table for each batch. What is locked is the newest version of the row.
	var free []int64
	if err := tx.QueryRow(ctx, fmt.Sprintf(`
		SELECT coalesce(array_agg(s.n), '{}'), count(*) FILTER (WHERE %s)
		  FROM (SELECT * FROM %s WHERE n BETWEEN $1 AND $2 AND action = '%s' ORDER BY n) s
		 CROSS JOIN LATERAL (SELECT %s FROM %s t WHERE %s FOR %s OF t SKIP LOCKED) held`,
		condition, s.plan, action, s.compared("t"), s.table.SQLName(), s.match("t", "s"), strength), from, to).Scan(&free, &needed); err != nil {
		return 0, fmt.Errorf("locking rows: %w", err)
	}
	if int64(len(free)) == rows {
		return needed, nil
	}
	_, err = tx.Exec(ctx, fmt.Sprintf("UPDATE %[1]s s SET action = 'held ' || action WHERE n BETWEEN $1 AND $2 AND action = '%[2]s' AND n <> ALL ($3) AND EXISTS (SELECT FROM %[3]s t WHERE %[4]s)",
		s.plan, action, s.table.SQLName(), s.match("t", "s")), from, to, free)
	return needed, err
}

// compared are the columns of the table that changed looks at.
func (s *Staging) compared(table string) string {
	var out []string
	for _, c := range s.values {
		out = append(out, table+"."+catalog.Quote(c.column.Name))
	}
	if s.deleted != nil {
		out = append(out, table+"."+catalog.Quote(s.deleted.Name))
	}
	return strings.Join(out, ", ")
}

// updateSQL compares again under the lock: what the application has written
// since the plan is not written over without need. Key columns are never SET.
func (s *Staging) updateSQL(which string) string {
	return fmt.Sprintf("UPDATE %s t SET %s FROM %s s WHERE %s AND %s AND s.action = 'update' AND %s AND %s%s",
		s.table.SQLName(), s.sets(), s.plan, s.match("t", "s"), which, s.changed("t", "s"), s.within("t"), s.narrowed(which, "update"))
}

// sets are the assignments of an update, from the alias s to the alias t.
func (s *Staging) sets() string {
	sets := make([]string, len(s.values), len(s.values)+1)
	for i, c := range s.values {
		column := catalog.Quote(c.column.Name)
		sets[i] = column + " = s." + c.name
		if s.sync.Mode == pipeline.ModeFill {
			sets[i] = fmt.Sprintf("%[1]s = CASE WHEN t.%[1]s IS NULL THEN s.%[2]s ELSE t.%[1]s END", column, c.name)
		}
	}
	if s.deleted != nil {
		alive := "NULL"
		if s.deleted.Base == "bool" {
			alive = "false"
		}
		sets = append(sets, catalog.Quote(s.deleted.Name)+" = "+alive)
	}
	return strings.Join(sets, ", ")
}

// deleteSQL deletes, softly or not, what is still there and still the sync's.
func (s *Staging) deleteSQL(which string) string {
	rest := fmt.Sprintf("%s AND %s AND s.action = 'delete' AND %s%s%s", s.match("t", "s"), which, s.within("t"), s.alive("t"), s.narrowed(which, "delete"))
	if s.deleted == nil {
		return fmt.Sprintf("DELETE FROM %s t USING %s s WHERE %s", s.table.SQLName(), s.plan, rest)
	}
	return fmt.Sprintf("UPDATE %s t SET %s = %s FROM %s s WHERE %s", s.table.SQLName(), catalog.Quote(s.deleted.Name), deletedNow()[s.deleted.Base], s.plan, rest)
}

// narrowed is a further condition that says what match does: with it the index is
// worth using for a batch, whatever the join.
func (s *Staging) narrowed(which, action string) string {
	if len(s.ids) != 1 {
		return ""
	}
	return fmt.Sprintf(" AND t.%s OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT s.%s FROM %s s WHERE %s AND s.action = '%s'))",
		catalog.Quote(s.ids[0].column.Name), s.ids[0].name, s.plan, which, action)
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
	staged  string // its column with the number of the staged row
	run     func(ctx context.Context, from, to int64) error
	rejects *[]Reject

	refused   func(ctx context.Context, n int64) error        // told of a row that is rejected; may be nil
	held      func(ctx context.Context, from, to int64) error // told of rows that others hold; nil: to lose against others is an error
	passed    func(n int64)                                   // told how far it has come; may be nil
	keepGoing func() bool                                     // asked before more is tried around rows that others hold
	once      bool                                            // it has been tried often enough
}

// isolate does the work on a range of rows. A range that fails for its data is
// halved until the one bad row is found, which is rejected with the reason,
// while every other row goes through (I7). A range that lost against another
// writer is tried again, then halved until the one row is found that cannot be had
// now.
func (s *Staging) isolate(ctx context.Context, from, to int64, w work) error {
	if from > to {
		return nil
	}
	err := retry(ctx, w.once, func() error { return w.run(ctx, from, to) })
	if w.passed != nil && (err == nil || from == to) {
		defer w.passed(to)
	}
	var data *dataError
	isData, isLost := errors.As(err, &data), lost(err) && w.held != nil
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil || !isData && !isLost:
		return err
	case isData && from == to:
		return s.reject(ctx, from, w, data)
	case isLost && from == to && w.once:
		return w.held(ctx, from, to)
	case isLost && !w.keepGoing():
		return errors.Join(w.held(ctx, from, to), errStopped)
	case isLost && !w.once:
		if err := s.available(ctx); err != nil {
			return err
		}
		w.once = true
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
	r := Reject{Column: cause.column, Reason: cause.reason()}
	if len(*w.rejects) == MaxRejects {
		return TooMany(cause.Error())
	}
	if err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT coalesce("+w.staged+", 0), "+s.object("s", false)+" FROM "+w.table+" s WHERE n = $1", n).Scan(&r.n, &r.Row)
	}); err != nil {
		return fmt.Errorf("reading a rejected row: %w", err)
	}
	*w.rejects = append(*w.rejects, r)
	if w.refused == nil {
		return nil
	}
	return w.refused(ctx, n)
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

package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
)

// Applied is what a run wrote.
type Applied struct {
	Inserted, Updated int64
	Rejects           []Reject
	Done              bool // false: it stopped early because keepGoing said so
}

// Apply writes the plan in batches of the sync's size, each its own short
// transaction, until it is through or keepGoing says no between two batches.
// What it has written stays written; a later run finds the rest.
func (s *Staging) Apply(ctx context.Context, keepGoing func() bool) (Applied, error) {
	var done Applied
	var last int64
	if err := s.pool.QueryRow(ctx, "SELECT coalesce(max(n), 0) FROM "+s.plan).Scan(&last); err != nil {
		return done, fmt.Errorf("counting the plan: %w", err)
	}
	size := int64(s.sync.BatchSize)
	for from := int64(1); from <= last; from += size {
		if !keepGoing() {
			return done, nil
		}
		write := func(ctx context.Context, from, to int64) error { return s.batch(ctx, from, to, &done) }
		if err := s.isolate(ctx, from, min(from+size-1, last), s.plan, write, &done.Rejects); err != nil {
			return done, fmt.Errorf("writing to %s: %w", s.table.Name, err)
		}
		if err := pause(ctx, s.sync.Pause); err != nil {
			return done, err
		}
	}
	done.Done = true
	return done, nil
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

// batch writes one range of the plan in one transaction.
func (s *Staging) batch(ctx context.Context, from, to int64, done *Applied) error {
	var inserted, updated int64
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
			SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true),
			       set_config('idle_in_transaction_session_timeout', $2, true), set_config('timezone', 'UTC', true)`,
			milliseconds(s.sync.LockTimeout), milliseconds(s.sync.StatementTimeout)); err != nil {
			return err
		}
		// UPDATE .. FROM locks in no order; locking first in key order is what
		// keeps two writers from deadlocking.
		if _, err := tx.Exec(ctx, fmt.Sprintf("SELECT FROM %s t JOIN %s s ON %s WHERE s.n BETWEEN $1 AND $2 AND s.action = 'update' ORDER BY s.n FOR NO KEY UPDATE OF t",
			s.table.SQLName(), s.plan, s.match("t", "s")), from, to); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, s.updateSQL(), from, to)
		if err != nil {
			return err
		}
		updated = tag.RowsAffected()
		rows, err := tx.Query(ctx, s.insertSQL(), from, to)
		if err != nil {
			return err
		}
		var fresh bool
		_, err = pgx.ForEachRow(rows, []any{&fresh}, func() error {
			if fresh {
				inserted++
			} else {
				updated++
			}
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	done.Inserted += inserted
	done.Updated += updated
	return nil
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

// updateSQL compares again under the lock: what the application has written
// since the plan is not written over without need.
func (s *Staging) updateSQL() string {
	if len(s.values) == 0 {
		return fmt.Sprintf("SELECT FROM %s WHERE n BETWEEN $1 AND $2 AND false", s.plan)
	}
	sets := make([]string, len(s.values))
	for i, c := range s.values {
		sets[i] = catalog.Quote(c.column.Name) + " = s." + c.name
	}
	return fmt.Sprintf("UPDATE %s t SET %s FROM %s s WHERE %s AND s.n BETWEEN $1 AND $2 AND s.action = 'update' AND %s",
		s.table.SQLName(), strings.Join(sets, ", "), s.plan, s.match("t", "s"), s.changed("t", "s"))
}

// insertSQL inserts in key order; a row that has appeared since the plan is
// updated instead. Key columns are never SET.
func (s *Staging) insertSQL() string {
	columns, conflict := make([]string, 0, len(s.keys)+len(s.values)), make([]string, len(s.keys))
	for _, c := range s.all() {
		columns = append(columns, catalog.Quote(c.column.Name))
	}
	for i, k := range s.keys {
		conflict[i] = catalog.Quote(k.column.Name)
	}
	action := "NOTHING"
	if len(s.values) > 0 {
		sets, distinct := make([]string, len(s.values)), make([]string, len(s.values))
		for i, c := range s.values {
			name := catalog.Quote(c.column.Name)
			sets[i] = name + " = excluded." + name
			cast := ""
			if c.column.Base == "json" || c.column.Base == "" || c.column.Base == "xml" {
				cast = "::text"
			}
			distinct[i] = "t." + name + cast + " IS DISTINCT FROM excluded." + name + cast
		}
		action = "UPDATE SET " + strings.Join(sets, ", ") + " WHERE " + strings.Join(distinct, " OR ")
	}
	return fmt.Sprintf("INSERT INTO %s AS t (%s) SELECT %s FROM %s WHERE n BETWEEN $1 AND $2 AND action = 'insert' ORDER BY n ON CONFLICT (%s) DO %s RETURNING xmax = 0",
		s.table.SQLName(), strings.Join(columns, ", "), strings.Join(names(s.all()), ", "), s.plan, strings.Join(conflict, ", "), action)
}

// attempts bounds how often a range is tried again after losing a lock, a
// deadlock or a serialization.
const attempts = 5

// isolate runs f over a range of rows. A range that fails for its data is
// halved until the one bad row is found, which is rejected with the reason,
// while every other row goes through (I7). A range that lost against another
// writer is tried again.
func (s *Staging) isolate(ctx context.Context, from, to int64, table string, f func(ctx context.Context, from, to int64) error, rejects *[]Reject) error {
	if from > to {
		return nil
	}
	err := retry(ctx, func() error { return f(ctx, from, to) })
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &pg) || pg.Code[:2] != "22" && pg.Code[:2] != "23":
		return err
	case from == to:
		return s.reject(ctx, from, table, pg, rejects)
	}
	middle := from + (to-from)/2
	if err := s.isolate(ctx, from, middle, table, f, rejects); err != nil {
		return err
	}
	return s.isolate(ctx, middle+1, to, table, f, rejects)
}

// maxRejects stops a run whose rows are wrong as a whole.
const maxRejects = 10_000

func (s *Staging) reject(ctx context.Context, n int64, table string, cause *pgconn.PgError, rejects *[]Reject) error {
	r := Reject{Column: cause.ColumnName, Reason: "SQLSTATE " + cause.Code + ": " + cause.Message}
	if cause.ConstraintName != "" {
		r.Reason += " (constraint " + cause.ConstraintName + ")"
	}
	if err := s.pool.QueryRow(ctx, "SELECT to_jsonb(s) FROM "+table+" s WHERE n = $1", n).Scan(&r.Row); err != nil {
		return fmt.Errorf("reading a rejected row: %w", err)
	}
	if len(*rejects) == maxRejects {
		return fault.Fix(fmt.Errorf("more than %d rows refused, the last with %s", maxRejects, r.Reason), "correct the query")
	}
	*rejects = append(*rejects, r)
	return nil
}

// retry repeats f while it loses against other writers, with growing, jittered
// pauses.
func retry(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		switch fault.SQLState(err) {
		case "40P01", "40001", "55P03": // deadlock, serialization failure, lock not available
		default:
			return err
		}
		if attempt == attempts {
			return err
		}
		if err := pause(ctx, time.Duration(attempt)*100*time.Millisecond+rand.N(100*time.Millisecond)); err != nil { //nolint:gosec // jitter
			return err
		}
	}
}

// Named gives a rejected row the column names of the target table.
func (s *Staging) Named(row json.RawMessage) json.RawMessage {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(row, &fields); err != nil {
		return row
	}
	named := make(map[string]json.RawMessage, len(fields))
	for _, c := range s.all() {
		if v, ok := fields[c.name]; ok {
			named[c.column.Name] = v
		}
	}
	out, err := json.Marshal(named)
	if err != nil {
		return row
	}
	return out
}

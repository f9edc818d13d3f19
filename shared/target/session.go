package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// maxStatement bounds a statement where the context has no nearer deadline: no
// function's run is allowed longer (I10).
const maxStatement = 9 * time.Minute

// tx runs f in one transaction that waits for no lock longer than the sync
// allows and works no longer than limit or the context's deadline. What text
// comes to as a value, and a value as text, depends on nothing that is set on
// the server, the database or the role, and rows that a policy hides are an error
// instead of absent. The error of f says nothing of a row's
// data (see reduce).
//
// Staging tables are not logged: a server that has crashed since has emptied them, which
// is an error too, lest nothing be taken for all.
func (s *Staging) tx(ctx context.Context, limit time.Duration, f func(pgx.Tx) error) error {
	return s.txWithin(ctx, s.sync.Limits.LockTimeout, limit, f)
}

// txWithin is tx with another limit for locks and with further settings, each a call of
// set_config.
func (s *Staging) txWithin(ctx context.Context, lock, limit time.Duration, f func(pgx.Tx) error, settings ...string) error {
	if deadline, ok := ctx.Deadline(); ok {
		limit = max(min(limit, time.Until(deadline)), time.Millisecond)
	}
	return reduce(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		there := "true"
		if s.rows > 0 {
			there = "EXISTS (SELECT FROM " + s.raw + ")"
		}
		var ignored string
		var whole bool
		if err := tx.QueryRow(ctx, `
			SELECT `+there+`, concat(set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true),
			       set_config('idle_in_transaction_session_timeout', $2, true),
			       set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO, YMD', true),
			       set_config('intervalstyle', 'iso_8601', true), set_config('extra_float_digits', '1', true),
			       set_config('bytea_output', 'hex', true), set_config('row_security', 'off', true)`+strings.Join(append([]string{""}, settings...), ", ")+")",
			milliseconds(lock), milliseconds(limit)).Scan(&whole, &ignored); err != nil {
			return fmt.Errorf("setting the limits: %w", err)
		}
		if !whole {
			return &fault.Error{Class: fault.Transient, Err: errors.New("the staged rows are gone: the server has crashed and recovered since")}
		}
		return f(tx)
	}))
}

// exec runs one statement in a transaction of its own.
func (s *Staging) exec(ctx context.Context, sql string, args ...any) error {
	return s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	})
}

// analyze has the planner know a staging table, as much as joining it by its key takes.
func (s *Staging) analyze(ctx context.Context, table string) error {
	return s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SET LOCAL default_statistics_target = 10; ANALYZE "+table, pgx.QueryExecModeSimpleProtocol)
		return err
	})
}

// count runs a query for one number in a transaction of its own.
func (s *Staging) count(ctx context.Context, sql string) (n int64, err error) {
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error { return tx.QueryRow(ctx, sql).Scan(&n) })
	return n, err
}

// milliseconds writes a positive duration as Postgres reads a timeout; 0 would
// mean none.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%dms", max(d.Milliseconds(), 1)) }

// dataError is an error about the data of a row, without the data: Postgres puts
// values into the message and detail, and this one ends in logs and in
// tidemark.runs. The message is kept for the reject, which has the row anyway.
type dataError struct {
	code, table, column, constraint string
	message                         string
}

func (e *dataError) Error() string {
	parts := []string{"Postgres refused the data with SQLSTATE " + e.code}
	for _, p := range [][2]string{{"table", e.table}, {"column", e.column}, {"constraint", e.constraint}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	return strings.Join(parts, ", ")
}

// SQLState is the code of the PostgreSQL manual, appendix A.
func (e *dataError) SQLState() string { return e.code }

// reason is what a reject says of the error.
func (e *dataError) reason() string {
	reason := "SQLSTATE " + e.code + ": " + e.message
	if e.constraint != "" {
		reason += " (constraint " + e.constraint + ")"
	}
	return reason
}

// reduce replaces an error about the data of a row by a dataError: data
// exceptions, violated constraints, what a trigger raised, and a value too large
// for an index.
func reduce(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return err
	}
	switch class := pg.Code[:2]; {
	case class == "22", class == "23", class == "P0", pg.Code == "54000": // program_limit_exceeded
		return &dataError{pg.Code, pg.TableName, pg.ColumnName, pg.ConstraintName, pg.Message}
	}
	return err
}

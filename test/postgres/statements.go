package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Statement is what the executions of one statement cost, constants left out of
// its text. Parsing is not part of it: pg_stat_statements does not measure that.
type Statement struct {
	Query         string
	Calls, Rows   int64
	Plan, Execute time.Duration
}

// StatementSettings are the Options.Settings of a server that counts statements
// for Statements.
func StatementSettings() map[string]string {
	return map[string]string{
		"shared_preload_libraries":          "pg_stat_statements",
		"pg_stat_statements.track_planning": "on",
		"pg_stat_statements.save":           "off",
		"pg_stat_statements.max":            "10000",
	}
}

// The counters are read in the database postgres, so that the one measured holds
// nothing but its own.
const statementsSQL = `
SELECT s.query, s.calls, s.rows, s.total_plan_time, s.total_exec_time
  FROM tidemark_statements.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
 WHERE d.datname = $1 ORDER BY s.total_plan_time + s.total_exec_time DESC, s.query`

// ResetStatements makes Statements count anew for the database of the URL, which
// is a superuser's.
func ResetStatements(ctx context.Context, url string) error {
	return counters(ctx, url, func(conn *pgx.Conn, database string) error {
		_, err := conn.Exec(ctx, `SELECT tidemark_statements.pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = $1`, database)
		if err != nil {
			return fmt.Errorf("resetting: %w", err)
		}
		return nil
	})
}

// Statements are what ran in the database of the URL since ResetStatements, the
// most costly first, and how long all of it took the server to plan and execute.
func Statements(ctx context.Context, url string) (statements []Statement, total time.Duration, err error) {
	err = counters(ctx, url, func(conn *pgx.Conn, database string) error {
		rows, err := conn.Query(ctx, statementsSQL, database)
		if err != nil {
			return fmt.Errorf("selecting: %w", err)
		}
		statements, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Statement, err error) {
			var plan, execute float64
			err = row.Scan(&s.Query, &s.Calls, &s.Rows, &plan, &execute)
			s.Plan, s.Execute = milliseconds(plan), milliseconds(execute)
			return s, err
		})
		if err != nil {
			return fmt.Errorf("selecting: %w", err)
		}
		return nil
	})
	for _, s := range statements {
		total += s.Plan + s.Execute
	}
	return statements, total, err
}

func milliseconds(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }

// counters connects to where the counters are read.
func counters(ctx context.Context, address string, do func(conn *pgx.Conn, database string) error) error {
	parsed, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("reading statement counters: %w", err)
	}
	database := strings.TrimPrefix(parsed.Path, "/")
	parsed.Path = "/postgres"
	conn, err := pgx.Connect(ctx, parsed.String())
	if err != nil {
		return fmt.Errorf("reading statement counters: %w", err)
	}
	_, err = conn.Exec(ctx, `
		SET client_min_messages = warning;
		CREATE SCHEMA IF NOT EXISTS tidemark_statements;
		CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA tidemark_statements`)
	if err == nil {
		err = do(conn, database)
	}
	if err != nil {
		err = fmt.Errorf("reading statement counters: %w", err)
	}
	return errors.Join(err, conn.Close(ctx))
}

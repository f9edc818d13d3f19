package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// RejectGroup is how many rows were refused alike, and are not mended yet.
type RejectGroup struct {
	Tenant, Table string // or the reverse sync
	Column        string
	Reason        string // without values of rows
	Rows          int64
	First, Last   time.Time
}

// Reject groups leave out what Postgres says of a row in its own words, since that quotes
// values: what they keep is the code and the constraint.
const rejectGroupsSQL = `
	SELECT tenant, name, column_name,
	       CASE WHEN kind = 'reverse_etl' AND reason ~ '^SQLSTATE '
	            THEN substring(reason FROM '^SQLSTATE [0-9A-Z]+') || coalesce(' ' || substring(reason FROM '\(constraint [^()]*\)$'), '') ELSE reason END,
	       count(*), min(rejected_at), max(rejected_at)
	  FROM tidemark.rejects WHERE pipeline = $1 AND ($2 = '' OR name = $2)
	 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 5 DESC, 3, 4`

// RejectGroups counts the refused rows of a pipeline, or of one table or reverse sync of
// it, where name is not "". It reads only: a control plane of another version stays as
// it is.
func RejectGroups(ctx context.Context, db *pgxpool.Pool, pipeline, name string) ([]RejectGroup, error) {
	return refused(ctx, db, pgx.RowToStructByPos[RejectGroup], rejectGroupsSQL, pipeline, name)
}

// RejectedRow is a row that was refused.
type RejectedRow struct {
	Tenant, Table  string
	Column, Reason string
	At             time.Time
	Row            json.RawMessage // nil: no longer known
}

// RejectedRows returns the refused rows themselves, at most limit, the newest first.
func RejectedRows(ctx context.Context, db *pgxpool.Pool, pipeline, name string, limit int) ([]RejectedRow, error) {
	return refused(ctx, db, pgx.RowToStructByPos[RejectedRow], `
		SELECT tenant, name, column_name, reason, rejected_at, row
		  FROM tidemark.rejects WHERE pipeline = $1 AND ($2 = '' OR name = $2) ORDER BY id DESC LIMIT $3`, pipeline, name, limit)
}

func refused[T any](ctx context.Context, db *pgxpool.Pool, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, _ := db.Query(ctx, sql, args...) // its error is that of the rows
	out, err := pgx.CollectRows(rows, scan)
	if code := fault.SQLState(err); code == "42P01" || code == "3F000" { // undefined_table, invalid_schema_name
		return nil, fault.Fix(fmt.Errorf("reading rejects: %w", err), "set CONTROL_DATABASE_URL, or DATABASE_URL, to the database of the control plane; the first run makes it there")
	}
	if err != nil {
		return nil, fmt.Errorf("reading rejects: %w", err)
	}
	return out, nil
}

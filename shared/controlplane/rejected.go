package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
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

// LastReject is the id of the unit's newest reject, 0 if it has none, and how many have no
// key to read them again by.
func (s *Store) LastReject(ctx context.Context, unit Unit) (id, keyless int64, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT coalesce(max(id), 0), count(*) FILTER (WHERE key = '[]') FROM tidemark.rejects
		WHERE kind = 'extract' AND pipeline = $1 AND tenant = $2 AND name = $3`, unit.Pipeline, unit.Tenant, unit.Table).Scan(&id, &keyless); err != nil {
		return 0, 0, fmt.Errorf("reading the rejects of %s: %w", unit.Table, err)
	}
	return id, keyless, nil
}

// RejectedKeys are the keys of the rows that were rejected in the batch of a position, or
// for position 0 since the backfill began; keyless is how many more have none.
func (s *Store) RejectedKeys(ctx context.Context, unit Unit, position int64) (keys [][]string, keyless int64, err error) {
	_, all, err := s.rejectKeys(ctx, unit, `($4::bigint > 0 AND position = $4 OR $4 = 0 AND rejected_at >=
		(SELECT started_at FROM tidemark.backfills WHERE pipeline = $1 AND tenant = $2 AND table_name = $3)) ORDER BY id`, position)
	for _, key := range all {
		if len(key) == 0 {
			keyless++
		} else {
			keys = append(keys, key)
		}
	}
	return keys, keyless, err
}

// Rejects returns the unit's rejected rows that can be read again by their key, oldest
// first, at most limit of those above the id after and up to another; all says that those
// count whose keys nothing may know.
func (s *Store) Rejects(ctx context.Context, unit Unit, after, upto int64, limit int, all bool) (ids []int64, keys [][]string, err error) {
	return s.rejectKeys(ctx, unit, `key IS NOT NULL AND ($7 OR key <> '[]') AND id > $4 AND id <= $5 ORDER BY id LIMIT $6`, after, upto, limit, all)
}

// rejectKeys are the ids and keys of those of the unit's rejects that the rest of a
// statement leaves; its parameters begin at $4.
func (s *Store) rejectKeys(ctx context.Context, unit Unit, rest string, args ...any) (ids []int64, keys [][]string, err error) {
	rows, err := s.pool.Query(ctx, `SELECT id, key FROM tidemark.rejects WHERE kind = 'extract' AND pipeline = $1 AND tenant = $2 AND name = $3 AND `+rest,
		append([]any{unit.Pipeline, unit.Tenant, unit.Table}, args...)...)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the rejects of %s: %w", unit.Table, err)
	}
	var id int64
	var key []string
	if _, err := pgx.ForEachRow(rows, []any{&id, &key}, func() error {
		ids, keys = append(ids, id), append(keys, slices.Clone(key))
		return nil
	}); err != nil {
		return nil, nil, fmt.Errorf("reading the rejects of %s: %w", unit.Table, err)
	}
	return ids, keys, nil
}

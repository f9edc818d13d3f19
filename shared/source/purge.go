package source

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PurgeTenants deletes what was logged for tenants that are not followed: of those
// nobody reads the log. known returns those that are, or are about to be: it is asked
// after the horizon is known, so that what a tenant logged since it was made known stays.
func PurgeTenants(ctx context.Context, source *pgxpool.Pool, pipeline string, known func(context.Context) ([]string, error)) (int64, error) {
	var horizon *string
	err := source.QueryRow(ctx, `
		SELECT CASE WHEN to_regclass('tidemark.change_log') IS NOT NULL AND NOT pg_is_in_recovery() THEN pg_snapshot_xmin(pg_current_snapshot())::text END`).Scan(&horizon)
	if err != nil {
		return 0, fmt.Errorf("looking for the change log: %w", err)
	}
	if horizon == nil {
		return 0, nil
	}
	tenants, err := known(ctx)
	if err != nil || len(tenants) == 0 {
		return 0, err
	}
	var purged int64
	err = pgx.BeginFunc(ctx, source, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '5s', true)`); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			DELETE FROM tidemark.change_log WHERE starts_with(feed, $1 || '/') AND tenant <> '' AND tenant <> ALL ($2) AND xid < $3::text::xid8`,
			pipeline, tenants, *horizon)
		purged = tag.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("purging the change log: %w", err)
	}
	return purged, nil
}

package controlplane

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ExpiryDue reports whether it is time to look for rows of the unit that were deleted
// for longer than they are kept: that is done once a day, by the database's clock. A
// table that nothing was read of has none.
func (s *Store) ExpiryDue(ctx context.Context, unit Unit) (due bool, err error) {
	// An hour short of a day, lest a daily tick that comes a second early skips one.
	err = s.pool.QueryRow(ctx, `
		SELECT cursor IS NOT NULL AND coalesce(expired_at < clock_timestamp() - interval '23 hours', true)
		  FROM tidemark.sync_state WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
		unit.Pipeline, unit.Tenant, unit.Table).Scan(&due)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading when deleted rows of %s were looked for: %w", unit.Table, err)
	}
	return due, nil
}

// Expired records that none is left.
func (s *Store) Expired(ctx context.Context, l *Lease, unit Unit) error {
	return l.write(ctx, "recording the retention", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE tidemark.sync_state SET expired_at = clock_timestamp() WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
			unit.Pipeline, unit.Tenant, unit.Table)
		return err
	})
}

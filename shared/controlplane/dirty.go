package controlplane

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Dirty is the part of a log that received versions since its last clean-up.
type Dirty struct {
	Partitions []string // BigQuery partition ids; "" alone is an unpartitioned log
	Position   int64    // above which is what was written to since
}

// Dirty returns what there is to clean up; no partitions, nothing to do.
func (s *Store) Dirty(ctx context.Context, unit Unit) (Dirty, error) {
	var d Dirty
	err := s.pool.QueryRow(ctx, `
		SELECT coalesce(array_agg(partition ORDER BY partition), '{}'), coalesce(max(position), 0)
		  FROM tidemark.dirty_partitions WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
		unit.Pipeline, unit.Tenant, unit.Table).Scan(&d.Partitions, &d.Position)
	if err != nil {
		return Dirty{}, fmt.Errorf("reading dirty partitions: %w", err)
	}
	return d, nil
}

// Cleaned forgets the partitions that a finished clean-up has covered. One that
// a newer batch has written to since stays dirty.
func (s *Store) Cleaned(ctx context.Context, l *Lease, unit Unit, d Dirty) error {
	return l.write(ctx, "recording the clean-up", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			DELETE FROM tidemark.dirty_partitions
			 WHERE pipeline = $1 AND tenant = $2 AND table_name = $3 AND partition = ANY($4) AND position <= $5`,
			unit.Pipeline, unit.Tenant, unit.Table, d.Partitions, d.Position)
		return err
	})
}

// dirty notes partitions that were written to. A clean-up under way forgets what was
// dirty up to the newest position it saw, so that this one is above all of them: that
// of the batch would not do, which in a backfill is low.
func dirty(ctx context.Context, tx pgx.Tx, unit Unit, partitions []string) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO tidemark.dirty_partitions AS d (pipeline, tenant, table_name, partition, position)
		SELECT $1, $2, $3, partition, 1 + greatest(
		       (SELECT max(position) FROM tidemark.dirty_partitions WHERE pipeline = $1 AND tenant = $2 AND table_name = $3),
		       (SELECT position FROM tidemark.sync_state WHERE pipeline = $1 AND tenant = $2 AND table_name = $3))
		  FROM unnest($4::text[]) AS partition
		ON CONFLICT (pipeline, tenant, table_name, partition) DO UPDATE SET position = excluded.position`,
		unit.Pipeline, unit.Tenant, unit.Table, partitions)
	return err
}

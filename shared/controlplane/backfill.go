package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Backfill is the reading of a whole table, beside its changes: at first sight,
// or again as a resync.
type Backfill struct {
	Generation  int    `json:"generation"`
	RequestedBy string `json:"requested_by"` // id of the message that asked for it; "" if none did
	// Barrier is a transaction id: chunks may be read once every transaction below it
	// has ended.
	Barrier   uint64    `json:"barrier"`
	BatchRows int64     `json:"batch_rows"` // rows committed at once
	Estimated int64     `json:"estimated_rows"`
	Started   time.Time `json:"started"` // by the clock of the control plane
	Finished  bool      `json:"finished"`
}

// Chunk is a part of a table that a backfill has not read to its end.
type Chunk struct {
	ID      int // from 1
	Range   json.RawMessage
	Cursor  json.RawMessage // nil before its first batch
	Pending *Pending
}

// NewBackfill is what StartBackfill begins.
type NewBackfill struct {
	Backfill
	Reason string
	Ranges []json.RawMessage
	Cursor json.RawMessage // from which changes are followed meanwhile
}

// StartBackfill records a backfill, its chunks and the cursor its changes are
// followed from, in one transaction, in place of any before. A generation above the
// present one becomes the unit's.
func (s *Store) StartBackfill(ctx context.Context, l *Lease, unit Unit, b NewBackfill) (State, error) {
	err := l.write(ctx, "starting the backfill", func(tx pgx.Tx) error {
		if err := forgetBackfill(ctx, tx, unit); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			UPDATE tidemark.sync_state SET cursor = $4, generation = greatest(generation, $5), truncated = ''
			 WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
			unit.Pipeline, unit.Tenant, unit.Table, b.Cursor, b.Generation); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO tidemark.backfills (pipeline, tenant, table_name, generation, requested_by, reason, barrier, batch_rows, estimated_rows)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			unit.Pipeline, unit.Tenant, unit.Table, b.Generation, b.RequestedBy, b.Reason, b.Barrier, b.BatchRows, b.Estimated); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO tidemark.backfill_chunks (pipeline, tenant, table_name, chunk, range)
			SELECT $1, $2, $3, n, range FROM unnest($4::jsonb[]) WITH ORDINALITY AS r(range, n)`,
			unit.Pipeline, unit.Tenant, unit.Table, b.Ranges)
		return err
	})
	if err != nil {
		return State{}, err
	}
	return s.State(ctx, unit)
}

func forgetBackfill(ctx context.Context, tx pgx.Tx, unit Unit) error {
	for _, table := range []string{"backfill_chunks", "backfills"} {
		if _, err := tx.Exec(ctx, `DELETE FROM tidemark.`+table+` WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
			unit.Pipeline, unit.Tenant, unit.Table); err != nil {
			return err
		}
	}
	return nil
}

// Chunks returns the chunks that are left, in order.
func (s *Store) Chunks(ctx context.Context, unit Unit) ([]Chunk, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT chunk, range, cursor, pending FROM tidemark.backfill_chunks
		 WHERE pipeline = $1 AND tenant = $2 AND table_name = $3 AND NOT done ORDER BY chunk`,
		unit.Pipeline, unit.Tenant, unit.Table)
	if err != nil {
		return nil, fmt.Errorf("reading the chunks of %s: %w", unit.Table, err)
	}
	chunks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Chunk])
	if err != nil {
		return nil, fmt.Errorf("reading the chunks of %s: %w", unit.Table, err)
	}
	return chunks, nil
}

// BackfillPosition is the position of the next backfilled batch: above those of all
// before it, and below that of any change.
func (s *Store) BackfillPosition(ctx context.Context) (int64, error) {
	var position int64
	if err := s.pool.QueryRow(ctx, `SELECT nextval('tidemark.backfill_position')`).Scan(&position); err != nil {
		return 0, fmt.Errorf("taking a position for the backfill: %w", err)
	}
	return position, nil
}

// FinishBackfill records that every chunk is done. partitions are those of the log
// that were written to in doing so.
func (s *Store) FinishBackfill(ctx context.Context, l *Lease, unit Unit, partitions []string) error {
	return l.write(ctx, "finishing the backfill", func(tx pgx.Tx) error {
		if err := dirty(ctx, tx, unit, partitions); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM tidemark.backfill_chunks WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
			unit.Pipeline, unit.Tenant, unit.Table); err != nil {
			return err
		}
		// Rows that were refused before have been read again since.
		if _, err := tx.Exec(ctx, `DELETE FROM tidemark.rejects r USING tidemark.backfills b
			WHERE b.pipeline = $1 AND b.tenant = $2 AND b.table_name = $3 AND r.kind = 'extract' AND r.pipeline = $1 AND r.tenant = $2 AND r.name = $3
			  AND r.key IS NOT NULL AND r.rejected_at < b.started_at`, unit.Pipeline, unit.Tenant, unit.Table); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE tidemark.backfills SET finished_at = clock_timestamp()
			WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`, unit.Pipeline, unit.Tenant, unit.Table)
		return err
	})
}

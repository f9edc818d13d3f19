package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Outcome is how a run ended.
type Outcome string

// The outcomes of a run. A run that was killed stays OutcomeRunning.
const (
	OutcomeRunning Outcome = "running"
	OutcomeOK      Outcome = "ok"
	OutcomeDryRun  Outcome = "dry_run"
	OutcomeSkipped Outcome = "skipped"
	OutcomeFailed  Outcome = "failed"
)

// Run is one entry of the log. Counts that batches have already added are left
// alone by FinishRun: it adds these to them.
type Run struct {
	Kind      string // extract, dedup, reverse_etl, message
	Unit      Unit   // Table is the table or the sync
	MessageID string

	Outcome                          Outcome
	Read, Written, Deleted, Rejected int64
	Bytes                            int64
	CursorBefore                     json.RawMessage
	Detail                           any // marshalled to JSON
	Error, Remedy                    string
}

// StartRun opens an entry and returns its id.
func (s *Store) StartRun(ctx context.Context, r Run) (int64, error) {
	var id int64
	err := s.pool.QueryRow(ctx, `
		INSERT INTO tidemark.runs (kind, pipeline, tenant, name, message_id, cursor_before)
		VALUES ($1, $2, $3, $4, $5, $6) RETURNING id`,
		r.Kind, r.Unit.Pipeline, r.Unit.Tenant, r.Unit.Table, r.MessageID, r.CursorBefore).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("opening the run record: %w", err)
	}
	return id, nil
}

// FinishRun closes an entry with its outcome or, where the run failed, with the
// failure and its remedy, even when the context of the run is over. It returns the
// failure, marked as recorded.
func (s *Store) FinishRun(ctx context.Context, id int64, r Run, failure error) error {
	if failure != nil {
		r.Outcome, r.Error = OutcomeFailed, failure.Error()
		_, r.Remedy = fault.Classify(failure)
	}
	ctx, cancel := Ending(ctx)
	defer cancel()
	return fault.Recorded(errors.Join(failure, s.closeRun(ctx, id, r)))
}

// Ending is the context for what a run still has to write when its own is over.
func Ending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
}

func (s *Store) closeRun(ctx context.Context, id int64, r Run) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE tidemark.runs
		   SET outcome = $2, finished_at = clock_timestamp(), rows_read = rows_read + $3, rows_written = rows_written + $4,
		       rows_deleted = rows_deleted + $5, rows_rejected = rows_rejected + $6, bytes = bytes + $7,
		       detail = $8, error = $9, remedy = $10
		 WHERE id = $1`,
		id, r.Outcome, r.Read, r.Written, r.Deleted, r.Rejected, r.Bytes, r.Detail, r.Error, r.Remedy)
	if err != nil {
		return fmt.Errorf("closing the run record: %w", err)
	}
	return nil
}

// RecordRun writes an entry that is over as soon as it began: a skip, or a
// message that could not be served.
func (s *Store) RecordRun(ctx context.Context, r Run) error {
	id, err := s.StartRun(ctx, r)
	if err != nil {
		return err
	}
	return s.closeRun(ctx, id, r)
}

// RecordRejects keeps the rows a reverse sync could not write, in place of those
// of its runs before: every run finds all of them anew. It returns how many were not
// there before.
func (s *Store) RecordRejects(ctx context.Context, unit Unit, run int64, rejects []Reject) (fresh int64, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			DELETE FROM tidemark.rejects WHERE kind = 'reverse_etl' AND pipeline = $1 AND tenant = $2 AND name = $3
			RETURNING column_name, reason, coalesce(row::text, '')`, unit.Pipeline, unit.Tenant, unit.Table)
		if err != nil {
			return err
		}
		type told struct{ column, reason, row string }
		before := map[told]bool{}
		var r told
		if _, err := pgx.ForEachRow(rows, []any{&r.column, &r.reason, &r.row}, func() error {
			before[r] = true
			return nil
		}); err != nil {
			return err
		}
		for _, r := range rejects {
			if !before[told{r.Column, r.Reason, string(r.Row)}] {
				fresh++
			}
		}
		return insertRejects(ctx, tx, "reverse_etl", unit, run, 0, rejects)
	})
	if err != nil {
		return 0, fmt.Errorf("recording rejects: %w", err)
	}
	return fresh, nil
}

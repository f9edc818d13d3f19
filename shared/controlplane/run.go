package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

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

const closeRunSQL = `
	UPDATE tidemark.runs
	   SET outcome = $2, finished_at = clock_timestamp(), rows_read = rows_read + $3, rows_written = rows_written + $4,
	       rows_deleted = rows_deleted + $5, rows_rejected = rows_rejected + $6, bytes = bytes + $7,
	       detail = $8, error = $9, remedy = $10
	 WHERE id = $1`

// closing are the arguments of closeRunSQL.
func (r *Run) closing(id int64) []any {
	return []any{id, r.Outcome, r.Read, r.Written, r.Deleted, r.Rejected, r.Bytes, r.Detail, r.Error, r.Remedy}
}

func (s *Store) closeRun(ctx context.Context, id int64, r Run) error {
	if _, err := s.pool.Exec(ctx, closeRunSQL, r.closing(id)...); err != nil {
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

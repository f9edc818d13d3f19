package source

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Retry reads rows again that could not be carried before, as they are now. Those that
// are gone, or that the declaration leaves out by now, are not written: that was a
// change, which the capture tells.
type Retry struct {
	*Rows
	Keys   [][]string      // as Whole.Key
	Cursor json.RawMessage // where the table stands, and stays
}

// Begin opens the read.
func (r *Retry) Begin(ctx context.Context, source *pgxpool.Pool) (Read, error) {
	s, err := openSession(ctx, source, r.Rows)
	if err != nil {
		return nil, err
	}
	return &retryRead{s, r}, nil
}

type retryRead struct {
	*session
	retry *Retry
}

// Unchanged is false: there are keys to look for.
func (r *retryRead) Unchanged() bool { return false }

// Copy writes the rows that are there.
func (r *retryRead) Copy(ctx context.Context, rows *rowwire.Transcoder) (Result, error) {
	if err := r.bindKeys(ctx, r.rows, r.retry.Keys); err != nil {
		return Result{}, err
	}
	return Result{Cursor: r.retry.Cursor}, r.copy(ctx, rows, r.rows.presentSQL("SELECT * FROM "+r.rows.boundKeys()+" AS keys"))
}

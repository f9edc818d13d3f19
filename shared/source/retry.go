package source

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Retry reads rows again that could not be carried before, as they are now. Those that
// are gone, or that the declaration leaves out by now, are not written: that was a
// change, which the capture tells.
type Retry struct {
	*Rows
	Keys   [][]string      // as Whole.Key
	Cursor json.RawMessage // where the table stands, and stays
	// Barrier is a transaction id: nothing is read before every transaction below it has
	// ended, lest what has landed of one of them be taken back.
	Barrier uint64
}

var errBarrier = errors.New("transactions are open from before the rows were to be read again")

// Begin opens the read. While the barrier stands, the error is transient.
func (r *Retry) Begin(ctx context.Context, source *pgxpool.Pool) (Read, error) {
	s, err := openSession(ctx, source, r.Rows)
	if err != nil {
		return nil, err
	}
	if s.now.xmin < r.Barrier {
		s.Close(ctx)
		return nil, &fault.Error{Class: fault.Transient, Err: errBarrier, Remedy: "the message comes again"}
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

package source

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Snapshot reads the whole table every time: what was there before and is not now
// is gone.
type Snapshot struct{ *Rows }

// Basis is the key.
func (c *Snapshot) Basis() string { return "snapshot" + c.basis() }

// Start returns nil: the first read is as whole as any.
func (c *Snapshot) Start(context.Context, *pgxpool.Pool) (json.RawMessage, error) { return nil, nil }

// Trim has nothing to forget.
func (c *Snapshot) Trim(context.Context, *pgxpool.Pool, json.RawMessage) error { return nil }

// Begin opens a read of the whole table.
func (c *Snapshot) Begin(ctx context.Context, source *pgxpool.Pool, _ json.RawMessage) (Read, error) {
	s, err := openSession(ctx, source, c.Rows)
	if err != nil {
		return nil, err
	}
	return &snapshotRead{s}, nil
}

type snapshotRead struct{ *session }

// Unchanged is never known.
func (r *snapshotRead) Unchanged() bool { return false }

// Copy writes every row after a truncation, all in one batch, so that readers see one
// snapshot or the other (I6).
func (r *snapshotRead) Copy(ctx context.Context, rows *rowwire.Transcoder) (Result, error) {
	var result Result
	truncated, err := rows.SkipPosition()
	if err != nil {
		return result, fmt.Errorf("reading %s: %w", r.rows.Table.Name, err)
	}
	result.Truncated = &truncated
	if result.Cursor, err = encode(map[string]time.Time{"at": r.at.UTC()}); err != nil {
		return result, err
	}
	return result, r.copy(ctx, rows, r.rows.selected()+" WHERE true"+r.rows.carriedSQL())
}

package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Capture finds the changes of one table since a cursor. Its cursors are JSON that
// only it reads.
type Capture interface {
	// Basis says what a cursor of this capture is about: with another one it would mean
	// something else.
	Basis() string
	// Start returns the cursor from which every change arrives that a later read of the
	// whole table does not have; nil where there is no such reading, because each read
	// is one. It makes what the method needs in the source.
	Start(ctx context.Context, source *pgxpool.Pool) (json.RawMessage, error)
	// Begin opens a read from the cursor. A *LostError says that the cursor can no longer
	// tell what changed.
	Begin(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) (Read, error)
	// Trim forgets, in the source, what a committed cursor has passed.
	Trim(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) error
}

// Read is one read inside one read-only snapshot. It holds a connection until Close.
type Read interface {
	// At is the source's clock when the snapshot was about to be taken.
	At() time.Time
	// Unchanged reports that there is nothing to look for.
	Unchanged() bool
	// Copy writes the rows that changed and tombstones for those that are gone, and says
	// where it ended. It is called once.
	Copy(ctx context.Context, rows *rowwire.Transcoder) (Result, error)
	// KeyOf copies the key's COPY bytes out of a whole row's.
	KeyOf(tuple [][]byte) [][]byte
	// Row returns one row of the snapshot whole, by what KeyOf returned.
	Row(ctx context.Context, key [][]byte) (Whole, error)
	// Close ends the snapshot and gives the connection back; a second one does nothing.
	Close(ctx context.Context)
}

// Result is where a read ended.
type Result struct {
	Cursor    json.RawMessage
	More      bool      // it stopped at its limit
	Trim      bool      // the source keeps what was consumed until it is trimmed
	Deleted   int64     // tombstones among the rows
	Truncated *int64    // position of the latest truncation among the rows: all older versions are gone
	Refused   []Refused // entries of a log that name no row
}

// Refused is an entry of a log that cannot be followed, whole.
type Refused struct {
	Column string
	Reason string
	Row    json.RawMessage
}

// Whole is a row that could not be carried.
type Whole struct {
	Row json.RawMessage // nil: it is gone
	Key []*string       // its key as text, as Retry takes it; nil where that is to be seen nowhere
}

// encode writes a cursor.
func encode(cursor any) (json.RawMessage, error) {
	text, err := json.Marshal(cursor)
	if err != nil {
		return nil, fmt.Errorf("writing the cursor: %w", err)
	}
	return text, nil
}

// LostError says that changes may have been missed: the whole table has to be read
// again.
type LostError struct{ Reason string }

func (e *LostError) Error() string { return "changes may have been missed: " + e.Reason }

// ErrStandby says that the source is a hot standby, which cannot serve what was asked.
var ErrStandby = errors.New("the source is a standby server")

// ErrChanged says that the table was altered after it was described.
var ErrChanged = errors.New("the table was altered meanwhile")

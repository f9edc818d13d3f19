package wal

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/pgoutput"
)

// Fence is where the copy of a table and the stream of its changes meet. Every
// transaction whose commit record begins below LSN has an id below XID, and so has
// every transaction that the slot, or the table's membership in the publication, came too late for.
//
// A snapshot whose xmin is XID or more (Open) has seen all of them end, so that a copy
// taken in it has all that the stream lacks. The rest is exact: a transaction that the snapshot sees is in the copy, and one
// that it does not see is in the stream as a whole. Changes of the former are to be skipped (Snapshot.Sees), not
// applied on top: an update that moves a row to another key without sending its unchanged values finds nothing at the old key of a copy that has
// the row at the new one already.
type Fence struct {
	LSN pgoutput.LSN
	XID uint64
}

// NewFence puts a fence at this moment: before a table's copy, after Ensure. A
// fence of a later moment is as good as an earlier one, so that a process that starts over needs
// none of the old ones.
//
// XID is a transaction id of our own. The xmax of a snapshot would not do: it is
// one above the newest id that has ended, and a transaction whose commit is already in the log but which
// still waits for a synchronous standby is running, invisible and may have a higher one.
func NewFence(ctx context.Context, pool *pgxpool.Pool) (Fence, error) {
	var f Fence
	// In this order: what is in the log at the first has its id before the second.
	if err := pool.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&f.LSN); err != nil {
		return Fence{}, fmt.Errorf("reading the log's position: %w", err)
	}
	var id string
	if err := pool.QueryRow(ctx, `SELECT pg_current_xact_id()::text`).Scan(&id); err != nil {
		return Fence{}, fmt.Errorf("taking a transaction id: %w", err)
	}
	var err error
	if f.XID, err = strconv.ParseUint(id, 10, 64); err != nil {
		return Fence{}, fmt.Errorf("reading the transaction id: %w", err)
	}
	return f, nil
}

// Open reports whether a copy may be read in this snapshot. Where it may not
// yet, transactions that are older than the fence are still open.
func (f Fence) Open(s Snapshot) bool { return s.xmin >= f.XID }

// Snapshot is what a copy was read in: pg_current_snapshot() inside the copy's own
// repeatable-read transaction.
type Snapshot struct {
	xmin, xmax uint64
	running    []uint64 // between the two
}

// ParseSnapshot reads the text of a pg_snapshot.
func ParseSnapshot(text string) (Snapshot, error) {
	bounds := strings.Split(text, ":")
	if len(bounds) != 3 {
		return Snapshot{}, fmt.Errorf("reading the snapshot %q: it does not have the form xmin:xmax:running", text)
	}
	var ids []uint64
	for _, field := range append(bounds[:2:2], strings.FieldsFunc(bounds[2], func(r rune) bool { return r == ',' })...) {
		id, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return Snapshot{}, fmt.Errorf("reading the snapshot %q: %w", text, err)
		}
		ids = append(ids, id)
	}
	return Snapshot{xmin: ids[0], xmax: ids[1], running: ids[2:]}, nil
}

// Sees reports whether what a transaction of the stream (Change.XID) did is in
// the snapshot. The stream has the lower half of ids, which is unique among those that a slot can hold.
func (s Snapshot) Sees(xid uint32) bool {
	full := s.xmin + uint64(int64(int32(xid-uint32(s.xmin)))) //nolint:gosec // modular arithmetic, as Postgres' own on xids
	return full < s.xmax && !slices.Contains(s.running, full)
}

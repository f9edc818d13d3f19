package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// State is where a table stands.
type State struct {
	Generation  int
	Position    int64           // of the newest committed batch, microseconds of the source's clock or later
	Cursor      json.RawMessage // nil before the first batch
	Pending     *Pending        // a batch whose commit is not known to have happened
	Basis       string          // what the cursor is about
	Fingerprint string          // of what the destination was last made to fit
	Destination string          // table that holds the rows; "" before it is known
	Live        bool            // what people query shows that table
	Shape       json.RawMessage // of the source's columns then; nil: not known
	Truncated   string          // version of a truncation whose drain is under way; "" for none
	Backfill    *Backfill       // the latest; nil before the first
}

// Place is where a batch leaves its cursor: a unit's own, or that of a chunk of
// its backfill.
type Place struct {
	Unit  Unit
	Chunk int // 0: the unit's own
}

// Pending is a batch written to a stream that is about to be committed: all
// that is needed to move the cursor if it turns out that it was.
type Pending struct {
	Stream     string          `json:"stream"`        // what the destination knows the batch by; "" for nothing to commit
	At         time.Time       `json:"at,omitzero"`   // _synced_at of the rows
	Sent       time.Time       `json:"sent,omitzero"` // when all of them had been sent, by the clock of the function
	Position   int64           `json:"position"`
	Cursor     json.RawMessage `json:"cursor"`
	Rows       int64           `json:"rows"`
	Read       int64           `json:"read"`
	Bytes      int64           `json:"bytes"`
	Rejected   int64           `json:"rejected"`
	Deleted    int64           `json:"deleted,omitempty"`   // tombstones among Rows
	Truncated  string          `json:"truncated,omitempty"` // _version of the latest truncation in the batch
	More       bool            `json:"more,omitempty"`      // of changes: the truncation waits for the last batch
	Done       bool            `json:"done,omitempty"`      // of a chunk: nothing is left of it
	Partitions []string        `json:"partitions,omitempty"`
	RunID      int64           `json:"run_id"`
	// Resolved are the rejects that the batch answers: with it they are forgotten.
	Resolved []int64 `json:"resolved,omitempty"`
}

// Reject is a row that could not be carried exactly, kept whole.
type Reject struct {
	Column string
	Reason string
	Row    json.RawMessage
	// Key is a JSON array of texts, empty where nothing may know them; nil of what is no row.
	Key json.RawMessage
}

// State reads where the unit of the lease stands; a table never seen stands at
// the beginning of generation 1.
func (s *Store) State(ctx context.Context, unit Unit) (State, error) {
	var st State
	err := s.pool.QueryRow(ctx, `
		SELECT s.generation, s.position, s.cursor, s.pending, s.basis, s.fingerprint, s.truncated, s.destination, s.live, s.shape,
		       CASE WHEN b.generation IS NOT NULL THEN json_build_object('generation', b.generation, 'requested_by', b.requested_by,
		            'barrier', b.barrier, 'batch_rows', b.batch_rows, 'estimated_rows', b.estimated_rows, 'started', b.started_at, 'finished', b.finished_at IS NOT NULL) END
		  FROM tidemark.sync_state s LEFT JOIN tidemark.backfills b USING (pipeline, tenant, table_name)
		 WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
		unit.Pipeline, unit.Tenant, unit.Table).
		Scan(&st.Generation, &st.Position, &st.Cursor, &st.Pending, &st.Basis, &st.Fingerprint, &st.Truncated, &st.Destination, &st.Live, &st.Shape, &st.Backfill)
	if errors.Is(err, pgx.ErrNoRows) {
		return State{Generation: 1, Live: true}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("reading the state of %s: %w", unit.Table, err)
	}
	return st, nil
}

// Tenants returns the tenants of a pipeline that have a state, in order.
func (s *Store) Tenants(ctx context.Context, pipeline string) ([]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT DISTINCT tenant FROM tidemark.sync_state WHERE pipeline = $1 ORDER BY 1`, pipeline)
	if err != nil {
		return nil, fmt.Errorf("reading the tenants of %s: %w", pipeline, err)
	}
	tenants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading the tenants of %s: %w", pipeline, err)
	}
	return tenants, nil
}

// Succeeded returns when each table of a pipeline and tenant was last found or
// brought up to date, or, of one that never was, when its first run began; and what
// the time is now, all by the database's clock. One without any run is left out.
func (s *Store) Succeeded(ctx context.Context, pipeline, tenant string) (at map[string]time.Time, now time.Time, err error) {
	rows, err := s.pool.Query(ctx, `
		SELECT table_name, at, clock_timestamp() FROM (
			SELECT table_name, coalesce(succeeded_at, (SELECT min(started_at) FROM tidemark.runs r
			        WHERE r.kind = 'extract' AND r.pipeline = s.pipeline AND r.tenant = s.tenant AND r.name = s.table_name)) AS at
			  FROM tidemark.sync_state s WHERE pipeline = $1 AND tenant = $2) t
		 WHERE at IS NOT NULL`, pipeline, tenant)
	if err != nil {
		return nil, now, fmt.Errorf("reading when the tables of %s last succeeded: %w", pipeline, err)
	}
	at = map[string]time.Time{}
	var table string
	var succeeded time.Time
	if _, err := pgx.ForEachRow(rows, []any{&table, &succeeded, &now}, func() error {
		at[table] = succeeded
		return nil
	}); err != nil {
		return nil, now, fmt.Errorf("reading when the tables of %s last succeeded: %w", pipeline, err)
	}
	return at, now, nil
}

// The tables that cursors and pending commits are kept in.
const (
	inSyncState = `tidemark.sync_state WHERE pipeline = $1 AND tenant = $2 AND table_name = $3 AND $4 = 0`
	inChunks    = `tidemark.backfill_chunks WHERE pipeline = $1 AND tenant = $2 AND table_name = $3 AND chunk = $4`
)

// update writes what of the place's row is set.
func (p Place) update(ctx context.Context, tx pgx.Tx, set string, args ...any) error {
	table, where, _ := strings.Cut(inSyncState, " ")
	if p.Chunk != 0 {
		table, where, _ = strings.Cut(inChunks, " ")
	}
	args = append([]any{p.Unit.Pipeline, p.Unit.Tenant, p.Unit.Table, p.Chunk}, args...)
	tag, err := tx.Exec(ctx, "UPDATE "+table+" SET "+set+" "+where, args...)
	if err == nil && tag.RowsAffected() != 1 {
		err = fmt.Errorf("%s has no place %d", p.Unit.Table, p.Chunk)
	}
	return err
}

// SavePending records, before the commit, the stream that is about to be
// committed, with the rows refused on the way. A crash from here on is resolved
// by asking the destination what became of the stream (I4).
func (s *Store) SavePending(ctx context.Context, l *Lease, at Place, p Pending, rejects []Reject) error {
	return l.write(ctx, "saving the pending commit", func(tx pgx.Tx) error {
		if err := insertRejects(ctx, tx, "extract", at.Unit, p.RunID, p.Position, rejects); err != nil {
			return err
		}
		return at.update(ctx, tx, "pending = $5", p)
	})
}

// CommitBatch moves the cursor to where the batch ended and adds the batch to
// its run, in one transaction. The caller has made sure that every row of it is
// durable at the destination.
func (s *Store) CommitBatch(ctx context.Context, l *Lease, at Place, p Pending, rejects []Reject) error {
	return l.write(ctx, "moving the cursor", func(tx pgx.Tx) error { // I1
		if err := insertRejects(ctx, tx, "extract", at.Unit, p.RunID, p.Position, rejects); err != nil {
			return err
		}
		if err := at.commit(ctx, tx, p); err != nil {
			return err
		}
		if err := dirty(ctx, tx, at.Unit, p.Partitions); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM tidemark.rejects WHERE id = ANY ($1)`, p.Resolved); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			UPDATE tidemark.runs
			   SET rows_read = rows_read + $2, rows_written = rows_written + $3, rows_rejected = rows_rejected + $4,
			       bytes = bytes + $5, rows_deleted = rows_deleted + $7, cursor_after = CASE WHEN $8 THEN cursor_after ELSE $6 END
			 WHERE id = $1`, p.RunID, p.Read, p.Rows, p.Rejected, p.Bytes, p.Cursor, p.Deleted, at.Chunk != 0)
		return err
	})
}

func (p Place) commit(ctx context.Context, tx pgx.Tx, b Pending) error {
	if p.Chunk == 0 {
		return p.update(ctx, tx, `cursor = $5, position = greatest(position, $6), pending = NULL, succeeded_at = clock_timestamp(),
			truncated = CASE WHEN $7 THEN coalesce(nullif($8, ''), truncated) ELSE '' END`, b.Cursor, b.Position, b.More, b.Truncated)
	}
	if err := p.update(ctx, tx, "cursor = $5, done = $6, pending = NULL", b.Cursor, b.Done); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE tidemark.backfills SET rows = rows + $4, rejected = rejected + $5
		WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
		p.Unit.Pipeline, p.Unit.Tenant, p.Unit.Table, b.Read, b.Rejected)
	return err
}

// DiscardPending forgets a batch whose stream was never committed, with the
// rejects it had met: the rows are read again.
func (s *Store) DiscardPending(ctx context.Context, l *Lease, at Place, p Pending) error {
	return l.write(ctx, "discarding the pending commit", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM tidemark.rejects
			WHERE kind = 'extract' AND pipeline = $1 AND tenant = $2 AND name = $3 AND position = $4`,
			at.Unit.Pipeline, at.Unit.Tenant, at.Unit.Table, p.Position); err != nil {
			return err
		}
		if at.Chunk != 0 {
			return at.update(ctx, tx, "pending = NULL")
		}
		// The position stays used: a late commit of that stream must never tie with a new batch.
		return at.update(ctx, tx, "pending = NULL, position = greatest(position, $5)", p.Position)
	})
}

// Touch records that the unit was looked at and had nothing to do, and where
// the next look starts.
func (s *Store) Touch(ctx context.Context, l *Lease, unit Unit, cursor json.RawMessage) error {
	return l.write(ctx, "recording the look", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE tidemark.sync_state SET cursor = $4, succeeded_at = clock_timestamp()
			WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`, unit.Pipeline, unit.Tenant, unit.Table, cursor)
		return err
	})
}

// Preparation is what the destination was made to fit, and what the cursor is about.
type Preparation struct {
	Fingerprint string
	Basis       string
	Destination string
	Live        bool
	Shape       json.RawMessage
	Reread      bool // the cursor is forgotten whatever the basis: every row has to come again
}

// Prepared records a preparation; it comes before every other write of a unit, and makes
// its row. Where the basis is another one than before, the cursor means nothing any more:
// it is forgotten with the backfill, and a new generation begins.
func (s *Store) Prepared(ctx context.Context, l *Lease, unit Unit, p Preparation) (State, error) {
	err := l.write(ctx, "recording the schema", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO tidemark.sync_state (pipeline, tenant, table_name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			unit.Pipeline, unit.Tenant, unit.Table); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			UPDATE tidemark.sync_state SET generation = generation + 1, cursor = NULL, pending = NULL, truncated = ''
			 WHERE pipeline = $1 AND tenant = $2 AND table_name = $3 AND (basis NOT IN ('', $4) OR $5)`,
			unit.Pipeline, unit.Tenant, unit.Table, p.Basis, p.Reread)
		if err != nil {
			return err
		}
		if tag.RowsAffected() > 0 {
			if err := forgetBackfill(ctx, tx, unit); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `UPDATE tidemark.sync_state SET fingerprint = $4, basis = $5, destination = $6, live = $7, shape = $8
			WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
			unit.Pipeline, unit.Tenant, unit.Table, p.Fingerprint, p.Basis, p.Destination, p.Live, p.Shape)
		return err
	})
	if err != nil {
		return State{}, err
	}
	return s.State(ctx, unit)
}

// WentLive records that what people query shows the destination.
func (s *Store) WentLive(ctx context.Context, l *Lease, unit Unit) error {
	return l.write(ctx, "recording that the table is live", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE tidemark.sync_state SET live = true WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
			unit.Pipeline, unit.Tenant, unit.Table)
		return err
	})
}

// Reserve makes sure that no later batch gets the position, whatever becomes of this
// one: of a batch whose rows are seen before it is committed.
func (s *Store) Reserve(ctx context.Context, l *Lease, unit Unit, position int64) error {
	return l.write(ctx, "reserving the position", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE tidemark.sync_state SET position = greatest(position, $4) WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`,
			unit.Pipeline, unit.Tenant, unit.Table, position)
		return err
	})
}

// CountLoad counts a load job that is about to be started, unless the unit's table has had
// as many as the limit within the last day: then it is not counted, and may not be started.
func (s *Store) CountLoad(ctx context.Context, l *Lease, unit Unit, limit int) (counted bool, err error) {
	err = l.write(ctx, "counting the load job", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM tidemark.load_jobs WHERE pipeline = $1 AND tenant = $2 AND table_name = $3
			AND started_at < clock_timestamp() - interval '1 day'`, unit.Pipeline, unit.Tenant, unit.Table); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO tidemark.load_jobs (pipeline, tenant, table_name) SELECT $1, $2, $3
			 WHERE (SELECT count(*) FROM tidemark.load_jobs WHERE pipeline = $1 AND tenant = $2 AND table_name = $3) < $4`,
			unit.Pipeline, unit.Tenant, unit.Table, limit)
		counted = tag.RowsAffected() == 1
		return err
	})
	return counted, err
}

// Distrust has the next run look at the destination again.
func (s *Store) Distrust(ctx context.Context, l *Lease, unit Unit) error {
	return l.write(ctx, "distrusting the schema", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE tidemark.sync_state SET fingerprint = ''
			WHERE pipeline = $1 AND tenant = $2 AND table_name = $3`, unit.Pipeline, unit.Tenant, unit.Table)
		return err
	})
}

func insertRejects(ctx context.Context, tx pgx.Tx, kind string, unit Unit, run, position int64, rejects []Reject) error {
	for _, r := range rejects {
		if _, err := tx.Exec(ctx, `
			INSERT INTO tidemark.rejects (run_id, kind, pipeline, tenant, name, position, column_name, reason, row, key)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			run, kind, unit.Pipeline, unit.Tenant, unit.Table, position, r.Column, r.Reason, r.Row, r.Key); err != nil {
			return err
		}
	}
	return nil
}

package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// SyncState is where a reverse sync stands.
type SyncState struct {
	Mapping  string          // fingerprint of what is written where: a position under another one means nothing
	Position json.RawMessage // where the next run begins in the source; nil: with every row
	Rows     *int64          // that the last full comparison read; nil: there was none
	FullAge  *time.Duration  // since that began, by the database's clock; nil: there was none
}

// SyncState reads where the sync of the unit stands: its zero value, if it never came
// to an end.
func (s *Store) SyncState(ctx context.Context, unit Unit) (SyncState, error) {
	var st SyncState
	err := s.pool.QueryRow(ctx, `
		SELECT mapping, position, rows, clock_timestamp() - full_at FROM tidemark.reverse_state
		 WHERE pipeline = $1 AND tenant = $2 AND sync = $3`, unit.Pipeline, unit.Tenant, unit.Table).
		Scan(&st.Mapping, &st.Position, &st.Rows, &st.FullAge)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return SyncState{}, fmt.Errorf("reading the state of the sync %s: %w", unit.Table, err)
	}
	return st, nil
}

// SyncRejects are the fingerprints of the keys of the sync's rejected rows.
func (s *Store) SyncRejects(ctx context.Context, unit Unit) ([]int64, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT DISTINCT (key->>0)::bigint FROM tidemark.rejects
		 WHERE kind = 'reverse_etl' AND pipeline = $1 AND tenant = $2 AND name = $3 AND key IS NOT NULL`, unit.Pipeline, unit.Tenant, unit.Table)
	if err != nil {
		return nil, fmt.Errorf("reading the rejects of the sync %s: %w", unit.Table, err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("reading the rejects of the sync %s: %w", unit.Table, err)
	}
	return keys, nil
}

// FingerprintKey is the key of a reject that is known by its fingerprint.
func FingerprintKey(fingerprint int64) json.RawMessage {
	return json.RawMessage(`["` + strconv.FormatInt(fingerprint, 10) + `"]`)
}

// PastRun is an earlier run of a sync that a message refers to.
type PastRun struct {
	Outcome Outcome
	Detail  json.RawMessage
	UsedBy  int64 // the run that did to the end what was asked with a reference to it; 0: none
}

// PastRun reads the run of the unit that a message refers to by the field of detail, an
// override or a plan. The error is permanent if there is no such run.
func (s *Store) PastRun(ctx context.Context, unit Unit, id int64, field string) (PastRun, error) {
	var r PastRun
	err := s.pool.QueryRow(ctx, `
		SELECT outcome, coalesce(detail, '{}'), coalesce((
		       SELECT max(u.id) FROM tidemark.runs u
		        WHERE (u.kind, u.pipeline, u.tenant, u.name) = (r.kind, r.pipeline, r.tenant, r.name) AND u.id > r.id
		          AND u.outcome = 'ok' AND u.detail->>$5 = r.id::text AND u.detail->>'left' IS DISTINCT FROM 'true'), 0)
		  FROM tidemark.runs r
		 WHERE kind = 'reverse_etl' AND pipeline = $1 AND tenant = $2 AND name = $3 AND id = $4`,
		unit.Pipeline, unit.Tenant, unit.Table, id, field).Scan(&r.Outcome, &r.Detail, &r.UsedBy)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, fault.Fix(fmt.Errorf("there is no run %d of the sync %s", id, unit.Table), "name the id of a run of this very sync and tenant: tidemark.runs has them")
	}
	if err != nil {
		return r, fmt.Errorf("reading run %d: %w", id, err)
	}
	return r, nil
}

// SyncEnd is what the end of a run of a sync changes beside its record.
type SyncEnd struct {
	State *SyncState // where it stands from now on; nil: where it did. FullAge is ignored
	Full  bool       // this was a full comparison, as old as the run
	Whole bool       // every row of the source was compared
	// Rejects are the rows refused. They take the place of those with a key that there
	// are, or, where Kept, of those with the same key; of those without one, that no run
	// but a full one meets again, they take the place where this was one.
	Rejects []Reject
	Kept    bool
	Plan    int64  // a dry run of which Rest is left to be applied; 0: none
	Rest    string // digest; "": not known
}

// FinishSync closes a run that began with StartRun as FinishRun does, and moves where
// its sync stands, in one transaction under its lease. fresh is how many of the rejects
// no run has told of.
func (s *Store) FinishSync(ctx context.Context, l *Lease, id int64, r Run, end SyncEnd, failure error) (fresh int64, err error) {
	ctx, cancel := Ending(ctx)
	defer cancel()
	if failure == nil {
		failure = l.write(ctx, "moving the sync's position", func(tx pgx.Tx) error { // I1
			if fresh, err = end.keep(ctx, tx, r.Unit, id); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, closeRunSQL, r.closing(id)...)
			return err
		})
		if failure == nil {
			return fresh, nil
		}
	}
	end.Kept, end.State = true, nil // a run that failed before it found any says nothing of those there are
	failure = errors.Join(failure, pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		fresh, err = end.keep(ctx, tx, r.Unit, id)
		return err
	}))
	return fresh, s.FinishRun(ctx, id, r, failure)
}

// keep writes what the end changes beside the run's record.
func (e SyncEnd) keep(ctx context.Context, tx pgx.Tx, unit Unit, id int64) (fresh int64, err error) {
	if fresh, err = replaceRejects(ctx, tx, unit, id, e); err != nil {
		return 0, err
	}
	return fresh, e.move(ctx, tx, unit, id)
}

func (e SyncEnd) move(ctx context.Context, tx pgx.Tx, unit Unit, id int64) error {
	if e.State != nil {
		if _, err := tx.Exec(ctx, `
			INSERT INTO tidemark.reverse_state AS s (pipeline, tenant, sync, mapping, position, rows, full_at)
			SELECT $1, $2, $3, $4, $5, $6, started_at FROM tidemark.runs WHERE id = $7
			ON CONFLICT (pipeline, tenant, sync) DO UPDATE
			   SET mapping = excluded.mapping, position = excluded.position, rows = excluded.rows,
			       full_at = CASE WHEN $8 THEN excluded.full_at ELSE s.full_at END`,
			unit.Pipeline, unit.Tenant, unit.Table, e.State.Mapping, e.State.Position, e.State.Rows, id, e.Full); err != nil {
			return err
		}
	}
	if e.Plan == 0 || e.Rest == "" {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE tidemark.runs SET detail = jsonb_set(detail, '{digest}', to_jsonb($2::text)) WHERE id = $1`, e.Plan, e.Rest)
	return err
}

// replaceRejects replaces what is kept of a sync's rows: each run meets again the rows
// that still cannot be written. fresh are those that were not there before, with the
// same reason.
func replaceRejects(ctx context.Context, tx pgx.Tx, unit Unit, run int64, end SyncEnd) (fresh int64, err error) {
	var keys, keyless []string
	for _, r := range end.Rejects {
		if r.Key != nil {
			keys = append(keys, string(r.Key))
		} else {
			keyless = append(keyless, string(r.Row))
		}
	}
	rows, err := tx.Query(ctx, `
		DELETE FROM tidemark.rejects WHERE kind = 'reverse_etl' AND pipeline = $1 AND tenant = $2 AND name = $3
		   AND CASE WHEN key IS NULL THEN $7 AND NOT $4 OR coalesce(row::text, '') = ANY ($6) ELSE NOT $4 OR key::text = ANY ($5) END
		RETURNING column_name, reason, coalesce(row::text, '')`, unit.Pipeline, unit.Tenant, unit.Table, end.Kept, keys, keyless, end.Whole)
	if err != nil {
		return 0, fmt.Errorf("recording rejects: %w", err)
	}
	type told struct{ column, reason, row string }
	before := map[told]bool{}
	var r told
	if _, err := pgx.ForEachRow(rows, []any{&r.column, &r.reason, &r.row}, func() error {
		before[r] = true
		return nil
	}); err != nil {
		return 0, fmt.Errorf("recording rejects: %w", err)
	}
	for _, r := range end.Rejects {
		if !before[told{r.Column, r.Reason, string(r.Row)}] {
			fresh++
		}
	}
	if err := insertRejects(ctx, tx, "reverse_etl", unit, run, 0, end.Rejects); err != nil {
		return 0, fmt.Errorf("recording rejects: %w", err)
	}
	return fresh, nil
}

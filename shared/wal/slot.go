package wal

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pgoutput"
)

const plugin = "pgoutput"

// ErrLost says that a slot can no longer be read: it is gone or was invalidated,
// or its publication is gone. Ensure tells why; the tables have to be copied again.
var ErrLost = errors.New("the changes since the last run are lost")

// slotRow is a slot as pg_replication_slots shows it.
type slotRow struct {
	found     bool
	plugin    string
	kind      string // logical or physical
	database  string
	here      bool // in this database
	temporary bool
	twoPhase  bool
	pid       int32 // of who reads it now, or 0
	restart   pgoutput.LSN
	confirmed pgoutput.LSN
	status    string // wal_status
	invalid   string // why newer servers invalidated it
	lag       int64
}

// Columns that only newer servers have are read through the row's JSON.
const slotSQL = `
	SELECT coalesce(s.plugin::text, ''), s.slot_type, coalesce(s.database::text, ''), coalesce(s.database = current_database(), false),
	       s.temporary, s.two_phase, coalesce(s.active_pid, 0), s.restart_lsn::text, s.confirmed_flush_lsn::text, coalesce(s.wal_status, ''),
	       coalesce(to_jsonb(s) ->> 'invalidation_reason', CASE WHEN (to_jsonb(s) ->> 'conflicting')::bool THEN 'conflict with recovery' END, ''),
	       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint
	  FROM pg_replication_slots s WHERE s.slot_name = $1`

func readSlot(ctx context.Context, q querier, name string) (slotRow, error) {
	r := slotRow{found: true}
	err := q.QueryRow(ctx, slotSQL, name).Scan(&r.plugin, &r.kind, &r.database, &r.here, &r.temporary, &r.twoPhase, &r.pid,
		&r.restart, &r.confirmed, &r.status, &r.invalid, &r.lag)
	if errors.Is(err, pgx.ErrNoRows) {
		return slotRow{}, nil
	}
	if err != nil {
		return slotRow{}, fmt.Errorf("reading slot %s: %w", name, err)
	}
	return r, nil
}

// lost is why the slot can never be read again, or "".
func (r slotRow) lost() string {
	switch {
	case r.invalid != "":
		return "Postgres invalidated the slot: " + r.invalid
	case r.status == "lost":
		return "Postgres removed log that the slot still needed (max_slot_wal_keep_size)"
	}
	return ""
}

// fits refuses a slot of our name that we did not make.
func (r slotRow) fits(name string) error {
	var what string
	switch {
	case r.kind != "logical" || r.plugin != plugin:
		what = fmt.Sprintf("is a %s slot of plugin %q, not a logical one of %s", r.kind, r.plugin, plugin)
	case !r.here:
		what = "belongs to database " + r.database
	case r.temporary:
		what = "is temporary"
	case r.twoPhase:
		what = "was made for two-phase commit"
	default:
		return nil
	}
	return fault.Fix(fmt.Errorf("replication slot %s %s", name, what),
		"drop it if nothing else uses it: SELECT pg_drop_replication_slot('"+name+"'); or rename the pipeline")
}

// errActive is the transient error for a slot that somebody reads.
func errActive(name string, pid int32, err error) error {
	return &fault.Error{
		Class: fault.Transient, Err: fmt.Errorf("replication slot %s is in use by process %d: %w", name, pid, err),
		Remedy: fmt.Sprintf("another run is reading it and will end; if none should be: SELECT pg_terminate_backend(%d)", pid),
	}
}

// explain says what a refusal to use a slot means, from its code and the state
// of the slot and its publication.
func explain(ctx context.Context, q querier, name string, refusal error) error {
	switch fault.SQLState(refusal) {
	case "55006", "42704", "55000", "58P01", "XX000": // in use; undefined object; wrong state; segment gone; internal
	default:
		return refusal
	}
	slot, err := readSlot(ctx, q, name)
	if err != nil {
		return errors.Join(refusal, err)
	}
	if fault.SQLState(refusal) == "55006" {
		return errActive(name, slot.pid, refusal)
	}
	var published bool
	if err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)`, name).Scan(&published); err != nil {
		return errors.Join(refusal, fmt.Errorf("looking for publication %s: %w", name, err))
	}
	var why string
	switch {
	case !slot.found:
		why = "replication slot " + name + " is gone"
	case slot.lost() != "":
		why = slot.lost()
	case !published:
		why = "publication " + name + " is gone"
	case fault.SQLState(refusal) == "42704":
		// It exists now and did not at the point of the log that is being read.
		why = "publication " + name + " was made anew while the slot was kept"
	default:
		return refusal
	}
	return &fault.Error{
		Class: fault.Transient, Err: fmt.Errorf("%w: %s: %w", ErrLost, why, refusal),
		Remedy: "the next run makes the slot anew and copies its tables again",
	}
}

// Advance tells Postgres that everything committed below lsn is durable
// elsewhere (I1): the slot will not hand it over again and lets go of its log. It never
// goes backwards: an lsn the slot is past already changes nothing. A crash of the server may
// take the slot back to an earlier position, so that every run advances to its own state's first.
func Advance(ctx context.Context, pool *pgxpool.Pool, slot string, lsn pgoutput.LSN) error {
	err := inTx(ctx, pool, pgx.ReadOnly, decodingTimeout, func(tx pgx.Tx) error {
		row, err := readSlot(ctx, tx, slot)
		if err != nil {
			return err
		}
		if row.found && row.lost() == "" && row.confirmed >= lsn {
			return nil
		}
		var end pgoutput.LSN
		if err := tx.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&end); err != nil {
			return fmt.Errorf("reading the log's end: %w", err)
		}
		if row.found && end < lsn {
			return fault.Fix(fmt.Errorf("%w: the log ends at %s, below the position %s that was read before: the server was restored to an earlier state", ErrLost, end, lsn),
				"send the pipeline's message with full: true, which copies its tables again")
		}
		_, err = tx.Exec(ctx, `SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)`, slot, lsn.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("advancing replication slot %s to %s: %w", slot, lsn, explain(ctx, pool, slot, err))
	}
	return nil
}

// DropSlot drops a slot of this database if it exists and leaves its
// publication: what a lost slot needs before Ensure makes it anew. A slot that
// is being read is a transient error.
func DropSlot(ctx context.Context, pool *pgxpool.Pool, slot string) error {
	_, err := pool.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()`, slot)
	switch fault.SQLState(err) {
	case "42704": // somebody was faster
		return nil
	case "55006":
		err = explain(ctx, pool, slot, err)
	}
	if err != nil {
		return fmt.Errorf("dropping replication slot %s: %w", slot, err)
	}
	return nil
}

// Drop drops a pipeline's slot and publication, if they exist. A slot that is
// being read is a transient error, a publication of somebody else's a permanent one
// that carries the statement.
func Drop(ctx context.Context, pool *pgxpool.Pool, pipeline string) error {
	name, err := slotName(ctx, pool, pipeline)
	if err != nil {
		return err
	}
	if err := DropSlot(ctx, pool, name); err != nil {
		return err
	}
	drop := "DROP PUBLICATION IF EXISTS " + catalog.Quote(name)
	err = inTx(ctx, pool, pgx.ReadWrite, catalogueTimeout, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, drop)
		return err
	})
	if err != nil {
		return fmt.Errorf("dropping publication %s: %w", name, byHand(err, drop))
	}
	return nil
}

// byHand gives a refusal for want of rights the statement that somebody else
// has to run.
func byHand(err error, statements string) error {
	if fault.SQLState(err) != "42501" {
		return err
	}
	return fault.Fix(err, "have the tables' and the publication's owner run: "+statements)
}

// Lag is what a slot of ours holds back.
type Lag struct {
	Slot      string
	Active    bool         // somebody reads it right now
	Status    string       // wal_status: reserved, extended, unreserved or lost
	Confirmed pgoutput.LSN // everything below it is durable elsewhere
	Bytes     int64        // of log that the server keeps for the slot
	Safe      int64        // bytes that may still be written before the slot is lost; -1: no limit
}

// Lags returns every slot of this database that this product made, whether a
// pipeline still wants it or not.
func Lags(ctx context.Context, pool *pgxpool.Pool) ([]Lag, error) {
	rows, err := pool.Query(ctx, `
		SELECT slot_name::text, active, coalesce(wal_status, ''), confirmed_flush_lsn::text,
		       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint,
		       coalesce(safe_wal_size, -1)
		  FROM pg_replication_slots WHERE database = current_database() AND NOT temporary AND starts_with(slot_name::text, $1) ORDER BY slot_name`, prefix)
	if err != nil {
		return nil, fmt.Errorf("reading the slots: %w", err)
	}
	lags, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Lag, error) {
		var l Lag
		return l, row.Scan(&l.Slot, &l.Active, &l.Status, &l.Confirmed, &l.Bytes, &l.Safe)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the slots: %w", err)
	}
	return lags, nil
}

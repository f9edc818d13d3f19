package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pgoutput"
)

// create makes the slot. It waits until every transaction that is open now has
// ended, twice.
//
// A slot that was just made cannot be trusted with what comes next: a transaction that
// altered or truncated a table before decoding saw all changes, and committed while the slot was
// being made, is taken for unfinished in the first snapshots of the catalogue (snapbuild.c notes such transactions only
// from its state FULL_SNAPSHOT on, and keeps the snapshot until the next change of the catalogue; measured on 15.18).
// Rows are then read by the table's old shape, or decoding fails for ever with "could not map filenode". It is over
// once decoding starts from a state that was saved after the slot's beginning. So the slot begins as a temporary
// one, is moved on until its restart point is past that, and is then copied to its name: whoever
// dies meanwhile leaves nothing behind.
func create(ctx context.Context, pool *pgxpool.Pool, name string) error {
	err := createIn(ctx, pool, name)
	if err == nil {
		return nil
	}
	switch fault.SQLState(err) {
	case "57014", "55P03": // statement or lock timeout
		err = errWaiting(err)
	case "53400": // configuration limit
		err = fault.Fix(err, "raise max_replication_slots (Cloud SQL: the flag of that name) and restart, or drop slots that nothing reads "+
			"(SELECT slot_name, database FROM pg_replication_slots WHERE NOT active): making one takes two places for a moment")
	case "42501":
		if s, serverErr := readServer(ctx, pool); serverErr == nil && !s.replication {
			err = fault.Fix(err, replicationRemedy(s.role))
		}
	case "55000":
		if s, serverErr := readServer(ctx, pool); serverErr == nil && s.walLevel != "logical" {
			err = fault.Fix(err, walLevelRemedy)
		}
	}
	return fmt.Errorf("creating replication slot %s: %w", name, err)
}

func errWaiting(err error) error {
	return &fault.Error{
		Class: fault.Transient, Err: err,
		Remedy: "a slot begins when the transactions that were open before it have ended; end the oldest ones: " +
			"SELECT pid, xact_start, state, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start; SELECT gid, prepared FROM pg_prepared_xacts",
	}
}

// createIn does it in a session of its own, with which the temporary slots end.
func createIn(ctx context.Context, pool *pgxpool.Pool, name string) error {
	deadline := time.Now().Add(within(ctx, creationTimeout*2) / 2) // so that the server gives up before the caller does
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	conn := pooled.Hijack()
	defer func() {
		closing, done := context.WithTimeout(context.WithoutCancel(ctx), lockTimeout)
		defer done()
		_ = conn.Close(closing) // whatever it says, the session ends
	}()
	c := creating{conn: conn, deadline: deadline, slot: fmt.Sprintf("%sbegins_%d", prefix, conn.PgConn().PID()), other: fmt.Sprintf("%ssettles_%d", prefix, conn.PgConn().PID())}
	return c.run(ctx, name)
}

// creating is a slot in the making.
type creating struct {
	conn     *pgx.Conn
	deadline time.Time
	slot     string // temporary
	other    string // another, whose making logs the running transactions and waits for them to end
}

func (c *creating) run(ctx context.Context, name string) error {
	if err := c.exec(ctx, `SELECT pg_create_logical_replication_slot($1, $2, true)`, c.slot, plugin); err != nil {
		return err
	}
	begin, err := readSlot(ctx, c.conn, c.slot)
	if err != nil {
		return err
	}
	for restart := pgoutput.LSN(0); restart < begin.confirmed; {
		if restart, err = c.settle(ctx); err != nil {
			return err
		}
	}
	return c.exec(ctx, `SELECT pg_copy_logical_replication_slot($1, $2, false)`, c.slot, name)
}

// settle moves the slot on and returns where its decoding starts now.
func (c *creating) settle(ctx context.Context) (pgoutput.LSN, error) {
	if err := c.exec(ctx, `SELECT pg_create_logical_replication_slot($1, $2, true)`, c.other, plugin); err != nil {
		return 0, err
	}
	if err := c.exec(ctx, `SELECT pg_drop_replication_slot($1)`, c.other); err != nil {
		return 0, err
	}
	if err := c.exec(ctx, `SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())`, c.slot); err != nil {
		return 0, err
	}
	row, err := readSlot(ctx, c.conn, c.slot)
	return row.restart, err
}

// exec runs a statement in what is left of the time.
func (c *creating) exec(ctx context.Context, sql string, args ...any) error {
	left := time.Until(c.deadline)
	if left <= 0 {
		return errWaiting(errors.New("transactions did not end in time"))
	}
	// It waits for transactions, not for tables: nobody queues behind it, and no lock_timeout is needed.
	_, err := c.conn.Exec(ctx, `SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', '0', false)`, milliseconds(max(left, time.Millisecond)))
	if err != nil {
		return fmt.Errorf("setting the timeouts: %w", err)
	}
	if _, err := c.conn.Exec(ctx, sql, args...); err != nil {
		return err //nolint:wrapcheck // create says what it was for
	}
	return nil
}

package wal

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// How long statements may take: those that only touch the catalogue, and those
// that decode the log, which the caller's deadline bounds further.
const (
	catalogueTimeout = 30 * time.Second
	decodingTimeout  = 9 * time.Minute
	creationTimeout  = time.Minute
	lockTimeout      = 5 * time.Second
)

// timeouts bound what follows in the transaction. A wait for a lock on a table
// is short because whoever comes later queues behind it (I10).
func timeouts(ctx context.Context, tx pgx.Tx, statement, lock time.Duration) error {
	_, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true)`,
		milliseconds(statement), milliseconds(lock))
	if err != nil {
		return fmt.Errorf("setting the timeouts: %w", err)
	}
	return nil
}

// milliseconds is a setting's value; 0 is no limit.
func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// within is the limit, or what is left until the caller's deadline if that is less.
func within(ctx context.Context, limit time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	return max(limit, time.Millisecond)
}

// inTx runs f in a transaction with bounded statements.
func inTx(ctx context.Context, pool *pgxpool.Pool, mode pgx.TxAccessMode, statement time.Duration, f func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: mode}, func(tx pgx.Tx) error { //nolint:wrapcheck // the callers say what they do
		if err := timeouts(ctx, tx, within(ctx, statement), lockTimeout); err != nil {
			return err
		}
		return f(tx)
	})
}

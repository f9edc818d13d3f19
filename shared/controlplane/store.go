// Package controlplane keeps what Tidemark knows between ticks, in the Postgres
// schema tidemark: where each table stands, who works on it, what every run
// did, and the rows that were refused.
//
// Its one promise is invariant I1: a cursor moves in the same transaction as
// the record of the run that earned it, and only for the holder of the lease.
package controlplane

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/tidemark-data/tidemark/schemas"
)

// Store is the control plane. It is safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
}

// Owner is the Postgres role that owns the control plane where several users
// share it: each is a member, so that what the first of them creates the others
// can use and migrate. Without that role the user who came first owns it.
const Owner = "tidemark"

// migrationLock is the advisory lock that serializes migrations: "tidemark" in hex.
const migrationLock = 0x74696465_6d61726b

// Open brings the control-plane schema up to date, under a lock, and returns
// the store. It needs CREATE on the database the first time.
func Open(ctx context.Context, pool *pgxpool.Pool) (*Store, error) {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	if err := createSchema(ctx, db); err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock))
	if err != nil {
		return nil, fmt.Errorf("preparing the migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, schemas.ControlPlane(),
		goose.WithTableName("tidemark.schema_version"), goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, fmt.Errorf("reading control-plane migrations: %w", err)
	}
	pending, err := provider.HasPending(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the control-plane version: %w", err)
	}
	if pending {
		if _, err := provider.Up(ctx); err != nil {
			return nil, fmt.Errorf("migrating the control plane: %w", err)
		}
	}
	return &Store{pool: pool}, nil
}

// createSchema makes the schema the version table lives in. Two functions
// starting at once would race in CREATE SCHEMA IF NOT EXISTS, so it is locked.
func createSchema(ctx context.Context, db *sql.DB) error {
	var exists bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'tidemark')`).Scan(&exists); err != nil {
		return fmt.Errorf("looking for the control plane: %w", err)
	}
	if exists {
		return nil
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("creating the control plane: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(migrationLock)+1); err != nil {
		return fmt.Errorf("creating the control plane: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS tidemark`); err != nil {
		return fmt.Errorf("creating the control plane: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("creating the control plane: %w", err)
	}
	return nil
}

// Unit names what a state belongs to: a table of a tenant of a pipeline.
// Tenant is empty where the pipeline has none.
type Unit struct {
	Pipeline, Tenant, Table string
}

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
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/fault"
)

// Store is the control plane. It is safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
}

// Schema is where the control plane lives. Where several users share it, a role of
// which each is a member owns it, and they act as that role; otherwise the user who
// came first does.
const Schema = "tidemark"

// Open brings the control-plane schema up to date, under a lock, and returns the
// store. It needs CREATE on the database where the schema does not exist, and else
// to act as the schema's owner.
//
// Versions run side by side while one replaces the other, and one may be taken
// back. So an older version works on the schema of a newer one, which it leaves
// as it is, and migrations only expand:
//   - They add tables, indexes, and columns that are nullable or have a constant
//     default. What a release still uses is neither renamed, retyped, constrained
//     nor dropped; it is dropped by a later one, when no release that uses it runs.
//   - Their numbers only grow. One that was released is never changed.
//   - Each is short and locks one table, for which it waits a few seconds at most.
//     An index on a large table is made CONCURRENTLY, in a migration without a
//     transaction that first drops what an attempt before may have left of it, and
//     that waits for as long as it takes: SET lock_timeout = 0.
//
// The JSON in cursor, pending and detail follows the same rule: a version ignores
// the fields it does not know and does not keep them, so the absence of a field has
// to mean what it meant before there was one.
func Open(ctx context.Context, pool *pgxpool.Pool) (*Store, error) {
	return OpenWith(ctx, pool, schemas.ControlPlane())
}

// OpenWith is Open for a version with other migrations, *.sql at the root of a
// file system.
func OpenWith(ctx context.Context, pool *pgxpool.Pool, migrations fs.FS) (*Store, error) {
	var standby bool
	if err := pool.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby); err != nil {
		return nil, explained(fmt.Errorf("looking for the control plane: %w", err), "", pool.Config().ConnConfig)
	}
	if standby {
		return nil, fault.Fix(errors.New("the server that is to hold the control plane is a standby, which takes no writes"),
			"set CONTROL_DATABASE_URL to its primary, or to any other Postgres")
	}
	owner, versioned, err := look(ctx, pool)
	if err == nil {
		err = migrate(ctx, pool, migrations, owner != "", versioned)
	}
	if err != nil {
		return nil, explained(err, owner, pool.Config().ConnConfig)
	}
	return &Store{pool: pool}, nil
}

// look returns the role that owns the schema, "" if there is no schema, and
// whether a version has been there before.
func look(ctx context.Context, pool *pgxpool.Pool) (owner string, versioned bool, err error) {
	err = pool.QueryRow(ctx, `
		SELECT pg_get_userbyid(n.nspowner), EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'schema_version')
		  FROM pg_namespace n WHERE n.nspname = 'tidemark'`).Scan(&owner, &versioned)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", false, fmt.Errorf("looking for the control plane: %w", err)
	}
	return owner, versioned, nil
}

func migrate(ctx context.Context, pool *pgxpool.Pool, migrations fs.FS, exists, versioned bool) error {
	if !exists {
		if err := createSchema(ctx, pool); err != nil {
			return fmt.Errorf("creating the control plane: %w", err)
		}
	}
	advisory, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(1, 30))
	if err != nil {
		return fmt.Errorf("preparing the migration lock: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations,
		goose.WithTableName("tidemark.schema_version"), goose.WithSessionLocker(patient{advisory}),
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return fmt.Errorf("reading control-plane migrations: %w", err)
	}
	if versioned { // else HasPending would make the version table, without the lock
		pending, err := provider.HasPending(ctx)
		if err != nil {
			return fmt.Errorf("reading the control-plane version: %w", err)
		}
		if !pending {
			return nil
		}
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrating the control plane: %w", err)
	}
	return nil
}

// migrationLock is the advisory lock that serializes migrations: "tidemark" in hex.
const migrationLock = 0x74696465_6d61726b

// patient is the migration lock of a session that waits for the tables it alters,
// but not for long: everybody else waits behind it meanwhile.
type patient struct{ lock.SessionLocker }

// SessionLock takes the lock, waiting half a minute for another migration to end.
func (p patient) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, `SET lock_timeout = '3s'`); err != nil {
		return fmt.Errorf("bounding the wait for locks: %w", err)
	}
	if err := p.SessionLocker.SessionLock(ctx, conn); err != nil {
		return errors.Join(err, unbounded(context.WithoutCancel(ctx), conn))
	}
	return nil
}

// SessionUnlock gives the lock back and leaves the session as it was.
func (p patient) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	return errors.Join(p.SessionLocker.SessionUnlock(ctx, conn), unbounded(ctx, conn))
}

func unbounded(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, `RESET lock_timeout`); err != nil {
		return fmt.Errorf("resetting the wait for locks: %w", err)
	}
	return nil
}

// explained adds the remedy: the right that is missing, or who is in the way.
func explained(err error, owner string, config *pgx.ConnConfig) error {
	database, user := pgx.Identifier{config.Database}.Sanitize(), pgx.Identifier{config.User}.Sanitize()
	var connecting *pgconn.ConnectError
	switch code := fault.SQLState(err); {
	case code == "42501" && errors.As(err, &connecting): // insufficient_privilege
		return fault.Fix(err, fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s", database, user))
	case code == "42501" && owner == "":
		return fault.Fix(err, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s; or, for several users, CREATE SCHEMA tidemark AUTHORIZATION a role that all are members of", database, user))
	case code == "42501" && owner == config.User:
		return fault.Fix(err, "look for what in the schema tidemark does not belong to its owner, and ALTER .. OWNER TO "+user)
	case code == "42501":
		return fault.Fix(err, fmt.Sprintf("GRANT %s TO %s", pgx.Identifier{owner}.Sanitize(), user))
	case code == "55P03": // lock_not_available
		return &fault.Error{Class: fault.Transient, Remedy: "the next message tries again; end the transactions that hold tables of the schema tidemark, see pg_locks", Err: err}
	}
	return err
}

// createSchema makes the schema the version table lives in. Two functions
// starting at once would race in CREATE SCHEMA IF NOT EXISTS, so it is locked.
func createSchema(ctx context.Context, pool *pgxpool.Pool) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(migrationLock)+1); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS tidemark`)
		return err
	})
}

// Unit names what a state belongs to: a table of a tenant of a pipeline.
// Tenant is empty where the pipeline has none.
type Unit struct {
	Pipeline, Tenant, Table string
}

// Pool is the pool of the database that the control plane is in.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

package controlplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// Lease is the right to work on one unit until it expires (I5). While it is
// held a goroutine renews it; its context ends when it could not.
type Lease struct {
	store  *Store
	unit   string
	holder string
	token  int64

	ctx  context.Context //nolint:containedctx // the lifetime of the lease is what a lease is
	stop context.CancelCauseFunc
	done chan struct{}
}

// ErrHeld is returned by Take when another run holds the lease: a normal
// outcome, to be recorded as a skip.
var ErrHeld = errors.New("another run holds the lease")

// ErrLost is the cause of a lease's context, and the error of every write under
// it, once the lease went to somebody else or could not be renewed in time.
var ErrLost = errors.New("the lease was lost")

// ttl is how long a killed run blocks its unit, by the database's clock. A lease
// is renewed every third of it, so a run may last as long as it likes.
const ttl = 45 * time.Second

// acquire takes the lease of a unit of a kind of work, or returns ErrHeld.
func (s *Store) acquire(ctx context.Context, kind string, unit Unit) (*Lease, error) {
	l := &Lease{store: s, unit: kind + "/" + unit.Pipeline + "/" + unit.Tenant + "/" + unit.Table, holder: rand.Text()}
	err := s.pool.QueryRow(ctx, `
		INSERT INTO tidemark.leases AS l (unit, holder, token, expires_at)
		VALUES ($1, $2, 1, clock_timestamp() + $3)
		ON CONFLICT (unit) DO UPDATE
		   SET holder = excluded.holder, token = l.token + 1, expires_at = excluded.expires_at
		 WHERE l.expires_at <= clock_timestamp()
		RETURNING token`, l.unit, l.holder, ttl).Scan(&l.token)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrHeld
	}
	if err != nil {
		return nil, fmt.Errorf("taking the lease of %s: %w", l.unit, err)
	}
	l.ctx, l.stop = context.WithCancelCause(ctx)
	l.done = make(chan struct{})
	go l.renew()
	return l, nil
}

// Take acquires the lease of the run's kind and unit, to be renewed until Release.
// Where another run holds it, the skip is put into the log of runs, and the error
// is ErrHeld.
func (s *Store) Take(ctx context.Context, r Run) (*Lease, error) {
	l, err := s.acquire(ctx, r.Kind, r.Unit)
	if !errors.Is(err, ErrHeld) {
		return l, err
	}
	slog.InfoContext(ctx, "skipped: another run holds the lease")
	r.Outcome, r.Error = OutcomeSkipped, err.Error()
	if failed := s.RecordRun(ctx, r); failed != nil {
		return nil, failed
	}
	return nil, err
}

// Context ends when the lease does: work done under it cannot outlive it.
func (l *Lease) Context() context.Context { return l.ctx }

func (l *Lease) renew() {
	defer close(l.done)
	ticker := time.NewTicker(ttl / 3)
	defer ticker.Stop()
	renewed := time.Now()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-ticker.C:
		}
		asked := time.Now() // not when the answer came: the expiry counts from here
		attempt, cancel := context.WithTimeout(l.ctx, ttl/4)
		tag, err := l.store.pool.Exec(attempt, `
			UPDATE tidemark.leases SET expires_at = clock_timestamp() + $3
			 WHERE unit = $1 AND token = $2 AND holder = $4`, l.unit, l.token, ttl, l.holder)
		cancel()
		switch {
		case err == nil && tag.RowsAffected() == 0, err != nil && time.Since(renewed) > ttl*2/3:
			l.stop(ErrLost) // I5: stop before anyone else may start
			return
		case err != nil:
			slog.WarnContext(l.ctx, "renewing the lease", "unit", l.unit, "error", err)
		default:
			renewed = asked
		}
	}
}

// Release gives the lease back. It is called once, and works after the run's
// context has ended. What could not be given back expires by itself.
func (l *Lease) Release(ctx context.Context) {
	l.stop(nil)
	<-l.done
	ctx, cancel := Ending(ctx)
	defer cancel()
	_, err := l.store.pool.Exec(ctx, `
		UPDATE tidemark.leases SET expires_at = clock_timestamp()
		 WHERE unit = $1 AND token = $2 AND holder = $3`, l.unit, l.token, l.holder)
	if err != nil {
		slog.WarnContext(ctx, "releasing the lease; it will expire", "error", err)
	}
}

// check locks the lease's row and fails with ErrLost unless it is still ours:
// the fence of every write (I5).
func (l *Lease) check(ctx context.Context, tx pgx.Tx) error {
	var held bool
	err := tx.QueryRow(ctx, `
		SELECT token = $2 AND holder = $3 FROM tidemark.leases WHERE unit = $1 FOR UPDATE`,
		l.unit, l.token, l.holder).Scan(&held)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("checking the lease of %s: %w", l.unit, err)
	}
	if !held {
		return ErrLost
	}
	return nil
}

// write runs f in one transaction, fenced by the lease (I1, I5).
func (l *Lease) write(ctx context.Context, what string, f func(pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, l.store.pool, func(tx pgx.Tx) error {
		if err := l.check(ctx, tx); err != nil {
			return err
		}
		return f(tx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Token grows with every holder of the lease: it tells this run's things from
// those of an earlier one.
func (l *Lease) Token() int64 { return l.token }

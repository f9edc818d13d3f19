package target

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
)

const (
	lookEvery = time.Second // between two looks at the database's load, while there is work
	firstWait = 250 * time.Millisecond
	longWait  = 5 * time.Second
)

// watch is what a run knows of the load on its database.
type watch struct {
	looked time.Time     // when a look last found nothing
	paused time.Duration // in all
	vacuum time.Duration // of that, for an autovacuum
	why    string        // what the run last paused for
	blind  bool          // it is said that limits cannot be watched
}

// pressure is a limit of the sync that is exceeded.
type pressure struct {
	why    string // "" for none
	vacuum bool   // it is an autovacuum, whose end is not to be waited for at any price
}

// settle waits until no limit is exceeded that protects the database: the lag of
// a standby, what a slot holds back, an autovacuum of the table. It is for
// between two batches, where no transaction is open, and looks once a second at
// most. False: keepGoing said no while it waited.
func (s *Staging) settle(ctx context.Context, w *watch, keepGoing func() bool) (bool, error) {
	if time.Since(w.looked) < lookEvery {
		return true, nil
	}
	now, err := s.pressure(ctx, w)
	if err == nil && now.why != "" {
		slog.InfoContext(ctx, "paused", "reason", now.why)
		began := time.Now()
		now, err = s.relief(ctx, w, now, keepGoing)
		took := time.Since(began)
		w.paused += took
		slog.InfoContext(ctx, "pause ended", "reason", w.why, "paused_s", took.Seconds(), "resumes", err == nil && now.why == "")
	}
	if err != nil {
		return false, err
	}
	w.looked = time.Now()
	return now.why == "", nil
}

// relief returns what still presses when keepGoing said no, or nothing.
func (s *Staging) relief(ctx context.Context, w *watch, now pressure, keepGoing func() bool) (pressure, error) {
	for wait := firstWait; now.why != ""; wait = min(2*wait, longWait) {
		w.why = now.why
		if !keepGoing() {
			return now, nil
		}
		took := wait
		if now.vacuum {
			took = min(wait, s.sync.Limits.MaxAutovacuumPause-w.vacuum)
			w.vacuum += took
		}
		if err := pause(ctx, took); err != nil {
			return now, err
		}
		var err error
		if now, err = s.pressure(ctx, w); err != nil {
			return now, err
		}
	}
	return now, nil
}

// pressure looks at the limits that the sync has. What the role may not see is
// not watched, which is said once a run.
func (s *Staging) pressure(ctx context.Context, w *watch) (pressure, error) {
	limits := s.sync.Limits
	vacuum := max(limits.MaxAutovacuumPause-w.vacuum, 0)
	if limits.MaxReplicationLag <= 0 && limits.MaxSlotLag <= 0 && vacuum == 0 {
		return pressure{}, nil
	}
	var sees bool
	var kind, name string
	var bytes int64
	err := s.catalogue(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, pressureSQL, s.table.OID(), limits.MaxReplicationLag, limits.MaxSlotLag, vacuum > 0).Scan(&sees, &kind, &name, &bytes)
	})
	switch fault.SQLState(err) {
	case "42501", "0A000": // insufficient_privilege, feature_not_supported: a provider has taken a function away
		s.warnBlind(ctx, w, err)
		return pressure{}, nil
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return pressure{}, fmt.Errorf("looking at the load of the database: %w", err)
	}
	if !sees && (limits.MaxReplicationLag > 0 || limits.MaxAutovacuumPause > 0) {
		s.warnBlind(ctx, w, nil)
	}
	switch kind {
	case "standby":
		return pressure{why: fmt.Sprintf("standby %s has %d bytes to replay, more than the %d of max_replication_lag", name, bytes, limits.MaxReplicationLag)}, nil
	case "slot":
		return pressure{why: fmt.Sprintf("replication slot %s holds back %d bytes, more than the %d of max_slot_lag", name, bytes, limits.MaxSlotLag)}, nil
	case "autovacuum":
		return pressure{why: "an autovacuum works on " + name, vacuum: true}, nil
	}
	return pressure{}, nil
}

func (s *Staging) warnBlind(ctx context.Context, w *watch, err error) {
	if w.blind {
		return
	}
	w.blind = true
	const message = "the role may not see how the database is loaded: the sync does not wait for it"
	if err != nil {
		slog.WarnContext(ctx, message, "error", err, "remedy", "grant what the error names, or set max_replication_lag, max_slot_lag and max_autovacuum_pause to 0")
		return
	}
	slog.WarnContext(ctx, message, "hidden", "how far standbys lag, and where autovacuum works",
		"remedy", "GRANT pg_read_all_stats TO "+catalog.Quote(s.pool.Config().ConnConfig.User)+", or set max_replication_lag and max_autovacuum_pause to 0")
}

// pressureSQL returns one row: whether the role sees what other roles do, and the
// first limit that is exceeded, by whom and by how much. $1 is the table, $2 how many
// bytes a standby may have to replay, $3 how many an active slot may hold back (0: no
// limit), $4 whether autovacuum counts. A logical WAL sender is its slot's, no standby;
// a base backup or pg_receivewal replays nothing. For slots that nobody reads one would
// wait in vain. A server in recovery writes no log.
const pressureSQL = treeSQL + `, here AS MATERIALIZED (
		SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END AS lsn
	), found AS (
		SELECT 1 AS rank, 'standby' AS kind, COALESCE(NULLIF(r.application_name, ''), r.pid::text) AS name, here.lsn - r.replay_lsn AS bytes
		  FROM here, pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
		 WHERE $2::bigint > 0 AND s.slot_type IS DISTINCT FROM 'logical' AND here.lsn - r.replay_lsn > $2
		UNION ALL
		SELECT 2, 'slot', s.slot_name, here.lsn - COALESCE(s.confirmed_flush_lsn, s.restart_lsn)
		  FROM here, pg_replication_slots s
		 WHERE $3::bigint > 0 AND s.active AND here.lsn - COALESCE(s.confirmed_flush_lsn, s.restart_lsn) > $3
		UNION ALL
		SELECT 3, 'autovacuum', c.oid::regclass::text, 0
		  FROM pg_stat_progress_vacuum v
		  JOIN pg_stat_activity a ON a.pid = v.pid AND a.backend_type = 'autovacuum worker'
		  JOIN pg_class c ON v.relid IN (c.oid, c.reltoastrelid)
		 WHERE $4 AND v.datname = current_database() AND c.oid IN (SELECT relation FROM tree)
	)
	SELECT pg_has_role('pg_read_all_stats', 'USAGE'), COALESCE(kind, ''), COALESCE(name, ''), COALESCE(bytes, 0)::bigint
	  FROM (SELECT) one LEFT JOIN (SELECT * FROM found ORDER BY rank, bytes DESC LIMIT 1) worst ON true`

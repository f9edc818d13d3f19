package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// clone makes the cluster a copy of the primary's that goes on following it.
func (s *Server) clone(ctx context.Context) error {
	primary := s.options.StandbyOf
	cmd := s.command(exec.CommandContext(ctx, filepath.Join(s.bin, "pg_basebackup"),
		"-D", s.data(), "-h", loopback, "-p", strconv.Itoa(primary.Port()), "-U", User,
		"--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-manifest", "--no-sync", "--no-password"))
	cmd.Env = append(cmd.Env, "PGPASSWORD="+primary.options.Password)
	if err := run(cmd); err != nil {
		return fmt.Errorf("copying the primary: %w", err)
	}
	return nil
}

// inherit takes over the primary's settings, below those of the standby's own: some
// must not be lower than there. The superuser and the password are the primary's.
func (o Options) inherit() Options {
	if o.StandbyOf == nil {
		return o
	}
	settings := maps.Clone(o.StandbyOf.options.Settings)
	if settings == nil {
		settings = map[string]string{}
	}
	maps.Copy(settings, o.Settings)
	o.Settings, o.Password = settings, o.StandbyOf.options.Password
	return o
}

// CatchUp waits until a standby has replayed all that its primary has written by
// now, that of open transactions too.
func (s *Server) CatchUp(ctx context.Context) error {
	if s.options.StandbyOf == nil {
		return errors.New("catching up: the server is no standby")
	}
	conn, err := pgx.Connect(ctx, s.options.StandbyOf.URL("postgres"))
	if err != nil {
		return fmt.Errorf("catching up: connecting to the primary: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var lsn string
	var flushed bool
	if err := conn.QueryRow(ctx, "SELECT lsn::text, pg_current_wal_flush_lsn() >= lsn FROM pg_current_wal_insert_lsn() AS lsn").Scan(&lsn, &flushed); err != nil {
		return fmt.Errorf("catching up: asking the primary where it is: %w", err)
	}
	if !flushed { // what no commit waits for may stay in memory for seconds
		if _, err := conn.Exec(ctx, "CHECKPOINT"); err != nil {
			return fmt.Errorf("catching up: flushing the primary's log: %w", err)
		}
	}
	return s.Replayed(ctx, lsn)
}

// Replayed waits until a standby has replayed the write-ahead log up to lsn.
func (s *Server) Replayed(ctx context.Context, lsn string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return fmt.Errorf("waiting for the standby: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		var replayed *bool // NULL: not a standby, or nothing replayed yet
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn).Scan(&replayed); err != nil {
			return fmt.Errorf("waiting for the standby: %w", err)
		}
		if replayed != nil && *replayed {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the standby to replay %s: %w", lsn, ctx.Err())
		case <-ticker.C:
		}
	}
}

package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemark-data/tidemark/test/postgres"
)

func TestStandbyFollowsItsPrimary(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]postgres.Options{
		"trusted":  {Settings: map[string]string{"max_connections": "250", "wal_level": "logical"}},
		"password": {Password: "s3cret/@: '"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := start(t, options)
			here := connect(t, primary.URL("postgres"))
			execute(t, here, "CREATE TABLE counted AS SELECT generate_series(1, 10) AS id")
			standby := start(t, postgres.Options{StandbyOf: primary, Settings: map[string]string{"application_name": "second"}})
			there := connect(t, standby.URL("postgres"))
			for round := range 3 {
				execute(t, here, "INSERT INTO counted SELECT generate_series(1, 10)")
				if err := standby.CatchUp(t.Context()); err != nil {
					t.Fatal(err)
				}
				want := []string{"20", "30", "40"}[round]
				if got := text(t, there, "SELECT count(*)::text FROM counted"); got != want {
					t.Errorf("the standby has %s rows after catching up, want %s", got, want)
				}
			}
			_, err := there.Exec(t.Context(), "DELETE FROM counted")
			if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "25006" {
				t.Errorf("writing to the standby: got %v, want SQLSTATE 25006", err)
			}
			if got, want := text(t, there, "SELECT current_setting('max_connections') || current_setting('wal_level') || current_setting('application_name')"),
				text(t, here, "SELECT current_setting('max_connections') || current_setting('wal_level') || 'second'"); got != want {
				t.Errorf("the standby's settings are %s, want %s", got, want)
			}
			if err := errors.Join(standby.Restart(t.Context()), standby.CatchUp(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
}

// What an open transaction wrote is there, and not to be seen.
func TestCatchUpIncludesOpenTransactions(t *testing.T) {
	t.Parallel()
	primary := start(t, postgres.Options{})
	here := connect(t, primary.URL("postgres"))
	execute(t, here, "CREATE TABLE counted (id int)")
	standby := start(t, postgres.Options{StandbyOf: primary})
	execute(t, here, "BEGIN")
	execute(t, here, "INSERT INTO counted VALUES (1)")
	xid := text(t, here, "SELECT pg_current_xact_id()::text")
	if err := standby.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	there := connect(t, standby.URL("postgres"))
	if got := text(t, there, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"); got != xid {
		t.Errorf("the oldest transaction that runs is %s on the standby, want %s", got, xid)
	}
	if got := text(t, there, "SELECT count(*)::text FROM counted"); got != "0" {
		t.Errorf("the standby shows %s rows of an open transaction", got)
	}
	execute(t, here, "COMMIT")
	if err := standby.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := text(t, there, "SELECT count(*)::text FROM counted"); got != "1" {
		t.Errorf("the standby shows %s rows, want 1", got)
	}
}

func TestWaitingForTheStandbyEnds(t *testing.T) {
	t.Parallel()
	primary := start(t, postgres.Options{})
	if err := primary.CatchUp(t.Context()); err == nil {
		t.Error("a primary catches up")
	}
	standby := start(t, postgres.Options{StandbyOf: primary})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := standby.Replayed(ctx, "FFFF/0"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for what is never written: %v", err)
	}
}

func TestStatementsSayWhatADatabaseCost(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{Settings: postgres.StatementSettings()})
	execute(t, connect(t, server.URL("postgres")), "CREATE DATABASE measured")
	address := server.URL("measured")
	conn := connect(t, address)
	execute(t, conn, "SELECT count(*) FROM generate_series(1, 10) AS before")
	if err := postgres.ResetStatements(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		execute(t, conn, "SELECT count(*) FROM generate_series(1, 300000) AS n")
	}
	execute(t, conn, "SELECT 1")
	execute(t, connect(t, server.URL("postgres")), "SELECT count(*) FROM generate_series(1, 20) AS elsewhere")
	statements, total, err := postgres.Statements(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	if len(statements) != 2 {
		t.Fatalf("statements: %+v", statements)
	}
	if s := statements[0]; s.Query != "SELECT count(*) FROM generate_series($1, $2) AS n" || s.Calls != 3 || s.Rows != 3 || s.Execute < time.Millisecond || s.Plan <= 0 {
		t.Errorf("the costly one: %+v", s)
	}
	if want := statements[0].Plan + statements[0].Execute + statements[1].Plan + statements[1].Execute; total != want {
		t.Errorf("total %v, want %v", total, want)
	}
	if got := text(t, conn, "SELECT count(*)::text FROM pg_extension WHERE extname = 'pg_stat_statements'"); got != "0" {
		t.Error("the measured database has the extension")
	}
}

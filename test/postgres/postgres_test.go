package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemark-data/tidemark/test/postgres"
)

// victimVariable makes this test binary a program that starts a server, says
// where, and waits to be killed.
const victimVariable = "TIDEMARK_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victimVariable) != "" {
		victim()
		return
	}
	postgres.Main(m)
}

func victim() {
	server, err := postgres.Start(context.Background(), postgres.Options{})
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	conn, err := pgx.Connect(context.Background(), server.URL("postgres"))
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	var data string
	if err := conn.QueryRow(context.Background(), "SHOW data_directory").Scan(&data); err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, server.Port(), data)
	select {}
}

func TestServerListensOnLoopbackOnlyAndTakesSettings(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{Settings: map[string]string{
		"wal_level": "logical", "max_connections": "37", "application_name": "it's quoted",
	}})
	conn := connect(t, server.URL("postgres"))
	got := map[string]string{}
	for _, name := range []string{"wal_level", "max_connections", "application_name", "listen_addresses", "fsync", "server_encoding", "TimeZone"} {
		got[name] = text(t, conn, "SELECT current_setting($1)", name)
	}
	want := map[string]string{
		"wal_level": "logical", "max_connections": "37", "application_name": "it's quoted",
		"listen_addresses": "127.0.0.1", "fsync": "off", "server_encoding": "UTF8", "TimeZone": "UTC",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestPasswordIsRequired(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{Password: "s3cret/@:"})
	connect(t, server.URL("postgres"))
	config, err := pgx.ParseConfig(server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "wrong"
	_, err = pgx.ConnectConfig(t.Context(), config)
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || refused.Code != "28P01" {
		t.Errorf("connecting with a wrong password: got %v, want SQLSTATE 28P01", err)
	}
}

func TestKilledServerRecoversWhatWasCommitted(t *testing.T) {
	t.Parallel()
	server := start(t, postgres.Options{})
	address := server.URL("postgres")
	conn := connect(t, address)
	execute(t, conn, "CREATE TABLE kept (id int PRIMARY KEY)")
	execute(t, conn, "INSERT INTO kept SELECT generate_series(1, 1000)")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Fatal("the killed server still answers")
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if server.URL("postgres") != address {
		t.Errorf("the address changed from %s to %s", address, server.URL("postgres"))
	}
	if got := text(t, connect(t, address), "SELECT count(*)::text FROM kept"); got != "1000" {
		t.Errorf("rows after the crash: got %s, want 1000", got)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Errorf("restarting a running server: %v", err)
	}
	connect(t, address)
}

func TestKeptFolderServesAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, postgres.Options{Dir: dir})
	execute(t, connect(t, first.URL("postgres")), "CREATE TABLE kept (id int)")
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, postgres.Options{Dir: dir})
	if got := text(t, connect(t, second.URL("postgres")), "SELECT count(*)::text FROM kept"); got != "0" {
		t.Errorf("rows in the kept table: got %s, want 0", got)
	}
}

func TestStartSaysWhatThePostgresLogSays(t *testing.T) {
	t.Parallel()
	_, err := postgres.Start(t.Context(), postgres.Options{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
		t.Errorf("starting with an unknown setting: got %v", err)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	t.Parallel()
	first := start(t, postgres.Options{})
	if second, err := postgres.Start(t.Context(), postgres.Options{Port: first.Port()}); err == nil {
		t.Errorf("a second server started on port %d", second.Port())
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestServerDiesWithAKilledParent(t *testing.T) {
	t.Parallel()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), executable) // SIGKILL when the context ends
	parent.Env = append(os.Environ(), victimVariable+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("reading where the server is: %v", err)
	}
	port, data, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		t.Fatalf("starting the server: %s", line)
	}
	dial(t, port)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	waitFor(t, "the server's port to close", func() bool { return !listens(t.Context(), port) })
	waitFor(t, "the server's folder to go", func() bool {
		_, err := os.Stat(filepath.Dir(data))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	one, two := postgres.NewDatabase(t), postgres.NewDatabase(t)
	execute(t, connect(t, one), "CREATE TABLE here (id int)")
	if got := text(t, connect(t, two), "SELECT to_regclass('here') IS NULL"); got != "t" {
		t.Error("a table of one database shows in another")
	}
}

func TestDatabaseGoesWithItsTest(t *testing.T) {
	t.Parallel()
	var address string
	var open *pgx.Conn
	t.Run("inner", func(t *testing.T) {
		address = postgres.NewDatabase(t)
		var err error
		if open, err = pgx.Connect(context.WithoutCancel(t.Context()), address); err != nil {
			t.Fatal(err)
		}
	})
	if err := open.Ping(t.Context()); err == nil {
		t.Error("a connection survived its database")
	}
	_, err := pgx.Connect(t.Context(), address)
	if gone, ok := errors.AsType[*pgconn.PgError](err); !ok || gone.Code != "3D000" {
		t.Errorf("connecting to the dropped database: got %v, want SQLSTATE 3D000", err)
	}
}

func TestTemplateIsPreparedOnceAndCloned(t *testing.T) {
	t.Parallel()
	prepared := 0
	prepare := func(ctx context.Context, address string) error {
		prepared++
		conn, err := pgx.Connect(ctx, address)
		if err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
		_, err = conn.Exec(ctx, "CREATE TABLE seeded AS SELECT 7 AS id")
		return errors.Join(err, conn.Close(ctx))
	}
	var clones []*pgx.Conn
	for range 2 {
		clones = append(clones, connect(t, postgres.NewDatabaseFrom(t, postgres.Template(t, "seeded", prepare))))
	}
	execute(t, clones[0], "DELETE FROM seeded")
	if got := text(t, clones[1], "SELECT id::text FROM seeded"); got != "7" {
		t.Errorf("the second clone holds %s, want 7", got)
	}
	if prepared != 1 {
		t.Errorf("the template was prepared %d times, want once", prepared)
	}
}

func start(t *testing.T, options postgres.Options) *postgres.Server {
	t.Helper()
	server, err := postgres.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // its server may be gone
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func text(t *testing.T, conn *pgx.Conn, query string, args ...any) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), query, append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	value, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (string, error) {
		return string(row.RawValues()[0]), nil
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

func dial(t *testing.T, port string) {
	t.Helper()
	if _, err := strconv.Atoi(port); err != nil || !listens(t.Context(), port) {
		t.Fatalf("nothing listens on port %q", port)
	}
}

func listens(ctx context.Context, port string) bool {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-ticker.C:
		}
	}
}

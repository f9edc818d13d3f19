package stack_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/stack"
)

// crashVariable makes this test binary functions that end at once.
const crashVariable = "TIDEMARK_TEST_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crashVariable) != "" {
		_, _ = os.Stderr.WriteString("a mistake in the configuration\n")
		os.Exit(3)
	}
	postgres.Main(m)
}

// A cadence that never comes while the tests run: only the tests tick.
const pipelineFile = `
pipeline: notes
destination: {dataset: notes}
defaults: {every: "0 0 29 2 *"}
tables:
  - {name: notes, capture: {method: watermark, cursor: updated_at}}
`

func prepare(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE notes (id int PRIMARY KEY, text text, updated_at timestamptz NOT NULL DEFAULT now());"+
		"CREATE INDEX ON notes (updated_at, id); INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 10) n")
	return errors.Join(err, conn.Close(ctx))
}

// The real functions, reached as Pub/Sub would, before and after they were killed.
func TestStackMovesRows(t *testing.T) {
	t.Parallel()
	pipelines := t.TempDir()
	if err := os.WriteFile(filepath.Join(pipelines, "notes.yaml"), []byte(pipelineFile), 0o600); err != nil {
		t.Fatal(err)
	}
	running, err := stack.Start(t.Context(), stack.Options{Pipelines: pipelines, Prepare: prepare})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	})
	push(t, running, `{}`)
	if got := arrived(t, running); got != 10 {
		t.Errorf("rows in BigQuery: got %d, want 10\n%s", got, running.LastLog())
	}

	conn, err := pgx.Connect(t.Context(), running.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), "INSERT INTO notes VALUES (11, 'one more')"); err != nil {
		t.Fatal(err)
	}
	address := running.FunctionURL("Extract")
	if err := running.StopFunctions(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := running.Push(t.Context(), "Extract", `{}`); err == nil {
		t.Error("functions that were killed acknowledged a message")
	}
	if err := running.StartFunctions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if running.FunctionURL("Extract") != address {
		t.Errorf("the address changed from %s to %s", address, running.FunctionURL("Extract"))
	}
	push(t, running, `{"pipeline":"notes","table":"notes"}`)
	if got := arrived(t, running); got != 11 {
		t.Errorf("rows in BigQuery: got %d, want 11\n%s", got, running.LastLog())
	}
}

func TestStartSaysWhatTheFunctionsLogged(t *testing.T) {
	t.Parallel()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	running, err := stack.Start(t.Context(), stack.Options{Functions: executable, Environment: []string{crashVariable + "=1"}})
	if err == nil {
		t.Fatal(errors.Join(errors.New("started"), running.Stop()))
	}
	if !strings.Contains(err.Error(), "a mistake in the configuration") {
		t.Errorf("the error says nothing of the functions' log: %v", err)
	}
}

func TestStartEndsWhereItCannotPrepare(t *testing.T) {
	t.Parallel()
	refused := errors.New("no")
	_, err := stack.Start(t.Context(), stack.Options{Prepare: func(context.Context, string) error { return refused }})
	if !errors.Is(err, refused) {
		t.Errorf("got %v, want the error of Prepare", err)
	}
}

func push(t *testing.T, running *stack.Stack, message string) {
	t.Helper()
	if err := running.Push(t.Context(), "Extract", message); err != nil {
		t.Fatalf("%v\n%s", err, running.LastLog())
	}
}

// arrived counts the rows of the view in BigQuery.
func arrived(t *testing.T, running *stack.Stack) int64 {
	t.Helper()
	client, err := running.BigQueryClient(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}()
	rows, err := client.Query("SELECT COUNT(*) AS n FROM `local.notes.notes`").Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var row struct{ N int64 }
	if err := rows.Next(&row); err != nil {
		t.Fatal(err)
	}
	return row.N
}

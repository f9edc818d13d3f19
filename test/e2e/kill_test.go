package e2e_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"cloud.google.com/go/bigquery"
	"github.com/jackc/pgx/v5"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/stack"
)

// TestKilledAroundTheCommit kills the process that extracts with SIGKILL at the
// two moments that matter, and expects the next run to leave exactly one copy.
func TestKilledAroundTheCommit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		phase emulator.Phase
		place string // where the pending commit is kept
	}{
		{"changes, between saving the stream name and the commit", emulator.Before, "sync_state"},
		{"changes, between the commit and the cursor", emulator.After, "sync_state"},
		{"a backfill, between saving the stream name and the commit", emulator.Before, "backfill_chunks"},
		{"a backfill, between the commit and the cursor", emulator.After, "backfill_chunks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startStack(t, itemsFile(byHand+", batch_rows: 300"), itemsSQL)
			conn := connect(t, s.DatabaseURL())
			if c.place == "sync_state" {
				must(t, s.Push(t.Context(), "Extract", `{}`))
			}
			if _, err := conn.Exec(t.Context(), `INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 1000) n`); err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			killed := make(chan struct{})
			s.BigQuery().Intercept(func(call emulator.Call) error {
				if call.Method != "BatchCommitWriteStreams" || call.Phase != c.phase {
					return nil
				}
				var err error
				once.Do(func() {
					defer close(killed)
					err = errors.Join(errors.New("the caller is dead"), s.StopFunctions(syscall.SIGKILL))
				})
				return err
			})
			if err := s.Push(t.Context(), "Extract", `{}`); err == nil {
				t.Fatal("a killed function answered")
			}
			<-killed
			if got := scan[bool](t, conn, `SELECT bool_or(pending IS NOT NULL) FROM tidemark.`+c.place); !got {
				t.Fatal("the kill was not between saving the stream and moving the cursor")
			}
			if err := s.StartFunctions(t.Context()); err != nil {
				t.Fatal(err)
			}
			// Until the lease of the dead process expires, its table is skipped.
			if err := s.Push(t.Context(), "Extract", `{}`); err != nil {
				t.Fatal(err)
			}
			if got := scan[int](t, conn, `SELECT count(*) FROM tidemark.runs WHERE outcome = 'skipped'`); got != 1 {
				t.Errorf("%d recorded skips, want 1", got)
			}
			if _, err := conn.Exec(t.Context(), `UPDATE tidemark.leases SET expires_at = clock_timestamp()`); err != nil {
				t.Fatal(err)
			}
			if err := s.Push(t.Context(), "Extract", `{}`); err != nil {
				t.Fatal(err)
			}
			if versions, rows := number(t, s, "SELECT COUNT(*) FROM shop.items_log"), number(t, s, "SELECT COUNT(DISTINCT id) FROM shop.items"); versions != 1000 || rows != 1000 {
				t.Errorf("%d versions of %d rows, want 1000 of 1000", versions, rows)
			}
			if got := scan[int](t, conn, `SELECT sum(rows_written)::int FROM tidemark.runs`); got != 1000 {
				t.Errorf("the runs account for %d rows, want 1000", got)
			}
			if got := scan[bool](t, conn, `SELECT NOT EXISTS (SELECT pending FROM tidemark.`+c.place+` WHERE pending IS NOT NULL)`); !got {
				t.Error("the pending commit was not settled")
			}
		})
	}
}

// byHand is a cadence that does not tick while a test runs.
const byHand = `every: "0 0 29 2 *"`

func startStack(t *testing.T, file, sql string) *stack.Stack {
	t.Helper()
	return startWith(t, stack.Options{}, map[string]string{"test": file}, sql)
}

// startWith starts a stack with options of the test's own, pipeline files by name and
// the SQL of the application; it ends with the test.
func startWith(t *testing.T, options stack.Options, files map[string]string, sql string) *stack.Stack {
	t.Helper()
	options.Pipelines, options.Functions = t.TempDir(), functions(t)
	for name, file := range files {
		if err := os.WriteFile(filepath.Join(options.Pipelines, name+".yaml"), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	options.Prepare = func(ctx context.Context, url string) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, sql)
		return errors.Join(err, conn.Close(ctx))
	}
	s, err := stack.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		analyzed(t, s.BigQuery())
		must(t, s.Stop())
	})
	return s
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, conn.Close(ctx)) })
	return conn
}

func scan[T any](t *testing.T, conn *pgx.Conn, sql string) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// number is the one number a query on the stack's BigQuery returns.
func number(t *testing.T, s *stack.Stack, sql string) int64 {
	t.Helper()
	client, err := bigquery.NewClient(t.Context(), stack.Project, option.WithEndpoint("http://"+s.BigQuery().RESTHost()+"/bigquery/v2/"), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { must(t, client.Close()) }()
	it, err := client.Query(sql).Read(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var row []bigquery.Value
	if err := it.Next(&row); err != nil && !errors.Is(err, iterator.Done) {
		t.Fatal(err)
	}
	n, ok := row[0].(int64)
	if !ok {
		t.Fatalf("%s: no number", sql)
	}
	return n
}

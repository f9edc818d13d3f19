package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/stack"
)

const killRows, killBatch = 2000, 50

func killFile() string {
	return fmt.Sprintf(`
pipeline: crm
destination: {dataset: crm}
reverse_etl:
  - name: scores
    query: SELECT id, score FROM `+"`{dataset}.scores`"+`
    target: {table: scores, key: {id: id}, columns: {score: score}}
    mode: mirror
    limits: {batch_size: %d, batch_time: 20s, max_delete_percent: 100, max_swing_percent: 1000}
`, killBatch)
}

// TestReverseKilledAtAnyMoment kills the process at every call to BigQuery and after any
// number of rows written. Each time no batch is there in part; the next run finds nothing
// in its way, and leaves the table as the query has it.
func TestReverseKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := startStack(t, killFile(), fmt.Sprintf(`CREATE TABLE scores (id bigint PRIMARY KEY, score bigint);
		INSERT INTO scores SELECT n, 0 FROM generate_series(501, %d) n;
		CREATE TABLE written (tx bigint DEFAULT txid_current());
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO written DEFAULT VALUES; RETURN NULL; END $$;
		CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON scores FOR EACH ROW EXECUTE FUNCTION note()`, killRows+500))
	conn := connect(t, s.DatabaseURL())
	onBigQuery(t, s, "CREATE SCHEMA crm")
	onBigQuery(t, s, fmt.Sprintf("CREATE TABLE crm.scores AS SELECT n AS id, n AS score FROM UNNEST(GENERATE_ARRAY(1, %d)) AS n", killRows))

	var calls, at atomic.Int64
	var kill func() error
	s.BigQuery().Intercept(func(emulator.Call) error {
		if calls.Add(1) == at.Load() {
			return errors.Join(errors.New("the caller is dead"), kill())
		}
		return nil
	})
	for round := 0; ; round++ {
		// Every row changes, 500 come and 500 go.
		onBigQuery(t, s, fmt.Sprintf("CREATE OR REPLACE TABLE crm.scores AS SELECT n AS id, n + %d AS score FROM UNNEST(GENERATE_ARRAY(%d, %d)) AS n", round, 1+round%2*500, killRows+round%2*500))
		if _, err := conn.Exec(t.Context(), `TRUNCATE written`); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		var dead atomic.Bool
		buried := make(chan struct{})
		kill = func() (err error) {
			once.Do(func() {
				defer close(buried)
				dead.Store(true)
				err = s.StopFunctions(syscall.SIGKILL)
			})
			return err
		}
		calls.Store(0)
		at.Store(int64(round + 1))
		stop := func() {}
		if thresholds := []int{1, 60, 777, 1500, 2400}; round >= len(thresholds) {
			at.Store(int64(round - len(thresholds) + 1))
		} else {
			at.Store(0)
			stop = killWhenWritten(t, s, thresholds[round], func() { must(t, kill()) })
		}
		err := s.Push(t.Context(), "ReverseETL", `{}`)
		stop()
		killed := dead.Load()
		if (err == nil) == killed {
			t.Fatalf("round %d: killed: %t, and the function answered %v", round, killed, err)
		}
		if killed {
			<-buried
			quiet(t, conn)
		}
		wholeBatches(t, conn, round)
		if !killed {
			break // it has seen all calls
		}
		must(t, s.StartFunctions(t.Context()))
		if _, err := conn.Exec(t.Context(), `UPDATE tidemark.leases SET expires_at = clock_timestamp()`); err != nil {
			t.Fatal(err)
		}
		at.Store(0)
		must(t, s.Push(t.Context(), "ReverseETL", `{}`))
		wholeBatches(t, conn, round)
		if got, want := scan[string](t, conn, `SELECT count(*) || ' ' || min(id) || ' ' || max(id) || ' ' || min(score - id) || ' ' || max(score - id) FROM scores`),
			fmt.Sprintf("%d %d %d %d %d", killRows, 1+round%2*500, killRows+round%2*500, round, round); got != want {
			t.Fatalf("round %d: the table has %s, the query %s", round, got, want)
		}
		if got := scan[int](t, conn, `SELECT count(*)::int FROM pg_class WHERE relname LIKE 'stage\_%'`); got != 0 {
			t.Errorf("round %d: %d staging relations are left", round, got)
		}
	}
}

// killWhenWritten watches until so many rows are written, and has the process killed.
func killWhenWritten(t *testing.T, s *stack.Stack, rows int, kill func()) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	conn := connect(t, s.DatabaseURL())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; n < rows; {
			if err := conn.QueryRow(ctx, `SELECT count(*)::int FROM written`).Scan(&n); err != nil {
				return // stopped
			}
		}
		kill()
	}()
	return func() { cancel(); <-done }
}

// quiet waits until the server has noticed that its client is dead.
func quiet(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	until(t, func() bool {
		return scan[bool](t, conn, `SELECT NOT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 'scores'::regclass AND pid <> pg_backend_pid() AND a.datname = current_database())`)
	})
}

// wholeBatches fails if a transaction has written a part of a batch.
func wholeBatches(t *testing.T, conn *pgx.Conn, round int) {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT count(*)::int FROM written GROUP BY tx`)
	must(t, err)
	sizes, err := pgx.CollectRows(rows, pgx.RowTo[int])
	must(t, err)
	if slices.ContainsFunc(sizes, func(n int) bool { return n != killBatch }) {
		t.Errorf("round %d: transactions have written %v rows, want %d each", round, sizes, killBatch)
	}
}

// TestApplicationWritesMeanwhile: transactions of the application that write the same
// rows in any order neither fail nor lose a write to other columns, and the sync's
// columns are the query's in the end.
func TestApplicationWritesMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reverseFile("upsert", "SELECT id, CONCAT('n', CAST(id AS STRING)) AS name, CAST(0 AS NUMERIC) AS score FROM UNNEST(GENERATE_ARRAY(1, 400)) AS id", "name: name, score: score", "    limits: {batch_size: 40, lock_timeout: 1s}\n"),
		contactsSQL, `INSERT INTO contacts (id, name) SELECT n, 'contact' FROM generate_series(101, 300) n`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var written atomic.Int64
	failed := make(chan error, 4)
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				// One row alone, or two in an order that only this worker has.
				a, b := 1+(i*37+worker*11)%300, 1+(i*53+worker*71)%300
				err := pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error {
					_, err := tx.Exec(t.Context(), `UPDATE contacts SET code = 'app' WHERE id = $1`, a)
					if err == nil && worker == 0 && a != b {
						_, err = tx.Exec(t.Context(), `UPDATE contacts SET code = 'app' WHERE id = $1`, b)
					}
					return err
				})
				if err != nil {
					failed <- err
					return
				}
				written.Add(1)
			}
		})
	}
	for i := range 8 {
		w.product = w.connect(reverseFile("upsert", fmt.Sprintf("SELECT id, CONCAT('n', CAST(id AS STRING)) AS name, CAST(%d AS NUMERIC) AS score FROM UNNEST(GENERATE_ARRAY(1, 400)) AS id", i), "name: name, score: score", "    limits: {batch_size: 40, lock_timeout: 1s}\n"))
		must(t, w.reverse(""))
	}
	cancel()
	wg.Wait()
	select {
	case err := <-failed:
		t.Errorf("the application's write failed: %v", err)
	default:
	}
	must(t, w.reverse(""))
	if got := w.value(`SELECT count(*) FILTER (WHERE score = 7 AND name = 'n' || id) || ' ' || (count(*) FILTER (WHERE code = 'app') > 100)::text FROM contacts`); got != "400 true" || written.Load() == 0 {
		t.Errorf("contacts as the query has them, and written by the application: %s, %d writes", got, written.Load())
	}
}

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/api/iterator"
	"google.golang.org/protobuf/encoding/protowire"

	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/stack"
)

const (
	bigRows  = 3_000_000
	bigKills = 10
)

// bigSQL has every other id taken, so that there is room in every range. n only ever
// grows, so that of two versions of a row it tells the newer. The application finds its
// rows by code: what is fetched by the primary key was fetched by the product.
const bigSQL = `
	CREATE SEQUENCE ticks;
	CREATE TABLE items (id bigint NOT NULL, code bigint NOT NULL, n bigint NOT NULL);
	INSERT INTO items SELECT 2 * g, 2 * g, -g FROM generate_series(1, 3000000) g;
	ALTER TABLE items ADD PRIMARY KEY (id);
	CREATE UNIQUE INDEX items_code ON items (code);
	ANALYZE items`

const scansOfItems = `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'items'`

// TestBackfillKilledTenTimes backfills 3 million rows while an application writes to
// them, and kills the process ten times with SIGKILL. The moments are random: a number
// of rows that have reached BigQuery, and some milliseconds more.
func TestBackfillKilledTenTimes(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	s := startWith(t, stack.Options{Postgres: postgres.Options{Settings: postgres.StatementSettings()}},
		map[string]string{"test": followed("changelog", ", deletes: hard, "+byHand)}, bigSQL)
	must(t, postgres.ResetStatements(t.Context(), s.DatabaseURL()))
	conn := connect(t, s.DatabaseURL())
	scans := scan[int](t, conn, scansOfItems)
	seen := &traffic{}
	s.BigQuery().Intercept(seen.watch)
	stop := write(t, s.DatabaseURL(), seed)
	began := time.Now()
	var before progress
	var predicted time.Duration
	for kill := range bigKills {
		at := int64((float64(kill) + 0.1 + 0.7*random.Float64()) / bigKills * bigRows)
		delay := time.Duration(random.IntN(40_000)) * time.Microsecond
		killed := make(chan error, 1)
		seen.at(at, func() { time.AfterFunc(delay, func() { killed <- s.StopFunctions(syscall.SIGKILL) }) })
		if err := s.Push(t.Context(), "Extract", `{}`); err == nil {
			t.Fatalf("the backfill ended before kill %d at %d rows; the log of the functions:\n%s", kill+1, at, s.LastLog())
		}
		must(t, wait(t, killed))
		now := progressOf(t, conn)
		t.Logf("kill %d, %v after row %d had come: %d rows are counted, %.1f %%", kill+1, delay, at, now.rows, now.percent)
		if now.rows < before.rows || now.finished {
			t.Fatalf("progress went from %+v to %+v", before, now)
		}
		if exact := 100 * float64(now.rows) / bigRows; now.percent < 0.85*exact || now.percent > 1.15*exact {
			t.Errorf("%.1f %% after %d of %d rows", now.percent, now.rows, bigRows)
		}
		before, predicted = now, now.expected
		if err := s.StartFunctions(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), `UPDATE tidemark.leases SET expires_at = clock_timestamp()`); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Push(t.Context(), "Extract", `{}`); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	stop()
	if err := s.Push(t.Context(), "Extract", `{}`); err != nil {
		t.Fatal(err)
	}
	must(t, s.StopFunctions(syscall.SIGTERM)) // its connections tell what they read when they end
	if predicted < took/3 || predicted > 3*took {
		t.Errorf("at the last kill it was expected to take %v, and took %v", predicted, took)
	}
	fetched := fetches(t, conn)
	sent, live := seen.counts()
	t.Logf("%v, %.0f rows/s; Postgres fetched %d rows by the key, BigQuery was sent %d of the backfill and %d changed ones", took, bigRows/took.Seconds(), fetched, sent, live)
	// An inserted row may be read too, and a changed one is looked for twice.
	if limit := int64(bigRows * 1.05); fetched > limit || sent > limit {
		t.Errorf("more than 5 %% of %d rows were read again: %d fetched, %d sent", bigRows, fetched, sent)
	}
	checkCost(t, s, conn, scans)
	checkBig(t, s, conn)
}

// checkCost looks at what the product asked of Postgres: neither planning nor reading
// may touch more than some of the table's blocks at once. What a pull of changed rows
// touches is a matter of how many changed.
func checkCost(t *testing.T, s *stack.Stack, conn *pgx.Conn, scansBefore int) {
	t.Helper()
	if after := scan[int](t, conn, scansOfItems); after != scansBefore {
		t.Errorf("the table was read whole %d times", after-scansBefore)
	}
	pages := scan[int64](t, conn, `SELECT pg_relation_size('items') / current_setting('block_size')::bigint`)
	rows, err := connect(t, s.Postgres().URL("postgres")).Query(t.Context(), `
		SELECT left(regexp_replace(query, '\s+', ' ', 'g'), 150), (shared_blks_hit + shared_blks_read) / calls, calls, max_exec_time, query LIKE '%TABLESAMPLE%'
		  FROM tidemark_statements.pg_stat_statements JOIN pg_database d ON d.oid = dbid
		 WHERE datname = 'app' AND query LIKE '%"items"%' AND (query LIKE '%TABLESAMPLE%' OR query LIKE '%LIMIT%') ORDER BY 2 DESC`)
	if err != nil {
		t.Fatal(err)
	}
	var query string
	var blocks, calls int64
	var milliseconds float64
	var sample bool
	planned, read := false, false
	if _, err := pgx.ForEachRow(rows, []any{&query, &blocks, &calls, &milliseconds, &sample}, func() error {
		planned, read = planned || sample, read || !sample
		if sample {
			t.Logf("planning: %d of %d blocks, %.0f ms: %s", blocks, pages, milliseconds, query)
		}
		if blocks > pages/5 {
			t.Errorf("%d calls took %d of %d blocks each: %s", calls, blocks, pages, query)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !planned || !read {
		t.Errorf("statements that plan and read the backfill were not found: %t, %t", planned, read)
	}
}

// checkBig compares both sides, and looks at every version in the log.
func checkBig(t *testing.T, s *stack.Stack, conn *pgx.Conn) {
	t.Helper()
	client, err := s.BigQueryClient(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { must(t, client.Close()) }()
	const sums = `COUNT(*), SUM(n), SUM(MOD(id, 999983) * MOD(n, 1000003)) + SUM(MOD(code, 999979) * MOD(n, 999961))`
	want := map[string]string{}
	rows, err := conn.Query(t.Context(), `SELECT (id / 20000)::text, concat_ws(' ', `+sums+`) FROM items GROUP BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	var bucket, text string
	if _, err := pgx.ForEachRow(rows, []any{&bucket, &text}, func() error { want[bucket] = text; return nil }); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, row := range answers(t, client, `SELECT DIV(id, 20000), `+sums+` FROM shop.items GROUP BY 1`) {
		got[fmt.Sprint(row[0])] = fmt.Sprint(row[1], " ", row[2], " ", row[3])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("count and sums by range of ids (-Postgres +BigQuery):\n%s", diff)
	}
	// The position of a change is microseconds since 1970, that of a backfilled row is low.
	const backfilled = `SUBSTR(_version, 10, 5) = '00000'`
	for what, query := range map[string]string{
		"rows with an older version on top":              `SELECT COUNT(*) FROM (SELECT id FROM shop.items_log WHERE NOT _deleted GROUP BY id HAVING ANY_VALUE(n HAVING MAX _version) < MAX(n))`,
		"rows of which a backfilled version is on top":   `SELECT COUNT(*) FROM (SELECT id FROM shop.items_log GROUP BY id HAVING ANY_VALUE(` + backfilled + ` HAVING MAX _version) AND NOT LOGICAL_AND(` + backfilled + `))`,
		"rows that were committed twice":                 `SELECT COUNTIF(` + backfilled + `) - COUNT(DISTINCT IF(` + backfilled + `, id, NULL)) FROM shop.items_log`,
		"rows that progress does not count, or too many": `SELECT COUNTIF(` + backfilled + `) - ` + strconv.FormatInt(progressOf(t, conn).rows, 10) + ` FROM shop.items_log`,
	} {
		if n := answers(t, client, query)[0][0]; n != int64(0) {
			t.Errorf("%v %s", n, what)
		}
	}
	if p := progressOf(t, conn); p.percent != 100 || !p.finished {
		t.Errorf("at the end progress is %+v", p)
	}
}

// answers are the rows of a query on BigQuery.
func answers(t *testing.T, client *bigquery.Client, sql string) (out [][]bigquery.Value) {
	t.Helper()
	it, err := client.Query(sql).Read(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	for {
		var row []bigquery.Value
		switch err := it.Next(&row); {
		case err == iterator.Done: //nolint:errorlint // the client's own sentinel, never wrapped
			return out
		case err != nil:
			t.Fatalf("%s: %v", sql, err)
		}
		out = append(out, row)
	}
}

// wait is what comes from a channel, within a minute.
func wait[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatal("waited for a minute in vain")
		return *new(T)
	}
}

// progress is what the control plane says of the one backfill.
type progress struct {
	rows     int64
	percent  float64
	expected time.Duration // from its start to its expected end
	finished bool
}

func progressOf(t *testing.T, conn *pgx.Conn) (p progress) {
	t.Helper()
	var expected *float64
	if err := conn.QueryRow(t.Context(), `SELECT rows, percent::float8, extract(epoch FROM expected_at - started_at)::float8, finished_at IS NOT NULL FROM tidemark.backfill_progress`).
		Scan(&p.rows, &p.percent, &expected, &p.finished); err != nil {
		t.Fatal(err)
	}
	if expected != nil {
		p.expected = time.Duration(*expected * float64(time.Second))
	}
	return p
}

// fetches is how many rows Postgres fetched by the primary key, once every other
// connection has told.
func fetches(t *testing.T, conn *pgx.Conn) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for scan[int](t, conn, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`) > 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal("connections are left")
		}
	}
	return scan[int64](t, conn, `SELECT idx_tup_fetch FROM pg_stat_user_indexes WHERE indexrelname = 'items_pkey'`)
}

// traffic counts the rows that are sent to BigQuery, by where they come from.
type traffic struct {
	mu             sync.Mutex
	field          protowire.Number // of _version
	backfill, live int64
	threshold      int64
	reached        func() // nil: was called
}

// at has f called once so many rows of a backfill have been sent.
func (c *traffic) at(threshold int64, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.threshold, c.reached = threshold, f
}

func (c *traffic) counts() (backfill, live int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.backfill, c.live
}

func (c *traffic) watch(call emulator.Call) error {
	r, ok := call.Request.(*storagepb.AppendRowsRequest)
	if !ok || call.Phase != emulator.Before {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range r.GetProtoRows().GetWriterSchema().GetProtoDescriptor().GetField() {
		if f.GetName() == "_version" {
			c.field = protowire.Number(f.GetNumber())
		}
	}
	rows := r.GetProtoRows().GetRows().GetSerializedRows()
	position, err := strconv.ParseInt(strings.Split(text(rows[0], c.field), "/")[1], 16, 64)
	if err != nil {
		return fmt.Errorf("reading a version: %w", err)
	}
	if position > 1<<40 {
		c.live += int64(len(rows))
		return nil
	}
	c.backfill += int64(len(rows))
	if c.backfill >= c.threshold && c.reached != nil {
		c.reached()
		c.reached = nil
	}
	return nil
}

// text is a string field of an encoded message.
func text(message []byte, field protowire.Number) string {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return ""
		}
		if number == field && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message[n:])
			return string(value)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return ""
		}
		message = message[n+size:]
	}
	return ""
}

// write is an application that updates, inserts and deletes rows until stop.
func write(t *testing.T, url string, seed uint64) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- writing(ctx, url, rand.New(rand.NewPCG(seed, 2))) }()
	return func() {
		t.Helper()
		cancel()
		must(t, wait(t, done))
	}
}

func writing(ctx context.Context, url string, random *rand.Rand) error {
	background := context.WithoutCancel(ctx)
	conn, err := pgx.Connect(background, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(background) }()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		codes := make([]int64, 10)
		for i := range codes {
			codes[i] = 1 + random.Int64N(2*bigRows)
		}
		batch := &pgx.Batch{}
		batch.Queue(`SET LOCAL enable_seqscan = off`)
		batch.Queue(`UPDATE items SET n = nextval('ticks') WHERE code = ANY ($1)`, codes)
		batch.Queue(`DELETE FROM items WHERE code = ANY ($1)`, codes[:3])
		batch.Queue(`INSERT INTO items SELECT c, c, nextval('ticks') FROM unnest($1::bigint[]) c ON CONFLICT (code) DO NOTHING`, codes[2:5])
		if err := conn.SendBatch(background, batch).Close(); err != nil {
			return err
		}
	}
}

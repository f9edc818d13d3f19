package sample_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/sample"
)

func TestMain(m *testing.M) { postgres.Main(m) }

func TestSeedFillsEveryTable(t *testing.T) {
	t.Parallel()
	conn := connect(t, seeded(t, sample.Size{Organizations: 3, Contacts: 100, Messages: 2000}))
	got := map[string]int{}
	for _, table := range sample.Tables() {
		got[table] = number(t, conn, "SELECT count(*) FROM "+table)
	}
	want := map[string]int{"organizations": 3, "contacts": 100, "messages": 2000, "tags": 24, "contact_tags": 100, "flows": 9, "flow_results": 100}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	for rule, query := range map[string]string{
		"messages stay in their contact's organization": "SELECT count(*) FROM messages m JOIN contacts c ON c.id = m.contact_id WHERE m.organization_id <> c.organization_id",
		"tags stay in their contact's organization":     "SELECT count(*) FROM contact_tags x JOIN contacts c ON c.id = contact_id JOIN tags t ON t.id = tag_id WHERE t.organization_id <> c.organization_id",
		"flows stay in their contact's organization":    "SELECT count(*) FROM flow_results x JOIN contacts c ON c.id = contact_id JOIN flows f ON f.id = flow_id WHERE f.organization_id <> c.organization_id",
		"no time is in the future":                      "SELECT count(*) FROM messages WHERE updated_at > now()",
	} {
		if broken := number(t, conn, query); broken != 0 {
			t.Errorf("%s: %d rows do not", rule, broken)
		}
	}
}

func TestSeedIsRepeatable(t *testing.T) {
	t.Parallel()
	const digest = "SELECT md5(string_agg(md5(t::text), '' ORDER BY id)) FROM (SELECT id, public_id, body, payload, cost, latency_ms FROM messages) t"
	var digests []string
	for range 2 {
		conn := connect(t, seeded(t, sample.Size{Organizations: 2, Contacts: 20, Messages: 300}))
		var text string
		if err := conn.QueryRow(t.Context(), digest).Scan(&text); err != nil {
			t.Fatal(err)
		}
		digests = append(digests, text)
	}
	if digests[0] != digests[1] {
		t.Errorf("two seeds of one size differ: %s and %s", digests[0], digests[1])
	}
}

func TestSeedRefusesAnEmptyApplication(t *testing.T) {
	t.Parallel()
	address := postgres.NewDatabase(t)
	if err := sample.Seed(t.Context(), address, sample.Size{}); err == nil {
		t.Error("seeding nothing was accepted")
	}
}

// Run is left to work until it has done everything it claims to do; the
// counters must then agree with what is in the tables.
func TestRunDoesEveryKindOfWork(t *testing.T) {
	t.Parallel()
	address := seeded(t, sample.Size{Organizations: 2, Contacts: 200, Messages: 3000})
	conn := connect(t, address)
	before := total(t, conn)

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var counters sample.Counters
	ended := make(chan error, 1)
	go func() {
		ended <- sample.Run(ctx, address, sample.Activity{
			Rate: 200, OpenFor: time.Second, LateEvery: 10, BulkEvery: 15, RollbackEvery: 12,
		}, &counters)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && (counters.Late.Load() < 5 || counters.Bulk.Load() < 5 || counters.RolledBack.Load() < 5 || counters.Deleted.Load() < 5 || touched(t, conn) < len(sample.Tables())) {
		<-tick.C
	}
	if ctx.Err() != nil {
		t.Errorf("after a minute: %d late, %d bulk, %d rolled back, %d deleted, %d of %d tables touched",
			counters.Late.Load(), counters.Bulk.Load(), counters.RolledBack.Load(), counters.Deleted.Load(), touched(t, conn), len(sample.Tables()))
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got, want := total(t, conn)-before, int(counters.Inserted.Load()-counters.Deleted.Load()); got > want {
		// An upsert that updates counts as an insert, so there may be fewer rows.
		t.Errorf("rows added: %d, counted: %d", got, want)
	}
	if counters.Updated.Load() == 0 {
		t.Error("no row was updated")
	}
	if number(t, conn, "SELECT count(*) FROM tags WHERE label NOT LIKE 'tag %'") == 0 {
		t.Error("no label was renamed")
	}
	if ties := number(t, conn, "SELECT max(n) FROM (SELECT count(*) AS n FROM messages GROUP BY updated_at) t"); ties < 500 {
		t.Errorf("most messages with one updated_at: %d, want at least 500", ties)
	}
	if open := number(t, conn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"); open != 0 {
		t.Errorf("%d transactions are open after Run", open)
	}
}

// touched counts the tables with a row that was written after seeding.
func touched(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	count := 0
	for _, table := range sample.Tables() {
		count += number(t, conn, "SELECT (count(DISTINCT xmin::text) > 1)::int FROM "+table)
	}
	return count
}

func total(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	sum := 0
	for _, table := range sample.Tables() {
		sum += number(t, conn, "SELECT count(*) FROM "+table)
	}
	return sum
}

func seeded(t *testing.T, size sample.Size) string {
	t.Helper()
	address := postgres.NewDatabase(t)
	if err := sample.Create(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	if err := sample.Seed(t.Context(), address, size); err != nil {
		t.Fatal(err)
	}
	return address
}

func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func number(t *testing.T, conn *pgx.Conn, query string) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

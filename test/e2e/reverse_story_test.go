package e2e_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/test/stack"
)

// abbreviations are the 59 states, territories and other areas that have a postal
// abbreviation of two letters (USPS Publication 28, Appendix B), by name.
const abbreviations = `Alabama AL|Alaska AK|American Samoa AS|Arizona AZ|Arkansas AR|California CA|Colorado CO|Connecticut CT|Delaware DE|District of Columbia DC|` +
	`Federated States of Micronesia FM|Florida FL|Georgia GA|Guam GU|Hawaii HI|Idaho ID|Illinois IL|Indiana IN|Iowa IA|Kansas KS|Kentucky KY|Louisiana LA|Maine ME|` +
	`Marshall Islands MH|Maryland MD|Massachusetts MA|Michigan MI|Minnesota MN|Mississippi MS|Missouri MO|Montana MT|Nebraska NE|Nevada NV|New Hampshire NH|New Jersey NJ|` +
	`New Mexico NM|New York NY|North Carolina NC|North Dakota ND|Northern Mariana Islands MP|Ohio OH|Oklahoma OK|Oregon OR|Palau PW|Pennsylvania PA|Puerto Rico PR|` +
	`Rhode Island RI|South Carolina SC|South Dakota SD|Tennessee TN|Texas TX|Utah UT|Vermont VT|Virgin Islands VI|Virginia VA|Washington WA|West Virginia WV|Wisconsin WI|Wyoming WY`

// states is the SELECT of them.
func states(further ...string) string {
	rows := append(strings.Split(abbreviations, "|"), further...)
	for i, row := range rows {
		space := strings.LastIndexByte(row, ' ')
		rows[i] = "('" + row[:space] + "', '" + row[space+1:] + "')"
	}
	return strings.Join(rows, ", ")
}

const statesFile = `
pipeline: geography
destination: {dataset: geography}
reverse_etl:
  - name: state_abbreviations
    query: SELECT name, abbreviation FROM ` + "`{dataset}.state_abbreviations`" + `
    target: {table: state_abbreviations, key: {name: name}, columns: {abbreviation: abbreviation}}
    mode: upsert
    limits: {lock_timeout: 20s}
`

// TestStateAbbreviations: 59 rows, then Justania makes 60, then its abbreviation changes
// and Justintucky makes 61. The run that is killed before it has cleaned up after itself
// does not disturb the next.
func TestStateAbbreviations(t *testing.T) {
	t.Parallel()
	s := startStack(t, statesFile, `CREATE TABLE state_abbreviations (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, abbreviation char(2) NOT NULL,
		created_at timestamptz NOT NULL DEFAULT clock_timestamp(), writes int NOT NULL DEFAULT 0);
		CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.writes := OLD.writes + 1; RETURN NEW; END $$;
		CREATE TRIGGER counted BEFORE UPDATE ON state_abbreviations FOR EACH ROW EXECUTE FUNCTION counted()`)
	conn := connect(t, s.DatabaseURL())
	run := func(sql string) {
		t.Helper()
		onBigQuery(t, s, sql)
	}
	run("CREATE SCHEMA geography")
	run("CREATE TABLE geography.state_abbreviations (name STRING, abbreviation STRING)")
	source := func(rows string) {
		t.Helper()
		run("DELETE FROM geography.state_abbreviations WHERE TRUE")
		run("INSERT INTO geography.state_abbreviations (name, abbreviation) VALUES " + rows)
	}
	table := func(want string) {
		t.Helper()
		if got := scan[string](t, conn, `SELECT count(*) || ' ' || sum(writes) || ' ' || coalesce(string_agg(abbreviation, ' ' ORDER BY id) FILTER (WHERE name LIKE 'Just%'), '') FROM state_abbreviations`); got != want {
			t.Errorf("rows, updates and new ones: %s, want %s", got, want)
		}
	}
	clean := func() {
		t.Helper()
		if got := scan[int](t, conn, `SELECT count(*)::int FROM pg_class WHERE relname LIKE 'stage\_%'`); got != 0 {
			t.Errorf("%d staging relations are left", got)
		}
	}
	source(states())
	must(t, s.Push(t.Context(), "ReverseETL", `{}`))
	table("59 0 ")
	must(t, s.Push(t.Context(), "ReverseETL", `{}`))
	table("59 0 ")

	source(states("Justania JT"))
	killedBeforeCleanUp(t, s)
	table("60 0 JT")
	if got := scan[int](t, conn, `SELECT count(*)::int FROM pg_class WHERE relname LIKE 'stage\_%' AND relkind = 'r'`); got == 0 {
		t.Fatal("the run was killed after it had cleaned up")
	}

	source(states("Justania JA", "Justintucky JK"))
	must(t, s.Push(t.Context(), "ReverseETL", `{}`))
	table("61 1 JA JK")
	clean()
	if got := scan[string](t, conn, `SELECT string_agg(outcome || ' ' || rows_read || '/' || rows_written, ', ' ORDER BY id) FROM tidemark.runs`); got != "ok 59/59, ok 59/0, running 0/0, ok 61/2" {
		t.Errorf("runs recorded %s", got)
	}
}

// killedBeforeCleanUp runs the sync, and kills it when all rows are written and its
// staging tables are about to be dropped: a lock on them holds that up.
func killedBeforeCleanUp(t *testing.T, s *stack.Stack) {
	t.Helper()
	ctx := t.Context()
	holder, observer := connect(t, s.DatabaseURL()), connect(t, s.DatabaseURL())
	row, err := connect(t, s.DatabaseURL()).Begin(ctx)
	must(t, err)
	if _, err := row.Exec(ctx, "LOCK TABLE state_abbreviations IN SHARE MODE"); err != nil { // holds the writing up
		t.Fatal(err)
	}
	died := make(chan error, 1)
	go func() { died <- s.Push(ctx, "ReverseETL", `{}`) }()
	until(t, func() bool {
		return scan[bool](t, observer, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())`)
	})
	staging, err := holder.Begin(ctx)
	must(t, err)
	for _, table := range strings.Fields(scan[string](t, observer, `SELECT string_agg(oid::regclass::text, ' ') FROM pg_class WHERE relname LIKE 'stage\_%' AND relkind = 'r'`)) {
		if _, err := staging.Exec(ctx, "LOCK TABLE "+table+" IN ACCESS SHARE MODE"); err != nil {
			t.Fatal(err)
		}
	}
	must(t, row.Rollback(ctx))
	until(t, func() bool {
		return scan[bool](t, observer, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DROP TABLE%')`)
	})
	must(t, s.StopFunctions(syscall.SIGKILL))
	if err := <-died; err == nil {
		t.Fatal("a killed function answered")
	}
	if _, err := observer.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DROP TABLE%' AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		return !scan[bool](t, observer, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'DROP TABLE%' AND pid <> pg_backend_pid())`)
	})
	must(t, staging.Rollback(ctx))
	must(t, s.StartFunctions(ctx))
	if _, err := observer.Exec(ctx, `UPDATE tidemark.leases SET expires_at = clock_timestamp()`); err != nil { // as it does by itself after a while
		t.Fatal(err)
	}
}

// onBigQuery runs a statement on the stack's BigQuery.
func onBigQuery(t *testing.T, s *stack.Stack, sql string) {
	t.Helper()
	client, err := s.BigQueryClient(t.Context())
	must(t, err)
	defer func() { must(t, client.Close()) }()
	job, err := client.Query(sql).Run(t.Context())
	must(t, err)
	status, err := job.Wait(t.Context())
	must(t, err)
	if err := status.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// until waits for a condition.
func until(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); {
		if time.Now().After(deadline) {
			t.Fatal("it never came true")
		}
	}
}

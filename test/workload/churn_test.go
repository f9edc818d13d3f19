package workload_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/workload"
)

func TestChurnOnPagila(t *testing.T) {
	t.Parallel()
	pool := connect(t, pagilaDatabase(t))
	writer := newWriter(t, pool, workload.Options{Seed: 11, Churn: true})
	before := rows(t, pool, writer.Tables())
	open := 0
	for range 500 {
		if err := writer.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		open = max(open, writer.Open())
	}
	if open < 2 {
		t.Errorf("at most %d transactions were open at a time, want several", open)
	}
	settle(t, writer)
	after, counts := rows(t, pool, writer.Tables()), writer.Counts()
	var sum workload.Count
	for name, count := range counts {
		sum.Truncated += count.Truncated
		sum.Rerouted += count.Rerouted
		if count.Inserted == 0 || count.Updated == 0 || count.Rekeyed == 0 {
			t.Errorf("%s: %+v, want some inserts, updates and key changes", name, count)
		}
		if got, want := after[name]-before[name], count.Inserted-count.Deleted; count.Truncated == 0 && got != want {
			t.Errorf("%s: %d rows more, want %d by %+v", name, got, want, count)
		}
	}
	if sum.Truncated == 0 || sum.Rerouted == 0 || counts["payment"].Rerouted != sum.Rerouted {
		t.Errorf("%+v, want some of each, moves in payment only", sum)
	}
	deleted, reinserted := 0, 0
	for _, count := range counts {
		deleted += min(count.Deleted, 1)
		reinserted += min(count.Reinserted, 1)
	}
	if deleted < 10 || reinserted < 10 {
		t.Errorf("rows of %d tables were deleted, of %d deleted and inserted again, want most of the 15", deleted, reinserted)
	}
	// Truncating these would leave no way back, or reach single partitions of payment.
	for _, name := range []string{"store", "staff", "customer", "rental", "language", "film", "country"} {
		if counts[name].Truncated != 0 {
			t.Errorf("%s was truncated", name)
		}
	}
}

// logged records what really happens to the tables, by triggers.
const logged = `
CREATE TABLE composite (a int, b text, note text, touched timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (a, b));
CREATE TABLE named (name text PRIMARY KEY, note text);
CREATE TABLE marked (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text REFERENCES named, touched timestamptz NOT NULL DEFAULT now());
CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice int GENERATED ALWAYS AS (n * 2) STORED, n int, boss int REFERENCES numbered);
CREATE TABLE listed (id bigserial, region text NOT NULL, amount numeric, PRIMARY KEY (id, region), touched timestamptz NOT NULL DEFAULT now()) PARTITION BY LIST (region);
CREATE TABLE listed_a PARTITION OF listed FOR VALUES IN ('north', 'south');
CREATE TABLE listed_b PARTITION OF listed FOR VALUES IN ('O''Brien');
CREATE TABLE hashed (id uuid PRIMARY KEY, note text) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE log (n bigserial, tab text, op text, xid xid8 DEFAULT pg_current_xact_id(), old jsonb, new jsonb);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO log (tab, op, old, new) VALUES (TG_ARGV[0], TG_OP, to_jsonb(OLD), to_jsonb(NEW));
	RETURN NULL;
END $$;
DO $$ DECLARE name text; BEGIN
	FOREACH name IN ARRAY ARRAY['composite', 'named', 'marked', 'numbered', 'listed', 'hashed'] LOOP
		EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION note(%L)', name, name);
		EXECUTE format('CREATE TRIGGER emptied AFTER TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION note(%L)', name, name);
	END LOOP;
END $$;
`

func TestChurnIsCountedAsItHappens(t *testing.T) {
	t.Parallel()
	pool := connect(t, postgres.NewDatabase(t))
	if _, err := pool.Exec(t.Context(), logged); err != nil {
		t.Fatal(err)
	}
	writer := newWriter(t, pool, workload.Options{Seed: 5, Churn: true, Cursor: func(string) string { return "touched" }})
	if err := writer.Steps(t.Context(), 600); err != nil {
		t.Fatal(err)
	}
	settle(t, writer)
	tables := []string{"composite", "hashed", "listed", "marked", "named", "numbered"}
	if diff := cmp.Diff(tables, writer.Tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	for _, name := range tables {
		count := writer.Counts()[name]
		want := map[string]int{
			// A row that goes to another partition is deleted there and inserted here.
			"INSERT": count.Inserted + count.Reinserted + count.Rerouted, "DELETE": count.Deleted + count.Reinserted + count.Rerouted,
			"UPDATE": count.Updated + count.Rekeyed - count.Rerouted, "TRUNCATE": count.Truncated,
		}
		if diff := cmp.Diff(want, operations(t, pool, name)); diff != "" {
			t.Errorf("%s: changes (-counted +logged):\n%s", name, diff)
		}
		partitioned := name == "listed" || name == "hashed"
		if count.Updated == 0 || count.Deleted == 0 || count.Reinserted == 0 || count.Truncated == 0 ||
			(count.Rekeyed > 0) != (name != "numbered") || (count.Rerouted > 0) != partitioned {
			t.Errorf("%s: %+v, want some of each", name, count)
		}
	}
	if again := number(t, pool, `SELECT count(*) FROM log d JOIN log i ON i.xid = d.xid AND i.tab = d.tab AND i.n > d.n AND i.op = 'INSERT' AND d.op = 'DELETE'
		AND d.tab = 'composite' AND i.new->'a' = d.old->'a' AND i.new->'b' = d.old->'b' AND i.new <> d.old`); again == 0 {
		t.Error("no row was deleted and came back another one in one transaction")
	}
	if mixed := number(t, pool, "SELECT count(*) FROM log t WHERE op = 'TRUNCATE' AND EXISTS (SELECT FROM log o WHERE o.xid = t.xid AND o.op <> 'TRUNCATE')"); mixed == 0 {
		t.Error("no TRUNCATE shares its transaction with other changes")
	}
}

func operations(t *testing.T, pool *pgxpool.Pool, table string) map[string]int {
	t.Helper()
	found, err := pool.Query(t.Context(), "SELECT o.op, count(l.n) FROM unnest(ARRAY['INSERT', 'DELETE', 'UPDATE', 'TRUNCATE']) AS o (op) LEFT JOIN log l ON l.op = o.op AND l.tab = $1 GROUP BY o.op", table)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	var op string
	var n int
	if _, err := pgx.ForEachRow(found, []any{&op, &n}, func() error {
		counts[op] = n
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return counts
}

// A foreign key of single partitions takes them along, not their root.
func TestTruncateReachesPartitionsOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	for _, partitions := range []bool{false, true} {
		pool := connect(t, postgres.NewDatabase(t))
		if _, err := pool.Exec(t.Context(), `
			CREATE TABLE kind (id int PRIMARY KEY);
			INSERT INTO kind SELECT generate_series(1, 5);
			CREATE TABLE event (id int, kind int NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
			CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM (0) TO (100);
			CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM (100) TO (200);
			ALTER TABLE event_1 ADD FOREIGN KEY (kind) REFERENCES kind;
			ALTER TABLE event_2 ADD FOREIGN KEY (kind) REFERENCES kind`); err != nil {
			t.Fatal(err)
		}
		writer := newWriter(t, pool, workload.Options{Seed: 1, Churn: true, TruncatePartitions: partitions})
		if err := writer.Steps(t.Context(), 150); err != nil {
			t.Fatal(err)
		}
		settle(t, writer)
		counts := writer.Counts()
		if (counts["kind"].Truncated > 0) != partitions || counts["event"].Truncated == 0 {
			t.Errorf("with TruncatePartitions %v: %+v", partitions, counts)
		}
	}
}

// The tables live on: rows are made after each TRUNCATE, and none is held for long.
func TestTransactionsThatTruncateEndAtOnce(t *testing.T) {
	t.Parallel()
	pool := connect(t, postgres.NewDatabase(t))
	if _, err := pool.Exec(t.Context(), logged); err != nil {
		t.Fatal(err)
	}
	writer := newWriter(t, pool, workload.Options{Seed: 9, Churn: true, Cursor: func(string) string { return "touched" }})
	last := map[string]int{}
	truncated, grew := 0, false
	for range 400 {
		if err := writer.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if held := number(t, pool, "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p') AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"); held > 0 {
			t.Fatalf("%d tables are locked between steps", held)
		}
		counts := writer.Counts()
		now := 0
		for _, name := range writer.Tables() {
			now += counts[name].Truncated
		}
		if now > truncated {
			truncated = now
			last = rows(t, pool, writer.Tables())
		} else if now > 0 {
			current := rows(t, pool, writer.Tables())
			grew = grew || slices.ContainsFunc(writer.Tables(), func(name string) bool { return last[name] == 0 && current[name] > 0 })
		}
	}
	settle(t, writer)
	if truncated == 0 || !grew {
		t.Errorf("%d truncations, rows after one: %v", truncated, grew)
	}
}

package workload_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/test/pagila"
	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/workload"
)

func TestMain(m *testing.M) { postgres.Main(m) }

func TestEveryTableOfPagilaIsInsertedIntoAndUpdated(t *testing.T) {
	t.Parallel()
	pool := connect(t, pagilaDatabase(t))
	writer := newWriter(t, pool, workload.Options{Seed: 1})
	before := rows(t, pool, writer.Tables())
	open := 0
	for range 300 {
		if err := writer.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		open = max(open, writer.Open())
	}
	if open < 2 {
		t.Errorf("at most %d transactions were open at a time, want several", open)
	}
	settle(t, writer)
	want := []string{
		"actor", "address", "category", "city", "country", "customer", "film", "film_actor",
		"film_category", "inventory", "language", "payment", "rental", "staff", "store",
	}
	if diff := cmp.Diff(want, writer.Tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	after, counts := rows(t, pool, writer.Tables()), writer.Counts()
	for _, table := range want {
		if counts[table].Inserted == 0 || counts[table].Updated == 0 {
			t.Errorf("%s: %d inserts and %d updates, want some of each", table, counts[table].Inserted, counts[table].Updated)
		}
		if got := after[table] - before[table]; got != counts[table].Inserted {
			t.Errorf("%s: %d rows more, %d counted", table, got, counts[table].Inserted)
		}
		if fresh := number(t, pool, "SELECT count(*) FROM "+table+" WHERE last_update > now() - interval '1 hour'"); fresh == 0 {
			t.Errorf("%s: no row has a last_update of now", table)
		}
	}
	if partitions := number(t, pool, "SELECT count(DISTINCT tableoid) FROM payment WHERE last_update > now() - interval '1 hour'"); partitions < 2 {
		t.Errorf("changes in %d partitions of payment, want several", partitions)
	}
}

// Rows become visible in another order than that of their times.
func TestTransactionsCommitOutOfOrder(t *testing.T) {
	t.Parallel()
	pool := connect(t, pagilaDatabase(t))
	writer := newWriter(t, pool, workload.Options{Seed: 2})
	late, seen, newest := 0, map[int]bool{}, time.Time{}
	for range 200 {
		if err := writer.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		found, err := pool.Query(t.Context(), "SELECT actor_id, last_update FROM actor")
		if err != nil {
			t.Fatal(err)
		}
		var id int
		var at time.Time
		before := newest
		if _, err := pgx.ForEachRow(found, []any{&id, &at}, func() error {
			if !seen[id] && at.Before(before) {
				late++
			}
			seen[id] = true
			if at.After(newest) {
				newest = at
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, writer)
	if late == 0 {
		t.Error("no row became visible after a newer one")
	}
}

func TestOneSeedGivesOneHistory(t *testing.T) {
	t.Parallel()
	for _, churn := range []bool{false, true} {
		t.Run(fmt.Sprintf("churn %v", churn), func(t *testing.T) {
			t.Parallel()
			oneSeedOneHistory(t, churn)
		})
	}
}

func oneSeedOneHistory(t *testing.T, churn bool) {
	t.Helper()
	var histories []map[string]workload.Count
	for _, seed := range []uint64{7, 7, 8} {
		writer := newWriter(t, connect(t, pagilaDatabase(t)), workload.Options{Seed: seed, Churn: churn})
		if err := writer.Steps(t.Context(), 120); err != nil {
			t.Fatal(err)
		}
		settle(t, writer)
		histories = append(histories, writer.Counts())
	}
	if diff := cmp.Diff(histories[0], histories[1]); diff != "" {
		t.Errorf("two histories of one seed (-first +second):\n%s", diff)
	}
	if cmp.Equal(histories[0], histories[2]) {
		t.Error("two seeds gave one history")
	}
}

// everything has what Pagila has not.
const everything = `
CREATE DOMAIN small AS integer CHECK (VALUE BETWEEN 10 AND 20);
CREATE DOMAIN tiny AS small NOT NULL;
CREATE DOMAIN short AS varchar(5) DEFAULT 'none';
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s fine');
CREATE TABLE parent (
	a int, b text, PRIMARY KEY (a, b), touched timestamptz NOT NULL DEFAULT now(), note text
);
INSERT INTO parent VALUES (1, 'x'), (2, 'y'), (3, 'it''s "z"');
CREATE TABLE child (
	id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int NOT NULL, b text NOT NULL,
	FOREIGN KEY (a, b) REFERENCES parent, twice int GENERATED ALWAYS AS (a * 2) STORED,
	manager int REFERENCES child, positive int NOT NULL DEFAULT 1 CHECK (positive > 0), touched timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE listed (id bigserial, region text NOT NULL, amount money, PRIMARY KEY (id, region), touched timestamptz NOT NULL DEFAULT now()) PARTITION BY LIST (region);
CREATE TABLE listed_a PARTITION OF listed FOR VALUES IN ('north', 'south');
CREATE TABLE listed_b PARTITION OF listed FOR VALUES IN ('O''Brien');
CREATE TABLE hashed (id uuid PRIMARY KEY, touched timestamp NOT NULL DEFAULT now()) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE ranged (n int PRIMARY KEY, touched timestamptz NOT NULL DEFAULT now()) PARTITION BY RANGE (n);
CREATE TABLE ranged_low PARTITION OF ranged FOR VALUES FROM (MINVALUE) TO (0);
CREATE TABLE ranged_mid PARTITION OF ranged FOR VALUES FROM (0) TO (1000);
CREATE TABLE unkeyed (id int);
CREATE TABLE kinds (
	id serial PRIMARY KEY, touched timestamptz NOT NULL DEFAULT now(), d tiny DEFAULT 15, e short, m mood, ms mood[],
	c1 bool, c2 int2, c3 int4, c4 int8, c5 float4, c6 float8, c7 numeric, c8 numeric(6,2), c9 text, c10 varchar(3), c11 char(4), c12 name,
	c13 bytea, c14 bit(5), c15 varbit, c16 uuid, c17 json, c18 jsonb, c19 xml, c20 tsvector, c21 inet, c22 cidr, c23 macaddr, c24 money,
	c25 date, c26 time, c27 timetz, c28 timestamp, c29 timestamptz, c30 interval, c31 int4range, c32 daterange, c33 int8range, c34 oid,
	a1 text[], a2 int[], a3 numeric(4,1)[], a4 timestamptz[], a5 jsonb[], a6 bytea[], a7 uuid[], a8 bool[], p point
);
INSERT INTO kinds DEFAULT VALUES;
`

func TestEveryTypeAndConstraint(t *testing.T) {
	t.Parallel()
	pool := connect(t, postgres.NewDatabase(t))
	if _, err := pool.Exec(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	writer := newWriter(t, pool, workload.Options{Seed: 3, Cursor: func(string) string { return "touched" }})
	if diff := cmp.Diff([]string{"child", "hashed", "kinds", "listed", "parent", "ranged"}, writer.Tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	if err := writer.Steps(t.Context(), 400); err != nil {
		t.Fatal(err)
	}
	settle(t, writer)
	for table, count := range writer.Counts() {
		if count.Inserted == 0 || count.Updated == 0 {
			t.Errorf("%s: %+v, want some of each", table, count)
		}
	}
	// Every column but p, for which there is no generator, has had a value.
	columns, err := pool.Query(t.Context(), "SELECT attname::text FROM pg_attribute WHERE attrelid = 'kinds'::regclass AND attnum > 0 AND attname <> 'p'")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for columns.Next() {
		var name string
		if err := columns.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := columns.Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if number(t, pool, "SELECT count("+name+") FROM kinds") == 0 {
			t.Errorf("kinds.%s never had a value", name)
		}
	}
	if distinct := number(t, pool, "SELECT count(DISTINCT d) FROM kinds"); distinct < 2 {
		t.Errorf("the domain with a range has %d values, want several", distinct)
	}
}

func TestNewRefusesWhatItCannotWrite(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]string{
		"no table":          "CREATE TABLE unkeyed (id int)",
		"no generator":      "CREATE TABLE shapes (id serial PRIMARY KEY, p point NOT NULL)",
		"partition columns": "CREATE TABLE ranged (a int, b int, PRIMARY KEY (a, b)) PARTITION BY RANGE (a, b)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := connect(t, postgres.NewDatabase(t))
			if _, err := pool.Exec(t.Context(), setup); err != nil {
				t.Fatal(err)
			}
			if _, err := workload.New(t.Context(), pool, workload.Options{}); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func pagilaDatabase(t *testing.T) string {
	t.Helper()
	return postgres.NewDatabaseFrom(t, postgres.Template(t, "pagila", func(ctx context.Context, url string) error {
		return errors.Join(pagila.Load(ctx, url), pagila.AddCursors(ctx, url))
	}))
}

func connect(t *testing.T, address string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 5
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newWriter(t *testing.T, pool *pgxpool.Pool, options workload.Options) *workload.Writer {
	t.Helper()
	writer, err := workload.New(t.Context(), pool, options)
	if err != nil {
		t.Fatal(err)
	}
	return writer
}

func settle(t *testing.T, writer *workload.Writer) {
	t.Helper()
	if err := writer.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if writer.Open() != 0 {
		t.Errorf("%d transactions are open after Settle", writer.Open())
	}
}

func rows(t *testing.T, pool *pgxpool.Pool, tables []string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, table := range tables {
		counts[table] = number(t, pool, "SELECT count(*) FROM "+table)
	}
	return counts
}

func number(t *testing.T, pool *pgxpool.Pool, query string) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

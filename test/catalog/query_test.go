package catalog_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
)

const shop = `
CREATE SCHEMA shop;
CREATE TABLE shop.customers (id bigint PRIMARY KEY, name text NOT NULL, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES shop.customers, parent bigint, total numeric(12,2), updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE rates (code text PRIMARY KEY, rate numeric);
CREATE TABLE shop.parts (id int, region text, at timestamptz, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE shop.parts_a PARTITION OF shop.parts FOR VALUES IN ('a');
CREATE VIEW shop.recent AS SELECT * FROM shop.orders;
CREATE MATERIALIZED VIEW shop.kept AS SELECT * FROM shop.orders;
CREATE TABLE shop."Odd ""Name" (id int PRIMARY KEY, at timestamptz);
`

const orderFacts = `SELECT o.id AS order_id, c.name, o.total * 2 AS twice, o.updated_at FROM orders o JOIN customers c ON c.id = o.customer_id`

func query(t *testing.T, pool *pgxpool.Pool, sql string) *catalog.Table {
	t.Helper()
	table, err := catalog.DescribeQuery(t.Context(), pool, "shop", "order_facts", sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return table
}

func TestDescribeQueryPlansColumnsAsDescribe(t *testing.T) {
	t.Parallel()
	pool := database(t, everything)
	table, err := catalog.DescribeQuery(t.Context(), pool, "public", "copy", "SELECT * FROM kinds")
	if err != nil {
		t.Fatal(err)
	}
	want := everyColumn()
	domains := map[string]string{"dp": "numeric(12,2)", "dd": "numeric(12,2)", "de": "text", "dt": "text[]"}
	for i := range want {
		want[i].NotNull = false
		if base, ok := domains[want[i].Name]; ok { // the protocol shows a domain as its base
			want[i].Type = base
		}
		want[i].Type = strings.TrimPrefix(want[i].Type, "public.") // which is in the search_path
	}
	if diff := cmp.Diff(want, rows(table)); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	plain := describe(t, pool, "public", "kinds")
	for i, c := range table.Columns {
		if c.Param != plain.Columns[i].Param {
			t.Errorf("%s is sent as a %d, in the table as a %d", c.Name, c.Param, plain.Columns[i].Param)
		}
		if c.Origin != plain.Columns[i].Origin {
			t.Errorf("%s comes from %+v, want %+v", c.Name, c.Origin, plain.Columns[i].Origin)
		}
	}
}

func TestQueryIsReadLikeATable(t *testing.T) {
	t.Parallel()
	pool := database(t, shop, `INSERT INTO shop.customers VALUES (1, 'Ada'); INSERT INTO shop.orders VALUES (7, 1, NULL, 1.5)`)
	for _, sql := range []string{
		orderFacts, orderFacts + " ;\n ", orderFacts + " -- the end", "WITH o AS (" + orderFacts + ") SELECT * FROM o ORDER BY 1 LIMIT 5",
		"VALUES (1)", "TABLE orders", "SELECT ARRAY[[1,2]] AS grid, ROW(1, 'x') AS pair, 'x' AS word, NULL AS nothing, 1.5 AS number",
	} {
		table := query(t, pool, sql)
		list := make([]string, len(table.Columns))
		for i, c := range table.Columns {
			if c.NotNull {
				t.Errorf("%s: %s is said to be NOT NULL", sql, c.Name)
			}
			list[i] = c.Expr
		}
		inTx(t, pool, func(tx pgx.Tx) {
			if same, err := table.Unchanged(t.Context(), tx); err != nil || !same { // sets the search_path too
				t.Errorf("%s: unchanged %v, %v", sql, same, err)
			}
			if _, err := tx.Exec(t.Context(), "COPY (SELECT "+strings.Join(list, ", ")+" FROM "+table.Source()+" WHERE true) TO STDOUT (FORMAT binary)"); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		})
	}
	if table := query(t, pool, orderFacts); !table.IsQuery() || len(table.Primary) != 0 || table.Leads("order_id") {
		t.Error("a query is described as a table")
	}
}

func TestDescribeQueryRefuses(t *testing.T) {
	t.Parallel()
	pool := database(t, shop)
	for sql, want := range map[string]string{
		"":                                "",
		"-- nothing":                      "",
		"SELECT 1 AS a; SELECT 2 AS b":    "42601",
		"SELECT 1 AS a; -- b":             "42601",
		"SELECT 1) AS a, (SELECT 2":       "42601",
		"DELETE FROM orders":              "",
		"DELETE FROM orders RETURNING id": "42601",
		"WITH d AS (DELETE FROM orders RETURNING id) TABLE d":         "0A000",
		"SELECT id INTO copied FROM orders":                           "",
		"SHOW timezone":                                               "42601",
		"EXPLAIN SELECT 1":                                            "42601",
		"CREATE TABLE t (id int)":                                     "",
		"SELECT id FROM orders WHERE id = $1":                         "",
		"SELECT o.id, c.id FROM orders o JOIN customers c USING (id)": "",
		"SELECT count(*), count(*) FROM orders":                       "",
		"SELECT id, id + 1 FROM orders":                               "",
		`SELECT id AS "" FROM orders`:                                 "42601",
		"SELEC id":                                                    "42601",
		"SELECT id FROM order":                                        "42601",
		"SELECT id FROM ordres":                                       "42P01",
		"SELECT idd FROM orders":                                      "42703",
		"SELECT id FROM nowhere.orders":                               "42P01",
		"SELECT id + 'x'::text FROM orders":                           "42883",
	} {
		table, err := catalog.DescribeQuery(t.Context(), pool, "shop", "order_facts", sql)
		if err == nil {
			t.Errorf("%s: accepted with the columns %v", sql, rows(table))
			continue
		}
		permanent(t, sql, err)
		if got := fault.SQLState(err); got != want {
			t.Errorf("%s: SQLSTATE %q, want %q: %v", sql, got, want, err)
		}
		if !strings.HasPrefix(err.Error(), "describing the query of order_facts in the pipeline file: ") {
			t.Errorf("%s: %v does not say which query", sql, err)
		}
	}
}

func TestErrorsPointIntoTheQuery(t *testing.T) {
	t.Parallel()
	pool := database(t, shop)
	for sql, want := range map[string]string{
		"SELECT ñame FROM orders":                    "line 1, column 8 of it",
		"SELECT 'é', id\n  FROM ordres":              "line 2, column 8 of it",
		"SELECT id\n\n, total FROM orders\n WHERE x": "line 4, column 8 of it",
		"SELECT id,": "line 1, column 11 of it",
		"SELECT a.id, b.id, b.total AS t, 1 FROM orders a, orders b": `"id" comes more than once; column 4 has no name`,
	} {
		_, err := catalog.DescribeQuery(t.Context(), pool, "shop", "order_facts", sql)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", sql, err, want)
		}
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	pool := database(t, shop)
	type origin struct{ Schema, Name, Column string }
	orders := func(column string) origin { return origin{"shop", "orders", column} }
	for sql, want := range map[string][]origin{
		orderFacts: {orders("id"), {"shop", "customers", "name"}, {}, orders("updated_at")},
		"SELECT id FROM orders UNION ALL SELECT id FROM customers":                                {{}},
		"SELECT id FROM (SELECT id FROM orders UNION SELECT id FROM orders) x":                    {{}},
		"WITH RECURSIVE r AS (SELECT id FROM orders UNION SELECT id + 1 FROM r) SELECT id FROM r": {{}},
		"WITH o AS (SELECT id AS i FROM orders) SELECT i AS j FROM o":                             {orders("id")},
		"SELECT x.y FROM (SELECT id AS y FROM orders OFFSET 0) x":                                 {orders("id")},
		"SELECT o.id, c.name FROM customers c LEFT JOIN orders o ON o.customer_id = c.id":         {orders("id"), {"shop", "customers", "name"}},
		"SELECT id FROM orders o FULL JOIN customers c USING (id)":                                {{}},
		"SELECT id, max(updated_at) AS at FROM orders GROUP BY id":                                {orders("id"), {}},
		"SELECT id::bigint, id::int AS small, coalesce(total, 0) AS total FROM orders":            {orders("id"), {}, {}},
		"SELECT (SELECT name FROM customers LIMIT 1) AS name":                                     {{}},
		"SELECT id FROM recent":    {{"shop", "recent", "id"}},
		"SELECT id FROM kept":      {{"shop", "kept", "id"}},
		"SELECT code FROM rates":   {{"public", "rates", "code"}},
		"SELECT id, at FROM parts": {{"shop", "parts", "id"}, {"shop", "parts", "at"}},
		"SELECT id FROM parts_a":   {{"shop", "parts_a", "id"}},
		"SELECT xmin AS x, ctid AS c, tableoid AS o, id FROM orders": {orders("xmin"), orders("ctid"), orders("tableoid"), orders("id")},
	} {
		table := query(t, pool, sql)
		got := make([]origin, len(table.Columns))
		for i, c := range table.Columns {
			got[i] = origin{c.Origin.Schema, c.Origin.Name, c.Origin.Column}
			if (c.Origin.Table == 0) != (got[i] == origin{}) {
				t.Errorf("%s: origin %+v", sql, c.Origin)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: origins (-want +got):\n%s", sql, diff)
		}
	}
}

func TestBase(t *testing.T) {
	t.Parallel()
	pool := database(t, shop)
	oid := describe(t, pool, "shop", "orders").OID()
	type base struct {
		Table   string
		Columns []string
	}
	tests := []struct {
		sql     string
		columns []string
		want    *base
	}{
		{orderFacts, []string{"updated_at", "order_id"}, &base{`"shop"."orders"`, []string{"updated_at", "id"}}},
		{orderFacts, []string{"order_id", "name"}, nil},
		{orderFacts, []string{"order_id", "twice"}, nil},
		{orderFacts, []string{"order_id", "nope"}, nil},
		{"SELECT id, updated_at FROM recent", []string{"id", "updated_at"}, nil},
		{"SELECT id, updated_at FROM kept", []string{"id"}, nil},
		{"SELECT id AS i, at FROM parts", []string{"i", "at"}, &base{`"shop"."parts"`, []string{"id", "at"}}},
		{`SELECT id, at FROM "Odd ""Name"`, []string{"id"}, &base{`"shop"."Odd ""Name"`, []string{"id"}}},
		{"SELECT orders.id, orders.updated_at FROM shop.orders WHERE orders.total > 0 -- orders, orders", []string{"id", "updated_at"}, &base{`"shop"."orders"`, []string{"id", "updated_at"}}},
		{"SELECT o.id, o.updated_at, 'orders' AS what FROM orders o, recent r WHERE r.parent = o.id", []string{"id", "updated_at"}, &base{`"shop"."orders"`, []string{"id", "updated_at"}}},
		{"WITH o AS (SELECT * FROM orders) SELECT o.id, o.updated_at FROM o", []string{"id", "updated_at"}, &base{`"shop"."orders"`, []string{"id", "updated_at"}}},
		// Two rows of one table meet.
		{"SELECT a.id, b.updated_at FROM orders a JOIN orders b ON b.id = a.parent", []string{"id", "updated_at"}, nil},
		{`SELECT a.id, b.updated_at FROM ORDERS a JOIN "shop" . "orders" b ON b.id = a.parent`, []string{"id", "updated_at"}, nil},
		{"WITH o AS (SELECT * FROM orders) SELECT a.id, b.updated_at FROM o a JOIN o b ON b.id = a.parent", []string{"id", "updated_at"}, nil},
		{"WITH c AS (SELECT 1 AS one), o (i, u, p) AS NOT MATERIALIZED (SELECT id, updated_at, parent FROM orders) SELECT a.i, b.u FROM o a JOIN o b ON b.i = a.p", []string{"i", "u"}, nil},
	}
	for _, test := range tests {
		got, err := query(t, pool, test.sql).Base(test.columns...)
		if test.want == nil {
			permanent(t, test.sql, err)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.sql, err)
			continue
		}
		if diff := cmp.Diff(*test.want, base{got.SQLName(), got.Columns}); diff != "" {
			t.Errorf("%s: base (-want +got):\n%s", test.sql, diff)
		}
		if got.Name == "orders" && got.OID != oid {
			t.Errorf("%s: OID %d, want %d", test.sql, got.OID, oid)
		}
	}
	_, err := query(t, pool, orderFacts).Base("order_id", "name")
	if err == nil || !strings.Contains(err.Error(), "column name of order_facts comes from shop.customers, column order_id from shop.orders") {
		t.Errorf("columns of two tables: %v", err)
	}
	table := describe(t, pool, "shop", "orders")
	if got, err := table.Base("updated_at", "id"); err != nil || got.OID != oid || !cmp.Equal(got.Columns, []string{"updated_at", "id"}) {
		t.Errorf("the base of a table is %+v, %v", got, err)
	}
}

func TestKeyOfAQuery(t *testing.T) {
	t.Parallel()
	table := query(t, database(t, shop), "SELECT id, total, total::float8 AS rough, now() AS at, ARRAY[1] AS list, '{}'::jsonb AS doc FROM orders")
	if got, err := table.CheckKey([]string{"total", "id"}); err != nil || !cmp.Equal(got, []string{"total", "id"}) {
		t.Errorf("key %v, %v", got, err)
	}
	for what, key := range map[string][]string{"none": nil, "missing": {"nope"}, "a float": {"rough"}, "a list": {"list"}, "JSON": {"doc"}} {
		_, err := table.CheckKey(key)
		permanent(t, what, err)
	}
	if columns, ok := table.ChunkKey([]string{"id"}); ok {
		t.Errorf("a query is read by %v", columns)
	}
}

func TestUnchangedSeesEveryChangeOfAQuerysColumns(t *testing.T) {
	t.Parallel()
	pool := database(t, shop, "DROP VIEW shop.recent; DROP MATERIALIZED VIEW shop.kept")
	for _, test := range []struct {
		change string
		same   bool
	}{
		{"", true},
		{"ALTER TABLE shop.orders ADD COLUMN note text", true},
		{"ALTER TABLE shop.orders ALTER COLUMN total TYPE numeric(13,2)", true}, // twice is numeric either way
		{"ALTER TABLE shop.customers ALTER COLUMN name TYPE varchar(20)", false},
		{"ALTER TABLE shop.orders DROP COLUMN updated_at; ALTER TABLE shop.orders ADD COLUMN updated_at timestamptz", false},
		{"ALTER TABLE shop.orders RENAME TO old; CREATE TABLE shop.orders (LIKE shop.old)", false},
		{"CREATE VIEW shop.w AS TABLE shop.orders; ALTER TABLE shop.customers RENAME TO people; CREATE VIEW shop.customers AS TABLE shop.people", false},
	} {
		table := query(t, pool, orderFacts)
		if test.change != "" {
			exec(t, pool, test.change)
		}
		inTx(t, pool, func(tx pgx.Tx) {
			if got, err := table.Unchanged(t.Context(), tx); err != nil || got != test.same {
				t.Errorf("after %q: unchanged %v, %v", test.change, got, err)
			}
		})
	}
	table := query(t, pool, "TABLE shop.w")
	exec(t, pool, "DROP VIEW shop.w")
	inTx(t, pool, func(tx pgx.Tx) {
		if _, err := table.Unchanged(t.Context(), tx); fault.SQLState(err) != "42P01" {
			t.Errorf("what the query reads is gone: %v", err)
		}
	})
}

func TestLockHoldsAllThatAQueryReads(t *testing.T) {
	t.Parallel()
	pool := database(t, shop)
	table := query(t, pool, "SELECT r.id, k.total, c.name FROM recent r JOIN kept k USING (id) JOIN customers c ON c.id = r.customer_id")
	inTx(t, pool, func(tx pgx.Tx) {
		if err := table.Lock(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{"orders": true, "customers": true, "recent": true, "parts": false} {
			_, err := pool.Exec(t.Context(), "BEGIN; SET LOCAL lock_timeout = '20ms'; LOCK TABLE shop."+name+" IN ACCESS EXCLUSIVE MODE; COMMIT")
			if got := fault.SQLState(err) == "55P03"; got != want {
				t.Errorf("%s is held: %v, %v", name, got, err)
			}
		}
	})
	if orders := describe(t, pool, "shop", "orders"); !table.Reads(orders.OID()) || table.Reads(describe(t, pool, "shop", "parts").OID()) {
		t.Error("Reads does not go by what the query reads, views looked through")
	}
}

func TestRightsThatAQueryMisses(t *testing.T) {
	t.Parallel()
	pool := database(t, shop, `CREATE SCHEMA closed; CREATE TABLE closed.t (id int)`, `CREATE ROLE "catalog Reader"`)
	t.Cleanup(func() {
		if _, err := pool.Exec(context.WithoutCancel(t.Context()), `DROP OWNED BY "catalog Reader"; DROP ROLE "catalog Reader"`); err != nil {
			t.Error(err)
		}
	})
	exec(t, pool, `GRANT USAGE ON SCHEMA shop TO "catalog Reader"; GRANT SELECT ON shop.customers, shop.recent TO "catalog Reader"`)
	config := pool.Config().Copy()
	config.ConnConfig.RuntimeParams["role"] = "catalog Reader"
	reader, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	explained := func(sql, want string) {
		t.Helper()
		table, err := catalog.DescribeQuery(t.Context(), reader, "shop", "order_facts", sql)
		if err != nil {
			t.Fatal(err)
		}
		_, refusal := reader.Exec(t.Context(), "SELECT FROM "+strings.NewReplacer("orders", "shop.orders", "customers", "shop.customers", "recent", "shop.recent", "parts", "shop.parts").Replace(table.Source()))
		err = table.Explain(t.Context(), reader, refusal, nil)
		if _, remedy := fault.Classify(err); remedy != want || fault.SQLState(err) != "42501" || !strings.Contains(err.Error(), "the query of order_facts in the pipeline file") {
			t.Errorf("%s: %v with the remedy %q, want %q", sql, err, remedy, want)
		}
	}
	explained(orderFacts, `GRANT SELECT ON shop.orders TO "catalog Reader"`)
	exec(t, pool, `GRANT SELECT (id) ON shop.orders TO "catalog Reader"`)
	explained(orderFacts, `GRANT SELECT ON shop.orders TO "catalog Reader"`)
	explained("SELECT o.id, p.at FROM orders o, parts p", `GRANT SELECT ON shop.parts TO "catalog Reader"`)
	exec(t, pool, `REVOKE SELECT ON shop.customers FROM "catalog Reader"; REVOKE SELECT (id) ON shop.orders FROM "catalog Reader"`)
	explained("SELECT r.id, c.name FROM recent r JOIN customers c ON true", `GRANT SELECT ON shop.customers TO "catalog Reader"`)
	_, err = catalog.DescribeQuery(t.Context(), reader, "shop", "order_facts", "SELECT id FROM closed.t")
	permanent(t, "a closed schema", err)
	if fault.SQLState(err) != "42501" {
		t.Error(err)
	}
	// A lock that the role may not take is left out: the read itself is refused or not.
	table, err := catalog.DescribeQuery(t.Context(), reader, "shop", "order_facts", "SELECT id FROM recent")
	if err != nil {
		t.Fatal(err)
	}
	inTx(t, reader, func(tx pgx.Tx) {
		if err := table.Lock(t.Context(), tx); err != nil {
			t.Error(err)
		}
	})
}

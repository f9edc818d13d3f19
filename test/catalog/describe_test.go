// Package catalog_test reads the catalogue of a real Postgres.
package catalog_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/test/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// database is a database of the test's own.
func database(t *testing.T, sql ...string) *pgxpool.Pool {
	t.Helper()
	pool := connect(t, postgres.NewDatabase(t))
	for _, s := range sql {
		exec(t, pool, s)
	}
	return pool
}

func connect(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.WithoutCancel(t.Context()), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func describe(t *testing.T, pool *pgxpool.Pool, schema, name string) *catalog.Table {
	t.Helper()
	table, err := catalog.Describe(t.Context(), pool, schema, name)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// inTx runs do in a transaction that is rolled back.
func inTx(t *testing.T, pool *pgxpool.Pool, do func(tx pgx.Tx)) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	do(tx)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// permanent fails unless err is a permanent error with a remedy.
func permanent(t *testing.T, what string, err error) {
	t.Helper()
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
		t.Errorf("%s: %v is %v with the remedy %q", what, err, class, remedy)
	}
}

// everything has a column of every kind that is read in a way of its own.
const everything = `
CREATE SCHEMA "oth er";
CREATE DOMAIN price AS numeric(12,2);
CREATE DOMAIN discount AS price CHECK (VALUE < 100);
CREATE DOMAIN email AS text;
CREATE DOMAIN tags AS text[];
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE "oth er"."Mood" AS ENUM ('x');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE kinds (
	id bigint PRIMARY KEY, b bool NOT NULL, i2 int2, f4 real, n numeric, n2 numeric(12,2), n40 numeric(40,2), t text, v varchar(7), c char(3), ch "char", nm name,
	dropped int, o oid, js json, jb jsonb, by bytea, u uuid, d date, ti time, tz timetz, ts timestamp(3), tstz timestamptz, iv interval, inet inet, mo money, r int4range, x xml,
	dp price, dd discount, de email, dt tags, dea email[], dda discount[], m mood, m2 "oth er"."Mood", ma mood[], p pair, pa pair[],
	ta text[], na numeric(12,2)[], ia int[][], ina inet[], ba bool[] NOT NULL, gen int GENERATED ALWAYS AS (1) STORED, "we""ird Name" int
);
ALTER TABLE kinds DROP COLUMN dropped;
`

// row is a column as the test has it.
type row struct {
	Name, Type string
	NotNull    bool
	Kind       rowwire.Kind
	Repeated   bool
	Expr       string
	Base       string
}

func everyColumn() []row {
	return []row{
		{"id", "bigint", true, rowwire.Int8, false, `"id"`, "int8"},
		{"b", "boolean", true, rowwire.Bool, false, `"b"`, "bool"},
		{"i2", "smallint", false, rowwire.Int2, false, `"i2"`, "int2"},
		{"f4", "real", false, rowwire.Float4, false, `"f4"`, "float4"},
		{"n", "numeric", false, rowwire.BigNumeric, false, `"n"`, "numeric"},
		{"n2", "numeric(12,2)", false, rowwire.Numeric, false, `"n2"`, "numeric"},
		{"n40", "numeric(40,2)", false, rowwire.BigNumeric, false, `"n40"`, "numeric"},
		{"t", "text", false, rowwire.Text, false, `"t"`, "text"},
		{"v", "character varying(7)", false, rowwire.Text, false, `"v"`, "varchar"},
		{"c", "character(3)", false, rowwire.Text, false, `"c"`, "bpchar"},
		{"ch", `"char"`, false, rowwire.Text, false, `"ch"::text`, ""},
		{"nm", "name", false, rowwire.Text, false, `"nm"`, "name"},
		{"o", "oid", false, rowwire.Int8, false, `"o"::bigint`, "oid"},
		{"js", "json", false, rowwire.JSON, false, `"js"`, "json"},
		{"jb", "jsonb", false, rowwire.JSONB, false, `"jb"`, "jsonb"},
		{"by", "bytea", false, rowwire.Bytes, false, `"by"`, "bytea"},
		{"u", "uuid", false, rowwire.UUID, false, `"u"`, "uuid"},
		{"d", "date", false, rowwire.Date, false, `"d"`, "date"},
		{"ti", "time without time zone", false, rowwire.Time, false, `"ti"`, "time"},
		{"tz", "time with time zone", false, rowwire.Text, false, `"tz"::text`, "timetz"},
		{"ts", "timestamp(3) without time zone", false, rowwire.DateTime, false, `"ts"`, "timestamp"},
		{"tstz", "timestamp with time zone", false, rowwire.Timestamp, false, `"tstz"`, "timestamptz"},
		{"iv", "interval", false, rowwire.IntervalText, false, `"iv"`, "interval"},
		{"inet", "inet", false, rowwire.Text, false, `"inet"::text`, "inet"},
		{"mo", "money", false, rowwire.Text, false, `"mo"::text`, "money"},
		{"r", "int4range", false, rowwire.Text, false, `"r"::text`, "int4range"},
		{"x", "xml", false, rowwire.Text, false, `"x"::text`, "xml"},
		{"dp", "public.price", false, rowwire.Numeric, false, `"dp"`, "numeric"},
		{"dd", "public.discount", false, rowwire.Numeric, false, `"dd"`, "numeric"},
		{"de", "public.email", false, rowwire.Text, false, `"de"`, "text"},
		{"dt", "public.tags", false, rowwire.Text, true, `"dt"`, "_text"},
		{"dea", "public.email[]", false, rowwire.Text, true, `"dea"`, ""},
		{"dda", "public.discount[]", false, rowwire.BigNumeric, true, `"dda"`, ""},
		{"m", "public.mood", false, rowwire.Text, false, `"m"`, ""},
		{"m2", `"oth er"."Mood"`, false, rowwire.Text, false, `"m2"`, ""},
		{"ma", "public.mood[]", false, rowwire.Text, true, `"ma"`, ""},
		{"p", "public.pair", false, rowwire.JSON, false, `to_json("p")`, ""},
		{"pa", "public.pair[]", false, rowwire.JSON, false, `(SELECT CASE WHEN array_dims(v) ~ '[[]([^1]|1[^:])' THEN to_json(v::text) ELSE to_json(v) END FROM (SELECT "pa" OFFSET 0) AS s (v))`, ""},
		{"ta", "text[]", false, rowwire.Text, true, `"ta"`, "_text"},
		{"na", "numeric(12,2)[]", false, rowwire.Numeric, true, `"na"`, "_numeric"},
		{"ia", "integer[]", false, rowwire.JSON, false, `(SELECT CASE WHEN array_dims(v) ~ '[[]([^1]|1[^:])' THEN to_json(v::text) ELSE to_json(v) END FROM (SELECT "ia" OFFSET 0) AS s (v))`, "_int4"},
		{"ina", "inet[]", false, rowwire.Text, true, `"ina"::text[]`, "_inet"},
		{"ba", "boolean[]", true, rowwire.Bool, true, `"ba"`, "_bool"},
		{"gen", "integer", false, rowwire.Int4, false, `"gen"`, "int4"},
		{`we"ird Name`, "integer", false, rowwire.Int4, false, `"we""ird Name"`, "int4"},
	}
}

func rows(table *catalog.Table) []row {
	var out []row
	for _, c := range table.Columns {
		out = append(out, row{c.Name, c.Type, c.NotNull, c.Kind, c.Repeated, c.Expr, c.Base})
	}
	return out
}

func TestDescribeTellsEveryKindOfColumn(t *testing.T) {
	t.Parallel()
	pool := database(t, everything)
	table := describe(t, pool, "public", "kinds")
	if diff := cmp.Diff(everyColumn(), rows(table)); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if err := table.Readable(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]uint32{"id": pgtype.Int8OID, "dd": pgtype.NumericOID, "p": pgtype.JSONOID, "tz": pgtype.TextOID, "dt": pgtype.TextArrayOID} {
		if got := table.Column(name).Param; got != want {
			t.Errorf("%s is sent as a %d, want %d", name, got, want)
		}
	}
	if diff := cmp.Diff([]string{"id"}, table.Primary); diff != "" {
		t.Errorf("primary key (-want +got):\n%s", diff)
	}
}

// The values SELECTed are of the types that the columns say.
func TestParamIsTheTypeOfWhatIsSelected(t *testing.T) {
	t.Parallel()
	pool := database(t, everything)
	table := describe(t, pool, "public", "kinds")
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, c := range table.Columns {
		if c.Repeated && c.Base == "_inet" {
			continue // sent as text[]; arrays are never bound
		}
		prepared, err := conn.Conn().PgConn().Prepare(t.Context(), "", "SELECT "+c.Expr+" FROM "+table.Source(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := prepared.Fields[0].DataTypeOID; got != c.Param {
			t.Errorf("%s: selected as a %d, Param is %d", c.Name, got, c.Param)
		}
	}
}

func TestDescribeGoesByNoSearchPath(t *testing.T) {
	t.Parallel()
	url := postgres.NewDatabase(t)
	exec(t, connect(t, url), everything)
	exec(t, connect(t, url), `CREATE SCHEMA trap; CREATE TABLE trap.pg_class (trapped int); CREATE TABLE trap.pg_type (trapped int)`)
	table := describe(t, connect(t, url+"&search_path=trap,public,pg_catalog"), "public", "kinds")
	if diff := cmp.Diff(everyColumn(), rows(table)); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}

func TestDescribeInEveryMode(t *testing.T) {
	t.Parallel()
	url := postgres.NewDatabase(t)
	exec(t, connect(t, url), everything)
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		pool := connect(t, url+"&default_query_exec_mode="+mode)
		for range 2 {
			if diff := cmp.Diff(everyColumn(), rows(describe(t, pool, "public", "kinds"))); diff != "" {
				t.Errorf("%s: columns (-want +got):\n%s", mode, diff)
			}
		}
		var path string
		if err := pool.QueryRow(t.Context(), "SHOW search_path").Scan(&path); err != nil {
			t.Fatal(err)
		}
		if path != `"$user", public` {
			t.Errorf("%s: the session's search_path is %s afterwards", mode, path)
		}
	}
}

func TestDescribeRefuses(t *testing.T) {
	t.Parallel()
	pool := database(t, `CREATE TABLE "T" (id int); CREATE VIEW v AS SELECT 1 AS one; CREATE SCHEMA empty; CREATE TABLE nothing ()`)
	for what, name := range map[string]string{"missing": "t", "a view": "v"} {
		_, err := catalog.Describe(t.Context(), pool, "public", name)
		permanent(t, what, err)
	}
	_, err := catalog.Describe(t.Context(), pool, "empty", "T")
	permanent(t, "another schema's", err)
	if table := describe(t, pool, "public", "nothing"); len(table.Columns) != 0 {
		t.Errorf("a table without columns has %v", rows(table))
	}
}

func TestUnchangedSeesEveryChangeOfColumns(t *testing.T) {
	t.Parallel()
	pool := database(t, everything)
	for _, change := range []string{
		"", "CREATE INDEX ON kinds (t)", "INSERT INTO kinds (id, b, ba) VALUES (1, true, '{}')", "ANALYZE kinds",
		"ALTER TABLE kinds ADD COLUMN added int", "ALTER TABLE kinds DROP COLUMN added", "ALTER TABLE kinds RENAME COLUMN t TO t2",
		"ALTER TABLE kinds ALTER COLUMN v TYPE varchar(8)", "ALTER TABLE kinds ALTER COLUMN i2 TYPE int4", "ALTER TABLE kinds ALTER COLUMN u SET NOT NULL",
	} {
		if change == "ALTER TABLE kinds ALTER COLUMN u SET NOT NULL" {
			exec(t, pool, "TRUNCATE kinds")
		}
		table := describe(t, pool, "public", "kinds")
		if change != "" {
			exec(t, pool, change)
		}
		want := len(change) < 5 || change[:5] != "ALTER"
		inTx(t, pool, func(tx pgx.Tx) {
			if err := table.Lock(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			if got, err := table.Unchanged(t.Context(), tx); err != nil || got != want {
				t.Errorf("after %q: unchanged %v, %v", change, got, err)
			}
		})
	}
}

const keyed = `
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN number AS int;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE keyed (
	a int NOT NULL, b text NOT NULL, c uuid NOT NULL, d number NOT NULL, e mood NOT NULL, f int, g text COLLATE "C" NOT NULL, h int[] NOT NULL, i varchar(9) NOT NULL, j timestamptz NOT NULL
);
`

func TestChunkKeyIsWhatAnIndexServes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		index string
		key   []string
		want  []string
	}{
		"one column":                 {"(a)", []string{"a"}, []string{"a"}},
		"in the index' order":        {"(b, a)", []string{"a", "b"}, []string{"b", "a"}},
		"part of the key":            {"(c)", []string{"a", "c"}, []string{"c"}},
		"more than the key":          {"(a, b)", []string{"a"}, nil},
		"included columns":           {"(a) INCLUDE (b)", []string{"a"}, []string{"a"}},
		"a domain":                   {"(d)", []string{"d"}, []string{"d"}},
		"varchar":                    {"(i, j)", []string{"i", "j"}, []string{"i", "j"}},
		"all descending":             {"(a DESC, b DESC)", []string{"a", "b"}, []string{"a", "b"}},
		"mixed":                      {"(a DESC, b)", []string{"a", "b"}, nil},
		"NULLs first":                {"(a NULLS FIRST)", []string{"a"}, nil},
		"descending, NULLs last":     {"(a DESC NULLS LAST)", []string{"a"}, nil},
		"the column's own collation": {"(g)", []string{"g"}, []string{"g"}},
		"another collation":          {`(b COLLATE "C")`, []string{"b"}, nil},
		"another operator class":     {"(b text_pattern_ops)", []string{"b"}, nil},
		"an enum":                    {"(e)", []string{"e"}, nil},
		"an array":                   {"(h)", []string{"h"}, nil},
		"may be NULL":                {"(f)", []string{"f"}, nil},
		"partial":                    {"(a) WHERE a > 0", []string{"a"}, nil},
		"an expression":              {"(a, (a + 1))", []string{"a"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := database(t, keyed, "CREATE UNIQUE INDEX ON keyed "+test.index)
			table := describe(t, pool, "public", "keyed")
			got, ok := table.ChunkKey(test.key)
			if diff := cmp.Diff(test.want, got); diff != "" || ok != (test.want != nil) {
				t.Fatalf("ok is %v (-want +got):\n%s", ok, diff)
			}
			if ok {
				served(t, pool, got)
			}
		})
	}
}

// served asks the planner: reading on from a row neither sorts nor filters.
func served(t *testing.T, pool *pgxpool.Pool, columns []string) {
	t.Helper()
	list := ""
	for i, c := range columns {
		if i > 0 {
			list += ", "
		}
		list += c
	}
	inTx(t, pool, func(tx pgx.Tx) {
		if _, err := tx.Exec(t.Context(), "SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"); err != nil {
			t.Fatal(err)
		}
		var plan []struct {
			Plan struct {
				Type   string `json:"Node Type"`
				Cond   string `json:"Index Cond"`
				Filter string
			}
		}
		if err := tx.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) SELECT * FROM keyed WHERE ("+list+") > (SELECT "+list+" FROM keyed LIMIT 1) ORDER BY "+list).Scan(&plan); err != nil {
			t.Fatal(err)
		}
		if p := plan[0].Plan; p.Type != "Index Scan" || p.Cond == "" || p.Filter != "" {
			t.Errorf("%s is read by %+v", list, p)
		}
	})
}

func TestChunkKeyWantsAnIndexThatHoldsNow(t *testing.T) {
	t.Parallel()
	pool := database(t, keyed,
		"CREATE INDEX ON keyed (a)", "ALTER TABLE keyed ADD UNIQUE (b) DEFERRABLE", "CREATE UNIQUE INDEX broken ON keyed (c)",
		"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass", "CREATE UNIQUE INDEX ON keyed (i)", "ALTER TABLE keyed ADD PRIMARY KEY (i, j)")
	table := describe(t, pool, "public", "keyed")
	for _, column := range []string{"a", "b", "c"} {
		if columns, ok := table.ChunkKey([]string{column}); ok {
			t.Errorf("%s is read by %v", column, columns)
		}
	}
	if columns, _ := table.ChunkKey([]string{"j", "i"}); !cmp.Equal(columns, []string{"i", "j"}) {
		t.Errorf("the primary key does not come first: %v", columns)
	}
	for column, want := range map[string]bool{"a": true, "b": true, "c": false, "i": true, "j": false, "f": false} {
		if table.Leads(column) != want {
			t.Errorf("Leads(%s) is not %v", column, want)
		}
	}
	if _, err := table.CheckKey([]string{"i"}); err != nil {
		t.Error(err)
	}
	_, err := table.CheckKey([]string{"b"})
	permanent(t, "a key of a deferrable constraint", err)
}

const partitioned = `
CREATE TABLE parts (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE SCHEMA attic;
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE attic.parts_b PARTITION OF parts FOR VALUES IN ('b') PARTITION BY RANGE (id);
CREATE TABLE attic."parts B1" PARTITION OF attic.parts_b FOR VALUES FROM (0) TO (10000);
CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c') PARTITION BY RANGE (id);
INSERT INTO parts SELECT i, CASE WHEN i % 3 = 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 9000) i;
`

type size struct {
	Pages  int64
	Tuples float64
	Leaves []string
}

func sizeOf(t *testing.T, pool *pgxpool.Pool, table *catalog.Table) (size, []catalog.Leaf) {
	t.Helper()
	var s size
	var leaves []catalog.Leaf
	inTx(t, pool, func(tx pgx.Tx) {
		var err error
		if s.Pages, s.Tuples, leaves, err = table.Size(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
	})
	for _, l := range leaves {
		s.Leaves = append(s.Leaves, l.SQLName())
	}
	return s, leaves
}

func TestSizeCountsEveryLeaf(t *testing.T) {
	t.Parallel()
	pool := database(t, partitioned)
	table := describe(t, pool, "public", "parts")
	guess, _ := sizeOf(t, pool, table)
	if guess.Tuples < 1000 || guess.Tuples > 50_000 {
		t.Errorf("9,000 rows, never analyzed, are guessed to be %v", guess.Tuples)
	}
	exec(t, pool, "ANALYZE parts")
	got, leaves := sizeOf(t, pool, table)
	if diff := cmp.Diff(size{guess.Pages, 9000, []string{`"public"."parts_a"`, `"attic"."parts B1"`}}, got); diff != "" {
		t.Errorf("size (-want +got):\n%s", diff)
	}
	var pages int64
	for _, l := range leaves {
		var blocks int64
		if err := pool.QueryRow(t.Context(), "SELECT 1 + max((ctid::text::point)[0])::bigint FROM ONLY "+l.SQLName()).Scan(&blocks); err != nil {
			t.Fatal(err)
		}
		if l.Pages != blocks {
			t.Errorf("%s has %d pages and rows up to page %d", l.SQLName(), l.Pages, blocks)
		}
		pages += l.Pages
	}
	if pages != got.Pages {
		t.Errorf("%d pages in all, %d in the leaves", got.Pages, pages)
	}
	// Rows written since count too.
	exec(t, pool, "INSERT INTO parts SELECT i, 'a' FROM generate_series(10001, 19000) i")
	if grown, _ := sizeOf(t, pool, table); grown.Tuples < 17_500 || grown.Tuples > 18_500 {
		t.Errorf("18,000 rows, half of them analyzed, are guessed to be %v", grown.Tuples)
	}
}

func TestSizeShowsARewrite(t *testing.T) {
	t.Parallel()
	pool := database(t, "CREATE TABLE plain (id int PRIMARY KEY, note text)", "INSERT INTO plain SELECT generate_series(1, 1000)",
		"CREATE TABLE heir () INHERITS (plain)", "INSERT INTO heir SELECT generate_series(1, 1000)")
	table := describe(t, pool, "public", "plain")
	_, before := sizeOf(t, pool, table)
	if len(before) != 1 || before[0].Name != "plain" || before[0].OID != table.OID() {
		t.Fatalf("a plain table has the leaves %+v", before)
	}
	for statement, rewritten := range map[string]bool{
		"VACUUM plain": false, "VACUUM FULL plain": true, "CLUSTER plain USING plain_pkey": true, "TRUNCATE plain": true,
		"UPDATE plain SET note = 'x'": false, "ALTER TABLE plain ADD COLUMN fresh int DEFAULT 1": false,
	} {
		_, before := sizeOf(t, pool, table)
		exec(t, pool, statement)
		if _, after := sizeOf(t, pool, table); (before[0].Filenode != after[0].Filenode) != rewritten {
			t.Errorf("%s: the file was %d and is %d", statement, before[0].Filenode, after[0].Filenode)
		}
	}
}

func TestSizeRefusesForeignPartitions(t *testing.T) {
	t.Parallel()
	pool := database(t, "CREATE TABLE f (id int) PARTITION BY RANGE (id)",
		"CREATE FOREIGN DATA WRAPPER nowhere", "CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere", "CREATE FOREIGN TABLE f1 PARTITION OF f FOR VALUES FROM (0) TO (9) SERVER nowhere")
	table := describe(t, pool, "public", "f")
	inTx(t, pool, func(tx pgx.Tx) {
		_, _, _, err := table.Size(t.Context(), tx)
		permanent(t, "a foreign partition", err)
	})
}

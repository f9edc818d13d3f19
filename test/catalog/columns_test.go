package catalog_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

const people = `
	CREATE TABLE people (
		id bigint PRIMARY KEY, email varchar(80), password_hash text NOT NULL, dropped int, born date, balance numeric(12,2), code char(6), tags text[],
		seen timestamptz, secret bytea, "we""ird" inet, mood double precision);
	ALTER TABLE people DROP COLUMN dropped;
	CREATE FUNCTION own(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
	CREATE FUNCTION others(int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) + $1 FROM people';
	CREATE FUNCTION badge(people) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.email'`

func declared(t *testing.T, pool *pgxpool.Pool, d pipeline.Columns, where string) (*catalog.Table, error) {
	t.Helper()
	table := describe(t, pool, "public", "people")
	return table, table.Declare(t.Context(), pool, d, where, []byte("key"))
}

// plain is a column as the test has it.
type plain struct {
	Name, Expr string
	Kind       rowwire.Kind
	Repeated   bool
	Key        string // it is hashed with
	Computed   bool
}

func plainOf(table *catalog.Table) []plain {
	out := make([]plain, 0, len(table.Columns))
	for _, c := range table.Columns {
		out = append(out, plain{c.Name, c.Expr, c.Kind, c.Repeated, string(c.HashKey), c.Computed})
	}
	return out
}

// TestDeclare: only what is carried is left, hashed columns are their text, computed
// ones come behind.
func TestDeclare(t *testing.T) {
	t.Parallel()
	pool := database(t, people)
	for name, test := range map[string]struct {
		declared pipeline.Columns
		where    string
		want     []plain
	}{
		"include": {
			pipeline.Columns{Include: []string{"born", "id"}},
			"",
			[]plain{{Name: "id", Expr: `"id"`, Kind: rowwire.Int8}, {Name: "born", Expr: `"born"`, Kind: rowwire.Date}},
		},
		"exclude": {
			pipeline.Columns{Exclude: []string{"password_hash", "email", "balance", "code", "tags", "seen", "secret", `we"ird`, "mood"}},
			"",
			[]plain{{Name: "id", Expr: `"id"`, Kind: rowwire.Int8}, {Name: "born", Expr: `"born"`, Kind: rowwire.Date}},
		},
		"hash": {
			pipeline.Columns{Include: []string{"id", "email", "born", "code", "tags", `we"ird`}, Hash: []string{"id", "email", "born", "code", "tags", `we"ird`}},
			"",
			[]plain{
				{Name: "id", Expr: `"id"::text`, Kind: rowwire.Text, Key: "key"},
				{Name: "email", Expr: `"email"`, Kind: rowwire.Text, Key: "key"}, // as the log has it, too
				{Name: "born", Expr: `"born"::text`, Kind: rowwire.Text, Key: "key"},
				{Name: "code", Expr: `"code"::text`, Kind: rowwire.Text, Key: "key"},
				{Name: "tags", Expr: `"tags"::text`, Kind: rowwire.Text, Key: "key"},
				{Name: `we"ird`, Expr: `"we""ird"::text`, Kind: rowwire.Text, Key: "key"},
			},
		},
		"as": {
			pipeline.Columns{Include: []string{"id", "balance"}, As: map[string]string{"id": "STRING", "balance": "BIGNUMERIC"}},
			"",
			[]plain{{Name: "id", Expr: `"id"::text`, Kind: rowwire.Text}, {Name: "balance", Expr: `"balance"`, Kind: rowwire.BigNumeric}},
		},
		"compute": {
			pipeline.Columns{Include: []string{"id"}, Compute: []pipeline.Computed{
				{Name: "domain", SQL: "split_part(people.email, '@', 2) -- what is behind it"},
				{Name: "cents", SQL: "(balance * 100)::bigint"},
				{Name: "email", SQL: "lower(email)"}, // of a column that is not carried
				{Name: "net", SQL: `"we""ird"`},
				{Name: "all", SQL: "string_to_array(email, '.')"},
				{Name: "day", SQL: "to_char(seen AT TIME ZONE 'UTC', 'YYYY-MM-DD') || own(3) || concat('a)', email)"},
			}},
			"born > '1970-01-01' and (mood is null or mood < 1) -- grown up",
			[]plain{
				{Name: "id", Expr: `"id"`, Kind: rowwire.Int8},
				{Name: "domain", Expr: "(split_part(people.email, '@', 2) -- what is behind it\n)", Kind: rowwire.Text, Computed: true},
				{Name: "cents", Expr: "((balance * 100)::bigint\n)", Kind: rowwire.Int8, Computed: true},
				{Name: "email", Expr: "(lower(email)\n)", Kind: rowwire.Text, Computed: true},
				{Name: "net", Expr: "(\"we\"\"ird\"\n)::text", Kind: rowwire.Text, Computed: true},
				{Name: "all", Expr: "(string_to_array(email, '.')\n)", Kind: rowwire.Text, Repeated: true, Computed: true},
				{Name: "day", Expr: "(to_char(seen AT TIME ZONE 'UTC', 'YYYY-MM-DD') || own(3) || concat('a)', email)\n)", Kind: rowwire.Text, Computed: true},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table, err := declared(t, pool, test.declared, test.where)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, plainOf(table), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
			want := ""
			if test.where != "" {
				want = "(" + test.where + "\n)"
			}
			if got := table.Condition(); got != want {
				t.Errorf("Condition = %q, want %q", got, want)
			}
			list := make([]string, len(table.Columns))
			for i, c := range table.Columns {
				list[i] = c.Expr
			}
			condition := table.Condition()
			if condition == "" {
				condition = "true"
			}
			exec(t, pool, "SELECT "+strings.Join(list, ", ")+" FROM "+table.Source()+" WHERE "+condition)
			if table.Stored("password_hash") == nil || table.LastNumber() != 12 {
				t.Errorf("what is stored is forgotten: last number %d", table.LastNumber())
			}
		})
	}
}

// TestDeclareRefuses what the table does not have, and what depends on more than the row.
func TestDeclareRefuses(t *testing.T) {
	t.Parallel()
	pool := database(t, people)
	compute := func(sql string) pipeline.Columns {
		return pipeline.Columns{Compute: []pipeline.Computed{{Name: "c", SQL: sql}}}
	}
	for name, d := range map[string]pipeline.Columns{
		"include of nothing":     {Include: []string{"id", "nope"}},
		"exclude of nothing":     {Exclude: []string{"password"}},
		"rename of nothing":      {Rename: []pipeline.Mapping{{From: "nope", To: "x"}}},
		"rename of the excluded": {Exclude: []string{"email"}, Rename: []pipeline.Mapping{{From: "email", To: "x"}}},
		"hash of nothing":        {Hash: []string{"nope"}},
		"hash of the excluded":   {Include: []string{"id"}, Hash: []string{"email"}},
		"as of nothing":          {As: map[string]string{"nope": "STRING"}},
		"as what it cannot be":   {As: map[string]string{"id": "DATE"}},
		"no such column":         compute("nope + 1"),
		"syntax":                 compute("id +"),
		"empty":                  compute(" "),
		"a comment":              compute("-- nothing"),
		"two":                    compute("id, email"),
		"a star":                 compute("people.*"),
		"a parameter":            compute("$1::text"),
		"out of its parentheses": compute("1) FROM pg_catalog.pg_class WHERE (true"),
		"two statements":         compute("id); DROP TABLE people; --"),
		"a sub-select":           compute("(SELECT count(*) FROM people)"),
		"a sub-select in words":  compute("EXISTS (TABLE people)"),
		"values":                 compute("(VALUES (1))"),
		"an aggregate":           compute("sum(id)"),
		"a window":               compute("row_number() OVER ()"),
		"a set":                  compute("generate_series(1, id)"),
		"a set of an array":      compute("unnest(tags)"),
		"a record":               compute("people"),
		"random":                 compute("random()"),
		"random, quoted":         compute(`"random"()`),
		"random, qualified":      compute(`pg_catalog . "random" ()`),
		"random, in unicode":     compute(`U&"r\0061ndom"()`),
		"random, commented":      compute("random/* ( */()"),
		"the clock":              compute("seen > now()"),
		"the clock, by word":     compute("CURRENT_DATE - born"),
		"the clock, by literal":  compute("born < 'Today'"),
		"the clock, by dollars":  compute("born < $$ now $$::date"),
		"age":                    compute("age(born)"),
		"who asks":               compute("current_user"),
		"a setting":              compute("current_setting('work_mem')"),
		"a function that reads":  compute("others(1)"),
		"one as an attribute":    compute("people.badge"),
		"one as an attribute, 2": compute(`(people) . "badge"`),
		"a sequence":             compute("nextval('s')"),
		"when it was written":    compute("xmin::text"),
	} {
		table, err := declared(t, pool, d, "")
		if err == nil {
			err = table.Readable()
		}
		permanent(t, name, err)
	}
	for _, where := range []string{"id", "nope = 1", "id > (SELECT 1)", "seen > now() - interval '1 day'", "count(*) > 1", "true) OR (true", "id = $1", "-- x", "others(1) > 3", "id = 1 ORDER BY id", "generate_series(1, 2) = 1"} {
		_, err := declared(t, pool, pipeline.Columns{}, where)
		permanent(t, where, err)
	}
	// Words that are something else where they stand.
	for _, where := range []string{`email = 'random() ( SELECT now() ;'`, `email <> 'the show must go on today, or so' /* now() */`, "code ~ $x$)$x$ AND id IN (1, 2)", "born + interval '1 day' > '2020-01-01' AND extract(year FROM seen) > 3"} {
		if _, err := declared(t, pool, pipeline.Columns{}, where); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}

// TestDeclaredErrorsAreLocated in the expression, not in the statement around it.
func TestDeclaredErrorsAreLocated(t *testing.T) {
	t.Parallel()
	pool := database(t, people)
	_, err := declared(t, pool, pipeline.Columns{Compute: []pipeline.Computed{{Name: "é", SQL: "id::text ||\n  'é' || nope"}}}, "")
	if err == nil || !strings.Contains(err.Error(), `computed column "é": line 2, column 10 of it`) {
		t.Errorf("got %v", err)
	}
	_, err = declared(t, pool, pipeline.Columns{}, "id > 1\nAND nope")
	if err == nil || !strings.Contains(err.Error(), "where: line 2, column 5 of it") {
		t.Errorf("got %v", err)
	}
	_, err = declared(t, pool, pipeline.Columns{Exclude: []string{"nope"}}, "")
	if err == nil || !strings.Contains(err.Error(), `excluded column "nope"`) {
		t.Errorf("got %v", err)
	}
}

// TestDeclaredKey: the key is carried, and may be hashed where equal values have one text.
func TestDeclaredKey(t *testing.T) {
	t.Parallel()
	pool := database(t, people)
	for _, d := range []pipeline.Columns{
		{Exclude: []string{"id"}},
		{Include: []string{"email"}},
		{Include: []string{"email"}, Compute: []pipeline.Computed{{Name: "id", SQL: "id"}}},
	} {
		table, err := declared(t, pool, d, "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = table.CheckKey(nil)
		permanent(t, "a key that is not carried", err)
	}
	table, err := declared(t, pool, pipeline.Columns{Hash: []string{"id"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.CheckKey(nil); err != nil {
		t.Errorf("a hashed key: %v", err)
	}
	exec(t, pool, `ALTER TABLE people ALTER balance SET NOT NULL; CREATE UNIQUE INDEX ON people (balance)`)
	if table, err = declared(t, pool, pipeline.Columns{Hash: []string{"balance"}}, ""); err != nil {
		t.Fatal(err)
	}
	_, err = table.CheckKey([]string{"balance"})
	permanent(t, "1.0 and 1.00", err)
}

// TestDeclarationIsTold: the fingerprint changes with everything that is declared, and
// Declared with what makes rows that were carried before wrong.
func TestDeclarationIsTold(t *testing.T) {
	t.Parallel()
	pool := database(t, people)
	base := describe(t, pool, "public", "people")
	if base.Declared() != "" {
		t.Errorf("nothing is declared: %q", base.Declared())
	}
	fingerprints, declarations := map[string]string{base.Fingerprint(): "nothing"}, map[string]string{}
	for name, test := range map[string]struct {
		declared pipeline.Columns
		where    string
		again    bool // the whole table
	}{
		"exclude":       {pipeline.Columns{Exclude: []string{"email"}}, "", false},
		"hash":          {pipeline.Columns{Hash: []string{"email"}}, "", true},
		"as":            {pipeline.Columns{As: map[string]string{"id": "STRING"}}, "", true},
		"as NUMERIC":    {pipeline.Columns{As: map[string]string{"id": "NUMERIC"}}, "", true},
		"compute":       {pipeline.Columns{Compute: []pipeline.Computed{{Name: "c", SQL: "id + 1"}}}, "", true},
		"compute twice": {pipeline.Columns{Compute: []pipeline.Computed{{Name: "c", SQL: "id + 2"}}}, "", true},
		"where":         {pipeline.Columns{}, "id > 1", true},
		"where else":    {pipeline.Columns{}, "id > 2", true},
	} {
		table, err := declared(t, pool, test.declared, test.where)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := fingerprints[table.Fingerprint()]; taken {
			t.Errorf("%s has the fingerprint of %s", name, other)
		}
		fingerprints[table.Fingerprint()] = name
		other, taken := declarations[table.Declared()]
		if again := table.Declared() != ""; again != test.again || taken && again {
			t.Errorf("%s: Declared = %q (as %q)", name, table.Declared(), other)
		}
		declarations[table.Declared()] = name
	}
	table := describe(t, pool, "public", "people")
	if err := table.Declare(t.Context(), pool, pipeline.Columns{Hash: []string{"email"}}, "", []byte("another")); err != nil {
		t.Fatal(err)
	}
	if other := declarations[table.Declared()]; other != "" || strings.Contains(table.Declared(), "another") {
		t.Errorf("another key: %q, as %q", table.Declared(), other)
	}
}

// TestColumnsThatCameWithValues: rows that are older than a column have values of it
// that no change of theirs brought.
func TestColumnsThatCameWithValues(t *testing.T) {
	t.Parallel()
	pool := database(t, `
		CREATE TABLE t (id int PRIMARY KEY, a text, b text NOT NULL);
		CREATE TABLE p (id int PRIMARY KEY, a text) PARTITION BY RANGE (id);
		CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
		INSERT INTO p VALUES (1, 'a');
		INSERT INTO t VALUES (1, 'a', 'b');
		ALTER TABLE t ADD c text DEFAULT 'c', ADD d text DEFAULT 'd', ADD e int GENERATED ALWAYS AS IDENTITY, ADD f text, ADD g uuid DEFAULT gen_random_uuid(), ADD h int GENERATED ALWAYS AS (id) STORED;
		ALTER TABLE t ALTER d DROP DEFAULT; ALTER TABLE t DROP c;
		ALTER TABLE p ADD d text DEFAULT 'd', ADD f text;
		ALTER TABLE p ALTER d DROP DEFAULT`)
	type column struct {
		Name    string
		Number  int16
		Missing bool
	}
	of := func(table string) []column {
		described := describe(t, pool, "public", table)
		out := make([]column, len(described.Columns))
		for i, c := range described.Columns {
			out[i] = column{c.Name, c.Number, c.Missing}
		}
		return out
	}
	// g, with a random default, had the table rewritten: then d has no stored default, and its values stay.
	want := []column{{"id", 1, true}, {"a", 2, false}, {"b", 3, true}, {"d", 5, false}, {"e", 6, true}, {"f", 7, false}, {"g", 8, true}, {"h", 9, true}}
	if diff := cmp.Diff(want, of("t")); diff != "" {
		t.Errorf("t (-want +got):\n%s", diff)
	}
	want = []column{{"id", 1, true}, {"a", 2, false}, {"d", 3, true}, {"f", 4, false}}
	if diff := cmp.Diff(want, of("p")); diff != "" {
		t.Errorf("p (-want +got):\n%s", diff)
	}
	exec(t, pool, `ALTER TABLE t ADD late text DEFAULT 'x'; ALTER TABLE t ALTER late DROP DEFAULT`)
	if got := of("t"); !got[len(got)-1].Missing || got[len(got)-1].Number != 10 {
		t.Errorf("a default that was dropped at once: %+v", got[len(got)-1])
	}
}

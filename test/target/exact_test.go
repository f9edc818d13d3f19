package target_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

const (
	changes = "the value would change" // rejects with that reason
	refused = "refused"                // before any row moves
)

// TestNoValueChangesSilently: each value is stored as what it was, or its row is
// rejected, or the pair of types is refused (I3).
func TestNoValueChangesSilently(t *testing.T) {
	t.Parallel()
	types := `CREATE TYPE tier AS ENUM ('gold', 'silver'); CREATE DOMAIN code AS varchar(3); CREATE DOMAIN price AS numeric(6,2);
		CREATE DOMAIN codes AS varchar(2)[]; CREATE TYPE pair AS (a int, b int)`
	// Nothing depends on what is set on the database.
	d := newDatabase(t, types, `DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %I SET timezone = ''America/New_York''', current_database());
		EXECUTE format('ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database());
		EXECUTE format('ALTER DATABASE %I SET intervalstyle = ''sql_standard''', current_database());
		EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -10', current_database());
		EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database()); END $$`)
	tests := []struct{ from, to, value, want string }{
		// text cut or padded
		{"text", "varchar(3)", "'abc'", "abc"},
		{"text", "varchar(3)", "'abcd'", changes},
		{"text", "varchar(3)", "'abc  '", changes},
		{"text", "char(3)", "'ab'", "ab"},
		{"text", "char(3)", "'abcd'", changes},
		{"text", "code", "'abcd'", changes},
		{"text", "code", "'abc'", "abc"},
		{"text", "text", "'any'", "any"},
		{"text", "text COLLATE \"C\"", "'any'", "any"},
		{"text", "name", "repeat('x', 64)", changes},
		{"bigint", "varchar(3)", "1234", changes},
		{"bigint", "varchar(3)", "123", "123"},
		{"bigint", "char(3)", "1234", changes},
		{"double precision", "varchar(4)", "0.12345", changes},
		{"double precision", "varchar(4)", "0.25", "0.25"},
		{"double precision", "text", "0.1", "0.1"},
		{"numeric", "varchar(4)", "10.505", changes},
		{"numeric", "text", "10.505", "10.505"},
		{"boolean", "char(1)", "true", changes},
		{"boolean", "text", "true", "true"},
		{"date", "varchar(4)", "'2026-01-02'", changes},
		{"date", "varchar(10)", "'2026-01-02'", "2026-01-02"},
		{"timestamptz", "varchar(10)", "'2026-01-02 10:00+00'", changes},
		{"timestamptz", "text", "'2026-01-02 10:00+00'", "2026-01-02 10:00:00+00"},
		{"timestamp", "code", "'2026-01-02 10:00'", changes},
		{"time", "char(5)", "'10:00'", changes},
		{"jsonb", "varchar(3)", `'{"a": 1}'`, changes},
		{"jsonb", "text", `'{"a": 1}'`, `{"a": 1}`},
		// text read
		{"text", "numeric(6,2)", "'1.005'", changes},
		{"text", "numeric(6,2)", "'1.10'", "1.10"},
		{"text", "numeric", "'1.005'", "1.005"},
		{"text", "price", "'1.005'", changes},
		{"text", "integer", "'12'", "12"},
		{"text", "integer", "'1.5'", "SQLSTATE 22P02"},
		{"text", "timestamp(0)", "'2026-01-01 10:00:00.5'", changes},
		{"text", "timestamp(0)", "'2026-01-01T10:00:05'", "2026-01-01 10:00:05"},
		{"text", "timestamp", "'2026-01-01 10:00:00.1234567'", changes},
		{"text", "timestamp", "'2026-01-01 10:00:00.1234560'", "2026-01-01 10:00:00.123456"},
		{"text", "timestamp", "'2026-01-01 10:00+02'", changes},
		{"text", "timestamp", "'2026-12-31 23:59:60'", changes},
		{"text", "timestamp", "'now'", changes},
		{"text", "timestamptz", "'2026-01-01 10:00+02'", "2026-01-01 08:00:00+00"},
		{"text", "timestamptz", "'2026-01-01 10:00:00 UTC'", "2026-01-01 10:00:00+00"},
		{"text", "timestamptz", "'2026-01-01T10:00:00Z'", "2026-01-01 10:00:00+00"},
		{"text", "timestamptz", "'2026-01-01 10:00'", "2026-01-01 10:00:00+00"},
		{"text", "timestamptz(0)", "'2026-01-01 10:00:00.5Z'", changes},
		{"text", "timestamptz", "'2026/02/03'", changes},
		{"text", "date", "'2026-01-01'", "2026-01-01"},
		{"text", "date", "'2026-01-01 10:00'", changes},
		{"text", "date", "'2026/1/2'", changes},
		{"text", "date", "'today'", changes},
		{"text", "time", "'10:00'", "10:00:00"},
		{"text", "time(0)", "'10:00:00.5'", changes},
		{"text", "time", "'2026-01-01 10:00'", changes},
		{"text", "time", "'24:00:00'", "24:00:00"},
		{"text", "interval", "'PT36H'", "PT36H"},
		{"text", "interval", "'1 day 2 hours'", "P1DT2H"},
		{"text", "interval", "'1.5 months'", changes},
		{"text", "interval minute", "'00:10:30'", changes},
		{"text", "bit(3)", "'101'", "101"},
		{"text", "bit(3)", "'1011'", changes},
		{"text", "bit(3)", "'1'", changes},
		{"text", "varbit(2)", "'101'", changes},
		{"text", "double precision", "'0.1'", "0.1"},
		{"text", "double precision", "'0.12345678901234567890'", changes},
		{"text", "double precision", "'1e22'", "1e+22"},
		{"text", "real", "'0.123456789'", changes},
		{"text", "real", "'0.1'", "0.1"},
		{"text", "money", "'1.005'", changes},
		{"text", "money", "'1.25'", "$1.25"},
		{"text", "uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"text", "inet", "'10.0.0.1/32'", "10.0.0.1"},
		{"text", "tier", "'gold'", "gold"},
		{"text", "tier", "'iron'", "SQLSTATE 22P02"},
		{"text", "boolean", "'yes'", "true"},
		{"text", "oid", "'-1'", changes},
		{"text", "jsonb", `'{"a": 1, "a": 2}'`, changes},
		{"text", "jsonb", `'{"b":[1, {"a": 2}],"a":null}'`, `{"a": null, "b": [1, {"a": 2}]}`},
		{"text", "jsonb", `'[{"a": {"b": 1, "b": 1}}]'`, changes},
		{"text", "json", `'{"a":1}'`, `{"a":1}`},
		{"text", "tsvector", "'b a'", changes},
		{"text", "int4range", "'[1,10]'", changes},
		{"text", "integer[]", "'{1,2}'", "{1,2}"},
		{"text", "pair", "'(1,2)'", "(1,2)"},
		{"text", "bytea", "'abc'", refused},
		{"bytea", "text", "'abc'", refused},
		{"bytea", "bytea", "'abc'", `\x616263`},
		// numbers
		{"numeric", "numeric(6,2)", "1.005", changes},
		{"numeric", "integer", "1.5", changes},
		{"numeric", "integer", "2", "2"},
		{"numeric", "double precision", "0.1", "0.1"},
		{"numeric", "double precision", "0.12345678901234567890", changes},
		{"numeric", "double precision", "0.12345678901234566", "0.12345678901234566"},
		{"numeric", "real", "16777217", changes},
		{"numeric", "money", "1.005", changes},
		{"numeric", "money", "1.25", "$1.25"},
		{"bigint", "smallint", "40000", "SQLSTATE 22003"},
		{"bigint", "double precision", "9007199254740993", changes},
		{"bigint", "double precision", "9007199254740992", "9.007199254740992e+15"},
		{"bigint", "real", "16777217", changes},
		{"bigint", "real", "16777216", "1.6777216e+07"},
		{"bigint", "bit(3)", "8", changes},
		{"bigint", "bit(4)", "8", "1000"},
		{"bigint", "bit(4)", "-8", changes},
		{"bigint", "money", "5", "$5.00"},
		{"bigint", "numeric(5,-2)", "1250", changes},
		{"bigint", "boolean", "1", refused},
		{"bigint", "uuid", "1", refused},
		{"double precision", "integer", "1.5", changes},
		{"double precision", "bigint", "3", "3"},
		{"double precision", "bigint", "'NaN'", "SQLSTATE 22003"},
		{"double precision", "numeric(6,2)", "1.005", changes},
		{"double precision", "numeric", "0.12345678901234566", "0.12345678901234566"},
		{"double precision", "real", "0.1", "0.1"}, // the mapping chose it
		{"boolean", "integer", "true", "1"},
		// times
		{"date", "timestamp", "'2026-01-02'", "2026-01-02 00:00:00"},
		{"date", "timestamptz", "'2026-01-02'", "2026-01-02 00:00:00+00"},
		{"timestamp", "date", "'2026-01-02 10:00'", changes},
		{"timestamp", "date", "'2026-01-02'", "2026-01-02"},
		{"timestamp", "timestamp(3)", "'2026-01-02 10:00:00.0005'", changes},
		{"timestamp", "timestamptz", "'2026-07-02 10:00'", "2026-07-02 10:00:00+00"},
		{"timestamp", "timestamptz", "'2026-03-08 02:30'", "2026-03-08 02:30:00+00"}, // no time in New York
		{"timestamptz", "timestamp", "'2026-07-02 10:00+00'", "2026-07-02 10:00:00"},
		{"timestamptz", "date", "'2026-07-02 01:00+00'", changes},
		{"timestamptz", "date", "'2026-07-02 00:00+00'", "2026-07-02"},
		{"timestamptz", "time", "'2026-07-02 00:00+00'", refused},
		{"time", "time(0)", "'10:00:00.5'", changes},
		{"time", "interval", "'10:00'", "PT10H"},
		{"time", "timestamp", "'10:00'", refused},
		// JSON
		{"jsonb", "numeric(6,2)", "'1.005'", changes},
		{"jsonb", "numeric(6,2)", "'1.25'", "1.25"},
		{"jsonb", "integer", "'1.5'", changes},
		{"jsonb", "integer", "'2'", "2"},
		{"jsonb", "integer", `'"2"'`, "SQLSTATE 22023"},
		{"jsonb", "double precision", "'0.12345678901234567890'", changes},
		{"jsonb", "boolean", "'true'", "true"},
		{"jsonb", "json", `'{"a":1}'`, `{"a": 1}`},
		{"jsonb", "date", `'"2026-01-01"'`, refused},
		// arrays
		{"double precision[]", "integer[]", "'{1,1.5}'", changes},
		{"double precision[]", "integer[]", "'{1,2}'", "{1,2}"},
		{"double precision[]", "numeric(6,2)[]", "'{1.005}'", changes},
		{"double precision[]", "numeric[]", "'{0.12345678901234566}'", "{0.12345678901234566}"},
		{"double precision[]", "real[]", "'{0.1}'", "{0.1}"},
		{"text[]", "varchar(2)[]", "'{ab,abc}'", changes},
		{"text[]", "varchar(2)[]", "'{ab,a}'", "{ab,a}"},
		{"text[]", "codes", "'{ab,abc}'", changes},
		{"text[]", "char(2)[]", "'{a,abc}'", changes},
		{"text[]", "char(2)[]", "'{a,ab}'", `{"a ",ab}`},
		{"text[]", "date[]", "'{2026-01-01 10:00}'", changes},
		{"text[]", "timestamptz[]", "'{2026-01-01 10:00+02}'", `{"2026-01-01 08:00:00+00"}`},
		{"text[]", "tier[]", "'{gold,silver}'", "{gold,silver}"},
		{"text[]", "tier[]", "'{gold,iron}'", "SQLSTATE 22P02"},
		{"bigint[]", "bigint[]", "'{1,2}'", "{1,2}"},
		{"bigint[]", "smallint[]", "'{1,2}'", "{1,2}"},
		{"bigint[]", "smallint[]", "'{}'", "{}"},
		{"bigint[]", "text", "'{1,2}'", refused},
		{"bigint[]", "jsonb", "'{1,2}'", refused},
		{"timestamptz[]", "date[]", "'{2026-01-01 10:00+00}'", changes},
	}
	for i, test := range tests {
		t.Run(fmt.Sprintf("%s to %s of %s", test.from, test.to, test.value), func(t *testing.T) {
			t.Parallel()
			table := fmt.Sprintf("t%d", i)
			d := &database{t: t, url: d.url, app: d.app, product: d.product}
			d.exec("CREATE TABLE " + table + " (id bigint PRIMARY KEY, v " + test.to + ")")
			s := sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"})
			s.Name, s.Table = table, table
			stage, err := d.openUnit(s, table, id, v(test.from))
			if test.want == refused {
				permanent(t, err, test.from, `"v"`)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d.load(stage, fmt.Sprintf("SELECT 1::bigint, (%s)::%s UNION ALL SELECT 2, NULL", test.value, test.from))
			plan := d.plan(stage)
			applied := d.apply(stage)
			if err := stage.Drop(t.Context()); err != nil {
				t.Error(err)
			}
			d.expect("SELECT count(*) FROM "+table+" WHERE id = 2 AND v IS NULL", "1")
			var got string
			if len(plan.Rejects) > 0 {
				got = plan.Rejects[0].Reason
			} else {
				got = d.canonical("SELECT v::text FROM " + table + " WHERE id = 1")
			}
			if !strings.HasPrefix(got, test.want) || strings.HasPrefix(test.want, got) != (got == test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
			if written, rejected := applied.Inserted, len(plan.Rejects)+len(applied.Rejects); written+int64(rejected) != 2 {
				t.Errorf("of 2 rows %d written, %d rejected", written, rejected)
			}
		})
	}
}

// canonical reads a text under the settings that values are compared in.
func (d *database) canonical(sql string) string {
	d.t.Helper()
	ctx := d.t.Context()
	tx, err := d.app.Begin(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() {
		if err := tx.Rollback(ctx); err != nil {
			d.t.Error(err)
		}
	}()
	if _, err := tx.Exec(ctx, "SET LOCAL timezone = 'UTC'; SET LOCAL intervalstyle = iso_8601; SET LOCAL datestyle = ISO; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = hex"); err != nil {
		d.t.Fatal(err)
	}
	var out *string
	if err := tx.QueryRow(ctx, sql).Scan(&out); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	if out == nil {
		return "NULL"
	}
	return *out
}

//go:build googlesql

package analyzer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testOptions() Options {
	return Options{
		DefaultProject: "p", DefaultDataset: "d",
		Parameters: []Parameter{{"since", "TIMESTAMP"}, {"ids", "ARRAY<INT64>"}},
		Tables: []Table{
			{"p", "d", "t", []Column{
				{"id", "INT64"},
				{"name", "STRING(20)"},
				{"ts", "TIMESTAMP"},
				{"n", "NUMERIC(10, 2)"},
				{"b", "BIGNUMERIC"},
				{"j", "JSON"},
				{"tags", "ARRAY<STRING>"},
				{"s", "STRUCT<a INT64, b STRING>"},
				{"dt", "DATETIME"},
				{"day", "DATE"},
				{"f", "FLOAT64"},
				{"raw", "BYTES"},
				{"ok", "BOOL"},
				{"_version", "STRING"},
				{"_deleted", "BOOL"},
			}},
			{"my-project", "d", "u", []Column{{"id", "INT64"}, {"v", "STRING"}}},
			{"p", "d.INFORMATION_SCHEMA", "TABLES", []Column{{"table_name", "STRING"}}},
		},
	}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	all := []Column{
		{"id", "INT64"},
		{"name", "STRING"},
		{"ts", "TIMESTAMP"},
		{"n", "NUMERIC"},
		{"b", "BIGNUMERIC"},
		{"j", "JSON"},
		{"tags", "ARRAY<STRING>"},
		{"s", "STRUCT<a INT64, b STRING>"},
		{"dt", "DATETIME"},
		{"day", "DATE"},
		{"f", "FLOAT64"},
		{"raw", "BYTES"},
		{"ok", "BOOL"},
		{"_version", "STRING"},
		{"_deleted", "BOOL"},
	}
	id := []Column{{"id", "INT64"}}
	onlyT := []string{"p.d.t"}
	for _, tc := range []struct {
		sql  string
		want Result
	}{
		{"SELECT * FROM t", Result{all, "SELECT", onlyT}},
		// every form of a table path
		{"SELECT id FROM `p.d.t`", Result{id, "SELECT", onlyT}},
		{"SELECT id FROM p.d.t", Result{id, "SELECT", onlyT}},
		{"SELECT id FROM `p`.`d`.`t`", Result{id, "SELECT", onlyT}},
		{"SELECT id FROM `p.d`.t", Result{id, "SELECT", onlyT}},
		{"SELECT id FROM `d.t`", Result{id, "SELECT", onlyT}},
		{"SELECT t.id FROM d.t", Result{id, "SELECT", onlyT}},
		{"SELECT id FROM `my-project.d.u`", Result{id, "SELECT", []string{"my-project.d.u"}}},
		{"SELECT id FROM my-project.d.u", Result{id, "SELECT", []string{"my-project.d.u"}}},
		{"SELECT table_name FROM d.INFORMATION_SCHEMA.TABLES", Result{[]Column{{"table_name", "STRING"}}, "SELECT", []string{"p.d.INFORMATION_SCHEMA.TABLES"}}},
		{"SELECT x.id FROM t AS x JOIN `my-project.d.u` AS y USING (id) WHERE y.id IN (SELECT ID FROM t)", Result{id, "SELECT", []string{"my-project.d.u", "p.d.t"}}},
		{"WITH t AS (SELECT 1 AS a) SELECT a FROM t", Result{[]Column{{"a", "INT64"}}, "SELECT", []string{}}},
		// types
		{"SELECT COUNT(*), id AS x, id / 2 FROM t GROUP BY id", Result{[]Column{{"f0_", "INT64"}, {"x", "INT64"}, {"f1_", "FLOAT64"}}, "SELECT", onlyT}},
		{"SELECT n / 2 AS a, n * f AS b, AVG(n) OVER () AS c, AVG(id) OVER () AS d, STRUCT(1 AS x, [id] AS y) AS e, j.a AS g, INTERVAL 1 DAY AS h, RANGE(day, day) AS i FROM t", Result{
			[]Column{{"a", "NUMERIC"}, {"b", "FLOAT64"}, {"c", "NUMERIC"}, {"d", "FLOAT64"}, {"e", "STRUCT<x INT64, y ARRAY<INT64>>"}, {"g", "JSON"}, {"h", "INTERVAL"}, {"i", "RANGE<DATE>"}}, "SELECT", onlyT,
		}},
		{"SELECT @since AS a, id IN UNNEST(@ids) AS b FROM t", Result{[]Column{{"a", "TIMESTAMP"}, {"b", "BOOL"}}, "SELECT", onlyT}},
		// features
		{"SELECT id FROM t QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY _version DESC) = 1", Result{id, "SELECT", onlyT}},
		{"SELECT x FROM t, UNNEST(tags) AS x WITH OFFSET AS o", Result{[]Column{{"x", "STRING"}}, "SELECT", onlyT}},
		{"SELECT * FROM (SELECT id, name FROM t) PIVOT (COUNT(*) FOR name IN ('a'))", Result{[]Column{{"id", "INT64"}, {"a", "INT64"}}, "SELECT", onlyT}},
		{"SELECT id FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2024-01-01'", Result{id, "SELECT", onlyT}},
		{"SELECT TIMESTAMP_SUB(ts, INTERVAL 3 DAY) AS a, DATE_SUB(day, INTERVAL 3 MONTH) AS b, ts - INTERVAL 1 HOUR AS c, dt - INTERVAL 1 MONTH AS d FROM t", Result{[]Column{{"a", "TIMESTAMP"}, {"b", "DATE"}, {"c", "TIMESTAMP"}, {"d", "DATETIME"}}, "SELECT", onlyT}},
		{"SELECT FARM_FINGERPRINT('x') AS a, TO_HEX(MD5('x')) AS b, NET.HOST('x') AS c, SAFE.LN(0) AS d, HLL_COUNT.EXTRACT(b'x') AS e", Result{[]Column{{"a", "INT64"}, {"b", "STRING"}, {"c", "STRING"}, {"d", "FLOAT64"}, {"e", "INT64"}}, "SELECT", []string{}}},
		{"SELECT SUBSTRING('a', 1) AS a, POWER(2, 2) AS b, CEILING(1.5) AS c, CURRENT_DATE AS d, STRPOS('a', 'a') AS e, CURRENT_TIMESTAMP() AS f", Result{[]Column{{"a", "STRING"}, {"b", "FLOAT64"}, {"c", "FLOAT64"}, {"d", "DATE"}, {"e", "INT64"}, {"f", "TIMESTAMP"}}, "SELECT", []string{}}},
		{"SELECT id, _CHANGE_TYPE, _CHANGE_TIMESTAMP FROM APPENDS(TABLE d.t, @since, NULL)", Result{[]Column{{"id", "INT64"}, {"_CHANGE_TYPE", "STRING"}, {"_CHANGE_TIMESTAMP", "TIMESTAMP"}}, "SELECT", onlyT}},
		{"SELECT * FROM appends(TABLE `my-project.d.u`)", Result{[]Column{{"id", "INT64"}, {"v", "STRING"}, {"_CHANGE_TYPE", "STRING"}, {"_CHANGE_TIMESTAMP", "TIMESTAMP"}}, "SELECT", []string{"my-project.d.u"}}},
		{"SELECT a.id, v, b._CHANGE_TYPE AS x FROM APPENDS(TABLE t, NULL, TIMESTAMP '2026-01-01 00:00:00+00') AS a JOIN APPENDS(TABLE `my-project.d.u`, CURRENT_TIMESTAMP()) AS b USING (id)", Result{[]Column{{"id", "INT64"}, {"v", "STRING"}, {"x", "STRING"}}, "SELECT", []string{"my-project.d.u", "p.d.t"}}},
		// DML and DDL
		{"INSERT INTO t (id, n, f) SELECT 1, 1, 1", Result{nil, "INSERT", onlyT}},
		{"UPDATE t SET name = 'x' WHERE id = 1", Result{nil, "UPDATE", onlyT}},
		{"DELETE FROM t AS x WHERE EXISTS (SELECT 1 FROM t AS y WHERE y.id = x.id AND y._version > x._version)", Result{nil, "DELETE", onlyT}},
		{"MERGE t USING (SELECT 1 AS id) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET name = 'x' WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id) WHEN NOT MATCHED BY SOURCE THEN DELETE", Result{nil, "MERGE", onlyT}},
		{"TRUNCATE TABLE t", Result{nil, "TRUNCATE_TABLE", onlyT}},
		{"CREATE OR REPLACE VIEW d.v AS SELECT * EXCEPT (rn) FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY id ORDER BY _version DESC) AS rn FROM t) WHERE rn = 1", Result{id, "CREATE_VIEW", onlyT}},
		{"CREATE TABLE d.x PARTITION BY TIMESTAMP_TRUNC(ts, MONTH) CLUSTER BY id AS SELECT id, ts FROM t", Result{[]Column{{"id", "INT64"}, {"ts", "TIMESTAMP"}}, "CREATE_TABLE_AS_SELECT", onlyT}},
		{"CREATE TABLE d.x (a INT64 NOT NULL, PRIMARY KEY (a) NOT ENFORCED) CLUSTER BY a OPTIONS (max_staleness = INTERVAL 10 MINUTE)", Result{nil, "CREATE_TABLE", []string{}}},
		{"DROP TABLE IF EXISTS d.x", Result{nil, "DROP_TABLE", []string{}}},
		{"DROP VIEW d.v", Result{nil, "DROP_VIEW", []string{}}},
		{"ALTER TABLE t ADD COLUMN z INT64", Result{nil, "ALTER_TABLE", onlyT}},
		{"ALTER TABLE t SET OPTIONS (max_staleness = INTERVAL 1 MINUTE)", Result{nil, "ALTER_TABLE", onlyT}},
		{"CREATE SCHEMA x", Result{nil, "CREATE_SCHEMA", []string{}}},
	} {
		got, err := Analyze(t.Context(), tc.sql, testOptions())
		if err != nil {
			t.Errorf("%s: %v", tc.sql, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s\n%s", tc.sql, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		sql, message string
		line, column int
	}{
		{"SELEC", `Syntax error: Unexpected identifier "SELEC"`, 1, 1},
		{"SELECT id\nFROM t\nWHERE x", "Unrecognized name: x", 3, 7},
		{"SELECT nope(id) FROM t", "Function not found: nope", 1, 8},
		{"SELECT NULLIFZERO(1)", "Function not found: NULLIFZERO; Did you mean nullif?", 1, 8},
		{"SELECT ARRAY_FILTER([1], e -> e > 1)", "Function not found: ARRAY_FILTER; Did you mean array_first?", 1, 8},
		{"SELECT id FROM t, TABLE(1)", "", 0, 0},
		{"SELECT id FROM nope(1)", "", 0, 0},
		{"SELECT id FROM APPENDS(TABLE t, 1)", "", 0, 0},
		{"SELECT id FROM APPENDS(TABLE t, id)", "", 0, 0},
		{"SELECT id FROM APPENDS(TABLE t, NULL, NULL, NULL)", "", 0, 0},
		{"SELECT id FROM APPENDS(t)", "", 0, 0},
		{"SELECT _CHANGE_TYPE FROM t", "Unrecognized name: _CHANGE_TYPE", 1, 8},
		{"SELECT id FROM t WHERE name = 1", "", 0, 0},
		{"SELECT id + name FROM t", "", 0, 0},
		{"SELECT CAST(1 AS INT32)", "Type not found: INT32", 1, 18},
		{"SELECT CAST(ts AS INT64) FROM t", "Invalid cast from TIMESTAMP to INT64", 1, 13},
		{"SELECT TIMESTAMP_SUB(ts, INTERVAL 3 MONTH) FROM t", "TIMESTAMP_SUB does not support the MONTH date part when the argument is TIMESTAMP type", 1, 8},
		{"SELECT TIMESTAMP_DIFF(ts, ts, MONTH) FROM t", "TIMESTAMP_DIFF does not support the MONTH date part when the argument is TIMESTAMP type", 1, 8},
		{"SELECT id FROM t\nWHERE ts > ts - INTERVAL 3 MONTH", "TIMESTAMP +/- INTERVAL is not supported for intervals with non-zero MONTH or YEAR part", 2, 12},
		{"DELETE FROM t", "DELETE must have a WHERE clause", 1, 1},
		{"UPDATE t SET name = 'x'", "UPDATE must have a WHERE clause", 1, 1},
		{"UPDATE t SET name = 1 WHERE TRUE", "Value of type INT64 cannot be assigned to name, which has type STRING", 1, 21},
		{"SELECT @nope", "Query parameter 'nope' not found", 1, 8},
		{"SELECT 1; SELECT 2", "Syntax error: Expected end of input but got keyword SELECT", 1, 11},
		{"SELECT j = j FROM t", "Equality is not defined for arguments of type JSON", 1, 8},
		{"SELECT tags = tags FROM t", "Equality is not defined for arguments of type ARRAY<STRING>", 1, 8},
		{"SELECT ROW_NUMBER() OVER (PARTITION BY f) FROM t", "Partitioning by expressions of type FLOAT64 is not allowed", 1, 40},
		{"SELECT name, COUNT(*) FROM t", "", 0, 0},
		{"INSERT t VALUES (1)", "Inserted row has wrong column count; Has 1, expected 15", 1, 17},
		{"INSERT INTO t (id) SELECT 1.5", "", 0, 0},
		{"SELECT 9223372036854775808", "Invalid integer literal: 9223372036854775808", 1, 8},
		{"SELECT tags[0] FROM t", "", 0, 0},
	} {
		_, err := Analyze(t.Context(), tc.sql, testOptions())
		var refused *Error
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v; want a refusal", tc.sql, err)
			continue
		}
		if tc.message == "" {
			if refused.Line == 0 || refused.Message == "" {
				t.Errorf("%s: %#v; want a message with a position", tc.sql, refused)
			}
			continue
		}
		if diff := cmp.Diff(&Error{Message: tc.message, Line: tc.line, Column: tc.column}, refused); diff != "" {
			t.Errorf("%s\n%s", tc.sql, diff)
		}
	}
}

func TestMissingTable(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]*Error{
		"SELECT 1 FROM nope":                         {Message: "Not found: Table p.d.nope", Line: 1, Column: 15, MissingTable: "p.d.nope"},
		"SELECT 1 FROM t, `q.e.nope`":                {Message: "Not found: Table q.e.nope", Line: 1, Column: 18, MissingTable: "q.e.nope"},
		"SELECT 1 FROM T":                            {Message: "Not found: Table p.d.T", Line: 1, Column: 15, MissingTable: "p.d.T"},
		"SELECT 1 FROM d.t JOIN D.t AS x USING (id)": {Message: "Not found: Table p.D.t", MissingTable: "p.D.t"},
		"DELETE FROM nope WHERE TRUE":                {Message: "Not found: Table p.d.nope", Line: 1, Column: 13, MissingTable: "p.d.nope"},
	} {
		_, err := Analyze(t.Context(), sql, testOptions())
		var refused *Error
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v; want a refusal", sql, err)
			continue
		}
		if diff := cmp.Diff(want, refused); diff != "" {
			t.Errorf("%s\n%s", sql, diff)
		}
	}
}

// TestSchemaFollows: a table that changes is seen as it is now.
func TestSchemaFollows(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{"INT64", "STRING", "ARRAY<STRUCT<a NUMERIC>>", "INT64"} {
		o := Options{DefaultProject: "p", DefaultDataset: "d", Tables: []Table{{"p", "d", "changing", []Column{{"c", typ}}}}}
		got, err := Analyze(t.Context(), "SELECT c FROM changing", o)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Column{{"c", typ}}, got.Columns); diff != "" {
			t.Error(diff)
		}
	}
}

func TestUnknownTypeIsNotARefusal(t *testing.T) {
	t.Parallel()
	o := Options{DefaultProject: "p", DefaultDataset: "d", Tables: []Table{{"p", "d", "t", []Column{{"c", "NOPE"}}}}}
	_, err := Analyze(t.Context(), "SELECT c FROM t", o)
	var refused *Error
	if err == nil || errors.As(err, &refused) {
		t.Errorf("got %v; want an error that is no refusal", err)
	}
}

func TestPositionalParameters(t *testing.T) {
	t.Parallel()
	o := Options{Parameters: []Parameter{{Type: "INT64"}, {Type: "STRING"}}}
	got, err := Analyze(t.Context(), "SELECT ? AS a, ? AS b", o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Column{{"a", "INT64"}, {"b", "STRING"}}, got.Columns); diff != "" {
		t.Error(diff)
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("c%d", i)
			o := Options{DefaultProject: "p", DefaultDataset: "d", Tables: []Table{{"p", "d", "same", []Column{{name, "INT64"}}}}}
			for range 20 {
				got, err := Analyze(t.Context(), "SELECT * FROM same", o)
				if err != nil || len(got.Columns) != 1 || got.Columns[0].Name != name {
					t.Errorf("got %v, %v; want column %s", got, err, name)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Analyze(ctx, "SELECT 1", Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want context.Canceled", err)
	}
}

func BenchmarkAnalyze(b *testing.B) {
	o := testOptions()
	for b.Loop() {
		if _, err := Analyze(b.Context(), "SELECT * EXCEPT (rn) FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY _version DESC) AS rn FROM t) WHERE rn = 1 AND NOT _deleted", o); err != nil {
			b.Fatal(err)
		}
	}
}

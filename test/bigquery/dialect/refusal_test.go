package dialect

import (
	"errors"
	"testing"
)

// TestUnsupported: what is not known is refused by name, where it stands.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		query, name  string
		line, column int
	}{
		{"SELECT TO_JSON_STRING(id, TRUE) FROM t", "TO_JSON_STRING with pretty_print", 1, 8},
		{"SELECT\n  NET.HOST('x')", "function NET.HOST", 2, 3},
		{"SELECT b + 1 FROM t", "operator + on BIGNUMERIC", 1, 10},
		{"SELECT 1 FROM t WHERE b > 1", "operator > on BIGNUMERIC", 1, 25},
		{"SELECT id FROM t ORDER BY b", "ordering of BIGNUMERIC", 1, 27},
		{"SELECT MAX(b) FROM t", "ordering of BIGNUMERIC", 1, 8},
		{"SELECT SUM(b) FROM t", "function SUM on BIGNUMERIC", 1, 12},
		{"SELECT s = s FROM t", "comparison of STRUCT values", 1, 10},
		{"SELECT CAST(1 AS GEOGRAPHY)", "type GEOGRAPHY", 1, 18},
		{"SELECT CAST(1 AS NUMERIC(10, 2))", "CAST to a parameterized type", 1, 8},
		{"SELECT CAST('x' AS STRING FORMAT 'Y')", "CAST .. FORMAT", 1, 8},
		{"SELECT * FROM t TABLESAMPLE SYSTEM (1 PERCENT)", "TABLESAMPLE", 1, 17},
		{"SELECT * FROM t FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()", "FOR SYSTEM_TIME AS OF", 1, 15},
		{"SELECT * FROM APPENDS(TABLE t, NULL)", "table function APPENDS", 1, 15},
		{"SELECT * FROM GAP_FILL(TABLE t)", "table function GAP_FILL", 1, 15},
		{"SELECT * FROM d.INFORMATION_SCHEMA.TABLES", "INFORMATION_SCHEMA", 1, 15},
		{"WITH RECURSIVE a AS (SELECT 1) SELECT * FROM a", "WITH RECURSIVE", 1, 1},
		{"FROM t |> SELECT id", "pipe syntax", 1, 1},
		{"CREATE VIEW v AS SELECT 1", "statement CREATE", 1, 1},
		{"SELECT 1; SELECT 2", "script of several statements", 1, 11},
		{"SELECT FORMAT_TIMESTAMP('%c', ts) FROM t", "format element %c in FORMAT_TIMESTAMP", 1, 8},
		{"SELECT FORMAT_TIMESTAMP(name, ts) FROM t", "format of FORMAT_TIMESTAMP that is not a literal", 1, 25},
		{"SELECT JSON_VALUE(j, '$.*') FROM t", `JSONPath "$.*"`, 1, 8},
		{"SELECT ts - ts FROM t", "operator - on TIMESTAMP and TIMESTAMP", 1, 11},
		{"SELECT POW(n, 2) FROM t", "function POW on NUMERIC", 1, 8},
		{"SELECT SAFE.LN(1 / id) FROM t", "SAFE.LN of an argument that may fail itself", 1, 8},
		{"SELECT RAND() + 1", "RAND or GENERATE_UUID inside another expression", 1, 15},
		{"SELECT RAND() AS r ORDER BY r", "RAND or GENERATE_UUID inside another expression", 1, 29},
		{"SELECT t FROM t", "table t as a value", 1, 8},
		{"SELECT * FROM t PIVOT (COUNT(*) FOR id IN (1))", "PIVOT", 1, 17},
	} {
		_, err := Translate(tc.query, testOptions())
		var u *Unsupported
		if !errors.As(err, &u) {
			t.Errorf("%s: %v; want Unsupported %q", tc.query, err, tc.name)
			continue
		}
		if u.Name != tc.name || u.Line != tc.line || u.Column != tc.column {
			t.Errorf("%s: refused %q at %d:%d; want %q at %d:%d", tc.query, u.Name, u.Line, u.Column, tc.name, tc.line, tc.column)
		}
	}
}

// TestRejected: BigQuery refuses these too.
func TestRejected(t *testing.T) {
	t.Parallel()
	for _, query := range rejected() {
		out, err := Translate(query, testOptions())
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%s: %q, %v; want a SyntaxError", query, out, err)
		}
	}
}

func rejected() []string {
	return []string{
		"", "SELEC", "SELECT", "SELECT 1 FROM", "SELECT 'a", "SELECT `a", "SELECT 1 +", "SELECT (1", "SELECT 1)", "SELECT /* a", "SELECT '\\q'", "SELECT 1a",
		"SELECT nope FROM t", "SELECT t.nope FROM t", "SELECT x.id FROM t", "SELECT id FROM t, t AS u", "SELECT id, id FROM t", "SELECT s.nope FROM t",
		"DELETE FROM target", "UPDATE target SET v = 'x'", "UPDATE target SET nope = 1 WHERE TRUE", "UPDATE target SET v = 1 WHERE TRUE", "UPDATE target SET id = 1, id = 2 WHERE TRUE",
		"INSERT INTO target (id) VALUES (1, 2)", "INSERT INTO target (id) SELECT 1.5", "INSERT INTO target (id) SELECT f FROM t", "INSERT INTO target (nope) VALUES (1)", "INSERT INTO target (id, ID) VALUES (1, 2)",
		"SELECT 1 UNION SELECT 2", "SELECT 1 UNION ALL SELECT 'a'", "SELECT 1 UNION ALL SELECT 1, 2", "SELECT 1 UNION ALL SELECT 2 EXCEPT DISTINCT SELECT 3",
		"SELECT id + name FROM t", "SELECT id = '1' FROM t", "SELECT day > ts FROM t", "SELECT CAST(ts AS INT64) FROM t", "SELECT j = j FROM t", "SELECT tags = tags FROM t", "SELECT id FROM t WHERE id",
		"SELECT TIMESTAMP_SUB(ts, INTERVAL 3 MONTH) FROM t", "SELECT DATE_ADD(day, INTERVAL 1 HOUR) FROM t", "SELECT TIMESTAMP_DIFF(ts, ts, MONTH) FROM t", "SELECT TIMESTAMP_ADD(day, INTERVAL 1 DAY) FROM t",
		"SELECT DATE '2024-13-01'", "SELECT TIMESTAMP 'x'", "SELECT NUMERIC '1.1234567891'", "SELECT 9223372036854775808", "SELECT day = 'x' FROM t",
		"SELECT ROW_NUMBER() FROM t", "SELECT ROW_NUMBER() OVER (PARTITION BY f) FROM t", "SELECT ROW_NUMBER() OVER w FROM t WINDOW w AS (PARTITION BY tags)", "SELECT id FROM t ORDER BY j", "SELECT id FROM t LIMIT -1", "SELECT id FROM t LIMIT id", "SELECT tags[0] FROM t",
		"SELECT * EXCEPT (nope) FROM t", "SELECT * REPLACE (1 AS nope) FROM t", "SELECT *", "SELECT @nope.x.y FROM t, UNNEST(id)", "SELECT id FROM (SELECT 1 AS a) AS q", "SELECT (SELECT 1, 2)", "SELECT id IN (SELECT 1, 2) FROM t",
		"SELECT ARRAY_LENGTH(id) FROM t", "SELECT IF(1, 2, 3)", "SELECT COUNTIF(id) FROM t", "SELECT SUM(name) FROM t", "SELECT REGEXP_EXTRACT('a', '(a)(b)')", "SELECT UPPER('a', 'b')",
	}
}

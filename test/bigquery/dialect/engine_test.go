package dialect

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	_ "github.com/duckdb/duckdb-go/v2"
)

// newDuckDB opens an empty in-memory database with the session that doc.go asks for.
func newDuckDB(t *testing.T) *sql.Conn {
	t.Helper()
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatalf("opening DuckDB: %v", err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("closing connection: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("closing DuckDB: %v", err)
		}
	})
	exec(t, conn, "SET TimeZone = 'UTC'")
	if err := Register(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return conn
}

func exec(t *testing.T, conn *sql.Conn, query string) {
	t.Helper()
	if _, err := conn.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// testSchema is what the tests' tables look like to the translator.
func testSchema() map[string][]ColumnType {
	return map[string][]ColumnType{
		"p.d.t": {
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
			{"clock", "TIME"},
			{"items", "ARRAY<STRUCT<k STRING, v INT64>>"},
		},
		"p.d.target":     {{"id", "INT64"}, {"v", "STRING"}, {"n", "NUMERIC"}, {"big", "BIGNUMERIC"}, {"f", "FLOAT64"}},
		"p.d.source":     {{"id", "INT64"}, {"v", "STRING"}},
		"my-project.d.u": {{"id", "INT64"}, {"v", "STRING"}},
	}
}

func testOptions() Options {
	schema := testSchema()
	return Options{
		DefaultProject: "p", DefaultDataset: "d",
		Table: func(project, dataset, table string) (string, error) {
			path := project + "." + dataset + "." + table
			if _, ok := schema[path]; !ok {
				return "", fmt.Errorf("no table %s", path)
			}
			return quoteName(table), nil
		},
		DataTypes: func(project, dataset, table string) []ColumnType { return schema[project+"."+dataset+"."+table] },
		Parameter: func(name string) (string, error) {
			switch name {
			case "ids":
				return "CAST([1, 2] AS BIGINT[])", nil
			case "since":
				return "TIMESTAMPTZ '2024-01-01 00:00:00+00'", nil
			case "day":
				return "'2024-01-01'", nil
			case "n":
				return "CAST(2 AS BIGINT)", nil
			}
			return "", fmt.Errorf("no parameter %s", name)
		},
		ParameterType: func(name string) string {
			return map[string]string{"ids": "ARRAY<INT64>", "since": "TIMESTAMP", "day": "STRING", "n": "INT64"}[name]
		},
	}
}

// fixture creates p.d.t with two rows, of which the second is all NULL but its id.
func fixture(t *testing.T, conn *sql.Conn) {
	t.Helper()
	exec(t, conn, `CREATE TABLE t (id BIGINT, name VARCHAR, ts TIMESTAMPTZ, n DECIMAL(38, 9), b VARCHAR, j JSON, tags VARCHAR[],
		s STRUCT(a BIGINT, b VARCHAR), dt TIMESTAMP, day DATE, f DOUBLE, raw BLOB, ok BOOLEAN, clock TIME, items STRUCT(k VARCHAR, v BIGINT)[])`)
	exec(t, conn, `INSERT INTO t VALUES (1, 'Ärger', TIMESTAMPTZ '2024-03-10 12:34:56.789+00', 12.5, '123.456', '{"a": {"b": [1, "x"]}, "z": null, "big": 9007199254740993}', ['x', 'y', 'z'],
		{'a': 7, 'b': 'seven'}, TIMESTAMP '2024-03-10 12:34:56', DATE '2024-03-10', 2.5, '\x61\xff'::BLOB, true, TIME '23:59:59.5', [{'k': 'k1', 'v': 1}, {'k': 'k2', 'v': 2}])`)
	exec(t, conn, `INSERT INTO t (id, tags, items) VALUES (2, [], [])`)
}

// run translates and runs a query, and prints its rows: cells by |, rows by ;.
func run(t *testing.T, conn *sql.Conn, query string) (string, error) {
	t.Helper()
	out, err := TranslateStatement(query, testOptions())
	if err != nil {
		return "", err
	}
	return fetch(t.Context(), conn, out.SQL)
}

func fetch(ctx context.Context, conn *sql.Conn, query string) (string, error) {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return "", fmt.Errorf("%s: %w", query, err)
	}
	defer func() { _ = rows.Close() }()
	cols, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var lines []string
	for rows.Next() {
		cells := make([]any, len(cols))
		refs := make([]any, len(cols))
		for i := range cells {
			refs[i] = &cells[i]
		}
		if err := rows.Scan(refs...); err != nil {
			return "", err
		}
		texts := make([]string, len(cells))
		for i, c := range cells {
			texts[i] = cell(c)
		}
		lines = append(lines, strings.Join(texts, "|"))
	}
	if err := rows.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", query, err)
	}
	return strings.Join(lines, ";"), nil
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case []byte:
		return fmt.Sprintf("%x", v)
	case time.Time:
		return v.UTC().Format("2006-01-02 15:04:05.999999")
	}
	return fmt.Sprint(v)
}

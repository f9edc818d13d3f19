package parity_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/api/option"

	"github.com/tidemark-data/tidemark/test/parity"
	"github.com/tidemark-data/tidemark/test/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// The tables below hold each type twice: as Postgres is given it, and as
// BigQuery's REST API sends it (cloud.google.com/bigquery/docs/reference/rest).
const setup = `
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE TABLE kinds (
	id int PRIMARY KEY, b bool, n small, f8 float8, f4 real, d numeric(6,2), u numeric, t text, p char(4), m mood, x bytea,
	j jsonb, dt date, ti time, ts timestamp, tz timestamptz, iv interval, uu uuid, ta text[], na numeric[], za timestamptz[]
);
INSERT INTO kinds VALUES (1, true, 7, 0.1, 0.1, 1.50, 1e-38, E'it''s "é"\n', 'ab', 'ok', '\x00ff',
	'{"b": [1, 2.50, null], "a": 9007199254740993}', '2024-02-29', '23:59:59.5', '2024-02-29 01:02:03.000004', '2024-02-29 01:02:03.5+02',
	'1 mon 2 days 03:04:05', '6F9619FF-8B86-D011-B42D-00C04FC964FF', '{a,"b,c",""}', '{1.0,2}', '{2024-01-01 00:00:00+00}');
INSERT INTO kinds (id) VALUES (2);
`

func fields() []map[string]string {
	types := []string{
		"id INTEGER", "b BOOLEAN", "n INTEGER", "f8 FLOAT", "f4 FLOAT", "d NUMERIC", "u BIGNUMERIC", "t STRING", "p STRING", "m STRING", "x BYTES",
		"j JSON", "dt DATE", "ti TIME", "ts DATETIME", "tz TIMESTAMP", "iv STRING", "uu STRING", "ta STRING REPEATED", "na BIGNUMERIC REPEATED",
		"za TIMESTAMP REPEATED", "_version STRING", "_synced_at TIMESTAMP", "_deleted BOOLEAN",
	}
	out := make([]map[string]string, len(types))
	for i, typ := range types {
		words := strings.Fields(typ)
		out[i] = map[string]string{"name": words[0], "type": words[1], "mode": append(words, "NULLABLE")[2]}
	}
	return out
}

func list(values ...any) []map[string]any {
	out := make([]map[string]any, len(values))
	for i, v := range values {
		out[i] = map[string]any{"v": v}
	}
	return out
}

func first() []any {
	return []any{
		"1", "true", "7", "0.1", "0.10000000149011612", "1.5", "0.00000000000000000000000000000000000001", "it's \"é\"\n", "ab  ", "ok", "AP8=",
		`{"a":9007199254740993,"b":[1,2.5,null]}`, "2024-02-29", "23:59:59.500000", "2024-02-29T01:02:03.000004", "1709161323500000", "P1M2DT3H4M5S",
		"6f9619ff-8b86-d011-b42d-00c04fc964ff", list("a", "b,c", ""), list("1", "2"), list("1704067200000000"), "01/2", "1704067200000000", "false",
	}
}

func second() []any {
	row := make([]any, len(fields()))
	row[0], row[18], row[19], row[20] = "2", list(), list(), list()
	return row
}

func TestEqualTablesAgree(t *testing.T) {
	t.Parallel()
	deleted := second()
	deleted[0], deleted[23] = "3", "true"
	report := compare(t, fields(), second(), deleted, first())
	want := parity.Report{Table: "kinds", Postgres: 2, BigQuery: 2}
	if diff := cmp.Diff(want, report); diff != "" || !report.Agrees() {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// Each column is changed by as little as its type allows, and must be noticed.
func TestEveryDifferenceIsNoticed(t *testing.T) {
	t.Parallel()
	for column, value := range map[int]any{
		1: "false", 2: "8", 3: "0.10000000000000002", 4: "0.1", 5: "1.51", 6: "0.00000000000000000000000000000000000002",
		7: "it's \"e\"\n", 8: "ab", 9: "sad", 10: "AP4=", 11: `{"a":9007199254740992,"b":[1,2.5,null]}`, 12: "2024-02-28",
		13: "23:59:59.500001", 14: "2024-02-29T01:02:03.000005", 15: "1709161323500001", 16: "P1M2DT3H4M6S",
		17: "6f9619ff-8b86-d011-b42d-00c04fc964fe", 18: list("a", "b", "c", ""), 19: list("2", "1"), 20: list(),
	} {
		name := fields()[column]["name"]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed, absent := first(), first()
			changed[column], absent[column] = value, nil
			if column >= 18 {
				absent[column] = list()
			}
			for _, row := range [][]any{changed, absent} {
				report := compare(t, fields(), row, second())
				if len(report.Differences) != 1 || !strings.HasPrefix(report.Differences[0], "id=1: "+name+" is ") {
					t.Errorf("sent %v: differences %q, want one in %s", row[column], report.Differences, name)
				}
			}
		})
	}
}

func TestRowsMissingTwiceAndTooManyAreNoticed(t *testing.T) {
	t.Parallel()
	extra := second()
	extra[0] = "9"
	report := compare(t, fields(), first(), first(), extra)
	want := parity.Report{Table: "kinds", Postgres: 2, BigQuery: 3, Differences: []string{
		"id=1 is in BigQuery twice", "id=2 is in Postgres only", "id=9 is in BigQuery only",
	}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestColumnsMustMatch(t *testing.T) {
	t.Parallel()
	renamed := fields()
	renamed[5]["name"] = "dd"
	retyped := fields()
	retyped[5]["type"] = "FLOAT"
	for name, schema := range map[string][]map[string]string{"renamed": renamed, "another type": retyped} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, client := sides(t, schema, first(), second())
			if report, err := parity.Compare(t.Context(), conn, client, parity.Table{Name: "kinds"}); err == nil {
				t.Errorf("accepted: %v", report)
			}
		})
	}
	t.Run("added", func(t *testing.T) {
		t.Parallel()
		added := append(fields(), map[string]string{"name": "more", "type": "STRING"})
		conn, client := sides(t, added, append(first(), "x"), append(second(), "y"))
		if report, err := parity.Compare(t.Context(), conn, client, parity.Table{Name: "kinds"}); err == nil {
			t.Errorf("accepted: %v", report)
		}
		report, err := parity.Compare(t.Context(), conn, client, parity.Table{Name: "kinds", Without: []string{"more"}})
		if err != nil || !report.Agrees() {
			t.Errorf("without the column: %v, %v", report, err)
		}
	})
}

func TestTypesWithoutCanonicalTextAreRefused(t *testing.T) {
	t.Parallel()
	conn := connect(t, postgres.NewDatabase(t))
	for table, columns := range map[string]string{
		"shapes": "id int PRIMARY KEY, p point", "deep": "id int PRIMARY KEY, a int[][]", "unkeyed": "id int",
	} {
		if _, err := conn.Exec(t.Context(), "CREATE TABLE "+table+" ("+columns+")"); err != nil {
			t.Fatal(err)
		}
		if _, err := parity.Compare(t.Context(), conn, nil, parity.Table{Name: table}); err == nil {
			t.Errorf("%s was compared", table)
		}
	}
}

func compare(t *testing.T, schema []map[string]string, rows ...[]any) parity.Report {
	t.Helper()
	conn, client := sides(t, schema, rows...)
	report, err := parity.Compare(t.Context(), conn, client, parity.Table{Name: "kinds"})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// sides are the Postgres table of setup, and Google's client with a server that
// answers every query with the rows given.
func sides(t *testing.T, schema []map[string]string, rows ...[]any) (*pgx.Conn, *bigquery.Client) {
	t.Helper()
	// Nobody writes to the template, so that one is enough for all.
	conn := connect(t, postgres.Template(t, "kinds", func(ctx context.Context, url string) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, setup)
		return errors.Join(err, conn.Close(ctx))
	}))
	sent := make([]map[string]any, len(rows))
	for i, row := range rows {
		sent[i] = map[string]any{"f": list(row...)}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(map[string]any{
			"jobComplete": true, "totalRows": strconv.Itoa(len(rows)), "schema": map[string]any{"fields": schema}, "rows": sent,
			"jobReference": map[string]string{"projectId": "local", "jobId": "q", "location": "US"},
		}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	client, err := bigquery.NewClient(t.Context(), "local", option.WithEndpoint(server.URL), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn, client
}

func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

package bigquery_test

import (
	"net/http"
	"testing"

	gcp "cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

func TestDestinationTable(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	dst := b.dataset(t, "shop").Table("result")
	run := func(sql string, disposition gcp.TableWriteDisposition) error {
		t.Helper()
		q := b.client.Query(sql)
		q.Dst, q.WriteDisposition = dst, disposition
		job, err := q.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = job.Read(t.Context())
		return err
	}
	if err := run("SELECT 1 AS n", gcp.WriteEmpty); err != nil {
		t.Fatal(err)
	}
	wantCode(t, run("SELECT 2 AS n", gcp.WriteEmpty), http.StatusConflict, "duplicate")
	if err := run("SELECT 2 AS n", gcp.WriteAppend); err != nil {
		t.Fatal(err)
	}
	wantCode(t, run("SELECT 'x' AS n", gcp.WriteAppend), http.StatusBadRequest, "invalid")
	if diff := cmp.Diff([][]gcp.Value{{int64(1)}, {int64(2)}}, b.query(t, "SELECT n FROM shop.result ORDER BY n")); diff != "" {
		t.Error(diff)
	}
	if err := run("SELECT 'x' AS s", gcp.WriteTruncate); err != nil {
		t.Fatal(err)
	}
	// tabledata.list, by a client without the Storage Read API.
	rest, err := gcp.NewClient(t.Context(), project, b.restOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rest.Close(); err != nil {
			t.Error(err)
		}
	})
	if diff := cmp.Diff([][]gcp.Value{{"x"}}, rows(t, rest.Dataset("shop").Table("result").Read(t.Context()))); diff != "" {
		t.Error(diff)
	}
	if n := b.server.Calls()["tabledata.list"]; n != 1 {
		t.Errorf("%d calls of tabledata.list, want 1", n)
	}
}

func TestFailingStatements(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	for _, sql := range []string{
		"SELECT 1/0",
		"SELECT CAST('x' AS INT64)",
		"SELECT nothing FROM shop.orders",
		"SELEC 1",
		"SELECT 1 AS a, 2 AS A",
		"INSERT INTO shop.orders (name) VALUES ('no id')",
		"UPDATE shop.orders SET none = 1 WHERE TRUE",
		"SELECT @missing",
	} {
		_, err := b.client.Query(sql).Read(t.Context())
		if err == nil {
			t.Errorf("%s is accepted", sql)
			continue
		}
		wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	}
}

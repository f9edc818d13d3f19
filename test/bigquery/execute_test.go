package bigquery_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

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

// TestResultsAreKept: as many as are promised, whatever the clock says of their age.
func TestResultsAreKept(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := start(t, bigquery.Options{Now: func() time.Time { return now }})
	jobs := make([]*gcp.Job, 1003)
	for i := range jobs {
		job, err := b.client.Query("SELECT " + strconv.Itoa(i)).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := job.Wait(t.Context()); err != nil { // they end in the order they began
			t.Fatal(err)
		}
		jobs[i] = job
	}
	for i, job := range jobs {
		rows, err := job.Read(t.Context())
		var row []gcp.Value
		if err == nil {
			err = rows.Next(&row)
		}
		if i < 3 {
			wantCode(t, err, http.StatusNotFound, "notFound")
		} else if err != nil || row[0] != int64(i) {
			t.Fatalf("result %d: %v, %v", i, row, err)
		}
	}
}

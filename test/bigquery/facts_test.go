package bigquery_test

import (
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

// dryRun is what BigQuery says of a statement without running it.
func (b *bundle) dryRun(t *testing.T, sql string) (*gcp.JobStatistics, *gcp.QueryStatistics) {
	t.Helper()
	q := b.client.Query(sql)
	q.DryRun = true
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	statistics := job.LastStatus().Statistics
	details, ok := statistics.Details.(*gcp.QueryStatistics)
	if !ok {
		t.Fatalf("no statistics of a query: %+v", statistics)
	}
	return statistics, details
}

func tableNames(tables []*gcp.Table) []string {
	var out []string
	for _, t := range tables {
		out = append(out, t.DatasetID+"."+t.TableID)
	}
	return out
}

// TestFactsOfAQuery: a dry run answers the tables below views, the columns and
// the bytes, and changes nothing; a job answers the same, and what it made.
func TestFactsOfAQuery(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	ds := b.dataset(t, "shop")
	for _, name := range []string{"a", "b"} {
		b.query(t, "CREATE TABLE shop."+name+" AS SELECT 1 AS id, 'x' AS name")
	}
	b.table(t, ds, "inner_view", &gcp.TableMetadata{ViewQuery: "SELECT a.id, b.name FROM shop.a JOIN shop.b USING (id)"})
	b.table(t, ds, "outer_view", &gcp.TableMetadata{ViewQuery: "SELECT id, COUNT(*) AS n FROM shop.inner_view GROUP BY id"})
	const sql = "SELECT v.n, a.id FROM shop.outer_view AS v JOIN shop.a AS a USING (id)"
	statistics, details := b.dryRun(t, sql)
	if diff := cmp.Diff([]string{"shop.a", "shop.b"}, tableNames(details.ReferencedTables)); diff != "" {
		t.Error(diff)
	}
	if len(details.Schema) != 2 || details.Schema[0].Name != "n" || details.Schema[0].Type != gcp.IntegerFieldType || details.StatementType != "SELECT" {
		t.Errorf("schema %v of a %s", details.Schema, details.StatementType)
	}
	// An upper bound: id and name of both tables below the views, and a.id once more.
	if statistics.TotalBytesProcessed != 2*(8+3)+8 || statistics.CreationTime.IsZero() {
		t.Errorf("statistics %+v", statistics)
	}
	_, details = b.dryRun(t, "CREATE TABLE shop.c AS SELECT * FROM shop.inner_view")
	if got := details.DDLTargetTable; got == nil || got.TableID != "c" || details.StatementType != "CREATE_TABLE_AS_SELECT" {
		t.Errorf("of CREATE TABLE: %+v", details)
	}
	if _, err := ds.Table("c").Metadata(t.Context()); err == nil {
		t.Error("the dry run made a table")
	}
	q := b.client.Query("CREATE TABLE shop.c AS SELECT * FROM shop.inner_view")
	q.JobID, q.Labels = "made-c", map[string]string{"sync": "orders"}
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	finish(t, job)
	again, err := b.client.JobFromID(t.Context(), "made-c")
	if err != nil {
		t.Fatal(err)
	}
	config, err := again.Config()
	if err != nil {
		t.Fatal(err)
	}
	asked, ok := config.(*gcp.QueryConfig)
	if !ok || asked.Q != q.Q || asked.Labels["sync"] != "orders" {
		t.Errorf("the job's configuration is %+v", config)
	}
	made, ok := again.LastStatus().Statistics.Details.(*gcp.QueryStatistics)
	if !ok || made.DDLOperationPerformed != "CREATE" || made.DDLTargetTable.TableID != "c" || !cmp.Equal([]string{"shop.a", "shop.b"}, tableNames(made.ReferencedTables)) {
		t.Errorf("the job's statistics are %+v", made)
	}
}

// TestLastModified: every way of writing moves a table's lastModifiedTime, and
// reading does not.
func TestLastModified(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	l := startLoads(t, bigquery.Options{Now: c.Now})
	b := l.bundle
	table := simpleTable(t, b)
	modified := func() (time.Time, string) {
		t.Helper()
		meta, err := table.Metadata(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return meta.LastModifiedTime.UTC(), meta.ETag
	}
	_, first := modified()
	for name, write := range map[string]func(){
		"INSERT":       func() { b.query(t, "INSERT INTO shop.t (id, name) VALUES (1, 'a')") },
		"UPDATE":       func() { b.query(t, "UPDATE shop.t SET name = 'c' WHERE TRUE") },
		"stream":       func() { b.stream(t, table, "DEFAULT", 1, "a") },
		"WRITE_APPEND": func() { b.into(t, table, gcp.WriteAppend, "SELECT 1 AS id, 'a' AS name") },
		"load":         func() { mustLoad(t, loader(table, l.put(t, "a.json", `{"id": 1}`))) },
	} {
		b.query(t, "INSERT INTO shop.t (id, name) VALUES (0, 'for the update')")
		c.advance(time.Minute)
		write()
		wrote := c.Now()
		c.advance(time.Minute)
		b.query(t, "SELECT COUNT(*) FROM shop.t")
		b.query(t, "DELETE FROM shop.t WHERE id = 17")
		if at, _ := modified(); !at.Equal(wrote) {
			t.Errorf("after %s the table was modified at %v, want %v", name, at, wrote)
		}
	}
	if _, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{Description: "other"}, ""); err != nil {
		t.Fatal(err)
	}
	if at, etag := modified(); !at.Equal(c.Now()) || etag == first {
		t.Errorf("after an update: %v, %s", at, etag)
	}
}

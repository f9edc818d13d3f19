package bigquery_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

// into runs a query into a named table.
func (b *bundle) into(t *testing.T, table *gcp.Table, disposition gcp.TableWriteDisposition, sql string) *gcp.Job {
	t.Helper()
	q := b.client.Query(sql)
	q.Dst, q.WriteDisposition = table, disposition
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	finish(t, job)
	return job
}

// ledger is the ledger of a sync and the plan of its next run: 1 is unchanged
// and not in the plan, 2 changed, 3 is gone, 4 is new, 5 is new and was rejected.
func ledger(t *testing.T, b *bundle) (plan *gcp.Table) {
	t.Helper()
	if err := b.client.Dataset("shop_ledger").Create(t.Context(), &gcp.DatasetMetadata{Location: "US"}); err != nil {
		t.Fatal(err)
	}
	b.query(t, "CREATE TABLE IF NOT EXISTS shop_ledger.orders CLUSTER BY _key OPTIONS (expiration_timestamp = TIMESTAMP_ADD(TIMESTAMP '2026-11-20 08:00:00+00', INTERVAL 60 DAY), description = 'what was applied') AS"+
		" SELECT 0 AS _key, 0 AS _checksum, 0 AS id, '' AS shop FROM UNNEST([1]) WHERE FALSE")
	b.query(t, "INSERT INTO shop_ledger.orders (_key, _checksum, id, shop) VALUES (101, 1, 1, 'eu'), (102, 1, 2, 'eu'), (103, 1, 3, 'us')")
	b.dataset(t, "shop")
	b.query(t, "CREATE TABLE shop.orders AS SELECT 1 AS id, 'eu' AS shop, 1 AS _checksum, 101 AS _key UNION ALL SELECT 2, 'eu', 2, 102 UNION ALL SELECT 4, 'us', 1, 104 UNION ALL SELECT 5, 'us', 1, 105")
	plan = b.client.Dataset("shop_ledger").Table("plan")
	b.into(t, plan, gcp.WriteTruncate, "SELECT COALESCE(s._key, l._key) AS _key, s._checksum, COALESCE(s.id, l.id) AS id, COALESCE(s.shop, l.shop) AS shop, s._key IS NULL AS removed"+
		" FROM (SELECT * FROM shop.orders) AS s FULL OUTER JOIN shop_ledger.orders AS l ON s._key = l._key WHERE s._key IS NULL OR l._key IS NULL OR s._checksum != l._checksum")
	return plan
}

// TestLedger: the plan of changes against the ledger is made, read through the
// Storage API, and merged but for what was rejected.
func TestLedger(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	plan := ledger(t, b)
	it := plan.Read(t.Context())
	got := map[int64][]gcp.Value{}
	for _, row := range rows(t, it) {
		got[whole(t, row[0])] = row[1:]
	}
	want := map[int64][]gcp.Value{
		102: {int64(2), int64(2), "eu", false}, 103: {nil, int64(3), "us", true},
		104: {int64(1), int64(4), "us", false}, 105: {int64(1), int64(5), "us", false},
	}
	if diff := cmp.Diff(want, got); diff != "" || !it.IsAccelerated() {
		t.Errorf("the plan, read through the Storage API (%t), is %s", it.IsAccelerated(), diff)
	}
	q := b.client.Query("MERGE shop_ledger.orders AS l USING (SELECT * FROM shop_ledger.plan WHERE _key NOT IN UNNEST(@except)) AS s ON l.id = s.id AND l.shop = s.shop" +
		" WHEN MATCHED AND s.removed THEN DELETE WHEN MATCHED THEN UPDATE SET _checksum = s._checksum, _key = s._key" +
		" WHEN NOT MATCHED AND NOT s.removed THEN INSERT (_key, _checksum, id, shop) VALUES (s._key, s._checksum, s.id, s.shop)")
	except := make([]int64, 5000)
	for i := range except {
		except[i] = int64(-i)
	}
	q.Parameters = []gcp.QueryParameter{{Name: "except", Value: append(except, 105)}}
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stats, ok := finish(t, job).Statistics.Details.(*gcp.QueryStatistics)
	if want := (&gcp.DMLStatistics{InsertedRowCount: 1, UpdatedRowCount: 1, DeletedRowCount: 1}); !ok || !cmp.Equal(want, stats.DMLStats) {
		t.Errorf("statistics of the merge are %+v", stats)
	}
	rows := b.query(t, "SELECT _key, _checksum FROM shop_ledger.orders ORDER BY _key")
	if diff := cmp.Diff([][]gcp.Value{{int64(101), int64(1)}, {int64(102), int64(2)}, {int64(104), int64(1)}}, rows); diff != "" {
		t.Error(diff)
	}
}

// TestExpiration: a table is gone when its time has come, for every API, and a
// time can be changed and taken away.
func TestExpiration(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	c := newClock(at)
	b := start(t, bigquery.Options{Now: c.Now})
	ds := b.dataset(t, "d")
	b.query(t, "CREATE TABLE d.first OPTIONS (expiration_timestamp = TIMESTAMP '2026-11-20 09:00:00+00') AS SELECT 1 AS x")
	b.table(t, ds, "second", &gcp.TableMetadata{Schema: gcp.Schema{{Name: "x", Type: gcp.IntegerFieldType}}, ExpirationTime: at.Add(2 * time.Hour)})
	b.table(t, ds, "third", &gcp.TableMetadata{Schema: gcp.Schema{{Name: "x", Type: gcp.IntegerFieldType}}, ExpirationTime: at.Add(2 * time.Hour)})
	b.query(t, "ALTER TABLE d.third SET OPTIONS (expiration_timestamp = NULL)")
	meta, err := ds.Table("first").Metadata(t.Context())
	if err != nil || !meta.ExpirationTime.Equal(at.Add(time.Hour)) {
		t.Errorf("metadata %+v, error %v", meta, err)
	}
	c.advance(time.Hour)
	_, err = b.client.Query("SELECT * FROM d.first").Read(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
	if _, err = ds.Table("second").Update(t.Context(), gcp.TableMetadataToUpdate{ExpirationTime: at.Add(3 * time.Hour)}, ""); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Hour)
	if _, err = ds.Table("second").Metadata(t.Context()); err != nil {
		t.Error(err)
	}
	c.advance(time.Hour)
	_, err = ds.Table("second").Metadata(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
	if got := b.query(t, "SELECT COUNT(*) FROM d.third"); !cmp.Equal(got, [][]gcp.Value{{int64(0)}}) {
		t.Errorf("third holds %v", got)
	}
	_, err = b.client.Query("CREATE TABLE d.past OPTIONS (expiration_timestamp = TIMESTAMP '2026-11-20 09:00:00+00') AS SELECT 1 AS x").Read(t.Context())
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	_, err = b.client.Query("CREATE TABLE d.varying OPTIONS (expiration_timestamp = (SELECT MAX(TIMESTAMP '2027-01-01 00:00:00+00') FROM d.third)) AS SELECT 1 AS x").Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
}

// TestTruncateByItself: a query that reads the table it replaces sees the rows
// that were there; one that fails leaves them; and what else the table is stays.
func TestTruncateByItself(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	ds := b.dataset(t, "d")
	table := b.table(t, ds, "t", &gcp.TableMetadata{
		Schema: gcp.Schema{{Name: "x", Type: gcp.IntegerFieldType, Required: true}}, Description: "kept", Labels: map[string]string{"a": "b"},
		TableConstraints: &gcp.TableConstraints{PrimaryKey: &gcp.PrimaryKey{Columns: []string{"x"}}},
	})
	b.query(t, "INSERT INTO d.t (x) VALUES (1), (2)")
	b.into(t, table, gcp.WriteTruncate, "SELECT x + 10 AS x, 'n' AS name FROM d.t")
	meta, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.Description != "kept" || meta.Labels["a"] != "b" || meta.TableConstraints != nil || len(meta.Schema) != 2 {
		t.Errorf("the table is %+v", meta)
	}
	b.query(t, "CREATE OR REPLACE TABLE d.t AS SELECT x + 10 AS x FROM d.t")
	for _, failing := range []*gcp.Query{b.client.Query("SELECT 1 / (x - 21) AS x FROM d.t"), b.client.Query("CREATE OR REPLACE TABLE d.t AS SELECT 1 / (x - 21) AS x FROM d.t")} {
		if failing.Q[0] == 'S' {
			failing.Dst, failing.WriteDisposition = table, gcp.WriteTruncate
		}
		_, err = failing.Read(t.Context())
		var refused *googleapi.Error
		if !errors.As(err, &refused) || refused.Code != http.StatusBadRequest {
			t.Errorf("%s: %v, want a refusal", failing.Q, err)
		}
	}
	if diff := cmp.Diff([][]gcp.Value{{int64(21)}, {int64(22)}}, b.query(t, "SELECT x FROM d.t ORDER BY x")); diff != "" {
		t.Error(diff)
	}
}

func TestSchemaStatements(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	for range 2 {
		b.query(t, "CREATE SCHEMA IF NOT EXISTS x_ledger OPTIONS (location = 'US', description = 'kept')")
	}
	meta, err := b.client.Dataset("x_ledger").Metadata(t.Context())
	if err != nil || meta.Description != "kept" {
		t.Fatalf("dataset %+v, error %v", meta, err)
	}
	b.query(t, "CREATE TABLE x_ledger.t AS SELECT 1 AS x")
	_, err = b.client.Query("CREATE SCHEMA x_ledger").Read(t.Context())
	wantCode(t, err, http.StatusConflict, "duplicate")
	_, err = b.client.Query("DROP SCHEMA x_ledger").Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "resourceInUse")
	for range 2 {
		b.query(t, "DROP TABLE IF EXISTS x_ledger.t")
	}
	b.query(t, "DROP SCHEMA x_ledger CASCADE")
	b.query(t, "DROP SCHEMA IF EXISTS x_ledger")
	_, err = b.client.Dataset("x_ledger").Metadata(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
}

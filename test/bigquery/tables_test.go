package bigquery_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/iterator"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

func TestDatasets(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	ds := b.dataset(t, "shop")
	wantCode(t, ds.Create(t.Context(), nil), http.StatusConflict, "duplicate")
	if _, err := ds.Metadata(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := b.client.Dataset("Shop").Metadata(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
	b.query(t, "SELECT 1") // its hidden dataset is not listed
	it := b.client.Datasets(t.Context())
	var names []string
	for {
		d, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, d.DatasetID)
	}
	if diff := cmp.Diff([]string{"shop"}, names); diff != "" {
		t.Error(diff)
	}
	b.table(t, ds, "orders", &gcp.TableMetadata{Schema: simpleSchema})
	wantCode(t, ds.Delete(t.Context()), http.StatusBadRequest, "resourceInUse")
	if err := ds.DeleteWithContents(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTableMetadata(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	table := logTable(t, b)
	meta, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.TimePartitioning == nil || meta.TimePartitioning.Field != "at" || meta.Clustering == nil ||
		meta.Labels["made_by"] != "tidemark" || meta.NumRows != 4 || meta.NumBytes != 96 ||
		meta.TableConstraints == nil || meta.TableConstraints.PrimaryKey == nil || !meta.Schema[0].Required {
		t.Errorf("metadata is %+v", meta)
	}
	wantCode(t, table.Create(t.Context(), &gcp.TableMetadata{Schema: simpleSchema}), http.StatusConflict, "duplicate")
	update := gcp.TableMetadataToUpdate{Description: "orders"}
	update.SetLabel("made_by", "x")
	changed, err := table.Update(t.Context(), update, meta.ETag)
	if err != nil || changed.Description != "orders" || changed.Labels["made_by"] != "x" || changed.ETag == meta.ETag {
		t.Errorf("update answers %+v, %v", changed, err)
	}
	_, err = table.Update(t.Context(), update, meta.ETag)
	wantCode(t, err, http.StatusPreconditionFailed, "conditionNotMet")
}

func TestSchemaChanges(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	ds := b.dataset(t, "shop")
	id, name := &gcp.FieldSchema{Name: "id", Type: gcp.IntegerFieldType, Required: true}, &gcp.FieldSchema{Name: "name", Type: gcp.StringFieldType}
	optional := &gcp.FieldSchema{Name: "id", Type: gcp.IntegerFieldType}
	cases := []struct {
		name   string
		schema gcp.Schema
		ok     bool
	}{
		{"added", gcp.Schema{id, name, {Name: "x", Type: gcp.NumericFieldType}, {Name: "l", Type: gcp.StringFieldType, Repeated: true}}, true},
		{"relaxed", gcp.Schema{optional, name}, true},
		{"dropped", gcp.Schema{id}, false},
		{"reordered", gcp.Schema{name, id}, false},
		{"not at the end", gcp.Schema{id, {Name: "x", Type: gcp.StringFieldType}, name}, false},
		{"added REQUIRED", gcp.Schema{id, name, {Name: "x", Type: gcp.StringFieldType, Required: true}}, false},
		{"tightened", gcp.Schema{id, {Name: "name", Type: gcp.StringFieldType, Required: true}}, false},
		{"other type", gcp.Schema{id, {Name: "name", Type: gcp.BytesFieldType}}, false},
		{"made REPEATED", gcp.Schema{id, {Name: "name", Type: gcp.StringFieldType, Repeated: true}}, false},
		{"name twice", gcp.Schema{id, name, {Name: "NAME", Type: gcp.StringFieldType}}, false},
		{"reserved name", gcp.Schema{id, name, {Name: "_PARTITIONTIME", Type: gcp.StringFieldType}}, false},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			table := b.table(t, ds, "t"+string(rune('a'+i)), &gcp.TableMetadata{Schema: gcp.Schema{id, name}})
			b.query(t, "INSERT INTO shop."+table.TableID+" (id, name) VALUES (1, 'a')")
			meta, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{Schema: c.schema}, "")
			if !c.ok {
				wantCode(t, err, http.StatusBadRequest, "invalid")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.schema, meta.Schema); diff != "" {
				t.Error(diff)
			}
			got := b.query(t, "SELECT * FROM shop."+table.TableID)
			if len(got) != 1 || len(got[0]) != len(c.schema) {
				t.Errorf("rows after the change: %v", got)
			}
		})
	}
}

func TestMetadataUpdatesAreLimited(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	for range 5 {
		if _, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{Description: "x"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	// The client waits and tries again while it is told rateLimitExceeded.
	seen := 0
	b.server.Intercept(func(call bigquery.Call) error {
		if call.Method == "tables.patch" && call.Phase == bigquery.Before {
			if seen++; seen == 3 {
				c.advance(10 * time.Second)
			}
		}
		return nil
	})
	if _, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{Description: "x"}, ""); err != nil {
		t.Error(err)
	}
	if seen != 3 {
		t.Errorf("the sixth update took %d calls, want 3", seen)
	}
}

func TestDDL(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	ds := b.dataset(t, "shop")
	b.query(t, "CREATE TABLE shop.t (id INT64 NOT NULL, tags ARRAY<STRING>, day DATE, PRIMARY KEY (id) NOT ENFORCED) PARTITION BY DATE_TRUNC(day, MONTH) CLUSTER BY id")
	meta, err := ds.Table("t").Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.TimePartitioning.Type != gcp.MonthPartitioningType || meta.Clustering.Fields[0] != "id" || !meta.Schema[1].Repeated || !meta.Schema[0].Required {
		t.Errorf("metadata is %+v", meta)
	}
	_, err = b.client.Query("CREATE TABLE shop.t (id INT64)").Read(t.Context())
	wantCode(t, err, http.StatusConflict, "duplicate")
	b.query(t, "INSERT INTO shop.t (id, tags, day) VALUES (1, ['x'], '2026-11-20')")
	b.query(t, "CREATE OR REPLACE VIEW shop.v AS SELECT id + 1 AS next FROM shop.t")
	b.query(t, "CREATE TABLE shop.copy AS SELECT next, 1.5 AS f FROM shop.v")
	if diff := cmp.Diff([][]gcp.Value{{int64(2), 1.5}}, b.query(t, "SELECT * FROM shop.copy")); diff != "" {
		t.Error(diff)
	}
	b.query(t, "DROP VIEW shop.v")
	b.query(t, "DROP TABLE IF EXISTS shop.v2")
	_, err = b.client.Query("DROP TABLE shop.v").Read(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
	b.query(t, "TRUNCATE TABLE shop.t")
	if got := b.query(t, "SELECT id FROM shop.t"); len(got) != 0 {
		t.Errorf("rows after TRUNCATE: %v", got)
	}
}

func TestRefusedByName(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	ds := b.dataset(t, "shop")
	wantCode(t, ds.Table("ext").Create(t.Context(), &gcp.TableMetadata{ExternalDataConfig: &gcp.ExternalDataConfig{SourceFormat: gcp.CSV}}), http.StatusNotImplemented, "notImplemented")
	wantCode(t, ds.Table("geo").Create(t.Context(), &gcp.TableMetadata{Schema: gcp.Schema{{Name: "g", Type: gcp.GeographyFieldType}}}), http.StatusNotImplemented, "notImplemented")
	_, err := ds.Table("c").CopierFrom(ds.Table("d")).Run(t.Context())
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	_, err = b.client.Query("SELECT 1; SELECT 2").Read(t.Context())
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	_, err = b.client.Query("SELECT * FROM shop.INFORMATION_SCHEMA.TABLES").Read(t.Context())
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	_, err = b.client.Query("CREATE FUNCTION shop.f() AS (1)").Read(t.Context())
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	q := b.client.Query("SELECT ?")
	q.Parameters = []gcp.QueryParameter{{Value: 1}}
	_, err = q.Read(t.Context())
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
}

package bigquery_test

import (
	"net/http"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

func TestAlterTable(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{Now: november.Now, Limits: bigquery.Limits{TableUpdates: 100}})
	ds := b.dataset(t, "shop")
	table := b.table(t, ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	b.query(t, "INSERT INTO shop.t (id, name) VALUES (7, 'seven')")
	b.query(t, "ALTER TABLE shop.t ADD COLUMN tags ARRAY<STRING>, ADD COLUMN IF NOT EXISTS name STRING, ADD PRIMARY KEY (id) NOT ENFORCED")
	b.query(t, "ALTER TABLE shop.t ALTER COLUMN id DROP NOT NULL")
	b.query(t, "ALTER TABLE shop.t SET OPTIONS (description = 'of tests', max_staleness = INTERVAL 15 MINUTE)")
	meta, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.Description != "of tests" || meta.MaxStaleness.ToDuration() != 15*time.Minute || meta.Schema[0].Required || len(meta.Schema) != 3 ||
		!cmp.Equal([]string{"id"}, meta.TableConstraints.PrimaryKey.Columns) {
		t.Errorf("metadata is %+v", meta)
	}
	if _, err := b.client.Query("ALTER TABLE shop.t ADD PRIMARY KEY (name) NOT ENFORCED").Read(t.Context()); err == nil {
		t.Error("a second primary key is accepted")
	}
	for _, sql := range []string{
		"ALTER TABLE shop.t ADD COLUMN more STRING NOT NULL",
		"ALTER TABLE shop.t ADD COLUMN _CHANGE_TYPE STRING",
		"ALTER TABLE shop.t ADD COLUMN name STRING",
	} {
		if _, err := b.client.Query(sql).Read(t.Context()); err == nil {
			t.Errorf("%s is accepted", sql)
		}
	}
	for _, sql := range []string{
		"ALTER TABLE shop.t DROP COLUMN name",
		"ALTER TABLE shop.t RENAME COLUMN name TO other",
		"ALTER TABLE shop.t ALTER COLUMN name SET DEFAULT 'x'",
		"ALTER TABLE shop.t SET OPTIONS (kms_key_name = 'x')",
		"ALTER TABLE shop.t DROP PRIMARY KEY",
	} {
		_, err := b.client.Query(sql).Read(t.Context())
		wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	}
	_, err = b.client.Query("ALTER TABLE shop.none ADD COLUMN x STRING").Read(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
	b.query(t, "ALTER TABLE IF EXISTS shop.none ADD COLUMN x STRING")
}

func TestWidenedColumns(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{Now: november.Now, Limits: bigquery.Limits{TableUpdates: 100}})
	ds := b.dataset(t, "shop")
	var schema gcp.Schema
	for _, name := range []string{"a", "b", "c", "kept"} {
		schema = append(schema, &gcp.FieldSchema{Name: name, Type: gcp.IntegerFieldType, Description: "column " + name})
	}
	schema = append(schema, &gcp.FieldSchema{Name: "d", Type: gcp.NumericFieldType}, &gcp.FieldSchema{Name: "e", Type: gcp.NumericFieldType})
	table := b.table(t, ds, "t", &gcp.TableMetadata{Schema: schema})
	b.table(t, ds, "view", &gcp.TableMetadata{ViewQuery: "SELECT a, e FROM shop.t"})
	b.query(t, "INSERT INTO shop.t (a, b, c, kept, d, e) VALUES (9223372036854775807, -1, 3, 4, 1.5, 1.250), (NULL, NULL, NULL, NULL, NULL, NULL)")
	b.query(t, "ALTER TABLE shop.t ALTER COLUMN a SET DATA TYPE NUMERIC, ALTER COLUMN b SET DATA TYPE BIGNUMERIC, ALTER COLUMN c SET DATA TYPE FLOAT64")
	b.query(t, "ALTER TABLE shop.t ALTER COLUMN d SET DATA TYPE FLOAT64, ALTER COLUMN e SET DATA TYPE BIGNUMERIC")
	meta, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, f := range meta.Schema {
		types = append(types, string(f.Type))
	}
	if diff := cmp.Diff([]string{"NUMERIC", "BIGNUMERIC", "FLOAT", "INTEGER", "FLOAT", "BIGNUMERIC"}, types); diff != "" || meta.Schema[0].Description != "column a" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	want := [][]gcp.Value{
		{nil, nil, nil, nil, nil, nil},
		{rat("9223372036854775807"), rat("-1"), 3.0, int64(4), 1.5, rat("1.25")},
	}
	if diff := cmp.Diff(want, b.query(t, "SELECT a, b, c, kept, d, e FROM shop.t ORDER BY kept"), compareValues); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]gcp.Value{{rat("9223372036854775807"), rat("1.25")}}, b.query(t, "SELECT * FROM shop.view WHERE a IS NOT NULL"), compareValues); diff != "" {
		t.Errorf("view (-want +got):\n%s", diff)
	}
	b.query(t, "INSERT INTO shop.t (a, e) VALUES (0.5, BIGNUMERIC '0.00000000000000000001')")
	for _, to := range []string{"a INT64", "a STRING", "b NUMERIC", "c INT64"} {
		if _, err := b.client.Query("ALTER TABLE shop.t ALTER COLUMN " + to[:1] + " SET DATA TYPE " + to[2:]).Read(t.Context()); err == nil {
			t.Errorf("column %s is accepted", to)
		}
	}
	// The API itself changes no type.
	schema[3].Type = gcp.NumericFieldType
	_, err = table.Update(t.Context(), gcp.TableMetadataToUpdate{Schema: schema}, "")
	wantCode(t, err, http.StatusBadRequest, "invalid")
}

func TestRenamedTable(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now})
	ds := b.dataset(t, "shop")
	table := b.table(t, ds, "t", &gcp.TableMetadata{Schema: simpleSchema, TableConstraints: keyed("id")})
	b.table(t, ds, "taken", &gcp.TableMetadata{Schema: simpleSchema})
	rename := func(to string) error {
		_, err := b.client.Query("ALTER TABLE shop.t RENAME TO " + to).Read(t.Context())
		return err
	}
	ms := b.pending(t, table, simpleDescriptor())
	if err := appendRows(t, ms, 0, simpleRow(1, "a")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, rename("u"), http.StatusBadRequest, "invalidQuery") // a stream waits
	if _, err := ms.Finalize(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.commit(t, table, ms.StreamName())
	c.advance(5*time.Hour - time.Second)
	wantCode(t, rename("u"), http.StatusBadRequest, "invalidQuery") // streaming is in use
	_, err := b.client.Query("ALTER TABLE shop.t ALTER COLUMN id SET DATA TYPE NUMERIC").Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	c.advance(time.Second)
	wantCode(t, rename("taken"), http.StatusConflict, "duplicate")
	if err := rename("shop.u"); err == nil {
		t.Error("a qualified new name is accepted")
	}
	if err := rename("u"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]gcp.Value{{int64(1), "a"}}, b.query(t, "SELECT * FROM shop.u")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	_, err = table.Metadata(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
	meta, err := ds.Table("u").Metadata(t.Context())
	if err != nil || len(meta.TableConstraints.PrimaryKey.Columns) != 1 {
		t.Errorf("metadata %+v, %v", meta, err)
	}
	b.table(t, ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	b.query(t, "DELETE FROM shop.u WHERE TRUE")
}

func TestPartitionExpiration(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 8, 59, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now})
	ds := b.dataset(t, "shop")
	staging := b.table(t, ds, "staging", &gcp.TableMetadata{
		Schema:           gcp.Schema{{Name: "id", Type: gcp.IntegerFieldType}, {Name: "at", Type: gcp.TimestampFieldType}},
		TimePartitioning: &gcp.TimePartitioning{Field: "at", Type: gcp.HourPartitioningType, Expiration: 2 * time.Hour},
	})
	b.query(t, "INSERT INTO shop.staging (id, `at`) VALUES (1, '2026-11-20 05:59:59'), (2, '2026-11-20 06:00:00'), (3, '2026-11-20 08:00:00'), (4, NULL)")
	meta, err := staging.Metadata(t.Context())
	if err != nil || meta.TimePartitioning.Expiration != 2*time.Hour || meta.NumRows != 3 { // hour 5 ended at 6, and is kept until 8
		t.Fatalf("metadata is %+v of %+v, %v", meta.TimePartitioning, meta, err)
	}
	ids := func(want ...int64) {
		t.Helper()
		var rows [][]gcp.Value
		for _, id := range want {
			rows = append(rows, []gcp.Value{id})
		}
		if diff := cmp.Diff(rows, b.query(t, "SELECT id FROM shop.staging ORDER BY id")); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
	}
	ids(2, 3, 4)
	c.advance(time.Minute)
	ids(3, 4)
	_, err = staging.Update(t.Context(), gcp.TableMetadataToUpdate{TimePartitioning: &gcp.TimePartitioning{Field: "at", Type: gcp.HourPartitioningType}}, "")
	if err != nil {
		t.Fatal(err)
	}
	c.advance(100 * time.Hour)
	ids(3, 4)
	b.query(t, "ALTER TABLE shop.staging SET OPTIONS (partition_expiration_days = 1)")
	ids(4)
	_, err = staging.Update(t.Context(), gcp.TableMetadataToUpdate{TimePartitioning: &gcp.TimePartitioning{Field: "at", Type: gcp.DayPartitioningType}}, "")
	wantCode(t, err, http.StatusBadRequest, "invalid")
	for kind, typ := range map[gcp.FieldType]string{gcp.DateFieldType: "DATE", gcp.DateTimeFieldType: "DATETIME"} {
		table := b.table(t, ds, "by"+typ, &gcp.TableMetadata{
			Schema:           gcp.Schema{{Name: "d", Type: kind}},
			TimePartitioning: &gcp.TimePartitioning{Field: "d", Type: gcp.MonthPartitioningType, Expiration: 24 * time.Hour},
		})
		b.query(t, "INSERT INTO shop.by"+typ+" (d) VALUES ('2026-09-30'), ('2026-10-01'), ('2026-11-24')")
		meta, err := table.Metadata(t.Context())
		if err != nil || meta.NumRows != 1 {
			t.Errorf("%s: %d rows, %v", typ, meta.NumRows, err)
		}
	}
}

// TestSchemaDelay: the Storage Write API learns of an added column late, and
// says so with the next answer once it knows.
func TestSchemaDelay(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now, SchemaDelay: 3 * time.Minute})
	table := b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{Schema: simpleSchema})
	old := b.pending(t, table, simpleDescriptor())
	if err := appendRows(t, old, 0, simpleRow(1, "a")); err != nil {
		t.Fatal(err)
	}
	wider := append(simpleSchema[:2:2], &gcp.FieldSchema{Name: "more", Type: gcp.StringFieldType})
	if _, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{Schema: wider}, ""); err != nil {
		t.Fatal(err)
	}
	b.query(t, "INSERT INTO shop.t (id, name, more) VALUES (9, 'dml', 'knows')")
	str := descriptorpb.FieldDescriptorProto_TYPE_STRING
	d := descriptor(protoField{name: "id", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64}, protoField{name: "name", typ: str}, protoField{name: "more", typ: str})
	row := message{}.i(1, 2).s(2, "b").s(3, "new")
	c.advance(3*time.Minute - time.Second)
	wantStorageError(t, appendRows(t, b.pending(t, table, d), 0, row), codes.InvalidArgument, storagepb.StorageError_SCHEMA_MISMATCH_EXTRA_FIELDS)
	info, err := b.writer.GetWriteStream(t.Context(), &storagepb.GetWriteStreamRequest{Name: old.StreamName(), View: storagepb.WriteStreamView_FULL})
	if err != nil || len(info.GetTableSchema().GetFields()) != 2 {
		t.Errorf("the stream's schema is %v, %v", info.GetTableSchema(), err)
	}
	c.advance(time.Second)
	result, err := old.AppendRows(t.Context(), [][]byte{simpleRow(3, "c")}, managedwriter.WithOffset(1))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := result.FullResponse(t.Context())
	if err != nil || len(resp.GetUpdatedSchema().GetFields()) != 3 {
		t.Errorf("the answer has the schema %v, %v", resp.GetUpdatedSchema(), err)
	}
	ms := b.pending(t, table, d)
	if err := appendRows(t, ms, 0, row); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*managedwriter.ManagedStream{old, ms} {
		if _, err := s.Finalize(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b.commit(t, table, old.StreamName(), ms.StreamName())
	want := [][]gcp.Value{{int64(1), "a", nil}, {int64(2), "b", "new"}, {int64(3), "c", nil}, {int64(9), "dml", "knows"}}
	if diff := cmp.Diff(want, b.query(t, "SELECT * FROM shop.t ORDER BY id")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

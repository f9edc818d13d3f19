package bigquery_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

func TestRefusedValues(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "types"), "every", &gcp.TableMetadata{Schema: everyType})
	ms := b.pending(t, table, everyDescriptor())
	cases := []struct {
		name string
		row  message
	}{
		{"missing required", message{}.s(4, "x")},
		{"not UTF-8", message{}.i(1, 1).s(4, "\xff")},
		{"NUMERIC of 30 digits", message{}.i(1, 1).s(6, "100000000000000000000000000000")},
		{"NUMERIC of 10 decimals", message{}.i(1, 1).s(6, "0.1234567891")},
		{"NUMERIC NaN", message{}.i(1, 1).s(6, "NaN")},
		{"BIGNUMERIC over 2^255", message{}.i(1, 1).s(7, "578960446186580977117854925043439539266.34992332820282019728792003956564819968")},
		{"BIGNUMERIC of 39 decimals", message{}.i(1, 1).s(7, "0."+strings.Repeat("1", 39))},
		{"DATE before year 1", message{}.i(1, 1).i(8, -719163)},
		{"DATE after 9999", message{}.i(1, 1).i(8, 2932897)},
		{"TIME 24:00:00", message{}.i(1, 1).s(9, "24:00:00")},
		{"TIME of nanoseconds", message{}.i(1, 1).s(9, "00:00:00.0000001")},
		{"DATETIME February 30", message{}.i(1, 1).s(10, "2024-02-30 00:00:00")},
		{"DATETIME infinity", message{}.i(1, 1).s(10, "infinity")},
		{"TIMESTAMP after 9999", message{}.i(1, 1).i(11, 253402300800000000)},
		{"TIMESTAMP before year 1", message{}.i(1, 1).i(11, -62135596800000001)},
		{"JSON syntax", message{}.i(1, 1).s(12, `{"a":}`)},
		{"JSON trailing text", message{}.i(1, 1).s(12, `{} x`)},
		{"JSON 1e309", message{}.i(1, 1).s(12, "1e309")},
		{"JSON integer over 64 bits", message{}.i(1, 1).s(12, "[18446744073709551617]")},
		{"JSON decimal that is no double", message{}.i(1, 1).s(12, "0.12345678901234567890123")},
		{"JSON lone surrogate", message{}.i(1, 1).s(12, `"\ud800"`)},
		{"JSON too deep", message{}.i(1, 1).s(12, strings.Repeat("[", 501)+strings.Repeat("]", 501))},
		{"unknown field number", message{}.i(1, 1).i(99, 1)},
		{"wrong wire type", message{}.i(1, 1).s(8, "2024-01-01")},
		{"truncated", message{}.i(1, 1).s(4, "abc")[:5]},
		{"inside of a STRUCT", message{}.i(1, 1).s(16, string(message{}.s(2, "1e40")))},
		{"inside of an ARRAY", message{}.i(1, 1).s(15, "{}").s(15, "{")},
	}
	for _, c := range cases { //nolint:paralleltest // the appends share one stream
		t.Run(c.name, func(t *testing.T) {
			result, err := ms.AppendRows(t.Context(), [][]byte{message{}.i(1, 0), c.row}, managedwriter.WithOffset(0))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := result.FullResponse(t.Context())
			wantStorageError(t, err, codes.InvalidArgument, storagepb.StorageError_STORAGE_ERROR_CODE_UNSPECIFIED)
			bad := resp.GetRowErrors()
			if len(bad) != 1 || bad[0].GetIndex() != 1 || bad[0].GetCode() != storagepb.RowError_FIELDS_ERROR || bad[0].GetMessage() == "" {
				t.Errorf("row errors are %v, want one of row 1", bad)
			}
		})
	}
	// Nothing of a refused request was appended: offset 0 is still free.
	if err := appendRows(t, ms, 0, message{}.i(1, 1)); err != nil {
		t.Error(err)
	}
}

func TestRefusedDescriptors(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "types"), "simple", &gcp.TableMetadata{Schema: simpleSchema})
	i64, str := descriptorpb.FieldDescriptorProto_TYPE_INT64, descriptorpb.FieldDescriptorProto_TYPE_STRING
	cases := []struct {
		name string
		d    *descriptorpb.DescriptorProto
		kind storagepb.StorageError_StorageErrorCode
	}{
		{"extra field", descriptor(protoField{name: "id", typ: i64}, protoField{name: "extra", typ: str}), storagepb.StorageError_SCHEMA_MISMATCH_EXTRA_FIELDS},
		{"required field missing", descriptor(protoField{name: "name", typ: str}), 0},
		{"wrong type", descriptor(protoField{name: "id", typ: str}), 0},
		{"uint64 as INT64", descriptor(protoField{name: "id", typ: descriptorpb.FieldDescriptorProto_TYPE_UINT64}), 0},
		{"repeated for NULLABLE", descriptor(protoField{name: "id", typ: i64}, protoField{name: "name", typ: str, label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED}), 0},
		{"column twice", descriptor(protoField{name: "id", typ: i64}, protoField{name: "ID", typ: i64}), 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ms := b.pending(t, table, c.d)
			wantStorageError(t, appendRows(t, ms, 0, message{}.i(1, 1)), codes.InvalidArgument, c.kind)
		})
	}
}

func TestRequestOverTenMegabytes(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	ms := b.pending(t, table, simpleDescriptor())
	if err := appendRows(t, ms, 0, simpleRow(1, strings.Repeat("x", 9<<20))); err != nil {
		t.Fatal(err)
	}
	wantStorageError(t, appendRows(t, ms, 1, simpleRow(2, strings.Repeat("x", 10<<20))), codes.InvalidArgument, 0)
}

func TestDefaultStream(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	ms, err := b.writer.NewManagedStream(
		t.Context(), managedwriter.WithDestinationTable(parent(table)),
		managedwriter.WithType(managedwriter.DefaultStream), managedwriter.WithSchemaDescriptor(simpleDescriptor()),
	)
	if err != nil {
		t.Fatal(err)
	}
	result, err := ms.AppendRows(t.Context(), [][]byte{simpleRow(1, "a")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := result.GetResult(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]gcp.Value{{int64(1), "a"}}, b.query(t, "SELECT * FROM shop.orders")); diff != "" {
		t.Error(diff)
	}
	wantStorageError(t, appendRows(t, ms, 0, simpleRow(2, "b")), codes.InvalidArgument, 0)
	// Unlike rows of insertAll, these can be deleted at once.
	b.query(t, "DELETE FROM shop.orders WHERE id = 1")
	if got := b.query(t, "SELECT id FROM shop.orders"); len(got) != 0 {
		t.Errorf("rows after DELETE: %v", got)
	}
	_, err = b.writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(parent(table)), managedwriter.WithType(managedwriter.BufferedStream))
	if got := status.Code(errors.Unwrap(err)); got != codes.Unimplemented {
		t.Errorf("a BUFFERED stream answers %v", err)
	}
}

func TestStreamedPartitions(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	table := b.table(t, b.dataset(t, "shop"), "days", &gcp.TableMetadata{
		Schema:                 gcp.Schema{{Name: "day", Type: gcp.DateFieldType}},
		TimePartitioning:       &gcp.TimePartitioning{Field: "day", Type: gcp.DayPartitioningType},
		RequirePartitionFilter: true,
	})
	ms := b.pending(t, table, descriptor(protoField{name: "day", typ: descriptorpb.FieldDescriptorProto_TYPE_STRING}))
	for _, day := range []string{"2016-11-21", "2027-11-23"} {
		wantStorageError(t, appendRows(t, ms, 0, message{}.s(1, day)), codes.InvalidArgument, 0)
	}
	if err := appendRows(t, ms, 0, message{}.s(1, "2016-11-23"), message{}.s(1, "2027-11-20"), message{}); err != nil {
		t.Fatal(err)
	}
	if _, err := ms.Finalize(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.commit(t, table, ms.StreamName())
	_, err := b.client.Query("SELECT day FROM shop.days").Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	for sql, want := range map[string]int64{
		"SELECT day FROM shop.days WHERE day >= '2020-01-01'":                                              8,
		"SELECT day FROM shop.days WHERE day BETWEEN '2016-01-01' AND '2016-12-31' AND day < '2030-01-01'": 8,
		"SELECT day FROM shop.days WHERE day < '2040-01-01'":                                               16,
		"SELECT day FROM shop.days WHERE day = '2020-01-01'":                                               0,
		"SELECT day FROM shop.days WHERE day IN ('2016-11-23', '2016-11-24')":                              8,
		"SELECT COUNT(*) FROM shop.days WHERE DATE_TRUNC(day, YEAR) = '2027-01-01'":                        8,
		"SELECT day FROM shop.days WHERE day IS NULL":                                                      0,
	} {
		q := b.client.Query(sql)
		q.DryRun = true
		job, err := q.Run(t.Context())
		if err != nil {
			t.Errorf("dry run of %s: %v", sql, err)
			continue
		}
		if got := job.LastStatus().Statistics.TotalBytesProcessed; got != want {
			t.Errorf("dry run of %s estimates %d bytes, want %d", sql, got, want)
		}
	}
}

func TestStreamQuota(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	// The official client would wait and try again.
	conn, err := grpc.NewClient(b.server.StorageHost(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	raw := storagepb.NewBigQueryWriteClient(conn)
	create := func() error {
		_, err := raw.CreateWriteStream(t.Context(), &storagepb.CreateWriteStreamRequest{
			Parent: parent(table), WriteStream: &storagepb.WriteStream{Type: storagepb.WriteStream_PENDING},
		})
		return err
	}
	for range 10_000 {
		if err := create(); err != nil {
			t.Fatal(err)
		}
	}
	wantStorageError(t, create(), codes.ResourceExhausted, 0)
	c.advance(time.Hour)
	if err := create(); err != nil {
		t.Error(err)
	}
}

func TestInsertAllRefusesDML(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	b.query(t, "INSERT INTO shop.orders (id, name) VALUES (1, 'old'), (2, 'old')")
	if err := table.Inserter().Put(t.Context(), []gcp.ValueSaver{&gcp.ValuesSaver{Schema: simpleSchema, Row: []gcp.Value{3, "new"}}}); err != nil {
		t.Fatal(err)
	}
	meta, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.NumRows != 2 || meta.StreamingBuffer == nil || meta.StreamingBuffer.EstimatedRows != 1 {
		t.Errorf("metadata counts %d rows and buffer %+v", meta.NumRows, meta.StreamingBuffer)
	}
	if got := b.query(t, "SELECT name FROM shop.orders WHERE id = 3"); len(got) != 1 {
		t.Errorf("the streamed row is not visible: %v", got)
	}
	b.query(t, "DELETE FROM shop.orders WHERE id = 1")
	for _, sql := range []string{"DELETE FROM shop.orders WHERE id >= 2", "UPDATE shop.orders SET name = 'x' WHERE TRUE"} {
		_, err := b.client.Query(sql).Read(t.Context())
		wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	}
	if got := b.query(t, "SELECT id FROM shop.orders WHERE name <> 'x'"); len(got) != 2 {
		t.Errorf("a refused statement had an effect: %v", got)
	}
	c.advance(30 * time.Minute)
	b.query(t, "DELETE FROM shop.orders WHERE id >= 2")
	if got := b.query(t, "SELECT id FROM shop.orders"); len(got) != 0 {
		t.Errorf("rows after DELETE: %v", got)
	}
	var multi gcp.PutMultiError
	err = table.Inserter().Put(t.Context(), []gcp.ValueSaver{&gcp.ValuesSaver{Schema: gcp.Schema{{Name: "none"}}, Row: []gcp.Value{3}}})
	if !errors.As(err, &multi) {
		t.Errorf("an unknown field answers %v", err)
	}
}

func TestWriterSchemaChange(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	ms := b.pending(t, table, simpleDescriptor())
	if err := appendRows(t, ms, 0, simpleRow(1, "a")); err != nil {
		t.Fatal(err)
	}
	wider := append(simpleSchema[:2:2], &gcp.FieldSchema{Name: "tags", Type: gcp.StringFieldType, Repeated: true})
	if _, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{Schema: wider}, ""); err != nil {
		t.Fatal(err)
	}
	d := simpleDescriptor()
	d.Field = append(d.Field, &descriptorpb.FieldDescriptorProto{
		Name: proto.String("tags"), Number: proto.Int32(3), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(),
	})
	row := protowire.AppendString(protowire.AppendTag(simpleRow(2, "b"), 3, protowire.BytesType), "x")
	result, err := ms.AppendRows(t.Context(), [][]byte{row}, managedwriter.WithOffset(1), managedwriter.UpdateSchemaDescriptor(d))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := result.GetResult(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := ms.Finalize(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.commit(t, table, ms.StreamName())
	want := [][]gcp.Value{{int64(1), "a", []gcp.Value{}}, {int64(2), "b", []gcp.Value{"x"}}}
	if diff := cmp.Diff(want, b.query(t, "SELECT * FROM shop.orders ORDER BY id"), compareValues); diff != "" {
		t.Error(diff)
	}
}

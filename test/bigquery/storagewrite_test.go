package bigquery_test

import (
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

var simpleSchema = gcp.Schema{
	{Name: "id", Type: gcp.IntegerFieldType, Required: true},
	{Name: "name", Type: gcp.StringFieldType},
}

type protoField struct {
	name  string
	typ   descriptorpb.FieldDescriptorProto_Type
	label descriptorpb.FieldDescriptorProto_Label
}

// descriptor makes a flat message of fields numbered from 1.
func descriptor(fields ...protoField) *descriptorpb.DescriptorProto {
	d := &descriptorpb.DescriptorProto{Name: proto.String("Row")}
	for i, f := range fields {
		if f.label == 0 {
			f.label = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		}
		d.Field = append(d.Field, &descriptorpb.FieldDescriptorProto{
			Name: proto.String(f.name), Number: proto.Int32(int32(i + 1)), Type: f.typ.Enum(), Label: f.label.Enum(),
		})
	}
	return d
}

func simpleDescriptor() *descriptorpb.DescriptorProto {
	return descriptor(
		protoField{name: "id", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64},
		protoField{name: "name", typ: descriptorpb.FieldDescriptorProto_TYPE_STRING},
	)
}

func simpleRow(id int64, name string) []byte {
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(id))
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, name)
}

func parent(table *gcp.Table) string {
	return managedwriter.TableParentFromParts(table.ProjectID, table.DatasetID, table.TableID)
}

func (b *bundle) pending(tb testing.TB, table *gcp.Table, d *descriptorpb.DescriptorProto) *managedwriter.ManagedStream {
	tb.Helper()
	ms, err := b.writer.NewManagedStream(
		tb.Context(), managedwriter.WithDestinationTable(parent(table)),
		managedwriter.WithType(managedwriter.PendingStream), managedwriter.WithSchemaDescriptor(d),
	)
	if err != nil {
		tb.Fatal(err)
	}
	return ms
}

func appendRows(t *testing.T, ms *managedwriter.ManagedStream, offset int64, rows ...[]byte) error {
	t.Helper()
	result, err := ms.AppendRows(t.Context(), rows, managedwriter.WithOffset(offset))
	if err != nil {
		t.Fatal(err)
	}
	_, err = result.GetResult(t.Context())
	return err
}

func (b *bundle) commit(tb testing.TB, table *gcp.Table, streams ...string) *storagepb.BatchCommitWriteStreamsResponse {
	tb.Helper()
	resp, err := b.writer.BatchCommitWriteStreams(tb.Context(), &storagepb.BatchCommitWriteStreamsRequest{Parent: parent(table), WriteStreams: streams})
	if err != nil {
		tb.Fatal(err)
	}
	return resp
}

// wantStorageError checks the code of an RPC error and of its StorageError.
func wantStorageError(t *testing.T, err error, code codes.Code, kind storagepb.StorageError_StorageErrorCode) {
	t.Helper()
	st, ok := status.FromError(err)
	if !ok || st.Code() != code {
		t.Fatalf("got error %v, want a status %s", err, code)
	}
	if kind == storagepb.StorageError_STORAGE_ERROR_CODE_UNSPECIFIED {
		return
	}
	for _, d := range st.Details() {
		if detail, ok := d.(*storagepb.StorageError); ok && detail.GetCode() == kind {
			return
		}
	}
	t.Fatalf("got details %v of %v, want StorageError %s", st.Details(), err, kind)
}

func TestPendingStream(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	ms := b.pending(t, table, simpleDescriptor())
	if err := appendRows(t, ms, 0, simpleRow(1, "a"), simpleRow(2, "b")); err != nil {
		t.Fatal(err)
	}
	wantStorageError(t, appendRows(t, ms, 0, simpleRow(1, "a")), codes.AlreadyExists, storagepb.StorageError_OFFSET_ALREADY_EXISTS)
	wantStorageError(t, appendRows(t, ms, 5, simpleRow(9, "z")), codes.OutOfRange, storagepb.StorageError_OFFSET_OUT_OF_RANGE)
	if err := appendRows(t, ms, 2, simpleRow(3, "c")); err != nil {
		t.Fatal(err)
	}
	if got := b.query(t, "SELECT id FROM `shop.orders`"); len(got) != 0 {
		t.Fatalf("pending rows are visible: %v", got)
	}
	early := b.commit(t, table, ms.StreamName())
	if got := early.GetStreamErrors(); early.GetCommitTime() != nil || len(got) != 1 || got[0].GetCode() != storagepb.StorageError_INVALID_STREAM_STATE {
		t.Fatalf("commit of an unfinalized stream answered %v", early)
	}
	if n, err := ms.Finalize(t.Context()); err != nil || n != 3 {
		t.Fatalf("Finalize = %d, %v", n, err)
	}
	wantStorageError(t, appendRows(t, ms, 3, simpleRow(4, "d")), codes.InvalidArgument, storagepb.StorageError_STREAM_FINALIZED)
	mixed := b.commit(t, table, ms.StreamName(), parent(table)+"/streams/none")
	if got := mixed.GetStreamErrors(); len(got) != 1 || got[0].GetCode() != storagepb.StorageError_STREAM_NOT_FOUND {
		t.Fatalf("commit with an unknown stream answered %v", mixed)
	}
	// A run that died here finds out by the saved name that nothing is committed.
	info, err := b.writer.GetWriteStream(t.Context(), &storagepb.GetWriteStreamRequest{Name: ms.StreamName()})
	if err != nil || info.GetCommitTime() != nil {
		t.Fatalf("GetWriteStream before commit = %v, %v", info, err)
	}
	if resp := b.commit(t, table, ms.StreamName()); resp.GetCommitTime() == nil || len(resp.GetStreamErrors()) > 0 {
		t.Fatalf("commit answered %v", resp)
	}
	info, err = b.writer.GetWriteStream(t.Context(), &storagepb.GetWriteStreamRequest{Name: ms.StreamName()})
	if err != nil || info.GetCommitTime() == nil {
		t.Fatalf("GetWriteStream after commit = %v, %v", info, err)
	}
	again := b.commit(t, table, ms.StreamName())
	if got := again.GetStreamErrors(); len(got) != 1 || got[0].GetCode() != storagepb.StorageError_STREAM_ALREADY_COMMITTED {
		t.Fatalf("second commit answered %v", again)
	}
	want := [][]gcp.Value{{int64(1), "a"}, {int64(2), "b"}, {int64(3), "c"}}
	if diff := cmp.Diff(want, b.query(t, "SELECT id, name FROM `shop.orders` ORDER BY id")); diff != "" {
		t.Error(diff)
	}
}

func TestStreamExpiresWithItsDay(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	ms := b.pending(t, table, simpleDescriptor())
	c.advance(25 * time.Hour)
	_, err := b.writer.GetWriteStream(t.Context(), &storagepb.GetWriteStreamRequest{Name: ms.StreamName()})
	wantStorageError(t, err, codes.NotFound, storagepb.StorageError_STREAM_NOT_FOUND)
	_, err = b.writer.GetWriteStream(t.Context(), &storagepb.GetWriteStreamRequest{Name: "projects/p/datasets/d/tables/t/_default"})
	wantStorageError(t, err, codes.NotFound, storagepb.StorageError_TABLE_NOT_FOUND)
}

package bigquery_test

import (
	"errors"
	"io"
	"testing"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

func (b *bundle) session(t *testing.T, table *gcp.Table, options *storagepb.ReadSession_TableReadOptions) (*storagepb.ReadSession, error) {
	t.Helper()
	return b.reader.CreateReadSession(t.Context(), &storagepb.CreateReadSessionRequest{
		Parent:         "projects/" + project,
		MaxStreamCount: 1,
		ReadSession:    &storagepb.ReadSession{Table: parent(table), DataFormat: storagepb.DataFormat_ARROW, ReadOptions: options},
	})
}

// read counts the rows of a stream from an offset on.
func (b *bundle) read(t *testing.T, stream string, offset int64) (int64, error) {
	t.Helper()
	call, err := b.reader.ReadRows(t.Context(), &storagepb.ReadRowsRequest{ReadStream: stream, Offset: offset})
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for {
		resp, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += resp.GetRowCount()
	}
}

func TestReadSession(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	table := logTable(t, b)
	s, err := b.session(t, table, &storagepb.ReadSession_TableReadOptions{SelectedFields: []string{"name"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.GetStreams()) != 1 || s.GetEstimatedRowCount() != 4 {
		t.Fatalf("session is %v", s)
	}
	b.query(t, "DELETE FROM shop.orders_log WHERE id = 1") // the session is a snapshot
	for offset, want := range map[int64]int64{0: 4, 3: 1, 4: 0} {
		if n, err := b.read(t, s.GetStreams()[0].GetName(), offset); err != nil || n != want {
			t.Errorf("read from %d: %d rows, %v, want %d", offset, n, err, want)
		}
	}
	if _, err := b.read(t, s.GetStreams()[0].GetName(), 5); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("read past the end answers %v", err)
	}
	_, err = b.session(t, table, &storagepb.ReadSession_TableReadOptions{RowRestriction: "id = 1"})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a row restriction answers %v", err)
	}
	_, err = b.session(t, b.client.Dataset("shop").Table("none"), nil)
	if status.Code(err) != codes.NotFound {
		t.Errorf("a missing table answers %v", err)
	}
}

func TestInterruptedRead(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	failed := make(chan struct{}, 1)
	failed <- struct{}{}
	b.server.Intercept(func(c bigquery.Call) error {
		if c.Method == "ReadRows" && c.Phase == bigquery.After {
			select {
			case <-failed:
				return status.Error(codes.Unavailable, "interrupted")
			default:
			}
		}
		return nil
	})
	job, err := b.client.Query("SELECT n FROM UNNEST(GENERATE_ARRAY(1, 10000)) AS n ORDER BY n").Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	it, err := job.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !it.IsAccelerated() {
		t.Fatal("the result was not read by the Storage Read API")
	}
	got := rows(t, it)
	if len(got) != 10000 || got[9999][0] != int64(10000) {
		t.Errorf("%d rows after an interruption", len(got))
	}
	if n := b.server.Calls()["ReadRows"]; n != 2 {
		t.Errorf("%d calls of ReadRows, want 2", n)
	}
}

func TestInterceptedCommit(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "shop"), "orders", &gcp.TableMetadata{Schema: simpleSchema})
	for _, phase := range []bigquery.Phase{bigquery.Before, bigquery.After} {
		ms := b.pending(t, table, simpleDescriptor())
		if err := appendRows(t, ms, 0, simpleRow(1, "a")); err != nil {
			t.Fatal(err)
		}
		if _, err := ms.Finalize(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.server.Intercept(func(c bigquery.Call) error {
			if c.Method == "BatchCommitWriteStreams" && c.Phase == phase {
				return status.Error(codes.PermissionDenied, "killed")
			}
			return nil
		})
		_, err := b.writer.BatchCommitWriteStreams(t.Context(), &storagepb.BatchCommitWriteStreamsRequest{Parent: parent(table), WriteStreams: []string{ms.StreamName()}})
		if status.Code(err) != codes.PermissionDenied {
			t.Fatalf("intercepted commit answers %v", err)
		}
		b.server.Intercept(nil)
		info, err := b.writer.GetWriteStream(t.Context(), &storagepb.GetWriteStreamRequest{Name: ms.StreamName()})
		if err != nil {
			t.Fatal(err)
		}
		if committed := info.GetCommitTime() != nil; committed != (phase == bigquery.After) {
			t.Errorf("phase %v: committed is %v", phase, committed)
		}
	}
	if got := b.query(t, "SELECT id FROM shop.orders"); len(got) != 1 {
		t.Errorf("rows are %v, want those of the commit whose answer was lost", got)
	}
}

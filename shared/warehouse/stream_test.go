package warehouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// storageServer is one pending stream as the Storage Write API keeps it: rows at
// offsets, taken only in order. What goes wrong is up to the test.
type storageServer struct {
	storagepb.UnimplementedBigQueryWriteServer

	// before and after are asked about each request, by its number from 0: an
	// error breaks the connection before or after the rows are stored.
	before, after func(request int) error
	// received is called when a request has come, before it is looked at.
	received func(ctx context.Context, connection, request int)
	// refuse says which rows BigQuery does not want.
	refuse func(row string) bool
	// answer replaces the answer to a request.
	answer func(request int) *storagepb.AppendRowsResponse
	// counted is what is added to the count at the end.
	counted int64
	commit  *storagepb.BatchCommitWriteStreamsResponse

	mu          sync.Mutex
	rows        []string
	requests    int
	connections int
	problems    []string
}

const streamName = "projects/p/datasets/d/tables/t_log/streams/s1"

func (s *storageServer) problem(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

func (s *storageServer) CreateWriteStream(_ context.Context, r *storagepb.CreateWriteStreamRequest) (*storagepb.WriteStream, error) {
	if r.GetParent() != "projects/p/datasets/d/tables/t_log" || r.GetWriteStream().GetType() != storagepb.WriteStream_PENDING {
		return nil, status.Errorf(codes.InvalidArgument, "unexpected request %v", r)
	}
	return &storagepb.WriteStream{Name: streamName}, nil
}

func (s *storageServer) AppendRows(calls storagepb.BigQueryWrite_AppendRowsServer) error {
	md, _ := metadata.FromIncomingContext(calls.Context())
	s.mu.Lock()
	connection := s.connections
	s.connections++
	if routing := md.Get("x-goog-request-params"); !slices.ContainsFunc(routing, func(v string) bool { return strings.HasPrefix(v, "write_stream=projects%2Fp") }) {
		s.problem("no routing header: %v", routing)
	}
	s.mu.Unlock()
	for n := 0; ; n++ {
		r, err := calls.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		ctx := calls.Context()
		if s.received != nil {
			s.received(ctx, connection, n)
			ctx = context.WithoutCancel(ctx)
		}
		response, err := s.append(ctx, r, n == 0)
		if err != nil {
			return err
		}
		if err := calls.Send(response); err != nil {
			return err
		}
	}
}

func (s *storageServer) append(ctx context.Context, r *storagepb.AppendRowsRequest, first bool) (*storagepb.AppendRowsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil { // the client has left this connection
		return nil, err
	}
	number := s.requests
	s.requests++
	if named := r.GetWriteStream() == streamName && len(r.GetProtoRows().GetWriterSchema().GetProtoDescriptor().GetField()) > 0; named != first {
		s.problem("request %d: names stream and schema: %t, first of its connection: %t", number, named, first)
	}
	if s.before != nil {
		if err := s.before(number); err != nil {
			return nil, err
		}
	}
	if s.answer != nil {
		if response := s.answer(number); response != nil {
			return response, nil
		}
	}
	rows := r.GetProtoRows().GetRows().GetSerializedRows()
	if len(rows) == 0 {
		s.problem("request %d has no rows", number)
	}
	offset, end := r.GetOffset().GetValue(), int64(len(s.rows))
	if r.GetOffset() == nil {
		s.problem("request %d has no offset", number)
	}
	if offset < end {
		return refusal(codes.AlreadyExists), nil
	}
	if offset > end {
		return refusal(codes.OutOfRange), nil
	}
	response := &storagepb.AppendRowsResponse{}
	for i, row := range rows {
		if s.refuse != nil && s.refuse(string(row)) {
			response.RowErrors = append(response.RowErrors, &storagepb.RowError{Index: int64(i), Message: "no good"})
		}
	}
	if len(response.GetRowErrors()) > 0 {
		response.Response = refusal(codes.InvalidArgument).GetResponse()
		return response, nil
	}
	for _, row := range rows {
		s.rows = append(s.rows, string(row))
	}
	if s.after != nil {
		if err := s.after(number); err != nil {
			return nil, err
		}
	}
	return response, nil
}

func refusal(code codes.Code) *storagepb.AppendRowsResponse {
	return &storagepb.AppendRowsResponse{Response: &storagepb.AppendRowsResponse_Error{Error: status.New(code, "refused").Proto()}}
}

func (s *storageServer) FinalizeWriteStream(_ context.Context, r *storagepb.FinalizeWriteStreamRequest) (*storagepb.FinalizeWriteStreamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.GetName() != streamName {
		return nil, status.Error(codes.NotFound, r.GetName())
	}
	return &storagepb.FinalizeWriteStreamResponse{RowCount: int64(len(s.rows)) + s.counted}, nil
}

func (s *storageServer) BatchCommitWriteStreams(_ context.Context, r *storagepb.BatchCommitWriteStreamsRequest) (*storagepb.BatchCommitWriteStreamsResponse, error) {
	if r.GetParent() != "projects/p/datasets/d/tables/t_log" || !slices.Equal(r.GetWriteStreams(), []string{streamName}) {
		return nil, status.Errorf(codes.InvalidArgument, "unexpected request %v", r)
	}
	return s.commit, nil
}

// testTB is what *testing.T and *rapid.T share.
type testTB interface {
	rapid.TB
}

// serve starts the server on loopback and returns a client of it and what ends both.
func serve(t testTB, s *storageServer) (*Client, func()) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	storagepb.RegisterBigQueryWriteServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	client := NewClient(Config{Project: "p", StorageHost: listener.Addr().String()})
	return client, func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func logTable() *Table {
	return &Table{Dataset: "d", Name: "t", Key: []string{"id"}, Columns: []Column{{Name: "id", Kind: rowwire.Text, Required: true}}}
}

// message is a whole row of logTable.
func message(id string) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), "v")
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), 0)
	return protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), 0)
}

// written is what became of the rows that were appended.
type written struct {
	Stored  []string
	Refused []RefusedRow
	Rows    int64
	Err     codes.Code // OK: none
}

// write appends batches of the given sizes, whose rows are numbered from 0, and
// finishes the stream.
func write(t testTB, s *storageServer, sizes ...int) (written, error) {
	t.Helper()
	client, closeAll := serve(t, s)
	defer closeAll()
	ctx := context.Background()
	stream, err := client.NewStream(ctx, logTable(), &Buffers{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if stream.Name() != streamName {
		t.Errorf("stream %q", stream.Name())
	}
	var w written
	w.Refused, err = fill(ctx, stream, sizes)
	w.Rows, w.Err = stream.Rows(), fault.GRPCCode(err)
	stream.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, row := range s.rows {
		w.Stored = append(w.Stored, id(row))
	}
	for _, p := range s.problems {
		t.Errorf("protocol: %s", p)
	}
	return w, err
}

func fill(ctx context.Context, stream *Stream, sizes []int) ([]RefusedRow, error) {
	b, n := new(rowwire.Batch), 0
	for _, size := range sizes {
		b.Reset() // as the transcoder does
		for range size {
			b.Rows = append(b.Rows, message(fmt.Sprint(n)))
			n++
		}
		var err error
		if b, err = stream.Append(ctx, b); err != nil {
			return nil, err
		}
	}
	return stream.Finish(ctx)
}

func id(row string) string {
	_, _, n := protowire.ConsumeField([]byte(row))
	return row[2:n]
}

func numbers(n int, without ...int) []string {
	var out []string
	for i := range n {
		if !slices.Contains(without, i) {
			out = append(out, fmt.Sprint(i))
		}
	}
	return out
}

// at breaks a connection at the given requests.
func at(code codes.Code, requests ...int) func(int) error {
	return func(n int) error {
		if slices.Contains(requests, n) {
			return status.Error(code, "broken")
		}
		return nil
	}
}

func refusing(ids ...string) func(string) bool {
	return func(row string) bool { return slices.Contains(ids, id(row)) }
}

func refused(ids ...string) []RefusedRow {
	out := make([]RefusedRow, 0, len(ids))
	for _, id := range ids {
		out = append(out, RefusedRow{Row: []byte(id), Reason: "BigQuery refused the row: no good"})
	}
	return out
}

func TestStream(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		server *storageServer
		sizes  []int
		want   written
	}{
		{"nothing", &storageServer{}, nil, written{}},
		{"one batch", &storageServer{}, []int{3}, written{Stored: numbers(3), Rows: 3}},
		{"more than may be on their way", &storageServer{}, []int{1, 2, 1, 3, 1, 1, 4, 1, 1}, written{Stored: numbers(15), Rows: 15}},
		{"broken before a request", &storageServer{before: at(codes.Unavailable, 1)}, []int{2, 2, 2}, written{Stored: numbers(6), Rows: 6}},
		{"broken after it was stored", &storageServer{after: at(codes.Unavailable, 0)}, []int{2, 2, 2}, written{Stored: numbers(6), Rows: 6}},
		{"aborted", &storageServer{after: at(codes.Aborted, 2)}, []int{1, 1, 1, 1, 1, 1}, written{Stored: numbers(6), Rows: 6}},
		{"broken at the last", &storageServer{after: at(codes.Internal, 5)}, []int{1, 1, 1, 1, 1, 1}, written{Stored: numbers(6), Rows: 6}},
		{"broken three times in a row", &storageServer{before: at(codes.Unavailable, 0, 1, 2)}, []int{2}, written{Stored: numbers(2), Rows: 2}},
		{"broken for good", &storageServer{before: func(int) error { return status.Error(codes.Unavailable, "down") }}, []int{2}, written{Rows: 2, Err: codes.Unavailable}},
		{"may not", &storageServer{before: at(codes.PermissionDenied, 0)}, []int{2}, written{Rows: 2, Err: codes.PermissionDenied}},
		{
			"an answer that names no row", &storageServer{answer: func(int) *storagepb.AppendRowsResponse { return refusal(codes.InvalidArgument) }},
			[]int{2},
			written{Rows: 2, Err: codes.InvalidArgument},
		},
		{
			"out of order", &storageServer{answer: func(int) *storagepb.AppendRowsResponse { return refusal(codes.OutOfRange) }},
			[]int{2},
			written{Rows: 2, Err: codes.OutOfRange},
		},
		{
			"an answer asks to try again", &storageServer{answer: func(n int) *storagepb.AppendRowsResponse {
				if n == 0 {
					return refusal(codes.Unavailable)
				}
				return nil
			}},
			[]int{1, 1},
			written{Stored: numbers(2), Rows: 2},
		},
		{"one row refused", &storageServer{refuse: refusing("1")}, []int{3, 2}, written{Stored: numbers(5, 1), Refused: refused("1"), Rows: 4}},
		{
			"rows of several batches refused", &storageServer{refuse: refusing("0", "2", "5", "9")},
			[]int{3, 2, 1, 4},
			written{Stored: numbers(10, 0, 2, 5, 9), Refused: refused("0", "2", "5", "9"), Rows: 6},
		},
		{"a whole batch refused", &storageServer{refuse: refusing("2", "3")}, []int{2, 2, 2}, written{Stored: numbers(6, 2, 3), Refused: refused("2", "3"), Rows: 4}},
		{"every row refused", &storageServer{refuse: func(string) bool { return true }}, []int{1, 1, 1, 1, 1}, written{Refused: refused(numbers(5)...)}},
		{
			// What was on its way behind the refused row may yet be stored where it was sent to: nobody knows, so the batch is read again.
			"refused and broken", &storageServer{refuse: refusing("3"), before: at(codes.Unavailable, 2), after: at(codes.Unavailable, 4)},
			[]int{2, 2, 2, 2},
			written{Stored: numbers(2), Rows: 8, Err: codes.Unavailable},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := write(t, test.server, test.sizes...)
			if (err != nil) != (test.want.Err != codes.OK) {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(test.want, got, rowID()); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
		})
	}
}

// rowID compares refused rows by their id, whose JSON holds metadata as well.
func rowID() cmp.Option {
	return cmp.Transformer("id", func(r RefusedRow) string {
		_, rest, found := strings.Cut(string(r.Row), `"id":`)
		if !found {
			return string(r.Row) + " " + r.Reason
		}
		_, rest, _ = strings.Cut(rest, `"`)
		name, _, _ := strings.Cut(rest, `"`)
		return name + " " + r.Reason
	})
}

// TestStreamStoresEachRowOnce whatever breaks and whatever is refused.
func TestStreamStoresEachRowOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 3), 1, 8).Draw(t, "sizes")
		total := 0
		for _, n := range sizes {
			total += n
		}
		bad := rapid.SliceOfDistinct(rapid.IntRange(0, total-1), rapid.ID[int]).Draw(t, "refused")
		slices.Sort(bad)
		breaks := rapid.SliceOfNDistinct(rapid.IntRange(0, 30), 0, maxBreaks, rapid.ID[int]).Draw(t, "breaks")
		s := &storageServer{refuse: func(row string) bool {
			return slices.ContainsFunc(bad, func(n int) bool { return fmt.Sprint(n) == id(row) })
		}}
		if rapid.Bool().Draw(t, "after it is stored") {
			s.after = at(codes.Unavailable, breaks...)
		} else {
			s.before = at(codes.Unavailable, breaks...)
		}
		got, err := write(t, s, sizes...)
		if got.Err == codes.Unavailable && len(bad) > 0 && len(breaks) > 0 {
			return // a break right behind a refused row fails the batch, which is read again
		}
		if err != nil {
			t.Fatal(err)
		}
		want := written{Stored: numbers(total, bad...), Rows: int64(total - len(bad))}
		for _, n := range bad {
			want.Refused = append(want.Refused, refused(fmt.Sprint(n))...)
		}
		if diff := cmp.Diff(want, got, rowID()); diff != "" {
			t.Fatalf("written (-want +got):\n%s", diff)
		}
	})
}

// TestFinishCounts: a stream with a row too few or too many is never handed on
// to be committed.
func TestFinishCounts(t *testing.T) {
	t.Parallel()
	for _, counted := range []int64{-1, 1} {
		if got, err := write(t, &storageServer{counted: counted}, 2, 2); err == nil {
			t.Errorf("a count off by %d was accepted: %+v", counted, got)
		}
	}
}

func TestRowErrorOutOfBatch(t *testing.T) {
	t.Parallel()
	for _, index := range []int64{-1, 2} {
		response := &storagepb.AppendRowsResponse{RowErrors: []*storagepb.RowError{{Index: index}}}
		_, err := write(t, &storageServer{answer: func(int) *storagepb.AppendRowsResponse { return response }}, 2)
		if err == nil {
			t.Errorf("row %d of 2 was refused without an error", index)
		}
	}
}

// TestStreamStopsWithItsContext instead of waiting for an answer that never comes.
func TestStreamStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := &storageServer{}
	s.before = func(int) error { cancel(); return status.Error(codes.Unavailable, "broken") }
	client, closeAll := serve(t, s)
	defer closeAll()
	stream, err := client.NewStream(t.Context(), logTable(), &Buffers{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := fill(ctx, stream, []int{1, 1}); err == nil {
		t.Error("finished after the end of its context")
	}
	if s.connections != 1 {
		t.Errorf("%d connections", s.connections)
	}
}

func TestCommit(t *testing.T) {
	t.Parallel()
	committed := timestamppb.Now()
	fails := func(code storagepb.StorageError_StorageErrorCode) *storagepb.BatchCommitWriteStreamsResponse {
		return &storagepb.BatchCommitWriteStreamsResponse{StreamErrors: []*storagepb.StorageError{{Code: code, Entity: streamName, ErrorMessage: "why"}}}
	}
	tests := []struct {
		name   string
		answer *storagepb.BatchCommitWriteStreamsResponse
		want   string // code of a commit that was not done
	}{
		{"done", &storagepb.BatchCommitWriteStreamsResponse{CommitTime: committed}, ""},
		{"done before", fails(storagepb.StorageError_STREAM_ALREADY_COMMITTED), ""},
		{"not finalized", fails(storagepb.StorageError_INVALID_STREAM_STATE), "INVALID_STREAM_STATE"},
		{"forgotten", fails(storagepb.StorageError_STREAM_NOT_FOUND), "STREAM_NOT_FOUND"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client, closeAll := serve(t, &storageServer{commit: test.answer})
			defer closeAll()
			err := client.Commit(t.Context(), logTable(), Batch{Name: streamName})
			var got *CommitError
			if errors.As(err, &got); (err != nil) != (got != nil) {
				t.Fatalf("error %v", err)
			}
			if refused := test.want != ""; refused != (got != nil) || refused && (got.Name != streamName || !strings.Contains(got.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	t.Run("refused as a call", func(t *testing.T) {
		t.Parallel()
		client, closeAll := serve(t, &storageServer{})
		defer closeAll()
		err := client.Commit(t.Context(), logTable(), Batch{Name: "another stream"})
		var answered *CommitError
		if fault.GRPCCode(err) != codes.InvalidArgument || errors.As(err, &answered) {
			t.Errorf("error %v", err)
		}
	})
}

// TestSettle ends a commit whose outcome is unknown by making it again.
func TestSettle(t *testing.T) {
	t.Parallel()
	already := &storagepb.BatchCommitWriteStreamsResponse{StreamErrors: []*storagepb.StorageError{{Code: storagepb.StorageError_STREAM_ALREADY_COMMITTED, Entity: streamName}}}
	for name, test := range map[string]struct {
		answer *storagepb.BatchCommitWriteStreamsResponse
		want   bool
		fails  bool
	}{
		"it was not committed":         {&storagepb.BatchCommitWriteStreamsResponse{CommitTime: timestamppb.Now()}, true, false},
		"it was":                       {already, true, false},
		"an answer without commitment": {&storagepb.BatchCommitWriteStreamsResponse{}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, closeAll := serve(t, &storageServer{commit: test.answer})
			defer closeAll()
			got, err := client.Settle(t.Context(), logTable(), Batch{Name: streamName, Version: "prefix"})
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("Settle = %t, %v", got, err)
			}
		})
	}
}

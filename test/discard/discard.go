// Package discard is a Storage Write server that checks what it is sent and
// throws it away: offsets without gaps, requests under 10 MB, a schema on each
// connection, whole messages. It measures what the product can send when nothing
// behind it has to store anything.
package discard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Server is a running server.
type Server struct {
	storagepb.UnimplementedBigQueryWriteServer

	listener net.Listener
	server   *grpc.Server
	served   chan error

	mu        sync.Mutex
	streams   map[string]*stream
	committed int64
}

type stream struct {
	rows      int64
	finalized bool
	committed bool
}

// Start listens on a free loopback port.
func Start(ctx context.Context) (*Server, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the discarding server: %w", err)
	}
	s := &Server{listener: listener, server: grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest)), served: make(chan error, 1), streams: map[string]*stream{}}
	storagepb.RegisterBigQueryWriteServer(s.server, s)
	go func() { s.served <- s.server.Serve(listener) }()
	return s, nil
}

// maxRequest is BigQuery's limit for one append.
const maxRequest = 10 << 20

// Host is the address, for BIGQUERY_STORAGE_EMULATOR_HOST.
func (s *Server) Host() string { return s.listener.Addr().String() }

// Committed is how many rows were committed.
func (s *Server) Committed() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed
}

// Close stops the server.
func (s *Server) Close() error {
	s.server.Stop()
	if err := <-s.served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// CreateWriteStream makes a pending stream.
func (s *Server) CreateWriteStream(_ context.Context, r *storagepb.CreateWriteStreamRequest) (*storagepb.WriteStream, error) {
	if r.GetWriteStream().GetType() != storagepb.WriteStream_PENDING {
		return nil, status.Error(codes.Unimplemented, "only pending streams are taken")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := r.GetParent() + "/streams/" + strconv.Itoa(len(s.streams)+1)
	s.streams[name] = &stream{}
	return &storagepb.WriteStream{Name: name, Type: storagepb.WriteStream_PENDING}, nil
}

// AppendRows takes rows.
func (s *Server) AppendRows(call storagepb.BigQueryWrite_AppendRowsServer) error {
	var to *stream
	for {
		r, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if to == nil {
			if to, err = s.open(r); err != nil {
				return err
			}
		}
		rows := r.GetProtoRows().GetRows().GetSerializedRows()
		if err := s.take(to, r.GetOffset().GetValue(), rows); err != nil {
			return err
		}
		if err := call.Send(&storagepb.AppendRowsResponse{Response: &storagepb.AppendRowsResponse_AppendResult_{
			AppendResult: &storagepb.AppendRowsResponse_AppendResult{Offset: wrapperspb.Int64(r.GetOffset().GetValue())},
		}}); err != nil {
			return err
		}
	}
}

func (s *Server) open(first *storagepb.AppendRowsRequest) (*stream, error) {
	if len(first.GetProtoRows().GetWriterSchema().GetProtoDescriptor().GetField()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the first request has no schema")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.streams[first.GetWriteStream()]
	if to == nil || !strings.Contains(first.GetWriteStream(), "/streams/") {
		return nil, status.Errorf(codes.NotFound, "there is no stream %q", first.GetWriteStream())
	}
	return to, nil
}

func (s *Server) take(to *stream, offset int64, rows [][]byte) error {
	if len(rows) == 0 {
		return status.Error(codes.InvalidArgument, "a request without rows")
	}
	for _, row := range rows {
		if !whole(row) {
			return status.Error(codes.InvalidArgument, "a row is no protocol buffer message")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if to.finalized || offset != to.rows {
		return status.Errorf(codes.OutOfRange, "offset %d, want %d (finalized %t)", offset, to.rows, to.finalized)
	}
	to.rows += int64(len(rows))
	return nil
}

// whole walks the message's fields.
func whole(row []byte) bool {
	for len(row) > 0 {
		number, typ, tag := protowire.ConsumeTag(row)
		if tag < 0 {
			return false
		}
		n := protowire.ConsumeFieldValue(number, typ, row[tag:])
		if n < 0 {
			return false
		}
		row = row[tag+n:]
	}
	return true
}

// FinalizeWriteStream ends a stream.
func (s *Server) FinalizeWriteStream(_ context.Context, r *storagepb.FinalizeWriteStreamRequest) (*storagepb.FinalizeWriteStreamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.streams[r.GetName()]
	if to == nil {
		return nil, status.Errorf(codes.NotFound, "there is no stream %q", r.GetName())
	}
	to.finalized = true
	return &storagepb.FinalizeWriteStreamResponse{RowCount: to.rows}, nil
}

// BatchCommitWriteStreams counts the rows of finalized streams.
func (s *Server) BatchCommitWriteStreams(_ context.Context, r *storagepb.BatchCommitWriteStreamsRequest) (*storagepb.BatchCommitWriteStreamsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range r.GetWriteStreams() {
		to := s.streams[name]
		if to == nil || !to.finalized || to.committed {
			return nil, status.Errorf(codes.FailedPrecondition, "stream %q cannot be committed", name)
		}
		to.committed = true
		s.committed += to.rows
	}
	return &storagepb.BatchCommitWriteStreamsResponse{CommitTime: timestamppb.Now()}, nil
}

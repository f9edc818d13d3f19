package warehouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	storage "cloud.google.com/go/bigquery/storage/apiv1"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

const (
	// requestBytes is the size of one append: the 1 MB BigQuery asks for, well
	// under the 10 MB it allows.
	requestBytes = 1 << 20
	// inFlight is how many appends may await their answer, and with
	// requestBytes the memory a stream needs (I11).
	inFlight = 4
)

// Stream is a stream of the Storage Write API being filled. It drives the append
// protocol itself, so that a refused row costs that row only. Nothing in a pending
// stream can be read until it is committed, and every request carries its offset, so
// that one sent again after a broken connection is stored once. The default stream has
// neither: see cdc.go.
type Stream struct {
	client     *storage.BigQueryWriteClient
	name       string
	pending    bool
	descriptor *descriptorpb.DescriptorProto

	conn    *connection
	offset  int64     // of the next request
	sent    []request // awaiting their answers, in order of offset
	buffers *Buffers
	refused []RefusedRow
	breaks  int // connections lost since the last answer
}

type request struct {
	batch  *rowwire.Batch
	offset int64
}

// RefusedRow is a row that BigQuery did not take although its values looked
// right: what was sent, and why not.
type RefusedRow struct {
	Row    json.RawMessage
	Reason string
}

// Buffers are the batches of one run: each of its streams uses those of the one
// before, so that memory does not follow the number of streams (I11). They are
// for one goroutine; the zero value is empty.
type Buffers struct{ free []*rowwire.Batch }

// Take returns an empty batch.
func (b *Buffers) Take() *rowwire.Batch {
	if n := len(b.free); n > 0 {
		batch := b.free[n-1]
		b.free = b.free[:n-1]
		return batch
	}
	return new(rowwire.Batch)
}

// Give takes a batch back that nobody uses any more.
func (b *Buffers) Give(batch *rowwire.Batch) { b.free = append(b.free, batch) }

// NewStream creates a pending stream on the table that the mode writes to.
func (c *Client) NewStream(ctx context.Context, t *Table, buffers *Buffers) (*Stream, error) {
	client, err := c.writeClient(ctx)
	if err != nil {
		return nil, err
	}
	ws, err := client.CreateWriteStream(ctx, &storagepb.CreateWriteStreamRequest{
		Parent:      c.parent(t),
		WriteStream: &storagepb.WriteStream{Type: storagepb.WriteStream_PENDING},
	})
	if err != nil {
		return nil, fmt.Errorf("creating a write stream on %s: %w", t.streamName(), err)
	}
	return &Stream{client: client, name: ws.GetName(), pending: true, descriptor: descriptorOf(t.Columns, t.Mode), buffers: buffers}, nil
}

func (c *Client) parent(t *Table) string {
	return fmt.Sprintf("projects/%s/datasets/%s/tables/%s", c.config.Project, t.Dataset, t.streamName())
}

// Name identifies the stream for Commit and Settle, in this process or a later one; it
// is empty where there is nothing to commit.
func (s *Stream) Name() string {
	if !s.pending {
		return ""
	}
	return s.name
}

// Append sends a batch and returns an empty one. Up to inFlight batches are on
// their way; the error of one may come with a later call.
func (s *Stream) Append(ctx context.Context, b *rowwire.Batch) (*rowwire.Batch, error) {
	r := request{b, s.offset}
	s.sent = append(s.sent, r)
	s.offset += int64(len(b.Rows))
	if err := s.send(ctx, r); err != nil {
		return nil, err
	}
	if len(s.sent) >= inFlight {
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
	}
	return s.buffers.Take(), nil
}

// send passes a request to the connection. Where that is broken, settle learns
// why from its answers, and sends again.
func (s *Stream) send(ctx context.Context, r request) error {
	message := &storagepb.AppendRowsRequest{
		Rows: &storagepb.AppendRowsRequest_ProtoRows{ProtoRows: &storagepb.AppendRowsRequest_ProtoData{
			Rows: &storagepb.ProtoRows{SerializedRows: r.batch.Rows},
		}},
	}
	if s.pending {
		message.Offset = wrapperspb.Int64(r.offset)
	}
	if s.conn == nil {
		conn, err := connect(ctx, s.client, s.name)
		if err != nil {
			return err
		}
		s.conn = conn
		message.WriteStream = s.name
		message.GetProtoRows().WriterSchema = &storagepb.ProtoSchema{ProtoDescriptor: s.descriptor}
	}
	if err := s.conn.calls.Send(message); err != nil && !errors.Is(err, io.EOF) { // EOF: the reason is in the answer
		return fmt.Errorf("appending rows from %d: %w", r.offset, err)
	}
	return nil
}

// maxBreaks is how often in a row a connection may be lost before the batch is.
const maxBreaks = 3

// settle waits for the answer to the oldest request.
func (s *Stream) settle(ctx context.Context) error {
	oldest := s.sent[0]
	answer, err := s.conn.answer(ctx)
	if err == nil {
		if rows := answer.GetRowErrors(); len(rows) > 0 {
			if err := s.leaveOut(rows); err != nil {
				return err
			}
			if err := s.drain(ctx); err != nil {
				return err
			}
			return s.resend(ctx)
		}
		if status := answer.GetError(); status != nil {
			err = appendError(grpcstatus.FromProto(status))
		}
	}
	code := fault.GRPCCode(err)
	switch {
	case err == nil, code == codes.AlreadyExists: // stored, by this or an earlier attempt
		s.breaks = 0
		s.sent = s.sent[1:]
		s.buffers.Give(oldest.batch)
		return nil
	case s.breaks < maxBreaks && ctx.Err() == nil && (code == codes.Unavailable || code == codes.Aborted || code == codes.Internal || errors.Is(err, io.EOF)):
		s.breaks++
		return s.resend(ctx)
	}
	return fmt.Errorf("appending rows from %d: %w", oldest.offset, err)
}

// drain waits until the server has answered everything on the connection. Only
// then may offsets be given to other rows: a request still on its way would take
// the place of what is sent at its offset later, and count as it.
func (s *Stream) drain(ctx context.Context) error {
	for range s.sent[1:] {
		answer, err := s.conn.answer(ctx)
		switch code := fault.GRPCCode(err); {
		case errors.Is(err, io.EOF), code == codes.InvalidArgument, code == codes.OutOfRange:
			return nil // the server has ended the call: it looks at none of them any more
		case err != nil:
			return fmt.Errorf("waiting for what follows a refused row: %w", err)
		}
		if s.pending && answer.GetAppendResult() != nil {
			return errors.New("BigQuery stored rows past a gap")
		}
	}
	return nil
}

// appendError tells a schema that BigQuery does not know yet from one that is
// wrong: the Storage Write API learns of new columns within minutes.
func appendError(status *grpcstatus.Status) error {
	for _, detail := range status.Details() {
		if e, ok := detail.(*storagepb.StorageError); ok && e.GetCode() == storagepb.StorageError_SCHEMA_MISMATCH_EXTRA_FIELDS {
			return &fault.Error{Class: fault.Transient, Remedy: "BigQuery takes some minutes to take values of new columns", Err: status.Err()}
		}
	}
	return status.Err()
}

// resend opens a new connection and sends what is unanswered again, at offsets
// without gaps.
func (s *Stream) resend(ctx context.Context) error {
	s.conn.close()
	s.conn = nil
	offset := s.sent[0].offset
	for i := range s.sent {
		s.sent[i].offset = offset
		offset += int64(len(s.sent[i].batch.Rows))
		if len(s.sent[i].batch.Rows) == 0 { // every row of it was refused
			continue
		}
		if err := s.send(ctx, s.sent[i]); err != nil {
			return err
		}
	}
	s.offset = offset
	s.sent = slices.DeleteFunc(s.sent, func(r request) bool {
		if len(r.batch.Rows) > 0 {
			return false
		}
		s.buffers.Give(r.batch)
		return true
	})
	return nil
}

// leaveOut takes the rows BigQuery names out of the oldest batch (I7).
func (s *Stream) leaveOut(rows []*storagepb.RowError) error {
	batch := s.sent[0].batch
	gone := map[int64]bool{}
	for _, r := range rows {
		if r.GetIndex() < 0 || r.GetIndex() >= int64(len(batch.Rows)) {
			return fmt.Errorf("appending rows: BigQuery refuses row %d of %d", r.GetIndex(), len(batch.Rows))
		}
		gone[r.GetIndex()] = true
		row, err := decodeRow(s.descriptor, batch.Rows[r.GetIndex()])
		if err != nil {
			return err
		}
		s.refused = append(s.refused, RefusedRow{row, "BigQuery refused the row: " + r.GetMessage()})
	}
	kept := batch.Rows[:0]
	for i, row := range batch.Rows {
		if !gone[int64(i)] {
			kept = append(kept, row)
		}
	}
	batch.Rows = kept
	return nil
}

// Finish waits for every append and closes the stream for further ones. The
// rows are durable from here on, and invisible until Commit. It returns the rows
// BigQuery refused; all others are in the stream, Rows of them.
func (s *Stream) Finish(ctx context.Context) ([]RefusedRow, error) {
	for len(s.sent) > 0 {
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
	}
	if !s.pending {
		return s.refused, nil
	}
	response, err := s.client.FinalizeWriteStream(ctx, &storagepb.FinalizeWriteStreamRequest{Name: s.name})
	if err != nil {
		return nil, fmt.Errorf("finalizing the stream: %w", err)
	}
	if rows := response.GetRowCount(); rows != s.offset { // a row lost on the way must never be committed
		return nil, fmt.Errorf("finalizing the stream: BigQuery counts %d rows, %d were sent", rows, s.offset)
	}
	return s.refused, nil
}

// Rows is how many rows the stream holds.
func (s *Stream) Rows() int64 { return s.offset }

// Close frees the connection; a stream that was not committed is forgotten by
// BigQuery within a day.
func (s *Stream) Close() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

package warehouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"google.golang.org/grpc/codes"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

const (
	// requestBytes is the size of one append: well over the 1 MB BigQuery asks
	// for, well under the 10 MB it allows.
	requestBytes = 2 << 20
	// inFlight is how many appends may await their answer, and with
	// requestBytes the memory a stream needs (I11).
	inFlight = 4
)

// Stream is a pending stream being filled: nothing in it can be read until it
// is committed.
type Stream struct {
	client *managedwriter.Client
	ms     *managedwriter.ManagedStream
	name   string
	offset int64
	sent   []appended // awaiting their answers, in order of offset
	free   []*rowwire.Batch
}

type appended struct {
	batch  *rowwire.Batch
	offset int64
	result *managedwriter.AppendResult
}

// NewStream creates a pending stream on the table's log.
func (c *Client) NewStream(ctx context.Context, t *Table) (*Stream, error) {
	client, err := c.writeClient(ctx)
	if err != nil {
		return nil, err
	}
	ws, err := client.CreateWriteStream(ctx, &storagepb.CreateWriteStreamRequest{
		Parent:      c.parent(t),
		WriteStream: &storagepb.WriteStream{Type: storagepb.WriteStream_PENDING},
	})
	if err != nil {
		return nil, fmt.Errorf("creating a write stream on %s: %w", t.LogName(), err)
	}
	descriptor := descriptorOf(t.Columns)
	ms, err := client.NewManagedStream(ctx, managedwriter.WithStreamName(ws.GetName()), managedwriter.WithType(managedwriter.PendingStream),
		managedwriter.WithSchemaDescriptor(descriptor), managedwriter.WithMaxInflightRequests(inFlight))
	if err != nil {
		return nil, fmt.Errorf("opening the write stream: %w", err)
	}
	return &Stream{client: client, ms: ms, name: ws.GetName()}, nil
}

func (c *Client) parent(t *Table) string {
	return fmt.Sprintf("projects/%s/datasets/%s/tables/%s", c.config.Project, t.Dataset, t.LogName())
}

// Name identifies the stream for Commit and Committed, in this process or a later one.
func (s *Stream) Name() string { return s.name }

// Append sends a batch and returns an empty one. Up to inFlight batches are on
// their way; the error of one may come with a later call.
func (s *Stream) Append(ctx context.Context, b *rowwire.Batch) (*rowwire.Batch, error) {
	result, err := s.ms.AppendRows(ctx, b.Rows, managedwriter.WithOffset(s.offset))
	if err != nil {
		return nil, fmt.Errorf("appending %d rows: %w", len(b.Rows), err)
	}
	s.sent = append(s.sent, appended{b, s.offset, result})
	s.offset += int64(len(b.Rows))
	if len(s.sent) >= inFlight {
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
	}
	if n := len(s.free); n > 0 {
		b = s.free[n-1]
		s.free = s.free[:n-1]
		return b, nil
	}
	return new(rowwire.Batch), nil
}

// settle waits for the oldest append.
func (s *Stream) settle(ctx context.Context) error {
	oldest := s.sent[0]
	response, err := oldest.result.FullResponse(ctx)
	if rows := response.GetRowErrors(); len(rows) > 0 {
		return fault.Fix(fmt.Errorf("BigQuery refused row %d of the batch: %s", oldest.offset+rows[0].GetIndex(), rows[0].GetMessage()),
			"correct the row in the source")
	}
	// An append that is answered "already exists" was stored by an earlier attempt.
	if err != nil && fault.GRPCCode(err) != codes.AlreadyExists {
		return fmt.Errorf("appending rows from %d: %w", oldest.offset, err)
	}
	s.sent = s.sent[1:]
	s.free = append(s.free, oldest.batch)
	return nil
}

// Finish waits for every append and closes the stream for further ones. The
// rows are durable from here on, and invisible until Commit.
func (s *Stream) Finish(ctx context.Context) error {
	for len(s.sent) > 0 {
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
	rows, err := s.ms.Finalize(ctx)
	if err != nil {
		return fmt.Errorf("finalizing the stream: %w", err)
	}
	if rows != s.offset { // a row lost on the way must never be committed
		return fmt.Errorf("finalizing the stream: BigQuery counts %d rows, %d were sent", rows, s.offset)
	}
	return nil
}

// Close frees the connection; a stream that was not committed is forgotten by
// BigQuery within a day.
func (s *Stream) Close() error {
	if err := s.ms.Close(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("closing the stream: %w", err)
	}
	return nil
}

// Commit makes a finished stream visible, all of it at once. Committing a
// stream that is committed already is no error.
func (c *Client) Commit(ctx context.Context, t *Table, stream string) error {
	client, err := c.writeClient(ctx)
	if err != nil {
		return err
	}
	response, err := client.BatchCommitWriteStreams(ctx, &storagepb.BatchCommitWriteStreamsRequest{Parent: c.parent(t), WriteStreams: []string{stream}})
	if err != nil {
		return fmt.Errorf("committing the stream: %w", err)
	}
	for _, e := range response.GetStreamErrors() { // not an RPC error
		if e.GetCode() != storagepb.StorageError_STREAM_ALREADY_COMMITTED {
			return &CommitError{Stream: stream, Code: e.GetCode().String(), Message: e.GetErrorMessage()}
		}
	}
	return nil
}

// CommitError is a commit that BigQuery answered and did not do.
type CommitError struct{ Stream, Code, Message string }

func (e *CommitError) Error() string {
	return fmt.Sprintf("committing the stream: %s: %s", e.Code, e.Message)
}

// Committed finds out what became of a stream: whether its rows are in the log.
// Where BigQuery no longer knows the stream, the log itself answers, since the
// version prefix belongs to that one batch (I4).
func (c *Client) Committed(ctx context.Context, t *Table, stream, versionPrefix string) (bool, error) {
	client, err := c.writeClient(ctx)
	if err != nil {
		return false, err
	}
	ws, err := client.GetWriteStream(ctx, &storagepb.GetWriteStreamRequest{Name: stream})
	switch {
	case err == nil:
		return ws.GetCommitTime() != nil, nil
	case fault.GRPCCode(err) != codes.NotFound:
		return false, fmt.Errorf("looking up the stream: %w", err)
	}
	rest, err := c.restClient(ctx)
	if err != nil {
		return false, err
	}
	q := rest.Query(fmt.Sprintf("SELECT EXISTS (SELECT 1 FROM %s WHERE STARTS_WITH(%s, @prefix))", c.path(t.Dataset, t.LogName()), quote(VersionColumn)))
	q.Parameters = []bigquery.QueryParameter{{Name: "prefix", Value: versionPrefix}}
	var found bool
	if err := queryRow(ctx, q, &found); err != nil {
		return false, fmt.Errorf("looking for the batch in the log: %w", err)
	}
	return found, nil
}

// StreamingWindow is what BigQuery accepts as a stream into time partitions: ten
// years back to one year ahead. (BigQuery: Storage Write API, partitioned tables.)
func StreamingWindow(now time.Time) (earliest, latest time.Time) {
	return now.AddDate(-10, 0, 0), now.AddDate(1, 0, 0)
}

package warehouse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"cloud.google.com/go/bigquery"
	storage "cloud.google.com/go/bigquery/storage/apiv1"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Result is the result of a query, kept by BigQuery as it was when the query
// ended: reading it twice gives the same rows.
type Result struct {
	Schema *arrow.Schema
	Job    string
	Bytes  int64 // processed

	schema  []byte // serialized, as every record batch needs it
	streams []string
	reader  *storage.BigQueryReadClient
}

// Query runs a query to its end. dataset is where unqualified tables are
// looked up. A result that comes with an error says what ran.
func (c *Client) Query(ctx context.Context, dataset, sql string, labels map[string]string) (*Result, error) {
	client, err := c.restClient(ctx)
	if err != nil {
		return nil, err
	}
	q := client.Query(sql)
	q.DefaultProjectID, q.DefaultDatasetID = c.config.Project, dataset
	q.Labels = labels
	job, err := q.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("starting the query: %w", err)
	}
	status, err := finish(ctx, job, fault.Permanent)
	if err != nil {
		return nil, fmt.Errorf("running the query: %w", err)
	}
	r := &Result{Job: job.ID(), Bytes: status.Statistics.TotalBytesProcessed}
	// Where the result is stands in the job once it has ended.
	ended, err := client.JobFromIDLocation(ctx, job.ID(), job.Location())
	if err != nil {
		return r, fmt.Errorf("reading the job: %w", err)
	}
	config, err := ended.Config()
	if err != nil {
		return r, fmt.Errorf("reading the job: %w", err)
	}
	queried, ok := config.(*bigquery.QueryConfig)
	if !ok || queried.Dst == nil {
		return r, fault.Fix(errors.New("the statement has no result"), "write one SELECT")
	}
	return r, c.openRead(ctx, r, queried.Dst)
}

// maxStreams bounds what a result is read in: each stream holds a buffer.
const maxStreams = 4

func (c *Client) openRead(ctx context.Context, r *Result, table *bigquery.Table) error {
	reader, err := c.readClient(ctx)
	if err != nil {
		return err
	}
	session, err := reader.CreateReadSession(ctx, &storagepb.CreateReadSessionRequest{
		Parent: "projects/" + c.config.Project,
		ReadSession: &storagepb.ReadSession{
			Table:      fmt.Sprintf("projects/%s/datasets/%s/tables/%s", table.ProjectID, table.DatasetID, table.TableID),
			DataFormat: storagepb.DataFormat_ARROW,
		},
		MaxStreamCount: maxStreams,
	})
	if err != nil {
		return fmt.Errorf("opening the result: %w", err)
	}
	r.reader, r.schema = reader, session.GetArrowSchema().GetSerializedSchema()
	for _, stream := range session.GetStreams() {
		r.streams = append(r.streams, stream.GetName())
	}
	schema, err := ipc.NewReader(bytes.NewReader(r.schema))
	if err != nil {
		return fmt.Errorf("reading the result's schema: %w", err)
	}
	defer schema.Release()
	r.Schema = schema.Schema()
	return nil
}

// Each calls f with every record batch of the result. A batch is valid only
// during the call. An interrupted stream is resumed where it stopped.
func (r *Result) Each(ctx context.Context, f func(arrow.Record) error) error {
	for _, stream := range r.streams {
		if err := r.readStream(ctx, stream, f); err != nil {
			return fmt.Errorf("reading the result: %w", err)
		}
	}
	return nil
}

// resumptions is how often one stream may be resumed without a row in between.
const resumptions = 5

func (r *Result) readStream(ctx context.Context, stream string, f func(arrow.Record) error) error {
	var offset int64
	for failures := 0; ; {
		before := offset
		err := r.readFrom(ctx, stream, &offset, f)
		if err == nil {
			return nil
		}
		if offset > before {
			failures = 0
		}
		failures++
		if code := fault.GRPCCode(err); failures > resumptions || code != codes.Unavailable && code != codes.Internal && code != codes.Aborted || ctx.Err() != nil {
			return err
		}
	}
}

func (r *Result) readFrom(ctx context.Context, stream string, offset *int64, f func(arrow.Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	responses, err := r.reader.ReadRows(ctx, &storagepb.ReadRowsRequest{ReadStream: stream, Offset: *offset})
	if err != nil {
		return fmt.Errorf("opening %s: %w", stream, err)
	}
	for {
		response, err := responses.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receiving rows: %w", err)
		}
		rows, err := r.decode(response.GetArrowRecordBatch().GetSerializedRecordBatch(), f)
		if err != nil {
			return err
		}
		if rows != response.GetRowCount() {
			return fmt.Errorf("decoding rows: %d of %d were there", rows, response.GetRowCount())
		}
		*offset += rows
	}
}

// decode returns how many rows the batch had.
func (r *Result) decode(batch []byte, f func(arrow.Record) error) (rows int64, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	reader, err := ipc.NewReader(io.MultiReader(bytes.NewReader(r.schema), bytes.NewReader(batch)), ipc.WithSchema(r.Schema))
	if err != nil {
		return 0, fmt.Errorf("decoding rows: %w", err)
	}
	defer reader.Release()
	for reader.Next() {
		if err := f(reader.Record()); err != nil {
			return rows, err
		}
		rows += reader.Record().NumRows()
	}
	if err := reader.Err(); err != nil && !errors.Is(err, io.EOF) {
		return rows, fmt.Errorf("decoding rows: %w", err)
	}
	return rows, nil
}

// queryRow runs a query with one row of one column.
func queryRow[T any](ctx context.Context, q *bigquery.Query, out *T) error {
	job, err := q.Run(ctx)
	if err != nil {
		return err
	}
	if _, err := finish(ctx, job, fault.Permanent); err != nil {
		return err
	}
	read, err := oneValue(ctx, job)
	if err != nil {
		return err
	}
	value, ok := read.(T)
	if !ok {
		return fmt.Errorf("unexpected value of type %T", read)
	}
	*out = value
	return nil
}

// oneValue is the result of a query that has ended, with one row of one column.
func oneValue(ctx context.Context, job *bigquery.Job) (bigquery.Value, error) {
	rows, err := job.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the result: %w", err)
	}
	var values []bigquery.Value
	err = rows.Next(&values)
	if errors.Is(err, iterator.Done) {
		return nil, errors.New("no row")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the result: %w", err)
	}
	return values[0], nil
}

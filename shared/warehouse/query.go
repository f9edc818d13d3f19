package warehouse

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

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
	Schema *arrow.Schema // of the records
	Job    string
	Bytes  int64 // processed, for this result and by Confirm
	Whole  bool  // of Select: every row of the source is in it

	wire    *arrow.Schema // of what is received
	schema  []byte        // of that, serialized, as every record batch needs it
	streams []string
	reader  *storage.BigQueryReadClient

	cursor *cursorRead     // of Select by a cursor
	next   json.RawMessage // of Select otherwise
	plan   *plan           // of Select by a ledger
}

// Query runs a query to its end. dataset is where unqualified tables are
// looked up. A result that comes with an error says what ran.
func (c *Client) Query(ctx context.Context, dataset, sql string, labels map[string]string) (*Result, error) {
	r, _, err := c.query(ctx, statement{dataset: dataset, sql: sql, labels: labels})
	return r, err
}

// statement is one to send, in the words of this package.
type statement struct {
	project    string // where tables are that no project is named of; "": ours
	dataset    string // where unqualified tables are
	sql        string
	parameters []bigquery.QueryParameter
	labels     map[string]string
}

func (c *Client) prepare(ctx context.Context, s statement) (*bigquery.Query, error) {
	client, err := c.restClient(ctx)
	if err != nil {
		return nil, err
	}
	q := client.Query(s.sql)
	q.DefaultProjectID, q.DefaultDatasetID = cmp.Or(s.project, c.config.Project), s.dataset
	q.Parameters, q.Labels = s.parameters, s.labels
	return q, nil
}

// query runs a statement that has a result, and opens that.
func (c *Client) query(ctx context.Context, s statement) (*Result, ran, error) {
	done, err := c.run(ctx, s, "query", fault.Permanent)
	r := done.result()
	if refused, ok := errors.AsType[*bigquery.Error](err); ok && refused.Reason == "responseTooLarge" {
		err = fault.Fix(err, "the result is over BigQuery's 10 GB: read less of it at a time, or by changes: ledger, for which there is no limit")
	}
	if err != nil {
		return r, done, err
	}
	// Where the result is stands in the job once it has ended.
	client, err := c.restClient(ctx)
	if err != nil {
		return r, done, err
	}
	ended, err := client.JobFromIDLocation(ctx, done.job.ID(), done.job.Location())
	if err != nil {
		return r, done, fmt.Errorf("reading the job: %w", err)
	}
	config, err := ended.Config()
	if err != nil {
		return r, done, fmt.Errorf("reading the job: %w", err)
	}
	queried, ok := config.(*bigquery.QueryConfig)
	if !ok || queried.Dst == nil {
		return r, done, fault.Fix(errors.New("the statement has no result"), oneSelect)
	}
	return r, done, c.openRead(ctx, r, queried.Dst, nil)
}

// oneSelect is the remedy of what is no query.
const oneSelect = "write one SELECT"

// ran is a job that ran: its job is nil where none was started, its status where it is
// not known how it ended.
type ran struct {
	job    *bigquery.Job
	status *bigquery.JobStatus
}

// result says what ran, and has no rows yet.
func (r ran) result() *Result {
	if r.job == nil {
		return nil
	}
	out := &Result{Job: r.job.ID()}
	if r.status != nil && r.status.Statistics != nil {
		out.Bytes = r.status.Statistics.TotalBytesProcessed
	}
	return out
}

// run runs a statement to its end, in a job of the kind whose id nobody else has: one
// that BigQuery took without our hearing of it is found again by that. invalid is the
// class of a statement that BigQuery calls invalid once it runs.
func (c *Client) run(ctx context.Context, s statement, kind string, invalid fault.Class) (ran, error) {
	q, err := c.prepare(ctx, s)
	if err != nil {
		return ran{}, err
	}
	q.JobID = "tidemark_" + kind + "_" + rand.Text()
	job, err := q.Run(ctx)
	if fault.HTTPStatus(err) == http.StatusConflict {
		job, err = c.started(ctx, q.JobID)
	}
	if err != nil {
		return ran{}, fmt.Errorf("starting the query: %w", err)
	}
	status, err := finish(ctx, job, invalid)
	if err != nil {
		return ran{job, status}, fmt.Errorf("running the query: %w", err)
	}
	return ran{job, status}, nil
}

// maxStreams bounds what a result is read in: each stream holds a buffer.
const maxStreams = 4

// openRead opens a table as the rows of the result: the given columns, or all.
func (c *Client) openRead(ctx context.Context, r *Result, table *bigquery.Table, columns []string) error {
	reader, err := c.readClient(ctx)
	if err != nil {
		return err
	}
	session, err := reader.CreateReadSession(ctx, &storagepb.CreateReadSessionRequest{
		Parent: "projects/" + c.config.Project,
		ReadSession: &storagepb.ReadSession{
			Table:       fmt.Sprintf("projects/%s/datasets/%s/tables/%s", table.ProjectID, table.DatasetID, table.TableID),
			DataFormat:  storagepb.DataFormat_ARROW,
			ReadOptions: &storagepb.ReadSession_TableReadOptions{SelectedFields: columns},
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
	r.wire = schema.Schema()
	r.Schema = r.wire
	return nil
}

// Each calls f with every record batch of the result. A batch is valid only
// during the call. An interrupted stream is resumed where it stopped.
func (r *Result) Each(ctx context.Context, f func(arrow.Record) error) error {
	if r.cursor != nil {
		f = r.cursor.watch(r.Schema, f)
	}
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
	reader, err := ipc.NewReader(io.MultiReader(bytes.NewReader(r.schema), bytes.NewReader(batch)), ipc.WithSchema(r.wire))
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

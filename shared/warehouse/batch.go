package warehouse

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Sink takes the rows of one batch. None of them is seen before Commit, unless the mode
// is CDC, whose rows are there as they come.
type Sink interface {
	// Append takes a batch of rows and returns an empty one.
	Append(ctx context.Context, rows *rowwire.Batch) (*rowwire.Batch, error)
	// Finish makes every row durable and returns those that BigQuery refused. No row is
	// taken after it.
	Finish(ctx context.Context) ([]RefusedRow, error)
	// Name identifies what Finish made, for Commit and Settle, in this process or a later
	// one; it is empty where there is nothing to commit.
	Name() string
	// Rows is how many rows are in it.
	Rows() int64
	// Close frees what the sink holds. What was not committed is forgotten within a day.
	Close()
}

// Open returns a sink for a batch of the table, whose rows Layout(.., loaded) has
// encoded. loaded sends it by way of the staging bucket.
func (c *Client) Open(ctx context.Context, t *Table, loaded bool, buffers *Buffers) (Sink, error) {
	switch {
	case loaded || !t.ByStream():
		return c.newLoad(ctx, t)
	case t.Mode == CDC:
		return c.defaultStream(ctx, t, buffers)
	}
	return c.NewStream(ctx, t, buffers)
}

// Batch is all that has to be known of a finished batch to commit it.
type Batch struct {
	Name       string    // of its sink
	Version    string    // the part of _version that its rows share, and no others
	At         time.Time // their _synced_at
	Partitions []string  // that its rows belong to, as Layout.Partition has their ids
	Backfilled bool      // it may hold rows that have been deleted since
	Labels     map[string]string
}

// loaded reports whether the batch is in the staging bucket.
func (b *Batch) loaded() bool { return strings.HasPrefix(b.Name, bucketScheme) }

// CommitError is a commit that BigQuery answered and did not do: the batch can be
// forgotten, and its rows read again.
type CommitError struct {
	Name string
	Err  error
}

func (e *CommitError) Error() string { return "committing the batch: " + e.Err.Error() }

// Unwrap returns why.
func (e *CommitError) Unwrap() error { return e.Err }

// Commit makes a finished batch visible, all of it at once. A batch that is committed
// already is no error. A *CommitError says that it certainly is not.
func (c *Client) Commit(ctx context.Context, t *Table, b Batch) error {
	if b.loaded() {
		return c.load(ctx, t, b)
	}
	if err := c.commitStream(ctx, t, b.Name); err != nil || t.Mode != Merge {
		return err
	}
	return c.merge(ctx, t, b)
}

// Settle brings a commit whose outcome is unknown to an end: the batch is complete, so
// it is committed again, which BigQuery does once. It reports whether the rows are in
// the table. Where BigQuery no longer knows the stream the table itself answers, since
// the version prefix belongs to that one batch (I4).
func (c *Client) Settle(ctx context.Context, t *Table, b Batch) (bool, error) {
	var refused *CommitError
	if b.loaded() {
		err := c.load(ctx, t, b)
		if errors.As(err, &refused) {
			return false, nil
		}
		return err == nil, err
	}
	err := c.commitStream(ctx, t, b.Name)
	gone := errors.As(err, &refused) || fault.GRPCCode(err) == codes.NotFound
	if err != nil && !gone {
		return false, err
	}
	if gone || t.Mode == Merge { // what was staged is not kept for ever
		if found, err := c.has(ctx, t, b.Version); err != nil || !found {
			return false, err
		}
	}
	if t.Mode == Merge {
		err := c.merge(ctx, t, b)
		if errors.As(err, &refused) {
			return false, nil
		}
		return err == nil, err
	}
	return true, nil
}

// commitTimeout is under a lease's expiry, so that nobody else can hold the lease while
// a commit of ours may still be carried out (I5).
const commitTimeout = 20 * time.Second

func (c *Client) commitStream(ctx context.Context, t *Table, stream string) error {
	client, err := c.writeClient(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	response, err := client.BatchCommitWriteStreams(ctx, &storagepb.BatchCommitWriteStreamsRequest{Parent: c.parent(t), WriteStreams: []string{stream}})
	if err != nil {
		return fmt.Errorf("committing the stream: %w", err)
	}
	for _, e := range response.GetStreamErrors() { // not an RPC error
		if e.GetCode() != storagepb.StorageError_STREAM_ALREADY_COMMITTED {
			return &CommitError{Name: stream, Err: fmt.Errorf("%s: %s", e.GetCode(), e.GetErrorMessage())}
		}
	}
	if len(response.GetStreamErrors()) == 0 && response.GetCommitTime() == nil {
		return errors.New("committing the stream: BigQuery answered without a commit time")
	}
	return nil
}

// has looks for rows of a batch in the table that its stream went to.
func (c *Client) has(ctx context.Context, t *Table, versionPrefix string) (bool, error) {
	rest, err := c.restClient(ctx)
	if err != nil {
		return false, err
	}
	q := rest.Query(fmt.Sprintf("SELECT EXISTS (SELECT 1 FROM %s WHERE STARTS_WITH(%s, @prefix))", c.path(t.Dataset, t.streamName()), quote(VersionColumn)))
	q.Parameters = []bigquery.QueryParameter{{Name: "prefix", Value: versionPrefix}}
	var found bool
	err = queryRow(ctx, q, &found)
	if fault.HTTPStatus(err) == http.StatusNotFound {
		return false, nil // nor is there a table that could have the rows
	}
	if err != nil {
		return false, fmt.Errorf("looking for the batch in %s: %w", t.streamName(), err)
	}
	return found, nil
}

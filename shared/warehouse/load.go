package warehouse

import (
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/storage"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// A batch that is loaded goes to the staging bucket as newline-delimited JSON, in
// shards, and from there by one load job, which BigQuery does whole or not at all (I6).
// Replace has it take the place of all rows; the key and the options of the table stay.
// (BigQuery: WRITE_TRUNCATE_DATA.)

const (
	bucketScheme = "gs://"
	// shardBytes is the size of a shard before it is compressed: BigQuery reads shards
	// in parallel, and of a compressed file 4 GB at most.
	shardBytes = 256 << 20
	// maxShards is what one load job takes.
	maxShards = 10_000
	// uploadBytes is what of a shard is held in memory until it is sent (I11).
	uploadBytes = 2 << 20
	// LoadsPerDay is how many load jobs BigQuery allows a table in a day, failed ones
	// included.
	LoadsPerDay = 1500
)

// errNoBucket refuses to load without a place to load from.
var errNoBucket = fault.Fix(errors.New("there is no staging bucket"), "set TIDEMARK_STAGING_BUCKET")

// CanLoad reports whether there is a bucket to load from.
func (c *Client) CanLoad() bool { return c.config.StagingBucket != "" }

// loading is a batch on its way to the bucket.
type loading struct {
	bucket *storage.BucketHandle
	prefix string
	lines  *rowwire.JSONLines
	always bool // an empty batch is one too: it leaves an empty table

	shards int
	size   int // of the shard, uncompressed
	object *storage.Writer
	zipped *gzip.Writer
	cancel context.CancelFunc
	line   []byte
	rows   int64

	descriptor *descriptorpb.DescriptorProto
	refused    []RefusedRow
}

func (c *Client) newLoad(ctx context.Context, t *Table) (*loading, error) {
	if !c.CanLoad() {
		return nil, errNoBucket
	}
	client, err := c.storageClient(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	lines, err := rowwire.NewJSONLines(t.Layout(time.Time{}, true), names)
	if err != nil {
		return nil, fmt.Errorf("preparing the load of %s: %w", t.BaseName(), err)
	}
	prefix := fmt.Sprintf("%s/%s/%s/", jobName(t.Dataset), jobName(t.BaseName()), rand.Text())
	return &loading{
		bucket: client.Bucket(c.config.StagingBucket), prefix: prefix, lines: lines, always: t.Mode == Replace, descriptor: descriptorOf(t.Columns, t.Mode),
	}, nil
}

// Append writes the rows to the current shard.
func (l *loading) Append(ctx context.Context, b *rowwire.Batch) (*rowwire.Batch, error) {
	for _, row := range b.Rows {
		if err := l.open(ctx); err != nil {
			return nil, err
		}
		var err error
		l.line, err = l.lines.Append(l.line[:0], row)
		if refused, ok := errors.AsType[*rowwire.JSONLineError](err); ok { // I7
			if err := l.leaveOut(row, refused.Error()); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("writing a row as JSON: %w", err)
		}
		l.rows++
		if _, err := l.zipped.Write(l.line); err != nil {
			return nil, fmt.Errorf("writing to the staging bucket: %w", err)
		}
		l.size += len(l.line)
		if l.size >= shardBytes {
			if err := l.closeShard(); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// leaveOut keeps a row aside that has no form in a file to load.
func (l *loading) leaveOut(row []byte, reason string) error {
	text, err := decodeRow(l.descriptor, row)
	if err != nil {
		return err
	}
	l.refused = append(l.refused, RefusedRow{text, reason})
	return nil
}

// open begins a shard where there is none.
func (l *loading) open(ctx context.Context) error {
	if l.object != nil {
		return nil
	}
	if l.shards == maxShards {
		return fault.Fix(fmt.Errorf("the batch has more than %d shards of %d bytes", maxShards, shardBytes), "lower batch_rows, or use another write mode")
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.object = l.bucket.Object(objectName(l.prefix, l.shards)).NewWriter(ctx)
	l.object.ChunkSize = uploadBytes
	l.zipped = gzip.NewWriter(l.object)
	l.shards++
	return nil
}

func (l *loading) closeShard() error {
	if err := l.zipped.Close(); err != nil {
		return fmt.Errorf("writing to the staging bucket: %w", err)
	}
	if err := l.object.Close(); err != nil {
		return fmt.Errorf("writing to the staging bucket: %w", err)
	}
	l.cancel()
	l.object, l.zipped, l.size = nil, nil, 0
	return nil
}

// Finish closes the last shard.
func (l *loading) Finish(ctx context.Context) ([]RefusedRow, error) {
	if l.shards == 0 && l.always {
		if err := l.open(ctx); err != nil {
			return nil, err
		}
	}
	if l.object == nil {
		return l.refused, nil
	}
	return l.refused, l.closeShard()
}

// Name is the prefix of the objects, and how many there are.
func (l *loading) Name() string {
	if l.shards == 0 {
		return ""
	}
	return bucketScheme + l.bucket.BucketName() + "/" + l.prefix + "#" + strconv.Itoa(l.shards)
}

// objects are the names of a batch's objects within the bucket.
func (c *Client) objects(b Batch) ([]string, error) {
	prefix, count, _ := strings.Cut(strings.TrimPrefix(b.Name, bucketScheme+c.config.StagingBucket+"/"), "#")
	shards, err := strconv.Atoi(count)
	if err != nil {
		return nil, fmt.Errorf("reading the name of a batch: %w", err)
	}
	out := make([]string, shards)
	for i := range out {
		out[i] = objectName(prefix, i)
	}
	return out, nil
}

func objectName(prefix string, shard int) string { return fmt.Sprintf("%s%05d.json.gz", prefix, shard) }

// Rows is how many rows were written.
func (l *loading) Rows() int64 { return l.rows }

// Close gives up a shard that was not finished. The bucket forgets the others.
func (l *loading) Close() {
	if l.object != nil {
		l.cancel() // before Close, which would make an object of the half that is there
		_ = l.object.Close()
		l.object = nil
	}
}

// load runs the load job of a batch, and removes its objects once there is an outcome.
func (c *Client) load(ctx context.Context, t *Table, b Batch) error {
	client, err := c.restClient(ctx)
	if err != nil {
		return err
	}
	objects, err := c.objects(b)
	if err != nil {
		return err
	}
	for i := range objects { // each by its name: one that is missing fails the job
		objects[i] = bucketScheme + c.config.StagingBucket + "/" + objects[i]
	}
	from := bigquery.NewGCSReference(objects...)
	from.SourceFormat = bigquery.JSON
	table := client.Dataset(t.Dataset).Table(t.BaseName())
	if slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Kind == rowwire.Interval }) {
		// Intervals are taken for what they are only where the job has a schema. (BigQuery:
		// loading JSON data.)
		md, err := table.Metadata(ctx)
		if err != nil {
			return fmt.Errorf("looking at %s: %w", t.BaseName(), err)
		}
		from.Schema = md.Schema
	}
	loader := table.LoaderFrom(from)
	loader.CreateDisposition, loader.WriteDisposition = bigquery.CreateNever, bigquery.WriteAppend
	if t.Mode == Replace {
		loader.WriteDisposition = bigquery.WriteTruncateData
	}
	loader.Labels = b.Labels
	// What is invalid are the rows, then: they would be so again.
	err = c.once(ctx, loadJob, t, b, fault.Permanent, func(id string) (*bigquery.Job, error) {
		loader.JobID = id
		return loader.Run(ctx)
	})
	var failed *CommitError
	if err == nil || errors.As(err, &failed) {
		c.Abandon(ctx, b)
	}
	return err
}

// Abandon removes the objects of a loaded batch, which is committed or never will be.
// Those it does not reach the bucket's own rule removes within days.
func (c *Client) Abandon(ctx context.Context, b Batch) {
	client, err := c.storageClient(ctx)
	if err != nil {
		return
	}
	objects, err := c.objects(b)
	if err != nil {
		return
	}
	for _, name := range objects {
		if err := client.Bucket(c.config.StagingBucket).Object(name).Delete(ctx); err != nil && !errors.Is(err, storage.ErrObjectNotExist) {
			return
		}
	}
}

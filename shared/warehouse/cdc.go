package warehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/apache/arrow/go/v15/arrow"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// A batch of CDC goes to the default stream, whose rows BigQuery applies by the primary
// key: of several versions of a row that with the highest sequence number wins, which is
// _version, in whatever order they come and however often. No DML is ever sent to such a
// table: BigQuery would refuse it. (BigQuery: change data capture.)

// The pseudo-columns of change data capture.
const (
	sequenceColumn = "_CHANGE_SEQUENCE_NUMBER"
	changeColumn   = "_CHANGE_TYPE"
)

// changeFields follow the metadata fields in a row's message.
func changeFields(columns int) (sequence, change int32) {
	_, _, deleted := metadataFields(columns)
	return deleted + 1, deleted + 2
}

// defaultStream opens the default stream of the table: what is appended is there at
// once, and may be there twice.
func (c *Client) defaultStream(ctx context.Context, t *Table, buffers *Buffers) (*Stream, error) {
	client, err := c.writeClient(ctx)
	if err != nil {
		return nil, err
	}
	return &Stream{client: client, name: c.parent(t) + "/streams/_default", descriptor: descriptorOf(t.Columns, t.Mode), buffers: buffers}, nil
}

// staleness is a duration as BigQuery has it in a table's metadata.
func staleness(d time.Duration) *bigquery.IntervalValue { return bigquery.IntervalValueFromDuration(d) }

func sameStaleness(have *bigquery.IntervalValue, want time.Duration) bool {
	if have == nil {
		return want == 0
	}
	return have.ToDuration() == want
}

func primaryKey(md *bigquery.TableMetadata) []string {
	if md.TableConstraints == nil || md.TableConstraints.PrimaryKey == nil {
		return nil
	}
	return md.TableConstraints.PrimaryKey.Columns
}

// ErrStale says that a query may not see yet what has to be swept: it is for a later run.
var ErrStale = errors.New("a query of the table may not see yet what is to be removed")

// sweepChanges deletes what s is about by the primary key. What it asks BigQuery for may
// be as old as MaxStaleness: so what is to go has to be older than that, and rows that
// have a newer version, seen or not, stay, because that wins over s.Version.
func (c *Client) sweepChanges(ctx context.Context, t *Table, s Sweep) (Swept, error) {
	var swept Swept
	if time.Since(s.Since) < t.MaxStaleness {
		return swept, &fault.Error{Class: fault.Transient, Remedy: "a run after max_staleness removes it", Err: ErrStale}
	}
	v := alias("v", t.Key)
	condition := fmt.Sprintf("%s.%s < '%s'", v, quote(VersionColumn), s.Below)
	if t.Deletes == SoftDeletes {
		condition += fmt.Sprintf(" AND NOT %s.%s", v, quote(DeletedColumn))
	}
	result, err := c.Query(ctx, t.Dataset, fmt.Sprintf("SELECT %s.%s FROM %s AS %s WHERE %s",
		v, strings.Join(quoteAll(t.Key), ", "+v+"."), c.path(t.Dataset, t.BaseName()), v, condition), s.Labels)
	if result != nil {
		swept.Job, swept.Bytes = result.Job, result.Bytes
	}
	if err != nil {
		return swept, err
	}
	swept.Rows, err = c.tombstones(ctx, t, s, result)
	return swept, err
}

// tombstones streams a tombstone for each key of the result.
func (c *Client) tombstones(ctx context.Context, t *Table, s Sweep, result *Result) (int64, error) {
	keys := *t
	keys.Columns, keys.Partition = nil, nil
	for _, name := range t.Key {
		column := *t.column(name)
		column.Kind, column.HashKey = queriedKind(column.Kind), nil // it is hashed already
		keys.Columns = append(keys.Columns, column)
	}
	var buffers Buffers
	stream, err := c.defaultStream(ctx, &keys, &buffers)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	layout := keys.Layout(s.At, false)
	// A section of their own, for they all have the one version.
	layout.VersionPrefix, layout.SyncedAt = s.Version+"/", s.At.UnixMicro()
	rows, err := rowwire.NewTranscoder(layout, buffers.Take(), func(full *rowwire.Batch) (*rowwire.Batch, error) { return stream.Append(ctx, full) },
		func(r rowwire.Reject) error { return fmt.Errorf("a key cannot be carried back: %s", r.Reason) })
	if err != nil {
		return 0, err
	}
	rows.Deleted(true)
	copied, err := rowwire.NewCopyWriter(rows, result.Schema)
	if err != nil {
		return 0, err
	}
	if err := result.Each(ctx, func(record arrow.Record) error { return copied.WriteRecord(record) }); err != nil {
		return 0, err
	}
	if err := copied.Close(); err != nil {
		return 0, err
	}
	if err := rows.Close(); err != nil {
		return 0, err
	}
	refused, err := stream.Finish(ctx)
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("BigQuery refused %d tombstones: %s", len(refused), refused[0].Reason)
	}
	return rows.Rows(), err
}

// queriedKind is the kind of a column's values as CopyWriter writes what a query returned.
func queriedKind(k rowwire.Kind) rowwire.Kind {
	switch k {
	case rowwire.Int2, rowwire.Int4, rowwire.NumericInt:
		return rowwire.Int8
	case rowwire.Float4, rowwire.NumericFloat:
		return rowwire.Float8
	case rowwire.UUID, rowwire.IntervalText:
		return rowwire.Text
	default:
		return k
	}
}

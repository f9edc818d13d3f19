package extract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// maxRejects is how many rows of one batch may be refused before the table is
// stopped: beyond it something is wrong with more than a row.
const maxRejects = 10_000

// commitTimeout is under the lease's expiry, so that nobody else can hold the
// lease while a commit of ours may still be carried out (I5).
const commitTimeout = 20 * time.Second

// batch moves the rows of one read: at most BatchRows past the cursor, and all
// that were committed late behind it. more says that there are further rows.
func (w *work) batch(ctx context.Context, capture *source.Watermark, target *warehouse.Table) (more bool, err error) {
	position, err := w.position()
	if err != nil {
		return false, err
	}
	read, err := capture.Begin(ctx, w.Source, position)
	if err != nil {
		return false, err
	}
	defer read.Close(ctx)
	if read.Unchanged() {
		read.Close(ctx) // its connection first: never wait for a second one
		return false, w.Control.Touch(ctx, w.lease, w.unit, w.state.Cursor)
	}
	b := &batch{work: w, target: target, read: read, capture: capture, position: max(w.state.Position+1, read.At().UnixMicro())}
	defer b.close()
	after, err := b.fill(ctx)
	if err != nil {
		return false, err
	}
	cursor, err := json.Marshal(after)
	if err != nil {
		return false, fmt.Errorf("writing the cursor: %w", err)
	}
	if b.rows.Rows()+b.rows.Rejected() == 0 {
		w.state.Cursor = cursor
		read.Close(ctx)
		return after.More, w.Control.Touch(ctx, w.lease, w.unit, cursor)
	}
	return after.More, b.commit(ctx, cursor)
}

func (w *work) position() (*source.Position, error) {
	if w.state.Cursor == nil {
		return nil, nil //nolint:nilnil // no position is the position of a table never seen
	}
	var p source.Position
	if err := json.Unmarshal(w.state.Cursor, &p); err != nil {
		return nil, fault.Fix(fmt.Errorf("reading the cursor: %w", err), "the cursor was edited by hand: restore it from tidemark.runs.cursor_after")
	}
	return &p, nil
}

// batch is the rows of one read on their way into one stream.
type batch struct {
	*work
	target   *warehouse.Table
	read     *source.Read
	capture  *source.Watermark
	position int64

	rows    *rowwire.Transcoder
	filling *rowwire.Batch    // what the transcoder is writing to
	stream  *warehouse.Stream // nil until there is a row
	rejects []reject
	refused []warehouse.RefusedRow
}

type reject struct {
	key    [][]byte
	column string
	reason string
}

// fill reads the rows into the stream and closes it for more.
func (b *batch) fill(ctx context.Context) (*source.Position, error) {
	layout := b.target.Layout(b.read.At())
	layout.VersionPrefix = warehouse.Version(b.state.Generation, b.position)
	layout.SyncedAt = b.read.At().UnixMicro()
	layout.KeepLast = true
	var err error
	b.filling = b.buffers.Take()
	b.rows, err = rowwire.NewTranscoder(layout, b.filling, func(full *rowwire.Batch) (*rowwire.Batch, error) { return b.append(ctx, full) }, b.reject)
	if err != nil {
		return nil, err
	}
	if b.read.HasLate() {
		if err := b.read.CopyLate(ctx, b.rows); err != nil {
			return nil, err
		}
		if err := b.rows.Continue(); err != nil {
			return nil, err
		}
	}
	before := b.rows.Rows() + b.rows.Rejected()
	if err := b.read.CopyFresh(ctx, b.rows); err != nil {
		return nil, err
	}
	if err := b.rows.Close(); err != nil {
		return nil, err
	}
	b.buffers.Give(b.filling)
	if b.stream != nil {
		if b.refused, err = b.stream.Finish(ctx); err != nil {
			return nil, err
		}
	}
	fresh := b.rows.Rows() + b.rows.Rejected() - before
	return b.read.Next(ctx, b.rows.Last(), fresh >= int64(b.spec.BatchRows))
}

func (b *batch) append(ctx context.Context, full *rowwire.Batch) (*rowwire.Batch, error) {
	if b.stream == nil {
		stream, err := b.Warehouse.NewStream(ctx, b.target, &b.buffers)
		if fault.GRPCCode(err) == codes.NotFound {
			// The log was dropped, or is too new to be known everywhere.
			return nil, &fault.Error{Class: fault.Transient, Remedy: "the next run makes the log table anew", Err: errors.Join(err, b.Control.Distrust(ctx, b.lease, b.unit))}
		}
		if fault.GRPCCode(err) == codes.PermissionDenied {
			// So BigQuery answers for a log that is gone, too: the next run finds out.
			return nil, errors.Join(err, b.Control.Distrust(ctx, b.lease, b.unit))
		}
		if err != nil {
			return nil, err
		}
		b.stream = stream
	}
	var err error
	b.filling, err = b.stream.Append(ctx, full)
	return b.filling, err
}

func (b *batch) reject(r rowwire.Reject) error {
	column := ""
	if r.Column >= 0 {
		column = b.target.Columns[r.Column].Name
	}
	if len(b.rejects) == maxRejects {
		return fault.Fix(fmt.Errorf("more than %d rows refused, the last for column %q: %s", maxRejects, column, r.Reason),
			"change the column's type or mend its values in the source")
	}
	b.rejects = append(b.rejects, reject{b.capture.KeyOf(r.Tuple), column, r.Reason.String()})
	return nil
}

// commit saves what is about to happen, makes it happen, and moves the cursor.
func (b *batch) commit(ctx context.Context, cursor json.RawMessage) error {
	rejects, err := b.wholeRows(ctx)
	if err != nil {
		return err
	}
	b.read.Close(ctx) // the snapshot has told all it can
	if err := b.record(ctx); err != nil {
		return err
	}
	p := controlplane.Pending{
		Position: b.position, Cursor: cursor, RunID: b.runID,
		Rows: b.rows.Rows() - int64(len(b.refused)), Read: b.rows.Rows() + b.rows.Rejected(), Rejected: int64(len(rejects)), Bytes: b.rows.Bytes(),
		Partitions: b.rows.Partitions(),
	}
	if b.target.Partition == nil {
		p.Partitions = []string{warehouse.WholeLog}
	}
	if b.stream != nil && b.stream.Rows() > 0 {
		p.Stream = b.stream.Name()
		if err := b.Control.SavePending(ctx, b.lease, b.unit, p, rejects); err != nil {
			return err
		}
		rejects = nil // saved with it
		if err := b.commitStream(ctx, p); err != nil {
			return err
		}
	}
	if err := b.Control.CommitBatch(ctx, b.lease, b.unit, p, rejects); err != nil { // I1
		return err
	}
	b.state.Cursor, b.state.Position = cursor, b.position
	telemetry.Reject(ctx, p.Rejected)
	slog.InfoContext(ctx, "batch committed", "rows", p.Rows, "rejected", p.Rejected, "bytes", p.Bytes)
	return nil
}

func (b *batch) commitStream(ctx context.Context, p controlplane.Pending) error {
	limited, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	err := b.Warehouse.Commit(limited, b.target, p.Stream)
	var refused *warehouse.CommitError
	if errors.As(err, &refused) { // answered, and certainly not done
		return errors.Join(err, b.Control.DiscardPending(ctx, b.lease, b.unit, p))
	}
	return err
}

// wholeRows are the rows left out: what we refused as it is in the snapshot,
// what BigQuery refused as it was sent.
func (b *batch) wholeRows(ctx context.Context) ([]controlplane.Reject, error) {
	out := make([]controlplane.Reject, len(b.rejects))
	for i, r := range b.rejects {
		row, err := b.read.Row(ctx, r.key)
		if err != nil {
			return nil, err
		}
		out[i] = controlplane.Reject{Column: r.column, Reason: r.reason, Row: row}
	}
	for _, r := range b.refused {
		out = append(out, controlplane.Reject{Reason: r.Reason, Row: r.Row})
	}
	return out, nil
}

func (b *batch) close() {
	if b.stream != nil {
		b.stream.Close()
	}
}

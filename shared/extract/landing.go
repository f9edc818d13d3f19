package extract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// maxRejects is how many rows of one batch may be refused before the table is
// stopped: beyond it something is wrong with more than a row.
const maxRejects = 10_000

// errUnstreamable says that a batch has rows that no stream can carry: it is read again,
// to be loaded.
var errUnstreamable = errors.New("rows belong to partitions that take no streamed rows")

// landing is one batch on its way: the rows of a read into one sink, then the
// cursor they earn. Several of one table may be on their way at once.
type landing struct {
	*work
	place    controlplane.Place
	read     source.Read
	position int64
	buffers  *warehouse.Buffers

	rows    *rowwire.Transcoder
	filling *rowwire.Batch // what the transcoder is writing to
	sink    warehouse.Sink // nil until there is a row
	loaded  bool           // by a load job
	rejects []reject
	refused []warehouse.RefusedRow

	resolved []int64 // rejects that the batch answers
	tolerant bool    // whatever share of it is refused
}

type reject struct {
	key    [][]byte
	column string
	reason string
}

// land moves what a read finds into the table and commits the cursor at its place.
func (l *landing) land(ctx context.Context) (source.Result, error) {
	defer l.close()
	result, err := l.fill(ctx)
	if err == nil {
		err = l.commit(ctx, result)
	}
	return result, l.doubted(ctx, err)
}

// doubted has the next run look at the destination again where this one's failure may
// come of it: it may be gone, and is made anew then.
func (l *landing) doubted(ctx context.Context, err error) error {
	_, refused := errors.AsType[*warehouse.CommitError](err)
	code := fault.GRPCCode(err) // PermissionDenied is BigQuery's answer for a table that is gone, too
	if refused || code == codes.NotFound || code == codes.PermissionDenied || fault.HTTPStatus(err) == http.StatusNotFound {
		return errors.Join(err, l.Control.Distrust(ctx, l.lease, l.unit))
	}
	return err
}

// fill reads the rows into the stream and closes it for more.
func (l *landing) fill(ctx context.Context) (result source.Result, err error) {
	if err := l.open(ctx); err != nil {
		return result, err
	}
	if result, err = l.read.Copy(ctx, l.rows); err != nil {
		return result, err
	}
	return result, l.finish(ctx)
}

// open makes the transcoder that writes to the stream.
func (l *landing) open(ctx context.Context) error {
	l.loaded = l.load.Load() || !l.target.ByStream()
	layout := l.target.Layout(l.read.At(), l.loaded)
	layout.VersionPrefix = warehouse.Version(l.state.Generation, l.position)
	layout.SyncedAt = l.read.At().UnixMicro()
	layout.KeepLast = true
	l.filling = l.buffers.Take()
	var err error
	l.rows, err = rowwire.NewTranscoder(layout, l.filling, func(full *rowwire.Batch) (*rowwire.Batch, error) { return l.append(ctx, full) }, l.reject)
	return err
}

// finish hands over the last rows and waits until all are in the stream.
func (l *landing) finish(ctx context.Context) error {
	if l.rows.Position() > 0 { // else there may not have been a COPY
		if err := l.rows.Close(); err != nil {
			return err
		}
	}
	l.buffers.Give(l.filling)
	if l.sink == nil && l.spec.Write == pipeline.WriteReplace { // no rows are a state too
		if err := l.openSink(ctx); err != nil {
			return err
		}
	}
	if l.sink == nil {
		return nil
	}
	var err error
	l.refused, err = l.sink.Finish(ctx)
	return err
}

func (l *landing) append(ctx context.Context, full *rowwire.Batch) (*rowwire.Batch, error) {
	if l.sink == nil {
		if err := l.openSink(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	l.filling, err = l.sink.Append(ctx, full)
	return l.filling, err
}

func (l *landing) openSink(ctx context.Context) error {
	if l.target.Mode == warehouse.CDC && l.place.Chunk == 0 {
		// Its rows are seen as they come: should the batch come to nothing, what it had
		// must be older than what is read instead, whatever the source's clock says then.
		if err := l.Control.Reserve(ctx, l.lease, l.unit, l.position); err != nil {
			return err
		}
	}
	sink, err := l.Warehouse.Open(ctx, l.target, l.loaded, l.buffers)
	if fault.GRPCCode(err) == codes.NotFound { // the table was dropped, or is too new to be known everywhere
		return &fault.Error{Class: fault.Transient, Remedy: "the next run makes the table anew", Err: err}
	}
	if err == nil {
		l.sink = sink
	}
	return err
}

func (l *landing) reject(r rowwire.Reject) error {
	if r.Reason == rowwire.OutsidePartitionWindow && l.target.Loadable() && l.Warehouse.CanLoad() {
		l.load.Store(true)
		return errUnstreamable
	}
	column := ""
	if r.Column >= 0 {
		column = l.target.Columns[r.Column].Name
	}
	if len(l.rejects) == maxRejects {
		return fault.Fix(fmt.Errorf("more than %d rows refused, the last for column %q: %s", maxRejects, column, r.Reason),
			"change the column's type or mend its values in the source")
	}
	l.rejects = append(l.rejects, reject{l.read.KeyOf(r.Tuple), column, r.Reason.String()})
	return nil
}

// commit saves what is about to happen, makes it happen, and moves the cursor.
func (l *landing) commit(ctx context.Context, result source.Result) error {
	read := l.rows.Rows() + l.rows.Rejected() - result.Deleted
	if read+result.Deleted+int64(len(result.Refused)) == 0 && result.Truncated == nil && l.place.Chunk == 0 && (l.state.Truncated == "" || result.More) && len(l.resolved) == 0 {
		l.read.Close(ctx) // its connection first: never wait for a second one
		l.state.Cursor = result.Cursor
		return l.Control.Touch(ctx, l.lease, l.unit, result.Cursor)
	}
	if err := l.tolerable(read, int64(len(result.Refused))); err != nil {
		return err
	}
	rejects, err := l.wholeRows(ctx, result.Refused)
	if err != nil {
		return err
	}
	l.read.Close(ctx) // the snapshot has told all it can
	if err := l.record(ctx); err != nil {
		return err
	}
	p := controlplane.Pending{
		Position: l.position, Cursor: result.Cursor, RunID: l.runID, At: l.read.At(), Sent: time.Now(),
		Rows: l.rows.Rows() - int64(len(l.refused)) - result.Deleted, Read: read, Deleted: result.Deleted,
		Rejected: int64(len(rejects)), Bytes: l.rows.Bytes(), Partitions: l.rows.Partitions(), More: result.More, Done: !result.More, Resolved: l.resolved,
	}
	if l.target.Partition == nil {
		p.Partitions = []string{warehouse.WholeLog}
	}
	switch {
	case result.Truncated == nil || l.target.Deletes == warehouse.IgnoreDeletes || l.target.Mode == warehouse.Replace:
	case l.spec.Capture.Method == pipeline.MethodSnapshot && !l.tellsApart(rejects):
		l.warn(ctx, "rows were rejected, see tidemark.rejects, so nothing tells which of the older ones are gone: none was removed")
	default:
		p.Truncated = warehouse.VersionAt(l.state.Generation, l.position, *result.Truncated)
	}
	if l.sink != nil {
		p.Stream = l.sink.Name()
	}
	if p.Stream != "" || p.Truncated != "" {
		if err := l.Control.SavePending(ctx, l.lease, l.place, p, rejects); err != nil {
			return err
		}
		rejects = nil // saved with it
	}
	if p.Stream != "" {
		if err := l.commitSink(ctx, p); err != nil {
			return err
		}
	}
	return l.settled(ctx, l.place, p, rejects)
}

// settled does what follows a commit of the rows: what a truncation left behind goes,
// and the cursor moves.
func (w *work) settled(ctx context.Context, place controlplane.Place, p controlplane.Pending, rejects []controlplane.Reject) error {
	if place.Chunk == 0 && p.Truncated == "" {
		p.Truncated = w.state.Truncated
	}
	if p.Truncated != "" && !p.More {
		// After all the rows, so that readers never see the table empty, or a part of what
		// it was filled with again (I6): what they hold is newer than the truncation and stays.
		sweep := warehouse.Sweep{Below: p.Truncated, Version: p.Truncated, At: time.Now(), Since: p.Sent}
		if w.spec.Capture.Method == pipeline.MethodSnapshot { // it came across those
			var err error
			if sweep.Keep, _, err = w.Control.RejectedKeys(ctx, w.unit, p.Position); err != nil {
				return err
			}
		}
		swept, err := w.sweep(ctx, sweep)
		if err != nil {
			return fmt.Errorf("removing what was truncated: %w", err)
		}
		p.Deleted += swept.Rows
		p.Partitions = union(p.Partitions, swept.Partitions)
	}
	if w.target.Mode != warehouse.Append { // nothing is superseded there, or nothing goes
		p.Partitions = nil
	}
	if err := w.Control.CommitBatch(ctx, w.lease, place, p, rejects); err != nil { // I1
		return err
	}
	telemetry.Reject(ctx, p.Rejected)
	slog.InfoContext(ctx, "batch committed", "rows", p.Rows, "deleted", p.Deleted, "rejected", p.Rejected, "bytes", p.Bytes, "chunk", place.Chunk)
	if place.Chunk == 0 {
		w.state.Cursor, w.state.Position, w.state.Pending, w.state.Truncated = p.Cursor, max(w.state.Position, p.Position), nil, ""
		if p.More {
			w.state.Truncated = p.Truncated
		}
	}
	return nil
}

// tellsApart reports whether a sweep can leave the rejected rows alone.
func (l *landing) tellsApart(rejects []controlplane.Reject) bool {
	return len(rejects) == 0 || l.target.TellsKeys() && !slices.ContainsFunc(rejects, func(r controlplane.Reject) bool { return len(r.Key) <= len(noKey) })
}

// sweep tombstones what is older than a version, and accounts for it.
func (w *work) sweep(ctx context.Context, s warehouse.Sweep) (warehouse.Swept, error) {
	s.Labels = w.labels()
	swept, err := w.Warehouse.Sweep(ctx, w.target, s)
	telemetry.Bill(ctx, swept.Bytes, swept.Job)
	return swept, err
}

func union(a, b []string) []string {
	for _, x := range b {
		if !slices.Contains(a, x) {
			a = append(a, x)
		}
	}
	return a
}

// batchOf names a saved batch to the warehouse.
func (w *work) batchOf(place controlplane.Place, p controlplane.Pending) warehouse.Batch {
	return warehouse.Batch{
		Name: p.Stream, Version: warehouse.Version(w.state.Generation, p.Position), At: p.At, Partitions: p.Partitions,
		Backfilled: place.Chunk != 0, Labels: w.labels(),
	}
}

func (w *work) labels() map[string]string {
	return map[string]string{"tidemark-pipeline": w.unit.Pipeline}
}

func (l *landing) commitSink(ctx context.Context, p controlplane.Pending) error {
	if l.loaded {
		counted, err := l.Control.CountLoad(ctx, l.lease, l.unit, warehouse.LoadsPerDay)
		if err != nil {
			return err
		}
		if !counted { // nor may the next run start it: the rows are read again
			err := l.Control.DiscardPending(ctx, l.lease, l.place, p)
			if err == nil { // and not before: what is left of it would be loaded for the whole
				l.Warehouse.Abandon(ctx, l.batchOf(l.place, p))
			}
			return errors.Join(fault.Fix(fmt.Errorf("the table has had %d load jobs within a day, which is all that BigQuery allows", warehouse.LoadsPerDay),
				"have it run less often (every), or raise batch_rows; it goes on by itself as the day passes"), err)
		}
	}
	if l.target.Mode == warehouse.Merge {
		// Two that insert the same row at once would each insert it.
		l.merging.Lock()
		defer l.merging.Unlock()
	}
	err := l.Warehouse.Commit(ctx, l.target, l.batchOf(l.place, p))
	var refused *warehouse.CommitError
	if errors.As(err, &refused) { // answered, and certainly not done
		return errors.Join(err, l.Control.DiscardPending(ctx, l.lease, l.place, p))
	}
	return err
}

// toleratedRejects is how many rows of a batch may be refused whatever their share.
const toleratedRejects = 100

// tolerable stops the table where so many rows are refused that something is wrong with
// more than a row: nothing of the batch lands then, and nothing is lost.
func (l *landing) tolerable(read, entries int64) error {
	rejected := int64(len(l.rejects)+len(l.refused)) + entries
	share := float64(rejected) / float64(max(read+entries, rejected))
	if l.tolerant || rejected <= toleratedRejects || share <= l.spec.MaxRejects {
		return nil
	}
	why := "BigQuery refused them"
	if len(l.rejects) > 0 {
		last := l.rejects[len(l.rejects)-1]
		why = fmt.Sprintf("the last for column %q: %s", last.column, last.reason)
	}
	return fault.Fix(fmt.Errorf("%d of %d rows refused, more than %g %%; %s", rejected, read+entries, 100*l.spec.MaxRejects, why),
		"change the column's type, mend its values in the source, or raise max_reject_percent in the pipeline file")
}

// noKey is of a row that is rejected, and whose key nothing may know, or does.
var noKey = json.RawMessage("[]") //nolint:gochecknoglobals // a constant

// wholeRows are the rows left out: what we refused as it is in the snapshot,
// what BigQuery refused as it was sent, and entries that name no row.
func (l *landing) wholeRows(ctx context.Context, entries []source.Refused) ([]controlplane.Reject, error) {
	out := make([]controlplane.Reject, 0, len(l.rejects)+len(l.refused)+len(entries))
	for _, r := range l.rejects {
		whole, err := l.read.Row(ctx, r.key)
		if err != nil {
			return nil, err
		}
		kept := controlplane.Reject{Column: r.column, Reason: r.reason, Row: whole.Row, Key: noKey}
		if whole.Key != nil {
			if kept.Key, err = json.Marshal(whole.Key); err != nil {
				return nil, fmt.Errorf("writing the key of a rejected row: %w", err)
			}
		}
		out = append(out, kept)
	}
	for _, r := range l.refused {
		out = append(out, controlplane.Reject{Reason: r.Reason, Row: r.Row, Key: noKey})
	}
	for _, r := range entries {
		out = append(out, controlplane.Reject{Column: r.Column, Reason: r.Reason, Row: r.Row})
	}
	return out, nil
}

func (l *landing) close() {
	if l.sink != nil {
		l.sink.Close()
	}
}

package extract

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/wal"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// chunksAtOnce bounds the chunks of a table that are read together: each holds a
// connection while it reads (I10).
const chunksAtOnce = 2

// sliceTime is how long chunks are read before changes are looked for again: they keep
// flowing during a backfill.
const sliceTime = 20 * time.Second

// begin starts following a table that is not followed yet, or reads it anew where a
// message asks for it: once, however often the message comes (I4).
func (w *work) begin(ctx context.Context) error {
	asked := w.full && (w.state.Backfill == nil || w.state.Backfill.RequestedBy != w.messageID)
	switch {
	case w.spec.Capture.Method == pipeline.MethodSnapshot: // each read is whole
		return nil
	case w.state.Cursor == nil:
		return w.startOver(ctx, "", w.requestedBy(asked))
	case asked:
		return w.resync(ctx, "a message asked for it", w.messageID)
	}
	return nil
}

func (w *work) requestedBy(asked bool) string {
	if asked {
		return w.messageID
	}
	return ""
}

// startOver follows the table from now on, and backfills what is there. reason says
// what was lost, if anything was: then the table gets a new generation.
func (w *work) startOver(ctx context.Context, reason, requestedBy string) error {
	cursor, err := w.capture.Start(ctx, w.Source)
	if err != nil {
		return err
	}
	w.state.Cursor = cursor
	if reason != "" {
		return w.resync(ctx, reason, requestedBy)
	}
	return w.startBackfill(ctx, w.state.Generation, reason, requestedBy)
}

// resync reads the whole table again in a new generation, while its changes are
// followed from where they are: readers see each row's old version until the new one
// is there, and what is gone until the end (I6).
func (w *work) resync(ctx context.Context, reason, requestedBy string) error {
	if err := w.record(ctx); err != nil {
		return err
	}
	if err := w.startBackfill(ctx, w.state.Generation+1, reason, requestedBy); err != nil {
		return err
	}
	w.warn(ctx, "the whole table is read again: "+reason)
	return nil
}

func (w *work) startBackfill(ctx context.Context, generation int, reason, requestedBy string) error {
	if b := w.state.Backfill; b != nil && requestedBy == "" {
		requestedBy = b.RequestedBy // what it asked for is done by this one too: it asks no second time
	}
	plan, err := w.source.Plan(ctx, w.Source, int64(w.spec.BatchRows))
	if err != nil {
		return err
	}
	barrier, err := w.barrier(ctx)
	if err != nil {
		return err
	}
	w.state, err = w.Control.StartBackfill(ctx, w.lease, w.unit, controlplane.NewBackfill{
		Backfill: controlplane.Backfill{Generation: generation, RequestedBy: requestedBy, Barrier: barrier, BatchRows: plan.BatchRows, Estimated: plan.Estimated},
		Reason:   reason, Ranges: plan.Ranges, Cursor: w.state.Cursor,
	})
	if err == nil {
		slog.InfoContext(ctx, "backfill started", "generation", generation, "chunks", len(plan.Ranges), "estimated_rows", plan.Estimated, "batch_rows", plan.BatchRows)
	}
	return err
}

// barrier is the transaction below which all have to have ended before the table is
// read. In the log a change can land before other sessions see it; every other method
// reads changes in snapshots, and a later snapshot sees them all.
func (w *work) barrier(ctx context.Context) (uint64, error) {
	if w.spec.Capture.Method != pipeline.MethodWAL {
		return 0, nil
	}
	fence, err := wal.NewFence(ctx, w.Source)
	return fence.XID, err
}

// backfill reads chunks for a while. more says that some are left. No change of the
// table is landed meanwhile: a truncation would not reach rows that are on their way.
func (w *work) backfill(ctx context.Context) (more bool, err error) {
	if b := w.state.Backfill; b == nil || b.Finished {
		return false, nil
	}
	chunks, err := w.Control.Chunks(ctx, w.unit)
	if err != nil {
		return false, err
	}
	if len(chunks) == 0 {
		return false, w.waiting(ctx, w.finishBackfill(ctx))
	}
	if err := w.record(ctx); err != nil {
		return false, err
	}
	slice := time.Now().Add(sliceTime)
	var waiting, lost atomic.Pointer[string]
	group, together := errgroup.WithContext(ctx)
	group.SetLimit(chunksAtOnce)
	for i, c := range chunks {
		group.Go(func() error {
			var buffers warehouse.Buffers
			// The first batch is always moved: whatever the deadline, a run gets further.
			for first := i == 0; first || time.Now().Before(slice) && tick.TimeLeft(ctx) && waiting.Load() == nil && lost.Load() == nil; first = false {
				done, err := w.chunk(together, &c, &buffers)
				switch gone, ok := errors.AsType[*source.LostError](err); {
				case ok:
					lost.Store(&gone.Reason)
					return nil
				case errors.Is(err, errBarrier):
					reason := err.Error()
					waiting.Store(&reason)
					return nil
				case err != nil || done:
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return false, err //nolint:wrapcheck // an error of ours
	}
	if reason := lost.Load(); reason != nil {
		return true, w.resync(ctx, *reason, "")
	}
	if reason := waiting.Load(); reason != nil {
		slog.InfoContext(ctx, "the backfill waits", "reason", *reason)
		return false, nil
	}
	return true, nil
}

// errBarrier says that transactions are open that have to end before the table is
// read: the next tick looks again.
var errBarrier = errors.New("transactions from before the table was followed are still open")

// chunk moves one batch of a chunk. A change of one of its rows that has landed, or
// will, has a higher position and wins.
func (w *work) chunk(ctx context.Context, c *controlplane.Chunk, buffers *warehouse.Buffers) (done bool, err error) {
	b := w.state.Backfill
	part := source.Chunk{Rows: w.source, Range: c.Range, Limit: b.BatchRows, Barrier: b.Barrier}
	read, err := part.Begin(ctx, w.Source, c.Cursor)
	if err != nil {
		return false, err
	}
	if read == nil {
		return false, errBarrier
	}
	defer read.Close(ctx)
	position, err := w.Control.BackfillPosition(ctx)
	if err != nil {
		return false, err
	}
	l := &landing{work: w, place: controlplane.Place{Unit: w.unit, Chunk: c.ID}, read: read, position: position, buffers: buffers}
	result, err := l.land(ctx)
	if errors.Is(err, errUnstreamable) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("backfilling chunk %d: %w", c.ID, err)
	}
	c.Cursor = result.Cursor
	return !result.More, nil
}

// finishBackfill removes what an earlier generation has and this one has not: it is
// gone from the source.
func (w *work) finishBackfill(ctx context.Context) error {
	partitions, err := w.removeGone(ctx)
	if err != nil {
		return err
	}
	if err := w.Control.FinishBackfill(ctx, w.lease, w.unit, partitions); err != nil {
		return err
	}
	w.state.Backfill.Finished = true
	slog.InfoContext(ctx, "backfill finished", "generation", w.state.Generation)
	return nil
}

// removeGone tombstones what no batch of this generation has. Of rows that could not be
// carried there is an older version, at best: they are not gone.
func (w *work) removeGone(ctx context.Context) (partitions []string, err error) {
	if w.state.Generation == 1 || w.target.Deletes == warehouse.IgnoreDeletes {
		return nil, nil
	}
	kept, keyless, err := w.Control.RejectedKeys(ctx, w.unit, 0)
	if err != nil {
		return nil, err
	}
	if keyless > 0 || len(kept) > 0 && !w.target.TellsKeys() {
		w.warn(ctx, fmt.Sprintf("%d rows were rejected, see tidemark.rejects, so nothing tells which of the older ones are gone: mend them and send full again", keyless+int64(len(kept))))
		return nil, nil
	}
	swept, err := w.sweep(ctx, warehouse.Sweep{
		// No row of the generation has position 0: whatever it has of a key wins.
		Below: warehouse.GenerationPrefix(w.state.Generation), Version: warehouse.VersionAt(w.state.Generation, 0, 0), At: time.Now(), Since: w.state.Backfill.Started, Keep: kept,
	})
	if err != nil {
		return nil, fmt.Errorf("removing what is gone: %w", err)
	}
	slog.InfoContext(ctx, "removed what is gone", "rows", swept.Rows)
	return swept.Partitions, nil
}

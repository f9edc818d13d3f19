package dedup

import (
	"context"
	"log/slog"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// expiring reports whether rows of the table that were deleted long ago are to be looked
// for: once a day, and whenever somebody asks for the whole log.
func (r *Runner) expiring(ctx context.Context, u tick.Unit, t *pipeline.Table, unit controlplane.Unit, full bool) (bool, error) {
	if u.Pipeline.Dedup == nil || u.Pipeline.Dedup.KeepDeleted == 0 || t.Write != pipeline.WriteAppend || t.Deletes == pipeline.DeletesIgnore {
		return false, nil
	}
	due, err := r.Control.ExpiryDue(ctx, unit)
	return due || full, err
}

// expire has the rows that were deleted long ago leave the log. A tombstone may go only
// when nothing older than it can land any more, which would be seen again. Batches of
// changes land in the order of their versions; what a backfill reads has older ones, and
// so has what is pending. So it waits for both. What begins from here on reads the source
// as it is now, where the row is gone, or there again and newer; and tombstones that land
// from here on are above the bound.
func (w *work) expire(ctx context.Context) error {
	state, err := w.Control.State(ctx, w.unit)
	if err != nil {
		return err
	}
	if !settled(state) {
		slog.InfoContext(ctx, "rows deleted long ago stay until the table is settled")
		return nil
	}
	retention := warehouse.Retention{Keep: w.from.Pipeline.Dedup.KeepDeleted, Below: warehouse.Version(state.Generation, state.Position+1)}
	return w.recorded(ctx, "removing rows deleted long ago from", func(ctx context.Context) (warehouse.Cleanup, error) {
		target, err := w.target(ctx, state)
		if err != nil {
			return warehouse.Cleanup{}, err
		}
		done, err := w.Warehouse.Expire(ctx, target, retention, w.maxBytes(), w.labels())
		if err != nil {
			return done, err
		}
		slog.InfoContext(ctx, "rows deleted long ago removed", "versions", done.Deleted, "bytes", done.Bytes, "partitions", len(done.Partitions))
		return done, w.Control.Expired(ctx, w.lease, w.unit)
	})
}

// settled reports whether all that was read of the table so far has landed.
func settled(s controlplane.State) bool {
	return s.Cursor != nil && s.Live && s.Pending == nil && s.Truncated == "" && (s.Backfill == nil || s.Backfill.Finished)
}

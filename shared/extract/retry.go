package extract

import (
	"context"
	"log/slog"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// retryRows is how many refused rows are read again at once.
const retryRows = 1000

// retry reads the rows again that were refused, where a message asks for it, and forgets
// those rejects with the batch that answers them: a row that is refused again is kept
// anew. Changes are landed before, so that none is overtaken.
func (w *work) retry(ctx context.Context) error {
	if !w.retrying || w.state.Cursor == nil || w.spec.Capture.Method == pipeline.MethodSnapshot { // which reads all of them anyway
		return nil
	}
	last, keyless, err := w.Control.LastReject(ctx, w.unit) // what is refused again comes behind
	if err != nil {
		return err
	}
	if keyless > 0 {
		w.warn(ctx, "some rejects have no key to read them again by: send full")
	}
	for after := int64(0); tick.TimeLeft(ctx); {
		ids, keys, err := w.Control.Rejects(ctx, w.unit, after, last, retryRows)
		if err != nil || len(ids) == 0 {
			return err
		}
		if err := w.again(ctx, ids, keys); err != nil {
			return err
		}
		slog.InfoContext(ctx, "refused rows were read again", "rejects", len(ids))
		after = ids[len(ids)-1]
	}
	return nil
}

// refused are the rejects that a read of the whole table answers.
func (w *work) refused(ctx context.Context) ([]int64, error) {
	last, _, err := w.Control.LastReject(ctx, w.unit)
	if err != nil || last == 0 {
		return nil, err
	}
	ids, _, err := w.Control.Rejects(ctx, w.unit, 0, last, maxRejects)
	return ids, err
}

func (w *work) again(ctx context.Context, ids []int64, keys [][]string) error {
	if err := w.record(ctx); err != nil {
		return err
	}
	again := source.Retry{Rows: w.source, Keys: keys, Cursor: w.state.Cursor}
	read, err := again.Begin(ctx, w.Source)
	if err != nil {
		return err
	}
	defer read.Close(ctx)
	l := &landing{
		work: w, place: controlplane.Place{Unit: w.unit}, read: read, position: max(w.state.Position+1, read.At().UnixMicro()),
		buffers: &w.buffers, resolved: ids,
	}
	_, err = l.land(ctx)
	return err
}

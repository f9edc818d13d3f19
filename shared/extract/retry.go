package extract

import (
	"context"
	"errors"
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
// anew. Changes are landed before, so that none is overtaken. w.retrying says whether
// there are some left for the next message.
func (w *work) retry(ctx context.Context) error {
	if !w.retrying {
		return nil
	}
	if w.state.Cursor == nil || w.spec.Capture.Method == pipeline.MethodSnapshot { // which reads all of them anyway
		w.retrying = false
		return nil
	}
	last, keyless, err := w.Control.LastReject(ctx, w.unit) // what is refused again comes behind
	if err != nil {
		return err
	}
	if keyless > 0 {
		w.warn(ctx, "some rejects have no key to read them again by: send full")
	}
	for after := int64(0); ; {
		ids, keys, err := w.Control.Rejects(ctx, w.unit, after, last, retryRows, false)
		if err != nil || len(ids) == 0 {
			w.retrying = w.retrying && err != nil
			return err
		}
		if !tick.TimeLeft(ctx) { // the next message goes on
			return nil
		}
		err = w.again(ctx, ids, keys)
		if errors.Is(err, errUnstreamable) {
			continue
		}
		if err != nil {
			return err
		}
		slog.InfoContext(ctx, "refused rows were read again", "rejects", len(ids))
		after = ids[len(ids)-1]
	}
}

// refused are the rejects that a read of the whole table answers.
func (w *work) refused(ctx context.Context) ([]int64, error) {
	last, _, err := w.Control.LastReject(ctx, w.unit)
	if err != nil || last == 0 {
		return nil, err
	}
	ids, _, err := w.Control.Rejects(ctx, w.unit, 0, last, maxRejects, true)
	return ids, err
}

func (w *work) again(ctx context.Context, ids []int64, keys [][]string) error {
	if err := w.record(ctx); err != nil {
		return err
	}
	barrier, err := w.barrier(ctx)
	if err != nil {
		return err
	}
	again := source.Retry{Rows: w.source, Keys: keys, Cursor: w.state.Cursor, Barrier: barrier}
	read, err := again.Begin(ctx, w.Source)
	if err != nil {
		return err
	}
	defer read.Close(ctx)
	l := &landing{
		work: w, place: controlplane.Place{Unit: w.unit}, read: read, position: max(w.state.Position+1, read.At().UnixMicro()),
		buffers: &w.buffers, resolved: ids, tolerant: true,
	}
	_, err = l.land(ctx)
	return err
}

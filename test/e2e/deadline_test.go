package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/extract"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// TestWorkGoesOnInTheNextMessage has less time left than a run keeps for ending
// well: it does one batch, records it and sends itself the continuation (I11).
func TestWorkGoesOnInTheNextMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile("batch_rows: 100"), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 1000) n`)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := w.product
	r := extract.Runner{Dispatcher: w.dispatcher(c, tick.TopicExtract), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse}
	must(t, r.Run(ctx, w.delivery(`{"cadence":"1m"}`)))
	if n := w.count("SELECT COUNT(*) FROM shop.items"); n != 100 {
		t.Errorf("%d rows arrived before the deadline, want one batch of 100", n)
	}
	if diff := cmp.Diff([]tick.Message{{Pipeline: "shop", Table: "items"}}, w.published); diff != "" {
		t.Fatalf("continuation (-want +got):\n%s", diff)
	}
	must(t, w.extractOn(c, `{"pipeline":"shop","table":"items"}`))
	w.once("shop", "items")
}

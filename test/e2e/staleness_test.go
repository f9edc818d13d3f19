package e2e_test

import (
	"testing"
	"time"
)

// TestSweepWaitsForStaleness: what is to be removed from a table of changes is asked of
// BigQuery, which may not show it yet; the runs until then are no failures.
func TestSweepWaitsForStaleness(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
pipeline: shop
destination: {dataset: shop}
tables:
  - {name: items, capture: {method: changelog}, write: cdc, max_staleness: 2s, deletes: hard}
`, `CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 9) i`)
	w.bq.SetApplyDelay(2 * time.Second)
	w.tick()
	until := func(what string, rows int64) {
		t.Helper()
		for began := time.Now(); ; w.tick() {
			if w.count("SELECT COUNT(*) FROM shop.items") == rows {
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("%s: BigQuery shows %d rows, want %d", what, w.count("SELECT COUNT(*) FROM shop.items"), rows)
			}
		}
		if failed := w.value(`SELECT count(*) FROM tidemark.runs WHERE outcome = 'failed'`); failed != "0" {
			t.Errorf("%s: %s runs failed", what, failed)
		}
	}
	w.exec(`INSERT INTO items VALUES (10, 'of the same batch')`)
	w.exec(`TRUNCATE items`)
	w.exec(`INSERT INTO items VALUES (1, 'new'), (2, 'new')`)
	w.tick()
	until("truncated", 2)
	w.exec(`ALTER TABLE items DISABLE TRIGGER USER`)
	w.exec(`DELETE FROM items WHERE id = 2`)
	w.exec(`ALTER TABLE items ENABLE TRIGGER USER`)
	if err := w.extractOn(w.product, `{"full":true}`); err != nil {
		t.Fatal(err)
	}
	until("read again", 1)
	w.same("shop", "items")
}

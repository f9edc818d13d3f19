package e2e_test

import (
	"bytes"
	"fmt"
	"testing"
)

// TestDroppedDestination: somebody drops the table of a mode. A run fails, or finds out
// by itself; the next ones make it anew and load it.
func TestDroppedDestination(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"append", "history", "merge", "cdc, max_staleness: 0s", "replace"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			capture := "changelog"
			if mode == "replace" {
				capture = "snapshot"
			}
			w := newWorld(t, fmt.Sprintf("pipeline: shop\ndestination: {dataset: shop}\ndefaults: {deletes: hard}\ntables:\n  - {name: items, capture: {method: %s}, write: %s, deletes: %s}\n", capture, mode, map[bool]string{true: "soft", false: "hard"}[mode == "history"]),
				`CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 9) i`)
			w.provoked = []string{"Not found"}
			w.tick()
			base := "items"
			if mode == "append" {
				base = "items_log"
			}
			must(t, w.client.Dataset("shop").Table(base).Delete(t.Context()))
			for range 3 { // one may fail, the next finds out, and one loads
				w.exec(`UPDATE items SET name = name || '!' WHERE id = 3`)
				_ = w.extractOn(w.product, "")
			}
			w.tick()
			if mode == "history" {
				if n := w.count("SELECT COUNT(DISTINCT id) FROM shop.items"); n != 9 {
					t.Errorf("%d rows", n)
				}
				return
			}
			w.same("shop", "items")
		})
	}
}

// TestHashedKeyOfAChangeTable: the keys that a sweep reads back from BigQuery are hashes,
// and stay what they are.
func TestHashedKeyOfAChangeTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
pipeline: shop
destination: {dataset: shop}
tables:
  - {name: people, capture: {method: changelog}, write: cdc, max_staleness: 0s, deletes: hard, columns: {hash: [mail]}}
`, `CREATE TABLE people (mail text PRIMARY KEY, n int); INSERT INTO people SELECT 'p' || i || '@x', i FROM generate_series(1, 9) i`)
	w.product.HashKey = bytes.Repeat([]byte{7}, 32)
	w.tick()
	w.exec(`ALTER TABLE people DISABLE TRIGGER USER`)
	w.exec(`DELETE FROM people WHERE n > 4`)
	w.exec(`ALTER TABLE people ENABLE TRIGGER USER`)
	if err := w.extractOn(w.product, `{"full":true}`); err != nil {
		t.Fatal(err)
	}
	if n := w.count("SELECT COUNT(*) FROM shop.people"); n != 4 {
		t.Errorf("%d people after a resync", n)
	}
	w.exec(`TRUNCATE people`)
	w.exec(`INSERT INTO people VALUES ('new@x', 1)`)
	w.tick()
	if n := w.count("SELECT COUNT(*) FROM shop.people"); n != 1 {
		t.Errorf("%d people after a truncation", n)
	}
}

package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestCleanUpOfALargeLog has five million versions in sixty months, and rows of two of
// them change: the clean-up touches those two, though every other has as much that it
// could remove.
func TestCleanUpOfALargeLog(t *testing.T) {
	t.Parallel()
	const months, rows, versions = 60, 1000, 85 // of each month, of each row that changed
	w := newWorld(t, monthlyFile, itemsSQL, `ALTER TABLE items ADD created_at timestamptz NOT NULL DEFAULT now()`,
		`INSERT INTO items (id, name, created_at) SELECT n, 'item', date_trunc('month', now(), 'UTC') - (n % 60) * interval '1 month' FROM generate_series(1, 60000) n`)
	w.tick()
	w.dedup("")
	w.rows(`INSERT INTO shop.items_log (id, name, updated_at, created_at, _version, _synced_at, _deleted)
		SELECT l.id, l.name, l.updated_at, l.created_at, CONCAT('00000000/', LPAD(CAST(n AS STRING), 16, '0'), '/00000000'), l._synced_at, FALSE
		FROM shop.items_log AS l CROSS JOIN UNNEST(GENERATE_ARRAY(1, 83)) AS n`)
	w.exec(`UPDATE items SET name = 'changed', updated_at = clock_timestamp() WHERE id % 60 IN (7, 31)`)
	w.tick()
	const all = months*rows*(versions-1) + 2*rows
	if n := w.count("SELECT COUNT(*) FROM shop.items_log"); n != all {
		t.Fatalf("the log has %d versions, want %d", n, all)
	}
	q := w.client.Query("SELECT * FROM shop.items_log")
	q.DryRun = true
	size, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := len(w.bq.Statements())
	w.dedup("")
	touched, processed, deleted := map[string]int64{}, int64(0), int64(0)
	for _, s := range w.bq.Statements()[before:] {
		if s.Kind == "DELETE" && !s.DryRun {
			maps.Copy(touched, s.PartitionBytes)
			processed, deleted = processed+s.BytesProcessed, deleted+s.RowsAffected
		}
	}
	churned := w.value(`SELECT string_agg(DISTINCT to_char(created_at AT TIME ZONE 'UTC', 'YYYYMM'), ' ') FROM items WHERE name = 'changed'`)
	if got := strings.Join(slices.Sorted(maps.Keys(touched)), " "); got != churned || strings.Count(churned, " ") != 1 {
		t.Errorf("it touched the partitions %s, want %s", got, churned)
	}
	if want := int64(2 * rows * (versions - 1)); deleted != want {
		t.Errorf("it deleted %d versions, want %d", deleted, want)
	}
	bytes := int64(0)
	for _, n := range touched {
		bytes += n
	}
	if total := size.LastStatus().Statistics.TotalBytesProcessed; processed != bytes || processed*29 > total {
		t.Errorf("it processed %d bytes, want those of the two partitions, %d, of %d", processed, bytes, total)
	}
	if n := w.count("SELECT COUNT(*) FROM shop.items_log"); n != all-deleted {
		t.Errorf("%d versions are left, want %d", n, all-deleted)
	}
	want := fmt.Sprintf("ok %d %d %s", deleted, processed, churned)
	if got := w.value(`SELECT concat_ws(' ', outcome, rows_deleted, bytes, (SELECT string_agg(p, ' ' ORDER BY p) FROM jsonb_array_elements_text(detail->'partitions') p))
		FROM tidemark.runs WHERE kind = 'dedup' ORDER BY id DESC LIMIT 1`); got != want {
		t.Errorf("recorded: %s, want %s", got, want)
	}
	w.same("shop", "items")
}

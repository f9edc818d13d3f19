package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

const retainedFile = `pipeline: shop
destination: {dataset: shop}
tables:
  - {name: items, capture: {method: changelog}, deletes: %s, partition_by: {column: created_at, granularity: month}}
dedup: {every: 90m, keep_deleted: 24h}
`

// retained is a world with thirty rows in three months, of which the first three, one of
// each month, were changed and then deleted two days ago.
func retained(t *testing.T, deletes string) (w *world, file string) {
	t.Helper()
	file = fmt.Sprintf(retainedFile, deletes)
	w = newWorld(t, file, itemsSQL, `ALTER TABLE items ADD created_at timestamptz NOT NULL DEFAULT now()`,
		`INSERT INTO items (id, created_at) SELECT n, timestamptz '2026-01-15' + (n % 3) * interval '31 days' FROM generate_series(1, 30) n`)
	w.tick()
	w.exec(`UPDATE items SET name = 'changed' WHERE id <= 3`)
	w.tick()
	w.exec(`DELETE FROM items WHERE id <= 3`)
	w.tick()
	w.rows(`UPDATE shop.items_log SET _synced_at = TIMESTAMP_SUB(_synced_at, INTERVAL 48 HOUR) WHERE TRUE`)
	return w, file
}

// versionsOfTheDeleted counts what the log has of the rows up to 3.
func (w *world) versionsOfTheDeleted() int64 {
	w.t.Helper()
	return w.count(`SELECT COUNT(*) FROM shop.items_log WHERE id <= 3`)
}

// TestRetention: rows leave the log and what people query a day after they were deleted,
// it is looked for once a day and recorded, and a row that is there again stays.
func TestRetention(t *testing.T) {
	t.Parallel()
	for _, deletes := range []string{"soft", "hard"} {
		t.Run(deletes, func(t *testing.T) {
			t.Parallel()
			w, file := retained(t, deletes)
			w.exec(`INSERT INTO items (id, name, created_at) VALUES (3, 'again', '2026-02-20')`)
			w.tick()
			must(t, w.dedupIn(t.Context(), file, ""))
			if n := w.versionsOfTheDeleted(); n != 1 {
				t.Errorf("the log has %d versions of the deleted rows, want that of the one that came back", n)
			}
			if n := w.count(`SELECT COUNT(*) FROM shop.items`); n != 28 {
				t.Errorf("%d rows are shown, want the 28 of the source", n)
			}
			w.same("shop", "items")
			if got := w.value(`SELECT string_agg(outcome || ' ' || (detail->>'did'), ', ' ORDER BY id) FROM tidemark.runs WHERE kind = 'dedup'`); got != "ok cleaning up, ok removing rows deleted long ago from" {
				t.Errorf("recorded: %s", got)
			}
			before := len(w.bq.Statements())
			must(t, w.dedupIn(t.Context(), file, ""))
			if n := len(w.bq.Statements()) - before; n != 0 {
				t.Errorf("%d statements on the same day", n)
			}
			w.exec(`UPDATE tidemark.sync_state SET expired_at = expired_at - interval '1 day'`)
			must(t, w.dedupIn(t.Context(), file, ""))
			looks := w.bq.Statements()[before:]
			if len(looks) != 2 || !looks[0].DryRun || looks[1].Kind != "SELECT" {
				t.Errorf("a day later, with nothing to remove: %+v, want one look", looks)
			}
		})
	}
}

// TestRetentionOfDeletesThatAreIgnored does nothing, nor where none is declared.
func TestRetentionOfDeletesThatAreIgnored(t *testing.T) {
	t.Parallel()
	w, _ := retained(t, "soft")
	before := w.versionsOfTheDeleted()
	must(t, w.dedupIn(t.Context(), fmt.Sprintf(retainedFile, "ignore"), `{"full":true}`))
	must(t, w.dedupIn(t.Context(), strings.Replace(fmt.Sprintf(retainedFile, "soft"), ", keep_deleted: 24h", "", 1), `{"full":true}`))
	if n := w.versionsOfTheDeleted(); n == 0 || n > before {
		t.Errorf("the log has %d versions of the deleted rows, want what a clean-up leaves", n)
	}
	if n := w.count(`SELECT COUNT(*) FROM shop.items WHERE _deleted`); n != 3 {
		t.Errorf("%d deleted rows are shown, want 3", n)
	}
}

// TestRetentionWaitsForABackfill has a chunk of a resync saved and not committed: what it
// read is older than any change since, so tombstones stay until it has landed, and the
// backfill after it.
func TestRetentionWaitsForABackfill(t *testing.T) {
	t.Parallel()
	w, file := retained(t, "soft")
	w.bq.Intercept(func(c emulator.Call) error {
		if c.Method == "BatchCommitWriteStreams" && c.Phase == emulator.Before {
			return status.Error(codes.Internal, "not now")
		}
		return nil
	})
	if err := w.extractOn(w.product, `{"full":true}`); err == nil {
		t.Fatal("the resync went through")
	}
	if n := w.value(`SELECT count(pending) FROM tidemark.backfill_chunks`); n == "0" {
		t.Fatal("no chunk is pending")
	}
	must(t, w.dedupIn(t.Context(), file, `{"full":true}`))
	tombstones := func() int64 { return w.count(`SELECT COUNT(*) FROM shop.items_log WHERE _deleted`) }
	if n := tombstones(); n != 3 {
		t.Errorf("%d tombstones are left beside a backfill, want 3", n)
	}
	if n := w.value(`SELECT count(expired_at) FROM tidemark.sync_state`); n != "0" {
		t.Error("it is recorded as done")
	}
	w.bq.Intercept(nil)
	w.tick()
	must(t, w.dedupIn(t.Context(), file, ""))
	if n := tombstones(); n != 0 {
		t.Errorf("%d tombstones are left after the backfill, want 0", n)
	}
	w.same("shop", "items")
}

// TestRetentionWaitsForWhatIsPending does so for a batch of changes, and for the drain
// of a truncation.
func TestRetentionWaitsForWhatIsPending(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]string{
		"a batch":      `pending = '{"stream":"s","position":1,"cursor":null}'`,
		"a truncation": `truncated = '00000001/'`,
		"a new table":  `live = false`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, file := retained(t, "soft")
			before := w.versionsOfTheDeleted()
			w.exec(`DELETE FROM tidemark.dirty_partitions`)
			w.exec(`UPDATE tidemark.sync_state SET ` + set)
			must(t, w.dedupIn(t.Context(), file, ""))
			if n := w.versionsOfTheDeleted(); n != before || before == 0 {
				t.Errorf("%d versions of %d are left", n, before)
			}
			w.exec(`UPDATE tidemark.sync_state SET pending = NULL, truncated = '', live = true`)
			must(t, w.dedupIn(t.Context(), file, ""))
			if n := w.versionsOfTheDeleted(); n != 0 {
				t.Errorf("%d versions are left after it", n)
			}
		})
	}
}

// TestRetentionThatFailsIsNotRecorded leaves the next run to do it.
func TestRetentionThatFailsIsNotRecorded(t *testing.T) {
	t.Parallel()
	w, file := retained(t, "soft")
	w.exec(`DELETE FROM tidemark.dirty_partitions`)
	w.provoked = []string{"Job execution was cancelled"}
	w.bq.HoldJobs(w.cancelling("DELETE"))
	if err := w.dedupIn(t.Context(), file, ""); err == nil {
		t.Error("it went through")
	}
	if got := w.value(`SELECT outcome FROM tidemark.runs WHERE kind = 'dedup'`); got != "failed" {
		t.Errorf("recorded as %s", got)
	}
	w.bq.HoldJobs(nil)
	must(t, w.dedupIn(t.Context(), file, ""))
	if n := w.versionsOfTheDeleted(); n != 0 {
		t.Errorf("%d versions are left", n)
	}
}

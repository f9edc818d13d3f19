package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

const itemsSQL = `
	CREATE TABLE items (id bigint PRIMARY KEY, name text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON items (updated_at, id)`

func itemsFile(options string) string {
	return "pipeline: shop\ndestination: {dataset: shop}\ndefaults: {" + options + "}\ntables:\n  - {name: items, capture: {method: watermark, cursor: updated_at}}\n"
}

func TestFirstSightAndChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 1000) n`)
	w.tick()
	w.same("shop", "items")
	w.exec(`UPDATE items SET name = 'changed', updated_at = clock_timestamp() WHERE id <= 10`)
	w.exec(`INSERT INTO items VALUES (2000, NULL)`)
	w.tick()
	w.same("shop", "items")
	if n := w.count("SELECT COUNT(*) FROM shop.items_log"); n != 1011 {
		t.Errorf("the log has %d versions, want 1011", n)
	}
	w.dedup("")
	w.same("shop", "items")
	if n := w.count("SELECT COUNT(*) FROM shop.items_log"); n != 1001 {
		t.Errorf("after dedup the log has %d versions, want 1001", n)
	}
}

// begin opens a transaction that the test commits when it likes.
func (w *world) begin() pgx.Tx {
	w.t.Helper()
	tx, err := w.db.Begin(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return tx
}

func (w *world) in(tx pgx.Tx, sql string, args ...any) {
	w.t.Helper()
	if _, err := tx.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) commit(tx pgx.Tx) {
	w.t.Helper()
	if err := tx.Commit(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// once fails unless every row is in the log exactly once.
func (w *world) once(dataset, table string) {
	w.t.Helper()
	w.same(dataset, table)
	log := fmt.Sprintf("%s.%s_log", dataset, table)
	if versions, keys := w.count("SELECT COUNT(*) FROM "+log), w.count("SELECT COUNT(DISTINCT id) FROM "+log); versions != keys {
		w.t.Errorf("the log has %d versions of %d rows: some came twice", versions, keys)
	}
}

func TestTransactionsCommittingOutOfOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL)
	first, second := w.begin(), w.begin()
	w.in(first, `INSERT INTO items VALUES (1, 'first', now())`)
	w.in(second, `INSERT INTO items VALUES (2, 'second', now())`)
	w.commit(second)
	w.tick()
	w.commit(first)
	w.tick()
	w.tick()
	w.once("shop", "items")
}

func TestTransactionOpenAcrossManyTicks(t *testing.T) {
	t.Parallel()
	// Without any look-back for skewed clocks, only the pin of the open
	// transaction keeps the bound where that transaction began.
	w := newWorld(t, strings.Replace(itemsFile(""), "cursor: updated_at", "cursor: updated_at, lookback: 0s", 1), itemsSQL)
	w.tick()
	// It has a clock reading long before it has a transaction id, which it gets
	// only when it writes: hours pass, as far as the cursor is concerned.
	late := w.begin()
	w.in(late, `SELECT set_config('test.began', clock_timestamp()::text, false)`)
	for i := range 5 {
		w.exec(`INSERT INTO items VALUES ($1, 'meanwhile', now() + $2 * interval '1 hour')`, 100+i, i)
		w.tick()
	}
	w.in(late, `INSERT INTO items VALUES (1, 'late', current_setting('test.began')::timestamptz)`)
	w.tick()
	w.exec(`INSERT INTO items VALUES (200, 'after', now() + interval '9 hours')`)
	w.tick()
	w.commit(late)
	w.tick()
	w.tick()
	w.once("shop", "items")
}

// TestCommitBehindADrain commits a transaction that was open before the first
// sight in the middle of the drain, behind the cursor. The role cannot see since
// when it is open, so late rows are looked for when the drain is through.
func TestCommitBehindADrain(t *testing.T) {
	t.Parallel()
	file := itemsFile("batch_rows: 10")
	w := newWorld(t, file, itemsSQL, `INSERT INTO items SELECT n, 'item', now() - interval '1 day' + n * interval '1 minute' FROM generate_series(1, 100) n`)
	w.product = w.connectAs("plain", `GRANT SELECT ON items TO %s`)
	late := w.begin()
	w.in(late, `INSERT INTO items VALUES (1000, 'late', now() - interval '1 day' + interval '90 seconds')`)
	commits := 0
	w.bq.Intercept(func(c emulator.Call) error {
		if c.Method == "BatchCommitWriteStreams" && c.Phase == emulator.Before {
			if commits++; commits == 4 {
				return late.Commit(t.Context())
			}
		}
		return nil
	})
	must(t, w.extractOn(w.with(file), ""))
	must(t, w.extractOn(w.with(file), ""))
	w.same("shop", "items")
}

func TestRowsUnderSavepointsOfALateTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL)
	late := w.begin()
	w.in(late, `INSERT INTO items VALUES (1, 'top', clock_timestamp())`)
	w.in(late, `SAVEPOINT a`)
	w.in(late, `INSERT INTO items VALUES (2, 'sub', clock_timestamp())`)
	w.in(late, `RELEASE a`)
	w.exec(`INSERT INTO items VALUES (3, 'other', clock_timestamp())`)
	w.tick() // sees only 3, whose transaction id is above that of the savepoint
	w.exec(`INSERT INTO items VALUES (4, 'other', clock_timestamp())`)
	w.tick()
	w.commit(late)
	w.tick()
	w.tick()
	w.once("shop", "items")
}

func TestManyRowsOfOneInstantInSmallBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile("batch_rows: 500"), itemsSQL,
		`INSERT INTO items SELECT n, 'same', '2026-01-01 00:00:00+00' FROM generate_series(1, 1200) n`)
	w.tick()
	w.once("shop", "items")
	if n := w.count("SELECT COUNT(DISTINCT SUBSTR(_version, 1, 25)) FROM shop.items_log"); n != 3 {
		t.Errorf("read in %d batches, want 3", n)
	}
	// The same, committed late: behind a cursor that has passed it.
	late := w.begin()
	w.in(late, `INSERT INTO items SELECT n, 'same', now() FROM generate_series(2001, 3200) n`)
	w.exec(`INSERT INTO items VALUES (9999, 'past', now() + interval '1 hour')`)
	w.tick()
	w.commit(late)
	w.tick()
	w.once("shop", "items")
}

// TestTiesOfAnAddress: rows of one instant are taken in the order of their keys, which
// is not that of the keys' texts.
func TestTiesOfAnAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile("batch_rows: 7"), `CREATE TABLE items (a inet PRIMARY KEY, id int, updated_at timestamptz NOT NULL); CREATE INDEX ON items (updated_at, a)`)
	w.tick()
	w.exec(`INSERT INTO items SELECT inet '10.0.0.0' + n, n, '2026-01-01' FROM generate_series(1, 200) n`)
	w.tick()
	w.once("shop", "items")
}

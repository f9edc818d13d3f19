package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// poisoned is a table of so many rows, of which BigQuery cannot have one.
func poisoned(rows int) string {
	return fmt.Sprintf(`
	CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric, note text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON orders (updated_at, id);
	INSERT INTO orders SELECT n, CASE n WHEN 321 THEN 'NaN'::numeric ELSE n END, 'note ' || n FROM generate_series(1, %d) n`, rows)
}

// ordersBy follows the table of orders by a capture method.
func ordersBy(method, options string) string {
	if method == "watermark" {
		method += ", cursor: updated_at"
	}
	return strings.ReplaceAll(changelogFile(options), "method: changelog", "method: "+method)
}

// rejects are the kept rows of a table, by key: column and reason.
func (w *world) rejects(table string) map[string]string {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `SELECT coalesce(key::text, '-'), column_name || ': ' || reason FROM tidemark.rejects WHERE name = $1`, table)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var key, reason string
		if err := rows.Scan(&key, &reason); err != nil {
			w.t.Fatal(err)
		}
		if out[key] != "" {
			w.t.Errorf("%s is kept twice", key)
		}
		out[key] = reason
	}
	must(w.t, rows.Err())
	return out
}

// TestPoisonRow: of 500 rows in a batch, 499 land, and the other is kept whole until it
// can be carried (I7).
func TestPoisonRow(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"watermark", "changelog", "wal", "snapshot"} {
		for _, write := range []string{"append", "merge", "cdc", "history", "replace"} {
			if write == "replace" && method != "snapshot" || method == "wal" && write == "history" {
				continue
			}
			t.Run(method+" "+write, func(t *testing.T) {
				t.Parallel()
				options := ", batch_rows: 1000, write: " + write
				if write == "cdc" {
					options += ", max_staleness: 0s"
				}
				world := newWorld
				if method == "wal" {
					world = newLogicalWorld
				}
				poison(t, world(t, ordersBy(method, options), poisoned(0)))
			})
		}
	}
}

func poison(t *testing.T, w *world) {
	t.Helper()
	// BigQuery takes few load jobs within seconds.
	w.bq.Intercept(func(emulator.Call) error {
		w.ahead.Add(int64(time.Second))
		return nil
	})
	w.tick()
	w.exec(strings.SplitAfter(poisoned(500), "id);")[1])
	w.tick()
	w.landed(499)
	if diff := cmp.Diff(map[string]string{`["321"]`: "amount: numeric NaN has no BigQuery value"}, w.rejects("orders")); diff != "" {
		t.Fatalf("rejects (-want +got):\n%s", diff)
	}
	if got := w.value(`SELECT row->>'note' FROM tidemark.rejects`); got != "note 321" {
		t.Errorf("the kept row has the note %s", got)
	}
	// Still bad, in another way: it is kept anew, and read again but once.
	w.mend(`UPDATE orders SET amount = '1e100' WHERE id = 321`)
	w.retry()
	if diff := cmp.Diff(map[string]string{`["321"]`: "amount: numeric value is outside the range of the BigQuery type"}, w.rejects("orders")); diff != "" {
		t.Errorf("rejects after a retry in vain (-want +got):\n%s", diff)
	}
	w.landed(499)
	w.mend(`UPDATE orders SET amount = 321 WHERE id = 321`)
	w.retry()
	w.landed(500)
	if got := w.rejects("orders"); len(got) != 0 {
		t.Errorf("what was mended is still kept: %v", got)
	}
	// One that is deleted meanwhile is forgotten.
	w.exec(`INSERT INTO orders VALUES (600, 'NaN', 'gone soon')`)
	w.tick()
	if got := w.rejects("orders"); len(got) != 1 {
		t.Errorf("rejects: %v", got)
	}
	w.exec(`DELETE FROM orders WHERE id = 600`)
	w.retry()
	w.landed(500)
	if got := w.rejects("orders"); len(got) != 0 {
		t.Errorf("what was deleted is still kept: %v", got)
	}
}

// mend changes rows behind the back of triggers and cursors: as far as the capture
// method knows there is no change.
func (w *world) mend(sql string) {
	w.t.Helper()
	w.exec(`BEGIN; SET LOCAL session_replication_role = replica; ` + sql + `; COMMIT`)
}

func (w *world) retry() {
	w.t.Helper()
	must(w.t, w.extractOn(w.product, `{"retry":true}`))
}

// landed expects so many rows, each with the values of the source.
func (w *world) landed(rows int) {
	w.t.Helper()
	got := map[string]string{}
	for _, row := range w.rows("SELECT CAST(id AS STRING), CAST(amount AS STRING) FROM (" + newestOf("shop.orders", "id") + ") WHERE NOT _deleted") {
		got[fmt.Sprint(row[0])] = fmt.Sprint(row[1])
	}
	if len(got) != rows {
		w.t.Errorf("%d rows landed, want %d", len(got), rows)
	}
	for id, amount := range got {
		if id != amount {
			w.t.Errorf("order %s landed with the amount %s", id, amount)
		}
	}
}

// TestRetryByKeysOfEveryKind: what was kept is found again by its key.
func TestRetryByKeysOfEveryKind(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]struct{ columns, primary, values string }{
		"composite": {"a int, b smallint, c boolean", "a, b, c", "n, 7, n % 2 = 0"},
		"text":      {`word text`, "word", `E'quote '' "double" \\ \n {brace}, ' || n`},
		"uuid":      {"id uuid", "id", "md5(n::text)::uuid"},
		"timestamp": {"at timestamptz, day date, local timestamp", "at, day, local", "'2026-01-01 00:00:00.000001+00'::timestamptz + n * interval '1 h', date '2026-01-01' + n, timestamp '2026-01-01' + n * interval '1 s'"},
		"padded":    {"code char(6), price numeric(9,3), raw bytea", "code, price, raw", `'c' || n, n / 7.0, decode(lpad(n::text, 4, '0'), 'hex')`},
	} {
		for _, method := range []string{"watermark", "changelog", "wal"} {
			if method == "wal" && name != "timestamp" {
				continue
			}
			t.Run(name+" by "+method, func(t *testing.T) {
				t.Parallel()
				world := newWorld
				if method == "wal" {
					world = newLogicalWorld
				}
				w := world(t, ordersBy(method, ""), fmt.Sprintf(`CREATE TABLE orders (%s, amount numeric, updated_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (%s));
					CREATE INDEX ON orders (updated_at, %[2]s)`, key.columns, key.primary))
				w.tick()
				w.exec(fmt.Sprintf(`INSERT INTO orders SELECT %s, CASE WHEN n IN (3, 5) THEN 'NaN'::numeric ELSE n END FROM generate_series(1, 9) n`, key.values))
				w.tick()
				if got := w.rejects("orders"); len(got) != 2 {
					t.Fatalf("rejects: %v", got)
				}
				w.mend(`UPDATE orders SET amount = 1 WHERE amount = 'NaN'`)
				w.retry()
				if got := w.rejects("orders"); len(got) != 0 {
					t.Errorf("what was mended is still kept: %v", got)
				}
				w.same("shop", "orders")
			})
		}
	}
}

// TestTooManyRejectsStopTheTable, and no other: nothing of the batch lands, nothing is
// lost, and the record says why and what to do.
func TestTooManyRejectsStopTheTable(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"watermark", "changelog", "wal", "snapshot"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			world := newWorld
			if method == "wal" {
				world = newLogicalWorld
			}
			file := func(percent int) string {
				return ordersBy(method, ", max_reject_percent: "+strconv.Itoa(percent)) + "  - {name: items, capture: {method: " + method + map[bool]string{true: ", cursor: updated_at"}[method == "watermark"] + "}}\n"
			}
			w := world(t, file(10), poisoned(0), itemsSQL)
			w.tick()
			cursor := w.value(`SELECT cursor FROM tidemark.sync_state WHERE table_name = 'orders'`)
			// Up to a hundred are tolerated whatever their share.
			w.exec(`INSERT INTO orders SELECT n, CASE WHEN n <= 400 THEN n ELSE 'NaN'::numeric END FROM generate_series(1, 501) n; INSERT INTO items VALUES (1, 'goes on')`)
			err := w.extractOn(w.product, "")
			if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, "max_reject_percent") {
				t.Errorf("101 rejects in 501 rows: %v (%v: %s)", err, class, remedy)
			}
			w.landed(0)
			if got := w.rejects("orders"); len(got) != 0 {
				t.Errorf("%d rows are kept of a batch that is read again", len(got))
			}
			if got := w.value(`SELECT cursor FROM tidemark.sync_state WHERE table_name = 'orders'`); got != cursor {
				t.Errorf("the cursor moved from %s to %s", cursor, got)
			}
			if got := w.value(`SELECT outcome || ': ' || (error LIKE '%101 of 501 rows refused%') || ', ' || (remedy LIKE '%max_reject_percent%') FROM tidemark.runs WHERE name = 'orders' ORDER BY id DESC LIMIT 1`); got != "failed: true, true" {
				t.Errorf("the run's record: %s", got)
			}
			w.same("shop", "items")
			must(t, w.extractOn(w.with(file(25)), ""))
			w.landed(400)
			if got := w.rejects("orders"); len(got) != 101 {
				t.Errorf("%d rejects, want 101", len(got))
			}
		})
	}
}

// TestHundredRejectsAreTolerated whatever their share, in a table of few rows.
func TestHundredRejectsAreTolerated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ordersBy("changelog", ", max_reject_percent: 0"), poisoned(0))
	w.tick()
	w.exec(`INSERT INTO orders SELECT n, 'NaN'::numeric FROM generate_series(1, 100) n; INSERT INTO orders VALUES (900, 900)`)
	w.tick()
	w.landed(1)
	if got := w.rejects("orders"); len(got) != 100 {
		t.Errorf("%d rejects, want 100", len(got))
	}
}

// TestRejectsOfAnEarlierReading are replaced by those of the next that reads all rows.
func TestRejectsOfAnEarlierReading(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"watermark", "changelog", "wal", "snapshot"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			world := newWorld
			if method == "wal" {
				world = newLogicalWorld
			}
			w := world(t, ordersBy(method, ", deletes: hard"), poisoned(400), `INSERT INTO orders VALUES (500, 'Infinity'), (501, 'NaN')`)
			w.tick()
			want := map[string]string{`["321"]`: "amount: numeric NaN has no BigQuery value", `["500"]`: "amount: numeric infinity has no BigQuery value", `["501"]`: "amount: numeric NaN has no BigQuery value"}
			if diff := cmp.Diff(want, w.rejects("orders")); diff != "" {
				t.Fatalf("rejects (-want +got):\n%s", diff)
			}
			w.mend(`UPDATE orders SET amount = 321 WHERE id = 321; DELETE FROM orders WHERE id = 501`)
			must(t, w.extractOn(w.product, `{"full":true}`))
			delete(want, `["321"]`)
			delete(want, `["501"]`)
			if diff := cmp.Diff(want, w.rejects("orders")); diff != "" {
				t.Errorf("rejects after another reading (-want +got):\n%s", diff)
			}
			w.landed(400)
			w.mend(`UPDATE orders SET amount = 500 WHERE id = 500`)
			w.retry()
			if method == "snapshot" {
				w.tick()
			}
			w.same("shop", "orders")
		})
	}
}

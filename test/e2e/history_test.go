package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/instance"
)

// TestAnyHistory writes at random: transactions that overlap, stay open over
// ticks, use savepoints and roll back, with cursor values at every offset that
// the look-back allows for, ties and the future among them. Whatever the order,
// the view equals the table in the end, and no write arrives twice.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""))
	anyHistory(t, w, func(h *history, r *rapid.T) {
		doubled := w.count(fmt.Sprintf("SELECT COUNT(*) - COUNT(DISTINCT write) FROM d.%s_log", h.table))
		if doubled != 0 {
			r.Fatalf("%d writes arrived twice", doubled)
		}
	})
}

// TestAnyHistoryUnprivileged is the same for a role that cannot see since when
// others' transactions are open. Then a write may come once more if a transaction
// was open at the first sight; none may be lost.
func TestAnyHistoryUnprivileged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""))
	w.product = w.connectAs("plain", `ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO %s`)
	anyHistory(t, w, func(*history, *rapid.T) {})
}

func anyHistory(t *testing.T, w *world, check func(*history, *rapid.T)) {
	t.Helper()
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		h := newHistory(t, w, r, fmt.Sprintf("t%d", round))
		defer h.abandon()
		r.Repeat(map[string]func(*rapid.T){
			"begin": h.begin, "write": h.write, "savepoint": h.savepoint, "end": h.end, "tick": h.tick,
		})
		for len(h.open) > 0 {
			h.end(r)
		}
		h.extract()
		h.extract()
		if report := w.compare("d", h.table); !report.Agrees() {
			r.Fatalf("%s", report)
		}
		check(h, r)
	})
}

// history is one random history of one table.
type history struct {
	t       *testing.T
	w       *world
	table   string
	product *instance.Connections
	open    []*writer
	writes  int
	locked  map[int]bool // rows that an open transaction has written
}

type writer struct {
	tx   pgx.Tx
	rows []int
}

func newHistory(t *testing.T, w *world, r *rapid.T, table string) *history {
	t.Helper()
	w.exec(fmt.Sprintf(`CREATE TABLE %[1]s (id int PRIMARY KEY, write int NOT NULL, updated_at timestamptz NOT NULL); CREATE INDEX ON %[1]s (updated_at, id)`, table))
	file := fmt.Sprintf("pipeline: %[1]s\ndestination: {dataset: d}\ntables:\n  - {name: %[1]s, batch_rows: %[2]d, capture: {method: watermark, cursor: updated_at}}\n",
		table, rapid.SampledFrom([]int{1, 3, 1000}).Draw(r, "batch_rows"))
	return &history{t: t, w: w, table: table, product: w.with(file), locked: map[int]bool{}}
}

func (h *history) begin(r *rapid.T) {
	if len(h.open) == 3 {
		r.Skip("enough transactions are open")
	}
	tx := h.w.begin()
	h.w.in(tx, `SELECT 1`) // no transaction id yet, as in an application that reads first
	h.open = append(h.open, &writer{tx: tx})
}

// offsets from the start of the transaction: down to the look-back of 10
// minutes, exact minutes, hours and days, and far ahead.
func offset(r *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{
		0, time.Microsecond, time.Second, time.Minute, time.Hour, 2 * time.Hour, 24 * time.Hour, 366 * 24 * time.Hour,
		-time.Microsecond, -time.Second, -time.Minute, -10 * time.Minute,
	}).Draw(r, "offset")
}

func (h *history) write(r *rapid.T) {
	at := rapid.IntRange(-1, len(h.open)-1).Draw(r, "transaction")
	var by *writer
	if at >= 0 {
		by = h.open[at]
	}
	id := rapid.IntRange(1, 8).Draw(r, "id")
	if h.locked[id] && (by == nil || !by.holds(id)) {
		r.Skip("another transaction has the row")
	}
	h.writes++
	sql := fmt.Sprintf(`INSERT INTO %s AS t VALUES ($1, $2, now() + $3 * interval '1 microsecond') ON CONFLICT (id) DO UPDATE SET write = excluded.write, updated_at = excluded.updated_at`, h.table)
	if by == nil {
		h.w.exec(sql, id, h.writes, offset(r).Microseconds())
		return
	}
	h.w.in(by.tx, sql, id, h.writes, offset(r).Microseconds())
	by.rows = append(by.rows, id)
	h.locked[id] = true
}

func (w *writer) holds(id int) bool {
	for _, row := range w.rows {
		if row == id {
			return true
		}
	}
	return false
}

// savepoint writes one row in a subtransaction, kept or undone.
func (h *history) savepoint(r *rapid.T) {
	if len(h.open) == 0 {
		r.Skip("no transaction is open")
	}
	by := h.open[rapid.IntRange(0, len(h.open)-1).Draw(r, "transaction")]
	id := rapid.IntRange(11, 18).Draw(r, "id")
	if h.locked[id] && !by.holds(id) {
		r.Skip("another transaction has the row")
	}
	h.writes++
	h.w.in(by.tx, `SAVEPOINT s`)
	h.w.in(by.tx, fmt.Sprintf(`INSERT INTO %s AS t VALUES ($1, $2, now() + $3 * interval '1 microsecond') ON CONFLICT (id) DO UPDATE SET write = excluded.write, updated_at = excluded.updated_at`, h.table),
		id, h.writes, offset(r).Microseconds())
	by.rows = append(by.rows, id)
	h.locked[id] = true
	h.w.in(by.tx, rapid.SampledFrom([]string{`RELEASE s`, `ROLLBACK TO s`}).Draw(r, "end of savepoint"))
}

func (h *history) end(r *rapid.T) {
	if len(h.open) == 0 {
		r.Skip("no transaction is open")
	}
	at := rapid.IntRange(0, len(h.open)-1).Draw(r, "transaction")
	by := h.open[at]
	h.open = append(h.open[:at:at], h.open[at+1:]...)
	if rapid.IntRange(0, 4).Draw(r, "rolled back") == 0 {
		if err := by.tx.Rollback(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
	} else {
		h.w.commit(by.tx)
	}
	for _, id := range by.rows {
		delete(h.locked, id)
	}
}

// abandon frees what a failed round left open.
func (h *history) abandon() {
	for _, by := range h.open {
		_ = by.tx.Rollback(context.WithoutCancel(h.t.Context()))
	}
}

func (h *history) tick(*rapid.T) { h.extract() }

func (h *history) extract() {
	h.t.Helper()
	if err := h.w.extractOn(h.product, ""); err != nil {
		h.t.Fatal(err)
	}
}

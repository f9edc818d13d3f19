package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// TestQueryNeedsRights: of each table that a query reads, and of those beside it, the
// missing GRANT is named until there is none.
func TestQueryNeedsRights(t *testing.T) {
	t.Parallel()
	file := fmt.Sprintf(factsFile, "watermark, cursor: updated_at")
	w := newWorld(t, file, factsSQL)
	c := w.connectAs("reader", "GRANT SELECT ON orders TO %s")
	c.Pipelines = w.pipelines(file)
	err := w.extractOn(c, "")
	class, remedy := fault.Classify(err)
	if class != fault.Permanent || !strings.HasPrefix(remedy, "GRANT SELECT ON public.customers TO reader_") || !strings.Contains(err.Error(), "facts") {
		t.Fatalf("%v (%v), remedy %q", err, class, remedy)
	}
	w.exec(remedy)
	must(t, w.extractOn(c, ""))
	w.facts()
	w.exec("REVOKE SELECT ON customers FROM reader_" + w.value("SELECT current_database()"))
	w.exec(`UPDATE orders SET status = 'x', updated_at = clock_timestamp() WHERE id = 1`)
	err = w.extractOn(c, "")
	if class, again := fault.Classify(err); class != fault.Permanent || again != remedy {
		t.Errorf("%v (%v), remedy %q, want %q", err, class, again, remedy)
	}
}

// TestTriggersWaitForNobodyLong: a transaction that writes the table keeps the triggers
// out. Others would wait behind them, so they give up, leave nothing, and try again.
func TestTriggersWaitForNobodyLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", deletes: hard"), orders)
	writer := w.begin()
	t.Cleanup(func() { _ = writer.Rollback(t.Context()) })
	w.in(writer, `UPDATE orders SET status = 'held' WHERE id = 1`)
	err := w.extractOn(w.product, "")
	class, remedy := fault.Classify(err)
	if err == nil || class != fault.Transient || !strings.Contains(remedy, "pg_locks") || fault.SQLState(err) != "55P03" {
		t.Errorf("%v (%v), remedy %q", err, class, remedy)
	}
	if made := w.value(`SELECT (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass) + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace AND proname LIKE 'log\_%')`); made != "0" {
		t.Errorf("%s triggers and functions are left of an installation that failed", made)
	}
	if got := w.value(`SELECT count(*) FROM tidemark.sync_state WHERE cursor IS NOT NULL`); got != "0" {
		t.Error("the table is followed without its triggers")
	}
	w.exec(`UPDATE orders SET status = 'not kept waiting' WHERE id = 2`)
	w.commit(writer)
	w.tick()
	w.exec(`DELETE FROM orders WHERE id = 1`)
	w.tick()
	w.same("shop", "orders")
}

// TestKeyColumnOfTriggers: what the triggers name cannot be dropped or retyped unawares,
// and after it is renamed no change is lost: none is possible before the next run.
func TestKeyColumnOfTriggers(t *testing.T) {
	t.Parallel()
	refused := func(w *world, sql, code string) {
		t.Helper()
		_, err := w.db.Exec(w.t.Context(), sql)
		if got := fault.SQLState(err); got != code {
			w.t.Errorf("%s: %v, want SQLSTATE %s", sql, err, code)
		}
	}
	for name, test := range map[string]struct{ refused, code, change, insert string }{
		"dropped":  {`ALTER TABLE orders DROP id`, "2BP01", `ALTER TABLE orders DROP id CASCADE, ADD number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY`, `INSERT INTO orders (status) VALUES ('next')`},
		"retyped":  {`ALTER TABLE orders ALTER id TYPE text`, "0A000", ``, `INSERT INTO orders VALUES (21, 'next')`},
		"renamed":  {``, "", `ALTER TABLE orders RENAME id TO number`, `INSERT INTO orders VALUES (21, 'next')`},
		"replaced": {`DROP FUNCTION tidemark.%s()`, "2BP01", `ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY`, `INSERT INTO orders (id, status) VALUES (21, 'next')`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, changelogFile(", deletes: hard"), orders)
			w.tick()
			if test.refused != "" {
				function := w.value(`SELECT proname FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace AND proname LIKE 'log\_%\_old'`)
				refused(w, strings.Replace(test.refused, "%s", function, 1), test.code)
			}
			if test.change != "" {
				w.exec(test.change)
				if name != "replaced" {
					refused(w, `UPDATE orders SET status = 'lost'`, "42703") // by the trigger: better than not logged
				}
				must(t, w.extractOn(w.product, ""))
			}
			w.exec(`UPDATE orders SET note = 'after' WHERE note LIKE '%7'; DELETE FROM orders WHERE note LIKE '%5'`)
			w.exec(test.insert)
			w.tick()
			w.logged(name)
		})
	}
}

// logged compares what the view shows of orders with the source; a column that is gone
// from it stays in the view.
func (w *world) logged(when string) {
	w.t.Helper()
	want := w.value(`SELECT string_agg(status || ' ' || coalesce(note, '-'), ', ' ORDER BY status, note) FROM orders`)
	got := w.rows("SELECT STRING_AGG(CONCAT(status, ' ', COALESCE(note, '-')), ', ' ORDER BY status, note) FROM shop.orders")[0][0]
	if fmt.Sprint(got) != want {
		w.t.Errorf("%s: the view has %v, want %s", when, got, want)
	}
}

// TestKeyColumnThatIsDeclared and gone is named, with what there is.
func TestKeyColumnThatIsDeclared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", key: [id]"), orders)
	w.tick()
	w.exec(`ALTER TABLE orders RENAME id TO number`)
	err := w.extractOn(w.product, "")
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(err.Error(), `key column "id" of orders`) || !strings.Contains(remedy, "number, status, note") {
		t.Errorf("%v (%v), remedy %q", err, class, remedy)
	}
	must(t, w.extractOn(w.with(changelogFile(", key: [number]")), ""))
	w.exec(`UPDATE orders SET status = 'after' WHERE number = 1`)
	must(t, w.extractOn(w.with(changelogFile(", key: [number]")), ""))
	if got := w.rows("SELECT status FROM shop.orders WHERE number = 1 AND NOT _deleted"); len(got) != 1 || got[0][0] != "after" {
		t.Errorf("the row is %v", got)
	}
}

// TestRowLevelSecurity that may hide rows stops the table, by every method, with the
// statement; the application's own writes are not touched by it.
func TestRowLevelSecurity(t *testing.T) {
	t.Parallel()
	const sql = `ALTER TABLE orders ADD updated_at timestamptz NOT NULL DEFAULT clock_timestamp(); CREATE TABLE log (n serial PRIMARY KEY, object text)`
	for name, capture := range map[string]string{
		"changelog": "method: changelog", "watermark": "method: watermark, cursor: updated_at", "snapshot": "method: snapshot",
		"a log": "method: changelog, log: {table: log, cursor: n, object: object}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := strings.Replace(changelogFile(", deletes: soft"), "method: changelog", capture, 1)
			w := newWorld(t, file, orders, sql)
			c := w.connectAs("reader", "GRANT SELECT, TRIGGER ON orders, log TO %s")
			c.Pipelines = w.pipelines(file)
			must(t, w.extractOn(c, ""))
			for _, table := range []string{"orders", "log"} {
				if table == "log" && name != "a log" {
					continue
				}
				w.exec(`ALTER TABLE ` + table + ` ENABLE ROW LEVEL SECURITY; CREATE POLICY nobody ON ` + table + ` USING (false)`)
				w.exec(`UPDATE orders SET status = 'x', updated_at = clock_timestamp() WHERE id = 1; INSERT INTO log (object) VALUES ('1')`)
				err := w.extractOn(c, "")
				class, remedy := fault.Classify(err)
				if err == nil || class != fault.Permanent || !strings.Contains(err.Error(), "row-level security") || !strings.Contains(err.Error(), table) || !strings.HasPrefix(remedy, `ALTER ROLE "reader_`) {
					t.Errorf("%s: %v (%v), remedy %q", table, err, class, remedy)
				}
				w.exec(`ALTER TABLE ` + table + ` DISABLE ROW LEVEL SECURITY`)
			}
			w.exec(`ALTER TABLE orders ENABLE ROW LEVEL SECURITY; ALTER ROLE reader_` + w.value("SELECT current_database()") + ` BYPASSRLS`)
			must(t, w.extractOn(c, ""))
			w.same("shop", "orders")
		})
	}
}

// TestRowLevelSecurityOfTheLog: its owner is free of it, whoever writes the table; where
// it is forced on the owner too nothing is logged and nothing written.
func TestRowLevelSecurityOfTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", deletes: hard"), orders)
	c := w.connectAs("reader", "GRANT SELECT, TRIGGER ON orders TO %s")
	c.Pipelines = w.pipelines(changelogFile(", deletes: hard"))
	must(t, w.extractOn(c, ""))
	w.exec(`ALTER TABLE tidemark.change_log ENABLE ROW LEVEL SECURITY`)
	w.exec(`UPDATE orders SET status = 'x' WHERE id = 1`)
	must(t, w.extractOn(c, ""))
	w.same("shop", "orders")
	w.exec(`ALTER TABLE tidemark.change_log FORCE ROW LEVEL SECURITY`)
	_, err := w.db.Exec(t.Context(), `UPDATE orders SET status = 'y' WHERE id = 1`)
	if fault.SQLState(err) != "42501" {
		t.Errorf("a write that cannot be logged: %v", err)
	}
	err = w.extractOn(c, "")
	if class, _ := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(err.Error(), "change_log") {
		t.Errorf("%v (%v)", err, class)
	}
	w.exec(`ALTER TABLE tidemark.change_log NO FORCE ROW LEVEL SECURITY`)
	w.exec(`UPDATE orders SET status = 'z' WHERE id = 1`)
	must(t, w.extractOn(c, ""))
	w.same("shop", "orders")
}

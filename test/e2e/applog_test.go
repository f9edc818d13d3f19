package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// djangoSQL is Django's admin log and content types, and two models beside them. The
// functions are what its admin does: the change and its entry, in one transaction.
const djangoSQL = `
	CREATE TABLE django_content_type (id int PRIMARY KEY, app_label varchar(100) NOT NULL, model varchar(100) NOT NULL, UNIQUE (app_label, model));
	INSERT INTO django_content_type VALUES (7, 'shop', 'order'), (8, 'shop', 'customer'), (9, 'auth', 'user');
	CREATE TABLE django_admin_log (
		id serial PRIMARY KEY, action_time timestamptz NOT NULL DEFAULT clock_timestamp(), object_id text,
		content_type_id int REFERENCES django_content_type, action_flag smallint NOT NULL CHECK (action_flag >= 0));
	CREATE TABLE orders (id bigint PRIMARY KEY, status text NOT NULL, note text);
	CREATE TABLE customers (id uuid PRIMARY KEY, status text NOT NULL);
	INSERT INTO orders SELECT n, 'new', 'note ' || n FROM generate_series(1, 20) n;
	INSERT INTO customers SELECT ('00000000-0000-0000-0000-0000000000a' || n)::uuid, 'new' FROM generate_series(1, 5) n`

// djangoFile follows the models by the log; options go into that of orders.
func djangoFile(options string) string {
	return `
pipeline: shop
destination: {dataset: shop}
defaults: {deletes: soft` + options + `}
tables:
  - name: orders
    capture:
      method: changelog
      log:
        table: django_admin_log
        cursor: id
        object: object_id
        type: {column: content_type_id, query: "SELECT id FROM django_content_type WHERE app_label = 'shop' AND model = 'order'"}
        action: {column: action_flag, added: 1, changed: 2, deleted: 3}
  - name: customers
    capture:
      method: changelog
      log: {table: django_admin_log, cursor: id, object: object_id, type: {column: content_type_id, value: 8}, action: {column: action_flag, added: 1, changed: 2, deleted: 3}}
`
}

// logged is an entry about an order, or another type of object.
func logged(object any, flag int) string {
	return fmt.Sprintf(`INSERT INTO django_admin_log (object_id, content_type_id, action_flag) VALUES ('%v', 7, %d);`, object, flag)
}

// applied fails unless the view says of each order what is wanted, as in deleted.
func (w *world) applied(when string, want map[string]string) {
	w.t.Helper()
	got := w.deleted("shop.orders", "status")
	for key := range got {
		if _, asked := want[key]; !asked && got[key] == "there new" {
			delete(got, key)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

// TestDjangoLogDrivesDeleted as SMartApp's merge does: added, changed and deleted are
// an insert, an update and is_deleted, never a hard delete, of a row that keeps its
// last values.
func TestDjangoLogDrivesDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, djangoFile(""), djangoSQL)
	w.tick()
	w.same("shop", "orders", "customers")
	w.applied("at first", map[string]string{})

	w.exec(`INSERT INTO orders VALUES (21, 'added', NULL);` + logged(21, 1))
	w.tick()
	w.applied("added", map[string]string{"21": "there added"})

	w.exec(`UPDATE orders SET status = 'changed' WHERE id = 3;` + logged(3, 2))
	w.exec(`UPDATE orders SET status = 'not logged' WHERE id = 5`)
	w.tick()
	w.applied("changed", map[string]string{"21": "there added", "3": "there changed"})

	w.exec(`DELETE FROM orders WHERE id IN (3, 4);` + logged(3, 3) + logged(4, 3))
	w.tick()
	deleted := map[string]string{"21": "there added", "3": "deleted changed", "4": "deleted new"}
	w.applied("deleted", deleted)
	if n := w.count("SELECT COUNT(*) FROM shop.orders WHERE id = 4 AND note = 'note 4' AND _deleted"); n != 1 {
		t.Errorf("a deleted row is not there with its last values")
	}

	w.exec(`INSERT INTO orders VALUES (3, 'back', NULL);` + logged(3, 1))
	w.tick()
	deleted["3"] = "there back"
	w.applied("added again", deleted)

	// Gone by the time it is read; and the same object many times over.
	w.exec(`INSERT INTO orders VALUES (22, 'short', NULL);` + logged(22, 1) + `DELETE FROM orders WHERE id = 22;` + logged(22, 3))
	for n := range 10 {
		w.exec(fmt.Sprintf(`UPDATE orders SET status = 'change %d' WHERE id = 6;`, n) + logged(6, 2))
	}
	w.exec(logged(6, 3)) // an entry that says what did not happen: the row itself shows
	w.tick()
	deleted["22"], deleted["6"] = "deleted -", "there change 9"
	w.applied("many times", deleted)

	// An entry about a user, whose id an order has too, and one about a customer.
	versions := w.count("SELECT COUNT(*) FROM shop.orders_log")
	w.exec(`UPDATE orders SET status = 'not about it' WHERE id = 8; INSERT INTO django_admin_log (object_id, content_type_id, action_flag) VALUES ('8', 9, 3)`)
	w.exec(`UPDATE customers SET status = 'vip' WHERE id = '00000000-0000-0000-0000-0000000000a1'; INSERT INTO django_admin_log (object_id, content_type_id, action_flag) VALUES ('00000000-0000-0000-0000-0000000000A1', 8, 2)`)
	w.tick()
	w.applied("about others", deleted)
	if n := w.count("SELECT COUNT(*) FROM shop.orders_log"); n != versions {
		t.Errorf("%d versions of orders came with entries about others", n-versions)
	}
	w.same("shop", "customers")
	if n := w.value(`SELECT count(*) FROM tidemark.rejects`); n != "0" {
		t.Errorf("%s entries were refused", n)
	}
}

// TestLogEntryCommittedLate, and under a savepoint, long after later ones were read (I2).
func TestLogEntryCommittedLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, djangoFile(""), djangoSQL)
	w.tick()
	late := w.begin()
	t.Cleanup(func() { _ = late.Rollback(t.Context()) })
	w.in(late, `UPDATE orders SET status = 'late' WHERE id = 1`)
	w.in(late, logged(1, 2))
	w.in(late, `SAVEPOINT a`)
	w.in(late, `DELETE FROM orders WHERE id = 2`)
	w.in(late, logged(2, 3))
	w.in(late, `RELEASE a; SAVEPOINT b`)
	w.in(late, `DELETE FROM orders WHERE id = 3`)
	w.in(late, logged(3, 3))
	w.in(late, `ROLLBACK TO b`)
	for n := range 3 {
		w.exec(fmt.Sprintf(`UPDATE orders SET status = 'tick %d' WHERE id = 4;`, n) + logged(4, 2))
		w.tick()
	}
	w.applied("while it is open", map[string]string{"4": "there tick 2"})
	w.commit(late)
	w.tick()
	w.applied("after it", map[string]string{"4": "there tick 2", "1": "there late", "2": "deleted new"})
}

// TestMoreLogEntriesThanABatch, old and new, and late ones among them.
func TestMoreLogEntriesThanABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, djangoFile(", batch_rows: 100"), djangoSQL)
	w.tick()
	w.exec(`INSERT INTO orders SELECT n, 'bulk', NULL FROM generate_series(100, 449) n;
		INSERT INTO django_admin_log (object_id, content_type_id, action_flag) SELECT n::text, 7, 1 FROM generate_series(100, 449) n`)
	late := w.begin()
	t.Cleanup(func() { _ = late.Rollback(t.Context()) })
	w.in(late, `DELETE FROM orders WHERE id BETWEEN 100 AND 299`)
	w.in(late, `INSERT INTO django_admin_log (object_id, content_type_id, action_flag) SELECT n::text, 7, 3 FROM generate_series(100, 299) n`)
	w.exec(`UPDATE orders SET status = 'x' WHERE id >= 400; INSERT INTO django_admin_log (object_id, content_type_id, action_flag) SELECT n::text, 7, 2 FROM generate_series(400, 449) n`)
	w.tick()
	w.same("shop", "orders")
	w.commit(late)
	w.tick()
	if n := w.count("SELECT COUNT(*) FROM shop.orders WHERE _deleted"); n != 200 {
		t.Errorf("%d of 200 deleted orders are known", n)
	}
	if batches := w.count("SELECT COUNT(DISTINCT SUBSTR(_version, 1, 25)) FROM shop.orders_log WHERE id >= 100"); batches < 5 {
		t.Errorf("read in %d batches, want one of each 100 entries", batches)
	}
}

// TestAuditTables of other kinds: text actions or none, keys of text and of several
// columns, a log in another schema followed by its time.
func TestAuditTables(t *testing.T) {
	t.Parallel()
	const sql = `
		CREATE SCHEMA audit;
		CREATE TYPE audit.action AS ENUM ('create', 'update', 'delete');
		CREATE TABLE audit.entries (at timestamptz NOT NULL DEFAULT clock_timestamp(), id uuid PRIMARY KEY DEFAULT gen_random_uuid(), kind text, object text, line int, action audit.action);
		CREATE INDEX ON audit.entries (at, id);
		CREATE TABLE lines (order_id text, line int, status text, PRIMARY KEY (line, order_id));
		INSERT INTO lines SELECT 'o''' || n, n % 3, 'new' FROM generate_series(1, 9) n`
	for name, action := range map[string]string{
		"text actions": ", action: {column: action, added: [create], changed: [update], deleted: [delete]}",
		"no actions":   "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, `
pipeline: shop
destination: {dataset: shop}
defaults: {deletes: hard}
tables:
  - name: lines
    key: [order_id, line]
    capture: {method: changelog, log: {table: audit.entries, cursor: at, object: [object, line], type: {column: kind, value: "order line"}`+action+`}}
`, sql)
			w.tick()
			w.same("shop", "lines")
			w.exec(`INSERT INTO lines VALUES ('new "one", {with} \ it all', 1, 'x'); UPDATE lines SET status = 'paid' WHERE order_id = 'o''2'; DELETE FROM lines WHERE order_id = 'o''3'`)
			w.exec(`INSERT INTO audit.entries (kind, object, line, action) VALUES ('order line', 'new "one", {with} \ it all', 1, 'create'), ('order line', 'o''2', 2, 'update'), ('order line', 'o''3', 0, 'delete'), ('other', 'o''4', 1, 'delete')`)
			w.tick()
			w.same("shop", "lines")
			if n := w.value(`SELECT count(*) FROM tidemark.rejects`); n != "0" {
				t.Errorf("%s entries were refused", n)
			}
		})
	}
}

// TestLogEntriesThatNameNoRow are kept whole with what to do, and stop nothing.
func TestLogEntriesThatNameNoRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, djangoFile(""), djangoSQL)
	w.tick()
	w.exec(`UPDATE orders SET status = 'fine';` + logged(1, 2) + logged("12x", 2) + logged(2, 9) + logged("99999999999999999999", 3) + logged("", 2) +
		`INSERT INTO django_admin_log (object_id, content_type_id, action_flag) VALUES (NULL, 7, 2);` + logged(3, 2))
	w.tick()
	w.applied("the others", map[string]string{"1": "there fine", "3": "there fine"})
	want := map[string]string{"12x": "object_id", "2": "action_flag", "99999999999999999999": "object_id", "": "object_id", "NULL": "object_id"}
	rows, err := w.db.Query(t.Context(), `SELECT column_name, reason, row::text, name FROM tidemark.rejects`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	got := map[string]string{}
	for rows.Next() {
		var column, reason, row, name string
		if err := rows.Scan(&column, &reason, &row, &name); err != nil {
			t.Fatal(err)
		}
		var entry struct {
			Object *string `json:"object_id"`
			Type   int     `json:"content_type_id"`
			Time   string  `json:"action_time"`
		}
		if err := json.Unmarshal([]byte(row), &entry); err != nil || entry.Type != 7 || entry.Time == "" || name != "orders" {
			t.Errorf("%s: %v: the entry was not kept whole: %s", name, err, row)
		}
		if !strings.Contains(reason, "django_admin_log") || !strings.Contains(reason, "change") || !strings.Contains(reason, "log.") {
			t.Errorf("the reason does not say what to do: %s", reason)
		}
		object := "NULL"
		if entry.Object != nil {
			object = *entry.Object
		}
		got[object] = column
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	w.exec(`UPDATE orders SET status = 'next' WHERE id = 4;` + logged(4, 2))
	w.tick()
	w.applied("after them", map[string]string{"1": "there fine", "3": "there fine", "4": "there next"})
	if n := w.value(`SELECT count(*) FROM tidemark.rejects`); n != "5" {
		t.Errorf("%s entries are refused, want 5: the cursor did not move", n)
	}
}

// TestLogEntryWithoutAnObject names no row of a table whose key any text could be.
func TestLogEntryWithoutAnObject(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
pipeline: shop
destination: {dataset: shop}
tables:
  - {name: orders, deletes: soft, capture: {method: changelog, log: {table: log, cursor: n, object: object}}}
`, `CREATE TABLE log (n serial PRIMARY KEY, object text); CREATE TABLE orders (id text PRIMARY KEY, status text); INSERT INTO orders VALUES ('a', 'new')`)
	w.tick()
	w.exec(`INSERT INTO log (object) VALUES (NULL)`)
	w.tick()
	w.applied("view", map[string]string{})
	if got := w.value(`SELECT string_agg(column_name || ' ' || row::text, ', ') FROM tidemark.rejects`); got != `object {"n":1,"object":null}` {
		t.Errorf("refused: %s", got)
	}
}

// TestLogsThatCannotBeFollowed are refused by name, with the reason and the remedy.
func TestLogsThatCannotBeFollowed(t *testing.T) {
	t.Parallel()
	const query = `query: "SELECT id FROM django_content_type WHERE app_label = 'shop' AND model = 'order'"`
	for name, test := range map[string]struct{ old, with, want, remedy string }{
		"a type query without a row":       {"model = 'order'", "model = 'ordr'", "log.type.query returns 0 rows", "log.type.query|the one value"},
		"a type query with two":            {" AND model = 'order'", "", "log.type.query returns 2 rows", "the one value"},
		"a type query with NULL":           {query, `query: "SELECT NULL"`, "log.type.query returns NULL", "the one value"},
		"a type query that is wrong":       {query, `query: "SELECT FROM WHERE"`, "log.type.query", "the one value"},
		"a type query on no table":         {"FROM django_content_type", "FROM content_types", "log.type.query", "create the table"},
		"a type that the column cannot be": {query, "value: order", "log.type is no value of column content_type_id (integer) of django_admin_log", "log.type"},
		"a log that does not exist":        {"table: django_admin_log", "table: admin_log", "admin_log", "create"},
		"an object that does not exist":    {"object: object_id", "object: object", `log column "object" of django_admin_log`, "object_id"},
		"a type that does not exist":       {"column: content_type_id, query", "column: type_id, query", `log column "type_id" of django_admin_log`, "content_type_id"},
		"an action that does not exist":    {"column: action_flag, added", "column: flag, added", `log column "flag" of django_admin_log`, "action_flag"},
		"a cursor that does not exist":     {"cursor: id", "cursor: at", `cursor column "at" of django_admin_log`, "action_time"},
		"a cursor that does not grow":      {"cursor: id", "cursor: object_id", "cursor column object_id of django_admin_log", "choose a column"},
		"an object of two columns":         {"object: object_id", "object: [object_id, id]", "log.object of orders has 2 columns", "one column of the log for each"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := strings.Replace(djangoFile(""), test.old, test.with, 1)
			w := newWorld(t, file, djangoSQL)
			err := w.extractOn(w.product, `{"table":"orders"}`)
			class, remedy := fault.Classify(err)
			found := false
			for _, part := range strings.Split(test.remedy, "|") {
				found = found || strings.Contains(remedy, part)
			}
			if err == nil || class != fault.Permanent || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "orders") || !found {
				t.Errorf("%v (%v), remedy %q", err, class, remedy)
			}
		})
	}
}

// TestLogNeedsRights: who may not read the log, or what says its types, is told the
// statement.
func TestLogNeedsRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, djangoFile(""), djangoSQL)
	c := w.connectAs("reader", "GRANT SELECT ON orders TO %s")
	c.Pipelines = w.pipelines(djangoFile(""))
	for _, want := range []string{"GRANT SELECT ON the tables that log.type.query reads", `GRANT SELECT ON "public"."django_admin_log" TO reader_`} {
		err := w.extractOn(c, `{"table":"orders"}`)
		class, remedy := fault.Classify(err)
		if class != fault.Permanent || !strings.HasPrefix(remedy, want) {
			t.Fatalf("%v (%v), remedy %q, want %q", err, class, remedy, want)
		}
		if strings.Contains(want, "the tables") {
			remedy = `GRANT SELECT ON django_content_type TO reader_` + w.value("SELECT current_database()")
		}
		w.exec(remedy)
	}
	must(t, w.extractOn(c, `{"table":"orders"}`))
	w.same("shop", "orders")
}

// TestLogWrittenBeforeTheDelete: Django's admin writes of several deletions, and commits
// that, before it deletes; a tick comes in between.
func TestLogWrittenBeforeTheDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, djangoFile(""), djangoSQL)
	w.tick()
	w.exec(`INSERT INTO django_admin_log (object_id, content_type_id, action_flag) VALUES ('3', 7, 3), ('4', 7, 3)`)
	w.tick()
	if got := w.deleted("shop.orders", "status"); got["3"] != "there new" || got["4"] != "there new" {
		t.Errorf("before the delete: %s, %s", got["3"], got["4"])
	}
	w.exec(`DELETE FROM orders WHERE id = 3`)
	w.tick()
	w.tick()
	if got := w.deleted("shop.orders", "status"); got["3"] != "deleted new" || got["4"] != "there new" {
		t.Errorf("after the delete of one: %s, %s", got["3"], got["4"])
	}
	w.exec(`DELETE FROM orders WHERE id = 4`)
	w.tick()
	if got := w.deleted("shop.orders", "status"); got["4"] != "deleted new" {
		t.Errorf("after the delete of the other: %s", got["4"])
	}
	if n := w.count("SELECT COUNT(*) FROM shop.orders_log WHERE id IN (3, 4)"); n > 6 {
		t.Errorf("the log has %d versions of two rows: those that were waited for were sent again", n)
	}
}

package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
)

const factsFile = `
pipeline: shop
destination: {dataset: shop}
tables:
  - name: facts
    key: [order_id]
    query: |
      SELECT o.id AS order_id, c.name AS customer, upper(o.status) AS status, o.updated_at
      FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.status <> 'draft'
    capture: {method: watermark, cursor: updated_at}
    deletes: hard
    also_changed_by:
      - {table: customers, capture: {method: %s}, keys: "SELECT o.id FROM orders o WHERE o.customer_id IN (SELECT id FROM {changed})"}
`

const factsSQL = `
	CREATE TABLE customers (id bigint PRIMARY KEY, name text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, status text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON orders (updated_at, id);
	INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 5) n;
	INSERT INTO orders SELECT n, 1 + n % 5, 'new' FROM generate_series(1, 40) n`

// facts compares the view with the query itself.
func (w *world) facts() {
	w.t.Helper()
	want := w.value(`SELECT string_agg(concat_ws(' ', o.id, c.name, upper(o.status)), ', ' ORDER BY o.id) FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.status <> 'draft'`)
	var got []string
	for _, row := range w.rows("SELECT order_id, customer, status FROM shop.facts ORDER BY order_id") {
		got = append(got, fmt.Sprint(row[0], " ", row[1], " ", row[2]))
	}
	if diff := cmp.Diff(strings.Split(want, ", "), got); diff != "" {
		w.t.Errorf("facts (-want +got):\n%s", diff)
	}
}

// TestQueryFollowsWhatItShows: a row of the query changes with its base table, with
// the tables that are declared beside it, and leaves when the query no longer has it.
func TestQueryFollowsWhatItShows(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"watermark, cursor: updated_at", "changelog"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fmt.Sprintf(factsFile, method), factsSQL)
			w.tick()
			w.facts()
			for _, change := range []string{
				`UPDATE customers SET name = 'renamed', updated_at = clock_timestamp() WHERE id = 2`,
				`UPDATE orders SET status = 'paid', updated_at = clock_timestamp() WHERE id = 7`,
				`UPDATE orders SET status = 'draft', updated_at = clock_timestamp() WHERE id = 8`,
				`INSERT INTO orders VALUES (100, 2, 'new')`,
				`INSERT INTO customers VALUES (6, 'sixth'); INSERT INTO orders VALUES (101, 6, 'new')`,
			} {
				w.exec(change)
				w.tick()
				w.facts()
				if t.Failed() {
					t.Fatalf("after %s", change)
				}
			}
		})
	}
}

// TestQueryFindsLateCommits of its base table and of one beside it (I2).
func TestQueryFindsLateCommits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fmt.Sprintf(factsFile, "watermark, cursor: updated_at"), factsSQL)
	w.tick()
	late := w.begin()
	w.in(late, `UPDATE orders SET status = 'late', updated_at = clock_timestamp() WHERE id = 1`)
	w.in(late, `UPDATE customers SET name = 'late', updated_at = clock_timestamp() WHERE id = 3`)
	for n := range 3 {
		w.exec(`UPDATE orders SET status = 'tick' || $1, updated_at = clock_timestamp() WHERE id = 2`, fmt.Sprint(n))
		w.exec(`UPDATE customers SET name = 'tick' || $1, updated_at = clock_timestamp() WHERE id = 4`, fmt.Sprint(n))
		w.tick()
	}
	w.commit(late)
	w.tick()
	w.facts()
}

// TestQueriesThatCannotBeFollowed are refused with the reason and the remedy.
func TestQueriesThatCannotBeFollowed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ query, key, want string }{
		"a column without a name":     {`SELECT id, customer_id + 1, updated_at FROM orders`, "id", ""},
		"a name that comes twice":     {`SELECT o.id, c.id, o.updated_at FROM orders o JOIN customers c ON true`, "id", ""},
		"a key that it does not show": {`SELECT id, updated_at FROM orders`, "order_id", ""},
		"a key that is ambiguous":     {`SELECT o.customer_id AS id, o.updated_at FROM orders o`, "id", "more than once"},
		"a key of another table":      {`SELECT c.id, o.updated_at FROM orders o JOIN customers c ON c.id = o.customer_id`, "id", ""},
		"a computed cursor":           {`SELECT id, updated_at + interval '1s' AS updated_at FROM orders`, "id", ""},
		"a syntax error":              {`SELECT id, FROM orders`, "id", ""},
		"a table that is missing":     {`SELECT id, updated_at FROM nowhere`, "id", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fmt.Sprintf("pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: facts, key: [%s], query: %q, capture: {method: watermark, cursor: updated_at}}\n", test.key, test.query), factsSQL)
			err := w.extractOn(w.product, "")
			class, remedy := fault.Classify(err)
			if err == nil || class != fault.Permanent || remedy == "" || !strings.Contains(err.Error(), "facts") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v (%v), remedy %q", err, class, remedy)
			}
		})
	}
}

// TestSnapshot is the whole table every time: what is gone leaves, and readers see
// one state or the other.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: orders, capture: {method: snapshot}, deletes: hard}\n", orders)
	w.tick()
	w.same("shop", "orders")
	for _, change := range []string{
		`UPDATE orders SET status = 'x' WHERE id < 5; DELETE FROM orders WHERE id > 15; INSERT INTO orders VALUES (50, 'y', NULL)`,
		`TRUNCATE orders`,
		`INSERT INTO orders VALUES (1, 'z', NULL)`,
	} {
		w.exec(change)
		w.tick()
		w.same("shop", "orders")
	}
}

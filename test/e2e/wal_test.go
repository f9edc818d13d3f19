package e2e_test

import (
	"strings"
	"testing"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidemark-data/tidemark/shared/fault"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// logicalServer starts a server of its own, whose log can be decoded, and returns the
// URL of its database. Slots wait for every transaction of a server.
func logicalServer(t *testing.T) (*postgres.Server, string) {
	t.Helper()
	s, err := postgres.Start(t.Context(), postgres.Options{Settings: map[string]string{"wal_level": "logical", "max_replication_slots": "10"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.Stop()) })
	return s, s.URL("postgres")
}

func newLogicalWorld(t *testing.T, file string, sql ...string) *world {
	t.Helper()
	_, url := logicalServer(t)
	return newWorldOn(t, url, file, sql...)
}

func walFile(options string) string {
	return strings.ReplaceAll(changelogFile(options), "changelog", "wal")
}

// TestWALFollows every kind of change by the log alone.
func TestWALFollows(t *testing.T) {
	t.Parallel()
	w := newLogicalWorld(t, walFile(", deletes: hard"), orders)
	w.tick()
	w.same("shop", "orders")
	for _, change := range []string{
		`INSERT INTO orders VALUES (21, 'new', NULL)`,
		`UPDATE orders SET status = 'paid' WHERE id <= 5`,
		`DELETE FROM orders WHERE id = 7`,
		`UPDATE orders SET id = 100 + id WHERE id IN (1, 2)`,
		`BEGIN; DELETE FROM orders WHERE id = 8; INSERT INTO orders VALUES (8, 'again', 'x'); COMMIT`,
		`BEGIN; UPDATE orders SET id = 200 WHERE id = 9; UPDATE orders SET id = 9 WHERE id = 10; COMMIT`,
		`BEGIN; SAVEPOINT s; UPDATE orders SET status = 'no'; ROLLBACK TO s; UPDATE orders SET status = 'yes' WHERE id = 11; COMMIT`,
		`ALTER TABLE orders ALTER note SET STORAGE EXTERNAL; UPDATE orders SET note = repeat('long', 10000) WHERE id = 12`,
		`UPDATE orders SET status = 'note unchanged' WHERE id = 12`,
		`UPDATE orders SET id = 112 WHERE id = 12`,
		`BEGIN; INSERT INTO orders VALUES (300, 'before', 'alter'); ALTER TABLE orders ADD price numeric DEFAULT 7; UPDATE orders SET status = 'after' WHERE id = 13; COMMIT`,
		`ALTER TABLE orders ADD place inet; UPDATE orders SET place = '10.0.0.1' WHERE id = 14`,
		`TRUNCATE orders`,
		`BEGIN; INSERT INTO orders VALUES (1, 'a', 'b'); TRUNCATE orders; INSERT INTO orders VALUES (2, 'c', 'd'); COMMIT`,
		`INSERT INTO orders SELECT n, 'bulk', NULL FROM generate_series(1000, 1100) n`,
	} {
		w.exec(change)
		w.tick()
		if strings.Contains(change, "ADD price") { // the rows of before have the default by no change
			must(t, w.extractOn(w.product, `{"full":true}`))
		}
		if report := w.compare("shop", "orders"); !report.Agrees() {
			t.Errorf("after %s:\n%s", change, report)
		}
	}
	if got := w.value(`SELECT bool_and(detail ? 'lag_bytes') FROM tidemark.runs`); got != "true" {
		t.Error("a run does not say how far behind its slot was")
	}
}

// TestGeneratedColumn (Estuary): the log lacks its values, and the table has them.
func TestGeneratedColumn(t *testing.T) {
	t.Parallel()
	w := newLogicalWorld(t, walFile(", deletes: hard"), `CREATE TABLE orders (id bigint PRIMARY KEY, price int, double int GENERATED ALWAYS AS (price * 2) STORED)`, `INSERT INTO orders SELECT n, n FROM generate_series(1, 5) n`)
	w.tick()
	w.exec(`UPDATE orders SET price = 10 WHERE id = 2; DELETE FROM orders WHERE id = 3; INSERT INTO orders VALUES (9, 9); UPDATE orders SET id = 40 WHERE id = 4`)
	w.tick()
	w.same("shop", "orders")
}

// TestWALKeepsWhatIsDeleted as the policy says.
func TestWALKeepsWhatIsDeleted(t *testing.T) {
	t.Parallel()
	keepsWhatIsDeleted(t, newLogicalWorld, walFile)
}

// TestSlotIsConfirmedOnlyAfterTheCommit: a commit that fails leaves the slot where it
// was, and the changes come again (I1).
func TestSlotIsConfirmedOnlyAfterTheCommit(t *testing.T) {
	t.Parallel()
	w := newLogicalWorld(t, walFile(", deletes: hard"), orders)
	w.tick()
	w.exec(`UPDATE orders SET status = 'paid'; DELETE FROM orders WHERE id = 3`)
	written := w.value(`SELECT pg_current_wal_lsn()`)
	w.bq.Intercept(failing("BatchCommitWriteStreams"))
	if err := w.extractOn(w.product, ""); err == nil {
		t.Fatal("a commit that failed counted as done")
	}
	if got := w.value(`SELECT confirmed_flush_lsn < $1::text::pg_lsn FROM pg_replication_slots`, written); got != "true" {
		t.Error("the slot was confirmed past changes that are not durable")
	}
	w.bq.Intercept(nil)
	w.tick()
	w.same("shop", "orders")
	if got := w.value(`SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots`, written); got != "true" {
		t.Error("the slot was not confirmed")
	}
}

// TestOneTableDoesNotStopTheSlot: a table whose rows cannot be landed holds the slot,
// and the others go on (I7).
func TestOneTableDoesNotStopTheSlot(t *testing.T) {
	t.Parallel()
	w := newLogicalWorld(t, `
pipeline: shop
destination: {dataset: shop}
tables:
  - {name: orders, capture: {method: wal}, deletes: hard}
  - {name: items, capture: {method: wal}, deletes: hard}
`, orders, `CREATE TABLE items (id int PRIMARY KEY, v text)`, `INSERT INTO items VALUES (1, 'a')`)
	w.tick()
	w.bq.Intercept(func(c emulator.Call) error {
		if r, ok := c.Request.(*storagepb.CreateWriteStreamRequest); ok && strings.HasSuffix(r.GetParent(), "items_log") && c.Phase == emulator.Before {
			return status.Error(codes.Internal, "not now")
		}
		return nil
	})
	for range 3 {
		w.exec(`BEGIN; UPDATE orders SET status = status || '+'; INSERT INTO items SELECT 1 + max(id), 'b' FROM items; COMMIT`)
		if err := w.extractOn(w.product, ""); err == nil || !strings.Contains(err.Error(), "items") {
			t.Errorf("got %v, want the failure of items", err)
		}
		w.same("shop", "orders")
	}
	w.bq.Intercept(nil)
	w.tick()
	w.same("shop", "orders", "items")
	if n := w.count("SELECT COUNT(*) FROM shop.orders_log"); n != 4*20 {
		t.Errorf("the log of orders has %d versions, want 80: what had landed was landed again", n)
	}
}

// TestCaptureAfterSlotDropped (Estuary): what changed meanwhile is found by reading
// the tables again, with a record that says why; so it is after a publication lost
// a table, and after somebody moved the slot.
func TestCaptureAfterSlotDropped(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ damage, reason string }{
		"dropped":            {`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`, "gone"},
		"moved":              {`DO $$ BEGIN UPDATE orders SET note = 'moved past'; END $$; SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots`, "moved"},
		"restored":           {`UPDATE tidemark.sync_state SET cursor = jsonb_set(cursor, '{lsn}', '"FF/0"')`, "restore"}, // as if the log had been longer
		"out of publication": {`DO $$ BEGIN EXECUTE format('ALTER PUBLICATION %I DROP TABLE orders', (SELECT pubname FROM pg_publication)); END $$`, "publication"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newLogicalWorld(t, walFile(", deletes: hard"), orders)
			w.tick()
			w.exec(test.damage)
			w.exec(`UPDATE orders SET status = 'unseen' WHERE id < 5; DELETE FROM orders WHERE id = 20`)
			w.tick()
			w.same("shop", "orders")
			if got := w.value(`SELECT reason FROM tidemark.backfills`); !strings.Contains(got, test.reason) {
				t.Errorf("reason of the resync: %q", got)
			}
			if got := w.value(`SELECT string_agg(detail::text, '') FROM tidemark.runs`); !strings.Contains(got, test.reason) {
				t.Errorf("no run tells of it: %s", got)
			}
		})
	}
}

// TestSlotGoesWithTheMethod: a slot that nothing reads would fill the disk.
func TestSlotGoesWithTheMethod(t *testing.T) {
	t.Parallel()
	w := newLogicalWorld(t, walFile(""), orders)
	w.tick()
	if n := w.value(`SELECT count(*) FROM pg_replication_slots`); n != "1" {
		t.Fatalf("%s slots", n)
	}
	if err := w.extractOn(w.with(changelogFile("")), ""); err != nil {
		t.Fatal(err)
	}
	if n := w.value(`SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)`); n != "0" {
		t.Errorf("%s slots and publications are left", n)
	}
}

// TestWALNeeds what it needs, and says so with the statement: before the application's
// own updates would fail.
func TestWALNeeds(t *testing.T) {
	t.Parallel()
	t.Run("wal_level", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, walFile(""), orders)
		err := w.extractOn(w.product, "")
		if class, remedy := fault.Classify(err); class != fault.Permanent || !strings.Contains(remedy, "logical_decoding") {
			t.Errorf("%v: remedy %q", err, remedy)
		}
	})
	t.Run("replica identity", func(t *testing.T) {
		t.Parallel()
		w := newLogicalWorld(t, walFile(""), orders, `ALTER TABLE orders REPLICA IDENTITY NOTHING`)
		err := w.extractOn(w.product, "")
		if class, remedy := fault.Classify(err); class != fault.Permanent || !strings.Contains(remedy, "REPLICA IDENTITY") {
			t.Errorf("%v: remedy %q", err, remedy)
		}
		w.exec(`UPDATE orders SET status = 'the application goes on'`)
	})
	t.Run("rights", func(t *testing.T) {
		t.Parallel()
		w := newLogicalWorld(t, walFile(""), orders)
		c := w.connectAs("reader", "GRANT SELECT ON orders TO %s")
		c.Pipelines = w.pipelines(walFile(""))
		err := w.extractOn(c, "")
		class, remedy := fault.Classify(err)
		if class != fault.Permanent || !strings.Contains(remedy, "REPLICATION") {
			t.Fatalf("%v: remedy %q", err, remedy)
		}
		w.exec(remedy)
		err = w.extractOn(c, "")
		class, remedy = fault.Classify(err)
		_, statement, ok := strings.Cut(remedy, "run: ")
		if class != fault.Permanent || !ok {
			t.Fatalf("%v: remedy %q", err, remedy)
		}
		w.exec(statement)
		must(t, w.extractOn(c, ""))
		w.same("shop", "orders")
	})
}

// failing has every call of a method fail before BigQuery does anything.
func failing(method string) func(emulator.Call) error {
	return func(c emulator.Call) error {
		if c.Method == method && c.Phase == emulator.Before {
			return status.Error(codes.Internal, "no")
		}
		return nil
	}
}

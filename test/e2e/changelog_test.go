package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

const orders = `
	CREATE TABLE orders (id bigint PRIMARY KEY, status text NOT NULL, note text);
	INSERT INTO orders SELECT n, 'new', 'note ' || n FROM generate_series(1, 20) n`

func changelogFile(options string) string {
	return `
pipeline: shop
destination: {dataset: shop}
tables:
  - {name: orders, capture: {method: changelog}` + options + `}
`
}

// deleted is what the view says of each key: whether it is deleted, and its status.
func (w *world) deleted(table, column string) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for _, row := range w.rows(fmt.Sprintf("SELECT CAST(id AS STRING), IF(_deleted, 'deleted', 'there'), COALESCE(%s, '-') FROM `%s.%s`", column, project, table)) {
		out[fmt.Sprint(row[0])] = fmt.Sprint(row[1], " ", row[2])
	}
	return out
}

// TestChangelogFollows every kind of change, by the triggers alone: the table has no
// cursor column at all.
func TestChangelogFollows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", deletes: hard"), orders)
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
		`TRUNCATE orders`,
		`BEGIN; INSERT INTO orders VALUES (1, 'a', 'b'); TRUNCATE orders; INSERT INTO orders VALUES (2, 'c', 'd'); COMMIT`,
		`INSERT INTO orders SELECT n, 'bulk', NULL FROM generate_series(1000, 1100) n`,
	} {
		w.exec(change)
		w.tick()
		if report := w.compare("shop", "orders"); !report.Agrees() {
			t.Errorf("after %s:\n%s", change, report)
		}
	}
	if left := w.value(`SELECT count(*) FROM tidemark.change_log WHERE key IS NOT NULL`); left != "0" {
		t.Errorf("%s consumed entries are still in the log", left)
	}
}

// TestChangelogKeepsWhatIsDeleted: by policy a deleted row leaves, stays marked with
// its last values, or stays as it was; a key that comes back is there again.
func TestChangelogKeepsWhatIsDeleted(t *testing.T) {
	t.Parallel()
	keepsWhatIsDeleted(t, newWorld, changelogFile)
}

func keepsWhatIsDeleted(t *testing.T, world func(*testing.T, string, ...string) *world, file func(string) string) {
	t.Helper()
	for policy, want := range map[string]map[string]string{
		"soft":   {"1": "there back", "2": "deleted new", "3": "there new", "4": "deleted new"},
		"hard":   {"1": "there back", "3": "there new"},
		"ignore": {"1": "there back", "2": "there new", "3": "there new", "4": "there new"},
	} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			w := world(t, file(", deletes: "+policy), orders, `DELETE FROM orders WHERE id > 4`)
			w.tick()
			w.exec(`DELETE FROM orders WHERE id IN (1, 2)`)
			w.tick()
			w.exec(`INSERT INTO orders VALUES (1, 'back', NULL)`)
			w.exec(`DELETE FROM orders WHERE id = 4`)
			w.tick()
			if diff := cmp.Diff(want, w.deleted("shop.orders", "status")); diff != "" {
				t.Errorf("view (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPurgeLeavesTheArchiveWhole: what the source purges by the thousand, or by
// truncation, is still in the warehouse under deletes: ignore.
func TestPurgeLeavesTheArchiveWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", deletes: ignore"), orders)
	w.tick()
	w.exec(`DELETE FROM orders WHERE id <= 10`)
	w.tick()
	w.exec(`TRUNCATE orders`)
	w.tick()
	w.exec(`INSERT INTO orders VALUES (1, 'after', NULL)`)
	w.tick()
	if n := w.count("SELECT COUNT(*) FROM `" + project + ".shop.orders` WHERE NOT _deleted"); n != 20 {
		t.Errorf("%d of 20 rows are left", n)
	}
	if got := w.deleted("shop.orders", "status")["1"]; got != "there after" {
		t.Errorf("the row that came again: %s", got)
	}
}

// TestChangelogWaitsForOpenTransactions: an entry is committed long after later ones
// were read, and arrives (I2).
func TestChangelogWaitsForOpenTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", deletes: hard"), orders)
	w.tick()
	ctx := t.Context()
	early, err := w.db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := early.Exec(ctx, `UPDATE orders SET status = 'early' WHERE id = 1`); err != nil {
		t.Fatal(err)
	}
	if _, err := early.Exec(ctx, `DELETE FROM orders WHERE id = 2`); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.exec(`UPDATE orders SET status = status || '+' WHERE id = 3`)
		w.tick()
	}
	if err := early.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	w.tick()
	w.same("shop", "orders")
}

// TestChangelogThatWasDisabled: changes that no trigger saw are found by reading the
// whole table again, and the run says so.
func TestChangelogThatWasDisabled(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"disabled":             `ALTER TABLE orders DISABLE TRIGGER ALL`,
		"disabled for a while": `BEGIN; ALTER TABLE orders DISABLE TRIGGER USER; UPDATE orders SET note = 'meanwhile'; ALTER TABLE orders ENABLE TRIGGER USER; COMMIT`,
		"dropped":              `DO $$ DECLARE n text; BEGIN FOR n IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal LOOP EXECUTE format('DROP TRIGGER %I ON orders', n); END LOOP; END $$`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, changelogFile(", deletes: hard"), orders)
			w.tick()
			w.exec(damage)
			w.exec(`UPDATE orders SET status = 'unseen' WHERE id < 5`)
			w.exec(`DELETE FROM orders WHERE id = 20`)
			w.tick()
			w.same("shop", "orders")
			w.tick()
			if got := w.value(`SELECT generation FROM tidemark.sync_state`); got != "2" {
				t.Errorf("generation %s after one loss", got)
			}
			if got := w.value(`SELECT reason FROM tidemark.backfills`); !strings.Contains(got, "triggers") {
				t.Errorf("reason of the resync: %q", got)
			}
			w.exec(`UPDATE orders SET status = 'seen' WHERE id = 6`)
			w.tick()
			w.same("shop", "orders")
		})
	}
}

// TestTriggersGoWithTheMethod: a table that is no longer followed by its log is no
// longer logged.
func TestTriggersGoWithTheMethod(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(""), orders, `ALTER TABLE orders ADD updated_at timestamptz NOT NULL DEFAULT now()`)
	w.tick()
	later := w.with(strings.Replace(changelogFile(""), "method: changelog", "method: watermark, cursor: updated_at", 1))
	if err := w.extractOn(later, ""); err != nil {
		t.Fatal(err)
	}
	if n := w.value(`SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal`); n != "0" {
		t.Errorf("%s triggers are left", n)
	}
	w.exec(`UPDATE orders SET status = 'x', updated_at = now()`)
	if n := w.value(`SELECT count(*) FROM tidemark.change_log`); n != "0" {
		t.Errorf("%s entries are logged for nobody", n)
	}
}

const (
	tenantsFile = `
pipeline: shop
destination: {dataset: shop}
tenants: {query: "SELECT id FROM organizations ORDER BY id", column: organization_id, dataset: "org_{id}"}
tables:
  - {name: orders, capture: {method: changelog}, deletes: soft}
`
	tenantsSQL = `
		CREATE TABLE organizations (id int PRIMARY KEY); INSERT INTO organizations VALUES (1), (2);
		CREATE TABLE orders (id bigint PRIMARY KEY, organization_id int, status text);
		INSERT INTO orders SELECT n, 1 + n % 2, 'new' FROM generate_series(1, 6) n`
)

// bothTenants runs Extract for each.
func (w *world) bothTenants() {
	w.t.Helper()
	for _, tenant := range strings.Split(w.value(`SELECT string_agg(format('%s', id), ',') FROM (`+strings.TrimSuffix(w.product.Pipelines[0].Tenants.Query, " ORDER BY id")+`) t`), ",") {
		if err := w.extractOn(w.product, `{"tenant":"`+tenant+`"}`); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestChangelogByTenant: each tenant's log is its own: a row that moves is gone from
// the one and new to the other, and a deleted row's key is told to its tenant alone (I8).
func TestChangelogByTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tenantsFile, tenantsSQL)
	w.bothTenants()
	w.exec(`UPDATE orders SET organization_id = 2 WHERE id = 2`) // of tenant 1
	w.exec(`DELETE FROM orders WHERE id = 1`)                    // of tenant 2
	w.exec(`UPDATE orders SET organization_id = NULL WHERE id = 4`)
	w.exec(`INSERT INTO orders VALUES (9, NULL, 'nobody')`)
	w.bothTenants()
	want := map[string]map[string]string{
		"org_1": {"2": "deleted new", "4": "deleted new", "6": "there new"},
		"org_2": {"1": "deleted new", "2": "there new", "3": "there new", "5": "there new"},
	}
	for dataset, rows := range want {
		if diff := cmp.Diff(rows, w.deleted(dataset+".orders", "status")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", dataset, diff)
		}
	}
	if n := w.value(`SELECT count(*) FROM tidemark.change_log`); n != "0" {
		t.Errorf("%s entries are left", n)
	}
	w.exec(`INSERT INTO orders VALUES (10, 3, 'of a tenant that nobody follows')`)
	w.exec(`INSERT INTO orders VALUES (11, 1, 'followed'), (12, 2, 'followed')`)
	w.await(`SELECT pg_snapshot_xmin(pg_current_snapshot()) > max(xid) FROM tidemark.change_log`)
	if err := w.extractOn(w.product, `{"tenant":"2"}`); err != nil {
		t.Fatal(err)
	}
	if got := w.value(`SELECT string_agg(tenant, ',') FROM tidemark.change_log`); got != "1" {
		t.Errorf("the log has entries of tenants %s, want those of 1 alone", got)
	}
}

// TestChangelogNeedsRights: who may not create triggers is told the statement.
func TestChangelogNeedsRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(""), orders)
	c := w.connectAs("reader", "GRANT SELECT ON orders TO %s")
	c.Pipelines = w.pipelines(changelogFile(""))
	err := w.extractOn(c, "")
	class, remedy := fault.Classify(err)
	if class != fault.Permanent || !strings.HasPrefix(remedy, `GRANT TRIGGER ON "public"."orders" TO reader_`) {
		t.Errorf("%v: class %v, remedy %q", err, class, remedy)
	}
	w.exec(remedy)
	if err := w.extractOn(c, ""); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE orders SET status = 'paid'`) // by somebody who may not write the log
	if err := w.extractOn(c, ""); err != nil {
		t.Fatal(err)
	}
	w.same("shop", "orders")
}

// TestFullReadsAgain: a resync that a message asks for happens once, however often the
// message comes; it finds what no cursor told, and readers never see fewer rows.
func TestFullReadsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), `CREATE TABLE items (id bigint PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT now(), note text)`,
		`INSERT INTO items SELECT n, now(), 'x' FROM generate_series(1, 100) n`)
	w.tick()
	w.exec(`UPDATE items SET note = 'behind the cursor' WHERE id < 10`)
	w.exec(`DELETE FROM items WHERE id > 90`)
	for range 2 {
		if err := w.extractOn(w.product, `{"full":true}`); err != nil {
			t.Fatal(err)
		}
	}
	if generation := w.value(`SELECT generation FROM tidemark.sync_state`); generation != "2" {
		t.Errorf("generation %s after one resync", generation)
	}
	if n := w.count("SELECT COUNT(*) FROM `" + project + ".shop.items` WHERE _deleted"); n != 10 {
		t.Errorf("%d of 10 deleted rows are known", n)
	}
	if n := w.count("SELECT COUNT(*) FROM `" + project + ".shop.items` WHERE note = 'behind the cursor'"); n != 9 {
		t.Errorf("%d of 9 rows behind the cursor are known", n)
	}
	if got := w.value(`SELECT percent FROM tidemark.backfill_progress`); got != "100" {
		t.Errorf("progress %s", got)
	}
}

// TestResyncLeavesWhatItCannotRead: a row that is rejected by a resync is not a deleted
// one, and neither is any other taken for one.
func TestResyncLeavesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", deletes: hard"), `CREATE TABLE orders (id bigint PRIMARY KEY, status numeric)`, `INSERT INTO orders SELECT n, n FROM generate_series(1, 10) n`)
	w.tick()
	w.exec(`UPDATE orders SET status = 'NaN' WHERE id = 3`)
	must(t, w.extractOn(w.product, `{"full":true}`))
	if n := w.count("SELECT COUNT(*) FROM shop.orders WHERE id = 3"); n != 1 {
		t.Errorf("the row that was rejected is there %d times", n)
	}
	w.exec(`UPDATE orders SET status = 3.5 WHERE id = 3; DELETE FROM orders WHERE id = 4`)
	w.tick()
	w.same("shop", "orders")
}

// TestLostTriggersConcernEveryTenant: the first one's run makes them anew, and the
// others have missed as much.
func TestLostTriggersConcernEveryTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tenantsFile, tenantsSQL)
	w.bothTenants()
	w.exec(`DO $$ DECLARE n text; BEGIN FOR n IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal LOOP EXECUTE format('DROP TRIGGER %I ON orders', n); END LOOP; END $$`)
	w.exec(`DELETE FROM orders WHERE id IN (1, 2); UPDATE orders SET status = 'unseen' WHERE id IN (3, 4)`)
	w.bothTenants()
	w.bothTenants()
	for dataset, want := range map[string]map[string]string{
		"org_1": {"2": "deleted new", "4": "there unseen", "6": "there new"},
		"org_2": {"1": "deleted new", "3": "there unseen", "5": "there new"},
	} {
		if diff := cmp.Diff(want, w.deleted(dataset+".orders", "status")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", dataset, diff)
		}
	}
	if got := w.value(`SELECT string_agg(generation::text, ',') FROM tidemark.sync_state`); got != "2,2" {
		t.Errorf("generations %s, want each tenant's table read again once", got)
	}
}

// TestRowsOfNoTenant are nobody's, whatever no tenant is; and a tenant is who Postgres
// takes for it, however the tenants' query writes it (I8).
func TestRowsOfNoTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.NewReplacer("SELECT id FROM organizations", "SELECT id::char(4) AS id, id::text AS slug FROM organizations", "org_{id}", "org_{slug}").Replace(tenantsFile), tenantsSQL,
		`ALTER TABLE orders ALTER organization_id TYPE char(3) USING organization_id::text`)
	w.bothTenants()
	w.exec(`INSERT INTO orders VALUES (77, '', 'secret'), (78, NULL, 'secret'), (79, '1', 'mine')`)
	w.bothTenants()
	for dataset, want := range map[string]int64{"org_1": 4, "org_2": 3} {
		if n := w.count("SELECT COUNT(*) FROM `" + project + "." + dataset + ".orders`"); n != want {
			t.Errorf("%s has %d rows, want %d: %v", dataset, n, want, w.deleted(dataset+".orders", "status"))
		}
	}
}

// TestTriggersRunNoCastOfOthers: what the triggers do is done as the owner of the log,
// and an application may make a cast of its own type do anything.
func TestTriggersRunNoCastOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", deletes: hard"), `CREATE TYPE colour AS ENUM ('red', 'blue')`,
		`CREATE TABLE orders (id colour PRIMARY KEY, status text); INSERT INTO orders VALUES ('red', 'new')`)
	w.tick()
	w.exec(`CREATE TABLE stolen (by name)`)
	w.exec(`CREATE FUNCTION evil(colour) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO stolen VALUES (current_user); RETURN 'red'; END $$`)
	w.exec(`CREATE CAST (colour AS text) WITH FUNCTION evil(colour) AS ASSIGNMENT`)
	w.exec(`INSERT INTO orders VALUES ('blue', 'new')`)
	if n := w.value(`SELECT count(*) FROM stolen`); n != "0" {
		t.Errorf("the cast ran %s times", n)
	}
}

// TestReloadAfterTruncate: a table that is truncated and filled again in one transaction
// is never seen with a part of its rows, in however many batches they come (I6).
func TestReloadAfterTruncate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changelogFile(", deletes: hard, batch_rows: 100"), orders)
	w.tick()
	w.exec(`INSERT INTO orders SELECT n, 'old', NULL FROM generate_series(21, 1000) n`)
	w.tick()
	w.exec(`BEGIN; TRUNCATE orders; INSERT INTO orders SELECT n, 'again', NULL FROM generate_series(1, 500) n; COMMIT`)
	least := int64(1000)
	w.bq.Intercept(func(c emulator.Call) error {
		if c.Method == "BatchCommitWriteStreams" && c.Phase == emulator.Before {
			least = min(least, w.count("SELECT COUNT(*) FROM shop.orders"))
		}
		return nil
	})
	w.tick()
	w.bq.Intercept(nil)
	w.same("shop", "orders")
	if least < 500 {
		t.Errorf("readers saw %d rows", least)
	}
}

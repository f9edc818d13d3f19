package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// replicated is a world whose source is the hot standby of the server that the
// application writes to. The control plane is on that one.
type replicated struct {
	*world
	primary, standby *postgres.Server
}

func newReplicated(t *testing.T, file string, sql ...string) *replicated {
	t.Helper()
	primary := server(t, postgres.Options{Settings: map[string]string{"autovacuum": "off", "checkpoint_timeout": "1h"}})
	w := newWorldOn(t, primary.URL("postgres"), file, sql...)
	r := &replicated{world: w, primary: primary, standby: server(t, postgres.Options{StandbyOf: primary})}
	w.product = w.connectTo(r.standby.URL("postgres"), w.url, file)
	return r
}

func server(t *testing.T, options postgres.Options) *postgres.Server {
	t.Helper()
	s, err := postgres.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.Stop()) })
	return s
}

// connectTo opens the product's connections with another source than control plane.
func (w *world) connectTo(source, control, file string) *instance.Connections {
	w.t.Helper()
	c, err := instance.Connect(w.t.Context(), instance.Config{
		Source: cloudsql.Config{URL: source}, Control: cloudsql.Config{URL: control}, Pipelines: w.pipelines(file),
		Warehouse: warehouse.Config{Project: project, Host: w.bq.RESTHost(), StorageHost: w.bq.StorageHost()},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { must(w.t, c.Close()) })
	return c
}

// begin opens a transaction on the primary, that a failed test does not leave open.
func (r *replicated) begin() pgx.Tx {
	r.t.Helper()
	tx := r.world.begin()
	r.t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(r.t.Context())) })
	return tx
}

// controlledFromAfar puts the control plane where it writes nothing to the primary.
func (r *replicated) controlledFromAfar(file string) {
	r.t.Helper()
	r.product = r.connectTo(r.standby.URL("postgres"), postgres.NewDatabase(r.t), file)
}

// catchUp waits until the standby shows what the primary has committed.
func (r *replicated) catchUp() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	if err := r.standby.CatchUp(ctx); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replicated) tick() {
	r.t.Helper()
	r.catchUp()
	r.world.tick()
}

// onStandby runs a statement on the standby.
func (r *replicated) onStandby(sql string) string {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.standby.URL("postgres"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { must(r.t, conn.Close(r.t.Context())) }()
	var out string
	if err := conn.QueryRow(r.t.Context(), "SELECT ("+sql+")::text").Scan(&out); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// standbyFile has no look-back: only what the fence knows of open transactions holds
// its bound.
func standbyFile() string {
	return strings.Replace(itemsFile(""), "cursor: updated_at", "cursor: updated_at, lookback: 0s", 1)
}

// TestStandbyFollows inserts and updates by the watermark; nothing is written to it.
func TestStandbyFollows(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 1000) n`)
	r.tick()
	r.same("shop", "items")
	r.exec(`UPDATE items SET name = 'changed', updated_at = clock_timestamp() WHERE id <= 10`)
	r.exec(`INSERT INTO items VALUES (2000, NULL)`)
	r.tick()
	r.tick()
	r.same("shop", "items")
	if n := r.count("SELECT COUNT(*) FROM shop.items_log"); n != 1011 {
		t.Errorf("the log has %d versions, want 1011", n)
	}
}

// TestStandbyFindsLateCommits of transactions that a standby's snapshot does not list:
// left open over several ticks, under savepoints, committing out of order.
func TestStandbyFindsLateCommits(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, standbyFile(), itemsSQL, `INSERT INTO items VALUES (0, 'first')`)
	r.tick()
	late, other := r.begin(), r.begin()
	r.in(late, `INSERT INTO items VALUES (1, 'late', now())`)
	r.in(late, `SAVEPOINT a`)
	r.in(late, `INSERT INTO items VALUES (2, 'under a savepoint', clock_timestamp())`)
	r.in(late, `RELEASE a`)
	r.in(other, `INSERT INTO items VALUES (3, 'other', now())`)
	for i := range 4 {
		r.exec(`INSERT INTO items VALUES ($1, 'meanwhile', clock_timestamp())`, 100+i)
		r.tick()
		if i == 0 {
			snapshot := r.onStandby(`pg_current_snapshot()`)
			if parts := strings.Split(snapshot, ":"); parts[2] != "" || parts[0] == parts[1] {
				t.Fatalf("snapshot %s: want one of a standby, without its running transactions", snapshot)
			}
		}
	}
	r.commit(other)
	r.tick()
	r.in(late, `INSERT INTO items VALUES (4, 'again', now())`)
	r.exec(`INSERT INTO items VALUES (200, 'meanwhile', clock_timestamp())`)
	r.tick()
	r.commit(late)
	r.tick()
	r.tick()
	r.once("shop", "items")
}

// TestStandbyFindsACommitWithoutANewSnapshot: one that ends while an older one runs and a
// newer one has ended changes nothing of what pg_current_snapshot() says there.
func TestStandbyFindsACommitWithoutANewSnapshot(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, itemsFile(""), itemsSQL, `INSERT INTO items VALUES (0, 'first')`)
	r.controlledFromAfar(itemsFile(""))
	oldest, middle := r.begin(), r.begin()
	r.in(oldest, `INSERT INTO items VALUES (1, 'oldest', clock_timestamp())`)
	r.in(middle, `INSERT INTO items VALUES (2, 'middle', clock_timestamp())`)
	r.exec(`INSERT INTO items VALUES (3, 'newest', clock_timestamp())`)
	r.tick()
	before := r.onStandby(`pg_current_snapshot()`)
	r.commit(middle)
	r.tick()
	if after := r.onStandby(`pg_current_snapshot()`); after != before {
		t.Fatalf("the snapshot went from %s to %s, and should not have", before, after)
	}
	r.once("shop", "items")
	r.commit(oldest)
	r.tick()
	r.once("shop", "items")
}

// TestStandbyFindsACommitAboveItsSnapshot: the open transaction with the highest id is
// not within the snapshot at all, whose end is above those that have ended.
func TestStandbyFindsACommitAboveItsSnapshot(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, standbyFile(), itemsSQL, `INSERT INTO items VALUES (0, 'first')`)
	r.controlledFromAfar(standbyFile())
	r.tick()
	first, second := r.begin(), r.begin()
	r.in(first, `INSERT INTO items VALUES (1, 'first', clock_timestamp())`)
	r.in(second, `INSERT INTO items VALUES (2, 'second', clock_timestamp())`)
	r.in(first, `UPDATE items SET name = 'again', updated_at = clock_timestamp() WHERE id = 1`)
	r.tick()
	r.commit(first)
	r.tick()
	snapshot := strings.Split(r.onStandby(`pg_current_snapshot()`), ":")
	if snapshot[0] != snapshot[1] {
		t.Fatalf("snapshot %v, and none should be running in it", snapshot)
	}
	r.commit(second)
	r.tick()
	r.tick()
	r.once("shop", "items")
}

// TestStandbyThatLags: what is committed on the primary and not replayed is found when
// it is, however far the cursor has gone: its values may lie in the future.
func TestStandbyThatLags(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, standbyFile(), itemsSQL, `INSERT INTO items VALUES (0, 'far ahead', clock_timestamp() + interval '1 day')`)
	r.exec(`INSERT INTO items VALUES (1, 'now')`)
	r.tick()
	r.pause()
	r.exec(`INSERT INTO items VALUES (2, 'not replayed yet')`)
	r.exec(`UPDATE items SET name = 'seen later', updated_at = clock_timestamp() WHERE id = 1`)
	for range 3 {
		r.world.tick()
	}
	r.resume()
	r.tick()
	r.tick()
	r.same("shop", "items")
	if n := r.count("SELECT COUNT(*) FROM shop.items_log"); n != 4 {
		t.Errorf("the log has %d versions, want 4", n)
	}
}

func (r *replicated) pause() { r.replay("pg_wal_replay_pause()", "pg_is_wal_replay_paused()") }

func (r *replicated) resume() { r.replay("pg_wal_replay_resume()", "NOT pg_is_wal_replay_paused()") }

func (r *replicated) replay(do, done string) {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.standby.URL("postgres"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { must(r.t, conn.Close(r.t.Context())) }()
	if _, err := conn.Exec(r.t.Context(), "SELECT "+do); err != nil {
		r.t.Fatal(err)
	}
	if r.onStandby(done) != "true" {
		r.t.Fatalf("%s did not become true", done)
	}
}

// TestStandbyInTurnWithItsPrimary: a cursor goes on where it was on a server that is
// further or less far; at worst rows come again.
func TestStandbyInTurnWithItsPrimary(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, standbyFile(), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 50) n`)
	onPrimary := r.connectTo(r.url, r.url, standbyFile())
	r.tick()
	early := r.begin() // known to the primary by name, and to the standby not
	r.in(early, `INSERT INTO items VALUES (200, 'early', now())`)
	for n := range 3 {
		r.exec(`INSERT INTO items VALUES ($1, 'meanwhile')`, 201+n)
		must(t, r.extractOn(onPrimary, ""))
	}
	r.tick()
	r.tick()
	r.commit(early)
	r.tick()
	r.same("shop", "items")
	late := r.begin()
	r.in(late, `INSERT INTO items VALUES (100, 'late', now())`)
	r.in(late, `UPDATE items SET name = 'late', updated_at = now() WHERE id = 1`)
	r.exec(`INSERT INTO items VALUES (101, 'meanwhile')`)
	r.tick()
	must(t, r.extractOn(onPrimary, ""))
	r.catchUp()
	r.pause()
	r.exec(`UPDATE items SET name = 'on the primary', updated_at = clock_timestamp() WHERE id = 2`)
	r.commit(late)
	must(t, r.extractOn(onPrimary, ""))
	r.same("shop", "items")
	r.world.tick() // of the past
	r.exec(`INSERT INTO items VALUES (102, 'after')`)
	must(t, r.extractOn(onPrimary, ""))
	r.world.tick()
	r.resume()
	r.tick()
	r.tick()
	r.same("shop", "items")
}

// TestStandbyThatIsPromoted becomes the server that is written to, and goes on being
// the source; what was open on its primary is rolled back.
func TestStandbyThatIsPromoted(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, standbyFile(), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 50) n`)
	r.tick()
	lost := r.begin()
	r.in(lost, `INSERT INTO items VALUES (100, 'lost', now())`)
	r.exec(`INSERT INTO items VALUES (101, 'kept')`)
	r.tick()
	if got := r.onStandby(`pg_promote()`); got != "true" {
		t.Fatalf("promoting: %s", got)
	}
	must(t, lost.Rollback(t.Context()))
	r.url = r.standby.URL("postgres")
	r.db = pool(t, r.url)
	r.product = r.connectTo(r.url, r.url, standbyFile())
	late := r.begin()
	r.in(late, `INSERT INTO items VALUES (102, 'late', now())`)
	r.exec(`UPDATE items SET name = 'after', updated_at = clock_timestamp() WHERE id < 5`)
	r.world.tick()
	r.commit(late)
	r.world.tick()
	r.world.tick()
	r.same("shop", "items")
}

// TestStandbyFuzz compares after random transactions, open ones among them, at every
// catch-up.
func TestStandbyFuzz(t *testing.T) {
	t.Parallel()
	const seed = 20261120
	random := rand.New(rand.NewPCG(seed, 1))
	r := newReplicated(t, standbyFile(), itemsSQL)
	type open struct {
		pgx.Tx
		ids int // it writes rows of its own, so that none waits for another
	}
	var transactions []open
	next := 0
	for range 40 {
		for range 1 + random.IntN(8) {
			if len(transactions) == 0 || len(transactions) < 5 && random.IntN(3) == 0 {
				transactions = append(transactions, open{r.begin(), next * 1000})
				next++
			}
			at := random.IntN(len(transactions))
			x := transactions[at]
			switch random.IntN(7) {
			case 0:
				r.in(x.Tx, `SAVEPOINT s`)
				r.in(x.Tx, `INSERT INTO items SELECT coalesce(max(id), $1) + 1, 'undone', clock_timestamp() FROM items WHERE id BETWEEN $1 AND $1 + 999`, x.ids)
				r.in(x.Tx, `ROLLBACK TO s`)
			case 1:
				r.in(x.Tx, `SAVEPOINT s`)
				r.in(x.Tx, `INSERT INTO items SELECT coalesce(max(id), $1) + 1, 'saved', clock_timestamp() FROM items WHERE id BETWEEN $1 AND $1 + 999`, x.ids)
				r.in(x.Tx, `RELEASE s`)
			case 2:
				r.in(x.Tx, `UPDATE items SET name = name || '+', updated_at = clock_timestamp() WHERE id BETWEEN $1 AND $1 + 999`, x.ids)
			case 3:
				r.commit(x.Tx)
				transactions = append(transactions[:at], transactions[at+1:]...)
			default:
				r.in(x.Tx, `INSERT INTO items SELECT coalesce(max(id), $1) + 1, 'plain', clock_timestamp() FROM items WHERE id BETWEEN $1 AND $1 + 999`, x.ids)
			}
		}
		r.tick()
		if report := r.compare("shop", "items"); !report.Agrees() {
			t.Fatalf("%s", report)
		}
	}
	for _, x := range transactions {
		r.commit(x.Tx)
	}
	r.tick()
	r.same("shop", "items")
}

// TestStandbyWithChangelog: the triggers are made and the log is trimmed on the
// primary, the log is read on the standby.
func TestStandbyWithChangelog(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, changelogFile(", deletes: hard"), orders)
	r.world.tick() // without a catch-up: the standby may not have the triggers yet
	r.tick()
	r.same("shop", "orders")
	late := r.begin()
	r.in(late, `UPDATE orders SET status = 'late' WHERE id = 1`)
	r.in(late, `DELETE FROM orders WHERE id = 2`)
	for _, change := range []string{
		`UPDATE orders SET status = 'paid' WHERE id BETWEEN 3 AND 5`,
		`DELETE FROM orders WHERE id = 6`,
		`BEGIN; DELETE FROM orders WHERE id = 8; INSERT INTO orders VALUES (8, 'again', 'x'); COMMIT`,
	} {
		r.exec(change)
		r.tick()
	}
	r.commit(late)
	r.tick()
	r.same("shop", "orders")
	for _, change := range []string{
		`TRUNCATE orders`,
		`INSERT INTO orders SELECT n, 'bulk', NULL FROM generate_series(1000, 1100) n`,
		`UPDATE orders SET id = id + 1000 WHERE id < 1010`,
	} {
		r.exec(change)
		r.tick()
		r.same("shop", "orders")
	}
	if left := r.value(`SELECT count(*) FROM tidemark.change_log WHERE key IS NOT NULL`); left != "0" {
		t.Errorf("%s consumed entries are still in the log", left)
	}
	if generation := r.value(`SELECT generation FROM tidemark.sync_state`); generation != "1" {
		t.Errorf("generation %s: the table was read again", generation)
	}
}

// TestStandbyThatLagsBehindItsTriggers: what changes before it has them would be in no
// log and in no backfill, so nothing begins.
func TestStandbyThatLagsBehindItsTriggers(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, changelogFile(", deletes: hard"), orders)
	r.catchUp()
	r.pause()
	err := r.extractOn(r.product, "")
	if class, remedy := fault.Classify(err); err == nil || class != fault.Transient || !strings.Contains(remedy, "pg_stat_replication") {
		t.Errorf("%v (%v), remedy %q", err, class, remedy)
	}
	r.exec(`UPDATE orders SET status = 'meanwhile'; DELETE FROM orders WHERE id = 3`)
	r.resume()
	r.tick()
	r.tick()
	r.same("shop", "orders")
	if generation := r.value(`SELECT generation FROM tidemark.sync_state`); generation != "1" {
		t.Errorf("generation %s: the table was read again", generation)
	}
}

// TestStandbyRemovesTriggers of a table that is no longer followed by its log: on the primary.
func TestStandbyRemovesTriggers(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, changelogFile(""), orders, `ALTER TABLE orders ADD updated_at timestamptz NOT NULL DEFAULT now()`)
	r.tick()
	r.tick()
	if n := r.value(`SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal`); n == "0" {
		t.Fatal("no trigger was made")
	}
	r.catchUp()
	must(t, r.extractOn(r.with(strings.Replace(changelogFile(""), "method: changelog", "method: watermark, cursor: updated_at", 1)), ""))
	if n := r.value(`SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal`); n != "0" {
		t.Errorf("%s triggers are left", n)
	}
}

// TestStandbyWithQueryAndSnapshot tables, whose changes are late too.
func TestStandbyWithQueryAndSnapshot(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"watermark, cursor: updated_at", "changelog"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			r := newReplicated(t, fmt.Sprintf(factsFile, method)+"  - {name: customers, capture: {method: snapshot}, deletes: hard}\n", factsSQL)
			r.tick()
			r.tick()
			r.facts()
			late := r.begin()
			r.in(late, `UPDATE orders SET status = 'late', updated_at = clock_timestamp() WHERE id = 1`)
			r.in(late, `UPDATE customers SET name = 'late', updated_at = clock_timestamp() WHERE id = 3`)
			r.exec(`DELETE FROM customers WHERE id = 5`)
			for n := range 3 {
				r.exec(`UPDATE orders SET status = 'tick' || $1, updated_at = clock_timestamp() WHERE id = 2`, fmt.Sprint(n))
				r.exec(`UPDATE customers SET name = 'tick' || $1, updated_at = clock_timestamp() WHERE id = 4`, fmt.Sprint(n))
				r.tick()
			}
			r.exec(`UPDATE orders SET status = 'draft', updated_at = clock_timestamp() WHERE customer_id = 5`)
			r.commit(late)
			r.tick()
			r.tick()
			r.facts()
			r.same("shop", "customers")
		})
	}
}

// TestStandbyRefuses what cannot work there, at once and with what to do.
func TestStandbyRefuses(t *testing.T) {
	t.Parallel()
	r := newReplicated(t, itemsFile(""), factsSQL)
	elsewhere := postgres.NewDatabase(t)
	for name, test := range map[string]struct{ file, control, want string }{
		"wal":                                   {walFile(""), r.url, "point DATABASE_URL or CLOUD_SQL_INSTANCE at the primary, or use capture method watermark"},
		"changelog with a control plane afar":   {changelogFile(""), elsewhere, "set CONTROL_DATABASE_URL to the same database of its primary, or capture by watermark"},
		"a query beside a table with changelog": {fmt.Sprintf(factsFile, "changelog"), elsewhere, "set CONTROL_DATABASE_URL to the same database of its primary, or capture by watermark"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := r.connectTo(r.standby.URL("postgres"), test.control, test.file)
			err := r.extractOn(c, "")
			class, remedy := fault.Classify(err)
			if err == nil || class != fault.Permanent || !strings.Contains(remedy, test.want) || !strings.Contains(err.Error(), "standby") {
				t.Errorf("%v (%v), remedy %q", err, class, remedy)
			}
		})
	}
}

// TestStandbyHoldsNoControlPlane: whether or not its primary has one.
func TestStandbyHoldsNoControlPlane(t *testing.T) {
	t.Parallel()
	primary := server(t, postgres.Options{})
	standby := server(t, postgres.Options{StandbyOf: primary})
	refused := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		source := cloudsql.Config{URL: standby.URL("postgres")}
		c, err := instance.Connect(ctx, instance.Config{Source: source, Control: source})
		class, remedy := fault.Classify(err)
		if err == nil || class != fault.Permanent || !strings.Contains(remedy, "CONTROL_DATABASE_URL") || !strings.Contains(err.Error(), "standby") {
			t.Errorf("%v (%v), remedy %q", err, class, remedy)
		}
		if err == nil {
			must(t, c.Close())
		}
	}
	refused()
	source := cloudsql.Config{URL: primary.URL("postgres")}
	c, err := instance.Connect(t.Context(), instance.Config{Source: source, Control: source})
	if err := errors.Join(err, standby.CatchUp(t.Context())); err != nil {
		t.Fatal(err)
	}
	must(t, c.Close())
	refused()
}

package e2e_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
)

// A cursor is about one log, one key and one cursor column. Where one of them
// is another, going on from the cursor would leave rows out.

func TestDroppedLogIsLoadedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
	w.tick()
	must(t, w.client.Dataset("shop").Table("items_log").Delete(t.Context()))
	w.exec(`INSERT INTO items VALUES (200, 'new')`)
	if err := w.extractOn(w.product, ""); err == nil {
		t.Fatal("appending to a dropped log succeeded")
	} else if class, _ := fault.Classify(err); class != fault.Transient {
		t.Fatalf("a dropped log is not tried again: %v", err)
	}
	w.tick()
	w.once("shop", "items")
	if got := w.value(`SELECT generation FROM tidemark.sync_state`); got != "2" {
		t.Errorf("generation %s, want 2", got)
	}
}

func TestTypeChangeStopsUntilTheLogIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, n FROM generate_series(1, 100) n`)
	w.tick()
	w.exec(`ALTER TABLE items ALTER name TYPE int USING name::int`)
	err := w.extractOn(w.product, "")
	class, remedy := fault.Classify(err)
	if err == nil || class != fault.Permanent || !strings.Contains(remedy, "drop the table") {
		t.Fatalf("got %v (%s), want a permanent error that says to drop the log", err, remedy)
	}
	must(t, w.client.Dataset("shop").Table("items_log").Delete(t.Context()))
	must(t, w.client.Dataset("shop").Table("items").Delete(t.Context()))
	w.tick()
	w.once("shop", "items")
}

func TestAddedColumnKeepsOldRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 10) n`)
	w.tick()
	w.exec(`ALTER TABLE items ADD COLUMN note text; INSERT INTO items (id, note) VALUES (11, 'noted')`)
	w.tick()
	w.same("shop", "items")
}

func TestOtherDatasetCursorOrKey(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{
		"dataset": "pipeline: shop\ndestination: {dataset: other}\ntables:\n  - {name: items, capture: {method: watermark, cursor: updated_at}}\n",
		"cursor":  "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: items, capture: {method: watermark, cursor: created_at}}\n",
		"key":     "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: items, key: [code], capture: {method: watermark, cursor: updated_at}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, itemsFile(""), itemsSQL, `ALTER TABLE items ADD code int NOT NULL UNIQUE GENERATED ALWAYS AS IDENTITY, ADD created_at timestamptz NOT NULL DEFAULT now() - interval '1 day'`,
				`INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
			w.tick()
			must(t, w.extractOn(w.with(file), ""))
			dataset := "shop"
			if name == "dataset" {
				dataset = "other"
			}
			w.same(dataset, "items")
			w.exec(`UPDATE items SET name = 'changed', created_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id < 5`)
			must(t, w.extractOn(w.with(file), ""))
			w.same(dataset, "items")
		})
	}
}

// TestHiddenRows reads under row-level security as a role it applies to: rows
// that a policy hides would be lost without a word.
func TestHiddenRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 10) n`,
		`ALTER TABLE items ENABLE ROW LEVEL SECURITY`)
	reader := w.connectAs("reader", `GRANT SELECT ON items TO %s`)
	err := w.extractOn(reader, "")
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
		t.Errorf("got %v (%s), want a permanent error with a remedy", err, remedy)
	}
}

func TestNumbersHandedOutInAdvance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: events, capture: {method: watermark, cursor: id}}\n",
		`CREATE TABLE events (id bigint PRIMARY KEY, body text)`, `INSERT INTO events VALUES (51, 'second session')`)
	w.tick()
	w.tick()
	w.exec(`INSERT INTO events VALUES (2, 'first session, from its cached numbers')`)
	w.tick()
	w.once("shop", "events")
}

// TestClocksWithoutZone has a cursor in local time, behind UTC, one row dated
// ahead, and the hour that is put back.
func TestClocksWithoutZone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), `CREATE TABLE items (id int PRIMARY KEY, updated_at timestamp NOT NULL); CREATE INDEX ON items (updated_at, id)`)
	w.exec(`INSERT INTO items VALUES (1, now() AT TIME ZONE 'America/New_York'), (2, (now() AT TIME ZONE 'America/New_York') + interval '3 days')`)
	w.tick()
	w.exec(`INSERT INTO items VALUES (3, now() AT TIME ZONE 'America/New_York')`)
	w.tick()
	w.exec(`INSERT INTO items VALUES (4, (now() AT TIME ZONE 'America/New_York') - interval '58 minutes')`)
	w.tick()
	w.once("shop", "items")
}

// TestManyIdleTablesAtOnce runs more tables together than there are
// connections: none may hold one while it waits for another.
func TestManyIdleTablesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL)
	w.tick()
	var connections []*instance.Connections
	for i := range 24 {
		file := strings.ReplaceAll(itemsFile(""), "shop", "shop"+string(rune('a'+i)))
		connections = append(connections, w.with(file))
	}
	for range 2 {
		var group sync.WaitGroup
		for _, c := range connections {
			group.Go(func() { must(t, w.extractOn(c, "")) })
		}
		group.Wait()
		w.exec(`SELECT pg_current_xact_id()`)
	}
}

// TestRejectedRowIsKeptWhole has values that BigQuery's types do not hold, one
// of which Postgres itself cannot turn into jsonb.
func TestRejectedRowIsKeptWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), `CREATE TABLE items (id int PRIMARY KEY, amount numeric, payload json, day date, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
		INSERT INTO items (id, amount, payload, day) VALUES (1, 1, '{}', '2026-01-01'), (2, 'NaN', NULL, NULL), (3, 3, '{"a": "\u0000"}', NULL), (4, 4, '{"a": 1e400}', NULL), (5, 5, NULL, 'infinity'), (6, 6, '[]', NULL)`)
	w.tick()
	if got := w.value(`SELECT string_agg(substring(row::text FROM '"id":(\d+)') || ' ' || column_name, ', ' ORDER BY id) FROM tidemark.rejects`); got != "2 amount, 3 payload, 4 payload, 5 day" {
		t.Errorf("rejected: %s", got)
	}
	if got := w.value(`SELECT row::text FROM tidemark.rejects WHERE row::text LIKE '{"id":3,%'`); !strings.Contains(got, `{"a": "\u0000"}`) {
		t.Errorf("the row was not kept as it is: %s", got)
	}
	if got := w.value(`SELECT rows_read || ' ' || rows_written || ' ' || rows_rejected FROM tidemark.runs`); got != "6 2 4" {
		t.Errorf("the run counts %s, want 6 read, 2 written, 4 rejected", got)
	}
	if n := w.count("SELECT COUNT(*) FROM shop.items"); n != 2 {
		t.Errorf("%d rows arrived, want the 2 good ones", n)
	}
}

func TestTenantsWithoutADatasetOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "pipeline: app\ndestination: {dataset: app}\ntenants: {query: 'SELECT id, slug FROM orgs ORDER BY id', column: org, dataset: 'org_{slug}'}\ntables:\n  - {name: items, capture: {method: watermark, cursor: updated_at}}\n",
		`CREATE TABLE orgs (id int, slug text); INSERT INTO orgs VALUES (1, 'a'), (2, ''), (3, NULL), (4, 'x y'), (5, 'same'), (6, 'same'), (7, 'b')`, itemsSQL, `ALTER TABLE items ADD org int`)
	err := w.extractOn(w.product, "")
	if class, _ := fault.Classify(err); err == nil || class != fault.Permanent {
		t.Errorf("got %v, want a permanent error", err)
	}
	var ids []string
	for _, m := range w.published {
		ids = append(ids, m.Tenant)
	}
	if got := strings.Join(ids, " "); got != "1 7" {
		t.Errorf("dispatched tenants %s, want 1 7", got)
	}
}

func TestFieldsNotServedAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL)
	for _, message := range []string{`{"dry_run":true}`, `{"sync":"x"}`} {
		err := w.extractOn(w.product, message)
		if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
			t.Errorf("%s: got %v, want it refused", message, err)
		}
	}
}

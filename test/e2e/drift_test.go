package e2e_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// What a change of the columns comes to.
const (
	follows = "follows" // with what changes from then on
	rereads = "rereads" // because rows that nothing tells of have other values
	stops   = "stops"   // because BigQuery cannot follow it
	unnoted = "unnoted" // no column has changed
	anew    = "anew"    // the cursor would mean something else
)

// drift is one change of a table's columns. %s is the table.
type drift struct {
	name, ddl string
	comes     string
	gone      bool     // rows left
	left      []string // columns that stay in BigQuery after they were dropped
}

func drifts() []drift {
	return []drift{
		{name: "added", ddl: `ALTER TABLE %s ADD note text`, comes: follows},
		{name: "added_default", ddl: `ALTER TABLE %s ADD note text DEFAULT 'of old'`, comes: rereads},
		{name: "added_volatile", ddl: `ALTER TABLE %s ADD token uuid DEFAULT gen_random_uuid()`, comes: rereads},
		{name: "added_not_null", ddl: `ALTER TABLE %s ADD code int NOT NULL DEFAULT 7`, comes: rereads},
		{name: "added_generated", ddl: `ALTER TABLE %s ADD twice int GENERATED ALWAYS AS (n * 2) STORED`, comes: rereads},
		{name: "added_identity", ddl: `ALTER TABLE %s ADD serial int GENERATED ALWAYS AS IDENTITY`, comes: rereads},
		{name: "dropped", ddl: `ALTER TABLE %s DROP name`, comes: follows, left: []string{"name"}},
		{name: "added_again", ddl: `ALTER TABLE %[1]s DROP name; ALTER TABLE %[1]s ADD name text`, comes: rereads},
		{name: "added_again_retyped", ddl: `ALTER TABLE %[1]s DROP name; ALTER TABLE %[1]s ADD name bytea`, comes: stops},
		{name: "renamed", ddl: `ALTER TABLE %s RENAME name TO title`, comes: stops, left: []string{"name"}},
		{name: "swapped", ddl: `ALTER TABLE %[1]s RENAME name TO spare; ALTER TABLE %[1]s RENAME other TO name; ALTER TABLE %[1]s RENAME spare TO other; ALTER TABLE %[1]s ALTER name SET DEFAULT 'none'`, comes: rereads},
		{name: "retyped", ddl: `ALTER TABLE %s ALTER n TYPE text`, comes: stops},
		{name: "retyped_alike", ddl: `ALTER TABLE %s ALTER name TYPE varchar(3) USING left(name, 3)`, comes: rereads},
		{name: "widened", ddl: `ALTER TABLE %s ALTER n TYPE bigint, ALTER price TYPE numeric(14,4), ALTER other TYPE text`, comes: follows},
		{name: "relaxed", ddl: `ALTER TABLE %s ALTER other DROP NOT NULL`, comes: follows},
		{name: "tightened", ddl: `ALTER TABLE %s ALTER name SET NOT NULL, ALTER name SET DEFAULT 'none'`, comes: follows},
		{name: "enum_value", ddl: `ALTER TYPE mood_%s ADD VALUE 'rough' BEFORE 'high'`, comes: unnoted},
		{name: "made_anew", ddl: `DROP TABLE %[1]s; CREATE TABLE %[1]s (mood mood_%[1]s, other varchar(9) NOT NULL, price numeric(9,2), name text, n int, id int PRIMARY KEY, updated_at timestamptz NOT NULL DEFAULT '2020-01-01'); INSERT INTO %[1]s (id, n, name, other) SELECT i, -i, 'anew', 'row' FROM generate_series(11, 30) i`, comes: rereads, gone: true},
		{name: "rekeyed", ddl: `ALTER TABLE %[1]s DROP CONSTRAINT %[1]s_pkey; ALTER TABLE %[1]s ADD PRIMARY KEY (id, n)`, comes: anew},
	}
}

const driftSQL = `
	CREATE TYPE mood_%[1]s AS ENUM ('calm', 'high');
	CREATE TABLE %[1]s (id int PRIMARY KEY, n int, name text, other varchar(9) NOT NULL, price numeric(9,2), mood mood_%[1]s, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	INSERT INTO %[1]s (id, n, name, other, price, mood) SELECT i, i * 10, 'name ' || i, 'o' || i, i + 0.25, 'calm' FROM generate_series(1, 20) i`

// TestDrift changes the columns of tables under every policy, by every method that sees
// single changes, and looks at the rows that did not change as at those that did.
func TestDrift(t *testing.T) {
	t.Parallel()
	for _, capture := range []string{"{method: watermark, cursor: updated_at}", "{method: changelog}", "{method: wal}"} {
		for _, policy := range []string{"evolve", "resync", "stop"} {
			t.Run(capture[len("{method: "):len(capture)-1]+" "+policy, func(t *testing.T) {
				t.Parallel()
				driftUnder(t, capture, policy)
			})
		}
	}
}

func driftUnder(t *testing.T, capture, policy string) {
	t.Helper()
	var declared, sql strings.Builder
	named := map[string]drift{}
	for _, d := range drifts() {
		for _, write := range []string{"append", "merge"} {
			name := d.name + "_" + write
			named[name] = d
			fmt.Fprintf(&declared, "  - {name: %s, write: %s, capture: %s, schema_changes: %s}\n", name, write, capture, policy)
			fmt.Fprintf(&sql, driftSQL+";", name)
		}
	}
	var url string
	if strings.Contains(capture, "wal") {
		_, url = logicalServer(t)
	} else {
		url = postgres.NewDatabase(t)
	}
	w := newWorldOn(t, url, "pipeline: shop\ndestination: {dataset: shop}\ntables:\n"+declared.String(), sql.String())
	w.tick()
	before := map[string]string{}
	for name, d := range named {
		w.same("shop", name)
		before[name] = w.shown(name)
		w.exec(fmt.Sprintf(d.ddl, name))
		w.exec(fmt.Sprintf(`INSERT INTO %[1]s (id, n, other) VALUES (99, 990, 'new'); UPDATE %[1]s SET other = 'changed', updated_at = clock_timestamp() WHERE id = 12`, name))
	}
	err := w.extractOn(w.product, "")
	if (policy != "resync") != (err != nil) {
		t.Fatalf("the run ended in %v", err)
	}
	for name, d := range named {
		generation := w.value(`SELECT generation FROM tidemark.sync_state WHERE table_name = '` + name + `'`)
		stopped := policy == "stop" && d.comes != unnoted || policy == "evolve" && d.comes == stops
		if stopped {
			if now := w.shown(name); now != before[name] {
				t.Errorf("%s stopped, and shows something else than before", name)
			}
			remedy := w.value(`SELECT remedy FROM tidemark.runs WHERE name = '` + name + `' ORDER BY id DESC LIMIT 1`)
			if !strings.Contains(remedy, "schema_changes") {
				t.Errorf("%s stopped without a remedy: %q", name, remedy)
			}
			continue
		}
		again := d.comes != follows && d.comes != unnoted
		if again != (generation == "2") {
			t.Errorf("%s is in generation %s", name, generation)
		}
		w.agrees(name, d)
		if gone := w.count("SELECT COUNTIF(_deleted) FROM shop." + name); (gone > 0) != d.gone {
			t.Errorf("%s: %d rows are gone", name, gone)
		}
	}
	if policy != "resync" {
		if class, _ := fault.Classify(err); class != fault.Permanent && !errors.Is(err, nil) {
			t.Errorf("the run would be repeated: %v", err)
		}
		w.goOn(declared.String(), policy, named)
	}
}

// goOn lets the tables go on that stopped: nothing was lost meanwhile.
func (w *world) goOn(declared, policy string, named map[string]drift) {
	w.t.Helper()
	w.product = w.with("pipeline: shop\ndestination: {dataset: shop}\ntables:\n" + strings.ReplaceAll(declared, "schema_changes: "+policy, "schema_changes: resync"))
	w.tick()
	for name, d := range named {
		w.agrees(name, d)
	}
}

// agrees compares what both sides have of a table.
func (w *world) agrees(name string, d drift) {
	w.t.Helper()
	if report := w.compare("shop", name, d.left...); !report.Agrees() {
		w.t.Errorf("%s: %s", name, report)
	}
}

// shown is what T shows of the rows, as text.
func (w *world) shown(table string) string {
	w.t.Helper()
	var out []string
	for _, row := range w.rows("SELECT * FROM shop." + table) {
		out = append(out, fmt.Sprint(row))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// TestDroppedAndAddedLater: BigQuery keeps the values of a dropped column, which one that
// is added later under its name has not.
func TestDroppedAndAddedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: a, write: append, capture: {method: changelog}}\n  - {name: m, write: merge, capture: {method: changelog}}\n",
		`CREATE TABLE a (id int PRIMARY KEY, name text); INSERT INTO a VALUES (1, 'one'), (2, 'two'); CREATE TABLE m (LIKE a INCLUDING ALL); INSERT INTO m SELECT * FROM a`)
	w.tick()
	for _, change := range []string{`DROP name`, `ADD other int`, `ADD name text`} {
		w.exec(`ALTER TABLE a ` + change)
		w.exec(`ALTER TABLE m ` + change)
		w.tick()
	}
	w.same("shop", "a", "m")
}

// TestDriftIsKnownLate: the Storage Write API learns of a column minutes after it was
// added. Until then runs fail, to be repeated, and nothing is landed without the column.
func TestDriftIsKnownLate(t *testing.T) {
	t.Parallel()
	for _, write := range []string{"append", "history", "merge", "cdc, max_staleness: 0s"} {
		t.Run(write, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: items, capture: {method: changelog}, write: "+write+"}\n",
				`CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one'), (2, 'two')`)
			w.tick()
			w.bq.SetSchemaDelay(time.Hour)
			w.exec(`ALTER TABLE items ADD note text`)
			w.exec(`UPDATE items SET note = 'noted' WHERE id = 1`)
			before := w.value(`SELECT cursor FROM tidemark.sync_state`)
			err := w.extractOn(w.product, "")
			if class, _ := fault.Classify(err); err == nil || class != fault.Transient {
				t.Fatalf("the run ended in %v", err)
			}
			if after := w.value(`SELECT cursor FROM tidemark.sync_state`); after != before {
				t.Errorf("the cursor moved from %s to %s", before, after)
			}
			w.bq.SetSchemaDelay(0)
			w.tick()
			if n := w.count(`SELECT COUNT(DISTINCT id) FROM shop.items WHERE note = 'noted'`); n != 1 {
				t.Errorf("%d rows have the new column's value", n)
			}
			if write != "history" {
				w.same("shop", "items")
			}
		})
	}
}

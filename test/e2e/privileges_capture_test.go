package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/wal"
	"github.com/tidemark-data/tidemark/test/parity"
)

// A table by each way to find a change, and a query.
const capturesSQL = `
	CREATE SCHEMA app;
	CREATE SCHEMA audit;
	CREATE TABLE app.items (id bigint PRIMARY KEY, v text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON app.items (updated_at, id);
	CREATE TABLE app.orders (id bigint, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
	CREATE TABLE app.orders_2026 PARTITION OF app.orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
	CREATE TABLE app.notes (id bigint PRIMARY KEY, v text);
	CREATE TABLE audit.kinds (id int PRIMARY KEY, name text NOT NULL);
	CREATE TABLE audit.log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind int NOT NULL, object_id text NOT NULL);
	CREATE TABLE app.events (id bigint PRIMARY KEY, v text);
	CREATE TABLE app.rates (id bigint PRIMARY KEY, v text);
	CREATE TABLE app.regions (id bigint PRIMARY KEY, v text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON app.regions (updated_at, id);
	CREATE TABLE app.labels (id bigint PRIMARY KEY, v text, color text);
	CREATE TABLE app.lines (id bigint PRIMARY KEY, label_id bigint NOT NULL, region_id bigint NOT NULL, made date NOT NULL, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON app.lines (updated_at, id);
	CREATE TABLE app.unlisted (id bigint PRIMARY KEY);
	INSERT INTO audit.kinds VALUES (1, 'user'), (7, 'note');
	INSERT INTO app.items SELECT n, 'v' FROM generate_series(1, 9) n;
	INSERT INTO app.orders SELECT n, '2026-02-03', 'v' FROM generate_series(1, 9) n;
	INSERT INTO app.notes SELECT n, 'v' FROM generate_series(1, 9) n;
	INSERT INTO app.events SELECT n, 'v' FROM generate_series(1, 9) n;
	INSERT INTO app.rates SELECT n, 'v' FROM generate_series(1, 9) n;
	INSERT INTO app.regions SELECT n, 'v' FROM generate_series(1, 9) n;
	INSERT INTO app.labels SELECT n, 'v' FROM generate_series(1, 9) n;
	INSERT INTO app.lines SELECT n, n, n, date '2026-01-20' + n::int * 5 FROM generate_series(1, 9) n`

const capturesFile = `
pipeline: crm
source: {schema: app}
destination: {dataset: crm}
defaults: {deletes: hard}
tables:
  - {name: items, capture: {method: watermark, cursor: updated_at}}
  - {name: orders, capture: {method: changelog}}
  - name: notes
    capture:
      method: changelog
      log: {table: audit.log, cursor: id, object: object_id, type: {column: kind, query: SELECT id FROM audit.kinds WHERE name = 'note'}}
  - {name: events, capture: {method: wal}}
  - {name: rates, capture: {method: snapshot}}
  - name: facts
    key: [line_id]
    query: SELECT l.id AS line_id, b.v AS label, b.color, r.v AS region, l.made, l.updated_at FROM lines l JOIN labels b ON b.id = l.label_id JOIN regions r ON r.id = l.region_id
    capture: {method: watermark, cursor: updated_at}
    partition_by: {column: made, granularity: month}
    also_changed_by:
      - {table: labels, capture: {method: changelog}, keys: "SELECT l.id FROM lines l JOIN {changed} b ON b.id = l.label_id"}
      - {table: regions, capture: {method: watermark, cursor: updated_at}, keys: "SELECT l.id FROM lines l JOIN {changed} r ON r.id = l.region_id"}
reverse_etl:
  - name: colors
    mode: update
    query: SELECT id, 'red' AS color FROM UNNEST([1, 2, 3]) AS id
    target: {table: labels, key: {id: id}, columns: {color: color}}
`

// capturesAfter is the same without triggers of ours, and without a slot.
func capturesAfter() string {
	return strings.NewReplacer(
		"{name: orders, capture: {method: changelog}}", "{name: orders, capture: {method: snapshot}}",
		"{name: events, capture: {method: wal}}", "{name: events, capture: {method: snapshot}}",
		"{table: labels, capture: {method: changelog}", "{table: labels, capture: {method: watermark, cursor: id}",
	).Replace(capturesFile)
}

// declareCaptures is what Terraform makes of the file: see its local database_tables.
func (d *deployed) declareCaptures(trigger bool, slot string) {
	triggers := func(r readable) readable {
		r.Trigger = trigger
		return r
	}
	events := read("app", "events")
	events.WAL = slot
	d.Tables = []readable{
		read("app", "items"), triggers(read("app", "orders")), read("app", "notes"), read("audit", "log"), events, read("app", "rates"),
		triggers(read("app", "labels")), read("app", "regions"), read("app", "lines"), read("audit", "kinds"), // the last two by database.grants.reads
	}
	d.Targets = []writable{updated("app", "labels", []string{"id"}, []string{"color"})}
}

// deployCaptures is on a server of its own. That its administrator is no superuser,
// and so cannot make a user of replication, is left to the superuser.
func deployCaptures(t *testing.T) *deployed {
	t.Helper()
	server, address := logicalServer(t)
	conn := connect(t, address)
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE crm"); err != nil {
		t.Fatal(err)
	}
	d := deployOn(t, server.URL("crm"), capturesFile, capturesSQL)
	d.declareCaptures(true, "crm")
	d.exec(`ALTER ROLE ` + ident(d.Users["extract"]) + ` REPLICATION`)
	return d
}

// writeAll changes every table, as the application: it has no right to the change log.
func (d *deployed) writeAll() {
	d.t.Helper()
	d.exec(`SET ROLE ` + d.app + `;
		UPDATE app.items SET v = v || '+', updated_at = clock_timestamp() WHERE id < 3;
		UPDATE app.orders SET v = v || '+' WHERE id < 3;
		DELETE FROM app.orders WHERE id = (SELECT max(id) FROM app.orders WHERE id > 3);
		UPDATE app.notes SET v = v || '+' WHERE id < 3;
		WITH gone AS (DELETE FROM app.notes WHERE id = (SELECT max(id) FROM app.notes WHERE id > 3) RETURNING id)
		INSERT INTO audit.log (kind, object_id) SELECT 7, id FROM gone UNION ALL SELECT 7, id FROM generate_series(1, 2) id UNION ALL SELECT 1, 5;
		UPDATE app.events SET v = v || '+' WHERE id < 3;
		DELETE FROM app.events WHERE id = (SELECT max(id) FROM app.events WHERE id > 3);
		UPDATE app.rates SET v = v || '+' WHERE id < 3;
		UPDATE app.labels SET v = v || '+', color = NULL WHERE id = 1;
		UPDATE app.regions SET v = v || '+', updated_at = clock_timestamp() WHERE id = 2;
		UPDATE app.lines SET region_id = 1 + region_id % 9, updated_at = clock_timestamp() WHERE id = 3;
		RESET ROLE`)
}

// allThere compares every table, and the query.
func (d *deployed) allThere(when string) {
	d.t.Helper()
	conn := connect(d.t, d.url)
	for _, table := range []string{"items", "orders", "notes", "events", "rates"} {
		report, err := parity.Compare(d.t.Context(), conn, d.client, parity.Table{Schema: "app", Name: table, View: project + ".crm." + table})
		if err != nil {
			d.t.Fatal(err)
		}
		if !report.Agrees() {
			d.t.Errorf("%s: %s", when, report)
		}
	}
	want := d.value(`SELECT string_agg(concat_ws(' ', l.id, b.v, coalesce(b.color, '-'), r.v), ', ' ORDER BY l.id) FROM app.lines l JOIN app.labels b ON b.id = l.label_id JOIN app.regions r ON r.id = l.region_id`)
	var got []string
	for _, row := range d.rows("SELECT line_id, label, COALESCE(color, '-'), region FROM crm.facts ORDER BY line_id") {
		got = append(got, strings.Trim(fmt.Sprint(row), "[]"))
	}
	if diff := cmp.Diff(strings.Split(want, ", "), got); diff != "" {
		d.t.Errorf("%s: facts (-want +got):\n%s", when, diff)
	}
}

// dropTriggers has them made anew by the next run.
func (d *deployed) dropTriggers() {
	d.t.Helper()
	d.exec(`DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace AND proname LIKE 'log\_%' LOOP EXECUTE format('DROP FUNCTION %s CASCADE', f); END LOOP; END $$`)
}

func (d *deployed) triggers() string {
	return d.value(`SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE 'tidemark\_%' AND tgparentid = 0`)
}

// slots are those of the product, and its publications.
func (d *deployed) slots() string {
	return d.value(`SELECT concat_ws(', ', (SELECT string_agg('slot ' || slot_name, ', ') FROM pg_replication_slots), (SELECT string_agg('publication ' || pubname, ', ') FROM pg_publication))`)
}

// TestCapturePrivilegesSuffice: with what the script grants, every way to find a
// change works, and what was made for it is removed.
func TestCapturePrivilegesSuffice(t *testing.T) {
	t.Parallel()
	d := deployCaptures(t)
	d.mustGrant()
	before := d.rights()
	d.mustGrant()
	if diff := cmp.Diff(before, d.rights()); diff != "" {
		t.Errorf("the script is not idempotent (-once +twice):\n%s", diff)
	}
	for round := range 3 { // dedup comes first, and so makes the control plane
		d.writeAll()
		for _, function := range []string{"dedup", "extract", "reverse-etl", "extract"} {
			must(t, d.run(function, ""))
		}
		d.allThere(fmt.Sprint("round ", round))
	}
	if got := d.value(`SELECT string_agg(DISTINCT color, ', ') FROM app.labels`); got != "red" {
		t.Errorf("the color written back is %q", got)
	}
	if got := d.value(`SELECT string_agg(DISTINCT pg_get_userbyid(proowner), ', ') FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace`); got != d.Owner {
		t.Errorf("the functions of the triggers belong to %s, want %s", got, d.Owner)
	}
	slot := wal.SlotName("crm", "crm")
	if got, want := d.slots(), "slot "+slot+", publication "+slot; got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
	d.refuses(slot)
	d.remove(slot)
}

// refuses tries what neither the extractor nor the application must be able to do.
func (d *deployed) refuses(slot string) {
	d.t.Helper()
	function := d.value(`SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace AND proname LIKE '%_new' LIMIT 1`)
	extract, application := ident(d.Users["extract"]), d.app
	for statement, role := range map[string]string{
		`CREATE TRIGGER t AFTER UPDATE ON app.items EXECUTE FUNCTION suppress_redundant_updates_trigger()`:  extract,
		`CREATE TRIGGER t AFTER UPDATE ON app.events EXECUTE FUNCTION suppress_redundant_updates_trigger()`: extract,
		`ALTER TABLE app.orders DISABLE TRIGGER ALL`:                                                        extract,

		`UPDATE app.orders SET v = ''`:                                   extract,
		`DELETE FROM audit.log`:                                          extract,
		`SELECT FROM app.unlisted`:                                       extract,
		`SELECT FROM app.orders_2026`:                                    extract,
		`DROP PUBLICATION ` + slot:                                       extract,
		`ALTER PUBLICATION ` + slot + ` ADD TABLE app.items`:             extract,
		`CREATE PUBLICATION mine`:                                        extract,
		`CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`: extract,
		`INSERT INTO tidemark.change_log (feed) VALUES ('x')`:            application,
		`SELECT FROM tidemark.change_log`:                                application,
		`DROP FUNCTION ` + function:                                      application,
	} {
		tx, err := d.db.Begin(d.t.Context())
		if err != nil {
			d.t.Fatal(err)
		}
		_, err = tx.Exec(d.t.Context(), `SET LOCAL SESSION AUTHORIZATION `+role+`; `+statement, pgx.QueryExecModeSimpleProtocol)
		if fault.SQLState(err) != "42501" {
			d.t.Errorf("%s is not refused %s: %v", role, statement, err)
		}
		must(d.t, tx.Rollback(d.t.Context()))
	}
}

// remove changes the methods, as a deployment does: first the rights, then the
// functions, and the rights again.
func (d *deployed) remove(slot string) {
	d.t.Helper()
	if d.triggers() == "0" {
		d.t.Fatal("there are no triggers to remove")
	}
	d.declareCaptures(false, "")
	notices, err := d.grant()
	must(d.t, err)
	user := d.Users["extract"]
	if diff := cmp.Diff([]string{user + " keeps REPLICATION until these slots are dropped: " + slot}, notices); diff != "" {
		d.t.Errorf("notices (-want +got):\n%s", diff)
	}
	if got := d.slots(); got != "slot "+slot {
		d.t.Errorf("there is %s, want the slot alone", got)
	}
	d.file = capturesAfter()
	d.writeAll()
	must(d.t, d.run("extract", ""))
	d.allThere("without triggers and slot")
	if got := d.triggers() + " " + d.value(`SELECT count(*) FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace AND proname LIKE 'log\_%'`) + " " + d.value(`SELECT count(*) FROM tidemark.change_log`) + d.slots(); got != "0 0 0" {
		d.t.Errorf("triggers, functions, entries and slots are left: %s", got)
	}
	d.exec(`ALTER ROLE ` + d.admin + ` SUPERUSER`)
	if notices, err := d.grant(); err != nil || len(notices) > 0 {
		d.t.Errorf("%v, notices %q", err, notices)
	}
	if slices.ContainsFunc(d.rights(), func(r right) bool {
		return strings.Contains(r.Revoke, "TRIGGER") || strings.Contains(r.Revoke, "REPLICATION")
	}) {
		d.t.Errorf("rights of the former methods are left: %v", d.rights())
	}
}

// tableOf is the table of the pipeline that a right is for; "" if it is for all.
func tableOf(r right) string {
	for object, table := range map[string]string{
		"app.items": "items", "app.orders": "orders", "app.notes": "notes", "audit": "notes", "app.events": "events", "app.rates": "rates",
		"app.lines": "facts", "app.labels": "facts", "app.regions": "facts", "NOREPLICATION": "events",
	} {
		if strings.Contains(r.Revoke, object) {
			return table
		}
	}
	return ""
}

// TestCapturePrivilegesNecessary takes away each right of the extractor's, one at a
// time, and has it make anew what it made before. It fails with the statement that
// gives the right back.
func TestCapturePrivilegesNecessary(t *testing.T) {
	t.Parallel()
	d := deployCaptures(t)
	d.mustGrant()
	must(t, d.run("extract", ""))
	admin, superuser := connect(t, d.as(d.admin)), connect(t, d.url)
	rights := slices.DeleteFunc(d.rights(), func(r right) bool { return r.Function != "extract" })
	kinds := map[string]int{}
	for _, r := range rights {
		words := strings.Fields(r.Revoke)
		kinds[words[1]]++
		table, message := tableOf(r), ""
		if table != "" { // BigQuery allows a table no more than so many statements at once
			message = fmt.Sprintf(`{"table":%q}`, table)
		}
		switch {
		case words[1] == "TRIGGER":
			d.dropTriggers()
		case words[1] == "SELECT" && table == "events": // which is read only at first sight
			message = `{"table":"events","full":true}`
		}
		d.exec(r.Revoke)
		d.writeAll()
		err := d.run("extract", message)
		class, remedy := fault.Classify(err)
		if err == nil || class != fault.Permanent {
			t.Errorf("%s: extract needs nothing of it: %v (%v)", r.Revoke, err, class)
		}
		by := admin
		if words[0] == "ALTER" {
			by = superuser
		}
		if strings.Contains(remedy, "the tables that log.type.query reads") {
			d.mustGrant()
		} else if _, refusal := by.Exec(t.Context(), remedy); refusal != nil { // it is the very statement
			t.Errorf("%s: %v: the remedy %s: %v", r.Revoke, err, remedy, refusal)
			d.mustGrant()
		}
		if err := d.run("extract", message); err != nil {
			t.Errorf("%s: after the remedy %s extract fails: %v", r.Revoke, remedy, err)
		}
	}
	must(t, d.run("extract", ""))
	d.allThere("after all remedies")
	if diff := cmp.Diff(map[string]int{"SELECT": 10, "TRIGGER": 3, "USAGE": 2, "CONNECT": 1, "ROLE": 1, `"tidemark`: 1}, kinds); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
	before := d.rights()
	d.mustGrant()
	if diff := cmp.Diff(before, d.rights()); diff != "" {
		t.Errorf("the remedies end elsewhere than the script (-remedies +script):\n%s", diff)
	}
	slot := wal.SlotName("crm", "crm")
	for _, damage := range []string{"ALTER PUBLICATION " + slot + " DROP TABLE app.events", "DROP PUBLICATION " + slot} {
		d.exec(damage)
		d.writeAll()
		err := d.run("extract", "")
		class, remedy := fault.Classify(err)
		_, statement, ok := strings.Cut(remedy, "run: ")
		if class != fault.Permanent || !ok {
			t.Errorf("%s: %v (%v), remedy %q", damage, err, class, remedy)
		}
		if _, err := admin.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Errorf("%s: the remedy %s: %v", damage, statement, err)
		}
		must(t, d.run("extract", ""))
		d.allThere("after " + statement)
	}
	d.mustGrant()
	must(t, d.run("extract", ""))
}

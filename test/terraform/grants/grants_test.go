// Package grants_test runs the grants that the Terraform files plan in a real Postgres:
// what the methods of capture need of it. What the functions then can do and cannot is
// tested in test/e2e.
package grants_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/zclconf/go-cty/cty"

	"github.com/tidemark-data/tidemark/shared/wal"
	"github.com/tidemark-data/tidemark/test/deployment"
	"github.com/tidemark-data/tidemark/test/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// application is a database whose tables belong to a role of its own, with the users
// of the functions of one project.
type application struct {
	t       *testing.T
	conn    *pgx.Conn // as the superuser
	address *url.URL
	name    string // of the database, and in the names of all roles
	reader  string
}

const applicationSQL = `
	CREATE SCHEMA audit;
	CREATE TABLE audit.log (id bigint PRIMARY KEY);
	CREATE TABLE orders (id bigint PRIMARY KEY);
	CREATE TABLE customers (id bigint PRIMARY KEY);
	CREATE TABLE regions (id bigint PRIMARY KEY);
	CREATE TABLE "items 'of' orders" (id bigint PRIMARY KEY);
	CREATE TABLE parts (id bigint, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
	CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY RANGE (at);
	CREATE TABLE parts_2026_1 PARTITION OF parts_2026 FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
	CREATE TABLE others (id bigint PRIMARY KEY)`

func newApplication(t *testing.T) *application {
	t.Helper()
	return newApplicationIn(t, postgres.NewDatabase(t))
}

func newApplicationIn(t *testing.T, database string) *application {
	t.Helper()
	address, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	a := &application{t: t, address: address, name: strings.TrimPrefix(address.Path, "/")}
	a.conn = a.as(postgres.User)
	a.reader = "tidemark-extract@" + a.project() + ".iam"
	t.Cleanup(func() { // they are the whole server's
		roles := []string{"admin_" + a.name, "app_" + a.name, "tidemark_" + a.name, a.reader, a.user("dedup"), a.user("reverse-etl")}
		for _, role := range roles {
			if a.value(`SELECT count(*) FROM pg_roles WHERE rolname = $1`, role) != "0" {
				a.exec(`DROP OWNED BY ` + quoted(role) + ` CASCADE; DROP ROLE ` + quoted(role))
			}
		}
	})
	a.exec(fmt.Sprintf(`
		CREATE ROLE app_%[1]s; CREATE ROLE admin_%[1]s LOGIN SUPERUSER IN ROLE app_%[1]s; GRANT CREATE ON DATABASE %[1]s TO app_%[1]s; GRANT ALL ON SCHEMA public TO app_%[1]s;
		CREATE ROLE %[2]s LOGIN; CREATE ROLE %[3]s LOGIN; CREATE ROLE %[4]s LOGIN;
		SET ROLE app_%[1]s; %[5]s; RESET ROLE`, a.name, quoted(a.reader), quoted(a.user("dedup")), quoted(a.user("reverse-etl")), applicationSQL))
	return a
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

func (a *application) project() string { return strings.ReplaceAll("project-of-"+a.name, "_", "-") }

func (a *application) user(function string) string {
	return "tidemark-" + function + "@" + a.project() + ".iam"
}

// as connects as a role.
func (a *application) as(role string, notices ...func(*pgconn.Notice)) *pgx.Conn {
	a.t.Helper()
	address := *a.address
	address.User = url.User(role)
	config, err := pgx.ParseConfig(address.String())
	if err != nil {
		a.t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		for _, f := range notices {
			f(n)
		}
	}
	conn, err := pgx.ConnectConfig(a.t.Context(), config)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := conn.Close(context.WithoutCancel(a.t.Context())); err != nil {
			a.t.Error(err)
		}
	})
	return conn
}

func (a *application) exec(sql string) {
	a.t.Helper()
	if _, err := a.conn.Exec(context.WithoutCancel(a.t.Context()), sql); err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
}

func (a *application) value(sql string, args ...any) string {
	a.t.Helper()
	var out string
	if err := a.conn.QueryRow(context.WithoutCancel(a.t.Context()), `SELECT coalesce((`+sql+`)::text, '')`, args...).Scan(&out); err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// grant runs the grants that Terraform plans for a pipeline file with these tables,
// and returns what it gave notice of.
func (a *application) grant(tables string, reads ...string) ([]string, error) {
	a.t.Helper()
	return a.grantFor(map[string]string{"web-shop": tables}, reads...)
}

// grantFor is grant for several pipelines, by their names.
func (a *application) grantFor(pipelines map[string]string, reads ...string) ([]string, error) {
	a.t.Helper()
	dir := a.t.TempDir()
	for name, tables := range pipelines {
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte("pipeline: "+name+"\ndestination: {dataset: d}\n"+tables), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	further := cty.ListValEmpty(cty.Object(map[string]cty.Type{"table": cty.String}))
	if len(reads) > 0 {
		var objects []cty.Value
		for _, read := range reads {
			objects = append(objects, cty.ObjectVal(map[string]cty.Value{"table": cty.StringVal(read)}))
		}
		further = cty.ListVal(objects)
	}
	script := planned(a.t, map[string]cty.Value{
		"project": cty.StringVal(a.project()), "region": cty.StringVal("europe-west1"), "location": cty.StringVal("EU"), "pipelines_dir": cty.StringVal(dir),
		"database": cty.ObjectVal(map[string]cty.Value{
			"name": cty.StringVal(a.name), "instance": cty.StringVal("data-project:europe-west1:pg"), "grants": cty.ObjectVal(map[string]cty.Value{"reads": further}),
		}),
	})
	var notices []string
	conn := a.as("admin_"+a.name, func(n *pgconn.Notice) {
		if n.Severity == "NOTICE" { // not Postgres's own warning of a wal_level that is too low
			notices = append(notices, strings.Trim(n.Message+"; "+n.Hint, "; "))
		}
	})
	_, err := conn.Exec(a.t.Context(), script, pgx.QueryExecModeSimpleProtocol)
	return notices, err
}

// planned is the script of a deployment with these variables.
func planned(t *testing.T, variables map[string]cty.Value) string {
	t.Helper()
	root := os.Getenv("TERRAFORM_ROOT")
	if root == "" {
		root = "../../../terraform"
	}
	module, err := deployment.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	values, err := module.Evaluate(variables)
	if err != nil {
		t.Fatal(err)
	}
	script, err := values.Local("grants")
	if err != nil {
		t.Fatal(err)
	}
	return script.AsString()
}

func (a *application) mustGrant(tables string, reads ...string) []string {
	a.t.Helper()
	notices, err := a.grant(tables, reads...)
	if err != nil {
		a.t.Fatal(err)
	}
	return notices
}

// rights are what the user of a function may do with tables of the application.
func (a *application) rights(user string) map[string]string {
	a.t.Helper()
	rows, err := a.conn.Query(a.t.Context(), `
		SELECT c.oid::regclass::text, string_agg(x.privilege_type, ' ' ORDER BY x.privilege_type)
		  FROM pg_class c CROSS JOIN aclexplode(c.relacl) x WHERE x.grantee = $1::text::regrole GROUP BY 1`, quoted(user))
	if err != nil {
		a.t.Fatal(err)
	}
	out := map[string]string{}
	var table, privileges string
	if _, err := pgx.ForEachRow(rows, []any{&table, &privileges}, func() error {
		out[table] = privileges
		return nil
	}); err != nil {
		a.t.Fatal(err)
	}
	return out
}

// published are the tables of each publication of the database.
func (a *application) published() string {
	a.t.Helper()
	return a.value(`SELECT string_agg(x.line, '; ' ORDER BY x.line) FROM (
		SELECT p.pubname || ': ' || coalesce(string_agg(r.prrelid::regclass::text, ', ' ORDER BY r.prrelid::regclass::text), '') AS line
		  FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid GROUP BY p.pubname) x`)
}

// slot is the name of the slot and the publication of the pipeline web-shop.
func (a *application) slot() string { return wal.SlotName(a.name, "web-shop") }

// TestGrantsOfCapture: each method of capture gets the rights that it needs.
func TestGrantsOfCapture(t *testing.T) {
	t.Parallel()
	a := newApplication(t)
	if notices := a.mustGrant(`tables:
  - {name: orders, capture: {method: watermark, cursor: id}}
  - {name: "items 'of' orders", capture: {method: changelog}}
  - {name: parts, capture: {method: changelog}}
  - {name: customers, capture: {method: changelog, log: {table: audit.log, cursor: id, object: id}}}
  - name: facts
    key: [id]
    query: SELECT 1 AS id
    capture: {method: watermark, cursor: id}
    also_changed_by:
      - {table: regions, capture: {method: changelog}, keys: "SELECT 1 FROM {changed}"}
      - {table: customers, capture: {method: watermark, cursor: id}, keys: "SELECT 1 FROM {changed}"}
`, "others"); len(notices) > 0 {
		t.Errorf("notices %q", notices)
	}
	want := map[string]string{
		"orders": "SELECT", `"items 'of' orders"`: "SELECT TRIGGER", "parts": "SELECT TRIGGER", "parts_2026": "TRIGGER", "parts_2026_1": "TRIGGER",
		"customers": "SELECT", "audit.log": "SELECT", "regions": "SELECT TRIGGER", "others": "SELECT",
	}
	if diff := cmp.Diff(want, a.rights(a.reader)); diff != "" {
		t.Errorf("rights of Extract (-want +got):\n%s", diff)
	}
	for _, function := range []string{"dedup", "reverse-etl"} {
		if got := a.rights(a.user(function)); len(got) > 0 {
			t.Errorf("%s has rights: %v", function, got)
		}
	}
	if got := a.published() + a.value(`SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolreplication AND rolname LIKE '%' || $1`, a.project()+".iam"); got != "" {
		t.Errorf("without wal there is %s", got)
	}

	// The rights suffice for triggers on each, and on the partitions of parts.
	conn := a.as(a.reader)
	for _, table := range []string{`"items 'of' orders"`, "parts", "regions"} {
		for _, statement := range []string{
			`CREATE OR REPLACE FUNCTION tidemark.seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
			`CREATE TRIGGER tidemark AFTER INSERT OR UPDATE OR DELETE ON ` + table + ` FOR EACH ROW EXECUTE FUNCTION tidemark.seen()`,
		} {
			if _, err := conn.Exec(t.Context(), `SET ROLE `+quoted("tidemark_"+a.name)+`; `+strings.Replace(statement, "CREATE TRIGGER", "RESET ROLE; CREATE TRIGGER", 1)); err != nil {
				t.Errorf("%s: %v", statement, err)
			}
		}
	}
}

// TestGrantsToWhoListsTenants: what tenants.query reads each function reads, and
// tables to read are nobody's otherwise but Extract's.
func TestGrantsToWhoListsTenants(t *testing.T) {
	t.Parallel()
	a := newApplication(t)
	a.mustGrant("tenants: {query: SELECT 1 FROM others, column: id, dataset: \"d_{id}\"}\ntables:\n  - {name: orders, capture: {method: changelog}}\n", "others")
	for user, want := range map[string]map[string]string{
		a.reader: {"orders": "SELECT TRIGGER", "others": "SELECT"}, a.user("dedup"): {"others": "SELECT"}, a.user("reverse-etl"): {},
	} {
		if diff := cmp.Diff(want, a.rights(user)); diff != "" {
			t.Errorf("rights of %s (-want +got):\n%s", user, diff)
		}
	}
}

// TestGrantsOfReverseETL: each mode gets the rights that it needs, on the columns it
// maps, and those of several syncs come together.
func TestGrantsOfReverseETL(t *testing.T) {
	t.Parallel()
	targets := func(syncs string) string {
		return strings.ReplaceAll("reverse_etl:\n"+syncs, "- ", "  - {query: SELECT 1, name: ") // unread by Terraform
	}
	tests := map[string]struct {
		syncs string
		want  string
	}{
		"insert":            {"- a, mode: insert, target: {table: leads, key: {e: email}, columns: {t: tier}}}\n", "leads_id_seq USAGE; leads.email INSERT SELECT; leads.tier INSERT"},
		"upsert":            {"- a, mode: upsert, target: {table: leads, key: {e: email}, columns: {t: tier}}}\n", "leads_id_seq USAGE; leads.email INSERT SELECT; leads.tier INSERT SELECT UPDATE"},
		"upsert by id":      {"- a, mode: upsert, target: {table: leads, key: {i: id}}}\n", "leads.id INSERT SELECT"},
		"update":            {"- a, mode: update, target: {table: leads, key: {e: email}, columns: {t: tier}}}\n", "leads.email SELECT; leads.tier SELECT UPDATE"},
		"update of many":    {"- a, mode: update, target: {table: leads, key: {e: email}, columns: {t: tier}, many: true}}\n", "leads.email SELECT; leads.id SELECT; leads.tier SELECT UPDATE"},
		"fill where":        {"- a, mode: fill, target: {table: leads, key: {e: email}, columns: {t: tier}, where: gone}}\n", "leads SELECT; leads.tier UPDATE"},
		"mirror":            {"- a, mode: mirror, target: {table: leads, key: {e: email}, columns: {t: tier}}}\n", "leads DELETE; leads_id_seq USAGE; leads.email INSERT SELECT; leads.tier INSERT SELECT UPDATE"},
		"mirror softly":     {"- a, mode: mirror, deletes: soft, deleted_column: gone, target: {table: leads, key: {e: email}, columns: {t: tier}}}\n", "leads_id_seq USAGE; leads.email INSERT SELECT; leads.gone SELECT UPDATE; leads.tier INSERT SELECT UPDATE"},
		"many where":        {"- a, mode: update, target: {table: leads, key: {e: email}, columns: {t: tier}, many: true, where: gone}}\n", "leads SELECT; leads.tier UPDATE"},
		"mirror where":      {"- a, mode: mirror, target: {table: leads, key: {i: id}, where: gone}}\n", "leads DELETE SELECT; leads.id INSERT"},
		"two on one table":  {"- a, mode: insert, target: {table: leads, key: {e: email}}}\n- b, mode: fill, target: {table: leads, key: {e: email}, columns: {t: tier}}}\n", "leads_id_seq USAGE; leads.email INSERT SELECT; leads.tier SELECT UPDATE"},
		"many of two":       {"- a, mode: update, target: {table: lines, key: {s: sku}, columns: {p: price}, many: true}}\n", "lines.item SELECT; lines.order_id SELECT; lines.price SELECT UPDATE; lines.sku SELECT"},
		"a table to come":   {"- a, mode: mirror, target: {table: absent, key: {e: email}, where: gone, many: true}}\n", ""},
		"a column to come":  {"- a, mode: update, target: {table: leads, key: {e: email}, columns: {x: absent}}}\n", "leads.email SELECT"},
		"of a tenant":       {"- a, mode: update, target: {table: leads, key: {e: email}, columns: {t: tier}}}\ntenants: {column: gone}\n", "leads SELECT; leads.tier UPDATE"},
		"of no tenant":      {"- a, mode: update, target: {table: leads, key: {e: email}, columns: {t: tier}}}\ntenants: {column: ctid}\n", "leads.email SELECT; leads.tier SELECT UPDATE"},
		"nothing is needed": {"", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApplication(t)
			a.exec(`SET ROLE app_` + a.name + `;
				CREATE TABLE leads (id serial PRIMARY KEY, email text UNIQUE, tier text, gone boolean, secret text);
				CREATE TABLE lines (sku text, order_id int, item int, price int, secret text, PRIMARY KEY (order_id, item)); RESET ROLE`)
			syncs := ""
			if test.syncs != "" {
				syncs = targets(test.syncs)
			}
			for range 2 {
				a.mustGrant("tables: []\n" + syncs)
				if got := a.written(); got != test.want {
					t.Errorf("rights of ReverseETL: %s\nwant %s", got, test.want)
				}
			}
			sees := a.value(`SELECT pg_has_role($1::text, 'pg_read_all_stats', 'USAGE')`, a.user("reverse-etl"))
			if want := fmt.Sprint(test.syncs != ""); sees != want {
				t.Errorf("ReverseETL sees the load of the database: %s, want %s", sees, want)
			}
			a.mustGrant("tables: []\n")
			if got := a.written(); got != "" {
				t.Errorf("without the syncs ReverseETL keeps %s", got)
			}
		})
	}
}

// written is what ReverseETL may do with relations of the application and their columns.
func (a *application) written() string {
	a.t.Helper()
	return a.value(`SELECT string_agg(line, '; ' ORDER BY column_name <> '', line) FROM (
		SELECT c.oid::regclass::text || coalesce('.' || x.attname, '') || ' ' || string_agg(x.privilege, ' ' ORDER BY x.privilege) AS line, coalesce(x.attname, '') AS column_name
		  FROM pg_class c CROSS JOIN LATERAL (
			SELECT NULL AS attname, grantee, privilege_type AS privilege FROM aclexplode(c.relacl)
			UNION ALL SELECT a.attname, p.grantee, p.privilege_type FROM pg_attribute a CROSS JOIN aclexplode(a.attacl) p WHERE a.attrelid = c.oid) x
		 WHERE x.grantee = $1::text::regrole GROUP BY c.oid, x.attname) y`, quoted(a.user("reverse-etl")))
}

// TestPublication follows the tables of wal: made, altered and dropped again.
func TestPublication(t *testing.T) {
	t.Parallel()
	a := newApplication(t)
	slot := a.slot()
	marker := "Tidemark, read by " + a.reader
	a.exec(`CREATE PUBLICATION theirs FOR TABLE others`)
	tables := func(names ...string) string {
		var b strings.Builder
		b.WriteString("tables:\n")
		for _, name := range names {
			b.WriteString("  - {name: \"" + name + "\", capture: {method: wal}}\n")
		}
		return b.String()
	}
	for _, step := range []struct {
		name, before, tables string
		want                 string
		notices              []string
	}{
		{"made", ``, tables("orders", "items 'of' orders", "parts"), `theirs: others; ` + slot + `: "items 'of' orders", orders, parts`, nil},
		{"again", ``, tables("orders", "items 'of' orders", "parts"), `theirs: others; ` + slot + `: "items 'of' orders", orders, parts`, nil},
		{"another table, and one less", ``, tables("orders", "customers"), `theirs: others; ` + slot + `: customers, orders`, nil},
		{
			"altered by others", `ALTER PUBLICATION ` + slot + ` SET (publish = 'insert, truncate'); ALTER PUBLICATION ` + slot + ` SET TABLE regions; COMMENT ON PUBLICATION ` + slot + ` IS NULL`,
			tables("orders", "customers"), `theirs: others; ` + slot + `: customers, orders`, nil,
		},
		{"a filter", `ALTER PUBLICATION ` + slot + ` SET TABLE orders WHERE (id > 0), customers (id)`, tables("orders", "customers"), `theirs: others; ` + slot + `: customers, orders`, nil},
		{"partitions by their own names", `ALTER PUBLICATION ` + slot + ` SET (publish_via_partition_root = false)`, tables("orders", "customers"), `theirs: others; ` + slot + `: customers, orders`, nil},
		{
			"what could not be updated any more", `ALTER TABLE orders DROP CONSTRAINT orders_pkey; ALTER TABLE customers REPLICA IDENTITY NOTHING; ALTER TABLE regions REPLICA IDENTITY FULL; CREATE UNLOGGED TABLE quick (id int PRIMARY KEY);
				ALTER TABLE parts_2026_1 REPLICA IDENTITY NOTHING; CREATE TABLE late (id int PRIMARY KEY DEFERRABLE); CREATE TABLE broken (id int PRIMARY KEY); UPDATE pg_index SET indisvalid = false WHERE indrelid = 'broken'::regclass; CREATE VIEW seen AS SELECT 1 AS id; CREATE TABLE chosen (id int NOT NULL); CREATE UNIQUE INDEX chosen_id ON chosen (id); ALTER TABLE chosen REPLICA IDENTITY USING INDEX chosen_id`,
			tables("orders", "customers", "regions", "quick", "parts", "late", "broken", "seen", "absent", "chosen"), `theirs: others; ` + slot + `: chosen, regions`,
			[]string{
				bare("orders", "orders"), bare("customers", "customers"), bare("parts", "parts_2026_1"), bare("late", "late"), bare("broken", "broken"),
				"public.quick is not published: it is no permanent table", "public.seen is not published: it is no permanent table", "public.absent does not exist yet: nothing is granted on it",
			},
		},
		{"nothing to publish", ``, tables("orders"), `theirs: others; ` + slot + `: `, []string{bare("orders", "orders")}},
		{"given one", `ALTER TABLE orders ADD PRIMARY KEY (id)`, tables("orders"), `theirs: others; ` + slot + `: orders`, nil},
		{"children of a table are tables of their own", `CREATE TABLE old_orders () INHERITS (orders)`, tables("regions", "orders"), `theirs: others; ` + slot + `: orders, regions`, nil},
		{"another method", ``, `tables: [{name: orders, capture: {method: changelog}}]`, `theirs: others`, nil},
	} {
		if step.before != "" {
			a.exec(step.before)
		}
		notices := a.mustGrant(step.tables)
		slices.Sort(notices)
		slices.Sort(step.notices)
		if diff := cmp.Diff(step.notices, notices); diff != "" {
			t.Errorf("%s: notices (-want +got):\n%s", step.name, diff)
		}
		if got := a.published(); got != step.want {
			t.Errorf("%s: published %s, want %s", step.name, got, step.want)
		}
		slots := strings.Contains(step.tables, "method: wal")
		if got := a.value(`SELECT bool_and(pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot AND obj_description(oid, 'pg_publication') = $1 AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND (prqual IS NOT NULL OR prattrs IS NOT NULL))) FROM pg_publication p WHERE pubname <> 'theirs'`, marker); slots && got != "true" {
			t.Errorf("%s: the publication leaves something out, or is not known as ours", step.name)
		}
		if got := a.value(`SELECT rolreplication FROM pg_roles WHERE rolname = $1`, a.reader); got != fmt.Sprint(slots) {
			t.Errorf("%s: the user may read slots: %s", step.name, got)
		}
	}
}

// TestPublicationNames: they are those by which the functions look for them.
func TestPublicationNames(t *testing.T) {
	t.Parallel()
	a := newApplication(t)
	files := map[string]string{}
	var want []string
	for _, name := range []string{"a", "a-b", "a_b", "a1", strings.Repeat("x", 43), strings.Repeat("x", 44), strings.Repeat("long-", 12) + "er"} {
		files[name] = `tables: [{name: orders, capture: {method: wal}}]`
		want = append(want, wal.SlotName(a.name, name)+": orders")
	}
	if _, err := a.grantFor(files); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(strings.Split(a.published(), "; ")))); diff != "" {
		t.Errorf("publications (-in Go +in SQL):\n%s", diff)
	}
}

// TestSlot: with the rights of wal Extract makes, reads and drops its slot, and it
// keeps them until the slot is gone, whatever the pipelines declare then.
func TestSlot(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(t.Context(), postgres.Options{Settings: map[string]string{"wal_level": "logical"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	a := newApplicationIn(t, server.URL("postgres"))
	slot := a.slot()
	a.mustGrant(`tables: [{name: orders, capture: {method: wal}}]`)
	reader := a.as(a.reader)
	exec := func(sql string, args ...any) int64 {
		t.Helper()
		tag, err := reader.Exec(t.Context(), sql, args...)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return tag.RowsAffected()
	}
	exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, slot)
	a.exec(`INSERT INTO orders VALUES (1)`)
	if n := exec(`SELECT pg_logical_slot_peek_binary_changes($1::text, NULL, NULL, 'proto_version', '1', 'publication_names', $1::text)`, slot); n != 4 { // begin, relation, insert, commit
		t.Errorf("the slot has %d messages, want 4", n)
	}
	const changelog = `tables: [{name: orders, capture: {method: changelog}}]`
	if diff := cmp.Diff([]string{a.reader + " keeps REPLICATION until these slots are dropped: " + slot}, a.mustGrant(changelog)); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}
	exec(`SELECT pg_drop_replication_slot($1)`, slot)
	if notices := a.mustGrant(changelog); len(notices) > 0 || a.value(`SELECT rolreplication FROM pg_roles WHERE rolname = $1`, a.reader) != "false" {
		t.Errorf("without a slot the user keeps REPLICATION: %q", notices)
	}
}

// bare is the notice of a table that cannot be published, because of a part of it.
func bare(table, part string) string {
	return fmt.Sprintf("public.%s is not published: without a replica identity no row of public.%[2]s could be updated or deleted; "+
		"Give public.%[2]s a primary key, or ALTER TABLE public.%[2]s REPLICA IDENTITY FULL, and run this again", table, part)
}

// TestGrantsByWhoMayNot: what the administrator may not do is named, with who could.
func TestGrantsByWhoMayNot(t *testing.T) {
	t.Parallel()
	a := newApplication(t)
	a.exec(fmt.Sprintf(`ALTER ROLE admin_%[1]s NOSUPERUSER CREATEROLE; GRANT CREATE ON DATABASE %[1]s TO admin_%[1]s; GRANT pg_read_all_stats TO admin_%[1]s WITH ADMIN OPTION; CREATE TABLE private (id int PRIMARY KEY); GRANT SELECT ON private TO app_%[1]s WITH GRANT OPTION`, a.name))
	slot := a.slot()
	const tables = `tables: [{name: orders, capture: {method: wal}}, {name: private, capture: {method: wal}}]`
	refused := func(want, hint string) {
		t.Helper()
		_, err := a.grant(tables)
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "42501" || !strings.Contains(e.Message, want) || e.Hint != hint {
			t.Errorf("error %v, want %q with the hint %q", err, want, hint)
			return
		}
		if got := a.published(); got != "" || len(a.rights(a.reader)) > 0 {
			t.Errorf("a script that failed leaves %s", got)
		}
	}
	refused("may not let "+a.reader+" read replication slots", "As a superuser: ALTER ROLE "+quoted(a.reader)+" REPLICATION")
	a.exec(`ALTER ROLE ` + quoted(a.reader) + ` REPLICATION`)
	refused("may not ALTER PUBLICATION "+slot+" ADD TABLE ONLY public.private", "Make admin_"+a.name+" a member of the roles that own public.private and publication "+slot)
	a.exec(`ALTER TABLE private OWNER TO app_` + a.name)
	a.mustGrant(tables)
	a.exec(`ALTER PUBLICATION ` + slot + ` OWNER TO postgres`)
	_, err := a.grant(`tables: [{name: orders, capture: {method: wal}}]`)
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Hint != "Make admin_"+a.name+" a member of the roles that own publication "+slot {
		t.Errorf("error %v", err)
	}
	a.exec(`ALTER PUBLICATION ` + slot + ` OWNER TO admin_` + a.name)

	// What it may not take back is left, and said; a slot needs it.
	a.exec(`ALTER ROLE admin_` + a.name + ` REPLICATION`)
	if got := a.mustGrant(`tables: [{name: orders, capture: {method: changelog}}]`); len(got) != 1 || got[0] != a.reader+" keeps REPLICATION, which admin_"+a.name+" may not take back" {
		t.Errorf("notices %q", got)
	}
}

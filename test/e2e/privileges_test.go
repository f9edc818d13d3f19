package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/dedup"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	"github.com/tidemark-data/tidemark/test/deployment"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// declaration is what Terraform gives grants.sql.tftpl.
type declaration struct {
	Owner      string            `json:"owner"`
	Users      map[string]string `json:"users"`
	Tables     []readable        `json:"tables"`
	ExtraReads []relation        `json:"extra_reads"`
	Targets    []writable        `json:"targets"`
}

type relation struct {
	Schema string `json:"schema"`
	Table  string `json:"table"`
}

// readable has triggers of ours, or the pipeline whose slot follows it, or neither.
type readable struct {
	relation

	Trigger bool   `json:"trigger"`
	WAL     string `json:"wal"`
}

func read(schema, table string) readable { return readable{relation: relation{schema, table}} }

type writable struct {
	relation

	Key     []string `json:"key"`
	Columns []string `json:"columns"`
	Deleted string   `json:"deleted"`
	Insert  bool     `json:"insert"`
	Update  bool     `json:"update"`
	Delete  bool     `json:"delete"`
	Where   bool     `json:"where"`
	Tenant  string   `json:"tenant"` // column, which the table may have
	Many    bool     `json:"many"`
}

func updated(schema, table string, key, columns []string) writable {
	return writable{relation: relation{schema, table}, Key: key, Columns: columns, Update: true}
}

func upserted(schema, table string, key, columns []string) writable {
	w := updated(schema, table, key, columns)
	w.Insert = true
	return w
}

// script is the template as Terraform fills it in.
func (d *declaration) script(t *testing.T) string {
	t.Helper()
	template, err := filepath.Abs("../../terraform/grants.sql.tftpl")
	if err != nil {
		t.Fatal(err)
	}
	variables, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"variables.json": string(variables),
		"main.tf":        fmt.Sprintf("locals {\n  script = templatefile(%q, jsondecode(file(%q)))\n}\n", template, filepath.Join(dir, "variables.json")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	module, err := deployment.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	values, err := module.Evaluate(nil)
	if err != nil {
		t.Fatal(err)
	}
	script, err := values.Local("script")
	if err != nil {
		t.Fatal(err)
	}
	return script.AsString()
}

// The application's names are the worst there are: none may end the script's
// quoting, and none may be taken for another.
const (
	appSchema    = `sh'op "x" $json$;`
	targetTable  = `con"tacts $tidemark$ é`
	targetKey    = `i'd "key"`
	targetColumn = `sco$re\'`
)

// appSQL makes the tables of an application. items and parts are declared to be
// read, contacts, leads and seen to be written; what else there is, is not.
func appSQL() string {
	return strings.NewReplacer(
		"@schema", ident(appSchema), "@target", ident(appSchema)+"."+ident(targetTable), "@key", ident(targetKey), "@score", ident(targetColumn),
	).Replace(`
	CREATE SCHEMA @schema;
	CREATE SCHEMA kinds;
	CREATE TYPE kinds.tier AS ENUM ('gold', 'silver');
	CREATE DOMAIN kinds.label AS text CHECK (value <> '');
	CREATE TABLE @schema.items (id bigint PRIMARY KEY, tier kinds.tier, tags kinds.tier[], updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON @schema.items (updated_at, id);
	CREATE TABLE @schema.parts (id bigint, at date NOT NULL DEFAULT '2026-01-01', updated_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
	CREATE INDEX ON @schema.parts (updated_at, id, at);
	CREATE TABLE @schema.parts_2026 PARTITION OF @schema.parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
	CREATE TABLE @schema.old_items () INHERITS (@schema.items);
	CREATE TABLE @schema.unlisted (id bigint PRIMARY KEY);
	CREATE TABLE @target (@key bigint PRIMARY KEY, @score numeric(9,2), tier kinds.tier, label kinds.label, secret text, touched int NOT NULL DEFAULT 0);
	CREATE TABLE @schema.leads (id serial PRIMARY KEY, email text NOT NULL UNIQUE, tier kinds.tier, secret text);
	CREATE TABLE @schema.seen (id int PRIMARY KEY);
	CREATE TABLE @schema.stock (id int PRIMARY KEY, level int, shop text DEFAULT 'a', secret text);
	CREATE TABLE @schema.members (id int PRIMARY KEY, level int, gone boolean, secret text);
	CREATE TABLE @schema.lines (purchase int, item int, sku text, price int, secret text, PRIMARY KEY (purchase, item));
	CREATE TABLE @schema.referrals (id int PRIMARY KEY, label text, secret text);
	INSERT INTO @schema.lines VALUES (1, 1, 's'), (1, 2, 's'), (2, 1, 't');
	INSERT INTO @target (@key) SELECT generate_series(1, 20);
	INSERT INTO @schema.leads (email) VALUES ('1@example.com')`)
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

func appFile() string {
	return fmt.Sprintf(`
pipeline: crm
source: {schema: %[1]s}
destination: {dataset: crm}
tables:
  - {name: items, capture: {method: watermark, cursor: updated_at}}
  - {name: parts, capture: {method: watermark, cursor: updated_at}}
reverse_etl:
  - name: scores
    mode: update
    query: SELECT id, NUMERIC '5' AS score, 'gold' AS tier, 'warm' AS label FROM UNNEST(GENERATE_ARRAY(1, 20)) AS id
    target: {table: %[2]s, key: {id: %[3]s}, columns: {score: %[4]s, tier: tier, label: label}}
  - name: leads
    mode: upsert
    query: SELECT email, 'gold' AS tier FROM UNNEST(['1@example.com', '2@example.com']) AS email
    target: {table: leads, key: {email: email}, columns: {tier: tier}}
  - name: seen
    mode: upsert
    query: SELECT id FROM UNNEST([1, 2]) AS id
    target: {table: seen, key: {id: id}}
  - name: stock
    mode: mirror
    query: SELECT id, 5 AS level FROM UNNEST([1, 2]) AS id
    target: {table: stock, key: {id: id}, columns: {level: level}, where: shop = 'a'}
    limits: {max_delete_percent: 100}
  - name: members
    mode: mirror
    deletes: soft
    deleted_column: gone
    query: SELECT id, 5 AS level FROM UNNEST([1, 2]) AS id
    target: {table: members, key: {id: id}, columns: {level: level}}
    limits: {max_delete_percent: 100}
  - name: prices
    mode: update
    query: SELECT 's' AS sku, 5 AS price
    target: {table: lines, key: {sku: sku}, columns: {price: price}, many: true}
  - name: referrals
    mode: insert
    query: SELECT id, 'x' AS label FROM UNNEST([1, 2]) AS id
    target: {table: referrals, key: {id: id}, columns: {label: label}}
`, yamlText(appSchema), yamlText(targetTable), yamlText(targetKey), yamlText(targetColumn))
}

func yamlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// deployed is a world whose database nobody but its administrator may touch, and
// whose functions log in as users of their own.
type deployed struct {
	*world
	declaration

	file  string
	admin string
	app   string
}

// deploy creates the roles, unique to the database because they are the whole
// server's, and the application, whose role the administrator is a member of.
func deploy(t *testing.T, file, sql string) *deployed {
	t.Helper()
	return deployOn(t, postgres.NewDatabase(t), file, sql)
}

func deployOn(t *testing.T, address, file, sql string) *deployed {
	t.Helper()
	w := newWorldOn(t, address, file)
	w.product = nil // it came as the superuser
	database := w.value("SELECT current_database()")
	d := &deployed{
		world: w, file: file, admin: "admin_" + database, app: "app_" + database,
		declaration: declaration{
			Owner:  "tidemark " + database,
			Users:  map[string]string{},
			Tables: []readable{read(appSchema, "items"), read(appSchema, "parts")},
			Targets: []writable{
				updated(appSchema, targetTable, []string{targetKey}, []string{targetColumn, "tier", "label"}),
				upserted(appSchema, "leads", []string{"email"}, []string{"tier"}),
				upserted(appSchema, "seen", []string{"id"}, []string{}),
				{relation: relation{appSchema, "stock"}, Key: []string{"id"}, Columns: []string{"level"}, Insert: true, Update: true, Delete: true, Where: true},
				{relation: relation{appSchema, "members"}, Key: []string{"id"}, Columns: []string{"level"}, Deleted: "gone", Insert: true, Update: true},
				{relation: relation{appSchema, "lines"}, Key: []string{"sku"}, Columns: []string{"price"}, Update: true, Many: true},
				{relation: relation{appSchema, "referrals"}, Key: []string{"id"}, Columns: []string{"label"}, Insert: true},
			},
		},
	}
	d.ExtraReads = []relation{}
	w.exec(`DROP SCHEMA tidemark CASCADE`)
	w.exec(fmt.Sprintf(`CREATE ROLE %s NOLOGIN`, d.app))
	w.exec(fmt.Sprintf(`CREATE ROLE %s LOGIN CREATEROLE IN ROLE %s`, d.admin, d.app))
	w.exec(fmt.Sprintf(`GRANT pg_read_all_stats TO %s WITH ADMIN OPTION`, d.admin)) // CREATEROLE was enough before Postgres 16
	w.exec(fmt.Sprintf(`ALTER DATABASE %s OWNER TO %s`, database, d.admin))
	w.exec(fmt.Sprintf(`REVOKE ALL ON DATABASE %s FROM PUBLIC`, database))
	w.exec(`REVOKE ALL ON SCHEMA public FROM PUBLIC`)
	w.exec(fmt.Sprintf(`GRANT ALL ON SCHEMA public TO %s`, d.app))
	w.exec(fmt.Sprintf(`GRANT CREATE ON DATABASE %s TO %s`, database, d.app))
	for _, function := range []string{"extract", "dedup", "reverse-etl"} {
		d.Users[function] = "tidemark-" + function + "@" + database + ".iam"
		w.exec(`CREATE ROLE ` + ident(d.Users[function]) + ` LOGIN`)
	}
	w.exec(fmt.Sprintf(`SET ROLE %s; %s; RESET ROLE`, d.app, sql))
	return d
}

// as is the address of the database for a user.
func (d *deployed) as(user string) string {
	d.t.Helper()
	u, err := url.Parse(d.url)
	if err != nil {
		d.t.Fatal(err)
	}
	u.User = url.User(user)
	return u.String()
}

// grant runs the script as the administrator and returns what it gave notice of.
func (d *deployed) grant() ([]string, error) {
	d.t.Helper()
	config, err := pgx.ParseConfig(d.as(d.admin))
	if err != nil {
		d.t.Fatal(err)
	}
	var notices []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	conn, err := pgx.ConnectConfig(d.t.Context(), config)
	if err != nil {
		d.t.Fatal(err)
	}
	_, err = conn.Exec(d.t.Context(), d.script(d.t), pgx.QueryExecModeSimpleProtocol)
	must(d.t, conn.Close(context.WithoutCancel(d.t.Context())))
	return notices, err
}

func (d *deployed) mustGrant() {
	d.t.Helper()
	if _, err := d.grant(); err != nil {
		d.t.Fatal(err)
	}
}

// instanceOf opens the connections of one function, as that function's user.
func (d *deployed) instanceOf(function string) (*instance.Connections, error) {
	address := d.as(d.Users[function])
	return instance.Connect(d.t.Context(), instance.Config{
		Source: cloudsql.Config{URL: address}, Control: cloudsql.Config{URL: address, OwnerOf: controlplane.Schema}, Pipelines: d.pipelines(d.file),
		Warehouse: warehouse.Config{Project: project, Host: d.bq.RESTHost(), StorageHost: d.bq.StorageHost()},
	})
}

// run starts an instance of a function, has it serve a message, and stops it.
func (d *deployed) run(function, message string) (err error) {
	d.t.Helper()
	c, err := d.instanceOf(function)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	switch function {
	case "extract":
		return d.extractOn(c, message)
	case "dedup":
		r := dedup.Runner{Dispatcher: d.dispatcher(c, tick.TopicDedup), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse}
		return r.Run(d.t.Context(), d.delivery(message))
	}
	d.product = c
	return d.reverse(message)
}

// change gives every function something to do.
func (d *deployed) change() {
	d.t.Helper()
	in := ident(appSchema) + "."
	d.exec(`INSERT INTO ` + in + `items SELECT count(*) + 1, 'gold', '{gold,silver}' FROM ` + in + `items`)
	d.exec(`INSERT INTO ` + in + `parts SELECT count(*) + 1 FROM ` + in + `parts`)
	d.exec(`UPDATE ` + in + `items SET updated_at = clock_timestamp()`)
	d.exec(`UPDATE ` + in + ident(targetTable) + ` SET label = NULL, tier = NULL, ` + ident(targetColumn) + ` = NULL`)
	d.exec(`DELETE FROM ` + in + `leads WHERE id > 1`)
	d.exec(`UPDATE ` + in + `leads SET tier = NULL`)
	d.exec(`DELETE FROM ` + in + `seen`)
	d.exec(`DELETE FROM ` + in + `stock; INSERT INTO ` + in + `stock (id) VALUES (1), (9)`)
	d.exec(`DELETE FROM ` + in + `members; INSERT INTO ` + in + `members (id) VALUES (1), (9)`)
	d.exec(`UPDATE ` + in + `lines SET price = NULL`)
	d.exec(`DELETE FROM ` + in + `referrals`)
}

// right is one thing that a user was granted.
type right struct{ Function, Revoke string }

// rights are all that the functions' users were granted, but for statistics, which
// they could do without.
func (d *deployed) rights() []right {
	d.t.Helper()
	functions := map[string]string{}
	var users []string
	for function, user := range d.Users {
		functions[user], users = function, append(users, user)
	}
	rows, err := d.db.Query(d.t.Context(), `
		SELECT r.rolname, x.sql FROM pg_roles r CROSS JOIN LATERAL (
			SELECT format('REVOKE %s ON %s %s FROM %I', a.privilege_type, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass, r.rolname) AS sql
			  FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee = r.oid
			UNION ALL
			SELECT format('REVOKE %s (%I) ON TABLE %s FROM %I', a.privilege_type, c.attname, c.attrelid::regclass, r.rolname)
			  FROM pg_attribute c, aclexplode(c.attacl) a WHERE a.grantee = r.oid
			UNION ALL
			SELECT format('REVOKE %s ON SCHEMA %s FROM %I', a.privilege_type, n.oid::regnamespace, r.rolname)
			  FROM pg_namespace n, aclexplode(n.nspacl) a WHERE a.grantee = r.oid
			UNION ALL
			SELECT format('REVOKE %s ON DATABASE %I FROM %I', a.privilege_type, b.datname, r.rolname)
			  FROM pg_database b, aclexplode(b.datacl) a WHERE a.grantee = r.oid
			UNION ALL
			SELECT format('ALTER ROLE %I NOREPLICATION', r.rolname) WHERE r.rolreplication
			UNION ALL
			SELECT format('REVOKE %I FROM %I GRANTED BY %I', g.rolname, r.rolname, pg_get_userbyid(m.grantor))
			  FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname <> 'pg_read_all_stats'
		) x WHERE r.rolname = ANY ($1) ORDER BY 1, 2`, users)
	if err != nil {
		d.t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[right])
	if err != nil {
		d.t.Fatal(err)
	}
	for i := range found {
		found[i].Function = functions[found[i].Function]
	}
	return found
}

// functionNames is an order in which the functions can come.
func functionNames() []string { return []string{"extract", "dedup", "reverse-etl"} }

// TestPrivilegesSuffice deploys to an empty database and lets the functions come
// in every order: the first of them makes the control plane of all.
func TestPrivilegesSuffice(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{
		functionNames(),
		{"extract", "reverse-etl", "dedup"},
		{"dedup", "extract", "reverse-etl"},
		{"dedup", "reverse-etl", "extract"},
		{"reverse-etl", "extract", "dedup"},
		{"reverse-etl", "dedup", "extract"},
	} {
		t.Run(strings.Join(order, ","), func(t *testing.T) {
			t.Parallel()
			d := deploy(t, appFile(), appSQL())
			d.mustGrant()
			before := d.rights()
			d.mustGrant()
			if diff := cmp.Diff(before, d.rights()); diff != "" {
				t.Errorf("the script is not idempotent (-once +twice):\n%s", diff)
			}
			for range 2 { // in the second round there is something for dedup, whoever came first
				d.change()
				for _, function := range order {
					must(t, d.run(function, ""))
				}
			}
			if got := d.value(`SELECT string_agg(DISTINCT kind || ' ' || outcome, ', ') FROM tidemark.runs`); got != "dedup ok, extract ok, reverse_etl ok" {
				t.Errorf("runs recorded %s", got)
			}
			if got := d.value(`SELECT string_agg(DISTINCT tableowner::text, ', ') FROM pg_tables WHERE schemaname = 'tidemark'`); got != d.Owner {
				t.Errorf("the control plane belongs to %s, want %s", got, d.Owner)
			}
			if n := d.count("SELECT COUNT(*) FROM crm.items"); n != 2 {
				t.Errorf("%d items arrived, want 2", n)
			}
			if got := d.value(`SELECT count(*) FROM ` + ident(appSchema) + `.leads WHERE tier = 'gold'`); got != "2" {
				t.Errorf("%s leads are there, want 2", got)
			}
			d.noStaging()
		})
	}
}

// TestPrivilegesNecessary takes away each right that the script grants, one at a
// time. The function fails that has it, the others do not notice, and the script
// gives it back. Rights that are more than enough would be found here.
func TestPrivilegesNecessary(t *testing.T) {
	t.Parallel()
	d := deploy(t, appFile(), appSQL())
	d.mustGrant()
	for _, function := range functionNames() {
		must(t, d.run(function, ""))
	}
	rights := d.rights()
	if len(rights) < 25 {
		t.Fatalf("only %d rights are granted", len(rights))
	}
	admin := connect(t, d.as(d.admin))
	for n, r := range rights {
		d.exec(r.Revoke)
		d.change()
		for _, function := range functionNames() {
			if function == "dedup" && r.Function != "dedup" && n > 3 {
				continue // BigQuery allows a table no more than so many deletes at once
			}
			err := d.run(function, "")
			if function == r.Function && function == "reverse-etl" && err == nil {
				err = d.run(function, `{"dry_run":true}`) // reads more, for its samples
			}
			class, remedy := fault.Classify(err)
			switch {
			case function != r.Function && err != nil:
				t.Errorf("%s: %s fails: %v", r.Revoke, function, err)
			case function == r.Function && (fault.SQLState(err) != "42501" || class != fault.Permanent):
				t.Errorf("%s: %s needs nothing of it: %v", r.Revoke, function, err)
			case function == r.Function && !strings.Contains(r.Revoke, "SEQUENCE"): // whose name is in the error
				if _, err := admin.Exec(t.Context(), remedy); err != nil { // it is the very statement
					t.Errorf("%s: the remedy %s: %v", r.Revoke, remedy, err)
				}
				if err := d.run(function, ""); err != nil {
					t.Errorf("%s: after the remedy %s, %s fails: %v", r.Revoke, remedy, function, err)
				}
			}
		}
		d.mustGrant()
	}
	d.change()
	for _, function := range functionNames() {
		must(t, d.run(function, ""))
	}
	if diff := cmp.Diff(rights, d.rights()); diff != "" {
		t.Errorf("the script and the remedies end elsewhere (-script +both):\n%s", diff)
	}
}

// TestPrivilegesRefuse tries what the users must not be able to do.
func TestPrivilegesRefuse(t *testing.T) {
	t.Parallel()
	d := deploy(t, appFile(), appSQL())
	d.mustGrant()
	for _, function := range functionNames() {
		must(t, d.run(function, ""))
	}
	in := ident(appSchema) + "."
	contacts := in + ident(targetTable)
	everybody := []string{
		`SET ROLE ` + d.app, `SET ROLE ` + d.admin, `CREATE TABLE public.mine (id int)`, `CREATE TABLE ` + in + `mine (id int)`, `CREATE SCHEMA mine`, `CREATE TEMP TABLE mine (id int)`,
		`CREATE ROLE mine`, `SELECT FROM ` + in + `unlisted`, `SELECT FROM ` + in + `parts_2026`, `SELECT FROM ` + in + `old_items`,
		`INSERT INTO ` + in + `items VALUES (99)`, `UPDATE ` + in + `items SET updated_at = now()`, `DELETE FROM ` + in + `items`, `TRUNCATE ` + in + `items`, `SELECT FROM ` + in + `items FOR UPDATE`,
		`DELETE FROM ` + contacts, `TRUNCATE ` + contacts, `ALTER TABLE ` + contacts + ` ADD c int`, `CREATE TRIGGER t AFTER UPDATE ON ` + contacts + ` EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
		`INSERT INTO ` + contacts + ` (` + ident(targetKey) + `) VALUES (99)`, `UPDATE ` + contacts + ` SET secret = 'x'`, `UPDATE ` + contacts + ` SET ` + ident(targetKey) + ` = 99`, `SELECT secret FROM ` + contacts,
		`INSERT INTO ` + in + `leads (email, secret) VALUES ('x', 'x')`, `UPDATE ` + in + `leads SET email = 'x'`, `DELETE FROM ` + in + `leads`,
	}
	readOnly := []string{`UPDATE ` + contacts + ` SET tier = 'gold'`, `SELECT tier FROM ` + contacts, `INSERT INTO ` + in + `leads (email) VALUES ('x')`, `INSERT INTO ` + in + `seen VALUES (99)`, `SELECT nextval('` + strings.ReplaceAll(in, `'`, `''`) + `leads_id_seq')`}
	noRows := []string{`SELECT FROM ` + in + `items`, `SELECT FROM ` + in + `parts`, `COPY ` + in + `items TO STDOUT`}
	for function, statements := range map[string][]string{
		"extract":     slices.Concat(everybody, readOnly),
		"dedup":       slices.Concat(everybody, readOnly, noRows),
		"reverse-etl": slices.Concat(everybody, noRows),
	} {
		conn := connect(t, d.as(d.Users[function]))
		for _, statement := range statements {
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), statement); fault.SQLState(err) != "42501" {
				t.Errorf("%s is not refused %s: %v", function, statement, err)
			}
			must(t, tx.Rollback(t.Context()))
		}
		if got := scan[bool](t, conn, `SELECT pg_has_role('pg_read_all_stats', 'MEMBER')`); got != (function != "dedup") {
			t.Errorf("%s is a member of pg_read_all_stats: %t", function, got)
		}
		if got := scan[int](t, conn, `SELECT count(*) FROM tidemark.runs`); got == 0 {
			t.Errorf("%s sees no runs", function)
		}
	}
}

// TestPrivilegesFollowTheDeclaration takes tables and columns out of the
// declaration, and declares others that do not exist yet.
func TestPrivilegesFollowTheDeclaration(t *testing.T) {
	t.Parallel()
	d := deploy(t, appFile(), appSQL())
	d.mustGrant()
	d.Tables = []readable{read("kinds", "orders"), read("no schema", "orders"), read(appSchema, "parts")}
	d.Targets = []writable{
		updated(appSchema, targetTable, []string{targetKey}, []string{"tier", "size"}),
		upserted(appSchema, "absent", []string{"id"}, []string{"x"}),
	}
	notices, err := d.grant()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(notices)
	later := ` does not exist yet: nothing is granted on it`
	want := []string{
		"kinds.orders" + later, "no schema.orders" + later, appSchema + ".absent.id" + later, appSchema + ".absent.x" + later, appSchema + "." + targetTable + ".size" + later,
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Compact(notices)); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}
	var got []string
	for _, r := range d.rights() {
		if !strings.Contains(r.Revoke, " ON DATABASE ") && !strings.Contains(r.Revoke, "GRANTED BY") {
			got = append(got, r.Function+": "+strings.TrimSuffix(strings.TrimPrefix(r.Revoke, "REVOKE "), " FROM "+ident(d.Users[r.Function])))
		}
	}
	target := " ON TABLE " + ident(appSchema) + "." + ident(targetTable)
	if diff := cmp.Diff([]string{
		"extract: SELECT ON TABLE " + ident(appSchema) + ".parts", "extract: USAGE ON SCHEMA " + ident(appSchema),
		"reverse-etl: SELECT (" + ident(targetKey) + ")" + target, "reverse-etl: SELECT (tier)" + target, "reverse-etl: UPDATE (tier)" + target,
		"reverse-etl: USAGE ON SCHEMA kinds", "reverse-etl: USAGE ON SCHEMA " + ident(appSchema),
	}, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
	err = d.run("extract", `{"table":"items"}`)
	if _, remedy := fault.Classify(err); remedy != `GRANT SELECT ON `+ident(appSchema)+`."items" TO `+ident(d.Users["extract"]) {
		t.Errorf("an undeclared table: %v with the remedy %q", err, remedy)
	}
}

// TestPrivilegesOfTenants: whoever runs the tenants query has to read its tables.
func TestPrivilegesOfTenants(t *testing.T) {
	t.Parallel()
	d := deploy(t, `
pipeline: crm
source: {schema: app}
destination: {dataset: crm}
tenants: {query: "SELECT id, slug FROM app.organizations", column: organization_id, dataset: "org_{slug}"}
tables:
  - {name: notes, capture: {method: watermark, cursor: updated_at}}
reverse_etl:
  - {name: names, mode: update, query: "SELECT 1 AS id, 'x' AS name", target: {table: notes, key: {id: id}, columns: {name: name}}}
`, `CREATE SCHEMA app;
		CREATE TABLE app.organizations (id int PRIMARY KEY, slug text NOT NULL);
		INSERT INTO app.organizations VALUES (1, 'acme');
		CREATE TABLE app.notes (id int PRIMARY KEY, organization_id int NOT NULL, name text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
		CREATE INDEX ON app.notes (updated_at, id);
		INSERT INTO app.notes VALUES (1, 1)`)
	d.Tables = []readable{read("app", "notes")}
	d.Targets = []writable{updated("app", "notes", []string{"id"}, []string{"name"})}
	d.Targets[0].Tenant = "organization_id"
	d.mustGrant()
	for _, function := range functionNames() {
		err := d.run(function, "")
		if class, remedy := fault.Classify(err); class != fault.Permanent || remedy != `GRANT SELECT ON the tables that tenants.query reads TO `+ident(d.Users[function]) {
			t.Errorf("%s lists tenants it may not read: %v with the remedy %q", function, err, remedy)
		}
	}
	d.ExtraReads = []relation{{"app", "organizations"}}
	d.mustGrant()
	for _, function := range functionNames() {
		must(t, d.run(function, ""))
	}
	if n := d.count("SELECT COUNT(*) FROM org_acme.notes"); n != 1 {
		t.Errorf("%d notes arrived, want 1", n)
	}
	if got := d.value(`SELECT name FROM app.notes`); got != "x" {
		t.Errorf("the name written back is %q", got)
	}
	d.Targets = []writable{} // then reverse-etl has no business with tenants either
	d.mustGrant()
	if _, err := connect(t, d.as(d.Users["reverse-etl"])).Exec(t.Context(), `SELECT FROM app.organizations`); fault.SQLState(err) != "42501" {
		t.Errorf("reverse-etl may read the tenants: %v", err)
	}
}

// TestPrivilegesByAnyAdministrator runs the script as those who are there in
// Cloud SQL: a role that only inherits what an administrator may.
func TestPrivilegesByAnyAdministrator(t *testing.T) {
	t.Parallel()
	d := deploy(t, appFile(), appSQL())
	group := d.admin + "_group"
	d.exec(fmt.Sprintf(`ALTER ROLE %s NOCREATEROLE; CREATE ROLE %s CREATEROLE; GRANT %[2]s TO %[1]s; REVOKE pg_read_all_stats FROM %[1]s; GRANT pg_read_all_stats TO %[2]s WITH ADMIN OPTION; ALTER DATABASE %[3]s OWNER TO %[2]s`,
		d.admin, group, d.value("SELECT current_database()")))
	notices, err := d.grant()
	if err != nil || len(notices) > 0 {
		t.Fatalf("%v with notices %q", err, notices)
	}

	// Another time it takes no more than the right to the tables.
	d.exec(fmt.Sprintf(`ALTER ROLE %s NOCREATEROLE; REVOKE pg_read_all_stats FROM %[1]s CASCADE; REVOKE pg_read_all_stats FROM %[2]s, %[3]s`, group, ident(d.Users["extract"]), ident(d.Users["reverse-etl"])))
	notices, err = d.grant()
	if err != nil || len(notices) != 2 || !strings.Contains(notices[0], "pg_read_all_stats") || !strings.Contains(notices[1], "pg_read_all_stats") {
		t.Fatalf("%v with notices %q, want two of statistics", err, notices)
	}
	for _, function := range functionNames() {
		must(t, d.run(function, ""))
	}

	// Without a right to the tables nothing happens at all, and it is said which.
	before := d.rights()
	d.exec(fmt.Sprintf(`REVOKE %s FROM %s`, d.app, d.admin))
	d.exec(fmt.Sprintf(`GRANT SELECT ON ALL TABLES IN SCHEMA %s TO %s`, ident(appSchema), d.admin)) // so that GRANT only warns
	d.exec(fmt.Sprintf(`GRANT CREATE, USAGE ON SCHEMA %s TO %s`, ident(appSchema), d.admin))
	d.Tables = append(d.Tables, read(appSchema, "unlisted"))
	_, err = d.grant()
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "42501" || !strings.Contains(refused.Message, "unlisted") || !strings.Contains(refused.Hint, d.admin) {
		t.Errorf("granted without a right to: %v", err)
	}
	if diff := cmp.Diff(before, d.rights()); diff != "" {
		t.Errorf("a script that failed has changed rights (-before +after):\n%s", diff)
	}
}

// TestPrivilegesOfAnOlderControlPlane: a schema that another role owns cannot be
// shared, and the script says how it can.
func TestPrivilegesOfAnOlderControlPlane(t *testing.T) {
	t.Parallel()
	d := deploy(t, appFile(), appSQL())
	reader, loner := ident(d.Users["extract"]), ident(d.Users["dedup"])
	remedies := func(want string) {
		t.Helper()
		err := d.run("extract", "")
		if class, remedy := fault.Classify(err); class != fault.Permanent || remedy != want {
			t.Errorf("%v with the remedy %q, want %q", err, remedy, want)
		}
	}
	database := ident(d.value("SELECT current_database()"))
	remedies(`GRANT CONNECT ON DATABASE ` + database + ` TO ` + reader)
	d.exec(`GRANT CONNECT ON DATABASE ` + database + ` TO ` + reader)
	remedies(`GRANT CREATE ON DATABASE ` + database + ` TO ` + reader + `; or, for several users, CREATE SCHEMA tidemark AUTHORIZATION a role that all are members of`)
	d.exec(`CREATE SCHEMA tidemark AUTHORIZATION ` + loner)
	remedies(`GRANT ` + loner + ` TO ` + reader)
	_, err := d.grant()
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || !strings.Contains(refused.Hint, `REASSIGN OWNED BY `+loner) {
		t.Fatalf("the script went on: %v", err)
	}
	d.exec(fmt.Sprintf(`CREATE ROLE %s; GRANT %[1]s TO %[2]s WITH ADMIN OPTION`, ident(d.Owner), d.admin))
	d.exec(refused.Hint)
	d.mustGrant()
	for _, function := range functionNames() {
		must(t, d.run(function, ""))
	}
}

// TestPrivilegesWithoutAGap runs the script again and again while a user reads.
func TestPrivilegesWithoutAGap(t *testing.T) {
	t.Parallel()
	d := deploy(t, appFile(), appSQL())
	d.mustGrant()
	conn := connect(t, d.as(d.Users["extract"]))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 30 {
			if _, err := d.grant(); err != nil {
				t.Error(err)
			}
		}
	}()
	for reads := 0; ; reads++ {
		if _, err := conn.Exec(t.Context(), `SELECT FROM `+ident(appSchema)+`.items`); err != nil {
			t.Fatalf("after %d reads: %v", reads, err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

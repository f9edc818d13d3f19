package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// latest is the id of the last run of a sync.
func latest(t *testing.T, conn *pgx.Conn, sync string) string {
	t.Helper()
	var id string
	if err := conn.QueryRow(t.Context(), `SELECT max(id)::text FROM tidemark.runs WHERE name = $1`, sync).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestCommandSync runs reverse syncs from the command line: dry unless it is told to
// apply, with a file in place of the query, and beyond a brake only once.
func TestCommandSync(t *testing.T) {
	t.Parallel()
	s := startStack(t, `
pipeline: shop
destination: {dataset: shop}
reverse_etl:
  - name: names
    query: SELECT mail, name FROM UNNEST([STRUCT('a@x' AS mail, 'Ann' AS name), ('b@x', 'Bob'), ('z@x', 'Zoe')])
    target: {table: orders, key: {mail: email}, columns: {name: name}, many: true}
    mode: fill
  - name: states
    query: SELECT id FROM UNNEST([1, 2]) AS id
    target: {table: states, key: {id: id}}
    mode: mirror
  - name: guarded
    query: SELECT id FROM UNNEST([1, 2]) AS id
    target: {table: guarded, key: {id: id}}
    mode: upsert
    approve: true
`, `CREATE TABLE orders (id int PRIMARY KEY, email text, name text);
		INSERT INTO orders VALUES (1, 'a@x', NULL), (2, 'a@x', NULL), (3, 'b@x', 'Bea'), (4, NULL, NULL), (5, 'c@x', NULL), (6, 'd@x', NULL);
		CREATE TABLE states (id int PRIMARY KEY);
		INSERT INTO states SELECT generate_series(1, 10);
		CREATE TABLE guarded (id int PRIMARY KEY)`)
	environment := stackEnvironment(s)
	conn := connect(t, s.DatabaseURL())
	value := func(sql, want string) {
		t.Helper()
		var got string
		if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s is %s, want %s", sql, got, want)
		}
	}
	const filled = `SELECT string_agg(id || coalesce(name, '-'), ' ' ORDER BY id) FROM orders`

	// Dry by default: all it would do is said, and nothing done.
	command(t, environment, "sync", "shop", "names").contains(t, 0,
		"a dry run: nothing was written", "3 rows read: all of the source", "2 to update", "1 unchanged", "1 not found: no row of the table has their key",
		"1 rows of the table stay to be filled: they have no key", "2 rows of the table stay to be filled: the source does not have their key",
		`"name": null`, `"name": "Ann"`, "tidemark sync -apply -plan ")
	value(filled, "1- 2- 3Bea 4- 5- 6-")
	plan := latest(t, conn, "names")
	command(t, environment, "sync", "-apply", "-plan", plan, "shop", "names").contains(t, 0, ", applied", "2 updated")
	value(filled, "1Ann 2Ann 3Bea 4- 5- 6-")
	command(t, environment, "sync", "-apply", "-plan", plan, "shop", "names").contains(t, 0, "run "+plan+" has been applied before")
	command(t, environment, "sync", "shop", "names").contains(t, 0, "there is nothing to write")

	// A file in place of the query.
	file := filepath.Join(t.TempDir(), "the names.csv")
	if err := os.WriteFile(file, []byte("\uFEFFmail,name,note\r\nc@x,Cay,\"1,5\"\r\nd@x,,\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dry := command(t, environment, "sync", "-csv", file, "shop", "names")
	dry.contains(t, 0, "2 rows read: all of the source", "1 to update", "-csv '"+file+"' shop names")
	value(filled, "1Ann 2Ann 3Bea 4- 5- 6-")
	command(t, environment, "sync", "-apply", "-csv", file, "-plan", latest(t, conn, "names"), "shop", "names").contains(t, 0, "1 updated")
	value(filled, "1Ann 2Ann 3Bea 4- 5Cay 6-")
	if err := os.WriteFile(file, []byte("mail,name\nsecret,\n\"secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := command(t, environment, "sync", "-apply", "-csv", file, "shop", "names")
	broken.contains(t, 1, ", failed", file+`:3: column "mail" begins with a quote that is never closed`, "to do: correct the file")
	if strings.Contains(broken.out+broken.err, "secret") {
		t.Errorf("what is in the file is printed:\n%s%s", broken.out, broken.err)
	}

	// A brake: it stops, may be overridden once, and then stops again.
	command(t, environment, "sync", "shop", "states").contains(t, 1, "8 to delete, of 10 rows of the table", "a brake would stop it, deletes: 8 rows of 10")
	stopped := command(t, environment, "sync", "-apply", "shop", "states")
	id := latest(t, conn, "states")
	stopped.contains(t, 1, "stopped by its brakes: nothing was written", "tidemark sync -apply -override "+id+" shop states", `{"pipeline":"shop","sync":"states","override":`+id+`}`)
	value(`SELECT count(*) FROM states`, "10")
	command(t, environment, "sync", "-apply", "-override", id, "shop", "states").contains(t, 0, "8 deleted")
	value(`SELECT string_agg(id::text, ' ' ORDER BY id) FROM states`, "1 2")
	if _, err := conn.Exec(t.Context(), `INSERT INTO states SELECT generate_series(3, 10)`); err != nil {
		t.Fatal(err)
	}
	command(t, environment, "sync", "-apply", "-override", id, "shop", "states").contains(t, 1, "stopped by its brakes", "8 to delete")
	value(`SELECT count(*) FROM states`, "10")

	// What needs approval is not applied without.
	waits := command(t, environment, "sync", "-apply", "shop", "guarded")
	waits.contains(t, 1, "a dry run: nothing was written", "2 to insert", "applies only plans that were approved")
	value(`SELECT count(*) FROM guarded`, "0")
	shown := regexp.MustCompile(`-plan (\d+)`).FindStringSubmatch(waits.out)
	if shown == nil {
		t.Fatalf("no plan is named:\n%s", waits.out)
	}
	command(t, environment, "sync", "-apply", "-plan", shown[1], "shop", "guarded").contains(t, 0, "2 inserted")
	value(`SELECT count(*) FROM guarded`, "2")

	command(t, environment, "sync", "-plan", "1", "shop", "names").contains(t, 2, "goes with -apply")
	command(t, environment, "sync", "shop", "name").contains(t, 1, `there is no sync "name"`, "name one of: names, states, guarded")
	command(t, environment, "sync", "-apply", "-plan", "1000000", "shop", "names").contains(t, 1, "1000000")
	value(`SELECT count(*) FROM pg_class WHERE relname LIKE 'stage\_%'`, "0")
	must(t, s.StopFunctions(15))
}

// TestCommandSyncOfTenants does what is ordered for each tenant, or for one.
func TestCommandSyncOfTenants(t *testing.T) {
	t.Parallel()
	s := startStack(t, `
pipeline: crm
destination: {dataset: crm}
tenants: {query: "SELECT id::text AS id, slug FROM tenants ORDER BY id", column: tenant, dataset: "org_{slug}"}
reverse_etl:
  - name: labels
    query: SELECT IF('{dataset}' = 'org_a', 1, 2) AS id, '{dataset}' AS label
    target: {table: labels, key: {id: id}, columns: {label: label}}
    mode: update
`, `CREATE TABLE tenants (id int, slug text);
		INSERT INTO tenants VALUES (7, 'a'), (8, 'b');
		CREATE TABLE labels (id int PRIMARY KEY, tenant int, label text);
		INSERT INTO labels VALUES (1, 7, NULL), (2, 8, NULL)`)
	environment := stackEnvironment(s)
	conn := connect(t, s.DatabaseURL())
	labels := func(want string) {
		t.Helper()
		var got string
		if err := conn.QueryRow(t.Context(), `SELECT string_agg(coalesce(label, '-'), ' ' ORDER BY id) FROM labels`).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("labels are %s, want %s", got, want)
		}
	}
	command(t, environment, "sync", "crm", "labels").contains(t, 0, "crm labels of tenant 7, run 1, a dry run", "-plan 1 -tenant 7 crm labels", "crm labels of tenant 8, run 2, a dry run", "-plan 2 -tenant 8 crm labels")
	command(t, environment, "sync", "-apply", "-plan", "2", "crm", "labels").contains(t, 1, "name the tenant of the run with -tenant")
	command(t, environment, "sync", "-apply", "-plan", "2", "-tenant", "7", "crm", "labels").contains(t, 1)
	labels("- -")
	command(t, environment, "sync", "-apply", "-plan", "2", "-tenant", "8", "crm", "labels").contains(t, 0, "crm labels of tenant 8", "1 updated")
	labels("- org_b")
	command(t, environment, "sync", "-apply", "crm", "labels").contains(t, 0, "of tenant 7", "1 updated", "of tenant 8", "1 unchanged")
	labels("org_a org_b")
	command(t, environment, "sync", "-tenant", "9", "crm", "labels").contains(t, 1, `there is no tenant "9"`)
	must(t, s.StopFunctions(15))
}

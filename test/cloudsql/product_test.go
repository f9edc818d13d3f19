package cloudsql_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	fake "github.com/tidemark-data/tidemark/test/cloudsql"
)

// share makes the control plane's schema, owned by a role that the users are members
// of, and returns the role.
func (w *world) share(users ...cloudsql.Config) string {
	w.t.Helper()
	owner := "owner of " + users[0].Name
	quoted := pgx.Identifier{owner}.Sanitize()
	w.exec("CREATE ROLE " + quoted)
	w.exec("CREATE SCHEMA tidemark AUTHORIZATION " + quoted)
	for _, c := range users {
		w.exec("GRANT " + quoted + " TO " + pgx.Identifier{c.User}.Sanitize())
	}
	return owner
}

// product opens the product's connections, as one function instance of an account.
func product(t *testing.T, c cloudsql.Config) *instance.Connections {
	t.Helper()
	control := c
	control.OwnerOf = controlplane.Schema
	connections, err := instance.Connect(t.Context(), instance.Config{
		Source: c, Control: control, Warehouse: warehouse.Config{Project: "test-project"}, // opened by nobody here
	})
	must(t, err)
	t.Cleanup(func() { must(t, connections.Close()) })
	return connections
}

// TestControlPlaneIsShared: the functions are users of their own. What the first of
// them makes belongs to the role that all are members of, so that the others can
// migrate it and use every table; reading the source they stay who they are.
func TestControlPlaneIsShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{Private: "10.20.30.40"})
	w.config.IPType = "PRIVATE"
	_, second := w.user("tidemark-dedup", w.config.Name)
	second.IPType = "PRIVATE"
	owner := w.share(w.config, second)

	first := product(t, w.config)
	w.expectOwner(owner)
	w.use(first, w.config.User, owner)
	// As a later version would: with tables of the first, and without.
	control := second
	control.OwnerOf = controlplane.Schema
	_, err := open(t, control).Exec(t.Context(), "ALTER TABLE tidemark.runs ADD COLUMN note text; ALTER TABLE tidemark.runs DROP COLUMN note")
	must(t, err)
	w.use(product(t, second), second.User, owner)
	w.exec("DROP SCHEMA tidemark CASCADE")
	w.exec("CREATE SCHEMA tidemark AUTHORIZATION " + pgx.Identifier{owner}.Sanitize())
	third := product(t, second)
	w.expectOwner(owner)
	w.use(third, second.User, owner)
	w.use(first, w.config.User, owner)
}

// TestControlPlaneOfOneUser: who has none to share it with owns the control plane, also
// where roles of other databases are there and the user is a member of them.
func TestControlPlaneOfOneUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	other := "other of " + w.config.Name
	quoted, user := pgx.Identifier{other}.Sanitize(), pgx.Identifier{w.config.User}.Sanitize()
	w.exec("CREATE ROLE " + quoted)
	w.exec("GRANT " + quoted + " TO " + user)
	w.exec("GRANT CREATE ON DATABASE " + pgx.Identifier{w.config.Name}.Sanitize() + " TO " + user)
	c := product(t, w.config)
	w.expectOwner(w.config.User)
	w.use(c, w.config.User, w.config.User)
}

// TestControlPlaneOfStrangers: a user who is not a member is told what is missing.
func TestControlPlaneOfStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	control := w.config
	control.OwnerOf = controlplane.Schema
	_, err := instance.Connect(t.Context(), instance.Config{Source: w.config, Control: control, Warehouse: warehouse.Config{Project: "test-project"}})
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" || fault.SQLState(err) != "42501" {
		t.Errorf("%v is %v with the remedy %q", err, class, remedy)
	}
	eventually(t, "the sessions end", func() bool { return w.instance.Sessions() == 0 })
}

// expectOwner: everything in the schema is the role's, the schema too.
func (w *world) expectOwner(owner string) {
	w.t.Helper()
	rows, err := w.super.Query(w.t.Context(), `
		SELECT DISTINCT pg_get_userbyid(owner) FROM (
			SELECT nspowner AS owner FROM pg_namespace WHERE nspname = 'tidemark' UNION ALL
			SELECT relowner FROM pg_class WHERE relnamespace = 'tidemark'::regnamespace) o`)
	must(w.t, err)
	owners, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(w.t, err)
	if diff := cmp.Diff([]string{owner}, owners); diff != "" {
		w.t.Errorf("owners (-want +got):\n%s", diff)
	}
}

// use does with the connections what a run does, and asks for the rights on every
// table.
func (w *world) use(c *instance.Connections, user, owner string) {
	w.t.Helper()
	ctx := w.t.Context()
	run := controlplane.Run{Kind: "extract", Unit: controlplane.Unit{Pipeline: "notes", Table: "notes"}, MessageID: user, Outcome: controlplane.OutcomeOK}
	lease, err := c.Control.Take(ctx, run)
	must(w.t, err)
	must(w.t, c.Control.RecordRun(ctx, run))
	_, err = c.Control.SyncState(ctx, run.Unit)
	must(w.t, err)
	_, err = c.Control.State(ctx, run.Unit)
	lease.Release(ctx)
	must(w.t, err)

	var source string
	must(w.t, c.Source.QueryRow(ctx, "SELECT current_user").Scan(&source))
	if source != user {
		w.t.Errorf("the source is read as %s, not as %s", source, user)
	}
	control := c.Config.Control
	var as string
	var tables, usable int
	err = open(w.t, control).QueryRow(ctx, `
		SELECT current_user, count(*), count(*) FILTER (WHERE has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
		       AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
		  FROM pg_class WHERE relkind = 'r' AND relnamespace = 'tidemark'::regnamespace`).Scan(&as, &tables, &usable)
	must(w.t, err)
	if as != owner || tables == 0 || usable != tables {
		w.t.Errorf("%s, acting as %s, can use %d of %d tables", user, as, usable, tables)
	}
}

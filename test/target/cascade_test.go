package target_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
)

// cascades plans a mirror of table t that keeps only row 9 of it.
func (d *database) cascades(s *pipeline.Sync) []target.Cascade {
	d.t.Helper()
	return d.mirrored(s).Cascades
}

func (d *database) mirrored(s *pipeline.Sync) target.Plan {
	d.t.Helper()
	stage := d.staged(s, "SELECT 9::bigint, 2::bigint", id, v("bigint"))
	plan, err := stage.Plan(d.t.Context(), target.Extent{Whole: true})
	if err != nil {
		d.t.Fatal(err)
	}
	return plan
}

func mirror() *pipeline.Sync { return sync(pipeline.ModeMirror, []string{"id"}, []string{"v"}) }

// deleted is what Postgres writes when it deletes those rows: by table how many rows it
// deletes and how many it updates.
func (d *database) deleted() map[string][2]int64 {
	d.t.Helper()
	out := map[string][2]int64{}
	ctx := d.t.Context()
	tx, err := d.app.Begin(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() {
		if err := tx.Rollback(ctx); err != nil {
			d.t.Error(err)
		}
	}()
	if _, err := tx.Exec(ctx, "DELETE FROM t WHERE id <> 9; SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL search_path = pg_catalog"); err != nil {
		d.t.Fatal(err)
	}
	rows, err := tx.Query(ctx, "SELECT coalesce(pg_partition_root(relid), relid)::regclass::text, sum(n_tup_del)::bigint, sum(n_tup_upd)::bigint FROM pg_stat_xact_user_tables GROUP BY 1")
	if err != nil {
		d.t.Fatal(err)
	}
	var table string
	var gone, changed int64
	if _, err := pgx.ForEachRow(rows, []any{&table, &gone, &changed}, func() error {
		out[table] = [2]int64{gone, changed}
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	return out
}

// TestCascades: what the deletes of a plan do elsewhere is known, in numbers, before.
func TestCascades(t *testing.T) {
	t.Parallel()
	const table = "CREATE TABLE t (id bigint PRIMARY KEY, v bigint); INSERT INTO t SELECT g, 1 FROM generate_series(1, 9) g; "
	for name, test := range map[string]struct {
		sql   string
		want  string // table constraint action rows, ..
		least bool   // there are more rows than are found
	}{
		"nothing refers to it": {table + "CREATE TABLE a (id bigint PRIMARY KEY, t bigint)", "", false},
		"refused anyway":       {table + "CREATE TABLE a (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE RESTRICT, u bigint REFERENCES t)", "", false},
		"nothing to change":    {table + "CREATE TABLE a (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE CASCADE); INSERT INTO a VALUES (1, 9), (2, NULL)", "public.a a_t_fkey delete 0", false},
		"every action": {
			table + `CREATE TABLE c (t bigint REFERENCES t ON DELETE CASCADE); CREATE TABLE n (t bigint REFERENCES t ON DELETE SET NULL); CREATE TABLE d (t bigint DEFAULT 9 REFERENCES t ON DELETE SET DEFAULT);
				INSERT INTO c VALUES (1), (1), (2), (9), (NULL); INSERT INTO n VALUES (1), (2); INSERT INTO d VALUES (3), (9)`,
			"public.c c_t_fkey delete 3, public.d d_t_fkey set default 1, public.n n_t_fkey set null 2", false,
		},
		"two levels": {
			table + `CREATE TABLE a (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE CASCADE); CREATE TABLE b (id bigint PRIMARY KEY, a bigint REFERENCES a ON DELETE CASCADE);
				CREATE TABLE c (id bigint PRIMARY KEY, b bigint REFERENCES b ON DELETE SET NULL); CREATE TABLE e (c bigint REFERENCES c ON DELETE CASCADE);
				INSERT INTO a SELECT g, g FROM generate_series(1, 9) g; INSERT INTO b SELECT g, g % 9 + 1 FROM generate_series(1, 90) g; INSERT INTO c SELECT g, g FROM generate_series(1, 45) g; INSERT INTO e VALUES (1)`,
			"public.a a_t_fkey delete 8, public.b b_a_fkey delete 80, public.c c_b_fkey set null 40", false,
		},
		"diamond": {
			table + `CREATE TABLE a (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE CASCADE); CREATE TABLE b (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE CASCADE);
				CREATE TABLE c (id bigint PRIMARY KEY, a bigint REFERENCES a ON DELETE CASCADE, b bigint REFERENCES b ON DELETE CASCADE); CREATE TABLE d (c bigint REFERENCES c ON DELETE CASCADE);
				INSERT INTO a SELECT g, g FROM generate_series(1, 9) g; INSERT INTO b SELECT * FROM a; INSERT INTO c VALUES (1, 1, 9), (2, 9, 1), (3, 1, 1), (4, 9, 9), (5, NULL, 2); INSERT INTO d SELECT id FROM c`,
			"public.a a_t_fkey delete 8, public.b b_t_fkey delete 8, public.c c_a_fkey delete 2, public.c c_b_fkey delete 3, public.d d_c_fkey delete 4", false,
		},
		"self-reference": {
			`CREATE TABLE t (id bigint PRIMARY KEY, v bigint, parent bigint CONSTRAINT up REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (9, 1, NULL), (1, 1, 9), (2, 1, 1), (3, 1, 2);
				CREATE TABLE a (t bigint REFERENCES t ON DELETE CASCADE); INSERT INTO a VALUES (1), (3), (9)`,
			"public.a a_t_fkey delete 2, public.t up delete 0", false,
		},
		"self-reference of another table": {
			table + `CREATE TABLE a (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE CASCADE, a bigint CONSTRAINT up REFERENCES a ON DELETE CASCADE); INSERT INTO a VALUES (1, 1, NULL), (2, NULL, 1), (3, NULL, 2), (4, NULL, 3), (5, 9, NULL)`,
			"public.a a_t_fkey delete 1, public.a up delete 1", true,
		},
		"circle": {
			table + `CREATE TABLE a (id bigint PRIMARY KEY, t bigint CONSTRAINT a_t REFERENCES t ON DELETE CASCADE); ALTER TABLE t ADD a bigint CONSTRAINT t_a REFERENCES a ON DELETE CASCADE;
				INSERT INTO a VALUES (1, 1), (2, 9); UPDATE t SET a = 1 WHERE id = 9; UPDATE t SET a = 1 WHERE id = 2`,
			"public.a a_t delete 1, public.t t_a delete 1", true,
		},
		"composite keys, and columns that are not the key": {
			`CREATE TABLE t (id bigint PRIMARY KEY, v bigint, x text COLLATE "C", y int, UNIQUE (x, y)); INSERT INTO t SELECT g, 1, 'x' || g % 2, g FROM generate_series(1, 9) g;
				CREATE TABLE a (m bigint, n text, CONSTRAINT far FOREIGN KEY (n, m) REFERENCES t (x, y) ON DELETE CASCADE); INSERT INTO a VALUES (1, 'x1'), (2, 'x0'), (9, 'x1'), (1, NULL), (NULL, 'x1')`,
			"public.a far delete 2", false,
		},
		"partitioned child": {
			table + `CREATE TABLE a (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE CASCADE) PARTITION BY RANGE (id); CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (5); CREATE TABLE a2 PARTITION OF a DEFAULT PARTITION BY RANGE (id);
				CREATE TABLE a3 PARTITION OF a2 DEFAULT; CREATE TABLE b (a bigint REFERENCES a ON DELETE CASCADE, one bigint REFERENCES a3 ON DELETE SET NULL);
				INSERT INTO a SELECT g, g FROM generate_series(1, 9) g; INSERT INTO b VALUES (1, NULL), (8, 9), (9, 8)`,
			"public.a a_t_fkey delete 8, public.b b_a_fkey delete 2, public.b b_one_fkey set null 1", false,
		},
		"partitioned table": {
			`CREATE TABLE t (id bigint PRIMARY KEY, v bigint) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (5); CREATE TABLE t2 PARTITION OF t DEFAULT; INSERT INTO t SELECT g, 1 FROM generate_series(1, 9) g;
				CREATE TABLE a (t bigint REFERENCES t ON DELETE CASCADE); CREATE TABLE b (t bigint REFERENCES t1 ON DELETE CASCADE); INSERT INTO a SELECT id FROM t; INSERT INTO b SELECT id FROM t1`,
			"public.a a_t_fkey delete 8, public.b b_t_fkey delete 4", false,
		},
		"a partition": {
			`CREATE TABLE whole (id bigint PRIMARY KEY, v bigint) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF whole FOR VALUES FROM (5) TO (10); CREATE TABLE u PARTITION OF whole DEFAULT; INSERT INTO whole SELECT g, 1 FROM generate_series(1, 9) g;
				CREATE TABLE a (t bigint REFERENCES whole ON DELETE CASCADE); INSERT INTO a SELECT id FROM whole; CREATE TABLE b (u bigint REFERENCES u ON DELETE CASCADE); INSERT INTO b VALUES (1)`,
			"public.a a_t_fkey delete 4", false,
		},
		"tables that inherit": {
			table + `CREATE TABLE heir (UNIQUE (id)) INHERITS (t); INSERT INTO heir VALUES (11, 1), (12, 1); CREATE TABLE a (t bigint REFERENCES t ON DELETE CASCADE, h bigint REFERENCES heir (id) ON DELETE CASCADE); INSERT INTO a VALUES (1, NULL), (NULL, 11);
				CREATE TABLE b (a bigint UNIQUE) INHERITS (a); INSERT INTO b VALUES (1, 11, 1); CREATE TABLE c (b bigint REFERENCES b (a) ON DELETE CASCADE); INSERT INTO c VALUES (1)`,
			"public.a a_h_fkey delete 1, public.a a_t_fkey delete 1", false,
		},
		"names": {
			table + `CREATE SCHEMA "other.s"; CREATE TABLE "other.s"."a""b; DROP TABLE t" (c bigint, "s" bigint, "n t" bigint CONSTRAINT "$1 ' "" ;--" REFERENCES t ON DELETE CASCADE); INSERT INTO "other.s"."a""b; DROP TABLE t" ("n t") VALUES (1), (2), (9)`,
			`"other.s"."a""b; DROP TABLE t" $1 ' " ;-- delete 2`, false,
		},
		"checked late": {
			table + "CREATE TABLE a (t bigint REFERENCES t ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED); INSERT INTO a VALUES (1), (9)",
			"public.a a_t_fkey delete 1", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, test.sql)
			var got []string
			changed := map[string][2]int64{}
			for _, c := range d.cascades(mirror()) {
				got = append(got, fmt.Sprintf("%s %s %s %d", c.Table, c.Constraint, c.Action, c.Rows))
				n := changed[c.Table]
				if c.Action == "delete" {
					n[0] = max(n[0], c.Rows)
				} else {
					n[1] += c.Rows
				}
				changed[c.Table] = n
			}
			if diff := cmp.Diff(test.want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("cascades (-want +got):\n%s", diff)
			}
			truth := d.deleted()
			for table, n := range changed {
				is := truth[table]
				if is[0] < n[0] || is[1] < n[1] {
					t.Errorf("%s: Postgres deletes %d rows and updates %d, fewer than %v", table, is[0], is[1], n)
				}
				if more := is[0] > n[0] || is[1] > n[1]; more && !test.least && table != "public.t" && strings.Count(test.want, table+" ") == 1 {
					t.Errorf("%s: Postgres deletes %d rows and updates %d, more than %v", table, is[0], is[1], n)
				}
			}
		})
	}
}

// TestCascadesUnknown: what may not be read, or takes too long, is not 0.
func TestCascadesUnknown(t *testing.T) {
	t.Parallel()
	const tables = `CREATE TABLE t (id bigint PRIMARY KEY, v bigint); INSERT INTO t VALUES (1, 1), (9, 1); CREATE TABLE a (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE CASCADE); CREATE TABLE b (a bigint REFERENCES a ON DELETE CASCADE);
		CREATE TABLE c (t bigint REFERENCES t ON DELETE SET NULL); INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1); `
	want := []target.Cascade{
		{Table: "public.a", Constraint: "a_t_fkey", Action: "delete", Rows: -1}, {Table: "public.c", Constraint: "c_t_fkey", Action: "set null", Rows: 1}, {Table: "public.b", Constraint: "b_a_fkey", Action: "delete", Rows: -1},
	}
	d := newDatabase(t, tables)
	d.limited("SELECT, INSERT, UPDATE, DELETE ON t", "SELECT ON b", "SELECT (t) ON c")
	if diff := cmp.Diff(want, d.cascades(mirror())); diff != "" {
		t.Errorf("without the right to read (-want +got):\n%s", diff)
	}

	d = newDatabase(t, tables+"ALTER TABLE a ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON a USING (false)")
	d.limited("SELECT, INSERT, UPDATE, DELETE ON t", "SELECT ON a", "SELECT ON b", "SELECT ON c")
	if diff := cmp.Diff(want, d.cascades(mirror())); diff != "" {
		t.Errorf("with rows that are hidden (-want +got):\n%s", diff)
	}

	d = newDatabase(t, `CREATE FUNCTION slow(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN $1 = $2; END $$; CREATE OPERATOR == (LEFTARG = int, RIGHTARG = int, FUNCTION = slow, COMMUTATOR = ==);
		CREATE OPERATOR CLASS slow FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 ==, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
		CREATE TABLE t (id bigint PRIMARY KEY, v bigint, x int); CREATE UNIQUE INDEX ON t (x slow); INSERT INTO t VALUES (1, 1, 1);
		CREATE TABLE a (x int); INSERT INTO a VALUES (1); ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES t (x) ON DELETE CASCADE NOT VALID`)
	s := mirror()
	s.Limits.StatementTimeout = time.Second
	if diff := cmp.Diff([]target.Cascade{{Table: "public.a", Constraint: "a_x_fkey", Action: "delete", Rows: -1}}, d.cascades(s)); diff != "" {
		t.Errorf("without time (-want +got):\n%s", diff)
	}
}

// TestCascadesOfALockedTable is an error that another run may not have.
func TestCascadesOfALockedTable(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint); INSERT INTO t VALUES (1, 1); CREATE TABLE a (t bigint REFERENCES t ON DELETE CASCADE)")
	stage := d.staged(mirror(), "SELECT 9::bigint, 1::bigint", id, v("bigint"))
	release := d.hold("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
	_, err := stage.Plan(t.Context(), target.Extent{Whole: true})
	release()
	if fault.SQLState(err) != "55P03" {
		t.Errorf("%v, want a lock timeout", err)
	}
}

// TestCascadesOnManyWays: tables that refer to each other in every way are looked at for a
// bounded time.
func TestCascadesOnManyWays(t *testing.T) {
	t.Parallel()
	const tables = 6
	sql := "CREATE TABLE t (id bigint PRIMARY KEY, v bigint); INSERT INTO t VALUES (1, 1), (9, 1)"
	for i := range tables {
		sql += fmt.Sprintf("; CREATE TABLE a%d (id bigint PRIMARY KEY, t bigint REFERENCES t ON DELETE CASCADE); INSERT INTO a%[1]d VALUES (1, 1)", i)
	}
	for i := range tables {
		for j := range tables {
			sql += fmt.Sprintf("; ALTER TABLE a%d ADD r%d bigint REFERENCES a%[2]d ON DELETE CASCADE; UPDATE a%[1]d SET r%[2]d = 1", i, j)
		}
	}
	d := newDatabase(t, sql)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stage := d.staged(mirror(), "SELECT 9::bigint, 1::bigint", id, v("bigint"))
	plan, err := stage.Plan(ctx, target.Extent{Whole: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Cascades) != tables+tables*tables {
		t.Errorf("%d foreign keys, want %d", len(plan.Cascades), tables+tables*tables)
	}
	for _, c := range plan.Cascades {
		if c.Rows != 1 && c.Rows != -1 {
			t.Errorf("%s of %s changes %d rows, want 1 or unknown", c.Constraint, c.Table, c.Rows)
		}
	}
}

// TestSoftDeletesCascadeNowhere.
func TestSoftDeletesCascadeNowhere(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, gone boolean); INSERT INTO t VALUES (1, 1); CREATE TABLE a (t bigint REFERENCES t ON DELETE CASCADE); INSERT INTO a VALUES (1)")
	s := mirror()
	s.Deletes, s.DeletedColumn = pipeline.DeletesSoft, "gone"
	if plan := d.mirrored(s); plan.Delete != 1 || len(plan.Cascades) != 0 {
		t.Errorf("plan %s, want a delete and no cascades", mustJSON(t, plan))
	}
}

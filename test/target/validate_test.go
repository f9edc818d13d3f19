package target_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
)

// refusals are by the key of a row why it was refused: SQLSTATE, column, constraint.
type refusals map[int64]string

var reason = regexp.MustCompile(`(?s)^SQLSTATE (.....): .*?(?: \(constraint (.*)\))?$`)

func refusalsOf(t *testing.T, rejects []target.Reject) refusals {
	t.Helper()
	out := refusals{}
	for _, r := range rejects {
		var row struct{ ID int64 }
		if err := json.Unmarshal(r.Row, &row); err != nil {
			t.Fatal(err)
		}
		parts := reason.FindStringSubmatch(r.Reason)
		if parts == nil {
			t.Fatalf("refused because %q", r.Reason)
		}
		if out[row.ID] != "" {
			t.Errorf("row %d is refused twice", row.ID)
		}
		out[row.ID] = fmt.Sprintf("%s %s %s", parts[1], r.Column, parts[2])
	}
	return out
}

// alone is what Postgres refuses when nobody has looked at the rows before: each is
// written by itself, in a transaction that ends at once.
func (d *database) alone(s *pipeline.Sync, rows string) refusals {
	d.t.Helper()
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
	ids, err := tx.Query(ctx, "SELECT id FROM ("+rows+") AS r")
	if err != nil {
		d.t.Fatalf("%s: %v", rows, err)
	}
	keys, err := pgx.CollectRows(ids, pgx.RowTo[int64])
	if err != nil {
		d.t.Fatal(err)
	}
	out := refusals{}
	for _, key := range keys {
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			if err := d.write(ctx, tx, s, rows, key); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
				return err
			}
			return errUndone
		})
		var refusal *pgconn.PgError
		switch {
		case errors.As(err, &refusal):
			out[key] = fmt.Sprintf("%s %s %s", refusal.Code, refusal.ColumnName, refusal.ConstraintName)
		case !errors.Is(err, errUndone):
			d.t.Fatal(err)
		}
	}
	return out
}

var errUndone = errors.New("undone")

// write writes one of the rows as the mode does.
func (d *database) write(ctx context.Context, tx pgx.Tx, s *pipeline.Sync, rows string, key int64) error {
	var columns, sets, differs []string
	for _, m := range s.Columns {
		c := catalog.Quote(m.To)
		columns = append(columns, c)
		if s.Mode == pipeline.ModeFill {
			sets = append(sets, fmt.Sprintf("%[1]s = coalesce(t.%[1]s, r.%[1]s)", c))
			differs = append(differs, fmt.Sprintf("t.%[1]s IS NULL AND r.%[1]s IS NOT NULL", c))
		} else {
			sets = append(sets, fmt.Sprintf("%[1]s = r.%[1]s", c))
			differs = append(differs, fmt.Sprintf("t.%[1]s IS DISTINCT FROM r.%[1]s", c))
		}
	}
	var exists bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM t WHERE id = $1)", key).Scan(&exists); err != nil {
		return err
	}
	table := "WITH r (id, " + strings.Join(columns, ", ") + ") AS (SELECT * FROM (" + rows + ") AS r WHERE id = $1) "
	var err error
	switch {
	case exists && s.Mode != pipeline.ModeInsert:
		_, err = tx.Exec(ctx, table+"UPDATE t SET "+strings.Join(sets, ", ")+" FROM r WHERE t.id = r.id AND ("+strings.Join(differs, " OR ")+")", key)
	case !exists && s.Mode != pipeline.ModeUpdate && s.Mode != pipeline.ModeFill:
		_, err = tx.Exec(ctx, table+"INSERT INTO t (id, "+strings.Join(columns, ", ")+") SELECT * FROM r", key)
	}
	return err
}

// tried plans and applies the rows. It returns which the plan refused and which the
// apply, and which Postgres refuses by itself.
func (d *database) tried(s *pipeline.Sync, rows string, columns ...target.Column) (planned, applied, alone refusals) {
	d.t.Helper()
	alone = d.alone(s, rows)
	stage := d.staged(s, rows, columns...)
	plan := d.plan(stage)
	done := d.apply(stage)
	planned, applied = refusalsOf(d.t, plan.Rejects), refusalsOf(d.t, done.Rejects)
	if got := done.Inserted + done.Updated + int64(len(applied)); got > plan.Insert+plan.Update {
		d.t.Errorf("%d rows written or refused of the plan %s", got, mustJSON(d.t, plan))
	}
	return planned, applied, alone
}

// validated is tried where nothing may differ.
func (d *database) validated(s *pipeline.Sync, rows string, columns ...target.Column) (planned, applied refusals) {
	d.t.Helper()
	planned, applied, alone := d.tried(s, rows, columns...)
	all := maps.Clone(planned)
	maps.Copy(all, applied)
	if diff := cmp.Diff(alone, all); diff != "" || len(all) != len(planned)+len(applied) {
		d.t.Errorf("refused by the plan %v, and by the apply %v (-by Postgres alone +by us):\n%s", planned, applied, diff)
	}
	return planned, applied
}

func keysOf(r refusals) []int64 { return slices.Sorted(maps.Keys(r)) }

// values writes rows of (id, columns ..) as a query, in the types of the columns.
func values(columns []target.Column, rows ...string) string {
	var names, exprs []string
	for i, c := range columns {
		names = append(names, fmt.Sprintf("x%d", i))
		exprs = append(exprs, fmt.Sprintf("x%d::%s AS %s", i, c.Type, catalog.Quote(c.Name)))
	}
	return "SELECT " + strings.Join(exprs, ", ") + " FROM (VALUES (" + strings.Join(rows, "), (") + ")) AS r (" + strings.Join(names, ", ") + ")"
}

// TestValidate: what can be known before is refused before, with the constraint's
// name; what cannot is left to the apply; and nothing is refused that Postgres takes.
func TestValidate(t *testing.T) {
	t.Parallel()
	column := func(names ...string) (out []target.Column) {
		out = append(out, id)
		for _, name := range names {
			out = append(out, target.Column{Name: name, Type: "bigint"})
		}
		return out
	}
	text := []target.Column{id, v("text")}
	const parents = "CREATE TABLE p (id bigint PRIMARY KEY); INSERT INTO p VALUES (1), (2); "
	for name, test := range map[string]struct {
		sql     string
		mode    pipeline.Mode // "": upsert
		columns []target.Column
		rows    []string
		planned []int64 // refused by the plan
		applied []int64 // left to the apply, and refused by it
	}{
		"not null": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, b bigint NOT NULL, a bigint NOT NULL); INSERT INTO t VALUES (1, 0, 0), (2, 0, 0)",
			columns: column("a", "b"), rows: []string{"1, 1, 1", "2, NULL, NULL", "3, 1, 1", "4, NULL, 1", "5, NULL, NULL"}, planned: []int64{2, 4, 5},
		},
		"not null is not filled": {
			sql:  "CREATE TABLE t (id bigint PRIMARY KEY, a bigint NOT NULL, b bigint); INSERT INTO t VALUES (1, 0, NULL)",
			mode: pipeline.ModeFill, columns: column("a", "b"), rows: []string{"1, NULL, 1"},
		},
		"check": {
			sql:     `CREATE TABLE t (id bigint PRIMARY KEY, v text CONSTRAINT "it's short" CHECK (length(v) < 3)); INSERT INTO t VALUES (1, 'a'), (2, 'a')`,
			columns: text, rows: []string{"1, 'aa'", "2, 'aaa'", "3, 'aa'", "4, 'aaa'", "5, NULL"}, planned: []int64{2, 4},
		},
		"the first of several, by its name": {
			sql:     `CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL CONSTRAINT b CHECK (v > 0), CONSTRAINT a CHECK (v <> 0), CONSTRAINT "C" CHECK (v < 100))`,
			columns: column("v"), rows: []string{"1, 0", "2, -1", "3, 100", "4, NULL", "5, 5"}, planned: []int64{1, 2, 3, 4},
		},
		"check of a key": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, CHECK (v < id)); INSERT INTO t VALUES (1, 0), (2, 0)",
			columns: column("v"), rows: []string{"1, 0", "2, 2", "3, 2", "4, 4"}, planned: []int64{2, 4},
		},
		"check of columns that are not mapped": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, most bigint DEFAULT 5, CHECK (v <= most)); INSERT INTO t VALUES (1, 0, 1), (2, 0, 2)",
			columns: column("v"), rows: []string{"1, 2", "2, 2", "3, 5", "4, 6"}, planned: []int64{1}, applied: []int64{4},
		},
		"check that was never validated": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, w bigint); INSERT INTO t VALUES (1, -1, 0), (2, -1, 0); ALTER TABLE t ADD CHECK (v > 0) NOT VALID",
			columns: column("v"), rows: []string{"1, 1", "2, -2", "3, -1"}, planned: []int64{2, 3},
		},
		"check that does not concern us": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, w bigint); INSERT INTO t VALUES (1, 0, -1), (2, 0, 1); ALTER TABLE t ADD CHECK (w > 0) NOT VALID",
			columns: column("v"), rows: []string{"1, 1", "2, 1"}, applied: []int64{1},
		},
		"check that holds for fills": {
			sql:  "CREATE TABLE t (id bigint PRIMARY KEY, a bigint, b bigint, CHECK (a < b)); INSERT INTO t VALUES (1, NULL, 5), (2, NULL, 5), (3, 1, NULL), (4, NULL, NULL)",
			mode: pipeline.ModeFill, columns: column("a", "b"), rows: []string{"1, 4, 0", "2, 5, 9", "3, 9, 0", "4, 2, 1"}, planned: []int64{2, 3, 4},
		},
		"check that raises": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint CONSTRAINT divides CHECK (100 / v > 1), CONSTRAINT even CHECK (v % 2 = 0)); INSERT INTO t VALUES (5, 2)",
			columns: column("v"), rows: []string{"1, 0", "2, 100", "3, 3", "4, 4", "5, 7"}, planned: []int64{3, 5}, applied: []int64{1, 2},
		},
		"check that says what it likes": {
			sql: `CREATE FUNCTION f(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN IF $1 = 3 THEN RAISE 'no %', $1; END IF; RETURN $1 <> 4; END $$;
				CREATE TABLE t (id bigint PRIMARY KEY, v bigint CHECK (f(v)))`,
			columns: column("v"), rows: []string{"1, 1", "3, 3", "4, 4"}, applied: []int64{3, 4},
		},
		"check of the whole row": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint); CREATE FUNCTION f(t) RETURNS boolean LANGUAGE sql AS 'SELECT $1.v > 0'; ALTER TABLE t ADD CHECK (f(t)), ADD CHECK (tableoid = 0 OR v < 9)",
			columns: column("v"), rows: []string{"1, 1", "2, 0", "3, 9"}, applied: []int64{2, 3},
		},
		"check of nothing": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint); INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD CHECK (1 > 2) NOT VALID",
			columns: column("v"), rows: []string{"1, 2"}, applied: []int64{1},
		},
		"check by the application's functions and types": {
			sql: `CREATE TYPE tier AS ENUM ('gold', 'silver'); CREATE FUNCTION length(text) RETURNS int LANGUAGE sql AS 'SELECT 99';
				CREATE FUNCTION known(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN $1::tier = 'gold'; END $$;
				CREATE TABLE t (id bigint PRIMARY KEY, v text CHECK (known(v)), CHECK (public.length(v) = 99), CHECK (v::tier < 'silver'::tier))`,
			columns: text, rows: []string{"1, 'gold'", "2, 'silver'"}, planned: []int64{2},
		},
		"generated columns": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, twice bigint NOT NULL GENERATED ALWAYS AS (2 * v) STORED CHECK (twice < 10), CHECK (v <= twice)); INSERT INTO t (id, v) VALUES (1, 1), (2, 1)",
			columns: column("v"), rows: []string{"1, 4", "2, 6", "3, 6", "4, NULL"}, applied: []int64{2, 3, 4},
		},
		"foreign key": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, v bigint CONSTRAINT "its parent" REFERENCES p); INSERT INTO t VALUES (1, 1), (2, 1), (6, 1)`,
			// and one that nobody refers to is no violation
			columns: column("v"), rows: []string{"1, 2", "2, 3", "3, 3", "4, NULL", "5, 2", "6, NULL"}, planned: []int64{2, 3},
		},
		"foreign key that is checked late": {
			sql:     parents + "CREATE TABLE t (id bigint PRIMARY KEY, v bigint REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
			columns: column("v"), rows: []string{"1, 2", "2, 3"}, planned: []int64{2},
		},
		"foreign key that does not change": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, v bigint, w bigint); INSERT INTO t VALUES (1, 7, 0), (2, 7, 0);
				ALTER TABLE t ADD FOREIGN KEY (v) REFERENCES p NOT VALID`,
			columns: column("v", "w"), rows: []string{"1, 7, 1", "2, 8, 1", "3, 7, 1"}, planned: []int64{2, 3},
		},
		"foreign key of several columns, simple": {
			sql: `CREATE TABLE p (a bigint, b bigint, PRIMARY KEY (b, a)); INSERT INTO p VALUES (1, 2);
				CREATE TABLE t (id bigint PRIMARY KEY, x bigint, y bigint, FOREIGN KEY (x, y) REFERENCES p (a, b))`,
			columns: column("x", "y"), rows: []string{"1, 1, 2", "2, 2, 1", "3, NULL, 9", "4, 9, NULL", "5, NULL, NULL"}, planned: []int64{2},
		},
		"foreign key of several columns, full": {
			sql: `CREATE TABLE p (a bigint, b bigint, PRIMARY KEY (a, b)); INSERT INTO p VALUES (1, 2);
				CREATE TABLE t (id bigint PRIMARY KEY, x bigint, y bigint, FOREIGN KEY (x, y) REFERENCES p MATCH FULL); INSERT INTO t VALUES (6, 1, 2)`,
			columns: column("x", "y"), rows: []string{"1, 1, 2", "2, 2, 1", "3, NULL, 2", "4, 1, NULL", "5, NULL, NULL", "6, NULL, 2"}, planned: []int64{2, 3, 4, 6},
		},
		"foreign key of the key": {
			sql:     parents + "CREATE TABLE t (id bigint PRIMARY KEY REFERENCES p, v bigint)",
			columns: column("v"), rows: []string{"1, 0", "2, 0", "3, 0"}, planned: []int64{3},
		},
		"foreign key to be filled": {
			sql:  parents + "CREATE TABLE t (id bigint PRIMARY KEY, v bigint REFERENCES p); INSERT INTO t VALUES (1, NULL), (2, NULL), (3, 1)",
			mode: pipeline.ModeFill, columns: column("v"), rows: []string{"1, 2", "2, 3", "3, 3"}, planned: []int64{2},
		},
		"foreign key with a column that is not mapped": {
			sql: `CREATE TABLE p (a bigint, b bigint, PRIMARY KEY (a, b)); INSERT INTO p VALUES (1, 5), (2, 6);
				CREATE TABLE t (id bigint PRIMARY KEY, v bigint, w bigint DEFAULT 5, FOREIGN KEY (v, w) REFERENCES p); INSERT INTO t VALUES (1, NULL, 6), (2, NULL, 6)`,
			columns: column("v"), rows: []string{"1, 2", "2, 1", "3, 1", "4, 2"}, planned: []int64{2}, applied: []int64{4},
		},
		"foreign key to the table itself": {
			sql:     "CREATE TABLE t (id bigint PRIMARY KEY, v bigint REFERENCES t)",
			columns: column("v"), rows: []string{"1, NULL", "2, NULL", "9, 8"}, applied: []int64{9},
		},
		"foreign key of other types and collations": {
			sql: `CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE p (n numeric UNIQUE, c text COLLATE ci UNIQUE, d varchar(9) COLLATE "C" UNIQUE, e text UNIQUE);
				INSERT INTO p VALUES (1, 'One', 'one', 'ab'); CREATE DOMAIN dom AS int;
				CREATE TABLE t (id bigint PRIMARY KEY, a dom REFERENCES p (n), b varchar(5) REFERENCES p (c), c text REFERENCES p (d), e char(5) REFERENCES p (e))`,
			columns: []target.Column{id, {Name: "a", Type: "bigint"}, {Name: "b", Type: "text"}, {Name: "c", Type: "text"}, {Name: "e", Type: "text"}},
			rows:    []string{"1, 1, 'ONE', 'one', 'ab'", "2, 2, 'ONE', 'one', 'ab'", "3, 1, 'TWO', 'one', 'ab'", "4, 1, 'one', 'One', 'ab'", "5, 1, 'one', 'one', 'AB'"}, planned: []int64{2, 3, 4, 5},
		},
		"foreign key to partitions": {
			sql: `CREATE TABLE p (id bigint PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p DEFAULT;
				INSERT INTO p VALUES (1), (11); CREATE TABLE t (id bigint PRIMARY KEY, v bigint REFERENCES p)`,
			columns: column("v"), rows: []string{"1, 1", "2, 11", "3, 2", "4, 12"}, planned: []int64{3, 4},
		},
		"foreign key to one of the tables that inherit": {
			sql:     parents + "CREATE TABLE heir () INHERITS (p); INSERT INTO heir VALUES (3); CREATE TABLE t (id bigint PRIMARY KEY, v bigint REFERENCES p)",
			columns: column("v"), rows: []string{"1, 1", "2, 3"}, planned: []int64{2},
		},
		"foreign key that is not enforced": {
			sql:     parents + "CREATE TABLE t (id bigint PRIMARY KEY, v bigint REFERENCES p); ALTER TABLE t DISABLE TRIGGER ALL",
			columns: column("v"), rows: []string{"1, 3"},
		},
		"partitions": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL REFERENCES p CHECK (v < 3), w bigint) PARTITION BY RANGE (id);
				CREATE TABLE t1 PARTITION OF t (CHECK (w < 5)) FOR VALUES FROM (0) TO (100); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200); INSERT INTO t VALUES (1, 1, 1), (101, 1, 1)`,
			columns: column("v", "w"), rows: []string{"1, 2, 2", "2, 2, 2", "3, 3, 3", "4, NULL, 1", "5, 0, 0", "6, 1, 5", "101, 0, 9", "102, 1, 9", "200, 1, 1"},
			planned: []int64{3, 4, 5, 101}, applied: []int64{6, 200},
		},
		"a partition": {
			sql:     parents + "CREATE TABLE whole (id bigint PRIMARY KEY, v bigint REFERENCES p CHECK (v < 9)) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF whole FOR VALUES FROM (0) TO (100)",
			columns: column("v"), rows: []string{"1, 2", "2, 3", "3, 9", "100, 1"}, planned: []int64{2, 3}, applied: []int64{100},
		},
		"tables that inherit": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, v bigint REFERENCES p, CONSTRAINT own CHECK (v < 9) NO INHERIT); CREATE TABLE heir (UNIQUE (id)) INHERITS (t);
				INSERT INTO t VALUES (1, 1), (2, 1); INSERT INTO heir VALUES (3, 1), (4, 1)`,
			columns: column("v"), rows: []string{"1, 2", "2, 3", "3, 3", "4, 9", "5, 3", "6, 2"}, planned: []int64{5}, applied: []int64{2},
		},
		"triggers that make other rows of them": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL REFERENCES p CHECK (v < 3)); INSERT INTO t VALUES (1, 1), (2, 1);
				CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := coalesce(NEW.v, 1) % 10; RETURN NEW; END $$;
				CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`,
			columns: column("v"), rows: []string{"1, 11", "2, NULL", "3, 11", "4, NULL", "5, 15"}, planned: []int64{1, 2}, applied: []int64{5},
		},
		"triggers on updates": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL REFERENCES p CHECK (v < 3)); INSERT INTO t VALUES (1, 1), (2, 1);
				CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := coalesce(NEW.v, 2) % 10; RETURN NEW; END $$;
				CREATE TRIGGER f BEFORE UPDATE OF v ON t FOR EACH ROW EXECUTE FUNCTION f()`,
			columns: column("v"), rows: []string{"1, 12", "2, NULL", "3, 11", "4, NULL"}, planned: []int64{3, 4},
		},
		"triggers of a partition": {
			sql: `CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT;
				CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := 1; RETURN NEW; END $$;
				CREATE TRIGGER f BEFORE INSERT ON t1 FOR EACH ROW EXECUTE FUNCTION f()`,
			columns: column("v"), rows: []string{"1, NULL"},
		},
		"triggers that are disabled, and those that come later": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL REFERENCES p);
				CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := 1; RETURN NEW; END $$;
				CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t DISABLE TRIGGER f; CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`,
			columns: column("v"), rows: []string{"1, NULL", "2, 3"}, planned: []int64{1, 2},
		},
		"triggers that make what is referred to": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, a bigint REFERENCES p, b bigint CONSTRAINT late REFERENCES p DEFERRABLE INITIALLY DEFERRED);
				CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO p VALUES (NEW.b) ON CONFLICT DO NOTHING; RETURN NEW; END $$;
				CREATE TRIGGER f AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`,
			columns: column("a", "b"), rows: []string{"1, 1, 3", "2, 4, 1"}, planned: []int64{2},
		},
		"triggers that are earlier than the foreign key's": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, v bigint REFERENCES p);
				CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO p VALUES (NEW.v); RETURN NEW; END $$;
				CREATE TRIGGER "A" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`,
			columns: column("v"), rows: []string{"1, 3"},
		},
		"rules": {
			sql: `CREATE TABLE t (id bigint PRIMARY KEY, v bigint CHECK (v > 0)); INSERT INTO t VALUES (1, 1);
				CREATE RULE r AS ON UPDATE TO t WHERE NEW.v < 0 DO INSTEAD NOTHING`,
			mode: pipeline.ModeUpdate, columns: column("v"), rows: []string{"1, -1"},
		},
		"the modes": {
			sql:  "CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL); INSERT INTO t VALUES (1, 1)",
			mode: pipeline.ModeInsert, columns: column("v"), rows: []string{"1, NULL", "2, NULL"}, planned: []int64{2},
		},
		"update": {
			sql:  "CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL); INSERT INTO t VALUES (1, 1)",
			mode: pipeline.ModeUpdate, columns: column("v"), rows: []string{"1, NULL", "2, NULL"}, planned: []int64{1},
		},
		"names that mean something to us": {
			sql: parents + `CREATE TABLE t (id bigint PRIMARY KEY, n bigint, s bigint, t bigint, c1 bigint, action bigint, r bigint, "a""b" bigint, "x) OR (true" bigint, p bigint,
				CONSTRAINT "c) OR true --" CHECK (n < 9 AND s < 9 AND t < 9 AND c1 < 9 AND action < 9 AND r < 9 AND "a""b" < 9 AND "x) OR (true" < 9), CONSTRAINT "$1" FOREIGN KEY (p) REFERENCES p);
				INSERT INTO t VALUES (1), (2)`,
			columns: column("action", "r", "n", "s", "t", "c1", `a"b`, "x) OR (true", "p"),
			rows: []string{
				"1, 1, 1, 1, 1, 1, 1, 1, 1, 1", "2, 1, 1, 1, 1, 9, 1, 1, 1, 1", "3, 9, 1, 1, 1, 1, 1, 1, 1, 1", "4, 1, 9, 1, 1, 1, 1, 1, 1, 1", "5, 1, 1, 9, 1, 1, 1, 1, 1, 1", "6, 1, 1, 1, 9, 1, 1, 1, 1, 1",
				"7, 1, 1, 1, 1, 9, 1, 1, 1, 1", "8, 1, 1, 1, 1, 1, 9, 1, 1, 1", "9, 1, 1, 1, 1, 1, 1, 9, 1, 1", "10, 1, 1, 1, 1, 1, 1, 1, 9, 1", "11, 1, 1, 1, 1, 1, 1, 1, 1, 11", "12, 1, 1, 1, 1, 1, 1, 1, 1, 2",
			}, planned: []int64{2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, test.sql)
			d.product = d.app // the application's functions are found by its search_path
			mode := test.mode
			if mode == "" {
				mode = pipeline.ModeUpsert
			}
			var mapped []string
			for _, c := range test.columns[1:] {
				mapped = append(mapped, c.Name)
			}
			planned, applied := d.validated(sync(mode, []string{"id"}, mapped), values(test.columns, test.rows...), test.columns...)
			if diff := cmp.Diff([][]int64{test.planned, test.applied}, [][]int64{keysOf(planned), keysOf(applied)}); diff != "" {
				t.Errorf("refused by the plan and by the apply (-want +got):\n%s", diff)
			}
		})
	}
}

// TestValidateAnything: whatever the constraints and rows are, and the mode, those rows are
// refused that Postgres refuses by itself.
func TestValidateAnything(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE p (id bigint PRIMARY KEY, a bigint, b bigint, UNIQUE (a, b)); INSERT INTO p VALUES (1, 1, 1), (2, 1, 2), (3, 2, NULL)")
	d.product = d.app
	columns := []target.Column{id, {Name: "x", Type: "bigint"}, {Name: "y", Type: "bigint"}, {Name: "z", Type: "bigint"}}
	rapid.Check(t, func(r *rapid.T) {
		d.exec("DROP TABLE IF EXISTS t CASCADE; " + drawTable(r))
		s := sync(rapid.SampledFrom([]pipeline.Mode{pipeline.ModeInsert, pipeline.ModeUpdate, pipeline.ModeUpsert, pipeline.ModeFill}).Draw(r, "mode"), []string{"id"}, []string{"x", "y", "z"})
		planned, applied, alone := d.tried(s, values(columns, drawRows(r, 9)...), columns...)
		all := slices.Sorted(slices.Values(slices.Concat(keysOf(planned), keysOf(applied))))
		if diff := cmp.Diff(keysOf(alone), all); diff != "" { // what has two faults may be refused for the one that is known before
			r.Fatalf("refused by the plan %v, by the apply %v, and by Postgres alone %v:\n%s", planned, applied, alone, diff)
		}
	})
}

// drawTable draws a table with an id, mapped columns x, y and z, one that is not mapped,
// some rows, and constraints that may not hold for them.
func drawTable(r *rapid.T) string {
	partitioned := rapid.Bool().Draw(r, "partitioned")
	sql := "CREATE TABLE t (id bigint PRIMARY KEY, x bigint, y bigint, z bigint, u bigint DEFAULT 2, g bigint GENERATED ALWAYS AS (x + 1) STORED)"
	if partitioned {
		sql += " PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (5); CREATE TABLE t2 PARTITION OF t DEFAULT"
	}
	sql += "; INSERT INTO t VALUES (" + strings.Join(drawRows(r, 6), "), (") + ")"
	checks := []string{"x > 0", "x < y", "x + y < 5", "y <> z OR z = 1", "u > x", "g > 1", "id > z", "x IS NOT NULL OR y IS NOT NULL", "2 / (z - 1) < 2", "coalesce(x, 0) < 3", "u IS NOT NULL"}
	keys := []string{"(x) REFERENCES p (id)", "(y) REFERENCES p (id)", "(x, z) REFERENCES p (a, b)", "(x, z) REFERENCES p (a, b) MATCH FULL", "(z, u) REFERENCES p (a, b)", "(id) REFERENCES p (id)", "(z, y) REFERENCES p (a, b) MATCH FULL DEFERRABLE INITIALLY DEFERRED"}
	for i, c := range rapid.SliceOfNDistinct(rapid.SampledFrom(checks), 0, 3, rapid.ID).Draw(r, "checks") {
		sql += fmt.Sprintf("; ALTER TABLE t ADD CONSTRAINT %c%d CHECK (%s) NOT VALID", 'c'-i, i, c)
	}
	for i, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 0, 2, rapid.ID).Draw(r, "foreign keys") {
		refers := fmt.Sprintf("; ALTER TABLE t ADD CONSTRAINT f%d FOREIGN KEY %s", i, k)
		if partitioned { // which knows no NOT VALID: what does not hold is deleted, and what it refers to cannot be changed under it
			sql += "; DELETE FROM t" + refers
		} else {
			sql += refers + " NOT VALID"
		}
	}
	if rapid.Bool().Draw(r, "not null") {
		sql += "; DELETE FROM t WHERE y IS NULL; ALTER TABLE t ALTER y SET NOT NULL"
	}
	if rapid.IntRange(0, 3).Draw(r, "trigger") == 0 {
		sql += fmt.Sprintf(`; CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.x := coalesce(NEW.x, 1); NEW.y := NEW.y + 1; RETURN NEW; END $$;
			CREATE TRIGGER f %s ON t FOR EACH ROW EXECUTE FUNCTION f()`, rapid.SampledFrom([]string{"BEFORE INSERT", "BEFORE UPDATE", "BEFORE INSERT OR UPDATE", "AFTER INSERT"}).Draw(r, "event"))
	}
	return sql
}

// drawRows draws rows of distinct keys and three more columns.
func drawRows(r *rapid.T, most int) []string {
	var out []string
	for _, key := range rapid.SliceOfNDistinct(rapid.Int64Range(1, 9), 1, most, rapid.ID).Draw(r, "keys") {
		row := fmt.Sprint(key)
		for range 3 {
			row += ", " + rapid.SampledFrom([]string{"0", "1", "2", "3", "NULL"}).Draw(r, "value")
		}
		out = append(out, row)
	}
	return out
}

// limited has the product work as a role with the given rights alone.
func (d *database) limited(grants ...string) {
	d.t.Helper()
	role := "limited_" + d.value("SELECT current_database()")
	d.exec("CREATE SCHEMA tidemark; CREATE ROLE " + role + "; GRANT USAGE, CREATE ON SCHEMA tidemark TO " + role + "; GRANT USAGE ON SCHEMA public TO " + role)
	d.t.Cleanup(func() {
		if _, err := d.app.Exec(context.WithoutCancel(d.t.Context()), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			d.t.Error(err)
		}
	})
	for _, g := range grants {
		d.exec("GRANT " + g + " TO " + role)
	}
	d.product = d.pool(d.url + "&search_path=public&options=-crole%3D" + role)
}

// TestValidateWithoutRights: what may not be read is left to the apply, which knows, and
// what may be is found before.
func TestValidateWithoutRights(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE TABLE p (id bigint PRIMARY KEY, code bigint UNIQUE); INSERT INTO p VALUES (1, 1);
		CREATE SCHEMA hidden; CREATE TABLE hidden.p (id bigint PRIMARY KEY); INSERT INTO hidden.p VALUES (1);
		CREATE TABLE policed (id bigint PRIMARY KEY); INSERT INTO policed VALUES (1), (2); ALTER TABLE policed ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON policed USING (id = 1);
		CREATE TABLE t (id bigint PRIMARY KEY, a bigint NOT NULL REFERENCES p, b bigint REFERENCES p (code), c bigint REFERENCES hidden.p, e bigint REFERENCES policed, secret bigint,
			CHECK (b < 9), CONSTRAINT below CHECK (a < secret));
		INSERT INTO t VALUES (1, 1, 1, 1, 1, 9), (2, 1, 1, 1, 1, 9)`)
	d.limited("SELECT (code) ON p", "SELECT (id, a, b, c, e), INSERT (id, a, b, c, e), UPDATE (a, b, c, e) ON t", "SELECT ON policed", "SELECT ON hidden.p")
	columns := []target.Column{id, {Name: "a", Type: "bigint"}, {Name: "b", Type: "bigint"}, {Name: "c", Type: "bigint"}, {Name: "e", Type: "bigint"}}
	planned, applied := d.validated(sync(pipeline.ModeUpsert, []string{"id"}, []string{"a", "b", "c", "e"}),
		values(columns, "1, NULL, 1, 1, 1", "2, 99, 1, 1, 1", "3, 2, 1, 1, 1", "4, 1, 2, 1, 1", "5, 1, 1, 2, 1", "6, 1, 9, 1, 1", "7, 1, 1, 1, 2", "8, 1, 1, 1, 3"), columns...)
	if diff := cmp.Diff([][]int64{{1, 4, 6}, {2, 3, 5, 8}}, [][]int64{keysOf(planned), keysOf(applied)}); diff != "" {
		t.Errorf("refused by the plan and by the apply (-want +got):\n%s", diff)
	}
}

// TestRejectsOfValidation: the row is kept as the others are, its message is that of
// Postgres, and the counts of the plan are those of what is left.
func TestRejectsOfValidation(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE TABLE p (id bigint PRIMARY KEY);
		CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL CONSTRAINT small CHECK (v < 5) CONSTRAINT parent REFERENCES p); INSERT INTO p VALUES (1); INSERT INTO t VALUES (1, 1), (2, 1)`)
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), values([]target.Column{id, v("bigint")}, "4, NULL", "3, 5", "2, 4", "1, 1", "5, 1"), id, v("bigint"))
	plan := d.plan(stage)
	want := []target.Reject{
		{Reason: `SQLSTATE 23514: new row for relation "t" violates check constraint "small" (constraint small)`, Row: json.RawMessage(`{"v": 5, "id": 3}`)},
		{Reason: `SQLSTATE 23502: null value in column "v" of relation "t" violates not-null constraint`, Column: "v", Row: json.RawMessage(`{"v": null, "id": 4}`)},
		{Reason: `SQLSTATE 23503: insert or update on table "t" violates foreign key constraint "parent" (constraint parent)`, Row: json.RawMessage(`{"v": 4, "id": 2}`)},
	}
	if diff := cmp.Diff(want, plan.Rejects, cmpopts.IgnoreUnexported(target.Reject{})); diff != "" {
		t.Errorf("rejects (-want +got):\n%s", diff)
	}
	if plan.Insert != 1 || plan.Update != 0 || plan.Unchanged != 1 {
		t.Errorf("plan %s, want 1 to insert, 1 unchanged", mustJSON(t, plan))
	}
	if got := d.apply(stage); got.Inserted != 1 || !got.Done || len(got.Rejects) != 0 {
		t.Errorf("applied %s", mustJSON(t, got))
	}
}

// TestTooManyToValidate: a query of nothing but refused rows is wrong itself, and the
// error quotes none of them.
func TestTooManyToValidate(t *testing.T) {
	t.Parallel()
	for name, constraint := range map[string]string{"23502": "NOT NULL", "23514": "CHECK (v IS NOT NULL AND v <> 'secret')", "23503": "DEFAULT '' REFERENCES p"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, "CREATE TABLE p (id text PRIMARY KEY); CREATE TABLE t (id bigint PRIMARY KEY, v text "+constraint+")")
			value := "'secret'"
			if name == "23502" {
				value = "NULL"
			}
			rows := fmt.Sprintf("SELECT g::bigint, %s::text FROM generate_series(1, %d) g", value, target.MaxRejects)
			stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), rows+" UNION ALL SELECT NULL, 'x'", id, v("text"))
			_, err := stage.Plan(t.Context(), target.Extent{})
			permanent(t, err, "10000 rows", "SQLSTATE "+name)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes a row: %v", err)
			}
			if err := stage.Drop(t.Context()); err != nil {
				t.Error(err)
			}
			again := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), rows, id, v("text"))
			if plan := d.plan(again); len(plan.Rejects) != target.MaxRejects || plan.Insert != 0 {
				t.Errorf("%d refused, %d to insert; want %d, none", len(plan.Rejects), plan.Insert, target.MaxRejects)
			}
		})
	}
}

// TestInsertable: a column that nothing gives a value is found when the run begins, if
// the mode inserts.
func TestInsertable(t *testing.T) {
	t.Parallel()
	const domains = `CREATE DOMAIN given AS int NOT NULL DEFAULT 1; CREATE DOMAIN strict AS int NOT NULL; CREATE DOMAIN stricter AS strict CHECK (VALUE > 0);
		CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a := 1; RETURN NEW; END $$; `
	for name, test := range map[string]struct {
		sql   string
		mode  pipeline.Mode
		words []string // of the error; none: no error
	}{
		"missing":       {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint NOT NULL, a int NOT NULL, b int, \"C\" text NOT NULL)", pipeline.ModeInsert, []string{"a, C", "default"}},
		"upsert":        {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a int NOT NULL)", pipeline.ModeUpsert, []string{"a"}},
		"mirror":        {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a int NOT NULL)", pipeline.ModeMirror, []string{"a"}},
		"update":        {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a int NOT NULL)", pipeline.ModeUpdate, nil},
		"fill":          {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a int NOT NULL)", pipeline.ModeFill, nil},
		"given a value": {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a int NOT NULL DEFAULT 1, b int NOT NULL GENERATED ALWAYS AS IDENTITY, c bigint NOT NULL GENERATED ALWAYS AS (id + 1) STORED, e given, f given NOT NULL, g serial)", pipeline.ModeInsert, nil},
		"domain":        {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a strict)", pipeline.ModeInsert, []string{"a"}},
		"domain below":  {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a stricter)", pipeline.ModeInsert, []string{"a"}},
		"dropped":       {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a int NOT NULL); ALTER TABLE t DROP a", pipeline.ModeInsert, nil},
		"trigger":       {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a int NOT NULL); CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", pipeline.ModeInsert, nil},
		"late trigger":  {"CREATE TABLE t (id bigint PRIMARY KEY, v bigint, a int NOT NULL); CREATE TRIGGER f AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", pipeline.ModeInsert, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, domains+test.sql)
			stage, err := d.open(sync(test.mode, []string{"id"}, []string{"v"}), id, v("bigint"))
			if len(test.words) > 0 {
				permanent(t, err, test.words...)
				d.expect("SELECT count(*) FROM pg_class WHERE relname LIKE 'stage%'", "0")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := stage.Drop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnfit: what no cast can take is found without trying, row by row or in arrays.
func TestUnfit(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE SCHEMA "s.t"; CREATE TYPE "s.t"."e'""" AS ENUM ('gold', 'it''s', 'silver'); CREATE DOMAIN metal AS "s.t"."e'"""; CREATE DOMAIN strict AS int NOT NULL; CREATE DOMAIN stricter AS strict CHECK (VALUE > 0);
		CREATE TABLE t (id bigint PRIMARY KEY, a "s.t"."e'""", b metal, c "s.t"."e'"""[], e stricter)`)
	columns := []target.Column{id, {Name: "a", Type: "text"}, {Name: "b", Type: "text"}, {Name: "c", Type: "text[]"}, {Name: "e", Type: "bigint"}}
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"a", "b", "c", "e"}), values(columns,
		"1, 'gold', 'it''s', '{gold,NULL,silver}', 1", "2, 'Gold', NULL, NULL, 1", "3, NULL, 'tin', '{}', 1", "4, 'silver', 'gold', '{gold,tin}', 1", "5, NULL, NULL, NULL, NULL", "6, '', NULL, NULL, 0", "7, NULL, NULL, NULL, 0", "8, NULL, NULL, NULL, 2"), columns...)
	var got []string
	for _, r := range d.plan(stage).Rejects {
		var row struct{ ID int64 }
		if err := json.Unmarshal(r.Row, &row); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s %s", row.ID, r.Column, r.Reason))
	}
	slices.Sort(got)
	const enum = `SQLSTATE 22P02: it is no value of the enum "s.t"."e'"""`
	want := []string{
		"2 a " + enum, "3 b SQLSTATE 22P02: it is no value of the enum public.metal", "4 c " + enum + "[]", "5 e SQLSTATE 23502: public.stricter does not allow null values",
		"6 a " + enum, `7  SQLSTATE 23514: value for domain stricter violates check constraint "stricter_check" (constraint stricter_check)`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rejects (-want +got):\n%s", diff)
	}
	if applied := d.apply(stage); applied.Inserted != 2 || len(applied.Rejects) != 0 {
		t.Errorf("applied %s", mustJSON(t, applied))
	}
}

// TestValidateSoftDeletes: a row that comes back is tested as one that is not deleted.
func TestValidateSoftDeletes(t *testing.T) {
	t.Parallel()
	for _, deleted := range []struct{ column, yes string }{{"gone boolean DEFAULT false", "true"}, {"gone timestamptz", "now()"}} {
		d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, "+deleted.column+", CHECK (v > 0 OR gone::text <> 'false'), CHECK (v < 9 OR gone IS NOT NULL AND gone::text <> 'false')); INSERT INTO t VALUES (1, 1, "+deleted.yes+"), (2, 1, "+deleted.yes+"), (3, 1, NULL), (4, 1, NULL)")
		s := sync(pipeline.ModeMirror, []string{"id"}, []string{"v"})
		s.Deletes, s.DeletedColumn = pipeline.DeletesSoft, "gone"
		stage := d.staged(s, values([]target.Column{id, v("bigint")}, "1, 5", "2, 9", "3, 9", "4, 5"), id, v("bigint"))
		planned := refusalsOf(t, d.plan(stage).Rejects)
		if diff := cmp.Diff([]int64{2, 3}, keysOf(planned)); diff != "" {
			t.Errorf("%s: refused (-want +got):\n%s", deleted.column, diff)
		}
		if got := d.apply(stage); got.Updated != 2 || len(got.Rejects) != 0 {
			t.Errorf("%s: applied %s", deleted.column, mustJSON(t, got))
		}
	}
}

// TestValidateMany: of a key that names many rows those are refused that would break a
// constraint.
func TestValidateMany(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, team bigint, v bigint, CHECK (v <> id)); INSERT INTO t VALUES (1, 1, 0), (2, 1, 0), (3, 2, 0), (4, 2, 0)")
	s := sync(pipeline.ModeUpdate, []string{"team"}, []string{"v"})
	s.Many = true
	columns := []target.Column{{Name: "team", Type: "bigint"}, v("bigint")}
	stage := d.staged(s, values(columns, "1, 2", "2, 9"), columns...)
	plan := d.plan(stage)
	if plan.Update != 3 || len(plan.Rejects) != 1 || string(plan.Rejects[0].Row) != `{"v": 2, "team": 1}` {
		t.Errorf("plan %s, refused %s", mustJSON(t, plan), mustJSON(t, plan.Rejects))
	}
	if got := d.apply(stage); got.Updated != 3 || len(got.Rejects) != 0 {
		t.Errorf("applied %s", mustJSON(t, got))
	}
	d.expect("SELECT string_agg(v::text, ' ' ORDER BY id) FROM t", "2 0 9 9")
}

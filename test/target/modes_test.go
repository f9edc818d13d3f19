package target_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
)

const modeTable = `CREATE TABLE t (id bigint PRIMARY KEY, name text, score int, region text NOT NULL DEFAULT 'eu', deleted_at timestamptz, writes int NOT NULL DEFAULT 0);
	CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.writes := OLD.writes + 1; RETURN NEW; END $$;
	CREATE TRIGGER counted BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION counted();
	INSERT INTO t (id, name, score) VALUES (1, 'one', 1), (2, NULL, 2), (3, 'three', NULL), (4, 'four', 4);
	INSERT INTO t (id, name, score, region) VALUES (9, 'nine', 9, 'us')`

const modeRows = `SELECT * FROM (VALUES (1::bigint, 'one', 1::bigint), (2, 'two', NULL), (3, NULL, 3), (5, 'five', 5), (9, 'other', 9)) v`

func modeColumns() []target.Column {
	return []target.Column{id, {Name: "name", Type: "text"}, {Name: "score", Type: "bigint"}}
}

const contents = `(SELECT string_agg(concat_ws(' ', id, coalesce(name, '-'), coalesce(score::text, '-'), region, CASE WHEN deleted_at IS NOT NULL THEN 'deleted' END, writes), ', ' ORDER BY id) FROM t)`

// TestModes gives every mode the same rows for the same table.
func TestModes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		mode    pipeline.Mode
		deleted string
		where   string
		plan    target.Plan
		want    string
	}{
		"insert":           {mode: pipeline.ModeInsert, plan: target.Plan{Insert: 1, Present: 4}, want: "1 one 1 eu 0, 2 - 2 eu 0, 3 three - eu 0, 4 four 4 eu 0, 5 five 5 eu 0, 9 nine 9 us 0"},
		"update":           {mode: pipeline.ModeUpdate, plan: target.Plan{Update: 3, Unchanged: 1, Absent: 1}, want: "1 one 1 eu 0, 2 two - eu 1, 3 - 3 eu 1, 4 four 4 eu 0, 9 other 9 us 1"},
		"upsert":           {mode: pipeline.ModeUpsert, plan: target.Plan{Insert: 1, Update: 3, Unchanged: 1}, want: "1 one 1 eu 0, 2 two - eu 1, 3 - 3 eu 1, 4 four 4 eu 0, 5 five 5 eu 0, 9 other 9 us 1"},
		"fill":             {mode: pipeline.ModeFill, plan: target.Plan{Update: 2, Unchanged: 2, Absent: 1, Fill: &target.Fill{}}, want: "1 one 1 eu 0, 2 two 2 eu 1, 3 three 3 eu 1, 4 four 4 eu 0, 9 nine 9 us 0"},
		"mirror":           {mode: pipeline.ModeMirror, plan: target.Plan{Insert: 1, Update: 3, Unchanged: 1, Delete: 1, Rows: 5}, want: "1 one 1 eu 0, 2 two - eu 1, 3 - 3 eu 1, 5 five 5 eu 0, 9 other 9 us 1"},
		"mirror, soft":     {mode: pipeline.ModeMirror, deleted: "deleted_at", plan: target.Plan{Insert: 1, Update: 3, Unchanged: 1, Delete: 1, Rows: 5}, want: "1 one 1 eu 0, 2 two - eu 1, 3 - 3 eu 1, 4 four 4 eu deleted 1, 5 five 5 eu 0, 9 other 9 us 1"},
		"mirror of a part": {mode: pipeline.ModeMirror, where: "region = 'eu' -- theirs", plan: target.Plan{Insert: 1, Update: 2, Unchanged: 1, Delete: 1, Outside: 1, Rows: 4}, want: "1 one 1 eu 0, 2 two - eu 1, 3 - 3 eu 1, 5 five 5 eu 0, 9 nine 9 us 0"},
		"update of a part": {mode: pipeline.ModeUpdate, where: "t.region <> 'eu'", plan: target.Plan{Update: 1, Outside: 3, Absent: 1}, want: "1 one 1 eu 0, 2 - 2 eu 0, 3 three - eu 0, 4 four 4 eu 0, 9 other 9 us 1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, modeTable)
			s := sync(test.mode, []string{"id"}, []string{"name", "score"})
			s.DeletedColumn, s.Where = test.deleted, test.where
			stage := d.staged(s, modeRows, modeColumns()...)
			plan, err := stage.Plan(t.Context(), target.Extent{Whole: true})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.plan, plan); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			done := d.apply(stage)
			want := target.Applied{Inserted: test.plan.Insert, Updated: test.plan.Update, Deleted: test.plan.Delete, Done: true}
			if diff := cmp.Diff(want, done, cmpopts.IgnoreUnexported(target.Reject{})); diff != "" {
				t.Errorf("applied (-want +got):\n%s", diff)
			}
			d.expect(contents, test.want)
			// Once more nothing is written: no trigger fires.
			again := d.prepared(s, modeRows, modeColumns()...)
			if plan, err = again.Plan(t.Context(), target.Extent{Whole: true}); err != nil || plan.Insert+plan.Update+plan.Delete != 0 {
				t.Errorf("again: %+v, %v", plan, err)
			}
		})
	}
}

// TestSoftlyDeletedComesBack when the source has it again, even unchanged.
func TestSoftlyDeletedComesBack(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"deleted_at timestamptz", "deleted_at boolean NOT NULL DEFAULT false", "deleted_at date"} {
		d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, name text, "+column+")", "INSERT INTO t (id, name) VALUES (1, 'one'), (2, 'two')")
		s := sync(pipeline.ModeMirror, []string{"id"}, []string{"name"})
		s.DeletedColumn = "deleted_at"
		name := target.Column{Name: "name", Type: "text"}
		for i, step := range []struct{ rows, want string }{
			{"SELECT 1::bigint, 'one'", "false, true"},
			{"SELECT 2::bigint, 'two'", "true, false"},
			{"SELECT * FROM (VALUES (1::bigint, 'one'), (2, 'two')) v", "false, false"},
		} {
			stage := d.prepared(s, step.rows, id, name)
			if _, err := stage.Plan(t.Context(), target.Extent{Whole: true}); err != nil {
				t.Fatal(err)
			}
			d.apply(stage)
			if err := stage.Drop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := d.value("SELECT string_agg((coalesce(deleted_at::text, 'false') <> 'false')::text, ', ' ORDER BY id) FROM t"); got != step.want {
				t.Errorf("%s: deleted after step %d: %s, want %s", column, i, got, step.want)
			}
		}
	}
}

// TestManyRowsOfAKey fills every row that a key names, and only what is NULL.
func TestManyRowsOfAKey(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, email text, name text)",
		"INSERT INTO t VALUES (1, 'a@x', NULL), (2, 'a@x', 'kept'), (3, 'a@x', NULL), (4, 'b@x', NULL), (5, NULL, NULL), (6, 'c@x', NULL), (7, 'd@x', NULL)")
	s := sync(pipeline.ModeFill, []string{"email"}, []string{"name"})
	s.Many = true
	stage := d.staged(s, "SELECT * FROM (VALUES ('a@x', 'Ann'), ('b@x', 'Bob'), ('c@x', NULL), ('z@x', 'Zoe')) v", target.Column{Name: "email", Type: "text"}, target.Column{Name: "name", Type: "text"})
	plan, err := stage.Plan(t.Context(), target.Extent{Whole: true})
	if err != nil {
		t.Fatal(err)
	}
	want := target.Plan{Update: 3, Unchanged: 2, Absent: 1, Fill: &target.Fill{NoKey: 1, NotFound: 1}}
	if diff := cmp.Diff(want, plan); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	d.exec("UPDATE t SET email = 'b@x' WHERE id = 1") // since the plan: it is no longer Ann's
	d.exec("UPDATE t SET name = 'own' WHERE id = 3")
	d.apply(stage)
	d.expect("SELECT string_agg(coalesce(name, '-'), ' ' ORDER BY id) FROM t", "- kept own Bob - - -")
}

// TestMirrorKeepsWhatWasRefused: a row of the source that cannot be written is in the
// source all the same. One whose key nobody can read could be any.
func TestMirrorKeepsWhatWasRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		rows, want string
		withheld   bool
	}{
		"a value refused":    {"SELECT * FROM (VALUES ('1', 'one'), ('2', 'not a number')) v", "1 2", false},
		"a key given twice":  {"SELECT * FROM (VALUES ('1', '1'), ('2', '5'), ('2', '6')) v", "1 2", false},
		"a key that is NULL": {"SELECT * FROM (VALUES ('1', '1'), (NULL, '5')) v", "1 2 3", true},
		"a key that is none": {"SELECT * FROM (VALUES ('1', '1'), ('two', '5')) v", "1 2 3", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, score int)", "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
			stage := d.staged(sync(pipeline.ModeMirror, []string{"id"}, []string{"score"}), test.rows, target.Column{Name: "id", Type: "text"}, target.Column{Name: "score", Type: "text"})
			plan, err := stage.Plan(t.Context(), target.Extent{Whole: true})
			if err != nil || (plan.Withheld != "") != test.withheld || len(plan.Rejects) == 0 {
				t.Fatalf("%+v, %v", plan, err)
			}
			d.apply(stage)
			d.expect("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t", test.want)
		})
	}
}

// TestWhereHolds: what would become a row outside of the scope is refused, and the others
// of its batch are written.
func TestWhereHolds(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, region text)", "INSERT INTO t VALUES (1, 'eu'), (2, 'eu'), (3, 'us')")
	s := sync(pipeline.ModeUpsert, []string{"id"}, []string{"region"})
	s.Where = "region = 'eu'"
	stage := d.staged(s, "SELECT * FROM (VALUES (1::bigint, 'us'), (2, 'eu'), (3, 'eu'), (4, 'eu'), (5, 'us')) v", id, target.Column{Name: "region", Type: "text"})
	if _, err := stage.Plan(t.Context(), target.Extent{Whole: true}); err != nil {
		t.Fatal(err)
	}
	done := d.apply(stage)
	if done.Inserted != 1 || done.Updated != 0 || len(done.Rejects) != 2 || !strings.Contains(done.Rejects[0].Reason, "44000") {
		t.Errorf("applied %+v", done)
	}
	d.expect("SELECT string_agg(id || ' ' || region, ', ' ORDER BY id) FROM t", "1 eu, 2 eu, 3 us, 4 eu")
}

// TestMirrorIsTheSource whatever both have: afterwards the table, within the scope, is
// the source, and what is outside of it is as it was.
func TestMirrorIsTheSource(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (a int, b text, v int, region text, PRIMARY KEY (a, b))")
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.Custom(func(rt *rapid.T) string {
			return fmt.Sprintf("%d, '%s'", rapid.IntRange(1, 4).Draw(rt, "a"), rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "b"))
		})
		table := rapid.MapOf(key, rapid.SampledFrom([]string{"1, 'eu'", "2, 'eu'", "NULL, 'eu'", "1, 'us'"})).Draw(rt, "table")
		source := rapid.MapOf(key, rapid.SampledFrom([]string{"1", "2", "NULL"})).Draw(rt, "source")
		d.exec("TRUNCATE t")
		for k, v := range table {
			d.exec("INSERT INTO t VALUES (" + k + ", " + v + ")")
		}
		rows := "SELECT NULL::bigint, NULL::text, NULL::bigint, 'eu' WHERE false"
		for k, v := range source {
			rows += " UNION ALL SELECT " + k + ", " + v + ", 'eu'"
		}
		before := d.value("SELECT coalesce(jsonb_agg(t ORDER BY a, b) FILTER (WHERE region = 'us'), '[]') FROM t")
		s := sync(pipeline.ModeMirror, []string{"a", "b"}, []string{"v", "region"})
		s.Where, s.Limits.BatchSize = "region = 'eu'", rapid.IntRange(1, 5).Draw(rt, "batch")
		stage := d.prepared(s, rows, target.Column{Name: "a", Type: "bigint"}, target.Column{Name: "b", Type: "text"}, target.Column{Name: "v", Type: "bigint"}, target.Column{Name: "region", Type: "text"})
		plan, err := stage.Plan(t.Context(), target.Extent{Whole: true})
		if err != nil {
			rt.Fatal(err)
		}
		done := d.apply(stage)
		if done.Inserted != plan.Insert || done.Updated != plan.Update || done.Deleted != plan.Delete || !done.Done {
			rt.Fatalf("planned %+v, applied %+v", plan, done)
		}
		if err := stage.Drop(t.Context()); err != nil {
			rt.Fatal(err)
		}
		if after := d.value("SELECT coalesce(jsonb_agg(t ORDER BY a, b) FILTER (WHERE region = 'us'), '[]') FROM t"); after != before {
			rt.Fatalf("outside of the scope: %s, before %s", after, before)
		}
		for k, v := range source {
			if strings.HasSuffix(table[k], "'us'") {
				continue // another one's key
			}
			if got := d.value("SELECT coalesce((SELECT coalesce(v::text, 'NULL') FROM t WHERE (a, b) = (" + k + ")), 'absent')"); got != v {
				rt.Fatalf("%s is %s, want %s", k, got, v)
			}
		}
		for k := range table {
			if _, there := source[k]; !there && !strings.HasSuffix(table[k], "'us'") {
				if got := d.value("SELECT count(*) FROM t WHERE (a, b) = (" + k + ")"); got != "0" {
					rt.Fatalf("%s is still there", k)
				}
			}
		}
	})
}

// TestDigest: the same plan has the same digest, what is left of one that was cut short
// is that of a new plan, and a change on either side that matters changes it.
func TestDigest(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v int, other int)", "INSERT INTO t SELECT g, g FROM generate_series(1, 30) g")
	digest := func(rows string, batches int) string {
		t.Helper()
		stage := d.prepared(sync(pipeline.ModeMirror, []string{"id"}, []string{"v"}), rows, id, target.Column{Name: "v", Type: "bigint"})
		if _, err := stage.Plan(t.Context(), target.Extent{Whole: true}); err != nil {
			t.Fatal(err)
		}
		if batches > 0 {
			if _, err := stage.Apply(t.Context(), func() bool { batches--; return batches > 0 }); err != nil {
				t.Fatal(err)
			}
		}
		out, err := stage.Digest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stage.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
		return out
	}
	const source = "SELECT g::bigint, (g + 1)::bigint FROM generate_series(6, 35) g"
	first := digest(source, 0)
	if again := digest(source+" ORDER BY g DESC", 0); again != first {
		t.Errorf("the same plan is %s and %s", first, again)
	}
	for _, change := range []string{"UPDATE t SET v = 0 WHERE id = 7", "UPDATE t SET v = 0 WHERE id = 2", "DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (33, 1)"} {
		d.exec(change)
		if now := digest(source, 0); now == first {
			t.Errorf("%s: the digest is the same", change)
		} else {
			first = now
		}
	}
	d.exec("UPDATE t SET other = 1")
	if now := digest(source, 0); now != first {
		t.Error("a column that is not mapped has changed the digest")
	}
	if now := digest("SELECT g::bigint, (g + 1)::bigint FROM generate_series(6, 36) g", 0); now == first {
		t.Error("a further row in the source has not changed the digest")
	}
	rest := digest(source, 2) // batches of ten
	if left := digest(source, 0); left != rest || rest == first {
		t.Errorf("what is left is %s, a new plan of it %s", rest, left)
	}
	digest(source, 100)
	if left := digest(source, 0); !strings.HasPrefix(left, "0.") {
		t.Errorf("nothing is left, and the digest is %s", left)
	}
}

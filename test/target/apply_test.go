package target_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
)

const partitioned = `CREATE TABLE t (id bigint PRIMARY KEY, v text) PARTITION BY RANGE (id);
	CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE t_high PARTITION OF t DEFAULT;
	INSERT INTO t VALUES (1, 'old'), (150, 'same')`

func TestUpsertIntoPartitions(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, partitioned)
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}),
		`SELECT * FROM (VALUES (1::bigint, 'new'), (2, 'new'), (150, 'same'), (200, 'new'), (201, 'new'), (202, 'new')) AS r`, id, v("text"))
	plan := d.plan(stage)
	if plan.Insert != 4 || plan.Update != 1 || plan.Unchanged != 1 {
		t.Errorf("plan %s", mustJSON(t, plan))
	}
	// What the application writes in between: one row as we would, one otherwise.
	d.exec("INSERT INTO t VALUES (2, 'app'), (201, 'new')")
	got := d.apply(stage)
	if got.Inserted != 2 || got.Updated != 2 || !got.Done {
		t.Errorf("applied %s, want 2 inserted, 2 updated", mustJSON(t, got))
	}
	d.expect("SELECT string_agg(id || v, ' ' ORDER BY id) FROM t", "1new 2new 150same 200new 201new 202new")
}

// TestInsertNotUpdatedAfterTrigger: what was inserted is not updated in the same
// breath because a trigger made something else of it; what a trigger keeps out is
// not tried for ever.
func TestInsertNotUpdatedAfterTrigger(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE TABLE t (id bigint PRIMARY KEY, v text, n int NOT NULL DEFAULT 0);
		CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.id = 3 THEN RETURN NULL; END IF; NEW.v := upper(NEW.v); NEW.n := NEW.n + 1; RETURN NEW; END $$;
		CREATE TRIGGER f BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()`)
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), "SELECT g::bigint, 'a'::text FROM generate_series(1, 4) g", id, v("text"))
	d.plan(stage)
	d.exec("INSERT INTO t VALUES (4, 'x')")
	got := d.apply(stage)
	if got.Inserted != 2 || got.Updated != 1 {
		t.Errorf("applied %s", mustJSON(t, got))
	}
	d.expect("SELECT string_agg(id || v || n, ' ' ORDER BY id) FROM t", "1A1 2A1 4A2")
}

func TestUniqueIndexOnExactlyTheKey(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE TABLE t (id bigint PRIMARY KEY, part bigint NOT NULL, v text, UNIQUE (part, id))`)
	part := target.Column{Name: "part", Type: "bigint"}
	stage, err := d.open(sync(pipeline.ModeUpsert, []string{"id", "part"}, []string{"v"}), id, part, v("text")) // in another order
	if err != nil {
		t.Fatal(err)
	}
	if err := stage.Drop(t.Context()); err != nil {
		t.Error(err)
	}
	d.exec("ALTER TABLE t DROP CONSTRAINT t_part_id_key")
	_, err = d.open(sync(pipeline.ModeUpsert, []string{"id", "part"}, []string{"v"}), id, part, v("text"))
	permanent(t, err, `CREATE UNIQUE INDEX CONCURRENTLY ON "public"."t" ("id", "part")`)
	stage, err = d.open(sync(pipeline.ModeUpdate, []string{"id", "part"}, []string{"v"}), id, part, v("text"))
	if err != nil {
		t.Errorf("an update needs no such index: %v", err)
	} else if err := stage.Drop(t.Context()); err != nil {
		t.Error(err)
	}
	d.expect("SELECT count(*) FROM pg_class WHERE relname LIKE 'stage%'", "0")
}

func TestKeyTypes(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE EXTENSION citext SCHEMA public; CREATE TYPE tier AS ENUM ('gold', 'silver'); CREATE DOMAIN code AS text; CREATE DOMAIN ci AS citext;
		CREATE TABLE plain (id citext PRIMARY KEY, v int); CREATE TABLE nested (id ci PRIMARY KEY, v int); CREATE TABLE enum (id tier PRIMARY KEY, v int);
		CREATE TABLE domained (id code PRIMARY KEY, v int); CREATE TABLE collated (id text COLLATE "C" PRIMARY KEY, v int)`)
	key := target.Column{Name: "id", Type: "text"}
	for _, table := range []string{"plain", "nested"} {
		s := sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"})
		s.Table = table
		_, err := d.openUnit(s, table, key, v("bigint"))
		permanent(t, err, "id", "ci")
	}
	for _, table := range []string{"enum", "domained", "collated"} {
		d.exec("INSERT INTO " + table + " VALUES ('gold', 1)")
		s := sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"})
		s.Table = table
		stage, err := d.openUnit(s, table, key, v("bigint"))
		if err != nil {
			t.Errorf("%s: %v", table, err)
			continue
		}
		d.load(stage, "SELECT 'gold'::text, 2::bigint UNION ALL SELECT 'silver', 3")
		d.plan(stage)
		if got := d.apply(stage); got.Inserted != 1 || got.Updated != 1 {
			t.Errorf("%s: applied %s", table, mustJSON(t, got))
		}
		if err := stage.Drop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestKeysAreExact: a key that is cut would name another row.
func TestKeysAreExact(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id varchar(2) PRIMARY KEY, v text); INSERT INTO t VALUES ('ab', 'old')")
	stage := d.staged(sync(pipeline.ModeUpdate, []string{"id"}, []string{"v"}), "SELECT 'abc'::text, 'new'::text", target.Column{Name: "id", Type: "text"}, v("text"))
	plan := d.plan(stage)
	if len(plan.Rejects) != 1 || plan.Rejects[0].Column != "id" || plan.Update != 0 {
		t.Errorf("plan %s", mustJSON(t, plan))
	}
	if got := string(plan.Rejects[0].Row); got != `{"v": "new", "id": "abc"}` {
		t.Errorf("kept %s", got)
	}
}

// TestRowRejectedOnce: also with two bad values, and next to rows with errors.
func TestRowRejectedOnce(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id int PRIMARY KEY, a varchar(1), b varchar(1))")
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"a", "b"}),
		"SELECT * FROM (VALUES (1::bigint, 'aa'::text, 'bb'::text), (2, 'a', 'bb'), (3000000000, 'aa', 'bb'), (4, 'a', 'b')) r",
		id, target.Column{Name: "a", Type: "text"}, target.Column{Name: "b", Type: "text"})
	plan := d.plan(stage)
	var got []string
	for _, r := range plan.Rejects {
		got = append(got, r.Column+" "+r.Reason[:14])
	}
	if want := " SQLSTATE 22003|a the value woul|b the value woul"; strings.Join(got, "|") != want {
		t.Errorf("rejects %q, want %q", strings.Join(got, "|"), want)
	}
	if plan.Insert != 1 {
		t.Errorf("%d to insert, want 1", plan.Insert)
	}
}

// TestWhatEqualsIsNotAlwaysTheSame: equality wider than identity hides no change.
func TestWhatEqualsIsNotAlwaysTheSame(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ typ, have, want string }{
		{"interval", "30 days", "P1M"},
		{"box", "(1,1),(0,0)", "(2,2),(1,1)"},
		{`text COLLATE "ci"`, "a", "A"},
		{"public.citext", "a", "A"},
		{"public.citext[]", "{a}", "{A}"},
		{"json", `{"a": "\u0000"}`, `{"a":1}`},
		{"json", `{"a": 1e999999}`, `{"a":1}`},
	} {
		t.Run(test.typ+" "+test.have, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, "CREATE EXTENSION citext SCHEMA public; CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
				fmt.Sprintf("CREATE TABLE t (id bigint PRIMARY KEY, v %s); INSERT INTO t VALUES (1, '%s')", test.typ, test.have))
			staged := "text"
			if strings.HasSuffix(test.typ, "[]") {
				staged = "text[]"
			}
			stage := d.staged(sync(pipeline.ModeUpdate, []string{"id"}, []string{"v"}), fmt.Sprintf("SELECT 1::bigint, '%s'::%s", test.want, staged), id, v(staged))
			if plan := d.plan(stage); plan.Update != 1 {
				t.Errorf("plan %s, want one update", mustJSON(t, plan))
			}
		})
	}
}

// TestSameJSONIsNoChange: json is compared by what it says.
func TestSameJSONIsNoChange(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE TABLE t (id bigint PRIMARY KEY, v json); INSERT INTO t VALUES (1, '{"b":1,"a":2}')`)
	stage := d.staged(sync(pipeline.ModeUpdate, []string{"id"}, []string{"v"}), `SELECT 1::bigint, '{"a": 2, "b": 1}'::jsonb`, id, v("jsonb"))
	if plan := d.plan(stage); plan.Unchanged != 1 {
		t.Errorf("plan %s", mustJSON(t, plan))
	}
}

// hold locks rows as another transaction would, until the returned function is called.
func (d *database) hold(sql string) (release func()) {
	d.t.Helper()
	tx, err := d.app.Begin(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := tx.Exec(d.t.Context(), sql); err != nil {
		d.t.Fatal(err)
	}
	held := true
	release = func() {
		if held {
			held = false
			if err := tx.Rollback(context.WithoutCancel(d.t.Context())); err != nil {
				d.t.Error(err)
			}
		}
	}
	d.t.Cleanup(release)
	return release
}

// TestLockedRowsAreSkipped: a row that is held, or a key that somebody is just
// inserting, does not keep the others waiting.
func TestLockedRowsAreSkipped(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 25) g")
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), "SELECT g::bigint, 'new'::text FROM generate_series(1, 30) g", id, v("text"))
	d.plan(stage)
	release := d.hold("SELECT FROM t WHERE id IN (3, 4) FOR UPDATE; INSERT INTO t VALUES (28, 'app')")
	got := d.apply(stage)
	if got.Updated != 23 || got.Inserted != 4 || got.Locked != 3 || got.Done || len(got.Rejects) != 0 {
		t.Errorf("applied %s, want 23 updated, 4 inserted, 3 locked, not done", mustJSON(t, got))
	}
	release()
	d.expect("SELECT string_agg(id::text, ',' ORDER BY id) FROM t WHERE v = 'old'", "3,4")
	if err := stage.Drop(t.Context()); err != nil {
		t.Error(err)
	}
	again := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), "SELECT g::bigint, 'new'::text FROM generate_series(1, 30) g", id, v("text"))
	d.plan(again)
	if got := d.apply(again); got.Updated != 2 || got.Inserted != 1 || !got.Done {
		t.Errorf("applied %s", mustJSON(t, got))
	}
}

// TestLockedTable: where nothing can be written, nothing is tried row by row.
func TestLockedTable(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 50) g")
	stage := d.staged(sync(pipeline.ModeUpdate, []string{"id"}, []string{"v"}), "SELECT g::bigint, 'new'::text FROM generate_series(1, 50) g", id, v("text"))
	d.plan(stage)
	release := d.hold("LOCK TABLE t IN SHARE MODE")
	_, err := stage.Apply(t.Context(), always)
	release()
	if class, _ := fault.Classify(err); err == nil || class != fault.Transient || fault.SQLState(err) != "55P03" {
		t.Errorf("%v, want a lock timeout, transient", err)
	}
}

// TestSlowRow: a row whose trigger takes longer than a statement may is left.
func TestSlowRow(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 8) g;
		CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 5 THEN PERFORM pg_sleep(10); END IF; RETURN NEW; END $$;
		CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()`)
	s := sync(pipeline.ModeUpdate, []string{"id"}, []string{"v"})
	s.Limits.StatementTimeout = 500 * time.Millisecond
	stage := d.staged(s, "SELECT g::bigint, 'new'::text FROM generate_series(1, 8) g", id, v("text"))
	d.plan(stage)
	if got := d.apply(stage); got.Updated != 7 || got.Locked != 1 || got.Done {
		t.Errorf("applied %s", mustJSON(t, got))
	}
}

// TestOneBatchAlways: however little time is left, a run comes further, and says
// so if it cannot.
func TestOneBatchAlways(t *testing.T) {
	t.Parallel()
	never := func() bool { return false }
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 25) g",
		`CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 'bad' THEN RAISE 'no'; END IF; RETURN NEW; END $$;
		 CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()`)
	stage := d.staged(sync(pipeline.ModeUpdate, []string{"id"}, []string{"v"}), "SELECT g::bigint, 'new'::text FROM generate_series(1, 25) g", id, v("text"))
	d.plan(stage)
	got, err := stage.Apply(t.Context(), never)
	if err != nil || got.Updated != 10 || got.Done {
		t.Errorf("applied %s, %v, want one batch of 10", mustJSON(t, got), err)
	}
	if err := stage.Drop(t.Context()); err != nil {
		t.Error(err)
	}
	stage = d.staged(sync(pipeline.ModeUpdate, []string{"id"}, []string{"v"}), "SELECT g::bigint, 'bad'::text FROM generate_series(1, 25) g", id, v("text"))
	d.plan(stage)
	_, err = stage.Apply(t.Context(), never)
	permanent(t, err, "narrow the query")
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = stage.Apply(ctx, always)
	permanent(t, err, "narrow the query")
}

// TestErrorsQuoteNoValues: what ends in logs names columns and constraints; the
// reject keeps the whole story.
func TestErrorsQuoteNoValues(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE TABLE t (id bigint PRIMARY KEY, v tsrange, mail text UNIQUE);
		CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 7 THEN RAISE 'no secret %', NEW.mail; END IF; RETURN NEW; END $$;
		CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`)
	mail := target.Column{Name: "mail", Type: "text"}
	s := sync(pipeline.ModeUpsert, []string{"id"}, []string{"mail"})
	stage := d.staged(s, "SELECT * FROM (VALUES (7::bigint, 'secret@a'::text), (8, 'secret@b'), (9, 'secret@b')) r", id, mail)
	d.plan(stage)
	got := d.apply(stage)
	if got.Inserted != 1 || len(got.Rejects) != 2 || !strings.Contains(got.Rejects[0].Reason, "no secret secret@a") || !strings.Contains(got.Rejects[1].Reason, "t_mail_key") {
		t.Errorf("applied %s", mustJSON(t, got))
	}
	if err := stage.Drop(t.Context()); err != nil {
		t.Error(err)
	}
	// More bad rows than one run may have.
	stage = d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), fmt.Sprintf("SELECT g::bigint, 'secret' || g FROM generate_series(1, %d) g", target.MaxRejects+1), id, v("text"))
	_, err := stage.Plan(t.Context(), target.Extent{})
	permanent(t, err, "10000 rows", "SQLSTATE 22P02")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error quotes a row: %v", err)
	}
}

// TestNoRightToCreateSchemas: one that exists is not created.
func TestNoRightToCreateSchemas(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text); CREATE SCHEMA tidemark")
	role := "writer_" + d.value("SELECT current_database()")
	d.exec("CREATE ROLE " + role + "; GRANT USAGE, CREATE ON SCHEMA tidemark TO " + role + "; GRANT USAGE ON SCHEMA public TO " + role +
		"; GRANT SELECT, INSERT, UPDATE ON t TO " + role + "; REVOKE CREATE ON DATABASE " + d.value("SELECT current_database()") + " FROM PUBLIC")
	t.Cleanup(func() {
		if _, err := d.app.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	d.product = d.pool(d.url + "&options=-crole%3D" + role)
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), "SELECT 1::bigint, 'a'::text", id, v("text"))
	d.plan(stage)
	d.apply(stage)
	d.expect("SELECT string_agg(v, '') FROM t", "a")
	// What the role may not do is known before any row moves.
	d.exec("REVOKE INSERT ON t FROM " + role)
	if _, err := d.openUnit(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), "other", id, v("text")); fault.SQLState(err) != "42501" {
		t.Errorf("%v, want insufficient privilege", err)
	}
}

// TestPlanWaitsForNoLock: reading the table is bounded as writing is.
func TestPlanWaitsForNoLock(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text)")
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), "SELECT 1::bigint, 'a'::text", id, v("text"))
	release := d.hold("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
	_, err := stage.Plan(t.Context(), target.Extent{})
	release()
	if fault.SQLState(err) != "55P03" {
		t.Errorf("%v, want a lock timeout", err)
	}
}

// TestStatementsEndWithTheContext: the server works no longer than the run.
func TestStatementsEndWithTheContext(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE FUNCTION slow(v text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN true; END $$;
		CREATE DOMAIN slow AS text CHECK (slow(VALUE)); CREATE TABLE t (id bigint PRIMARY KEY, v slow)`)
	stage := d.staged(sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"}), "SELECT 1::bigint, 'a'::text", id, v("text"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := stage.Plan(ctx, target.Extent{})
	if fault.SQLState(err) != "57014" && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the end of the time", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for d.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'INSERT INTO tidemark.stage%'") != "0" {
		if time.Now().After(deadline) {
			t.Fatal("the statement is still at work")
		}
	}
}

func TestSamples(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, `CREATE TABLE t (id bigint PRIMARY KEY, "V" json); INSERT INTO t VALUES (1, '"\u0000"')`)
	s := sync(pipeline.ModeUpsert, []string{"id"}, nil)
	s.Columns = []pipeline.Mapping{{From: "v", To: "V"}}
	stage := d.staged(s, `SELECT 1::bigint, '1'::jsonb UNION ALL SELECT 2, '2'`, id, v("jsonb"))
	d.plan(stage)
	got, err := stage.Samples(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"action":"insert","before":null,"after":{"V":"2","id":2}},{"action":"update","before":{"V":"\"\\u0000\"","id":1},"after":{"V":"1","id":1}}]`; strings.ReplaceAll(mustJSON(t, got), ": ", ":") != want {
		t.Errorf("samples %s, want %s", mustJSON(t, got), want)
	}
}

// TestServerCrashed: a server that has crashed has emptied what is not logged. That is no
// plan without rows.
func TestServerCrashed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 25) g")
	for _, planned := range []bool{false, true} {
		stage := d.prepared(sync(pipeline.ModeMirror, []string{"id"}, []string{"v"}), "SELECT g::bigint, 'new'::text FROM generate_series(1, 25) g", id, v("text"))
		if planned {
			d.plan(stage)
		}
		d.exec("DO $$ DECLARE r record; BEGIN FOR r IN SELECT oid::regclass AS c FROM pg_class WHERE relname LIKE 'stage\\_%' AND relkind = 'r' LOOP EXECUTE 'TRUNCATE ' || r.c; END LOOP; END $$")
		var err error
		if planned {
			_, err = stage.Apply(t.Context(), always)
		} else {
			_, err = stage.Plan(t.Context(), target.Extent{Whole: true})
		}
		if class, _ := fault.Classify(err); err == nil || class != fault.Transient {
			t.Errorf("planned: %t: %v, want a transient error", planned, err)
		}
		if err := stage.Drop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	d.expect("SELECT count(*) FROM t WHERE v = 'old'", "25")
}

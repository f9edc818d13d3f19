package wal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/wal"
)

const published = `SELECT coalesce(string_agg(schemaname || '.' || tablename, ' ' ORDER BY tablename), '') FROM pg_publication_tables WHERE pubname = $1`

func TestEnsureMakesThePublicationExactlyTheMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE a (id int PRIMARY KEY)`, `CREATE TABLE b (id int PRIMARY KEY)`, `CREATE TABLE c (id int PRIMARY KEY)`)
	first := w.capture("a", "b")
	if !first.Created || !first.Members[0].Added || !first.Members[1].Added || first.Lost != "" || first.Surplus != nil {
		t.Errorf("first: %+v", first)
	}
	again := w.capture("a", "b")
	want := wal.Slot{
		Name: first.Name, Confirmed: first.Confirmed, Restart: again.Restart, Lag: again.Lag,
		Members: []wal.Membership{{OID: first.Members[0].OID}, {OID: first.Members[1].OID}},
	}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("nothing changed (-want +got):\n%s", diff)
	}
	other := w.capture("c", "b")
	if other.Created || !other.Members[0].Added || other.Members[1].Added || other.Members[1].OID != first.Members[1].OID {
		t.Errorf("other members: %+v", other)
	}
	if got := w.value(published, w.slot); got != "public.b public.c" {
		t.Errorf("published: %s", got)
	}
	w.exec(`INSERT INTO a VALUES (1)`)
	w.exec(`INSERT INTO b VALUES (1)`)
	w.exec(`INSERT INTO c VALUES (1)`)
	same(t, w.consume(0), "insert b id=1", "insert c id=1")
	if w.value(`SELECT (SELECT count(*) FROM pg_publication)::text`) != "1" {
		t.Error("there is more than one publication")
	}
}

func TestEnsureRefusesWithoutMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if slot, err := wal.Ensure(t.Context(), w.db, pipelineName, nil); err == nil {
		t.Errorf("got %+v", slot)
	}
}

// One table that cannot be captured does not keep the others (I7), and does not
// join the publication, where its own UPDATEs would fail.
func TestATableThatCannotBeCapturedKeepsNoOtherAndStaysOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, `CREATE TABLE keyless (id int NOT NULL)`)
	for range 2 { // when the publication is made, and when it is there
		slot, err := wal.Ensure(t.Context(), w.db, pipelineName, []wal.Member{w.member("keyless", "id"), w.member("items")})
		if err != nil {
			t.Fatal(err)
		}
		contains(t, permanent(t, slot.Members[0].Err), `ALTER TABLE public.keyless REPLICA IDENTITY FULL`)
		if slot.Members[1].Err != nil || slot.Members[1].OID == 0 || slot.Members[0].OID != 0 || slot.Members[0].Added {
			t.Errorf("got %+v", slot.Members)
		}
	}
	w.exec(`INSERT INTO keyless VALUES (1)`)
	w.exec(`UPDATE keyless SET id = 2`)
	w.exec(`ALTER TABLE public.keyless REPLICA IDENTITY FULL`)
	if slot := w.ensure(w.member("keyless", "id"), w.member("items")); !slot.Members[0].Added {
		t.Errorf("got %+v", slot.Members)
	}
	if _, err := wal.Ensure(t.Context(), newWorld(t, `CREATE TABLE keyless (id int NOT NULL)`).db, pipelineName, []wal.Member{w.member("keyless", "id")}); err == nil {
		t.Error("a publication without any table was made")
	}
}

func TestCheckTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tests := map[string]struct {
		sql    []string
		key    []string
		remedy string // "" if it passes
	}{
		"primary key":              {[]string{`CREATE TABLE %s (id int PRIMARY KEY, a int NOT NULL)`}, []string{"id"}, ""},
		"part of the primary key":  {[]string{`CREATE TABLE %s (id int, a int, PRIMARY KEY (id, a))`}, []string{"a"}, ""},
		"identity full":            {[]string{`CREATE TABLE %s (id int NOT NULL)`, `ALTER TABLE %s REPLICA IDENTITY FULL`}, []string{"id"}, ""},
		"identity by index":        {[]string{`CREATE TABLE %s (id int NOT NULL)`, `CREATE UNIQUE INDEX %s_i ON %[1]s (id)`, `ALTER TABLE %s REPLICA IDENTITY USING INDEX %[1]s_i`}, []string{"id"}, ""},
		"index with more columns":  {[]string{`CREATE TABLE %s (id int NOT NULL, a int)`, `CREATE UNIQUE INDEX %s_i ON %[1]s (id) INCLUDE (a)`, `ALTER TABLE %s REPLICA IDENTITY USING INDEX %[1]s_i`}, []string{"id"}, ""},
		"no primary key":           {[]string{`CREATE TABLE %s (id int NOT NULL)`}, []string{"id"}, "ALTER TABLE public.%s REPLICA IDENTITY FULL"},
		"a unique index would do":  {[]string{`CREATE TABLE %s (id int NOT NULL)`, `CREATE UNIQUE INDEX "%s I" ON %[1]s (id)`}, []string{"id"}, `ALTER TABLE public.%[1]s REPLICA IDENTITY USING INDEX "%[1]s I"`},
		"a partial one would not":  {[]string{`CREATE TABLE %s (id int NOT NULL)`, `CREATE UNIQUE INDEX ON %s (id) WHERE id > 0`}, []string{"id"}, "ALTER TABLE public.%s REPLICA IDENTITY FULL"},
		"nor one of an expression": {[]string{`CREATE TABLE %s (id int NOT NULL)`, `CREATE UNIQUE INDEX ON %s (id, abs(id))`}, []string{"id"}, "ALTER TABLE public.%s REPLICA IDENTITY FULL"},
		"nor one with nulls":       {[]string{`CREATE TABLE %s (id int NOT NULL, a int)`, `CREATE UNIQUE INDEX ON %s (id, a)`}, []string{"id"}, "ALTER TABLE public.%s REPLICA IDENTITY FULL"},
		"deferred primary key":     {[]string{`CREATE TABLE %s (id int PRIMARY KEY DEFERRABLE)`}, []string{"id"}, "ALTER TABLE public.%s REPLICA IDENTITY FULL"},
		"another primary key":      {[]string{`CREATE TABLE %s (id int PRIMARY KEY, a int NOT NULL UNIQUE)`}, []string{"a"}, `ALTER TABLE public.%[1]s REPLICA IDENTITY USING INDEX "%[1]s_a_key"`},
		"nothing":                  {[]string{`CREATE TABLE %s (id int PRIMARY KEY)`, `ALTER TABLE %s REPLICA IDENTITY NOTHING`}, []string{"id"}, "ALTER TABLE public.%s REPLICA IDENTITY DEFAULT"},
		"the index is gone":        {[]string{`CREATE TABLE %s (id int PRIMARY KEY, a int NOT NULL)`, `CREATE UNIQUE INDEX %s_i ON %[1]s (a)`, `ALTER TABLE %s REPLICA IDENTITY USING INDEX %[1]s_i`, `DROP INDEX %s_i`}, []string{"id"}, "ALTER TABLE public.%s REPLICA IDENTITY DEFAULT"},
		"unlogged":                 {[]string{`CREATE UNLOGGED TABLE %s (id int PRIMARY KEY)`}, []string{"id"}, "ALTER TABLE public.%s SET LOGGED"},
		"partitions":               {[]string{`CREATE TABLE %s (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE %s_1 PARTITION OF %[1]s FOR VALUES FROM (0) TO (10)`}, []string{"id"}, ""},
		"a partition without": {[]string{
			`CREATE TABLE %s (id int NOT NULL) PARTITION BY RANGE (id)`, `CREATE TABLE %s_1 PARTITION OF %[1]s (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (10)`,
			`CREATE TABLE %s_2 PARTITION OF %[1]s FOR VALUES FROM (10) TO (20)`,
		}, []string{"id"}, "ALTER TABLE public.%s_2 REPLICA IDENTITY FULL"},
		"an unlogged leaf of a subpartition": {[]string{
			`CREATE TABLE %s (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE %s_1 PARTITION OF %[1]s FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id)`,
			`CREATE UNLOGGED TABLE %s_11 PARTITION OF %[1]s_1 FOR VALUES FROM (0) TO (5)`,
		}, []string{"id"}, "ALTER TABLE public.%s_11 SET LOGGED"},
		"generated column": {[]string{`CREATE TABLE %s (id int, twice int GENERATED ALWAYS AS (id * 2) STORED PRIMARY KEY)`}, []string{"twice"}, "other columns"},
	}
	n := 0
	for name, test := range tests {
		n++
		table := fmt.Sprintf("t%d", n)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, db: w.db}
			for _, statement := range test.sql {
				w.exec(fmt.Sprintf(statement+"%[2]s", table, ""))
			}
			err := wal.CheckTable(t.Context(), w.db, w.member(table, test.key...))
			if test.remedy == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			want := test.remedy
			if strings.Contains(want, "%") {
				want = fmt.Sprintf(want+"%[2]s", table, "")
			}
			remedy := permanent(t, err)
			contains(t, remedy, want)
			if !strings.HasPrefix(want, "ALTER") {
				return
			}
			w.exec(remedy) // it does what it says
			if err := wal.CheckTable(t.Context(), w.db, w.member(table, test.key...)); err != nil {
				t.Errorf("after %s: %v", remedy, err)
			}
		})
	}
}

// Estuary GeneratedColumn: the stream lacks it, and has the rest of the row.
func TestGeneratedColumnIsNotInTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, `CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)`)
	w.ensure(w.member("items"), w.member("g"))
	w.exec(`INSERT INTO g VALUES (1)`)
	same(t, w.consume(0), "insert g id=1")
}

// A partition that is a member beside its root would never get a change.
func TestPartitionBesideItsRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)`)
	w.capture("events_1")
	w.exec(`INSERT INTO events VALUES (1)`)
	same(t, w.consume(0), "insert events_1 id=1")
	slot, err := wal.Ensure(t.Context(), w.db, pipelineName, w.members("events_1", "events"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, permanent(t, slot.Members[0].Err), "leave one of the two out")
	if slot.Members[1].Err != nil {
		t.Error(slot.Members[1].Err)
	}
	w.exec(`INSERT INTO events VALUES (2)`)
	same(t, w.consume(0), "insert events id=2")
}

func TestRoleWithoutReplication(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	group := w.role("REPLICATION")
	role := w.role("IN ROLE " + group) // attributes are not inherited
	w.exec(`GRANT CREATE ON DATABASE ` + w.value(`SELECT current_database()`) + ` TO ` + role)
	w.exec(`ALTER TABLE items OWNER TO ` + role)
	db := pool(t, w.as(role))
	want := `ALTER ROLE "` + role + `" REPLICATION`
	contains(t, permanent(t, wal.Check(t.Context(), db)), want)
	_, err := wal.Ensure(t.Context(), db, pipelineName, w.members("items"))
	contains(t, permanent(t, err), want)
	w.exec(want)
	if err := wal.Check(t.Context(), db); err != nil {
		t.Errorf("after %s: %v", want, err)
	}
	if _, err := wal.Ensure(t.Context(), db, pipelineName, w.members("items")); err != nil {
		t.Errorf("after %s: %v", want, err)
	}
}

// The rights that are missing come as statements; once somebody has run them,
// nothing but REPLICATION is needed.
func TestRoleThatOwnsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, `CREATE TABLE others (id int PRIMARY KEY)`)
	role := w.role("REPLICATION")
	db := pool(t, w.as(role))
	ensure := func(names ...string) (wal.Slot, error) {
		return wal.Ensure(t.Context(), db, pipelineName, w.members(names...))
	}
	statement := func(err error) string {
		_, sql, found := strings.Cut(permanent(t, err), "run: ")
		if !found {
			t.Fatalf("no statement in the remedy of: %v", err)
		}
		return sql
	}
	_, err := ensure("items")
	w.exec(statement(err))
	slot, err := ensure("items")
	if err != nil || !slot.Created || slot.Members[0].Err != nil {
		t.Fatalf("got %+v, %v", slot, err)
	}
	slot, err = ensure("items", "others")
	if err != nil || slot.Members[0].Err != nil {
		t.Fatalf("got %+v, %v", slot, err)
	}
	w.exec(statement(slot.Members[1].Err))
	slot, err = ensure("items", "others")
	if err != nil || slot.Members[1].Err != nil || slot.Members[1].OID == 0 || slot.Members[1].Added {
		t.Fatalf("got %+v, %v", slot, err)
	}
	slot, err = ensure("others")
	if err != nil || !cmp.Equal(slot.Surplus, []string{`"public"."items"`}) {
		t.Errorf("got %+v, %v", slot, err)
	}
	w.exec(`INSERT INTO items VALUES (1, 'a')`)
	conn := connect(t, w.as(role))
	pulled, err := wal.Pull(t.Context(), conn, w.slot, 0, func(wal.Change) error { return nil })
	if err != nil || pulled.Changes != 1 {
		t.Errorf("got %+v, %v", pulled, err)
	}
	if err := wal.Advance(t.Context(), db, w.slot, pulled.Upto); err != nil {
		t.Error(err)
	}
	if lags, err := wal.Lags(t.Context(), db); err != nil || len(lags) != 1 {
		t.Errorf("got %+v, %v", lags, err)
	}
	err = wal.Drop(t.Context(), db, pipelineName)
	w.exec(statement(err))
	if err := wal.Drop(t.Context(), db, pipelineName); err != nil {
		t.Error(err)
	}
}

func TestWALLevelReplica(t *testing.T) {
	t.Parallel()
	w := startWorld(t, map[string]string{"wal_level": "replica"}, items)
	contains(t, permanent(t, wal.Check(t.Context(), w.db)), "cloudsql.logical_decoding=on", "wal_level = 'logical'", "restart")
	_, err := wal.Ensure(t.Context(), w.db, pipelineName, w.members("items"))
	contains(t, permanent(t, err), "cloudsql.logical_decoding=on")
}

func TestReplicationSlotsExhausted(t *testing.T) {
	t.Parallel()
	w := startWorld(t, map[string]string{"wal_level": "logical", "max_replication_slots": "2"}, items)
	w.exec(`SELECT pg_create_physical_replication_slot('standby')`)
	if err := wal.Check(t.Context(), w.db); err != nil {
		t.Error(err)
	}
	_, err := wal.Ensure(t.Context(), w.db, pipelineName, w.members("items"))
	contains(t, permanent(t, err), "max_replication_slots")
}

func TestSlotOfSomebodyElse(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]string{
		"plugin":    `SELECT pg_create_logical_replication_slot($1, 'test_decoding')`,
		"physical":  `SELECT pg_create_physical_replication_slot($1)`,
		"two-phase": `SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, true)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, items)
			w.exec(create, w.slot)
			t.Cleanup(func() { // a physical slot does not go with its database
				if _, err := w.db.Exec(context.WithoutCancel(t.Context()), `SELECT pg_drop_replication_slot($1)`, w.slot); err != nil {
					t.Error(err)
				}
			})
			_, err := wal.Ensure(t.Context(), w.db, pipelineName, w.members("items"))
			contains(t, permanent(t, err), "pg_drop_replication_slot('"+w.slot+"')")
		})
	}
	t.Run("database", func(t *testing.T) {
		t.Parallel()
		w, other := newWorld(t, items), newWorld(t)
		other.exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, w.slot)
		_, err := wal.Ensure(t.Context(), w.db, pipelineName, w.members("items"))
		contains(t, permanent(t, err), "pg_drop_replication_slot")
		if err := wal.Drop(t.Context(), w.db, pipelineName); err != nil {
			t.Error(err)
		}
		other.until(`SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = $1`, w.slot)
	})
}

// ingestr "publication gap"; PeerDB Partitioned_Without_Publish_Via_Root: what
// a publication left out while the slot was there is lost, and is said to be.
func TestPublicationThatWasAlteredOrDropped(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string][]string{
		"dropped":          {`DROP PUBLICATION %s`},
		"for all":          {`DROP PUBLICATION %s`, `CREATE PUBLICATION %s FOR ALL TABLES WITH (publish_via_partition_root = true)`},
		"for a schema":     {`ALTER PUBLICATION %s ADD TABLES IN SCHEMA public`},
		"without truncate": {`ALTER PUBLICATION %s SET (publish = 'insert, update, delete')`},
		"without root":     {`ALTER PUBLICATION %s SET (publish_via_partition_root = false)`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, items)
			before := w.capture("items")
			for _, statement := range statements {
				w.exec(fmt.Sprintf(statement, w.slot))
			}
			w.exec(`INSERT INTO items VALUES (1, 'a')`)
			for range 2 {
				if slot := w.capture("items"); slot.Lost == "" || slot.Created {
					t.Fatalf("got %+v", slot)
				}
			}
			if err := wal.DropSlot(t.Context(), w.db, w.slot); err != nil {
				t.Fatal(err)
			}
			anew := w.capture("items")
			if !anew.Created || anew.Lost != "" || anew.Members[0].OID == before.Members[0].OID {
				t.Errorf("got %+v", anew)
			}
			w.exec(`INSERT INTO items VALUES (2, 'b')`)
			w.exec(`TRUNCATE items`)
			same(t, w.consume(0), "insert items id=2 name=b", "truncate items")
		})
	}
}

// A publication that was dropped and made anew by hand looks right; decoding
// what happened in between does not work, or its memberships are others.
func TestPublicationMadeAnewByHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	before := w.capture("items")
	w.exec(`INSERT INTO items VALUES (1, 'a')`)
	w.exec(`DROP PUBLICATION ` + w.slot)
	w.exec(`INSERT INTO items VALUES (2, 'b')`)
	w.exec(`CREATE PUBLICATION ` + w.slot + ` FOR TABLE items WITH (publish_via_partition_root = true)`)
	after := w.capture("items")
	if after.Members[0].OID == before.Members[0].OID {
		t.Error("the membership is taken for the old one")
	}
	if _, changes, err := w.tryPull(0); err == nil || !errors.Is(err, wal.ErrLost) {
		t.Errorf("got %v, %v", lines(changes), err)
	}
}

// A table with a row filter or a column list joins anew, alone.
func TestNarrowedTableJoinsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, `CREATE TABLE others (id int PRIMARY KEY)`)
	before := w.capture("items", "others")
	for _, narrow := range []string{`items WHERE (id > 10)`, `items (id)`} {
		w.exec(`ALTER PUBLICATION ` + w.slot + ` SET TABLE ` + narrow + `, others`)
		after := w.capture("items", "others")
		if !after.Members[0].Added || after.Members[0].OID == before.Members[0].OID || after.Members[1].Added || after.Lost != "" {
			t.Errorf("%s: got %+v after %+v", narrow, after, before)
		}
		w.exec(`INSERT INTO items VALUES (1, 'a')`)
		w.exec(`DELETE FROM items`)
		same(t, w.consume(0), "insert items id=1 name=a", "delete items [id=1 name=∅]")
		before = after
	}
}

// Creating a slot waits for open transactions, for a bounded time, and leaves
// nothing behind when it gives up.
func TestSlotCreationWaitsForOpenTransactions(t *testing.T) {
	t.Parallel()
	w := startWorld(t, logical(), items)
	s := w.session()
	execute(t, s, `BEGIN; INSERT INTO items VALUES (1, 'open')`)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := wal.Ensure(ctx, w.db, pipelineName, w.members("items"))
	contains(t, transient(t, err), "pg_stat_activity", "pg_prepared_xacts")
	if ctx.Err() != nil {
		t.Error("the server did not give up before the caller did")
	}
	w.until(`SELECT NOT EXISTS (SELECT FROM pg_replication_slots)`)
	execute(t, s, `COMMIT`)
	if slot := w.capture("items"); !slot.Created || slot.Members[0].Added {
		t.Errorf("got %+v", slot)
	}
}

// A transaction that alters and truncates tables while the slot is being made
// does not spoil what is read afterwards. (A slot used as it was made reads the altered table's rows by its
// old shape, without an error, and fails for ever at the truncated one.)
func TestTablesAlteredWhileTheSlotIsMade(t *testing.T) {
	t.Parallel()
	w := startWorld(t, logical(), items, `CREATE TABLE altered (id int PRIMARY KEY)`, `CREATE TABLE notes (id int PRIMARY KEY)`)
	members := w.members("items", "altered", "notes")
	first, altering, between := w.session(), w.session(), w.session()
	execute(t, first, `BEGIN; INSERT INTO notes VALUES (1)`)
	done := make(chan wal.Slot, 1)
	go func() {
		slot, err := wal.Ensure(t.Context(), w.db, pipelineName, members)
		if err != nil {
			t.Error(err)
		}
		done <- slot
	}()
	w.waitedFor(first)
	execute(t, altering, `BEGIN; TRUNCATE items; ALTER TABLE altered ADD COLUMN extra int`)
	execute(t, first, `COMMIT`)
	w.waitedFor(altering)
	execute(t, between, `BEGIN; INSERT INTO notes VALUES (2)`)
	execute(t, altering, `COMMIT`)
	w.waitedFor(between)
	execute(t, between, `COMMIT`)
	if slot := <-done; !slot.Created {
		t.Errorf("got %+v", slot)
	}
	w.exec(`INSERT INTO altered VALUES (1, 2)`)
	w.exec(`INSERT INTO items VALUES (1, 'a')`)
	same(t, w.consume(0), "insert altered extra=2 id=1", "insert items id=1 name=a")
	w.until(`SELECT count(*) = 1 FROM pg_replication_slots`)
}

// waitedFor returns when somebody waits for the session's transaction to end.
func (w *world) waitedFor(s *pgx.Conn) {
	w.t.Helper()
	w.until(`SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'
		AND transactionid = (SELECT backend_xid FROM pg_stat_activity WHERE pid = $1))`, s.PgConn().PID())
}

// A table that is being altered or vacuumed makes the others wait, briefly; the
// lock that joining takes does not stop writers.
func TestLockedTableIsTransientAndWritersGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, `CREATE TABLE others (id int PRIMARY KEY)`)
	w.capture("items")
	s := w.session()
	execute(t, s, `BEGIN; LOCK TABLE others IN SHARE UPDATE EXCLUSIVE MODE`)
	done := make(chan wal.Slot, 1)
	members := w.members("items", "others")
	go func() {
		slot, err := wal.Ensure(t.Context(), w.db, pipelineName, members)
		if err != nil {
			t.Error(err)
		}
		done <- slot
	}()
	w.until(`SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'others'::regclass)`)
	w.exec(`SET lock_timeout = '1s'; INSERT INTO others VALUES (1)`)
	slot := <-done
	if class, _ := fault.Classify(slot.Members[1].Err); slot.Members[1].Err == nil || class != fault.Transient || slot.Members[0].Err != nil {
		t.Errorf("got %+v", slot.Members)
	}
	execute(t, s, `ROLLBACK`)
	w.capture("items", "others")
}

// Logical slots are read on the primary.
func TestStandbyIsRefused(t *testing.T) {
	t.Parallel()
	w := startWorld(t, logical(), items)
	if err := wal.Check(t.Context(), w.db); err != nil {
		t.Errorf("a primary: %v", err)
	}
	w.exec(`DO $$ BEGIN EXECUTE format('COPY (SELECT) TO %L', current_setting('data_directory') || '/standby.signal'); END $$`)
	w.db.Close()
	if err := w.server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := pool(t, w.url)
	contains(t, permanent(t, wal.Check(t.Context(), db)), "primary")
	if lags, err := wal.Lags(t.Context(), db); err != nil || len(lags) != 0 {
		t.Errorf("got %+v, %v", lags, err)
	}
	// Back to a primary, which can drop the database.
	if _, err := db.Exec(t.Context(), `SELECT pg_promote()`); err != nil {
		t.Fatal(err)
	}
}

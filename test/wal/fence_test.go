package wal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/wal"
)

// copied reads a table in a snapshot that the fence lets through, as the product
// has to: it waits until one does.
func (w *world) copied(fence wal.Fence, table string) (map[string]row, wal.Snapshot) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	for {
		rows, snapshot, err := w.tryCopy(ctx, fence, table)
		if err != nil {
			w.t.Fatal(err)
		}
		if rows != nil {
			return rows, snapshot
		}
	}
}

// tryCopy returns no rows where the fence does not let the snapshot through.
func (w *world) tryCopy(ctx context.Context, fence wal.Fence, table string) (map[string]row, wal.Snapshot, error) {
	tx, err := w.db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, wal.Snapshot{}, err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	// Before the snapshot: to one that is older, a table that was truncated looks empty.
	if _, err := tx.Exec(ctx, `LOCK TABLE `+table+` IN ACCESS SHARE MODE`); err != nil {
		return nil, wal.Snapshot{}, err
	}
	var text string
	if err := tx.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&text); err != nil {
		return nil, wal.Snapshot{}, err
	}
	snapshot, err := wal.ParseSnapshot(text)
	if err != nil || !fence.Open(snapshot) {
		return nil, snapshot, err
	}
	rows, err := readTable(ctx, tx, table)
	return rows, snapshot, err
}

func readTable(ctx context.Context, tx pgx.Tx, table string) (map[string]row, error) {
	rows, err := tx.Query(ctx, `SELECT * FROM `+table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[string]row)
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return nil, err
		}
		r := make(row)
		for i, f := range rows.FieldDescriptions() {
			r[f.Name] = null
			if values[i] != nil {
				r[f.Name] = fmt.Sprint(values[i])
			}
		}
		out[r["id"]] = r
	}
	return out, rows.Err()
}

// apply puts the changes that a copy lacks on top of it. Each has to fit the
// rows as they are then: one that were missing, or came twice, would not.
func apply(t *testing.T, rows map[string]row, snapshot wal.Snapshot, changes []change) {
	t.Helper()
	for _, c := range changes {
		if snapshot.Sees(c.XID) {
			continue
		}
		switch c.Kind {
		case wal.Insert:
			if _, there := rows[c.new["id"]]; there {
				t.Errorf("there is a row already for: %.100s", c)
			}
			rows[c.new["id"]] = c.new
		case wal.Update:
			key := c.new["id"]
			if c.old != nil {
				key = c.old["id"]
			}
			before, there := rows[key]
			if !there {
				t.Errorf("there is no row for: %.100s", c)
			}
			delete(rows, key)
			for name, v := range c.new {
				if v == unchanged {
					c.new[name] = before[name]
				}
			}
			rows[c.new["id"]] = c.new
		case wal.Delete:
			if _, there := rows[c.old["id"]]; !there {
				t.Errorf("there is no row for: %.100s", c)
			}
			delete(rows, c.old["id"])
		case wal.Truncate:
			clear(rows)
		}
	}
}

func (w *world) fence() wal.Fence {
	w.t.Helper()
	f, err := wal.NewFence(w.t.Context(), w.db)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// table is the table as it is now.
func (w *world) table(name string) map[string]row {
	w.t.Helper()
	rows, _ := w.copied(wal.Fence{}, name)
	return rows
}

// A transaction that has written its commit record and waits for a synchronous
// standby is too early for the slot and invisible to snapshots, and its id may be above
// the xmax of every snapshot. The fence is above it all the same.
func TestFenceWaitsForCommitsThatWaitForAStandby(t *testing.T) {
	t.Parallel()
	settings := logical()
	settings["synchronous_commit"] = "local" // all but the one session
	settings["synchronous_standby_names"] = "ghost"
	w := startWorld(t, settings, items, `CREATE TABLE notes (id int PRIMARY KEY)`)
	var open []*pgx.Conn
	begin := func() {
		s := w.session()
		execute(t, s, fmt.Sprintf(`BEGIN; INSERT INTO notes VALUES (%d)`, len(open)))
		open = append(open, s)
	}
	begin()
	hanging := w.session()
	members := w.members("items")
	done := make(chan wal.Slot, 1)
	go func() {
		slot, err := wal.Ensure(t.Context(), w.db, pipelineName, members)
		if err != nil {
			t.Error(err)
		}
		done <- slot
	}()
	// Each slot that creation makes waits twice: for what was open when it began, and
	// for what was open when those had ended. Before the last wait of the last, it has not yet seen the log's end.
	for i := range 3 {
		w.waitedFor(open[i])
		begin()
		execute(t, open[i], `COMMIT`)
	}
	w.waitedFor(open[3])
	execute(t, hanging, `SET synchronous_commit = on`)
	committed := make(chan error, 1)
	go func() {
		_, err := hanging.Exec(t.Context(), `INSERT INTO items VALUES (1, 'hanging')`)
		committed <- err
	}()
	w.until(`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')`, hanging.PgConn().PID())
	execute(t, open[3], `COMMIT`)
	slot := <-done // consistent from here on
	if got := w.consume(0); len(got) != 0 {
		t.Fatalf("the case is not made: the slot has %v", lines(got))
	}
	if got := w.table("items"); len(got) != 0 {
		t.Fatalf("the case is not made: the table shows %v", got)
	}
	fence := w.fence()
	id, err := strconv.ParseUint(w.value(`SELECT backend_xid::text FROM pg_stat_activity WHERE pid = $1`, hanging.PgConn().PID()), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if fence.XID <= id || fence.LSN < slot.Confirmed {
		t.Errorf("the fence %+v is not above transaction %d", fence, id)
	}
	if rows, _, err := w.tryCopy(t.Context(), fence, "items"); err != nil || rows != nil {
		t.Fatalf("a copy may begin before the transaction is visible: %v", err)
	}
	w.exec(`ALTER SYSTEM SET synchronous_standby_names = ''`)
	w.exec(`SELECT pg_reload_conf()`)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	w.exec(`INSERT INTO items VALUES (2, 'after')`)
	got, snapshot := w.copied(fence, "items")
	apply(t, got, snapshot, w.consume(0))
	if diff := cmp.Diff(w.table("items"), got); diff != "" {
		t.Errorf("copy and changes (-table +got):\n%s", diff)
	}
}

// A table joins while a transaction that wrote to it is open: what that wrote
// before is not in the stream, so that the copy has to wait for it. What others write after it is
// in the stream (before May 2025's releases it was not; Check refuses those).
func TestTableThatJoinsWhileItsWritersAreOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, `CREATE TABLE joining (id int PRIMARY KEY, name text)`, `INSERT INTO joining SELECT g, 'old' FROM generate_series(1, 5) g`)
	w.capture("items")
	early := w.session()
	execute(t, early, `BEGIN; INSERT INTO joining VALUES (10, 'before'); UPDATE joining SET name = 'before' WHERE id IN (1, 2)`)
	slot := w.capture("items", "joining")
	if !slot.Members[1].Added {
		t.Fatalf("got %+v", slot)
	}
	fence := w.fence()
	execute(t, early, `UPDATE joining SET name = 'after' WHERE id = 2; INSERT INTO joining VALUES (11, 'after')`)
	late := w.session()
	execute(t, late, `BEGIN; INSERT INTO joining VALUES (20, 'late')`)
	if rows, _, err := w.tryCopy(t.Context(), fence, "joining"); err != nil || rows != nil {
		t.Fatalf("a copy may begin before the transaction has ended: %v", err)
	}
	execute(t, early, `COMMIT`)
	got, snapshot := w.copied(fence, "joining") // the late one is open still
	if _, early := got["20"]; early {
		t.Error("the case is not made: the copy has the late row")
	}
	execute(t, late, `UPDATE joining SET name = 'late' WHERE id = 3; COMMIT`)
	changes := w.consume(0)
	same(t, changes,
		"update joining id=2 name=after", "insert joining id=11 name=after",
		"insert joining id=20 name=late", "update joining id=3 name=late")
	apply(t, got, snapshot, changes)
	if diff := cmp.Diff(w.table("joining"), got); diff != "" {
		t.Errorf("copy and changes (-table +got):\n%s", diff)
	}
}

// What a fence says of its LSN: a copy in a snapshot that it lets through has
// every change with a lower Commit, so that those need not be applied.
func TestChangesBelowTheFenceAreInTheCopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	w.exec(`INSERT INTO items VALUES (1, 'a'), (2, 'b')`)
	w.exec(`UPDATE items SET name = 'c' WHERE id = 1`)
	fence := w.fence()
	w.exec(`DELETE FROM items WHERE id = 2`)
	_, snapshot := w.copied(fence, "items")
	w.exec(`INSERT INTO items VALUES (3, 'd')`)
	below, seen := 0, 0
	_, changes := w.pull(0)
	for _, c := range changes {
		if snapshot.Sees(c.XID) {
			seen++
		} else if c.Commit < fence.LSN {
			t.Errorf("below %s and not in the copy: %v at %s", fence.LSN, c, c.Commit)
		}
		if c.Commit < fence.LSN {
			below++
		}
	}
	if below != 3 || seen != 4 || len(changes) != 5 {
		t.Errorf("%d changes are below the fence, %d in the copy, of %d; want 3, 4, 5", below, seen, len(changes))
	}
}

// writers change tables as applications do until they are stopped: short and
// long transactions, key changes, savepoints, truncation, values stored out of line.
func (w *world) writers(conns []*pgx.Conn, seed uint64) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, len(conns))
	for i, conn := range conns {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		go func() {
			for ctx.Err() == nil {
				if err := transaction(w.t.Context(), conn, random); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	return func() {
		cancel()
		for range conns {
			if err := <-done; err != nil {
				w.t.Error(err)
			}
		}
	}
}

// transaction runs some random statements; rows that are locked are skipped and
// what fails is rolled back, so that writers never wait for one another.
func transaction(ctx context.Context, conn *pgx.Conn, random *rand.Rand) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	for range 1 + random.IntN(8) {
		table := []string{"a", "b", "p"}[random.IntN(3)]
		if _, err := tx.Exec(ctx, `SAVEPOINT s`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, statement(random, table))
		if err != nil || random.IntN(6) == 0 {
			if _, err := tx.Exec(ctx, `ROLLBACK TO s`); err != nil {
				return err
			}
		}
	}
	if random.IntN(8) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

func statement(random *rand.Rand, table string) string {
	id, other := random.IntN(40), random.IntN(40)
	where := fmt.Sprintf(` WHERE id IN (SELECT id FROM %s WHERE id = %d FOR UPDATE SKIP LOCKED)`, table, id)
	switch random.IntN(20) {
	case 0:
		return fmt.Sprintf(`UPDATE %s SET id = %d%s AND NOT EXISTS (SELECT FROM %s WHERE id = %d)`, table, other, where, table, other)
	case 1, 2, 3:
		return `DELETE FROM ` + table + where
	case 4, 5, 6, 7, 8, 9:
		return fmt.Sprintf(`UPDATE %s SET n = n + 1%s`, table, where)
	case 10:
		return fmt.Sprintf(`UPDATE %s SET body = repeat('%d', 3000)%s`, table, other, where)
	case 11:
		if random.IntN(5) == 0 {
			return `SET LOCAL lock_timeout = '20ms'; TRUNCATE ` + table
		}
	}
	return fmt.Sprintf(`INSERT INTO %s VALUES (%d, %d, repeat('%d', %d)) ON CONFLICT DO NOTHING`, table, id, other, other, 1+random.IntN(2)*2500)
}

// ingestr postgres_cdc_stress_test; Supabase "rows written between copy and
// hand-over": round after round a slot is made, and a table joins, while others write, and each time
// copy and changes together are the table.
func TestCopyAndSlotMeetExactly(t *testing.T) {
	t.Parallel()
	const rounds = 12
	var setup []string
	for _, table := range []string{"a", "b"} {
		setup = append(setup, `CREATE TABLE `+table+` (id int PRIMARY KEY, n int, body text)`)
	}
	setup = append(setup, `CREATE TABLE p (id int PRIMARY KEY, n int, body text) PARTITION BY RANGE (id)`,
		`CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (20)`, `CREATE TABLE p2 (n int, body text, id int PRIMARY KEY)`,
		`ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (20) TO (40)`)
	for _, table := range []string{"a", "b", "p1", "p2"} {
		setup = append(setup, `ALTER TABLE `+table+` ALTER body SET STORAGE EXTERNAL`)
	}
	w := newWorld(t, setup...)
	conns := []*pgx.Conn{w.session(), w.session(), w.session(), w.session()}
	for round := range rounds {
		seed := rand.Uint64()
		stop := w.writers(conns, seed)
		replica, snapshots := map[string]map[string]row{}, map[string]wal.Snapshot{}
		all := []string{"a", "p"}
		slot := w.capture(all...)
		if !slot.Created {
			t.Fatalf("got %+v", slot)
		}
		var changes []change
		join := func(tables ...string) {
			fence := w.fence()
			for _, table := range tables {
				replica[table], snapshots[table] = w.copied(fence, table)
				changes = append(changes, w.consume(50)...)
			}
		}
		join(all...)
		slot = w.capture("a", "p", "b") // b joins
		if !slot.Members[2].Added {
			t.Fatalf("got %+v", slot)
		}
		join("b")
		for range 5 {
			changes = append(changes, w.consume(1+round*20)...)
		}
		stop()
		changes = append(changes, w.drain(100)...)
		for table, rows := range replica {
			var own []change
			for _, c := range changes {
				if c.Table == table {
					own = append(own, c)
				}
			}
			apply(t, rows, snapshots[table], own)
			if diff := cmp.Diff(w.table(table), rows); diff != "" {
				t.Errorf("round %d, seed %d, table %s, %d changes: (-table +replica):\n%s", round, seed, table, len(own), shorten(diff))
			}
		}
		if err := wal.Drop(t.Context(), w.db, pipelineName); err != nil {
			t.Fatal(err)
		}
	}
}

func shorten(text string) string {
	for _, digit := range strings.Split("0123456789", "") {
		text = strings.ReplaceAll(text, strings.Repeat(digit, 100), digit)
	}
	return text
}

package wal_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pgoutput"
	"github.com/tidemark-data/tidemark/shared/wal"
)

// Transactions come whole and in the order of their commits, whatever the order
// of their changes, and also when the server had to spill them to disk.
func TestInterleavedBigTransactionsComeInCommitOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = 64', current_database()); END $$`)
	w.db.Reset()
	w.capture("items")
	const per = 2000
	a, b, c := w.session(), w.session(), w.session()
	execute(t, a, `BEGIN`)
	execute(t, b, `BEGIN`)
	execute(t, c, `BEGIN`)
	for chunk := range 4 {
		from := chunk * per / 4
		execute(t, a, `INSERT INTO items SELECT g, 'a' || repeat('.', 100) FROM generate_series($1::int, $2::int) g`, from, from+per/4-1)
		execute(t, b, `INSERT INTO items SELECT 100000 + g, 'b' || repeat('.', 100) FROM generate_series($1::int, $2::int) g`, from, from+per/4-1)
		execute(t, c, `INSERT INTO items SELECT 200000 + g, 'c' || repeat('.', 100) FROM generate_series($1::int, $2::int) g`, from, from+per/4-1)
	}
	execute(t, c, `COMMIT`)
	execute(t, a, `COMMIT`)
	execute(t, b, `COMMIT`)
	pulled, got := w.pull(0)
	if pulled.Transactions != 3 || len(got) != 3*per {
		t.Fatalf("got %+v", pulled)
	}
	var order []string
	for i, change := range got {
		if change.Ordinal != i%per {
			t.Fatalf("change %d has ordinal %d", i, change.Ordinal)
		}
		order = append(order, change.new["name"][:1])
	}
	if diff := cmp.Diff([]string{"c", "a", "b"}, slices.Compact(order)); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if got[0].Commit >= got[per].Commit || got[per].Commit >= got[2*per].Commit {
		t.Errorf("commits at %s, %s, %s", got[0].Commit, got[per].Commit, got[2*per].Commit)
	}
}

// A limit never divides a transaction, and what comes after it is not skipped.
func TestLimitSmallerThanATransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	for n := range 3 {
		w.exec(`INSERT INTO items SELECT $1 * 10 + g, 'x' FROM generate_series(0, 4) g`, n)
	}
	for n := range 3 {
		pulled, got := w.pull(2)
		if len(got) != 5 || got[0].new["id"] != fmt.Sprint(n*10) || !pulled.More || pulled.Transactions != 1 {
			t.Fatalf("pull %d: %+v %v", n, pulled, lines(got))
		}
		if pulled.Upto <= got[0].Commit {
			t.Fatalf("pull %d ends at %s, before its own commit at %s", n, pulled.Upto, got[0].Commit)
		}
		_, again := w.pull(2)
		same(t, again, lines(got)...)
		w.advance(pulled.Upto)
	}
	pulled, got := w.pull(2)
	if len(got) != 0 || pulled.More {
		t.Errorf("after the last: %+v %v", pulled, lines(got))
	}
}

// Every limit yields every change once, in the same order.
func TestEveryLimitYieldsEveryChangeOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	for n := range 12 {
		w.exec(`INSERT INTO items SELECT $1 * 10 + g, 'x' FROM generate_series(0, $1) g`, n%5)
		w.exec(`DELETE FROM items`)
	}
	_, want := w.pull(0)
	from := want[0].Commit
	var got []change
	for limit := 1; ; limit = limit%9 + 1 {
		pulled, changes := w.pull(limit)
		got = append(got, changes...)
		w.advance(pulled.Upto)
		if !pulled.More {
			break
		}
	}
	if diff := cmp.Diff(lines(want), lines(got)); diff != "" {
		t.Errorf("(-unlimited +limited):\n%s", diff)
	}
	if got[0].Commit != from {
		t.Errorf("the first commit is at %s, was at %s", got[0].Commit, from)
	}
}

// ingestr BatchRunAdvancesReplicationSlot: others' changes do not hold the slot
// back, though none of them comes out of it.
func TestIdlePublicationOnABusyServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, `CREATE TABLE busy (id int, filler text)`)
	before := w.capture("items")
	var held []int64
	for range 4 {
		w.exec(`INSERT INTO busy SELECT g, repeat('x', 200) FROM generate_series(1, 20000) g`)
		w.exec(`CHECKPOINT`) // logs the running transactions, from where a slot may begin anew
		pulled, got := w.pull(100)
		if len(got) != 0 || pulled.More || pulled.Transactions != 0 {
			t.Fatalf("got %+v %v", pulled, lines(got))
		}
		if pulled.Upto <= before.Confirmed {
			t.Fatalf("nothing to advance to: %s", pulled.Upto)
		}
		w.advance(pulled.Upto)
		after := w.capture("items")
		if after.Confirmed != pulled.Upto {
			t.Fatalf("the slot is at %s after advancing to %s", after.Confirmed, pulled.Upto)
		}
		held = append(held, after.Lag)
	}
	after := w.capture("items")
	if after.Restart <= before.Restart {
		t.Errorf("the server still keeps its log from %s; held back: %v", after.Restart, held)
	}
}

// With asynchronous commits the log is written further than it is flushed, and
// decoding goes as far as it is flushed.
func TestAsynchronousCommitsAreNotSkipped(t *testing.T) {
	t.Parallel()
	w := startWorld(t, map[string]string{"wal_level": "logical", "synchronous_commit": "off", "wal_writer_delay": "10s", "fsync": "on"}, items)
	w.capture("items")
	s := w.session()
	seen := map[string]int{}
	const n = 300
	for i := range n {
		execute(t, s, `INSERT INTO items VALUES ($1, 'x')`, i)
		if i%3 == 0 {
			for _, c := range w.consume(0) {
				seen[c.new["id"]]++
			}
		}
	}
	w.exec(`SET synchronous_commit = on; INSERT INTO items VALUES (-1, 'last')`) // flushes all before it
	for _, c := range w.consume(0) {
		seen[c.new["id"]]++
	}
	for i := range n {
		if id := fmt.Sprint(i); seen[id] != 1 {
			t.Errorf("row %s came %d times", id, seen[id])
		}
	}
}

// ingestr BatchModeCompletesWithActiveWrites: a pull ends where the log ended
// when it began, and pulls while others write miss nothing.
func TestPullsWhileOthersWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE counts (id bigserial PRIMARY KEY, writer int, n int)`)
	w.capture("counts")
	const writers, each = 4, 200
	errs := make(chan error, writers)
	for writer := range writers {
		conn := w.session()
		go func() {
			for n := range each {
				if _, err := conn.Exec(t.Context(), `INSERT INTO counts (writer, n) VALUES ($1, $2)`, writer, n); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	next := make([]int, writers)
	var position pgoutput.LSN
	take := func(limit int) bool {
		pulled, changes := w.pull(limit)
		for _, c := range changes {
			if c.Commit < position || c.Commit >= pulled.Upto {
				t.Fatalf("a commit at %s in a pull from %s to %s", c.Commit, position, pulled.Upto)
			}
			var writer, n int
			if _, err := fmt.Sscan(c.new["writer"]+" "+c.new["n"], &writer, &n); err != nil {
				t.Fatal(err)
			}
			if n != next[writer] {
				t.Fatalf("writer %d: got %d, want %d", writer, n, next[writer])
			}
			next[writer]++
		}
		position = pulled.Upto
		w.advance(pulled.Upto)
		return pulled.More
	}
	for done := 0; done < writers; {
		select {
		case err := <-errs:
			if err != nil {
				t.Fatal(err)
			}
			done++
		default:
			take(7)
		}
	}
	for take(50) {
	}
	for writer, n := range next {
		if n != each {
			t.Errorf("writer %d: %d of %d rows came", writer, n, each)
		}
	}
}

// The function's error stops the pull; nothing is consumed.
func TestAnErrorOfTheConsumerStopsThePull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	w.exec(`INSERT INTO items SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g`)
	boom := errors.New("the warehouse is full")
	conn := w.session()
	n := 0
	_, err := wal.Pull(t.Context(), conn, w.slot, 0, func(wal.Change) error {
		if n++; n == 3 {
			return boom
		}
		return nil
	})
	if !errors.Is(err, boom) || n != 3 {
		t.Errorf("after %d changes: %v", n, err)
	}
	if !conn.IsClosed() {
		t.Error("the connection is still open")
	}
	if got := w.consume(0); len(got) != 20000 {
		t.Errorf("then %d changes came", len(got))
	}
}

// A decoding that was interrupted leaves caches in its process; a connection
// that had one must not be used again. The slot is free at once.
func TestAnInterruptedPullCostsItsConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	w.exec(`INSERT INTO items SELECT g, repeat('x', 200) FROM generate_series(1, 200000) g`)
	conn := w.session()
	failed := make(chan error, 1)
	go func() {
		_, err := wal.Pull(t.Context(), conn, w.slot, 0, func(wal.Change) error { return nil })
		failed <- err
	}()
	w.until(`SELECT active FROM pg_replication_slots WHERE slot_name = $1`, w.slot)
	w.exec(`SELECT pg_cancel_backend($1)`, conn.PgConn().PID())
	err := <-failed
	if class, _ := fault.Classify(err); class != fault.Transient || fault.SQLState(err) != "57014" {
		t.Errorf("got %v, want the transient error of a cancelled statement", err)
	}
	if !conn.IsClosed() {
		t.Error("the connection is still open")
	}
	w.until(`SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1`, w.slot)
	if got := w.consume(0); len(got) != 200000 {
		t.Errorf("then %d changes came", len(got))
	}
}

// Debezium and ingestr ConnectorLeaseExclusiveAndReusable: one reader at a time.
func TestSlotInUseByAnotherSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	slot := w.capture("items")
	w.exec(`INSERT INTO items SELECT g, repeat('x', 300) FROM generate_series(1, 300000) g`)
	reader := w.session()
	pid := reader.PgConn().PID()
	done := make(chan error, 1)
	go func() {
		_, err := reader.Exec(t.Context(), `SELECT count(*) FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)`, w.slot, w.slot)
		done <- err
	}()
	w.until(`SELECT active FROM pg_replication_slots WHERE slot_name = $1`, w.slot)
	_, _, pullErr := w.tryPull(0)
	advanceErr := wal.Advance(t.Context(), w.db, w.slot, slot.Confirmed+8)
	dropErr := wal.Drop(t.Context(), w.db, pipelineName)
	lags, err := wal.Lags(t.Context(), w.db)
	if err != nil {
		t.Fatal(err)
	}
	if len(lags) != 1 || !lags[0].Active {
		t.Errorf("got %+v, want the one slot, active", lags)
	}
	for name, err := range map[string]error{"pull": pullErr, "advance": advanceErr, "drop": dropErr} {
		contains(t, name+": "+transient(t, err), fmt.Sprintf("pg_terminate_backend(%d)", pid))
	}
	again := w.capture("items")
	if again.Created || again.Lost != "" {
		t.Errorf("got %+v", again)
	}
	if err := reader.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the other reader was done before the test was")
	}
	if got := w.consume(0); len(got) != 300000 {
		t.Errorf("then %d changes came", len(got))
	}
}

// Estuary CaptureAfterSlotDropped.
func TestCaptureAfterSlotDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	before := w.capture("items")
	w.exec(`INSERT INTO items VALUES (1, 'lost')`)
	w.exec(`SELECT pg_drop_replication_slot($1)`, w.slot)
	_, _, err := w.tryPull(0)
	if !errors.Is(err, wal.ErrLost) {
		t.Errorf("pull: got %v", err)
	}
	contains(t, transient(t, err), "anew")
	if err := wal.Advance(t.Context(), w.db, w.slot, before.Confirmed+8); !errors.Is(err, wal.ErrLost) {
		t.Errorf("advance: got %v", err)
	}
	after := w.capture("items")
	if !after.Created || after.Confirmed <= before.Confirmed || after.Members[0] != (wal.Membership{OID: before.Members[0].OID}) {
		t.Errorf("got %+v after %+v", after, before)
	}
	w.exec(`INSERT INTO items VALUES (2, 'kept')`)
	same(t, w.consume(0), "insert items id=2 name=kept")
}

func TestInvalidatedSlot(t *testing.T) {
	t.Parallel()
	settings := logical()
	settings["max_slot_wal_keep_size"], settings["min_wal_size"], settings["max_wal_size"], settings["wal_keep_size"] = "1MB", "32MB", "32MB", "0"
	w := startWorld(t, settings, items, `CREATE TABLE busy (id int, filler text)`)
	before := w.capture("items")
	w.exec(`INSERT INTO items VALUES (1, 'lost')`)
	for range 4 {
		w.exec(`INSERT INTO busy SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g`)
		w.exec(`SELECT pg_switch_wal()`)
		w.exec(`CHECKPOINT`)
	}
	w.until(`SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1`, w.slot)
	_, _, err := w.tryPull(0)
	if !errors.Is(err, wal.ErrLost) {
		t.Errorf("pull: got %v", err)
	}
	if err := wal.Advance(t.Context(), w.db, w.slot, before.Confirmed+8); !errors.Is(err, wal.ErrLost) {
		t.Errorf("advance: got %v", err)
	}
	lags, err := wal.Lags(t.Context(), w.db)
	if err != nil || len(lags) != 1 || lags[0].Status != "lost" {
		t.Errorf("got %+v, %v", lags, err)
	}
	lost := w.capture("items")
	contains(t, lost.Lost, "max_slot_wal_keep_size")
	if lost.Created {
		t.Errorf("got %+v", lost)
	}
	if err := wal.DropSlot(t.Context(), w.db, w.slot); err != nil {
		t.Fatal(err)
	}
	anew := w.capture("items")
	if !anew.Created || anew.Lost != "" || anew.Members[0].Added {
		t.Errorf("got %+v", anew)
	}
	w.exec(`INSERT INTO items VALUES (2, 'kept')`)
	same(t, w.consume(0), "insert items id=2 name=kept")
}

func TestAdvanceNeverGoesBackwards(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	before := w.capture("items")
	w.exec(`INSERT INTO items VALUES (1, 'a')`)
	pulled, _ := w.pull(0)
	w.advance(pulled.Upto)
	w.advance(before.Confirmed)
	w.advance(pulled.Upto)
	if after := w.capture("items"); after.Confirmed != pulled.Upto {
		t.Errorf("the slot is at %s, want %s", after.Confirmed, pulled.Upto)
	}
	err := wal.Advance(t.Context(), w.db, w.slot, pulled.Upto+1<<40)
	if !errors.Is(err, wal.ErrLost) {
		t.Errorf("beyond the log's end: got %v", err)
	}
	contains(t, permanent(t, err), "full: true")
}

// A crash may take the slot back; what was handed over comes again, the same.
func TestSlotAfterACrash(t *testing.T) {
	t.Parallel()
	w := startWorld(t, logical(), items)
	w.capture("items")
	w.exec(`INSERT INTO items VALUES (1, 'a'), (2, 'b')`)
	pulled, first := w.pull(0)
	w.advance(pulled.Upto)
	w.exec(`INSERT INTO items VALUES (3, 'c')`)
	w.db.Close()
	if err := w.server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.db = pool(t, w.url)
	_, all := w.pull(0)
	if got := lines(all); len(got) == 3 {
		for i, c := range first {
			if all[i].Commit != c.Commit || all[i].Ordinal != c.Ordinal || got[i] != c.String() {
				t.Errorf("change %d was %v at %s and is %v at %s", i, c, c.Commit, all[i], all[i].Commit)
			}
		}
	}
	w.advance(pulled.Upto)
	same(t, w.consume(0), "insert items id=3 name=c")
}

func TestLagsShowOrphans(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	w.exec(`SELECT pg_create_logical_replication_slot('tidemark_orphan_' || current_database(), 'pgoutput'), pg_create_logical_replication_slot('other_' || current_database(), 'pgoutput')`)
	w.exec(`INSERT INTO items SELECT g, 'x' FROM generate_series(1, 1000) g`)
	lags, err := wal.Lags(t.Context(), w.db)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range lags {
		names = append(names, l.Slot)
		if l.Active || l.Status != "reserved" || l.Bytes < 50_000 || l.Safe != -1 || l.Confirmed == 0 {
			t.Errorf("got %+v", l)
		}
	}
	want := []string{"tidemark_orphan_" + w.value(`SELECT current_database()`), w.slot}
	slices.Sort(want)
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}
	if slot := w.capture("items"); slot.Lag < 50_000 {
		t.Errorf("the slot holds back %d bytes", slot.Lag)
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	for range 2 {
		if err := wal.Drop(t.Context(), w.db, pipelineName); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.value(`SELECT (SELECT count(*) FROM pg_publication) || ' ' || (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())`); got != "0 0" {
		t.Errorf("publications and slots left: %s", got)
	}
	if slot := w.capture("items"); !slot.Created || !slot.Members[0].Added {
		t.Errorf("got %+v", slot)
	}
}

// Types without a binary form come as text, whatever the session's settings.
func TestValuesAreTextWhereThereIsNoBinaryForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE grants (id int PRIMARY KEY, acl aclitem)`)
	w.capture("grants")
	w.exec(`INSERT INTO grants VALUES (1, 'postgres=r/postgres')`)
	got := lines(w.consume(0))
	if len(got) != 1 || !strings.Contains(got[0], "acl=text:postgres=r/postgres") {
		t.Errorf("got %v", got)
	}
}

package wal_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/pgoutput"
	"github.com/tidemark-data/tidemark/shared/wal"
)

const items = `CREATE TABLE items (id int PRIMARY KEY, name text)`

func same(t *testing.T, got []change, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), lines(got)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestInsertUpdateDeleteTruncate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	w.exec(`INSERT INTO items VALUES (1, 'a'), (2, NULL)`)
	w.exec(`UPDATE items SET name = 'b' WHERE id = 1`)
	w.exec(`DELETE FROM items WHERE id = 2`)
	w.exec(`TRUNCATE items`)
	pulled, got := w.pull(0)
	same(t, got,
		"insert items id=1 name=a", "insert items id=2 name=∅",
		"update items id=1 name=b",
		"delete items [id=2 name=∅]",
		"truncate items")
	if pulled.Changes != 5 || pulled.Transactions != 4 || pulled.More {
		t.Errorf("got %+v, want 5 changes of 4 transactions and no more", pulled)
	}
	if diff := cmp.Diff([]int{0, 1, 0, 0, 0}, ordinals(got)); diff != "" {
		t.Errorf("ordinals (-want +got):\n%s", diff)
	}
	for i, c := range got {
		if c.Schema != "public" || c.Commit == 0 || c.XID == 0 || c.Committed.IsZero() || c.Whole || c.Commit >= pulled.Upto {
			t.Errorf("change %d: %+v", i, c.Change)
		}
	}
	_, again := w.pull(0)
	same(t, again, lines(got)...)
	w.advance(pulled.Upto)
	same(t, w.consume(0))
}

func ordinals(changes []change) []int {
	out := make([]int, len(changes))
	for i, c := range changes {
		out[i] = c.Ordinal
	}
	return out
}

// What the decoder has to read but nobody acts on: messages of applications,
// origins of replicated transactions, types that are not built in.
func TestOtherMessagesAreReadOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TYPE mood AS ENUM ('fine')`, `CREATE TABLE moods (id int PRIMARY KEY, m mood)`)
	w.capture("moods")
	s := w.session()
	execute(t, s, `SELECT pg_replication_origin_create('elsewhere_' || current_database())`)
	t.Cleanup(func() {
		if _, err := w.db.Exec(t.Context(), `SELECT 1`); err == nil {
			w.exec(`SELECT pg_replication_origin_drop('elsewhere_' || current_database())`)
		}
	})
	execute(t, s, `SELECT pg_replication_origin_session_setup('elsewhere_' || current_database())`)
	execute(t, s, `BEGIN; SELECT pg_replication_origin_xact_setup('0/1', now()); INSERT INTO moods VALUES (1, 'fine'); SELECT pg_logical_emit_message(true, 'app', 'x'); COMMIT`)
	execute(t, s, `SELECT pg_replication_origin_session_reset()`)
	execute(t, s, `SELECT pg_logical_emit_message(false, 'app', 'x')`)
	seen := map[string]bool{}
	rows, err := w.db.Query(t.Context(), `SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL,
		'proto_version', '1', 'publication_names', $2, 'binary', 'true', 'messages', 'true')`, w.slot, w.slot)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		m, err := pgoutput.Decode(rows.RawValues()[0])
		if err != nil {
			t.Fatal(err)
		}
		seen[strings.TrimPrefix(fmt.Sprintf("%T", m), "pgoutput.")] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"Begin": true, "Origin": true, "Type": true, "Relation": true, "Insert": true, "LogicalMessage": true, "Commit": true}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	if got := w.consume(0); len(got) != 1 || got[0].new["id"] != "1" {
		t.Errorf("got %v, want the one insert", lines(got))
	}
}

// Every value's bytes are those of COPY BINARY, so that one transcoder serves
// copies and changes.
func TestBinaryValuesEqualCopyBinary(t *testing.T) {
	t.Parallel()
	types := []string{
		"bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "numeric(10,2)", "money", "text", "varchar(20)", "char(5)", `"char"`, "name",
		"bytea", "uuid", "date", "time", "timetz", "timestamp", "timestamptz", "interval", "json", "jsonb", "xml", "inet", "cidr", "macaddr", "macaddr8",
		"bit(3)", "varbit", "tsvector", "tsquery", "point", "lseg", "box", "path", "polygon", "circle", "line", "int4range", "tstzrange", "int4multirange", "pg_lsn",
		"jsonpath", "int4[]", "text[]", "numeric[]", "timestamptz[]", "mood", "mood[]", "positive", "pair", "regclass", "xid8",
	}
	values := []string{
		"true", "-32768", "2147483647", "-9223372036854775808", "4294967295", "NaN", "-Infinity", "123456789.987654321", "-1.20", "12.34", "héllo", "x", "ab", "c", "n",
		`\xdeadbeef`, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "4713-01-01 BC", "23:59:59.999999", "10:00:00+05:30", "infinity", "2026-02-28 12:00:00.000001+00", "1 year 2 mons -3 days 04:05:06.789",
		`{"a": 1e400}`, `{"b": [1, 2.50]}`, "<a>b</a>", "10.0.0.1/8", "10.0.0.0/8", "08:00:2b:01:02:03", "08:00:2b:01:02:03:04:05",
		"101", "1", "'a':1 'b'", "'a' & 'b'", "(1,2)", "[(1,2),(3,4)]", "(3,4),(1,2)", "[(1,2),(3,4)]", "((1,2),(3,4),(5,6))", "<(1,2),3>", "{1,2,3}", "[1,5)", "[2026-01-01 00:00:00+00,)", "{[1,2),[5,6)}", "16/B374D848",
		"$.a", "{1,NULL,3}", `{"a","b,c"}`, "{1.50,NaN}", "{infinity}", "fine", "{fine}", "7", "(1,two)", "pg_class", "123456789012",
	}
	var columns, list []string
	for i, name := range types {
		columns = append(columns, fmt.Sprintf("c%d %s", i, name))
		list = append(list, fmt.Sprintf("c%d", i))
	}
	w := newWorld(t, `CREATE TYPE mood AS ENUM ('fine')`, `CREATE DOMAIN positive AS int CHECK (value > 0)`, `CREATE TYPE pair AS (a int, b text)`,
		`CREATE TABLE everything (id int PRIMARY KEY, `+strings.Join(columns, ", ")+`)`)
	w.capture("everything")
	literals := make([]string, len(values))
	for i, v := range values {
		literals[i] = "'" + strings.ReplaceAll(v, "'", "''") + "'"
	}
	w.exec(`INSERT INTO everything VALUES (1, ` + strings.Join(literals, ", ") + `)`)
	var copied bytes.Buffer
	if _, err := w.session().PgConn().CopyTo(t.Context(), &copied, `COPY (SELECT id, `+strings.Join(list, ", ")+` FROM everything) TO STDOUT (FORMAT binary)`); err != nil {
		t.Fatal(err)
	}
	want := copyValues(t, copied.Bytes())
	conn := w.session()
	var n int
	if _, err := wal.Pull(t.Context(), conn, w.slot, 0, func(c wal.Change) error {
		n++
		for i, v := range c.New {
			if v.Kind != pgoutput.Binary || !bytes.Equal(v.Data, want[i]) {
				t.Errorf("%s: got %c %x, COPY gives %x", append([]string{"id"}, types...)[i], v.Kind, v.Data, want[i])
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != 1 || len(want) != len(types)+1 {
		t.Errorf("%d changes of %d columns", n, len(want))
	}
}

// copyValues are the values of the one row of a COPY BINARY.
func copyValues(t *testing.T, data []byte) [][]byte {
	t.Helper()
	data = data[11+4+4:] // signature, flags, length of the extension
	values := make([][]byte, binary.BigEndian.Uint16(data))
	data = data[2:]
	for i := range values {
		n := binary.BigEndian.Uint32(data)
		values[i] = data[4 : 4+n]
		data = data[4+n:]
	}
	return values
}

// PeerDB Toast, Toast_Advance; Supabase preserves_unchanged_toasted_columns;
// ingestr MergePreservesUnchangedJSONB; Estuary ToastColumns.
func TestToastColumns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE docs (id int PRIMARY KEY, n int, body text, j jsonb)`,
		`ALTER TABLE docs ALTER body SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL`)
	w.capture("docs")
	big := strings.Repeat("x", 5000)
	w.exec(`INSERT INTO docs VALUES (1, 1, $1, to_jsonb($1::text))`, big)
	w.exec(`UPDATE docs SET n = 2`)
	w.exec(`UPDATE docs SET body = 'short'`)
	w.exec(`UPDATE docs SET j = NULL`)
	got := w.consume(0)
	same(t, got,
		"insert docs body="+big+" id=1 j="+big+" n=1",
		"update docs body=… id=1 j=… n=2",
		"update docs body=short id=1 j=… n=2",
		"update docs body=short id=1 j=∅ n=2")
}

// With the whole row as identity the old one brings what the new one lacks.
func TestToastColumnsUnderReplicaIdentityFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE docs (id int PRIMARY KEY, n int, body text)`,
		`ALTER TABLE docs ALTER body SET STORAGE EXTERNAL`, `ALTER TABLE docs REPLICA IDENTITY FULL`)
	w.capture("docs")
	big := strings.Repeat("x", 5000)
	w.exec(`INSERT INTO docs VALUES (1, 1, $1)`, big)
	w.exec(`UPDATE docs SET n = 2`)
	got := w.consume(0)
	if len(got) != 2 || got[1].old["body"] != big || !got[1].Whole {
		t.Fatalf("the old row is not whole: %v", lines(got))
	}
	if body := got[1].new["body"]; body != unchanged && body != big {
		t.Errorf("the new row's value is %q", body)
	}
}

// Estuary PrimaryKeyUpdate; Supabase table_primary_key_update_rewrites_row.
func TestPrimaryKeyUpdate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE lines (a int, b int, note text, PRIMARY KEY (a, b))`)
	w.capture("lines")
	w.exec(`INSERT INTO lines VALUES (1, 1, 'x')`)
	w.exec(`UPDATE lines SET b = 2`)
	w.exec(`UPDATE lines SET b = 2, note = 'y'`)
	same(t, w.consume(0),
		"insert lines a=1 b=1 note=x",
		"update lines [a=1 b=1 note=∅] a=1 b=2 note=x",
		"update lines a=1 b=2 note=y")
}

// A key that is stored out of line is sent with the old row although it did
// not change.
func TestKeyStoredOutOfLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE blobs (k text PRIMARY KEY, n int)`, `ALTER TABLE blobs ALTER k SET STORAGE EXTERNAL`)
	w.capture("blobs")
	key := strings.Repeat("k", 2500)
	w.exec(`INSERT INTO blobs VALUES ($1, 1)`, key)
	w.exec(`UPDATE blobs SET n = 2`)
	got := w.consume(0)
	if len(got) != 2 || got[1].old["k"] != key || got[1].new["k"] != unchanged && got[1].new["k"] != key {
		t.Errorf("got %.200v", lines(got))
	}
}

func TestReplicaIdentityFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE plain (id int NOT NULL, name text)`, `ALTER TABLE plain REPLICA IDENTITY FULL`)
	w.ensure(w.member("plain", "id"))
	w.exec(`INSERT INTO plain VALUES (1, 'a')`)
	w.exec(`UPDATE plain SET name = 'b'`)
	w.exec(`DELETE FROM plain`)
	got := w.consume(0)
	same(t, got, "insert plain id=1 name=a", "update plain [id=1 name=a] id=1 name=b", "delete plain [id=1 name=b]")
	if got[0].Whole || !got[1].Whole || !got[2].Whole || got[1].Relation.ReplicaIdentity != 'f' {
		t.Errorf("whole rows: %t, %t, %t, identity %c", got[0].Whole, got[1].Whole, got[2].Whole, got[1].Relation.ReplicaIdentity)
	}
}

func TestReplicaIdentityUsingIndex(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE codes (id int PRIMARY KEY, code text NOT NULL, n int)`,
		`CREATE UNIQUE INDEX by_code ON codes (code)`, `ALTER TABLE codes REPLICA IDENTITY USING INDEX by_code`)
	w.ensure(w.member("codes", "code"))
	w.exec(`INSERT INTO codes VALUES (1, 'a', 1)`)
	w.exec(`UPDATE codes SET id = 2`)
	w.exec(`UPDATE codes SET code = 'b'`)
	w.exec(`DELETE FROM codes`)
	same(t, w.consume(0),
		"insert codes code=a id=1 n=1", "update codes code=a id=2 n=1",
		"update codes [code=a id=∅ n=∅] code=b id=2 n=1", "delete codes [code=b id=∅ n=∅]")
}

// Estuary TruncatedTables; ingestr TruncateAndSnapshotRecovery.
func TestTruncateOfSeveralTables(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE parents (id int PRIMARY KEY)`, `CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents)`,
		`CREATE TABLE strangers (id int PRIMARY KEY, parent int REFERENCES parents)`)
	w.capture("parents", "children")
	s := w.session()
	execute(t, s, `BEGIN; INSERT INTO parents VALUES (1); INSERT INTO children VALUES (1, 1); TRUNCATE parents CASCADE; INSERT INTO parents VALUES (2); COMMIT`)
	got := w.consume(0)
	same(t, got, "insert parents id=1", "insert children id=1 parent=1", "truncate parents", "truncate children", "insert parents id=2")
	if diff := cmp.Diff([]int{0, 1, 2, 3, 4}, ordinals(got)); diff != "" {
		t.Errorf("ordinals (-want +got):\n%s", diff)
	}
}

// PeerDB Partitioned_Table (other column order), Supabase
// pipeline_with_partitioned_table.
func TestPartitionedTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE events (id int, day int, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)`,
		`CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)`,
		`CREATE TABLE events_2 (note text, gone int, day int NOT NULL, id int NOT NULL, PRIMARY KEY (id, day))`,
		`ALTER TABLE events_2 DROP COLUMN gone`, // so that attribute numbers differ too
		`ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (10) TO (20)`)
	w.capture("events")
	w.exec(`INSERT INTO events VALUES (1, 1, 'a'), (2, 11, 'b')`)
	w.exec(`INSERT INTO events_2 (id, day, note) VALUES (3, 12, 'c')`)
	w.exec(`UPDATE events SET note = 'd' WHERE id = 2`)
	w.exec(`UPDATE events SET day = 15 WHERE id = 1`) // moves between partitions
	w.exec(`CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)`)
	w.exec(`INSERT INTO events VALUES (4, 21, 'e')`)
	w.exec(`DELETE FROM events WHERE id = 2`)
	w.exec(`TRUNCATE events`)
	same(t, w.consume(0),
		"insert events day=1 id=1 note=a", "insert events day=11 id=2 note=b", "insert events day=12 id=3 note=c",
		"update events day=11 id=2 note=d",
		"delete events [day=1 id=1 note=∅]", "insert events day=15 id=1 note=a",
		"insert events day=21 id=4 note=e", "delete events [day=11 id=2 note=∅]", "truncate events")
}

// What the stream does not carry, so that nobody counts on it: truncating,
// detaching and attaching a partition by itself.
func TestPartitionSurgeryIsNotInTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id)`,
		`CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)`,
		`CREATE TABLE events_2 (id int PRIMARY KEY)`, `INSERT INTO events_2 VALUES (11)`)
	w.capture("events")
	w.exec(`INSERT INTO events VALUES (1)`)
	w.exec(`TRUNCATE events_1`)
	w.exec(`ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (10) TO (20)`)
	w.exec(`ALTER TABLE events DETACH PARTITION events_1`)
	same(t, w.consume(0), "insert events id=1")
}

// PeerDB Inheritance: what inherits from a table is not part of it.
func TestInheritance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE base (id int PRIMARY KEY)`, `CREATE TABLE derived (extra int, PRIMARY KEY (id)) INHERITS (base)`)
	w.capture("base")
	w.exec(`INSERT INTO base VALUES (1)`)
	w.exec(`INSERT INTO derived VALUES (2, 2)`)
	same(t, w.consume(0), "insert base id=1")
}

// PeerDB Simple_Schema_Changes, Drop_Consecutive_Columns; Supabase interleaved
// DDL in one transaction; ingestr "DDL without Relation message".
func TestSchemaChangesInMidStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text)`)
	w.capture("t")
	s := w.session()
	execute(t, s, `INSERT INTO t VALUES (1, 'a', 'b', 'c')`)
	execute(t, s, `BEGIN`)
	execute(t, s, `INSERT INTO t VALUES (2, 'a', 'b', 'c')`)
	execute(t, s, `ALTER TABLE t ADD COLUMN d int DEFAULT 7`)
	execute(t, s, `INSERT INTO t VALUES (3, 'a', 'b', 'c', 8)`)
	execute(t, s, `ALTER TABLE t DROP COLUMN a, DROP COLUMN b`)
	execute(t, s, `INSERT INTO t VALUES (4, 'c', 9)`)
	execute(t, s, `ALTER TABLE t RENAME COLUMN c TO renamed`)
	execute(t, s, `UPDATE t SET d = 10 WHERE id = 1`)
	execute(t, s, `COMMIT`)
	execute(t, s, `ALTER TABLE t ADD COLUMN a int`)
	execute(t, s, `UPDATE t SET a = 1 WHERE id = 4`)
	execute(t, s, `ALTER TABLE t ALTER COLUMN d TYPE text`)
	execute(t, s, `DELETE FROM t WHERE id = 4`)
	got := w.consume(0)
	same(t, got,
		"insert t a=a b=b c=c id=1",
		"insert t a=a b=b c=c id=2",
		"insert t a=a b=b c=c d=8 id=3",
		"insert t c=c d=9 id=4",
		"update t d=10 id=1 renamed=c",
		"update t a=1 d=9 id=4 renamed=c",
		"delete t [a=∅ d=∅ id=4 renamed=∅]")
	if got[0].Relation.ID != got[6].Relation.ID || got[0].Relation == got[6].Relation {
		t.Error("the description of the table is not a new one after it was altered")
	}
}

// Estuary DroppedAndRecreatedTable: the new table is not the one that was
// published; it joins as a new member.
func TestDroppedAndRecreatedTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, `CREATE TABLE others (id int PRIMARY KEY)`)
	before := w.capture("items", "others")
	w.exec(`INSERT INTO items VALUES (1, 'a')`)
	w.exec(`DROP TABLE items`)
	w.exec(`CREATE TABLE items (id int PRIMARY KEY, other int)`)
	w.exec(`INSERT INTO items VALUES (1, 1)`)
	after := w.capture("items", "others")
	w.exec(`INSERT INTO items VALUES (2, 2)`)
	if after.Members[0].OID == before.Members[0].OID || !after.Members[0].Added || after.Members[1] != (wal.Membership{OID: before.Members[1].OID}) {
		t.Errorf("memberships before %+v and after %+v", before.Members, after.Members)
	}
	same(t, w.consume(0), "insert items id=1 name=a", "insert items id=2 other=2")
}

// Estuary TrickyColumnNames; PeerDB's whitespace names.
func TestTrickyColumnNames(t *testing.T) {
	t.Parallel()
	const table = `Odd "table"; DROP TABLE x, --`
	w := newWorld(t, `CREATE TABLE "Odd ""table""; DROP TABLE x, --" ("Key, """ int PRIMARY KEY, "select" int, "ünï" int, " " int)`)
	w.capture(table)
	w.exec(`INSERT INTO "Odd ""table""; DROP TABLE x, --" VALUES (1, 2, 3, 4)`)
	w.exec(`DELETE FROM "Odd ""table""; DROP TABLE x, --"`)
	same(t, w.consume(0), `insert `+table+`  =4 Key, "=1 select=2 ünï=3`, `delete `+table+` [ =∅ Key, "=1 select=∅ ünï=∅]`)
}

// Supabase table_copy_and_streaming; PeerDB Soft_Delete_Insert_After_Delete;
// ingestr "change order inside a tx".
func TestDeleteAndReinsertInOneTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.exec(`INSERT INTO items VALUES (1, 'a')`)
	w.capture("items")
	execute(t, w.session(), `BEGIN; DELETE FROM items; INSERT INTO items VALUES (1, 'b'); UPDATE items SET name = 'c'; DELETE FROM items; INSERT INTO items VALUES (1, 'd'); COMMIT`)
	got := w.consume(0)
	same(t, got, "delete items [id=1 name=∅]", "insert items id=1 name=b", "update items id=1 name=c", "delete items [id=1 name=∅]", "insert items id=1 name=d")
	if diff := cmp.Diff([]int{0, 1, 2, 3, 4}, ordinals(got)); diff != "" {
		t.Errorf("ordinals (-want +got):\n%s", diff)
	}
}

func TestSavepointRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	execute(t, w.session(), `BEGIN; INSERT INTO items VALUES (1, 'a'); SAVEPOINT s; INSERT INTO items VALUES (2, 'b'); TRUNCATE items; ROLLBACK TO s;
		SAVEPOINT s2; INSERT INTO items VALUES (3, 'c'); RELEASE s2; COMMIT`)
	execute(t, w.session(), `BEGIN; INSERT INTO items VALUES (4, 'd'); ROLLBACK`)
	same(t, w.consume(0), "insert items id=1 name=a", "insert items id=3 name=c")
}

func TestPreparedTransactionsCountWhenTheyCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items)
	w.capture("items")
	execute(t, w.session(), `BEGIN; INSERT INTO items VALUES (1, 'prepared'); PREPARE TRANSACTION 'p1'`)
	w.exec(`INSERT INTO items VALUES (2, 'between')`)
	same(t, w.consume(0), "insert items id=2 name=between")
	w.exec(`COMMIT PREPARED 'p1'`)
	same(t, w.consume(0), "insert items id=1 name=prepared")
}

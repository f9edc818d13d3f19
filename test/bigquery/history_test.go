package bigquery_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

// morning is when the tests of the past begin.
var morning = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)

func minute(n int) time.Time { return morning.Add(time.Duration(n) * time.Minute) }

// appended are the rows of APPENDS in a window as "minute:id=name", ordered.
func (b *bundle) appended(t *testing.T, table string, start, end any) string {
	t.Helper()
	out, err := b.tryAppended(t, table, start, end)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bundle) tryAppended(t *testing.T, table string, start, end any) (string, error) {
	t.Helper()
	q := b.client.Query("SELECT _CHANGE_TYPE, TIMESTAMP_DIFF(_CHANGE_TIMESTAMP, TIMESTAMP '2026-11-20 08:00:00+00', MINUTE), id, name FROM APPENDS(TABLE " + table + ", @start, @end) ORDER BY _CHANGE_TIMESTAMP, id")
	for name, v := range map[string]any{"start": start, "end": end} {
		if v == nil {
			v = gcp.NullTimestamp{}
		}
		q.Parameters = append(q.Parameters, gcp.QueryParameter{Name: name, Value: v})
	}
	it, err := q.Read(t.Context())
	if err != nil {
		return "", err
	}
	var out []string
	for _, row := range rows(t, it) {
		if row[0] != "INSERT" {
			t.Errorf("a row of type %v", row[0])
		}
		out = append(out, fmt.Sprintf("%v:%v=%v", row[1], row[2], row[3]))
	}
	return strings.Join(out, " "), nil
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

// simpleTable is shop.t of id and name.
func simpleTable(t *testing.T, b *bundle) *gcp.Table {
	t.Helper()
	return b.table(t, b.client.Dataset("shop"), "t", &gcp.TableMetadata{Schema: gcp.Schema{{Name: "id", Type: gcp.IntegerFieldType}, {Name: "name", Type: gcp.StringFieldType}}})
}

// stream appends a row through a stream of the Storage Write API.
func (b *bundle) stream(t *testing.T, table *gcp.Table, kind managedwriter.StreamType, id int64, name string) {
	t.Helper()
	ms, err := b.writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(parent(table)), managedwriter.WithType(kind), managedwriter.WithSchemaDescriptor(simpleDescriptor()))
	if err != nil {
		t.Fatal(err)
	}
	result, err := ms.AppendRows(t.Context(), [][]byte{simpleRow(id, name)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := result.FullResponse(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kind == managedwriter.PendingStream {
		if _, err := ms.Finalize(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.commit(t, table, ms.StreamName())
	}
}

// TestAppends: rows come with the moment they were appended at, however they
// came; the start is inclusive, the end exclusive.
func TestAppends(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	l := startLoads(t, bigquery.Options{Now: c.Now})
	b := l.bundle
	table := simpleTable(t, b)
	for _, add := range []func(){
		func() { b.query(t, "INSERT INTO shop.t (id, name) VALUES (1, 'dml'), (2, 'dml')") },
		func() { b.stream(t, table, managedwriter.DefaultStream, 3, "default") },
		func() { b.stream(t, table, managedwriter.CommittedStream, 4, "committed") },
		func() { b.stream(t, table, managedwriter.PendingStream, 5, "pending") },
		func() { mustLoad(t, loader(table, l.put(t, "a.json", `{"id": 6, "name": "load"}`))) },
		func() { b.into(t, table, gcp.WriteAppend, "SELECT 7 AS id, 'query' AS name") },
		func() {
			b.query(t, "MERGE shop.t AS t USING (SELECT 8 AS id) AS s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, 'merge')")
		},
		func() {
			if err := table.Inserter().Put(t.Context(), []*gcp.StructSaver{{Struct: struct {
				ID   int64  `bigquery:"id"`
				Name string `bigquery:"name"`
			}{9, "insertAll"}, Schema: gcp.Schema{{Name: "id", Type: gcp.IntegerFieldType}, {Name: "name", Type: gcp.StringFieldType}}}}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		c.advance(time.Minute)
		add()
	}
	c.advance(time.Minute)
	const all = "1:1=dml 1:2=dml 2:3=default 3:4=committed 4:5=pending 5:6=load 6:7=query 7:8=merge 8:9=insertAll"
	wantText(t, "everything", b.appended(t, "shop.t", nil, nil), all)
	wantText(t, "everything since before the table", b.appended(t, "`test-project.shop.t`", minute(-5), nil), all)
	wantText(t, "from 3 until 6", b.appended(t, "shop.t", minute(3), minute(6)), "3:4=committed 4:5=pending 5:6=load")
	wantText(t, "an empty window", b.appended(t, "shop.t", minute(3), minute(3)), "")
	for sql, want := range map[string]int64{
		"SELECT COUNT(*) FROM APPENDS(TABLE shop.t)": 9,
		"SELECT COUNT(*) FROM APPENDS(TABLE shop.t, TIMESTAMP_ADD(TIMESTAMP '2026-11-20 08:00:00+00', INTERVAL 7 MINUTE)) AS a WHERE a._CHANGE_TYPE = 'INSERT'":                                               2,
		"SELECT COUNT(*) FROM shop.t AS t JOIN APPENDS(TABLE shop.t, NULL, TIMESTAMP '2026-11-20 08:02:00+00') AS a ON t.id = a.id CROSS JOIN APPENDS(TABLE shop.t, TIMESTAMP '2026-11-20 08:08:00+00') AS z": 2,
	} {
		if got := b.query(t, sql); !cmp.Equal(got, [][]gcp.Value{{want}}) {
			t.Errorf("%s: %v, want %d", sql, got, want)
		}
	}
	b.query(t, "CREATE TABLE shop.copy AS SELECT * FROM shop.t WHERE id > 7")
	wantText(t, "a table that was created as a query", b.appended(t, "shop.copy", nil, nil), "")
	c.advance(time.Minute)
	wantText(t, "a table that was created as a query", b.appended(t, "shop.copy", nil, nil), "9:8=merge 9:9=insertAll")
}

// TestAppendsOfChangedRows: what was asked for once is answered as it was
// appended, whatever became of the rows; what was changed before is refused.
func TestAppendsOfChangedRows(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	b := start(t, bigquery.Options{Now: c.Now, Limits: bigquery.Limits{TableUpdates: 100}})
	ds := b.dataset(t, "shop")
	simpleTable(t, b)
	step := func(sql string) {
		t.Helper()
		c.advance(time.Minute)
		b.query(t, sql)
	}
	step("INSERT INTO shop.t (id, name) VALUES (1, 'a'), (2, 'b')") // at 1
	step("UPDATE shop.t SET name = 'changed' WHERE id = 1")
	step("INSERT INTO shop.t (id, name) VALUES (3, 'c')") // at 3
	c.advance(time.Minute)
	_, err := b.tryAppended(t, "shop.t", nil, nil)
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	_, err = b.tryAppended(t, "shop.t", minute(1), nil)
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	wantText(t, "what was not changed", b.appended(t, "shop.t", minute(2), nil), "3:3=c")
	step("UPDATE shop.t SET name = 'changed' WHERE TRUE")                                                                                                                                                                                                    // at 5
	step("INSERT INTO shop.t (id, name) VALUES (4, 'd')")                                                                                                                                                                                                    // at 6
	step("MERGE shop.t AS t USING (SELECT 3 AS id UNION ALL SELECT 4 UNION ALL SELECT 5) AS s ON t.id = s.id WHEN MATCHED AND s.id = 3 THEN DELETE WHEN MATCHED THEN UPDATE SET name = 'merged' WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, 'e')") // at 7
	step("DELETE FROM shop.t WHERE id = 5")
	step("ALTER TABLE shop.t ADD COLUMN note STRING")
	step("INSERT INTO shop.t (id, name, note) VALUES (6, 'f', 'n')") // at 10
	step("TRUNCATE TABLE shop.t")
	step("INSERT INTO shop.t (id, name, note) VALUES (7, 'g', 'o')") // at 12
	c.advance(time.Minute)
	wantText(t, "what was appended", b.appended(t, "shop.t", minute(2), nil), "3:3=c 6:4=d 7:5=e 10:6=f 12:7=g")
	got := b.query(t, "SELECT * FROM APPENDS(TABLE shop.t, TIMESTAMP '2026-11-20 08:07:00+00') ORDER BY id")
	want := [][]gcp.Value{
		{int64(5), "e", nil, "INSERT", minute(7)}, {int64(6), "f", "n", "INSERT", minute(10)}, {int64(7), "g", "o", "INSERT", minute(12)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	c.advance(time.Minute)
	b.into(t, ds.Table("t"), gcp.WriteTruncate, "SELECT 8 AS id, 'h' AS name") // at 14
	c.advance(time.Minute)
	wantText(t, "after a truncation", b.appended(t, "shop.t", minute(10), nil), "10:6=f 12:7=g 14:8=h")
	step("CREATE OR REPLACE TABLE shop.t AS SELECT 9 AS id, 'i' AS name") // at 16
	c.advance(time.Minute)
	wantText(t, "after a replacement", b.appended(t, "shop.t", minute(10), nil), "16:9=i")
	step("DROP TABLE shop.t")
	left, err := b.server.Query(t.Context(), "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '$appended%'")
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	if left.Next() || left.Err() != nil {
		t.Errorf("copied rows are still kept: %v", left.Err())
	}
}

// TestChangeHistory: with the option nobody needs to ask before rows change.
func TestChangeHistory(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	b := start(t, bigquery.Options{Now: c.Now, ChangeHistory: true})
	ds := b.dataset(t, "shop")
	simpleTable(t, b)
	c.advance(time.Minute)
	b.query(t, "INSERT INTO shop.t (id, name) VALUES (1, 'a'), (2, 'b')")
	c.advance(time.Minute)
	b.query(t, "UPDATE shop.t SET name = 'changed' WHERE id = 1")
	b.query(t, "INSERT INTO shop.t (id, name) VALUES (3, 'c')")
	c.advance(time.Minute)
	b.into(t, ds.Table("t"), gcp.WriteTruncate, "SELECT 4 AS id, 'd' AS name")
	c.advance(time.Minute)
	wantText(t, "the history", b.appended(t, "shop.t", nil, nil), "1:1=a 1:2=b 2:3=c 3:4=d")
}

// TestHistoryOfExpiredPartitions: what expires with its partition was appended
// all the same.
func TestHistoryOfExpiredPartitions(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	b := start(t, bigquery.Options{Now: c.Now, ChangeHistory: true})
	b.dataset(t, "shop")
	b.query(t, "CREATE TABLE shop.t (id INT64, name STRING, day DATE) PARTITION BY day OPTIONS (partition_expiration_days = 2)")
	b.query(t, "INSERT INTO shop.t (id, name, day) VALUES (1, 'a', '2026-11-18'), (2, 'b', '2026-11-20')")
	c.advance(24 * time.Hour)
	if got := b.query(t, "SELECT id FROM shop.t"); !cmp.Equal(got, [][]gcp.Value{{int64(2)}}) {
		t.Errorf("the table holds %v", got)
	}
	wantText(t, "the history", b.appended(t, "shop.t", nil, nil), "0:1=a 0:2=b")
}

// TestAppendsOfMovedRows: DuckDB appends the rows of such a table that it
// updates, which must not come as appended.
func TestAppendsOfMovedRows(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	b := start(t, bigquery.Options{Now: c.Now})
	b.dataset(t, "shop")
	b.query(t, "CREATE TABLE shop.t (id INT64, name STRING, tags ARRAY<STRING>)")
	insert := func(id int) {
		t.Helper()
		c.advance(time.Minute)
		b.query(t, fmt.Sprintf("INSERT INTO shop.t (id, name, tags) VALUES (%d, 'a', ['x'])", id))
	}
	insert(1)
	insert(2)
	c.advance(time.Minute)
	wantText(t, "before", b.appended(t, "shop.t", nil, nil), "1:1=a 2:2=a")
	b.query(t, "UPDATE shop.t SET tags = ['y'], name = 'changed' WHERE id = 1")
	insert(3) // at 4
	c.advance(time.Minute)
	wantText(t, "after an update", b.appended(t, "shop.t", nil, nil), "1:1=a 2:2=a 4:3=a")
	b.query(t, "MERGE shop.t AS t USING (SELECT 2 AS id UNION ALL SELECT 5) AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET tags = ['z'] WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)") // at 5
	c.advance(time.Minute)
	_, err := b.tryAppended(t, "shop.t", minute(5), nil)
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	insert(6) // at 7
	c.advance(time.Minute)
	wantText(t, "after a merge", b.appended(t, "shop.t", minute(6), nil), "7:6=a")
}

// TestRefusedPast are the windows, tables and places that BigQuery refuses, or
// the emulator by name.
func TestRefusedPast(t *testing.T) {
	t.Parallel()
	c := newClock(morning.Add(-8 * 24 * time.Hour))
	b := start(t, bigquery.Options{Now: c.Now})
	ds := b.dataset(t, "shop")
	simpleTable(t, b)
	c.advance(8 * 24 * time.Hour)
	b.query(t, "INSERT INTO shop.t (id, name) VALUES (1, 'a')")
	b.table(t, ds, "v", &gcp.TableMetadata{ViewQuery: "SELECT * FROM shop.t"})
	keys := b.table(t, ds, "keys", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")})
	mustSend(t, b.changes(t, keys), upsert(1, "a", "1"))
	refused, gap := [2]any{http.StatusBadRequest, "invalidQuery"}, [2]any{http.StatusNotImplemented, "notImplemented"}
	for sql, want := range map[string][2]any{
		"SELECT * FROM APPENDS(TABLE shop.t)":                                                                                refused, // created before time travel allows
		"SELECT * FROM APPENDS(TABLE shop.t, TIMESTAMP '2026-11-13 07:59:59+00')":                                            refused,
		"SELECT * FROM APPENDS(TABLE shop.t, TIMESTAMP '2026-11-20 07:00:00+00', TIMESTAMP '2026-11-20 08:00:00.000001+00')": refused,
		"SELECT * FROM APPENDS(TABLE shop.t, TIMESTAMP '2026-11-20 07:00:00+00', TIMESTAMP '2026-11-20 06:00:00+00')":        refused,
		"SELECT * FROM APPENDS(TABLE shop.v, TIMESTAMP '2026-11-20 07:00:00+00')":                                            refused,
		"WITH x AS (SELECT 1 AS a) SELECT * FROM APPENDS(TABLE x)":                                                           refused,
		"SELECT * FROM APPENDS((SELECT 1 AS a), NULL)":                                                                       refused,
		"SELECT * FROM APPENDS(TABLE shop.t, (SELECT MAX(TIMESTAMP '2026-11-20 07:00:00+00') FROM shop.t))":                  refused,
		"SELECT * FROM APPENDS(TABLE shop.t, 7)":                                                                             refused,
		"SELECT * FROM APPENDS(TABLE shop.keys, TIMESTAMP '2026-11-20 07:00:00+00')":                                         gap,
		"CREATE VIEW shop.w AS SELECT id FROM APPENDS(TABLE shop.t, TIMESTAMP '2026-11-20 07:00:00+00')":                     gap,
		"SELECT * FROM shop.t FOR SYSTEM_TIME AS OF TIMESTAMP '2026-11-20 08:00:01+00'":                                      refused,
		"SELECT * FROM shop.t FOR SYSTEM_TIME AS OF TIMESTAMP '2026-11-13 07:59:59+00'":                                      refused,
		"SELECT * FROM shop.v FOR SYSTEM_TIME AS OF TIMESTAMP '2026-11-20 07:00:00+00'":                                      refused,
		"SELECT * FROM shop.t FOR SYSTEM_TIME AS OF CAST(NULL AS TIMESTAMP)":                                                 refused,
	} {
		_, err := b.client.Query(sql).Read(t.Context())
		if err == nil {
			t.Errorf("%s was accepted", sql)
			continue
		}
		wantCode(t, err, want[0].(int), want[1].(string)) //nolint:forcetypeassert // see above
	}
	named := b.client.Query("WITH t AS (SELECT 1 AS a) SELECT * FROM APPENDS(TABLE t, TIMESTAMP '2026-11-20 07:00:00+00')")
	named.DefaultDatasetID = "shop"
	_, err := named.Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	_, err = b.client.Query("SELECT * FROM APPENDS(TABLE shop.nope)").Read(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
	wantText(t, "the rest", b.appended(t, "shop.t", minute(-7*24*60), minute(0)), "")
}

// TestSystemTime: the past of a table that was only appended to since.
func TestSystemTime(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	b := start(t, bigquery.Options{Now: c.Now})
	b.dataset(t, "shop")
	simpleTable(t, b)
	step := func(sql string) {
		t.Helper()
		c.advance(time.Minute)
		b.query(t, sql)
	}
	step("INSERT INTO shop.t (id, name) VALUES (1, 'a'), (2, 'b')") // at 1
	step("UPDATE shop.t SET name = 'x' WHERE id = 1")               // at 2
	step("INSERT INTO shop.t (id, name) VALUES (3, 'c'), (4, 'd')") // at 3
	step("INSERT INTO shop.t (id, name) VALUES (5, 'e')")           // at 4
	c.advance(time.Minute)
	asOf := func(at time.Time) ([][]gcp.Value, error) {
		q := b.client.Query("SELECT COUNT(*), MAX(t.id), MIN(name) FROM shop.t AS t FOR SYSTEM_TIME AS OF @at")
		q.Parameters = []gcp.QueryParameter{{Name: "at", Value: at}}
		it, err := q.Read(t.Context())
		if err != nil {
			return nil, err
		}
		return rows(t, it), nil
	}
	for at, want := range map[int][]gcp.Value{2: {int64(2), int64(2), "b"}, 3: {int64(4), int64(4), "b"}, 4: {int64(5), int64(5), "b"}, 5: {int64(5), int64(5), "b"}} {
		got, err := asOf(minute(at))
		if err != nil || !cmp.Equal([][]gcp.Value{want}, got) {
			t.Errorf("as of minute %d: %v, %v; want %v", at, got, err, want)
		}
	}
	for _, at := range []int{0, 1} {
		_, err := asOf(minute(at))
		wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	}
	b.appended(t, "shop.t", minute(3), nil) // copies rows, which stay where they are
	if got, err := asOf(minute(3)); err != nil || !cmp.Equal([][]gcp.Value{{int64(4), int64(4), "b"}}, got) {
		t.Errorf("as of minute 3, after a query of appended rows: %v, %v", got, err)
	}
	step("ALTER TABLE shop.t ADD COLUMN note STRING")
	_, err := asOf(minute(4))
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
}

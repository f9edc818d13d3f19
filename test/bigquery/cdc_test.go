package bigquery_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

// changedSchema has a key of two columns.
var changedSchema = gcp.Schema{
	{Name: "id", Type: gcp.IntegerFieldType, Required: true},
	{Name: "part", Type: gcp.StringFieldType, Required: true},
	{Name: "name", Type: gcp.StringFieldType},
	{Name: "doc", Type: gcp.JSONFieldType},
	{Name: "tags", Type: gcp.StringFieldType, Repeated: true},
}

func keyed(key ...string) *gcp.TableConstraints {
	return &gcp.TableConstraints{PrimaryKey: &gcp.PrimaryKey{Columns: key}}
}

func changeDescriptor() *descriptorpb.DescriptorProto {
	str := descriptorpb.FieldDescriptorProto_TYPE_STRING
	return descriptor(
		protoField{name: "id", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64}, protoField{name: "part", typ: str},
		protoField{name: "name", typ: str}, protoField{name: "doc", typ: str},
		protoField{name: "tags", typ: str, label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED},
		protoField{name: "_CHANGE_SEQUENCE_NUMBER", typ: str}, protoField{name: "_CHANGE_TYPE", typ: str},
	)
}

// upsert and remove are changes; an empty sequence is none.
func upsert(id int64, name, sequence string) message {
	return change(message{}.i(1, id).s(2, "x").s(3, name).s(4, `{"of": "`+name+`"}`).s(5, name).s(5, "t"), "UPSERT", sequence)
}

func remove(id int64, sequence string) message {
	return change(message{}.i(1, id).s(2, "x"), "DELETE", sequence)
}

func change(m message, kind, sequence string) message {
	if sequence != "" {
		m = m.s(6, sequence)
	}
	return m.s(7, kind)
}

// changes opens a connection to the default stream.
func (b *bundle) changes(t *testing.T, table *gcp.Table) *managedwriter.ManagedStream {
	t.Helper()
	ms, err := b.writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(parent(table)),
		managedwriter.WithType(managedwriter.DefaultStream), managedwriter.WithSchemaDescriptor(changeDescriptor()))
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

// send appends rows to the default stream in one request.
func send(t *testing.T, ms *managedwriter.ManagedStream, rows ...message) error {
	t.Helper()
	_, err := sendRows(t, ms, rows...)
	return err
}

func sendRows(t *testing.T, ms *managedwriter.ManagedStream, rows ...message) (*storagepb.AppendRowsResponse, error) {
	t.Helper()
	data := make([][]byte, len(rows))
	for i, r := range rows {
		data[i] = r
	}
	result, err := ms.AppendRows(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	return result.FullResponse(t.Context())
}

func mustSend(t *testing.T, ms *managedwriter.ManagedStream, rows ...message) {
	t.Helper()
	if err := send(t, ms, rows...); err != nil {
		t.Fatal(err)
	}
}

// state is id=name of each row of shop.t, in order.
func (b *bundle) state(t *testing.T) string {
	t.Helper()
	var out []string
	for _, row := range b.query(t, "SELECT id, name FROM shop.t ORDER BY id") {
		id, ok := row[0].(int64)
		name, named := row[1].(string)
		if !ok || !named {
			t.Fatalf("unexpected row %v", row)
		}
		out = append(out, strconv.FormatInt(id, 10)+"="+name)
	}
	return strings.Join(out, " ")
}

func (b *bundle) wantState(t *testing.T, want string) {
	t.Helper()
	if diff := cmp.Diff(want, b.state(t)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	table := b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")})
	b.query(t, "INSERT INTO shop.t (id, part, name) VALUES (1, 'x', 'base'), (1, 'y', 'other part'), (2, 'x', 'base')")
	ms := b.changes(t, table)
	mustSend(t, ms, upsert(1, "one", "1/A"), upsert(3, "three", "1/B"), remove(2, "1/C"), remove(9, "1/C"))
	want := [][]gcp.Value{
		{int64(1), "x", "one", `{"of":"one"}`, []gcp.Value{"one", "t"}},
		{int64(1), "y", "other part", nil, []gcp.Value{}},
		{int64(3), "x", "three", `{"of":"three"}`, []gcp.Value{"three", "t"}},
	}
	if diff := cmp.Diff(want, b.query(t, "SELECT * FROM shop.t ORDER BY id, part"), compareValues); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	b.query(t, "INSERT INTO shop.t (id, part, name) VALUES (4, 'x', 'four')") // no mutating statement
	mustSend(t, ms, change(message{}.i(1, 3).s(2, "x"), "UPSERT", "2"))       // the whole row is replaced
	want = [][]gcp.Value{{int64(3), "x", nil, nil, []gcp.Value{}}, {int64(4), "x", "four", nil, []gcp.Value{}}}
	if diff := cmp.Diff(want, b.query(t, "SELECT * FROM shop.t WHERE id > 2 ORDER BY id"), compareValues); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	for _, name := range []string{parent(table) + "/_default", parent(table) + "/streams/_default"} {
		got, err := b.writer.GetWriteStream(t.Context(), &storagepb.GetWriteStreamRequest{Name: name, View: storagepb.WriteStreamView_FULL})
		if err != nil || got.GetType() != storagepb.WriteStream_COMMITTED || len(got.GetTableSchema().GetFields()) != len(changedSchema) {
			t.Errorf("GetWriteStream of %s = %v, %v", name, got, err)
		}
	}
	meta, err := table.Metadata(t.Context())
	if err != nil || len(meta.Schema) != len(changedSchema) {
		t.Errorf("the pseudocolumns became columns: %v, %v", meta, err)
	}
}

// TestSequenceNumbers: sections are compared one by one as unsigned numbers.
func TestSequenceNumbers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ first, second, want string }{
		{"77", "7B", "1=second"},
		{"7b", "77", "1=first"},
		{"FFF/B", "FFF/ABC", "1=second"},
		{"BA/FFFFFFFF", "ABC", "1=second"},
		{"FFF/ABC", "ABC", "1=first"},
		{"9", "10", "1=second"},
		{"a", "0B", "1=second"},
		{"1/2/3/FFFFFFFFFFFFFFFF", "1/2/4", "1=second"},
		{"0/0/0/1", "0", "1=first"},
		{"5/5", "5/5", "1=second"},
		{"5", "5/0", "1=second"},
	} {
		t.Run(c.first+" "+c.second, func(t *testing.T) {
			t.Parallel()
			b := start(t, november)
			ms := b.changes(t, b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")}))
			mustSend(t, ms, upsert(1, "first", c.first))
			mustSend(t, ms, upsert(1, "second", c.second))
			b.wantState(t, c.want)
			ms = b.changes(t, b.table(t, b.dataset(t, "again"), "t", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")}))
			mustSend(t, ms, upsert(1, "first", c.first))
			if got := b.query(t, "SELECT name FROM again.t"); got[0][0] != "first" { // applied apart from the second
				t.Fatalf("rows %v", got)
			}
			mustSend(t, ms, upsert(1, "second", c.second))
			if got := b.query(t, "SELECT CONCAT('1=', name) FROM again.t"); got[0][0] != c.want {
				t.Errorf("applied one by one, rows %v, want %s", got, c.want)
			}
		})
	}
}

// TestOrderOfChanges: without sequence numbers the later request wins, and of
// one request the first row of a key.
func TestOrderOfChanges(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	table := b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")})
	ms := b.changes(t, table)
	mustSend(t, ms, upsert(1, "a", ""), upsert(2, "b", ""))
	mustSend(t, ms, remove(2, ""), upsert(1, "c", ""), upsert(1, "d", ""))
	b.wantState(t, "1=c")
	mustSend(t, ms, upsert(2, "e", ""))
	b.wantState(t, "1=c 2=e")
	if got := status.Code(send(t, ms, upsert(1, "f", "1"))); got != codes.Unimplemented {
		t.Errorf("a sequence number after none answers %v", got)
	}
	if got := status.Code(send(t, b.changes(t, table), upsert(1, "f", "1"), upsert(1, "g", ""))); got != codes.Unimplemented {
		t.Errorf("rows with and without a sequence number answer %v", got)
	}
	b.wantState(t, "1=c 2=e")
}

// TestTombstones: a DELETE keeps older changes of its key out for two days.
func TestTombstones(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now})
	ms := b.changes(t, b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")}))
	mustSend(t, ms, remove(1, "5"))
	mustSend(t, ms, upsert(1, "old", "4"), upsert(2, "new", "4"))
	b.wantState(t, "2=new")
	c.advance(47 * time.Hour)
	mustSend(t, ms, upsert(1, "older", "3"))
	b.wantState(t, "2=new")
	mustSend(t, ms, upsert(1, "newer", "6"))
	b.wantState(t, "1=newer 2=new")
	mustSend(t, ms, remove(1, "7"))
	b.wantState(t, "2=new")
	c.advance(49 * time.Hour)
	mustSend(t, ms, upsert(1, "revived", "6"))
	b.wantState(t, "1=revived 2=new")
	mustSend(t, ms, upsert(2, "stays", "3")) // what a row stands at is never forgotten
	b.wantState(t, "1=revived 2=new")
}

func TestRefusedChanges(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	ds := b.dataset(t, "shop")
	table := b.table(t, ds, "t", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")})
	str, i64 := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT64
	refused := func(what string, err error) {
		t.Helper()
		if got := status.Code(err); got != codes.InvalidArgument {
			t.Errorf("%s answers %v", what, err)
		}
	}
	keyless := b.table(t, ds, "keyless", &gcp.TableMetadata{Schema: changedSchema})
	refused("a table without a key", send(t, b.changes(t, keyless), upsert(1, "a", "1")))
	refused("an unknown type", send(t, b.changes(t, table), change(message{}.i(1, 1).s(2, "x"), "UPDATE", "1")))
	refused("a type in lower case", send(t, b.changes(t, table), change(message{}.i(1, 1).s(2, "x"), "upsert", "1")))
	refused("UPSERT and no type", send(t, b.changes(t, table), upsert(1, "a", "1"), message{}.i(1, 2).s(2, "x")))
	ms := b.changes(t, table)
	mustSend(t, ms, change(message{}.i(1, 5).s(2, "x").s(3, "plain"), "INSERT", ""))
	refused("UPSERT after INSERT", send(t, ms, upsert(1, "a", "1")))
	for _, sequence := range []string{"G", "1/", "/1", "1//2", "1/2/3/4/5", "12345678901234567", "0x1", "-1", "1 ", "1-2", " "} {
		resp, err := sendRows(t, b.changes(t, table), upsert(7, "good", "1"), upsert(8, "bad", sequence))
		refused("sequence number "+sequence, err)
		if bad := resp.GetRowErrors(); len(bad) != 1 || bad[0].GetIndex() != 1 {
			t.Errorf("sequence number %q has row errors %v", sequence, bad)
		}
	}
	resp, err := sendRows(t, b.changes(t, table), change(message{}.i(1, 1), "DELETE", "1"))
	if refused("a DELETE without the whole key", err); len(resp.GetRowErrors()) != 1 {
		t.Errorf("row errors %v", resp.GetRowErrors())
	}
	for _, kind := range []managedwriter.StreamType{managedwriter.PendingStream, managedwriter.CommittedStream} {
		explicit, err := b.writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(parent(table)), managedwriter.WithType(kind), managedwriter.WithSchemaDescriptor(changeDescriptor()))
		if err != nil {
			t.Fatal(err)
		}
		refused("UPSERT into a stream "+string(kind), send(t, explicit, upsert(1, "a", "1")))
	}
	numeric, err := b.writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(parent(table)), managedwriter.WithType(managedwriter.DefaultStream),
		managedwriter.WithSchemaDescriptor(descriptor(protoField{name: "id", typ: i64}, protoField{name: "part", typ: str}, protoField{name: "_CHANGE_TYPE", typ: i64})))
	if err != nil {
		t.Fatal(err)
	}
	refused("a numeric type", send(t, numeric, message{}.i(1, 1).s(2, "x").i(3, 1)))
	b.wantState(t, "5=plain")
	for _, name := range []string{"_CHANGE_TYPE", "_change_sequence_number", "_CHANGE_TIMESTAMP", "_CHANGE_TYPE_2"} {
		err := ds.Table("reserved").Create(t.Context(), &gcp.TableMetadata{Schema: gcp.Schema{{Name: name, Type: gcp.StringFieldType}}})
		wantCode(t, err, http.StatusBadRequest, "invalid")
	}
	_, err = b.client.Query("SELECT _CHANGE_TYPE FROM shop.t").Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
}

// TestChangesOfManyColumns: 2,000 are the limit, of tables with changes only.
func TestChangesOfManyColumns(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	ds := b.dataset(t, "shop")
	for n, want := range map[int]codes.Code{2000: codes.OK, 2001: codes.InvalidArgument} {
		schema := changedSchema
		for i := len(schema); i < n; i++ {
			schema = append(schema[:i:i], &gcp.FieldSchema{Name: "c" + strconv.Itoa(i), Type: gcp.IntegerFieldType})
		}
		table := b.table(t, ds, "t"+strconv.Itoa(n), &gcp.TableMetadata{Schema: schema, TableConstraints: keyed("id")})
		if err := send(t, b.changes(t, table), upsert(1, "a", "1")); status.Code(err) != want {
			t.Errorf("%d columns answer %v", n, err)
		}
	}
}

// TestStatementsOverChanges: statements that change rows are refused for good.
func TestStatementsOverChanges(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	table := b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")})
	b.query(t, "DELETE FROM shop.t WHERE id = 1")
	mustSend(t, b.changes(t, table), upsert(1, "a", "1"))
	for _, sql := range []string{
		"DELETE FROM shop.t WHERE id = 1",
		"UPDATE shop.t SET name = 'b' WHERE TRUE",
		"MERGE shop.t t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE",
		"MERGE shop.t t USING (SELECT 2 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, part) VALUES (s.id, 'x')",
	} {
		for _, dry := range []bool{true, false} {
			q := b.client.Query(sql)
			q.DryRun = dry
			job, err := q.Run(t.Context())
			if err == nil && !dry {
				_, err = job.Read(t.Context())
			}
			wantCode(t, err, http.StatusBadRequest, "invalid")
		}
	}
	all := b.server.Statements()
	if got := all[len(all)-1].Err; got != "DELETE/UPDATE/MERGE DMLs are currently not supported over tables that had UPSERT streams." {
		t.Errorf("the message is %q", got)
	}
	_, err := b.client.Query("TRUNCATE TABLE shop.t").Read(t.Context())
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	err = table.Inserter().Put(t.Context(), &gcp.ValuesSaver{Schema: changedSchema, Row: []gcp.Value{3, "x", "c", nil, nil}})
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	_, err = table.Update(t.Context(), gcp.TableMetadataToUpdate{TableConstraints: keyed("id")}, "")
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	b.wantState(t, "1=a")
}

// TestStaleness: a table with a max_staleness shows changes when they are
// applied, which takes as long as the test says, but never longer than that.
func TestStaleness(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now, ApplyDelay: 5 * time.Minute})
	table := b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{
		Schema: changedSchema, TableConstraints: keyed("id", "part"), MaxStaleness: gcp.IntervalValueFromDuration(10 * time.Minute),
	})
	meta, err := table.Metadata(t.Context())
	if err != nil || meta.MaxStaleness.ToDuration() != 10*time.Minute || !cmp.Equal([]string{"id", "part"}, meta.TableConstraints.PrimaryKey.Columns) {
		t.Fatalf("metadata is %+v, %v", meta, err)
	}
	b.table(t, b.client.Dataset("shop"), "view", &gcp.TableMetadata{ViewQuery: "SELECT COUNT(*) AS n FROM shop.t"})
	ms := b.changes(t, table)
	mustSend(t, ms, upsert(1, "a", "1"))
	b.wantState(t, "")
	c.advance(3 * time.Minute)
	mustSend(t, ms, upsert(1, "b", "2"), upsert(2, "b", "2"))
	c.advance(2 * time.Minute)
	b.wantState(t, "1=a")
	c.advance(3 * time.Minute)
	b.wantState(t, "1=b 2=b")
	b.server.SetApplyDelay(time.Hour)
	mustSend(t, ms, remove(1, "3"))
	c.advance(10*time.Minute - time.Microsecond)
	b.wantState(t, "1=b 2=b")
	if got := b.query(t, "SELECT n FROM shop.view"); got[0][0] != int64(2) {
		t.Errorf("the view counts %v", got)
	}
	c.advance(time.Microsecond)
	if got := b.query(t, "SELECT n FROM shop.view"); got[0][0] != int64(1) {
		t.Errorf("the view counts %v", got)
	}
	mustSend(t, ms, remove(2, "4"))
	b.wantState(t, "2=b")
	if err := b.server.ApplyChanges(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wantState(t, "")
	mustSend(t, ms, upsert(3, "c", "5"))
	if _, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{MaxStaleness: &gcp.IntervalValue{}}, ""); err != nil {
		t.Fatal(err)
	}
	b.wantState(t, "3=c")
	_, err = table.Update(t.Context(), gcp.TableMetadataToUpdate{MaxStaleness: &gcp.IntervalValue{Months: 1}}, "")
	wantCode(t, err, http.StatusBadRequest, "invalid")
}

// TestReadingChangesAtRunTime: with no max_staleness every query merges what is
// not applied, which the Storage Read API cannot, and reads the whole table.
func TestReadingChangesAtRunTime(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	table := b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{
		Schema:           gcp.Schema{{Name: "id", Type: gcp.IntegerFieldType}, {Name: "day", Type: gcp.DateFieldType}},
		TableConstraints: keyed("id"), TimePartitioning: &gcp.TimePartitioning{Field: "day", Type: gcp.DayPartitioningType},
	})
	b.query(t, "INSERT INTO shop.t (id, day) VALUES (1, '2026-11-01'), (2, '2026-11-02')")
	str := descriptorpb.FieldDescriptorProto_TYPE_STRING
	ms, err := b.writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(parent(table)), managedwriter.WithType(managedwriter.DefaultStream),
		managedwriter.WithSchemaDescriptor(descriptor(protoField{name: "id", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64}, protoField{name: "day", typ: str}, protoField{name: "_CHANGE_TYPE", typ: str})))
	if err != nil {
		t.Fatal(err)
	}
	const bounded = "SELECT id, day FROM shop.t WHERE day = '2026-11-01'"
	session := func() error {
		_, err := b.reader.CreateReadSession(t.Context(), &storagepb.CreateReadSessionRequest{
			Parent: "projects/" + project, ReadSession: &storagepb.ReadSession{Table: parent(table), DataFormat: storagepb.DataFormat_ARROW},
		})
		return err
	}
	bytes := func() int64 {
		q := b.client.Query(bounded)
		q.DryRun = true
		job, err := q.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return job.LastStatus().Statistics.TotalBytesProcessed
	}
	if err := session(); err != nil || bytes() != 16 {
		t.Errorf("without changes: %v, %d bytes", err, bytes())
	}
	mustSend(t, ms, message{}.i(1, 3).s(2, "2026-11-03").s(3, "UPSERT"))
	if got := status.Code(session()); got != codes.FailedPrecondition {
		t.Errorf("a read session answers %v", got)
	}
	if got := bytes(); got != 48 {
		t.Errorf("a query that merges reads %d bytes, want 48", got)
	}
	if got := b.query(t, "SELECT id FROM shop.t ORDER BY id"); len(got) != 3 { // the result's table is read, not this one
		t.Errorf("rows %v", got)
	}
	if err := b.server.ApplyChanges(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := session(); err != nil || bytes() != 16 {
		t.Errorf("with applied changes: %v, %d bytes", err, bytes())
	}
}

// TestChangesOfAWiderTable: a column is added between changes that no query has seen.
func TestChangesOfAWiderTable(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now, ApplyDelay: time.Hour})
	table := b.table(t, b.dataset(t, "shop"), "t", &gcp.TableMetadata{
		Schema: changedSchema[:4:4], TableConstraints: keyed("id", "part"), MaxStaleness: gcp.IntervalValueFromDuration(time.Hour),
	})
	narrow := changeDescriptor()
	narrow.Field = append(narrow.Field[:4:4], narrow.Field[5:]...)
	ms, err := b.writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(parent(table)), managedwriter.WithType(managedwriter.DefaultStream), managedwriter.WithSchemaDescriptor(narrow))
	if err != nil {
		t.Fatal(err)
	}
	mustSend(t, ms, change(message{}.i(1, 1).s(2, "x").s(3, "a"), "UPSERT", "1"), change(message{}.i(1, 2).s(2, "x").s(3, "a"), "UPSERT", "1"))
	if _, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{Schema: changedSchema}, ""); err != nil {
		t.Fatal(err)
	}
	mustSend(t, ms, change(message{}.i(1, 3).s(2, "x").s(3, "late"), "UPSERT", "1"))
	mustSend(t, b.changes(t, table), upsert(2, "wide", "2"))
	if err := b.server.ApplyChanges(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := [][]gcp.Value{{int64(1), "a", []gcp.Value{}}, {int64(2), "wide", []gcp.Value{"wide", "t"}}, {int64(3), "late", []gcp.Value{}}}
	if diff := cmp.Diff(want, b.query(t, "SELECT id, name, tags FROM shop.t ORDER BY id"), compareValues); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if err := table.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.table(t, b.client.Dataset("shop"), "t", &gcp.TableMetadata{Schema: changedSchema})
	b.query(t, "DELETE FROM shop.t WHERE TRUE") // another table, which had no changes
}

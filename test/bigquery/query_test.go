package bigquery_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

// logTable is a log of versions as Tidemark writes it: partitioned by month,
// with three versions of key 1 and one of key 2.
func logTable(t *testing.T, b *bundle) *gcp.Table {
	t.Helper()
	ds := b.dataset(t, "shop")
	table := b.table(t, ds, "orders_log", &gcp.TableMetadata{
		Schema: gcp.Schema{
			{Name: "id", Type: gcp.IntegerFieldType, Required: true},
			{Name: "name", Type: gcp.StringFieldType},
			{Name: "at", Type: gcp.TimestampFieldType},
			{Name: "_version", Type: gcp.StringFieldType, Required: true},
		},
		TimePartitioning: &gcp.TimePartitioning{Field: "at", Type: gcp.MonthPartitioningType},
		Clustering:       &gcp.Clustering{Fields: []string{"id"}},
		Labels:           map[string]string{"made_by": "tidemark"},
		TableConstraints: &gcp.TableConstraints{PrimaryKey: &gcp.PrimaryKey{Columns: []string{"id"}}},
	})
	str := descriptorpb.FieldDescriptorProto_TYPE_STRING
	ms := b.pending(t, table, descriptor(
		protoField{name: "id", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64}, protoField{name: "name", typ: str},
		protoField{name: "at", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64}, protoField{name: "_version", typ: str},
	))
	row := func(id int64, name string, month time.Month, version string) []byte {
		return message{}.i(1, id).s(2, name).i(3, time.Date(2026, month, 5, 0, 0, 0, 0, time.UTC).UnixMicro()).s(4, version)
	}
	err := appendRows(t, ms, 0, row(1, "a", 9, "0/1"), row(1, "b", 10, "0/2"), row(1, "c", 10, "0/3"), row(2, "d", 11, "0/1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ms.Finalize(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.commit(t, table, ms.StreamName())
	return table
}

var november = bigquery.Options{Now: func() time.Time { return time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC) }}

func TestNewestVersionView(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	log := logTable(t, b)
	view := b.table(t, b.client.Dataset("shop"), "orders", &gcp.TableMetadata{
		ViewQuery: "SELECT * FROM `test-project.shop.orders_log` WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY _version DESC) = 1",
	})
	want := [][]gcp.Value{{int64(1), "c"}, {int64(2), "d"}}
	if diff := cmp.Diff(want, b.query(t, "SELECT id, name FROM `shop.orders` ORDER BY id")); diff != "" {
		t.Error(diff)
	}
	meta, err := view.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.Type != gcp.ViewTable || len(meta.Schema) != 4 || meta.Schema[2].Type != gcp.TimestampFieldType {
		t.Errorf("metadata of the view is %+v", meta)
	}
	// The view follows its table's columns.
	logMeta, err := log.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wider := append(logMeta.Schema[:4:4], &gcp.FieldSchema{Name: "note", Type: gcp.JSONFieldType})
	if _, err := log.Update(t.Context(), gcp.TableMetadataToUpdate{Schema: wider}, logMeta.ETag); err != nil {
		t.Fatal(err)
	}
	wide := [][]gcp.Value{{int64(1), nil}, {int64(2), nil}}
	if diff := cmp.Diff(wide, b.query(t, "SELECT id, note FROM shop.orders ORDER BY id")); diff != "" {
		t.Error(diff)
	}
	if err := log.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = b.client.Query("SELECT id FROM `shop.orders`").Read(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
}

const dedup = "DELETE FROM `test-project.shop.orders_log` old WHERE old.at >= @low AND old.at < @high AND EXISTS (" +
	"SELECT 1 FROM `test-project.shop.orders_log` newer WHERE newer.id = old.id AND newer._version > old._version AND newer.at >= @low AND newer.at < @high)"

// finish waits for a job that must succeed.
func finish(t *testing.T, job *gcp.Job) *gcp.JobStatus {
	t.Helper()
	status, err := job.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := status.Err(); err != nil {
		t.Fatal(err)
	}
	return status
}

func month(m time.Month) []gcp.QueryParameter {
	return []gcp.QueryParameter{
		{Name: "low", Value: time.Date(2026, m, 1, 0, 0, 0, 0, time.UTC)},
		{Name: "high", Value: time.Date(2026, m+1, 1, 0, 0, 0, 0, time.UTC)},
	}
}

func TestDedupWithinPartition(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	logTable(t, b)
	q := b.client.Query(dedup)
	q.Parameters = month(10)
	q.DryRun = true
	dry, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	estimate := dry.LastStatus().Statistics.TotalBytesProcessed
	// The two rows of October: id 8, name 2+1, at 8, _version 2+3 bytes each.
	if estimate != 48 {
		t.Errorf("dry run estimates %d bytes, want 48", estimate)
	}
	q.DryRun = false
	q.JobID = "dedup-1"
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	status := finish(t, job)
	stats, ok := status.Statistics.Details.(*gcp.QueryStatistics)
	if !ok || stats.NumDMLAffectedRows != 1 || stats.DMLStats.DeletedRowCount != 1 || stats.StatementType != "DELETE" {
		t.Errorf("statistics are %+v", status.Statistics.Details)
	}
	want := [][]gcp.Value{{"a"}, {"c"}, {"d"}}
	if diff := cmp.Diff(want, b.query(t, "SELECT name FROM shop.orders_log ORDER BY name")); diff != "" {
		t.Error(diff)
	}
	var ran []bigquery.Statement
	for _, st := range b.server.Statements() {
		if st.JobID == "dedup-1" {
			ran = append(ran, st)
		}
	}
	if len(ran) != 1 || ran[0].RowsAffected != 1 || !cmp.Equal(ran[0].Partitions, []string{"202610"}) {
		t.Errorf("statements of the job are %+v", ran)
	}
	_, err = q.Run(t.Context())
	wantCode(t, err, http.StatusConflict, "duplicate")
}

func TestMaximumBytesBilled(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	logTable(t, b)
	q := b.client.Query("SELECT name FROM shop.orders_log")
	q.MaxBytesBilled = 1
	_, err := q.Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "bytesBilledLimitExceeded")
}

func TestParameters(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	at := time.Date(2026, 11, 20, 8, 0, 0, 123456000, time.UTC)
	got := b.query(
		t, "SELECT @i, @s, @f, @b, @y, @ts, @d, @n, @ai, @as, @empty, @null",
		gcp.QueryParameter{Name: "i", Value: int64(-5)}, gcp.QueryParameter{Name: "s", Value: "it's\n@i"},
		gcp.QueryParameter{Name: "f", Value: 0.1}, gcp.QueryParameter{Name: "b", Value: true}, gcp.QueryParameter{Name: "y", Value: []byte{0, 255}},
		gcp.QueryParameter{Name: "ts", Value: at}, gcp.QueryParameter{Name: "d", Value: civil.Date{Year: 2024, Month: 2, Day: 29}},
		gcp.QueryParameter{Name: "n", Value: rat("1.5")}, gcp.QueryParameter{Name: "ai", Value: []int64{1, 2}},
		gcp.QueryParameter{Name: "as", Value: []string{"x", ""}}, gcp.QueryParameter{Name: "empty", Value: []string{}},
		gcp.QueryParameter{Name: "null", Value: gcp.NullString{}},
	)
	want := [][]gcp.Value{{
		int64(-5), "it's\n@i", 0.1, true,
		[]byte{0, 255},
		at,
		civil.Date{Year: 2024, Month: 2, Day: 29},
		rat("1.5"),
		[]gcp.Value{int64(1), int64(2)},
		[]gcp.Value{"x", ""},
		[]gcp.Value{},
		nil,
	}}
	if diff := cmp.Diff(want, got, compareValues); diff != "" {
		t.Error(diff)
	}
}

func TestHeldJob(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	release := make(chan struct{})
	held := make(chan bigquery.Job, 1)
	b.server.HoldJobs(func(j bigquery.Job) <-chan struct{} {
		held <- j
		return release
	})
	q := b.client.Query("SELECT 1 AS one")
	q.JobID = "slow"
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := job.LastStatus().State; got != gcp.Pending {
		t.Errorf("state at insert is %v, want Pending", got)
	}
	if got := <-held; got.ID != "slow" {
		t.Errorf("held job %+v", got)
	}
	status, err := job.Status(t.Context())
	if err != nil || status.State != gcp.Running {
		t.Errorf("state while held is %v, %v, want Running", status, err)
	}
	close(release)
	it, err := job.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]gcp.Value{{int64(1)}}, rows(t, it)); diff != "" {
		t.Error(diff)
	}
}

func TestCancelledJob(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	b.server.HoldJobs(func(bigquery.Job) <-chan struct{} { return make(chan struct{}) })
	job, err := b.client.Query("SELECT 1 AS one").Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := job.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = job.Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "stopped")
}

func TestFailedJobKeepsItsID(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	b.dataset(t, "shop")
	q := b.client.Query("SELECT * FROM shop.missing")
	q.JobID = "burnt"
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = job.Read(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
	status, err := job.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var e *gcp.Error
	if !errors.As(status.Err(), &e) || e.Reason != "notFound" {
		t.Errorf("the job's error is %v", status.Err())
	}
	_, err = q.Run(t.Context())
	wantCode(t, err, http.StatusConflict, "duplicate")
}

func TestPages(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	job, err := b.client.Query("SELECT n FROM UNNEST(GENERATE_ARRAY(1, 25)) AS n ORDER BY n").Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rest, err := gcp.NewClient(t.Context(), project, b.restOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rest.Close(); err != nil {
			t.Error(err)
		}
	})
	same, err := rest.JobFromIDLocation(t.Context(), job.ID(), "US")
	if err != nil {
		t.Fatal(err)
	}
	it, err := same.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	it.PageInfo().MaxSize = 10
	got := rows(t, it)
	if len(got) != 25 || got[0][0] != int64(1) || got[24][0] != int64(25) || it.TotalRows != 25 {
		t.Errorf("got %d of %d rows: %v", len(got), it.TotalRows, got)
	}
	if calls := b.server.Calls()["jobs.getQueryResults"]; calls != 4 { // one waits, three read
		t.Errorf("%d calls of getQueryResults, want 4", calls)
	}
}

func TestLostAnswerOfQuery(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	logTable(t, b)
	lost := make(chan struct{}, 1)
	lost <- struct{}{}
	b.server.Intercept(func(c bigquery.Call) error {
		if c.Method == "jobs.insert" && c.Phase == bigquery.After {
			select {
			case <-lost:
				return &googleapi.Error{Code: http.StatusTeapot, Message: "the answer is lost"}
			default:
			}
		}
		return nil
	})
	q := b.client.Query("UPDATE shop.orders_log SET name = 'x' WHERE id = 2")
	q.JobID = "once"
	if _, err := q.Run(t.Context()); err == nil {
		t.Fatal("the answer was not lost")
	}
	_, err := q.Run(t.Context())
	wantCode(t, err, http.StatusConflict, "duplicate")
	job, err := b.client.JobFromIDLocation(t.Context(), "once", "US")
	if err != nil {
		t.Fatal(err)
	}
	finish(t, job)
	if diff := cmp.Diff([][]gcp.Value{{"x"}}, b.query(t, "SELECT name FROM shop.orders_log WHERE id = 2")); diff != "" {
		t.Error(diff)
	}
}

func TestClosedServerEndsJobs(t *testing.T) {
	t.Parallel()
	ctx := context.WithoutCancel(t.Context())
	s, err := bigquery.Start(ctx, bigquery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.HoldJobs(func(bigquery.Job) <-chan struct{} { return make(chan struct{}) })
	client, err := gcp.NewClient(ctx, project, restOptions(s)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Query("SELECT 1").Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(client.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestChangedView(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	logTable(t, b)
	view := b.table(t, b.client.Dataset("shop"), "names", &gcp.TableMetadata{ViewQuery: "SELECT name FROM shop.orders_log"})
	if _, err := view.Update(t.Context(), gcp.TableMetadataToUpdate{ViewQuery: "SELECT id, name FROM shop.orders_log WHERE id = 2"}, ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]gcp.Value{{int64(2), "d"}}, b.query(t, "SELECT * FROM shop.names")); diff != "" {
		t.Error(diff)
	}
	_, err := view.Update(t.Context(), gcp.TableMetadataToUpdate{ViewQuery: "SELECT nothing FROM shop.orders_log"}, "")
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	_, err = view.Update(t.Context(), gcp.TableMetadataToUpdate{ViewQuery: "SELECT * FROM shop.names"}, "")
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	b.table(t, b.client.Dataset("shop"), "outer", &gcp.TableMetadata{ViewQuery: "SELECT * FROM shop.names"})
	_, err = view.Update(t.Context(), gcp.TableMetadataToUpdate{ViewQuery: "SELECT * FROM shop.`outer`"}, "")
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	if diff := cmp.Diff([][]gcp.Value{{"d"}}, b.query(t, "SELECT name FROM shop.`outer`")); diff != "" {
		t.Error(diff)
	}
	wantCode(t, b.client.Dataset("shop").Table("bad").Create(t.Context(), &gcp.TableMetadata{ViewQuery: "SELECT x FROM shop.missing"}), http.StatusNotFound, "notFound")
	var refused int
	for _, st := range b.server.Statements() {
		if st.Kind == "CREATE_VIEW" && st.Err != "" {
			refused++
		}
	}
	if refused != 4 {
		t.Errorf("%d refused view definitions are recorded, want 4", refused)
	}
}

func TestLocations(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	ds := b.client.Dataset("eu")
	if err := ds.Create(t.Context(), &gcp.DatasetMetadata{Location: "EU"}); err != nil {
		t.Fatal(err)
	}
	b.table(t, ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	q := b.client.Query("SELECT id FROM eu.t")
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := job.Wait(t.Context()); err != nil || job.Location() != "EU" {
		t.Errorf("the job ran in %s, %v, want EU", job.Location(), err)
	}
	_, err = b.client.JobFromIDLocation(t.Context(), job.ID(), "US")
	wantCode(t, err, http.StatusNotFound, "notFound")
	q.Location = "US"
	_, err = q.Read(t.Context())
	wantCode(t, err, http.StatusNotFound, "notFound")
}

func TestMerge(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	logTable(t, b)
	q := b.client.Query("MERGE shop.orders_log t USING (SELECT 2 AS id, 'new' AS name UNION ALL SELECT 3, 'x') s ON t.id = s.id AND t.at >= '2026-11-01' " +
		"WHEN MATCHED THEN UPDATE SET name = s.name WHEN NOT MATCHED THEN INSERT (id, name, `at`, _version) VALUES (s.id, s.name, '2026-11-09', '0/1')")
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	status := finish(t, job)
	stats, ok := status.Statistics.Details.(*gcp.QueryStatistics)
	if !ok || stats.NumDMLAffectedRows != 2 || stats.DMLStats.UpdatedRowCount != 1 || stats.DMLStats.InsertedRowCount != 1 {
		t.Errorf("statistics are %+v", status.Statistics.Details)
	}
	want := [][]gcp.Value{{int64(2), "new"}, {int64(3), "x"}}
	if diff := cmp.Diff(want, b.query(t, "SELECT id, name FROM shop.orders_log WHERE id > 1 ORDER BY id")); diff != "" {
		t.Error(diff)
	}
}

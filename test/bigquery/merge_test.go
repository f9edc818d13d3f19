package bigquery_test

import (
	"math/big"
	"net/http"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// mergeSchema is a table as a merge fills it: one row of each key.
var mergeSchema = gcp.Schema{
	{Name: "id", Type: gcp.IntegerFieldType, Required: true},
	{Name: "day", Type: gcp.DateFieldType},
	{Name: "tags", Type: gcp.StringFieldType, Repeated: true},
	{Name: "doc", Type: gcp.JSONFieldType},
	{Name: "amount", Type: gcp.BigNumericFieldType},
	{Name: "_version", Type: gcp.StringFieldType, Required: true},
	{Name: "_synced_at", Type: gcp.TimestampFieldType, Required: true},
	{Name: "_deleted", Type: gcp.BooleanFieldType, Required: true},
}

// mergeTables are items, partitioned by month of day, with keys 1 to 5 of which
// 4 has no day, and the hourly staging table.
func mergeTables(t *testing.T, b *bundle) {
	t.Helper()
	ds := b.dataset(t, "shop")
	b.table(t, ds, "items", &gcp.TableMetadata{Schema: mergeSchema, TimePartitioning: &gcp.TimePartitioning{Field: "day", Type: gcp.MonthPartitioningType}})
	b.table(t, ds, "items_staging", &gcp.TableMetadata{Schema: mergeSchema, TimePartitioning: &gcp.TimePartitioning{Field: "_synced_at", Type: gcp.HourPartitioningType}})
	b.query(t, `INSERT INTO shop.items (id, day, tags, doc, amount, _version, _synced_at, _deleted) VALUES
		(1, '2026-09-05', ['a'], JSON '{"n": 1}', 1.5, '1/1', '2026-11-19 00:00:00', FALSE),
		(2, '2026-10-05', ['b', 'c'], JSON '2', 2, '1/1', '2026-11-19 00:00:00', FALSE),
		(3, '2026-11-05', [], NULL, 3, '1/1', '2026-11-19 00:00:00', FALSE),
		(4, NULL, [], NULL, NULL, '1/1', '2026-11-19 00:00:00', FALSE),
		(5, '2026-11-06', [], NULL, NULL, '3/1', '2026-11-19 00:00:00', FALSE)`)
}

const mergeItems = "MERGE `test-project.shop.items` AS t USING (SELECT v.* FROM `test-project.shop.items_staging` AS v" +
	" WHERE v._synced_at >= @since AND v._synced_at < @until QUALIFY ROW_NUMBER() OVER newest = 1 WINDOW newest AS (PARTITION BY v.id ORDER BY v._version DESC)) AS s" +
	" ON t.id = s.id AND (t.day >= @from0 AND t.day < @to0 OR t.day IS NULL)" +
	" WHEN MATCHED AND s._version > t._version AND s._deleted THEN DELETE" +
	" WHEN MATCHED AND s._version > t._version THEN UPDATE SET day = s.day, tags = s.tags, doc = s.doc, amount = s.amount, _version = s._version, _synced_at = s._synced_at, _deleted = s._deleted" +
	" WHEN NOT MATCHED BY TARGET AND NOT s._deleted THEN INSERT (id, day, tags, doc, amount, _version, _synced_at, _deleted)" +
	" VALUES (s.id, s.day, s.tags, s.doc, s.amount, s._version, s._synced_at, s._deleted)"

func mergeParameters() []gcp.QueryParameter {
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	return []gcp.QueryParameter{
		{Name: "since", Value: at},
		{Name: "until", Value: at.Add(time.Hour)},
		{Name: "from0", Value: civil.Date{Year: 2026, Month: 10, Day: 1}},
		{Name: "to0", Value: civil.Date{Year: 2026, Month: 11, Day: 1}},
	}
}

// runMerge answers the statistics of a merge.
func (b *bundle) runMerge(t *testing.T, sql string, params []gcp.QueryParameter) (*gcp.JobStatus, *gcp.QueryStatistics) {
	t.Helper()
	q := b.client.Query(sql)
	q.Parameters = params
	job, err := q.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	status := finish(t, job)
	stats, ok := status.Statistics.Details.(*gcp.QueryStatistics)
	if !ok {
		t.Fatalf("no statistics of a query: %+v", status.Statistics)
	}
	return status, stats
}

// stage puts the versions that mergeItems is to apply, and some of another hour.
func stage(t *testing.T, b *bundle) {
	t.Helper()
	b.query(t, `INSERT INTO shop.items_staging (id, day, tags, doc, amount, _version, _synced_at, _deleted) VALUES
		(2, '2026-10-06', ['x'], JSON '{"a": [1, null]}', BIGNUMERIC '0.00000000000000000000000000000000000001', '2/1', '2026-11-20 08:00:00', FALSE),
		(2, '2026-10-07', ['old'], NULL, NULL, '1/9', '2026-11-20 08:00:00', FALSE),
		(4, '2026-12-01', ['moved'], NULL, 9, '2/1', '2026-11-20 08:30:00', FALSE),
		(6, '2026-08-01', ['new'], JSON '"text"', 6, '2/1', '2026-11-20 08:59:59', FALSE),
		(7, NULL, [], NULL, NULL, '2/1', '2026-11-20 08:00:00', TRUE),
		(1, NULL, [], NULL, NULL, '9/9', '2026-11-20 07:59:59', TRUE)`)
}

func TestMergeOfStagedVersions(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	mergeTables(t, b)
	stage(t, b)
	_, stats := b.runMerge(t, mergeItems, mergeParameters())
	if stats.StatementType != "MERGE" || stats.NumDMLAffectedRows != 3 || stats.DMLStats == nil ||
		stats.DMLStats.UpdatedRowCount != 2 || stats.DMLStats.InsertedRowCount != 1 || stats.DMLStats.DeletedRowCount != 0 {
		t.Errorf("statistics are %+v of %+v", stats.DMLStats, stats)
	}
	want := [][]gcp.Value{
		{int64(1), "2026-09-05", []gcp.Value{"a"}, `{"n":1}`, big.NewRat(3, 2), "1/1"},
		{int64(2), "2026-10-06", []gcp.Value{"x"}, `{"a":[1,null]}`, rat("0.00000000000000000000000000000000000001"), "2/1"},
		{int64(3), "2026-11-05", []gcp.Value{}, nil, big.NewRat(3, 1), "1/1"},
		{int64(4), "2026-12-01", []gcp.Value{"moved"}, nil, big.NewRat(9, 1), "2/1"},
		{int64(5), "2026-11-06", []gcp.Value{}, nil, nil, "3/1"},
		{int64(6), "2026-08-01", []gcp.Value{"new"}, `"text"`, big.NewRat(6, 1), "2/1"},
	}
	got := b.query(t, "SELECT id, CAST(day AS STRING), tags, TO_JSON_STRING(doc), amount, _version FROM shop.items ORDER BY id")
	for _, row := range got {
		if row[3] == "null" {
			row[3] = nil
		}
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *big.Rat) bool { return a.Cmp(b) == 0 }), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	// What left a partition touched it as much as what came to one.
	all := b.server.Statements()
	if diff := cmp.Diff([]string{"202608", "202610", "202612", "__NULL__"}, all[len(all)-2].Partitions); diff != "" {
		t.Errorf("partitions touched (-want +got):\n%s", diff)
	}
	if _, stats = b.runMerge(t, mergeItems, append(mergeParameters()[:2],
		gcp.QueryParameter{Name: "from0", Value: civil.Date{Year: 2026, Month: 8, Day: 1}}, gcp.QueryParameter{Name: "to0", Value: civil.Date{Year: 2027, Month: 1, Day: 1}})); stats.NumDMLAffectedRows != 0 {
		t.Errorf("done again, it changed %d rows", stats.NumDMLAffectedRows)
	}
}

// TestMergeOfDeletes: a version that deletes takes the row away, an older one does not.
func TestMergeOfDeletes(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	mergeTables(t, b)
	b.query(t, `INSERT INTO shop.items_staging (id, _version, _synced_at, _deleted) VALUES
		(2, '2/1', '2026-11-20 08:00:00', TRUE), (4, '0/1', '2026-11-20 08:00:00', TRUE), (8, '2/1', '2026-11-20 08:00:00', TRUE)`)
	_, stats := b.runMerge(t, mergeItems, mergeParameters())
	if stats.NumDMLAffectedRows != 1 || stats.DMLStats.DeletedRowCount != 1 {
		t.Errorf("statistics are %+v", stats.DMLStats)
	}
	want := [][]gcp.Value{{int64(1)}, {int64(3)}, {int64(4)}, {int64(5)}}
	if diff := cmp.Diff(want, b.query(t, "SELECT id FROM shop.items ORDER BY id")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// TestMergeOfTwoVersions: it fails as a whole where a row would be changed twice.
func TestMergeOfTwoVersions(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	mergeTables(t, b)
	for _, action := range []string{"UPDATE SET amount = s.amount", "DELETE"} {
		_, err := b.client.Query("MERGE shop.items t USING (SELECT 2 AS id, 5 AS amount UNION ALL SELECT 2, 6 UNION ALL SELECT 9, 9) s ON t.id = s.id WHEN MATCHED THEN " + action +
			" WHEN NOT MATCHED THEN INSERT (id, _version, _synced_at, _deleted) VALUES (s.id, '', '2026-11-20 08:00:00', FALSE)").Read(t.Context())
		wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	}
	all := b.server.Statements()
	if got := all[len(all)-1].Err; got != "UPDATE/MERGE must match at most one source row for each target row" {
		t.Errorf("the error is %q", got)
	}
	if got := b.query(t, "SELECT COUNTIF(amount = 2), COUNT(*) FROM shop.items"); got[0][0] != int64(1) || got[0][1] != int64(5) {
		t.Errorf("the refused statements changed the table: %v", got)
	}
}

// TestMergeBySource: rows that the source lacks are changed or deleted.
func TestMergeBySource(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	mergeTables(t, b)
	_, stats := b.runMerge(t, "MERGE shop.items t USING (SELECT 2 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET amount = 20"+
		" WHEN NOT MATCHED BY SOURCE AND t.day >= '2026-11-01' THEN DELETE WHEN NOT MATCHED BY SOURCE AND t.day IS NULL THEN UPDATE SET _deleted = TRUE", nil)
	if got := stats.DMLStats; got.DeletedRowCount != 2 || got.UpdatedRowCount != 2 {
		t.Errorf("statistics are %+v", got)
	}
	want := [][]gcp.Value{{int64(1), false}, {int64(2), false}, {int64(4), true}}
	if diff := cmp.Diff(want, b.query(t, "SELECT id, _deleted FROM shop.items ORDER BY id")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	b.query(t, "MERGE shop.items t USING (SELECT 9 AS id) s ON FALSE WHEN NOT MATCHED THEN INSERT (id, _version, _synced_at, _deleted) VALUES (id, '', CURRENT_TIMESTAMP(), FALSE) WHEN NOT MATCHED BY SOURCE THEN DELETE")
	if diff := cmp.Diff([][]gcp.Value{{int64(9)}}, b.query(t, "SELECT id FROM shop.items")); diff != "" {
		t.Errorf("replaced rows (-want +got):\n%s", diff)
	}
}

// TestMergeIsPruned: the estimate is the source's columns and all of each
// partition of the target that the conditions let it touch.
func TestMergeIsPruned(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	ds := b.dataset(t, "shop")
	schema := gcp.Schema{{Name: "id", Type: gcp.IntegerFieldType}, {Name: "day", Type: gcp.DateFieldType}, {Name: "n", Type: gcp.IntegerFieldType}}
	monthly := &gcp.TimePartitioning{Field: "day", Type: gcp.MonthPartitioningType}
	b.table(t, ds, "t", &gcp.TableMetadata{Schema: schema, TimePartitioning: monthly})
	b.table(t, ds, "s", &gcp.TableMetadata{Schema: schema, TimePartitioning: monthly})
	// A row of t is 24 bytes in a month and 16 without one: months 1 to 4 have
	// 1, 2, 4 and 8 rows, and 16 have none. s has 1 in January, 2 in May.
	b.query(t, `INSERT INTO shop.t (id, day, n) SELECT i, IF(i < 16, DATE_ADD('2026-01-01', INTERVAL CAST(FLOOR(LOG(i, 2)) AS INT64) MONTH), NULL), i FROM UNNEST(GENERATE_ARRAY(1, 31)) AS i`)
	b.query(t, "INSERT INTO shop.s (id, day, n) VALUES (1, '2026-01-01', 1), (2, '2026-05-01', 1), (3, '2026-05-01', 1)")
	const january, february, march, april, null, every = 24, 48, 96, 192, 16 * 16, 24*15 + 16*16
	const source = 3 * 24
	params := []gcp.QueryParameter{{Name: "from", Value: civil.Date{Year: 2026, Month: 2, Day: 1}}, {Name: "to", Value: civil.Date{Year: 2026, Month: 3, Day: 1}}}
	const update, insert, remove = " THEN UPDATE SET n = 0", " WHEN NOT MATCHED THEN INSERT (id, day, n) VALUES (s.id, s.day, s.n)", " THEN DELETE"
	for _, c := range []struct {
		sql  string
		want int64
	}{
		{"ON t.id = s.id AND (t.day >= @from AND t.day < @to OR t.day IS NULL) WHEN MATCHED" + update, source + february + null},
		{"ON t.id = s.id AND (t.day >= @from AND t.day < @to OR t.day IS NULL) WHEN MATCHED" + update + insert, source + february + null},
		{"ON t.id = s.id AND (t.day >= @from AND t.day < @to OR t.day >= '2026-04-01' AND t.day < '2026-05-01') WHEN MATCHED" + remove + insert, source + february + april},
		{"ON t.id = s.id AND (t.day >= @from AND t.day < @to OR t.n = 1) WHEN MATCHED" + update + insert, source + every},
		{"ON t.id = s.id AND t.day = s.day AND s.day >= @from WHEN MATCHED" + update + insert, source + every},
		{"ON t.id = s.id AND t.day IN ('2026-01-01', '2026-03-01') WHEN MATCHED" + update + insert, source + january + march},
		{"ON t.id = s.id WHEN MATCHED AND t.day = '2026-01-01'" + update + " WHEN MATCHED AND t.day = '2026-02-01'" + remove, source + january + february},
		{"ON t.id = s.id WHEN MATCHED AND t.day = '2026-01-01'" + update + insert, source + every},
		{"ON t.id = s.id AND t.day < @from WHEN MATCHED" + update + " WHEN NOT MATCHED BY SOURCE" + remove, source + every},
		{"ON t.id = s.id WHEN MATCHED AND t.day < @from" + update + " WHEN NOT MATCHED BY SOURCE AND t.day = '2026-03-01'" + remove, source + january + march},
		{"ON t.id = s.id WHEN MATCHED AND t.day < @from" + update + insert + " WHEN NOT MATCHED BY SOURCE AND t.day = '2026-03-01'" + remove, source + every},
		{"ON FALSE WHEN NOT MATCHED BY SOURCE AND t.day >= @from AND t.day < @to" + remove + insert, source + february},
		{"ON t.id = s.id AND t.day >= @from AND t.day < @to" + insert, source + february},
		{"ON t.id = s.id" + insert, source + every},
	} {
		q := b.client.Query("MERGE shop.t AS t USING (SELECT * FROM shop.s) AS s " + c.sql)
		q.Parameters, q.DryRun = params, true
		job, err := q.Run(t.Context())
		if err != nil {
			t.Errorf("dry run of %s: %v", c.sql, err)
			continue
		}
		if got := job.LastStatus().Statistics.TotalBytesProcessed; got != c.want {
			t.Errorf("%s estimates %d bytes, want %d", c.sql, got, c.want)
		}
	}
	// A source that is a table by itself is pruned with the join alone.
	for sql, want := range map[string]int64{
		"ON t.id = s.id AND t.day = '2026-01-01' AND s.day = '2026-01-01' WHEN MATCHED" + update:          january + 24,
		"ON t.id = s.id AND t.day = '2026-01-01' AND s.day = '2026-01-01' WHEN MATCHED" + update + insert: january + source,
		"ON FALSE WHEN NOT MATCHED AND s.day = '2026-01-01' THEN INSERT (id, day, n) VALUES (s.id, s.day, s.n)" +
			" WHEN NOT MATCHED BY SOURCE AND t.day = '2026-01-01'" + remove: january + 24,
	} {
		q := b.client.Query("MERGE shop.t AS t USING shop.s AS s " + sql)
		q.DryRun = true
		job, err := q.Run(t.Context())
		if err != nil {
			t.Errorf("dry run of %s: %v", sql, err)
			continue
		}
		if got := job.LastStatus().Statistics.TotalBytesProcessed; got != want {
			t.Errorf("%s estimates %d bytes, want %d", sql, got, want)
		}
	}
	if got := b.query(t, "SELECT COUNT(*) FROM shop.t"); got[0][0] != int64(31) {
		t.Errorf("dry runs changed the table: %v rows", got)
	}
}

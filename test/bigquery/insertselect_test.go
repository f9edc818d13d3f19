package bigquery_test

import (
	"net/http"
	"testing"

	gcp "cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"
)

// sweepable is a log with an ARRAY column and a tombstone.
func sweepable(t *testing.T, b *bundle) *gcp.Table {
	t.Helper()
	table := b.table(t, b.dataset(t, "shop"), "items_log", &gcp.TableMetadata{
		Schema: gcp.Schema{
			{Name: "id", Type: gcp.IntegerFieldType, Required: true},
			{Name: "tags", Type: gcp.StringFieldType, Repeated: true},
			{Name: "day", Type: gcp.DateFieldType},
			{Name: "_version", Type: gcp.StringFieldType, Required: true},
			{Name: "_deleted", Type: gcp.BooleanFieldType, Required: true},
		},
		TimePartitioning: &gcp.TimePartitioning{Field: "day", Type: gcp.MonthPartitioningType},
	})
	b.query(t, "INSERT INTO shop.items_log (id, tags, day, _version, _deleted) VALUES (1, ['a'], '2026-10-05', '1/1', FALSE), (1, ['b'], '2026-10-06', '1/2', FALSE),"+
		" (2, ['c'], '2026-11-05', '1/1', FALSE), (3, ['d'], '2026-11-05', '1/1', FALSE)")
	b.query(t, "INSERT INTO shop.items_log (id, _version, _deleted) VALUES (3, '1/3', TRUE)")
	return table
}

const sweep = "INSERT INTO shop.items_log (id, _version, _deleted) SELECT v.id, @version, TRUE FROM shop.items_log AS v WHERE TRUE GROUP BY v.id" +
	" HAVING MAX(v._version) < @version AND NOT ANY_VALUE(v._deleted HAVING MAX v._version)"

// TestInsertOfAQuery: the statement reads the table as it was when it began, its
// rows are counted and not streamed, and a column left out is NULL, an ARRAY empty.
func TestInsertOfAQuery(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	table := sweepable(t, b)
	insert := func(sql string) (*gcp.QueryStatistics, []string) {
		t.Helper()
		q := b.client.Query(sql)
		q.Parameters = []gcp.QueryParameter{{Name: "version", Value: "2/1"}}
		job, err := q.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		details, ok := finish(t, job).Statistics.Details.(*gcp.QueryStatistics)
		if !ok {
			t.Fatal("no statistics of a query")
		}
		all := b.server.Statements()
		return details, all[len(all)-1].Partitions
	}
	for _, want := range []int64{2, 0} { // done again, it finds its own rows
		got, partitions := insert(sweep)
		if got.StatementType != "INSERT" || got.NumDMLAffectedRows != want || got.DMLStats == nil || got.DMLStats.InsertedRowCount != want || got.DMLStats.DeletedRowCount != 0 {
			t.Errorf("statistics %+v of %+v, want %d inserted rows", got.DMLStats, got, want)
		}
		if want > 0 && !cmp.Equal([]string{"__NULL__"}, partitions) {
			t.Errorf("rows went to %q", partitions)
		}
	}
	want := [][]gcp.Value{
		{int64(1), int64(0), false, nil, "2/1", true}, {int64(2), int64(0), false, nil, "2/1", true},
	}
	if diff := cmp.Diff(want, b.query(t, "SELECT id, ARRAY_LENGTH(tags), tags IS NULL, day, _version, _deleted FROM shop.items_log WHERE _version = '2/1' ORDER BY id")); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	twice, _ := insert("INSERT INTO shop.items_log (id, tags, day, _version, _deleted) SELECT id, tags, day, @version, _deleted FROM shop.items_log")
	if twice.DMLStats.InsertedRowCount != 7 {
		t.Errorf("it read %d rows, some of them its own", twice.DMLStats.InsertedRowCount)
	}
	meta, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.NumRows != 14 || meta.StreamingBuffer != nil {
		t.Errorf("%d rows, streaming buffer %+v", meta.NumRows, meta.StreamingBuffer)
	}
	b.query(t, "DELETE FROM shop.items_log WHERE _version = '2/1'")
	if got := b.query(t, "SELECT COUNT(*) FROM shop.items_log"); got[0][0] != int64(5) {
		t.Errorf("%v rows are left, want 5", got[0][0])
	}
}

// TestRefusedInsertOfAQuery: nothing of it is stored.
func TestRefusedInsertOfAQuery(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	sweepable(t, b)
	for _, sql := range []string{
		"INSERT INTO shop.items_log (id, _version, _deleted) SELECT id, _version FROM shop.items_log",
		"INSERT INTO shop.items_log (id, _version, _deleted) SELECT id, _version, 'yes' FROM shop.items_log",
		"INSERT INTO shop.items_log (id, _version, _deleted) SELECT id, _deleted, _version FROM shop.items_log",
		"INSERT INTO shop.items_log (id, _version) SELECT id, _version FROM shop.items_log",                                         // _deleted is required
		"INSERT INTO shop.items_log (id, _version, _deleted) SELECT IF(_deleted, NULL, id), _version, _deleted FROM shop.items_log", // so is id
		"INSERT INTO shop.items_log (id, id, _version, _deleted) SELECT id, id, _version, _deleted FROM shop.items_log",
		"INSERT INTO shop.items_log (id, _version, _deleted) SELECT v.id, w.x, TRUE FROM shop.items_log AS v",
	} {
		_, err := b.client.Query(sql).Read(t.Context())
		if err == nil {
			t.Errorf("%s is accepted", sql)
			continue
		}
		wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	}
	if got := b.query(t, "SELECT COUNT(*) FROM shop.items_log"); got[0][0] != int64(5) {
		t.Errorf("there are %v rows, want 5", got[0][0])
	}
	b.query(t, "CREATE VIEW shop.items AS SELECT id FROM shop.items_log")
	_, err := b.client.Query("INSERT INTO shop.items (id) SELECT id FROM shop.items_log").Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
}

// TestInsertOfAQueryIsEstimated: it reads the columns it names, and its target as a
// source only where it is one.
func TestInsertOfAQueryIsEstimated(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	sweepable(t, b)
	for sql, want := range map[string]int64{
		"INSERT INTO shop.items_log (id, _version, _deleted) SELECT id, _version, TRUE FROM shop.items_log":                          5 * (8 + 5 + 1),
		"INSERT INTO shop.items_log (id, _version, _deleted) SELECT id, _version, TRUE FROM shop.items_log WHERE day > '2026-11-01'": 2 * (8 + 5 + 1 + 8),
		"INSERT INTO shop.items_log (id, _version, _deleted) VALUES (1, '9/9', TRUE)":                                                0,
	} {
		q := b.client.Query(sql)
		q.DryRun = true
		job, err := q.Run(t.Context())
		if err != nil {
			t.Errorf("dry run of %s: %v", sql, err)
			continue
		}
		if got := job.LastStatus().Statistics.TotalBytesProcessed; got != want {
			t.Errorf("dry run of %s estimates %d bytes, want %d", sql, got, want)
		}
	}
}

// TestInsertIntoATableThatNeedsAFilter: only what it reads needs one.
func TestInsertIntoATableThatNeedsAFilter(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	b.table(t, b.dataset(t, "shop"), "days", &gcp.TableMetadata{
		Schema:                 gcp.Schema{{Name: "day", Type: gcp.DateFieldType}},
		TimePartitioning:       &gcp.TimePartitioning{Field: "day", Type: gcp.DayPartitioningType},
		RequirePartitionFilter: true,
	})
	b.query(t, "INSERT INTO shop.days (day) VALUES ('2026-11-20')")
	b.query(t, "INSERT INTO shop.days (day) SELECT DATE '2026-11-20'")
	b.query(t, "INSERT INTO shop.days (day) SELECT day FROM shop.days WHERE day = '2026-11-20'")
	_, err := b.client.Query("INSERT INTO shop.days (day) SELECT day FROM shop.days").Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	if got := b.query(t, "SELECT COUNT(*) FROM shop.days WHERE day > '2026-01-01'"); got[0][0] != int64(4) {
		t.Errorf("there are %v rows, want 4", got[0][0])
	}
}

// TestWindowsOfAView: values from one version of a key, metadata from another, by
// two windows, one of them named; in a view and beside QUALIFY.
func TestWindowsOfAView(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	sweepable(t, b)
	b.query(t, "CREATE VIEW shop.items AS SELECT v.id, v.tags, FIRST_VALUE(v._version) OVER newest AS _version, FIRST_VALUE(v._deleted) OVER newest AS _deleted FROM shop.items_log AS v WHERE TRUE"+
		" QUALIFY ROW_NUMBER() OVER (PARTITION BY v.id ORDER BY v._deleted, v._version DESC) = 1 WINDOW newest AS (PARTITION BY v.id ORDER BY v._version DESC)")
	want := [][]gcp.Value{
		{int64(1), []gcp.Value{"b"}, "1/2", false}, {int64(2), []gcp.Value{"c"}, "1/1", false}, {int64(3), []gcp.Value{"d"}, "1/3", true},
	}
	if diff := cmp.Diff(want, b.query(t, "SELECT * FROM shop.items ORDER BY id")); diff != "" {
		t.Errorf("view (-want +got):\n%s", diff)
	}
	for _, sql := range []string{
		"SELECT FIRST_VALUE(id) OVER missing FROM shop.items_log",
		"SELECT FIRST_VALUE(id) FROM shop.items_log",
		"SELECT FIRST_VALUE(id) OVER w FROM shop.items_log WINDOW w AS (PARTITION BY tags)",
		"SELECT id FROM shop.items_log WINDOW w AS (ORDER BY id) QUALIFY ROW_NUMBER() OVER w = 1", // the order of clauses
	} {
		_, err := b.client.Query(sql).Read(t.Context())
		if err == nil {
			t.Errorf("%s is accepted", sql)
			continue
		}
		wantCode(t, err, http.StatusBadRequest, "invalidQuery")
	}
}

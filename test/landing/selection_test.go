package landing_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// quay is a shore whose clock a test sets ahead, with a dataset that reverse syncs read.
type quay struct {
	*shore
	ahead atomic.Int64 // of the machine's clock, in nanoseconds
}

func newQuay(t *testing.T, provoked ...string) *quay {
	t.Helper()
	q := &quay{}
	server, err := emulator.Start(t.Context(), emulator.Options{Now: func() time.Time { return time.Now().Add(time.Duration(q.ahead.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	q.shore = newShoreOn(t, server, provoked...)
	if err := q.look.Dataset(dataset).Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return q
}

// pass sets the clock ahead.
func (q *quay) pass(d time.Duration) { q.ahead.Add(int64(d)) }

// now is the emulator's clock.
func (q *quay) now() time.Time { return time.Now().Add(time.Duration(q.ahead.Load())) }

// do runs a statement.
func (q *quay) do(t fatal, sql string) {
	t.Helper()
	job, err := q.look.Query(sql).Run(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	status, err := job.Wait(t.Context())
	if err == nil {
		err = status.Err()
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// taken is a row as a selection gives it: the texts of its columns.
type taken struct {
	Columns     []string
	fingerprint int64
	removed     bool
}

// rows reads a result, its fingerprints apart.
func (q *quay) rows(t fatal, r *warehouse.Result) []taken {
	t.Helper()
	var out []taken
	err := r.Each(t.Context(), func(record arrow.Record) error {
		for i := range int(record.NumRows()) {
			var row taken
			for n, column := range record.Columns() {
				keys, _ := column.(*array.Int64)
				flags, _ := column.(*array.Boolean)
				switch name := record.ColumnName(n); {
				case name == warehouse.KeyColumn && keys != nil:
					row.fingerprint = keys.Value(i)
				case name == warehouse.RemovedColumn && flags != nil:
					row.removed = flags.Value(i)
				default:
					text := "NULL"
					if !column.IsNull(i) {
						text = column.ValueStr(i)
					}
					row.Columns = append(row.Columns, text)
				}
			}
			if row.fingerprint == 0 {
				return fmt.Errorf("row %q has no fingerprint", row.Columns)
			}
			out = append(out, row)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("reading the rows: %v", err)
	}
	slices.SortFunc(out, func(a, b taken) int { return slices.Compare(a.Columns, b.Columns) })
	return out
}

// texts are rows, each on a line of its own.
func texts(rows []taken) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		out[i] = strings.Join(row.Columns, " ")
		if row.removed {
			out[i] += " removed"
		}
	}
	return out
}

// take selects and reads, so long after whatever was before that no quota is met.
func (q *quay) take(t fatal, source warehouse.Source, take warehouse.Take) (*warehouse.Result, []taken) {
	t.Helper()
	q.pass(10 * time.Second)
	r, err := q.client.Select(t.Context(), source, take)
	if err != nil {
		t.Fatalf("selecting: %v", err)
	}
	return r, q.rows(t, r)
}

// sees fails unless a selection has the given rows.
func sees(t fatal, what string, want []string, got []taken) {
	t.Helper()
	if diff := gocmp.Diff(want, texts(got)); diff != "" && len(want)+len(got) > 0 {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func TestSelectionOfAQueryAsPeopleWriteIt(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.scores AS SELECT 1 AS id, 'a;b' AS name, 1.5 AS score UNION ALL SELECT 2, NULL, NULL")
	for name, sql := range map[string]string{
		"plain":                        "SELECT id, name, score FROM scores",
		"a semicolon":                  "SELECT id, name, score FROM scores;",
		"a comment at its end":         "SELECT id, name, score FROM scores -- all of them",
		"a comment after a semicolon":  "SELECT id, name, score FROM scores ; -- all; of them\n/* and; */ # no more;",
		"semicolons that are none":     "SELECT id, IF(name = 'a;b', r'a;b', NULL) AS name, score /* ; */ FROM `scores` WHERE \"\"\";'\"\"\" != '\\';'",
		"WITH":                         "WITH x AS (SELECT * FROM scores)\nSELECT * FROM x ORDER BY id LIMIT 10",
		"names in another case, twice": "SELECT ID, Name, SCORE FROM scores UNION ALL SELECT 3, 'c', 1 FROM UNNEST([1]) WHERE FALSE",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := warehouse.Source{Dataset: dataset, Query: sql, Key: []string{"id"}, Columns: []string{"score", "NAME", "Id"}}
			d, err := q.client.Describe(t.Context(), source)
			if err != nil || len(d.Columns) != 3 || d.Bytes == 0 {
				t.Fatalf("it is described as %+v: %v", d, err)
			}
			r, rows := q.take(t, source, warehouse.Take{})
			sees(t, "rows", []string{"1 1.5 a;b", "2 NULL NULL"}, rows)
			if !r.Whole || r.Next() != nil || r.Job == "" {
				t.Errorf("whole %t, next %s, job %q", r.Whole, r.Next(), r.Job)
			}
			only, again := q.take(t, source, warehouse.Take{Rejected: []int64{rows[1].fingerprint}, Only: true})
			sees(t, "the rows to read again", []string{"2 NULL NULL"}, again)
			if only.Whole {
				t.Error("some rows are said to be all")
			}
			if again[0].fingerprint != rows[1].fingerprint {
				t.Error("a row has another fingerprint when it is read again")
			}
		})
	}
}

func TestSelectionOfATable(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.scores AS SELECT 1 AS id, 'a' AS name")
	for _, from := range []string{"scores", "shop.scores", project + ".shop.scores"} {
		source := warehouse.Source{Dataset: dataset, From: from, Key: []string{"id"}, Columns: []string{"name"}}
		_, rows := q.take(t, source, warehouse.Take{})
		sees(t, from, []string{"1 a"}, rows)
	}
}

// TestMistakesInASource are told before anything is paid for, in the words and by the
// lines of who wrote it.
func TestMistakesInASource(t *testing.T) {
	t.Parallel()
	q := newQuay(t, "Unrecognized name", "Syntax error", "Not found")
	q.do(t, "CREATE TABLE shop.scores AS SELECT 1 AS id, 'a' AS name, 1.5 AS score, [1] AS list, CURRENT_DATE() AS day")
	for name, c := range map[string]struct {
		source warehouse.Source
		says   string // in the error or its remedy
	}{
		"its line":           {warehouse.Source{Query: "SELECT id,\n  nam FROM scores"}, "[2:3]"},
		"no SELECT":          {warehouse.Source{Query: "CREATE TABLE shop.x AS SELECT 1 AS id"}, "one SELECT"},
		"two statements":     {warehouse.Source{Query: "SELECT id FROM scores; SELECT 2"}, "one SELECT"},
		"no such table":      {warehouse.Source{From: "scors"}, "scors"},
		"a list for a key":   {warehouse.Source{From: "scores", Key: []string{"list"}}, "list"},
		"no such cursor":     {warehouse.Source{From: "scores", Changes: warehouse.ChangesCursor, Cursor: "updated"}, "updated"},
		"a cursor of text":   {warehouse.Source{From: "scores", Changes: warehouse.ChangesCursor, Cursor: "name"}, "INT64"},
		"a ledger by floats": {warehouse.Source{From: "scores", Key: []string{"score"}, Changes: warehouse.ChangesLedger}, "cast"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.source.Dataset, c.source.Mapping, c.source.Ledger = dataset, "m", "s"
			if c.source.Key == nil {
				c.source.Key = []string{"id"}
			}
			_, err := q.client.Describe(t.Context(), c.source)
			class, remedy := fault.Classify(err)
			if err == nil || class != fault.Permanent || !strings.Contains(err.Error()+remedy, c.says) {
				t.Errorf("described as %s error %q, remedy %q; want %q in it", class, err, remedy, c.says)
			}
		})
	}
	d, err := q.client.Describe(t.Context(), warehouse.Source{Dataset: dataset, From: "scores", Key: []string{"id"}, Columns: []string{"absent"}})
	if diff := gocmp.Diff([]string{"id", "name", "score", "list", "day"}, d.Columns); err != nil || diff != "" {
		t.Errorf("with a column that is missing it has (-want +got):\n%s%v", diff, err)
	}
}

// TestAQueryThatCannotBeReadFrom, as one WITH RECURSIVE: BigQuery takes it alone.
func TestAQueryThatCannotBeReadFrom(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.scores AS SELECT 1 AS id")
	var checks atomic.Int64
	q.server.Intercept(func(c emulator.Call) error {
		if c.Method == "jobs.insert" && c.Phase == emulator.Before && checks.Add(1) == 2 {
			return &googleapi.Error{Code: http.StatusBadRequest, Message: "not at the top level", Errors: []googleapi.ErrorItem{{Reason: "invalidQuery"}}}
		}
		return nil
	})
	_, err := q.client.Describe(t.Context(), warehouse.Source{Dataset: dataset, Query: "SELECT id FROM scores", Key: []string{"id"}})
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, "view") {
		t.Errorf("it is a %s error with remedy %q: %v", class, remedy, err)
	}
}

// TestTablesThatNobodyMayLookAt do not stop who reads them through a view.
func TestTablesThatNobodyMayLookAt(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.a AS SELECT 1 AS id, 'a' AS name")
	for reason, seen := range map[string]bool{"accessDenied": true, "quotaExceeded": false} {
		q.server.Intercept(func(c emulator.Call) error {
			if c.Method == "tables.get" && c.Phase == emulator.Before {
				return &googleapi.Error{Code: http.StatusForbidden, Errors: []googleapi.ErrorItem{{Reason: reason}}}
			}
			return nil
		})
		d, err := q.client.Describe(t.Context(), warehouse.Source{Dataset: dataset, From: "a", Key: []string{"id"}})
		if (err == nil) != seen || seen && (len(d.Tables) != 1 || !d.Tables[0].Changed.IsZero()) {
			t.Errorf("%s: tables %v, error %v", reason, d.Tables, err)
		}
	}
}

// TestTablesBelowViews are what decides how old a source is.
func TestTablesBelowViews(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.a AS SELECT 1 AS id")
	first := q.now()
	q.pass(time.Hour)
	q.do(t, "CREATE TABLE shop.b AS SELECT 1 AS id")
	q.do(t, "CREATE VIEW shop.inner_view AS SELECT a.id FROM shop.a AS a JOIN shop.b AS b ON a.id = b.id")
	q.do(t, "CREATE VIEW shop.outer_view AS SELECT id FROM shop.inner_view")
	q.pass(time.Hour)
	d, err := q.client.Describe(t.Context(), warehouse.Source{Dataset: dataset, Query: "SELECT id FROM outer_view JOIN b USING (id)", Key: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, table := range d.Tables {
		got = append(got, fmt.Sprintf("%s.%s.%s %s", table.Project, table.Dataset, table.Name, table.Changed.Sub(first).Round(time.Hour)))
	}
	slices.Sort(got)
	if diff := gocmp.Diff([]string{project + ".shop.a 0s", project + ".shop.b 1h0m0s"}, got); diff != "" {
		t.Errorf("tables and when they changed (-want +got):\n%s", diff)
	}
}

// TestLabelsOfEveryJob: whoever pays finds them.
func TestLabelsOfEveryJob(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.scores AS SELECT 1 AS id, 'a' AS name, 7 AS n")
	labels := map[string]string{"tidemark-sync": "scores"}
	for _, changes := range []warehouse.Changes{warehouse.ChangesFull, warehouse.ChangesCursor, warehouse.ChangesAppends, warehouse.ChangesLedger} {
		source := warehouse.Source{Dataset: dataset, From: "scores", Key: []string{"id"}, Columns: []string{"name"}, Changes: changes, Cursor: "n", Ledger: "scores", Labels: labels}
		r, _ := q.take(t, source, warehouse.Take{})
		jobs := []string{r.Job}
		if err := q.client.Confirm(t.Context(), source, r, warehouse.Confirmed{Except: []int64{}}); err != nil {
			t.Fatal(err)
		}
		for _, st := range q.server.Statements() {
			if strings.HasPrefix(st.JobID, "tidemark_") {
				jobs = append(jobs, st.JobID)
			}
		}
		for _, id := range jobs {
			job, err := q.look.JobFromID(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			config, err := job.Config()
			if err != nil {
				t.Fatal(err)
			}
			queried, ok := config.(*bigquery.QueryConfig)
			if !ok {
				t.Fatalf("job %s is %T", id, config)
			}
			if diff := gocmp.Diff(labels, queried.Labels); diff != "" {
				t.Errorf("%s: labels of job %s (-want +got):\n%s", changes, id, diff)
			}
		}
	}
}

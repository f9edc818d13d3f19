package warehouse

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bq "google.golang.org/api/bigquery/v2"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// answering is a client of a BigQuery that gives the answers, by method and path.
func answering(t *testing.T, answers map[string]func(*bq.Job) any) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var job bq.Job
		if r.Method == http.MethodPost {
			if err := json.NewDecoder(r.Body).Decode(&job); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		answer, ok := answers[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/bigquery/v2/projects/")]
		if !ok {
			http.Error(w, "{}", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer(&job)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	c := NewClient(Config{Project: "own", Host: strings.TrimPrefix(server.URL, "http://")})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestTablesOfViewsThatAreNamed: where BigQuery names a view among the tables that are
// read, what counts is what that reads, whose names are of its own project; and of a table
// with rows in its streaming buffer those are the newest.
func TestTablesOfViewsThatAreNamed(t *testing.T) {
	t.Parallel()
	changed := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	const view, deeper = "SELECT id FROM far.deeper", "SELECT id FROM far.rows"
	below := map[string][]string{view: {"deeper", "rows"}, deeper: {"rows"}}
	table := func(typ, query string) func(*bq.Job) any {
		return func(*bq.Job) any {
			out := &bq.Table{Type: typ, LastModifiedTime: uint64(changed.UnixMilli())}
			if query != "" {
				out.View = &bq.ViewDefinition{Query: query}
			} else {
				out.StreamingBuffer = &bq.Streamingbuffer{OldestEntryTime: uint64(changed.Add(time.Hour).UnixMilli())}
			}
			return out
		}
	}
	c := answering(t, map[string]func(*bq.Job) any{
		"POST own/jobs": func(job *bq.Job) any {
			query := job.Configuration.Query
			names, project := below[query.Query], "other"
			if names == nil { // the source itself
				names, project = []string{"view"}, "own"
			}
			if query.DefaultDataset.ProjectId != project {
				t.Errorf("%s is checked in project %s", query.Query, query.DefaultDataset.ProjectId)
			}
			out := &bq.JobStatistics2{StatementType: "SELECT", Schema: &bq.TableSchema{Fields: []*bq.TableFieldSchema{{Name: "id", Type: "INTEGER"}}}}
			for _, name := range names {
				out.ReferencedTables = append(out.ReferencedTables, &bq.TableReference{ProjectId: "other", DatasetId: "far", TableId: name})
			}
			job.Status, job.Statistics = &bq.JobStatus{State: "DONE"}, &bq.JobStatistics{Query: out}
			return job
		},
		"GET other/datasets/far/tables/view":   table("VIEW", view),
		"GET other/datasets/far/tables/deeper": table("VIEW", deeper),
		"GET other/datasets/far/tables/rows":   table("TABLE", ""),
	})
	d, err := c.Describe(t.Context(), Source{Dataset: "shop", From: "other.far.view", Key: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range d.Tables {
		d.Tables[i].Changed = d.Tables[i].Changed.UTC()
	}
	if diff := cmp.Diff([]ReadTable{{Project: "other", Dataset: "far", Name: "rows", Changed: changed.Add(time.Hour)}}, d.Tables); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

// TestResultThatIsTooLarge is told with what can be done.
func TestResultThatIsTooLarge(t *testing.T) {
	t.Parallel()
	done := func(job *bq.Job) any {
		job.JobReference = &bq.JobReference{ProjectId: "own", JobId: "large"}
		job.Configuration = &bq.JobConfiguration{Query: &bq.JobConfigurationQuery{Query: "SELECT 1"}}
		job.Status = &bq.JobStatus{State: "DONE", ErrorResult: &bq.ErrorProto{Reason: "responseTooLarge", Message: "Response too large to return."}}
		job.Statistics = &bq.JobStatistics{TotalBytesProcessed: 7, Query: &bq.JobStatistics2{}}
		return job
	}
	c := answering(t, map[string]func(*bq.Job) any{"POST own/jobs": done, "GET own/jobs/large": done})
	r, err := c.Select(t.Context(), Source{Dataset: "shop", From: "a", Key: []string{"id"}}, Take{})
	class, remedy := fault.Classify(err)
	if got := fmt.Sprintf("%s, %t", class, strings.Contains(remedy, "ledger")); got != "permanent, true" || err == nil {
		t.Errorf("it is a %s error with remedy %q: %v", class, remedy, err)
	}
	if r == nil || r.Job != "large" || r.Bytes != 7 {
		t.Errorf("what ran is %+v", r)
	}
}

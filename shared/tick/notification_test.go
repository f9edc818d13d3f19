package tick_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
)

const (
	project = "example-project"
	nightly = "projects/123456789012/locations/europe-west1/transferConfigs/6621a2b4-0000-2c41-9e1f-f403045e8b3a"
)

// The attributes with which Google Cloud sends its notifications.
var (
	transferred = map[string]string{"eventType": "TRANSFER_RUN_FINISHED", "payloadFormat": "JSON_API_V1"}
	logged      = map[string]string{"logging.googleapis.com/timestamp": "2026-05-02T08:15:07.921407Z"}
)

// fixture is a notification as it comes, with each pair of texts replaced.
func fixture(t *testing.T, name string, replace ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(data), replace[i]) {
			t.Fatalf("%s has no %s", name, replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(string(data))
}

// notify decodes a notification that was published at ten.
func notify(t *testing.T, attributes map[string]string, data string) (tick.Delivery, error) {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"subscription": "projects/example-project/subscriptions/tidemark-reverse-etl",
		"message":      map[string]any{"attributes": attributes, "data": []byte(data), "messageId": "n-1", "publishTime": "2026-05-02T10:00:00Z"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tick.Decode(push(t, string(body)))
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestDecodeNotifications(t *testing.T) {
	t.Parallel()
	run := nightly + "/runs/6693c1d0-0000-2f7a-b2c4-94eb2c0a7d52"
	query := tick.Ended{
		Name: "projects/example-project/jobs/bquxjob_71cc3e5d_18f3a1c2b40", Succeeded: true, When: at(t, "2026-05-02T08:15:07.904Z"),
		Project: project, Dataset: "crm", Table: "scores",
	}
	own := query
	own.Own = true
	wroteNone := query
	wroteNone.Project, wroteNone.Dataset, wroteNone.Table = "", "", ""
	destination := `"destinationTable": "projects/example-project/datasets/crm/tables/scores",`
	tests := []struct {
		name       string
		attributes map[string]string
		data       string
		want       tick.Ended
	}{
		{"a scheduled query", transferred, fixture(t, "transfer_run.json"), tick.Ended{Name: run, Config: nightly, Succeeded: true, When: at(t, "2026-05-02T03:41:51.291622Z")}},
		{
			"a scheduled query that failed", transferred, fixture(t, "transfer_run_failed.json"),
			tick.Ended{Name: nightly + "/runs/6694f3aa-0000-2a6d-8a27-582429c6f4d8", Config: nightly, When: at(t, "2026-05-03T03:40:41.120115Z")},
		},
		{"one that was cancelled", transferred, fixture(t, "transfer_run.json", "SUCCEEDED", "CANCELLED"), tick.Ended{Name: run, Config: nightly, When: at(t, "2026-05-02T03:41:51.291622Z")}},
		{
			"one of a time before places had names", transferred, `{"name":"projects/p/transferConfigs/c/runs/r","state":"SUCCEEDED"}`,
			tick.Ended{Name: "projects/p/transferConfigs/c/runs/r", Config: "projects/p/transferConfigs/c", Succeeded: true, When: at(t, "2026-05-02T10:00:00Z")},
		},
		{"a query", logged, fixture(t, "job_query.json"), query},
		{
			"a load into a partition", logged, fixture(t, "job_load.json"),
			tick.Ended{Name: "projects/example-project/jobs/load_scores_20260502", Succeeded: true, When: at(t, "2026-05-02T09:00:04.2Z"), Project: project, Dataset: "crm", Table: "scores"},
		},
		{
			"a copy", logged, fixture(t, "job_copy.json"),
			tick.Ended{Name: "projects/example-project/jobs/copy_scores_acme", Succeeded: true, When: at(t, "2026-05-02T10:00:02.5Z"), Project: project, Dataset: "org_acme", Table: "scores"},
		},
		{
			"a query that failed", logged, fixture(t, "job_failed.json"),
			tick.Ended{Name: "projects/example-project/jobs/bquxjob_2f4a6b1c_18f3a1d9e07", When: at(t, "2026-05-02T11:00:02.5Z"), Project: project, Dataset: "crm", Table: "scores"},
		},
		{"an error without a code", logged, fixture(t, "job_query.json", `"jobState": "DONE"`, `"jobState": "DONE", "errorResult": {"message": "?"}`), func() tick.Ended { e := query; e.Succeeded = false; return e }()},
		{"an error that says nothing", logged, fixture(t, "job_query.json", `"jobState": "DONE"`, `"jobState": "DONE", "errorResult": {"code": 11}`), func() tick.Ended { e := query; e.Succeeded = false; return e }()},
		{"an empty error", logged, fixture(t, "job_query.json", `"jobState": "DONE"`, `"jobState": "DONE", "errorResult": {}`), query},
		{"a job without an end", logged, fixture(t, "job_query.json", `"endTime": "2026-05-02T08:15:07.904Z",`, ""), func() tick.Ended { e := query; e.When = at(t, "2026-05-02T10:00:00Z"); return e }()},
		{"a job of a sync", logged, fixture(t, "job_query.json", `"team": "crm"`, `"tidemark-sync": "scores"`), own},
		{"a job of a pipeline", logged, fixture(t, "job_query.json", `"team": "crm"`, `"tidemark-pipeline": "crm"`), own},
		{"a job of Extract", logged, fixture(t, "job_query.json", "ada@example.com", "tidemark-extract@p.iam.gserviceaccount.com"), own},
		{"a job of Dedup", logged, fixture(t, "job_query.json", "ada@example.com", "tidemark-dedup@p.iam.gserviceaccount.com"), own},
		{"a job of ReverseETL", logged, fixture(t, "job_query.json", "ada@example.com", "tidemark-reverse-etl@p.iam.gserviceaccount.com"), own},
		{"a job of somebody called alike", logged, fixture(t, "job_query.json", "ada@example.com", "tidemark-extractor@p.iam.gserviceaccount.com"), query},
		{"a script", logged, fixture(t, "job_query.json", destination, "", `"SELECT",`, `"SCRIPT",`), wroteNone},
		{"a table that is dropped", logged, fixture(t, "job_query.json", `"SELECT",`, `"DROP_TABLE",`), wroteNone},
		{"a table that is changed", logged, fixture(t, "job_query.json", `"SELECT",`, `"ALTER_TABLE",`), wroteNone},
		{"a table that is emptied", logged, fixture(t, "job_query.json", `"SELECT",`, `"TRUNCATE_TABLE",`), query},
		{"a statement that is new to us", logged, fixture(t, "job_query.json", `"SELECT",`, `"LOAD_DATA",`), query},
		{"an export", logged, fixture(t, "job_query.json", "queryConfig", "extractConfig"), wroteNone},
		{"a project of a domain", logged, fixture(t, "job_query.json", "projects/example-project/datasets", "projects/example.com:p/datasets"), func() tick.Ended { e := query; e.Project = "example.com:p"; return e }()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := notify(t, test.attributes, test.data)
			if err != nil {
				t.Fatal(err)
			}
			want := tick.Delivery{ID: "n-1", Published: at(t, "2026-05-02T10:00:00Z"), Data: []byte(test.data), Ended: &test.want}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Decode (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecodeTellsByAttributes: what a message is, its attributes say and its data do not.
func TestDecodeTellsByAttributes(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{"a transfer run": fixture(t, "transfer_run.json"), "a log entry": fixture(t, "job_query.json")} {
		if _, err := notify(t, nil, data); err == nil {
			t.Errorf("%s without attributes was read", name)
		} else {
			wantPermanent(t, err)
		}
	}
	if d, err := notify(t, map[string]string{"origin": "scheduler"}, `{"cadence":"1m"}`); err != nil || d.Ended != nil || d.Cadence != "1m" {
		t.Errorf("a tick with another attribute: %+v, %v", d, err)
	}
}

func TestDecodeRefusesNotifications(t *testing.T) {
	t.Parallel()
	run, job := fixture(t, "transfer_run.json"), fixture(t, "job_query.json")
	of := func(event, format string) map[string]string {
		return map[string]string{"eventType": event, "payloadFormat": format}
	}
	tests := []struct {
		name       string
		attributes map[string]string
		data       string
	}{
		{"a notification of Cloud Storage", of("OBJECT_FINALIZE", "JSON_API_V1"), `{"kind":"storage#object"}`},
		{"another event", of("TRANSFER_RUN_STARTED", "JSON_API_V1"), run},
		{"another format", of("TRANSFER_RUN_FINISHED", "JSON_API_V2"), run},
		{"no format", map[string]string{"eventType": "TRANSFER_RUN_FINISHED"}, run},
		{"both", map[string]string{"eventType": "TRANSFER_RUN_FINISHED", "payloadFormat": "JSON_API_V1", "logging.googleapis.com/timestamp": "2026-05-02T08:15:07Z"}, run},
		{"a run that is no JSON", transferred, "done"},
		{"a run without data", transferred, ""},
		{"a run that goes on", transferred, fixture(t, "transfer_run.json", "SUCCEEDED", "RUNNING")},
		{"a run without a state", transferred, fixture(t, "transfer_run.json", `"state": "SUCCEEDED",`, "")},
		{"a run without a name", transferred, fixture(t, "transfer_run.json", `"name"`, `"title"`)},
		{"a run of nothing", transferred, fixture(t, "transfer_run.json", "/transferConfigs/", "/configs/")},
		{"a configuration in place of a run", transferred, fixture(t, "transfer_run.json", "/runs/", "/")},
		{"a run without an id", transferred, `{"name":"projects/p/transferConfigs/c/runs/","state":"SUCCEEDED"}`},
		{"a run whose end is no time", transferred, fixture(t, "transfer_run.json", "2026-05-02T03:41:51.291622Z", "soon")},
		{"a log entry that is no JSON", logged, "done"},
		{"another log entry", logged, `{"textPayload":"done"}`},
		{"data that were read", logged, fixture(t, "job_query.json", `"jobChange"`, `"tableDataRead"`)},
		{"a job that begins", logged, fixture(t, "job_query.json", `{"jobState": "DONE"}`, `{"jobState": "RUNNING"}`)},
		{"a job without a state", logged, fixture(t, "job_query.json", `{"jobState": "DONE"}`, `{}`)},
		{"a job without a name", logged, fixture(t, "job_query.json", `"jobName"`, `"title"`)},
		{"a table without a name", logged, fixture(t, "job_query.json", "/datasets/crm/tables/scores", "/datasets/crm")},
		{"a model", logged, fixture(t, "job_query.json", "/tables/scores", "/models/scores")},
		{"a job that is text", logged, `{"protoPayload":{"metadata":{"jobChange":"DONE"}}}`},
		{"two entries", logged, job + job},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, err := notify(t, test.attributes, test.data)
			wantPermanent(t, err)
			if d.Ended != nil || d.ID != "n-1" || string(d.Data) != test.data {
				t.Errorf("delivery %q: %+v with data %q", d.ID, d.Ended, d.Data)
			}
		})
	}
}

// TestDecodeNotificationsNeverTransient: whatever comes is read or is a permanent error.
func TestDecodeNotificationsNeverTransient(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		attributes := rapid.SampledFrom([]map[string]string{transferred, logged}).Draw(r, "attributes")
		entry := rapid.SampledFrom([]string{`{"name":%,"state":"SUCCEEDED"}`, `{"protoPayload":{"metadata":{"jobChange":{"job":%}}}}`, `{"protoPayload":%}`, `%`}).Draw(r, "entry")
		value := rapid.SampledFrom([]string{`null`, `1`, `"projects/p/transferConfigs/c/runs/r"`, `{"jobName":"j","jobStatus":{"jobState":"DONE"}}`, `[]`, `{}`, `"/runs/"`}).Draw(r, "value")
		d, err := notify(t, attributes, strings.ReplaceAll(entry, "%", value))
		if err == nil && (d.Ended == nil || d.Ended.Name == "" || d.Ended.When.IsZero()) {
			r.Fatalf("read as %+v", d.Ended)
		}
		if class, _ := fault.Classify(err); err != nil && class != fault.Permanent {
			r.Fatalf("%v is %v", err, class)
		}
	})
}

func TestStaleNotifications(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-05-03T10:00:00Z")
	for age, want := range map[time.Duration]bool{-time.Hour: false, time.Minute: false, 24 * time.Hour: false, 24*time.Hour + 1: true} {
		ended := now.Add(-age)
		if got := (tick.Delivery{Ended: &tick.Ended{When: ended}, Published: now}).Stale(now); got != want {
			t.Errorf("a job that ended %v ago is stale: %t", age, got)
		}
		if got := (tick.Delivery{Message: tick.Message{Sync: "s", Since: ended}, Published: now}).Stale(now); got != want {
			t.Errorf("the message of a job that ended %v ago is stale: %t", age, got)
		}
	}
	if (tick.Delivery{Ended: &tick.Ended{}}).Stale(now) {
		t.Error("a job of unknown age is stale")
	}
}

// TestSkippedAfterAJob: the run that is under way may have read the table before the
// job wrote it.
func TestSkippedAfterAJob(t *testing.T) {
	t.Parallel()
	held := errors.New("held")
	err := tick.Delivery{Message: tick.Message{Sync: "s", Since: at(t, "2026-05-02T10:00:00Z")}}.Skipped(held)
	if class, _ := fault.Classify(err); class != fault.Transient || !errors.Is(err, held) {
		t.Errorf("skipped for %v, which is %v", err, class)
	}
}

func TestTriggers(t *testing.T) {
	t.Parallel()
	written := func(table string) tick.Ended {
		parts := strings.Split(table, "/")
		return tick.Ended{Name: "projects/p/jobs/j", Succeeded: true, Project: parts[0], Dataset: parts[1], Table: parts[2]}
	}
	ran := func(config string) tick.Ended {
		return tick.Ended{Name: config + "/runs/r", Config: config, Succeeded: true}
	}
	failed, own := written("p/crm/scores"), written("p/crm/scores")
	failed.Succeeded, own.Own = false, true
	failedRun := ran(nightly)
	failedRun.Succeeded = false
	tests := []struct {
		name  string
		ended tick.Ended
		after pipeline.After
		want  bool
	}{
		{"the table", written("p/crm/scores"), pipeline.After{Table: "scores"}, true},
		{"the table in full", written("p/crm/scores"), pipeline.After{Table: "crm.scores"}, true},
		{"the table in all its length", written("p/crm/scores"), pipeline.After{Table: "p.crm.scores"}, true},
		{"a table of another dataset", written("p/ml/scores"), pipeline.After{Table: "ml.scores"}, true},
		{"a table of another project", written("q/ml/scores"), pipeline.After{Table: "q.ml.scores"}, true},
		{"a table of a domain's project", written("example.com:q/ml/scores"), pipeline.After{Table: "example.com:q.ml.scores"}, true},
		{"another table", written("p/crm/score"), pipeline.After{Table: "scores"}, false},
		{"another dataset", written("p/ml/scores"), pipeline.After{Table: "scores"}, false},
		{"another project", written("q/crm/scores"), pipeline.After{Table: "scores"}, false},
		{"another project than its own", written("q/ml/scores"), pipeline.After{Table: "ml.scores"}, false},
		{"another case", written("p/crm/Scores"), pipeline.After{Table: "scores"}, false},
		{"a dataset of another case", written("p/CRM/scores"), pipeline.After{Table: "scores"}, false},
		{"one of a wildcard", written("p/crm/scores_20260502"), pipeline.After{Table: "scores_*"}, true},
		{"one of a wildcard elsewhere", written("p/ml/scores_20260502"), pipeline.After{Table: "scores_*"}, false},
		{"none of a wildcard", written("p/crm/scores"), pipeline.After{Table: "scores_*"}, false},
		{"any table", written("p/ml/anything"), pipeline.After{Table: "ml.*"}, true},
		{"a shard of a table that is not sharded", written("p/crm/scores_20260502"), pipeline.After{Table: "scores"}, false},
		{"a job that failed", failed, pipeline.After{Table: "scores"}, false},
		{"our own job", own, pipeline.After{Table: "scores"}, false},
		{"a job that wrote nothing", tick.Ended{Succeeded: true}, pipeline.After{Table: "*"}, false},
		{"a scheduled query is no table", ran(nightly), pipeline.After{Table: "scores"}, false},
		{"the scheduled query", ran(nightly), pipeline.After{ScheduledQuery: "6621a2b4-0000-2c41-9e1f-f403045e8b3a"}, true},
		{"the scheduled query in full", ran(nightly), pipeline.After{ScheduledQuery: nightly}, true},
		{"the scheduled query by the project's id", ran(nightly), pipeline.After{ScheduledQuery: strings.Replace(nightly, "123456789012", "p", 1)}, true},
		{"the scheduled query without its place", ran(nightly), pipeline.After{ScheduledQuery: "projects/p/transferConfigs/6621a2b4-0000-2c41-9e1f-f403045e8b3a"}, true},
		{"another scheduled query", ran(nightly), pipeline.After{ScheduledQuery: "6621a2b4"}, false},
		{"another scheduled query in full", ran(nightly), pipeline.After{ScheduledQuery: nightly + "0"}, false},
		{"a scheduled query of another project", ran(nightly), pipeline.After{ScheduledQuery: strings.Replace(nightly, "123456789012", "123456789013", 1)}, false},
		{"a scheduled query of another place", ran(nightly), pipeline.After{ScheduledQuery: strings.Replace(nightly, "europe-west1", "us", 1)}, false},
		{"two projects by their ids", ran("projects/p/locations/us/transferConfigs/c"), pipeline.After{ScheduledQuery: "projects/q/locations/us/transferConfigs/c"}, false},
		{"a scheduled query that failed", failedRun, pipeline.After{ScheduledQuery: nightly}, false},
		{"a job is no scheduled query", written("p/crm/scores"), pipeline.After{ScheduledQuery: nightly}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, after := range [][]pipeline.After{{test.after}, {{Table: "other"}, test.after}, {{ScheduledQuery: "other"}, test.after}} {
				if got := test.ended.Triggers("p", "crm", &pipeline.Sync{After: after}); got != test.want {
					t.Errorf("after %+v: %t", after, got)
				}
			}
		})
	}
	if written("p/crm/scores").Triggers("p", "crm", &pipeline.Sync{Every: "1m"}) {
		t.Error("a sync that runs after nothing is triggered")
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	when := at(t, "2026-05-02T08:15:07Z")
	after := func(table string) []pipeline.After { return []pipeline.After{{Table: table}} }
	crm := pipeline.Pipeline{Name: "crm", Dataset: "crm", ReverseETL: []pipeline.Sync{
		{Name: "scores", After: after("scores")}, {Name: "both", Every: "1m", After: append(after("other"), after("scores")...)}, {Name: "clock", Every: "1m"},
	}}
	shop := pipeline.Pipeline{Name: "shop", Dataset: "shop", ReverseETL: []pipeline.Sync{{Name: "theirs", After: after("crm.scores")}, {Name: "ours", After: after("scores")}}}
	fanned := pipeline.Pipeline{
		Name: "fanned", Dataset: "all", Tenants: &pipeline.Tenants{Query: "q", Dataset: "org_{slug}"},
		ReverseETL: []pipeline.Sync{{Name: "each", After: after("scores")}, {Name: "query", After: []pipeline.After{{ScheduledQuery: "c"}}}},
	}
	job := func(dataset string) tick.Ended {
		return tick.Ended{Name: "projects/p/jobs/j", Succeeded: true, When: when, Project: "p", Dataset: dataset, Table: "scores"}
	}
	run := tick.Ended{Name: "projects/p/transferConfigs/c/runs/r", Config: "projects/p/transferConfigs/c", Succeeded: true, When: when}
	failed := run
	failed.Succeeded = false
	broken := errors.New("broken")
	tests := []struct {
		name    string
		ended   tick.Ended
		query   error // of the tenants
		publish error
		want    []tick.Message
		queries int
	}{
		{"a job", job("crm"), nil, nil, []tick.Message{{Pipeline: "crm", Sync: "scores", Since: when}, {Pipeline: "crm", Sync: "both", Since: when}, {Pipeline: "shop", Sync: "theirs", Since: when}}, 1},
		{"of one tenant", job("org_acme"), nil, nil, []tick.Message{{Pipeline: "fanned", Tenant: "1", Sync: "each", Since: when}}, 1},
		{"of no tenant", job("org_initech"), nil, nil, nil, 1},
		{"in the dataset of a pipeline whose tenants have theirs", job("all"), nil, nil, nil, 1},
		{"a scheduled query for every tenant", run, nil, nil, []tick.Message{{Pipeline: "fanned", Tenant: "1", Sync: "query", Since: when}, {Pipeline: "fanned", Tenant: "2", Sync: "query", Since: when}}, 1},
		{"one that failed", failed, nil, nil, nil, 0},
		{"the tenants cannot be listed", job("shop"), broken, nil, []tick.Message{{Pipeline: "shop", Sync: "ours", Since: when}}, 1},
		{"nothing can be published", job("crm"), nil, broken, nil, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got []tick.Message
			queries := 0
			d := tick.Dispatcher{
				Pipelines: []pipeline.Pipeline{fanned, crm, shop},
				Tenants: func(context.Context, string) ([]tick.Tenant, error) {
					queries++
					return []tick.Tenant{{ID: "1", Values: map[string]string{"slug": "acme"}}, {ID: "2", Values: map[string]string{"slug": "hooli"}}}, test.query
				},
				Publish: func(_ context.Context, messages ...tick.Message) error {
					for _, m := range messages {
						data, err := json.Marshal(m)
						read, parsing := tick.Parse(data)
						if err = errors.Join(err, parsing); err != nil {
							t.Errorf("%s: %v", data, err)
						}
						if test.publish == nil {
							got = append(got, read)
						}
					}
					return test.publish
				},
			}
			n, err := d.Follow(t.Context(), test.ended, "p")
			if want := errors.Join(test.query, test.publish) != nil; errors.Is(err, broken) != want || (err != nil) != want {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("published (-want +got):\n%s", diff)
			}
			if test.publish == nil && n != len(test.want) || queries != test.queries {
				t.Errorf("%d syncs, %d queries for the tenants, want %d and %d", n, queries, len(test.want), test.queries)
			}
		})
	}
}

// TestRefuseNotifications: Extract and Dedup run after nothing.
func TestRefuseNotifications(t *testing.T) {
	t.Parallel()
	d := tick.Delivery{Ended: &tick.Ended{Name: "projects/p/jobs/j", Succeeded: true}}
	err := d.Refuse("Extract")
	wantPermanent(t, err)
	if _, remedy := fault.Classify(err); !strings.Contains(remedy, tick.TopicReverseETL) {
		t.Errorf("remedy %q", remedy)
	}
	wantPermanent(t, tick.Delivery{Message: tick.Message{Sync: "s"}}.Refuse("Extract", "sync"))
	if err := (tick.Delivery{Message: tick.Message{Sync: "s"}}).Refuse("ReverseETL", "retry"); err != nil {
		t.Error(err)
	}
}

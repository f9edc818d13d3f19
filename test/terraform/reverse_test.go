package terraform_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// followed is a folder with a pipeline whose sync runs after all that there can be.
func followed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, file := range map[string]string{
		"plain.yaml":  "pipeline: plain\ndestination: {dataset: plain}\n",
		"fanned.yaml": "pipeline: fanned\ndestination: {dataset: all}\ntenants: {query: SELECT 1, column: id, dataset: \"org_{slug}_v2\"}\n",
	} {
		file += "reverse_etl:\n  - {name: s, mode: insert, query: SELECT 1, target: {table: t, key: {a: a}}, after: [{table: scores}, {table: elsewhere.scores}, {table: a+b|c}, {table: elsewhere.shards_*}]}\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestFollowedTables: the log sink tells of the tables that a sync of any unit runs
// after, and of no others, in the entries that the functions read.
func TestFollowedTables(t *testing.T) {
	t.Parallel()
	filter := local[string](t, evaluate(t, base(followed(t))), "job_filter")
	expressions := regexp.MustCompile(`([a-zA-Z.]+)=~"([^"]+)"`).FindAllStringSubmatch(filter, -1)
	if len(expressions) != 3 {
		t.Fatalf("the filter %s has %d expressions, want one for each kind of job", filter, len(expressions))
	}
	var units []tick.Unit
	for _, p := range pipelines(t, followed(t)) {
		for _, slug := range []string{"acme", "hooli_2"} {
			units = append(units, tick.Unit{Pipeline: &p, Tenant: tick.Tenant{ID: "1", Values: map[string]string{"slug": slug}}})
		}
	}
	for _, project := range []string{"test-project", "test-projects", "other"} {
		for _, dataset := range []string{"plain", "all", "elsewhere", "org_acme_v2", "org_hooli_2_v2", "org__v2", "org_acme", "Plain", "plainer"} {
			for _, table := range []string{"scores", "scores$20260101", "scores_20260101", "Scores", "my_scores", "a+b|c", "aab", "c", "shards", "shards_20260101", "myshards_1"} {
				name := "projects/" + project + "/datasets/" + dataset + "/tables/" + table
				for _, config := range []string{"queryConfig", "loadConfig", "tableCopyConfig"} {
					ended := jobThatWrote(t, config, name)
					want := slices.ContainsFunc(units, func(u tick.Unit) bool {
						return ended.Triggers("test-project", u.Dataset(), &u.Pipeline.ReverseETL[0])
					})
					told := slices.ContainsFunc(expressions, func(e []string) bool {
						return e[1] == "protoPayload.metadata.jobChange.job.jobConfig."+config+".destinationTable" && regexp.MustCompile(e[2]).MatchString(name)
					})
					if told != want {
						t.Errorf("a %s into %s is told: %t, and triggers: %t", config, name, told, want)
					}
				}
			}
		}
	}
	for _, topic := range []string{tick.TopicExtract, tick.TopicDedup, tick.TopicReverseETL} {
		if !strings.Contains(filter, `"`+topic+`@test-project.iam.gserviceaccount.com"`) {
			t.Errorf("the filter %s lets jobs of %s through", filter, topic)
		}
	}
}

// jobThatWrote is a job as the functions read it from the audit log.
func jobThatWrote(t *testing.T, config, table string) tick.Ended {
	t.Helper()
	entry, err := json.Marshal(map[string]any{"protoPayload": map[string]any{"metadata": map[string]any{"jobChange": map[string]any{"job": map[string]any{
		"jobName": "projects/p/jobs/j", "jobConfig": map[string]any{config: map[string]any{"destinationTable": table}}, "jobStatus": map[string]any{"jobState": "DONE"},
	}}}}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := tick.Decode(push(t, map[string]string{"logging.googleapis.com/timestamp": "2026-05-02T08:15:07Z"}, entry))
	if err != nil {
		t.Fatal(err)
	}
	return *d.Ended
}

// target is an entry of local.database_targets.
type target struct {
	Schema  string   `json:"schema"`
	Table   string   `json:"table"`
	Key     []string `json:"key"`
	Columns []string `json:"columns"`
	Deleted string   `json:"deleted"`
	Insert  bool     `json:"insert"`
	Update  bool     `json:"update"`
	Delete  bool     `json:"delete"`
	Where   bool     `json:"where"`
	Tenant  string   `json:"tenant"`
	Many    bool     `json:"many"`
}

// TestDatabaseTargets: ReverseETL gets its rights on the columns that the syncs write,
// for what they do to rows.
func TestDatabaseTargets(t *testing.T) {
	t.Parallel()
	columns := func(mappings []pipeline.Mapping) []string {
		out := []string{}
		for _, m := range mappings {
			out = append(out, m.To)
		}
		slices.Sort(out)
		return out
	}
	syncs := 0
	for _, folder := range folders(t) {
		var want []target
		for _, p := range pipelines(t, folder) {
			for _, s := range p.ReverseETL {
				syncs++
				tenant := ""
				if p.Tenants != nil {
					tenant = p.Tenants.Column
				}
				want = append(want, target{
					Schema: p.Schema, Table: s.Table, Key: columns(s.Key), Columns: columns(s.Columns), Deleted: s.DeletedColumn,
					Insert: s.Mode == pipeline.ModeInsert || s.Mode == pipeline.ModeUpsert || s.Mode == pipeline.ModeMirror,
					Update: s.Mode != pipeline.ModeInsert, Delete: s.Mode == pipeline.ModeMirror && s.Deletes == pipeline.DeletesHard,
					Where: s.Where != "", Tenant: tenant, Many: s.Many,
				})
			}
		}
		var got []target
		for _, g := range local[[]target](t, evaluate(t, base(folder)), "database_targets") {
			slices.Sort(g.Key)
			slices.Sort(g.Columns)
			got = append(got, g)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: local.database_targets (-in Go +in Terraform):\n%s", folder, diff)
		}
	}
	if syncs < 8 {
		t.Errorf("only %d syncs were compared", syncs)
	}
}

// TestLedgers: each unit of a pipeline that keeps a ledger has a dataset for it.
func TestLedgers(t *testing.T) {
	t.Parallel()
	folder := root + "/tests/pipelines"
	variables := base(folder)
	variables["tenants"] = cty.ObjectVal(map[string]cty.Value{"crm": cty.ObjectVal(map[string]cty.Value{"7": cty.ObjectVal(map[string]cty.Value{"slug": cty.StringVal("acme")})})})
	want := []string{}
	for _, p := range pipelines(t, folder) {
		if slices.ContainsFunc(p.ReverseETL, func(s pipeline.Sync) bool { return s.Changes == pipeline.ChangesLedger }) {
			want = append(want, tick.Unit{Pipeline: &p, Tenant: tick.Tenant{ID: "7", Values: map[string]string{"slug": "acme"}}}.Dataset()+"_ledger")
		}
	}
	got := slices.Sorted(maps.Keys(local[map[string]any](t, evaluate(t, variables), "ledgers")))
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), got); diff != "" || len(want) < 2 {
		t.Errorf("local.ledgers (-in Go +in Terraform):\n%s", diff)
	}
	for _, folder := range folders(t) {
		kept := slices.ContainsFunc(pipelines(t, folder), func(p pipeline.Pipeline) bool {
			return slices.ContainsFunc(p.ReverseETL, func(s pipeline.Sync) bool { return s.Changes == pipeline.ChangesLedger })
		})
		if got := local[map[string]any](t, evaluate(t, base(folder)), "ledgers"); len(got) > 0 != kept {
			t.Errorf("%s: datasets of ledgers %v, and it keeps some: %t", folder, got, kept)
		}
	}
}

// TestBuckets: the buckets of CSV files, each once; not what is filled in, nor what is
// no bucket.
func TestBuckets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := "pipeline: p\ndestination: {dataset: d}\nreverse_etl:\n"
	for _, csv := range []string{"gs://a/x.csv", "gs://a/{dataset}/y.csv", "gs://b.example.com/x/y.csv.gz", "gs://{dataset}/x.csv", "gs://of-{dataset}/x.csv", "/data/x.csv", "x.csv"} {
		file += "  - {name: s, mode: insert, csv: \"" + csv + "\", target: {table: t, key: {a: a}}}\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b.example.com"}, local[[]string](t, evaluate(t, base(dir)), "csv_buckets")); diff != "" {
		t.Errorf("local.csv_buckets (-want +got):\n%s", diff)
	}
}

// push is the event of a message.
func push(t *testing.T, attributes map[string]string, data []byte) event.Event {
	t.Helper()
	body, err := json.Marshal(map[string]any{"message": map[string]any{"attributes": attributes, "data": data}})
	if err != nil {
		t.Fatal(err)
	}
	e := event.New()
	e.SetID("1")
	e.SetSource("//pubsub.googleapis.com/projects/p/topics/t")
	e.SetType("google.cloud.pubsub.topic.v1.messagePublished")
	if err := e.SetData(event.ApplicationJSON, json.RawMessage(body)); err != nil {
		t.Fatal(err)
	}
	return e
}

// Package terraform_test reads the Terraform files as terraform does, without a
// provider, and compares what they say with what the functions read: names, messages,
// cadences, limits. What only a plan knows is tested by terraform/tests.
package terraform_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/test/deployment"
)

// root is the folder of the module; .ci/mutations names another.
var root = folder()

func folder() string {
	if dir := os.Getenv("TERRAFORM_ROOT"); dir != "" {
		return dir
	}
	return "../../terraform"
}

// load parses the module.
func load(t *testing.T) *deployment.Module {
	t.Helper()
	m, err := deployment.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// base are the variables that every deployment sets.
func base(pipelines string) map[string]cty.Value {
	v := map[string]cty.Value{
		"project": cty.StringVal("test-project"), "region": cty.StringVal("europe-west1"), "location": cty.StringVal("EU"),
		"database": cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal("app"), "instance": cty.StringVal("data-project:europe-west1:pg")}),
	}
	if pipelines != "" {
		v["pipelines_dir"] = cty.StringVal(pipelines)
	}
	return v
}

func evaluate(t *testing.T, variables map[string]cty.Value) *deployment.Values {
	t.Helper()
	v, err := load(t).Evaluate(variables)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// local decodes a local value, as JSON, into T.
func local[T any](t *testing.T, v *deployment.Values, name string) T {
	t.Helper()
	var out T
	value, err := v.Local(name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := ctyjson.Marshal(value, value.Type())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("local.%s: %v", name, err)
	}
	return out
}

// function is an entry of local.functions.
type function struct {
	Topic      string `json:"topic"`
	EntryPoint string `json:"entry_point"`
	Package    string `json:"package"`
}

// TestFunctions: each is deployed under the name that its package registers, on
// the topic that it reads.
func TestFunctions(t *testing.T) {
	t.Parallel()
	registration := regexp.MustCompile(`functions\.CloudEvent\("(\w+)", i\.Handler\("(\w+)", run\)\)`)
	topic := regexp.MustCompile(`c\.Dispatcher\((tick\.\w+)\)`)
	topics := map[string]string{"tick.TopicExtract": tick.TopicExtract, "tick.TopicDedup": tick.TopicDedup, "tick.TopicReverseETL": tick.TopicReverseETL}
	want := map[string]function{}
	files, err := filepath.Glob("../../functions/*/function.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no functions: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		registered, read := registration.FindSubmatch(text), topic.FindSubmatch(text)
		if registered == nil || read == nil {
			t.Errorf("%s registers no function in the usual way, or reads no topic", file)
			continue
		}
		// Alerts know a function by its kind, with underscores.
		name := strings.ReplaceAll(string(registered[2]), "_", "-")
		want[name] = function{topics[string(read[1])], string(registered[1]), filepath.Base(filepath.Dir(file))}
	}
	if diff := cmp.Diff(want, local[map[string]function](t, evaluate(t, base("")), "functions")); diff != "" {
		t.Errorf("local.functions (-in Go +in Terraform):\n%s", diff)
	}
}

// TestEnvironment: what Terraform sets is what the functions read, all of it and
// nothing else, and it is a configuration they accept.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	elsewhere := []string{ // for laptops and tests, or instead of the connector
		"DATABASE_URL", "CONTROL_DATABASE_URL", "TIDEMARK_PIPELINES", "BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST",
	}
	others := []string{"LOG_LEVEL", "CLOUD_RUN_TIMEOUT_SECONDS"} // read by the handler and by the framework
	variables := base(hashing(t))
	variables["hash_key"] = cty.StringVal("projects/p/secrets/s/versions/12")
	v := evaluate(t, variables)
	functions, secrets := local[map[string]function](t, v, "functions"), local[map[string]map[string]any](t, v, "function_secrets")
	for name, environment := range local[map[string]map[string]string](t, v, "function_environment") {
		environment["FUNCTION_TARGET"] = functions[name].EntryPoint
		for variable := range secrets[name] {
			environment[variable] = strings.Repeat("5a", 32)
		}
		read := map[string]bool{"FUNCTION_TARGET": true}
		config, err := instance.Load(func(variable string) string {
			read[variable] = true
			return environment[variable]
		})
		if err != nil {
			t.Errorf("%s is deployed with a configuration that it refuses: %v", name, err)
		}
		for _, variable := range elsewhere {
			delete(read, variable)
		}
		want := slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(read)), others...)))
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(environment))); diff != "" {
			t.Errorf("environment of %s (-read +set):\n%s", name, diff)
		}
		source := cloudsql.Config{Instance: "data-project:europe-west1:pg", IPType: "PUBLIC", User: "tidemark-" + name + "@test-project.iam", Name: "app"}
		if diff := cmp.Diff(source, config.Source); diff != "" {
			t.Errorf("database of %s (-want +got):\n%s", name, diff)
		}
	}
}

// hashing is a folder with a pipeline that needs all that Extract can be given.
func hashing(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := "pipeline: p\ndestination: {dataset: d}\ntables: [{name: t, capture: {method: snapshot}, write: replace, columns: {hash: [mail]}}]\n"
	if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHashKey: Extract has the key where a pipeline hashes, and no other function and
// nowhere else.
func TestHashKey(t *testing.T) {
	t.Parallel()
	for _, folder := range append(folders(t), hashing(t)) {
		want := map[string]map[string]map[string]string{"extract": {}, "dedup": {}, "reverse-etl": {}}
		for _, p := range pipelines(t, folder) {
			if slices.ContainsFunc(p.Tables, func(t pipeline.Table) bool { return len(t.Columns.Hash) > 0 }) {
				want["extract"]["TIDEMARK_HASH_KEY"] = map[string]string{"project": "vault", "secret": "s", "version": "12"}
			}
		}
		variables := base(folder)
		variables["hash_key"] = cty.StringVal("projects/vault/secrets/s/versions/12")
		if diff := cmp.Diff(want, local[map[string]map[string]map[string]string](t, evaluate(t, variables), "function_secrets")); diff != "" {
			t.Errorf("%s: local.function_secrets (-in Go +in Terraform):\n%s", folder, diff)
		}
	}
}

// TestContracts: the contracts beside the pipeline files are built into every function,
// where it reads them.
func TestContracts(t *testing.T) {
	t.Parallel()
	folder := hashing(t)
	contract := pipeline.ContractFile("p", "t")
	if err := os.MkdirAll(filepath.Join(folder, filepath.Dir(contract)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, contract), []byte(`[{"name": "mail", "type": "STRING"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if pipelines(t, folder)[0].Tables[0].Contract == nil {
		t.Errorf("the functions do not read %s", contract)
	}
	archives, err := evaluate(t, base(folder)).Archives()
	if err != nil {
		t.Fatal(err)
	}
	for name, archive := range archives {
		if archive["schemas/"+contract] == "" {
			t.Errorf("%s is built without schemas/%s", name, contract)
		}
		if archive["schemas/bigquery/README.md"] == "" {
			t.Errorf("%s is built without a file that is always in schemas/bigquery", name)
		}
	}
	if len(archives) == 0 {
		t.Error("there are no archives")
	}
}

// schedule is an entry of local.schedules.
type schedule struct {
	Function string          `json:"function"`
	Message  json.RawMessage `json:"message"`
	Schedule string          `json:"schedule"`
	TimeZone string          `json:"time_zone"`
}

// folders are all folders with pipeline files that are deployed or planned.
func folders(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"../../schemas/pipelines", root + "/tests/pipelines", root + "/tests/pipelines/wal", root + "/examples/*/pipelines", root + "/examples/*/pipelines/*"} {
		files, err := filepath.Glob(pattern + "/*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			found = append(found, filepath.Dir(file))
		}
	}
	return slices.Compact(found)
}

func pipelines(t *testing.T, folder string) []pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.Load(os.DirFS(folder), schemas.PipelineSchema())
	if err != nil {
		t.Fatalf("the functions do not accept %s: %v", folder, err)
	}
	return p
}

// TestSchedules: for every pipeline file there is, the schedules publish to each
// function the cadences of its work, each once, in messages that the product
// accepts, and no others.
func TestSchedules(t *testing.T) {
	t.Parallel()
	cadences := map[string]func(pipeline.Pipeline) []pipeline.Cadence{
		"extract": pipeline.ExtractCadences, "dedup": pipeline.DedupCadences, "reverse-etl": pipeline.ReverseCadences,
	}
	for _, folder := range folders(t) {
		want := map[string][]string{}
		for name, of := range cadences {
			for _, c := range pipeline.Cadences(pipelines(t, folder), of) {
				want[name] = append(want[name], string(c))
			}
			slices.Sort(want[name])
		}
		got := map[string][]string{}
		for name, s := range local[map[string]schedule](t, evaluate(t, base(folder)), "schedules") {
			m, err := tick.Parse(s.Message)
			if err != nil || m.Cadence == "" {
				t.Errorf("%s: schedule %s publishes %s: %v", folder, name, s.Message, err)
			}
			got[s.Function] = append(got[s.Function], string(m.Cadence))
			if _, err := time.LoadLocation(s.TimeZone); err != nil {
				t.Errorf("%s: schedule %s: %v", folder, name, err)
			}
		}
		for name := range cadences {
			slices.Sort(got[name])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-declared +scheduled):\n%s", folder, diff)
		}
	}
}

// TestCrontab: each interval fires as often as it says.
func TestCrontab(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"1m": "* * * * *", "60s": "* * * * *", "2m": "*/2 * * * *", "7m": "every 7 minutes", "15m": "*/15 * * * *", "30m": "*/30 * * * *",
		"1h": "0 * * * *", "60m": "0 * * * *", "90m": "every 90 minutes", "2h": "0 */2 * * *", "5h": "every 300 minutes", "12h": "0 */12 * * *",
		"24h": "0 0 * * *", "0 6 * * 1-5": "0 6 * * 1-5", "CRON_TZ=Europe/Berlin 0  6 * * *": "0 6 * * *",
	}
	v := evaluate(t, base(withCadences(t, slices.Collect(maps.Keys(tests))...)))
	if diff := cmp.Diff(tests, local[map[string]string](t, v, "crontab")); diff != "" {
		t.Errorf("local.crontab (-want +got):\n%s", diff)
	}
	if refused := local[[]string](t, v, "unschedulable"); len(refused) > 0 {
		t.Errorf("refused: %q", refused)
	}
	v = evaluate(t, base(withCadences(t, "1s", "30s", "90s", "1m30s", "1.5h", "25h", "0 0 ? * *")))
	if diff := cmp.Diff([]string{"0 0 ? * *", "1.5h", "1m30s", "1s", "25h", "30s", "90s"}, slices.Sorted(slices.Values(local[[]string](t, v, "unschedulable")))); diff != "" {
		t.Errorf("local.unschedulable (-want +got):\n%s", diff)
	}
}

// withCadences is a folder with a pipeline that has a table of each cadence.
func withCadences(t *testing.T, cadences ...string) string {
	t.Helper()
	var file strings.Builder
	file.WriteString("pipeline: p\ndestination: {dataset: d}\ntables:\n")
	for i, c := range cadences {
		fmt.Fprintf(&file, "  - {name: t%d, capture: {method: watermark, cursor: c}, every: %q}\n", i, c)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestCanonicalCadence: a schedule's message names the cadence as the functions
// do, whichever way a file spells it; otherwise the tick would be due for nothing.
func TestCanonicalCadence(t *testing.T) {
	t.Parallel()
	unit := rapid.SampledFrom([]string{"h", "m"})
	number := rapid.IntRange(0, 200)
	interval := rapid.Custom(func(t *rapid.T) string {
		var text strings.Builder
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			fmt.Fprintf(&text, "%d%s", number.Draw(t, "number"), unit.Draw(t, "unit"))
		}
		return text.String()
	})
	field := rapid.SampledFrom([]string{"*", "*/5", "0", "3", "1-4", "1,2"})
	expression := rapid.Custom(func(t *rapid.T) string {
		text := rapid.SampledFrom([]string{"", "CRON_TZ=Europe/Berlin ", "CRON_TZ=America/New_York  "}).Draw(t, "zone")
		for i := range 5 {
			if i > 0 {
				text += rapid.SampledFrom([]string{" ", "  ", "\t"}).Draw(t, "space")
			}
			text += rapid.OneOf(field, rapid.Just("*")).Draw(t, "field")
		}
		return text
	})
	m := load(t)
	rapid.Check(t, func(rt *rapid.T) {
		want := map[string]string{}
		for _, text := range rapid.SliceOfN(rapid.OneOf(interval, expression), 1, 20).Draw(rt, "cadences") {
			if c, err := pipeline.ParseCadence(text); err == nil {
				want[text] = string(c)
			}
		}
		if len(want) == 0 {
			return
		}
		v, err := m.Evaluate(base(withCadences(t, slices.Collect(maps.Keys(want))...)))
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, local[map[string]string](t, v, "canonical_cadence")); diff != "" {
			rt.Fatalf("(-in Go +in Terraform):\n%s", diff)
		}
	})
}

// TestLimits: the numbers that Terraform and Go both know.
func TestLimits(t *testing.T) {
	t.Parallel()
	v := evaluate(t, base(""))
	if got, want := local[int](t, v, "connections_per_instance"), cloudsql.DataConnections+cloudsql.ControlConnections; got != want {
		t.Errorf("Terraform counts %d connections per instance, an instance opens up to %d", got, want)
	}
	timeout, ack := local[int](t, v, "function_timeout_seconds"), local[int](t, v, "ack_deadline_seconds")
	if timeout >= ack || ack > 600 {
		t.Errorf("a function has %d s and its push %d s, of the 600 s that Pub/Sub allows", timeout, ack)
	}
	if grants := local[string](t, v, "grants"); !strings.Contains(grants, "CREATE SCHEMA "+controlplane.Schema+" AUTHORIZATION") {
		t.Errorf("the grants do not make the schema %q", controlplane.Schema)
	}
}

// TestSilences: each cadence of each pipeline that ticks once a day at least has an
// alert for its silence, after as long as the product itself takes a table for stale,
// and neither before its first tick nor between two.
func TestSilences(t *testing.T) {
	t.Parallel()
	const ( // of Cloud Monitoring, for metrics made of logs
		looksBack = 25 * time.Hour
		waits     = 23 * time.Hour
		served    = 5 * time.Minute // a tick, from when it is due
	)
	type silence struct {
		Function, Pipeline, Cadence string
		Seconds, Waited             float64
	}
	folder := withCadences(t, "1m", "5m", "7m", "15m", "90m", "8h", "13h", "24h", "*/5 * * * *", "30 * * * *", "0 */6 * * *", "0 6 * * *",
		"CRON_TZ=Europe/Berlin 30 2 * * *", "0 6 * * 1-5", "0 0 1 * *", "0 0 1 1 *")
	got := local[map[string]silence](t, evaluate(t, base(folder)), "silences")
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rare := 0
	for _, p := range pipelines(t, folder) {
		for _, table := range p.Tables {
			gap := longestGap(table.Every, begin)
			s, ok := got["extract/"+p.Name+"/"+string(table.Every)]
			if gap+served > looksBack+waits { // an hour that the clocks skip makes two days of one
				if rare++; ok {
					t.Errorf("%s comes every %v at times, and an alert misses it", table.Every, gap)
				}
				continue
			}
			if !ok || s.Function != "extract" || s.Pipeline != p.Name || s.Cadence != string(table.Every) {
				t.Errorf("%s has the alert %+v", table.Every, s)
				continue
			}
			silent, waited := time.Duration(s.Seconds)*time.Second, time.Duration(s.Waited)*time.Second
			if silent-waited > looksBack || waited > waits || silent <= waited || int(s.Waited)%60 != 0 {
				t.Errorf("%s: Cloud Monitoring cannot look back %v and wait %v", table.Every, silent-waited, waited)
			}
			if waited < min(gap+served, waits) || silent < gap+served {
				t.Errorf("%s raises an alarm %v after the last success, where ticks are up to %v apart", table.Every, silent, gap)
			}
			interval, ok := table.Every.Interval()
			if late := begin.Add(silent); ok && interval < 16*time.Hour && (!table.Every.Overdue(begin, late.Add(time.Second)) || table.Every.Overdue(begin, late.Add(-time.Second))) {
				t.Errorf("%s: silence is an alarm after %v, and a table is stale at another time", table.Every, silent)
			}
		}
	}
	if rare != 3 || len(got) != 13 {
		t.Errorf("%d cadences are too rare and %d have an alert", rare, len(got))
	}
}

// longestGap is the longest time between two ticks, in two years.
func longestGap(c pipeline.Cadence, begin time.Time) time.Duration {
	if interval, ok := c.Interval(); ok {
		return interval
	}
	var gap time.Duration
	for at, end := c.Next(begin), begin.AddDate(2, 0, 0); at.Before(end); {
		next := c.Next(at)
		gap, at = max(gap, next.Sub(at)), next
	}
	return gap
}

// TestEvents: the metrics count the log lines that the product writes for them.
func TestEvents(t *testing.T) {
	t.Parallel()
	var want []string
	for _, e := range telemetry.Events() {
		want = append(want, string(e))
	}
	slices.Sort(want)
	metrics := local[map[string]struct{ Labels []string }](t, evaluate(t, base("")), "log_metrics")
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(metrics))); diff != "" {
		t.Errorf("local.log_metrics (-logged +counted):\n%s", diff)
	}
}

// relation is an entry of local.database_tables.
type relation struct {
	Schema  string `json:"schema"`
	Table   string `json:"table"`
	Trigger bool   `json:"trigger"` // may be put on it
	WAL     string `json:"wal"`     // the pipeline whose slot follows it
}

// TestDatabaseTables: Extract gets its rights on the tables that the functions read
// for the pipelines, those that they put triggers on and those that their slots follow.
func TestDatabaseTables(t *testing.T) {
	t.Parallel()
	for _, folder := range folders(t) {
		want := map[relation]bool{}
		for _, p := range pipelines(t, folder) {
			for _, table := range p.Tables {
				if table.Query == "" {
					own := relation{p.Schema, table.Name, table.Capture.Method == pipeline.MethodChangelog && table.Capture.Log == nil, ""}
					if table.Capture.Method == pipeline.MethodWAL {
						own.WAL = p.Name
					}
					want[own] = true
				}
				if log := table.Capture.Log; log != nil {
					schema, name, qualified := strings.Cut(log.Table, ".")
					if !qualified {
						schema, name = p.Schema, log.Table
					}
					want[relation{schema, name, false, ""}] = true
				}
				for _, related := range table.AlsoChangedBy {
					want[relation{p.Schema, related.Table, related.Capture.Method == pipeline.MethodChangelog, ""}] = true
				}
			}
		}
		got := map[relation]bool{}
		for _, r := range local[[]relation](t, evaluate(t, base(folder)), "database_tables") {
			if got[r] {
				t.Errorf("%s: %v is granted twice", folder, r)
			}
			got[r] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: local.database_tables (-in Go +in Terraform):\n%s", folder, diff)
		}
	}
}

// TestMisplacedWAL: what the functions would refuse to follow by a slot, a plan
// refuses, too, and nothing else.
func TestMisplacedWAL(t *testing.T) {
	t.Parallel()
	for _, folder := range append(folders(t), root+"/tests/pipelines/misplaced") {
		var want []string
		_, err := pipeline.Load(os.DirFS(folder), schemas.PipelineSchema())
		var problems pipeline.Problems
		if errors.As(err, &problems) {
			for _, p := range problems {
				if strings.Contains(p.What, "wal") {
					want = append(want, p.File)
				}
			}
		}
		var got []string
		for _, table := range local[[]string](t, evaluate(t, base(folder)), "misplaced_wal") {
			name, _, _ := strings.Cut(table, ".")
			got = append(got, name+".yaml")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: refused (-in Go +in Terraform):\n%s", folder, diff)
		}
	}
}

// TestSlotAlert is there where a pipeline has a slot, and nowhere else.
func TestSlotAlert(t *testing.T) {
	t.Parallel()
	for _, folder := range folders(t) {
		slots := slices.ContainsFunc(pipelines(t, folder), func(p pipeline.Pipeline) bool {
			return slices.ContainsFunc(p.Tables, func(t pipeline.Table) bool { return t.Capture.Method == pipeline.MethodWAL })
		})
		if _, alert := local[map[string]any](t, evaluate(t, base(folder)), "alerts")["lag"]; alert != slots {
			t.Errorf("%s: slots %t, alert %t", folder, slots, alert)
		}
	}
}

// TestDatasets: the datasets of listed tenants have the names that the functions
// fill in (I8).
func TestDatasets(t *testing.T) {
	t.Parallel()
	folder := root + "/tests/pipelines"
	values := map[string]string{"slug": "acme_7", "region": "eu"}
	variables := base(folder)
	variables["tenants"] = cty.ObjectVal(map[string]cty.Value{"crm": cty.ObjectVal(map[string]cty.Value{"7": cty.ObjectVal(map[string]cty.Value{
		"slug": cty.StringVal(values["slug"]), "region": cty.StringVal(values["region"]),
	})})})
	want := []string{}
	for _, p := range pipelines(t, folder) {
		want = append(want, tick.Unit{Pipeline: &p, Tenant: tick.Tenant{ID: "7", Values: values}}.Dataset())
	}
	got := local[map[string]any](t, evaluate(t, variables), "datasets")
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("local.datasets (-in Go +in Terraform):\n%s", diff)
	}
}

// TestChoices: what a variable may be is what the functions know.
func TestChoices(t *testing.T) {
	t.Parallel()
	v := evaluate(t, base(""))
	var sets []map[string]cty.Value
	for _, ip := range cloudsql.IPTypes() {
		variables := base("")
		database := variables["database"].AsValueMap()
		database["ip_type"] = cty.StringVal(ip)
		variables["database"] = cty.ObjectVal(database)
		variables["network"] = cty.ObjectVal(map[string]cty.Value{"network": cty.StringVal("projects/p/global/networks/n"), "subnetwork": cty.StringVal("projects/p/regions/r/subnetworks/s")})
		sets = append(sets, variables)
	}
	for name := range local[map[string]function](t, v, "functions") {
		variables := base("")
		variables["functions"] = cty.ObjectVal(map[string]cty.Value{name: cty.EmptyObjectVal})
		sets = append(sets, variables)
	}
	for _, variables := range sets {
		if invalid, err := evaluate(t, variables).Invalid(); err != nil || len(invalid) > 0 {
			t.Errorf("refused: %v, %v", invalid, err)
		}
	}
}

// TestDescribed: every variable and output says what it is.
func TestDescribed(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob(root + "/examples/*")
	if err != nil || len(examples) < 3 {
		t.Fatalf("examples %q, %v", examples, err)
	}
	for _, dir := range append(examples, root) {
		m, err := deployment.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range m.Variables {
			if v.Description == "" || v.Type == "" {
				t.Errorf("%s: variable %s has no description or no type", v.Position, v.Name)
			}
		}
		for _, o := range m.Outputs {
			if o.Description == "" {
				t.Errorf("%s: output %s has no description", o.Position, o.Name)
			}
		}
	}
}

package schemas_test

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemas.PipelineSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("pipeline.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("pipeline.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// full declares each key of DESIGN.md's example that there is.
const full = `{
	"pipeline": "shop", "source": {"schema": "public"}, "destination": {"dataset": "shop"},
	"defaults": {"every": "1m", "write": "append", "deletes": "soft", "batch_rows": 1000, "schema_changes": "evolve", "max_reject_percent": 10},
	"tenants": {"query": "SELECT id, slug FROM organizations WHERE active", "column": "organization_id", "dataset": "org_{slug}"},
	"tables": [
		{"name": "orders", "key": ["id"], "capture": {"method": "watermark", "cursor": "updated_at", "lookback": "10m"}, "every": "0 0 * * *", "write": "append",
		 "deletes": "ignore", "batch_rows": 1, "schema_changes": "stop", "max_reject_percent": 0.1, "max_staleness": "1h30m", "where": "NOT draft",
		 "columns": {"include": ["id", "mail"], "exclude": ["secret"], "rename": {"mail": "email"}, "hash": ["tax_no"], "as": {"payload": "JSON"}, "compute": {"full name": "a || b"}}, "partition_by": {"column": "created_at", "granularity": "month"}, "cluster_by": ["customer_id"]},
		{"name": "invoices", "capture": {"method": "changelog", "log": {"table": "admin_log", "cursor": "log_id", "lookback": 5, "object": "object_id",
		 "type": {"column": "type_id", "value": 12, "query": "SELECT 12"}, "action": {"column": "flag", "added": [1], "changed": 2, "deleted": true}}}},
		{"name": "order_facts", "key": ["order_id"], "query": "SELECT 2", "capture": {"method": "snapshot"},
		 "also_changed_by": [{"table": "buyers", "key": ["buyer"], "capture": {"method": "watermark", "cursor": "at", "lookback": "5m"}, "keys": "SELECT 3"}]}
	],
	"wal": {"max_lag": "10GB"},
	"dedup": {"every": "90m", "max_bytes": 1, "keep_deleted": "720h"},
	"reverse_etl": [
		{"name": "customer_scores", "every": "15m", "query": "SELECT 1", "mode": "upsert",
		 "target": {"table": "customers", "key": {"customer_id": "id"}, "columns": {"score": "lifetime_value"}},
		 "limits": {"batch_size": 1000, "lock_timeout": "2s", "statement_timeout": "1.5m", "pause": "100ms"}},
		{"name": "members", "every": "0 3 * * *", "after": [{"table": "crm.scores"}, {"scheduled_query": "6621a2b4-0000"}], "table": "p-1.{dataset}.members",
		 "changes": "ledger", "cursor": "at", "lookback": "5m", "full_every": "168h", "mode": "mirror", "deletes": "soft", "deleted_column": "gone", "approve": true,
		 "target": {"table": "members", "key": {"id": "id"}, "where": "country = 'US'", "many": false},
		 "limits": {"max_deletes": 10000, "max_delete_percent": 2.5, "max_swing_percent": 150, "max_staleness": "26h", "fresh_tables": ["scores"], "allow_cascade": false,
		 "batch_time": "750ms", "max_replication_lag": "64MB", "max_slot_lag": "0MB", "max_autovacuum_pause": "1m"}},
		{"name": "names", "csv": "gs://bucket/names.csv", "mode": "fill", "target": {"table": "orders", "key": {"email": "email"}, "columns": {"name": "name"}, "many": true}}
	]
}`

func TestPipelineSchema(t *testing.T) {
	t.Parallel()
	schema := compile(t)
	tests := []struct {
		name, old, replacement string // a change of full
		valid                  bool
	}{
		{"every key", "", "", true},
		{"granularity by default", `, "granularity": "month"`, ``, true},
		{"no key", `"key": ["id"], `, ``, true},
		{"no columns", `, "columns": {"score": "lifetime_value"}`, ``, true},
		{"hard deletes", `"deletes": "soft"`, `"deletes": "hard"`, true},
		{"update", `"mode": "upsert"`, `"mode": "update"`, true},
		{"composite look-back", `"10m"`, `"1h30m"`, true},

		{"unknown at the top", `"pipeline"`, `"x": 1, "pipeline"`, false},
		{"no pipeline", `"pipeline": "shop", `, ``, false},
		{"pipeline in capitals", `"shop", "source"`, `"Shop", "source"`, false},
		{"no destination", `"destination": {"dataset": "shop"},`, ``, false},
		{"project", `{"dataset": "shop"}`, `{"dataset": "shop", "project": "p"}`, false},
		{"dataset with a hyphen", `{"dataset": "shop"}`, `{"dataset": "my-shop"}`, false},
		{"unknown in source", `{"schema": "public"}`, `{"schemas": "public"}`, false},
		{"name over 63 characters", `{"schema": "public"}`, `{"schema": "` + strings.Repeat("x", 64) + `"}`, false},
		{"unknown default", `"defaults": {`, `"defaults": {"key": ["id"], `, false},
		{"no rows at all", `"batch_rows": 1000`, `"batch_rows": 0`, false},
		{"too many rows", `"batch_rows": 1000`, `"batch_rows": 10000001`, false},
		{"rows as text", `"batch_rows": 1000`, `"batch_rows": "1000"`, false},
		{"impersonate", `"column": "organization_id"`, `"column": "organization_id", "impersonate": "x"`, false},
		{"tenants without a filter", `"column": "organization_id", `, ``, false},
		{"one dataset for all tenants", `org_{slug}`, `orgs`, false},
		{"table without capture", `"capture": {"method": "watermark", "cursor": "updated_at", "lookback": "10m"}, `, ``, false},
		{"changelog", `"watermark"`, `"changelog"`, true},
		{"wal", `"watermark"`, `"wal"`, true},
		{"snapshot", `"watermark"`, `"snapshot"`, true},
		{"xmin", `"watermark"`, `"xmin"`, false},
		{"unknown in capture", `"method": "snapshot"`, `"method": "snapshot", "slot": "s"`, false},
		{"log in another schema", `"admin_log"`, `"audit.log"`, true},
		{"log in another database", `"admin_log"`, `"app.audit.log"`, false},
		{"log without a table", `"table": "admin_log", `, ``, false},
		{"log without a cursor", `"cursor": "log_id", `, ``, false},
		{"log without an object", `, "object": "object_id"`, ``, false},
		{"log of several columns", `"object_id"`, `["a", "b"]`, true},
		{"log of a column twice", `"object_id"`, `["a", "a"]`, false},
		{"unknown in log", `"cursor": "log_id"`, `"cursor": "log_id", "when": "at"`, false},
		{"type by nothing", `{"column": "type_id", `, `{`, false},
		{"type of several values", `"value": 12`, `"value": [12]`, false},
		{"type as text", `"value": 12`, `"value": "12"`, true},
		{"unknown in type", `"type_id"`, `"type_id", "model": "m"`, false},
		{"action by nothing", `{"column": "flag", `, `{`, false},
		{"action without values", `"added": [1]`, `"added": []`, false},
		{"action with half a value", `"added": [1]`, `"added": 0.5`, false},
		{"unknown action", `"added": [1]`, `"viewed": [1]`, false},
		{"related without a table", `"table": "buyers", `, ``, false},
		{"related without capture", `"capture": {"method": "watermark", "cursor": "at", "lookback": "5m"}, `, ``, false},
		{"related without keys", `, "keys": "SELECT 3"`, ``, false},
		{"related by wal", `"method": "watermark", "cursor": "at"`, `"method": "wal", "cursor": "at"`, false},
		{"related by snapshot", `"method": "watermark", "cursor": "at"`, `"method": "snapshot", "cursor": "at"`, false},
		{"related by a log", `"method": "watermark", "cursor": "at"`, `"method": "changelog", "log": {"table": "l", "cursor": "c", "object": "o"}`, false},
		{"related without a cursor", `"cursor": "at", `, ``, false},
		{"unknown in related", `"table": "buyers"`, `"table": "buyers", "query": "SELECT 1"`, false},
		{"no related table", `"also_changed_by": [{"table": "buyers", "key": ["buyer"], "capture": {"method": "watermark", "cursor": "at", "lookback": "5m"}, "keys": "SELECT 3"}]`, `"also_changed_by": []`, false},
		{"lag in bytes", `"10GB"`, `10000000000`, false},
		{"lag in units of 1024", `"10GB"`, `"10GiB"`, false},
		{"no lag", `"10GB"`, `"0GB"`, false},
		{"lag in megabytes", `"10GB"`, `"500MB"`, true},
		{"unknown in wal", `"max_lag"`, `"slot"`, false},
		{"no cursor", `"cursor": "updated_at", `, ``, false},
		{"look-back in days", `"10m"`, `"1d"`, false},
		{"negative look-back", `"10m"`, `"-10m"`, false},
		{"look-back of a counter", `"10m"`, `600`, true},
		{"negative look-back of a counter", `"10m"`, `-1`, false},
		{"merge", `"0 0 * * *", "write": "append"`, `"0 0 * * *", "write": "merge"`, true},
		{"cdc", `"0 0 * * *", "write": "append"`, `"0 0 * * *", "write": "cdc"`, true},
		{"replace", `"0 0 * * *", "write": "append"`, `"0 0 * * *", "write": "replace"`, true},
		{"history by default", `"every": "1m", "write": "append"`, `"every": "1m", "write": "history"`, true},
		{"upsert", `"0 0 * * *", "write": "append"`, `"0 0 * * *", "write": "upsert"`, false},
		{"resync", `"stop"`, `"resync"`, true},
		{"another schema policy", `"stop"`, `"ignore"`, false},
		{"half a row refused", `"max_reject_percent": 0.1`, `"max_reject_percent": "1%"`, false},
		{"no row refused", `"max_reject_percent": 0.1`, `"max_reject_percent": 0`, true},
		{"every row refused", `"max_reject_percent": 0.1`, `"max_reject_percent": 100`, true},
		{"more than every row refused", `"max_reject_percent": 0.1`, `"max_reject_percent": 100.1`, false},
		{"fewer than no row refused", `"max_reject_percent": 0.1`, `"max_reject_percent": -1`, false},
		{"staleness of nothing", `"1h30m"`, `"0s"`, true},
		{"staleness of half a second", `"1h30m"`, `"500ms"`, false},
		{"staleness in days", `"1h30m"`, `"1d"`, false},
		{"staleness by default", `"every": "1m", "write"`, `"every": "1m", "max_staleness": "1m", "write"`, false},
		{"empty condition", `"NOT draft"`, `""`, false},
		{"conditions", `"NOT draft"`, `["NOT draft"]`, false},
		{"no columns at all", `{"include": ["id", "mail"], "exclude": ["secret"], "rename": {"mail": "email"}, "hash": ["tax_no"], "as": {"payload": "JSON"}, "compute": {"full name": "a || b"}}`, `{}`, true},
		{"unknown in columns", `"include"`, `"only"`, false},
		{"nothing included", `["id", "mail"]`, `[]`, false},
		{"included twice", `["id", "mail"]`, `["id", "id"]`, false},
		{"excluded as text", `["secret"]`, `"secret"`, false},
		{"renamed to nothing", `{"mail": "email"}`, `{"mail": ""}`, false},
		{"renamed to what BigQuery does not allow", `{"mail": "email"}`, `{"mail": "e.mail"}`, false},
		{"renamed to a backslash", `{"mail": "email"}`, `{"mail": "e\\mail"}`, false},
		{"renamed to a bracket", `{"mail": "email"}`, `{"mail": "e]mail"}`, false},
		{"renamed to 300 characters", `{"mail": "email"}`, `{"mail": "` + strings.Repeat("é", 300) + `"}`, true},
		{"renamed to 301 characters", `{"mail": "email"}`, `{"mail": "` + strings.Repeat("é", 301) + `"}`, false},
		{"renamed twice", `{"mail": "email"}`, `{"mail": ["email", "mail"]}`, false},
		{"hash by name", `["tax_no"]`, `{"tax_no": "sha256"}`, false},
		{"type in lower case", `"JSON"`, `"json"`, false},
		{"type of Postgres", `"JSON"`, `"text"`, false},
		{"computed nothing", `"a || b"`, `""`, false},
		{"computed with a dot", `"full name"`, `"full.name"`, false},
		{"deleted rows kept for days", `"720h"`, `"30d"`, false},
		{"query", `"key": ["id"]`, `"key": ["id"], "query": "SELECT 1"`, true},
		{"empty query", `"SELECT 2"`, `""`, false},
		{"empty key", `["id"]`, `[]`, false},
		{"key column twice", `["id"]`, `["id", "id"]`, false},
		{"key as text", `["id"]`, `"id"`, false},
		{"partition by week", `"month"`, `"week"`, false},
		{"partition by nothing", `"column": "created_at", `, ``, false},
		{"five cluster columns", `["customer_id"]`, `["a", "b", "c", "d", "e"]`, false},
		{"dedup without cadence", `"every": "90m", `, ``, false},
		{"dedup of no bytes", `"max_bytes": 1`, `"max_bytes": 0`, false},
		{"verify", `"dedup"`, `"verify": {"every": "24h"}, "dedup"`, false},
		{"sync without a name", `"name": "customer_scores", `, ``, false},
		{"sync with an empty query", `"query": "SELECT 1"`, `"query": ""`, false},
		{"sync with a cursor", `"query": "SELECT 1", `, `"query": "SELECT 1", "cursor": "at", `, true},
		{"unknown in a sync", `"query": "SELECT 1", `, `"query": "SELECT 1", "sql": "at", `, false},
		{"sync without a mode", `"mode": "upsert",`, ``, false},
		{"insert", `"upsert"`, `"insert"`, true},
		{"fill", `"upsert"`, `"fill"`, true},
		{"mirror", `"upsert"`, `"mirror"`, true},
		{"merge as a mode", `"upsert"`, `"merge"`, false},
		{"sync without a key", `"key": {"customer_id": "id"}, `, ``, false},
		{"sync with an empty key", `{"customer_id": "id"}`, `{}`, false},
		{"mapping to a number", `{"customer_id": "id"}`, `{"customer_id": 1}`, false},
		{"unknown in target", `"many": true`, `"all": true`, false},
		{"many as text", `"many": true`, `"many": "true"`, false},
		{"an empty scope", `"country = 'US'"`, `""`, false},
		{"unknown in limits", `"limits": {`, `"limits": {"max_inserts": 5, `, false},
		{"deletes of others", `"max_deletes": 10000`, `"max_deletes": -1`, false},
		{"no deletes", `"max_deletes": 10000`, `"max_deletes": 0`, true},
		{"half a delete", `"max_deletes": 10000`, `"max_deletes": 0.5`, false},
		{"deletes of all", `"max_delete_percent": 2.5`, `"max_delete_percent": 100`, true},
		{"deletes of more than all", `"max_delete_percent": 2.5`, `"max_delete_percent": 100.1`, false},
		{"deletes of less than none", `"max_delete_percent": 2.5`, `"max_delete_percent": -0.1`, false},
		{"swing of less than none", `"max_swing_percent": 150`, `"max_swing_percent": -1`, false},
		{"staleness of a source in days", `"26h"`, `"1d"`, false},
		{"no fresh table", `["scores"]`, `[]`, false},
		{"fresh table twice", `["scores"]`, `["scores", "scores"]`, false},
		{"fresh table with a backtick", `["scores"]`, `["` + "`d`.`scores`" + `"]`, false},
		{"lag of a standby in units of 1024", `"64MB"`, `"64MiB"`, false},
		{"lag of a standby without unit", `"64MB"`, `"0"`, false},
		{"after nothing", `[{"table": "crm.scores"}, {"scheduled_query": "6621a2b4-0000"}]`, `[]`, false},
		{"after a table by name", `[{"table": "crm.scores"}, {"scheduled_query": "6621a2b4-0000"}]`, `["crm.scores"]`, false},
		{"after shards of a table", `"crm.scores"`, `"crm.scores_*"`, true},
		{"after a table of two stars", `"crm.scores"`, `"crm.scores**"`, false},
		{"after a table with a star amid it", `"crm.scores"`, `"crm.s*s"`, false},
		{"after a scheduled query by its resource name", `"6621a2b4-0000"}`, `"projects/1/locations/eu/transferConfigs/6621a2b4-0000"}`, true},
		{"after a scheduled query by the name it is shown by", `"6621a2b4-0000"}`, `"Nightly scores"}`, false},
		{"after a run of a scheduled query", `"6621a2b4-0000"}`, `"projects/1/locations/eu/transferConfigs/6621a2b4-0000/runs/1"}`, false},
		{"after another project's table", `"crm.scores"`, `"p.crm.scores"`, false},
		{"unknown in after", `"scheduled_query": "6621a2b4`, `"job": "6621a2b4`, false},
		{"changes by appends", `"ledger"`, `"appends"`, true},
		{"changes by another way", `"ledger"`, `"xmin"`, false},
		{"deletes of a sync ignored", `"deletes": "soft", "deleted`, `"deletes": "ignore", "deleted`, false},
		{"look-back of a sync in numbers", `"5m", "full_every"`, `300, "full_every"`, false},
		{"full comparison in days", `"168h"`, `"7d"`, false},
		{"a table in the dataset", `"p-1.{dataset}.members"`, `"members"`, true},
		{"a table of a tenant", `"p-1.{dataset}.members"`, `"{slug}.members"`, false},
		{"a table without a name", `"p-1.{dataset}.members"`, `"crm."`, false},
		{"a partition", `"p-1.{dataset}.members"`, `"crm.members$20260101"`, false},
		{"no file", `"gs://bucket/names.csv"`, `""`, false},
		{"no batch", `"batch_size": 1000`, `"batch_size": 0`, false},
		{"composite timeout", `"2s"`, `"1m30s"`, false},
		{"timeout without unit", `"2s"`, `"2"`, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			text := full
			if test.old != "" {
				if text = strings.Replace(full, test.old, test.replacement, 1); text == full {
					t.Fatalf("%s is not in the sample", test.old)
				}
			}
			instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(instance); (err == nil) != test.valid {
				t.Errorf("valid %t, want %t: %v", err == nil, test.valid, err)
			}
		})
	}
}

// TestNothingUnknownPasses: no object of the schema lets a key through that it
// does not name, but for the mappings, whose keys are the user's.
func TestNothingUnknownPasses(t *testing.T) {
	t.Parallel()
	seen := map[*jsonschema.Schema]bool{}
	var walk func(string, *jsonschema.Schema)
	walk = func(at string, s *jsonschema.Schema) {
		if s == nil || seen[s] {
			return
		}
		seen[s] = true
		walk(at, s.Ref)
		walk(at+"[]", s.Items2020)
		if len(s.Properties) > 0 && s.AdditionalProperties != false {
			t.Errorf("%s allows unknown keys", at)
		}
		for name, p := range s.Properties {
			walk(at+"/"+name, p)
		}
	}
	walk("", compile(t))
	if len(seen) < 80 {
		t.Errorf("only %d schemas were seen", len(seen))
	}
}

func TestEmbeddedFiles(t *testing.T) {
	t.Parallel()
	pipelines, err := pipeline.Load(schemas.Pipelines(), schemas.PipelineSchema())
	if err != nil || len(pipelines) == 0 {
		t.Errorf("embedded pipelines: %v, %v", pipelines, err)
	}
	if _, err := fs.Stat(schemas.Pipelines(), "bigquery"); err != nil {
		t.Errorf("embedded contracts: %v", err)
	}
	migrations, err := fs.Glob(schemas.ControlPlane(), "*.sql")
	if err != nil || len(migrations) == 0 {
		t.Errorf("embedded migrations: %v, %v", migrations, err)
	}
}

// TestMigrationsThatWait: an index made CONCURRENTLY waits for older transactions, longer
// than migrations wait for locks, and one whose wait was cut short stays behind invalid.
func TestMigrationsThatWait(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(schemas.ControlPlane(), "*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	for _, name := range files {
		text, err := fs.ReadFile(schemas.ControlPlane(), name)
		if err != nil {
			t.Fatal(err)
		}
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		if !strings.Contains(up, "CREATE INDEX CONCURRENTLY") && !strings.Contains(up, "CREATE UNIQUE INDEX CONCURRENTLY") {
			continue
		}
		for _, need := range []string{"-- +goose NO TRANSACTION", "SET lock_timeout = 0", "DROP INDEX CONCURRENTLY IF EXISTS"} {
			if !strings.Contains(up, need) {
				t.Errorf("%s makes an index CONCURRENTLY without %q; see controlplane.Open", name, need)
			}
		}
	}
}

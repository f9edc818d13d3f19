package pipeline_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

func load(files map[string]string) ([]pipeline.Pipeline, error) {
	fs := fstest.MapFS{}
	for name, text := range files {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return pipeline.Load(fs, schemas.PipelineSchema())
}

// watermark is a capture by a cursor with that look-back.
func watermark(cursor string, back time.Duration, count int64) pipeline.Capture {
	return pipeline.Capture{Method: pipeline.MethodWatermark, Cursor: cursor, Lookback: pipeline.Lookback{Time: back, Count: count}}
}

// everything declares each key there is; of capture, see captures.
const everything = `# every key
pipeline: shop
source: {schema: sales}
destination: {dataset: shop}
defaults: {every: 120s, write: append, deletes: ignore, batch_rows: 1000, schema_changes: stop, max_reject_percent: 0.5}
tenants:
  query: SELECT id, slug FROM organizations
  column: organization_id
  dataset: "org_{slug}"
wal: {max_lag: 5TB}
tables:
  - name: orders
    key: [id, line]
    capture: {method: watermark, cursor: updated_at, lookback: 1h30m}
    every: "*/5  *  * * *"
    write: append
    deletes: hard
    batch_rows: 7
    partition_by: {column: created, granularity: month}
    cluster_by: [customer_id]
    schema_changes: resync
    max_reject_percent: 0
    where: status <> 'draft'
    columns:
      exclude: [notes]
      rename: {mail: email, created_at: created}
      hash: [mail]
      as: {payload: STRING, took: INTERVAL}
      compute: {total: "net + tax", Zone: "lower(zone)"}
  - {name: events, capture: {method: watermark, cursor: id, lookback: 50}, partition_by: {column: at}}
dedup: {every: 90m, max_bytes: 5, keep_deleted: 720h}
reverse_etl:
  - name: scores
    every: 15m
    query: SELECT customer_id, score, at FROM x
    target: {table: customers, key: {customer_id: id}, columns: {score: lifetime_value, at: scored_at}}
    mode: update
    limits: {batch_size: 10, lock_timeout: 500ms, statement_timeout: 1m, pause: 1.5s}
  - {name: labels, query: SELECT 1, target: {table: labels, key: {b: b, a: a}}, mode: upsert}
`

func TestLoad(t *testing.T) {
	t.Parallel()
	got, err := load(map[string]string{
		"shop.yaml": everything, "small.yaml": "pipeline: small\ndestination: {dataset: d}\ntables: [{name: t, capture: {method: watermark, cursor: c}}]\ndedup: {every: 24h}\n",
		"notes.txt": "not a pipeline", "old/shop.yaml": "also: not",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []pipeline.Pipeline{
		{
			Name: "shop", File: "shop.yaml", Schema: "sales", Dataset: "shop", WAL: pipeline.WAL{MaxLag: 5e12},
			Tenants: &pipeline.Tenants{Query: "SELECT id, slug FROM organizations", Column: "organization_id", Dataset: "org_{slug}"},
			Tables: []pipeline.Table{
				{
					Name: "orders", Key: []string{"id", "line"}, Capture: watermark("updated_at", 90*time.Minute, 10_000), Every: "*/5 * * * *",
					Write: pipeline.WriteAppend, Deletes: pipeline.DeletesHard, BatchRows: 7, SchemaChanges: pipeline.SchemaResync, Where: "status <> 'draft'",
					PartitionBy: &pipeline.PartitionBy{Column: "created", Granularity: "month"}, ClusterBy: []string{"customer_id"}, Line: 12,
					Columns: pipeline.Columns{
						Exclude: []string{"notes"}, Hash: []string{"mail"}, As: map[string]string{"payload": "STRING", "took": "INTERVAL"},
						Rename:  []pipeline.Mapping{{From: "created_at", To: "created"}, {From: "mail", To: "email"}},
						Compute: []pipeline.Computed{{Name: "Zone", SQL: "lower(zone)"}, {Name: "total", SQL: "net + tax"}},
					},
				},
				{
					Name: "events", Capture: watermark("id", 10*time.Minute, 50), Every: "2m", Write: pipeline.WriteAppend, Deletes: pipeline.DeletesIgnore,
					BatchRows: 1000, PartitionBy: &pipeline.PartitionBy{Column: "at", Granularity: "day"}, Line: 30,
					SchemaChanges: pipeline.SchemaStop, MaxRejects: 0.005,
				},
			},
			Dedup: &pipeline.Dedup{Every: "1h30m", MaxBytes: 5, KeepDeleted: 30 * 24 * time.Hour},
			ReverseETL: []pipeline.Sync{
				{
					Name: "scores", Every: "15m", Query: "SELECT customer_id, score, at FROM x", Table: "customers", Mode: pipeline.ModeUpdate,
					Key: []pipeline.Mapping{{From: "customer_id", To: "id"}}, Columns: []pipeline.Mapping{{From: "at", To: "scored_at"}, {From: "score", To: "lifetime_value"}},
					Changes: pipeline.ChangesFull,
					Limits: limits(func(l *pipeline.Limits) {
						l.BatchSize, l.LockTimeout, l.StatementTimeout, l.Pause = 10, 500*time.Millisecond, time.Minute, 1500*time.Millisecond
					}), Line: 33,
				},
				{
					Name: "labels", Query: "SELECT 1", Table: "labels", Mode: pipeline.ModeUpsert,
					Key: []pipeline.Mapping{{From: "a", To: "a"}, {From: "b", To: "b"}}, Columns: []pipeline.Mapping{},
					Changes: pipeline.ChangesFull, Limits: limits(nil), Line: 39,
				},
			},
		},
		{
			Name: "small", File: "small.yaml", Schema: "public", Dataset: "d", WAL: pipeline.WAL{MaxLag: 10e9},
			Tables: []pipeline.Table{{
				Name: "t", Capture: watermark("c", 10*time.Minute, 10_000), Every: "1m", Write: pipeline.WriteAppend, Deletes: pipeline.DeletesSoft, BatchRows: 500_000, Line: 3,
				SchemaChanges: pipeline.SchemaEvolve, MaxRejects: 0.1,
			}},
			Dedup: &pipeline.Dedup{Every: "24h", MaxBytes: 1 << 40},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	if orders := got[0].Table("orders"); orders == nil || orders.Name != "orders" || got[0].Table("nope") != nil {
		t.Errorf("Table(orders) = %v, Table(nope) = %v", orders, got[0].Table("nope"))
	}
	if scores := got[0].Sync("scores"); scores == nil || scores.Name != "scores" || got[0].Sync("nope") != nil {
		t.Errorf("Sync(scores) = %v, Sync(nope) = %v", scores, got[0].Sync("nope"))
	}
}

// TestLoadOrder: where a mapping spans lines, it keeps the order of the file.
func TestLoadOrder(t *testing.T) {
	t.Parallel()
	got, err := load(map[string]string{"a.yaml": `pipeline: a
destination: {dataset: d}
reverse_etl:
  - name: s
    query: SELECT 1
    mode: upsert
    target:
      table: t
      key:
        z: id
        a: line
      columns:
        y: one
        b: two
        x: three
`})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]pipeline.Mapping{
		{{From: "z", To: "id"}, {From: "a", To: "line"}},
		{{From: "y", To: "one"}, {From: "b", To: "two"}, {From: "x", To: "three"}},
	}
	if diff := cmp.Diff(want, [][]pipeline.Mapping{got[0].ReverseETL[0].Key, got[0].ReverseETL[0].Columns}); diff != "" {
		t.Errorf("mappings (-want +got):\n%s", diff)
	}
}

const (
	head      = "pipeline: a\ndestination: {dataset: d}\n" // two lines
	rootKeys  = "known keys: dedup, defaults, destination, pipeline, reverse_etl, source, tables, tenants, wal"
	tableKeys = "known keys: also_changed_by, batch_rows, capture, cluster_by, columns, deletes, every, key, max_reject_percent, max_staleness, name, partition_by, query, schema_changes, where, write"
	cadences  = `write an interval such as 1m or 24h, or five cron fields such as "0 3 * * *" (UTC) or "CRON_TZ=Europe/Berlin 0 3 * * *"`
)

// TestProblems: each file has all of its mistakes reported, with the line and
// what to do.
func TestProblems(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		want       []string // without the file's name
	}{
		{"no mapping at all", "- a\n", []string{":1: the file is a array; it has to be: object"}},
		{"empty", "", []string{": the file is empty; correct the YAML"}},
		{"YAML syntax", "pipeline: a\ndestination: {dataset: d}\ntables: a: b\n", []string{":3: mapping values are not allowed in this context; correct the YAML"}},
		{"an open quote", "pipeline: a\ndestination: {dataset: d}\n\nsource: {schema: 'x}\n", []string{":4: found unexpected end of stream; correct the YAML"}},
		{"a tab", "pipeline: a\n\tdestination: d\n", []string{":2: found a tab character that violates indentation; correct the YAML"}},
		{"unknown anchor", "pipeline: *x\n", []string{": yaml: unknown anchor 'x' referenced; correct the YAML"}},
		{"duplicate keys at every level", `pipeline: a
destination: {dataset: d, dataset: e}
pipeline: b
tables:
  - name: t
    capture: {method: watermark, cursor: c}
    name: u
`, []string{
			`:2: key "dataset" is given twice; keep one of them`,
			`:3: key "pipeline" is given twice; keep one of them`,
			`:7: key "name" is given twice; keep one of them`,
		}},
		{"nothing required", "tables: []\n", []string{
			`:1: the file has no "pipeline"; add pipeline:`,
			`:1: the file has no "destination"; add destination:`,
		}},
		{"required further down", `pipeline: a
destination: {}
tenants: {query: q}
tables:
  - {name: t}
  - capture: {}
dedup: {}
reverse_etl:
  - target: {}
`, []string{
			`:2: destination has no "dataset"; add dataset:`,
			`:3: tenants has no "column"; add column:`,
			`:3: tenants has no "dataset"; add dataset:`,
			`:5: tables[0] has no "capture"; add capture:`,
			`:6: tables[1] has no "name"; add name:`,
			`:6: tables[1].capture has no "method"; add method:`,
			`:7: dedup has no "every"; add every:`,
			`:9: reverse_etl[0] has no "name"; add name:`,
			`:9: reverse_etl[0] has no "mode"; add mode:`,
			`:9: reverse_etl[0].target has no "table"; add table:`,
			`:9: reverse_etl[0].target has no "key"; add key:`,
		}},
		{"unknown keys at each level", `pipeline: a
destinations: {dataset: d}
destination:
  dataset: d
  project: p
source: {scheme: s}
defaults:
  evry: 1m
tenants: {query: q, column: c, dataset: "{x}", impersonate: y}
tables:
  - name: t
    captrue: {}
    capture:
      method: watermark
      cursor: c
      look_back: 1m
    partition_by: {column: c, granularty: day}
dedup: {every: 1m, maxbytes: 1}
reverse_etl:
  - name: s
    query: q
    mode: upsert
    cursors: c
    after: [{job: j}]
    target: {table: t, key: {a: a}, column: {b: b}}
    limits:
      batchsize: 1
`, []string{
			`:2: unknown key "destinations" in the file; did you mean "destination"? ` + rootKeys,
			`:5: unknown key "project" in destination; known keys: dataset`,
			`:6: unknown key "scheme" in source; did you mean "schema"? known keys: schema`,
			`:8: unknown key "evry" in defaults; did you mean "every"? known keys: batch_rows, deletes, every, max_reject_percent, schema_changes, write`,
			`:9: unknown key "impersonate" in tenants; known keys: column, dataset, query`,
			`:12: unknown key "captrue" in tables[0]; did you mean "capture"? ` + tableKeys,
			`:16: unknown key "look_back" in tables[0].capture; did you mean "lookback"? known keys: cursor, log, lookback, method`,
			`:17: unknown key "granularty" in tables[0].partition_by; did you mean "granularity"? known keys: column, granularity`,
			`:18: unknown key "maxbytes" in dedup; did you mean "max_bytes"? known keys: every, keep_deleted, max_bytes`,
			`:23: unknown key "cursors" in reverse_etl[0]; did you mean "cursor"? known keys: after, approve, changes, csv, cursor, deleted_column, deletes, every, full_every, limits, lookback, mode, name, query, table, target`,
			`:24: unknown key "job" in reverse_etl[0].after[0]; known keys: scheduled_query, table`,
			`:25: unknown key "column" in reverse_etl[0].target; did you mean "columns"? known keys: columns, key, many, table, where`,
			`:27: unknown key "batchsize" in reverse_etl[0].limits; did you mean "batch_size"? known keys: allow_cascade, batch_size, batch_time, fresh_tables, lock_timeout, max_autovacuum_pause, max_delete_percent, max_deletes, max_replication_lag, max_slot_lag, max_staleness, max_swing_percent, pause, statement_timeout`,
		}},
		{"values no enumeration has", `pipeline: a
destination: {dataset: d}
defaults: {write: upsert, deletes: maybe, schema_changes: follow}
tables:
  - name: t
    capture: {method: cdc, cursor: c}
    write: insert
    partition_by: {column: c, granularity: week}
    columns: {as: {c: TEXT}}
reverse_etl:
  - {name: s, query: q, target: {table: t, key: {a: a}}, mode: merge, changes: diff, deletes: ignore}
`, []string{
			":3: upsert is not a value of defaults.write; use one of: append, merge, cdc, replace, history",
			":3: follow is not a value of defaults.schema_changes; use one of: evolve, stop, resync",
			":3: maybe is not a value of defaults.deletes; use one of: ignore, soft, hard",
			":6: cdc is not a value of tables[0].capture.method; use one of: watermark, changelog, wal, snapshot",
			":7: insert is not a value of tables[0].write; use one of: append, merge, cdc, replace, history",
			":8: week is not a value of tables[0].partition_by.granularity; use one of: hour, day, month, year",
			":9: TEXT is not a value of tables[0].columns.as.c; use one of: STRING, BYTES, BOOL, INT64, FLOAT64, NUMERIC, BIGNUMERIC, DATE, TIME, DATETIME, TIMESTAMP, INTERVAL, JSON, GEOGRAPHY",
			":11: diff is not a value of reverse_etl[0].changes; use one of: full, cursor, appends, ledger",
			":11: ignore is not a value of reverse_etl[0].deletes; use one of: hard, soft",
			":11: merge is not a value of reverse_etl[0].mode; use one of: insert, upsert, update, fill, mirror",
		}},
		{"wrong types", `pipeline: no
destination: d
source:
tables:
  - name: 5
    key: id
    capture: {method: watermark, cursor: [c]}
    batch_rows: many
  - {name: t, capture: {method: watermark, cursor: true}, batch_rows: 1.5}
reverse_etl: {}
`, []string{
			":2: destination is a string; it has to be: object",
			":3: source is a null; it has to be: object",
			":5: tables[0].name is a number; it has to be: string",
			":6: tables[0].key is a string; it has to be: array",
			":7: tables[0].capture.cursor is a array; it has to be: string",
			":8: tables[0].batch_rows is a string; it has to be: integer",
			":9: tables[1].capture.cursor is a boolean; it has to be: string",
			":9: tables[1].batch_rows is a number; it has to be: integer",
			":10: reverse_etl is a object; it has to be: array",
		}},
		{"patterns and bounds", `pipeline: Shop
destination: {dataset: my-data}
tenants: {query: "", column: c, dataset: org}
tables:
  - {name: "", capture: {method: watermark, cursor: c, lookback: -1m}, batch_rows: 0, key: [], cluster_by: [a, a]}
reverse_etl:
  - {name: s, query: q, mode: upsert, target: {table: t, key: {}}, limits: {pause: soon}}
`, []string{
			`:1: "Shop" does not fit pipeline; it has to match ^[a-z][a-z0-9_-]{0,62}$`,
			`:2: "my-data" does not fit destination.dataset; it has to match ^[A-Za-z0-9_]+$`,
			`:3: tenants.query: minLength: got 0, want 1; correct the value`,
			`:3: "org" does not fit tenants.dataset; it has to match ^[A-Za-z0-9_]*\{[a-z_][a-z0-9_]*\}[A-Za-z0-9_{}]*$`,
			`:5: tables[0].name: minLength: got 0, want 1; correct the value`,
			`:5: "-1m" does not fit tables[0].capture.lookback; it has to match ^[0-9]+(s|m|h)([0-9]+(s|m|h))*$`,
			`:5: tables[0].batch_rows: minimum: got 0, want 1; correct the value`,
			`:5: tables[0].key: minItems: got 0, want 1; correct the value`,
			`:5: tables[0].cluster_by: items at 0 and 1 are equal; correct the value`,
			`:7: reverse_etl[0].target.key: minProperties: got 0, want 1; correct the value`,
			`:7: "soon" does not fit reverse_etl[0].limits.pause; it has to match ^[0-9]+(\.[0-9]+)?(ms|s|m|h)$`,
		}},
		{"cadences and durations", head + `tables:
  - {name: t, capture: {method: watermark, cursor: c, lookback: 99999999999h}, every: soon}
  - {name: u, capture: {method: watermark, cursor: c}, every: 500ms}
dedup: {every: "* * * *"}
reverse_etl:
  - {name: s, query: q, mode: upsert, target: {table: t, key: {a: a}}, every: "61 * * * *"}
`, []string{
			`:4: "soon" is neither an interval nor a cron expression; ` + cadences,
			`:4: "99999999999h" is not a duration; write for example 500ms, 10m or 24h`,
			`:5: the interval "500ms" is under a second; ` + cadences,
			`:6: "* * * *" is neither an interval nor a cron expression; ` + cadences,
			`:8: "61 * * * *" is neither an interval nor a cron expression; ` + cadences,
		}},
		{"declared twice", head + `tables:
  - {name: t, capture: {method: watermark, cursor: c}}
  - {name: u, capture: {method: watermark, cursor: c}}
  - capture: {method: watermark, cursor: c}
    name: t
reverse_etl:
  - {name: s, query: q, mode: upsert, target: {table: t, key: {a: a}}}
  - {name: s, query: q, mode: upsert, target: {table: t, key: {a: a}}}
`, []string{
			`:7: table "t" is also declared on line 4; keep one of them`,
			`:10: reverse sync "s" is also declared on line 9; keep one of them`,
		}},
		{"mappings", head + `reverse_etl:
  - name: writes-the-key
    query: q
    mode: update
    target:
      table: t
      key:
        a: id
      columns:
        b: id
        c: score
        d: score
  - {name: two-for-one-key, query: q, mode: upsert, target: {table: t, key: {a: id, b: id}}}
  - {name: writes-nothing, query: q, mode: update, target: {table: t, key: {a: id}}}
`, []string{
			`:12: column "id" of the table is already written by the key; map each column of the table once; key columns are never set`,
			`:14: column "score" of the table is already written by c; map each column of the table once; key columns are never set`,
			`:15: column "id" of the table is already written by a; map each column of the table once; key columns are never set`,
			`:16: mode update needs columns to write; add columns: {<column of the source>: <column of the table>}`,
		}},
		{"timeouts", head + `reverse_etl:
  - name: same
    query: q
    mode: upsert
    target: {table: t, key: {a: a}}
    limits:
      lock_timeout: 30s
  - {name: above, query: q, mode: upsert, target: {table: t, key: {a: a}}, limits: {lock_timeout: 2s, statement_timeout: 1s}}
  - {name: below, query: q, mode: upsert, target: {table: t, key: {a: a}}, limits: {lock_timeout: 999ms, statement_timeout: 1s}}
`, []string{
			`:8: lock_timeout is not below statement_timeout, so it could never fire; make lock_timeout the smaller one`,
			`:10: lock_timeout is not below statement_timeout, so it could never fire; make lock_timeout the smaller one`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			refused(t, test.yaml, test.want)
		})
	}
}

// refused loads a file for its problems, without the file's name.
func refused(t *testing.T, yaml string, problemsWanted []string) {
	t.Helper()
	got, err := load(map[string]string{"a.yaml": yaml})
	var problems pipeline.Problems
	if !errors.As(err, &problems) {
		t.Fatalf("error %v, want problems", err)
	}
	if got != nil {
		t.Errorf("pipelines in spite of problems: %v", got)
	}
	want := make([]string, len(problemsWanted))
	for i, line := range problemsWanted {
		want[i] = "a.yaml" + line
	}
	// Of one line, the order is the validator's.
	if diff := cmp.Diff(byLine(want), byLine(strings.Split(err.Error(), "\n"))); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	for i := 1; i < len(problems); i++ {
		if problems[i].Line < problems[i-1].Line {
			t.Errorf("line %d is reported after line %d", problems[i].Line, problems[i-1].Line)
		}
	}
}

// byLine is the problems of each place, in alphabetical order.
func byLine(problems []string) map[string][]string {
	out := map[string][]string{}
	for _, p := range slices.Sorted(slices.Values(problems)) {
		place, what, _ := strings.Cut(p, ": ")
		out[place] = append(out[place], what)
	}
	return out
}

func TestProblemsOfAllFiles(t *testing.T) {
	t.Parallel()
	_, err := load(map[string]string{
		"c.yaml": "pipeline: shop\ndestination: {dataset: d}\n",
		"a.yaml": "pipeline: shop\ndestination: {dataset: d}\n",
		"b.yaml": "pipeline: other\ndestination: {}\n",
		"d.yaml": "pipeline: fine\ndestination: {dataset: d}\ndedup: {every: never}\n",
	})
	want := `b.yaml:2: destination has no "dataset"; add dataset:
c.yaml:1: pipeline "shop" is also declared in a.yaml; give each file its own name
d.yaml:3: "never" is neither an interval nor a cron expression; ` + cadences
	if err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestNoFiles(t *testing.T) {
	t.Parallel()
	got, err := load(nil)
	if err != nil || len(got) != 0 {
		t.Errorf("Load of an empty folder = %v, %v", got, err)
	}
}

func TestSchemaThatIsNone(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{"", "{", `{"type": 5}`, `{"$ref": "#/$defs/nope"}`} {
		if _, err := pipeline.Load(fstest.MapFS{}, []byte(schema)); err == nil {
			t.Errorf("schema %q was accepted", schema)
		}
	}
}

package pipeline_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// captures declares each way to find a change.
const captures = head + `tables:
  - {name: orders, capture: {method: watermark, cursor: updated_at, lookback: 10m}}
  - {name: order_items, capture: {method: changelog}}
  - name: invoices
    key: [id]
    capture:
      method: changelog
      log:
        table: django_admin_log
        cursor: id
        lookback: 500
        object: object_id
        type: {column: content_type_id, query: "SELECT id FROM django_content_type WHERE model = 'invoice'"}
        action: {column: action_flag, added: [1], changed: [2, "3", -4, x], deleted: 0}
  - name: lines
    key: [invoice, line]
    capture:
      method: changelog
      log: {table: audit.log, cursor: at, object: [a, b], type: {column: kind, value: 12}, action: {column: gone, changed: false, deleted: [true]}}
  - {name: notes, capture: {method: changelog, log: {table: notes_log, cursor: id, object: [a, b], type: {column: kind, value: note}}}}
  - {name: customers, capture: {method: wal}}
  - {name: daily_stats, capture: {method: snapshot}}
  - name: order_facts
    key: [order_id]
    query: |
      -- with the customer's name
      SELECT o.id AS order_id, c.name, o.updated_at FROM orders o JOIN customers c ON c.id = o.customer_id
    capture: {method: watermark, cursor: updated_at}
    also_changed_by:
      - {table: customers, capture: {method: watermark, cursor: updated_at}, keys: "SELECT o.id FROM orders o JOIN {changed} c ON c.id = o.customer_id"}
      - {table: regions, key: [code], capture: {method: changelog}, keys: "SELECT o.id FROM orders o WHERE region IN (SELECT code FROM {changed})"}
  - {name: invoice_facts, key: [id], query: SELECT 1, capture: {method: changelog, log: {table: log, cursor: id, object: o}}}
  - {name: totals, key: [id], query: "SELECT ';'", capture: {method: snapshot}}
`

func TestCaptures(t *testing.T) {
	t.Parallel()
	loaded, err := load(map[string]string{"a.yaml": captures})
	if err != nil {
		t.Fatal(err)
	}
	counted := pipeline.Lookback{Time: 10 * time.Minute, Count: 10_000}
	changelog := func(log *pipeline.Log) pipeline.Capture {
		return pipeline.Capture{Method: pipeline.MethodChangelog, Log: log}
	}
	updated := watermark("updated_at", 10*time.Minute, 10_000)
	want := []pipeline.Table{
		{Name: "orders", Capture: updated},
		{Name: "order_items", Capture: changelog(nil)},
		{Name: "invoices", Key: []string{"id"}, Capture: changelog(&pipeline.Log{
			Table: "django_admin_log", Cursor: "id", Lookback: pipeline.Lookback{Time: 10 * time.Minute, Count: 500}, Object: []string{"object_id"},
			Type:   &pipeline.LogType{Column: "content_type_id", Query: "SELECT id FROM django_content_type WHERE model = 'invoice'"},
			Action: &pipeline.LogAction{Column: "action_flag", Added: []string{"1"}, Changed: []string{"2", "3", "-4", "x"}, Deleted: []string{"0"}},
		})},
		{Name: "lines", Key: []string{"invoice", "line"}, Capture: changelog(&pipeline.Log{
			Table: "audit.log", Cursor: "at", Lookback: counted, Object: []string{"a", "b"}, Type: &pipeline.LogType{Column: "kind", Value: "12"},
			Action: &pipeline.LogAction{Column: "gone", Changed: []string{"false"}, Deleted: []string{"true"}},
		})},
		{Name: "notes", Capture: changelog(&pipeline.Log{
			Table: "notes_log", Cursor: "id", Lookback: counted, Object: []string{"a", "b"}, Type: &pipeline.LogType{Column: "kind", Value: "note"},
		})},
		{Name: "customers", Capture: pipeline.Capture{Method: pipeline.MethodWAL}},
		{Name: "daily_stats", Capture: pipeline.Capture{Method: pipeline.MethodSnapshot}},
		{
			Name: "order_facts", Key: []string{"order_id"}, Capture: updated,
			Query: "-- with the customer's name\nSELECT o.id AS order_id, c.name, o.updated_at FROM orders o JOIN customers c ON c.id = o.customer_id\n",
			AlsoChangedBy: []pipeline.Related{
				{Table: "customers", Capture: updated, Keys: "SELECT o.id FROM orders o JOIN {changed} c ON c.id = o.customer_id"},
				{Table: "regions", Key: []string{"code"}, Capture: changelog(nil), Keys: "SELECT o.id FROM orders o WHERE region IN (SELECT code FROM {changed})"},
			},
		},
		{Name: "invoice_facts", Key: []string{"id"}, Query: "SELECT 1", Capture: changelog(&pipeline.Log{Table: "log", Cursor: "id", Lookback: counted, Object: []string{"o"}})},
		{Name: "totals", Key: []string{"id"}, Query: "SELECT ';'", Capture: pipeline.Capture{Method: pipeline.MethodSnapshot}},
	}
	for i := range want {
		want[i].Every, want[i].Write, want[i].Deletes, want[i].BatchRows = "1m", pipeline.WriteAppend, pipeline.DeletesSoft, 500_000
		want[i].SchemaChanges, want[i].MaxRejects = pipeline.SchemaEvolve, 0.1
		want[i].Line = loaded[0].Tables[i].Line // see TestLoad
	}
	if diff := cmp.Diff(want, loaded[0].Tables); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

func TestMaxLag(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"wal: {max_lag: 1MB}": 1_000_000, "wal: {max_lag: 250GB}": 250_000_000_000, "wal: {max_lag: 9223372TB}": 9_223_372_000_000_000_000,
		"wal: {}": 10_000_000_000, "": 10_000_000_000,
	} {
		got, err := load(map[string]string{"a.yaml": head + text})
		if err != nil || got[0].WAL.MaxLag != want {
			t.Errorf("%q: %v, %v, want %d bytes", text, got, err, want)
		}
	}
}

// TestCaptureProblems: what a method, a log or a query cannot be declared with.
func TestCaptureProblems(t *testing.T) {
	t.Parallel()
	const elsewhere = "capture it by watermark, and name the tables that it joins under also_changed_by"
	tests := []struct {
		name, yaml string
		want       []string // without the file's name
	}{
		{"methods", `tables:
  - {name: a, capture: {method: watermark}}
  - {name: b, capture: {method: changelog, log: {}}}
  - {name: c, capture: {method: changelog, log: {table: a.b.c, cursor: "", object: [], type: {}, action: {}}}}
  - {name: d, key: [id], query: SELECT 1, capture: {method: watermark, cursor: c}, also_changed_by: [{}]}
  - {name: e, key: [id], query: "", capture: {method: watermark, cursor: c}, also_changed_by: []}
  - name: f
    capture: {method: watermark, cursor: c}
    also_changed_by:
      - {table: t, capture: {method: wal}, keys: SELECT 1}
      - {table: t, capture: {method: snapshot}, keys: ""}
      - {table: t, capture: {method: watermark}, keys: SELECT 1}
      - {table: t, capture: {method: changelog, log: {table: l, cursor: id, object: o}}, keys: SELECT 1}
wal: {max_lag: 10GiB, slot: s}
`, []string{
			`:4: tables[0].capture has no "cursor"; add cursor:`,
			`:5: tables[1].capture.log has no "table"; add table:`, `:5: tables[1].capture.log has no "cursor"; add cursor:`, `:5: tables[1].capture.log has no "object"; add object:`,
			`:6: "a.b.c" does not fit tables[2].capture.log.table; it has to match ^[^.]{1,63}(\.[^.]{1,63})?$`,
			`:6: tables[2].capture.log.cursor: minLength: got 0, want 1; correct the value`, `:6: tables[2].capture.log.object: minItems: got 0, want 1; correct the value`,
			`:6: tables[2].capture.log.type has no "column"; add column:`, `:6: tables[2].capture.log.action has no "column"; add column:`,
			`:7: tables[3].also_changed_by[0] has no "table"; add table:`, `:7: tables[3].also_changed_by[0] has no "capture"; add capture:`, `:7: tables[3].also_changed_by[0] has no "keys"; add keys:`,
			`:8: tables[4].query: minLength: got 0, want 1; correct the value`, `:8: tables[4].also_changed_by: minItems: got 0, want 1; correct the value`,
			`:12: wal is not a value of tables[5].also_changed_by[0].capture.method; use one of: watermark, changelog`,
			`:13: snapshot is not a value of tables[5].also_changed_by[1].capture.method; use one of: watermark, changelog`,
			`:13: tables[5].also_changed_by[1].keys: minLength: got 0, want 1; correct the value`,
			`:14: tables[5].also_changed_by[2].capture has no "cursor"; add cursor:`,
			`:15: unknown key "log" in tables[5].also_changed_by[3].capture; known keys: cursor, lookback, method`,
			`:16: "10GiB" does not fit wal.max_lag; it has to match ^[1-9][0-9]*(MB|GB|TB)$`, `:16: unknown key "slot" in wal; known keys: max_lag`,
		}},
		{"what belongs to another method", `tables:
  - {name: a, capture: {method: changelog, cursor: c, lookback: 1m}}
  - {name: b, capture: {method: wal, lookback: 5}}
  - {name: c, capture: {method: snapshot, cursor: c}}
  - {name: d, capture: {method: watermark, cursor: c, log: {table: l, cursor: id, object: o}}}
  - name: e
    capture:
      method: changelog
      cursor: id
      lookback: 1m
      log: {table: l, cursor: id, object: o}
  - {name: f, capture: {method: wal, log: {table: l, cursor: id, object: o}}}
  - name: g
    key: [id]
    query: SELECT 1
    capture: {method: watermark, cursor: c}
    also_changed_by:
      - {table: t, capture: {method: changelog, cursor: id, lookback: 1m}, keys: "SELECT {changed}"}
`, []string{
			`:4: a cursor goes with the method watermark, and this is changelog; leave cursor out, or write method: watermark`,
			`:4: a lookback goes with the method watermark, and this is changelog; leave lookback out, or write method: watermark`,
			`:5: a lookback goes with the method watermark, and this is wal; leave lookback out, or write method: watermark`,
			`:6: a cursor goes with the method watermark, and this is snapshot; leave cursor out, or write method: watermark`,
			`:7: a log goes with the method changelog, and this is watermark; leave log out, or write method: changelog`,
			`:11: a cursor goes with the method watermark, and this is changelog; write the cursor of the log into log`,
			`:12: a lookback goes with the method watermark, and this is changelog; write the lookback of the log into log`,
			`:14: a log goes with the method changelog, and this is wal; leave log out, or write method: changelog`,
			`:20: a cursor goes with the method watermark, and this is changelog; leave cursor out, or write method: watermark`,
			`:20: a lookback goes with the method watermark, and this is changelog; leave lookback out, or write method: watermark`,
		}},
		{"logs", `tables:
  - name: a
    key: [x, y]
    capture:
      method: changelog
      log:
        table: l
        cursor: id
        object: o
        type: {column: t}
        action: {column: a}
  - name: b
    key: [x]
    capture:
      method: changelog
      log:
        table: l
        cursor: id
        lookback: 99999999999h
        object: [o, p]
        type: {column: t, value: 0, query: SELECT 1}
        action:
          column: a
          added: [1, 2]
          changed: ["2", x]
          deleted: [x, 3, "3"]
  - name: c
    capture:
      method: changelog
      log:
        table: l
        cursor: id
        object: o
        type: {column: t, value: 012}
        action: {column: a, added: 1_000, changed: [2, 0x10, 3.0], deleted: True}
  - {name: d, capture: {method: changelog, log: {table: l, cursor: id, object: o, type: {column: t, query: "SELECT 1 ;  "}}}}
  - {name: e, capture: {method: changelog, log: {table: l, cursor: id, object: o, type: {column: t, query: "-- all"}}}}
`, []string{
			`:11: log.object and key differ in length: 1 and 2; name a column of the log for each column of key, in its order`,
			`:12: log.type has neither a value nor a query; add value: or query:`,
			`:13: log.action lists no value; add added:, changed: or deleted: with the values of the column`,
			`:21: "99999999999h" is not a duration; write for example 500ms, 10m or 24h`,
			`:22: log.object and key differ in length: 2 and 1; name a column of the log for each column of key, in its order`,
			`:23: log.type has both a value and a query; keep one of them`,
			`:27: log.action lists "2" as added and as changed; list each value once`,
			`:28: log.action lists "x" as changed and as deleted; list each value once`,
			`:28: log.action lists "3" as deleted and as deleted; list each value once`,
			`:36: 012 is read as 10, and is compared as text; put it into quotes`,
			`:37: 1_000 is read as 1000, and is compared as text; put it into quotes`,
			`:37: 0x10 is read as 16, and is compared as text; put it into quotes`,
			`:37: 3.0 is read as 3, and is compared as text; put it into quotes`,
			`:37: True is read as true, and is compared as text; put it into quotes`,
			`:38: query ends in a semicolon; leave it out: the query becomes a part of others`,
			`:39: query holds nothing; write a SELECT`,
		}},
		{"queries", `tables:
  - {name: a, query: SELECT 1, capture: {method: watermark, cursor: c}}
  - {name: b, key: [k], query: SELECT 1, capture: {method: wal}}
  - {name: c, key: [k], query: SELECT 1, capture: {method: changelog}}
  - name: d
    capture: {method: watermark, cursor: c}
    also_changed_by: [{table: t, capture: {method: changelog}, keys: "SELECT k FROM {changed}"}]
  - name: e
    key: [k]
    query: SELECT 1
    capture: {method: snapshot}
    also_changed_by: [{table: t, capture: {method: changelog}, keys: "SELECT k FROM {changed}"}]
  - name: f
    key: [k]
    query: |
      SELECT 1;

    capture: {method: watermark, cursor: c}
    also_changed_by:
      - {table: t, capture: {method: changelog}, keys: "SELECT k FROM { changed }"}
      - {table: u, capture: {method: changelog}, keys: "SELECT k FROM {changed};"}
      - table: t
        capture: {method: changelog}
        keys: "\n -- {changed} \n--"
  - {name: g, key: [k], query: " \n", capture: {method: watermark, cursor: c}}
wal: {max_lag: 9223373TB}
`, []string{
			`:4: the query "a" has no key; add key: with the columns of the query that name a row`,
			`:5: a query cannot be captured by wal: a slot follows tables; ` + elsewhere,
			`:6: a query cannot be captured by changelog: it is unclear which table's; ` + elsewhere,
			`:9: also_changed_by says what makes the rows of a query stale, and this is a table; leave it out, or add query:`,
			`:14: a snapshot reads every row anew, whatever has changed; leave also_changed_by out`,
			`:17: query ends in a semicolon; leave it out: the query becomes a part of others`,
			`:22: keys does not look at what has changed; join it as {changed}: SELECT o.id FROM orders o JOIN {changed} c ON c.id = o.customer_id`,
			`:23: keys ends in a semicolon; leave it out: the query becomes a part of others`,
			`:24: table "t" is also under also_changed_by on line 22; keep one of them, with a UNION of both in keys`,
			`:26: keys holds nothing; write a SELECT`,
			`:27: query holds nothing; write a SELECT`,
			`:28: "9223373TB" is more than can be counted; write for example 500MB, 10GB or 1TB`,
		}},
		{"tenants", `tenants: {query: q, column: c, dataset: "org_{slug}"}
tables:
  - {name: a, capture: {method: wal}}
  - {name: b, capture: {method: changelog}}
  - {name: c, capture: {method: wal}}
`, []string{`:5: wal does not serve tenants yet; use changelog`, `:7: wal does not serve tenants yet; use changelog`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			refused(t, head+test.yaml, test.want)
		})
	}
}

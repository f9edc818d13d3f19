package pipeline_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// limits are those of a sync that says nothing and is no mirror, changed.
func limits(change func(*pipeline.Limits)) pipeline.Limits {
	l := pipeline.Limits{
		MaxDeletes: -1, MaxDeletePercent: -1, MaxSwingPercent: -1,
		BatchSize: 1000, BatchTime: time.Second, LockTimeout: 2 * time.Second, StatementTimeout: 30 * time.Second,
		MaxReplicationLag: 64e6, MaxSlotLag: 1e9, MaxAutovacuumPause: time.Minute,
	}
	if change != nil {
		change(&l)
	}
	return l
}

// tablePattern is what a table of BigQuery has to match.
const tablePattern = "^((([a-z][a-z0-9.-]*:)?[a-z][a-z0-9-]*\\.)?([A-Za-z0-9_]|\\{dataset\\})+\\.)?[^!\"$()*,./;?@\\[\\\\\\]^`{}~]+$"

// syncFile is a pipeline with one sync, of whose target the rest is given.
func syncFile(source, target, rest string) string {
	return head + "reverse_etl:\n  - {name: s, " + source + ", target: {table: t, key: {a: id}" + target + "}" + rest + "}\n"
}

// TestSync: what each key comes to.
func TestSync(t *testing.T) {
	t.Parallel()
	query := func(change func(*pipeline.Sync)) pipeline.Sync {
		s := pipeline.Sync{
			Name: "s", Query: "SELECT 1", Changes: pipeline.ChangesFull, Table: "t", Mode: pipeline.ModeUpsert,
			Key: []pipeline.Mapping{{From: "a", To: "id"}}, Columns: []pipeline.Mapping{}, Limits: limits(nil), Line: 4,
		}
		change(&s)
		return s
	}
	mirror := func(s *pipeline.Sync) {
		s.Mode, s.Deletes, s.Limits.MaxDeletePercent, s.Limits.MaxSwingPercent = pipeline.ModeMirror, pipeline.DeletesHard, 0.05, 0.5
	}
	tests := []struct {
		name, source, target, rest string
		want                       pipeline.Sync
	}{
		{"nothing but what is needed", "query: SELECT 1", "", ", mode: upsert", query(func(*pipeline.Sync) {})},
		{"insert of keys", "query: SELECT 1", "", ", mode: insert", query(func(s *pipeline.Sync) { s.Mode = pipeline.ModeInsert })},
		{"every and after", "query: SELECT 1", "", `, mode: upsert, every: 900s, after: [{table: scores}, {table: other.scores}, {scheduled_query: "projects/p/locations/eu/transferConfigs/c-1"}]`, query(func(s *pipeline.Sync) {
			s.Every, s.After = "15m", []pipeline.After{{Table: "scores"}, {Table: "other.scores"}, {ScheduledQuery: "projects/p/locations/eu/transferConfigs/c-1"}}
		})},
		{"a table", `table: scores`, "", ", mode: upsert", query(func(s *pipeline.Sync) { s.Query, s.From = "", "scores" })},
		{"a table of another dataset", `table: "{dataset}_eu.scores of-today"`, "", ", mode: upsert", query(func(s *pipeline.Sync) { s.Query, s.From = "", "{dataset}_eu.scores of-today" })},
		{"a table of another project", `table: "example.com:my-project.{dataset}.scores"`, "", ", mode: upsert", query(func(s *pipeline.Sync) { s.Query, s.From = "", "example.com:my-project.{dataset}.scores" })},
		{"an object", "csv: gs://bucket/of/names.csv.gz", "", ", mode: upsert", query(func(s *pipeline.Sync) { s.Query, s.CSV = "", "gs://bucket/of/names.csv.gz" })},
		{"a file after a table", "csv: ../names.csv", "", ", mode: upsert, changes: full, after: [{table: x}]", query(func(s *pipeline.Sync) { s.Query, s.CSV, s.After = "", "../names.csv", []pipeline.After{{Table: "x"}} })},
		{"a cursor", "query: SELECT 1", "", ", mode: upsert, cursor: at", query(func(s *pipeline.Sync) {
			s.Changes, s.Cursor, s.Lookback, s.FullEvery = pipeline.ChangesCursor, "at", 10*time.Minute, 24*time.Hour
		})},
		{"a cursor with all there is", "table: x", "", ", mode: upsert, changes: cursor, cursor: at, lookback: 0s, full_every: 0s", query(func(s *pipeline.Sync) {
			s.Query, s.From, s.Changes, s.Cursor = "", "x", pipeline.ChangesCursor, "at"
		})},
		{"appends", "table: x", "", ", mode: insert, changes: appends, full_every: 168h", query(func(s *pipeline.Sync) {
			s.Query, s.From, s.Mode, s.Changes, s.FullEvery = "", "x", pipeline.ModeInsert, pipeline.ChangesAppends, 168*time.Hour
		})},
		{"a ledger", "query: SELECT 1", "", ", mode: mirror, changes: ledger", query(func(s *pipeline.Sync) {
			mirror(s)
			s.Changes, s.FullEvery = pipeline.ChangesLedger, 24*time.Hour
		})},
		{"a mirror of keys", "query: SELECT 1", "", ", mode: mirror", query(mirror)},
		{"soft deletes", "query: SELECT 1", ", columns: {b: b}", ", mode: mirror, deletes: soft, deleted_column: gone", query(func(s *pipeline.Sync) {
			mirror(s)
			s.Columns, s.Deletes, s.DeletedColumn = []pipeline.Mapping{{From: "b", To: "b"}}, pipeline.DeletesSoft, "gone"
		})},
		{"many and a scope", "query: SELECT 1", `, columns: {b: b}, many: true, where: "country = 'US; DE' -- or both;"`, ", mode: fill, approve: true", query(func(s *pipeline.Sync) {
			s.Mode, s.Columns, s.Many, s.Where, s.Approve = pipeline.ModeFill, []pipeline.Mapping{{From: "b", To: "b"}}, true, "country = 'US; DE' -- or both;", true
		})},
		{"brakes of a mirror", "query: SELECT 1", "", ", mode: mirror, limits: {max_deletes: 0, max_delete_percent: 100, max_swing_percent: 0, allow_cascade: true, max_staleness: 26h, fresh_tables: [scores, '{dataset}.x', p.d.y]}", query(func(s *pipeline.Sync) {
			mirror(s)
			s.Limits.MaxDeletes, s.Limits.MaxDeletePercent, s.Limits.MaxSwingPercent, s.Limits.AllowCascade = 0, 1, 0, true
			s.Limits.MaxStaleness, s.Limits.FreshTables = 26*time.Hour, []string{"scores", "{dataset}.x", "p.d.y"}
		})},
		{"brakes of others", "csv: x.csv", "", ", mode: upsert, limits: {max_swing_percent: 250.5, max_staleness: 1h}", query(func(s *pipeline.Sync) {
			s.Query, s.CSV, s.Limits.MaxSwingPercent, s.Limits.MaxStaleness = "", "x.csv", 2.505, time.Hour
		})},
		{"a mirror that may delete 0.5 percent", "query: SELECT 1", "", ", mode: mirror, limits: {max_delete_percent: 0.5, allow_cascade: false}", query(func(s *pipeline.Sync) {
			mirror(s)
			s.Limits.MaxDeletePercent = 0.005
		})},
		{"protection", "query: SELECT 1", "", ", mode: upsert, limits: {batch_size: 1, batch_time: 1.5s, lock_timeout: 100ms, statement_timeout: 2s, pause: 1m, max_replication_lag: 1GB, max_slot_lag: 2TB, max_autovacuum_pause: 0s}", query(func(s *pipeline.Sync) {
			s.Limits = limits(func(l *pipeline.Limits) {
				l.BatchSize, l.BatchTime, l.LockTimeout, l.StatementTimeout, l.Pause = 1, 1500*time.Millisecond, 100*time.Millisecond, 2*time.Second, time.Minute
				l.MaxReplicationLag, l.MaxSlotLag, l.MaxAutovacuumPause = 1e9, 2e12, 0
			})
		})},
		{"protection switched off, and no time", "query: SELECT 1", "", ", mode: upsert, limits: {lock_timeout: 100ms, statement_timeout: 500ms, max_replication_lag: 0MB, max_slot_lag: 0GB}", query(func(s *pipeline.Sync) {
			s.Limits = limits(func(l *pipeline.Limits) {
				l.BatchTime, l.LockTimeout, l.StatementTimeout, l.MaxReplicationLag, l.MaxSlotLag = 250*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond, 0, 0
			})
		})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := load(map[string]string{"a.yaml": syncFile(test.source, test.target, test.rest)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]pipeline.Sync{test.want}, got[0].ReverseETL); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestSyncProblems: what contradicts itself, at the line that says it.
func TestSyncProblems(t *testing.T) {
	t.Parallel()
	const condition = "; write one condition, such as country = 'US'"
	tests := []struct {
		name, yaml string   // of the yaml, the first line is the fifth
		want       []string // without the file's name
	}{
		{"no source", `mode: upsert`, []string{`:4: reverse sync "s" has no source; add query:, table: or csv:`}},
		{"two sources", "query: q\n    mode: upsert\n    csv: x", []string{`:7: reverse sync "s" has more than one source: query, csv; keep one of them`}},
		{"three sources", "csv: x\n    table: d.t\n    query: q\n    mode: upsert", []string{`:5: reverse sync "s" has more than one source: query, table, csv; keep one of them`}},
		{"a query of nothing", "mode: upsert\n    query: ' -- all of them'", []string{`:6: query holds nothing; write a SELECT`}},
		{"a query that ends", "mode: upsert\n    query: SELECT 1;", []string{`:6: query ends in a semicolon; leave it out: the query becomes a part of others`}},
		{"a bucket without an object", "mode: upsert\n    csv: gs://bucket", []string{`:6: "gs://bucket" is no file that can be read; write gs://bucket/object, or a path on the machine that runs the sync`}},
		{"another place of files", "mode: upsert\n    csv: https://example.com/x.csv", []string{`:6: "https://example.com/x.csv" is no file that can be read; write gs://bucket/object, or a path on the machine that runs the sync`}},
		{"a table of four parts", "mode: upsert\n    table: a.b.c.d", []string{`:6: "a.b.c.d" does not fit reverse_etl[0].table; it has to match ` + tablePattern}},
		{"a mirror by cursor", "query: q\n    mode: mirror\n    cursor: at", []string{`:7: mirror deletes what is absent, and changes: cursor reads a part of the rows; write changes: full or changes: ledger`}},
		{"a mirror by appends", "table: x\n    mode: mirror\n    changes: appends", []string{`:7: mirror deletes what is absent, and changes: appends reads a part of the rows; write changes: full or changes: ledger`}},
		{"appends of a query", "query: q\n    mode: upsert\n    changes: appends", []string{`:7: changes: appends reads the history of one table of BigQuery, and a query has none; write table: in place of query:, or changes: cursor, ledger or full`}},
		{"a ledger of a file", "csv: x\n    mode: upsert\n    changes: ledger", []string{`:7: a CSV file is read as a whole, and this is changes: ledger; write changes: full`}},
		{"appends of a file", "csv: x\n    mode: upsert\n    changes: appends", []string{`:7: a CSV file is read as a whole, and this is changes: appends; write changes: full`}},
		{"a cursor of a file", "csv: x\n    mode: upsert\n    cursor: at", []string{`:7: a CSV file is read as a whole, and this is changes: cursor; write changes: full`}},
		{"no cursor", "query: q\n    mode: upsert\n    changes: cursor", []string{`:7: changes: cursor has no cursor; add cursor: with a column of the source that grows with every change`}},
		{"a cursor for another", "query: q\n    mode: upsert\n    changes: full\n    cursor: at\n    lookback: 1m\n    full_every: 1h", []string{
			`:8: a cursor goes with changes: cursor, and this is full; leave it out, or write changes: cursor`,
			`:9: a lookback goes with changes: cursor, and this is full; leave it out, or write changes: cursor`,
			`:10: every run compares every row, so full_every says nothing; leave it out, or write changes: cursor, appends or ledger`,
		}},
		{"a look-back of a ledger", "query: q\n    mode: upsert\n    changes: ledger\n    cursor: at\n    lookback: 1m", []string{
			`:8: a cursor goes with changes: cursor, and this is ledger; leave it out, or write changes: cursor`,
			`:9: a lookback goes with changes: cursor, and this is ledger; leave it out, or write changes: cursor`,
		}},
		{"full by default", "query: q\n    mode: upsert\n    full_every: 1h", []string{
			`:7: every run compares every row, so full_every says nothing; leave it out, or write changes: cursor, appends or ledger`,
		}},
		{"durations beyond counting", "query: q\n    mode: upsert\n    cursor: at\n    lookback: 99999999999h\n    full_every: 99999999999h\n    limits:\n      max_staleness: 99999999999h\n      max_slot_lag: 99999999999TB", []string{
			`:8: "99999999999h" is not a duration; write for example 500ms, 10m or 24h`,
			`:9: "99999999999h" is not a duration; write for example 500ms, 10m or 24h`,
			`:11: "99999999999h" is not a duration; write for example 500ms, 10m or 24h`,
			`:12: "99999999999TB" is more than can be counted; write for example 500MB, 10GB or 1TB`,
		}},
		{"a fill of nothing", "query: q\n    mode: fill", []string{`:4: mode fill needs columns to write; add columns: {<column of the source>: <column of the table>}`}},
		{"deletes without a mirror", "query: q\n    mode: upsert\n    deletes: hard\n    deleted_column: gone", []string{
			`:7: only a mirror deletes, and mode is upsert; leave it out, or write mode: mirror`,
			`:8: only a mirror deletes, and mode is upsert; leave it out, or write mode: mirror`,
		}},
		{"soft deletes that nothing says", "query: q\n    mode: mirror\n    deletes: soft", []string{`:7: deletes: soft has no column to say so; add deleted_column: with a boolean or a time of the table`}},
		{"hard deletes that a column says", "query: q\n    mode: mirror\n    deleted_column: gone", []string{`:7: deleted_column goes with deletes: soft, and this is hard; leave it out, or write deletes: soft`}},
		{"the key as the column of deletes", "query: q\n    mode: mirror\n    deletes: soft\n    deleted_column: id", []string{`:8: column "id" of the table is already in target; take it out of target: rows that are in the source have it cleared`}},
		{"an entry of after that is nothing", "query: q\n    mode: upsert\n    after:\n      - {}", []string{`:8: an entry of after has either a table or a scheduled_query; write for example {table: scores} or {scheduled_query: 6621a2b4-0000-2c41-9e1f-f403045e8b3a}`}},
		{"an entry of after that is both", "query: q\n    mode: upsert\n    after:\n      - {table: x}\n      - {table: x, scheduled_query: y}", []string{`:9: an entry of after has either a table or a scheduled_query; write for example {table: scores} or {scheduled_query: 6621a2b4-0000-2c41-9e1f-f403045e8b3a}`}},
		{"brakes of deletes without deletes", "query: q\n    mode: upsert\n    limits:\n      max_deletes: 5\n      max_delete_percent: 5\n      allow_cascade: false", []string{
			`:8: max_deletes is about deletes, and mode upsert deletes nothing; leave it out, or write mode: mirror`,
			`:9: max_delete_percent is about deletes, and mode upsert deletes nothing; leave it out, or write mode: mirror`,
			`:10: allow_cascade is about deletes, and mode upsert deletes nothing; leave it out, or write mode: mirror`,
		}},
		{"fresh tables without staleness", "query: q\n    mode: upsert\n    limits:\n      fresh_tables: [x]", []string{`:8: fresh_tables says what max_staleness is about, and there is none; add max_staleness:, for example 26h`}},
		{"fresh tables of a file", "csv: q\n    mode: upsert\n    limits:\n      max_staleness: 1h\n      fresh_tables: [x]", []string{`:9: a CSV file reads no table of BigQuery: max_staleness is about the file; leave it out`}},
		{"batches longer than their statements", "query: q\n    mode: upsert\n    limits:\n      batch_time: 30s", []string{`:7: batch_time is not below statement_timeout, which would end batches that last as long as they should; make batch_time the smaller one`}},
		{"batches of no time", "query: q\n    mode: upsert\n    limits:\n      batch_time: 0s", []string{`:8: batch_time leaves a batch no time; write for example 500ms or 1s`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			refused(t, head+"reverse_etl:\n  - target: {table: t, key: {a: id}}\n    "+test.yaml+"\n    name: s\n", test.want)
		})
	}
	for name, c := range map[string]struct{ target, mode, want string }{
		"a column of deletes that is mapped": {"columns: {b: gone}", "mirror, deletes: soft, deleted_column: gone", `column "gone" of the table is already in target; take it out of target: rows that are in the source have it cleared`},
		"many of an upsert":                  {"many: true", "upsert", `many rows of one key can be changed, and mode is upsert; leave many out, or write mode: update or mode: fill`},
		"many of an insert":                  {"many: true", "insert", `many rows of one key can be changed, and mode is insert; leave many out, or write mode: update or mode: fill`},
		"many of a mirror":                   {"many: true", "mirror", `many rows of one key can be changed, and mode is mirror; leave many out, or write mode: update or mode: fill`},
		"a scope that is nothing":            {`where: " "`, "upsert", "where holds nothing" + condition},
		"a scope of comments":                {`where: "/* all /* of */ -- them */ -- really"`, "upsert", "where holds nothing" + condition},
		"a scope that ends":                  {`where: "a = 1;"`, "upsert", "where has a semicolon outside of quotes" + condition},
		"a scope and more":                   {`where: "a = ';'; DELETE FROM t"`, "upsert", "where has a semicolon outside of quotes" + condition},
		"a scope that closes too much":       {`where: "a = 1) OR (b = 2"`, "upsert", "where has parentheses that do not match: a = 1) OR (b = 2" + condition},
		"a scope that opens too much":        {`where: "(a = ')'"`, "upsert", "where has parentheses that do not match: (a = ')'" + condition},
		"a scope with an open quote":         {`where: "a = 'x"`, "upsert", "where has a quote or a comment that does not end" + condition},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, syncFile("query: q", ", "+c.target, ", mode: "+c.mode), []string{":4: " + c.want})
		})
	}
}

// TestAfterOwnTables: a sync that waited for what this pipeline writes would wait for
// ever, and one after a table of the same name elsewhere does not.
func TestAfterOwnTables(t *testing.T) {
	t.Parallel()
	const why = "is one that this pipeline writes, and Tidemark's own jobs set nothing off; declare every: instead"
	refused(t, `pipeline: a
destination: {dataset: d}
tables:
  - {name: orders, capture: {method: snapshot}}
  - {name: items, capture: {method: snapshot}, write: merge}
reverse_etl:
  - name: s
    query: q
    mode: insert
    target: {table: t, key: {a: id}}
    after:
      - {table: elsewhere.orders}
      - {table: d.orders}
      - {table: orders_log}
      - {table: items}
      - {table: items_log}
      - {scheduled_query: orders}
`, []string{`:13: table "d.orders" ` + why, `:14: table "orders_log" ` + why, `:15: table "items" ` + why})
}

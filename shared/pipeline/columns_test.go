package pipeline_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// TestWriteModes: what each mode makes of deletes and staleness.
func TestWriteModes(t *testing.T) {
	t.Parallel()
	type landing struct {
		Write        pipeline.Write
		Deletes      pipeline.Deletes
		MaxStaleness time.Duration
	}
	tests := []struct {
		defaults, table string
		want            landing
	}{
		{"", "capture: {method: wal}", landing{pipeline.WriteAppend, pipeline.DeletesSoft, 0}},
		{"write: merge, deletes: hard", "capture: {method: wal}", landing{pipeline.WriteMerge, pipeline.DeletesHard, 0}},
		{"", "capture: {method: wal}, write: cdc", landing{pipeline.WriteCDC, pipeline.DeletesSoft, 15 * time.Minute}},
		{"write: cdc", "capture: {method: wal}, deletes: ignore, max_staleness: 0s", landing{pipeline.WriteCDC, pipeline.DeletesIgnore, 0}},
		{"", "capture: {method: wal}, write: cdc, deletes: hard, max_staleness: 1m30s", landing{pipeline.WriteCDC, pipeline.DeletesHard, 90 * time.Second}},
		{"", "capture: {method: wal}, write: cdc, max_staleness: 24h", landing{pipeline.WriteCDC, pipeline.DeletesSoft, 24 * time.Hour}},
		{"", "capture: {method: snapshot}, write: replace", landing{pipeline.WriteReplace, pipeline.DeletesHard, 0}},
		{"deletes: soft", "capture: {method: snapshot}, write: replace", landing{pipeline.WriteReplace, pipeline.DeletesHard, 0}},
		{"write: replace", "capture: {method: snapshot}, deletes: hard, every: 1m", landing{pipeline.WriteReplace, pipeline.DeletesHard, 0}},
		{"", "capture: {method: snapshot}, write: replace, every: '* * * * *'", landing{pipeline.WriteReplace, pipeline.DeletesHard, 0}},
		{"every: 30s", "capture: {method: snapshot}, write: merge", landing{pipeline.WriteMerge, pipeline.DeletesSoft, 0}},
		{"", "capture: {method: wal}, write: history", landing{pipeline.WriteHistory, pipeline.DeletesSoft, 0}},
		{"deletes: hard", "capture: {method: wal}, write: history", landing{pipeline.WriteHistory, pipeline.DeletesSoft, 0}},
		{"deletes: hard", "capture: {method: wal}, write: history, deletes: ignore", landing{pipeline.WriteHistory, pipeline.DeletesIgnore, 0}},
	}
	for _, test := range tests {
		t.Run(test.defaults+"; "+test.table, func(t *testing.T) {
			t.Parallel()
			loaded, err := load(map[string]string{"a.yaml": head + "defaults: {" + test.defaults + "}\ntables: [{name: t, " + test.table + "}]\n"})
			if err != nil {
				t.Fatal(err)
			}
			got := loaded[0].Tables[0]
			if diff := cmp.Diff(test.want, landing{got.Write, got.Deletes, got.MaxStaleness}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestWriteProblems: what a write mode cannot be declared with.
func TestWriteProblems(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		want       []string // without the file's name
	}{
		{"replace", `defaults: {every: 30s}
tables:
  - {name: a, capture: {method: wal}, write: replace, every: 1m}
  - {name: b, capture: {method: watermark, cursor: c}, every: 1m,
     write: replace}
  - {name: c, capture: {method: snapshot}, write: replace, every: 1m, deletes: soft}
  - name: d
    capture: {method: snapshot}
    write: replace
    every: 59s
    deletes: ignore
  - {name: e, capture: {method: snapshot}, write: replace}
`, []string{
			`:5: replace needs the whole table every time, and the method is wal; write capture: {method: snapshot}, or write: merge`,
			`:7: replace needs the whole table every time, and the method is watermark; write capture: {method: snapshot}, or write: merge`,
			`:8: replace leaves nothing of rows that are gone, and deletes is soft; leave deletes out, or write: merge`,
			`:12: replace is a load job every 59s, and BigQuery allows 1,500 of a table a day; write every: 1m or more, or write: merge`,
			`:13: replace leaves nothing of rows that are gone, and deletes is ignore; leave deletes out, or write: merge`,
			`:14: replace is a load job every 30s, and BigQuery allows 1,500 of a table a day; write every: 1m or more, or write: merge`,
		}},
		{"replace by default", `defaults: {write: replace}
tables:
  - {name: a, capture: {method: changelog}}
`, []string{
			`:5: replace needs the whole table every time, and the method is changelog; write capture: {method: snapshot}, or write: merge`,
		}},
		{"history", `tables:
  - {name: a, capture: {method: wal}, write: history, deletes: hard}
`, []string{
			`:4: a history keeps every row, and deletes is hard; write deletes: soft, for a version that says the row is gone, or deletes: ignore`,
		}},
		{"staleness", `tables:
  - {name: a, capture: {method: wal}, max_staleness: 10m}
  - {name: b, capture: {method: wal}, write: merge,
     max_staleness: 0s}
  - {name: c, capture: {method: wal}, write: cdc, max_staleness: 24h1s}
  - {name: d, capture: {method: wal}, write: cdc, max_staleness: 99999999999h}
dedup:
  every: 1h
  keep_deleted: 23h59m59s
`, []string{
			`:4: max_staleness goes with write: cdc, and this is append; leave it out, or write: cdc`,
			`:6: max_staleness goes with write: cdc, and this is merge; leave it out, or write: cdc`,
			`:7: max_staleness of 24h1s is over a day; write 24h or less`,
			`:8: "99999999999h" is not a duration; write for example 500ms, 10m or 24h`,
			`:11: keep_deleted of 23h59m59s is under a day; write 24h or more: a change that comes late has to meet its tombstone`,
		}},
		{"conditions", `tables:
  - {name: a, capture: {method: wal}, where: "NOT draft;"}
  - {name: b, capture: {method: wal}, where: "-- all of them"}
  - {name: c, key: [id], query: SELECT 1, capture: {method: snapshot}, where: NOT draft}
`, []string{
			`:4: where ends in a semicolon; leave it out: the query becomes a part of others`,
			`:5: where holds nothing; write a condition, such as status <> 'draft'`,
			`:6: where goes with a table, and this is a query; write the condition into the query`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			refused(t, head+test.yaml, test.want)
		})
	}
}

// TestColumns: what may be said of columns, in the order of the file.
func TestColumns(t *testing.T) {
	t.Parallel()
	loaded, err := load(map[string]string{"a.yaml": head + `tables:
  - name: a
    key: [id]
    capture: {method: watermark, cursor: updated_at}
    columns:
      include: [id, mail, b]
      rename:
        mail: email
        b: a
      hash: [id]
      compute:
        z: first
        mail: last
    partition_by: {column: z}
    cluster_by: [email, A, mail, id]
  - name: of-a-query
    key: [id]
    query: SELECT 1
    capture: {method: snapshot}
    columns: {exclude: [c], hash: [id], as: {d: JSON}}
  - {name: swapped, capture: {method: wal}, columns: {rename: {a: b, b: a}}}
  - {name: excluded-name, capture: {method: wal}, columns: {exclude: [email], rename: {mail: email}}}
  - {name: renamed-key, key: [id], capture: {method: wal}, columns: {rename: {id: ID}}}
  - {name: replaced, capture: {method: wal}, columns: {exclude: [payload], compute: {payload: "payload - 'secret'"}}, cluster_by: [payload]}
  - {name: narrow, capture: {method: wal}, columns: {include: [id]}, cluster_by: [id, _synced_at]}
`})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]pipeline.Columns, len(loaded[0].Tables))
	for i := range got {
		got[i] = loaded[0].Tables[i].Columns
	}
	want := []pipeline.Columns{
		{
			Include: []string{"id", "mail", "b"}, Rename: []pipeline.Mapping{{From: "mail", To: "email"}, {From: "b", To: "a"}}, Hash: []string{"id"},
			Compute: []pipeline.Computed{{Name: "z", SQL: "first"}, {Name: "mail", SQL: "last"}},
		},
		{Exclude: []string{"c"}, Hash: []string{"id"}, As: map[string]string{"d": "JSON"}},
		{Rename: []pipeline.Mapping{{From: "a", To: "b"}, {From: "b", To: "a"}}},
		{Exclude: []string{"email"}, Rename: []pipeline.Mapping{{From: "mail", To: "email"}}},
		{Rename: []pipeline.Mapping{{From: "id", To: "ID"}}},
		{Exclude: []string{"payload"}, Compute: []pipeline.Computed{{Name: "payload", SQL: "payload - 'secret'"}}},
		{Include: []string{"id"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}

// TestColumnProblems: what contradicts itself or cannot land.
func TestColumnProblems(t *testing.T) {
	t.Parallel()
	const same = "choose another name; upper and lower case are the same in BigQuery"
	tests := []struct {
		name, yaml string
		want       []string // without the file's name
	}{
		{"both", `tables:
  - name: a
    capture: {method: wal}
    columns:
      include: [id, b]
      exclude: [b]
`, []string{
			`:8: columns has both include and exclude; keep one of them: include names all that is carried, exclude what is not`,
		}},
		{"the key left out", `tables:
  - {name: a, key: [id, line], capture: {method: wal}, columns: {exclude: [line]}}
  - {name: b, key: [id, line], capture: {method: wal}, columns: {include: [id]}}
`, []string{
			`:4: exclude names "line", which is of the key; take it out of exclude; to hide its values, hash it`,
			`:5: include leaves out "line", which is of the key; add it to include; to hide its values, hash it`,
		}},
		{"what is not carried", `tables:
  - name: a
    capture: {method: wal}
    columns:
      exclude: [b, c, d]
      rename:
        b: x
      hash: [e, c]
      as:
        d: STRING
        e: JSON
  - name: b
    capture: {method: wal}
    columns:
      include: [id]
      rename:
        b: x
      hash: [c]
      as: {d: STRING}
  - name: c
    capture: {method: wal}
    columns:
      compute: {b: x, c: y, d: z}
      rename:
        b: x
      hash: [c]
      as: {d: STRING}
  - {name: d, capture: {method: wal}, columns: {exclude: [p], as: {p: STRING}, compute: {p: x}}}
`, []string{
			`:9: rename names "b", which is excluded; take it out of one of them`,
			`:10: hash names "c", which is excluded; take it out of one of them`,
			`:12: as names "d", which is excluded; take it out of one of them`,
			`:13: column "e" is both hashed and given another type; keep one of them: a hash is a STRING`,
			`:19: rename names "b", which include does not; add it to include, or take it out of rename`,
			`:20: hash names "c", which include does not; add it to include, or take it out of hash`,
			`:21: as names "d", which include does not; add it to include, or take it out of as`,
			`:25: the name "c" is taken: it is a column of the source; ` + same,
			`:25: the name "d" is taken: it is a column of the source; ` + same,
			`:30: as names "p", which is excluded; take it out of one of them`,
		}},
		{"names that are taken", `tables:
  - name: a
    key: [id]
    capture: {method: wal}
    columns:
      rename:
        a: x
        b: X
        c: _Version
        d: ID
        e: f
      hash: [f]
      compute:
        x: "1"
        _deleted: "false"
        g: "2"
        G: "3"
`, []string{
			`:10: the name "X" is taken: it is what "a" is renamed to; ` + same,
			`:11: the name "_Version" is taken: it is metadata of every table; ` + same,
			`:12: the name "ID" is taken: it is a column of the source; ` + same,
			`:13: the name "f" is taken: it is a column of the source; ` + same,
			`:16: the name "x" is taken: it is what "a" is renamed to; ` + same,
			`:17: the name "_deleted" is taken: it is metadata of every table; ` + same,
			`:19: the name "G" is taken: it is a computed column; ` + same,
		}},
		{"SQL", `tables:
  - name: a
    capture: {method: wal}
    columns:
      compute:
        b: first;
        c: "-- nothing"
`, []string{
			`:8: b ends in a semicolon; leave it out: the query becomes a part of others`,
			`:9: c holds nothing; write an expression of Postgres, such as first || ' ' || last`,
		}},
		{"a query", `tables:
  - name: a
    key: [id]
    query: SELECT 1
    capture: {method: snapshot}
    columns:
      rename: {b: c}
      compute: {d: "1"}
`, []string{
			`:9: a query names its columns itself; write it into the query: SELECT mail AS email`,
			`:10: a query computes its columns itself; write it into the query: SELECT first || ' ' || last AS full_name`,
		}},
		{"partitions and clusters", `tables:
  - name: a
    capture: {method: wal}
    columns: {rename: {at: created, b: c}, exclude: [d]}
    partition_by: {column: at}
    cluster_by: [b, c, d]
  - name: b
    capture: {method: wal}
    columns: {include: [id]}
    partition_by: {column: at}
    cluster_by: [id, x]
  - name: c
    capture: {method: wal}
    columns: {hash: [at]}
    partition_by: {column: at}
    cluster_by: [at]
`, []string{
			`:7: partition_by names "at", which is "created" in BigQuery; write partition_by with the names of BigQuery`,
			`:8: cluster_by names "b", which is "c" in BigQuery; write cluster_by with the names of BigQuery`,
			`:8: cluster_by names "d", which is not carried; carry the column, or name another`,
			`:12: partition_by names "at", which is not carried; carry the column, or name another`,
			`:13: cluster_by names "x", which is not carried; carry the column, or name another`,
			`:17: partition_by names "at", which is hashed; name a column of dates or times`,
		}},
		{"names that BigQuery does not allow", `tables:
  - name: a
    capture: {method: wal}
    columns:
      rename:
        a: a.b
      compute:
        c.d: "1"
`, []string{
			`:8: "a.b" does not fit tables[0].columns.rename.a; it has to match ^[^!"$()*,./;?@\[\\\]^` + "`" + `{}~]{1,300}$`,
			`:10: "c.d" does not fit tables[0].columns.compute; it has to match ^[^!"$()*,./;?@\[\\\]^` + "`" + `{}~]{1,300}$`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			refused(t, head+test.yaml, test.want)
		})
	}
}

// TestNamesThatAreTaken: two tables do not land under one name, whatever is behind it.
func TestNamesThatAreTaken(t *testing.T) {
	t.Parallel()
	const remedy = "; give one of them another dataset, in a pipeline file of its own, or another write mode"
	files := map[string]string{
		"a.yaml": `pipeline: a
destination: {dataset: d}
tables:
  - {name: a_log, capture: {method: wal}}
  - {name: a, capture: {method: wal}}
  - {name: b, capture: {method: wal}, write: merge}
  - {name: b_log, capture: {method: wal}}
  - {name: b_staging, capture: {method: wal}}
  - {name: b_merge, capture: {method: wal}}
  - {name: c, capture: {method: wal}, write: history}
  - {name: c_history, capture: {method: wal}, write: cdc}
  - {name: e, capture: {method: wal}, write: cdc}
  - {name: e_cdc, capture: {method: wal}}
  - {name: f, capture: {method: snapshot}, write: replace}
`,
		"b.yaml": `pipeline: b
destination: {dataset: d}
tables:
  - {name: f_replace, capture: {method: wal}}
  - {name: a, capture: {method: wal}, write: merge}
`,
		"c.yaml": `pipeline: c
destination: {dataset: e}
tables:
  - {name: a, capture: {method: wal}}
  - {name: a_history, capture: {method: wal}}
`,
		"d.yaml": `pipeline: d
destination: {dataset: d}
tenants: {query: SELECT 1, column: id, dataset: "d_{id}"}
tables:
  - {name: a, capture: {method: changelog}}
`,
	}
	_, err := load(files)
	want := `a.yaml:5: table "a" lands in d.a_log, and so does table "a_log" of pipeline "a"` + remedy + `
a.yaml:8: table "b_staging" lands in d.b_staging, and so does table "b" of pipeline "a"` + remedy + `
a.yaml:9: table "b_merge" lands in d.b_merge, and so does table "b" of pipeline "a"` + remedy + `
a.yaml:11: table "c_history" lands in d.c_history, and so does table "c" of pipeline "a"` + remedy + `
a.yaml:13: table "e_cdc" lands in d.e_cdc, and so does table "e" of pipeline "a"` + remedy + `
b.yaml:4: table "f_replace" lands in d.f_replace, and so does table "f" of pipeline "a"` + remedy + `
b.yaml:5: d.a is also where pipeline "a" lands; give one of them another dataset`
	if err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

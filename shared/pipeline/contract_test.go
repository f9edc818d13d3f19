package pipeline_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// TestContracts: what `bq show --schema` prints, in both of its formats.
func TestContracts(t *testing.T) {
	t.Parallel()
	const odd = "bigquery/a/_b größe.json"
	loaded, err := load(map[string]string{
		"a.yaml": head + "tables: [{name: t, capture: {method: wal}}, {name: u, capture: {method: wal}}, {name: _b größe, capture: {method: wal}}]\n",
		"bigquery/a/t.json": `[
  {
    "name": "id",
    "type": "INTEGER",
    "mode": "REQUIRED"
  },
  {
    "description": "what it costs",
    "name": "Price",
    "type": "numeric"
  }, {"name": "tags", "type": "STRING", "mode": "repeated"}
]
`,
		odd:                         `[{"name":"a","type":"FLOAT","mode":"NULLABLE"},{"name":"b","type":"BOOLEAN"}]`,
		"bigquery/README.md":        "# Contracts",
		"bigquery/a/.keep":          "",
		"bigquery.json":             "elsewhere",
		"pipelines/bigquery/t.json": "elsewhere",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []*pipeline.Contract{
		{File: "bigquery/a/t.json", Columns: []pipeline.ContractColumn{
			{Name: "id", Type: "INT64", Mode: "REQUIRED", Line: 2},
			{Name: "Price", Type: "NUMERIC", Mode: "NULLABLE", Description: "what it costs", Line: 7},
			{Name: "tags", Type: "STRING", Mode: "REPEATED", Line: 11},
		}},
		nil,
		{File: odd, Columns: []pipeline.ContractColumn{{Name: "a", Type: "FLOAT64", Mode: "NULLABLE", Line: 1}, {Name: "b", Type: "BOOL", Mode: "NULLABLE", Line: 1}}},
	}
	got := make([]*pipeline.Contract, len(loaded[0].Tables))
	for i := range got {
		got[i] = loaded[0].Tables[i].Contract
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("contracts (-want +got):\n%s", diff)
	}
	for i, table := range loaded[0].Tables {
		if file := pipeline.ContractFile("a", table.Name); want[i] != nil && file != want[i].File {
			t.Errorf("ContractFile(%q) = %s, want %s", table.Name, file, want[i].File)
		}
	}
}

// TestContractProblems: every mistake of a contract is reported with its line, and
// none is left unread.
func TestContractProblems(t *testing.T) {
	t.Parallel()
	const bq = "; write what `bq show --schema` prints"
	const types = "; use one of: STRING, BYTES, BOOL, INT64, FLOAT64, NUMERIC, BIGNUMERIC, DATE, TIME, DATETIME, TIMESTAMP, INTERVAL, JSON, GEOGRAPHY"
	tests := []struct{ name, text, want string }{
		{"empty", "", ":1: this is no JSON: unexpected end of JSON input" + bq},
		{"an object", "\n{}", ":1: the contract is no list of columns" + bq},
		{"no column", "[\n]", ":1: the contract lists no column" + bq + ", or delete the file"},
		{"cut off", "[\n{\"name\": \"a\",\n", ":2: this is no JSON: unexpected end of JSON input" + bq},
		{"a comment", "[\n{\"name\": \"a\", \"type\": \"DATE\"},\n# more\n]", ":3: this is no JSON: invalid character '#' looking for beginning of value" + bq},
		{"two of them", "[{\"name\": \"a\", \"type\": \"DATE\"}]\n[]", ":2: this is no JSON: invalid character '[' after top-level value" + bq},
		{
			"the same twice", "[{\"name\": \"a\", \"type\": \"DATE\"},\n{\"name\": \"a\", \"type\": \"DATE\"}]",
			`:2: column "a" is also on line 1; keep one of them: upper and lower case are the same in BigQuery`,
		},
		{"every mistake", `[
  {"name": "a", "type": "RECORD", "fields": []},
  {"name": "b", "type": "RECORD", "mode": "OPTIONAL"},

  {"type": "STRING"},
  {"name": "c", "type": 5}, {"name": "d"},
  "e",
  {"name": "F", "type": "JSON"},
  {"name": "f", "type": "DATE"},
  {"NAME": "g", "type": "DATE", "description": null}
]`, `:2: unknown key "fields" in a column; leave it out: known keys are description, mode, name, type
bigquery/a/t.json:2: column "a" is of type "RECORD", which no column here has` + types + `
bigquery/a/t.json:3: column "b" is of type "RECORD", which no column here has` + types + `
bigquery/a/t.json:3: column "b" is of mode "OPTIONAL"; use one of: NULLABLE, REQUIRED, REPEATED
bigquery/a/t.json:5: the column has no name; add name:
bigquery/a/t.json:6: type is no text; put it into quotes
bigquery/a/t.json:6: column "c" is of type "", which no column here has` + types + `
bigquery/a/t.json:6: column "d" is of type "", which no column here has` + types + `
bigquery/a/t.json:7: this is no column; write {"name": .., "type": .., "mode": ..}
bigquery/a/t.json:9: column "f" is also on line 8; keep one of them: upper and lower case are the same in BigQuery
bigquery/a/t.json:10: unknown key "NAME" in a column; leave it out: known keys are description, mode, name, type
bigquery/a/t.json:10: description is no text; put it into quotes
bigquery/a/t.json:10: the column has no name; add name:`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(map[string]string{"a.yaml": head + "tables: [{name: t, capture: {method: wal}}]\n", "bigquery/a/t.json": test.text})
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff("bigquery/a/t.json"+test.want, err.Error()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestContractsOfNothing: a contract that no table has would hold nobody to it.
func TestContractsOfNothing(t *testing.T) {
	t.Parallel()
	const contract = `[{"name": "a", "type": "DATE"}]`
	files := map[string]string{
		"a.yaml":                 head + "tables: [{name: t, capture: {method: wal}}]\n",
		"bigquery/a/t.json":      contract,
		"bigquery/a/u.json":      contract,
		"bigquery/a/t.jsn":       contract,
		"bigquery/b/t.json":      contract,
		"bigquery/t.json":        contract,
		"bigquery/a/old/t.json":  contract,
		"bigquery/a/t.json.orig": contract,
	}
	const misplaced = ": this file is no contract; name it bigquery/<pipeline>/<table>.json, or move it elsewhere\n"
	want := "bigquery/a/old/t.json" + misplaced + "bigquery/a/t.jsn" + misplaced + "bigquery/a/t.json.orig" + misplaced +
		"bigquery/a/u.json: pipeline \"a\" has no table of that name; name the file as the table, or delete it\n" +
		"bigquery/b/t.json: there is no pipeline \"b\"; name the folder as the pipeline, or delete it\n" +
		"bigquery/t.json" + misplaced[:len(misplaced)-1]
	_, err := load(files)
	if err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}

	// Of a pipeline that cannot be read, nobody knows the tables; of the others, all is said.
	files["b.yaml"] = "pipeline: b\n"
	files["bigquery/a/t.json"] = "{}"
	want = "b.yaml:1: the file has no \"destination\"; add destination:\nbigquery/a/t.json:1: the contract is no list of columns; write what `bq show --schema` prints"
	if _, err = load(files); err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

package mapping_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/mapping"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// TestCheckContract names everything that does not fit, and nothing that does.
func TestCheckContract(t *testing.T) {
	t.Parallel()
	target := &warehouse.Table{Name: "orders", Columns: []warehouse.Column{
		{Name: "id", Kind: rowwire.Int8, Required: true},
		{Name: "Total", Kind: rowwire.Numeric},
		{Name: "tags", Kind: rowwire.Text, Repeated: true},
	}}
	column := func(name, typ, mode string) pipeline.ContractColumn {
		return pipeline.ContractColumn{Name: name, Type: typ, Mode: mode, Line: len(name)}
	}
	id, total, tags := column("id", "INT64", "REQUIRED"), column("total", "NUMERIC", "NULLABLE"), column("tags", "STRING", "REPEATED")
	tests := map[string]struct {
		columns []pipeline.ContractColumn
		want    []string
	}{
		"all of it":               {[]pipeline.ContractColumn{id, total, tags}, nil},
		"in another order":        {[]pipeline.ContractColumn{tags, id, total}, nil},
		"with the metadata":       {[]pipeline.ContractColumn{id, total, tags, column("_version", "STRING", "REQUIRED"), column("_DELETED", "BOOL", "NULLABLE")}, nil},
		"other metadata":          {[]pipeline.ContractColumn{id, total, tags, column("_version", "INT64", "REQUIRED")}, []string{`f:8: column "_version" is STRING instead of INT64`}},
		"never NULL for NULLABLE": {[]pipeline.ContractColumn{column("id", "INT64", "NULLABLE"), total, tags}, nil},
		"NULLABLE for never NULL": {[]pipeline.ContractColumn{id, column("total", "NUMERIC", "REQUIRED"), tags}, []string{`f:5: column "total" is NULLABLE instead of REQUIRED`}},
		"one for many":            {[]pipeline.ContractColumn{id, column("total", "NUMERIC", "REPEATED"), column("tags", "STRING", "NULLABLE")}, []string{`f:5: column "total" is NULLABLE instead of REPEATED`, `f:4: column "tags" is REPEATED instead of NULLABLE`}},
		"missing and beyond": {[]pipeline.ContractColumn{column("note", "STRING", "NULLABLE"), column("id", "STRING", "REPEATED")}, []string{
			`f:4: column "note" is missing`, `f:2: column "id" is INT64 instead of STRING`, `f:2: column "id" is REQUIRED instead of REPEATED`,
			`f: column "Total", NULLABLE NUMERIC, is not in it`, `f: column "tags", REPEATED STRING, is not in it`,
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, problem := range mapping.Differences(&pipeline.Contract{File: "f", Columns: test.columns}, target) {
				got = append(got, problem.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Differences (-want +got):\n%s", diff)
			}
			err := mapping.CheckContract(&pipeline.Table{Name: "orders", Contract: &pipeline.Contract{File: "bigquery/shop/orders.json", Columns: test.columns}}, target)
			if (err == nil) != (test.want == nil) {
				t.Fatalf("CheckContract: %v", err)
			}
			if class, remedy := fault.Classify(err); err != nil && (class != fault.Permanent || !strings.Contains(remedy, "tidemark contract -pipeline shop -table \"orders\"")) {
				t.Errorf("%v: %v, remedy %q", err, class, remedy)
			}
		})
	}
	if err := mapping.CheckContract(&pipeline.Table{Name: "orders"}, target); err != nil {
		t.Errorf("without a contract: %v", err)
	}
}

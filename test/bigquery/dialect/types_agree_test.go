//go:build googlesql

package dialect

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/test/bigquery/analyzer"
)

func analyzerOptions() analyzer.Options {
	o := analyzer.Options{DefaultProject: "p", DefaultDataset: "d", Parameters: []analyzer.Parameter{
		{Name: "ids", Type: "ARRAY<INT64>"}, {Name: "since", Type: "TIMESTAMP"}, {Name: "day", Type: "STRING"}, {Name: "n", Type: "INT64"},
	}}
	for path, columns := range testSchema() {
		parts := strings.SplitN(path, ".", 3)
		table := analyzer.Table{Project: parts[0], Dataset: parts[1], Name: parts[2]}
		for _, c := range columns {
			table.Columns = append(table.Columns, analyzer.Column(c))
		}
		o.Tables = append(o.Tables, table)
	}
	return o
}

// TestTypesAgree: what the tests of values ask is valid GoogleSQL, and the types
// that the printer infers are those of Google's analyzer.
func TestTypesAgree(t *testing.T) {
	t.Parallel()
	o := analyzerOptions()
	for _, tc := range valueCases() {
		want, err := analyzer.Analyze(t.Context(), tc.query, o)
		var refused *analyzer.Error
		if errors.As(err, &refused) {
			t.Errorf("%s\n  GoogleSQL refuses: %v", tc.query, refused)
			continue
		}
		if err != nil {
			t.Fatalf("analyzing: %v", err)
		}
		got, err := TranslateStatement(tc.query, testOptions())
		if err != nil {
			t.Errorf("%s\n  %v", tc.query, err)
			continue
		}
		var columns []analyzer.Column
		for _, c := range got.Columns {
			columns = append(columns, analyzer.Column(c))
		}
		if diff := cmp.Diff(want.Columns, columns); diff != "" {
			t.Errorf("%s\n%s", tc.query, diff)
		}
	}
}

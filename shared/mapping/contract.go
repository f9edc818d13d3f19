package mapping

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// CheckContract refuses a table whose columns in BigQuery would no longer be what its
// contract says, naming everything that is different at once. A table without a
// contract fits.
func CheckContract(spec *pipeline.Table, target *warehouse.Table) error {
	if spec.Contract == nil {
		return nil
	}
	found := Differences(spec.Contract, target)
	if len(found) == 0 {
		return nil
	}
	list := make([]string, len(found))
	for i, problem := range found {
		list[i] = problem.String()
	}
	return fault.Fix(fmt.Errorf("table %q no longer fits its contract: %s", spec.Name, strings.Join(list, "; ")), fmt.Sprintf(
		"change the source back; or, if the readers agree, run `tidemark contract -pipeline %s -table %q` and deploy the contract that it writes",
		path.Base(path.Dir(spec.Contract.File)), spec.Name))
}

// Differences lists what the columns of the table lack, have beyond the contract or have
// otherwise, in the order of the contract. Names are the same in upper and lower case,
// as they are in BigQuery; a column that is never NULL fits a NULLABLE one; the metadata
// columns may be missing from the contract.
func Differences(contract *pipeline.Contract, target *warehouse.Table) pipeline.Problems {
	left := map[string]warehouse.Field{}
	fields := target.Schema()
	for _, f := range fields {
		left[strings.ToLower(f.Name)] = f
	}
	var out pipeline.Problems
	differs := func(line int, format string, args ...any) {
		out = append(out, pipeline.Problem{File: contract.File, Line: line, What: fmt.Sprintf(format, args...)})
	}
	for _, c := range contract.Columns {
		f, ok := left[strings.ToLower(c.Name)]
		if !ok {
			differs(c.Line, "column %q is missing", c.Name)
			continue
		}
		delete(left, strings.ToLower(c.Name))
		if is := pipeline.TypeName(f.Type); is != c.Type {
			differs(c.Line, "column %q is %s instead of %s", c.Name, is, c.Type)
		}
		if f.Mode != c.Mode && (f.Mode != "REQUIRED" || c.Mode != "NULLABLE") {
			differs(c.Line, "column %q is %s instead of %s", c.Name, f.Mode, c.Mode)
		}
	}
	for _, f := range fields {
		if _, unmentioned := left[strings.ToLower(f.Name)]; unmentioned && !slices.Contains(pipeline.MetadataColumns(), f.Name) {
			differs(0, "column %q, %s %s, is not in it", f.Name, f.Mode, pipeline.TypeName(f.Type))
		}
	}
	return out
}

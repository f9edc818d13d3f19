package pipeline

import (
	"fmt"
	"regexp"
)

// tableName is what BigQuery allows for a table, whose 1,024 bytes no table of Postgres
// reaches. (BigQuery: table naming.)
var tableName = regexp.MustCompile(`^[\p{L}\p{M}\p{N}\p{Pc}\p{Pd}\p{Zs}]+$`)

// tableName refuses a table that BigQuery cannot have by its name.
func (r *reader) tableName(at string, t *Table) {
	if tableName.MatchString(t.Name) {
		return
	}
	remedy := "choose another name"
	if t.Query == "" {
		remedy = "rename it in the source, or read it under another name by a query: SELECT * FROM it"
	}
	r.problem(at+"/name", fmt.Sprintf("table %q has a name that BigQuery does not allow: a table's has letters, marks, digits, connectors, dashes and spaces", t.Name), remedy)
}

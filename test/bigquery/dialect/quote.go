package dialect

import (
	"fmt"
	"strings"
)

// quoteName quotes a DuckDB identifier.
func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteText writes a DuckDB string literal. DuckDB literals know no escapes
// but the doubled quote, and cannot hold a NUL byte.
func quoteText(s string) string {
	if !strings.ContainsRune(s, 0) {
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	parts := strings.Split(s, "\x00")
	for i, p := range parts {
		parts[i] = "'" + strings.ReplaceAll(p, "'", "''") + "'"
	}
	return "(" + strings.Join(parts, " || chr(0) || ") + ")"
}

func quoteBytes(s string) string {
	return fmt.Sprintf("unhex('%X')", s)
}

// structFieldName names an unnamed struct field: DuckDB has none.
func structFieldName(i int, name string) string {
	if name == "" {
		return fmt.Sprintf("_field_%d", i+1) // as BigQuery's own exports name them
	}
	return name
}

package bigquery

import (
	"context"
	"fmt"
	"strings"
)

// allColumns names every column of a table.
func allColumns(fields []field) map[string]bool {
	out := map[string]bool{}
	for _, f := range fields {
		out[f.name] = true
	}
	return out
}

// sizeSQL is the DuckDB expression of a value's logical bytes.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#data_type_sizes
func (f field) sizeSQL(expr string) string {
	if f.repeated {
		return "coalesce(list_sum(list_transform(" + expr + ", lambda x: " + f.element().sizeSQL("x") + ")), 0)"
	}
	fixed := func(n int) string { return fmt.Sprintf("(CASE WHEN %s IS NULL THEN 0 ELSE %d END)", expr, n) }
	switch f.kind {
	case kindString, kindBigNumeric, kindJSON, kindBytes:
		if f.kind == kindBigNumeric {
			return fixed(32)
		}
		if f.kind == kindBytes {
			return "coalesce(octet_length(" + expr + ") + 2, 0)"
		}
		return "coalesce(strlen(CAST(" + expr + " AS VARCHAR)) + 2, 0)"
	case kindBool:
		return fixed(1)
	case kindNumeric:
		return fixed(16)
	case kindStruct:
		parts := make([]string, len(f.fields))
		for i, m := range f.fields {
			parts[i] = m.sizeSQL("struct_extract(" + expr + ", " + quoteText(m.name) + ")")
		}
		return "(" + strings.Join(parts, " + ") + ")"
	case kindDate, kindDatetime, kindFloat64, kindInt64, kindTime, kindTimestamp:
	}
	return fixed(8)
}

// sumOfSizes is the DuckDB expression of the logical bytes of columns.
func sumOfSizes(fields []field, columns map[string]bool) string {
	var parts []string
	for _, f := range fields {
		if columns[f.name] {
			parts = append(parts, f.sizeSQL(quoteIdent(f.name)))
		}
	}
	if len(parts) == 0 {
		return "0"
	}
	return "CAST(coalesce(sum(" + balanced(parts) + "), 0) AS BIGINT)"
}

// balanced adds terms so that thousands of them do not nest as deep.
func balanced(terms []string) string {
	if len(terms) == 1 {
		return terms[0]
	}
	half := len(terms) / 2
	return "(" + balanced(terms[:half]) + " + " + balanced(terms[half:]) + ")"
}

// columnBytes sums the logical bytes of columns, of the partitions that keep
// lets through.
func (s *Server) columnBytes(ctx context.Context, t *table, columns map[string]bool, keep func(partition string) bool) (int64, error) {
	if len(columns) == 0 {
		return 0, nil
	}
	if keep == nil || t.part.column == "" {
		var total int64
		err := s.store.scalar(ctx, "SELECT "+sumOfSizes(s.fieldsOf(t), columns)+" FROM "+t.real(), &total)
		return total, err
	}
	states, err := s.partitionStates(ctx, s.store.db, t, columns, keep)
	if err != nil {
		return 0, fmt.Errorf("sizing %s: %w", t.id, err)
	}
	var total int64
	for _, state := range states {
		total += state.bytes
	}
	return total, nil
}

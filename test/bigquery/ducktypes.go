package bigquery

import (
	"context"
	"fmt"
	"strings"
)

// describeDuck asks DuckDB for the columns of a query.
func (s *Server) describeDuck(ctx context.Context, query string) ([]field, error) {
	rows, err := s.store.db.QueryContext(ctx, "DESCRIBE "+query)
	if err != nil {
		return nil, duckError(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err is checked
	var out []field
	for rows.Next() {
		var name, typ string
		var rest [4]any
		if err := rows.Scan(&name, &typ, &rest[0], &rest[1], &rest[2], &rest[3]); err != nil {
			return nil, fmt.Errorf("describing a query: %w", err)
		}
		f, err := fieldFromDuck(typ)
		if err != nil {
			return nil, err
		}
		f.name = name
		out = append(out, f)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("describing a query: %w", err)
	}
	return out, nil
}

// fieldFromDuck reads a DuckDB type text such as STRUCT(a BIGINT, b VARCHAR)[].
func fieldFromDuck(typ string) (field, error) {
	typ = strings.TrimSpace(typ)
	if element, ok := strings.CutSuffix(typ, "[]"); ok {
		f, err := fieldFromDuck(element)
		if f.repeated {
			return field{}, errUnsupported("arrays of arrays in a result")
		}
		f.repeated = true
		return f, err
	}
	if strings.HasPrefix(typ, "STRUCT(") {
		return structFromDuck(typ)
	}
	base, _, _ := strings.Cut(typ, "(")
	switch base {
	case "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT", "UHUGEINT", `"NULL"`:
		return field{kind: kindInt64}, nil
	case "DOUBLE", "FLOAT":
		return field{kind: kindFloat64}, nil
	case "BOOLEAN":
		return field{kind: kindBool}, nil
	case "VARCHAR":
		return field{kind: kindString}, nil
	case "BLOB":
		return field{kind: kindBytes}, nil
	case "DATE":
		return field{kind: kindDate}, nil
	case "TIME":
		return field{kind: kindTime}, nil
	case "TIMESTAMP":
		return field{kind: kindDatetime}, nil
	case "TIMESTAMP WITH TIME ZONE":
		return field{kind: kindTimestamp}, nil
	case "JSON":
		return field{kind: kindJSON}, nil
	case "DECIMAL":
		return field{kind: kindNumeric}, nil
	}
	return field{}, errUnsupported("a result of DuckDB's type %s", typ)
}

func structFromDuck(typ string) (field, error) {
	f := field{kind: kindStruct}
	body := strings.TrimSuffix(strings.TrimPrefix(typ, "STRUCT("), ")")
	for _, member := range splitTopLevel(body) {
		name, rest := cutDuckName(strings.TrimSpace(member))
		m, err := fieldFromDuck(rest)
		if err != nil {
			return field{}, err
		}
		m.name = name
		f.fields = append(f.fields, m)
	}
	return f, nil
}

func cutDuckName(member string) (name, rest string) {
	if !strings.HasPrefix(member, `"`) {
		name, rest, _ = strings.Cut(member, " ")
		return name, rest
	}
	for i := 1; i < len(member); i++ {
		if member[i] != '"' {
			continue
		}
		if i+1 < len(member) && member[i+1] == '"' {
			i++
			continue
		}
		return strings.ReplaceAll(member[1:i], `""`, `"`), member[i+1:]
	}
	return member, ""
}

func splitTopLevel(text string) []string {
	var out []string
	depth, start, quoted := 0, 0, false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, text[start:i])
			start = i + 1
		}
	}
	return append(out, text[start:])
}

// assignable says whether DuckDB's column can be stored as BigQuery's without
// a change of its value; a statement whose translation computes another type
// is refused rather than converted.
func assignable(duck, want field) bool {
	if duck.repeated != want.repeated {
		return duck.kind == kindInt64 && !duck.repeated // the untyped NULL
	}
	switch {
	case duck.kind == want.kind && duck.kind == kindStruct:
		if len(duck.fields) != len(want.fields) {
			return false
		}
		for i := range duck.fields {
			if !assignable(duck.fields[i], want.fields[i]) {
				return false
			}
		}
		return true
	case duck.kind == want.kind:
		return true
	case duck.kind == kindString:
		return want.kind == kindBigNumeric || want.kind == kindJSON
	case duck.kind == kindInt64:
		return true // an integer fits or fails, and NULL has this type
	}
	return false
}

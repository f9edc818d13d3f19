package dialect

import (
	"fmt"
	"regexp"
	"strings"
)

func (e *printer) jsonCall(s *scope, c *call) (value, bool) {
	switch c.name {
	case "JSON_VALUE", "JSON_EXTRACT_SCALAR":
		arity(c, 1, 2)
		v, path := e.document(s, c)
		guard := ""
		if v.typ.kind == kindString {
			guard = fmt.Sprintf("WHEN NOT json_valid(%s) THEN NULL ", v.sql)
		}
		return typed(kindString, "(CASE %sWHEN json_type(%s, %s) IN ('OBJECT', 'ARRAY', 'NULL') THEN NULL ELSE json_extract_string(%s, %s) END)",
			guard, v.sql, path, v.sql, path), true
	case "JSON_QUERY", "JSON_EXTRACT":
		arity(c, 1, 2)
		v, path := e.document(s, c)
		if v.typ.kind == kindJSON {
			return typed(kindJSON, "json_extract(%s, %s)", v.sql, path), true
		}
		return typed(kindString, "(CASE WHEN NOT json_valid(%s) OR json_type(%s, %s) = 'NULL' THEN NULL ELSE CAST(json_extract(%s, %s) AS VARCHAR) END)",
			v.sql, v.sql, path, v.sql, path), true
	case "PARSE_JSON":
		arity(c, 1, 1)
		return typed(kindJSON, "CAST(%s AS JSON)", e.arg(s, c, 0, kindString)), true
	case "JSON_TYPE":
		arity(c, 1, 1)
		v := e.arg(s, c, 0, kindJSON)
		return typed(kindString, "(CASE json_type(%s) WHEN 'VARCHAR' THEN 'string' WHEN 'OBJECT' THEN 'object' WHEN 'ARRAY' THEN 'array' WHEN 'BOOLEAN' THEN 'boolean' WHEN 'NULL' THEN 'null' WHEN NULL THEN NULL ELSE CASE WHEN json_type(%s) IS NOT NULL THEN 'number' END END)", v, v), true
	case "TO_JSON_STRING":
		arity(c, 1, 2)
		if len(c.args) == 2 {
			refuse(c.position, "TO_JSON_STRING with pretty_print")
		}
		return e.toJSONString(s, c), true
	case "INT64", "FLOAT64", "BOOL":
		arity(c, 1, 1)
		k, _ := scalarKind(c.name)
		return e.jsonScalar(c, e.known(s, c, 0), k), true
	}
	return value{}, false
}

// document is a JSON or STRING argument and the DuckDB text of the JSONPath
// after it, $ by default.
func (e *printer) document(s *scope, c *call) (value, string) {
	v := e.known(s, c, 0)
	if v.typ.kind != kindJSON {
		v = e.coerce(c.position, v, typ{kind: kindString})
		v.typ.kind = kindString
	}
	if len(c.args) == 1 {
		return v, "'$'"
	}
	path, ok := duckPath(e.literalText(c, 1, "JSONPath"), c.name)
	if !ok {
		refuse(c.position, "JSONPath %q", e.literalText(c, 1, "JSONPath"))
	}
	return v, quoteText(path)
}

// duckPath rewrites a JSONPath of names and subscripts with every name quoted.
func duckPath(path, function string) (string, bool) {
	if !strings.HasPrefix(path, "$") {
		return "", false
	}
	step := regexp.MustCompile(`^(?:\.([^.\[\]"']+)|\."([^"\\]+)"|\[(\d+)\])`)
	if strings.HasPrefix(function, "JSON_EXTRACT") {
		step = regexp.MustCompile(`^(?:\.([^.\[\]"']+)|\['([^'"\\]+)'\]|\[(\d+)\])`)
	}
	var b strings.Builder
	b.WriteByte('$')
	for rest := path[1:]; rest != ""; {
		m := step.FindStringSubmatch(rest)
		if m == nil {
			return "", false
		}
		rest = rest[len(m[0]):]
		if m[3] != "" {
			b.WriteString("[" + m[3] + "]")
			continue
		}
		name := m[1] + m[2]
		if strings.ContainsAny(name, `"\\*`) {
			return "", false
		}
		b.WriteString("." + jsonKey(name))
	}
	return b.String(), true
}

func jsonKey(name string) string { return `"` + name + `"` }

// jsonIndex is j[0] or j['name'].
func (e *printer) jsonIndex(x *index, of value) value {
	lit, ok := x.at.(*literal)
	if !ok || x.how != "" {
		refuse(x.position, "JSON subscript that is not a literal")
	}
	switch lit.kind {
	case kindInt64:
		return typed(kindJSON, "json_extract(%s, '$[%s]')", of.sql, strings.TrimPrefix(lit.text, "+"))
	case kindString:
		return e.field(x.position, of, lit.text)
	}
	reject(x.position, "Subscript access using [%s] is not supported on JSON", lit.kind)
	return value{}
}

// jsonScalar converts a JSON value that must be of the type asked for.
func (e *printer) jsonScalar(c *call, v value, k kind) value {
	if v.typ.kind != kindJSON {
		reject(c.position, "No matching signature for function %s for argument type %s", c.name, v.typ)
	}
	types := map[kind]string{
		kindString: "'VARCHAR'", kindInt64: "'BIGINT', 'UBIGINT'", kindFloat64: "'BIGINT', 'UBIGINT', 'DOUBLE'", kindBool: "'BOOLEAN'",
	}[k]
	return typed(k, "(CASE WHEN json_type(%s) IS NULL THEN NULL WHEN json_type(%s) IN (%s) THEN CAST(json_extract_string(%s, '$') AS %s) ELSE %s END)",
		v.sql, v.sql, types, v.sql, typ{kind: k}.duck(), e.fail("The provided JSON input is not a "+k.String()))
}

// toJSONString is TO_JSON_STRING of one argument.
func (e *printer) toJSONString(s *scope, c *call) value {
	if x, ok := c.args[0].(*structOf); ok {
		return typed(kindString, "%s", e.jsonOfItems(s, c, x))
	}
	return typed(kindString, "%s", e.jsonOf(c, e.known(s, c, 0)))
}

// jsonOfItems is the JSON object of a STRUCT constructor, which is never NULL,
// without the struct: as many fields as it has would each name them all.
func (e *printer) jsonOfItems(s *scope, c *call, x *structOf) string {
	fields, values := e.structItems(s, x)
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = quoteText(jsonName(fields[i].name, i > 0)) + " || " + e.jsonOf(c, v)
	}
	return "('{' || " + strings.Join(parts, " || ") + " || '}')"
}

// jsonName is what stands before a member's value.
func jsonName(name string, comma bool) string {
	text := `"` + escaped(name) + `":`
	if comma {
		return "," + text
	}
	return text
}

// jsonOf is the JSON text of a value.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/json_functions#json_encodings
func (e *printer) jsonOf(c *call, v value) string {
	if v.typ.kind == kindNull {
		return "'null'"
	}
	var sql string
	switch v.typ.kind {
	case kindArray:
		sql = e.jsonArray(c, v)
	case kindStruct:
		sql = e.jsonStruct(c, v)
	default:
		sql = jsonScalarText(v)
	}
	if sql == "" {
		refuse(c.position, "TO_JSON_STRING of %s", v.typ)
	}
	return "COALESCE(" + sql + ", 'null')"
}

func (e *printer) jsonArray(c *call, v value) string {
	x := e.fresh("x")
	element := e.jsonOf(c, value{sql: quoteName(x), typ: *v.typ.elem})
	return fmt.Sprintf("(CASE WHEN %s IS NOT NULL THEN '[' || COALESCE(array_to_string(list_transform(%s, lambda %s: %s), ','), '') || ']' END)", v.sql, v.sql, quoteName(x), element)
}

func (e *printer) jsonStruct(c *call, v value) string {
	parts := make([]string, len(v.typ.fields))
	for i, f := range v.typ.fields {
		cell := value{sql: fmt.Sprintf("struct_extract(%s, %s)", v.sql, quoteText(structFieldName(i, f.name))), typ: f.typ}
		parts[i] = quoteText(jsonName(f.name, i > 0)) + " || " + e.jsonOf(c, cell)
	}
	return fmt.Sprintf("(CASE WHEN %s IS NOT NULL THEN '{' || %s || '}' END)", v.sql, strings.Join(parts, " || "))
}

// jsonScalarText: numbers that a FLOAT64 cannot hold become strings. It is empty
// for a type that the emulator does not encode.
func jsonScalarText(v value) string {
	const exact = "BETWEEN -9007199254740992 AND 9007199254740992"
	quoted := func(text string) string { return `('"' || ` + text + ` || '"')` }
	unless := func(number, text string) string {
		return fmt.Sprintf("(CASE WHEN %s THEN %s ELSE %s END)", number, text, quoted(text))
	}
	plain := "CAST(" + v.sql + " AS VARCHAR)"
	switch v.typ.kind {
	case kindJSON:
		return "CAST(json(" + v.sql + ") AS VARCHAR)"
	case kindString:
		// What DuckDB escapes otherwise is rare.
		return fmt.Sprintf(`(CASE WHEN regexp_matches(%s, '[\x00-\x1f\x{2028}\x{2029}]') THEN %s(%s) ELSE CAST(to_json(%s) AS VARCHAR) END)`, v.sql, jsonText, v.sql, v.sql)
	case kindBool:
		return plain
	case kindInt64:
		return unless(v.sql+" "+exact, plain)
	case kindFloat64:
		return fmt.Sprintf(`(CASE WHEN isnan(%s) THEN '"NaN"' WHEN isinf(%s) THEN CASE WHEN %s > 0 THEN '"Infinity"' ELSE '"-Infinity"' END ELSE %s END)`, v.sql, v.sql, v.sql, floatText(v.sql))
	case kindNumeric:
		return unless(fmt.Sprintf("%s = trunc(%s) AND %s %s", v.sql, v.sql, v.sql, exact), numericText(v.sql))
	case kindBigNumeric:
		return unless(fmt.Sprintf("coalesce(NOT contains(%s, '.') AND TRY_CAST(%s AS HUGEINT) %s, FALSE)", v.sql, v.sql, exact), v.sql)
	case kindBytes:
		return quoted("to_base64(" + v.sql + ")")
	case kindDate, kindTime:
		t, _ := text(v.sql, v.typ.kind)
		return quoted(t)
	case kindTimestamp:
		return `('"' || ` + clockText(civil(v.sql, "'UTC'"), "%Y-%m-%dT%H:%M:%S") + ` || 'Z"')`
	case kindDatetime:
		return quoted(clockText(v.sql, "%Y-%m-%dT%H:%M:%S"))
	}
	return ""
}

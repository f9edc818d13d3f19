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
		arity(c, 1, 1)
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

// toJSONString: integers beyond 2^53 become strings.
func (e *printer) toJSONString(s *scope, c *call) value {
	v := e.known(s, c, 0)
	sql := ""
	switch v.typ.kind {
	case kindJSON:
		sql = fmt.Sprintf("CAST(json(%s) AS VARCHAR)", v.sql)
	case kindString:
		sql = fmt.Sprintf("CAST(to_json(%s) AS VARCHAR)", v.sql)
	case kindBool:
		sql = fmt.Sprintf("CAST(%s AS VARCHAR)", v.sql)
	case kindInt64:
		sql = fmt.Sprintf(`CASE WHEN %s BETWEEN -9007199254740992 AND 9007199254740992 THEN CAST(%s AS VARCHAR) ELSE '"' || CAST(%s AS VARCHAR) || '"' END`, v.sql, v.sql, v.sql)
	case kindDate, kindTime:
		t, _ := text(v.sql, v.typ.kind)
		sql = `'"' || ` + t + ` || '"'`
	case kindTimestamp:
		sql = `'"' || ` + clockText(civil(v.sql, "'UTC'"), "%Y-%m-%dT%H:%M:%S") + ` || 'Z"'`
	case kindDatetime:
		sql = `'"' || ` + clockText(v.sql, "%Y-%m-%dT%H:%M:%S") + ` || '"'`
	default:
		refuse(c.position, "TO_JSON_STRING of %s", v.typ)
	}
	return typed(kindString, "COALESCE(%s, 'null')", sql)
}

package dialect

import (
	"fmt"
	"strings"
)

func (e *printer) arrayCall(s *scope, c *call) (value, bool) {
	switch c.name {
	case "ARRAY_LENGTH":
		arity(c, 1, 1)
		return typed(kindInt64, "len(%s)", e.list(s, c, 0).sql), true
	case "ARRAY_CONCAT":
		arity(c, 1, 1000)
		return e.concatArrays(c.position, e.values(s, c)), true
	case "ARRAY_REVERSE":
		arity(c, 1, 1)
		v := e.list(s, c, 0)
		return value{sql: "list_reverse(" + v.sql + ")", typ: v.typ}, true
	case "ARRAY_TO_STRING":
		arity(c, 2, 2)
		v := e.list(s, c, 0)
		if v.typ.elem.kind != kindString {
			refuse(c.position, "ARRAY_TO_STRING of %s", v.typ)
		}
		return typed(kindString, "array_to_string(%s, %s)", v.sql, e.arg(s, c, 1, kindString)), true
	case "GENERATE_ARRAY":
		arity(c, 2, 3)
		return e.generateArray(s, c), true
	}
	return value{}, false
}

func (e *printer) list(s *scope, c *call, i int) value {
	v := e.known(s, c, i)
	if v.typ.kind != kindArray {
		reject(c.position, "No matching signature for function %s for argument type %s", c.name, v.typ)
	}
	return v
}

// concatArrays is NULL if any operand is; DuckDB's list_concat skips NULL.
func (e *printer) concatArrays(at position, list []value) value {
	list, t := e.unifyAll(at, list)
	if t.kind != kindArray {
		reject(at, "No matching signature for ARRAY_CONCAT")
	}
	var null []string
	sql := ""
	for i, v := range list {
		null = append(null, v.sql+" IS NULL")
		if i == 0 {
			sql = v.sql
			continue
		}
		sql = fmt.Sprintf("list_concat(%s, %s)", sql, v.sql)
	}
	return value{sql: fmt.Sprintf("(CASE WHEN %s THEN NULL ELSE %s END)", strings.Join(null, " OR "), sql), typ: t}
}

func (e *printer) generateArray(s *scope, c *call) value {
	list := e.values(s, c)
	for _, v := range list {
		if v.typ.kind != kindInt64 {
			refuse(c.position, "GENERATE_ARRAY of %s", v.typ)
		}
	}
	step := "CAST(1 AS BIGINT)"
	if len(list) == 3 {
		step = list[2].sql
	}
	return value{
		sql: fmt.Sprintf("(CASE WHEN %s = 0 THEN %s ELSE generate_series(%s, %s, %s) END)", step, e.fail("Sequence step cannot be 0."), list[0].sql, list[1].sql, step),
		typ: arrayOf(typ{kind: kindInt64}),
	}
}

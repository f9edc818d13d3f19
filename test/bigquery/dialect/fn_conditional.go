package dialect

import (
	"fmt"
	"strings"
)

func (e *printer) conditional(s *scope, c *call) (value, bool) {
	switch c.name {
	case "IF":
		arity(c, 3, 3)
		cond := e.condition(s, c.args[0], "IF")
		list, t := e.unifyAll(c.position, []value{e.expr(s, c.args[1]), e.expr(s, c.args[2])})
		return value{sql: fmt.Sprintf("(CASE WHEN %s THEN %s ELSE %s END)", cond, list[0].sql, list[1].sql), typ: t}, true
	case "IFNULL":
		arity(c, 2, 2)
		return e.coalesceCall(s, c), true
	case "COALESCE":
		arity(c, 1, 1000)
		return e.coalesceCall(s, c), true
	case "NULLIF":
		arity(c, 2, 2)
		return e.nullIf(s, c), true
	case "GREATEST", "LEAST":
		arity(c, 1, 1000)
		return e.extreme(s, c), true
	case "ERROR":
		arity(c, 1, 1)
		return value{sql: "error(" + e.arg(s, c, 0, kindString) + ")", typ: typ{kind: kindNull}}, true
	}
	return value{}, false
}

func (e *printer) coalesceCall(s *scope, c *call) value {
	list := make([]value, len(c.args))
	for i, a := range c.args {
		list[i] = e.expr(s, a)
	}
	return e.coalesce(c.position, list)
}

func (e *printer) coalesce(at position, list []value) value {
	list, t := e.unifyAll(at, list)
	return value{sql: "COALESCE(" + strings.Join(texts(list), ", ") + ")", typ: t}
}

func texts(list []value) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.sql
	}
	return out
}

func (e *printer) nullIf(s *scope, c *call) value {
	l, r := e.expr(s, c.args[0]), e.expr(s, c.args[1])
	same := e.equal(c.position, l, r)
	lu, _ := e.unify(c.position, l, r)
	return value{sql: fmt.Sprintf("(CASE WHEN %s THEN NULL ELSE %s END)", same.sql, lu.sql), typ: lu.typ}
}

// extreme is GREATEST or LEAST: NULL if any argument is, NaN if any is NaN.
// DuckDB's skip NULL.
func (e *printer) extreme(s *scope, c *call) value {
	list, t := e.unifyAll(c.position, e.values(s, c))
	e.orderable(c.position, value{typ: t})
	var null, nan []string
	for _, v := range list {
		null = append(null, v.sql+" IS NULL")
		nan = append(nan, "isnan("+v.sql+")")
	}
	sql := "CASE WHEN " + strings.Join(null, " OR ") + " THEN NULL"
	if t.kind == kindFloat64 {
		sql += " WHEN " + strings.Join(nan, " OR ") + " THEN CAST('nan' AS DOUBLE)"
	}
	sql += " ELSE " + strings.ToLower(c.name) + "(" + strings.Join(texts(list), ", ") + ") END"
	return value{sql: "(" + sql + ")", typ: t}
}

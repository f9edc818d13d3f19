package dialect

import (
	"fmt"
	"strings"
)

func (e *printer) windowFunction(s *scope, c *call) (value, bool) {
	switch c.name {
	case "ROW_NUMBER", "RANK", "DENSE_RANK":
		arity(c, 0, 0)
		return typed(kindInt64, "%s", e.numbering(s, c, strings.ToLower(c.name)+"()")), true
	case "PERCENT_RANK", "CUME_DIST":
		arity(c, 0, 0)
		return typed(kindFloat64, "%s", e.numbering(s, c, strings.ToLower(c.name)+"()")), true
	case "NTILE":
		arity(c, 1, 1)
		return typed(kindInt64, "%s", e.numbering(s, c, "ntile("+e.constant(c.args[0])+")")), true
	case "LEAD", "LAG":
		arity(c, 1, 3)
		return e.neighbour(s, c), true
	case "FIRST_VALUE", "LAST_VALUE":
		arity(c, 1, 1)
		v := e.expr(s, c.args[0])
		return value{sql: e.numbering(s, c, fmt.Sprintf("%s(%s%s)", strings.ToLower(c.name), v.sql, nullsModifier(c))), typ: v.typ}, true
	case "PERCENTILE_CONT":
		arity(c, 2, 2)
		return e.percentile(s, c), true
	case "NTH_VALUE":
		arity(c, 2, 2)
		v := e.expr(s, c.args[0])
		return value{sql: e.numbering(s, c, fmt.Sprintf("nth_value(%s, %s%s)", v.sql, e.constant(c.args[1]), nullsModifier(c))), typ: v.typ}, true
	}
	return value{}, false
}

// percentile interpolates between the values that are not NULL.
func (e *printer) percentile(s *scope, c *call) value {
	v := e.number(s, c, 0)
	p, ok := c.args[1].(*literal)
	if !ok || v.typ.kind == kindNumeric || c.nulls == "RESPECT" || c.over != nil && (len(c.over.order) > 0 || c.over.frame != nil || c.over.base != "") {
		refuse(c.position, "function PERCENTILE_CONT of this form")
	}
	x := e.coerce(c.position, v, typ{kind: kindFloat64}).sql
	plain := *c
	plain.nulls = ""
	return typed(kindFloat64, "%s", e.numbering(s, &plain, fmt.Sprintf("quantile_cont(%s, %s)", x, e.coerce(c.position, e.literal(p), typ{kind: kindFloat64}).sql)))
}

func nullsModifier(c *call) string {
	if c.nulls == "" {
		return ""
	}
	return " " + c.nulls + " NULLS"
}

// numbering prints a function that exists only over a window.
func (e *printer) numbering(s *scope, c *call, sql string) string {
	if c.over == nil {
		reject(c.position, "Analytic function %s cannot be called without an OVER clause", strings.ToLower(c.name))
	}
	if c.distinct || c.star || c.having != "" || len(c.order) > 0 || c.limit != nil {
		refuse(c.position, "function %s with aggregate modifiers", c.name)
	}
	return e.over(s, c, sql)
}

func (e *printer) neighbour(s *scope, c *call) value {
	v := e.expr(s, c.args[0])
	args := v.sql
	t := v.typ
	if len(c.args) > 1 {
		args += ", " + e.constant(c.args[1])
	}
	if len(c.args) > 2 {
		list, u := e.unifyAll(c.position, []value{v, e.expr(s, c.args[2])})
		t = u
		args = list[0].sql + ", " + e.constant(c.args[1]) + ", " + list[1].sql
	}
	return value{sql: e.numbering(s, c, strings.ToLower(c.name)+"("+args+nullsModifier(c)+")"), typ: t}
}

// window prints the inside of OVER (..), named windows merged in.
func (e *printer) window(s *scope, w *window) string {
	w = e.merged(s, w, 0)
	var parts []string
	if len(w.partition) > 0 {
		list := make([]string, len(w.partition))
		for i, x := range w.partition {
			v := e.expr(s, x)
			if v.typ.kind == kindFloat64 || v.typ.kind == kindJSON || v.typ.kind == kindArray {
				reject(x.pos(), "Partitioning by expressions of type %s is not allowed", v.typ)
			}
			list[i] = v.sql
		}
		parts = append(parts, "PARTITION BY "+strings.Join(list, ", "))
	}
	if len(w.order) > 0 {
		for _, it := range w.order {
			if lit, ok := it.x.(*literal); ok && lit.kind == kindInt64 {
				reject(lit.position, "Window ORDER BY expression cannot be an integer literal")
			}
		}
		keys := e.orderKeys(w.order, s, nil)
		parts = append(parts, "ORDER BY "+keys)
	}
	if w.frame != nil {
		parts = append(parts, e.frame(s, w))
	}
	return strings.Join(parts, " ")
}

// merged resolves a named window and adds what this one says.
func (e *printer) merged(s *scope, w *window, depth int) *window {
	if w.base == "" {
		return w
	}
	if depth > 20 {
		reject(w.position, "Window %s refers to itself", w.base)
	}
	for sc := s; sc != nil; sc = sc.parent {
		named, ok := sc.windows[strings.ToLower(w.base)]
		if !ok {
			continue
		}
		out := *e.merged(s, named, depth+1)
		if len(w.partition) > 0 {
			reject(w.position, "Window extending another must not have PARTITION BY")
		}
		if len(w.order) > 0 {
			out.order = w.order
		}
		if w.frame != nil {
			out.frame = w.frame
		}
		return &out
	}
	reject(w.position, "Unrecognized window alias %s", w.base)
	return nil
}

func (e *printer) frame(s *scope, w *window) string {
	f := w.frame
	if f.unit == "RANGE" && (f.from.x != nil || f.to.x != nil) {
		v := value{}
		if len(w.order) == 1 {
			v = e.expr(s, w.order[0].x)
		}
		if v.typ.kind != kindInt64 || w.order[0].nulls != "" {
			refuse(w.position, "RANGE frame with offsets over what is not one INT64")
		}
	}
	from := e.bound(s, f.from)
	if !f.between {
		return f.unit + " " + from
	}
	return f.unit + " BETWEEN " + from + " AND " + e.bound(s, f.to)
}

func (e *printer) bound(_ *scope, b frameBound) string {
	if b.x == nil {
		return b.what
	}
	return e.constant(b.x) + " " + b.what
}

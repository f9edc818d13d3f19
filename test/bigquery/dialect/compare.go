package dialect

import (
	"fmt"
	"strings"
)

func (e *printer) equal(at position, l, r value) value { return e.compare(at, "=", l, r) }

// compare prints a comparison. NaN equals nothing and is neither less nor
// greater in BigQuery; in DuckDB it equals itself and is the greatest.
func (e *printer) compare(at position, op string, l, r value) value {
	l, r = e.unify(at, l, r)
	t := l.typ
	if t.kind == kindNull || t.kind == kindUnknown {
		t = r.typ
	}
	refuseStructs(at, t)
	ordering := op != "=" && op != "<>"
	if ordering && t.kind == kindBigNumeric {
		refuse(at, "operator %s on BIGNUMERIC", op)
	}
	plain := fmt.Sprintf("(%s %s %s)", l.sql, op, r.sql)
	if t.kind != kindFloat64 {
		return value{sql: plain, typ: typ{kind: kindBool}}
	}
	var nan, null []string
	for _, v := range []value{l, r} {
		if v.lit == nil && !strings.HasPrefix(v.sql, "CAST('") {
			nan = append(nan, "isnan("+v.sql+")")
			null = append(null, v.sql+" IS NULL")
		}
	}
	if len(nan) == 0 {
		return value{sql: plain, typ: typ{kind: kindBool}}
	}
	unequal := "FALSE"
	if op == "<>" {
		unequal = "TRUE"
	}
	return typed(kindBool, "(CASE WHEN %s THEN NULL WHEN %s THEN %s ELSE %s END)",
		strings.Join(null, " OR "), strings.Join(nan, " OR "), unequal, plain)
}

// compareTuples compares struct constructors field by field: (a, b) = (1, 2).
func (e *printer) compareTuples(s *scope, x *binary) (value, bool) {
	l, lok := x.l.(*structOf)
	r, rok := x.r.(*structOf)
	if !lok || !rok {
		return value{}, false
	}
	if x.op != "=" && x.op != "<>" {
		reject(x.position, "Operator %s is not defined for STRUCT", x.op)
	}
	if len(l.items) != len(r.items) || l.typ != nil || r.typ != nil {
		refuse(x.position, "comparison of STRUCT values")
	}
	parts := make([]string, len(l.items))
	for i := range l.items {
		parts[i] = e.binary(s, &binary{x.position, "=", l.items[i].x, r.items[i].x}).sql
	}
	sql := "(" + strings.Join(parts, " AND ") + ")"
	if x.op == "<>" {
		sql = "(NOT " + sql + ")"
	}
	return value{sql: sql, typ: typ{kind: kindBool}}, true
}

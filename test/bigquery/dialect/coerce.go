package dialect

import (
	"fmt"
	"strings"
)

// coerce is BigQuery's implicit conversion of v to t.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/conversion_rules#coercion
func (e *printer) coerce(at position, v value, t typ) value {
	from := v.typ.kind
	switch {
	case t.kind == kindUnknown || from == kindUnknown:
		return v
	case from == kindNull:
		return value{sql: "CAST(NULL AS " + t.duck() + ")", typ: t}
	case t.kind == kindNull:
		return v
	case from == kindArray && t.kind == kindArray:
		return e.coerceNested(at, v, t)
	case from == kindStruct && t.kind == kindStruct:
		return e.coerceStruct(at, v, t)
	case from == t.kind:
		return value{sql: v.sql, typ: t, lit: v.lit, coercible: v.coercible}
	case v.lit != nil && !v.lit.typed:
		if c, ok := coerceLiteral(at, v.lit, t.kind); ok {
			return c
		}
	case v.coercible:
		switch t.kind {
		case kindDate, kindDatetime, kindTimestamp, kindTime:
			return e.convert(at, v, t, false)
		}
	}
	if c, ok := widen(v, t.kind); ok {
		return c
	}
	reject(at, "Unable to coerce type %s to expected type %s", v.typ, t)
	return value{}
}

// coerceStruct converts field by field, by position.
func (e *printer) coerceStruct(at position, v value, t typ) value {
	if v.typ.duck() == t.duck() {
		return value{sql: v.sql, typ: t}
	}
	if len(v.typ.fields) != len(t.fields) {
		reject(at, "Unable to coerce type %s to expected type %s", v.typ, t)
	}
	parts := make([]string, len(t.fields))
	for i, f := range v.typ.fields {
		cell := value{sql: fmt.Sprintf("struct_extract(%s, %s)", v.sql, quoteText(structFieldName(i, f.name))), typ: f.typ}
		parts[i] = quoteName(structFieldName(i, t.fields[i].name)) + " := " + e.coerce(at, cell, t.fields[i].typ).sql
	}
	return value{sql: fmt.Sprintf("(CASE WHEN %s IS NULL THEN NULL ELSE struct_pack(%s) END)", v.sql, strings.Join(parts, ", ")), typ: t}
}

// coerceNested casts arrays whose elements DuckDB converts alike.
func (e *printer) coerceNested(at position, v value, t typ) value {
	if v.typ.duck() == t.duck() {
		return value{sql: v.sql, typ: t}
	}
	c, ok := common(v.typ, t)
	if !ok || c.duck() != t.duck() || t.contains(kindBigNumeric) || !t.known() || !v.typ.known() {
		refuse(at, "conversion of %s to %s", v.typ, t)
	}
	return value{sql: fmt.Sprintf("CAST(%s AS %s)", v.sql, t.duck()), typ: t}
}

func coerceLiteral(at position, lit *literal, k kind) (value, bool) {
	switch {
	case lit.kind == kindFloat64 && (k == kindNumeric || k == kindBigNumeric):
		sql, ok := literalAs(k, lit.text)
		if !ok {
			refuse(at, "literal %s as %s", lit.text, k)
		}
		return value{sql: sql, typ: typ{kind: k}}, true
	case lit.kind == kindInt64 && k == kindBigNumeric:
		sql, ok := literalAs(k, lit.text)
		return value{sql: sql, typ: typ{kind: k}}, ok
	case lit.kind == kindString && (k == kindDate || k == kindDatetime || k == kindTimestamp || k == kindTime):
		sql, ok := literalAs(k, lit.text)
		if !ok {
			reject(at, "Could not cast literal %q to type %s", lit.text, k)
		}
		return value{sql: sql, typ: typ{kind: k}}, true
	}
	return value{}, false
}

// widen converts a number to a wider one, and a DATE to a DATETIME.
func widen(v value, k kind) (value, bool) {
	switch from := v.typ.kind; {
	case k == kindFloat64 && v.typ.numeric():
		return typed(k, "CAST(%s AS DOUBLE)", v.sql), true
	case k == kindNumeric && from == kindInt64:
		return typed(k, "CAST(%s AS DECIMAL(38, 9))", v.sql), true
	case k == kindBigNumeric && from == kindInt64:
		return typed(k, "CAST(%s AS VARCHAR)", v.sql), true
	case k == kindBigNumeric && from == kindNumeric:
		return typed(k, "%s", numericText(v.sql)), true
	case k == kindDatetime && from == kindDate:
		return typed(k, "CAST(%s AS TIMESTAMP)", v.sql), true
	}
	return value{}, false
}

// numericText is CAST(NUMERIC AS STRING): no trailing zeros. A DECIMAL(38, 9)
// always prints its nine.
func numericText(sql string) string {
	return fmt.Sprintf("rtrim(rtrim(CAST(%s AS VARCHAR), '0'), '.')", sql)
}

// unify converts two values to their common type.
func (e *printer) unify(at position, l, r value) (value, value) {
	list, _ := e.unifyAll(at, []value{l, r})
	return list[0], list[1]
}

// unifyAll converts values to their common type: literals follow the others.
func (e *printer) unifyAll(at position, values []value) ([]value, typ) {
	t := e.commonType(at, values)
	out := make([]value, len(values))
	for i, v := range values {
		out[i] = e.coerce(at, v, t)
	}
	return out, t
}

// commonType takes the non-literals' type first: NUMERIC and 1.5 are NUMERIC,
// TIMESTAMP and '2020-01-01' are TIMESTAMP.
func (e *printer) commonType(at position, values []value) typ {
	t := typ{kind: kindNull}
	var ok bool
	for _, v := range values {
		if v.lit == nil && !v.coercible || v.lit != nil && v.lit.typed {
			t, ok = common(t, v.typ)
			if !ok {
				incompatible(at, values)
			}
		}
	}
	for _, v := range values {
		if v.lit == nil && !v.coercible || v.lit != nil && v.lit.typed {
			continue
		}
		if follows(v, t) {
			continue
		}
		next, ok := common(t, v.typ)
		if !ok {
			incompatible(at, values)
		}
		t = next
	}
	return t
}

// follows says whether a literal takes type t rather than widening it.
func follows(v value, t typ) bool {
	switch v.typ.kind {
	case kindString:
		return t.kind == kindDate || t.kind == kindDatetime || t.kind == kindTimestamp || t.kind == kindTime
	case kindFloat64:
		return v.lit != nil && (t.kind == kindNumeric || t.kind == kindBigNumeric)
	}
	return false
}

func incompatible(at position, values []value) {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = v.typ.String()
	}
	reject(at, "No matching signature for argument types: %s", strings.Join(names, ", "))
}

package dialect

import (
	"fmt"
	"strings"
)

func typed(k kind, format string, args ...any) value {
	return value{sql: fmt.Sprintf(format, args...), typ: typ{kind: k}}
}

// maxSQL bounds what one expression becomes: rewriting repeats operands.
const maxSQL = 1 << 20

func (e *printer) expr(s *scope, x expr) value {
	e.enter(x.pos())
	defer func() { e.depth-- }()
	v := e.rewritten(s, x)
	if len(v.sql) > maxSQL {
		refuse(x.pos(), "expression that becomes longer than %d bytes", maxSQL)
	}
	if c, ok := x.(*call); volatile(v.sql) && (!ok || len(c.args) > 0) {
		if _, ok := x.(*scalarQuery); !ok {
			refuse(x.pos(), "RAND or GENERATE_UUID inside another expression")
		}
	}
	return v
}

// volatile says whether evaluating an expression again gives another value.
// Rewriting, and references by alias, repeat expressions.
func volatile(sql string) bool {
	return strings.Contains(sql, "random()") || strings.Contains(sql, "uuid()")
}

func (e *printer) rewritten(s *scope, x expr) value {
	switch x := x.(type) {
	case *literal:
		return e.literal(x)
	case *param:
		return e.param(x)
	case *path:
		return e.path(s, x)
	case *fieldAccess:
		return e.field(x.position, e.expr(s, x.of), x.name)
	case *index:
		return e.index(s, x)
	case *unary:
		return e.unary(s, x)
	case *binary:
		return e.binary(s, x)
	case *isTest:
		return e.isTest(s, x)
	case *isDistinct:
		return e.isDistinct(s, x)
	case *between:
		return e.between(s, x)
	case *like:
		return e.like(s, x)
	case *in:
		return e.in(s, x)
	case *caseOf:
		return e.caseOf(s, x)
	case *call:
		return e.call(s, x)
	case *cast:
		return e.cast(s, x)
	case *extract:
		return e.extract(s, x)
	case *interval:
		return e.interval(s, x)
	case *arrayOfExprs:
		return e.array(s, x)
	case *arrayOfQuery:
		return e.arrayOfQuery(s, x)
	case *structOf:
		return e.structOf(s, x)
	case *scalarQuery:
		return e.scalarQuery(s, x)
	case *exists:
		sql, _ := e.query(x.query, s)
		return typed(kindBool, "EXISTS (%s)", sql)
	case *defaultValue:
		reject(x.position, "DEFAULT is allowed only as a value of INSERT, UPDATE or MERGE")
	}
	panic("unknown expression")
}

func (e *printer) param(x *param) value {
	if e.o.Parameter == nil {
		reject(x.position, "Query parameter '%s' not found", x.name)
	}
	sql, err := e.o.Parameter(x.name)
	if err != nil {
		panic(stop{fmt.Errorf("reading parameter %s: %w", x.name, err)})
	}
	v := value{sql: sql}
	if e.o.ParameterType == nil {
		return v
	}
	t, err := parseType(e.o.ParameterType(x.name))
	if err != nil {
		refuse(x.position, "parameter %s of type %s", x.name, e.o.ParameterType(x.name))
	}
	v.typ = t
	v.coercible = t.kind == kindString
	return v
}

func (e *printer) unary(s *scope, x *unary) value {
	v := e.expr(s, x.x)
	switch x.op {
	case "NOT":
		return typed(kindBool, "(NOT %s)", e.coerce(x.position, v, typ{kind: kindBool}).sql)
	case "~":
		return value{sql: "(~" + e.coerce(x.position, v, typ{kind: kindInt64}).sql + ")", typ: typ{kind: kindInt64}}
	case "+":
		return v
	}
	switch v.typ.kind {
	case kindInt64, kindFloat64, kindNumeric, kindInterval:
	default:
		refuse(x.position, "operator - on %s", v.typ)
	}
	return value{sql: "(-" + v.sql + ")", typ: v.typ}
}

func (e *printer) binary(s *scope, x *binary) value {
	l, r := e.expr(s, x.l), e.expr(s, x.r)
	switch x.op {
	case "AND", "OR":
		b := typ{kind: kindBool}
		return typed(kindBool, "(%s %s %s)", e.coerce(x.position, l, b).sql, x.op, e.coerce(x.position, r, b).sql)
	case "=", "<>", "<", ">", "<=", ">=":
		if v, ok := e.compareTuples(s, x); ok {
			return v
		}
		return e.compare(x.position, x.op, l, r)
	case "||":
		return e.concat(x.position, []value{l, r})
	case "+", "-", "*", "/":
		return e.arithmetic(x.position, x.op, l, r)
	}
	return e.bits(x, l, r)
}

// bits: BigQuery shifts by 64 or more to 0 and refuses negative shifts.
func (e *printer) bits(x *binary, l, r value) value {
	i := typ{kind: kindInt64}
	if l.typ.kind == kindBytes || r.typ.kind == kindBytes {
		refuse(x.position, "operator %s on BYTES", x.op)
	}
	a, b := e.coerce(x.position, l, i).sql, e.coerce(x.position, r, i).sql
	switch x.op {
	case "^":
		return typed(kindInt64, "xor(%s, %s)", a, b)
	case "<<", ">>":
		refuse(x.position, "operator %s", x.op)
	}
	return typed(kindInt64, "(%s %s %s)", a, x.op, b)
}

func (e *printer) isTest(s *scope, x *isTest) value {
	v := e.expr(s, x.x)
	not := ""
	if x.not {
		not = "NOT "
	}
	if x.what != "NULL" {
		v = e.coerce(x.position, v, typ{kind: kindBool})
	}
	return typed(kindBool, "(%s IS %s%s)", v.sql, not, x.what)
}

func (e *printer) isDistinct(s *scope, x *isDistinct) value {
	l, r := e.unify(x.position, e.expr(s, x.l), e.expr(s, x.r))
	not := ""
	if x.not {
		not = "NOT "
	}
	return typed(kindBool, "(%s IS %sDISTINCT FROM %s)", l.sql, not, r.sql)
}

func (e *printer) between(s *scope, x *between) value {
	v, lo, hi := e.expr(s, x.x), e.expr(s, x.lo), e.expr(s, x.hi)
	sql := fmt.Sprintf("(%s AND %s)", e.compare(x.position, ">=", v, lo).sql, e.compare(x.position, "<=", v, hi).sql)
	if x.not {
		sql = "(NOT " + sql + ")"
	}
	return value{sql: sql, typ: typ{kind: kindBool}}
}

// like: the escape character is always a backslash.
func (e *printer) like(s *scope, x *like) value {
	v, pattern := e.expr(s, x.x), e.expr(s, x.pattern)
	if v.typ.kind == kindBytes {
		refuse(x.position, "LIKE on BYTES")
	}
	str := typ{kind: kindString}
	not := ""
	if x.not {
		not = "NOT "
	}
	return typed(kindBool, `(%s %sLIKE %s ESCAPE '\')`, e.coerce(x.position, v, str).sql, not, e.coerce(x.position, pattern, str).sql)
}

func (e *printer) in(s *scope, x *in) value {
	var v value
	switch {
	case x.array != nil:
		v = e.inArray(s, x)
	case x.query != nil:
		v = e.inQuery(s, x)
	default:
		parts := make([]string, len(x.list))
		for i, item := range x.list {
			parts[i] = e.binary(s, &binary{x.position, "=", x.x, item}).sql
		}
		v = value{sql: "(" + strings.Join(parts, " OR ") + ")", typ: typ{kind: kindBool}}
	}
	if x.not {
		v.sql = "(NOT " + v.sql + ")"
	}
	return v
}

func (e *printer) inArray(s *scope, x *in) value {
	v, array := e.expr(s, x.x), e.expr(s, x.array)
	if array.typ.kind == kindUnknown {
		refuse(x.position, "IN UNNEST of an array whose type is not known")
	}
	if array.typ.kind != kindArray {
		reject(x.position, "Values referenced in UNNEST must be arrays. UNNEST contains expression of type %s", array.typ)
	}
	elem := *array.typ.elem
	t, ok := common(v.typ, elem)
	if !ok {
		v, t = e.coerce(x.position, v, elem), elem
	}
	refuseStructs(x.position, t)
	// No row of a NULL or empty array: FALSE, as in BigQuery.
	return typed(kindBool, "(%s IN (SELECT unnest(%s)))", e.coerce(x.position, v, t).sql, e.coerce(x.position, array, arrayOf(t)).sql)
}

func (e *printer) inQuery(s *scope, x *in) value {
	sql, rel := e.query(x.query, s)
	if !rel.known {
		refuse(x.position, "IN over a table whose columns are not known")
	}
	if len(rel.cols) != 1 {
		reject(x.position, "Subquery of type IN must have only one output column")
	}
	if tuple, ok := x.x.(*structOf); ok && rel.cols[0].typ.kind == kindStruct {
		return e.tupleInQuery(s, tuple, sql, rel.cols[0])
	}
	v := e.expr(s, x.x)
	t, ok := common(v.typ, rel.cols[0].typ)
	if !ok {
		t = rel.cols[0].typ
	}
	refuseStructs(x.position, t)
	out := &relation{known: true, cols: []column{{rel.cols[0].name, value{typ: t}}}}
	if v.typ.kind == kindUnknown || rel.cols[0].typ.kind == kindUnknown {
		out = rel
	}
	return typed(kindBool, "(%s IN (%s))", e.coerce(x.position, v, t).sql, e.converted(x.position, sql, rel, out))
}

// tupleInQuery is (a, b) IN (SELECT (x, y) ..), field by field: one NULL field
// makes an otherwise equal pair NULL.
func (e *printer) tupleInQuery(s *scope, x *structOf, sql string, col column) value {
	if x.typ != nil || len(x.items) != len(col.typ.fields) {
		refuse(x.position, "comparison of STRUCT values")
	}
	alias := quoteName(e.fresh("in"))
	parts := make([]string, len(x.items))
	for i, f := range col.typ.fields {
		cell := fmt.Sprintf("struct_extract(%s.%s, %s)", alias, quoteName(col.name), quoteText(structFieldName(i, f.name)))
		parts[i] = e.equal(x.position, e.expr(s, x.items[i].x), value{sql: cell, typ: f.typ}).sql
	}
	exists := fmt.Sprintf("EXISTS (SELECT 1 FROM (%s) AS %s WHERE ", sql, alias)
	equal := "(" + strings.Join(parts, " AND ") + ")"
	return typed(kindBool, "(CASE WHEN %s%s) THEN TRUE WHEN %s%s IS NULL) THEN NULL ELSE FALSE END)", exists, equal, exists, equal)
}

// refuseStructs: DuckDB compares NULL fields of structs as equal, BigQuery as NULL.
func refuseStructs(at position, t typ) {
	if t.contains(kindStruct) {
		refuse(at, "comparison of STRUCT values")
	}
	if t.kind == kindJSON || t.kind == kindArray {
		reject(at, "Equality is not defined for arguments of type %s", t)
	}
}

func (e *printer) caseOf(s *scope, x *caseOf) value {
	var results []value
	conds := make([]string, len(x.when))
	for i, w := range x.when {
		if x.operand != nil {
			conds[i] = e.binary(s, &binary{x.position, "=", x.operand, w.cond}).sql
		} else {
			conds[i] = e.condition(s, w.cond, "WHEN")
		}
		results = append(results, e.expr(s, w.then))
	}
	if x.other != nil {
		results = append(results, e.expr(s, x.other))
	}
	results, t := e.unifyAll(x.position, results)
	var b strings.Builder
	b.WriteString("CASE")
	for i, c := range conds {
		b.WriteString(" WHEN " + c + " THEN " + results[i].sql)
	}
	if x.other != nil {
		b.WriteString(" ELSE " + results[len(results)-1].sql)
	}
	b.WriteString(" END")
	return value{sql: "(" + b.String() + ")", typ: t}
}

func (e *printer) scalarQuery(s *scope, x *scalarQuery) value {
	sql, rel := e.query(x.query, s)
	if !rel.known {
		refuse(x.position, "subquery over a table whose columns are not known")
	}
	if len(rel.cols) != 1 {
		reject(x.position, "Scalar subquery cannot have more than one column unless using SELECT AS STRUCT to build STRUCT values")
	}
	// scalar_subquery_error_on_multiple_rows is DuckDB's default, as BigQuery's.
	return value{sql: "(" + sql + ")", typ: rel.cols[0].typ}
}

func (e *printer) arrayOfQuery(s *scope, x *arrayOfQuery) value {
	sql, rel := e.query(x.query, s)
	if !rel.known {
		refuse(x.position, "ARRAY of a table whose columns are not known")
	}
	if len(rel.cols) != 1 {
		reject(x.position, "ARRAY subquery cannot have more than one column unless using SELECT AS STRUCT to build STRUCT values")
	}
	return value{sql: "ARRAY(" + sql + ")", typ: arrayOf(rel.cols[0].typ)}
}

func (e *printer) array(s *scope, x *arrayOfExprs) value {
	items := make([]value, len(x.items))
	for i, item := range x.items {
		items[i] = e.expr(s, item)
	}
	t := typ{kind: kindInt64}
	switch {
	case x.elem != nil:
		t = *x.elem
		for i := range items {
			items[i] = e.coerce(x.position, items[i], t)
		}
	case len(items) > 0:
		items, t = e.unifyAll(x.position, items)
	}
	if t.kind == kindArray {
		reject(x.position, "Cannot construct array with element type %s because nested arrays are not supported", t)
	}
	parts := make([]string, len(items))
	for i, v := range items {
		parts[i] = v.sql
	}
	sql := "[" + strings.Join(parts, ", ") + "]"
	if t.known() {
		sql = "CAST(" + sql + " AS " + arrayOf(t).duck() + ")"
	}
	return value{sql: sql, typ: arrayOf(t)}
}

func (e *printer) structOf(s *scope, x *structOf) value {
	fields, values := e.structItems(s, x)
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = quoteName(structFieldName(i, fields[i].name)) + " := " + v.sql
	}
	return value{sql: "struct_pack(" + strings.Join(parts, ", ") + ")", typ: typ{kind: kindStruct, fields: fields}}
}

// structItems are the fields of a STRUCT constructor and their values.
func (e *printer) structItems(s *scope, x *structOf) ([]field, []value) {
	if x.typ != nil && len(x.typ.fields) != len(x.items) {
		reject(x.position, "STRUCT type has %d fields but constructor call has %d fields", len(x.typ.fields), len(x.items))
	}
	if len(x.items) == 0 {
		refuse(x.position, "STRUCT without fields")
	}
	fields, values := make([]field, len(x.items)), make([]value, len(x.items))
	for i, it := range x.items {
		v := e.expr(s, it.x)
		name := it.alias
		switch {
		case x.typ != nil:
			name = x.typ.fields[i].name
			v = e.coerce(it.position, v, x.typ.fields[i].typ)
		case name == "" && !x.tuple:
			name = impliedName(it.x)
		}
		fields[i], values[i] = field{name, v.typ}, v
	}
	return fields, values
}

func (e *printer) index(s *scope, x *index) value {
	of, at := e.expr(s, x.of), e.expr(s, x.at)
	switch of.typ.kind {
	case kindJSON:
		return e.jsonIndex(x, of)
	case kindArray:
	case kindUnknown:
		refuse(x.position, "element of an expression whose type is not known")
	default:
		reject(x.position, "Element access is not supported on %s", of.typ)
	}
	if x.how == "" {
		reject(x.position, "Element access into an array requires OFFSET(..) or ORDINAL(..)")
	}
	i := e.coerce(x.position, at, typ{kind: kindInt64}).sql
	first := "0"
	one := " + 1"
	if strings.HasSuffix(x.how, "ORDINAL") {
		first, one = "1", ""
	}
	other := "NULL"
	if !strings.HasPrefix(x.how, "SAFE") {
		other = e.fail(fmt.Sprintf("Array index out of bounds (%s)", x.how))
	}
	sql := fmt.Sprintf("CASE WHEN %s IS NULL OR %s IS NULL THEN NULL WHEN %s >= %s AND %s%s <= len(%s) THEN %s[%s%s] ELSE %s END",
		of.sql, i, i, first, i, one, of.sql, of.sql, i, one, other)
	return value{sql: "(" + sql + ")", typ: *of.typ.elem}
}

// fail is a DuckDB expression that fails the query with a message.
func (e *printer) fail(message string) string {
	return "error(" + quoteText(message) + ")"
}

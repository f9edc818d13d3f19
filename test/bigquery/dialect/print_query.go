package dialect

import (
	"fmt"
	"strconv"
	"strings"
)

// query prints a query; the relation describes its columns, whose SQL is not set.
func (e *printer) query(q *query, parent *scope) (string, *relation) {
	if e.constants > 0 {
		reject(q.position, "A constant expression must not contain a subquery")
	}
	e.enter(q.position)
	defer func() { e.depth-- }()
	sc := parent.child()
	with := e.with(q, sc)
	body, rel, order := e.orderedBody(q, sc)
	sql := with + body + order
	if q.limit != nil {
		sql += " LIMIT " + e.constant(q.limit)
	}
	if q.offset != nil {
		sql += " OFFSET " + e.constant(q.offset)
	}
	return sql, rel
}

// constant prints LIMIT and OFFSET operands: literals and parameters.
func (e *printer) constant(x expr) string {
	switch x := x.(type) {
	case *literal:
		if x.kind == kindInt64 && !strings.HasPrefix(x.text, "-") {
			return e.literal(x).sql
		}
	case *param:
		return e.param(x).sql
	case *cast:
		if x.to.kind == kindInt64 && !x.safe {
			return "CAST(" + e.constant(x.x) + " AS BIGINT)"
		}
	}
	reject(x.pos(), "LIMIT and OFFSET expect a non-negative integer literal or parameter")
	return ""
}

func (e *printer) with(q *query, sc *scope) string {
	if len(q.with) == 0 {
		return ""
	}
	if q.recursive {
		refuse(q.position, "WITH RECURSIVE")
	}
	sc.ctes = map[string]*relation{}
	parts := make([]string, len(q.with))
	for i, c := range q.with {
		sql, rel := e.query(c.query, sc)
		refuseDuplicates(c.query.position, rel)
		if _, twice := sc.ctes[strings.ToLower(c.name)]; twice {
			reject(c.query.position, "Duplicate alias %s for WITH subquery", c.name)
		}
		sc.ctes[strings.ToLower(c.name)] = rel
		// BigQuery evaluates a CTE where it is used; both may inline or not.
		parts[i] = quoteName(c.name) + " AS (" + sql + ")"
	}
	return "WITH " + strings.Join(parts, ", ") + " "
}

// refuseDuplicates refuses what DuckDB would rename behind our back.
func refuseDuplicates(at position, rel *relation) {
	seen := map[string]bool{}
	for _, c := range rel.cols {
		key := strings.ToLower(c.name)
		if seen[key] {
			refuse(at, "duplicate column name %s in a subquery", c.name)
		}
		seen[key] = true
	}
}

// orderedBody prints a query's body and ORDER BY, which sees more than the
// result's columns where the body is one SELECT.
func (e *printer) orderedBody(q *query, sc *scope) (body string, rel *relation, order string) {
	if sel, ok := q.body.(*selectBody); ok {
		b := e.selectBody(sel, sc)
		if len(q.order) == 0 {
			return b.sql(), b.rel, ""
		}
		if !sel.distinct {
			keys := e.orderKeys(q.order, b.orderScope(), b.outputs)
			return b.sql(), b.rel, " ORDER BY " + keys
		}
		body, rel = b.sql(), b.rel
	} else {
		body, rel = e.body(q.body, sc)
		if len(q.order) == 0 {
			return body, rel, ""
		}
	}
	alias := quoteName(e.fresh("q"))
	outer := &relation{known: rel.known}
	for _, c := range rel.cols {
		outer.cols = append(outer.cols, column{c.name, value{sql: alias + "." + quoteName(c.name), typ: c.typ}})
	}
	refuseDuplicates(q.position, rel)
	os := sc.child()
	os.rels = []*relation{outer}
	keys := e.orderKeys(q.order, os, outer.cols)
	return "SELECT * FROM (" + body + ") AS " + alias, rel, " ORDER BY " + keys
}

// orderKeys prints ORDER BY items with BigQuery's NULL and NaN order. outputs
// are what column numbers count, nil where there are none.
func (e *printer) orderKeys(items []orderItem, sc *scope, outputs []column) string {
	var keys []string
	for _, it := range items {
		v := e.orderExpr(it, sc, outputs)
		keys = append(keys, orderKey(it, v)...)
	}
	return strings.Join(keys, ", ")
}

func (e *printer) orderExpr(it orderItem, sc *scope, outputs []column) value {
	if lit, ok := it.x.(*literal); ok && lit.kind == kindInt64 && !lit.typed {
		n, err := strconv.Atoi(lit.text)
		if err != nil || n < 1 || outputs != nil && n > len(outputs) {
			reject(lit.position, "ORDER BY column number %s is out of range", lit.text)
		}
		if outputs == nil {
			refuse(lit.position, "ORDER BY a column number of a table whose columns are not known")
		}
		return e.orderable(it.x.pos(), outputs[n-1].value)
	}
	return e.orderable(it.x.pos(), e.expr(sc, it.x))
}

// orderable refuses types without an order that DuckDB shares.
func (e *printer) orderable(at position, v value) value {
	switch v.typ.kind {
	case kindBigNumeric:
		refuse(at, "ordering of BIGNUMERIC")
	case kindJSON, kindArray, kindStruct:
		reject(at, "Ordering is not supported for type %s", v.typ)
	}
	return v
}

// orderKey: ascending order puts NULL first, then NaN; descending is the reverse.
func orderKey(it orderItem, v value) []string {
	dir, nulls := " ASC", " NULLS FIRST"
	if it.desc {
		dir, nulls = " DESC", " NULLS LAST"
	}
	if it.nulls != "" {
		nulls = " NULLS " + it.nulls
	}
	if v.typ.kind != kindFloat64 {
		return []string{v.sql + dir + nulls}
	}
	return []string{
		fmt.Sprintf("CASE WHEN %s IS NULL THEN NULL WHEN isnan(%s) THEN 0 ELSE 1 END%s%s", v.sql, v.sql, dir, nulls),
		v.sql + dir + nulls,
	}
}

func (e *printer) body(b queryBody, sc *scope) (string, *relation) {
	switch b := b.(type) {
	case *selectBody:
		s := e.selectBody(b, sc)
		return s.sql(), s.rel
	case *query:
		sql, rel := e.query(b, sc)
		return "(" + sql + ")", rel
	case *setOp:
		return e.setOp(b, sc)
	}
	panic("unknown query body")
}

func (e *printer) setOp(s *setOp, sc *scope) (string, *relation) {
	e.enter(s.position)
	defer func() { e.depth-- }()
	left, lrel := e.body(s.left, sc)
	right, rrel := e.body(s.right, sc)
	if !lrel.known || !rrel.known {
		refuse(s.position, "%s of tables whose columns are not known", s.op)
	}
	if len(lrel.cols) != len(rrel.cols) {
		reject(s.position, "Queries in %s have mismatched column count", s.op)
	}
	out := &relation{known: true}
	for i, l := range lrel.cols {
		t, ok := common(l.typ, rrel.cols[i].typ)
		if !ok {
			reject(s.position, "Column %d in %s has incompatible types: %s, %s", i+1, s.op, l.typ, rrel.cols[i].typ)
		}
		out.cols = append(out.cols, column{l.name, value{typ: t}})
	}
	left = e.converted(s.position, left, lrel, out)
	right = e.converted(s.position, right, rrel, out)
	op := " " + s.op
	if s.all {
		op += " ALL"
	}
	if s.op != "UNION" && s.all {
		refuse(s.position, "%s ALL", s.op)
	}
	return left + op + " " + right, out
}

// converted casts the columns of one side of a set operation where needed.
func (e *printer) converted(at position, sql string, from, to *relation) string {
	same := true
	for i := range from.cols {
		same = same && from.cols[i].typ.kind != kindNull && from.cols[i].typ.duck() == to.cols[i].typ.duck() && from.cols[i].typ.kind == to.cols[i].typ.kind
	}
	if same {
		return sql
	}
	refuseDuplicates(at, from)
	alias := quoteName(e.fresh("u"))
	parts := make([]string, len(from.cols))
	for i, c := range from.cols {
		v := value{sql: alias + "." + quoteName(c.name), typ: c.typ}
		parts[i] = e.coerce(at, v, to.cols[i].typ).sql + " AS " + quoteName(to.cols[i].name)
	}
	return "SELECT " + strings.Join(parts, ", ") + " FROM (" + sql + ") AS " + alias
}

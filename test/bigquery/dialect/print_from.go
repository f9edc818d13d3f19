package dialect

import (
	"fmt"
	"strings"
)

// from prints a FROM clause and fills the scope.
func (e *printer) from(t tableExpr, sc *scope) string {
	switch t := t.(type) {
	case *tableRef:
		return e.tableRef(t, sc)
	case *queryRef:
		return e.queryRef(t, sc)
	case *appendsRef:
		return e.appends(t, sc)
	case *unnestRef:
		return e.unnest(t, sc)
	case *join:
		return e.join(t, sc)
	}
	panic("unknown table expression")
}

func (s *scope) add(at position, r *relation) {
	if r.name != "" && s.relation(r.name) != nil {
		reject(at, "Duplicate table alias %s in the same FROM clause", r.name)
	}
	s.rels = append(s.rels, r)
}

func (e *printer) tableRef(t *tableRef, sc *scope) string {
	if u, ok := correlated(t, sc); ok && t.asOf == nil {
		return e.unnest(u, sc)
	}
	if t.hasOff {
		reject(t.position, "WITH OFFSET can only be used with array scans")
	}
	alias := t.alias
	if alias == "" {
		alias = t.parts[len(t.parts)-1]
	}
	if len(t.parts) == 1 {
		if rel, ok := sc.cte(t.parts[0]); ok {
			if t.asOf != nil {
				reject(t.position, "FOR SYSTEM_TIME AS OF cannot be used with the WITH subquery %s", t.parts[0])
			}
			sc.add(t.position, named(rel, alias))
			return quoteName(t.parts[0]) + " AS " + quoteName(alias)
		}
	}
	sql, cols, known := e.table(t)
	if t.asOf != nil {
		sql = e.asOf(t)
	}
	sc.add(t.position, named(&relation{cols: cols, known: known}, alias))
	return sql + " AS " + quoteName(alias)
}

// named gives a relation's columns their SQL under an alias.
func named(rel *relation, alias string) *relation {
	out := &relation{name: alias, known: rel.known}
	for _, c := range rel.cols {
		out.cols = append(out.cols, column{c.name, value{sql: quoteName(alias) + "." + quoteName(c.name), typ: c.typ}})
	}
	return out
}

// correlated turns FROM t, t.array into UNNEST(t.array).
func correlated(t *tableRef, sc *scope) (*unnestRef, bool) {
	if len(t.parts) < 2 {
		return nil, false
	}
	for s := sc; s != nil; s = s.parent {
		if s.relation(t.parts[0]) != nil {
			alias := t.alias
			if alias == "" {
				alias = t.parts[len(t.parts)-1]
			}
			return &unnestRef{position: t.position, x: &path{t.position, t.parts}, alias: alias, offset: t.offset, hasOff: t.hasOff}, true
		}
	}
	return nil, false
}

func (e *printer) queryRef(t *queryRef, sc *scope) string {
	// A subquery in FROM sees what surrounds the query, not its siblings.
	sql, rel := e.query(t.query, sc.outer())
	refuseDuplicates(t.position, rel)
	inner := t.alias
	if inner == "" {
		inner = e.fresh("t")
	}
	out := named(rel, inner)
	out.name = t.alias
	sc.add(t.position, out)
	return "(" + sql + ") AS " + quoteName(inner)
}

// outer is the scope without its FROM items but with its CTEs.
func (s *scope) outer() *scope { return s.parent }

func (e *printer) unnest(t *unnestRef, sc *scope) string {
	v := e.expr(sc, t.x)
	var elem typ
	switch v.typ.kind {
	case kindArray:
		elem = *v.typ.elem
	case kindUnknown:
	default:
		reject(t.position, "Values referenced in UNNEST must be arrays. UNNEST contains expression of type %s", v.typ)
	}
	rel := e.fresh("a")
	cell := quoteName(rel) + "." + quoteName("v")
	row := value{sql: cell, typ: elem}
	r := &relation{name: t.alias, known: true, row: &row}
	switch elem.kind {
	case kindStruct: // its fields are columns
		r.cols = structColumns(e, t.position, row)
	case kindUnknown:
		refuse(t.position, "UNNEST of an array whose element type is not known")
	}
	if !t.hasOff {
		sc.add(t.position, r)
		return fmt.Sprintf("UNNEST(%s) AS %s(%s)", v.sql, quoteName(rel), quoteName("v"))
	}
	r.cols = append(r.cols, column{t.offset, value{sql: quoteName(rel) + "." + quoteName("o"), typ: typ{kind: kindInt64}}})
	sc.add(t.position, r)
	return fmt.Sprintf("(SELECT unnest(%s) AS %s, generate_subscripts(%s, 1) - 1 AS %s) AS %s",
		v.sql, quoteName("v"), v.sql, quoteName("o"), quoteName(rel))
}

func (e *printer) join(j *join, sc *scope) string {
	left := e.from(j.left, sc)
	leftRels := len(sc.rels)
	right := e.from(j.right, sc)
	_, array := j.right.(*unnestRef)
	if ref, ok := j.right.(*tableRef); ok && !array {
		_, array = correlated(ref, &scope{parent: sc.parent, rels: sc.rels[:leftRels]})
	}
	if _, nested := j.right.(*join); nested {
		right = "(" + right + ")"
	}
	switch {
	case j.kind == "CROSS":
		return left + " CROSS JOIN " + right
	case len(j.using) > 0:
		return e.joinUsing(j, sc, left, right, leftRels)
	case j.on == nil && array && j.kind != "RIGHT" && j.kind != "FULL":
		return left + " " + j.kind + " JOIN " + right + " ON TRUE"
	case j.on == nil:
		reject(j.position, "Syntax error: %s JOIN must have an immediately following ON or USING clause", j.kind)
	}
	return left + " " + j.kind + " JOIN " + right + " ON " + e.condition(sc, j.on, "ON")
}

// joinUsing writes USING as an ON, and merges its columns as BigQuery does:
// unqualified they mean the left side's, the right side's in a RIGHT JOIN, and
// whichever is not NULL in a FULL JOIN.
func (e *printer) joinUsing(j *join, sc *scope, left, right string, leftRels int) string {
	var on []string
	for _, name := range j.using {
		l := e.usingColumn(j, &scope{rels: sc.rels[:leftRels], merged: sc.merged}, name)
		r := e.usingColumn(j, &scope{rels: sc.rels[leftRels:]}, name)
		on = append(on, e.equal(j.position, l, r).sql)
		merged := l
		switch j.kind {
		case "RIGHT":
			merged = r
		case "FULL":
			merged = e.coalesce(j.position, []value{l, r})
		}
		sc.mergeColumn(name, merged)
	}
	return left + " " + j.kind + " JOIN " + right + " ON " + strings.Join(on, " AND ")
}

func (s *scope) mergeColumn(name string, v value) {
	for i, m := range s.merged {
		if strings.EqualFold(m.name, name) {
			s.merged[i].value = v
			return
		}
	}
	s.merged = append(s.merged, column{name, v})
}

func (e *printer) usingColumn(j *join, sc *scope, name string) value {
	for _, r := range sc.rels {
		if !r.known {
			refuse(j.position, "USING with a table whose columns are not known")
		}
	}
	v, ok := e.pathIn(sc, &path{j.position, []string{name}})
	if !ok {
		reject(j.position, "Column %s in USING clause not found", name)
	}
	return v
}

package dialect

import (
	"fmt"
	"strconv"
	"strings"
)

// printedSelect is a SELECT in parts: ORDER BY still needs its scope.
type printedSelect struct {
	list, rest string
	rel        *relation
	outputs    []column // with the SQL of each column's expression
	scope      *scope
	aliases    map[string]value
	distinct   bool
}

func (b *printedSelect) sql() string {
	if b.distinct {
		return "SELECT DISTINCT " + b.list + b.rest
	}
	return "SELECT " + b.list + b.rest
}

// orderScope is where ORDER BY, HAVING and QUALIFY look names up: aliases first.
func (b *printedSelect) orderScope() *scope {
	return &scope{parent: b.scope, aliases: b.aliases, windows: b.scope.windows}
}

func (e *printer) selectBody(s *selectBody, parent *scope) *printedSelect {
	e.enter(s.position)
	defer func() { e.depth-- }()
	sc := parent.child()
	sc.windows = s.windows
	b := &printedSelect{scope: sc, distinct: s.distinct}
	var rest strings.Builder
	if s.from != nil {
		rest.WriteString(" FROM " + e.from(s.from, sc))
	}
	if s.where != nil {
		rest.WriteString(" WHERE " + e.condition(sc, s.where, "WHERE"))
	}
	e.selectList(s, b)
	os := b.orderScope()
	if s.group != nil {
		rest.WriteString(" GROUP BY " + e.groupBy(s.group, b))
	}
	if s.having != nil {
		rest.WriteString(" HAVING " + e.condition(os, s.having, "HAVING"))
	}
	if s.qualify != nil {
		rest.WriteString(" QUALIFY " + e.condition(os, s.qualify, "QUALIFY"))
	}
	b.rest = rest.String()
	if s.asStruct {
		e.asStruct(s, b)
	}
	if s.asValue {
		refuse(s.position, "SELECT AS VALUE")
	}
	return b
}

func (e *printer) condition(sc *scope, x expr, clause string) string {
	v := e.expr(sc, x)
	if k := v.typ.kind; k != kindBool && k != kindUnknown && k != kindNull {
		reject(x.pos(), "%s clause should return type BOOL, but returns %s", clause, v.typ)
	}
	return v.sql
}

// selectList expands the items into outputs.
func (e *printer) selectList(s *selectBody, b *printedSelect) {
	b.aliases = map[string]value{}
	b.rel = &relation{known: true}
	var parts []string
	unnamed := 0
	add := func(name string, v value) {
		if v.typ.kind == kindNull && v.lit != nil {
			v = value{sql: "CAST(NULL AS BIGINT)", typ: typ{kind: kindNull}}
		}
		if name == "" {
			name = fmt.Sprintf("f%d_", unnamed)
			unnamed++
		}
		b.outputs = append(b.outputs, column{name, v})
		b.rel.cols = append(b.rel.cols, column{name, value{typ: v.typ}})
		parts = append(parts, v.sql+" AS "+quoteName(name))
	}
	for _, it := range s.items {
		if !it.star {
			v := e.expr(b.scope, it.x)
			name := it.alias
			if name == "" {
				name = impliedName(it.x)
			} else {
				b.aliases[strings.ToLower(name)] = v
			}
			add(name, v)
			continue
		}
		cols, raw := e.star(it, b.scope)
		if raw != "" {
			parts = append(parts, raw)
			b.rel.known = false
			continue
		}
		for _, c := range cols {
			add(c.name, c.value)
		}
	}
	b.list = strings.Join(parts, ", ")
	if !b.rel.known {
		b.outputs = nil
	}
}

// impliedName is the alias that BigQuery gives an expression without one.
func impliedName(x expr) string {
	switch x := x.(type) {
	case *path:
		return x.parts[len(x.parts)-1]
	case *fieldAccess:
		return x.name
	}
	return ""
}

// star expands * or t.* with EXCEPT and REPLACE; raw is DuckDB's own star where
// the columns are not known.
func (e *printer) star(it selectItem, sc *scope) (cols []column, raw string) {
	all, known, prefix := e.starColumns(it, sc)
	if !known {
		return nil, e.rawStar(it, sc, prefix)
	}
	except := map[string]bool{}
	for _, name := range it.except {
		found := false
		for _, c := range all {
			found = found || strings.EqualFold(c.name, name)
		}
		if !found {
			reject(it.position, "Column %s in SELECT * EXCEPT list does not exist", name)
		}
		except[strings.ToLower(name)] = true
	}
	replaced := map[string]value{}
	for _, r := range it.replace {
		replaced[strings.ToLower(r.alias)] = e.expr(sc, r.x)
	}
	used := 0
	for _, c := range all {
		if except[strings.ToLower(c.name)] {
			continue
		}
		if v, ok := replaced[strings.ToLower(c.name)]; ok {
			c.value = v
			used++
		}
		cols = append(cols, c)
	}
	if used < len(replaced) {
		reject(it.position, "Column in SELECT * REPLACE list does not exist")
	}
	if len(cols) == 0 {
		reject(it.position, "SELECT * EXCEPT is empty")
	}
	return cols, ""
}

func (e *printer) rawStar(it selectItem, sc *scope, prefix string) string {
	raw := prefix + "*"
	if len(it.except) > 0 {
		names := make([]string, len(it.except))
		for i, n := range it.except {
			names[i] = quoteName(n)
		}
		raw += " EXCLUDE (" + strings.Join(names, ", ") + ")"
	}
	if len(it.replace) > 0 {
		parts := make([]string, len(it.replace))
		for i, r := range it.replace {
			parts[i] = e.expr(sc, r.x).sql + " AS " + quoteName(r.alias)
		}
		raw += " REPLACE (" + strings.Join(parts, ", ") + ")"
	}
	return raw
}

func (e *printer) starColumns(it selectItem, sc *scope) (cols []column, known bool, prefix string) {
	if it.of == nil {
		if len(sc.rels) == 0 {
			reject(it.position, "SELECT * must have a FROM clause")
		}
		return sc.allColumns()
	}
	if p, ok := it.of.(*path); ok && len(p.parts) == 1 {
		for s := sc; s != nil; s = s.parent {
			if r := s.relation(p.parts[0]); r != nil {
				return r.starColumns(), r.known, quoteName(r.name) + "."
			}
		}
	}
	v := e.expr(sc, it.of)
	if v.typ.kind != kindStruct {
		reject(it.position, "Dot-star is not supported for type %s", v.typ)
	}
	return structColumns(e, it.position, v), true, ""
}

func structColumns(e *printer, at position, v value) []column {
	var cols []column
	for _, f := range v.typ.fields {
		if f.name == "" {
			refuse(at, "star of a struct with unnamed fields")
		}
		cols = append(cols, column{f.name, e.field(at, v, f.name)})
	}
	return cols
}

func (r *relation) starColumns() []column {
	if r.row != nil && r.row.typ.kind != kindStruct {
		return append([]column{{r.name, *r.row}}, r.cols...)
	}
	return r.cols
}

// allColumns is what * means: merged columns first, then each relation's rest.
func (s *scope) allColumns() (cols []column, known bool, prefix string) {
	known = true
	cols = append(cols, s.merged...)
	for _, r := range s.rels {
		known = known && r.known
		for _, c := range r.starColumns() {
			if !mergedName(s.merged, c.name) {
				cols = append(cols, c)
			}
		}
	}
	return cols, known, ""
}

func mergedName(merged []column, name string) bool {
	for _, m := range merged {
		if strings.EqualFold(m.name, name) {
			return true
		}
	}
	return false
}

func (e *printer) asStruct(s *selectBody, b *printedSelect) {
	if !b.rel.known {
		refuse(s.position, "SELECT AS STRUCT of a table whose columns are not known")
	}
	t := typ{kind: kindStruct}
	parts := make([]string, len(b.outputs))
	for i, c := range b.outputs {
		name := c.name
		if it := s.items; i < len(it) && len(it) == len(b.outputs) && !it[i].star && it[i].alias == "" && impliedName(it[i].x) == "" {
			name = ""
		}
		t.fields = append(t.fields, field{name, c.typ})
		parts[i] = quoteName(structFieldName(i, name)) + " := " + c.sql
	}
	b.list = "struct_pack(" + strings.Join(parts, ", ") + ") AS " + quoteName("$struct")
	b.rel = &relation{known: true, cols: []column{{"$struct", value{typ: t}}}}
}

// groupBy prints GROUP BY: aliases of the select list win over columns there.
func (e *printer) groupBy(g *grouping, b *printedSelect) string {
	if g.all {
		return "ALL"
	}
	items := make([]string, len(g.items))
	for i, x := range g.items {
		items[i] = e.groupItem(x, b)
	}
	if g.rollup {
		return "ROLLUP (" + strings.Join(items, ", ") + ")"
	}
	return strings.Join(items, ", ")
}

func (e *printer) groupItem(x expr, b *printedSelect) string {
	if lit, ok := x.(*literal); ok && lit.kind == kindInt64 && !lit.typed {
		n, err := strconv.Atoi(lit.text)
		if err != nil || n < 1 || n > len(b.outputs) {
			reject(lit.position, "GROUP BY column number %s is out of range", lit.text)
		}
		return b.outputs[n-1].sql
	}
	v := e.expr(b.orderScope(), x)
	if v.typ.kind == kindJSON {
		reject(x.pos(), "Grouping by expressions of type JSON is not allowed")
	}
	return v.sql
}

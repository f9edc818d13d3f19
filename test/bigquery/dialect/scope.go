package dialect

import (
	"fmt"
	"strings"
)

// value is the DuckDB text of an expression with its GoogleSQL type. lit is set
// for literals and parameters, which coerce where other expressions do not.
type value struct {
	sql string
	typ typ
	lit *literal
	// coercible marks a STRING parameter, which coerces like a literal.
	coercible bool
}

type column struct {
	name string
	value
}

// relation is what a FROM item brings into scope.
type relation struct {
	name  string // as it is referred to; empty for a subquery without alias
	cols  []column
	known bool
	row   *value // what the bare name means, for UNNEST
}

// scope is where names are looked up, innermost first.
type scope struct {
	parent  *scope
	rels    []*relation
	merged  []column         // columns of JOIN .. USING, which are not ambiguous
	aliases map[string]value // select list aliases, where they are visible
	windows map[string]*window
	ctes    map[string]*relation
}

func (s *scope) child() *scope { return &scope{parent: s} }

func (s *scope) cte(name string) (*relation, bool) {
	for ; s != nil; s = s.parent {
		if r, ok := s.ctes[strings.ToLower(name)]; ok {
			return r, true
		}
	}
	return nil, false
}

func (s *scope) relation(name string) *relation {
	for _, r := range s.rels {
		if r.name != "" && strings.EqualFold(r.name, name) {
			return r
		}
	}
	return nil
}

func (r *relation) column(name string) (column, bool) {
	for _, c := range r.cols {
		if strings.EqualFold(c.name, name) {
			return c, true
		}
	}
	return column{}, false
}

// path resolves a.b.c: an alias of the select list where visible, a relation,
// a column, and then fields.
func (e *printer) path(s *scope, x *path) value {
	for sc := s; sc != nil; sc = sc.parent {
		if v, ok := e.pathIn(sc, x); ok {
			return v
		}
	}
	if zone, ok := e.systemName(x); ok {
		return zone
	}
	reject(x.position, "Unrecognized name: %s", strings.Join(x.parts, "."))
	return value{}
}

// systemName gives functions that BigQuery lets one call without parentheses.
func (e *printer) systemName(x *path) (value, bool) {
	if len(x.parts) != 1 {
		return value{}, false
	}
	return e.currentTime(strings.ToUpper(x.parts[0]), "'UTC'")
}

func (e *printer) pathIn(sc *scope, x *path) (value, bool) {
	first := x.parts[0]
	if v, ok := sc.aliases[strings.ToLower(first)]; ok {
		return e.fields(x, v, 1), true
	}
	if r := sc.relation(first); r != nil {
		return e.pathInRelation(r, x), true
	}
	for _, c := range sc.merged {
		if strings.EqualFold(c.name, first) {
			return e.fields(x, c.value, 1), true
		}
	}
	var found []column
	unknown := 0
	for _, r := range sc.rels {
		if !r.known {
			unknown++
		}
		n := 0
		for _, c := range r.cols {
			if strings.EqualFold(c.name, first) {
				found = append(found, c)
				n++
			}
		}
		if n > 1 {
			reject(x.position, "Column name %s is ambiguous", first)
		}
	}
	switch {
	case len(found) > 1:
		reject(x.position, "Column name %s is ambiguous", first)
	case len(found) == 1:
		return e.fields(x, found[0].value, 1), true
	case unknown > 0:
		return e.fields(x, value{sql: quoteName(first)}, 1), true
	}
	return value{}, false
}

func (e *printer) pathInRelation(r *relation, x *path) value {
	if r.row != nil {
		return e.fields(x, *r.row, 1)
	}
	if len(x.parts) == 1 {
		refuse(x.position, "table %s as a value", x.parts[0])
	}
	n := 0
	for _, c := range r.cols {
		if strings.EqualFold(c.name, x.parts[1]) {
			n++
		}
	}
	if n > 1 {
		reject(x.position, "Column name %s is ambiguous", x.parts[1])
	}
	if c, ok := r.column(x.parts[1]); ok {
		return e.fields(x, c.value, 2)
	}
	if r.known {
		reject(x.position, "Name %s not found inside %s", x.parts[1], x.parts[0])
	}
	return e.fields(x, value{sql: quoteName(r.name) + "." + quoteName(x.parts[1])}, 2)
}

// fields follows the rest of a path into structs and JSON.
func (e *printer) fields(x *path, v value, from int) value {
	for _, name := range x.parts[from:] {
		v = e.field(x.position, v, name)
	}
	return v
}

func (e *printer) field(at position, v value, name string) value {
	switch v.typ.kind {
	case kindStruct:
		for i, f := range v.typ.fields {
			if strings.EqualFold(f.name, name) {
				return value{sql: fmt.Sprintf("struct_extract(%s, %s)", v.sql, quoteText(structFieldName(i, f.name))), typ: f.typ}
			}
		}
		reject(at, "Field name %s does not exist in %s", name, v.typ)
	case kindJSON:
		if strings.ContainsAny(name, `"\\*`) {
			refuse(at, "JSON field %s", name)
		}
		return value{sql: fmt.Sprintf("json_extract(%s, %s)", v.sql, quoteText(`$.`+jsonKey(name))), typ: v.typ}
	case kindUnknown:
		refuse(at, "field %s of an expression whose type is not known", name)
	}
	reject(at, "Cannot access field %s on a value with type %s", name, v.typ)
	return value{}
}

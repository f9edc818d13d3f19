package dialect

import (
	"fmt"
	"slices"
	"strings"
)

// target prints the table that DML changes and the relation of its columns.
func (e *printer) target(t *tableRef) (string, *relation) {
	sql, cols, known := e.table(t)
	alias := t.alias
	if alias == "" {
		alias = t.parts[len(t.parts)-1]
	}
	return sql, named(&relation{cols: cols, known: known}, alias)
}

// columnType finds a column that a statement assigns.
func columnType(at position, r *relation, name string) typ {
	if !r.known {
		return typ{}
	}
	c, ok := r.column(name)
	if !ok {
		reject(at, "Column %s is not present in table %s", name, r.name)
	}
	return c.typ
}

// assigned prints a value for a column: DEFAULT, or an expression coerced.
func (e *printer) assigned(s *scope, x expr, t typ) string {
	switch x := x.(type) {
	case *defaultValue:
		return "DEFAULT"
	case *arrayOfExprs:
		if len(x.items) == 0 && x.elem == nil && t.kind == kindArray {
			return "CAST([] AS " + t.duck() + ")"
		}
	}
	return e.assignable(x.pos(), e.expr(s, x), t).sql
}

// assignable coerces as BigQuery's DML does; a literal follows the column.
func (e *printer) assignable(at position, v value, t typ) value {
	if t.kind == kindFloat64 || v.typ.kind != kindFloat64 || t.kind == kindUnknown || v.lit != nil {
		v = e.coerce(at, v, t)
		if t.kind == kindArray { // BigQuery stores no NULL array
			v.sql = "coalesce(" + v.sql + ", [])"
		}
		return v
	}
	reject(at, "Value of type %s cannot be assigned to a column of type %s", v.typ, t)
	return value{}
}

func (e *printer) insert(s *insert) string {
	table, rel := e.target(s.table)
	columns := s.columns
	if columns == nil {
		if !rel.known {
			refuse(s.position, "INSERT without a column list into a table whose columns are not known")
		}
		for _, c := range rel.cols {
			columns = append(columns, c.name)
		}
	}
	types := make([]typ, len(columns))
	names := make([]string, len(columns))
	for i, c := range columns {
		types[i] = columnType(s.position, rel, c)
		names[i] = quoteName(c)
		if slices.ContainsFunc(columns[:i], func(other string) bool { return strings.EqualFold(other, c) }) {
			reject(s.position, "INSERT has columns with duplicate name: %s", c)
		}
	}
	head := "INSERT INTO " + table + " (" + strings.Join(names, ", ") + ") "
	if s.query == nil {
		return head + "VALUES " + e.rows(s, types)
	}
	return head + e.insertedQuery(s, types)
}

func (e *printer) rows(s *insert, types []typ) string {
	rows := make([]string, len(s.rows))
	for i, r := range s.rows {
		if len(r) != len(types) {
			reject(s.position, "Inserted row has wrong column count; Has %d, expected %d", len(r), len(types))
		}
		cells := make([]string, len(r))
		for j, x := range r {
			cells[j] = e.assigned(&scope{}, x, types[j])
		}
		rows[i] = "(" + strings.Join(cells, ", ") + ")"
	}
	return strings.Join(rows, ", ")
}

func (e *printer) insertedQuery(s *insert, types []typ) string {
	sql, rel := e.query(s.query, nil)
	if !rel.known {
		return sql
	}
	if len(rel.cols) != len(types) {
		reject(s.position, "Inserted row has wrong column count; Has %d, expected %d", len(rel.cols), len(types))
	}
	alias := quoteName(e.fresh("i"))
	names := make([]string, len(types))
	cells := make([]string, len(types))
	for i, c := range rel.cols {
		names[i] = quoteName(fmt.Sprintf("c%d", i))
		cells[i] = e.assignable(s.position, value{sql: alias + "." + names[i], typ: c.typ}, types[i]).sql
	}
	return "SELECT " + strings.Join(cells, ", ") + " FROM (" + sql + ") AS " + alias + "(" + strings.Join(names, ", ") + ")"
}

func (e *printer) update(s *update) string {
	table, rel := e.target(s.table)
	sc := &scope{}
	sc.add(s.position, rel)
	from := ""
	if s.from != nil {
		from = e.from(s.from, sc)
	}
	where := e.condition(sc, s.where, "WHERE")
	sql := "UPDATE " + table + " AS " + quoteName(rel.name) + " SET " + e.assignments(s.set, sc, rel)
	if from != "" {
		sql += " FROM " + from
		e.guardOnce(table, rel.name, from, where, "TRUE")
	}
	return sql + " WHERE " + where
}

// guardOnce: a target row that more than one source row would change fails.
func (e *printer) guardOnce(table, alias, source, join, changes string) {
	q := quoteName(alias)
	e.guards = append(e.guards, Guard{
		SQL: fmt.Sprintf("SELECT 1 FROM %s AS %s, %s WHERE (%s) AND (%s) GROUP BY %s.rowid HAVING count(*) > 1 LIMIT 1",
			table, q, source, join, changes, q),
		Message: "UPDATE/MERGE must match at most one source row for each target row",
	})
}

func (e *printer) assignments(set []assignment, sc *scope, rel *relation) string {
	parts := make([]string, len(set))
	seen := map[string]bool{}
	for i, a := range set {
		if seen[strings.ToLower(a.column)] {
			reject(a.position, "Update item %s assigned more than once", a.column)
		}
		seen[strings.ToLower(a.column)] = true
		if a.of != "" && !strings.EqualFold(a.of, rel.name) {
			refuse(a.position, "SET of a field")
		}
		t := columnType(a.position, rel, a.column)
		parts[i] = quoteName(a.column) + " = " + e.assigned(sc, a.x, t)
	}
	return strings.Join(parts, ", ")
}

func (e *printer) deletion(s *deletion) string {
	table, rel := e.target(s.table)
	sc := &scope{}
	sc.add(s.position, rel)
	return "DELETE FROM " + table + " AS " + quoteName(rel.name) + " WHERE " + e.condition(sc, s.where, "WHERE")
}

func (e *printer) merge(s *merge) string {
	table, target := e.target(s.table)
	ss := &scope{}
	source := e.from(s.source, ss)
	both := &scope{rels: append([]*relation{target}, ss.rels...)}
	if len(ss.rels) > 0 && strings.EqualFold(ss.rels[0].name, target.name) {
		reject(s.position, "Duplicate alias %s in MERGE", target.name)
	}
	onlyTarget := &scope{rels: []*relation{target}}
	on := e.condition(both, s.on, "ON")
	sql := "MERGE INTO " + table + " AS " + quoteName(target.name) + " USING " + source + " ON " + on
	var changes []string
	for i := range s.when {
		w := &s.when[i]
		sc := both
		switch {
		case w.bySource:
			sc = onlyTarget
		case !w.matched:
			sc = ss
		}
		clause, cond := e.mergeWhen(w, sc, target, ss)
		sql += clause
		if w.matched {
			changes = append(changes, cond)
		}
	}
	if len(changes) > 0 {
		e.guardOnce(table, target.name, source, on, strings.Join(changes, " OR "))
	}
	return sql
}

func (e *printer) mergeWhen(w *mergeWhen, sc *scope, target *relation, source *scope) (clause, cond string) {
	clause = " WHEN MATCHED"
	switch {
	case w.bySource:
		clause = " WHEN NOT MATCHED BY SOURCE"
	case !w.matched:
		clause = " WHEN NOT MATCHED"
	}
	cond = "TRUE"
	if w.cond != nil {
		cond = e.condition(sc, w.cond, "WHEN")
		clause += " AND " + cond
	}
	switch w.action {
	case "DELETE":
		return clause + " THEN DELETE", cond
	case "UPDATE":
		return clause + " THEN UPDATE SET " + e.assignments(w.set, sc, target), cond
	}
	return clause + " THEN INSERT " + e.mergeInsert(w, sc, target, source), cond
}

func (e *printer) mergeInsert(w *mergeWhen, sc *scope, target *relation, source *scope) string {
	columns := w.columns
	if columns == nil {
		if !target.known {
			refuse(w.position, "INSERT without a column list into a table whose columns are not known")
		}
		for _, c := range target.cols {
			columns = append(columns, c.name)
		}
	}
	var values []value
	if w.row {
		cols, known, _ := source.allColumns()
		if !known {
			refuse(w.position, "INSERT ROW from a source whose columns are not known")
		}
		for _, c := range cols {
			values = append(values, c.value)
		}
	}
	names := make([]string, len(columns))
	cells := make([]string, len(columns))
	if n := len(values) + len(w.values); n != len(columns) {
		reject(w.position, "Inserted row has wrong column count; Has %d, expected %d", n, len(columns))
	}
	for i, name := range columns {
		t := columnType(w.position, target, name)
		names[i] = quoteName(name)
		if w.row {
			cells[i] = e.assignable(w.position, values[i], t).sql
		} else {
			cells[i] = e.assigned(sc, w.values[i], t)
		}
	}
	return "(" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(cells, ", ") + ")"
}

package dialect

import (
	"fmt"
	"strings"
)

// printer writes DuckDB SQL. It stops with refuse or reject.
type printer struct {
	o      Options
	guards []Guard
	depth  int
	names  int
	// constants counts what must be constant and is being printed.
	constants int
}

func (e *printer) enter(at position) {
	e.depth++
	if e.depth > 4*maxDepth {
		refuse(at, "nesting deeper than %d", maxDepth)
	}
}

// fresh returns a DuckDB name that no statement can hold by accident.
func (e *printer) fresh(prefix string) string {
	e.names++
	return fmt.Sprintf("$%s%d", prefix, e.names)
}

func (e *printer) statement(s statement) Translation {
	var t Translation
	switch s := s.(type) {
	case *query:
		sql, rel := e.topQuery(s)
		t.SQL = sql
		for _, c := range rel.cols {
			col := ColumnType{Name: c.name}
			if c.typ.known() {
				col.Type = c.typ.String()
			}
			t.Columns = append(t.Columns, col)
		}
	case *insert:
		t.SQL = e.insert(s)
	case *update:
		t.SQL = e.update(s)
	case *deletion:
		t.SQL = e.deletion(s)
	case *truncate:
		sql, _ := e.target(s.table)
		t.SQL = "DELETE FROM " + sql
	case *merge:
		t.SQL = e.merge(s)
	}
	t.Guards = e.guards
	return t
}

// topQuery checks what only a whole result must obey.
func (e *printer) topQuery(q *query) (string, *relation) {
	sql, rel := e.query(q, nil)
	seen := map[string]bool{}
	for _, c := range rel.cols {
		key := strings.ToLower(c.name)
		if seen[key] && rel.known {
			reject(q.position, "Duplicate column names in the result are not supported. Found duplicate(s): %s", c.name)
		}
		seen[key] = true
	}
	return sql, rel
}

// table returns the DuckDB name and columns of a table path.
func (e *printer) table(t *tableRef) (sql string, cols []column, known bool) {
	project, dataset, name := e.o.qualify(t)
	sql = e.tableName(t, project, dataset, name)
	if e.o.DataTypes == nil {
		return sql, nil, false
	}
	list := e.o.DataTypes(project, dataset, name)
	for _, c := range list {
		parsed, err := parseType(c.Type)
		if err != nil {
			refuse(t.position, "column %s of type %s", c.Name, c.Type)
		}
		cols = append(cols, column{c.Name, value{typ: parsed}})
	}
	return sql, cols, list != nil
}

func (e *printer) tableName(_ *tableRef, project, dataset, name string) string {
	if e.o.Table == nil {
		return strings.Join([]string{quoteName(project), quoteName(dataset), quoteName(name)}, ".")
	}
	sql, err := e.o.Table(project, dataset, name)
	if err != nil {
		panic(stop{fmt.Errorf("resolving table %s.%s.%s: %w", project, dataset, name, err)})
	}
	return sql
}

func (o Options) qualify(t *tableRef) (project, dataset, name string) {
	switch len(t.parts) {
	case 1:
		if o.DefaultDataset == "" {
			reject(t.position, "Table %q must be qualified with a dataset (e.g. dataset.table)", t.parts[0])
		}
		return o.DefaultProject, o.DefaultDataset, t.parts[0]
	case 2:
		return o.DefaultProject, t.parts[0], t.parts[1]
	case 3:
		return t.parts[0], t.parts[1], t.parts[2]
	}
	refuse(t.position, "table path %s", strings.Join(t.parts, "."))
	return "", "", ""
}

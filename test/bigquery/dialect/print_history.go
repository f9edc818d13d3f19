package dialect

import "fmt"

// moment prints a constant expression of a moment.
func (e *printer) moment(x expr) string {
	e.constants++
	defer func() { e.constants-- }()
	return e.coerce(x.pos(), e.expr(&scope{}, x), typ{kind: kindTimestamp}).sql
}

// appends prints APPENDS(TABLE t, start, end).
func (e *printer) appends(t *appendsRef, sc *scope) string {
	if e.o.Appends == nil {
		refuse(t.position, "table function APPENDS")
	}
	if _, ok := sc.cte(t.table.parts[0]); ok && len(t.table.parts) == 1 {
		reject(t.position, "APPENDS must be given a table, not the WITH subquery %s", t.table.parts[0])
	}
	_, cols, known := e.table(t.table) // which notes that it is read
	var of Appends
	of.Project, of.Dataset, of.Table = e.o.qualify(t.table)
	for i, into := range []*string{&of.Start, &of.End} {
		if i < len(t.moments) {
			*into = e.moment(t.moments[i])
		}
	}
	sql, err := e.o.Appends(of)
	if err != nil {
		panic(stop{fmt.Errorf("reading what was appended to %s.%s.%s: %w", of.Project, of.Dataset, of.Table, err)})
	}
	rel := &relation{known: known, cols: append(cols, column{"_CHANGE_TYPE", value{typ: typ{kind: kindString}}}, column{"_CHANGE_TIMESTAMP", value{typ: typ{kind: kindTimestamp}}})}
	inner := t.alias
	if inner == "" {
		inner = e.fresh("t")
	}
	out := named(rel, inner)
	out.name = t.alias
	sc.add(t.position, out)
	return sql + " AS " + quoteName(inner)
}

// asOf prints a table as it was at a moment.
func (e *printer) asOf(t *tableRef) string {
	if e.o.AsOf == nil {
		refuse(t.position, "FOR SYSTEM_TIME AS OF")
	}
	of := AsOf{At: e.moment(t.asOf)}
	of.Project, of.Dataset, of.Table = e.o.qualify(t)
	sql, err := e.o.AsOf(of)
	if err != nil {
		panic(stop{fmt.Errorf("reading the past of %s.%s.%s: %w", of.Project, of.Dataset, of.Table, err)})
	}
	return sql
}

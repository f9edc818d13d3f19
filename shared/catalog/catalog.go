// Package catalog reads what PostgreSQL says of a table, or of a query that stands
// for one: its columns and how each is read, its keys and indexes. Both directions
// start from it.
package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Table is a table as the catalogue describes it, or a query of the pipeline file
// that is read like one. A query has no Primary, and SQLName is only what it is
// called.
type Table struct {
	Schema  string
	Name    string
	Columns []Column
	Primary []string
	oid     uint32     // 0 for a query
	query   string     // "" for a table
	reads   []relation // by a query
	shape   string     // as the catalogue had it, see Unchanged
	only    bool       // a plain table: what inherits from it is not part of it
	indexes []index
	stored  []Column // as they are in the source, where a declaration made other Columns of them; see Declare
	where   string   // condition on the rows, see Declare
	needs   []string // columns that are read besides those that are carried
}

// Column is one column: how it is read and what it becomes.
type Column struct {
	Name     string
	Type     string // as Postgres writes it, for messages and the fingerprint
	NotNull  bool
	Kind     rowwire.Kind
	Repeated bool
	Number   int16 // of a table's column: never given to another one; 0 for others
	// Missing says that rows which are older than the column may have values of it: a
	// default, say. They changed when it was added, and no capture method tells of it.
	Missing bool

	As       string // the type in BigQuery that is declared for it; "" for the usual one
	Hash     bool   // its text is carried hashed with HashKey
	HashKey  []byte
	Computed bool // declared, and not in the source

	Expr    string // what is SELECTed for it
	Param   uint32 // OID of the SELECTed value
	Base    string // name of the built-in base type, domains resolved; "" for others
	Origin  Origin
	refused string // why it cannot be carried
	facts   typeFacts
}

// Origin is the table column whose value a column has unaltered; for a column of
// a table, that column itself. It is zero where a query computes the column.
type Origin struct {
	Table        uint32 // OID
	Schema, Name string // of the table
	Column       string
	kind         string // relkind of the table
}

// SQLName is the table's qualified, quoted name.
func (t *Table) SQLName() string { return Quote(t.Schema) + "." + Quote(t.Name) }

// Index is the position of a column in Columns, -1 if there is none.
func (t *Table) Index(column string) int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == column })
}

// Partitioned reports whether the table's rows are in partitions.
func (t *Table) Partitioned() bool { return !t.only && t.query == "" }

// IsQuery reports whether the table is a query of the pipeline file.
func (t *Table) IsQuery() bool { return t.query != "" }

// Source is what to read the rows from, for a FROM clause. Tables that inherit
// from a plain table are left out: its key does not hold for them. A query comes
// with its alias: nothing may be put between Source and WHERE but a join.
func (t *Table) Source() string {
	if t.query != "" {
		return "(" + t.query + "\n) AS " + Quote(t.Name)
	}
	if t.only {
		return "ONLY " + t.SQLName()
	}
	return t.SQLName()
}

// Column returns the column of that name, or nil.
func (t *Table) Column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// Stored returns the column of that name as the source has it, whether it is carried
// or not; nil if the source has none.
func (t *Table) Stored(name string) *Column {
	columns := t.stored
	if columns == nil {
		columns = t.Columns
	}
	for i := range columns {
		if columns[i].Name == name {
			return &columns[i]
		}
	}
	return nil
}

// LastNumber is the highest Number of a table's columns, carried or not: one that is
// added later has a higher one.
func (t *Table) LastNumber() int16 {
	var last int16
	for _, c := range slices.Concat(t.stored, t.Columns) {
		last = max(last, c.Number)
	}
	return last
}

// Fingerprint changes when a column is added, dropped, renamed or retyped, or
// its nullability changes, or what is declared of the columns and rows.
func (t *Table) Fingerprint() string {
	var b strings.Builder
	for _, c := range t.Columns {
		fmt.Fprintf(&b, "%s %s %t;", c.Name, c.Type, c.NotNull)
	}
	return b.String() + t.Declared()
}

// Leads reports whether a usable btree index begins with the column.
func (t *Table) Leads(column string) bool {
	return slices.ContainsFunc(t.indexes, func(i index) bool { return i.ordered && i.columns[0] == column })
}

// Missing is the permanent error for a column that a declaration names and the
// table does not have.
func (t *Table) Missing(what, name string) error {
	columns := t.stored
	if columns == nil {
		columns = t.Columns
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return fault.Fix(fmt.Errorf("%s %q of %s does not exist", what, name, t.Name),
		"correct the pipeline file; the table has: "+strings.Join(names, ", "))
}

// Readable fails with the columns that cannot be carried, if there are any (I3).
func (t *Table) Readable() error {
	var refused []string
	for _, c := range t.Columns {
		if c.refused != "" {
			refused = append(refused, fmt.Sprintf("%s (%s): %s", c.Name, c.Type, c.refused))
		}
	}
	if len(refused) == 0 {
		return nil
	}
	return fault.Fix(fmt.Errorf("%s has columns that cannot be carried: %s", t.Name, strings.Join(refused, "; ")),
		"change their type in the source")
}

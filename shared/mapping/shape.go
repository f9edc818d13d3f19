package mapping

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// Shape is what a table was when its destination was last made to fit: as much of it as
// tells what has happened to its columns since.
type Shape struct {
	Table   uint32        `json:"table"` // OID; 0 of a query
	Columns []ShapeColumn `json:"columns"`
	// Last is the highest Number of the table's columns, carried or not.
	Last int16 `json:"last"`
	// Left are the names of columns that are carried no longer: BigQuery has their values
	// yet.
	Left []string `json:"left,omitempty"`
}

// ShapeColumn is a carried column.
type ShapeColumn struct {
	Number  int16  `json:"number"` // no other column of the table ever has it; 0 of a query's
	Name    string `json:"name"`
	Landed  string `json:"landed"` // name in BigQuery
	Type    string `json:"type"`   // as Postgres writes it
	Into    string `json:"into"`   // in BigQuery
	NotNull bool   `json:"not_null"`
	Missing bool   `json:"-"` // see catalog.Column
}

// ShapeOf is the shape of a table that lands in t.
func ShapeOf(table *catalog.Table, t *warehouse.Table) Shape {
	s := Shape{Table: table.OID(), Last: table.LastNumber()}
	for i, c := range table.Columns {
		s.Columns = append(s.Columns, ShapeColumn{
			Number: c.Number, Name: c.Name, Landed: t.Columns[i].Name, Type: c.Type, Into: t.Columns[i].Type(), NotNull: c.NotNull, Missing: c.Missing,
		})
	}
	return s
}

// Inherit takes over from the shape before what BigQuery has of columns that are gone.
func (s *Shape) Inherit(before Shape) {
	left := before.Left
	for _, c := range before.Columns {
		left = append(left, c.Landed)
	}
	for _, name := range left {
		carried := slices.ContainsFunc(s.Columns, func(c ShapeColumn) bool { return c.Landed == name })
		if !carried && !slices.Contains(s.Left, name) {
			s.Left = append(s.Left, name)
		}
	}
}

// Drift is what has happened to a table's columns.
type Drift struct {
	Changes []string // every change, told to people
	// Unfit are those of them that BigQuery cannot follow: a column has another name or
	// another type there.
	Unfit []string
	// Stale says why rows that nothing tells of have other values than BigQuery has; ""
	// if none does.
	Stale string
}

// Since compares a shape with the one before.
func (s Shape) Since(before Shape) Drift {
	var d Drift
	stale := func(why string) {
		d.Changes = append(d.Changes, why)
		if d.Stale == "" {
			d.Stale = why
		}
	}
	if s.Table != before.Table {
		stale("the table was dropped and made anew")
	}
	for _, c := range s.Columns {
		old := before.column(c)
		switch {
		case old == nil && c.Missing && s.Table == before.Table && c.Number != 0:
			stale(fmt.Sprintf("column %q was added with values for the rows there are", c.Name))
		case old == nil && slices.Contains(before.Left, c.Landed):
			stale(fmt.Sprintf("column %q was there once, and BigQuery has its values of then", c.Landed))
		case old == nil && c.Number != 0 && s.Table == before.Table && c.Number <= before.Last:
			stale(fmt.Sprintf("column %q was there before, and is carried from now on", c.Name))
		case old == nil:
			d.Changes = append(d.Changes, fmt.Sprintf("column %q was added", c.Name))
		case old.Landed != c.Landed:
			d.unfit(fmt.Sprintf("column %q is now %q", old.Name, c.Name))
		case old.Into != c.Into:
			d.unfit(fmt.Sprintf("column %q was %s and is now %s: %s in BigQuery, and not %s", c.Name, old.Type, c.Type, c.Into, old.Into))
		case old.Number != c.Number && s.Table == before.Table:
			stale(fmt.Sprintf("column %q was dropped and added again", c.Name))
		case old.Type != c.Type && !widened(old.Type, c.Type):
			stale(fmt.Sprintf("column %q was %s and is now %s", c.Name, old.Type, c.Type))
		case old.Type != c.Type, old.NotNull != c.NotNull, old.Name != c.Name:
			d.Changes = append(d.Changes, fmt.Sprintf("column %q was altered", c.Name))
		}
	}
	for _, old := range before.Columns {
		if !slices.ContainsFunc(s.Columns, func(c ShapeColumn) bool { return c.same(old, s.Table == before.Table) || c.Landed == old.Landed }) {
			d.Changes = append(d.Changes, fmt.Sprintf("column %q is no longer carried", old.Name))
		}
	}
	return d
}

func (d *Drift) unfit(what string) {
	d.Changes, d.Unfit = append(d.Changes, what), append(d.Unfit, what)
}

// column is what the column was before: under whatever name, or another one that landed
// where it does.
func (s Shape) column(c ShapeColumn) *ShapeColumn {
	for i := range s.Columns {
		if c.Number != 0 && c.Number == s.Columns[i].Number && c.Landed == s.Columns[i].Landed {
			return &s.Columns[i]
		}
	}
	for i := range s.Columns {
		if c.Landed == s.Columns[i].Landed {
			return &s.Columns[i]
		}
	}
	for i := range s.Columns {
		if c.Number != 0 && c.Number == s.Columns[i].Number {
			return &s.Columns[i]
		}
	}
	return nil
}

// same reports whether two columns are one, of one table.
func (c ShapeColumn) same(old ShapeColumn, table bool) bool {
	return table && c.Number != 0 && c.Number == old.Number
}

// sized is a type with limits, such as numeric(10,2).
var sized = regexp.MustCompile(`^([a-z ]+?)(?:\((\d+)(?:,(\d+))?\))?$`)

// widened reports whether every value of a type is the same value of another one, which
// BigQuery has as the same type.
func widened(from, to string) bool {
	integers := []string{"smallint", "integer", "bigint"}
	if a, b := slices.Index(integers, from), slices.Index(integers, to); a >= 0 && b >= 0 {
		return a < b
	}
	a, b := sized.FindStringSubmatch(from), sized.FindStringSubmatch(to)
	if a == nil || b == nil {
		return false
	}
	if b[1] == "text" {
		return a[1] == "character varying" || a[1] == "text"
	}
	if a[1] != b[1] || a[1] != "character varying" && a[1] != "numeric" {
		return false
	}
	return b[2] == "" || a[2] != "" && number(a[3]) <= number(b[3]) && number(a[2])-number(a[3]) <= number(b[2])-number(b[3])
}

func number(digits string) int {
	n, _ := strconv.Atoi(digits) // none is 0
	return n
}

// Follow says what a drift means under a policy: why the table has to be read again, ""
// for no reason to, or an error that stops it.
func (d Drift) Follow(policy pipeline.SchemaChanges, table string) (reread string, err error) {
	switch {
	case policy == pipeline.SchemaStop && len(d.Changes) > 0:
		return "", fault.Fix(fmt.Errorf("the columns of %s have changed, and schema_changes says stop: %s", table, strings.Join(d.Changes, "; ")),
			"take the change back, or declare schema_changes: evolve (or resync) to go on with it")
	case policy != pipeline.SchemaResync && len(d.Unfit) > 0:
		return "", fault.Fix(fmt.Errorf("the columns of %s have changed in a way that BigQuery cannot follow: %s", table, strings.Join(d.Unfit, "; ")),
			"take the change back; keep the column's name in BigQuery by columns: {rename: {<new>: <old>}}, or its type by columns: {as: {<column>: <type>}}; or declare schema_changes: resync, or drop the table in BigQuery, and it is read again")
	case len(d.Unfit) > 0:
		return strings.Join(d.Unfit, "; "), nil
	}
	return d.Stale, nil
}

// Package typematrix declares what becomes of every kind of value of every type of
// PostgreSQL on its way to BigQuery: the one list that the end-to-end test checks and
// that schemas/TYPES.md is generated from.
package typematrix

import (
	"fmt"
	"strings"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Value is a kind of value that is tried with each type.
type Value string

// The values. All but the sizes and the ends of a type's range are the same text for
// every type.
const (
	Null        Value = "NULL"
	Empty       Value = "empty"
	Minimum     Value = "minimum"
	Maximum     Value = "maximum"
	Below       Value = "just below the minimum"
	Above       Value = "just above the maximum"
	NaN         Value = "NaN"
	Infinity    Value = "Infinity"
	NegInfinity Value = "-Infinity"
	DateInf     Value = "infinity"
	DateNegInf  Value = "-infinity"
	Year0       Value = "year 0"
	BC1         Value = "1 BC"
	Year10000   Value = "year 10000"
	BC          Value = "44 BC"
	Beyond53    Value = "2^53+1"
	E309        Value = "1e309"
	Nul         Value = "\\u0000"
	Surrogate   Value = "unpaired surrogate"
	NullElement Value = "NULL in an array"
	EmptyArray  Value = "empty array"
	TwoDim      Value = "two dimensions"
	Shifted     Value = "shifted lower bound"
	Large       Value = "10 MB, within a row's limit"
	TooLarge    Value = "10 MB, beyond a row's limit"
)

// Values are all of them, in the order of the matrix.
func Values() []Value {
	return []Value{
		Null, Empty, Minimum, Maximum, Below, Above, NaN, Infinity, NegInfinity, DateInf, DateNegInf, Year0, BC1, Year10000, BC,
		Beyond53, E309, Nul, Surrogate, NullElement, EmptyArray, TwoDim, Shifted, Large, TooLarge,
	}
}

// The two sizes: a row of the matrix has some 50 bytes more than its value, and the
// limit of a row is rowwire.DefaultMaxRow.
const (
	largeBytes    = rowwire.DefaultMaxRow - 1000
	tooLargeBytes = 10 << 20
)

// usual is the SQL of a value for a type that says nothing else.
func usual(v Value) string {
	texts := map[Value]string{
		Null: "NULL", Empty: "''", NaN: "'NaN'", Infinity: "'Infinity'", NegInfinity: "'-Infinity'", DateInf: "'infinity'",
		DateNegInf: "'-infinity'", Year0: "'0000-01-01'", BC1: "'0001-12-31 BC'", Year10000: "'10000-01-01'", BC: "'0044-03-15 BC'",
		Beyond53: "'9007199254740993'", E309: "'1e309'", Nul: `'"\u0000"'`, Surrogate: `'"\ud800"'`, NullElement: "'{NULL}'",
		EmptyArray: "'{}'", TwoDim: "'{{1,2},{3,4}}'", Shifted: "'[5:6]={1,2}'",
		Large: fmt.Sprintf("repeat('x', %d)::{type}", largeBytes), TooLarge: fmt.Sprintf("repeat('x', %d)::{type}", tooLargeBytes),
	}
	return texts[v]
}

// Cell is what becomes of one value of one type: one of its outcomes.
type Cell struct {
	SQL string // of the value; "" for the usual one

	Same        bool           // BigQuery's value is the one that Postgres' text shows
	Exact       string         // BigQuery's value is this, as Canonical writes it
	Quarantined rowwire.Reason // the row is kept in tidemark.rejects
	// Refused says that Postgres itself does not take the value. With Quarantined, newer
	// versions do.
	Refused bool
}

// Declared reports whether exactly one outcome is declared.
func (c Cell) Declared() bool {
	n := 0
	for _, set := range []bool{c.Same, c.Exact != "", c.Quarantined != 0 || c.Refused} {
		if set {
			n++
		}
	}
	return n == 1
}

// Type is one type of PostgreSQL, carried in one way.
type Type struct {
	SQL      string // as CREATE TABLE takes it
	As       string // declared in the pipeline file; "" for the usual type
	BigQuery string // what it becomes
	Offered  string // what the pipeline file may declare, the usual one first
	// Wire says that the emulator has no such column: the value is checked as it is sent.
	Wire  bool
	Check string // of the column v, where the type is stood in for by one that takes more
	Note  string // for people
	cells map[Value]Cell
}

// Name is a column name of the type's own.
func (t Type) Name() string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r == '[':
			return 's'
		case r == ']' || r == ')' || r == '"':
			return -1
		}
		return '_'
	}, strings.ToLower(t.SQL+" "+t.As)), "_")
}

// Cell is the declaration of a value; one without an outcome where there is none.
func (t Type) Cell(v Value) Cell {
	c := t.cells[v]
	if c.SQL == "" {
		c.SQL = usual(v)
	}
	c.SQL = strings.ReplaceAll(c.SQL, "{type}", t.SQL)
	return c
}

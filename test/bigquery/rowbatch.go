package bigquery

import (
	"database/sql/driver"
	"math/big"
	"time"
)

// value is one checked scalar: integers, days, microseconds and short decimals
// in i, doubles in f, text and bytes in b, long decimals in wide. Text stays
// bytes, because DuckDB's driver would end a string at U+0000.
type value struct {
	i    int64
	f    float64
	b    []byte
	wide *big.Int
}

// driver is the value as DuckDB's appender takes it.
func (v value) driver(k kind) driver.Value {
	switch k {
	case kindBool:
		return v.i != 0
	case kindInt64:
		return v.i
	case kindFloat64:
		return v.f
	case kindNumeric:
		if v.wide != nil {
			return v.wide
		}
		return v.i
	case kindDate:
		return time.Unix(v.i*24*60*60, 0).UTC()
	case kindTime, kindDatetime, kindTimestamp:
		return time.UnixMicro(v.i).UTC()
	case kindBigNumeric, kindBytes, kindJSON, kindString, kindStruct:
	}
	if v.b == nil {
		return []byte{}
	}
	return v.b
}

// vector is a column of a batch. Only the slice of its kind is used.
type vector struct {
	field  field
	set    []bool
	ints   []int64
	floats []float64
	texts  [][]byte
	wide   map[int]*big.Int
	nested []any // of repeated fields and STRUCTs, in the appender's form
}

// rowBatch is the rows of one append, by column, values checked.
type rowBatch struct {
	rows    int
	vectors []vector
	fields  []field // of the table, at the time of the append
}

func newRowBatch(fields []field, rows int) *rowBatch {
	b := &rowBatch{fields: fields, rows: rows, vectors: make([]vector, len(fields))}
	for i, f := range fields {
		v := &b.vectors[i]
		v.field, v.set = f, make([]bool, rows)
		switch {
		case f.repeated || f.kind == kindStruct:
			v.nested = make([]any, rows)
		case f.kind == kindFloat64:
			v.floats = make([]float64, rows)
		case f.kind == kindString || f.kind == kindJSON || f.kind == kindBytes || f.kind == kindBigNumeric:
			v.texts = make([][]byte, rows)
		default:
			v.ints = make([]int64, rows)
		}
	}
	return b
}

func (v *vector) put(row int, x value) {
	v.set[row] = true
	switch {
	case v.floats != nil:
		v.floats[row] = x.f
	case v.texts != nil:
		v.texts[row] = x.b
	default:
		v.ints[row] = x.i
		if x.wide != nil {
			if v.wide == nil {
				v.wide = map[int]*big.Int{}
			}
			v.wide[row] = x.wide
		}
	}
}

func (v *vector) driver(row int) driver.Value {
	if v.nested != nil {
		if v.nested[row] == nil && v.field.repeated {
			return []any{}
		}
		return v.nested[row]
	}
	if !v.set[row] {
		return nil
	}
	var x value
	switch {
	case v.floats != nil:
		x.f = v.floats[row]
	case v.texts != nil:
		x.b = v.texts[row]
	default:
		x.i, x.wide = v.ints[row], v.wide[row]
	}
	return x.driver(v.field.kind)
}

// row fills dst for a table that may have got columns since, at its end.
func (b *rowBatch) row(i int, fields []field, dst []driver.Value) {
	for c := range dst {
		switch {
		case c < len(b.vectors):
			dst[c] = b.vectors[c].driver(i)
		case fields[c].repeated:
			dst[c] = []any{}
		default:
			dst[c] = nil
		}
	}
}

package dialect

import "strings"

type kind uint8

const (
	kindUnknown kind = iota // no schema was given
	kindNull                // the literal NULL: any type
	kindInt64
	kindFloat64
	kindNumeric
	kindBigNumeric
	kindBool
	kindString
	kindBytes
	kindDate
	kindDatetime
	kindTimestamp
	kindTime
	kindJSON
	kindInterval
	kindArray
	kindStruct
)

// typ is a GoogleSQL type. elem is set for arrays, fields for structs.
type typ struct {
	kind   kind
	elem   *typ
	fields []field
}

type field struct {
	name string
	typ  typ
}

func arrayOf(t typ) typ { return typ{kind: kindArray, elem: &t} }

func (k kind) String() string {
	return [...]string{
		"UNKNOWN", "NULL", "INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC", "BOOL", "STRING", "BYTES", "DATE",
		"DATETIME", "TIMESTAMP", "TIME", "JSON", "INTERVAL", "ARRAY", "STRUCT",
	}[k]
}

func (t typ) String() string {
	switch t.kind {
	case kindArray:
		return "ARRAY<" + t.elem.String() + ">"
	case kindStruct:
		var b strings.Builder
		b.WriteString("STRUCT<")
		for i, f := range t.fields {
			if i > 0 {
				b.WriteString(", ")
			}
			if f.name != "" {
				b.WriteString(f.name + " ")
			}
			b.WriteString(f.typ.String())
		}
		return b.String() + ">"
	case kindNull:
		return "INT64" // as BigQuery types an untyped NULL
	}
	return t.kind.String()
}

// known says whether a type is certain all the way down.
func (t typ) known() bool {
	switch t.kind {
	case kindUnknown:
		return false
	case kindArray:
		return t.elem.known()
	case kindStruct:
		for _, f := range t.fields {
			if !f.typ.known() {
				return false
			}
		}
	}
	return true
}

func (t typ) numeric() bool {
	return t.kind == kindInt64 || t.kind == kindFloat64 || t.kind == kindNumeric || t.kind == kindBigNumeric
}

// contains says whether the type is or holds a value of kind k.
func (t typ) contains(k kind) bool {
	if t.kind == k {
		return true
	}
	if t.kind == kindArray {
		return t.elem.contains(k)
	}
	for _, f := range t.fields {
		if f.typ.contains(k) {
			return true
		}
	}
	return false
}

// duck is the DuckDB type that stores t.
func (t typ) duck() string {
	switch t.kind {
	case kindInt64, kindNull:
		return "BIGINT"
	case kindFloat64:
		return "DOUBLE"
	case kindNumeric:
		return "DECIMAL(38, 9)"
	case kindBigNumeric, kindString:
		return "VARCHAR"
	case kindBool:
		return "BOOLEAN"
	case kindBytes:
		return "BLOB"
	case kindDate:
		return "DATE"
	case kindDatetime:
		return "TIMESTAMP"
	case kindTimestamp:
		return "TIMESTAMPTZ"
	case kindTime:
		return "TIME"
	case kindJSON:
		return "JSON"
	case kindInterval:
		return "INTERVAL"
	case kindArray:
		return t.elem.duck() + "[]"
	case kindStruct:
		parts := make([]string, len(t.fields))
		for i, f := range t.fields {
			parts[i] = quoteName(structFieldName(i, f.name)) + " " + f.typ.duck()
		}
		return "STRUCT(" + strings.Join(parts, ", ") + ")"
	}
	return "VARCHAR"
}

// scalarKind reads a type name that takes no element type.
func scalarKind(name string) (kind, bool) {
	switch strings.ToUpper(name) {
	case "INT64", "INT", "SMALLINT", "INTEGER", "BIGINT", "TINYINT", "BYTEINT":
		return kindInt64, true
	case "FLOAT64":
		return kindFloat64, true
	case "NUMERIC", "DECIMAL":
		return kindNumeric, true
	case "BIGNUMERIC", "BIGDECIMAL":
		return kindBigNumeric, true
	case "BOOL", "BOOLEAN":
		return kindBool, true
	case "STRING":
		return kindString, true
	case "BYTES":
		return kindBytes, true
	case "DATE":
		return kindDate, true
	case "DATETIME":
		return kindDatetime, true
	case "TIMESTAMP":
		return kindTimestamp, true
	case "TIME":
		return kindTime, true
	case "JSON":
		return kindJSON, true
	case "INTERVAL":
		return kindInterval, true
	}
	return kindUnknown, false
}

// common is the supertype that BigQuery coerces values to. ok is false where
// there is none. https://cloud.google.com/bigquery/docs/reference/standard-sql/conversion_rules
func common(a, b typ) (typ, bool) {
	switch {
	case a.kind == kindNull:
		return b, true
	case b.kind == kindNull:
		return a, true
	case a.kind == kindUnknown || b.kind == kindUnknown:
		return typ{}, true
	case a.numeric() && b.numeric():
		return typ{kind: widerNumber(a.kind, b.kind)}, true
	case a.kind == kindArray && b.kind == kindArray:
		e, ok := common(*a.elem, *b.elem)
		return arrayOf(e), ok
	case a.kind == kindStruct && b.kind == kindStruct:
		return commonStruct(a, b)
	case a.kind == kindDate && b.kind == kindDatetime, a.kind == kindDatetime && b.kind == kindDate:
		return typ{kind: kindDatetime}, true
	}
	return a, a.kind == b.kind
}

func commonStruct(a, b typ) (typ, bool) {
	if len(a.fields) != len(b.fields) {
		return typ{}, false
	}
	out := typ{kind: kindStruct, fields: make([]field, len(a.fields))}
	for i := range a.fields {
		t, ok := common(a.fields[i].typ, b.fields[i].typ)
		if !ok {
			return typ{}, false
		}
		out.fields[i] = field{name: a.fields[i].name, typ: t}
	}
	return out, true
}

// widerNumber orders INT64 < NUMERIC < BIGNUMERIC < FLOAT64.
func widerNumber(a, b kind) kind {
	for _, k := range [...]kind{kindFloat64, kindBigNumeric, kindNumeric} {
		if a == k || b == k {
			return k
		}
	}
	return kindInt64
}

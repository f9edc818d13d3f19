package catalog

import (
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// typeFacts is what the catalogue says of a column's type, domains resolved.
type typeFacts struct {
	oid                            uint32
	typmod                         int32
	dims                           int16 // declared array dimensions
	name, kind, category, schema   string
	elemName, elemKind, elemSchema string
}

// reading says how a value of a type is SELECTed and what it then is on the wire.
type reading struct {
	kind rowwire.Kind
	cast cast
}

// cast is what Postgres does to a value before it is sent.
type cast string

const (
	asIs     cast = ""
	toText   cast = "::text"
	toBigint cast = "::bigint"
	toJSONB  cast = "to_jsonb"
)

func (c cast) apply(expr string, array bool) string {
	switch {
	case c == toJSONB:
		return "to_jsonb(" + expr + ")"
	case c != asIs && array:
		return expr + string(c) + "[]"
	}
	return expr + string(c)
}

// natives are the built-in types whose binary form is transcoded directly.
// Everything else goes through Postgres' own text, which is exact too.
//
//nolint:gochecknoglobals // a lookup table, never written
var natives = map[string]reading{
	"bool": {rowwire.Bool, asIs},
	"int2": {rowwire.Int2, asIs}, "int4": {rowwire.Int4, asIs}, "int8": {rowwire.Int8, asIs},
	"oid":    {rowwire.Int8, toBigint},
	"float4": {rowwire.Float4, asIs}, "float8": {rowwire.Float8, asIs},
	"numeric": {rowwire.BigNumeric, asIs}, // narrowed by numericKind
	"text":    {rowwire.Text, asIs}, "varchar": {rowwire.Text, asIs}, "bpchar": {rowwire.Text, asIs}, "name": {rowwire.Text, asIs},
	"json": {rowwire.JSON, asIs}, "jsonb": {rowwire.JSONB, asIs},
	"bytea": {rowwire.Bytes, asIs},
	"uuid":  {rowwire.UUID, asIs},
	"date":  {rowwire.Date, asIs}, "time": {rowwire.Time, asIs},
	"timestamp": {rowwire.DateTime, asIs}, "timestamptz": {rowwire.Timestamp, asIs},
}

// unreadable are extension types whose BigQuery form is not decided by their text.
//
//nolint:gochecknoglobals // a lookup table, never written
var unreadable = map[string]string{
	"geometry":  "PostGIS types are not carried",
	"geography": "PostGIS types are not carried",
	"vector":    "pgvector types are not carried",
	"halfvec":   "pgvector types are not carried",
	"sparsevec": "pgvector types are not carried",
}

// plan decides how the column is read. DESIGN.md, "Forward: types".
func (c *Column) plan(d typeFacts) {
	c.Expr, c.Param = Quote(c.Name), d.oid
	if d.schema == "pg_catalog" && d.name != "char" { // ::char means another type
		c.Base = d.name
	}
	if d.category == "A" && d.elemName != "" {
		c.planArray(d)
		return
	}
	r := scalar(d.name, d.kind, d.schema)
	if d.name == "numeric" && d.schema == "pg_catalog" {
		r.kind = numericKind(d.typmod)
	}
	c.refused = unreadable[d.name]
	c.read(r)
}

func (c *Column) read(r reading) {
	c.Kind = r.kind
	c.Expr = r.cast.apply(c.Expr, false)
	switch r.cast {
	case toText:
		c.Param = pgtype.TextOID
	case toJSONB:
		c.Param = pgtype.JSONBOID
	case toBigint:
		c.Param = pgtype.Int8OID
	case asIs:
	}
}

// scalar is the reading of a type that is no array.
func scalar(name, kind, schema string) reading {
	switch {
	case kind == "c": // composite
		return reading{rowwire.JSONB, toJSONB}
	case kind == "e": // an enum's binary form is its label
		return reading{rowwire.Text, asIs}
	case name == "hstore":
		return reading{rowwire.JSONB, toJSONB}
	}
	if r, ok := natives[name]; ok && schema == "pg_catalog" {
		return r
	}
	return reading{rowwire.Text, toText}
}

func (c *Column) planArray(d typeFacts) {
	elem := scalar(d.elemName, d.elemKind, d.elemSchema)
	c.refused = unreadable[d.elemName]
	if d.dims > 1 || elem.cast == toJSONB {
		c.read(reading{rowwire.JSONB, toJSONB})
		return
	}
	if d.elemName == "numeric" && d.elemSchema == "pg_catalog" {
		elem.kind = numericKind(d.typmod)
	}
	c.Kind, c.Repeated, c.Expr = elem.kind, true, elem.cast.apply(c.Expr, true)
}

// numericKind is NUMERIC where numeric(p,s) always fits its 29 integer and 9
// fractional digits, else BIGNUMERIC. typmod is ((p << 16) | (s & 0x7ff)) + 4,
// the scale being an 11-bit signed number since Postgres 15 (numeric.c).
func numericKind(typmod int32) rowwire.Kind {
	if typmod < 4 {
		return rowwire.BigNumeric
	}
	precision := (typmod - 4) >> 16 & 0xffff
	scale := ((typmod-4)&0x7ff ^ 1024) - 1024
	if scale <= 9 && precision-scale <= 29 {
		return rowwire.Numeric
	}
	return rowwire.BigNumeric
}

package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemark-data/tidemark/shared/fault"
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

// builtin reports whether the type is one of pg_catalog.
func (d typeFacts) builtin() bool { return d.schema == "pg_catalog" }

// reading is one way to carry a type: as which BigQuery type, how it is SELECTed for
// that, and what it then is on the wire.
type reading struct {
	as       string // the BigQuery type, as a pipeline file names it
	kind     rowwire.Kind
	cast     cast
	repeated bool
}

// cast is what Postgres does to a value before it is sent. It has the value in one
// place only, so that another one can be put there.
type cast struct {
	before, after string
	oid           uint32 // of the result; 0 for that of the column
}

func (c cast) apply(expr string) string { return c.before + expr + c.after }

// elements is the cast done to each element of an array.
func (c cast) elements() cast {
	if c.after != "" {
		c.after += "[]"
	}
	return cast{c.before, c.after, 0}
}

// The casts. Those without a schema are found in pg_catalog first.
//
//nolint:gochecknoglobals // constants
var (
	toText    = cast{after: "::text", oid: pgtype.TextOID}
	toBigint  = cast{after: "::bigint", oid: pgtype.Int8OID}
	toDouble  = cast{after: "::float8", oid: pgtype.Float8OID}
	toNumeric = cast{after: "::numeric", oid: pgtype.NumericOID}
	toReals   = cast{after: "::real[]", oid: pgtype.Float4ArrayOID}
	realsJSON = cast{"to_json(", "::real[])", pgtype.JSONOID}
	// Not to_jsonb: it fails on a value that jsonb cannot have, and with it the whole
	// read, and drops keys that come twice.
	toJSON = cast{"to_json(", ")", pgtype.JSONOID}
	// JSON has no place for subscripts that do not begin at 1: such an array is a JSON
	// string of Postgres' text.
	arrayToJSON = cast{
		"(SELECT CASE WHEN array_dims(v) ~ '[[]([^1]|1[^:])' THEN to_json(v::text) ELSE to_json(v) END FROM (SELECT ",
		" OFFSET 0) AS s (v))", pgtype.JSONOID,
	}
)

// natives are the readings of the built-in types that are more than text, the usual
// one first. Every other type goes through Postgres' own text, which is exact too.
//
//nolint:gochecknoglobals // a lookup table, never written
var natives = map[string][]reading{
	"bool":   {{as: "BOOL", kind: rowwire.Bool}},
	"int2":   {{as: "INT64", kind: rowwire.Int2}, {as: "NUMERIC", kind: rowwire.Numeric, cast: toNumeric}, {as: "BIGNUMERIC", kind: rowwire.BigNumeric, cast: toNumeric}, {as: "FLOAT64", kind: rowwire.Float8, cast: toDouble}},
	"int4":   {{as: "INT64", kind: rowwire.Int4}, {as: "NUMERIC", kind: rowwire.Numeric, cast: toNumeric}, {as: "BIGNUMERIC", kind: rowwire.BigNumeric, cast: toNumeric}, {as: "FLOAT64", kind: rowwire.Float8, cast: toDouble}},
	"int8":   {{as: "INT64", kind: rowwire.Int8}, {as: "NUMERIC", kind: rowwire.Numeric, cast: toNumeric}, {as: "BIGNUMERIC", kind: rowwire.BigNumeric, cast: toNumeric}, {as: "FLOAT64", kind: rowwire.NumericFloat, cast: toNumeric}},
	"oid":    {{as: "INT64", kind: rowwire.Int8, cast: toBigint}},
	"float4": {{as: "FLOAT64", kind: rowwire.Float4}},
	"float8": {{as: "FLOAT64", kind: rowwire.Float8}},
	// The usual one of numeric is chosen by usualNumeric.
	"numeric": {{as: "BIGNUMERIC", kind: rowwire.BigNumeric}, {as: "NUMERIC", kind: rowwire.Numeric}, {as: "INT64", kind: rowwire.NumericInt}, {as: "FLOAT64", kind: rowwire.NumericFloat}},
	"money":   {{as: "STRING", kind: rowwire.Text, cast: toText}, {as: "NUMERIC", kind: rowwire.Numeric, cast: toNumeric}, {as: "BIGNUMERIC", kind: rowwire.BigNumeric, cast: toNumeric}},
	"text":    {{as: "STRING", kind: rowwire.Text}, {as: "JSON", kind: rowwire.JSONText}, {as: "BYTES", kind: rowwire.Bytes}},
	"varchar": {{as: "STRING", kind: rowwire.Text}, {as: "JSON", kind: rowwire.JSONText}, {as: "BYTES", kind: rowwire.Bytes}},
	"bpchar":  {{as: "STRING", kind: rowwire.Text}, {as: "JSON", kind: rowwire.JSONText}, {as: "BYTES", kind: rowwire.Bytes}},
	"name":    {{as: "STRING", kind: rowwire.Text}},
	"json":    {{as: "JSON", kind: rowwire.JSON}},
	"jsonb":   {{as: "JSON", kind: rowwire.JSONB}},
	"bytea":   {{as: "BYTES", kind: rowwire.Bytes}},
	"uuid":    {{as: "STRING", kind: rowwire.UUID}, {as: "BYTES", kind: rowwire.Bytes}},
	"date":    {{as: "DATE", kind: rowwire.Date}},
	"time":    {{as: "TIME", kind: rowwire.Time}},
	// Both are microseconds of the same epoch: who declares the other type says that
	// the values are in UTC.
	"timestamp":   {{as: "DATETIME", kind: rowwire.DateTime}, {as: "TIMESTAMP", kind: rowwire.Timestamp}},
	"timestamptz": {{as: "TIMESTAMP", kind: rowwire.Timestamp}, {as: "DATETIME", kind: rowwire.DateTime}},
	"interval":    {{as: "STRING", kind: rowwire.IntervalText}, {as: "INTERVAL", kind: rowwire.Interval}},
}

// plan decides how the column is read. DESIGN.md, "Forward: types".
func (c *Column) plan(d typeFacts) {
	c.facts, c.Param = d, d.oid
	if d.builtin() && d.name != "char" { // ::char means another type
		c.Base = d.name
	}
	c.read(d.readings()[0])
}

// as has the column carried as another BigQuery type than the usual one. It keeps every
// value exactly, or the row is quarantined; a type that could not promise that, or would
// be a guess, is a permanent error that names those that may be. STRING is the text that
// Postgres has of the value; of an array STRING and JSON are the whole of it, and any
// other type is that of its elements, as ARRAY<..> is. It must come before the column is
// renamed.
func (c *Column) as(target string) error {
	readings := c.facts.readings()
	at := -1
	for _, name := range []string{target, "ARRAY<" + target + ">"} {
		if at < 0 {
			at = slices.IndexFunc(readings, func(r reading) bool { return r.as == name })
		}
	}
	if at < 0 {
		return fault.Fix(fmt.Errorf("column %s is %s, which is not carried as %q", c.Name, c.Type, target),
			"as: may be "+strings.Join(c.Targets(), ", "))
	}
	c.read(readings[at])
	return nil
}

// Targets are the BigQuery types that the column can be carried as, the usual one first.
func (c *Column) Targets() []string {
	var out []string
	for _, r := range c.facts.readings() {
		out = append(out, r.as)
	}
	return out
}

func (c *Column) read(r reading) {
	c.Kind, c.Repeated = r.kind, r.repeated
	c.Expr, c.Param = r.cast.apply(Quote(c.Name)), c.facts.oid
	if r.cast.oid != 0 {
		c.Param = r.cast.oid
	}
}

// readings are the ways to carry a type, the usual one first.
func (d typeFacts) readings() []reading {
	var out []reading
	// int2vector and oidvector are arrays too, from subscript 0.
	if vector := d.builtin() && strings.HasSuffix(d.name, "vector"); d.category == "A" && d.elemName != "" && !vector {
		out = d.arrayReadings()
	} else {
		out = d.scalarReadings()
	}
	if !slices.ContainsFunc(out, func(r reading) bool { return r.as == "STRING" }) {
		out = append(out, reading{as: "STRING", kind: rowwire.Text, cast: toText})
	}
	return out
}

func (d typeFacts) scalarReadings() []reading {
	switch {
	case d.kind == "c", d.name == "hstore" && !d.builtin():
		return []reading{{as: "JSON", kind: rowwire.JSON, cast: toJSON}}
	case d.kind == "e": // its binary form is its label
		return []reading{{as: "STRING", kind: rowwire.Text}}
	case d.builtin():
		return usualNumeric(natives[d.name], d.typmod)
	case d.name == "vector" || d.name == "halfvec":
		return []reading{{as: "ARRAY<FLOAT64>", kind: rowwire.Float4, cast: toReals, repeated: true}, {as: "JSON", kind: rowwire.JSON, cast: realsJSON}}
	case d.name == "geography" || d.name == "geometry":
		return d.shapeReadings()
	}
	return nil
}

// arrayReadings are those of each element, and those of the whole.
func (d typeFacts) arrayReadings() []reading {
	whole := reading{as: "JSON", kind: rowwire.JSON, cast: arrayToJSON}
	elem := typeFacts{typmod: d.typmod, name: d.elemName, kind: d.elemKind, schema: d.elemSchema}
	deeper := strings.HasPrefix(elem.name, "_") // an array of a domain over arrays
	if d.dims > 1 || deeper || elem.kind == "c" || elem.name == "hstore" {
		return []reading{whole}
	}
	of := []reading{{as: "STRING", kind: rowwire.Text, cast: toText}}
	if elem.builtin() && natives[elem.name] != nil || elem.kind == "e" {
		of = elem.scalarReadings()
	}
	out := make([]reading, len(of), len(of)+1)
	for i, r := range of {
		out[i] = reading{as: "ARRAY<" + r.as + ">", kind: r.kind, cast: r.cast.elements(), repeated: true}
	}
	return append(out, whole)
}

// shapeReadings are those of the types of PostGIS. A geography's edges are geodesics, as
// GEOGRAPHY has them; a geometry's are straight in the plane, which makes no difference
// to points only. The text has each coordinate to the last bit.
func (d typeFacts) shapeReadings() []reading {
	flat := reading{as: "STRING", kind: rowwire.Text, cast: toText}
	shape := reading{as: "GEOGRAPHY", kind: rowwire.Geography, cast: cast{d.schema + ".st_asewkt(", ", 30)", pgtype.TextOID}}
	if d.name == "geography" {
		return []reading{shape, flat}
	}
	srid, points := shapeModifier(d.typmod)
	switch {
	case srid == wgs84 && points:
		return []reading{shape, flat}
	case srid == wgs84 || srid == 0: // or rows of another one, which are quarantined
		return []reading{flat, shape}
	}
	return []reading{flat}
}

// wgs84 is the SRID of the coordinates that GEOGRAPHY has.
const wgs84 = 4326

// shapeModifier reads the type modifier of a geometry: its SRID, 0 for any, and whether
// it is points only. (PostGIS: TYPMOD_GET_SRID and TYPMOD_GET_TYPE of liblwgeom.h.)
func shapeModifier(typmod int32) (srid int32, points bool) {
	const point, multiPoint = 1, 4
	if typmod < 0 {
		return 0, false
	}
	shape := typmod & 0xfc >> 2
	return (typmod&0x0fffff00 - typmod&0x10000000) >> 8, shape == point || shape == multiPoint
}

// usualNumeric puts NUMERIC before BIGNUMERIC where the declared size says that it
// always fits.
func usualNumeric(of []reading, typmod int32) []reading {
	if len(of) > 1 && of[0].as == "BIGNUMERIC" && numericKind(typmod) == rowwire.Numeric {
		return slices.Concat([]reading{of[1], of[0]}, of[2:])
	}
	return of
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

package target

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
)

// An explicit cast of Postgres rounds numbers, cuts text and drops the time of a
// date without a word. So each cast is followed by a test that the value is still
// the one that was read (I3); what has no such test is refused before any row
// moves.

// names of the staged types as the catalogue writes them.
func canonical(staged string) string {
	element, isArray := strings.CutSuffix(staged, "[]")
	switch element {
	case "time", "timestamp":
		element += " without time zone"
	case "timestamptz":
		element = "timestamp with time zone"
	}
	if isArray {
		return element + "[]"
	}
	return element
}

// same reports whether the column is stored as it is staged: no cast, no test.
func (c staged) same() bool { return canonical(c.from.Type) == c.column.Type }

// arrays reports what is staged and what is stored as an array.
func (c staged) arrays() (from, to bool) {
	return strings.HasSuffix(c.from.Type, "[]"),
		c.column.Repeated || strings.HasPrefix(c.column.Base, "_") || strings.HasSuffix(c.column.Type, "]")
}

// element is the staged type and the built-in base type of what is stored, of
// the elements if they are arrays.
func (c staged) element() (from, to string) {
	return strings.TrimSuffix(c.from.Type, "[]"), strings.TrimPrefix(c.column.Base, "_")
}

// cast is the staged value in the type of the table's column. It goes through
// text where Postgres' own cast is not exact: from double precision to numeric
// it keeps 15 digits only.
func (c staged) cast() string {
	through := ""
	if from, to := c.element(); from == "double precision" && to == "numeric" {
		through = "::text"
		if array, _ := c.arrays(); array {
			through = "::text[]"
		}
	}
	return c.name + through + "::" + c.column.Type
}

// exact is a condition that holds for rows whose value survives the cast, ""
// where every value does that the cast accepts. It is never NULL.
func (c staged) exact() string {
	if c.same() {
		return ""
	}
	from, to := c.element()
	if array, toArray := c.arrays(); array && toArray {
		if condition := survives(from, to, "a", "b"); condition != "" {
			return fmt.Sprintf("NOT EXISTS (SELECT FROM unnest(%s, %s) AS e(a, b) WHERE (a IS NOT NULL OR b IS NOT NULL) AND (%s) IS NOT TRUE)", c.name, c.cast(), condition)
		}
		return ""
	} else if toArray {
		to = "" // compared by its text
	}
	condition := survives(from, to, c.name, c.cast())
	if condition == "" {
		return ""
	}
	return fmt.Sprintf("(%s IS NULL AND %s IS NULL OR (%s) IS TRUE)", c.name, c.cast(), condition)
}

// survives is a condition on a value a of a staged type and b, the same in a
// type with the built-in base type to ("" for all others): b is what a was.
// Where there is a way back it has to lead to a; else, and for all types that
// nothing is known of, their texts have to agree.
//
// double precision to real is let through: whoever maps it has chosen the
// precision.
func survives(from, to, a, b string) string {
	switch to {
	case "text", "varchar", "name", "":
		return sameText(a, b)
	case "bpchar": // padded when stored, and the padding means nothing
		return fmt.Sprintf(`rtrim((%s)::text, ' ') = rtrim((%s)::text, ' ') COLLATE "C"`, b, a)
	}
	switch {
	case from == "text":
		return parses(to, a, b)
	case from == "double precision" && to == "float4":
		return ""
	case from == "numeric" && (to == "float4" || to == "float8"): // their cast to numeric is not exact
		return fmt.Sprintf("(%s)::text::numeric = %s", b, a)
	case to == "money":
		return fmt.Sprintf("(%s)::numeric = (%s)::numeric", b, a)
	case from == "jsonb" && to != "json":
		return fmt.Sprintf("to_jsonb(%s) = %s", b, a)
	}
	return fmt.Sprintf("(%s)::%s = %s", b, from, a)
}

func sameText(a, b string) string {
	return fmt.Sprintf(`(%s)::text = (%s)::text COLLATE "C"`, b, a)
}

// The ISO 8601 texts whose reading is beyond doubt: no leap second, no hour 24,
// no more than microseconds.
const (
	isoDay   = `[0-9]{4}-[0-9]{2}-[0-9]{2}`
	isoClock = `([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6}0*)?)?`
	isoZone  = ` ?(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)`
)

// parses is survives for text: a is what was read, b what Postgres made of it. A
// time without a zone is UTC's, as in BigQuery.
func parses(to, a, b string) string {
	iso := func(pattern string) string {
		return fmt.Sprintf("%s OR %s ~ '^%s$' AND %s = (%s)::%s", sameText(a, b), a, pattern, b, a, to)
	}
	switch to {
	case "int2", "int4", "int8", "bool", "uuid", "inet", "cidr", "macaddr", "macaddr8", "pg_lsn", "json":
		return "" // they read exactly or not at all
	case "numeric", "money":
		return fmt.Sprintf("(%s)::numeric = (%s)::numeric", b, a)
	case "float4", "float8":
		return fmt.Sprintf("(%s)::text::numeric = (%s)::numeric", b, a)
	case "time":
		return iso(isoClock)
	case "timestamp":
		return iso(isoDay + "([ T]" + isoClock + ")?")
	case "timestamptz":
		return iso(isoDay + "([ T]" + isoClock + "(" + isoZone + ")?)?")
	case "interval": // fractions of days and months are spread over smaller units
		return fmt.Sprintf("%s OR (%s) !~ '[.,]|[0-9][eE]' AND (%s)::text = (%s)::interval::text", sameText(a, b), a, b, a)
	case "jsonb": // of a key given twice jsonb keeps one
		return nodes("json", a) + " = " + nodes("jsonb", b)
	}
	return sameText(a, b)
}

// nodes counts the values in a JSON document.
func nodes(typ, value string) string {
	return fmt.Sprintf(`(WITH RECURSIVE w(v) AS (SELECT (%[2]s)::%[1]s UNION ALL SELECT c.value FROM w, LATERAL (
		SELECT value FROM %[1]s_each(CASE %[1]s_typeof(v) WHEN 'object' THEN v END) UNION ALL
		SELECT value FROM %[1]s_array_elements(CASE %[1]s_typeof(v) WHEN 'array' THEN v END)) c) SELECT count(*) FROM w)`, typ, value)
}

// refused reports a pair of types between which there is a cast that nobody
// means: bytes and text by the escape syntax, an array as its Postgres literal.
func (c staged) refused() bool {
	fromArray, toArray := c.arrays()
	from, to := c.element()
	return fromArray && !toArray || (from == "bytea") != (to == "bytea")
}

// unstorable is the error for a column whose values the table's column cannot
// hold exactly.
func (s *Staging) unstorable(c staged) error {
	return fault.Fix(fmt.Errorf("column %q of the query comes as %s, which has no exact form in %s.%s of type %s", c.from.Name, c.from.Type, s.table.Name, c.column.Name, c.column.Type),
		"cast it in the query: "+c.remedy())
}

func (c staged) remedy() string {
	fromArray, toArray := c.arrays()
	from, to := c.element()
	switch {
	case fromArray && !toArray && to != "json" && to != "jsonb":
		return fmt.Sprintf("TO_JSON_STRING(%[1]s) AS %[1]s, or one of its elements", c.from.Name)
	case fromArray && !toArray:
		return fmt.Sprintf("TO_JSON(%[1]s) AS %[1]s", c.from.Name)
	case from == "bytea":
		return fmt.Sprintf("TO_HEX(%[1]s), TO_BASE64(%[1]s) or SAFE_CONVERT_BYTES_TO_STRING(%[1]s) AS %[1]s", c.from.Name)
	case toArray:
		return fmt.Sprintf("an ARRAY of %s AS %s", inBigQuery(to), c.from.Name)
	}
	return fmt.Sprintf("CAST(%[1]s AS %[2]s) AS %[1]s", c.from.Name, inBigQuery(to))
}

// inBigQuery is the type of BigQuery that is stored in a base type without
// doubt.
func inBigQuery(base string) string {
	switch base {
	case "int2", "int4", "int8", "oid":
		return "INT64"
	case "float4", "float8":
		return "FLOAT64"
	case "numeric", "money":
		return "NUMERIC"
	case "bool":
		return "BOOL"
	case "bytea":
		return "BYTES"
	case "date":
		return "DATE"
	case "time":
		return "TIME"
	case "timestamp":
		return "DATETIME"
	case "timestamptz":
		return "TIMESTAMP"
	case "json", "jsonb":
		return "JSON"
	}
	return "STRING"
}

// plain are the base types whose equality is identity as far as anybody can see.
func plain(base string) bool {
	return slices.Contains([]string{
		"bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "money", "bytea", "uuid",
		"date", "time", "timestamp", "timestamptz", "jsonb", "inet", "cidr", "macaddr", "macaddr8",
	}, strings.TrimPrefix(base, "_"))
}

// differs is true where the table has another value than the staged one. By
// their own equality an interval of a month is one of 30 days, boxes of the same
// area are equal, and a collation or an extension may find equal what is written
// differently; such types are compared by their text.
func (c staged) differs(table, stage string) string {
	have, want := table+"."+catalog.Quote(c.column.Name), stage+"."+c.name
	switch base := strings.TrimPrefix(c.column.Base, "_"); {
	case plain(base):
		return have + " IS DISTINCT FROM " + want
	case base == "text", base == "varchar", base == "bpchar", base == "name":
		return fmt.Sprintf(`%s IS DISTINCT FROM %s COLLATE "C"`, have, want)
	case c.column.Base == "json": // what jsonb cannot read is compared as it stands
		return fmt.Sprintf(`CASE WHEN %[1]s::text IS NOT DISTINCT FROM %[2]s::text THEN false WHEN %[1]s IS NULL OR %[2]s IS NULL THEN true
			WHEN (%[1]s::text || %[2]s::text) ~ '\\u|[0-9][eE][+-]?[0-9]{4}' THEN true ELSE %[1]s::jsonb IS DISTINCT FROM %[2]s::jsonb END`, have, want)
	}
	return have + "::text IS DISTINCT FROM " + want + "::text"
}

package dialect

import (
	"fmt"
	"strings"
)

// currentTime is CURRENT_TIMESTAMP and its siblings in a zone.
func (e *printer) currentTime(name, zone string) (value, bool) {
	now := e.o.Now
	if now == "" {
		now = "now()"
	}
	local := "(" + now + " AT TIME ZONE " + zone + ")"
	switch name {
	case "CURRENT_TIMESTAMP":
		return typed(kindTimestamp, "%s", now), true
	case "CURRENT_DATE":
		return typed(kindDate, "CAST(%s AS DATE)", local), true
	case "CURRENT_DATETIME":
		return typed(kindDatetime, "%s", local), true
	case "CURRENT_TIME":
		return typed(kindTime, "CAST(%s AS TIME)", local), true
	}
	return value{}, false
}

// timeCall is construction of dates and times.
func (e *printer) timeCall(s *scope, c *call) (value, bool) {
	switch c.name {
	case "CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_DATETIME", "CURRENT_TIME":
		arity(c, 0, 1)
		if c.name == "CURRENT_TIMESTAMP" {
			arity(c, 0, 0)
		}
		return e.currentTime(c.name, e.zone(s, c, 0))
	case "DATE":
		arity(c, 1, 3)
		return e.dateOf(s, c), true
	case "DATETIME":
		arity(c, 1, 6)
		return e.datetimeOf(s, c), true
	case "TIMESTAMP":
		arity(c, 1, 2)
		return e.timestampOf(s, c), true
	case "TIME":
		arity(c, 1, 3)
		return e.timeOf(s, c), true
	case "DATE_FROM_UNIX_DATE":
		arity(c, 1, 1)
		return typed(kindDate, "(DATE '1970-01-01' + CAST(%s AS INTEGER))", e.arg(s, c, 0, kindInt64)), true
	case "LAST_DAY":
		arity(c, 1, 1)
		return typed(kindDate, "last_day(%s)", e.civilDate(c, e.known(s, c, 0))), true
	case "STRING":
		arity(c, 1, 2)
		return e.stringOf(s, c), true
	}
	return value{}, false
}

// zone is the time zone argument at i, 'UTC' where there is none. DuckDB takes
// names; offsets must be literals, to become names it has.
func (e *printer) zone(s *scope, c *call, i int) string {
	if i >= len(c.args) {
		return "'UTC'"
	}
	return e.zoneName(s, c.args[i])
}

func (e *printer) zoneName(s *scope, x expr) string {
	lit, ok := x.(*literal)
	if !ok {
		v := e.expr(s, x)
		return e.coerce(x.pos(), v, typ{kind: kindString}).sql
	}
	switch {
	case lit.kind != kindString:
		reject(x.pos(), "Time zone must be a STRING")
	case lit.text == "+00:00" || lit.text == "+00" || lit.text == "Z":
		return "'UTC'"
	case !zonePattern().MatchString(lit.text):
		refuse(x.pos(), "time zone %s", lit.text)
	}
	return quoteText(lit.text)
}

// civil is a TIMESTAMP as DuckDB's zoneless TIMESTAMP in a zone.
func civil(sql, zone string) string { return "(" + sql + " AT TIME ZONE " + zone + ")" }

func (e *printer) dateOf(s *scope, c *call) value {
	if len(c.args) == 3 {
		parts := []string{e.arg(s, c, 0, kindInt64), e.arg(s, c, 1, kindInt64), e.arg(s, c, 2, kindInt64)}
		return typed(kindDate, "make_date(%s)", strings.Join(parts, ", "))
	}
	v := e.known(s, c, 0)
	if v.typ.kind != kindTimestamp {
		arity(c, 1, 1)
	}
	switch v.typ.kind {
	case kindTimestamp:
		return typed(kindDate, "CAST(%s AS DATE)", civil(v.sql, e.zone(s, c, 1)))
	case kindString:
		if v.lit != nil {
			return e.convert(c.position, v, typ{kind: kindDate}, false)
		}
	case kindDatetime, kindDate, kindNull:
		return e.convert(c.position, v, typ{kind: kindDate}, false)
	}
	refuse(c.position, "DATE(%s)", v.typ)
	return value{}
}

func (e *printer) datetimeOf(s *scope, c *call) value {
	if len(c.args) == 6 {
		return typed(kindDatetime, "make_timestamp(%s)", e.integers(s, c))
	}
	arity(c, 1, 2)
	v := e.known(s, c, 0)
	switch {
	case v.typ.kind == kindTimestamp:
		return typed(kindDatetime, "%s", civil(v.sql, e.zone(s, c, 1)))
	case v.typ.kind == kindDate && len(c.args) == 2:
		return typed(kindDatetime, "(%s + %s)", v.sql, e.arg(s, c, 1, kindTime))
	case len(c.args) == 1 && (v.typ.kind == kindDate || v.typ.kind == kindDatetime || v.typ.kind == kindNull || v.typ.kind == kindString):
		return e.convert(c.position, v, typ{kind: kindDatetime}, false)
	}
	refuse(c.position, "DATETIME(%s)", v.typ)
	return value{}
}

func (e *printer) integers(s *scope, c *call) string {
	parts := make([]string, len(c.args))
	for i := range c.args {
		parts[i] = e.arg(s, c, i, kindInt64)
	}
	return strings.Join(parts, ", ")
}

func (e *printer) timestampOf(s *scope, c *call) value {
	v := e.known(s, c, 0)
	switch v.typ.kind {
	case kindDate, kindDatetime:
		return typed(kindTimestamp, "(CAST(%s AS TIMESTAMP) AT TIME ZONE %s)", v.sql, e.zone(s, c, 1))
	case kindTimestamp, kindString, kindNull:
		arity(c, 1, 1)
		if v.lit != nil && v.typ.kind == kindString {
			return e.coerce(c.position, v, typ{kind: kindTimestamp})
		}
		return e.convert(c.position, v, typ{kind: kindTimestamp}, false)
	}
	refuse(c.position, "TIMESTAMP(%s)", v.typ)
	return value{}
}

func (e *printer) timeOf(s *scope, c *call) value {
	if len(c.args) == 3 {
		return typed(kindTime, "make_time(%s)", e.integers(s, c))
	}
	v := e.known(s, c, 0)
	switch v.typ.kind {
	case kindTimestamp:
		return typed(kindTime, "CAST(%s AS TIME)", civil(v.sql, e.zone(s, c, 1)))
	case kindDatetime, kindTime:
		arity(c, 1, 1)
		return typed(kindTime, "CAST(%s AS TIME)", v.sql)
	}
	refuse(c.position, "TIME(%s)", v.typ)
	return value{}
}

// stringOf is STRING(json) or STRING(timestamp[, zone]).
func (e *printer) stringOf(s *scope, c *call) value {
	v := e.known(s, c, 0)
	if v.typ.kind == kindJSON {
		arity(c, 1, 1)
		return e.jsonScalar(c, v, kindString)
	}
	arity(c, 1, 1)
	return e.convert(c.position, v, typ{kind: kindString}, false)
}

// civilDate is a DATE, DATETIME or TIMESTAMP as a date in UTC.
func (e *printer) civilDate(c *call, v value) string {
	switch v.typ.kind {
	case kindDate:
		return v.sql
	case kindDatetime, kindTimestamp, kindNull:
		return e.convert(c.position, v, typ{kind: kindDate}, false).sql
	}
	reject(c.position, "No matching signature for function %s for argument type %s", c.name, v.typ)
	return ""
}

// truncDay is the first day of the part that a DATE lies in.
func truncDay(sql, part string) (string, bool) {
	switch part {
	case "DAY":
		return sql, true
	case "WEEK":
		return truncDay(sql, "WEEK(SUNDAY)")
	case "ISOWEEK":
		return truncDay(sql, "WEEK(MONDAY)")
	case "MONTH", "QUARTER", "YEAR", "ISOYEAR":
		return fmt.Sprintf("CAST(date_trunc('%s', %s) AS DATE)", strings.ToLower(part), sql), true
	}
	if n, ok := weekStart(part); ok {
		return fmt.Sprintf("(%s - CAST((dayofweek(%s) + %d) %% 7 AS INTEGER))", sql, sql, (7-n)%7), true
	}
	return "", false
}

// weekStart is the day that WEEK(day) starts on, Sunday being 0.
func weekStart(part string) (int, bool) {
	for i, d := range [...]string{"SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"} {
		if part == "WEEK("+d+")" {
			return i, true
		}
	}
	return 0, false
}

// datePart reads an argument such as DAY or WEEK(MONDAY).
func datePart(x expr) string {
	switch x := x.(type) {
	case *path:
		if len(x.parts) == 1 {
			return strings.ToUpper(x.parts[0])
		}
	case *call:
		if x.name == "WEEK" && len(x.args) == 1 {
			if day, ok := x.args[0].(*path); ok && len(day.parts) == 1 {
				part := "WEEK(" + strings.ToUpper(day.parts[0]) + ")"
				if _, ok := weekStart(part); ok {
					return part
				}
			}
		}
	}
	reject(x.pos(), "A valid date part name is required")
	return ""
}

// micros is the length of a fixed date part.
func micros(part string) (int64, bool) {
	switch part {
	case "MICROSECOND":
		return 1, true
	case "MILLISECOND":
		return 1000, true
	case "SECOND":
		return 1000000, true
	case "MINUTE":
		return 60 * 1000000, true
	case "HOUR":
		return 3600 * 1000000, true
	case "DAY":
		return 24 * 3600 * 1000000, true
	}
	return 0, false
}

func unsupportedPart(c *call, part string, t typ) {
	reject(c.position, "%s does not support the %s date part when the argument is %s type", c.name, part, t)
}

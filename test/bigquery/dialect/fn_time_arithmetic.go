package dialect

import (
	"fmt"
	"strings"
)

// timeArithmetic is *_ADD, *_SUB, *_DIFF and *_TRUNC.
func (e *printer) timeArithmetic(s *scope, c *call) (value, bool) {
	kindName, op, ok := strings.Cut(c.name, "_")
	if !ok {
		return value{}, false
	}
	k, ok := scalarKind(kindName)
	if !ok || k != kindDate && k != kindDatetime && k != kindTimestamp && k != kindTime {
		return value{}, false
	}
	switch op {
	case "ADD", "SUB":
		arity(c, 2, 2)
		return e.shift(s, c, k, op == "SUB"), true
	case "DIFF":
		arity(c, 3, 3)
		return e.diff(s, c, k), true
	case "TRUNC":
		arity(c, 1, 3)
		return e.trunc(s, c, k), true
	}
	return value{}, false
}

// operand prints the argument of a date function. The function's name does not
// settle the type: DATE_TRUNC takes a TIMESTAMP and returns one.
func (e *printer) operand(s *scope, c *call, i int, named kind) value {
	v := e.known(s, c, i)
	switch v.typ.kind {
	case kindDate, kindDatetime, kindTimestamp, kindTime:
		if named == kindTime != (v.typ.kind == kindTime) || named == kindTimestamp && v.typ.kind == kindDate {
			reject(c.position, "No matching signature for function %s for argument type %s", c.name, v.typ)
		}
		return v
	}
	return e.coerce(c.position, v, typ{kind: named})
}

func (e *printer) shift(s *scope, c *call, named kind, minus bool) value {
	v := e.operand(s, c, 0, named)
	iv, ok := c.args[1].(*interval)
	if !ok {
		refuse(c.position, "%s by what is not INTERVAL n part", c.name)
	}
	n := e.coerce(iv.position, e.expr(s, iv.x), typ{kind: kindInt64}).sql
	if minus {
		n = "(-" + n + ")"
	}
	sql, ok := shifted(v, n, iv.part)
	if !ok {
		unsupportedPart(c, iv.part, v.typ)
	}
	return value{sql: sql, typ: v.typ}
}

// shifted adds n parts: a month's end stays within the shorter month.
func shifted(v value, n, part string) (string, bool) {
	days := map[string]int{"DAY": 1, "WEEK": 7}[part]
	months := map[string]int{"MONTH": 1, "QUARTER": 3, "YEAR": 12}[part]
	us, fixed := micros(part)
	switch k := v.typ.kind; {
	case k == kindDate && days > 0:
		return fmt.Sprintf("(%s + CAST(%s * %d AS INTEGER))", v.sql, n, days), true
	case k == kindDate && months > 0:
		return fmt.Sprintf("CAST(%s + to_months(CAST(%s * %d AS INTEGER)) AS DATE)", v.sql, n, months), true
	case k == kindDatetime && days > 0:
		return fmt.Sprintf("(%s + to_days(CAST(%s * %d AS INTEGER)))", v.sql, n, days), true
	case k == kindDatetime && months > 0:
		return fmt.Sprintf("(%s + to_months(CAST(%s * %d AS INTEGER)))", v.sql, n, months), true
	case k != kindDate && fixed && (k != kindTime || part != "DAY"):
		return fmt.Sprintf("(%s + to_microseconds(%s * %d))", v.sql, n, us), true
	}
	return "", false
}

// diff: DATE_DIFF and DATETIME_DIFF count the boundaries between their
// arguments; TIMESTAMP_DIFF counts whole elapsed units, towards zero.
func (e *printer) diff(s *scope, c *call, named kind) value {
	a, b := e.operand(s, c, 0, named), e.operand(s, c, 1, named)
	a, b = e.unify(c.position, a, b)
	part := datePart(c.args[2])
	us, fixed := micros(part)
	k := a.typ.kind
	switch {
	case k == kindTimestamp && fixed:
		return typed(kindInt64, "((epoch_us(%s) - epoch_us(%s)) // %d)", a.sql, b.sql, us)
	case k == kindTimestamp, k == kindDate && fixed && part != "DAY", k == kindTime && (!fixed || part == "DAY"):
		unsupportedPart(c, part, a.typ)
	case k == kindDatetime && fixed && part == "MICROSECOND":
		return typed(kindInt64, "(epoch_us(%s) - epoch_us(%s))", a.sql, b.sql)
	case fixed:
		return typed(kindInt64, "date_diff('%s', %s, %s)", strings.ToLower(part), b.sql, a.sql)
	}
	return typed(kindInt64, "%s", e.calendarDiff(c, part, a, b))
}

func (e *printer) calendarDiff(c *call, part string, a, b value) string {
	da, db := e.civilDate(c, a), e.civilDate(c, b)
	switch part {
	case "MONTH", "QUARTER", "YEAR":
		return fmt.Sprintf("date_diff('%s', %s, %s)", strings.ToLower(part), db, da)
	case "ISOYEAR":
		return fmt.Sprintf("(isoyear(%s) - isoyear(%s))", da, db)
	}
	ta, ok := truncDay(da, part)
	if !ok {
		unsupportedPart(c, part, a.typ)
	}
	tb, _ := truncDay(db, part)
	return fmt.Sprintf("((%s - %s) // 7)", ta, tb)
}

func (e *printer) trunc(s *scope, c *call, named kind) value {
	v := e.operand(s, c, 0, named)
	part := "DAY"
	if len(c.args) > 1 {
		part = datePart(c.args[1])
	}
	if v.typ.kind != kindTimestamp {
		arity(c, 1, 2)
		return value{sql: truncated(c, v, part), typ: v.typ}
	}
	zone := e.zone(s, c, 2)
	local := value{sql: civil(v.sql, zone), typ: typ{kind: kindDatetime}}
	if _, fixed := micros(part); fixed && part != "DAY" && zone != "'UTC'" {
		// BigQuery truncates these on the time line, not on the wall clock.
		if part == "HOUR" {
			refuse(c.position, "%s to HOUR in a time zone", c.name)
		}
		zone = "'UTC'"
		local.sql = civil(v.sql, zone)
	}
	return typed(kindTimestamp, "(%s AT TIME ZONE %s)", truncated(c, local, part), zone)
}

// truncated truncates a DATE, DATETIME or TIME.
func truncated(c *call, v value, part string) string {
	us, fixed := micros(part)
	switch {
	case v.typ.kind == kindTime && fixed && part != "DAY":
		return fmt.Sprintf("(TIME '00:00:00' + to_microseconds((epoch_us(%s) // %d) * %d))", v.sql, us, us)
	case v.typ.kind == kindDatetime && fixed:
		if part == "MICROSECOND" {
			return v.sql
		}
		return fmt.Sprintf("CAST(date_trunc('%s', %s) AS TIMESTAMP)", strings.ToLower(part), v.sql)
	case v.typ.kind == kindDatetime:
		if sql, ok := truncDay("CAST("+v.sql+" AS DATE)", part); ok {
			return "CAST(" + sql + " AS TIMESTAMP)"
		}
	case v.typ.kind == kindDate:
		if sql, ok := truncDay(v.sql, part); ok {
			return sql
		}
	}
	unsupportedPart(c, part, v.typ)
	return ""
}

// dateArithmetic is + and - with dates: DATE and a number of days, or an INTERVAL.
func (e *printer) dateArithmetic(at position, op string, l, r value) (value, bool) {
	if op == "+" && (l.typ.kind == kindInterval || r.typ.kind == kindDate) {
		l, r = r, l
	}
	k := l.typ.kind
	if op != "+" && op != "-" || k != kindDate && k != kindDatetime && k != kindTimestamp && k != kindTime {
		return value{}, false
	}
	switch {
	case r.typ.kind == kindInterval && (k == kindDate || k == kindDatetime):
		return typed(kindDatetime, "(CAST(%s AS TIMESTAMP) %s %s)", l.sql, op, r.sql), true
	case r.typ.kind == kindInterval && k == kindTimestamp:
		if !strings.HasPrefix(r.sql, "to_microseconds(") {
			refuse(at, "TIMESTAMP %s INTERVAL of days or longer", op)
		}
		return typed(kindTimestamp, "(%s %s %s)", l.sql, op, r.sql), true
	case k == kindDate && r.typ.kind == kindInt64:
		return typed(kindDate, "(%s %s CAST(%s AS INTEGER))", l.sql, op, r.sql), true
	}
	refuse(at, "operator %s on %s and %s", op, l.typ, r.typ)
	return value{}, false
}

// interval is a value of type INTERVAL.
func (e *printer) interval(s *scope, x *interval) value {
	v := e.expr(s, x.x)
	if v.typ.kind != kindInt64 {
		refuse(x.position, "INTERVAL of a %s", v.typ)
	}
	if us, fixed := micros(x.part); fixed && x.part != "DAY" {
		return typed(kindInterval, "to_microseconds(%s * %d)", v.sql, us)
	}
	switch x.part {
	case "DAY":
		return typed(kindInterval, "to_days(CAST(%s AS INTEGER))", v.sql)
	case "WEEK":
		return typed(kindInterval, "to_days(CAST(%s * 7 AS INTEGER))", v.sql)
	case "MONTH":
		return typed(kindInterval, "to_months(CAST(%s AS INTEGER))", v.sql)
	case "QUARTER":
		return typed(kindInterval, "to_months(CAST(%s * 3 AS INTEGER))", v.sql)
	case "YEAR":
		return typed(kindInterval, "to_months(CAST(%s * 12 AS INTEGER))", v.sql)
	}
	reject(x.position, "A valid date part name is required but found %s", x.part)
	return value{}
}

func (e *printer) extract(s *scope, x *extract) value {
	c := &call{position: x.position, name: "EXTRACT"}
	v := e.expr(s, x.x)
	if v.typ.kind == kindUnknown {
		refuse(x.position, "EXTRACT from an expression whose type is not known")
	}
	part := datePart(x.part)
	k := v.typ.kind
	sql := v.sql
	switch {
	case k == kindTimestamp:
		zone := "'UTC'"
		if x.zone != nil {
			zone = e.zoneName(s, x.zone)
		}
		sql, k = civil(sql, zone), kindDatetime
	case x.zone != nil:
		reject(x.position, "EXTRACT from %s does not support AT TIME ZONE", v.typ)
	case k != kindDate && k != kindDatetime && k != kindTime:
		refuse(x.position, "EXTRACT from %s", v.typ)
	}
	if out, ok := extractWhole(sql, part, v.typ.kind); ok {
		return out
	}
	if out, ok := extractNumber(sql, part, k); ok {
		return typed(kindInt64, "%s", out)
	}
	unsupportedPart(c, part, v.typ)
	return value{}
}

func extractWhole(sql, part string, from kind) (value, bool) {
	switch {
	case part == "DATE" && (from == kindTimestamp || from == kindDatetime):
		return typed(kindDate, "CAST(%s AS DATE)", sql), true
	case part == "TIME" && (from == kindTimestamp || from == kindDatetime):
		return typed(kindTime, "CAST(%s AS TIME)", sql), true
	case part == "DATETIME" && from == kindTimestamp:
		return typed(kindDatetime, "%s", sql), true
	}
	return value{}, false
}

func extractNumber(sql, part string, k kind) (string, bool) {
	us, fixed := micros(part)
	if fixed && part != "DAY" {
		if k == kindDate {
			return "", false
		}
		limit := map[string]int{"HOUR": 24, "MINUTE": 60, "SECOND": 60, "MILLISECOND": 1000, "MICROSECOND": 1000000}[part]
		if k == kindDatetime {
			sql = "CAST(" + sql + " AS TIME)"
		}
		return fmt.Sprintf("((epoch_us(%s) // %d) %% %d)", sql, us, limit), true
	}
	if k == kindTime {
		return "", false
	}
	switch part {
	case "DAY", "MONTH", "QUARTER", "YEAR", "ISOYEAR":
		return fmt.Sprintf("%s(%s)", strings.ToLower(part), sql), true
	case "DAYOFYEAR":
		return fmt.Sprintf("dayofyear(%s)", sql), true
	case "DAYOFWEEK":
		return fmt.Sprintf("(dayofweek(%s) + 1)", sql), true
	case "ISOWEEK":
		return fmt.Sprintf("weekofyear(%s)", sql), true
	case "WEEK":
		part = "WEEK(SUNDAY)"
	}
	if n, ok := weekStart(part); ok {
		// Days before the year's first such day are week 0.
		return fmt.Sprintf("((dayofyear(%s) + 6 - (dayofweek(%s) + %d) %% 7) // 7)", sql, sql, (7-n)%7), true
	}
	return "", false
}

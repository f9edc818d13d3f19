package dialect

import (
	"fmt"
)

func (e *printer) cast(s *scope, x *cast) value {
	if x.format != nil {
		refuse(x.position, "CAST .. FORMAT")
	}
	if x.params {
		refuse(x.position, "CAST to a parameterized type")
	}
	return e.convert(x.position, e.expr(s, x.x), x.to, x.safe)
}

// convert is an explicit CAST. A safe cast gives NULL where CAST fails.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/conversion_functions#cast
func (e *printer) convert(at position, v value, t typ, safe bool) value {
	from, to := v.typ.kind, t.kind
	switch {
	case from == kindNull:
		return value{sql: "CAST(NULL AS " + t.duck() + ")", typ: t}
	case from == kindUnknown:
		refuse(at, "CAST of an expression whose type is not known")
	case from == kindArray && to == kindArray, from == kindStruct && to == kindStruct:
		return e.coerce(at, v, t)
	case from == kindArray || from == kindStruct:
		reject(at, "Invalid cast from %s to %s", v.typ, t)
	case from == to:
		return value{sql: v.sql, typ: t}
	}
	var sql string
	var ok bool
	switch {
	case from == kindString:
		sql, ok = e.parseText(at, v.sql, to, safe)
	case to == kindString && from == kindBytes && safe:
		sql, ok = "TRY(decode("+v.sql+"))", true
	case to == kindString:
		sql, ok = text(v.sql, from)
	case v.typ.numeric() && (t.numeric() || to == kindBool), from == kindBool && to == kindInt64:
		sql, ok = e.convertNumber(at, v, to, safe)
	default:
		sql, ok = convertTime(v.sql, from, to)
	}
	if !ok {
		if from == kindInterval || to == kindInterval || from == kindBytes || to == kindJSON && from != kindString {
			refuse(at, "CAST of %s to %s", v.typ, t)
		}
		reject(at, "Invalid cast from %s to %s", v.typ, t)
	}
	return value{sql: sql, typ: t}
}

// castWord is how DuckDB converts, failing or giving NULL.
func castWord(safe bool) string {
	if safe {
		return "TRY_CAST"
	}
	return "CAST"
}

func (e *printer) convertNumber(at position, v value, to kind, safe bool) (string, bool) {
	from := v.typ.kind
	word := castWord(safe)
	switch {
	case to == kindBool && from == kindInt64, from == kindBool:
		return fmt.Sprintf("CAST(%s AS %s)", v.sql, typ{kind: to}.duck()), true
	case to == kindInt64 && from == kindFloat64: // half away from zero
		return fmt.Sprintf("%s(round(%s) AS BIGINT)", word, v.sql), true
	case to == kindInt64 && from == kindNumeric, to == kindNumeric && from == kindFloat64:
		return fmt.Sprintf("%s(%s AS %s)", word, v.sql, typ{kind: to}.duck()), true
	case to == kindNumeric && from == kindBigNumeric, to == kindInt64 && from == kindBigNumeric:
		return fmt.Sprintf("%s(%s AS %s)", word, v.sql, typ{kind: to}.duck()), true
	case to == kindBigNumeric && from == kindFloat64:
		if v.lit != nil && !v.lit.typed {
			return literalAs(kindBigNumeric, v.lit.text)
		}
		refuse(at, "CAST of FLOAT64 to BIGNUMERIC")
	}
	w, ok := widen(v, to)
	return w.sql, ok
}

// text is CAST(.. AS STRING).
func text(sql string, from kind) (string, bool) {
	switch from {
	case kindInt64, kindBool:
		return fmt.Sprintf("CAST(%s AS VARCHAR)", sql), true
	case kindFloat64:
		return floatText(sql), true
	case kindNumeric:
		return numericText(sql), true
	case kindBigNumeric:
		return sql, true
	case kindBytes:
		return fmt.Sprintf("decode(%s)", sql), true
	case kindDate:
		return fmt.Sprintf("strftime(%s, '%%Y-%%m-%%d')", sql), true
	case kindDatetime:
		return clockText(sql, "%Y-%m-%d %H:%M:%S"), true
	case kindTimestamp:
		return "(" + clockText("("+sql+" AT TIME ZONE 'UTC')", "%Y-%m-%d %H:%M:%S") + " || '+00')", true
	case kindTime:
		return clockText("(DATE '2000-01-01' + "+sql+")", "%H:%M:%S"), true
	}
	return "", false
}

// clockText prints seconds with no, three or six decimals, as BigQuery does.
func clockText(sql, format string) string {
	return fmt.Sprintf("(CASE WHEN epoch_us(%s) %% 1000000 = 0 THEN strftime(%s, '%s') WHEN epoch_us(%s) %% 1000 = 0 THEN strftime(%s, '%s.%%g') ELSE strftime(%s, '%s.%%f') END)",
		sql, sql, format, sql, sql, format, sql, format)
}

// floatText prints the shortest of 15 or 17 digits that reads back the same;
// zero has no sign.
func floatText(sql string) string {
	return fmt.Sprintf("(CASE WHEN %s = 0 THEN '0' WHEN isnan(%s) OR isinf(%s) OR CAST(format('{:.15g}', %s) AS DOUBLE) = %s THEN format('{:.15g}', %s) ELSE format('{:.17g}', %s) END)",
		sql, sql, sql, sql, sql, sql, sql)
}

// parseText is CAST of a STRING. BigQuery's grammars are narrower than DuckDB's.
func (e *printer) parseText(_ position, sql string, to kind, safe bool) (string, bool) {
	const (
		date  = `\d{4}-\d{1,2}-\d{1,2}`
		clock = `\d{1,2}:\d{1,2}:\d{1,2}(\.\d{0,6})?`
		float = `[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?`
	)
	var pattern string
	result := fmt.Sprintf("%s(%s AS %s)", castWord(safe), sql, typ{kind: to}.duck())
	switch to {
	case kindInt64:
		pattern = `\s*([+-]?\d+|0[xX][0-9a-fA-F]+)\s*`
	case kindFloat64:
		pattern = `(?i)\s*(` + float + `|[+-]?inf(inity)?|[+-]?nan)\s*`
	case kindNumeric:
		pattern = `\s*` + float + `\s*`
	case kindBigNumeric:
		pattern = `[+-]?\d{1,38}(\.\d{0,38})?`
		result = canonicalDecimal(sql)
	case kindBool:
		pattern = `(?i)true|false`
	case kindDate:
		pattern = date
	case kindDatetime:
		pattern = date + `([ Tt]` + clock + `)?`
	case kindTimestamp:
		pattern = date + `([ Tt]` + clock + `)?\s?([Zz]|UTC|[+-]\d{1,2}(:\d{2})?)?`
	case kindTime:
		pattern = clock
	case kindBytes:
		return fmt.Sprintf("encode(%s)", sql), true
	case kindJSON:
		return "", false
	default:
		return "", false
	}
	other := "NULL"
	if !safe {
		other = fmt.Sprintf("error('Could not cast to type %s: ' || %s)", to, sql)
	}
	return fmt.Sprintf("(CASE WHEN %s IS NULL THEN NULL WHEN regexp_full_match(%s, %s) THEN %s ELSE %s END)", sql, sql, quoteText(pattern), result, other), true
}

// canonicalDecimal strips sign +, leading and trailing zeros of plain decimals.
func canonicalDecimal(sql string) string {
	s := fmt.Sprintf(`regexp_replace(regexp_replace(%s, '^\+', ''), '^(-?)0+(\d)', '\1\2')`, sql)
	s = fmt.Sprintf(`regexp_replace(regexp_replace(%s, '(\.\d*?)0+$', '\1'), '\.$', '')`, s)
	return fmt.Sprintf(`regexp_replace(%s, '^-0$', '0')`, s)
}

// convertTime converts between civil times and TIMESTAMP, in UTC.
func convertTime(sql string, from, to kind) (string, bool) {
	local := sql
	if from == kindTimestamp {
		local = "(" + sql + " AT TIME ZONE 'UTC')"
	}
	switch {
	case from == kindDate && (to == kindDatetime || to == kindTimestamp),
		from == kindDatetime && (to == kindDate || to == kindTime || to == kindTimestamp),
		from == kindTimestamp && (to == kindDate || to == kindTime || to == kindDatetime):
	default:
		return "", false
	}
	if to == kindTimestamp {
		return "(CAST(" + local + " AS TIMESTAMP) AT TIME ZONE 'UTC')", true
	}
	return fmt.Sprintf("CAST(%s AS %s)", local, typ{kind: to}.duck()), true
}

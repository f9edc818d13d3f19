package dialect

import "fmt"

// arithmetic prints + - * /. Operands whose type is not known are refused: the
// result would depend on it.
func (e *printer) arithmetic(at position, op string, l, r value) value {
	if v, ok := e.dateArithmetic(at, op, l, r); ok {
		return v
	}
	l, r = e.numbers(at, "operator "+op, l, r)
	k := l.typ.kind
	if op == "/" && k == kindInt64 {
		k = kindFloat64
		l, r = e.coerce(at, l, typ{kind: k}), e.coerce(at, r, typ{kind: k})
	}
	switch {
	case op == "/":
		return typed(k, "%s", e.quotient(k, l.sql, r.sql, e.fail("division by zero: "+k.String())))
	case k == kindNumeric && op == "*":
		return typed(k, "CAST((%s * %s) AS DECIMAL(38, 9))", l.sql, r.sql)
	}
	return typed(k, "(%s %s %s)", l.sql, op, r.sql)
}

// numbers unifies two numbers to INT64, FLOAT64 or NUMERIC.
func (e *printer) numbers(at position, what string, l, r value) (value, value) {
	for _, v := range []value{l, r} {
		if v.typ.kind == kindUnknown {
			refuse(at, "%s on an expression whose type is not known", what)
		}
	}
	l, r = e.unify(at, l, r)
	switch l.typ.kind {
	case kindInt64, kindFloat64, kindNumeric:
	case kindNull:
		return e.coerce(at, l, typ{kind: kindInt64}), e.coerce(at, r, typ{kind: kindInt64})
	case kindBigNumeric:
		refuse(at, "%s on BIGNUMERIC", what)
	default:
		reject(at, "No matching signature for %s for argument types: %s, %s", what, l.typ, r.typ)
	}
	return l, r
}

// quotient divides; zero is what the result is, or fails, for a divisor of 0.
func (e *printer) quotient(k kind, l, r, zero string) string {
	if k == kindFloat64 {
		return fmt.Sprintf("(CASE WHEN %s = 0 AND %s IS NOT NULL THEN %s ELSE %s / %s END)", r, l, zero, l, r)
	}
	return fmt.Sprintf("(CASE WHEN %s = 0 AND %s IS NOT NULL THEN %s ELSE %s END)", r, l, zero, decimalQuotient(l, r))
}

// unscaled is a NUMERIC as the integer of its ninth decimals.
func unscaled(sql string) string {
	return fmt.Sprintf("CAST(%s * CAST(1000000000 AS BIGINT) AS HUGEINT)", sql)
}

// scaled is the reverse of unscaled.
func scaled(sql string) string {
	return fmt.Sprintf("(CAST(%s AS DECIMAL(29, 0)) * CAST('0.000000001' AS DECIMAL(9, 9)))", sql)
}

// decimalQuotient divides exactly in 128-bit integers and rounds half away from
// zero at nine decimals, as NUMERIC does. DuckDB would divide as DOUBLE. What
// does not fit fails.
func decimalQuotient(l, r string) string {
	return roundedQuotient(unscaled(l)+" * CAST(1000000000 AS HUGEINT)", unscaled(r))
}

func roundedQuotient(n, d string) string {
	return scaled(fmt.Sprintf("((2 * abs(%s) + abs(%s)) // (2 * abs(%s))) * sign(%s) * sign(%s)", n, d, d, n, d))
}

package dialect

import (
	"fmt"
	"strings"
)

func (e *printer) mathCall(s *scope, c *call) (value, bool) {
	switch c.name {
	case "ABS", "SIGN", "CEIL", "CEILING", "FLOOR", "ROUND", "TRUNC":
		arity(c, 1, 2)
		return e.rounding(s, c), true
	case "MOD", "DIV", "SAFE_DIVIDE", "IEEE_DIVIDE":
		arity(c, 2, 2)
		return e.division(s, c), true
	case "SAFE_ADD", "SAFE_SUBTRACT", "SAFE_MULTIPLY", "SAFE_NEGATE":
		return e.safeArithmetic(s, c), true
	case "EXP", "LN", "SQRT", "POW", "POWER", "LOG", "LOG10", "SIN", "COS", "TAN", "ASIN", "ACOS", "ATAN", "ATAN2", "CBRT":
		arity(c, 1, 2)
		return e.transcendental(s, c), true
	case "IS_NAN", "IS_INF":
		arity(c, 1, 1)
		return typed(kindBool, "%s(%s)", map[string]string{"IS_NAN": "isnan", "IS_INF": "isinf"}[c.name], e.arg(s, c, 0, kindFloat64)), true
	case "BIT_COUNT":
		arity(c, 1, 1)
		return typed(kindInt64, "CAST(bit_count(%s) AS BIGINT)", e.arg(s, c, 0, kindInt64)), true
	case "RAND":
		arity(c, 0, 0)
		return typed(kindFloat64, "random()"), true
	}
	return value{}, false
}

// number prints an argument that must be INT64, FLOAT64 or NUMERIC.
func (e *printer) number(s *scope, c *call, i int) value {
	v := e.known(s, c, i)
	switch v.typ.kind {
	case kindInt64, kindFloat64, kindNumeric:
		return v
	case kindNull:
		return e.coerce(c.position, v, typ{kind: kindFloat64})
	case kindBigNumeric:
		refuse(c.args[i].pos(), "function %s on BIGNUMERIC", c.name)
	}
	reject(c.args[i].pos(), "No matching signature for function %s for argument type %s", c.name, v.typ)
	return value{}
}

// rounding: halves go away from zero. CEIL, FLOOR, ROUND and TRUNC of an INT64
// are FLOAT64.
func (e *printer) rounding(s *scope, c *call) value {
	v := e.number(s, c, 0)
	k := v.typ.kind
	name := strings.ToLower(c.name)
	switch name {
	case "abs":
		arity(c, 1, 1)
		return typed(k, "abs(%s)", v.sql)
	case "sign":
		arity(c, 1, 1)
		if k == kindFloat64 {
			return typed(k, "(CASE WHEN isnan(%s) THEN %s ELSE CAST(sign(%s) AS DOUBLE) END)", v.sql, v.sql, v.sql)
		}
		return typed(k, "CAST(sign(%s) AS %s)", v.sql, v.typ.duck())
	case "ceiling":
		name = "ceil"
	}
	if k == kindInt64 {
		k = kindFloat64
		v = e.coerce(c.position, v, typ{kind: k})
	}
	if len(c.args) == 1 {
		return typed(k, "CAST(%s(%s) AS %s)", name, v.sql, typ{kind: k}.duck())
	}
	return e.roundTo(c, name, k, v)
}

// roundTo is ROUND or TRUNC to a number of decimals, which must be a literal.
func (e *printer) roundTo(c *call, name string, k kind, v value) value {
	lit, ok := c.args[1].(*literal)
	if !ok || lit.kind != kindInt64 {
		refuse(c.position, "%s to decimals that are not a literal", c.name)
	}
	if name != "round" {
		refuse(c.position, "%s with decimals", c.name)
	}
	return typed(k, "CAST(round(%s, %s) AS %s)", v.sql, lit.text, typ{kind: k}.duck())
}

func (e *printer) division(s *scope, c *call) value {
	l, r := e.numbers(c.position, "function "+c.name, e.number(s, c, 0), e.number(s, c, 1))
	k := l.typ.kind
	if k == kindInt64 && (c.name == "SAFE_DIVIDE" || c.name == "IEEE_DIVIDE") {
		k = kindFloat64
		l, r = e.coerce(c.position, l, typ{kind: k}), e.coerce(c.position, r, typ{kind: k})
	}
	zero := e.fail("division by zero: " + c.name)
	switch c.name {
	case "SAFE_DIVIDE":
		return typed(k, "%s", e.quotient(k, l.sql, r.sql, "NULL"))
	case "IEEE_DIVIDE":
		l, r = e.coerce(c.position, l, typ{kind: kindFloat64}), e.coerce(c.position, r, typ{kind: kindFloat64})
		return typed(kindFloat64, "(%s / %s)", l.sql, r.sql)
	}
	if k == kindFloat64 {
		reject(c.position, "No matching signature for function %s for argument types: FLOAT64", c.name)
	}
	op := "%"
	sql := fmt.Sprintf("%s %s %s", l.sql, op, r.sql)
	if c.name == "DIV" { // towards zero
		sql = fmt.Sprintf("%s // %s", l.sql, r.sql)
		if k == kindNumeric {
			sql = fmt.Sprintf("CAST(%s // %s AS DECIMAL(38, 9))", unscaled(l.sql), unscaled(r.sql))
		}
	}
	return typed(k, "(CASE WHEN %s = 0 THEN %s ELSE %s END)", r.sql, zero, sql)
}

func (e *printer) safeArithmetic(s *scope, c *call) value {
	if c.name == "SAFE_NEGATE" {
		arity(c, 1, 1)
		v := e.number(s, c, 0)
		return typed(v.typ.kind, "TRY(-%s)", v.sql)
	}
	arity(c, 2, 2)
	op := map[string]string{"SAFE_ADD": "+", "SAFE_SUBTRACT": "-", "SAFE_MULTIPLY": "*"}[c.name]
	l, r := e.number(s, c, 0), e.number(s, c, 1)
	if strings.Contains(l.sql+r.sql, "error(") || strings.Contains(l.sql+r.sql, "CAST(") && !plain(c.args[0]) && !plain(c.args[1]) {
		refuse(c.position, "%s of an argument that may fail itself", c.name)
	}
	v := e.arithmetic(c.position, op, l, r)
	return value{sql: "TRY(" + v.sql + ")", typ: v.typ}
}

func plain(x expr) bool {
	switch x.(type) {
	case *literal, *param, *path:
		return true
	}
	return false
}

// transcendental functions of FLOAT64. NUMERIC ones have exact results in
// BigQuery that DuckDB cannot give.
func (e *printer) transcendental(s *scope, c *call) value {
	args := make([]string, len(c.args))
	for i := range c.args {
		v := e.number(s, c, i)
		if v.typ.kind == kindNumeric && (v.lit == nil || v.lit.typed) {
			refuse(c.position, "function %s on NUMERIC", c.name)
		}
		args[i] = e.coerce(c.position, v, typ{kind: kindFloat64}).sql
	}
	name := strings.ToLower(c.name)
	two := name == "pow" || name == "power" || name == "atan2"
	switch {
	case name == "log" && len(args) == 2: // LOG(x, base)
		return typed(kindFloat64, "(ln(%s) / ln(%s))", args[0], args[1])
	case name == "log":
		name = "ln"
	case two != (len(args) == 2):
		arity(c, 2, 2)
	}
	if two && len(args) != 2 || !two && len(args) != 1 {
		arity(c, 0, 0)
	}
	sql := fmt.Sprintf("%s(%s)", name, strings.Join(args, ", "))
	if name == "exp" || name == "pow" || name == "power" {
		// BigQuery fails where finite arguments overflow.
		sql = fmt.Sprintf("(CASE WHEN isinf(%s) AND NOT isinf(%s) THEN %s ELSE %s END)", sql, args[0], e.fail("Floating point error in function: "+c.name), sql)
	}
	return typed(kindFloat64, "%s", sql)
}

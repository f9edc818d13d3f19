package dialect

import (
	"fmt"
	"strconv"
	"strings"
)

// aggregate prints an aggregate function, with OVER where it has one.
func (e *printer) aggregate(s *scope, c *call) (value, bool) {
	switch c.name {
	case "COUNT", "COUNTIF", "APPROX_COUNT_DISTINCT":
		return e.count(s, c), true
	case "SUM", "AVG", "MIN", "MAX":
		arity(c, 1, 1)
		return e.total(s, c), true
	case "ANY_VALUE":
		arity(c, 1, 1)
		return e.anyValue(s, c), true
	case "ARRAY_AGG", "ARRAY_CONCAT_AGG":
		arity(c, 1, 1)
		return e.arrayAgg(s, c), true
	case "STRING_AGG":
		arity(c, 1, 2)
		return e.stringAgg(s, c), true
	case "LOGICAL_AND", "LOGICAL_OR":
		arity(c, 1, 1)
		name := map[string]string{"LOGICAL_AND": "bool_and", "LOGICAL_OR": "bool_or"}[c.name]
		return typed(kindBool, "%s", e.over(s, c, name+"("+e.arg(s, c, 0, kindBool)+")")), true
	case "BIT_AND", "BIT_OR", "BIT_XOR":
		arity(c, 1, 1)
		return typed(kindInt64, "%s", e.over(s, c, fmt.Sprintf("%s(%s%s)", strings.ToLower(c.name), e.distinct(c), e.arg(s, c, 0, kindInt64)))), true
	case "STDDEV", "STDDEV_SAMP", "STDDEV_POP", "VARIANCE", "VAR_SAMP", "VAR_POP":
		arity(c, 1, 1)
		return e.deviation(s, c), true
	case "APPROX_QUANTILES":
		arity(c, 2, 2)
		return e.quantiles(s, c), true
	case "MAX_BY", "MIN_BY":
		arity(c, 2, 2)
		v, by := e.known(s, c, 0), e.orderable(c.position, e.known(s, c, 1))
		e.noModifiers(c)
		return value{sql: e.over(s, c, fmt.Sprintf("%s_null(%s, %s)", map[string]string{"MAX_BY": "arg_max", "MIN_BY": "arg_min"}[c.name], v.sql, by.sql)), typ: v.typ}, true
	}
	return value{}, false
}

// noModifiers refuses what a function does not take here.
func (e *printer) noModifiers(c *call) {
	if c.distinct || c.star || c.nulls != "" || c.having != "" || len(c.order) > 0 || c.limit != nil {
		refuse(c.position, "function %s with aggregate modifiers", c.name)
	}
}

func (e *printer) onlyDistinct(c *call) {
	d := *c
	d.distinct = false
	e.noModifiers(&d)
}

func (e *printer) distinct(c *call) string {
	e.onlyDistinct(c)
	if c.distinct {
		return "DISTINCT "
	}
	return ""
}

// over appends the OVER clause, if any, to an aggregate with its FILTER.
func (e *printer) over(s *scope, c *call, sql string) string {
	if c.over == nil {
		return sql
	}
	return sql + " OVER (" + e.window(s, c.over) + ")"
}

func (e *printer) count(s *scope, c *call) value {
	switch {
	case c.star:
		return typed(kindInt64, "%s", e.over(s, c, "count(*)"))
	case c.name == "COUNTIF":
		arity(c, 1, 1)
		e.noModifiers(c)
		return typed(kindInt64, "%s", e.over(s, c, "count(CASE WHEN "+e.condition(s, c.args[0], "COUNTIF")+" THEN 1 END)"))
	}
	arity(c, 1, 1)
	d := e.distinct(c)
	if c.name != "COUNT" {
		d = "DISTINCT " // exact is a good approximation
	}
	v := e.expr(s, c.args[0])
	return typed(kindInt64, "%s", e.over(s, c, "count("+d+v.sql+")"))
}

// total: SUM of INT64 overflows like INT64; AVG of NUMERIC is NUMERIC; MIN and
// MAX are NaN where any value is.
func (e *printer) total(s *scope, c *call) value {
	v := e.known(s, c, 0)
	d := e.distinct(c)
	if c.name == "MIN" || c.name == "MAX" {
		return e.extremum(s, c, v)
	}
	v = e.number(s, c, 0)
	k := v.typ.kind
	sum := e.over(s, c, "sum("+d+v.sql+")")
	switch {
	case c.name == "SUM":
		return typed(k, "CAST(%s AS %s)", sum, v.typ.duck())
	case k != kindNumeric:
		return typed(kindFloat64, "%s", e.over(s, c, "avg("+d+v.sql+")"))
	}
	n := e.over(s, c, "count("+d+v.sql+")")
	return typed(kindNumeric, "(CASE WHEN %s = 0 THEN NULL ELSE %s END)", n, roundedQuotient(unscaled("CAST("+sum+" AS DECIMAL(38, 9))"), "CAST("+n+" AS HUGEINT)"))
}

func (e *printer) extremum(s *scope, c *call, v value) value {
	e.orderable(c.position, v)
	name := strings.ToLower(c.name)
	sql := e.over(s, c, name+"("+v.sql+")")
	if v.typ.kind == kindFloat64 {
		sql = fmt.Sprintf("(CASE WHEN %s THEN CAST('nan' AS DOUBLE) ELSE %s END)", e.over(s, c, "bool_or(isnan("+v.sql+"))"), sql)
	}
	return value{sql: sql, typ: v.typ}
}

func (e *printer) anyValue(s *scope, c *call) value {
	v := e.expr(s, c.args[0])
	if c.having == "" {
		e.noModifiers(c)
		return value{sql: e.over(s, c, "first("+v.sql+")"), typ: v.typ}
	}
	by := e.expr(s, c.havingExpr)
	if by.typ.kind == kindFloat64 || by.typ.kind == kindUnknown {
		refuse(c.position, "HAVING %s of %s", c.having, by.typ)
	}
	e.orderable(c.position, by)
	name := map[string]string{"MAX": "arg_max_null", "MIN": "arg_min_null"}[c.having]
	return value{sql: e.over(s, c, fmt.Sprintf("%s(%s, %s)", name, v.sql, by.sql)), typ: v.typ}
}

func (e *printer) arrayAgg(s *scope, c *call) value {
	v := e.known(s, c, 0)
	if c.having != "" {
		refuse(c.position, "%s with HAVING", c.name)
	}
	if c.name == "ARRAY_CONCAT_AGG" && (v.typ.kind != kindArray || c.distinct || c.nulls != "") {
		refuse(c.position, "ARRAY_CONCAT_AGG of %s", v.typ)
	}
	if c.name == "ARRAY_AGG" && v.typ.kind == kindArray {
		reject(c.position, "The argument to ARRAY_AGG must not be an array type")
	}
	d := ""
	if c.distinct {
		d = "DISTINCT "
	}
	sql := fmt.Sprintf("list(%s%s%s)", d, v.sql, e.aggregateOrder(s, c))
	if c.nulls == "IGNORE" || c.name == "ARRAY_CONCAT_AGG" {
		sql += " FILTER (WHERE " + v.sql + " IS NOT NULL)"
	}
	sql = e.over(s, c, sql)
	if c.limit != nil {
		sql = fmt.Sprintf("(%s)[1:%s]", sql, e.constant(c.limit))
	}
	if c.name == "ARRAY_CONCAT_AGG" {
		return value{sql: "flatten(" + sql + ")", typ: v.typ}
	}
	return value{sql: sql, typ: arrayOf(v.typ)}
}

func (e *printer) aggregateOrder(s *scope, c *call) string {
	if len(c.order) == 0 {
		return ""
	}
	keys := e.orderKeys(c.order, s, nil)
	if c.distinct && strings.Contains(keys, "isnan(") {
		refuse(c.position, "%s DISTINCT with ORDER BY FLOAT64", c.name)
	}
	return " ORDER BY " + keys
}

func (e *printer) stringAgg(s *scope, c *call) value {
	if c.having != "" || c.nulls != "" {
		refuse(c.position, "STRING_AGG with modifiers")
	}
	v := e.characters(s, c, 0)
	sep := "','"
	if len(c.args) == 2 {
		if !plain(c.args[1]) {
			reject(c.position, "Argument 2 to STRING_AGG must be a literal or query parameter")
		}
		sep = e.arg(s, c, 1, kindString)
	}
	d := ""
	if c.distinct {
		d = "DISTINCT "
	}
	if c.limit == nil {
		return typed(kindString, "%s", e.over(s, c, fmt.Sprintf("string_agg(%s%s, %s%s)", d, v, sep, e.aggregateOrder(s, c))))
	}
	list := e.over(s, c, fmt.Sprintf("list(%s%s%s) FILTER (WHERE %s IS NOT NULL)", d, v, e.aggregateOrder(s, c), v))
	return typed(kindString, "array_to_string((%s)[1:%s], %s)", list, e.constant(c.limit), sep)
}

// maxQuantiles bounds the second argument of APPROX_QUANTILES.
const maxQuantiles = 10000

// quantiles are exact ones, which are good approximations.
func (e *printer) quantiles(s *scope, c *call) value {
	e.onlyDistinct(c)
	v := e.orderable(c.position, e.known(s, c, 0))
	lit, ok := c.args[1].(*literal)
	n := 0
	if ok && lit.kind == kindInt64 {
		n, _ = strconv.Atoi(lit.text)
	}
	if n < 1 || n > maxQuantiles || c.over != nil {
		refuse(c.position, "function APPROX_QUANTILES of this form")
	}
	points := make([]string, n+1)
	for i := range points {
		points[i] = strconv.FormatFloat(float64(i)/float64(n), 'f', -1, 64)
	}
	return value{sql: fmt.Sprintf("quantile_disc(%s%s, [%s])", e.distinct(c), v.sql, strings.Join(points, ", ")), typ: arrayOf(v.typ)}
}

func (e *printer) deviation(s *scope, c *call) value {
	v := e.number(s, c, 0)
	if v.typ.kind == kindNumeric {
		refuse(c.position, "%s of NUMERIC", c.name)
	}
	name := map[string]string{"STDDEV": "stddev_samp", "VARIANCE": "var_samp"}[c.name]
	if name == "" {
		name = strings.ToLower(c.name)
	}
	return typed(kindFloat64, "%s", e.over(s, c, fmt.Sprintf("%s(%s%s)", name, e.distinct(c), e.coerce(c.position, v, typ{kind: kindFloat64}).sql)))
}

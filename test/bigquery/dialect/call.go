package dialect

import (
	"strings"
)

// call prints a function call. Each group of functions is a switch in a file
// of its own; what none knows is refused by name.
func (e *printer) call(s *scope, c *call) value {
	if c.safe {
		return e.safeCall(s, c)
	}
	if v, ok := e.aggregate(s, c); ok {
		return v
	}
	if v, ok := e.windowFunction(s, c); ok {
		return v
	}
	switch {
	case c.over != nil:
		refuse(c.position, "function %s with OVER", c.name)
	case c.distinct || c.star || c.nulls != "" || c.having != "" || len(c.order) > 0 || c.limit != nil:
		refuse(c.position, "function %s with aggregate modifiers", c.name)
	}
	groups := [...]func(*scope, *call) (value, bool){
		e.conditional, e.mathCall, e.stringCall, e.patternCall, e.bytesCall, e.timeCall, e.timeArithmetic, e.epochCall, e.formatCall, e.jsonCall, e.arrayCall,
	}
	for _, g := range groups {
		if v, ok := g(s, c); ok {
			return v
		}
	}
	refuse(c.position, "function %s", c.name)
	return value{}
}

// safeCall is SAFE.f(..): NULL where f fails on its arguments' values. What an
// argument itself fails on must still fail, so arguments must be plain.
func (e *printer) safeCall(s *scope, c *call) value {
	for _, a := range c.args {
		switch a.(type) {
		case *literal, *param, *path, *interval:
		default:
			refuse(c.position, "SAFE.%s of an argument that may fail itself", c.name)
		}
	}
	plain := *c
	plain.safe = false
	v := e.call(s, &plain)
	if strings.Contains(v.sql, "error(") { // TRY does not take what DuckDB holds for volatile
		refuse(c.position, "SAFE.%s", c.name)
	}
	return value{sql: "TRY(" + v.sql + ")", typ: v.typ}
}

// arity stops unless a call has between low and high arguments.
func arity(c *call, low, high int) {
	if len(c.args) < low || len(c.args) > high {
		reject(c.position, "Number of arguments does not match for function %s", c.name)
	}
}

// arg prints an argument coerced to kind k.
func (e *printer) arg(s *scope, c *call, i int, k kind) string {
	return e.coerce(c.args[i].pos(), e.known(s, c, i), typ{kind: k}).sql
}

// known prints an argument whose type must be known.
func (e *printer) known(s *scope, c *call, i int) value {
	v := e.expr(s, c.args[i])
	if v.typ.kind == kindUnknown {
		refuse(c.args[i].pos(), "function %s on an expression whose type is not known", c.name)
	}
	return v
}

func (e *printer) values(s *scope, c *call) []value {
	list := make([]value, len(c.args))
	for i := range c.args {
		list[i] = e.known(s, c, i)
	}
	return list
}

// literalText is an argument that must be a string literal to be translated.
func (e *printer) literalText(c *call, i int, what string) string {
	lit, ok := c.args[i].(*literal)
	if !ok || lit.kind != kindString || lit.typed {
		refuse(c.args[i].pos(), "%s of %s that is not a literal", what, c.name)
	}
	return lit.text
}

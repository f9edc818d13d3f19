package dialect

import (
	"fmt"
	"strconv"
	"strings"
)

func (e *printer) stringCall(s *scope, c *call) (value, bool) {
	switch c.name {
	case "CONCAT":
		arity(c, 1, 1000)
		return e.concat(c.position, e.values(s, c)), true
	case "LENGTH", "CHAR_LENGTH", "CHARACTER_LENGTH", "BYTE_LENGTH", "OCTET_LENGTH":
		arity(c, 1, 1)
		return e.length(s, c), true
	case "LOWER", "UPPER", "REVERSE":
		arity(c, 1, 1)
		return typed(kindString, "%s(%s)", strings.ToLower(c.name), e.characters(s, c, 0)), true
	case "TRIM", "LTRIM", "RTRIM":
		arity(c, 1, 2)
		return e.trim(s, c), true
	case "SUBSTR", "SUBSTRING":
		arity(c, 2, 3)
		return e.substring(s, c), true
	case "LEFT", "RIGHT":
		arity(c, 2, 2)
		n := e.arg(s, c, 1, kindInt64)
		return typed(kindString, "(CASE WHEN %s < 0 THEN %s ELSE %s(%s, %s) END)", n, e.fail("Second argument in "+c.name+"() cannot be negative"), strings.ToLower(c.name), e.characters(s, c, 0), n), true
	case "REPLACE":
		arity(c, 3, 3)
		from := e.arg(s, c, 1, kindString)
		return typed(kindString, "(CASE WHEN %s = '' THEN %s ELSE replace(%s, %s, %s) END)", from, e.characters(s, c, 0), e.characters(s, c, 0), from, e.arg(s, c, 2, kindString)), true
	case "REPEAT":
		arity(c, 2, 2)
		n := e.arg(s, c, 1, kindInt64)
		return typed(kindString, "(CASE WHEN %s < 0 THEN %s ELSE repeat(%s, %s) END)", n, e.fail("Second argument in REPEAT() cannot be negative"), e.characters(s, c, 0), n), true
	case "SPLIT":
		arity(c, 1, 2)
		sep := "','"
		if len(c.args) == 2 {
			sep = e.arg(s, c, 1, kindString)
		}
		return value{sql: fmt.Sprintf("string_split(%s, %s)", e.characters(s, c, 0), sep), typ: arrayOf(typ{kind: kindString})}, true
	case "STARTS_WITH":
		arity(c, 2, 2)
		return typed(kindBool, "starts_with(%s, %s)", e.characters(s, c, 0), e.arg(s, c, 1, kindString)), true
	case "ENDS_WITH":
		arity(c, 2, 2)
		return typed(kindBool, "suffix(%s, %s)", e.characters(s, c, 0), e.arg(s, c, 1, kindString)), true
	case "STRPOS", "INSTR":
		arity(c, 2, 2)
		return typed(kindInt64, "instr(%s, %s)", e.characters(s, c, 0), e.arg(s, c, 1, kindString)), true
	case "LPAD", "RPAD":
		arity(c, 2, 3)
		return e.pad(s, c), true
	case "ASCII", "UNICODE":
		arity(c, 1, 1)
		if c.name == "ASCII" {
			refuse(c.position, "function ASCII")
		}
		v := e.characters(s, c, 0)
		return typed(kindInt64, "(CASE WHEN %s = '' THEN 0 ELSE CAST(unicode(%s) AS BIGINT) END)", v, v), true
	case "GENERATE_UUID":
		arity(c, 0, 0)
		return typed(kindString, "CAST(uuid() AS VARCHAR)"), true
	}
	return value{}, false
}

// characters prints a STRING argument; the BYTES form of the function is refused.
func (e *printer) characters(s *scope, c *call, i int) string {
	v := e.known(s, c, i)
	if v.typ.kind == kindBytes {
		refuse(c.args[i].pos(), "function %s on BYTES", c.name)
	}
	return e.coerce(c.args[i].pos(), v, typ{kind: kindString}).sql
}

// concat is CONCAT and ||: NULL if any operand is. Numbers, dates and so on
// become text as by CAST.
func (e *printer) concat(at position, list []value) value {
	if len(list) > 0 && list[0].typ.kind == kindArray {
		return e.concatArrays(at, list)
	}
	isBytes := false
	for _, v := range list {
		isBytes = isBytes || v.typ.kind == kindBytes
	}
	parts := make([]string, len(list))
	for i, v := range list {
		switch {
		case isBytes:
			parts[i] = e.coerce(at, v, typ{kind: kindBytes}).sql
		default:
			parts[i] = e.convert(at, v, typ{kind: kindString}, false).sql
		}
	}
	k := kindString
	if isBytes {
		k = kindBytes
	}
	return typed(k, "(%s)", strings.Join(parts, " || "))
}

func (e *printer) length(s *scope, c *call) value {
	v := e.known(s, c, 0)
	if v.typ.kind == kindBytes {
		if strings.HasPrefix(c.name, "CHAR") {
			reject(c.position, "No matching signature for function %s for argument types: BYTES", c.name)
		}
		return typed(kindInt64, "octet_length(%s)", v.sql)
	}
	sql := e.coerce(c.position, v, typ{kind: kindString}).sql
	if c.name == "BYTE_LENGTH" || c.name == "OCTET_LENGTH" {
		return typed(kindInt64, "strlen(%s)", sql)
	}
	return typed(kindInt64, "length(%s)", sql)
}

// trim: without a second argument, all Unicode white space goes.
func (e *printer) trim(s *scope, c *call) value {
	v := e.characters(s, c, 0)
	if len(c.args) == 2 {
		return typed(kindString, "%s(%s, %s)", strings.ToLower(c.name), v, e.arg(s, c, 1, kindString))
	}
	const space = `[\s\x0b\x{85}\p{Z}]+`
	sql := v
	if c.name != "RTRIM" {
		sql = fmt.Sprintf("regexp_replace(%s, %s, '')", sql, quoteText("^"+space))
	}
	if c.name != "LTRIM" {
		sql = fmt.Sprintf("regexp_replace(%s, %s, '')", sql, quoteText(space+"$"))
	}
	return value{sql: sql, typ: typ{kind: kindString}}
}

// substring: position 0 is 1; one before the beginning is the beginning.
func (e *printer) substring(s *scope, c *call) value {
	v := e.known(s, c, 0)
	if v.typ.kind == kindBytes {
		return e.byteSubstring(s, c, v)
	}
	v = e.coerce(c.position, v, typ{kind: kindString})
	from := e.arg(s, c, 1, kindInt64)
	if lit, ok := c.args[1].(*literal); !ok || lit.kind != kindInt64 || strings.HasPrefix(lit.text, "-") || lit.text == "0" {
		from = fmt.Sprintf("CASE WHEN %s = 0 OR %s < -length(%s) THEN 1 ELSE %s END", from, from, v.sql, from)
	}
	if len(c.args) == 2 {
		return typed(kindString, "substr(%s, %s)", v.sql, from)
	}
	n := e.arg(s, c, 2, kindInt64)
	if lit, ok := c.args[2].(*literal); ok && !strings.HasPrefix(lit.text, "-") {
		return typed(kindString, "substr(%s, %s, %s)", v.sql, from, n)
	}
	return typed(kindString, "(CASE WHEN %s < 0 THEN %s ELSE substr(%s, %s, %s) END)", n, e.fail("Third argument in SUBSTR() cannot be negative"), v.sql, from, n)
}

func (e *printer) byteSubstring(_ *scope, c *call, v value) value {
	var n [2]int
	for i := 1; i < len(c.args); i++ {
		lit, ok := c.args[i].(*literal)
		var err error
		if ok {
			n[i-1], err = strconv.Atoi(lit.text)
		}
		if !ok || err != nil || n[i-1] < 2-i {
			refuse(c.position, "SUBSTR of BYTES at what is not a positive literal")
		}
	}
	if len(c.args) == 2 {
		return typed(kindBytes, "unhex(substr(hex(%s), %d))", v.sql, 2*n[0]-1)
	}
	return typed(kindBytes, "unhex(substr(hex(%s), %d, %d))", v.sql, 2*n[0]-1, 2*n[1])
}

func (e *printer) pad(s *scope, c *call) value {
	v, n, with := e.characters(s, c, 0), e.arg(s, c, 1, kindInt64), "' '"
	if len(c.args) == 3 {
		with = e.arg(s, c, 2, kindString)
	}
	return typed(kindString, "(CASE WHEN %s < 0 THEN %s WHEN %s = '' THEN %s ELSE %s(%s, CAST(%s AS INTEGER), %s) END)",
		n, e.fail("Second argument in "+c.name+"() cannot be negative"), with, e.fail("Third argument in "+c.name+"() cannot be empty"),
		strings.ToLower(c.name), v, n, with)
}

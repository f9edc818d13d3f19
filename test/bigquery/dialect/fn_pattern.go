package dialect

import (
	"fmt"
	"regexp/syntax"
)

// patternCall: both engines use RE2.
func (e *printer) patternCall(s *scope, c *call) (value, bool) {
	switch c.name {
	case "REGEXP_CONTAINS":
		arity(c, 2, 2)
		return typed(kindBool, "regexp_matches(%s, %s)", e.characters(s, c, 0), e.arg(s, c, 1, kindString)), true
	case "REGEXP_REPLACE":
		arity(c, 3, 3)
		return typed(kindString, "regexp_replace(%s, %s, %s, 'g')", e.characters(s, c, 0), e.arg(s, c, 1, kindString), e.arg(s, c, 2, kindString)), true
	case "REGEXP_EXTRACT", "REGEXP_SUBSTR":
		arity(c, 2, 2)
		v, p, group := e.characters(s, c, 0), e.arg(s, c, 1, kindString), e.group(c)
		return typed(kindString, "(CASE WHEN regexp_matches(%s, %s) THEN regexp_extract(%s, %s, %d) END)", v, p, v, p, group), true
	case "REGEXP_EXTRACT_ALL":
		arity(c, 2, 2)
		return value{sql: fmt.Sprintf("regexp_extract_all(%s, %s, %d)", e.characters(s, c, 0), e.arg(s, c, 1, kindString), e.group(c)), typ: arrayOf(typ{kind: kindString})}, true
	}
	return value{}, false
}

// group is 1 where the pattern has a capturing group, else 0.
func (e *printer) group(c *call) int {
	text := e.literalText(c, 1, "pattern")
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		reject(c.position, "Cannot parse regular expression: %v", err)
	}
	if n := re.MaxCap(); n > 1 {
		reject(c.position, "Regular expressions passed into extraction functions must not have more than 1 capturing group")
	}
	return re.MaxCap()
}

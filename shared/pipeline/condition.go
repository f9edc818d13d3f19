package pipeline

import (
	"fmt"
	"regexp"
	"strings"
)

// condition refuses SQL of Postgres that is not one condition: it becomes a part of
// statements that write, in parentheses, and has to stay within them.
func (r *reader) condition(at, sql string) {
	const remedy = "write one condition, such as country = 'US'"
	bare, ended := unquoted(sql)
	switch {
	case !ended:
		r.problem(at, "where has a quote or a comment that does not end", remedy)
	case strings.TrimSpace(bare) == "":
		r.problem(at, "where holds nothing", remedy)
	case strings.Contains(bare, ";"):
		r.problem(at, "where has a semicolon outside of quotes", remedy)
	case !balanced(bare):
		r.problem(at, fmt.Sprintf("where has parentheses that do not match: %s", sql), remedy)
	}
}

// balanced reports whether every parenthesis has its other half.
func balanced(sql string) bool {
	open := 0
	for _, c := range sql {
		switch c {
		case '(':
			open++
		case ')':
			if open--; open < 0 {
				return false
			}
		}
	}
	return open == 0
}

// quoting is where a token of Postgres begins in which nothing is SQL. (PostgreSQL:
// lexical structure.) A quote after E takes backslashes; one of dollars does not
// begin within a name.
var quoting = regexp.MustCompile(`(?i)(?:^|[^a-z0-9_$\x80-\x{10FFFF}])(e')|'|"|--|/\*|(?:^|[^a-z0-9_$\x80-\x{10FFFF}])(\$(?:[a-z_\x80-\x{10FFFF}][a-z0-9_\x80-\x{10FFFF}]*)?\$)`)

// unquoted is the SQL with 'q' in place of what is quoted and without comments, and
// whether each of them ended.
func unquoted(sql string) (string, bool) {
	var out strings.Builder
	for {
		at := quoting.FindStringSubmatchIndex(sql)
		if at == nil {
			out.WriteString(sql)
			return out.String(), true
		}
		from, to := at[0], at[1]
		for _, group := range []int{2, 4} { // without the character before it
			if at[group] >= 0 {
				from = at[group]
			}
		}
		out.WriteString(sql[:from])
		opening := sql[from:to]
		length, ok := closing(opening, sql[to:])
		if !ok {
			return "", false
		}
		if opening == "--" || opening == "/*" {
			out.WriteByte(' ')
		} else {
			out.WriteByte('q')
		}
		sql = sql[to+length:]
	}
}

// closing is the length of what follows the opening up to the end of its closing.
func closing(opening, rest string) (int, bool) {
	switch opening {
	case "--":
		return lineEnd(rest), true
	case "/*":
		return commentEnd(rest)
	case "'", `"`:
		return quoteEnd(rest, opening[0], false)
	case "e'", "E'":
		return quoteEnd(rest, '\'', true)
	}
	i := strings.Index(rest, opening)
	return i + len(opening), i >= 0
}

func lineEnd(rest string) int {
	if i := strings.IndexAny(rest, "\r\n"); i >= 0 {
		return i
	}
	return len(rest)
}

// commentEnd finds the end of a comment, in which others may be.
func commentEnd(rest string) (int, bool) {
	depth := 1
	for i := 0; i+1 < len(rest); i++ {
		switch rest[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			if depth--; depth == 0 {
				return i + 2, true
			}
			i++
		}
	}
	return 0, false
}

// quoteEnd finds the quote that is not doubled, nor escaped where backslashes escape.
func quoteEnd(rest string, quote byte, backslashes bool) (int, bool) {
	for i := 0; i < len(rest); i++ {
		switch {
		case backslashes && rest[i] == '\\':
			i++
		case rest[i] != quote:
		case i+1 < len(rest) && rest[i+1] == quote:
			i++
		default:
			return i + 1, true
		}
	}
	return 0, false
}

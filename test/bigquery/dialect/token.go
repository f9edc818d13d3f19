package dialect

import (
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEnd    tokenKind = iota
	tokWord             // identifier or keyword, unquoted
	tokQuoted           // identifier in backticks
	tokInt
	tokFloat
	tokString
	tokBytes
	tokParam // @name
	tokPunct
)

// token is one lexical element. text is the word, the decoded identifier or
// literal value, the number as written, the parameter's name or the operator.
type token struct {
	kind         tokenKind
	text         string
	start, end   int // byte offsets
	line, column int // from 1
}

func (t token) position() position { return position{line: t.line, column: t.column} }

type position struct{ line, column int }

// lexer follows https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical
type lexer struct {
	src          string
	at           int
	line         int
	lineStart    int
	tokens       []token
	failed       bool
	failedAt     position
	failedReason string
}

func tokenize(src string) ([]token, error) {
	l := &lexer{src: src, line: 1}
	for l.next() {
	}
	if l.failed {
		return nil, &SyntaxError{Message: l.failedReason, Line: l.failedAt.line, Column: l.failedAt.column}
	}
	return l.tokens, nil
}

func (l *lexer) fail(reason string) bool {
	l.failed, l.failedReason, l.failedAt = true, reason, l.here()
	return false
}

func (l *lexer) here() position {
	column := utf8.RuneCountInString(l.src[l.lineStart:min(l.at, len(l.src))]) + 1
	return position{line: l.line, column: column}
}

func (l *lexer) add(kind tokenKind, text string, end int) bool {
	p := l.here()
	l.tokens = append(l.tokens, token{kind: kind, text: text, start: l.at, end: end, line: p.line, column: p.column})
	l.advance(end)
	return true
}

// advance moves to end, counting lines.
func (l *lexer) advance(end int) {
	for i := l.at; i < end; i++ {
		if l.src[i] == '\n' {
			l.line++
			l.lineStart = i + 1
		}
	}
	l.at = end
}

func (l *lexer) next() bool {
	if !l.skipSpace() {
		return false
	}
	if l.at >= len(l.src) {
		l.add(tokEnd, "", l.at)
		return false
	}
	c := l.src[l.at]
	switch {
	case c == '`':
		return l.backticks()
	case c == '\'' || c == '"':
		return l.literal(l.at, false, false)
	case isLetter(c):
		return l.wordOrLiteral()
	case isDigit(c), c == '.' && l.at+1 < len(l.src) && isDigit(l.src[l.at+1]) && !l.afterPath():
		return l.number()
	case c == '@':
		return l.parameter()
	}
	return l.punct()
}

// afterPath says whether a dot continues a path (t.1 is not valid anyway).
func (l *lexer) afterPath() bool {
	if len(l.tokens) == 0 {
		return false
	}
	last := l.tokens[len(l.tokens)-1]
	return last.end == l.at && (last.kind == tokWord || last.kind == tokQuoted || last.text == "]" || last.text == ")")
}

func (l *lexer) skipSpace() bool {
	for l.at < len(l.src) {
		rest := l.src[l.at:]
		switch {
		case strings.IndexByte(" \t\r\n\f\v", rest[0]) >= 0:
			l.advance(l.at + 1)
		case rest[0] == '#', strings.HasPrefix(rest, "--"):
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest)
			}
			l.advance(l.at + end)
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				return l.fail("Syntax error: Unclosed comment")
			}
			l.advance(l.at + end + 4)
		case strings.HasPrefix(rest, "\u00a0"):
			l.advance(l.at + len("\u00a0"))
		default:
			return true
		}
	}
	return true
}

func isLetter(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func (l *lexer) backticks() bool {
	end := l.at + 1
	for end < len(l.src) && l.src[end] != '`' {
		if l.src[end] == '\n' {
			return l.fail("Syntax error: Unclosed identifier literal")
		}
		if l.src[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(l.src) {
		return l.fail("Syntax error: Unclosed identifier literal")
	}
	raw := l.src[l.at+1 : end]
	text, ok := unescape(raw, false)
	if !ok || text == "" {
		return l.fail("Syntax error: Invalid identifier literal")
	}
	return l.add(tokQuoted, text, end+1)
}

func (l *lexer) wordOrLiteral() bool {
	end := l.at
	for end < len(l.src) && (isLetter(l.src[end]) || isDigit(l.src[end])) {
		end++
	}
	word := l.src[l.at:end]
	if end < len(l.src) && (l.src[end] == '\'' || l.src[end] == '"') {
		switch strings.ToLower(word) {
		case "r":
			return l.literal(end, true, false)
		case "b":
			return l.literal(end, false, true)
		case "rb", "br":
			return l.literal(end, true, true)
		}
	}
	return l.add(tokWord, word, end)
}

// literal reads a string or bytes literal whose quote stands at quote.
func (l *lexer) literal(quote int, raw, isBytes bool) bool {
	mark := l.src[quote : quote+1]
	triple := strings.HasPrefix(l.src[quote:], strings.Repeat(mark, 3))
	if triple {
		mark = strings.Repeat(mark, 3)
	}
	start := quote + len(mark)
	i := start
	for {
		if i >= len(l.src) || !triple && l.src[i] == '\n' {
			return l.fail("Syntax error: Unclosed string literal")
		}
		if l.src[i] == '\\' {
			i += 2
			continue
		}
		if strings.HasPrefix(l.src[i:], mark) {
			break
		}
		i++
	}
	body := l.src[start:i]
	body = strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\r", "\n")
	if !raw {
		decoded, ok := unescape(body, isBytes)
		if !ok {
			return l.fail("Syntax error: Illegal escape sequence in literal")
		}
		body = decoded
	}
	kind := tokString
	if isBytes {
		kind = tokBytes
	} else if !utf8.ValidString(body) {
		return l.fail("Syntax error: string literal is not valid UTF-8")
	}
	return l.add(kind, body, i+len(mark))
}

func (l *lexer) number() bool {
	rest := l.src[l.at:]
	if len(rest) > 2 && rest[0] == '0' && rest[1]|0x20 == 'x' && isHex(rest[2]) {
		end := 2
		for end < len(rest) && isHex(rest[end]) {
			end++
		}
		return l.add(tokInt, rest[:end], l.at+end)
	}
	end, float := 0, false
	for end < len(rest) && isDigit(rest[end]) {
		end++
	}
	if end < len(rest) && rest[end] == '.' && !startsName(rest[end+1:]) {
		float = true
		end++
		for end < len(rest) && isDigit(rest[end]) {
			end++
		}
	}
	if n := exponent(rest[end:]); n > 0 {
		float = true
		end += n
	}
	if end < len(rest) && isLetter(rest[end]) && (float || !l.afterDash()) {
		return l.fail("Syntax error: Missing whitespace between literal and alias")
	}
	if float {
		return l.add(tokFloat, rest[:end], l.at+end)
	}
	return l.add(tokInt, rest[:end], l.at+end)
}

// startsName says whether a dot before s belongs to a path (my-project-1.d.t)
// rather than to a number (1.e5).
func startsName(s string) bool {
	return s != "" && (isLetter(s[0]) || s[0] == '`') && exponent(s) == 0
}

// afterDash says whether the text so far may be a project name such as my-1.
func (l *lexer) afterDash() bool {
	n := len(l.tokens)
	return n > 1 && l.tokens[n-1].is("-") && l.tokens[n-1].end == l.at && l.tokens[n-2].end == l.tokens[n-1].start
}

func exponent(s string) int {
	if s == "" || s[0]|0x20 != 'e' {
		return 0
	}
	n := 1
	if n < len(s) && (s[n] == '+' || s[n] == '-') {
		n++
	}
	digits := n
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	if n == digits {
		return 0
	}
	return n
}

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func (l *lexer) parameter() bool {
	if strings.HasPrefix(l.src[l.at:], "@@") {
		return l.add(tokPunct, "@@", l.at+2)
	}
	end := l.at + 1
	if end < len(l.src) && l.src[end] == '{' {
		return l.add(tokPunct, "@{", end+1)
	}
	if end < len(l.src) && l.src[end] == '`' {
		length := strings.IndexByte(l.src[end+1:], '`')
		if length < 0 {
			return l.fail("Syntax error: Unclosed identifier literal")
		}
		return l.add(tokParam, l.src[end+1:end+1+length], end+length+2)
	}
	for end < len(l.src) && (isLetter(l.src[end]) || isDigit(l.src[end])) {
		end++
	}
	if end == l.at+1 {
		return l.fail("Syntax error: Unexpected \"@\"")
	}
	return l.add(tokParam, l.src[l.at+1:end], end)
}

func (l *lexer) punct() bool {
	for _, op := range [...]string{"<<", ">>", "<=", ">=", "<>", "!=", "||", "|>", "=>", "->"} {
		if strings.HasPrefix(l.src[l.at:], op) {
			return l.add(tokPunct, op, l.at+len(op))
		}
	}
	if strings.IndexByte("()[]{},.;:?+-*/%=<>&|^~!$", l.src[l.at]) < 0 {
		return l.fail("Syntax error: Illegal input character")
	}
	return l.add(tokPunct, l.src[l.at:l.at+1], l.at+1)
}

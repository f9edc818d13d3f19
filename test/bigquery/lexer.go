package bigquery

import "strings"

type tokenKind int

const (
	tokenWord   tokenKind = iota // an unquoted identifier or keyword
	tokenQuoted                  // `identifier`, text without the backticks
	tokenString                  // a string or bytes literal, text with its quotes
	tokenNumber
	tokenParameter // @name or ?
	tokenSymbol
)

type token struct {
	kind       tokenKind
	text       string
	start, end int // in the statement
}

// is compares a keyword or symbol.
func (t token) is(text string) bool {
	return (t.kind == tokenWord || t.kind == tokenSymbol) && strings.EqualFold(t.text, text)
}

func (t token) isName() bool { return t.kind == tokenWord || t.kind == tokenQuoted }

// scanSQL splits GoogleSQL into tokens, without comments. It serves what needs
// no grammar: which statement it is, which tables it names, which constants
// bound a partition.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical
func scanSQL(sql string) ([]token, error) {
	var out []token
	for i := 0; i < len(sql); {
		start := i
		kind, end := scanToken(sql, i)
		if end < 0 {
			return nil, errInvalidQuery("Syntax error: Unclosed literal or comment starting at byte %d", i)
		}
		i = end
		if kind < 0 {
			continue // white space or a comment
		}
		text := sql[start:end]
		if kind == tokenQuoted {
			text = text[1 : len(text)-1]
		}
		out = append(out, token{kind, text, start, end})
	}
	return out, nil
}

const tokenBlank tokenKind = -1

func scanToken(sql string, i int) (tokenKind, int) {
	c := sql[i]
	rest := sql[i:]
	switch {
	case strings.IndexByte(" \t\r\n", c) >= 0:
		return tokenBlank, i + 1
	case c == '#' || strings.HasPrefix(rest, "--"):
		if end := strings.IndexByte(rest, '\n'); end >= 0 {
			return tokenBlank, i + end
		}
		return tokenBlank, len(sql)
	case strings.HasPrefix(rest, "/*"):
		if end := strings.Index(rest[2:], "*/"); end >= 0 {
			return tokenBlank, i + end + 4
		}
		return tokenBlank, -1
	case c == '`':
		return tokenQuoted, closing(sql, i+1, "`")
	case c == '?':
		return tokenParameter, i + 1
	case c == '@':
		return tokenParameter, wordEnd(sql, i+1)
	case c >= '0' && c <= '9' || c == '.' && i+1 < len(sql) && sql[i+1] >= '0' && sql[i+1] <= '9':
		return tokenNumber, numberEnd(sql, i)
	}
	if end, ok := literalEnd(sql, i); ok {
		return tokenString, end
	}
	if isWordByte(c) {
		return tokenWord, wordEnd(sql, i)
	}
	return tokenSymbol, i + symbolLength(rest)
}

func symbolLength(rest string) int {
	for _, s := range []string{"<=", ">=", "!=", "<>", "||", "=>"} {
		if strings.HasPrefix(rest, s) {
			return len(s)
		}
	}
	return 1
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func wordEnd(sql string, i int) int {
	for i < len(sql) && isWordByte(sql[i]) {
		i++
	}
	return i
}

func numberEnd(sql string, i int) int {
	for i < len(sql) && (isWordByte(sql[i]) || sql[i] == '.' || (sql[i] == '-' || sql[i] == '+') && strings.ContainsRune("eE", rune(sql[i-1]))) {
		i++
	}
	return i
}

// literalEnd finds the end of a string or bytes literal with its prefix.
func literalEnd(sql string, i int) (int, bool) {
	j := i
	for j < len(sql) && j-i < 2 && strings.IndexByte("rRbB", sql[j]) >= 0 {
		j++
	}
	if j >= len(sql) || sql[j] != '\'' && sql[j] != '"' {
		return 0, false
	}
	quote := sql[j : j+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(sql[j:], triple) {
		quote = triple
	}
	return closing(sql, j+len(quote), quote), true
}

// closing finds the end of what ends with quote; a backslash takes the byte
// behind it along, in raw literals too.
func closing(sql string, i int, quote string) int {
	for i < len(sql) {
		switch {
		case sql[i] == '\\':
			i += 2
		case strings.HasPrefix(sql[i:], quote):
			return i + len(quote)
		default:
			i++
		}
	}
	return -1
}

// namePath reads a dotted name at tokens[i]: its parts, split at dots within
// backticks too, and the index after it. Dashes join words of a project.
func namePath(tokens []token, i int) (parts []string, next int) {
	if i >= len(tokens) || !tokens[i].isName() {
		return nil, i
	}
	var text strings.Builder
	for {
		text.WriteString(tokens[i].text)
		i++
		joined := i+1 < len(tokens) && tokens[i].start == tokens[i-1].end && tokens[i+1].start == tokens[i].end
		switch {
		case joined && tokens[i].is("-") && tokens[i-1].kind == tokenWord && (tokens[i+1].kind == tokenWord || tokens[i+1].kind == tokenNumber):
		case i+1 < len(tokens) && tokens[i].is(".") && tokens[i+1].isName():
		default:
			return strings.Split(text.String(), "."), i
		}
		text.WriteString(tokens[i].text)
		i++
	}
}

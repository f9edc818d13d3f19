package catalog

import (
	"strings"
	"unicode/utf8"
)

// Postgres tells from which table a column comes, not from which of its rows: in
// SELECT a.id, b.at FROM t a JOIN t b both come from t. Two rows of a table can
// meet in a query only where its text names the table twice, or twice a common
// table expression that does. That is looked for here, leaning to the safe side: a
// column or an alias of the same name counts too.

// identifierBytes is where Postgres cuts names (NAMEDATALEN - 1).
const identifierBytes = 63

// word is an identifier, a keyword or a single other character of a query.
type word struct {
	text   string // as Postgres folds it
	name   bool   // an identifier or a keyword
	quoted bool
	any    bool // U&"..": what it names is not worked out
}

func (w word) is(text string) bool { return w.text == text && !w.quoted }

func (w word) names(relation string) bool {
	return w.name && (w.any || w.text == relation || len(w.text) > identifierBytes && strings.HasPrefix(w.text, relation))
}

// repeated returns the name through which the query may reach two rows of the
// relation: its own, or that of a common table expression; "" if there is none.
func repeated(query, relation string) string {
	words := split(query)
	if mentions(words, relation) > 1 {
		return relation
	}
	for i := range words {
		if name := defined(words, i); name != "" && mentions(words, name) > 2 { // its definition is one
			return name
		}
	}
	return ""
}

// mentions counts where a name may stand for a relation: not before a dot.
func mentions(words []word, name string) int {
	n := 0
	for i, w := range words {
		if w.names(name) && (i+1 == len(words) || !words[i+1].is(".")) {
			n++
		}
	}
	return n
}

// defined is the name that the words up to AS at i give to a common table
// expression: name [(columns)] AS [[NOT] MATERIALIZED] ( ... Windows look alike.
func defined(words []word, i int) string {
	next := i + 1
	for next < len(words) && (words[next].is("not") || words[next].is("materialized")) {
		next++
	}
	if !words[i].is("as") || next == len(words) || !words[next].is("(") {
		return ""
	}
	before := i - 1
	if before >= 0 && words[before].is(")") {
		for before >= 0 && !words[before].is("(") {
			before--
		}
		before--
	}
	if before < 0 || !words[before].name {
		return ""
	}
	return words[before].text
}

// split takes comments, strings and numbers out of a query (PostgreSQL manual, 4.1).
func split(query string) []word {
	var words []word
	for query != "" {
		if rest, ok := skip(query); ok {
			query = rest
			continue
		}
		w, length := first(query)
		if len(words) > 1 && w.quoted && words[len(words)-1].is("&") && words[len(words)-2].is("u") {
			w.any = true
		}
		if w.text != "" {
			words = append(words, w)
		}
		query = query[length:]
	}
	return words
}

// skip returns what follows a comment or a string that the query begins with.
func skip(query string) (string, bool) {
	switch {
	case strings.HasPrefix(query, "--"):
		_, rest, _ := strings.Cut(query, "\n")
		return rest, true
	case strings.HasPrefix(query, "/*"):
		return afterComment(query), true
	case query[0] == '\'':
		return afterString(query[1:], false), true
	case len(query) > 1 && (query[0] == 'e' || query[0] == 'E') && query[1] == '\'':
		return afterString(query[2:], true), true
	case query[0] == '$':
		return afterDollar(query)
	}
	return query, false
}

func afterComment(query string) string {
	depth := 0
	for query != "" {
		switch {
		case strings.HasPrefix(query, "/*"):
			depth, query = depth+1, query[2:]
		case strings.HasPrefix(query, "*/"):
			depth, query = depth-1, query[2:]
			if depth == 0 {
				return query
			}
		default:
			query = query[1:]
		}
	}
	return ""
}

func afterString(query string, escapes bool) string {
	for i := 0; i < len(query); i++ {
		if query[i] == '\\' && escapes {
			i++
		} else if query[i] == '\'' {
			return query[i+1:] // a doubled quote begins another string
		}
	}
	return ""
}

// afterDollar skips $tag$..$tag$; a dollar sign before a digit is a parameter.
func afterDollar(query string) (string, bool) {
	tag, rest, ok := strings.Cut(query[1:], "$")
	for i := range len(tag) {
		ok = ok && (letter(tag[i]) || i > 0 && digit(tag[i]))
	}
	if !ok {
		return query, false
	}
	_, rest, _ = strings.Cut(rest, "$"+tag+"$")
	return rest, true
}

// first is the word that the query begins with, and its length there.
func first(query string) (word, int) {
	if query[0] == '"' {
		end := 1
		for end < len(query) && (query[end] != '"' || strings.HasPrefix(query[end:], `""`)) {
			if query[end] == '"' {
				end++
			}
			end++
		}
		return word{text: strings.ReplaceAll(query[1:min(end, len(query))], `""`, `"`), name: true, quoted: true}, min(end+1, len(query))
	}
	end := 0
	for end < len(query) && (letter(query[end]) || digit(query[end]) || end > 0 && query[end] == '$') {
		end++
	}
	if end > 0 {
		return word{text: folded(query[:end]), name: letter(query[0])}, end
	}
	if strings.ContainsRune(" \t\r\n\f\v", rune(query[0])) {
		return word{}, 1
	}
	return word{text: query[:1]}, 1
}

// folded is how Postgres reads a name without quotes: ASCII letters become small.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
}

func letter(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_' || b >= utf8.RuneSelf
}

func digit(b byte) bool { return b >= '0' && b <= '9' }

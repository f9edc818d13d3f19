package dialect

import "strings"

// parser is a recursive-descent parser over the tokens of one statement. It
// stops with refuse (known to GoogleSQL, not to us) or reject (not GoogleSQL).
type parser struct {
	src    string
	tokens []token
	at     int
	depth  int
}

// maxDepth bounds nesting, so that no input exhausts the stack.
const maxDepth = 400

func newParser(sql string) (*parser, error) {
	tokens, err := tokenize(sql)
	if err != nil {
		return nil, err
	}
	return &parser{src: sql, tokens: tokens}, nil
}

func (p *parser) enter() {
	p.depth++
	if p.depth > maxDepth {
		refuse(p.peek().position(), "nesting deeper than %d", maxDepth)
	}
}

func (p *parser) leave() { p.depth-- }

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) peekAt(n int) token {
	if p.at+n >= len(p.tokens) {
		return p.tokens[len(p.tokens)-1]
	}
	return p.tokens[p.at+n]
}

func (p *parser) take() token {
	t := p.tokens[p.at]
	if p.at < len(p.tokens)-1 {
		p.at++
	}
	return t
}

func (p *parser) unexpected() {
	t := p.peek()
	switch t.kind {
	case tokEnd:
		reject(t.position(), "Syntax error: Unexpected end of statement")
	case tokString, tokBytes:
		reject(t.position(), "Syntax error: Unexpected string literal")
	default:
		reject(t.position(), "Syntax error: Unexpected %q", t.text)
	}
}

// is says whether the next tokens are these keywords or operators.
func (p *parser) is(words ...string) bool {
	for i, w := range words {
		if !p.peekAt(i).is(w) {
			return false
		}
	}
	return true
}

func (t token) is(w string) bool {
	switch t.kind {
	case tokWord:
		return strings.EqualFold(t.text, w)
	case tokPunct:
		return t.text == w
	}
	return false
}

// accept takes the given tokens if they come next.
func (p *parser) accept(words ...string) bool {
	if !p.is(words...) {
		return false
	}
	for range words {
		p.take()
	}
	return true
}

func (p *parser) expect(words ...string) position {
	at := p.peek().position()
	if !p.accept(words...) {
		p.unexpected()
	}
	return at
}

// reserved lists GoogleSQL's reserved keywords: they are no names unquoted.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical#reserved_keywords
const reservedWords = " ALL AND ANY ARRAY AS ASC ASSERT_ROWS_MODIFIED AT BETWEEN BY CASE CAST COLLATE CONTAINS CREATE CROSS CUBE CURRENT DEFAULT DEFINE DESC DISTINCT ELSE END ENUM ESCAPE EXCEPT EXCLUDE EXISTS EXTRACT FALSE FETCH FOLLOWING FOR FROM FULL GROUP GROUPING GROUPS HASH HAVING IF IGNORE IN INNER INTERSECT INTERVAL INTO IS JOIN LATERAL LEFT LIKE LIMIT LOOKUP MERGE NATURAL NEW NO NOT NULL NULLS OF ON OR ORDER OUTER OVER PARTITION PRECEDING PROTO QUALIFY RANGE RECURSIVE RESPECT RIGHT ROLLUP ROWS SELECT SET SOME STRUCT TABLESAMPLE THEN TO TREAT TRUE UNBOUNDED UNION UNNEST USING WHEN WHERE WINDOW WITH WITHIN "

func reservedWord(s string) bool {
	return strings.Contains(reservedWords, " "+strings.ToUpper(s)+" ")
}

// name says whether the next token can be an identifier.
func (t token) name() bool {
	return t.kind == tokQuoted || t.kind == tokWord && !reservedWord(t.text)
}

func (p *parser) identifier() string {
	if !p.peek().name() {
		p.unexpected()
	}
	return p.take().text
}

// pathPart reads what may follow a dot, where reserved words are names too.
func (p *parser) pathPart() string {
	t := p.peek()
	if t.kind != tokWord && t.kind != tokQuoted {
		p.unexpected()
	}
	return p.take().text
}

// alias reads [AS] name, where there is one.
func (p *parser) alias() string {
	if p.accept("AS") {
		return p.identifier()
	}
	if p.peek().name() && !p.startsTableOperator() {
		return p.take().text
	}
	return ""
}

func (p *parser) startsTableOperator() bool {
	return p.is("PIVOT", "(") || p.is("UNPIVOT", "(") || p.is("UNPIVOT", "INCLUDE") || p.is("UNPIVOT", "EXCLUDE") || p.is("MATCH_RECOGNIZE", "(")
}

// typeName reads a type. params says that it carried parameters.
func (p *parser) typeName() (t typ, params bool) {
	p.enter()
	defer p.leave()
	start := p.peek()
	switch {
	case p.accept("ARRAY"):
		p.expect("<")
		elem, _ := p.typeName()
		p.closeType()
		return arrayOf(elem), false
	case p.accept("STRUCT"):
		return p.structType(), false
	}
	if !start.name() && !start.is("INTERVAL") {
		p.unexpected()
	}
	name := p.take().text
	k, ok := scalarKind(name)
	if !ok {
		refuse(start.position(), "type %s", strings.ToUpper(name))
	}
	if p.accept("(") {
		params = true
		for !p.accept(")") {
			if p.peek().kind == tokEnd {
				p.unexpected()
			}
			p.take()
		}
	}
	if p.is("COLLATE") {
		refuse(p.peek().position(), "COLLATE")
	}
	return typ{kind: k}, params
}

// closeType takes one '>' even out of '>>'.
func (p *parser) closeType() {
	t := p.peek()
	if t.kind == tokPunct && t.text == ">>" {
		p.tokens[p.at].text = ">"
		p.tokens[p.at].start++
		p.tokens[p.at].column++
		return
	}
	p.expect(">")
}

func (p *parser) structType() typ {
	p.expect("<")
	t := typ{kind: kindStruct}
	for !p.is(">") && !p.is(">>") {
		f := field{}
		if p.peek().name() && !p.peekAt(1).is(",") && !p.peekAt(1).is(">") && !p.peekAt(1).is(">>") && !p.peekAt(1).is("(") && !p.peekAt(1).is("<") {
			f.name = p.take().text
		}
		f.typ, _ = p.typeName()
		t.fields = append(t.fields, f)
		if !p.accept(",") {
			break
		}
	}
	p.closeType()
	return t
}

// parseType reads the GoogleSQL type text of a schema.
func parseType(text string) (t typ, err error) {
	defer recovered(&err)
	p, err := newParser(text)
	if err != nil {
		return typ{}, err
	}
	t, _ = p.typeName()
	if p.peek().kind != tokEnd {
		p.unexpected()
	}
	return t, nil
}

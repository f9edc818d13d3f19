package dialect

import "strings"

// expression parses with GoogleSQL's precedence, lowest first.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/operators#operator_precedence
func (p *parser) expression() expr {
	p.enter()
	defer p.leave()
	left := p.conjunction()
	for p.is("OR") {
		at := p.expect("OR")
		left = &binary{at, "OR", left, p.conjunction()}
	}
	return left
}

func (p *parser) conjunction() expr {
	left := p.negation()
	for p.is("AND") {
		at := p.expect("AND")
		left = &binary{at, "AND", left, p.negation()}
	}
	return left
}

func (p *parser) negation() expr {
	if p.is("NOT") {
		p.enter()
		defer p.leave()
		at := p.expect("NOT")
		return &unary{at, "NOT", p.negation()}
	}
	return p.comparison()
}

func (p *parser) comparison() expr {
	left := p.bitwise(0)
	for {
		next, ok := p.comparisonTail(left)
		if !ok {
			return left
		}
		left = next
	}
}

func (p *parser) comparisonTail(left expr) (expr, bool) {
	t := p.peek()
	at := t.position()
	if t.kind == tokPunct {
		switch t.text {
		case "=", "<", ">", "<=", ">=", "!=", "<>":
			p.take()
			op := t.text
			if op == "!=" {
				op = "<>"
			}
			return &binary{at, op, left, p.bitwise(0)}, true
		}
		return nil, false
	}
	if p.accept("IS") {
		return p.isTail(at, left), true
	}
	not := p.is("NOT") && (p.peekAt(1).is("IN") || p.peekAt(1).is("LIKE") || p.peekAt(1).is("BETWEEN"))
	if not {
		p.take()
	}
	switch {
	case p.accept("IN"):
		return p.inTail(at, left, not), true
	case p.accept("LIKE"):
		if p.is("ANY") || p.is("ALL") || p.is("SOME") {
			refuse(at, "LIKE %s", strings.ToUpper(p.peek().text))
		}
		return &like{at, left, p.bitwise(0), not}, true
	case p.accept("BETWEEN"):
		lo := p.bitwise(0)
		p.expect("AND")
		return &between{at, left, lo, p.bitwise(0), not}, true
	}
	return nil, false
}

func (p *parser) isTail(at position, left expr) expr {
	not := p.accept("NOT")
	for _, w := range [...]string{"NULL", "TRUE", "FALSE"} {
		if p.accept(w) {
			return &isTest{at, left, not, w}
		}
	}
	if p.accept("DISTINCT", "FROM") {
		return &isDistinct{at, left, p.bitwise(0), not}
	}
	p.unexpected()
	return nil
}

func (p *parser) inTail(at position, left expr, not bool) expr {
	if p.accept("UNNEST") {
		p.expect("(")
		array := p.expression()
		p.expect(")")
		return &in{position: at, x: left, array: array, not: not}
	}
	p.expect("(")
	if p.startsQuery() {
		q := p.query()
		p.expect(")")
		return &in{position: at, x: left, query: q, not: not}
	}
	list := p.expressions(")")
	p.expect(")")
	return &in{position: at, x: left, list: list, not: not}
}

func (p *parser) expressions(closing string) []expr {
	var list []expr
	if p.is(closing) {
		return nil
	}
	for {
		list = append(list, p.expression())
		if !p.accept(",") {
			return list
		}
	}
}

// bitwise parses | ^ & << and >>, + and -, * / and ||, by level.
func (p *parser) bitwise(level int) expr {
	operators := [...][]string{{"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "||"}}
	if level == len(operators) {
		return p.unaryTerm()
	}
	left := p.bitwise(level + 1)
	for {
		t := p.peek()
		if t.kind != tokPunct || !contains(operators[level], t.text) {
			return left
		}
		p.take()
		left = &binary{t.position(), t.text, left, p.bitwise(level + 1)}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (p *parser) unaryTerm() expr {
	t := p.peek()
	if t.kind == tokPunct && (t.text == "-" || t.text == "+" || t.text == "~") {
		p.enter()
		defer p.leave()
		p.take()
		x := p.unaryTerm()
		if lit, ok := x.(*literal); ok && t.text == "-" && !lit.typed && (lit.kind == kindInt64 || lit.kind == kindFloat64) && !strings.HasPrefix(lit.text, "-") {
			return &literal{position: t.position(), kind: lit.kind, text: "-" + lit.text}
		}
		return &unary{t.position(), t.text, x}
	}
	return p.postfix(p.primary())
}

func (p *parser) postfix(x expr) expr {
	for {
		t := p.peek()
		switch {
		case p.is(".") && p.peekAt(1).is("*"):
			return x // t.* of a select list
		case p.accept("."):
			if p.is("(") {
				refuse(t.position(), "field access by parenthesis")
			}
			name := p.pathPart()
			if px, ok := x.(*path); ok {
				x = &path{px.position, append(append([]string{}, px.parts...), name)}
				continue
			}
			x = &fieldAccess{t.position(), x, name}
		case p.accept("["):
			x = p.indexTail(t.position(), x)
		default:
			return x
		}
	}
}

func (p *parser) indexTail(at position, of expr) expr {
	how := ""
	for _, w := range [...]string{"OFFSET", "ORDINAL", "SAFE_OFFSET", "SAFE_ORDINAL"} {
		if p.is(w, "(") {
			how = w
			p.take()
			p.take()
			break
		}
	}
	x := p.expression()
	if how != "" {
		p.expect(")")
	}
	p.expect("]")
	return &index{at, of, x, how}
}

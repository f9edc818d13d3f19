package dialect

import "strings"

func (p *parser) primary() expr {
	t := p.peek()
	at := t.position()
	switch t.kind {
	case tokInt:
		p.take()
		return &literal{position: at, kind: kindInt64, text: t.text}
	case tokFloat:
		p.take()
		return &literal{position: at, kind: kindFloat64, text: t.text}
	case tokString:
		return &literal{position: at, kind: kindString, text: p.joinedText(tokString)}
	case tokBytes:
		return &literal{position: at, kind: kindBytes, text: p.joinedText(tokBytes)}
	case tokParam:
		p.take()
		return &param{at, t.text}
	case tokQuoted:
		p.take()
		return p.afterName(at, []string{t.text})
	case tokWord:
		return p.word(t)
	}
	switch {
	case t.is("("):
		return p.parenthesis()
	case t.is("["):
		return p.arrayLiteral(at, nil)
	case t.is("?"):
		refuse(at, "positional parameter")
	case t.is("@@"):
		refuse(at, "system variable")
	}
	p.unexpected()
	return nil
}

// joinedText takes a literal and those that follow it: GoogleSQL joins them.
func (p *parser) joinedText(k tokenKind) string {
	text := p.take().text
	for p.peek().kind == k {
		text += p.take().text
	}
	return text
}

func (p *parser) word(t token) expr {
	at := t.position()
	switch strings.ToUpper(t.text) {
	case "NULL":
		p.take()
		return &literal{position: at, kind: kindNull}
	case "TRUE", "FALSE":
		p.take()
		return &literal{position: at, kind: kindBool, text: strings.ToUpper(t.text)}
	case "CASE":
		return p.caseExpression()
	case "CAST":
		return p.castExpression(false)
	case "SAFE_CAST":
		if p.peekAt(1).is("(") {
			return p.castExpression(true)
		}
	case "EXTRACT":
		return p.extractExpression()
	case "INTERVAL":
		return p.intervalExpression()
	case "EXISTS":
		p.take()
		p.expect("(")
		q := p.query()
		p.expect(")")
		return &exists{at, q}
	case "ARRAY":
		return p.arrayExpression()
	case "STRUCT":
		return p.structExpression()
	case "IF":
		p.take()
		return p.callTail(at, "IF", false)
	case "DEFAULT":
		p.take()
		return &defaultValue{at}
	case "DATE", "DATETIME", "TIMESTAMP", "TIME", "NUMERIC", "DECIMAL", "BIGNUMERIC", "BIGDECIMAL", "JSON":
		if p.peekAt(1).kind == tokString {
			p.take()
			k, _ := scalarKind(t.text)
			return &literal{position: at, kind: k, text: p.joinedText(tokString), typed: true}
		}
	case "RANGE":
		refuse(at, "RANGE")
	case "LEFT", "RIGHT":
		if p.peekAt(1).is("(") {
			p.take()
			return p.callTail(at, strings.ToUpper(t.text), false)
		}
	}
	if reservedWord(t.text) && !t.is("GROUPING") {
		p.unexpected()
	}
	p.take()
	return p.afterName(at, []string{t.text})
}

// afterName reads the rest of a dotted path, or a call of the function it names.
func (p *parser) afterName(at position, parts []string) expr {
	for p.is(".") && (p.peekAt(1).kind == tokWord || p.peekAt(1).kind == tokQuoted) {
		p.take()
		parts = append(parts, p.take().text)
	}
	if !p.is("(") {
		return &path{at, parts}
	}
	safe := len(parts) > 1 && strings.EqualFold(parts[0], "SAFE")
	if safe {
		parts = parts[1:]
	}
	return p.callTail(at, strings.ToUpper(strings.Join(parts, ".")), safe)
}

func (p *parser) callTail(at position, name string, safe bool) expr {
	c := &call{position: at, name: name, safe: safe}
	p.expect("(")
	p.callArguments(c)
	p.expect(")")
	if p.accept("OVER") {
		c.over = p.overClause()
	}
	return c
}

func (p *parser) callArguments(c *call) {
	if p.is("*", ")") {
		p.take()
		c.star = true
		return
	}
	c.distinct = p.accept("DISTINCT")
	for !p.is(")") && !p.callModifier() {
		c.args = append(c.args, p.argument())
		if !p.accept(",") {
			break
		}
	}
	p.callModifiers(c)
}

func (p *parser) argument() expr {
	if p.peek().kind == tokWord && p.peekAt(1).is("=>") {
		refuse(p.peek().position(), "named argument %s", p.peek().text)
	}
	if p.startsQuery() {
		refuse(p.peek().position(), "query as an argument without its own parentheses")
	}
	if p.is("TABLE") && p.peekAt(1).name() || p.is("MODEL") && p.peekAt(1).name() {
		refuse(p.peek().position(), "%s argument", strings.ToUpper(p.peek().text))
	}
	x := p.expression()
	if p.is("->") {
		refuse(p.peek().position(), "lambda")
	}
	if p.is("AS") {
		refuse(p.peek().position(), "argument alias")
	}
	return x
}

func (p *parser) callModifier() bool {
	return p.is("IGNORE", "NULLS") || p.is("RESPECT", "NULLS") || p.is("HAVING") || p.is("ORDER", "BY") || p.is("LIMIT")
}

func (p *parser) callModifiers(c *call) {
	switch {
	case p.accept("IGNORE", "NULLS"):
		c.nulls = "IGNORE"
	case p.accept("RESPECT", "NULLS"):
		c.nulls = "RESPECT"
	}
	if p.accept("HAVING") {
		t := p.take()
		if !t.is("MAX") && !t.is("MIN") {
			reject(t.position(), "Syntax error: Expected MAX or MIN")
		}
		c.having = strings.ToUpper(t.text)
		c.havingExpr = p.expression()
	}
	if p.is("ORDER", "BY") {
		c.order = p.orderBy()
	}
	if p.accept("LIMIT") {
		c.limit = p.expression()
	}
}

func (p *parser) overClause() *window {
	at := p.peek().position()
	if !p.is("(") {
		return &window{position: at, base: p.identifier()}
	}
	p.take()
	w := p.windowSpec(at)
	p.expect(")")
	return w
}

func (p *parser) windowSpec(at position) *window {
	w := &window{position: at}
	if p.peek().name() && !p.is("PARTITION") {
		w.base = p.take().text
	}
	if p.accept("PARTITION", "BY") {
		for {
			w.partition = append(w.partition, p.expression())
			if !p.accept(",") {
				break
			}
		}
	}
	if p.is("ORDER", "BY") {
		w.order = p.orderBy()
	}
	if p.is("ROWS") || p.is("RANGE") {
		w.frame = p.frame()
	}
	return w
}

func (p *parser) frame() *frame {
	f := &frame{unit: strings.ToUpper(p.take().text)}
	if p.accept("BETWEEN") {
		f.between = true
		f.from = p.bound()
		p.expect("AND")
		f.to = p.bound()
		return f
	}
	f.from = p.bound()
	return f
}

func (p *parser) bound() frameBound {
	for _, w := range [...][2]string{{"UNBOUNDED", "PRECEDING"}, {"UNBOUNDED", "FOLLOWING"}, {"CURRENT", "ROW"}} {
		if p.accept(w[0], w[1]) {
			return frameBound{what: w[0] + " " + w[1]}
		}
	}
	x := p.bitwise(0)
	if p.accept("PRECEDING") {
		return frameBound{"PRECEDING", x}
	}
	p.expect("FOLLOWING")
	return frameBound{"FOLLOWING", x}
}

func (p *parser) orderBy() []orderItem {
	p.expect("ORDER", "BY")
	var items []orderItem
	for {
		it := orderItem{x: p.expression()}
		if p.is("COLLATE") {
			refuse(p.peek().position(), "COLLATE")
		}
		if p.accept("DESC") {
			it.desc = true
		} else {
			p.accept("ASC")
		}
		if p.accept("NULLS", "FIRST") {
			it.nulls = "FIRST"
		} else if p.accept("NULLS", "LAST") {
			it.nulls = "LAST"
		}
		items = append(items, it)
		if !p.accept(",") {
			return items
		}
	}
}

func (p *parser) caseExpression() expr {
	c := &caseOf{position: p.expect("CASE")}
	if !p.is("WHEN") {
		c.operand = p.expression()
	}
	for p.accept("WHEN") {
		cond := p.expression()
		p.expect("THEN")
		c.when = append(c.when, when{cond, p.expression()})
	}
	if len(c.when) == 0 {
		p.unexpected()
	}
	if p.accept("ELSE") {
		c.other = p.expression()
	}
	p.expect("END")
	return c
}

func (p *parser) castExpression(safe bool) expr {
	c := &cast{position: p.take().position(), safe: safe}
	p.expect("(")
	c.x = p.expression()
	p.expect("AS")
	c.to, c.params = p.typeName()
	if p.accept("FORMAT") {
		c.format = p.expression()
	}
	p.expect(")")
	return c
}

func (p *parser) extractExpression() expr {
	e := &extract{position: p.expect("EXTRACT")}
	p.expect("(")
	e.part = p.expression()
	p.expect("FROM")
	e.x = p.expression()
	if p.accept("AT", "TIME", "ZONE") {
		e.zone = p.expression()
	}
	p.expect(")")
	return e
}

func (p *parser) intervalExpression() expr {
	iv := &interval{position: p.expect("INTERVAL")}
	iv.x = p.bitwise(0)
	part := p.peek()
	if part.kind != tokWord {
		p.unexpected()
	}
	iv.part = strings.ToUpper(p.take().text)
	if p.is("TO") {
		refuse(p.peek().position(), "INTERVAL .. TO")
	}
	return iv
}

func (p *parser) arrayExpression() expr {
	at := p.expect("ARRAY")
	switch {
	case p.is("<"):
		p.take()
		elem, _ := p.typeName()
		p.closeType()
		return p.arrayLiteral(at, &elem)
	case p.is("["):
		return p.arrayLiteral(at, nil)
	}
	p.expect("(")
	q := p.query()
	p.expect(")")
	return &arrayOfQuery{at, q}
}

func (p *parser) arrayLiteral(at position, elem *typ) expr {
	p.expect("[")
	items := p.expressions("]")
	p.expect("]")
	return &arrayOfExprs{at, elem, items}
}

func (p *parser) structExpression() expr {
	s := &structOf{position: p.expect("STRUCT")}
	if p.is("<") {
		t := p.structType()
		s.typ = &t
	}
	p.expect("(")
	for !p.is(")") {
		it := selectItem{position: p.peek().position(), x: p.expression()}
		if p.accept("AS") {
			it.alias = p.identifier()
		}
		s.items = append(s.items, it)
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	return s
}

// parenthesis reads a subquery, a parenthesized expression or a tuple.
func (p *parser) parenthesis() expr {
	at := p.expect("(")
	if p.startsQuery() {
		q := p.query()
		p.expect(")")
		return &scalarQuery{at, q}
	}
	x := p.expression()
	if p.accept(")") {
		return x
	}
	s := &structOf{position: at, tuple: true, items: []selectItem{{position: at, x: x}}}
	for p.accept(",") {
		s.items = append(s.items, selectItem{position: p.peek().position(), x: p.expression()})
	}
	p.expect(")")
	return s
}

// startsQuery says whether a query, rather than an expression, comes next.
func (p *parser) startsQuery() bool {
	open := 0
	for p.peekAt(open).is("(") {
		open++
	}
	if !p.peekAt(open).is("SELECT") && !p.peekAt(open).is("WITH") {
		return false
	}
	return open == 0 || p.continuesAsQuery(open)
}

// continuesAsQuery tells (SELECT 1) UNION .. from (SELECT 1) + 1 by what follows
// the parentheses. A query only in parentheses is left to be an expression.
func (p *parser) continuesAsQuery(open int) bool {
	depth := 0
	for i := 0; ; i++ {
		t := p.peekAt(i)
		switch {
		case t.kind == tokEnd:
			return false
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		}
		if !t.is(")") || depth >= open {
			continue
		}
		n := p.peekAt(i + 1)
		if n.is("UNION") || n.is("INTERSECT") || n.is("EXCEPT") || n.is("ORDER") || n.is("LIMIT") {
			return true
		}
		if !n.is(")") || depth == 0 {
			return false
		}
	}
}

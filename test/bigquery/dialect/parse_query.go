package dialect

import "strings"

func (p *parser) query() *query {
	p.enter()
	defer p.leave()
	q := &query{position: p.peek().position()}
	if p.accept("WITH") {
		q.recursive = p.accept("RECURSIVE")
		for {
			name := p.identifier()
			p.expect("AS")
			p.expect("(")
			q.with = append(q.with, cte{name, p.query()})
			p.expect(")")
			if !p.accept(",") {
				break
			}
		}
	}
	q.body = p.queryBody()
	if p.is("ORDER", "BY") {
		q.order = p.orderBy()
	}
	if p.accept("LIMIT") {
		q.limit = p.expression()
		if p.accept("OFFSET") {
			q.offset = p.expression()
		}
	}
	if p.is("|>") {
		refuse(p.peek().position(), "pipe syntax")
	}
	if p.is("FOR") {
		refuse(p.peek().position(), "FOR UPDATE")
	}
	return q
}

func (p *parser) queryBody() queryBody {
	left := p.queryTerm()
	first := ""
	for p.is("UNION") || p.is("INTERSECT") || p.is("EXCEPT") {
		t := p.take()
		s := &setOp{position: t.position(), op: strings.ToUpper(t.text), left: left}
		switch {
		case p.accept("ALL"):
			s.all = true
		case !p.accept("DISTINCT"):
			reject(p.peek().position(), "Syntax error: Expected keyword ALL or keyword DISTINCT")
		}
		mode := s.op
		if s.all {
			mode += " ALL"
		}
		if first != "" && first != mode {
			reject(t.position(), "Syntax error: Different set operations cannot be used in the same query without using parentheses for grouping")
		}
		first = mode
		if p.is("BY") || p.is("CORRESPONDING") {
			refuse(p.peek().position(), "set operation %s", strings.ToUpper(p.peek().text))
		}
		s.right = p.queryTerm()
		left = s
	}
	return left
}

func (p *parser) queryTerm() queryBody {
	if p.accept("(") {
		q := p.query()
		p.expect(")")
		return q
	}
	return p.selectBody()
}

func (p *parser) selectBody() *selectBody {
	s := &selectBody{position: p.expect("SELECT")}
	if p.is("@{") || p.is("WITH") {
		refuse(p.peek().position(), "SELECT WITH")
	}
	if !p.accept("ALL") {
		s.distinct = p.accept("DISTINCT")
	}
	if p.accept("AS", "STRUCT") {
		s.asStruct = true
	} else if p.accept("AS", "VALUE") {
		s.asValue = true
	}
	for {
		s.items = append(s.items, p.selectItem())
		if !p.accept(",") || p.is("FROM") {
			break
		}
	}
	if p.accept("FROM") {
		s.from = p.fromClause()
	}
	if p.accept("WHERE") {
		s.where = p.expression()
	}
	if p.is("GROUP", "BY") {
		s.group = p.groupBy()
	}
	if p.accept("HAVING") {
		s.having = p.expression()
	}
	if p.accept("QUALIFY") {
		s.qualify = p.expression()
	}
	if p.accept("WINDOW") {
		p.windows(s)
	}
	return s
}

func (p *parser) windows(s *selectBody) {
	s.windows = map[string]*window{}
	for {
		at := p.peek().position()
		name := p.identifier()
		p.expect("AS")
		if p.accept("(") {
			s.windows[strings.ToLower(name)] = p.windowSpec(at)
			p.expect(")")
		} else {
			s.windows[strings.ToLower(name)] = &window{position: at, base: p.identifier()}
		}
		if !p.accept(",") {
			return
		}
	}
}

func (p *parser) groupBy() *grouping {
	g := &grouping{position: p.expect("GROUP", "BY")}
	switch {
	case p.accept("ALL"):
		g.all = true
		return g
	case p.is("ROLLUP", "("):
		p.take()
		p.take()
		g.rollup = true
		g.items = p.expressions(")")
		p.expect(")")
		return g
	case p.is("CUBE"), p.is("GROUPING", "SETS"), p.is("(", ")"):
		refuse(p.peek().position(), "GROUP BY %s", strings.ToUpper(p.peek().text))
	}
	for {
		g.items = append(g.items, p.expression())
		if !p.accept(",") {
			return g
		}
	}
}

func (p *parser) selectItem() selectItem {
	it := selectItem{position: p.peek().position()}
	if p.accept("*") {
		it.star = true
		p.starModifiers(&it)
		return it
	}
	it.x = p.expression()
	if p.is(".", "*") {
		p.take()
		p.take()
		it.star, it.of, it.x = true, it.x, nil
		p.starModifiers(&it)
		return it
	}
	it.alias = p.alias()
	return it
}

func (p *parser) starModifiers(it *selectItem) {
	if p.is("EXCEPT", "(") {
		p.take()
		p.take()
		for {
			it.except = append(it.except, p.identifier())
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
	}
	if p.is("REPLACE", "(") {
		p.take()
		p.take()
		for {
			r := selectItem{position: p.peek().position(), x: p.expression()}
			p.accept("AS")
			r.alias = p.identifier()
			it.replace = append(it.replace, r)
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
	}
}

func (p *parser) fromClause() tableExpr {
	left := p.joined()
	for p.is(",") {
		at := p.expect(",")
		left = &join{position: at, kind: "CROSS", left: left, right: p.joined()}
	}
	return left
}

func (p *parser) joined() tableExpr {
	left := p.tablePrimary()
	for {
		at := p.peek().position()
		kind, ok := p.joinKind()
		if !ok {
			return left
		}
		j := &join{position: at, kind: kind, left: left, right: p.tablePrimary()}
		switch {
		case kind == "CROSS":
		case p.accept("ON"):
			j.on = p.expression()
		case p.accept("USING"):
			p.expect("(")
			for {
				j.using = append(j.using, p.identifier())
				if !p.accept(",") {
					break
				}
			}
			p.expect(")")
		}
		left = j
	}
}

func (p *parser) joinKind() (string, bool) {
	switch {
	case p.accept("CROSS", "JOIN"):
		return "CROSS", true
	case p.accept("JOIN"), p.accept("INNER", "JOIN"):
		return "INNER", true
	case p.is("NATURAL"), p.is("INNER", "HASH"), p.is("JOIN", "HASH"):
		refuse(p.peek().position(), "%s join", strings.ToUpper(p.peek().text))
	}
	for _, k := range [...]string{"LEFT", "RIGHT", "FULL"} {
		if p.accept(k, "JOIN") || p.accept(k, "OUTER", "JOIN") {
			return k, true
		}
	}
	return "", false
}

func (p *parser) tablePrimary() tableExpr {
	p.enter()
	defer p.leave()
	at := p.peek().position()
	switch {
	case p.is("UNNEST"):
		return p.unnest(at)
	case p.is("LATERAL"):
		refuse(at, "LATERAL")
	case p.is("("):
		return p.tableParenthesis(at)
	}
	t := p.tablePath()
	if p.is("(") {
		return p.tableFunction(t)
	}
	t.alias = p.alias()
	if p.accept("FOR", "SYSTEM_TIME") || p.accept("FOR", "SYSTEM", "TIME") {
		p.expect("AS", "OF")
		t.asOf = p.expression()
	}
	t.offset, t.hasOff = p.withOffset()
	p.refuseTableSuffix()
	return t
}

// tableFunction reads APPENDS(TABLE t, start, end) from its parenthesis on.
func (p *parser) tableFunction(name *tableRef) tableExpr {
	if len(name.parts) != 1 || !strings.EqualFold(name.parts[0], "APPENDS") {
		refuse(name.position, "table function %s", strings.Join(name.parts, "."))
	}
	p.expect("(")
	if !p.accept("TABLE") {
		reject(p.peek().position(), "APPENDS must be given a table, preceded by the word TABLE")
	}
	a := &appendsRef{position: name.position, table: p.tablePath()}
	for p.accept(",") {
		a.moments = append(a.moments, p.argument())
	}
	p.expect(")")
	if len(a.moments) > 2 {
		reject(a.position, "No matching signature for table valued function APPENDS: %d moments", len(a.moments))
	}
	a.alias = p.alias()
	p.refuseTableSuffix()
	return a
}

func (p *parser) refuseTableSuffix() {
	for _, w := range [...]string{"TABLESAMPLE", "PIVOT", "UNPIVOT", "MATCH_RECOGNIZE"} {
		if p.is(w) {
			refuse(p.peek().position(), "%s", w)
		}
	}
}

func (p *parser) withOffset() (string, bool) {
	if !p.accept("WITH", "OFFSET") {
		return "", false
	}
	if a := p.alias(); a != "" {
		return a, true
	}
	return "offset", true
}

func (p *parser) unnest(at position) tableExpr {
	p.expect("UNNEST")
	p.expect("(")
	u := &unnestRef{position: at, x: p.expression()}
	if p.is(",") {
		refuse(p.peek().position(), "UNNEST of several arrays")
	}
	p.expect(")")
	u.alias = p.alias()
	u.offset, u.hasOff = p.withOffset()
	return u
}

func (p *parser) tableParenthesis(at position) tableExpr {
	p.expect("(")
	if p.startsQuery() {
		q := p.query()
		p.expect(")")
		r := &queryRef{position: at, query: q, alias: p.alias()}
		p.refuseTableSuffix()
		return r
	}
	t := p.joined()
	p.expect(")")
	return t
}

// tablePath reads p.d.t in any quoting; unquoted project names may have dashes.
func (p *parser) tablePath() *tableRef {
	t := &tableRef{position: p.peek().position()}
	if p.is("INFORMATION_SCHEMA") {
		refuse(t.position, "INFORMATION_SCHEMA")
	}
	first := p.peek()
	if !first.name() {
		p.unexpected()
	}
	p.take()
	if first.kind == tokQuoted {
		t.parts = splitPath(first.text)
	} else {
		t.parts = []string{p.dashed(first)}
	}
	for p.accept(".") {
		next := p.peek()
		part := p.pathPart()
		if next.kind == tokQuoted {
			t.parts = append(t.parts, splitPath(part)...)
		} else {
			t.parts = append(t.parts, p.dashed(next))
		}
	}
	for _, part := range t.parts {
		if strings.EqualFold(part, "INFORMATION_SCHEMA") {
			refuse(t.position, "INFORMATION_SCHEMA")
		}
	}
	return t
}

// dashed joins my-project-1, which the lexer saw as words, dashes and numbers.
func (p *parser) dashed(t token) string {
	end := t.end
	for p.is("-") && p.peek().start == end {
		n := p.peekAt(1)
		if n.start != end+1 || n.kind != tokWord && n.kind != tokInt {
			break
		}
		p.take()
		end = p.take().end
		if n.kind == tokInt && p.peek().kind == tokWord && p.peek().start == end {
			end = p.take().end
		}
	}
	return p.src[t.start:end]
}

// splitPath splits a backticked path; a domain-scoped project keeps its dots.
func splitPath(text string) []string {
	project, rest, scoped := strings.Cut(text, ":")
	if !scoped {
		return strings.Split(text, ".")
	}
	parts := strings.Split(rest, ".")
	parts[0] = project + ":" + parts[0]
	return parts
}

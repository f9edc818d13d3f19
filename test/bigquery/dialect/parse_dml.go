package dialect

import "strings"

// otherStatements begin statements that GoogleSQL has and this package does not.
const otherStatements = " ALTER ASSERT BEGIN CALL CASE COMMIT CREATE DECLARE DESCRIBE DROP EXECUTE EXPLAIN EXPORT FOR GRANT IF LOAD LOOP REPEAT REVOKE ROLLBACK SET UNDROP WHILE "

// statement reads exactly one statement.
func (p *parser) statement() statement {
	t := p.peek()
	var s statement
	switch {
	case t.is("SELECT"), t.is("WITH"), t.is("("):
		s = p.query()
	case t.is("INSERT"):
		s = p.insert()
	case t.is("UPDATE"):
		s = p.update()
	case t.is("DELETE"):
		s = p.deletion()
	case t.is("MERGE"):
		s = p.merge()
	case t.is("TRUNCATE"):
		s = p.truncate()
	case t.kind == tokWord && strings.Contains(otherStatements, " "+strings.ToUpper(t.text)+" "):
		refuse(t.position(), "statement %s", strings.ToUpper(t.text))
	case t.is("FROM"):
		refuse(t.position(), "pipe syntax")
	default:
		p.unexpected()
	}
	p.accept(";")
	if p.peek().kind != tokEnd {
		if p.tokens[max(p.at-1, 0)].is(";") {
			refuse(p.peek().position(), "script of several statements")
		}
		p.unexpected()
	}
	return s
}

// target reads the table that DML changes, with its alias.
func (p *parser) target() *tableRef {
	t := p.tablePath()
	if !p.is("SET") && !p.is("VALUES") {
		t.alias = p.alias()
	}
	return t
}

func (p *parser) insert() *insert {
	s := &insert{position: p.expect("INSERT")}
	p.accept("INTO")
	s.table = p.tablePath()
	if p.is("(") && p.peekAt(1).name() {
		p.take()
		for {
			s.columns = append(s.columns, p.identifier())
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
	}
	if !p.accept("VALUES") {
		s.query = p.query()
		return s
	}
	for {
		p.expect("(")
		s.rows = append(s.rows, p.expressions(")"))
		p.expect(")")
		if !p.accept(",") {
			return s
		}
	}
}

func (p *parser) assignments() []assignment {
	var list []assignment
	for {
		at := p.peek().position()
		a := assignment{position: at, column: p.identifier()}
		if p.accept(".") {
			a.of, a.column = a.column, p.pathPart()
		}
		if p.is(".") {
			refuse(at, "SET of a field")
		}
		p.expect("=")
		a.x = p.expression()
		list = append(list, a)
		if !p.accept(",") {
			return list
		}
	}
}

func (p *parser) update() *update {
	s := &update{position: p.expect("UPDATE")}
	s.table = p.target()
	p.expect("SET")
	s.set = p.assignments()
	if p.accept("FROM") {
		s.from = p.fromClause()
	}
	s.where = p.requiredWhere("UPDATE", s.position)
	return s
}

func (p *parser) deletion() *deletion {
	s := &deletion{position: p.expect("DELETE")}
	p.accept("FROM")
	s.table = p.target()
	s.where = p.requiredWhere("DELETE", s.position)
	return s
}

func (p *parser) requiredWhere(what string, at position) expr {
	if !p.accept("WHERE") {
		if p.peek().kind != tokEnd && !p.is(";") {
			p.unexpected()
		}
		reject(at, "%s must have a WHERE clause", what)
	}
	return p.expression()
}

func (p *parser) truncate() *truncate {
	at := p.expect("TRUNCATE")
	p.expect("TABLE")
	return &truncate{at, p.tablePath()}
}

func (p *parser) merge() *merge {
	s := &merge{position: p.expect("MERGE")}
	p.accept("INTO")
	s.table = p.target()
	p.expect("USING")
	s.source = p.tablePrimary()
	p.expect("ON")
	s.on = p.expression()
	for p.is("WHEN") {
		s.when = append(s.when, p.mergeWhen())
	}
	if len(s.when) == 0 {
		p.unexpected()
	}
	return s
}

func (p *parser) mergeWhen() mergeWhen {
	w := mergeWhen{position: p.expect("WHEN")}
	if p.accept("NOT", "MATCHED") {
		if p.accept("BY", "SOURCE") {
			w.bySource = true
		} else if p.is("BY") {
			p.expect("BY", "TARGET")
		}
	} else {
		p.expect("MATCHED")
		w.matched = true
	}
	if p.accept("AND") {
		w.cond = p.expression()
	}
	p.expect("THEN")
	p.mergeAction(&w)
	return w
}

func (p *parser) mergeAction(w *mergeWhen) {
	updates := w.matched || w.bySource
	switch {
	case updates && p.accept("DELETE"):
		w.action = "DELETE"
	case updates && p.accept("UPDATE", "SET"):
		w.action = "UPDATE"
		w.set = p.assignments()
	case !updates && p.accept("INSERT"):
		w.action = "INSERT"
		p.mergeInsert(w)
	default:
		p.unexpected()
	}
}

func (p *parser) mergeInsert(w *mergeWhen) {
	if p.accept("(") {
		for {
			w.columns = append(w.columns, p.identifier())
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
	}
	if p.accept("ROW") {
		w.row = true
		return
	}
	p.expect("VALUES")
	p.expect("(")
	w.values = p.expressions(")")
	p.expect(")")
}

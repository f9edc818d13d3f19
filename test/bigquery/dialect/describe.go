package dialect

import (
	"fmt"
	"strings"
)

// Statement says what a statement is, for a server that runs DDL itself.
type Statement struct {
	// Kind is BigQuery's statementType: SELECT, INSERT, UPDATE, DELETE, MERGE,
	// TRUNCATE_TABLE, CREATE_TABLE, CREATE_TABLE_AS_SELECT, CREATE_VIEW,
	// DROP_TABLE, DROP_VIEW, CREATE_SCHEMA, DROP_SCHEMA, ALTER_TABLE, ...
	Kind string
	// Target is the project, dataset and table that the statement changes, as
	// far as it names them. For a schema the table is empty.
	Target [3]string
	// Body is the GoogleSQL text of the query of CREATE .. AS and of INSERT ..
	// SELECT.
	Body string
	// OrReplace, IfNotExists and IfExists are the clauses of CREATE and DROP.
	OrReplace, IfNotExists, IfExists bool
	// Cascade is set by DROP SCHEMA .. CASCADE.
	Cascade bool
	// Columns are those that CREATE TABLE declares, or that CREATE VIEW names
	// (without a type).
	Columns []ColumnDef
	// PrimaryKey is the list of PRIMARY KEY (..) NOT ENFORCED.
	PrimaryKey []string
	// PartitionBy is the text of the PARTITION BY expression.
	PartitionBy string
	// ClusterBy are the clustering columns.
	ClusterBy []string
	// Options are the texts of OPTIONS (name = expression), names in lower case.
	Options map[string]string
	// Rename is the new name of ALTER TABLE .. RENAME TO.
	Rename string
	// Retyped are the columns of ALTER COLUMN .. SET DATA TYPE, with the new type,
	// and Relaxed those of ALTER COLUMN .. DROP NOT NULL.
	Retyped []ColumnDef
	Relaxed []string
}

// ColumnDef is a column of CREATE TABLE.
type ColumnDef struct {
	Name string
	// Type is GoogleSQL text, with parameters as written.
	Type    string
	NotNull bool
	// Default is the text of the DEFAULT expression.
	Default string
	// Options are the texts of OPTIONS (name = expression).
	Options map[string]string
}

// Describe reads what a statement is without translating it. It refuses scripts
// and clauses of DDL that it does not know, by name.
func Describe(sql string) (st Statement, err error) {
	defer recovered(&err)
	p, err := newParser(sql)
	if err != nil {
		return Statement{}, err
	}
	p.describe(&st)
	p.accept(";")
	if p.peek().kind != tokEnd {
		if p.tokens[max(p.at-1, 0)].is(";") {
			refuse(p.peek().position(), "script of several statements")
		}
		p.unexpected()
	}
	return st, nil
}

func (p *parser) describe(st *Statement) {
	switch {
	case p.is("CREATE"):
		p.create(st)
	case p.is("DROP"):
		p.drop(st)
	case p.is("ALTER", "TABLE"):
		p.alter(st)
	default:
		p.describeDML(st)
	}
}

func (p *parser) describeDML(st *Statement) {
	begin := p.at
	switch s := p.statement().(type) {
	case *query:
		st.Kind = "SELECT"
		st.Body = p.textFrom(begin)
	case *insert:
		st.Kind, st.Target = "INSERT", target(s.table)
	case *update:
		st.Kind, st.Target = "UPDATE", target(s.table)
	case *deletion:
		st.Kind, st.Target = "DELETE", target(s.table)
	case *merge:
		st.Kind, st.Target = "MERGE", target(s.table)
	case *truncate:
		st.Kind, st.Target = "TRUNCATE_TABLE", target(s.table)
	}
}

func target(t *tableRef) (out [3]string) {
	if len(t.parts) > 3 {
		refuse(t.position, "table path %s", strings.Join(t.parts, "."))
	}
	copy(out[3-len(t.parts):], t.parts)
	return out
}

// schemaTarget is a path of a project and a dataset.
func schemaTarget(t *tableRef) (out [3]string) {
	switch len(t.parts) {
	case 1:
		out[1] = t.parts[0]
	case 2:
		out[0], out[1] = t.parts[0], t.parts[1]
	default:
		refuse(t.position, "dataset path %s", strings.Join(t.parts, "."))
	}
	return out
}

// textFrom is the source from token begin to the last one taken.
func (p *parser) textFrom(begin int) string {
	last := p.at - 1
	if p.peek().kind == tokEnd && p.at > 0 && p.tokens[last].is(";") {
		last--
	}
	if last < begin {
		return ""
	}
	return p.src[p.tokens[begin].start:p.tokens[last].end]
}

func (p *parser) create(st *Statement) {
	p.expect("CREATE")
	st.OrReplace = p.accept("OR", "REPLACE")
	what := p.peek()
	switch {
	case p.accept("SCHEMA"):
		st.Kind = "CREATE_SCHEMA"
	case p.accept("TABLE"):
		st.Kind = "CREATE_TABLE"
	case p.accept("VIEW"):
		st.Kind = "CREATE_VIEW"
	default:
		refuse(what.position(), "CREATE %s", strings.ToUpper(what.text))
	}
	st.IfNotExists = p.accept("IF", "NOT", "EXISTS")
	path := p.tablePath()
	if st.Kind == "CREATE_SCHEMA" {
		st.Target = schemaTarget(path)
		st.Options = p.options()
		return
	}
	st.Target = target(path)
	if p.accept("(") {
		p.columnDefs(st)
	}
	for _, w := range [...]string{"LIKE", "COPY", "CLONE"} {
		if p.is(w) {
			refuse(p.peek().position(), "CREATE TABLE %s", w)
		}
	}
	p.createClauses(st)
	if p.accept("AS") {
		begin := p.at
		p.query()
		st.Body = p.textFrom(begin)
		if st.Kind == "CREATE_TABLE" {
			st.Kind = "CREATE_TABLE_AS_SELECT"
		}
	} else if st.Kind == "CREATE_VIEW" || st.Columns == nil {
		p.unexpected()
	}
}

func (p *parser) createClauses(st *Statement) {
	if p.is("DEFAULT", "COLLATE") {
		refuse(p.peek().position(), "DEFAULT COLLATE")
	}
	if p.accept("PARTITION", "BY") {
		begin := p.at
		p.expression()
		st.PartitionBy = p.textFrom(begin)
	}
	if p.accept("CLUSTER", "BY") {
		for {
			st.ClusterBy = append(st.ClusterBy, p.identifier())
			if !p.accept(",") {
				break
			}
		}
	}
	if p.is("WITH", "CONNECTION") {
		refuse(p.peek().position(), "WITH CONNECTION")
	}
	st.Options = p.options()
}

func (p *parser) columnDefs(st *Statement) {
	for !p.is(")") {
		switch {
		case p.is("PRIMARY", "KEY"):
			p.primaryKey(st)
		case p.is("FOREIGN", "KEY"), p.is("CONSTRAINT"):
			refuse(p.peek().position(), "table constraint %s", strings.ToUpper(p.peek().text))
		default:
			st.Columns = append(st.Columns, p.columnDef(st))
		}
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
}

func (p *parser) primaryKey(st *Statement) {
	p.expect("PRIMARY", "KEY")
	p.expect("(")
	for {
		st.PrimaryKey = append(st.PrimaryKey, p.identifier())
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	p.expect("NOT", "ENFORCED")
}

func (p *parser) columnDef(st *Statement) ColumnDef {
	c := ColumnDef{Name: p.identifier()}
	if st.Kind == "CREATE_VIEW" {
		c.Options = p.options()
		return c
	}
	begin := p.at
	p.typeName()
	c.Type = p.textFrom(begin)
	for {
		switch {
		case p.accept("NOT", "NULL"):
			c.NotNull = true
		case p.accept("DEFAULT"):
			begin := p.at
			p.expression()
			c.Default = p.textFrom(begin)
		case p.accept("PRIMARY", "KEY"):
			p.expect("NOT", "ENFORCED")
			st.PrimaryKey = append(st.PrimaryKey, c.Name)
		case p.is("OPTIONS"):
			c.Options = p.options()
		default:
			return c
		}
	}
}

// options reads OPTIONS (name = expression, ..) where it comes next.
func (p *parser) options() map[string]string {
	if !p.accept("OPTIONS") {
		return nil
	}
	p.expect("(")
	out := map[string]string{}
	for !p.is(")") {
		name := strings.ToLower(p.pathPart())
		p.expect("=")
		begin := p.at
		p.expression()
		out[name] = p.textFrom(begin)
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	return out
}

func (p *parser) drop(st *Statement) {
	p.expect("DROP")
	what := p.peek()
	switch {
	case p.accept("SCHEMA"), p.accept("TABLE"), p.accept("VIEW"):
		st.Kind = "DROP_" + strings.ToUpper(what.text)
	default:
		refuse(what.position(), "DROP %s", strings.ToUpper(what.text))
	}
	st.IfExists = p.accept("IF", "EXISTS")
	path := p.tablePath()
	if st.Kind != "DROP_SCHEMA" {
		st.Target = target(path)
		return
	}
	st.Target = schemaTarget(path)
	st.Cascade = p.accept("CASCADE")
	p.accept("RESTRICT")
}

// alter knows of ALTER TABLE what Statement has members for. RENAME TO and SET
// OPTIONS stand alone; other actions may be several.
func (p *parser) alter(st *Statement) {
	p.expect("ALTER", "TABLE")
	st.Kind = "ALTER_TABLE"
	st.IfExists = p.accept("IF", "EXISTS")
	st.Target = target(p.tablePath())
	switch {
	case p.accept("SET"):
		if !p.is("OPTIONS") {
			p.unexpected()
		}
		st.Options = p.options()
		return
	case p.accept("RENAME", "TO"):
		path := p.tablePath()
		if len(path.parts) != 1 {
			reject(path.position, "The new name of a table must not be qualified")
		}
		st.Rename = path.parts[0]
		return
	}
	for {
		p.alterAction(st)
		if !p.accept(",") {
			return
		}
	}
}

func (p *parser) alterAction(st *Statement) {
	at := p.peek()
	switch {
	case p.accept("ADD", "COLUMN"):
		st.IfNotExists = p.accept("IF", "NOT", "EXISTS") || st.IfNotExists
		st.Columns = append(st.Columns, p.columnDef(st))
	case p.is("ADD", "PRIMARY", "KEY"):
		p.expect("ADD")
		p.primaryKey(st)
	case p.accept("ALTER", "COLUMN"):
		p.alterColumn(st)
	default:
		refuse(at.position(), "ALTER TABLE %s", strings.ToUpper(fmt.Sprint(at.text, " ", p.peekAt(1).text)))
	}
}

func (p *parser) alterColumn(st *Statement) {
	if p.is("IF", "EXISTS") {
		refuse(p.peek().position(), "ALTER COLUMN IF EXISTS")
	}
	name := p.identifier()
	at := p.peek()
	switch {
	case p.accept("SET", "DATA", "TYPE"):
		begin := p.at
		p.typeName()
		st.Retyped = append(st.Retyped, ColumnDef{Name: name, Type: p.textFrom(begin)})
	case p.accept("DROP", "NOT", "NULL"):
		st.Relaxed = append(st.Relaxed, name)
	default:
		refuse(at.position(), "ALTER COLUMN %s", strings.ToUpper(fmt.Sprint(at.text, " ", p.peekAt(1).text)))
	}
}

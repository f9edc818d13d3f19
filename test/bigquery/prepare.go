package bigquery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-data/tidemark/test/bigquery/analyzer"
	"github.com/tidemark-data/tidemark/test/bigquery/dialect"
)

// statementRequest is a statement as a job or a view gives it.
type statementRequest struct {
	sql            string
	project        string // of the job, completes shorter table paths
	defaultProject string // of the default dataset, if any
	defaultDataset string
	params         []parameter
	location       string    // that tables must be in, empty for any
	within         []tableID // views whose queries this one is a part of
}

// where is the location as messages name it.
func (q statementRequest) where() string {
	if q.location == "" {
		return defaultLocation
	}
	return q.location
}

func (q statementRequest) defaults() (project, dataset string) {
	if q.defaultProject != "" {
		return q.defaultProject, q.defaultDataset
	}
	return q.project, q.defaultDataset
}

// resolve completes the path of a table.
func (q statementRequest) resolve(parts []string) (tableID, bool) {
	project, dataset := q.defaults()
	switch len(parts) {
	case 1:
		return tableID{project, dataset, parts[0]}, dataset != ""
	case 2:
		return tableID{project, parts[0], parts[1]}, true
	case 3:
		return tableID{parts[0], parts[1], parts[2]}, true
	}
	return tableID{}, false
}

// prepared is a statement that was accepted and can run.
type prepared struct {
	kind     string // BigQuery's statementType
	analyzed bool
	tokens   []token
	duck     string
	guards   []dialect.Guard
	fields   []field   // of the result
	reads    []tableID // tables and views that it names
	bases    []tableID // tables that it reads, through views too
	levels   int       // of views below the statement
	// generation is the catalogue\'s that a view was prepared against.
	generation int
	target     *table // of DML
	// mayTouch lets the partitions of the target through that the statement's
	// conditions bound it to; nil for all.
	mayTouch func(partition string) bool
	ddl      *ddl
	// missing is why a table that the statement names cannot be read.
	missing error
}

// prepare checks a statement against what exists now and translates it.
// Even with an error, what is known of the statement is returned.
func (s *Server) prepare(ctx context.Context, q statementRequest) (prepared, error) {
	var p prepared
	var err error
	if p.tokens, err = scanSQL(q.sql); err != nil {
		return p, err
	}
	if n := len(p.tokens); n > 0 && p.tokens[n-1].is(";") {
		p.tokens = p.tokens[:n-1]
	}
	if slices.ContainsFunc(p.tokens, func(t token) bool { return t.is(";") }) {
		return p, errUnsupported("scripts of several statements")
	}
	p.analyzed = analyzer.Available
	refused := s.analyze(ctx, q, &p)
	err = s.understand(ctx, q, &p)
	switch {
	case p.missing != nil:
		return p, p.missing
	case refused != nil:
		return p, refused
	}
	return p, err
}

// understand describes and translates the statement.
func (s *Server) understand(ctx context.Context, q statementRequest, p *prepared) error {
	st, err := dialect.Describe(q.sql)
	if err != nil {
		return translationError(err)
	}
	p.kind = st.Kind
	if p.ddl, err = readDDL(q, st); err != nil {
		return err
	}
	switch {
	case p.ddl == nil:
	case p.ddl.query == "":
		return nil
	default:
		q.sql = p.ddl.query
	}
	if err := s.translate(ctx, q, p); err != nil {
		return err
	}
	if isDML(p.kind) {
		return s.findTarget(q, st, p)
	}
	return nil
}

func isDML(kind string) bool {
	switch kind {
	case "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE_TABLE":
		return true
	}
	return false
}

// analyze lets Google's analyzer judge the statement, where it is linked.
func (s *Server) analyze(ctx context.Context, q statementRequest, p *prepared) error {
	if !analyzer.Available {
		return nil
	}
	o := analyzer.Options{Tables: s.analyzerTables(ctx, q, p.tokens)}
	o.DefaultProject, o.DefaultDataset = q.defaults()
	for _, param := range q.params {
		o.Parameters = append(o.Parameters, analyzer.Parameter{Name: param.name, Type: param.field.sqlType()})
	}
	r, err := analyzer.Analyze(ctx, q.sql, o)
	var refused *analyzer.Error
	if errors.As(err, &refused) {
		switch {
		case strings.Contains(refused.MissingTable, ".INFORMATION_SCHEMA."):
			return errUnsupported("INFORMATION_SCHEMA")
		case refused.MissingTable != "":
			return errNotFound("Table %s was not found in location %s", strings.Replace(refused.MissingTable, ".", ":", 1), q.where())
		}
		return errInvalidQuery("%s", refused.Error())
	}
	if err != nil {
		return fmt.Errorf("analyzing: %w", err)
	}
	for _, c := range r.Columns {
		f, err := fieldFromSQL(c.Name, c.Type)
		if err != nil {
			return err
		}
		p.fields = append(p.fields, f)
	}
	return nil
}

// analyzerTables are the tables that the statement may name: every dotted name
// in it that is a table's path, or begins with one.
func (s *Server) analyzerTables(ctx context.Context, q statementRequest, tokens []token) []analyzer.Table {
	var out []analyzer.Table
	seen := map[tableID]bool{}
	for i := range tokens {
		parts, _ := namePath(tokens, i)
		for n := min(len(parts), 3); n > 0; n-- {
			id, ok := q.resolve(parts[:n])
			if !ok || seen[id] {
				continue
			}
			t, err := s.cat.lookup(id)
			if err != nil {
				continue
			}
			seen[id] = true
			out = append(out, analyzer.Table{Project: id.project, Dataset: id.dataset, Name: id.table, Columns: s.columnsOf(ctx, t, q.within)})
		}
	}
	return out
}

// columnsOf are a table's columns now; a view's are those its query returns now.
func (s *Server) columnsOf(ctx context.Context, t *table, within []tableID) []analyzer.Column {
	s.cat.mu.RLock()
	fields := t.fields
	s.cat.mu.RUnlock()
	if t.isView() {
		if p, err := s.prepareView(ctx, t, within); err == nil {
			fields = p.fields
		}
	}
	out := make([]analyzer.Column, len(fields))
	for i, f := range fields {
		out[i] = analyzer.Column{Name: f.name, Type: f.sqlType()}
	}
	return out
}

// maxViewLevels is BigQuery's limit of views that read views.
const maxViewLevels = 16

var errViewCycle = errors.New("cycle of views")

// preparedView is a view's query as prepared when the catalogue was at a
// generation; it holds until any schema changes.
type preparedView struct {
	generation int
	query      prepared
	err        error
}

// prepareView prepares a view's query against the tables as they are now.
func (s *Server) prepareView(ctx context.Context, t *table, within []tableID) (prepared, error) {
	if slices.Contains(within, t.id) {
		return prepared{}, fmt.Errorf("%w: %w", errViewCycle, errInvalidQuery("View %s refers to itself", t.id))
	}
	s.cat.mu.RLock()
	view, generation, known := t.view, s.cat.generation, t.prepared
	s.cat.mu.RUnlock()
	if known != nil && known.generation == generation {
		return known.query, known.err
	}
	p, err := s.prepare(ctx, t.viewRequest(view, within))
	p.generation = generation
	switch {
	case ctx.Err() != nil:
		return p, fmt.Errorf("resolving view %s: %w", t.id, context.Cause(ctx))
	case errors.Is(err, errViewCycle):
		return p, err // of the definition being checked, not of this view
	case err != nil:
		err = fmt.Errorf("resolving view %s: %w", t.id, err)
	case p.levels >= maxViewLevels:
		err = errInvalidQuery("Exceeded the maximum nesting of views at %s: %d levels", t.id, maxViewLevels)
	}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	t.prepared = &preparedView{generation, p, err}
	return p, err
}

func (t *table) viewRequest(view string, within []tableID) statementRequest {
	return statementRequest{sql: view, project: t.id.project, within: append(slices.Clone(within), t.id)}
}

// translate turns the statement into DuckDB's SQL.
func (s *Server) translate(ctx context.Context, q statementRequest, p *prepared) error {
	o := dialect.Options{Now: s.store.now}
	o.DefaultProject, o.DefaultDataset = q.defaults()
	o.Table = func(project, dataset, name string) (string, error) {
		return s.resolveTable(ctx, q, tableID{project, dataset, name}, p)
	}
	o.DataTypes = func(project, dataset, name string) []dialect.ColumnType {
		t, err := s.cat.lookup(tableID{project, dataset, name})
		if err != nil {
			return nil
		}
		var out []dialect.ColumnType
		for _, c := range s.columnsOf(ctx, t, q.within) {
			out = append(out, dialect.ColumnType{Name: c.Name, Type: c.Type})
		}
		return out
	}
	o.Appends = func(c dialect.Appends) (string, error) { return s.appends(ctx, q, c) }
	o.AsOf = func(c dialect.AsOf) (string, error) { return s.asOf(ctx, q, c) }
	o.Parameter = func(name string) (string, error) {
		param, err := q.parameter(name)
		return param.duck, err
	}
	o.ParameterType = func(name string) string {
		param, err := q.parameter(name)
		if err != nil {
			return ""
		}
		return param.field.sqlType()
	}
	t, err := dialect.TranslateStatement(q.sql, o)
	if err != nil {
		return translationError(err)
	}
	p.duck, p.guards = t.SQL, t.Guards
	if isDML(p.kind) || p.analyzed && len(p.fields) > 0 {
		return nil
	}
	return s.typeResult(ctx, p, t.Columns)
}

func (q statementRequest) parameter(name string) (parameter, error) {
	for _, p := range q.params {
		if strings.EqualFold(p.name, name) {
			return p, nil
		}
	}
	return parameter{}, errInvalidQuery("Query parameter '%s' not found", name)
}

// resolveTable answers the DuckDB name of a table or view, and notes it.
func (s *Server) resolveTable(ctx context.Context, q statementRequest, id tableID, p *prepared) (string, error) {
	name, err := s.readableTable(ctx, q, id, p)
	if err != nil {
		p.missing = err
	}
	return name, err
}

func (s *Server) readableTable(ctx context.Context, q statementRequest, id tableID, p *prepared) (string, error) {
	if strings.EqualFold(id.dataset, "INFORMATION_SCHEMA") || strings.EqualFold(id.project, "INFORMATION_SCHEMA") {
		return "", errUnsupported("INFORMATION_SCHEMA")
	}
	t, err := s.cat.lookupAt(id, q.location)
	if err != nil {
		return "", err
	}
	if !slices.Contains(p.reads, id) {
		p.reads = append(p.reads, id)
	}
	if !t.isView() {
		p.base(id)
		return t.real(), nil
	}
	inner, err := s.prepareView(ctx, t, q.within)
	if err != nil {
		return "", err
	}
	p.levels = max(p.levels, inner.levels+1)
	for _, id := range inner.bases {
		p.base(id)
	}
	return t.real(), s.refreshView(ctx, t, inner)
}

// base notes a table that a statement reads.
func (p *prepared) base(id tableID) {
	if !slices.Contains(p.bases, id) {
		p.bases = append(p.bases, id)
	}
}

// refreshView makes the DuckDB view fit the tables as they are now.
func (s *Server) refreshView(ctx context.Context, t *table, p prepared) error {
	s.cat.mu.RLock()
	fresh := t.viewGeneration == p.generation
	s.cat.mu.RUnlock()
	if fresh {
		return nil
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	names := make([]string, len(p.fields))
	for i, f := range p.fields {
		names[i] = quoteIdent(f.name)
	}
	if err := s.store.exec(ctx, "CREATE OR REPLACE VIEW "+t.real()+" ("+strings.Join(names, ", ")+") AS "+p.duck); err != nil {
		return err
	}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	t.viewGeneration = p.generation
	return nil
}

// findTarget finds the table that DML changes.
func (s *Server) findTarget(q statementRequest, st dialect.Statement, p *prepared) error {
	id, err := q.target(st)
	if err != nil {
		return err
	}
	t, err := s.cat.lookupAt(id, q.location)
	if err != nil {
		return err
	}
	if t.isView() {
		return errInvalidQuery("Cannot modify view %s", t.id)
	}
	p.target = t
	return t.refuseDML(st.Kind)
}

// typeResult takes the result's columns from the translation, and what it
// does not know from DuckDB.
func (s *Server) typeResult(ctx context.Context, p *prepared, columns []dialect.ColumnType) error {
	described, err := s.describeDuck(ctx, p.duck)
	if err != nil {
		return err
	}
	p.fields = described
	for i, c := range columns {
		if i >= len(described) {
			break
		}
		if c.Type != "" {
			f, err := fieldFromSQL(c.Name, c.Type)
			if err != nil {
				return err
			}
			p.fields[i] = f
		}
		if c.Name != "" {
			p.fields[i].name = c.Name
		}
	}
	return nameColumns(p.fields)
}

// nameColumns names the columns without a name f0_, f1_, as BigQuery does.
func nameColumns(fields []field) error {
	seen := map[string]bool{}
	for i := range fields {
		if fields[i].name == "" {
			fields[i].name = fmt.Sprintf("f%d_", i)
		}
		key := strings.ToLower(fields[i].name)
		if seen[key] {
			return errInvalidQuery("Duplicate column names in the result are not supported. Found duplicate(s): %s", fields[i].name)
		}
		seen[key] = true
	}
	return nil
}

// translationError gives the dialect's refusals their REST form.
func translationError(err error) error {
	var own *apiError
	if errors.As(err, &own) {
		return own
	}
	var unsupported *dialect.Unsupported
	if errors.As(err, &unsupported) {
		return &apiError{501, "notImplemented", unsupported.Error()}
	}
	var syntax *dialect.SyntaxError
	if errors.As(err, &syntax) {
		return errInvalidQuery("%s", syntax.Error())
	}
	return fmt.Errorf("translating: %w", err)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

package bigquery

import (
	"context"
	"strings"
)

// estimate is the bytes a statement would process: the referenced columns of
// the tables it reads, less the partitions that constants in it exclude, and
// for UPDATE, DELETE and MERGE all columns of the partitions of its target.
// It is an upper bound, as BigQuery's dry run is.
func (s *Server) estimate(ctx context.Context, q statementRequest, p *prepared) (int64, error) {
	if p.ddl != nil && p.ddl.query == "" || p.kind == "CREATE_VIEW" || p.kind == "TRUNCATE_TABLE" {
		return 0, nil
	}
	var total int64
	for _, id := range p.reads {
		n, err := s.estimateTable(ctx, q, p, id)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func (s *Server) estimateTable(ctx context.Context, q statementRequest, p *prepared, id tableID) (int64, error) {
	t, err := s.cat.lookupAt(id, q.location)
	if err != nil {
		return 0, err
	}
	if t.isView() {
		inner, err := s.prepareView(ctx, t, q.within)
		if err != nil {
			return 0, err
		}
		return s.estimate(ctx, t.viewRequest(t.view, q.within), &inner)
	}
	if p.kind == "INSERT" && p.target == t && len(p.reads) > 0 && p.reads[0] == id && !readsAgain(q, p.tokens, id) {
		return 0, nil
	}
	keep, bounded := s.pruning(q, p.tokens, t)
	if t.part.filter && !bounded {
		return 0, errInvalidQuery("Cannot query over table '%s' without a filter over column(s) '%s' that can be used for partition elimination", t.id, t.part.column)
	}
	if t.mergesAtRunTime() {
		keep = nil // such a merge cannot know the partitions of the changes
	}
	fields := s.fieldsOf(t)
	columns := referencedColumns(p.tokens, fields)
	if p.target == t && p.kind != "INSERT" {
		p.mayTouch = keep
	}
	if p.target == t && p.kind != "INSERT" && (p.kind != "MERGE" || !readMerge(p.tokens).onlyInserts()) {
		columns = allColumns(fields)
	}
	return s.columnBytes(ctx, t, columns, keep)
}

// readsAgain says whether an INSERT names its target in its query too.
func readsAgain(q statementRequest, tokens []token, id tableID) bool {
	named := 0
	for i := 0; i < len(tokens); {
		parts, next := namePath(tokens, i)
		if got, ok := q.resolve(parts); ok && got == id {
			named++
		}
		i = max(next, i+1)
	}
	return named > 1
}

// referencedColumns are the columns whose names occur, or all where a star
// stands for them.
func referencedColumns(tokens []token, fields []field) map[string]bool {
	out := map[string]bool{}
	for i, t := range tokens {
		if t.is("*") && isStar(tokens, i) {
			return allColumns(fields)
		}
		if !t.isName() {
			continue
		}
		for _, name := range strings.Split(t.text, ".") {
			if f, ok := findField(fields, name); ok {
				out[fields[f].name] = true
			}
		}
	}
	return out
}

// isStar tells SELECT * from COUNT(*) and from a product.
func isStar(tokens []token, i int) bool {
	if i == 0 {
		return false
	}
	before := tokens[i-1]
	return before.is("SELECT") || before.is("DISTINCT") || before.is(",") || before.is(".") || before.is("ALL")
}

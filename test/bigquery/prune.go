package bigquery

import (
	"iter"
	"math"
	"strings"
)

// pruning finds the partitions of a table that a statement can read, from the
// constants its WHERE clauses compare the partitioning column with. bounded is
// false where some reading of the table has no such bound; keep is then nil.
func (s *Server) pruning(q statementRequest, tokens []token, t *table) (keep func(partition string) bool, bounded bool) {
	if t.part.column == "" {
		return nil, false
	}
	pr := pruner{q: q, t: t}
	pr.scopes(tokens)
	if pr.unbounded || !pr.read {
		return nil, false
	}
	return func(id string) bool {
		for _, r := range pr.ranges {
			if r.holds(t.part, id) {
				return true
			}
		}
		return false
	}, true
}

// span is a range of microseconds, both ends included. Empty where low > high.
type span struct {
	low, high int64
	null      bool // only the partition of NULL
}

func (r span) holds(p partitioning, id string) bool {
	if id == "__NULL__" {
		return r.null
	}
	if r.null {
		return false
	}
	first, last, err := p.bounds(id)
	return err != nil || first <= r.high && last >= r.low
}

// both intersects two unions of spans.
func both(a, b []span) []span {
	var out []span
	for _, r := range a {
		for _, o := range b {
			if r.null == o.null {
				out = append(out, span{max(r.low, o.low), min(r.high, o.high), r.null})
			}
		}
	}
	return out
}

// pruner collects the ranges of each reading of one table.
type pruner struct {
	q         statementRequest
	t         *table
	alias     string // of the reading whose condition is being read
	ranges    []span
	read      bool
	unbounded bool
}

// scopes treats what stands between a pair of parentheses as a scope of its
// own, with the tables its FROM names and the conjuncts of its WHERE.
func (pr *pruner) scopes(tokens []token) {
	var level []token // of this depth; each group in parentheses is one token
	for i := 0; i < len(tokens); i++ {
		if !tokens[i].is("(") {
			level = append(level, tokens[i])
			continue
		}
		end := matching(tokens, i)
		inner := tokens[i+1 : end]
		if len(inner) > 0 && (inner[0].is("SELECT") || inner[0].is("WITH") || inner[0].is("(")) {
			pr.scopes(inner)
			level = append(level, token{kind: tokenSymbol, text: "()", start: tokens[i].start, end: tokens[min(end, len(tokens)-1)].end})
		} else {
			pr.nested(inner)
			level = append(level, tokens[i:min(end+1, len(tokens))]...)
		}
		i = end
	}
	pr.split(level)
}

// nested looks for queries inside of expressions.
func (pr *pruner) nested(tokens []token) {
	for i := 0; i < len(tokens); i++ {
		if !tokens[i].is("(") {
			continue
		}
		end := matching(tokens, i)
		inner := tokens[i+1 : end]
		if len(inner) > 0 && (inner[0].is("SELECT") || inner[0].is("WITH")) {
			pr.scopes(inner)
		} else {
			pr.nested(inner)
		}
		i = end
	}
}

func matching(tokens []token, i int) int {
	depth := 0
	for j := i; j < len(tokens); j++ {
		switch {
		case tokens[j].is("("):
			depth++
		case tokens[j].is(")"):
			depth--
			if depth == 0 {
				return j
			}
		}
	}
	return len(tokens)
}

// split parts set operations, each with tables and conditions of its own.
func (pr *pruner) split(level []token) {
	start, depth := 0, 0
	for i, t := range level {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case depth == 0 && (t.is("UNION") || t.is("INTERSECT") || t.is("EXCEPT") && i+1 < len(level) && level[i+1].is("DISTINCT")):
			pr.query(level[start:i])
			start = i + 1
		}
	}
	pr.query(level[start:])
}

func (pr *pruner) query(level []token) {
	if len(level) > 0 && level[0].is("MERGE") {
		pr.merge(level)
		return
	}
	readings := 0
	for i := 0; i < len(level); {
		parts, next := namePath(level, i)
		if pr.names(parts) && i > 0 && introducesTable(level[i-1]) && (!level[0].is("INSERT") || !level[i-1].is("INTO")) {
			readings++
			pr.alias = aliasAt(level, next, parts)
		}
		i = max(next, i+1)
	}
	if readings == 0 {
		return
	}
	ranges, ok := pr.where(level)
	// A condition on a join of the table with itself names one of the two.
	pr.add(ranges, ok && readings == 1)
}

// add notes a reading of the table, of everything where it is not bounded.
func (pr *pruner) add(ranges []span, bounded bool) {
	pr.read = true
	pr.unbounded = pr.unbounded || !bounded
	pr.ranges = append(pr.ranges, ranges...)
}

func (pr *pruner) names(parts []string) bool {
	id, ok := pr.q.resolve(parts)
	return ok && id == pr.t.id
}

// aliasAt is how a table is referred to whose path ended before tokens[i].
func aliasAt(tokens []token, i int, parts []string) string {
	if i < len(tokens) && tokens[i].is("AS") {
		i++
	}
	if i < len(tokens) && tokens[i].isName() && (tokens[i].kind == tokenQuoted || !followsTable(tokens[i])) {
		return tokens[i].text
	}
	return parts[len(parts)-1]
}

// followsTable says whether a word after a table's path is no alias of it.
func followsTable(t token) bool {
	for _, word := range []string{
		"WHERE", "JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "ON", "USING", "SET", "GROUP", "ORDER", "HAVING", "QUALIFY", "WINDOW", "LIMIT", "UNION",
		"INTERSECT", "EXCEPT", "FOR", "TABLESAMPLE", "PIVOT", "UNPIVOT", "VALUES", "WHEN",
	} {
		if t.is(word) {
			return true
		}
	}
	return false
}

func introducesTable(t token) bool {
	for _, word := range []string{"FROM", "JOIN", "UPDATE", "INTO", "DELETE", "USING", "MERGE", ","} {
		if t.is(word) {
			return true
		}
	}
	return false
}

// where reads the WHERE clause.
func (pr *pruner) where(level []token) ([]span, bool) {
	start, end := -1, len(level)
	for i := range topLevel(level) {
		t := level[i]
		switch {
		case start < 0 && t.is("WHERE"):
			start = i + 1
		case start >= 0 && (t.is("GROUP") || t.is("QUALIFY") || t.is("HAVING") || t.is("ORDER") || t.is("LIMIT") || t.is("WINDOW")):
			end = min(end, i)
		}
	}
	if start < 0 {
		return nil, false
	}
	return pr.condition(level[start:end])
}

// topLevel yields the indexes outside of parentheses and CASE.
func topLevel(tokens []token) iter.Seq[int] {
	return func(yield func(int) bool) {
		depth := 0
		for i, t := range tokens {
			switch {
			case t.is("("), t.is("CASE"):
				depth++
			case t.is(")"), t.is("END"):
				depth--
			case depth == 0:
				if !yield(i) {
					return
				}
			}
		}
	}
}

// condition is the union of ranges outside of which a condition cannot be
// true; not ok where it does not bound the column.
func (pr *pruner) condition(tokens []token) (ranges []span, ok bool) {
	if alternatives := splitAt(tokens, "OR"); len(alternatives) > 1 {
		for _, a := range alternatives {
			r, ok := pr.condition(a)
			if !ok {
				return nil, false
			}
			ranges = append(ranges, r...)
		}
		return ranges, true
	}
	for _, c := range splitAt(tokens, "AND") {
		r, bounded := pr.conjunct(c)
		switch {
		case bounded && ok:
			ranges = both(ranges, r)
		case bounded:
			ranges, ok = r, true
		}
	}
	return ranges, ok
}

// splitAt splits at a word, but not at the AND of a BETWEEN.
func splitAt(tokens []token, word string) [][]token {
	var out [][]token
	start, between := 0, false
	for i := range topLevel(tokens) {
		switch t := tokens[i]; {
		case t.is("BETWEEN"):
			between = true
		case t.is("AND") && between:
			between = false
		case t.is(word):
			out = append(out, tokens[start:i])
			start = i + 1
		}
	}
	return append(out, tokens[start:])
}

// conjunct reads FALSE, `column op constant`, BETWEEN, IN, IS NULL, or a
// condition in parentheses.
func (pr *pruner) conjunct(c []token) ([]span, bool) {
	if len(c) > 2 && c[0].is("(") && matching(c, 0) == len(c)-1 {
		return pr.condition(c[1 : len(c)-1])
	}
	if len(c) == 1 && c[0].is("FALSE") {
		return nil, true
	}
	unit, rest, ok := pr.column(c)
	if !ok {
		r, ok := pr.reversed(c)
		return []span{r}, ok
	}
	if len(rest) < 2 {
		return nil, false
	}
	op, operand := rest[0], rest[1:]
	switch {
	case op.is("IS") && len(operand) == 1 && operand[0].is("NULL"):
		return []span{{null: true}}, true
	case op.is("BETWEEN"):
		for i, t := range operand {
			if t.is("AND") {
				low, ok1 := pr.constant(operand[:i])
				high, ok2 := pr.constant(operand[i+1:])
				return []span{{low: low, high: pr.through(high, unit)}}, ok1 && ok2
			}
		}
	case op.is("IN"):
		return pr.in(operand, unit)
	case op.is("="), op.is("<"), op.is("<="), op.is(">"), op.is(">="):
		v, ok := pr.constant(operand)
		return []span{pr.compare(op.text, v, unit)}, ok
	}
	return nil, false
}

func (pr *pruner) compare(op string, v int64, unit string) span {
	switch op {
	case "=":
		return span{low: v, high: pr.through(v, unit)}
	case "<":
		return span{low: math.MinInt64, high: v - 1}
	case "<=":
		return span{low: math.MinInt64, high: pr.through(v, unit)}
	case ">":
		return span{low: pr.through(v, unit) + 1, high: math.MaxInt64}
	}
	return span{low: v, high: math.MaxInt64}
}

// through is the last microsecond that a value stands for: itself, its day for
// DATE, or its unit where the column was truncated.
func (pr *pruner) through(v int64, unit string) int64 {
	if unit == "" {
		if pr.t.part.kind != kindDate {
			return v
		}
		unit = "DAY"
	}
	p := partitioning{unit: unit}
	layout, _ := p.layout()
	_, last, err := p.bounds(microsTime(v).Format(layout))
	if err != nil {
		return math.MaxInt64
	}
	return last
}

// reversed reads `constant op column`.
func (pr *pruner) reversed(c []token) (span, bool) {
	flip := map[string]string{"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
	depth := 0
	for i, t := range c {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case depth == 0 && t.kind == tokenSymbol && flip[t.text] != "":
			unit, rest, ok := pr.column(c[i+1:])
			if !ok || len(rest) > 0 {
				return span{}, false
			}
			v, ok := pr.constant(c[:i])
			return pr.compare(flip[t.text], v, unit), ok
		}
	}
	return span{}, false
}

// column reads the partitioning column, plain, in DATE() or truncated.
func (pr *pruner) column(c []token) (unit string, rest []token, ok bool) {
	parts, next := namePath(c, 0)
	if len(parts) == 0 {
		return "", nil, false
	}
	if next < len(c) && c[next].is("(") && len(parts) == 1 {
		end := matching(c, next)
		if end >= len(c) {
			return "", nil, false
		}
		return pr.truncated(strings.ToUpper(parts[0]), c[next+1:end], c[end+1:])
	}
	return "", c[next:], pr.partColumn(parts)
}

func (pr *pruner) truncated(function string, args, rest []token) (string, []token, bool) {
	parts, next := namePath(args, 0)
	if !pr.partColumn(parts) {
		return "", nil, false
	}
	switch function {
	case "DATE":
		return "DAY", rest, next == len(args)
	case "DATE_TRUNC", "TIMESTAMP_TRUNC", "DATETIME_TRUNC":
		if len(args) != next+2 || !args[next].is(",") {
			return "", nil, false
		}
		unit := strings.ToUpper(args[next+1].text)
		switch unit {
		case "HOUR", "DAY", "MONTH", "YEAR":
			return unit, rest, true
		}
	}
	return "", nil, false
}

// partColumn says whether a path is the partitioning column of the reading.
func (pr *pruner) partColumn(parts []string) bool {
	switch len(parts) {
	case 1:
		return strings.EqualFold(parts[0], pr.t.part.column)
	case 2:
		return strings.EqualFold(parts[0], pr.alias) && strings.EqualFold(parts[1], pr.t.part.column)
	}
	return false
}

func (pr *pruner) in(operand []token, unit string) ([]span, bool) {
	values, ok := pr.list(operand)
	if !ok {
		return nil, false
	}
	out := make([]span, len(values))
	for i, v := range values {
		out[i] = span{low: v, high: pr.through(v, unit)}
	}
	return out, true
}

// list reads the operand of IN: constants, or an array parameter.
func (pr *pruner) list(operand []token) (values []int64, ok bool) {
	if len(operand) > 3 && operand[0].is("UNNEST") && operand[2].kind == tokenParameter {
		p, err := pr.q.parameter(strings.TrimPrefix(operand[2].text, "@"))
		if err != nil {
			return nil, false
		}
		for _, text := range p.scalars {
			v, ok := pr.parse(text)
			if !ok {
				return nil, false
			}
			values = append(values, v)
		}
		return values, true
	}
	if len(operand) < 3 || !operand[0].is("(") {
		return nil, false
	}
	start := 1
	for i := 1; i < len(operand); i++ {
		if !operand[i].is(",") && i != len(operand)-1 {
			continue
		}
		v, ok := pr.constant(operand[start:i])
		if !ok {
			return nil, false
		}
		values, start = append(values, v), i+1
	}
	return values, true
}

// constant reads a literal or a parameter, in a cast function or not.
func (pr *pruner) constant(c []token) (int64, bool) {
	if len(c) >= 2 && (c[0].is("DATE") || c[0].is("TIMESTAMP") || c[0].is("DATETIME")) {
		c = c[1:]
	}
	if len(c) == 3 && c[0].is("(") && c[2].is(")") {
		c = c[1:2]
	}
	if len(c) != 1 {
		return 0, false
	}
	switch c[0].kind {
	case tokenString:
		return pr.parse(strings.Trim(c[0].text, `'"`))
	case tokenParameter:
		p, err := pr.q.parameter(strings.TrimPrefix(c[0].text, "@"))
		if err != nil || len(p.scalars) != 1 || p.field.repeated {
			return 0, false
		}
		return pr.parse(p.scalars[0])
	case tokenBlank, tokenNumber, tokenQuoted, tokenSymbol, tokenWord:
	}
	return 0, false
}

func (pr *pruner) parse(text string) (int64, bool) {
	v, err := parseTimestamp(text)
	return v, err == nil
}

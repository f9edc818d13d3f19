package bigquery

import (
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
	if pr.unbounded || len(pr.ranges) == 0 {
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

func (r span) and(o span) span {
	if r.null != o.null {
		return span{low: 1} // empty, and not of NULL
	}
	return span{max(r.low, o.low), min(r.high, o.high), r.null}
}

// pruner collects the range of each reading of one table.
type pruner struct {
	q         statementRequest
	t         *table
	ranges    []span
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
	readings := 0
	for i := 0; i < len(level); {
		parts, next := namePath(level, i)
		if id, ok := pr.q.resolve(parts); ok && id == pr.t.id && i > 0 && introducesTable(level[i-1]) && (!level[0].is("INSERT") || !level[i-1].is("INTO")) {
			readings++
		}
		i = max(next, i+1)
	}
	if readings == 0 {
		return
	}
	r, ok := pr.where(level)
	// A condition on a join of the table with itself names one of the two.
	if !ok || readings > 1 {
		pr.unbounded = true
		return
	}
	pr.ranges = append(pr.ranges, r)
}

func introducesTable(t token) bool {
	for _, word := range []string{"FROM", "JOIN", "UPDATE", "INTO", "DELETE", "USING", "MERGE", ","} {
		if t.is(word) {
			return true
		}
	}
	return false
}

// where intersects the bounds of the WHERE clause's conjuncts.
func (pr *pruner) where(level []token) (span, bool) {
	start, end := -1, len(level)
	depth := 0
	for i, t := range level {
		if t.is("(") {
			depth++
		}
		if t.is(")") {
			depth--
		}
		if depth > 0 {
			continue
		}
		switch {
		case start < 0 && (t.is("WHERE") || t.is("ON") && level[0].is("MERGE")):
			start = i + 1
		case start >= 0 && (t.is("GROUP") || t.is("QUALIFY") || t.is("HAVING") || t.is("ORDER") || t.is("LIMIT") || t.is("WINDOW") || t.is("WHEN")):
			end = min(end, i)
		case start >= 0 && i < end && t.is("OR"):
			return span{}, false
		}
	}
	if start < 0 {
		return span{}, false
	}
	out, found := span{low: math.MinInt64, high: math.MaxInt64}, false
	for _, c := range conjuncts(level[start:end]) {
		r, ok := pr.conjunct(c)
		if !ok {
			continue
		}
		if !found {
			out.null = r.null
		}
		out, found = out.and(r), true
	}
	return out, found
}

// conjuncts splits at AND, but not at the AND of a BETWEEN.
func conjuncts(tokens []token) [][]token {
	var out [][]token
	start, depth, between := 0, 0, false
	for i, t := range tokens {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case depth > 0:
		case t.is("BETWEEN"):
			between = true
		case t.is("AND") && between:
			between = false
		case t.is("AND"):
			out = append(out, tokens[start:i])
			start = i + 1
		}
	}
	return append(out, tokens[start:])
}

// conjunct reads `column op constant`, BETWEEN, IN, IS NULL.
func (pr *pruner) conjunct(c []token) (span, bool) {
	if len(c) > 2 && c[0].is("(") && matching(c, 0) == len(c)-1 {
		inner := c[1 : len(c)-1]
		for _, t := range inner {
			if t.is("OR") {
				return span{}, false
			}
		}
		return pr.where(append([]token{{kind: tokenWord, text: "WHERE"}}, inner...))
	}
	unit, rest, ok := pr.column(c)
	if !ok {
		return pr.reversed(c)
	}
	if len(rest) < 2 {
		return span{}, false
	}
	op, operand := rest[0], rest[1:]
	switch {
	case op.is("IS") && len(operand) == 1 && operand[0].is("NULL"):
		return span{null: true}, true
	case op.is("BETWEEN"):
		for i, t := range operand {
			if t.is("AND") {
				low, ok1 := pr.constant(operand[:i])
				high, ok2 := pr.constant(operand[i+1:])
				return span{low: low, high: pr.through(high, unit)}, ok1 && ok2
			}
		}
	case op.is("IN"):
		return pr.in(operand, unit)
	case op.is("="), op.is("<"), op.is("<="), op.is(">"), op.is(">="):
		v, ok := pr.constant(operand)
		return pr.compare(op.text, v, unit), ok
	}
	return span{}, false
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
	return "", c[next:], strings.EqualFold(parts[len(parts)-1], pr.t.part.column) && len(parts) <= 2
}

func (pr *pruner) truncated(function string, args, rest []token) (string, []token, bool) {
	parts, next := namePath(args, 0)
	if len(parts) == 0 || len(parts) > 2 || !strings.EqualFold(parts[len(parts)-1], pr.t.part.column) {
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

func (pr *pruner) in(operand []token, unit string) (span, bool) {
	var values []int64
	if len(operand) > 3 && operand[0].is("UNNEST") && operand[2].kind == tokenParameter {
		p, err := pr.q.parameter(strings.TrimPrefix(operand[2].text, "@"))
		if err != nil {
			return span{}, false
		}
		for _, text := range p.scalars {
			v, ok := pr.parse(text)
			if !ok {
				return span{}, false
			}
			values = append(values, v)
		}
	} else {
		if len(operand) < 3 || !operand[0].is("(") {
			return span{}, false
		}
		start := 1
		for i := 1; i < len(operand); i++ {
			if !operand[i].is(",") && i != len(operand)-1 {
				continue
			}
			v, ok := pr.constant(operand[start:i])
			if !ok {
				return span{}, false
			}
			values, start = append(values, v), i+1
		}
	}
	if len(values) == 0 {
		return span{low: 1}, true
	}
	// The hull of the values: an upper bound, as a dry run's estimate is.
	out := span{low: math.MaxInt64, high: math.MinInt64}
	for _, v := range values {
		out.low, out.high = min(out.low, v), max(out.high, pr.through(v, unit))
	}
	return out, true
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

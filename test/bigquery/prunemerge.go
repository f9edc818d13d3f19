package bigquery

// mergeShape is a MERGE taken apart as far as pruning needs it.
type mergeShape struct {
	target, source           []string // paths; source is empty for a subquery
	targetAlias, sourceAlias string
	on                       []token
	when                     []mergeBranch
}

// mergeBranch is one WHEN clause: which rows it is about, what of the target
// it changes, and its search condition.
type mergeBranch struct {
	matched, bySource bool
	inserts           bool
	search            []token
}

// readMerge takes a MERGE apart whose subqueries are one token each. What does
// not have the form is left empty: the grammar is the translator's to check.
func readMerge(level []token) mergeShape {
	var m mergeShape
	start := 1
	if len(level) > 1 && level[1].is("INTO") {
		start = 2
	}
	var next int
	m.target, next = namePath(level, start)
	if len(m.target) == 0 {
		return m
	}
	m.targetAlias = aliasAt(level, next, m.target)
	using, on, whens := -1, -1, []int{}
	for i := range topLevel(level) {
		switch t := level[i]; {
		case using < 0 && t.is("USING"):
			using = i
		case using >= 0 && on < 0 && t.is("ON"):
			on = i
		case on >= 0 && t.is("WHEN"):
			whens = append(whens, i)
		}
	}
	if on < 0 || len(whens) == 0 {
		return m
	}
	if m.source, next = namePath(level, using+1); len(m.source) > 0 {
		m.sourceAlias = aliasAt(level, next, m.source)
	}
	m.on = level[on+1 : whens[0]]
	for i, at := range whens {
		end := len(level)
		if i+1 < len(whens) {
			end = whens[i+1]
		}
		m.when = append(m.when, readBranch(level[at+1:end]))
	}
	return m
}

func readBranch(clause []token) mergeBranch {
	b := mergeBranch{matched: len(clause) > 0 && clause[0].is("MATCHED")}
	and := -1
	for i := range topLevel(clause) {
		switch t := clause[i]; {
		case and < 0 && t.is("SOURCE"):
			b.bySource = true
		case and < 0 && t.is("AND"):
			and = i
		case t.is("THEN"):
			if and >= 0 {
				b.search = clause[and+1 : i]
			}
			b.inserts = i+1 < len(clause) && clause[i+1].is("INSERT")
			return b
		}
	}
	return b
}

// onlyInserts says whether a MERGE changes no row that exists.
func (m mergeShape) onlyInserts() bool {
	for _, w := range m.when {
		if !w.inserts {
			return false
		}
	}
	return true
}

func (m mergeShape) all(is func(mergeBranch) bool) bool {
	for _, w := range m.when {
		if !is(w) {
			return false
		}
	}
	return true
}

// merge bounds what a MERGE reads of its target and of a source table, by the
// rules of https://cloud.google.com/bigquery/docs/using-dml-with-partitioned-tables#pruning_partitions_when_using_a_merge_statement
// Where those leave it to the optimizer, nothing is pruned.
func (pr *pruner) merge(level []token) {
	m := readMerge(level)
	if pr.names(m.target) {
		pr.alias = m.targetAlias
		pr.add(pr.mergeTarget(m))
	}
	if len(m.source) > 0 && pr.names(m.source) {
		pr.alias = m.sourceAlias
		pr.add(pr.mergeSource(m))
	}
}

func (m mergeShape) neverMatches() bool { return len(m.on) == 1 && m.on[0].is("FALSE") }

func (pr *pruner) mergeTarget(m mergeShape) ([]span, bool) {
	touched := func(w mergeBranch) bool { return w.bySource || w.matched && !m.neverMatches() }
	inserts := !m.all(func(w mergeBranch) bool { return !w.inserts })
	bySource := !m.all(func(w mergeBranch) bool { return !w.bySource })
	searched, bounded := pr.searches(m, touched)
	on, joined := pr.condition(m.on)
	switch {
	case bySource && inserts && !m.neverMatches():
		return nil, false // a full outer join
	case bySource:
		return searched, bounded
	case joined && bounded && !inserts:
		return both(on, searched), true
	case joined:
		return on, true
	}
	return searched, bounded && !inserts
}

func (pr *pruner) mergeSource(m mergeShape) ([]span, bool) {
	if m.neverMatches() {
		return pr.searches(m, func(w mergeBranch) bool { return w.inserts })
	}
	on, joined := pr.condition(m.on)
	return on, joined && m.all(func(w mergeBranch) bool { return w.matched })
}

// searches is the union of the search conditions of some clauses, each of
// which must bound the column.
func (pr *pruner) searches(m mergeShape, of func(mergeBranch) bool) ([]span, bool) {
	var out []span
	for _, w := range m.when {
		if !of(w) {
			continue
		}
		r, ok := pr.condition(w.search)
		if !ok {
			return nil, false
		}
		out = append(out, r...)
	}
	return out, true
}

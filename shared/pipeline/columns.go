package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// columnsDocument is what becomes of a table's columns, as it is written.
type columnsDocument struct {
	Include []string          `json:"include"`
	Exclude []string          `json:"exclude"`
	Rename  map[string]string `json:"rename"`
	Hash    []string          `json:"hash"`
	As      map[string]string `json:"as"`
	Compute map[string]string `json:"compute"`
}

// MetadataColumns returns the columns that every table in BigQuery has beside the
// source's own.
func MetadataColumns() []string { return []string{"_version", "_synced_at", "_deleted"} }

// columns reads what becomes of the columns of t, whose other keys are set.
func (r *reader) columns(at string, d columnsDocument, t *Table) Columns {
	c := Columns{Include: d.Include, Exclude: d.Exclude, Hash: d.Hash, As: d.As}
	for from, to := range d.Rename {
		c.Rename = append(c.Rename, Mapping{from, to})
	}
	sortMappings(c.Rename, func(from string) int { return r.line(at + "/rename/" + from) })
	for name, sql := range d.Compute {
		c.Compute = append(c.Compute, Computed{name, sql})
		r.statement(at+"/compute/"+name, sql, "write an expression of Postgres, such as first || ' ' || last")
	}
	slices.SortFunc(c.Compute, func(a, b Computed) int {
		if d := r.line(at+"/compute/"+a.Name) - r.line(at+"/compute/"+b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	if len(c.Include) > 0 && len(c.Exclude) > 0 {
		r.problem(at+"/exclude", "columns has both include and exclude", "keep one of them: include names all that is carried, exclude what is not")
	}
	if t.Query != "" {
		r.queryColumns(at, c)
	}
	r.needed(at, c, t)
	r.absent(at, c)
	r.landed(at, c, t)
	return c
}

// queryColumns refuses what a query says in its own SQL.
func (r *reader) queryColumns(at string, c Columns) {
	if len(c.Rename) > 0 {
		r.problem(at+"/rename", "a query names its columns itself", "write it into the query: SELECT mail AS email")
	}
	if len(c.Compute) > 0 {
		r.problem(at+"/compute", "a query computes its columns itself", "write it into the query: SELECT first || ' ' || last AS full_name")
	}
}

// carries reports whether the column of the source reaches BigQuery.
func (c *Columns) carries(name string) bool {
	return !slices.Contains(c.Exclude, name) && (len(c.Include) == 0 || slices.Contains(c.Include, name))
}

// target is the name in BigQuery of the source's column.
func (c *Columns) target(name string) string {
	if i := slices.IndexFunc(c.Rename, func(m Mapping) bool { return m.From == name }); i >= 0 {
		return c.Rename[i].To
	}
	return name
}

// needed refuses to leave out the columns that a table cannot do without.
func (r *reader) needed(at string, c Columns, t *Table) {
	need := func(name, what string) {
		if name == "" || c.carries(name) {
			return
		}
		if slices.Contains(c.Exclude, name) {
			r.problem(at+"/exclude", fmt.Sprintf("exclude names %q, which is %s", name, what), "take it out of exclude; to hide its values, hash it")
			return
		}
		r.problem(at+"/include", fmt.Sprintf("include leaves out %q, which is %s", name, what), "add it to include; to hide its values, hash it")
	}
	for _, name := range t.Key {
		need(name, "of the key")
	}
}

// absent refuses to rename, hash or cast a column that is not carried.
func (r *reader) absent(at string, c Columns) {
	check := func(at, name, verb string) {
		switch {
		case slices.Contains(c.Exclude, name):
			r.problem(at, fmt.Sprintf("%s names %q, which is excluded", verb, name), "take it out of one of them")
		case !c.carries(name):
			r.problem(at, fmt.Sprintf("%s names %q, which include does not", verb, name), "add it to include, or take it out of "+verb)
		}
	}
	for _, m := range c.Rename {
		check(at+"/rename/"+m.From, m.From, "rename")
	}
	for i, name := range c.Hash {
		check(at+"/hash/"+strconv.Itoa(i), name, "hash")
	}
	for _, name := range slices.Sorted(maps.Keys(c.As)) {
		check(at+"/as/"+name, name, "as")
		if slices.Contains(c.Hash, name) {
			r.problem(at+"/as/"+name, fmt.Sprintf("column %q is both hashed and given another type", name), "keep one of them: a hash is a STRING")
		}
	}
}

// landed refuses two columns of one name in BigQuery, where upper and lower case are
// the same, as far as the file tells them.
func (r *reader) landed(at string, c Columns, t *Table) {
	taken := map[string]string{}
	for _, name := range MetadataColumns() {
		taken[name] = "metadata of every table"
	}
	take := func(at, name, by string) {
		if other, twice := taken[strings.ToLower(name)]; twice {
			r.problem(at, fmt.Sprintf("the name %q is taken: it is %s", name, other), "choose another name; upper and lower case are the same in BigQuery")
			return
		}
		taken[strings.ToLower(name)] = by
	}
	// Who hashes or casts a column, or has it in the key, knows it to be there.
	for _, name := range slices.Concat(t.Key, c.Include, c.Hash, slices.Sorted(maps.Keys(c.As))) {
		if _, twice := taken[strings.ToLower(name)]; !twice && c.target(name) == name && c.carries(name) {
			taken[strings.ToLower(name)] = "a column of the source"
		}
	}
	for _, m := range c.Rename {
		take(at+"/rename/"+m.From, m.To, fmt.Sprintf("what %q is renamed to", m.From))
	}
	for _, x := range c.Compute {
		take(at+"/compute/"+x.Name, x.Name, "a computed column")
	}
	r.shaped(c, t, at[:strings.LastIndexByte(at, '/')])
}

// shaped checks the columns that a table is partitioned and clustered by, which are BigQuery's.
func (r *reader) shaped(c Columns, t *Table, at string) {
	check := func(at, name, key string) {
		renamed := func(m Mapping) bool { return strings.EqualFold(m.To, name) }
		computed := func(x Computed) bool { return strings.EqualFold(x.Name, name) }
		if slices.ContainsFunc(c.Rename, renamed) || slices.ContainsFunc(c.Compute, computed) {
			return
		}
		if to := c.target(name); to != name {
			r.problem(at, fmt.Sprintf("%s names %q, which is %q in BigQuery", key, name, to), "write "+key+" with the names of BigQuery")
		} else if !c.carries(name) && !slices.Contains(MetadataColumns(), strings.ToLower(name)) {
			r.problem(at, fmt.Sprintf("%s names %q, which is not carried", key, name), "carry the column, or name another")
		}
	}
	if t.PartitionBy != nil {
		check(at+"/partition_by/column", t.PartitionBy.Column, "partition_by")
		if slices.Contains(c.Hash, t.PartitionBy.Column) {
			r.problem(at+"/partition_by/column", fmt.Sprintf("partition_by names %q, which is hashed", t.PartitionBy.Column), "name a column of dates or times")
		}
	}
	for i, name := range t.ClusterBy {
		check(at+"/cluster_by/"+strconv.Itoa(i), name, "cluster_by")
	}
}

// where reads the condition on a table's rows.
func (r *reader) where(at, sql string, t *Table) string {
	switch {
	case sql == "":
	case t.Query != "":
		r.problem(at, "where goes with a table, and this is a query", "write the condition into the query")
	default:
		r.statement(at, sql, "write a condition, such as status <> 'draft'")
	}
	return sql
}

// Bounds and defaults of the write modes; the schema documents the same.
const (
	// defaultMaxStaleness follows BigQuery's advice, twice the time of a background apply
	// and 7 minutes, for an apply of 4 minutes.
	defaultMaxStaleness = "15m"
	maxMaxStaleness     = 24 * time.Hour
	defaultMaxRejects   = 10.0 // percent
	// minKeepDeleted is beyond any change that could still arrive with an older version.
	minKeepDeleted = 24 * time.Hour
	// minReplaceEvery keeps a day's loads below the 1,500 that BigQuery allows a table.
	minReplaceEvery = time.Minute
)

// write checks how a table lands against how it is captured, and what it says of deletes;
// explicit is what the table itself says of them.
func (r *reader) write(at string, t *Table, explicit Deletes) {
	switch {
	case t.Write == WriteReplace:
		r.replace(at, t, explicit)
	case t.Write == WriteHistory && t.Deletes == DeletesHard:
		if explicit != "" {
			r.problem(at+"/deletes", "a history keeps every row, and deletes is hard", "write deletes: soft, for a version that says the row is gone, or deletes: ignore")
		}
		t.Deletes = DeletesSoft
	}
}

// replace checks a table that every snapshot fills anew.
func (r *reader) replace(at string, t *Table, explicit Deletes) {
	if t.Capture.Method != MethodSnapshot {
		r.problem(at+"/write", fmt.Sprintf("replace needs the whole table every time, and the method is %s", t.Capture.Method), "write capture: {method: snapshot}, or write: merge")
	}
	if explicit != "" && explicit != DeletesHard {
		r.problem(at+"/deletes", fmt.Sprintf("replace leaves nothing of rows that are gone, and deletes is %s", explicit), "leave deletes out, or write: merge")
	}
	t.Deletes = DeletesHard
	if every, ok := t.Every.Interval(); ok && every < minReplaceEvery {
		r.problem(at+"/every", fmt.Sprintf("replace is a load job every %s, and BigQuery allows 1,500 of a table a day", t.Every), "write every: 1m or more, or write: merge")
	}
}

// staleness reads max_staleness of a table whose write mode is set.
func (r *reader) staleness(at, text string, t *Table) time.Duration {
	if t.Write != WriteCDC {
		if text != "" {
			r.problem(at, fmt.Sprintf("max_staleness goes with write: cdc, and this is %s", t.Write), "leave it out, or write: cdc")
		}
		return 0
	}
	if text == "" {
		text = defaultMaxStaleness
	}
	d := r.duration(at, text)
	if d > maxMaxStaleness {
		r.problem(at, fmt.Sprintf("max_staleness of %s is over a day", text), "write 24h or less")
	}
	return d
}

// keepDeleted reads how long deleted rows are kept.
func (r *reader) keepDeleted(at, text string) time.Duration {
	if text == "" {
		return 0
	}
	d := r.duration(at, text)
	if d < minKeepDeleted {
		r.problem(at, fmt.Sprintf("keep_deleted of %s is under a day", text), "write 24h or more: a change that comes late has to meet its tombstone")
	}
	return d
}

// share takes the first percentage that is given.
func share(percent ...*float64) float64 {
	for _, p := range percent {
		if p != nil {
			return *p / 100
		}
	}
	return defaultMaxRejects / 100
}

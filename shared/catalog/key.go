package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// CheckKey returns the key to use, declared or primary, or says why it cannot
// name a row. Of a query's key only the types are known: whether it is unique and
// not NULL shows when its rows are read.
func (t *Table) CheckKey(declared []string) ([]string, error) {
	key := declared
	if len(key) == 0 {
		key = t.Primary
	}
	if len(key) == 0 {
		return nil, t.keyless()
	}
	for _, name := range key {
		if err := t.checkKeyColumn(name); err != nil {
			return nil, err
		}
	}
	if t.query != "" || slices.ContainsFunc(t.indexes, func(i index) bool { return i.unique && i.within(key) }) {
		return key, nil
	}
	return nil, fault.Fix(fmt.Errorf("key (%s) of %s is not unique: no unique index covers it", strings.Join(key, ", "), t.Name),
		fmt.Sprintf("CREATE UNIQUE INDEX CONCURRENTLY ON %s (%s)", t.SQLName(), strings.Join(QuoteAll(key), ", ")))
}

func (t *Table) keyless() error {
	if t.query != "" {
		return fault.Fix(fmt.Errorf("the query of %s has no key", t.Name),
			"declare key: [..] in the pipeline file, naming the output columns that tell its rows apart")
	}
	return fault.Fix(fmt.Errorf("%s has no primary key and the pipeline file declares no key", t.Name),
		"add a primary key, or key: [..] naming columns with a unique index")
}

func (t *Table) checkKeyColumn(name string) error {
	if t.Stored(name) == nil {
		return t.Missing("key column", name)
	}
	c := t.Column(name)
	if c == nil || c.Computed {
		return fault.Fix(fmt.Errorf("key column %s of %s is not carried", name, t.Name), "take it out of columns.exclude, or add it to columns.include; to hide its values, hash it")
	}
	if !c.NotNull && t.query == "" {
		return fault.Fix(fmt.Errorf("key column %s of %s may be NULL", name, t.Name),
			fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL", t.SQLName(), Quote(name)))
	}
	if c.Repeated || slices.Contains(ungrouped(), c.Kind) {
		return fault.Fix(fmt.Errorf("key column %s of %s is a %s, which BigQuery cannot group by exactly", name, t.Name, c.Type),
			"choose key columns of integer, text, uuid, date, time or numeric type")
	}
	if (c.Hash || c.As != "") && c.Kind == rowwire.Text && slices.Contains([]string{"float4", "float8", "numeric", "json", "jsonb", "interval"}, c.Base) {
		return fault.Fix(fmt.Errorf("key column %s of %s is a %s, of which equal values may have several texts", name, t.Name, c.Type),
			"choose key columns of integer, text, uuid, date or time type, or carry it as it is")
	}
	return nil
}

// ungrouped are the kinds whose values BigQuery does not group by, or takes for the same
// where Postgres does not.
func ungrouped() []rowwire.Kind {
	return []rowwire.Kind{
		rowwire.JSON, rowwire.JSONB, rowwire.JSONText, rowwire.Float4, rowwire.Float8, rowwire.NumericFloat, rowwire.Interval, rowwire.Geography,
	}
}

// within reports whether the key holds every column of the index.
func (i index) within(key []string) bool {
	return !slices.ContainsFunc(i.columns, func(c string) bool { return !slices.Contains(key, c) })
}

// ChunkKey returns the columns that the table can be read by in pieces: a unique
// index, of columns of the key, serves ORDER BY columns and the row comparison
// (columns) > (..). Their types are built-in ones (Base) and none may be NULL.
// Without such an index, as for any query, ok is false.
func (t *Table) ChunkKey(key []string) (columns []string, ok bool) {
	for _, i := range t.indexes {
		if i.keyset && i.within(key) && !slices.ContainsFunc(i.columns, func(name string) bool { return !t.Column(name).chunkable() }) {
			return slices.Clone(i.columns), true
		}
	}
	return nil, false
}

func (c *Column) chunkable() bool { return c.Base != "" && c.NotNull && !c.Repeated }

// Collated reports whether a collation says which values of the column are equal.
func (c *Column) Collated() bool {
	return slices.Contains([]string{"text", "varchar", "bpchar"}, c.Base)
}

package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Rows are the rows of one table or query that a unit reads: how one is named, and
// whose they are.
type Rows struct {
	Table   *catalog.Table
	Key     []string
	Filters []Filter // all must hold
	Deletes bool     // rows that are gone leave tombstones

	key    []int  // columns of the key, by position in Table.Columns
	prefix string // of the settings that its values are bound to
}

// Filter keeps the rows whose column has a value.
type Filter struct{ Column, Value string }

// Describe reads a declared table, or query, from the catalogue, as far as it is
// carried. hashKey is what its hashed columns are hashed with; without one its rows
// cannot be read.
func Describe(ctx context.Context, source *pgxpool.Pool, schema string, t *pipeline.Table, hashKey []byte) (*catalog.Table, error) {
	var table *catalog.Table
	var err error
	if t.Query != "" {
		table, err = catalog.DescribeQuery(ctx, source, schema, t.Name, t.Query)
	} else {
		table, err = catalog.Describe(ctx, source, schema, t.Name)
	}
	if err != nil {
		return nil, err
	}
	return table, table.Declare(ctx, source, t.Columns, t.Where, hashKey)
}

// NewRows checks the key and the filters against the table.
func NewRows(r Rows) (*Rows, error) {
	t := r.Table
	var err error
	if r.Key, err = t.CheckKey(r.Key); err != nil {
		return nil, err
	}
	for _, f := range r.Filters {
		if t.Stored(f.Column) == nil {
			return nil, t.Missing("tenant column", f.Column)
		}
		t.Need(f.Column)
	}
	for _, c := range t.Columns {
		if c.Hash && len(c.HashKey) == 0 {
			return nil, fault.Fix(fmt.Errorf("column %s of %s is to be hashed, and there is no key to hash it with", c.Name, t.Name),
				"set TIDEMARK_HASH_KEY, see the README")
		}
	}
	for _, name := range r.Key {
		r.key = append(r.key, t.Index(name))
	}
	return &r, nil
}

// KeyOf copies the key's COPY bytes out of a whole row's.
func (r *Rows) KeyOf(tuple [][]byte) [][]byte {
	out := make([][]byte, len(r.key))
	for i, at := range r.key {
		out[i] = slices.Clone(tuple[at])
	}
	return out
}

// basis names the key with its types, the filters' columns, and what the declaration
// makes of the rows.
func (r *Rows) basis() string {
	var b strings.Builder
	for _, at := range r.key {
		fmt.Fprintf(&b, " %s %s", catalog.Quote(r.Table.Columns[at].Name), r.Table.Columns[at].Type)
	}
	return b.String() + r.filtered()
}

// filtered names the columns of the filters, and what the declaration makes of the rows.
func (r *Rows) filtered() string {
	var b strings.Builder
	for _, f := range r.Filters {
		b.WriteString(" of " + catalog.Quote(f.Column))
	}
	return b.String() + r.Table.Declared()
}

// selected is the beginning of a SELECT of whole rows.
func (r *Rows) selected() string {
	list := make([]string, len(r.Table.Columns))
	for i, c := range r.Table.Columns {
		list[i] = c.Expr
	}
	return "SELECT " + strings.Join(list, ", ") + " FROM " + r.Table.Source()
}

// setting is the name that a value of these rows is bound to: those of several
// relations read in one session are told apart.
func (r *Rows) setting(name string) string { return "tidemark." + r.prefix + name }

func (r *Rows) filterName(i int) string { return r.setting("filter_" + strconv.Itoa(i)) }

func (s *session) bindFilters(ctx context.Context, r *Rows) error {
	for i, f := range r.Filters {
		if err := s.bind(ctx, r.filterName(i), f.Value); err != nil {
			return err
		}
	}
	return nil
}

// filterSQL continues a WHERE with the filters, whose values are bound in the
// session (I8).
func (r *Rows) filterSQL() string {
	var b strings.Builder
	for i, f := range r.Filters {
		b.WriteString(" AND " + equals(r.Table.Stored(f.Column), r.filterName(i)))
	}
	return b.String()
}

// carriedSQL continues a WHERE with the filters and the declared condition.
func (r *Rows) carriedSQL() string { return r.filterSQL() + r.conditionSQL() }

// conditionSQL continues a WHERE with the declared condition.
func (r *Rows) conditionSQL() string {
	if condition := r.Table.Condition(); condition != "" {
		return " AND " + condition
	}
	return ""
}

// tombstones is the beginning of a SELECT of rows that have their key and nothing else.
func (r *Rows) tombstones() string {
	list := make([]string, len(r.Table.Columns))
	for i, c := range r.Table.Columns {
		if list[i] = "NULL"; slices.Contains(r.key, i) {
			list[i] = c.Expr
		}
	}
	return "SELECT " + strings.Join(list, ", ") + " FROM " + r.Table.Source()
}

func equals(c *catalog.Column, name string) string {
	if c.Base == "" {
		return catalog.Quote(c.Name) + "::text = " + bound(name, "text")
	}
	return catalog.Quote(c.Name) + " = " + bound(name, c.Base)
}

// keyNames are the names that a relation of keys gives its columns.
func (r *Rows) keyNames() []string {
	out := make([]string, len(r.key))
	for i := range r.key {
		out[i] = "k" + strconv.Itoa(i)
	}
	return out
}

// keyType is the type that a key column is compared in. Types whose comparison
// operators may live outside pg_catalog are compared as text.
func keyType(c catalog.Column) string {
	if c.Base == "" {
		return "pg_catalog.text"
	}
	return "pg_catalog." + catalog.Quote(c.Base)
}

// compared are the key columns as a relation of keys is compared with them.
func (r *Rows) compared(prefix string) []string {
	out := make([]string, len(r.key))
	for i, at := range r.key {
		c := r.Table.Columns[at]
		out[i] = prefix + catalog.Quote(c.Name)
		if c.Base == "" {
			out[i] += "::text"
		}
	}
	return out
}

func (r *Rows) keySetting(i int) string { return r.setting("key_" + strconv.Itoa(i)) }

// bindKeys binds the texts of keys, which boundKeys then is a relation of.
func (s *session) bindKeys(ctx context.Context, r *Rows, keys [][]string) error {
	for i := range r.key {
		texts := make([]string, len(keys))
		for n, key := range keys {
			texts[n] = key[i]
		}
		if _, err := s.tx.Exec(ctx, `SELECT set_config($1, $2::text[]::text, true)`, r.keySetting(i), texts); err != nil {
			return fmt.Errorf("binding the keys: %w", err)
		}
	}
	return nil
}

// boundKeys is what to select the bound keys FROM.
func (r *Rows) boundKeys() string {
	arrays := make([]string, len(r.key))
	for i := range r.key {
		arrays[i] = "current_setting('" + r.keySetting(i) + "')::text[]"
	}
	return "unnest(" + strings.Join(arrays, ", ") + ")"
}

// typed is a relation of keys with its columns cast to the types they are compared in.
func (r *Rows) typed(relation string) string {
	names := r.keyNames()
	list := make([]string, len(names))
	for i, at := range r.key {
		list[i] = fmt.Sprintf("(%s)::%s AS %s", names[i], keyType(r.Table.Columns[at]), names[i])
	}
	return fmt.Sprintf("SELECT %s FROM (%s) AS changed(%s)", strings.Join(list, ", "), relation, strings.Join(names, ", "))
}

// presentSQL selects the rows whose key is in the relation, as they are now.
func (r *Rows) presentSQL(relation string) string {
	return fmt.Sprintf("%s WHERE (%s) IN (%s)%s", r.selected(), strings.Join(r.compared(""), ", "), r.typed(relation), r.carriedSQL())
}

// goneSQL selects the keys of the relation that no carried row has, as rows that hold
// nothing else. A key with a NULL names no row.
func (r *Rows) goneSQL(relation string) string {
	list := make([]string, len(r.Table.Columns))
	for i := range list {
		list[i] = "NULL"
	}
	var same, whole []string
	names, columns := r.keyNames(), r.compared("t.")
	for i, at := range r.key {
		c := r.Table.Columns[at]
		list[at] = c.Of("gone." + names[i])
		same = append(same, columns[i]+" = gone."+names[i])
		if c.Collated() { // a row that its collation takes for the same has another key
			same = append(same, columns[i]+` COLLATE pg_catalog."C" = gone.`+names[i])
		}
		whole = append(whole, "gone."+names[i]+" IS NOT NULL")
	}
	return fmt.Sprintf("SELECT %s FROM (SELECT DISTINCT * FROM (%s) AS d) AS gone WHERE %s AND NOT EXISTS (SELECT FROM (SELECT %s FROM %s WHERE true%s) AS t WHERE %s)",
		strings.Join(list, ", "), r.typed(relation), strings.Join(whole, " AND "), strings.Join(catalog.QuoteAll(r.Key), ", "), r.Table.Source(), r.carriedSQL(), strings.Join(same, " AND "))
}

// withheld is an error of Postgres without what it may say of the values of a row, where
// there are some that must not be seen, and with a remedy if the declaration's own SQL
// may have caused it.
func (r *Rows) withheld(err error) error {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !slices.Contains([]string{"21", "22", "23", "38", "39", "P0"}, refusal.Code[:min(2, len(refusal.Code))]) { // what depends on the data
		return err
	}
	if r.Table.Hides() {
		err = &pgconn.PgError{Severity: refusal.Severity, Code: refusal.Code, Message: "a row has a value that it fails on, and which must not be shown"}
	}
	if slices.ContainsFunc(r.Table.Columns, func(c catalog.Column) bool { return c.Computed }) || r.Table.Condition() != "" {
		return fault.Fix(err, "have columns.compute and where in the pipeline file give NULL for such a row: CASE WHEN .. THEN .. END")
	}
	return err
}

// twice is the error for a query that returns a key more than once.
func (r *Rows) twice() error {
	return fault.Fix(fmt.Errorf("the query of %s returns a key (%s) more than once", r.Table.Name, strings.Join(r.Key, ", ")),
		"GROUP BY the key, or add to key: what tells its rows apart")
}

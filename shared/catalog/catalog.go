// Package catalog reads what PostgreSQL says of a table: its columns and how
// each is read, its keys and indexes. Both directions start from it.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Table is a table as the catalogue describes it.
type Table struct {
	Schema  string
	Name    string
	Columns []Column
	Primary []string
	oid     uint32
	shape   string     // as the catalogue had it, see Unchanged
	only    bool       // a plain table: what inherits from it is not part of it
	uniques [][]string // columns of each unique index that holds for every row
	leading []string   // first column of each usable btree index
}

// Column is one column: how it is read and what it becomes.
type Column struct {
	Name     string
	Type     string // as Postgres writes it, for messages and the fingerprint
	NotNull  bool
	Kind     rowwire.Kind
	Repeated bool

	Expr    string // what is SELECTed for it
	Param   uint32 // OID of the SELECTed value
	Base    string // name of the built-in base type, domains resolved; "" for others
	refused string // why it cannot be carried
}

// SQLName is the table's qualified, quoted name.
func (t *Table) SQLName() string { return Quote(t.Schema) + "." + Quote(t.Name) }

// Index is the position of a column in Columns, -1 if there is none.
func (t *Table) Index(column string) int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == column })
}

// Source is what to read the table's rows from. Tables that inherit from a plain
// table are left out: its key does not hold for them.
func (t *Table) Source() string {
	if t.only {
		return "ONLY " + t.SQLName()
	}
	return t.SQLName()
}

const shapeSQL = `
	SELECT coalesce(string_agg(format('%s %s %s %s', attname, atttypid, atttypmod, attnotnull), ',' ORDER BY attnum), '')
	  FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped`

// Unchanged reports whether the table still has the columns it was described
// with. It is sure only while tx holds a lock on the table.
func (t *Table) Unchanged(ctx context.Context, tx pgx.Tx) (bool, error) {
	var shape string
	if err := tx.QueryRow(ctx, shapeSQL, t.oid).Scan(&shape); err != nil {
		return false, fmt.Errorf("comparing the columns: %w", err)
	}
	return shape == t.shape, nil
}

// Column returns the column of that name, or nil.
func (t *Table) Column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// Fingerprint changes when a column is added, dropped, renamed or retyped, or
// its nullability changes.
func (t *Table) Fingerprint() string {
	var b strings.Builder
	for _, c := range t.Columns {
		fmt.Fprintf(&b, "%s %s %t;", c.Name, c.Type, c.NotNull)
	}
	return b.String()
}

// Describe reads a table from the catalogue. A table that is missing, that is
// no table, or that has columns nothing can carry is a permanent error.
func Describe(ctx context.Context, pool *pgxpool.Pool, schema, name string) (*Table, error) {
	t := &Table{Schema: schema, Name: name}
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// Types outside pg_catalog come out qualified, whatever the role's search_path.
		if _, err := tx.Exec(ctx, `SELECT set_config('search_path', 'pg_catalog', true), set_config('statement_timeout', '30s', true)`); err != nil {
			return fmt.Errorf("preparing the catalogue read: %w", err)
		}
		if err := t.find(ctx, tx); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, shapeSQL, t.oid).Scan(&t.shape); err != nil {
			return fmt.Errorf("reading columns: %w", err)
		}
		if err := t.readColumns(ctx, tx); err != nil {
			return err
		}
		return t.readIndexes(ctx, tx)
	})
	if err != nil {
		return nil, fmt.Errorf("describing %s.%s: %w", schema, name, err)
	}
	return t, nil
}

func (t *Table) find(ctx context.Context, tx pgx.Tx) error {
	var kind string
	err := tx.QueryRow(ctx, `
		SELECT c.oid, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE n.nspname = $1 AND c.relname = $2`, t.Schema, t.Name).Scan(&t.oid, &kind)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fault.Fix(fmt.Errorf("table %s.%s does not exist", t.Schema, t.Name),
			"create it, or correct the name or source.schema in the pipeline file")
	case err != nil:
		return fmt.Errorf("looking it up: %w", err)
	case kind != "r" && kind != "p":
		return fault.Fix(fmt.Errorf("%s.%s is not a table", t.Schema, t.Name),
			"name the table underneath: a view or foreign table has no row versions to follow")
	}
	t.only = kind == "r"
	return nil
}

// The base of a domain is found by walking down; arrays show their element.
const columnsSQL = `
WITH RECURSIVE base AS (
	SELECT a.attnum, a.atttypid AS typid, a.atttypmod AS typmod
	  FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
	SELECT b.attnum, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE b.typmod END
	  FROM base b JOIN pg_type t ON t.oid = b.typid WHERE t.typtype = 'd'
), elem AS (
	SELECT b.attnum, t.typelem AS typid FROM base b JOIN pg_type t ON t.oid = b.typid AND t.typcategory = 'A' AND t.typelem <> 0
	UNION ALL
	SELECT e.attnum, t.typbasetype FROM elem e JOIN pg_type t ON t.oid = e.typid WHERE t.typtype = 'd'
)
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attndims,
       b.typid, b.typmod, t.typname, t.typtype::text, t.typcategory::text, n.nspname,
       coalesce(et.typname, ''), coalesce(et.typtype::text, ''), coalesce(en.nspname, '')
  FROM pg_attribute a
  JOIN base b ON b.attnum = a.attnum
  JOIN pg_type t ON t.oid = b.typid AND t.typtype <> 'd'
  JOIN pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN (elem e JOIN pg_type et ON et.oid = e.typid AND et.typtype <> 'd' JOIN pg_namespace en ON en.oid = et.typnamespace) ON e.attnum = a.attnum
 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum`

func (t *Table) readColumns(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, columnsSQL, t.oid)
	if err != nil {
		return fmt.Errorf("reading columns: %w", err)
	}
	var c Column
	var d typeFacts
	_, err = pgx.ForEachRow(rows, []any{
		&c.Name, &c.Type, &c.NotNull, &d.dims, &d.oid, &d.typmod, &d.name, &d.kind, &d.category, &d.schema,
		&d.elemName, &d.elemKind, &d.elemSchema,
	}, func() error {
		column := c
		column.plan(d)
		t.Columns = append(t.Columns, column)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading columns: %w", err)
	}
	return nil
}

func (t *Table) readIndexes(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `
		SELECT i.indisprimary, i.indisunique AND i.indimmediate AND i.indpred IS NULL AND NOT 0 = ANY (i.indkey::int2[]),
		       am.amname = 'btree' AND i.indpred IS NULL,
		       ARRAY(SELECT coalesce(a.attname, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
		             LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		             WHERE k.n <= i.indnkeyatts ORDER BY k.n)::text[]
		  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
		 WHERE i.indrelid = $1 AND i.indisvalid`, t.oid)
	if err != nil {
		return fmt.Errorf("reading indexes: %w", err)
	}
	var primary, unique, ordered bool
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&primary, &unique, &ordered, &columns}, func() error {
		names := slices.Clone(columns)
		if primary {
			t.Primary = names
		}
		if unique {
			t.uniques = append(t.uniques, names)
		}
		if ordered && len(names) > 0 {
			t.leading = append(t.leading, names[0])
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading indexes: %w", err)
	}
	return nil
}

// Leads reports whether a usable btree index begins with the column.
func (t *Table) Leads(column string) bool { return slices.Contains(t.leading, column) }

// CheckKey returns the key to use, declared or primary, or says why it cannot
// name a row.
func (t *Table) CheckKey(declared []string) ([]string, error) {
	key := declared
	if len(key) == 0 {
		key = t.Primary
	}
	if len(key) == 0 {
		return nil, fault.Fix(fmt.Errorf("%s has no primary key and the pipeline file declares no key", t.Name),
			"add a primary key, or key: [..] naming columns with a unique index")
	}
	for _, name := range key {
		c := t.Column(name)
		if c == nil {
			return nil, t.Missing("key column", name)
		}
		if !c.NotNull {
			return nil, fault.Fix(fmt.Errorf("key column %s of %s may be NULL", name, t.Name),
				fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL", t.SQLName(), Quote(name)))
		}
		if c.Repeated || c.Kind == rowwire.JSON || c.Kind == rowwire.JSONB || c.Kind == rowwire.Float4 || c.Kind == rowwire.Float8 {
			return nil, fault.Fix(fmt.Errorf("key column %s of %s is a %s, which BigQuery cannot group by exactly", name, t.Name, c.Type),
				"choose key columns of integer, text, uuid, date, time or numeric type")
		}
	}
	for _, unique := range t.uniques {
		if !slices.ContainsFunc(unique, func(c string) bool { return !slices.Contains(key, c) }) {
			return key, nil
		}
	}
	return nil, fault.Fix(fmt.Errorf("key (%s) of %s is not unique: no unique index covers it", strings.Join(key, ", "), t.Name),
		fmt.Sprintf("CREATE UNIQUE INDEX CONCURRENTLY ON %s (%s)", t.SQLName(), strings.Join(QuoteAll(key), ", ")))
}

// Missing is the permanent error for a column that a declaration names and the
// table does not have.
func (t *Table) Missing(what, name string) error {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	return fault.Fix(fmt.Errorf("%s %q of %s does not exist", what, name, t.Name),
		"correct the pipeline file; the table has: "+strings.Join(names, ", "))
}

// Readable fails with the columns that cannot be carried, if there are any (I3).
func (t *Table) Readable() error {
	var refused []string
	for _, c := range t.Columns {
		if c.refused != "" {
			refused = append(refused, fmt.Sprintf("%s (%s): %s", c.Name, c.Type, c.refused))
		}
	}
	if len(refused) == 0 {
		return nil
	}
	return fault.Fix(fmt.Errorf("%s has columns that cannot be carried: %s", t.Name, strings.Join(refused, "; ")),
		"change their type in the source")
}

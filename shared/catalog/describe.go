package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// index is what matters of an index. columns is empty where it begins with an
// expression.
type index struct {
	columns []string // in its order; "" for an expression
	unique  bool     // of every row, and at once
	ordered bool     // a btree of every row
	keyset  bool     // ordered as ORDER BY and the comparison of rows are
}

// The settings of catalogue reads hold for their transaction. Types outside
// pg_catalog come out qualified, whatever the role's search_path. The statements
// are looked up by a key: a plan of their own for each value would cost more than
// running them.
const catalogSettingsSQL = `
	SELECT pg_catalog.set_config('search_path', 'pg_catalog', true), pg_catalog.set_config('statement_timeout', '30s', true),
	       pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true), pg_catalog.set_config('jit', 'off', true)`

// typeSQL are the facts of a type t and of its element e.
const typeSQL = `t.oid, t.typname, t.typtype::text, t.typcategory::text, t.typnamespace::regnamespace::text, t.typbasetype, t.typtypmod,
	coalesce(e.typname, ''), coalesce(e.typtype::text, ''), coalesce(e.typnamespace::regnamespace::text, ''), coalesce(e.typbasetype, 0)`

const elementSQL = `LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'`

// A column that came with a default, an identity or NOT NULL has values in rows that
// are older: stored once for all of them (atthasmissing, of a partitioned table in its
// partitions), or written by a rewrite.
const columnsSQL = `
SELECT c.oid, c.relkind::text, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid, a.atttypmod, a.attnotnull, a.attndims, a.attcollation,
       a.atthasmissing OR a.atthasdef OR a.attidentity <> '' OR a.attnotnull OR coalesce(a.attname = ANY (partitions.missing), false),
       ` + typeSQL + `
  FROM pg_catalog.pg_namespace n
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
  LEFT JOIN LATERAL (SELECT array_agg(DISTINCT attname) AS missing FROM pg_partition_tree(CASE WHEN c.relkind = 'p' THEN c.oid END) JOIN pg_catalog.pg_attribute ON attrelid = relid
                      WHERE atthasmissing) AS partitions ON true
  LEFT JOIN (pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid ` + elementSQL + `)
       ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = $1 AND c.relname = $2
 ORDER BY a.attnum`

// A btree's options are bits: 1 descending, 2 NULLs first (pg_index.h). Read
// backwards, all descending is all ascending.
const indexesSQL = `
SELECT i.indisprimary, i.indisunique AND i.indimmediate AND i.indpred IS NULL AND NOT 0 = ANY (i.indkey::int2[]),
       x.relam = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'btree') AND i.indpred IS NULL,
       (0 = ALL (i.indoption::int2[]) OR 3 = ALL (i.indoption::int2[]))
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_opclass o WHERE o.oid = ANY (i.indclass::oid[]) AND NOT o.opcdefault),
       (i.indkey::int2[])[0:i.indnkeyatts - 1], i.indcollation::oid[]
  FROM pg_catalog.pg_namespace n
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
  JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
 WHERE n.nspname = $1 AND c.relname = $2 AND i.indisvalid
 ORDER BY i.indisprimary DESC, i.indexrelid`

const typesSQL = `SELECT ` + typeSQL + ` FROM pg_catalog.pg_type t ` + elementSQL + ` WHERE t.oid = ANY ($1)`

// Describe reads a table from the catalogue. A table that is missing, that is
// no table, or that has columns nothing can carry is a permanent error.
func Describe(ctx context.Context, pool *pgxpool.Pool, schema, name string) (*Table, error) {
	t := &Table{Schema: schema, Name: name}
	if err := t.describe(ctx, pool); err != nil {
		return nil, fmt.Errorf("describing %s.%s: %w", schema, name, err)
	}
	return t, nil
}

// describe asks for all of it in one round trip, which is one transaction too.
func (t *Table) describe(ctx context.Context, pool *pgxpool.Pool) error {
	var kind string
	var attributes []attribute
	batch := &pgx.Batch{}
	batch.Queue(catalogSettingsSQL)
	batch.Queue(columnsSQL, t.Schema, t.Name).Query(func(rows pgx.Rows) error {
		var err error
		attributes, err = t.scanColumns(rows, &kind)
		return err
	})
	batch.Queue(indexesSQL, t.Schema, t.Name).Query(func(rows pgx.Rows) error { return t.scanIndexes(rows, attributes) })
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("reading the catalogue: %w", err)
	}
	switch {
	case kind == "":
		return fault.Fix(fmt.Errorf("table %s.%s does not exist", t.Schema, t.Name),
			"create it, or correct the name or source.schema in the pipeline file")
	case kind != "r" && kind != "p":
		return fault.Fix(fmt.Errorf("%s.%s is not a table", t.Schema, t.Name),
			"name the table underneath: a view or foreign table has no row versions to follow")
	}
	t.only = kind == "r"
	if err := resolve(ctx, pool, attributes); err != nil {
		return err
	}
	for i, a := range attributes {
		t.Columns[i].plan(a.facts(a.typmod, a.dims))
		t.Columns[i].Origin = Origin{Table: t.oid, Schema: t.Schema, Name: t.Name, Column: t.Columns[i].Name, kind: kind}
	}
	return nil
}

// attribute is a column as the catalogue has it.
type attribute struct {
	typeRow
	number    int16
	typmod    int32
	dims      int16
	collation uint32
}

// typeRow is a type as the catalogue has it.
type typeRow struct {
	oid                            uint32
	name, kind, category, schema   string
	base                           uint32 // of a domain
	baseTypmod                     int32
	elemName, elemKind, elemSchema string
	elemBase                       uint32
}

func (r *typeRow) targets() []any {
	return []any{
		&r.oid, &r.name, &r.kind, &r.category, &r.schema, &r.base, &r.baseTypmod, &r.elemName, &r.elemKind, &r.elemSchema, &r.elemBase,
	}
}

func (r *typeRow) facts(typmod int32, dims int16) typeFacts {
	return typeFacts{
		oid: r.oid, typmod: typmod, dims: dims, name: r.name, kind: r.kind, category: r.category, schema: r.schema,
		elemName: r.elemName, elemKind: r.elemKind, elemSchema: r.elemSchema,
	}
}

// scanColumns takes the answer to columnsSQL: one row for a table without columns.
func (t *Table) scanColumns(rows pgx.Rows, kind *string) ([]attribute, error) {
	var attributes []attribute
	var shape []string
	for rows.Next() {
		if rows.RawValues()[2] == nil { // attnum
			if err := rows.Scan(append([]any{&t.oid, kind}, make([]any, len(rows.RawValues())-2)...)...); err != nil {
				return nil, fmt.Errorf("reading columns: %w", err)
			}
			continue
		}
		var a attribute
		var c Column
		var declared uint32
		targets := append([]any{&t.oid, kind, &a.number, &c.Name, &c.Type, &declared, &a.typmod, &c.NotNull, &a.dims, &a.collation, &c.Missing}, a.targets()...)
		if err := rows.Scan(targets...); err != nil {
			return nil, fmt.Errorf("reading columns: %w", err)
		}
		c.Number = a.number
		t.Columns, attributes = append(t.Columns, c), append(attributes, a)
		shape = append(shape, fmt.Sprintf("%s %d %d %t", c.Name, declared, a.typmod, c.NotNull))
	}
	t.shape = strings.Join(shape, ",")
	return attributes, rows.Err()
}

func (t *Table) scanIndexes(rows pgx.Rows, attributes []attribute) error {
	var primary bool
	var found index
	var numbers []int16
	var collations []uint32
	_, err := pgx.ForEachRow(rows, []any{&primary, &found.unique, &found.ordered, &found.keyset, &numbers, &collations}, func() error {
		i := found
		i.keyset = i.keyset && i.ordered && i.unique
		i.columns = make([]string, len(numbers))
		for n, number := range numbers {
			at := slices.IndexFunc(attributes, func(a attribute) bool { return a.number == number })
			if at < 0 {
				continue // an expression
			}
			i.columns[n] = t.Columns[at].Name
			i.keyset = i.keyset && collations[n] == attributes[at].collation
		}
		if primary {
			t.Primary = i.columns
		}
		t.indexes = append(t.indexes, i)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading indexes: %w", err)
	}
	return nil
}

// resolve puts the base type of each domain in its place; arrays show the base
// type of their element. It asks nothing where there are no domains.
func resolve(ctx context.Context, pool querier, attributes []attribute) error {
	for {
		var wanted []uint32
		for _, a := range attributes {
			if a.kind == "d" {
				wanted = append(wanted, a.base)
			}
			if a.elemKind == "d" {
				wanted = append(wanted, a.elemBase)
			}
		}
		if len(wanted) == 0 {
			return nil
		}
		types, err := readTypes(ctx, pool, wanted)
		if err != nil {
			return err
		}
		for i := range attributes {
			attributes[i].descend(types)
		}
	}
}

// descend goes one domain down.
func (a *attribute) descend(types map[uint32]typeRow) {
	if a.kind == "d" {
		if a.baseTypmod >= 0 {
			a.typmod = a.baseTypmod
		}
		a.typeRow = types[a.base]
		return
	}
	if a.elemKind == "d" {
		element := types[a.elemBase]
		a.elemName, a.elemKind, a.elemSchema, a.elemBase = element.name, element.kind, element.schema, element.base
	}
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// readTypes returns the types by their OID, all of them.
func readTypes(ctx context.Context, from querier, oids []uint32) (map[uint32]typeRow, error) {
	rows, err := from.Query(ctx, typesSQL, oids)
	if err != nil {
		return nil, fmt.Errorf("reading types: %w", err)
	}
	types := map[uint32]typeRow{}
	var row typeRow
	if _, err := pgx.ForEachRow(rows, row.targets(), func() error {
		types[row.oid] = row
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading types: %w", err)
	}
	for _, oid := range oids {
		if _, ok := types[oid]; !ok {
			return nil, fmt.Errorf("reading types: type %d was dropped meanwhile", oid)
		}
	}
	return types, nil
}

const shapeSQL = `
	SELECT coalesce(string_agg(format('%s %s %s %s', attname, atttypid, atttypmod, CASE WHEN attnotnull THEN 'true' ELSE 'false' END), ',' ORDER BY attnum), '')
	  FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped`

// Unchanged reports whether the table still has the columns it was described
// with. It is sure only while tx holds a lock on the table. For a query it sets
// search_path in tx to what queries run with.
func (t *Table) Unchanged(ctx context.Context, tx pgx.Tx) (bool, error) {
	if t.query != "" {
		return t.queryUnchanged(ctx, tx)
	}
	var shape string
	if err := tx.QueryRow(ctx, shapeSQL, t.oid).Scan(&shape); err != nil {
		return false, fmt.Errorf("comparing the columns: %w", err)
	}
	return shape == t.shape, nil
}

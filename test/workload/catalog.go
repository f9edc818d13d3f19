package workload

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// table is a table with a primary key.
type table struct {
	oid       uint32
	name      string
	schema    string
	columns   []*column // in the table's order
	key       []*column
	foreign   []*reference
	referrers []*referrer
	partition partition
	cursor    *column // set on every update; nil: the table is only inserted into
	rows      int     // about how many there are
}

// column is what matters of a column when writing it.
type column struct {
	name       string
	kind       kind   // of the value, or of the elements
	array      bool   // one-dimensional
	nullable   bool   // and no domain over it says otherwise
	hasDefault bool   // of its own or of its domain
	generated  bool   // an identity, a serial, a computed column: never written on insert
	computed   bool   // never written at all
	always     bool   // an identity that only OVERRIDING SYSTEM VALUE writes
	key        bool   // part of the primary key
	routes     bool   // part of the partition key
	samples    []text // values found in the table
}

// kind is a base type with its modifiers and labels.
type kind struct {
	name   string // of pg_type, domains resolved
	typmod int32
	labels []string // of an enum
}

// reference is a foreign key.
type reference struct {
	columns []*column
	target  string // qualified and quoted
	refers  []string
}

// referrer is a foreign key of another table, or of this one, that refers here.
type referrer struct {
	oid       uint32 // of the table that has the key
	root      uint32 // the partitioned table that one is a partition of, or itself
	qualified string
	columns   []string // quoted; those of there
	refers    []string // quoted; those of here
	onDelete  byte     // pg_constraint.confdeltype: a, r, c, n, d
	onUpdate  byte
	nullable  bool // the columns
}

// partition is how the partition key's value is chosen; a zero one needs no care.
type partition struct {
	column *column
	choose []string // expressions of valid values, over random
}

func (t *table) qualified() string { return pgx.Identifier{t.schema, t.name}.Sanitize() }
func (c *column) quoted() string   { return pgx.Identifier{c.name}.Sanitize() }

const tablesQuery = `
SELECT c.oid, c.relname, c.relkind = 'p'
FROM pg_class c
WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
	AND EXISTS (SELECT FROM pg_constraint p WHERE p.conrelid = c.oid AND p.contype = 'p')
ORDER BY c.relname`

// columnsQuery follows domains down to their base type, collecting NOT NULL,
// default and modifier on the way.
const columnsQuery = `
WITH RECURSIVE based AS (
	SELECT a.attnum, a.attname, t.oid AS type, t.typtype, t.typbasetype, a.atttypmod AS typmod,
		a.attnotnull OR t.typnotnull AS required, t.typdefault IS NOT NULL AS defaulted
	FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
	WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
	SELECT b.attnum, b.attname, t.oid, t.typtype, t.typbasetype,
		CASE WHEN b.typmod = -1 THEN d.typtypmod ELSE b.typmod END, b.required OR t.typnotnull, b.defaulted OR t.typdefault IS NOT NULL
	FROM based b JOIN pg_type d ON d.oid = b.type JOIN pg_type t ON t.oid = b.typbasetype
	WHERE b.typtype = 'd'
)
SELECT a.attname, coalesce(e.typname, t.typname), b.typmod, e.oid IS NOT NULL,
	NOT b.required, d.adbin IS NOT NULL OR b.defaulted,
	a.attidentity <> '' OR a.attgenerated <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false), a.attgenerated <> '', a.attidentity = 'a',
	coalesce(a.attnum = ANY (p.conkey), false), coalesce(a.attnum = ANY (part.partattrs), false),
	ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = coalesce(e.oid, t.oid) ORDER BY enumsortorder)
FROM based b
JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = b.attnum
JOIN pg_type t ON t.oid = b.type
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typsubscript = 'array_subscript_handler'::regproc
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_constraint p ON p.conrelid = a.attrelid AND p.contype = 'p'
LEFT JOIN pg_partitioned_table part ON part.partrelid = a.attrelid
WHERE b.typtype <> 'd'
ORDER BY a.attnum`

// foreignQuery takes the keys of the partitions too: a row that goes there has
// to satisfy them.
const foreignQuery = `
SELECT DISTINCT
	ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (n, i) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i),
	ARRAY[n.nspname::text, r.relname::text],
	ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.confkey) WITH ORDINALITY AS u (n, i) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.i)
FROM pg_constraint k
JOIN pg_class r ON r.oid = k.confrelid AND NOT r.relispartition
JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE k.contype = 'f' AND (k.conrelid = $1 OR k.conrelid IN (SELECT relid FROM pg_partition_tree($1)))
ORDER BY 1, 2`

const primaryKeyQuery = `
SELECT a.attname FROM pg_constraint p CROSS JOIN unnest(p.conkey) WITH ORDINALITY AS u (n, i)
JOIN pg_attribute a ON a.attrelid = p.conrelid AND a.attnum = u.n
WHERE p.conrelid = $1 AND p.contype = 'p' ORDER BY u.i`

// readTables reads every table of the schema that has a primary key.
func readTables(ctx context.Context, pool *pgxpool.Pool, schema string) ([]*table, error) {
	type found struct {
		table
		partitioned bool
	}
	rows, err := pool.Query(ctx, tablesQuery, pgx.Identifier{schema}.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*found, error) {
		f := &found{table: table{schema: schema}}
		return f, row.Scan(&f.oid, &f.name, &f.partitioned)
	})
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	tables := make([]*table, 0, len(all))
	for _, f := range all {
		t := &f.table
		if err := t.read(ctx, pool, f.partitioned); err != nil {
			return nil, fmt.Errorf("reading table %s: %w", t.name, err)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

func (t *table) read(ctx context.Context, pool *pgxpool.Pool, partitioned bool) error {
	if err := t.readColumns(ctx, pool); err != nil {
		return err
	}
	if err := t.readKey(ctx, pool); err != nil {
		return err
	}
	if err := t.readForeign(ctx, pool); err != nil {
		return err
	}
	if err := t.readReferrers(ctx, pool); err != nil {
		return err
	}
	if err := pool.QueryRow(ctx, "SELECT count(*) FROM "+t.qualified()).Scan(&t.rows); err != nil {
		return fmt.Errorf("counting rows: %w", err)
	}
	if partitioned {
		return t.readPartitions(ctx, pool)
	}
	return nil
}

func (t *table) readColumns(ctx context.Context, pool *pgxpool.Pool) error {
	rows, err := pool.Query(ctx, columnsQuery, t.oid)
	if err != nil {
		return fmt.Errorf("reading columns: %w", err)
	}
	t.columns, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*column, error) {
		c := &column{}
		return c, row.Scan(&c.name, &c.kind.name, &c.kind.typmod, &c.array, &c.nullable, &c.hasDefault, &c.generated, &c.computed, &c.always, &c.key, &c.routes, &c.kind.labels)
	})
	if err != nil {
		return fmt.Errorf("reading columns: %w", err)
	}
	for _, c := range t.columns {
		if err := t.sample(ctx, pool, c); err != nil {
			return err
		}
	}
	return nil
}

// sample keeps some values of a column, to write values like them.
func (t *table) sample(ctx context.Context, pool *pgxpool.Pool, c *column) error {
	if c.array || c.generated {
		return nil
	}
	query := fmt.Sprintf("SELECT DISTINCT v FROM (SELECT %[1]s::text AS v FROM %[2]s WHERE %[1]s IS NOT NULL LIMIT 500) s ORDER BY v LIMIT 50", c.quoted(), t.qualified())
	rows, err := pool.Query(ctx, query)
	if err != nil {
		return fmt.Errorf("sampling column %s: %w", c.name, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("sampling column %s: %w", c.name, err)
	}
	for _, v := range found {
		c.samples = append(c.samples, text(v))
	}
	return nil
}

func (t *table) column(name string) *column {
	for _, c := range t.columns {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (t *table) readKey(ctx context.Context, pool *pgxpool.Pool) error {
	rows, err := pool.Query(ctx, primaryKeyQuery, t.oid)
	if err != nil {
		return fmt.Errorf("reading the key: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("reading the key: %w", err)
	}
	for _, name := range names {
		t.key = append(t.key, t.column(name))
	}
	return nil
}

func (t *table) readForeign(ctx context.Context, pool *pgxpool.Pool) error {
	rows, err := pool.Query(ctx, foreignQuery, t.oid)
	if err != nil {
		return fmt.Errorf("reading foreign keys: %w", err)
	}
	t.foreign, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*reference, error) {
		var names []string
		var target pgx.Identifier
		r := &reference{}
		if err := row.Scan(&names, &target, &r.refers); err != nil {
			return nil, fmt.Errorf("reading a foreign key: %w", err)
		}
		r.target = target.Sanitize()
		for _, name := range names {
			r.columns = append(r.columns, t.column(name))
		}
		return r, nil
	})
	if err != nil {
		return fmt.Errorf("reading foreign keys: %w", err)
	}
	return nil
}

// referrersQuery leaves out the copies of a key that partitions have of their root's.
const referrersQuery = `
SELECT k.conrelid, coalesce(pg_partition_root(k.conrelid)::oid, k.conrelid), ARRAY[n.nspname::text, r.relname::text],
	ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.conkey) WITH ORDINALITY AS u (n, i) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i),
	ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.confkey) WITH ORDINALITY AS u (n, i) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.i),
	ascii(k.confdeltype::text), ascii(k.confupdtype::text),
	NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND a.attnotnull)
FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = $1
ORDER BY n.nspname, r.relname, k.conname`

func (t *table) readReferrers(ctx context.Context, pool *pgxpool.Pool) error {
	rows, err := pool.Query(ctx, referrersQuery, t.oid)
	if err != nil {
		return fmt.Errorf("reading the foreign keys that refer here: %w", err)
	}
	t.referrers, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*referrer, error) {
		var name pgx.Identifier
		var onDelete, onUpdate int32
		r := &referrer{}
		if err := row.Scan(&r.oid, &r.root, &name, &r.columns, &r.refers, &onDelete, &onUpdate, &r.nullable); err != nil {
			return nil, fmt.Errorf("reading a foreign key: %w", err)
		}
		r.qualified, r.onDelete, r.onUpdate = name.Sanitize(), byte(onDelete), byte(onUpdate)
		return r, nil
	})
	if err != nil {
		return fmt.Errorf("reading the foreign keys that refer here: %w", err)
	}
	return nil
}

const partitionsQuery = `
SELECT part.partstrat::text, part.partnatts, coalesce(a.attname, ''), coalesce(format_type(a.atttypid, a.atttypmod), ''),
	ARRAY(SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1 ORDER BY c.relname)
FROM pg_partitioned_table part
LEFT JOIN pg_attribute a ON a.attrelid = part.partrelid AND a.attnum = part.partattrs[0]
WHERE part.partrelid = $1`

// readPartitions learns which values have a partition to go to.
func (t *table) readPartitions(ctx context.Context, pool *pgxpool.Pool) error {
	var strategy, name, typ string
	var columns int
	var bounds []string
	if err := pool.QueryRow(ctx, partitionsQuery, t.oid).Scan(&strategy, &columns, &name, &typ, &bounds); err != nil {
		return fmt.Errorf("reading partitions: %w", err)
	}
	if strategy == "h" {
		return nil // every value has a place
	}
	if columns != 1 || name == "" {
		return errors.New("reading partitions: the partition key is an expression or several columns; only one column is supported")
	}
	t.partition.column = t.column(name)
	for _, bound := range bounds {
		if bound == "DEFAULT" {
			t.partition = partition{} // every value has a place here too
			return nil
		}
		t.partition.choose = append(t.partition.choose, choices(bound, typ)...)
	}
	if len(t.partition.choose) == 0 {
		return fmt.Errorf("reading partitions: no bound of %q can be drawn from", bounds)
	}
	return nil
}

// choices turns a partition's bound, as pg_get_expr prints it, into expressions
// of values within it. A bound with an open end gives none.
func choices(bound, typ string) []string {
	if list, ok := strings.CutPrefix(bound, "FOR VALUES IN ("); ok {
		var out []string
		for value := range strings.SplitSeq(strings.TrimSuffix(list, ")"), ", ") {
			if value != "NULL" {
				out = append(out, value+"::"+typ)
			}
		}
		return out
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(bound, "FOR VALUES FROM ("), ") TO (")
	to = strings.TrimSuffix(to, ")")
	if !ok || strings.HasPrefix(from, "M") || strings.HasPrefix(to, "M") { // MINVALUE, MAXVALUE
		return nil
	}
	width := fmt.Sprintf("(%[1]s::%[3]s - %[2]s::%[3]s)", to, from, typ)
	switch typ {
	case "date":
		return []string{fmt.Sprintf("%s::date + floor(%s * %s)::int", from, random, width)}
	case "smallint", "integer", "bigint":
		return []string{fmt.Sprintf("(%s::%s + floor(%s * %s))::%[2]s", from, typ, random, width)}
	}
	return []string{fmt.Sprintf("%s::%s + %s * %s", from, typ, random, width)}
}

// random stands for a number from 0 up to 1 in an expression of choices.
const random = "{random}"

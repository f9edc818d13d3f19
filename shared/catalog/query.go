package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Queries of the pipeline file run with the search_path of the source's schema.
const querySettingsSQL = `
	SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident($1) || ', public', true),
	       pg_catalog.set_config('statement_timeout', '30s', true), pg_catalog.set_config('lock_timeout', '5s', true)`

// DescribeQuery describes the rows of a query that stands for the table name in
// the pipeline file, without running it: unqualified names mean tables of schema,
// then of public. Columns of a query may all be NULL. What Postgres refuses, a
// statement that is not one SELECT, and columns without a name of their own are
// permanent errors.
func DescribeQuery(ctx context.Context, pool *pgxpool.Pool, schema, name, sql string) (*Table, error) {
	t := &Table{Schema: schema, Name: name, query: strings.TrimRightFunc(sql, func(r rune) bool { return r == ';' || unicode.IsSpace(r) })}
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, querySettingsSQL, schema); err != nil {
			return fmt.Errorf("preparing the session: %w", err)
		}
		return t.readQuery(ctx, tx)
	})
	if err != nil {
		return nil, fmt.Errorf("describing the query of %s in the pipeline file: %w", name, err)
	}
	return t, nil
}

func (t *Table) readQuery(ctx context.Context, tx pgx.Tx) error {
	fields, err := t.fields(ctx, tx)
	if err != nil {
		return err
	}
	t.shape = shapeOf(fields)
	if err := t.checkNames(fields); err != nil {
		return err
	}
	if err := t.readReads(ctx, tx); err != nil {
		return err
	}
	t.Columns, err = planFields(ctx, tx, fields)
	return err
}

// fields are the columns of the query's rows. It is prepared as it is, so that
// messages point into it, and then as Source has it, which only takes a SELECT.
func (t *Table) fields(ctx context.Context, tx pgx.Tx) ([]pgconn.FieldDescription, error) {
	conn := tx.Conn().PgConn()
	alone, err := conn.Prepare(ctx, "", t.query, nil)
	if err != nil {
		return nil, t.locate(err)
	}
	if len(alone.Fields) == 0 || len(alone.ParamOIDs) > 0 {
		return nil, fault.Fix(errors.New("it has no columns, or it has parameters"), selectRemedy)
	}
	inside, err := conn.Prepare(ctx, "", "SELECT * FROM "+t.Source(), nil)
	if fault.SQLState(err) == "42601" || fault.SQLState(err) == "0A000" { // syntax_error, feature_not_supported
		return nil, fault.Fix(fmt.Errorf("it is not one SELECT: %w", err), selectRemedy)
	}
	if err != nil {
		return nil, fmt.Errorf("preparing it as a table: %w", err)
	}
	return inside.Fields, nil
}

const selectRemedy = "write one SELECT (or WITH .. SELECT, VALUES) without parameters, data-modifying parts or a semicolon"

// locate says where in the query Postgres found fault, and what to do about it.
func (t *Table) locate(err error) error {
	located := at(t.query, 0, err)
	class, remedy := fault.Classify(err)
	switch {
	case class == fault.Permanent && fault.SQLState(err) == "42501": // insufficient_privilege
		return fault.Fix(located, "grant the function's user USAGE on the schemas and SELECT on the tables that the query reads")
	case class == fault.Permanent && remedy == "":
		return fault.Fix(located, "correct the query in the pipeline file; "+selectRemedy)
	}
	return located
}

// at says where in a text Postgres found fault that came after so many other
// characters in the statement.
func at(text string, after int, err error) error {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || int(refusal.Position) <= after {
		return err
	}
	before := []rune(text)
	before = before[:min(int(refusal.Position)-1-after, len(before))]
	line := 1
	column := len(before) + 1
	for i, r := range before {
		if r == '\n' {
			line, column = line+1, len(before)-i
		}
	}
	return fmt.Errorf("line %d, column %d of it: %w", line, column, err)
}

func shapeOf(fields []pgconn.FieldDescription) string {
	shape := make([]string, len(fields))
	for i, f := range fields {
		shape[i] = fmt.Sprintf("%s %d %d %d %d", f.Name, f.DataTypeOID, f.TypeModifier, f.TableOID, f.TableAttributeNumber)
	}
	return strings.Join(shape, ",")
}

// checkNames fails with the columns that cannot be told apart by their names.
func (t *Table) checkNames(fields []pgconn.FieldDescription) error {
	var wrong []string
	seen := map[string]int{}
	for i, f := range fields {
		seen[f.Name]++
		switch {
		case f.Name == "" || f.Name == "?column?":
			wrong = append(wrong, fmt.Sprintf("column %d has no name", i+1))
		case seen[f.Name] == 2:
			wrong = append(wrong, fmt.Sprintf("%q comes more than once", f.Name))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fault.Fix(fmt.Errorf("its columns need names of their own: %s", strings.Join(wrong, "; ")),
		"give each an alias: SELECT .. AS name")
}

// relation is what a query reads.
type relation struct {
	oid          uint32
	schema, name string
	lockable     bool // by us
}

func (r relation) sqlName() string { return Quote(r.schema) + "." + Quote(r.name) }

const readsSQL = `
SELECT DISTINCT c.oid, n.nspname, c.relname, c.relkind IN ('r', 'p', 'v') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'pg_catalog'
 ORDER BY c.oid`

// readReads notes the relations that the query reads, by the locks that preparing
// it took: those of a view underneath too.
func (t *Table) readReads(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, readsSQL)
	if err != nil {
		return fmt.Errorf("reading what it reads: %w", err)
	}
	t.reads, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r relation, err error) {
		return r, row.Scan(&r.oid, &r.schema, &r.name, &r.lockable)
	})
	if err != nil {
		return fmt.Errorf("reading what it reads: %w", err)
	}
	return nil
}

// Array dimensions are known of a plain column of a table only.
const fieldsSQL = `
SELECT pg_catalog.format_type(f.type, f.typmod), coalesce(n.nspname, ''), coalesce(c.relname, ''), coalesce(c.relkind::text, ''), coalesce(a.attname, ''), coalesce(a.attndims, 0)
  FROM unnest($1::oid[], $2::int4[], $3::oid[], $4::int2[]) WITH ORDINALITY AS f (type, typmod, rel, number, n)
  LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid)
       ON c.oid = f.rel AND a.attnum = f.number
 ORDER BY f.n`

// planFields makes columns of the fields. Postgres describes a domain as its base.
func planFields(ctx context.Context, tx pgx.Tx, fields []pgconn.FieldDescription) ([]Column, error) {
	var oids, tables []uint32
	var typmods []int32
	var numbers []int16
	for _, f := range fields {
		oids, typmods = append(oids, f.DataTypeOID), append(typmods, f.TypeModifier)
		tables, numbers = append(tables, f.TableOID), append(numbers, int16(f.TableAttributeNumber)) //nolint:gosec // int2 in the protocol
	}
	types, err := readTypes(ctx, tx, oids)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, fieldsSQL, oids, typmods, tables, numbers)
	if err != nil {
		return nil, fmt.Errorf("reading columns: %w", err)
	}
	columns := make([]Column, 0, len(fields))
	attributes := make([]attribute, 0, len(fields))
	var typ string
	var o Origin
	var dims int16
	_, err = pgx.ForEachRow(rows, []any{&typ, &o.Schema, &o.Name, &o.kind, &o.Column, &dims}, func() error {
		f := fields[len(attributes)]
		c := Column{Name: f.Name, Type: typ}
		if o.kind != "" {
			c.Origin = o
			c.Origin.Table = f.TableOID
		}
		columns = append(columns, c)
		attributes = append(attributes, attribute{typeRow: types[f.DataTypeOID], typmod: f.TypeModifier, dims: dims})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading columns: %w", err)
	}
	if err := resolve(ctx, tx, attributes); err != nil {
		return nil, err
	}
	for i, a := range attributes {
		columns[i].plan(a.facts(a.typmod, a.dims))
	}
	return columns, nil
}

func (t *Table) queryUnchanged(ctx context.Context, tx pgx.Tx) (bool, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident($1) || ', public', true)`, t.Schema); err != nil {
		return false, fmt.Errorf("comparing the columns: %w", err)
	}
	prepared, err := tx.Conn().PgConn().Prepare(ctx, "", "SELECT * FROM "+t.Source(), nil)
	if err != nil {
		return false, fmt.Errorf("comparing the columns of the query of %s: %w", t.Name, err)
	}
	return shapeOf(prepared.Fields) == t.shape, nil
}

// Lock keeps the table, or what a query reads, from being altered, rewritten or
// truncated until tx ends (ACCESS SHARE). It needs no snapshot, so it can come
// before the one of a repeatable read: to a snapshot taken before a rewrite the
// table would look empty. The caller sets lock_timeout.
func (t *Table) Lock(ctx context.Context, tx pgx.Tx) error {
	names := []string{t.Source()}
	if t.query != "" {
		names = nil
		for _, r := range t.reads {
			if r.lockable {
				names = append(names, r.sqlName())
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	lock := func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS SHARE MODE")
		return err
	}
	if !t.omits() {
		if err := lock(tx); err != nil {
			return fmt.Errorf("holding %s: %w", t.Name, err)
		}
		return nil
	}
	err := pgx.BeginFunc(ctx, tx, lock) // a savepoint
	if fault.SQLState(err) == "42501" { // insufficient_privilege
		err = t.lockColumns(ctx, tx)
	}
	if err != nil {
		return fmt.Errorf("holding %s: %w", t.Name, err)
	}
	return nil
}

// Base names the one table that all the given columns come from unaltered, and
// their names there. It fails where they come from several tables, are computed,
// or may come from different rows of one table, which the query names twice.
func (t *Table) Base(columns ...string) (*Base, error) {
	var b Base
	var first string
	for _, name := range columns {
		c := t.Stored(name)
		if c == nil {
			return nil, t.Missing("column", name)
		}
		o := c.Origin
		switch {
		case o.Table == 0:
			return nil, fault.Fix(fmt.Errorf("column %s of %s is computed, so no table tells when it changes", name, t.Name),
				"select a plain column of the table whose changes are to be followed, or use capture: {method: snapshot}")
		case o.kind != "r" && o.kind != "p":
			return nil, fault.Fix(fmt.Errorf("column %s of %s comes from %s.%s, which is not a table and has no row versions to follow", name, t.Name, o.Schema, o.Name),
				"name the tables underneath in the query")
		case b.OID == 0:
			b.OID, b.Schema, b.Name, first = o.Table, o.Schema, o.Name, name
		case b.OID != o.Table:
			return nil, fault.Fix(fmt.Errorf("column %s of %s comes from %s.%s, column %s from %s.%s", name, t.Name, o.Schema, o.Name, first, b.Schema, b.Name),
				fmt.Sprintf("take cursor and key columns from one table, and declare the others under also_changed_by; or select %s from %s.%s", name, b.Schema, b.Name))
		}
		b.Columns = append(b.Columns, o.Column)
	}
	if twice := repeated(t.query, b.Name); twice != "" {
		return nil, fault.Fix(fmt.Errorf("the query of %s names %s more than once, so its columns %s may come from different rows of %s.%s",
			t.Name, twice, strings.Join(columns, ", "), b.Schema, b.Name),
			fmt.Sprintf("name %s only once in the query, and let a view stand for the other use", twice))
	}
	return &b, nil
}

// Base is a table whose columns a query shows: Columns are their names there, in
// the order that was asked for.
type Base struct {
	OID          uint32
	Schema, Name string
	Columns      []string
}

// SQLName is the table's qualified, quoted name.
func (b *Base) SQLName() string { return Quote(b.Schema) + "." + Quote(b.Name) }

// Reads reports whether a query reads the table or view, directly or through a view.
func (t *Table) Reads(oid uint32) bool {
	return slices.ContainsFunc(t.reads, func(r relation) bool { return r.oid == oid })
}

// OID is the table's OID, 0 for a query.
func (t *Table) OID() uint32 { return t.oid }

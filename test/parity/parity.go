// Package parity compares a Postgres table with the BigQuery table or view that
// should equal it: every row, every value.
//
// It shares no code with the product and takes another way through each type: the
// product reads Postgres' binary form, this package its text; both sides are brought
// to one canonical text. A type without one is refused, not skipped.
package parity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery"
	"github.com/jackc/pgx/v5"
	"google.golang.org/api/iterator"
)

// Table names what is compared.
type Table struct {
	Schema string // in Postgres; "public" if empty
	Name   string // in Postgres, and in BigQuery if View is empty
	View   string // `project.dataset.table` in BigQuery, without quotes
	// Without are columns left out on both sides.
	Without []string
}

// Report is the outcome for one table.
type Report struct {
	Table    string
	Postgres int // rows
	BigQuery int // rows
	// Differences describes some rows that are missing, too many, there twice or
	// not equal; More counts those not described.
	Differences []string
	More        int
}

// Agrees reports whether both sides are equal.
func (r Report) Agrees() bool { return len(r.Differences) == 0 }

func (r Report) String() string {
	if r.Agrees() {
		return fmt.Sprintf("%s: %d rows, equal", r.Table, r.Postgres)
	}
	text := fmt.Sprintf("%s: %d rows in Postgres, %d in BigQuery\n  %s", r.Table, r.Postgres, r.BigQuery, strings.Join(r.Differences, "\n  "))
	if r.More > 0 {
		text += fmt.Sprintf("\n  and %d more", r.More)
	}
	return text
}

const described = 10

func (r *Report) differ(format string, args ...any) {
	if len(r.Differences) == described {
		r.More++
		return
	}
	r.Differences = append(r.Differences, fmt.Sprintf(format, args...))
}

// metadata are the columns that Tidemark adds.
func metadata() []string { return []string{"_version", "_synced_at", "_deleted"} }

// deletedColumn marks rows that are gone in Postgres and kept in BigQuery.
const deletedColumn = "_deleted"

// Compare reads both sides whole; each has to stand still meanwhile. The error is
// about reading them: that they differ is said by the report.
func Compare(ctx context.Context, conn *pgx.Conn, client *bigquery.Client, table Table) (Report, error) {
	report := Report{Table: table.Name}
	if table.Schema == "" {
		table.Schema = "public"
	}
	columns, err := readColumns(ctx, conn, table)
	if err != nil {
		return report, fmt.Errorf("comparing %s: %w", table.Name, err)
	}
	left, err := readPostgres(ctx, conn, table, columns)
	if err != nil {
		return report, fmt.Errorf("comparing %s: reading Postgres: %w", table.Name, err)
	}
	report.Postgres = len(left)
	seen := make(map[string]bool, len(left))
	err = readBigQuery(ctx, client, table, columns, func(right row) {
		report.BigQuery++
		key := right.key(columns)
		switch original, ok := left[key]; {
		case seen[key]:
			report.differ("%s is in BigQuery twice", key)
		case !ok:
			report.differ("%s is in BigQuery only", key)
		default:
			for i, c := range columns {
				if original[i] != right[i] {
					report.differ("%s: %s is %s in Postgres, %s in BigQuery", key, c.name, abridged(original[i]), abridged(right[i]))
				}
			}
		}
		seen[key] = true
	})
	if err != nil {
		return report, fmt.Errorf("comparing %s: reading BigQuery: %w", table.Name, err)
	}
	for key := range left {
		if !seen[key] {
			report.differ("%s is in Postgres only", key)
		}
	}
	slices.Sort(report.Differences)
	return report, nil
}

// row holds canonical texts, in the order of the columns.
type row []string

func (r row) key(columns []column) string {
	var parts []string
	for i, c := range columns {
		if c.key {
			parts = append(parts, c.name+"="+r[i])
		}
	}
	return strings.Join(parts, ", ")
}

const columnsQuery = `
WITH RECURSIVE based AS (
	SELECT a.attnum, t.oid AS type, t.typtype, t.typbasetype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
	WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
	SELECT b.attnum, t.oid, t.typtype, t.typbasetype FROM based b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
)
SELECT a.attname, coalesce(e.typname, t.typname), coalesce(e.typtype, t.typtype)::text, e.oid IS NOT NULL, greatest(a.attndims, 0)::int, coalesce(a.attnum = ANY (p.conkey), false)
FROM based b
JOIN pg_attribute a ON a.attrelid = $1::regclass AND a.attnum = b.attnum
JOIN pg_type t ON t.oid = b.type
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
LEFT JOIN pg_constraint p ON p.conrelid = a.attrelid AND p.contype = 'p'
WHERE b.typtype <> 'd'
ORDER BY a.attnum`

// column is a column of the Postgres table.
type column struct {
	name  string
	kind  kind
	array bool
	key   bool
}

func readColumns(ctx context.Context, conn *pgx.Conn, table Table) ([]column, error) {
	rows, err := conn.Query(ctx, columnsQuery, pgx.Identifier{table.Schema, table.Name}.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("reading the catalogue: %w", err)
	}
	var columns []column
	var name, typ, typtype string
	var array, key bool
	var dimensions int
	var refused []error
	_, err = pgx.ForEachRow(rows, []any{&name, &typ, &typtype, &array, &dimensions, &key}, func() error {
		if slices.Contains(table.Without, name) {
			return nil
		}
		kind, ok := kindOf(typ, typtype)
		if !ok || dimensions > 1 || array && typ == "bpchar" {
			refused = append(refused, fmt.Errorf("column %s of type %s (array: %t) has no canonical text here", name, typ, array))
		}
		columns = append(columns, column{name: name, kind: kind, array: array, key: key})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the catalogue: %w", err)
	}
	if !slices.ContainsFunc(columns, func(c column) bool { return c.key }) {
		refused = append(refused, errors.New("the table has no primary key to tell rows apart"))
	}
	return columns, errors.Join(refused...)
}

// expression reads a column as text, or its elements as texts.
func (c column) expression() string {
	quoted := pgx.Identifier{c.name}.Sanitize()
	switch {
	case c.array:
		return fmt.Sprintf("coalesce(%s::text[], '{}')", quoted) // BigQuery has no NULL array
	case c.kind == paddedKind:
		return fmt.Sprintf("CASE WHEN %[1]s IS NOT NULL THEN concat(%[1]s) END", quoted) // ::text would cut the padding
	}
	return quoted + "::text"
}

// readPostgres reads the table in one snapshot, keyed by its primary key.
func readPostgres(ctx context.Context, conn *pgx.Conn, table Table, columns []column) (map[string]row, error) {
	expressions := make([]string, len(columns))
	for i, c := range columns {
		expressions[i] = c.expression()
	}
	found := map[string]row{}
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'iso_8601'; "+
			"SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1"); err != nil {
			return fmt.Errorf("setting formats: %w", err)
		}
		rows, err := tx.Query(ctx, fmt.Sprintf("SELECT %s FROM %s", strings.Join(expressions, ", "), pgx.Identifier{table.Schema, table.Name}.Sanitize()))
		if err != nil {
			return fmt.Errorf("selecting: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			values, err := rows.Values()
			if err != nil {
				return fmt.Errorf("reading a row: %w", err)
			}
			r := make(row, len(columns))
			for i, c := range columns {
				if r[i], err = c.fromPostgres(values[i]); err != nil {
					return err
				}
			}
			found[r.key(columns)] = r
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("reading rows: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("in one snapshot: %w", err)
	}
	return found, nil
}

// readBigQuery hands each current row to use, with its columns in Postgres' order.
func readBigQuery(ctx context.Context, client *bigquery.Client, table Table, columns []column, use func(row)) error {
	view := table.View
	if view == "" {
		view = table.Name
	}
	query := client.Query("SELECT * FROM `" + view + "`")
	rows, err := query.Read(ctx)
	if err != nil {
		return fmt.Errorf("querying: %w", err)
	}
	var places []int
	deleted := -1
	for {
		var values []bigquery.Value
		err := rows.Next(&values)
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading rows: %w", err)
		}
		if places == nil {
			if places, err = match(rows.Schema, columns, table.Without); err != nil {
				return err
			}
			deleted = slices.IndexFunc(rows.Schema, func(f *bigquery.FieldSchema) bool { return f.Name == deletedColumn })
		}
		if deleted >= 0 && values[deleted] == true {
			continue
		}
		r := make(row, len(columns))
		for i, c := range columns {
			if r[i], err = c.fromBigQuery(values[places[i]]); err != nil {
				return err
			}
		}
		use(r)
	}
}

// match finds each column in BigQuery's schema, which may hold no others.
func match(schema bigquery.Schema, columns []column, without []string) ([]int, error) {
	places := make([]int, len(columns))
	left := map[string]bool{}
	for _, field := range schema {
		left[field.Name] = !slices.Contains(metadata(), field.Name) && !slices.Contains(without, field.Name)
	}
	for i, c := range columns {
		places[i] = slices.IndexFunc(schema, func(f *bigquery.FieldSchema) bool { return f.Name == c.name })
		if places[i] < 0 {
			return nil, fmt.Errorf("column %s is not in BigQuery", c.name)
		}
		left[c.name] = false
	}
	for name, extra := range left {
		if extra {
			return nil, fmt.Errorf("column %s is in BigQuery only", name)
		}
	}
	return places, nil
}

func abridged(text string) string {
	const limit = 120
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit]) + "…"
	}
	return text
}

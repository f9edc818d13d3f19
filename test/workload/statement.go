package workload

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// row is what a statement writes: a value or an expression per column.
type row struct {
	columns     []*column
	expressions []string
	values      [][]byte // in text format, nil for NULL
}

// bind writes a value, sent apart from the statement.
func (r *row) bind(c *column, value []byte) {
	r.values = append(r.values, value)
	r.add(c, "$"+strconv.Itoa(len(r.values)))
}

// add writes an expression of SQL.
func (r *row) add(c *column, expression string) {
	r.columns = append(r.columns, c)
	r.expressions = append(r.expressions, expression)
}

func (r *row) has(c *column) bool {
	for _, present := range r.columns {
		if present == c {
			return true
		}
	}
	return false
}

// Odds, in percent.
const (
	oddsNull    = 20
	oddsDefault = 50
)

// insert adds a row to the table and returns how many were added: one. r holds
// what is settled already.
func (w *Writer) insert(ctx context.Context, conn *pgconn.PgConn, t *table, r *row) (int64, error) {
	if c := t.partition.column; c != nil && !r.has(c) {
		w.route(r, t)
	}
	for _, reference := range t.foreign {
		if err := w.refer(ctx, conn, r, reference); err != nil {
			return 0, err
		}
	}
	for _, c := range t.columns {
		if !r.has(c) {
			w.fill(r, t, c)
		}
	}
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.quoted()
	}
	statement := fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE VALUES (%s)", t.qualified(), strings.Join(names, ", "), strings.Join(r.expressions, ", "))
	if len(names) == 0 {
		statement = fmt.Sprintf("INSERT INTO %s DEFAULT VALUES", t.qualified())
	}
	_, affected, err := execute(ctx, conn, statement, r.values)
	return affected, err
}

// route chooses a partition.
func (w *Writer) route(r *row, t *table) {
	choice := t.partition.choose[w.rand.IntN(len(t.partition.choose))]
	r.add(t.partition.column, strings.ReplaceAll(choice, random, strconv.FormatFloat(w.rand.Float64(), 'f', -1, 64)))
}

// fill chooses what a column without a foreign key gets in a new row.
func (w *Writer) fill(r *row, t *table, c *column) {
	switch {
	case c.generated, c.hasDefault && (c == t.cursor || w.percent(oddsDefault)):
		return
	case c == t.cursor:
		r.add(c, "now()")
		return
	case c.nullable && w.percent(oddsNull):
		r.bind(c, nil)
		return
	}
	if value, ok := c.kind.value(w.rand, c); ok {
		r.bind(c, []byte(value))
	}
}

// update changes some columns of one row, and the cursor. It returns 0 if the
// table is empty.
func (w *Writer) update(ctx context.Context, conn *pgconn.PgConn, t *table) (int64, error) {
	key, err := w.someRow(ctx, conn, t.qualified(), t.keys())
	if err != nil || key == nil {
		return 0, err
	}
	r := &row{}
	if err := w.alter(ctx, conn, t, r); err != nil {
		return 0, err
	}
	_, affected, err := w.set(ctx, conn, t, r, key, "")
	return affected, err
}

// set writes the changes of r, and the cursor, to the row of that key.
func (w *Writer) set(ctx context.Context, conn *pgconn.PgConn, t *table, r *row, key [][]byte, returning string) ([][][]byte, int64, error) {
	if t.cursor != nil && !r.has(t.cursor) {
		r.add(t.cursor, "now()")
	}
	if len(r.columns) == 0 {
		return nil, 0, nil
	}
	assignments := make([]string, len(r.columns))
	for i, c := range r.columns {
		assignments[i] = c.quoted() + " = " + r.expressions[i]
	}
	statement := fmt.Sprintf("UPDATE %s SET %s WHERE %s%s", t.qualified(), strings.Join(assignments, ", "), r.identify(t, key), returning)
	return execute(ctx, conn, statement, r.values)
}

// identify is the condition for the row of that key, whose values it binds.
func (r *row) identify(t *table, key [][]byte) string {
	conditions := make([]string, len(t.key))
	for i, c := range t.key {
		r.values = append(r.values, key[i])
		conditions[i] = fmt.Sprintf("%s = $%d", c.quoted(), len(r.values))
	}
	return strings.Join(conditions, " AND ")
}

// keys are the quoted names of the key's columns.
func (t *table) keys() []string {
	keys := make([]string, len(t.key))
	for i, c := range t.key {
		keys[i] = c.quoted()
	}
	return keys
}

// alter chooses new values for up to three columns of a row.
func (w *Writer) alter(ctx context.Context, conn *pgconn.PgConn, t *table, r *row) error {
	order := w.rand.Perm(len(t.columns))
	for _, i := range order[:min(len(order), 1+w.rand.IntN(3))] {
		c := t.columns[i]
		if c.key || c.routes || c.generated || c == t.cursor || r.has(c) {
			continue
		}
		if reference := t.reference(c); reference != nil {
			if !reference.movable() {
				continue
			}
			if err := w.refer(ctx, conn, r, reference); err != nil {
				return err
			}
			continue
		}
		if c.nullable && w.percent(oddsNull) {
			r.bind(c, nil)
		} else if value, ok := c.kind.value(w.rand, c); ok {
			r.bind(c, []byte(value))
		}
	}
	return nil
}

// reference is the foreign key that c is part of, if any.
func (t *table) reference(c *column) *reference {
	for _, r := range t.foreign {
		for _, mine := range r.columns {
			if mine == c {
				return r
			}
		}
	}
	return nil
}

// movable reports whether a row may be given another parent: not where that
// would change its key.
func (r *reference) movable() bool {
	for _, c := range r.columns {
		if c.key || c.routes || c.generated {
			return false
		}
	}
	return true
}

// refer points a row at some parent, or at none where that is allowed.
func (w *Writer) refer(ctx context.Context, conn *pgconn.PgConn, r *row, to *reference) error {
	nullable := true
	for _, c := range to.columns {
		nullable = nullable && c.nullable
	}
	var parent [][]byte
	if !nullable || !w.percent(oddsNull) {
		var err error
		if parent, err = w.someRow(ctx, conn, to.target, to.refers); err != nil {
			return err
		}
	}
	for i, c := range to.columns {
		switch {
		case r.has(c): // shared with another key, which chose first
		case parent == nil:
			r.bind(c, nil)
		default:
			r.bind(c, parent[i])
		}
	}
	return nil
}

// someRow draws a row and returns its columns as text, or nil from an empty table.
func (w *Writer) someRow(ctx context.Context, conn *pgconn.PgConn, qualified string, columns []string) ([][]byte, error) {
	list := strings.Join(columns, ", ")
	for _, offset := range []int{w.rand.IntN(max(1, w.rows(qualified))), 0} {
		rows, _, err := execute(ctx, conn, fmt.Sprintf("SELECT %[1]s FROM %[2]s ORDER BY %[1]s OFFSET %[3]d LIMIT 1", list, qualified, offset), nil)
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			return rows[0], nil
		}
	}
	return nil, nil
}

// rows is about how many rows a table has.
func (w *Writer) rows(qualified string) int {
	for _, t := range w.tables {
		if t.qualified() == qualified {
			return t.rows
		}
	}
	return 1
}

// execute runs one statement with its values as text: Postgres knows their types.
func execute(ctx context.Context, conn *pgconn.PgConn, statement string, values [][]byte) ([][][]byte, int64, error) {
	result := conn.ExecParams(ctx, statement, values, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, 0, fmt.Errorf("running %s: %w", statement, result.Err)
	}
	return result.Rows, result.CommandTag.RowsAffected(), nil
}

func (w *Writer) percent(n int) bool { return w.rand.IntN(100) < n }

package catalog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Declare applies what the pipeline file says of the table's columns and rows. After
// it Columns are those that are carried: none that is excluded, hashed ones as their
// text, and computed ones behind the others. The condition where is kept for those
// who read the rows, see Condition. Names that the table does not have, computed
// columns and conditions that are more than an expression over the row, and columns
// whose declared type they cannot have are permanent errors. hashKey is copied into
// the hashed columns; it may be empty where no row is read.
func (t *Table) Declare(ctx context.Context, pool *pgxpool.Pool, d pipeline.Columns, where string, hashKey []byte) error {
	if err := t.declare(ctx, pool, d, where, hashKey); err != nil {
		return fmt.Errorf("columns of %s in the pipeline file: %w", t.Name, err)
	}
	return nil
}

func (t *Table) declare(ctx context.Context, pool *pgxpool.Pool, d pipeline.Columns, where string, hashKey []byte) error {
	if err := t.known(d); err != nil {
		return err
	}
	var computed []Column
	if len(d.Compute) > 0 || where != "" {
		err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, querySettingsSQL, t.Schema); err != nil {
				return fmt.Errorf("preparing the session: %w", err)
			}
			var err error
			computed, err = t.compute(ctx, tx, d.Compute, where)
			return err
		})
		if err != nil {
			return fmt.Errorf("looking at what is computed: %w", err)
		}
	}
	if t.stored == nil {
		t.stored = t.Columns
	}
	t.where = strings.TrimSpace(where)
	t.Columns = nil
	for _, c := range t.stored {
		if !carries(d, c.Name) {
			continue
		}
		if err := c.declare(d, hashKey); err != nil {
			return err
		}
		t.Columns = append(t.Columns, c)
	}
	t.Columns = append(t.Columns, computed...)
	return nil
}

func carries(d pipeline.Columns, name string) bool {
	return !slices.Contains(d.Exclude, name) && (len(d.Include) == 0 || slices.Contains(d.Include, name))
}

// known fails for names that the table does not have: a column that was renamed must
// not be carried because nobody excludes it by its new name.
func (t *Table) known(d pipeline.Columns) error {
	var renamed []string
	for _, m := range d.Rename {
		renamed = append(renamed, m.From)
	}
	as := slices.Sorted(maps.Keys(d.As))
	for _, list := range []struct {
		what    string
		names   []string
		carried bool
	}{
		{"included column", d.Include, false},
		{"excluded column", d.Exclude, false},
		{"renamed column", renamed, true},
		{"hashed column", d.Hash, true},
		{"column under as", as, true},
	} {
		for _, name := range list.names {
			if t.Stored(name) == nil {
				return t.Missing(list.what, name)
			}
			if list.carried && !carries(d, name) {
				return fault.Fix(fmt.Errorf("%s %q of %s is not carried", list.what, name, t.Name), "take it out of exclude, or add it to include")
			}
		}
	}
	return nil
}

func (c *Column) declare(d pipeline.Columns, hashKey []byte) error {
	if slices.Contains(d.Hash, c.Name) {
		c.hash(hashKey)
	}
	if target, ok := d.As[c.Name]; ok {
		if err := c.as(target); err != nil {
			return err
		}
		c.As = target
	}
	return nil
}

// hash has the column read as its exact text.
func (c *Column) hash(key []byte) {
	c.Hash, c.HashKey, c.refused = true, key, ""
	plain := c.Expr == Quote(c.Name) && !c.Repeated && (c.Base == "text" || c.Base == "varchar" || c.Base == "name")
	c.Kind, c.Repeated = rowwire.Text, false
	if !plain {
		c.Expr, c.Param = Quote(c.Name)+"::text", pgtype.TextOID
	}
}

// Plain reports whether the column is read as it is stored.
func (c *Column) Plain() bool { return c.Expr == Quote(c.Name) }

// Of is what Expr is of another value of the column's type, such as a parameter.
func (c *Column) Of(value string) string { return strings.ReplaceAll(c.Expr, Quote(c.Name), value) }

// Hides reports whether the table has columns whose values must not be seen.
func (t *Table) Hides() bool {
	return t.omits() || slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Hash })
}

// shows reports whether a column of the source is carried.
func (t *Table) shows(name string) bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Name == name && !c.Computed })
}

// Condition is what the declaration demands of a row, in parentheses; "" for nothing.
// Its columns may be named alone or by the table's name.
func (t *Table) Condition() string {
	if t.where == "" {
		return ""
	}
	return "(" + t.where + "\n)" // it may end with a comment
}

// Declared is what rows that were carried before depend on, besides which columns
// there are: with another one they would be wrong. "" for nothing.
func (t *Table) Declared() string {
	var b strings.Builder
	for _, c := range t.Columns {
		switch {
		case c.Computed:
			fmt.Fprintf(&b, " compute %s %q", Quote(c.Name), c.Expr)
		case c.Hash:
			fmt.Fprintf(&b, " hash %s by %s", Quote(c.Name), keyID(c.HashKey))
		}
		if c.As != "" {
			fmt.Fprintf(&b, " %s as %s", Quote(c.Name), c.As)
		}
	}
	if t.where != "" {
		fmt.Fprintf(&b, " where %q", t.where)
	}
	return b.String()
}

// keyID tells keys apart and says nothing else of them.
func keyID(key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("tidemark: which key this is"))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// recordOID is the type of a row constructor. (PostgreSQL: pg_type.dat.)
const recordOID = 2249

const rowRemedy = "write an expression over the row alone, which has the same value whenever it is asked for: without sub-selects, aggregates, parameters, the clock or random numbers"

// compute finds the types of the computed columns, and refuses what is more than an
// expression over the row: what depends on anything else would become stale, and no
// capture method would tell.
func (t *Table) compute(ctx context.Context, tx pgx.Tx, declared []pipeline.Computed, where string) ([]Column, error) {
	expressions := make([]pipeline.Computed, 0, len(declared)+1)
	for _, c := range declared {
		expressions = append(expressions, pipeline.Computed{Name: fmt.Sprintf("computed column %q", c.Name), SQL: c.SQL})
	}
	if where != "" {
		expressions = append(expressions, pipeline.Computed{Name: "where", SQL: where})
	}
	for _, e := range expressions {
		if err := t.rowOnly(ctx, tx, e.SQL); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	var fields []pgconn.FieldDescription
	for i, e := range expressions {
		statement, after := "SELECT ("+e.SQL+"\n) FROM "+t.Source()+" WHERE (("+e.SQL+"\n)) IS NULL", len("SELECT (")
		if i == len(declared) {
			after = len([]rune("SELECT FROM " + t.Source() + " WHERE ("))
			statement = "SELECT FROM " + t.Source() + " WHERE (" + e.SQL + "\n)"
		}
		prepared, err := tx.Conn().PgConn().Prepare(ctx, "", statement, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, refused(at(e.SQL, after, err)))
		}
		if len(prepared.ParamOIDs) > 0 || i < len(declared) && (len(prepared.Fields) != 1 || prepared.Fields[0].DataTypeOID == recordOID) {
			return nil, fault.Fix(fmt.Errorf("%s is not one expression", e.Name), rowRemedy)
		}
		fields = append(fields, prepared.Fields...)
	}
	if len(fields) == 0 {
		return nil, nil
	}
	columns, err := planFields(ctx, tx, fields)
	if err != nil {
		return nil, err
	}
	for i, e := range declared {
		c := &columns[i]
		c.Expr = strings.ReplaceAll(c.Expr, Quote(c.Name), "("+e.SQL+"\n)")
		c.Name, c.Computed, c.Origin = e.Name, true, Origin{}
	}
	return columns, nil
}

// refused gives what Postgres says of an expression a remedy.
func refused(err error) error {
	if class, remedy := fault.Classify(err); class == fault.Permanent && remedy == "" {
		return fault.Fix(err, rowRemedy)
	}
	return err
}

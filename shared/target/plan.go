package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Reject is a row that cannot be written, and why. Column and the fields of Row
// have the names of the table.
type Reject struct {
	Column string          `json:"column,omitempty"`
	Reason string          `json:"reason"`
	Row    json.RawMessage `json:"row"`

	n int64 // of the staged row
}

// MaxRejects is how many rows one step of a run may refuse: beyond, it is the
// query that is wrong, and the run ends with a permanent error.
const MaxRejects = 10_000

// TooMany is the error of a run that refused more than MaxRejects rows. The
// reason must not quote a row.
func TooMany(reason string) error {
	return fault.Fix(fmt.Errorf("more than %d rows refused, the last because %s", MaxRejects, reason), "correct the query")
}

// Plan is what a run would do: counts by what each staged row comes to.
type Plan struct {
	Insert    int64 `json:"insert"`
	Update    int64 `json:"update"`
	Unchanged int64 `json:"unchanged"`
	Absent    int64 `json:"absent"` // no row has the key, and the mode does not insert
	Rejects   []Reject
}

// Sample is one row a plan would write: Before is null for an insert.
type Sample struct {
	Action string          `json:"action"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// samples is how many rows of each action are shown.
const samples = 5

// Plan casts the staged rows to the table's types, sets aside those that cannot
// be written exactly or whose key is NULL or not unique, compares the others
// with the table and notes what would change. It writes nothing to the table.
func (s *Staging) Plan(ctx context.Context) (Plan, error) {
	var p Plan
	if err := s.castAll(ctx, &p); err != nil {
		return p, fmt.Errorf("casting staged rows: %w", err)
	}
	for _, step := range []func(context.Context, *Plan) error{s.rejectInexact, s.rejectKeys, s.compare} {
		if err := step(ctx, &p); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (s *Staging) castAll(ctx context.Context, p *Plan) error {
	if err := s.exec(ctx, "CREATE INDEX ON "+s.raw+" (n)"); err != nil {
		return err
	}
	last, err := s.number(ctx, "SELECT coalesce(max(n), 0) FROM "+s.raw)
	if err != nil {
		return err
	}
	return s.isolate(ctx, 1, last, work{table: s.raw, rejects: &p.Rejects, run: func(ctx context.Context, from, to int64, _ bool) error {
		return s.exec(ctx, s.castSQL(), from, to)
	}})
}

// castSQL inserts the raw rows of a range in the table's types, those that
// survive it.
func (s *Staging) castSQL() string {
	exprs := []string{"n"}
	for _, c := range s.all() {
		exprs = append(exprs, c.cast())
	}
	return fmt.Sprintf("INSERT INTO %s SELECT %s FROM %s WHERE n BETWEEN $1 AND $2 AND %s IS NULL", s.cast, strings.Join(exprs, ", "), s.raw, s.inexact())
}

// inexact is the index in all of the first column whose value does not survive,
// or NULL. Only CASE keeps to an order: a row that fails for one column must do
// so whoever asks, and not for another.
func (s *Staging) inexact() string {
	whens := ""
	for i, c := range s.all() {
		if exact := c.exact(); exact != "" {
			whens += fmt.Sprintf(" WHEN NOT (%s) THEN %d", exact, i)
		}
	}
	if whens == "" {
		return "NULL::int"
	}
	return "CASE" + whens + " END"
}

// rejectInexact finds the rows that were neither cast nor refused with an error:
// a value of theirs would change. Afterwards every staged row is accounted for.
func (s *Staging) rejectInexact(ctx context.Context, p *Plan) error {
	missing := fmt.Sprintf("SELECT (SELECT count(*) FROM %s) - (SELECT count(*) FROM %s)", s.raw, s.cast)
	left, err := s.number(ctx, missing)
	if err != nil {
		return fmt.Errorf("counting cast rows: %w", err)
	}
	if left == int64(len(p.Rejects)) {
		return nil
	}
	if left > MaxRejects {
		return TooMany("values would change when stored in the types of the table")
	}
	failed := make([]int64, len(p.Rejects))
	for i, r := range p.Rejects {
		failed[i] = r.n
	}
	// Rows already set aside for an error would fail this cast again: it stands in
	// the select list, which is worked out for rows that the condition lets pass.
	found, err := s.rejected(ctx, fmt.Sprintf("SELECT n, %s, %s FROM %s r WHERE n <> ALL ($1) AND n NOT IN (SELECT n FROM %s)",
		s.object("r", false), s.inexact(), s.raw, s.cast), failed)
	if err != nil {
		return fmt.Errorf("finding values that would change: %w", err)
	}
	if int64(len(found)+len(failed)) != left {
		return fmt.Errorf("of %d staged rows that were not cast only %d are known", left, len(found)+len(failed))
	}
	for _, f := range found {
		column := s.all()[f.column].column
		f.Column, f.Reason = column.Name, "the value would change when stored as "+column.Type
		p.Rejects = append(p.Rejects, f.Reject)
	}
	return nil
}

// rejectedRow is a staged row that a query refuses, and for which mapped column.
type rejectedRow struct {
	Reject

	column int
}

func (s *Staging) rejected(ctx context.Context, sql string, args ...any) (found []rejectedRow, err error) {
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		if found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r rejectedRow, err error) {
			err = row.Scan(&r.n, &r.Row, &r.column)
			return r, err
		}); err != nil {
			return fmt.Errorf("reading rejected rows: %w", err)
		}
		return nil
	})
	return found, err
}

// rejectKeys sets aside rows without a key and all rows of a key given twice:
// which of them is meant nobody can say.
func (s *Staging) rejectKeys(ctx context.Context, p *Plan) error {
	if err := s.exec(ctx, "ANALYZE "+s.cast); err != nil {
		return fmt.Errorf("analyzing staged rows: %w", err)
	}
	keys := strings.Join(names(s.keys), ", ")
	for _, step := range []struct{ condition, reason string }{
		{strings.Join(names(s.keys), " IS NULL OR ") + " IS NULL", "the key is NULL"},
		{fmt.Sprintf("(%[1]s) IN (SELECT %[1]s FROM %[2]s GROUP BY %[1]s HAVING count(*) > 1)", keys, s.cast), "the query gives this key more than once"},
	} {
		count, err := s.number(ctx, fmt.Sprintf("SELECT count(*) FROM %s WHERE %s", s.cast, step.condition))
		if err != nil {
			return fmt.Errorf("checking the keys: %w", err)
		}
		if count == 0 {
			continue
		}
		if int64(len(p.Rejects))+count > MaxRejects {
			return TooMany(step.reason)
		}
		found, err := s.rejected(ctx, fmt.Sprintf("DELETE FROM %s s WHERE %s RETURNING n, %s, 0", s.cast, step.condition, s.object("s", false)))
		if err != nil {
			return fmt.Errorf("setting rows aside for their key: %w", err)
		}
		for _, f := range found {
			f.Column, f.Reason = s.keys[0].column.Name, step.reason
			p.Rejects = append(p.Rejects, f.Reject)
		}
	}
	return nil
}

// compare joins the staged rows with the table and numbers what would change in
// key order, the order in which it is applied and locked.
func (s *Staging) compare(ctx context.Context, p *Plan) error {
	missing := "absent"
	if s.sync.Mode == pipeline.ModeUpsert {
		missing = "insert"
	}
	columns := strings.Join(names(s.all()), ", ")
	counts := map[string]*int64{"insert": &p.Insert, "update": &p.Update, "unchanged": &p.Unchanged, "absent": &p.Absent}
	err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, fmt.Sprintf(`
			WITH compared AS (
				SELECT s.*, CASE WHEN t.%[1]s IS NULL THEN '%[2]s' WHEN %[3]s THEN 'update' ELSE 'unchanged' END AS action
				  FROM %[4]s s LEFT JOIN %[5]s t ON %[6]s
			), planned AS (
				INSERT INTO %[7]s (n, action, %[8]s)
				SELECT row_number() OVER (ORDER BY %[9]s), action, %[8]s FROM compared WHERE action IN ('insert', 'update')
			)
			SELECT action, count(*) FROM compared GROUP BY action`,
			catalog.Quote(s.keys[0].column.Name), missing, s.changed("t", "s"), s.cast, s.table.SQLName(), s.match("t", "s"),
			s.plan, columns, strings.Join(names(s.keys), ", ")))
		if err != nil {
			return err
		}
		var action string
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&action, &n}, func() error {
			*counts[action] = n
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("comparing staged rows: %w", err)
	}
	if err := errors.Join(s.exec(ctx, "CREATE INDEX ON "+s.plan+" (n)"), s.exec(ctx, "ANALYZE "+s.plan)); err != nil {
		return fmt.Errorf("indexing the plan: %w", err)
	}
	return nil
}

// match joins the table and staged rows by key. The operator is named in full:
// what comes first in a search_path must not redefine it.
func (s *Staging) match(table, stage string) string {
	conditions := make([]string, len(s.keys))
	for i, k := range s.keys {
		conditions[i] = fmt.Sprintf("%s.%s OPERATOR(pg_catalog.=) %s.%s", table, catalog.Quote(k.column.Name), stage, k.name)
	}
	return strings.Join(conditions, " AND ")
}

// changed is true where a row really differs: a no-op is never written (I10).
func (s *Staging) changed(table, stage string) string {
	conditions := []string{"false"}
	for _, c := range s.values {
		conditions = append(conditions, c.differs(table, stage))
	}
	return "(" + strings.Join(conditions, " OR ") + ")"
}

// Samples shows some rows of each action of the plan, before and after.
func (s *Staging) Samples(ctx context.Context) ([]Sample, error) {
	var out []Sample
	before, after := s.object("t", true), s.object("s", false)
	for _, action := range []string{"insert", "update"} {
		err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, fmt.Sprintf(`
				SELECT s.action, CASE WHEN s.action = 'update' THEN %s END, %s FROM %s s LEFT JOIN %s t ON %s WHERE s.action = $1 ORDER BY s.n LIMIT %d`,
				before, after, s.plan, s.table.SQLName(), s.match("t", "s"), samples), action)
			if err != nil {
				return err
			}
			found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x Sample, err error) {
				err = row.Scan(&x.Action, &x.Before, &x.After)
				return x, err
			})
			if err != nil {
				return fmt.Errorf("reading rows: %w", err)
			}
			out = slices.Concat(out, found)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("sampling the plan: %w", err)
		}
	}
	return out, nil
}

// object is the mapped columns of a row as one JSON object under the names of
// the table. json goes as text: it may hold what jsonb cannot.
func (s *Staging) object(alias string, table bool) string {
	exprs := make([]string, 0, len(s.keys)+len(s.values))
	for _, c := range s.all() {
		value := alias + "." + c.name
		if table {
			value = alias + "." + catalog.Quote(c.column.Name)
		}
		if strings.TrimPrefix(c.column.Base, "_") == "json" {
			value += "::text"
		}
		exprs = append(exprs, "jsonb_build_object("+literal(c.column.Name)+"::text, "+value+")")
	}
	return strings.Join(exprs, " || ")
}

// literal writes a name as a string constant.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func names(columns []staged) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.name
	}
	return out
}

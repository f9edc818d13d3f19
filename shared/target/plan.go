package target

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Reject is a row that cannot be written, and why.
type Reject struct {
	Column string          `json:"column,omitempty"`
	Reason string          `json:"reason"`
	Row    json.RawMessage `json:"row"`
}

// Plan is what a run would do: counts by what each staged row comes to.
type Plan struct {
	Insert    int64 `json:"insert"`
	Update    int64 `json:"update"`
	Unchanged int64 `json:"unchanged"`
	Absent    int64 `json:"absent"` // no row has the key, and the mode does not insert
	Rejects   []Reject
	Samples   []Sample
}

// Sample is one row a plan would write: Before is null for an insert.
type Sample struct {
	Action string          `json:"action"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// samples is how many rows of each action a plan shows.
const samples = 5

// Plan casts the staged rows to the table's types, sets aside those that cannot
// be written exactly or whose key is NULL or not unique, compares the others
// with the table and notes what would change. It writes nothing to the table.
func (s *Staging) Plan(ctx context.Context) (Plan, error) {
	var p Plan
	var last int64
	if err := s.pool.QueryRow(ctx, "SELECT coalesce(max(n), 0) FROM "+s.raw).Scan(&last); err != nil {
		return p, fmt.Errorf("counting staged rows: %w", err)
	}
	cast := func(ctx context.Context, from, to int64) error {
		_, err := s.pool.Exec(ctx, s.castSQL("n BETWEEN $1 AND $2 AND "+s.exactSQL()), from, to)
		return err
	}
	if err := s.isolate(ctx, 1, last, s.raw, cast, &p.Rejects); err != nil {
		return p, fmt.Errorf("casting staged rows: %w", err)
	}
	for _, step := range []func(context.Context, *Plan) error{s.rejectInexact, s.rejectKeys, s.compare, s.sample} {
		if err := step(ctx, &p); err != nil {
			return p, err
		}
	}
	return p, nil
}

// castSQL inserts the raw rows that satisfy the condition in the table's types;
// with "true" and no rows it proves that the casts exist.
func (s *Staging) castSQL(condition string) string {
	exprs := []string{"n"}
	for _, c := range s.all() {
		exprs = append(exprs, c.castExpr())
	}
	return fmt.Sprintf("INSERT INTO %s SELECT %s FROM %s WHERE %s", s.cast, strings.Join(exprs, ", "), s.raw, condition)
}

// castExpr goes through text where Postgres' own cast is not exact: from double
// precision to numeric it keeps 15 digits only.
func (c staged) castExpr() string {
	if c.from.Type == "double precision" && c.column.Base == "numeric" {
		return c.name + "::text::" + c.column.Type
	}
	return c.name + "::" + c.column.Type
}

// exactSQL is true for rows that survive the casts unchanged (I3).
func (s *Staging) exactSQL() string {
	conditions := []string{"true"}
	for _, c := range s.all() {
		if exact := c.exact(); exact != "" {
			conditions = append(conditions, "("+exact+")")
		}
	}
	return strings.Join(conditions, " AND ")
}

// exact is true where a value survives its cast: an explicit cast rounds
// numbers and cuts text without a word. real is exempt: whoever maps FLOAT64 to
// it has chosen its precision.
func (c staged) exact() string {
	switch c.from.Type {
	case "bigint", "numeric", "double precision", "date", "time", "timestamp", "timestamptz":
		if c.column.Base == "" || c.column.Base == "float4" || c.column.Base == "text" || c.column.Base == "varchar" {
			return ""
		}
		return fmt.Sprintf("%s::%s IS NOT DISTINCT FROM %s", c.castExpr(), c.from.Type, c.name)
	case "text":
		if c.column.Base == "varchar" || c.column.Base == "bpchar" {
			return fmt.Sprintf("%[1]s IS NULL OR rtrim(%[1]s) = rtrim(%[2]s::text)", c.name, c.castExpr())
		}
	}
	return ""
}

func (s *Staging) rejectInexact(ctx context.Context, p *Plan) error {
	var left int64
	if err := s.pool.QueryRow(ctx, fmt.Sprintf("SELECT (SELECT count(*) FROM %s) - (SELECT count(*) FROM %s)", s.raw, s.cast)).Scan(&left); err != nil {
		return fmt.Errorf("counting cast rows: %w", err)
	}
	if left == int64(len(p.Rejects)) {
		return nil
	}
	for _, c := range s.all() {
		exact := c.exact()
		if exact == "" {
			continue
		}
		// Rows already set aside for an error would fail this cast again; only
		// CASE says what is evaluated first.
		rows, err := s.pool.Query(ctx, fmt.Sprintf("SELECT to_jsonb(r) FROM %s r WHERE CASE WHEN n = ANY ($1) OR n IN (SELECT n FROM %s) THEN false ELSE NOT (%s) END", s.raw, s.cast, exact), s.failed(p))
		if err != nil {
			return fmt.Errorf("finding values that would change: %w", err)
		}
		if err := s.collect(rows, p, c.column.Name, "the value would change when stored as "+c.column.Type); err != nil {
			return err
		}
	}
	return nil
}

func (s *Staging) failed(p *Plan) []int64 {
	out := make([]int64, 0, len(p.Rejects))
	for _, r := range p.Rejects {
		var row struct{ N int64 }
		if json.Unmarshal(r.Row, &row) == nil {
			out = append(out, row.N)
		}
	}
	return out
}

// rejectKeys sets aside rows without a key and all rows of a key given twice:
// which of them is meant nobody can say.
func (s *Staging) rejectKeys(ctx context.Context, p *Plan) error {
	keys := strings.Join(names(s.keys), ", ")
	absent := strings.Join(names(s.keys), " IS NULL OR ") + " IS NULL"
	rows, err := s.pool.Query(ctx, fmt.Sprintf("DELETE FROM %s s WHERE %s RETURNING to_jsonb(s)", s.cast, absent))
	if err != nil {
		return fmt.Errorf("finding rows without a key: %w", err)
	}
	if err := s.collect(rows, p, s.keys[0].column.Name, "the key is NULL"); err != nil {
		return err
	}
	rows, err = s.pool.Query(ctx, fmt.Sprintf("DELETE FROM %[1]s s WHERE (%[2]s) IN (SELECT %[2]s FROM %[1]s GROUP BY %[2]s HAVING count(*) > 1) RETURNING to_jsonb(s)", s.cast, keys))
	if err != nil {
		return fmt.Errorf("finding keys given twice: %w", err)
	}
	return s.collect(rows, p, s.keys[0].column.Name, "the query gives this key more than once")
}

// collect turns staged rows into rejects under the names the query gave them.
func (s *Staging) collect(rows pgx.Rows, p *Plan, column, reason string) error {
	found, err := pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
	if err != nil {
		return fmt.Errorf("reading rejected rows: %w", err)
	}
	if len(p.Rejects)+len(found) > maxRejects {
		return fault.Fix(fmt.Errorf("more than %d rows refused, the last because %s", maxRejects, reason), "correct the query")
	}
	for _, row := range found {
		p.Rejects = append(p.Rejects, Reject{column, reason, row})
	}
	return nil
}

// compare joins the staged rows with the table and numbers what would change in
// key order, the order in which it is applied and locked.
func (s *Staging) compare(ctx context.Context, p *Plan) error {
	if _, err := s.pool.Exec(ctx, "ANALYZE "+s.cast); err != nil {
		return fmt.Errorf("analyzing staged rows: %w", err)
	}
	missing := "absent"
	if s.sync.Mode == pipeline.ModeUpsert {
		missing = "insert"
	}
	columns := strings.Join(names(s.all()), ", ")
	rows, err := s.pool.Query(ctx, fmt.Sprintf(`
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
		return fmt.Errorf("comparing staged rows: %w", err)
	}
	var action string
	var n int64
	if _, err = pgx.ForEachRow(rows, []any{&action, &n}, func() error {
		switch action {
		case "insert":
			p.Insert = n
		case "update":
			p.Update = n
		case "unchanged":
			p.Unchanged = n
		default:
			p.Absent = n
		}
		return nil
	}); err != nil {
		return fmt.Errorf("comparing staged rows: %w", err)
	}
	if _, err := s.pool.Exec(ctx, "CREATE INDEX ON "+s.plan+" (n)"); err != nil {
		return fmt.Errorf("indexing the plan: %w", err)
	}
	if _, err := s.pool.Exec(ctx, "ANALYZE "+s.plan); err != nil {
		return fmt.Errorf("analyzing the plan: %w", err)
	}
	return nil
}

// match joins the table and staged rows by key.
func (s *Staging) match(table, stage string) string {
	conditions := make([]string, len(s.keys))
	for i, k := range s.keys {
		conditions[i] = fmt.Sprintf("%s.%s = %s.%s", table, catalog.Quote(k.column.Name), stage, k.name)
	}
	return strings.Join(conditions, " AND ")
}

// changed is true where a row really differs: a no-op is never written (I10).
func (s *Staging) changed(table, stage string) string {
	conditions := []string{"false"}
	for _, c := range s.values {
		have, want := table+"."+catalog.Quote(c.column.Name), stage+"."+c.name
		switch c.column.Base {
		case "json": // has no equality of its own
			have, want = have+"::jsonb", want+"::jsonb"
		case "", "xml": // an extension's idea of equal may be wider than ours
			have, want = have+"::text", want+"::text"
		}
		conditions = append(conditions, have+" IS DISTINCT FROM "+want)
	}
	return "(" + strings.Join(conditions, " OR ") + ")"
}

// sample shows some rows of each action, before and after.
func (s *Staging) sample(ctx context.Context, p *Plan) error {
	before, after := s.object("t", true), s.object("s", false)
	for _, action := range []string{"insert", "update"} {
		rows, err := s.pool.Query(ctx, fmt.Sprintf(`
			SELECT s.action, CASE WHEN s.action = 'update' THEN %s END, %s FROM %s s LEFT JOIN %s t ON %s WHERE s.action = $1 ORDER BY s.n LIMIT %d`,
			before, after, s.plan, s.table.SQLName(), s.match("t", "s"), samples), action)
		if err != nil {
			return fmt.Errorf("sampling the plan: %w", err)
		}
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Sample, error) {
			var x Sample
			err := row.Scan(&x.Action, &x.Before, &x.After)
			return x, err
		})
		if err != nil {
			return fmt.Errorf("sampling the plan: %w", err)
		}
		p.Samples = append(p.Samples, found...)
	}
	return nil
}

// object is the mapped columns of a row as one JSON object.
func (s *Staging) object(alias string, table bool) string {
	exprs := make([]string, 0, len(s.keys)+len(s.values))
	for _, c := range s.all() {
		value := alias + "." + c.name
		if table {
			value = alias + "." + catalog.Quote(c.column.Name)
		}
		exprs = append(exprs, "jsonb_build_object("+literal(c.column.Name)+", "+value+")")
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

package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// What Postgres would refuse of a plan is found in SQL before it is applied, where
// that can be known for certain: NOT NULL, CHECK and foreign keys. What depends on
// more than the row (triggers, defaults, generated columns, rows of the same run)
// and what cannot be evaluated is left to the apply, which isolates what it finds.

// demand is what a constraint asks of a row.
type demand struct {
	refusal  dataError
	columns  []string // of the table that it is about
	violated string   // a condition on s, the row of the plan, and t, that of the table: Postgres would refuse it

	check uint32 // OID of a CHECK constraint, whose condition is yet to be read
}

// validate takes the rows that Postgres would refuse out of the plan and adds them to
// its rejects, with the reason that Postgres would give. Row triggers may make
// other rows of them: where there are such, nothing is refused in their stead.
func (s *Staging) validate(ctx context.Context, p *Plan) error {
	for _, action := range []struct {
		name  string
		count *int64
	}{{"insert", &p.Insert}, {"update", &p.Update}} {
		if *action.count == 0 {
			continue
		}
		before := len(p.Rejects)
		if err := s.validateAction(ctx, action.name, p); err != nil {
			return fmt.Errorf("validating rows to %s: %w", action.name, err)
		}
		*action.count -= int64(len(p.Rejects) - before)
	}
	return nil
}

func (s *Staging) validateAction(ctx context.Context, action string, p *Plan) error {
	var rows, keys []demand
	err := s.catalogue(ctx, func(tx pgx.Tx) error {
		foreseen, err := s.foreseen(ctx, tx, action)
		if err != nil || !foreseen {
			return err
		}
		checks, err := s.checks(ctx, tx, action)
		if err != nil {
			return err
		}
		rows = append(s.notNull(action), checks...)
		var partly []demand
		if partly, keys, err = s.references(ctx, tx, action); err != nil {
			return err
		}
		rows = append(rows, partly...)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the constraints: %w", err)
	}
	groups := [][]demand{rows} // Postgres has tested all of a row before it looks for other rows
	for _, k := range keys {
		groups = append(groups, []demand{k})
	}
	for _, group := range groups {
		if err := s.demand(ctx, action, group, p); err != nil {
			return err
		}
	}
	return nil
}

// catalogue runs f where names are those of pg_catalog.
func (s *Staging) catalogue(ctx context.Context, f func(pgx.Tx) error) error {
	return s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)"); err != nil {
			return err
		}
		return f(tx)
	})
}

// treeSQL are the table and all that its rows may be in.
const treeSQL = `WITH RECURSIVE tree (relation) AS (SELECT $1::oid UNION SELECT inhrelid FROM tree JOIN pg_inherits ON inhparent = relation) `

// The bits of pg_trigger.tgtype (PostgreSQL: pg_trigger.h).
const (
	triggerRow    = 1
	triggerBefore = 2
	triggerInsert = 4
	triggerDelete = 8
	triggerUpdate = 16
)

// events are the kinds of triggers that an action fires: an update may move a row to
// another partition.
func (s *Staging) events(action string) int {
	switch {
	case action == "insert":
		return triggerInsert
	case s.table.Partitioned():
		return triggerInsert | triggerDelete | triggerUpdate
	}
	return triggerUpdate
}

// foreseen reports whether the row that Postgres tests is the one of the plan: no
// trigger or rule makes another of it. Rows of tables that inherit from a plain one have
// constraints of their own.
func (s *Staging) foreseen(ctx context.Context, tx pgx.Tx, action string) (foreseen bool, err error) {
	err = tx.QueryRow(ctx, treeSQL+`
		SELECT NOT EXISTS (SELECT FROM tree JOIN pg_trigger ON tgrelid = relation
		                    WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgtype & $2 = $2 AND tgtype & $3 <> 0)
		   AND NOT EXISTS (SELECT FROM tree JOIN pg_class ON oid = relation WHERE relhasrules)
		   AND ($4 OR (SELECT count(*) FROM tree) = 1)`,
		s.table.OID(), triggerRow|triggerBefore, s.events(action), action == "insert" || s.table.Partitioned()).Scan(&foreseen)
	if err != nil {
		return false, fmt.Errorf("looking for triggers: %w", err)
	}
	return foreseen, nil
}

// after is what a column will have when the action is done; known is false if it
// takes a default.
func (s *Staging) after(name, action string) (sql string, known bool) {
	column := "t." + catalog.Quote(name)
	for _, c := range s.all() {
		switch {
		case c.column.Name != name:
		case action == "insert":
			return "s." + c.name, true
		case !s.writes(name): // a key
			return column, true
		case s.sync.Mode == pipeline.ModeFill:
			return fmt.Sprintf("CASE WHEN %[1]s IS NULL THEN s.%[2]s ELSE %[1]s END", column, c.name), true
		default:
			return "s." + c.name, true
		}
	}
	if s.deleted != nil && s.deleted.Name == name && action == "update" {
		if s.deleted.Base == "bool" {
			return "false", true
		}
		return "NULL::" + s.deleted.Type, true
	}
	return column, action == "update"
}

// writes reports whether an update sets the column.
func (s *Staging) writes(name string) bool {
	return s.deleted != nil && s.deleted.Name == name || slices.ContainsFunc(s.values, func(c staged) bool { return c.column.Name == name })
}

// concerned reports whether the action can break what is demanded of the columns, and
// whether all of them are known.
func (s *Staging) concerned(columns []string, action string) bool {
	for _, c := range columns {
		if _, known := s.after(c, action); !known {
			return false
		}
	}
	return action == "insert" || slices.ContainsFunc(columns, s.writes)
}

// notNull is in the order of the columns, as Postgres tests them.
func (s *Staging) notNull(action string) []demand {
	var out []demand
	for _, c := range slices.SortedFunc(slices.Values(s.values), func(a, b staged) int { return cmp.Compare(a.column.Number, b.column.Number) }) {
		if !c.column.NotNull || action == "update" && s.sync.Mode == pipeline.ModeFill {
			continue
		}
		message := fmt.Sprintf(`null value in column "%s" of relation "%s" violates not-null constraint`, c.column.Name, s.table.Name)
		out = append(out, demand{
			refusal: dataError{code: "23502", table: s.table.Name, column: c.column.Name, message: message},
			columns: []string{c.column.Name}, violated: "s." + c.name + " IS NULL",
		})
	}
	return out
}

// checks are in the order of their names, as Postgres tests them. Constraints that
// were never validated hold for new rows, too. A generated column is computed from
// the new row, and attributes below 1 are more than a column.
func (s *Staging) checks(ctx context.Context, tx pgx.Tx, action string) ([]demand, error) {
	rows, err := tx.Query(ctx, `
		SELECT r.oid, r.conname::text, (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = r.conrelid AND attnum = ANY (r.conkey))
		  FROM pg_constraint r
		 WHERE r.conrelid = $1 AND r.contype = 'c' AND cardinality(r.conkey) > 0 AND 0 < ALL (r.conkey) AND `+enforcedSQL+`
		   AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = r.conrelid AND attnum = ANY (r.conkey) AND attgenerated <> '')
		 ORDER BY r.conname`, s.table.OID())
	if err != nil {
		return nil, err
	}
	var out []demand
	var oid uint32
	var name string
	var columns []string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &name, &columns}, func() error {
		if s.concerned(columns, action) {
			message := fmt.Sprintf(`new row for relation "%s" violates check constraint "%s"`, s.table.Name, name)
			out = append(out, demand{refusal: dataError{code: "23514", table: s.table.Name, constraint: name, message: message}, columns: columns, check: oid})
		}
		columns = nil
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading CHECK constraints: %w", err)
	}
	return out, nil
}

// A foreign key is looked up when the row is written, or at the end of the
// transaction: a trigger that has its turn before may make the row that it refers to. Those of
// a foreign key have names that begin with RI_, and the order is that of names. One
// that refers to the table itself may find rows of the same run. On a partitioned
// table the catalogue has a copy for each partition of the table referred to.
const referencesSQL = `r.conrelid = $1
	AND NOT EXISTS (SELECT FROM pg_constraint WHERE oid = r.conparentid AND conrelid = r.conrelid)
	AND coalesce(pg_partition_root(r.confrelid), r.confrelid) <> coalesce(pg_partition_root($1), $1)
	AND current_setting('session_replication_role') <> 'replica'
	AND NOT EXISTS (` + treeSQL + `
		SELECT FROM tree JOIN pg_trigger ON tgrelid = relation
		 WHERE CASE WHEN tgisinternal THEN tgenabled IN ('D', 'R') -- not enforced
		            ELSE tgenabled <> 'D' AND tgtype & $2 <> 0 AND (tgtype & $3 <> 0 OR r.condeferrable OR tgname < 'RI_') END)`

// references are what foreign keys demand: of the row alone, and that another row exists.
func (s *Staging) references(ctx context.Context, tx pgx.Tx, action string) (rows, keys []demand, err error) {
	found, err := foreignKeys(ctx, tx, referencesSQL, s.table.OID(), s.events(action), triggerBefore)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range found {
		if !s.concerned(f.columns, action) {
			continue
		}
		message := fmt.Sprintf(`insert or update on table "%s" violates foreign key constraint "%s"`, s.table.Name, f.name)
		d := demand{refusal: dataError{code: "23503", table: s.table.Name, constraint: f.name, message: message}, columns: f.columns}
		values, given := make([]string, len(f.columns)), make([]string, len(f.columns))
		for i, c := range f.columns {
			values[i], _ = s.after(c, action)
			values[i] = "(" + values[i] + ")"
			given[i] = values[i] + " IS NOT NULL"
		}
		if f.full && len(values) > 1 {
			partly := d
			partly.violated = fmt.Sprintf("pg_catalog.num_nulls(%s) BETWEEN 1 AND %d", strings.Join(values, ", "), len(values)-1)
			rows = append(rows, partly)
		}
		d.violated = strings.Join(given, " AND ") + " AND NOT EXISTS (SELECT FROM " + f.referenced.from() + " p WHERE " + f.refers("p", values) + ")"
		if action == "update" { // what does not change is not looked up
			same := make([]string, len(values))
			for i, c := range f.columns {
				same[i] = fmt.Sprintf("t.%s %s %s", catalog.Quote(c), f.columnEqual[i], values[i])
			}
			d.violated = "(" + strings.Join(same, " AND ") + ") IS NOT TRUE AND " + d.violated
			d.columns = nil
		}
		keys = append(keys, d)
	}
	return rows, keys, nil
}

// demand sets rows aside that fail one of the demands: for the first. Where the
// conditions cannot be evaluated together they are one by one, and the apply decides
// what is left.
func (s *Staging) demand(ctx context.Context, action string, demands []demand, p *Plan) error {
	if len(demands) == 0 {
		return nil
	}
	found, err := s.violating(ctx, action, demands, MaxRejects-len(p.Rejects))
	if undecided(err) {
		if len(demands) == 1 {
			return nil
		}
		for _, d := range demands {
			if err := s.demand(ctx, action, []demand{d}, p); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range found {
		refusal := demands[f.why].refusal
		if len(p.Rejects) == MaxRejects {
			return TooMany(refusal.Error())
		}
		f.Column, f.Reason = refusal.column, refusal.reason()
		p.Rejects = append(p.Rejects, f.Reject)
	}
	return nil
}

// undecided reports an error that says nothing of the run: a condition raised for a
// row, or reads what we may not.
func undecided(err error) bool {
	var data *dataError
	return errors.As(err, &data) || fault.SQLState(err) == "42501" // insufficient_privilege
}

// violating takes rows out of the plan, as mark does, at most one more than room, and returns them.
// The conditions of CHECK constraints are read in the same transaction: their text depends on
// the search_path.
func (s *Staging) violating(ctx context.Context, action string, demands []demand, room int) (found []rejectedRow, err error) {
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		conditions, err := s.conditions(ctx, tx, action, demands)
		if err != nil {
			return err
		}
		from := s.plan + " s"
		if s.reads(action, demands) {
			from += " JOIN " + s.table.SQLName() + " t ON " + s.match("t", "s")
		}
		violating := fmt.Sprintf("SELECT s.n, 0 AS why FROM %s WHERE s.action = '%s' AND %s", from, action, conditions[0])
		if len(conditions) > 1 {
			whens := ""
			for i, c := range conditions {
				whens += fmt.Sprintf(" WHEN %s THEN %d", c, i)
			}
			violating = fmt.Sprintf("SELECT n, why FROM (SELECT s.n, CASE%s END AS why FROM %s WHERE s.action = '%s') tested WHERE why IS NOT NULL", whens, from, action)
		}
		rows, err := tx.Query(ctx, fmt.Sprintf(`
			WITH violating AS MATERIALIZED (%s LIMIT %d), removed AS (
				UPDATE %s s SET action = 'refused ' || action FROM violating v WHERE s.n = v.n RETURNING s.n, s.staged, v.why, %s AS contents)
			SELECT coalesce(staged, 0), contents, why FROM removed ORDER BY n`,
			violating, room+1, s.plan, s.object("s", false)))
		if err != nil {
			return err
		}
		if found, err = pgx.CollectRows(rows, scanRejected); err != nil {
			return fmt.Errorf("taking rows out of the plan: %w", err)
		}
		return nil
	})
	return found, err
}

func scanRejected(row pgx.CollectableRow) (r rejectedRow, err error) {
	err = row.Scan(&r.n, &r.Row, &r.why)
	return r, err
}

// reads reports whether the demands are about more than rows of the plan.
func (s *Staging) reads(action string, demands []demand) bool {
	return action == "update" && (s.sync.Mode == pipeline.ModeFill || slices.ContainsFunc(demands, func(d demand) bool {
		return len(d.columns) == 0 || slices.ContainsFunc(d.columns, func(c string) bool { return !s.writes(c) })
	}))
}

// conditions are true of rows that fail a demand. The server's own text of a CHECK
// constraint has the bare names of the columns: they are all there is in its scope.
func (s *Staging) conditions(ctx context.Context, tx pgx.Tx, action string, demands []demand) ([]string, error) {
	out := make([]string, len(demands))
	for i, d := range demands {
		out[i] = "(" + d.violated + ")"
		if d.check == 0 {
			continue
		}
		var condition string
		err := tx.QueryRow(ctx, "SELECT pg_catalog.pg_get_expr(conbin, conrelid) FROM pg_catalog.pg_constraint WHERE oid = $1", d.check).Scan(&condition)
		if errors.Is(err, pgx.ErrNoRows) { // dropped meanwhile
			out[i] = "false"
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading constraint %s: %w", d.refusal.constraint, err)
		}
		columns := make([]string, len(d.columns))
		for j, c := range d.columns {
			value, _ := s.after(c, action)
			columns[j] = value + " AS " + catalog.Quote(c)
		}
		out[i] = "(SELECT (" + condition + ") FROM (SELECT " + strings.Join(columns, ", ") + ") AS r) IS FALSE"
	}
	return out, nil
}

// checkInsertable refuses a mode that inserts if no row could be inserted: a column
// must not be NULL, and nothing gives it a value. A trigger may.
func (s *Staging) checkInsertable(ctx context.Context) error {
	var missing []string
	err := s.catalogue(ctx, func(tx pgx.Tx) error {
		foreseen, err := s.foreseen(ctx, tx, "insert")
		if err != nil || !foreseen {
			return err
		}
		rows, err := tx.Query(ctx, `
			SELECT a.attname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
			 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL ($2) AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL
			   AND (a.attnotnull OR EXISTS (
				WITH RECURSIVE domain (oid) AS (SELECT a.atttypid UNION SELECT typbasetype FROM pg_type JOIN domain USING (oid))
				SELECT FROM domain JOIN pg_type USING (oid) WHERE typnotnull))
			 ORDER BY a.attnum`, s.table.OID(), s.Targets())
		if err != nil {
			return err
		}
		if missing, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return fmt.Errorf("reading columns: %w", err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking for columns that must not be NULL: %w", err)
	}
	if len(missing) == 0 {
		return nil
	}
	return fault.Fix(fmt.Errorf("no row can be inserted into %s: %s must not be NULL, has no default and is not mapped", s.table.Name, strings.Join(missing, ", ")),
		"map a column of the query to each, give it a default, or choose a mode that inserts nothing")
}

// unfit is a condition on a staged row that then is not cast to the table's types,
// and why.
type unfit struct{ condition, column, reason string }

// unfit are such conditions, in the order in which they are to be tested: those that need no
// cast come first, so that it does not raise.
func (s *Staging) unfit() []unfit {
	var out []unfit
	for _, c := range s.all() {
		if condition := c.unlabelled(); condition != "" {
			out = append(out, unfit{condition, c.column.Name, "SQLSTATE 22P02: it is no value of the enum " + c.column.Type})
		}
		if strings.Contains(c.column.Type, ".") { // qualified: not a built-in type, and maybe a domain
			out = append(out, unfit{fmt.Sprintf("%s IS NULL AND (%s)", c.name, neverNull(s.table.OID(), c.column.Number)), c.column.Name, "SQLSTATE 23502: " + c.column.Type + " does not allow null values"})
		}
	}
	for _, c := range s.all() {
		if exact := c.exact(); exact != "" {
			out = append(out, unfit{"NOT (" + exact + ")", c.column.Name, "the value would change when stored as " + c.column.Type})
		}
	}
	return out
}

// unlabelled is true of a text that is no value of the column's enum, or of which
// an element is none; "" if the column cannot be of an enum. Of other types it is NULL.
func (c staged) unlabelled() string {
	fromArray, toArray := c.arrays()
	if from, _ := c.element(); from != "text" || fromArray != toArray || c.column.Base != "" {
		return ""
	}
	const labels = `COLLATE "C" OPERATOR(pg_catalog.<>) ALL ((SELECT array_agg(enumlabel::text) FROM pg_catalog.pg_enum WHERE enumtypid = (%s))::text[])`
	if !toArray {
		return c.name + " " + fmt.Sprintf(labels, fmt.Sprintf("SELECT %d::oid", c.column.Param))
	}
	return fmt.Sprintf("EXISTS (SELECT FROM unnest(%s) AS element WHERE element %s)", c.name,
		fmt.Sprintf(labels, fmt.Sprintf("SELECT typelem FROM pg_catalog.pg_type WHERE oid = %d", c.column.Param)))
}

// neverNull is a query for whether a column's type is a domain that is NOT NULL, or
// is based on one.
func neverNull(table uint32, column int16) string {
	return fmt.Sprintf(`WITH RECURSIVE domain (oid) AS (SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = %d AND attnum = %d
		UNION SELECT typbasetype FROM pg_catalog.pg_type JOIN domain USING (oid)) SELECT bool_or(typnotnull) FROM domain JOIN pg_catalog.pg_type USING (oid)`, table, column)
}

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
)

// Right is what a user needs to do with a table, or with one column of it:
// SELECT, INSERT or UPDATE; or TRIGGER, on its partitions too.
type Right struct{ Privilege, Column string }

const missingRightsSQL = `
	WITH needed AS (
		SELECT privilege, nullif(attname, '') AS attname FROM unnest($2::text[], $3::text[]) AS r(privilege, attname)
	), schemas AS (
		SELECT relnamespace AS oid FROM pg_class WHERE oid = $1
		UNION
		SELECT t.typnamespace FROM needed JOIN pg_attribute a USING (attname) JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = $1
	), missing AS (
		SELECT privilege, string_agg(quote_ident(attname), ', ') AS columns FROM needed
		 WHERE NOT CASE WHEN attname IS NULL THEN has_table_privilege($1::oid, privilege) ELSE has_column_privilege($1::oid, attname, privilege) END
		 GROUP BY privilege
	)
	SELECT format('GRANT USAGE ON SCHEMA %s TO %I', oid::regnamespace, current_user) FROM schemas WHERE NOT has_schema_privilege(oid, 'USAGE')
	UNION ALL
	SELECT format('GRANT %s ON %s TO %I', string_agg(privilege || coalesce(' (' || columns || ')', ''), ', ' ORDER BY privilege), $4::text, current_user)
	  FROM missing HAVING count(*) > 0
	UNION ALL -- a trigger on a partitioned table is one on each partition
	SELECT format('GRANT TRIGGER ON %s TO %I', string_agg(relid::regclass::text, ', ' ORDER BY relid::regclass::text), current_user)
	  FROM pg_partition_tree($1::oid::regclass)
	 WHERE 'TRIGGER' = ANY ($2) AND relid <> $1 AND NOT has_table_privilege(relid, 'TRIGGER') HAVING count(*) > 0`

// Explain gives an error that says Postgres refused for want of a right the
// remedy: the statements that grant those of the rights that are missing. To a
// query it is SELECT on what it reads that is missing, whatever rights says.
func (t *Table) Explain(ctx context.Context, pool *pgxpool.Pool, refusal error, rights []Right) error {
	if fault.SQLState(refusal) != "42501" { // insufficient_privilege
		return refusal
	}
	sql, args := t.missingRights(rights)
	if t.query != "" {
		refusal = fmt.Errorf("running the query of %s in the pipeline file: %w", t.Name, refusal)
		sql, args = t.unreadable()
	}
	rows, err := pool.Query(ctx, sql, args...)
	if err != nil {
		return errors.Join(refusal, fmt.Errorf("looking for missing rights: %w", err))
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return errors.Join(refusal, fmt.Errorf("looking for missing rights: %w", err))
	}
	if len(statements) == 0 {
		return refusal
	}
	return fault.Fix(refusal, strings.Join(statements, "; "))
}

// Selected are the rights that reading the table takes: to all of it, or, where some of
// its columns are not carried, to those that are read, and to the system columns that
// tell rows and their transactions apart.
func (t *Table) Selected() []Right {
	if !t.omits() {
		return []Right{{Privilege: "SELECT"}}
	}
	var named []word
	for _, c := range t.Columns {
		if c.Computed {
			named = append(named, split(c.Expr)...)
		}
	}
	named = append(named, split(t.where)...)
	var rights []Right
	for _, c := range t.stored {
		if t.shows(c.Name) || slices.Contains(t.needs, c.Name) || slices.ContainsFunc(named, func(w word) bool { return w.names(c.Name) }) {
			rights = append(rights, Right{"SELECT", c.Name})
		}
	}
	return append(rights, Right{"SELECT", "xmin"}, Right{"SELECT", "ctid"})
}

// Need notes a column that is read whether it is carried or not.
func (t *Table) Need(column string) { t.needs = append(t.needs, column) }

// omits reports whether the table has columns that are not carried.
func (t *Table) omits() bool {
	return slices.ContainsFunc(t.stored, func(c Column) bool { return !t.shows(c.Name) })
}

// rewrittenSQL counts the files of the table that are not those of the snapshot.
const rewrittenSQL = `
	SELECT count(*) FROM pg_catalog.pg_class c WHERE (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass)))
	   AND c.relkind = 'r' AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)::oid`

// lockColumns is Lock for a user who may read some of the columns, which LOCK TABLE is
// not content with. The planner's lock comes after the snapshot; what may have happened
// between the two is looked for, and is an error that the next run does not meet.
func (t *Table) lockColumns(ctx context.Context, tx pgx.Tx) error {
	list := []string{"xmin", "ctid"}
	for _, c := range t.Columns {
		list = append(list, c.Expr)
	}
	list = append(list, QuoteAll(t.needs)...)
	condition := t.Condition()
	if condition == "" {
		condition = "true"
	}
	if _, err := tx.Exec(ctx, "EXPLAIN SELECT "+strings.Join(list, ", ")+" FROM "+t.Source()+" WHERE "+condition); err != nil {
		return err
	}
	changed := 0
	if err := tx.QueryRow(ctx, rewrittenSQL, t.oid).Scan(&changed); err != nil {
		return fmt.Errorf("looking for a rewrite: %w", err)
	}
	var stored []Column
	for _, c := range t.Columns {
		if !c.Computed {
			stored = append(stored, c)
		}
	}
	list = list[:0]
	for _, c := range stored {
		list = append(list, Quote(c.Name))
	}
	prepared, err := tx.Conn().PgConn().Prepare(ctx, "", "SELECT "+strings.Join(list, ", ")+" FROM "+t.Source(), nil)
	if err != nil {
		return fmt.Errorf("looking at its columns: %w", err)
	}
	for i, f := range prepared.Fields {
		if f.DataTypeOID != stored[i].facts.oid {
			changed++
		}
	}
	if changed > 0 {
		return &fault.Error{Class: fault.Transient, Remedy: "the next run reads it as it is then", Err: errors.New("it was altered, rewritten or truncated meanwhile")}
	}
	return nil
}

func (t *Table) missingRights(rights []Right) (sql string, args []any) {
	var privileges, columns []string
	for _, r := range rights {
		privileges, columns = append(privileges, r.Privilege), append(columns, r.Column)
	}
	return missingRightsSQL, []any{t.oid, privileges, columns, t.SQLName()}
}

// What a view reads is read with the rights of the view's owner. A right to some
// columns may be enough; it is the next suspect where no table is without any.
const unreadableSQL = `
	WITH suspects AS (
		SELECT format('%I.%I', n.nspname, c.relname) AS name, c.oid, has_any_column_privilege(c.oid, 'SELECT') AS partly
		  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE c.oid = ANY ($1) AND NOT has_table_privilege(c.oid, 'SELECT')
		   AND NOT EXISTS (SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
		                   WHERE w.ev_class = ANY ($1) AND w.ev_class <> c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
	)
	SELECT format('GRANT SELECT ON %s TO %I', string_agg(name, ', ' ORDER BY name), current_user) FROM suspects
	 WHERE NOT partly OR NOT EXISTS (SELECT FROM suspects WHERE NOT partly) HAVING count(*) > 0`

func (t *Table) unreadable() (sql string, args []any) {
	oids := make([]uint32, len(t.reads))
	for i, r := range t.reads {
		oids[i] = r.oid
	}
	return unreadableSQL, []any{oids}
}

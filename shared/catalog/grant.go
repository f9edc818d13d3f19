package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Right is what a user needs to do with a table, or with one column of it:
// SELECT, INSERT or UPDATE.
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
	  FROM missing HAVING count(*) > 0`

// Explain gives an error that says Postgres refused for want of a right the
// remedy: the statements that grant those of the rights that are missing.
func (t *Table) Explain(ctx context.Context, pool *pgxpool.Pool, refusal error, rights []Right) error {
	if fault.SQLState(refusal) != "42501" { // insufficient_privilege
		return refusal
	}
	var privileges, columns []string
	for _, r := range rights {
		privileges, columns = append(privileges, r.Privilege), append(columns, r.Column)
	}
	rows, err := pool.Query(ctx, missingRightsSQL, t.oid, privileges, columns, t.SQLName())
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

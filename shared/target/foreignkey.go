package target

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
)

// enforcedSQL is true of a constraint that Postgres enforces: all of them before
// version 18.
const enforcedSQL = `coalesce((to_jsonb(r) ->> 'conenforced')::boolean, true)`

// relation is a table as the catalogue names it.
type relation struct {
	oid          uint32
	schema, name string
	plain        bool // not partitioned: its own rows are all that counts, whatever inherits from it
}

func (r relation) from() string {
	name := catalog.Quote(r.schema) + "." + catalog.Quote(r.name)
	if r.plain {
		return "ONLY " + name
	}
	return name
}

// foreignKey is a foreign key of the catalogue. The slices are parallel.
type foreignKey struct {
	oid               uint32
	name              string
	title             string // of table, as SQL writes it
	full              bool   // MATCH FULL
	onDelete          string // pg_constraint.confdeltype
	table, referenced relation
	columns           []string // of table
	columnCasts       []string // to what the operator compares
	columnEqual       []string // operators that compare columns with their own values
	keys              []string // of referenced
	keyCasts          []string // to what the operator compares, and by its collation
	equal             []string // operators that compare keys with columns
}

// foreignKeysSQL reads foreign keys r. Postgres compares with the operators that the
// constraint was made with, and by the collation of the referenced column (PostgreSQL:
// ri_triggers.c, ri_GenerateQual). Those with a PERIOD compare otherwise.
const foreignKeysSQL = `
	SELECT r.oid, r.conname::text, c.oid::regclass::text, r.confmatchtype = 'f', r.confdeltype::text,
	       c.oid, cn.nspname::text, c.relname::text, c.relkind = 'r', p.oid, pn.nspname::text, p.relname::text, p.relkind = 'r', k.*
	  FROM pg_constraint r
	  JOIN pg_class c ON c.oid = r.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
	  JOIN pg_class p ON p.oid = r.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
	 CROSS JOIN LATERAL (
		SELECT array_agg(ca.attname::text ORDER BY i),
		       array_agg(CASE WHEN ca.atttypid <> o.oprright AND rt.typtype <> 'p' THEN format('::%I.%I', rn.nspname, rt.typname) ELSE '' END ORDER BY i),
		       array_agg(format('OPERATOR(%I.%s)', son.nspname, so.oprname) ORDER BY i),
		       array_agg(pa.attname::text ORDER BY i),
		       array_agg(CASE WHEN pa.atttypid <> o.oprleft AND lt.typtype <> 'p' THEN format('::%I.%I', ln.nspname, lt.typname) ELSE '' END
		                 || CASE WHEN l.oid IS NOT NULL THEN format(' COLLATE %I.%I', cn.nspname, l.collname) ELSE '' END ORDER BY i),
		       array_agg(format('OPERATOR(%I.%s)', n.nspname, o.oprname) ORDER BY i)
		  FROM unnest(r.conkey, r.confkey, r.conpfeqop, r.conffeqop) WITH ORDINALITY AS pair (column_number, key_number, equal, same, i)
		  JOIN pg_attribute ca ON ca.attrelid = r.conrelid AND ca.attnum = column_number
		  JOIN pg_attribute pa ON pa.attrelid = r.confrelid AND pa.attnum = key_number
		  JOIN pg_operator o ON o.oid = equal JOIN pg_namespace n ON n.oid = o.oprnamespace
		  JOIN pg_operator so ON so.oid = same JOIN pg_namespace son ON son.oid = so.oprnamespace
		  JOIN pg_type lt ON lt.oid = o.oprleft JOIN pg_namespace ln ON ln.oid = lt.typnamespace
		  JOIN pg_type rt ON rt.oid = o.oprright JOIN pg_namespace rn ON rn.oid = rt.typnamespace
		  LEFT JOIN (pg_collation l JOIN pg_namespace cn ON cn.oid = l.collnamespace) ON l.oid = pa.attcollation) AS k
	 WHERE r.contype = 'f' AND ` + enforcedSQL + ` AND NOT coalesce((to_jsonb(r) ->> 'conperiod')::boolean, false)`

// scan returns where foreignKeysSQL goes.
func (f *foreignKey) scan() []any {
	return []any{
		&f.oid, &f.name, &f.title, &f.full, &f.onDelete,
		&f.table.oid, &f.table.schema, &f.table.name, &f.table.plain, &f.referenced.oid, &f.referenced.schema, &f.referenced.name, &f.referenced.plain,
		&f.columns, &f.columnCasts, &f.columnEqual, &f.keys, &f.keyCasts, &f.equal,
	}
}

// foreignKeys reads those that a further condition holds for.
func foreignKeys(ctx context.Context, tx pgx.Tx, condition string, args ...any) ([]foreignKey, error) {
	rows, err := tx.Query(ctx, foreignKeysSQL+" AND "+condition+" ORDER BY cn.nspname, c.relname, r.conname, r.oid", args...)
	if err != nil {
		return nil, err
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f foreignKey, err error) {
		err = row.Scan(f.scan()...)
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading foreign keys: %w", err)
	}
	return out, nil
}

// refers is true of a referenced row that the values of the columns name.
func (f *foreignKey) refers(referenced string, values []string) string {
	conditions := make([]string, len(f.keys))
	for i, key := range f.keys {
		conditions[i] = fmt.Sprintf("%s.%s%s %s %s%s", referenced, catalog.Quote(key), f.keyCasts[i], f.equal[i], values[i], f.columnCasts[i])
	}
	return strings.Join(conditions, " AND ")
}

package target

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
)

// Cascade is what a foreign key does to the rows of another table, or of the same, when
// the deletes of a plan are applied.
type Cascade struct {
	Table      string `json:"table"` // whose rows it changes, with its schema, as SQL writes it
	Constraint string `json:"constraint"`
	Action     string `json:"action"` // delete, set null or set default
	// Rows is how many rows it changes besides those that the plan deletes, each counted
	// once; -1 if that is unknown: they may not be read, or the time for a statement was
	// too short.
	Rows int64 `json:"rows"`
}

// onDelete are the actions by pg_constraint.confdeltype; the others refuse the delete.
func onDelete() map[string]string {
	return map[string]string{"c": "delete", "n": "set null", "d": "set default"}
}

// maxPaths is on how many ways to one foreign key its rows are looked for.
const maxPaths = 16

// path is a way from the deletes of the plan along foreign keys to rows that are
// deleted with them.
type path struct {
	table   relation
	deleted func(alias string) string // true of its rows that are deleted
	keys    []uint32                  // OIDs of the foreign keys on it
}

// cascades lists the foreign keys by which the deletes of the plan change further
// rows, those nearest to the table first, with how many. A foreign key is
// followed once on a path: where it refers to its own table, or tables refer to each other
// in a circle, the count is a lower bound, and greater than 0 if any row is changed.
func (s *Staging) cascades(ctx context.Context) ([]Cascade, error) {
	var keys []foreignKey
	var tables lineage
	err := s.catalogue(ctx, func(tx pgx.Tx) (err error) {
		if keys, err = foreignKeys(ctx, tx, "r.conparentid = 0 AND r.confdeltype IN ('c', 'n', 'd')"); err != nil {
			return err
		}
		tables, err = readLineage(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the foreign keys that refer to %s: %w", s.table.Name, err)
	}
	planned := func(alias string) string {
		return fmt.Sprintf("EXISTS (SELECT FROM %s s WHERE s.action = 'delete' AND %s)", s.plan, s.match(alias, "s"))
	}
	var out []Cascade
	for _, r := range reach(path{table: relation{s.table.OID(), s.table.Schema, s.table.Name, !s.table.Partitioned()}, deleted: planned}, keys, tables) {
		beside := ""
		if tables.within(r.key.table.oid, s.table.OID()) {
			beside = " AND NOT " + planned("c")
		}
		rows := int64(-1)
		if len(r.changed) <= maxPaths {
			if rows, err = s.countChanged(ctx, r, beside); err != nil {
				return nil, fmt.Errorf("counting rows of %s that %s changes: %w", r.key.table.name, r.key.name, err)
			}
		}
		out = append(out, Cascade{Table: r.key.title, Constraint: r.key.name, Action: onDelete()[r.key.onDelete], Rows: rows})
	}
	return out, nil
}

// reached is a foreign key and which rows of its table it changes: those that one of the
// conditions is true of.
type reached struct {
	key     foreignKey
	changed []string // on c
}

// reach follows the foreign keys from the start, the shortest paths first.
func reach(start path, keys []foreignKey, tables lineage) []*reached {
	var out []*reached
	for paths := []path{start}; len(paths) > 0; paths = paths[1:] {
		at := paths[0]
		for _, key := range keys {
			from := tables.referenced(key, at)
			if from == "" || slices.Contains(at.keys, key.oid) {
				continue
			}
			i := slices.IndexFunc(out, func(r *reached) bool { return r.key.oid == key.oid })
			if i < 0 {
				i, out = len(out), append(out, &reached{key: key})
			}
			if len(out[i].changed) > maxPaths { // one more says that there are too many
				continue
			}
			next := path{table: key.table, keys: append(slices.Clone(at.keys), key.oid), deleted: func(alias string) string {
				referenced := fmt.Sprintf("p%d", len(at.keys))
				values := make([]string, len(key.columns))
				for i, c := range key.columns {
					values[i] = alias + "." + catalog.Quote(c)
				}
				return fmt.Sprintf("EXISTS (SELECT FROM %s %s WHERE %s AND %s)", from, referenced, key.refers(referenced, values), at.deleted(referenced))
			}}
			out[i].changed = append(out[i].changed, next.deleted("c"))
			if key.onDelete == "c" {
				paths = append(paths, next)
			}
		}
	}
	return out
}

func (s *Staging) countChanged(ctx context.Context, r *reached, beside string) (rows int64, err error) {
	from := " FROM " + r.key.table.from() + " c WHERE "
	sql := "SELECT count(*)" + from + r.changed[0] + beside
	if len(r.changed) > 1 { // joins, which an OR would keep Postgres from
		parts := make([]string, len(r.changed))
		for i, condition := range r.changed {
			parts[i] = "SELECT tableoid, ctid" + from + condition + beside
		}
		sql = "SELECT count(*) FROM (" + strings.Join(parts, " UNION ") + ") AS changed"
	}
	err = s.tx(ctx, s.sync.Limits.StatementTimeout, func(tx pgx.Tx) error { return tx.QueryRow(ctx, sql).Scan(&rows) })
	switch fault.SQLState(err) {
	case "42501": // insufficient_privilege
		return -1, nil
	case "57014": // query_canceled
		return -1, ctx.Err()
	}
	return rows, err
}

// lineage is by table which ones it is a partition of, or inherits from.
type lineage map[uint32][]parent

type parent struct {
	oid       uint32
	partition bool
}

func readLineage(ctx context.Context, tx pgx.Tx) (lineage, error) {
	rows, err := tx.Query(ctx, "SELECT inhrelid, inhparent, relispartition FROM pg_inherits JOIN pg_class ON oid = inhrelid")
	if err != nil {
		return nil, err
	}
	out := lineage{}
	var child uint32
	var p parent
	if _, err := pgx.ForEachRow(rows, []any{&child, &p.oid, &p.partition}, func() error {
		out[child] = append(out[child], p)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading partitions: %w", err)
	}
	return out, nil
}

// within reports whether a delete from a table reaches the rows of another, or of itself.
func (l lineage) within(table, whole uint32) bool {
	return table == whole || slices.ContainsFunc(l[table], func(p parent) bool { return l.within(p.oid, whole) })
}

// partOf is within for partitions alone.
func (l lineage) partOf(table, whole uint32) bool {
	return table == whole || slices.ContainsFunc(l[table], func(p parent) bool { return p.partition && l.partOf(p.oid, whole) })
}

// referenced is where the rows of a path are that a foreign key refers to; "" if it refers
// to none of them. A cascade deletes from no table that inherits, the plan does.
func (l lineage) referenced(key foreignKey, at path) string {
	refers, table := key.referenced.oid, at.table.oid
	switch {
	case l.partOf(refers, table), len(at.keys) == 0 && l.within(refers, table):
		return key.referenced.from()
	case l.partOf(table, refers):
		return at.table.from()
	}
	return ""
}

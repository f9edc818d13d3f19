package source

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Leaves are the partitions that hold the rows of a table, by their OID, each with its
// file: what ATTACH, DETACH, DROP and TRUNCATE of a single one do shows here, and in no
// trigger of the root and no log. A plain table has none.
type Leaves map[string]uint32

// querier is a transaction, a connection or a pool.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// A partition that was made as one has its row in pg_inherits from the transaction that
// made the table; one that was attached may have not, and brings its rows with it.
const partitionsSQL = `
	SELECT l.relid::oid::text, format('%I.%I', n.nspname, c.relname), coalesce(pg_relation_filenode(l.relid)::oid, 0), pg_relation_size(l.relid) > 0,
	       (SELECT xmin::text FROM pg_inherits WHERE inhrelid = l.relid) IS DISTINCT FROM (SELECT xmin::text FROM pg_attribute WHERE attrelid = l.relid AND attnum = -1)
	  FROM pg_partition_tree($1::regclass) AS l JOIN pg_class c ON c.oid = l.relid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE l.isleaf`

// loadedSQL finds a row that the transaction wrote before it attached the partition that
// it had made.
const loadedSQL = `SELECT EXISTS (SELECT FROM ONLY %s AS t JOIN pg_inherits i ON i.inhrelid = %s::oid AND i.xmin = t.xmin AND t.cmin::text::bigint < i.cmin::text::bigint)`

// Leaves returns the table's partitions, and why changes may have been missed since
// before, if they may: then the table has to be read again. What is gone is of no
// interest where deletes are not carried. After a truncation of the whole table every
// file is another one. nil is before the first look.
func (r *Rows) Leaves(ctx context.Context, q querier, before Leaves, truncated bool) (Leaves, string, error) {
	if !r.Table.Partitioned() {
		return nil, "", nil
	}
	rows, err := q.Query(ctx, partitionsSQL, r.Table.SQLName())
	if err != nil {
		return nil, "", fmt.Errorf("reading the partitions of %s: %w", r.Table.Name, err)
	}
	now, reason := Leaves{}, ""
	made := map[string]string{} // since the last look, by OID
	var oid, name string
	var file uint32
	var filled, attached bool
	if _, err := pgx.ForEachRow(rows, []any{&oid, &name, &file, &filled, &attached}, func() error {
		now[oid] = file
		was, known := before[oid]
		switch {
		case before == nil:
		case !known && filled && attached:
			reason = "partition " + name + " was attached"
		case !known && filled:
			made[oid] = name
		case known && was != file && !truncated:
			reason = "partition " + name + " was truncated or rewritten"
		}
		return nil
	}); err != nil {
		return nil, "", fmt.Errorf("reading the partitions of %s: %w", r.Table.Name, err)
	}
	for oid, name := range made {
		var loaded bool
		if err := q.QueryRow(ctx, fmt.Sprintf(loadedSQL, name, oid)).Scan(&loaded); err != nil {
			return nil, "", fmt.Errorf("looking into partition %s: %w", name, err)
		}
		if loaded {
			reason = "partition " + name + " was filled before it was attached"
		}
	}
	gone := slices.ContainsFunc(slices.Collect(maps.Keys(before)), func(oid string) bool { _, there := now[oid]; return !there })
	if gone && r.Deletes {
		reason = "a partition was detached or dropped"
	}
	return now, reason, nil
}

package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Leaf is a table that holds rows itself: a partition, or a plain table.
type Leaf struct {
	OID          uint32
	Schema, Name string
	Pages        int64  // of the main fork, now
	Filenode     uint32 // another one after TRUNCATE, VACUUM FULL, CLUSTER or a rewriting ALTER TABLE
}

// SQLName is the leaf's qualified, quoted name.
func (l Leaf) SQLName() string { return Quote(l.Schema) + "." + Quote(l.Name) }

// A sub-partition's rows are in its own leaves. Rows per page are those of the
// last VACUUM or ANALYZE, as the planner has it (estimate_rel_size in plancat.c).
const leavesSQL = `
	SELECT c.oid, n.nspname, c.relname, c.relkind::text, coalesce(pg_relation_size(c.oid) / current_setting('block_size')::bigint, 0),
	       coalesce(pg_relation_filenode(c.oid)::oid, 0), c.reltuples::float8, c.relpages::bigint
	  FROM (SELECT $1::oid AS oid WHERE $2 UNION ALL SELECT relid::oid FROM pg_partition_tree($1::oid::regclass) WHERE isleaf AND NOT $2) AS l
	  JOIN pg_catalog.pg_class c USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	 ORDER BY c.oid`

// Size is how big the table is: its pages, about how many rows they hold, and
// the leaves it consists of, by their OID. Where a leaf was never analyzed, tuples
// is the planner's guess. A query has no size, and a partition that is a foreign
// table has no pages: both are permanent errors.
func (t *Table) Size(ctx context.Context, tx pgx.Tx) (pages int64, tuples float64, leaves []Leaf, err error) {
	if t.query != "" {
		return 0, 0, nil, fault.Fix(fmt.Errorf("%s is a query, which has no pages of its own", t.Name), "read it whole")
	}
	rows, err := tx.Query(ctx, leavesSQL, t.oid, t.only)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("measuring %s: %w", t.Name, err)
	}
	var l Leaf
	var kind string
	var counted float64
	var countedPages int64
	unknown := false
	_, err = pgx.ForEachRow(rows, []any{&l.OID, &l.Schema, &l.Name, &kind, &l.Pages, &l.Filenode, &counted, &countedPages}, func() error {
		if kind == "f" {
			return fault.Fix(fmt.Errorf("partition %s of %s is a foreign table, which has no row versions to follow", l.SQLName(), t.Name),
				fmt.Sprintf("ALTER TABLE %s DETACH PARTITION %s, or name the partitions apart", t.SQLName(), l.SQLName()))
		}
		if kind != "r" {
			return nil // a partitioned table without partitions
		}
		leaves = append(leaves, l)
		pages += l.Pages
		switch {
		case l.Pages == 0:
		case counted < 0 || countedPages == 0:
			unknown = true
		default:
			tuples += counted / float64(countedPages) * float64(l.Pages)
		}
		return nil
	})
	if err != nil {
		return 0, 0, nil, fmt.Errorf("measuring %s: %w", t.Name, err)
	}
	if unknown {
		tuples, err = t.guess(ctx, tx)
	}
	return pages, tuples, leaves, err
}

func (t *Table) guess(ctx context.Context, tx pgx.Tx) (float64, error) {
	var explained []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	if err := tx.QueryRow(ctx, "EXPLAIN (FORMAT JSON) SELECT FROM "+t.Source()).Scan(&explained); err != nil {
		return 0, fmt.Errorf("guessing the rows of %s: %w", t.Name, err)
	}
	if len(explained) == 0 {
		return 0, fmt.Errorf("guessing the rows of %s: no plan", t.Name)
	}
	return explained[0].Plan.Rows, nil
}

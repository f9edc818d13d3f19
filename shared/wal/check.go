package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
)

// Member is a table of a pipeline that is captured from the log, and the columns
// that name its rows.
type Member struct {
	Table *catalog.Table
	Key   []string
}

// server is what the checks need to know of one.
type server struct {
	standby     bool
	walLevel    string
	version     int // server_version_num
	replication bool
	role        string
}

func readServer(ctx context.Context, q querier) (server, error) {
	var s server
	err := q.QueryRow(ctx, `
		SELECT pg_is_in_recovery(), current_setting('wal_level'), current_setting('server_version_num')::int,
		       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), current_user::text`).
		Scan(&s.standby, &s.walLevel, &s.version, &s.replication, &s.role)
	if err != nil {
		return s, fmt.Errorf("reading the server's settings: %w", err)
	}
	return s, nil
}

// Check fails where the server cannot be captured from the log at all, with
// every reason and its remedy. Errors are permanent until somebody acts.
func Check(ctx context.Context, pool *pgxpool.Pool) error {
	s, err := readServer(ctx, pool)
	if err != nil {
		return err
	}
	var problems []error
	if s.standby {
		problems = append(problems, fault.Fix(errors.New("the server is a standby: logical slots are read on the primary"),
			"point DATABASE_URL or CLOUD_SQL_INSTANCE at the primary, or use capture method watermark"))
	}
	if s.walLevel != "logical" {
		problems = append(problems, fault.Fix(fmt.Errorf("wal_level is %s, and changes can be decoded from logical only", s.walLevel), walLevelRemedy))
	}
	if !s.replication {
		problems = append(problems, fault.Fix(fmt.Errorf("role %s may not read replication slots (attributes are not inherited from other roles)", s.role),
			replicationRemedy(s.role)))
	}
	return errors.Join(append(problems, checkVersion(s.version))...)
}

const walLevelRemedy = "Cloud SQL: set the flag cloudsql.logical_decoding=on; elsewhere: ALTER SYSTEM SET wal_level = 'logical'; then restart the server"

func replicationRemedy(role string) string {
	return "ALTER ROLE " + catalog.Quote(role) + " REPLICATION"
}

// repaired are the first releases of each major version in which a table that
// joins a publication while transactions are open loses nothing after them ("Distribute
// invalidations to in-progress transactions", May 2025). Before those, pgoutput went on
// leaving out a table for the rest of a pull once it had met it in a transaction older than its joining.
//
//nolint:gochecknoglobals // a lookup table, never written
var repaired = map[int]int{14: 18, 15: 13, 16: 9, 17: 5}

// oldestMajor is the first version whose pgoutput sends binary values.
const oldestMajor = 14

func checkVersion(number int) error {
	major, minor := number/10000, number%10000
	if major < oldestMajor {
		return fault.Fix(fmt.Errorf("the server is PostgreSQL %d: capture method wal needs %d or newer", major, oldestMajor),
			"upgrade the server, or use capture method watermark or changelog")
	}
	if first := repaired[major]; minor < first {
		return fault.Fix(fmt.Errorf("PostgreSQL %d.%d can lose changes of a table that was just added to a publication", major, minor),
			fmt.Sprintf("update the server to %d.%d or newer (Cloud SQL: apply the maintenance update)", major, first))
	}
	return nil
}

// leaf is a table that holds rows: the member itself or one of its partitions.
type leaf struct {
	name        string // qualified and quoted
	kind        string // relkind
	persistence string
	identity    string   // relreplident
	covered     []string // columns of the identity; of no meaning where it is full
	primary     []string
	unique      string // an index that would do as identity, or ""
}

// The indexes that Postgres takes for identities are those that RelationGetIndexList
// does: valid, unique, immediate, whole.
const leavesSQL = `
	WITH member AS (
		SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
	), leaves AS (
		SELECT oid FROM member WHERE relkind <> 'p'
		UNION ALL
		SELECT t.relid FROM member m CROSS JOIN pg_partition_tree(m.oid) t WHERE m.relkind = 'p' AND t.isleaf
	), indexes AS (
		SELECT i.indrelid, ic.relname, i.indisprimary, i.indisreplident, k.columns, k.solid
		  FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
		 CROSS JOIN LATERAL (
			SELECT array_agg(a.attname::text) AS columns, bool_and(a.attnotnull) AS solid FROM pg_attribute a
			 WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
		 ) k
		 WHERE i.indisvalid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
	)
	SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relpersistence::text, c.relreplident::text,
	       coalesce((SELECT i.columns FROM indexes i WHERE i.indrelid = c.oid
	                  AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END), '{}'),
	       coalesce((SELECT i.columns FROM indexes i WHERE i.indrelid = c.oid AND i.indisprimary), '{}'),
	       coalesce((SELECT i.relname::text FROM indexes i WHERE i.indrelid = c.oid AND i.solid AND i.columns @> $3::text[]
	                  ORDER BY cardinality(i.columns), i.relname LIMIT 1), '')
	  FROM leaves l JOIN pg_class c ON c.oid = l.oid JOIN pg_namespace n ON n.oid = c.relnamespace
	 ORDER BY 1`

// CheckTable fails where the log does not carry what capturing a table takes:
// the key of each old row, in the table or in each of its partitions, and all columns.
// It has to pass before the table is added to a publication, or the application's own
// UPDATE and DELETE fail from then on. Errors are permanent, with the statement that mends them.
func CheckTable(ctx context.Context, pool *pgxpool.Pool, m Member) error {
	return checkTable(ctx, pool, m)
}

func checkTable(ctx context.Context, q querier, m Member) error {
	rows, err := q.Query(ctx, leavesSQL, m.Table.Schema, m.Table.Name, m.Key)
	if err != nil {
		return fmt.Errorf("reading the replica identity of %s: %w", m.Table.SQLName(), err)
	}
	leaves, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (leaf, error) {
		var l leaf
		return l, row.Scan(&l.name, &l.kind, &l.persistence, &l.identity, &l.covered, &l.primary, &l.unique)
	})
	if err != nil {
		return fmt.Errorf("reading the replica identity of %s: %w", m.Table.SQLName(), err)
	}
	var problems []error
	for _, l := range leaves {
		problems = append(problems, l.check(m.Key))
	}
	return errors.Join(append(problems, checkGenerated(ctx, q, m))...)
}

func (l leaf) check(key []string) error {
	switch {
	case l.kind != "r":
		return fault.Fix(fmt.Errorf("%s is no table whose changes are in the log", l.name),
			"capture it with method watermark or snapshot: views and foreign tables have no log")
	case l.persistence != "p":
		return fault.Fix(fmt.Errorf("%s is unlogged or temporary: its changes are not in the log", l.name),
			"ALTER TABLE "+l.name+" SET LOGGED")
	case l.identity == "f", len(l.covered) > 0 && covers(l.covered, key):
		return nil
	}
	return fault.Fix(fmt.Errorf("the replica identity of %s does not cover the key (%s): %s", l.name, strings.Join(key, ", "), l.describe()), l.remedy(key))
}

func (l leaf) describe() string {
	switch {
	case l.identity == "n":
		return "it is NOTHING"
	case len(l.covered) > 0:
		return "it is (" + strings.Join(l.covered, ", ") + ")"
	case l.identity == "i":
		return "its index is gone"
	}
	return "it is the primary key, and there is none that is checked at once"
}

func (l leaf) remedy(key []string) string {
	alter := "ALTER TABLE " + l.name + " REPLICA IDENTITY "
	switch {
	case len(l.primary) > 0 && covers(l.primary, key):
		return alter + "DEFAULT"
	case l.unique != "":
		return alter + "USING INDEX " + catalog.Quote(l.unique)
	}
	return alter + "FULL"
}

func covers(columns, key []string) bool {
	return !slices.ContainsFunc(key, func(k string) bool { return !slices.Contains(columns, k) })
}

// checkGenerated refuses a key with generated columns, whose values are not in the
// stream. Other such columns are read from the table.
func checkGenerated(ctx context.Context, q querier, m Member) error {
	t := m.Table
	var generated []string
	err := q.QueryRow(ctx, `
		SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}')
		  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE n.nspname = $1 AND c.relname = $2 AND a.attgenerated <> '' AND NOT a.attisdropped AND a.attname = ANY ($3)`,
		t.Schema, t.Name, m.Key).Scan(&generated)
	if err != nil {
		return fmt.Errorf("looking for generated columns of %s: %w", t.SQLName(), err)
	}
	if len(generated) == 0 {
		return nil
	}
	return fault.Fix(fmt.Errorf("the key of %s has generated columns, which the stream of changes does not carry: %s", t.SQLName(), strings.Join(generated, ", ")),
		"declare a key of other columns with a unique index, or use another capture method")
}

package workload

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// change is a kind of statement.
type change int

const (
	insertion change = iota
	modification
	deletion
	rekeying  // of some columns of the key
	rerouting // of those that choose the partition
	reinsertion
	truncation
)

const (
	oddsChurn     = 45 // of what Churn adds, among statements
	oddsSecond    = 30 // of two tables at a TRUNCATE
	oddsRestart   = 50 // of RESTART IDENTITY at a TRUNCATE
	freeRows      = 50 // among so many that nobody refers to, one is drawn
	cutDraws      = 4  // of what to truncate, until nobody holds it
	mostTruncated = 3  // tables at a time: the others have to find parents for their rows
)

// choose draws what to do to a table.
func (w *Writer) choose(t *table) change {
	if w.churn && w.percent(oddsChurn) {
		switch n := w.rand.IntN(100); {
		case n < 35:
			return deletion
		case n < 60:
			return rekeying
		case n < 75:
			return rerouting
		case n < 95:
			return reinsertion
		default:
			return truncation
		}
	}
	if w.percent(oddsInsert) || t.cursor == nil && !w.churn {
		return insertion
	}
	return modification
}

// stir makes one of the changes that Churn adds and counts it.
func (w *Writer) stir(ctx context.Context, conn *pgconn.PgConn, t *transaction, table *table, change change) error {
	count := t.counts[table]
	switch change {
	case deletion:
		affected, err := w.remove(ctx, conn, table)
		if err != nil {
			return err
		}
		count.Deleted += int(affected)
	case rekeying, rerouting:
		changed, err := w.rekey(ctx, conn, table, change)
		if err != nil {
			return err
		}
		count.add(changed)
	case reinsertion:
		affected, err := w.reinsert(ctx, conn, table)
		if err != nil {
			return err
		}
		count.Reinserted += int(affected)
	default:
		return w.truncate(ctx, conn, t)
	}
	t.counts[table] = count
	return nil
}

// remove deletes one row that no foreign key holds.
func (w *Writer) remove(ctx context.Context, conn *pgconn.PgConn, t *table) (int64, error) {
	key, err := w.freeRow(ctx, conn, t, t.keys(), func(r *referrer) byte { return r.onDelete })
	if err != nil || key == nil {
		return 0, err
	}
	return w.drop(ctx, conn, t, key)
}

func (w *Writer) drop(ctx context.Context, conn *pgconn.PgConn, t *table, key [][]byte) (int64, error) {
	r := &row{}
	statement := fmt.Sprintf("DELETE FROM %s WHERE %s", t.qualified(), r.identify(t, key))
	_, affected, err := execute(ctx, conn, statement, r.values)
	return affected, err
}

// reinsert deletes a row and inserts another one with its key.
func (w *Writer) reinsert(ctx context.Context, conn *pgconn.PgConn, t *table) (int64, error) {
	key, err := w.freeRow(ctx, conn, t, t.keys(), func(r *referrer) byte { return r.onDelete })
	if err != nil || key == nil {
		return 0, err
	}
	affected, err := w.drop(ctx, conn, t, key)
	if err != nil || affected == 0 {
		return 0, err
	}
	r := &row{}
	for i, c := range t.key {
		if !c.computed {
			r.bind(c, key[i])
		}
	}
	return w.insert(ctx, conn, t, r)
}

// rekey gives one row another key, or another partition, which its key is part of.
// By chance it may get the one it had, and is but updated.
func (w *Writer) rekey(ctx context.Context, conn *pgconn.PgConn, t *table, change change) (Count, error) {
	var count Count
	found, err := w.freeRow(ctx, conn, t, append(t.keys(), "tableoid"), func(r *referrer) byte { return r.onUpdate })
	if err != nil || found == nil {
		return count, err
	}
	key, partition := found[:len(t.key)], string(found[len(t.key)])
	r := &row{}
	for _, c := range w.rekeyed(t, change) {
		if err := w.rewrite(ctx, conn, t, r, c); err != nil {
			return count, err
		}
	}
	if len(r.columns) == 0 {
		return count, nil
	}
	rows, _, err := w.set(ctx, conn, t, r, key, " RETURNING "+strings.Join(append(t.keys(), "tableoid"), ", "))
	if err != nil {
		return count, err
	}
	for _, after := range rows {
		if slices.EqualFunc(after[:len(key)], key, bytes.Equal) {
			count.Updated++
		} else {
			count.Rekeyed++
		}
		if string(after[len(key)]) != partition {
			count.Rerouted++
		}
	}
	return count, nil
}

// rekeyed draws the columns to change.
func (w *Writer) rekeyed(t *table, change change) []*column {
	var able []*column
	for _, c := range t.key {
		if !c.computed && !c.always && (c.routes || change == rekeying) {
			able = append(able, c)
		}
	}
	if len(able) == 0 || change == rerouting {
		return able
	}
	w.rand.Shuffle(len(able), func(i, j int) { able[i], able[j] = able[j], able[i] })
	return able[:1+w.rand.IntN(len(able))]
}

// rewrite chooses another value for a column of the key.
func (w *Writer) rewrite(ctx context.Context, conn *pgconn.PgConn, t *table, r *row, c *column) error {
	if r.has(c) {
		return nil
	}
	if c == t.partition.column {
		w.route(r, t)
		return nil
	}
	if reference := t.reference(c); reference != nil {
		return w.refer(ctx, conn, r, reference)
	}
	if value, ok := c.kind.value(w.rand, c); ok {
		r.bind(c, []byte(value))
	}
	return nil
}

// freeRow draws a row that may be deleted, or may have its key changed, as far as
// the actions of the foreign keys to it tell. It returns nil if there is none.
func (w *Writer) freeRow(ctx context.Context, conn *pgconn.PgConn, t *table, columns []string, action func(*referrer) byte) ([][]byte, error) {
	var held []string
	for _, r := range t.referrers {
		if a := action(r); a != 'a' && a != 'r' { // NO ACTION, RESTRICT
			continue
		}
		match := make([]string, len(r.columns))
		for i := range r.columns {
			match[i] = "r." + r.columns[i] + " = t." + r.refers[i]
		}
		held = append(held, fmt.Sprintf("NOT EXISTS (SELECT FROM %s r WHERE %s)", r.qualified, strings.Join(match, " AND ")))
	}
	if len(held) == 0 {
		return w.someRow(ctx, conn, t.qualified(), columns)
	}
	order := t.keys()
	if w.percent(50) {
		for i := range order {
			order[i] += " DESC"
		}
	}
	for _, offset := range []int{w.rand.IntN(freeRows), 0} {
		rows, _, err := execute(ctx, conn, fmt.Sprintf("SELECT %s FROM %s t WHERE %s ORDER BY %s OFFSET %d LIMIT 1",
			strings.Join(columns, ", "), t.qualified(), strings.Join(held, " AND "), strings.Join(order, ", "), offset), nil)
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			return rows[0], nil
		}
	}
	return nil, nil
}

// cut is a table that may be truncated, with all that a CASCADE takes along.
type cut struct {
	table  *table
	tables []*table // it first
}

// cuts finds what may be truncated so that rows can be made again: no row may need
// another one of the tables in a circle.
func cuts(tables []*table, partitions bool) []cut {
	var out []cut
	for _, t := range tables {
		if c := (cut{table: t}); c.extend(tables, t, nil, partitions) && len(c.tables) <= mostTruncated {
			out = append(out, c)
		}
	}
	return out
}

// extend adds a table and what refers to it, and reports whether it may.
func (c *cut) extend(tables []*table, t *table, path []*table, partitions bool) bool {
	if slices.Contains(path, t) {
		return false
	}
	if slices.Contains(c.tables, t) {
		return true
	}
	c.tables = append(c.tables, t)
	for _, r := range t.referrers {
		at := slices.IndexFunc(tables, func(other *table) bool { return other.oid == r.root })
		switch {
		case r.root == t.oid && r.nullable:
		case r.oid != r.root && !partitions, at < 0:
			return false
		case !c.extend(tables, tables[at], append(path, t), partitions):
			return false
		}
	}
	return true
}

// heldQuery asks whether any of the backends holds one of the tables or a partition.
const heldQuery = `
SELECT EXISTS (SELECT FROM pg_locks l WHERE l.pid = ANY ($1::int[]) AND l.relation IN (
	SELECT unnest($2::oid[]) UNION SELECT p.relid::oid FROM unnest($2::oid[]) AS t, pg_partition_tree(t::regclass) AS p))`

// truncate empties a table, or two, and what refers to them. It does nothing where
// a transaction that we left open holds one of them: TRUNCATE would wait for it
// in vain. Others are waited for.
func (w *Writer) truncate(ctx context.Context, conn *pgconn.PgConn, t *transaction) error {
	if len(w.cuts) == 0 {
		return nil
	}
	names, tables := w.cut()
	for held, draws := true, 1; held; draws++ {
		var err error
		if held, err = w.holds(ctx, conn, tables); err != nil || held && draws == cutDraws {
			return err
		}
		if held {
			names, tables = w.cut()
		}
	}
	restart := ""
	if w.percent(oddsRestart) {
		restart = " RESTART IDENTITY"
	}
	for _, statement := range []string{
		"SET LOCAL lock_timeout = '10s'",
		fmt.Sprintf("TRUNCATE %s%s CASCADE", strings.Join(names, ", "), restart),
		w.lockTimeout(),
	} {
		if _, _, err := execute(ctx, conn, statement, nil); err != nil {
			return err
		}
	}
	t.brief = true
	for _, table := range tables {
		count := t.counts[table]
		count.Truncated++
		t.counts[table] = count
	}
	return nil
}

// cut draws what to truncate: the tables to name, and all that go with them.
func (w *Writer) cut() (names []string, tables []*table) {
	chosen := []cut{w.cuts[w.rand.IntN(len(w.cuts))]}
	if second := w.cuts[w.rand.IntN(len(w.cuts))]; second.table != chosen[0].table && w.percent(oddsSecond) {
		chosen = append(chosen, second)
	}
	for _, c := range chosen {
		names = append(names, c.table.qualified())
		for _, t := range c.tables {
			if !slices.Contains(tables, t) {
				tables = append(tables, t)
			}
		}
	}
	return names, tables
}

// holds reports whether a transaction that was left open holds one of the tables.
func (w *Writer) holds(ctx context.Context, conn *pgconn.PgConn, tables []*table) (bool, error) {
	pids, oids := make([]string, len(w.open)), make([]string, len(tables))
	for i, open := range w.open {
		pids[i] = strconv.FormatUint(uint64(open.tx.Conn().PgConn().PID()), 10)
	}
	for i, t := range tables {
		oids[i] = strconv.FormatUint(uint64(t.oid), 10)
	}
	array := func(list []string) []byte { return []byte("{" + strings.Join(list, ",") + "}") }
	held, _, err := execute(ctx, conn, heldQuery, [][]byte{array(pids), array(oids)})
	if err != nil {
		return false, err
	}
	return string(held[0][0]) == "t", nil
}

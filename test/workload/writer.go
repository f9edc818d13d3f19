package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Options say what is written to, and how. Zero fields mean what their comments say.
type Options struct {
	// Schema holds the tables; "public".
	Schema string
	// Seed gives the history.
	Seed uint64
	// Cursor names the column of a table that every update sets to now(); last_update
	// for every table. A table that has no such column, or has it in its key, is
	// inserted into and never updated: nobody could see the update.
	Cursor func(table string) string
	// Open is how many transactions may be left open at a time; 3. The pool needs
	// one connection more.
	Open int
	// Churn adds what only a log of changes shows: deletes, changes of keys, moves
	// between partitions, rows deleted and inserted again in one transaction, TRUNCATE,
	// and updates of tables without a cursor.
	Churn bool
	// TruncatePartitions lets a TRUNCATE that cascades reach single partitions, where
	// only those and not their root refer to what is truncated. Logical replication by
	// way of the root does not publish that (pgoutput.c, pgoutput_truncate).
	TruncatePartitions bool
}

// Count is what was committed to one table. Rows that a foreign key's own action
// deletes or changes are not counted.
type Count struct {
	Inserted, Updated int
	Deleted           int
	Rekeyed           int // rows whose key changed, Rerouted ones included
	Rerouted          int // rows that went to another partition
	Reinserted        int // rows deleted and inserted with the same key in one transaction; not in Inserted and Deleted
	Truncated         int // how often the table was emptied, by CASCADE too
}

func (c *Count) add(d Count) {
	c.Inserted += d.Inserted
	c.Updated += d.Updated
	c.Deleted += d.Deleted
	c.Rekeyed += d.Rekeyed
	c.Rerouted += d.Rerouted
	c.Reinserted += d.Reinserted
	c.Truncated += d.Truncated
}

// Writer writes at random. It is for one goroutine.
type Writer struct {
	rand   *rand.Rand
	pool   *pgxpool.Pool
	tables []*table
	slots  int
	step   int
	open   []*transaction
	counts map[string]Count
	churn  bool
	cuts   []cut // what may be truncated
}

// transaction is one that may stay open over steps.
type transaction struct {
	tx     pgx.Tx
	due    int // the step that ends it
	counts map[*table]Count
	brief  bool // it must not stay open: it locks out everybody
}

func newTransaction(tx pgx.Tx) *transaction {
	return &transaction{tx: tx, counts: map[*table]Count{}}
}

const (
	attempts    = 25 // at a statement that keeps violating something
	waits       = 2  // for locks, of those attempts: churn leaves few rows to draw from
	statements  = 6  // in a transaction, at most
	stepsOpen   = 12 // at most
	oddsPlain   = 40 // transactions without savepoints, in percent
	oddsOpen    = 30 // transactions left open
	oddsAbandon = 6  // transactions rolled back
	oddsUndone  = 10 // statements rolled back to a savepoint
	oddsInsert  = 45 // inserts among statements
)

// New reads the schema. It returns an error if there is no table with a primary
// key, or if one has a column that can be neither given a value nor left out.
func New(ctx context.Context, pool *pgxpool.Pool, options Options) (*Writer, error) {
	if options.Schema == "" {
		options.Schema = "public"
	}
	if options.Cursor == nil {
		options.Cursor = func(string) string { return "last_update" }
	}
	if options.Open == 0 {
		options.Open = 3
	}
	if have := int(pool.Config().MaxConns); have <= options.Open {
		return nil, fmt.Errorf("preparing the workload: the pool has %d connections, %d transactions may be open: set MaxConns above that", have, options.Open)
	}
	tables, err := readTables(ctx, pool, options.Schema)
	if err != nil {
		return nil, fmt.Errorf("preparing the workload: %w", err)
	}
	if len(tables) == 0 {
		return nil, fmt.Errorf("preparing the workload: schema %s has no table with a primary key", options.Schema)
	}
	w := &Writer{
		rand: rand.New(rand.NewPCG(options.Seed, 0x776f726b)),
		pool: pool, tables: tables, slots: options.Open, counts: map[string]Count{},
	}
	for _, t := range tables {
		if c := t.column(options.Cursor(t.name)); c != nil && !c.key && !c.routes {
			t.cursor = c
		}
		if err := w.check(t); err != nil {
			return nil, fmt.Errorf("preparing the workload: %w", err)
		}
	}
	if w.churn = options.Churn; w.churn {
		w.cuts = cuts(tables, options.TruncatePartitions)
	}
	return w, nil
}

// check makes sure that rows can be made for the table.
func (w *Writer) check(t *table) error {
	for _, c := range t.columns {
		if c.generated || c.nullable || c.hasDefault || c == t.cursor || c == t.partition.column || t.reference(c) != nil {
			continue
		}
		if _, ok := c.kind.value(w.rand, c); !ok {
			return fmt.Errorf("column %s of table %s has type %s, for which there is no generator, and no default", c.name, t.name, c.kind.name)
		}
	}
	return nil
}

// Tables are the names of the tables written to, sorted.
func (w *Writer) Tables() []string {
	names := make([]string, len(w.tables))
	for i, t := range w.tables {
		names[i] = t.name
	}
	return names
}

// Counts is what was committed so far, per table.
func (w *Writer) Counts() map[string]Count {
	counts := make(map[string]Count, len(w.counts))
	for name, count := range w.counts {
		counts[name] = count
	}
	return counts
}

// Open is how many transactions are open now.
func (w *Writer) Open() int { return len(w.open) }

// Steps is n times Step.
func (w *Writer) Steps(ctx context.Context, n int) error {
	for range n {
		if err := w.Step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Step commits the transactions whose time has come, then writes another, which
// it commits, rolls back or leaves open.
func (w *Writer) Step(ctx context.Context) error {
	w.step++
	if err := w.commitDue(ctx, w.step); err != nil {
		return fmt.Errorf("writing at random: %w", err)
	}
	if err := w.transact(ctx); err != nil {
		return fmt.Errorf("writing at random: %w", err)
	}
	return nil
}

// Settle commits everything that is open. It has to be called before both sides
// are compared, and at the end.
func (w *Writer) Settle(ctx context.Context) error {
	if err := w.commitDue(ctx, w.step+stepsOpen+1); err != nil {
		return fmt.Errorf("committing what is open: %w", err)
	}
	return nil
}

// commitDue ends the open transactions that are due, in an order of its own.
func (w *Writer) commitDue(ctx context.Context, step int) error {
	w.rand.Shuffle(len(w.open), func(i, j int) { w.open[i], w.open[j] = w.open[j], w.open[i] })
	var still []*transaction
	var failed error
	for _, t := range w.open {
		if t.due > step {
			still = append(still, t)
			continue
		}
		failed = errors.Join(failed, w.commit(ctx, t))
	}
	w.open = still
	return failed
}

// commit counts what it committed. A deferred constraint may still refuse.
func (w *Writer) commit(ctx context.Context, t *transaction) error {
	if err := t.tx.Commit(ctx); err != nil {
		if refused(err) {
			return nil
		}
		return fmt.Errorf("committing: %w", err)
	}
	for table, count := range t.counts {
		sum := w.counts[table.name]
		sum.add(count)
		w.counts[table.name] = sum
		table.rows += count.Inserted - count.Deleted
		if count.Truncated > 0 {
			table.rows = 0
		}
	}
	return nil
}

// transact writes one transaction.
func (w *Writer) transact(ctx context.Context) error {
	tx, err := w.pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	t := newTransaction(tx)
	kept, err := w.write(ctx, t)
	if err != nil || !kept || w.percent(oddsAbandon) {
		return errors.Join(err, tx.Rollback(ctx))
	}
	if !t.brief && len(w.open) < w.slots && w.percent(oddsOpen) {
		t.due = w.step + 1 + w.rand.IntN(stepsOpen)
		w.open = append(w.open, t)
		return nil
	}
	return w.commit(ctx, t)
}

// write runs the statements of a transaction. It reports false if the transaction
// has to be rolled back, because it had no savepoint to go back to.
func (w *Writer) write(ctx context.Context, t *transaction) (bool, error) {
	// We hold the rows that our other transactions wait for.
	if _, err := t.tx.Exec(ctx, w.lockTimeout()); err != nil {
		return false, fmt.Errorf("setting the lock timeout: %w", err)
	}
	plain := w.percent(oddsPlain)
	for range 1 + w.rand.IntN(statements) {
		table := w.tables[w.rand.IntN(len(w.tables))]
		change := w.choose(table)
		var err error
		if plain {
			err = w.change(ctx, t.tx, t, table, change)
		} else {
			err = w.changeGuarded(ctx, t, table, change)
		}
		if err != nil {
			if refused(err) {
				return false, nil
			}
			return false, err
		}
	}
	return true, nil
}

// lockTimeout is short with churn, where rows are held more often.
func (w *Writer) lockTimeout() string {
	if w.churn {
		return "SET LOCAL lock_timeout = '10ms'"
	}
	return "SET LOCAL lock_timeout = '50ms'"
}

// changeGuarded makes a change behind a savepoint, again with other values if it
// is refused; now and then it takes the change back. A change that is refused each
// time is left out.
func (w *Writer) changeGuarded(ctx context.Context, t *transaction, table *table, change change) error {
	waited := 0
	for range attempts {
		savepoint, err := t.tx.Begin(ctx)
		if err != nil {
			return fmt.Errorf("setting a savepoint: %w", err)
		}
		if w.percent(oddsUndone) {
			undone := newTransaction(nil)
			err = w.change(ctx, savepoint, undone, table, change)
			if err != nil && !refused(err) {
				return err
			}
			if err := savepoint.Rollback(ctx); err != nil {
				return fmt.Errorf("rolling back to a savepoint: %w", err)
			}
			continue
		}
		if err = w.change(ctx, savepoint, t, table, change); err == nil {
			if err := savepoint.Commit(ctx); err != nil {
				return fmt.Errorf("releasing a savepoint: %w", err)
			}
			return nil
		}
		if !refused(err) {
			return err
		}
		if err := savepoint.Rollback(ctx); err != nil {
			return fmt.Errorf("rolling back to a savepoint: %w", err)
		}
		if w.churn && locked(err) {
			if waited++; waited == waits {
				return nil
			}
		}
	}
	return nil
}

func (w *Writer) change(ctx context.Context, tx pgx.Tx, t *transaction, table *table, change change) error {
	conn := tx.Conn().PgConn()
	count := t.counts[table]
	switch change {
	case insertion:
		affected, err := w.insert(ctx, conn, table, &row{})
		if err != nil {
			return err
		}
		count.Inserted += int(affected)
	case modification:
		affected, err := w.update(ctx, conn, table)
		if err != nil {
			return err
		}
		count.Updated += int(affected)
	default:
		return w.stir(ctx, conn, t, table, change)
	}
	t.counts[table] = count
	return nil
}

// locked reports whether a lock was not to be had.
func locked(err error) bool {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refusal.Code == "55P03"
}

// refused reports whether Postgres turned down a change for its values, or
// because one of our open transactions holds the row: another draw may do.
func refused(err error) bool {
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch class := refusal.Code[:2]; {
		case class == "22", class == "23", // data exception, integrity constraint violation
			refusal.Code == "55P03", // lock not available
			refusal.Code == "40P01", // deadlock, with somebody else
			refusal.Code == "54000", // an index row too large
			refusal.Code == "P0001": // raised by a trigger
			return true
		}
	}
	return false
}

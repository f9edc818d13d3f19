package source

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pgoutput"
	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/wal"
)

// LogPosition is how far a table's changes from the write-ahead log have landed. It
// is the JSON of such a table's cursor.
type LogPosition struct {
	LSN        pgoutput.LSN `json:"lsn"`        // the commit records that begin below it have
	Membership uint32       `json:"membership"` // of the table in the publication: another one has a gap before it
	Leaves     Leaves       `json:"leaves,omitempty"`
}

// Position reads a cursor of the log; nil for none.
func (w *WAL) Position(cursor json.RawMessage) (*LogPosition, error) {
	return position[LogPosition](cursor)
}

// WAL follows one table by the write-ahead log.
type WAL struct {
	*Rows
	Source *pgxpool.Pool
}

// LogBatch makes rows of the changes of one table in one pull of the slot. It is not
// safe for concurrent use.
type LogBatch struct {
	*WAL
	Clock   time.Time // of the source, before the pull
	Deleted int64     // tombstones written

	shapes map[*pgoutput.Relation]*shape
	keys   [][]string // of rows that the log does not hold whole
	by     []uint32   // the transactions that wrote those
	copied bool       // some of them were read already
}

// shape is how the values of a relation become those of the table.
type shape struct {
	columns []int // for each column of the table its place in the relation; -1: the relation has none
	whole   bool  // every column is there, and as COPY would have it
}

// Basis is the key.
func (w *WAL) Basis() string { return "wal" + w.basis() }

// errTogether refuses to follow one table alone: a slot has all of a pipeline's.
var errTogether = errors.New("the tables of a slot are followed together")

// Start is not how a table of a slot begins.
func (w *WAL) Start(context.Context, *pgxpool.Pool) (json.RawMessage, error) {
	return nil, errTogether
}

// Begin is not how a slot is read.
func (w *WAL) Begin(context.Context, *pgxpool.Pool, json.RawMessage) (Read, error) {
	return nil, errTogether
}

// Trim has nothing to forget: the slot is moved on.
func (w *WAL) Trim(context.Context, *pgxpool.Pool, json.RawMessage) error { return nil }

// Name is the table's as changes have it.
func (w *WAL) Name() string { return w.Table.Schema + "." + w.Table.Name }

// Write writes what a change does to the table: a row, a tombstone for the key that a
// row had, or both. Rows that the log does not hold whole (values that were not sent
// because they did not change, types that only Postgres can write, computed columns, a
// table of another shape since), and all where a condition is declared, are read from
// the table by Complete: what is there by then is as new.
func (w *LogBatch) Write(ctx context.Context, rows *rowwire.Transcoder, c wal.Change) error {
	s := w.shape(c.Relation)
	if c.Old != nil && w.Deletes {
		if err := w.writeOld(ctx, rows, c, s); err != nil {
			return err
		}
	}
	if c.New == nil {
		return nil
	}
	fields, whole := w.fields(c.New, s)
	if s.whole && whole {
		return rows.Tuple(fields)
	}
	key, err := w.newKey(ctx, c, s)
	if err != nil {
		return err
	}
	w.keys = append(w.keys, key)
	if n := len(w.by); n == 0 || w.by[n-1] != c.XID {
		w.by = append(w.by, c.XID)
	}
	return nil
}

// Incomplete is how many rows Complete has to read.
func (w *LogBatch) Incomplete() int { return len(w.keys) }

func (w *LogBatch) shape(r *pgoutput.Relation) *shape {
	if s := w.shapes[r]; s != nil {
		return s
	}
	s := &shape{whole: w.Table.Condition() == ""}
	for _, rc := range r.Columns { // one that is not known came or went meanwhile
		s.whole = s.whole && w.Table.Stored(rc.Name) != nil
	}
	for _, c := range w.Table.Columns {
		at := slices.IndexFunc(r.Columns, func(rc pgoutput.Column) bool { return rc.Name == c.Name })
		s.columns = append(s.columns, at)
		s.whole = s.whole && at >= 0 && r.Columns[at].Type == c.Param && c.Plain()
	}
	if w.shapes == nil {
		w.shapes = map[*pgoutput.Relation]*shape{}
	}
	w.shapes[r] = s
	return s
}

// fields are a tuple's values in the order of the table. whole is false where one was
// not sent, or not in binary.
func (w *LogBatch) fields(t pgoutput.Tuple, s *shape) (fields [][]byte, whole bool) {
	fields, whole = make([][]byte, len(s.columns)), true
	for i, at := range s.columns {
		if at < 0 || at >= len(t) {
			whole = false
			continue
		}
		switch t[at].Kind {
		case pgoutput.Binary:
			fields[i] = t[at].Data
			if fields[i] == nil {
				fields[i] = []byte{}
			}
		case pgoutput.Null:
		case pgoutput.Unchanged, pgoutput.Text:
			whole = false
		}
	}
	return fields, whole
}

// writeOld writes the tombstone of the key that a row no longer has.
func (w *LogBatch) writeOld(ctx context.Context, rows *rowwire.Transcoder, c wal.Change, s *shape) error {
	tombstone := make([][]byte, len(w.Table.Columns))
	moved := c.New == nil
	for _, at := range w.key {
		old, err := w.value(c.Old, s, at)
		if err != nil {
			return err
		}
		if c.New != nil {
			now := c.New[s.columns[at]]
			moved = moved || now.Kind != pgoutput.Unchanged && !bytes.Equal(now.Data, old)
		}
		if tombstone[at], err = w.convert(ctx, c.Relation.Columns[s.columns[at]].Type, old, w.Table.Columns[at]); err != nil {
			return err
		}
	}
	if !moved {
		return nil
	}
	before := rows.Rows()
	rows.Deleted(true)
	err := rows.Tuple(tombstone)
	rows.Deleted(false)
	w.Deleted += rows.Rows() - before
	return err
}

// value is the value that a tuple has of a key column, which is never NULL.
func (w *LogBatch) value(t pgoutput.Tuple, s *shape, at int) ([]byte, error) {
	if in := s.columns[at]; in >= 0 && in < len(t) && t[in].Kind == pgoutput.Binary {
		return t[in].Data, nil
	}
	c := w.Table.Columns[at].Name
	return nil, fault.Fix(fmt.Errorf("a change of %s in the log has no value of its key column %s", w.Table.Name, c),
		fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL, or USING an index of the key; then send {\"full\":true} for the table", w.Table.SQLName()))
}

// newKey is the key of a new row, as text. A value that was too large to be sent again
// is in the old one.
func (w *LogBatch) newKey(ctx context.Context, c wal.Change, s *shape) ([]string, error) {
	key := make([]string, len(w.key))
	for i, at := range w.key {
		tuple := c.New
		if in := s.columns[at]; c.Old != nil && in >= 0 && in < len(tuple) && tuple[in].Kind == pgoutput.Unchanged {
			tuple = c.Old
		}
		value, err := w.value(tuple, s, at)
		if err != nil {
			return nil, err
		}
		if key[i], err = w.text(ctx, c.Relation.Columns[s.columns[at]].Type, value); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// The types whose text needs no asking. (PostgreSQL: pg_type.dat.)
const (
	oidInt8, oidInt2, oidInt4               = 20, 21, 23
	oidText, oidBpchar, oidVarchar, oidUUID = 25, 1042, 1043, 2950
)

// text is the text of a value that came in binary.
func (w *WAL) text(ctx context.Context, oid uint32, value []byte) (string, error) {
	switch {
	case oid == oidInt2 && len(value) == 2, oid == oidInt4 && len(value) == 4, oid == oidInt8 && len(value) == 8:
		return strconv.FormatInt(counter.number(value), 10), nil
	case oid == oidText, oid == oidVarchar, oid == oidBpchar:
		return string(value), nil
	case oid == oidUUID && len(value) == 16:
		return hex.EncodeToString(value), nil
	}
	out, err := w.ask(ctx, "SELECT $1::text", oid, value)
	return string(out), err
}

// convert makes a column's value what a SELECT of the column gives.
func (w *WAL) convert(ctx context.Context, oid uint32, value []byte, c catalog.Column) ([]byte, error) {
	switch {
	case c.Plain():
		return value, nil
	case c.Of("$1") == "$1::text" && oid != oidBpchar && oid != oidUUID && known(oid): // most keys that are hashed
		text, err := w.text(ctx, oid, value)
		return []byte(text), err
	}
	return w.ask(ctx, "SELECT "+c.Of("$1"), oid, value)
}

// known reports whether the text of a type needs no asking.
func known(oid uint32) bool {
	return slices.Contains([]uint32{oidInt2, oidInt4, oidInt8, oidText, oidVarchar, oidBpchar, oidUUID}, oid)
}

// ask has Postgres make something of a value, under the settings of every read.
func (w *WAL) ask(ctx context.Context, sql string, oid uint32, value []byte) ([]byte, error) {
	conn, err := w.Source.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to the source: %w", err)
	}
	defer conn.Release()
	batch := &pgconn.Batch{} // one transaction, so that the settings end with it
	batch.ExecParams("SELECT "+forms, nil, nil, nil, nil)
	batch.ExecParams(sql, [][]byte{value}, []uint32{oid}, []int16{1}, []int16{1})
	results, err := conn.Conn().PgConn().ExecBatch(ctx, batch).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("converting a key of %s: %w", w.Table.Name, err)
	}
	return results[1].Rows[0][0], nil
}

// Complete reads the rows that were not whole as they are now. One that is gone, or
// has another key, is so by a change that the log has too, or will have.
func (w *LogBatch) Complete(ctx context.Context, rows *rowwire.Transcoder) error {
	if len(w.keys) == 0 {
		return nil
	}
	s, err := w.after(ctx)
	if err != nil {
		return err
	}
	defer s.Close(ctx)
	if err := s.bindKeys(ctx, w.Rows, w.keys); err != nil {
		return err
	}
	s.copied = w.copied
	w.keys, w.by, w.copied = nil, nil, true
	relation := "SELECT * FROM " + w.boundKeys() + " AS keys"
	if err := s.copyNext(ctx, rows, w.presentSQL(relation)); err != nil || w.Table.Condition() == "" || !w.Deletes {
		return err
	}
	// The condition may have held for the row before.
	deleted, err := s.copyTombstones(ctx, rows, w.goneSQL(relation))
	w.Deleted += deleted
	return err
}

// sightTime is how long a transaction that is in the log is waited for to be seen.
const sightTime = 5 * time.Second

// after opens a session that sees the transactions of the rows to be read. A commit is
// in the log before others see it, and long before where it waits for a synchronous
// standby: until then the table shows the rows as they were.
func (w *LogBatch) after(ctx context.Context) (*session, error) {
	for began := time.Now(); ; {
		s, err := openSession(ctx, w.Source, w.Rows)
		if err != nil {
			return nil, err
		}
		snapshot, err := wal.ParseSnapshot(s.text)
		if err == nil && !slices.ContainsFunc(w.by, func(xid uint32) bool { return !snapshot.Sees(xid) }) {
			return s, nil
		}
		s.Close(ctx)
		if err == nil && time.Since(began) > sightTime {
			err = &fault.Error{
				Class: fault.Transient, Err: fmt.Errorf("transactions that wrote %s are in the log and cannot be seen yet", w.Table.Name),
				Remedy: "the next run reads them; if it goes on, see whether commits wait for a synchronous standby: pg_stat_activity, wait_event SyncRep",
			}
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for transactions to be seen: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// At is the source's clock before the pull.
func (w *LogBatch) At() time.Time { return w.Clock }

// Unchanged is for the log to tell.
func (w *LogBatch) Unchanged() bool { return false }

// Copy is not how changes come.
func (w *LogBatch) Copy(context.Context, *rowwire.Transcoder) (Result, error) {
	return Result{}, errTogether
}

// Row returns a row as it is now, whole.
func (w *LogBatch) Row(ctx context.Context, key [][]byte) (Whole, error) {
	s, err := openSession(ctx, w.Source, w.Rows)
	if err != nil {
		return Whole{}, err
	}
	defer s.Close(ctx)
	return s.Row(ctx, key)
}

// Close has nothing to give back.
func (w *LogBatch) Close(context.Context) {}

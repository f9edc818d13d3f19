package wal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/pgoutput"
)

// Kind is what happened to a row, or to a table.
type Kind byte

// The kinds of changes.
const (
	Insert Kind = iota + 1
	Update
	Delete
	Truncate
)

func (k Kind) String() string {
	switch k {
	case Insert:
		return "insert"
	case Update:
		return "update"
	case Delete:
		return "delete"
	case Truncate:
		return "truncate"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// Change is one change of a row, or the truncation of a table. What it points to
// is good until the function it was given to returns, except Relation.
type Change struct {
	Kind          Kind
	Schema, Table string // of the partition root for a partition's row
	// Commit is where the transaction's commit record begins: transactions come in
	// this order, and a pull up to a position has exactly those below it.
	Commit    pgoutput.LSN
	Committed time.Time
	XID       uint32
	Ordinal   int // of the change in its transaction, from 0; the same whenever it is pulled again
	// Relation is how the table looked at this change: New and Old have a value for
	// each of its columns. It is a new one after the table was altered.
	Relation *pgoutput.Relation
	// Old is, for a Delete, the old row; for an Update, the same, or nil if the key
	// did not change. It is all of the row if Whole; otherwise only the columns of the replica identity
	// have values and the others are Null.
	Old   pgoutput.Tuple
	Whole bool
	New   pgoutput.Tuple // nil for Delete and Truncate
}

// Pulled is what one pull did.
type Pulled struct {
	// Upto is what to advance to once the changes are durable. Exactly the
	// transactions whose commit record begins below it were handed over, by this pull and those before.
	Upto         pgoutput.LSN
	More         bool // the limit ended the pull: there may be more below the log's end
	Messages     int  // what the limit counts
	Changes      int
	Transactions int // with changes of our tables
}

// pullSettings hold for what types without a binary form look like.
const pullSettings = `
	SELECT set_config('statement_timeout', $1, true), set_config('datestyle', 'ISO, YMD', true), set_config('timezone', 'UTC', true),
	       set_config('intervalstyle', 'iso_8601', true), set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true),
	       pg_current_wal_flush_lsn()::text`

const peekSQL = `
	SELECT data FROM pg_logical_slot_peek_binary_changes($1, $2::text::pg_lsn, $3,
	       'proto_version', '1', 'publication_names', $4, 'binary', 'true')`

// Pull hands over the changes that a slot holds, in the order of their commits
// and without consuming them: Advance does that. It reads up to where the log ends
// when it begins, and stops after the first transaction that makes it limit messages or
// more; a transaction is never divided, so that one pull may be larger than limit. 0 is no limit.
//
// The rows stream through; the server, though, first decodes all of a pull and keeps it
// in temporary files. An error of f, or any other, costs the connection, which is closed:
// a failed decoding leaves caches behind in the server's process that make a later one leave out tables.
//
// A slot or publication that is gone is ErrLost; a slot that is being read elsewhere is transient.
func Pull(ctx context.Context, conn *pgx.Conn, slot string, limit int, f func(Change) error) (Pulled, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := pull{f: f, relations: make(map[uint32]*pgoutput.Relation)}
	err := p.peek(ctx, cancel, conn, slot, min(max(limit, 0), math.MaxInt32))
	if err == nil {
		return p.result(limit), nil
	}
	if !conn.IsClosed() { // whatever the transaction's state, this ends it
		if _, rollback := conn.Exec(ctx, `ROLLBACK`); rollback == nil {
			err = explain(ctx, conn, slot, err)
		}
		closing, done := context.WithTimeout(context.WithoutCancel(ctx), lockTimeout)
		defer done()
		err = errors.Join(err, conn.Close(closing))
	}
	return Pulled{}, fmt.Errorf("reading replication slot %s: %w", slot, err)
}

// pull is one call of Pull.
type pull struct {
	f         func(Change) error
	upto      pgoutput.LSN
	relations map[uint32]*pgoutput.Relation
	open      *pgoutput.Begin // the transaction whose messages come now
	ordinal   int             // of the next change in it
	end       pgoutput.LSN    // of the last transaction
	messages  int
	done      Pulled
}

// peek runs the decoding and takes its messages.
//
// How far pg_logical_slot_peek_binary_changes goes (logicalfuncs.c): it reads the
// log record by record from the slot's restart point, hands out a transaction whole when
// it meets its commit record, unless that begins below the slot's confirmed position, and stops after
// the record that reaches upto_lsn or with which upto_nchanges rows have come together, and never goes beyond what
// was flushed when it began. That is why the flushed position is asked for and not the written one: with
// asynchronous commits the latter is ahead, and commits in between would be advanced past without having been read.
func (p *pull) peek(ctx context.Context, cancel func(), conn *pgx.Conn, slot string, limit int) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	var discard any
	err = tx.QueryRow(ctx, pullSettings, milliseconds(within(ctx, decodingTimeout))).
		Scan(&discard, &discard, &discard, &discard, &discard, &discard, &p.upto)
	if err != nil {
		return fmt.Errorf("preparing the session: %w", err)
	}
	rows, err := tx.Query(ctx, peekSQL, pgx.QueryResultFormats{pgx.BinaryFormatCode}, slot, p.upto.String(), limit, slot)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := p.take(rows.RawValues()[0]); err != nil {
			cancel() // rather than read the rest of what may be gigabytes
			rows.Close()
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if p.open != nil {
		return fmt.Errorf("transaction %d has no end", p.open.XID)
	}
	return tx.Commit(ctx)
}

// result is what the messages amount to. Where the limit did not end the pull,
// it went at least to upto, or past it by the record that spans it.
func (p *pull) result(limit int) Pulled {
	p.done.Messages, p.done.More = p.messages, limit > 0 && p.messages >= limit
	p.done.Upto = p.end
	if !p.done.More {
		p.done.Upto = max(p.upto, p.end)
	}
	return p.done
}

// take goes on by one message.
func (p *pull) take(data []byte) error {
	p.messages++
	message, err := pgoutput.Decode(data)
	if err != nil {
		return err
	}
	switch m := message.(type) {
	case pgoutput.Begin:
		return p.begin(m)
	case pgoutput.Commit:
		return p.commit(m)
	case pgoutput.Relation:
		p.relations[m.ID] = &m
	case pgoutput.Insert:
		return p.row(Change{Kind: Insert, New: m.New}, m.Relation)
	case pgoutput.Update:
		return p.row(Change{Kind: Update, Old: either(m.Key, m.Old), Whole: m.Old != nil, New: m.New}, m.Relation)
	case pgoutput.Delete:
		return p.row(Change{Kind: Delete, Old: either(m.Key, m.Old), Whole: m.Old != nil}, m.Relation)
	case pgoutput.Truncate:
		for _, id := range m.Relations {
			if err := p.row(Change{Kind: Truncate}, id); err != nil {
				return err
			}
		}
	case pgoutput.Origin, pgoutput.Type, pgoutput.LogicalMessage: // say nothing of our rows
	}
	return nil
}

func either(key, old pgoutput.Tuple) pgoutput.Tuple {
	if old != nil {
		return old
	}
	return key
}

func (p *pull) begin(m pgoutput.Begin) error {
	if p.open != nil {
		return fmt.Errorf("transaction %d begins inside transaction %d", m.XID, p.open.XID)
	}
	if m.FinalLSN < p.end {
		return fmt.Errorf("transaction %d was committed at %s, before the end %s of the one before it", m.XID, m.FinalLSN, p.end)
	}
	p.open, p.ordinal = &m, 0
	return nil
}

func (p *pull) commit(m pgoutput.Commit) error {
	if p.open == nil {
		return fmt.Errorf("a commit at %s ends no transaction", m.LSN)
	}
	if m.LSN != p.open.FinalLSN {
		return fmt.Errorf("a commit at %s ends transaction %d, which announced %s", m.LSN, p.open.XID, p.open.FinalLSN)
	}
	if p.ordinal > 0 {
		p.done.Transactions++
	}
	p.open, p.end = nil, m.EndLSN
	return nil
}

// row hands over one change.
func (p *pull) row(c Change, id uint32) error {
	if p.open == nil {
		return errors.New("a change outside any transaction")
	}
	c.Relation = p.relations[id]
	if c.Relation == nil {
		return fmt.Errorf("a change of table %d, which was not described", id)
	}
	for _, t := range []pgoutput.Tuple{c.Old, c.New} {
		if t != nil && len(t) != len(c.Relation.Columns) {
			return fmt.Errorf("a row of %d values for the %d columns of %s.%s", len(t), len(c.Relation.Columns), c.Relation.Namespace, c.Relation.Name)
		}
	}
	c.Schema, c.Table = c.Relation.Namespace, c.Relation.Name
	c.Commit, c.Committed, c.XID, c.Ordinal = p.open.FinalLSN, p.open.CommitTime, p.open.XID, p.ordinal
	p.ordinal++
	p.done.Changes++
	return p.f(c)
}

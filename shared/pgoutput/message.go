// Package pgoutput decodes the messages of Postgres' built-in output plugin of
// that name: what pg_logical_slot_peek_binary_changes returns row by row.
//
// The format is that of protocol version 1, "Logical Replication Message Formats"
// (https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html).
// What later versions add, streamed and two-phase transactions, is refused by
// name: nobody asks for it here.
package pgoutput

import "time"

// Message is one of Begin, Commit, Origin, Relation, Type, Insert, Update,
// Delete, Truncate and LogicalMessage.
type Message interface{ message() }

// Begin opens a transaction. All its messages up to Commit follow at once:
// transactions are never mixed and come in the order of their commits.
type Begin struct {
	FinalLSN   LSN // where the record of the commit begins: the transaction's place in the order
	CommitTime time.Time
	XID        uint32
}

// Commit closes a transaction.
type Commit struct {
	LSN    LSN // where the record of the commit begins, as Begin.FinalLSN
	EndLSN LSN // where it ends
	Time   time.Time
}

// Origin says that the transaction was replicated to this server from another.
type Origin struct {
	LSN  LSN // of the commit on that server
	Name string
}

// Relation describes a table. It comes before the table's first change and
// again after the table was altered; a row is to be read by the newest.
type Relation struct {
	ID              uint32
	Namespace       string // the schema
	Name            string
	ReplicaIdentity byte // d default, n nothing, f full, i index
	Columns         []Column
}

// Column is one column of a Relation. Generated columns are not among them
// unless the publication says so (Postgres 18).
type Column struct {
	Key      bool // part of the replica identity
	Name     string
	Type     uint32 // OID
	Modifier int32  // atttypmod, -1 for none
}

// Type names a column's type that is not built in.
type Type struct {
	ID        uint32
	Namespace string
	Name      string
}

// Insert is a new row.
type Insert struct {
	Relation uint32
	New      Tuple
}

// Update is a row's new version. At most one of Key and Old is there: Key if the
// replica identity is a key and its columns changed (or were stored out of line),
// Old if it is the whole row.
type Update struct {
	Relation uint32
	Key      Tuple // the old row with everything but the identity's columns Null
	Old      Tuple // the whole old row
	New      Tuple
}

// Delete is a row's end. Exactly one of Key and Old is there, as in Update.
type Delete struct {
	Relation uint32
	Key      Tuple
	Old      Tuple
}

// Truncate empties tables.
type Truncate struct {
	Relations       []uint32
	Cascade         bool
	RestartIdentity bool
}

// LogicalMessage is what pg_logical_emit_message wrote.
type LogicalMessage struct {
	Transactional bool
	LSN           LSN
	Prefix        string
	Content       []byte
}

func (Begin) message()          {}
func (Commit) message()         {}
func (Origin) message()         {}
func (Relation) message()       {}
func (Type) message()           {}
func (Insert) message()         {}
func (Update) message()         {}
func (Delete) message()         {}
func (Truncate) message()       {}
func (LogicalMessage) message() {}

// Tuple is a row: a value for each of the Relation's columns at the time.
type Tuple []Value

// Value is one column's value.
type Value struct {
	Kind Kind
	Data []byte // nil unless Kind is Text or Binary
}

// Kind says in which form a value came.
type Kind byte

// The kinds of values.
const (
	Null      Kind = 'n'
	Unchanged Kind = 'u' // stored out of line (TOAST) and not touched by the update: not sent
	Text      Kind = 't' // as the type's output function writes it
	Binary    Kind = 'b' // as the type's send function writes it, like COPY BINARY
)

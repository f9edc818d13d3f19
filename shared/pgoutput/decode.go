package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Errors that Decode returns, wrapped.
var (
	ErrShort    = errors.New("the message ends early")
	ErrTrailing = errors.New("the message has bytes after its end")
	ErrRefused  = errors.New("messages of this kind were not asked for")
	ErrFormat   = errors.New("the message does not follow the format")
)

// epoch is Postgres' own: times are microseconds since then.
const epoch = 946684800 * int64(time.Second/time.Microsecond) // 2000-01-01 in Unix microseconds

// Decode reads one message. The byte slices of the result are parts of data and
// good only as long as it is. A message that is cut short, goes on after its
// end or is of a kind not asked for is an error.
func Decode(data []byte) (Message, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("decoding an empty message: %w", ErrShort)
	}
	r := reader{rest: data[1:]}
	m := r.message(data[0])
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%w: %d", ErrTrailing, len(r.rest))
	}
	if r.err != nil {
		return nil, fmt.Errorf("decoding a message of kind %q: %w", data[0], r.err)
	}
	return m, nil
}

func (r *reader) message(kind byte) Message {
	switch kind {
	case 'B':
		return Begin{FinalLSN: r.lsn(), CommitTime: r.time(), XID: r.uint32()}
	case 'C':
		return r.commit()
	case 'O':
		return Origin{LSN: r.lsn(), Name: r.string()}
	case 'R':
		return r.relation()
	case 'Y':
		return Type{ID: r.uint32(), Namespace: r.namespace(), Name: r.string()}
	case 'I':
		return Insert{Relation: r.uint32(), New: r.newTuple(r.byte())}
	case 'U':
		return r.update()
	case 'D':
		return r.delete()
	case 'T':
		return r.truncate()
	case 'M':
		return r.logical()
	}
	if name, ok := refusedName(kind); ok {
		r.err = fmt.Errorf("%w: %s", ErrRefused, name)
	} else {
		r.err = fmt.Errorf("%w: there is no such kind", ErrFormat)
	}
	return nil
}

// refusedName is the name of a kind that protocol versions 2 to 4 add.
func refusedName(kind byte) (string, bool) {
	switch kind {
	case 'S':
		return "stream start", true
	case 'E':
		return "stream stop", true
	case 'c':
		return "stream commit", true
	case 'A':
		return "stream abort", true
	case 'b':
		return "begin prepare", true
	case 'P':
		return "prepare", true
	case 'K':
		return "commit prepared", true
	case 'r':
		return "rollback prepared", true
	case 'p':
		return "stream prepare", true
	}
	return "", false
}

func (r *reader) commit() Message {
	if flags := r.byte(); flags != 0 {
		r.fail("flags %#x of a commit", flags)
	}
	return Commit{LSN: r.lsn(), EndLSN: r.lsn(), Time: r.time()}
}

func (r *reader) relation() Message {
	m := Relation{ID: r.uint32(), Namespace: r.namespace(), Name: r.string(), ReplicaIdentity: r.byte()}
	n := r.count(r.uint16(), minColumn)
	m.Columns = make([]Column, 0, n)
	for range n {
		flags := r.byte()
		m.Columns = append(m.Columns, Column{
			Key: flags&1 != 0, Name: r.string(), Type: r.uint32(), Modifier: int32(r.uint32()), //nolint:gosec // the bits of a signed number
		})
	}
	return m
}

func (r *reader) update() Message {
	m := Update{Relation: r.uint32()}
	tag := r.byte()
	if tag == 'K' || tag == 'O' {
		m.Key, m.Old = r.oldTuple(tag)
		tag = r.byte()
	}
	m.New = r.newTuple(tag)
	return m
}

func (r *reader) delete() Message {
	m := Delete{Relation: r.uint32()}
	m.Key, m.Old = r.oldTuple(r.byte())
	return m
}

func (r *reader) truncate() Message {
	n := r.uint32()
	flags := r.byte()
	m := Truncate{Cascade: flags&1 != 0, RestartIdentity: flags&2 != 0}
	for range r.count(int(n), 4) {
		m.Relations = append(m.Relations, r.uint32())
	}
	return m
}

func (r *reader) logical() Message {
	flags := r.byte()
	return LogicalMessage{Transactional: flags&1 != 0, LSN: r.lsn(), Prefix: r.string(), Content: r.take(int(r.uint32()))}
}

func (r *reader) newTuple(tag byte) Tuple {
	if tag != 'N' {
		r.fail("tag %q where a new row was due", tag)
	}
	return r.tuple()
}

func (r *reader) oldTuple(tag byte) (key, old Tuple) {
	switch tag {
	case 'K':
		return r.tuple(), nil
	case 'O':
		return nil, r.tuple()
	}
	r.fail("tag %q where an old row was due", tag)
	return nil, nil
}

func (r *reader) tuple() Tuple {
	n := r.count(r.uint16(), 1)
	t := make(Tuple, 0, n)
	for range n {
		t = append(t, r.value())
	}
	return t
}

func (r *reader) value() Value {
	kind := Kind(r.byte())
	switch kind {
	case Null, Unchanged:
		return Value{Kind: kind}
	case Text, Binary:
		return Value{Kind: kind, Data: r.take(int(r.uint32()))}
	}
	r.fail("kind %q of a value", byte(kind))
	return Value{}
}

// minColumn is what a column of a Relation takes at least: flags, the end of
// its name, type and modifier.
const minColumn = 1 + 1 + 4 + 4

// reader takes a message apart. After the first error it only returns zeros.
type reader struct {
	rest []byte
	err  error
}

// fail notes the first thing that is wrong.
func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
	r.rest = nil
}

// take is the next n bytes: never nil if they are there.
func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.rest) {
		r.err, r.rest = ErrShort, nil
		return nil
	}
	taken := r.rest[:n:n]
	r.rest = r.rest[n:]
	return taken
}

// count returns n if that many elements of at least size bytes can follow: a
// length alone never makes us allocate.
func (r *reader) count(n, size int) int {
	if r.err != nil {
		return 0
	}
	if n < 0 || n > len(r.rest)/size {
		r.err, r.rest = ErrShort, nil
		return 0
	}
	return n
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) lsn() LSN { return LSN(r.uint64()) }

func (r *reader) time() time.Time {
	return time.UnixMicro(int64(r.uint64()) + epoch).UTC() //nolint:gosec // the bits of a signed number
}

// string is text up to a zero byte.
func (r *reader) string() string {
	end := bytes.IndexByte(r.rest, 0)
	if end < 0 {
		r.take(len(r.rest) + 1) // notes that it is short
		return ""
	}
	return string(r.take(end + 1)[:end])
}

// namespace is a schema's name; pg_catalog is sent as nothing.
func (r *reader) namespace() string {
	if name := r.string(); name != "" || r.err != nil {
		return name
	}
	return "pg_catalog"
}

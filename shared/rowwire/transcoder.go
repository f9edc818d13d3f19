package rowwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// copySignature begins every COPY binary stream.
const copySignature = "PGCOPY\n\xff\r\n\x00"

const (
	copyHeaderLen  = len(copySignature) + 8 // signature, flags, length of the extension
	positionDigits = 8                      // hex digits of a row's position in _version
	keepPending    = 1 << 20                // a larger left-over buffer is dropped rather than kept
)

// errClosed is returned by Write and Close after Close.
var errClosed = errors.New("transcoder is closed")

// errInsideCopy refuses what may only be done outside of a COPY.
var errInsideCopy = errors.New("a COPY has begun and not ended")

// errNoDeletedField refuses tombstones that nothing would tell from rows.
var errNoDeletedField = errors.New("the layout has no field for _deleted")

type state uint8

const (
	beforeCopy    state = iota // a COPY must follow
	betweenCopies              // a COPY may follow
	inHeader
	inTuples
	afterTrailer
	closed
)

// Transcoder is an io.Writer that takes COPY binary data in chunks of any size and encodes each row as a
// protocol-buffer message. It is fastest when a chunk is one whole row, which is what PostgreSQL sends. Before, between
// and after COPYs, Tuple takes single rows that came another way. It is not safe for concurrent use. After an error
// every further call returns that error.
type Transcoder struct {
	columns    []column
	meta       metadata
	maxRow     int
	batchBytes int
	batchRows  int

	flush  func(*Batch) (*Batch, error)
	reject func(Reject) error
	parts  *partitions
	json   jsonScanner

	batch    *Batch
	state    state
	err      error
	position int64 // of the next row
	rejected int64
	skipped  int64 // positions without a row
	bytes    int64

	keepLast bool
	last     []byte // the latest tuple of this COPY

	pending []byte // start of an incomplete header or tuple
	need    int    // len(pending) below which another attempt is pointless
	tuple   [][]byte
	framed  []byte // a row given to Tuple, as COPY has it
}

// NewTranscoder returns a transcoder for one COPY, or for rows given to Tuple, or for both in any order.
//
// flush is called with each full batch and returns an empty one to go on with; it may keep the full batch, even on
// another goroutine, until it returns that batch from a later call. The transcoder resets what it is given. first is
// the batch to begin with; nil means a new one.
//
// reject is called for each row that cannot be carried exactly, before any later row is looked at. An error of flush
// or reject ends the transcoding and is returned, wrapped, by Write or Close.
func NewTranscoder(l Layout, first *Batch, flush func(*Batch) (*Batch, error), reject func(Reject) error) (*Transcoder, error) {
	if flush == nil || reject == nil {
		return nil, errors.New("creating transcoder: flush and reject are required")
	}
	columns, err := l.compile()
	if err != nil {
		return nil, err
	}
	var parts *partitions
	if l.Partition != nil {
		if parts, err = newPartitions(l.Partition, l.Columns); err != nil {
			return nil, err
		}
	}
	if first == nil {
		first = new(Batch)
	}
	first.Reset()
	t := &Transcoder{
		columns:    columns,
		maxRow:     orDefault(l.MaxRow, DefaultMaxRow),
		batchBytes: orDefault(l.BatchBytes, DefaultBatchBytes),
		batchRows:  orDefault(l.BatchRows, DefaultBatchRows),
		flush:      flush,
		reject:     reject,
		parts:      parts,
		keepLast:   l.KeepLast,
		batch:      first,
		tuple:      make([][]byte, len(columns)),
	}
	t.meta = l.metadata()
	return t, nil
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// Rows returns how many rows were accepted, tombstones among them.
func (t *Transcoder) Rows() int64 { return t.position - t.rejected - t.skipped }

// Rejected returns how many rows were handed to reject.
func (t *Transcoder) Rejected() int64 { return t.rejected }

// Bytes returns the encoded size of all accepted rows.
func (t *Transcoder) Bytes() int64 { return t.bytes }

// Position returns the position that the next row gets, which is how many positions are used up: by rows, accepted or
// not, and by SkipPosition.
func (t *Transcoder) Position() int64 { return t.position }

// Partitions returns the sorted BigQuery partition ids of all accepted rows ("2026", "202611", "20261120",
// "2026112008", "__NULL__"); nil without Layout.Partition.
func (t *Transcoder) Partitions() []string {
	if t.parts == nil {
		return nil
	}
	return t.parts.ids()
}

// Deleted says whether the rows that follow are tombstones, which have _deleted = true; at first they are not. It may be
// called between COPYs and between rows. A tombstone is a row like any other, of which the caller gives the key and NULL
// for every other column: it has no values then, repeated columns have no elements, and its partition is that of NULL
// unless the key has the partition column. A layout without DeletedField has no tombstones: asking for them is an error
// of the next call.
func (t *Transcoder) Deleted(on bool) {
	if t.meta.deletedAt < 0 {
		if on && t.err == nil {
			t.err = errNoDeletedField
		}
		return
	}
	deleted, change := byte(0), changeUpsert
	if on {
		deleted, change = 1, changeDelete
	}
	t.meta.encoded[t.meta.deletedAt] = deleted
	if t.meta.changeAt >= 0 {
		copy(t.meta.encoded[t.meta.changeAt:], change)
	}
}

// Tuple encodes one row from its COPY field bytes, nil for NULL, in the order of Layout.Columns. It does all that
// Write does with a row inside of a COPY, Last included, and returns the same errors; it must not be called inside of
// one, that is between the first byte of its header and its trailer. The bytes are not kept after the call.
func (t *Transcoder) Tuple(fields [][]byte) error {
	if err := t.outsideCopy(); err != nil {
		return err
	}
	if len(fields) != len(t.columns) {
		return t.fail(t.malformed(-1, fmt.Sprintf("tuple has %d fields, want %d", len(fields), len(t.columns))))
	}
	// The row is put into the form that readTuple takes: one copy, for one path to maintain and a COPY none the slower.
	b := binary.BigEndian.AppendUint16(t.framed[:0], uint16(len(fields)))
	for i, v := range fields {
		if v == nil {
			b = binary.BigEndian.AppendUint32(b, math.MaxUint32) // -1
			continue
		}
		if len(v) > math.MaxInt32 {
			return t.fail(t.malformed(i, "field is longer than COPY can say"))
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}
	t.framed = b
	if _, err := t.readTuple(b); err != nil {
		return t.fail(err)
	}
	if cap(t.framed) > keepPending {
		t.framed = nil
	}
	return nil
}

// SkipPosition uses up one position without a row and returns it: a change that is no row, such as a TRUNCATE, has its
// place among the versions too. Like Tuple it must not be called inside of a COPY.
func (t *Transcoder) SkipPosition() (int64, error) {
	if err := t.outsideCopy(); err != nil {
		return 0, err
	}
	if err := t.checkPosition(); err != nil {
		return 0, t.fail(err)
	}
	at := t.position
	t.position++
	t.skipped++
	return at, nil
}

// outsideCopy prepares for what is no part of a COPY.
func (t *Transcoder) outsideCopy() error {
	switch {
	case t.err != nil:
		return t.err
	case t.state == beforeCopy:
		t.state = betweenCopies // there is something to hand over without a COPY
	case t.state == inHeader || t.state == inTuples:
		return t.fail(errInsideCopy)
	}
	return nil
}

func (t *Transcoder) checkPosition() error {
	if t.position > math.MaxUint32 {
		return t.malformed(-1, "more rows than a version's position can count")
	}
	return nil
}

// Write takes the next bytes of the COPY stream. Besides errors of flush and reject it returns a *FormatError.
// The bytes are not kept after the call.
func (t *Transcoder) Write(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	if len(t.pending) == 0 {
		rest, err := t.consume(p)
		if err != nil {
			return 0, t.fail(err)
		}
		t.pending = append(t.pending, rest...)
		return len(p), nil
	}
	t.pending = append(t.pending, p...)
	if len(t.pending) < t.need {
		return len(p), nil
	}
	rest, err := t.consume(t.pending)
	if err != nil {
		return 0, t.fail(err)
	}
	t.pending = t.pending[:copy(t.pending, rest)]
	if len(t.pending) == 0 && cap(t.pending) > keepPending {
		t.pending = nil
	}
	return len(p), nil
}

// Close checks that the stream was complete and hands over the last rows. Without a COPY it is complete if Tuple or
// SkipPosition was called. It does not have to be called after an error.
func (t *Transcoder) Close() error {
	if err := t.whole(); err != nil {
		return err
	}
	if len(t.batch.ends) > 0 {
		if err := t.handOver(); err != nil {
			return t.fail(err)
		}
	}
	t.state = closed
	t.err = errClosed
	return nil
}

// Continue makes the transcoder ready for another COPY of the same layout, after one that was complete; that COPY must
// follow, unless Tuple or SkipPosition is called first. Positions, counts, Deleted and the batch begun go on; Last
// starts anew.
func (t *Transcoder) Continue() error {
	if err := t.whole(); err != nil {
		return err
	}
	t.state = beforeCopy
	t.last = t.last[:0]
	return nil
}

// whole refuses to end the stream where a COPY is missing or incomplete.
func (t *Transcoder) whole() error {
	if t.err != nil {
		return t.err
	}
	if t.state != afterTrailer && t.state != betweenCopies {
		return t.fail(t.malformed(-1, "stream ends before its trailer"))
	}
	return nil
}

// Last returns the COPY field bytes of the latest row since the transcoder was made or Continue was called, accepted or
// not, nil for NULL; nil if there was no row or Layout.KeepLast is not set. They are valid until the next Write or Tuple.
func (t *Transcoder) Last() [][]byte {
	if len(t.last) == 0 {
		return nil
	}
	fields := make([][]byte, len(t.columns))
	for i, off := 0, 2; i < len(fields); i++ {
		size := int(int32(binary.BigEndian.Uint32(t.last[off:])))
		off += 4
		if size >= 0 {
			fields[i] = t.last[off : off+size : off+size]
			off += size
		}
	}
	return fields
}

func (t *Transcoder) fail(err error) error {
	t.err = err
	return err
}

func (t *Transcoder) malformed(column int, problem string) error {
	return &FormatError{Row: t.position, Column: column, Problem: problem}
}

// consume reads as many whole parts of the stream as p has and returns what is left.
func (t *Transcoder) consume(p []byte) ([]byte, error) {
	for len(p) > 0 {
		var n int
		var err error
		switch t.state {
		case inTuples:
			n, err = t.readTuple(p)
		case beforeCopy, betweenCopies, inHeader:
			t.state = inHeader
			n, err = t.readHeader(p)
		default:
			err = t.malformed(-1, "bytes after the trailer")
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return p, nil
		}
		p = p[n:]
	}
	return nil, nil
}

// readHeader returns the length of the header, 0 while it is incomplete.
func (t *Transcoder) readHeader(p []byte) (int, error) {
	if len(p) < copyHeaderLen {
		t.need = copyHeaderLen
		return 0, nil
	}
	if !bytes.HasPrefix(p, []byte(copySignature)) {
		return 0, t.malformed(-1, "signature of COPY binary format is missing")
	}
	flags := binary.BigEndian.Uint32(p[len(copySignature):])
	if flags>>16 != 0 { // the upper half are critical: a reader must know them. None is in use.
		return 0, t.malformed(-1, "header has unknown critical flags")
	}
	extension := binary.BigEndian.Uint32(p[len(copySignature)+4:])
	if extension > math.MaxInt32 {
		return 0, t.malformed(-1, "header extension has a negative length")
	}
	n := copyHeaderLen + int(extension)
	if len(p) < n {
		t.need = n
		return 0, nil
	}
	t.state = inTuples
	return n, nil
}

// readTuple encodes the row at the start of p and returns its length, 0 while it is incomplete.
func (t *Transcoder) readTuple(p []byte) (int, error) {
	if len(p) < 2 {
		t.need = 2
		return 0, nil
	}
	if fields := binary.BigEndian.Uint16(p); int(fields) != len(t.columns) {
		if fields == math.MaxUint16 { // -1, the trailer
			t.state = afterTrailer
			return 2, nil
		}
		return 0, t.malformed(-1, fmt.Sprintf("tuple has %d fields, want %d", int16(fields), len(t.columns)))
	}
	b := t.batch.buf
	start := len(b)
	off := 2
	var partition []byte
	partitionColumn := -1
	if t.parts != nil {
		partitionColumn = t.parts.column
	}
	for i := range t.columns {
		if len(p)-off < 4 {
			return t.incomplete(b, start, off+4)
		}
		size := int(int32(binary.BigEndian.Uint32(p[off:])))
		off += 4
		if size < 0 {
			if size != -1 {
				return 0, t.malformed(i, "field has a negative length")
			}
			continue
		}
		if len(p)-off < size {
			return t.incomplete(b, start, off+size)
		}
		v := p[off : off+size : off+size]
		off += size
		c := &t.columns[i]
		var reason Reason
		if c.repeated {
			b, reason = t.appendArray(b, c, v)
		} else {
			b, reason = t.appendValue(b, c, v)
		}
		if reason != 0 {
			t.batch.buf = b[:start]
			return t.refuse(p, i, reason)
		}
		if i == partitionColumn {
			partition = v
		}
	}
	b = append(b, t.meta.encoded...)
	for _, at := range t.meta.positionAt {
		if at < 0 {
			continue
		}
		if err := t.checkPosition(); err != nil {
			return 0, err
		}
		putHex8(b[len(b)-len(t.meta.encoded)+at:], uint32(t.position))
	}
	t.batch.buf = b
	if reason := t.place(len(b)-start, partition); reason != 0 {
		t.batch.buf = b[:start]
		column := -1
		if reason == OutsidePartitionWindow {
			column = partitionColumn
		}
		return t.refuse(p, column, reason)
	}
	t.keep(p[:off])
	return off, t.accept(start)
}

// keep remembers the tuple for Last.
func (t *Transcoder) keep(tuple []byte) {
	if t.keepLast {
		t.last = append(t.last[:0], tuple...)
	}
}

// place checks what only the whole row can tell: its size and its partition, which is noted.
func (t *Transcoder) place(size int, partition []byte) Reason {
	if size > t.maxRow {
		return RowTooLarge
	}
	if t.parts == nil {
		return 0
	}
	return t.parts.note(partition)
}

// incomplete forgets the row begun and says how many bytes the next attempt needs at least.
func (t *Transcoder) incomplete(b []byte, start, need int) (int, error) {
	t.batch.buf = b[:start]
	t.need = need
	return 0, nil
}

// accept ends the row that begins at start, handing over the batch before or after it as the limits ask.
func (t *Transcoder) accept(start int) error {
	b := t.batch
	t.position++
	t.bytes += int64(len(b.buf) - start)
	if len(b.ends) > 0 && len(b.buf) > t.batchBytes {
		// The row would make the batch too large for a request: it becomes the first of the next one. What flush
		// keeps is only read by it, and what we copy lies behind it.
		row := b.buf[start:]
		b.buf = b.buf[:start]
		if err := t.handOver(); err != nil {
			return err
		}
		b = t.batch
		b.buf = append(b.buf, row...)
	}
	b.ends = append(b.ends, len(b.buf))
	if len(b.buf) >= t.batchBytes || len(b.ends) >= t.batchRows {
		return t.handOver()
	}
	return nil
}

// handOver gives the batch to flush and goes on with the one it returns.
func (t *Transcoder) handOver() error {
	t.batch.seal()
	next, err := t.flush(t.batch)
	if err != nil {
		return fmt.Errorf("flushing batch: %w", err)
	}
	if next == nil {
		return errors.New("flushing batch: no batch was returned")
	}
	next.Reset()
	t.batch = next
	return nil
}

// refuse reports the row at the start of p once it is complete. A malformed field is an error instead.
func (t *Transcoder) refuse(p []byte, column int, reason Reason) (int, error) {
	if reason == malformed {
		return 0, t.malformed(column, "field is not a binary value of "+t.columns[column].kind.String())
	}
	if reason == RowTooLarge {
		column = -1
	}
	off := 2
	for i := range t.tuple {
		if len(p)-off < 4 {
			t.need = off + 4
			return 0, nil
		}
		size := int(int32(binary.BigEndian.Uint32(p[off:])))
		off += 4
		if size < 0 {
			if size != -1 {
				return 0, t.malformed(i, "field has a negative length")
			}
			t.tuple[i] = nil
			continue
		}
		if len(p)-off < size {
			t.need = off + size
			return 0, nil
		}
		t.tuple[i] = p[off : off+size : off+size]
		off += size
	}
	err := t.reject(Reject{Row: t.position, Column: column, Reason: reason, Tuple: t.tuple})
	clear(t.tuple)
	if err != nil {
		return 0, fmt.Errorf("rejecting row: %w", err)
	}
	t.keep(p[:off])
	t.position++
	t.rejected++
	return off, nil
}

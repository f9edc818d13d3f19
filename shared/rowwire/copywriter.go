package rowwire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/decimal256"
)

const (
	copyBuffer = 64 << 10
	maxTuple   = 1<<30 - 1 // PostgreSQL's limit for a row on its way in, MaxAllocSize

	pgMinMicros = -211813488000000000 // 4714-11-24 BC, PostgreSQL's first timestamp, from its epoch
	pgMinDays   = -2451545            // 4714-11-24 BC from 2000-01-01
	pgMaxDays   = 2145031949          // 5874898-01-01, the first day behind its last
)

// ValueError says that a row holds a value that PostgreSQL cannot store. Nothing of that row is written.
type ValueError struct {
	Column string // empty when the whole row is meant
	Row    int64  // counted over all records given to the writer, from 0
	Reason Reason
}

// Error implements error.
func (e *ValueError) Error() string {
	if e.Column == "" {
		return fmt.Sprintf("writing row %d: %s", e.Row, e.Reason)
	}
	return fmt.Sprintf("writing row %d, column %q: %s", e.Row, e.Column, e.Reason)
}

// CopyWriter writes Arrow records as COPY binary data, the columns in the order of the schema. It is not safe for
// concurrent use.
type CopyWriter struct {
	// Reject, when set, is called for each row that PostgreSQL cannot store; the row is left out and writing goes on.
	// An error it returns ends WriteRecord. When Reject is nil, WriteRecord returns the *ValueError and leaves out the
	// rest of the record as well.
	Reject func(*ValueError) error

	w       io.Writer
	schema  *arrow.Schema
	sources []source
	buf     []byte
	row     int64
	written int64
	err     error
}

// NewCopyWriter returns a writer of records of the schema. It returns an *UnsupportedTypeError for a field that
// StagingType refuses. Nothing is written to w before a buffer is full or Close is called.
func NewCopyWriter(w io.Writer, schema *arrow.Schema) (*CopyWriter, error) {
	fields := schema.Fields()
	if len(fields) == 0 || len(fields) > math.MaxInt16 {
		return nil, fmt.Errorf("creating COPY writer: %d columns, want 1 to %d", len(fields), math.MaxInt16)
	}
	c := &CopyWriter{w: w, schema: schema, sources: make([]source, len(fields))}
	for i, field := range fields {
		s, err := stagingOf(field)
		if err != nil {
			return nil, err
		}
		c.sources[i] = source{staging: s, column: field.Name}
	}
	c.buf = append(make([]byte, 0, copyBuffer+copyBuffer/4), copySignature...)
	c.buf = append(c.buf, make([]byte, copyHeaderLen-len(copySignature))...) // no flags, no extension
	return c, nil
}

// Rows returns how many rows were written, the rejected ones not counted.
func (c *CopyWriter) Rows() int64 { return c.written }

// WriteRecord appends the rows of a record that has the types of the schema. After an error of the underlying writer
// every later call returns that error.
func (c *CopyWriter) WriteRecord(record arrow.Record) error {
	if c.err != nil {
		return c.err
	}
	if err := c.bind(record); err != nil {
		return err
	}
	first := c.row
	c.row += record.NumRows()
	for i := range int(record.NumRows()) {
		if err := c.writeRow(i, first+int64(i)); err != nil {
			return err
		}
		if len(c.buf) >= copyBuffer {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close writes the trailer and what is buffered. It does not close the underlying writer.
func (c *CopyWriter) Close() error {
	if c.err != nil {
		return c.err
	}
	c.buf = append(c.buf, 0xFF, 0xFF)
	if err := c.flush(); err != nil {
		return err
	}
	c.err = errors.New("COPY writer is closed")
	return nil
}

func (c *CopyWriter) flush() error {
	if _, err := c.w.Write(c.buf); err != nil {
		c.err = fmt.Errorf("writing COPY data: %w", err)
		return c.err
	}
	c.buf = c.buf[:0]
	return nil
}

// bind points the sources at the record's arrays.
func (c *CopyWriter) bind(record arrow.Record) error {
	if int(record.NumCols()) != len(c.sources) {
		return fmt.Errorf("writing record: %d columns, want %d", record.NumCols(), len(c.sources))
	}
	for i := range c.sources {
		if !c.sources[i].bind(record.Column(i), c.schema.Field(i).Type) {
			return fmt.Errorf("writing record: column %q is %s, want %s", c.sources[i].column,
				record.Column(i).DataType(), c.schema.Field(i).Type)
		}
	}
	return nil
}

// writeRow appends row i of the bound record, which is the given row of all.
func (c *CopyWriter) writeRow(i int, row int64) error {
	start := len(c.buf)
	b := binary.BigEndian.AppendUint16(c.buf, uint16(len(c.sources)))
	for j := range c.sources {
		var reason Reason
		if b, reason = c.sources[j].appendField(b, i); reason != 0 {
			c.buf = b[:start]
			return c.refuse(&ValueError{Column: c.sources[j].column, Row: row, Reason: reason})
		}
	}
	c.buf = b
	if len(b)-start > maxTuple {
		c.buf = b[:start]
		return c.refuse(&ValueError{Row: row, Reason: ValueTooLarge})
	}
	c.written++
	return nil
}

func (c *CopyWriter) refuse(e *ValueError) error {
	if c.Reject == nil {
		return e
	}
	if err := c.Reject(e); err != nil {
		return fmt.Errorf("rejecting row: %w", err)
	}
	return nil
}

// source reads the values of one column. Of the typed views only that of its kind is set.
type source struct {
	staging
	column string

	outer    arrow.Array // the column: a list, or the values themselves
	list     *array.List // nil unless a list
	values   arrow.Array
	nulls    bool // whether values has any
	ints     []int64
	doubles  []float64
	text     *array.String
	binary   *array.Binary
	bools    *array.Boolean
	dates    []arrow.Date32
	times    []arrow.Time64
	instants []arrow.Timestamp
	dec128   []decimal128.Num
	dec256   []decimal256.Num
}

// bind reports whether the array has the type that the source was made for.
func (s *source) bind(a arrow.Array, want arrow.DataType) bool {
	if !arrow.TypeEqual(a.DataType(), want) {
		return false
	}
	s.outer, s.values = a, a
	if s.list, _ = a.(*array.List); s.list != nil {
		s.values = s.list.ListValues()
	}
	s.nulls = s.values.NullN() > 0
	switch v := s.values.(type) {
	case *array.Int64:
		s.ints = v.Int64Values()
	case *array.Float64:
		s.doubles = v.Float64Values()
	case *array.String:
		s.text = v
	case *array.Binary:
		s.binary = v
	case *array.Boolean:
		s.bools = v
	case *array.Date32:
		s.dates = v.Date32Values()
	case *array.Time64:
		s.times = v.Time64Values()
	case *array.Timestamp:
		s.instants = v.TimestampValues()
	case *array.Decimal128:
		s.dec128 = v.Values()
	case *array.Decimal256:
		s.dec256 = v.Values()
	default:
		return false
	}
	return true
}

const nullLength = math.MaxUint32 // -1

// appendField appends the length and bytes of the column's value in row i.
func (s *source) appendField(b []byte, i int) ([]byte, Reason) {
	if s.list == nil {
		return s.appendElement(b, i)
	}
	if s.outer.IsNull(i) {
		return binary.BigEndian.AppendUint32(b, nullLength), 0
	}
	from, to := s.list.ValueOffsets(i)
	b = append(b, 0, 0, 0, 0)
	at := len(b)
	b = s.appendArrayHeader(b, int(from), int(to))
	for j := int(from); j < int(to); j++ {
		var reason Reason
		if b, reason = s.appendElement(b, j); reason != 0 {
			return b, reason
		}
		if len(b)-at > maxTuple {
			return b, ValueTooLarge
		}
	}
	binary.BigEndian.PutUint32(b[at-4:], uint32(len(b)-at))
	return b, 0
}

// appendArrayHeader describes the elements from and below to as an array that begins at 1.
func (s *source) appendArrayHeader(b []byte, from, to int) []byte {
	var dimensions, hasNull uint32
	if from < to {
		dimensions = 1
	}
	for j := from; s.nulls && j < to; j++ {
		if s.values.IsNull(j) {
			hasNull = 1
			break
		}
	}
	b = binary.BigEndian.AppendUint32(b, dimensions)
	b = binary.BigEndian.AppendUint32(b, hasNull)
	b = binary.BigEndian.AppendUint32(b, s.oid)
	if dimensions == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint32(b, uint32(to-from))
	return binary.BigEndian.AppendUint32(b, 1)
}

// appendElement appends the length and bytes of value i.
func (s *source) appendElement(b []byte, i int) ([]byte, Reason) {
	if s.nulls && s.values.IsNull(i) {
		return binary.BigEndian.AppendUint32(b, nullLength), 0
	}
	switch s.kind {
	case Int8:
		return appendField8(b, uint64(s.ints[i])), 0
	case Float8:
		return appendField8(b, math.Float64bits(s.doubles[i])), 0
	case Text:
		return appendTextField(b, s.text.Value(i))
	case JSONB:
		return appendJSONB(b, s.text.Value(i))
	case Bytes:
		v := s.binary.Value(i)
		if len(v) > maxTuple {
			return b, ValueTooLarge
		}
		return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...), 0
	case Bool:
		var v byte
		if s.bools.Value(i) {
			v = 1
		}
		return append(b, 0, 0, 0, 1, v), 0
	case Date:
		days := int64(s.dates[i]) - epochDays
		if days < pgMinDays || days >= pgMaxDays {
			return b, TemporalRange
		}
		return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(int32(days))), 0
	case Time:
		us := int64(s.times[i])
		if us < 0 || us > microsPerDay {
			return b, TemporalRange
		}
		return appendField8(b, uint64(us)), 0
	case Timestamp, DateTime:
		us := int64(s.instants[i])
		if us < pgMinMicros+epochMicros { // PostgreSQL's last timestamp lies beyond what Arrow can say
			return b, TemporalRange
		}
		return appendField8(b, uint64(us-epochMicros)), 0
	case Numeric:
		m, negative := magnitude128(s.dec128[i])
		return appendDecimalField(b, m, negative, s.scale), 0
	default: // BigNumeric
		m, negative := magnitude256(s.dec256[i])
		return appendDecimalField(b, m, negative, s.scale), 0
	}
}

func appendField8(b []byte, v uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), v)
}

func appendDecimalField(b []byte, m magnitude, negative bool, scale int32) []byte {
	b = append(b, 0, 0, 0, 0)
	at := len(b)
	b = appendDecimal(b, m, negative, scale)
	b[at-1] = byte(len(b) - at) // a header and at most 24 groups
	return b
}

func appendTextField(b []byte, v string) ([]byte, Reason) {
	switch {
	case len(v) > maxTuple:
		return b, ValueTooLarge
	case !utf8.ValidString(v):
		return b, InvalidUTF8
	case strings.IndexByte(v, 0) >= 0:
		return b, NulByte
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...), 0
}

// appendJSONB checks the text, because one value that PostgreSQL refuses would end the whole COPY.
func appendJSONB(b []byte, v string) ([]byte, Reason) {
	if len(v) >= maxTuple {
		return b, ValueTooLarge
	}
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(v)+1)), 1)
	at := len(b)
	b = append(b, v...)
	text := b[at:]
	if !utf8.Valid(text) {
		return b, InvalidUTF8
	}
	if !json.Valid(text) {
		return b, InvalidJSON
	}
	return b, checkEscapes(text)
}

// checkEscapes finds the escapes in JSON that jsonb refuses.
func checkEscapes(text []byte) Reason {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return 0
		}
		n, reason := escape(text[i:])
		if reason != 0 {
			return reason
		}
		text = text[i+n:]
	}
}

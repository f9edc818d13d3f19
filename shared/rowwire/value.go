package rowwire

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendTag appends the column's tag. Eight bytes are stored and the surplus cut off: cheaper than a loop.
func appendTag(b []byte, c *column) []byte {
	n := len(b) + c.tagLen
	return binary.LittleEndian.AppendUint64(b, c.tag)[:n]
}

func appendVarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// appendText appends a length-delimited field.
func appendText(b []byte, c *column, v []byte) []byte {
	b = appendTag(b, c)
	b = appendVarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendInt(b []byte, c *column, v int64) []byte {
	return appendVarint(appendTag(b, c), uint64(v))
}

func appendDouble(b []byte, c *column, bits uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(b, c), bits)
}

// appendValue appends one field with the value of the COPY bytes v, or says why it cannot; then what it appended is
// meaningless.
func (t *Transcoder) appendValue(b []byte, c *column, v []byte) ([]byte, Reason) {
	switch c.kind {
	case Int4:
		if len(v) != 4 {
			return b, malformed
		}
		return appendInt(b, c, int64(int32(binary.BigEndian.Uint32(v)))), 0
	case Int8:
		if len(v) != 8 {
			return b, malformed
		}
		return appendInt(b, c, int64(binary.BigEndian.Uint64(v))), 0
	case Text:
		if len(v) > t.maxRow {
			return b, RowTooLarge
		}
		if !utf8.Valid(v) {
			return b, InvalidUTF8
		}
		return appendText(b, c, v), 0
	case Timestamp:
		us, reason := readTimestamp(v)
		if reason != 0 {
			return b, reason
		}
		return appendInt(b, c, us), 0
	case DateTime:
		us, reason := readTimestamp(v)
		if reason != 0 {
			return b, reason
		}
		b = append(appendTag(b, c), 0)
		at := len(b)
		b = appendDateTime(b, us)
		b[at-1] = byte(len(b) - at)
		return b, 0
	case Date:
		days, reason := readDate(v)
		if reason != 0 {
			return b, reason
		}
		return appendInt(b, c, days), 0
	case Bool:
		if len(v) != 1 || v[0] > 1 {
			return b, malformed
		}
		return append(appendTag(b, c), v[0]), 0
	case Float8:
		if len(v) != 8 {
			return b, malformed
		}
		return appendDouble(b, c, binary.BigEndian.Uint64(v)), 0
	case Numeric, BigNumeric:
		b = append(appendTag(b, c), 0)
		at := len(b)
		b, reason := appendNumeric(b, v, c.kind == BigNumeric)
		b[at-1] = byte(len(b) - at) // at most 79 characters
		return b, reason
	default:
		return t.appendRare(b, c, v)
	}
}

// appendRare is the rest of appendValue, kept apart so that the common kinds stay in one small function.
func (t *Transcoder) appendRare(b []byte, c *column, v []byte) ([]byte, Reason) {
	switch c.kind {
	case JSONB:
		if len(v) < 2 || v[0] != 1 {
			return b, malformed
		}
		return t.appendJSON(b, c, v[1:], false)
	case JSON:
		if len(v) == 0 {
			return b, malformed
		}
		return t.appendJSON(b, c, v, true)
	case UUID:
		if len(v) != 16 {
			return b, malformed
		}
		return appendUUID(append(appendTag(b, c), 36), v), 0
	case Bytes:
		if len(v) > t.maxRow {
			return b, RowTooLarge
		}
		return appendText(b, c, v), 0
	case Int2:
		if len(v) != 2 {
			return b, malformed
		}
		return appendInt(b, c, int64(int16(binary.BigEndian.Uint16(v)))), 0
	case Float4:
		if len(v) != 4 {
			return b, malformed
		}
		f := float64(math.Float32frombits(binary.BigEndian.Uint32(v)))
		return appendDouble(b, c, math.Float64bits(f)), 0
	case Time:
		us, reason := readTime(v)
		if reason != 0 {
			return b, reason
		}
		b = append(appendTag(b, c), 0)
		at := len(b)
		b = appendTime(b, us)
		b[at-1] = byte(len(b) - at)
		return b, 0
	default:
		return t.appendConverted(b, c, v)
	}
}

// appendConverted is the rest of appendRare: values that become something else than PostgreSQL has.
func (t *Transcoder) appendConverted(b []byte, c *column, v []byte) ([]byte, Reason) {
	switch c.kind {
	case hashed:
		return append(append(appendTag(b, c), hashLen), c.hash.sum(v)...), 0
	case IntervalText, Interval:
		b = append(appendTag(b, c), 0)
		at := len(b)
		b, reason := appendInterval(b, v, c.kind == Interval)
		b[at-1] = byte(len(b) - at) // at most 61 characters
		return b, reason
	case NumericInt:
		n, reason := readNumericInt(v)
		return appendInt(b, c, n), reason
	case NumericFloat:
		f, reason := readNumericFloat(v)
		return appendDouble(b, c, math.Float64bits(f)), reason
	case JSONText:
		if !json.Valid(v) {
			return b, InvalidJSON
		}
		return t.appendJSON(b, c, v, true)
	case Geography:
		if len(v) > t.maxRow {
			return b, RowTooLarge
		}
		text, reason := readGeography(v)
		return appendText(b, c, text), reason
	default:
		return b, malformed
	}
}

func (t *Transcoder) appendJSON(b []byte, c *column, v []byte, duplicates bool) ([]byte, Reason) {
	if len(v) > t.maxRow {
		return b, RowTooLarge
	}
	if !utf8.Valid(v) {
		return b, InvalidUTF8
	}
	if reason := t.json.check(v, duplicates); reason != 0 {
		return b, reason
	}
	return appendText(b, c, v), 0
}

// Limits of an array's header in PostgreSQL.
const (
	arrayHeaderLen = 12 // dimensions, flag for NULLs, element type
	maxDimensions  = 6
)

// appendArray appends one field per element.
func (t *Transcoder) appendArray(b []byte, c *column, v []byte) ([]byte, Reason) {
	if len(v) < arrayHeaderLen {
		return b, malformed
	}
	dimensions := binary.BigEndian.Uint32(v)
	switch {
	case dimensions == 0 && len(v) == arrayHeaderLen:
		return b, 0
	case dimensions == 0 || dimensions > maxDimensions:
		return b, malformed
	case dimensions > 1:
		return b, MultiDimensional
	case len(v) < arrayHeaderLen+8:
		return b, malformed
	}
	elements := int32(binary.BigEndian.Uint32(v[arrayHeaderLen:]))
	if elements < 0 {
		return b, malformed
	}
	if binary.BigEndian.Uint32(v[arrayHeaderLen+4:]) != 1 { // BigQuery has no place for it: its arrays all begin alike
		return b, ShiftedArray
	}
	v = v[arrayHeaderLen+8:]
	for range elements {
		if len(v) < 4 {
			return b, malformed
		}
		size := int(int32(binary.BigEndian.Uint32(v)))
		v = v[4:]
		if size == -1 {
			return b, NullElement
		}
		if size < 0 || size > len(v) {
			return b, malformed
		}
		var reason Reason
		if b, reason = t.appendValue(b, c, v[:size]); reason != 0 {
			return b, reason
		}
		v = v[size:]
	}
	if len(v) != 0 {
		return b, malformed
	}
	return b, 0
}

// appendUUID appends the 8-4-4-4-12 text of the 16 bytes v.
func appendUUID(b, v []byte) []byte {
	var s [36]byte
	at := 0
	for i, x := range v {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			s[at] = '-'
			at++
		}
		s[at] = hexDigits[x>>4]
		s[at+1] = hexDigits[x&15]
		at += 2
	}
	return append(b, s[:]...)
}

// putHex8 writes v as 8 hex digits at the start of b.
func putHex8(b []byte, v uint32) {
	b = b[:positionDigits]
	for i := range b {
		b[positionDigits-1-i] = hexDigits[v&15]
		v >>= 4
	}
}

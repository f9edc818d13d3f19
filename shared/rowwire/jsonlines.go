package rowwire

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxJSONLine is BigQuery's limit of one row of a JSON file in bytes. (BigQuery: quotas, load jobs, maximum row size.)
const maxJSONLine = 100_000_000

// JSONLines turns rows as a [Transcoder] encodes them into newline-delimited JSON for a BigQuery load job. It keeps
// nothing from row to row and may be used by several goroutines at a time.
//
// A NULL is absent: for a JSON column, null is a value of its own. INT64, NUMERIC and BIGNUMERIC are strings, because
// a reader of JSON may take numbers for float64; FLOAT64 is the shortest number that reads back the same, or "NaN",
// "Infinity" or "-Infinity"; BYTES is base64; TIMESTAMP is in UTC; INTERVAL is in the ISO 8601 format; a JSON column
// has its text as it is, inline: a string in its place would be loaded as a JSON string. (BigQuery: "Loading JSON data from Cloud Storage", data types;
// "Working with JSON data", load from newline delimited JSON files.)
type JSONLines struct {
	fields []jsonField
}

// jsonField is one field of the message, in the order in which a Transcoder writes them.
type jsonField struct {
	tag      uint64
	kind     Kind
	repeated bool
	key      []byte // quoted, with its colon
}

// NewJSONLines returns what writes the rows of a layout, given the names of its columns in BigQuery, in the same order.
// Names that BigQuery would take for the same column, and kinds that have no certain form in JSON, are errors.
func NewJSONLines(l Layout, names []string) (*JSONLines, error) {
	if _, err := l.compile(); err != nil {
		return nil, err
	}
	if len(names) != len(l.Columns) {
		return nil, fmt.Errorf("preparing JSON lines: %d names for %d columns", len(names), len(l.Columns))
	}
	j := &JSONLines{fields: make([]jsonField, 0, len(names)+3)}
	taken := make(map[string]bool, len(names)+3)
	add := func(name string, field int32, kind Kind, repeated bool) error {
		folded := strings.ToLower(name) // names of columns are compared without case
		switch {
		case name == "" || !utf8.ValidString(name):
			return fmt.Errorf("preparing JSON lines: %q cannot be the name of a column", name)
		case taken[folded]:
			return fmt.Errorf("preparing JSON lines: two columns have the name %q", name)
		case !kind.inJSON():
			return fmt.Errorf("preparing JSON lines: column %q has kind %v, which has no form in JSON", name, kind)
		}
		taken[folded] = true
		j.fields = append(j.fields, jsonField{
			tag: uint64(uint32(field))<<3 | kind.wire(), kind: kind, repeated: repeated,
			key: append(appendJSONString(nil, []byte(name)), ':'),
		})
		return nil
	}
	for i, c := range l.Columns {
		if err := add(names[i], c.Field, c.Kind, c.Repeated); err != nil {
			return nil, err
		}
	}
	for _, m := range []struct {
		name  string
		field int32
		kind  Kind
	}{
		{"_version", l.VersionField, Text}, {"_synced_at", l.SyncedAtField, Timestamp}, {"_deleted", l.DeletedField, Bool},
	} {
		if m.field == 0 {
			continue
		}
		if err := add(m.name, m.field, m.kind, false); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// inJSON says whether appendJSONValue knows the kind.
func (k Kind) inJSON() bool {
	switch k {
	case Bool, Int2, Int4, Int8, Float4, Float8, Numeric, BigNumeric, Text, JSON, JSONB, Bytes, UUID, Date, Time,
		DateTime, Timestamp, IntervalText, Interval, NumericInt, NumericFloat, JSONText, Geography:
		return true
	default:
		return false
	}
}

// JSONLineError says that a row cannot be a line of JSON that BigQuery loads as what the row is.
type JSONLineError struct {
	Column int    // index in Layout.Columns; -1 when the whole row is meant
	Reason Reason // NullElement: a JSON null in an array of JSON; RowTooLarge: a line over BigQuery's 100 MB
}

// Error implements error.
func (e *JSONLineError) Error() string {
	if e.Column < 0 {
		return fmt.Sprintf("writing JSON line: %v", e.Reason)
	}
	return fmt.Sprintf("writing JSON line: column %d: %v", e.Column, e.Reason)
}

// Append appends the line of one row, with its newline. If it returns an error it appended nothing: a *JSONLineError for
// a row that has no such line; any other means that the bytes are not a row of the layout.
func (j *JSONLines) Append(dst, row []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, '{')
	next := 0        // of fields: they come in their order
	inArray := false // of the field before next
	for len(row) > 0 {
		tag, n := binary.Uvarint(row)
		if n <= 0 {
			return dst[:start], errNotRow(-1, "a tag is cut off")
		}
		row = row[n:]
		if inArray && tag == j.fields[next-1].tag {
			dst = append(dst, ',')
		} else {
			if inArray {
				dst = append(dst, ']')
			}
			for next < len(j.fields) && j.fields[next].tag != tag {
				next++
			}
			if next == len(j.fields) {
				return dst[:start], errNotRow(-1, fmt.Sprintf("tag %d is unknown or out of order", tag))
			}
			f := &j.fields[next]
			if next++; len(dst) > start+1 {
				dst = append(dst, ',')
			}
			dst = append(dst, f.key...)
			if inArray = f.repeated; inArray {
				dst = append(dst, '[')
			}
		}
		var err error
		if dst, row, err = j.appendField(dst, row, next-1); err != nil {
			return dst[:start], err
		}
	}
	if inArray {
		dst = append(dst, ']')
	}
	dst = append(dst, '}', '\n')
	if len(dst)-start > maxJSONLine {
		return dst[:start], &JSONLineError{Column: -1, Reason: RowTooLarge}
	}
	return dst, nil
}

func errNotRow(field int, problem string) error {
	if field < 0 {
		return fmt.Errorf("writing JSON line: row is not of the layout: %s", problem)
	}
	return fmt.Errorf("writing JSON line: row is not of the layout: field %d: %s", field, problem)
}

// appendField takes the value of one field off the row and appends it.
func (j *JSONLines) appendField(dst, row []byte, field int) (to, rest []byte, err error) {
	f := &j.fields[field]
	switch f.kind.wire() {
	case wireVarint:
		v, n := binary.Uvarint(row)
		if n <= 0 {
			return dst, row, errNotRow(field, "a number is cut off")
		}
		dst, ok := f.appendVarint(dst, int64(v))
		if !ok {
			return dst, row, errNotRow(field, "a number is out of range of "+f.kind.String())
		}
		return dst, row[n:], nil
	case wireFixed64:
		if len(row) < 8 {
			return dst, row, errNotRow(field, "a double is cut off")
		}
		return appendJSONFloat(dst, math.Float64frombits(binary.LittleEndian.Uint64(row))), row[8:], nil
	default:
		size, n := binary.Uvarint(row)
		if n <= 0 || size > uint64(len(row)-n) {
			return dst, row, errNotRow(field, "bytes are cut off")
		}
		v, rest := row[n:n+int(size)], row[n+int(size):]
		dst, err = f.appendBytes(dst, v, field)
		return dst, rest, err
	}
}

// appendVarint appends the value of a kind that is a varint on the wire, or says that the kind does not have it.
func (f *jsonField) appendVarint(dst []byte, v int64) ([]byte, bool) {
	switch f.kind {
	case Bool:
		if v == 1 {
			return append(dst, "true"...), true
		}
		return append(dst, "false"...), v == 0
	case Date:
		if v < minDays || v > maxDays {
			return dst, false
		}
		return append(appendDate(append(dst, '"'), v), '"'), true
	case Timestamp:
		if v < minMicros || v > maxMicros {
			return dst, false
		}
		return append(appendDateTime(append(dst, '"'), v), " UTC\""...), true
	default: // integers
		return append(strconv.AppendInt(append(dst, '"'), v, 10), '"'), true
	}
}

// appendBytes appends the value of a kind that is length-delimited on the wire.
func (f *jsonField) appendBytes(dst, v []byte, field int) ([]byte, error) {
	switch f.kind {
	case Bytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v), '"'), nil
	case JSON, JSONB, JSONText:
		v = bytes.Trim(v, " \t\r\n")
		if len(v) == 0 {
			return dst, errNotRow(field, "an empty text is not JSON")
		}
		if f.repeated && string(v) == "null" {
			// "The array itself cannot contain null values" (BigQuery: details of loading JSON data).
			return dst, &JSONLineError{Column: field, Reason: NullElement}
		}
		return appendOneLine(dst, v), nil
	case Interval:
		dst, ok := appendJSONInterval(dst, v)
		if !ok {
			return dst, errNotRow(field, "a text is not an INTERVAL")
		}
		return dst, nil
	default:
		return appendJSONString(dst, v), nil
	}
}

// appendJSONInterval appends an INTERVAL, "Y-M D H:M:S.F" with a sign before each of the three parts, in the ISO 8601
// format that load jobs ask for, in which each number has its own sign.
func appendJSONInterval(b, v []byte) ([]byte, bool) {
	const units, between = "YMDHMS", "-  ::"
	b = append(b, '"', 'P')
	negative := false
	for i := range len(units) {
		if units[i] == 'H' {
			b = append(b, 'T')
		}
		if units[i] != 'M' && units[i] != 'S' { // a part begins
			if negative = len(v) > 0 && v[0] == '-'; negative {
				v = v[1:]
			}
		}
		end := 0
		for end < len(v) && (v[end] >= '0' && v[end] <= '9' || v[end] == '.' && units[i] == 'S' && end > 0) {
			end++
		}
		last := i == len(between)
		if end == 0 || last != (end == len(v)) || !last && v[end] != between[i] {
			return b, false
		}
		if negative && len(bytes.Trim(v[:end], "0.")) > 0 {
			b = append(b, '-')
		}
		b = append(append(b, v[:end]...), units[i])
		v = v[min(end+1, len(v)):]
	}
	return append(b, '"'), true
}

// appendJSONFloat appends the shortest text that reads back as f. Negative zero gets a fraction: "-0" is an integer,
// whose sign a reader may drop.
func appendJSONFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	case f == 0 && math.Signbit(f):
		return append(b, "-0.0"...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

// appendOneLine appends JSON text with line breaks made spaces: JSON has none inside of strings.
func appendOneLine(b, v []byte) []byte {
	at := len(b)
	b = append(b, v...)
	for _, lineBreak := range [...]byte{'\n', '\r'} {
		for rest := b[at:]; ; {
			i := bytes.IndexByte(rest, lineBreak)
			if i < 0 {
				break
			}
			rest[i] = ' '
			rest = rest[i+1:]
		}
	}
	return b
}

// appendJSONString appends UTF-8 text as a JSON string.
func appendJSONString(b, v []byte) []byte {
	b = append(b, '"')
	for {
		i := nextEscaped(v)
		b = append(b, v[:i]...)
		if i == len(v) {
			return append(b, '"')
		}
		switch ch := v[i]; ch {
		case '"', '\\':
			b = append(b, '\\', ch)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[ch>>4], hexDigits[ch&15])
		}
		v = v[i+1:]
	}
}

// nextEscaped returns the index of the first byte that a JSON string cannot have as it is: a quote, a backslash or a
// control character; the length of v if there is none. It looks at eight bytes at a time.
func nextEscaped(v []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(v); i += 8 {
		w := binary.LittleEndian.Uint64(v[i:])
		q, e := w^ones*'"', w^ones*'\\'
		// As in nextSpecial the lowest such bit is always a true one: x-n borrows from a byte only above a true one.
		if m := ((q-ones)&^q | (e-ones)&^e | (w-ones*' ')&^w) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(v); i++ {
		if v[i] == '"' || v[i] == '\\' || v[i] < ' ' {
			return i
		}
	}
	return i
}

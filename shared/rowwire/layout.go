package rowwire

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Kind says how the COPY bytes of one column become a BigQuery value.
type Kind uint8

// The kinds, each with the PostgreSQL type it reads and the BigQuery type (and protocol-buffer type) it writes.
const (
	Bool         Kind = iota + 1 // boolean to BOOL (varint)
	Int2                         // smallint to INT64 (int64 varint)
	Int4                         // integer to INT64 (int64 varint)
	Int8                         // bigint to INT64 (int64 varint)
	Float4                       // real to FLOAT64 (double), widened exactly; NaN and infinities kept
	Float8                       // double precision to FLOAT64 (double); NaN and infinities kept
	Numeric                      // numeric to NUMERIC (string): at most 29 integer and 9 fractional digits
	BigNumeric                   // numeric to BIGNUMERIC (string): within [-2^255, 2^255) units of 10^-38
	Text                         // text, varchar, bpchar, name, enum, or anything selected as ::text, to STRING
	JSON                         // json to JSON (string)
	JSONB                        // jsonb (version byte, then text) to JSON (string)
	Bytes                        // bytea to BYTES
	UUID                         // uuid to STRING, lower case with hyphens
	Date                         // date to DATE (int32 varint, days since the Unix epoch)
	Time                         // time without time zone to TIME (string)
	DateTime                     // timestamp without time zone to DATETIME (string)
	Timestamp                    // timestamptz to TIMESTAMP (int64 varint, microseconds since the Unix epoch)
	IntervalText                 // interval to STRING, as PostgreSQL writes it in the ISO 8601 style
	Interval                     // interval to INTERVAL (string): within 10,000 years, 3,660,000 days and 87,840,000 hours
	NumericInt                   // numeric to INT64 (int64 varint): whole numbers of 64 bits
	NumericFloat                 // numeric to FLOAT64 (double): what the nearest float64 prints as, NaN and infinities
	JSONText                     // text that should be JSON to JSON (string)
	Geography                    // the extended well-known text of PostGIS to GEOGRAPHY (string): flat shapes of SRID 4326

	lastKind = Geography
	hashed   = lastKind + 1 // Text of a column with a HashKey
)

// String returns the kind's name as it is written in Go.
func (k Kind) String() string {
	names := [...]string{
		"invalid", "Bool", "Int2", "Int4", "Int8", "Float4", "Float8", "Numeric", "BigNumeric", "Text", "JSON",
		"JSONB", "Bytes", "UUID", "Date", "Time", "DateTime", "Timestamp", "IntervalText", "Interval", "NumericInt",
		"NumericFloat", "JSONText", "Geography", "hashed Text",
	}
	if int(k) >= len(names) {
		return names[0]
	}
	return names[k]
}

// Column is one column of the COPY, in the order of its SELECT list.
type Column struct {
	Name     string // for error texts only
	Kind     Kind
	Repeated bool  // a one-dimensional array of Kind; a NULL array has no elements, as BigQuery has no NULL array
	Field    int32 // protocol-buffer field number
	// HashKey, where there is one, has each value of a Text column carried as the HMAC-SHA256 of its bytes under this
	// key, in lower-case hex; NULL stays NULL.
	HashKey []byte
}

// Granularity is the width of a time partition.
type Granularity uint8

// BigQuery's granularities of time partitions.
const (
	Hour Granularity = iota + 1
	Day
	Month
	Year
)

// Partition names the column that places a row in a time partition.
type Partition struct {
	Column      int // index in Layout.Columns; its kind is Date, DateTime or Timestamp
	Granularity Granularity
	// Earliest and Latest bound, both inclusive, what BigQuery accepts into partitions as a stream. A row outside is
	// rejected with OutsidePartitionWindow. DATE and DATETIME values are read as UTC; a DATE is inside when its
	// day overlaps the window. A zero time means no bound.
	Earliest, Latest time.Time
}

// Layout is everything that is fixed for one read.
type Layout struct {
	Columns []Column

	// VersionField, SyncedAtField and DeletedField are the field numbers of _version (STRING), _synced_at
	// (TIMESTAMP) and _deleted (BOOL, as Transcoder.Deleted says). 0 leaves the field out.
	VersionField, SyncedAtField, DeletedField int32
	// SequenceField and ChangeField are the field numbers of BigQuery's change data capture, 0 to leave them out:
	// _CHANGE_SEQUENCE_NUMBER, which repeats _version, and _CHANGE_TYPE, which is UPSERT, or DELETE of a tombstone if
	// DeleteTombstones is set.
	SequenceField, ChangeField int32
	DeleteTombstones           bool
	// VersionPrefix is the part of _version that all rows share; the position of the row, from 0, follows as 8
	// lower-case hex digits. It counts on over COPYs and single rows; rejected rows have a position too, so positions
	// of accepted rows only increase.
	VersionPrefix string
	// SyncedAt is the value of _synced_at, in microseconds since the Unix epoch.
	SyncedAt int64

	// KeepLast makes Transcoder.Last available, at the price of one copy per row.
	KeepLast bool

	Partition *Partition // nil: the table is not partitioned by a column's time

	// MaxRow is the largest encoded row in bytes; a larger one is rejected with RowTooLarge. 0 means DefaultMaxRow.
	MaxRow int
	// BatchBytes and BatchRows bound a batch: it never holds more rows than BatchRows, nor more bytes than
	// BatchBytes unless it is a single row. 0 means DefaultBatchBytes and DefaultBatchRows.
	BatchBytes, BatchRows int
}

// What a Layout means by zero. A request of the Storage Write API may have 10 MB, so that a batch of either limit fits
// in one with room for its envelope.
const (
	DefaultMaxRow     = 9_500_000
	DefaultBatchBytes = 1 << 20
	DefaultBatchRows  = 1 << 16
)

// Protocol-buffer wire types.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
)

// column is a Column made ready for the hot path.
type column struct {
	tag      uint64 // the encoded tag, first byte lowest
	tagLen   int
	kind     Kind
	repeated bool
	hash     *keyedHash // of kind hashed
}

// encodeTag returns the tag's varint bytes, first byte lowest, and how many they are.
func encodeTag(field int32, wire uint64) (uint64, int) {
	var b [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(b[:], uint64(uint32(field))<<3|wire)
	return binary.LittleEndian.Uint64(b[:8]), n
}

func (k Kind) wire() uint64 {
	switch k {
	case Bool, Int2, Int4, Int8, Date, Timestamp, NumericInt:
		return wireVarint
	case Float4, Float8, NumericFloat:
		return wireFixed64
	default:
		return wireBytes
	}
}

// compile checks the layout and prepares its columns.
func (l *Layout) compile() ([]column, error) {
	if len(l.Columns) == 0 || len(l.Columns) > 1<<15-1 {
		return nil, fmt.Errorf("checking layout: %d columns, want 1 to %d", len(l.Columns), 1<<15-1)
	}
	taken := make(map[int32]string, len(l.Columns)+3)
	cols := make([]column, len(l.Columns))
	for i, c := range l.Columns {
		if c.Kind < Bool || c.Kind > lastKind {
			return nil, fmt.Errorf("checking layout: column %q has invalid kind %d", c.Name, c.Kind)
		}
		if err := takeField(taken, c.Field, c.Name); err != nil {
			return nil, err
		}
		tag, n := encodeTag(c.Field, c.Kind.wire())
		cols[i] = column{tag: tag, tagLen: n, kind: c.Kind, repeated: c.Repeated}
		if c.HashKey == nil {
			continue
		}
		if c.Kind != Text || len(c.HashKey) == 0 {
			return nil, fmt.Errorf("checking layout: column %q of kind %v cannot be hashed, or its key is empty", c.Name, c.Kind)
		}
		cols[i].kind, cols[i].hash = hashed, newKeyedHash(c.HashKey)
	}
	for name, field := range map[string]int32{
		"_version": l.VersionField, "_synced_at": l.SyncedAtField, "_deleted": l.DeletedField,
		"_CHANGE_SEQUENCE_NUMBER": l.SequenceField, "_CHANGE_TYPE": l.ChangeField,
	} {
		if field == 0 {
			continue
		}
		if err := takeField(taken, field, name); err != nil {
			return nil, err
		}
	}
	if l.MaxRow < 0 || l.BatchBytes < 0 || l.BatchRows < 0 {
		return nil, fmt.Errorf("checking layout: negative limit")
	}
	return cols, nil
}

// takeField refuses a field number that protocol buffers do not allow or that two columns share.
func takeField(taken map[int32]string, field int32, name string) error {
	if field < 1 || field > 1<<29-1 || field >= 19000 && field <= 19999 {
		return fmt.Errorf("checking layout: column %q has invalid field number %d", name, field)
	}
	if other, ok := taken[field]; ok {
		return fmt.Errorf("checking layout: columns %q and %q share field number %d", other, name, field)
	}
	taken[field] = name
	return nil
}

// metadata is the encoded form of the fields that all rows share, and where in it the parts are that differ (-1: nowhere).
type metadata struct {
	encoded    []byte
	positionAt [2]int // of the row's position in _version and in the sequence number
	deletedAt  int    // of the value of _deleted
	changeAt   int    // of the change type, if tombstones have another
}

// The change types have one length.
const changeUpsert, changeDelete = "UPSERT", "DELETE"

func (l *Layout) metadata() metadata {
	m := metadata{positionAt: [2]int{-1, -1}, deletedAt: -1, changeAt: -1}
	b := m.encoded
	for i, field := range []int32{l.VersionField, l.SequenceField} {
		if field != 0 {
			b = appendMetaText(b, field, l.VersionPrefix+"00000000")
			m.positionAt[i] = len(b) - positionDigits
		}
	}
	if l.SyncedAtField != 0 {
		b = binary.AppendUvarint(b, uint64(uint32(l.SyncedAtField))<<3|wireVarint)
		b = binary.AppendUvarint(b, uint64(l.SyncedAt))
	}
	if l.DeletedField != 0 {
		b = binary.AppendUvarint(b, uint64(uint32(l.DeletedField))<<3|wireVarint)
		m.deletedAt = len(b)
		b = append(b, 0)
	}
	if l.ChangeField != 0 {
		b = appendMetaText(b, l.ChangeField, changeUpsert)
		if l.DeleteTombstones {
			m.changeAt = len(b) - len(changeUpsert)
		}
	}
	m.encoded = b
	return m
}

func appendMetaText(b []byte, field int32, text string) []byte {
	b = binary.AppendUvarint(b, uint64(uint32(field))<<3|wireBytes)
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

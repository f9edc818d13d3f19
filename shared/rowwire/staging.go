package rowwire

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
)

// How BigQuery marks a JSON column, which Arrow carries as text.
const (
	extensionName = "ARROW:extension:name"
	jsonExtension = "google:sqlType:json"
)

// maxDecimalScale is the largest scale of an Arrow decimal256.
const maxDecimalScale = 76

// Object identifiers of PostgreSQL's element types (pg_type.dat): an array names its element's.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidText        = 25
	oidFloat8      = 701
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidJSONB       = 3802
)

// UnsupportedTypeError says that a column's Arrow type has no PostgreSQL type to be staged as.
type UnsupportedTypeError struct {
	Column string
	Type   string // the Arrow type
}

// Error implements error.
func (e *UnsupportedTypeError) Error() string {
	return fmt.Sprintf("staging column %q: Arrow type %s cannot be written to PostgreSQL", e.Column, e.Type)
}

// staging is how one Arrow column is written.
type staging struct {
	kind  Kind
	name  string // the PostgreSQL type, of the element if list
	oid   uint32 // of name
	scale int32  // of a decimal
	list  bool
}

// StagingType returns the PostgreSQL column type that a CopyWriter writes an Arrow field as: int64 bigint, float64
// double precision, utf8 text (jsonb with BigQuery's JSON extension name), binary bytea, bool boolean, date32 date,
// time64[us] time, timestamp[us] timestamptz with a zone and timestamp without, decimal128 and decimal256 numeric, and
// a list of one of these an array. Any other type is an *UnsupportedTypeError.
func StagingType(field arrow.Field) (string, error) {
	s, err := stagingOf(field)
	if err != nil {
		return "", err
	}
	if s.list {
		return s.name + "[]", nil
	}
	return s.name, nil
}

func stagingOf(field arrow.Field) (staging, error) {
	isJSON := isJSONField(field)
	element, isList := field.Type.(*arrow.ListType)
	dataType := field.Type
	if isList {
		dataType = element.Elem()
		isJSON = isJSON || isJSONField(element.ElemField())
	}
	s, ok := scalarStaging(dataType, isJSON)
	if !ok {
		return staging{}, &UnsupportedTypeError{Column: field.Name, Type: field.Type.String()}
	}
	s.list = isList
	return s, nil
}

func isJSONField(field arrow.Field) bool {
	name, ok := field.Metadata.GetValue(extensionName)
	return ok && name == jsonExtension
}

func scalarStaging(dataType arrow.DataType, isJSON bool) (s staging, ok bool) {
	switch d := dataType.(type) {
	case *arrow.Int64Type:
		return staging{kind: Int8, name: "bigint", oid: oidInt8}, true
	case *arrow.Float64Type:
		return staging{kind: Float8, name: "double precision", oid: oidFloat8}, true
	case *arrow.StringType:
		if isJSON {
			return staging{kind: JSONB, name: "jsonb", oid: oidJSONB}, true
		}
		return staging{kind: Text, name: "text", oid: oidText}, true
	case *arrow.BinaryType:
		return staging{kind: Bytes, name: "bytea", oid: oidBytea}, true
	case *arrow.BooleanType:
		return staging{kind: Bool, name: "boolean", oid: oidBool}, true
	case *arrow.Date32Type:
		return staging{kind: Date, name: "date", oid: oidDate}, true
	case *arrow.Time64Type:
		return staging{kind: Time, name: "time", oid: oidTime}, d.Unit == arrow.Microsecond
	case *arrow.TimestampType:
		if d.TimeZone == "" {
			return staging{kind: DateTime, name: "timestamp", oid: oidTimestamp}, d.Unit == arrow.Microsecond
		}
		return staging{kind: Timestamp, name: "timestamptz", oid: oidTimestamptz}, d.Unit == arrow.Microsecond
	case *arrow.Decimal128Type:
		return staging{kind: Numeric, name: "numeric", oid: oidNumeric, scale: d.Scale}, d.Scale >= 0 && d.Scale <= maxDecimalScale
	case *arrow.Decimal256Type:
		return staging{kind: BigNumeric, name: "numeric", oid: oidNumeric, scale: d.Scale}, d.Scale >= 0 && d.Scale <= maxDecimalScale
	default:
		return staging{}, false
	}
}

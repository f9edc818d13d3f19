package rowwire

import "fmt"

// Reason says why a row cannot be carried exactly.
type Reason uint8

// The reasons for which a row is rejected.
const (
	NumericNaN             Reason = iota + 1 // numeric NaN
	NumericInfinity                          // numeric Infinity or -Infinity
	NumericRange                             // too many integer digits for NUMERIC, or outside BIGNUMERIC's range
	NumericScale                             // non-zero digits beyond the scale of NUMERIC (9) or BIGNUMERIC (38)
	TemporalInfinity                         // infinity or -infinity as date or timestamp
	YearRange                                // a date or timestamp outside years 1 to 9999
	EndOfDay                                 // time 24:00:00
	NullElement                              // a NULL element in an array
	MultiDimensional                         // an array of more than one dimension
	JSONNumber                               // a JSON number that neither 64-bit integers nor float64 hold exactly
	JSONSurrogate                            // an unpaired surrogate escape in JSON
	JSONNul                                  // the escape of U+0000 in JSON
	JSONDepth                                // JSON nested deeper than 500
	JSONDuplicateKey                         // a JSON object with the same key twice
	InvalidUTF8                              // text that is not UTF-8
	OutsidePartitionWindow                   // a partition that takes no streamed rows
	RowTooLarge                              // the encoded row exceeds Layout.MaxRow
	NulByte                                  // text with a NUL byte, which PostgreSQL cannot store
	TemporalRange                            // a date, time or timestamp that PostgreSQL cannot store
	InvalidJSON                              // text of a JSON column that is not JSON
	ValueTooLarge                            // a row over PostgreSQL's limit of 1 GB
	ShiftedArray                             // an array whose first subscript is not 1
	InexactFloat                             // a number that FLOAT64 would not keep to its last digit
	IntervalRange                            // an interval beyond what INTERVAL holds
	GeographySRID                            // a shape that is not of SRID 4326 (WGS 84)
	GeographyShape                           // a shape with Z or M, a curve, a surface, or a coordinate that is no number
	GeographyRange                           // a longitude outside -180 to 180 or a latitude outside -90 to 90

	// malformed never leaves the package: it becomes a *FormatError.
	malformed Reason = 255
)

// String returns a sentence for people: what is wrong, and with what limit.
func (r Reason) String() string {
	switch r {
	case NumericNaN:
		return "numeric NaN has no BigQuery value"
	case NumericInfinity:
		return "numeric infinity has no BigQuery value"
	case NumericRange:
		return "numeric value is outside the range of the BigQuery type"
	case NumericScale:
		return "numeric value has more fractional digits than the BigQuery type keeps"
	case TemporalInfinity:
		return "infinite date or timestamp has no BigQuery value"
	case YearRange:
		return "date or timestamp is outside years 1 to 9999"
	case EndOfDay:
		return "time 24:00:00 has no BigQuery value"
	case NullElement:
		return "array has a NULL element, which a REPEATED column cannot hold"
	case MultiDimensional:
		return "array has more than one dimension, which a REPEATED column cannot hold"
	case JSONNumber:
		return "JSON has a number that BigQuery would not keep exactly"
	case JSONSurrogate:
		return "JSON has an unpaired surrogate escape"
	case JSONNul:
		return `JSON has the escape \u0000`
	case JSONDepth:
		return "JSON is nested deeper than 500"
	case JSONDuplicateKey:
		return "JSON has an object with the same key twice"
	case InvalidUTF8:
		return "text is not valid UTF-8"
	case OutsidePartitionWindow:
		return "row belongs to a partition outside the window that takes streamed rows"
	case RowTooLarge:
		return "encoded row is larger than a request may be"
	case NulByte:
		return "text has a NUL byte, which PostgreSQL cannot store"
	case TemporalRange:
		return "date, time or timestamp is outside what PostgreSQL can store"
	case InvalidJSON:
		return "text of a JSON column is not JSON"
	case ValueTooLarge:
		return "row is larger than PostgreSQL can take"
	case ShiftedArray:
		return "array does not begin at subscript 1, which a REPEATED column would not tell"
	case InexactFloat:
		return "number is not one that FLOAT64 keeps to the last digit"
	case IntervalRange:
		return "interval is beyond 10000 years, 3660000 days or 87840000 hours"
	case GeographySRID:
		return "shape is not of SRID 4326"
	case GeographyShape:
		return "shape is not made of points, lines and polygons with a longitude and a latitude each"
	case GeographyRange:
		return "shape has a longitude outside -180 to 180 or a latitude outside -90 to 90"
	default:
		return fmt.Sprintf("reason %d", uint8(r))
	}
}

// Reject is a row that was left out, and why.
type Reject struct {
	Row    int64 // position of the row, from 0, as in its version
	Column int   // index in Layout.Columns; -1 when the whole row is meant
	Reason Reason
	Tuple  [][]byte // the row's COPY field bytes, nil for NULL; valid only during the call
}

// FormatError says that the bytes are not COPY binary data of the layout: truncated, of another shape, or with a field
// that its type cannot have. The stream cannot be read any further.
type FormatError struct {
	Row     int64 // position of the row, from 0
	Column  int   // index of the column; -1 outside a column
	Problem string
}

// Error implements error.
func (e *FormatError) Error() string {
	if e.Column < 0 {
		return fmt.Sprintf("reading COPY data: row %d: %s", e.Row, e.Problem)
	}
	return fmt.Sprintf("reading COPY data: row %d, column %d: %s", e.Row, e.Column, e.Problem)
}

package warehouse

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// By a cursor a run takes the rows whose cursor is the greatest that was met, or greater,
// or NULL: a value may be shared by rows that come later. With a look-back it takes those
// that are up to so much smaller, too. The bound is a constant, so that BigQuery leaves
// alone the partitions of a table below it.

// cursorColumn is what the cursor is called while it is read.
const cursorColumn = "_tidemark_cursor"

// cursorPosition is a place in the order of a cursor's values.
type cursorPosition struct {
	Origin string             `json:"origin"`
	Type   bigquery.FieldType `json:"type"`
	Cursor int64              `json:"cursor"` // microseconds since 1970, days of a DATE, or the number
}

// futureMargin is how far ahead of BigQuery's clock a cursor may be and still be believed:
// clocks differ, and a DATETIME or a DATE may be of any time zone.
const futureMargin = 24 * time.Hour

func (c *Client) selectCursor(ctx context.Context, s Source, take Take) (*Result, error) {
	body, err := s.body()
	if err != nil {
		return nil, err
	}
	checked, err := c.check(ctx, &s)
	if err != nil {
		return nil, err
	}
	if err := s.checkTypes(checked.schema); err != nil {
		return nil, err
	}
	typ, err := cursorType(checked.schema, s.Cursor)
	if err != nil {
		return nil, err
	}
	read := &cursorRead{origin: s.origin(), typ: typ}
	var after *cursorPosition
	if at, ok := readPosition[cursorPosition](take.After); ok && at.Origin == read.origin && at.Type == typ {
		after = at
	}
	where, parameters := s.only(take)
	switch {
	case take.Only:
		read.before, read.still = take.After, true
	case after != nil && !take.All:
		where, parameters = s.since(*after, take)
		read.greatest, read.met = after.Cursor, true // it never falls, but with a read of every row
	}
	r, done, err := c.query(ctx, s.statement(s.selectSQL(body, ", "+sourceAlias+"."+quote(s.Cursor)+" AS "+cursorColumn)+where, parameters))
	if err != nil {
		return r, err
	}
	r.Whole = where == ""
	read.believed = typeBound(typ, done.status.Statistics.StartTime.Add(futureMargin))
	r.cursor = read
	r.Schema = arrow.NewSchema(r.wire.Fields()[:r.wire.NumFields()-1], nil)
	return r, nil
}

// since is the condition of the rows after a position.
func (s *Source) since(at cursorPosition, take Take) (where string, parameters []bigquery.QueryParameter) {
	column := sourceAlias + "." + quote(s.Cursor)
	where = fmt.Sprintf(" WHERE %s >= @from OR %s IS NULL", column, column)
	parameters = []bigquery.QueryParameter{{Name: "from", Value: at.from(s.Lookback)}}
	if len(take.Rejected) > 0 {
		where += " OR " + rejectedSQL(fingerprintSQL(sourceAlias, s.Key))
		parameters = append(parameters, rejectedParameter(take)...)
	}
	return where, parameters
}

// firstTime is the first that BigQuery's dates and times have.
//
//nolint:gochecknoglobals // a constant that Go has none of
var firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)

// from is the least value of the cursor that is read again.
func (p cursorPosition) from(lookback time.Duration) any {
	if p.Type == bigquery.IntegerFieldType {
		return p.Cursor
	}
	at := time.UnixMicro(p.Cursor).UTC()
	if p.Type == bigquery.DateFieldType {
		at = time.Unix(p.Cursor*int64(24*time.Hour/time.Second), 0).UTC()
	}
	if at = at.Add(-lookback); at.Before(firstTime) {
		at = firstTime
	}
	switch p.Type { //nolint:exhaustive // those that a cursor has
	case bigquery.DateFieldType:
		return civil.DateOf(at)
	case bigquery.DateTimeFieldType:
		return civil.DateTimeOf(at)
	}
	return at
}

//nolint:gochecknoglobals // a list, never written
var cursorTypes = []bigquery.FieldType{bigquery.TimestampFieldType, bigquery.DateTimeFieldType, bigquery.DateFieldType, bigquery.IntegerFieldType}

// cursorType is the type of the column, or why it can be no cursor.
func cursorType(schema bigquery.Schema, name string) (bigquery.FieldType, error) {
	f := field(schema, name)
	if f == nil {
		return "", fault.Fix(fmt.Errorf("the source has no column %q, which is the cursor", name), "select it in the query, or correct cursor")
	}
	if slices.Contains(cursorTypes, f.Type) && !f.Repeated {
		return f.Type, nil
	}
	return "", fault.Fix(fmt.Errorf("column %s is %s, which cannot be a cursor", f.Name, describe(f)), "choose a TIMESTAMP, DATETIME, DATE or INT64 that grows with every change, or changes: ledger")
}

// typeBound is the greatest value of a cursor that is believed at a time.
func typeBound(typ bigquery.FieldType, at time.Time) *int64 {
	bound := at.UnixMicro()
	if typ == bigquery.IntegerFieldType {
		return nil
	}
	if typ == bigquery.DateFieldType {
		bound = at.Unix() / int64(24*time.Hour/time.Second)
	}
	return &bound
}

// readPosition reads what Result.Next once returned; one that is another's is none.
func readPosition[T any](kept json.RawMessage) (*T, bool) {
	at := new(T)
	if len(kept) == 0 || json.Unmarshal(kept, at) != nil {
		return nil, false
	}
	return at, true
}

// cursorRead watches the cursor of the rows that are read.
type cursorRead struct {
	origin   string
	typ      bigquery.FieldType
	before   json.RawMessage // what to keep where this run meets none, or is
	still    bool            // not to move it
	believed *int64          // the greatest value that is, nil for any
	greatest int64
	met      bool // greatest is one
}

// watch takes the cursor, the last column, out of the records that f is given. A value
// ahead of its time is not met: it would hide every row until then.
func (c *cursorRead) watch(schema *arrow.Schema, f func(arrow.Record) error) func(arrow.Record) error {
	return func(record arrow.Record) error {
		columns := record.Columns()
		last := len(columns) - 1
		if err := c.meet(columns[last]); err != nil {
			return err
		}
		given := array.NewRecord(schema, columns[:last], record.NumRows())
		defer given.Release()
		return f(given)
	}
}

func (c *cursorRead) meet(values arrow.Array) error {
	for i := range values.Len() {
		if values.IsNull(i) {
			continue
		}
		var v int64
		switch values := values.(type) {
		case *array.Int64:
			v = values.Value(i)
		case *array.Timestamp:
			v = int64(values.Value(i))
		case *array.Date32:
			v = int64(values.Value(i))
		default:
			return fmt.Errorf("reading the cursor: it came as %s", values.DataType())
		}
		if c.believed != nil && v > *c.believed || c.met && v <= c.greatest {
			continue
		}
		c.greatest, c.met = v, true
	}
	return nil
}

// next is the place of the greatest value that was met.
func (c *cursorRead) next() json.RawMessage {
	if c.still || !c.met {
		return c.before
	}
	out, err := json.Marshal(cursorPosition{c.origin, c.typ, c.greatest})
	if err != nil { // text and numbers
		return c.before
	}
	return out
}

func field(schema bigquery.Schema, name string) *bigquery.FieldSchema {
	for _, f := range schema {
		if strings.EqualFold(f.Name, name) {
			return f
		}
	}
	return nil
}

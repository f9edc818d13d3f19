package bigquery

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/duckdb/duckdb-go/v2"
)

// maxPageBytes is where BigQuery ends a page of rows.
const maxPageBytes = 10 << 20

// restRow is bq.TableRow with the null values and empty arrays that its
// encoder would leave out.
type restRow struct {
	F []restCell `json:"f"`
}

type restCell struct {
	V any `json:"v"`
}

// rowPage is a page of a table's rows as REST answers them.
type rowPage struct {
	rows  []restRow
	total int64
	next  string // page token, empty for the last page
}

// readPage reads rows from an index on: at most limit rows and some 10 MB.
func (s *Server) readPage(ctx context.Context, t *table, from, limit int64, style timestampStyle) (rowPage, error) {
	var p rowPage
	if err := s.store.scalar(ctx, "SELECT count(*) FROM "+t.real(), &p.total); err != nil {
		return rowPage{}, err
	}
	if limit == 0 || from >= p.total {
		return p, nil
	}
	fields := s.fieldsOf(t)
	query := fmt.Sprintf("SELECT %s FROM %s LIMIT %d OFFSET %d", readSQL(fields), t.real(), limit, from)
	rows, err := s.store.db.QueryContext(ctx, query)
	if err != nil {
		return rowPage{}, fmt.Errorf("reading %s: %w", t.id, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err is checked
	values, pointers := scanTargets(len(fields))
	size := 0
	for rows.Next() && size < maxPageBytes {
		if err := rows.Scan(pointers...); err != nil {
			return rowPage{}, fmt.Errorf("reading %s: %w", t.id, err)
		}
		row := restRow{F: make([]restCell, len(fields))}
		for i, f := range fields {
			cell, n, err := restValue(f, values[i], style)
			if err != nil {
				return rowPage{}, err
			}
			row.F[i].V = cell
			size += n
		}
		p.rows = append(p.rows, row)
	}
	if err := rows.Err(); err != nil {
		return rowPage{}, fmt.Errorf("reading %s: %w", t.id, err)
	}
	if end := from + int64(len(p.rows)); end < p.total {
		p.next = strconv.FormatInt(end, 10)
	}
	return p, nil
}

// timestampStyle says how TIMESTAMP is printed.
type timestampStyle bool

const (
	timestampFloat  timestampStyle = false // seconds, with an exponent
	timestampMicros timestampStyle = true  // formatOptions.useInt64Timestamp
)

func timestampStyleOf(r *http.Request) timestampStyle {
	return timestampStyle(r.URL.Query().Get("formatOptions.useInt64Timestamp") == "true")
}

// restValue is a value as the REST API prints it, and its rough size.
func restValue(f field, v any, style timestampStyle) (any, int, error) {
	switch {
	case f.repeated:
		elements, ok := v.([]any)
		if v != nil && !ok {
			return nil, 0, mismatch(false, f, v)
		}
		out, size := make([]restCell, len(elements)), 0
		for i, e := range elements {
			cell, n, err := restValue(f.element(), e, style)
			if err != nil {
				return nil, 0, err
			}
			out[i].V = cell
			size += n
		}
		return out, size, nil
	case v == nil:
		return nil, 4, nil
	case f.kind == kindStruct:
		return restStruct(f, v, style)
	}
	text, err := restScalar(f, v, style)
	return text, len(text), err
}

func restStruct(f field, v any, style timestampStyle) (any, int, error) {
	members, ok := v.(map[string]any)
	if !ok {
		return nil, 0, mismatch(false, f, v)
	}
	row, size := restRow{F: make([]restCell, len(f.fields))}, 0
	for i, m := range f.fields {
		cell, n, err := restValue(m, members[m.name], style)
		if err != nil {
			return nil, 0, err
		}
		row.F[i].V = cell
		size += n
	}
	return row, size, nil
}

func restScalar(f field, v any, style timestampStyle) (string, error) {
	switch x := v.(type) {
	case bool:
		return strconv.FormatBool(x), mismatch(f.kind == kindBool, f, v)
	case int64:
		return strconv.FormatInt(x, 10), mismatch(f.kind == kindInt64, f, v)
	case float64:
		return restFloat(x), mismatch(f.kind == kindFloat64, f, v)
	case string:
		return x, mismatch(f.kind == kindString || f.kind == kindJSON || f.kind == kindBigNumeric, f, v)
	case []byte:
		return base64.StdEncoding.EncodeToString(x), mismatch(f.kind == kindBytes, f, v)
	case duckdb.Decimal:
		return decimalOf(x), mismatch(f.kind == kindNumeric, f, v)
	case time.Time:
		return restTime(f, x, style)
	}
	return "", mismatch(false, f, v)
}

func restTime(f field, t time.Time, style timestampStyle) (string, error) {
	switch f.kind {
	case kindDate:
		return dateText(daysOf(t)), nil
	case kindTime:
		return timeText(clockOf(t)), nil
	case kindDatetime:
		return datetimeText(t.UnixMicro()), nil
	case kindTimestamp:
		if style == timestampMicros {
			return strconv.FormatInt(t.UnixMicro(), 10), nil
		}
		return strconv.FormatFloat(float64(t.UnixMicro())/microsPerSecond, 'E', -1, 64), nil
	case kindBigNumeric, kindBool, kindBytes, kindFloat64, kindInt64, kindJSON, kindNumeric, kindString, kindStruct:
	}
	return "", mismatch(false, f, t)
}

func restFloat(x float64) string {
	switch {
	case math.IsNaN(x):
		return "NaN"
	case math.IsInf(x, 1):
		return "Infinity"
	case math.IsInf(x, -1):
		return "-Infinity"
	case x == math.Trunc(x) && math.Abs(x) < 1e15:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'G', -1, 64)
}

// listTableData is tabledata.list.
func (s *Server) listTableData(r *http.Request) (any, error) {
	t, err := s.cat.lookup(pathTable(r))
	if err != nil {
		return nil, err
	}
	if t.isView() {
		return nil, errInvalid("Cannot list a table of type VIEW.")
	}
	if r.URL.Query().Get("selectedFields") != "" {
		return nil, errUnsupported("selectedFields of tabledata.list")
	}
	if err := s.settle(r.Context(), t); err != nil {
		return nil, err
	}
	from, limit, err := pageBounds(r)
	if err != nil {
		return nil, err
	}
	p, err := s.readPage(r.Context(), t, from, limit, timestampStyleOf(r))
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"kind": "bigquery#tableDataList", "totalRows": strconv.FormatInt(p.total, 10)}
	return p.addTo(answer), nil
}

func (p rowPage) addTo(answer map[string]any) map[string]any {
	if len(p.rows) > 0 {
		answer["rows"] = p.rows
	}
	if p.next != "" {
		answer["pageToken"] = p.next
	}
	return answer
}

// pageBounds reads where a page of rows starts and how many it may hold.
func pageBounds(r *http.Request) (from, limit int64, err error) {
	if from, err = queryInt(r, "startIndex", 0); err != nil {
		return 0, 0, err
	}
	if token := r.URL.Query().Get("pageToken"); token != "" {
		if from, err = strconv.ParseInt(token, 10, 64); err != nil || from < 0 {
			return 0, 0, errInvalid("Invalid page token: %q", token)
		}
	}
	limit, err = queryInt(r, "maxResults", math.MaxInt32)
	return from, limit, err
}

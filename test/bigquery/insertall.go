package bigquery

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	bq "google.golang.org/api/bigquery/v2"
	"google.golang.org/protobuf/types/descriptorpb"
)

// streamingBuffer is how long rows of insertAll refuse UPDATE, DELETE and MERGE.
// https://cloud.google.com/bigquery/docs/data-manipulation-language#limitations
const streamingBuffer = 30 * time.Minute

// streamedRows are rows of one insertAll, kept a second time in a table of
// their own, so that DML can be checked not to touch them.
type streamedRows struct {
	at     time.Time
	rows   int
	bytes  int
	shadow string // quoted DuckDB name
}

// buffered describes the streaming buffer, nil where it is empty; the caller
// holds the table's lock.
func (t *table) buffered(now time.Time) *bq.Streamingbuffer {
	var out bq.Streamingbuffer
	for _, r := range t.streamed {
		if now.Sub(r.at) >= streamingBuffer {
			continue
		}
		if out.OldestEntryTime == 0 {
			out.OldestEntryTime = uint64(r.at.UnixMilli())
		}
		out.EstimatedRows += uint64(r.rows)
		out.EstimatedBytes += uint64(r.bytes)
	}
	if out.EstimatedRows == 0 {
		return nil
	}
	return &out
}

func (s *Server) insertAll(r *http.Request) (any, error) {
	raw := struct {
		bq.TableDataInsertAllRequest
		Rows []struct {
			InsertID string                     `json:"insertId"`
			JSON     map[string]json.RawMessage `json:"json"`
		} `json:"rows"`
	}{}
	if _, err := readBody(r, &raw); err != nil {
		return nil, err
	}
	switch {
	case raw.SkipInvalidRows || raw.IgnoreUnknownValues:
		return nil, errUnsupported("skipInvalidRows and ignoreUnknownValues of insertAll")
	case raw.TemplateSuffix != "":
		return nil, errUnsupported("templateSuffix of insertAll")
	case len(raw.Rows) == 0:
		return nil, errInvalid("No rows present in the request.")
	}
	t, err := s.cat.lookup(pathTable(r))
	if err != nil {
		return nil, err
	}
	if t.isView() {
		return nil, errInvalid("Cannot add rows to a table of type VIEW.")
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	if t.changes.Load() != nil {
		return nil, errUnsupported("insertAll into a table that had UPSERT streams (%s)", t.id)
	}
	fields := s.fieldsOf(t)
	batch := newRowBatch(fields, len(raw.Rows))
	var bad []*bq.TableDataInsertAllResponseInsertErrors
	for i, row := range raw.Rows {
		err := decodeJSONRow(batch, i, row.JSON)
		if err == nil {
			err = t.part.checkStreamed(batch, i, s.now())
		}
		if err != nil {
			bad = append(bad, &bq.TableDataInsertAllResponseInsertErrors{
				Index: int64(i), ForceSendFields: []string{"Index"},
				Errors: []*bq.ErrorProto{{Reason: "invalid", Message: err.Error()}},
			})
		}
	}
	answer := &bq.TableDataInsertAllResponse{Kind: "bigquery#tableDataInsertAllResponse", InsertErrors: bad}
	if len(bad) > 0 {
		return answer, nil // without skipInvalidRows, a bad row keeps all out
	}
	return answer, s.keepStreamed(r.Context(), t, fields, batch, int(r.ContentLength))
}

func (s *Server) keepStreamed(ctx context.Context, t *table, fields []field, batch *rowBatch, size int) error {
	s.cat.mu.Lock()
	shadow := s.cat.physicalName(t.id)
	s.cat.mu.Unlock()
	quoted := quoteIdent(realSchema) + "." + quoteIdent(shadow)
	if err := s.store.exec(ctx, "CREATE TABLE "+quoted+" AS SELECT * FROM "+t.real()+" LIMIT 0"); err != nil {
		return err
	}
	if err := s.store.appendBatches(ctx, shadow, fields, []*rowBatch{batch}); err != nil {
		return err
	}
	if err := s.store.exec(ctx, "INSERT INTO "+t.real()+" SELECT * FROM "+quoted); err != nil {
		return err
	}
	s.noteAppend(t, int64(batch.rows))
	t.streamedAt = s.now()
	t.streamed = append(t.streamed, streamedRows{at: s.now(), rows: batch.rows, bytes: max(size, 0), shadow: quoted})
	s.touch(t)
	return nil
}

// streamedState counts, for every row still in the streaming buffer, the rows
// of the table that are equal to it.
func (s *Server) streamedState(ctx context.Context, conn *sql.Conn, t *table) (string, error) {
	var live []string
	kept := t.streamed[:0]
	for _, r := range t.streamed {
		if s.now().Sub(r.at) < streamingBuffer {
			kept = append(kept, r)
			live = append(live, "SELECT * FROM "+r.shadow)
			continue
		}
		if _, err := conn.ExecContext(ctx, "DROP TABLE "+r.shadow); err != nil {
			return "", duckError(err)
		}
	}
	t.streamed = kept
	if len(live) == 0 {
		return "", nil
	}
	return s.countStreamed(ctx, conn, t, strings.Join(live, " UNION ALL BY NAME "))
}

func (s *Server) countStreamed(ctx context.Context, conn *sql.Conn, t *table, buffered string) (string, error) {
	rows, err := conn.QueryContext(ctx, "SELECT CAST(r AS VARCHAR), count(*) FROM "+t.real()+" r WHERE CAST(r AS VARCHAR) IN (SELECT CAST(b AS VARCHAR) FROM ("+
		"(SELECT * FROM "+t.real()+" LIMIT 0) UNION ALL BY NAME "+buffered+") b) GROUP BY 1 ORDER BY 1")
	if err != nil {
		return "", duckError(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err is checked
	state := buffered
	for rows.Next() {
		var row string
		var n int64
		if err := rows.Scan(&row, &n); err != nil {
			return "", fmt.Errorf("counting the streaming buffer: %w", err)
		}
		state += "\x00" + row + "\x00" + strconv.FormatInt(n, 10)
	}
	if err := rows.Err(); err != nil {
		return "", fmt.Errorf("counting the streaming buffer: %w", err)
	}
	return state, nil
}

// checkStreamedState refuses a statement that changed rows in the buffer.
func (s *Server) checkStreamedState(ctx context.Context, conn *sql.Conn, t *table, before string) error {
	if before == "" {
		return nil
	}
	buffered, _, _ := strings.Cut(before, "\x00")
	after, err := s.countStreamed(ctx, conn, t, buffered)
	if err != nil {
		return err
	}
	if after != before {
		return errInvalidQuery("UPDATE or DELETE statement over table %s would affect rows in the streaming buffer, which is not supported", t.id)
	}
	return nil
}

// decodeJSONRow reads a row of insertAll.
func decodeJSONRow(b *rowBatch, i int, row map[string]json.RawMessage) error {
	for name := range row {
		if _, ok := findField(b.fields, name); !ok {
			return fmt.Errorf("no such field: %s", name)
		}
	}
	for c, f := range b.fields {
		raw, ok := row[f.name]
		if !ok || string(raw) == "null" {
			if f.required {
				return fmt.Errorf("missing required field: %s", f.name)
			}
			continue
		}
		v := &b.vectors[c]
		if v.nested != nil {
			x, err := nestedFromJSON(f, raw)
			if err != nil {
				return fmt.Errorf("field %s: %w", f.name, err)
			}
			v.nested[i] = x
			continue
		}
		x, err := scalarFromJSON(f, raw)
		if err != nil {
			return fmt.Errorf("field %s: %w", f.name, err)
		}
		v.put(i, x)
	}
	return nil
}

func nestedFromJSON(f field, raw json.RawMessage) (any, error) {
	if f.repeated {
		var elements []json.RawMessage
		if err := json.Unmarshal(raw, &elements); err != nil {
			return nil, fmt.Errorf("array specified for non-repeated field or the reverse: %w", err)
		}
		list := make([]any, len(elements))
		for i, e := range elements {
			x, err := nestedFromJSON(f.element(), e)
			if err != nil {
				return nil, err
			}
			list[i] = x
		}
		return list, nil
	}
	if f.kind != kindStruct {
		x, err := scalarFromJSON(f, raw)
		return x.driver(f.kind), err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, fmt.Errorf("this field is a record: %w", err)
	}
	out := map[string]any{}
	for _, m := range f.fields {
		out[m.name] = nil
		if e, ok := members[m.name]; ok && string(e) != "null" {
			x, err := nestedFromJSON(m, e)
			if err != nil {
				return nil, err
			}
			out[m.name] = x
		} else if m.repeated {
			out[m.name] = []any{}
		}
		delete(members, m.name)
	}
	for name := range members {
		return nil, fmt.Errorf("no such field: %s", name)
	}
	return out, nil
}

// scalarFromJSON reads a value as insertAll does: text or a JSON scalar.
func scalarFromJSON(f field, raw json.RawMessage) (value, error) {
	text := string(raw)
	isText := bytes.HasPrefix(raw, []byte(`"`))
	if isText {
		if err := json.Unmarshal(raw, &text); err != nil {
			return value{}, fmt.Errorf("reading text: %w", err)
		}
	} else if f.kind == kindString && text != "true" && text != "false" && !json.Valid(raw) {
		return value{}, fmt.Errorf("cannot convert value to string: %s", text)
	}
	switch f.kind {
	case kindInt64:
		n, err := strconv.ParseInt(text, 10, 64)
		return value{i: n}, wrapValue(err)
	case kindFloat64:
		x, err := strconv.ParseFloat(text, 64)
		if err == nil && !isText && math.IsInf(x, 0) {
			err = strconv.ErrRange
		}
		return value{f: x}, wrapValue(err)
	case kindBool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if b {
			return value{i: 1}, wrapValue(err)
		}
		return value{}, wrapValue(err)
	case kindBytes:
		b, err := base64.StdEncoding.DecodeString(text)
		return value{b: b}, wrapValue(err)
	case kindTimestamp:
		n, err := parseTimestamp(text)
		return value{i: n}, err
	case kindBigNumeric, kindDate, kindDatetime, kindJSON, kindNumeric, kindString, kindStruct, kindTime:
	}
	convert := converter(f, descriptorpb.FieldDescriptorProto_TYPE_STRING)
	return convert(rawText(text))
}

func wrapValue(err error) error {
	if err != nil {
		return fmt.Errorf("cannot convert value: %w", err)
	}
	return nil
}

func rawText(text string) raw { return raw{b: []byte(text)} }

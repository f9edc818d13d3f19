package source

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Plan is how a whole table is read beside its changes: in ranges that do not
// overlap, each in batches.
type Plan struct {
	Estimated int64             // rows
	BatchRows int64             // rows of a batch: a death in the middle of one costs that many
	Ranges    []json.RawMessage // each the JSON of a span
}

// span is a part of a table. Where the key has an index it is a range of keys, texts
// in the order of the chunk key: above Low up to High, either open where it is null.
// Elsewhere it is a range of blocks of one table.
type span struct {
	Low  []string `json:"low,omitempty"`
	High []string `json:"high,omitempty"`

	Leaf string `json:"leaf,omitempty"` // qualified and quoted
	File uint32 `json:"file,omitempty"` // its file: a rewritten table has another, and other blocks
	From int64  `json:"from,omitempty"`
	To   int64  `json:"to,omitempty"` // exclusive; -1: to the end, wherever that is
}

// The size of things. A batch has one in a thousand of the rows, so that a death
// costs little of a backfill, and the streams of all stay below BigQuery's 10,000 an
// hour.
const (
	minBatchRows = 3_000
	batchShare   = 1_000
	maxSpans     = 64
	spanRows     = 20_000 // fewer rows than that are not worth a span of their own
	sampleRows   = 20_000
)

// Plan divides the table, without reading more of it than a sample. limit is the most
// rows of a batch.
func (r *Rows) Plan(ctx context.Context, source *pgxpool.Pool, limit int64) (Plan, error) {
	s, err := openSession(ctx, source, r)
	if err != nil {
		return Plan{}, err
	}
	defer s.Close(ctx)
	spans, rows, err := s.spans(ctx)
	if err != nil {
		return Plan{}, fmt.Errorf("planning the backfill: %w", err)
	}
	p := Plan{Estimated: rows, BatchRows: min(limit, max(rows/batchShare, minBatchRows))}
	if r.Table.IsQuery() {
		p.BatchRows = limit // each batch may have to run all of it
	}
	for _, span := range spans {
		text, err := json.Marshal(span)
		if err != nil {
			return Plan{}, fmt.Errorf("planning the backfill: %w", err)
		}
		p.Ranges = append(p.Ranges, text)
	}
	return p, nil
}

func (s *session) spans(ctx context.Context) ([]span, int64, error) {
	table := s.rows.Table
	if table.IsQuery() {
		rows, err := s.countQuery(ctx)
		return []span{{}}, rows, err
	}
	pages, tuples, leaves, err := table.Size(ctx, s.tx)
	if err != nil {
		return nil, 0, err
	}
	key, ok := table.ChunkKey(s.rows.Key)
	if !ok {
		return blocks(leaves, pages, tuples), int64(tuples), nil
	}
	percent := min(100, max(0.001, 100*sampleRows/max(tuples, 1)))
	columns := strings.Join(catalog.QuoteAll(key), ", ")
	texts := make([]string, len(key))
	for i, name := range key {
		texts[i] = catalog.Quote(name) + "::text"
	}
	rows, err := s.tx.Query(ctx, fmt.Sprintf("SELECT ARRAY[%s] FROM %s TABLESAMPLE SYSTEM (%s) WHERE true%s ORDER BY %s",
		strings.Join(texts, ", "), table.Source(), strconv.FormatFloat(percent, 'f', 6, 64), s.rows.filterSQL(), columns))
	if err != nil {
		return nil, 0, fmt.Errorf("sampling keys: %w", err)
	}
	sample, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	if err != nil {
		return nil, 0, fmt.Errorf("sampling keys: %w", err)
	}
	estimated := int64(float64(len(sample)) * 100 / percent)
	return ranges(sample, estimated), estimated, nil
}

// countQuery counts the rows of a query, whose key has to name each of them.
func (s *session) countQuery(ctx context.Context) (rows int64, err error) {
	key := s.rows.compared("")
	var twice, missing bool
	err = s.tx.QueryRow(ctx, fmt.Sprintf(`
		SELECT coalesce(sum(n), 0)::bigint, coalesce(bool_or(n > 1), false), coalesce(bool_or(missing), false)
		  FROM (SELECT count(*) AS n, (%s) IS NOT TRUE AS missing FROM %s WHERE true%s GROUP BY %s) AS keys`,
		strings.Join(key, " IS NOT NULL AND ")+" IS NOT NULL", s.rows.Table.Source(), s.rows.filterSQL(), strings.Join(key, ", "))).Scan(&rows, &twice, &missing)
	switch {
	case err != nil:
		return 0, fmt.Errorf("running the query of %s: %w", s.rows.Table.Name, err)
	case missing:
		return 0, fault.Fix(fmt.Errorf("the query of %s returns a key (%s) that is NULL", s.rows.Table.Name, strings.Join(s.rows.Key, ", ")),
			"leave such rows out: WHERE .. IS NOT NULL")
	case twice:
		return 0, s.rows.twice()
	}
	return rows, nil
}

// ranges cuts an ordered sample of keys into spans of about as many rows.
func ranges(sample [][]string, rows int64) []span {
	n := int(min(maxSpans, rows/spanRows, int64(len(sample))))
	var out []span
	var low []string
	for i := 1; i < n; i++ {
		high := sample[i*len(sample)/n]
		if low != nil && strings.Join(high, "\x00") == strings.Join(low, "\x00") {
			continue
		}
		out = append(out, span{Low: low, High: high})
		low = high
	}
	return append(out, span{Low: low})
}

// blocks cuts the table, or each of its partitions, into ranges of blocks. The last of
// each is open: rows are added at the end.
func blocks(leaves []catalog.Leaf, pages int64, tuples float64) []span {
	n := max(1, min(maxSpans, int64(tuples)/spanRows))
	step := max(1, (pages+n-1)/n)
	var out []span
	for _, leaf := range leaves {
		for from := int64(0); from == 0 || from < leaf.Pages; from += step {
			to := from + step
			if to >= leaf.Pages {
				to = -1
			}
			out = append(out, span{Leaf: leaf.SQLName(), File: leaf.Filenode, From: from, To: to})
		}
	}
	return out
}

// Chunk is one span of a backfill.
type Chunk struct {
	*Rows
	Range json.RawMessage
	Limit int64 // rows of a batch
	// Barrier is a transaction id: the chunk is not read before every transaction below
	// it has ended.
	Barrier uint64
}

// chunkRead is a read of a chunk, from a cursor to its end or its limit.
type chunkRead struct {
	*session
	chunk  *Chunk
	span   span
	cursor json.RawMessage
}

// Begin opens a read of what is left of the chunk past a cursor, nil at first. It
// returns nil while the barrier stands.
func (c *Chunk) Begin(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) (Read, error) {
	r := &chunkRead{chunk: c, cursor: cursor}
	if err := json.Unmarshal(c.Range, &r.span); err != nil {
		return nil, fmt.Errorf("reading the chunk: %w", err)
	}
	var err error
	if r.session, err = openSession(ctx, source, c.Rows); err != nil {
		return nil, err
	}
	if r.now.xmin < c.Barrier {
		r.Close(ctx)
		return nil, nil
	}
	return r, nil
}

// Unchanged is never known.
func (r *chunkRead) Unchanged() bool { return false }

// Copy writes rows as they are, at most as many as the limit.
func (r *chunkRead) Copy(ctx context.Context, rows *rowwire.Transcoder) (Result, error) {
	if r.span.Leaf != "" {
		return r.copyBlocks(ctx, rows)
	}
	key, ok := r.rows.Table.ChunkKey(r.rows.Key)
	if r.rows.Table.IsQuery() {
		key, ok = r.rows.Key, true
	}
	if !ok {
		return Result{}, &LostError{"the index that the backfill reads by is gone"}
	}
	conditions := "true"
	from := r.span.Low
	if r.cursor != nil {
		if err := json.Unmarshal(r.cursor, &from); err != nil {
			return Result{}, fmt.Errorf("reading the chunk's cursor: %w", err)
		}
	}
	columns := make([]string, len(key))
	positions := make([]int, len(key))
	for i, name := range key {
		positions[i] = r.rows.Table.Index(name)
		columns[i] = r.rows.compared("")[slices.Index(r.rows.Key, name)]
	}
	for _, bound := range []struct {
		op, name string
		texts    []string
	}{{">", "low", from}, {"<=", "high", r.span.High}} {
		if bound.texts == nil {
			continue
		}
		values := make([]string, len(key))
		for i, text := range bound.texts {
			name := r.rows.setting(bound.name + "_" + strconv.Itoa(i))
			if err := r.bind(ctx, name, text); err != nil {
				return Result{}, err
			}
			values[i] = "current_setting('" + name + "')::" + keyType(r.rows.Table.Columns[positions[i]])
		}
		conditions += fmt.Sprintf(" AND (%s) %s (%s)", strings.Join(columns, ", "), bound.op, strings.Join(values, ", "))
	}
	before := rows.Position()
	if err := r.copy(ctx, rows, fmt.Sprintf("%s WHERE %s%s ORDER BY %s LIMIT %d", r.rows.selected(), conditions, r.rows.filterSQL(), strings.Join(columns, ", "), r.chunk.Limit)); err != nil {
		return Result{}, err
	}
	result := Result{More: rows.Position()-before >= r.chunk.Limit, Cursor: r.cursor}
	if last := rows.Last(); last != nil {
		values := make([][]byte, len(key))
		for i, at := range positions {
			values[i] = last[at]
		}
		texts, err := r.texts(ctx, r.rows.Table, positions, values)
		if err != nil {
			return Result{}, err
		}
		if result.Cursor, err = json.Marshal(texts); err != nil {
			return Result{}, fmt.Errorf("writing the chunk's cursor: %w", err)
		}
	}
	return result, nil
}

// copyBlocks reads a range of blocks. What moves to a block that was read already is
// a change, which the capture finds.
func (r *chunkRead) copyBlocks(ctx context.Context, rows *rowwire.Transcoder) (Result, error) {
	pages, tuples, leaves, err := r.rows.Table.Size(ctx, r.tx)
	if err != nil {
		return Result{}, err
	}
	at := slices.IndexFunc(leaves, func(l catalog.Leaf) bool { return l.SQLName() == r.span.Leaf })
	if at < 0 || leaves[at].Filenode != r.span.File {
		return Result{}, &LostError{"the table was rewritten or truncated during its backfill"}
	}
	from, to := r.span.From, r.span.To
	if r.cursor != nil {
		if err := json.Unmarshal(r.cursor, &from); err != nil {
			return Result{}, fmt.Errorf("reading the chunk's cursor: %w", err)
		}
	}
	if to < 0 {
		to = max(leaves[at].Pages, from)
	}
	perBlock := max(1, int64(tuples)/max(pages, 1))
	end := min(to, from+max(1, r.chunk.Limit/perBlock))
	query := strings.Replace(r.rows.selected(), " FROM "+r.rows.Table.Source(), " FROM ONLY "+r.span.Leaf, 1)
	if err := r.copy(ctx, rows, fmt.Sprintf("%s WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'%s", query, from, end, r.rows.filterSQL())); err != nil {
		return Result{}, err
	}
	cursor, err := json.Marshal(end)
	if err != nil {
		return Result{}, fmt.Errorf("writing the chunk's cursor: %w", err)
	}
	return Result{Cursor: cursor, More: end < to}, nil
}

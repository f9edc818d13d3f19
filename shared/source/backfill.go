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

// span is a part of a table. Where the key has an index it is a range of keys: above
// Low up to High, either open where it is null, as texts of the index's columns. Elsewhere
// it is a range of blocks of one table.
type span struct {
	Key  []string `json:"key,omitempty"` // the columns, in the order of the index; none for a query
	Low  []string `json:"low,omitempty"`
	High []string `json:"high,omitempty"`

	Leaf     string `json:"leaf,omitempty"` // qualified and quoted
	File     uint32 `json:"file,omitempty"` // its file: a rewritten table has another, and other blocks
	From     int64  `json:"from,omitempty"`
	To       int64  `json:"to,omitempty"`        // exclusive; -1: to the end, wherever that is
	PerBlock int64  `json:"per_block,omitempty"` // rows that a block is expected to have
}

// The size of things. A batch has one in a thousand of the rows, so that a death
// costs little of a backfill, and the streams of all stay below BigQuery's 10,000 an
// hour.
const (
	minBatchRows = 3_000
	batchShare   = 1_000
	maxSpans     = 64
	spanRows     = 20_000 // fewer rows than that are not worth a span of their own
	samplePages  = 1_000  // so that the rows are estimated within some 3 %
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
	pages, _, leaves, err := table.Size(ctx, s.tx)
	if err != nil {
		return nil, 0, err
	}
	percent := min(100, 100*samplePages/float64(max(pages, 1)))
	all, own, err := s.estimate(ctx, percent)
	if err != nil {
		return nil, 0, err
	}
	key, ok := table.ChunkKey(s.rows.Key)
	if !ok {
		return blocks(leaves, pages, all, own), own, nil
	}
	cuts, err := s.cuts(ctx, key, percent)
	return ranges(key, cuts, all), own, err
}

func (s *session) sampled(percent float64) string {
	return fmt.Sprintf("%s TABLESAMPLE SYSTEM (%s)", s.rows.Table.Source(), strconv.FormatFloat(percent, 'f', 6, 64))
}

// estimate is about how many rows the table has, and how many of them the filters let
// through. It asks a sample: the catalogue knows nothing of filters, nor of a table
// that was never analyzed.
func (s *session) estimate(ctx context.Context, percent float64) (all, own int64, err error) {
	if err := s.tx.QueryRow(ctx, fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE true%s) FROM %s",
		s.rows.carriedSQL(), s.sampled(percent))).Scan(&all, &own); err != nil {
		return 0, 0, fmt.Errorf("sampling rows: %w", s.rows.withheld(err))
	}
	return int64(float64(all) * 100 / percent), int64(float64(own) * 100 / percent), nil
}

// cuts are keys that divide the table into parts of about as many rows, in order. The
// filters do not matter: a read of a part has to come past all of its rows.
func (s *session) cuts(ctx context.Context, key []string, percent float64) ([][]string, error) {
	texts := make([]string, len(key))
	for i, name := range key {
		texts[i] = catalog.Quote(name) + "::text"
	}
	rows, err := s.tx.Query(ctx, fmt.Sprintf(`
		SELECT texts FROM (SELECT ARRAY[%s] AS texts, row_number() OVER (ORDER BY %s) AS i, count(*) OVER () AS n FROM %s) AS sample
		 WHERE i * %[4]d / n > (i - 1) * %[4]d / n ORDER BY i`,
		strings.Join(texts, ", "), strings.Join(catalog.QuoteAll(key), ", "), s.sampled(percent), maxSpans))
	if err != nil {
		return nil, fmt.Errorf("sampling keys: %w", err)
	}
	cuts, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	if err != nil {
		return nil, fmt.Errorf("sampling keys: %w", err)
	}
	return cuts, nil
}

// countQuery counts the rows of a query, whose key has to name each of them.
func (s *session) countQuery(ctx context.Context) (rows int64, err error) {
	key := s.rows.compared("")
	var twice, missing bool
	err = s.tx.QueryRow(ctx, fmt.Sprintf(`
		SELECT coalesce(sum(n), 0)::bigint, coalesce(bool_or(n > 1), false), coalesce(bool_or(missing), false)
		  FROM (SELECT count(*) AS n, (%s) IS NOT TRUE AS missing FROM %s WHERE true%s GROUP BY %s) AS keys`,
		strings.Join(key, " IS NOT NULL AND ")+" IS NOT NULL", s.rows.Table.Source(), s.rows.carriedSQL(), strings.Join(key, ", "))).Scan(&rows, &twice, &missing)
	switch {
	case err != nil:
		return 0, fmt.Errorf("running the query of %s: %w", s.rows.Table.Name, s.rows.withheld(err))
	case missing:
		return 0, fault.Fix(fmt.Errorf("the query of %s returns a key (%s) that is NULL", s.rows.Table.Name, strings.Join(s.rows.Key, ", ")),
			"leave such rows out: WHERE .. IS NOT NULL")
	case twice:
		return 0, s.rows.twice()
	}
	return rows, nil
}

// ranges are spans between some of the cuts.
func ranges(key []string, cuts [][]string, rows int64) []span {
	n := int(min(maxSpans, rows/spanRows, int64(len(cuts))))
	var out []span
	var low []string
	for i := 1; i < n; i++ {
		high := cuts[i*len(cuts)/n-1]
		out = append(out, span{Key: key, Low: low, High: high})
		low = high
	}
	return append(out, span{Key: key, Low: low})
}

// blocks cuts the table, or each of its partitions, into ranges of blocks. The last of
// each is open: rows are added at the end.
func blocks(leaves []catalog.Leaf, pages, all, own int64) []span {
	n := max(1, min(maxSpans, all/spanRows))
	step := max(1, (pages+n-1)/n)
	perBlock := max(1, own/max(pages, 1))
	var out []span
	for _, leaf := range leaves {
		for from := int64(0); from == 0 || from < leaf.Pages; from += step {
			to := from + step
			if to >= leaf.Pages {
				to = -1
			}
			out = append(out, span{Leaf: leaf.SQLName(), File: leaf.Filenode, From: from, To: to, PerBlock: perBlock})
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
	if !ok || !r.rows.Table.IsQuery() && !slices.Equal(key, r.span.Key) { // another order of columns has other ranges
		return Result{}, &LostError{"the index that the backfill reads by is gone"}
	}
	from := r.span.Low
	if r.cursor != nil {
		if err := json.Unmarshal(r.cursor, &from); err != nil {
			return Result{}, fmt.Errorf("reading the chunk's cursor: %w", err)
		}
	}
	// Qualified, since ORDER BY takes a bare name for what is selected under it, such as
	// the text of an address, which has another order.
	compared := r.rows.compared(catalog.Quote(r.rows.Table.Name) + ".")
	columns := make([]string, len(key))
	positions := make([]int, len(key))
	for i, name := range key {
		positions[i] = r.rows.Table.Index(name)
		columns[i] = compared[slices.Index(r.rows.Key, name)]
	}
	conditions, err := r.between(ctx, columns, positions, from)
	if err != nil {
		return Result{}, err
	}
	before := rows.Position()
	if err := r.copy(ctx, rows, fmt.Sprintf("%s WHERE %s%s ORDER BY %s LIMIT %d", r.rows.selected(), conditions, r.rows.carriedSQL(), strings.Join(columns, ", "), r.chunk.Limit)); err != nil {
		return Result{}, err
	}
	result := Result{More: rows.Position()-before >= r.chunk.Limit, Cursor: r.cursor}
	if last := rows.Last(); last != nil {
		values, read := make([][]byte, len(key)), make([]catalog.Column, len(key))
		for i, at := range positions {
			values[i], read[i] = last[at], r.rows.Table.Columns[at]
		}
		texts, err := r.texts(ctx, read, values)
		if err != nil {
			return Result{}, err
		}
		if result.Cursor, err = encode(texts); err != nil {
			return Result{}, err
		}
	}
	return result, nil
}

// between is the condition on keys above from, up to the end of the span; either may be
// open.
func (r *chunkRead) between(ctx context.Context, columns []string, positions []int, from []string) (string, error) {
	conditions := "true"
	for _, bound := range []struct {
		op, name string
		texts    []string
	}{{">", "low", from}, {"<=", "high", r.span.High}} {
		if bound.texts == nil {
			continue
		}
		values := make([]string, len(columns))
		for i, text := range bound.texts {
			name := r.rows.setting(bound.name + "_" + strconv.Itoa(i))
			if err := r.bind(ctx, name, text); err != nil {
				return "", err
			}
			values[i] = "current_setting('" + name + "')::" + keyType(r.rows.Table.Columns[positions[i]])
		}
		conditions += fmt.Sprintf(" AND (%s) %s (%s)", strings.Join(columns, ", "), bound.op, strings.Join(values, ", "))
	}
	return conditions, nil
}

// copyBlocks reads a range of blocks. What moves to a block that was read already is
// a change, which the capture finds; a watermark only if the change sets its cursor.
func (r *chunkRead) copyBlocks(ctx context.Context, rows *rowwire.Transcoder) (Result, error) {
	_, _, leaves, err := r.rows.Table.Size(ctx, r.tx)
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
	end := min(to, from+max(1, r.chunk.Limit/max(1, r.span.PerBlock)))
	query := strings.Replace(r.rows.selected(), " FROM "+r.rows.Table.Source(), " FROM ONLY "+r.span.Leaf+" AS "+catalog.Quote(r.rows.Table.Name), 1)
	if err := r.copy(ctx, rows, fmt.Sprintf("%s WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'%s", query, from, end, r.rows.carriedSQL())); err != nil {
		return Result{}, err
	}
	cursor, err := encode(end)
	return Result{Cursor: cursor, More: end < to}, err
}

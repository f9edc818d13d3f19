package source

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Watermark finds inserts and updates of one table by a cursor column that
// grows with them. It reads by keyset on (cursor, key), at most Limit rows a
// time, and finds rows committed late by the fence.
type Watermark struct {
	*Rows
	Cursor   string
	Lookback pipeline.Lookback
	Limit    int

	family family
	keyset []catalog.Column // (cursor, key) without repetition, as they are stored
	last   []int            // where whole rows have them, by position in Table.Columns; nil: not all have them so
}

// Position is where a watermark read ended: the last (cursor, key) read and
// the fence behind it. It is the JSON of a watermark's cursor.
type Position struct {
	Cursor []string `json:"cursor"` // texts of the cursor value and the key values; null before the first row
	At     int64    `json:"at"`     // the cursor value as a number, see family
	More   bool     `json:"more"`   // the read stopped at its limit
	Fence  *Fence   `json:"fence"`
	Leaves Leaves   `json:"leaves,omitempty"` // an attached partition's rows are of no transaction that is looked for
}

// NewWatermark checks the declaration against the table. Warnings are what
// works but should be mended, each with its statement.
func NewWatermark(w Watermark) (_ *Watermark, warnings []string, err error) {
	t := w.Table
	cursor := t.Stored(w.Cursor)
	if cursor == nil {
		return nil, nil, t.Missing("cursor column", w.Cursor)
	}
	if w.family = cursorFamily(cursor.Base); w.family == unordered {
		return nil, nil, fault.Fix(fmt.Errorf("cursor column %s of %s is a %s, which does not grow with changes", w.Cursor, t.Name, cursor.Type),
			"choose a column of integer, date, timestamp or timestamptz type")
	}
	names := []string{w.Cursor}
	for _, name := range w.Key {
		if name != w.Cursor {
			names = append(names, name)
		}
	}
	for _, name := range names {
		w.keyset = append(w.keyset, *t.Stored(name))
	}
	w.last = whole(t, w.keyset)
	t.Need(w.Cursor)
	columns := strings.Join(catalog.QuoteAll(names), ", ")
	if w.family == civil {
		warnings = append(warnings, fmt.Sprintf("cursor column %s of %s has no time zone, so the last day is looked through every time: make it timestamptz",
			w.Cursor, t.Name))
	}
	if !t.Leads(w.Cursor) {
		warnings = append(warnings, fmt.Sprintf("cursor column %s of %s has no index, so every look reads the whole table: CREATE INDEX CONCURRENTLY ON %s (%s)",
			w.Cursor, t.Name, t.SQLName(), columns))
	}
	if !cursor.NotNull {
		warnings = append(warnings, fmt.Sprintf("cursor column %s of %s may be NULL; such rows are found only by their transaction: ALTER TABLE %s ALTER COLUMN %s SET NOT NULL",
			w.Cursor, t.Name, t.SQLName(), catalog.Quote(w.Cursor)))
	}
	return &w, warnings, nil
}

// whole are the positions in the table's rows of columns that those have as they are
// stored; nil where they have not.
func whole(t *catalog.Table, stored []catalog.Column) []int {
	out := make([]int, len(stored))
	for i, c := range stored {
		out[i] = slices.IndexFunc(t.Columns, func(carried catalog.Column) bool { return carried.Name == c.Name && carried.Expr == c.Expr })
		if out[i] < 0 {
			return nil
		}
	}
	return out
}

// Basis is the cursor column and the key, with their types, and what the declaration
// makes of the rows.
func (w *Watermark) Basis() string {
	var b strings.Builder
	b.WriteString("watermark")
	for _, c := range w.keyset {
		fmt.Fprintf(&b, " %s %s", catalog.Quote(c.Name), c.Type)
	}
	return b.String() + w.filtered()
}

// Start returns the newest row's position.
func (w *Watermark) Start(ctx context.Context, source *pgxpool.Pool) (json.RawMessage, error) {
	s, err := openSession(ctx, source, w.Rows)
	if err != nil {
		return nil, err
	}
	defer s.Close(ctx)
	p, err := w.newest(ctx, s)
	if err != nil {
		return nil, err
	}
	return encode(p)
}

// newest is the position after every row that the session sees.
func (w *Watermark) newest(ctx context.Context, s *session) (*Position, error) {
	last, err := s.tuples(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE %s IS NOT NULL%s ORDER BY %s DESC LIMIT 1",
		strings.Join(w.keysetExprs(), ", "), w.Table.Source(), catalog.Quote(w.Cursor), w.filterSQL(), strings.Join(w.keysetColumns(), " DESC, ")))
	if err != nil {
		return nil, err
	}
	r := &watermarkRead{session: s, w: w}
	if len(last) == 0 {
		return r.next(ctx, nil, false)
	}
	return r.next(ctx, last[0], false)
}

// Trim has nothing to forget.
func (w *Watermark) Trim(context.Context, *pgxpool.Pool, json.RawMessage) error { return nil }

// Begin opens a read of the rows past the cursor and of those committed late
// behind it.
func (w *Watermark) Begin(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) (Read, error) {
	p, err := position[Position](cursor)
	if err != nil {
		return nil, err
	}
	if p != nil && p.Fence == nil {
		return nil, &LostError{"the cursor is another method's"}
	}
	s, err := openSession(ctx, source, w.Rows)
	if err != nil {
		return nil, err
	}
	return &watermarkRead{session: s, w: w, previous: p}, nil
}

// position reads a cursor; nil for none.
func position[P any](cursor json.RawMessage) (*P, error) {
	if cursor == nil {
		return nil, nil //nolint:nilnil // no cursor is that of a table never seen
	}
	p := new(P)
	if err := json.Unmarshal(cursor, p); err != nil {
		return nil, fault.Fix(fmt.Errorf("reading the cursor: %w", err), "the cursor was edited by hand: restore it from tidemark.runs.cursor_after")
	}
	return p, nil
}

// watermarkRead is one read of a watermark.
type watermarkRead struct {
	*session
	w        *Watermark
	previous *Position
	late     string // condition on rows behind the cursor; "": there can be none
	fresh    string // condition on rows past it
}

// Unchanged reports that not a single transaction has ended since the previous
// read, so that there is nothing to look for.
func (r *watermarkRead) Unchanged() bool {
	// A standby's snapshot does not change with transactions that end above its oldest.
	return r.previous != nil && !r.previous.More && r.previous.Fence.Snapshot == r.text && (!r.standby || !r.moment().doubtful())
}

// Copy writes late rows first: the position is that of the last fresh one.
func (r *watermarkRead) Copy(ctx context.Context, rows *rowwire.Transcoder) (Result, error) {
	var result Result
	if err := r.prepare(ctx); err != nil {
		return result, err
	}
	var last [][]byte
	var err error
	if r.w.last != nil && r.w.Table.Condition() == "" {
		last, result.More, err = r.drain(ctx, rows)
	} else {
		last, err = r.sift(ctx, rows, &result)
	}
	if err != nil {
		return result, err
	}
	p, err := r.next(ctx, last, result.More)
	if err != nil {
		return result, err
	}
	result.Cursor, err = encode(p)
	return result, err
}

// drain writes all rows; the last of them says where it ended.
func (r *watermarkRead) drain(ctx context.Context, rows *rowwire.Transcoder) (last [][]byte, more bool, err error) {
	selected := r.w.selected()
	if r.late != "" {
		if err := r.copy(ctx, rows, selected+" WHERE "+r.late); err != nil {
			return nil, false, err
		}
		if err := rows.Continue(); err != nil {
			return nil, false, err
		}
	}
	before := rows.Position()
	if err := r.copy(ctx, rows, selected+" WHERE "+r.fresh+r.order()); err != nil {
		return nil, false, err
	}
	if row := rows.Last(); row != nil {
		for _, at := range r.w.last {
			last = append(last, row[at])
		}
	}
	return last, rows.Position()-before >= int64(r.w.Limit), nil
}

// sift writes the rows that the declared condition holds for, and tombstones for the
// others: each may have been carried before it changed. Where the read ends is found
// first, since what is written need not tell.
func (r *watermarkRead) sift(ctx context.Context, rows *rowwire.Transcoder, result *Result) (last [][]byte, err error) {
	if last, result.More, err = r.end(ctx); err != nil {
		return nil, err
	}
	conditions := []string{r.late}
	if last != nil {
		upto, err := r.texts(ctx, r.w.keyset, last)
		if err != nil {
			return nil, err
		}
		if err := r.bindKeyset(ctx, r.w.uptoName, upto); err != nil {
			return nil, err
		}
		conditions = append(conditions, r.fresh+" AND "+r.w.keysetSQL()+" <= "+r.w.boundSQL(r.w.uptoName))
	}
	conditions = slices.DeleteFunc(conditions, func(c string) bool { return c == "" })
	for _, changed := range conditions {
		if err := r.copyNext(ctx, rows, r.w.selected()+" WHERE "+changed+r.w.conditionSQL()); err != nil {
			return nil, err
		}
	}
	if r.w.Table.Condition() == "" || !r.w.Deletes {
		return last, nil
	}
	for _, changed := range conditions {
		deleted, err := r.copyTombstones(ctx, rows, r.w.tombstones()+" WHERE "+changed+" AND "+r.w.Table.Condition()+" IS NOT TRUE")
		if err != nil {
			return nil, err
		}
		result.Deleted += deleted
	}
	return last, nil
}

// end is the keyset of the last fresh row that the read takes, in COPY bytes; nil if
// there is none. more says that there may be others behind it.
func (r *watermarkRead) end(ctx context.Context) (last [][]byte, more bool, err error) {
	found, err := r.tuples(ctx, fmt.Sprintf("SELECT * FROM (SELECT row_number() OVER (ORDER BY %s), %s FROM %s WHERE %s%s) AS fresh ORDER BY 1 DESC LIMIT 1",
		strings.Join(r.w.keysetColumns(), ", "), strings.Join(r.w.keysetExprs(), ", "), r.w.Table.Source(), r.fresh, r.order()))
	if err != nil || len(found) == 0 {
		return nil, false, err
	}
	return found[0][1:], counter.number(found[0][0]) >= int64(r.w.Limit), nil
}

func (r *watermarkRead) order() string {
	return fmt.Sprintf(" ORDER BY %s LIMIT %d", strings.Join(r.w.keysetColumns(), ", "), r.w.Limit)
}

// prepare binds the values of the read and writes its conditions.
func (r *watermarkRead) prepare(ctx context.Context) error {
	p := r.previous
	if p != nil && p.Cursor != nil {
		if err := r.bindKeyset(ctx, r.w.atName, p.Cursor); err != nil {
			return err
		}
		r.fresh = r.w.keysetSQL() + " > " + r.w.boundSQL(r.w.atName) + r.w.filterSQL()
	} else {
		r.fresh = catalog.Quote(r.w.Cursor) + " IS NOT NULL" + r.w.filterSQL()
	}
	return r.prepareLate(ctx)
}

func (r *watermarkRead) prepareLate(ctx context.Context) error {
	p := r.previous
	cursor := r.w.Table.Stored(r.w.Cursor)
	if p == nil || p.Fence == nil {
		if !cursor.NotNull { // a first sight takes the rows without a cursor value too
			r.late = catalog.Quote(r.w.Cursor) + " IS NULL" + r.w.filterSQL()
		}
		return nil
	}
	if p.postponed(r.moment()) {
		return nil
	}
	u, err := p.Fence.since(r.moment())
	if err != nil {
		return err
	}
	test, err := r.unseenSQL(ctx, u)
	if err != nil {
		return err
	}
	var branches []string
	if p.Cursor != nil {
		within, err := r.lookbackSQL(ctx, "lower", p.Fence.lower())
		if err != nil {
			return err
		}
		branches = append(branches, within+" AND "+r.w.keysetSQL()+" <= "+r.w.boundSQL(r.w.atName))
	}
	if !cursor.NotNull {
		branches = append(branches, catalog.Quote(r.w.Cursor)+" IS NULL")
	}
	if len(branches) > 0 {
		r.late = "(" + strings.Join(branches, " OR ") + ") AND " + test + r.w.filterSQL()
	}
	return nil
}

// next is the position after the read. last holds the COPY bytes of the keyset of
// the last fresh row, nil if there was none; more says that it stopped at its limit.
func (r *watermarkRead) next(ctx context.Context, last [][]byte, more bool) (*Position, error) {
	p := &Position{More: more}
	if err := r.attached(ctx, p); err != nil {
		return nil, err
	}
	if r.previous != nil {
		p.Cursor, p.At = r.previous.Cursor, r.previous.At
	}
	if last != nil {
		var err error
		if p.Cursor, err = r.texts(ctx, r.w.keyset, last); err != nil {
			return nil, err
		}
		p.At = r.w.family.number(last[0])
	}
	var before *Fence
	if r.previous != nil {
		before = r.previous.Fence
	}
	if r.previous != nil && r.previous.postponed(r.moment()) {
		p.Fence = before
		return p, nil
	}
	open := make([]Open, len(r.open))
	for i, t := range r.open {
		open[i] = Open{ID: t.id, Floor: r.w.startFloor(t.began)}
	}
	p.Fence = r.w.fence(p, before, open, r.moment(), r.since)
	if err := r.see(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

// attached notes the partitions, and fails with a *LostError if one came with rows: who
// wrote those did not write to this table. What else happens to partitions deletes.
func (r *watermarkRead) attached(ctx context.Context, p *Position) error {
	rows := *r.w.Rows
	rows.Deletes = false
	var before Leaves
	if r.previous != nil {
		before = r.previous.Leaves
	}
	var missed string
	var err error
	if p.Leaves, missed, err = rows.Leaves(ctx, r.tx, before, true); err != nil {
		return err
	}
	if missed != "" {
		return &LostError{missed}
	}
	return nil
}

// see records which transactions above the oldest running one are visible in
// the part of the table that the next read will look back on. What it binds has names of
// its own: a feed reads the rows of this read after it.
func (r *watermarkRead) see(ctx context.Context, p *Position) error {
	if !r.moment().doubtful() {
		return nil // all below the snapshot's end is visible
	}
	var branches []string
	if p.Cursor != nil {
		within, err := r.lookbackSQL(ctx, "next_lower", p.Fence.lower())
		if err != nil {
			return err
		}
		if err := r.bindKeyset(ctx, r.w.nextName, p.Cursor); err != nil {
			return err
		}
		branches = append(branches, within+" AND "+r.w.keysetSQL()+" <= "+r.w.boundSQL(r.w.nextName))
	}
	if !r.w.Table.Stored(r.w.Cursor).NotNull {
		branches = append(branches, catalog.Quote(r.w.Cursor)+" IS NULL")
	}
	if len(branches) == 0 {
		return nil
	}
	x := r.wideXmin()
	rows, err := r.tx.Query(ctx, fmt.Sprintf("SELECT DISTINCT %s FROM %s WHERE (%s) AND %s >= %d%s ORDER BY 1 DESC LIMIT %d",
		x, r.w.Table.Source(), strings.Join(branches, " OR "), x, r.now.xmin, r.w.filterSQL(), seenLimit+1))
	if err != nil {
		return fmt.Errorf("reading visible transactions: %w", err)
	}
	seen, err := pgx.CollectRows(rows, pgx.RowTo[uint64])
	if err != nil {
		return fmt.Errorf("reading visible transactions: %w", err)
	}
	if len(seen) > seenLimit {
		seen = seen[:seenLimit]
	}
	slices.Reverse(seen)
	p.Fence.Seen = seen
	return nil
}

// postponed says that late rows are looked for only when the drain is through:
// while the look-back has no lower bound, each look would read all that was
// drained so far. The fence stays where it was, so that none is lost; a row that
// was drained after the fence was set may come once more. Where an earlier state is
// drained than that of the fence, rows behind the cursor are new to it which the fence
// counts as seen: there it is set anew.
func (p *Position) postponed(now moment) bool {
	return p.More && p.Cursor != nil && p.Fence.lower() == nil && !p.Fence.ahead(now)
}

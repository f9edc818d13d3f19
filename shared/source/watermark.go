package source

import (
	"fmt"
	"strings"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Watermark finds inserts and updates of one table by a cursor column that
// grows with them. It reads by keyset on (cursor, key), at most Limit rows a
// time, and finds rows committed late by the fence.
type Watermark struct {
	Table    *catalog.Table
	Cursor   string
	Key      []string
	Lookback pipeline.Lookback
	Limit    int
	Filter   *Filter // nil: every row

	family family
	keyset []int // columns of (cursor, key) without repetition, by position in Table.Columns
	key    []int // columns of the key, likewise
}

// Filter keeps the rows of one tenant (I8).
type Filter struct{ Column, Value string }

// Position is where a watermark read ended: the last (cursor, key) read and
// the fence behind it. It is the JSON of sync_state.cursor.
type Position struct {
	Cursor []string `json:"cursor"` // texts of the cursor value and the key values; null before the first row
	At     int64    `json:"at"`     // the cursor value as a number, see family
	More   bool     `json:"more"`   // the read stopped at its limit
	Fence  *Fence   `json:"fence"`
}

// NewWatermark checks the declaration against the table. Warnings are what
// works but should be mended, each with its statement.
func NewWatermark(w Watermark) (_ *Watermark, warnings []string, err error) {
	t := w.Table
	if w.Key, err = t.CheckKey(w.Key); err != nil {
		return nil, nil, err
	}
	cursor := t.Column(w.Cursor)
	if cursor == nil {
		return nil, nil, t.Missing("cursor column", w.Cursor)
	}
	if w.family = cursorFamily(cursor.Base); w.family == unordered {
		return nil, nil, fault.Fix(fmt.Errorf("cursor column %s of %s is a %s, which does not grow with changes", w.Cursor, t.Name, cursor.Type),
			"choose a column of integer, date, timestamp or timestamptz type")
	}
	if w.Filter != nil && t.Column(w.Filter.Column) == nil {
		return nil, nil, t.Missing("tenant column", w.Filter.Column)
	}
	names := []string{w.Cursor}
	w.keyset = []int{t.Index(w.Cursor)}
	for _, name := range w.Key {
		w.key = append(w.key, t.Index(name))
		if name != w.Cursor {
			names = append(names, name)
			w.keyset = append(w.keyset, t.Index(name))
		}
	}
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

// Basis says what a position of this reading is about: with another cursor, key
// or type of theirs it would mean something else.
func (w *Watermark) Basis() string {
	var b strings.Builder
	b.WriteString("watermark")
	for _, at := range w.keyset {
		fmt.Fprintf(&b, " %s %s", catalog.Quote(w.Table.Columns[at].Name), w.Table.Columns[at].Type)
	}
	return b.String()
}

// postponed says that late rows are looked for only when the drain is through:
// while the look-back has no lower bound, each look would read all that was
// drained so far. The fence stays where it was, so that none is lost; a row that
// was drained after the fence was set may come once more.
func (p *Position) postponed() bool {
	return p.More && p.Cursor != nil && p.Fence.lower() == nil
}

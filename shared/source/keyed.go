package source

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Keyed follows rows by their keys: its feeds tell which may have changed, and those
// rows are read as they are now, all in one snapshot. Keys that no row has are gone.
type Keyed struct {
	*Rows
	feeds []keyFeed
}

// feed tells what changed in one table.
type feed interface {
	// basis says what its cursors are about.
	basis() string
	// table is what has to be held while it is read; nil for what is never altered.
	table() *catalog.Table
	// install makes what the feed needs in the source.
	install(ctx context.Context, source *pgxpool.Pool) error
	// start is the cursor after everything that the session sees.
	start(ctx context.Context, s *session) (json.RawMessage, error)
	// changes is what changed since the cursor, at most about the feed's limit.
	changes(ctx context.Context, s *session, cursor json.RawMessage) (changes, error)
	// trim forgets what a committed cursor has passed.
	trim(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) error
}

// changes is what a feed found.
type changes struct {
	keys      string // SELECT of the changed keys by the names of the key columns; "" for none
	cursor    json.RawMessage
	more      bool
	truncated bool // everything is gone but what keys has
	trim      bool // the source keeps what was consumed until it is trimmed
	refused   []Refused
}

// keyFeed is a feed and what its keys are of: the rows themselves, or rows of a
// further table that make those of a query stale.
type keyFeed struct {
	name string
	feed
	mapping string // SELECT of the rows' keys with {changed} for those of the feed; "": they are the rows'
}

// keyedCursor is the cursor of each feed by its name.
type keyedCursor map[string]json.RawMessage

// Basis is those of the feeds, and the key.
func (k *Keyed) Basis() string {
	var b strings.Builder
	b.WriteString("keys" + k.basis())
	for _, f := range k.feeds {
		fmt.Fprintf(&b, " %s: %s %q", f.name, f.basis(), f.mapping)
	}
	return b.String()
}

func (k *Keyed) tables() []*catalog.Table {
	var out []*catalog.Table
	for _, f := range k.feeds {
		if t := f.table(); t != nil && t != k.Table {
			out = append(out, t)
		}
	}
	return out
}

// Start installs the feeds and returns their cursors.
func (k *Keyed) Start(ctx context.Context, source *pgxpool.Pool) (json.RawMessage, error) {
	for _, f := range k.feeds {
		if err := f.install(ctx, source); err != nil {
			return nil, err
		}
	}
	s, err := openSession(ctx, source, k.Rows, k.tables()...)
	if err != nil {
		return nil, err
	}
	defer s.Close(ctx)
	cursors := keyedCursor{}
	for _, f := range k.feeds {
		if cursors[f.name], err = f.start(ctx, s); err != nil {
			return nil, err
		}
	}
	return encode(cursors)
}

// Trim has each feed forget what its cursor has passed.
func (k *Keyed) Trim(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) error {
	cursors, err := position[keyedCursor](cursor)
	if err != nil || cursors == nil {
		return err
	}
	for _, f := range k.feeds {
		if err := f.trim(ctx, source, (*cursors)[f.name]); err != nil {
			return fmt.Errorf("trimming the log of %s: %w", f.name, err)
		}
	}
	return nil
}

// Purge deletes what was logged for tenants other than the known ones.
func (k *Keyed) Purge(ctx context.Context, source *pgxpool.Pool, known func(context.Context) ([]string, error)) (purged int64, err error) {
	for _, f := range k.feeds {
		if log, ok := f.feed.(*logFeed); ok && err == nil {
			purged, err = log.purge(ctx, source, known)
		}
	}
	return purged, err
}

// Begin opens a read of the rows whose keys the feeds tell.
func (k *Keyed) Begin(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) (Read, error) {
	cursors, err := position[keyedCursor](cursor)
	if err != nil {
		return nil, err
	}
	s, err := openSession(ctx, source, k.Rows, k.tables()...)
	if err != nil {
		return nil, err
	}
	r := &keyedRead{session: s, k: k}
	if cursors != nil {
		r.cursors = *cursors
	}
	return r, nil
}

type keyedRead struct {
	*session
	k       *Keyed
	cursors keyedCursor
}

// Unchanged is for the feeds to tell.
func (r *keyedRead) Unchanged() bool { return false }

// Copy reads the rows of all changed keys, and tombstones for those that are gone.
func (r *keyedRead) Copy(ctx context.Context, rows *rowwire.Transcoder) (Result, error) {
	var result Result
	keys, truncated, err := r.changed(ctx, &result)
	if err != nil {
		return result, err
	}
	if truncated {
		at, err := rows.SkipPosition()
		if err != nil {
			return result, fmt.Errorf("reading %s: %w", r.k.Table.Name, err)
		}
		result.Truncated = &at
	}
	if keys == "" {
		return result, nil
	}
	return result, r.pull(ctx, rows, keys, &result)
}

// changed is the SELECT of the keys that changed by any feed.
func (r *keyedRead) changed(ctx context.Context, result *Result) (keys string, truncated bool, err error) {
	cursors := keyedCursor{}
	var relations []string
	for _, f := range r.k.feeds {
		c, err := f.changes(ctx, r.session, r.cursors[f.name])
		if err != nil {
			return "", false, fmt.Errorf("reading what changed in %s: %w", f.name, err)
		}
		if c.truncated && f.mapping != "" {
			return "", false, &LostError{f.name + " was truncated, and any row may show something of it"}
		}
		truncated = truncated || c.truncated
		cursors[f.name] = c.cursor
		result.More = result.More || c.more
		result.Trim = result.Trim || c.trim
		result.Refused = append(result.Refused, c.refused...)
		if c.keys == "" {
			continue
		}
		keys := c.keys
		if f.mapping != "" {
			keys = "WITH tidemark_changed AS (" + keys + ") SELECT * FROM (" + strings.ReplaceAll(f.mapping, "{changed}", "tidemark_changed") + "\n) AS stale"
		}
		relations = append(relations, r.k.typed(keys))
	}
	if result.Cursor, err = encode(cursors); err != nil {
		return "", false, err
	}
	return strings.Join(relations, " UNION "), truncated, nil
}

func (r *keyedRead) pull(ctx context.Context, rows *rowwire.Transcoder, keys string, result *Result) error {
	if r.k.Table.IsQuery() {
		if err := r.unique(ctx, keys); err != nil {
			return err
		}
	}
	if err := r.copyNext(ctx, rows, r.k.presentSQL(keys)); err != nil || !r.k.Deletes {
		return err
	}
	var err error
	result.Deleted, err = r.copyTombstones(ctx, rows, r.k.goneSQL(keys))
	return err
}

// unique fails if a query has several rows of one key.
func (r *keyedRead) unique(ctx context.Context, keys string) error {
	key := strings.Join(r.k.compared(""), ", ")
	var twice bool
	if err := r.tx.QueryRow(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s WHERE (%s) IN (%s)%s GROUP BY %s HAVING count(*) > 1)",
		r.k.Table.Source(), key, r.k.typed(keys), r.k.carriedSQL(), key)).Scan(&twice); err != nil {
		return fmt.Errorf("looking for keys that come twice: %w", err)
	}
	if twice {
		return r.k.twice()
	}
	return nil
}

// watermarkFeed tells the keys of a table by its watermark.
type watermarkFeed struct {
	w       *Watermark
	columns []string // of the key it tells, in order; nil: the table's own key
}

func (f *watermarkFeed) basis() string                                { return f.w.Basis() }
func (f *watermarkFeed) table() *catalog.Table                        { return f.w.Table }
func (f *watermarkFeed) install(context.Context, *pgxpool.Pool) error { return nil }

func (f *watermarkFeed) trim(context.Context, *pgxpool.Pool, json.RawMessage) error { return nil }

func (f *watermarkFeed) start(ctx context.Context, s *session) (json.RawMessage, error) {
	if err := s.bindFilters(ctx, f.w.Rows); err != nil {
		return nil, err
	}
	p, err := f.w.newest(ctx, s)
	if err != nil {
		return nil, err
	}
	return encode(p)
}

func (f *watermarkFeed) changes(ctx context.Context, s *session, cursor json.RawMessage) (changes, error) {
	found, read, err := f.read(ctx, s, cursor)
	if err != nil || found.cursor == nil {
		return found, err
	}
	columns := f.columns
	if columns == nil {
		columns = f.w.Key
	}
	found.keys = read.keysSQL(strings.Join(catalog.QuoteAll(columns), ", "))
	return found, nil
}

// read finds how far the watermark goes. Without a row the cursor is set all the
// same, and the read is nil.
func (f *watermarkFeed) read(ctx context.Context, s *session, cursor json.RawMessage) (changes, *watermarkRead, error) {
	var found changes
	p, err := position[Position](cursor)
	if err != nil {
		return found, nil, err
	}
	if p == nil || p.Fence == nil {
		return found, nil, &LostError{"the cursor is another method's"}
	}
	if err := s.bindFilters(ctx, f.w.Rows); err != nil {
		return found, nil, err
	}
	r := &watermarkRead{session: s, w: f.w, previous: p}
	if err := r.prepare(ctx); err != nil {
		return found, nil, err
	}
	late := false
	if r.late != "" {
		if err := s.tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+f.w.Table.Source()+" WHERE "+r.late+")").Scan(&late); err != nil {
			return found, nil, fmt.Errorf("looking for late rows: %w", err)
		}
	}
	row, more, err := r.end(ctx)
	if err != nil {
		return found, nil, err
	}
	found.more = more
	next, err := r.next(ctx, row, found.more)
	if err != nil {
		return found, nil, err
	}
	if found.cursor, err = encode(next); err != nil {
		return found, nil, err
	}
	if !late && row == nil {
		return found, nil, nil
	}
	return found, r, nil
}

// keysSQL selects columns of all rows of the read; nothing for a nil read.
func (r *watermarkRead) keysSQL(columns string) string {
	if r == nil {
		return ""
	}
	source := " FROM " + r.w.Table.Source() + " WHERE "
	keys := "(SELECT " + columns + source + r.fresh + r.order() + ")"
	if r.late != "" {
		keys += " UNION ALL (SELECT " + columns + source + r.late + ")"
	}
	return keys
}

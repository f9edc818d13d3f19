package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// appFeed tells the keys of a table by a log that the application keeps: a table to
// which a row is added for every change, followed by its own watermark, late commits
// included (I2).
type appFeed struct {
	watermarkFeed

	rows *Rows // whose keys the log has
	log  *pipeline.Log
}

// entry is one row of the log.
type entry struct {
	key    []string
	null   bool // a part of the key is NULL: it names no row
	action string
	at     string // where it is: tableoid and ctid
}

func (f *appFeed) basis() string {
	return fmt.Sprintf("log %s %s %v %v", f.w.Table.SQLName(), f.w.Basis(), f.log.Object, f.log.Type)
}

// newAppFeed checks the columns of the log that are mapped.
func newAppFeed(f appFeed) (*appFeed, error) {
	if len(f.log.Object) != len(f.rows.Key) {
		return nil, fault.Fix(fmt.Errorf("log.object of %s has %d columns, its key (%s) has %d", f.rows.Table.Name, len(f.log.Object), strings.Join(f.rows.Key, ", "), len(f.rows.Key)),
			"name in log.object one column of the log for each column of the key, in the same order")
	}
	columns := slices.Clone(f.log.Object)
	if f.log.Type != nil {
		columns = append(columns, f.log.Type.Column)
	}
	if f.log.Action != nil {
		columns = append(columns, f.log.Action.Column)
	}
	for _, name := range columns {
		if f.w.Table.Column(name) == nil {
			return nil, f.w.Table.Missing("log column", name)
		}
	}
	return &f, nil
}

// logType is the value of the log's type column for a table, as the query of the
// pipeline file says.
func logType(ctx context.Context, source *pgxpool.Pool, schema string, t *pipeline.LogType) (string, error) {
	if t.Query == "" {
		return t.Value, nil
	}
	var values []*string
	err := pgx.BeginTxFunc(ctx, source, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('search_path', quote_ident($1) || ', public', true), set_config('statement_timeout', '30s', true)`, schema); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT t::text FROM ("+t.Query+"\n) AS q(t)")
		if err != nil {
			return err
		}
		values, err = pgx.CollectRows(rows, pgx.RowTo[*string])
		return err //nolint:wrapcheck // wrapped below
	})
	if fault.SQLState(err) == "42501" { // insufficient_privilege
		err = fault.Fix(err, "GRANT SELECT ON the tables that log.type.query reads, and USAGE ON their SCHEMA, TO "+catalog.Quote(source.Config().ConnConfig.User))
	}
	const remedy = "correct the query in the pipeline file so that it returns the one value that entries about this table have"
	if class, known := fault.Classify(err); err != nil && class == fault.Permanent && known == "" {
		err = fault.Fix(err, remedy)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("running log.type.query: %w", err)
	case len(values) != 1:
		return "", fault.Fix(fmt.Errorf("log.type.query returns %d rows, and names no one type", len(values)), remedy)
	case values[0] == nil:
		return "", fault.Fix(errors.New("log.type.query returns NULL, and names no type"), remedy)
	}
	return *values[0], nil
}

func (f *appFeed) start(ctx context.Context, s *session) (json.RawMessage, error) {
	cursor, err := f.watermarkFeed.start(ctx, s)
	return cursor, f.mistyped(err)
}

// mistyped gives the error for a type that the log's column cannot have the remedy.
func (f *appFeed) mistyped(err error) error {
	if f.log.Type == nil || !strings.HasPrefix(fault.SQLState(err), "22") { // data exceptions
		return err
	}
	column := f.w.Table.Column(f.log.Type.Column)
	return fault.Fix(fmt.Errorf("log.type is no value of column %s (%s) of %s: %w", column.Name, column.Type, f.w.Table.Name, err),
		"correct log.type in the pipeline file: it is compared with that column")
}

// changes reads the entries and keeps the keys that parse.
func (f *appFeed) changes(ctx context.Context, s *session, cursor json.RawMessage) (changes, error) {
	found, read, err := f.read(ctx, s, cursor)
	if err != nil {
		return found, f.mistyped(err)
	}
	var entries []entry
	if read != nil {
		if entries, err = f.parsed(ctx, s, read, &found); err != nil {
			return found, err
		}
	}
	if entries, err = f.awaitDeletes(ctx, s, entries, cursor, &found); err != nil || len(entries) == 0 {
		return found, err
	}
	if err := s.bindKeys(ctx, f.rows, keysOf(entries)); err != nil {
		return found, err
	}
	found.keys = f.relation()
	return found, nil
}

// parsed are the entries of the read whose key is one; the others are refused.
func (f *appFeed) parsed(ctx context.Context, s *session, read *watermarkRead, found *changes) ([]entry, error) {
	entries, err := f.entries(ctx, s, read)
	if err != nil {
		return nil, err
	}
	if entries, err = f.known(ctx, s, entries, found); err != nil {
		return nil, err
	}
	bad, err := f.unparsable(ctx, s, entries)
	if err != nil {
		return nil, err
	}
	reason := fmt.Sprintf("(%s) is no key (%s) of %s: if the row was changed, change it again so that an entry names it; if entries of other tables are among those read, tell them apart by log.type",
		strings.Join(f.log.Object, ", "), strings.Join(f.rows.Key, ", "), f.rows.Table.Name)
	var good []entry
	for i, e := range entries {
		if !bad[i] && !e.null {
			good = append(good, e)
			continue
		}
		if err := f.refuse(ctx, s, e, f.log.Object[0], reason, found); err != nil {
			return nil, err
		}
	}
	return good, nil
}

// appCursor is the position in the log, and the rows whose deletion it tells of that
// were still there.
type appCursor struct {
	Position
	Awaited []awaited `json:"awaited,omitempty"`
}

type awaited struct {
	Key   []string  `json:"key"`
	Since time.Time `json:"since"`
}

// maxAwaited bounds what a cursor holds.
const maxAwaited = 10_000

// awaitDeletes returns the entries, and those of before whose row is gone by now. An
// application may write of a deletion, and commit that, before it deletes (Django's admin
// does, for several rows): such a row is looked for until the look-back is over.
func (f *appFeed) awaitDeletes(ctx context.Context, s *session, entries []entry, cursor json.RawMessage, found *changes) ([]entry, error) {
	if f.log.Action == nil {
		return entries, nil
	}
	before, err := position[appCursor](cursor)
	if err != nil {
		return nil, err
	}
	var asked []awaited
	for _, a := range before.Awaited {
		if len(a.Key) == len(f.rows.key) && s.at.Sub(a.Since) < f.log.Lookback.Time {
			asked = append(asked, a)
		}
	}
	old := len(asked)
	for _, e := range entries {
		if slices.Contains(f.log.Action.Deleted, e.action) {
			asked = append(asked, awaited{e.key, s.at})
		}
	}
	there, err := f.present(ctx, s, asked)
	if err != nil {
		return nil, err
	}
	after, err := position[appCursor](found.cursor)
	if err != nil {
		return nil, err
	}
	for i, a := range asked {
		switch {
		case there[i]:
			after.Awaited = append(after.Awaited, a)
		case i < old:
			entries = append(entries, entry{key: a.Key})
		}
	}
	if n := len(after.Awaited) - maxAwaited; n > 0 {
		after.Awaited = after.Awaited[n:]
	}
	found.cursor, err = encode(after)
	return entries, err
}

// present tells which of the keys a row has.
func (f *appFeed) present(ctx context.Context, s *session, keys []awaited) (map[int]bool, error) {
	there := map[int]bool{}
	if len(keys) == 0 {
		return there, nil
	}
	asked := make([][]string, len(keys))
	for i, k := range keys {
		asked[i] = k.Key
	}
	if err := s.bindKeys(ctx, f.rows, asked); err != nil {
		return nil, err
	}
	names, values := f.rows.keyNames(), make([]string, len(f.rows.key))
	for i, at := range f.rows.key {
		values[i] = "keys." + names[i] + "::" + keyType(f.rows.Table.Columns[at])
	}
	rows, err := s.tx.Query(ctx, fmt.Sprintf("SELECT n::int - 1 FROM %s WITH ORDINALITY AS keys(%s, n) WHERE (%s) IN (SELECT %s FROM %s WHERE true%s)",
		f.rows.boundKeys(), strings.Join(names, ", "), strings.Join(values, ", "), strings.Join(f.rows.compared(""), ", "), f.rows.Table.Source(), f.rows.carriedSQL()))
	if err != nil {
		return nil, fmt.Errorf("looking for deleted rows: %w", f.rows.withheld(err))
	}
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&n}, func() error {
		there[n] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("looking for deleted rows: %w", f.rows.withheld(err))
	}
	return there, nil
}

// entries fetches the entries of the read: their keys and nothing else.
func (f *appFeed) entries(ctx context.Context, s *session, read *watermarkRead) ([]entry, error) {
	objects := make([]string, len(f.log.Object))
	for i, name := range f.log.Object {
		objects[i] = catalog.Quote(name) + "::text"
	}
	action := "''"
	if f.log.Action != nil {
		action = "coalesce(" + catalog.Quote(f.log.Action.Column) + "::text, '')"
	}
	rows, err := s.tx.Query(ctx, read.keysSQL(fmt.Sprintf("array_replace(ARRAY[%[1]s], NULL, ''), array_position(ARRAY[%[1]s], NULL) IS NOT NULL, %[2]s, tableoid::bigint || ' ' || ctid::text",
		strings.Join(objects, ", "), action)))
	if err != nil {
		return nil, fmt.Errorf("reading the log %s: %w", f.w.Table.Name, err)
	}
	var out []entry
	var e entry
	if _, err := pgx.ForEachRow(rows, []any{&e.key, &e.null, &e.action, &e.at}, func() error {
		out = append(out, entry{slices.Clone(e.key), e.null, e.action, e.at})
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading the log %s: %w", f.w.Table.Name, err)
	}
	return out, nil
}

// known refuses the entries whose action is none of those declared. What happened to
// the row is not taken from it: the row itself shows.
func (f *appFeed) known(ctx context.Context, s *session, entries []entry, found *changes) ([]entry, error) {
	a := f.log.Action
	if a == nil {
		return entries, nil
	}
	var out []entry
	for _, e := range entries {
		if slices.Contains(a.Added, e.action) || slices.Contains(a.Changed, e.action) || slices.Contains(a.Deleted, e.action) {
			out = append(out, e)
			continue
		}
		if err := f.refuse(ctx, s, e, a.Column, fmt.Sprintf("the action %q is none of those of log.action: add it to added, changed or deleted, and change the row again or send full: true", e.action), found); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// shown is what is kept of a refused entry: all of it, or, since a log may tell what was
// in columns that must not be seen, no more than says which row it is about.
func (f *appFeed) shown() string {
	if !f.rows.Table.Hides() {
		return "t.*"
	}
	columns := []string{f.w.Cursor}
	if !slices.ContainsFunc(f.rows.key, func(at int) bool { return f.rows.Table.Columns[at].Hash }) {
		columns = append(columns, f.log.Object...)
	}
	if f.log.Type != nil {
		columns = append(columns, f.log.Type.Column)
	}
	if f.log.Action != nil {
		columns = append(columns, f.log.Action.Column)
	}
	slices.Sort(columns)
	columns = slices.Compact(columns)
	return "t." + strings.Join(catalog.QuoteAll(columns), ", t.")
}

// refuse keeps an entry, as JSON, with the reason.
func (f *appFeed) refuse(ctx context.Context, s *session, e entry, column, reason string, found *changes) error {
	oid, ctid, _ := strings.Cut(e.at, " ")
	var row []byte
	sql := fmt.Sprintf("SELECT (SELECT row_to_json(shown.*) FROM (SELECT %s) AS shown) FROM %s AS t WHERE t.tableoid = $1::text::oid AND t.ctid = $2::text::tid", f.shown(), f.w.Table.Source())
	if err := s.tx.QueryRow(ctx, sql, oid, ctid).Scan(&row); err != nil {
		return fmt.Errorf("reading a refused entry: %w", err)
	}
	found.refused = append(found.refused, Refused{column, f.w.Table.Name + ": " + reason, row})
	return nil
}

func keysOf(entries []entry) [][]string {
	keys := make([][]string, len(entries))
	for i, e := range entries {
		keys[i] = e.key
	}
	return keys
}

// relation is the keys that are bound.
func (f *appFeed) relation() string { return "SELECT * FROM " + f.rows.boundKeys() + " AS entry" }

// unparsable tells which entries have a key that Postgres does not read as one of the
// table: all are tried together, and halved where that fails.
func (f *appFeed) unparsable(ctx context.Context, s *session, entries []entry) (map[int]bool, error) {
	bad := map[int]bool{}
	var try func(from, to int) error
	try = func(from, to int) error {
		if from == to {
			return nil
		}
		err := pgx.BeginFunc(ctx, s.tx, func(tx pgx.Tx) error { // a savepoint
			if err := s.bindKeys(ctx, f.rows, keysOf(entries[from:to])); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "SELECT count(*) FROM ("+f.rows.typed(f.relation())+" OFFSET 0) AS t WHERE t IS NOT NULL")
			return err
		})
		switch {
		case err == nil:
			return nil
		case !strings.HasPrefix(fault.SQLState(err), "22"): // data exceptions
			return fmt.Errorf("reading the keys of the log %s: %w", f.w.Table.Name, err)
		case to-from == 1:
			bad[from] = true
			return nil
		}
		middle := (from + to) / 2
		if err := try(from, middle); err != nil {
			return err
		}
		return try(middle, to)
	}
	return bad, try(0, len(entries))
}

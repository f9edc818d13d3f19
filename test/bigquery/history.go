package bigquery

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidemark-data/tidemark/test/bigquery/dialect"
)

// The change history of a table costs nothing until a query asks for it, unless
// Options.ChangeHistory is set. Until then only the moments and numbers of the rows at its end are noted; from then
// on rows are copied to a table beside it before anything changes them, because
// APPENDS answers them as they were appended.
// https://cloud.google.com/bigquery/docs/change-history

// defaultTimeTravel is how far back a table can be asked about, and how long
// BigQuery keeps what was changed, unless the dataset says less.
const defaultTimeTravel = 7 * 24 * time.Hour

const (
	changeTimestampColumn = "_CHANGE_TIMESTAMP"
	appendedAtColumn      = "$at"
)

// history is what a table's rows at its end are, and what became of others; the
// lock rows guards it.
type history struct {
	// appended are the latest rows, in their order: nothing before or among them
	// was changed since.
	appended []appendedRows
	// changed is when a row was changed or removed last.
	changed time.Time
	// lost is until when appended rows may have been changed before anybody asked.
	lost time.Time
	// columns are those of the copied rows.
	columns []field
}

// appendedRows are rows that were appended at one moment.
type appendedRows struct {
	at     time.Time
	rows   int64
	copied bool
}

// commitTime is the moment of a commit that happens now.
func (s *Server) commitTime() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

// noteAppend notes rows that were appended to the end of a table and are
// visible. The caller holds the lock rows.
func (s *Server) noteAppend(t *table, rows int64) {
	if rows == 0 || t.id.dataset == anonymousDataset {
		return
	}
	h, at := &t.history, s.commitTime()
	h.appended = slices.DeleteFunc(h.appended, func(a appendedRows) bool { return at.Sub(a.at) > defaultTimeTravel })
	if n := len(h.appended); n > 0 && h.appended[n-1].at.Equal(at) && !h.appended[n-1].copied {
		h.appended[n-1].rows += rows
		return
	}
	h.appended = append(h.appended, appendedRows{at: at, rows: rows})
}

// beforeChange keeps the rows that APPENDS may be asked for before a statement
// changes or removes rows of a table with these columns. The caller holds the
// lock rows.
func (s *Server) beforeChange(ctx context.Context, t *table, fields []field) error {
	if t.copies.Load() == nil {
		if !s.changeHistory || len(t.history.appended) == 0 {
			return nil
		}
		if err := s.openHistory(ctx, t, fields); err != nil {
			return err
		}
	}
	return s.copyAppended(ctx, t, fields)
}

// forgetHistory is for a change that the copied rows cannot follow. The caller
// holds the lock rows.
func (s *Server) forgetHistory(ctx context.Context, t *table) error {
	now := s.commitTime()
	t.history = history{changed: now, lost: now}
	return s.dropHistory(ctx, t)
}

// noteChange notes that rows were changed or removed. The caller holds the lock
// rows, and called beforeChange.
func (s *Server) noteChange(t *table) {
	h := &t.history
	for _, a := range h.appended {
		if !a.copied {
			h.lost = a.at
		}
	}
	h.appended, h.changed = nil, s.commitTime()
}

// loseAppends notes that rows were appended among others that moved, so that
// nobody can tell them apart.
func (s *Server) loseAppends(t *table) {
	t.history.lost = s.commitTime()
}

// movesOnUpdate says whether DuckDB appends the rows that it updates.
func movesOnUpdate(fields []field) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return f.repeated || movesOnUpdate(f.fields) })
}

// noteDML notes what a statement did. The caller holds the lock rows.
func (s *Server) noteDML(t *table, out outcome) {
	updated, deleted, inserted := out.stats.UpdatedRowCount, out.stats.DeletedRowCount, out.stats.InsertedRowCount
	if updated+deleted > 0 {
		s.noteChange(t)
	}
	if inserted > 0 && updated > 0 && movesOnUpdate(s.fieldsOf(t)) {
		s.loseAppends(t)
		return
	}
	s.noteAppend(t, inserted)
}

// copyAppended copies the rows that are not copied yet. The caller holds the
// lock rows.
func (s *Server) copyAppended(ctx context.Context, t *table, fields []field) error {
	h, copies := &t.history, *t.copies.Load()
	if !slices.ContainsFunc(h.appended, func(a appendedRows) bool { return !a.copied }) {
		return nil
	}
	for _, f := range fields {
		i, ok := findField(h.columns, f.name)
		switch {
		case !ok:
			if err := s.store.exec(ctx, "ALTER TABLE "+copies+" ADD COLUMN "+quoteIdent(f.name)+" "+f.duckType()); err != nil {
				return err
			}
			h.columns = append(h.columns, f)
		case h.columns[i].duckType() != f.duckType():
			return s.forgetHistory(ctx, t)
		}
	}
	first, err := s.firstAppended(ctx, t)
	if err != nil {
		return err
	}
	var ranges []string
	var want int64
	for _, a := range h.appended {
		if !a.copied {
			ranges = append(ranges, fmt.Sprintf("(%d, %d, make_timestamptz(%d))", first, first+a.rows, a.at.UnixMicro()))
			want += a.rows
		}
		first += a.rows
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	copied, err := s.store.changed(ctx, "INSERT INTO "+copies+" ("+quotedList(names, "")+", "+quoteIdent(appendedAtColumn)+") SELECT "+
		quotedList(names, "t.")+", r.c FROM "+t.real()+" AS t JOIN (VALUES "+strings.Join(ranges, ", ")+") AS r(a, b, c) ON t.rowid >= r.a AND t.rowid < r.b")
	if err != nil {
		return err
	}
	if copied != want {
		return fmt.Errorf("copying the rows appended to %s: %d of %d are there", t.id, copied, want)
	}
	for i := range h.appended {
		h.appended[i].copied = true
	}
	return nil
}

// firstAppended is DuckDB's number of the first of the appended rows: they are
// the last of the table. The caller holds the lock rows.
func (s *Server) firstAppended(ctx context.Context, t *table) (int64, error) {
	var last, rows int64
	for _, a := range t.history.appended {
		rows += a.rows
	}
	if err := s.store.scalar(ctx, "SELECT coalesce(max(rowid), -1) FROM "+t.real(), &last); err != nil {
		return 0, err
	}
	return last + 1 - rows, nil
}

// timeTravel is how far back a table can be asked about.
func (s *Server) timeTravel(id tableID) time.Duration {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	if d, ok := s.cat.datasets[datasetID{id.project, id.dataset}]; ok && d.meta.MaxTimeTravelHours > 0 {
		return time.Duration(d.meta.MaxTimeTravelHours) * time.Hour
	}
	return defaultTimeTravel
}

// moments evaluates constant expressions of moments, empty for NULL.
func (s *Server) moments(ctx context.Context, expressions ...string) ([]sql.NullTime, error) {
	out := make([]sql.NullTime, len(expressions))
	dst := make([]any, len(expressions))
	for i := range expressions {
		if expressions[i] == "" {
			expressions[i] = "CAST(NULL AS TIMESTAMPTZ)"
		}
		dst[i] = &out[i]
	}
	if err := s.store.scalar(ctx, "SELECT "+strings.Join(expressions, ", "), dst...); err != nil {
		return nil, duckError(err)
	}
	return out, nil
}

// historic finds the table that a statement asks the past of.
func (s *Server) historic(q statementRequest, id tableID, what string) (*table, error) {
	if len(q.within) > 0 {
		return nil, errUnsupported("%s in a view", what)
	}
	t, err := s.cat.lookupAt(id, q.location)
	if err != nil {
		return nil, err
	}
	switch {
	case t.isView():
		return nil, errInvalidQuery("%s is not supported for the VIEW %s", what, id)
	case t.changes.Load() != nil:
		return nil, errUnsupported("%s of a table that had UPSERT streams (%s)", what, id)
	}
	return t, nil
}

// appends is the DuckDB query of APPENDS: the rows appended from a moment, or
// from the table's creation, until another, exclusive, or until now.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/time-series-functions#appends
func (s *Server) appends(ctx context.Context, q statementRequest, c dialect.Appends) (string, error) {
	t, err := s.historic(q, tableID{c.Project, c.Dataset, c.Table}, "APPENDS")
	if err != nil {
		return "", err
	}
	given, err := s.moments(ctx, c.Start, c.End)
	if err != nil {
		return "", err
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	start, end, err := s.changeWindow(t, given[0], given[1])
	if err != nil {
		return "", err
	}
	fields := s.fieldsOf(t)
	if err := s.openHistory(ctx, t, fields); err != nil {
		return "", err
	}
	if err := s.copyAppended(ctx, t, fields); err != nil {
		return "", err
	}
	if h := &t.history; !h.lost.IsZero() && !start.After(h.lost) {
		return "", errUnsupported("APPENDS of %s from %s: rows that were appended until %s were changed or removed before anybody asked for them; ask once before that",
			t.id, start.Format(time.RFC3339Nano), h.lost.Format(time.RFC3339Nano))
	}
	columns, err := t.history.columnsOf(t, fields)
	if err != nil {
		return "", err
	}
	at := quoteIdent(appendedAtColumn)
	columns = append(columns, "'INSERT' AS "+quoteIdent(changeTypeColumn), at+" AS "+quoteIdent(changeTimestampColumn))
	return "(SELECT " + strings.Join(columns, ", ") + " FROM " + *t.copies.Load() + " WHERE " + at + " >= make_timestamptz(" + strconv.FormatInt(start.UnixMicro(), 10) +
		") AND " + at + " < make_timestamptz(" + strconv.FormatInt(end.UnixMicro(), 10) + "))", nil
}

// changeWindow checks the moments of APPENDS.
func (s *Server) changeWindow(t *table, start, end sql.NullTime) (from, until time.Time, err error) {
	now := s.commitTime()
	oldest := now.Add(-s.timeTravel(t.id))
	from, until = t.created.UTC().Truncate(time.Microsecond), now
	if from.Before(oldest) && !start.Valid {
		return from, until, errInvalidQuery("Invalid time travel timestamp: table %s was created before the earliest allowed time %s; give APPENDS a start_timestamp", t.id, oldest.Format(time.RFC3339Nano))
	}
	if start.Valid {
		if start.Time.Before(oldest) {
			return from, until, errInvalidQuery("Invalid time travel timestamp %s for table %s. Cannot read before %s.", start.Time.UTC().Format(time.RFC3339Nano), t.id, oldest.Format(time.RFC3339Nano))
		}
		if start.Time.After(from) {
			from = start.Time.UTC()
		}
	}
	if end.Valid {
		if until = end.Time.UTC(); until.After(now) {
			return from, until, errInvalidQuery("The end_timestamp %s of APPENDS is in the future", until.Format(time.RFC3339Nano))
		}
	}
	if start.Valid && start.Time.After(until) {
		return from, until, errInvalidQuery("The start_timestamp of APPENDS is after its end_timestamp")
	}
	return from, until, nil
}

// openHistory makes the table of copies, and forgets what is too old to be asked
// for. The caller holds the lock rows.
func (s *Server) openHistory(ctx context.Context, t *table, fields []field) error {
	if copies := t.copies.Load(); copies != nil {
		return s.store.exec(ctx, "DELETE FROM "+*copies+" WHERE "+quoteIdent(appendedAtColumn)+" < make_timestamptz("+strconv.FormatInt(s.now().Add(-defaultTimeTravel).UnixMicro(), 10)+")")
	}
	name := quoteIdent(realSchema) + "." + quoteIdent("$appended "+t.physical)
	columns := make([]string, 0, len(fields)+1)
	for _, f := range fields {
		columns = append(columns, quoteIdent(f.name)+" "+f.duckType())
	}
	columns = append(columns, quoteIdent(appendedAtColumn)+" TIMESTAMPTZ")
	if err := s.store.exec(ctx, "CREATE TABLE "+name+" ("+strings.Join(columns, ", ")+")"); err != nil {
		return err
	}
	t.history.columns = slices.Clone(fields)
	t.copies.Store(&name)
	return nil
}

// columnsOf are the table's columns now, of its copied rows: one that was added
// since is NULL there.
func (h *history) columnsOf(t *table, fields []field) ([]string, error) {
	out := make([]string, len(fields))
	for i, f := range fields {
		j, ok := findField(h.columns, f.name)
		switch {
		case !ok:
			out[i] = "CAST(NULL AS " + f.duckType() + ") AS " + quoteIdent(f.name)
		case h.columns[j].duckType() != f.duckType():
			return nil, errUnsupported("the change history of %s, whose column %s had another type", t.id, f.name)
		default:
			out[i] = quoteIdent(f.name)
		}
	}
	return out, nil
}

// dropHistory drops the copies of a table that goes.
func (s *Server) dropHistory(ctx context.Context, t *table) error {
	copies := t.copies.Swap(nil)
	if copies == nil {
		return nil
	}
	return s.store.exec(ctx, "DROP TABLE IF EXISTS "+*copies)
}

// inherit takes over the history of the table that this one replaces as the same
// table with other rows. The caller holds the lock rows of both, and called
// beforeChange.
func (s *Server) inherit(t, old *table) {
	t.history = old.history
	old.history = history{}
	t.copies.Store(old.copies.Swap(nil))
	s.noteChange(t)
}

// asOf is the DuckDB query of a table FOR SYSTEM_TIME AS OF a moment after which
// rows were appended to it, at most.
// https://cloud.google.com/bigquery/docs/access-historical-data
func (s *Server) asOf(ctx context.Context, q statementRequest, c dialect.AsOf) (string, error) {
	const what = "FOR SYSTEM_TIME AS OF"
	t, err := s.historic(q, tableID{c.Project, c.Dataset, c.Table}, what)
	if err != nil {
		return "", err
	}
	given, err := s.moments(ctx, c.At)
	if err != nil {
		return "", err
	}
	if !given[0].Valid {
		return "", errInvalidQuery("FOR SYSTEM_TIME AS OF expression cannot be NULL")
	}
	at, now := given[0].Time.UTC(), s.commitTime()
	t.rows.Lock()
	defer t.rows.Unlock()
	switch {
	case at.After(now):
		return "", errInvalidQuery("Cannot read %s as of %s, which is in the future", t.id, at.Format(time.RFC3339Nano))
	case at.Before(now.Add(-s.timeTravel(t.id))), at.Before(t.created.UTC().Truncate(time.Microsecond)):
		return "", errInvalidQuery("Invalid snapshot time %s for table %s. Cannot read before %s.", at.Format(time.RFC3339Nano), t.id, t.created.UTC().Format(time.RFC3339Nano))
	case at.Before(t.history.changed):
		return "", errUnsupported("%s a moment before rows of %s were changed or removed", what, t.id)
	case s.widenedSince(t, at):
		return "", errUnsupported("%s a moment before columns were added to %s", what, t.id)
	}
	first, err := s.firstAppended(ctx, t)
	if err != nil {
		return "", err
	}
	for _, a := range t.history.appended {
		if a.at.After(at) {
			break
		}
		first += a.rows
	}
	if len(t.history.appended) == 0 {
		return t.real(), nil
	}
	return "(SELECT * FROM " + t.real() + " WHERE rowid < " + strconv.FormatInt(first, 10) + ")", nil
}

// widenedSince says whether the table got columns after a moment.
func (s *Server) widenedSince(t *table, at time.Time) bool {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	return slices.ContainsFunc(t.versions, func(v schemaVersion) bool { return v.until.After(at) })
}

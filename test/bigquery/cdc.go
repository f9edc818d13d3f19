package bigquery

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The pseudocolumns of change data capture.
// https://cloud.google.com/bigquery/docs/change-data-capture
const (
	changeTypeColumn     = "_CHANGE_TYPE"
	changeSequenceColumn = "_CHANGE_SEQUENCE_NUMBER"
)

const (
	// deleteRetention is how long a DELETE keeps older changes of its key out.
	deleteRetention = 48 * time.Hour
	// maxChangedColumns is the most top-level columns of a table with changes.
	maxChangedColumns = 2000
)

// changeLog is what a table has that had changes (UPSERT or DELETE rows): those
// that no query may see yet, and for each key the sequence number and the kind
// of the change it stands at. The table's lock guards it.
type changeLog struct {
	pending, keys string // quoted DuckDB names
	// physical is pending without the schema, as the appender takes it.
	physical string
	// sequenced is whether the changes carry sequence numbers, all or none.
	sequenced bool
	requests  int64
	// unapplied is true where queries merge changes at run time, because no
	// background job has applied them.
	unapplied bool
}

// The columns of pending before those of the table, which may get more.
func changeHead() []field {
	return []field{
		{name: "$type", kind: kindString},
		{name: "$sequence", kind: kindString},
		{name: "$request", kind: kindInt64},
		{name: "$row", kind: kindInt64},
		{name: "$at", kind: kindTimestamp},
	}
}

// changeColumns are the pseudocolumns as a writer's schema may have them.
func changeColumns() []field {
	return []field{{name: changeTypeColumn, kind: kindString}, {name: changeSequenceColumn, kind: kindString}}
}

// SetApplyDelay is Options.ApplyDelay from now on.
func (s *Server) SetApplyDelay(d time.Duration) { s.applyDelay.Store(int64(d)) }

// ApplyChanges applies every change that was streamed to any table, as
// BigQuery's background jobs do: all queries see them from now on, and none
// merges at run time until more come.
func (s *Server) ApplyChanges(ctx context.Context) error {
	s.cat.mu.RLock()
	var changed []*table
	for _, d := range s.cat.datasets {
		for _, t := range d.tables {
			if t.changes.Load() != nil {
				changed = append(changed, t)
			}
		}
	}
	s.cat.mu.RUnlock()
	for _, t := range changed {
		t.rows.Lock()
		err := s.applyAll(ctx, t)
		t.rows.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) applyAll(ctx context.Context, t *table) error {
	log := t.changes.Load()
	if log == nil { // the table was dropped
		return nil
	}
	if err := s.applyChanges(ctx, t, s.now()); err != nil {
		return err
	}
	log.unapplied = false
	return nil
}

// mergesAtRunTime says whether a query of the table has to merge changes that
// no background job has applied.
func (t *table) mergesAtRunTime() bool {
	t.rows.Lock()
	defer t.rows.Unlock()
	log := t.changes.Load()
	return log != nil && log.unapplied && t.staleness == 0
}

// refuseDML is BigQuery's answer to a statement that changes rows of a table
// that had changes.
func (t *table) refuseDML(kind string) error {
	if t.changes.Load() == nil {
		return nil
	}
	switch kind {
	case "UPDATE", "DELETE", "MERGE":
		return errInvalid("DELETE/UPDATE/MERGE DMLs are currently not supported over tables that had UPSERT streams.")
	case "TRUNCATE_TABLE":
		return errUnsupported("TRUNCATE TABLE of a table that had UPSERT streams (%s)", t.id)
	}
	return nil
}

// changeMode is what a connection has sent so far.
type changeMode int

const (
	modeUnknown changeMode = iota
	modeInsert
	modeUpsert
)

// classify tells rows to insert from changes, which a connection must not mix.
// With no pseudocolumns in the writer's schema all rows are inserted.
func (c *appendConnection) classify(b *rowBatch) (changeMode, error) {
	if !c.changes {
		return modeInsert, nil
	}
	types, sequences := &b.vectors[len(c.base)], &b.vectors[len(c.base)+1]
	mode := c.mode
	for i := range b.rows {
		given := string(types.texts[i])
		want := modeUpsert
		switch {
		case !types.set[i], given == "INSERT":
			want, given = modeInsert, "INSERT"
		case given != "UPSERT" && given != "DELETE":
			return 0, c.invalidChange("The given value is not a valid CHANGE_TYPE: %s.", given)
		case !c.stream.isDefault():
			return 0, c.invalidChange("The given value is not a valid CHANGE_TYPE in insert mode: %s.", given)
		}
		switch {
		case mode != modeUnknown && mode != want && want == modeUpsert:
			return 0, c.invalidChange("The given value is not a valid CHANGE_TYPE in insert mode: %s.", given)
		case mode != modeUnknown && mode != want:
			return 0, c.invalidChange("The given value is not a valid CHANGE_TYPE in upsert mode: %s.", given)
		case want == modeInsert && sequences.set[i]:
			return 0, status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support %s of a row that is no change. Entity: %s", changeSequenceColumn, c.stream.name)
		}
		mode = want
	}
	return mode, nil
}

func (c *appendConnection) invalidChange(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format+" Entity: %s", append(args, c.stream.name)...)
}

// changeable refuses changes of a table that cannot have them. The caller holds
// the table's lock.
func (c *appendConnection) changeable(t *table, key []string) error {
	switch {
	case len(key) == 0:
		return c.invalidChange("UPSERT stream is not supported for primary key disabled table: %s.", t.id)
	case len(c.base) > maxChangedColumns:
		return c.invalidChange("Table %s has %d top-level columns; a table with UPSERT streams has at most %d.", t.id, len(c.base), maxChangedColumns)
	case len(t.streamed) > 0:
		return status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support changes of a table that insertAll wrote to. Entity: %s", c.stream.name)
	case t.part.filter && t.staleness == 0:
		return status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support changes of a table that requires a partition filter and has no max_staleness. Entity: %s", c.stream.name)
	}
	return nil
}

// changeSequence is the format of _CHANGE_SEQUENCE_NUMBER.
var changeSequence = regexp.MustCompile(`^[0-9A-Fa-f]{1,16}(/[0-9A-Fa-f]{1,16}){0,3}$`)

// comparableSequence turns a sequence number into text that compares as it: sections
// of one width, those that lack 0.
func comparableSequence(text string) (string, bool) {
	if !changeSequence.MatchString(text) {
		return "", false
	}
	var out strings.Builder
	for _, section := range strings.Split(text, "/") {
		out.WriteString(strings.Repeat("0", 16-len(section)) + strings.ToUpper(section))
	}
	out.WriteString(strings.Repeat("0", 64-out.Len()))
	return out.String(), true
}

// keepChanges stores changes until a query sees them.
func (c *appendConnection) keepChanges(ctx context.Context, b *rowBatch) error {
	s, t := c.w.s, c.stream.table
	t.rows.Lock()
	defer t.rows.Unlock()
	key := s.primaryKey(t)
	if err := c.changeable(t, key); err != nil {
		return err
	}
	sequenced, err := c.sequence(b, key)
	if err != nil {
		return err
	}
	log, err := s.openChanges(ctx, t, key, sequenced)
	if err != nil {
		return err
	}
	if log.sequenced != sequenced {
		return status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support changes with and without %s in one table: their order is unpredictable. Entity: %s", changeSequenceColumn, c.stream.name)
	}
	log.requests++
	out := newRowBatch(append(changeHead(), c.base...), b.rows)
	copy(out.vectors[len(changeHead()):], b.vectors[:len(c.base)])
	out.vectors[0], out.vectors[1] = b.vectors[len(c.base)], b.vectors[len(c.base)+1]
	for i := range b.rows {
		out.vectors[2].put(i, value{i: log.requests})
		out.vectors[3].put(i, value{i: int64(i)})
		out.vectors[4].put(i, value{i: s.now().UnixMicro()})
	}
	columns := append(changeHead(), nullable(s.fieldsOf(t))...)
	if err := s.store.appendBatches(context.WithoutCancel(ctx), log.physical, columns, []*rowBatch{out}); err != nil {
		return fmt.Errorf("keeping changes of %s: %w", t.id, err)
	}
	log.unapplied, t.streamedAt = true, s.now()
	s.touch(t)
	return nil
}

// sequence checks the keys of changes and makes their sequence numbers comparable.
func (c *appendConnection) sequence(b *rowBatch, key []string) (sequenced bool, err error) {
	sequences := &b.vectors[len(c.base)+1]
	sequenced = b.rows > 0 && sequences.set[0]
	var bad badRowsError
	refuse := func(row int, format string, args ...any) {
		if len(bad.list) < maxRowErrors {
			bad.list = append(bad.list, &storagepb.RowError{Index: int64(row), Code: storagepb.RowError_FIELDS_ERROR, Message: fmt.Sprintf(format, args...)})
		}
	}
	for i := range b.rows {
		if sequences.set[i] != sequenced {
			return false, status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support changes with and without %s in one table: their order is unpredictable. Entity: %s", changeSequenceColumn, c.stream.name)
		}
		for _, name := range key {
			if k, ok := findField(c.base, name); ok && !b.vectors[k].set[i] {
				refuse(i, "the BigQuery emulator does not support changes of a row whose primary key is NULL (field %s)", name)
			}
		}
		if !sequenced {
			continue
		}
		text, ok := comparableSequence(string(sequences.texts[i]))
		if !ok {
			refuse(i, "%q is not a valid %s: 1 to 4 sections of 1 to 16 hexadecimal digits, separated by /", sequences.texts[i], changeSequenceColumn)
		}
		sequences.texts[i] = []byte(text)
	}
	if len(bad.list) > 0 {
		return false, &bad
	}
	return sequenced, nil
}

// primaryKey are the columns of a table's primary key, as the table names them.
func (s *Server) primaryKey(t *table) []string {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	out := slices.Clone(keyOf(t.meta.TableConstraints))
	for i, name := range out {
		if f, ok := findField(t.fields, name); ok {
			out[i] = t.fields[f].name
		}
	}
	return out
}

// openChanges makes the log with a table's first changes.
func (s *Server) openChanges(ctx context.Context, t *table, key []string, sequenced bool) (*changeLog, error) {
	if log := t.changes.Load(); log != nil {
		return log, nil
	}
	log := &changeLog{physical: t.physical + "~changes", sequenced: sequenced}
	log.pending = quoteIdent(realSchema) + "." + quoteIdent(log.physical)
	log.keys = quoteIdent(realSchema) + "." + quoteIdent(t.physical+"~keys")
	fields := nullable(s.fieldsOf(t))
	columns := make([]string, 0, len(fields)+5)
	for _, f := range append(changeHead(), fields...) {
		columns = append(columns, columnDefinition(f))
	}
	if err := s.store.exec(ctx, "CREATE TABLE "+log.pending+" ("+strings.Join(columns, ", ")+")"); err != nil {
		return nil, err
	}
	if err := s.store.exec(ctx, "CREATE TABLE "+log.keys+" AS SELECT "+quotedList(key, "")+", '' AS \"$sequence\", TRUE AS \"$deleted\", now() AS \"$at\" FROM "+t.real()+" LIMIT 0"); err != nil {
		return nil, err
	}
	t.changes.Store(log)
	return log, nil
}

// dropChanges forgets a table's log.
func (s *Server) dropChanges(ctx context.Context, t *table) error {
	log := t.changes.Swap(nil)
	if log == nil {
		return nil
	}
	if err := s.store.exec(ctx, "DROP TABLE IF EXISTS "+log.pending); err != nil {
		return err
	}
	return s.store.exec(ctx, "DROP TABLE IF EXISTS "+log.keys)
}

// quotedList quotes names, each behind a prefix.
func quotedList(names []string, prefix string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + quoteIdent(n)
	}
	return strings.Join(out, ", ")
}

// equalOn joins two relations on columns.
func equalOn(names []string, left, right string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = left + "." + quoteIdent(n) + " = " + right + "." + quoteIdent(n)
	}
	return strings.Join(out, " AND ")
}

// applyChanges applies the pending changes that were streamed until a moment.
// Of several of a key the one with the highest sequence number wins, of equal
// ones the one of the latest request, and within a request, whose rows came at
// one time, the first, as BigQuery was seen to do it
// (https://github.com/googleapis/java-bigquerystorage/issues/2404). The caller
// holds the table's lock.
func (s *Server) applyChanges(ctx context.Context, t *table, until time.Time) error {
	log, key := t.changes.Load(), s.primaryKey(t)
	due := `"$at" <= make_timestamptz(` + strconv.FormatInt(until.UnixMicro(), 10) + ")"
	var pending int64
	if err := s.store.scalar(ctx, "SELECT count(*) FROM "+log.pending+" WHERE "+due, &pending); err != nil || pending == 0 {
		return err
	}
	if len(key) == 0 {
		return errUnsupported("applying changes of %s, which has lost its primary key", t.id)
	}
	names := make([]string, 0, len(key))
	for _, f := range s.fieldsOf(t) {
		names = append(names, f.name)
	}
	forgotten := strconv.FormatInt(s.now().Add(-deleteRetention).UnixMicro(), 10)
	newest := quoteIdent("newest " + t.physical)
	return s.inTransaction(context.WithoutCancel(ctx), nil, func(conn *sql.Conn) error {
		for _, step := range []string{
			"DELETE FROM " + log.keys + ` WHERE "$deleted" AND "$at" <= make_timestamptz(` + forgotten + ")",
			"CREATE OR REPLACE TEMP TABLE " + newest + " AS SELECT * FROM " + log.pending + " WHERE " + due +
				" QUALIFY row_number() OVER (PARTITION BY " + quotedList(key, "") + ` ORDER BY "$sequence" DESC, "$request" DESC, "$row") = 1`,
			"DELETE FROM " + newest + " AS n USING " + log.keys + " AS k WHERE " + equalOn(key, "n", "k") + ` AND n."$sequence" < k."$sequence"`,
			"DELETE FROM " + t.real() + " AS t USING " + newest + " AS n WHERE " + equalOn(key, "t", "n"),
			"INSERT INTO " + t.real() + " (" + quotedList(names, "") + ") SELECT " + quotedList(names, "") + " FROM " + newest + ` WHERE "$type" = 'UPSERT'`,
			"DELETE FROM " + log.keys + " AS k USING " + newest + " AS n WHERE " + equalOn(key, "k", "n"),
			"INSERT INTO " + log.keys + " SELECT " + quotedList(key, "") + `, coalesce("$sequence", ''), "$type" = 'DELETE', "$at" FROM ` + newest,
			"DELETE FROM " + log.pending + " WHERE " + due,
			"DROP TABLE " + newest,
		} {
			if _, err := conn.ExecContext(ctx, step); err != nil {
				return fmt.Errorf("applying changes of %s: %w", t.id, duckError(err))
			}
		}
		return nil
	})
}

// staleness is a max_staleness of a table's metadata.
var staleness = regexp.MustCompile(`^0-0 (\d+) (\d+):(\d+):(\d+)(?:\.0*)?$`)

func readStaleness(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	m := staleness.FindStringSubmatch(text)
	if m == nil {
		return 0, errInvalid("Invalid value for max_staleness: %q; the emulator takes days, hours, minutes and seconds as 0-0 D H:M:S", text)
	}
	var total time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		n, err := strconv.ParseInt(m[i+1], 10, 32)
		if err != nil {
			return 0, errInvalid("Invalid value for max_staleness: %q", text)
		}
		total += time.Duration(n) * unit
	}
	return total, nil
}

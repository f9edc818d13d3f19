// Package target writes rows into PostgreSQL so that production does not notice:
// they are staged, compared with what is there, and only real changes are
// applied, in key order and short transactions under tight timeouts (I10).
package target

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Column is a column of the rows to write: its name there, and the Postgres
// type it is staged as.
type Column struct{ Name, Type string }

// Database is a pool of connections to the database that is written to.
type Database = pgxpool.Pool

// Staging is one run's rows on their way into a table. They live in unlogged
// tables of the schema tidemark until Drop.
type Staging struct {
	pool  *Database
	sync  *pipeline.Sync
	table *catalog.Table
	owner string // names the sync, and the staging tables with it
	raw   string // as read
	cast  string // in the types of the table, keys unique
	plan  string // what is to be written, numbered in the order of it

	keys, values []staged
	ids          []staged // name a row of the plan: the keys, or the table's own where those name many
	marks        []Column // of those below, the ones the rows come with
	deleted      *catalog.Column
	plain        bool  // updates fire no trigger of anybody's
	updatesFrom  int64 // number of the first update of the plan
	updatesTo    int64 // and of the last
	rows         int64 // rows that were staged, numbered from 1
	casts        int64 // of them were cast
	through      int64 // rows of the plan up to this number have been applied, or are marked as left or refused
}

// Names of columns that say something of a row and are written nowhere: which key
// it has, as BigQuery's fingerprint (bigint), and that the source no longer has it (boolean).
const (
	KeyMark     = "_tidemark_key"
	RemovedMark = "_tidemark_removed"
)

// marked is how the staging table of what was read names a mark, "" for no mark.
func marked(column string) string {
	switch strings.ToLower(column) {
	case KeyMark:
		return "fingerprint"
	case RemovedMark:
		return "removed"
	}
	return ""
}

// staged is a mapped column.
type staged struct {
	name   string // in the staging tables: no name of the outside world
	from   Column
	column *catalog.Column
}

// Open checks the mapping against the catalogue and creates the staging tables.
// unit names the sync and token its lease: what an earlier, dead run of the
// same sync left behind is dropped, and a run that lost its lease finds its
// tables gone.
func Open(ctx context.Context, pool *Database, sync *pipeline.Sync, schema, unit string, token int64, columns []Column) (*Staging, error) {
	table, err := catalog.Describe(ctx, pool, schema, sync.Table)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(unit))
	s := &Staging{pool: pool, sync: sync, table: table, owner: "stage_" + hex.EncodeToString(sum[:8]), through: math.MinInt64}
	prefix := fmt.Sprintf("tidemark.%s_%d_", s.owner, token)
	s.raw, s.cast, s.plan = prefix+"raw", prefix+"cast", prefix+"plan"
	if s.keys, err = s.mapped("k", sync.Key, columns); err != nil {
		return nil, err
	}
	if s.values, err = s.mapped("c", sync.Columns, columns); err != nil {
		return nil, err
	}
	if err := s.identify(); err != nil {
		return nil, err
	}
	for _, c := range columns {
		if marked(c.Name) != "" {
			s.marks = append(s.marks, c)
		}
	}
	if err := s.checkKey(ctx); err != nil {
		return nil, err
	}
	if s.inserts() {
		if err := s.checkInsertable(ctx); err != nil {
			return nil, err
		}
	}
	if s.updates() {
		if err := s.lookForTriggers(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.create(ctx); err != nil {
		return nil, errors.Join(table.Explain(ctx, pool, err, s.rights()), s.Drop(ctx))
	}
	return s, nil
}

// identify finds the columns that rows of the plan are known by, and the one that
// says that a row is deleted.
func (s *Staging) identify() error {
	s.ids = s.keys
	if s.sync.Many {
		if len(s.table.Primary) == 0 {
			return fault.Fix(fmt.Errorf("table %s has no primary key, which is needed to write all the rows that a key names", s.table.Name), "add one, or map a key that names one row and leave out many: true")
		}
		s.ids = nil
		for i, name := range s.table.Primary {
			s.ids = append(s.ids, staged{name: fmt.Sprintf("p%d", i+1), column: s.table.Column(name)})
		}
	}
	if s.sync.DeletedColumn == "" {
		return nil
	}
	if s.deleted = s.table.Column(s.sync.DeletedColumn); s.deleted == nil {
		return s.table.Missing("column", s.sync.DeletedColumn)
	}
	if _, known := deletedNow()[s.deleted.Base]; !known {
		return fault.Fix(fmt.Errorf("column %s of %s is of type %s, which cannot say that a row is deleted", s.deleted.Name, s.table.Name, s.deleted.Type), "name a boolean, date or timestamp column as deleted_column")
	}
	if s.deleted.NotNull && s.deleted.Base != "bool" {
		return fault.Fix(fmt.Errorf("column %s of %s must not be NULL, as it is of a row that is not deleted", s.deleted.Name, s.table.Name), "ALTER TABLE .. ALTER COLUMN .. DROP NOT NULL, or name a boolean column as deleted_column")
	}
	return nil
}

// deletedNow is by base type what a soft delete writes.
func deletedNow() map[string]string {
	return map[string]string{"bool": "true", "timestamptz": "clock_timestamp()", "timestamp": "clock_timestamp() AT TIME ZONE 'UTC'", "date": "CURRENT_DATE"}
}

// lookForTriggers finds out whether an update runs code that is not Postgres' own.
func (s *Staging) lookForTriggers(ctx context.Context) error {
	err := s.catalogue(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, treeSQL+`
			SELECT NOT EXISTS (SELECT FROM tree JOIN pg_trigger ON tgrelid = relation WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgtype & $2 <> 0)
			   AND NOT EXISTS (SELECT FROM tree JOIN pg_class ON oid = relation WHERE relhasrules)`, s.table.OID(), triggerUpdate).Scan(&s.plain)
	})
	if err != nil {
		return fmt.Errorf("looking for triggers: %w", err)
	}
	return nil
}

// inserts, updates and deletes say what the mode does to rows.
func (s *Staging) inserts() bool {
	return s.sync.Mode == pipeline.ModeInsert || s.sync.Mode == pipeline.ModeUpsert || s.sync.Mode == pipeline.ModeMirror
}

func (s *Staging) updates() bool {
	return s.sync.Mode != pipeline.ModeInsert && (len(s.values) > 0 || s.deleted != nil)
}

func (s *Staging) deletes() bool { return s.sync.Mode == pipeline.ModeMirror }

// rights are the least that writing the table takes: rows are found by the key and
// compared by the other columns, and to lock them is to have the right to update.
func (s *Staging) rights() []catalog.Right {
	var out []catalog.Right
	read := s.all()
	if s.sync.Mode == pipeline.ModeInsert {
		read = s.keys
	}
	if s.sync.Many {
		read = append(read, s.ids...)
	}
	if s.deleted != nil {
		read = append(read, staged{column: s.deleted})
		out = append(out, catalog.Right{Privilege: "UPDATE", Column: s.deleted.Name})
	}
	if s.sync.Where != "" { // which may name any column
		read, out = nil, append(out, catalog.Right{Privilege: "SELECT"})
	}
	for _, c := range read {
		out = append(out, catalog.Right{Privilege: "SELECT", Column: c.column.Name})
	}
	if s.inserts() {
		for _, c := range s.all() {
			out = append(out, catalog.Right{Privilege: "INSERT", Column: c.column.Name})
		}
	}
	if s.sync.Where != "" { // it may name any column
		out = append(out, catalog.Right{Privilege: "SELECT"})
	}
	if s.updates() {
		for _, c := range s.values {
			out = append(out, catalog.Right{Privilege: "UPDATE", Column: c.column.Name})
		}
	}
	if s.deletes() && s.deleted == nil {
		out = append(out, catalog.Right{Privilege: "DELETE"})
	}
	return out
}

// checkKey refuses key columns that cannot name a row for certain. What an
// extension calls equal depends on the search_path.
func (s *Staging) checkKey(ctx context.Context) error {
	if !s.sync.Many {
		if _, err := s.table.CheckKey(s.keyColumns()); err != nil {
			return err
		}
	}
	for _, k := range s.keys {
		if k.column.Base != "" {
			continue
		}
		var enum bool
		if err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid = $1 AND typtype = 'e')", k.column.Param).Scan(&enum)
		}); err != nil {
			return fmt.Errorf("looking up the type of key column %s: %w", k.column.Name, err)
		}
		if !enum {
			return fault.Fix(fmt.Errorf("key column %s of %s is a %s, whose equality is an extension's own", k.column.Name, s.table.Name, k.column.Type),
				"choose key columns of a built-in type or an enum, with a unique index")
		}
	}
	return nil
}

func (s *Staging) keyColumns() []string {
	out := make([]string, len(s.keys))
	for i, k := range s.keys {
		out[i] = k.column.Name
	}
	return out
}

func (s *Staging) mapped(prefix string, mappings []pipeline.Mapping, columns []Column) ([]staged, error) {
	out := make([]staged, len(mappings))
	for i, m := range mappings {
		at := slices.IndexFunc(columns, func(c Column) bool { return strings.EqualFold(c.Name, m.From) })
		if at < 0 {
			names := make([]string, len(columns))
			for j, c := range columns {
				names[j] = c.Name
			}
			return nil, NoColumn(m.From, names)
		}
		column := s.table.Column(m.To)
		if column == nil {
			return nil, s.table.Missing("column", m.To)
		}
		out[i] = staged{fmt.Sprintf("%s%d", prefix, i+1), columns[at], column}
		if out[i].refused() {
			return nil, s.unstorable(out[i])
		}
	}
	return out, nil
}

// NoColumn is the error for a mapped column that the source does not have.
func NoColumn(name string, known []string) error {
	return fault.Fix(fmt.Errorf("the query has no column %q", name), "select it, or correct the mapping; the query has: "+strings.Join(known, ", "))
}

func (s *Staging) all() []staged { return append(slices.Clone(s.keys), s.values...) }

// Columns are the columns to load, in order, as the query names them.
func (s *Staging) Columns() []string {
	var out []string
	for _, c := range s.all() {
		out = append(out, c.from.Name)
	}
	for _, m := range s.marks {
		out = append(out, m.Name)
	}
	return out
}

// Targets are the columns of the table that Columns go to; marks, which are the
// last of those, go nowhere.
func (s *Staging) Targets() []string {
	var out []string
	for _, c := range s.all() {
		out = append(out, c.column.Name)
	}
	return out
}

// loaded are the columns of the staging table of what is read that Columns go to.
func (s *Staging) loaded() []string {
	out := names(s.all())
	for _, m := range s.marks {
		out = append(out, marked(m.Name))
	}
	return out
}

func (s *Staging) create(ctx context.Context) error {
	if err := s.sweep(ctx); err != nil {
		return err
	}
	raw, cast := []string{"n bigint GENERATED ALWAYS AS IDENTITY", "fingerprint bigint", "removed boolean"}, make([]string, 0, len(s.keys)+len(s.values))
	for _, c := range s.all() {
		raw = append(raw, c.name+" "+c.from.Type)
		cast = append(cast, "t."+catalog.Quote(c.column.Name)+" AS "+c.name)
	}
	// Columns taken from the table itself have its types and collations too.
	from := " FROM " + s.table.SQLName() + " t WITH NO DATA"
	like := strings.Join(cast, ", ")
	planned := like
	if s.sync.Many {
		for _, c := range s.ids {
			planned += ", t." + catalog.Quote(c.column.Name) + " AS " + c.name
		}
	}
	for _, sql := range []string{
		"CREATE UNLOGGED TABLE " + s.raw + " (" + strings.Join(raw, ", ") + ")",
		"CREATE UNLOGGED TABLE " + s.cast + " AS SELECT NULL::bigint AS n, NULL::boolean AS removed, NULL::boolean AS kept, " + like + from,
		"CREATE UNLOGGED TABLE " + s.plan + " AS SELECT NULL::bigint AS n, NULL::bigint AS staged, NULL::text AS action, " + planned + from,
	} {
		if err := s.exec(ctx, sql); err != nil {
			return fmt.Errorf("creating the staging tables: %w", err)
		}
	}
	return s.prove(ctx)
}

// prove has Postgres plan every cast, test and statement that writes while the
// staging tables are empty: what cannot work is found before any row moves.
func (s *Staging) prove(ctx context.Context) error {
	for _, c := range s.all() {
		sql := "SELECT " + c.cast()
		if exact := c.exact(); exact != "" {
			sql += ", " + exact
		}
		err := s.exec(ctx, sql+" FROM "+s.raw)
		switch fault.SQLState(err) {
		case "42846", "42883", "42804": // cannot_coerce, undefined_function (and operator), datatype_mismatch
			return s.unstorable(c)
		}
		if err != nil {
			return fmt.Errorf("casting column %q of the query to %s: %w", c.from.Name, c.column.Type, err)
		}
	}
	if s.sync.Where != "" {
		if err := s.exec(ctx, "EXPLAIN SELECT FROM "+s.table.SQLName()+" t WHERE "+s.within("t")); err != nil {
			return fault.Fix(fmt.Errorf("planning the sync's where: %w", err), "correct target.where: a condition of Postgres on the columns of "+s.table.Name)
		}
	}
	err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error { return s.explain(ctx, tx) })
	if fault.SQLState(err) == "42P10" { // invalid_column_reference: no unique index is on exactly these columns
		return fault.Fix(fmt.Errorf("no unique index of %s is on exactly (%s), which an upsert needs", s.table.Name, strings.Join(s.keyColumns(), ", ")),
			fmt.Sprintf("CREATE UNIQUE INDEX CONCURRENTLY ON %s (%s), or name exactly the columns of an existing one as key", s.table.SQLName(), strings.Join(catalog.QuoteAll(s.keyColumns()), ", ")))
	}
	if err != nil {
		return fmt.Errorf("planning to write to %s: %w", s.table.Name, err)
	}
	return nil
}

// explain has Postgres plan the statements that write, with their locks and
// privileges, and runs none.
func (s *Staging) explain(ctx context.Context, tx pgx.Tx) error {
	var statements []string
	if s.updates() {
		statements = append(statements, s.updateSQL("s.n < 0"))
	}
	if s.inserts() {
		statements = append(statements, s.insertSQL("n < 0"))
	}
	if s.deletes() {
		statements = append(statements, s.deleteSQL("s.n < 0"))
	}
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, "EXPLAIN "+sql); err != nil {
			return err
		}
	}
	return nil
}

// sweep drops the staging tables of runs of this sync that ended without Drop.
// The schema is created only where it is missing: IF NOT EXISTS would ask for the
// right to create one even where it exists.
func (s *Staging) sweep(ctx context.Context) error {
	var left []string
	if err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'tidemark')").Scan(&exists); err != nil {
			return fmt.Errorf("looking it up: %w", err)
		}
		if !exists {
			_, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS tidemark")
			return err
		}
		rows, err := tx.Query(ctx, "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = 'tidemark'::regnamespace AND relkind = 'r' AND starts_with(relname::text, $1)", s.owner)
		if err != nil {
			return err
		}
		if left, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return fmt.Errorf("looking for tables left behind: %w", err)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("preparing the schema of the staging tables: %w", err)
	}
	for _, name := range left {
		if err := s.exec(ctx, "DROP TABLE IF EXISTS tidemark."+catalog.Quote(name)); err != nil {
			return fmt.Errorf("dropping a staging table left behind: %w", err)
		}
	}
	return nil
}

// Drop removes the staging tables. It works after the run's context has ended.
func (s *Staging) Drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	s.rows = 0
	if err := s.exec(ctx, "DROP TABLE IF EXISTS "+s.raw+", "+s.cast+", "+s.plan); err != nil {
		return fmt.Errorf("dropping the staging tables: %w", err)
	}
	return nil
}

// Load stages rows: fill writes them as COPY BINARY of Columns.
func (s *Staging) Load(ctx context.Context, fill func(io.Writer) error) (loaded int64, err error) {
	r, w := io.Pipe()
	filled := make(chan error, 1)
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		go func() {
			err := fill(w)
			_ = w.CloseWithError(err) // never fails
			filled <- err
		}()
		tag, err := tx.Conn().PgConn().CopyFrom(ctx, r, "COPY "+s.raw+" ("+strings.Join(s.loaded(), ", ")+") FROM STDIN (FORMAT binary)")
		_ = r.CloseWithError(io.ErrClosedPipe) // ends fill if COPY gave up first
		loaded = tag.RowsAffected()
		if source := <-filled; source != nil && !errors.Is(source, io.ErrClosedPipe) {
			return source
		}
		if err != nil {
			return fmt.Errorf("copying: %w", err)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("staging rows: %w", err)
	}
	s.rows = loaded
	return loaded, nil
}

// Within is a condition on the rows of a table: one that the user wrote, "" for none,
// and that a column has a value, given as text.
func Within(where, column, value string) string {
	own := catalog.Quote(column) + "::text = " + literal(value)
	if where == "" {
		return own
	}
	return "(" + where + "\n) AND " + own
}

// HasColumn reports whether a table has a column.
func HasColumn(ctx context.Context, pool *Database, schema, table, column string) (bool, error) {
	t, err := catalog.Describe(ctx, pool, schema, table)
	if err != nil {
		return false, err
	}
	return t.Column(column) != nil, nil
}

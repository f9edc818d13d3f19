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

// Staging is one run's rows on their way into a table. They live in unlogged
// tables of the schema tidemark until Drop.
type Staging struct {
	pool  *pgxpool.Pool
	sync  *pipeline.Sync
	table *catalog.Table
	owner string // names the sync, and the staging tables with it
	raw   string // as read
	cast  string // in the types of the table, keys unique
	plan  string // what is to be written, numbered in key order

	keys, values []staged
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
func Open(ctx context.Context, pool *pgxpool.Pool, sync *pipeline.Sync, schema, unit string, token int64, columns []Column) (*Staging, error) {
	table, err := catalog.Describe(ctx, pool, schema, sync.Table)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(unit))
	s := &Staging{pool: pool, sync: sync, table: table, owner: "stage_" + hex.EncodeToString(sum[:8])}
	prefix := fmt.Sprintf("tidemark.%s_%d_", s.owner, token)
	s.raw, s.cast, s.plan = prefix+"raw", prefix+"cast", prefix+"plan"
	if s.keys, err = s.mapped("k", sync.Key, columns); err != nil {
		return nil, err
	}
	if s.values, err = s.mapped("c", sync.Columns, columns); err != nil {
		return nil, err
	}
	key := make([]string, len(s.keys))
	for i, k := range s.keys {
		key[i] = k.column.Name
	}
	if _, err := table.CheckKey(key); err != nil {
		return nil, err
	}
	return s, s.create(ctx)
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
			return nil, fault.Fix(fmt.Errorf("the query has no column %q", m.From), "select it, or correct the mapping; the query has: "+strings.Join(names, ", "))
		}
		column := s.table.Column(m.To)
		if column == nil {
			return nil, s.table.Missing("column", m.To)
		}
		out[i] = staged{fmt.Sprintf("%s%d", prefix, i+1), columns[at], column}
	}
	return out, nil
}

func (s *Staging) all() []staged { return append(slices.Clone(s.keys), s.values...) }

// Columns are the columns to load, in order.
func (s *Staging) Columns() []string {
	var out []string
	for _, c := range s.all() {
		out = append(out, c.from.Name)
	}
	return out
}

func (s *Staging) create(ctx context.Context) error {
	if err := s.sweep(ctx); err != nil {
		return err
	}
	raw, cast, plan := []string{"n bigint GENERATED ALWAYS AS IDENTITY"}, []string{"n bigint"}, []string{"n bigint", "action text"}
	for _, c := range s.all() {
		raw = append(raw, c.name+" "+c.from.Type)
		cast = append(cast, c.name+" "+c.column.Type)
		plan = append(plan, c.name+" "+c.column.Type)
	}
	for name, columns := range map[string][]string{s.raw: raw, s.cast: cast, s.plan: plan} {
		if _, err := s.pool.Exec(ctx, "CREATE UNLOGGED TABLE "+name+" ("+strings.Join(columns, ", ")+")"); err != nil {
			return errors.Join(fmt.Errorf("creating the staging tables: %w", err), s.Drop(ctx))
		}
	}
	// A cast that does not exist is found before any row moves.
	if _, err := s.pool.Exec(ctx, s.castSQL("true")); err != nil {
		err = fmt.Errorf("casting the query's columns to those of %s: %w", s.table.Name, err)
		if fault.SQLState(err) == "42846" { // cannot_coerce
			err = fault.Fix(err, "cast the column in the query to the type of the table's column")
		}
		return errors.Join(err, s.Drop(ctx))
	}
	return nil
}

// sweep drops the staging tables of runs of this sync that ended without Drop.
func (s *Staging) sweep(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS tidemark`); err != nil {
		return fmt.Errorf("creating the schema of the staging tables: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT relname FROM pg_class WHERE relnamespace = 'tidemark'::regnamespace AND relkind = 'r' AND starts_with(relname::text, $1)`, s.owner)
	if err != nil {
		return fmt.Errorf("looking for staging tables left behind: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("looking for staging tables left behind: %w", err)
	}
	for _, name := range names {
		if _, err := s.pool.Exec(ctx, "DROP TABLE IF EXISTS tidemark."+catalog.Quote(name)); err != nil {
			return fmt.Errorf("dropping a staging table left behind: %w", err)
		}
	}
	return nil
}

// Drop removes the staging tables. It works after the run's context has ended.
func (s *Staging) Drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := s.pool.Exec(ctx, "DROP TABLE IF EXISTS "+s.raw+", "+s.cast+", "+s.plan); err != nil {
		return fmt.Errorf("dropping the staging tables: %w", err)
	}
	return nil
}

// Load stages rows: fill writes them as COPY BINARY of Columns.
func (s *Staging) Load(ctx context.Context, fill func(io.Writer) error) (int64, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("staging rows: %w", err)
	}
	defer conn.Release()
	r, w := io.Pipe()
	filled := make(chan error, 1)
	go func() {
		err := fill(w)
		_ = w.CloseWithError(err) // never fails
		filled <- err
	}()
	names := make([]string, 0, len(s.keys)+len(s.values))
	for _, c := range s.all() {
		names = append(names, c.name)
	}
	tag, err := conn.Conn().PgConn().CopyFrom(ctx, r, "COPY "+s.raw+" ("+strings.Join(names, ", ")+") FROM STDIN (FORMAT binary)")
	_ = r.CloseWithError(io.ErrClosedPipe) // ends fill if COPY gave up first
	if source := <-filled; source != nil && !errors.Is(source, io.ErrClosedPipe) {
		return 0, source
	}
	if err != nil {
		return 0, fmt.Errorf("staging rows: %w", err)
	}
	return tag.RowsAffected(), nil
}

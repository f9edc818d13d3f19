package bigquery

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/duckdb/duckdb-go/v2"

	"github.com/tidemark-data/tidemark/test/bigquery/dialect"
)

// maxConnections bounds the connections to DuckDB. No operation needs a second
// one while it holds one, so the bound cannot deadlock.
const maxConnections = 32

// realSchema is the DuckDB schema of all tables.
const realSchema = "main"

// store is the DuckDB behind the emulator.
type store struct {
	db  *sql.DB
	now string // DuckDB's expression of the emulator's clock
}

func openStore(ctx context.Context, clock func() time.Time) (*store, error) {
	connector, err := duckdb.NewConnector("", nil)
	if err != nil {
		return nil, fmt.Errorf("opening DuckDB: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections)
	st := &store{db: db}
	for _, setting := range []string{
		// TIMESTAMP values are instants; their civil parts are UTC's unless a
		// function names another zone.
		"SET GLOBAL TimeZone = 'UTC'",
		// NULL is the smallest value in GoogleSQL.
		"SET GLOBAL default_null_order = 'NULLS_FIRST_ON_ASC_LAST_ON_DESC'",
		"SET GLOBAL preserve_insertion_order = true",
		// A statement must not reach this machine's files or the network.
		"SET GLOBAL autoinstall_known_extensions = false",
		"SET GLOBAL autoload_known_extensions = false",
		"SET GLOBAL enable_external_access = false",
	} {
		if err := st.exec(ctx, setting); err != nil {
			return nil, errors.Join(fmt.Errorf("setting up DuckDB: %w", err), db.Close())
		}
	}
	err = dialect.Register(ctx, db)
	if err == nil {
		st.now, err = dialect.RegisterClock(ctx, db, clock)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("setting up DuckDB: %w", err), db.Close())
	}
	return st, nil
}

func (st *store) close() error {
	if err := st.db.Close(); err != nil {
		return fmt.Errorf("closing DuckDB: %w", err)
	}
	return nil
}

func (st *store) exec(ctx context.Context, query string) error {
	if _, err := st.db.ExecContext(ctx, query); err != nil { //nolint:gosec // identifiers are quoted, literals checked
		return fmt.Errorf("running %s: %w", query, err)
	}
	return nil
}

// changed is exec that counts the rows.
func (st *store) changed(ctx context.Context, query string) (int64, error) {
	result, err := st.db.ExecContext(ctx, query) //nolint:gosec // identifiers are quoted, literals checked
	if err != nil {
		return 0, fmt.Errorf("running %s: %w", query, err)
	}
	rows, err := result.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("counting rows: %w", err)
	}
	return rows, nil
}

// scalar runs a query of one row and scans it into dst.
func (st *store) scalar(ctx context.Context, query string, dst ...any) error {
	if err := st.db.QueryRowContext(ctx, query).Scan(dst...); err != nil { //nolint:gosec // identifiers are quoted, literals checked
		return fmt.Errorf("running %s: %w", query, err)
	}
	return nil
}

// appendBatches writes row batches into tables in one transaction: all of
// them become visible together or none.
func (st *store) appendBatches(ctx context.Context, table string, fields []field, batches []*rowBatch) error {
	conn, err := st.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close() //nolint:errcheck // it returns the connection to the pool
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	err = conn.Raw(func(raw any) error {
		dc, ok := raw.(driver.Conn)
		if !ok {
			return fmt.Errorf("appending: unexpected connection %T", raw)
		}
		return appendTo(dc, table, fields, batches)
	})
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// newAppender opens an appender. JSON columns are given as text and cast by a
// query, because the driver would re-encode them.
func newAppender(conn driver.Conn, table string, fields []field) (app *duckdb.Appender, err error) {
	if !slices.ContainsFunc(fields, field.holdsJSON) {
		app, err = duckdb.NewAppenderFromConn(conn, realSchema, table)
		return app, wrapAppender(err)
	}
	types, casts := make([]duckdb.TypeInfo, len(fields)), make([]string, len(fields))
	for i, f := range fields {
		if types[i], err = appendType(f); err != nil {
			return nil, err
		}
		casts[i] = fmt.Sprintf("col%d", i+1)
		if f.holdsJSON() {
			casts[i] = "CAST(" + casts[i] + " AS " + f.duckType() + ")"
		}
	}
	query := "INSERT INTO " + quoteIdent(realSchema) + "." + quoteIdent(table) + " SELECT " + strings.Join(casts, ", ") + " FROM appended_data"
	app, err = duckdb.NewQueryAppender(conn, query, "", types, nil)
	return app, wrapAppender(err)
}

func wrapAppender(err error) error {
	if err != nil {
		return fmt.Errorf("opening appender: %w", err)
	}
	return nil
}

// appendType is the type of a column in the rows that an appender is given.
func appendType(f field) (duckdb.TypeInfo, error) {
	var info duckdb.TypeInfo
	var err error
	switch {
	case f.repeated:
		element, elementErr := appendType(f.element())
		if elementErr != nil {
			return nil, elementErr
		}
		info, err = duckdb.NewListInfo(element)
	case f.kind == kindStruct:
		return appendStructType(f)
	case f.kind == kindNumeric:
		info, err = duckdb.NewDecimalInfo(38, numericScale)
	default:
		info, err = duckdb.NewTypeInfo(appendScalar(f.kind))
	}
	if err != nil {
		return nil, fmt.Errorf("describing %s: %w", f.name, err)
	}
	return info, nil
}

func appendScalar(k kind) duckdb.Type {
	switch k {
	case kindBool:
		return duckdb.TYPE_BOOLEAN
	case kindBytes:
		return duckdb.TYPE_BLOB
	case kindDate:
		return duckdb.TYPE_DATE
	case kindDatetime:
		return duckdb.TYPE_TIMESTAMP
	case kindFloat64:
		return duckdb.TYPE_DOUBLE
	case kindInt64:
		return duckdb.TYPE_BIGINT
	case kindTime:
		return duckdb.TYPE_TIME
	case kindTimestamp:
		return duckdb.TYPE_TIMESTAMP_TZ
	case kindBigNumeric, kindJSON, kindNumeric, kindString, kindStruct:
	}
	return duckdb.TYPE_VARCHAR
}

func appendStructType(f field) (duckdb.TypeInfo, error) {
	entries := make([]duckdb.StructEntry, len(f.fields))
	for i, m := range f.fields {
		member, err := appendType(m)
		if err != nil {
			return nil, err
		}
		if entries[i], err = duckdb.NewStructEntry(member, m.name); err != nil {
			return nil, fmt.Errorf("describing %s: %w", m.name, err)
		}
	}
	info, err := duckdb.NewStructInfo(entries[0], entries[1:]...)
	if err != nil {
		return nil, fmt.Errorf("describing %s: %w", f.name, err)
	}
	return info, nil
}

func appendTo(conn driver.Conn, table string, fields []field, batches []*rowBatch) error {
	app, err := newAppender(conn, table, fields)
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(fields))
	for _, b := range batches {
		for i := range b.rows {
			b.row(i, fields, row)
			if err := app.AppendRow(row...); err != nil {
				return errors.Join(fmt.Errorf("appending: %w", err), app.Close())
			}
		}
	}
	if err := app.Close(); err != nil {
		return fmt.Errorf("flushing: %w", err)
	}
	return nil
}

// Query runs a query on the DuckDB behind the emulator, for tests that look
// past the APIs. Rows of BigQuery tables live in tables named
// "dataset.table#n". The caller closes the rows.
func (s *Server) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := s.store.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("querying DuckDB: %w", err)
	}
	return rows, nil
}

// quoteIdent quotes a DuckDB identifier.
func quoteIdent(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// quoteText quotes a DuckDB string literal.
func quoteText(text string) string {
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

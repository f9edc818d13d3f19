package bigquery

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/duckdb/duckdb-go/v2"
	bq "google.golang.org/api/bigquery/v2"

	"github.com/tidemark-data/tidemark/test/bigquery/dialect"
)

// anonymousDataset holds the results of queries, as BigQuery's hidden
// datasets do.
const anonymousDataset = "_emulator_results"

// keptResults bounds the results that are kept; older ones answer notFound.
const keptResults = 1000

// outcome is what a statement did.
type outcome struct {
	destination *table // of a query
	affected    int64
	stats       *bq.DmlStatistics
	// partitions are those that DML touched, with their bytes before it.
	partitions map[string]int64
}

func (s *Server) execute(ctx context.Context, q statementRequest, p *prepared, destination *tableID, disposition string) (outcome, error) {
	switch {
	case p.ddl != nil:
		return outcome{}, s.runDDL(ctx, q, p)
	case isDML(p.kind):
		if destination != nil {
			return outcome{}, errInvalid("configuration.query.destinationTable cannot be set for DML")
		}
		return s.runDML(ctx, p)
	case p.kind == "SELECT":
		t, err := s.runSelect(ctx, q, p, destination, disposition)
		return outcome{destination: t}, err
	}
	return outcome{}, errUnsupported("the statement %s", p.kind)
}

// runSelect stores the result in a table, an anonymous one unless named.
func (s *Server) runSelect(ctx context.Context, q statementRequest, p *prepared, destination *tableID, disposition string) (*table, error) {
	if destination != nil {
		return s.runInto(ctx, p, *destination, disposition)
	}
	t := &table{fields: nullable(p.fields), created: s.now(), modified: s.now(), version: 1}
	s.cat.mu.Lock()
	ds := s.resultsOf(q.project)
	t.id = tableID{q.project, anonymousDataset, fmt.Sprintf("anon%d", s.cat.made+1)}
	t.physical = s.cat.physicalName(t.id)
	ds.tables[t.id.table] = t
	ds.results = append(ds.results, t)
	old := ds.oldestResult()
	s.cat.mu.Unlock()
	if old != nil {
		s.discard(ctx, ds, old)
	}
	if err := s.createPhysical(ctx, t); err != nil {
		return nil, err
	}
	if _, err := s.fill(ctx, t, p); err != nil {
		s.discard(ctx, ds, t)
		return nil, err
	}
	return t, nil
}

func (s *Server) resultsOf(project string) *dataset {
	id := datasetID{project, anonymousDataset}
	if s.cat.datasets[id] == nil {
		s.cat.datasets[id] = &dataset{tables: map[string]*table{}, hidden: true}
	}
	return s.cat.datasets[id]
}

// oldestResult takes the oldest result that is one too many out of those kept, or
// returns nil. A test's clock may stand still, so that their times tell nothing.
func (d *dataset) oldestResult() *table {
	if len(d.results) <= keptResults {
		return nil
	}
	old := d.results[0]
	d.results = d.results[1:]
	return old
}

func (s *Server) discard(ctx context.Context, ds *dataset, t *table) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	generation := s.cat.generation
	if err := s.dropTable(context.WithoutCancel(ctx), ds, t); err != nil {
		s.log.ErrorContext(ctx, "dropping a result", "error", err)
	}
	s.cat.generation = generation // no view reads a result
}

// runInto writes a result into a named table.
func (s *Server) runInto(ctx context.Context, p *prepared, id tableID, disposition string) (*table, error) {
	t, err := s.cat.lookup(id)
	switch {
	case err == nil && (disposition == "" || disposition == "WRITE_EMPTY"):
		var rows int64
		if err := s.store.scalar(ctx, "SELECT count(*) FROM "+t.real(), &rows); err != nil {
			return nil, err
		}
		if rows > 0 {
			return nil, errDuplicate("Table %s", id.legacy())
		}
	case err == nil && disposition == "WRITE_APPEND":
	case err == nil && disposition == "WRITE_TRUNCATE":
		return s.runTruncate(ctx, p, t)
	case err == nil:
		return nil, errUnsupported("the write disposition %s of a query", disposition)
	default:
		return s.createFilled(ctx, id, bq.Table{}, p, disposition)
	}
	if err := s.appendable(t); err != nil {
		return nil, err
	}
	if err := sameColumns(s.fieldsOf(t), p.fields); err != nil {
		return nil, err
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	added, err := s.fill(ctx, t, p)
	if err != nil {
		return nil, err
	}
	s.noteAppend(t, added)
	s.touch(t)
	return t, nil
}

// runTruncate puts a result in the place of a table's rows, schema and
// constraints; what else the table is stays.
func (s *Server) runTruncate(ctx context.Context, p *prepared, t *table) (*table, error) {
	if err := s.truncatable(t); err != nil {
		return nil, err
	}
	s.cat.mu.RLock()
	meta := t.meta
	meta.RequirePartitionFilter = t.part.filter
	s.cat.mu.RUnlock()
	meta.TableConstraints = nil
	return s.createFilled(ctx, t.id, meta, p, "WRITE_TRUNCATE")
}

// appendable refuses to write a result into a table, and counts it.
func (s *Server) appendable(t *table) error {
	switch {
	case t.isView():
		return errInvalid("Cannot write a result to a table of type VIEW: %s", t.id.legacy())
	case t.changes.Load() != nil:
		return errUnsupported("query results in a table that had UPSERT streams (%s)", t.id)
	}
	return s.updated(t)
}

// truncatable is appendable for a result that takes the place of all rows.
func (s *Server) truncatable(t *table) error {
	t.rows.Lock()
	streamed := t.buffered(s.now()) != nil || s.streamedTo(t)
	t.rows.Unlock()
	if streamed {
		return errUnsupported("a query that truncates a table that is being streamed to (%s)", t.id)
	}
	return s.appendable(t)
}

// createFilled makes a table of a result, which nobody sees before it is whole.
func (s *Server) createFilled(ctx context.Context, id tableID, meta bq.Table, p *prepared, disposition string) (*table, error) {
	meta.Schema = restSchema(nullable(p.fields))
	t, err := s.makeTable(ctx, id, meta)
	if err != nil {
		return nil, err
	}
	if _, err = s.fill(ctx, t, p); err == nil {
		err = s.register(ctx, t, disposition)
	}
	if err != nil {
		return nil, errors.Join(err, s.store.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+t.real()))
	}
	return t, nil
}

func sameColumns(table, result []field) error {
	if len(table) != len(result) {
		return errInvalid("Provided Schema does not match the destination table: %d columns, the query returns %d", len(table), len(result))
	}
	for i, f := range table {
		if !strings.EqualFold(f.name, result[i].name) || f.sqlType() != result[i].sqlType() {
			return errInvalid("Provided Schema does not match the destination table: column %s %s, the query returns %s %s", f.name, f.sqlType(), result[i].name, result[i].sqlType())
		}
	}
	return nil
}

// fill inserts a query's rows into a table, and counts them. The caller holds
// the lock rows of a table that others see.
func (s *Server) fill(ctx context.Context, t *table, p *prepared) (rows int64, err error) {
	described, err := s.describeDuck(ctx, p.duck)
	if err != nil {
		return 0, err
	}
	if len(described) != len(p.fields) {
		return 0, fmt.Errorf("the translation returns %d columns, BigQuery %d", len(described), len(p.fields))
	}
	for i, d := range described {
		if !assignable(d, p.fields[i]) {
			return 0, errUnsupported("this statement: its column %s is %s in BigQuery and would be %s here", p.fields[i].name, p.fields[i].sqlType(), d.sqlType())
		}
	}
	err = s.inTransaction(ctx, p.guards, func(conn *sql.Conn) error {
		result, err := conn.ExecContext(ctx, "INSERT INTO "+t.real()+" "+p.duck)
		if err != nil {
			return duckError(err)
		}
		if rows, err = result.RowsAffected(); err != nil {
			return fmt.Errorf("counting rows: %w", err)
		}
		return nil
	})
	return rows, err
}

// inTransaction runs guards and work on one connection.
func (s *Server) inTransaction(ctx context.Context, guards []dialect.Guard, work func(*sql.Conn) error) error {
	conn, err := s.store.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close() //nolint:errcheck // it returns the connection to the pool
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	if err := checkGuards(ctx, conn, guards); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := work(conn); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return duckError(err)
	}
	return nil
}

func checkGuards(ctx context.Context, conn *sql.Conn, guards []dialect.Guard) error {
	for _, g := range guards {
		var one any
		switch err := conn.QueryRowContext(ctx, "SELECT 1 FROM ("+g.SQL+") LIMIT 1").Scan(&one); {
		case err == nil:
			return errInvalidQuery("%s", g.Message)
		case !errors.Is(err, sql.ErrNoRows):
			return duckError(err)
		}
	}
	return nil
}

// runDML changes rows of a table in one transaction.
func (s *Server) runDML(ctx context.Context, p *prepared) (outcome, error) {
	t := p.target
	if !t.quota.dml.take(s.now(), 10*time.Second, s.limits.Statements) {
		return outcome{}, errRateLimit("Exceeded rate limits: too many DML statements for table %s: %d per 10 seconds", t.id.legacy(), s.limits.Statements)
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	if p.kind != "INSERT" {
		if err := s.beforeChange(ctx, t, s.fieldsOf(t)); err != nil {
			return outcome{}, err
		}
	}
	var out outcome
	err := s.inTransaction(ctx, p.guards, func(conn *sql.Conn) error {
		var err error
		before, err := s.streamedState(ctx, conn, t)
		if err != nil {
			return err
		}
		if out, err = s.change(ctx, conn, t, p); err != nil {
			return err
		}
		if p.kind == "INSERT" {
			return nil
		}
		return s.checkStreamedState(ctx, conn, t, before)
	})
	if err != nil {
		return outcome{}, err
	}
	s.noteDML(t, out)
	if out.affected > 0 {
		s.touch(t)
	}
	return out, nil
}

// change runs the statement and counts its rows by action and partition.
func (s *Server) change(ctx context.Context, conn *sql.Conn, t *table, p *prepared) (outcome, error) {
	var sized map[string]bool
	if p.kind != "INSERT" {
		sized = allColumns(s.fieldsOf(t))
	}
	before, err := s.partitionStates(ctx, conn, t, sized, p.mayTouch)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{stats: &bq.DmlStatistics{}}
	touched := map[string]bool{}
	if p.kind == "UPDATE" || p.kind == "MERGE" {
		err = out.changeReturning(ctx, conn, t, p, touched)
	} else {
		err = out.changeCounted(ctx, conn, p)
	}
	if err != nil {
		return outcome{}, err
	}
	after, err := s.partitionStates(ctx, conn, t, nil, nil)
	if err != nil {
		return outcome{}, err
	}
	// What is returned of a changed row is where it is now; where it left, or
	// was deleted, there are fewer.
	for id := range before {
		touched[id] = touched[id] || before[id].rows > after[id].rows
	}
	for id := range after {
		touched[id] = touched[id] || before[id].rows < after[id].rows
	}
	out.partitions = map[string]int64{}
	for id, yes := range touched {
		if yes {
			out.partitions[id] = before[id].bytes
		}
	}
	return out, nil
}

// changeCounted runs a statement of one action.
func (o *outcome) changeCounted(ctx context.Context, conn *sql.Conn, p *prepared) error {
	result, err := conn.ExecContext(ctx, p.duck)
	if err != nil {
		return duckError(err)
	}
	if o.affected, err = result.RowsAffected(); err != nil {
		return fmt.Errorf("counting rows: %w", err)
	}
	if p.kind == "INSERT" {
		o.stats.InsertedRowCount = o.affected
	} else {
		o.stats.DeletedRowCount = o.affected
	}
	return nil
}

// changeReturning runs a statement that changes rows in place, and notes the
// partitions that they are in after it.
func (o *outcome) changeReturning(ctx context.Context, conn *sql.Conn, t *table, p *prepared, touched map[string]bool) error {
	action, partition := quoteText(p.kind), "''"
	if p.kind == "MERGE" {
		action = "merge_action"
	}
	if t.part.column != "" {
		partition = t.part.idSQL()
	}
	rows, err := conn.QueryContext(ctx, p.duck+" RETURNING "+action+", "+partition)
	if err != nil {
		return duckError(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err is checked
	var did, id sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&did, &id); err != nil {
			return fmt.Errorf("counting rows: %w", err)
		}
		o.affected++
		if len(id) > 0 && !touched[string(id)] {
			touched[string(id)] = true
		}
		switch string(did) {
		case "INSERT":
			o.stats.InsertedRowCount++
		case "UPDATE":
			o.stats.UpdatedRowCount++
		case "DELETE":
			o.stats.DeletedRowCount++
		}
	}
	if err := rows.Err(); err != nil {
		return duckError(err)
	}
	return nil
}

// duckError gives DuckDB's refusals a REST form. What fails while values are
// computed fails in BigQuery too; what does not bind is a gap of the emulator.
func duckError(err error) error {
	var d *duckdb.Error
	if !errors.As(err, &d) {
		return err
	}
	switch d.Type {
	case duckdb.ErrorTypeInterrupt:
		return &apiError{reasonCode("stopped"), "stopped", "Job execution was cancelled"}
	case duckdb.ErrorTypeConstraint:
		return errInvalidQuery("%s", d.Msg)
	case duckdb.ErrorTypeConversion, duckdb.ErrorTypeOutOfRange, duckdb.ErrorTypeInvalidInput, duckdb.ErrorTypeDivideByZero, duckdb.ErrorTypeExecutor:
		return errInvalidQuery("%s", d.Msg)
	case duckdb.ErrorTypeTransaction:
		return errInvalidQuery("Could not serialize access to a table due to concurrent update: %s", d.Msg) // as BigQuery calls it
	default:
		return errUnsupported("this statement (DuckDB: %s)", d.Msg)
	}
}

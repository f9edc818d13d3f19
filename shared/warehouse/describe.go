package warehouse

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Description is what BigQuery says of a source before it is read, for nothing.
type Description struct {
	Columns []string // of the source, in its order and spelling
	Bytes   int64    // what reading all of it would process, at most: only its mapped columns, unless one is missing
	Tables  []ReadTable
}

// ReadTable is a table whose rows a source reads, itself or through views.
type ReadTable struct {
	Project, Dataset, Name string
	// Changed is when its rows, or what it is declared as, last changed, as far as BigQuery
	// says; it is zero where that is not known, as of external tables, and of those that
	// only the owner of a view may look at.
	Changed time.Time
}

// Describe has BigQuery check a source, and says what is in it. What is wrong with the
// query is an error that names its line; a column that is not there is not: it is missing
// in Columns.
func (c *Client) Describe(ctx context.Context, s Source) (Description, error) {
	checked, err := c.check(ctx, &s)
	if err != nil {
		return Description{}, err
	}
	d := Description{Columns: make([]string, len(checked.schema)), Bytes: checked.bytes}
	for i, f := range checked.schema {
		d.Columns[i] = f.Name
	}
	if !slices.ContainsFunc(s.columns(), func(name string) bool { return field(checked.schema, name) == nil }) {
		if d.Bytes, err = c.estimate(ctx, &s, checked.schema); err != nil {
			return d, err
		}
	}
	d.Tables, err = c.readTables(ctx, checked.tables)
	return d, err
}

// checked is what a dry run says of a statement.
type checked struct {
	schema bigquery.Schema
	bytes  int64
	at     time.Time // by BigQuery's clock
	tables []*bigquery.Table
}

// check has BigQuery check the source as its author wrote it, so that it names his lines.
func (c *Client) check(ctx context.Context, s *Source) (checked, error) {
	if _, err := s.body(); err != nil {
		return checked{}, err
	}
	sql := s.Query
	if sql == "" {
		sql = "SELECT * FROM " + quote(s.From)
	}
	found, err := c.dry(ctx, s.statement(sql, nil), false)
	if err != nil {
		return checked{}, fmt.Errorf("checking the source: %w", err)
	}
	return found, nil
}

// estimate is what reading every row would process.
func (c *Client) estimate(ctx context.Context, s *Source, schema bigquery.Schema) (int64, error) {
	if err := s.checkTypes(schema); err != nil {
		return 0, err
	}
	if s.Changes == ChangesCursor {
		if _, err := cursorType(schema, s.Cursor); err != nil {
			return 0, err
		}
	}
	body, err := s.body()
	if err != nil {
		return 0, err
	}
	found, err := c.dry(ctx, s.statement(s.selectSQL(body, ""), nil), false)
	if fault.HTTPStatus(err) == http.StatusBadRequest {
		// It was found to be right alone.
		return 0, fault.Fix(fmt.Errorf("the query cannot be read from: %w", err), "make a view of the query, as of one WITH RECURSIVE, and select from that")
	}
	if err != nil {
		return 0, fmt.Errorf("estimating: %w", err)
	}
	return found.bytes, nil
}

// checkTypes refuses columns that cannot be what they are to be.
func (s *Source) checkTypes(schema bigquery.Schema) error {
	for _, name := range s.Key {
		f := field(schema, name)
		if f == nil {
			return missingColumn(name, "the key")
		}
		if err := s.keyType(f); err != nil {
			return err
		}
	}
	if s.Changes != ChangesLedger && s.Changes != ChangesAppends { // they compare whole rows
		return nil
	}
	for _, name := range s.Columns {
		f := field(schema, name)
		if f == nil {
			return missingColumn(name, "written")
		}
		if !encodable(f) {
			return fault.Fix(fmt.Errorf("column %s is %s, which cannot be compared", f.Name, describe(f)), "read its text, ST_ASTEXT of a GEOGRAPHY, in a query or a view, or choose other changes than "+s.Changes.String())
		}
	}
	return nil
}

func missingColumn(name, use string) error {
	return fault.Fix(fmt.Errorf("the source has no column %q, which is %s", name, use), "select it in the query, or correct its name in the pipeline file")
}

// keyType refuses a type that keys cannot have: one that has no text of its own, or, of a
// ledger, whose values cannot be told to be equal.
func (s *Source) keyType(f *bigquery.FieldSchema) error {
	switch f.Type {
	case bigquery.RecordFieldType, bigquery.GeographyFieldType, bigquery.JSONFieldType, bigquery.RangeFieldType, bigquery.IntervalFieldType:
	case bigquery.FloatFieldType:
		if s.Changes != ChangesLedger {
			return nil
		}
	default:
		if !f.Repeated {
			return nil
		}
	}
	return fault.Fix(fmt.Errorf("column %s is %s, which cannot be a key of changes: %s", f.Name, describe(f), s.Changes), "cast it in the query")
}

// encodable says whether BigQuery documents a text of the type's values. (GoogleSQL: JSON
// encodings.)
func encodable(f *bigquery.FieldSchema) bool {
	if f.Type == bigquery.RecordFieldType {
		return !slices.ContainsFunc(f.Schema, func(f *bigquery.FieldSchema) bool { return !encodable(f) })
	}
	return f.Type != bigquery.GeographyFieldType && f.Type != bigquery.RangeFieldType
}

// dry has BigQuery check a statement.
func (c *Client) dry(ctx context.Context, s statement, legacy bool) (checked, error) {
	q, err := c.prepare(ctx, s)
	if err != nil {
		return checked{}, err
	}
	q.DryRun, q.UseLegacySQL = true, legacy
	job, err := q.Run(ctx)
	if err != nil {
		return checked{}, err
	}
	statistics := job.LastStatus().Statistics
	details, ok := statistics.Details.(*bigquery.QueryStatistics)
	if !ok || details.StatementType != "SELECT" && details.StatementType != "" || len(details.Schema) == 0 {
		return checked{}, fault.Fix(errors.New("the statement has no result"), oneSelect)
	}
	out := checked{schema: details.Schema, bytes: statistics.TotalBytesProcessed, at: statistics.CreationTime, tables: details.ReferencedTables}
	if out.at.IsZero() { // nothing that goes by it is exact
		out.at = time.Now()
	}
	return out, nil
}

// maxTables ends the search for tables below views: a wildcard may stand for thousands.
const maxTables = 1000

// readTables are the tables below what a statement refers to, each once. Whether BigQuery
// names views, or the tables they read, or both, does not matter.
func (c *Client) readTables(ctx context.Context, named []*bigquery.Table) ([]ReadTable, error) {
	var out []ReadTable
	seen := map[string]bool{}
	for len(named) > 0 && len(seen) < maxTables {
		table := named[0]
		named = named[1:]
		if seen[table.FullyQualifiedName()] {
			continue
		}
		seen[table.FullyQualifiedName()] = true
		found, below, err := c.readTable(ctx, table)
		if err != nil {
			return nil, fmt.Errorf("looking at %s.%s: %w", table.DatasetID, table.TableID, err)
		}
		named = append(named, below...)
		if below == nil {
			out = append(out, found)
		}
	}
	return out, nil
}

// readTable looks at a table; of a view it returns what that reads.
func (c *Client) readTable(ctx context.Context, table *bigquery.Table) (found ReadTable, below []*bigquery.Table, err error) {
	found = ReadTable{Project: table.ProjectID, Dataset: table.DatasetID, Name: table.TableID}
	client, err := c.restClient(ctx)
	if err != nil {
		return found, nil, err
	}
	md, err := client.DatasetInProject(table.ProjectID, table.DatasetID).Table(table.TableID).Metadata(ctx)
	switch {
	case unseen(err):
		return found, nil, nil
	case err != nil:
		return found, nil, err
	case md.ViewQuery != "":
		below, err = c.below(ctx, table, md.ViewQuery, md.UseLegacySQL)
	case md.MaterializedView != nil:
		below, err = c.below(ctx, table, md.MaterializedView.Query, false)
	case md.Type == bigquery.RegularTable || md.Type == bigquery.Snapshot:
		found.Changed = md.LastModifiedTime
		if b := md.StreamingBuffer; b != nil && b.OldestEntryTime.After(found.Changed) {
			found.Changed = b.OldestEntryTime // what is in it is at least as new
		}
	}
	return found, below, err
}

// unseen says that a table cannot be looked at: not by whom reads it through a view, nor
// where it is a wildcard or a view of INFORMATION_SCHEMA.
func unseen(err error) bool {
	switch fault.HTTPStatus(err) {
	case http.StatusNotFound, http.StatusBadRequest:
		return true
	case http.StatusForbidden:
		class, _ := fault.Classify(err)
		return class == fault.Permanent
	}
	return false
}

// below is what a view reads.
func (c *Client) below(ctx context.Context, view *bigquery.Table, sql string, legacy bool) ([]*bigquery.Table, error) {
	found, err := c.dry(ctx, statement{project: view.ProjectID, dataset: view.DatasetID, sql: sql}, legacy)
	if unseen(err) {
		return nil, nil
	}
	return slices.Concat([]*bigquery.Table{}, found.tables), err
}

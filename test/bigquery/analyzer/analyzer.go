package analyzer

import (
	"context"
	"fmt"
)

// Column is a named, typed column.
type Column struct {
	Name string
	// Type is GoogleSQL text: INT64, ARRAY<STRING>, STRUCT<a INT64, b STRING>.
	// Parameters such as NUMERIC(10, 2) are accepted and ignored on input and
	// never reported on output, as in a BigQuery result schema.
	Type string
}

// Table is a table, or a view with the columns it returns, that a statement
// may name. Table and dataset names are case-sensitive, column names are not.
type Table struct {
	Project, Dataset, Name string
	Columns                []Column
}

// Parameter is a query parameter. Where every Name is empty, parameters are
// positional, in order.
type Parameter struct{ Name, Type string }

// Options is what a statement is analyzed against.
type Options struct {
	Tables     []Table
	Parameters []Parameter
	// DefaultProject and DefaultDataset complete shorter table paths.
	DefaultProject, DefaultDataset string
}

// Result describes an accepted statement.
type Result struct {
	// Columns are the columns that the statement returns, or that the table or
	// view it creates has. DML without THEN RETURN has none.
	Columns []Column
	// Kind is BigQuery's statementType: SELECT, INSERT, CREATE_VIEW, ...
	// https://cloud.google.com/bigquery/docs/reference/rest/v2/Job#JobStatistics2.FIELDS.statement_type
	Kind string
	// Tables are the tables read or written, as project.dataset.table, sorted,
	// each once. The target of a CREATE or DROP is not among them.
	Tables []string
}

// Error is a refusal of a statement, as BigQuery would answer
// with reason invalidQuery.
type Error struct {
	// Message is GoogleSQL's own, without the position.
	Message string
	// Line and Column count from 1; both are 0 where the position is not known.
	Line, Column int
	// MissingTable is the project.dataset.table that does not exist, where that
	// is the reason: BigQuery then answers 404 notFound.
	MissingTable string
}

// Error returns the message with its position in BigQuery's form.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("%s at [%d:%d]", e.Message, e.Line, e.Column)
}

// Analyze parses and resolves one statement as BigQuery does. It returns an
// *Error where the statement is refused, and another error where the analyzer
// itself cannot work. It is safe for concurrent use; calls run one at a time.
// The first call of a process pays for starting the engine.
func Analyze(ctx context.Context, sql string, o Options) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("analyzing statement: %w", err)
	}
	return analyze(sql, o)
}

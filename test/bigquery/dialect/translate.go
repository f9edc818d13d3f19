package dialect

// ColumnType is a named column with its GoogleSQL type. It is an alias, so that
// Options.DataTypes reads as the plain struct it is.
type ColumnType = struct{ Name, Type string }

// Options is what a translation needs to know of its surroundings.
type Options struct {
	DefaultProject, DefaultDataset string
	// Table returns the quoted DuckDB name of a table or view. Its error is
	// returned by Translate as it is, wrapped.
	Table func(project, dataset, table string) (string, error)
	// Parameter returns DuckDB SQL for @name: a literal or a bound parameter,
	// already of the DuckDB type that stores the parameter's GoogleSQL type.
	Parameter func(name string) (string, error)
	// DataTypes returns the columns of a table with their GoogleSQL types. It is
	// optional, but what depends on a type (division, CAST, date functions, ...)
	// is refused on a column whose type is not known.
	DataTypes func(project, dataset, table string) []ColumnType
	// Now is DuckDB SQL for the moment that a statement begins, now() by default;
	// RegisterClock makes another.
	Now string
	// Appends and AsOf return the DuckDB relation, in parentheses where it is no
	// name, that a table's past is. Without them, both are refused.
	Appends func(Appends) (string, error)
	AsOf    func(AsOf) (string, error)
	// ParameterType returns the GoogleSQL type of @name. Optional like DataTypes.
	ParameterType func(name string) string
}

// Appends is APPENDS(TABLE .., start, end). The moments are DuckDB expressions
// of TIMESTAMPTZ without tables; one that is left out is empty.
type Appends struct{ Project, Dataset, Table, Start, End string }

// AsOf is a table FOR SYSTEM_TIME AS OF a moment, as Appends has it.
type AsOf struct{ Project, Dataset, Table, At string }

// Guard is a DuckDB query that must return no row before the statement runs:
// BigQuery fails with Message where it would.
type Guard struct{ SQL, Message string }

// Translation is a translated statement.
type Translation struct {
	// SQL is one DuckDB statement.
	SQL string
	// Columns are a query's result columns; Type is empty where it is not known.
	Columns []ColumnType
	// Guards run before SQL, in the same transaction.
	Guards []Guard
}

// Translate returns DuckDB SQL with the meaning of one GoogleSQL query or DML
// statement. It fails with *Unsupported for what it does not know and with
// *SyntaxError for what BigQuery refuses too. DDL is for Describe.
// A statement whose translation has guards (a MERGE, an UPDATE .. FROM) is
// translated without them: see TranslateStatement.
func Translate(sql string, o Options) (string, error) {
	t, err := TranslateStatement(sql, o)
	return t.SQL, err
}

// TranslateStatement is Translate with the result's columns and the guards.
func TranslateStatement(sql string, o Options) (t Translation, err error) {
	defer recovered(&err)
	p, err := newParser(sql)
	if err != nil {
		return Translation{}, err
	}
	s := p.statement()
	e := &printer{o: o}
	return e.statement(s), nil
}

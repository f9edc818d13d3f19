//go:build googlesql

package analyzer

import (
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/goccy/go-googlesql"
)

// Available says whether this binary holds the analyzer.
const Available bool = true

// engine is the one GoogleSQL module of the process with the catalog of
// built-in functions, which costs far more than a statement does.
type engine struct {
	mu       sync.Mutex
	language *googlesql.LanguageOptions
	factory  *googlesql.TypeFactory
	builtins *googlesql.SimpleCatalog // what BigQuery has
	all      *googlesql.SimpleCatalog // owns the functions of builtins
	catalog  *googlesql.MultiCatalog
	tables   *tableCatalog
	types    map[string]googlesql.Googlesql_TypeNode
	options  *googlesql.AnalyzerOptions // for type names
	appends  *googlesql.TableValuedFunction
	analyzed int
}

// collectEvery is how many statements may leave their resolved trees behind.
const collectEvery = 256

// collect lets finalizers free what past statements hold in the engine's own
// memory: that memory looks like one live slice to Go, whose collector alone
// would come far too seldom.
func (e *engine) collect() {
	e.analyzed++
	if e.analyzed%collectEvery == 0 {
		runtime.GC()
	}
}

// started starts the engine once per process: go-googlesql itself is one
// module per process.
var started = sync.OnceValues(newEngine) //nolint:gochecknoglobals // see above

func newEngine() (*engine, error) {
	if err := googlesql.Init(); err != nil {
		return nil, fmt.Errorf("starting GoogleSQL: %w", err)
	}
	lang, err := newLanguage()
	if err != nil {
		return nil, err
	}
	factory, err := googlesql.NewTypeFactory()
	if err != nil {
		return nil, fmt.Errorf("creating type factory: %w", err)
	}
	builtins, all, err := newBuiltins(lang, factory)
	if err != nil {
		return nil, err
	}
	e := &engine{language: lang, factory: factory, builtins: builtins, all: all, types: map[string]googlesql.Googlesql_TypeNode{}}
	e.tables = &tableCatalog{engine: e, made: map[string]*googlesql.SimpleTable{}}
	own, err := googlesql.NewCatalogFromImpl(e.tables)
	if err != nil {
		return nil, fmt.Errorf("creating table catalog: %w", err)
	}
	e.catalog, err = googlesql.NewMultiCatalogCreate("bigquery", []googlesql.CatalogNode{builtins, own})
	if err != nil {
		return nil, fmt.Errorf("joining catalogs: %w", err)
	}
	if e.options, err = e.newOptions(nil); err != nil {
		return nil, err
	}
	if e.appends, err = newAppends(e); err != nil {
		return nil, err
	}
	return e, nil
}

func analyze(sql string, o Options) (Result, error) {
	e, err := started()
	if err != nil {
		return Result{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.analyze(sql, o)
}

func (e *engine) analyze(sql string, o Options) (Result, error) {
	opts, err := e.newOptions(o.Parameters)
	if err != nil {
		return Result{}, err
	}
	e.collect()
	e.tables.begin(o)
	out, err := googlesql.AnalyzeStatement(sql, opts, e.catalog, e.factory)
	if e.tables.failed != nil { // a schema the engine cannot represent, not a mistake in the statement
		return Result{}, e.tables.failed
	}
	if err != nil {
		return Result{}, e.refusal(sql, opts, err)
	}
	stmt, err := out.ResolvedStatement()
	if err != nil {
		return Result{}, fmt.Errorf("reading resolved statement: %w", err)
	}
	if err := checkIntervals(sql, stmt); err != nil {
		return Result{}, err
	}
	return e.describe(stmt)
}

func (e *engine) newOptions(parameters []Parameter) (*googlesql.AnalyzerOptions, error) {
	opts, err := googlesql.NewAnalyzerOptions2()
	if err != nil {
		return nil, fmt.Errorf("creating analyzer options: %w", err)
	}
	if err := opts.SetLanguage(e.language); err != nil {
		return nil, fmt.Errorf("setting language: %w", err)
	}
	if err := opts.SetErrorMessageMode(googlesql.ErrorMessageModeErrorMessageOneLine); err != nil {
		return nil, fmt.Errorf("setting error mode: %w", err)
	}
	if err := opts.SetParseLocationRecordType(googlesql.ParseLocationRecordTypeParseLocationRecordCodeSearch); err != nil {
		return nil, fmt.Errorf("recording positions: %w", err)
	}
	return opts, e.addParameters(opts, parameters)
}

func (e *engine) addParameters(opts *googlesql.AnalyzerOptions, parameters []Parameter) error {
	named := false
	for _, p := range parameters {
		named = named || p.Name != ""
	}
	if len(parameters) > 0 && !named {
		if err := opts.SetParameterMode(googlesql.ParameterModeParameterPositional); err != nil {
			return fmt.Errorf("setting parameter mode: %w", err)
		}
	}
	for _, p := range parameters {
		t, err := e.typeOf(p.Type)
		if err != nil {
			return fmt.Errorf("reading type of parameter %q: %w", p.Name, err)
		}
		if named {
			err = opts.AddQueryParameter(p.Name, t)
		} else {
			err = opts.AddPositionalQueryParameter(t)
		}
		if err != nil {
			return fmt.Errorf("declaring parameter %q: %w", p.Name, err)
		}
	}
	return nil
}

// typeParameters matches (10, 2) of NUMERIC(10, 2) and (20) of STRING(20).
var typeParameters = regexp.MustCompile(`\([^()]*\)`)

// typeOf returns the engine's type of GoogleSQL type text.
func (e *engine) typeOf(text string) (googlesql.Googlesql_TypeNode, error) {
	if t, ok := e.types[text]; ok {
		return t, nil
	}
	t, err := googlesql.AnalyzeType(typeParameters.ReplaceAllString(text, ""), e.options, e.all, e.factory)
	if err != nil {
		return nil, fmt.Errorf("resolving type %q: %w", text, err)
	}
	e.types[text] = t
	return t, nil
}

// position is how ERROR_MESSAGE_ONE_LINE ends a message.
// https://github.com/google/googlesql/blob/master/googlesql/public/options.proto
var position = regexp.MustCompile(`^(?s:(.*)) \[at (\d+):(\d+)\]$`)

// statusCode is how the binding begins the text of a C++ status.
var statusCode = regexp.MustCompile(`^(?:generic::)?([A-Z_]+|[a-z_]+): `)

// refusal turns the engine's error text into an *Error; the binding hands over
// nothing but text. What our catalog refused comes back without position or
// context, so the statement is analyzed again against a plain catalog.
func (e *engine) refusal(sql string, opts *googlesql.AnalyzerOptions, err error) error {
	missing, table := e.tables.missing, e.tables.missingTable
	if missing == nil || statusText(err) != missing.Error() {
		return parseRefusal(err)
	}
	refused := &Error{Message: missing.Error()}
	plain, perr := e.tables.plain()
	if perr != nil {
		return perr
	}
	both, perr := googlesql.NewMultiCatalogCreate("bigquery", []googlesql.CatalogNode{e.builtins, plain})
	if perr != nil {
		return fmt.Errorf("joining catalogs: %w", perr)
	}
	if _, again := googlesql.AnalyzeStatement(sql, opts, both, e.factory); again != nil {
		refused = parseRefusal(again)
	}
	if table != "" {
		refused.Message, refused.MissingTable = "Not found: Table "+table, table
	}
	return refused
}

func statusText(err error) string {
	return statusCode.ReplaceAllString(strings.TrimSpace(err.Error()), "")
}

func parseRefusal(err error) *Error {
	text := statusText(err)
	m := position.FindStringSubmatch(text)
	if m == nil {
		return &Error{Message: text}
	}
	line, lerr := strconv.Atoi(m[2])
	column, cerr := strconv.Atoi(m[3])
	if lerr != nil || cerr != nil {
		return &Error{Message: text}
	}
	return &Error{Message: m[1], Line: line, Column: column}
}

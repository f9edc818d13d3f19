//go:build googlesql

package analyzer

import (
	"errors"
	"fmt"

	"github.com/goccy/go-googlesql"
)

// appends is APPENDS(TABLE t, start, end), which GoogleSQL itself does not
// have. The engine calls it back for each call in the statement it analyzes.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/time-series-functions#appends
type appends struct {
	googlesql.TableValuedFunctionCallbackDefaults
	engine *engine
}

// newAppends makes the function. Its two moments are optional, which takes a
// signature for each number of arguments.
func newAppends(e *engine) (*googlesql.TableValuedFunction, error) {
	relation, err := googlesql.NewFunctionArgumentTypeAnyRelation()
	if err != nil {
		return nil, fmt.Errorf("describing the table of APPENDS: %w", err)
	}
	timestamp, err := e.typeOf("TIMESTAMP")
	if err != nil {
		return nil, err
	}
	arguments := []*googlesql.FunctionArgumentType{relation}
	var signatures []*googlesql.FunctionSignature
	for range 3 {
		options, err := googlesql.NewFunctionSignatureOptions()
		if err != nil {
			return nil, fmt.Errorf("describing APPENDS: %w", err)
		}
		signature, err := googlesql.NewFunctionSignature2(relation, arguments, 0, options)
		if err != nil {
			return nil, fmt.Errorf("describing APPENDS: %w", err)
		}
		signatures = append(signatures, signature)
		moment, err := googlesql.NewFunctionArgumentType3(timestamp, 1)
		if err != nil {
			return nil, fmt.Errorf("describing the moments of APPENDS: %w", err)
		}
		arguments = append(arguments[:len(arguments):len(arguments)], moment)
	}
	f, err := googlesql.NewTableValuedFunctionFromImpl(&appends{engine: e}, []string{"APPENDS"}, "", signatures, &googlesql.TableValuedFunctionOptions{})
	if err != nil {
		return nil, fmt.Errorf("creating APPENDS: %w", err)
	}
	return f, nil
}

var errAppends = errors.New("APPENDS must be of a table")

// Resolve answers the columns of a call: its table's, and two more. The binding
// does not hand the arguments over; the table is the one found last.
func (a *appends) Resolve(_ *googlesql.AnalyzerOptions, _ []*googlesql.TVFInputArgumentType, concrete *googlesql.FunctionSignature, _ googlesql.CatalogNode, _ *googlesql.TypeFactory) (*googlesql.TVFSignature, error) {
	found := a.engine.tables.found
	if len(found) == 0 {
		return nil, errAppends
	}
	columns := a.engine.tables.byPath[found[len(found)-1].full].Columns
	in, err := a.relation(columns)
	if err != nil {
		return nil, err
	}
	out, err := a.relation(append(columns[:len(columns):len(columns)], Column{"_CHANGE_TYPE", "STRING"}, Column{"_CHANGE_TIMESTAMP", "TIMESTAMP"}))
	if err != nil {
		return nil, err
	}
	inputs, err := a.inputs(in, concrete)
	if err != nil {
		return nil, err
	}
	signature, err := googlesql.NewTVFSignature(inputs, out, nil)
	if err != nil {
		return nil, fmt.Errorf("resolving APPENDS: %w", err)
	}
	return signature, nil
}

func (a *appends) relation(columns []Column) (*googlesql.TVFRelation, error) {
	list := make([]*googlesql.TVFSchemaColumn, len(columns))
	for i, c := range columns {
		t, err := a.engine.typeOf(c.Type)
		if err != nil {
			return nil, err
		}
		list[i] = &googlesql.TVFSchemaColumn{Name: c.Name, Type_: t}
	}
	r, err := googlesql.NewTVFRelation(list)
	if err != nil {
		return nil, fmt.Errorf("describing columns of APPENDS: %w", err)
	}
	return r, nil
}

func (a *appends) inputs(table *googlesql.TVFRelation, concrete *googlesql.FunctionSignature) ([]*googlesql.TVFInputArgumentType, error) {
	n, err := concrete.NumConcreteArguments()
	if err != nil {
		return nil, fmt.Errorf("counting arguments of APPENDS: %w", err)
	}
	first, err := googlesql.NewTVFInputArgumentType(table)
	if err != nil {
		return nil, fmt.Errorf("describing arguments of APPENDS: %w", err)
	}
	inputs := []*googlesql.TVFInputArgumentType{first}
	timestamp, err := a.engine.typeOf("TIMESTAMP")
	if err != nil {
		return nil, err
	}
	for range n - 1 {
		moment, err := googlesql.NewInputArgumentType5(timestamp, false, false)
		if err != nil {
			return nil, fmt.Errorf("describing arguments of APPENDS: %w", err)
		}
		input, err := googlesql.NewTVFInputArgumentType6(moment)
		if err != nil {
			return nil, fmt.Errorf("describing arguments of APPENDS: %w", err)
		}
		inputs = append(inputs, input)
	}
	return inputs, nil
}

package deployment

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

// Values are what a module's variables and locals come to. A local is evaluated
// when it is first asked for. Not safe for concurrent use.
type Values struct {
	module    *Module
	variables map[string]cty.Value
	locals    map[string]cty.Value
	pending   []string // the locals being evaluated, outermost first
	functions map[string]function.Function
}

// NotEvaluableError is the error of an expression that only a plan could evaluate.
type NotEvaluableError struct {
	// Reference is what it refers to, such as "data.archive_file.function".
	Reference string
	// Position is where.
	Position string
}

func (e *NotEvaluableError) Error() string {
	return fmt.Sprintf("%s: %s is known to Terraform's plan alone", e.Position, e.Reference)
}

// UnsetError is the error of a variable that has neither a value nor a default.
type UnsetError struct{ Variable string }

func (e *UnsetError) Error() string {
	return fmt.Sprintf("variable %q has no default and was not set", e.Variable)
}

// Evaluate gives the variables their values, defaults for those not in variables. It
// is an error to set an undeclared variable or one of another type. A variable
// without a value or a default is an *UnsetError where it is asked for. See Invalid
// for the validations.
func (m *Module) Evaluate(variables map[string]cty.Value) (*Values, error) {
	v := &Values{module: m, variables: map[string]cty.Value{}, locals: map[string]cty.Value{}, functions: functions()}
	for _, name := range sortedKeys(variables) {
		if _, declared := m.Variables[name]; !declared {
			return nil, fmt.Errorf("setting variable %q: the module declares no such variable", name)
		}
	}
	for name, variable := range m.Variables {
		value, set := variables[name]
		if !set || value.IsNull() && !variable.Nullable {
			if variable.HasDefault {
				v.variables[name] = variable.Default
			}
			continue
		}
		value, err := variable.convert(value)
		if err != nil {
			return nil, fmt.Errorf("setting variable %q: %w", name, err)
		}
		v.variables[name] = value
	}
	return v, nil
}

// Variable returns the value of a variable, or an *UnsetError.
func (v *Values) Variable(name string) (cty.Value, error) {
	if value, ok := v.variables[name]; ok {
		return value, nil
	}
	if _, declared := v.module.Variables[name]; !declared {
		return cty.NilVal, fmt.Errorf("the module declares no variable %q", name)
	}
	return cty.NilVal, &UnsetError{Variable: name}
}

// Local returns the value of a local. The error is a *NotEvaluableError, wrapped,
// if it depends on what only a plan knows, and an *UnsetError if on a variable
// without a value.
func (v *Values) Local(name string) (cty.Value, error) {
	if value, ok := v.locals[name]; ok {
		return value, nil
	}
	local, declared := v.module.locals[name]
	if !declared {
		return cty.NilVal, fmt.Errorf("the module declares no local %q", name)
	}
	if slices.Contains(v.pending, name) {
		return cty.NilVal, fmt.Errorf("the locals refer to each other in a circle: %s", strings.Join(append(slices.Clone(v.pending), name), " -> "))
	}
	v.pending = append(v.pending, name)
	value, err := v.Attribute(local, nil)
	v.pending = v.pending[:len(v.pending)-1]
	if err != nil {
		return cty.NilVal, fmt.Errorf("evaluating local.%s: %w", name, err)
	}
	v.locals[name] = value
	return value, nil
}

// Attribute evaluates an expression of the module. scope is what it may refer to
// besides variables, locals and paths, by the first name: "each", "count", "self", the
// iterator of a dynamic block, or a resource type.
func (v *Values) Attribute(a Attribute, scope map[string]cty.Value) (cty.Value, error) {
	node, ok := a.expression.(hclsyntax.Expression)
	if !ok {
		return cty.NilVal, errors.New("evaluating: the attribute is not one of the module's")
	}
	if err := known(node, v.functions); err != nil {
		return cty.NilVal, err
	}
	context, err := v.context(node, scope)
	if err != nil {
		return cty.NilVal, err
	}
	value, diags := node.Value(context)
	if diags.HasErrors() {
		return cty.NilVal, failure(diags)
	}
	return value, nil
}

// Invalid is a validation that a variable's value does not pass.
type Invalid struct {
	Variable string
	// Message is the error_message.
	Message string
}

// Invalid returns the validations that fail, in the order of the variables' names.
// Variables without a value are not looked at.
func (v *Values) Invalid() ([]Invalid, error) {
	var out []Invalid
	for _, name := range sortedKeys(v.variables) {
		for _, validation := range v.module.Variables[name].Validations {
			valid, err := v.condition(validation.Condition)
			if err != nil {
				return nil, fmt.Errorf("validating variable %q: %w", name, err)
			}
			if valid {
				continue
			}
			message, err := v.Attribute(validation.ErrorMessage, nil)
			if err != nil {
				return nil, fmt.Errorf("evaluating the error message of variable %q: %w", name, err)
			}
			if message, err = convert.Convert(message, cty.String); err != nil || message.IsNull() {
				return nil, fmt.Errorf("%s: the error message is no string", validation.ErrorMessage.Position)
			}
			out = append(out, Invalid{name, message.AsString()})
		}
	}
	return out, nil
}

// condition is the value of an expression that has to be a boolean.
func (v *Values) condition(a Attribute) (bool, error) {
	value, err := v.Attribute(a, nil)
	if err != nil {
		return false, err
	}
	if value, err = convert.Convert(value, cty.Bool); err != nil || value.IsNull() {
		return false, fmt.Errorf("%s: the condition is neither true nor false", a.Position)
	}
	return value.True(), nil
}

// context holds what an expression refers to and no more: each local it names is
// evaluated now, and those it does not name are not.
func (v *Values) context(e hclsyntax.Expression, scope map[string]cty.Value) (*hcl.EvalContext, error) {
	named := map[string]map[string]cty.Value{"var": {}, "local": {}, "path": {}, "terraform": {}}
	for _, t := range e.Variables() {
		root := t.RootName()
		if _, given := scope[root]; given {
			continue
		}
		values, ours := named[root]
		if !ours {
			return nil, &NotEvaluableError{Reference: address(t), Position: t.SourceRange().String()}
		}
		name, ok := second(t)
		if !ok {
			return nil, fmt.Errorf("%s: %q is followed by a dot and a name", t.SourceRange(), root)
		}
		if _, done := values[name]; done {
			continue
		}
		value, err := v.lookUp(root, name)
		if err != nil {
			return nil, err
		}
		values[name] = value
	}
	all := maps.Clone(scope)
	if all == nil {
		all = map[string]cty.Value{}
	}
	for root, values := range named {
		all[root] = cty.ObjectVal(values)
	}
	return &hcl.EvalContext{Variables: all, Functions: v.functions}, nil
}

// second is the name after the root of a traversal.
func second(t hcl.Traversal) (string, bool) {
	if len(t) < 2 {
		return "", false
	}
	step, ok := t[1].(hcl.TraverseAttr)
	return step.Name, ok
}

func (v *Values) lookUp(root, name string) (cty.Value, error) {
	switch root + "." + name {
	case "path.module", "path.root":
		return cty.StringVal(v.module.dir), nil
	case "path.cwd":
		dir, err := os.Getwd()
		if err != nil {
			return cty.NilVal, fmt.Errorf("evaluating path.cwd: %w", err)
		}
		return cty.StringVal(filepath.ToSlash(dir)), nil
	case "terraform.workspace":
		return cty.StringVal("default"), nil
	}
	switch root {
	case "var":
		return v.Variable(name)
	case "local":
		return v.Local(name)
	}
	return cty.NilVal, fmt.Errorf("there is no %s.%s", root, name)
}

// known is an error if the expression calls a function we do not have. It is looked
// for before evaluating, since try and can would hide it.
func known(e hclsyntax.Expression, table map[string]function.Function) error {
	var missing []error
	diags := hclsyntax.VisitAll(e, func(node hclsyntax.Node) hcl.Diagnostics {
		if call, ok := node.(*hclsyntax.FunctionCallExpr); ok {
			if _, ok := table[call.Name]; !ok {
				missing = append(missing, fmt.Errorf("%s: the function %s is not evaluated here", call.NameRange, call.Name))
			}
		}
		return nil
	})
	return errors.Join(append(missing, diags.Errs()...)...)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func nonEmpty(values ...string) []string {
	return slices.DeleteFunc(values, func(s string) bool { return s == "" })
}

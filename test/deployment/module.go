package deployment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Module is a folder of Terraform files, parsed.
type Module struct {
	// Variables and Outputs are the module's, by name.
	Variables map[string]Variable
	Outputs   map[string]Output
	// Blocks are all others, in the order of files and lines.
	Blocks []Block

	dir    string
	locals map[string]Attribute
}

// Variable is a variable block.
type Variable struct {
	Name, Description string
	// Type is the constraint's source text, empty without one.
	Type string
	// HasDefault is true where the variable need not be set; Default is then its
	// value, of the declared type.
	HasDefault bool
	Default    cty.Value
	Nullable   bool
	Sensitive  bool
	// Validations are its validation blocks.
	Validations []Validation
	Position    string

	constraint cty.Type
	defaults   *typeexpr.Defaults
}

// Validation is a validation block: Condition must be true of the variable's value.
type Validation struct {
	Condition, ErrorMessage Attribute
}

// Output is an output block.
type Output struct {
	Name, Description string
	Value             Attribute
	Position          string
}

// Block is a block of a kind of its own: a resource, a data source, a module, a
// provider, or terraform itself.
type Block struct {
	// Kind is the block's keyword: resource, data, module, provider, terraform.
	Kind string
	// Type is a resource's or data source's type, else empty.
	Type string
	// Name is the last label, empty for blocks without one.
	Name string
	// Attributes are those of the block and of the blocks within, in the order of
	// the file.
	Attributes []Attribute
	Position   string
}

// Attribute is an expression with its name.
type Attribute struct {
	// Path is the name, after those of the blocks it is in:
	// "push_config.oidc_token.audience". A dynamic block's contents are found as if
	// it were an ordinary one, its own settings at "dynamic.<name>.for_each".
	Path string
	// Source is the expression as it is written.
	Source string
	// References are what it refers to, sorted: "var.region", "local.functions",
	// "each.key", "google_pubsub_topic.tick", "data.archive_file.function",
	// "module.network", "path.module". Names that a for expression or a dynamic
	// block defines are not among them.
	References []string
	Position   string

	expression hcl.Expression
}

// Load parses the *.tf files of dir.
func Load(dir string) (*Module, error) {
	names, err := terraformFiles(dir)
	if err != nil {
		return nil, err
	}
	m := &Module{dir: filepath.ToSlash(dir), Variables: map[string]Variable{}, Outputs: map[string]Output{}, locals: map[string]Attribute{}}
	parser := hclparse.NewParser()
	for _, name := range names {
		file, diags := parser.ParseHCLFile(filepath.Join(dir, name))
		if diags.HasErrors() {
			return nil, fmt.Errorf("reading %s: %w", name, failure(diags))
		}
		body, ok := file.Body.(*hclsyntax.Body)
		if !ok {
			return nil, fmt.Errorf("reading %s: it is not in Terraform's own syntax", name)
		}
		if err := m.add(reader{file.Bytes}, body); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// terraformFiles are the names of dir's *.tf files, sorted. What Terraform would read
// too, and we do not, is an error.
func terraformFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the Terraform files: %w", err)
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir() || strings.HasPrefix(name, "."):
		case strings.HasSuffix(name, ".tf.json"), name == "override.tf", strings.HasSuffix(name, "_override.tf"):
			return nil, fmt.Errorf("reading %s: JSON and override files are not evaluated here; declare it in a .tf file", name)
		case strings.HasSuffix(name, ".tf"):
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("reading %s: it has no .tf file", dir)
	}
	return names, nil
}

// Resource returns a resource block.
func (m *Module) Resource(resourceType, name string) (Block, bool) {
	for _, b := range m.Blocks {
		if b.Kind == "resource" && b.Type == resourceType && b.Name == name {
			return b, true
		}
	}
	return Block{}, false
}

// Locals returns the names of the module's locals, sorted.
func (m *Module) Locals() []string { return sortedKeys(m.locals) }

// Address is how expressions refer to the block: "google_pubsub_topic.tick",
// "data.archive_file.function", "module.network", "provider.google", "terraform".
func (b Block) Address() string {
	var parts []string
	if b.Kind != "resource" {
		parts = append(parts, b.Kind)
	}
	return strings.Join(append(parts, nonEmpty(b.Type, b.Name)...), ".")
}

// Attribute returns the first attribute of a path.
func (b Block) Attribute(path string) (Attribute, bool) {
	i := slices.IndexFunc(b.Attributes, func(a Attribute) bool { return a.Path == path })
	if i < 0 {
		return Attribute{}, false
	}
	return b.Attributes[i], true
}

// References are what the attributes of the block refer to, sorted.
func (b Block) References() []string {
	seen := map[string]bool{}
	for _, a := range b.Attributes {
		for _, r := range a.References {
			seen[r] = true
		}
	}
	return sortedKeys(seen)
}

// add takes the top-level blocks of one file.
func (m *Module) add(r reader, body *hclsyntax.Body) error {
	for name, a := range body.Attributes {
		return fmt.Errorf("%s: %q is outside of any block", a.SrcRange, name)
	}
	for _, b := range body.Blocks {
		var err error
		switch b.Type {
		case "variable":
			err = m.addVariable(r, b)
		case "output":
			err = m.addOutput(r, b)
		case "locals":
			err = m.addLocals(r, b)
		default:
			m.Blocks = append(m.Blocks, r.block(b))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) addVariable(r reader, b *hclsyntax.Block) error {
	if len(b.Labels) != 1 {
		return fmt.Errorf("%s: a variable has one label, its name", b.DefRange())
	}
	v := Variable{Name: b.Labels[0], Nullable: true, Position: b.DefRange().String(), constraint: cty.DynamicPseudoType}
	if _, twice := m.Variables[v.Name]; twice {
		return fmt.Errorf("%s: variable %q is declared twice", b.DefRange(), v.Name)
	}
	if a, ok := b.Body.Attributes["type"]; ok {
		var diags hcl.Diagnostics
		v.Type = r.source(a.Expr)
		if v.constraint, v.defaults, diags = typeexpr.TypeConstraintWithDefaults(a.Expr); diags.HasErrors() {
			return fmt.Errorf("reading the type of variable %q: %w", v.Name, failure(diags))
		}
	}
	for name, target := range map[string]any{"description": &v.Description, "nullable": &v.Nullable, "sensitive": &v.Sensitive} {
		if err := constant(b.Body.Attributes[name], target); err != nil {
			return err
		}
	}
	for _, inner := range b.Body.Blocks {
		if inner.Type != "validation" {
			return fmt.Errorf("%s: a variable has no %s block", inner.DefRange(), inner.Type)
		}
		condition, message := inner.Body.Attributes["condition"], inner.Body.Attributes["error_message"]
		if condition == nil || message == nil {
			return fmt.Errorf("%s: a validation has a condition and an error_message", inner.DefRange())
		}
		v.Validations = append(v.Validations, Validation{r.attribute("", nil, condition), r.attribute("", nil, message)})
	}
	if a, ok := b.Body.Attributes["default"]; ok {
		if err := v.setDefault(a.Expr); err != nil {
			return err
		}
	}
	m.Variables[v.Name] = v
	return nil
}

func (v *Variable) setDefault(e hclsyntax.Expression) error {
	value, diags := e.Value(nil)
	if diags.HasErrors() {
		return fmt.Errorf("reading the default of variable %q: %w", v.Name, failure(diags))
	}
	value, err := v.convert(value)
	if err != nil {
		return fmt.Errorf("reading the default of variable %q: %w", v.Name, err)
	}
	if value.IsNull() && !v.Nullable {
		return fmt.Errorf("reading the default of variable %q: it is null, which the variable may not be", v.Name)
	}
	v.HasDefault, v.Default = true, value
	return nil
}

// convert is a value of the variable's type, with the defaults of its optional
// attributes.
func (v *Variable) convert(value cty.Value) (cty.Value, error) {
	if v.defaults != nil && !value.IsNull() {
		value = v.defaults.Apply(value)
	}
	out, err := convert.Convert(value, v.constraint)
	if err != nil {
		return cty.NilVal, fmt.Errorf("converting to %s: %w", v.Type, err)
	}
	return out, nil
}

func (m *Module) addOutput(r reader, b *hclsyntax.Block) error {
	if len(b.Labels) != 1 || b.Body.Attributes["value"] == nil {
		return fmt.Errorf("%s: an output has one label, its name, and a value", b.DefRange())
	}
	o := Output{Name: b.Labels[0], Value: r.attribute("", nil, b.Body.Attributes["value"]), Position: b.DefRange().String()}
	if _, twice := m.Outputs[o.Name]; twice {
		return fmt.Errorf("%s: output %q is declared twice", b.DefRange(), o.Name)
	}
	if err := constant(b.Body.Attributes["description"], &o.Description); err != nil {
		return err
	}
	m.Outputs[o.Name] = o
	return nil
}

func (m *Module) addLocals(r reader, b *hclsyntax.Block) error {
	for name, a := range b.Body.Attributes {
		if other, twice := m.locals[name]; twice {
			return fmt.Errorf("%s: local %q is declared at %s already", a.SrcRange, name, other.Position)
		}
		m.locals[name] = r.attribute("", nil, a)
	}
	return nil
}

// constant reads an attribute that refers to nothing into a *string or *bool; an
// absent attribute leaves the target alone.
func constant(a *hclsyntax.Attribute, target any) error {
	if a == nil {
		return nil
	}
	value, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		return fmt.Errorf("reading %s: %w", a.Name, failure(diags))
	}
	switch target := target.(type) {
	case *string:
		if value.Type() == cty.String && !value.IsNull() {
			*target = value.AsString()
			return nil
		}
	case *bool:
		if value.Type() == cty.Bool && !value.IsNull() {
			*target = value.True()
			return nil
		}
	}
	return fmt.Errorf("%s: %s is of another type", a.SrcRange, a.Name)
}

// reader turns syntax into what this package exports; it has the text of the file.
type reader struct{ text []byte }

func (r reader) source(e hclsyntax.Expression) string {
	span := e.Range()
	return string(span.SliceBytes(r.text))
}

func (r reader) attribute(prefix string, iterators []string, a *hclsyntax.Attribute) Attribute {
	return Attribute{
		Path: prefix + a.Name, Source: r.source(a.Expr), References: references(a.Expr, iterators),
		Position: a.SrcRange.String(), expression: a.Expr,
	}
}

func (r reader) block(b *hclsyntax.Block) Block {
	out := Block{Kind: b.Type, Position: b.DefRange().String(), Attributes: r.attributes("", nil, b.Body)}
	switch labels := b.Labels; len(labels) {
	case 0:
	case 1:
		out.Name = labels[0]
	default:
		out.Type, out.Name = labels[0], labels[1]
	}
	return out
}

// attributes are those of a body and of the blocks in it. iterators are the names
// that the dynamic blocks around it define.
func (r reader) attributes(prefix string, iterators []string, body *hclsyntax.Body) []Attribute {
	var out []Attribute
	for _, a := range body.Attributes {
		out = append(out, r.attribute(prefix, iterators, a))
	}
	slices.SortFunc(out, func(a, b Attribute) int {
		return a.expression.Range().Start.Byte - b.expression.Range().Start.Byte
	})
	for _, b := range body.Blocks {
		if b.Type != "dynamic" || len(b.Labels) != 1 {
			out = append(out, r.attributes(prefix+b.Type+".", iterators, b.Body)...)
			continue
		}
		name := b.Labels[0]
		for _, setting := range sortedKeys(b.Body.Attributes) {
			out = append(out, r.attribute(prefix+"dynamic."+name+".", iterators, b.Body.Attributes[setting]))
		}
		iterator := name
		if a, ok := b.Body.Attributes["iterator"]; ok {
			iterator = hcl.ExprAsKeyword(a.Expr)
		}
		for _, content := range b.Body.Blocks {
			out = append(out, r.attributes(prefix+name+".", append(slices.Clone(iterators), iterator), content.Body)...)
		}
	}
	return out
}

// references are the addresses an expression refers to.
func references(e hcl.Expression, iterators []string) []string {
	seen := map[string]bool{}
	for _, t := range e.Variables() {
		if !slices.Contains(iterators, t.RootName()) {
			seen[address(t)] = true
		}
	}
	return sortedKeys(seen)
}

// address is the part of a traversal that names a thing: two names, three for data.
func address(t hcl.Traversal) string {
	length := 2
	if t.RootName() == "data" {
		length = 3
	}
	parts := []string{t.RootName()}
	for _, step := range t[1:] {
		name, ok := step.(hcl.TraverseAttr)
		if !ok || len(parts) == length {
			break
		}
		parts = append(parts, name.Name)
	}
	return strings.Join(parts, ".")
}

// failure is all the errors of a parse or an evaluation; the error of hcl itself
// shows the first only.
func failure(diags hcl.Diagnostics) error { return errors.Join(diags.Errs()...) }

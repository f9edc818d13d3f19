//go:build googlesql

package analyzer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-googlesql"
)

// tableCatalog resolves table paths as BigQuery does: project.dataset.table,
// dataset.table or table, in any quoting, names compared with their case.
// One statement uses it at a time.
type tableCatalog struct {
	googlesql.CatalogCallbackDefaults
	engine *engine
	made   map[string]*googlesql.SimpleTable // by definition
	byPath map[string]Table
	opts   Options
	found  []foundTable
	failed error // a schema that cannot be represented
	// missing is the last refusal, of a table or of a function; its text is
	// all of it that the engine hands back.
	missing      error
	missingTable string
}

// foundTable is a table with the path that the statement wrote.
type foundTable struct {
	written []string
	full    string
	table   *googlesql.SimpleTable
}

func (c *tableCatalog) begin(o Options) {
	c.opts, c.found, c.failed, c.missing, c.missingTable = o, nil, nil, nil, ""
	c.byPath = make(map[string]Table, len(o.Tables))
	for _, t := range o.Tables {
		c.byPath[t.Project+"."+t.Dataset+"."+t.Name] = t
	}
}

// FullName names the catalog in messages.
func (c *tableCatalog) FullName() (string, error) { return "bigquery", nil }

// FindTable is called by the engine for every table path of the statement.
func (c *tableCatalog) FindTable(path []string, _ *googlesql.FindOptions) (googlesql.TableNode, error) {
	full := c.fullPath(path)
	def, ok := c.byPath[full]
	if !ok {
		err := c.absent("Table", full)
		c.missingTable = full
		return nil, err
	}
	table, err := c.table(full, def)
	if err != nil {
		c.failed = err
		return nil, err
	}
	c.found = append(c.found, foundTable{written: path, full: full, table: table})
	return table, nil
}

func (c *tableCatalog) absent(what, name string) error {
	c.missing, c.missingTable = fmt.Errorf("%s not found: %s", what, name), ""
	return c.missing
}

// FindFunction is asked only for what is not built in.
func (c *tableCatalog) FindFunction(path []string, _ *googlesql.FindOptions) (*googlesql.Function, error) {
	return nil, c.absent("Function", strings.Join(path, "."))
}

// FindTableValuedFunction is asked only for what is not built in.
func (c *tableCatalog) FindTableValuedFunction(path []string, _ *googlesql.FindOptions) (*googlesql.TableValuedFunction, error) {
	if len(path) == 1 && strings.EqualFold(path[0], "APPENDS") {
		return c.engine.appends, nil
	}
	return nil, c.absent("Table-valued function", strings.Join(path, "."))
}

// FindProcedure knows none.
func (c *tableCatalog) FindProcedure(path []string, _ *googlesql.FindOptions) (*googlesql.Procedure, error) {
	return nil, c.absent("Procedure", strings.Join(path, "."))
}

// FindModel knows none.
func (c *tableCatalog) FindModel(path []string, _ *googlesql.FindOptions) (googlesql.ModelNode, error) {
	return nil, c.absent("Model", strings.Join(path, "."))
}

// FindConnection knows none.
func (c *tableCatalog) FindConnection(path []string, _ *googlesql.FindOptions) (googlesql.ConnectionNode, error) {
	return nil, c.absent("Connection", strings.Join(path, "."))
}

// FindType is asked only for what is not built in.
func (c *tableCatalog) FindType(path []string, _ *googlesql.FindOptions) (googlesql.Googlesql_TypeNode, error) {
	return nil, c.absent("Type", strings.Join(path, "."))
}

func (c *tableCatalog) fullPath(path []string) string {
	parts := splitPath(path)
	want := 3
	if len(parts) > 1 && strings.EqualFold(parts[len(parts)-2], "INFORMATION_SCHEMA") {
		want = 4 // dataset.INFORMATION_SCHEMA.view
	}
	if len(parts) == want-2 {
		parts = append([]string{c.opts.DefaultDataset}, parts...)
	}
	if len(parts) == want-1 {
		parts = append([]string{c.opts.DefaultProject}, parts...)
	}
	return strings.Join(parts, ".")
}

// splitPath splits elements that hold dots, as `project.dataset.table` in one
// pair of backticks does. A domain-scoped project (example.com:p) keeps its dots.
func splitPath(path []string) []string {
	var parts []string
	for _, element := range path {
		project, rest, scoped := strings.Cut(element, ":")
		if !scoped {
			parts = append(parts, strings.Split(element, ".")...)
			continue
		}
		tail := strings.Split(rest, ".")
		parts = append(parts, project+":"+tail[0])
		parts = append(parts, tail[1:]...)
	}
	return parts
}

// maxTables bounds the definitions kept; a process that made more starts over.
const maxTables = 4096

func (c *tableCatalog) table(full string, def Table) (*googlesql.SimpleTable, error) {
	var key strings.Builder
	key.WriteString(full)
	for _, col := range def.Columns {
		fmt.Fprintf(&key, "\x00%s\x01%s", col.Name, col.Type)
	}
	if t, ok := c.made[key.String()]; ok {
		return t, nil
	}
	if len(c.made) >= maxTables {
		clear(c.made)
	}
	t, err := c.newTable(full, def)
	if err != nil {
		return nil, err
	}
	c.made[key.String()] = t
	return t, nil
}

func (c *tableCatalog) newTable(full string, def Table) (*googlesql.SimpleTable, error) {
	t, err := googlesql.NewSimpleTable(full, 0)
	if err != nil {
		return nil, fmt.Errorf("creating table %s: %w", full, err)
	}
	for _, col := range def.Columns {
		typ, err := c.engine.typeOf(col.Type)
		if err != nil {
			return nil, fmt.Errorf("reading column %s of %s: %w", col.Name, full, err)
		}
		sc, err := googlesql.NewSimpleColumn(full, col.Name, typ, false, true)
		if err != nil {
			return nil, fmt.Errorf("creating column %s of %s: %w", col.Name, full, err)
		}
		if err := t.AddColumn(sc); err != nil {
			return nil, fmt.Errorf("adding column %s to %s: %w", col.Name, full, err)
		}
	}
	return t, nil
}

func (c *tableCatalog) referenced() []string {
	tables := make([]string, 0, len(c.found))
	for _, f := range c.found {
		tables = append(tables, f.full)
	}
	slices.Sort(tables)
	return slices.Compact(tables)
}

// plain is a catalog without callbacks of the tables found so far: through it
// the engine says itself, and where, what is missing.
func (c *tableCatalog) plain() (*googlesql.SimpleCatalog, error) {
	root, err := googlesql.NewSimpleCatalog("bigquery", c.engine.factory)
	if err != nil {
		return nil, fmt.Errorf("creating catalog: %w", err)
	}
	inner := map[string]*googlesql.SimpleCatalog{}
	added := map[string]bool{}
	for _, f := range c.found {
		at, path := root, ""
		for _, name := range f.written[:len(f.written)-1] {
			path += strings.ToLower(name) + "\x00"
			if inner[path] == nil {
				if inner[path], err = at.MakeOwnedSimpleCatalog(name); err != nil {
					return nil, fmt.Errorf("creating catalog %s: %w", name, err)
				}
			}
			at = inner[path]
		}
		name := f.written[len(f.written)-1]
		if key := path + strings.ToLower(name); !added[key] {
			added[key] = true
			if err := at.AddTable2(name, f.table); err != nil {
				return nil, fmt.Errorf("adding table %s: %w", f.full, err)
			}
		}
	}
	return root, nil
}

// Package contract writes the contracts of schemas/bigquery from the live source, and
// compares those that there are with it.
package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/mapping"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// Table is a table of a pipeline file, and what the source makes of it now.
type Table struct {
	Pipeline *pipeline.Pipeline
	Spec     *pipeline.Table

	target *warehouse.Table
}

// Name is how messages call the table.
func (t Table) Name() string { return t.Pipeline.Name + "/" + t.Spec.Name }

// Describe looks at the tables in the source, once each, whatever tenants there are:
// those of one pipeline and of one name, where these are not "". A name that no pipeline
// has is a permanent error; of tables that cannot be described the error tells, and the
// others are returned beside it (I7).
func Describe(ctx context.Context, db *cloudsql.Pool, d *tick.Dispatcher, pipelineName, table string) ([]Table, error) {
	if err := d.Check(tick.Message{Pipeline: pipelineName, Table: table}); err != nil {
		return nil, err
	}
	var out []Table
	var failures []error
	for i := range d.Pipelines {
		p := &d.Pipelines[i]
		for j := range p.Tables {
			t := Table{Pipeline: p, Spec: &p.Tables[j]}
			if pipelineName != "" && p.Name != pipelineName || table != "" && t.Spec.Name != table {
				continue
			}
			var err error
			if t.target, err = describe(ctx, db, p, t.Spec); err != nil {
				failures = append(failures, fmt.Errorf("%s:%d: table %q: %w", p.File, t.Spec.Line, t.Spec.Name, err))
				continue
			}
			out = append(out, t)
		}
	}
	return out, errors.Join(failures...)
}

// describe is what an extract makes of the table before it reads a row.
func describe(ctx context.Context, db *cloudsql.Pool, p *pipeline.Pipeline, spec *pipeline.Table) (*warehouse.Table, error) {
	described, err := source.Describe(ctx, db, p.Schema, spec, nil)
	if err != nil {
		return nil, err
	}
	key, err := described.CheckKey(spec.Key)
	if err != nil {
		return nil, err
	}
	return mapping.Destination(spec, p.Dataset, described, key)
}

// Differences lists where the table differs from the contract that it has; none where it
// has none.
func (t Table) Differences() pipeline.Problems {
	if t.Spec.Contract == nil {
		return nil
	}
	return mapping.Differences(t.Spec.Contract, t.target)
}

// column is one as `bq show --schema --format=prettyjson` prints it: the keys in the
// order of the alphabet.
type column struct {
	Description string `json:"description,omitempty"`
	Mode        string `json:"mode"`
	Name        string `json:"name"`
	Type        string `json:"type"`
}

// Text is the contract of the table as it is now, in the order of its columns. Of those
// that the present contract describes, the descriptions are kept.
func (t Table) Text() ([]byte, error) {
	described := map[string]string{}
	if t.Spec.Contract != nil {
		for _, c := range t.Spec.Contract.Columns {
			described[strings.ToLower(c.Name)] = c.Description
		}
	}
	var columns []column
	for _, f := range t.target.Schema() {
		c := column{Description: f.Description, Mode: f.Mode, Name: f.Name, Type: f.Type}
		if kept := described[strings.ToLower(f.Name)]; kept != "" {
			c.Description = kept
		}
		columns = append(columns, c)
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(columns); err != nil {
		return nil, fmt.Errorf("writing the contract of %s: %w", t.Name(), err)
	}
	return b.Bytes(), nil
}

// Write writes the contract into a folder of contracts, and says where and whether it is
// another one than before.
func (t Table) Write(folder string) (file string, changed bool, err error) {
	file = filepath.Join(folder, t.Pipeline.Name, filepath.Base(pipeline.ContractFile(t.Pipeline.Name, t.Spec.Name)))
	text, err := t.Text()
	if err != nil {
		return file, false, err
	}
	before, err := os.ReadFile(file) //nolint:gosec // the folder is the caller's to choose
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return file, false, fmt.Errorf("reading the contract before: %w", err)
	}
	if err == nil && bytes.Equal(before, text) {
		return file, false, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // as any folder of a repository
		return file, false, fmt.Errorf("making the folder of the contracts: %w", err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil { //nolint:gosec // as any file of a repository
		return file, false, fmt.Errorf("writing the contract: %w", err)
	}
	return file, true, nil
}

package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// contractsDir is the folder of the contracts, beside the pipeline files.
const contractsDir = "bigquery"

// Contract is what the readers of a table in BigQuery count on: its schema, as
// `bq show --schema` prints it. A source that no longer fits it is refused.
type Contract struct {
	File    string // where it was read from, for messages
	Columns []ContractColumn
}

// ContractColumn is one column of a contract. Its type is GoogleSQL's name of it:
// INT64 for the INTEGER that bq prints; its mode is NULLABLE, REQUIRED or REPEATED.
type ContractColumn struct {
	Name, Type, Mode, Description string
	Line                          int // in the contract
}

// ContractFile returns where the contract of a table of that pipeline is read from,
// relative to the folder of the pipeline files. No table's name has a / or begins with a dot.
func ContractFile(pipeline, table string) string {
	return path.Join(contractsDir, pipeline, table+".json")
}

// contracts gives the tables of the pipelines their contracts. Files of other tables are
// a problem, unless some pipelines could not be read.
func contracts(files fs.FS, pipelines []Pipeline, complete bool) (Problems, error) {
	var problems Problems
	owners := map[string]*Table{}
	known := map[string]bool{}
	for i := range pipelines {
		known[pipelines[i].Name] = true
		for j := range pipelines[i].Tables {
			t := &pipelines[i].Tables[j]
			owners[ContractFile(pipelines[i].Name, t.Name)] = t
		}
	}
	err := fs.WalkDir(files, contractsDir, func(name string, entry fs.DirEntry, err error) error {
		folder, file := path.Split(strings.TrimPrefix(name, contractsDir+"/"))
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == contractsDir:
			return nil
		case err != nil:
			return fmt.Errorf("listing contracts: %w", err)
		case entry.IsDir() || strings.HasPrefix(file, ".") || file == "README.md":
			return nil
		case owners[name] != nil:
			text, err := fs.ReadFile(files, name)
			if err != nil {
				return fmt.Errorf("reading %s: %w", name, err)
			}
			contract, found := parseContract(name, text)
			owners[name].Contract = contract
			problems = append(problems, found...)
			return nil
		case !complete:
			return nil
		}
		switch pipeline := path.Clean(folder); {
		case path.Ext(file) != ".json" || pipeline == "." || strings.Contains(pipeline, "/"):
			problems = append(problems, Problem{name, 0, "this file is no contract", "name it " + contractsDir + "/<pipeline>/<table>.json, or move it elsewhere"})
		case !known[pipeline]:
			problems = append(problems, Problem{name, 0, fmt.Sprintf("there is no pipeline %q", pipeline), "name the folder as the pipeline, or delete it"})
		default:
			problems = append(problems, Problem{name, 0, fmt.Sprintf("pipeline %q has no table of that name", pipeline), "name the file as the table, or delete it"})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading contracts: %w", err)
	}
	return problems, nil
}

// contractReader reads one contract.
type contractReader struct {
	file     string
	text     []byte
	problems Problems
}

// likeBQ is the remedy for what is no contract at all.
const likeBQ = "write what `bq show --schema` prints"

func parseContract(name string, text []byte) (*Contract, Problems) {
	r := contractReader{file: name, text: text}
	var whole []json.RawMessage
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(text, &whole); {
	case errors.As(err, &syntax):
		r.problem(r.line(max(0, syntax.Offset-1)), "this is no JSON: "+syntax.Error(), likeBQ)
	case err != nil:
		r.problem(1, "the contract is no list of columns", likeBQ)
	case len(whole) == 0:
		r.problem(1, "the contract lists no column", likeBQ+", or delete the file")
	}
	out := &Contract{File: name}
	lines := map[string]int{}
	at := 0
	for _, text := range whole {
		at += bytes.Index(r.text[at:], text)
		line := r.line(int64(at))
		at += len(text)
		c := r.column(line, text)
		if other, twice := lines[strings.ToLower(c.Name)]; twice && c.Name != "" {
			r.problem(line, fmt.Sprintf("column %q is also on line %d", c.Name, other), "keep one of them: upper and lower case are the same in BigQuery")
		}
		lines[strings.ToLower(c.Name)] = line
		out.Columns = append(out.Columns, c)
	}
	return out, r.problems
}

func (r *contractReader) problem(line int, what, remedy string) {
	r.problems = append(r.problems, Problem{r.file, line, what, remedy})
}

// line is the line of the byte at offset.
func (r *contractReader) line(offset int64) int {
	return 1 + bytes.Count(r.text[:offset], []byte("\n"))
}

// column reads one column, as far as it can be.
func (r *contractReader) column(line int, text []byte) ContractColumn {
	c := ContractColumn{Mode: modes[0], Line: line}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		r.problem(line, "this is no column", `write {"name": .., "type": .., "mode": ..}`)
		return c
	}
	known := map[string]*string{"name": &c.Name, "type": &c.Type, "mode": &c.Mode, "description": &c.Description}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		field, ok := known[key]
		value, isText := fields[key].(string)
		switch {
		case !ok:
			r.problem(line, fmt.Sprintf("unknown key %q in a column", key), "leave it out: known keys are "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case !isText:
			r.problem(line, key+" is no text", "put it into quotes")
		default:
			*field = value
		}
	}
	if c.Name == "" {
		r.problem(line, "the column has no name", "add name:")
	}
	if known := TypeName(c.Type); known != "" {
		c.Type = known
	} else {
		r.problem(line, fmt.Sprintf("column %q is of type %q, which no column here has", c.Name, c.Type), "use one of: "+strings.Join(Types(), ", "))
	}
	if c.Mode = strings.ToUpper(c.Mode); !slices.Contains(modes[:], c.Mode) {
		r.problem(line, fmt.Sprintf("column %q is of mode %q", c.Name, c.Mode), "use one of: "+strings.Join(modes[:], ", "))
	}
	return c
}

// modes are those of a column, the usual one first.
//
//nolint:gochecknoglobals // a list of constants, never written
var modes = [...]string{"NULLABLE", "REQUIRED", "REPEATED"}

// Types returns GoogleSQL's names of the types that a column can have.
func Types() []string {
	return []string{"STRING", "BYTES", "BOOL", "INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC", "DATE", "TIME", "DATETIME", "TIMESTAMP", "INTERVAL", "JSON", "GEOGRAPHY"}
}

// TypeName returns GoogleSQL's name of a type that may be called as the API calls it, in
// any case; "" for others.
func TypeName(name string) string {
	name = strings.ToUpper(name)
	switch name {
	case "BOOLEAN":
		return "BOOL"
	case "INTEGER":
		return "INT64"
	case "FLOAT":
		return "FLOAT64"
	}
	if slices.Contains(Types(), name) {
		return name
	}
	return ""
}

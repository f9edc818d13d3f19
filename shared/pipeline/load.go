package pipeline

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Load reads every *.yaml at the root of files and the contracts in its folder
// bigquery (see ContractFile), checks them against the JSON Schema and against each
// other, and applies the defaults. All mistakes of all files are reported at once, as
// Problems; with any, no pipeline is returned.
func Load(files fs.FS, schema []byte) ([]Pipeline, error) {
	validator, err := compile(schema)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(files, ".") // fs.Glob would take a missing folder for an empty one
	if err != nil {
		return nil, fmt.Errorf("listing pipeline files: %w", err)
	}
	var names []string
	for _, e := range entries {
		if path.Ext(e.Name()) == ".yaml" {
			names = append(names, e.Name())
		}
	}
	var (
		out      []Pipeline
		problems Problems
		declared = map[string]string{}
		landed   = map[string]landing{}
	)
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		p, found := parse(name, text, validator)
		if other, twice := declared[p.Name]; twice && p.Name != "" {
			found = append(found, Problem{name, 1, fmt.Sprintf("pipeline %q is also declared in %s", p.Name, other), "give each file its own name"})
		}
		declared[p.Name] = name
		found = append(found, p.collisions(landed)...)
		problems = append(problems, found...)
		out = append(out, p)
	}
	found, err := contracts(files, out, len(problems) == 0)
	if err != nil {
		return nil, err
	}
	problems = append(problems, found...)
	if len(problems) > 0 {
		return nil, problems.sorted()
	}
	return out, nil
}

// landing is the table that lands under a name in BigQuery.
type landing struct{ pipeline, table string }

// collisions are the tables that would land where another one does.
func (p *Pipeline) collisions(landed map[string]landing) Problems {
	var problems Problems
	dataset := p.Dataset
	if p.Tenants != nil {
		dataset = p.Tenants.Dataset
	}
	for _, t := range p.Tables {
		us := landing{p.Name, t.Name}
		for _, name := range t.names() {
			where := dataset + "." + name
			switch other, taken := landed[where]; {
			case !taken:
				landed[where] = us
			case other == us: // declared twice, which is reported as that
			case other.table == t.Name:
				problems = append(problems, Problem{p.File, t.Line, fmt.Sprintf("%s is also where pipeline %q lands", where, other.pipeline), "give one of them another dataset"})
			default:
				problems = append(problems, Problem{
					p.File, t.Line, fmt.Sprintf("table %q lands in %s, and so does table %q of pipeline %q", t.Name, where, other.table, other.pipeline),
					"give one of them another dataset, in a pipeline file of its own, or another write mode",
				})
			}
		}
	}
	return problems
}

// names are the names in its dataset that a table uses: its own, and those of what is
// behind it in its write mode.
func (t *Table) names() []string {
	switch t.Write {
	case WriteAppend:
		return []string{t.Name, t.Name + "_log"}
	case WriteMerge:
		return []string{t.Name, t.Name + "_merge", t.Name + "_staging"}
	default:
		return []string{t.Name, t.Name + "_" + string(t.Write)}
	}
}

func compile(text []byte) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("reading the pipeline schema: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	const name = "pipeline.schema.json"
	if err := compiler.AddResource(name, doc); err != nil {
		return nil, fmt.Errorf("adding the pipeline schema: %w", err)
	}
	schema, err := compiler.Compile(name)
	if err != nil {
		return nil, fmt.Errorf("compiling the pipeline schema: %w", err)
	}
	return schema, nil
}

// document is the file as it is written; Pipeline is what it means.
type document struct {
	Pipeline string `json:"pipeline"`
	Source   struct {
		Schema string `json:"schema"`
	} `json:"source"`
	Destination struct {
		Dataset string `json:"dataset"`
	} `json:"destination"`
	Defaults options `json:"defaults"`
	Tenants  *struct {
		Query   string `json:"query"`
		Column  string `json:"column"`
		Dataset string `json:"dataset"`
	} `json:"tenants"`
	WAL struct {
		MaxLag string `json:"max_lag"`
	} `json:"wal"`
	Tables []struct {
		options
		Name          string            `json:"name"`
		Key           []string          `json:"key"`
		Query         string            `json:"query"`
		Capture       captureDocument   `json:"capture"`
		AlsoChangedBy []relatedDocument `json:"also_changed_by"`
		PartitionBy   *PartitionBy      `json:"partition_by"`
		ClusterBy     []string          `json:"cluster_by"`
		Columns       columnsDocument   `json:"columns"`
		Where         string            `json:"where"`
		MaxStaleness  string            `json:"max_staleness"`
	} `json:"tables"`
	Dedup *struct {
		Every       string `json:"every"`
		MaxBytes    int64  `json:"max_bytes"`
		KeepDeleted string `json:"keep_deleted"`
	} `json:"dedup"`
	ReverseETL []syncDocument `json:"reverse_etl"`
}

type options struct {
	Every            string        `json:"every"`
	Write            Write         `json:"write"`
	Deletes          Deletes       `json:"deletes"`
	BatchRows        int           `json:"batch_rows"`
	SchemaChanges    SchemaChanges `json:"schema_changes"`
	MaxRejectPercent *float64      `json:"max_reject_percent"`
}

// What a file that says nothing gets; the schema documents the same values.
const (
	defaultEvery         = "1m"
	defaultBatchRows     = 500_000
	defaultLookback      = 10 * time.Minute
	defaultLookbackCount = 10_000
	defaultMaxBytes      = 1 << 40
)

// parse reads one file. It returns what could be read even when there are
// problems, so that files can be checked against each other.
func parse(name string, text []byte, schema *jsonschema.Schema) (Pipeline, Problems) {
	var root, further yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return Pipeline{}, Problems{yamlProblem(name, err)}
	}
	if err := decoder.Decode(&further); !errors.Is(err, io.EOF) {
		return Pipeline{}, Problems{{name, further.Line, "something follows the pipeline", "give each pipeline a file of its own"}}
	}
	r := reader{file: name, schema: schemaNode{schema}, lines: map[string]int{}, literals: map[string]string{}, within: map[*yaml.Node]bool{}}
	instance := r.value(&root, "")
	if len(r.problems) > 0 {
		return Pipeline{}, r.problems
	}
	if err := schema.Validate(instance); err != nil {
		var invalid *jsonschema.ValidationError
		if !errors.As(err, &invalid) {
			return Pipeline{}, Problems{{File: name, What: err.Error()}}
		}
		r.schemaProblems(invalid)
		return Pipeline{}, r.problems
	}
	encoded, err := json.Marshal(instance)
	if err != nil {
		return Pipeline{}, Problems{{File: name, What: err.Error()}}
	}
	var doc document
	if err := json.Unmarshal(encoded, &doc); err != nil {
		return Pipeline{}, Problems{{File: name, What: err.Error(), Remedy: "correct the value"}}
	}
	return r.pipeline(doc), r.problems
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

func yamlProblem(file string, err error) Problem {
	p := Problem{File: file, What: err.Error(), Remedy: "correct the YAML"}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.What = m[2]
	}
	return p
}

// reader turns YAML into plain values and remembers the line and the spelling of
// each, by its JSON pointer.
type reader struct {
	file     string
	schema   schemaNode
	lines    map[string]int
	literals map[string]string // scalars as they are written
	problems Problems
	within   map[*yaml.Node]bool // aliases being followed
	nodes    int
}

// maxNodes is far beyond any pipeline file: aliases of aliases can write more
// than memory holds in a few lines.
const maxNodes = 100_000

func (r *reader) problem(pointer, what, remedy string) {
	r.problems = append(r.problems, Problem{r.file, r.line(pointer), what, remedy})
}

// line is the line of the value at pointer, or of its nearest parent.
func (r *reader) line(pointer string) int {
	for {
		if n, ok := r.lines[pointer]; ok {
			return n
		}
		if pointer == "" {
			return 0
		}
		pointer = pointer[:strings.LastIndexByte(pointer, '/')]
	}
}

func (r *reader) value(n *yaml.Node, pointer string) any {
	if _, seen := r.lines[pointer]; !seen {
		r.lines[pointer] = n.Line
	}
	if r.nodes++; r.nodes > maxNodes {
		if r.nodes == maxNodes+1 {
			r.problem(pointer, "the file is too large", "write it without aliases of aliases")
		}
		return nil
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return r.value(n.Content[0], pointer)
	case yaml.AliasNode:
		if r.within[n.Alias] {
			r.problem(pointer, fmt.Sprintf("the alias *%s contains itself", n.Value), "write its value")
			return nil
		}
		r.within[n.Alias] = true
		defer delete(r.within, n.Alias)
		return r.value(n.Alias, pointer)
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for i, item := range n.Content {
			out = append(out, r.value(item, pointer+"/"+strconv.Itoa(i)))
		}
		return out
	case yaml.MappingNode:
		out := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			at := pointer + "/" + key.Value
			if _, twice := out[key.Value]; twice {
				r.problems = append(r.problems, Problem{r.file, key.Line, fmt.Sprintf("key %q is given twice", key.Value), "keep one of them"})
			}
			r.lines[at] = key.Line
			out[key.Value] = r.value(n.Content[i+1], at)
		}
		return out
	default:
		r.literals[pointer] = n.Value
		var v any
		if err := n.Decode(&v); err != nil {
			r.problems = append(r.problems, yamlProblem(r.file, err))
			return nil
		}
		if _, ok := v.(time.Time); ok { // an unquoted date is meant as text
			return n.Value
		}
		if i, ok := v.(int); ok {
			return json.Number(strconv.Itoa(i))
		}
		return v
	}
}

// pipeline applies the defaults and checks what a schema cannot say.
func (r *reader) pipeline(doc document) Pipeline {
	p := Pipeline{
		Name:    doc.Pipeline,
		File:    r.file,
		Schema:  cmp.Or(doc.Source.Schema, "public"),
		Dataset: doc.Destination.Dataset,
		WAL:     WAL{MaxLag: r.size("/wal/max_lag", cmp.Or(doc.WAL.MaxLag, defaultMaxLag))},
	}
	if doc.Tenants != nil {
		p.Tenants = &Tenants{Query: doc.Tenants.Query, Column: doc.Tenants.Column, Dataset: doc.Tenants.Dataset}
	}
	every := r.cadence("/defaults/every", cmp.Or(doc.Defaults.Every, defaultEvery))
	seen := map[string]int{}
	for i, t := range doc.Tables {
		at := "/tables/" + strconv.Itoa(i)
		r.unique(seen, at, "table", t.Name)
		table := Table{
			Name: t.Name, Key: t.Key, Query: t.Query,
			Capture: r.capture(at+"/capture", t.Capture, t.Key), AlsoChangedBy: r.related(at+"/also_changed_by", t.AlsoChangedBy),
			Every:         cmp.Or(r.cadence(at+"/every", t.Every), every),
			Write:         cmp.Or(t.Write, doc.Defaults.Write, WriteAppend),
			Deletes:       cmp.Or(t.Deletes, doc.Defaults.Deletes, DeletesSoft),
			BatchRows:     cmp.Or(t.BatchRows, doc.Defaults.BatchRows, defaultBatchRows),
			SchemaChanges: cmp.Or(t.SchemaChanges, doc.Defaults.SchemaChanges, SchemaEvolve),
			MaxRejects:    share(t.MaxRejectPercent, doc.Defaults.MaxRejectPercent),
			ClusterBy:     t.ClusterBy, Line: r.line(at),
		}
		if t.PartitionBy != nil {
			table.PartitionBy = &PartitionBy{t.PartitionBy.Column, cmp.Or(t.PartitionBy.Granularity, "day")}
		}
		r.tableName(at, &table)
		r.query(at, &table)
		r.write(at, &table, t.Deletes)
		table.MaxStaleness = r.staleness(at+"/max_staleness", t.MaxStaleness, &table)
		table.Where = r.where(at+"/where", t.Where, &table)
		table.Columns = r.columns(at+"/columns", t.Columns, &table)
		if table.Capture.Method == MethodWAL && p.Tenants != nil {
			r.problem(at+"/capture/method", "wal does not serve tenants yet", "use changelog")
		}
		p.Tables = append(p.Tables, table)
	}
	if doc.Dedup != nil {
		p.Dedup = &Dedup{
			Every: r.cadence("/dedup/every", doc.Dedup.Every), MaxBytes: cmp.Or(doc.Dedup.MaxBytes, defaultMaxBytes),
			KeepDeleted: r.keepDeleted("/dedup/keep_deleted", doc.Dedup.KeepDeleted),
		}
	}
	r.syncs(&p, doc.ReverseETL)
	return p
}

func (r *reader) unique(seen map[string]int, at, what, name string) {
	if line, twice := seen[name]; twice {
		r.problem(at+"/name", fmt.Sprintf("%s %q is also declared on line %d", what, name, line), "keep one of them")
	}
	seen[name] = r.line(at)
}

// mapping keeps the order of the file, and refuses a target written twice:
// taken says by what.
func (r *reader) mapping(at string, m map[string]string, taken map[string]string) []Mapping {
	out := make([]Mapping, 0, len(m))
	for from, to := range m {
		out = append(out, Mapping{from, to})
	}
	sortMappings(out, func(from string) int { return r.line(at + "/" + from) })
	for _, x := range out {
		if by, twice := taken[x.To]; twice {
			r.problem(at+"/"+x.From, fmt.Sprintf("column %q of the table is already written by %s", x.To, by), "map each column of the table once; key columns are never set")
		}
		taken[x.To] = x.From
	}
	return out
}

func (r *reader) lookback(at string, value any) Lookback {
	back := Lookback{defaultLookback, defaultLookbackCount}
	switch v := value.(type) {
	case string:
		back.Time = r.duration(at, v)
	case float64:
		back.Count = int64(v)
	}
	return back
}

func (r *reader) duration(at, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		r.problem(at, fmt.Sprintf("%q is not a duration", text), "write for example 500ms, 10m or 24h")
	}
	return d
}

func (r *reader) cadence(at, text string) Cadence {
	c, err := ParseCadence(text)
	if err != nil {
		r.problem(at, err.Error(), "write an interval such as 1m or 24h, or five cron fields such as \"0 3 * * *\" (UTC) or \"CRON_TZ=Europe/Berlin 0 3 * * *\"")
	}
	return c
}

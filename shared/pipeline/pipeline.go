// Package pipeline is the declaration of what moves: the pipeline files, read,
// checked against schemas/pipeline.schema.json and given their defaults. It is
// the vocabulary every other package may use; it opens no connection.
package pipeline

import (
	"regexp"
	"strings"
	"time"
)

// Pipeline is one pipeline file with its defaults applied.
type Pipeline struct {
	Name       string
	File       string // where it was read from, for messages
	Schema     string // Postgres schema of the tables
	Dataset    string // BigQuery dataset; with Tenants, where no tenant is concerned
	Tenants    *Tenants
	WAL        WAL
	Tables     []Table
	Dedup      *Dedup
	ReverseETL []Sync
}

// Tenants fans one Postgres schema out to a dataset per tenant.
type Tenants struct {
	Query   string // SQL on the source; first column is the tenant's value of Column
	Column  string // row filter on every table (I8)
	Dataset string // template, for example org_{slug}
}

// datasetName is what BigQuery allows for a dataset.
var datasetName = regexp.MustCompile(`^[A-Za-z0-9_]{1,1000}$`)

// Names reports whether dataset, filled in from values, is a name that BigQuery
// allows and that the tenant's own values made: none it uses is empty.
func (t *Tenants) Names(dataset string, values map[string]string) bool {
	for name, value := range values {
		if value == "" && strings.Contains(t.Dataset, "{"+name+"}") {
			return false
		}
	}
	return datasetName.MatchString(dataset)
}

// Write says how rows land in BigQuery.
type Write string

// The write modes of DESIGN.md.
const (
	WriteAppend  Write = "append"  // T_log with every version of a row, and the view T of the newest
	WriteMerge   Write = "merge"   // a plain table T, by a MERGE of each batch
	WriteCDC     Write = "cdc"     // a table T with a primary key, by BigQuery's change data capture
	WriteReplace Write = "replace" // a plain table T, filled anew by every snapshot
	WriteHistory Write = "history" // a plain table T of every version, for ever
)

// SchemaChanges says what a change of the source's columns does.
type SchemaChanges string

// The policies of schema changes.
const (
	SchemaEvolve SchemaChanges = "evolve" // what BigQuery can follow it follows; another type or name stops the table
	SchemaStop   SchemaChanges = "stop"   // every change stops the table
	SchemaResync SchemaChanges = "resync" // what BigQuery cannot follow has the table read again
)

// Deletes says what a delete in the source does in BigQuery.
type Deletes string

// The delete policies of DESIGN.md.
const (
	DeletesIgnore Deletes = "ignore" // the warehouse is the archive
	DeletesSoft   Deletes = "soft"   // the row stays, with _deleted
	DeletesHard   Deletes = "hard"   // the row leaves T
)

// Method says how changes of a table are found.
type Method string

// The capture methods of DESIGN.md.
const (
	MethodWatermark Method = "watermark" // a cursor column that grows with every change
	MethodChangelog Method = "changelog" // a log of changed keys: ours, filled by triggers, or the application's
	MethodWAL       Method = "wal"       // a logical replication slot
	MethodSnapshot  Method = "snapshot"  // the whole table, every time
)

// Table is one table to extract: one of Postgres, or a query over several.
type Table struct {
	Name          string
	Key           []string // empty: the primary key of the catalogue
	Query         string   // SELECT on the source in place of the table of that name; "" for none
	Capture       Capture
	AlsoChangedBy []Related // of a query: what else makes its rows stale
	Columns       Columns
	Where         string // SQL condition on the source's rows; "" for all
	Every         Cadence
	Write         Write
	MaxStaleness  time.Duration // of WriteCDC: how old what a query of T sees may be
	Deletes       Deletes
	SchemaChanges SchemaChanges
	BatchRows     int
	MaxRejects    float64 // share of a batch that may be refused, 0 to 1, before the table is stopped
	PartitionBy   *PartitionBy
	ClusterBy     []string
	Contract      *Contract // nil: its readers have none
	Line          int       // in the pipeline file
}

// Columns says what becomes of a table's columns. Names are the source's, except
// where they say otherwise; the zero value carries every column as it is.
type Columns struct {
	Include []string          // empty: all that Exclude does not name
	Exclude []string          // not read at all
	Rename  []Mapping         // from the source's name to BigQuery's
	Hash    []string          // carried as a keyed hash of their text
	As      map[string]string // to a BigQuery type other than the usual one: STRING, JSON, INTERVAL, ..
	Compute []Computed        // further columns
}

// Computed is a column that the source computes of each row.
type Computed struct{ Name, SQL string }

// Capture is how changes of one table are found.
type Capture struct {
	Method   Method
	Cursor   string   // of MethodWatermark: the column
	Lookback Lookback // of MethodWatermark
	Log      *Log     // of MethodChangelog: the application's own log; nil: ours
}

// Log is a log of changes that the application keeps: which of its columns says
// what. Its rows are only ever added.
type Log struct {
	Table    string   // in the schema of the pipeline, or schema.table
	Cursor   string   // column that grows with every entry: its id or its time
	Lookback Lookback // of Cursor
	Object   []string // columns with the text of the changed row's key, in the order of Table.Key
	Type     *LogType // nil: every entry is about this table
	Action   *LogAction
}

// LogType says which entries of a log are about a table: those whose column
// has, as text, the value; or one that the query returns.
type LogType struct{ Column, Value, Query string }

// LogAction says by which values, as text, a column tells what happened. Entries
// with another value are refused.
type LogAction struct {
	Column                  string
	Added, Changed, Deleted []string
}

// Related is a further table whose changes make rows of a query stale. Keys is a
// SELECT of the keys of those rows, in the order of Table.Key, in which {changed}
// stands for a relation with the key columns of the changed rows.
type Related struct {
	Table   string
	Key     []string // empty: the primary key
	Capture Capture  // watermark or changelog
	Keys    string
}

// WAL is what the pipeline says of its replication slot.
type WAL struct {
	MaxLag int64 // bytes of write-ahead log the slot may hold back before it is an alarm
}

// Lookback is how far behind what was already seen a transaction may still
// write: in time for columns of dates and times, in numbers for counters.
type Lookback struct {
	Time  time.Duration
	Count int64
}

// PartitionBy is how T_log is partitioned at creation.
type PartitionBy struct {
	Column      string
	Granularity string // hour, day, month, year
}

// Dedup is the clean-up of superseded versions.
type Dedup struct {
	Every    Cadence
	MaxBytes int64 // most bytes one clean-up of one table may process
	// KeepDeleted is how long a deleted row is kept in T_log after its tombstone; 0: for ever.
	KeepDeleted time.Duration
}

// Mode says how a reverse sync writes.
type Mode string

// The modes of reverse ETL.
const (
	ModeInsert Mode = "insert" // rows whose key is absent
	ModeUpdate Mode = "update" // rows whose key is present
	ModeUpsert Mode = "upsert" // both
	ModeFill   Mode = "fill"   // of rows whose key is present, the columns that are NULL
	ModeMirror Mode = "mirror" // both, and rows whose key is not in the source are deleted
)

// Changes says how a reverse sync finds what has changed in its source.
type Changes string

// The ways to find changes. Whichever it is, a row that is in the table as it
// should be is not written.
const (
	ChangesFull    Changes = "full"    // every row is compared with the table, every time
	ChangesCursor  Changes = "cursor"  // rows whose cursor column has reached the last one seen
	ChangesAppends Changes = "appends" // rows appended to the table of BigQuery since, by its own history
	ChangesLedger  Changes = "ledger"  // rows with another checksum than the one last written, kept in BigQuery
)

// Sync is one source in BigQuery, or a file, and the Postgres table its rows are written to.
type Sync struct {
	Name  string
	Every Cadence // "": by message alone
	After []After // jobs of BigQuery after whose success it runs

	// One of the three is set. {dataset} stands for the pipeline's, or the tenant's.
	Query string // GoogleSQL
	From  string // a table of BigQuery: table, dataset.table or project.dataset.table
	CSV   string // gs://bucket/object, or a path on the machine that runs it; its first line has the names

	Changes   Changes
	Cursor    string        // of ChangesCursor: a column of the query
	Lookback  time.Duration // of ChangesCursor, for columns of dates and times: how late a row may come
	FullEvery time.Duration // unless ChangesFull: how old the last full comparison may become; 0: as old as it may

	Table         string
	Key           []Mapping
	Columns       []Mapping
	Many          bool   // a key names any number of rows of the table, each of which is written; update and fill
	Where         string // SQL condition on rows of the table: no other is touched; "" for none
	Mode          Mode
	Deletes       Deletes // of ModeMirror: hard or soft
	DeletedColumn string  // of soft deletes: a boolean that becomes true, or a time that becomes now
	Approve       bool    // only a plan that a person approved is applied

	Limits Limits
	Line   int
}

// Limits protect the table, its rows and the database from a reverse sync.
type Limits struct {
	// Brakes: beyond them nothing is written. Percentages are shares, 0 to 1, and
	// negative without a limit.
	MaxDeletes       int64         // rows of one run; negative: no limit
	MaxDeletePercent float64       // of the rows of the table that Where holds for
	MaxSwingPercent  float64       // of the rows that the last full comparison read; negative: no limit
	MaxStaleness     time.Duration // of what the source reads, by its last change; 0: no limit
	FreshTables      []string      // what of that MaxStaleness is about; empty: all of it
	AllowCascade     bool          // deletes may delete or change rows of other tables by ON DELETE

	BatchSize        int           // most rows of one transaction
	BatchTime        time.Duration // what a transaction should last: batches grow and shrink to it
	LockTimeout      time.Duration
	StatementTimeout time.Duration
	Pause            time.Duration // between batches

	// The sync waits while one of these is exceeded.
	MaxReplicationLag  int64         // bytes that a connected standby has not replayed; 0: no limit
	MaxSlotLag         int64         // bytes that an active replication slot holds back; 0: no limit
	MaxAutovacuumPause time.Duration // longest wait of a run for an autovacuum of the table; 0: none
}

// After is what a reverse sync runs after: one of the two is set.
type After struct {
	Table          string // dataset.table or table, to which a query, load or copy job has written; a star ends the beginning of a name
	ScheduledQuery string // a scheduled query of BigQuery, by its id or by its resource name
}

// Mapping takes a column of the query to a column of the table.
type Mapping struct{ From, To string }

// Cadences returns the distinct cadences of f over the pipelines, in the order
// they are declared: what a scheduler has to publish.
func Cadences(pipelines []Pipeline, f func(Pipeline) []Cadence) []Cadence {
	var out []Cadence
	seen := map[Cadence]bool{"": true}
	for _, p := range pipelines {
		for _, c := range f(p) {
			if !seen[c] {
				seen[c] = true
				out = append(out, c)
			}
		}
	}
	return out
}

// ExtractCadences returns the cadences of the pipeline's tables.
func ExtractCadences(p Pipeline) []Cadence {
	out := make([]Cadence, 0, len(p.Tables))
	for _, t := range p.Tables {
		out = append(out, t.Every)
	}
	return out
}

// DedupCadences returns the cadence of the pipeline's clean-up.
func DedupCadences(p Pipeline) []Cadence {
	if p.Dedup == nil {
		return nil
	}
	return []Cadence{p.Dedup.Every}
}

// ReverseCadences returns the cadences of the pipeline's reverse syncs.
func ReverseCadences(p Pipeline) []Cadence {
	out := make([]Cadence, 0, len(p.ReverseETL))
	for _, s := range p.ReverseETL {
		out = append(out, s.Every)
	}
	return out
}

// Table returns the table of that name, or nil.
func (p *Pipeline) Table(name string) *Table {
	for i := range p.Tables {
		if p.Tables[i].Name == name {
			return &p.Tables[i]
		}
	}
	return nil
}

// Sync returns the reverse sync of that name, or nil.
func (p *Pipeline) Sync(name string) *Sync {
	for i := range p.ReverseETL {
		if p.ReverseETL[i].Name == name {
			return &p.ReverseETL[i]
		}
	}
	return nil
}

// Fill replaces {name} in a template by values[name]; unknown names stay.
func Fill(template string, values map[string]string) string {
	pairs := make([]string, 0, 2*len(values))
	for k, v := range values {
		pairs = append(pairs, "{"+k+"}", v)
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

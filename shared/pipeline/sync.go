package pipeline

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// syncDocument is a reverse sync as it is written.
type syncDocument struct {
	Name          string          `json:"name"`
	Every         string          `json:"every"`
	After         []afterDocument `json:"after"`
	Query         string          `json:"query"`
	Table         string          `json:"table"`
	CSV           string          `json:"csv"`
	Changes       Changes         `json:"changes"`
	Cursor        string          `json:"cursor"`
	Lookback      string          `json:"lookback"`
	FullEvery     string          `json:"full_every"`
	Target        targetDocument  `json:"target"`
	Mode          Mode            `json:"mode"`
	Deletes       Deletes         `json:"deletes"`
	DeletedColumn string          `json:"deleted_column"`
	Approve       bool            `json:"approve"`
	Limits        limitsDocument  `json:"limits"`
}

type afterDocument struct {
	Table          string `json:"table"`
	ScheduledQuery string `json:"scheduled_query"`
}

type targetDocument struct {
	Table   string            `json:"table"`
	Key     map[string]string `json:"key"`
	Columns map[string]string `json:"columns"`
	Where   *string           `json:"where"`
	Many    bool              `json:"many"`
}

type limitsDocument struct {
	MaxDeletes       *int64   `json:"max_deletes"`
	MaxDeletePercent *float64 `json:"max_delete_percent"`
	MaxSwingPercent  *float64 `json:"max_swing_percent"`
	MaxStaleness     string   `json:"max_staleness"`
	FreshTables      []string `json:"fresh_tables"`
	AllowCascade     *bool    `json:"allow_cascade"`

	BatchSize        int    `json:"batch_size"`
	BatchTime        string `json:"batch_time"`
	LockTimeout      string `json:"lock_timeout"`
	StatementTimeout string `json:"statement_timeout"`
	Pause            string `json:"pause"`

	MaxReplicationLag  string `json:"max_replication_lag"`
	MaxSlotLag         string `json:"max_slot_lag"`
	MaxAutovacuumPause string `json:"max_autovacuum_pause"`
}

// What a reverse sync that says nothing gets; the schema documents the same values.
const (
	defaultSyncLookback       = "10m"
	defaultFullEvery          = "24h"
	defaultMaxDeletePercent   = 5.0
	defaultMaxSwingPercent    = 50.0 // of a mirror
	defaultBatchSize          = 1000
	defaultBatchTime          = "1s"
	defaultLockTimeout        = "2s"
	defaultStatementTimeout   = "30s"
	defaultMaxReplicationLag  = "64MB"
	defaultMaxSlotLag         = "1GB"
	defaultMaxAutovacuumPause = "1m"
)

// noLimit is what a brake that is off has in Limits.
const noLimit = -1

func (r *reader) syncs(p *Pipeline, documents []syncDocument) {
	seen := map[string]int{}
	for i, d := range documents {
		at := "/reverse_etl/" + strconv.Itoa(i)
		r.unique(seen, at, "reverse sync", d.Name)
		s := r.sync(at, d)
		r.afterOthers(at+"/after", p, s.After)
		p.ReverseETL = append(p.ReverseETL, s)
	}
}

func (r *reader) sync(at string, d syncDocument) Sync {
	s := Sync{
		Name: d.Name, Every: r.cadence(at+"/every", d.Every), After: r.after(at+"/after", d.After),
		Query: d.Query, From: d.Table, CSV: d.CSV,
		Changes: d.Changes, Cursor: d.Cursor,
		Table: d.Target.Table, Many: d.Target.Many, Mode: d.Mode, Deletes: d.Deletes, DeletedColumn: d.DeletedColumn,
		Approve: d.Approve, Line: r.line(at),
	}
	r.syncSource(at, &s)
	r.syncChanges(at, d, &s)
	r.syncTarget(at+"/target", d.Target, &s)
	r.syncDeletes(at, &s)
	s.Limits = r.limits(at+"/limits", d.Limits)
	r.brakes(at+"/limits", d.Limits, &s)
	return s
}

// syncSource checks where the rows come from.
func (r *reader) syncSource(at string, s *Sync) {
	var given []string
	for _, source := range []struct{ key, value string }{{"query", s.Query}, {"table", s.From}, {"csv", s.CSV}} {
		if source.value != "" {
			given = append(given, source.key)
		}
	}
	switch len(given) {
	case 0:
		r.problem(at, fmt.Sprintf("reverse sync %q has no source", s.Name), "add query:, table: or csv:")
	case 1:
	default:
		r.problem(at+"/"+given[len(given)-1], fmt.Sprintf("reverse sync %q has more than one source: %s", s.Name, strings.Join(given, ", ")), "keep one of them")
	}
	if s.Query != "" {
		r.statement(at+"/query", s.Query, writeSelect)
	}
	if scheme, name, ok := strings.Cut(s.CSV, "://"); ok && (scheme != "gs" || !objectName.MatchString(name)) {
		r.problem(at+"/csv", fmt.Sprintf("%q is no file that can be read", s.CSV), "write gs://bucket/object, or a path on the machine that runs the sync")
	}
}

// objectName is a bucket and an object of Cloud Storage.
var objectName = regexp.MustCompile(`^[^/]+/[^/].*$`)

// syncChanges reads how a sync finds what has changed.
func (r *reader) syncChanges(at string, d syncDocument, s *Sync) {
	from := at + "/changes" // where it is said, by changes or by a cursor alone
	if s.Changes == "" {
		s.Changes = ChangesFull
		if s.Cursor != "" {
			s.Changes, from = ChangesCursor, at+"/cursor"
		}
	}
	r.changesFit(from, s)
	switch {
	case s.Changes == ChangesCursor && s.Cursor == "":
		r.problem(from, "changes: cursor has no cursor", "add cursor: with a column of the source that grows with every change")
	case s.Changes != ChangesCursor && s.Cursor != "":
		r.problem(at+"/cursor", fmt.Sprintf("a cursor goes with changes: cursor, and this is %s", s.Changes), "leave it out, or write changes: cursor")
	}
	if s.Changes == ChangesCursor {
		s.Lookback = r.duration(at+"/lookback", cmp.Or(d.Lookback, defaultSyncLookback))
	} else if d.Lookback != "" {
		r.problem(at+"/lookback", fmt.Sprintf("a lookback goes with changes: cursor, and this is %s", s.Changes), "leave it out, or write changes: cursor")
	}
	if s.Changes != ChangesFull {
		s.FullEvery = r.duration(at+"/full_every", cmp.Or(d.FullEvery, defaultFullEvery))
	} else if d.FullEvery != "" {
		r.problem(at+"/full_every", "every run compares every row, so full_every says nothing", "leave it out, or write changes: cursor, appends or ledger")
	}
}

// changesFit refuses ways to find changes that the source or the mode does not allow.
func (r *reader) changesFit(at string, s *Sync) {
	switch s.Changes {
	case ChangesCursor, ChangesAppends:
		if s.Mode == ModeMirror {
			r.problem(at, fmt.Sprintf("mirror deletes what is absent, and changes: %s reads a part of the rows", s.Changes), "write changes: full or changes: ledger")
		}
		if s.Changes == ChangesAppends && s.From == "" && s.CSV == "" {
			r.problem(at, "changes: appends reads the history of one table of BigQuery, and a query has none", "write table: in place of query:, or changes: cursor, ledger or full")
		}
	case ChangesFull, ChangesLedger:
	}
	if s.CSV != "" && s.Changes != ChangesFull {
		r.problem(at, fmt.Sprintf("a CSV file is read as a whole, and this is changes: %s", s.Changes), "write changes: full")
	}
}

// syncTarget reads which rows and columns of the table a sync writes.
func (r *reader) syncTarget(at string, d targetDocument, s *Sync) {
	s.Key = r.mapping(at+"/key", d.Key, map[string]string{})
	taken := map[string]string{}
	for _, m := range s.Key {
		taken[m.To] = "the key"
	}
	s.Columns = r.mapping(at+"/columns", d.Columns, taken)
	changesRows := s.Mode == ModeUpdate || s.Mode == ModeFill
	if len(s.Columns) == 0 && changesRows {
		r.problem(at, fmt.Sprintf("mode %s needs columns to write", s.Mode), "add columns: {<column of the source>: <column of the table>}")
	}
	if s.Many && !changesRows {
		r.problem(at+"/many", fmt.Sprintf("many rows of one key can be changed, and mode is %s", s.Mode), "leave many out, or write mode: update or mode: fill")
	}
	if d.Where != nil {
		s.Where = *d.Where
		r.condition(at+"/where", s.Where)
	}
}

// syncDeletes reads what becomes of rows that a mirror no longer finds in the source.
func (r *reader) syncDeletes(at string, s *Sync) {
	if s.Mode != ModeMirror {
		const remedy = "leave it out, or write mode: mirror"
		if s.Deletes != "" {
			r.problem(at+"/deletes", fmt.Sprintf("only a mirror deletes, and mode is %s", s.Mode), remedy)
		}
		if s.DeletedColumn != "" {
			r.problem(at+"/deleted_column", fmt.Sprintf("only a mirror deletes, and mode is %s", s.Mode), remedy)
		}
		return
	}
	s.Deletes = cmp.Or(s.Deletes, DeletesHard)
	switch {
	case s.Deletes == DeletesSoft && s.DeletedColumn == "":
		r.problem(at+"/deletes", "deletes: soft has no column to say so", "add deleted_column: with a boolean or a time of the table")
	case s.Deletes != DeletesSoft && s.DeletedColumn != "":
		r.problem(at+"/deleted_column", fmt.Sprintf("deleted_column goes with deletes: soft, and this is %s", s.Deletes), "leave it out, or write deletes: soft")
	}
	written := func(m Mapping) bool { return m.To == s.DeletedColumn }
	if s.DeletedColumn != "" && (slices.ContainsFunc(s.Key, written) || slices.ContainsFunc(s.Columns, written)) {
		r.problem(at+"/deleted_column", fmt.Sprintf("column %q of the table is already in target", s.DeletedColumn), "take it out of target: rows that are in the source have it cleared")
	}
}

// after reads the jobs of BigQuery that a sync runs after.
func (r *reader) after(at string, documents []afterDocument) []After {
	var out []After
	for i, d := range documents {
		if (d.Table == "") == (d.ScheduledQuery == "") {
			r.problem(at+"/"+strconv.Itoa(i), "an entry of after has either a table or a scheduled_query", "write for example {table: scores} or {scheduled_query: 6621a2b4-0000-2c41-9e1f-f403045e8b3a}")
		}
		out = append(out, After(d))
	}
	return out
}

// afterOthers refuses to wait for tables that Tidemark itself writes: its own jobs set
// nothing off, so that no sync sets off itself.
func (r *reader) afterOthers(at string, p *Pipeline, after []After) {
	for i, a := range after {
		name := strings.TrimPrefix(a.Table, p.Dataset+".")
		if slices.ContainsFunc(p.Tables, func(t Table) bool { return slices.Contains(t.names(), name) }) {
			r.problem(at+"/"+strconv.Itoa(i)+"/table", fmt.Sprintf("table %q is one that this pipeline writes, and Tidemark's own jobs set nothing off", a.Table), "declare every: instead")
		}
	}
}

// limits reads what does not depend on the rest of the sync.
func (r *reader) limits(at string, d limitsDocument) Limits {
	l := Limits{
		BatchSize:          cmp.Or(d.BatchSize, defaultBatchSize),
		BatchTime:          r.duration(at+"/batch_time", cmp.Or(d.BatchTime, defaultBatchTime)),
		LockTimeout:        r.duration(at+"/lock_timeout", cmp.Or(d.LockTimeout, defaultLockTimeout)),
		StatementTimeout:   r.duration(at+"/statement_timeout", cmp.Or(d.StatementTimeout, defaultStatementTimeout)),
		Pause:              r.duration(at+"/pause", cmp.Or(d.Pause, "0s")),
		MaxReplicationLag:  r.size(at+"/max_replication_lag", cmp.Or(d.MaxReplicationLag, defaultMaxReplicationLag)),
		MaxSlotLag:         r.size(at+"/max_slot_lag", cmp.Or(d.MaxSlotLag, defaultMaxSlotLag)),
		MaxAutovacuumPause: r.duration(at+"/max_autovacuum_pause", cmp.Or(d.MaxAutovacuumPause, defaultMaxAutovacuumPause)),
	}
	if d.BatchTime == "" {
		l.BatchTime = min(l.BatchTime, l.StatementTimeout/2)
	}
	if l.LockTimeout >= l.StatementTimeout {
		r.problem(at, "lock_timeout is not below statement_timeout, so it could never fire", "make lock_timeout the smaller one")
	}
	if l.BatchTime >= l.StatementTimeout {
		r.problem(at, "batch_time is not below statement_timeout, which would end batches that last as long as they should", "make batch_time the smaller one")
	}
	if l.BatchTime == 0 && d.BatchTime != "" {
		r.problem(at+"/batch_time", "batch_time leaves a batch no time", "write for example 500ms or 1s")
	}
	return l
}

// brakes reads what stops a run before it writes anything.
func (r *reader) brakes(at string, d limitsDocument, s *Sync) {
	l := &s.Limits
	l.MaxDeletes, l.MaxDeletePercent, l.MaxSwingPercent = noLimit, noLimit, noLimit
	if s.Mode == ModeMirror {
		l.MaxDeletePercent, l.MaxSwingPercent = defaultMaxDeletePercent/100, defaultMaxSwingPercent/100
	} else {
		r.withoutDeletes(at, d, s.Mode)
	}
	if d.MaxDeletes != nil {
		l.MaxDeletes = *d.MaxDeletes
	}
	if d.MaxDeletePercent != nil {
		l.MaxDeletePercent = *d.MaxDeletePercent / 100
	}
	if d.MaxSwingPercent != nil {
		l.MaxSwingPercent = *d.MaxSwingPercent / 100
	}
	l.AllowCascade = d.AllowCascade != nil && *d.AllowCascade
	if d.MaxStaleness != "" {
		l.MaxStaleness = r.duration(at+"/max_staleness", d.MaxStaleness)
	}
	l.FreshTables = d.FreshTables
	switch {
	case len(l.FreshTables) == 0:
	case l.MaxStaleness == 0:
		r.problem(at+"/fresh_tables", "fresh_tables says what max_staleness is about, and there is none", "add max_staleness:, for example 26h")
	case s.CSV != "":
		r.problem(at+"/fresh_tables", "a CSV file reads no table of BigQuery: max_staleness is about the file", "leave it out")
	}
}

// withoutDeletes refuses brakes of deletes in a mode that deletes nothing.
func (r *reader) withoutDeletes(at string, d limitsDocument, mode Mode) {
	for _, brake := range []struct {
		key   string
		given bool
	}{
		{"max_deletes", d.MaxDeletes != nil},
		{"max_delete_percent", d.MaxDeletePercent != nil},
		{"allow_cascade", d.AllowCascade != nil},
	} {
		if brake.given {
			r.problem(at+"/"+brake.key, fmt.Sprintf("%s is about deletes, and mode %s deletes nothing", brake.key, mode), "leave it out, or write mode: mirror")
		}
	}
}

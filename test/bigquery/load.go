package bigquery

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	bq "google.golang.org/api/bigquery/v2"
)

// Limits of load jobs. https://cloud.google.com/bigquery/quotas#load_jobs
const (
	maxLoadURIs       = 10_000
	maxLoadPartitions = 4_000
	maxGzipFile       = 4 << 30
	maxJSONRow        = 100_000_000
	// loadBatch is how many rows are checked before they are written.
	loadBatch = 10_000
)

// loadCounts counts the load jobs of each table, failed ones included. A table
// that is made anew under the same name is the same here.
type loadCounts struct {
	mu     sync.Mutex
	tables map[tableID]*window
}

// count counts one job of a table, unless there were too many within a day.
func (c *loadCounts) count(id tableID, now time.Time, limit int) error {
	c.mu.Lock()
	if c.tables == nil {
		c.tables = map[tableID]*window{}
	}
	w := c.tables[id]
	if w == nil {
		w = &window{}
		c.tables[id] = w
	}
	c.mu.Unlock()
	if w.take(now, 24*time.Hour, limit) {
		return nil
	}
	return &apiError{
		http.StatusForbidden, "quotaExceeded",
		"Quota exceeded: Your table exceeded quota for imports or query appends per table. For more information, see https://cloud.google.com/bigquery/docs/troubleshoot-quotas",
	}
}

// loadOutcome is what a load job did so far.
type loadOutcome struct {
	files, fileBytes int64
	rows, bytes      int64
	bad              int64
	problems         []*bq.ErrorProto // of bad records, the first ones
}

// loadMembers are the members of configuration.load that the emulator knows.
func loadMembers() []string {
	return []string{
		"sourceUris", "schema", "destinationTable", "createDisposition", "writeDisposition", "maxBadRecords", "sourceFormat",
		"ignoreUnknownValues", "schemaUpdateOptions", "timePartitioning", "clustering", "encoding", "autodetect",
	}
}

// insertLoad is jobs.insert of a load job.
func (s *Server) insertLoad(project string, in *bq.Job, raw []byte) (any, error) {
	c := in.Configuration
	if err := s.supportedLoad(c, raw); err != nil {
		return nil, err
	}
	c.JobType = "LOAD"
	j := &job{config: c, done: make(chan struct{}), state: "PENDING", created: s.now(), key: jobKey{project: project}}
	if in.JobReference != nil {
		j.key.id, j.location = in.JobReference.JobId, in.JobReference.Location
	}
	if d := c.Load.DestinationTable; d.ProjectId == "" {
		d.ProjectId = project
	}
	if j.location == "" {
		j.location = s.cat.locationOf(datasetID{c.Load.DestinationTable.ProjectId, c.Load.DestinationTable.DatasetId})
	}
	if err := s.jobs.add(j); err != nil {
		return nil, err
	}
	answer := j.describe()
	s.startJob(j)
	return answer, nil
}

// supportedLoad refuses what BigQuery refuses at once, and what the emulator
// cannot do.
func (s *Server) supportedLoad(c *bq.JobConfiguration, raw []byte) error {
	if err := supportedLoadMembers(raw); err != nil {
		return err
	}
	l := c.Load
	switch {
	case s.cloudStorage == "":
		return errUnsupported("load jobs without a Cloud Storage emulator to read from (Options.CloudStorageHost)")
	case c.DryRun:
		return errUnsupported("dry runs of load jobs")
	case c.Query != nil || c.Copy != nil || c.Extract != nil:
		return errInvalid("Only one of query, load, copy and extract may be configured")
	case c.Reservation != "" || c.MaxSlots != 0:
		return errUnsupported("reservations and slots of a job")
	case len(l.SourceUris) == 0:
		return errUnsupported("load jobs without sourceUris")
	case len(l.SourceUris) > maxLoadURIs:
		return errInvalid("Too many source URIs: %d; the limit is %d", len(l.SourceUris), maxLoadURIs)
	case l.SourceFormat != "NEWLINE_DELIMITED_JSON":
		format := l.SourceFormat
		if format == "" {
			format = "CSV"
		}
		return errUnsupported("load jobs of the source format %s", format)
	case l.Encoding != "" && l.Encoding != "UTF-8":
		return errUnsupported("load jobs of the encoding %s", l.Encoding)
	case l.Autodetect:
		return errUnsupported("autodetect of load jobs")
	case l.DestinationTable == nil || l.DestinationTable.DatasetId == "" || l.DestinationTable.TableId == "":
		return errInvalid("Required parameter is missing: destinationTable")
	case strings.Contains(l.DestinationTable.TableId, "$"):
		return errUnsupported("partition decorators of load jobs (%s)", l.DestinationTable.TableId)
	case l.MaxBadRecords < 0:
		return errInvalid("Invalid value for maxBadRecords: %d", l.MaxBadRecords)
	}
	return errors.Join(supportedDispositions(l), checkLabels(c.Labels))
}

func supportedLoadMembers(raw []byte) error {
	var in struct {
		Configuration struct {
			Load map[string]json.RawMessage `json:"load"`
		} `json:"configuration"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return errInvalid("Invalid JSON payload received. %v", err)
	}
	known := loadMembers()
	for name, value := range in.Configuration.Load {
		if !slices.Contains(known, name) && string(value) != "null" {
			return errUnsupported("%s of load jobs", name)
		}
	}
	return nil
}

func supportedDispositions(l *bq.JobConfigurationLoad) error {
	switch l.CreateDisposition {
	case "", "CREATE_IF_NEEDED", "CREATE_NEVER":
	default:
		return errInvalid("Invalid value for createDisposition: %s is not a valid value", l.CreateDisposition)
	}
	switch l.WriteDisposition {
	case "", "WRITE_APPEND", "WRITE_TRUNCATE", "WRITE_TRUNCATE_DATA", "WRITE_EMPTY":
	default:
		return errInvalid("Invalid value for writeDisposition: %s is not a valid value", l.WriteDisposition)
	}
	for _, option := range l.SchemaUpdateOptions {
		switch {
		case option == "ALLOW_FIELD_RELAXATION":
			return errUnsupported("ALLOW_FIELD_RELAXATION of load jobs")
		case option != "ALLOW_FIELD_ADDITION":
			return errInvalid("Invalid value for schemaUpdateOptions: %s is not a valid value", option)
		case l.WriteDisposition == "WRITE_TRUNCATE" || l.WriteDisposition == "WRITE_EMPTY":
			return errInvalid("Schema update options should only be specified with WRITE_APPEND or WRITE_TRUNCATE_DATA disposition, or with WRITE_TRUNCATE disposition on a table partition.")
		}
	}
	return nil
}

// runLoad runs a load job to its end. The caller has marked it as running.
func (s *Server) runLoad(ctx context.Context, j *job) {
	l := j.config.Load
	id := tableID{l.DestinationTable.ProjectId, l.DestinationTable.DatasetId, l.DestinationTable.TableId}
	var out loadOutcome
	err := s.obs.held(ctx, Job{ID: j.key.id})
	if err == nil {
		err = s.loads.count(id, s.now(), s.limits.loadJobs())
	}
	if err == nil {
		err = s.load(ctx, l, id, j.location, &out)
	}
	if err != nil && ctx.Err() != nil {
		err = &apiError{reasonCode("stopped"), "stopped", "Job execution was cancelled: " + context.Cause(ctx).Error()}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state, j.ended, j.load = "DONE", s.now(), out
	if err == nil {
		return
	}
	j.err = asAPIError(err)
	if j.err.reason == "internalError" {
		s.log.ErrorContext(ctx, "running a load job", "job", j.key.id, "error", err)
	}
}

// statistics of a load job that is done.
func (o *loadOutcome) statistics(failed bool) *bq.JobStatistics3 {
	out := &bq.JobStatistics3{
		InputFiles: o.files, InputFileBytes: o.fileBytes, BadRecords: o.bad,
		ForceSendFields: []string{"InputFiles", "InputFileBytes", "BadRecords"},
	}
	if !failed {
		out.OutputRows, out.OutputBytes = o.rows, o.bytes
		out.ForceSendFields = append(out.ForceSendFields, "OutputRows", "OutputBytes")
	}
	return out
}

// loadTarget is where the rows of a load job go.
type loadTarget struct {
	id          tableID
	table       *table   // nil where it is to be made
	fields      []field  // that rows are read as
	steps       []string // DuckDB statements that add columns
	schema      *bq.TableSchema
	disposition string
	made        *table // holds the rows until they are there
}

// load reads the files into a table that nobody sees, and makes its rows those
// of the destination at once.
func (s *Server) load(ctx context.Context, l *bq.JobConfigurationLoad, id tableID, location string, out *loadOutcome) error {
	target, err := s.loadTarget(ctx, l, id, location)
	if err != nil {
		return err
	}
	source := &cloudStorage{host: s.cloudStorage, client: s.objects}
	objects, err := source.resolve(ctx, l.SourceUris, location)
	if err != nil {
		return err
	}
	for _, o := range objects {
		out.files++
		out.fileBytes += o.size
	}
	s.cat.mu.Lock()
	target.made.physical = s.cat.physicalName(id)
	s.cat.mu.Unlock()
	if err := s.createPhysical(ctx, target.made); err != nil {
		return err
	}
	r := &rowLoader{
		fields: target.fields, ignoreUnknown: l.IgnoreUnknownValues, maxBad: l.MaxBadRecords, out: out,
		keep: func(b *rowBatch) error {
			return s.store.appendBatches(ctx, target.made.physical, target.fields, []*rowBatch{b})
		},
	}
	err = r.readAll(ctx, source, objects)
	if err == nil {
		err = s.measureLoad(ctx, target.made, out)
	}
	if err == nil {
		err = s.commitLoad(ctx, target)
	}
	if err != nil || target.table != nil {
		// Nothing refers to it: its rows were copied, or the job failed.
		err = errors.Join(err, s.store.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+target.made.real()))
	}
	return err
}

// loadTarget finds the destination and decides which columns the rows have.
func (s *Server) loadTarget(ctx context.Context, l *bq.JobConfigurationLoad, id tableID, location string) (*loadTarget, error) {
	t, err := s.cat.lookupAt(id, location)
	target := &loadTarget{id: id, disposition: l.WriteDisposition, schema: l.Schema}
	if target.disposition == "" {
		target.disposition = "WRITE_APPEND"
	}
	switch {
	case err != nil:
		if !s.cat.hasDataset(datasetID{id.project, id.dataset}, location) || l.CreateDisposition == "CREATE_NEVER" {
			return nil, err
		}
		return target, s.newTarget(ctx, target, l, bq.Table{TimePartitioning: l.TimePartitioning, Clustering: l.Clustering})
	case t.isView():
		return nil, errInvalid("Cannot load data into a table of type VIEW: %s", id.legacy())
	}
	if err := s.loadable(ctx, t, target.disposition, l); err != nil {
		return nil, err
	}
	if target.disposition == "WRITE_TRUNCATE" {
		return target, s.truncateTarget(ctx, target, t, l)
	}
	target.table, target.fields = t, s.fieldsOf(t)
	if l.Schema != nil {
		if err := s.fitSchema(target, l); err != nil {
			return nil, err
		}
	}
	target.made = &table{id: id, fields: target.fields}
	return target, nil
}

// hasDataset says whether a dataset is at a location.
func (c *catalog) hasDataset(id datasetID, location string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	d, ok := c.datasets[id]
	return ok && strings.EqualFold(d.location(), location)
}

// newTarget has the rows go to a table that the job makes.
func (s *Server) newTarget(ctx context.Context, target *loadTarget, l *bq.JobConfigurationLoad, meta bq.Table) error {
	if l.Schema == nil {
		return errInvalid("No schema specified on job or table.")
	}
	meta.Schema = l.Schema
	made, err := s.newTable(ctx, target.id, meta)
	if err != nil {
		return err
	}
	target.made, target.fields = made, made.fields
	return nil
}

// loadable refuses a load into a table that exists.
func (s *Server) loadable(ctx context.Context, t *table, disposition string, l *bq.JobConfigurationLoad) error {
	s.cat.mu.RLock()
	part, clustering := t.part, t.meta.Clustering
	s.cat.mu.RUnlock()
	if tp := l.TimePartitioning; tp != nil && (!strings.EqualFold(tp.Field, part.column) || !strings.EqualFold(tp.Type, part.unit) || tp.ExpirationMs != part.expiration.Milliseconds() || tp.RequirePartitionFilter) {
		return errInvalid("Incompatible table partitioning specification for table %s.", t.id.legacy())
	}
	if c := l.Clustering; c != nil && (clustering == nil || !slices.Equal(c.Fields, clustering.Fields)) {
		return errInvalid("Incompatible table clustering specification for table %s.", t.id.legacy())
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	switch {
	case t.changes.Load() != nil:
		return errUnsupported("load jobs into a table that had UPSERT streams (%s)", t.id)
	case strings.HasPrefix(disposition, "WRITE_TRUNCATE") && t.buffered(s.now()) != nil:
		return errUnsupported("load jobs that truncate a table with rows in the streaming buffer (%s)", t.id)
	case strings.HasPrefix(disposition, "WRITE_TRUNCATE") && s.streamedTo(t):
		return errUnsupported("load jobs that truncate a table that is being streamed to (%s)", t.id)
	case disposition == "WRITE_EMPTY":
		if err := s.checkEmpty(ctx, t); err != nil {
			return err
		}
	}
	return s.updated(t)
}

func (s *Server) checkEmpty(ctx context.Context, t *table) error {
	var rows int64
	if err := s.store.scalar(ctx, "SELECT count(*) FROM "+t.real(), &rows); err != nil {
		return err
	}
	if rows > 0 {
		return errDuplicate("Table %s", t.id.legacy())
	}
	return nil
}

// truncateTarget has the rows take the place of all others, under the schema of
// the job: in place where the columns stay, in another table otherwise.
func (s *Server) truncateTarget(ctx context.Context, target *loadTarget, t *table, l *bq.JobConfigurationLoad) error {
	if l.Schema == nil {
		return errUnsupported("WRITE_TRUNCATE of an existing table without a schema in the job (%s); WRITE_TRUNCATE_DATA keeps the schema", t.id)
	}
	s.cat.mu.RLock()
	meta := t.meta
	s.cat.mu.RUnlock()
	meta.TableConstraints = nil
	meta.RequirePartitionFilter = t.part.filter
	if err := s.newTarget(ctx, target, l, meta); err != nil {
		return err
	}
	if sameFields(target.fields, s.fieldsOf(t)) {
		target.table = t
	}
	return nil
}

func sameFields(a, b []field) bool {
	return slices.EqualFunc(a, b, func(x, y field) bool {
		return x.name == y.name && x.required == y.required && x.maxLength == y.maxLength && x.sqlType() == y.sqlType()
	})
}

// fitSchema holds the job's schema to the table's: the same columns, and with
// ALLOW_FIELD_ADDITION more of them.
func (s *Server) fitSchema(target *loadTarget, l *bq.JobConfigurationLoad) error {
	t := target.table
	wanted, err := fieldsFromREST(l.Schema.Fields)
	if err != nil {
		return err
	}
	steps, err := t.schemaSteps(wanted)
	if err != nil {
		return err
	}
	added := len(wanted) - len(target.fields)
	switch {
	case added < len(steps):
		return errInvalid("Provided Schema does not match Table %s. A field has changed mode from REQUIRED to NULLABLE", t.id.legacy())
	case added > 0 && !slices.Contains(l.SchemaUpdateOptions, "ALLOW_FIELD_ADDITION"):
		return errInvalid("Provided Schema does not match Table %s. Cannot add fields (field: %s)", t.id.legacy(), wanted[len(target.fields)].name)
	}
	target.fields, target.steps = wanted, steps
	return nil
}

// measureLoad sizes the loaded rows and counts their partitions.
func (s *Server) measureLoad(ctx context.Context, made *table, out *loadOutcome) error {
	if err := s.store.scalar(ctx, "SELECT count(*), "+sumOfSizes(made.fields, allColumns(made.fields))+" FROM "+made.real(), &out.rows, &out.bytes); err != nil {
		return err
	}
	return nil
}

// commitLoad makes the loaded rows those of the destination.
func (s *Server) commitLoad(ctx context.Context, target *loadTarget) error {
	part := target.made.part
	if target.table != nil {
		s.cat.mu.RLock()
		part = target.table.part
		s.cat.mu.RUnlock()
	}
	if part.column != "" {
		var partitions int64
		if err := s.store.scalar(ctx, "SELECT count(DISTINCT "+part.idSQL()+") FROM "+target.made.real(), &partitions); err != nil {
			return err
		}
		if partitions > maxLoadPartitions {
			return errInvalid("Too many partitions produced by the load job, allowed %d, the job produces %d partitions", maxLoadPartitions, partitions)
		}
	}
	if target.table == nil {
		return s.register(ctx, target.made, target.disposition)
	}
	return s.mergeLoad(ctx, target)
}

// mergeLoad adds the rows to a table, or puts them in the place of its own.
func (s *Server) mergeLoad(ctx context.Context, target *loadTarget) error {
	t := target.table
	t.rows.Lock()
	defer t.rows.Unlock()
	if now, err := s.cat.lookup(target.id); err != nil || now != t {
		return errNotFound("Table %s", target.id.legacy())
	}
	if t.changes.Load() != nil {
		return errUnsupported("load jobs into a table that had UPSERT streams (%s)", t.id)
	}
	if target.disposition == "WRITE_EMPTY" {
		if err := s.checkEmpty(ctx, t); err != nil {
			return err
		}
	}
	steps := slices.Clone(target.steps)
	truncates := strings.HasPrefix(target.disposition, "WRITE_TRUNCATE")
	if truncates {
		steps = append(steps, "DELETE FROM "+t.real())
		if err := s.beforeChange(ctx, t, s.fieldsOf(t)); err != nil {
			return err
		}
	}
	names := make([]string, len(target.fields))
	for i, f := range target.fields {
		names[i] = f.name
	}
	steps = append(steps, "INSERT INTO "+t.real()+" ("+quotedList(names, "")+") SELECT "+quotedList(names, "")+" FROM "+target.made.real())
	var added int64
	err := s.inTransaction(context.WithoutCancel(ctx), nil, func(conn *sql.Conn) error {
		for _, step := range steps {
			result, err := conn.ExecContext(ctx, step)
			if err != nil {
				return loadError(err)
			}
			if added, err = result.RowsAffected(); err != nil { // the last step's stays
				return fmt.Errorf("counting rows: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if truncates {
		s.noteChange(t)
	}
	s.noteAppend(t, added)
	if len(target.steps) > 0 {
		s.addFields(t, target)
	}
	if target.disposition == "WRITE_TRUNCATE" {
		s.dropConstraints(t)
	}
	s.touch(t)
	return nil
}

// addFields notes the columns that a load added.
func (s *Server) addFields(t *table, target *loadTarget) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	t.versions = append(t.versions, schemaVersion{t.fields, s.now()})
	t.fields, t.meta.Schema = target.fields, target.schema
	t.version++
	s.cat.generation++
}

// loadError gives DuckDB's refusal of a row the reason that a load job has.
func loadError(err error) error {
	err = duckError(err)
	var e *apiError
	if errors.As(err, &e) && e.reason == "invalidQuery" {
		return errInvalid("Error while reading data, error message: %s", e.message)
	}
	return err
}

// gcsURI is a URI of an object: no wildcard in the bucket.
var gcsURI = regexp.MustCompile(`^gs://([^/*?#]+)/(.+)$`)

// sourcePattern is one source URI: a name, or what names begin with.
type sourcePattern struct {
	bucket, name string
	prefix       bool
}

// readURI reads a source URI.
// https://cloud.google.com/bigquery/docs/batch-loading-data#load-wildcards
func readURI(uri string) (sourcePattern, error) {
	m := gcsURI.FindStringSubmatch(uri)
	if m == nil {
		return sourcePattern{}, errInvalid("Source URI must be a Google Cloud Storage location: %s", uri)
	}
	p := sourcePattern{bucket: m[1], name: m[2]}
	p.name, p.prefix = strings.CutSuffix(p.name, "*")
	switch {
	case strings.Count(m[2], "*") > 1:
		return p, errInvalid("Invalid source URI %s: at most one wildcard is allowed", uri)
	case strings.Contains(p.name, "*"):
		return p, errUnsupported("a wildcard within the name of an object (%s)", uri)
	case strings.Contains(m[2], "//") || strings.HasPrefix(m[2], "/"):
		return p, errInvalid("Invalid source URI %s: consecutive slashes are not supported", uri)
	case strings.Contains(m[2], "#"):
		return p, errInvalid("Invalid source URI %s: generations of objects are not supported", uri)
	}
	return p, nil
}

// badRow is a row that the destination cannot take.
type badRowError struct{ problem string }

func (e *badRowError) Error() string { return e.problem }

func badRow(format string, args ...any) error {
	return &badRowError{fmt.Sprintf(format, args...)}
}

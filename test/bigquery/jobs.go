package bigquery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	bq "google.golang.org/api/bigquery/v2"
)

// jobTable holds every job, by project and id, and the requests of jobs.query.
type jobTable struct {
	mu       sync.Mutex
	jobs     map[jobKey]*job
	requests map[jobKey]*job // by requestId
	made     int
}

type jobKey struct{ project, id string }

type job struct {
	key      jobKey
	location string
	config   *bq.JobConfiguration
	request  statementRequest
	cancel   context.CancelCauseFunc
	done     chan struct{}

	mu                      sync.Mutex
	state                   string // PENDING, RUNNING, DONE
	created, started, ended time.Time
	kind                    string
	bytes, billed           int64
	outcome                 outcome
	fields                  []field
	reads                   []tableID
	ddl                     *ddl
	load                    loadOutcome
	err                     *apiError
}

func newJobTable() *jobTable {
	return &jobTable{jobs: map[jobKey]*job{}, requests: map[jobKey]*job{}}
}

// jobID is the rule of https://cloud.google.com/bigquery/docs/reference/rest/v2/JobReference.
var jobID = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// add registers a job; an id is used once, whatever became of the job.
func (jt *jobTable) add(j *job) error {
	jt.mu.Lock()
	defer jt.mu.Unlock()
	if j.key.id == "" {
		jt.made++
		j.key.id = fmt.Sprintf("job_emulator_%d", jt.made)
	}
	if len(j.key.id) > 1024 || !jobID.MatchString(j.key.id) {
		return errInvalid("Invalid job ID %q: letters, digits, underscores and dashes, at most 1,024 characters", j.key.id)
	}
	if _, ok := jt.jobs[j.key]; ok {
		return errDuplicate("Job %s:%s.%s", j.key.project, j.location, j.key.id)
	}
	jt.jobs[j.key] = j
	return nil
}

func (jt *jobTable) find(r *http.Request) (*job, error) {
	jt.mu.Lock()
	defer jt.mu.Unlock()
	key := jobKey{r.PathValue("project"), r.PathValue("job")}
	j, ok := jt.jobs[key]
	if at := r.URL.Query().Get("location"); !ok || at != "" && !strings.EqualFold(at, j.location) {
		return nil, errNotFound("Job %s:%s", key.project, key.id)
	}
	return j, nil
}

func (s *Server) insertJob(r *http.Request) (any, error) {
	var in bq.Job
	raw, err := readBody(r, &in)
	if err != nil {
		return nil, err
	}
	if in.Configuration != nil && in.Configuration.Load != nil {
		return s.insertLoad(r.PathValue("project"), &in, raw)
	}
	params := struct {
		Configuration struct {
			Query struct {
				QueryParameters json.RawMessage `json:"queryParameters"`
			} `json:"query"`
		} `json:"configuration"`
	}{}
	if err := json.Unmarshal(raw, &params); err != nil {
		return nil, errInvalid("Invalid JSON payload received. %v", err)
	}
	if err := supportedJob(in.Configuration); err != nil {
		return nil, err
	}
	j, err := s.newJob(r.PathValue("project"), in.JobReference, in.Configuration, params.Configuration.Query.QueryParameters)
	if err != nil {
		return nil, err
	}
	if in.Configuration.DryRun {
		return s.dryRun(r.Context(), j)
	}
	if err := s.jobs.add(j); err != nil {
		return nil, err
	}
	answer := j.describe()
	s.startJob(j)
	return answer, nil
}

// Limits of a query job. https://cloud.google.com/bigquery/quotas#query_jobs
const (
	maxQueryText  = 1 << 20
	maxParameters = 10_000
)

func supportedJob(c *bq.JobConfiguration) error {
	switch {
	case c == nil:
		return errInvalid("Required parameter is missing: configuration")
	case c.Copy != nil:
		return errUnsupported("copy jobs")
	case c.Extract != nil:
		return errUnsupported("extract jobs")
	case c.Query == nil || c.Query.Query == "":
		return errInvalid("Required parameter is missing: query")
	}
	q := c.Query
	switch {
	case q.UseLegacySql == nil || *q.UseLegacySql:
		return errUnsupported("legacy SQL; set useLegacySql to false")
	case q.CreateSession || q.Continuous || len(q.ConnectionProperties) > 0:
		return errUnsupported("sessions, continuous queries and connection properties")
	case len(q.TableDefinitions) > 0 || len(q.UserDefinedFunctionResources) > 0 || len(q.SchemaUpdateOptions) > 0:
		return errUnsupported("external tables, functions and schema updates of a query")
	case q.Clustering != nil || q.TimePartitioning != nil || q.RangePartitioning != nil || q.DestinationEncryptionConfiguration != nil:
		return errUnsupported("partitioned, clustered or encrypted destinations of a query")
	case q.CreateDisposition == "CREATE_NEVER":
		return errUnsupported("CREATE_NEVER")
	case c.Reservation != "" || c.MaxSlots != 0:
		return errUnsupported("reservations and slots of a job")
	case q.ScriptOptions != nil || q.SystemVariables != nil || q.SecureContext != nil || q.PreserveNulls || q.WriteIncrementalResults:
		return errUnsupported("script options, system variables, secure contexts, preserved nulls and incremental results of a query")
	case len(q.Query) > maxQueryText:
		return errInvalid("The query is too large. The maximum standard SQL query length is 1024.00K characters, including comments and white space characters.")
	case len(q.QueryParameters) > maxParameters:
		return errInvalid("Too many query parameters: %d; the limit is %d", len(q.QueryParameters), maxParameters)
	case q.ParameterMode == "POSITIONAL":
		return errUnsupported("positional query parameters")
	}
	return checkLabels(c.Labels)
}

func (s *Server) newJob(project string, ref *bq.JobReference, c *bq.JobConfiguration, params json.RawMessage) (*job, error) {
	parameters, err := readParameters(params)
	if err != nil {
		return nil, err
	}
	j := &job{config: c, done: make(chan struct{}), state: "PENDING", created: s.now(), key: jobKey{project: project}}
	if ref != nil {
		j.key.id = ref.JobId
	}
	if ref != nil {
		j.location = ref.Location
	}
	c.JobType = "QUERY"
	j.request = statementRequest{sql: c.Query.Query, project: project, params: parameters}
	if d := c.Query.DefaultDataset; d != nil {
		j.request.defaultProject, j.request.defaultDataset = d.ProjectId, d.DatasetId
		if d.ProjectId == "" {
			j.request.defaultProject = project
		}
	}
	if j.location == "" {
		j.location = s.homeOf(j.request)
	}
	j.request.location = j.location
	return j, nil
}

// homeOf is where a statement runs that names no location: where the first
// dataset is that it names.
func (s *Server) homeOf(q statementRequest) string {
	if q.defaultDataset != "" {
		return s.cat.locationOf(datasetID{q.defaultProject, q.defaultDataset})
	}
	tokens, err := scanSQL(q.sql)
	if err != nil {
		return defaultLocation // refused when it is prepared
	}
	for i := range tokens {
		parts, _ := namePath(tokens, i)
		for n := min(len(parts), 3); n > 1; n-- {
			if id, ok := q.resolve(parts[:n]); ok {
				if t, err := s.cat.lookup(id); err == nil {
					return s.cat.locationOf(datasetID{t.id.project, t.id.dataset})
				}
			}
		}
	}
	return defaultLocation
}

// dryRun answers the statement's kind, schema and estimate without a job.
func (s *Server) dryRun(ctx context.Context, j *job) (any, error) {
	if err := s.planDry(ctx, j); err != nil {
		return nil, err
	}
	j.state = "DONE"
	answer := j.describe()
	answer.JobReference = &bq.JobReference{ProjectId: j.key.project, Location: j.location}
	answer.Id = j.key.project + ":" + j.location + "."
	if j.fields != nil {
		answer.Statistics.Query.Schema = restSchema(j.fields)
	}
	return answer, nil
}

// planDry plans the statement of a dry run.
func (s *Server) planDry(ctx context.Context, j *job) error {
	release, err := s.bindArrays(ctx, &j.request)
	if err != nil {
		return err
	}
	defer release()
	return s.plan(ctx, j, &prepared{}, true)
}

// plan prepares the statement of a job, estimates its bytes and holds it to
// its limit. A dry run is recorded here; a job when it ends.
func (s *Server) plan(ctx context.Context, j *job, p *prepared, dry bool) error {
	if err := s.dropExpired(ctx); err != nil {
		return err
	}
	if err := s.settleAll(ctx); err != nil {
		return err
	}
	got, err := s.prepare(ctx, j.request)
	*p = got
	if err == nil {
		j.bytes, err = s.estimate(ctx, j.request, p)
	}
	j.mu.Lock()
	j.kind, j.fields, j.reads, j.ddl = p.kind, p.fields, p.bases, p.ddl
	j.billed = billedBytes(j.bytes, len(p.bases))
	j.mu.Unlock()
	if limit := j.config.Query.MaximumBytesBilled; err == nil && limit > 0 && j.billed > limit && !dry {
		err = &apiError{
			http.StatusBadRequest, "bytesBilledLimitExceeded",
			fmt.Sprintf("Query exceeded limit for bytes billed: %d. %d or higher required.", limit, j.billed),
		}
	}
	if dry {
		s.obs.record(Statement{
			SQL: j.request.sql, Kind: p.kind, Analyzed: p.analyzed, Err: errorText(err), BytesProcessed: j.bytes, DryRun: true,
		})
	}
	return err
}

// billedBytes rounds up to a megabyte, and to ten for each table read.
// https://cloud.google.com/bigquery/pricing#on_demand_pricing
func billedBytes(processed int64, tables int) int64 {
	const megabyte = 1 << 20
	if processed == 0 {
		return 0
	}
	rounded := (processed + megabyte - 1) / megabyte * megabyte
	return max(rounded, int64(max(tables, 1))*10*megabyte)
}

// startJob runs a job in the background until it is done or cancelled.
func (s *Server) startJob(j *job) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	j.cancel = cancel
	s.work.Go(func() {
		defer cancel(nil)
		if limit := j.config.JobTimeoutMs; limit > 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, time.Duration(limit)*time.Millisecond)
			defer stop()
		}
		defer close(j.done)
		s.runJob(ctx, j)
	})
}

func (s *Server) runJob(ctx context.Context, j *job) {
	j.mu.Lock()
	j.state, j.started = "RUNNING", s.now()
	j.mu.Unlock()
	if j.config.Load != nil {
		s.runLoad(ctx, j)
		return
	}
	var p prepared
	var out outcome
	leave, err := s.queueDML(j.request)
	if err == nil {
		defer leave()
		var release func()
		if release, err = s.bindArrays(ctx, &j.request); err == nil {
			defer release()
		}
	}
	if err == nil {
		err = s.obs.held(ctx, Job{ID: j.key.id, SQL: j.request.sql})
	}
	if err == nil {
		err = s.plan(ctx, j, &p, false)
	}
	if err == nil {
		out, err = s.execute(ctx, j.request, &p, j.destination(), j.config.Query.WriteDisposition)
	}
	if err != nil && ctx.Err() != nil {
		err = &apiError{reasonCode("stopped"), "stopped", "Job execution was cancelled: " + context.Cause(ctx).Error()}
	}
	s.obs.record(Statement{
		SQL: j.request.sql, JobID: j.key.id, Kind: p.kind, Analyzed: p.analyzed, Err: errorText(err),
		BytesProcessed: j.bytes, RowsAffected: out.affected,
		Partitions: slices.Sorted(maps.Keys(out.partitions)), PartitionBytes: out.partitions,
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state, j.ended, j.outcome = "DONE", s.now(), out
	if err != nil {
		j.err = asAPIError(err)
		if j.err.reason == "internalError" {
			s.log.ErrorContext(ctx, "running a job", "job", j.key.id, "error", err)
		}
	}
	if out.destination != nil {
		j.config.Query.DestinationTable = out.destination.id.reference()
	}
}

func (j *job) destination() *tableID {
	d := j.config.Query.DestinationTable
	if d == nil {
		return nil
	}
	return &tableID{d.ProjectId, d.DatasetId, d.TableId}
}

// describe is the job's resource as it stands.
func (j *job) describe() *bq.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	config := *j.config
	if j.config.Query != nil {
		query := *j.config.Query
		config.Query = &query
	}
	out := &bq.Job{
		Kind: "bigquery#job", Id: j.key.project + ":" + j.location + "." + j.key.id,
		JobReference:  &bq.JobReference{ProjectId: j.key.project, JobId: j.key.id, Location: j.location},
		Configuration: &config, Status: &bq.JobStatus{State: j.state},
		Statistics: &bq.JobStatistics{CreationTime: j.created.UnixMilli()},
		UserEmail:  "emulator@" + j.key.project + ".iam.gserviceaccount.com",
	}
	if !j.started.IsZero() {
		out.Statistics.StartTime = j.started.UnixMilli()
	}
	if j.state != "DONE" {
		return out
	}
	if !j.ended.IsZero() {
		out.Statistics.EndTime = j.ended.UnixMilli()
	}
	if j.config.Load != nil {
		out.Statistics.Load = j.load.statistics(j.err != nil)
		out.Status.Errors = j.load.problems
	} else {
		out.Statistics.TotalBytesProcessed = j.bytes
		out.Statistics.Query = j.statistics()
	}
	if j.err != nil {
		out.Status.ErrorResult = j.err.proto()
		out.Status.Errors = append([]*bq.ErrorProto{j.err.proto()}, out.Status.Errors...)
	}
	return out
}

func (j *job) statistics() *bq.JobStatistics2 {
	out := &bq.JobStatistics2{
		StatementType: j.kind, TotalBytesProcessed: j.bytes, TotalBytesBilled: j.billed, EstimatedBytesProcessed: j.bytes,
		TotalBytesProcessedAccuracy: "PRECISE", NumDmlAffectedRows: j.outcome.affected, DmlStats: j.outcome.stats,
		TotalPartitionsProcessed: int64(len(j.outcome.partitions)), ForceSendFields: []string{"TotalBytesProcessed", "TotalBytesBilled"},
	}
	for _, id := range j.reads {
		if id.dataset != anonymousDataset {
			out.ReferencedTables = append(out.ReferencedTables, id.reference())
		}
	}
	if j.ddl != nil {
		out.DdlOperationPerformed = j.ddl.operation
		if j.ddl.schema != nil {
			out.DdlTargetDataset = j.ddl.schema.DatasetReference
		} else {
			out.DdlTargetTable = j.ddl.id.reference()
		}
	}
	if isDML(j.kind) {
		out.ForceSendFields = append(out.ForceSendFields, "NumDmlAffectedRows")
	}
	return out
}

func (s *Server) getJob(r *http.Request) (any, error) {
	j, err := s.jobs.find(r)
	if err != nil {
		return nil, err
	}
	return j.describe(), nil
}

func (s *Server) cancelJob(r *http.Request) (any, error) {
	j, err := s.jobs.find(r)
	if err != nil {
		return nil, err
	}
	j.cancel(errCancelled)
	return &bq.JobCancelResponse{Kind: "bigquery#jobCancelResponse", Job: j.describe()}, nil
}

var errCancelled = errors.New("user requested cancellation")

// wait waits until the job is done, at most the time the request allows.
func (s *Server) wait(ctx context.Context, j *job, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-j.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

const defaultWait = 10 * time.Second

// queryJob is jobs.query: insert a job, wait for it, answer its first page.
func (s *Server) queryJob(r *http.Request) (any, error) {
	var in bq.QueryRequest
	raw, err := readBody(r, &in)
	if err != nil {
		return nil, err
	}
	params := struct {
		QueryParameters json.RawMessage `json:"queryParameters"`
	}{}
	if err := json.Unmarshal(raw, &params); err != nil {
		return nil, errInvalid("Invalid JSON payload received. %v", err)
	}
	if in.QueryResultsFormat != "" && in.QueryResultsFormat != "JSON" || in.ArrowSerializationOptions != nil {
		return nil, errUnsupported("Arrow results of jobs.query")
	}
	config := &bq.JobConfiguration{
		DryRun: in.DryRun, Labels: in.Labels, JobTimeoutMs: in.JobTimeoutMs,
		Reservation: in.Reservation, MaxSlots: in.MaxSlots,
		Query: &bq.JobConfigurationQuery{
			PreserveNulls: in.PreserveNulls, WriteIncrementalResults: in.WriteIncrementalResults, SecureContext: in.SecureContext,
			Query: in.Query, UseLegacySql: in.UseLegacySql, DefaultDataset: in.DefaultDataset, UseQueryCache: in.UseQueryCache,
			MaximumBytesBilled: in.MaximumBytesBilled, QueryParameters: in.QueryParameters, ParameterMode: in.ParameterMode,
			CreateSession: in.CreateSession, Continuous: in.Continuous, ConnectionProperties: in.ConnectionProperties,
			Priority: "INTERACTIVE",
		},
	}
	if err := supportedJob(config); err != nil {
		return nil, err
	}
	project := r.PathValue("project")
	if in.DryRun {
		return s.dryQuery(r.Context(), project, in.Location, config, params.QueryParameters)
	}
	j, err := s.requested(project, in.Location, in.RequestId, config, params.QueryParameters)
	if err != nil {
		return nil, err
	}
	limit := defaultWait
	if in.TimeoutMs > 0 {
		limit = time.Duration(in.TimeoutMs) * time.Millisecond
	}
	style := timestampStyle(in.FormatOptions != nil && in.FormatOptions.UseInt64Timestamp)
	rows := int64(1) << 31
	if in.MaxResults > 0 {
		rows = in.MaxResults
	}
	return s.answerQuery(r.Context(), j, s.wait(r.Context(), j, limit), 0, rows, style, "bigquery#queryResponse")
}

func (s *Server) dryQuery(ctx context.Context, project, location string, config *bq.JobConfiguration, params json.RawMessage) (any, error) {
	j, err := s.newJob(project, &bq.JobReference{Location: location}, config, params)
	if err != nil {
		return nil, err
	}
	if err := s.planDry(ctx, j); err != nil {
		return nil, err
	}
	return &bq.QueryResponse{
		Kind: "bigquery#queryResponse", JobComplete: true, TotalBytesProcessed: j.bytes, Schema: restSchema(j.fields),
		JobReference: &bq.JobReference{ProjectId: project, Location: j.location},
	}, nil
}

// requested starts a job of jobs.query, once for each requestId.
func (s *Server) requested(project, location, requestID string, config *bq.JobConfiguration, params json.RawMessage) (*job, error) {
	j, err := s.newJob(project, &bq.JobReference{Location: location}, config, params)
	if err != nil {
		return nil, err
	}
	key := jobKey{project, requestID}
	s.jobs.mu.Lock()
	if old, ok := s.jobs.requests[key]; ok && requestID != "" && s.now().Sub(old.created) < 15*time.Minute {
		s.jobs.mu.Unlock()
		return old, nil
	}
	if requestID != "" {
		s.jobs.requests[key] = j
	}
	s.jobs.mu.Unlock()
	if err := s.jobs.add(j); err != nil {
		return nil, err
	}
	s.startJob(j)
	return j, nil
}

func (s *Server) queryResults(r *http.Request) (any, error) {
	j, err := s.jobs.find(r)
	if err != nil {
		return nil, err
	}
	if j.config.Query == nil {
		return nil, errInvalid("Cannot get the query results of a job that is no query: %s", j.key.id)
	}
	from, limit, err := pageBounds(r)
	if err != nil {
		return nil, err
	}
	millis, err := queryInt(r, "timeoutMs", defaultWait.Milliseconds())
	if err != nil {
		return nil, err
	}
	done := s.wait(r.Context(), j, time.Duration(millis)*time.Millisecond)
	return s.answerQuery(r.Context(), j, done, from, limit, timestampStyleOf(r), "bigquery#getQueryResultsResponse")
}

// answerQuery is the answer of jobs.query and jobs.getQueryResults. The error
// of a failed job is the error of the call.
func (s *Server) answerQuery(ctx context.Context, j *job, done bool, from, limit int64, style timestampStyle, kind string) (any, error) {
	answer := map[string]any{
		"kind":         kind,
		"jobReference": map[string]string{"projectId": j.key.project, "jobId": j.key.id, "location": j.location},
		"jobComplete":  done,
	}
	if !done {
		return answer, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return nil, &apiError{reasonCode(j.err.reason), j.err.reason, j.err.message}
	}
	answer["totalBytesProcessed"] = strconv.FormatInt(j.bytes, 10)
	answer["cacheHit"] = false
	if isDML(j.kind) {
		answer["numDmlAffectedRows"] = strconv.FormatInt(j.outcome.affected, 10)
		answer["dmlStats"] = j.outcome.stats
	}
	t := j.outcome.destination
	if t == nil {
		answer["totalRows"] = "0"
		return answer, nil
	}
	if _, err := s.cat.lookup(t.id); err != nil {
		return nil, err
	}
	p, err := s.readPage(ctx, t, from, limit, style)
	if err != nil {
		return nil, err
	}
	answer["schema"] = restSchema(s.fieldsOf(t))
	answer["totalRows"] = strconv.FormatInt(p.total, 10)
	return p.addTo(answer), nil
}

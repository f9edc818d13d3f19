package tick

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/telemetry"
)

// Ended says that a job of BigQuery, or a run of a scheduled query, has ended.
type Ended struct {
	Name      string // projects/../jobs/.. or projects/../locations/../transferConfigs/../runs/..
	Config    string // of a run: its scheduled query, projects/../locations/../transferConfigs/..; else empty
	Succeeded bool
	When      time.Time // by BigQuery's clock, or, where it does not say, when it was notified

	// Of a job: the table it wrote, without the partition; empty where it wrote none.
	Project, Dataset, Table string
	Own                     bool // Tidemark's own job
}

// The attributes by which Pub/Sub messages tell what they are. (BigQuery: Data
// Transfer Service run notifications; Cloud Logging: view logs in Pub/Sub.)
const (
	attributeEvent   = "eventType"
	attributeFormat  = "payloadFormat"
	attributeLogged  = "logging.googleapis.com/timestamp"
	transferFinished = "TRANSFER_RUN_FINISHED"
	transferFormat   = "JSON_API_V1"
)

const (
	fixTransfer = "set the topic as the Pub/Sub notification of scheduled queries only"
	fixLogged   = "route to the topic only what the sink of Tidemark's Terraform module routes: BigQuery's audit log of jobs that are done"
)

// decodeEnded reads a notification of Google Cloud, nil for a message that is none:
// its attributes say which it is. Errors are permanent.
func decodeEnded(attributes map[string]string, data []byte, published time.Time) (*Ended, error) {
	event, transfer := attributes[attributeEvent]
	_, audit := attributes[attributeLogged]
	var e Ended
	var err error
	switch {
	case transfer && audit:
		err = fault.Fix(fmt.Errorf("the message has both the attributes %s and %s", attributeEvent, attributeLogged), "send messages without attributes")
	case transfer:
		e, err = decodeTransfer(event, attributes[attributeFormat], data)
	case audit:
		e, err = decodeJob(data)
	default:
		return nil, nil //nolint:nilnil // no notification, and no error
	}
	if err != nil {
		return nil, fmt.Errorf("reading the notification: %w", err)
	}
	if e.When.IsZero() {
		e.When = published
	}
	return &e, nil
}

// decodeTransfer reads a TransferRun of the BigQuery Data Transfer API. It has the id
// of its configuration, and not the name that the console shows.
func decodeTransfer(event, format string, data []byte) (Ended, error) {
	if event != transferFinished || format != transferFormat {
		return Ended{}, fault.Fix(fmt.Errorf("an event %q with a payload of format %q is not a scheduled query that ended", event, format), fixTransfer)
	}
	var run struct {
		Name    string    `json:"name"`
		State   string    `json:"state"`
		EndTime time.Time `json:"endTime"`
	}
	if err := json.Unmarshal(data, &run); err != nil {
		return Ended{}, fault.Fix(fmt.Errorf("a transfer run: %w", err), fixTransfer)
	}
	config, id, ok := strings.Cut(run.Name, "/runs/")
	if _, valid := parseConfig(config); !ok || !valid || id == "" {
		return Ended{}, fault.Fix(fmt.Errorf("%q is not the name of a transfer run", run.Name), fixTransfer)
	}
	if !slices.Contains([]string{"SUCCEEDED", "FAILED", "CANCELLED"}, run.State) {
		return Ended{}, fault.Fix(fmt.Errorf("the transfer run %s is in the state %q, in which none has ended", run.Name, run.State), fixTransfer)
	}
	return Ended{Name: run.Name, Config: config, Succeeded: run.State == "SUCCEEDED", When: run.EndTime}, nil
}

// transferConfig is projects/{project}/locations/{location}/transferConfigs/{id}, or
// without a location. The project is an id in one place and a number in another.
type transferConfig struct{ project, location, id string }

func parseConfig(name string) (transferConfig, bool) {
	var c transferConfig
	switch parts := strings.Split(name, "/"); {
	case len(parts) == 6 && parts[0] == "projects" && parts[2] == "locations" && parts[4] == "transferConfigs":
		c = transferConfig{parts[1], parts[3], parts[5]}
	case len(parts) == 4 && parts[0] == "projects" && parts[2] == "transferConfigs":
		c = transferConfig{project: parts[1], id: parts[3]}
	}
	return c, c.project != "" && c.id != ""
}

// auditEntry is what is read of a log entry with a BigQueryAuditMetadata.
type auditEntry struct {
	ProtoPayload struct {
		AuthenticationInfo struct {
			PrincipalEmail string `json:"principalEmail"`
		} `json:"authenticationInfo"`
		Metadata struct {
			JobChange *struct {
				Job auditJob `json:"job"`
			} `json:"jobChange"`
		} `json:"metadata"`
	} `json:"protoPayload"`
}

// auditJob is BigQueryAuditMetadata.Job. Of the configurations one is there; that of an
// extract job names no table it wrote.
type auditJob struct {
	JobName   string `json:"jobName"`
	JobConfig struct {
		Query     destination       `json:"queryConfig"`
		Load      destination       `json:"loadConfig"`
		TableCopy destination       `json:"tableCopyConfig"`
		Labels    map[string]string `json:"labels"`
	} `json:"jobConfig"`
	JobStatus struct {
		JobState    string `json:"jobState"`
		ErrorResult struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"errorResult"`
	} `json:"jobStatus"`
	JobStats struct {
		EndTime time.Time `json:"endTime"`
	} `json:"jobStats"`
}

type destination struct {
	DestinationTable string `json:"destinationTable"`
	StatementType    string `json:"statementType"` // of a query
}

// decodeJob reads an entry of BigQuery's audit log that tells of a job's end.
func decodeJob(data []byte) (Ended, error) {
	var entry auditEntry
	if err := json.Unmarshal(data, &entry); err != nil {
		return Ended{}, fault.Fix(fmt.Errorf("a log entry: %w", err), fixLogged)
	}
	change := entry.ProtoPayload.Metadata.JobChange
	if change == nil {
		return Ended{}, fault.Fix(errors.New("the log entry has no protoPayload.metadata.jobChange"), fixLogged)
	}
	job := change.Job
	if job.JobName == "" || job.JobStatus.JobState != "DONE" {
		return Ended{}, fault.Fix(fmt.Errorf("the job %q is in the state %q, in which none has ended", job.JobName, job.JobStatus.JobState), fixLogged)
	}
	e := Ended{
		Name: job.JobName, Succeeded: job.JobStatus.ErrorResult.Code == 0 && job.JobStatus.ErrorResult.Message == "", When: job.JobStats.EndTime,
		Own: own(entry.ProtoPayload.AuthenticationInfo.PrincipalEmail, job.JobConfig.Labels),
	}
	for _, d := range []destination{job.JobConfig.Query, job.JobConfig.Load, job.JobConfig.TableCopy} {
		if d.DestinationTable == "" || !d.writes() {
			continue
		}
		parts := strings.Split(d.DestinationTable, "/")
		if len(parts) != 6 || parts[0] != "projects" || parts[2] != "datasets" || parts[4] != "tables" {
			return Ended{}, fault.Fix(fmt.Errorf("%q, which %s wrote, is not the name of a table", d.DestinationTable, job.JobName), fixLogged)
		}
		e.Project, e.Dataset = parts[1], parts[3]
		e.Table, _, _ = strings.Cut(parts[5], "$") // one partition
	}
	return e, nil
}

// writes reports whether a job with that destination can have written rows: not where
// the statement only drops it, or changes what it is.
func (d destination) writes() bool {
	return !strings.HasPrefix(d.StatementType, "DROP_") && !strings.HasPrefix(d.StatementType, "ALTER_")
}

// own reports whether a job is one of Tidemark's: by its label, or by who ran it. The
// service accounts of the functions are called like the topics that they read.
func own(email string, labels map[string]string) bool {
	account, _, _ := strings.Cut(email, "@")
	return labels["tidemark-pipeline"] != "" || labels["tidemark-sync"] != "" ||
		slices.Contains([]string{TopicExtract, TopicDedup, TopicReverseETL}, account)
}

// ended is when the job ended that the delivery is about; zero if it is about none, or if
// nobody knows.
func (d Delivery) ended() time.Time {
	if d.Ended != nil {
		return d.Ended.When
	}
	return d.Since
}

// Triggers reports whether the sync runs after what has ended. dataset is the one of
// the sync's unit, to which the tables of After are relative, in project. What failed
// triggers nothing, nor does a job of Tidemark's own: a sync cannot set itself off.
func (e Ended) Triggers(project, dataset string, s *pipeline.Sync) bool {
	if !e.Succeeded || e.Own {
		return false
	}
	return slices.ContainsFunc(s.After, func(a pipeline.After) bool {
		if a.ScheduledQuery != "" {
			return e.isRunOf(a.ScheduledQuery)
		}
		return e.wrote(project, dataset, a.Table)
	})
}

// isRunOf reports whether it is a run of the scheduled query: named by its id, or in
// full. Where the one name has the project's number and the other its id, the rest decides.
func (e Ended) isRunOf(query string) bool {
	ran, ok := parseConfig(e.Config)
	if !ok {
		return false
	}
	named, full := parseConfig(query)
	if !full {
		return ran.id == query
	}
	sameProject := number(named.project) != number(ran.project) || named.project == ran.project
	samePlace := named.location == "" || ran.location == "" || named.location == ran.location
	return ran.id == named.id && sameProject && samePlace
}

func number(project string) bool { return strings.Trim(project, "0123456789") == "" }

// wrote reports whether it is a job that wrote the table: table, dataset.table or
// project.dataset.table. A star at the end stands for the rest of the name, as in a
// wildcard table. Names are compared as they are, since BigQuery tells cases apart.
func (e Ended) wrote(project, dataset, table string) bool {
	if before, name, ok := cutLast(table); ok {
		table, dataset = name, before
		if before, name, ok := cutLast(dataset); ok {
			dataset, project = name, before
		}
	}
	if e.Table == "" || e.Project != project || e.Dataset != dataset {
		return false
	}
	if prefix, wildcard := strings.CutSuffix(table, "*"); wildcard {
		return strings.HasPrefix(e.Table, prefix)
	}
	return e.Table == table
}

// cutLast cuts at the last dot: a project may have one in its name.
func cutLast(name string) (before, after string, found bool) {
	i := strings.LastIndex(name, ".")
	if i < 0 {
		return "", name, false
	}
	return name[:i], name[i+1:], true
}

// Follow has every sync run that e triggers, for each tenant that it triggers it for: it
// publishes a message for each, and reports how many. The error joins those of pipelines
// and tenants that could not be told; the others are sent for (I7).
func (d *Dispatcher) Follow(ctx context.Context, e Ended, project string) (int, error) {
	var messages []Message
	var errs []error
	for i := range d.Pipelines {
		own, err := d.follow(ctx, e, project, &d.Pipelines[i])
		messages, errs = append(messages, own...), append(errs, err)
	}
	slog.InfoContext(ctx, "notified", "ended", e.Name, "scheduled_query", e.Config, "table", strings.Trim(e.Project+"."+e.Dataset+"."+e.Table, "."),
		"succeeded", e.Succeeded, "own", e.Own, "syncs", len(messages))
	if len(messages) > 0 {
		errs = append(errs, d.Publish(ctx, messages...))
	}
	return len(messages), errors.Join(errs...)
}

func (d *Dispatcher) follow(ctx context.Context, e Ended, project string, p *pipeline.Pipeline) ([]Message, error) {
	// Of whichever tenant the dataset may be: their list costs a query of the database.
	dataset := p.Dataset
	if p.Tenants != nil {
		dataset = e.Dataset
	}
	triggered := func(dataset string) []string {
		var names []string
		for i := range p.ReverseETL {
			if s := &p.ReverseETL[i]; e.Triggers(project, dataset, s) {
				names = append(names, s.Name)
			}
		}
		return names
	}
	if len(triggered(dataset)) == 0 {
		return nil, nil
	}
	units, err := d.ofPipeline(ctx, p, "")
	if err != nil {
		err = telemetry.Scope(within(ctx, p, ""), fmt.Errorf("listing the tenants of %s: %w", p.Name, err))
	}
	var messages []Message
	for _, u := range units {
		for _, name := range triggered(u.Dataset()) {
			messages = append(messages, u.Message(Message{Sync: name, Since: e.When}))
		}
	}
	return messages, err
}

// Refuse is Message.Refuse, and refuses notifications: only a sync runs after a job.
func (d Delivery) Refuse(function string, fields ...string) error {
	if d.Ended != nil {
		return fault.Fix(fmt.Errorf("%s does not serve notifications, and %s is one", function, d.Ended.Name),
			"have BigQuery notify the topic "+TopicReverseETL+", and no other")
	}
	return d.Message.Refuse(function, fields...)
}

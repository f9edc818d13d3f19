package warehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// The pauses between two looks at a job: short for the quick ones, and never long
// beside what a slow one takes.
const (
	firstLook = 50 * time.Millisecond
	lastLook  = 2 * time.Second
)

// change is what a DML statement did.
type change struct {
	job         string // "" if none was started
	rows, bytes int64  // affected, processed
}

// runDML runs a statement that changes the log of a table; kind is what its job is
// named after. Even with an error it says which job was started.
func runDML(ctx context.Context, q *bigquery.Query, kind string, t *Table) (change, error) {
	q.JobIDConfig = bigquery.JobIDConfig{JobID: "tidemark_" + kind + "_" + jobName(t.Name), AddJobIDSuffix: true}
	job, err := q.Run(ctx)
	if err != nil {
		return change{}, fmt.Errorf("starting the job: %w", err)
	}
	done := change{job: job.ID()}
	// The statement is ours, and valid: what BigQuery calls invalid once it runs is that
	// somebody else changes the same rows.
	status, err := finish(ctx, job, fault.Transient)
	if err != nil {
		return done, err
	}
	done.bytes = status.Statistics.TotalBytesProcessed
	if details, ok := status.Statistics.Details.(*bigquery.QueryStatistics); ok {
		done.rows = details.NumDMLAffectedRows
	}
	return done, nil
}

// finish looks at a job until it has ended, and returns what became of it; a job
// that failed is an error of its reason's class, or of the given one where BigQuery
// calls the statement invalid. The client's own Wait takes the reason of a failed job
// for that of a failed call, and asks after a job that was refused for a rate limit
// until the context ends.
func finish(ctx context.Context, job *bigquery.Job, invalid fault.Class) (*bigquery.JobStatus, error) {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		status, err := job.Status(ctx)
		if err != nil {
			return nil, fmt.Errorf("waiting for job %s: %w", job.ID(), err)
		}
		if status.Done() {
			return status, jobError(job, status, invalid)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("waiting for job %s: %w", job.ID(), ctx.Err())
		}
	}
}

// jobError is why a job failed, classified, or nil. What BigQuery says of a statement
// that was valid until it ran may have the data in it, which belongs into no log: it
// stays in the job.
func jobError(job *bigquery.Job, status *bigquery.JobStatus, invalid fault.Class) error {
	err := status.Err()
	if err == nil {
		return nil
	}
	var e *bigquery.Error
	if errors.As(err, &e) {
		if e.Reason == "invalidQuery" || e.Reason == "invalid" {
			return &fault.Error{
				Class: invalid, Err: fmt.Errorf("job %s failed (%s)", job.ID(), e.Reason),
				Remedy: "bq show -j " + job.ID() + " says why: correct the query, or the data that it cannot be run on",
			}
		}
		err = fault.Reason(e.Reason, err)
	}
	return fmt.Errorf("job %s: %w", job.ID(), err)
}

// jobName keeps what a job id may hold.
func jobName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 128 && (r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
			return r
		}
		return '_'
	}, name)
}

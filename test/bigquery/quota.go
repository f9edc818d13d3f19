package bigquery

import (
	"sync"
	"time"

	"github.com/tidemark-data/tidemark/test/bigquery/dialect"
)

// streamsPerHour is the limit of CreateWriteStream, per project.
const streamsPerHour = 10_000

// defaultStreamingInUse is how long BigQuery says it usually takes.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language#alter_table_rename_to_statement
const defaultStreamingInUse = 5 * time.Hour

// Limits are the quotas of one table that are counted. 0 is BigQuery's own, of
// https://cloud.google.com/bigquery/quotas.
type Limits struct {
	// TableUpdates are updates of metadata in 10 seconds, 5 by default, and of a
	// partitioned table 50.
	TableUpdates int
	// Statements are DML statements in 10 seconds, 25 by default.
	Statements int
	// RunningStatements are UPDATE, DELETE, MERGE and TRUNCATE statements that run
	// at once, 2 by default, and QueuedStatements those that wait beside them, 20.
	RunningStatements, QueuedStatements int
	// LoadJobs are load jobs of a table in 24 hours, failed ones included, 1,500 by
	// default.
	LoadJobs int
}

func (l Limits) loadJobs() int {
	if l.LoadJobs == 0 {
		return 1500
	}
	return l.LoadJobs
}

func (l Limits) orDefault() Limits {
	if l.Statements == 0 {
		l.Statements = 25
	}
	if l.RunningStatements == 0 {
		l.RunningStatements = 2
	}
	if l.QueuedStatements == 0 {
		l.QueuedStatements = 20
	}
	return l
}

// updates is the limit of metadata updates of a table.
func (l Limits) updates(partitioned bool) int {
	switch {
	case l.TableUpdates > 0:
		return l.TableUpdates
	case partitioned:
		return 50
	}
	return 5
}

// window counts events of the latest span of time.
type window struct {
	mu    sync.Mutex
	times []time.Time
}

// take counts one event unless limit events happened within the span.
func (w *window) take(now time.Time, span time.Duration, limit int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := 0
	for _, t := range w.times {
		if now.Sub(t) < span {
			w.times[kept] = t
			kept++
		}
	}
	w.times = w.times[:kept]
	if kept >= limit {
		return false
	}
	w.times = append(w.times, now)
	return true
}

// tableQuota counts what one table is asked for.
type tableQuota struct {
	updates window
	dml     window
	mu      sync.Mutex
	queued  int
}

// enterDML counts a mutating statement as outstanding until leave is called.
func (q *tableQuota) enterDML(limit int) (leave func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.queued >= limit {
		return nil, false
	}
	q.queued++
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.queued--
	}, true
}

// updated counts a metadata update of a table.
func (s *Server) updated(t *table) error {
	if !t.quota.updates.take(s.now(), 10*time.Second, s.limits.updates(t.part.column != "")) {
		return errRateLimit("Exceeded rate limits: too many table update operations for this table. For more information, see https://cloud.google.com/bigquery/docs/troubleshoot-quotas")
	}
	return nil
}

// queueDML counts the statement of a job as outstanding for its table, until
// leave is called, if it changes rows that exist.
func (s *Server) queueDML(q statementRequest) (leave func(), err error) {
	st, err := dialect.Describe(q.sql)
	if err != nil || !isDML(st.Kind) || st.Kind == "INSERT" {
		return func() {}, nil //nolint:nilerr // preparing it will refuse it
	}
	id, err := q.target(st)
	if err != nil {
		return func() {}, nil //nolint:nilerr // likewise
	}
	t, err := s.cat.lookup(id)
	if err != nil {
		return func() {}, nil //nolint:nilerr // likewise
	}
	leave, ok := t.quota.enterDML(s.limits.RunningStatements + s.limits.QueuedStatements)
	if !ok {
		return nil, errRateLimit("Resources exceeded during query execution: Too many DML statements outstanding against table %s, limit is %d.", t.id.legacy(), s.limits.QueuedStatements)
	}
	return leave, nil
}

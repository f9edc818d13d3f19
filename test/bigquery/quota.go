package bigquery

import (
	"sync"
	"time"
)

// Limits of https://cloud.google.com/bigquery/quotas that are counted.
const (
	streamsPerHour = 10_000 // CreateWriteStream, per project
	// updatesPer10s are metadata updates of one table, and of one partitioned one.
	updatesPer10s            = 5
	partitionedUpdatesPer10s = 50
	dmlPer10s                = 25 // statements per table
	dmlRunning               = 2  // mutating statements per table
	dmlQueued                = 20
)

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
func (q *tableQuota) enterDML() (leave func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.queued >= dmlRunning+dmlQueued {
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
func (t *table) updated(now time.Time) error {
	limit := updatesPer10s
	if t.part.column != "" {
		limit = partitionedUpdatesPer10s
	}
	if !t.quota.updates.take(now, 10*time.Second, limit) {
		return errRateLimit("Exceeded rate limits: too many table update operations for this table. For more information, see https://cloud.google.com/bigquery/docs/troubleshoot-quotas")
	}
	return nil
}

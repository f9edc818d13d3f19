package bigquery

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A table is settled before it is read: the changes that a reader sees by now
// are applied, and partitions that expired are gone.

// settleAll settles every table, for a statement that begins now.
func (s *Server) settleAll(ctx context.Context) error {
	s.cat.mu.RLock()
	var due []*table
	for _, d := range s.cat.datasets {
		for _, t := range d.tables {
			if t.changes.Load() != nil || t.part.expiration > 0 {
				due = append(due, t)
			}
		}
	}
	s.cat.mu.RUnlock()
	for _, t := range due {
		if err := s.settle(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) settle(ctx context.Context, t *table) error {
	t.rows.Lock()
	defer t.rows.Unlock()
	return s.settleLocked(ctx, t)
}

// settleLocked applies the changes that a reader sees now: all of them where
// the table has no max_staleness, otherwise those older than the apply delay,
// which is never more than max_staleness.
func (s *Server) settleLocked(ctx context.Context, t *table) error {
	if t.changes.Load() != nil {
		if err := s.applyChanges(ctx, t, s.now().Add(-min(time.Duration(s.applyDelay.Load()), t.staleness))); err != nil {
			return err
		}
	}
	return s.expire(ctx, t)
}

// expire deletes the partitions that expired.
// https://cloud.google.com/bigquery/docs/managing-partitioned-tables#partition-expiration
func (s *Server) expire(ctx context.Context, t *table) error {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock() // the table may not be dropped meanwhile
	part := t.part
	if part.expiration == 0 || t.isView() || !s.cat.holds(t) {
		return nil
	}
	kept, err := part.startOf(s.now().Add(-part.expiration))
	if err != nil {
		return err
	}
	limit := "make_timestamp(" + strconv.FormatInt(kept, 10) + ")"
	if part.kind == kindDate {
		limit = "CAST(" + limit + " AS DATE)"
	}
	if part.kind == kindTimestamp {
		limit = strings.Replace(limit, "make_timestamp", "make_timestamptz", 1)
	}
	return s.deleteExpired(context.WithoutCancel(ctx), t, quoteIdent(part.column)+" < "+limit)
}

// deleteExpired deletes rows of a table, if there are any. The caller holds both
// locks.
func (s *Server) deleteExpired(ctx context.Context, t *table, condition string) error {
	var expired bool
	if err := s.store.scalar(ctx, "SELECT EXISTS (SELECT 1 FROM "+t.real()+" WHERE "+condition+")", &expired); err != nil || !expired {
		return err
	}
	if err := s.beforeChange(ctx, t, t.fields); err != nil {
		return err
	}
	s.noteChange(t)
	return s.store.exec(ctx, "DELETE FROM "+t.real()+" WHERE "+condition)
}

// holds reports whether the table was not dropped. The caller holds the lock.
func (c *catalog) holds(t *table) bool {
	for _, d := range c.datasets {
		for _, other := range d.tables {
			if other == t {
				return true
			}
		}
	}
	return false
}

// startOf is the first microsecond of the partition that a moment is in. All
// partitions before it ended at that moment or earlier.
func (p partitioning) startOf(at time.Time) (int64, error) {
	layout, _ := p.layout()
	first, _, err := p.bounds(at.UTC().Format(layout))
	return first, err
}

// schemaVersion are columns that a table had until it got more.
type schemaVersion struct {
	fields []field
	until  time.Time
}

// SetSchemaDelay is Options.SchemaDelay from now on.
func (s *Server) SetSchemaDelay(d time.Duration) { s.schemaDelay.Store(int64(d)) }

// writableFields are a table's columns as the Storage Write API knows them,
// which learns of added ones late.
func (s *Server) writableFields(t *table) []field {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	known := s.now().Add(-time.Duration(s.schemaDelay.Load()))
	if i := slices.IndexFunc(t.versions, func(v schemaVersion) bool { return v.until.After(known) }); i >= 0 {
		return t.versions[i].fields
	}
	return t.fields
}

// readExpiration is a partition expiration in milliseconds.
func readExpiration(ms int64) (time.Duration, error) {
	const longest = int64(1<<63-1) / int64(time.Millisecond)
	if ms < 0 || ms > longest {
		return 0, errInvalid("Invalid value for timePartitioning.expirationMs: %d", ms)
	}
	return msDuration(ms), nil
}

func msDuration(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

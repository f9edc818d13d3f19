package bigquery

import (
	"context"
	"time"
)

// A table with an expiration time is gone from that moment on, whoever asks.
// https://cloud.google.com/bigquery/docs/managing-tables#updating_a_tables_expiration_time

// checkExpiry refuses what nobody means.
func (s *Server) checkExpiry(ms int64) error {
	if ms != 0 && ms <= s.now().UnixMilli() {
		return errUnsupported("an expiration time that has passed (%s)", time.UnixMilli(ms).UTC().Format(time.RFC3339))
	}
	return nil
}

// expires notes when a table does, if that is before all others. The caller
// holds the lock.
func (c *catalog) expires(t *table) {
	at := t.meta.ExpirationTime
	if first := c.firstExpiry.Load(); at != 0 && (first == 0 || at < first) {
		c.firstExpiry.Store(at)
	}
}

// dropExpired drops the tables whose time has come.
func (s *Server) dropExpired(ctx context.Context) error {
	now := s.now().UnixMilli()
	if first := s.cat.firstExpiry.Load(); first == 0 || now < first {
		return nil
	}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	s.cat.firstExpiry.Store(0)
	for _, d := range s.cat.datasets {
		for _, t := range s.cat.sortedTables(d) {
			at := t.meta.ExpirationTime
			if at == 0 || now < at {
				s.cat.expires(t)
				continue
			}
			if err := s.dropTable(context.WithoutCancel(ctx), d, t); err != nil {
				s.cat.firstExpiry.Store(at)
				return err
			}
		}
	}
	return nil
}

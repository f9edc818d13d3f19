package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// Event is the message of a log line that alerts and dashboards count: Terraform's
// filters name it, so its text is an interface. Lines for people have messages of
// their own and are no events.
//
// What there is, how severe, one line for what, and with which attributes:
//
//	failed    ERROR    a table or sync that failed; else the message     error, class, remedy, data
//	done      INFO     a pipeline x tenant that a message finished       cadence, tables
//	stale     WARNING  a table without success for too long (I9)         since, every
//	rejected  WARNING  a batch that left rows out, or a reverse run      rows
//	                   that left out others than the one before
//	billed    INFO     BigQuery jobs of a table or sync that read bytes  bytes, job
//	lag       WARNING  a replication slot that holds back more           slot, bytes,
//	                   write-ahead log than the pipeline's max_lag       limit, status
//
// Every line has run (the message's id) and kind (extract, dedup or reverse_etl), and
// as far as they are known pipeline, tenant, table and, in reverse, sync. class is
// transient or permanent; cadence is the tick's, empty for an operator's own run and
// for a continuation; tables counts the tables or syncs worked on, so not those that
// another run holds, and where it holds all of them nothing is done; job has the jobs'
// ids with a space between; bytes and limit of lag are what the slot holds back and
// max_lag, status is wal_status of pg_replication_slots. None has a row's values.
type Event string

// The events.
const (
	Failed   Event = "failed"
	Done     Event = "done"
	Stale    Event = "stale"
	Rejected Event = "rejected"
	Billed   Event = "billed"
	Lag      Event = "lag"
)

// Events are all there are.
func Events() []Event { return []Event{Failed, Done, Stale, Rejected, Billed, Lag} }

// Level is how severe the event is.
func (e Event) Level() slog.Level {
	switch e {
	case Failed:
		return slog.LevelError
	case Stale, Rejected, Lag:
		return slog.LevelWarn
	case Done, Billed:
	}
	return slog.LevelInfo
}

// Emit logs an event, whatever LOG_LEVEL says: a quiet log must not look like a
// silent pipeline (I9).
func Emit(ctx context.Context, e Event, attrs ...slog.Attr) {
	r := slog.NewRecord(time.Now(), e.Level(), string(e), 0)
	r.AddAttrs(attrs...)
	_ = slog.Default().Handler().Handle(ctx, r) // as slog does: a log that cannot be written stops nothing
}

// Reject logs that rows were left out and put into tidemark.rejects; none, nothing.
func Reject(ctx context.Context, rows int64) {
	if rows > 0 {
		Emit(ctx, Rejected, slog.Int64("rows", rows))
	}
}

// Bill logs the bytes that BigQuery processed in jobs of ours; none, nothing.
func Bill(ctx context.Context, bytes int64, jobs ...string) {
	if bytes > 0 {
		Emit(ctx, Billed, slog.Int64("bytes", bytes), slog.String("job", strings.Join(jobs, " ")))
	}
}

// HoldBack logs that a replication slot holds back bytes of write-ahead log, where
// they are more than limit; status is its wal_status in pg_replication_slots.
func HoldBack(ctx context.Context, slot string, bytes, limit int64, status string) {
	if bytes > limit {
		Emit(ctx, Lag, slog.String("slot", slot), slog.Int64("bytes", bytes), slog.Int64("limit", limit), slog.String("status", status))
	}
}

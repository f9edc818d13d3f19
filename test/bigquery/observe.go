package bigquery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Phase says whether an intercepted call is about to take effect or has.
type Phase int

const (
	// Before is the moment before the call takes effect. An error returned
	// then is answered to the client and the call has no effect.
	Before Phase = iota
	// After is the moment after the call took effect. An error returned then
	// is answered instead of the result: the effect stays, the answer is lost.
	After
)

// Call is one REST method or RPC, as Intercept sees it.
type Call struct {
	// Method is the REST method's id ("tables.insert", "jobs.query") or the
	// RPC's name ("AppendRows", "BatchCommitWriteStreams").
	Method string
	Phase  Phase
	// Request is the *http.Request of a REST method, whose body may already
	// be read, or the protocol buffer message of an RPC. AppendRows is called
	// once for each request of its stream, ReadRows Before once and After
	// once for each batch sent.
	Request any
}

// Statement is one SQL statement the emulator received.
type Statement struct {
	SQL   string
	JobID string
	// Kind is BigQuery's statementType: SELECT, DELETE, CREATE_VIEW, ...
	Kind string
	// Analyzed is true where Google's analyzer judged the statement.
	Analyzed bool
	// Err is the text of the error it was answered with, empty for none.
	Err string
	// BytesProcessed is the estimate of the dry run, in bytes.
	BytesProcessed int64
	// RowsAffected is the number of rows that DML changed.
	RowsAffected int64
	// Partitions are the ids of the partitions that DML changed, removed or
	// added rows of, sorted ("202611", "__NULL__"); empty for a table without
	// partitions.
	Partitions []string
	// PartitionBytes is the logical size of each of them, whole, before UPDATE,
	// DELETE, MERGE or TRUNCATE, in bytes, which is what the statement costs. It
	// is 0 for INSERT, and for a partition outside of those that the statement's
	// conditions bound it to, which it can only have added rows to.
	PartitionBytes map[string]int64
	DryRun         bool
}

// observer counts calls, keeps statements and runs the interceptor.
type observer struct {
	mu         sync.Mutex
	calls      map[string]int
	statements []Statement
	intercept  func(Call) error
	hold       func(Job) <-chan struct{}
}

// Job is what HoldJobs sees of a job; the SQL of a load job is empty.
type Job struct {
	ID  string
	SQL string
}

func (o *observer) around(method string, phase Phase, request any) error {
	o.mu.Lock()
	if phase == Before {
		o.calls[method]++
	}
	f := o.intercept
	o.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(Call{Method: method, Phase: phase, Request: request})
}

func (o *observer) record(st Statement) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.statements = append(o.statements, st)
}

// held waits, where a test holds the job, until it is released.
func (o *observer) held(ctx context.Context, j Job) error {
	o.mu.Lock()
	f := o.hold
	o.mu.Unlock()
	if f == nil {
		return nil
	}
	release := f(j)
	if release == nil {
		return nil
	}
	select {
	case <-release:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("holding the job: %w", context.Cause(ctx))
	}
}

// Statements returns every SQL statement received, in the order in which they
// ended, view definitions and refused ones among them.
func (s *Server) Statements() []Statement {
	s.obs.mu.Lock()
	defer s.obs.mu.Unlock()
	return slices.Clone(s.obs.statements)
}

// Calls returns how often each REST method and RPC was called, intercepted
// ones included.
func (s *Server) Calls() map[string]int {
	s.obs.mu.Lock()
	defer s.obs.mu.Unlock()
	return maps.Clone(s.obs.calls)
}

// Intercept installs f around every REST method and RPC, nil for none. An
// error that f returns is answered to the client: a gRPC status error as it
// is, a *googleapi.Error with its code and reason, any other as an internal
// error, which the official clients try again. Calls run f concurrently.
func (s *Server) Intercept(f func(Call) error) {
	s.obs.mu.Lock()
	defer s.obs.mu.Unlock()
	s.obs.intercept = f
}

// HoldJobs installs f, called once for each job that is no dry run. The
// job is answered as PENDING when inserted, as RUNNING after, and does no work
// until the channel that f returns is closed; a nil channel does not hold it.
func (s *Server) HoldJobs(f func(Job) (release <-chan struct{})) {
	s.obs.mu.Lock()
	defer s.obs.mu.Unlock()
	s.obs.hold = f
}

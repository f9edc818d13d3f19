package bigquery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc"
)

// Options configures a Server. The zero value serves.
type Options struct {
	// RESTAddr and GRPCAddr are the loopback addresses to listen on, default
	// "127.0.0.1:0".
	RESTAddr, GRPCAddr string
	// Now is the clock of every time that BigQuery would decide, default time.Now.
	Now func() time.Time
	// ApplyDelay is how long BigQuery takes to apply the changes (rows with
	// _CHANGE_TYPE) of a table with a max_staleness, never longer than that: a
	// query sees those older than it only. Default none: it sees every change.
	// A query of a table without max_staleness sees every change always.
	ApplyDelay time.Duration
	// SchemaDelay is how long the Storage Write API takes to know an added
	// column, minutes in BigQuery; until then it refuses its values with
	// SCHEMA_MISMATCH_EXTRA_FIELDS. Default none.
	SchemaDelay time.Duration
	// StreamingInUse is how long after the last streamed row BigQuery counts a
	// table as being streamed to, so that it can neither be renamed nor get
	// another type of column; default 5 hours, negative for none.
	StreamingInUse time.Duration
	// ChangeHistory has every table keep what was appended to it for APPENDS before
	// it is changed, as BigQuery does, which copies such rows. Without it a table
	// does so from the first APPENDS of it on, and APPENDS of rows that were changed
	// before that is refused.
	ChangeHistory bool
	// Limits are the quotas that are counted, default BigQuery's.
	Limits Limits
	// CloudStorageHost is the host:port of the Cloud Storage emulator that load
	// jobs read; without one they are refused.
	CloudStorageHost string
	// Log receives faults of the emulator itself, default none.
	Log *slog.Logger
}

// Server is a running emulator.
type Server struct {
	now   func() time.Time
	log   *slog.Logger
	obs   observer
	store *store
	cat   *catalog
	jobs  *jobTable

	writes writeStreams
	// applyDelay and schemaDelay are each a time.Duration.
	applyDelay, schemaDelay atomic.Int64
	streamingInUse          time.Duration
	changeHistory           bool
	limits                  Limits
	cloudStorage            string
	objects                 *http.Client // of cloudStorage
	loads                   loadCounts
	reads                   readSessions

	//nolint:containedctx // the server's own life, which its jobs share
	ctx      context.Context
	cancel   context.CancelCauseFunc
	work     sync.WaitGroup
	rest     net.Listener
	storage  net.Listener
	httpSrv  *http.Server
	grpcSrv  *grpc.Server
	closeErr error
	once     sync.Once
}

var errClosing = errors.New("the emulator is closing")

// Start opens an empty emulator and serves it until Close. The context bounds
// the start only.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	rest, err := listenLoopback(ctx, o.RESTAddr)
	if err != nil {
		return nil, err
	}
	storage, err := listenLoopback(ctx, o.GRPCAddr)
	if err != nil {
		return nil, errors.Join(err, rest.Close())
	}
	st, err := openStore(ctx, o.Now)
	if err != nil {
		return nil, errors.Join(err, rest.Close(), storage.Close())
	}
	s := &Server{now: o.Now, log: o.Log, store: st, rest: rest, storage: storage}
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.SetApplyDelay(o.ApplyDelay)
	s.SetSchemaDelay(o.SchemaDelay)
	s.streamingInUse, s.limits = o.StreamingInUse, o.Limits.orDefault()
	s.changeHistory = o.ChangeHistory
	if s.streamingInUse == 0 {
		s.streamingInUse = defaultStreamingInUse
	}
	s.cloudStorage = o.CloudStorageHost
	s.objects = &http.Client{Transport: &http.Transport{DisableCompression: true}}
	s.obs.calls = map[string]int{}
	s.cat = newCatalog()
	s.jobs = newJobTable()
	s.writes.streams = map[string]*writeStream{}
	s.reads.sessions = map[string]*readSession{}
	s.serve()
	return s, nil
}

func (s *Server) serve() {
	s.httpSrv = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: time.Minute,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
	}
	// The emulator itself answers what is too large, as BigQuery does, so
	// that the transport must let it through.
	s.grpcSrv = grpc.NewServer(
		grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(128<<20),
		grpc.InitialWindowSize(8<<20), grpc.InitialConnWindowSize(16<<20),
		grpc.UnaryInterceptor(s.interceptUnary), grpc.WaitForHandlers(true),
	)
	storagepb.RegisterBigQueryWriteServer(s.grpcSrv, &writeService{s: s})
	storagepb.RegisterBigQueryReadServer(s.grpcSrv, &readService{s: s})
	s.work.Go(func() {
		if err := s.httpSrv.Serve(s.rest); !errors.Is(err, http.ErrServerClosed) {
			s.log.ErrorContext(s.ctx, "serving REST", "error", err)
		}
	})
	s.work.Go(func() {
		if err := s.grpcSrv.Serve(s.storage); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.log.ErrorContext(s.ctx, "serving gRPC", "error", err)
		}
	})
}

func listenLoopback(ctx context.Context, addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("reading address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("reading address %q: the emulator listens on loopback only", addr)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return l, nil
}

// RESTHost is the host:port for BIGQUERY_EMULATOR_HOST; the REST base is
// http://host:port/bigquery/v2/.
func (s *Server) RESTHost() string { return s.rest.Addr().String() }

// StorageHost is the host:port for BIGQUERY_STORAGE_EMULATOR_HOST, gRPC
// without TLS.
func (s *Server) StorageHost() string { return s.storage.Addr().String() }

// Close ends every call and job at once and drops all data. It returns when
// nothing of the server runs any more.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.cancel(errClosing)
		s.grpcSrv.Stop()
		s.closeErr = s.closeREST()
		s.work.Wait()
		s.objects.CloseIdleConnections()
		s.closeErr = errors.Join(s.closeErr, s.store.close())
	})
	return s.closeErr
}

// closeREST waits for calls that run, whose context has ended, so that none
// uses the store after it is closed.
func (s *Server) closeREST() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 10*time.Second)
	defer cancel()
	if err := s.httpSrv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("ending REST calls: %w", err), s.httpSrv.Close())
	}
	return nil
}

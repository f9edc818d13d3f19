// Package storage is an emulator of Cloud Storage for tests and demonstrations:
// github.com/fsouza/fake-gcs-server on a loopback port, held to what it does
// faithfully.
//
// It serves what the official Go client needs for objects: uploads of every kind with
// generation preconditions, metadata, listings by prefix, downloads and deletes, all
// with the checksums and generations of Cloud Storage. Buckets are made when it starts.
// Everything else, down to a single query parameter, is refused by name with reason
// notImplemented: the fake would ignore much of it in silence.
package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"google.golang.org/api/googleapi"
)

// Location is where every bucket is.
const Location = "US"

// Options say how the emulator is started. The zero value serves no bucket.
type Options struct {
	// Port is the TCP port on the loopback interface; 0: a free one.
	Port int
	// Folder is where objects are kept; in memory if empty.
	Folder string
	// Buckets are the names of the buckets to make.
	Buckets []string
	// Log receives faults of the emulator itself, default none.
	Log *slog.Logger
}

// Server is a running emulator.
type Server struct {
	fake     *fakestorage.Server
	listener net.Listener
	http     *http.Server
	log      *slog.Logger
	served   sync.WaitGroup
	// writes lets a delete look at the generation and act on it undisturbed.
	writes sync.RWMutex

	mu        sync.Mutex
	intercept func(Call) error
	calls     map[string]int
}

// Call is one request, as Intercept sees it.
type Call struct {
	// Method is the id of the JSON API's method: buckets.get, objects.delete,
	// objects.get, objects.insert, objects.list. Each request of a resumable upload
	// is an objects.insert; a download is an objects.get.
	Method  string
	Request *http.Request
}

// Start starts an emulator. The context bounds the start only.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)))
	if err != nil {
		return nil, fmt.Errorf("starting the Cloud Storage emulator: %w", err)
	}
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, Scheme: "http", StorageRoot: o.Folder, BucketsLocation: Location,
		// The client downloads from http://host:port/bucket/object.
		PublicHost: listener.Addr().String(),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the Cloud Storage emulator: %w", err), listener.Close())
	}
	s := &Server{fake: fake, listener: listener, log: o.Log, calls: map[string]int{}}
	for _, name := range o.Buckets {
		fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: name})
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute}
	s.served.Go(func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.ErrorContext(context.WithoutCancel(ctx), "serving Cloud Storage", "error", err)
		}
	})
	return s, nil
}

// Host is the host:port for STORAGE_EMULATOR_HOST.
func (s *Server) Host() string { return s.listener.Addr().String() }

// Close ends every call at once and drops what is in memory.
func (s *Server) Close() error {
	err := s.http.Close()
	s.served.Wait()
	s.fake.Stop()
	if err != nil {
		return fmt.Errorf("closing the Cloud Storage emulator: %w", err)
	}
	return nil
}

// Objects returns the names of a bucket's objects that begin with a prefix, sorted.
func (s *Server) Objects(bucket, prefix string) ([]string, error) {
	found, err := s.fake.ListObjectsWithOptionsPaginated(bucket, fakestorage.ListOptions{Prefix: prefix})
	if err != nil {
		return nil, fmt.Errorf("listing bucket %s: %w", bucket, err)
	}
	names := make([]string, 0, len(found.Objects))
	for _, o := range found.Objects {
		names = append(names, o.Name)
	}
	slices.Sort(names)
	return names, nil
}

// Calls returns how often each method was called, intercepted and refused calls included.
func (s *Server) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.calls))
	for method, n := range s.calls {
		out[method] = n
	}
	return out
}

// Intercept installs f before every call, nil for none. A call for which f returns an
// error has no effect and is answered with it: a *googleapi.Error with its code, any
// other as 503, which the official client tries again. Calls run f concurrently.
func (s *Server) Intercept(f func(Call) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	method, err := route(r)
	s.mu.Lock()
	s.calls[method]++
	intercept := s.intercept
	s.mu.Unlock()
	if err == nil && intercept != nil {
		err = intercept(Call{Method: method, Request: r})
	}
	if err == nil {
		err = s.pass(w, r, method)
	}
	if err != nil {
		s.answer(w, r, err)
	}
}

// pass hands a call to the fake.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, method string) error {
	if method != "objects.delete" {
		s.writes.RLock()
		defer s.writes.RUnlock()
		s.fake.HTTPHandler().ServeHTTP(w, r)
		return nil
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	if err := s.checkGeneration(r); err != nil {
		return err
	}
	s.fake.HTTPHandler().ServeHTTP(w, r)
	return nil
}

// checkGeneration holds a delete to its preconditions, which the fake does not know.
func (s *Server) checkGeneration(r *http.Request) error {
	query := r.URL.Query()
	if !query.Has("ifGenerationMatch") && !query.Has("ifGenerationNotMatch") {
		return nil
	}
	bucket, object, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/storage/v1/b/"), "/o/")
	live := "0"
	if o, err := s.fake.GetObjectStreaming(bucket, object); err == nil {
		live = strconv.FormatInt(o.Generation, 10)
		if err := o.Close(); err != nil {
			return fmt.Errorf("looking at %s: %w", object, err)
		}
	}
	if query.Has("ifGenerationMatch") && query.Get("ifGenerationMatch") != live || query.Get("ifGenerationNotMatch") == live {
		return &googleapi.Error{
			Code:    http.StatusPreconditionFailed,
			Message: "At least one of the pre-conditions you specified did not hold.",
			Errors:  []googleapi.ErrorItem{{Reason: "conditionNotMet"}},
		}
	}
	return nil
}

// parameters are the query parameters that each method may have.
func parameters(method string) []string {
	always := []string{"alt", "prettyPrint", "fields", "projection"}
	switch method {
	case "objects.list":
		return append(always, "prefix", "delimiter", "includeTrailingDelimiter", "startOffset", "endOffset", "maxResults", "pageToken")
	case "objects.get":
		return append(always, "generation")
	case "objects.delete":
		return append(always, "generation", "ifGenerationMatch", "ifGenerationNotMatch")
	case "objects.insert":
		return append(always, "uploadType", "upload_id", "name", "contentEncoding", "ifGenerationMatch", "ifGenerationNotMatch")
	}
	return always
}

// route names the method of a request, or refuses it.
func route(r *http.Request) (string, error) {
	method := methodOf(r.Method, r.URL.Path)
	if method == "" {
		return "unknown", errUnsupported(r.Method + " " + r.URL.Path)
	}
	allowed := parameters(method)
	for name, values := range r.URL.Query() {
		// The client spells out defaults in a listing.
		isDefault := method == "objects.list" && (slices.Equal(values, []string{"false"}) || slices.Equal(values, []string{""}))
		if !slices.Contains(allowed, name) && !isDefault {
			return method, errUnsupported("the parameter " + name + " of " + method)
		}
	}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-goog-if-") || strings.HasPrefix(lower, "x-goog-encryption-") {
			return method, errUnsupported("the header " + lower + " of " + method)
		}
	}
	return method, nil
}

func methodOf(verb, path string) string {
	if rest, ok := strings.CutPrefix(path, "/upload/storage/v1/b/"); ok {
		bucket, _, isUpload := strings.Cut(rest, "/o")
		if isUpload && bucket != "" && (verb == http.MethodPost || verb == http.MethodPut || verb == http.MethodDelete) {
			return "objects.insert"
		}
		return ""
	}
	if rest, ok := strings.CutPrefix(path, "/storage/v1/b/"); ok {
		bucket, object, inObjects := strings.Cut(rest, "/o")
		switch {
		case strings.Contains(bucket, "/"):
			return ""
		case !inObjects && verb == http.MethodGet:
			return "buckets.get"
		case inObjects && object == "" && verb == http.MethodGet:
			return "objects.list"
		case inObjects && len(object) > 1 && verb == http.MethodGet:
			return "objects.get"
		case inObjects && len(object) > 1 && verb == http.MethodDelete:
			return "objects.delete"
		}
		return ""
	}
	if verb != http.MethodGet && verb != http.MethodHead {
		return ""
	}
	for _, other := range []string{"/_internal/", "/storage/", "/batch/", "/upload/", "/download/"} {
		if strings.HasPrefix(path, other) {
			return ""
		}
	}
	if bucket, object, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); ok && bucket != "" && object != "" {
		return "objects.get"
	}
	return ""
}

// errUnsupported refuses what Cloud Storage can do and the emulator cannot: as a bad
// request, because the client tries all of 5xx again for ever.
func errUnsupported(what string) error {
	return &googleapi.Error{
		Code: http.StatusBadRequest, Message: "the Cloud Storage emulator does not support " + what,
		Errors: []googleapi.ErrorItem{{Reason: "notImplemented"}},
	}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, err error) {
	var e *googleapi.Error
	if !errors.As(err, &e) {
		e = &googleapi.Error{Code: http.StatusServiceUnavailable, Message: err.Error()}
	}
	type item struct {
		Message string `json:"message"`
		Domain  string `json:"domain"`
		Reason  string `json:"reason"`
	}
	reason := "backendError"
	if len(e.Errors) > 0 {
		reason = e.Errors[0].Reason
	}
	var body struct {
		Error struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Errors  []item `json:"errors"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message, body.Error.Errors = e.Code, e.Message, []item{{e.Message, "global", reason}}
	// What the client still sends would be taken for its next request.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		s.log.DebugContext(r.Context(), "reading the rest of a request", "error", err)
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(e.Code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.log.DebugContext(r.Context(), "writing an answer", "error", err)
	}
}

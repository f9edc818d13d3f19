// Package stack is Tidemark on one machine: a throw-away Postgres, the BigQuery, Cloud
// Storage and Pub/Sub emulators, and the program functions/local as a process of its own, which
// serves the real functions, keeps the schedules and delivers the pushes. They find
// each other by the environment variables of DESIGN.md and speak over the network alone.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	bigqueryapi "cloud.google.com/go/bigquery"
	"github.com/jackc/pgx/v5"
	"google.golang.org/api/option"

	"github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/child"
	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/pubsub"
	"github.com/tidemark-data/tidemark/test/storage"
)

// Project is the Google Cloud project of every stack.
const Project = "local"

// StagingBucket is the bucket of every stack that load jobs read from.
const StagingBucket = "tidemark-staging"

const (
	functionsPackage = "github.com/tidemark-data/tidemark/functions/local"
	stopGrace        = 20 * time.Second
	readyWithin      = 2 * time.Minute
	pollInterval     = 50 * time.Millisecond
)

// Options say how a stack is started. Zero fields mean what their comments say.
type Options struct {
	// Pipelines is the folder of pipeline files; those that the product embeds.
	Pipelines string
	// Functions is the built program functions/local; built now, by the go command.
	Functions string
	// Port is where the functions are served; a free one.
	Port int
	// Database is the application's database, which is created; "app".
	Database string
	// Prepare fills the database before the functions start; nothing.
	Prepare func(ctx context.Context, url string) error
	// Postgres says how the server is started.
	Postgres postgres.Options
	// Environment is added to the functions' own ("NAME=value"); nothing.
	Environment []string
	// Log gets what the functions log; discarded.
	Log io.Writer
}

// Stack is a running stack.
type Stack struct {
	options   Options
	folder    string // of the program, if we built it
	postgres  *postgres.Server
	storage   *storage.Server
	bigquery  *bigquery.Server
	pubsub    *pubsub.Server
	functions *child.Process
	tail      *tail
}

// Start starts everything and waits until the functions answer. ctx bounds the
// start only.
func Start(ctx context.Context, options Options) (*Stack, error) {
	if options.Database == "" {
		options.Database = "app"
	}
	if options.Log == nil {
		options.Log = io.Discard
	}
	s := &Stack{options: options}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the local stack: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		s.startPostgres, s.startStorage, s.startBigQuery, s.startPubSub, s.build, s.choosePort,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.StartFunctions(ctx)
}

func (s *Stack) startPostgres(ctx context.Context) (err error) {
	options := s.options.Postgres
	settings := map[string]string{"wal_level": "logical"} // so that every capture method works
	maps.Copy(settings, options.Settings)
	options.Settings = settings
	if s.postgres, err = postgres.Start(ctx, options); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.postgres.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	if _, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{s.options.Database}.Sanitize()); err != nil {
		err = fmt.Errorf("creating the database: %w", err)
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	if s.options.Prepare == nil {
		return nil
	}
	return s.options.Prepare(ctx, s.DatabaseURL())
}

func (s *Stack) startStorage(ctx context.Context) (err error) {
	s.storage, err = storage.Start(ctx, storage.Options{Buckets: []string{StagingBucket}})
	return err
}

func (s *Stack) startBigQuery(ctx context.Context) (err error) {
	s.bigquery, err = bigquery.Start(ctx, bigquery.Options{CloudStorageHost: s.storage.Host()})
	return err
}

func (s *Stack) startPubSub(ctx context.Context) (err error) {
	s.pubsub, err = pubsub.Start(ctx, pubsub.Options{})
	return err
}

// build builds functions/local, from within this module so that it shares the
// packages that the go command has compiled for us already.
func (s *Stack) build(ctx context.Context) error {
	if s.options.Functions != "" {
		return nil
	}
	folder, err := os.MkdirTemp("", "tidemark-stack-")
	if err != nil {
		return fmt.Errorf("building the functions: %w", err)
	}
	s.folder, s.options.Functions = folder, filepath.Join(folder, "local")
	out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", s.options.Functions, functionsPackage).CombinedOutput()
	if err != nil {
		return fmt.Errorf("building the functions: %w: %s", err, out)
	}
	return nil
}

// choosePort takes a port that is free now, so that the address stays the same
// when the functions are started again.
func (s *Stack) choosePort(ctx context.Context) (err error) {
	if s.options.Port == 0 {
		s.options.Port, err = postgres.FreePort(ctx)
	}
	return err
}

// StartFunctions starts the functions' process, again after StopFunctions, and
// waits until it answers. Start has called it once. environment is added for this run.
func (s *Stack) StartFunctions(ctx context.Context, environment ...string) error {
	s.tail = &tail{next: s.options.Log}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.options.Functions)
	cmd.Env = slices.Concat(inherited(), s.Environment(), s.options.Environment, environment)
	cmd.Stdout, cmd.Stderr = s.tail, s.tail
	var err error
	if s.functions, err = child.Start(cmd, syscall.SIGTERM); err != nil {
		return fmt.Errorf("starting the functions: %w", err)
	}
	return s.ready(ctx)
}

// StopFunctions ends the functions' process: SIGTERM lets it finish what it is
// doing, SIGKILL does not. Everything else goes on.
func (s *Stack) StopFunctions(sig syscall.Signal) error {
	if s.functions == nil {
		return nil
	}
	err := s.functions.Stop(sig, stopGrace)
	s.functions = nil
	if err != nil {
		return fmt.Errorf("stopping the functions: %w", err)
	}
	return nil
}

// FunctionsExited is closed when the functions' process has ended, for whatever
// reason; LastLog has its last words.
func (s *Stack) FunctionsExited() <-chan struct{} { return s.functions.Exited() }

// FunctionsPid is the id of the functions' process.
func (s *Stack) FunctionsPid() int { return s.functions.Pid() }

// LastLog is the end of what the functions have logged since they were started.
func (s *Stack) LastLog() string { return s.tail.String() }

// Stop stops everything, in the reverse order.
func (s *Stack) Stop() error {
	err := s.StopFunctions(syscall.SIGTERM)
	if s.pubsub != nil {
		err = errors.Join(err, s.pubsub.Close())
	}
	if s.bigquery != nil {
		err = errors.Join(err, s.bigquery.Close())
	}
	if s.storage != nil {
		err = errors.Join(err, s.storage.Close())
	}
	if s.postgres != nil {
		err = errors.Join(err, s.postgres.Stop())
	}
	if s.folder != "" {
		err = errors.Join(err, os.RemoveAll(s.folder))
	}
	return err
}

// Postgres is the server that holds the application and the control plane.
func (s *Stack) Postgres() *postgres.Server { return s.postgres }

// BigQuery is the BigQuery emulator.
func (s *Stack) BigQuery() *bigquery.Server { return s.bigquery }

// Storage is the Cloud Storage emulator, with the bucket StagingBucket.
func (s *Stack) Storage() *storage.Server { return s.storage }

// BigQueryClient is Google's client, of the emulator.
func (s *Stack) BigQueryClient(ctx context.Context) (*bigqueryapi.Client, error) {
	client, err := bigqueryapi.NewClient(ctx, Project,
		option.WithEndpoint("http://"+s.bigquery.RESTHost()+"/bigquery/v2/"), option.WithoutAuthentication())
	if err != nil {
		return nil, fmt.Errorf("connecting to BigQuery: %w", err)
	}
	return client, nil
}

// DatabaseURL is the application's database.
func (s *Stack) DatabaseURL() string { return s.postgres.URL(s.options.Database) }

// FunctionURL is where a function is served: Extract, Dedup, ReverseETL.
func (s *Stack) FunctionURL(function string) string {
	return "http://127.0.0.1:" + strconv.Itoa(s.options.Port) + "/" + function
}

// Environment is what makes a program use this stack: the variables of DESIGN.md.
func (s *Stack) Environment() []string {
	environment := []string{
		"DATABASE_URL=" + s.DatabaseURL(),
		"GOOGLE_CLOUD_PROJECT=" + Project,
		"BIGQUERY_EMULATOR_HOST=" + s.bigquery.RESTHost(),
		"BIGQUERY_STORAGE_EMULATOR_HOST=" + s.bigquery.StorageHost(),
		"PUBSUB_EMULATOR_HOST=" + s.pubsub.Host(),
		"STORAGE_EMULATOR_HOST=" + s.storage.Host(),
		"TIDEMARK_STAGING_BUCKET=" + StagingBucket,
		"PORT=" + strconv.Itoa(s.options.Port),
	}
	if s.options.Pipelines != "" {
		environment = append(environment, "TIDEMARK_PIPELINES="+s.options.Pipelines)
	}
	return environment
}

// inherited is our environment without what would lead the functions elsewhere.
func inherited() []string {
	var out []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch name {
		case "CLOUD_SQL_INSTANCE", "CONTROL_DATABASE_URL", "DB_NAME", "DB_USER", "FUNCTION_TARGET", "GOOGLE_APPLICATION_CREDENTIALS",
			"BIGQUERY_LOCATION", "STORAGE_EMULATOR_HOST", "TIDEMARK_PIPELINES", "TIDEMARK_STAGING_BUCKET":
		default:
			out = append(out, variable)
		}
	}
	return out
}

// ready polls until the functions' server answers anything.
func (s *Stack) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := s.ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.functions.Exited():
			return fmt.Errorf("starting the functions: they ended at once (%w), having logged:\n%s", errors.Join(errEnded, s.functions.Err()), s.tail)
		case <-ctx.Done():
			return fmt.Errorf("waiting for the functions: %w; they have logged:\n%s", errors.Join(ctx.Err(), err), s.tail)
		case <-ticker.C:
		}
	}
}

var errEnded = errors.New("no longer running")

func (s *Stack) ask(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.FunctionURL(""), nil)
	if err != nil {
		return fmt.Errorf("preparing a request: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	if err := response.Body.Close(); err != nil {
		return fmt.Errorf("closing the answer: %w", err)
	}
	return nil
}

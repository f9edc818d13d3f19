package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

const cleanupTimeout = time.Minute

// process is what the tests of one process share.
type process struct {
	mu        sync.Mutex
	server    *Server
	databases int
	templates map[string]string // name to URL
}

// shared is one per test process: TestMain and the tests have no other common
// ground to hand the server over.
var shared process //nolint:gochecknoglobals // see above

// Main runs a package's tests from its TestMain, then stops the server that
// NewDatabase started, if any, and fails if goroutines were leaked, other than
// those that options allow and one that Google's libraries start when imported. It
// does not return.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	options = append(options, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
	if err := goleak.Find(options...); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// NewDatabase creates an empty database on the test process's server, starting
// that one first if need be, and returns its URL. The database is dropped, and
// whoever is still connected to it disconnected, when the test ends.
func NewDatabase(tb testing.TB) string {
	tb.Helper()
	return newDatabase(tb, "template1")
}

// NewDatabaseFrom is NewDatabase with a copy of another database, given by its
// URL or name: one of Template, or of NewDatabase as long as nobody is connected to it.
func NewDatabaseFrom(tb testing.TB, template string) string {
	tb.Helper()
	if parsed, err := url.Parse(template); err == nil {
		template = strings.TrimPrefix(parsed.Path, "/")
	}
	return newDatabase(tb, template)
}

// Template prepares a database once per test process, under a name, and returns
// its URL for NewDatabaseFrom. prepare gets the URL of an empty database and must
// have closed its connections when it returns. The template lives as long as the server.
func Template(tb testing.TB, name string, prepare func(ctx context.Context, url string) error) string {
	tb.Helper()
	address, err := shared.template(tb.Context(), name, prepare)
	if err != nil {
		tb.Fatalf("preparing the template %s: %v", name, err)
	}
	return address
}

func newDatabase(tb testing.TB, template string) string {
	tb.Helper()
	name, address, err := shared.create(tb.Context(), template)
	if err != nil {
		tb.Fatalf("creating a database: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), cleanupTimeout)
		defer cancel()
		if err := shared.drop(ctx, name); err != nil {
			tb.Errorf("dropping the database: %v", err)
		}
	})
	return address
}

func (p *process) create(ctx context.Context, template string) (name, address string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.createLocked(ctx, template)
}

func (p *process) createLocked(ctx context.Context, template string) (name, address string, err error) {
	if p.server == nil {
		// Not the first test's context: the server serves the others too.
		if p.server, err = Start(context.WithoutCancel(ctx), Options{}); err != nil {
			return "", "", err
		}
	}
	p.databases++
	name = fmt.Sprintf("test_%d", p.databases)
	err = p.execute(ctx, "CREATE DATABASE "+identifier(name)+" TEMPLATE "+identifier(template))
	return name, p.server.URL(name), err
}

func (p *process) template(ctx context.Context, name string, prepare func(context.Context, string) error) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address, ok := p.templates[name]; ok {
		return address, nil
	}
	_, address, err := p.createLocked(ctx, "template1")
	if err != nil {
		return "", err
	}
	if err := prepare(ctx, address); err != nil {
		return "", err
	}
	if p.templates == nil {
		p.templates = make(map[string]string)
	}
	p.templates[name] = address
	return address, nil
}

func (p *process) drop(ctx context.Context, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return nil // stopped, and its data with it
	}
	return p.execute(ctx, "DROP DATABASE IF EXISTS "+identifier(name)+" WITH (FORCE)")
}

func (p *process) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return nil
	}
	err := p.server.Stop()
	p.server, p.templates = nil, nil
	return err
}

// execute runs one statement outside any database of the tests.
func (p *process) execute(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, p.server.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to the test server: %w", err)
	}
	_, err = conn.Exec(ctx, statement)
	if err != nil {
		err = fmt.Errorf("running %s: %w", statement, err)
	}
	return errors.Join(err, conn.Close(ctx))
}

func identifier(name string) string { return pgx.Identifier{name}.Sanitize() }

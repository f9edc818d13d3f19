// The product's way into Cloud SQL, shared/cloudsql, with Google's connector as it
// is, against the instance of this package and a real Postgres behind it.
package cloudsql_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/cloudsqlconn"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/fault"
	fake "github.com/tidemark-data/tidemark/test/cloudsql"
	"github.com/tidemark-data/tidemark/test/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// world is an instance with one database, and an account that is a user of it.
type world struct {
	t        *testing.T
	instance *fake.Instance
	account  *fake.Account
	config   cloudsql.Config // of production, as the account
	super    *cloudsql.Pool  // the superuser, past the proxy
	journal  *journal        // of the connector
}

func newWorld(t *testing.T, o fake.Options) *world {
	t.Helper()
	return newWorldOn(t, o, postgres.NewDatabase(t))
}

func newWorldOn(t *testing.T, o fake.Options, address string) *world {
	t.Helper()
	parsed, err := url.Parse(address)
	must(t, err)
	o.Postgres = parsed.Host
	i, err := fake.Start(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { must(t, i.Close()) })
	w := &world{t: t, instance: i, super: open(t, cloudsql.Config{URL: address}), journal: &journal{}}
	name := strings.TrimPrefix(parsed.Path, "/")
	w.account, w.config = w.user("tidemark-extract", name)
	return w
}

// user makes an account and its role in Postgres. Roles are the whole server's: the
// database's name makes them different.
func (w *world) user(name, database string) (*fake.Account, cloudsql.Config) {
	w.t.Helper()
	user := name + "@" + database + ".iam"
	w.exec("CREATE ROLE " + pgx.Identifier{user}.Sanitize() + " LOGIN")
	account := w.instance.Account(user)
	return account, cloudsql.Config{
		Instance: w.instance.ConnectionName(), User: user, Name: database,
		Connector: append(account.Connector(), cloudsqlconn.WithContextDebugLogger(w.journal)),
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.super.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// requests are the calls to both methods of the Admin API.
func (w *world) requests() [2]int {
	return [2]int{w.instance.Requests(fake.ConnectSettings), w.instance.Requests(fake.GenerateEphemeralCert)}
}

// expectRequests compares them with n of each.
func (w *world) expectRequests(n int) {
	w.t.Helper()
	if got := w.requests(); got != [2]int{n, n} {
		w.t.Errorf("%v requests, want %d of each", got, n)
	}
}

// expectFailure checks the class and the remedy of an error, and that no token is
// in it.
func (w *world) expectFailure(err error, class fault.Class, remedy string) {
	w.t.Helper()
	if err == nil {
		w.t.Fatal("no error")
	}
	gotClass, gotRemedy := fault.Classify(err)
	if gotClass != class || gotRemedy != remedy {
		w.t.Errorf("%v\nis %v with the remedy %q,\nwant %v with %q", err, gotClass, gotRemedy, class, remedy)
	}
	w.expectNoSecret("the error", fmt.Sprintf("%v %+v %#v", err, err, err)+gotRemedy)
}

// expectTransient is expectFailure where when the connection broke decides about
// the error.
func (w *world) expectTransient(err error) {
	w.t.Helper()
	_, remedy := fault.Classify(err)
	w.expectFailure(err, fault.Transient, remedy)
}

func (w *world) expectNoSecret(what, text string) {
	w.t.Helper()
	for _, secret := range w.account.Secrets() {
		if strings.Contains(text, secret) {
			w.t.Errorf("%s has a token in it: %s", what, text)
		}
	}
}

func open(t *testing.T, config cloudsql.Config) *cloudsql.Pool {
	t.Helper()
	pool, closePool, err := cloudsql.Open(t.Context(), config, cloudsql.DataConnections)
	must(t, err)
	t.Cleanup(closePool)
	return pool
}

// connect takes a connection of the pool's until the test ends, so that the next
// one has to be dialled.
func connect(t *testing.T, pool *cloudsql.Pool) (*pgxpool.Conn, error) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		return nil, err
	}
	t.Cleanup(conn.Release)
	return conn, conn.Ping(t.Context())
}

func mustConnect(t *testing.T, pool *cloudsql.Pool) *pgxpool.Conn {
	t.Helper()
	conn, err := connect(t, pool)
	must(t, err)
	return conn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-ticker.C:
		}
	}
}

// journal keeps what the connector logs.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Debugf(_ context.Context, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(&j.text, format+"\n", args...)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// TestIAMLogin: the account is who it says, by its token, and Postgres hears of no
// secret.
func TestIAMLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	conn := mustConnect(t, open(t, w.config))
	var current, session, database, application string
	must(t, conn.QueryRow(t.Context(), "SELECT current_user, session_user, current_database(), current_setting('application_name')").Scan(&current, &session, &database, &application))
	if diff := cmp.Diff([]string{w.config.User, w.config.User, w.config.Name, "tidemark"}, []string{current, session, database, application}); diff != "" {
		t.Errorf("who and where (-want +got):\n%s", diff)
	}
	if w.account.Logins() != 1 {
		t.Errorf("%d login tokens were asked for", w.account.Logins())
	}
	w.expectRequests(1)
	sent := string(w.instance.Sent())
	if !strings.Contains(sent, w.config.User) || !strings.Contains(sent, "SELECT current_user") {
		t.Errorf("what was sent is not what the client sends: %q", sent)
	}
	w.expectNoSecret("the Postgres wire", sent)
	if w.journal.String() == "" {
		t.Error("the connector logged nothing")
	}
	w.expectNoSecret("the connector's log", w.journal.String())
}

// TestOpenIsLazy: a cold start calls nobody, and the certificate of the first
// connection serves all of them.
func TestOpenIsLazy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	pool := open(t, w.config)
	w.expectRequests(0)
	if n := w.account.Logins() + len(w.account.Secrets()) + len(w.instance.Dialled()); n != 0 {
		t.Errorf("opening asked for tokens or dialled, %d times", n)
	}
	for range cloudsql.DataConnections {
		mustConnect(t, pool)
		w.expectRequests(1)
	}
	if n := len(w.instance.Dialled()); n != cloudsql.DataConnections {
		t.Errorf("%d dials for %d connections", n, cloudsql.DataConnections)
	}
	pool.Reset()
	w.expectRequests(1)
	if w.account.Logins() != 1 {
		t.Errorf("%d login tokens were asked for", w.account.Logins())
	}
}

// TestCloseEndsTheSessions and the pool.
func TestCloseEndsTheSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	pool, closePool, err := cloudsql.Open(t.Context(), w.config, cloudsql.ControlConnections)
	must(t, err)
	must(t, pool.Ping(t.Context()))
	closePool()
	eventually(t, "the sessions end", func() bool { return w.instance.Sessions() == 0 })
	if err := pool.Ping(t.Context()); err == nil {
		t.Error("the pool is open after it was closed")
	}
}

// TestExpiringCertificate: within four minutes of its end a certificate is renewed
// by the next connection, by nobody else and not before; sessions go on.
func TestExpiringCertificate(t *testing.T) {
	t.Parallel()
	const short = 3 * time.Minute
	tests := map[string]func(*world, time.Duration){
		"of the certificate": func(w *world, life time.Duration) { w.instance.SetCertificateLife(life) },
		"of the login token": func(w *world, life time.Duration) { w.account.SetTokenLife(life) },
	}
	for name, setLife := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fake.Options{})
			setLife(w, short)
			pool := open(t, w.config)
			first := mustConnect(t, pool)
			for n := 1; n <= 3; n++ { // a connector that renews in the background does it twice, then not for 30 s
				w.expectRequests(n)
				mustConnect(t, pool)
			}
			setLife(w, time.Hour)
			mustConnect(t, pool)
			w.expectRequests(5)
			mustConnect(t, pool)
			w.expectRequests(5)
			must(t, first.Ping(t.Context()))
		})
	}
}

// TestRefusedCertificate: one that the instance takes no more, though it is good by
// our clock, costs one attempt.
func TestRefusedCertificate(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*fake.Instance) error{
		"expired":          func(i *fake.Instance) error { i.Advance(2 * time.Hour); return nil },
		"of a CA replaced": (*fake.Instance).RotateClientCA,
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fake.Options{})
			pool := open(t, w.config)
			first := mustConnect(t, pool)
			must(t, change(w.instance))
			_, err := connect(t, pool)
			w.expectFailure(err, fault.Transient, "the server did not answer: check that it is up and that the function can reach its network")
			mustConnect(t, pool)
			w.expectRequests(2)
			must(t, first.Ping(t.Context()))
		})
	}
}

// TestRotatedServerCA: where the change was not announced, one attempt fails, and
// redelivery finds the next one working.
func TestRotatedServerCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	pool := open(t, w.config)
	first := mustConnect(t, pool)
	must(t, errors.Join(w.instance.StageServerCA(), w.instance.RotateServerCA()))
	w.instance.DropServerCAs()
	_, err := connect(t, pool)
	w.expectFailure(err, fault.Transient, "")
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("%v is not about the server's certificate", err)
	}
	w.expectRequests(1)
	mustConnect(t, pool)
	w.expectRequests(2)
	must(t, first.Ping(t.Context()))
}

// TestStagedServerCA: where it was announced, nothing fails and nothing is asked.
func TestStagedServerCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	must(t, w.instance.StageServerCA())
	pool := open(t, w.config)
	first := mustConnect(t, pool)
	must(t, w.instance.RotateServerCA())
	mustConnect(t, pool)
	w.instance.DropServerCAs()
	mustConnect(t, pool)
	w.expectRequests(1)
	must(t, first.Ping(t.Context()))
}

// TestImpostor: who answers at the address without the instance's certificate gets
// not a byte of the session.
func TestImpostor(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t, fake.Options{}), newWorld(t, fake.Options{})
	w.config.Connector = append(w.config.Connector, cloudsqlconn.WithDialFunc(other.instance.Dial))
	_, err := connect(t, open(t, w.config))
	w.expectFailure(err, fault.Transient, "")
	if sent := other.instance.Sent(); len(sent) > 0 {
		t.Errorf("the impostor got %q", sent)
	}
}

const (
	grantRemedy    = "grant the function's service account roles/cloudsql.client and roles/cloudsql.instanceUser, and enable the Cloud SQL Admin API"
	addressRemedy  = "set CLOUD_SQL_INSTANCE to the instance's project:region:instance, and CLOUD_SQL_IP_TYPE to an address that it has"
	loginRemedy    = "Postgres refused the login: check the user and password of DATABASE_URL, or that DB_USER is an IAM user of the instance with roles/cloudsql.instanceUser"
	quotaRemedy    = "wait for the quota, or raise it"
	networkRemedy  = "the server did not answer: check that it is up and that the function can reach its network"
	databaseRemedy = "create the database, or correct DB_NAME or DATABASE_URL"
)

// TestRefused: each refusal is known by its code, names the instance and what to
// do, and is asked for once.
func TestRefused(t *testing.T) {
	t.Parallel()
	both := func(e fake.APIError) func(*world) {
		return func(w *world) {
			w.instance.Fail(fake.ConnectSettings, e)
			w.instance.Fail(fake.GenerateEphemeralCert, e)
		}
	}
	tests := map[string]struct {
		arrange func(*world)
		class   fault.Class
		remedy  string
	}{
		"may not connect":          {func(w *world) { w.account.Revoke(fake.Connect) }, fault.Permanent, grantRemedy},
		"another project":          {func(w *world) { w.config.Instance = "elsewhere:europe-west1:main" }, fault.Permanent, grantRemedy},
		"API not enabled":          {both(fake.APIError{Status: http.StatusForbidden, Reason: "accessNotConfigured"}), fault.Permanent, grantRemedy},
		"no such instance":         {func(w *world) { w.config.Instance = "test-project:europe-west1:absent" }, fault.Permanent, addressRemedy},
		"another region":           {func(w *world) { w.config.Instance = "test-project:us-east1:main" }, fault.Permanent, addressRemedy},
		"no connection name":       {func(w *world) { w.config.Instance = "main" }, fault.Permanent, addressRemedy},
		"no private address":       {func(w *world) { w.config.IPType = "PRIVATE" }, fault.Permanent, addressRemedy},
		"no PSC":                   {func(w *world) { w.config.IPType = "PSC" }, fault.Permanent, addressRemedy},
		"may not log in":           {func(w *world) { w.account.Revoke(fake.Login) }, fault.Permanent, loginRemedy},
		"another's user":           {func(w *world) { w.config.User = "postgres" }, fault.Permanent, loginRemedy},
		"not a user of the server": {func(w *world) { w.exec("DROP ROLE " + pgx.Identifier{w.config.User}.Sanitize()) }, fault.Permanent, loginRemedy},
		"no such database":         {func(w *world) { w.config.Name = "absent" }, fault.Permanent, databaseRemedy},
		"credentials refused":      {both(fake.APIError{Status: http.StatusUnauthorized, Reason: "authError"}), fault.Permanent, "the credentials were refused: check the function's service account"},
		"quota":                    {both(fake.APIError{Status: http.StatusTooManyRequests, Reason: "rateLimitExceeded"}), fault.Transient, quotaRemedy},
		"quota as it was before":   {both(fake.APIError{Status: http.StatusForbidden, Reason: "rateLimitExceeded"}), fault.Transient, quotaRemedy},
		"stopped":                  {both(fake.APIError{Status: http.StatusBadRequest, Reason: "invalid", Message: "Invalid request since instance is not running."}), fault.Transient, "start the Cloud SQL instance, if it is stopped"},
		"in another operation":     {both(fake.APIError{Status: http.StatusConflict, Reason: "operationInProgress"}), fault.Transient, ""},
		"network out of reach":     {func(w *world) { w.instance.Unreachable("203.0.113.10") }, fault.Transient, networkRemedy},
		"nobody listens":           {func(w *world) { w.instance.Halt() }, fault.Transient, "nothing listens at that address: check host and port, and that the server is up"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fake.Options{})
			test.arrange(w)
			err := open(t, w.config).Ping(t.Context())
			w.expectFailure(err, test.class, test.remedy)
			if !strings.Contains(err.Error(), w.config.Instance) {
				t.Errorf("%v does not name the instance", err)
			}
			w.expectNoSecret("the connector's log", w.journal.String())
			if n := w.instance.Requests(fake.ConnectSettings); n > 1 || len(w.instance.Dialled()) > 1 {
				t.Errorf("%d requests and dials of %v", n, w.instance.Dialled())
			}
			eventually(t, "the sessions end", func() bool { return w.instance.Sessions() == 0 })
		})
	}
}

// TestAdminAPIRecovers: the connector tries again by itself, and where it gives up
// the next attempt starts anew.
func TestAdminAPIRecovers(t *testing.T) {
	t.Parallel()
	unavailable := fake.APIError{Status: http.StatusServiceUnavailable, Reason: "backendError"}
	t.Run("at once", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fake.Options{})
		w.instance.Fail(fake.ConnectSettings, unavailable)
		w.instance.Fail(fake.GenerateEphemeralCert, unavailable)
		must(t, open(t, w.config).Ping(t.Context()))
		w.expectRequests(2)
	})
	t.Run("too late", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fake.Options{})
		w.instance.Fail(fake.ConnectSettings, slices.Repeat([]fake.APIError{unavailable}, 2)...)
		pool := open(t, w.config)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		failed := make(chan error, 1)
		go func() { failed <- pool.Ping(ctx) }()
		eventually(t, "the API was called", func() bool { return w.requests() == [2]int{1, 1} })
		cancel()
		w.expectFailure(<-failed, fault.Transient, "")
		must(t, pool.Ping(t.Context()))
	})
}

// TestIPTypes: each name is the address that Google means by it.
func TestIPTypes(t *testing.T) {
	t.Parallel()
	o := fake.Options{Public: "203.0.113.7", Private: "10.20.30.40", DNSName: "a1b2c3.d4e5f6.europe-west1.sql-psc.goog"}
	tests := map[string]string{"": o.Public, "PUBLIC": o.Public, "PRIVATE": o.Private, "PSC": o.DNSName}
	for _, name := range append(cloudsql.IPTypes(), "") {
		t.Run("type "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			for _, host := range []string{o.Public, o.Private, o.DNSName} {
				if host != tests[name] {
					w.instance.Unreachable(host)
				}
			}
			w.config.IPType = name
			must(t, open(t, w.config).Ping(t.Context()))
			if diff := cmp.Diff([]string{net.JoinHostPort(tests[name], "3307")}, w.instance.Dialled()); diff != "" {
				t.Errorf("dialled (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCut: a connection cut in the middle of a transaction is an error that
// redelivery mends, and the pool goes on with new ones.
func TestCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	w.exec("CREATE TABLE notes (id int)")
	w.exec("GRANT ALL ON notes TO PUBLIC")
	pool := open(t, w.config)
	tx, err := pool.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), "INSERT INTO notes VALUES (1)")
	must(t, err)
	w.instance.Halt()
	w.expectTransient(tx.Commit(t.Context()))
	w.expectFailure(pool.Ping(t.Context()), fault.Transient, "nothing listens at that address: check host and port, and that the server is up")
	w.instance.Resume()
	var n int
	must(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM notes").Scan(&n))
	if n != 0 {
		t.Errorf("%d rows of a transaction that was cut", n)
	}
}

// TestTerminated: a session ended by the server, as by a restart for maintenance.
func TestTerminated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	pool := open(t, w.config)
	conn := mustConnect(t, pool)
	w.exec("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE usename = $1", w.config.User)
	_, err := conn.Exec(t.Context(), "SELECT 1")
	w.expectFailure(err, fault.Transient, "")
	if fault.SQLState(err) != "57P01" {
		t.Errorf("%v is not admin_shutdown", err)
	}
	mustConnect(t, pool)
	w.expectRequests(1)
}

// TestRestart: Postgres crashes below a pool with idle connections and comes back.
func TestRestart(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(t.Context(), postgres.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, server.Stop()) })
	w := newWorldOn(t, fake.Options{}, server.URL("postgres"))
	pool := open(t, w.config)
	for _, conn := range []*pgxpool.Conn{mustConnect(t, pool), mustConnect(t, pool)} {
		conn.Release()
	}
	must(t, server.Kill())
	for range 3 { // two connections that are dead, and one that cannot be made
		w.expectTransient(pool.Ping(t.Context()))
	}
	must(t, server.Restart(t.Context()))
	must(t, pool.Ping(t.Context()))
}

// TestCancelledStatement: giving up on a statement ends it on the server, too.
func TestCancelledStatement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	conn := mustConnect(t, open(t, w.config))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "SELECT pg_sleep(600)")
		done <- err
	}()
	active := func() bool {
		var n int
		must(t, w.super.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active'", w.config.User).Scan(&n))
		return n > 0
	}
	eventually(t, "the statement runs", active)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the statement ended with %v", err)
	}
	eventually(t, "the statement ends", func() bool { return !active() })
}

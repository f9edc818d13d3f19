package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/test/child"
)

// User is the superuser of every server of this package.
const User = "postgres"

const (
	loopback      = "127.0.0.1"
	startTimeout  = 2 * time.Minute
	stopGrace     = time.Minute
	pollInterval  = 20 * time.Millisecond
	portAttempts  = 5
	maxSocketPath = 100 // sockaddr_un holds 104 bytes on macOS, 108 on Linux
	logTail       = 4096
)

// Options say how a server is started. The zero value is a good one.
type Options struct {
	// Dir is the folder the server lives in; it is created if absent and kept
	// by Stop. Empty: a temporary folder that goes with the server.
	Dir string
	// Port is the TCP port on the loopback interface; 0: a free one.
	Port int
	// Password, if set, is required of the superuser (scram-sha-256). Empty:
	// everyone on this machine is trusted.
	Password string
	// Settings are added to postgresql.conf and override the package's own:
	// max_connections=200, fsync=off, full_page_writes=off, timezone=UTC.
	Settings map[string]string
	// StandbyOf, if set, makes the server a hot standby of that one, which has to
	// run: read-only, following by streaming replication. It takes over the primary's
	// settings and password. See Server.CatchUp.
	StandbyOf *Server
}

// Server is a running Postgres server. Its methods are safe for concurrent use.
type Server struct {
	options   Options
	bin       string
	dir       string
	temporary bool
	account   *account

	mu      sync.Mutex // guards what follows
	port    int
	process *child.Process
}

// Start creates a cluster and starts a server on it. ctx bounds the starting
// only. The error is ErrNotInstalled, wrapped, where there is no Postgres.
func Start(ctx context.Context, options Options) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	bin, err := binaries(ctx)
	if err != nil {
		return nil, err
	}
	options = options.inherit()
	s := &Server{options: options, bin: bin, dir: options.Dir, temporary: options.Dir == ""}
	if s.account, err = serverAccount(); err != nil {
		return nil, err
	}
	if err := s.create(ctx); err != nil {
		return nil, errors.Join(err, s.discard())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.discard())
	}
	return s, nil
}

// URL is the connection string of a database of this server, for the superuser.
func (s *Server) URL(database string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url(database)
}

// Port is the server's TCP port; a Restart keeps it.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

// Stop ends the server in order, as `pg_ctl stop -m fast` does: open
// transactions are rolled back, data is flushed. A temporary folder is removed.
// Stopping a stopped server does nothing.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.halt(syscall.SIGINT), s.discard())
}

// Kill ends the server as a crash would, as `pg_ctl stop -m immediate` does:
// nothing is flushed, and the next start recovers from the write-ahead log.
// The folder stays, for Restart.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.halt(syscall.SIGQUIT)
}

// Restart starts the server again on the same folder and port, after stopping
// it in order if it runs.
func (s *Server) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.halt(syscall.SIGINT); err != nil {
		return err
	}
	return s.launch(ctx)
}

// create makes the folder and the cluster in it.
func (s *Server) create(ctx context.Context) error {
	if s.temporary {
		dir, err := os.MkdirTemp("", "tidemark-postgres-")
		if err != nil {
			return fmt.Errorf("creating the server's folder: %w", err)
		}
		s.dir = dir
	}
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return fmt.Errorf("finding the server's folder: %w", err)
	}
	s.dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating the server's folder: %w", err)
	}
	if err := errors.Join(s.account.own(dir), s.account.reach(dir)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.data(), "PG_VERSION")); err == nil {
		return nil // a folder kept from an earlier server
	}
	if s.options.StandbyOf != nil {
		return s.clone(ctx)
	}
	return s.initialize(ctx)
}

func (s *Server) initialize(ctx context.Context) error {
	args := []string{"-D", s.data(), "-U", User, "-E", "UTF8", "--no-locale", "--no-sync"}
	if s.options.Password == "" {
		args = append(args, "--auth=trust")
	} else {
		file := filepath.Join(s.dir, "password")
		if err := os.WriteFile(file, []byte(s.options.Password+"\n"), 0o600); err != nil {
			return fmt.Errorf("writing the password file: %w", err)
		}
		defer func() { _ = os.Remove(file) }()
		if err := s.account.own(file); err != nil {
			return err
		}
		args = append(args, "--auth=scram-sha-256", "--pwfile="+file)
	}
	if err := run(s.command(exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), args...))); err != nil {
		return fmt.Errorf("creating the cluster: %w", err)
	}
	return nil
}

// start launches the server, on another port if the one chosen was taken
// between choosing and binding it.
func (s *Server) start(ctx context.Context) error {
	var err error
	for range portAttempts {
		s.port = s.options.Port
		if s.port == 0 {
			if s.port, err = FreePort(ctx); err != nil {
				return err
			}
		}
		if err = s.launch(ctx); err == nil || s.options.Port != 0 || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// launch starts the server process and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	if err := s.configure(); err != nil {
		return err
	}
	logFile, err := os.Create(s.log())
	if err != nil {
		return fmt.Errorf("creating the server's log: %w", err)
	}
	defer func() { _ = logFile.Close() }() // the child holds its own copy
	// No context: the server outlives the call, and Stop ends it.
	cmd := s.command(exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(s.bin, "postgres"), "-D", s.data()))
	cmd.Stdout, cmd.Stderr = logFile, logFile
	var remove []string
	if s.temporary {
		remove = []string{s.dir}
	}
	s.process, err = child.Start(cmd, syscall.SIGQUIT, remove...)
	if err != nil {
		return fmt.Errorf("starting Postgres: %w", err)
	}
	if err := s.ready(ctx); err != nil {
		return errors.Join(fmt.Errorf("waiting for Postgres: %w; its log ends:\n%s", err, s.tail()), s.halt(syscall.SIGQUIT))
	}
	return nil
}

// configure writes the settings into a file that postgresql.conf includes.
func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses":        loopback,
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": s.socketFolder(),
		"max_connections":         "200",
		"fsync":                   "off",
		"full_page_writes":        "off",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	maps.Copy(settings, s.options.Settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	if err := os.WriteFile(s.settings(), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("writing the server's settings: %w", err)
	}
	if err := s.account.own(s.settings()); err != nil {
		return err
	}
	return s.include()
}

// include makes postgresql.conf read the settings file, once.
func (s *Server) include() error {
	const line = "include = 'tidemark.conf'\n"
	path := filepath.Join(s.data(), "postgresql.conf")
	conf, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the server's configuration: %w", err)
	}
	if strings.HasSuffix(string(conf), line) {
		return nil
	}
	if err := os.WriteFile(path, append(conf, line...), 0o600); err != nil {
		return fmt.Errorf("writing the server's configuration: %w", err)
	}
	return nil
}

// socketFolder is the server's own folder, or none where its path is too long
// for a socket.
func (s *Server) socketFolder() string {
	if len(s.dir)+len("/.s.PGSQL.65535.lock") > maxSocketPath {
		return ""
	}
	return s.dir
}

// ready polls until the server answers as ours: a stranger may hold the port.
func (s *Server) ready(ctx context.Context) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.process.Exited():
			return fmt.Errorf("it ended at once (%w)", errors.Join(s.process.Err(), err))
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

func (s *Server) ping(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var data string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
		return fmt.Errorf("asking for the data directory: %w", err)
	}
	if resolvedPath(data) != resolvedPath(s.data()) {
		return fmt.Errorf("port %d belongs to another server", s.port)
	}
	return nil
}

// halt ends the process, if there is one.
func (s *Server) halt(sig syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	err := s.process.Stop(sig, stopGrace)
	s.process = nil
	if err != nil {
		return fmt.Errorf("stopping Postgres: %w", err)
	}
	return nil
}

// discard removes a temporary folder.
func (s *Server) discard() error {
	if !s.temporary || s.dir == "" {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("removing the server's folder: %w", err)
	}
	return nil
}

// command makes a program of the server run as its account, from its folder.
func (s *Server) command(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = s.account.attributes()
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+s.dir)
	return cmd
}

func (s *Server) url(database string) string {
	account := url.User(User)
	if s.options.Password != "" {
		account = url.UserPassword(User, s.options.Password)
	}
	address := url.URL{
		Scheme: "postgres", User: account, Path: "/" + database, RawQuery: "sslmode=disable",
		Host: net.JoinHostPort(loopback, strconv.Itoa(s.port)),
	}
	return address.String()
}

func (s *Server) data() string     { return filepath.Join(s.dir, "data") }
func (s *Server) log() string      { return filepath.Join(s.dir, "postgres.log") }
func (s *Server) settings() string { return filepath.Join(s.data(), "tidemark.conf") }

// tail is the end of the server's log, for error messages.
func (s *Server) tail() string {
	file, err := os.Open(s.log())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err == nil && info.Size() > logTail {
		if _, err := file.Seek(-logTail, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

func resolvedPath(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// FreePort asks the kernel for a port of the loopback interface that nobody uses
// now. Another process may take it before it is used.
func FreePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	defer func() { _ = listener.Close() }()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("looking for a free port: unexpected address %v", listener.Addr())
	}
	return address.Port, nil
}

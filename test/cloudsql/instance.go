package cloudsql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	proxyPort  = "3307" // of every instance's server-side proxy
	apiTimeout = 10 * time.Second
)

// Options describe an instance. Postgres is required; an instance without any
// address gets a public one.
type Options struct {
	Project, Region, Name string // of the connection name; default test-project, europe-west1, main

	Postgres string // host:port of the real server, which trusts who the proxy lets pass
	Public   string // the primary IP address, fictitious
	Private  string // the address within the network, fictitious
	DNSName  string // of Private Service Connect, fictitious
}

// Endpoint is a method of the Admin API.
type Endpoint string

// The methods that the connector calls for an instance.
const (
	ConnectSettings       Endpoint = "connectSettings"
	GenerateEphemeralCert Endpoint = "generateEphemeralCert"
)

// APIError is an answer of the Admin API that is an error.
type APIError struct {
	Status  int
	Reason  string // of the one entry of "errors"
	Message string
}

// Instance is a running fake. Its methods are safe for concurrent use.
type Instance struct {
	options Options
	server  *http.Server
	api     net.Listener
	front   net.Listener
	tasks   sync.WaitGroup

	mu          sync.Mutex // guards what follows
	serverCAs   []*authority
	active      *authority // signed certificate
	certificate *tls.Certificate
	clientCA    *authority
	clock       time.Duration // ahead of ours
	lifetime    time.Duration
	accounts    map[string]*Account
	tokens      map[string]token
	failures    map[Endpoint][]APIError
	requests    map[Endpoint]int
	unreachable map[string]bool
	halted      bool
	dialled     []string
	sessions    map[net.Conn]bool
	sent        []byte
}

// Start serves an instance on the loopback interface until Close. ctx bounds the
// starting only.
func Start(ctx context.Context, o Options) (*Instance, error) {
	for _, field := range []struct {
		value    *string
		fallback string
	}{{&o.Project, "test-project"}, {&o.Region, "europe-west1"}, {&o.Name, "main"}} {
		if *field.value == "" {
			*field.value = field.fallback
		}
	}
	if o.Public+o.Private+o.DNSName == "" {
		o.Public = "203.0.113.10" // RFC 5737: nobody's
	}
	i := &Instance{
		options: o, lifetime: time.Hour,
		accounts: map[string]*Account{}, tokens: map[string]token{},
		failures: map[Endpoint][]APIError{}, requests: map[Endpoint]int{},
		unreachable: map[string]bool{}, sessions: map[net.Conn]bool{},
	}
	if err := errors.Join(i.StageServerCA(), i.RotateServerCA(), i.RotateClientCA()); err != nil {
		return nil, err
	}
	var config net.ListenConfig
	var err error
	if i.api, err = config.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("listening for the Admin API: %w", err)
	}
	if i.front, err = config.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(fmt.Errorf("listening for the proxy: %w", err), i.api.Close())
	}
	i.server = &http.Server{Handler: i.handler(), ReadTimeout: apiTimeout, WriteTimeout: apiTimeout}
	i.tasks.Go(func() { _ = i.server.Serve(i.api) }) // Close ends it
	i.tasks.Go(func() { i.accept(context.WithoutCancel(ctx)) })
	return i, nil
}

// Close ends every session and stops serving.
func (i *Instance) Close() error {
	i.Halt()
	err := errors.Join(i.server.Close(), i.front.Close())
	i.tasks.Wait()
	if err != nil {
		return fmt.Errorf("closing the Cloud SQL instance: %w", err)
	}
	return nil
}

// ConnectionName is project:region:instance.
func (i *Instance) ConnectionName() string {
	return i.options.Project + ":" + i.options.Region + ":" + i.options.Name
}

// AdminAPI is the address of the Admin API, to be used in place of
// https://sqladmin.googleapis.com/.
func (i *Instance) AdminAPI() string { return "http://" + i.api.Addr().String() + "/" }

// now is the instance's clock.
func (i *Instance) now() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return time.Now().Add(i.clock)
}

// Advance sets the instance's clock ahead by d: certificates expire for it, while
// they are still good by the clients' clock.
func (i *Instance) Advance(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clock += d
}

// SetCertificateLife says how long client certificates are good for from now on,
// at first an hour.
func (i *Instance) SetCertificateLife(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lifetime = d
}

// Fail answers the next requests to an endpoint with these, one each, before
// anything about the request is looked at.
func (i *Instance) Fail(endpoint Endpoint, failures ...APIError) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failures[endpoint] = append(i.failures[endpoint], failures...)
}

// Requests is how often an endpoint was called, failed requests included.
func (i *Instance) Requests(endpoint Endpoint) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests[endpoint]
}

// Dialled are the addresses, host:port, that clients dialled so far, in order.
func (i *Instance) Dialled() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.dialled)
}

// Sessions is how many clients are connected to the proxy.
func (i *Instance) Sessions() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.sessions)
}

// Sent is what clients sent to the proxy within TLS, all sessions one after
// another as it came: the first mebibyte of it.
func (i *Instance) Sent() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.sent)
}

// Unreachable has dials of one of the instance's addresses fail, as from outside
// its network.
func (i *Instance) Unreachable(host string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.unreachable[host] = true
}

// Halt cuts every session without a word and refuses new ones until Resume.
func (i *Instance) Halt() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.halted = true
	for conn := range i.sessions {
		_ = conn.Close()
	}
}

// Resume lets clients connect again.
func (i *Instance) Resume() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.halted = false
}

// Dial is the network between the connector and the instance: it connects to the
// proxy by any of the instance's fictitious addresses and fails for every other.
func (i *Instance) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := i.route(network, address); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, i.front.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("dialling the proxy: %w", err)
	}
	return conn, nil
}

func (i *Instance) route(network, address string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.dialled = append(i.dialled, address)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("dialling: %w", err)
	}
	known := host != "" && slices.Contains([]string{i.options.Public, i.options.Private, i.options.DNSName}, host)
	switch {
	case !known && net.ParseIP(host) == nil:
		return &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	case !known || i.unreachable[host]:
		return &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	case port != proxyPort || i.halted:
		return &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	return nil
}

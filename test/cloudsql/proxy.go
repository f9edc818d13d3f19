package cloudsql

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	handshakeTimeout = 10 * time.Second
	maxStartup       = 10000 // bytes, as Postgres' own limit
	maxSent          = 1 << 20
	cancelRequest    = 80877102 // the code of a CancelRequest, in place of a version
	password         = 'p'      // the type of every message that answers a request to authenticate
)

// accept serves sessions until the listener closes.
func (i *Instance) accept(ctx context.Context) {
	for {
		conn, err := i.front.Accept()
		if err != nil {
			return
		}
		if !i.open(conn) {
			_ = conn.Close()
			continue
		}
		i.tasks.Go(func() {
			defer i.end(conn)
			_ = i.serve(ctx, conn) // the client was told what it is to know
		})
	}
}

func (i *Instance) open(conn net.Conn) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.halted {
		return false
	}
	i.sessions[conn] = true
	return true
}

func (i *Instance) end(conn net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.sessions, conn)
	_ = conn.Close()
}

// serve ends the TLS of a client, checks that it logs in as itself, and joins it
// with Postgres.
func (i *Instance) serve(ctx context.Context, conn net.Conn) error {
	session := tls.Server(conn, i.tls())
	if err := i.handshake(ctx, conn, session); err != nil {
		return err
	}
	client := bufio.NewReader(recorder{i, session})
	startup, err := readStartup(client)
	if err != nil {
		return err
	}
	if refusal := i.admit(session, startup); refusal != nil {
		return refuseLogin(session, refusal)
	}
	var dialer net.Dialer
	backend, err := dialer.DialContext(ctx, "tcp", i.options.Postgres)
	if err != nil {
		return fmt.Errorf("dialling Postgres: %w", err) // Google's proxy hangs up, too
	}
	if _, err := backend.Write(startup); err != nil {
		return errors.Join(err, backend.Close())
	}
	return join(session, client, backend)
}

// handshake reads on after a refusal until the client hangs up: closing earlier
// would reset the connection, and the client would never see the alert that says why.
func (i *Instance) handshake(ctx context.Context, conn net.Conn, session *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	err := session.HandshakeContext(ctx)
	if err == nil {
		return nil
	}
	return errors.Join(err, conn.SetReadDeadline(time.Now().Add(handshakeTimeout)), drain(conn))
}

func drain(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("waiting for the client to hang up: %w", err)
	}
	return nil
}

// readStartup returns the first message of a session, length included.
func readStartup(r io.Reader) ([]byte, error) {
	message := make([]byte, 4, 256)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, fmt.Errorf("reading the startup message: %w", err)
	}
	length := binary.BigEndian.Uint32(message)
	if length < 8 || length > maxStartup {
		return nil, fmt.Errorf("reading the startup message: %d bytes", length)
	}
	message = append(message, make([]byte, length-4)...)
	if _, err := io.ReadFull(r, message[4:]); err != nil {
		return nil, fmt.Errorf("reading the startup message: %w", err)
	}
	return message, nil
}

// admit says why a session may not begin. The request to cancel a statement has no
// user: the key it carries is its right.
func (i *Instance) admit(session *tls.Conn, message []byte) *pgproto3.ErrorResponse {
	if binary.BigEndian.Uint32(message[4:]) == cancelRequest {
		return nil
	}
	var startup pgproto3.StartupMessage
	if err := startup.Decode(message[4:]); err != nil {
		return &pgproto3.ErrorResponse{Severity: "FATAL", Code: "0A000", Message: "the proxy takes a startup message only: " + err.Error()}
	}
	user := session.ConnectionState().PeerCertificates[0].Subject.CommonName
	switch {
	case startup.Parameters["user"] != user:
		return &pgproto3.ErrorResponse{Severity: "FATAL", Code: "28000", Message: fmt.Sprintf("the login token is that of %q, not of user %q", user, startup.Parameters["user"])}
	case !i.Account(user).may(Login):
		return &pgproto3.ErrorResponse{Severity: "FATAL", Code: "28000", Message: fmt.Sprintf("Cloud SQL IAM service account authentication failed for user %q", user)}
	}
	return nil
}

func refuseLogin(session *tls.Conn, refusal *pgproto3.ErrorResponse) error {
	message, err := refusal.Encode(nil)
	if err != nil {
		return fmt.Errorf("writing the refusal: %w", err)
	}
	if _, err := session.Write(message); err != nil {
		return fmt.Errorf("writing the refusal: %w", err)
	}
	return errors.Join(session.CloseWrite(), session.SetReadDeadline(time.Now().Add(handshakeTimeout)), drain(session))
}

// join copies both ways until either side ends.
func join(session *tls.Conn, client *bufio.Reader, backend net.Conn) error {
	var both sync.WaitGroup
	var up, down error
	both.Go(func() {
		up = forward(backend, client)
		_ = backend.Close()
	})
	both.Go(func() {
		_, down = io.Copy(session, backend)
		_ = session.Close()
		_ = backend.Close()
	})
	both.Wait()
	return errors.Join(up, down)
}

// forward copies the client's messages. With an IAM login none of them is a
// password: who sends one is cut off.
func forward(backend io.Writer, client *bufio.Reader) error {
	out := bufio.NewWriter(backend)
	for {
		header, err := client.Peek(5)
		if err != nil {
			return fmt.Errorf("reading a message: %w", err)
		}
		if header[0] == password {
			return errors.New("reading a message: the client sent a password")
		}
		length := int64(binary.BigEndian.Uint32(header[1:])) + 1
		if _, err := io.CopyN(out, client, length); err != nil {
			return fmt.Errorf("forwarding a message: %w", err)
		}
		if client.Buffered() > 0 {
			continue
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("forwarding a message: %w", err)
		}
	}
}

// recorder keeps what is read from a client.
type recorder struct {
	instance *Instance
	client   io.Reader
}

// Read implements io.Reader.
func (r recorder) Read(p []byte) (int, error) {
	n, err := r.client.Read(p)
	r.instance.mu.Lock()
	defer r.instance.mu.Unlock()
	r.instance.sent = append(r.instance.sent, p[:min(n, maxSent-len(r.instance.sent))]...)
	return n, err //nolint:wrapcheck // a reader around a reader: io.EOF must stay
}

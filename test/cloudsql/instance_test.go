package cloudsql_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	sqladmin "google.golang.org/api/sqladmin/v1beta4"

	fake "github.com/tidemark-data/tidemark/test/cloudsql"
)

// admin is Google's client of the Admin API, with the tokens of a source.
func (w *world) admin(tokens oauth2.TokenSource) *sqladmin.Service {
	w.t.Helper()
	service, err := sqladmin.NewService(w.t.Context(), option.WithEndpoint(w.instance.AdminAPI()), option.WithTokenSource(tokens))
	must(w.t, err)
	return service
}

func pemKey(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: der}))
}

func newToken(t *testing.T, tokens oauth2.TokenSource) string {
	t.Helper()
	token, err := tokens.Token()
	must(t, err)
	return token.AccessToken
}

// newKey makes a key as the connector does.
func newKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return key
}

// certificate gets the client certificate of the world's account.
func (w *world) certificate() tls.Certificate {
	w.t.Helper()
	key := newKey(w.t)
	response, err := w.admin(w.account.AdminTokens()).Connect.GenerateEphemeralCert("test-project", "main",
		&sqladmin.GenerateEphemeralCertRequest{PublicKey: pemKey(w.t, &key.PublicKey), AccessToken: newToken(w.t, w.account.LoginTokens())}).Context(w.t.Context()).Do()
	must(w.t, err)
	block, _ := pem.Decode([]byte(response.EphemeralCert.Cert))
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// TestCertificatesAreForLogins: what the request has to have.
func TestCertificatesAreForLogins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	rsaKey := pemKey(t, &newKey(t).PublicKey)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	login := newToken(t, w.account.LoginTokens())
	w.account.SetTokenLife(-time.Second)
	expired := newToken(t, w.account.LoginTokens())
	w.account.SetTokenLife(time.Hour)
	tests := map[string]struct {
		request sqladmin.GenerateEphemeralCertRequest
		want    int
	}{
		"a login token":              {sqladmin.GenerateEphemeralCertRequest{PublicKey: rsaKey, AccessToken: login}, 0},
		"no token":                   {sqladmin.GenerateEphemeralCertRequest{PublicKey: rsaKey}, http.StatusBadRequest},
		"a token of the wrong scope": {sqladmin.GenerateEphemeralCertRequest{PublicKey: rsaKey, AccessToken: newToken(t, w.account.AdminTokens())}, http.StatusForbidden},
		"another account's token":    {sqladmin.GenerateEphemeralCertRequest{PublicKey: rsaKey, AccessToken: newToken(t, w.instance.Account("other@p.iam").LoginTokens())}, http.StatusForbidden},
		"an expired token":           {sqladmin.GenerateEphemeralCertRequest{PublicKey: rsaKey, AccessToken: expired}, http.StatusForbidden},
		"a token that nobody issued": {sqladmin.GenerateEphemeralCertRequest{PublicKey: rsaKey, AccessToken: "ya29.x"}, http.StatusForbidden},
		"no key":                     {sqladmin.GenerateEphemeralCertRequest{AccessToken: login}, http.StatusBadRequest},
		"a key that is not PEM":      {sqladmin.GenerateEphemeralCertRequest{PublicKey: "key", AccessToken: login}, http.StatusBadRequest},
		"a key of an elliptic curve": {sqladmin.GenerateEphemeralCertRequest{PublicKey: pemKey(t, &ecKey.PublicKey), AccessToken: login}, http.StatusBadRequest},
		"two keys":                   {sqladmin.GenerateEphemeralCertRequest{PublicKey: rsaKey + rsaKey, AccessToken: login}, http.StatusBadRequest},
		"a duration":                 {sqladmin.GenerateEphemeralCertRequest{PublicKey: rsaKey, AccessToken: login, ValidDuration: "60s"}, http.StatusBadRequest},
	}
	service := w.admin(w.account.AdminTokens())
	for name, test := range tests {
		_, err := service.Connect.GenerateEphemeralCert("test-project", "main", &test.request).Context(t.Context()).Do()
		if got := status(err); got != test.want {
			t.Errorf("%s: %v, want %d", name, err, test.want)
		}
	}
}

func status(err error) int {
	if e, ok := errors.AsType[*googleapi.Error](err); ok {
		return e.Code
	}
	return 0
}

// TestAPIKnowsItsMethods: everything else is refused, in Google's form.
func TestAPIKnowsItsMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	const instance = "sql/v1beta4/projects/test-project/instances/main"
	tests := []struct {
		method, path, token string
		want                int
		reason              string
	}{
		{http.MethodGet, instance + "/connectSettings", newToken(t, w.account.AdminTokens()), http.StatusOK, ""},
		{http.MethodGet, instance + "/connectSettings", newToken(t, w.account.LoginTokens()), http.StatusUnauthorized, "authError"},
		{http.MethodGet, instance + "/connectSettings", "", http.StatusUnauthorized, "authError"},
		{http.MethodPost, instance + ":generateEphemeralCert", "", http.StatusUnauthorized, "authError"},
		{http.MethodPost, instance + "/connectSettings", "", http.StatusNotFound, "notFound"},
		{http.MethodGet, instance + ":generateEphemeralCert", "", http.StatusNotFound, "notFound"},
		{http.MethodPost, instance + ":restart", "", http.StatusNotFound, "notFound"},
		{http.MethodGet, instance, "", http.StatusNotFound, "notFound"},
	}
	for _, test := range tests {
		request, err := http.NewRequestWithContext(t.Context(), test.method, w.instance.AdminAPI()+test.path, bytes.NewReader(nil))
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+test.token)
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		var body struct {
			Error struct {
				Code   int
				Errors []struct{ Reason string }
			}
		}
		must(t, json.NewDecoder(response.Body).Decode(&body))
		must(t, response.Body.Close())
		reason := ""
		if len(body.Error.Errors) > 0 {
			reason = body.Error.Errors[0].Reason
		}
		if response.StatusCode != test.want || reason != test.reason || reason != "" && body.Error.Code != test.want {
			t.Errorf("%s %s: %d %q", test.method, test.path, response.StatusCode, reason)
		}
	}
}

// talk dials the proxy with a TLS configuration, sends the messages and returns
// what it answers until it hangs up.
func (w *world) talk(config *tls.Config, messages ...pgproto3.FrontendMessage) ([]byte, error) {
	w.t.Helper()
	raw, err := w.instance.Dial(w.t.Context(), "tcp", "203.0.113.10:3307")
	must(w.t, err)
	defer raw.Close()
	must(w.t, raw.SetDeadline(time.Now().Add(patience)))
	config.InsecureSkipVerify = true
	conn := tls.Client(raw, config)
	var out []byte
	for _, message := range messages {
		out, err = message.Encode(out)
		must(w.t, err)
	}
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	return io.ReadAll(conn)
}

// TestProxyWantsItsCertificates: TLS 1.3 and a client certificate of its own.
func TestProxyWantsItsCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	good, other := w.certificate(), newWorld(t, fake.Options{}).certificate()
	tests := map[string]*tls.Config{
		"an old TLS":                            {Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12},
		"no certificate":                        {},
		"a certificate of another instance's":   {Certificates: []tls.Certificate{other}},
		"a certificate without the private key": {Certificates: []tls.Certificate{{Certificate: good.Certificate, PrivateKey: newKey(t)}}},
	}
	for name, config := range tests {
		answer, err := w.talk(config, &pgproto3.SSLRequest{})
		if err == nil || len(answer) > 0 {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
	}
	if sent := w.instance.Sent(); len(sent) > 0 {
		t.Errorf("it read %q", sent)
	}
}

// TestProxyWantsALogin: as oneself, by the certificate alone.
func TestProxyWantsALogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{})
	config := &tls.Config{Certificates: []tls.Certificate{w.certificate()}}
	startup := func(user string) *pgproto3.StartupMessage {
		return &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": user, "database": w.config.Name}}
	}
	tests := map[string]struct {
		messages []pgproto3.FrontendMessage
		want     string // the last error's code
	}{
		"itself":          {[]pgproto3.FrontendMessage{startup(w.config.User), &pgproto3.Terminate{}}, ""},
		"another":         {[]pgproto3.FrontendMessage{startup(postgresUser)}, "28000"},
		"TLS in TLS":      {[]pgproto3.FrontendMessage{&pgproto3.SSLRequest{}}, "0A000"},
		"with a password": {[]pgproto3.FrontendMessage{startup(w.config.User), &pgproto3.PasswordMessage{Password: "x"}, &pgproto3.Query{String: "SELECT 1/0"}}, ""},
	}
	for name, test := range tests {
		answer, err := w.talk(config, test.messages...)
		code, readErr := lastError(answer)
		if err != nil || readErr != nil || code != test.want {
			t.Errorf("%s: %q, %v, want %q", name, code, errors.Join(err, readErr), test.want)
		}
	}
}

// postgresUser is a role that every server has.
const postgresUser = "postgres"

// lastError is the code of the last ErrorResponse in what a server sent.
func lastError(answer []byte) (string, error) {
	frontend := pgproto3.NewFrontend(bytes.NewReader(answer), io.Discard)
	code := ""
	for {
		message, err := frontend.Receive()
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return code, nil
		case err != nil:
			return "", fmt.Errorf("reading the answer: %w", err)
		}
		if e, ok := message.(*pgproto3.ErrorResponse); ok {
			code = e.Code
		}
	}
}

// TestDial: only the instance's own addresses lead to it, by its own port.
func TestDial(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.Options{Private: "10.20.30.40"})
	w.instance.Unreachable("10.20.30.41")
	for address, ok := range map[string]bool{
		"10.20.30.40:3307": true, "10.20.30.40:5432": false, "10.20.30.41:3307": false,
		"203.0.113.10:3307": false, "absent.europe-west1.sql-psc.goog:3307": false, ":3307": false, "10.20.30.40": false,
	} {
		conn, err := w.instance.Dial(t.Context(), "tcp", address)
		if (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
		if err == nil {
			must(t, conn.Close())
		}
	}
	if diff := cmp.Diff(7, len(w.instance.Dialled())); diff != "" {
		t.Error(diff)
	}
}

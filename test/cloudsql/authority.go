package cloudsql

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	caLife = 10 * 365 * 24 * time.Hour
	skew   = 5 * time.Minute // that clocks may differ by
)

// authority is a certificate authority and its key.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority makes a self-signed one. No two share a name: as Google's, each has
// its own.
func newAuthority(kind string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of a CA: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Cloud SQL " + kind + " CA " + rand.Text(), Organization: []string{"Tidemark tests"}},
		NotBefore: time.Now().Add(-skew), NotAfter: time.Now().Add(caLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{template, key}
	if a.certificate, err = a.sign(template, &key.PublicKey); err != nil {
		return nil, err
	}
	return a, nil
}

// sign completes a certificate for a public key.
func (a *authority) sign(template *x509.Certificate, public any) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	return certificate, nil
}

// server makes a server certificate as the instance has: its name is the common
// name, project:instance, and only the name of Private Service Connect is a DNS name.
func (a *authority) server(name, dnsName string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the server's key: %w", err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if dnsName != "" {
		template.DNSNames = []string{dnsName}
	}
	certificate, err := a.sign(template, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key, Leaf: certificate}, nil
}

// client makes the ephemeral certificate of a user.
func (a *authority) client(user string, key *rsa.PublicKey, from, to time.Time) (*x509.Certificate, error) {
	return a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: user}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key)
}

// publicKey reads the key of a request for a certificate: PEM around PKIX, RSA, at
// least 2048 bits.
func publicKey(text string) (*rsa.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(rest) > 0 {
		return nil, errors.New("the public key is not one PEM block")
	}
	if block.Type != "RSA PUBLIC KEY" && block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("the public key is a %s", block.Type)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok || key.Size() < 256 {
		return nil, errors.New("the public key is not an RSA key of at least 2048 bits")
	}
	return key, nil
}

func encode(certificates ...*x509.Certificate) string {
	var text []byte
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return string(text)
}

// StageServerCA adds a new CA to those that clients are told to trust, as
// `gcloud sql ssl server-ca-certs create` does.
func (i *Instance) StageServerCA() error {
	ca, err := newAuthority("Server")
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.serverCAs = append(i.serverCAs, ca)
	return nil
}

// RotateServerCA has the newest CA sign the server's certificate, as
// `gcloud sql ssl server-ca-certs rotate` does. Sessions go on.
func (i *Instance) RotateServerCA() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	newest := i.serverCAs[len(i.serverCAs)-1]
	certificate, err := newest.server(i.options.Project+":"+i.options.Name, i.options.DNSName)
	if err != nil {
		return err
	}
	i.active, i.certificate = newest, certificate
	return nil
}

// DropServerCAs has clients be told of the CA in use only.
func (i *Instance) DropServerCAs() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.serverCAs = []*authority{i.active}
}

// RotateClientCA makes a new CA for client certificates: those of the old one are
// refused from now on. Sessions go on.
func (i *Instance) RotateClientCA() error {
	ca, err := newAuthority("Client")
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clientCA = ca
	return nil
}

// tls is the proxy's side of a handshake.
func (i *Instance) tls() *tls.Config {
	i.mu.Lock()
	defer i.mu.Unlock()
	clients := x509.NewCertPool()
	clients.AddCert(i.clientCA.certificate)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*i.certificate},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
		Time: i.now, SessionTicketsDisabled: true, // each session shows its certificate
	}
}

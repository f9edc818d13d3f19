// Package cloudsql is a Cloud SQL instance to connect to with Google's own
// connector (cloud.google.com/go/cloudsqlconn): the part of the Admin API that
// the connector calls, and the server-side proxy that ends its TLS, before a real
// Postgres.
//
// It is as strict as the real one: who calls is known by the token, an unknown
// instance is 404, a certificate is signed for an RSA key and a login token only,
// the proxy speaks TLS 1.3 with clients whose certificate it signed and that has
// not expired, and lets each log in as itself alone. Tests turn what an operator or
// an outage would: CAs, permissions, addresses, the clock.
//
// What it has of Google's is taken from the connector's source (package
// internal/cloudsql) and from the Admin API's reference
// (https://docs.cloud.google.com/sql/docs/postgres/admin-api/rest/v1beta4/connect).
// It has IAM logins only: a certificate without a login token, which Google would
// give for logins by password, is refused by name, and so is a session that asks
// for TLS within the TLS. How Google writes the account into the certificate is
// not public; here it is the subject's common name.
package cloudsql

// Package cloudsql opens the pool of connections to a Postgres: through the
// Cloud SQL connector with IAM login in production, or by URL anywhere else.
package cloudsql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"cloud.google.com/go/cloudsqlconn"
	"cloud.google.com/go/cloudsqlconn/errtype"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Config says which database to open, by URL or through the connector, and as
// whom.
type Config struct {
	URL string // DATABASE_URL; the connector's fields are then not read

	Instance string // CLOUD_SQL_INSTANCE, project:region:instance
	IPType   string // CLOUD_SQL_IP_TYPE: an IP type, or "" for IPTypes' first
	User     string // DB_USER: an IAM principal without .gserviceaccount.com
	Name     string // DB_NAME

	// OwnerOf is a schema as whose owner the connections act, where it exists and the
	// user may: what any of several users creates there is then all of theirs.
	OwnerOf string

	// Connector is added to the options of production: another endpoint of the
	// Admin API, another source of tokens.
	Connector []cloudsqlconn.Option
}

// IPTypes are the addresses of an instance that the connector can dial, by the
// name that Google's connectors give them.
func IPTypes() []string { return []string{"PUBLIC", "PRIVATE", "PSC"} }

// Pool is a pool of connections to one database.
type Pool = pgxpool.Pool

// The connection budget of one function instance (I10). The control plane has
// its own share: reads hold their connection for as long as they last, and the
// renewal of a lease must never wait for one of them.
const (
	DataConnections    = 6
	ControlConnections = 4
)

// Open returns a pool of at most so many connections, made when they are first
// used, and a function that closes it. Dates, times and intervals are read and
// written in UTC and ISO forms, whatever the server's settings.
func Open(ctx context.Context, c Config, connections int32) (*Pool, func(), error) {
	dsn := c.URL
	if dsn == "" {
		// The connector encrypts and authenticates by itself. The host is what
		// errors call the server; without one they would name a socket of this machine.
		dsn = fmt.Sprintf("host=%s user=%s dbname=%s sslmode=disable", quote(c.Instance), quote(c.User), quote(c.Name))
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// The parser's error would repeat the URL, password included.
		return nil, nil, fault.Fix(errors.New("the database URL cannot be read"), "write postgres://user:password@host:port/database")
	}
	if strings.Contains(config.ConnConfig.Host+config.ConnConfig.Database, "@") {
		// Part of the password was taken for them, and would be in every error.
		return nil, nil, fault.Fix(errors.New("the database URL cannot be read"), "percent-encode the password: @ is %40, / is %2F")
	}
	config.MaxConns = connections
	config.MinConns = 0
	config.MaxConnIdleTime = time.Minute
	config.ConnConfig.ConnectTimeout = 10 * time.Second
	for name, value := range map[string]string{
		"application_name": "tidemark", "timezone": "UTC", "datestyle": "ISO, YMD", "intervalstyle": "iso_8601",
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	if c.OwnerOf != "" {
		config.AfterConnect = actAsOwner(c.OwnerOf)
	}
	closeDialer := func() {}
	if c.URL == "" {
		dialer, err := newDialer(ctx, c)
		if err != nil {
			return nil, nil, err
		}
		config.ConnConfig.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
		config.ConnConfig.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.Dial(ctx, c.Instance)
			if err != nil {
				return nil, explain(err)
			}
			return conn, nil
		}
		closeDialer = func() { _ = dialer.Close() }
	}
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	if err != nil {
		closeDialer()
		return nil, nil, fmt.Errorf("opening the database: %w", err)
	}
	return pool, func() { pool.Close(); closeDialer() }, nil
}

// newDialer returns the connector: it logs in by IAM, over TLS to the instance's
// own certificate, and makes its key and calls the Admin API at the first dial.
func newDialer(ctx context.Context, c Config) (*cloudsqlconn.Dialer, error) {
	address, err := ipType(c.IPType)
	if err != nil {
		return nil, err
	}
	options := append([]cloudsqlconn.Option{
		cloudsqlconn.WithIAMAuthN(), cloudsqlconn.WithLazyRefresh(), // background refresh starves where CPU is throttled
		cloudsqlconn.WithBuiltInMetrics(false), cloudsqlconn.WithDefaultDialOptions(address),
	}, c.Connector...)
	dialer, err := cloudsqlconn.NewDialer(context.WithoutCancel(ctx), options...)
	if err != nil {
		return nil, fmt.Errorf("opening the Cloud SQL connector: %w", err)
	}
	return dialer, nil
}

// explain gives an error of the connector or of the Admin API the remedy that it
// has here: elsewhere the same codes are about BigQuery.
func explain(err error) error {
	const address = "set CLOUD_SQL_INSTANCE to the instance's project:region:instance, and CLOUD_SQL_IP_TYPE to an address that it has"
	if _, ok := errors.AsType[*errtype.ConfigError](err); ok {
		return fault.Fix(err, address)
	}
	class, _ := fault.Classify(err)
	switch status := fault.HTTPStatus(err); {
	case status == http.StatusBadRequest:
		return &fault.Error{Class: fault.Transient, Remedy: "start the Cloud SQL instance, if it is stopped", Err: err}
	case status == http.StatusForbidden && class == fault.Permanent: // else it is a quota
		return fault.Fix(err, "grant the function's service account roles/cloudsql.client and roles/cloudsql.instanceUser, and enable the Cloud SQL Admin API")
	case status == http.StatusNotFound:
		return fault.Fix(err, address)
	}
	return err
}

func ipType(name string) (cloudsqlconn.DialOption, error) {
	switch name {
	case "", "PUBLIC":
		return cloudsqlconn.WithPublicIP(), nil
	case "PRIVATE":
		return cloudsqlconn.WithPrivateIP(), nil
	case "PSC":
		return cloudsqlconn.WithPSC(), nil
	}
	return nil, fault.Fix(fmt.Errorf("there is no IP type %q", name), "set CLOUD_SQL_IP_TYPE to one of "+strings.Join(IPTypes(), ", "))
}

// actAsOwner has a new connection take the role that owns a schema, where the user
// may: since Postgres 16 a member of a role may be forbidden to. SET ROLE would be an
// error where there is no such role.
func actAsOwner(schema string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `
			SELECT set_config('role', pg_get_userbyid(nspowner), false) FROM pg_namespace
			 WHERE nspname = $1 AND pg_has_role(nspowner, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)`, schema)
		if err != nil {
			return fmt.Errorf("acting as the owner of the schema %s: %w", schema, err)
		}
		return nil
	}
}

// quote writes a value of a keyword/value connection string.
func quote(value string) string {
	out := []byte{'\''}
	for i := range len(value) {
		if value[i] == '\'' || value[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, value[i])
	}
	return string(append(out, '\''))
}

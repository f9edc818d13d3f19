// Package cloudsql opens the pool of connections to a Postgres: through the
// Cloud SQL connector with IAM login in production, or by URL anywhere else.
package cloudsql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"cloud.google.com/go/cloudsqlconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Config says which database to open: URL, or the other three.
type Config struct {
	URL      string // DATABASE_URL
	Instance string // CLOUD_SQL_INSTANCE, project:region:instance
	User     string // DB_USER: an IAM principal without .gserviceaccount.com
	Name     string // DB_NAME
}

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
		// The connector encrypts and authenticates by itself.
		dsn = fmt.Sprintf("user=%s dbname=%s sslmode=disable", quote(c.User), quote(c.Name))
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
	closeDialer := func() {}
	if c.URL == "" {
		dialer, err := cloudsqlconn.NewDialer(context.WithoutCancel(ctx),
			cloudsqlconn.WithIAMAuthN(), cloudsqlconn.WithLazyRefresh(), // background refresh starves where CPU is throttled
			cloudsqlconn.WithBuiltInMetrics(false))
		if err != nil {
			return nil, nil, fmt.Errorf("opening the Cloud SQL connector: %w", err)
		}
		config.ConnConfig.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.Dial(ctx, c.Instance)
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

package dialect

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/dgryski/go-farm"
	"github.com/duckdb/duckdb-go/v2"
)

// Names of the functions that translations call and DuckDB lacks.
const (
	fingerprintText  = "bigquery_fingerprint_text"
	fingerprintBytes = "bigquery_fingerprint_bytes"
	jsonText         = "bigquery_json_text"
)

// Register adds to DuckDB the functions that translations call and it lacks. It
// is called once for a database; all connections have them then.
func Register(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close() //nolint:errcheck // it returns the connection to the pool
	for _, f := range []goFunction{
		{fingerprintText, duckdb.TYPE_VARCHAR, duckdb.TYPE_BIGINT, fingerprint},
		{fingerprintBytes, duckdb.TYPE_BLOB, duckdb.TYPE_BIGINT, fingerprint},
		{jsonText, duckdb.TYPE_VARCHAR, duckdb.TYPE_VARCHAR, escapeJSON},
	} {
		if err := f.register(conn); err != nil {
			return fmt.Errorf("registering %s: %w", f.name, err)
		}
	}
	return nil
}

// RegisterClock adds a function to DuckDB that tells the time of a clock of one's
// own, and returns the expression of it for Options.Now. Like now() it stands
// still for a transaction.
func RegisterClock(ctx context.Context, db *sql.DB, now func() time.Time) (expression string, err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return "", fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close() //nolint:errcheck // it returns the connection to the pool
	const name = "bigquery_clock"
	c := &clock{now: now, begun: map[time.Time]time.Time{}}
	if err := (goFunction{name, duckdb.TYPE_TIMESTAMP_TZ, duckdb.TYPE_TIMESTAMP_TZ, c.at}).register(conn); err != nil {
		return "", fmt.Errorf("registering %s: %w", name, err)
	}
	return name + "(now())", nil
}

// clock tells when the latest transactions began by a clock, by when they did by
// DuckDB's.
type clock struct {
	now   func() time.Time
	mu    sync.Mutex
	begun map[time.Time]time.Time
}

// clockKept bounds the transactions that are known: more than can run at once.
const clockKept = 1000

func (c *clock) at(v driver.Value) (any, error) {
	begun, ok := v.(time.Time)
	if !ok {
		return nil, fmt.Errorf("time of %T", v)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.begun[begun]
	if !ok {
		if len(c.begun) >= clockKept {
			clear(c.begun)
		}
		at = c.now()
		c.begun[begun] = at
	}
	return at, nil
}

// goFunction is a function of one argument, NULL of NULL.
type goFunction struct {
	name     string
	from, to duckdb.Type
	call     func(driver.Value) (any, error)
}

func (f goFunction) register(conn *sql.Conn) error {
	from, err := duckdb.NewTypeInfo(f.from)
	if err != nil {
		return fmt.Errorf("describing its argument: %w", err)
	}
	to, err := duckdb.NewTypeInfo(f.to)
	if err != nil {
		return fmt.Errorf("describing its result: %w", err)
	}
	registered := registeredFunction{duckdb.ScalarFuncConfig{InputTypeInfos: []duckdb.TypeInfo{from}, ResultTypeInfo: to}, f.call}
	if err := duckdb.RegisterScalarUDF(conn, f.name, registered); err != nil {
		return fmt.Errorf("adding it to DuckDB: %w", err)
	}
	return nil
}

type registeredFunction struct {
	config duckdb.ScalarFuncConfig
	call   func(driver.Value) (any, error)
}

func (f registeredFunction) Config() duckdb.ScalarFuncConfig { return f.config }

func (f registeredFunction) Executor() duckdb.ScalarFuncExecutor {
	return duckdb.ScalarFuncExecutor{RowExecutor: func(args []driver.Value) (any, error) { return f.call(args[0]) }}
}

// fingerprint is FARM_FINGERPRINT: FarmHash's Fingerprint64 as a signed number.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/hash_functions#farm_fingerprint
func fingerprint(v driver.Value) (any, error) {
	switch v := v.(type) {
	case string:
		return int64(farm.Fingerprint64([]byte(v))), nil
	case []byte:
		return int64(farm.Fingerprint64(v)), nil
	}
	return nil, fmt.Errorf("fingerprint of %T", v)
}

func escapeJSON(v driver.Value) (any, error) {
	text, ok := v.(string)
	if !ok {
		return nil, fmt.Errorf("JSON string of %T", v)
	}
	return `"` + escaped(text) + `"`, nil
}

// escaped is the inside of a JSON string as GoogleSQL writes it: what JSON must
// escape, and U+2028 and U+2029, with lower-case digits.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= '\b' && r <= '\r' && r != '\v':
			b.WriteString(`\` + string("btn_fr"[r-'\b']))
		case r < 0x20 || r == '\u2028' || r == '\u2029':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

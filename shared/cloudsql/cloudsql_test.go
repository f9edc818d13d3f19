package cloudsql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// TestOpenKeepsTheSecret: a URL that cannot be read has a password in it all
// the same.
func TestOpenKeepsTheSecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, url := range []string{
		"postgres://user:" + secret + "@host:port/database",
		"postgres://user:" + secret + "%zz@host/database",
		"postgres://user:" + secret + "@[::1/database",
		"postgres://user:" + secret + "@host/database?sslmode=perhaps",
		"postgres://user:" + secret + "@host/database?pool_max_conns=many",
		"mysql://user:" + secret + "@host/database",
		"host=host password=" + secret + " port=none",
		"user:" + secret + "@host/database",
		"password='" + secret,
	} {
		pool, _, err := Open(t.Context(), Config{URL: url}, DataConnections)
		if err == nil {
			pool.Close()
			t.Errorf("%s was accepted", url)
			continue
		}
		class, remedy := fault.Classify(err)
		if class != fault.Permanent || remedy == "" {
			t.Errorf("%v is %v with the remedy %q", err, class, remedy)
		}
		if text := fmt.Sprintf("%v %+v %#v %s", err, err, err, remedy); strings.Contains(text, secret) {
			t.Errorf("the error of %s repeats it: %s", url, text)
		}
	}
}

// TestOpenIsLazy: the pool connects when it is used, and is bounded (I10).
func TestOpenIsLazy(t *testing.T) {
	t.Parallel()
	pool, closePool, err := Open(t.Context(), Config{URL: "postgres://user:hunter2@127.0.0.1:1/database?pool_max_conns=500&connect_timeout=3600&timezone=Asia/Tokyo"}, ControlConnections)
	if err != nil {
		t.Fatal(err)
	}
	config := pool.Config()
	type limits struct {
		Max, Min      int32
		Idle, Connect time.Duration
		Application   string
		Zone, Dates   string
	}
	got := limits{config.MaxConns, config.MinConns, config.MaxConnIdleTime, config.ConnConfig.ConnectTimeout, config.ConnConfig.RuntimeParams["application_name"], config.ConnConfig.RuntimeParams["timezone"], config.ConnConfig.RuntimeParams["datestyle"]}
	if diff := cmp.Diff(limits{ControlConnections, 0, time.Minute, 10 * time.Second, "tidemark", "UTC", "ISO, YMD"}, got); diff != "" {
		t.Errorf("pool (-want +got):\n%s", diff)
	}
	err = pool.Ping(t.Context())
	if err == nil {
		t.Fatal("something listens on port 1")
	}
	if class, remedy := fault.Classify(err); class != fault.Transient || remedy == "" {
		t.Errorf("%v is %v with the remedy %q", err, class, remedy)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v repeats the password", err)
	}
	closePool()
	if err := pool.Ping(t.Context()); err == nil {
		t.Error("the pool is open after it was closed")
	}
}

// TestQuote: a user or database of any name reads back as it is.
func TestQuote(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.StringMatching(`[a-z@.\\' =]{1,20}`), rapid.StringMatching(`[^\x00]{1,20}`))
		user, name := text.Draw(t, "user"), text.Draw(t, "name")
		config, err := pgx.ParseConfig(fmt.Sprintf("user=%s dbname=%s sslmode=disable", quote(user), quote(name)))
		if err != nil {
			t.Fatal(err)
		}
		if config.User != user || config.Database != name {
			t.Fatalf("%q and %q became %q and %q", user, name, config.User, config.Database)
		}
	})
}

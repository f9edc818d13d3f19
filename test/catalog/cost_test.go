package catalog_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// TestDescribeRunsFewStatements: a table is described in every tick, idle or not. What
// all of a tick costs is measured by BenchmarkIdleTick.
func TestDescribeRunsFewStatements(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(t.Context(), postgres.Options{Settings: postgres.StatementSettings()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	url := server.URL("postgres")
	exec(t, connect(t, url), "CREATE DATABASE measured")
	url = server.URL("measured")
	pool := connect(t, url)
	for i := range 100 {
		exec(t, pool, fmt.Sprintf(`CREATE TABLE t%[1]d (id bigserial PRIMARY KEY, tenant uuid NOT NULL, number text NOT NULL, status text, total numeric(12,2), paid bool,
			tags text[], data jsonb, note varchar(200), due date, created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(), UNIQUE (tenant, number));
			CREATE INDEX ON t%[1]d (updated_at, id)`, i))
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 4
	for _, tick := range []string{"cold", "warm", "warm again"} {
		if tick == "cold" {
			if pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
		}
		if err := postgres.ResetStatements(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		for i := range 100 {
			wait.Go(func() {
				if _, err := catalog.Describe(t.Context(), pool, "public", fmt.Sprintf("t%d", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		statements, total, err := postgres.Statements(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		var calls int64
		for _, s := range statements {
			calls += s.Calls
		}
		if calls > 5*100 { // the transaction, its settings, columns and indexes
			t.Errorf("%s: describing 100 tables ran %d statements (%v): %+v", tick, calls, total, statements)
		}
	}
}

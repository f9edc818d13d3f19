package catalog_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// An idle tick on 100 tables may take 300 ms of database time, describing them included.
func TestDescribingAHundredTablesIsCheap(t *testing.T) {
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
		began := time.Now()
		var wait sync.WaitGroup
		for i := range 100 {
			wait.Go(func() {
				if _, err := catalog.Describe(t.Context(), pool, "public", fmt.Sprintf("t%d", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		took := time.Since(began)
		statements, total, err := postgres.Statements(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %v of database time, %v in all", tick, total, took)
		for _, s := range statements {
			t.Logf("%6d calls, planned %v, executed %v: %.60s", s.Calls, s.Plan, s.Execute, s.Query)
		}
		if limit := 150 * time.Millisecond; total > limit {
			t.Errorf("%s: describing 100 tables took %v of database time, want less than %v", tick, total, limit)
		}
	}
}

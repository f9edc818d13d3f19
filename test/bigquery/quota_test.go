package bigquery_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

// refusedFor is the reason that a job failed with, empty for none. It asks for
// the status itself: to wait for the result, the client tries again for as long
// as a rate is exceeded.
func refusedFor(t *testing.T, job *gcp.Job) string {
	t.Helper()
	for {
		status, err := job.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !status.Done() {
			continue
		}
		var failed *gcp.Error
		if errors.As(status.Err(), &failed) {
			return failed.Reason
		}
		return ""
	}
}

// TestOutstandingStatements: 2 statements that change rows run and 20 wait; the
// next is refused, and none is by queries, INSERT or another table.
func TestOutstandingStatements(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{Limits: bigquery.Limits{Statements: 1000}})
	ds := b.dataset(t, "shop")
	b.table(t, ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	b.table(t, ds, "other", &gcp.TableMetadata{Schema: simpleSchema})
	release, entered := make(chan struct{}), make(chan struct{}, 100)
	b.server.HoldJobs(func(j bigquery.Job) <-chan struct{} {
		if len(j.SQL) > 0 && j.SQL[0] == 'D' {
			entered <- struct{}{}
			return release
		}
		return nil
	})
	run := func(sql string) *gcp.Job {
		t.Helper()
		job, err := b.client.Query(sql).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
	var held []*gcp.Job
	for i := range 22 {
		held = append(held, run(fmt.Sprintf("DELETE FROM shop.t WHERE id = %d", i)))
		<-entered
	}
	for _, sql := range []string{"DELETE FROM shop.t WHERE id = 100", "UPDATE shop.t SET name = 'x' WHERE TRUE", "TRUNCATE TABLE shop.t"} {
		if got := refusedFor(t, run(sql)); got != "rateLimitExceeded" {
			t.Errorf("%s: %q", sql, got)
		}
	}
	for _, sql := range []string{"INSERT INTO shop.t (id) VALUES (1)", "SELECT * FROM shop.t", "UPDATE shop.other SET name = 'x' WHERE TRUE"} {
		if got := refusedFor(t, run(sql)); got != "" {
			t.Errorf("%s: %q", sql, got)
		}
	}
	close(release)
	for _, job := range held {
		if got := refusedFor(t, job); got != "" {
			t.Errorf("a waiting statement ended with %q", got)
		}
	}
	if got := refusedFor(t, run("DELETE FROM shop.t WHERE TRUE")); got != "" {
		t.Errorf("with none outstanding: %q", got)
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	c := newClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	b := start(t, bigquery.Options{Now: c.Now, Limits: bigquery.Limits{Statements: 3}})
	ds := b.dataset(t, "shop")
	table := b.table(t, ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	statements := func() int {
		for n := range 100 {
			job, err := b.client.Query("DELETE FROM shop.t WHERE TRUE").Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := refusedFor(t, job); got != "" {
				if got != "rateLimitExceeded" {
					t.Fatalf("refused for %q", got)
				}
				return n
			}
		}
		return -1
	}
	if n := statements(); n != 3 {
		t.Errorf("%d statements are taken, want 3", n)
	}
	c.advance(10 * time.Second)
	if n := statements(); n != 3 {
		t.Errorf("10 seconds later %d statements are taken, want 3", n)
	}
	for range 5 {
		if _, err := table.Update(t.Context(), gcp.TableMetadataToUpdate{Description: "x"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	job, err := b.client.Query("ALTER TABLE shop.t ADD COLUMN x STRING").Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := refusedFor(t, job); got != "rateLimitExceeded" {
		t.Errorf("the sixth update of metadata in 10 seconds: %q", got)
	}
	c.advance(10 * time.Second)
	b.query(t, "ALTER TABLE shop.t ADD COLUMN x STRING")
}

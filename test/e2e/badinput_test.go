package e2e_test

import (
	"context"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/stack"
)

// TestBadTables has every mistake a table can make beside one that makes none:
// the good one arrives, and each other is recorded with its remedy, once, and
// acknowledged.
func TestBadTables(t *testing.T) {
	t.Parallel()
	s := startStack(t, `
pipeline: shop
destination: {dataset: shop}
defaults: {`+byHand+`}
tables:
  - {name: items, capture: {method: watermark, cursor: updated_at}}
  - {name: loose, capture: {method: watermark, cursor: updated_at}}
  - {name: absent, capture: {method: watermark, cursor: updated_at}}
  - {name: keyless, capture: {method: watermark, cursor: updated_at}}
  - {name: ambiguous, key: [name], capture: {method: watermark, cursor: updated_at}}
  - {name: cursorless, capture: {method: watermark, cursor: changed_at}}
  - {name: unordered, capture: {method: watermark, cursor: name}}
  - {name: lost, capture: {method: watermark, cursor: updated_at}, partition_by: {column: name}}
  - {name: view, capture: {method: watermark, cursor: updated_at}}
`, itemsSQL+`; INSERT INTO items SELECT n, 'item' FROM generate_series(1, 10) n;
		CREATE TABLE loose (id int PRIMARY KEY, updated_at timestamptz); INSERT INTO loose VALUES (1, now()), (2, NULL);
		CREATE TABLE keyless (id int, updated_at timestamptz NOT NULL);
		CREATE TABLE ambiguous (id int PRIMARY KEY, name text NOT NULL, updated_at timestamptz NOT NULL);
		CREATE TABLE cursorless (id int PRIMARY KEY, updated_at timestamptz NOT NULL);
		CREATE TABLE unordered (id int PRIMARY KEY, name text NOT NULL);
		CREATE TABLE lost (id int PRIMARY KEY, name text, updated_at timestamptz NOT NULL);
		CREATE VIEW view AS SELECT * FROM items`)
	if err := s.Push(t.Context(), "Extract", `{}`); err != nil {
		t.Fatalf("a message whose errors are permanent was not acknowledged: %v", err)
	}
	conn := connect(t, s.DatabaseURL())
	for table, want := range map[string][2]string{
		"absent":     {"table public.absent does not exist", "create it"},
		"keyless":    {"has no primary key", "add a primary key"},
		"ambiguous":  {"key (name) of ambiguous is not unique", `CREATE UNIQUE INDEX CONCURRENTLY ON "public"."ambiguous" ("name")`},
		"cursorless": {`cursor column "changed_at" of cursorless does not exist`, "id, updated_at"},
		"unordered":  {"cursor column name of unordered is a text", "choose a column"},
		"lost":       {"name of lost cannot be partitioned by day", "choose a timestamp column"},
		"view":       {"public.view is not a table", "name the table underneath"},
	} {
		got := scan[string](t, conn, `SELECT coalesce(string_agg(outcome || '|' || error || '|' || remedy, ';'), '') FROM tidemark.runs WHERE name = '`+table+`'`)
		parts := strings.SplitN(got, "|", 3)
		if len(parts) != 3 || parts[0] != "failed" || !strings.Contains(parts[1], want[0]) || !strings.Contains(parts[2], want[1]) {
			t.Errorf("%s recorded as %q, want one failure saying %q and %q", table, got, want[0], want[1])
		}
		awaitLog(t, s, want[0][:12])
	}
	warnings := scan[string](t, conn, `SELECT outcome || (detail->>'warnings') FROM tidemark.runs WHERE name = 'loose'`)
	for _, want := range []string{"ok", `CREATE INDEX CONCURRENTLY ON \"public\".\"loose\" (\"updated_at\", \"id\")`, "SET NOT NULL"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("loose recorded as %s, want %s", warnings, want)
		}
	}
	if items, loose := number(t, s, "SELECT COUNT(*) FROM shop.items"), number(t, s, "SELECT COUNT(*) FROM shop.loose"); items != 10 || loose != 2 {
		t.Errorf("%d items and %d loose rows arrived, want 10 and 2", items, loose)
	}
	if got := scan[int](t, conn, `SELECT count(*) FROM tidemark.runs WHERE kind = 'message'`); got != 0 {
		t.Errorf("%d failures were recorded twice", got)
	}
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	s := startStack(t, itemsFile(byHand), itemsSQL)
	conn := connect(t, s.DatabaseURL())
	for message, want := range map[string]string{
		`not json`:                 "reading the message: it is no JSON object",
		`{"tabel":"items"}`:        `unknown field "tabel"`,
		`{"table":"item"}`:         `there is no table "item"`,
		`{"pipeline":"shopp"}`:     `there is no pipeline "shopp"`,
		`{"tenant":"acme"}`:        `there is no tenant "acme"`,
		`{"cadence":"soon"}`:       `"soon" is neither an interval nor a cron expression`,
		`{"full":"yes"}`:           "reading the message: json: cannot unmarshal",
		`{"table":"items"} {"a":1`: "something follows the JSON object",
	} {
		if err := s.Push(t.Context(), "Extract", message); err != nil {
			t.Errorf("%s was not acknowledged: %v", message, err)
		}
		var n int
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM tidemark.runs WHERE kind = 'message' AND outcome = 'failed' AND remedy <> '' AND strpos(error, $1) > 0 AND detail->>'data' = $2`, want, message).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != 1 {
			t.Errorf("%s left %d records saying %q with a remedy, want 1", message, n, want)
		}
	}
	if err := s.Push(t.Context(), "ReverseETL", `{"sync":"nope"}`); err != nil {
		t.Errorf("an unknown sync was not acknowledged: %v", err)
	}
}

func TestDatabaseOutOfReach(t *testing.T) {
	t.Parallel()
	s, err := stack.Start(t.Context(), stack.Options{Functions: functions(t), Postgres: postgres.Options{Password: "right-secret"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.Stop()) })
	for name, c := range map[string]struct {
		change       func(*url.URL)
		acknowledged bool
		remedy       string
	}{
		"wrong password":   {func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong-secret") }, true, "check the user and password"},
		"unknown database": {func(u *url.URL) { u.Path = "/nowhere" }, true, "create the database"},
		"closed port":      {func(u *url.URL) { u.Host = "127.0.0.1:1" }, false, "nothing listens at that address"},
	} {
		address, err := url.Parse(s.DatabaseURL())
		if err != nil {
			t.Fatal(err)
		}
		c.change(address)
		must(t, s.StopFunctions(syscall.SIGTERM))
		if err := s.StartFunctions(t.Context(), "DATABASE_URL="+address.String()); err != nil {
			t.Fatal(err)
		}
		if err := s.Push(t.Context(), "Extract", `{}`); (err == nil) != c.acknowledged {
			t.Errorf("%s: acknowledged %t, want %t", name, err == nil, c.acknowledged)
		}
		log := awaitLog(t, s, c.remedy)
		if strings.Contains(log, "-secret") {
			t.Errorf("%s: the log has the password:\n%s", name, log)
		}
	}
}

// awaitLog waits until the functions have logged the text: their log comes
// through a pipe, after their answer.
func awaitLog(t *testing.T, s *stack.Stack, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		log := s.LastLog()
		if strings.Contains(log, text) {
			return log
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			t.Errorf("the log does not say %q:\n%s", text, log)
			return log
		}
	}
}

package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/test/stack"
)

// ran is what a command printed, and how it ended.
type ran struct {
	out, err string
	code     int
}

// command runs the program tidemark in an environment that holds nothing else.
func command(t *testing.T, environment []string, args ...string) ran {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, "tidemark"), args...)
	cmd.Env = environment
	cmd.Dir = t.TempDir()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// contains fails unless a command ended with the code and printed the texts.
func (r ran) contains(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; printed:\n%s%s", r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("nothing says %q:\n%s%s", text, r.out, r.err)
		}
	}
}

func stackEnvironment(s *stack.Stack) []string { return append(os.Environ(), s.Environment()...) }

// TestCommandSends what the functions then do: run, resync and retry are messages.
func TestCommandSends(t *testing.T) {
	t.Parallel()
	s := startStack(t, `
pipeline: shop
destination: {dataset: shop}
defaults: {`+byHand+`}
tables:
  - {name: amounts, capture: {method: changelog}}
`, `CREATE TABLE amounts (id int PRIMARY KEY, amount numeric);
		INSERT INTO amounts SELECT n, CASE n WHEN 3 THEN 'NaN'::numeric ELSE n END FROM generate_series(1, 200) n`)
	environment := stackEnvironment(s)
	conn := connect(t, s.DatabaseURL())
	eventually := func(sql, want string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for got := ""; got != want; {
			if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&got); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is %s, want %s; the functions logged:\n%s", sql, got, want, s.LastLog())
			}
		}
	}
	// Nothing is made by looking.
	command(t, environment, "rejects", "shop").contains(t, 1, "first run makes it")

	command(t, environment, "run", "shop", "amounts").contains(t, 0, `published to tidemark-extract: {"pipeline":"shop","table":"amounts"}`)
	eventually(`SELECT count(*) FROM pg_tables WHERE schemaname = 'tidemark' AND tablename = 'rejects'`, "1")
	eventually(`SELECT count(*) FROM tidemark.rejects`, "1")
	listed := command(t, environment, "rejects", "shop", "amounts")
	listed.contains(t, 0, "tenant | table   | column | reason", "| amounts | amount | numeric NaN has no BigQuery value | 1    |", "(1 rows)")
	command(t, environment, "rejects", "-rows", "shop").contains(t, 0, `{"id":3,"amount":`)

	eventually(`SELECT count(*) FROM tidemark.backfills WHERE finished_at IS NULL`, "0")
	if _, err := conn.Exec(t.Context(), `UPDATE amounts SET amount = 3 WHERE id = 3; DELETE FROM tidemark.change_log`); err != nil { // retried, it lands without an entry of its own
		t.Fatal(err)
	}
	command(t, environment, "retry", "shop").contains(t, 0, `{"pipeline":"shop","retry":true}`)
	eventually(`SELECT count(*) FROM tidemark.rejects`, "0")
	command(t, environment, "rejects", "shop").contains(t, 0, "(0 rows)")

	command(t, environment, "resync", "shop", "amounts").contains(t, 0, `{"pipeline":"shop","table":"amounts","full":true}`)
	eventually(`SELECT count(*) FROM tidemark.backfills WHERE requested_by <> '' AND finished_at IS NOT NULL`, "1")

	command(t, environment, "run", "shop", "amount").contains(t, 1, `there is no table "amount"`, "name one of: amounts")
	command(t, environment, "rejects", "shpo").contains(t, 1, `there is no pipeline "shpo"`, "name one of: shop")
	command(t, append(environment, "GOOGLE_CLOUD_PROJECT=elsewhere"), "run").contains(t, 1, "set GOOGLE_CLOUD_PROJECT")
	must(t, s.StopFunctions(15))
	if n := fmt.Sprint(s.BigQuery().Calls()["CreateWriteStream"]); n == "0" {
		t.Error("nothing was written")
	}
}

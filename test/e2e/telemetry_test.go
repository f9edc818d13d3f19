package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/telemetry"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/stack"
)

// What must be in no log.
const (
	logSecret = "swordfish"    // the database's password
	rowValue  = "confidential" // in every row
)

const telemetrySQL = `
	CREATE TABLE items (id bigint PRIMARY KEY, name text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON items (updated_at, id);
	INSERT INTO items SELECT n, '` + rowValue + `' FROM generate_series(1, 10) n;
	CREATE TABLE notes (id bigint PRIMARY KEY, owner int NOT NULL, text text, score numeric, code varchar(4), updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
	CREATE INDEX ON notes (updated_at, id);
	INSERT INTO notes SELECT n, 7, '` + rowValue + `', CASE WHEN n <= 3 THEN numeric 'NaN' ELSE n END FROM generate_series(1, 10) n`

// zoned is byHand as a schedule in a time zone, and as it is in messages.
const zoned = "CRON_TZ=Europe/Berlin 0 0 29 2 *"

func telemetryFiles() map[string]string {
	file := func(name, options, tables string) string {
		return "pipeline: " + name + "\ndestination: {dataset: " + name + "}\ndefaults: {" + options + "}\n" + tables
	}
	table := func(name string) string {
		return "  - {name: " + name + ", capture: {method: watermark, cursor: updated_at}}\n"
	}
	return map[string]string{
		"good":  file("good", byHand, "dedup: {"+byHand+"}\ntables:\n"+table("items")),
		"mixed": file("mixed", byHand, "tables:\n"+table("absent")+table("items")),
		"late":  file("late", byHand, "tables:\n"+table("items")+table("notes")),
		"lost":  file("lost", byHand, "tables:\n"+table("notes")),
		"held":  file("held", byHand, "tables:\n"+table("items")),
		"lags":  file("lags", byHand, "wal: {max_lag: 1MB}\ntables:\n"+table("items")),
		"one":   file("one", `every: "`+zoned+`"`, "tables:\n"+table("items")),
		"two":   file("two", `every: "`+strings.Replace(zoned, " ", "   ", 1)+`"`, "tables:\n"+table("items")),
		"kept": file("kept", byHand, "tenants: {query: \"SELECT 7 AS id, 'acme' AS slug\", column: owner, dataset: \"org_{slug}\"}\n"+
			"tables:\n"+table("notes")),
		"back": file("back", byHand, "tables:\n"+table("items")+
			"reverse_etl:\n  - {name: codes, "+byHand+", mode: update, query: \"SELECT id, IF(id > 4, name, 'fits') AS code FROM `{dataset}.items`\",\n"+
			"     target: {table: notes, key: {id: id}, columns: {code: code}}}\n"),
	}
}

// TestTelemetry serves messages of every outcome and reads what the functions have
// logged: the lines that alerts are built on, each once, with the labels they need.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	s, log := startLogged(t, telemetryFiles(), telemetrySQL)
	conn := connect(t, s.DatabaseURL())
	push := func(function, message string) {
		t.Helper()
		must(t, s.Push(t.Context(), function, message))
	}
	change := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	// The commit is made, and whoever made it killed before the cursor moves: what it
	// had rejected is told by the run that finds the commit made.
	killed := make(chan struct{})
	s.BigQuery().Intercept(func(c emulator.Call) error {
		if c.Method != "BatchCommitWriteStreams" || c.Phase != emulator.After {
			return nil
		}
		defer close(killed)
		return errors.Join(errors.New("the caller is dead"), s.StopFunctions(syscall.SIGKILL))
	})
	if err := s.Push(t.Context(), "Extract", `{"pipeline":"lost"}`); err == nil {
		t.Fatal("a killed function answered")
	}
	<-killed
	s.BigQuery().Intercept(nil)
	must(t, s.StartFunctions(t.Context()))
	change(`UPDATE tidemark.leases SET expires_at = clock_timestamp()`)
	push("Extract", `{"pipeline":"lost"}`)

	push("Extract", `{"pipeline":"good"}`)
	change(`UPDATE items SET updated_at = clock_timestamp()`)
	push("Extract", `{"cadence":"0 0  29 2 *","pipeline":"good"}`)
	push("Dedup", `{"cadence":"0 0 29 2 *","pipeline":"good"}`)
	push("Dedup", `{"pipeline":"good"}`) // nothing is left to clean

	push("Extract", `{"pipeline":"mixed"}`)

	// A slot that nobody reads, of a pipeline that was taken away, is told as well.
	change(`SELECT pg_create_logical_replication_slot('tidemark_orphan', 'pgoutput')`)
	change(`SELECT pg_logical_emit_message(false, 'bulk', repeat('x', 2000000))`)
	push("Extract", `{"pipeline":"lags"}`)
	change(`SELECT pg_drop_replication_slot('tidemark_orphan')`)

	push("Extract", `{"pipeline":"late"}`)
	change(`UPDATE tidemark.sync_state SET succeeded_at = '2000-01-01Z' WHERE pipeline = 'late' AND table_name = 'notes'`)
	push("Extract", `{"pipeline":"late","table":"items"}`)
	push("Extract", `{"pipeline":"late"}`)

	push("Extract", `{"pipeline":"kept"}`)

	push("Extract", `{"pipeline":"back"}`)
	push("ReverseETL", `{"pipeline":"back"}`)

	change(`INSERT INTO tidemark.leases VALUES ('extract/held//items', 'another run', 1, clock_timestamp() + interval '1 hour')`)
	push("Extract", `{"pipeline":"held"}`)
	if err := s.Push(t.Context(), "Extract", `{"cadence":"0 0 29 2 *","pipeline":"held"}`); err == nil {
		t.Error("a tick that comes again in years was acknowledged though another run holds its work")
	}

	push("Extract", `{"cadence":"`+zoned+`"}`) // sent on, to each unit
	awaitEvents(t, log, 2, func(l logLine) bool { return l.Message == telemetry.Done && l.Cadence == zoned })
	must(t, s.StopFunctions(syscall.SIGTERM)) // all it has logged is in the file now

	got := map[string][]string{}
	lines := readLog(t, log)
	for _, l := range lines {
		if text := l.String(); text != "" {
			got[l.Pipeline] = append(got[l.Pipeline], text)
		}
	}
	want := map[string][]string{
		"good": {
			`INFO extract good: done "" 1`, `INFO extract good: done "0 0 29 2 *" 1`,
			"INFO dedup good items: billed", `INFO dedup good: done "0 0 29 2 *" 1`, `INFO dedup good: done "" 1`,
		},
		"mixed": {"ERROR extract mixed absent: failed permanent"},
		"late": {
			"WARNING extract late notes: rejected 3", `INFO extract late: done "" 2`,
			"WARNING extract late notes: stale 2000-01-01T00:00:00Z 0 0 29 2 *", `INFO extract late: done "" 1`,
			`INFO extract late: done "" 2`,
		},
		"lags": {"WARNING extract lags: lag tidemark_orphan", `INFO extract lags: done "" 1`},
		"kept": {"WARNING extract kept/7 notes: rejected 3", `INFO extract kept/7: done "" 1`},
		"back": {
			`INFO extract back: done "" 1`,
			"WARNING reverse_etl back notes codes: rejected 6", "INFO reverse_etl back notes codes: billed", `INFO reverse_etl back: done "" 1`,
		},
		"lost": {"WARNING extract lost notes: rejected 3", `INFO extract lost: done "" 1`},
		"one":  {`INFO extract one: done "` + zoned + `" 1`},
		"two":  {`INFO extract two: done "` + zoned + `" 1`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events by pipeline (-want +got):\n%s", diff)
	}
	checkLines(t, lines)
	checkBilled(t, conn, lines)
	if n := number(t, s, "SELECT COUNT(*) FROM mixed.items"); n != 10 {
		t.Errorf("beside a table that failed %d rows arrived, want 10 (I7)", n)
	}
	counted(t, readFile(t, log))
	text := string(readFile(t, log))
	for _, never := range []string{logSecret, rowValue} {
		if strings.Contains(text, never) {
			t.Errorf("the log has %q:\n%s", never, text)
		}
	}
}

// checkLines: each line of a delivery says which run, kind and pipeline it is of.
// The message that was only sent on has no pipeline, and no line.
func checkLines(t *testing.T, lines []logLine) {
	t.Helper()
	runs := 0
	for _, l := range lines {
		switch {
		case l.Run == "" && l.String() != "":
			t.Errorf("an event of no run: %+v", l)
		case l.Run != "" && (l.Kind == "" || l.Pipeline == ""):
			t.Errorf("a line of no kind or pipeline: %+v", l)
		case l.Run != "":
			runs++
		}
		if l.Message == telemetry.Failed && (l.Error == "" || l.Remedy == "" || l.Data != `{"pipeline":"mixed"}`) {
			t.Errorf("a failure that does not say enough: %+v", l)
		}
	}
	if runs == 0 {
		t.Error("no line is of a run")
	}
}

// checkBilled compares the bytes logged with those that the runs are recorded with.
func checkBilled(t *testing.T, conn *pgx.Conn, lines []logLine) {
	t.Helper()
	for _, l := range lines {
		if l.Message != telemetry.Billed {
			continue
		}
		bytes := scan[int64](t, conn, `SELECT sum(bytes)::bigint FROM tidemark.runs WHERE kind = '`+l.Kind+`' AND pipeline = '`+l.Pipeline+`'`)
		jobs := scan[string](t, conn, `SELECT coalesce(detail->>'job', detail->'jobs'->>0) FROM tidemark.runs WHERE kind = '`+l.Kind+`' AND pipeline = '`+l.Pipeline+`'`)
		if l.Bytes == 0 || l.Bytes != bytes || l.Job == "" || l.Job != jobs {
			t.Errorf("%d bytes of job %q billed, want %d of %q", l.Bytes, l.Job, bytes, jobs)
		}
	}
}

// logLine is a line of the functions' log.
type logLine struct {
	Severity                           string
	Message                            telemetry.Event
	Run, Kind, Pipeline, Tenant        string
	Table, Sync, Cadence, Every, Since string
	Class, Error, Remedy, Data, Job    string
	Slot                               string
	Tables                             int
	Rows, Bytes                        int64
}

// String is what of an event can be told in advance; "" for any other line.
func (l logLine) String() string {
	detail := ""
	switch l.Message {
	case telemetry.Failed:
		detail = " " + l.Class
	case telemetry.Done:
		detail = fmt.Sprintf(" %q %d", l.Cadence, l.Tables)
	case telemetry.Stale:
		detail = " " + l.Since + " " + l.Every
	case telemetry.Rejected:
		detail = fmt.Sprintf(" %d", l.Rows)
	case telemetry.Lag:
		detail = " " + l.Slot
	case telemetry.Billed:
	default:
		return ""
	}
	scope := l.Pipeline
	if l.Tenant != "" {
		scope += "/" + l.Tenant
	}
	return strings.Join(strings.Fields(l.Severity+" "+l.Kind+" "+scope+" "+l.Table+" "+l.Sync), " ") + ": " + string(l.Message) + detail
}

// startLogged starts a stack with several pipelines, and a file that gets its log.
func startLogged(t *testing.T, pipelines map[string]string, sql string) (*stack.Stack, string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, log.Close()) })
	return startWith(t, stack.Options{Log: log, Postgres: postgres.Options{Password: logSecret}}, pipelines, sql), log.Name()
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// readLog reads the lines of ours in a log. Before one may stand a warning without an
// end of line, which the framework prints to standard output: in the cloud that is
// another stream than ours.
func readLog(t *testing.T, path string) []logLine {
	t.Helper()
	lines, err := json.Marshal(jsonLines(t, readFile(t, path)))
	if err != nil {
		t.Fatal(err)
	}
	var out []logLine
	if err := json.Unmarshal(lines, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// awaitEvents waits until the log has n lines that are wanted.
func awaitEvents(t *testing.T, path string, n int, wanted func(logLine) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		found := 0
		for _, l := range readLog(t, path) {
			if wanted(l) {
				found++
			}
		}
		if found >= n {
			return
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			t.Fatalf("%d lines of %d are in the log:\n%s", found, n, readFile(t, path))
		}
	}
}

package e2e_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/reverse"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/test/stack"
)

const nightly = "6621a2b4-0000-2c41-9e1f-f403045e8b3a"

// followFile has a sync that runs after a table, and one after a scheduled query; no
// clock runs either.
const followFile = `
pipeline: crm
destination: {dataset: crm}
reverse_etl:
  - name: after_table
    after: [{table: scores}]
    mode: update
    query: SELECT 1 AS id, 5 AS n
    target: {table: contacts, key: {id: id}, columns: {n: by_table}}
  - name: after_query
    after: [{scheduled_query: ` + nightly + `}]
    mode: update
    query: SELECT 1 AS id, 5 AS n
    target: {table: contacts, key: {id: id}, columns: {n: by_query}}
`

// notification is one that shared/tick is tested with, of now and of this project.
func notification(t *testing.T, name string, replace ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "shared", "tick", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Format("2006-01-02T15:04")
	replace = append(replace, "example-project/", "local/", "2026-05-02T08:15", now, "2026-05-02T03:41", now, "2026-05-02T11:00", now)
	return []byte(strings.NewReplacer(replace...).Replace(string(data)))
}

func transferAttributes() map[string]string {
	return map[string]string{"eventType": "TRANSFER_RUN_FINISHED", "payloadFormat": "JSON_API_V1"}
}

func logAttributes() map[string]string {
	return map[string]string{"logging.googleapis.com/timestamp": time.Now().UTC().Format(time.RFC3339Nano)}
}

// publisher publishes to the topics of a stack, with attributes.
func publisher(t *testing.T, s *stack.Stack) func(topic string, attributes map[string]string, data []byte) {
	t.Helper()
	var host string
	for _, variable := range s.Environment() {
		if value, found := strings.CutPrefix(variable, "PUBSUB_EMULATOR_HOST="); found {
			host = value
		}
	}
	client, err := pubsub.NewClient(t.Context(), stack.Project, option.WithEndpoint(host), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, client.Close()) })
	return func(topic string, attributes map[string]string, data []byte) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		p := client.Publisher(topic)
		defer p.Stop()
		if _, err := p.Publish(ctx, &pubsub.Message{Data: data, Attributes: attributes}).Get(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSyncsRunAfterJobs sends what Google Cloud sends, by the way it takes, and sees the
// syncs run that it is for, once each, and no others.
func TestSyncsRunAfterJobs(t *testing.T) {
	t.Parallel()
	s := startStack(t, followFile, `CREATE TABLE contacts (id int PRIMARY KEY, by_table int, by_query int); INSERT INTO contacts (id) VALUES (1)`)
	conn := connect(t, s.DatabaseURL())
	publish := publisher(t, s)
	runs := func() string {
		t.Helper()
		if scan[*string](t, conn, `SELECT to_regclass('tidemark.runs')::text`) == nil {
			return ""
		}
		return scan[string](t, conn, `SELECT coalesce(string_agg(name || ' ' || outcome, ', ' ORDER BY id), '') FROM tidemark.runs WHERE kind = 'reverse_etl'`)
	}
	await := func(what, query string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		poll := time.NewTicker(50 * time.Millisecond)
		defer poll.Stop()
		for {
			var done bool
			err := conn.QueryRow(t.Context(), query).Scan(&done)
			if err != nil && fault.SQLState(err) != "42P01" { // the first message makes the table
				t.Fatal(err)
			}
			if done {
				return
			}
			select {
			case <-poll.C:
			case <-ctx.Done():
				t.Fatalf("no %s; runs: %s; the log:\n%s", what, runs(), s.LastLog())
			}
		}
	}

	// What is for no sync is acknowledged, and each says so.
	for job, data := range map[string][]byte{
		"failed-job":   notification(t, "job_failed.json", "bquxjob_2f4a6b1c_18f3a1d9e07", "failed-job"),
		"other-table":  notification(t, "job_query.json", "bquxjob_71cc3e5d_18f3a1c2b40", "other-table", "tables/scores", "tables/others"),
		"our-own-job":  notification(t, "job_query.json", "bquxjob_71cc3e5d_18f3a1c2b40", "our-own-job", `"team": "crm"`, `"tidemark-sync": "scores"`),
		"our-own-user": notification(t, "job_query.json", "bquxjob_71cc3e5d_18f3a1c2b40", "our-own-user", "ada@example.com", "tidemark-reverse-etl@local.iam.gserviceaccount.com"),
	} {
		publish(tick.TopicReverseETL, logAttributes(), data)
		awaitLog(t, s, "projects/local/jobs/"+job)
	}
	publish(tick.TopicReverseETL, transferAttributes(), notification(t, "transfer_run.json", "SUCCEEDED", "CANCELLED"))
	awaitLog(t, s, nightly+"/runs/6693c1d0")
	publish(tick.TopicReverseETL, logAttributes(), notification(t, "job_query.json", "2026-05-02T08:15", "2026-05-01T08:15")) // long ago
	awaitLog(t, s, "dropped: ")
	if got := runs(); got != "" {
		t.Errorf("ran %s, after nothing that a sync runs after", got)
	}

	publish(tick.TopicReverseETL, logAttributes(), notification(t, "job_query.json", "tables/scores", "tables/scores$20260502"))
	await("run after the table", `SELECT EXISTS (SELECT FROM tidemark.runs WHERE name = 'after_table' AND outcome = 'ok')`)
	publish(tick.TopicReverseETL, transferAttributes(), notification(t, "transfer_run.json"))
	await("run after the scheduled query", `SELECT EXISTS (SELECT FROM tidemark.runs WHERE name = 'after_query' AND outcome = 'ok')`)

	// What nobody can read, and what comes to the wrong topic, is recorded and not sent again.
	publish(tick.TopicReverseETL, logAttributes(), []byte(`{"textPayload":"done"}`))
	await("record of what cannot be read", `SELECT EXISTS (SELECT FROM tidemark.runs WHERE kind = 'message' AND outcome = 'failed' AND error LIKE '%jobChange%' AND remedy <> '')`)
	publish(tick.TopicReverseETL, map[string]string{"eventType": "OBJECT_FINALIZE", "payloadFormat": "JSON_API_V1"}, []byte(`{"kind":"storage#object"}`))
	await("record of another event", `SELECT EXISTS (SELECT FROM tidemark.runs WHERE kind = 'message' AND outcome = 'failed' AND error LIKE '%OBJECT_FINALIZE%' AND remedy <> '')`)
	for topic, function := range map[string]string{tick.TopicExtract: "Extract", tick.TopicDedup: "Dedup"} {
		publish(topic, logAttributes(), notification(t, "job_query.json"))
		await("refusal by "+function, `SELECT EXISTS (SELECT FROM tidemark.runs WHERE kind = 'message' AND outcome = 'failed' AND error LIKE '`+function+` does not serve notifications%' AND remedy LIKE '%tidemark-reverse-etl%')`)
	}

	if got := runs(); got != "after_table ok, after_query ok" {
		t.Errorf("ran %s, want each sync once", got)
	}
	if got := scan[string](t, conn, `SELECT by_table || ' ' || by_query FROM contacts`); got != "5 5" {
		t.Errorf("the syncs wrote %s", got)
	}
}

// TestSyncAfterAJobWaitsForTheLease: the run that holds it may have read the table before
// the job wrote it, so the message comes again.
func TestSyncAfterAJobWaitsForTheLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, followFile, `CREATE TABLE contacts (id int PRIMARY KEY, by_table int, by_query int)`)
	c := w.product
	r := reverse.Runner{Dispatcher: w.dispatcher(c, tick.TopicReverseETL), Target: c.Source, Control: c.Control, Warehouse: c.Warehouse, Project: project}
	when := time.Now().UTC()
	must(t, r.Run(t.Context(), tick.Delivery{ID: "n", Ended: &tick.Ended{Name: "projects/p/jobs/j", Succeeded: true, When: when, Project: project, Dataset: "crm", Table: "scores"}}))
	if len(w.published) != 1 || w.published[0].Sync != "after_table" || !w.published[0].Since.Equal(when) {
		t.Fatalf("published %+v", w.published)
	}
	d := tick.Delivery{Message: w.published[0], ID: "m", Published: when}
	must(t, r.Run(t.Context(), d))
	w.exec(`UPDATE tidemark.leases SET holder = 'another', expires_at = clock_timestamp() + interval '1 hour'`)
	err := r.Run(t.Context(), d)
	if class, _ := fault.Classify(err); err == nil || errors.Is(err, tick.ErrSkipped) || class != fault.Transient {
		t.Errorf("the message is acknowledged while another run holds the lease: %v", err)
	}
	w.exec(`UPDATE tidemark.leases SET expires_at = clock_timestamp()`)
	must(t, r.Run(t.Context(), d))
}

package deployment_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bigqueryapi "cloud.google.com/go/bigquery"
	"github.com/jackc/pgx/v5"
	"google.golang.org/api/option"

	"github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/child"
	"github.com/tidemark-data/tidemark/test/deployment"
	"github.com/tidemark-data/tidemark/test/deployment/buildpack"
	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/pubsub"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// terraform are the files that are deployed.
const terraform = "../../terraform"

const project = "local"

// deployed is an entry of local.functions with its archive.
type deployed struct {
	name, entryPoint, folder, topic string
	archive                         deployment.Archive
}

// functions are what Terraform would deploy.
func functions(tb testing.TB) []deployed {
	tb.Helper()
	module, err := deployment.Load(terraform)
	if err != nil {
		tb.Fatal(err)
	}
	values, err := module.Evaluate(nil)
	if err != nil {
		tb.Fatal(err)
	}
	archives, err := values.Archives()
	if err != nil {
		tb.Fatal(err)
	}
	declared, err := values.Local("functions")
	if err != nil {
		tb.Fatal(err)
	}
	var out []deployed
	for name, f := range declared.AsValueMap() {
		text := func(attribute string) string { return f.GetAttr(attribute).AsString() }
		out = append(out, deployed{name, text("entry_point"), text("package"), text("topic"), archives[name]})
	}
	slices.SortFunc(out, func(a, b deployed) int { return strings.Compare(a.name, b.name) })
	if want := len(archives); want != len(out) || len(out) == 0 {
		tb.Fatalf("%d functions and %d archives", len(out), want)
	}
	return out
}

// build builds an archive in a folder of the test's.
func build(tb testing.TB, archive deployment.Archive, environment ...string) *buildpack.Build {
	tb.Helper()
	var zipped bytes.Buffer
	if err := archive.WriteZip(&zipped); err != nil {
		tb.Fatal(err)
	}
	b, err := buildpack.Run(tb.Context(), zipped.Bytes(), tb.TempDir(), environment...)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// server is a function's process.
type server struct {
	tb      testing.TB
	process *child.Process
	url     string
	log     *journal
}

// journal is what a process has logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// launch starts a function with nothing in its environment but what is given, its
// target and its port; the framework listens on loopback for LOCAL_ONLY.
func launch(tb testing.TB, binary, entryPoint string, environment ...string) *server {
	tb.Helper()
	port, err := postgres.FreePort(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	s := &server{tb: tb, url: "http://127.0.0.1:" + strconv.Itoa(port), log: &journal{}}
	cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), binary)
	cmd.Env = append([]string{"FUNCTION_TARGET=" + entryPoint, "PORT=" + strconv.Itoa(port), "LOCAL_ONLY=true"}, environment...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if s.process, err = child.Start(cmd, syscall.SIGKILL); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.process.Stop(syscall.SIGTERM, 20*time.Second); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// ready waits until somebody listens at the function's port. It sends nothing: the
// framework logs every request that is no event.
func (s *server) ready() *server {
	s.tb.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(s.tb.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			_ = conn.Close()
			return s
		}
		select {
		case <-s.process.Exited():
			s.tb.Fatalf("the function ended at once (%v):\n%s", s.process.Err(), s.log)
		case <-s.tb.Context().Done():
			s.tb.Fatalf("the function did not listen:\n%s", s.log)
		case <-ticker.C:
		}
	}
}

// httpClient keeps no connections, which would outlive a killed function.
var httpClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// request posts and returns the status of the answer.
func (s *server) request(path string, header map[string]string, body []byte) (int, error) {
	request, err := http.NewRequestWithContext(s.tb.Context(), http.MethodPost, s.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode, err
}

// push delivers data as the push subscription of a topic does: no CloudEvents headers,
// the topic in the path.
func (s *server) push(topic, data string) int {
	s.tb.Helper()
	path := "/projects/" + project + "/topics/" + topic
	return s.post(path, data, map[string]string{"Content-Type": "application/json", "User-Agent": "CloudPubSub-Google"})
}

// event delivers data as a CloudEvent in binary mode, as Eventarc does.
func (s *server) event(topic, data string) int {
	s.tb.Helper()
	return s.post("/", data, map[string]string{
		"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": "event-1", "Ce-Type": "google.cloud.pubsub.topic.v1.messagePublished",
		"Ce-Source": "//pubsub.googleapis.com/projects/" + project + "/topics/" + topic, "Ce-Time": time.Now().UTC().Format(time.RFC3339Nano),
	})
}

func (s *server) post(path, data string, header map[string]string) int {
	s.tb.Helper()
	body, err := json.Marshal(map[string]any{
		"subscription": "projects/" + project + "/subscriptions/by-hand",
		"message": map[string]any{
			"data": []byte(data), "messageId": "m-1", "publishTime": time.Now().UTC().Format(time.RFC3339Nano),
			"attributes": map[string]string{},
		},
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	status, err := s.request(path, header, body)
	if err != nil {
		s.tb.Fatalf("posting to %s: %v\n%s", path, err, s.log)
	}
	return status
}

// lines stops the program, so that all it has logged is there, and returns that: JSON
// throughout.
func (s *server) lines() []map[string]any {
	s.tb.Helper()
	if err := s.process.Stop(syscall.SIGTERM, 20*time.Second); err != nil {
		s.tb.Error(err)
	}
	var out []map[string]any
	for text := range strings.Lines(s.log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			s.tb.Errorf("a line of the log is no JSON: %s", text)
		}
		out = append(out, line)
	}
	return out
}

// cloud is what functions work with: a database, BigQuery and Pub/Sub.
type cloud struct {
	tb       testing.TB
	db       *pgx.Conn
	bigquery *bigqueryapi.Client
	// environment leads a function to them.
	environment []string
}

const shopFile = `
pipeline: shop
destination: {dataset: shop}
tables:
  - {name: items, every: 1m, capture: {method: watermark, cursor: updated_at}}
dedup: {every: 90m}
reverse_etl:
  - name: scores
    every: 15m
    query: SELECT id, CAST(id AS NUMERIC) / 4 AS score FROM ` + "`{dataset}.items`" + `
    mode: update
    target: {table: scores, key: {id: id}, columns: {score: score}}
`

const shopSQL = `
CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX ON items (updated_at, id);
INSERT INTO items SELECT n, 'item' FROM generate_series(1, 10) n;
CREATE TABLE scores (id int PRIMARY KEY, score numeric);
INSERT INTO scores (id) SELECT id FROM items`

func newCloud(tb testing.TB) *cloud {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	c := &cloud{tb: tb}
	address := postgres.NewDatabase(tb)
	var err error
	if c.db, err = pgx.Connect(ctx, address); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.must(c.db.Close(ctx)) })
	if _, err := c.db.Exec(ctx, shopSQL); err != nil {
		tb.Fatal(err)
	}
	warehouse, err := bigquery.Start(ctx, bigquery.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.must(warehouse.Close()) })
	messages, err := pubsub.Start(ctx, pubsub.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.must(messages.Close()) })
	c.bigquery, err = bigqueryapi.NewClient(ctx, project, option.WithEndpoint("http://"+warehouse.RESTHost()+"/bigquery/v2/"), option.WithoutAuthentication())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.must(c.bigquery.Close()) })
	pipelines := tb.TempDir()
	if err := os.WriteFile(filepath.Join(pipelines, "shop.yaml"), []byte(shopFile), 0o600); err != nil {
		tb.Fatal(err)
	}
	c.environment = []string{
		"DATABASE_URL=" + address, "GOOGLE_CLOUD_PROJECT=" + project, "TIDEMARK_PIPELINES=" + pipelines,
		"BIGQUERY_EMULATOR_HOST=" + warehouse.RESTHost(), "BIGQUERY_STORAGE_EMULATOR_HOST=" + warehouse.StorageHost(),
		"PUBSUB_EMULATOR_HOST=" + messages.Host(), "CLOUD_RUN_TIMEOUT_SECONDS=540",
	}
	return c
}

func (c *cloud) must(err error) {
	c.tb.Helper()
	if err != nil {
		c.tb.Error(err)
	}
}

func (c *cloud) exec(sql string) {
	c.tb.Helper()
	if _, err := c.db.Exec(c.tb.Context(), sql); err != nil {
		c.tb.Fatalf("%s: %v", sql, err)
	}
}

// rows is the one number that a query on Postgres returns.
func (c *cloud) rows(sql string) int64 {
	c.tb.Helper()
	var n int64
	if err := c.db.QueryRow(c.tb.Context(), sql).Scan(&n); err != nil {
		c.tb.Fatalf("%s: %v", sql, err)
	}
	return n
}

// count counts the rows of a table in BigQuery.
func (c *cloud) count(table string) int64 {
	c.tb.Helper()
	it, err := c.bigquery.Query(fmt.Sprintf("SELECT COUNT(*) AS n FROM `%s.%s`", project, table)).Read(c.tb.Context())
	if err != nil {
		c.tb.Fatal(err)
	}
	var row struct{ N int64 }
	if err := it.Next(&row); err != nil {
		c.tb.Fatal(err)
	}
	return row.N
}

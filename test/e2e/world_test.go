// Package e2e_test runs the product against a real Postgres and the strict
// BigQuery emulator, through the real Google clients over the network.
package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/dedup"
	"github.com/tidemark-data/tidemark/shared/extract"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/reverse"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/bigquery/analyzer"
	"github.com/tidemark-data/tidemark/test/parity"
	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/storage"
)

func TestMain(m *testing.M) {
	// opencensus is started by the Google clients' import and never ends.
	postgres.Main(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const project = "test-project"

// stagingBucket is where the product has load jobs find their files.
const stagingBucket = "staging"

// world is one Postgres database and one BigQuery with a bucket to load from, with
// the product between.
type world struct {
	t       *testing.T
	url     string
	db      *pgxpool.Pool
	bq      *emulator.Server
	storage *storage.Server
	client  *bigquery.Client
	product *instance.Connections

	ahead    atomic.Int64 // of this machine's clock is BigQuery's, a time.Duration
	provoked []string     // beginnings of errors that the test has BigQuery answer

	mu        sync.Mutex
	published []tick.Message
}

// newWorld starts one from a pipeline file and the SQL of the application.
func newWorld(t *testing.T, file string, sql ...string) *world {
	t.Helper()
	return newWorldOn(t, postgres.NewDatabase(t), file, sql...)
}

func newWorldOn(t *testing.T, url, file string, sql ...string) *world {
	t.Helper()
	ctx := t.Context()
	w := &world{t: t, url: url, db: pool(t, url)}
	for _, statement := range sql {
		w.exec(statement)
	}
	var err error
	if w.storage, err = storage.Start(ctx, storage.Options{Buckets: []string{stagingBucket}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, w.storage.Close()) })
	if w.bq, err = emulator.Start(ctx, emulator.Options{CloudStorageHost: w.storage.Host(), Now: w.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, w.bq.Close()) })
	w.client, err = bigquery.NewClient(context.WithoutCancel(ctx), project, option.WithEndpoint("http://"+w.bq.RESTHost()+"/bigquery/v2/"), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, w.client.Close()) })
	w.product = w.connect(file)
	t.Cleanup(w.everyStatementAnalyzed)
	return w
}

// now is the time at BigQuery.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// with is the product's connections under another pipeline file.
func (w *world) with(file string) *instance.Connections {
	w.t.Helper()
	c := *w.product
	c.Pipelines = w.pipelines(file)
	return &c
}

func (w *world) pipelines(file string) []pipeline.Pipeline {
	w.t.Helper()
	pipelines, err := pipeline.Load(fstest.MapFS{"test.yaml": {Data: []byte(file)}}, schemas.PipelineSchema())
	if err != nil {
		w.t.Fatal(err)
	}
	return pipelines
}

// connect opens the product's connections, as one more function instance.
func (w *world) connect(file string) *instance.Connections {
	w.t.Helper()
	pipelines := w.pipelines(file)
	source := cloudsql.Config{URL: w.url}
	c, err := instance.Connect(w.t.Context(), instance.Config{
		Source: source, Control: source, Pipelines: pipelines,
		Warehouse: warehouse.Config{
			Project: project, Host: w.bq.RESTHost(), StorageHost: w.bq.StorageHost(),
			StagingBucket: stagingBucket, CloudStorageHost: w.storage.Host(),
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { must(w.t, c.Close()) })
	return c
}

// connectAs opens the product's connections as a role of its own, without any
// privilege but the granted ones and its own control plane.
func (w *world) connectAs(role, grant string) *instance.Connections {
	w.t.Helper()
	database := w.value("SELECT current_database()")
	role += "_" + database
	w.exec("CREATE ROLE " + role + " LOGIN")
	w.exec("GRANT CREATE ON DATABASE " + database + " TO " + role)
	w.exec(fmt.Sprintf(grant, role))
	w.exec(`DROP SCHEMA tidemark CASCADE`)
	url := w.url
	defer func() { w.url = url }()
	w.url = strings.Replace(url, postgres.User+"@", role+"@", 1)
	return w.connect(itemsFile(""))
}

func pool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["search_path"] = "public"
	config.ConnConfig.RuntimeParams["statement_timeout"] = "20s"
	config.MaxConns = 12
	p, err := pgxpool.NewWithConfig(context.WithoutCancel(t.Context()), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) dispatcher(c *instance.Connections, topic string) tick.Dispatcher {
	d := c.Dispatcher(topic)
	d.Publish = func(_ context.Context, messages ...tick.Message) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.published = append(w.published, messages...)
		return nil
	}
	return d
}

func (w *world) delivery(message string) tick.Delivery {
	w.t.Helper()
	m, err := tick.Parse([]byte(message))
	if err != nil {
		w.t.Fatal(err)
	}
	return tick.Delivery{Message: m, ID: "m-" + message, Published: time.Now(), Data: []byte(message)}
}

func (w *world) extractOn(c *instance.Connections, message string) error {
	r := extract.Runner{Dispatcher: w.dispatcher(c, tick.TopicExtract), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse, HashKey: c.HashKey}
	return r.Run(w.t.Context(), w.delivery(message))
}

// tick runs Extract and expects it to succeed.
func (w *world) tick() {
	w.t.Helper()
	if err := w.extractOn(w.product, ""); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) dedup(message string) {
	w.t.Helper()
	c := w.product
	r := dedup.Runner{Dispatcher: w.dispatcher(c, tick.TopicDedup), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse}
	if err := r.Run(w.t.Context(), w.delivery(message)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) reverse(message string) error {
	c := w.product
	r := reverse.Runner{Dispatcher: w.dispatcher(c, tick.TopicReverseETL), Target: c.Source, Control: c.Control, Warehouse: c.Warehouse}
	return r.Run(w.t.Context(), w.delivery(message))
}

// same fails unless the view equals the Postgres table, value by value.
func (w *world) same(dataset string, tables ...string) {
	w.t.Helper()
	for _, table := range tables {
		if report := w.compare(dataset, table); !report.Agrees() {
			w.t.Errorf("%s", report)
		}
	}
}

// compare compares a table's columns but those named.
func (w *world) compare(dataset, table string, without ...string) parity.Report {
	w.t.Helper()
	return w.compareTo(dataset+"."+table, table, without...)
}

// compareTo compares a Postgres table with a view of any name.
func (w *world) compareTo(view, table string, without ...string) parity.Report {
	w.t.Helper()
	ctx := w.t.Context()
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { must(w.t, conn.Close(ctx)) }()
	report, err := parity.Compare(ctx, conn, w.client, parity.Table{Name: table, View: project + "." + view, Without: without})
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

// rows runs a query on BigQuery.
func (w *world) rows(sql string) [][]bigquery.Value {
	w.t.Helper()
	it, err := w.client.Query(sql).Read(w.t.Context())
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	var out [][]bigquery.Value
	for {
		var row []bigquery.Value
		err := it.Next(&row)
		if errors.Is(err, iterator.Done) {
			return out
		}
		if err != nil {
			w.t.Fatalf("%s: %v", sql, err)
		}
		out = append(out, row)
	}
}

// count is the one number a query on BigQuery returns.
func (w *world) count(sql string) int64 {
	w.t.Helper()
	n, ok := w.rows(sql)[0][0].(int64)
	if !ok {
		w.t.Fatalf("%s: no number", sql)
	}
	return n
}

// value is the one value a query on Postgres returns, as text.
func (w *world) value(sql string, args ...any) string {
	w.t.Helper()
	var out *string
	if err := w.db.QueryRow(w.t.Context(), "SELECT ("+sql+")::text", args...).Scan(&out); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	if out == nil {
		return "NULL"
	}
	return *out
}

// everyStatementAnalyzed fails unless Google's analyzer accepted each statement
// that reached BigQuery (I12).
func (w *world) everyStatementAnalyzed() { analyzed(w.t, w.bq, w.provoked...) }

// analyzed fails if a statement was not accepted; provoked are beginnings of errors that
// the test has the data or the rate of statements cause.
func analyzed(t *testing.T, bq *emulator.Server, provoked ...string) {
	t.Helper()
	if !analyzer.Available {
		t.Errorf("the tests need -tags googlesql: SQL would go unchecked")
	}
	for _, s := range bq.Statements() {
		caused := slices.ContainsFunc(provoked, func(beginning string) bool { return strings.HasPrefix(s.Err, beginning) })
		if !caused && (!s.Analyzed || s.Err != "") { // a job that is cancelled before it begins is not looked at
			t.Errorf("statement not accepted by the analyzer (analyzed %t): %s\n%s", s.Analyzed, s.Err, s.SQL)
		}
	}
}

func tables(names []string, cursor func(string) string, extra func(string) string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(slices.Values(names)) {
		fmt.Fprintf(&b, "  - {name: %s, capture: {method: watermark, cursor: %s}%s}\n", name, cursor(name), extra(name))
	}
	return b.String()
}

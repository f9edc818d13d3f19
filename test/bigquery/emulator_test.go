package bigquery_test

import (
	"context"
	"errors"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	storage "cloud.google.com/go/bigquery/storage/apiv1"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"go.uber.org/goleak"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(
		m,
		// The clients' telemetry library starts this when it is linked.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
		// The writer client lets a timer of 20 s run out behind each connection.
		goleak.IgnoreAnyFunction("cloud.google.com/go/bigquery/storage/managedwriter.(*connection).getStream.func1"),
	)
}

const project = "test-project"

// bundle is an emulator with the official clients connected to it.
type bundle struct {
	server *bigquery.Server
	client *gcp.Client
	writer *managedwriter.Client
	reader *storage.BigQueryReadClient
}

func start(tb testing.TB, o bigquery.Options) *bundle {
	tb.Helper()
	ctx := tb.Context()
	s, err := bigquery.Start(ctx, o)
	if err != nil {
		tb.Fatal(err)
	}
	b := &bundle{server: s}
	// The clients keep the context for their connections, which outlive the
	// test's.
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	tb.Cleanup(func() {
		if err := errors.Join(b.client.Close(), b.writer.Close(), b.reader.Close()); err != nil {
			tb.Error(err)
		}
		cancel()
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	rest := restOptions(s)
	rpc := []option.ClientOption{
		option.WithEndpoint(s.StorageHost()), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	if b.client, err = gcp.NewClient(live, project, rest...); err != nil {
		tb.Fatal(err)
	}
	if err := b.client.EnableStorageReadClient(live, rpc...); err != nil {
		tb.Fatal(err)
	}
	if b.writer, err = managedwriter.NewClient(live, project, rpc...); err != nil {
		tb.Fatal(err)
	}
	if b.reader, err = storage.NewBigQueryReadClient(live, rpc...); err != nil {
		tb.Fatal(err)
	}
	return b
}

func restOptions(s *bigquery.Server) []option.ClientOption {
	return []option.ClientOption{option.WithEndpoint("http://" + s.RESTHost() + "/bigquery/v2/"), option.WithoutAuthentication()}
}

func (b *bundle) restOptions() []option.ClientOption { return restOptions(b.server) }

// clock is a clock that tests move.
type clock struct{ now chan time.Time }

func newClock(at time.Time) *clock {
	c := &clock{make(chan time.Time, 1)}
	c.now <- at
	return c
}

func (c *clock) Now() time.Time {
	at := <-c.now
	c.now <- at
	return at
}

func (c *clock) advance(d time.Duration) { c.now <- (<-c.now).Add(d) }

func (b *bundle) dataset(tb testing.TB, name string) *gcp.Dataset {
	tb.Helper()
	ds := b.client.Dataset(name)
	if err := ds.Create(tb.Context(), nil); err != nil {
		tb.Fatal(err)
	}
	return ds
}

func (b *bundle) table(tb testing.TB, ds *gcp.Dataset, name string, meta *gcp.TableMetadata) *gcp.Table {
	tb.Helper()
	table := ds.Table(name)
	if err := table.Create(tb.Context(), meta); err != nil {
		tb.Fatal(err)
	}
	return table
}

func (b *bundle) query(t *testing.T, sql string, params ...gcp.QueryParameter) [][]gcp.Value {
	t.Helper()
	q := b.client.Query(sql)
	q.Parameters = params
	it, err := q.Read(t.Context())
	if err != nil {
		t.Fatalf("querying %s: %v", sql, err)
	}
	return rows(t, it)
}

func rows(t *testing.T, it *gcp.RowIterator) [][]gcp.Value {
	t.Helper()
	var out [][]gcp.Value
	for {
		var row []gcp.Value
		err := it.Next(&row)
		if errors.Is(err, iterator.Done) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
}

// wantCode checks the HTTP code and reason of an error.
func wantCode(t *testing.T, err error, code int, reason string) {
	t.Helper()
	var e *googleapi.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want a googleapi error %d %s", err, code, reason)
	}
	if e.Code != code || len(e.Errors) == 0 || e.Errors[0].Reason != reason {
		t.Fatalf("got error %d %v, want %d %s", e.Code, e.Errors, code, reason)
	}
}

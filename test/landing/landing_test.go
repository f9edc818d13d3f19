// Package landing_test runs the warehouse's tables alone, without a Postgres:
// versions and tombstones are written as Extract writes them, and what readers see
// is compared with what a plain model of the log says they should.
package landing_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/bigquery/analyzer"
)

func TestMain(m *testing.M) {
	// opencensus is started by the Google clients' import and never ends.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const (
	project = "test-project"
	dataset = "shop"
)

// now is the time of every test: BigQuery takes rows into partitions near it.
var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// fatal is what a test and a property's check have in common.
type fatal interface {
	Helper()
	Context() context.Context
	Fatalf(format string, args ...any)
}

// shore is a BigQuery, the product's client of it, and one to look with.
type shore struct {
	server *emulator.Server
	client *warehouse.Client
	look   *bigquery.Client
	tables atomic.Int64
}

// newShore starts one; provoked are beginnings of errors that the test has BigQuery
// answer, and every other statement must have been accepted by Google's analyzer (I12).
func newShore(t *testing.T, provoked ...string) *shore {
	t.Helper()
	server, err := emulator.Start(t.Context(), emulator.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return newShoreOn(t, server, provoked...)
}

func newShoreOn(t *testing.T, server *emulator.Server, provoked ...string) *shore {
	t.Helper()
	s := &shore{
		server: server,
		client: warehouse.NewClient(warehouse.Config{Project: project, Host: server.RESTHost(), StorageHost: server.StorageHost()}),
	}
	var err error
	s.look, err = bigquery.NewClient(context.WithoutCancel(t.Context()), project, option.WithEndpoint("http://"+server.RESTHost()+"/bigquery/v2/"), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !analyzer.Available {
			t.Errorf("the tests need -tags googlesql: SQL would go unchecked")
		}
		for _, st := range server.Statements() {
			caused := slices.ContainsFunc(provoked, func(beginning string) bool { return strings.HasPrefix(st.Err, beginning) })
			if !st.Analyzed && analyzer.Available || st.Err != "" && !caused {
				t.Errorf("statement not accepted (analyzed %t): %s\n%s", st.Analyzed, st.Err, st.SQL)
			}
		}
		if err := errors.Join(s.look.Close(), s.client.Close(), server.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// read runs a query.
func (s *shore) read(t fatal, sql string) [][]bigquery.Value {
	t.Helper()
	it, err := s.look.Query(sql).Read(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var out [][]bigquery.Value
	for {
		var row []bigquery.Value
		err := it.Next(&row)
		if errors.Is(err, iterator.Done) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		out = append(out, row)
	}
}

// version is one row of a log.
type version struct {
	Key      int64
	Name     string
	Tags     []string
	Day      string // "" for NULL
	Version  string
	SyncedAt int64 // microseconds
	Deleted  bool
}

// month is the id of the version's partition.
func (v version) month() string {
	if v.Day == "" {
		return warehouse.NullPartition
	}
	return v.Day[:4] + v.Day[5:7]
}

// batch is what one run of Extract appends: versions in order, at ordinals from 0.
type batch struct {
	Generation int
	Position   int64
	Rows       []version
}

// number gives the rows the versions they are written with.
func (b *batch) number() {
	for i := range b.Rows {
		b.Rows[i].Version = warehouse.VersionAt(b.Generation, b.Position, int64(i))
		b.Rows[i].SyncedAt = now.UnixMicro() + int64(b.Generation)*1_000_000 - b.Position // not in the order of versions
		if b.Rows[i].Deleted {
			b.Rows[i].Name, b.Rows[i].Tags, b.Rows[i].Day = "", nil, ""
		}
	}
}

// table is a new destination, partitioned by month.
func (s *shore) table(deletes warehouse.Deletes) *warehouse.Table {
	return &warehouse.Table{
		Dataset: dataset, Name: fmt.Sprintf("items%d", s.tables.Add(1)), Key: []string{"id"}, Deletes: deletes,
		Columns: []warehouse.Column{
			{Name: "id", Kind: rowwire.Int8, Required: true},
			{Name: "name", Kind: rowwire.Text},
			{Name: "tags", Kind: rowwire.Text, Repeated: true},
			{Name: "day", Kind: rowwire.Date},
		},
		Partition: &warehouse.Partition{Column: "day", Granularity: "month"},
	}
}

func (s *shore) ensure(t fatal, table *warehouse.Table) {
	t.Helper()
	placed, err := s.client.Ensure(t.Context(), table)
	if err != nil {
		t.Fatalf("preparing the table: %v", err)
	}
	table.Base = placed.Base
}

// land appends a batch as Extract does, and returns the partitions it says it wrote to.
func (s *shore) land(t fatal, table *warehouse.Table, b batch) []string {
	t.Helper()
	var fields [][][]byte
	var deleted []bool
	for _, v := range b.Rows {
		fields, deleted = append(fields, v.fields()), append(deleted, v.Deleted)
	}
	layout := table.Layout(now, false)
	if len(b.Rows) > 0 {
		layout.SyncedAt = b.Rows[0].SyncedAt
	}
	layout.VersionPrefix = warehouse.Version(b.Generation, b.Position)
	partitions, err := s.landRows(t.Context(), layout, table, fields, deleted)
	if err != nil {
		t.Fatalf("appending: %v", err)
	}
	return partitions
}

// landRows writes rows as the table's mode does.
func (s *shore) landRows(ctx context.Context, layout rowwire.Layout, table *warehouse.Table, rows [][][]byte, deleted []bool) ([]string, error) {
	return s.landWith(ctx, layout, table, func(tr *rowwire.Transcoder) error {
		for i, row := range rows {
			tr.Deleted(deleted[i])
			if err := tr.Tuple(row); err != nil {
				return err
			}
		}
		return nil
	})
}

// landWith writes what put gives to the transcoder.
func (s *shore) landWith(ctx context.Context, layout rowwire.Layout, table *warehouse.Table, put func(*rowwire.Transcoder) error) ([]string, error) {
	sink, partitions, err := s.fill(ctx, layout, table, put)
	if err != nil {
		return nil, err
	}
	defer sink.Close()
	if sink.Name() == "" {
		return nil, nil
	}
	return partitions, s.client.Commit(ctx, table, warehouse.Batch{
		Name: sink.Name(), Version: layout.VersionPrefix, At: time.UnixMicro(layout.SyncedAt), Partitions: partitions, Backfilled: true,
	})
}

// fill finishes a batch and does not commit it.
func (s *shore) fill(ctx context.Context, layout rowwire.Layout, table *warehouse.Table, put func(*rowwire.Transcoder) error) (warehouse.Sink, []string, error) {
	sink, err := s.client.Open(ctx, table, false, new(warehouse.Buffers))
	if err != nil {
		return nil, nil, err
	}
	tr, err := rowwire.NewTranscoder(layout, nil,
		func(full *rowwire.Batch) (*rowwire.Batch, error) { return sink.Append(ctx, full) },
		func(r rowwire.Reject) error { return errors.New(r.Reason.String()) })
	if err == nil {
		err = put(tr)
	}
	if err == nil {
		err = tr.Close()
	}
	if err == nil {
		_, err = sink.Finish(ctx)
	}
	if err != nil {
		sink.Close()
		return nil, nil, err
	}
	return sink, tr.Partitions(), nil
}

// fields are the version's bytes as Postgres sends them.
func (v version) fields() [][]byte {
	key := binary.BigEndian.AppendUint64(nil, uint64(v.Key))
	if v.Deleted {
		return [][]byte{key, nil, nil, nil}
	}
	tags := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25}
	tags = binary.BigEndian.AppendUint32(tags, uint32(len(v.Tags)))
	tags = binary.BigEndian.AppendUint32(tags, 1)
	for _, tag := range v.Tags {
		tags = append(binary.BigEndian.AppendUint32(tags, uint32(len(tag))), tag...)
	}
	if len(v.Tags) == 0 {
		tags = make([]byte, 12)
	}
	var day []byte
	if v.Day != "" {
		at, err := time.Parse(time.DateOnly, v.Day)
		if err != nil {
			return nil
		}
		const epoch = 10957 // Postgres counts days from 2000
		day = binary.BigEndian.AppendUint32(nil, uint32(at.Unix()/86400-epoch))
	}
	return [][]byte{key, []byte(v.Name), tags, day}
}

const columns = "id, name, tags, CAST(day AS STRING), _version, UNIX_MICROS(_synced_at), _deleted"

// view is what readers see.
func (s *shore) view(t fatal, table *warehouse.Table) []version {
	t.Helper()
	return versions(s.read(t, fmt.Sprintf("SELECT %s FROM %s.%s ORDER BY id, _version", columns, dataset, table.Name)))
}

// log is every version there is.
func (s *shore) log(t fatal, table *warehouse.Table) []version {
	t.Helper()
	return versions(s.read(t, fmt.Sprintf("SELECT %s FROM %s.%s ORDER BY id, _version", columns, dataset, table.BaseName())))
}

func versions(rows [][]bigquery.Value) []version {
	var out []version
	text := func(v bigquery.Value) string { s, _ := v.(string); return s }
	number := func(v bigquery.Value) int64 { n, _ := v.(int64); return n }
	for _, row := range rows {
		v := version{Key: number(row[0]), Name: text(row[1]), Day: text(row[3]), Version: text(row[4]), SyncedAt: number(row[5])}
		v.Deleted, _ = row[6].(bool)
		tags, _ := row[2].([]bigquery.Value)
		for _, tag := range tags {
			v.Tags = append(v.Tags, text(tag))
		}
		out = append(out, v)
	}
	return out
}

// shown is what readers should see of a log, key by key, told as the policies are.
func shown(deletes warehouse.Deletes, log []version) []version {
	keys := map[int64][]version{}
	for _, v := range log {
		keys[v.Key] = append(keys[v.Key], v)
	}
	var out []version
	for _, of := range keys {
		slices.SortStableFunc(of, func(a, b version) int { return cmp.Compare(b.Version, a.Version) })
		newest := of[0]
		lives := slices.IndexFunc(of, func(v version) bool { return !v.Deleted })
		row := newest
		switch {
		case deletes == warehouse.HardDeletes && newest.Deleted, deletes == warehouse.IgnoreDeletes && lives < 0:
			continue
		case deletes == warehouse.IgnoreDeletes:
			row = of[lives]
		case deletes == warehouse.SoftDeletes && lives >= 0:
			row = of[lives]
			row.Version, row.SyncedAt, row.Deleted = newest.Version, newest.SyncedAt, newest.Deleted
		}
		out = append(out, row)
	}
	slices.SortFunc(out, func(a, b version) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// same fails unless two lists of versions are equal.
func same(t fatal, what string, want, got []version) {
	t.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

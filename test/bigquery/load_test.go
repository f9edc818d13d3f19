package bigquery_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"cloud.google.com/go/civil"
	storageapi "cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/protobuf/types/descriptorpb"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/storage"
)

// loads is an emulator that loads from a bucket.
type loads struct {
	*bundle
	objects *storage.Server
	bucket  *storageapi.BucketHandle
	ds      *gcp.Dataset
}

const stagingBucket = "staging"

func startLoads(t *testing.T, o bigquery.Options) *loads {
	t.Helper()
	objects, err := storage.Start(t.Context(), storage.Options{Buckets: []string{stagingBucket}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := objects.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := storageapi.NewClient(t.Context(), option.WithEndpoint("http://"+objects.Host()+"/storage/v1/"), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	o.CloudStorageHost = objects.Host()
	if o.Limits.TableUpdates == 0 {
		o.Limits.TableUpdates = 1000
	}
	l := &loads{bundle: start(t, o), objects: objects, bucket: client.Bucket(stagingBucket)}
	l.ds = l.dataset(t, "shop")
	return l
}

// put writes an object and returns its URI.
func (l *loads) put(t *testing.T, name, content string) string {
	t.Helper()
	w := l.bucket.Object(name).NewWriter(t.Context())
	_, err := w.Write([]byte(content))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return "gs://" + stagingBucket + "/" + name
}

func packed(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(content))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// loader is a load of JSON files, which a test may change before it runs.
func loader(table *gcp.Table, uris ...string) *gcp.Loader {
	source := gcp.NewGCSReference(uris...)
	source.SourceFormat = gcp.JSON
	return table.LoaderFrom(source)
}

func source(l *gcp.Loader) *gcp.GCSReference { return l.Src.(*gcp.GCSReference) } //nolint:forcetypeassert // what loader made

// run runs a load to its end: its status, or the error of the call.
func runLoad(t *testing.T, l *gcp.Loader) (*gcp.JobStatus, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	job, err := l.Run(ctx)
	if err != nil {
		return nil, err
	}
	for {
		status, err := job.Status(ctx)
		if err != nil || status.Done() {
			return status, err
		}
	}
}

func mustLoad(t *testing.T, l *gcp.Loader) *gcp.LoadStatistics {
	t.Helper()
	status, err := runLoad(t, l)
	if err == nil {
		err = status.Err()
	}
	if err != nil {
		t.Fatalf("loading: %v", err)
	}
	stats, ok := status.Statistics.Details.(*gcp.LoadStatistics)
	if !ok {
		t.Fatalf("statistics are %T", status.Statistics.Details)
	}
	return stats
}

// wantFailed expects a job that failed for a reason.
func wantFailed(t *testing.T, l *gcp.Loader, reason string) *gcp.JobStatus {
	t.Helper()
	status, err := runLoad(t, l)
	if err != nil {
		t.Fatalf("the call failed: %v", err)
	}
	var e *gcp.Error
	if !errors.As(status.Err(), &e) || e.Reason != reason {
		t.Fatalf("job ended with %v, want reason %s", status.Err(), reason)
	}
	return status
}

func (l *loads) count(t *testing.T, table string) int64 {
	t.Helper()
	n, ok := l.query(t, "SELECT COUNT(*) FROM shop."+table)[0][0].(int64)
	if !ok {
		t.Fatal("COUNT is no integer")
	}
	return n
}

// TestLoadOfEveryType reads each type in its documented forms.
func TestLoadOfEveryType(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	table := l.table(t, l.ds, "every", &gcp.TableMetadata{Schema: everyType})
	uri := l.put(t, "every.json", strings.ReplaceAll(strings.Join(everyLines(), "\n"), "\n\t\t\t", " "))
	stats := mustLoad(t, loader(table, uri))
	if stats.OutputRows != 4 || stats.InputFiles != 1 || stats.InputFileBytes == 0 || stats.OutputBytes == 0 {
		t.Errorf("statistics: %+v", stats)
	}
	none := []gcp.Value{}
	date := func(y int, m time.Month, d int) civil.Date { return civil.Date{Year: y, Month: m, Day: d} }
	want := [][]gcp.Value{
		{
			int64(math.MinInt64), false, math.Inf(-1), "",
			[]byte{},
			rat("0"),
			rat("-578960446186580977117854925043439539266.34992332820282019728792003956564819968"), date(1, 1, 1),
			civil.Time{},
			civil.DateTime{Date: date(1, 1, 1)},
			time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), "null", none,
			[]gcp.Value{int64(3), int64(4)},
			none, nil,
		},
		{int64(0), nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, none, none, none, nil},
		{
			int64(1), true, 1.5, "it's \"ü\" \\ 😀\n\x00-", []byte("\x00\xff'"), rat("-12345678901234567890123456789.123456789"),
			rat("123456789012345678901234567890123456789.98765432109876543210987654321098765432"), date(2024, 10, 4),
			civil.Time{Hour: 23, Minute: 59, Second: 59, Nanosecond: 999999000},
			civil.DateTime{Date: date(2024, 2, 29), Time: civil.Time{Hour: 12, Minute: 34, Second: 56, Nanosecond: 1000}},
			time.UnixMicro(1700000000123456).UTC(), `{"a":[1.5,"x"],"b":9007199254740993}`,
			[]gcp.Value{"p", ""},
			[]gcp.Value{int64(-1)},
			[]gcp.Value{`{"q":1}`, `"null"`},
			[]gcp.Value{int64(7), rat("0.000000001"), []gcp.Value{"m"}},
		},
		{
			int64(math.MaxInt64), nil, math.NaN(), nil, nil, rat("99999999999999999999999999999.999999999"),
			rat("578960446186580977117854925043439539266.34992332820282019728792003956564819967"), date(9999, 12, 31), nil,
			civil.DateTime{Date: date(9999, 12, 31), Time: civil.Time{Hour: 23, Minute: 59, Second: 59, Nanosecond: 999999000}},
			time.UnixMicro(253402300799999999).UTC(), `"text"`, none, none, none, nil,
		},
	}
	got := l.query(t, "SELECT * FROM shop.every ORDER BY k")
	if diff := cmp.Diff(want, got, compareValues); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	meta, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.StreamingBuffer != nil || meta.NumRows != 4 {
		t.Errorf("%d rows, streaming buffer %v", meta.NumRows, meta.StreamingBuffer)
	}
}

func everyLines() []string {
	return []string{
		`{"k":"-9223372036854775808","b":"no","f":"-Infinity","s":"","y":"","n":"0","bn":"-578960446186580977117854925043439539266.34992332820282019728792003956564819968",
			"d":"0001-01-01","t":"00:00:00","dt":"0001-01-01 00:00:00","ts":"0001-01-01 00:00:00 UTC","j":null,"a":null,"ai":["3",4],"aj":[]}`,
		`{"k":0,"b":null,"r":null}`,
		`{ "k" : 1 , "b" : true, "f":1.5, "s":"it's \"\u00fc\" \\ \ud83d\ude00\n\u0000-", "y":"AP8n", "n":"-12345678901234567890123456789.123456789",
			"bn":"123456789012345678901234567890123456789.98765432109876543210987654321098765432", "d":"2024-10-04","t":"23:59:59.999999",
			"dt":"2024-02-29 12:34:56.000001","ts":"2023-11-14T22:13:20.123456Z","j":{"b": 9007199254740993, "a":[1.50, "x"], "b": 2},
			"a":["p",""],"ai":[-1],"aj":[{"q":1},"null"],"r":{"x":7,"z":0.000000001,"l":["m"]}}` + "\r",
		`{"k":9223372036854775807,"f":"NaN","n":"99999999999999999999999999999.999999999","bn":"578960446186580977117854925043439539266.34992332820282019728792003956564819967",
			"d":"9999-12-31","dt":"9999-12-31 23:59:59.999999","ts":"9999-12-31 23:59:59.999999+00:00","j":"text"}`,
	}
}

// wireColumns are a kind of rowwire each, with the column it goes to.
var wireColumns = []struct {
	kind  rowwire.Kind
	field gcp.FieldType
	proto descriptorpb.FieldDescriptorProto_Type
}{
	{rowwire.Int8, gcp.IntegerFieldType, descriptorpb.FieldDescriptorProto_TYPE_INT64},
	{rowwire.Bool, gcp.BooleanFieldType, descriptorpb.FieldDescriptorProto_TYPE_BOOL},
	{rowwire.Float8, gcp.FloatFieldType, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE},
	{rowwire.Text, gcp.StringFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING},
	{rowwire.Bytes, gcp.BytesFieldType, descriptorpb.FieldDescriptorProto_TYPE_BYTES},
	{rowwire.Numeric, gcp.NumericFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING},
	{rowwire.BigNumeric, gcp.BigNumericFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING},
	{rowwire.Date, gcp.DateFieldType, descriptorpb.FieldDescriptorProto_TYPE_INT32},
	{rowwire.Time, gcp.TimeFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING},
	{rowwire.DateTime, gcp.DateTimeFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING},
	{rowwire.Timestamp, gcp.TimestampFieldType, descriptorpb.FieldDescriptorProto_TYPE_INT64},
	{rowwire.JSON, gcp.JSONFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING},
}

// drawWire draws the value of one column of a message, nothing for NULL.
func drawWire(t *rapid.T, m message, n int, column int) message {
	field := numberOf(n)
	micros := rapid.Int64Range(-62135596800000000, 253402300799999999)
	switch wireColumns[column].kind {
	case rowwire.Int8:
		return m.i(field, rapid.Int64().Draw(t, "int"))
	case rowwire.Bool:
		return m.i(field, rapid.Int64Range(0, 1).Draw(t, "bool"))
	case rowwire.Float8:
		return m.f(field, rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 1 << 53})).Draw(t, "float"))
	case rowwire.Bytes:
		return m.s(field, string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")))
	case rowwire.Numeric:
		return m.s(field, rapid.StringMatching(`-?(0|[1-9][0-9]{0,28})(\.[0-9]{1,9})?`).Draw(t, "numeric"))
	case rowwire.BigNumeric:
		return m.s(field, rapid.StringMatching(`-?(0|[1-9][0-9]{0,37})(\.[0-9]{1,38})?`).Draw(t, "bignumeric"))
	case rowwire.Date:
		return m.i(field, rapid.Int64Range(-719162, 2932896).Draw(t, "date"))
	case rowwire.Time:
		return m.s(field, time.UnixMicro(rapid.Int64Range(0, 86_399_999_999).Draw(t, "time")).UTC().Format("15:04:05.999999"))
	case rowwire.DateTime:
		return m.s(field, time.UnixMicro(micros.Draw(t, "datetime")).UTC().Format("2006-01-02 15:04:05.999999"))
	case rowwire.Timestamp:
		return m.i(field, micros.Draw(t, "timestamp"))
	case rowwire.JSON:
		return m.s(field, rapid.SampledFrom([]string{
			"null", `"a"`, `"{\"a\": 1}"`, "1.10", "-0.0", "18446744073709551615", "[1,\n \"x\"]", `{"b": [], "a": {"c": null}}`, "true", `"\u2028\u0001"`, "1e300",
		}).Draw(t, "json"))
	default:
		return m.s(field, rapid.String().Draw(t, "text"))
	}
}

// TestLoadEqualsStream: rows that go as JSON lines by a load job are the rows that go as
// messages by the Storage Write API, to the last bit.
func TestLoadEqualsStream(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	schema := gcp.Schema{{Name: "k", Type: gcp.IntegerFieldType}}
	layout := rowwire.Layout{Columns: []rowwire.Column{{Kind: rowwire.Int4, Field: 1}}}
	names := []string{"k"}
	fields := []protoField{{name: "k", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64}}
	for i, c := range wireColumns {
		for _, repeated := range []bool{false, true} {
			name := fmt.Sprintf("c%d %v ü", i, repeated)
			n := int32(len(fields) + 1)
			label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
			if repeated {
				label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
			}
			schema = append(schema, &gcp.FieldSchema{Name: name, Type: c.field, Repeated: repeated})
			names = append(names, name)
			layout.Columns = append(layout.Columns, rowwire.Column{Kind: c.kind, Field: n, Repeated: repeated})
			fields = append(fields, protoField{name: name, typ: c.proto, label: label})
		}
	}
	lines, err := rowwire.NewJSONLines(layout, names)
	if err != nil {
		t.Fatal(err)
	}
	streamed := l.table(t, l.ds, "streamed", &gcp.TableMetadata{Schema: schema})
	loaded := l.table(t, l.ds, "loaded", &gcp.TableMetadata{Schema: schema})
	var rows [][]byte
	var text []byte
	rapid.Check(t, func(rt *rapid.T) {
		m := message{}.i(1, int64(len(rows)))
		for i := range wireColumns {
			if rapid.IntRange(0, 4).Draw(rt, "null") > 0 {
				m = drawWire(rt, m, 2*i+1, i)
			}
			for range rapid.IntRange(0, 2).Draw(rt, "elements") {
				if next := drawWire(rt, m, 2*i+2, i); !bytes.HasSuffix(next, []byte("\x04null")) { // no null in an array
					m = next
				}
			}
		}
		next, err := lines.Append(text, m)
		if err != nil {
			rt.Fatal(err)
		}
		rows, text = append(rows, m), next
	})
	ms := l.pending(t, streamed, descriptor(fields...))
	if err := appendRows(t, ms, 0, rows...); err != nil {
		t.Fatal(err)
	}
	if _, err := ms.Finalize(t.Context()); err != nil {
		t.Fatal(err)
	}
	if committed := l.commit(t, streamed, ms.StreamName()); len(committed.GetStreamErrors()) > 0 {
		t.Fatal(committed.GetStreamErrors())
	}
	if stats := mustLoad(t, loader(loaded, l.put(t, "rows.json.gz", packed(t, string(text))))); stats.OutputRows != int64(len(rows)) {
		t.Fatalf("%d rows were loaded of %d", stats.OutputRows, len(rows))
	}
	want, got := l.query(t, "SELECT * FROM shop.streamed ORDER BY k"), l.query(t, "SELECT * FROM shop.loaded ORDER BY k")
	bits := cmp.Comparer(func(a, b float64) bool {
		return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
	})
	if diff := cmp.Diff(want, got, append(cmp.Options{bits}, compareValues[0], compareValues[2], compareValues[3])); diff != "" || len(got) != len(rows) {
		t.Errorf("%d rows (-streamed +loaded):\n%s", len(got), diff)
	}
}

// TestWriteDispositions: what each does to rows, schema and key.
func TestWriteDispositions(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	key := &gcp.TableConstraints{PrimaryKey: &gcp.PrimaryKey{Columns: []string{"id"}}}
	first, second := l.put(t, "a.json", `{"id":1,"name":"a"}`+"\n"), l.put(t, "b.json", `{"id":2}`+"\n"+`{"id":3,"name":null}`)
	wider := append(gcp.Schema{}, simpleSchema...)
	wider = append(wider, &gcp.FieldSchema{Name: "extra", Type: gcp.DateFieldType})
	for name, tc := range map[string]struct {
		disposition gcp.TableWriteDisposition
		schema      gcp.Schema
		rows        int64
		key         bool
		columns     int
	}{
		"append":                   {gcp.WriteAppend, nil, 3, true, 2},
		"append with schema":       {gcp.WriteAppend, simpleSchema, 3, true, 2},
		"default":                  {"", nil, 3, true, 2},
		"truncate data":            {gcp.WriteTruncateData, nil, 2, true, 2},
		"truncate":                 {gcp.WriteTruncate, simpleSchema, 2, false, 2},
		"truncate to other schema": {gcp.WriteTruncate, wider, 2, false, 3},
	} {
		table := l.table(t, l.ds, strings.ReplaceAll(name, " ", "_"), &gcp.TableMetadata{Schema: simpleSchema, TableConstraints: key, Description: "kept"})
		mustLoad(t, loader(table, first))
		load := loader(table, second)
		load.WriteDisposition = tc.disposition
		source(load).Schema = tc.schema
		mustLoad(t, load)
		if n := l.count(t, table.TableID); n != tc.rows {
			t.Errorf("%s: %d rows, want %d", name, n, tc.rows)
		}
		meta, err := table.Metadata(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if has := meta.TableConstraints != nil && meta.TableConstraints.PrimaryKey != nil; has != tc.key || len(meta.Schema) != tc.columns || meta.Description != "kept" {
			t.Errorf("%s: key %v, want %v; %d columns, want %d; description %q", name, has, tc.key, len(meta.Schema), tc.columns, meta.Description)
		}
	}
	table := l.table(t, l.ds, "empty", &gcp.TableMetadata{Schema: simpleSchema})
	load := loader(table, first)
	load.WriteDisposition = gcp.WriteEmpty
	mustLoad(t, load)
	wantFailed(t, load, "duplicate")
	if n := l.count(t, "empty"); n != 1 {
		t.Errorf("%d rows after WRITE_EMPTY", n)
	}
}

// TestLoadMakesTable: the job makes the table with its rows, or nothing.
func TestLoadMakesTable(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	good, bad := l.put(t, "good.json", `{"id":1,"name":"1999-01-01"}`), l.put(t, "bad.json", `{"id":1}`+"\n"+`{"id":"x"}`)
	table := l.ds.Table("made")
	load := loader(table, bad)
	source(load).Schema = gcp.Schema{{Name: "id", Type: gcp.IntegerFieldType}, {Name: "name", Type: gcp.DateFieldType}}
	load.TimePartitioning = &gcp.TimePartitioning{Type: gcp.MonthPartitioningType, Field: "name"}
	load.Clustering = &gcp.Clustering{Fields: []string{"id"}}
	wantFailed(t, load, "invalid")
	if _, err := table.Metadata(t.Context()); err == nil {
		t.Error("a failed job left a table")
	}
	source(load).URIs = []string{good}
	load.CreateDisposition = gcp.CreateNever
	wantFailed(t, load, "notFound")
	load.CreateDisposition = gcp.CreateIfNeeded
	mustLoad(t, load)
	mustLoad(t, load)
	meta, err := table.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if meta.TimePartitioning == nil || meta.TimePartitioning.Field != "name" || meta.Clustering == nil || meta.NumRows != 2 {
		t.Errorf("table: %+v", meta)
	}
	load.TimePartitioning = &gcp.TimePartitioning{Type: gcp.DayPartitioningType, Field: "name"}
	wantFailed(t, load, "invalid")
	without := loader(l.ds.Table("other"), good)
	wantFailed(t, without, "invalid")
	wantFailed(t, loader(l.client.Dataset("absent").Table("t"), good), "notFound")
}

// TestBadRows: any bad row fails the job, which then loads nothing; with maxBadRecords
// it is left out and described.
func TestBadRows(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	schema := append(append(gcp.Schema{}, everyType...), &gcp.FieldSchema{Name: "short", Type: gcp.StringFieldType, MaxLength: 3}, &gcp.FieldSchema{Name: "few", Type: gcp.BytesFieldType, MaxLength: 1})
	table := l.table(t, l.ds, "every", &gcp.TableMetadata{Schema: schema})
	const good = `{"k":1}` + "\n"
	for i, bad := range []string{
		`{"k":null}`, `{}`, `{"k":"x"}`, `{"k":9223372036854775808}`, `{"k":"1.0"}`, `{"k":true}`, `{"k":" 1"}`, `{"k":1,"x":1}`, `{"k":1,"b":"maybe"}`, `{"k":1,"b":2}`,
		`{"k":1,"f":1e400}`, `{"k":1,"f":"abc"}`, `{"k":1,"y":"?"}`, `{"k":1,"y":"AP8"}`, `{"k":1,"n":"0.0000000001"}`, `{"k":1,"n":"100000000000000000000000000000"}`,
		`{"k":1,"bn":"578960446186580977117854925043439539266.34992332820282019728792003956564819968"}`, `{"k":1,"d":"2026-02-30"}`, `{"k":1,"d":"0000-01-01"}`,
		`{"k":1,"t":"24:00:00"}`, `{"k":1,"ts":"10000-01-01 00:00:00 UTC"}`, `{"k":1,"ts":"2026-01-01 25:00:00"}`, `{"k":1,"j":18446744073709551616}`, `{"k":1,"a":["x",null]}`,
		`{"k":1,"a":"x"}`, `{"k":1,"s":["x"]}`, `{"k":1,"s":{}}`, `{"k":1,"r":{"nope":1}}`, `{"k":1,"r":[]}`, `{"k":1`, `[{"k":1}]`, `1`, `{"k":1} {"k":2}`,
		`{"k":1,"short":"four"}`, `{"k":1,"few":"AAAA"}`,
	} {
		uri := l.put(t, fmt.Sprintf("bad-%d.json", i), good+bad+"\n"+good)
		load := loader(table, uri)
		status := wantFailed(t, load, "invalid")
		if len(status.Errors) != 2 || status.Errors[1].Location != uri {
			t.Errorf("%s: errors %v", bad, status.Errors)
		}
		source(load).MaxBadRecords = 1
		status, err := runLoad(t, load)
		if err != nil || status.Err() != nil || len(status.Errors) != 1 {
			t.Fatalf("%s: with maxBadRecords: %v, %v, %v", bad, err, status.Err(), status.Errors)
		}
		if n := l.count(t, "every"); n != int64(2*(i+1)) {
			t.Fatalf("%s: %d rows", bad, n)
		}
	}
	left := loader(table, l.put(t, "left.json", `{"k":5,"b":true,"s":"left","n":"99999999999999999999","a":["left"],"r":{"x":1},"d":"bad"}`+"\n"+`{"k":6}`))
	source(left).MaxBadRecords = 1
	mustLoad(t, left)
	none := []gcp.Value{}
	want := [][]gcp.Value{{int64(6), nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, none, none, none, nil, nil, nil}}
	if diff := cmp.Diff(want, l.query(t, "SELECT * FROM shop.every WHERE k > 1"), compareValues); diff != "" {
		t.Errorf("the row after a bad one (-want +got):\n%s", diff)
	}
	load := loader(table, l.put(t, "unknown.json", `{"k":1,"x":{"y":[1]},"r":{"x":1,"nope":2}}`))
	source(load).IgnoreUnknownValues = true
	if stats := mustLoad(t, load); stats.OutputRows != 1 {
		t.Errorf("%d rows", stats.OutputRows)
	}
}

// TestUnsureValues: what BigQuery may convert, but does not say how, refuses the job.
func TestUnsureValues(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	table := l.table(t, l.ds, "every", &gcp.TableMetadata{Schema: everyType})
	for i, row := range []string{
		`{"k":1.0}`, `{"k":1e3}`, `{"k":1,"s":5}`, `{"k":1,"s":true}`, `{"k":1,"f":"inf"}`, `{"k":1,"n":"1e3"}`, `{"k":1,"n":" 1"}`, `{"k":1,"d":"2026-1-1"}`,
		`{"k":1,"dt":"2026-01-01T00:00:00"}`, `{"k":1,"ts":1700000000}`, `{"k":1,"ts":"2026-01-01"}`, `{"K":1}`, `{"k":1,"k":2}`, `{"k":1,"r":{"x":1,"x":2}}`, "", "\xff",
		`{"k":1,"s":"\ud800"}`,
	} {
		wantFailed(t, loader(table, l.put(t, fmt.Sprintf("unsure-%d.json", i), row+"\n")), "notImplemented")
	}
	if n := l.count(t, "every"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// TestJobIsDoneOnce: an id is used once, also by a job that failed.
func TestJobIsDoneOnce(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	table := l.table(t, l.ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	load := loader(table, l.put(t, "a.json", `{"id":1}`))
	load.JobID = "load-1"
	mustLoad(t, load)
	_, err := runLoad(t, load)
	wantCode(t, err, http.StatusConflict, "duplicate")
	job, err := l.client.JobFromID(t.Context(), "load-1")
	if err != nil {
		t.Fatal(err)
	}
	if status := job.LastStatus(); !status.Done() || status.Err() != nil {
		t.Errorf("job is %v, %v", status.State, status.Err())
	}
	if config, err := job.Config(); err != nil {
		t.Error(err)
	} else if c, ok := config.(*gcp.LoadConfig); !ok || c.Dst.TableID != "t" {
		t.Errorf("configuration %#v", config)
	}
	load.JobID = "load-2"
	source(load).URIs = []string{l.put(t, "b.json", `{"id":"b"}`)}
	wantFailed(t, load, "invalid")
	l.put(t, "b.json", `{"id":2}`)
	_, err = runLoad(t, load)
	wantCode(t, err, http.StatusConflict, "duplicate")
	if _, err := job.Read(t.Context()); err == nil {
		t.Error("a load job has query results")
	}
	if n := l.count(t, "t"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// TestSourceURIs: wildcards, what they may not be, and files of both kinds.
func TestSourceURIs(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	table := l.table(t, l.ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	for i := range 12 {
		l.put(t, fmt.Sprintf("run-1/part-%05d.json.gz", i), packed(t, fmt.Sprintf("{\"id\":%d}\n", i))+packed(t, fmt.Sprintf("{\"id\":%d}", 100+i)))
	}
	l.put(t, "run-10/part.json.gz", packed(t, `{"id":1000}`))
	text := l.put(t, "run-2/ü +%.json", `{"id":2000}`)
	l.put(t, "run-2/empty.json", "")
	if stats := mustLoad(t, loader(table, "gs://staging/run-1/*")); stats.InputFiles != 12 || stats.OutputRows != 24 {
		t.Errorf("statistics: %+v", stats)
	}
	if stats := mustLoad(t, loader(table, text, "gs://staging/run-2/emp*")); stats.InputFiles != 2 || stats.OutputRows != 1 {
		t.Errorf("statistics: %+v", stats)
	}
	l.put(t, "broken.json.gz", packed(t, `{"id":1}`)[:20])
	l.put(t, "garbled.json.gz", "\x1f\x8b\x00\x00")
	for uri, reason := range map[string]string{
		"gs://staging/none": "notFound", "gs://staging/none*": "notFound", "gs://absent/x": "notFound", "gs://sta*/x": "invalid", "gs://staging/*a*": "invalid",
		"gs://staging/run-1/*.gz": "notImplemented", "gs://staging/run-1//x": "invalid", "https://staging/x": "invalid", "gs://staging": "invalid",
		"gs://staging/x#1": "invalid", "gs://staging/broken.json.gz": "invalid", "gs://staging/garbled.json.gz": "invalid",
	} {
		t.Log(uri)
		wantFailed(t, loader(table, uri), reason)
	}
	wantFailed(t, loader(table, text, "gs://staging/run-1/*"), "invalid")        // compressed and not
	wantFailed(t, loader(table, text, "gs://staging/run-2/*"), "notImplemented") // twice
	for i := range 1001 {                                                        // more than a page of a listing has
		l.put(t, fmt.Sprintf("many/%d", i), `{"id":1}`)
	}
	if stats := mustLoad(t, loader(table, "gs://staging/many/*")); stats.InputFiles != 1001 || stats.OutputRows != 1001 {
		t.Errorf("statistics: %+v", stats)
	}
	many := make([]string, 10_001)
	for i := range many {
		many[i] = text
	}
	_, err := runLoad(t, loader(table, many...))
	wantCode(t, err, http.StatusBadRequest, "invalid")
	if n := l.count(t, "t"); n != 25+1001 {
		t.Errorf("%d rows", n)
	}
	l.objects.Intercept(func(c storage.Call) error {
		if c.Method == "objects.get" {
			return &googleapi.Error{Code: http.StatusForbidden}
		}
		return nil
	})
	wantFailed(t, loader(table, "gs://staging/run-1/*"), "accessDenied")
	l.objects.Intercept(func(storage.Call) error { return errors.New("down") })
	wantFailed(t, loader(table, text), "backendError")
}

// TestLoadAddsColumns: with ALLOW_FIELD_ADDITION, and only by a job that succeeds.
func TestLoadAddsColumns(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	table := l.table(t, l.ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	wider := append(append(gcp.Schema{}, simpleSchema...), &gcp.FieldSchema{Name: "tags", Type: gcp.StringFieldType, Repeated: true})
	mustLoad(t, loader(table, l.put(t, "old.json", `{"id":1}`)))
	load := loader(table, l.put(t, "new.json", `{"id":2,"tags":["a"]}`))
	source(load).Schema = wider
	wantFailed(t, load, "invalid")
	load.SchemaUpdateOptions = []string{"ALLOW_FIELD_ADDITION"}
	source(load).URIs = []string{l.put(t, "bad.json", `{"id":2,"tags":"a"}`)}
	wantFailed(t, load, "invalid")
	if meta, err := table.Metadata(t.Context()); err != nil || len(meta.Schema) != 2 {
		t.Fatalf("schema after a failed job: %v, %v", meta.Schema, err)
	}
	source(load).URIs = []string{"gs://staging/new.json"}
	mustLoad(t, load)
	want := [][]gcp.Value{{int64(1), nil, []gcp.Value{}}, {int64(2), nil, []gcp.Value{"a"}}}
	if diff := cmp.Diff(want, l.query(t, "SELECT * FROM shop.t ORDER BY id"), compareValues); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	relaxed := gcp.Schema{{Name: "id", Type: gcp.IntegerFieldType}, wider[1], wider[2]}
	source(load).Schema = relaxed
	wantFailed(t, load, "invalid")
	source(load).Schema = simpleSchema
	wantFailed(t, load, "invalid")
	load.SchemaUpdateOptions, load.WriteDisposition = []string{"ALLOW_FIELD_ADDITION"}, gcp.WriteTruncate
	_, err := runLoad(t, load)
	wantCode(t, err, http.StatusBadRequest, "invalid")
}

// TestLoadIntoPartitions: any date may be loaded, into 4,000 partitions at most.
func TestLoadIntoPartitions(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	meta := &gcp.TableMetadata{
		Schema:           gcp.Schema{{Name: "d", Type: gcp.DateFieldType}},
		TimePartitioning: &gcp.TimePartitioning{Type: gcp.DayPartitioningType, Field: "d"},
	}
	table := l.table(t, l.ds, "t", meta)
	days := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "{\"d\":%q}\n", time.Date(1990, 1, 1+i, 0, 0, 0, 0, time.UTC).Format(time.DateOnly))
		}
		return b.String()
	}
	wantFailed(t, loader(table, l.put(t, "more.json", days(4000)+"{}\n")), "invalid")
	mustLoad(t, loader(table, l.put(t, "most.json", days(4000)+"{\"d\":\"1990-01-01\"}\n")))
	if n := l.count(t, "t"); n != 4001 {
		t.Errorf("%d rows", n)
	}
	mustLoad(t, loader(table, l.put(t, "far.json", `{"d":"9999-12-31"}`)))
}

// TestLoadQuota: load jobs of a table count for a day, failed ones too.
func TestLoadQuota(t *testing.T) {
	t.Parallel()
	clock := newClock(time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	l := startLoads(t, bigquery.Options{Now: clock.Now, Limits: bigquery.Limits{LoadJobs: 3}})
	table, other := l.table(t, l.ds, "t", &gcp.TableMetadata{Schema: simpleSchema}), l.table(t, l.ds, "u", &gcp.TableMetadata{Schema: simpleSchema})
	good := l.put(t, "a.json", `{"id":1}`)
	mustLoad(t, loader(table, good))
	wantFailed(t, loader(table, "gs://staging/none"), "notFound")
	clock.advance(12 * time.Hour)
	mustLoad(t, loader(table, good))
	wantFailed(t, loader(table, good), "quotaExceeded")
	mustLoad(t, loader(other, good))
	clock.advance(12 * time.Hour)
	mustLoad(t, loader(table, good))
	mustLoad(t, loader(table, good))
	wantFailed(t, loader(table, good), "quotaExceeded")
	if n := l.count(t, "t"); n != 4 {
		t.Errorf("%d rows", n)
	}
}

// TestLoadRate: a load job is a metadata update of its table.
func TestLoadRate(t *testing.T) {
	t.Parallel()
	clock := newClock(time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	l := startLoads(t, bigquery.Options{Now: clock.Now, Limits: bigquery.Limits{TableUpdates: 2}})
	table := l.table(t, l.ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	good := l.put(t, "a.json", `{"id":1}`)
	mustLoad(t, loader(table, good))
	mustLoad(t, loader(table, good))
	wantFailed(t, loader(table, good), "rateLimitExceeded")
	clock.advance(10 * time.Second)
	mustLoad(t, loader(table, good))
}

// TestTruncateIsAtomic: who reads while loads replace all rows sees the rows of one load.
func TestTruncateIsAtomic(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	table := l.table(t, l.ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	var uris [2]string
	for i, name := range []string{"a", "b"} {
		uris[i] = l.put(t, name+".json", strings.Repeat(fmt.Sprintf("{\"id\":%d,\"name\":%q}\n", i, name), 3000*(i+1)))
	}
	mustLoad(t, loader(table, uris[0]))
	var done atomic.Bool
	loaded := make(chan error, 1)
	go func() {
		defer done.Store(true)
		for i := range 10 {
			load := loader(table, uris[(i+1)%2])
			load.WriteDisposition = gcp.WriteTruncateData
			status, err := runLoad(t, load)
			if err == nil {
				err = status.Err()
			}
			if err != nil {
				loaded <- err
				return
			}
		}
		loaded <- nil
	}()
	reads := 0
	for ; !done.Load(); reads++ {
		got := l.query(t, "SELECT MIN(id), MAX(id), COUNT(*) FROM shop.t")[0]
		if got[0] != got[1] || got[2] != 3000*(got[0].(int64)+1) { //nolint:forcetypeassert // a mismatch fails the test as well
			t.Errorf("a reader saw %v", got)
		}
	}
	if err := <-loaded; err != nil || reads < 3 {
		t.Errorf("%d reads, error %v", reads, err)
	}
}

// TestHeldLoad: a job that is held has no effect, and is found by its id meanwhile.
func TestHeldLoad(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	table := l.table(t, l.ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	release, held := make(chan struct{}), make(chan bigquery.Job, 1)
	l.server.HoldJobs(func(j bigquery.Job) <-chan struct{} {
		held <- j
		return release
	})
	load := loader(table, l.put(t, "a.json", `{"id":1}`))
	load.JobID = "held"
	job, err := load.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if j := <-held; j.ID != "held" || j.SQL != "" {
		t.Errorf("held %+v", j)
	}
	l.server.HoldJobs(nil)
	if status, err := job.Status(t.Context()); err != nil || status.Done() || l.count(t, "t") != 0 {
		t.Errorf("status %v, %v", status, err)
	}
	close(release)
	if status, err := job.Wait(t.Context()); err != nil || status.Err() != nil || l.count(t, "t") != 1 {
		t.Errorf("status %v, %v", status, err)
	}
	l.server.HoldJobs(func(bigquery.Job) <-chan struct{} { return make(chan struct{}) })
	load.JobID = "cancelled"
	if job, err = load.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := job.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.server.HoldJobs(nil)
	status, err := job.Wait(t.Context())
	var e *gcp.Error
	if err != nil || !errors.As(status.Err(), &e) || e.Reason != "stopped" || l.count(t, "t") != 1 {
		t.Errorf("status %v, %v", status, err)
	}
}

// TestRefusedLoads: what a load job may ask of BigQuery and not of the emulator.
func TestRefusedLoads(t *testing.T) {
	t.Parallel()
	l := startLoads(t, bigquery.Options{})
	table := l.table(t, l.ds, "t", &gcp.TableMetadata{Schema: simpleSchema})
	good := l.put(t, "a.json", `{"id":1}`)
	for name, change := range map[string]func(*gcp.Loader){
		"csv":        func(c *gcp.Loader) { source(c).SourceFormat = "" },
		"avro":       func(c *gcp.Loader) { source(c).SourceFormat = gcp.Avro },
		"autodetect": func(c *gcp.Loader) { source(c).AutoDetect = true },
		"encoding":   func(c *gcp.Loader) { source(c).Encoding = gcp.ISO_8859_1 },
		"relaxation": func(c *gcp.Loader) { c.SchemaUpdateOptions = []string{"ALLOW_FIELD_RELAXATION"} },
		"range":      func(c *gcp.Loader) { c.RangePartitioning = &gcp.RangePartitioning{Field: "id"} },
		"key":        func(c *gcp.Loader) { c.DestinationEncryptionConfig = &gcp.EncryptionConfig{KMSKeyName: "k"} },
		"hive": func(c *gcp.Loader) {
			c.HivePartitioningOptions = &gcp.HivePartitioningOptions{Mode: gcp.AutoHivePartitioningMode}
		},
		"session":   func(c *gcp.Loader) { c.CreateSession = true },
		"decorator": func(c *gcp.Loader) { c.Dst = l.ds.Table("t$20260101") },
		"upload":    func(c *gcp.Loader) { c.Src = gcp.NewReaderSource(strings.NewReader(`{"id":1}`)) },
	} {
		load := loader(table, good)
		change(load)
		_, err := load.Run(t.Context())
		t.Log(name)
		wantCode(t, err, http.StatusNotImplemented, "notImplemented")
	}
	load := loader(table, good)
	load.WriteDisposition = gcp.WriteTruncate
	wantFailed(t, load, "notImplemented") // without a schema

	if _, err := l.writeOne(t, table); err != nil {
		t.Fatal(err)
	}
	load.WriteDisposition = gcp.WriteTruncateData
	wantFailed(t, load, "notImplemented") // streamed to
	load.WriteDisposition = gcp.WriteAppend
	mustLoad(t, load)

	changed := l.table(t, l.ds, "items", &gcp.TableMetadata{Schema: changedSchema, TableConstraints: keyed("id", "part")})
	mustSend(t, l.changes(t, changed), upsert(1, "a", "1"))
	wantFailed(t, loader(changed, l.put(t, "changed.json", `{"id":1,"part":"x"}`)), "notImplemented")

	without := start(t, bigquery.Options{})
	ds := without.dataset(t, "shop")
	_, err := loader(without.table(t, ds, "t", &gcp.TableMetadata{Schema: simpleSchema}), good).Run(t.Context())
	wantCode(t, err, http.StatusNotImplemented, "notImplemented")

	elsewhere := l.client.Dataset("elsewhere")
	if err := elsewhere.Create(t.Context(), &gcp.DatasetMetadata{Location: "EU"}); err != nil {
		t.Fatal(err)
	}
	far := l.table(t, elsewhere, "t", &gcp.TableMetadata{Schema: simpleSchema})
	wantFailed(t, loader(far, good), "invalid")
}

// writeOne streams one row by the default stream.
func (l *loads) writeOne(t *testing.T, table *gcp.Table) (int64, error) {
	t.Helper()
	ms, err := l.writer.NewManagedStream(t.Context(), managedwriter.WithDestinationTable(parent(table)),
		managedwriter.WithType(managedwriter.DefaultStream), managedwriter.WithSchemaDescriptor(simpleDescriptor()))
	if err != nil {
		return 0, err
	}
	defer ms.Close()
	result, err := ms.AppendRows(t.Context(), [][]byte{simpleRow(1, "a")})
	if err != nil {
		return 0, err
	}
	return result.GetResult(t.Context())
}

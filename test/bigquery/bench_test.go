package bigquery_test

import (
	"strconv"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

// BenchmarkAppendAndCommit reports rows per second of 14 mixed columns, from
// the client to the commit.
func BenchmarkAppendAndCommit(b *testing.B) {
	const perRequest = 20_000
	e := start(b, bigquery.Options{})
	var schema gcp.Schema
	var fields []protoField
	str, i64 := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT64
	for i := range 14 {
		name := "c" + strconv.Itoa(i)
		typ, wire := gcp.IntegerFieldType, i64
		switch i % 7 {
		case 1, 2:
			typ, wire = gcp.StringFieldType, str
		case 3:
			typ = gcp.TimestampFieldType
		case 4:
			typ, wire = gcp.NumericFieldType, str
		case 5:
			typ, wire = gcp.BooleanFieldType, descriptorpb.FieldDescriptorProto_TYPE_BOOL
		case 6:
			typ, wire = gcp.FloatFieldType, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE
		}
		schema = append(schema, &gcp.FieldSchema{Name: name, Type: typ})
		fields = append(fields, protoField{name: name, typ: wire})
	}
	table := e.table(b, e.dataset(b, "bench"), "rows", &gcp.TableMetadata{Schema: schema})
	request := make([][]byte, perRequest)
	for r := range request {
		var m message
		for i := range fields {
			n := int64(r * i)
			switch i % 7 {
			case 1, 2:
				m = m.s(numberOf(i), "some text of row "+strconv.FormatInt(n, 10))
			case 3:
				m = m.i(numberOf(i), 1_700_000_000_000_000+n)
			case 4:
				m = m.s(numberOf(i), strconv.FormatInt(n, 10)+".25")
			case 5:
				m = m.i(numberOf(i), n&1)
			case 6:
				m = m.f(numberOf(i), float64(n)/3)
			default:
				m = m.i(numberOf(i), n)
			}
		}
		request[r] = m
	}
	for b.Loop() {
		ms := e.pending(b, table, descriptor(fields...))
		var last *managedwriter.AppendResult
		for i := range 10 {
			result, err := ms.AppendRows(b.Context(), request, managedwriter.WithOffset(int64(i*perRequest)))
			if err != nil {
				b.Fatal(err)
			}
			last = result
		}
		if _, err := last.GetResult(b.Context()); err != nil {
			b.Fatal(err)
		}
		if _, err := ms.Finalize(b.Context()); err != nil {
			b.Fatal(err)
		}
		e.commit(b, table, ms.StreamName())
	}
	b.ReportMetric(float64(b.N)*10*perRequest/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkDeleteOfTwoMonths deletes a third of the rows of 2 months from a log
// of 5 million rows in 60 months, which it first streams, and reports how many
// rows a second that took.
func BenchmarkDeleteOfTwoMonths(b *testing.B) {
	const total, perRequest, months = 5_000_000, 20_000, 60
	e := start(b, november)
	str, i64 := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT64
	table := e.table(b, e.dataset(b, "bench"), "log", &gcp.TableMetadata{
		Schema: gcp.Schema{
			{Name: "id", Type: gcp.IntegerFieldType, Required: true},
			{Name: "name", Type: gcp.StringFieldType},
			{Name: "amount", Type: gcp.NumericFieldType},
			{Name: "day", Type: gcp.TimestampFieldType},
			{Name: "doc", Type: gcp.JSONFieldType},
			{Name: "_version", Type: gcp.StringFieldType, Required: true},
		},
		TimePartitioning: &gcp.TimePartitioning{Field: "day", Type: gcp.MonthPartitioningType},
	})
	ms := e.pending(b, table, descriptor(protoField{name: "id", typ: i64}, protoField{name: "name", typ: str}, protoField{name: "amount", typ: str},
		protoField{name: "day", typ: i64}, protoField{name: "doc", typ: str}, protoField{name: "_version", typ: str}))
	first, began := time.Date(2021, 12, 4, 0, 0, 0, 0, time.UTC), time.Now()
	var last *managedwriter.AppendResult
	for offset := int64(0); offset < total; offset += perRequest {
		rows := make([][]byte, perRequest)
		for i := range rows {
			id := offset + int64(i)
			number := strconv.FormatInt(id, 10)
			rows[i] = message{}.i(1, id).s(2, "name of "+number).s(3, number+".25").i(4, first.AddDate(0, int(id/3%months), 0).UnixMicro()).s(5, `{"a": 1}`).s(6, "0/1")
		}
		result, err := ms.AppendRows(b.Context(), rows, managedwriter.WithOffset(offset))
		if err != nil {
			b.Fatal(err)
		}
		last = result
	}
	if _, err := last.GetResult(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := ms.Finalize(b.Context()); err != nil {
		b.Fatal(err)
	}
	e.commit(b, table, ms.StreamName())
	streamed := total / time.Since(began).Seconds()
	n := 0
	for b.Loop() {
		q := e.client.Query("DELETE FROM bench.log WHERE day >= @from AND day < @to AND MOD(id, 3) = 0")
		from := first.AddDate(0, n%30*2, -3)
		q.Parameters = []gcp.QueryParameter{{Name: "from", Value: from}, {Name: "to", Value: from.AddDate(0, 2, 0)}}
		if _, err := q.Read(b.Context()); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(streamed, "rows/s")
	all := e.server.Statements()
	if got := all[0]; len(got.Partitions) != 2 || got.RowsAffected != total/months/3*2 && got.RowsAffected != total/months/3*2+2 {
		b.Fatalf("the first statement touched %d rows of %q", got.RowsAffected, got.Partitions)
	}
}

package bigquery_test

import (
	"strconv"
	"testing"

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

package bigquery_test

import (
	"bytes"
	"math"
	"math/big"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/civil"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

var everyType = gcp.Schema{
	{Name: "k", Type: gcp.IntegerFieldType, Required: true},
	{Name: "b", Type: gcp.BooleanFieldType},
	{Name: "f", Type: gcp.FloatFieldType},
	{Name: "s", Type: gcp.StringFieldType},
	{Name: "y", Type: gcp.BytesFieldType},
	{Name: "n", Type: gcp.NumericFieldType},
	{Name: "bn", Type: gcp.BigNumericFieldType},
	{Name: "d", Type: gcp.DateFieldType},
	{Name: "t", Type: gcp.TimeFieldType},
	{Name: "dt", Type: gcp.DateTimeFieldType},
	{Name: "ts", Type: gcp.TimestampFieldType},
	{Name: "j", Type: gcp.JSONFieldType},
	{Name: "a", Type: gcp.StringFieldType, Repeated: true},
	{Name: "ai", Type: gcp.IntegerFieldType, Repeated: true},
	{Name: "aj", Type: gcp.JSONFieldType, Repeated: true},
	{Name: "r", Type: gcp.RecordFieldType, Schema: gcp.Schema{
		{Name: "x", Type: gcp.IntegerFieldType},
		{Name: "z", Type: gcp.NumericFieldType},
		{Name: "l", Type: gcp.StringFieldType, Repeated: true},
	}},
}

func everyDescriptor() *descriptorpb.DescriptorProto {
	str, i64, list := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT64, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	d := descriptor(
		protoField{name: "k", typ: i64}, protoField{name: "b", typ: descriptorpb.FieldDescriptorProto_TYPE_BOOL},
		protoField{name: "f", typ: descriptorpb.FieldDescriptorProto_TYPE_DOUBLE}, protoField{name: "s", typ: str},
		protoField{name: "y", typ: descriptorpb.FieldDescriptorProto_TYPE_BYTES},
		protoField{name: "n", typ: str}, protoField{name: "bn", typ: str},
		protoField{name: "d", typ: descriptorpb.FieldDescriptorProto_TYPE_INT32},
		protoField{name: "t", typ: str}, protoField{name: "dt", typ: str}, protoField{name: "ts", typ: i64}, protoField{name: "j", typ: str},
		protoField{name: "a", typ: str, label: list}, protoField{name: "ai", typ: i64, label: list}, protoField{name: "aj", typ: str, label: list},
		protoField{name: "r", typ: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE},
	)
	d.Field[15].TypeName = proto.String("R")
	r := descriptor(protoField{name: "x", typ: i64}, protoField{name: "z", typ: str}, protoField{name: "l", typ: str, label: list})
	r.Name = proto.String("R")
	d.NestedType = []*descriptorpb.DescriptorProto{r}
	return d
}

// message builds wire bytes field by field.
type message []byte

func (m message) i(n protowire.Number, v int64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, n, protowire.VarintType), uint64(v))
}

func (m message) s(n protowire.Number, v string) message {
	return protowire.AppendString(protowire.AppendTag(m, n, protowire.BytesType), v)
}

func (m message) f(n protowire.Number, v float64) message {
	return protowire.AppendFixed64(protowire.AppendTag(m, n, protowire.Fixed64Type), math.Float64bits(v))
}

func rat(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		panic(text)
	}
	return r
}

func everyRows() (wire [][]byte, want [][]gcp.Value) {
	full := message{}.i(1, 1).i(2, 1).f(3, 1.5).s(4, "it's \"ü\" \\ 😀\n\x00-").s(5, "\x00\xff'").
		s(6, "-12345678901234567890123456789.123456789").s(7, "123456789012345678901234567890123456789.98765432109876543210987654321098765432").
		i(8, 20000).s(9, "23:59:59.999999").s(10, "2024-02-29 12:34:56.000001").i(11, 1700000000123456).
		s(12, `{"b": 9007199254740993, "a":[1.50, "x"], "b": 2}`).
		s(13, "p").s(13, "").i(14, -1).s(15, `{"q":1}`).s(15, "null").
		s(16, string(message{}.i(1, 7).s(2, "0.000000001").s(3, "m")))
	low := message{}.i(1, math.MinInt64).i(2, 0).f(3, math.Inf(-1)).s(4, "").s(5, "").s(6, "0").
		s(7, "-578960446186580977117854925043439539266.34992332820282019728792003956564819968").
		i(8, -719162).s(9, "00:00:00").s(10, "0001-01-01").i(11, -62135596800000000).s(12, "null").s(14, string(protowire.AppendVarint(protowire.AppendVarint(nil, 3), 4)))
	high := message{}.i(1, math.MaxInt64).f(3, math.NaN()).s(6, "99999999999999999999999999999.999999999").
		s(7, "578960446186580977117854925043439539266.34992332820282019728792003956564819967").
		i(8, 2932896).s(10, "9999-12-31T23:59:59.999999").i(11, 253402300799999999)
	null := message{}.i(1, 0)
	none := []gcp.Value{}
	return [][]byte{full, low, high, null}, [][]gcp.Value{
		{
			int64(math.MinInt64), false, math.Inf(-1), "",
			[]byte{},
			rat("0"), rat("-578960446186580977117854925043439539266.34992332820282019728792003956564819968"),
			civil.Date{Year: 1, Month: 1, Day: 1},
			civil.Time{},
			civil.DateTime{Date: civil.Date{Year: 1, Month: 1, Day: 1}},
			time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), "null", none,
			[]gcp.Value{int64(3), int64(4)},
			none, nil,
		},
		{int64(0), nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, none, none, none, nil},
		{
			int64(1), true, 1.5, "it's \"ü\" \\ 😀\n\x00-", []byte("\x00\xff'"), rat("-12345678901234567890123456789.123456789"),
			rat("123456789012345678901234567890123456789.98765432109876543210987654321098765432"),
			civil.Date{Year: 2024, Month: 10, Day: 4},
			civil.Time{Hour: 23, Minute: 59, Second: 59, Nanosecond: 999999000},
			civil.DateTime{Date: civil.Date{Year: 2024, Month: 2, Day: 29}, Time: civil.Time{Hour: 12, Minute: 34, Second: 56, Nanosecond: 1000}},
			time.UnixMicro(1700000000123456).UTC(), `{"a":[1.5,"x"],"b":9007199254740993}`,
			[]gcp.Value{"p", ""},
			[]gcp.Value{int64(-1)},
			[]gcp.Value{`{"q":1}`, "null"},
			[]gcp.Value{int64(7), rat("0.000000001"), []gcp.Value{"m"}},
		},
		{
			int64(math.MaxInt64), nil, math.NaN(), nil, nil, rat("99999999999999999999999999999.999999999"),
			rat("578960446186580977117854925043439539266.34992332820282019728792003956564819967"),
			civil.Date{Year: 9999, Month: 12, Day: 31},
			nil,
			civil.DateTime{Date: civil.Date{Year: 9999, Month: 12, Day: 31}, Time: civil.Time{Hour: 23, Minute: 59, Second: 59, Nanosecond: 999999000}},
			time.UnixMicro(253402300799999999).UTC(), nil, none, none, none, nil,
		},
	}
}

var compareValues = cmp.Options{
	cmp.Comparer(func(a, b *big.Rat) bool { return a.Cmp(b) == 0 }), cmpopts.EquateNaNs(), cmpopts.EquateEmpty(),
	cmp.Comparer(bytes.Equal),
}

func TestEveryTypeRoundTrips(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "types"), "every", &gcp.TableMetadata{Schema: everyType})
	ms := b.pending(t, table, everyDescriptor())
	wire, want := everyRows()
	if err := appendRows(t, ms, 0, wire...); err != nil {
		t.Fatal(err)
	}
	if _, err := ms.Finalize(t.Context()); err != nil {
		t.Fatal(err)
	}
	if resp := b.commit(t, table, ms.StreamName()); len(resp.GetStreamErrors()) > 0 {
		t.Fatal(resp)
	}
	t.Run("REST", func(t *testing.T) {
		t.Parallel()
		if diff := cmp.Diff(want, b.query(t, "SELECT * FROM `types.every` ORDER BY k"), compareValues); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("schema", func(t *testing.T) {
		t.Parallel()
		it, err := b.client.Query("SELECT * FROM `types.every`").Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := it.Next(&[]gcp.Value{}); err != nil {
			t.Fatal(err)
		}
		relaxed := everyType.Relax()
		if diff := cmp.Diff(relaxed, it.Schema, cmpopts.IgnoreFields(gcp.FieldSchema{}, "Required")); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("Storage Read", func(t *testing.T) {
		t.Parallel()
		job, err := b.client.Query("SELECT * FROM `types.every` ORDER BY k").Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		it, err := job.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !it.IsAccelerated() {
			t.Fatal("the result was not read by the Storage Read API")
		}
		if diff := cmp.Diff(want, rows(t, it), compareValues); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPackedEncodings(t *testing.T) {
	t.Parallel()
	b := start(t, bigquery.Options{})
	table := b.table(t, b.dataset(t, "types"), "packed", &gcp.TableMetadata{Schema: gcp.Schema{
		{Name: "n", Type: gcp.NumericFieldType},
		{Name: "bn", Type: gcp.BigNumericFieldType},
		{Name: "t", Type: gcp.TimeFieldType},
		{Name: "dt", Type: gcp.DateTimeFieldType},
		{Name: "odd name", Type: gcp.StringFieldType},
	}})
	d := descriptor(
		protoField{name: "n", typ: descriptorpb.FieldDescriptorProto_TYPE_BYTES}, protoField{name: "bn", typ: descriptorpb.FieldDescriptorProto_TYPE_BYTES},
		protoField{name: "t", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64}, protoField{name: "dt", typ: descriptorpb.FieldDescriptorProto_TYPE_INT64},
		protoField{name: "col_b2Rk", typ: descriptorpb.FieldDescriptorProto_TYPE_STRING},
	)
	d.Field[4].Options = &descriptorpb.FieldOptions{}
	proto.SetExtension(d.Field[4].Options, storagepb.E_ColumnName, "odd name")
	ms := b.pending(t, table, d)
	// -1.5 is -1500000000 over 10^9, little-endian two's complement.
	clock := int64(13)<<32 | 14<<26 | 15<<20 | 16
	row := message{}.s(1, "\x00\xd1\x97\xa6").s(2, "\x01").i(3, clock).i(4, int64(2024)<<46|2<<42|29<<37|clock).s(5, "x")
	if err := appendRows(t, ms, 0, row); err != nil {
		t.Fatal(err)
	}
	if _, err := ms.Finalize(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.commit(t, table, ms.StreamName())
	at := civil.Time{Hour: 13, Minute: 14, Second: 15, Nanosecond: 16000}
	want := [][]gcp.Value{{rat("-1.5"), rat("1e-38"), at, civil.DateTime{Date: civil.Date{Year: 2024, Month: 2, Day: 29}, Time: at}, "x"}}
	if diff := cmp.Diff(want, b.query(t, "SELECT * FROM `types.packed`"), compareValues); diff != "" {
		t.Error(diff)
	}
}

// numberOf is the field number of the i-th field.
func numberOf(i int) protowire.Number { return protowire.Number(i + 1) }

package bigquery

import (
	"bytes"
	"fmt"
	"math/big"
	"time"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/decimal256"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/duckdb/duckdb-go/v2"
)

// arrowType is the type of https://cloud.google.com/bigquery/docs/reference/storage#arrow_schema_details.
func arrowType(f field) arrow.DataType {
	if f.repeated {
		element := f.element()
		return arrow.ListOfField(arrow.Field{Name: "item", Type: arrowType(element), Nullable: true, Metadata: arrowMetadata(element)})
	}
	switch f.kind {
	case kindBool:
		return arrow.FixedWidthTypes.Boolean
	case kindInt64:
		return arrow.PrimitiveTypes.Int64
	case kindFloat64:
		return arrow.PrimitiveTypes.Float64
	case kindBytes:
		return arrow.BinaryTypes.Binary
	case kindNumeric:
		return &arrow.Decimal128Type{Precision: 38, Scale: numericScale}
	case kindBigNumeric:
		return &arrow.Decimal256Type{Precision: 76, Scale: bigNumericScale}
	case kindDate:
		return arrow.FixedWidthTypes.Date32
	case kindTime:
		return arrow.FixedWidthTypes.Time64us
	case kindDatetime:
		return &arrow.TimestampType{Unit: arrow.Microsecond}
	case kindTimestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	case kindStruct:
		return arrow.StructOf(arrowFields(f.fields)...)
	case kindJSON, kindString:
	}
	return arrow.BinaryTypes.String
}

func arrowMetadata(f field) arrow.Metadata {
	names := map[kind]string{kindJSON: "google:sqlType:json", kindDatetime: "google:sqlType:datetime"}
	name, ok := names[f.kind]
	if !ok || f.repeated {
		return arrow.Metadata{}
	}
	return arrow.NewMetadata([]string{"ARROW:extension:name"}, []string{name})
}

func arrowFields(fields []field) []arrow.Field {
	out := make([]arrow.Field, len(fields))
	for i, f := range fields {
		out[i] = arrow.Field{Name: f.name, Type: arrowType(f), Nullable: !f.required, Metadata: arrowMetadata(f)}
	}
	return out
}

// endOfStream is what an IPC stream ends with; BigQuery's messages do not.
const endOfStream = 8

// arrowEncoder makes the messages of one read session: the schema once, then
// record batches without schema and without end of stream.
type arrowEncoder struct {
	fields []field
	schema *arrow.Schema
	head   []byte
	opts   []ipc.Option
}

func newArrowEncoder(fields []field, compression storagepb.ArrowSerializationOptions_CompressionCodec) (*arrowEncoder, error) {
	e := &arrowEncoder{fields: fields, schema: arrow.NewSchema(arrowFields(fields), nil)}
	e.opts = []ipc.Option{ipc.WithSchema(e.schema)}
	switch compression {
	case storagepb.ArrowSerializationOptions_LZ4_FRAME:
		e.opts = append(e.opts, ipc.WithLZ4())
	case storagepb.ArrowSerializationOptions_ZSTD:
		e.opts = append(e.opts, ipc.WithZstd())
	case storagepb.ArrowSerializationOptions_COMPRESSION_UNSPECIFIED:
	}
	head, err := e.stream(nil)
	if err != nil {
		return nil, err
	}
	e.head = head
	return e, nil
}

// stream writes an IPC stream without its end.
func (e *arrowEncoder) stream(batch arrow.Record) ([]byte, error) {
	var buf bytes.Buffer
	w := ipc.NewWriter(&buf, e.opts...)
	if batch != nil {
		if err := w.Write(batch); err != nil {
			return nil, fmt.Errorf("encoding record batch: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encoding arrow: %w", err)
	}
	return buf.Bytes()[:buf.Len()-endOfStream], nil
}

func (e *arrowEncoder) builder() *array.RecordBuilder {
	return array.NewRecordBuilder(memory.DefaultAllocator, e.schema)
}

// batch encodes and empties what the builder holds.
func (e *arrowEncoder) batch(b *array.RecordBuilder) ([]byte, error) {
	record := b.NewRecord()
	defer record.Release()
	body, err := e.stream(record)
	if err != nil {
		return nil, err
	}
	return body[len(e.head):], nil
}

// appendArrow appends a value as DuckDB gave it and returns its rough size.
func appendArrow(b array.Builder, f field, v any) (int, error) {
	if f.repeated {
		return appendArrowList(b, f, v)
	}
	if v == nil {
		b.AppendNull()
		return 1, nil
	}
	switch b := b.(type) {
	case *array.StructBuilder:
		return appendArrowStruct(b, f, v)
	case *array.StringBuilder:
		s, ok := v.(string)
		b.Append(s)
		return len(s), mismatch(ok, f, v)
	case *array.BinaryBuilder:
		s, ok := v.([]byte)
		b.Append(s)
		return len(s), mismatch(ok, f, v)
	}
	return 8, appendArrowFixed(b, f, v)
}

func mismatch(ok bool, f field, v any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("column %s of type %s holds a %T", f.name, f.kind, v)
}

func appendArrowFixed(b array.Builder, f field, v any) error {
	ok := false
	switch b := b.(type) {
	case *array.BooleanBuilder:
		var x bool
		x, ok = v.(bool)
		b.Append(x)
	case *array.Int64Builder:
		var x int64
		x, ok = v.(int64)
		b.Append(x)
	case *array.Float64Builder:
		var x float64
		x, ok = v.(float64)
		b.Append(x)
	case *array.Decimal128Builder:
		var x duckdb.Decimal
		if x, ok = v.(duckdb.Decimal); ok {
			b.Append(decimal128.FromBigInt(x.Value))
		}
	case *array.Decimal256Builder:
		s, isText := v.(string)
		n, err := parseDecimal(s, bigNumericScale)
		if ok = isText && err == nil; ok {
			b.Append(wideDecimal(n))
		}
	case *array.Date32Builder, *array.Time64Builder, *array.TimestampBuilder:
		var x time.Time
		if x, ok = v.(time.Time); ok {
			appendArrowTime(b, x)
		}
	}
	return mismatch(ok, f, v)
}

func appendArrowTime(b array.Builder, t time.Time) {
	switch b := b.(type) {
	case *array.Date32Builder:
		b.Append(arrow.Date32(daysOf(t)))
	case *array.Time64Builder:
		b.Append(arrow.Time64(clockOf(t)))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(t.UnixMicro()))
	}
}

func appendArrowList(b array.Builder, f field, v any) (int, error) {
	list, ok := b.(*array.ListBuilder)
	if !ok {
		return 0, mismatch(false, f, v)
	}
	elements, ok := v.([]any)
	if v != nil && !ok {
		return 0, mismatch(false, f, v)
	}
	list.Append(true)
	size := 4
	for _, x := range elements {
		n, err := appendArrow(list.ValueBuilder(), f.element(), x)
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}

func appendArrowStruct(b *array.StructBuilder, f field, v any) (int, error) {
	members, ok := v.(map[string]any)
	if !ok {
		return 0, mismatch(false, f, v)
	}
	b.Append(true)
	size := 1
	for i, m := range f.fields {
		n, err := appendArrow(b.FieldBuilder(i), m, members[m.name])
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}

// daysOf and clockOf read what DuckDB's driver gives for DATE and TIME.
func daysOf(t time.Time) int64 {
	return t.Unix() / (24 * 60 * 60)
}

func clockOf(t time.Time) int64 {
	return int64((t.Hour()*60+t.Minute())*60+t.Second())*microsPerSecond + int64(t.Nanosecond()/1000)
}

// decimalOf is a DuckDB decimal as text.
func decimalOf(d duckdb.Decimal) string {
	v := d.Value
	if v == nil {
		v = new(big.Int)
	}
	return decimalText(v, int(d.Scale))
}

// wideDecimal is a scaled integer of 256 bits. The library's own conversion
// does not take the smallest one, -2^255.
func wideDecimal(v *big.Int) decimal256.Num {
	mod := new(big.Int).And(v, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)))
	var words [4]uint64 // the highest first
	low := new(big.Int).SetUint64(^uint64(0))
	for i := len(words) - 1; i >= 0; i-- {
		words[i] = new(big.Int).And(mod, low).Uint64()
		mod.Rsh(mod, 64)
	}
	return decimal256.New(words[0], words[1], words[2], words[3])
}

package bigquery

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

type protoType = descriptorpb.FieldDescriptorProto_Type

// messagePlan decodes one message type into the columns of one STRUCT or
// table. It is compiled once per descriptor, so that rows are decoded straight
// off the wire.
type messagePlan struct {
	fields   []field
	byNumber map[protowire.Number]*fieldPlan
	dense    []*fieldPlan // byNumber for small numbers
}

type fieldPlan struct {
	column   int // in the enclosing messagePlan.fields
	field    field
	wire     protoType
	packable bool
	convert  func(raw) (value, error)
	sub      *messagePlan // of STRUCT
	stamp    bool         // google.protobuf.Timestamp
}

// raw is a scalar off the wire, by its wire type.
type raw struct {
	n uint64
	b []byte
}

// extraFieldError is a field of the descriptor that the table lacks.
type extraFieldError struct{ name string }

func (e *extraFieldError) Error() string {
	return "Input schema has more fields than BigQuery schema, extra fields: '" + e.name + "'"
}

// compilePlan fits a writer's descriptor to the fields of a table.
func compilePlan(d *descriptorpb.DescriptorProto, fields []field) (*messagePlan, error) {
	return compileMessage(d, []*descriptorpb.DescriptorProto{d}, fields)
}

func compileMessage(d *descriptorpb.DescriptorProto, scope []*descriptorpb.DescriptorProto, fields []field) (*messagePlan, error) {
	p := &messagePlan{fields: fields, byNumber: map[protowire.Number]*fieldPlan{}}
	covered := make([]bool, len(fields))
	for _, fd := range d.GetField() {
		name := protoColumn(fd)
		i, ok := findField(fields, name)
		if !ok {
			return nil, &extraFieldError{name}
		}
		if covered[i] {
			return nil, fmt.Errorf("two proto fields map to column %s", name)
		}
		covered[i] = true
		fp, err := compileField(fd, scope, fields[i])
		if err != nil {
			return nil, err
		}
		fp.column = i
		p.byNumber[protowire.Number(fd.GetNumber())] = fp
	}
	for i, f := range fields {
		if f.required && !covered[i] {
			return nil, fmt.Errorf("the required field %s is missing from the writer's schema", f.name)
		}
	}
	p.dense = make([]*fieldPlan, 256)
	for n, fp := range p.byNumber {
		if int(n) < len(p.dense) {
			p.dense[n] = fp
		}
	}
	return p, nil
}

// protoColumn is the column of a proto field: its name, unless annotated.
func protoColumn(fd *descriptorpb.FieldDescriptorProto) string {
	if o := fd.GetOptions(); o != nil && proto.HasExtension(o, storagepb.E_ColumnName) {
		if name, ok := proto.GetExtension(o, storagepb.E_ColumnName).(string); ok && name != "" {
			return name
		}
	}
	return fd.GetName()
}

func compileField(fd *descriptorpb.FieldDescriptorProto, scope []*descriptorpb.DescriptorProto, f field) (*fieldPlan, error) {
	repeated := fd.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	if repeated != f.repeated {
		return nil, fmt.Errorf("field %s: the proto field's label %s does not fit the column's mode %s", f.name, fd.GetLabel(), f.mode())
	}
	fp := &fieldPlan{field: f, wire: fd.GetType()}
	if fp.wire == descriptorpb.FieldDescriptorProto_TYPE_MESSAGE {
		return fp, compileNested(fp, fd, scope)
	}
	fp.packable = wireTypeOf(fp.wire) != protowire.BytesType
	fp.convert = converter(f, fp.wire)
	if fp.convert == nil {
		return nil, fmt.Errorf("field %s: the proto type %s does not fit the column's type %s", f.name, fp.wire, f.kind)
	}
	return fp, nil
}

func compileNested(fp *fieldPlan, fd *descriptorpb.FieldDescriptorProto, scope []*descriptorpb.DescriptorProto) error {
	name := strings.TrimPrefix(fd.GetTypeName(), ".")
	if fp.field.kind == kindTimestamp && (name == "google.protobuf.Timestamp" || name == "google_protobuf_Timestamp") {
		fp.stamp = true
		return nil
	}
	if fp.field.kind != kindStruct {
		return fmt.Errorf("field %s: the proto message %s does not fit the column's type %s", fp.field.name, name, fp.field.kind)
	}
	d := findMessage(scope, name)
	if d == nil {
		return fmt.Errorf("field %s: the writer's schema does not define the message %s", fp.field.name, name)
	}
	if len(scope) > 15 {
		return fmt.Errorf("field %s: messages nest deeper than 15 levels", fp.field.name)
	}
	sub, err := compileMessage(d, append(scope[:len(scope):len(scope)], d), fp.field.fields)
	if err != nil {
		return err
	}
	fp.sub = sub
	return nil
}

// findMessage resolves a type name from the innermost scope outward. The
// descriptor has no package, so a qualified name ends in the nested type's.
func findMessage(scope []*descriptorpb.DescriptorProto, name string) *descriptorpb.DescriptorProto {
	last := name[strings.LastIndexByte(name, '.')+1:]
	for i := len(scope) - 1; i >= 0; i-- {
		for _, d := range scope[i].GetNestedType() {
			if d.GetName() == last {
				return d
			}
		}
	}
	return nil
}

func wireTypeOf(t protoType) protowire.Type {
	switch t {
	case descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, descriptorpb.FieldDescriptorProto_TYPE_FIXED64, descriptorpb.FieldDescriptorProto_TYPE_SFIXED64:
		return protowire.Fixed64Type
	case descriptorpb.FieldDescriptorProto_TYPE_FLOAT, descriptorpb.FieldDescriptorProto_TYPE_FIXED32, descriptorpb.FieldDescriptorProto_TYPE_SFIXED32:
		return protowire.Fixed32Type
	case descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_BYTES, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE:
		return protowire.BytesType
	case descriptorpb.FieldDescriptorProto_TYPE_GROUP:
		return protowire.StartGroupType
	default:
		return protowire.VarintType
	}
}

var errWire = errors.New("the row is not a message of the writer's schema")

// decodeRow decodes a serialized row into row i of the batch.
func (p *messagePlan) decodeRow(b *rowBatch, i int, row []byte) error {
	for len(row) > 0 {
		fp, wire, rest, err := p.tag(row)
		if err != nil {
			return err
		}
		v := &b.vectors[fp.column]
		switch {
		case fp.field.repeated:
			list, _ := v.nested[i].([]any)
			list, rest, err = fp.appendRepeated(list, wire, rest)
			v.nested[i] = list
		case fp.sub != nil:
			var m map[string]any
			m, rest, err = fp.message(wire, rest)
			v.nested[i] = m
		default:
			var x value
			x, rest, err = fp.scalar(wire, rest)
			v.put(i, x)
		}
		if err != nil {
			return fmt.Errorf("field %s: %w", fp.field.name, err)
		}
		row = rest
	}
	return p.missing(func(c int) bool {
		return b.vectors[c].set[i] || b.vectors[c].nested != nil && b.vectors[c].nested[i] != nil
	})
}

func (p *messagePlan) missing(present func(column int) bool) error {
	for c, f := range p.fields {
		if f.required && !present(c) {
			return fmt.Errorf("the required field %s is missing", f.name)
		}
	}
	return nil
}

func (p *messagePlan) tag(b []byte) (*fieldPlan, protowire.Type, []byte, error) {
	number, wire, n := protowire.ConsumeTag(b)
	if n < 0 {
		return nil, 0, nil, errWire
	}
	fp := p.byNumber[number]
	if int(number) < len(p.dense) {
		fp = p.dense[number]
	}
	if fp == nil {
		return nil, 0, nil, fmt.Errorf("%w: field number %d is not in it", errWire, number)
	}
	return fp, wire, b[n:], nil
}

// scalar consumes one value and converts it.
func (fp *fieldPlan) scalar(wire protowire.Type, b []byte) (value, []byte, error) {
	if fp.stamp {
		return consumeStamp(wire, b)
	}
	if wire != wireTypeOf(fp.wire) {
		return value{}, nil, errWire
	}
	var r raw
	n := 0
	switch wire {
	case protowire.VarintType:
		r.n, n = protowire.ConsumeVarint(b)
	case protowire.Fixed64Type:
		r.n, n = protowire.ConsumeFixed64(b)
	case protowire.Fixed32Type:
		var n32 uint32
		n32, n = protowire.ConsumeFixed32(b)
		r.n = uint64(n32)
	case protowire.BytesType:
		r.b, n = protowire.ConsumeBytes(b)
	case protowire.StartGroupType, protowire.EndGroupType:
		return value{}, nil, errWire
	}
	if n < 0 {
		return value{}, nil, errWire
	}
	v, err := fp.convert(r)
	return v, b[n:], err
}

func (fp *fieldPlan) message(wire protowire.Type, b []byte) (map[string]any, []byte, error) {
	body, n := protowire.ConsumeBytes(b)
	if wire != protowire.BytesType || n < 0 {
		return nil, nil, errWire
	}
	m, err := fp.sub.decodeStruct(body)
	return m, b[n:], err
}

func (p *messagePlan) decodeStruct(b []byte) (map[string]any, error) {
	m := make(map[string]any, len(p.fields))
	seen := make([]bool, len(p.fields))
	for _, f := range p.fields {
		m[f.name] = nil
		if f.repeated {
			m[f.name] = []any{}
		}
	}
	for len(b) > 0 {
		fp, wire, rest, err := p.tag(b)
		if err != nil {
			return nil, err
		}
		name := p.fields[fp.column].name
		seen[fp.column] = true
		switch {
		case fp.field.repeated:
			list, _ := m[name].([]any)
			m[name], rest, err = fp.appendRepeated(list, wire, rest)
		case fp.sub != nil:
			m[name], rest, err = fp.message(wire, rest)
		default:
			var x value
			x, rest, err = fp.scalar(wire, rest)
			m[name] = x.driver(fp.field.kind)
		}
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", name, err)
		}
		b = rest
	}
	return m, p.missing(func(c int) bool { return seen[c] })
}

// appendRepeated consumes one element, or a packed run of them.
func (fp *fieldPlan) appendRepeated(list []any, wire protowire.Type, b []byte) ([]any, []byte, error) {
	if fp.sub != nil {
		m, rest, err := fp.message(wire, b)
		return append(list, m), rest, err
	}
	if wire != protowire.BytesType || !fp.packable {
		x, rest, err := fp.scalar(wire, b)
		return append(list, x.driver(fp.field.kind)), rest, err
	}
	run, n := protowire.ConsumeBytes(b)
	if n < 0 {
		return list, nil, errWire
	}
	for len(run) > 0 {
		x, rest, err := fp.scalar(wireTypeOf(fp.wire), run)
		if err != nil {
			return list, nil, err
		}
		list, run = append(list, x.driver(fp.field.kind)), rest
	}
	return list, b[n:], nil
}

// consumeStamp reads a google.protobuf.Timestamp.
func consumeStamp(wire protowire.Type, b []byte) (value, []byte, error) {
	body, n := protowire.ConsumeBytes(b)
	if wire != protowire.BytesType || n < 0 {
		return value{}, nil, errWire
	}
	var seconds, nanos int64
	for len(body) > 0 {
		number, wt, tn := protowire.ConsumeTag(body)
		if tn < 0 || wt != protowire.VarintType {
			return value{}, nil, errWire
		}
		v, vn := protowire.ConsumeVarint(body[tn:])
		if vn < 0 {
			return value{}, nil, errWire
		}
		body = body[tn+vn:]
		switch number {
		case 1:
			seconds = int64(v)
		case 2:
			nanos = int64(v)
		default:
			return value{}, nil, errWire
		}
	}
	if seconds < minMicros/microsPerSecond || seconds > maxMicros/microsPerSecond || nanos < 0 || nanos > 999_999_999 {
		return value{}, nil, errCivil
	}
	return value{i: seconds*microsPerSecond + nanos/1000}, b[n:], nil
}

// converter returns how a proto scalar becomes a value of the column, nil
// where BigQuery does not accept the pair.
// https://cloud.google.com/bigquery/docs/supported-data-types#supported_protocol_buffer_data_types
func converter(f field, t protoType) func(raw) (value, error) {
	switch f.kind {
	case kindBool:
		return convertBool(t)
	case kindInt64:
		return convertInt(t, math.MinInt64, math.MaxInt64)
	case kindFloat64:
		return convertFloat(t)
	case kindString:
		return convertText(f, t)
	case kindJSON:
		return convertWith(t, func(s string) (value, error) {
			text, err := normalizeJSON(s)
			return value{b: []byte(text)}, err
		})
	case kindBytes:
		return convertBytes(f, t)
	case kindDate:
		if isText(t) {
			return convertWith(t, micros(parseDate))
		}
		return convertInt(t, minDay, maxDay)
	case kindTimestamp:
		return convertInt(t, minMicros, maxMicros)
	case kindTime:
		return convertCivil(t, parseTime, unpackTime)
	case kindDatetime:
		return convertCivil(t, parseDatetime, unpackDatetime)
	case kindNumeric:
		return convertDecimal(t, numericScale)
	case kindBigNumeric:
		return convertDecimal(t, bigNumericScale)
	case kindStruct:
	}
	return nil
}

func isText(t protoType) bool { return t == descriptorpb.FieldDescriptorProto_TYPE_STRING }

func micros(parse func(string) (int64, error)) func(string) (value, error) {
	return func(s string) (value, error) {
		v, err := parse(s)
		if err != nil {
			return value{}, fmt.Errorf("%w: %q", err, s)
		}
		return value{i: v}, nil
	}
}

// signed reads an integer of the proto integer types that BigQuery takes.
func signed(t protoType) func(uint64) int64 {
	switch t {
	case descriptorpb.FieldDescriptorProto_TYPE_INT64:
		return func(n uint64) int64 { return int64(n) }
	case descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_ENUM:
		return func(n uint64) int64 { return int64(int32(n)) }
	case descriptorpb.FieldDescriptorProto_TYPE_UINT32:
		return func(n uint64) int64 { return int64(uint32(n)) }
	default:
		return nil
	}
}

func convertInt(t protoType, low, high int64) func(raw) (value, error) {
	read := signed(t)
	if read == nil {
		return nil
	}
	return func(r raw) (value, error) {
		n := read(r.n)
		if n < low || n > high {
			return value{}, fmt.Errorf("value %d is outside of [%d, %d]", n, low, high)
		}
		return value{i: n}, nil
	}
}

func convertBool(t protoType) func(raw) (value, error) {
	switch t {
	case descriptorpb.FieldDescriptorProto_TYPE_BOOL, descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_INT64,
		descriptorpb.FieldDescriptorProto_TYPE_UINT32, descriptorpb.FieldDescriptorProto_TYPE_UINT64:
		return func(r raw) (value, error) {
			if r.n != 0 {
				return value{i: 1}, nil
			}
			return value{}, nil
		}
	default:
		return nil
	}
}

func convertFloat(t protoType) func(raw) (value, error) {
	switch t {
	case descriptorpb.FieldDescriptorProto_TYPE_DOUBLE:
		return func(r raw) (value, error) { return value{f: math.Float64frombits(r.n)}, nil }
	case descriptorpb.FieldDescriptorProto_TYPE_FLOAT:
		return func(r raw) (value, error) { return value{f: float64(math.Float32frombits(uint32(r.n)))}, nil }
	default:
		return nil
	}
}

func convertText(f field, t protoType) func(raw) (value, error) {
	if !isText(t) {
		return nil
	}
	return func(r raw) (value, error) {
		if !utf8.Valid(r.b) {
			return value{}, errors.New("the string is not valid UTF-8")
		}
		if f.maxLength > 0 && int64(utf8.RuneCount(r.b)) > f.maxLength {
			return value{}, fmt.Errorf("the string is longer than the maximum length %d", f.maxLength)
		}
		return value{b: r.b}, nil
	}
}

func convertBytes(f field, t protoType) func(raw) (value, error) {
	if t != descriptorpb.FieldDescriptorProto_TYPE_BYTES && !isText(t) {
		return nil
	}
	return func(r raw) (value, error) {
		if f.maxLength > 0 && int64(len(r.b)) > f.maxLength {
			return value{}, fmt.Errorf("the bytes are longer than the maximum length %d", f.maxLength)
		}
		return value{b: r.b}, nil
	}
}

// convertWith converts text, checked to be UTF-8.
func convertWith(t protoType, parse func(string) (value, error)) func(raw) (value, error) {
	if !isText(t) {
		return nil
	}
	return func(r raw) (value, error) {
		if !utf8.Valid(r.b) {
			return value{}, errors.New("the string is not valid UTF-8")
		}
		return parse(string(r.b))
	}
}

func convertCivil(t protoType, parse func(string) (int64, error), unpack func(int64) (int64, error)) func(raw) (value, error) {
	if isText(t) {
		return convertWith(t, micros(parse))
	}
	if t != descriptorpb.FieldDescriptorProto_TYPE_INT64 {
		return nil
	}
	return func(r raw) (value, error) {
		v, err := unpack(int64(r.n))
		return value{i: v}, err
	}
}

func convertDecimal(t protoType, scale int) func(raw) (value, error) {
	switch t {
	case descriptorpb.FieldDescriptorProto_TYPE_STRING:
		return convertWith(t, func(s string) (value, error) { return decimalFromText(s, scale) })
	case descriptorpb.FieldDescriptorProto_TYPE_BYTES:
		return func(r raw) (value, error) {
			v, err := decimalBytes(r.b, scale)
			if err != nil {
				return value{}, err
			}
			return decimalValue(v, scale), nil
		}
	case descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, descriptorpb.FieldDescriptorProto_TYPE_FLOAT:
		return nil // a double's digits are not what was meant; write decimals as text
	default:
		read := signed(t)
		if read == nil || t == descriptorpb.FieldDescriptorProto_TYPE_ENUM {
			return nil
		}
		return func(r raw) (value, error) { return decimalFromText(fmt.Sprint(read(r.n)), scale) }
	}
}

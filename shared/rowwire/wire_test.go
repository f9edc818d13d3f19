package rowwire_test

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// copyHeader is what PostgreSQL begins every binary COPY with.
const copyHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// field is the bytes of one COPY field; nil is NULL.
type field = []byte

func be16(v int) field   { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
func be32(v int64) field { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
func be64(v int64) field { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

func tuple(fields ...field) []byte {
	b := be16(len(fields))
	for _, f := range fields {
		if f == nil {
			b = append(b, be32(-1)...)
			continue
		}
		b = append(b, be32(int64(len(f)))...)
		b = append(b, f...)
	}
	return b
}

func stream(tuples ...[]byte) []byte {
	b := []byte(copyHeader)
	for _, t := range tuples {
		b = append(b, t...)
	}
	return append(b, 0xFF, 0xFF)
}

// arrayField builds a one-dimensional array with the given lower bound.
func arrayField(lower int64, elements ...field) field {
	b := append(be32(1), be32(0)...)
	b = append(b, be32(25)...)
	b = append(b, be32(int64(len(elements)))...)
	b = append(b, be32(lower)...)
	for _, e := range elements {
		if e == nil {
			b = append(b, be32(-1)...)
			continue
		}
		b = append(b, be32(int64(len(e)))...)
		b = append(b, e...)
	}
	return b
}

// numericField builds the binary numeric of a decimal text, as numeric_send does.
func numericField(text string) field {
	switch text {
	case "NaN":
		return numericParts(0, 0xC000, 0)
	case "Infinity":
		return numericParts(0, 0xD000, 0)
	case "-Infinity":
		return numericParts(0, 0xF000, 0)
	}
	sign := 0
	if rest, ok := strings.CutPrefix(text, "-"); ok {
		text, sign = rest, 0x4000
	}
	whole, frac, _ := strings.Cut(text, ".")
	scale := len(frac)
	whole = strings.Repeat("0", (4-len(whole)%4)%4) + whole
	frac += strings.Repeat("0", (4-len(frac)%4)%4)
	weight := len(whole)/4 - 1
	var digits []int
	for all := whole + frac; all != ""; all = all[4:] {
		var d int
		if _, err := fmt.Sscanf(all[:4], "%d", &d); err != nil {
			panic(err)
		}
		digits = append(digits, d)
	}
	for len(digits) > 0 && digits[0] == 0 {
		digits = digits[1:]
		weight--
	}
	for len(digits) > 0 && digits[len(digits)-1] == 0 {
		digits = digits[:len(digits)-1]
	}
	if len(digits) == 0 {
		weight, sign = 0, 0
	}
	return numericParts(weight, sign, scale, digits...)
}

func numericParts(weight, sign, scale int, digits ...int) field {
	b := append(be16(len(digits)), be16(weight)...)
	b = append(b, be16(sign)...)
	b = append(b, be16(scale)...)
	for _, d := range digits {
		b = append(b, be16(d)...)
	}
	return b
}

// normal returns a decimal text without sign of zero, trailing zeros or exponent, by big.Rat.
func normal(t interface{ Fatalf(string, ...any) }, text string) string {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("not a number: %q", text)
	}
	s := r.FloatString(400)
	s = strings.TrimRight(s, "0")
	return strings.TrimSuffix(s, ".")
}

// wireValue is one field of a decoded message.
type wireValue struct {
	Field  protowire.Number
	Type   protowire.Type
	Number uint64
	Text   string
}

func varint(field int, v int64) wireValue {
	return wireValue{Field: protowire.Number(field), Type: protowire.VarintType, Number: uint64(v)}
}

func fixed64(field int, v uint64) wireValue {
	return wireValue{Field: protowire.Number(field), Type: protowire.Fixed64Type, Number: v}
}

func text(field int, v string) wireValue {
	return wireValue{Field: protowire.Number(field), Type: protowire.BytesType, Text: v}
}

// decode reads a message with protowire, which shares no code with the transcoder.
func decode(tb testing.TB, b []byte) []wireValue {
	tb.Helper()
	var out []wireValue
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			tb.Fatalf("decoding tag: %v", protowire.ParseError(n))
		}
		b = b[n:]
		v := wireValue{Field: num, Type: typ}
		switch typ {
		case protowire.VarintType:
			v.Number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v.Number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			var s []byte
			s, n = protowire.ConsumeBytes(b)
			v.Text = string(s)
		default:
			tb.Fatalf("unexpected wire type %v", typ)
		}
		if n < 0 {
			tb.Fatalf("decoding value: %v", protowire.ParseError(n))
		}
		b = b[n:]
		out = append(out, v)
	}
	return out
}

// rejected is a Reject that may be kept.
type rejected struct {
	Row    int64
	Column int
	Reason rowwire.Reason
	Tuple  [][]byte
}

// outcome is all that a transcoder gave.
type outcome struct {
	Rows       [][]byte
	Batches    []int // rows of each
	Rejects    []rejected
	Partitions []string
}

// run transcodes chunks, with one batch that is given back each time, and returns the first error.
func run(tb testing.TB, l rowwire.Layout, chunks ...[]byte) (outcome, error) {
	tb.Helper()
	var out outcome
	flush := func(b *rowwire.Batch) (*rowwire.Batch, error) {
		size := 0
		for _, row := range b.Rows {
			out.Rows = append(out.Rows, append([]byte(nil), row...))
			size += len(row)
		}
		if size != b.Bytes {
			tb.Errorf("batch has %d bytes, says %d", size, b.Bytes)
		}
		out.Batches = append(out.Batches, len(b.Rows))
		return b, nil
	}
	reject := func(r rowwire.Reject) error {
		kept := rejected{Row: r.Row, Column: r.Column, Reason: r.Reason}
		for _, f := range r.Tuple {
			if f != nil {
				f = append([]byte{}, f...)
			}
			kept.Tuple = append(kept.Tuple, f)
		}
		out.Rejects = append(out.Rejects, kept)
		return nil
	}
	tr, err := rowwire.NewTranscoder(l, nil, flush, reject)
	if err != nil {
		return out, err
	}
	for _, chunk := range chunks {
		if n, err := tr.Write(chunk); err != nil {
			return out, err
		} else if n != len(chunk) {
			tb.Errorf("Write took %d of %d bytes", n, len(chunk))
		}
	}
	if err := tr.Close(); err != nil {
		return out, err
	}
	if got, want := tr.Rows(), int64(len(out.Rows)); got != want {
		tb.Errorf("Rows() = %d, want %d", got, want)
	}
	if got, want := tr.Rejected(), int64(len(out.Rejects)); got != want {
		tb.Errorf("Rejected() = %d, want %d", got, want)
	}
	size := int64(0)
	for _, row := range out.Rows {
		size += int64(len(row))
	}
	if tr.Bytes() != size {
		tb.Errorf("Bytes() = %d, want %d", tr.Bytes(), size)
	}
	out.Partitions = tr.Partitions()
	return out, nil
}

// interval is a binary interval.
func interval(months, days int32, micros int64) field {
	return append(append(be64(micros), be32(int64(days))...), be32(int64(months))...)
}

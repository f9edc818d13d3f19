package reverse

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/target"
)

// stageRows loads the mapped columns of the rows, in their order, as COPY
// BINARY. Rows with a value that Postgres cannot store are left out and returned.
func stageRows(ctx context.Context, stage *target.Staging, in *input, o *Outcome) ([]target.Reject, error) {
	l := newLoader(in.schema, stage.Columns(), stage.Targets())
	loaded, err := stage.Load(ctx, func(w io.Writer) error { return l.run(ctx, w, in) })
	o.Rows = loaded + int64(len(l.rejects))
	return l.rejects, err
}

// loader takes records of a source to those of the mapped columns.
type loader struct {
	at      []int // position of each mapped column in the source
	targets []string
	key     int // position of the fingerprint among the mapped columns, -1: there is none
	schema  *arrow.Schema
	rejects []target.Reject

	mapped arrow.Record // in work
	first  int64        // its first row, counted over all records
}

// newLoader maps columns. Those that go to targets come first; the rest are marks.
func newLoader(schema *arrow.Schema, columns, targets []string) *loader {
	l := &loader{at: make([]int, len(columns)), targets: targets, key: -1}
	fields := make([]arrow.Field, len(columns))
	for i, name := range columns {
		l.at[i] = slices.IndexFunc(schema.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, name) })
		fields[i] = schema.Field(l.at[i])
		if i < len(targets) {
			fields[i].Name = targets[i] // a column may be mapped twice
		} else if name == target.KeyMark {
			l.key = i
		}
	}
	l.schema = arrow.NewSchema(fields, nil)
	return l
}

func (l *loader) run(ctx context.Context, w io.Writer, in *input) error {
	out, err := rowwire.NewCopyWriter(w, l.schema)
	if err != nil {
		return err
	}
	out.Reject = l.reject
	if err := in.each(ctx, func(record arrow.Record) error { return l.write(out, record) }); err != nil {
		return err
	}
	return out.Close()
}

func (l *loader) write(out *rowwire.CopyWriter, record arrow.Record) error {
	arrays := make([]arrow.Array, len(l.at))
	for i, n := range l.at {
		arrays[i] = record.Column(n)
	}
	l.mapped = array.NewRecord(l.schema, arrays, record.NumRows())
	defer l.mapped.Release()
	err := out.WriteRecord(l.mapped)
	l.first += record.NumRows()
	return err
}

// reject keeps a row that never reached Postgres.
func (l *loader) reject(e *rowwire.ValueError) error {
	if len(l.rejects) == target.MaxRejects {
		return target.TooMany("of column " + e.Column + ": " + e.Reason.String())
	}
	at := int(e.Row - l.first)
	fields := make(map[string]any, len(l.targets))
	for i, name := range l.targets {
		fields[name] = value(l.mapped.Column(i), at)
	}
	row, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("keeping a rejected row: %w", err)
	}
	r := target.Reject{Column: e.Column, Reason: e.Reason.String(), Row: row}
	if l.key >= 0 {
		if keys, ok := l.mapped.Column(l.key).(*array.Int64); ok {
			r.Fingerprint = new(keys.Value(at))
		}
	}
	l.rejects = append(l.rejects, r)
	return nil
}

// value is what of a row is kept as JSON: numbers exact, everything that JSON
// has no form for as text.
func value(a arrow.Array, i int) any {
	if a.IsNull(i) {
		return nil
	}
	switch a := a.(type) {
	case *array.Int64:
		return a.Value(i)
	case *array.Float64:
		if v := a.Value(i); !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
	case *array.Boolean:
		return a.Value(i)
	case *array.String:
		return readable(a.Value(i))
	case *array.Decimal128:
		return decimal(a.Value(i).BigInt(), a.DataType())
	case *array.Decimal256:
		return decimal(a.Value(i).BigInt(), a.DataType())
	case *array.List:
		from, to := a.ValueOffsets(i)
		elements := make([]any, 0, to-from)
		for j := from; j < to; j++ {
			elements = append(elements, value(a.ListValues(), int(j)))
		}
		return elements
	}
	return a.ValueStr(i)
}

// maxKept bounds the text kept of one value, in bytes: one that is too large for
// a row is too large for the row of its reject.
const maxKept = 1 << 20

// readable writes what jsonb cannot hold so that it can be read.
func readable(v string) string {
	if len(v) > maxKept {
		v = v[:maxKept] + "..."
	}
	return strings.ReplaceAll(strings.ToValidUTF8(v, "\uFFFD"), "\x00", `\u0000`)
}

func decimal(unscaled *big.Int, typ arrow.DataType) any {
	t, ok := typ.(arrow.DecimalType)
	if !ok {
		return unscaled.String()
	}
	scale := t.GetScale()
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)
	return json.Number(new(big.Rat).SetFrac(unscaled, power).FloatString(int(scale)))
}

// Package rowwire_test holds the row formats against a real PostgreSQL: its own COPY output and its own texts.
package rowwire_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/test/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// connect opens a connection to a database of the test's own.
func connect(tb testing.TB) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), postgres.NewDatabase(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := conn.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return conn
}

func execute(tb testing.TB, conn *pgx.Conn, sql string, args ...any) {
	tb.Helper()
	if _, err := conn.Exec(tb.Context(), sql, args...); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// texts returns the rows of a query of text columns, NULL as nil.
func texts(tb testing.TB, conn *pgx.Conn, sql string) [][]*string {
	tb.Helper()
	rows, err := conn.Query(tb.Context(), sql)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	var out [][]*string
	for rows.Next() {
		row := make([]*string, len(rows.FieldDescriptions()))
		targets := make([]any, len(row))
		for i := range row {
			targets[i] = &row[i]
		}
		if err := rows.Scan(targets...); err != nil {
			tb.Fatal(err)
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	return out
}

// descriptor is the proto2 message that BigQuery would be told for the columns, as its documentation maps the types.
func descriptor(tb testing.TB, columns []rowwire.Column) protoreflect.MessageDescriptor {
	tb.Helper()
	message := &descriptorpb.DescriptorProto{Name: proto.String("Row")}
	for _, c := range columns {
		label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		if c.Repeated {
			label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		}
		message.Field = append(message.Field, &descriptorpb.FieldDescriptorProto{
			Name: proto.String(c.Name), Number: proto.Int32(c.Field), Label: label.Enum(), Type: fieldType(c.Kind).Enum(),
		})
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("row.proto"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{message},
	}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return file.Messages().Get(0)
}

func fieldType(k rowwire.Kind) descriptorpb.FieldDescriptorProto_Type {
	switch k {
	case rowwire.Bool:
		return descriptorpb.FieldDescriptorProto_TYPE_BOOL
	case rowwire.Int2, rowwire.Int4, rowwire.Int8, rowwire.NumericInt, rowwire.Timestamp:
		return descriptorpb.FieldDescriptorProto_TYPE_INT64
	case rowwire.Date:
		return descriptorpb.FieldDescriptorProto_TYPE_INT32
	case rowwire.Float4, rowwire.Float8, rowwire.NumericFloat:
		return descriptorpb.FieldDescriptorProto_TYPE_DOUBLE
	case rowwire.Bytes:
		return descriptorpb.FieldDescriptorProto_TYPE_BYTES
	default:
		return descriptorpb.FieldDescriptorProto_TYPE_STRING
	}
}

// read is what came of a COPY: messages and rejects.
type read struct {
	Messages []*dynamicpb.Message
	Rejects  map[int64]rowwire.Reason
}

// extract copies a query out through a transcoder and decodes what comes.
func extract(tb testing.TB, conn *pgx.Conn, l rowwire.Layout, query string) read {
	tb.Helper()
	columns := append([]rowwire.Column{}, l.Columns...)
	for name, f := range map[string]struct {
		field int32
		kind  rowwire.Kind
	}{"_version": {l.VersionField, rowwire.Text}, "_synced_at": {l.SyncedAtField, rowwire.Timestamp}, "_deleted": {l.DeletedField, rowwire.Bool}} {
		if f.field != 0 {
			columns = append(columns, rowwire.Column{Name: name, Kind: f.kind, Field: f.field})
		}
	}
	d := descriptor(tb, columns)
	out := read{Rejects: map[int64]rowwire.Reason{}}
	flush := func(b *rowwire.Batch) (*rowwire.Batch, error) {
		for _, row := range b.Rows {
			m := dynamicpb.NewMessage(d)
			if err := proto.Unmarshal(row, m); err != nil {
				return nil, fmt.Errorf("decoding row: %w", err)
			}
			if unknown := m.GetUnknown(); len(unknown) != 0 {
				return nil, fmt.Errorf("row has unknown fields %x", unknown)
			}
			out.Messages = append(out.Messages, m)
		}
		return b, nil
	}
	reject := func(r rowwire.Reject) error {
		out.Rejects[r.Row] = r.Reason
		return nil
	}
	tr, err := rowwire.NewTranscoder(l, nil, flush, reject)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := conn.PgConn().CopyTo(tb.Context(), tr, "COPY ("+query+") TO STDOUT (FORMAT binary)"); err != nil {
		tb.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		tb.Fatal(err)
	}
	return out
}

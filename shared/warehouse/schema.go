package warehouse

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Column is a column of a destination table.
type Column struct {
	Name     string
	Kind     rowwire.Kind
	Repeated bool
	Required bool   // part of the key; every other column may be absent, as in a tombstone
	HashKey  []byte // of a Text column whose values are carried hashed; see rowwire.Column
}

// Type is the column's type as GoogleSQL writes it.
func (c Column) Type() string {
	typ, _ := fieldTypes(c.Kind)
	return describe(&bigquery.FieldSchema{Type: typ, Repeated: c.Repeated})
}

// Metadata columns of every log. DESIGN.md, "Forward: write".
const (
	VersionColumn  = "_version"
	SyncedAtColumn = "_synced_at"
	DeletedColumn  = "_deleted"
)

// The metadata fields follow the columns in a row's message; their numbers are
// fixed by how many columns there are.
func metadataFields(columns int) (version, syncedAt, deleted int32) {
	n := int32(columns) //nolint:gosec // Postgres allows 1,600 columns
	return n + 1, n + 2, n + 3
}

// fieldTypes are the BigQuery type and the protocol-buffer type of each kind, as
// rowwire encodes it. (BigQuery: supported data types of the Storage Write API.)
func fieldTypes(k rowwire.Kind) (bigquery.FieldType, descriptorpb.FieldDescriptorProto_Type) {
	switch k {
	case rowwire.Bool:
		return bigquery.BooleanFieldType, descriptorpb.FieldDescriptorProto_TYPE_BOOL
	case rowwire.Int2, rowwire.Int4, rowwire.Int8, rowwire.NumericInt:
		return bigquery.IntegerFieldType, descriptorpb.FieldDescriptorProto_TYPE_INT64
	case rowwire.Float4, rowwire.Float8, rowwire.NumericFloat:
		return bigquery.FloatFieldType, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE
	case rowwire.Numeric:
		return bigquery.NumericFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING
	case rowwire.BigNumeric:
		return bigquery.BigNumericFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING
	case rowwire.JSON, rowwire.JSONB, rowwire.JSONText:
		return bigquery.JSONFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING
	case rowwire.Bytes:
		return bigquery.BytesFieldType, descriptorpb.FieldDescriptorProto_TYPE_BYTES
	case rowwire.Date:
		return bigquery.DateFieldType, descriptorpb.FieldDescriptorProto_TYPE_INT32
	case rowwire.Time:
		return bigquery.TimeFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING
	case rowwire.DateTime:
		return bigquery.DateTimeFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING
	case rowwire.Timestamp:
		return bigquery.TimestampFieldType, descriptorpb.FieldDescriptorProto_TYPE_INT64
	case rowwire.Interval:
		return bigquery.IntervalFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING
	case rowwire.Geography:
		return bigquery.GeographyFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING
	case rowwire.Text, rowwire.UUID, rowwire.IntervalText:
	}
	return bigquery.StringFieldType, descriptorpb.FieldDescriptorProto_TYPE_STRING
}

func schemaOf(columns []Column) bigquery.Schema {
	schema := make(bigquery.Schema, 0, len(columns)+3)
	for _, c := range columns {
		typ, _ := fieldTypes(c.Kind)
		schema = append(schema, &bigquery.FieldSchema{Name: c.Name, Type: typ, Repeated: c.Repeated, Required: c.Required})
	}
	return append(schema,
		&bigquery.FieldSchema{Name: VersionColumn, Type: bigquery.StringFieldType, Required: true, Description: "generation/position/ordinal in hex; grows with every change of a row"},
		&bigquery.FieldSchema{Name: SyncedAtColumn, Type: bigquery.TimestampFieldType, Required: true, Description: "when the row was read from Postgres"},
		&bigquery.FieldSchema{Name: DeletedColumn, Type: bigquery.BooleanFieldType, Required: true, Description: "the row was deleted in Postgres"},
	)
}

var protoName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// descriptorOf describes the messages rowwire writes: field i+1 is column i.
// Names that are no identifiers travel in the column_name annotation.
func descriptorOf(columns []Column, mode Mode) *descriptorpb.DescriptorProto {
	d := &descriptorpb.DescriptorProto{Name: proto.String("Row")}
	taken := map[string]bool{}
	for _, c := range columns {
		taken[c.Name] = true
	}
	add := func(number int32, name string, typ descriptorpb.FieldDescriptorProto_Type, label descriptorpb.FieldDescriptorProto_Label) {
		f := &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(number), Type: typ.Enum(), Label: label.Enum()}
		if !protoName.MatchString(name) {
			plain := fmt.Sprintf("column_%d", number)
			for taken[plain] {
				plain += "_"
			}
			f.Name = proto.String(plain)
			f.Options = &descriptorpb.FieldOptions{}
			proto.SetExtension(f.Options, storagepb.E_ColumnName, name)
		}
		d.Field = append(d.Field, f)
	}
	for i, c := range columns {
		label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		switch {
		case c.Repeated:
			label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		case c.Required:
			label = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED
		}
		_, typ := fieldTypes(c.Kind)
		add(int32(i+1), c.Name, typ, label)
	}
	version, syncedAt, deleted := metadataFields(len(columns))
	required := descriptorpb.FieldDescriptorProto_LABEL_REQUIRED
	add(version, VersionColumn, descriptorpb.FieldDescriptorProto_TYPE_STRING, required)
	add(syncedAt, SyncedAtColumn, descriptorpb.FieldDescriptorProto_TYPE_INT64, required)
	add(deleted, DeletedColumn, descriptorpb.FieldDescriptorProto_TYPE_BOOL, required)
	if mode == CDC {
		sequence, change := changeFields(len(columns))
		add(sequence, sequenceColumn, descriptorpb.FieldDescriptorProto_TYPE_STRING, required)
		add(change, changeColumn, descriptorpb.FieldDescriptorProto_TYPE_STRING, required)
	}
	return d
}

// Layout is the rowwire layout of rows for the table, read at the given time, which says
// what BigQuery takes into time partitions of those that are streamed; what is loaded
// may go into any.
func (t *Table) Layout(at time.Time, loaded bool) rowwire.Layout {
	l := rowwire.Layout{Columns: make([]rowwire.Column, len(t.Columns)), BatchBytes: requestBytes}
	if p := t.Partition; p != nil {
		granularities := map[string]rowwire.Granularity{"hour": rowwire.Hour, "day": rowwire.Day, "month": rowwire.Month, "year": rowwire.Year}
		l.Partition = &rowwire.Partition{Granularity: granularities[p.Granularity], Column: slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == p.Column })}
		if !loaded && t.Mode != Merge { // what is staged is in no partition of the table yet
			l.Partition.Earliest, l.Partition.Latest = streamingWindow(at)
		}
	}
	for i, c := range t.Columns {
		l.Columns[i] = rowwire.Column{Name: c.Name, Kind: c.Kind, Repeated: c.Repeated, Field: int32(i + 1), HashKey: c.HashKey}
	}
	l.VersionField, l.SyncedAtField, l.DeletedField = metadataFields(len(t.Columns))
	if t.Mode == CDC {
		l.SequenceField, l.ChangeField = changeFields(len(t.Columns))
		l.DeleteTombstones = t.Deletes == HardDeletes
	}
	return l
}

// streamingWindow is what BigQuery accepts as a stream into time partitions: ten
// years back to one year ahead. (BigQuery: Storage Write API, partitioned tables.)
func streamingWindow(now time.Time) (earliest, latest time.Time) {
	return now.AddDate(-10, 0, 0), now.AddDate(1, 0, 0)
}

// Version returns the part of _version that one batch shares. Its sections have
// a fixed width, so that versions compare as strings as they do as numbers.
func Version(generation int, position int64) string {
	return GenerationPrefix(generation) + fmt.Sprintf("%016x/", position)
}

// GenerationPrefix returns the part of _version that all versions of one
// generation share, and that all of earlier ones are below.
func GenerationPrefix(generation int) string { return fmt.Sprintf("%08x/", generation) }

// VersionAt returns the whole _version at an ordinal within a batch, as rowwire
// writes it: that of a change which is no row.
func VersionAt(generation int, position, ordinal int64) string {
	return Version(generation, position) + fmt.Sprintf("%08x", ordinal)
}

// reservedPrefixes begin column names that BigQuery keeps for itself.
// (BigQuery: specifying a schema; change data capture.)
//
//nolint:gochecknoglobals // a lookup table, never written
var reservedPrefixes = []string{
	"_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier", "_change_sequence_number",
	"_change_type", "_change_timestamp",
}

// columnName is what BigQuery allows for a column. (BigQuery: flexible column names.)
var columnName = regexp.MustCompile(`^[\p{L}\p{N}\p{Pc}\p{Pd}\p{M}&%=+:'<>#| ]{1,300}$`)

// checkNames refuses columns that BigQuery cannot name (I3).
func checkNames(table string, columns []Column) error {
	seen := map[string]string{VersionColumn: "a metadata column", SyncedAtColumn: "a metadata column", DeletedColumn: "a metadata column"}
	for _, c := range columns {
		lower := strings.ToLower(c.Name)
		if other, taken := seen[lower]; taken {
			return fault.Fix(fmt.Errorf("column %q of %s and %s are one name in BigQuery", c.Name, table, other), "rename it in the source, or under columns: {rename: ..} in the pipeline file")
		}
		seen[lower] = fmt.Sprintf("column %q", c.Name)
		for _, prefix := range reservedPrefixes {
			if strings.HasPrefix(lower, prefix) {
				return fault.Fix(fmt.Errorf("column %q of %s begins with %s, which BigQuery reserves", c.Name, table, prefix), "rename it in the source, or under columns: {rename: ..} in the pipeline file")
			}
		}
		if !columnName.MatchString(c.Name) {
			return fault.Fix(fmt.Errorf("column %q of %s has a name that BigQuery does not allow", c.Name, table), "rename it in the source, or under columns: {rename: ..} in the pipeline file")
		}
	}
	return nil
}

// quote writes an identifier or path for GoogleSQL. It is the only place where
// names enter SQL for BigQuery; backslash escapes work inside backticks.
func quote(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`", "\n", `\n`, "\r", `\r`).Replace(name) + "`"
}

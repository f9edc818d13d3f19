package warehouse

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/civil"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// kinds are all kinds with a COPY value and what people read of it.
func kinds() []struct {
	kind  rowwire.Kind
	typ   bigquery.FieldType
	value []byte
	json  string
} {
	be := func(width int, v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v))[8-width:] }
	numeric := []byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 42}
	return []struct {
		kind  rowwire.Kind
		typ   bigquery.FieldType
		value []byte
		json  string
	}{
		{rowwire.Bool, "BOOLEAN", []byte{1}, `true`},
		{rowwire.Int2, "INTEGER", be(2, -2), `"-2"`},
		{rowwire.Int4, "INTEGER", be(4, 7), `"7"`},
		{rowwire.Int8, "INTEGER", be(8, math.MinInt64), `"-9223372036854775808"`},
		{rowwire.Float4, "FLOAT", be(4, int64(math.Float32bits(0.5))), `0.5`},
		{rowwire.Float8, "FLOAT", be(8, int64(math.Float64bits(-1.25))), `-1.25`},
		{rowwire.Numeric, "NUMERIC", numeric, `"42"`},
		{rowwire.BigNumeric, "BIGNUMERIC", numeric, `"42"`},
		{rowwire.Text, "STRING", []byte("grüße"), `"grüße"`},
		{rowwire.JSON, "JSON", []byte(`{"a":1}`), `"{\"a\":1}"`},
		{rowwire.JSONB, "JSON", append([]byte{1}, `[1]`...), `"[1]"`},
		{rowwire.Bytes, "BYTES", []byte{0, 255}, `"AP8="`},
		{rowwire.UUID, "STRING", make([]byte, 16), `"00000000-0000-0000-0000-000000000000"`},
		{rowwire.Date, "DATE", be(4, 1), `10958`},
		{rowwire.Time, "TIME", be(8, 1), `"00:00:00.000001"`},
		{rowwire.DateTime, "DATETIME", be(8, 0), `"2000-01-01 00:00:00"`},
		{rowwire.Timestamp, "TIMESTAMP", be(8, 0), `"946684800000000"`},
	}
}

// TestRowFitsDescriptor: what rowwire writes for a layout reads back through the
// descriptor sent beside it, value by value.
func TestRowFitsDescriptor(t *testing.T) {
	t.Parallel()
	columns, row, want := []Column{}, []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"), map[string]any{}
	field := func(b []byte) { row = append(binary.BigEndian.AppendUint32(row, uint32(len(b))), b...) }
	row = binary.BigEndian.AppendUint16(row, uint16(2*len(kinds())))
	for _, repeated := range []bool{false, true} {
		for i, k := range kinds() {
			name := k.kind.String()
			var value any
			if err := json.Unmarshal([]byte(k.json), &value); err != nil {
				t.Fatal(err)
			}
			b := k.value
			if repeated {
				name, value = name+"s", []any{value, value}
				b = binary.BigEndian.AppendUint32(nil, 1)                     // dimensions
				b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1) // no NULLs, any element type, two from 1
				for range 2 {
					b = append(binary.BigEndian.AppendUint32(b, uint32(len(k.value))), k.value...)
				}
			}
			columns, want[name] = append(columns, Column{Name: name, Kind: k.kind, Repeated: repeated, Required: i == 3 && !repeated}), value
			field(b)
		}
	}
	row = append(row, 0xff, 0xff)
	layout := (&Table{Columns: columns}).Layout(time.Time{}, false)
	layout.VersionPrefix, layout.SyncedAt = Version(1, 2), 3
	want["_version"], want["_synced_at"], want["_deleted"] = "00000001/0000000000000002/00000000", "3", false

	var message []byte
	rows, err := rowwire.NewTranscoder(layout, nil, func(b *rowwire.Batch) (*rowwire.Batch, error) {
		message = b.Rows[0]
		return new(rowwire.Batch), nil
	}, func(r rowwire.Reject) error { t.Errorf("rejected: %+v", r); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rows.Write(row); err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := decodeRow(descriptorOf(columns, Append), message)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	// protojson renames as JSON does in protocol buffers.
	for from, to := range map[string]string{"Version": "_version", "SyncedAt": "_synced_at", "Deleted": "_deleted"} {
		if v, ok := got[from]; ok {
			delete(got, from)
			got[to] = v
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
}

func TestDecodeRowRefuses(t *testing.T) {
	t.Parallel()
	d := descriptorOf([]Column{{Name: "id", Kind: rowwire.Int8}}, Append)
	if got, err := decodeRow(d, []byte{0xff}); err == nil {
		t.Errorf("decoded %s", got)
	}
	if got, err := decodeRow(d, nil); err == nil { // required fields are missing
		t.Errorf("decoded %s", got)
	}
}

func TestSchemaOf(t *testing.T) {
	t.Parallel()
	var columns []Column
	want := map[string]bigquery.FieldType{"_version": "STRING", "_synced_at": "TIMESTAMP", "_deleted": "BOOLEAN"}
	for _, k := range kinds() {
		columns = append(columns, Column{Name: k.kind.String(), Kind: k.kind, Repeated: k.kind == rowwire.Text, Required: k.kind == rowwire.Int8})
		want[k.kind.String()] = k.typ
	}
	got := map[string]bigquery.FieldType{}
	for i, f := range schemaOf(columns) {
		got[f.Name] = f.Type
		metadata := i >= len(columns)
		if f.Required != (metadata || f.Name == "Int8") || f.Repeated != (f.Name == "Text") {
			t.Errorf("%s is required %t, repeated %t", f.Name, f.Required, f.Repeated)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("schemaOf (-want +got):\n%s", diff)
	}
}

func TestDescriptorOf(t *testing.T) {
	t.Parallel()
	d := descriptorOf([]Column{{Name: "id", Kind: rowwire.Int8, Required: true}, {Name: "größe", Kind: rowwire.Text}, {Name: "2nd", Kind: rowwire.Date, Repeated: true}}, Append)
	type field struct {
		Name, Column string
		Number       int32
		Label        descriptorpb.FieldDescriptorProto_Label
	}
	var got []field
	for _, f := range d.GetField() {
		column, _ := proto.GetExtension(f.GetOptions(), storagepb.E_ColumnName).(string)
		got = append(got, field{f.GetName(), column, f.GetNumber(), f.GetLabel()})
	}
	const (
		optional = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		required = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED
		repeated = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	)
	want := []field{
		{"id", "", 1, required},
		{"column_2", "größe", 2, optional},
		{"column_3", "2nd", 3, repeated},
		{"_version", "", 4, required},
		{"_synced_at", "", 5, required},
		{"_deleted", "", 6, required},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("descriptorOf (-want +got):\n%s", diff)
	}
}

// TestDescriptorIsValid for any names a table of Postgres may have, save those
// that look like the stand-ins.
func TestDescriptorIsValid(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.OneOf(rapid.StringMatching(`[a-z_]{1,4}`), rapid.StringMatching(`[a-z0-9 é-]{1,6}`)), 1, 12, strings.ToLower).Draw(t, "names")
		columns := make([]Column, len(names))
		for i, name := range names {
			columns[i] = Column{Name: name, Kind: rowwire.Text}
		}
		if checkNames("t", columns) != nil {
			return
		}
		file := &descriptorpb.FileDescriptorProto{Name: proto.String("f"), Syntax: proto.String("proto2"), MessageType: []*descriptorpb.DescriptorProto{descriptorOf(columns, Append)}}
		if _, err := protodesc.NewFile(file, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// TestVersionOrder: versions compare as text as generation and position do.
func TestVersionOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		generation, position := rapid.IntRange(0, math.MaxInt32), rapid.Int64Range(0, math.MaxInt64)
		g1, p1, g2, p2 := generation.Draw(t, "g1"), position.Draw(t, "p1"), generation.Draw(t, "g2"), position.Draw(t, "p2")
		if rapid.Bool().Draw(t, "same generation") {
			g2 = g1
		}
		want := g1 < g2 || g1 == g2 && p1 < p2
		// Whatever ordinal follows.
		if got := Version(g1, p1)+"ffffffff" < Version(g2, p2)+"00000000"; got != want {
			t.Fatalf("%s < %s is %t", Version(g1, p1), Version(g2, p2), got)
		}
	})
}

func TestCheckNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 301)
	tests := map[string]struct {
		names []string
		want  bool
	}{
		"plain":             {[]string{"id", "Name", "_private", "größe", "a b", "a-b", "a%b", long[1:]}, true},
		"metadata":          {[]string{"_version"}, false},
		"metadata in case":  {[]string{"_Synced_At"}, false},
		"twice in case":     {[]string{"name", "NAME"}, false},
		"twice in umlauts":  {[]string{"größe", "GRÖSSE", "GRÖßE"}, false},
		"reserved":          {[]string{"_PARTITIONTIME"}, false},
		"reserved table":    {[]string{"_table_suffix"}, false},
		"reserved CDC":      {[]string{"_change_type"}, false},
		"too long":          {[]string{long}, false},
		"a dot":             {[]string{"a.b"}, false},
		"a quote":           {[]string{`a"b`}, false},
		"a backtick":        {[]string{"a`b"}, false},
		"a backslash":       {[]string{`a\b`}, false},
		"brackets":          {[]string{"a[0]"}, false},
		"a question mark":   {[]string{"ok?"}, false},
		"a line's end":      {[]string{"a\nb"}, false},
		"a tab":             {[]string{"a\tb"}, false},
		"a picture":         {[]string{"🙂"}, false},
		"a currency":        {[]string{"total€"}, false},
		"other letters":     {[]string{"नाम", "数量", "a&b=c+d:e'f<g>h#i|j%k"}, true},
		"reserved at a end": {[]string{"my_partition"}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			columns := make([]Column, len(test.names))
			for i, n := range test.names {
				columns[i].Name = n
			}
			err := checkNames("t", columns)
			if (err == nil) != test.want {
				t.Fatalf("checkNames(%q) = %v", test.names, err)
			}
			if class, remedy := fault.Classify(err); err != nil && (class != fault.Permanent || remedy == "") {
				t.Errorf("%v is %v with the remedy %q", err, class, remedy)
			}
		})
	}
}

// TestQuote: a name never ends the identifier it is in, and reads back as it is.
func TestQuote(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.StringMatching("[a`\\\\\n\r]{0,8}")).Draw(t, "name")
		quoted := quote(name)
		inner, ok := strings.CutPrefix(quoted, "`")
		if !ok {
			t.Fatalf("%q", quoted)
		}
		var read strings.Builder
		for {
			if inner == "" {
				t.Fatalf("%q is not closed", quoted)
			}
			c := inner[0]
			inner = inner[1:]
			if c == '`' {
				break
			}
			if c == '\n' || c == '\r' {
				t.Fatalf("%q has a line break", quoted)
			}
			if c == '\\' {
				c, inner = map[byte]byte{'\\': '\\', '`': '`', 'n': '\n', 'r': '\r'}[inner[0]], inner[1:]
			}
			read.WriteByte(c)
		}
		if inner != "" || read.String() != name {
			t.Fatalf("quote(%q) = %s reads as %q, followed by %q", name, quoted, read.String(), inner)
		}
	})
}

func TestWiden(t *testing.T) {
	t.Parallel()
	type schema = bigquery.Schema
	field := func(name string, typ bigquery.FieldType, required bool) *bigquery.FieldSchema {
		return &bigquery.FieldSchema{Name: name, Type: typ, Required: required}
	}
	list := &bigquery.FieldSchema{Name: "tags", Type: "STRING", Repeated: true}
	tests := []struct {
		name            string
		present, wanted schema
		want            schema
		changed         bool // with want nil: refused
	}{
		{"the same", schema{field("id", "INTEGER", true), list}, schema{field("id", "INTEGER", true), list}, schema{field("id", "INTEGER", true), list}, false},
		{"another case", schema{field("ID", "INTEGER", true)}, schema{field("id", "INTEGER", true)}, schema{field("ID", "INTEGER", true)}, false},
		{"another order", schema{field("b", "STRING", false), field("a", "STRING", false)}, schema{field("a", "STRING", false), field("b", "STRING", false)}, schema{field("b", "STRING", false), field("a", "STRING", false)}, false},
		{"added, never as required", schema{field("id", "INTEGER", true)}, schema{field("id", "INTEGER", true), field("x", "DATE", true), list}, schema{field("id", "INTEGER", true), field("x", "DATE", false), list}, true},
		{"relaxed", schema{field("id", "INTEGER", true)}, schema{field("id", "INTEGER", false)}, schema{field("id", "INTEGER", false)}, true},
		{"never tightened", schema{field("id", "INTEGER", false)}, schema{field("id", "INTEGER", true)}, schema{field("id", "INTEGER", false)}, false},
		{"dropped, kept without values", schema{field("id", "INTEGER", true), field("old", "DATE", true)}, schema{field("id", "INTEGER", true)}, schema{field("id", "INTEGER", true), field("old", "DATE", false)}, true},
		{"retyped", schema{field("id", "INTEGER", false)}, schema{field("id", "STRING", false)}, nil, false},
		{"now a list", schema{field("tags", "STRING", false)}, schema{list}, nil, false},
		{"no list any more", schema{list}, schema{field("tags", "STRING", false)}, nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			before, err := json.Marshal(test.present)
			if err != nil {
				t.Fatal(err)
			}
			got, changed, err := widen(test.present, test.wanted)
			if (err != nil) != (test.want == nil) {
				t.Fatalf("error %v", err)
			}
			if class, remedy := fault.Classify(err); err != nil && (class != fault.Permanent || remedy == "") {
				t.Errorf("%v is %v with the remedy %q", err, class, remedy)
			}
			if diff := cmp.Diff(test.want, got); diff != "" || changed != test.changed {
				t.Errorf("changed %t (-want +got):\n%s", changed, diff)
			}
			if after, err := json.Marshal(test.present); err != nil || string(after) != string(before) {
				t.Errorf("the present schema was changed: %s, %v", after, err)
			}
		})
	}
}

func TestClustering(t *testing.T) {
	t.Parallel()
	columns := []Column{
		{Name: "a", Kind: rowwire.Int8},
		{Name: "b", Kind: rowwire.Bytes},
		{Name: "c", Kind: rowwire.Text},
		{Name: "d", Kind: rowwire.Time},
		{Name: "e", Kind: rowwire.UUID},
		{Name: "f", Kind: rowwire.Date},
		{Name: "g", Kind: rowwire.Numeric},
		{Name: "tags", Kind: rowwire.Text, Repeated: true},
	}
	tests := map[string]struct{ key, declared, want []string }{
		"declared":             {[]string{"a"}, []string{"c"}, []string{"c"}},
		"the key":              {[]string{"c", "a"}, nil, []string{"c", "a"}},
		"what can be":          {[]string{"b", "a", "d"}, nil, []string{"a"}},
		"four at most":         {[]string{"a", "c", "e", "f", "g"}, nil, []string{"a", "c", "e", "f"}},
		"nothing that could":   {[]string{"b", "d", "tags"}, nil, nil},
		"a column that is not": {[]string{"nope"}, nil, nil},
	}
	for name, test := range tests {
		table := Table{Columns: columns, Key: test.key, ClusterBy: test.declared}
		if diff := cmp.Diff(test.want, table.clustering()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCheckLayout(t *testing.T) {
	t.Parallel()
	columns := []Column{
		{Name: "at", Kind: rowwire.Timestamp},
		{Name: "local", Kind: rowwire.DateTime},
		{Name: "day", Kind: rowwire.Date},
		{Name: "n", Kind: rowwire.Int8},
		{Name: "ats", Kind: rowwire.Timestamp, Repeated: true},
		{Name: "data", Kind: rowwire.JSONB},
	}
	tests := map[string]struct {
		partition *Partition
		cluster   []string
		want      bool
	}{
		"none":               {nil, nil, true},
		"timestamp by hour":  {&Partition{"at", "hour"}, []string{"n", "day"}, true},
		"datetime by month":  {&Partition{"local", "month"}, nil, true},
		"date by year":       {&Partition{"day", "year"}, nil, true},
		"date by hour":       {&Partition{"day", "hour"}, nil, false},
		"number":             {&Partition{"n", "day"}, nil, false},
		"list":               {&Partition{"ats", "day"}, nil, false},
		"missing":            {&Partition{"nope", "day"}, nil, false},
		"cluster by JSON":    {nil, []string{"data"}, false},
		"cluster by a list":  {nil, []string{"ats"}, false},
		"cluster by missing": {nil, []string{"nope"}, false},
	}
	for name, test := range tests {
		err := (&Table{Name: "t", Columns: columns, Partition: test.partition, ClusterBy: test.cluster}).CheckLayout()
		if (err == nil) != test.want {
			t.Errorf("%s: %v", name, err)
		}
		if class, remedy := fault.Classify(err); err != nil && (class != fault.Permanent || remedy == "") {
			t.Errorf("%s: %v is %v with the remedy %q", name, err, class, remedy)
		}
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	tests := []struct{ granularity, id, from, to string }{
		{"hour", "2024022923", "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z"},
		{"day", "20240228", "2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"day", "20231231", "2023-12-31T00:00:00Z", "2024-01-01T00:00:00Z"},
		{"month", "202402", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"year", "9999", "9999-01-01T00:00:00Z", "10000-01-01T00:00:00Z"},
	}
	for _, test := range tests {
		from, to, err := (&Partition{Granularity: test.granularity}).span(test.id)
		if err != nil || from.Format(time.RFC3339) != test.from || to.Format(time.RFC3339) != test.to {
			t.Errorf("span(%s) = %v, %v, %v", test.id, from, to, err)
		}
	}
	for _, id := range []string{"", "2024", "20240230", "2024010100", "__UNPARTITIONED__", "x"} {
		if from, to, err := (&Partition{Granularity: "day"}).span(id); err == nil {
			t.Errorf("span(%q) = %v to %v", id, from, to)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	day := func(d int) time.Time { return time.Date(2024, 2, d, 0, 0, 0, 0, time.UTC) }
	type part struct {
		On         string
		Parameters []bigquery.QueryParameter
	}
	span := func(n string, from, to any) part {
		return part{"x.`at` >= @from" + n + " AND x.`at` < @to" + n, []bigquery.QueryParameter{{Name: "from" + n, Value: from}, {Name: "to" + n, Value: to}}}
	}
	between := func(from, to any) part { return span("0", from, to) }
	tests := []struct {
		name       string
		kind       rowwire.Kind
		whole      bool // the log is not partitioned
		partitions []string
		want       []part
	}{
		{"none", rowwire.Timestamp, false, nil, nil},
		{"none of a log without partitions", rowwire.Timestamp, true, nil, nil},
		{"a log without partitions", rowwire.Timestamp, true, []string{WholeLog}, []part{{On: "TRUE"}}},
		{"everything", rowwire.Timestamp, false, []string{"20240201", WholeLog, "20240203"}, []part{{On: "TRUE"}}},
		{"one", rowwire.Timestamp, false, []string{"20240201"}, []part{between(day(1), day(2))}},
		{"neighbours are one", rowwire.Timestamp, false, []string{"20240203", "20240201", "20240202"}, []part{between(day(1), day(4))}},
		{"a gap", rowwire.Timestamp, false, []string{"20240201", "20240203"}, []part{between(day(1), day(2)), span("1", day(3), day(4))}},
		{"without a value", rowwire.Timestamp, false, []string{NullPartition}, []part{{On: "x.`at` IS NULL"}}},
		{"without a value and with", rowwire.Timestamp, false, []string{NullPartition, "20240201"}, []part{{On: "x.`at` IS NULL"}, between(day(1), day(2))}},
		{"dates", rowwire.Date, false, []string{"20240201"}, []part{between(civil.Date{Year: 2024, Month: 2, Day: 1}, civil.Date{Year: 2024, Month: 2, Day: 2})}},
		{"the first day", rowwire.Timestamp, false, []string{"00010101", "20240201"}, []part{between(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)), span("1", day(1), day(2))}},
		{"the last day", rowwire.Date, false, []string{"99991231"}, []part{{"x.`at` >= @from0", []bigquery.QueryParameter{{Name: "from0", Value: civil.Date{Year: 9999, Month: 12, Day: 31}}}}}},
		{"local times", rowwire.DateTime, false, []string{"20240201"}, []part{between(civil.DateTimeOf(day(1)), civil.DateTimeOf(day(2)))}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			table := Table{Columns: []Column{{Name: "at", Kind: test.kind}}}
			if !test.whole {
				table.Partition = &Partition{"at", "day"}
			}
			bounds, err := table.bounds(test.partitions)
			if err != nil {
				t.Fatal(err)
			}
			var got []part
			for _, b := range bounds {
				got = append(got, part{b.on("x"), b.parameters})
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("bounds (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := (&Table{Partition: &Partition{"at", "day"}}).bounds([]string{"20240201", "nonsense"}); err == nil {
		t.Error("a partition that is none was accepted")
	}
}

// That BigQuery's analyzer accepts these statements, and what they do, is tested
// against the emulator; here it is that every name is quoted wherever it stands.
func TestStatements(t *testing.T) {
	t.Parallel()
	c := NewClient(Config{Project: "my-project"})
	table := Table{Dataset: "d", Name: "or`ders", Columns: []Column{{Name: "i`d", Kind: rowwire.Int8}}, Key: []string{"i`d", "line"}, Partition: &Partition{"a`t", "day"}}
	const (
		log     = "`my-project.d.or\\`ders_log`"
		all     = "SELECT v.`i\\`d`, v.`_version`, v.`_synced_at`, v.`_deleted` FROM " + log + " AS v WHERE "
		key     = "`i\\`d`, `line`"
		keyOf   = "v.`i\\`d`, v.`line`"
		first   = " QUALIFY ROW_NUMBER() OVER (PARTITION BY " + keyOf + " ORDER BY v.`_version` DESC) = 1"
		read    = "SELECT log.`i\\`d`, log.`line`, log.`_version`"
		within  = "`a\\`t` >= @from0 AND "
		until   = "`a\\`t` < @to0"
		placed  = " FROM " + log + " AS log WHERE log." + within + "log." + until
		newer   = "newer.`i\\`d` = old.`i\\`d` AND newer.`line` = old.`line` AND newer.`_version` > old.`_version`"
		values  = " AND (old.`_deleted` OR NOT newer.`_deleted`)"
		deletes = "DELETE FROM " + log + " AS old WHERE old." + within + "old." + until + " AND EXISTS (SELECT 1 FROM ("
		near    = deletes + read + ", log.`_deleted`" + placed + ") AS newer WHERE " + newer + values + ")"
	)
	for _, test := range []struct {
		name        string
		deletes     Deletes
		key         []string
		view, dedup string
	}{
		{
			"soft", SoftDeletes, table.Key,
			"SELECT v.`i\\`d`, FIRST_VALUE(v.`_version`) OVER newest AS `_version`, FIRST_VALUE(v.`_synced_at`) OVER newest AS `_synced_at`, FIRST_VALUE(v.`_deleted`) OVER newest AS `_deleted` FROM " + log +
				" AS v WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY " + keyOf + " ORDER BY v.`_deleted`, v.`_version` DESC) = 1 WINDOW newest AS (PARTITION BY " + keyOf + " ORDER BY v.`_version` DESC)",
			near,
		},
		{
			"hard", HardDeletes, table.Key,
			"SELECT * FROM (" + all + "TRUE" + first + ") WHERE NOT `_deleted`",
			deletes + read + placed + " UNION ALL " + read + " FROM " + log + " AS log WHERE log.`a\\`t` IS NULL) AS newer WHERE " + newer + ")",
		},
		{
			"hard, partitioned by the key", HardDeletes,
			[]string{"i`d", "a`t"},
			"",
			strings.ReplaceAll(deletes+read+placed+") AS newer WHERE "+newer+")", "`line`", "`a\\`t`"),
		},
		{
			"ignore", IgnoreDeletes, table.Key,
			all + "TRUE AND NOT v.`_deleted`" + first,
			near,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			table := table
			table.Deletes, table.Key = test.deletes, test.key
			b, err := table.bounds([]string{"20240201"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.dedup, c.dedupSQL(&table, b[0])); diff != "" {
				t.Errorf("clean-up (-want +got):\n%s", diff)
			}
			if got := c.showSQL(&table, schemaOf(table.Columns)); test.view != "" && got != test.view {
				t.Errorf("view (-want +got):\n%s", cmp.Diff(test.view, got))
			}
		})
	}
	want := "INSERT INTO " + log + " (" + key + ", `_version`, `_synced_at`, `_deleted`) SELECT " + keyOf + ", @version, @at, TRUE FROM " + log +
		" AS v WHERE TRUE GROUP BY " + keyOf + " HAVING MAX(v.`_version`) < @below AND NOT ANY_VALUE(v.`_deleted` HAVING MAX v.`_version`)"
	if diff := cmp.Diff(want, c.sweepSQL(&table, false)); diff != "" {
		t.Errorf("sweep (-want +got):\n%s", diff)
	}
}

// TestSweepThatWouldNotEnd is refused before BigQuery hears of it.
func TestSweepThatWouldNotEnd(t *testing.T) {
	t.Parallel()
	c := NewClient(Config{Project: "my-project", Host: "127.0.0.1:1"})
	at := time.Now()
	for name, s := range map[string]Sweep{
		"no bound":          {Version: VersionAt(1, 2, 3), At: at},
		"no time":           {Below: GenerationPrefix(1), Version: VersionAt(1, 2, 3)},
		"below its bound":   {Below: GenerationPrefix(2), Version: VersionAt(1, 2, 3), At: at},
		"without a version": {Below: GenerationPrefix(2), At: at},
	} {
		if _, err := c.Sweep(t.Context(), &Table{Name: "orders", Key: []string{"id"}}, s); !errors.Is(err, errSweep) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if swept, err := c.Sweep(t.Context(), &Table{Deletes: IgnoreDeletes}, Sweep{}); err != nil || swept.Job != "" {
		t.Errorf("with deletes ignored: %+v, %v", swept, err)
	}
}

// TestVersionsSortAsStrings: later generations, positions and ordinals are greater.
func TestVersionsSortAsStrings(t *testing.T) {
	t.Parallel()
	sorted := []string{
		GenerationPrefix(1), Version(1, 9), VersionAt(1, 9, 0), VersionAt(1, 9, math.MaxUint32), VersionAt(1, 10, 0),
		VersionAt(1, math.MaxInt64, 0), GenerationPrefix(2), VersionAt(2, 0, 0), GenerationPrefix(16), VersionAt(16, 0, 0),
	}
	if !slices.IsSorted(sorted) {
		t.Errorf("not in order: %q", sorted)
	}
}

func TestJobName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"orders": "orders", "Or-d_9": "Or-d_9", "größe 1": "gr__e_1", "a.b": "a_b"} {
		if got := jobName(name); got != want {
			t.Errorf("jobName(%q) = %q", name, got)
		}
	}
}

func TestStreamingWindow(t *testing.T) {
	t.Parallel()
	earliest, latest := streamingWindow(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	if got := earliest.Format(time.DateOnly) + " " + latest.Format(time.DateOnly); got != "2016-05-01 2027-05-01" {
		t.Error(got)
	}
}

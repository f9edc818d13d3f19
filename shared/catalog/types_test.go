package catalog

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// typmod is what numeric.c makes of (precision, scale).
func typmod(precision, scale int32) int32 { return (precision<<16 | scale&0x7ff) + 4 }

func TestNumericKind(t *testing.T) {
	t.Parallel()
	tests := []struct {
		precision, scale int32
		want             rowwire.Kind
	}{
		{10, 2, rowwire.Numeric},
		{29, 0, rowwire.Numeric},
		{38, 9, rowwire.Numeric},
		{9, 9, rowwire.Numeric},
		{2, 5, rowwire.Numeric}, // 0.00099 at most
		{30, 0, rowwire.BigNumeric},
		{38, 8, rowwire.BigNumeric},
		{39, 10, rowwire.BigNumeric},
		{10, 10, rowwire.BigNumeric},
		{2, 10, rowwire.BigNumeric},
		{1000, 0, rowwire.BigNumeric},
		{1000, 1000, rowwire.BigNumeric},
		{5, -30, rowwire.BigNumeric},
	}
	for _, test := range tests {
		if got := numericKind(typmod(test.precision, test.scale)); got != test.want {
			t.Errorf("numeric(%d,%d) is %v", test.precision, test.scale, got)
		}
	}
	for _, unbounded := range []int32{-1, 0, 3} {
		if got := numericKind(unbounded); got != rowwire.BigNumeric {
			t.Errorf("numeric with typmod %d is %v", unbounded, got)
		}
	}
}

// TestNumericKindHolds: whatever numeric(p,s) allows, NUMERIC can hold.
func TestNumericKindHolds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		precision, scale := rapid.Int32Range(1, 1000).Draw(t, "precision"), rapid.Int32Range(-1000, 1000).Draw(t, "scale")
		got := numericKind(typmod(precision, scale))
		integer, fraction := max(precision-scale, 0), max(scale, 0)
		fits := integer <= 29 && fraction <= 9
		if got == rowwire.Numeric && !fits {
			t.Fatalf("numeric(%d,%d) is NUMERIC", precision, scale)
		}
		if got != rowwire.Numeric && fits && scale >= 0 {
			t.Fatalf("numeric(%d,%d) is %v", precision, scale, got)
		}
	})
}

func TestPlan(t *testing.T) {
	t.Parallel()
	const (
		builtin = "pg_catalog"
		own     = "public"
	)
	scalarOf := func(name string, oid uint32) typeFacts {
		return typeFacts{oid: oid, typmod: -1, name: name, kind: "b", schema: builtin}
	}
	arrayOf := func(name, kind, schema string, dims int16) typeFacts {
		return typeFacts{oid: 99, typmod: -1, dims: dims, name: "_" + name, kind: "b", category: "A", schema: schema, elemName: name, elemKind: kind, elemSchema: schema}
	}
	shapeOf := func(name string, typmod int32) typeFacts {
		return typeFacts{oid: 99, typmod: typmod, name: name, kind: "b", schema: `"Geo"`}
	}
	wholeArray := arrayToJSON.apply(`"c"`)
	type plan struct {
		Kind     rowwire.Kind
		Repeated bool
		Expr     string
		Param    uint32
		Base     string
		Refused  bool
	}
	money := scalarOf("numeric", 1700)
	money.typmod = typmod(12, 2)
	prices := arrayOf("numeric", "b", builtin, 1)
	prices.typmod = typmod(12, 2)
	tests := []struct {
		name  string
		facts typeFacts
		want  plan
	}{
		{"bigint", scalarOf("int8", 20), plan{rowwire.Int8, false, `"c"`, 20, "int8", false}},
		{"boolean", scalarOf("bool", 16), plan{rowwire.Bool, false, `"c"`, 16, "bool", false}},
		{"real", scalarOf("float4", 700), plan{rowwire.Float4, false, `"c"`, 700, "float4", false}},
		{"numeric", scalarOf("numeric", 1700), plan{rowwire.BigNumeric, false, `"c"`, 1700, "numeric", false}},
		{"numeric(12,2)", money, plan{rowwire.Numeric, false, `"c"`, 1700, "numeric", false}},
		{"char(n)", scalarOf("bpchar", 1042), plan{rowwire.Text, false, `"c"`, 1042, "bpchar", false}},
		{`"char"`, scalarOf("char", 18), plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "", false}},
		{"oid", scalarOf("oid", 26), plan{rowwire.Int8, false, `"c"::bigint`, pgtype.Int8OID, "oid", false}},
		{"inet", scalarOf("inet", 869), plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "inet", false}},
		{"interval", scalarOf("interval", 1186), plan{rowwire.IntervalText, false, `"c"`, 1186, "interval", false}},
		{"timetz", scalarOf("timetz", 1266), plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "timetz", false}},
		{"timestamptz", scalarOf("timestamptz", 1184), plan{rowwire.Timestamp, false, `"c"`, 1184, "timestamptz", false}},
		{"jsonb", scalarOf("jsonb", 3802), plan{rowwire.JSONB, false, `"c"`, 3802, "jsonb", false}},
		{"a range", typeFacts{oid: 3904, name: "int4range", kind: "r", schema: builtin}, plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "int4range", false}},
		{"an enum", typeFacts{oid: 99, name: "mood", kind: "e", schema: own}, plan{rowwire.Text, false, `"c"`, 99, "", false}},
		{"a composite", typeFacts{oid: 99, name: "point3", kind: "c", schema: own}, plan{rowwire.JSON, false, `to_json("c")`, pgtype.JSONOID, "", false}},
		{"citext", typeFacts{oid: 99, name: "citext", kind: "b", schema: own}, plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "", false}},
		{"hstore", typeFacts{oid: 99, name: "hstore", kind: "b", schema: own}, plan{rowwire.JSON, false, `to_json("c")`, pgtype.JSONOID, "", false}},
		{"a type named as a built-in one", typeFacts{oid: 99, name: "int8", kind: "b", schema: own}, plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "", false}},
		{"geometry", shapeOf("geometry", -1), plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "", false}},
		{"geometry(Point,4326)", shapeOf("geometry", 4326<<8|1<<2), plan{rowwire.Geography, false, `"Geo".st_asewkt("c", 30)`, pgtype.TextOID, "", false}},
		{"geometry(Polygon,4326)", shapeOf("geometry", 4326<<8|3<<2), plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "", false}},
		{"geography", shapeOf("geography", -1), plan{rowwire.Geography, false, `"Geo".st_asewkt("c", 30)`, pgtype.TextOID, "", false}},
		{"vector", typeFacts{oid: 99, name: "vector", kind: "b", schema: own}, plan{rowwire.Float4, true, `"c"::real[]`, pgtype.Float4ArrayOID, "", false}},
		{"sparsevec", typeFacts{oid: 99, name: "sparsevec", kind: "b", schema: own}, plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "", false}},
		{"vector[]", arrayOf("vector", "b", own, 1), plan{rowwire.Text, true, `"c"::text[]`, 99, "", false}},
		{"int2vector", typeFacts{oid: 22, name: "int2vector", kind: "b", category: "A", schema: builtin, elemName: "int2", elemKind: "b", elemSchema: builtin}, plan{rowwire.Text, false, `"c"::text`, pgtype.TextOID, "int2vector", false}},
		{"an array of a domain over int4[]", arrayOf("_int4", "b", builtin, 1), plan{rowwire.JSON, false, wholeArray, pgtype.JSONOID, "__int4", false}},
		{"interval[]", arrayOf("interval", "b", builtin, 1), plan{rowwire.IntervalText, true, `"c"`, 99, "_interval", false}},
		{"text[]", arrayOf("text", "b", builtin, 1), plan{rowwire.Text, true, `"c"`, 99, "_text", false}},
		{"text[] of a domain or without dimensions", arrayOf("text", "b", builtin, 0), plan{rowwire.Text, true, `"c"`, 99, "_text", false}},
		{"numeric(12,2)[]", prices, plan{rowwire.Numeric, true, `"c"`, 99, "_numeric", false}},
		{"mood[]", arrayOf("mood", "e", own, 1), plan{rowwire.Text, true, `"c"`, 99, "", false}},
		{"int4[][]", arrayOf("int4", "b", builtin, 2), plan{rowwire.JSON, false, wholeArray, pgtype.JSONOID, "_int4", false}},
		{"composite[]", arrayOf("point3", "c", own, 1), plan{rowwire.JSON, false, wholeArray, pgtype.JSONOID, "", false}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := Column{Name: "c"}
			c.plan(test.facts)
			got := plan{c.Kind, c.Repeated, c.Expr, c.Param, c.Base, c.refused != ""}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInetArray(t *testing.T) {
	t.Parallel()
	c := Column{Name: `a"b`}
	c.plan(typeFacts{name: "_inet", category: "A", schema: "pg_catalog", elemName: "inet", elemKind: "b", elemSchema: "pg_catalog", dims: 1, typmod: -1})
	if c.Expr != `"a""b"::text[]` || c.Kind != rowwire.Text || !c.Repeated {
		t.Errorf("inet[] is read as %s, %v", c.Expr, c.Kind)
	}
}

// TestQuote: a name never ends the identifier it is in, and reads back as it is.
func TestQuote(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.StringMatching(`["a]{0,8}`)).Draw(t, "name")
		quoted := Quote(name)
		inner := quoted[1 : len(quoted)-1]
		if quoted[0] != '"' || quoted[len(quoted)-1] != '"' || strings.Contains(strings.ReplaceAll(inner, `""`, ""), `"`) || strings.ReplaceAll(inner, `""`, `"`) != name {
			t.Fatalf("Quote(%q) = %s", name, quoted)
		}
	})
	if diff := cmp.Diff([]string{`"a"`, `"b""c"`}, QuoteAll([]string{"a", `b"c`})); diff != "" {
		t.Errorf("QuoteAll (-want +got):\n%s", diff)
	}
}

func orders() *Table {
	return &Table{
		Schema: "public", Name: "orders", Primary: []string{"id"},
		indexes: []index{
			{columns: []string{"id"}, unique: true, ordered: true},
			{columns: []string{"tenant", "number"}, unique: true},
			{columns: []string{"updated_at"}, ordered: true},
		},
		Columns: []Column{
			{Name: "id", Type: "bigint", NotNull: true, Kind: rowwire.Int8},
			{Name: "tenant", Type: "uuid", NotNull: true, Kind: rowwire.UUID},
			{Name: "number", Type: "text", NotNull: true, Kind: rowwire.Text},
			{Name: "note", Type: "text", Kind: rowwire.Text},
			{Name: "ratio", Type: "real", NotNull: true, Kind: rowwire.Float4},
			{Name: "data", Type: "jsonb", NotNull: true, Kind: rowwire.JSONB},
			{Name: "tags", Type: "text[]", NotNull: true, Kind: rowwire.Text, Repeated: true},
		},
	}
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ declared, want []string }{
		"the primary key":          {nil, []string{"id"}},
		"a unique index":           {[]string{"number", "tenant"}, []string{"number", "tenant"}},
		"more than a unique index": {[]string{"id", "number"}, []string{"id", "number"}},
		"less than a unique index": {[]string{"number"}, nil},
		"nullable":                 {[]string{"id", "note"}, nil},
		"missing":                  {[]string{"nope"}, nil},
		"floating":                 {[]string{"id", "ratio"}, nil},
		"JSON":                     {[]string{"id", "data"}, nil},
		"a list":                   {[]string{"id", "tags"}, nil},
	}
	for name, test := range tests {
		got, err := orders().CheckKey(test.declared)
		if diff := cmp.Diff(test.want, got); diff != "" || (err == nil) != (test.want != nil) {
			t.Errorf("%s: error %v (-want +got):\n%s", name, err, diff)
		}
		if class, remedy := fault.Classify(err); err != nil && (class != fault.Permanent || remedy == "") {
			t.Errorf("%s: %v is %v with the remedy %q", name, err, class, remedy)
		}
	}
	if got, err := (&Table{Name: "t", Columns: orders().Columns}).CheckKey(nil); err == nil {
		t.Errorf("a table without a key has the key %q", got)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	table := orders()
	if table.Index("number") != 2 || table.Index("nope") != -1 || table.Column("number").Name != "number" || table.Column("nope") != nil {
		t.Error("columns are not found by name")
	}
	if !table.Leads("updated_at") || table.Leads("number") {
		t.Error("Leads does not go by the first column of an index")
	}
	table.Name = `or"ders`
	if got := table.SQLName(); got != `"public"."or""ders"` {
		t.Errorf("SQLName = %s", got)
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	before := orders().Fingerprint()
	for name, change := range map[string]func(*Table){
		"added":    func(t *Table) { t.Columns = append(t.Columns, Column{Name: "x", Type: "text"}) },
		"dropped":  func(t *Table) { t.Columns = t.Columns[:3] },
		"renamed":  func(t *Table) { t.Columns[3].Name = "remark" },
		"retyped":  func(t *Table) { t.Columns[3].Type = "varchar(10)" },
		"nullable": func(t *Table) { t.Columns[0].NotNull = false },
	} {
		table := orders()
		change(table)
		if table.Fingerprint() == before {
			t.Errorf("a column was %s and the fingerprint is the same", name)
		}
	}
	if orders().Fingerprint() != before {
		t.Error("the fingerprint of one table differs from time to time")
	}
}

func TestReadable(t *testing.T) {
	t.Parallel()
	table := orders()
	if err := table.Readable(); err != nil {
		t.Error(err)
	}
	table.Columns[1].refused, table.Columns[3].refused = "no", "never"
	err := table.Readable()
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
		t.Fatalf("%v is %v with the remedy %q", err, class, remedy)
	}
	for _, name := range []string{"tenant", "note"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

// TestAs: the declared type is one of those offered, and any other is refused with them.
func TestAs(t *testing.T) {
	t.Parallel()
	builtin := func(name string) typeFacts {
		return typeFacts{oid: 1, typmod: -1, name: name, kind: "b", schema: "pg_catalog"}
	}
	list := func(name string) typeFacts {
		return typeFacts{oid: 1, typmod: -1, dims: 1, name: "_" + name, kind: "b", category: "A", schema: "pg_catalog", elemName: name, elemKind: "b", elemSchema: "pg_catalog"}
	}
	type reads struct {
		Kind     rowwire.Kind
		Repeated bool
		Expr     string
		Param    uint32
	}
	whole := arrayToJSON.apply(`"c"`)
	for _, test := range []struct {
		facts  typeFacts
		target string
		want   reads // zero: refused
	}{
		{builtin("int8"), "INT64", reads{rowwire.Int8, false, `"c"`, 1}},
		{builtin("int8"), "NUMERIC", reads{rowwire.Numeric, false, `"c"::numeric`, pgtype.NumericOID}},
		{builtin("int8"), "FLOAT64", reads{rowwire.NumericFloat, false, `"c"::numeric`, pgtype.NumericOID}},
		{builtin("int4"), "FLOAT64", reads{rowwire.Float8, false, `"c"::float8`, pgtype.Float8OID}},
		{builtin("int8"), "STRING", reads{rowwire.Text, false, `"c"::text`, pgtype.TextOID}},
		{builtin("int8"), "TIMESTAMP", reads{}},
		{builtin("numeric"), "INT64", reads{rowwire.NumericInt, false, `"c"`, 1}},
		{builtin("numeric"), "FLOAT64", reads{rowwire.NumericFloat, false, `"c"`, 1}},
		{builtin("numeric"), "NUMERIC", reads{rowwire.Numeric, false, `"c"`, 1}},
		{builtin("numeric"), "STRING", reads{rowwire.Text, false, `"c"::text`, pgtype.TextOID}},
		{builtin("float8"), "NUMERIC", reads{}},
		{builtin("text"), "JSON", reads{rowwire.JSONText, false, `"c"`, 1}},
		{builtin("text"), "BYTES", reads{rowwire.Bytes, false, `"c"`, 1}},
		{builtin("text"), "TIMESTAMP", reads{}},
		{builtin("jsonb"), "STRING", reads{rowwire.Text, false, `"c"::text`, pgtype.TextOID}},
		{builtin("timestamp"), "TIMESTAMP", reads{rowwire.Timestamp, false, `"c"`, 1}},
		{builtin("timestamptz"), "DATETIME", reads{rowwire.DateTime, false, `"c"`, 1}},
		{builtin("date"), "DATETIME", reads{}},
		{builtin("interval"), "INTERVAL", reads{rowwire.Interval, false, `"c"`, 1}},
		{builtin("inet"), "STRING", reads{rowwire.Text, false, `"c"::text`, pgtype.TextOID}},
		{builtin("inet"), "JSON", reads{}},
		{builtin("inet"), "", reads{}},
		{list("interval"), "INTERVAL", reads{rowwire.Interval, true, `"c"`, 1}},
		{list("interval"), "STRING", reads{rowwire.Text, false, `"c"::text`, pgtype.TextOID}},
		{list("int4"), "JSON", reads{rowwire.JSON, false, whole, pgtype.JSONOID}},
		{list("int4"), "NUMERIC", reads{rowwire.Numeric, true, `"c"::numeric[]`, 1}},
		{list("json"), "JSON", reads{rowwire.JSON, false, whole, pgtype.JSONOID}},
		{list("json"), "ARRAY<JSON>", reads{rowwire.JSON, true, `"c"`, 1}},
		{list("text"), "STRING", reads{rowwire.Text, false, `"c"::text`, pgtype.TextOID}},
		{typeFacts{oid: 1, typmod: 3857<<8 | 1<<2, name: "geometry", kind: "b", schema: "public"}, "GEOGRAPHY", reads{}},
		{typeFacts{oid: 1, typmod: -1, name: "geometry", kind: "b", schema: "public"}, "GEOGRAPHY", reads{rowwire.Geography, false, `public.st_asewkt("c", 30)`, pgtype.TextOID}},
	} {
		c := Column{Name: "c", Type: test.facts.name}
		c.plan(test.facts)
		err := c.as(test.target)
		if test.want == (reads{}) {
			class, remedy := fault.Classify(err)
			if err == nil || class != fault.Permanent || !strings.Contains(remedy, strings.Join(c.Targets(), ", ")) {
				t.Errorf("%s as %q: %v, a %v with the remedy %q", test.facts.name, test.target, err, class, remedy)
			}
			continue
		}
		if diff := cmp.Diff(test.want, reads{c.Kind, c.Repeated, c.Expr, c.Param}); diff != "" || err != nil {
			t.Errorf("%s as %s: %v (-want +got):\n%s", test.facts.name, test.target, err, diff)
		}
		if n := strings.Count(c.Expr, Quote(c.Name)); n != 1 {
			t.Errorf("%s as %s has the value %d times", test.facts.name, test.target, n)
		}
	}
}

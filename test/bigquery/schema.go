package bigquery

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	bq "google.golang.org/api/bigquery/v2"
)

// kind is a GoogleSQL type without its parameters, in GoogleSQL's own words.
type kind string

const (
	kindBool       kind = "BOOL"
	kindBytes      kind = "BYTES"
	kindBigNumeric kind = "BIGNUMERIC"
	kindDate       kind = "DATE"
	kindDatetime   kind = "DATETIME"
	kindFloat64    kind = "FLOAT64"
	kindInt64      kind = "INT64"
	kindJSON       kind = "JSON"
	kindNumeric    kind = "NUMERIC"
	kindString     kind = "STRING"
	kindStruct     kind = "STRUCT"
	kindTime       kind = "TIME"
	kindTimestamp  kind = "TIMESTAMP"
)

// field is a column or a member of a STRUCT.
type field struct {
	name      string
	kind      kind
	repeated  bool
	required  bool
	maxLength int64   // characters of STRING, bytes of BYTES; 0 for no limit
	fields    []field // of STRUCT
}

// element is the field of one element of a repeated field.
func (f field) element() field {
	f.repeated, f.required = false, false
	return f
}

func kindOfRESTType(name string) (kind, bool) {
	switch strings.ToUpper(name) {
	case "STRING":
		return kindString, true
	case "BYTES":
		return kindBytes, true
	case "INTEGER", "INT64":
		return kindInt64, true
	case "FLOAT", "FLOAT64":
		return kindFloat64, true
	case "BOOLEAN", "BOOL":
		return kindBool, true
	case "TIMESTAMP":
		return kindTimestamp, true
	case "DATE":
		return kindDate, true
	case "TIME":
		return kindTime, true
	case "DATETIME":
		return kindDatetime, true
	case "NUMERIC":
		return kindNumeric, true
	case "BIGNUMERIC":
		return kindBigNumeric, true
	case "JSON":
		return kindJSON, true
	case "RECORD", "STRUCT":
		return kindStruct, true
	}
	return "", false
}

// restType is the name that the REST API answers for a type.
func (k kind) restType() string {
	switch k {
	case kindInt64:
		return "INTEGER"
	case kindFloat64:
		return "FLOAT"
	case kindBool:
		return "BOOLEAN"
	case kindStruct:
		return "RECORD"
	case kindBigNumeric, kindBytes, kindDate, kindDatetime, kindJSON, kindNumeric, kindString, kindTime, kindTimestamp:
	}
	return string(k)
}

// columnName is BigQuery's rule for names of at most 300 characters; flexible
// column names allow more letters than the classic [A-Za-z_][A-Za-z0-9_]*.
// https://cloud.google.com/bigquery/docs/schemas#column_names
var columnName = regexp.MustCompile(`^[\p{L}\p{N}\p{Pc}\p{Pd}\p{M}&%=+:'<>#| ]{1,300}$`)

var reservedPrefixes = [...]string{ //nolint:gochecknoglobals // a constant list
	"_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER", "_CHANGE_SEQUENCE_NUMBER", "_CHANGE_TYPE", "_CHANGE_TIMESTAMP",
}

// fieldsFromREST reads and checks a schema.
func fieldsFromREST(in []*bq.TableFieldSchema) ([]field, error) {
	seen := map[string]bool{}
	out := make([]field, 0, len(in))
	for _, f := range in {
		got, err := fieldFromREST(f)
		if err != nil {
			return nil, err
		}
		key := strings.ToLower(f.Name)
		if seen[key] {
			return nil, errInvalid("Field %s already exists in schema", f.Name)
		}
		seen[key] = true
		out = append(out, got)
	}
	return out, nil
}

func fieldFromREST(f *bq.TableFieldSchema) (field, error) {
	if !columnName.MatchString(f.Name) {
		return field{}, errInvalid("Invalid field name %q. Fields must contain the allowed characters, and be at most 300 characters long.", f.Name)
	}
	for _, p := range reservedPrefixes {
		if strings.HasPrefix(strings.ToUpper(f.Name), p) {
			return field{}, errInvalid("Field name %s is not allowed: the prefix %s is reserved", f.Name, p)
		}
	}
	k, ok := kindOfRESTType(f.Type)
	if !ok {
		switch strings.ToUpper(f.Type) {
		case "GEOGRAPHY", "INTERVAL", "RANGE", "FOREIGN":
			return field{}, errUnsupported("columns of type %s (field %s)", f.Type, f.Name)
		}
		return field{}, errInvalid("Invalid value for type: %s is not a valid value", f.Type)
	}
	if err := refuseFieldOptions(f); err != nil {
		return field{}, err
	}
	out := field{name: f.Name, kind: k, maxLength: f.MaxLength}
	switch strings.ToUpper(f.Mode) {
	case "", "NULLABLE":
	case "REQUIRED":
		out.required = true
	case "REPEATED":
		out.repeated = true
	default:
		return field{}, errInvalid("Invalid value for mode: %s is not a valid value", f.Mode)
	}
	if (k == kindStruct) != (len(f.Fields) > 0) {
		return field{}, errInvalid("Field %s is type %s, which needs sub-fields exactly if it is RECORD", f.Name, f.Type)
	}
	if f.MaxLength != 0 && k != kindString && k != kindBytes {
		return field{}, errInvalid("Field %s: maxLength is for STRING and BYTES only", f.Name)
	}
	var err error
	if k == kindStruct {
		out.fields, err = fieldsFromREST(f.Fields)
	}
	return out, err
}

func refuseFieldOptions(f *bq.TableFieldSchema) error {
	switch {
	case f.Precision != 0 || f.Scale != 0:
		return errUnsupported("precision and scale of NUMERIC columns (field %s)", f.Name)
	case f.DefaultValueExpression != "":
		return errUnsupported("default values of columns (field %s)", f.Name)
	case f.Collation != "":
		return errUnsupported("collations (field %s)", f.Name)
	case f.GeneratedColumn != nil:
		return errUnsupported("generated columns (field %s)", f.Name)
	case f.PolicyTags != nil, len(f.DataPolicies) > 0, f.DataPolicyList != nil:
		return errUnsupported("column-level security (field %s)", f.Name)
	case f.RoundingMode != "":
		return errUnsupported("rounding modes (field %s)", f.Name)
	case f.TimestampPrecision != nil && *f.TimestampPrecision != 6:
		return errUnsupported("timestamps of picoseconds (field %s)", f.Name)
	}
	return nil
}

// restSchema is a schema as answered. Descriptions are kept by the table.
func restSchema(fields []field) *bq.TableSchema {
	return &bq.TableSchema{Fields: restFields(fields)}
}

func restFields(fields []field) []*bq.TableFieldSchema {
	out := make([]*bq.TableFieldSchema, len(fields))
	for i, f := range fields {
		out[i] = &bq.TableFieldSchema{
			Name: f.name, Type: f.kind.restType(), Mode: f.mode(), MaxLength: f.maxLength, Fields: restFields(f.fields),
		}
	}
	return out
}

func (f field) mode() string {
	switch {
	case f.repeated:
		return "REPEATED"
	case f.required:
		return "REQUIRED"
	}
	return "NULLABLE"
}

// storageSchema is the schema as the Storage Write API answers it.
func storageSchema(fields []field) []*storagepb.TableFieldSchema {
	out := make([]*storagepb.TableFieldSchema, len(fields))
	for i, f := range fields {
		out[i] = &storagepb.TableFieldSchema{
			Name:      f.name,
			Type:      storagepb.TableFieldSchema_Type(storagepb.TableFieldSchema_Type_value[storageType(f.kind)]),
			Mode:      storagepb.TableFieldSchema_Mode(storagepb.TableFieldSchema_Mode_value[f.mode()]),
			MaxLength: f.maxLength,
			Fields:    storageSchema(f.fields),
		}
	}
	return out
}

func storageType(k kind) string {
	switch k {
	case kindFloat64:
		return "DOUBLE"
	case kindBigNumeric, kindBool, kindBytes, kindDate, kindDatetime, kindInt64, kindJSON, kindNumeric, kindString, kindStruct, kindTime, kindTimestamp:
	}
	return string(k)
}

// sqlType is the type in GoogleSQL text.
func (f field) sqlType() string {
	if f.repeated {
		return "ARRAY<" + f.element().sqlType() + ">"
	}
	if f.kind != kindStruct {
		return string(f.kind)
	}
	members := make([]string, len(f.fields))
	for i, m := range f.fields {
		members[i] = "`" + m.name + "` " + m.sqlType()
	}
	return "STRUCT<" + strings.Join(members, ", ") + ">"
}

// duckType is the DuckDB type that carries the type exactly. DuckDB's DECIMAL
// ends at 38 digits, so BIGNUMERIC is canonical decimal text.
func (f field) duckType() string {
	return f.duckTypeWith(duckScalar)
}

func (f field) duckTypeWith(scalar func(kind) string) string {
	if f.repeated {
		return f.element().duckTypeWith(scalar) + "[]"
	}
	if f.kind != kindStruct {
		return scalar(f.kind)
	}
	members := make([]string, len(f.fields))
	for i, m := range f.fields {
		members[i] = quoteIdent(m.name) + " " + m.duckTypeWith(scalar)
	}
	return "STRUCT(" + strings.Join(members, ", ") + ")"
}

func duckScalar(k kind) string {
	switch k {
	case kindBool:
		return "BOOLEAN"
	case kindBytes:
		return "BLOB"
	case kindDate:
		return "DATE"
	case kindDatetime:
		return "TIMESTAMP"
	case kindFloat64:
		return "DOUBLE"
	case kindInt64:
		return "BIGINT"
	case kindNumeric:
		return "DECIMAL(38,9)"
	case kindTime:
		return "TIME"
	case kindTimestamp:
		return "TIMESTAMPTZ"
	case kindJSON:
		return "JSON"
	case kindBigNumeric, kindString, kindStruct:
	}
	return "VARCHAR"
}

// textScalar is duckScalar with JSON as plain text. DuckDB's driver would
// decode and re-encode JSON values on their way, so that rows enter and leave
// with the text that was checked.
func textScalar(k kind) string {
	if k == kindJSON {
		return "VARCHAR"
	}
	return duckScalar(k)
}

// holdsJSON says whether a JSON value is in the field or below it.
func (f field) holdsJSON() bool {
	return f.kind == kindJSON || slices.ContainsFunc(f.fields, field.holdsJSON)
}

// readSQL are the DuckDB expressions that read columns as the driver gives
// them exactly.
func readSQL(fields []field) string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = quoteIdent(f.name)
		if f.holdsJSON() {
			out[i] = "CAST(" + out[i] + " AS " + f.duckTypeWith(textScalar) + ")"
		}
	}
	return strings.Join(out, ", ")
}

func findField(fields []field, name string) (int, bool) {
	for i, f := range fields {
		if strings.EqualFold(f.name, name) {
			return i, true
		}
	}
	return 0, false
}

// fieldFromSQL reads a GoogleSQL type text such as ARRAY<STRUCT<a INT64>>.
func fieldFromSQL(name, typ string) (field, error) {
	p := &typeParser{text: typ}
	f, err := p.parse()
	if err != nil {
		return field{}, err
	}
	if p.rest() != "" {
		return field{}, errUnsupported("the type %s", typ)
	}
	f.name = name
	return f, nil
}

// typeParser reads GoogleSQL type text.
type typeParser struct {
	text string
	pos  int
}

func (p *typeParser) rest() string { return strings.TrimSpace(p.text[p.pos:]) }

func (p *typeParser) parse() (field, error) {
	word := p.word()
	switch strings.ToUpper(word) {
	case "ARRAY":
		return p.array()
	case "STRUCT":
		return p.structure()
	}
	k, ok := kindOfRESTType(word)
	if !ok {
		return field{}, errUnsupported("the type %s", p.text)
	}
	f := field{kind: k}
	if strings.HasPrefix(p.rest(), "(") {
		return p.parameter(f)
	}
	return f, nil
}

func (p *typeParser) parameter(f field) (field, error) {
	p.skip("(")
	end := strings.IndexByte(p.text[p.pos:], ')')
	if end < 0 || (f.kind != kindString && f.kind != kindBytes) {
		return field{}, errUnsupported("the type %s", p.text)
	}
	if _, err := fmt.Sscanf(p.text[p.pos:p.pos+end], "%d", &f.maxLength); err != nil {
		return field{}, errInvalidQuery("Invalid type parameter in %s", p.text)
	}
	p.pos += end + 1
	return f, nil
}

func (p *typeParser) array() (field, error) {
	if !p.skip("<") {
		return field{}, errUnsupported("the type %s", p.text)
	}
	f, err := p.parse()
	if err != nil {
		return field{}, err
	}
	if f.repeated || !p.skip(">") {
		return field{}, errUnsupported("the type %s", p.text)
	}
	f.repeated = true
	return f, nil
}

func (p *typeParser) structure() (field, error) {
	f := field{kind: kindStruct}
	if !p.skip("<") {
		return field{}, errUnsupported("the type %s", p.text)
	}
	for {
		name := p.word()
		m, err := p.parse()
		if err != nil {
			return field{}, err
		}
		m.name = name
		f.fields = append(f.fields, m)
		if p.skip(",") {
			continue
		}
		if !p.skip(">") {
			return field{}, errUnsupported("the type %s", p.text)
		}
		return f, nil
	}
}

func (p *typeParser) skip(s string) bool {
	trimmed := strings.TrimLeft(p.text[p.pos:], " \t\n")
	if !strings.HasPrefix(trimmed, s) {
		return false
	}
	p.pos = len(p.text) - len(trimmed) + len(s)
	return true
}

func (p *typeParser) word() string {
	p.skip("")
	if strings.HasPrefix(p.text[p.pos:], "`") {
		end := strings.IndexByte(p.text[p.pos+1:], '`')
		if end < 0 {
			return ""
		}
		w := p.text[p.pos+1 : p.pos+1+end]
		p.pos += end + 2
		return w
	}
	end := p.pos
	for end < len(p.text) && !strings.ContainsRune("<>(), \t\n", rune(p.text[end])) {
		end++
	}
	w := p.text[p.pos:end]
	p.pos = end
	return w
}

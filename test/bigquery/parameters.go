package bigquery

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	bq "google.golang.org/api/bigquery/v2"
)

// parameter is a query parameter, its value checked against its type.
type parameter struct {
	name  string // empty where positional
	field field
	duck  string // DuckDB literal of the value
	// scalars are the values as text, one for a scalar, the elements of an
	// array, for pruning partitions; nil for NULL.
	scalars []string
	// elements are DuckDB literals of the elements of a long array, which
	// bindArrays keeps in a table; duck is empty until then.
	elements []string
}

// longArray is the number of elements from which an array is kept in a table
// rather than in the statement's text.
const longArray = 1000

// rawParameter is bq.QueryParameter that tells a null value from an empty one.
type rawParameter struct {
	Name           string                 `json:"name"`
	ParameterType  *bq.QueryParameterType `json:"parameterType"`
	ParameterValue *rawValue              `json:"parameterValue"`
}

type rawValue struct {
	Value        *string              `json:"value"`
	ArrayValues  []*rawValue          `json:"arrayValues"`
	StructValues map[string]*rawValue `json:"structValues"`
}

func readParameters(raw json.RawMessage) ([]parameter, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var in []rawParameter
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, errInvalid("Invalid query parameters: %v", err)
	}
	out := make([]parameter, len(in))
	for i, p := range in {
		if p.ParameterType == nil {
			return nil, errInvalid("Query parameter %q has no type", p.Name)
		}
		if p.ParameterValue == nil {
			p.ParameterValue = &rawValue{}
		}
		f, err := parameterType(p.ParameterType)
		if err != nil {
			return nil, err
		}
		out[i] = parameter{name: p.Name, field: f, scalars: p.ParameterValue.scalars()}
		if f.repeated && len(p.ParameterValue.ArrayValues) >= longArray {
			out[i].elements, err = cells(f.element(), p.ParameterValue)
		} else {
			out[i].duck, err = literal(f, p.ParameterValue)
		}
		if err != nil {
			return nil, errInvalid("Invalid value of query parameter %q of type %s: %v", p.Name, f.sqlType(), err)
		}
	}
	return out, nil
}

// bindArrays keeps the long arrays among the parameters in tables until release
// is called.
func (s *Server) bindArrays(ctx context.Context, q *statementRequest) (release func(), err error) {
	var made []string
	release = func() {
		for _, name := range made {
			if err := s.store.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+name); err != nil {
				s.log.ErrorContext(ctx, "dropping a parameter", "error", err)
			}
		}
	}
	q.params = slices.Clone(q.params)
	for i := range q.params {
		p := &q.params[i]
		if p.elements == nil {
			continue
		}
		s.cat.mu.Lock()
		name := quoteIdent(realSchema) + "." + quoteIdent(s.cat.physicalName(tableID{dataset: "$parameter", table: p.name}))
		s.cat.mu.Unlock()
		made = append(made, name)
		if err := s.keepArray(ctx, name, p); err != nil {
			release()
			return nil, err
		}
		p.duck = "(SELECT list(v ORDER BY rowid) FROM " + name + ")"
	}
	return release, nil
}

func (s *Server) keepArray(ctx context.Context, name string, p *parameter) error {
	element := p.field.element().duckType()
	if err := s.store.exec(ctx, "CREATE TABLE "+name+" (v "+element+")"); err != nil {
		return err
	}
	for chunk := range slices.Chunk(p.elements, 10_000) {
		if err := s.store.exec(ctx, "INSERT INTO "+name+" VALUES ("+strings.Join(chunk, "), (")+")"); err != nil {
			return err
		}
	}
	return nil
}

func (v *rawValue) scalars() []string {
	if v.Value != nil {
		return []string{*v.Value}
	}
	var out []string
	for _, e := range v.ArrayValues {
		if e != nil && e.Value != nil {
			out = append(out, *e.Value)
		}
	}
	return out
}

func parameterType(t *bq.QueryParameterType) (field, error) {
	switch strings.ToUpper(t.Type) {
	case "ARRAY":
		if t.ArrayType == nil {
			return field{}, errInvalid("An ARRAY parameter needs its element type")
		}
		f, err := parameterType(t.ArrayType)
		if err != nil {
			return field{}, err
		}
		if f.repeated {
			return field{}, errInvalid("Arrays of arrays are not supported")
		}
		f.repeated = true
		return f, nil
	case "STRUCT":
		f := field{kind: kindStruct}
		for _, m := range t.StructTypes {
			member, err := parameterType(m.Type)
			if err != nil {
				return field{}, err
			}
			member.name = m.Name
			f.fields = append(f.fields, member)
		}
		return f, nil
	}
	k, ok := kindOfRESTType(t.Type)
	if !ok {
		return field{}, errUnsupported("query parameters of type %s", t.Type)
	}
	return field{kind: k}, nil
}

// literal is the DuckDB literal of a value.
func literal(f field, v *rawValue) (string, error) {
	if f.repeated {
		return arrayLiteral(f, v)
	}
	if v == nil || f.kind != kindStruct && v.Value == nil {
		return "CAST(NULL AS " + f.duckType() + ")", nil
	}
	if f.kind == kindStruct {
		return structLiteral(f, v)
	}
	text, err := scalarLiteral(f.kind, *v.Value)
	if err != nil {
		return "", err
	}
	return "CAST(" + text + " AS " + f.duckType() + ")", nil
}

// cells are the elements of an array as a column of their type takes them:
// without the casts, which would take longer than the rest.
func cells(f field, v *rawValue) ([]string, error) {
	out := make([]string, len(v.ArrayValues))
	for i, e := range v.ArrayValues {
		var err error
		switch {
		case e == nil || f.kind != kindStruct && e.Value == nil:
			out[i] = "NULL"
		case f.kind == kindStruct:
			out[i], err = literal(f, e)
		default:
			out[i], err = scalarLiteral(f.kind, *e.Value)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func arrayLiteral(f field, v *rawValue) (string, error) {
	elements := make([]string, len(v.ArrayValues))
	for i, e := range v.ArrayValues {
		var err error
		if elements[i], err = literal(f.element(), e); err != nil {
			return "", err
		}
	}
	return "CAST([" + strings.Join(elements, ", ") + "] AS " + f.duckType() + ")", nil
}

func structLiteral(f field, v *rawValue) (string, error) {
	members := make([]string, len(f.fields))
	for i, m := range f.fields {
		text, err := literal(m, v.StructValues[m.name])
		if err != nil {
			return "", err
		}
		members[i] = quoteText(m.name) + ": " + text
	}
	return "CAST({" + strings.Join(members, ", ") + "} AS " + f.duckType() + ")", nil
}

// scalarLiteral checks text against a type and returns a DuckDB expression
// that a cast to the type's DuckDB type accepts.
func scalarLiteral(k kind, text string) (string, error) {
	switch k {
	case kindInt64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "", fmt.Errorf("%q is no INT64", text)
		}
		return quoteText(strconv.FormatInt(n, 10)), nil
	case kindFloat64:
		return floatLiteral(text)
	case kindBool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return "", fmt.Errorf("%q is no BOOL", text)
		}
		return strconv.FormatBool(b), nil
	case kindBytes:
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", fmt.Errorf("%q is no base64", text)
		}
		return "unhex('" + fmt.Sprintf("%x", b) + "')", nil
	case kindNumeric, kindBigNumeric:
		scale := numericScale
		if k == kindBigNumeric {
			scale = bigNumericScale
		}
		n, err := parseDecimal(text, scale)
		if err != nil {
			return "", fmt.Errorf("%w: %q", err, text)
		}
		return quoteText(decimalText(n, scale)), nil
	case kindJSON:
		s, err := normalizeJSON(text)
		return quoteText(s), err
	case kindString:
		if strings.ContainsRune(text, 0) {
			return "", fmt.Errorf("the emulator cannot carry U+0000 in a parameter")
		}
		return quoteText(text), nil
	case kindDate, kindTime, kindDatetime, kindTimestamp:
		return civilLiteral(k, text)
	case kindStruct:
	}
	return "", fmt.Errorf("no literal of %s", k)
}

func civilLiteral(k kind, text string) (string, error) {
	var n int64
	var err error
	var out string
	switch k {
	case kindDate:
		n, err = parseDate(text)
		out = dateText(n)
	case kindTime:
		n, err = parseTime(text)
		out = timeText(n)
	case kindDatetime:
		n, err = parseDatetime(text)
		out = datetimeText(n)
	default:
		n, err = parseTimestamp(text)
		out = datetimeText(n) + "+00"
	}
	if err != nil {
		return "", fmt.Errorf("%w: %q", err, text)
	}
	return quoteText(out), nil
}

func floatLiteral(text string) (string, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return "", fmt.Errorf("%q is no FLOAT64", text)
	}
	switch {
	case math.IsNaN(f):
		return "'nan'", nil
	case math.IsInf(f, 0):
		return quoteText(strings.ToLower(strconv.FormatFloat(f, 'g', -1, 64))), nil
	}
	return quoteText(strconv.FormatFloat(f, 'g', -1, 64)), nil
}

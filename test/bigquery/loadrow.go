package bigquery

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/descriptorpb"
)

// The forms of values in newline-delimited JSON are those of
// https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-json#data_types.
// Where that says nothing and BigQuery may convert, the job is refused by name.

// row reads one line into the batch.
func (r *rowLoader) row(line []byte) error {
	switch {
	case len(line) > maxJSONRow:
		return badRow("Row size is larger than: %d.", maxJSONRow)
	case !utf8.Valid(line):
		return errUnsupported("text of a load job that is not UTF-8, which BigQuery replaces")
	case len(bytes.TrimSpace(line)) == 0:
		return errUnsupported("empty lines in newline-delimited JSON")
	case !json.Valid(line):
		return badRow("Parser terminated before end of string.")
	case bytes.TrimLeft(line, " \t\r")[0] != '{':
		return badRow("Start of a JSON object expected.")
	}
	seen := make([]bool, len(r.fields))
	err := eachMember(line, func(name string, text json.RawMessage) error {
		c, ok := slices.BinarySearchFunc(r.byName(), name, func(i int, name string) int { return strings.Compare(r.fields[i].name, name) })
		if !ok {
			return r.unknown(name, r.fields)
		}
		c = r.byName()[c]
		if seen[c] {
			return errUnsupported("a row of newline-delimited JSON with the key %q twice", name)
		}
		seen[c] = true
		return r.member(c, text)
	})
	if err != nil {
		return err
	}
	for c, f := range r.fields {
		if f.required && !r.batch.vectors[c].set[r.filled] && (r.batch.vectors[c].nested == nil || r.batch.vectors[c].nested[r.filled] == nil) {
			return badRow("Missing required field: %s.", f.name)
		}
	}
	return nil
}

// byName are the columns in the order of their names.
func (r *rowLoader) byName() []int {
	if r.order == nil {
		r.order = make([]int, len(r.fields))
		for i := range r.order {
			r.order[i] = i
		}
		slices.SortFunc(r.order, func(a, b int) int { return strings.Compare(r.fields[a].name, r.fields[b].name) })
	}
	return r.order
}

func (r *rowLoader) unknown(name string, fields []field) error {
	if _, ok := findField(fields, name); ok {
		return errUnsupported("a key of newline-delimited JSON that is a column's name in other letters (%s)", name)
	}
	if r.ignoreUnknown {
		return nil
	}
	return badRow("No such field: %s.", name)
}

func (r *rowLoader) member(c int, text json.RawMessage) error {
	f, v := r.fields[c], &r.batch.vectors[c]
	if string(text) == "null" && (f.kind != kindJSON || f.repeated) {
		if f.required {
			return badRow("Only optional fields can be set to NULL. Field: %s; Value: NULL.", f.name)
		}
		return nil
	}
	if v.nested != nil {
		x, err := r.nested(f, text)
		if err == nil {
			v.nested[r.filled] = x
		}
		return err
	}
	x, err := loadScalar(f, text)
	if err == nil {
		v.put(r.filled, x)
	}
	return err
}

// nested reads an array or a record in the appender's form.
func (r *rowLoader) nested(f field, text json.RawMessage) (any, error) {
	if f.repeated {
		return r.list(f, text)
	}
	if f.kind != kindStruct {
		x, err := loadScalar(f, text)
		return x.driver(f.kind), err
	}
	if text[0] != '{' {
		return nil, badRow("Field: %s; Value: %s is not a record.", f.name, text)
	}
	out := map[string]any{}
	for _, m := range f.fields {
		out[m.name] = nil
		if m.repeated {
			out[m.name] = []any{}
		}
	}
	seen := map[string]bool{}
	err := eachMember(text, func(name string, text json.RawMessage) error {
		i := slices.IndexFunc(f.fields, func(m field) bool { return m.name == name })
		switch {
		case i < 0:
			return r.unknown(name, f.fields)
		case seen[name]:
			return errUnsupported("a record of newline-delimited JSON with the key %q twice", name)
		}
		seen[name] = true
		m := f.fields[i]
		if string(text) == "null" && (m.kind != kindJSON || m.repeated) {
			return nil
		}
		x, err := r.nested(m, text)
		out[name] = x
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, m := range f.fields {
		if m.required && out[m.name] == nil {
			return nil, badRow("Missing required field: %s.%s.", f.name, m.name)
		}
	}
	return out, nil
}

func (r *rowLoader) list(f field, text json.RawMessage) (any, error) {
	if text[0] != '[' {
		return nil, badRow("Array expected for repeated field: %s.", f.name)
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(text, &elements); err != nil {
		return nil, fmt.Errorf("reading an array: %w", err)
	}
	list := make([]any, len(elements))
	for i, e := range elements {
		if string(e) == "null" {
			return nil, badRow("Only optional fields can be set to NULL. Field: %s; Value: NULL.", f.name)
		}
		x, err := r.nested(f.element(), e)
		if err != nil {
			return nil, err
		}
		list[i] = x
	}
	return list, nil
}

// eachMember calls do with the members of a valid JSON object, in their order.
func eachMember(object []byte, do func(name string, value json.RawMessage) error) error {
	p := jsonParser{text: string(object)}
	p.space()
	p.pos++
	for {
		p.space()
		if p.peek() == '}' {
			return nil
		}
		name, err := p.str()
		if err != nil {
			return badRow("%v", err)
		}
		p.space()
		p.pos++ // the colon
		p.space()
		start := p.pos
		p.skip()
		if err := do(name, json.RawMessage(object[start:p.pos])); err != nil {
			return err
		}
		p.space()
		if p.peek() == ',' {
			p.pos++
		}
	}
}

// skip passes over a valid value.
func (p *jsonParser) skip() {
	depth, inText := 0, false
	for ; p.pos < len(p.text); p.pos++ {
		c := p.text[p.pos]
		switch {
		case inText && c == '\\':
			p.pos++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 {
				return
			}
			depth--
		case c == ',' && depth == 0, depth == 0 && strings.IndexByte(" \t\r\n", c) >= 0:
			return
		}
	}
}

// The documented forms of times.
var (
	loadDate      = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`)
	loadTime      = regexp.MustCompile(`^\d{2}:\d{2}:\d{2}(\.\d{1,6})?$`)
	loadDatetime  = regexp.MustCompile(`^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,6})?$`)
	loadTimestamp = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?( UTC|Z| ?[+-]\d{2}:\d{2})?$`)
	loadDecimal   = regexp.MustCompile(`^-?\d+(\.\d+)?$`)
	loadWhole     = regexp.MustCompile(`^-?\d+$`)
)

// loadScalar reads a value of one column.
func loadScalar(f field, raw json.RawMessage) (value, error) {
	bad := func() error {
		return badRow("Could not convert value to %s. Field: %s; Value: %s.", f.kind, f.name, abbreviated(raw))
	}
	if f.kind == kindJSON {
		// The raw value, strings and null included: there is no text to parse.
		x, err := converter(f, descriptorpb.FieldDescriptorProto_TYPE_STRING)(rawText(string(raw)))
		if err != nil {
			return value{}, badRow("Field: %s: %v.", f.name, err)
		}
		return x, nil
	}
	text, isText := string(raw), raw[0] == '"'
	switch {
	case raw[0] == '{':
		return value{}, badRow("JSON object specified for non-record field: %s.", f.name)
	case raw[0] == '[':
		return value{}, badRow("Array specified for non-repeated field: %s.", f.name)
	case isText:
		if err := json.Unmarshal(raw, &text); err != nil {
			return value{}, bad()
		}
		if strings.ContainsRune(text, utf8.RuneError) && !strings.ContainsRune(string(raw), utf8.RuneError) {
			return value{}, errUnsupported("an unpaired surrogate in newline-delimited JSON (field %s)", f.name)
		}
	}
	unsure := func(what string) error {
		return errUnsupported("%s for a column of type %s in newline-delimited JSON (field %s)", what, f.kind, f.name)
	}
	switch f.kind {
	case kindBool:
		return loadBool(text, bad)
	case kindInt64:
		if !isText && !loadWhole.MatchString(text) && text != "true" && text != "false" {
			return value{}, unsure("a number with a fraction or an exponent")
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || !loadWhole.MatchString(text) {
			return value{}, bad()
		}
		return value{i: n}, nil
	case kindFloat64:
		return loadFloat(text, isText, bad, unsure)
	case kindBytes:
		if !isText {
			return value{}, bad()
		}
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return value{}, bad()
		}
		if f.maxLength > 0 && int64(len(b)) > f.maxLength {
			return value{}, badRow("Field: %s: the bytes are longer than the maximum length %d.", f.name, f.maxLength)
		}
		return value{b: b}, nil
	case kindString:
		if !isText {
			return value{}, unsure("a JSON number or boolean")
		}
	case kindNumeric, kindBigNumeric:
		if !loadDecimal.MatchString(text) {
			if text == "true" || text == "false" {
				return value{}, bad()
			}
			return value{}, unsure("the number " + abbreviated(raw))
		}
	case kindDate, kindTime, kindDatetime, kindTimestamp:
		return loadCivil(f, text, isText, bad, unsure)
	case kindJSON, kindStruct:
	default:
		return value{}, errUnsupported("load jobs into a column of type %s (field %s)", f.kind, f.name)
	}
	x, err := converter(f, descriptorpb.FieldDescriptorProto_TYPE_STRING)(rawText(text))
	if err != nil {
		return value{}, badRow("Could not convert value to %s. Field: %s: %v.", f.kind, f.name, err)
	}
	return x, nil
}

func abbreviated(raw json.RawMessage) string {
	if len(raw) > 100 {
		return string(raw[:100]) + ".."
	}
	return string(raw)
}

func loadBool(text string, bad func() error) (value, error) {
	switch strings.ToLower(text) {
	case "1", "true", "t", "yes", "y":
		return value{i: 1}, nil
	case "0", "false", "f", "no", "n":
		return value{}, nil
	}
	return value{}, bad()
}

func loadFloat(text string, isText bool, bad func() error, unsure func(string) error) (value, error) {
	switch {
	case text == "NaN":
		return value{f: math.NaN()}, nil
	case text == "Infinity":
		return value{f: math.Inf(1)}, nil
	case text == "-Infinity":
		return value{f: math.Inf(-1)}, nil
	case isText && !json.Valid([]byte(text)):
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return value{}, unsure("the text " + strconv.Quote(text))
		}
		return value{}, bad()
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return value{}, bad()
	}
	return value{f: x}, nil
}

func loadCivil(f field, text string, isText bool, bad func() error, unsure func(string) error) (value, error) {
	form, parse := loadTimestamp, parseTimestamp
	switch f.kind {
	case kindDate:
		form, parse = loadDate, parseDate
	case kindTime:
		form, parse = loadTime, parseTime
	case kindDatetime:
		form, parse = loadDatetime, parseDatetime
	default:
	}
	if !isText {
		return value{}, unsure("a JSON number or boolean")
	}
	if !form.MatchString(text) {
		if _, err := parse(text); err == nil {
			return value{}, unsure("the form " + strconv.Quote(text))
		}
		return value{}, bad()
	}
	n, err := parse(text)
	if err != nil {
		return value{}, bad()
	}
	return value{i: n}, nil
}

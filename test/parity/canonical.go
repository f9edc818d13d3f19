package parity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
)

// kind is how values of a type are compared.
type kind int

const (
	textKind   kind = iota
	paddedKind      // char(n)
	boolKind
	integerKind
	floatKind  // double precision
	singleKind // real
	decimalKind
	bytesKind
	jsonKind
	dateKind
	timeKind
	datetimeKind
	timestampKind
)

// null is the canonical text of NULL. No value has it: all others are quoted or
// begin otherwise.
const null = "NULL"

// kindOf is the kind of a Postgres type, by its name and typtype.
func kindOf(name, typtype string) (kind, bool) {
	switch typtype {
	case "e", "r", "m": // enums and ranges land as text
		return textKind, true
	case "b":
	default:
		return 0, false
	}
	switch name {
	case "text", "varchar", "name", "citext", "uuid", "inet", "cidr", "macaddr", "macaddr8", "xml", "tsvector", "bit", "varbit", "timetz", "money", "interval":
		return textKind, true
	case "bpchar":
		return paddedKind, true
	case "bool":
		return boolKind, true
	case "int2", "int4", "int8", "oid":
		return integerKind, true
	case "float8":
		return floatKind, true
	case "float4":
		return singleKind, true
	case "numeric":
		return decimalKind, true
	case "bytea":
		return bytesKind, true
	case "json", "jsonb":
		return jsonKind, true
	case "date":
		return dateKind, true
	case "time":
		return timeKind, true
	case "timestamp":
		return datetimeKind, true
	case "timestamptz":
		return timestampKind, true
	}
	return 0, false
}

// fromPostgres is the canonical text of what column.expression selected.
func (c column) fromPostgres(value any) (string, error) {
	switch v := value.(type) {
	case nil:
		return null, nil
	case string:
		return c.kind.parse(v)
	case []any:
		return canonicalList(v, func(element any) (string, error) {
			text, ok := element.(string)
			if !ok {
				return null, nil
			}
			return c.kind.parse(text)
		})
	}
	return "", fmt.Errorf("column %s: Postgres sent a %T", c.name, value)
}

// parse brings Postgres' text of a value to its canonical form.
func (k kind) parse(text string) (string, error) {
	switch k {
	case textKind, paddedKind:
		return strconv.Quote(text), nil
	case boolKind:
		return strconv.FormatBool(strings.HasPrefix(text, "t")), nil
	case integerKind:
		return text, nil
	case floatKind, singleKind:
		bits := 64
		if k == singleKind {
			bits = 32
		}
		f, err := strconv.ParseFloat(text, bits)
		if err != nil {
			return "", fmt.Errorf("reading a float: %w", err)
		}
		return canonicalFloat(f), nil
	case decimalKind:
		return canonicalDecimal(text)
	case bytesKind:
		return strings.TrimPrefix(text, `\`), nil
	case jsonKind:
		return canonicalJSON(text)
	default:
		return k.parseMoment(text)
	}
}

// layouts of Postgres' ISO date style; fractions are read where there are any.
func (k kind) parseMoment(text string) (string, error) {
	layout, after := "2006-01-02 15:04:05", "2006-01-02T15:04:05.000000"
	switch k {
	case dateKind:
		layout, after = "2006-01-02", "2006-01-02"
	case timeKind:
		layout, after = "15:04:05", "15:04:05.000000"
	case timestampKind:
		layout, after = "2006-01-02 15:04:05-07", "2006-01-02T15:04:05.000000Z"
	default:
	}
	moment, err := time.Parse(layout, text)
	if err != nil {
		return text, nil //nolint:nilerr // infinity, or a year out of range: no BigQuery value has this text
	}
	return moment.UTC().Format(after), nil
}

// fromBigQuery is the canonical text of a value as Google's client returns it.
func (c column) fromBigQuery(value bigquery.Value) (string, error) {
	if list, ok := value.([]bigquery.Value); ok != c.array {
		return "", fmt.Errorf("column %s: BigQuery sent a %T, which is not what an array: %t should be", c.name, value, c.array)
	} else if ok {
		return canonicalList(list, c.scalar)
	}
	return c.scalar(value)
}

// scalar takes a value only in the type that its column should have.
func (c column) scalar(value bigquery.Value) (string, error) {
	wrong := func() (string, error) {
		return "", fmt.Errorf("column %s: BigQuery sent a %T, which is not its type", c.name, value)
	}
	takes := func(kinds ...kind) bool { return slices.Contains(kinds, c.kind) }
	switch v := value.(type) {
	case nil:
		return null, nil
	case string:
		if c.kind == jsonKind {
			return canonicalJSON(v)
		}
		if takes(textKind, paddedKind) {
			return strconv.Quote(v), nil
		}
	case bool:
		if takes(boolKind) {
			return strconv.FormatBool(v), nil
		}
	case int64:
		if takes(integerKind) {
			return strconv.FormatInt(v, 10), nil
		}
	case float64:
		if takes(floatKind, singleKind) {
			return canonicalFloat(v), nil
		}
	case *big.Rat:
		if takes(decimalKind) {
			return v.RatString(), nil
		}
	case []byte:
		if takes(bytesKind) {
			return "x" + hex.EncodeToString(v), nil
		}
	case civil.Date:
		if takes(dateKind) {
			return v.String(), nil
		}
	case civil.Time:
		if takes(timeKind) {
			return clock(v), nil
		}
	case civil.DateTime:
		if takes(datetimeKind) {
			return v.Date.String() + "T" + clock(v.Time), nil
		}
	case time.Time:
		if takes(timestampKind) {
			return v.UTC().Format("2006-01-02T15:04:05.000000Z"), nil
		}
	}
	return wrong()
}

func clock(t civil.Time) string {
	return fmt.Sprintf("%02d:%02d:%02d.%06d", t.Hour, t.Minute, t.Second, t.Nanosecond/1000)
}

func canonicalFloat(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func canonicalDecimal(text string) (string, error) {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return text, nil // NaN or infinity: no BigQuery value has this text
	}
	return r.RatString(), nil
}

func canonicalList[T any](values []T, element func(T) (string, error)) (string, error) {
	parts := make([]string, len(values))
	for i, value := range values {
		var err error
		if parts[i], err = element(value); err != nil {
			return "", err
		}
	}
	return "[" + strings.Join(parts, ", ") + "]", nil
}

// canonicalJSON orders the keys and compares numbers by value: neither side
// promises to keep the text.
func canonicalJSON(text string) (string, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err != nil {
		return "", fmt.Errorf("reading JSON %s: %w", abridged(text), err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading JSON %s: there is more after it", abridged(text))
	}
	document, err := canonicalNumbers(document)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(document); err != nil {
		return "", fmt.Errorf("writing JSON: %w", err)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// numberKey holds a JSON number brought to lowest terms: no key in a document
// from Postgres has a zero byte, so nothing else looks like it.
const numberKey = "\x00"

func canonicalNumbers(value any) (any, error) {
	var err error
	switch v := value.(type) {
	case json.Number:
		text, err := canonicalDecimal(v.String())
		return map[string]any{numberKey: text}, err
	case []any:
		for i := range v {
			if v[i], err = canonicalNumbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key := range v {
			if v[key], err = canonicalNumbers(v[key]); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

package typematrix

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
)

// Canonical is the text of a value that BigQuery's client returns for the type: one text
// for one value, whoever writes it.
func (t Type) Canonical(value bigquery.Value) string {
	return canonical(value, strings.Contains(t.BigQuery, "JSON"))
}

func canonical(value bigquery.Value, document bool) string {
	switch v := value.(type) {
	case nil:
		return "NULL"
	case string:
		if document {
			return canonicalJSON(v)
		}
		return v
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case *big.Rat:
		return decimal(v)
	case []byte:
		return hex.EncodeToString(v)
	case civil.Time:
		return clock(v)
	case civil.DateTime:
		return v.Date.String() + " " + clock(v.Time)
	case time.Time:
		return v.UTC().Format("2006-01-02 15:04:05.999999+00")
	case []bigquery.Value:
		elements := make([]string, len(v))
		for i, element := range v {
			elements[i] = canonical(element, document)
			if _, ok := element.(string); ok && !document {
				elements[i] = strconv.Quote(elements[i])
			}
		}
		return "[" + strings.Join(elements, ", ") + "]"
	}
	return fmt.Sprint(value) // bool, int64, civil.Date
}

func clock(t civil.Time) string {
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%02d:%02d:%02d.%06d", t.Hour, t.Minute, t.Second, t.Nanosecond/1000), "0"), ".")
}

// decimal is exact for what NUMERIC, BIGNUMERIC and JSON's exact numbers hold.
func decimal(r *big.Rat) string {
	if r.IsInt() {
		return r.RatString()
	}
	return strings.TrimRight(r.FloatString(400), "0")
}

// OfPostgres is what Canonical gives for the same value, by Postgres' text of it. Of an
// array it takes one text per element.
func (t Type) OfPostgres(text string) string {
	switch strings.TrimSuffix(strings.TrimPrefix(t.BigQuery, "ARRAY<"), ">") {
	case "FLOAT64":
		bits := 64
		if t.SQL == "real" {
			bits = 32
		}
		if f, err := strconv.ParseFloat(text, bits); err == nil {
			return canonical(f, false)
		}
	case "NUMERIC", "BIGNUMERIC":
		if r, ok := new(big.Rat).SetString(text); ok {
			return decimal(r)
		}
	case "BYTES":
		if t.SQL == "bytea" {
			return strings.TrimPrefix(text, `\x`)
		}
		if t.SQL == "uuid" {
			return strings.ReplaceAll(text, "-", "")
		}
		return hex.EncodeToString([]byte(text))
	case "JSON":
		return canonicalJSON(text)
	case "TIMESTAMP":
		if t.SQL == "timestamp" {
			return text + "+00"
		}
	case "DATETIME":
		return strings.TrimSuffix(text, "+00")
	}
	return text
}

// canonicalJSON has no white space, sorted keys, and numbers by their value.
func canonicalJSON(text string) string {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err != nil {
		return "no JSON: " + err.Error()
	}
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(numbers(document)); err != nil {
		return "no JSON: " + err.Error()
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func numbers(value any) any {
	switch v := value.(type) {
	case json.Number:
		if r, ok := new(big.Rat).SetString(v.String()); ok {
			return json.Number(decimal(r))
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = numbers(v[key])
		}
	}
	return value
}

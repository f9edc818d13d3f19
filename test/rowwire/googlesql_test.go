//go:build googlesql

package rowwire_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/test/bigquery/analyzer"
)

// TestJSONNumbersAsGoogleSQL: a JSON number is carried exactly if GoogleSQL keeps it.
func TestJSONNumbersAsGoogleSQL(t *testing.T) {
	t.Parallel()
	literals := []string{
		"67.174118", "67.17411800000001", "0.01207", "69.137791", "1.1", "1.10", "0.1000", "9007199254740993", "18446744073709551615", "18446744073709551616",
		"-9223372036854775808", "-9223372036854775809", "100000000000000000000", "100000000000000000001", "1e20", "1e22", "1e23", "1E+2", "-0", "-0.0", "5e-324", "4e-324",
		"2.2250738585072014e-308", "1.7976931348623157e308", "1.7976931348623159e308", "1e309", "0.30000000000000004", "0.30000000000000003", "123456789012345678.5",
		"9223372036854775808.0", "9007199254740993.0", "0.1000000000000000055511151231257827", "1e-400", "0." + strings.Repeat("0", 330) + "1",
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 4000 {
		switch n % 5 {
		case 0: // such as degrees of longitude
			literals = append(literals, strconv.FormatFloat(math.Round(r.Float64()*1e8)/1e6, 'f', -1, 64))
		case 1:
			literals = append(literals, strconv.FormatFloat(math.Float64frombits(r.Uint64()&^(1<<62)), 'g', -1, 64)) // smaller than 2
		case 2: // prices
			literals = append(literals, strconv.FormatFloat(float64(r.IntN(100_000))/100, 'f', 2, 64))
		case 3:
			literals = append(literals, "0.0"+strconv.Itoa(r.IntN(10_000)))
		case 4:
			literals = append(literals, strconv.FormatFloat(r.Float64(), 'e', r.IntN(18), 64))
		}
	}
	kept := 0
	for _, literal := range literals {
		_, err := analyzer.Analyze(t.Context(), "SELECT JSON '"+literal+"'", analyzer.Options{})
		var refusal *analyzer.Error
		if err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		carried := carriedJSON(t, literal)
		if carried && err != nil || !carried && err == nil {
			t.Errorf("%s: carried: %t; GoogleSQL: %v", literal, carried, err)
		}
		if !carried {
			kept++
		}
	}
	t.Logf("%d of %d are not carried", kept, len(literals))
}

// carriedJSON says whether a JSON text is carried.
func carriedJSON(t *testing.T, text string) bool {
	t.Helper()
	carried := true
	rows, err := rowwire.NewTranscoder(rowwire.Layout{Columns: []rowwire.Column{{Name: "v", Kind: rowwire.JSON, Field: 1}}}, nil,
		func(b *rowwire.Batch) (*rowwire.Batch, error) { return b, nil },
		func(rowwire.Reject) error {
			carried = false
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.Tuple([][]byte{[]byte(text)}); err != nil {
		t.Fatal(err)
	}
	return carried
}

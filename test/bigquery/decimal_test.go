package bigquery

import (
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseDecimal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "+1": "1", "1.50": "1.5", ".5": "0.5", "1.": "1", "1e3": "1000", "12E-2": "0.12", " 7 ": "7",
		"0.000000001": "0.000000001", "1.0000000000": "1", "0000001": "1", "99999999999999999999999999999.999999999": "99999999999999999999999999999.999999999",
	} {
		v, err := parseDecimal(in, numericScale)
		if err != nil || decimalText(v, numericScale) != want {
			t.Errorf("parseDecimal(%q) = %v, %v, want %s", in, v, err, want)
		}
	}
	for _, in := range []string{"", ".", "-", "1e", "e1", "1_0", "0x1", "NaN", "Infinity", "1,0", "--1", "1e99999", "1e999999", "0.0000000001", "100000000000000000000000000000"} {
		if v, err := parseDecimal(in, numericScale); err == nil {
			t.Errorf("parseDecimal(%q) = %v, want an error", in, v)
		}
	}
}

// Every scaled integer within the bounds survives its text, its bytes and the
// fast reading.
func TestDecimalsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		scale := rapid.SampledFrom([]int{numericScale, bigNumericScale}).Draw(t, "scale")
		digits := rapid.StringMatching(`-?[0-9]{1,77}`).Draw(t, "digits")
		v, ok := new(big.Int).SetString(digits, 10)
		if !ok {
			t.Fatal(digits)
		}
		text := decimalText(v, scale)
		got, err := parseDecimal(text, scale)
		if fits := decimalFits(v, scale); fits != (err == nil) {
			t.Fatalf("parseDecimal(%s) gave %v, fits is %v", text, err, fits)
		} else if !fits {
			return
		}
		if got.Cmp(v) != 0 {
			t.Fatalf("%s became %v", text, got)
		}
		if fast, ok := parseNumericFast(text); ok && scale == numericScale && big.NewInt(fast).Cmp(v) != 0 {
			t.Fatalf("parseNumericFast(%s) = %d", text, fast)
		}
		if !strings.HasPrefix(text, "-") && v.Sign() < 0 {
			t.Fatalf("%s lost its sign", text)
		}
		back, err := decimalBytes(littleEndian(v), scale)
		if err != nil || back.Cmp(v) != 0 {
			t.Fatalf("decimalBytes of %v = %v, %v", v, back, err)
		}
	})
}

// littleEndian is two's complement in 32 bytes.
func littleEndian(v *big.Int) []byte {
	mod := new(big.Int).And(v, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)))
	b := mod.FillBytes(make([]byte, 32))
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return b
}

package rowwire

import (
	"math"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// TestGrisuReadsBack: whatever digits are printed, they are those of the same float64, and never more than 17.
func TestGrisuReadsBack(t *testing.T) {
	t.Parallel()
	check := func(t interface {
		Fatalf(format string, args ...any)
	}, f float64,
	) {
		digits, exponent := grisu(nil, f)
		got, err := strconv.ParseFloat(string(digits)+"e"+strconv.Itoa(exponent), 64)
		if err != nil || got != f || len(digits) > shortestDigits {
			t.Fatalf("%v is printed as %se%d", f, digits, exponent)
		}
	}
	for _, f := range []float64{
		1, 10, 0.1, 67.174118, math.MaxFloat64, math.SmallestNonzeroFloat64, 2.2250738585072014e-308, 2.225073858507201e-308, 1 << 52, 1 << 53, 1 << 63, 5e22, 1e23, 9.5e-300,
	} {
		check(t, f)
	}
	for e := range 2046 { // the powers of two, whose neighbours are not alike
		check(t, math.Float64frombits(uint64(e+1)<<52))
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, math.Float64frombits(rapid.Uint64Range(1, 0x7fefffffffffffff).Draw(t, "bits")))
	})
}

// TestGrisuIsShortOfTheShortest in the cases that are known of BigQuery.
func TestGrisuIsShortOfTheShortest(t *testing.T) {
	t.Parallel()
	for f, want := range map[float64]string{67.174118: "6717411800000001e-14", 0.01207: "12070000000000001e-18", 0.5: "5e-1", 1e23: "9999999999999999e7"} {
		digits, exponent := grisu(nil, f)
		if got := string(digits) + "e" + strconv.Itoa(exponent); got != want {
			t.Errorf("%v is printed as %s, want %s", f, got, want)
		}
	}
}

// TestShortDecimalsAreKept: all that are not looked at any closer.
func TestShortDecimalsAreKept(t *testing.T) {
	t.Parallel()
	for scale := 1; scale <= shortDigits; scale++ {
		for whole := 1; whole < 10_000; whole++ {
			d, ok := readDecimal([]byte(strconv.Itoa(whole)), -scale)
			f, near := d.nearest()
			digits, last := grisu(nil, f)
			if !ok || !near || !d.is(digits, len(digits)+last) {
				t.Fatalf("%de-%d is printed as %se%d", whole, scale, digits, last)
			}
		}
	}
}

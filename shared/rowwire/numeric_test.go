package rowwire_test

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// wantNumeric says what must become of a decimal, by exact arithmetic: the unit of 10^-scale must divide it, and the
// count of units must lie between min and max.
func wantNumeric(text string, scale int64, least, most *big.Int) (rowwire.Reason, bool) {
	r, _ := new(big.Rat).SetString(text)
	units := new(big.Int).Exp(big.NewInt(10), big.NewInt(scale), nil)
	r.Mul(r, new(big.Rat).SetInt(units))
	inRange := r.Cmp(new(big.Rat).SetInt(least)) >= 0 && r.Cmp(new(big.Rat).SetInt(most)) <= 0
	if !r.IsInt() {
		return rowwire.NumericScale, inRange
	}
	if !inRange {
		return rowwire.NumericRange, false
	}
	return 0, true
}

func TestNumericAgreesWithExactArithmetic(t *testing.T) {
	t.Parallel()
	ten38 := new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil)
	numericMax := new(big.Int).Sub(ten38, big.NewInt(1))
	two255 := new(big.Int).Lsh(big.NewInt(1), 255)
	for _, tc := range []struct {
		kind        rowwire.Kind
		scale       int64
		least, most *big.Int
	}{
		{rowwire.Numeric, 9, new(big.Int).Neg(numericMax), numericMax},
		{rowwire.BigNumeric, 38, new(big.Int).Neg(two255), new(big.Int).Sub(two255, big.NewInt(1))},
	} {
		t.Run(tc.kind.String(), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				text := drawDecimal(rt)
				if rapid.IntRange(0, 3).Draw(rt, "near the limit") == 0 {
					limit := rapid.SampledFrom([]*big.Int{tc.least, tc.most}).Draw(rt, "limit")
					units := new(big.Int).Add(limit, big.NewInt(rapid.Int64Range(-3, 3).Draw(rt, "off")))
					denominator := new(big.Int).Exp(big.NewInt(10), big.NewInt(tc.scale), nil)
					text = new(big.Rat).SetFrac(units, denominator).FloatString(int(tc.scale))
				}
				out, err := run(t, oneColumn(tc.kind, false), stream(tuple(numericField(text))))
				if err != nil {
					rt.Fatal(err)
				}
				want, inRange := wantNumeric(text, tc.scale, tc.least, tc.most)
				if want == 0 {
					if len(out.Rows) != 1 {
						rt.Fatalf("%s rejected: %v", text, out.Rejects)
					}
					if got := decode(t, out.Rows[0])[0].Text; got != normal(rt, text) {
						rt.Fatalf("%s became %s", text, got)
					}
					return
				}
				if len(out.Rejects) != 1 {
					rt.Fatalf("%s accepted as %q", text, out.Rows)
				}
				// A value that fails on both counts may name either.
				if got := out.Rejects[0].Reason; got != want && (inRange || got != rowwire.NumericRange) {
					rt.Fatalf("%s rejected as %v, want %v", text, got, want)
				}
			})
		})
	}
}

func TestDateTimeAgreesWithTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		us := rapid.Int64Range(day(1, 1, 1).UnixMicro(), day(10000, 1, 1).UnixMicro()-1).Draw(rt, "us")
		if rapid.Bool().Draw(rt, "whole seconds") {
			us -= us % 1_000_000
		}
		l := oneColumn(rowwire.DateTime, false)
		l.Columns = append(l.Columns, rowwire.Column{Name: "t", Kind: rowwire.Time, Field: 2})
		sinceMidnight := ((us % 86_400_000_000) + 86_400_000_000) % 86_400_000_000
		out, err := run(t, l, stream(tuple(be64(us-epochMicros), be64(sinceMidnight))))
		if err != nil {
			rt.Fatal(err)
		}
		got := decode(t, out.Rows[0])
		want := time.UnixMicro(us).UTC()
		if got[0].Text != want.Format("2006-01-02 15:04:05.999999") || got[1].Text != want.Format("15:04:05.999999") {
			rt.Fatalf("%v became %q and %q", want, got[0].Text, got[1].Text)
		}
	})
}

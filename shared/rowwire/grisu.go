package rowwire

import (
	"math"
	"math/big"
	"math/bits"
	"sync"
)

// BigQuery writes the numbers of JSON with the algorithm Grisu2 and refuses a number that does not come out as it went
// in. Grisu2 always finds digits that read back as the same float64, but in one of some thousand cases not the fewest:
// 67.174118 comes out as 67.17411800000001. (F. Loitsch, Printing Floating-Point Numbers Quickly and Accurately with
// Integers, PLDI 2010; GoogleSQL's JSON values are those of nlohmann/json, whose range of exponents is taken here.)

// scaled is f * 2^e.
type scaled struct {
	f uint64
	e int
}

// times rounds the product to 64 bits.
func (x scaled) times(y scaled) scaled {
	hi, lo := bits.Mul64(x.f, y.f)
	return scaled{hi + lo>>63, x.e + y.e + 64}
}

func (x scaled) normalized() scaled {
	n := bits.LeadingZeros64(x.f)
	return scaled{x.f << n, x.e - n}
}

const (
	grisuAlpha    = -60  // the least binary exponent after scaling
	firstPower    = -300 // decimal exponents of the powers
	powerStep     = 8
	lastPower     = 324
	float64Hidden = 1 << 52
	float64Bias   = 1023 + 52
)

// powersOfTen are the powers from 10^firstPower to 10^lastPower, each rounded to 64 bits.
//
//nolint:gochecknoglobals // a table, computed once
var powersOfTen = sync.OnceValue(func() (out [(lastPower-firstPower)/powerStep + 1]scaled) {
	for i := range out {
		out[i] = powerOfTen(firstPower + i*powerStep)
	}
	return out
})

func powerOfTen(k int) scaled {
	p := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(k, -k))), nil)
	e := p.BitLen() - 65 // one bit more than wanted, for rounding
	if k < 0 {
		e = -p.BitLen() - 64
		p.Quo(new(big.Int).Lsh(big.NewInt(1), uint(-e)), p)
		if p.BitLen() > 65 {
			p.Rsh(p, 1)
			e++
		}
	} else if e >= 0 {
		p.Rsh(p, uint(e))
	} else {
		p.Lsh(p, uint(-e))
	}
	p.Add(p, big.NewInt(1)).Rsh(p, 1)
	e++
	if p.BitLen() > 64 {
		p.Rsh(p, 1)
		e++
	}
	return scaled{p.Uint64(), e}
}

// grisu appends the digits that BigQuery prints of a positive float64, and returns the exponent of the last one.
func grisu(digits []byte, value float64) ([]byte, int) {
	v, minus, plus := bounds(value)
	// A power that brings the exponent between alpha and gamma = -32.
	f := grisuAlpha - plus.e - 1
	k := f * 78913 / (1 << 18) // log10(2)
	if f > 0 {
		k++
	}
	at := (k - firstPower + powerStep - 1) / powerStep
	power := powersOfTen()[at]
	w, low, high := v.times(power), minus.times(power), plus.times(power)
	low.f++
	high.f--
	digits, exponent := generate(digits, low, w, high)
	return digits, exponent - (firstPower + at*powerStep)
}

// bounds are the value and the ends of the interval that reads as it, all normalized and the ends alike.
func bounds(value float64) (v, minus, plus scaled) {
	b := math.Float64bits(value)
	fraction, exponent := b&(float64Hidden-1), int(b>>52)
	v = scaled{fraction, 1 - float64Bias}
	if exponent > 0 {
		v = scaled{fraction | float64Hidden, exponent - float64Bias}
	}
	plus = scaled{2*v.f + 1, v.e - 1}.normalized()
	minus = scaled{2*v.f - 1, v.e - 1}
	if fraction == 0 && exponent > 1 { // the next smaller one is nearer
		minus = scaled{4*v.f - 1, v.e - 2}
	}
	minus = scaled{minus.f << (minus.e - plus.e), plus.e}
	return v.normalized(), minus, plus
}

// generate appends digits of high until what is left of it is within the interval.
func generate(digits []byte, low, w, high scaled) ([]byte, int) {
	delta, distance := high.f-low.f, high.f-w.f
	shift := uint(-high.e)
	one := uint64(1) << shift
	whole, rest := high.f>>shift, high.f&(one-1)
	n, unit := 1, uint64(1)
	for whole/unit >= 10 {
		n, unit = n+1, unit*10
	}
	for ; n > 0; unit /= 10 {
		digits = append(digits, byte('0'+whole/unit))
		whole %= unit
		n--
		if left := whole<<shift + rest; left <= delta {
			approach(digits, distance, delta, left, unit<<shift)
			return digits, n
		}
	}
	exponent := 0
	for {
		rest *= 10
		digits = append(digits, byte('0'+rest>>shift))
		rest &= one - 1
		exponent--
		delta *= 10
		distance *= 10
		if rest <= delta {
			approach(digits, distance, delta, rest, one)
			return digits, exponent
		}
	}
}

// approach lowers the last digit while that brings the digits nearer to the value.
func approach(digits []byte, distance, delta, left, unit uint64) {
	for left < distance && delta-left >= unit && (left+unit < distance || distance-left > left+unit-distance) {
		digits[len(digits)-1]--
		left += unit
	}
}

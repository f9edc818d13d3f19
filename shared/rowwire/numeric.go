package rowwire

import (
	"encoding/binary"
	"math"
)

// The header of a binary numeric, and the values of its sign.
const (
	numericHeaderLen = 8 // digits, weight, sign, display scale
	numericPositive  = 0x0000
	numericNegative  = 0x4000
	numericNaN       = 0xC000
	numericPosInf    = 0xD000
	numericNegInf    = 0xF000
	numericBase      = 10000
)

// What BigQuery's types hold.
const (
	numericIntDigits     = 29
	numericFracDigits    = 9
	bigNumericIntDigits  = 39
	bigNumericFracDigits = 38
	// bigNumericMax is 2^255-1, the greatest BIGNUMERIC, without its point before the last 38 digits.
	// bigNumericMin is 2^255, the magnitude of the least one.
	bigNumericMax = "57896044618658097711785492504343953926634992332820282019728792003956564819967"
	bigNumericMin = "57896044618658097711785492504343953926634992332820282019728792003956564819968"
)

// appendNumeric appends the decimal text of a binary numeric, without trailing zeros, if the BigQuery type holds it
// exactly. The value is sign * sum(digit[i] * 10000^(weight-i)).
func appendNumeric(b, v []byte, big bool) ([]byte, Reason) {
	digits, weight, sign, reason := readNumeric(v)
	if reason != 0 {
		return b, reason
	}
	if len(digits) == 0 {
		return append(b, '0'), 0
	}
	intDigits, fracDigits := numericSize(digits, weight)
	maxInt, maxFrac := numericIntDigits, numericFracDigits
	if big {
		maxInt, maxFrac = bigNumericIntDigits, bigNumericFracDigits
	}
	if intDigits > maxInt {
		return b, NumericRange
	}
	if fracDigits > maxFrac {
		return b, NumericScale
	}
	if sign == numericNegative {
		b = append(b, '-')
	}
	start := len(b)
	b = appendDigits(b, digits, weight)
	if intDigits == bigNumericIntDigits && beyondBigNumeric(b[start:], sign) {
		return b, NumericRange
	}
	return b, 0
}

// readNumeric returns the groups of a binary numeric without those that are zero at either end; none of zero.
func readNumeric(v []byte) (digits []byte, weight int, sign uint16, reason Reason) {
	if len(v) < numericHeaderLen {
		return nil, 0, 0, malformed
	}
	digits = v[numericHeaderLen:]
	weight = int(int16(binary.BigEndian.Uint16(v[2:])))
	sign = binary.BigEndian.Uint16(v[4:])
	if len(digits) != 2*int(binary.BigEndian.Uint16(v)) {
		return nil, 0, 0, malformed
	}
	switch sign {
	case numericPositive, numericNegative:
	case numericNaN:
		return nil, 0, sign, NumericNaN
	case numericPosInf, numericNegInf:
		return nil, 0, sign, NumericInfinity
	default:
		return nil, 0, 0, malformed
	}
	for i := 0; i < len(digits); i += 2 {
		if binary.BigEndian.Uint16(digits[i:]) >= numericBase {
			return nil, 0, 0, malformed
		}
	}
	for len(digits) > 0 && digits[0]|digits[1] == 0 {
		digits = digits[2:]
		weight--
	}
	for n := len(digits); n > 0 && digits[n-1]|digits[n-2] == 0; n = len(digits) {
		digits = digits[:n-2]
	}
	return digits, weight, sign, 0
}

// int64Digits is how many decimal digits the greatest int64 has.
const int64Digits = 19

// readNumericInt returns a numeric that is a whole number of 64 bits.
func readNumericInt(v []byte) (int64, Reason) {
	digits, weight, sign, reason := readNumeric(v)
	if reason != 0 || len(digits) == 0 {
		return 0, reason
	}
	intDigits, fracDigits := numericSize(digits, weight)
	if fracDigits > 0 {
		return 0, NumericScale
	}
	if intDigits > int64Digits {
		return 0, NumericRange
	}
	var n uint64 // of 19 digits at most
	for i := range weight + 1 {
		n *= numericBase
		if 2*i < len(digits) {
			n += uint64(binary.BigEndian.Uint16(digits[2*i:]))
		}
	}
	switch {
	case sign == numericNegative && n <= 1<<63:
		return -int64(n), 0 // -2^63 comes out of 2^63 too
	case sign == numericPositive && n < 1<<63:
		return int64(n), 0
	}
	return 0, NumericRange
}

// readNumericFloat returns the float64 that prints as the numeric.
func readNumericFloat(v []byte) (float64, Reason) {
	digits, weight, sign, reason := readNumeric(v)
	switch {
	case reason == NumericNaN:
		return math.NaN(), 0
	case reason == NumericInfinity && sign == numericPosInf:
		return math.Inf(1), 0
	case reason == NumericInfinity:
		return math.Inf(-1), 0
	case reason != 0 || len(digits) == 0:
		return 0, reason
	}
	const most = shortestDigits/4 + 2 // groups, the first and the last with one digit
	groups := len(digits) / 2
	if groups > most {
		return 0, InexactFloat
	}
	var text [4*most + 1]byte
	mantissa := text[:0]
	for ; len(digits) > 0; digits = digits[2:] {
		mantissa = appendGroup(mantissa, binary.BigEndian.Uint16(digits))
	}
	f, exact := shortest(mantissa, 4*(weight+1-groups))
	switch {
	case !exact:
		return 0, InexactFloat
	case sign == numericNegative:
		return -f, 0
	}
	return f, 0
}

// numericSize counts the digits before and behind the decimal point. The first and the last group are not zero.
func numericSize(digits []byte, weight int) (intDigits, fracDigits int) {
	groups := len(digits) / 2
	if weight >= 0 {
		intDigits = weight * 4
		for d := binary.BigEndian.Uint16(digits); d > 0; d /= 10 {
			intDigits++
		}
	}
	if groups-1 > weight {
		fracDigits = (groups - 1 - weight) * 4
		for d := binary.BigEndian.Uint16(digits[len(digits)-2:]); d%10 == 0; d /= 10 {
			fracDigits--
		}
	}
	return intDigits, fracDigits
}

// appendDigits appends the number without sign. Its size is bounded by the caller.
func appendDigits(b, digits []byte, weight int) []byte {
	if weight < 0 {
		b = append(b, '0')
	} else {
		b = appendFirstGroup(b, binary.BigEndian.Uint16(digits))
		digits = digits[2:]
		for range weight {
			var d uint16
			if len(digits) > 0 {
				d = binary.BigEndian.Uint16(digits)
				digits = digits[2:]
			}
			b = appendGroup(b, d)
		}
	}
	if len(digits) == 0 {
		return b
	}
	b = append(b, '.')
	for range -1 - weight {
		b = append(b, "0000"...)
	}
	for ; len(digits) > 0; digits = digits[2:] {
		b = appendGroup(b, binary.BigEndian.Uint16(digits))
	}
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// appendGroup appends the four decimal digits of d.
func appendGroup(b []byte, d uint16) []byte {
	hi, lo := d/100*2, d%100*2
	return append(b, digitPairs[hi], digitPairs[hi+1], digitPairs[lo], digitPairs[lo+1])
}

// appendFirstGroup appends d, which is not zero, without leading zeros.
func appendFirstGroup(b []byte, d uint16) []byte {
	switch {
	case d >= 1000:
		return appendGroup(b, d)
	case d >= 100:
		return append(b, byte('0'+d/100), digitPairs[d%100*2], digitPairs[d%100*2+1])
	case d >= 10:
		return append(b, digitPairs[d*2], digitPairs[d*2+1])
	default:
		return append(b, byte('0'+d))
	}
}

// beyondBigNumeric compares a text of 39 integer digits with the limit of its sign.
func beyondBigNumeric(text []byte, sign uint16) bool {
	limit := bigNumericMax
	if sign == numericNegative {
		limit = bigNumericMin
	}
	for i, at := 0, 0; i < len(limit); i, at = i+1, at+1 {
		if at == bigNumericIntDigits {
			at++ // the point
		}
		d := byte('0')
		if at < len(text) {
			d = text[at]
		}
		if d != limit[i] {
			return d > limit[i]
		}
	}
	return false
}

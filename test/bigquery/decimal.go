package bigquery

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Scales and bounds of the decimal types, as scaled integers:
// NUMERIC has 29 digits before and 9 after the point, BIGNUMERIC is a signed
// 256-bit integer over 10^38.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types
const (
	numericScale    = 9
	bigNumericScale = 38
)

var errDecimal = errors.New("not a decimal number in the range and scale of the type")

func pow10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// decimalFits says whether a scaled integer is within the type.
func decimalFits(v *big.Int, scale int) bool {
	if scale == numericScale {
		return v.CmpAbs(pow10(38)) < 0
	}
	// Two's complement of 256 bits: -2^255 has itself 256 bits in magnitude.
	if v.Sign() < 0 {
		return new(big.Int).Not(v).BitLen() <= 255
	}
	return v.BitLen() <= 255
}

// parseDecimal reads decimal text as the type's scaled integer. It refuses
// what it would have to round.
func parseDecimal(text string, scale int) (*big.Int, error) {
	digits, exponent, err := splitDecimal(strings.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	shift := exponent + scale
	negative := strings.HasPrefix(digits, "-")
	digits = strings.TrimLeft(strings.TrimLeft(digits, "+-"), "0")
	if digits == "" {
		return new(big.Int), nil
	}
	if shift < 0 {
		kept := len(digits) + shift
		if kept <= 0 || strings.Trim(digits[kept:], "0") != "" {
			return nil, errDecimal
		}
		digits, shift = digits[:kept], 0
	}
	if len(digits)+shift > 78 {
		return nil, errDecimal
	}
	v, ok := new(big.Int).SetString(digits+strings.Repeat("0", shift), 10)
	if !ok {
		return nil, errDecimal
	}
	if negative {
		v.Neg(v)
	}
	if !decimalFits(v, scale) {
		return nil, errDecimal
	}
	return v, nil
}

// splitDecimal splits [sign]digits[.digits][e[sign]digits] into all digits
// with their sign and the power of ten of the last one.
func splitDecimal(text string) (digits string, exponent int, err error) {
	mantissa, exp, hasExp := strings.Cut(strings.ToLower(text), "e")
	if hasExp {
		exponent, err = smallInt(exp)
		if err != nil {
			return "", 0, err
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	unsigned := strings.TrimPrefix(strings.TrimPrefix(whole, "-"), "+")
	if len(whole)-len(unsigned) > 1 || !onlyDigits(unsigned) || !onlyDigits(fraction) || unsigned+fraction == "" {
		return "", 0, errDecimal
	}
	return whole + fraction, exponent - len(fraction), nil
}

func onlyDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func smallInt(s string) (int, error) {
	negative := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+")
	if s == "" || len(s) > 5 || !onlyDigits(s) {
		return 0, errDecimal
	}
	n := 0
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	if negative {
		return -n, nil
	}
	return n, nil
}

// parseNumericFast reads short plain decimals of NUMERIC without a big
// integer. ok is false where parseDecimal must decide.
func parseNumericFast(text string) (v int64, ok bool) {
	i, negative := 0, false
	if i < len(text) && text[i] == '-' {
		negative = true
		i++
	}
	digits, fraction, point := 0, 0, false
	for ; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '.' && !point:
			point = true
		case c >= '0' && c <= '9':
			v = v*10 + int64(c-'0')
			digits++
			if point {
				fraction++
			}
		default:
			return 0, false
		}
	}
	if digits == 0 || fraction > numericScale || digits+numericScale-fraction > 18 {
		return 0, false
	}
	for ; fraction < numericScale; fraction++ {
		v *= 10
	}
	if negative {
		v = -v
	}
	return v, true
}

// decimalText is the canonical text of a scaled integer: no exponent, no
// trailing zeros, no sign on zero.
func decimalText(v *big.Int, scale int) string {
	digits := new(big.Int).Abs(v).String()
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	whole, fraction := digits[:len(digits)-scale], strings.TrimRight(digits[len(digits)-scale:], "0")
	if fraction != "" {
		whole += "." + fraction
	}
	if v.Sign() < 0 {
		return "-" + whole
	}
	return whole
}

// decimalBytes reads the encoding of BigDecimalByteStringEncoder: the scaled
// integer, little-endian, two's complement.
func decimalBytes(b []byte, scale int) (*big.Int, error) {
	if len(b) == 0 || len(b) > 32 {
		return nil, errDecimal
	}
	reversed := make([]byte, len(b))
	for i, c := range b {
		reversed[len(b)-1-i] = c
	}
	v := new(big.Int).SetBytes(reversed)
	if reversed[0]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(len(b))*8))
	}
	if !decimalFits(v, scale) {
		return nil, errDecimal
	}
	return v, nil
}

// decimalFromText reads decimal text as a value of NUMERIC or BIGNUMERIC.
func decimalFromText(text string, scale int) (value, error) {
	if scale == numericScale {
		if v, ok := parseNumericFast(text); ok {
			return value{i: v}, nil
		}
	}
	v, err := parseDecimal(text, scale)
	if err != nil {
		return value{}, fmt.Errorf("%w: %q", err, text)
	}
	return decimalValue(v, scale), nil
}

func decimalValue(v *big.Int, scale int) value {
	switch {
	case scale == bigNumericScale:
		return value{b: []byte(decimalText(v, scale))}
	case v.IsInt64():
		return value{i: v.Int64()}
	}
	return value{wide: v}
}

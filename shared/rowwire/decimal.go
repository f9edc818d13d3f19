package rowwire

import (
	"encoding/binary"
	"math/bits"

	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/decimal256"
)

// magnitude is an unsigned number of 320 bits, lowest word first: room for 256 bits times 1000.
type magnitude [5]uint64

// magnitude128 returns the absolute value of n and its sign.
func magnitude128(n decimal128.Num) (m magnitude, negative bool) {
	m[0], m[1] = n.LowBits(), uint64(n.HighBits())
	if n.HighBits() >= 0 {
		return m, false
	}
	m.negate(2)
	return m, true
}

// magnitude256 returns the absolute value of n and its sign.
func magnitude256(n decimal256.Num) (m magnitude, negative bool) {
	words := n.Array()
	copy(m[:], words[:])
	if n.Sign() >= 0 {
		return m, false
	}
	m.negate(4)
	return m, true
}

// negate takes the two's complement of the lowest words.
func (m *magnitude) negate(words int) {
	carry := uint64(1)
	for i := range words {
		m[i], carry = bits.Add64(^m[i], 0, carry)
	}
}

// words returns how many words are in use.
func (m *magnitude) words() int {
	n := len(m)
	for n > 0 && m[n-1] == 0 {
		n--
	}
	return n
}

func (m *magnitude) multiply(by uint64) {
	var carry uint64
	for i := range m {
		hi, lo := bits.Mul64(m[i], by)
		var c uint64
		m[i], c = bits.Add64(lo, carry, 0)
		carry = hi + c
	}
}

// divide divides by a number and returns the remainder.
func (m *magnitude) divide(by uint64) uint64 {
	var rest uint64
	for i := m.words() - 1; i >= 0; i-- {
		m[i], rest = bits.Div64(rest, m[i], by)
	}
	return rest
}

const (
	groupsPerWord = 4
	wordBase      = numericBase * numericBase * numericBase * numericBase
	maxGroups     = 24 // 320 bits have at most 97 decimal digits; whole words of groups are taken
)

// appendDecimal appends the binary numeric m * 10^-scale, with no more fractional digits than it needs.
func appendDecimal(b []byte, m magnitude, negative bool, scale int32) []byte {
	// Align the decimal point with a group of four digits.
	fracGroups := int(scale+3) / 4
	for i := int(scale); i < fracGroups*4; i++ {
		m.multiply(10)
	}
	var groups [maxGroups + groupsPerWord]uint16 // lowest first
	n := 0
	for m.words() > 0 {
		rest := m.divide(wordBase)
		for range groupsPerWord {
			groups[n] = uint16(rest % numericBase)
			rest /= numericBase
			n++
		}
	}
	for n > 0 && groups[n-1] == 0 {
		n--
	}
	low := 0
	for low < n && groups[low] == 0 {
		low++
	}
	weight, sign, displayScale := n-1-fracGroups, numericPositive, 0
	if low == n {
		weight = 0 // as PostgreSQL writes zero
	}
	if low < n && low < fracGroups {
		displayScale = (fracGroups - low) * 4
		for d := groups[low]; d%10 == 0; d /= 10 {
			displayScale--
		}
	}
	if negative {
		sign = numericNegative
	}
	b = binary.BigEndian.AppendUint16(b, uint16(n-low))
	b = binary.BigEndian.AppendUint16(b, uint16(int16(weight)))
	b = binary.BigEndian.AppendUint16(b, uint16(sign))
	b = binary.BigEndian.AppendUint16(b, uint16(displayScale))
	for i := n - 1; i >= low; i-- {
		b = binary.BigEndian.AppendUint16(b, groups[i])
	}
	return b
}

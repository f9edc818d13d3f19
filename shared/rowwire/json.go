package rowwire

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"
)

const (
	maxJSONDepth    = 500 // BigQuery's limit for JSON
	pairwiseKeys    = 16  // objects with more keys are searched for duplicates with a map
	keepSeen        = 1024
	surrogateFirst  = 0xD800
	surrogateSecond = 0xDC00
	surrogateEnd    = 0xE000
)

// jsonScanner finds what BigQuery would not keep of a JSON text. It relies on PostgreSQL for the syntax and only never
// fails on text that is not JSON.
type jsonScanner struct {
	keys    [][]byte // keys of the open objects, escapes and all
	objects []int    // per open object or array, where its keys begin
	seen    map[string]struct{}
}

// check returns why the text would not be kept, or 0. With duplicates it also looks for keys that occur twice in an
// object, which json allows and jsonb does not have.
func (s *jsonScanner) check(text []byte, duplicates bool) Reason {
	s.keys, s.objects = s.keys[:0], s.objects[:0]
	depth := 0
	for i := 0; i < len(text); {
		switch ch := text[i]; {
		case ch == '"':
			end, reason := skipString(text, i+1)
			if reason != 0 {
				return reason
			}
			if duplicates && isKey(text, end+1) {
				s.keys = append(s.keys, text[i+1:min(end, len(text))])
			}
			i = end + 1
		case ch == '-' || ch >= '0' && ch <= '9':
			end := i + 1
			for end < len(text) && isNumberByte(text[end]) {
				end++
			}
			if !exactNumber(text[i:end]) {
				return JSONNumber
			}
			i = end
		case ch == '{' || ch == '[':
			if depth++; depth > maxJSONDepth {
				return JSONDepth
			}
			if duplicates {
				s.objects = append(s.objects, len(s.keys))
			}
			i++
		case ch == '}' || ch == ']':
			depth--
			if n := len(s.objects); n > 0 {
				from := s.objects[n-1]
				if s.hasDuplicate(s.keys[from:]) {
					return JSONDuplicateKey
				}
				s.objects, s.keys = s.objects[:n-1], s.keys[:from]
			}
			i++
		default:
			i++
		}
	}
	return 0
}

// skipString returns the index of the quote that ends the string whose content begins at i; len(text) if none does.
func skipString(text []byte, i int) (int, Reason) {
	for {
		i = nextSpecial(text, i)
		if i >= len(text) || text[i] == '"' {
			return i, 0
		}
		n, reason := escape(text[i:])
		if reason != 0 {
			return i, reason
		}
		i += n
	}
}

// nextSpecial returns the index of the next quote or backslash from i on, eight bytes at a time.
func nextSpecial(text []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(text); i += 8 {
		w := binary.LittleEndian.Uint64(text[i:])
		q, e := w^ones*'"', w^ones*'\\'
		// A byte that became zero is one looked for; the lowest such bit is always a true one.
		if m := ((q-ones)&^q | (e-ones)&^e) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(text); i++ {
		if text[i] == '"' || text[i] == '\\' {
			return i
		}
	}
	return i
}

// escape returns the length of the escape sequence at the start of text.
func escape(text []byte) (int, Reason) {
	if len(text) < 2 || text[1] != 'u' {
		return 2, 0
	}
	unit := hex4(text)
	switch {
	case unit == 0:
		return 0, JSONNul
	case unit >= surrogateFirst && unit < surrogateSecond:
		if next := hex4(text[6:]); next < surrogateSecond || next >= surrogateEnd {
			return 0, JSONSurrogate
		}
		return 12, 0
	case unit >= surrogateSecond && unit < surrogateEnd:
		return 0, JSONSurrogate
	default:
		return 6, 0
	}
}

// hex4 returns the code unit of the \uXXXX at the start of text, a value over 0xFFFF if there is none.
func hex4(text []byte) rune {
	const none = 1 << 16
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return none
	}
	var unit rune
	for _, ch := range text[2:6] {
		switch {
		case ch >= '0' && ch <= '9':
			unit = unit<<4 | rune(ch-'0')
		case ch >= 'a' && ch <= 'f':
			unit = unit<<4 | rune(ch-'a'+10)
		case ch >= 'A' && ch <= 'F':
			unit = unit<<4 | rune(ch-'A'+10)
		default:
			return none
		}
	}
	return unit
}

func isNumberByte(ch byte) bool {
	return ch >= '0' && ch <= '9' || ch == '.' || ch == 'e' || ch == 'E' || ch == '+' || ch == '-'
}

// isKey says whether a colon follows at i.
func isKey(text []byte, i int) bool {
	for ; i < len(text); i++ {
		switch text[i] {
		case ' ', '\t', '\n', '\r':
		default:
			return text[i] == ':'
		}
	}
	return false
}

// hasDuplicate compares the keys of one object as the strings they stand for.
func (s *jsonScanner) hasDuplicate(keys [][]byte) bool {
	if len(keys) > pairwiseKeys {
		return s.hasDuplicateOfMany(keys)
	}
	for i, key := range keys {
		if bytes.IndexByte(key, '\\') >= 0 {
			return s.hasDuplicateOfMany(keys)
		}
		for _, earlier := range keys[:i] {
			if bytes.Equal(key, earlier) {
				return true
			}
		}
	}
	return false
}

func (s *jsonScanner) hasDuplicateOfMany(keys [][]byte) bool {
	if s.seen == nil || len(s.seen) > keepSeen { // clearing a large map costs more than a new one
		s.seen = make(map[string]struct{}, len(keys))
	}
	clear(s.seen)
	for _, key := range keys {
		if bytes.IndexByte(key, '\\') >= 0 {
			key = unescape(key)
		}
		if _, ok := s.seen[string(key)]; ok {
			return true
		}
		s.seen[string(key)] = struct{}{}
	}
	return false
}

// unescape returns the string that a JSON string's content stands for. Surrogates are paired: escape has checked them.
func unescape(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			i++
			continue
		}
		switch ch := s[i+1]; ch {
		case 'u':
			unit := hex4(s[i:])
			if unit > 0xFFFF {
				out = append(out, s[i:i+2]...)
				i += 2
				continue
			}
			i += 6
			if unit >= surrogateFirst && unit < surrogateSecond && i < len(s) {
				unit = (unit-surrogateFirst)<<10 + hex4(s[i:]) - surrogateSecond + 0x10000
				i += 6
			}
			out = utf8.AppendRune(out, unit)
			continue
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		default:
			out = append(out, ch)
		}
		i += 2
	}
	return out
}

const (
	shortDigits    = 4  // decimals of so many digits, zeros before them included, all come out of Grisu2 as they are
	exactDigits    = 15 // so many digits are an integer that float64 has
	exactPower     = 22 // and so is this power of ten
	shortestDigits = 17 // neither Grisu2 nor the shortest text of a float64 has more
)

// exactNumber says whether BigQuery keeps a JSON number's value: an integer must be an int64 or uint64, anything else
// must be what it prints of the nearest float64.
func exactNumber(lit []byte) bool {
	mantissa, exponent, integer := splitNumber(lit)
	if integer && fits64(lit) {
		return true
	}
	if exponent == nil && len(mantissa) <= shortDigits+1 { // one is the point
		return true
	}
	exp := 0
	if exponent != nil {
		var err error
		if exp, err = strconv.Atoi(string(exponent)); err != nil {
			return false
		}
	}
	d, ok := readDecimal(mantissa, exp)
	if !ok || d.n == 0 {
		return ok
	}
	f, ok := d.nearest()
	if !ok || f == 0 {
		return false
	}
	var text [shortestDigits + 3]byte
	digits, last := grisu(text[:0], f)
	return d.is(digits, len(digits)+last)
}

// splitNumber cuts a number into the digits with their point, and the exponent (nil without one).
func splitNumber(lit []byte) (mantissa, exponent []byte, integer bool) {
	if lit[0] == '-' {
		lit = lit[1:]
	}
	integer = true
	for i, ch := range lit {
		switch ch {
		case '.':
			integer = false
		case 'e', 'E':
			return lit[:i], lit[i+1:], false
		}
	}
	return lit, nil, integer
}

// fits64 says whether an integer literal is an int64 or uint64.
func fits64(lit []byte) bool {
	if len(lit) <= 18 {
		return true
	}
	limit := "18446744073709551615"
	if lit[0] == '-' {
		lit, limit = lit[1:], "9223372036854775808"
	}
	if len(lit) != len(limit) {
		return len(lit) < len(limit)
	}
	return string(lit) <= limit
}

// decimal is 0.digits * 10^magnitude, without zeros at either end.
type decimal struct {
	digits    [shortestDigits]byte
	n         int
	magnitude int
}

// readDecimal returns mantissa * 10^exponent, the mantissa being decimal digits with at most one point. It fails for more
// digits than a float64 can tell, and far outside of its range.
func readDecimal(mantissa []byte, exponent int) (d decimal, ok bool) {
	zeros := 0 // since the last other digit
	point := false
	for _, ch := range mantissa {
		switch {
		case ch == '.':
			point = true
			continue
		case ch != '0':
			if d.n+zeros >= shortestDigits {
				return d, false
			}
			for ; zeros > 0; zeros-- {
				d.digits[d.n] = '0'
				d.n++
			}
			d.digits[d.n] = ch
			d.n++
		case d.n > 0:
			zeros++
		}
		switch {
		case !point && (d.n > 0 || ch != '0'):
			d.magnitude++
		case point && d.n == 0:
			d.magnitude--
		}
	}
	if d.n == 0 {
		return d, true
	}
	if exponent > 1000+len(mantissa) || exponent < -1000-len(mantissa) {
		return d, false
	}
	d.magnitude += exponent
	return d, d.magnitude >= -400 && d.magnitude <= 400
}

// nearest returns the float64 nearest to the decimal; it fails beyond the range.
func (d *decimal) nearest() (float64, bool) {
	if power := d.magnitude - d.n; d.n <= exactDigits && power >= -exactPower && power <= exactPower {
		var whole uint64
		for _, ch := range d.digits[:d.n] {
			whole = whole*10 + uint64(ch-'0')
		}
		if power < 0 { // both are exact, so the quotient is rounded once
			return float64(whole) / math.Pow10(-power), true
		}
		return float64(whole) * math.Pow10(power), true
	}
	var text [shortestDigits + 8]byte
	lit := append(append(text[:0], "."...), d.digits[:d.n]...)
	lit = strconv.AppendInt(append(lit, 'e'), int64(d.magnitude), 10)
	f, err := strconv.ParseFloat(string(lit), 64)
	return f, err == nil
}

// is compares the decimal with digits that may end in zeros.
func (d *decimal) is(digits []byte, magnitude int) bool {
	return magnitude == d.magnitude && bytes.Equal(bytes.TrimRight(digits, "0"), d.digits[:d.n])
}

// shortest returns the float64 nearest to mantissa * 10^exponent, and whether its shortest text has the same digits.
func shortest(mantissa []byte, exponent int) (f float64, exact bool) {
	d, ok := readDecimal(mantissa, exponent)
	if !ok || d.n == 0 {
		return 0, ok
	}
	if f, ok = d.nearest(); !ok {
		return f, false
	}
	var text [32]byte
	got := strconv.AppendFloat(text[:0], f, 'e', -1, 64) // d.ddde+dd
	e := bytes.IndexByte(got, 'e')
	power, err := strconv.Atoi(string(got[e+1:]))
	if err != nil {
		return f, false
	}
	digits := append(got[:1], bytes.TrimPrefix(got[1:e], []byte("."))...)
	return f, d.is(digits, power+1)
}

package rowwire

import (
	"bytes"
	"encoding/binary"
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
	exactDigits    = 15 // decimals of so many digits always survive float64, away from the ends of its range
	shortestDigits = 17 // the shortest text of a float64 never has more
)

// exactNumber says whether BigQuery keeps a JSON number's value: an integer must be an int64 or uint64, anything else
// must be what the nearest float64 prints as.
func exactNumber(lit []byte) bool {
	mantissa, exponent, integer := splitNumber(lit)
	if integer {
		return fits64(lit)
	}
	if len(mantissa) <= exactDigits+1 && exponent == nil { // one is the point
		return true
	}
	exp := 0
	if exponent != nil {
		var err error
		if exp, err = strconv.Atoi(string(exponent)); err != nil {
			return false
		}
	}
	_, exact := shortest(mantissa, exp)
	return exact
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

// shortest returns the float64 nearest to mantissa * 10^exponent, and whether its shortest text has the same significant
// digits and magnitude. The mantissa is decimal digits with at most one point.
func shortest(mantissa []byte, exponent int) (f float64, exact bool) {
	var digits [shortestDigits]byte
	n, zeros, magnitude := 0, 0, 0 // zeros: seen since the last other digit; value = 0.digits * 10^magnitude
	point := false
	for _, ch := range mantissa {
		switch {
		case ch == '.':
			point = true
			continue
		case ch != '0':
			if n+zeros >= shortestDigits {
				return 0, false
			}
			for ; zeros > 0; zeros-- {
				digits[n] = '0'
				n++
			}
			digits[n] = ch
			n++
		case n > 0:
			zeros++
		}
		switch {
		case !point && (n > 0 || ch != '0'):
			magnitude++
		case point && n == 0:
			magnitude--
		}
	}
	if n == 0 {
		return 0, true
	}
	if exponent > 1000+len(mantissa) || exponent < -1000-len(mantissa) {
		return 0, false
	}
	magnitude += exponent
	if magnitude < -400 || magnitude > 400 {
		return 0, false
	}
	var text [shortestDigits + 8]byte
	lit := append(append(text[:0], "."...), digits[:n]...)
	lit = strconv.AppendInt(append(lit, 'e'), int64(magnitude), 10)
	f, err := strconv.ParseFloat(string(lit), 64)
	return f, err == nil && prints(f, digits[:n], magnitude)
}

// prints says whether the shortest text of f has these digits and magnitude.
func prints(f float64, digits []byte, magnitude int) bool {
	var text [32]byte
	got := strconv.AppendFloat(text[:0], f, 'e', -1, 64) // d.ddde+dd
	e := bytes.IndexByte(got, 'e')
	exp, err := strconv.Atoi(string(got[e+1:]))
	if err != nil || exp+1 != magnitude || got[0] != digits[0] {
		return false
	}
	rest := got[1:e]
	if len(rest) > 0 {
		rest = rest[1:]
	}
	return bytes.Equal(rest, digits[1:])
}

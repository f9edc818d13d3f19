package dialect

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// unescape decodes the escape sequences of a string, bytes or identifier
// literal. \u and \U are code points and do not exist in bytes literals; \x and
// octal are code points in strings and bytes in bytes literals.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical#escape_sequences
func unescape(s string, isBytes bool) (string, bool) {
	if !strings.Contains(s, `\`) {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i >= len(s) {
			return "", false
		}
		if c, ok := simpleEscape(s[i]); ok {
			b.WriteByte(c)
			continue
		}
		n, ok := numericEscape(&b, s[i:], isBytes)
		if !ok {
			return "", false
		}
		i += n - 1
	}
	return b.String(), true
}

func simpleEscape(c byte) (byte, bool) {
	switch c {
	case 'a':
		return '\a', true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'v':
		return '\v', true
	case '\\', '?', '"', '\'', '`':
		return c, true
	}
	return 0, false
}

// numericEscape decodes what follows a backslash and returns its length.
func numericEscape(b *strings.Builder, s string, isBytes bool) (int, bool) {
	var digits int
	base, skip := 16, 1
	switch {
	case s[0] == 'x' || s[0] == 'X':
		digits = 2
	case s[0] == 'u' && !isBytes:
		digits = 4
	case s[0] == 'U' && !isBytes:
		digits = 8
	case s[0] >= '0' && s[0] <= '3':
		digits, base, skip = 3, 8, 0
	default:
		return 0, false
	}
	if len(s) < skip+digits {
		return 0, false
	}
	v, err := strconv.ParseUint(s[skip:skip+digits], base, 32)
	if err != nil {
		return 0, false
	}
	if isBytes {
		b.WriteByte(byte(v & 0xff))
		return skip + digits, true
	}
	if v > utf8.MaxRune || v >= 0xD800 && v <= 0xDFFF {
		return 0, false
	}
	b.WriteRune(rune(v))
	return skip + digits, true
}

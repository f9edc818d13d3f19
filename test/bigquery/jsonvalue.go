package bigquery

import (
	"errors"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxJSONDepth is BigQuery's limit of nesting.
const maxJSONDepth = 500

var (
	errJSON       = errors.New("syntax error while parsing JSON")
	errJSONNumber = errors.New("number cannot round-trip through its string representation")
	errJSONDepth  = errors.New("max nesting level of JSON exceeded; limit is 500")
)

// normalizeJSON reads JSON text as the JSON type stores it, with
// wide_number_mode => 'exact', and returns the text that the type prints:
// no white space, members sorted by name, of members of one name the first,
// integers of 64 bits and doubles that round-trip; other numbers are refused.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#json_type
func normalizeJSON(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", errJSON
	}
	p := jsonParser{text: text, out: make([]byte, 0, len(text))}
	p.space()
	if err := p.value(0); err != nil {
		return "", err
	}
	p.space()
	if p.pos != len(p.text) {
		return "", errJSON
	}
	return string(p.out), nil
}

type jsonParser struct {
	text string
	pos  int
	out  []byte
}

func (p *jsonParser) space() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

func (p *jsonParser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

func (p *jsonParser) value(depth int) error {
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth + 1)
	case c == '[':
		return p.array(depth + 1)
	case c == '"':
		s, err := p.str()
		if err != nil {
			return err
		}
		p.out = appendJSONString(p.out, s)
		return nil
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if strings.HasPrefix(p.text[p.pos:], word) {
			p.pos += len(word)
			p.out = append(p.out, word...)
			return nil
		}
	}
	return errJSON
}

func (p *jsonParser) array(depth int) error {
	if depth > maxJSONDepth {
		return errJSONDepth
	}
	p.pos++
	p.out = append(p.out, '[')
	p.space()
	if p.peek() == ']' {
		p.pos++
		p.out = append(p.out, ']')
		return nil
	}
	for {
		p.space()
		if err := p.value(depth); err != nil {
			return err
		}
		p.space()
		c := p.peek()
		p.pos++
		switch c {
		case ',':
			p.out = append(p.out, ',')
		case ']':
			p.out = append(p.out, ']')
			return nil
		default:
			return errJSON
		}
	}
}

type jsonMember struct{ name, text string }

func (p *jsonParser) object(depth int) error {
	if depth > maxJSONDepth {
		return errJSONDepth
	}
	p.pos++
	start := len(p.out)
	var members []jsonMember
	p.space()
	if p.peek() == '}' {
		p.pos++
		p.out = append(p.out, "{}"...)
		return nil
	}
	for {
		m, err := p.member(depth)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(members, func(o jsonMember) bool { return o.name == m.name }) {
			members = append(members, m)
		}
		p.space()
		c := p.peek()
		p.pos++
		if c == '}' {
			break
		}
		if c != ',' {
			return errJSON
		}
	}
	slices.SortFunc(members, func(a, b jsonMember) int { return strings.Compare(a.name, b.name) })
	p.out = append(p.out[:start], '{')
	for i, m := range members {
		if i > 0 {
			p.out = append(p.out, ',')
		}
		p.out = append(appendJSONString(p.out, m.name), ':')
		p.out = append(p.out, m.text...)
	}
	p.out = append(p.out, '}')
	return nil
}

func (p *jsonParser) member(depth int) (jsonMember, error) {
	p.space()
	if p.peek() != '"' {
		return jsonMember{}, errJSON
	}
	name, err := p.str()
	if err != nil {
		return jsonMember{}, err
	}
	p.space()
	if p.peek() != ':' {
		return jsonMember{}, errJSON
	}
	p.pos++
	p.space()
	start := len(p.out)
	if err := p.value(depth); err != nil {
		return jsonMember{}, err
	}
	m := jsonMember{name, string(p.out[start:])}
	p.out = p.out[:start]
	return m, nil
}

func (p *jsonParser) number() error {
	start := p.pos
	if p.peek() == '-' {
		p.pos++
	}
	whole := p.digits()
	if whole == 0 || whole > 1 && p.text[p.pos-whole] == '0' {
		return errJSON
	}
	integer := true
	if p.peek() == '.' {
		integer = false
		p.pos++
		if p.digits() == 0 {
			return errJSON
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		integer = false
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if p.digits() == 0 {
			return errJSON
		}
	}
	text, err := exactNumber(p.text[start:p.pos], integer)
	p.out = append(p.out, text...)
	return err
}

func (p *jsonParser) digits() int {
	start := p.pos
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.pos++
	}
	return p.pos - start
}

func exactNumber(text string, integer bool) (string, error) {
	if integer && text != "-0" {
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			return text, nil
		}
		if _, err := strconv.ParseUint(text, 10, 64); err == nil {
			return text, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return "", errJSONNumber
	}
	shortest := strconv.FormatFloat(f, 'e', -1, 64)
	if !sameDecimal(text, shortest) {
		return "", errJSONNumber
	}
	return jsonFloat(f), nil
}

// sameDecimal compares two decimal texts by value, whatever their exponents.
func sameDecimal(a, b string) bool {
	da, ea, errA := splitDecimal(a)
	db, eb, errB := splitDecimal(b)
	if errA != nil || errB != nil {
		return false
	}
	na, ea := trimDecimal(da, ea)
	nb, eb := trimDecimal(db, eb)
	return na.Cmp(nb) == 0 && (ea == eb || na.Sign() == 0)
}

func trimDecimal(digits string, exponent int) (*big.Int, int) {
	trimmed := strings.TrimRight(digits, "0")
	n, ok := new(big.Int).SetString(trimmed, 10)
	if !ok { // all zeros
		return new(big.Int), 0
	}
	return n, exponent + len(digits) - len(trimmed)
}

// jsonFloat prints a double with the fewest digits that round-trip, always
// with a point or an exponent: 1.0, 0.001, 1e+20.
func jsonFloat(f float64) string {
	if f == 0 {
		if math.Signbit(f) {
			return "-0.0"
		}
		return "0.0"
	}
	e := strconv.FormatFloat(f, 'e', -1, 64)
	exponent, err := strconv.Atoi(e[strings.IndexByte(e, 'e')+1:])
	if err != nil || exponent < -4 || exponent >= 15 {
		return e
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.ContainsRune(text, '.') {
		text += ".0"
	}
	return text
}

// str reads a JSON string and undoes its escapes.
func (p *jsonParser) str() (string, error) {
	p.pos++
	start := p.pos
	var b []byte
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case c == '"':
			plain := p.text[start:p.pos]
			p.pos++
			if b == nil {
				return plain, nil
			}
			return string(b) + plain, nil
		case c < 0x20:
			return "", errJSON
		case c == '\\':
			b = append(b, p.text[start:p.pos]...)
			if b == nil {
				b = []byte{}
			}
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, r)
			start = p.pos
		default:
			p.pos++
		}
	}
	return "", errJSON
}

func (p *jsonParser) escape() (rune, error) {
	p.pos++
	c := p.peek()
	p.pos++
	if c == 'u' {
		return p.unicodeEscape()
	}
	i := strings.IndexByte(`"\/bfnrt`, c)
	if i < 0 || c == 0 {
		return 0, errJSON
	}
	return rune("\"\\/\b\f\n\r\t"[i]), nil
}

func (p *jsonParser) unicodeEscape() (rune, error) {
	high, err := p.hex4()
	if err != nil || high < 0xD800 || high > 0xDFFF {
		return high, err
	}
	// A lone surrogate is no character: BigQuery refuses it.
	if high > 0xDBFF || !strings.HasPrefix(p.text[p.pos:], `\u`) {
		return 0, errJSON
	}
	p.pos += 2
	low, err := p.hex4()
	if err != nil || low < 0xDC00 || low > 0xDFFF {
		return 0, errJSON
	}
	return (high-0xD800)<<10 + (low - 0xDC00) + 0x10000, nil
}

func (p *jsonParser) hex4() (rune, error) {
	if p.pos+4 > len(p.text) {
		return 0, errJSON
	}
	n, err := strconv.ParseUint(p.text[p.pos:p.pos+4], 16, 16)
	if err != nil {
		return 0, errJSON
	}
	p.pos += 4
	return rune(n), nil
}

func appendJSONString(out []byte, s string) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c >= 0x20:
			out = append(out, c)
		default:
			if j := strings.IndexByte("\b\f\n\r\t", c); j >= 0 {
				out = append(out, '\\', "bfnrt"[j])
			} else {
				out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
		}
	}
	return append(out, '"')
}

package dialect

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func (e *printer) literal(x *literal) value {
	v := value{typ: typ{kind: x.kind}, lit: x}
	if x.typed {
		v = e.typedLiteral(x)
		v.lit = x
		return v
	}
	switch x.kind {
	case kindNull:
		v.sql = "NULL"
	case kindInt64:
		n, err := strconv.ParseInt(x.text, 0, 64)
		if err != nil {
			n, err = strconv.ParseInt(strings.TrimLeft(x.text, "+"), 10, 64)
		}
		if strings.HasPrefix(strings.TrimPrefix(x.text, "-"), "0") && !strings.Contains(strings.ToLower(x.text), "x") {
			n, err = strconv.ParseInt(x.text, 10, 64) // GoogleSQL knows no octal
		}
		if err != nil {
			reject(x.position, "Invalid integer literal: %s", x.text)
		}
		v.sql = fmt.Sprintf("CAST(%d AS BIGINT)", n)
		if n < 0 {
			v.sql = fmt.Sprintf("CAST('%d' AS BIGINT)", n)
		}
	case kindFloat64:
		f, err := strconv.ParseFloat(x.text, 64)
		if err != nil {
			reject(x.position, "Invalid floating point literal: %s", x.text)
		}
		v.sql = fmt.Sprintf("CAST('%s' AS DOUBLE)", strconv.FormatFloat(f, 'g', -1, 64))
	case kindBool:
		v.sql = x.text
	case kindString:
		v.sql = quoteText(x.text)
	case kindBytes:
		v.sql = quoteBytes(x.text)
	}
	return v
}

func (e *printer) typedLiteral(x *literal) value {
	sql, ok := literalAs(x.kind, x.text)
	if !ok {
		reject(x.position, "Invalid %s literal: %q", x.kind, x.text)
	}
	return value{sql: sql, typ: typ{kind: x.kind}}
}

// literalAs writes the text of a literal as a value of kind k.
func literalAs(k kind, text string) (string, bool) {
	switch k {
	case kindNumeric:
		s, ok := decimalText(text, 29, 9)
		return "CAST('" + s + "' AS DECIMAL(38, 9))", ok
	case kindBigNumeric:
		s, ok := decimalText(text, 39, 38)
		return "'" + s + "'", ok
	case kindDate:
		y, m, d, rest, ok := splitDate(text)
		return fmt.Sprintf("DATE '%04d-%02d-%02d'", y, m, d), ok && rest == ""
	case kindDatetime:
		t, zone, ok := splitDatetime(text)
		return "TIMESTAMP '" + t + "'", ok && zone == ""
	case kindTimestamp:
		return timestampText(text)
	case kindTime:
		t, rest, ok := splitTime(text)
		return "TIME '" + t + "'", ok && rest == ""
	case kindJSON:
		return "CAST(" + quoteText(text) + " AS JSON)", true
	}
	return "", false
}

// decimalText returns the canonical text of a decimal literal: no exponent, no
// leading or trailing zeros; ok is false where it does not fit exactly.
func decimalText(text string, whole, scale int) (string, bool) {
	text = strings.TrimSpace(text)
	if !decimalPattern().MatchString(text) {
		return "", false
	}
	if _, exp, found := strings.Cut(strings.ToLower(text), "e"); found {
		if n, err := strconv.Atoi(exp); err != nil || n > 100 || n < -100 {
			return "", false
		}
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return "", false
	}
	s := r.FloatString(scale)
	back, _ := new(big.Rat).SetString(s)
	if back.Cmp(r) != 0 {
		return "", false
	}
	s = trimDecimal(s)
	integer, _, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	return s, len(integer) <= whole
}

func decimalPattern() *regexp.Regexp {
	return regexp.MustCompile(`^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$`)
}

func trimDecimal(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		return "0"
	}
	return s
}

// splitDate reads YYYY-[M]M-[D]D at the start of s.
func splitDate(s string) (y, m, d int, rest string, ok bool) {
	match := regexp.MustCompile(`^(\d{4})-(\d{1,2})-(\d{1,2})(.*)$`).FindStringSubmatch(s)
	if match == nil {
		return 0, 0, 0, "", false
	}
	y, _ = strconv.Atoi(match[1])
	m, _ = strconv.Atoi(match[2])
	d, _ = strconv.Atoi(match[3])
	t := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC)
	return y, m, d, match[4], y > 0 && t.Day() == d && int(t.Month()) == m
}

// splitTime reads [H]H:[M]M:[S]S[.F] at the start of s.
func splitTime(s string) (clock, rest string, ok bool) {
	match := regexp.MustCompile(`^(\d{1,2}):(\d{1,2}):(\d{1,2})(\.\d{0,6})?(.*)$`).FindStringSubmatch(s)
	if match == nil {
		return "", "", false
	}
	h, _ := strconv.Atoi(match[1])
	m, _ := strconv.Atoi(match[2])
	sec, _ := strconv.Atoi(match[3])
	if h > 23 || m > 59 || sec > 59 {
		return "", "", false
	}
	fraction := (strings.TrimPrefix(match[4], ".") + "000000")[:6]
	return fmt.Sprintf("%02d:%02d:%02d.%s", h, m, sec, fraction), match[5], true
}

// splitDatetime reads a date, and a time where there is one.
func splitDatetime(s string) (text, rest string, ok bool) {
	y, m, d, rest, ok := splitDate(strings.TrimSpace(s))
	if !ok {
		return "", "", false
	}
	date := fmt.Sprintf("%04d-%02d-%02d", y, m, d)
	if rest == "" {
		return date + " 00:00:00.000000", "", true
	}
	if rest[0] == ' ' || rest[0] == 'T' || rest[0] == 't' {
		if clock, tail, ok := splitTime(rest[1:]); ok {
			return date + " " + clock, tail, true
		}
	}
	return date + " 00:00:00.000000", rest, true
}

// timestampText reads a timestamp with an optional zone: Z, an offset or a name;
// none means UTC.
func timestampText(s string) (string, bool) {
	text, zone, ok := splitDatetime(s)
	if !ok {
		return "", false
	}
	zone = strings.TrimSpace(zone)
	if zone == "" || strings.EqualFold(zone, "Z") || strings.EqualFold(zone, "UTC") {
		return "TIMESTAMPTZ '" + text + "+00'", true
	}
	if offset, ok := offsetText(zone); ok {
		return "TIMESTAMPTZ '" + text + offset + "'", true
	}
	if !zonePattern().MatchString(zone) {
		return "", false
	}
	return "(TIMESTAMP '" + text + "' AT TIME ZONE " + quoteText(zone) + ")", true
}

func offsetText(zone string) (string, bool) {
	m := regexp.MustCompile(`^(?:UTC)?([+-])(\d{1,2})(?::?(\d{2}))?$`).FindStringSubmatch(zone)
	if m == nil {
		return "", false
	}
	minutes := m[3]
	if minutes == "" {
		minutes = "00"
	}
	h, _ := strconv.Atoi(m[2])
	return fmt.Sprintf("%s%02d:%s", m[1], h, minutes), h <= 14
}

// zonePattern is a name of the tz database.
func zonePattern() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z]+(?:[_+-][A-Za-z0-9]+)*(?:/[A-Za-z0-9_+-]+)*$`)
}

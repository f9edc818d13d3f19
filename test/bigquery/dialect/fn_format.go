package dialect

import (
	"fmt"
	"strings"
)

// formatCall is FORMAT_* and PARSE_* of dates and times, and FORMAT.
func (e *printer) formatCall(s *scope, c *call) (value, bool) {
	switch c.name {
	case "FORMAT_TIMESTAMP", "FORMAT_DATETIME", "FORMAT_DATE", "FORMAT_TIME":
		arity(c, 2, 3)
		return e.formatTime(s, c), true
	case "PARSE_TIMESTAMP", "PARSE_DATETIME", "PARSE_DATE":
		arity(c, 2, 2)
		return e.parseTime(s, c), true
	case "FORMAT":
		arity(c, 1, 100)
		return e.format(s, c), true
	}
	return value{}, false
}

func (e *printer) formatTime(s *scope, c *call) value {
	format := e.literalText(c, 0, "format")
	k, _ := scalarKind(strings.TrimPrefix(c.name, "FORMAT_"))
	v := e.coerce(c.position, e.known(s, c, 1), typ{kind: k})
	sql := v.sql
	switch {
	case k == kindTimestamp:
		zone := e.zone(s, c, 2)
		if zone != "'UTC'" && strings.ContainsAny(format, "zZ") {
			refuse(c.position, "time zone element in %s with a time zone", c.name)
		}
		sql = civil(sql, zone)
	case len(c.args) == 3:
		arity(c, 2, 2)
	case k == kindTime:
		sql = "(DATE '1970-01-01' + " + sql + ")"
	}
	var parts []string
	elements(c, format, func(text, element string) {
		if element == "" {
			parts = append(parts, quoteText(text))
			return
		}
		out, ok := timeElement(sql, element, k)
		if !ok {
			refuse(c.position, "format element %s in %s", element, c.name)
		}
		parts = append(parts, out)
	})
	if len(parts) == 0 {
		parts = []string{"''"}
	}
	return typed(kindString, "(CASE WHEN %s IS NULL THEN NULL ELSE %s END)", v.sql, strings.Join(parts, " || "))
}

// elements splits a format into text and % elements.
func elements(c *call, format string, each func(text, element string)) {
	for format != "" {
		i := strings.IndexByte(format, '%')
		if i != 0 {
			if i < 0 {
				i = len(format)
			}
			each(format[:i], "")
			format = format[i:]
			continue
		}
		n := 2
		for n <= len(format) && n > 1 && strings.IndexByte("E0123456789*", format[n-1]) >= 0 {
			n++
		}
		if n > len(format) {
			refuse(c.position, "format %q of %s", format, c.name)
		}
		each("", format[:n])
		format = format[n:]
	}
}

// timeElement prints one element of a format.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/format-elements
func timeElement(sql, element string, k kind) (string, bool) {
	date := k != kindTime
	clock := k != kindDate
	same := func(f string) (string, bool) { return fmt.Sprintf("strftime(%s, '%s')", sql, f), true }
	switch element {
	case "%%":
		return "'%'", true
	case "%n":
		return "chr(10)", true
	case "%t":
		return "chr(9)", true
	case "%Y", "%m", "%d", "%y", "%b", "%B", "%a", "%A", "%j", "%U", "%W", "%V", "%G", "%u", "%w":
		if date {
			return same(element)
		}
	case "%h":
		if date {
			return same("%b")
		}
	case "%F", "%E4Y-%m-%d":
		if date {
			return same("%Y-%m-%d")
		}
	case "%E4Y":
		if date {
			return same("%Y")
		}
	case "%D", "%x":
		if date {
			return same("%m/%d/%y")
		}
	case "%e":
		if date {
			return fmt.Sprintf("lpad(strftime(%s, '%%-d'), 2, ' ')", sql), true
		}
	case "%Q":
		if date {
			return fmt.Sprintf("CAST(quarter(%s) AS VARCHAR)", sql), true
		}
	case "%H", "%I", "%M", "%S", "%p":
		if clock {
			return same(element)
		}
	case "%P":
		if clock {
			return fmt.Sprintf("lower(strftime(%s, '%%p'))", sql), true
		}
	case "%k", "%l":
		if clock {
			f := map[string]string{"%k": "%-H", "%l": "%-I"}[element]
			return fmt.Sprintf("lpad(strftime(%s, '%s'), 2, ' ')", sql, f), true
		}
	case "%T", "%X":
		if clock {
			return same("%H:%M:%S")
		}
	case "%R":
		if clock {
			return same("%H:%M")
		}
	case "%E3S":
		if clock {
			return same("%S.%g")
		}
	case "%E6S":
		if clock {
			return same("%S.%f")
		}
	case "%E*S":
		if clock {
			return fmt.Sprintf("rtrim(rtrim(strftime(%s, '%%S.%%f'), '0'), '.')", sql), true
		}
	case "%s":
		if k == kindTimestamp {
			return fmt.Sprintf("strftime(%s, '%%s')", sql), false
		}
	case "%Z":
		return "'UTC'", k == kindTimestamp
	case "%z":
		return "'+0000'", k == kindTimestamp
	case "%Ez":
		return "'+00:00'", k == kindTimestamp
	}
	return "", false
}

// parseTime takes formats that name the whole date, once, with plain elements.
func (e *printer) parseTime(s *scope, c *call) value {
	k, _ := scalarKind(strings.TrimPrefix(c.name, "PARSE_"))
	format := e.literalText(c, 0, "format")
	var out strings.Builder
	seen := map[string]bool{}
	elements(c, format, func(text, element string) {
		if element == "" {
			out.WriteString(text)
			return
		}
		f, ok := map[string]string{
			"%Y": "%Y", "%m": "%m", "%d": "%d", "%F": "%Y-%m-%d", "%H": "%H", "%M": "%M", "%S": "%S", "%T": "%H:%M:%S", "%%": "%%",
		}[element]
		if !ok || k == kindDate && strings.Contains(f, "H") || seen[element] {
			refuse(c.position, "format element %s in %s", element, c.name)
		}
		seen[element] = true
		out.WriteString(f)
	})
	f := out.String()
	if !strings.Contains(f, "%Y") || !strings.Contains(f, "%m") || !strings.Contains(f, "%d") {
		refuse(c.position, "format %q in %s", format, c.name)
	}
	v := e.arg(s, c, 1, kindString)
	sql := fmt.Sprintf("strptime(%s, %s)", v, quoteText(f))
	if k == kindTimestamp {
		return typed(k, "(%s AT TIME ZONE 'UTC')", sql)
	}
	return typed(k, "CAST(%s AS %s)", sql, typ{kind: k}.duck())
}

// format is FORMAT with %d, %s, %%, %t of plain values and %.Nf.
func (e *printer) format(s *scope, c *call) value {
	text := e.literalText(c, 0, "format")
	var parts []string
	next := 1
	for text != "" {
		i := strings.IndexByte(text, '%')
		if i != 0 {
			if i < 0 {
				i = len(text)
			}
			parts = append(parts, quoteText(text[:i]))
			text = text[i:]
			continue
		}
		n := 1
		for n < len(text) && strings.IndexByte("0123456789.", text[n]) >= 0 {
			n++
		}
		if n >= len(text) {
			refuse(c.position, "format %q of FORMAT", text)
		}
		spec := text[:n+1]
		text = text[n+1:]
		if spec == "%%" {
			parts = append(parts, "'%'")
			continue
		}
		if next >= len(c.args) {
			reject(c.position, "Too few arguments to FORMAT for pattern")
		}
		parts = append(parts, e.formatItem(c, spec, e.known(s, c, next)))
		next++
	}
	if next != len(c.args) {
		reject(c.position, "Too many arguments to FORMAT for pattern")
	}
	return typed(kindString, "(%s)", strings.Join(append(parts, "''"), " || "))
}

func (e *printer) formatItem(c *call, spec string, v value) string {
	verb := spec[len(spec)-1]
	switch {
	case spec == "%s" && v.typ.kind == kindString, spec == "%t" && v.typ.kind == kindString:
		return v.sql
	case spec == "%t" && (v.typ.kind == kindInt64 || v.typ.kind == kindBool || v.typ.kind == kindDate):
		return e.convert(c.position, v, typ{kind: kindString}, false).sql
	case verb == 'd' && v.typ.kind == kindInt64 && !strings.Contains(spec, "."),
		verb == 'f' && v.typ.kind == kindFloat64,
		verb == 'x' && v.typ.kind == kindInt64 && spec == "%x":
		return fmt.Sprintf("printf(%s, %s)", quoteText(spec), v.sql)
	}
	refuse(c.position, "FORMAT %s of %s", spec, v.typ)
	return ""
}

package bigquery

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Bounds of the time types: years 1 to 9999.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#date_type
const (
	minDay          = -719162
	maxDay          = 2932896
	minMicros       = minDay * microsPerDay
	maxMicros       = (maxDay+1)*microsPerDay - 1
	microsPerDay    = 24 * 60 * 60 * 1_000_000
	microsPerSecond = 1_000_000
)

var errCivil = errors.New("not a date or time in the form and range of the type")

// parseDate reads YYYY-[M]M-[D]D as days since 1970-01-01.
func parseDate(text string) (int64, error) {
	year, rest, ok1 := strings.Cut(text, "-")
	month, day, ok2 := strings.Cut(rest, "-")
	y, okY := shortNumber(year, 4, 4)
	m, okM := shortNumber(month, 1, 2)
	d, okD := shortNumber(day, 1, 2)
	if !ok1 || !ok2 || !okY || !okM || !okD {
		return 0, errCivil
	}
	t := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC)
	if y < 1 || t.Day() != d || int(t.Month()) != m {
		return 0, errCivil
	}
	return t.Unix() / (24 * 60 * 60), nil
}

// parseTime reads [H]H:[M]M:[S]S[.DDDDDD] as microseconds since midnight.
func parseTime(text string) (int64, error) {
	clock, fraction, hasFraction := strings.Cut(text, ".")
	parts := strings.Split(clock, ":")
	if len(parts) != 3 {
		return 0, errCivil
	}
	h, okH := shortNumber(parts[0], 1, 2)
	m, okM := shortNumber(parts[1], 1, 2)
	s, okS := shortNumber(parts[2], 1, 2)
	if !okH || !okM || !okS || h > 23 || m > 59 || s > 59 {
		return 0, errCivil
	}
	micros := 0
	if hasFraction {
		var ok bool
		if micros, ok = shortNumber(fraction, 1, 6); !ok {
			return 0, errCivil
		}
		for range 6 - len(fraction) {
			micros *= 10
		}
	}
	return int64((h*60+m)*60+s)*microsPerSecond + int64(micros), nil
}

// parseDatetime reads a date, or a date and a time parted by a blank or T, as
// microseconds since 1970-01-01 00:00:00.
func parseDatetime(text string) (int64, error) {
	date, clock, hasTime := cutAny(text, " Tt")
	day, err := parseDate(date)
	if err != nil || !hasTime {
		return day * microsPerDay, err
	}
	micros, err := parseTime(clock)
	return day*microsPerDay + micros, err
}

func cutAny(s, seps string) (before, after string, found bool) {
	if i := strings.IndexAny(s, seps); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func shortNumber(s string, minDigits, maxDigits int) (int, bool) {
	if len(s) < minDigits || len(s) > maxDigits || !onlyDigits(s) {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// unpackTime reads CivilTimeEncoder's packed TIME:
// hour 5 bits, minute 6, second 6, microsecond 20.
func unpackTime(packed int64) (int64, error) {
	if packed < 0 || packed >= 1<<37 {
		return 0, errCivil
	}
	micros, s := packed&(1<<20-1), packed>>20&63
	m, h := packed>>26&63, packed>>32&31
	if micros >= microsPerSecond || s > 59 || m > 59 || h > 23 {
		return 0, errCivil
	}
	return ((h*60+m)*60+s)*microsPerSecond + micros, nil
}

// unpackDatetime reads CivilTimeEncoder's packed DATETIME: the packed TIME
// below day 5 bits, month 4, year 14.
func unpackDatetime(packed int64) (int64, error) {
	if packed < 0 || packed >= 1<<60 {
		return 0, errCivil
	}
	clock, err := unpackTime(packed & (1<<37 - 1))
	if err != nil {
		return 0, err
	}
	d, m, y := int(packed>>37&31), int(packed>>42&15), int(packed>>46)
	t := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC)
	if y < 1 || y > 9999 || t.Day() != d || int(t.Month()) != m {
		return 0, errCivil
	}
	return t.Unix()*microsPerSecond + clock, nil
}

// parseTimestamp reads the canonical forms of a TIMESTAMP literal or parameter
// as microseconds since the epoch; without a zone it is UTC.
func parseTimestamp(text string) (int64, error) {
	text = strings.TrimSpace(text)
	if s, ok := strings.CutSuffix(text, " UTC"); ok {
		text = s
	}
	civil, offset, err := cutZone(text)
	if err != nil {
		return 0, err
	}
	micros, err := parseDatetime(civil)
	if err != nil {
		return 0, err
	}
	micros -= offset
	if micros < minMicros || micros > maxMicros {
		return 0, errCivil
	}
	return micros, nil
}

// cutZone cuts Z or a +HH[:MM] offset off and answers it in microseconds.
func cutZone(text string) (string, int64, error) {
	if s, ok := strings.CutSuffix(strings.ToUpper(text), "Z"); ok {
		return s, 0, nil
	}
	start := len("2006-01-02")
	if len(text) <= start {
		return text, 0, nil
	}
	i := strings.LastIndexAny(text[start:], "+-")
	if i < 0 {
		return text, 0, nil
	}
	zone := text[start+i:]
	hours, minutes, _ := strings.Cut(zone[1:], ":")
	h, okH := shortNumber(hours, 1, 2)
	m, okM := 0, true
	if minutes != "" {
		m, okM = shortNumber(minutes, 2, 2)
	}
	if !okH || !okM || h > 14 || m > 59 {
		return "", 0, errCivil
	}
	offset := int64(h*60+m) * 60 * microsPerSecond
	if zone[0] == '-' {
		offset = -offset
	}
	return strings.TrimRight(text[:start+i], " "), offset, nil
}

// dateText, timeText and datetimeText are the forms that REST answers.
func dateText(day int64) string {
	return time.Unix(day*24*60*60, 0).UTC().Format("2006-01-02")
}

func timeText(micros int64) string {
	s := micros / microsPerSecond
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
	return text + fractionText(micros%microsPerSecond)
}

func datetimeText(micros int64) string {
	t := time.UnixMicro(micros).UTC()
	return t.Format("2006-01-02T15:04:05") + fractionText(int64(t.Nanosecond()/1000))
}

func fractionText(micros int64) string {
	if micros == 0 {
		return ""
	}
	return fmt.Sprintf(".%06d", micros)
}

func microsTime(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

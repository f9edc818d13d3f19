package rowwire

import (
	"encoding/binary"
	"math"
)

const (
	microsPerSecond = 1_000_000
	microsPerHour   = 3600 * microsPerSecond
	microsPerDay    = 24 * microsPerHour

	epochDays   = 10957                    // days from the Unix epoch to PostgreSQL's, 2000-01-01
	epochMicros = epochDays * microsPerDay // the same in microseconds

	minDays   = -719162 // 0001-01-01, BigQuery's first day
	maxDays   = 2932896 // 9999-12-31, its last
	minMicros = minDays * microsPerDay
	maxMicros = (maxDays+1)*microsPerDay - 1
)

// digitPairs holds "00" to "99".
const digitPairs = "00010203040506070809" +
	"10111213141516171819" +
	"20212223242526272829" +
	"30313233343536373839" +
	"40414243444546474849" +
	"50515253545556575859" +
	"60616263646566676869" +
	"70717273747576777879" +
	"80818283848586878889" +
	"90919293949596979899"

// readDate returns days since the Unix epoch.
func readDate(v []byte) (int64, Reason) {
	if len(v) != 4 {
		return 0, malformed
	}
	d := int32(binary.BigEndian.Uint32(v))
	if d == math.MaxInt32 || d == math.MinInt32 {
		return 0, TemporalInfinity
	}
	days := int64(d) + epochDays
	if days < minDays || days > maxDays {
		return 0, YearRange
	}
	return days, 0
}

// readTimestamp returns microseconds since the Unix epoch.
func readTimestamp(v []byte) (int64, Reason) {
	if len(v) != 8 {
		return 0, malformed
	}
	us := int64(binary.BigEndian.Uint64(v))
	if us < minMicros-epochMicros || us > maxMicros-epochMicros {
		if us == math.MaxInt64 || us == math.MinInt64 {
			return 0, TemporalInfinity
		}
		return 0, YearRange
	}
	return us + epochMicros, 0
}

// readTime returns microseconds since midnight.
func readTime(v []byte) (int64, Reason) {
	if len(v) != 8 {
		return 0, malformed
	}
	us := int64(binary.BigEndian.Uint64(v))
	if us == microsPerDay {
		return 0, EndOfDay
	}
	if us < 0 || us > microsPerDay {
		return 0, malformed
	}
	return us, 0
}

// appendDateTime appends "2006-01-02 15:04:05.999999" of the microseconds since the Unix epoch.
func appendDateTime(b []byte, us int64) []byte {
	us -= minMicros // not negative within BigQuery's years, so that division rounds down
	b = append(appendDate(b, us/microsPerDay+minDays), ' ')
	return appendTime(b, us%microsPerDay)
}

// appendDate appends "2006-01-02" of the days since the Unix epoch.
func appendDate(b []byte, days int64) []byte {
	y, m, d := civil(days)
	century, year := y/100*2, y%100*2
	return append(b,
		digitPairs[century], digitPairs[century+1], digitPairs[year], digitPairs[year+1], '-',
		digitPairs[m*2], digitPairs[m*2+1], '-',
		digitPairs[d*2], digitPairs[d*2+1])
}

// appendTime appends "15:04:05.999999" of the microseconds since midnight.
func appendTime(b []byte, us int64) []byte {
	seconds := uint64(us) / microsPerSecond
	fraction := uint64(us) % microsPerSecond
	h, m, s := seconds/3600*2, seconds/60%60*2, seconds%60*2
	b = append(b,
		digitPairs[h], digitPairs[h+1], ':',
		digitPairs[m], digitPairs[m+1], ':',
		digitPairs[s], digitPairs[s+1])
	return appendFraction(b, fraction)
}

// appendFraction appends ".999999" of microseconds within a second, nothing of none.
func appendFraction(b []byte, fraction uint64) []byte {
	if fraction == 0 {
		return b
	}
	x, y, z := fraction/10000*2, fraction/100%100*2, fraction%100*2
	b = append(b, '.',
		digitPairs[x], digitPairs[x+1], digitPairs[y], digitPairs[y+1], digitPairs[z], digitPairs[z+1])
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// civil returns the proleptic Gregorian date of a day counted from the Unix epoch, from 0001-01-01 on. The calendar is
// counted in eras of 400 years (146097 days) from 0000-03-01, so that the leap day ends a year.
func civil(days int64) (year, month, day int64) {
	days += 719468 // from 0000-03-01 to 1970-01-01
	era := days / 146097
	dayOfEra := days % 146097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	m := (5*dayOfYear + 2) / 153 // months of 31, 30, 31, 30, 31 days repeat
	day = dayOfYear - (153*m+2)/5 + 1
	year = yearOfEra + era*400
	if m < 10 {
		return year, m + 3, day
	}
	return year + 1, m - 9, day
}

// dayNumber is the inverse of civil.
func dayNumber(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era, yearOfEra := year/400, year%400
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return era*146097 + yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear - 719468
}

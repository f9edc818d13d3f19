package rowwire

import (
	"encoding/binary"
	"math"
	"strconv"
)

const (
	intervalLen     = 16 // microseconds, days, months
	monthsPerYear   = 12
	microsPerMinute = 60 * microsPerSecond

	// What INTERVAL holds, of either sign. (BigQuery: data types, interval.)
	maxIntervalMonths = 10_000 * monthsPerYear
	maxIntervalDays   = 3_660_000
	maxIntervalMicros = 87_840_000 * microsPerHour
)

// appendInterval appends a binary interval, whose three parts both sides keep apart: as BigQuery writes an INTERVAL,
// "Y-M D H:M:S.F", or as PostgreSQL writes it under intervalstyle iso_8601. All parts at either end of their range are
// infinity since PostgreSQL 17.
func appendInterval(b, v []byte, typed bool) ([]byte, Reason) {
	if len(v) != intervalLen {
		return b, malformed
	}
	micros := int64(binary.BigEndian.Uint64(v))
	days, months := int64(int32(binary.BigEndian.Uint32(v[8:]))), int64(int32(binary.BigEndian.Uint32(v[12:])))
	switch {
	case micros == math.MaxInt64 && days == math.MaxInt32 && months == math.MaxInt32,
		micros == math.MinInt64 && days == math.MinInt32 && months == math.MinInt32:
		return b, TemporalInfinity
	case !typed:
		return appendISOInterval(b, months, days, micros), 0
	case abs(months) > maxIntervalMonths || abs(days) > maxIntervalDays || abs(micros) > maxIntervalMicros:
		return b, IntervalRange
	}
	b = appendSigned(b, months, monthsPerYear, '-')
	b = strconv.AppendInt(append(b, ' '), days, 10)
	b = append(b, ' ')
	if micros < 0 {
		b = append(b, '-')
	}
	micros = int64(abs(micros))
	b = strconv.AppendInt(b, micros/microsPerHour, 10)
	b = strconv.AppendInt(append(b, ':'), micros%microsPerHour/microsPerMinute, 10)
	return appendSeconds(append(b, ':'), micros%microsPerMinute), 0
}

// appendSigned appends n as its quotient and remainder by a number, under one sign.
func appendSigned(b []byte, n, by int64, between byte) []byte {
	if n < 0 {
		b, n = append(b, '-'), -n
	}
	b = strconv.AppendInt(b, n/by, 10)
	return strconv.AppendInt(append(b, between), n%by, 10)
}

// appendISOInterval follows EncodeInterval of PostgreSQL's datetime.c: each part that is not zero, with its own sign.
func appendISOInterval(b []byte, months, days, micros int64) []byte {
	if months|days|micros == 0 {
		return append(b, "PT0S"...)
	}
	b = append(b, 'P')
	b = appendPart(b, months/monthsPerYear, 'Y')
	b = appendPart(b, months%monthsPerYear, 'M')
	b = appendPart(b, days, 'D')
	if micros == 0 {
		return b
	}
	b = append(b, 'T')
	b = appendPart(b, micros/microsPerHour, 'H')
	b = appendPart(b, micros%microsPerHour/microsPerMinute, 'M')
	seconds := micros % microsPerMinute
	if seconds == 0 {
		return b
	}
	if seconds < 0 {
		b, seconds = append(b, '-'), -seconds
	}
	return append(appendSeconds(b, seconds), 'S')
}

func appendPart(b []byte, n int64, unit byte) []byte {
	if n == 0 {
		return b
	}
	return append(strconv.AppendInt(b, n, 10), unit)
}

// appendSeconds appends microseconds as seconds, without zeros that say nothing.
func appendSeconds(b []byte, micros int64) []byte {
	b = strconv.AppendInt(b, micros/microsPerSecond, 10)
	return appendFraction(b, uint64(micros%microsPerSecond))
}

// abs is exact for every number.
func abs(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

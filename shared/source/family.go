package source

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"
)

// family is how a cursor column counts.
type family uint8

const (
	counter family = iota // integers, as they are
	instant               // timestamptz, in microseconds since the Unix epoch
	daily                 // date, likewise, at midnight
	civil                 // timestamp without time zone, likewise
	unordered
)

func cursorFamily(base string) family {
	switch base {
	case "int2", "int4", "int8":
		return counter
	case "timestamptz":
		return instant
	case "timestamp":
		return civil
	case "date":
		return daily
	}
	return unordered
}

// fence is that of a read which ended at a position.
func (w *Watermark) fence(p *Position, previous *Fence, open []Open, now moment, at time.Time) *Fence {
	f := next(previous, open, now, w.floor(at, p))
	if w.family == counter && now.to < f.Furthest {
		f.Floor = nil // the cursor's number is of a later state than this one
	}
	return f
}

// floor is the lowest value that transactions begun after at can write. Clocks
// of the application may lag by the look-back. Counters only grow.
func (w *Watermark) floor(at time.Time, p *Position) *int64 {
	if w.family == counter {
		if p.Cursor == nil || p.At < math.MinInt64+w.Lookback.Count {
			return nil
		}
		low := p.At - w.Lookback.Count
		return &low
	}
	clock, seen := at, time.UnixMicro(max(p.At, yearOne))
	if w.family != instant {
		// Without a zone nobody knows which clock is meant: it may be 12 hours
		// behind UTC, and be put back for winter.
		clock, seen = clock.Add(-12*time.Hour), seen.Add(-2*time.Hour)
	}
	if p.Cursor == nil || clock.Before(seen) {
		seen = clock
	}
	return w.back(seen)
}

// startFloor is the lowest value a transaction that began then can write; nil
// if that cannot be told.
func (w *Watermark) startFloor(began *time.Time) *int64 {
	if began == nil || w.family == counter {
		return nil
	}
	if w.family != instant {
		return w.back(began.Add(-14 * time.Hour))
	}
	return w.back(*began)
}

func (w *Watermark) back(from time.Time) *int64 {
	low := from.Add(-w.Lookback.Time).UnixMicro()
	if low < yearOne {
		return nil
	}
	return &low
}

const (
	postgresEpoch = 946_684_800_000_000 // 2000-01-01 in microseconds since 1970
	microsPerDay  = 86_400_000_000
	yearOne       = -62_135_596_800_000_000 // below it, text gets another form
)

// number is the value of COPY's big-endian bytes on the family's scale.
// Infinite dates stay at the ends of it.
func (f family) number(b []byte) int64 {
	var v int64
	switch len(b) {
	case 2:
		v = int64(int16(binary.BigEndian.Uint16(b)))
	case 4:
		v = int64(int32(binary.BigEndian.Uint32(b)))
	default:
		v = int64(binary.BigEndian.Uint64(b))
	}
	switch f {
	case daily:
		switch v {
		case math.MaxInt32:
			return math.MaxInt64
		case math.MinInt32:
			return math.MinInt64
		}
		return v*microsPerDay + postgresEpoch
	case instant, civil:
		if v == math.MaxInt64 || v == math.MinInt64 {
			return v
		}
		return v + postgresEpoch
	case counter, unordered:
	}
	return v
}

// text is the value as Postgres reads it, rounded down.
func (f family) text(n int64) string {
	switch f {
	case instant:
		return time.UnixMicro(n).UTC().Format("2006-01-02 15:04:05.999999+00")
	case civil:
		return time.UnixMicro(n).UTC().Format("2006-01-02 15:04:05.999999")
	case daily:
		return time.UnixMicro(n).UTC().Format(time.DateOnly)
	case counter, unordered:
	}
	return strconv.FormatInt(n, 10)
}

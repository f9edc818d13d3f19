package rowwire

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// nullPartition is BigQuery's id of the partition of rows whose partitioning value is NULL.
const nullPartition = "__NULL__"

// partitions notes the partitions of accepted rows, in microseconds since the Unix epoch.
type partitions struct {
	column           int
	kind             Kind
	granularity      Granularity
	earliest, latest int64

	first, next int64 // the span of the partition noted last: rows of one partition tend to come together
	starts      map[int64]struct{}
	null        bool
}

func newPartitions(p *Partition, columns []Column) (*partitions, error) {
	if p.Column < 0 || p.Column >= len(columns) {
		return nil, fmt.Errorf("checking layout: partition column %d does not exist", p.Column)
	}
	c := columns[p.Column]
	if c.Repeated || c.Kind != Date && c.Kind != DateTime && c.Kind != Timestamp {
		return nil, fmt.Errorf("checking layout: column %q of kind %v cannot partition a table", c.Name, c.Kind)
	}
	if p.Granularity < Hour || p.Granularity > Year || p.Granularity == Hour && c.Kind == Date {
		return nil, fmt.Errorf("checking layout: granularity %d does not suit column %q of kind %v", p.Granularity, c.Name, c.Kind)
	}
	out := &partitions{
		column: p.Column, kind: c.Kind, granularity: p.Granularity,
		earliest: math.MinInt64, latest: math.MaxInt64, starts: make(map[int64]struct{}),
	}
	if !p.Earliest.IsZero() {
		out.earliest = p.Earliest.UnixMicro()
		if c.Kind == Date { // a day that has begun before the window may still reach into it
			out.earliest -= microsPerDay - 1
		}
	}
	if !p.Latest.IsZero() {
		out.latest = p.Latest.UnixMicro()
	}
	return out, nil
}

// note takes the COPY bytes of the partition column, nil for NULL, that appendValue has accepted.
func (p *partitions) note(v []byte) Reason {
	if v == nil {
		p.null = true
		return 0
	}
	var us int64
	if p.kind == Date {
		days, _ := readDate(v)
		us = days * microsPerDay
	} else {
		us, _ = readTimestamp(v)
	}
	if us < p.earliest || us > p.latest {
		return OutsidePartitionWindow
	}
	if us < p.first || us >= p.next {
		p.first, p.next = p.span(us)
		p.starts[p.first] = struct{}{}
	}
	return 0
}

// span returns the partition that holds us: its start and the start of the next one.
func (p *partitions) span(us int64) (start, next int64) {
	days := (us-minMicros)/microsPerDay + minDays
	y, m, _ := civil(days)
	switch p.granularity {
	case Hour:
		start = us - (us-minMicros)%microsPerHour
		return start, start + microsPerHour
	case Day:
		return days * microsPerDay, (days + 1) * microsPerDay
	case Month:
		start = dayNumber(y, m, 1)
		if m == 12 {
			y, m = y+1, 0
		}
		return start * microsPerDay, dayNumber(y, m+1, 1) * microsPerDay
	default:
		return dayNumber(y, 1, 1) * microsPerDay, dayNumber(y+1, 1, 1) * microsPerDay
	}
}

func (p *partitions) ids() []string {
	ids := make([]string, 0, len(p.starts)+1)
	for _, start := range slices.Sorted(maps.Keys(p.starts)) {
		ids = append(ids, p.id(start))
	}
	if p.null {
		ids = append(ids, nullPartition)
	}
	return ids
}

func (p *partitions) id(start int64) string {
	y, m, d := civil((start-minMicros)/microsPerDay + minDays)
	switch p.granularity {
	case Hour:
		return fmt.Sprintf("%04d%02d%02d%02d", y, m, d, (start-minMicros)%microsPerDay/microsPerHour)
	case Day:
		return fmt.Sprintf("%04d%02d%02d", y, m, d)
	case Month:
		return fmt.Sprintf("%04d%02d", y, m)
	default:
		return fmt.Sprintf("%04d", y)
	}
}

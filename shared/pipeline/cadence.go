package pipeline

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // the image of a function may have no time zones of its own

	"github.com/robfig/cron/v3"
)

// Cadence is an interval ("1m") or a cron expression of five fields, in UTC or,
// after CRON_TZ=, in a time zone; empty is "only when asked". Two spellings of one
// interval are the same Cadence, since ParseCadence keeps the canonical one.
type Cadence string

// zonePrefix begins a cron expression with a time zone, as cron.ParseStandard has it.
const zonePrefix = "CRON_TZ="

// ParseCadence reads an interval of whole seconds or a five-field cron expression
// into its canonical form, so that 60s and 1m are one cadence. Empty stays empty.
func ParseCadence(text string) (Cadence, error) {
	if text == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		switch {
		case d < time.Second:
			return "", fmt.Errorf("the interval %q is under a second", text)
		case d%time.Second != 0:
			return "", fmt.Errorf("the interval %q is no whole number of seconds", text)
		}
		return Cadence(canonical(d)), nil
	}
	c := Cadence(strings.Join(strings.Fields(text), " "))
	expression, zone, err := c.cron()
	if err != nil {
		return "", err
	}
	if expression.Next(time.Now().In(zone)).IsZero() {
		return "", fmt.Errorf("the cron expression %q names no day that exists", text)
	}
	return c, nil
}

// canonical is the shortest text of a duration: 1m, not 1m0s.
func canonical(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// cron reads a cron expression with single spaces, and the time zone it is meant in.
func (c Cadence) cron() (cron.Schedule, *time.Location, error) {
	zone, fields := time.UTC, string(c)
	if rest, ok := strings.CutPrefix(fields, zonePrefix); ok {
		var name string
		name, fields, _ = strings.Cut(rest, " ")
		location, err := time.LoadLocation(name)
		if err != nil || name == "" || name == "Local" { // which Go takes for UTC and for what the machine is set to
			return nil, nil, fmt.Errorf("there is no time zone %q, as %q has it", name, c)
		}
		zone = location
	}
	if name, ok := strings.CutPrefix(fields, "TZ="); ok {
		name, _, _ = strings.Cut(name, " ")
		return nil, nil, fmt.Errorf("%q is no cron expression: write its time zone as %s%s", c, zonePrefix, name)
	}
	neither := fmt.Errorf("%q is neither an interval nor a cron expression", c)
	if strings.Count(fields, " ") != 4 { // nor what else the parser takes, such as @daily
		return nil, nil, neither
	}
	expression, err := cron.ParseStandard(fields)
	if err != nil { // whose words speak of bounds and bits
		return nil, nil, neither
	}
	return expression, zone, nil
}

// Interval returns the cadence as an interval, and false for a cron expression.
func (c Cadence) Interval() (time.Duration, bool) {
	d, err := time.ParseDuration(string(c))
	return d, err == nil
}

// Due reports whether a tick of the given cadence concerns work of cadence c.
// A message without a cadence is an operator's own run: it concerns everything.
func (c Cadence) Due(tick Cadence) bool { return tick == "" || c == tick }

// Next returns, in UTC, when the tick after t comes: an interval later, or when the
// cron expression next fits the clocks of its zone. An hour that they skip has no
// ticks, one that they repeat has its ticks twice. Zero is never.
func (c Cadence) Next(t time.Time) time.Time {
	if interval, ok := c.Interval(); ok {
		return t.Add(interval).UTC()
	}
	expression, zone, err := c.cron()
	if err != nil {
		return time.Time{} // only when asked
	}
	return expression.Next(t.In(zone)).UTC()
}

// When silence is an alarm (I9): once SilentTicks ticks have come since the last
// success, and no sooner than MinSilence after it, since a tick may wait that long
// in Pub/Sub before it is served. Terraform's alerts on absence follow the same rule
// for intervals of up to 16 hours.
const (
	SilentTicks = 3
	MinSilence  = 10 * time.Minute
)

// Overdue reports whether, at now, it is an alarm that work of cadence c last
// succeeded at since. Work that is done only when asked never is overdue.
func (c Cadence) Overdue(since, now time.Time) bool {
	if now.Sub(since) <= MinSilence {
		return false
	}
	tick := since
	for range SilentTicks {
		if tick = c.Next(tick); tick.IsZero() {
			return false
		}
	}
	return tick.Before(now)
}

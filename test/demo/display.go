package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/tidemark-data/tidemark/test/sample"
)

// display shows one state after the other: drawn over the last one on a terminal,
// a line each elsewhere.
type display struct {
	out   io.Writer
	live  bool
	width func() int // of the terminal, where live
	began time.Time
	drawn int // lines, of the last state
}

func (d *display) show(s state, activity *sample.Counters) {
	if !d.live {
		say(d.out, "%s\n", d.line(s))
		return
	}
	text := cut(d.table(s, activity), d.width())
	if d.drawn > 0 {
		say(d.out, "\x1b[%dA", d.drawn) // up to where the last one began
	}
	d.drawn = strings.Count(text, "\n")
	say(d.out, "%s", strings.ReplaceAll(text, "\n", "\x1b[K\n")) // clearing what is left of longer lines
}

func (d *display) line(s state) string {
	var inPostgres, inBigQuery int64
	var lag time.Duration
	for _, t := range s.tables {
		inPostgres += t.postgres.rows
		inBigQuery += t.bigquery.rows
		lag = max(lag, t.lag())
	}
	return fmt.Sprintf("%4.0f s: %s rows in Postgres, %s in BigQuery, at most %.1f s behind; %s of %s scores are back in Postgres",
		time.Since(d.began).Seconds(), thousands(inPostgres), thousands(inBigQuery), lag.Seconds(), thousands(s.scoresBack), thousands(s.scored))
}

func (d *display) table(s state, activity *sample.Counters) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s %12s %12s %12s\n", "table", "Postgres", "BigQuery", "behind")
	for _, t := range s.tables {
		fmt.Fprintf(&b, "%-16s %12s %12s %10.1f s\n", t.name, thousands(t.postgres.rows), thousands(t.bigquery.rows), t.lag().Seconds())
	}
	fmt.Fprintf(&b, "\nengagement score: %s contacts scored in BigQuery, %s scores back in contacts", thousands(s.scored), thousands(s.scoresBack))
	if !s.scoredUntil.IsZero() {
		fmt.Fprintf(&b, ", with messages up to %.1f s ago", max(0, time.Since(s.scoredUntil).Seconds()))
	}
	fmt.Fprintf(&b, "\nthe application:  %s\n", strings.ReplaceAll(did(activity), "; ", "\n                  "))
	return b.String()
}

func did(activity *sample.Counters) string {
	return fmt.Sprintf("%s rows inserted, %s updated, %s deleted; %s transactions committed late; %s updated many rows at once; %s rolled back",
		thousands(activity.Inserted.Load()), thousands(activity.Updated.Load()), thousands(activity.Deleted.Load()), thousands(activity.Late.Load()),
		thousands(activity.Bulk.Load()), thousands(activity.RolledBack.Load()))
}

// cut shortens lines to the width of the terminal: one that wraps would take two
// lines, and the next state would be drawn too low.
func cut(text string, width int) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if runes := []rune(line); width > 0 && len(runes) > width {
			lines[i] = string(runes[:width])
		}
	}
	return strings.Join(lines, "\n")
}

// thousands writes a number with a comma between each three digits.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

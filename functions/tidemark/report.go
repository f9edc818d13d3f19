package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/reverse"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// report is what is printed of a run.
type report struct {
	*reverse.Outcome

	failure error
	unit    tick.Unit
	sync    *pipeline.Sync
	order   order
}

// String writes the report, each text of the outside on a line of its own kind.
func (r report) String() string {
	var b strings.Builder
	for _, part := range []func() []string{r.head, r.counts, r.brakes, r.samples, r.rejects, r.next} {
		for _, line := range part() {
			b.WriteString(printable(line) + "\n")
		}
	}
	return b.String()
}

// stopped reports whether brakes stopped the run.
func (r report) stopped() bool { return !r.DryRun && len(r.Brakes) > 0 }

func (r report) head() []string {
	how := "applied"
	switch {
	case r.DryRun:
		how = "a dry run: nothing was written"
	case r.stopped():
		how = "stopped by its brakes: nothing was written"
	case r.failure != nil:
		how = "failed"
	case r.More:
		how = "applied in part; it goes on"
	}
	name := r.unit.Pipeline.Name + " " + r.sync.Name
	if r.unit.Tenant.ID != "" {
		name += " of tenant " + r.unit.Tenant.ID
	}
	lines := []string{fmt.Sprintf("%s, run %d, %s", name, r.Run, how)}
	if r.Job != "" {
		lines = append(lines, "BigQuery job "+r.Job)
	}
	return lines
}

// counts are the numbers of rows by what became, or would become, of them. Of a run that
// failed they are no promise.
func (r report) counts() []string {
	if r.failure != nil && !r.stopped() {
		return nil
	}
	done := []string{"inserted", "updated", "deleted"}
	if r.DryRun || r.stopped() {
		done = []string{"to insert", "to update", "to delete"}
	}
	read := "rows read: those that may have changed"
	if r.Whole {
		read = "rows read: all of the source"
	}
	deleted := done[2]
	if r.Table > 0 {
		deleted += fmt.Sprintf(", of %d rows of the table", r.Table)
	}
	var lines []string
	for _, c := range []struct {
		n      int64
		what   string
		always bool
	}{
		{r.Rows, read, true},
		{r.Insert, done[0], r.sync.Mode == pipeline.ModeInsert || r.sync.Mode == pipeline.ModeUpsert || r.sync.Mode == pipeline.ModeMirror},
		{r.Update, done[1], r.sync.Mode != pipeline.ModeInsert},
		{r.Delete, deleted, r.sync.Mode == pipeline.ModeMirror},
		{r.Unchanged, "unchanged", true},
		{r.Present, "left, since their key is in the table", false},
		{r.Absent, "not found: no row of the table has their key", false},
		{r.Outside, "left, since target.where does not hold for their row", false},
		{r.Rejected, "refused", true},
		{r.Locked, "left, since other transactions hold their row", false},
	} {
		if c.always || c.n > 0 {
			lines = append(lines, fmt.Sprintf("%12d %s", c.n, c.what))
		}
	}
	if r.Fill != nil {
		lines = append(
			lines, fmt.Sprintf("%12d rows of the table stay to be filled: they have no key", r.Fill.NoKey),
			fmt.Sprintf("%12d rows of the table stay to be filled: the source does not have their key", r.Fill.NotFound))
	}
	if r.Withheld != "" {
		lines = append(lines, "no row is deleted for being absent from the source: "+r.Withheld)
	}
	if r.Paused > 0 {
		lines = append(lines, fmt.Sprintf("waited %.1f s for the other work of the database", r.Paused))
	}
	return lines
}

func (r report) brakes() []string {
	var lines []string
	for _, c := range r.Cascades {
		rows := strconv.FormatInt(c.Rows, 10)
		if c.Rows < 0 {
			rows = "an unknown number of"
		}
		lines = append(lines, fmt.Sprintf("deletes go on to %s rows of %s (constraint %s, on delete %s)", rows, c.Table, c.Constraint, c.Action))
	}
	verb := "would stop"
	if r.stopped() {
		verb = "has stopped"
	}
	for _, b := range r.Brakes {
		lines = append(lines, fmt.Sprintf("a brake %s it, %s: %s", verb, b.Name, b.Why))
	}
	return titled("brakes", lines)
}

// samples are rows before and after.
func (r report) samples() []string {
	var lines []string
	for _, s := range r.Samples {
		mark := fmt.Sprintf("%-7s", s.Action)
		for _, side := range []struct {
			sign string
			row  json.RawMessage
		}{{"-", s.Before}, {"+", s.After}} {
			if len(side.row) > 0 && string(side.row) != "null" {
				lines = append(lines, mark+side.sign+" "+string(side.row))
				mark = strings.Repeat(" ", len(mark))
			}
		}
	}
	return titled("samples, before (-) and after (+)", lines)
}

// rejects are the rows that were refused, by why: some of a dry run's, while those of
// others are kept where the command rejects finds them.
func (r report) rejects() []string {
	if r.Rejected == 0 {
		return nil
	}
	if len(r.Rejects) == 0 {
		return titled("refused", []string{shell("tidemark", "rejects", r.unit.Pipeline.Name, r.sync.Name) + " lists them"})
	}
	var order []string
	rows := map[string][]string{}
	for _, x := range r.Rejects {
		why := x.Reason
		if x.Column != "" {
			why = x.Column + ": " + why
		}
		if rows[why] == nil {
			order = append(order, why)
		}
		rows[why] = append(rows[why], string(x.Row))
	}
	var lines []string
	for _, why := range order {
		lines = append(lines, fmt.Sprintf("%d by %s", len(rows[why]), why))
		for _, row := range rows[why] {
			lines = append(lines, "  "+row)
		}
	}
	title := "refused"
	if shown := int64(len(r.Rejects)); shown < r.Rejected {
		title = fmt.Sprintf("refused: %d of %d", shown, r.Rejected)
	}
	return titled(title, lines)
}

// next is how to go on: the command and the message that does the same.
func (r report) next() []string {
	m := tick.Message{Pipeline: r.unit.Pipeline.Name, Tenant: r.unit.Tenant.ID, Sync: r.sync.Name}
	args := []string{"tidemark", "sync", "-apply"}
	switch {
	case r.stopped():
		m.Override, m.Full, m.Retry = r.Run, r.order.message.Full, r.order.message.Retry
		args = append(args, "-override", strconv.FormatInt(r.Run, 10))
		if m.Full {
			args = append(args, "-full")
		}
		if m.Retry {
			args = append(args, "-retry")
		}
	case r.failure == nil && r.DryRun && r.Written() == 0 && len(r.Brakes) == 0:
		return []string{"", "there is nothing to write"}
	case r.failure == nil && r.DryRun && r.Digest != "":
		m.Plan = r.Run
		args = append(args, "-plan", strconv.FormatInt(r.Run, 10))
	default:
		return nil
	}
	if m.Tenant != "" {
		args = append(args, "-tenant", m.Tenant)
	}
	if r.order.csv != "" {
		args = append(args, "-csv", r.order.csv)
	}
	lines := []string{"to apply exactly this, as long as it is what there is to do:", "  " + shell(append(args, m.Pipeline, m.Sync)...)}
	if r.stopped() {
		lines[0] = "if this is meant, it may go as far once:"
	}
	if data, err := json.Marshal(m); err == nil && r.order.csv == "" {
		lines = append(lines, "or publish to "+tick.TopicReverseETL+":", "  "+string(data))
	}
	return append([]string{""}, lines...)
}

// titled are lines below a title, none if there are none.
func titled(title string, lines []string) []string {
	if len(lines) == 0 {
		return nil
	}
	out := []string{"", title}
	for _, line := range lines {
		out = append(out, "  "+line)
	}
	return out
}

// shell writes a command line as a shell of POSIX takes it.
func shell(args ...string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = arg
		if strings.Trim(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:") != "" || arg == "" {
			quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

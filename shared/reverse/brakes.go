package reverse

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// Brake is a limit of the sync that a run is beyond: it stops before it has written
// anything.
type Brake struct {
	Name    string `json:"brake"`             // empty, deletes, cascade, swing, stale
	Subject string `json:"subject,omitempty"` // of cascade, the constraint; of stale, the table
	Found   int64  `json:"found"`             // rows; of stale, seconds; -1: unknown
	Why     string `json:"why"`               // with the numbers
}

// brakes are the limits that what is planned is beyond. last is how many rows the last
// full comparison read, nil for none.
func brakes(s *pipeline.Sync, o *Outcome, last *int64) []Brake {
	var out []Brake
	add := func(name, subject string, found int64, format string, args ...any) {
		out = append(out, Brake{name, subject, found, fmt.Sprintf(format, args...)})
	}
	rows := o.sourceRows()
	if rows != nil && *rows == 0 && o.Delete > 0 {
		add("empty", "", o.Delete, "the source is empty, and %d rows would be deleted", o.Delete)
	}
	percent := 100 * float64(o.Delete) / float64(max(o.Table, 1))
	switch l := s.Limits; {
	case o.Delete == 0:
	case l.MaxDeletes >= 0 && o.Delete > l.MaxDeletes:
		add("deletes", "", o.Delete, "%d rows of %d would be deleted, and max_deletes is %d", o.Delete, o.Table, l.MaxDeletes)
	case l.MaxDeletePercent >= 0 && percent > 100*l.MaxDeletePercent:
		add("deletes", "", o.Delete, "%d rows of %d would be deleted: %.2f %%, and max_delete_percent is %g", o.Delete, o.Table, percent, percentOf(l.MaxDeletePercent))
	}
	for _, c := range o.Cascades {
		count := fmt.Sprintf("%d rows", c.Rows)
		if c.Rows < 0 {
			count = "an unknown number of rows"
		}
		if !s.Limits.AllowCascade {
			add("cascade", c.Table+" "+c.Constraint, c.Rows, "deletes would go on to %s of %s by %s (%s)", count, c.Table, c.Constraint, c.Action)
		}
	}
	if last != nil && rows != nil && s.Limits.MaxSwingPercent >= 0 {
		swing := max(*rows-*last, *last-*rows)
		if float64(swing) > s.Limits.MaxSwingPercent*float64(*last) {
			add("swing", "", swing, "the source has %d rows, and had %d: more than max_swing_percent, %g, apart", *rows, *last, percentOf(s.Limits.MaxSwingPercent))
		}
	}
	return out
}

// percentOf is a share as it was written in the file.
func percentOf(share float64) float64 { return math.Round(share*1e6) / 1e4 }

// stale is the brake for a source that nobody has written to for too long.
func stale(what string, age, limit time.Duration) Brake {
	return Brake{"stale", what, int64(age.Seconds()), fmt.Sprintf("%s was last written to %s ago, and max_staleness is %s", what, age.Round(time.Second), limit)}
}

// ageless is the brake for one of which nobody can tell.
func ageless(what string) Brake {
	return Brake{"stale", what, -1, "BigQuery does not tell when " + what + " was last written to, so that max_staleness cannot be held: name in fresh_tables those of which it does"}
}

// allowance is what a person has allowed a run to do beyond the brakes.
type allowance struct {
	brakes map[string]Brake // by id
	used   int64            // the run that has used it up; 0: none has
}

// allows reports whether the brake is off: it was when the person looked, and the run
// goes no further than what was shown.
func (a allowance) allows(b Brake) bool {
	shown, ok := a.brakes[b.id()]
	if !ok || a.used != 0 {
		return false
	}
	limit := shown.Found
	if b.Name == "stale" { // which it has become while the person looked
		limit += int64((24 * time.Hour).Seconds())
	}
	return shown.Found < 0 || b.Found >= 0 && b.Found <= limit
}

func (b Brake) id() string { return b.Name + " " + b.Subject }

// allowed reads what the message refers to: the run that brakes stopped, or the dry run
// whose plan is approved, with its outcome.
func (r *Runner) allowed(ctx context.Context, unit controlplane.Unit, m tick.Message) (allowance, Outcome, error) {
	id, field := m.Override, "override"
	if m.Plan != 0 {
		id, field = m.Plan, "plan"
	}
	if id == 0 {
		return allowance{}, Outcome{}, nil
	}
	past, err := r.Control.PastRun(ctx, unit, id, field)
	if err != nil {
		return allowance{}, Outcome{}, err
	}
	o, err := outcomeOf(past.Detail)
	if err != nil {
		return allowance{}, o, fmt.Errorf("reading what run %d did: %w", id, err)
	}
	switch {
	case o.StandIn != r.StandIn:
		return allowance{}, o, fault.Fix(fmt.Errorf("run %d had its rows from elsewhere", id), "give the run the same source: that of the sync, or the file, by the command line")
	case m.Plan != 0 && (past.Outcome != controlplane.OutcomeDryRun || o.Digest == ""):
		return allowance{}, o, fault.Fix(fmt.Errorf("run %d is no dry run that came to its end", id), "name a run with the outcome dry_run")
	case m.Override != 0 && (past.Outcome != controlplane.OutcomeFailed || len(o.Brakes) == 0):
		return allowance{}, o, fault.Fix(fmt.Errorf("run %d was not stopped by a brake", id), "name the run whose error tells of one")
	}
	a := allowance{brakes: map[string]Brake{}, used: past.UsedBy}
	for _, b := range o.Brakes {
		a.brakes[b.id()] = b
	}
	return a, o, nil
}

// stopped is the error of a run that brakes stop.
func stopped(unit controlplane.Unit, o *Outcome, found []Brake, a allowance) error {
	whys := make([]string, len(found))
	for i, b := range found {
		whys[i] = b.Why
	}
	err := fmt.Errorf("stopped by its brakes before anything was written: %s", strings.Join(whys, "; "))
	if a.used != 0 {
		err = fmt.Errorf("%w (run %d has used the override of run %d)", err, a.used, o.Override)
	}
	message := tick.Message{Pipeline: unit.Pipeline, Tenant: unit.Tenant, Sync: unit.Table, Override: o.Run}
	remedy := fmt.Sprintf("correct the source; or, if this is meant, publish %s to %s: it lets through as much as this, once", asJSON(message), tick.TopicReverseETL)
	if o.StandIn { // which a message does not have
		remedy = fmt.Sprintf("correct the file; or, if this is meant, run the command again with -apply -override %d: it lets through as much as this, once", o.Run)
	}
	return fault.Fix(err, remedy)
}

// unapproved is what to do about a plan that waits for a person.
func unapproved(unit controlplane.Unit, run int64) string {
	message := tick.Message{Pipeline: unit.Pipeline, Tenant: unit.Tenant, Sync: unit.Table, Plan: run}
	return fmt.Sprintf("look at tidemark.runs; to apply it, publish %s to %s", asJSON(message), tick.TopicReverseETL)
}

func asJSON(m tick.Message) string {
	data, err := json.Marshal(m)
	if err != nil {
		return err.Error() // never: it holds texts and numbers
	}
	return string(data)
}

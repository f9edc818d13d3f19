package reverse

import (
	"encoding/json"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/target"
)

// Outcome is what a run did, as tidemark.runs keeps it in detail. In a dry run, and in
// one that a brake stopped, the counts are of what would be done.
type Outcome struct {
	Run       int64            `json:"-"` // its id in tidemark.runs
	DryRun    bool             `json:"-"`
	Job       string           `json:"job,omitempty"`      // of BigQuery
	StandIn   bool             `json:"stand_in,omitempty"` // the rows were a file's, in place of the sync's source
	Whole     bool             `json:"whole"`              // every row of the source was compared
	Rows      int64            `json:"rows"`               // read
	Source    *int64           `json:"source,omitempty"`   // rows that it has, where only some were read and that was counted
	Insert    int64            `json:"insert"`
	Update    int64            `json:"update"`
	Delete    int64            `json:"delete"`
	Unchanged int64            `json:"unchanged"`
	Present   int64            `json:"present"`              // of mode insert: the key is there
	Absent    int64            `json:"absent"`               // no row of the table has the key
	Outside   int64            `json:"outside"`              // the row is none of those that the sync may write
	Fill      *target.Fill     `json:"fill,omitempty"`       // of mode fill: what is left
	Table     int64            `json:"table_rows,omitempty"` // that the deletes are a share of
	Withheld  string           `json:"withheld,omitempty"`   // why nothing is deleted
	Cascades  []target.Cascade `json:"cascades,omitempty"`
	Rejected  int64            `json:"rejected"`
	Locked    int64            `json:"locked"`             // held by other transactions, left for a later run
	Paused    float64          `json:"paused_s,omitempty"` // seconds waited for the database's other work
	Brakes    []Brake          `json:"brakes,omitempty"`   // that stopped the run, or would have
	Samples   []target.Sample  `json:"samples,omitempty"`  // of a dry run
	Rejects   []target.Reject  `json:"rejects,omitempty"`  // some of a dry run's
	Digest    string           `json:"digest,omitempty"`   // of a dry run's plan: what is left of it to be applied
	Override  int64            `json:"override,omitempty"` // the run whose brakes were overridden
	Plan      int64            `json:"plan,omitempty"`     // the dry run that was approved
	Full      bool             `json:"full,omitempty"`     // every row was asked for
	Retry     bool             `json:"retry,omitempty"`    // the rows that were refused were asked for
	Left      bool             `json:"left,omitempty"`     // not all of the plan was done
	More      bool             `json:"more,omitempty"`     // another message goes on

	bytes   int64
	applied bool // the counts are of what was done
}

// shownRejects is how many refused rows a dry run shows; an applied run keeps all.
const shownRejects = 20

func (o *Outcome) planned(p target.Plan) {
	o.Insert, o.Update, o.Delete, o.Unchanged, o.Present = p.Insert, p.Update, p.Delete, p.Unchanged, p.Present
	o.Absent, o.Outside, o.Fill, o.Table, o.Withheld, o.Cascades = p.Absent, p.Outside, p.Fill, p.Rows, p.Withheld, p.Cascades
}

// sourceRows is how many rows the source has, nil where that is not known.
func (o *Outcome) sourceRows() *int64 {
	if o.Whole {
		return &o.Rows
	}
	return o.Source
}

// Written is how many rows the plan writes, or the run wrote.
func (o *Outcome) Written() int64 { return o.Insert + o.Update + o.Delete }

// keep is what of rejected rows the control plane keeps.
func keep(found []target.Reject) []controlplane.Reject {
	out := make([]controlplane.Reject, len(found))
	for i, r := range found {
		out[i] = controlplane.Reject{Column: r.Column, Reason: r.Reason, Row: r.Row}
		if r.Fingerprint != nil {
			out[i].Key = controlplane.FingerprintKey(*r.Fingerprint)
		}
	}
	return out
}

// outcomeOf reads what an earlier run did.
func outcomeOf(detail json.RawMessage) (Outcome, error) {
	var o Outcome
	err := json.Unmarshal(detail, &o)
	return o, err //nolint:wrapcheck // by the caller
}

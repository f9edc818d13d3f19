// Package tick is what arrives: a message that says what is due or what an
// operator wants, and the units of work it stands for.
package tick

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Message is the data of a Pub/Sub message. Every field is optional; one that
// is empty does not narrow. Without a cadence it is an operator's own run and
// concerns everything it names, due or not.
type Message struct {
	Cadence  pipeline.Cadence `json:"cadence,omitempty"`
	Pipeline string           `json:"pipeline,omitempty"`
	Tenant   string           `json:"tenant,omitempty"`
	Table    string           `json:"table,omitempty"`
	Sync     string           `json:"sync,omitempty"`
	Full     bool             `json:"full,omitempty"`
	DryRun   bool             `json:"dry_run,omitempty"`
	Retry    bool             `json:"retry,omitempty"` // of refused rows: they are read and landed again
	// Override is the id of a run of a sync that its brakes stopped: this one may do
	// what that one would have done, and no more.
	Override int64 `json:"override,omitempty"`
	// Plan is the id of a dry run of a sync: what it planned is applied if it is still the plan.
	Plan int64 `json:"plan,omitempty"`
	// Since is when a job ended that the sync runs after: a run that began later has
	// seen what it wrote, one that began before has not.
	Since time.Time `json:"since,omitzero"`
}

// Delivery is a message with what Pub/Sub says of it.
type Delivery struct {
	Message
	Ended     *Ended // of a notification, whose Message is empty; else nil
	ID        string
	Published time.Time // zero if unknown
	Data      []byte    // as it came
}

// How old a tick may be and still be served: as long as its interval, and ten
// minutes at least. An older one is acknowledged and dropped, since the next
// does its work. An operator's own run is never too old.
const (
	minAge  = 10 * time.Minute
	cronAge = 24 * time.Hour // of a cron expression, whose interval is nobody's guess
)

const example = `send JSON such as {"cadence":"1m"} or {"pipeline":"shop","table":"orders"}; fields: cadence, pipeline, tenant, table, sync, full, dry_run, retry, override, plan`

// Decode reads a Pub/Sub event as the functions framework delivers it. Errors
// are permanent: the same message can never be read.
func Decode(e event.Event) (Delivery, error) {
	var envelope struct {
		Message *struct {
			Data        []byte            `json:"data"`
			Attributes  map[string]string `json:"attributes"`
			MessageID   string            `json:"messageId"`
			PublishTime time.Time         `json:"publishTime"`
		} `json:"message"`
	}
	d := Delivery{ID: e.ID()}
	if err := json.Unmarshal(e.Data(), &envelope); err != nil {
		return d, fault.Fix(fmt.Errorf("reading the Pub/Sub envelope: %w", err), `post {"message":{"data":"<base64>"}}`)
	}
	if envelope.Message == nil {
		return d, fault.Fix(errors.New("reading the Pub/Sub envelope: it has no message"), `post {"message":{"data":"<base64>"}}`)
	}
	d.Data, d.Published = envelope.Message.Data, envelope.Message.PublishTime
	if envelope.Message.MessageID != "" {
		d.ID = envelope.Message.MessageID
	}
	var err error
	if d.Ended, err = decodeEnded(envelope.Message.Attributes, d.Data, d.Published); err != nil || d.Ended != nil {
		return d, err
	}
	d.Message, err = Parse(d.Data)
	return d, err
}

// Parse reads the data of a message; no data is a message without fields.
func Parse(data []byte) (Message, error) {
	var m Message
	if len(bytes.TrimSpace(data)) == 0 {
		return m, nil
	}
	if data := bytes.TrimSpace(data); data[0] != '{' {
		return m, fault.Fix(errors.New("reading the message: it is no JSON object"), example)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return m, fault.Fix(fmt.Errorf("reading the message: %w", err), example)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return m, fault.Fix(errors.New("reading the message: something follows the JSON object"), example)
	}
	canonical, err := pipeline.ParseCadence(string(m.Cadence))
	if err != nil {
		return m, fault.Fix(fmt.Errorf("reading the message: %w", err), example)
	}
	m.Cadence = canonical
	if m.Full && m.Retry {
		return m, fault.Fix(errors.New("reading the message: it has both full and retry"), "send full alone: it reads every row again, those that were refused among them")
	}
	return m, m.permitted()
}

// permitted refuses what an override and a plan cannot be combined with: both are
// about one earlier run of one sync, and do no more than what that one found.
func (m Message) permitted() error {
	refused := func(format string, args ...any) error {
		return fault.Fix(fmt.Errorf("reading the message: "+format, args...), `send {"pipeline":"shop","sync":"scores","override":12} with the id of the run that a brake stopped, or "plan" with that of the dry run`)
	}
	for _, id := range []struct {
		field string
		value int64
		not   []string
	}{
		{"override", m.Override, []string{"dry_run", "plan"}},
		{"plan", m.Plan, []string{"dry_run", "full", "retry", "override"}},
	} {
		switch set := m.set(); {
		case id.value == 0:
			continue
		case id.value < 0:
			return refused("%s is %d, which is the id of no run", id.field, id.value)
		case m.Pipeline == "" || m.Sync == "":
			return refused("it has %s without pipeline and sync", id.field)
		default:
			for _, other := range id.not {
				if set[other] {
					return refused("it has both %s and %s", id.field, other)
				}
			}
		}
	}
	return nil
}

// set says which of the fields that not every function serves are there, by their JSON keys.
func (m Message) set() map[string]bool {
	return map[string]bool{
		"table": m.Table != "", "sync": m.Sync != "", "full": m.Full, "dry_run": m.DryRun, "retry": m.Retry,
		"override": m.Override != 0, "plan": m.Plan != 0,
	}
}

// Stale reports whether the delivery is a tick whose work the next one does, or is
// about a job that ended more than a day ago.
func (d Delivery) Stale(now time.Time) bool {
	if ended := d.ended(); !ended.IsZero() {
		return now.Sub(ended) > 24*time.Hour
	}
	if d.Cadence == "" || d.Published.IsZero() {
		return false
	}
	limit := cronAge
	if interval, ok := d.Cadence.Interval(); ok {
		limit = max(minAge, interval)
	}
	return now.Sub(d.Published) > limit
}

// soon is the longest interval whose next tick is worth waiting for.
const soon = 5 * time.Minute

// ErrSkipped is what Skipped returns where nothing is left to do. Serve takes it
// for no failure.
var ErrSkipped = errors.New("another run does this work")

// Skipped is the answer to a delivery whose work another run holds: ErrSkipped
// where the next tick comes soon or an operator asked for no more than that run
// does, else cause as a transient error, so that a nightly run whose first attempt
// was killed is not put off by that attempt's own lease until the next night.
func (d Delivery) Skipped(cause error) error {
	interval, ok := d.Cadence.Interval()
	asks := d.Full || d.Retry || d.DryRun || !d.Since.IsZero() || d.Override != 0 || d.Plan != 0 // what the run that is under way does not do
	if !asks && (d.Cadence == "" || ok && interval <= soon) {
		return ErrSkipped
	}
	return fault.Recorded(&fault.Error{Class: fault.Transient, Err: cause})
}

// margin is what a run keeps of its time for ending well.
const margin = time.Minute

// TimeLeft reports whether new work may be begun before the deadline (I11).
func TimeLeft(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) > margin
}

// Refuse is a permanent error if the message has a field, of those named by
// their JSON keys, that the function does not serve: to ignore it would do
// something else than was asked.
func (m Message) Refuse(function string, fields ...string) error {
	set := m.set()
	for _, field := range fields {
		if set[field] {
			return fault.Fix(fmt.Errorf("%s does not serve the field %q", function, field), "send the message without it")
		}
	}
	return nil
}

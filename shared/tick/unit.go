package tick

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/telemetry"
)

// Unit is what one message works on: a pipeline, or one tenant of it.
type Unit struct {
	Pipeline *pipeline.Pipeline
	Tenant   Tenant
}

// Tenant is one row of a pipeline's tenants query; the zero Tenant stands for a
// pipeline without tenants.
type Tenant struct {
	ID     string            // value of the first column
	Values map[string]string // of all columns, by name
}

// Dataset is where the unit's rows land (I8).
func (u Unit) Dataset() string {
	if u.Pipeline.Tenants == nil {
		return u.Pipeline.Dataset
	}
	return pipeline.Fill(u.Pipeline.Tenants.Dataset, u.Tenant.Values)
}

// Message narrows a message to this unit.
func (u Unit) Message(m Message) Message {
	m.Pipeline, m.Tenant = u.Pipeline.Name, u.Tenant.ID
	return m
}

// Dispatcher turns messages into units: the one this instance works on, or
// messages that send each unit to an instance of its own.
type Dispatcher struct {
	Pipelines []pipeline.Pipeline
	// Tenants runs a tenants query on the source.
	Tenants func(ctx context.Context, query string) ([]Tenant, error)
	// Publish sends messages to the topic this function reads.
	Publish func(context.Context, ...Message) error
}

// Work does a unit's part of a message: an error for each table or sync concerned,
// nil for one that is done and ErrSkipped for one that another run holds.
type Work func(ctx context.Context, u Unit) []error

// Serve dispatches the message as Dispatch does, has the unit that is left, if any,
// worked on, and logs it as done if nothing failed and something was done or found to
// be. The error joins what failed, each part with the scope of the unit.
func (d *Dispatcher) Serve(ctx context.Context, m Message, due func(*pipeline.Pipeline, Message) bool, work Work) error {
	u, err := d.Dispatch(ctx, m, due)
	if err != nil || u == nil {
		return err
	}
	ctx = within(ctx, u.Pipeline, u.Tenant.ID)
	var failures []error
	tables, skipped := 0, 0
	for _, err := range work(ctx, *u) {
		switch {
		case err == nil:
			tables++
		case errors.Is(err, ErrSkipped):
			skipped++
		default:
			failures = append(failures, telemetry.Scope(ctx, err))
		}
	}
	if len(failures) > 0 {
		return errors.Join(failures...)
	}
	if tables == 0 && skipped > 0 {
		return nil // the run that has all of it says when it is done, or its silence does (I9)
	}
	telemetry.Emit(ctx, telemetry.Done, slog.String("cadence", string(m.Cadence)), slog.Int("tables", tables))
	return nil
}

// within is the context of what is done for a tenant of a pipeline.
func within(ctx context.Context, p *pipeline.Pipeline, tenant string) context.Context {
	return telemetry.With(ctx, slog.String("pipeline", p.Name), slog.String("tenant", tenant))
}

// Dispatch returns the unit to work on, or nil when there is none: nothing is
// due, or the message stood for several units and each got its own. due says
// whether a pipeline has work for the message. The error joins those of
// pipelines and tenants that could not be told; the others are dispatched (I7).
func (d *Dispatcher) Dispatch(ctx context.Context, m Message, due func(*pipeline.Pipeline, Message) bool) (*Unit, error) {
	units, err := d.expand(ctx, m, due)
	if len(units) == 1 && err == nil {
		return &units[0], nil
	}
	if len(units) == 0 {
		return nil, err
	}
	messages := make([]Message, len(units))
	for i, u := range units {
		messages[i] = u.Message(m)
	}
	return nil, errors.Join(err, d.Publish(ctx, messages...))
}

// expand lists the units. A name that does not exist is a permanent error that
// lists those that do.
func (d *Dispatcher) expand(ctx context.Context, m Message, due func(*pipeline.Pipeline, Message) bool) ([]Unit, error) {
	var units []Unit
	var names []string
	var errs []error
	for i := range d.Pipelines {
		p := &d.Pipelines[i]
		names = append(names, p.Name)
		if m.Pipeline != "" && p.Name != m.Pipeline || !due(p, m) {
			continue
		}
		own, err := d.ofPipeline(ctx, p, m.Tenant)
		if err != nil {
			errs = append(errs, telemetry.Scope(within(ctx, p, m.Tenant), fmt.Errorf("listing the tenants of %s: %w", p.Name, err)))
		}
		units = append(units, own...)
	}
	switch {
	case m.Pipeline != "" && !slices.Contains(names, m.Pipeline):
		return nil, Unknown("pipeline", m.Pipeline, names)
	case m.Tenant != "" && len(units) == 0 && len(errs) == 0:
		return nil, fault.Fix(fmt.Errorf("there is no tenant %q with work to do", m.Tenant), "name a value of the first column of tenants.query")
	}
	return units, errors.Join(errs...)
}

// ofPipeline are the units of one pipeline: those of its tenants that have a
// dataset of their own. The others are refused, each with the reason (I8).
func (d *Dispatcher) ofPipeline(ctx context.Context, p *pipeline.Pipeline, tenant string) ([]Unit, error) {
	if p.Tenants == nil {
		if tenant != "" {
			return nil, nil
		}
		return []Unit{{Pipeline: p}}, nil
	}
	all, err := d.Tenants(ctx, p.Tenants.Query)
	if err != nil {
		return nil, err
	}
	ids, datasets := map[string]int{}, map[string]int{}
	for _, t := range all {
		ids[t.ID]++
		datasets[Unit{p, t}.Dataset()]++
	}
	var units []Unit
	var errs []error
	for _, t := range all {
		if tenant != "" && t.ID != tenant {
			continue
		}
		u := Unit{p, t}
		switch dataset := u.Dataset(); {
		case ids[t.ID] > 1:
			err = fmt.Errorf("tenant %q comes more than once", t.ID)
		case datasets[dataset] > 1:
			err = fmt.Errorf("tenant %q shares the dataset %q with another", t.ID, dataset)
		case !p.Tenants.Names(dataset, t.Values):
			err = fmt.Errorf("tenant %q has no name for a dataset: %q", t.ID, dataset)
		default:
			units = append(units, u)
			continue
		}
		err = fault.Fix(err, "have tenants.query return each tenant once, with letters, digits and underscores for its dataset")
		errs = append(errs, telemetry.Scope(within(ctx, p, t.ID), err))
	}
	return units, errors.Join(errs...)
}

// CheckTable is a permanent error, listing those that exist, if the message
// names a table that no pipeline it concerns has.
func (d *Dispatcher) CheckTable(m Message) error {
	if m.Table == "" {
		return nil
	}
	var names []string
	for i := range d.Pipelines {
		p := &d.Pipelines[i]
		if (m.Pipeline == "" || p.Name == m.Pipeline) && p.Table(m.Table) != nil {
			return nil
		}
		for _, t := range p.Tables {
			names = append(names, t.Name)
		}
	}
	return Unknown("table", m.Table, names)
}

// Unknown is the error for a table or sync that a message names and no
// concerned pipeline has.
func Unknown(what, name string, known []string) error {
	return fault.Fix(fmt.Errorf("there is no %s %q", what, name), "name one of: "+strings.Join(known, ", "))
}

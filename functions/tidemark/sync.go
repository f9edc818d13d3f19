package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"

	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/reverse"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// order is what a command line asks of a reverse sync.
type order struct {
	message tick.Message
	csv     string // in place of the sync's source; "" for that
}

// sync runs a reverse sync in this process: dry, unless it is told to apply.
func (t *tool) sync(ctx context.Context, flags *flag.FlagSet, args []string) error {
	o, err := t.order(flags, args)
	if err != nil {
		return err
	}
	config, err := t.config()
	if err != nil {
		return err
	}
	s, err := o.sync(config.Pipelines)
	if err != nil {
		return err
	}
	c, err := instance.Connect(ctx, config)
	if err != nil {
		return err
	}
	return errors.Join(t.syncHere(ctx, c, s, o), c.Close())
}

// order reads the command line.
func (t *tool) order(flags *flag.FlagSet, args []string) (order, error) {
	var o order
	m := &o.message
	apply := flags.Bool("apply", false, "write; without it, only show what would be written")
	flags.StringVar(&o.csv, "csv", "", "read this `file`, or gs://bucket/object, in place of the sync's source")
	flags.BoolVar(&m.Full, "full", false, "compare every row, whatever is known of what has changed")
	flags.BoolVar(&m.Retry, "retry", false, "read again the rows that were refused, and no others")
	flags.Int64Var(&m.Override, "override", 0, "go as far beyond the brakes as this `run` would have that they stopped; with -apply")
	flags.Int64Var(&m.Plan, "plan", 0, "apply what this dry `run` showed, if it is still what there is to do; with -apply")
	flags.StringVar(&m.Tenant, "tenant", "", "this `tenant` alone: a value of the first column of tenants.query")
	names, err := t.parse(flags, args, 2, 2)
	if err != nil {
		return o, err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, id := range map[string]int64{"override": m.Override, "plan": m.Plan} {
		if given[name] && (!*apply || id <= 0) {
			t.print(t.err, "tidemark: -%s takes the id of a run, and goes with -apply\n", name)
			flags.Usage()
			return o, errUsage
		}
	}
	m.Pipeline, m.Sync, m.DryRun = names[0], names[1], !*apply
	data, err := json.Marshal(m)
	if err != nil {
		return o, fmt.Errorf("writing the message: %w", err)
	}
	_, err = tick.Parse(data) // what a message may not combine, a command may not either
	return o, err
}

// sync is the declaration of what is ordered, with the file in place of its source.
func (o order) sync(pipelines []pipeline.Pipeline) (*pipeline.Sync, error) {
	m := o.message
	d := tick.Dispatcher{Pipelines: pipelines}
	if err := d.Check(tick.Message{Pipeline: m.Pipeline}); err != nil {
		return nil, err
	}
	var names []string
	for _, p := range pipelines {
		if p.Name != m.Pipeline {
			continue
		}
		for _, s := range p.ReverseETL {
			names = append(names, s.Name)
		}
		declared := p.Sync(m.Sync)
		if declared == nil {
			break
		}
		if p.Tenants != nil && m.Tenant == "" && (m.Plan != 0 || m.Override != 0) {
			return nil, fault.Fix(errors.New("a run is of one tenant, and the pipeline has several"), "name the tenant of the run with -tenant")
		}
		s := *declared
		if o.csv != "" {
			s.Query, s.From, s.CSV = "", "", o.csv
			s.Changes, s.Cursor, s.Lookback, s.FullEvery = pipeline.ChangesFull, "", 0, 0
		}
		return &s, nil
	}
	return nil, tick.Unknown("sync", m.Sync, names)
}

// syncHere does what is ordered with those connections, tenant by tenant, and prints
// what came of it. What a function would send itself a message for is done too.
func (t *tool) syncHere(ctx context.Context, c *instance.Connections, s *pipeline.Sync, o order) error {
	left := []tick.Message{o.message}
	d := c.Dispatcher(tick.TopicReverseETL)
	d.Publish = func(_ context.Context, messages ...tick.Message) error {
		left = append(left, messages...)
		return nil
	}
	r := reverse.Runner{
		Dispatcher: d, Target: c.Source, Control: c.Control, Warehouse: c.Warehouse, Project: c.Config.Warehouse.Project, StandIn: o.csv != "",
	}
	named := func(p *pipeline.Pipeline, m tick.Message) bool { return p.Name == m.Pipeline }
	var failures []error
	for len(left) > 0 && ctx.Err() == nil {
		m := left[0]
		left = left[1:]
		u, err := d.Dispatch(ctx, m, named)
		if u != nil {
			err = t.unit(ctx, &r, *u, s, order{m, o.csv})
		}
		failures = append(failures, err)
	}
	return errors.Join(append(failures, ctx.Err())...)
}

// unit does the sync for one unit. Its error says whether all that was asked is done.
func (t *tool) unit(ctx context.Context, r *reverse.Runner, u tick.Unit, s *pipeline.Sync, o order) error {
	outcome, err := r.Sync(ctx, u, s, tick.Delivery{Message: o.message, ID: "tidemark sync"})
	switch {
	case errors.Is(err, tick.ErrSkipped), errors.Is(err, controlplane.ErrHeld):
		return fault.Fix(fmt.Errorf("another run of %s is under way", s.Name), "wait until it has ended; if it died, its lease ends by itself within minutes")
	case outcome == nil && err == nil:
		t.print(t.out, "run %d has been applied before: there is nothing left to do\n", o.message.Plan)
		return nil
	case outcome == nil:
		return err
	}
	t.print(t.out, "%s", report{outcome, err, u, s, o})
	if err != nil {
		return err
	}
	return unfinished(outcome, o.message)
}

// unfinished is an error if what was asked for has not been done, though nothing failed.
func unfinished(o *reverse.Outcome, m tick.Message) error {
	switch {
	case len(o.Brakes) > 0:
		return errors.New("the sync's brakes would stop it")
	case o.DryRun && !m.DryRun:
		return errors.New("nothing was written: the sync applies only plans that were approved")
	case !o.More && o.Locked > 0:
		return fault.Fix(fmt.Errorf("%d rows were left, which other transactions hold", o.Locked), "run it again")
	}
	return nil
}

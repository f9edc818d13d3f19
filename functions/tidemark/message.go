package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/tick"
)

func (t *tool) run(ctx context.Context, flags *flag.FlagSet, args []string) error {
	return t.send(ctx, flags, args, 0, tick.Message{})
}

func (t *tool) retry(ctx context.Context, flags *flag.FlagSet, args []string) error {
	return t.send(ctx, flags, args, 1, tick.Message{Retry: true})
}

func (t *tool) resync(ctx context.Context, flags *flag.FlagSet, args []string) error {
	return t.send(ctx, flags, args, 1, tick.Message{Full: true})
}

// publishWithin bounds the wait for Pub/Sub, whose client would try for ever.
const publishWithin = 30 * time.Second

// send publishes a message about what the arguments name. least says how much they have
// to name.
func (t *tool) send(ctx context.Context, flags *flag.FlagSet, args []string, least int, m tick.Message) error {
	tenant := flags.String("tenant", "", "this `tenant` alone: a value of the first column of tenants.query")
	names, err := t.parse(flags, args, least, 2)
	if err != nil {
		return err
	}
	config, err := t.config()
	if err != nil {
		return err
	}
	m.Pipeline, m.Table, m.Tenant = names[0], names[1], *tenant
	d := tick.Dispatcher{Pipelines: config.Pipelines}
	if err := d.Check(m); err != nil {
		return err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("writing the message: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, publishWithin)
	defer cancel()
	publisher := tick.NewPublisher(config.Warehouse.Project)
	err = errors.Join(publisher.Publish(ctx, tick.TopicExtract, m), publisher.Close())
	if fault.GRPCCode(err) == codes.NotFound {
		return fault.Fix(err, "set GOOGLE_CLOUD_PROJECT to the project that Tidemark is deployed in, or deploy it")
	}
	if err != nil {
		return err
	}
	t.print(t.out, "published to %s: %s\ntidemark.runs and the log of Extract say how it goes\n", tick.TopicExtract, data)
	return nil
}

package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/source"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// Instance serves the messages of one function. Its zero value is ready, and
// nothing is opened before the first message, so that a cold start costs only
// what the message needs.
type Instance struct {
	mu    sync.Mutex
	ready *Connections
}

// Connections are what a use case works with.
type Connections struct {
	Config

	Source    *cloudsql.Pool
	Control   *controlplane.Store
	Warehouse *warehouse.Client

	publisher *tick.Publisher
	close     func() // of the pools
}

// Dispatcher returns the dispatcher of the function that reads topic.
func (c *Connections) Dispatcher(topic string) tick.Dispatcher {
	return tick.Dispatcher{
		Pipelines: c.Pipelines,
		Tenants: func(ctx context.Context, query string) ([]tick.Tenant, error) {
			return source.Tenants(ctx, c.Source, query)
		},
		Publish: func(ctx context.Context, messages ...tick.Message) error {
			return c.publisher.Publish(ctx, topic, messages...)
		},
	}
}

// Work is a use case: it does what a delivery asks.
type Work func(ctx context.Context, c *Connections, d tick.Delivery) error

// Handler returns the function for the framework to register: it decodes the
// event, has the work done and answers. A nil answer acknowledges: the work is
// done, or trying again could not help and the log and tidemark.runs say why.
// An error has Pub/Sub deliver the message again, with back-off.
func (i *Instance) Handler(kind string, work Work) func(context.Context, event.Event) error {
	// Not standard output, where the framework prints warnings without an end of line.
	logger := telemetry.NewLogger(os.Stderr, os.Getenv("LOG_LEVEL"))
	return func(ctx context.Context, e event.Event) error {
		slog.SetDefault(logger)
		d, err := tick.Decode(e)
		ctx = scope(ctx, kind, d)
		if err == nil && d.Stale(time.Now()) {
			slog.InfoContext(ctx, "dropped: the tick is too old, the next one does its work", "published", d.Published)
			return nil
		}
		return i.answer(ctx, kind, d, i.do(ctx, d, err, work))
	}
}

// scope is the context of a delivery: its lines carry as much of where they belong
// as the message says. A unit's and a table's own come in where they are worked on.
func scope(ctx context.Context, kind string, d tick.Delivery) context.Context {
	ctx = telemetry.With(ctx, slog.String("run", d.ID), slog.String("kind", kind))
	if d.Pipeline != "" {
		ctx = telemetry.With(ctx, slog.String("pipeline", d.Pipeline))
	}
	if d.Tenant != "" {
		ctx = telemetry.With(ctx, slog.String("tenant", d.Tenant))
	}
	return ctx
}

// do opens what is needed and does the work. decoding is the error of a message
// that could not be read: it is recorded like any other.
func (i *Instance) do(ctx context.Context, d tick.Delivery, decoding error, work Work) error {
	c, err := i.connect(ctx)
	if err != nil || decoding != nil {
		return errors.Join(decoding, err)
	}
	return work(ctx, c, d)
}

// answer logs what failed, each part once with the scope it happened in, and decides
// between ack and nack.
func (i *Instance) answer(ctx context.Context, kind string, d tick.Delivery, err error) error {
	if err == nil {
		slog.DebugContext(ctx, "acknowledged", "message", d.Message)
		return nil
	}
	for ctx, part := range telemetry.Failures(ctx, err) {
		if errors.Is(part, controlplane.ErrHeld) {
			continue // to be tried again, and logged as skipped: nothing has failed
		}
		class, remedy := fault.Classify(part)
		telemetry.Emit(ctx, telemetry.Failed, slog.String("error", part.Error()), slog.String("class", class.String()),
			slog.String("remedy", remedy), slog.String("data", string(d.Data)))
	}
	class, remedy := fault.Classify(err)
	i.record(ctx, kind, d, err, remedy)
	if class == fault.Permanent {
		return nil
	}
	// The framework prints the text of this error as a format: it gets none of ours.
	return errors.New("the message is to be delivered again")
}

// record puts a message that failed as a whole into the log of runs. Where the
// control plane cannot be reached the log line has to do.
func (i *Instance) record(ctx context.Context, kind string, d tick.Delivery, failure error, remedy string) {
	i.mu.Lock()
	c := i.ready
	i.mu.Unlock()
	if c == nil || fault.IsRecorded(failure) {
		return
	}
	ctx, cancel := controlplane.Ending(ctx)
	defer cancel()
	err := c.Control.RecordRun(ctx, controlplane.Run{
		Kind: "message", Unit: controlplane.Unit{Pipeline: d.Pipeline, Tenant: d.Tenant, Table: d.Table + d.Sync}, MessageID: d.ID,
		Outcome: controlplane.OutcomeFailed, Error: failure.Error(), Remedy: remedy,
		Detail: map[string]any{"function": kind, "data": string(d.Data)},
	})
	if err != nil {
		slog.WarnContext(ctx, "recording the failed message", "error", err)
	}
}

// connect opens the connections once. A failure is not kept: the next message
// tries again.
func (i *Instance) connect(ctx context.Context) (*Connections, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ready != nil {
		return i.ready, nil
	}
	config, err := Load(os.Getenv)
	if err != nil {
		return nil, err
	}
	c, err := Connect(ctx, config)
	if err != nil {
		return nil, err
	}
	i.ready = c
	return c, nil
}

// Connect opens the connections of a configuration and brings the control plane
// up to date.
func Connect(ctx context.Context, config Config) (*Connections, error) {
	c := &Connections{Config: config, Warehouse: warehouse.NewClient(config.Warehouse), publisher: tick.NewPublisher(config.Warehouse.Project)}
	var err error
	var closeSource func()
	if c.Source, closeSource, err = cloudsql.Open(ctx, config.Source, cloudsql.DataConnections); err != nil {
		return nil, fmt.Errorf("opening the source: %w", err)
	}
	control, closeControl, err := cloudsql.Open(ctx, config.Control, cloudsql.ControlConnections)
	if err != nil {
		closeSource()
		return nil, fmt.Errorf("opening the control plane: %w", err)
	}
	c.close = func() { closeControl(); closeSource() }
	if c.Control, err = controlplane.Open(ctx, control); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// Close closes every connection.
func (c *Connections) Close() error {
	c.close()
	return errors.Join(c.Warehouse.Close(), c.publisher.Close())
}

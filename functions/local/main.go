// Command local serves every function on the functions framework of this
// machine, each at /<Name>, and stands in for what the cloud does around them:
// it delivers pushes from the Pub/Sub emulator and keeps the schedules of the
// pipeline files. It listens on loopback only.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"

	_ "github.com/tidemark-data/tidemark/functions/dedup"
	_ "github.com/tidemark-data/tidemark/functions/extract"
	_ "github.com/tidemark-data/tidemark/functions/reverseetl"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// door is a function, the topic it reads and the cadences that tick it.
type door struct {
	function, topic string
	cadences        func(pipeline.Pipeline) []pipeline.Cadence
}

func doors() []door {
	return []door{
		{"Extract", tick.TopicExtract, pipeline.ExtractCadences},
		{"Dedup", tick.TopicDedup, pipeline.DedupCadences},
		{"ReverseETL", tick.TopicReverseETL, pipeline.ReverseCadences},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	slog.SetDefault(telemetry.NewLogger(os.Stderr, os.Getenv("LOG_LEVEL")))
	if err := run(ctx); err != nil && ctx.Err() == nil {
		slog.ErrorContext(ctx, "stopped", "error", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context) error {
	config, err := instance.Load(os.Getenv)
	if err != nil {
		return err
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	if err := os.Unsetenv("FUNCTION_TARGET"); err != nil { // it would narrow the framework to one function
		return fmt.Errorf("preparing the environment: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- funcframework.StartHostPort("127.0.0.1", port) }()
	if os.Getenv("PUBSUB_EMULATOR_HOST") == "" {
		slog.WarnContext(ctx, "PUBSUB_EMULATOR_HOST is not set: nothing is scheduled; post push bodies to /Extract, /Dedup and /ReverseETL")
		return wait(ctx, served)
	}
	relay, err := newRelay(ctx, config.Warehouse.Project, "http://127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer relay.close(ctx)
	for _, d := range doors() {
		if err := relay.deliver(ctx, d); err != nil {
			return err
		}
	}
	schedule(ctx, relay.publisher, config.Pipelines)
	slog.InfoContext(ctx, "serving", "port", port, "pipelines", len(config.Pipelines))
	return wait(ctx, served)
}

func wait(ctx context.Context, served <-chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		if err == nil {
			err = errors.New("it stopped by itself")
		}
		return fmt.Errorf("serving: %w", err)
	}
}

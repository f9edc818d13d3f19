package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// schedule publishes a tick per function and cadence until the context ends: at
// once and then every interval, or at the times of the cron expression.
func schedule(ctx context.Context, publisher *tick.Publisher, pipelines []pipeline.Pipeline) {
	for _, d := range doors() {
		for _, c := range pipeline.Cadences(pipelines, d.cadences) {
			go keep(ctx, c, func() {
				if err := publisher.Publish(ctx, d.topic, tick.Message{Cadence: c}); err != nil && ctx.Err() == nil {
					slog.ErrorContext(ctx, "publishing a tick", "topic", d.topic, "error", err)
				}
			})
		}
	}
}

func keep(ctx context.Context, c pipeline.Cadence, publish func()) {
	if _, ok := c.Interval(); ok {
		publish()
	}
	for {
		next := c.Next(time.Now())
		if next.IsZero() {
			slog.ErrorContext(ctx, "a cadence that never comes", "cadence", c)
			return
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
			publish()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

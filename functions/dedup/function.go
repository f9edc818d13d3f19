// Package dedup is the door of the Dedup function: it removes superseded
// versions from BigQuery.
package dedup

import (
	"context"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/tidemark-data/tidemark/shared/dedup"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/tick"
)

func init() {
	var i instance.Instance
	functions.CloudEvent("Dedup", i.Handler("dedup", run))
}

func run(ctx context.Context, c *instance.Connections, d tick.Delivery) error {
	r := dedup.Runner{Dispatcher: c.Dispatcher(tick.TopicDedup), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse, HashKey: c.HashKey}
	return r.Run(ctx, d)
}

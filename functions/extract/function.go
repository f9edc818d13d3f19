// Package extract is the door of the Extract function: it moves what changed in
// Postgres to BigQuery.
package extract

import (
	"context"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/tidemark-data/tidemark/shared/extract"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/tick"
)

func init() {
	var i instance.Instance
	functions.CloudEvent("Extract", i.Handler("extract", run))
}

func run(ctx context.Context, c *instance.Connections, d tick.Delivery) error {
	r := extract.Runner{Dispatcher: c.Dispatcher(tick.TopicExtract), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse, HashKey: c.HashKey}
	return r.Run(ctx, d)
}

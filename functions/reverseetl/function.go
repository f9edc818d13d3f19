// Package reverseetl is the door of the ReverseETL function: it writes query
// results of BigQuery into Postgres.
package reverseetl

import (
	"context"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/reverse"
	"github.com/tidemark-data/tidemark/shared/tick"
)

func init() {
	var i instance.Instance
	functions.CloudEvent("ReverseETL", i.Handler("reverse_etl", run))
}

func run(ctx context.Context, c *instance.Connections, d tick.Delivery) error {
	r := reverse.Runner{Dispatcher: c.Dispatcher(tick.TopicReverseETL), Target: c.Source, Control: c.Control, Warehouse: c.Warehouse, Project: c.Config.Warehouse.Project}
	return r.Run(ctx, d)
}

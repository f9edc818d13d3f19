package zz

import (
	_ "cloud.google.com/go/bigquery"
	_ "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	_ "cloud.google.com/go/bigquery/storage/managedwriter"
	_ "cloud.google.com/go/bigquery/storage/managedwriter/adapt"
	_ "cloud.google.com/go/pubsub/v2"
	_ "cloud.google.com/go/pubsub/v2/pstest"
	_ "github.com/apache/arrow/go/v15/arrow/ipc"
	_ "github.com/duckdb/duckdb-go/v2"
	_ "github.com/goccy/go-googlesql"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/tidemark-data/tidemark/shared/zz"
	_ "go.uber.org/goleak"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/term"
	_ "google.golang.org/api/bigquery/v2"
	_ "pgregory.net/rapid"
)

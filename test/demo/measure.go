package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/jackc/pgx/v5"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// side is one side of a table, without what is marked as deleted.
type side struct {
	rows   int64
	newest time.Time // updated_at; zero without rows
}

// tableState is a table on both sides.
type tableState struct {
	name               string
	postgres, bigquery side
}

// lag is how much older the newest row is in BigQuery; 0 if both are level.
func (t tableState) lag() time.Duration {
	if t.bigquery.newest.IsZero() || !t.postgres.newest.After(t.bigquery.newest) {
		return 0
	}
	return t.postgres.newest.Sub(t.bigquery.newest)
}

// state is what the display shows.
type state struct {
	tables []tableState
	// contacts that BigQuery has a score for, and that have one in Postgres.
	scored, scoresBack int64
	// newest message that a score in Postgres accounts for.
	scoredUntil time.Time
}

// measure looks at both sides. They move while it does.
func (d *demo) measure(ctx context.Context) (state, error) {
	var s state
	for _, table := range d.pipeline.Tables {
		t := tableState{name: table.Name}
		var err error
		if t.bigquery, err = d.bigQuerySide(ctx, &table); err != nil {
			return s, fmt.Errorf("looking at %s in BigQuery: %w", table.Name, err)
		}
		if t.postgres, err = d.postgresSide(ctx, &table); err != nil {
			return s, fmt.Errorf("looking at %s in Postgres: %w", table.Name, err)
		}
		s.tables = append(s.tables, t)
	}
	scored, err := d.firstRow(ctx, "SELECT COUNT(DISTINCT contact_id) FROM `"+d.view("messages")+"`")
	if err != nil {
		return s, fmt.Errorf("counting scores in BigQuery: %w", err)
	}
	if scored != nil {
		s.scored, _ = scored[0].(int64)
	}
	var until *time.Time
	if err := d.conn.QueryRow(ctx, "SELECT count(engagement_score), max(scored_at) FROM contacts").Scan(&s.scoresBack, &until); err != nil {
		return s, fmt.Errorf("counting scores in Postgres: %w", err)
	}
	if until != nil {
		s.scoredUntil = *until
	}
	return s, nil
}

func (d *demo) view(table string) string {
	return d.client.Project() + "." + d.pipeline.Dataset + "." + table
}

func (d *demo) postgresSide(ctx context.Context, table *pipeline.Table) (side, error) {
	var s side
	var newest *time.Time
	rows := pgx.Identifier{table.Name}.Sanitize()
	if table.Query != "" {
		rows = "(" + table.Query + ") AS query"
	}
	err := d.conn.QueryRow(ctx, "SELECT count(*), max(updated_at) FROM "+rows).Scan(&s.rows, &newest)
	if newest != nil {
		s.newest = *newest
	}
	if err != nil {
		return s, fmt.Errorf("counting: %w", err)
	}
	return s, nil
}

func (d *demo) bigQuerySide(ctx context.Context, table *pipeline.Table) (side, error) {
	var s side
	counted := "*"
	if table.Write == pipeline.WriteHistory {
		counted = "DISTINCT id"
	}
	row, err := d.firstRow(ctx, "SELECT COUNT("+counted+"), MAX(updated_at) FROM `"+d.view(table.Name)+"` WHERE NOT _deleted")
	if err != nil || row == nil {
		return s, err
	}
	s.rows, _ = row[0].(int64)
	s.newest, _ = row[1].(time.Time)
	return s, nil
}

// firstRow runs a query and returns its first row: nil if a table is not there
// yet.
func (d *demo) firstRow(ctx context.Context, query string) ([]bigquery.Value, error) {
	rows, err := d.client.Query(query).Read(ctx)
	if absent, ok := errors.AsType[*googleapi.Error](err); ok && absent.Code == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("querying: %w", err)
	}
	var row []bigquery.Value
	if err := rows.Next(&row); err != nil && !errors.Is(err, iterator.Done) {
		return nil, fmt.Errorf("reading: %w", err)
	}
	return row, nil
}

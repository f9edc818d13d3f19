package main

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/api/iterator"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// returned compares what a sync has brought back to Postgres with the result of its
// query: rows that differ, are missing or are too many are wrong.
type returned struct {
	computed, wrong int
	example         string
}

// differences are those between both sides, by contact.
func differences[V comparable](inPostgres, computed map[int64]V) returned {
	report := returned{computed: len(computed)}
	for id, want := range computed {
		if got, ok := inPostgres[id]; !ok {
			report.wrong++
			report.example = fmt.Sprintf("contact %d: none in Postgres, %v computed", id, want)
		} else if got != want {
			report.wrong++
			report.example = fmt.Sprintf("contact %d: %v in Postgres, %v computed", id, got, want)
		}
	}
	for id, extra := range inPostgres {
		if _, ok := computed[id]; !ok {
			report.wrong++
			report.example = fmt.Sprintf("contact %d: %v in Postgres, none computed", id, extra)
		}
	}
	return report
}

// computed runs the query of one of the pipeline's own syncs.
func computed[R any](ctx context.Context, d *demo, sync string) ([]R, error) {
	query := pipeline.Fill(d.pipeline.Sync(sync).Query, map[string]string{"dataset": d.pipeline.Dataset})
	rows, err := d.client.Query(query).Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("running the query of %s: %w", sync, err)
	}
	var out []R
	for {
		var row R
		if err := rows.Next(&row); errors.Is(err, iterator.Done) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading the result of %s: %w", sync, err)
		}
		out = append(out, row)
	}
}

// score is comparable: its text has the column's two decimals, its time is UTC.
type score struct {
	value string
	at    time.Time
}

func (s score) String() string { return s.value + " at " + s.at.Format(time.RFC3339Nano) }

// compareScores compares the scores in contacts with their query.
func (d *demo) compareScores(ctx context.Context) (returned, error) {
	inPostgres, err := d.scoresInPostgres(ctx)
	if err != nil {
		return returned{}, err
	}
	rows, err := computed[struct {
		ContactID int64     `bigquery:"contact_id"`
		Score     *big.Rat  `bigquery:"score"`
		ScoredAt  time.Time `bigquery:"scored_at"`
	}](ctx, d, "engagement")
	if err != nil {
		return returned{}, err
	}
	want := map[int64]score{}
	for _, row := range rows {
		want[row.ContactID] = score{row.Score.FloatString(2), row.ScoredAt.UTC()}
	}
	return differences(inPostgres, want), nil
}

func (d *demo) scoresInPostgres(ctx context.Context) (map[int64]score, error) {
	rows, err := d.conn.Query(ctx, "SELECT id, coalesce(engagement_score::text, ''), coalesce(scored_at, '0001-01-01Z') FROM contacts WHERE engagement_score IS NOT NULL OR scored_at IS NOT NULL")
	if err != nil {
		return nil, fmt.Errorf("reading the scores in contacts: %w", err)
	}
	found := map[int64]score{}
	var id int64
	var s score
	if _, err := pgx.ForEachRow(rows, []any{&id, &s.value, &s.at}, func() error {
		found[id] = score{s.value, s.at.UTC()}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading the scores in contacts: %w", err)
	}
	return found, nil
}

// compareBusiest compares busiest_contacts with its query.
func (d *demo) compareBusiest(ctx context.Context) (returned, error) {
	rows, err := d.conn.Query(ctx, "SELECT contact_id, messages_read FROM busiest_contacts")
	if err != nil {
		return returned{}, fmt.Errorf("reading busiest_contacts: %w", err)
	}
	inPostgres := map[int64]int64{}
	var id, messages int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &messages}, func() error {
		inPostgres[id] = messages
		return nil
	}); err != nil {
		return returned{}, fmt.Errorf("reading busiest_contacts: %w", err)
	}
	result, err := computed[struct {
		ContactID int64 `bigquery:"contact_id"`
		Messages  int64 `bigquery:"messages_read"`
	}](ctx, d, "busiest")
	if err != nil {
		return returned{}, err
	}
	want := map[int64]int64{}
	for _, row := range result {
		want[row.ContactID] = row.Messages
	}
	return differences(inPostgres, want), nil
}

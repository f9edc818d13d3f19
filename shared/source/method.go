package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Spec is what a capture is made from.
type Spec struct {
	Pipeline *pipeline.Pipeline
	Table    *pipeline.Table
	Rows     *Rows
	Source   *pgxpool.Pool
	Control  *pgxpool.Pool // where the control plane is: the primary, if the source is its standby
}

// NewCapture makes the capture that the table declares. Warnings are what works but
// should be mended, each with its statement. That of a *WAL only writes: a slot is
// read for all its tables together.
func NewCapture(ctx context.Context, s Spec) (Capture, []string, error) {
	declared := s.Table.Capture
	switch declared.Method {
	case pipeline.MethodSnapshot:
		return &Snapshot{s.Rows}, nil, nil
	case pipeline.MethodWatermark:
		if s.Table.Query == "" {
			return NewWatermark(Watermark{Rows: s.Rows, Cursor: declared.Cursor, Lookback: declared.Lookback, Limit: s.Table.BatchRows})
		}
	case pipeline.MethodChangelog:
	case pipeline.MethodWAL:
		return &WAL{Rows: s.Rows, Source: s.Source}, nil, nil
	}
	if len(s.Rows.Filters) > 0 && s.Rows.Deletes && (s.Table.Query != "" || declared.Log != nil) {
		// Of a key that no row of the tenant has, nothing says whose it was (I8).
		return nil, nil, fault.Fix(fmt.Errorf("%s has tenants, and neither a query nor an application's log tells whose a row was that is gone", s.Table.Name),
			"declare deletes: ignore for it, or capture the table itself by changelog without log")
	}
	k := &Keyed{Rows: s.Rows}
	main, warnings, err := s.mainFeed(ctx)
	if err != nil {
		return nil, nil, err
	}
	k.feeds = append(k.feeds, keyFeed{name: "(rows)", feed: main})
	for i := range s.Table.AlsoChangedBy {
		f, further, err := s.related(ctx, &s.Table.AlsoChangedBy[i], i)
		if err != nil {
			return nil, nil, fmt.Errorf("also_changed_by %s: %w", s.Table.AlsoChangedBy[i].Table, err)
		}
		k.feeds, warnings = append(k.feeds, f), append(warnings, further...)
	}
	return k, warnings, nil
}

// mainFeed tells changes of the rows themselves.
func (s Spec) mainFeed(ctx context.Context) (feed, []string, error) {
	switch declared := s.Table.Capture; {
	case declared.Log != nil:
		return s.appFeed(ctx, declared.Log)
	case declared.Method == pipeline.MethodChangelog:
		return &logFeed{rows: s.Rows, pipeline: s.Pipeline.Name, limit: s.Table.BatchRows, primary: s.Control}, nil, nil
	default:
		return s.baseFeed(ctx, declared)
	}
}

// baseFeed follows a query by the table that its cursor and its key come from.
func (s Spec) baseFeed(ctx context.Context, declared pipeline.Capture) (feed, []string, error) {
	base, err := s.Rows.Table.Base(append([]string{declared.Cursor}, s.Rows.Key...)...)
	if err != nil {
		return nil, nil, err
	}
	w, warnings, err := s.watermark(ctx, base.Schema, base.Name, nil, pipeline.Capture{Cursor: base.Columns[0], Lookback: declared.Lookback}, "rows_")
	if err != nil {
		return nil, nil, err
	}
	return &watermarkFeed{w: w, columns: base.Columns[1:]}, warnings, nil
}

// watermark follows a table whose rows are not carried themselves.
func (s Spec) watermark(ctx context.Context, schema, name string, key []string, declared pipeline.Capture, prefix string) (*Watermark, []string, error) {
	table, err := catalog.Describe(ctx, s.Source, schema, name)
	if err != nil {
		return nil, nil, err
	}
	rows, err := NewRows(Rows{Table: table, Key: key, prefix: prefix})
	if err != nil {
		return nil, nil, err
	}
	return NewWatermark(Watermark{Rows: rows, Cursor: declared.Cursor, Lookback: declared.Lookback, Limit: s.Table.BatchRows})
}

func (s Spec) appFeed(ctx context.Context, log *pipeline.Log) (feed, []string, error) {
	schema, name := qualified(s.Pipeline, log.Table)
	w, warnings, err := s.watermark(ctx, schema, name, nil, pipeline.Capture{Cursor: log.Cursor, Lookback: log.Lookback}, "log_")
	if err != nil {
		return nil, nil, err
	}
	if log.Type != nil {
		value, err := logType(ctx, s.Source, s.Pipeline.Schema, log.Type)
		if err != nil {
			return nil, nil, err
		}
		if w.Table.Column(log.Type.Column) == nil {
			return nil, nil, w.Table.Missing("log column", log.Type.Column)
		}
		w.Filters = append(w.Filters, Filter{log.Type.Column, value})
	}
	f, err := newAppFeed(appFeed{watermarkFeed: watermarkFeed{w: w}, rows: s.Rows, log: log})
	return f, warnings, err
}

// qualified splits schema.table; a name alone is in the pipeline's schema.
func qualified(p *pipeline.Pipeline, name string) (schema, table string) {
	if before, after, found := strings.Cut(name, "."); found {
		return before, after
	}
	return p.Schema, name
}

// related follows a further table of a query.
func (s Spec) related(ctx context.Context, r *pipeline.Related, n int) (keyFeed, []string, error) {
	schema, name := qualified(s.Pipeline, r.Table)
	prefix := fmt.Sprintf("also%d_", n)
	out := keyFeed{name: r.Table, mapping: r.Keys}
	if r.Capture.Method == pipeline.MethodWatermark {
		w, warnings, err := s.watermark(ctx, schema, name, r.Key, r.Capture, prefix)
		if err != nil {
			return out, nil, err
		}
		out.feed = &watermarkFeed{w: w}
		return out, warnings, nil
	}
	if len(s.Rows.Filters) > 0 {
		return out, nil, fault.Fix(errors.New("its log would be read by every tenant, and trimmed by the first"),
			"capture it by watermark under also_changed_by")
	}
	table, err := catalog.Describe(ctx, s.Source, schema, name)
	if err != nil {
		return out, nil, err
	}
	rows, err := NewRows(Rows{Table: table, Key: r.Key, prefix: prefix})
	if err != nil {
		return out, nil, err
	}
	out.feed = &logFeed{rows: rows, pipeline: s.Pipeline.Name + "/" + s.Table.Name, limit: s.Table.BatchRows, primary: s.Control}
	return out, nil, nil
}

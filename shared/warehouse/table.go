package warehouse

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Table is a destination in append mode: the log Name_log of every version and
// the view Name of the newest per key.
type Table struct {
	Dataset   string
	Name      string
	Columns   []Column
	Key       []string
	Partition *Partition
	ClusterBy []string // empty: the key
	Deletes   Deletes
}

// Partition is the time partitioning of a log.
type Partition struct {
	Column      string
	Granularity string // hour, day, month, year
}

// LogName is the name of the table that holds every version.
func (t *Table) LogName() string { return t.Name + "_log" }

func (c *Client) path(dataset, table string) string {
	return quote(c.config.Project + "." + dataset + "." + table)
}

// Ensure makes the log and the view fit the columns: it creates what is
// missing, adds columns and relaxes required ones. What it cannot do without
// touching data (another type, another partitioning) is a permanent error. It
// returns the identity of the log: a log dropped and made anew has another.
func (c *Client) Ensure(ctx context.Context, t *Table) (identity string, err error) {
	if err := checkNames(t.Name, t.Columns); err != nil {
		return "", err
	}
	client, err := c.restClient(ctx)
	if err != nil {
		return "", err
	}
	dataset := client.Dataset(t.Dataset)
	log, err := c.ensureLog(ctx, dataset, t)
	if err != nil {
		return "", fmt.Errorf("preparing table %s.%s: %w", t.Dataset, t.LogName(), err)
	}
	if err := c.ensureView(ctx, dataset, t, c.viewSQL(t, log.Schema)); err != nil {
		return "", fmt.Errorf("preparing view %s.%s: %w", t.Dataset, t.Name, err)
	}
	return fmt.Sprintf("%s.%s.%s@%d", c.config.Project, t.Dataset, t.LogName(), log.CreationTime.UnixMilli()), nil
}

func (c *Client) ensureLog(ctx context.Context, dataset *bigquery.Dataset, t *Table) (*bigquery.TableMetadata, error) {
	log := dataset.Table(t.LogName())
	md, err := log.Metadata(ctx)
	if fault.HTTPStatus(err) == http.StatusNotFound {
		if err := c.createLog(ctx, dataset, t); err != nil && fault.HTTPStatus(err) != http.StatusConflict { // another instance was first
			return nil, err
		}
		md, err = log.Metadata(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := t.checkPartitioning(md.TimePartitioning); err != nil {
		return nil, err
	}
	widened, changed, err := widen(md.Schema, schemaOf(t.Columns))
	if err != nil || !changed {
		return md, err
	}
	return log.Update(ctx, bigquery.TableMetadataToUpdate{Schema: widened}, md.ETag)
}

// checkPartitioning refuses a declaration that the log was not made by: BigQuery
// cannot partition a table anew.
func (t *Table) checkPartitioning(have *bigquery.TimePartitioning) error {
	want := &bigquery.TimePartitioning{}
	if t.Partition != nil {
		want = &bigquery.TimePartitioning{Field: t.Partition.Column, Type: bigquery.TimePartitioningType(strings.ToUpper(t.Partition.Granularity))}
	}
	if have == nil {
		have = &bigquery.TimePartitioning{}
	}
	if strings.EqualFold(have.Field, want.Field) && have.Type == want.Type {
		return nil
	}
	return fault.Fix(fmt.Errorf("the log is partitioned by %q %s, and partition_by says %q %s", have.Field, have.Type, want.Field, want.Type),
		"change partition_by back, or drop the log table: it is then loaded anew")
}

func (c *Client) createLog(ctx context.Context, dataset *bigquery.Dataset, t *Table) error {
	md := &bigquery.TableMetadata{
		Schema:      schemaOf(t.Columns),
		Description: "Every version of " + t.Name + " that Tidemark has seen; query the view " + t.Name + " for the newest.",
		Labels:      map[string]string{"managed-by": "tidemark"},
	}
	if t.Partition != nil {
		md.TimePartitioning = &bigquery.TimePartitioning{Field: t.Partition.Column, Type: bigquery.TimePartitioningType(strings.ToUpper(t.Partition.Granularity))}
	}
	if fields := t.clustering(); len(fields) > 0 {
		md.Clustering = &bigquery.Clustering{Fields: fields}
	}
	err := dataset.Table(t.LogName()).Create(ctx, md)
	if fault.HTTPStatus(err) != http.StatusNotFound {
		return err
	}
	// The dataset is missing: locally always, in production for new tenants.
	err = dataset.Create(ctx, &bigquery.DatasetMetadata{Location: c.config.Location, Labels: map[string]string{"managed-by": "tidemark"}})
	if err != nil && fault.HTTPStatus(err) != http.StatusConflict {
		return fmt.Errorf("creating dataset %s: %w", t.Dataset, err)
	}
	return dataset.Table(t.LogName()).Create(ctx, md)
}

// clustering is the declared one, or the key as far as BigQuery can cluster by it.
func (t *Table) clustering() []string {
	if len(t.ClusterBy) > 0 {
		return t.ClusterBy
	}
	var out []string
	for _, name := range t.Key {
		if c := t.column(name); c != nil && len(out) < 4 && clusterable(c) {
			out = append(out, name)
		}
	}
	return out
}

func (t *Table) column(name string) *Column {
	i := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Columns[i]
}

func clusterable(c *Column) bool {
	switch c.Kind {
	case rowwire.Bytes, rowwire.Float4, rowwire.Float8, rowwire.JSON, rowwire.JSONB, rowwire.Time:
		return false
	default:
		return !c.Repeated
	}
}

// CheckLayout refuses a partition or cluster column that cannot be one.
func (t *Table) CheckLayout() error {
	if p := t.Partition; p != nil {
		c := t.column(p.Column)
		if c == nil {
			return fault.Fix(fmt.Errorf("partition column %q of %s does not exist", p.Column, t.Name), "correct partition_by in the pipeline file")
		}
		timed := c.Kind == rowwire.Timestamp || c.Kind == rowwire.DateTime || c.Kind == rowwire.Date && p.Granularity != "hour"
		if !timed || c.Repeated {
			return fault.Fix(fmt.Errorf("%s of %s cannot be partitioned by %s", p.Column, t.Name, p.Granularity), "choose a timestamp column, or a date column by day, month or year")
		}
	}
	for _, name := range t.ClusterBy {
		if c := t.column(name); c == nil || !clusterable(c) {
			return fault.Fix(fmt.Errorf("%s cannot be clustered by %q", t.Name, name), "choose an existing column of integer, text, date, timestamp, numeric or boolean type")
		}
	}
	return nil
}

// widen returns the present schema with what is missing added and what is no
// longer required relaxed. Columns the source dropped stay, without values.
func widen(present, wanted bigquery.Schema) (_ bigquery.Schema, changed bool, err error) {
	byName := map[string]*bigquery.FieldSchema{}
	out := make(bigquery.Schema, len(present))
	for i, f := range present {
		field := *f
		out[i] = &field
		byName[strings.ToLower(f.Name)] = &field
	}
	keep := map[string]bool{}
	for _, w := range wanted {
		keep[strings.ToLower(w.Name)] = true
		have := byName[strings.ToLower(w.Name)]
		switch {
		case have == nil:
			field := *w
			field.Required = false // BigQuery adds no required columns
			out, changed = append(out, &field), true
		case have.Type != w.Type || have.Repeated != w.Repeated:
			return nil, false, fault.Fix(fmt.Errorf("column %s is %s in BigQuery and would now be %s", w.Name, describe(have), describe(w)),
				"change the type back, or drop the log table: it is then loaded anew")
		case have.Required && !w.Required:
			have.Required, changed = false, true
		}
	}
	for _, have := range out {
		if have.Required && !keep[strings.ToLower(have.Name)] {
			have.Required, changed = false, true
		}
	}
	return out, changed, nil
}

func describe(f *bigquery.FieldSchema) string {
	if f.Repeated {
		return "ARRAY<" + string(f.Type) + ">"
	}
	return string(f.Type)
}

func (c *Client) ensureView(ctx context.Context, dataset *bigquery.Dataset, t *Table, query string) error {
	view := dataset.Table(t.Name)
	md, err := view.Metadata(ctx)
	if fault.HTTPStatus(err) == http.StatusNotFound {
		err = view.Create(ctx, &bigquery.TableMetadata{
			ViewQuery: query, Labels: map[string]string{"managed-by": "tidemark"},
			Description: "Every row of " + t.LogName() + " as it is now.",
		})
		if fault.HTTPStatus(err) != http.StatusConflict {
			return err
		}
		md, err = view.Metadata(ctx)
	}
	switch {
	case err != nil:
		return err
	case md.Type != bigquery.ViewTable:
		return fault.Fix(fmt.Errorf("%s.%s exists and is no view", t.Dataset, t.Name), "rename or drop that table; append mode needs the name for its view")
	case md.ViewQuery == query:
		return nil
	}
	_, err = view.Update(ctx, bigquery.TableMetadataToUpdate{ViewQuery: query}, md.ETag)
	return err
}

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = quote(name)
	}
	return out
}

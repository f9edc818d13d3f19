package warehouse

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Table is a destination, as people query it by Name.
type Table struct {
	Dataset   string
	Name      string
	Mode      Mode
	Base      string // table with the rows, as Ensure returned it; "" before
	Columns   []Column
	Key       []string
	Partition *Partition
	ClusterBy []string // empty: the key
	Deletes   Deletes
	// MaxStaleness is, of CDC, how old what a query sees may be.
	MaxStaleness time.Duration
	// Anew has a table that can no longer be made to fit replaced by a new one, where it
	// is an error otherwise.
	Anew bool
}

// Partition is the time partitioning of a table.
type Partition struct {
	Column      string
	Granularity string // hour, day, month, year
}

// Placement is where the rows of a table are.
type Placement struct {
	Base     string // name of the table
	Identity string // of that table: one dropped and made anew has another
	// Live says that Name is that table, or a view of it. Otherwise it shows the table
	// before, until GoLive.
	Live bool
}

func (c *Client) path(dataset, table string) string {
	return quote(c.config.Project + "." + dataset + "." + table)
}

// Ensure makes the tables fit the columns: it creates what is missing, adds columns and
// relaxes required ones. What it cannot do without touching data (another type, another
// partitioning) is a permanent error, or has a new table made where t.Anew is set. A
// table of the same name that another mode made stays what readers see, see GoLive; one
// that was not made here is an error.
func (c *Client) Ensure(ctx context.Context, t *Table) (Placement, error) {
	if err := checkNames(t.Name, t.Columns); err != nil {
		return Placement{}, err
	}
	client, err := c.restClient(ctx)
	if err != nil {
		return Placement{}, err
	}
	dataset := client.Dataset(t.Dataset)
	placed := *t
	md, err := c.ensureBase(ctx, dataset, &placed)
	if err != nil {
		return Placement{}, err
	}
	if t.Mode == Merge {
		if err := c.ensureStaging(ctx, dataset, &placed); err != nil {
			return Placement{}, err
		}
	}
	live, err := c.ensureName(ctx, dataset, &placed, md)
	if err != nil {
		return Placement{}, fmt.Errorf("preparing %s.%s: %w", t.Dataset, t.Name, err)
	}
	return Placement{Base: placed.Base, Identity: fmt.Sprintf("%s.%s.%s@%d", c.config.Project, t.Dataset, placed.Base, md.CreationTime.UnixMilli()), Live: live}, nil
}

// Dropped reports whether the table with the rows is not there any more.
func (c *Client) Dropped(ctx context.Context, t *Table) (bool, error) {
	client, err := c.restClient(ctx)
	if err != nil {
		return false, err
	}
	_, err = client.Dataset(t.Dataset).Table(t.BaseName()).Metadata(ctx)
	if fault.HTTPStatus(err) == http.StatusNotFound {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at %s.%s: %w", t.Dataset, t.BaseName(), err)
	}
	return false, nil
}

// ensureBase finds or makes the table with the rows, and sets t.Base.
func (c *Client) ensureBase(ctx context.Context, dataset *bigquery.Dataset, t *Table) (*bigquery.TableMetadata, error) {
	first := 0
	for n := range maxBases {
		if t.base(n) == t.Base {
			first = n
			break
		}
	}
	for n := first; n < maxBases; n++ {
		t.Base = t.base(n)
		md, err := c.ensureTable(ctx, dataset, t)
		var other *otherError
		if errors.As(err, &other) && (n == 0 && t.Mode != Append || t.Anew) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("preparing table %s.%s: %w", t.Dataset, t.Base, err)
		}
		return md, nil
	}
	return nil, fmt.Errorf("preparing table %s.%s: all of %d names are taken", t.Dataset, t.Name, maxBases)
}

// otherError says that a table was made by another mode, or that it cannot be made to
// fit without touching data.
type otherError struct{ error }

func (e *otherError) Unwrap() error { return e.error }

func unfit(err error, remedy string) error { return &otherError{fault.Fix(err, remedy)} }

func (c *Client) ensureTable(ctx context.Context, dataset *bigquery.Dataset, t *Table) (*bigquery.TableMetadata, error) {
	table := dataset.Table(t.Base)
	md, err := table.Metadata(ctx)
	if fault.HTTPStatus(err) == http.StatusNotFound {
		if err := c.create(ctx, dataset, t.Base, t.metadata()); err != nil && fault.HTTPStatus(err) != http.StatusConflict { // another instance was first
			return nil, err
		}
		md, err = table.Metadata(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case t.made(md):
	case managed(md):
		return nil, &otherError{fmt.Errorf("%s was made by another write mode", t.Base)}
	default:
		return nil, fault.Fix(fmt.Errorf("%s.%s exists, and was not made by Tidemark for write: %s", t.Dataset, t.Base, t.Mode), "rename or drop it, or give the pipeline another dataset")
	}
	if err := t.fits(md); err != nil {
		return nil, err
	}
	update, err := t.update(md)
	if err != nil || update == nil {
		return md, err
	}
	return table.Update(ctx, *update, md.ETag)
}

// update is what makes a table fit that can be made to; nil for nothing.
func (t *Table) update(md *bigquery.TableMetadata) (*bigquery.TableMetadataToUpdate, error) {
	var update bigquery.TableMetadataToUpdate
	widened, changed, err := widen(md.Schema, schemaOf(t.Columns))
	if err != nil {
		return nil, err
	}
	if changed {
		update.Schema = widened
	}
	if t.Mode == CDC && !sameStaleness(md.MaxStaleness, t.MaxStaleness) {
		update.MaxStaleness, changed = staleness(t.MaxStaleness), true
	}
	if !changed {
		return nil, nil //nolint:nilnil // there is nothing to do
	}
	return &update, nil
}

// fits refuses a declaration that the table was not made by: BigQuery can neither
// partition a table anew nor give a table with changes another key.
func (t *Table) fits(md *bigquery.TableMetadata) error {
	have, want := md.TimePartitioning, t.partitioning()
	if have == nil {
		have = &bigquery.TimePartitioning{}
	}
	if want == nil {
		want = &bigquery.TimePartitioning{}
	}
	if !strings.EqualFold(have.Field, want.Field) || have.Type != want.Type {
		return unfit(fmt.Errorf("the table is partitioned by %q %s, and partition_by says %q %s", have.Field, have.Type, want.Field, want.Type),
			"change partition_by back, drop the table, or declare schema_changes: resync: it is then loaded anew")
	}
	if t.Mode == CDC && !slices.Equal(primaryKey(md), t.Key) {
		return unfit(fmt.Errorf("the table has the primary key %q, and the source %q", primaryKey(md), t.Key),
			"change the key back, drop the table, or declare schema_changes: resync: it is then loaded anew")
	}
	return nil
}

func (t *Table) partitioning() *bigquery.TimePartitioning {
	if t.Partition == nil {
		return nil
	}
	return &bigquery.TimePartitioning{Field: t.Partition.Column, Type: bigquery.TimePartitioningType(strings.ToUpper(t.Partition.Granularity))}
}

// metadata is what the table with the rows is made from.
func (t *Table) metadata() *bigquery.TableMetadata {
	md := &bigquery.TableMetadata{Schema: schemaOf(t.Columns), Labels: t.labels(), TimePartitioning: t.partitioning()}
	if fields := t.clustering(); len(fields) > 0 {
		md.Clustering = &bigquery.Clustering{Fields: fields}
	}
	switch t.Mode {
	case Append:
		md.Description = "Every version of " + t.Name + " that Tidemark has seen; query the view " + t.Name + " for the newest."
	case History:
		md.Description = "Every version of " + t.Name + " that Tidemark has seen."
	case CDC:
		md.TableConstraints = &bigquery.TableConstraints{PrimaryKey: &bigquery.PrimaryKey{Columns: t.Key}}
		if t.MaxStaleness > 0 {
			md.MaxStaleness = staleness(t.MaxStaleness)
		}
	case Merge, Replace:
	}
	return md
}

// create makes a table, and its dataset where that is missing: locally always, in
// production for new tenants.
func (c *Client) create(ctx context.Context, dataset *bigquery.Dataset, name string, md *bigquery.TableMetadata) error {
	err := dataset.Table(name).Create(ctx, md)
	if fault.HTTPStatus(err) != http.StatusNotFound {
		return err
	}
	err = dataset.Create(ctx, &bigquery.DatasetMetadata{Location: c.config.Location, Labels: map[string]string{"managed-by": "tidemark"}})
	if err != nil && fault.HTTPStatus(err) != http.StatusConflict {
		return fmt.Errorf("creating dataset %s: %w", dataset.DatasetID, err)
	}
	return dataset.Table(name).Create(ctx, md)
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
	case rowwire.Bytes, rowwire.Float4, rowwire.Float8, rowwire.NumericFloat, rowwire.JSON, rowwire.JSONB, rowwire.JSONText, rowwire.Time,
		rowwire.Interval, rowwire.Geography:
		return false
	default:
		return !c.Repeated
	}
}

// maxPrimaryKey is the number of columns that BigQuery allows a primary key.
const maxPrimaryKey = 16

// CheckLayout refuses a partition or cluster column that cannot be one, and a key that
// the mode cannot have.
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
	if t.Mode == CDC && len(t.Key) > maxPrimaryKey {
		return fault.Fix(fmt.Errorf("the key of %s has %d columns, and a primary key in BigQuery at most %d", t.Name, len(t.Key), maxPrimaryKey), "choose another write mode")
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
			return nil, false, unfit(fmt.Errorf("column %s is %s in BigQuery and would now be %s", w.Name, describe(have), describe(w)),
				"change the type back, drop the table, or declare schema_changes: resync: it is then loaded anew")
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

// ensureName makes a view of the table with the rows under the name that people query,
// where that is not the table itself. A name that shows another table is left alone:
// live says whether it shows this one.
func (c *Client) ensureName(ctx context.Context, dataset *bigquery.Dataset, t *Table, base *bigquery.TableMetadata) (live bool, err error) {
	if t.Base == t.Name {
		return true, nil
	}
	query := c.showSQL(t, base.Schema)
	view := dataset.Table(t.Name)
	md, err := view.Metadata(ctx)
	if fault.HTTPStatus(err) == http.StatusNotFound {
		if err := c.createView(ctx, view, t, query); fault.HTTPStatus(err) != http.StatusConflict {
			return err == nil, err
		}
		md, err = view.Metadata(ctx)
	}
	switch {
	case err != nil:
		return false, err
	case !managed(md):
		return false, notOurs(t.Dataset, t.Name)
	case md.Type != bigquery.ViewTable || !strings.Contains(md.ViewQuery, c.path(t.Dataset, t.Base)):
		return false, nil
	case md.ViewQuery == query:
		return true, nil
	}
	_, err = view.Update(ctx, bigquery.TableMetadataToUpdate{ViewQuery: query}, md.ETag)
	return err == nil, err
}

func notOurs(dataset, name string) error {
	return fault.Fix(fmt.Errorf("%s.%s exists, and was not made by Tidemark", dataset, name), "rename or drop it, or give the pipeline another dataset")
}

func (c *Client) createView(ctx context.Context, view *bigquery.Table, t *Table, query string) error {
	return view.Create(ctx, &bigquery.TableMetadata{ViewQuery: query, Labels: t.labels(), Description: "Every row of " + t.Base + " as it is now."})
}

// GoLive has the name that people query show the table with the rows, once that is
// complete. From one view to the next they notice nothing. A table that has the name is
// renamed first, to what it returns: BigQuery puts no view in the place of a table, so
// that a query between the two answers fails, and none sees half a state (I6). It may be
// done again after whatever end of an earlier attempt (I4).
func (c *Client) GoLive(ctx context.Context, t *Table) (retired string, err error) {
	client, err := c.restClient(ctx)
	if err != nil {
		return "", err
	}
	dataset := client.Dataset(t.Dataset)
	retired, err = c.goLive(ctx, dataset, t)
	if err != nil {
		return "", fmt.Errorf("pointing %s.%s to %s: %w", t.Dataset, t.Name, t.BaseName(), err)
	}
	return retired, nil
}

func (c *Client) goLive(ctx context.Context, dataset *bigquery.Dataset, t *Table) (retired string, err error) {
	base, err := dataset.Table(t.BaseName()).Metadata(ctx)
	if err != nil {
		return "", err
	}
	view := dataset.Table(t.Name)
	md, err := view.Metadata(ctx)
	missing := fault.HTTPStatus(err) == http.StatusNotFound
	if err != nil && !missing {
		return "", err
	}
	if !missing && !managed(md) {
		return "", notOurs(t.Dataset, t.Name)
	}
	query := c.showSQL(t, base.Schema)
	if !missing && md.Type == bigquery.ViewTable {
		_, err = view.Update(ctx, bigquery.TableMetadataToUpdate{ViewQuery: query}, md.ETag)
		return "", err
	}
	if !missing {
		retired = fmt.Sprintf("%s_before_%s", t.Name, base.CreationTime.UTC().Format("20060102_150405"))
		if err := c.rename(ctx, t, retired); err != nil {
			return "", err
		}
	}
	return retired, c.createView(ctx, view, t, query)
}

// ErrInUse says that a table cannot be renamed yet: it is for a later run.
var ErrInUse = errors.New("BigQuery renames no table that rows were streamed to within the last hours")

func (c *Client) rename(ctx context.Context, t *Table, name string) error {
	client, err := c.restClient(ctx)
	if err != nil {
		return err
	}
	job, err := client.Query(fmt.Sprintf("ALTER TABLE %s RENAME TO %s", c.path(t.Dataset, t.Name), quote(name))).Run(ctx)
	if err != nil {
		return fmt.Errorf("renaming it: %w", err)
	}
	// The statement is ours, and valid.
	if _, err = finish(ctx, job, fault.Transient); err == nil {
		return nil
	}
	var refused *bigquery.Error
	if ended := job.LastStatus(); ended != nil && errors.As(ended.Err(), &refused) && refused.Reason == "invalidQuery" {
		return fmt.Errorf("renaming it: %w: %w", ErrInUse, err)
	}
	return fmt.Errorf("renaming it: %w", err)
}

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = quote(name)
	}
	return out
}

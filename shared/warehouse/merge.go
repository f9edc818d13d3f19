package warehouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// A batch of Merge goes by a pending stream into T_staging, and from there by one MERGE
// into T. A version wins over older ones only, so that a MERGE done twice, or late,
// changes nothing; its job has an id that is made from the stream's name, so that of
// several processes that start it BigQuery runs one (I4).

// stagingKept is how long what was staged is there. A batch that is not merged by then
// is read from the source again.
const stagingKept = 3 * 24 * time.Hour

func (t *Table) stagingName() string { return t.Name + "_staging" }

// ensureStaging makes the table that batches are merged from. It is made anew where it
// cannot be made to fit: what it holds of an unfinished batch is then read again.
func (c *Client) ensureStaging(ctx context.Context, dataset *bigquery.Dataset, t *Table) error {
	staging := dataset.Table(t.stagingName())
	md, err := staging.Metadata(ctx)
	switch {
	case fault.HTTPStatus(err) == http.StatusNotFound:
	case err != nil:
		return fmt.Errorf("looking at %s: %w", t.stagingName(), err)
	case !managed(md):
		return notOurs(t.Dataset, t.stagingName())
	default:
		update, err := t.update(md)
		if err == nil && update != nil {
			_, err = staging.Update(ctx, *update, md.ETag)
			return err
		}
		if err == nil {
			return nil
		}
		if err := staging.Delete(ctx); err != nil {
			return fmt.Errorf("dropping %s: %w", t.stagingName(), err)
		}
	}
	err = c.create(ctx, dataset, t.stagingName(), &bigquery.TableMetadata{
		Schema: schemaOf(t.Columns), Labels: t.labels(),
		Description:      "Changes of " + t.Name + " on their way; they go by themselves.",
		TimePartitioning: &bigquery.TimePartitioning{Field: SyncedAtColumn, Type: bigquery.HourPartitioningType, Expiration: stagingKept},
	})
	if fault.HTTPStatus(err) == http.StatusConflict {
		return nil
	}
	return err
}

func (c *Client) merge(ctx context.Context, t *Table, b Batch) error {
	client, err := c.restClient(ctx)
	if err != nil {
		return err
	}
	partitions, err := c.mergedPartitions(ctx, client, t, b)
	if err != nil {
		return err
	}
	bounds, err := t.bounds(partitions)
	if err != nil {
		return err
	}
	q := client.Query(c.mergeSQL(t, b, bounds))
	q.Parameters, q.Labels = b.parameters(), b.Labels
	for _, bound := range bounds {
		q.Parameters = append(q.Parameters, bound.parameters...)
	}
	// The statement is ours, and valid: what BigQuery calls invalid once it runs is that
	// somebody else changes the same rows.
	return c.once(ctx, mergeJob, t, b, fault.Transient, func(id string) (*bigquery.Job, error) {
		q.JobID = id
		return q.Run(ctx)
	})
}

// parameters pick the rows of the batch.
func (b *Batch) parameters() []bigquery.QueryParameter {
	return []bigquery.QueryParameter{{Name: "at", Value: b.At}, {Name: "prefix", Value: b.Version}}
}

// staged is the condition for the rows of the batch: its first half leaves the other
// partitions of the staging table alone.
func staged(alias string) string {
	return fmt.Sprintf("%[1]s.%[2]s = @at AND STARTS_WITH(%[1]s.%[3]s, @prefix)", alias, quote(SyncedAtColumn), quote(VersionColumn))
}

// The kinds of jobs that commit batches.
const (
	mergeJob = "merge"
	loadJob  = "load"
)

// jobOf is the id of the job that commits a batch: no other batch has it.
func jobOf(kind string, t *Table, b Batch) string {
	sum := sha256.Sum256([]byte(b.Name))
	return "tidemark_" + kind + "_" + jobName(t.Name) + "_" + hex.EncodeToString(sum[:16])
}

// once runs the job that commits a batch, which BigQuery does at most once: where it was
// started before, or may have been, that job is looked up. A job that failed, or that
// BigQuery would not start, is a *CommitError; invalid is the class of one that BigQuery
// found invalid.
func (c *Client) once(ctx context.Context, kind string, t *Table, b Batch, invalid fault.Class, run func(id string) (*bigquery.Job, error)) error {
	id := jobOf(kind, t, b)
	job, err := run(id)
	switch fault.HTTPStatus(err) {
	case http.StatusConflict:
		if job, err = c.started(ctx, id); err == nil && forgotten(job) {
			return &CommitError{Name: b.Name, Err: fmt.Errorf("job %s was never started: %w", id, errForgotten)}
		}
	case http.StatusBadRequest, http.StatusNotFound:
		return &CommitError{Name: b.Name, Err: fmt.Errorf("starting job %s: %w", id, err)}
	}
	if err != nil {
		return fmt.Errorf("starting job %s: %w", id, err)
	}
	if _, err := finish(ctx, job, invalid); err != nil {
		if ended := job.LastStatus(); ended != nil && ended.Done() {
			return &CommitError{Name: b.Name, Err: err}
		}
		return err
	}
	return nil
}

func (c *Client) started(ctx context.Context, id string) (*bigquery.Job, error) {
	client, err := c.restClient(ctx)
	if err != nil {
		return nil, err
	}
	return client.JobFromIDLocation(ctx, id, client.Location)
}

// A job that takes up the id of one that shall never run has the label.
const (
	purposeLabel = "tidemark-purpose"
	forgetting   = "forget"
)

var errForgotten = errors.New("the batch was given up")

func forgotten(job *bigquery.Job) bool {
	config, err := job.Config()
	if err != nil {
		return false
	}
	query, ok := config.(*bigquery.QueryConfig)
	return ok && query.Labels[purposeLabel] == forgetting
}

// Forget makes sure that a finished batch which is not wanted any more does nothing
// later: a job that commits it is waited for, and one that was not started yet never
// will be, because its id is used up. Who still tries has a *CommitError.
func (c *Client) Forget(ctx context.Context, t *Table, b Batch) error {
	kind := loadJob
	if !b.loaded() {
		if kind = mergeJob; !strings.Contains(b.Name, "/tables/"+t.stagingName()+"/") {
			return nil // no job has to do with it
		}
	}
	client, err := c.restClient(ctx)
	if err != nil {
		return err
	}
	q := client.Query("SELECT 1")
	q.Labels = map[string]string{purposeLabel: forgetting}
	err = c.once(ctx, kind, t, b, fault.Transient, func(id string) (*bigquery.Job, error) {
		q.JobID = id
		return q.Run(ctx)
	})
	if _, failed := errors.AsType[*CommitError](err); failed {
		return nil
	}
	return err
}

// mergedPartitions are the partitions that the batch's rows belong to, and those where
// versions of them are: a row whose partition value changed leaves one for the other.
func (c *Client) mergedPartitions(ctx context.Context, client *bigquery.Client, t *Table, b Batch) ([]string, error) {
	if t.Partition == nil {
		return []string{WholeLog}, nil
	}
	if slices.Contains(t.Key, t.Partition.Column) {
		return b.Partitions, nil
	}
	q := client.Query(c.placesSQL(t))
	q.Parameters, q.Labels = b.parameters(), b.Labels
	var places []bigquery.Value
	if err := queryRow(ctx, q, &places); err != nil {
		return nil, fmt.Errorf("looking where the rows of the batch are: %w", err)
	}
	out := slices.Clone(b.Partitions)
	for _, id := range partitionIDs(places) {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, nil
}

// placesSQL selects the ids of the partitions with versions of the batch's rows: it
// reads two columns of the table, or so.
func (c *Client) placesSQL(t *Table) string {
	old := alias("old", append(slices.Clone(t.Key), t.Partition.Column))
	same := make([]string, len(t.Key))
	for i, name := range quoteAll(t.Key) {
		same[i] = "s." + name + " = " + old + "." + name
	}
	return fmt.Sprintf("SELECT ARRAY_AGG(DISTINCT %s) FROM %s AS %s WHERE EXISTS (SELECT 1 FROM (SELECT * FROM %s AS v WHERE %s) AS s WHERE %s)",
		t.placeSQL(old), c.path(t.Dataset, t.BaseName()), old, c.path(t.Dataset, t.stagingName()), staged("v"), strings.Join(same, " AND "))
}

// placeSQL is the id of the partition that a row lies in.
func (t *Table) placeSQL(alias string) string {
	format := map[rowwire.Kind]string{rowwire.Date: "FORMAT_DATE", rowwire.DateTime: "FORMAT_DATETIME"}[t.column(t.Partition.Column).Kind]
	if format == "" {
		format = "FORMAT_TIMESTAMP"
	}
	layout := map[string]string{"hour": "%E4Y%m%d%H", "day": "%E4Y%m%d", "month": "%E4Y%m", "year": "%E4Y"}[t.Partition.Granularity]
	return fmt.Sprintf("IFNULL(%s('%s', %s.%s), '%s')", format, layout, alias, quote(t.Partition.Column), NullPartition)
}

func (c *Client) mergeSQL(t *Table, b Batch, bounds []bound) string {
	var names []string
	for _, f := range schemaOf(t.Columns) {
		names = append(names, f.Name)
	}
	flag := alias("has_values", names)
	target, source := alias("t", names), alias("s", names)
	version, deleted := quote(VersionColumn), quote(DeletedColumn)
	on := make([]string, 0, len(t.Key)+1)
	for _, name := range quoteAll(t.Key) {
		on = append(on, target+"."+name+" = "+source+"."+name)
	}
	within := make([]string, len(bounds))
	for i, bound := range bounds {
		within[i] = bound.on(target)
	}
	on = append(on, "("+strings.Join(within, " OR ")+")")
	newer := fmt.Sprintf("%s.%s > %s.%s", source, version, target, version)
	set := func(names []string) string {
		out := make([]string, len(names))
		for i, name := range quoteAll(names) {
			out[i] = name + " = " + source + "." + name
		}
		return strings.Join(out, ", ")
	}
	var sql strings.Builder
	fmt.Fprintf(&sql, "MERGE %s AS %s USING (%s) AS %s ON %s", c.path(t.Dataset, t.BaseName()), target,
		t.newestSQL(c.path(t.Dataset, t.stagingName()), names, c.mergedSQL(t, b, names), flag), source, strings.Join(on, " AND "))
	inserted := ""
	switch t.Deletes {
	case HardDeletes:
		fmt.Fprintf(&sql, " WHEN MATCHED AND %s AND %s.%s THEN DELETE", newer, source, deleted)
		fmt.Fprintf(&sql, " WHEN MATCHED AND %s THEN UPDATE SET %s", newer, set(names))
		inserted = fmt.Sprintf(" AND NOT %s.%s", source, deleted)
	case SoftDeletes:
		fmt.Fprintf(&sql, " WHEN MATCHED AND %s AND %s.%s THEN UPDATE SET %s", newer, source, quote(flag), set(names))
		fmt.Fprintf(&sql, " WHEN MATCHED AND %s THEN UPDATE SET %s", newer, set([]string{VersionColumn, SyncedAtColumn, DeletedColumn}))
	case IgnoreDeletes:
		fmt.Fprintf(&sql, " WHEN MATCHED AND %s THEN UPDATE SET %s", newer, set(names))
	}
	fmt.Fprintf(&sql, " WHEN NOT MATCHED%s THEN INSERT (%s) VALUES (%s.%s)", inserted,
		strings.Join(quoteAll(names), ", "), source, strings.Join(quoteAll(names), ", "+source+"."))
	return sql.String()
}

// mergedSQL is the condition for the versions that are merged. Of a row that is gone
// from the table no version says so any more, so that one which a backfill read before
// is compared with what was staged since.
func (c *Client) mergedSQL(t *Table, b Batch, names []string) string {
	v := alias("v", names)
	where := staged(v)
	if !b.Backfilled || t.Deletes != HardDeletes {
		return where
	}
	gone := alias("gone", names)
	conditions := []string{gone + "." + quote(DeletedColumn), gone + "." + quote(VersionColumn) + " > " + v + "." + quote(VersionColumn)}
	for _, name := range quoteAll(t.Key) {
		conditions = append(conditions, gone+"."+name+" = "+v+"."+name)
	}
	return where + fmt.Sprintf(" AND NOT EXISTS (SELECT 1 FROM %s AS %s WHERE %s)", c.path(t.Dataset, t.stagingName()), gone, strings.Join(conditions, " AND "))
}

package warehouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Cleanup is what a clean-up did.
type Cleanup struct {
	Deleted    int64
	Bytes      int64 // processed
	Jobs       []string
	Partitions []string // that it is done with, as they were given
}

// NullPartition is the id of the partition of rows without a partition value,
// WholeLog the stand-in for all of an unpartitioned log.
const (
	NullPartition = "__NULL__"
	WholeLog      = ""
)

// Dedup deletes from the log the versions that no view needs any more, in the
// given partitions only; WholeLog among them means all. Those are the versions of
// a key that a newer one supersedes; but a tombstone supersedes only tombstones
// unless deletes are hard, because the newest version below it has the values
// that readers see. What it deletes depends on what is there at the time and
// never on order, so it may run beside any append, and readers of the view
// notice nothing (I6).
//
// A version is left alone while its successor lies in another partition that is
// not among neighbours given, except that under HardDeletes tombstones, which lie
// in NullPartition unless the key has the partition column, are looked for from
// every partition. So these stay until their partition is given together with
// the successor's, or until WholeLog is: versions of a row whose partition value
// has changed; the last values of a row deleted under HardDeletes, until
// something else happens in their partition; tombstones of rows that came back. What
// belongs to a tombstone leaves with it, too: see Expire.
//
// Only logs have superseded versions to clean up: of other modes it does nothing.
//
// It returns when BigQuery's jobs have ended, with an error if one failed, and
// refuses to start a job whose estimate is over maxBytes, which does not keep it from
// the other partitions.
func (c *Client) Dedup(ctx context.Context, t *Table, partitions []string, maxBytes int64, labels map[string]string) (Cleanup, error) {
	var done Cleanup
	if t.Mode != Append {
		return done, nil
	}
	client, err := c.restClient(ctx)
	if err != nil {
		return done, err
	}
	if t, err = t.asLog(ctx, client); err != nil || t == nil {
		return done, err
	}
	bounds, err := t.bounds(partitions)
	if err != nil {
		return done, err
	}
	j := jobs{client: client, table: t, kind: "dedup", maxBytes: maxBytes, labels: labels, done: &done}
	var over []error
	for _, b := range bounds {
		err := j.delete(ctx, c.dedupSQL(t, b), b.parameters)
		if err != nil {
			err = fmt.Errorf("cleaning up %s %s: %w", t.BaseName(), b.name, err)
		}
		var tooMuch *overError
		switch {
		case err == nil:
			done.Partitions = append(done.Partitions, b.partitions...)
		case errors.As(err, &tooMuch):
			over = append(over, err)
		default:
			return done, errors.Join(append(over, err)...)
		}
	}
	return done, errors.Join(over...)
}

// asLog is the table with the column that it is partitioned by, which is asked of the log
// where the table has none. It is nil where the table is no log: where another mode is
// declared than the one that made it, and nothing has been made by the new one yet.
func (t *Table) asLog(ctx context.Context, client *bigquery.Client) (*Table, error) {
	log, err := client.Dataset(t.Dataset).Table(t.BaseName()).Metadata(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", t.BaseName(), err)
	}
	switch {
	case !t.made(log):
		return nil, nil //nolint:nilnil // there is nothing to clean up
	case t.Partition == nil || t.column(t.Partition.Column) != nil:
		return t, nil
	}
	kind := rowwire.Timestamp
	for _, f := range log.Schema {
		switch {
		case f.Name != t.Partition.Column:
		case f.Type == bigquery.DateFieldType:
			kind = rowwire.Date
		case f.Type == bigquery.DateTimeFieldType:
			kind = rowwire.DateTime
		}
	}
	with := *t
	with.Columns = append(slices.Clone(t.Columns), Column{Name: t.Partition.Column, Kind: kind})
	return &with, nil
}

// jobs are the statements of one clean-up.
type jobs struct {
	client   *bigquery.Client
	table    *Table
	kind     string // what they are named after
	maxBytes int64
	labels   map[string]string
	done     *Cleanup // what they add to
}

// overError refuses a statement that would read too much.
type overError struct{ error }

func (e *overError) Unwrap() error { return e.error }

// query prepares a statement, once it is known what it will read.
func (j *jobs) query(ctx context.Context, sql string, parameters []bigquery.QueryParameter) (*bigquery.Query, error) {
	q := j.client.Query(sql)
	q.Parameters, q.Labels, q.DryRun = parameters, j.labels, true
	dry, err := q.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("estimating: %w", err)
	}
	if bytes := dry.LastStatus().Statistics.TotalBytesProcessed; bytes > j.maxBytes {
		return nil, &overError{fault.Fix(fmt.Errorf("it would process %d bytes, more than dedup.max_bytes (%d)", bytes, j.maxBytes),
			"raise dedup.max_bytes, or partition the table")}
	}
	q.DryRun = false
	q.MaxBytesBilled = max(j.maxBytes, 10<<20) // BigQuery bills 10 MB at least
	return q, nil
}

func (j *jobs) delete(ctx context.Context, sql string, parameters []bigquery.QueryParameter) error {
	q, err := j.query(ctx, sql, parameters)
	if err != nil {
		return err
	}
	change, err := runDML(ctx, q, j.kind, j.table)
	if change.job != "" {
		j.done.Jobs = append(j.done.Jobs, change.job)
	}
	j.done.Bytes += change.bytes
	j.done.Deleted += change.rows
	return err
}

// ask returns the one value that a query selects, and when it was asked, by BigQuery's
// clock.
func (j *jobs) ask(ctx context.Context, sql string, parameters []bigquery.QueryParameter) (value bigquery.Value, at time.Time, err error) {
	q, err := j.query(ctx, sql, parameters)
	if err != nil {
		return nil, at, err
	}
	job, err := q.Run(ctx)
	if err != nil {
		return nil, at, fmt.Errorf("starting the job: %w", err)
	}
	j.done.Jobs = append(j.done.Jobs, job.ID())
	status, err := finish(ctx, job, fault.Permanent)
	if err != nil {
		return nil, at, err
	}
	j.done.Bytes += status.Statistics.TotalBytesProcessed
	value, err = oneValue(ctx, job)
	return value, status.Statistics.CreationTime, err
}

func (c *Client) dedupSQL(t *Table, b bound) string {
	log := c.path(t.Dataset, t.BaseName())
	columns := append(slices.Clone(t.Key), VersionColumn)
	old := alias("old", columns)
	conditions := make([]string, 0, len(columns)+1)
	for _, name := range quoteAll(t.Key) {
		conditions = append(conditions, "newer."+name+" = "+old+"."+name)
	}
	// Strictly newer: of two doubles neither is deleted on the other's account.
	conditions = append(conditions, "newer."+quote(VersionColumn)+" > "+old+"."+quote(VersionColumn))
	if t.Deletes != HardDeletes {
		columns = append(columns, DeletedColumn)
		conditions = append(conditions, "("+old+"."+quote(DeletedColumn)+" OR NOT newer."+quote(DeletedColumn)+")")
	}
	// Only these columns are in sight of the conditions, lest one of the log has the
	// name of the table outside.
	read := "SELECT log." + strings.Join(quoteAll(columns), ", log.") + " FROM " + log + " AS log WHERE "
	newer := read + b.on("log")
	if b.span && t.tombstonesElsewhere() { // two scans, each bounded by constants
		newer += " UNION ALL " + read + "log." + quote(t.Partition.Column) + " IS NULL"
	}
	return fmt.Sprintf("DELETE FROM %s AS %s WHERE %s AND EXISTS (SELECT 1 FROM (%s) AS newer WHERE %s)",
		log, old, b.on(old), newer, strings.Join(conditions, " AND "))
}

// tombstonesElsewhere says whether a tombstone that supersedes a version lies in
// NullPartition, because tombstones have no values but the key's.
func (t *Table) tombstonesElsewhere() bool {
	return t.Deletes == HardDeletes && t.Partition != nil && !t.placesTombstones()
}

// placesTombstones says whether a tombstone lies where the versions of its key do.
func (t *Table) placesTombstones() bool {
	return slices.Contains(t.Key, t.Partition.Column)
}

// bound limits a statement to neighbouring partitions by constants, which is
// what lets BigQuery leave the others alone.
type bound struct {
	name       string
	partitions []string
	span       bool // of time; not the whole log, nor the partition of NULL
	on         func(alias string) string
	parameters []bigquery.QueryParameter
}

func (t *Table) bounds(partitions []string) ([]bound, error) {
	if len(partitions) == 0 {
		return nil, nil
	}
	if t.Partition == nil || slices.Contains(partitions, WholeLog) {
		return []bound{{name: "as a whole", partitions: partitions, on: func(string) string { return "TRUE" }}}, nil
	}
	column := quote(t.Partition.Column)
	var out []bound
	var from, to time.Time // where within has any
	var within []string
	spans := 0
	flush := func() {
		if len(within) > 0 {
			b := t.between(column, from, to, spans)
			b.partitions = within
			out = append(out, b)
			spans++
		}
	}
	for _, id := range slices.Sorted(slices.Values(partitions)) {
		if id == NullPartition {
			out = append(out, bound{name: id, partitions: []string{id}, on: func(alias string) string { return alias + "." + column + " IS NULL" }})
			continue
		}
		start, end, err := t.Partition.span(id)
		if err != nil {
			return nil, err
		}
		if len(within) > 0 && start.Equal(to) {
			to, within = end, append(within, id)
			continue
		}
		flush()
		from, to, within = start, end, []string{id}
	}
	flush()
	return out, nil
}

// between bounds to a span of time, the n-th of a statement.
func (t *Table) between(column string, from, to time.Time, n int) bound {
	value := func(at time.Time) any {
		switch c := t.column(t.Partition.Column); {
		case c != nil && c.Kind == rowwire.Date:
			return civil.DateOf(at)
		case c != nil && c.Kind == rowwire.DateTime:
			return civil.DateTimeOf(at)
		}
		return at
	}
	b := bound{
		span: true,
		name: from.Format(time.RFC3339) + " to " + to.Format(time.RFC3339),
		on: func(alias string) string {
			return fmt.Sprintf("%[1]s.%[2]s >= @from%[3]d AND %[1]s.%[2]s < @to%[3]d", alias, column, n)
		},
		parameters: []bigquery.QueryParameter{{Name: fmt.Sprintf("from%d", n), Value: value(from)}, {Name: fmt.Sprintf("to%d", n), Value: value(to)}},
	}
	if to.Year() > maxYear { // the first moment that BigQuery has no value for
		b.on = func(alias string) string { return fmt.Sprintf("%s.%s >= @from%d", alias, column, n) }
		b.parameters = b.parameters[:1]
	}
	return b
}

// maxYear is the last that BigQuery's dates and times have.
const maxYear = 9999

// span is the time a partition id covers, its end exclusive.
func (p *Partition) span(id string) (from, to time.Time, err error) {
	layouts := map[string]string{"hour": "2006010215", "day": "20060102", "month": "200601", "year": "2006"}
	from, err = time.Parse(layouts[p.Granularity], id)
	if err != nil {
		return from, to, fmt.Errorf("reading partition id %q: %w", id, err)
	}
	switch p.Granularity {
	case "hour":
		return from, from.Add(time.Hour), nil
	case "day":
		return from, from.AddDate(0, 0, 1), nil
	case "month":
		return from, from.AddDate(0, 1, 0), nil
	}
	return from, from.AddDate(1, 0, 0), nil
}

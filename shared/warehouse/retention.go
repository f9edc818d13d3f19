package warehouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
)

// Retention says which deleted rows leave the log.
type Retention struct {
	// Keep is how long a row stays after its tombstone, by BigQuery's clock and the
	// tombstone's _synced_at.
	Keep time.Duration
	// Below ends the versions that are looked at: what lands after it was taken has
	// newer ones, whatever any clock says.
	Below string
}

// Expire deletes every version of the rows that were deleted longer than r.Keep ago:
// those up to a tombstone that is the newest of its key, and older ones. All of a row
// goes in one statement, from whichever partitions it lies in, so that no older version
// is seen again without its tombstone. Under IgnoreDeletes tombstones hide nothing, and
// it does nothing.
//
// The caller makes sure that no version older than a tombstone which is in the log can
// land any more: that there is no unfinished backfill, and nothing pending.
//
// To find out that there is nothing to do takes a look at NullPartition, where tombstones
// lie unless the key has the partition column. To find out where their rows lie, it reads
// the key and two more columns of the whole log. What it deletes from is bounded by
// constants to those partitions. It returns when BigQuery's jobs have ended, with an
// error if one failed, and refuses to start a job whose estimate is over maxBytes.
func (c *Client) Expire(ctx context.Context, t *Table, r Retention, maxBytes int64, labels map[string]string) (Cleanup, error) {
	var done Cleanup
	if t.Mode != Append || t.Deletes == IgnoreDeletes || r.Keep <= 0 {
		return done, nil
	}
	client, err := c.restClient(ctx)
	if err != nil {
		return done, err
	}
	if t, err = t.asLog(ctx, client); err != nil || t == nil {
		return done, err
	}
	if err := c.expire(ctx, r, &jobs{client: client, table: t, kind: "expire", maxBytes: maxBytes, labels: labels, done: &done}); err != nil {
		return done, fmt.Errorf("removing rows deleted long ago from %s: %w", t.BaseName(), err)
	}
	return done, nil
}

func (c *Client) expire(ctx context.Context, r Retention, j *jobs) error {
	parameters := []bigquery.QueryParameter{{Name: "below", Value: r.Below}}
	oldest, now, err := j.ask(ctx, c.oldestSQL(j.table), parameters)
	if err != nil {
		return err
	}
	cutoff := now.Add(-r.Keep)
	if at, ok := oldest.(time.Time); !ok || !at.Before(cutoff) { // none is NULL
		return nil
	}
	parameters = append(parameters, bigquery.QueryParameter{Name: "cutoff", Value: cutoff})
	partitions := []string{WholeLog}
	if j.table.Partition != nil {
		places, _, err := j.ask(ctx, c.expiredPlacesSQL(j.table), parameters)
		if err != nil {
			return err
		}
		partitions = partitionIDs(places)
	}
	bounds, err := j.table.bounds(partitions)
	if err != nil || len(bounds) == 0 {
		return err
	}
	for _, b := range bounds {
		parameters = append(parameters, b.parameters...)
	}
	if err := j.delete(ctx, c.expireSQL(j.table, bounds), parameters); err != nil {
		return err
	}
	j.done.Partitions = partitions
	return nil
}

// oldestSQL selects since when that row is deleted which has been for the longest; NULL
// where there is none.
func (c *Client) oldestSQL(t *Table) string {
	v := t.versionAlias()
	return fmt.Sprintf("SELECT MIN(deleted.since) FROM (SELECT MAX(%s.%s) AS since FROM %s) AS deleted", v, quote(SyncedAtColumn), c.tombstonesSQL(t, v))
}

// tombstonesSQL is what follows FROM in a query of the tombstones v of each key that has
// no newer one than may be looked at.
func (c *Client) tombstonesSQL(t *Table, v string) string {
	where := v + "." + quote(DeletedColumn)
	if t.Partition != nil && !t.placesTombstones() {
		where = v + "." + quote(t.Partition.Column) + " IS NULL AND " + where
	}
	return fmt.Sprintf("%s AS %s WHERE %s GROUP BY %s HAVING MAX(%s.%s) < @below",
		c.path(t.Dataset, t.BaseName()), v, where, t.keyOf(v), v, quote(VersionColumn))
}

// expiredSQL is the condition for versions old of a row that was deleted long ago. All
// tombstones of its key are from then, so that none is left without the row's values.
// What is newer than they are stays: the row came back.
func (c *Client) expiredSQL(t *Table, old string) string {
	v := t.versionAlias()
	gone, upto := alias("gone", t.Key), alias("upto", t.Key)
	conditions := []string{gone + "." + upto + " >= " + old + "." + quote(VersionColumn)}
	for _, name := range quoteAll(t.Key) {
		conditions = append(conditions, gone+"."+name+" = "+old+"."+name)
	}
	return fmt.Sprintf("EXISTS (SELECT 1 FROM (SELECT %s, MAX(%s.%s) AS %s FROM %s AND MAX(%s.%s) < @cutoff) AS %s WHERE %s)",
		t.keyOf(v), v, quote(VersionColumn), upto, c.tombstonesSQL(t, v), v, quote(SyncedAtColumn), gone, strings.Join(conditions, " AND "))
}

func (c *Client) expiredPlacesSQL(t *Table) string {
	old := t.oldAlias()
	return fmt.Sprintf("SELECT ARRAY_AGG(DISTINCT %s) FROM %s AS %s WHERE %s", t.placeSQL(old), c.path(t.Dataset, t.BaseName()), old, c.expiredSQL(t, old))
}

func (c *Client) expireSQL(t *Table, bounds []bound) string {
	old := t.oldAlias()
	within := make([]string, len(bounds))
	for i, b := range bounds {
		within[i] = b.on(old)
	}
	return fmt.Sprintf("DELETE FROM %s AS %s WHERE (%s) AND %s", c.path(t.Dataset, t.BaseName()), old, strings.Join(within, " OR "), c.expiredSQL(t, old))
}

func (t *Table) keyOf(alias string) string {
	return alias + "." + strings.Join(quoteAll(t.Key), ", "+alias+".")
}

func (t *Table) versionAlias() string { return alias("v", t.compared()) }

func (t *Table) oldAlias() string { return alias("old", t.compared()) }

// compared are the columns that tell versions, and which partition each is in.
func (t *Table) compared() []string {
	out := append(slices.Clone(t.Key), VersionColumn, SyncedAtColumn, DeletedColumn)
	if t.Partition != nil {
		out = append(out, t.Partition.Column)
	}
	return out
}

// partitionIDs is the result of a query for an array of them.
func partitionIDs(places bigquery.Value) []string {
	var out []string
	values, _ := places.([]bigquery.Value)
	for _, value := range values {
		if id, ok := value.(string); ok {
			out = append(out, id)
		}
	}
	return out
}

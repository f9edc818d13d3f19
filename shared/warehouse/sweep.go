package warehouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/bigquery"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// Sweep says which rows have left the source without a delete of each: all of
// those that the source had before a TRUNCATE, or those that a complete read of
// the table did not come across.
type Sweep struct {
	// Below ends the versions of what is gone: a row stays if its newest version
	// is Below or newer. It is the version of a truncation, or the beginning of a
	// generation that reads the table anew (see GenerationPrefix).
	Below string
	// Version is that of the tombstones. It is Below or newer, so that a sweep
	// does nothing to what it has swept; no row may have it.
	Version string
	At      time.Time // their _synced_at
	Since   time.Time // every version below Below had been written by then
	// Keep are keys, as texts in the order of Table.Key, whose rows stay whatever their
	// version: see Table.TellsKeys.
	Keep   [][]string
	Labels map[string]string
}

// Swept is what a sweep did.
type Swept struct {
	Rows  int64 // tombstones written
	Bytes int64 // processed
	Job   string
	// Partitions are those that a clean-up should be given because of it, as
	// Dedup takes them. They do not depend on Rows: it may be an attempt before
	// this one that wrote the tombstones.
	Partitions []string
}

// Sweep writes a tombstone for every key whose newest version is below s.Below and none
// itself, or does to its row in the table what that tombstone would. All of it becomes
// visible together (I6), but for CDC. Done again, after whatever end of an earlier
// attempt, it adds what is missing and leads to the same state; two at a time may write
// doubles of a tombstone, which views show once (I4). Under IgnoreDeletes nothing leaves
// the warehouse, and under Replace nothing is left to leave: it does nothing. The error
// ErrStale says that it has to wait.
//
// It reads the key and two more columns of the whole table, and returns when BigQuery's
// job has ended. There is no cap of bytes: not to sweep would leave rows in the
// warehouse that the source no longer has.
func (c *Client) Sweep(ctx context.Context, t *Table, s Sweep) (Swept, error) {
	if t.Deletes == IgnoreDeletes || t.Mode == Replace {
		return Swept{}, nil
	}
	if s.Below == "" || s.Version < s.Below || s.At.IsZero() {
		return Swept{}, fmt.Errorf("sweeping %s: below %q with version %q at %s: %w", t.BaseName(), s.Below, s.Version, s.At, errSweep)
	}
	sweep := c.sweepRows
	if t.Mode == CDC {
		sweep = c.sweepChanges
	}
	swept, err := sweep(ctx, t, s)
	if err != nil {
		return swept, fmt.Errorf("sweeping %s: %w", t.BaseName(), err)
	}
	return swept, nil
}

// errSweep refuses a sweep that would not come to an end.
var errSweep = errors.New("a sweep needs a bound, a version not below it and a time")

func (c *Client) sweepRows(ctx context.Context, t *Table, s Sweep) (Swept, error) {
	client, err := c.restClient(ctx)
	if err != nil {
		return Swept{}, err
	}
	q := client.Query(c.sweepSQL(t, len(s.Keep) > 0))
	q.Labels = s.Labels
	q.Parameters = []bigquery.QueryParameter{{Name: "below", Value: s.Below}, {Name: "version", Value: s.Version}, {Name: "at", Value: s.At}}
	if len(s.Keep) > 0 {
		q.Parameters = append(q.Parameters, bigquery.QueryParameter{Name: "keep", Value: keyTexts(s.Keep)})
	}
	done, err := runDML(ctx, q, "sweep", t)
	swept := Swept{Job: done.job, Bytes: done.bytes, Rows: done.rows}
	if err == nil && t.Mode == Append {
		swept.Partitions = t.sweptPartitions()
	}
	return swept, err
}

func (c *Client) sweepSQL(t *Table, keep bool) string {
	base := c.path(t.Dataset, t.BaseName())
	version, deleted := quote(VersionColumn), quote(DeletedColumn)
	v := alias("v", t.Key)
	kept := ""
	if keep {
		kept = " AND " + t.keyTextSQL(v) + " NOT IN UNNEST(@keep)"
	}
	switch {
	case t.Mode == Merge && t.Deletes == HardDeletes:
		return fmt.Sprintf("DELETE FROM %s AS %s WHERE %[2]s.%[3]s < @below%[4]s", base, v, version, kept)
	case t.Mode == Merge:
		return fmt.Sprintf("UPDATE %s AS %s SET %s = @version, %s = @at, %[5]s = TRUE WHERE %[2]s.%[3]s < @below AND NOT %[2]s.%[5]s%[6]s",
			base, v, version, quote(SyncedAtColumn), deleted, kept)
	}
	key := v + "." + strings.Join(quoteAll(t.Key), ", "+v+".")
	return fmt.Sprintf("INSERT INTO %s (%s, %s, %s, %s) SELECT %s, @version, @at, TRUE FROM %s AS %s WHERE TRUE%s GROUP BY %s",
		base, strings.Join(quoteAll(t.Key), ", "), version, quote(SyncedAtColumn), deleted, key, base, v, kept, key) +
		// Doubles of a version are alike, so that any of them may answer.
		fmt.Sprintf(" HAVING MAX(%[1]s.%[2]s) < @below AND NOT ANY_VALUE(%[1]s.%[3]s HAVING MAX %[1]s.%[2]s)", v, version, deleted)
}

// TellsKeys reports whether a sweep can leave rows out by Sweep.Keep: whether the text of
// their keys is the same here as in Postgres, trailing blanks apart.
func (t *Table) TellsKeys() bool {
	for _, name := range t.Key {
		c := t.column(name)
		if c == nil || len(c.HashKey) > 0 {
			return false
		}
		switch c.Kind {
		case rowwire.Int2, rowwire.Int4, rowwire.Int8, rowwire.Text, rowwire.UUID:
		default:
			return false
		}
	}
	return t.Mode != CDC
}

// keyTextSQL writes a row's key as keyTexts does: each part after its length, so that no
// two keys have one text.
func (t *Table) keyTextSQL(alias string) string {
	parts := make([]string, len(t.Key))
	for i, name := range quoteAll(t.Key) {
		text := fmt.Sprintf("RTRIM(CAST(%s.%s AS STRING), ' ')", alias, name)
		parts[i] = fmt.Sprintf("CAST(CHAR_LENGTH(%[1]s) AS STRING), ':', %[1]s", text)
	}
	return "CONCAT(" + strings.Join(parts, ", ") + ")"
}

func keyTexts(keys [][]string) []string {
	out := make([]string, len(keys))
	for i, key := range keys {
		for _, part := range key {
			part = strings.TrimRight(part, " ")
			out[i] += fmt.Sprintf("%d:%s", utf8.RuneCountInString(part), part)
		}
	}
	return out
}

// sweptPartitions are those with something to clean up after a sweep: the
// tombstones' own, or everything where that is not one, or where they supersede
// the versions of all.
func (t *Table) sweptPartitions() []string {
	if t.Partition == nil || t.Deletes == HardDeletes || t.placesTombstones() {
		return []string{WholeLog}
	}
	return []string{NullPartition}
}

package warehouse

import (
	"fmt"
	"strings"

	"cloud.google.com/go/bigquery"
)

// Mode is how rows land. What is its own stands in a file of its own.
type Mode uint8

// The write modes of DESIGN.md.
const (
	// Append keeps every version in T_log, and shows the newest of each key in the view T.
	Append Mode = iota
	// History keeps every version in the table T, for ever.
	History
	// Merge keeps the table T by a MERGE of each batch: see merge.go.
	Merge
	// CDC has BigQuery keep the table T by its primary key: see cdc.go.
	CDC
	// Replace fills the table T anew with each batch: see load.go.
	Replace
)

// String returns the mode as pipeline files have it.
func (m Mode) String() string { return [...]string{"append", "history", "merge", "cdc", "replace"}[m] }

// modeLabel says of a table by which mode it was made. Logs that have none are from
// before there were others.
const modeLabel = "tidemark-mode"

func (t *Table) labels() map[string]string {
	return map[string]string{"managed-by": "tidemark", modeLabel: t.Mode.String()}
}

// managed reports whether a table or view was made here.
func managed(md *bigquery.TableMetadata) bool { return md.Labels["managed-by"] == "tidemark" }

// made reports whether a table was made by the mode.
func (t *Table) made(md *bigquery.TableMetadata) bool {
	if md.Type != bigquery.RegularTable {
		return false
	}
	label, labelled := md.Labels[modeLabel]
	return label == t.Mode.String() || !labelled && t.Mode == Append
}

// base returns the n-th name, from 0, that the table with the rows may have. T itself
// is the first, but for a log; a table made by another mode, or that can no longer be
// made to fit, has the next one take over.
func (t *Table) base(n int) string {
	switch {
	case t.Mode == Append && n == 0:
		return t.Name + "_log"
	case t.Mode == Append:
		return fmt.Sprintf("%s_log_%d", t.Name, n+1)
	case n == 0:
		return t.Name
	case n == 1:
		return t.Name + "_" + t.Mode.String()
	}
	return fmt.Sprintf("%s_%s_%d", t.Name, t.Mode, n)
}

// maxBases ends the search for a name: nobody changes a table's type so often.
const maxBases = 1000

// BaseName is the name of the table with the rows.
func (t *Table) BaseName() string {
	if t.Base != "" {
		return t.Base
	}
	return t.base(0)
}

// streamName is the table that write streams go to.
func (t *Table) streamName() string {
	if t.Mode == Merge {
		return t.stagingName()
	}
	return t.BaseName()
}

// ByStream reports whether batches come as write streams unless they are told to be
// loaded.
func (t *Table) ByStream() bool { return t.Mode != Replace }

// Loadable reports whether a batch with rows that no stream can carry may be loaded
// from the staging bucket instead.
func (t *Table) Loadable() bool { return t.Mode == Append || t.Mode == History || t.Mode == Replace }

// showSQL is the query of the view T where that is one.
func (c *Client) showSQL(t *Table, schema bigquery.Schema) string {
	names := make([]string, len(schema))
	for i, field := range schema {
		names[i] = field.Name
	}
	from := c.path(t.Dataset, t.BaseName())
	if t.Mode == Append {
		return t.newestSQL(from, names, "TRUE", "")
	}
	v := alias("v", names)
	return fmt.Sprintf("SELECT %[1]s.%[2]s FROM %[3]s AS %[1]s", v, strings.Join(quoteAll(names), ", "+v+"."), from)
}

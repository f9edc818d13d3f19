package warehouse

import (
	"fmt"
	"slices"
	"strings"
)

// Deletes says what readers see of a row that was deleted in the source: of a
// key whose newest version in the log is a tombstone, which has the key's
// columns and no other values.
type Deletes uint8

const (
	// SoftDeletes keeps the row in the view with its last values: _deleted is
	// true, and _version and _synced_at are the tombstone's. Of a key with no
	// other version but tombstones there are no last values: they are NULL.
	SoftDeletes Deletes = iota
	// HardDeletes takes the row out of the view.
	HardDeletes
	// IgnoreDeletes shows the row as if it had not been deleted. Nothing writes
	// tombstones under this policy; a log may have them from an earlier one.
	IgnoreDeletes
)

// newestSQL selects the newest version of each key among those of a table that a
// condition holds for, as the policy of deletes has it. It lists its columns, because
// BigQuery fixes the schema of a view when it is made. Columns the source dropped stay,
// for the queries that name them. Every window is partitioned by the key alone, so that
// a condition on the key reaches the table and its clustering, and a column nobody asks
// for is not read. flag, if not empty, names a further column that is true where the
// row has values: where not all versions of its key are tombstones.
func (t *Table) newestSQL(from string, names []string, where, flag string) string {
	v := alias("v", names) + "."
	columns := make([]string, len(names), len(names)+1)
	for i, name := range names {
		columns[i] = v + quote(name)
		if metadata := name == VersionColumn || name == SyncedAtColumn || name == DeletedColumn; metadata && t.Deletes == SoftDeletes {
			columns[i] = fmt.Sprintf("FIRST_VALUE(%s) OVER newest AS %s", columns[i], quote(name))
		}
	}
	key := "PARTITION BY " + v + strings.Join(quoteAll(t.Key), ", "+v)
	version, deleted := v+quote(VersionColumn)+" DESC", v+quote(DeletedColumn)
	if flag != "" {
		columns = append(columns, "NOT "+deleted+" AS "+quote(flag))
	}
	selected := fmt.Sprintf("SELECT %s FROM %s AS %s WHERE ", strings.Join(columns, ", "), from, strings.TrimSuffix(v, "."))
	// Doubles of one version may exist; ROW_NUMBER keeps one of them.
	first := fmt.Sprintf(" QUALIFY ROW_NUMBER() OVER (%s ORDER BY %s) = 1", key, version)
	switch {
	case t.Deletes == IgnoreDeletes:
		return selected + where + " AND NOT " + deleted + first
	case t.Deletes == HardDeletes && flag == "":
		return "SELECT * FROM (" + selected + where + first + ") WHERE NOT " + quote(DeletedColumn)
	case t.Deletes == HardDeletes:
		return selected + where + first
	}
	// The values of each key are those of its newest version that is no tombstone,
	// as long as there is one, and the metadata are those of its newest of all.
	return selected + where + fmt.Sprintf(" QUALIFY ROW_NUMBER() OVER (%[1]s ORDER BY %[2]s, %[3]s) = 1 WINDOW newest AS (%[1]s ORDER BY %[3]s)", key, deleted, version)
}

// alias returns a name for a table in a statement that none of the columns has
// which could be meant where it stands.
func alias(name string, columns []string) string {
	for slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, name) }) {
		name += "_"
	}
	return name
}

// Package mapping decides what a table of Postgres becomes in BigQuery. It
// stands between the two sides because neither knows the other.
package mapping

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// Destination is the BigQuery table that a Postgres table lands in, as the
// pipeline file declares it, or a permanent error that says why it cannot. key has the
// source's names, as the table has; those of the result are BigQuery's.
func Destination(spec *pipeline.Table, dataset string, table *catalog.Table, key []string) (*warehouse.Table, error) {
	t := Log(spec, dataset, key)
	for _, c := range table.Columns {
		out := warehouse.Column{Name: c.Name, Kind: c.Kind, Repeated: c.Repeated, HashKey: c.HashKey}
		if !c.Computed {
			out.Name, out.Required = landed(spec, c.Name), slices.Contains(key, c.Name)
		}
		t.Columns = append(t.Columns, out)
	}
	return t, t.CheckLayout()
}

// landed is the name in BigQuery of the source's column.
func landed(spec *pipeline.Table, name string) string {
	for _, m := range spec.Columns.Rename {
		if m.From == name {
			return m.To
		}
	}
	return name
}

// Log is the table of Destination without its columns.
func Log(spec *pipeline.Table, dataset string, key []string) *warehouse.Table {
	names := make([]string, len(key))
	for i, name := range key {
		names[i] = landed(spec, name)
	}
	t := &warehouse.Table{
		Dataset: dataset, Name: spec.Name, Key: names, ClusterBy: spec.ClusterBy,
		MaxStaleness: spec.MaxStaleness, Anew: spec.SchemaChanges == pipeline.SchemaResync,
		Mode: map[pipeline.Write]warehouse.Mode{
			pipeline.WriteAppend: warehouse.Append, pipeline.WriteHistory: warehouse.History, pipeline.WriteMerge: warehouse.Merge,
			pipeline.WriteCDC: warehouse.CDC, pipeline.WriteReplace: warehouse.Replace,
		}[spec.Write],
		Deletes: map[pipeline.Deletes]warehouse.Deletes{
			pipeline.DeletesSoft: warehouse.SoftDeletes, pipeline.DeletesHard: warehouse.HardDeletes, pipeline.DeletesIgnore: warehouse.IgnoreDeletes,
		}[spec.Deletes],
	}
	if p := spec.PartitionBy; p != nil {
		t.Partition = &warehouse.Partition{Column: p.Column, Granularity: p.Granularity}
	}
	return t
}

// Fingerprint changes when the destination has to be looked at again: the
// source's columns or what is declared of the table are no longer the same.
// basis is what the cursor is about.
func Fingerprint(table *catalog.Table, t *warehouse.Table, basis string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%v|%s|%s|%q|%v|%q|%d|%s|%s",
		table.Fingerprint(), ShapeOf(table, t), t.Dataset, t.Mode, t.Key, t.Partition, t.ClusterBy, t.Deletes, t.MaxStaleness, basis))
	return hex.EncodeToString(sum[:])
}

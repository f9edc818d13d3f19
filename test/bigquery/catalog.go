package bigquery

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bq "google.golang.org/api/bigquery/v2"
)

// catalog is what exists: datasets, and in them tables and views. Its lock
// guards the maps and the metadata of every entry; rows are guarded by each
// table's own lock.
type catalog struct {
	mu       sync.RWMutex
	datasets map[datasetID]*dataset
	made     int // numbers physical tables
	// generation grows with every change of any schema, so that views are
	// translated again only when something changed.
	generation int
	// firstExpiry is when the first table expires, in milliseconds, 0 for never.
	firstExpiry atomic.Int64
}

type datasetID struct{ project, dataset string }

type tableID struct{ project, dataset, table string }

func (t tableID) String() string { return t.project + "." + t.dataset + "." + t.table }

// legacy is the form of error messages, project:dataset.table.
func (t tableID) legacy() string { return t.project + ":" + t.dataset + "." + t.table }

func (t tableID) reference() *bq.TableReference {
	return &bq.TableReference{ProjectId: t.project, DatasetId: t.dataset, TableId: t.table}
}

type dataset struct {
	meta   bq.Dataset
	tables map[string]*table
	hidden bool // holds anonymous results

	results []*table // of those, in the order they came
}

// table is a table or a view.
type table struct {
	id     tableID
	meta   bq.Table // as stored; schema, counts and times are filled in on answering
	fields []field
	// versions are the columns before each addition, oldest first.
	versions []schemaVersion
	view     string // GoogleSQL text of a view, empty for a table
	part     partitioning

	// physical is the name of the DuckDB table or view.
	physical string
	// viewGeneration is the catalogue's generation that the DuckDB view fits.
	viewGeneration int
	prepared       *preparedView

	created, modified time.Time
	version           int // grows with each change of metadata, the etag

	// rows serializes what changes rows or the physical table.
	rows sync.Mutex
	// streamed are the rows of insertAll that may still be in the streaming buffer.
	streamed []streamedRows
	quota    tableQuota
	// changes is the log of a table that had changes, which stays with it.
	changes atomic.Pointer[changeLog]
	// staleness is max_staleness; the lock rows guards it.
	staleness time.Duration
	// history is guarded by the lock rows.
	history history
	// copies is the quoted name of the DuckDB table of rows that were copied for
	// APPENDS, nil before anybody asked.
	copies atomic.Pointer[string]
	// streamedAt is when rows were last streamed to the table; the lock rows
	// guards it.
	streamedAt time.Time
}

func newCatalog() *catalog { return &catalog{datasets: map[datasetID]*dataset{}} }

// datasetName and tableName are the rules of
// https://cloud.google.com/bigquery/docs/datasets#dataset-naming and
// https://cloud.google.com/bigquery/docs/tables#table_naming.
var (
	datasetName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	tableName   = regexp.MustCompile(`^[\p{L}\p{M}\p{N}\p{Pc}\p{Pd}\p{Zs}]+$`)
)

func (c *catalog) dataset(id datasetID) (*dataset, error) {
	d, ok := c.datasets[id]
	if !ok {
		return nil, errNotFound("Dataset %s:%s", id.project, id.dataset)
	}
	return d, nil
}

func (c *catalog) table(id tableID) (*table, error) {
	d, err := c.dataset(datasetID{id.project, id.dataset})
	if err != nil {
		return nil, err
	}
	t, ok := d.tables[id.table]
	if !ok {
		return nil, errNotFound("Table %s", id.legacy())
	}
	return t, nil
}

// lookup is table under the lock.
func (c *catalog) lookup(id tableID) (*table, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.table(id)
}

// lookupAt is lookup that answers a missing table with its location, as
// queries do. A table in another location is missing; an empty location is any.
func (c *catalog) lookupAt(id tableID, location string) (*table, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	named := location
	if named == "" {
		named = defaultLocation
	}
	d, err := c.dataset(datasetID{id.project, id.dataset})
	if err != nil || location != "" && !strings.EqualFold(d.location(), location) {
		return nil, errNotFound("Dataset %s:%s was not found in location %s", id.project, id.dataset, named)
	}
	t, err := c.table(id)
	if err != nil {
		return nil, errNotFound("Table %s was not found in location %s", id.legacy(), named)
	}
	return t, nil
}

func (d *dataset) location() string {
	if d.meta.Location == "" {
		return defaultLocation
	}
	return d.meta.Location
}

// locationOf is where a dataset is, the default for one that does not exist.
func (c *catalog) locationOf(id datasetID) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if d, ok := c.datasets[id]; ok {
		return d.location()
	}
	return defaultLocation
}

// physicalName makes a name no table had before: BigQuery's names are
// case-sensitive, DuckDB's are not, and a recreated table is another one.
func (c *catalog) physicalName(id tableID) string {
	c.made++
	return fmt.Sprintf("%s.%s#%d", id.dataset, id.table, c.made)
}

func (c *catalog) sortedTables(d *dataset) []*table {
	out := make([]*table, 0, len(d.tables))
	for _, t := range d.tables {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *table) int { return strings.Compare(a.id.table, b.id.table) })
	return out
}

func (t *table) etag() string { return fmt.Sprintf("%s.%d", t.physical, t.version) }

func (t *table) isView() bool { return t.view != "" }

func (t *table) kindName() string {
	if t.isView() {
		return "VIEW"
	}
	return "TABLE"
}

// real is the quoted DuckDB name of the table or view.
func (t *table) real() string { return quoteIdent(realSchema) + "." + quoteIdent(t.physical) }

package bigquery

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	bq "google.golang.org/api/bigquery/v2"
)

func (s *Server) insertTable(r *http.Request) (any, error) {
	var meta bq.Table
	if _, err := readBody(r, &meta); err != nil {
		return nil, err
	}
	id := tableID{r.PathValue("project"), r.PathValue("dataset"), ""}
	if meta.TableReference != nil {
		id.table = meta.TableReference.TableId
	}
	t, err := s.createTable(r.Context(), id, meta, false)
	if err != nil {
		return nil, err
	}
	return s.describeTable(r.Context(), t)
}

// createTable makes a table or a view; replace drops one of the name first.
func (s *Server) createTable(ctx context.Context, id tableID, meta bq.Table, replace bool) (*table, error) {
	t, err := s.newTable(ctx, id, meta)
	if err != nil {
		return nil, err
	}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	d, err := s.cat.dataset(datasetID{id.project, id.dataset})
	if err != nil {
		return nil, err
	}
	if old, ok := d.tables[id.table]; ok {
		if !replace || old.isView() != t.isView() {
			return nil, errDuplicate("Table %s", id.legacy())
		}
		if err := s.dropTable(ctx, d, old); err != nil {
			return nil, err
		}
	}
	t.physical = s.cat.physicalName(id)
	if !t.isView() {
		if err := s.createPhysical(ctx, t); err != nil {
			return nil, err
		}
	}
	d.tables[id.table] = t
	s.cat.generation++
	s.cat.expires(t)
	return t, nil
}

// replaces is the disposition of CREATE OR REPLACE.
const replaces = "CREATE_OR_REPLACE"

// makeTable makes a table that is in no dataset until it is registered.
func (s *Server) makeTable(ctx context.Context, id tableID, meta bq.Table) (*table, error) {
	t, err := s.newTable(ctx, id, meta)
	if err != nil {
		return nil, err
	}
	s.cat.mu.Lock()
	t.physical = s.cat.physicalName(id)
	s.cat.mu.Unlock()
	return t, s.createPhysical(ctx, t)
}

// register puts a table that was made into its dataset, in the place of one of
// its name where the disposition says so; one that is truncated stays the same
// table with other contents.
func (s *Server) register(ctx context.Context, made *table, disposition string) error {
	made.rows.Lock()
	defer made.rows.Unlock()
	old, err := s.cat.lookup(made.id)
	if err != nil || disposition != "WRITE_TRUNCATE" {
		old = nil
	}
	if old != nil {
		old.rows.Lock()
		defer old.rows.Unlock()
		if err := s.beforeChange(ctx, old, s.fieldsOf(old)); err != nil {
			return err
		}
	}
	var rows int64
	if err := s.store.scalar(ctx, "SELECT count(*) FROM "+made.real(), &rows); err != nil {
		return err
	}
	if err := s.place(ctx, made, old, disposition); err != nil {
		return err
	}
	s.noteAppend(made, rows)
	return nil
}

// place puts a table into its dataset, and old, if there is one, away, whose rows
// it truncates. The caller holds the lock rows of both.
func (s *Server) place(ctx context.Context, made, old *table, disposition string) error {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	d, err := s.cat.dataset(datasetID{made.id.project, made.id.dataset})
	if err != nil {
		return err
	}
	now, exists := d.tables[made.id.table]
	switch {
	case exists && (now.isView() || now != old && disposition != replaces):
		return errDuplicate("Table %s", made.id.legacy())
	case exists && now == old:
		made.created, made.version = old.created, old.version+1
		s.inherit(made, old)
	}
	if exists {
		if err := s.dropTable(context.WithoutCancel(ctx), d, now); err != nil {
			return err
		}
	}
	made.modified = s.now()
	d.tables[made.id.table] = made
	s.cat.generation++
	s.cat.expires(made)
	return nil
}

// newTable checks what a table is to be, without making it.
func (s *Server) newTable(ctx context.Context, id tableID, meta bq.Table) (*table, error) {
	if !tableName.MatchString(id.table) || len(id.table) > 1024 {
		return nil, errInvalid("Invalid table ID %q.", id.table)
	}
	if err := refuseTableOptions(&meta); err != nil {
		return nil, err
	}
	if err := s.checkExpiry(meta.ExpirationTime); err != nil {
		return nil, err
	}
	t := &table{id: id, created: s.now(), modified: s.now(), version: 1}
	if meta.View != nil {
		return t, s.defineView(ctx, t, &meta)
	}
	if meta.Schema == nil || len(meta.Schema.Fields) == 0 {
		return nil, errUnsupported("tables without a schema (%s)", id)
	}
	var err error
	if t.fields, err = fieldsFromREST(meta.Schema.Fields); err != nil {
		return nil, err
	}
	if len(t.fields) > 10_000 {
		return nil, errInvalid("Too many columns in table %s: %d; the limit is 10000", id, len(t.fields))
	}
	if t.part, err = readPartitioning(&meta, t.fields); err != nil {
		return nil, err
	}
	if err := checkClustering(meta.Clustering, t.fields); err != nil {
		return nil, err
	}
	if err := checkConstraints(meta.TableConstraints, t.fields); err != nil {
		return nil, err
	}
	if err := checkLabels(meta.Labels); err != nil {
		return nil, err
	}
	if t.staleness, err = readStaleness(meta.MaxStaleness); err != nil {
		return nil, err
	}
	t.meta = meta
	return t, nil
}

func refuseTableOptions(m *bq.Table) error {
	switch {
	case m.ExternalDataConfiguration != nil || m.ExternalCatalogTableOptions != nil || m.BiglakeConfiguration != nil:
		return errUnsupported("external tables")
	case m.MaterializedView != nil:
		return errUnsupported("materialized views")
	case m.EncryptionConfiguration != nil:
		return errUnsupported("customer-managed encryption keys")
	case m.CloneDefinition != nil || m.SnapshotDefinition != nil:
		return errUnsupported("table clones and snapshots")
	case m.DefaultCollation != "" || m.DefaultRoundingMode != "":
		return errUnsupported("default collations and rounding modes")
	case m.TableReplicationInfo != nil || len(m.ResourceTags) > 0 || m.PartitionDefinition != nil:
		return errUnsupported("replicas, resource tags and external partition definitions")
	}
	return nil
}

func checkClustering(c *bq.Clustering, fields []field) error {
	if c == nil {
		return nil
	}
	if len(c.Fields) == 0 || len(c.Fields) > 4 {
		return errInvalid("Clustering needs 1 to 4 columns, got %d", len(c.Fields))
	}
	for _, name := range c.Fields {
		i, ok := findField(fields, name)
		if !ok {
			return errInvalid("The field specified for clustering does not exist in the schema: %s", name)
		}
		switch f := fields[i]; {
		case f.repeated, f.kind == kindStruct, f.kind == kindJSON, f.kind == kindFloat64, f.kind == kindBytes, f.kind == kindTime:
			return errInvalid("Field %s of type %s cannot be used for clustering", name, f.sqlType())
		}
	}
	return nil
}

func checkConstraints(c *bq.TableConstraints, fields []field) error {
	if c == nil {
		return nil
	}
	if len(c.ForeignKeys) > 0 {
		return errUnsupported("foreign keys")
	}
	if c.PrimaryKey == nil {
		return nil
	}
	if n := len(c.PrimaryKey.Columns); n == 0 || n > 16 {
		return errInvalid("A primary key needs 1 to 16 columns, got %d", n)
	}
	for _, name := range c.PrimaryKey.Columns {
		i, ok := findField(fields, name)
		if !ok {
			return errInvalid("Primary key column %s does not exist in the schema", name)
		}
		switch f := fields[i]; {
		case f.repeated, f.kind == kindStruct, f.kind == kindJSON, f.kind == kindFloat64, f.kind == kindBytes, f.kind == kindTime:
			return errInvalid("Primary key column %s has the type %s, which keys cannot have", name, f.sqlType())
		}
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > 64 {
		return errInvalid("Too many labels: %d; the limit is 64", len(labels))
	}
	for k, v := range labels {
		if k == "" || !labelText(k) || !labelText(v) {
			return errInvalid("Label %q=%q is invalid: at most 63 characters of lowercase letters, numbers, - and _", k, v)
		}
	}
	return nil
}

func labelText(s string) bool {
	return len([]rune(s)) <= 63 && s == strings.ToLower(s) && !strings.ContainsAny(s, " \t\n./:;,?!\"'`()[]{}<>@#$%^&*+=|\\~")
}

// createPhysical makes the DuckDB table.
func (s *Server) createPhysical(ctx context.Context, t *table) error {
	columns := make([]string, len(t.fields))
	for i, f := range t.fields {
		columns[i] = columnDefinition(f)
	}
	return s.store.exec(ctx, "CREATE TABLE "+t.real()+" ("+strings.Join(columns, ", ")+")")
}

func columnDefinition(f field) string {
	def := quoteIdent(f.name) + " " + f.duckType()
	switch {
	case f.repeated:
		def += " DEFAULT []" // BigQuery stores no NULL array
	case f.required:
		def += " NOT NULL"
	}
	if f.maxLength > 0 && !f.repeated {
		length := "length"
		if f.kind == kindBytes {
			length = "octet_length"
		}
		def += fmt.Sprintf(" CHECK (%s(%s) <= %d)", length, quoteIdent(f.name), f.maxLength)
	}
	return def
}

// dropTable removes a table or view; the caller holds the catalogue's lock. A
// table's lock is always taken before the catalogue's, so it is not taken here:
// a commit that meets the drop fails in DuckDB.
func (s *Server) dropTable(ctx context.Context, d *dataset, t *table) error {
	what := "TABLE "
	if t.isView() {
		what = "VIEW "
	}
	if err := s.store.exec(ctx, "DROP "+what+"IF EXISTS "+t.real()); err != nil {
		return err
	}
	if err := s.dropChanges(ctx, t); err != nil {
		return err
	}
	if err := s.dropHistory(ctx, t); err != nil {
		return err
	}
	delete(d.tables, t.id.table)
	s.cat.generation++
	return nil
}

func (s *Server) getTable(r *http.Request) (any, error) {
	t, err := s.cat.lookup(pathTable(r))
	if err != nil {
		return nil, err
	}
	return s.describeTable(r.Context(), t)
}

// describeTable answers metadata with the counts of rows that are out of the
// streaming buffer.
func (s *Server) describeTable(ctx context.Context, t *table) (*bq.Table, error) {
	s.cat.mu.RLock()
	meta, fields, modified, etag := t.meta, t.fields, t.modified, t.etag()
	s.cat.mu.RUnlock()
	meta.Kind, meta.Type, meta.Location, meta.Etag = "bigquery#table", t.kindName(), s.cat.locationOf(datasetID{t.id.project, t.id.dataset}), etag
	meta.Id = t.id.legacy()
	meta.TableReference = t.id.reference()
	meta.CreationTime, meta.LastModifiedTime = t.created.UnixMilli(), uint64(modified.UnixMilli())
	meta.Schema = describeSchema(meta.Schema, fields)
	meta.RequirePartitionFilter = t.part.filter
	if t.isView() {
		return &meta, nil
	}
	if err := s.settle(ctx, t); err != nil {
		return nil, err
	}
	var rows int64
	if err := s.store.scalar(ctx, "SELECT count(*) FROM "+t.real(), &rows); err != nil {
		return nil, err
	}
	size, err := s.columnBytes(ctx, t, allColumns(fields), nil)
	if err != nil {
		return nil, err
	}
	t.rows.Lock()
	buffered := t.buffered(s.now())
	t.rows.Unlock()
	if buffered != nil {
		meta.StreamingBuffer = buffered
		rows -= int64(buffered.EstimatedRows)
		size -= int64(buffered.EstimatedBytes)
	}
	meta.NumRows, meta.NumBytes = uint64(max(rows, 0)), max(size, 0)
	meta.NumTotalLogicalBytes, meta.NumActiveLogicalBytes = meta.NumBytes, meta.NumBytes
	meta.ForceSendFields = []string{"NumRows", "NumBytes"}
	return &meta, nil
}

// describeSchema is the schema with the descriptions that were given.
func describeSchema(given *bq.TableSchema, fields []field) *bq.TableSchema {
	out := restSchema(fields)
	if given == nil {
		return out
	}
	for i, f := range out.Fields {
		if i < len(given.Fields) {
			f.Description = given.Fields[i].Description
		}
	}
	return out
}

func (s *Server) listTables(r *http.Request) (any, error) {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	d, err := s.cat.dataset(datasetID{r.PathValue("project"), r.PathValue("dataset")})
	if err != nil {
		return nil, err
	}
	var found []*bq.TableListTables
	for _, t := range s.cat.sortedTables(d) {
		item := &bq.TableListTables{
			Id: t.id.legacy(), Kind: "bigquery#table", Type: t.kindName(), TableReference: t.id.reference(),
			CreationTime: t.created.UnixMilli(), Labels: t.meta.Labels,
			Clustering: t.meta.Clustering, TimePartitioning: t.meta.TimePartitioning,
		}
		if t.isView() {
			item.View = &bq.TableListTablesView{}
		}
		found = append(found, item)
	}
	from, to, next, err := page(r, len(found))
	if err != nil {
		return nil, err
	}
	return &bq.TableList{Kind: "bigquery#tableList", Tables: found[from:to], NextPageToken: next, TotalItems: int64(len(found))}, nil
}

func (s *Server) deleteTable(r *http.Request) (any, error) {
	id := pathTable(r)
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	t, err := s.cat.table(id)
	if err != nil {
		return nil, err
	}
	d, err := s.cat.dataset(datasetID{id.project, id.dataset})
	if err != nil {
		return nil, err
	}
	return nil, s.dropTable(r.Context(), d, t)
}

func (s *Server) patchTable(r *http.Request) (any, error)  { return s.changeTable(r) }
func (s *Server) updateTable(r *http.Request) (any, error) { return s.changeTable(r) }

// changeTable applies the members that the body has, as tables.patch does. It
// answers tables.update alike, which would also reset what the body lacks; a
// body that lacks the schema is refused there.
func (s *Server) changeTable(r *http.Request) (any, error) {
	var change bq.Table
	raw, err := readBody(r, &change)
	if err != nil {
		return nil, err
	}
	members, err := present(raw)
	if err != nil {
		return nil, err
	}
	if _, ok := members["schema"]; r.Method == http.MethodPut && !ok && change.View == nil {
		return nil, errUnsupported("tables.update without the schema; use tables.patch")
	}
	if err := refuseTableOptions(&change); err != nil {
		return nil, err
	}
	t, err := s.cat.lookup(pathTable(r))
	if err != nil {
		return nil, err
	}
	if err := s.applyChange(r, t, &change, members); err != nil {
		return nil, err
	}
	return s.describeTable(r.Context(), t)
}

func (s *Server) applyChange(r *http.Request, t *table, change *bq.Table, members map[string]json.RawMessage) error {
	if _, ok := members["view"]; ok {
		if err := s.changeView(r.Context(), t, change); err != nil {
			return err
		}
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	if err := checkIfMatch(r, t.etag()); err != nil {
		return err
	}
	if err := s.updated(t); err != nil {
		return err
	}
	if _, ok := members["schema"]; ok && !t.isView() {
		if err := s.changeSchema(r.Context(), t, change); err != nil {
			return err
		}
	}
	if err := s.checkExpiry(change.ExpirationTime); err != nil {
		return err
	}
	if err := t.changeOptions(change, members); err != nil {
		return err
	}
	s.cat.expires(t)
	t.modified = s.now()
	t.version++
	return nil
}

func (t *table) changeOptions(change *bq.Table, members map[string]json.RawMessage) error {
	for name := range members {
		switch name {
		case "schema", "view", "etag", "kind", "id", "tableReference", "type", "selfLink", "location":
		case "description":
			t.meta.Description = change.Description
		case "friendlyName":
			t.meta.FriendlyName = change.FriendlyName
		case "labels":
			if err := checkLabels(change.Labels); err != nil {
				return err
			}
			t.meta.Labels = patchLabels(t.meta.Labels, members[name], change.Labels)
		case "requirePartitionFilter":
			t.part.filter = change.RequirePartitionFilter
		case "timePartitioning":
			if err := t.changePartitioning(change.TimePartitioning, members[name]); err != nil {
				return err
			}
		case "clustering":
			if err := checkClustering(change.Clustering, t.fields); err != nil {
				return err
			}
			t.meta.Clustering = change.Clustering
		case "tableConstraints":
			if err := t.changeConstraints(change.TableConstraints); err != nil {
				return err
			}
		case "expirationTime":
			t.meta.ExpirationTime = change.ExpirationTime
		case "maxStaleness":
			d, err := readStaleness(change.MaxStaleness)
			if err != nil {
				return err
			}
			t.staleness, t.meta.MaxStaleness = d, change.MaxStaleness
		default:
			return errUnsupported("changing %s of a table", name)
		}
	}
	return nil
}

// changeConstraints gives the table another primary key, or none.
func (t *table) changeConstraints(c *bq.TableConstraints) error {
	if err := checkConstraints(c, t.fields); err != nil {
		return err
	}
	if t.changes.Load() != nil && !slices.Equal(keyOf(c), keyOf(t.meta.TableConstraints)) {
		return errUnsupported("changing the primary key of a table that had UPSERT streams (%s)", t.id)
	}
	t.meta.TableConstraints = c
	return nil
}

// keyOf are the columns of a primary key, none where there is none.
func keyOf(c *bq.TableConstraints) []string {
	if c == nil || c.PrimaryKey == nil {
		return nil
	}
	return c.PrimaryKey.Columns
}

// dropConstraints takes the primary key away, as WRITE_TRUNCATE does and
// WRITE_TRUNCATE_DATA does not.
func (s *Server) dropConstraints(t *table) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	t.meta.TableConstraints = nil
	t.version++
}

// changePartitioning changes the options of a partitioning: what it partitions
// by stays.
func (t *table) changePartitioning(tp *bq.TimePartitioning, raw json.RawMessage) error {
	given, err := present(raw)
	if err != nil {
		return err
	}
	if t.part.column == "" || tp == nil || tp.Field != "" && !strings.EqualFold(tp.Field, t.part.column) || tp.Type != "" && !strings.EqualFold(tp.Type, t.part.unit) {
		return errInvalid("Cannot change partitioning/clustering of a partitioned/non-partitioned table %s.", t.id)
	}
	expiration, err := readExpiration(tp.ExpirationMs)
	if err != nil {
		return err
	}
	if _, ok := given["expirationMs"]; ok {
		t.setExpiration(expiration)
	}
	if _, ok := given["requirePartitionFilter"]; ok {
		t.part.filter = tp.RequirePartitionFilter || t.part.filter
	}
	return nil
}

// setExpiration changes how long partitions are kept; the caller holds both locks.
func (t *table) setExpiration(d time.Duration) {
	t.part.expiration = d
	described := *t.meta.TimePartitioning
	described.ExpirationMs = d.Milliseconds()
	t.meta.TimePartitioning = &described
}

// patchLabels merges: a label of null goes, the others stay.
func patchLabels(old map[string]string, raw json.RawMessage, change map[string]string) map[string]string {
	nulls := map[string]*string{}
	if err := json.Unmarshal(raw, &nulls); err != nil || nulls == nil {
		return nil // labels: null
	}
	merged := map[string]string{}
	for k, v := range old {
		merged[k] = v
	}
	for k, v := range nulls {
		if v == nil {
			delete(merged, k)
		} else {
			merged[k] = change[k]
		}
	}
	return merged
}

// changeSchema adds columns at the end and relaxes REQUIRED ones; BigQuery
// refuses all else here. The caller holds both locks.
// https://cloud.google.com/bigquery/docs/managing-table-schemas
func (s *Server) changeSchema(ctx context.Context, t *table, change *bq.Table) error {
	if change.Schema == nil {
		return errInvalid("Provided Schema does not match Table %s. The schema is missing.", t.id.legacy())
	}
	wanted, err := fieldsFromREST(change.Schema.Fields)
	if err != nil {
		return err
	}
	steps, err := t.schemaSteps(wanted)
	if err != nil {
		return err
	}
	if log := t.changes.Load(); log != nil {
		for _, f := range wanted[len(t.fields):] {
			steps = append(steps, "ALTER TABLE "+log.pending+" ADD COLUMN "+columnDefinition(f))
		}
	}
	for _, step := range steps {
		if err := s.store.exec(ctx, step); err != nil {
			return err
		}
	}
	t.meta.Schema = change.Schema
	if len(steps) > 0 {
		if len(wanted) > len(t.fields) {
			t.versions = append(t.versions, schemaVersion{t.fields, s.now()})
		}
		t.fields = wanted
		s.cat.generation++
	}
	return nil
}

// schemaSteps are the DuckDB statements that turn the fields into the wanted.
func (t *table) schemaSteps(wanted []field) ([]string, error) {
	var steps []string
	for i, old := range t.fields {
		if i >= len(wanted) || !strings.EqualFold(wanted[i].name, old.name) {
			if _, ok := findField(wanted, old.name); !ok {
				return nil, errInvalid("Provided Schema does not match Table %s. Field %s is missing in new schema", t.id.legacy(), old.name)
			}
			return nil, errInvalid("Provided Schema does not match Table %s. Field %s is not at its place: new fields go to the end", t.id.legacy(), old.name)
		}
		relaxed, err := t.sameField(old, wanted[i])
		if err != nil {
			return nil, err
		}
		if relaxed {
			steps = append(steps, "ALTER TABLE "+t.real()+" ALTER COLUMN "+quoteIdent(old.name)+" DROP NOT NULL")
		}
	}
	for _, f := range wanted[len(t.fields):] {
		if f.required {
			return nil, errInvalid("Provided Schema does not match Table %s. Cannot add required fields to an existing schema. (field: %s)", t.id.legacy(), f.name)
		}
		if f.maxLength > 0 {
			return nil, errUnsupported("adding a column with a maximum length (field %s)", f.name)
		}
		steps = append(steps, "ALTER TABLE "+t.real()+" ADD COLUMN "+columnDefinition(f))
	}
	return steps, nil
}

func (t *table) sameField(old, wanted field) (relaxed bool, err error) {
	if old.sqlType() != wanted.sqlType() && old.kind == wanted.kind && old.kind == kindStruct && old.repeated == wanted.repeated {
		return false, errUnsupported("changing the members of the STRUCT %s", old.name)
	}
	switch {
	case old.kind != wanted.kind:
		return false, errInvalid("Provided Schema does not match Table %s. Field %s has changed type from %s to %s", t.id.legacy(), old.name, old.kind.restType(), wanted.kind.restType())
	case old.repeated != wanted.repeated, !old.required && wanted.required:
		return false, errInvalid("Provided Schema does not match Table %s. Field %s has changed mode from %s to %s", t.id.legacy(), old.name, old.mode(), wanted.mode())
	case old.maxLength != wanted.maxLength:
		return false, errUnsupported("changing the maximum length of a column (field %s)", old.name)
	case old.name != wanted.name:
		return false, errUnsupported("changing the case of a column's name (field %s)", old.name)
	}
	if part := t.meta.TableConstraints; part != nil && part.PrimaryKey != nil && old.required && !wanted.required && slices.Contains(part.PrimaryKey.Columns, old.name) {
		return true, nil
	}
	return old.required && !wanted.required, nil
}

// touch notes that rows of a table changed.
func (s *Server) touch(t *table) {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	t.modified = s.now()
}

// defineView checks a view's query and takes the columns it returns.
func (s *Server) defineView(ctx context.Context, t *table, meta *bq.Table) error {
	v := meta.View
	switch {
	case v.UseLegacySql:
		return errUnsupported("views in legacy SQL")
	case len(v.UserDefinedFunctionResources) > 0 || v.PrivacyPolicy != nil || len(v.ForeignDefinitions) > 0:
		return errUnsupported("user-defined functions, privacy policies and foreign definitions of views")
	case v.Query == "":
		return errInvalid("Required parameter is missing: query")
	}
	if err := checkLabels(meta.Labels); err != nil {
		return err
	}
	p, err := s.prepare(ctx, t.viewRequest(v.Query, nil))
	switch {
	case err != nil:
	case p.kind != "SELECT":
		err = errInvalid("A view's query must be a SELECT statement")
	case p.levels >= maxViewLevels:
		err = errInvalidQuery("Exceeded the maximum nesting of views at %s: %d levels", t.id, maxViewLevels)
	}
	s.obs.record(Statement{SQL: v.Query, Kind: "CREATE_VIEW", Analyzed: p.analyzed, Err: errorText(err)})
	if err != nil {
		return err
	}
	t.view, t.fields = v.Query, nullable(p.fields)
	t.meta = *meta
	t.meta.Schema = mergeDescriptions(meta.Schema, t.fields)
	return nil
}

func mergeDescriptions(given *bq.TableSchema, fields []field) *bq.TableSchema {
	if given != nil && len(given.Fields) != len(fields) {
		return nil
	}
	return given
}

func nullable(fields []field) []field {
	out := slices.Clone(fields)
	for i := range out {
		out[i].required = false
	}
	return out
}

// changeView gives a view another query.
func (s *Server) changeView(ctx context.Context, t *table, change *bq.Table) error {
	if !t.isView() || change.View == nil {
		return errInvalid("Cannot change between view and table: %s", t.id)
	}
	next := &table{id: t.id}
	meta := *change
	if err := s.defineView(ctx, next, &meta); err != nil {
		return err
	}
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	t.view, t.fields, t.meta.View = next.view, next.fields, change.View
	t.meta.Schema = next.meta.Schema
	s.cat.generation++
	return nil
}

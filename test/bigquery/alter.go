package bigquery

import (
	"context"
	"slices"
	"strings"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	bq "google.golang.org/api/bigquery/v2"

	"github.com/tidemark-data/tidemark/test/bigquery/dialect"
)

// runAlter changes a table as ALTER TABLE says.
func (s *Server) runAlter(ctx context.Context, d *ddl, exists bool) error {
	if !exists && d.ifExists {
		d.operation = "SKIP"
		return nil
	}
	t, err := s.cat.lookup(d.id)
	if err != nil {
		return err
	}
	if t.isView() {
		return errInvalidQuery("ALTER TABLE cannot change %s, which is a VIEW", d.id)
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	if err := s.updated(t); err != nil {
		return err
	}
	if err := s.checkExpiry(d.meta.ExpirationTime); err != nil {
		return err
	}
	if err := s.alter(ctx, t, d); err != nil {
		return err
	}
	s.cat.expires(t)
	d.operation = "ALTER"
	t.modified = s.now()
	t.version++
	return nil
}

// alter holds both locks.
func (s *Server) alter(ctx context.Context, t *table, d *ddl) error {
	st := d.alter
	switch {
	case st.Rename != "":
		return s.rename(t, st.Rename)
	case st.Options != nil:
		return t.setOptions(d)
	case len(st.Retyped) > 0 && (len(st.Columns) > 0 || len(st.PrimaryKey) > 0 || len(st.Relaxed) > 0):
		return errUnsupported("SET DATA TYPE beside other actions in one ALTER TABLE")
	}
	for _, c := range st.Retyped {
		if err := s.retype(ctx, t, c); err != nil {
			return err
		}
	}
	if len(st.Columns) > 0 || len(st.Relaxed) > 0 {
		wanted, err := t.altered(d)
		if err != nil {
			return err
		}
		if err := s.changeSchema(ctx, t, &bq.Table{Schema: wanted}); err != nil {
			return err
		}
	}
	if len(st.PrimaryKey) == 0 {
		return nil
	}
	if len(keyOf(t.meta.TableConstraints)) > 0 {
		return errInvalidQuery("Primary key already exists on table %s", t.id)
	}
	return t.changeConstraints(&bq.TableConstraints{PrimaryKey: &bq.TableConstraintsPrimaryKey{Columns: st.PrimaryKey}})
}

// altered is the table's schema with columns added and relaxed.
func (t *table) altered(d *ddl) (*bq.TableSchema, error) {
	wanted := describeSchema(t.meta.Schema, t.fields)
	added := ddl{id: d.id}
	if err := added.columns(dialect.Statement{Kind: d.alter.Kind, Columns: d.alter.Columns}); err != nil {
		return nil, err
	}
	if added.meta.Schema != nil {
		for _, f := range added.meta.Schema.Fields {
			if _, ok := findField(t.fields, f.Name); ok && d.alter.IfNotExists {
				continue
			}
			wanted.Fields = append(wanted.Fields, f)
		}
	}
	for _, name := range d.alter.Relaxed {
		i, ok := findField(t.fields, name)
		if !ok {
			return nil, errInvalidQuery("Column not found: %s", name)
		}
		if t.fields[i].required {
			wanted.Fields[i].Mode = "NULLABLE"
		}
	}
	return wanted, nil
}

func (t *table) setOptions(d *ddl) error {
	if err := d.options(*d.alter); err != nil {
		return err
	}
	for name := range d.alter.Options {
		switch name {
		case "description":
			t.meta.Description = d.meta.Description
		case "friendly_name":
			t.meta.FriendlyName = d.meta.FriendlyName
		case "expiration_timestamp":
			t.meta.ExpirationTime = d.meta.ExpirationTime
		case "require_partition_filter":
			t.part.filter = d.meta.RequirePartitionFilter
		case "partition_expiration_days":
			if t.part.column == "" {
				return errInvalidQuery("partition_expiration_days is for partitioned tables: %s", t.id)
			}
			t.setExpiration(msDuration(d.expirationMs))
		case "max_staleness":
			stale, err := readStaleness(d.meta.MaxStaleness)
			if err != nil {
				return err
			}
			t.staleness, t.meta.MaxStaleness = stale, d.meta.MaxStaleness
		default:
			return errUnsupported("the option %s in ALTER TABLE", name)
		}
	}
	return nil
}

// streamedTo says whether BigQuery counts the table as being streamed to: rows
// came lately, or a pending stream waits for its commit.
func (s *Server) streamedTo(t *table) bool {
	if s.streamingInUse < 0 {
		return false
	}
	if !t.streamedAt.IsZero() && s.now().Sub(t.streamedAt) < s.streamingInUse {
		return true
	}
	s.writes.mu.Lock()
	defer s.writes.mu.Unlock()
	for _, st := range s.writes.streams {
		if st.table == t && st.kind == storagepb.WriteStream_PENDING && !st.expired(s.now()) && st.holdsRows() {
			return true
		}
	}
	return false
}

func (st *writeStream) holdsRows() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.batches) > 0
}

// rename gives a table another name in its dataset; what names it does not follow.
func (s *Server) rename(t *table, name string) error {
	if !tableName.MatchString(name) || len(name) > 1024 {
		return errInvalidQuery("Invalid table ID %q.", name)
	}
	if s.streamedTo(t) {
		return errInvalidQuery("Cannot rename table %s: streaming is in use", t.id)
	}
	d, err := s.cat.dataset(datasetID{t.id.project, t.id.dataset})
	if err != nil {
		return err
	}
	if _, ok := d.tables[name]; ok {
		return errDuplicate("Table %s", tableID{t.id.project, t.id.dataset, name}.legacy())
	}
	// Another entry for the same rows: whoever still has the old one goes on with
	// a table that has its old name.
	renamed := &table{
		id: tableID{t.id.project, t.id.dataset, name}, meta: t.meta, fields: t.fields, versions: t.versions, part: t.part, physical: t.physical,
		created: t.created, modified: s.now(), version: t.version + 1, streamed: t.streamed, staleness: t.staleness, streamedAt: t.streamedAt,
	}
	renamed.changes.Store(t.changes.Load())
	delete(d.tables, t.id.table)
	d.tables[name] = renamed
	s.cat.generation++
	return nil
}

// retype widens a column as BigQuery can.
// https://cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language#details_21
func (s *Server) retype(ctx context.Context, t *table, c dialect.ColumnDef) error {
	i, ok := findField(t.fields, c.Name)
	if !ok {
		return errInvalidQuery("Column not found: %s", c.Name)
	}
	wanted, err := fieldFromSQL(t.fields[i].name, c.Type)
	if err != nil {
		return err
	}
	old := t.fields[i]
	switch {
	case s.streamedTo(t):
		return errInvalidQuery("Cannot change the type of column %s of %s: streaming is in use", old.name, t.id)
	case old.repeated || wanted.repeated || old.kind == kindStruct || wanted.kind == kindStruct || old.maxLength != 0 || wanted.maxLength != 0:
		return errUnsupported("SET DATA TYPE of %s to %s (column %s)", old.sqlType(), c.Type, old.name)
	case old.kind == wanted.kind:
		return nil
	case !slices.Contains(widerKinds(old.kind), wanted.kind):
		return errInvalidQuery("ALTER TABLE ALTER COLUMN SET DATA TYPE requires that the existing column type (%s) is assignable to the new type (%s) at column %s", old.kind, wanted.kind, old.name)
	case t.changes.Load() != nil || slices.ContainsFunc(keyOf(t.meta.TableConstraints), func(k string) bool { return strings.EqualFold(k, old.name) }):
		return errUnsupported("SET DATA TYPE of a key column, or of a table that had UPSERT streams (column %s)", old.name)
	}
	value := quoteIdent(old.name)
	if wanted.kind == kindBigNumeric && old.kind == kindNumeric { // no trailing zeros, as BIGNUMERIC text is kept
		value = "rtrim(rtrim(CAST(" + value + " AS VARCHAR), '0'), '.')"
	}
	if err := s.store.exec(ctx, "ALTER TABLE "+t.real()+" ALTER COLUMN "+quoteIdent(old.name)+" SET DATA TYPE "+wanted.duckType()+" USING CAST("+value+" AS "+wanted.duckType()+")"); err != nil {
		return err
	}
	if err := s.forgetHistory(ctx, t); err != nil {
		return err
	}
	fields := slices.Clone(t.fields)
	fields[i].kind = wanted.kind
	t.fields, t.versions = fields, nil
	t.meta.Schema = describeSchema(t.meta.Schema, fields)
	s.cat.generation++
	return nil
}

func widerKinds(k kind) []kind {
	switch k {
	case kindInt64:
		return []kind{kindNumeric, kindBigNumeric, kindFloat64}
	case kindNumeric:
		return []kind{kindBigNumeric, kindFloat64}
	case kindBigNumeric, kindBool, kindBytes, kindDate, kindDatetime, kindFloat64, kindJSON, kindString, kindStruct, kindTime, kindTimestamp:
	}
	return nil
}

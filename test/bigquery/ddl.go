package bigquery

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	bq "google.golang.org/api/bigquery/v2"

	"github.com/tidemark-data/tidemark/test/bigquery/dialect"
)

// ddl is a CREATE or DROP statement of a table or a view.
type ddl struct {
	id       tableID
	replace  bool
	ifExists bool // IF EXISTS or IF NOT EXISTS
	query    string
	meta     bq.Table
	// expirationMs is partition_expiration_days.
	expirationMs int64
	// expires is the expression of expiration_timestamp.
	expires   string
	operation string // what was done: CREATE, REPLACE, SKIP, DROP, ALTER
	alter     *dialect.Statement
	schema    *bq.Dataset // of CREATE SCHEMA and DROP SCHEMA
	cascade   bool
}

// readDDL takes what the emulator runs of DDL, nil for any other statement.
func readDDL(q statementRequest, st dialect.Statement) (*ddl, error) {
	switch st.Kind {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE_TABLE":
		return nil, nil //nolint:nilnil // no DDL
	case "CREATE_TABLE", "CREATE_TABLE_AS_SELECT", "CREATE_VIEW", "DROP_TABLE", "DROP_VIEW", "ALTER_TABLE":
	case "CREATE_SCHEMA", "DROP_SCHEMA":
		return readSchemaDDL(q, st)
	default:
		return nil, errUnsupported("the statement %s", st.Kind)
	}
	id, err := q.target(st)
	if err != nil {
		return nil, err
	}
	d := &ddl{id: id, replace: st.OrReplace, ifExists: st.IfExists || st.IfNotExists, query: st.Body}
	if err := d.options(st); err != nil {
		return nil, err
	}
	if st.Kind == "ALTER_TABLE" {
		d.alter = &st
		return d, nil
	}
	if st.Kind == "CREATE_VIEW" {
		if len(st.Columns) > 0 {
			return nil, errUnsupported("a list of columns in CREATE VIEW")
		}
		d.meta.View = &bq.ViewDefinition{Query: d.query}
		return d, nil
	}
	if d.query != "" && len(st.Columns) > 0 {
		return nil, errUnsupported("CREATE TABLE with columns and a query")
	}
	if err := d.columns(st); err != nil {
		return nil, err
	}
	if len(st.ClusterBy) > 0 {
		d.meta.Clustering = &bq.Clustering{Fields: st.ClusterBy}
	}
	if len(st.PrimaryKey) > 0 {
		d.meta.TableConstraints = &bq.TableConstraints{PrimaryKey: &bq.TableConstraintsPrimaryKey{Columns: st.PrimaryKey}}
	}
	if st.PartitionBy != "" {
		if d.meta.TimePartitioning, err = partitionBy(st.PartitionBy); err != nil {
			return nil, err
		}
		d.meta.TimePartitioning.ExpirationMs = d.expirationMs
	} else if d.expirationMs != 0 {
		return nil, errInvalidQuery("partition_expiration_days is for partitioned tables: %s", id)
	}
	return d, nil
}

// target is the table that a statement changes.
func (q statementRequest) target(st dialect.Statement) (tableID, error) {
	project, dataset := q.defaults()
	id := tableID{st.Target[0], st.Target[1], st.Target[2]}
	if id.dataset == "" {
		id.project, id.dataset = project, dataset
	}
	if id.project == "" {
		id.project = project
	}
	if id.dataset == "" {
		return id, errInvalidQuery("Table %q must be qualified with a dataset (e.g. dataset.table).", id.table)
	}
	return id, nil
}

func (d *ddl) options(st dialect.Statement) error {
	for name, text := range st.Options {
		switch name {
		case "description":
			d.meta.Description = literalText(text)
		case "friendly_name":
			d.meta.FriendlyName = literalText(text)
		case "require_partition_filter":
			required, err := strconv.ParseBool(strings.ToLower(text))
			if err != nil {
				return errInvalidQuery("Invalid value of require_partition_filter: %s", text)
			}
			d.meta.RequirePartitionFilter = required
		case "expiration_timestamp":
			d.expires = text
		case "partition_expiration_days":
			days, err := strconv.ParseFloat(text, 64)
			if !strings.EqualFold(text, "NULL") && (err != nil || days <= 0 || days > 1e6) {
				return errInvalidQuery("Invalid value of partition_expiration_days: %s", text)
			}
			d.expirationMs = int64(days * 24 * 60 * 60 * 1000)
		case "max_staleness":
			interval, err := intervalText(text)
			if err != nil {
				return err
			}
			d.meta.MaxStaleness = interval
		default:
			return errUnsupported("the option %s in %s", name, st.Kind)
		}
	}
	return nil
}

// intervalText reads INTERVAL n UNIT as the REST API has it.
func intervalText(text string) (string, error) {
	words := strings.Fields(text)
	if len(words) == 3 && strings.EqualFold(words[0], "INTERVAL") {
		if n, err := strconv.ParseUint(words[1], 10, 31); err == nil {
			switch strings.ToUpper(words[2]) {
			case "DAY":
				return fmt.Sprintf("0-0 %d 0:0:0", n), nil
			case "HOUR":
				return fmt.Sprintf("0-0 0 %d:0:0", n), nil
			case "MINUTE":
				return fmt.Sprintf("0-0 0 0:%d:0", n), nil
			case "SECOND":
				return fmt.Sprintf("0-0 0 0:0:%d", n), nil
			}
		}
	}
	return "", errUnsupported("the interval %s", text)
}

// literalText is the text of a plain string literal.
func literalText(literal string) string { return strings.Trim(literal, `'"`) }

func (d *ddl) columns(st dialect.Statement) error {
	if len(st.Columns) == 0 {
		return nil
	}
	d.meta.Schema = &bq.TableSchema{}
	for _, c := range st.Columns {
		if c.Default != "" {
			return errUnsupported("default values of columns (field %s)", c.Name)
		}
		f, err := fieldFromSQL(c.Name, c.Type)
		if err != nil {
			return err
		}
		f.required = c.NotNull
		rest := restFields([]field{f})
		for name, text := range c.Options {
			if name != "description" {
				return errUnsupported("the option %s of column %s", name, c.Name)
			}
			rest[0].Description = literalText(text)
		}
		d.meta.Schema.Fields = append(d.meta.Schema.Fields, rest...)
	}
	return nil
}

// partitionBy reads a DATE column, DATE(column) or X_TRUNC(column, UNIT).
func partitionBy(text string) (*bq.TimePartitioning, error) {
	tokens, err := scanSQL(text)
	if err != nil {
		return nil, err
	}
	word := func(i int) string {
		if i < len(tokens) {
			return tokens[i].text
		}
		return ""
	}
	function := strings.ToUpper(word(0))
	switch {
	case len(tokens) == 1:
		return &bq.TimePartitioning{Type: "DAY", Field: word(0)}, nil
	case len(tokens) == 4 && function == "DATE":
		return &bq.TimePartitioning{Type: "DAY", Field: word(2)}, nil
	case len(tokens) == 6 && (function == "DATE_TRUNC" || function == "TIMESTAMP_TRUNC" || function == "DATETIME_TRUNC"):
		return &bq.TimePartitioning{Type: strings.ToUpper(word(4)), Field: word(2)}, nil
	}
	return nil, errUnsupported("PARTITION BY %s", text)
}

// expiration evaluates expiration_timestamp, a constant expression.
func (s *Server) expiration(ctx context.Context, q statementRequest, p *prepared) error {
	d := p.ddl
	if d == nil || d.expires == "" {
		return nil
	}
	q.sql = "SELECT CAST(" + d.expires + " AS TIMESTAMP)"
	var constant prepared
	if err := s.translate(ctx, q, &constant); err != nil {
		return err
	}
	if len(constant.reads) > 0 {
		return errInvalidQuery("expiration_timestamp must be a constant expression: %s", d.expires)
	}
	var at sql.NullTime
	if err := s.store.scalar(ctx, constant.duck, &at); err != nil {
		return duckError(err)
	}
	if at.Valid {
		d.meta.ExpirationTime = at.Time.UnixMilli()
	}
	return nil
}

// runDDL does what the statement says.
func (s *Server) runDDL(ctx context.Context, q statementRequest, p *prepared) error {
	d := p.ddl
	if err := s.expiration(ctx, q, p); err != nil {
		return err
	}
	if d.schema != nil {
		return s.runSchema(ctx, p.kind, d)
	}
	_, err := s.cat.lookup(d.id)
	exists := err == nil
	switch {
	case p.kind == "ALTER_TABLE":
		return s.runAlter(ctx, d, exists)
	case p.kind == "DROP_TABLE" || p.kind == "DROP_VIEW":
		return s.runDrop(ctx, p.kind, d)
	case exists && d.ifExists:
		d.operation = "SKIP"
		return nil
	}
	d.operation = "CREATE"
	if exists && d.replace {
		d.operation = "REPLACE"
	}
	if d.query == "" || d.meta.View != nil {
		_, err = s.createTable(ctx, d.id, d.meta, d.replace)
		return err
	}
	disposition := ""
	if d.replace {
		disposition = replaces
	}
	_, err = s.createFilled(ctx, d.id, d.meta, p, disposition)
	return err
}

func (s *Server) runDrop(ctx context.Context, kind string, d *ddl) error {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	t, err := s.cat.table(d.id)
	if err != nil {
		if d.ifExists {
			d.operation = "SKIP"
			return nil
		}
		return err
	}
	if t.isView() != (kind == "DROP_VIEW") {
		return errInvalidQuery("%s is a %s", d.id, t.kindName())
	}
	ds, err := s.cat.dataset(datasetID{d.id.project, d.id.dataset})
	if err != nil {
		return err
	}
	d.operation = "DROP"
	return s.dropTable(ctx, ds, t)
}

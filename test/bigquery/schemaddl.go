package bigquery

import (
	"context"

	bq "google.golang.org/api/bigquery/v2"

	"github.com/tidemark-data/tidemark/test/bigquery/dialect"
)

// readSchemaDDL takes what the emulator runs of CREATE SCHEMA and DROP SCHEMA.
func readSchemaDDL(q statementRequest, st dialect.Statement) (*ddl, error) {
	d := &ddl{id: tableID{st.Target[0], st.Target[1], ""}, ifExists: st.IfExists || st.IfNotExists, cascade: st.Cascade}
	if d.id.project == "" {
		d.id.project, _ = q.defaults()
	}
	if st.OrReplace {
		return nil, errUnsupported("CREATE OR REPLACE SCHEMA")
	}
	d.schema = &bq.Dataset{DatasetReference: &bq.DatasetReference{ProjectId: d.id.project, DatasetId: d.id.dataset}}
	for name, text := range st.Options {
		switch name {
		case "location":
			d.schema.Location = literalText(text)
		case "description":
			d.schema.Description = literalText(text)
		case "friendly_name":
			d.schema.FriendlyName = literalText(text)
		default:
			return nil, errUnsupported("the option %s in %s", name, st.Kind)
		}
	}
	if d.schema.Location == "" {
		d.schema.Location = q.where()
	}
	return d, nil
}

func (s *Server) runSchema(ctx context.Context, kind string, d *ddl) error {
	s.cat.mu.RLock()
	_, exists := s.cat.datasets[datasetID{d.id.project, d.id.dataset}]
	s.cat.mu.RUnlock()
	d.operation = "SKIP"
	switch {
	case kind == "CREATE_SCHEMA" && exists && d.ifExists, kind == "DROP_SCHEMA" && !exists && d.ifExists:
		return nil
	case kind == "CREATE_SCHEMA":
		d.operation = "CREATE"
		_, err := s.createDataset(d.id.project, *d.schema)
		return err
	}
	d.operation = "DROP"
	return s.dropDataset(ctx, datasetID{d.id.project, d.id.dataset}, d.cascade)
}

package warehouse

import "cloud.google.com/go/bigquery"

// Field is a column of a table as BigQuery's API, and with it `bq show --schema`, has it.
type Field struct {
	Name        string
	Type        string // INTEGER, FLOAT and BOOLEAN are what GoogleSQL calls INT64, FLOAT64 and BOOL
	Mode        string // NULLABLE, REQUIRED or REPEATED
	Description string // "" for none
}

// Schema returns the columns that people who query the table find when it is made: its
// own, then the metadata. One that came later, or whose source has it no longer, is
// NULLABLE in BigQuery even where it is REQUIRED here.
func (t *Table) Schema() []Field {
	schema := schemaOf(t.Columns)
	out := make([]Field, len(schema))
	for i, f := range schema {
		out[i] = Field{Name: f.Name, Type: string(f.Type), Mode: mode(f), Description: f.Description}
	}
	return out
}

func mode(f *bigquery.FieldSchema) string {
	switch {
	case f.Repeated:
		return "REPEATED"
	case f.Required:
		return "REQUIRED"
	}
	return "NULLABLE"
}

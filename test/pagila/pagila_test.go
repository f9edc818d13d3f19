package pagila_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/test/pagila"
	"github.com/tidemark-data/tidemark/test/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// The counts are those of the dump's COPY blocks.
func TestLoad(t *testing.T) {
	t.Parallel()
	address := postgres.NewDatabase(t)
	if err := pagila.Load(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		"actor": 200, "address": 603, "category": 16, "city": 600, "country": 109, "customer": 599, "film": 1000,
		"film_actor": 5462, "film_category": 1000, "inventory": 4581, "language": 6, "payment": 16049, "rental": 16044, "staff": 2, "store": 2,
	}
	if diff := cmp.Diff(want, counts(t, address, want)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestAddCursors(t *testing.T) {
	t.Parallel()
	address := postgres.NewDatabase(t)
	if err := errors.Join(pagila.Load(t.Context(), address), pagila.AddCursors(t.Context(), address)); err != nil {
		t.Fatal(err)
	}
	const fit = `
		SELECT c.relname, 1
		FROM pg_class c
		JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'last_update' AND a.attnotnull
		WHERE NOT c.relispartition AND c.relnamespace = 'public'::regnamespace AND EXISTS (
			SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey::text = a.attnum || ' ' || p.indkey::text)`
	want := map[string]int{
		"actor": 1, "address": 1, "category": 1, "city": 1, "country": 1, "customer": 1, "film": 1, "film_actor": 1,
		"film_category": 1, "inventory": 1, "language": 1, "payment": 1, "rental": 1, "staff": 1, "store": 1,
	}
	if diff := cmp.Diff(want, pairs(t, address, fit)); diff != "" {
		t.Errorf("tables with a NOT NULL last_update indexed with the key (-want +got):\n%s", diff)
	}
}

func counts(t *testing.T, address string, tables map[string]int) map[string]int {
	t.Helper()
	query := ""
	for table := range tables {
		if query != "" {
			query += " UNION ALL "
		}
		query += "SELECT '" + table + "', count(*) FROM public." + table
	}
	return pairs(t, address, query)
}

func pairs(t *testing.T, address, query string) map[string]int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	var name string
	var count int
	if _, err := pgx.ForEachRow(rows, []any{&name, &count}, func() error {
		found[name] = count
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

package e2e_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/test/pagila"
	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/workload"
)

// TestPagila extracts every table of a real schema that has a key while a
// random writer inserts and updates all of them, in transactions that commit
// out of order, stay open over ticks and roll back to savepoints.
func TestPagila(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := postgres.NewDatabase(t)
	must(t, pagila.Load(ctx, url))
	must(t, pagila.AddCursors(ctx, url))
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 8
	writers, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer writers.Close()
	writer, err := workload.New(ctx, writers, workload.Options{Seed: 20261120})
	if err != nil {
		t.Fatal(err)
	}
	partitioned := map[string]string{
		"payment": ", partition_by: {column: payment_date, granularity: month}",
		"rental":  ", partition_by: {column: last_update, granularity: day}, cluster_by: [inventory_id]",
	}
	file := "pipeline: pagila\ndestination: {dataset: pagila}\ndefaults: {batch_rows: 700}\ntables:\n" +
		tables(writer.Tables(), func(string) string { return "last_update" }, func(name string) string { return partitioned[name] })
	w := newWorldOn(t, url, file)
	w.tick()
	w.same("pagila", writer.Tables()...)
	for range 12 {
		if err := writer.Steps(ctx, 40); err != nil {
			t.Fatal(err)
		}
		w.tick()
	}
	if err := writer.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	w.tick()
	w.same("pagila", writer.Tables()...)
	for name, n := range writer.Counts() {
		if n.Inserted == 0 {
			t.Errorf("the workload inserted nothing into %s", name)
		}
	}
	// rental is partitioned by a column that changes, so old versions are in
	// partitions that got no new ones: only a full clean-up finds them.
	w.dedup("")
	w.dedup(`{"full":true,"table":"rental"}`)
	w.same("pagila", writer.Tables()...)
	for _, name := range writer.Tables() {
		versions := w.count(fmt.Sprintf("SELECT COUNT(*) FROM pagila.%s_log", name))
		rows := w.count(fmt.Sprintf("SELECT COUNT(*) FROM pagila.%s", name))
		if versions != rows {
			t.Errorf("after dedup %s_log has %d versions of %d rows", name, versions, rows)
		}
	}
	if rejected := w.value("SELECT count(*) FROM tidemark.rejects"); rejected != "0" {
		t.Errorf("%s rows rejected, such as %s", rejected, w.value("SELECT reason || ' ' || name || '.' || column_name || ' ' || row::text FROM tidemark.rejects LIMIT 1"))
	}
}

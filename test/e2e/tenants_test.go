package e2e_test

import (
	"encoding/json"
	"testing"
)

// TestTenants sends each row to the dataset of its tenant and to no other (I8).
func TestTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
pipeline: app
destination: {dataset: app}
tenants:
  query: SELECT id, slug FROM organizations WHERE active ORDER BY id
  column: organization_id
  dataset: "org_{slug}"
tables:
  - {name: notes, capture: {method: watermark, cursor: updated_at}}
`, `CREATE TABLE organizations (id int PRIMARY KEY, slug text, active boolean);
		INSERT INTO organizations VALUES (1, 'acme', true), (2, 'blue', true), (3, 'gone', false);
		CREATE TABLE notes (id int PRIMARY KEY, organization_id int NOT NULL, updated_at timestamptz NOT NULL DEFAULT clock_timestamp());
		CREATE INDEX ON notes (updated_at, id);
		INSERT INTO notes SELECT n, 1 + n % 3 FROM generate_series(1, 300) n`)
	w.tick()
	if len(w.published) != 2 {
		t.Fatalf("%d messages were published, want one per active tenant", len(w.published))
	}
	serve := func() {
		messages := w.published
		w.published = nil
		for _, m := range messages {
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			must(t, w.extractOn(w.product, string(text)))
		}
	}
	serve()
	w.exec(`UPDATE notes SET updated_at = clock_timestamp() WHERE id <= 30`)
	w.tick()
	serve()
	for slug, tenant := range map[string]string{"acme": "1", "blue": "2"} {
		if got := w.count("SELECT COUNT(*) FROM org_" + slug + ".notes WHERE organization_id = " + tenant); got != 100 {
			t.Errorf("%s has %d of its rows, want 100", slug, got)
		}
		if got := w.count("SELECT COUNT(*) FROM org_" + slug + ".notes_log WHERE organization_id <> " + tenant); got != 0 {
			t.Errorf("%s has %d rows of others", slug, got)
		}
	}
}

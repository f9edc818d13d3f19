package e2e_test

import "testing"

// TestMirrorOfTenants: each tenant's rows are those of its own dataset, whatever another's
// dataset has under the same keys (I8).
func TestMirrorOfTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
pipeline: crm
destination: {dataset: crm}
tenants: {query: "SELECT id, slug FROM organizations", column: organization_id, dataset: "org_{slug}"}
reverse_etl:
  - name: scores
    query: SELECT id, organization_id, score FROM `+"`{dataset}.scores`"+`
    target: {table: scores, key: {id: id}, columns: {organization_id: organization_id, score: score}}
    mode: mirror
    limits: {max_delete_percent: 100, max_swing_percent: 1000}
`, `CREATE TABLE organizations (id int PRIMARY KEY, slug text); INSERT INTO organizations VALUES (1, 'a'), (2, 'b');
		CREATE TABLE scores (id int PRIMARY KEY, organization_id int, score int);
		INSERT INTO scores VALUES (1, 1, 0), (2, 1, 0), (3, 2, 0), (4, 2, 0), (5, 3, 0)`)
	for _, slug := range []string{"a", "b"} {
		w.rows("CREATE SCHEMA org_" + slug)
	}
	// Of a: 1 changes, 2 goes, 3 is b's, 6 comes, and 7 would be b's. Of b: 4 goes.
	w.rows("CREATE TABLE org_a.scores AS SELECT * FROM UNNEST([STRUCT(1 AS id, 1 AS organization_id, 10 AS score), (3, 1, 66), (6, 1, 60), (7, 2, 66)])")
	w.rows("CREATE TABLE org_b.scores AS SELECT 3 AS id, 2 AS organization_id, 30 AS score")
	must(t, w.reverse(`{"pipeline":"crm","tenant":"1"}`))
	must(t, w.reverse(`{"pipeline":"crm","tenant":"2"}`))
	if got := w.value(`SELECT string_agg(concat_ws(' ', id, organization_id, score), ', ' ORDER BY id) FROM scores`); got != "1 1 10, 3 2 30, 5 3 0, 6 1 60" {
		t.Errorf("scores: %s", got)
	}
	if got := w.value(`SELECT string_agg(tenant || ' ' || (detail->>'outside') || ' ' || rows_deleted || ' ' || rows_rejected, ', ' ORDER BY id) FROM tidemark.runs`); got != "1 1 1 1, 2 0 1 0" {
		t.Errorf("outside, deleted and rejected by tenant: %s", got)
	}
}

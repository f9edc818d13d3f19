package e2e_test

import "testing"

// TestLoopDiesOut: what reverse ETL writes is extracted, what is extracted is what it
// reads, and the application stamps every write. What is not a change is not written, so
// that after one more round there is nothing to carry either way.
func TestLoopDiesOut(t *testing.T) {
	t.Parallel()
	query := "SELECT id, CAST(LENGTH(name) AS NUMERIC) AS score FROM `{dataset}.contacts`"
	w := newWorld(t, reverseFile("update", query, "score: score", ""), contactsSQL,
		`CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END $$;
		 CREATE TRIGGER stamp BEFORE UPDATE ON contacts FOR EACH ROW EXECUTE FUNCTION stamp()`)
	round := func() {
		w.tick()
		must(t, w.reverse(""))
	}
	written := func() string {
		return w.value(`SELECT string_agg(kind || ' ' || rows_written, ', ' ORDER BY id) FROM tidemark.runs`)
	}
	for range 4 {
		round()
	}
	// Extract leaves no record of a tick that found nothing.
	if got := written(); got != "extract 100, reverse_etl 100, extract 100, reverse_etl 0, reverse_etl 0, reverse_etl 0" {
		t.Errorf("rows were carried: %s", got)
	}
	w.exec(`UPDATE contacts SET name = 'another name' WHERE id = 3`)
	for range 4 {
		round()
	}
	if got := written(); got != "extract 100, reverse_etl 100, extract 100, reverse_etl 0, reverse_etl 0, reverse_etl 0, extract 1, reverse_etl 1, extract 1, reverse_etl 0, reverse_etl 0, reverse_etl 0" {
		t.Errorf("after a change of one row, rows were carried: %s", got)
	}
	w.same("crm", "contacts")
}

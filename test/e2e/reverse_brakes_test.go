package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// mirrorFile mirrors the rows of crm.regions into regions.
func mirrorFile(options string) string {
	return `
pipeline: crm
destination: {dataset: crm}
reverse_etl:
  - name: regions
    query: SELECT code, name FROM ` + "`{dataset}.regions`" + `
    target: {table: regions, key: {code: code}, columns: {name: name}}
    mode: mirror
    limits: {` + options + `}
`
}

const regionsSQL = `CREATE TABLE regions (code text PRIMARY KEY, name text NOT NULL);
	INSERT INTO regions SELECT 'r' || n, 'region ' || n FROM generate_series(1, 100) n;
	CREATE TABLE shops (id bigint PRIMARY KEY, region text REFERENCES regions)`

// regions makes the source rows 1 to n.
func (w *world) regions(n int) {
	w.t.Helper()
	w.rows("CREATE OR REPLACE TABLE crm.regions AS SELECT CONCAT('r', CAST(n AS STRING)) AS code, CONCAT('region ', CAST(n AS STRING)) AS name FROM UNNEST(GENERATE_ARRAY(1, " + fmt.Sprint(n) + ")) AS n")
}

func (w *world) braked(want ...string) (run string) {
	w.t.Helper()
	err := w.reverse("")
	class, remedy := fault.Classify(err)
	if err == nil || class != fault.Permanent || !strings.Contains(remedy, `"override":`) {
		w.t.Fatalf("got %v with the remedy %q, want the brakes", err, remedy)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			w.t.Errorf("%v does not say %q", err, text)
		}
	}
	return w.value(`SELECT max(id) FROM tidemark.runs WHERE kind = 'reverse_etl' AND outcome = 'failed' AND rows_written + rows_deleted = 0 AND jsonb_array_length(detail->'brakes') > 0`)
}

// TestBrakes: each stops the run with its numbers and nothing written, its override lets
// that much through once, and the next time it stops again.
func TestBrakes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		options string
		cascade bool
		rows    int // of the source, after 100
		why     []string
	}{
		"deletes, by count":   {"max_deletes: 2, max_delete_percent: 100", false, 97, []string{"3 rows of 100 would be deleted", "max_deletes is 2"}},
		"deletes, by percent": {"max_delete_percent: 5", false, 94, []string{"6 rows of 100 would be deleted: 6.00 %", "max_delete_percent is 5"}},
		"swing":               {"max_delete_percent: 100, max_swing_percent: 10", false, 89, []string{"the source has 89 rows, and had 100", "max_swing_percent, 10"}},
		"empty":               {"max_delete_percent: 100, max_swing_percent: 100", false, 0, []string{"the source is empty, and 100 rows would be deleted"}},
		"cascade":             {"", true, 99, []string{"2 rows of public.shops by shops_region_fkey (delete)"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mirrorFile(test.options), regionsSQL)
			w.rows("CREATE SCHEMA crm")
			w.regions(100)
			must(t, w.reverse(""))
			if test.cascade {
				w.exec(`ALTER TABLE shops DROP CONSTRAINT shops_region_fkey, ADD FOREIGN KEY (region) REFERENCES regions ON DELETE CASCADE`)
				w.exec(`INSERT INTO shops VALUES (1, 'r100'), (2, 'r100'), (3, 'r1')`)
			}
			w.regions(test.rows)
			run := w.braked(test.why...)
			if again := w.braked(test.why...); again == run {
				t.Error("the second run has no record of its own")
			}
			if got := w.value(`SELECT count(*) FROM regions`); got != "100" {
				t.Fatalf("%s regions are left behind the brake, want 100", got)
			}
			override := `{"pipeline":"crm","sync":"regions","override":` + run + `}`
			must(t, w.reverse(override))
			if got := w.value(`SELECT count(*) FROM regions`); got != fmt.Sprint(test.rows) {
				t.Errorf("%s regions with the override, want %d", got, test.rows)
			}
			// Once: what would go beyond the brake anew is stopped, whatever the message says.
			w.exec(`INSERT INTO regions SELECT 'x' || n, 'again ' || n FROM generate_series(1, 20) n`)
			if test.cascade {
				w.exec(`INSERT INTO shops VALUES (11, 'x1'), (12, 'x2')`)
			}
			if name == "swing" {
				w.regions(60)
			}
			if err := w.reverse(override); err == nil {
				t.Error("the override worked twice")
			}
			w.noStaging()
		})
	}
}

// TestOverrideIsNoBlankCheque: it lets through what was shown, and not what has become of it.
func TestOverrideIsNoBlankCheque(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirrorFile(""), regionsSQL)
	w.rows("CREATE SCHEMA crm")
	w.regions(90)
	run := w.braked("10 rows of 100")
	w.regions(50)
	if err := w.reverse(`{"pipeline":"crm","sync":"regions","override":` + run + `}`); err == nil {
		t.Fatal("fifty rows went by an override of ten")
	}
	w.regions(95)
	must(t, w.reverse(`{"pipeline":"crm","sync":"regions","override":`+run+`}`))
	if got := w.value(`SELECT count(*) FROM regions`); got != "95" {
		t.Errorf("%s regions, want 95", got)
	}
	for _, message := range []string{`{"pipeline":"crm","sync":"regions","override":999}`, `{"pipeline":"crm","sync":"regions","override":` + w.value(`SELECT max(id) FROM tidemark.runs`) + `}`} {
		if err := w.reverse(message); err == nil {
			t.Errorf("%s overrides nothing, and is done", message)
		}
	}
}

// TestStaleSource: a source that nobody has written to for too long is not synced.
func TestStaleSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mirrorFile("max_staleness: 26h, fresh_tables: [regions]"), regionsSQL)
	w.ahead.Store(int64(-48 * time.Hour)) // what is written now was written the day before yesterday
	w.rows("CREATE SCHEMA crm")
	w.regions(99)
	run := w.braked("crm.regions was last written to 48h", "max_staleness is 26h")
	must(t, w.reverse(`{"pipeline":"crm","sync":"regions","override":`+run+`}`))
	w.braked("crm.regions was last written to")
	w.ahead.Store(0)
	w.regions(98)
	must(t, w.reverse(""))
	if got := w.value(`SELECT count(*) FROM regions`); got != "98" {
		t.Errorf("%s regions, want 98", got)
	}
}

// TestApproval: nothing is written but a plan that a person has seen, as it was seen.
func TestApproval(t *testing.T) {
	t.Parallel()
	file := strings.Replace(mirrorFile("max_deletes: 1"), "mode: mirror", "mode: mirror\n    approve: true", 1)
	w := newWorld(t, file, regionsSQL)
	w.rows("CREATE SCHEMA crm")
	w.regions(90)
	plan := func() string {
		t.Helper()
		must(t, w.reverse(""))
		return w.value(`SELECT max(id) FROM tidemark.runs WHERE kind = 'reverse_etl' AND outcome = 'dry_run'`)
	}
	apply := func(plan string) error { return w.reverse(`{"pipeline":"crm","sync":"regions","plan":` + plan + `}`) }
	stands := func(want string) {
		t.Helper()
		if got := w.value(`SELECT count(*) || ' ' || count(*) FILTER (WHERE name LIKE 'region%') FROM regions`); got != want {
			t.Fatalf("regions: %s, want %s", got, want)
		}
	}
	first := plan()
	stands("100 100")
	if got := w.value(`SELECT (detail->>'delete') || ' ' || (detail->'brakes'->0->>'brake') || ' ' || (detail->'samples'->0->>'action') FROM tidemark.runs WHERE id = ` + first); got != "10 deletes delete" {
		t.Errorf("the plan shows %s", got)
	}
	// Either side has changed: refused.
	w.exec(`UPDATE regions SET name = 'changed' WHERE code = 'r5'`)
	if err := apply(first); err == nil || !strings.Contains(err.Error(), "has changed since") {
		t.Fatalf("after the table changed: %v", err)
	}
	second := plan()
	w.regions(91)
	if err := apply(second); err == nil || !strings.Contains(err.Error(), "has changed since") {
		t.Fatalf("after the source changed: %v", err)
	}
	stands("100 99")
	w.regions(90)
	must(t, apply(second))
	stands("90 90")
	// The message comes twice: the plan is not applied twice, nor is that an error.
	w.exec(`INSERT INTO regions SELECT 'r' || n, 'region ' || n FROM generate_series(91, 100) n; UPDATE regions SET name = 'changed' WHERE code = 'r5'`)
	must(t, apply(second))
	stands("100 99")
	if err := apply("999"); err == nil {
		t.Error("a plan that there is not was applied")
	}
}

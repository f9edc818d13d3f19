package landing_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// copied is a source row of the ledgers below: its key NULL, or that of others too.
type copied struct {
	id   int64 // 0 for NULL
	name string
}

// copiesSQL makes the table anew.
func copiesSQL(table string, rows []copied) string {
	parts := []string{"STRUCT(CAST(NULL AS INT64) AS id, CAST(NULL AS STRING) AS name, TRUE AS none)"}
	for _, row := range rows {
		id := "NULL"
		if row.id != 0 {
			id = fmt.Sprint(row.id)
		}
		parts = append(parts, fmt.Sprintf("STRUCT(%s, '%s', FALSE)", id, row.name))
	}
	return fmt.Sprintf("CREATE OR REPLACE TABLE shop.%s AS SELECT id, name FROM UNNEST([%s]) WHERE NOT none", table, strings.Join(parts, ", "))
}

func ledgerSource(table string) warehouse.Source {
	return warehouse.Source{
		Dataset: dataset, Query: "SELECT id, name FROM " + table + ";", Key: []string{"id"}, Columns: []string{"name"},
		Changes: warehouse.ChangesLedger, Ledger: table, Mapping: "1",
	}
}

func (q *quay) confirm(t fatal, source warehouse.Source, r *warehouse.Result, done warehouse.Confirmed) {
	t.Helper()
	if err := q.client.Confirm(t.Context(), source, r, done); err != nil {
		t.Fatalf("confirming: %v", err)
	}
}

func TestLedgerTakesWhatChanged(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := ledgerSource("customers")
	q.do(t, copiesSQL("customers", []copied{{1, "a"}, {2, "b"}, {3, "c"}}))
	r, rows := q.take(t, source, warehouse.Take{})
	sees(t, "the first run", []string{"1 a", "2 b", "3 c"}, rows)
	if !r.Whole {
		t.Error("the first run is not whole")
	}
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{rows[2].fingerprint}})
	r, rows = q.take(t, source, warehouse.Take{})
	sees(t, "what was not confirmed", []string{"3 c"}, rows)
	if r.Whole {
		t.Error("the second run is whole")
	}
	q.confirm(t, source, r, warehouse.Confirmed{Only: []int64{rows[0].fingerprint}})
	q.do(t, copiesSQL("customers", []copied{{1, "a"}, {2, "x"}, {4, "d"}}))
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "what changed, came and left", []string{"2 x", "3 NULL removed", "4 d"}, rows)
	r, only := q.take(t, source, warehouse.Take{Rejected: []int64{rows[0].fingerprint, rows[1].fingerprint}, Only: true})
	sees(t, "two of them alone", []string{"2 x", "3 NULL removed"}, only)
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	r, rows = q.take(t, source, warehouse.Take{})
	sees(t, "the third", []string{"4 d"}, rows)
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	r, rows = q.take(t, source, warehouse.Take{})
	sees(t, "nothing", nil, rows)
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	_, rows = q.take(t, source, warehouse.Take{All: true})
	sees(t, "all", []string{"1 a", "2 x", "4 d"}, rows)
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "after all was taken and nothing confirmed", []string{"1 a", "2 x", "4 d"}, rows)
}

// TestAWholeRunForgetsWhatIsGone, since it has compared all of the target; one that was cut
// short has not.
func TestAWholeRunForgetsWhatIsGone(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := ledgerSource("customers")
	q.do(t, copiesSQL("customers", []copied{{1, "a"}, {2, "b"}}))
	r, _ := q.take(t, source, warehouse.Take{})
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	q.do(t, copiesSQL("customers", []copied{{1, "a"}}))
	r, rows := q.take(t, source, warehouse.Take{All: true})
	sees(t, "all", []string{"1 a"}, rows)
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}, Partial: true})
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "the run after one that was cut short", []string{"2 NULL removed"}, rows)
	r, _ = q.take(t, source, warehouse.Take{All: true})
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "the run after a whole one", nil, rows)
}

// TestEveryRunIsWholeUntilOneWas: a ledger that is new does not know what the target has.
func TestEveryRunIsWholeUntilOneWas(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := ledgerSource("customers")
	q.do(t, copiesSQL("customers", []copied{{1, "a"}}))
	for i, done := range []warehouse.Confirmed{{Except: []int64{}, Partial: true}, {Except: []int64{}}} {
		q.take(t, source, warehouse.Take{}) // and it dies
		r, rows := q.take(t, source, warehouse.Take{})
		if sees(t, "a run", []string{"1 a"}, rows); !r.Whole {
			t.Errorf("after %d that came to no end a run is not whole", i)
		}
		q.confirm(t, source, r, done)
	}
	if r, _ := q.take(t, source, warehouse.Take{}); r.Whole {
		t.Error("after one that came to its end a run is whole")
	}
}

// TestDryRunLeavesNoTrace in the warehouse.
func TestDryRunLeavesNoTrace(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := ledgerSource("customers")
	q.do(t, copiesSQL("customers", []copied{{1, "a"}, {2, "b"}}))
	r, rows := q.take(t, source, warehouse.Take{Dry: true})
	sees(t, "a dry run", []string{"1 a", "2 b"}, rows)
	if !r.Whole {
		t.Error("it is not whole")
	}
	if err := q.client.Confirm(t.Context(), source, r, warehouse.Confirmed{Except: []int64{}}); err == nil {
		t.Error("a dry run is confirmed")
	}
	if _, err := q.look.Dataset(dataset + "_ledger").Metadata(t.Context()); err == nil {
		t.Error("a dry run makes a dataset")
	}
	r, rows = q.take(t, source, warehouse.Take{})
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{rows[0].fingerprint}})
	before := q.ledgers(t)
	_, rows = q.take(t, source, warehouse.Take{Dry: true})
	sees(t, "the second dry run", []string{"1 a"}, rows)
	if diff := gocmp.Diff(before, q.ledgers(t)); diff != "" {
		t.Errorf("what it changes (-before +after):\n%s", diff)
	}
}

// ledgers are the tables of the ledgers.
func (q *quay) ledgers(t fatal) []string {
	t.Helper()
	var out []string
	for tables := q.look.Dataset(dataset + "_ledger").Tables(t.Context()); ; {
		table, err := tables.Next()
		if err != nil {
			slices.Sort(out)
			return out
		}
		out = append(out, table.TableID)
	}
}

// TestLedgerOfAnotherMapping is not used, nor is it kept.
func TestLedgerOfAnotherMapping(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, copiesSQL("customers", []copied{{1, "a"}}))
	other := ledgerSource("customers")
	other.Ledger = "customers_too" // begins alike
	r, _ := q.take(t, other, warehouse.Take{})
	q.confirm(t, other, r, warehouse.Confirmed{Except: []int64{}})
	kept := q.ledgers(t)
	source := ledgerSource("customers")
	for name, change := range map[string]func(){
		"the mapping":            func() { source.Mapping += "1" },
		"the type of the key":    func() { source.Query = "SELECT CAST(id AS STRING) AS id, name FROM customers" },
		"back to what it was":    func() { source = ledgerSource("customers") },
		"the columns of the key": func() { source.Key = []string{"id", "name"} },
	} {
		change()
		r, rows := q.take(t, source, warehouse.Take{})
		if len(rows) != 1 || !r.Whole {
			t.Fatalf("%s: %d rows are taken, whole %t", name, len(rows), r.Whole)
		}
		q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
		if _, rows = q.take(t, source, warehouse.Take{Dry: true}); len(rows) > 0 {
			t.Fatalf("%s: then %d rows are taken", name, len(rows))
		}
		if got := q.ledgers(t); len(got) != len(kept)+1 || !slices.Contains(got, kept[0]) {
			t.Errorf("%s: there are ledgers %q, want that of the other sync %q and one", name, got, kept)
		}
	}
}

// TestLedgerTellsValuesApart that look alike, and none that are the same.
func TestLedgerTellsValuesApart(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	columns := []struct{ name, typ string }{
		{"f", "FLOAT64"},
		{"s", "STRING"},
		{"n", "NUMERIC"},
		{"b", "BYTES"},
		{"ts", "TIMESTAMP"},
		{"dt", "DATETIME"},
		{"d", "DATE"},
		{"tm", "TIME"},
		{"j", "JSON"},
		{"l", "ARRAY<STRING>"},
		{"big", "BIGNUMERIC"},
		{"i", "INT64"},
		{"yes", "BOOL"},
	}
	values := map[string][]string{
		"f":   {"NULL", "CAST('NaN' AS FLOAT64)", "CAST('inf' AS FLOAT64)", "0.1", "0.1 + 0.2", "0.3"},
		"s":   {"NULL", "''", "'null'", "'NULL'", `'"'`, "'a'", "'a '", "'ä'"},
		"n":   {"NULL", "NUMERIC '0.1'", "NUMERIC '1'", "NUMERIC '99999999999999999999999999999.999999999'", "NUMERIC '99999999999999999999999999999.999999998'"},
		"b":   {"NULL", "b''", `b'\x00'`},
		"ts":  {"NULL", "TIMESTAMP '2026-01-01 00:00:00.000001+00'", "TIMESTAMP '2026-01-01 00:00:00+00'"},
		"dt":  {"NULL", "DATETIME '2026-01-01 00:00:00'", "DATETIME '2026-01-01 00:00:00.000001'"},
		"d":   {"NULL", "DATE '2026-01-01'"},
		"tm":  {"NULL", "TIME '01:00:00'", "TIME '01:00:00.000001'"},
		"j":   {"NULL", "JSON 'null'", `JSON '{"a": 1}'`, `JSON '{"a": 2}'`},
		"l":   {"['a', 'b']", "['a,b']", "ARRAY<STRING>[]"},
		"big": {"NULL", "BIGNUMERIC '0.00000000000000000000000000000000000001'", "BIGNUMERIC '0'"},
		"i":   {"NULL", "9007199254740992", "9007199254740993", "0"},
		"yes": {"NULL", "TRUE", "FALSE"},
	}
	for _, c := range columns {
		t.Run(c.typ, func(t *testing.T) {
			t.Parallel()
			table := "of_" + c.name
			source := ledgerSource(table)
			source.Query, source.Columns = "SELECT * FROM "+table, []string{c.name}
			for i, value := range values[c.name] {
				q.do(t, fmt.Sprintf("CREATE OR REPLACE TABLE shop.%s AS SELECT 1 AS id, CAST(%s AS %s) AS %s", table, value, c.typ, c.name))
				r, rows := q.take(t, source, warehouse.Take{})
				if len(rows) != 1 {
					t.Fatalf("%s after %s: %d rows are taken", value, values[c.name][max(i-1, 0)], len(rows))
				}
				q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
				if _, rows = q.take(t, source, warehouse.Take{}); len(rows) != 0 {
					t.Fatalf("%s is taken again", value)
				}
			}
		})
	}
}

// TestLedgerKeysOfEveryType that a key may have.
func TestLedgerKeysOfEveryType(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	for typ, values := range map[string][2]string{
		"INT64": {"1", "2"}, "STRING": {"'a'", "'A'"}, "NUMERIC": {"NUMERIC '1.5'", "NUMERIC '2'"}, "BIGNUMERIC": {"BIGNUMERIC '1.5'", "BIGNUMERIC '2'"},
		"BYTES": {"b'a'", "b'b'"}, "DATE": {"DATE '2026-01-01'", "DATE '2026-01-02'"}, "TIMESTAMP": {"TIMESTAMP '2026-01-01'", "TIMESTAMP '2026-01-02'"},
		"DATETIME": {"DATETIME '2026-01-01 00:00:00'", "DATETIME '2026-01-02 00:00:00'"}, "BOOL": {"TRUE", "FALSE"}, "TIME": {"TIME '01:00:00'", "TIME '02:00:00'"},
	} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			table := "by_" + strings.ToLower(typ)
			source := ledgerSource(table)
			q.do(t, fmt.Sprintf("CREATE TABLE shop.%s AS SELECT %s AS id, 'a' AS name UNION ALL SELECT %s, 'b'", table, values[0], values[1]))
			r, rows := q.take(t, source, warehouse.Take{})
			q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
			q.do(t, fmt.Sprintf("CREATE OR REPLACE TABLE shop.%s AS SELECT %s AS id, 'x' AS name", table, values[1]))
			r, again := q.take(t, source, warehouse.Take{})
			q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
			if len(rows) != 2 || len(again) != 2 || again[0].removed == again[1].removed {
				t.Fatalf("taken are %q, then %q", texts(rows), texts(again))
			}
			keys := map[int64]bool{rows[0].fingerprint: true, rows[1].fingerprint: true}
			if !keys[again[0].fingerprint] || !keys[again[1].fingerprint] {
				t.Error("a key has another fingerprint once it is removed")
			}
			if _, rows = q.take(t, source, warehouse.Take{}); len(rows) != 0 {
				t.Errorf("then there is left %q", texts(rows))
			}
		})
	}
}

// TestConfirmMoreKeysThanARequestHolds is done in parts, of which each has its own.
func TestConfirmMoreKeysThanARequestHolds(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	const rows, part = 250_000, 200_000
	q.do(t, fmt.Sprintf("CREATE TABLE shop.many AS SELECT id, 'a' AS name FROM UNNEST(GENERATE_ARRAY(1, %d)) AS id", rows))
	source := ledgerSource("many")
	for _, c := range []struct {
		name string
		done func(keys []int64) warehouse.Confirmed
	}{
		{"all but most", func(keys []int64) warehouse.Confirmed { return warehouse.Confirmed{Except: keys[100:]} }},
		{"most", func(keys []int64) warehouse.Confirmed { return warehouse.Confirmed{Only: keys[100:]} }},
	} {
		r, taken := q.take(t, source, warehouse.Take{All: true})
		keys := make([]int64, len(taken))
		for i, row := range taken {
			keys[i] = row.fingerprint
		}
		before := len(q.server.Statements())
		q.confirm(t, source, r, c.done(keys))
		merges := 0
		for _, st := range q.server.Statements()[before:] {
			if st.Kind == "MERGE" {
				merges++
			}
		}
		if want := (rows - 100 + part - 1) / part; merges != want {
			t.Errorf("%s: confirmed in %d statements, want %d", c.name, merges, want)
		}
		want := map[bool]int64{true: 100, false: rows - 100}[c.name == "all but most"]
		got := q.read(t, "SELECT COUNT(*) FROM shop_ledger."+q.ledgers(t)[0]+" WHERE _tidemark_checksum IS NOT NULL")
		if diff := gocmp.Diff([][]bigquery.Value{{want}}, got); diff != "" {
			t.Errorf("%s: rows confirmed (-want +got):\n%s", c.name, diff)
		}
	}
}

// mirrorTarget is the table that the rows of a ledger are written to, as a model: it is
// mirrored, and rows that share a key or have none are refused.
type mirrorTarget struct {
	rows    map[string]string
	partial bool // a whole comparison did not come to its end
}

// apply writes the rows that draw lets through, and returns the fingerprints of those
// that are in the table, and of those that are not.
func (m *mirrorTarget) apply(r *warehouse.Result, rows []taken, let func() bool) (done, left []int64) {
	count := map[int64]int{}
	for _, row := range rows {
		count[row.fingerprint]++
	}
	there := map[string]bool{}
	for _, row := range rows {
		there[row.Columns[0]] = true
		switch {
		case count[row.fingerprint] > 1, row.Columns[0] == "NULL", !let():
			left = append(left, row.fingerprint)
		case row.removed:
			delete(m.rows, row.Columns[0])
			done = append(done, row.fingerprint)
		default:
			m.rows[row.Columns[0]] = row.Columns[1]
			done = append(done, row.fingerprint)
		}
	}
	if r.Whole {
		m.partial = false
		for key := range m.rows {
			if there[key] {
				continue
			}
			if !let() {
				m.partial = true
				continue
			}
			delete(m.rows, key)
		}
	}
	return done, left
}

// TestLedgerMirrorsEveryHistory: whatever happens to a source, whichever runs die between
// what they write and what they say of it, whatever is refused or taken again, and
// whenever the mapping changes, a last run without faults makes the table what the source
// is.
func TestLedgerMirrorsEveryHistory(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	tables := 0
	rapid.Check(t, func(rt *rapid.T) {
		tables++
		table := fmt.Sprintf("mirrored%d", tables)
		source := ledgerSource(table)
		target := &mirrorTarget{rows: map[string]string{}}
		var rows []copied
		run := func(kind string) []taken {
			var take warehouse.Take
			let := func() bool { return rapid.IntRange(0, 3).Draw(rt, "lets") > 0 }
			switch kind {
			case "all":
				take.All = true
			case "clean":
				let = func() bool { return true }
			case "dry":
				take.Dry = true
			}
			r, got := q.take(rt, source, take)
			rt.Logf("%s run of %v, mapping %s, whole %t, takes %q; in the table are %v", kind, rows, source.Mapping, r.Whole, texts(got), target.rows)
			if kind == "dry" {
				return got
			}
			done, left := target.apply(r, got, let)
			switch {
			case kind == "killed":
			case rapid.Bool().Draw(rt, "by exception"):
				q.confirm(rt, source, r, warehouse.Confirmed{Except: append([]int64{}, left...), Partial: target.partial})
			default:
				q.confirm(rt, source, r, warehouse.Confirmed{Only: append([]int64{}, done...), Partial: target.partial})
			}
			return got
		}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			rows = drawCopies(rt, rows)
			q.do(rt, copiesSQL(table, rows))
			kind := rapid.SampledFrom([]string{"plain", "plain", "killed", "all", "dry", "mapping"}).Draw(rt, "run")
			if kind == "mapping" {
				source.Mapping = rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "mapping")
			}
			run(kind)
		}
		run("clean")
		run("clean") // what left while every row was taken
		want, shared := model(rows)
		maps.DeleteFunc(target.rows, func(key, _ string) bool { return shared[key] })
		if diff := gocmp.Diff(want, target.rows); diff != "" {
			rt.Fatalf("the table (-want +got):\n%s", diff)
		}
		if again := run("dry"); len(again) != refusedOf(rows) {
			rt.Fatalf("then there is left to take %q of %v", texts(again), rows)
		}
	})
}

// drawCopies changes the source at random.
func drawCopies(rt *rapid.T, rows []copied) []copied {
	rows = slices.Clone(rows)
	for range rapid.IntRange(0, 4).Draw(rt, "changes") {
		row := copied{rapid.Int64Range(0, 5).Draw(rt, "id"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name")}
		at := slices.IndexFunc(rows, func(r copied) bool { return r.id == row.id })
		switch kind := rapid.IntRange(0, 9).Draw(rt, "kind"); {
		case kind < 5 && at >= 0:
			rows[at] = row
		case kind < 5 || kind == 9: // 9: a key may be there twice
			rows = append(rows, row)
		case at >= 0:
			rows = slices.Delete(rows, at, at+1)
		}
	}
	slices.SortFunc(rows, func(a, b copied) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.name, b.name)) })
	return rows
}

// model is what a table should be, and the keys that nobody can say it of.
func model(rows []copied) (want map[string]string, shared map[string]bool) {
	want, shared = map[string]string{}, map[string]bool{}
	for _, row := range rows {
		key := fmt.Sprint(row.id)
		if _, twice := want[key]; twice {
			shared[key] = true
		}
		want[key] = row.name
	}
	delete(want, "0") // NULL
	maps.DeleteFunc(want, func(key, _ string) bool { return shared[key] })
	return want, shared
}

// refusedOf counts the rows that are refused, whoever writes them.
func refusedOf(rows []copied) int {
	want, _ := model(rows)
	return len(rows) - len(want)
}

// TestLedgerSurvivesADeathAnywhere: a run dies before or after any of its calls, and then
// the source goes back to what the ledger knew before that run. The target did not.
func TestLedgerSurvivesADeathAnywhere(t *testing.T) {
	t.Parallel()
	q := newQuay(t, "running ", "analyzing", "sizing ", "connecting", "preparing") // of a dry run whose caller is gone
	q.do(t, "CREATE TABLE shop.states AS SELECT 1 AS state, 1 AS id, 'a' AS name UNION ALL SELECT 1, 2, 'b' UNION ALL SELECT 1, 3, 'c' UNION ALL SELECT 2, 1, 'x' UNION ALL SELECT 2, 3, 'c' UNION ALL SELECT 2, 4, 'd'")
	q.do(t, "CREATE TABLE shop.current_state AS SELECT 1 AS state")
	be := func(state int) { q.do(t, fmt.Sprintf("UPDATE shop.current_state SET state = %d WHERE TRUE", state)) }
	for _, phase := range []emulator.Phase{emulator.Before, emulator.After} {
		for n, died := 1, true; died; n++ {
			source := ledgerSource(fmt.Sprintf("dying%v_%d", phase, n))
			source.Query = "SELECT id, name FROM states WHERE state = (SELECT state FROM current_state)"
			target := &mirrorTarget{rows: map[string]string{}}
			all := func() bool { return true }
			run := func() {
				r, rows := q.take(t, source, warehouse.Take{})
				target.apply(r, rows, all)
				q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
			}
			run()
			be(2)
			q.pass(10 * time.Second)
			died = q.dies(t, phase, n, func(ctx context.Context) error {
				r, err := q.client.Select(ctx, source, warehouse.Take{})
				if err != nil {
					return err
				}
				target.apply(r, q.rows(t, r), all)
				return q.client.Confirm(ctx, source, r, warehouse.Confirmed{Except: []int64{}})
			})
			be(1)
			run()
			if diff := gocmp.Diff(map[string]string{"1": "a", "2": "b", "3": "c"}, target.rows); diff != "" {
				t.Errorf("died %v call %d: the table (-want +got):\n%s", phase, n, diff)
			}
			if n > 100 {
				t.Fatal("a run makes more than 100 calls")
			}
		}
	}
}

// dies runs f with a context that ends at its n-th call, and reports whether it came to it.
func (q *quay) dies(t *testing.T, phase emulator.Phase, n int, f func(context.Context) error) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int64
	q.server.Intercept(func(c emulator.Call) error {
		if c.Phase == phase && calls.Add(1) == int64(n) {
			cancel()
		}
		return nil
	})
	err := f(ctx)
	q.server.Intercept(nil)
	if err != nil && ctx.Err() == nil {
		t.Fatalf("a run that should have died failed: %v", err)
	}
	return ctx.Err() != nil
}

// TestJobsWhoseAnswerIsLost run once.
func TestJobsWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, copiesSQL("customers", []copied{{1, "a"}}))
	var lost atomic.Int64
	q.server.Intercept(func(c emulator.Call) error {
		if c.Method == "jobs.insert" && c.Phase == emulator.After && lost.Add(1)%2 == 1 {
			return errLost
		}
		return nil
	})
	source := ledgerSource("customers")
	r, rows := q.take(t, source, warehouse.Take{})
	sees(t, "the run", []string{"1 a"}, rows)
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	source.Changes = warehouse.ChangesFull
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "the run of all", []string{"1 a"}, rows)
	ran := map[string]int{}
	for _, st := range q.server.Statements() {
		if strings.HasPrefix(st.JobID, "tidemark_") {
			ran[st.Kind]++
		}
	}
	if diff := gocmp.Diff(map[string]int{"CREATE_TABLE_AS_SELECT": 1, "MERGE": 1, "DELETE": 1, "SELECT": 1}, ran); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

var errLost = errors.New("the answer is lost")

// TestARunThatIsOvertaken: what it confirms late counts for nothing.
func TestARunThatIsOvertaken(t *testing.T) {
	t.Parallel()
	q := newQuay(t, "Not found: Table test-project:shop_ledger")
	source := ledgerSource("customers")
	q.do(t, copiesSQL("customers", []copied{{1, "a"}, {2, "b"}}))
	early, _ := q.take(t, source, warehouse.Take{})
	late, rows := q.take(t, source, warehouse.Take{})
	sees(t, "the second run", []string{"1 a", "2 b"}, rows)
	err := q.client.Confirm(t.Context(), source, early, warehouse.Confirmed{Except: []int64{}})
	if class, _ := fault.Classify(err); err == nil || class != fault.Transient {
		t.Errorf("the first run confirms with a %s error %v", class, err)
	}
	q.confirm(t, source, late, warehouse.Confirmed{Only: []int64{rows[0].fingerprint}})
	q.confirm(t, source, late, warehouse.Confirmed{Except: []int64{}}) // it is done
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "the third run", []string{"2 b"}, rows)
}

// TestLedgerUnusedForLong is gone, with what it did not know of.
func TestLedgerUnusedForLong(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := ledgerSource("customers")
	q.do(t, copiesSQL("customers", []copied{{1, "a"}}))
	for i, days := range []int{0, 20, 20, 29, 31} {
		q.pass(time.Duration(days) * 24 * time.Hour)
		r, rows := q.take(t, source, warehouse.Take{})
		if whole := days == 0 || days > 30; r.Whole != whole {
			t.Errorf("run %d, %d days after the one before, is whole %t", i, days, r.Whole)
		}
		if len(rows) != 1 { // no row is ever confirmed
			t.Errorf("run %d takes %q", i, texts(rows))
		}
		if i == 0 {
			q.confirm(t, source, r, warehouse.Confirmed{})
		}
	}
	q.pass(33 * 24 * time.Hour)
	if left := q.ledgers(t); len(left) > 0 {
		t.Errorf("%q are there for ever", left)
	}
}

// TestLedgerIsWhereTheSourceIs, whose columns have the names of its own statements.
func TestLedgerIsWhereTheSourceIs(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	if err := q.look.Dataset("abroad").Create(t.Context(), &bigquery.DatasetMetadata{Location: "EU"}); err != nil {
		t.Fatal(err)
	}
	q.do(t, "CREATE TABLE abroad.l AS SELECT 1 AS s, 'a' AS p, 2 AS `keys`, 3 AS `from`, 4 AS id")
	source := warehouse.Source{
		Dataset: "abroad", From: "l", Key: []string{"S", "p"}, Columns: []string{"keys", "P", "FROM", "id"},
		Changes: warehouse.ChangesLedger, Ledger: "a/b", Mapping: "1",
	}
	r, rows := q.take(t, source, warehouse.Take{})
	sees(t, "the first run", []string{"1 a 2 3 4"}, rows)
	bytes := r.Bytes
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	if r.Bytes <= bytes || bytes == 0 {
		t.Errorf("it processed %d bytes, with what it confirmed %d", bytes, r.Bytes)
	}
	q.do(t, "CREATE OR REPLACE TABLE abroad.l AS SELECT 1 AS s, 'b' AS p, 2 AS `keys`, 3 AS `from`, 4 AS id")
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "the second run", []string{"1 a NULL NULL NULL removed", "1 b 2 3 4"}, rows)
	md, err := q.look.Dataset("abroad_ledger").Metadata(t.Context())
	if err != nil || md.Location != "EU" {
		t.Errorf("the ledger is in %v: %v", md, err)
	}
}

// TestMoreRejectsThanARequestHolds have every row read.
func TestMoreRejectsThanARequestHolds(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.scores AS SELECT 1 AS id, 2 AS n")
	source := warehouse.Source{Dataset: dataset, From: "scores", Key: []string{"id"}, Changes: warehouse.ChangesCursor, Cursor: "n"}
	first, _ := q.take(t, source, warehouse.Take{})
	many := make([]int64, 200_001)
	for _, only := range []bool{true, false} {
		if r, rows := q.take(t, source, warehouse.Take{After: first.Next(), Rejected: many, Only: only}); !r.Whole || len(rows) != 1 {
			t.Errorf("only %t: %d rows are taken, whole %t", only, len(rows), r.Whole)
		}
	}
	if r, _ := q.take(t, source, warehouse.Take{After: first.Next(), Rejected: many[1:]}); r.Whole {
		t.Error("with one less the run is whole")
	}
}

// TestRowsThatShareAKeyAreNeverConfirmed, whoever says they are in the table: which of
// them is? Nor is one that has no key.
func TestRowsThatShareAKeyAreNeverConfirmed(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := ledgerSource("customers")
	q.do(t, copiesSQL("customers", []copied{{0, "n"}, {1, "a"}, {1, "b"}, {2, "c"}, {2, "c"}, {3, "d"}}))
	for range 2 {
		r, rows := q.take(t, source, warehouse.Take{All: true})
		sees(t, "all", []string{"1 a", "1 b", "2 c", "2 c", "3 d", "NULL n"}, rows)
		q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	}
	r, rows := q.take(t, source, warehouse.Take{})
	sees(t, "what is left", []string{"1 a", "1 b", "2 c", "2 c", "NULL n"}, rows)
	q.confirm(t, source, r, warehouse.Confirmed{Only: []int64{rows[0].fingerprint, rows[2].fingerprint, rows[4].fingerprint}})
	q.do(t, copiesSQL("customers", []copied{{1, "a"}, {2, "c"}, {3, "d"}}))
	r, rows = q.take(t, source, warehouse.Take{})
	sees(t, "once they are one", []string{"1 a", "2 c"}, rows)
	q.confirm(t, source, r, warehouse.Confirmed{Except: []int64{}})
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "at last", nil, rows)
}

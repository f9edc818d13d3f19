package landing_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"
	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/warehouse"
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
	r, rows = q.take(t, source, warehouse.Take{})
	sees(t, "what changed, came and left", []string{"2 x", "3 NULL removed", "4 d"}, rows)
	_, only := q.take(t, source, warehouse.Take{Rejected: []int64{rows[0].fingerprint, rows[1].fingerprint}, Only: true, Dry: true})
	sees(t, "two of them alone", []string{"2 x", "3 NULL removed"}, only)
	q.confirm(t, source, r, warehouse.Confirmed{})
	r, rows = q.take(t, source, warehouse.Take{})
	sees(t, "nothing", nil, rows)
	q.confirm(t, source, r, warehouse.Confirmed{})
	_, rows = q.take(t, source, warehouse.Take{All: true})
	sees(t, "all", []string{"1 a", "2 x", "4 d"}, rows)
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "after all was taken and nothing confirmed", []string{"1 a", "2 x", "4 d"}, rows)
}

// TestLedgerReportsARemovalThatAWholeRunForgot: nothing that was written is forgotten.
func TestLedgerReportsARemovalThatAWholeRunForgot(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := ledgerSource("customers")
	q.do(t, copiesSQL("customers", []copied{{1, "a"}, {2, "b"}}))
	r, _ := q.take(t, source, warehouse.Take{})
	q.confirm(t, source, r, warehouse.Confirmed{})
	q.do(t, copiesSQL("customers", []copied{{1, "a"}}))
	r, rows := q.take(t, source, warehouse.Take{All: true})
	sees(t, "all", []string{"1 a"}, rows)
	q.confirm(t, source, r, warehouse.Confirmed{})
	r, rows = q.take(t, source, warehouse.Take{})
	sees(t, "the next run", []string{"2 NULL removed"}, rows)
	q.confirm(t, source, r, warehouse.Confirmed{})
	_, rows = q.take(t, source, warehouse.Take{})
	sees(t, "the one after it", nil, rows)
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
	if err := q.client.Confirm(t.Context(), source, r, warehouse.Confirmed{}); err == nil {
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
	q.confirm(t, other, r, warehouse.Confirmed{})
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
		q.confirm(t, source, r, warehouse.Confirmed{})
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
		{"f", "FLOAT64"}, {"s", "STRING"}, {"n", "NUMERIC"}, {"b", "BYTES"}, {"ts", "TIMESTAMP"}, {"dt", "DATETIME"}, {"d", "DATE"}, {"tm", "TIME"},
		{"j", "JSON"}, {"l", "ARRAY<STRING>"}, {"big", "BIGNUMERIC"}, {"i", "INT64"}, {"yes", "BOOL"},
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
		"l":   {"['a', 'b']", "['a,b']", "CAST([] AS ARRAY<STRING>)"},
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
				q.confirm(t, source, r, warehouse.Confirmed{})
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
			q.confirm(t, source, r, warehouse.Confirmed{})
			q.do(t, fmt.Sprintf("CREATE OR REPLACE TABLE shop.%s AS SELECT %s AS id, 'x' AS name", table, values[1]))
			r, again := q.take(t, source, warehouse.Take{})
			q.confirm(t, source, r, warehouse.Confirmed{})
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
	const rows, part = 450_000, 200_000
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
	rows     map[string]string
	mustAll  bool // a whole comparison did not come to its end
	attempts int
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
		m.mustAll = false
		for key := range m.rows {
			if there[key] {
				continue
			}
			if !let() {
				m.mustAll = true
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
			take := warehouse.Take{All: target.mustAll}
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
			if kind == "dry" {
				return got
			}
			whole := target.mustAll
			done, left := target.apply(r, got, let)
			switch {
			case kind == "killed":
				target.mustAll = whole || r.Whole // what it saw is not known to anybody
			case rapid.Bool().Draw(rt, "by exception"):
				q.confirm(rt, source, r, warehouse.Confirmed{Except: left})
			default:
				q.confirm(rt, source, r, warehouse.Confirmed{Only: slices.Concat([]int64{}, done)})
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

package landing_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// cursors are what a column may be for its rows to be taken by it.
func cursors(at time.Time) map[string]string {
	return map[string]string{
		"TIMESTAMP": at.Format("TIMESTAMP '2006-01-02 15:04:05.000000+00'"),
		"DATETIME":  at.Format("DATETIME '2006-01-02 15:04:05.000000'"),
		"DATE":      at.Format("DATE '2006-01-02'"),
		"INT64":     fmt.Sprint(at.Unix() / 86400),
	}
}

func TestRowsByACursorOfEachType(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	day := 24 * time.Hour
	for typ := range cursors(now) {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			table := "by_" + strings.ToLower(typ)
			q.do(t, fmt.Sprintf("CREATE TABLE shop.%s (id INT64, name STRING, seen %s)", table, typ))
			today := q.now().UTC().Truncate(day)
			insert := func(id int, at time.Time) {
				q.do(t, fmt.Sprintf("INSERT INTO shop.%s VALUES (%d, 'n', %s)", table, id, cursors(at)[typ]))
			}
			source := warehouse.Source{Dataset: dataset, From: table, Key: []string{"id"}, Columns: []string{"name"}, Changes: warehouse.ChangesCursor, Cursor: "SEEN"}
			insert(1, today.Add(-3*day))
			insert(2, today.Add(-2*day))
			first, rows := q.take(t, source, warehouse.Take{})
			sees(t, "the first run", []string{"1 n", "2 n"}, rows)
			if !first.Whole || first.Schema.NumFields() != 3 {
				t.Errorf("the first run is whole: %t, its columns %s", first.Whole, first.Schema)
			}
			insert(3, today.Add(-2*day)) // as great as the greatest
			insert(4, today.Add(-3*day)) // late
			insert(5, today.Add(-day))
			q.do(t, fmt.Sprintf("INSERT INTO shop.%s VALUES (6, 'n', NULL)", table))
			second, rows := q.take(t, source, warehouse.Take{After: first.Next()})
			sees(t, "the second run", []string{"2 n", "3 n", "5 n", "6 n"}, rows)
			if second.Whole {
				t.Error("the second run is whole")
			}
			if typ != "INT64" {
				source.Lookback = day
				_, rows = q.take(t, source, warehouse.Take{After: first.Next()})
				sees(t, "with a look-back", []string{"1 n", "2 n", "3 n", "4 n", "5 n", "6 n"}, rows)
				source.Lookback = 0
			}
			third, rows := q.take(t, source, warehouse.Take{After: second.Next()})
			sees(t, "the third run", []string{"5 n", "6 n"}, rows)
			if !slices.Equal(third.Next(), second.Next()) {
				t.Errorf("without new rows it moves from %s to %s", second.Next(), third.Next())
			}
			q.do(t, fmt.Sprintf("DELETE FROM shop.%s WHERE id IN (5, 6)", table))
			fourth, rows := q.take(t, source, warehouse.Take{After: third.Next()})
			if len(rows) > 0 || !slices.Equal(fourth.Next(), third.Next()) {
				t.Errorf("without rows there are %d, and it moves from %s to %s", len(rows), third.Next(), fourth.Next())
			}
			_, rows = q.take(t, source, warehouse.Take{})
			again, only := q.take(t, source, warehouse.Take{After: third.Next(), Rejected: []int64{rows[0].fingerprint}, Only: true})
			sees(t, "rows read again alone", []string{"1 n"}, only)
			if again.Whole || !slices.Equal(again.Next(), third.Next()) {
				t.Errorf("reading rows again moves it from %s to %s", third.Next(), again.Next())
			}
			_, besides := q.take(t, source, warehouse.Take{After: third.Next(), Rejected: []int64{rows[0].fingerprint}})
			sees(t, "rows read again besides", []string{"1 n"}, besides)
		})
	}
}

// TestACursorAheadOfItsTime does not hide the rows until then.
func TestACursorAheadOfItsTime(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	for _, typ := range []string{"TIMESTAMP", "DATETIME", "DATE"} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			table := "ahead_" + strings.ToLower(typ)
			at := func(d time.Duration) string { return cursors(q.now().UTC().Add(d))[typ] }
			source := warehouse.Source{Dataset: dataset, From: table, Key: []string{"id"}, Changes: warehouse.ChangesCursor, Cursor: "seen"}
			q.do(t, fmt.Sprintf("CREATE TABLE shop.%s AS SELECT 1 AS id, %s AS seen", table, at(300*24*time.Hour)))
			r, _ := q.take(t, source, warehouse.Take{})
			if r.Next() != nil {
				t.Fatalf("with nothing but a row ahead of its time the next run begins at %s", r.Next())
			}
			q.do(t, fmt.Sprintf("INSERT INTO shop.%s VALUES (2, %s), (3, %s)", table, at(-72*time.Hour), at(-48*time.Hour)))
			r, _ = q.take(t, source, warehouse.Take{})
			q.do(t, fmt.Sprintf("INSERT INTO shop.%s VALUES (4, %s)", table, at(-24*time.Hour)))
			_, rows := q.take(t, source, warehouse.Take{After: r.Next()})
			sees(t, "the next run", []string{"1", "3", "4"}, rows)
		})
	}
}

// TestWhenACursorIsNotBelieved: what was kept of something else is not used.
func TestWhenACursorIsNotBelieved(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.scores AS SELECT 1 AS id, 10 AS n, 5 AS m, DATE '2026-01-01' AS day UNION ALL SELECT 2, 20, 6, DATE '2026-01-02'")
	source := warehouse.Source{Dataset: dataset, Query: "SELECT * FROM scores", Key: []string{"id"}, Changes: warehouse.ChangesCursor, Cursor: "n", Mapping: "m"}
	r, _ := q.take(t, source, warehouse.Take{})
	for name, change := range map[string]func(*warehouse.Source){
		"the mapping":  func(s *warehouse.Source) { s.Mapping = "n" },
		"the query":    func(s *warehouse.Source) { s.Query = "SELECT * FROM scores WHERE id > 0" },
		"the column":   func(s *warehouse.Source) { s.Cursor = "m" },
		"its type":     func(s *warehouse.Source) { s.Query = "SELECT id, day AS n FROM scores" },
		"the dataset":  func(s *warehouse.Source) { s.Dataset, s.Query = "shop", "SELECT * FROM shop.scores" },
		"how it reads": func(s *warehouse.Source) { s.Query, s.From = "", "scores" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := source
			change(&other)
			r, rows := q.take(t, other, warehouse.Take{After: r.Next()})
			if len(rows) != 2 || !r.Whole {
				t.Errorf("%d rows are taken, whole %t; want both", len(rows), r.Whole)
			}
		})
	}
	for name, kept := range map[string]string{"nothing": "", "another's": `{"until":"2026-01-01T00:00:00Z"}`, "no JSON": "{"} {
		r, rows := q.take(t, source, warehouse.Take{After: json.RawMessage(kept)})
		if len(rows) != 2 || !r.Whole {
			t.Errorf("after %s %d rows are taken, whole %t; want both", name, len(rows), r.Whole)
		}
	}
}

// TestACursorThatIsOfAnotherTypeNow has every row read, if it is still one.
func TestACursorThatIsOfAnotherTypeNow(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.scores AS SELECT 1 AS id, 10 AS n")
	source := warehouse.Source{Dataset: dataset, From: "scores", Key: []string{"id"}, Changes: warehouse.ChangesCursor, Cursor: "n"}
	r, _ := q.take(t, source, warehouse.Take{})
	q.do(t, "CREATE OR REPLACE TABLE shop.scores AS SELECT 1 AS id, DATE '1969-01-01' AS n")
	if r, rows := q.take(t, source, warehouse.Take{After: r.Next()}); !r.Whole || len(rows) != 1 {
		t.Errorf("of a date %d rows are taken, whole %t", len(rows), r.Whole)
	}
	q.do(t, "CREATE OR REPLACE TABLE shop.scores AS SELECT 1 AS id, 'x' AS n")
	_, err := q.client.Select(t.Context(), source, warehouse.Take{After: r.Next()})
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
		t.Errorf("of a text it is a %s error with remedy %q: %v", class, remedy, err)
	}
}

// TestPartitionsBelowACursorAreLeftAlone: what a run reads grows with what is new.
func TestPartitionsBelowACursorAreLeftAlone(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.events (id INT64, seen TIMESTAMP) PARTITION BY TIMESTAMP_TRUNC(seen, DAY)")
	q.do(t, "INSERT INTO shop.events SELECT n, TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL n HOUR) FROM UNNEST(GENERATE_ARRAY(1, 2000)) AS n")
	source := warehouse.Source{Dataset: dataset, From: "events", Key: []string{"id"}, Changes: warehouse.ChangesCursor, Cursor: "seen"}
	first, _ := q.take(t, source, warehouse.Take{})
	second, _ := q.take(t, source, warehouse.Take{After: first.Next()})
	if second.Bytes == 0 || second.Bytes > first.Bytes/20 {
		t.Errorf("the second run processes %d bytes, the first did %d", second.Bytes, first.Bytes)
	}
}

// item is a row of the source of the properties below.
type item struct {
	name string
	at   int64 // seconds
}

// TestCursorFindsEveryChange: whatever is written when, and whichever runs die or have
// rows rejected, what was taken brings a table to what the source has, as long as no
// cursor is later than the look-back.
func TestCursorFindsEveryChange(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	tables := 0
	rapid.Check(t, func(rt *rapid.T) {
		tables++
		table := fmt.Sprintf("history%d", tables)
		const lookback = 3 // seconds
		source := warehouse.Source{
			Dataset: dataset, Query: "SELECT id, name, seen FROM " + table + " -- by " + table, Key: []string{"id"}, Columns: []string{"name"},
			Changes: warehouse.ChangesCursor, Cursor: "seen", Lookback: lookback * time.Second,
		}
		items, there := map[int64]item{}, map[string]string{}
		var kept json.RawMessage
		var rejected []int64
		clock := q.now().Unix() - 10_000
		run := func(kind string) {
			takes := warehouse.Take{After: kept, Rejected: rejected, All: kind == "all", Only: kind == "rejected"}
			r, rows := q.take(rt, source, takes)
			var refused []int64
			for _, row := range rows {
				if kind != "clean" && rapid.IntRange(0, 3).Draw(rt, "refused") == 0 {
					refused = append(refused, row.fingerprint)
					continue
				}
				there[row.Columns[0]] = row.Columns[1]
			}
			if kind == "killed" {
				return
			}
			kept, rejected = r.Next(), refused
		}
		for step := range rapid.IntRange(1, 8).Draw(rt, "steps") {
			for range rapid.IntRange(0, 4).Draw(rt, "changes") {
				clock += rapid.Int64Range(0, 2).Draw(rt, "passing")
				it := item{name: fmt.Sprint("n", step, "_", clock), at: clock - rapid.Int64Range(0, lookback).Draw(rt, "late")}
				items[rapid.Int64Range(1, 6).Draw(rt, "id")] = it
			}
			q.do(rt, itemsSQL(table, items))
			run(rapid.SampledFrom([]string{"plain", "killed", "all", "rejected"}).Draw(rt, "run"))
		}
		run("clean")
		want := map[string]string{}
		for id, it := range items {
			want[fmt.Sprint(id)] = it.name
		}
		if diff := gocmp.Diff(want, there); diff != "" {
			rt.Fatalf("the table (-want +got):\n%s", diff)
		}
	})
}

// itemsSQL makes the table anew with the items.
func itemsSQL(table string, items map[int64]item) string {
	rows := []string{"STRUCT(CAST(NULL AS INT64) AS id, CAST(NULL AS STRING) AS name, CAST(NULL AS TIMESTAMP) AS seen)"}
	for _, id := range slices.Sorted(maps.Keys(items)) {
		rows = append(rows, fmt.Sprintf("STRUCT(%d, '%s', TIMESTAMP_SECONDS(%d))", id, items[id].name, items[id].at))
	}
	return fmt.Sprintf("CREATE OR REPLACE TABLE shop.%s AS SELECT id, name, seen FROM UNNEST([%s]) WHERE id IS NOT NULL", table, strings.Join(rows, ", "))
}

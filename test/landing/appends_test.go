package landing_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

func appendsSource(table string) warehouse.Source {
	return warehouse.Source{Dataset: dataset, From: table, Key: []string{"id"}, Columns: []string{"name"}, Changes: warehouse.ChangesAppends, Mapping: "1"}
}

func TestRowsThatWereAppended(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := appendsSource("events")
	q.do(t, "CREATE TABLE shop.events AS SELECT 1 AS id, 'a' AS name UNION ALL SELECT 2, 'b'")
	q.pass(3 * time.Hour)
	first, rows := q.take(t, source, warehouse.Take{})
	sees(t, "the first run", []string{"1 a", "2 b"}, rows)
	q.pass(3 * time.Hour)
	q.do(t, "INSERT INTO shop.events VALUES (3, 'c'), (4, 'd')")
	q.pass(time.Minute)
	q.do(t, "INSERT INTO shop.events VALUES (3, 'x'), (5, 'e'), (5, 'e'), (6, 'f'), (6, 'g'), (NULL, 'n')")
	q.pass(time.Minute)
	second, rows := q.take(t, source, warehouse.Take{After: first.Next()})
	// Of a key the newest; rows that are alike are one, and others that came together all
	// come.
	sees(t, "the second run", []string{"3 x", "4 d", "5 e", "6 f", "6 g", "NULL n"}, rows)
	if !first.Whole || second.Whole {
		t.Errorf("the first run is whole %t, the second %t", first.Whole, second.Whole)
	}
	q.pass(3 * time.Hour)
	_, all := q.take(t, source, warehouse.Take{All: true})
	third, _ := q.take(t, source, warehouse.Take{After: second.Next()})
	q.pass(3 * time.Hour)
	third, rows = q.take(t, source, warehouse.Take{After: third.Next(), Rejected: []int64{all[0].fingerprint}})
	sees(t, "rows read again besides", []string{"1 a"}, rows)
	q.do(t, "INSERT INTO shop.events VALUES (1, 'y')")
	q.pass(time.Minute)
	_, rows = q.take(t, source, warehouse.Take{After: third.Next(), Rejected: []int64{all[0].fingerprint}})
	sees(t, "a row read again of which there is a newer one", []string{"1 y"}, rows)
	again, rows := q.take(t, source, warehouse.Take{After: third.Next(), Rejected: []int64{all[0].fingerprint}, Only: true})
	sees(t, "rows read again alone", []string{"1 a", "1 y"}, rows)
	if !slices.Equal(again.Next(), third.Next()) {
		t.Errorf("reading rows again moves it from %s to %s", third.Next(), again.Next())
	}
}

// TestAppendsThatComeLate: a row may be given an earlier time than that at which it was
// seen first, or not be seen while it is new.
func TestAppendsThatComeLate(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	source := appendsSource("events")
	q.do(t, "CREATE TABLE shop.events AS SELECT 1 AS id, 'a' AS name")
	q.pass(3 * time.Hour)
	q.do(t, "INSERT INTO shop.events VALUES (2, 'b')")
	q.pass(time.Hour)
	r, _ := q.take(t, source, warehouse.Take{})
	_, rows := q.take(t, source, warehouse.Take{After: r.Next()})
	sees(t, "the next run", []string{"2 b"}, rows)
}

// TestWhenAppendsAreNotBelieved every row is taken.
func TestWhenAppendsAreNotBelieved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*testing.T, *quay, *warehouse.Source)
		whole  bool
	}{
		"within the history":        {func(_ *testing.T, q *quay, _ *warehouse.Source) { q.pass(6 * 24 * time.Hour) }, false},
		"nearly out of the history": {func(_ *testing.T, q *quay, _ *warehouse.Source) { q.pass(7*24*time.Hour - 7*time.Hour) }, true},
		"out of the history":        {func(_ *testing.T, q *quay, _ *warehouse.Source) { q.pass(30 * 24 * time.Hour) }, true},
		"another mapping":           {func(_ *testing.T, _ *quay, s *warehouse.Source) { s.Mapping = "2" }, true},
		"another name of the table": {func(_ *testing.T, _ *quay, s *warehouse.Source) { s.From = "shop.events" }, true},
		"a table of the same name": {func(t *testing.T, q *quay, _ *warehouse.Source) {
			t.Helper()
			q.pass(time.Second)
			q.do(t, "CREATE OR REPLACE TABLE shop.events AS SELECT 1 AS id, 'a' AS name")
		}, true},
		"columns that were added": {func(t *testing.T, q *quay, _ *warehouse.Source) {
			t.Helper()
			q.do(t, "ALTER TABLE shop.events ADD COLUMN more STRING")
		}, false},
		"less history in the dataset": {func(_ *testing.T, q *quay, _ *warehouse.Source) { q.pass(50 * time.Hour) }, true},
		"a dataset that nobody may look at": {func(t *testing.T, q *quay, _ *warehouse.Source) {
			t.Helper()
			q.server.Intercept(func(c emulator.Call) error {
				if c.Method == "datasets.get" && c.Phase == emulator.Before {
					return &googleapi.Error{Code: http.StatusForbidden, Errors: []googleapi.ErrorItem{{Reason: "accessDenied"}}}
				}
				return nil
			})
			q.pass(50 * time.Hour)
		}, true},
		"two days": {func(_ *testing.T, q *quay, _ *warehouse.Source) { q.pass(50 * time.Hour) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQuay(t)
			if err := q.look.Dataset("brief").Create(t.Context(), &bigquery.DatasetMetadata{MaxTimeTravel: 48 * time.Hour}); err != nil {
				t.Fatal(err)
			}
			source := appendsSource("events")
			if strings.HasPrefix(name, "less") {
				source.Dataset = "brief"
			}
			q.do(t, fmt.Sprintf("CREATE TABLE %s.events AS SELECT 1 AS id, 'a' AS name", source.Dataset))
			r, _ := q.take(t, source, warehouse.Take{})
			c.change(t, q, &source)
			if got, _ := q.take(t, source, warehouse.Take{After: r.Next()}); got.Whole != c.whole {
				t.Errorf("the next run is whole: %t, want %t", got.Whole, c.whole)
			}
		})
	}
}

func TestAppendsOfNoTable(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	q.do(t, "CREATE TABLE shop.events AS SELECT 1 AS id, 'a' AS name")
	q.do(t, "CREATE VIEW shop.seen AS SELECT id, name FROM shop.events")
	_, err := q.client.Select(t.Context(), appendsSource("seen"), warehouse.Take{})
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, "appends") {
		t.Errorf("it is a %s error with remedy %q: %v", class, remedy, err)
	}
}

// TestAppendsFindEveryRow: whenever rows are appended, and whichever runs die or have rows
// rejected, what was taken brings a table to the newest row of every key, but for those
// that a read of the whole table found several rows of.
func TestAppendsFindEveryRow(t *testing.T) {
	t.Parallel()
	q := newQuay(t)
	tables := 0
	rapid.Check(t, func(rt *rapid.T) {
		tables++
		table := fmt.Sprintf("appended%d", tables)
		source := appendsSource(table)
		q.do(rt, fmt.Sprintf("CREATE TABLE shop.%s (id INT64, name STRING)", table))
		want, there, unsure := map[string]string{}, map[string]string{}, map[string]bool{}
		var kept json.RawMessage
		var rejected []int64
		run := func(kind string) {
			r, rows := q.take(rt, source, warehouse.Take{After: kept, Rejected: rejected})
			count := map[int64]int{}
			for _, row := range rows {
				count[row.fingerprint]++
			}
			var refused []int64
			for _, row := range rows {
				key := row.Columns[0]
				unsure[key] = false
				switch {
				case count[row.fingerprint] > 1: // the table alone does not say which is the newest
					unsure[key] = true
					refused = append(refused, row.fingerprint)
				case kind != "clean" && rapid.IntRange(0, 3).Draw(rt, "refused") == 0:
					refused = append(refused, row.fingerprint)
				default:
					there[key] = row.Columns[1]
				}
			}
			if kind != "killed" {
				kept, rejected = r.Next(), refused
			}
		}
		for step := range rapid.IntRange(1, 6).Draw(rt, "steps") {
			for n := range rapid.IntRange(0, 3).Draw(rt, "batches") {
				var values []string
				ids := rapid.SliceOfNDistinct(rapid.IntRange(1, 6), 1, 3, rapid.ID[int]).Draw(rt, "ids")
				for _, id := range ids {
					key, name := fmt.Sprint(id), fmt.Sprintf("n%d_%d", step, n)
					want[key] = name
					values = append(values, fmt.Sprintf("(%d, '%s')", id, name))
				}
				q.pass(time.Duration(rapid.IntRange(1, 5).Draw(rt, "minutes")) * time.Minute)
				q.do(rt, fmt.Sprintf("INSERT INTO shop.%s VALUES %s", table, strings.Join(values, ", ")))
			}
			q.pass(time.Duration(rapid.SampledFrom([]int{1, 3, 30, 24 * 7}).Draw(rt, "hours")) * time.Hour)
			run(rapid.SampledFrom([]string{"plain", "killed"}).Draw(rt, "run"))
		}
		run("clean")
		refused := func(key, _ string) bool { return unsure[key] }
		maps.DeleteFunc(want, refused)
		maps.DeleteFunc(there, refused)
		if diff := gocmp.Diff(want, there); diff != "" {
			rt.Fatalf("the table (-want +got):\n%s", diff)
		}
	})
}

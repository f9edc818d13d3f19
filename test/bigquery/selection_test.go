package bigquery_test

import (
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	gcp "cloud.google.com/go/bigquery"
	"cloud.google.com/go/civil"
	"github.com/dgryski/go-farm"
	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

// orders is a table with a cursor column of each type, two rows with one and
// one without.
func orders(t *testing.T, b *bundle) {
	t.Helper()
	b.dataset(t, "shop")
	b.query(t, `CREATE TABLE shop.orders AS
		SELECT 1 AS id, 'eu' AS shop, 'a' AS name, TIMESTAMP '2026-11-01 00:00:00.5+00' AS ts, DATETIME '2026-11-01 00:00:00' AS dt, DATE '2026-11-01' AS day, 10 AS n, NUMERIC '1.50' AS price, b'x' AS raw
		UNION ALL SELECT 9007199254740993, 'us', 'b', TIMESTAMP '2026-11-02 00:00:00+00', DATETIME '2026-11-02 00:00:00', DATE '2026-11-02', 20, NUMERIC '2', b'y'
		UNION ALL SELECT 3, NULL, 'c', NULL, NULL, NULL, NULL, NULL, NULL`)
}

func fingerprint(text string) int64 { return int64(farm.Fingerprint64([]byte(text))) }

func whole(t *testing.T, v gcp.Value) int64 {
	t.Helper()
	n, ok := v.(int64)
	if !ok {
		t.Fatalf("%v is a %T, want an INT64", v, v)
	}
	return n
}

// TestWrappedSelection is the query of a reverse sync with a cursor: any query
// in parentheses, the fingerprint of each key, and rows that were rejected.
func TestWrappedSelection(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	orders(t, b)
	const key = "FARM_FINGERPRINT(TO_JSON_STRING(STRUCT(id, shop)))"
	keys := []int64{fingerprint(`{"id":1,"shop":"eu"}`), fingerprint(`{"id":"9007199254740993","shop":"us"}`), fingerprint(`{"id":3,"shop":null}`)}
	for column, since := range map[string]any{
		"ts":  time.Date(2026, 11, 1, 0, 0, 0, 500_001_000, time.UTC),
		"dt":  civil.DateTime{Date: civil.Date{Year: 2026, Month: 11, Day: 1}, Time: civil.Time{Nanosecond: 1000}},
		"day": civil.Date{Year: 2026, Month: 11, Day: 2},
		"n":   int64(11),
	} {
		sql := "SELECT id, " + column + ", " + key + " AS _tidemark_key FROM (SELECT o.* FROM shop.orders AS o WHERE o.name != 'z') WHERE " +
			column + " >= @cursor OR " + column + " IS NULL OR " + key + " IN UNNEST(@rejected) ORDER BY name"
		selected := func(rejected ...int64) []int64 {
			t.Helper()
			var out []int64
			for _, row := range b.query(t, sql, gcp.QueryParameter{Name: "cursor", Value: since}, gcp.QueryParameter{Name: "rejected", Value: rejected}) {
				out = append(out, whole(t, row[2]))
			}
			return out
		}
		if diff := cmp.Diff(keys[1:], selected([]int64{}...)); diff != "" {
			t.Errorf("%s without rejects: %s", column, diff)
		}
		if diff := cmp.Diff(keys, selected(keys[0], 17)); diff != "" {
			t.Errorf("%s with a reject: %s", column, diff)
		}
	}
	got := b.query(t, "SELECT MAX(ts), MAX(dt), MAX(day), MAX(n), MAX(price), MAX(name), MAX(raw), CURRENT_TIMESTAMP() FROM shop.orders")
	want := [][]gcp.Value{{
		time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC),
		civil.DateTime{Date: civil.Date{Year: 2026, Month: 11, Day: 2}},
		civil.Date{Year: 2026, Month: 11, Day: 2},
		int64(20),
		big.NewRat(2, 1),
		"c",
		[]byte("y"),
		november.Now(),
	}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *big.Rat) bool { return a.Cmp(b) == 0 })); diff != "" {
		t.Error(diff)
	}
	ranked := b.query(t, "SELECT name FROM (SELECT 'x' AS k, 1 AS v, 'old' AS name UNION ALL SELECT 'x', 2, 'one' UNION ALL SELECT 'x', 2, 'two') QUALIFY RANK() OVER (PARTITION BY k ORDER BY v DESC) = 1 ORDER BY name")
	if diff := cmp.Diff([][]gcp.Value{{"one"}, {"two"}}, ranked); diff != "" {
		t.Error(diff)
	}
}

// TestLongArray: 200,000 elements are taken in a query and in a dry run, in any
// place, and leave nothing behind; a request of more than 10 MB is refused.
func TestLongArray(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	ids := make([]int64, 200_000)
	for i := range ids {
		ids[i] = int64(i) * 1_000_000_007_000
	}
	last := ids[len(ids)-1]
	q := b.client.Query("SELECT COUNT(*), COUNTIF(x NOT IN UNNEST(@ids)), ARRAY_LENGTH(@ids), @ids[OFFSET(199999)], (SELECT MAX(i) FROM UNNEST(@ids) AS i) FROM UNNEST([0, 5, @last]) AS x")
	q.Parameters = []gcp.QueryParameter{{Name: "ids", Value: ids}, {Name: "last", Value: last}}
	it, err := q.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]gcp.Value{{int64(3), int64(1), int64(200_000), last, last}}, rows(t, it)); diff != "" {
		t.Error(diff)
	}
	q.DryRun = true
	if _, err := q.Run(t.Context()); err != nil {
		t.Error(err)
	}
	left, err := b.server.Query(t.Context(), "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '$parameter%'")
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	if left.Next() || left.Err() != nil {
		t.Errorf("the arrays are still kept: %v", left.Err())
	}
	q.DryRun = false
	for len(ids) < 400_000 {
		ids = append(ids, last+int64(len(ids)))
	}
	q.Parameters[0].Value = ids
	_, err = q.Read(t.Context())
	wantCode(t, err, http.StatusRequestEntityTooLarge, "invalid")
	texts := make([]string, 3000)
	for i := range texts {
		texts[i] = fmt.Sprintf("it's %d", i)
	}
	got := b.query(t, "SELECT 'it\\'s 2999' IN UNNEST(@texts), 'its 2999' IN UNNEST(@texts)", gcp.QueryParameter{Name: "texts", Value: texts})
	if diff := cmp.Diff([][]gcp.Value{{true, false}}, got); diff != "" {
		t.Error(diff)
	}
}

// TestCurrentTime: a statement has one time, of the emulator's clock, as a view
// has that is read later.
func TestCurrentTime(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	b := start(t, bigquery.Options{Now: c.Now})
	ds := b.dataset(t, "d")
	b.table(t, ds, "v", &gcp.TableMetadata{ViewQuery: "SELECT CURRENT_TIMESTAMP() AS moment"})
	for range 3 {
		want := [][]gcp.Value{{c.Now(), c.Now(), civil.DateOf(c.Now()), int64(1), int64(5000)}}
		got := b.query(t, "SELECT CURRENT_TIMESTAMP(), MAX(moment), CURRENT_DATE, COUNT(DISTINCT CURRENT_TIMESTAMP()), COUNT(*) FROM d.v CROSS JOIN UNNEST(GENERATE_ARRAY(1, 5000))")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		c.advance(time.Hour)
	}
}

// TestTimeStandsStill: however fast the clock runs, a statement has one time.
func TestTimeStandsStill(t *testing.T) {
	t.Parallel()
	c := newClock(morning)
	b := start(t, bigquery.Options{Now: func() time.Time {
		c.advance(time.Second)
		return c.Now()
	}})
	got := b.query(t, "SELECT COUNT(DISTINCT TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL DIV(n, 10000) SECOND)), COUNTIF(CURRENT_TIMESTAMP() != CURRENT_TIMESTAMP) FROM UNNEST(GENERATE_ARRAY(1, 5000)) AS n")
	if diff := cmp.Diff([][]gcp.Value{{int64(1), int64(0)}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestQueryLimits(t *testing.T) {
	t.Parallel()
	b := start(t, november)
	_, err := b.client.Query("SELECT 1 -- " + strings.Repeat("x", 1<<20)).Read(t.Context())
	wantCode(t, err, http.StatusBadRequest, "invalid")
}

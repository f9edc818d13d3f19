package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/shared/extract"
	"github.com/tidemark-data/tidemark/shared/tick"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// little runs Extract with less time left than a run keeps for ending well: of a
// backfill it reads one batch.
func (w *world) little(message, id string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	c := w.product
	d := w.delivery(message)
	d.ID = id
	r := extract.Runner{Dispatcher: w.dispatcher(c, tick.TopicExtract), Source: c.Source, Control: c.Control, Warehouse: c.Warehouse}
	if err := r.Run(ctx, d); err != nil {
		w.t.Fatal(err)
	}
}

func followed(method, options string) string {
	return "pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: items, capture: {method: " + method + "}" + options + "}\n"
}

// byKeys and byBlocks are tables of 100 rows, read in batches of about ten: in the order
// of their keys, and, because an enum is in the key, in that of their blocks, of which
// each has about ten rows.
const (
	byKeys   = `CREATE TABLE items (id int PRIMARY KEY, note text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp())`
	byBlocks = `CREATE TYPE colour AS ENUM ('red', 'green');
		CREATE TABLE items (id int, c colour DEFAULT 'red', note text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp(), fill text DEFAULT repeat('x', 700), PRIMARY KEY (id, c));
		ALTER TABLE items ALTER fill SET STORAGE PLAIN`
	hundred = `INSERT INTO items (id, note) SELECT n, 'first' FROM generate_series(1, 100) n; CREATE INDEX ON items (updated_at, id)`
)

func bothWays() map[string]string { return map[string]string{"keys": byKeys, "blocks": byBlocks} }

// TestBackfillByKey reads tables with every kind of key, a part of it in a first run
// and the rest in another: each row comes once, as it is.
func TestBackfillByKey(t *testing.T) {
	t.Parallel()
	const series = ` FROM generate_series(1, 41000) n`
	for name, test := range map[string]struct {
		sql     string
		options string // of the table in the pipeline file
		blocks  bool   // it cannot be read by its key
		chunks  string // how many are left after the first batch, "" for 2: the first is read up to its 5000th row
	}{
		"int":          {sql: `CREATE TABLE items (id int PRIMARY KEY, note text); INSERT INTO items SELECT n - 20000, md5(n::text)` + series},
		"analyzed":     {sql: `CREATE TABLE items (id int PRIMARY KEY, note text); INSERT INTO items SELECT n, md5(n::text)` + series + `; ANALYZE items`},
		"out of order": {sql: `CREATE TABLE items (id bigint PRIMARY KEY); INSERT INTO items SELECT n` + series + ` ORDER BY random()`},
		"composite":    {sql: `CREATE TABLE items (a int, b smallint, id bigint NOT NULL, PRIMARY KEY (a, b)); INSERT INTO items SELECT n % 7, n / 7, n` + series},
		"text":         {sql: `CREATE TABLE items (k text PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT ` + awkward + `, n` + series},
		"text C":       {sql: `CREATE TABLE items (k text COLLATE "C" PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT ` + awkward + `, n` + series},
		"text ICU":     {sql: `CREATE TABLE items (k text COLLATE "und-x-icu" PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT ` + awkward + `, n` + series},
		"text index of another collation": {
			blocks: true, options: ", key: [k]",
			sql: `CREATE TABLE items (k text COLLATE "und-x-icu" NOT NULL, id bigint PRIMARY KEY); CREATE UNIQUE INDEX ON items (k COLLATE "C"); INSERT INTO items SELECT ` + awkward + `, n` + series,
		},
		"text without case": {sql: `CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
			CREATE TABLE items (k text COLLATE nocase PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT CASE n % 2 WHEN 0 THEN 'k' ELSE 'K' END || n, n` + series},
		"varchar and char": {sql: `CREATE TABLE items (a varchar(20), b char(8), id bigint NOT NULL, PRIMARY KEY (a, b)); INSERT INTO items SELECT 'it''s ' || n % 11, n || ' ', n` + series},
		"uuid":             {sql: `CREATE TABLE items (k uuid PRIMARY KEY DEFAULT gen_random_uuid(), id bigint NOT NULL); INSERT INTO items (id) SELECT n` + series},
		"timestamptz":      {sql: `CREATE TABLE items (k timestamptz PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT timestamptz '1969-12-31 23:59:59.999999+00' + n * interval '1 microsecond', n` + series},
		"timestamp, date":  {sql: `CREATE TABLE items (a timestamp, b date, id bigint NOT NULL, PRIMARY KEY (b, a)); INSERT INTO items SELECT timestamp '2026-03-29 02:30' + n * interval '1 microsecond', date '2026-01-01' + n % 5, n` + series},
		"numeric":          {sql: `CREATE TABLE items (k numeric(30, 9) PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT (n - 20000) * 1234567890123.000000001, n` + series},
		"bytea":            {sql: `CREATE TABLE items (k bytea PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT decode(md5(n::text), 'hex'), n` + series},
		"inet, bit":        {sql: `CREATE TABLE items (a inet, b bit(3), id bigint NOT NULL, PRIMARY KEY (a, b)); INSERT INTO items SELECT inet '10.0.0.0' + n / 8, (n % 8)::bit(3), n` + series},
		"domain":           {sql: `CREATE DOMAIN code AS bigint CHECK (VALUE > 0); CREATE TABLE items (k code PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT n, n` + series},
		"another order in the index": {
			options: ", key: [a, b]",
			sql:     `CREATE TABLE items (a int, b text, id bigint NOT NULL, PRIMARY KEY (b, a)); INSERT INTO items SELECT n / 9, n % 9, n` + series,
		},
		"a unique part of the key": {
			options: ", key: [a, id]",
			sql:     `CREATE TABLE items (a int NOT NULL, id bigint NOT NULL UNIQUE, PRIMARY KEY (a, id) DEFERRABLE); INSERT INTO items SELECT n % 3, n` + series,
		},
		"down and up": {
			options: ", key: [a, b]", blocks: true,
			sql: `CREATE TABLE items (a int NOT NULL, b int NOT NULL, id bigint PRIMARY KEY DEFERRABLE); CREATE UNIQUE INDEX ON items (a, b DESC); INSERT INTO items SELECT n % 7, n, n` + series,
		},
		"awkward names": {sql: `CREATE TABLE items ("Order" int, "select" int, id bigint NOT NULL, PRIMARY KEY ("select", "Order")); INSERT INTO items SELECT n % 3, n, n` + series},
		"enum": {
			blocks: true,
			sql:    `CREATE TYPE colour AS ENUM ('red', 'green'); CREATE TABLE items (c colour, id bigint, PRIMARY KEY (c, id)); INSERT INTO items SELECT (ARRAY['red', 'green'])[1 + n % 2]::colour, n` + series,
		},
		"citext": {
			blocks: true,
			sql:    `CREATE EXTENSION citext; CREATE TABLE items (k citext PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT 'Key ' || n, n` + series,
		},
		"half of it deleted": {
			blocks: true,
			sql:    `CREATE EXTENSION citext; CREATE TABLE items (k citext PRIMARY KEY, id bigint NOT NULL); INSERT INTO items SELECT 'Key ' || n, n FROM generate_series(1, 82000) n; DELETE FROM items WHERE id % 4 < 2`,
		},
		"partitioned": {sql: `CREATE TABLE items (id bigint PRIMARY KEY, note text) PARTITION BY RANGE (id); CREATE TABLE a PARTITION OF items FOR VALUES FROM (0) TO (100);
			CREATE TABLE b PARTITION OF items FOR VALUES FROM (100) TO (30000); CREATE TABLE c PARTITION OF items DEFAULT; INSERT INTO items SELECT n, n` + series},
		"partitioned by hash": {sql: `CREATE TABLE items (id bigint PRIMARY KEY) PARTITION BY HASH (id); CREATE TABLE a PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 0);
			CREATE TABLE b PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO items SELECT n` + series},
		"partitioned, by blocks": {
			blocks: true, chunks: "4",
			sql: `CREATE TYPE colour AS ENUM ('red', 'green', 'blue'); CREATE TABLE items (c colour, id bigint, PRIMARY KEY (c, id)) PARTITION BY LIST (c);
			CREATE TABLE a PARTITION OF items FOR VALUES IN ('red') PARTITION BY RANGE (id); CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (30000); CREATE TABLE a2 PARTITION OF a DEFAULT;
			CREATE TABLE b (id bigint NOT NULL, dropped int, c colour NOT NULL); ALTER TABLE b DROP dropped; ALTER TABLE items ATTACH PARTITION b FOR VALUES IN ('green'); CREATE TABLE nothing PARTITION OF items DEFAULT;
			INSERT INTO items SELECT (ARRAY['red', 'green'])[1 + n % 2]::colour, n` + series,
		},
		"one row in a batch":         {options: ", batch_rows: 1", chunks: "1", sql: `CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items SELECT n FROM generate_series(1, 20) n`},
		"one row in a batch, blocks": {options: ", batch_rows: 1", chunks: "1", blocks: true, sql: byBlocks + `; INSERT INTO items (id) SELECT n FROM generate_series(1, 50) n`},
		"empty":                      {chunks: "0", sql: `CREATE TABLE items (id int PRIMARY KEY)`},
		"empty, blocks":              {chunks: "0", sql: byBlocks, blocks: true},
		"empty partitions, blocks": {
			chunks: "0", blocks: true,
			sql: `CREATE TYPE colour AS ENUM ('red'); CREATE TABLE items (c colour, id bigint, PRIMARY KEY (c, id)) PARTITION BY LIST (c); CREATE TABLE nothing PARTITION OF items DEFAULT`,
		},
		"without partitions": {
			chunks: "0", blocks: true,
			sql: `CREATE TYPE colour AS ENUM ('red'); CREATE TABLE items (c colour, id bigint, PRIMARY KEY (c, id)) PARTITION BY LIST (c)`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := test.options
			if !strings.Contains(options, "batch_rows") {
				options += ", batch_rows: 5000"
			}
			w := newWorld(t, followed("changelog", options), test.sql)
			w.little("", "first")
			want := test.chunks
			if want == "" {
				want = "2"
			}
			if got := w.value(`SELECT count(*) FROM tidemark.backfill_chunks WHERE NOT done`); got != want {
				t.Errorf("%s chunks are left after one batch, want %s", got, want)
			}
			if got := w.value(`SELECT coalesce(bool_and(range ? 'leaf'), $1) FROM tidemark.backfill_chunks`, test.blocks); got != fmt.Sprint(test.blocks) {
				t.Errorf("read by blocks: %s", got)
			}
			w.tick()
			w.once("shop", "items")
			if got := w.value(`SELECT rows || ' ' || percent || ' ' || generation FROM tidemark.backfill_progress`); got != w.value(`SELECT count(*) || ' 100 1' FROM items`) {
				t.Errorf("progress: %s", got)
			}
		})
	}
}

// awkward are distinct keys with quotes, backslashes, the empty one, capitals, accents,
// and others that collations order each in its own way.
const awkward = `CASE n WHEN 1 THEN '' WHEN 2 THEN ' ' WHEN 3 THEN '''; DROP TABLE items; --' WHEN 4 THEN E'\\' ELSE
	(ARRAY['a''b', 'a"b', E'a\\b', 'A-', 'a_', 'é', 'É', 'ß', 'Z', '{x,y}', '$1', '%s', E'new\nline', '😀'])[1 + n % 14] || n / 14 END`

// TestBackfillOfATenant reads the rows of one among those of another (I8).
func TestBackfillOfATenant(t *testing.T) {
	t.Parallel()
	for name, sql := range bothWays() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, `
pipeline: shop
destination: {dataset: shop}
tenants: {query: "SELECT id FROM organizations ORDER BY id", column: org, dataset: "org_{id}"}
tables:
  - {name: items, capture: {method: changelog}, batch_rows: 10}
`, `CREATE TABLE organizations (id int PRIMARY KEY); INSERT INTO organizations VALUES (1), (2)`, sql, hundred, `ALTER TABLE items ADD org int; UPDATE items SET org = 1 + (id % 10 = 0)::int`)
			for tenant, rows := range map[string]int64{"1": 90, "2": 10} {
				if err := w.extractOn(w.product, `{"tenant":"`+tenant+`"}`); err != nil {
					t.Fatal(err)
				}
				if n := w.count("SELECT COUNT(*) FROM org_" + tenant + ".items_log WHERE org = " + tenant); n != rows {
					t.Errorf("%d rows of tenant %s, want %d", n, tenant, rows)
				}
				if n := w.count("SELECT COUNT(*) FROM org_" + tenant + ".items_log"); n != rows {
					t.Errorf("%d rows in the dataset of tenant %s, want %d", n, tenant, rows)
				}
				if got := w.value(`SELECT concat(rows, ' of ', estimated_rows) FROM tidemark.backfills WHERE tenant = $1`, tenant); got != fmt.Sprintf("%d of %d", rows, rows) {
					t.Errorf("progress of tenant %s: %s", tenant, got)
				}
			}
		})
	}
}

// changes touch rows that a backfill of TestChangesWin has read and rows that it has not.
func changes(deletes bool) string {
	sql := `
		UPDATE items SET note = 'second', updated_at = clock_timestamp() WHERE id IN (3, 43, 93);
		INSERT INTO items (id, note) VALUES (-1, 'new'), (1000, 'new');`
	if deletes {
		sql += `
		DELETE FROM items WHERE id IN (4, 44, 94);
		UPDATE items SET id = -id WHERE id IN (5, 45, 95);
		DELETE FROM items WHERE id IN (6, 46, 96); INSERT INTO items (id, note) VALUES (6, 'again'), (46, 'again'), (96, 'again');`
	}
	return sql
}

// TestChangesWin over what a backfill read before, whenever that arrives.
func TestChangesWin(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"watermark, cursor: updated_at", "changelog"} {
		for way, sql := range bothWays() {
			deletes := method == "changelog"
			start := func(t *testing.T) *world {
				t.Helper()
				return newWorld(t, followed(method, ", batch_rows: 10, deletes: hard"), sql, hundred)
			}
			finish := func(w *world) {
				w.t.Helper()
				w.tick()
				w.same("shop", "items")
				w.tick()
				w.same("shop", "items")
			}
			t.Run(method+" "+way+" between two batches", func(t *testing.T) {
				t.Parallel()
				w := start(t)
				for range 4 {
					w.little("", "m")
					w.exec(`UPDATE items SET note = note || '+', updated_at = clock_timestamp() WHERE id IN (1, 50, 100)`)
				}
				w.exec(changes(deletes))
				w.little("", "m") // changes, and a batch
				if n := w.count("SELECT COUNT(*) FROM shop.items WHERE note = 'second'"); n != 3 {
					t.Errorf("%d of 3 changes arrived while the backfill goes on", n)
				}
				if got := w.value(`SELECT finished_at IS NULL AND rows < 100 FROM tidemark.backfills`); got != "true" {
					t.Fatal("the backfill is over")
				}
				finish(w)
			})
			t.Run(method+" "+way+" between a read and its commit", func(t *testing.T) {
				t.Parallel()
				w := start(t)
				var commits atomic.Int32
				w.bq.Intercept(func(c emulator.Call) error {
					if c.Method == "BatchCommitWriteStreams" && c.Phase == emulator.Before && commits.Add(1) == 4 {
						_, err := w.db.Exec(t.Context(), changes(deletes))
						return err
					}
					return nil
				})
				finish(w)
			})
			t.Run(method+" "+way+" before a commit that was put off", func(t *testing.T) {
				t.Parallel()
				w := start(t)
				w.little("", "m")
				w.bq.Intercept(failing("BatchCommitWriteStreams"))
				if err := w.extractOn(w.product, ""); err == nil {
					t.Fatal("a commit that failed counted as done")
				}
				if got := w.value(`SELECT count(*) > 0 FROM tidemark.backfill_chunks WHERE pending IS NOT NULL`); got != "true" {
					t.Fatal("no commit is pending")
				}
				w.exec(changes(deletes))
				w.exec(`UPDATE items SET note = 'third', updated_at = clock_timestamp() WHERE id > 0 AND id < 40`)
				w.bq.Intercept(nil)
				finish(w)
			})
		}
	}
}

// TestTableIsRewrittenDuringItsBackfill: blocks that were read are others now, so the
// backfill begins anew and says why; by keys, it goes on.
func TestTableIsRewrittenDuringItsBackfill(t *testing.T) {
	t.Parallel()
	for name, rewrite := range map[string]string{
		"vacuum full": `VACUUM FULL items`,
		"cluster":     `CREATE INDEX down ON items (id DESC); CLUSTER items USING down`,
		"truncate":    `TRUNCATE items; INSERT INTO items (id, note) SELECT n, 'after' FROM generate_series(90, 110) n`,
		"emptied":     `TRUNCATE items`,
	} {
		for way, sql := range bothWays() {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, followed("changelog", ", batch_rows: 10, deletes: hard"), sql, hundred)
				w.little("", "m")
				w.exec(rewrite)
				w.tick()
				w.same("shop", "items")
				want := "1 true"
				if way == "blocks" {
					want = "2 true"
				}
				if got := w.value(`SELECT generation || ' ' || (reason LIKE '%rewritten or truncated%' = (generation = 2)) FROM tidemark.backfills`); got != want {
					t.Errorf("generation, reason %s, want %s: %s", got, want, w.value(`SELECT reason FROM tidemark.backfills`))
				}
			})
		}
	}
}

// TestIndexIsReplacedDuringItsBackfill: ranges of one order are nothing to another.
func TestIndexIsReplacedDuringItsBackfill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, followed("changelog", ", key: [a, b], batch_rows: 10"),
		`CREATE TABLE items (a int, b int, id int, PRIMARY KEY (a, b)); INSERT INTO items SELECT n, 100 - n, n FROM generate_series(1, 100) n`)
	w.little("", "m")
	w.exec(`ALTER TABLE items DROP CONSTRAINT items_pkey; ALTER TABLE items ADD PRIMARY KEY (b, a)`)
	w.tick()
	w.same("shop", "items")
	if got := w.value(`SELECT generation || ' ' || reason FROM tidemark.backfills`); got != "2 the index that the backfill reads by is gone" {
		t.Errorf("generation, reason: %s", got)
	}
}

// TestBackfillProgress is told in rows, percent and a time, from the first batch to the last.
func TestBackfillProgress(t *testing.T) {
	t.Parallel()
	for way, sql := range bothWays() {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, followed("changelog", ", batch_rows: 10"), sql, hundred)
			began := time.Now()
			last := int64(0)
			for w.value(`SELECT count(*) FROM tidemark.backfill_progress WHERE finished_at IS NOT NULL`) == "0" {
				w.little("", "m")
				p := progressOf(t, connect(t, w.url))
				if p.rows < last || p.rows > last+11 || p.rows < 100 && p.percent != float64(p.rows) || p.percent > 100 || p.finished != (p.percent == 100) {
					t.Fatalf("after %d rows: %+v", last, p)
				}
				// What is left takes as long for each row as what is done took.
				if took := time.Since(began); p.rows > 0 && !p.finished && (p.expected <= 0 || p.expected > took*100/time.Duration(p.rows)+time.Second) {
					t.Errorf("%d rows in %v, and all are expected within %v", p.rows, took, p.expected)
				}
				last = p.rows
			}
			if got := w.value(`SELECT concat_ws(' ', rows, percent, expected_at IS NULL) FROM tidemark.backfill_progress`); got != "100 100 t" {
				t.Errorf("at the end: %s", got)
			}
		})
	}
}

// TestFullInTheMiddle: a resync that is asked for during a backfill takes its place,
// once for each message however often it comes, and whatever makes it begin anew.
func TestFullInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, followed("changelog", ", batch_rows: 10, deletes: hard"), byBlocks, hundred)
	stands := func(want string) {
		t.Helper()
		if got := w.value(`SELECT generation || ' ' || rows FROM tidemark.backfills`); got != want {
			t.Errorf("generation and rows: %s, want %s", got, want)
		}
	}
	w.little("", "tick")
	w.little(`{"full":true}`, "a")
	stands("2 10")
	w.little(`{"full":true}`, "a")
	stands("2 20")
	w.little(`{"full":true}`, "b")
	stands("3 10")
	w.exec(`VACUUM FULL items`)
	w.little(`{"full":true}`, "b") // the blocks are others
	w.little(`{"full":true}`, "b")
	stands("4 10")
	w.tick()
	stands("4 100")
	w.little(`{"full":true}`, "b")
	stands("4 100")
	w.same("shop", "items")
}

// TestReadersDoNotNoticeAResync: at no moment do they see fewer rows than there are, or
// one without its values (I6); what is gone leaves at the end.
func TestReadersDoNotNoticeAResync(t *testing.T) {
	t.Parallel()
	for policy, gone := range map[string]int64{"soft": 10, "hard": 0, "ignore": 10} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, followed("watermark, cursor: updated_at", ", batch_rows: 10, deletes: "+policy), byKeys, hundred)
			w.tick()
			w.exec(`DELETE FROM items WHERE id > 90; UPDATE items SET note = 'behind the cursor' WHERE id = 50`)
			var looks atomic.Int64
			look := func() error {
				row := w.rows("SELECT COUNTIF(id <= 90 AND NOT _deleted), COUNTIF(note IS NULL), COUNT(*) FROM shop.items")[0]
				if got := fmt.Sprint(row[0], " ", row[1]); got != "90 0" {
					t.Errorf("rows that are there, and without values: %s, want 90 0", got)
				}
				looks.Add(1)
				return nil
			}
			w.bq.Intercept(func(c emulator.Call) error {
				if c.Method == "BatchCommitWriteStreams" {
					return look()
				}
				return nil
			})
			done := make(chan struct{})
			var reader sync.WaitGroup
			reader.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						_ = look()
					}
				}
			})
			err := w.extractOn(w.product, `{"full":true}`)
			close(done)
			reader.Wait()
			w.bq.Intercept(nil)
			if err != nil {
				t.Fatal(err)
			}
			if n := looks.Load(); n < 18 { // before and after each of nine commits
				t.Errorf("readers looked %d times", n)
			}
			want := fmt.Sprint(90+gone, " ", map[string]int64{"soft": gone}[policy], " 1")
			row := w.rows("SELECT COUNT(*), COUNTIF(_deleted), COUNTIF(note = 'behind the cursor') FROM shop.items")[0]
			if got := fmt.Sprint(row[0], " ", row[1], " ", row[2]); got != want {
				t.Errorf("rows, deleted ones and the changed one: %s, want %s", got, want)
			}
		})
	}
}

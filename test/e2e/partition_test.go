package e2e_test

import (
	"strings"
	"testing"
)

const measures = `
	CREATE TABLE orders (id bigint, day date, status text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
	CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
	CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
	CREATE TABLE orders_3 (LIKE orders INCLUDING ALL);
	INSERT INTO orders_3 SELECT n, '2026-03-01', 'attached' FROM generate_series(1, 5) n;
	INSERT INTO orders SELECT n, date '2026-01-01' + (n % 50)::int, 'new' FROM generate_series(1, 100) n`

// TestPartitions: what is done to a partition as a whole is in no log, and found all
// the same; what is routine does not have the table read again.
func TestPartitions(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"changelog", "wal"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := newLogicalWorld(t, strings.ReplaceAll(changelogFile(", deletes: hard"), "changelog", method), measures)
			w.tick()
			w.same("shop", "orders")
			for _, step := range []struct {
				change string
				reason string // of a reading; "": there is none
			}{
				{`UPDATE orders SET day = day + 28 WHERE id < 5`, ""},
				{`CREATE TABLE orders_4 PARTITION OF orders FOR VALUES FROM ('2026-04-01') TO ('2026-05-01'); INSERT INTO orders VALUES (900, '2026-04-02', 'in a new one')`, ""},
				{`TRUNCATE orders_2`, "truncated"},
				{`ALTER TABLE orders ATTACH PARTITION orders_3 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')`, "attached"},
				{`BEGIN; CREATE TABLE orders_5 (LIKE orders INCLUDING ALL); INSERT INTO orders_5 SELECT n, '2026-05-01', 'loaded' FROM generate_series(1, 5) n;
				  ALTER TABLE orders ATTACH PARTITION orders_5 FOR VALUES FROM ('2026-05-01') TO ('2026-06-01'); COMMIT`, "attached"},
				{`UPDATE orders SET status = 'after' WHERE id % 3 = 0`, ""},
				{`ALTER TABLE orders DETACH PARTITION orders_1`, "detached"},
				{`DROP TABLE orders_3`, "dropped"},
				{`TRUNCATE orders`, ""},
				{`INSERT INTO orders VALUES (1, '2026-02-03', 'after all')`, ""},
			} {
				before := w.value(`SELECT generation FROM tidemark.sync_state`)
				w.exec(step.change)
				w.tick()
				if report := w.compare("shop", "orders"); !report.Agrees() {
					t.Errorf("after %s:\n%s", step.change, report)
				}
				after, reason := w.value(`SELECT generation FROM tidemark.sync_state`), w.value(`SELECT reason FROM tidemark.backfills`)
				if (after != before) != (step.reason != "") || !strings.Contains(reason, step.reason) {
					t.Errorf("after %s: generation %s became %s, reason %q", step.change, before, after, reason)
				}
			}
		})
	}
}

// TestWatermarkFindsAttachedPartitions: their rows are old, and of transactions that
// never wrote to the table.
func TestWatermarkFindsAttachedPartitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(changelogFile(""), "method: changelog", "method: watermark, cursor: updated_at", 1), `
		CREATE TABLE orders (id bigint, day date, updated_at timestamptz NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
		CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
		CREATE TABLE orders_2 (LIKE orders INCLUDING ALL); INSERT INTO orders_2 SELECT n, '2026-02-01', '2026-02-01' FROM generate_series(1, 5) n;
		INSERT INTO orders VALUES (1, '2026-01-01', now())`)
	w.tick()
	w.exec(`ALTER TABLE orders ATTACH PARTITION orders_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')`)
	w.tick()
	w.same("shop", "orders")
}

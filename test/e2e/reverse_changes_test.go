package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// changesFile keeps crm.scores in scores by one of the ways to find changes.
func changesFile(mode, changes string) string {
	source := "query: SELECT id, score, scored_at FROM `{dataset}.scores`"
	if strings.Contains(changes, "appends") {
		source = "table: scores"
	}
	return `
pipeline: crm
destination: {dataset: crm}
reverse_etl:
  - name: scores
    ` + source + `
    ` + changes + `
    target: {table: scores, key: {id: id}, columns: {score: score}}
    mode: ` + mode + `
    limits: {batch_size: 7}
`
}

const scoresSQL = `CREATE TABLE scores (id bigint PRIMARY KEY, score int CHECK (score < 1000), note text NOT NULL DEFAULT 'own', writes int NOT NULL DEFAULT 0);
	CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.writes := OLD.writes + 1; RETURN NEW; END $$;
	CREATE TRIGGER counted BEFORE UPDATE ON scores FOR EACH ROW EXECUTE FUNCTION counted()`

func (w *world) scores(sql string) {
	w.t.Helper()
	w.rows(sql)
}

// read is how many rows the latest run read and wrote.
func (w *world) read(want string) {
	w.t.Helper()
	if got := w.value(`SELECT rows_read || '/' || rows_written || '/' || rows_deleted || '/' || rows_rejected FROM tidemark.runs WHERE kind = 'reverse_etl' ORDER BY id DESC LIMIT 1`); got != want {
		w.t.Errorf("read, written, deleted, rejected: %s, want %s", got, want)
	}
}

// TestChangesAreFound by each way: what has not changed is not read again, a refused row
// is, until it can be written, and a whole comparison mends what the application changed.
func TestChangesAreFound(t *testing.T) {
	t.Parallel()
	for _, changes := range []string{"cursor: scored_at", "changes: ledger", "changes: appends"} {
		t.Run(changes, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, changesFile("upsert", changes), scoresSQL)
			appends := strings.Contains(changes, "appends")
			w.rows("CREATE SCHEMA crm")
			w.scores("CREATE TABLE crm.scores (id INT64, score INT64, scored_at TIMESTAMP)")
			w.scores("INSERT INTO crm.scores (id, score, scored_at) SELECT n, n, TIMESTAMP_ADD(TIMESTAMP '2026-01-01 00:00:00+00', INTERVAL n MINUTE) FROM UNNEST(GENERATE_ARRAY(1, 50)) AS n")
			w.ahead.Add(int64(time.Hour)) // the margin that appends wait for has gone by
			must(t, w.reverse(""))
			w.read("50/50/0/0")
			w.ahead.Add(int64(time.Hour))
			change := func(id, score int, at string) {
				t.Helper()
				if appends {
					w.scores(fmt.Sprintf("INSERT INTO crm.scores (id, score, scored_at) VALUES (%d, %d, TIMESTAMP '%s')", id, score, at))
				} else {
					w.scores(fmt.Sprintf("MERGE crm.scores t USING (SELECT %d AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET score = %d, scored_at = TIMESTAMP '%[3]s' WHEN NOT MATCHED THEN INSERT (id, score, scored_at) VALUES (%[1]d, %[2]d, TIMESTAMP '%[3]s')", id, score, at))
				}
				w.ahead.Add(int64(time.Hour))
			}
			changed, poisoned := 7, 8
			if appends { // of which a row that changes is another row
				changed, poisoned = 57, 58
			}
			change(changed, 70, "2026-01-02 00:00:00+00")
			change(51, 51, "2026-01-02 00:00:01+00")
			change(poisoned, 5000, "2026-01-02 00:00:02+00") // refused by the check
			must(t, w.reverse(""))
			if got := w.value(`SELECT string_agg(id || ' ' || score, ', ' ORDER BY id) FROM scores WHERE id IN ($1, 51)`, changed); got != "7 70, 51 51" && got != "51 51, 57 70" {
				t.Errorf("scores: %s", got)
			}
			if got := w.value(`SELECT string_agg(reason, ', ') FROM tidemark.rejects`); !strings.Contains(got, "(constraint scores_score_check)") {
				t.Errorf("rejects: %s", got)
			}
			// Again: few rows are read, none is written, the refused one is still kept.
			must(t, w.reverse(""))
			if got := w.value(`SELECT rows_read < 10 AND rows_written = 0 AND rows_rejected = 1 FROM tidemark.runs ORDER BY id DESC LIMIT 1`); got != "true" {
				w.read("few/0/0/1")
			}
			// It is read again although nothing tells of it, and it alone when that is asked for.
			w.exec(`ALTER TABLE scores DROP CONSTRAINT scores_score_check`)
			must(t, w.reverse(`{"pipeline":"crm","sync":"scores","retry":true}`))
			if got := w.value(`SELECT rows_read = 1 FROM tidemark.runs ORDER BY id DESC LIMIT 1`) + w.value(`SELECT score FROM scores WHERE id = $1`, poisoned) + w.value(`SELECT count(*) FROM tidemark.rejects`); got != "true50000" {
				t.Errorf("the refused row after its constraint is gone, and rejects: %s", got)
			}
			// What the application has changed nothing tells of, but a whole comparison.
			w.exec(`UPDATE scores SET score = -1 WHERE id = 20`)
			must(t, w.reverse(""))
			if got := w.value(`SELECT score FROM scores WHERE id = 20`); got != "-1" {
				t.Errorf("score 20 is %s: more was read than had changed", got)
			}
			must(t, w.reverse(`{"pipeline":"crm","sync":"scores","full":true}`))
			if got := w.value(`SELECT score FROM scores WHERE id = 20`); got != "20" {
				t.Errorf("score 20 is %s after a whole comparison", got)
			}
			w.noStaging()
		})
	}
}

// TestMappingChanges: what is known of one mapping means nothing under another.
func TestMappingChanges(t *testing.T) {
	t.Parallel()
	for _, changes := range []string{"cursor: scored_at", "changes: ledger"} {
		t.Run(changes, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, changesFile("upsert", changes), scoresSQL)
			w.rows("CREATE SCHEMA crm")
			w.scores("CREATE TABLE crm.scores AS SELECT n AS id, n AS score, TIMESTAMP_ADD(TIMESTAMP '2026-01-01 00:00:00+00', INTERVAL n MINUTE) AS scored_at FROM UNNEST(GENERATE_ARRAY(1, 20)) AS n")
			must(t, w.reverse(""))
			w.product = w.connect(strings.Replace(changesFile("upsert", changes), "SELECT id, score,", "SELECT id, score * 2 AS score,", 1))
			must(t, w.reverse(""))
			w.read("20/20/0/0")
		})
	}
}

// TestLedgerDeletes: a key that has left the source leaves the table, and one that the
// sync never wrote stays, until everything is compared.
func TestLedgerDeletes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(changesFile("mirror", "changes: ledger"), "batch_size: 7", "batch_size: 7, max_delete_percent: 50, max_swing_percent: 100", 1), scoresSQL)
	w.rows("CREATE SCHEMA crm")
	w.scores("CREATE TABLE crm.scores AS SELECT n AS id, n AS score, CURRENT_TIMESTAMP() AS scored_at FROM UNNEST(GENERATE_ARRAY(1, 20)) AS n")
	must(t, w.reverse(""))
	w.exec(`INSERT INTO scores (id) VALUES (100)`)
	w.scores("DELETE FROM crm.scores WHERE id IN (3, 4)")
	must(t, w.reverse(""))
	w.read("2/0/2/0")
	if got := w.value(`SELECT count(*) || ' ' || count(*) FILTER (WHERE id = 100) FROM scores`); got != "19 1" {
		t.Errorf("scores: %s", got)
	}
	w.scores("INSERT INTO crm.scores (id, score) VALUES (3, 3)")
	must(t, w.reverse(""))
	w.read("1/1/0/0")
	must(t, w.reverse(`{"pipeline":"crm","sync":"scores","full":true}`))
	if got := w.value(`SELECT count(*) || ' ' || count(*) FILTER (WHERE id = 100) FROM scores`); got != "19 0" {
		t.Errorf("scores after a whole comparison: %s", got)
	}
	must(t, w.reverse(""))
	w.read("0/0/0/0")
}

// TestAbsentRowsAreNotForgotten: a row that has nothing to be written to yet is written
// once there is something.
func TestAbsentRowsAreNotForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, changesFile("update", "changes: ledger"), scoresSQL, `INSERT INTO scores (id) VALUES (1), (2)`)
	w.rows("CREATE SCHEMA crm")
	w.scores("CREATE TABLE crm.scores AS SELECT n AS id, n AS score, CURRENT_TIMESTAMP() AS scored_at FROM UNNEST(GENERATE_ARRAY(1, 5)) AS n")
	must(t, w.reverse(""))
	w.exec(`INSERT INTO scores (id) VALUES (4)`)
	must(t, w.reverse(""))
	if got := w.value(`SELECT string_agg(id || ' ' || score, ', ' ORDER BY id) FROM scores`); got != "1 1, 2 2, 4 4" {
		t.Errorf("scores: %s", got)
	}
	w.read("3/1/0/0")
}

// TestChangesUnderFailures: whatever fails when, once it no longer does the table is what
// the source says, and the rows were written once.
func TestChangesUnderFailures(t *testing.T) {
	t.Parallel()
	for _, changes := range []string{"changes: full", "cursor: scored_at\n    lookback: 24h", "changes: ledger"} {
		t.Run(changes, func(t *testing.T) {
			t.Parallel()
			seed := rand.New(rand.NewPCG(6, uint64(len(changes))))
			mode := "upsert"
			if strings.Contains(changes, "ledger") || strings.Contains(changes, "full") {
				mode = "mirror"
			}
			file := changesFile(mode, changes)
			if mode == "mirror" {
				file = strings.Replace(file, "batch_size: 7", "batch_size: 7, max_delete_percent: 100, max_swing_percent: 1000", 1)
			}
			w := newWorld(t, file, scoresSQL)
			w.provoked = []string{"not now"}
			w.rows("CREATE SCHEMA crm")
			w.scores("CREATE TABLE crm.scores (id INT64, score INT64, scored_at TIMESTAMP)")
			w.scores("INSERT INTO crm.scores (id, score, scored_at) VALUES (1000, 1, CURRENT_TIMESTAMP())")
			var fail int
			w.bq.Intercept(func(emulator.Call) error {
				if fail--; fail == 0 {
					return fmt.Errorf("not now")
				}
				return nil
			})
			for range 15 {
				fail = 0
				for range seed.IntN(3) + 1 {
					from := seed.IntN(40)
					switch seed.IntN(3) {
					case 0:
						w.scores(fmt.Sprintf("INSERT INTO crm.scores (id, score, scored_at) SELECT n, %d, CURRENT_TIMESTAMP() FROM UNNEST(GENERATE_ARRAY(%d, %d)) AS n WHERE n NOT IN (SELECT id FROM crm.scores)", seed.IntN(900), from, from+9))
					case 1:
						w.scores(fmt.Sprintf("UPDATE crm.scores SET score = %d, scored_at = CURRENT_TIMESTAMP() WHERE id BETWEEN %d AND %d", seed.IntN(900), from, from+5))
					default:
						if mode == "mirror" {
							w.scores(fmt.Sprintf("DELETE FROM crm.scores WHERE id BETWEEN %d AND %d", from, from+3))
						}
					}
				}
				fail = 1 + seed.IntN(24)
				_ = w.reverse("") // may fail, which is the point
				w.ahead.Add(int64(time.Minute))
			}
			fail = 0
			must(t, w.reverse(""))
			want := map[string]string{}
			for _, row := range w.rows("SELECT CAST(id AS STRING), CAST(score AS STRING) FROM crm.scores") {
				want[fmt.Sprint(row[0])] = fmt.Sprint(row[1])
			}
			for id, score := range want {
				if got := w.value(`SELECT coalesce((SELECT score::text FROM scores WHERE id = ` + id + `), 'absent')`); got != score {
					t.Errorf("score of %s is %s, want %s", id, got, score)
				}
			}
			if got := w.value(`SELECT count(*) FROM scores`); got != fmt.Sprint(len(want)) {
				t.Errorf("%s scores, want %d", got, len(want))
			}
			must(t, w.reverse(""))
			if got := w.value(`SELECT rows_written + rows_deleted FROM tidemark.runs ORDER BY id DESC LIMIT 1`); got != "0" {
				t.Errorf("%s rows were written when nothing had changed", got)
			}
			w.noStaging()
		})
	}
}

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// next are the migrations of a next version: those there are, and one more that
// expands every table the running version writes to.
func next(t *testing.T) fs.FS {
	t.Helper()
	out := fstest.MapFS{"90000_next.sql": {Data: []byte(`-- +goose Up
ALTER TABLE tidemark.sync_state ADD COLUMN note text, ADD COLUMN attempts integer NOT NULL DEFAULT 0;
ALTER TABLE tidemark.runs ADD COLUMN cost bigint NOT NULL DEFAULT 0;
ALTER TABLE tidemark.leases ADD COLUMN since timestamptz DEFAULT clock_timestamp();
ALTER TABLE tidemark.dirty_partitions ADD COLUMN rows bigint NOT NULL DEFAULT 0;
ALTER TABLE tidemark.rejects ADD COLUMN retried_at timestamptz;
CREATE TABLE tidemark.what_is_next (id bigint PRIMARY KEY);
CREATE INDEX runs_by_start ON tidemark.runs (started_at);

-- +goose Down
DROP TABLE tidemark.what_is_next;
`)}}
	now := schemas.ControlPlane()
	names, err := fs.Glob(now, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(now, name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = &fstest.MapFile{Data: text}
	}
	return out
}

// upgraded is one more function instance, of the next version.
func (w *world) upgraded(file string) *instance.Connections {
	w.t.Helper()
	c := w.with(file)
	var err error
	if c.Control, err = controlplane.OpenWith(w.t.Context(), pool(w.t, w.url), next(w.t)); err != nil {
		w.t.Fatal(err)
	}
	return c
}

const versionsSQL = `SELECT string_agg(version_id::text, ',' ORDER BY version_id) FROM tidemark.schema_version`

// TestUpgradeInTheMiddleOfABatch: the next version migrates while a run of this
// one is about to commit a batch and has more to read. The run comes to its end,
// and the next version goes on from there.
func TestUpgradeInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	file := itemsFile("batch_rows: 30")
	w := newWorld(t, file, itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
	arrived, release := make(chan struct{}), make(chan struct{})
	commits := 0
	w.bq.Intercept(func(c emulator.Call) error {
		if c.Method == "BatchCommitWriteStreams" && c.Phase == emulator.Before {
			if commits++; commits == 2 { // the statements of a batch are prepared by now
				close(arrived)
				<-release
			}
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- w.extractOn(w.product, "") }()
	<-arrived
	newer := w.upgraded(file)
	if got := w.value(versionsSQL); got != "0,1,2,3,4,5,6,90000" {
		t.Fatalf("versions %s", got)
	}
	close(release)
	must(t, <-done)
	w.once("shop", "items")
	if got := w.value(`SELECT string_agg(outcome || ' ' || rows_written, ', ') FROM tidemark.runs`); got != "ok 100" {
		t.Errorf("runs recorded %s, want one of all rows", got)
	}
	w.exec(`INSERT INTO items SELECT n, 'item' FROM generate_series(101, 110) n`)
	must(t, w.extractOn(newer, ""))
	w.once("shop", "items")
}

// TestUpgradeDoesNotQueue: a migration gives up soon where somebody's long
// transaction has a table, since every run would queue behind it. The next message
// tries again.
func TestUpgradeDoesNotQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items VALUES (1)`)
	w.tick()
	analyst := w.begin()
	defer func() { _ = analyst.Rollback(context.WithoutCancel(t.Context())) }() // where the test ends early
	w.in(analyst, `SELECT count(*) FROM tidemark.runs`)
	control := pool(t, w.url)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	migrated := make(chan error, 1)
	go func() {
		_, err := controlplane.OpenWith(ctx, control, next(t))
		migrated <- err
	}()
	w.await(`SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'tidemark.runs'::regclass)`)
	w.exec(`INSERT INTO items VALUES (2)`)
	w.tick() // has to wait, no longer than the migration does
	err := <-migrated
	if class, remedy := fault.Classify(err); fault.SQLState(err) != "55P03" || class != fault.Transient || remedy == "" {
		t.Fatalf("the migration ended with %v, want a transient error for a lock, with its remedy (%q)", err, remedy)
	}
	if got := w.value(versionsSQL); got != "0,1,2,3,4,5,6" {
		t.Errorf("versions %s after a migration that failed", got)
	}
	clean(t, control)
	w.commit(analyst)
	if _, err := controlplane.OpenWith(t.Context(), control, next(t)); err != nil {
		t.Errorf("the second try: %v", err)
	}
	clean(t, control)
	w.tick()
	w.once("shop", "items")
}

// clean fails if a migration left a lock or a setting in a session of the pool.
func clean(t *testing.T, p *pgxpool.Pool) {
	t.Helper()
	for _, conn := range p.AcquireAllIdle(t.Context()) {
		if got := scan[string](t, conn.Conn(), `SELECT current_setting('lock_timeout') || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())`); got != "00" {
			t.Errorf("a session was left with the lock timeout and advisory locks %s", got)
		}
		conn.Release()
	}
}

// await waits until a condition in Postgres holds.
func (w *world) await(condition string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for w.value(condition) != "true" {
		select {
		case <-poll.C:
		case <-ctx.Done():
			w.t.Fatalf("still not: %s", condition)
		}
	}
}

// TestUpgradeTakenBack takes the next version back: this one opens what it left, works on
// it and leaves it as it is.
func TestUpgradeTakenBack(t *testing.T) {
	t.Parallel()
	file := itemsFile("") + "dedup: {every: 1h}\n"
	w := newWorld(t, file, itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
	newer := w.upgraded(file)
	must(t, w.extractOn(newer, ""))
	w.exec(`UPDATE items SET name = 'changed', updated_at = clock_timestamp() WHERE id <= 10`)
	w.exec(`UPDATE tidemark.sync_state SET note = 'kept', attempts = 3`)
	w.product = w.connect(file)
	w.tick()
	w.dedup("")
	w.once("shop", "items")
	if got := w.value(versionsSQL); got != "0,1,2,3,4,5,6,90000" {
		t.Errorf("versions %s", got)
	}
	if got := w.value(`SELECT note || attempts FROM tidemark.sync_state`); got != "kept3" {
		t.Errorf("the next version's columns hold %s", got)
	}
	w.exec(`INSERT INTO items VALUES (200)`)
	must(t, w.extractOn(w.upgraded(file), ""))
	w.once("shop", "items")
	if got := w.value(`SELECT string_agg(kind || ' ' || outcome, ', ' ORDER BY id) FROM tidemark.runs`); got != "extract ok, extract ok, dedup ok, extract ok" {
		t.Errorf("runs recorded %s", got)
	}
}

// TestUpgradeSideBySide has instances of both versions serve ticks of one table
// at the same time, while the application writes.
func TestUpgradeSideBySide(t *testing.T) {
	t.Parallel()
	file := itemsFile("")
	w := newWorld(t, file, itemsSQL)
	w.tick() // what is written during a backfill comes by it and as a change
	newer := w.upgraded(file)
	both := func() bool {
		return w.value(`SELECT count(DISTINCT message_id) = 2 FROM tidemark.runs WHERE rows_written > 0`) == "true"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	written, done := 0, make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		defer close(done)
		for ; ctx.Err() == nil && (written < 1000 || !both()); written += 10 {
			if _, err := w.db.Exec(ctx, `INSERT INTO items SELECT $1 + m, 'item' FROM generate_series(1, 10) m`, written); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for message, c := range map[string]*instance.Connections{`{"pipeline":"shop"}`: w.product, `{"table":"items"}`: newer} {
		group.Go(func() {
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				if err := w.extractOn(c, message); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	w.tick()
	w.once("shop", "items")
	if n := w.count("SELECT COUNT(*) FROM shop.items_log"); n != int64(written) {
		t.Errorf("the log has %d versions, want %d", n, written)
	}
	if !both() {
		t.Error("only one of the versions wrote")
	}
	if got := w.value(`SELECT sum(rows_written) || ' ' || count(*) FILTER (WHERE outcome NOT IN ('ok', 'skipped')) FROM tidemark.runs`); got != fmt.Sprint(written, " 0") {
		t.Errorf("rows written and runs that went wrong: %s, want %d and none", got, written)
	}
}

// TestUpgradeReadsNewerFields: what a newer version put into the cursor and into a
// pending commit does not keep this one from reading them, and a pending commit
// that this one settles moves the cursor to what the newer one meant.
func TestUpgradeReadsNewerFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t, itemsFile(""), itemsSQL, `INSERT INTO items SELECT n, 'item' FROM generate_series(1, 100) n`)
	w.tick()
	const cursorFields = `'{"chunks": [1, 2], "lsn": "0/1"}'`
	w.exec(`UPDATE tidemark.sync_state SET cursor = jsonb_set(cursor || ` + cursorFields + `, '{fence,prepared}', '["gid"]')`)
	w.exec(`INSERT INTO items SELECT n, 'item' FROM generate_series(101, 150) n`)
	w.tick()
	w.once("shop", "items")

	w.exec(`INSERT INTO items SELECT n, 'item' FROM generate_series(151, 200) n`)
	for _, phase := range []emulator.Phase{emulator.Before, emulator.After} {
		w.exec(`INSERT INTO items SELECT max(id) + 1, 'item' FROM items`)
		var once sync.Once
		w.bq.Intercept(func(c emulator.Call) (err error) {
			if c.Method == "BatchCommitWriteStreams" && c.Phase == phase {
				once.Do(func() { err = status.Error(codes.Internal, "no answer") })
			}
			return err
		})
		if err := w.extractOn(w.product, ""); err == nil {
			t.Fatal("a commit without an answer counted as done")
		}
		w.exec(`UPDATE tidemark.sync_state SET pending = jsonb_set(pending, '{cursor}', pending->'cursor' || ` + cursorFields + `) || '{"encoding": "arrow", "attempts": [1]}'`)
		if got := w.value(`SELECT pending->>'encoding' FROM tidemark.sync_state`); got != "arrow" {
			t.Fatalf("no commit is pending: %s", got)
		}
		w.tick()
		w.once("shop", "items")
		if got := w.value(`SELECT cursor_after->>'lsn' FROM tidemark.runs WHERE outcome = 'ok' ORDER BY id DESC LIMIT 1`); got != "0/1" {
			t.Errorf("the settled commit moved the cursor to another one than was pending: %s", got)
		}
	}
}

// TestUpgradeAtOnce lets instances of both versions meet an empty database
// together, one where Terraform made the schema, and one of this version.
func TestUpgradeAtOnce(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(context.Context, *pgxpool.Pool) error{
		"no schema": func(context.Context, *pgxpool.Pool) error { return nil },
		"an empty schema": func(ctx context.Context, p *pgxpool.Pool) error {
			_, err := p.Exec(ctx, `CREATE SCHEMA tidemark`)
			return err
		},
		"this version": func(ctx context.Context, p *pgxpool.Pool) error {
			_, err := controlplane.Open(ctx, p)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := postgres.NewDatabase(t)
			must(t, before(t.Context(), pool(t, url)))
			var group, ready sync.WaitGroup
			versions := slices.Repeat([]fs.FS{schemas.ControlPlane(), next(t)}, 4)
			ready.Add(len(versions))
			for _, migrations := range versions {
				control := pool(t, url)
				group.Go(func() {
					must(t, control.Ping(t.Context()))
					ready.Done()
					ready.Wait()
					if _, err := controlplane.OpenWith(t.Context(), control, migrations); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if got := scan[string](t, connect(t, url), versionsSQL); got != "0,1,2,3,4,5,6,90000" {
				t.Errorf("versions %s, want each once", got)
			}
		})
	}
}

// TestUpgradeOnlyExpands holds the released migrations to the rule of
// controlplane.Open, as far as their words tell.
func TestUpgradeOnlyExpands(t *testing.T) {
	t.Parallel()
	now := schemas.ControlPlane()
	names, err := fs.Glob(now, "*.sql")
	if err != nil || len(names) == 0 {
		t.Fatal(errors.Join(err, errors.New("there are no migrations")))
	}
	for _, name := range names {
		text, err := fs.ReadFile(now, name)
		if err != nil {
			t.Fatal(err)
		}
		up, _, found := strings.Cut(string(text), "-- +goose Down")
		if !found {
			t.Errorf("%s has no way down", name)
		}
		for _, word := range []string{"DROP ", "RENAME ", "ALTER COLUMN "} {
			if strings.Contains(strings.ToUpper(up), word) {
				t.Errorf("%s says %s: a version that still runs would not survive it", name, word)
			}
		}
	}
}

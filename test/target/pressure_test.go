package target_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/test/postgres"
)

const contacts = `CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 100) g`

// server starts a server of the test's own and opens its database.
func server(t *testing.T, options postgres.Options, sql ...string) (*database, *postgres.Server) {
	t.Helper()
	s, err := postgres.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	d := &database{t: t, url: s.URL("postgres")}
	d.app = d.pool(d.url + "&search_path=public")
	for _, q := range sql {
		d.exec(q)
	}
	d.product = d.pool(d.url)
	return d, s
}

// until waits for a query to be true.
func (d *database) until(sql string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for ; ; <-ticker.C {
		var ok *bool
		if err := d.app.QueryRow(ctx, "SELECT ("+sql+")").Scan(&ok); err != nil {
			d.t.Fatalf("waiting for %s: %v", sql, err)
		}
		if ok != nil && *ok {
			return
		}
	}
}

// changed is a planned run that changes the 100 rows of contacts to a value, ten
// at a time.
func (d *database) changed(value string, limits func(*pipeline.Limits)) *target.Staging {
	d.t.Helper()
	s := sync(pipeline.ModeUpsert, []string{"id"}, []string{"v"})
	limits(&s.Limits)
	stage := d.staged(s, "SELECT g::bigint, '"+value+"'::text FROM generate_series(1, 100) g", id, v("text"))
	if p := d.plan(stage); p.Update != 100 {
		d.t.Fatalf("plan %s", mustJSON(d.t, p))
	}
	return stage
}

// log fills from write-ahead log of so many bytes at least.
func (d *database) log(bytes int) {
	d.t.Helper()
	d.exec(fmt.Sprintf("SELECT pg_logical_emit_message(false, 'test', repeat('x', %d))", bytes))
}

// applied runs a whole plan, bounded in time. asked is called whenever the run
// asks whether it may go on, with how often it did before.
func (d *database) applied(stage *target.Staging, asked func(n int) bool) target.Applied {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 45*time.Second)
	defer cancel()
	n := -1
	got, err := stage.Apply(ctx, func() bool { n++; return asked(n) })
	if err != nil {
		d.t.Fatal(err)
	}
	return got
}

func (d *database) unpaused(stage *target.Staging) {
	d.t.Helper()
	if got := d.applied(stage, func(int) bool { return true }); got.Paused != 0 || got.Written() != 100 || !got.Done {
		d.t.Errorf("applied %s, want all without a pause", mustJSON(d.t, got))
	}
}

// captured collects what is logged.
type captured struct {
	mu   gosync.Mutex
	text bytes.Buffer
}

func (c *captured) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

// lines are the log entries with a message, as they were written.
func (c *captured) lines(t *testing.T, message string) []string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for line := range strings.Lines(c.text.String()) {
		var entry struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Msg == message {
			out = append(out, line)
		}
	}
	return out
}

// capture takes the place of the default logger until the test ends.
func capture(t *testing.T) *captured {
	t.Helper()
	var out captured
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&out, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return &out
}

// TestStandbyLagPauses a run while a standby has too much to replay, and no longer.
func TestStandbyLagPauses(t *testing.T) { //nolint:paralleltest // it takes the place of the default logger
	logged := capture(t)
	d, primary := server(t, postgres.Options{Settings: map[string]string{"autovacuum": "off", "wal_receiver_status_interval": "1s"}}, contacts)
	standby, _ := server(t, postgres.Options{StandbyOf: primary})
	d.until("SELECT count(*) = 1 FROM pg_stat_replication WHERE replay_lsn IS NOT NULL")
	standby.exec("SELECT pg_wal_replay_pause()")
	standby.until("SELECT pg_get_wal_replay_pause_state() = 'paused'")
	lag := func(l *pipeline.Limits) {
		l.MaxReplicationLag, l.MaxSlotLag, l.MaxAutovacuumPause = 1<<20, 1<<20, time.Minute
	}
	d.log(1 << 19)
	d.unpaused(d.changed("within", lag))

	d.log(1 << 20)
	got := d.applied(d.changed("stopped", lag), func(n int) bool { return n < 3 })
	if got.Done || got.Written() != 0 || got.Paused < 1750*time.Millisecond { // 0.25, 0.5 and 1 s
		t.Errorf("applied %s, want nothing after a pause", mustJSON(t, got))
	}
	d.unpaused(d.changed("unlimited", func(l *pipeline.Limits) { l.MaxSlotLag = 1 << 20 }))
	before := logged.lines(t, "paused")
	got = d.applied(d.changed("resumed", lag), func(n int) bool {
		if n == 1 {
			d.expect("SELECT count(*) FROM t WHERE v = 'unlimited'", "100")
			standby.exec("SELECT pg_wal_replay_resume()")
		}
		return true
	})
	if !got.Done || got.Written() != 100 || got.Paused < 750*time.Millisecond {
		t.Errorf("applied %s, want all after a pause", mustJSON(t, got))
	}
	lines, ended := logged.lines(t, "paused")[len(before):], logged.lines(t, "pause ended")
	if len(lines) != 1 || !strings.Contains(lines[0], "standby walreceiver has ") || !strings.Contains(lines[0], "more than the 1048576 of max_replication_lag") {
		t.Errorf("paused with %q", lines)
	}
	if len(ended) != 2 || !strings.Contains(ended[0], `"resumes":false`) || !strings.Contains(ended[1], `"resumes":true`) || !strings.Contains(ended[1], `"paused_s":`) {
		t.Errorf("ended with %q", ended)
	}
}

// follow reads a logical slot as a subscriber that confirms what it had before, and no
// more.
func (d *database) follow(slot string) *pgconn.PgConn {
	d.t.Helper()
	conn, err := pgconn.Connect(d.t.Context(), d.url+"&replication=database")
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(d.t.Context())) })
	var confirmed uint64
	if err := d.app.QueryRow(d.t.Context(), "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&confirmed); err != nil {
		d.t.Fatal(err)
	}
	conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + slot + " LOGICAL 0/0 (proto_version '1', publication_names 'none')"})
	if err := conn.Frontend().Flush(); err != nil {
		d.t.Fatal(err)
	}
	for {
		m, err := conn.ReceiveMessage(d.t.Context())
		if err != nil {
			d.t.Fatal(err)
		}
		if _, ok := m.(*pgproto3.CopyBothResponse); ok {
			break
		}
	}
	status := []byte{'r'} // written, flushed, applied; by which clock; no reply
	for _, number := range []uint64{confirmed, confirmed, confirmed, 0} {
		status = binary.BigEndian.AppendUint64(status, number)
	}
	conn.Frontend().Send(&pgproto3.CopyData{Data: append(status, 0)})
	if err := conn.Frontend().Flush(); err != nil {
		d.t.Fatal(err)
	}
	d.until("SELECT r.replay_lsn IS NOT NULL FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = '" + slot + "'")
	return conn
}

// TestSlotLagPauses for a slot that somebody reads: one that is left behind would be
// waited for in vain. Its WAL sender is no standby.
func TestSlotLagPauses(t *testing.T) {
	t.Parallel()
	d, _ := server(t, postgres.Options{Settings: map[string]string{"wal_level": "logical", "autovacuum": "off", "wal_sender_timeout": "0"}},
		contacts, "CREATE PUBLICATION none", "SELECT pg_create_logical_replication_slot('left', 'pgoutput'), pg_create_physical_replication_slot('spare', true)",
		"SELECT pg_create_logical_replication_slot('read', 'pgoutput')")
	d.log(1 << 20)
	limits := func(l *pipeline.Limits) {
		l.MaxReplicationLag, l.MaxSlotLag, l.MaxAutovacuumPause = 1<<19, 1<<19, time.Minute
	}
	d.unpaused(d.changed("inactive", limits))

	conn := d.follow("read")
	d.unpaused(d.changed("no standby", func(l *pipeline.Limits) { limits(l); l.MaxSlotLag = 0 }))
	d.unpaused(d.changed("within", func(l *pipeline.Limits) { l.MaxSlotLag = 1 << 22 }))
	got := d.applied(d.changed("read", limits), func(n int) bool {
		if n == 1 {
			d.expect("SELECT count(*) FROM t WHERE v = 'within'", "100")
			if err := conn.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	if !got.Done || got.Written() != 100 || got.Paused < 750*time.Millisecond {
		t.Errorf("applied %s, want all after a pause", mustJSON(t, got))
	}
}

// TestAutovacuumPauses while one works on the table or a partition of it, for the
// time the run may wait, and for no other.
func TestAutovacuumPauses(t *testing.T) {
	t.Parallel()
	const slow = " WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
	dirty := func(d *database, table string) {
		d.t.Helper()
		d.exec("INSERT INTO " + table + " SELECT g, repeat('x', 1000) FROM generate_series(1000, 3000) g")
		d.exec("DELETE FROM " + table + " WHERE id >= 1000")
		d.until("SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = '" + table + "'::regclass)")
	}
	d, _ := server(t, postgres.Options{Settings: map[string]string{"autovacuum_naptime": "1s", "shared_buffers": "64MB"}},
		"CREATE TABLE t (id bigint PRIMARY KEY, v text) PARTITION BY RANGE (id)", "CREATE TABLE part PARTITION OF t DEFAULT "+slow,
		"INSERT INTO t SELECT g, 'old' FROM generate_series(1, 100) g", "CREATE TABLE other (id bigint PRIMARY KEY, v text)"+slow)
	waits := func(most time.Duration) func(*pipeline.Limits) {
		return func(l *pipeline.Limits) { l.MaxReplicationLag, l.MaxSlotLag, l.MaxAutovacuumPause = 1, 1, most }
	}
	dirty(d, "other")
	d.unpaused(d.changed("elsewhere", waits(time.Minute)))
	d.exec("ALTER TABLE other SET (autovacuum_enabled = false)")

	dirty(d, "part")
	d.unpaused(d.changed("not waited for", waits(0)))
	got := d.applied(d.changed("ignored in the end", waits(1200*time.Millisecond)), func(int) bool { return true })
	if !got.Done || got.Written() != 100 || got.Paused < 1200*time.Millisecond || got.Paused > 10*time.Second {
		t.Errorf("applied %s, want all after the longest pause", mustJSON(t, got))
	}
	got = d.applied(d.changed("it ended", waits(time.Hour)), func(n int) bool {
		if n == 1 {
			d.exec("ALTER TABLE part SET (autovacuum_enabled = false)") // which ends it
		}
		return true
	})
	if !got.Done || got.Written() != 100 || got.Paused < 750*time.Millisecond {
		t.Errorf("applied %s, want all after a pause", mustJSON(t, got))
	}
}

// TestPressureUnseen by a role without the rights is said once a run, and does not
// stop it.
func TestPressureUnseen(t *testing.T) { //nolint:paralleltest // it takes the place of the default logger
	const message = "the role may not see how the database is loaded: the sync does not wait for it"
	d := newDatabase(t, contacts, "CREATE ROLE unseeing LOGIN", "CREATE SCHEMA tidemark AUTHORIZATION unseeing", "GRANT SELECT, INSERT, UPDATE ON t TO unseeing")
	t.Cleanup(func() { // it is the server's, not the database's
		_, err := d.app.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY unseeing; DROP ROLE unseeing")
		if err != nil {
			t.Error(err)
		}
	})
	address, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.User("unseeing")
	d.product = d.pool(address.String())
	for _, test := range []struct {
		sql, remedy string
		limits      pipeline.Limits
	}{
		{"", `GRANT pg_read_all_stats TO \"unseeing\"`, pipeline.Limits{MaxReplicationLag: 1, Pause: 120 * time.Millisecond}}, // several looks
		{"", `GRANT pg_read_all_stats TO \"unseeing\"`, pipeline.Limits{MaxAutovacuumPause: time.Minute}},
		{"", "", pipeline.Limits{MaxSlotLag: 1}}, // everyone sees slots
		{"", "", pipeline.Limits{}},
		{"GRANT pg_read_all_stats TO unseeing", "", pipeline.Limits{MaxReplicationLag: 1, MaxSlotLag: 1, MaxAutovacuumPause: time.Minute}},
		{"REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn() FROM PUBLIC", "grant what the error names", pipeline.Limits{MaxSlotLag: 1}},
	} {
		if test.sql != "" {
			d.exec(test.sql)
		}
		logged := capture(t)
		d.unpaused(d.changed(fmt.Sprintf("%+v", test), func(l *pipeline.Limits) {
			l.MaxReplicationLag, l.MaxSlotLag, l.MaxAutovacuumPause, l.Pause = test.limits.MaxReplicationLag, test.limits.MaxSlotLag, test.limits.MaxAutovacuumPause, test.limits.Pause
		}))
		got := logged.lines(t, message)
		if len(got) > 1 || (len(got) == 1) != (test.remedy != "") || len(got) == 1 && !strings.Contains(got[0], test.remedy) {
			t.Errorf("%+v: warned %q, want once %q", test, got, test.remedy)
		}
	}
}

// TestPauseEndsWithTheRun that is cancelled.
func TestPauseEndsWithTheRun(t *testing.T) {
	t.Parallel()
	d, _ := server(t, postgres.Options{Settings: map[string]string{"wal_level": "logical", "autovacuum": "off", "wal_sender_timeout": "0"}},
		contacts, "CREATE PUBLICATION none", "SELECT pg_create_logical_replication_slot('read', 'pgoutput')")
	d.follow("read")
	d.log(1 << 20)
	stage := d.changed("never", func(l *pipeline.Limits) { l.MaxSlotLag = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, err := stage.Apply(ctx, func() bool { cancel(); return true })
	if !errors.Is(err, context.Canceled) || got.Written() != 0 {
		t.Errorf("applied %s with %v", mustJSON(t, got), err)
	}
}

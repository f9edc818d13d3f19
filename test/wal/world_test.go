// Package wal_test captures changes from the write-ahead log of real Postgres
// servers. Cases that other products' test suites taught us name theirs.
package wal_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pgoutput"
	"github.com/tidemark-data/tidemark/shared/wal"
	"github.com/tidemark-data/tidemark/test/postgres"
)

// server is the one that most tests share; each has a database of its own.
var (
	server    *postgres.Server
	databases atomic.Int64
)

func logical() map[string]string {
	return map[string]string{"wal_level": "logical", "max_replication_slots": "50", "max_wal_senders": "4", "max_prepared_transactions": "4"}
}

func TestMain(m *testing.M) {
	var err error
	if server, err = postgres.Start(context.Background(), postgres.Options{Settings: logical()}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := errors.Join(server.Stop(), goleak.Find(goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

const pipelineName = "shop-eu"

// world is a database with a pipeline.
type world struct {
	t      *testing.T
	server *postgres.Server
	url    string
	db     *pgxpool.Pool
	slot   string
}

// newWorld makes one on the shared server.
func newWorld(t *testing.T, sql ...string) *world {
	t.Helper()
	return newWorldOn(t, server, sql...)
}

// startWorld makes one on a server of its own.
func startWorld(t *testing.T, settings map[string]string, sql ...string) *world {
	t.Helper()
	own, err := postgres.Start(t.Context(), postgres.Options{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	return newWorldOn(t, own, sql...)
}

func newWorldOn(t *testing.T, on *postgres.Server, sql ...string) *world {
	t.Helper()
	name := fmt.Sprintf("wal_%d", databases.Add(1))
	execute(t, connect(t, on.URL("postgres")), "CREATE DATABASE "+name)
	w := &world{t: t, server: on, url: on.URL(name), slot: wal.SlotName(name, pipelineName)}
	t.Cleanup(func() {
		if err := w.drop(context.WithoutCancel(t.Context()), name); err != nil {
			t.Errorf("dropping the database: %v", err)
		}
	})
	w.db = pool(t, w.url)
	for _, statement := range sql {
		w.exec(statement)
	}
	return w
}

// drop drops the database and, before it, what slots it has, read or not.
func (w *world) drop(ctx context.Context, name string) error {
	admin, err := pgx.Connect(ctx, w.server.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close(ctx) }()
	for {
		if _, err := admin.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = $1`, name); err != nil {
			return err
		}
		_, err := admin.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1`, name)
		if err == nil {
			_, err = admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		}
		if fault.SQLState(err) != "55006" { // a slot is still being let go of
			return err
		}
	}
}

func pool(t *testing.T, address string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 20
	p, err := pgxpool.NewWithConfig(context.WithoutCancel(t.Context()), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) value(sql string, args ...any) string {
	w.t.Helper()
	var v string
	if err := w.db.QueryRow(w.t.Context(), sql, args...).Scan(&v); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// as is the address of the database for another role.
func (w *world) as(role string) string {
	w.t.Helper()
	address, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	address.User = url.User(role)
	return address.String()
}

// role creates a login role that is the test's own.
func (w *world) role(attributes string) string {
	w.t.Helper()
	role := fmt.Sprintf("role_%d", databases.Add(1))
	w.exec("CREATE ROLE " + role + " LOGIN " + attributes)
	w.t.Cleanup(func() {
		admin, err := pgx.Connect(context.WithoutCancel(w.t.Context()), w.url)
		if err != nil {
			w.t.Error(err)
			return
		}
		ctx := context.WithoutCancel(w.t.Context())
		_, err = admin.Exec(ctx, "DROP OWNED BY "+role+" CASCADE; DROP ROLE "+role)
		if err = errors.Join(err, admin.Close(ctx)); err != nil {
			w.t.Error(err)
		}
	})
	return role
}

// session is a connection that stays open across statements.
func (w *world) session() *pgx.Conn {
	w.t.Helper()
	return connect(w.t, w.url)
}

// member describes a table of schema public with its key.
func (w *world) member(name string, key ...string) wal.Member {
	w.t.Helper()
	table, err := catalog.Describe(w.t.Context(), w.db, "public", name)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(key) == 0 {
		key = table.Primary
	}
	return wal.Member{Table: table, Key: key}
}

func (w *world) members(names ...string) []wal.Member {
	w.t.Helper()
	members := make([]wal.Member, len(names))
	for i, name := range names {
		members[i] = w.member(name)
	}
	return members
}

// ensure expects every member to be captured.
func (w *world) ensure(members ...wal.Member) wal.Slot {
	w.t.Helper()
	slot, err := wal.Ensure(w.t.Context(), w.db, pipelineName, members)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, m := range slot.Members {
		if m.Err != nil {
			w.t.Fatalf("%s: %v", members[i].Table.SQLName(), m.Err)
		}
	}
	if slot.Name != w.slot {
		w.t.Fatalf("the slot is %s, want %s", slot.Name, w.slot)
	}
	return slot
}

func (w *world) capture(tables ...string) wal.Slot {
	w.t.Helper()
	return w.ensure(w.members(tables...)...)
}

// change is a wal.Change that is good for ever, values as text.
type change struct {
	wal.Change
	old, new row
}

// row is column to value, as Go prints it; "∅" for NULL and "…" for a value that
// was not sent.
type row map[string]string

const (
	null      = "∅"
	unchanged = "…"
)

func (r row) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		parts = append(parts, name+"="+r[name])
	}
	return strings.Join(parts, " ")
}

func (c change) String() string {
	parts := []string{c.Kind.String(), c.Table}
	if c.old != nil {
		parts = append(parts, "["+c.old.String()+"]")
	}
	if c.new != nil {
		parts = append(parts, c.new.String())
	}
	return strings.Join(parts, " ")
}

// decode turns a tuple into text by the types that the relation gives it.
func decode(types *pgtype.Map, relation *pgoutput.Relation, tuple pgoutput.Tuple) (row, error) {
	if tuple == nil {
		return nil, nil
	}
	r := make(row)
	for i, v := range tuple {
		name := relation.Columns[i].Name
		switch v.Kind {
		case pgoutput.Null:
			r[name] = null
		case pgoutput.Unchanged:
			r[name] = unchanged
		case pgoutput.Text:
			r[name] = "text:" + string(v.Data)
		case pgoutput.Binary:
			var value any
			if err := types.Scan(relation.Columns[i].Type, pgx.BinaryFormatCode, v.Data, &value); err != nil {
				return nil, fmt.Errorf("column %s: %w", name, err)
			}
			r[name] = fmt.Sprint(value)
		}
	}
	return r, nil
}

// pull reads the slot once.
func (w *world) pull(limit int) (wal.Pulled, []change) {
	w.t.Helper()
	pulled, changes, err := w.tryPull(limit)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(changes) != pulled.Changes {
		w.t.Fatalf("%d changes were handed over, %d reported", len(changes), pulled.Changes)
	}
	return pulled, changes
}

func (w *world) tryPull(limit int) (wal.Pulled, []change, error) {
	conn, err := w.db.Acquire(w.t.Context())
	if err != nil {
		return wal.Pulled{}, nil, err
	}
	defer conn.Release()
	var changes []change
	types := conn.Conn().TypeMap()
	pulled, err := wal.Pull(w.t.Context(), conn.Conn(), w.slot, limit, func(c wal.Change) error {
		kept := change{Change: c}
		var oldErr, newErr error
		kept.old, oldErr = decode(types, c.Relation, c.Old)
		kept.new, newErr = decode(types, c.Relation, c.New)
		changes = append(changes, kept)
		return errors.Join(oldErr, newErr)
	})
	return pulled, changes, err
}

func (w *world) advance(to pgoutput.LSN) {
	w.t.Helper()
	if err := wal.Advance(w.t.Context(), w.db, w.slot, to); err != nil {
		w.t.Fatal(err)
	}
}

// consume pulls and advances.
func (w *world) consume(limit int) []change {
	w.t.Helper()
	pulled, changes := w.pull(limit)
	w.advance(pulled.Upto)
	return changes
}

// drain consumes until there is no more.
func (w *world) drain(limit int) []change {
	w.t.Helper()
	var all []change
	for {
		pulled, changes := w.pull(limit)
		all = append(all, changes...)
		w.advance(pulled.Upto)
		if !pulled.More {
			return all
		}
	}
}

func lines(changes []change) []string {
	out := make([]string, len(changes))
	for i, c := range changes {
		out[i] = c.String()
	}
	return out
}

// until polls for a condition that SQL tells.
func (w *world) until(sql string, args ...any) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		var ok bool
		if err := w.db.QueryRow(ctx, sql, args...).Scan(&ok); err != nil {
			w.t.Fatalf("%s: %v", sql, err)
		}
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("it did not become true: %s", sql)
		case <-ticker.C:
		}
	}
}

// permanent expects an error that only a person can mend, and returns its
// remedies joined.
func permanent(t *testing.T, err error) string {
	t.Helper()
	class, _ := fault.Classify(err)
	if err == nil || class != fault.Permanent {
		t.Fatalf("got %v (%s), want a permanent error", err, class)
	}
	var all []string
	for _, part := range fault.Parts(err) {
		_, remedy := fault.Classify(part)
		if remedy == "" {
			t.Errorf("no remedy for: %v", part)
		}
		all = append(all, remedy)
	}
	return strings.Join(all, "\n")
}

func transient(t *testing.T, err error) string {
	t.Helper()
	class, remedy := fault.Classify(err)
	if err == nil || class != fault.Transient {
		t.Fatalf("got %v (%s), want a transient error", err, class)
	}
	if remedy == "" {
		t.Errorf("no remedy for: %v", err)
	}
	return remedy
}

func contains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q\ndoes not say %q", text, want)
		}
	}
}

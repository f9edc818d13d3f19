// Package target_test writes into a real Postgres what a query might return.
package target_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/test/postgres"
)

func TestMain(m *testing.M) { postgres.Main(m) }

// database is a database of the test's own, with the application's connections
// and, in other sessions, the product's.
type database struct {
	t       *testing.T
	url     string
	app     *pgxpool.Pool
	product *pgxpool.Pool
}

// newDatabase prepares a database; what is set on it holds for all sessions that
// are opened later.
func newDatabase(t *testing.T, sql ...string) *database {
	t.Helper()
	d := &database{t: t, url: postgres.NewDatabase(t)}
	d.app = d.pool(d.url + "&search_path=public")
	for _, s := range sql {
		d.exec(s)
	}
	d.product = d.pool(d.url)
	return d
}

func (d *database) pool(url string) *pgxpool.Pool {
	d.t.Helper()
	p, err := pgxpool.New(context.WithoutCancel(d.t.Context()), url)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(p.Close)
	return p
}

func (d *database) exec(sql string) {
	d.t.Helper()
	if _, err := d.app.Exec(d.t.Context(), sql); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

func (d *database) value(sql string) string {
	d.t.Helper()
	var out *string
	if err := d.app.QueryRow(d.t.Context(), "SELECT ("+sql+")::text").Scan(&out); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	if out == nil {
		return "NULL"
	}
	return *out
}

func (d *database) expect(sql, want string) {
	d.t.Helper()
	if got := d.value(sql); got != want {
		d.t.Errorf("%s: %s, want %s", sql, got, want)
	}
}

// sync is a declaration with limits that suit a test.
func sync(mode pipeline.Mode, key, columns []string) *pipeline.Sync {
	s := &pipeline.Sync{Name: "s", Table: "t", Mode: mode, Limits: pipeline.Limits{BatchSize: 10, LockTimeout: 200 * time.Millisecond, StatementTimeout: 20 * time.Second}}
	for _, k := range key {
		s.Key = append(s.Key, pipeline.Mapping{From: k, To: k})
	}
	for _, c := range columns {
		s.Columns = append(s.Columns, pipeline.Mapping{From: c, To: c})
	}
	return s
}

func (d *database) open(s *pipeline.Sync, columns ...target.Column) (*target.Staging, error) {
	d.t.Helper()
	return d.openUnit(s, "p//s", columns...)
}

func (d *database) openUnit(s *pipeline.Sync, unit string, columns ...target.Column) (*target.Staging, error) {
	d.t.Helper()
	return target.Open(d.t.Context(), d.product, s, "public", unit, 1, columns)
}

// staged opens a run with the rows that the SQL returns: the columns in the order
// of the mapping, in their staged types.
func (d *database) staged(s *pipeline.Sync, rows string, columns ...target.Column) *target.Staging {
	d.t.Helper()
	stage, err := d.open(s, columns...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := stage.Drop(d.t.Context()); err != nil {
			d.t.Error(err)
		}
	})
	d.load(stage, rows)
	return stage
}

func (d *database) load(stage *target.Staging, rows string) {
	d.t.Helper()
	_, err := stage.Load(d.t.Context(), func(w io.Writer) error {
		conn, err := pgx.Connect(d.t.Context(), d.url)
		if err != nil {
			return err
		}
		_, err = conn.PgConn().CopyTo(d.t.Context(), w, "COPY ("+rows+") TO STDOUT (FORMAT binary)")
		return errors.Join(err, conn.Close(d.t.Context()))
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *database) plan(stage *target.Staging) target.Plan {
	d.t.Helper()
	p, err := stage.Plan(d.t.Context(), target.Extent{})
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

func always() bool { return true }

func (d *database) apply(stage *target.Staging) target.Applied {
	d.t.Helper()
	a, err := stage.Apply(d.t.Context(), always)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

// permanent fails unless the error asks a person for something.
func permanent(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	class, remedy := fault.Classify(err)
	if class != fault.Permanent || remedy == "" {
		t.Errorf("%v is %v with the remedy %q, want permanent with one", err, class, remedy)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+" | "+remedy, w) {
			t.Errorf("%v (%s) does not say %q", err, remedy, w)
		}
	}
}

var (
	id = target.Column{Name: "id", Type: "bigint"}
	v  = func(typ string) target.Column { return target.Column{Name: "v", Type: typ} }
)

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// prepared is staged for a run that the test drops itself, or that the next one sweeps.
func (d *database) prepared(s *pipeline.Sync, rows string, columns ...target.Column) *target.Staging {
	d.t.Helper()
	stage, err := d.open(s, columns...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.load(stage, rows)
	return stage
}

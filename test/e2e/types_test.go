package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/test/postgres"
	"github.com/tidemark-data/tidemark/test/typematrix"
)

// matrixCell is one cell of the matrix and the row that has its value.
type matrixCell struct {
	typematrix.Cell
	typ   typematrix.Type
	value typematrix.Value
	table string
	id    int
}

func (c matrixCell) String() string { return fmt.Sprintf("%s %s: %s", c.typ.SQL, c.typ.As, c.value) }

// matrixTable is where a type is tried. Those that the log holds as COPY sends them are
// by themselves: a row of any other is read from the table again.
const (
	asLogged = "logged"
	asRead   = "read_again"
)

// TestTypeMatrix: every cell of the matrix does what is declared, by COPY and by the log.
func TestTypeMatrix(t *testing.T) {
	t.Parallel()
	source := postgres.NewDatabase(t)
	tables := describeMatrix(t, source)
	cells := matrixCells(t, tables)

	snapshot := newWorldOn(t, source, matrixFile("snapshot", tables))
	_, logical := logicalServer(t)
	wal := newWorldOn(t, logical, matrixFile("wal", tables), slices.Concat(typematrix.Setup(), createMatrix(tables))...)
	wal.tick() // the log is followed from here

	accepted := snapshot.insertMatrix(cells)
	wal.insertMatrix(accepted)
	for name, w := range map[string]*world{"COPY": snapshot, "wal": wal} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			w.tick()
			w.checkMatrix(tables, accepted)
			if got := w.value(`SELECT count(*) FROM tidemark.backfills WHERE reason <> ''`); got != "0" {
				t.Errorf("%s tables were read instead of followed", got)
			}
		})
	}
}

// describeMatrix has the types' tables in a database, and returns the types of each.
func describeMatrix(t *testing.T, url string) map[string][]typematrix.Type {
	t.Helper()
	db := pool(t, url)
	every := map[string][]typematrix.Type{"every": nil}
	as := map[string]string{}
	for _, typ := range typematrix.Types() {
		every["every"] = append(every["every"], typ)
		if typ.As != "" {
			as[typ.Name()] = typ.As
		}
	}
	for _, sql := range slices.Concat(typematrix.Setup(), createMatrix(every)) {
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	table, err := catalog.Describe(t.Context(), db, "public", "every")
	if err != nil {
		t.Fatal(err)
	}
	must(t, table.Declare(t.Context(), db, pipeline.Columns{As: as}, "", nil))
	tables := map[string][]typematrix.Type{}
	for _, typ := range every["every"] {
		c := table.Column(typ.Name())
		if got := strings.Join(c.Targets(), ", "); got != typ.Offered {
			t.Errorf("%s may be %s, declared is %s", typ.SQL, got, typ.Offered)
		}
		var oid uint32
		if err := db.QueryRow(t.Context(), `SELECT atttypid FROM pg_attribute WHERE attrelid = 'every'::regclass AND attname = $1`, typ.Name()).Scan(&oid); err != nil {
			t.Fatal(err)
		}
		name := asRead
		if c.Plain() && c.Param == oid {
			name = asLogged
		}
		if !typ.Wire {
			tables[name] = append(tables[name], typ)
		}
	}
	for _, sql := range createMatrix(tables) {
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return tables
}

func createMatrix(tables map[string][]typematrix.Type) []string {
	var out []string
	for name, types := range tables {
		columns := []string{"id int PRIMARY KEY"}
		for _, typ := range types {
			column := catalog.Quote(typ.Name()) + " " + typ.SQL
			if typ.Check != "" {
				column += " CHECK (" + strings.ReplaceAll(typ.Check, "v::", catalog.Quote(typ.Name())+"::") + ")" // of NULL it is unknown
			}
			columns = append(columns, column)
		}
		out = append(out, fmt.Sprintf("CREATE TABLE %s (%s)", name, strings.Join(columns, ", ")))
	}
	return out
}

func matrixFile(method string, tables map[string][]typematrix.Type) string {
	var b strings.Builder
	b.WriteString("pipeline: shop\ndestination: {dataset: shop}\ntables:\n")
	for name, types := range tables {
		var as []string
		for _, typ := range types {
			if typ.As != "" {
				as = append(as, typ.Name()+": "+typ.As)
			}
		}
		fmt.Fprintf(&b, "  - {name: %s, capture: {method: %s}, max_reject_percent: 100, columns: {as: {%s}}}\n", name, method, strings.Join(as, ", "))
	}
	return b.String()
}

// matrixCells are all of them; one without a declaration fails the test.
func matrixCells(t *testing.T, tables map[string][]typematrix.Type) []matrixCell {
	t.Helper()
	var out []matrixCell
	for table, types := range tables {
		for _, typ := range types {
			for _, value := range typematrix.Values() {
				c := matrixCell{typ.Cell(value), typ, value, table, len(out) + 1}
				if !c.Declared() || c.SQL == "" {
					t.Errorf("%v: there is no declaration, or more than one", c)
					continue
				}
				out = append(out, c)
			}
		}
	}
	t.Logf("%d cells", len(out))
	return out
}

// insertMatrix inserts a row per cell, and returns the cells that Postgres took.
func (w *world) insertMatrix(cells []matrixCell) []matrixCell {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { must(w.t, conn.Close(w.t.Context())) }()
	if _, err := conn.Exec(w.t.Context(), "SET timezone = 'UTC'"); err != nil {
		w.t.Fatal(err)
	}
	var accepted []matrixCell
	for _, c := range cells {
		_, err := conn.Exec(w.t.Context(), fmt.Sprintf("INSERT INTO %s (id, %s) VALUES (%d, %s)", c.table, catalog.Quote(c.typ.Name()), c.id, c.SQL))
		state := fault.SQLState(err)
		switch {
		case err == nil && (!c.Refused || c.Quarantined != 0):
			accepted = append(accepted, c)
		case err == nil:
			w.t.Errorf("%v: Postgres took it", c)
		case !c.Refused || !slices.Contains([]string{"22", "42", "54", "23", "XX"}, state[:min(2, len(state))]):
			w.t.Errorf("%v: %v", c, err)
		}
	}
	return accepted
}

// checkMatrix compares what landed, and what was kept, with what is declared.
func (w *world) checkMatrix(tables map[string][]typematrix.Type, cells []matrixCell) {
	w.t.Helper()
	kept := w.keptMatrix()
	landed := map[string]map[int]map[string]bigquery.Value{}
	for table, types := range tables {
		landed[table] = w.landedMatrix(table, types, cells)
	}
	for _, c := range cells {
		row, found := landed[c.table][c.id]
		reason := kept[fmt.Sprint(c.table, c.id)]
		if c.Quarantined != 0 {
			if want := c.typ.Name() + ": " + c.Quarantined.String(); reason != want && reason != ": "+c.Quarantined.String() || found {
				w.t.Errorf("%v: kept for %q, want %q; landed: %t", c, reason, want, found)
			}
			continue
		}
		if !found || reason != "" {
			w.t.Errorf("%v: landed: %t, kept for %q", c, found, reason)
			continue
		}
		want := c.Exact
		if c.Same {
			want = w.ofPostgres(c)
		}
		if got := c.typ.Canonical(row[c.typ.Name()]); got != want {
			w.t.Errorf("%v: %s, want %s", c, abridge(got), abridge(want))
		}
	}
}

func abridge(text string) string {
	if len(text) > 120 {
		return fmt.Sprintf("%q.. of %d bytes", text[:120], len(text))
	}
	return fmt.Sprintf("%q", text)
}

// keptMatrix is why each row was kept, by its table and id.
func (w *world) keptMatrix() map[string]string {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), `SELECT name || substring(row::text FROM '"id":(\d+)'), column_name || ': ' || reason FROM tidemark.rejects`)
	if err != nil {
		w.t.Fatal(err)
	}
	kept := map[string]string{}
	var row, reason string
	if _, err := pgx.ForEachRow(rows, []any{&row, &reason}, func() error {
		if kept[row] != "" {
			w.t.Errorf("row %s was kept twice", row)
		}
		kept[row] = reason
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return kept
}

// landedMatrix are the rows of BigQuery, by id. Those with large values are read alone.
func (w *world) landedMatrix(table string, types []typematrix.Type, cells []matrixCell) map[int]map[string]bigquery.Value {
	w.t.Helper()
	md, err := w.client.Dataset("shop").Table(table).Metadata(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var names, large []string
	for _, typ := range types {
		names = append(names, typ.Name())
		at := slices.IndexFunc(md.Schema, func(f *bigquery.FieldSchema) bool { return f.Name == typ.Name() })
		if got := typeOf(md.Schema[at]); got != typ.BigQuery {
			w.t.Errorf("%s %s is %s in BigQuery, declared is %s", typ.SQL, typ.As, got, typ.BigQuery)
		}
	}
	for _, c := range cells {
		if c.table == table && c.value == typematrix.Large {
			large = append(large, fmt.Sprint(c.id))
		}
	}
	out := map[int]map[string]bigquery.Value{}
	read := func(condition string) {
		for _, row := range w.rows(fmt.Sprintf("SELECT id, `%s` FROM shop.%s WHERE %s", strings.Join(names, "`, `"), table, condition)) {
			values := map[string]bigquery.Value{}
			for i, name := range names {
				values[name] = row[i+1]
			}
			id, _ := row[0].(int64)
			out[int(id)] = values
		}
	}
	all := "TRUE"
	if len(large) > 0 {
		all = "id NOT IN (" + strings.Join(large, ", ") + ")"
	}
	read(all)
	for _, id := range large {
		read("id = " + id)
	}
	return out
}

func typeOf(f *bigquery.FieldSchema) string {
	name := map[bigquery.FieldType]string{bigquery.BooleanFieldType: "BOOL", bigquery.IntegerFieldType: "INT64", bigquery.FloatFieldType: "FLOAT64"}[f.Type]
	if name == "" {
		name = string(f.Type)
	}
	if f.Repeated {
		return "ARRAY<" + name + ">"
	}
	return name
}

// ofPostgres is the canonical text of a cell's value in Postgres.
func (w *world) ofPostgres(c matrixCell) string {
	w.t.Helper()
	conn, err := w.db.Acquire(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(w.t.Context(), `SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'; SET extra_float_digits = 1`); err != nil {
		w.t.Fatal(err)
	}
	column := catalog.Quote(c.typ.Name())
	if !strings.HasPrefix(c.typ.BigQuery, "ARRAY") {
		var text *string
		if err := conn.QueryRow(w.t.Context(), fmt.Sprintf("SELECT %s::text FROM %s WHERE id = %d", column, c.table, c.id)).Scan(&text); err != nil {
			w.t.Fatal(err)
		}
		if text == nil {
			return "NULL"
		}
		return c.typ.OfPostgres(*text)
	}
	var texts []string
	if err := conn.QueryRow(w.t.Context(), fmt.Sprintf("SELECT array(SELECT e::text FROM unnest(%s) e) FROM %s WHERE id = %d", column, c.table, c.id)).Scan(&texts); err != nil {
		w.t.Fatal(err)
	}
	list := make([]bigquery.Value, len(texts))
	for i, text := range texts {
		list[i] = text
	}
	return c.typ.Canonical(list)
}

// TestTypeMatrixOnTheWire: the types that the emulator has no columns of are checked as
// they are sent.
func TestTypeMatrixOnTheWire(t *testing.T) {
	t.Parallel()
	url := postgres.NewDatabase(t)
	db := pool(t, url)
	for _, sql := range typematrix.Setup() {
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { must(t, conn.Close(t.Context())) }()
	for _, typ := range typematrix.Types() {
		if !typ.Wire {
			continue
		}
		check := "true"
		if typ.Check != "" {
			check = typ.Check
		}
		if _, err := conn.Exec(t.Context(), fmt.Sprintf("DROP TABLE IF EXISTS one; CREATE TABLE one (v %s CHECK (%s))", typ.SQL, check)); err != nil {
			t.Fatal(err)
		}
		table, err := catalog.Describe(t.Context(), db, "public", "one")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(table.Columns[0].Targets(), ", "); got != typ.Offered {
			t.Errorf("%s may be %s, declared is %s", typ.SQL, got, typ.Offered)
		}
		if typ.As != "" {
			must(t, table.Declare(t.Context(), db, pipeline.Columns{As: map[string]string{"v": typ.As}}, "", nil))
		}
		for _, value := range typematrix.Values() {
			c := matrixCell{Cell: typ.Cell(value), typ: typ, value: value}
			_, err := conn.Exec(t.Context(), "TRUNCATE one; INSERT INTO one VALUES ("+c.SQL+")")
			switch {
			case !c.Declared() || c.SQL == "":
				t.Errorf("%v: there is no declaration, or more than one", c)
			case err != nil && !c.Refused || err == nil && c.Refused && c.Quarantined == 0:
				t.Errorf("%v: Postgres says %v", c, err)
			case err == nil:
				checkWire(t, conn, table.Columns[0], c)
			}
		}
	}
}

// checkWire compares what is sent of the one row.
func checkWire(t *testing.T, conn *pgx.Conn, column catalog.Column, c matrixCell) {
	t.Helper()
	sent := "NULL"
	var reason rowwire.Reason
	rows, err := rowwire.NewTranscoder(rowwire.Layout{Columns: []rowwire.Column{{Name: "v", Kind: column.Kind, Field: 1}}}, nil,
		func(b *rowwire.Batch) (*rowwire.Batch, error) {
			if len(b.Rows[0]) > 0 {
				text, n := protowire.ConsumeBytes(b.Rows[0][1:])
				if n < 0 {
					return nil, protowire.ParseError(n)
				}
				sent = string(text)
			}
			return b, nil
		}, func(r rowwire.Reject) error {
			reason, sent = r.Reason, ""
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.PgConn().CopyTo(t.Context(), rows, "COPY (SELECT "+column.Expr+" FROM one) TO STDOUT (FORMAT binary)"); err != nil {
		t.Fatalf("%v: %v", c, err)
	}
	must(t, rows.Close())
	want := c.Exact
	if c.Same {
		want = "NULL" // the only one that is declared so
	}
	if sent != want || reason != c.Quarantined {
		t.Errorf("%v: sent %q, kept for %q; want %q, %q", c, sent, reason, want, c.Quarantined)
	}
}

// TestColumnNames: a column is carried under its very name, or refused with a remedy.
func TestColumnNames(t *testing.T) {
	t.Parallel()
	for _, capture := range []string{"snapshot", "wal"} {
		t.Run(capture, func(t *testing.T) {
			t.Parallel()
			file := func(table string) string {
				return fmt.Sprintf("pipeline: shop\ndestination: {dataset: shop}\ntables:\n  - {name: %s, capture: {method: %s}}\n", table, capture)
			}
			columns := []string{"id int PRIMARY KEY"}
			var carried []string
			var sql []string
			for i, name := range typematrix.Names() {
				if !name.Refused {
					columns, carried = append(columns, catalog.Quote(name.Column)+" text DEFAULT "+fmt.Sprintf("'value %d'", i)), append(carried, name.Column)
					continue
				}
				sql = append(sql, fmt.Sprintf("CREATE TABLE refused_%d (id int PRIMARY KEY, %s text)", i, catalog.Quote(name.Column)))
			}
			w := newLogicalWorld(t, file("named"), append(sql, "CREATE TABLE named ("+strings.Join(columns, ", ")+")")...)
			w.tick()
			w.exec("INSERT INTO named (id) VALUES (1)")
			w.tick()
			row := w.rows("SELECT `" + strings.Join(carried, "`, `") + "` FROM shop.named")
			at := 0
			for i, name := range typematrix.Names() {
				if !name.Refused {
					if len(row) != 1 || row[0][at] != fmt.Sprintf("value %d", i) {
						t.Errorf("column %q: %v", name.Column, row)
					}
					at++
					continue
				}
				err := w.extractOn(w.with(file(fmt.Sprintf("refused_%d", i))), "")
				if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || !strings.Contains(remedy, "rename") {
					t.Errorf("column %q: %v, remedy %q", name.Column, err, remedy)
				}
			}
		})
	}
}

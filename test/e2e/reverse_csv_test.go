package e2e_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// upload puts an object into the bucket of the world.
func (w *world) upload(name string, data []byte) {
	w.t.Helper()
	ctx := w.t.Context()
	client, err := storage.NewClient(ctx, option.WithEndpoint("http://"+w.storage.Host()+"/storage/v1/"), option.WithoutAuthentication())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { must(w.t, client.Close()) }()
	object := client.Bucket(stagingBucket).Object(name).NewWriter(ctx)
	_, err = object.Write(data)
	if err := errors.Join(err, object.Close()); err != nil {
		w.t.Fatal(err)
	}
}

// exported is what Postgres' own COPY writes of a query as CSV.
func (w *world) exported(query string) []byte {
	w.t.Helper()
	conn, err := w.db.Acquire(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Release()
	var out bytes.Buffer
	if _, err := conn.Conn().PgConn().CopyTo(w.t.Context(), &out, "COPY ("+query+") TO STDOUT (FORMAT csv, HEADER)"); err != nil {
		w.t.Fatal(err)
	}
	return out.Bytes()
}

func csvSync(source, columns string) string {
	return "pipeline: crm\ndestination: {dataset: crm}\nreverse_etl:\n  - {name: file, csv: \"" + source + "\", mode: upsert, target: {table: there, key: {id: id}, columns: {" + columns + "}}}\n"
}

// TestReverseCSV: what Postgres writes as CSV comes back as it was, from Cloud Storage,
// compressed or not, and from a path.
func TestReverseCSV(t *testing.T) {
	t.Parallel()
	const columns = `id, body, n, price, ratio, yes, day, at, doc, words`
	path := filepath.Join(t.TempDir(), "export.csv")
	w := newWorld(t, csvSync("gs://"+stagingBucket+"/exports/{dataset}.csv.gz", "body: body, n: n, price: price, ratio: ratio, yes: yes, day: day, at: at, doc: doc, words: words"), `
		CREATE TABLE here (id int PRIMARY KEY, body text, n bigint, price numeric(20, 4), ratio float8, yes boolean, day date, at timestamptz, doc jsonb, words text[]);
		CREATE TABLE there (LIKE here INCLUDING ALL, kept text DEFAULT 'untouched');
		INSERT INTO here
			SELECT g, CASE g % 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'\\.' WHEN 3 THEN E'a\r\nb\n' WHEN 4 THEN 'say "so", ö' WHEN 5 THEN E'\\N' ELSE ' ' END,
			       CASE WHEN g % 3 > 0 THEN g::bigint * 1000000007 END, g / 8.0, g / 3.0::float8, CASE g % 3 WHEN 0 THEN true WHEN 1 THEN false END,
			       CASE WHEN g % 5 > 0 THEN date '2024-02-29' + g END, CASE WHEN g % 5 > 0 THEN timestamptz '2024-02-29 12:00:00.123456+02' + g * interval '1 minute' END,
			       CASE WHEN g % 4 > 0 THEN jsonb_build_object('a"b', g) END, CASE WHEN g % 4 > 0 THEN ARRAY['x,y', NULL, '', g::text] END
			  FROM generate_series(1, 30000) g`)
	export := w.exported("SELECT *, 'of no column' AS further FROM here")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(export)
	must(t, errors.Join(err, z.Close()))
	w.upload("exports/crm.csv.gz", zipped.Bytes())
	const differing = `SELECT count(*) FROM ((TABLE here EXCEPT SELECT ` + columns + ` FROM there) UNION ALL (SELECT ` + columns + ` FROM there EXCEPT TABLE here)) AS d`
	must(t, w.reverse(""))
	if got := w.value(differing); got != "0" {
		t.Errorf("%s rows differ", got)
	}
	if got := w.value(`SELECT rows_read || ' ' || rows_written || ' ' || rows_rejected FROM tidemark.runs`); got != "30000 30000 0" {
		t.Errorf("run recorded %s", got)
	}

	// By its path, and as Windows would have written it: nothing is left to write.
	if err := os.WriteFile(path, append([]byte("\uFEFF"), export...), 0o600); err != nil {
		t.Fatal(err)
	}
	w.exec(`DELETE FROM there WHERE id <= 10; UPDATE there SET body = 'x', kept = 'mine' WHERE id = 11`)
	w.product = w.with(csvSync(path, "body: body"))
	must(t, w.reverse(""))
	if got := w.value(`SELECT rows_read || ' ' || rows_written FROM tidemark.runs ORDER BY id DESC LIMIT 1`); got != "30000 11" {
		t.Errorf("run recorded %s", got)
	}
	if got := w.value(`SELECT count(*) FROM here JOIN there USING (id) WHERE here.body IS NOT DISTINCT FROM there.body AND (kept = 'untouched' OR id = 11 AND kept = 'mine')`); got != "30000" {
		t.Errorf("%s rows are right", got)
	}
	w.noStaging()
}

// TestReverseCSVRefused: a file that cannot be read as a whole changes nothing, and the
// run says which line of it is wrong, without what stands there.
func TestReverseCSVRefused(t *testing.T) {
	t.Parallel()
	uri := "gs://" + stagingBucket + "/names.csv"
	w := newWorld(t, csvSync(uri, "body: body"), `CREATE TABLE there (id int PRIMARY KEY, body text)`)
	refused := func(want string) {
		t.Helper()
		err := w.reverse("")
		if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v (%s; %s), want %s", err, class, remedy, want)
		}
	}
	refused("looking up " + uri)
	w.upload("names.csv", []byte("id,body\n"+strings.Repeat("1,secret\n", 20_000)+"\"2\nsecret\",\"a\"b\n"))
	refused(uri + `:20003: column "body" goes on after its closing quote`)
	w.upload("names.csv", []byte("id,name\n1,secret\n"))
	refused(`"body"`)
	if got := w.value(`SELECT count(*) || ' ' || (SELECT count(*) FROM tidemark.runs WHERE outcome = 'failed' AND error NOT LIKE '%secret%') FROM there`); got != "0 3" {
		t.Errorf("rows and failed runs: %s", got)
	}
	w.noStaging()

	w.upload("names.csv", []byte("id,body\n1,one\nx,secret\n2,two\n"))
	must(t, w.reverse(""))
	if got := w.value(`SELECT string_agg(body, ' ' ORDER BY id) || ': ' || (SELECT string_agg(row::text, ' ') FROM tidemark.rejects) FROM there`); got != `one two: {"id": "x", "body": "secret"}` {
		t.Errorf("rows and rejects: %s", got)
	}
}

// TestObjectStays: what is written in its place meanwhile is not mixed with what is read.
func TestObjectStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, csvSync("unused.csv", "body: body"), `CREATE TABLE there (id int PRIMARY KEY, body text)`)
	w.upload("x.csv", []byte("old"))
	uri := "gs://" + stagingBucket + "/x.csv"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	object, modified, err := w.product.Warehouse.Object(ctx, uri)
	if err != nil {
		t.Fatal(err)
	}
	w.upload("x.csv", []byte("new"))
	var got bytes.Buffer
	_, err = got.ReadFrom(object)
	must(t, errors.Join(err, object.Close()))
	if got.String() != "old" {
		t.Errorf("read %q", got.String())
	}
	_, later, err := w.product.Warehouse.Object(ctx, uri)
	if err != nil || !later.After(modified) {
		t.Errorf("written at %s, and then at %s: %v", modified, later, err)
	}
	for _, name := range []string{"x.csv", "gs://", "gs://" + stagingBucket, "gs:///x.csv", "gs://" + stagingBucket + "/", uri + "x", "gs://nowhere/x.csv"} {
		_, _, err := w.product.Warehouse.Object(ctx, name)
		if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

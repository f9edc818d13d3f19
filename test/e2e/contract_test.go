package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

const contractFile = `
pipeline: shop
destination: {dataset: shop}
tables:
  - {name: prices, capture: {method: changelog}, columns: {rename: {amount: price}, hash: [mail], exclude: [secret]}}
  - {name: free, capture: {method: changelog}}
`

const pricesSQL = `
	CREATE TABLE prices (id bigint PRIMARY KEY, amount numeric(12,2) NOT NULL, mail text, secret text, tags text[], ok bool, weight float8);
	INSERT INTO prices SELECT n, n, 'mail ' || n, 'x', ARRAY['a'], true, n FROM generate_series(1, 20) n;
	CREATE TABLE free (id bigint PRIMARY KEY, name text);
	INSERT INTO free SELECT n, n FROM generate_series(1, 20) n`

const pricesContract = `[
  {
    "mode": "REQUIRED",
    "name": "id",
    "type": "INTEGER"
  },
  {
    "mode": "NULLABLE",
    "name": "price",
    "type": "NUMERIC"
  },
  {
    "mode": "NULLABLE",
    "name": "mail",
    "type": "STRING"
  },
  {
    "mode": "REPEATED",
    "name": "tags",
    "type": "STRING"
  },
  {
    "mode": "NULLABLE",
    "name": "ok",
    "type": "BOOLEAN"
  },
  {
    "mode": "NULLABLE",
    "name": "weight",
    "type": "FLOAT"
  },
  {
    "description": "generation/position/ordinal in hex; grows with every change of a row",
    "mode": "REQUIRED",
    "name": "_version",
    "type": "STRING"
  },
  {
    "description": "when the row was read from Postgres",
    "mode": "REQUIRED",
    "name": "_synced_at",
    "type": "TIMESTAMP"
  },
  {
    "description": "the row was deleted in Postgres",
    "mode": "REQUIRED",
    "name": "_deleted",
    "type": "BOOLEAN"
  }
]
`

// contracted is a world whose pipeline files, and contracts, are in a folder.
type contracted struct {
	*world
	dir string
}

func newContracted(t *testing.T, file string, sql ...string) contracted {
	t.Helper()
	c := contracted{newWorld(t, file, sql...), t.TempDir()}
	c.write("shop.yaml", file)
	return c
}

func (c contracted) write(name, text string) {
	c.t.Helper()
	must(c.t, os.MkdirAll(filepath.Dir(filepath.Join(c.dir, name)), 0o700))
	must(c.t, os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600))
}

func (c contracted) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

func (c contracted) contract(args ...string) ran {
	c.t.Helper()
	environment := append(os.Environ(), "DATABASE_URL="+c.url, "GOOGLE_CLOUD_PROJECT="+project, "TIDEMARK_PIPELINES="+c.dir)
	return command(c.t, environment, append([]string{"contract"}, args...)...)
}

// deployed is the product with the files as they are.
func (c contracted) deployed() *instance.Connections {
	c.t.Helper()
	out := *c.product
	var err error
	if out.Pipelines, err = pipeline.Load(os.DirFS(c.dir), schemas.PipelineSchema()); err != nil {
		c.t.Fatal(err)
	}
	out.HashKey = []byte("0123456789abcdef0123456789abcdef")
	return &out
}

// TestContract: the command writes it from the live source, as bq would print it; a
// source that no longer fits lands nothing and says why, the other tables go on, and once
// it fits again nothing is lost.
func TestContract(t *testing.T) {
	t.Parallel()
	c := newContracted(t, contractFile, pricesSQL)
	c.contract("-check").contains(t, 0, "shop/prices: no contract")
	c.contract("-pipeline", "shop", "-table", "prices").contains(t, 0, "prices.json: written")
	if diff := cmp.Diff(pricesContract, c.read("bigquery/shop/prices.json")); diff != "" {
		t.Errorf("contract (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "bigquery/shop/free.json")); err == nil {
		t.Error("a contract was written that nobody asked for")
	}
	c.contract("-table", "prices").contains(t, 0, "prices.json: as it was")
	c.contract("-check").contains(t, 0, "shop/prices: fits", "shop/free: no contract")
	must(t, c.extractOn(c.deployed(), ""))
	md, err := c.client.Dataset("shop").Table("prices_log").Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made, err := md.Schema.ToJSONFields()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(flat(pricesContract), flat(string(made))); diff != "" {
		t.Errorf("the table is not what its contract says (-contract +table):\n%s", diff)
	}

	c.exec(`ALTER TABLE prices ADD extra text; ALTER TABLE prices RENAME ok TO fine; ALTER TABLE prices ALTER amount TYPE numeric, ALTER tags TYPE text USING tags::text`)
	c.exec(`INSERT INTO prices (id, amount) VALUES (100, 1); UPDATE prices SET weight = 0 WHERE id = 1; INSERT INTO free VALUES (100, 'new')`)
	refused := []string{
		`bigquery/shop/prices.json:7: column "price" is BIGNUMERIC instead of NUMERIC`,
		`bigquery/shop/prices.json:17: column "tags" is NULLABLE instead of REPEATED`,
		`bigquery/shop/prices.json:22: column "ok" is missing`,
		`bigquery/shop/prices.json: column "fine", NULLABLE BOOL, is not in it`,
		`bigquery/shop/prices.json: column "extra", NULLABLE STRING, is not in it`,
	}
	c.contract("-check").contains(t, 1, refused...)
	for range 2 {
		err = c.extractOn(c.deployed(), "")
		if class, remedy := fault.Classify(err); class != fault.Permanent || !strings.Contains(remedy, "`tidemark contract -pipeline shop -table \"prices\"`") {
			t.Fatalf("%v: remedy %q", err, remedy)
		}
	}
	record := c.value(`SELECT error || ' ' || remedy FROM tidemark.runs WHERE name = 'prices' ORDER BY id DESC LIMIT 1`)
	for _, text := range append(refused, "tidemark contract") {
		if !strings.Contains(record, text) {
			t.Errorf("the run does not say %q: %s", text, record)
		}
	}
	if n := c.count("SELECT COUNT(*) FROM `" + project + ".shop.prices_log`"); n != 20 {
		t.Errorf("%d rows of a source that does not fit", n)
	}
	c.same("shop", "free")

	c.exec(`ALTER TABLE prices DROP extra; ALTER TABLE prices RENAME fine TO ok; ALTER TABLE prices ALTER amount TYPE numeric(12,2), ALTER tags TYPE text[] USING tags::text[]`)
	must(t, c.extractOn(c.deployed(), ""))
	if got := c.count("SELECT COUNTIF(price = id OR id = 100) + COUNTIF(weight = 0 OR id = 100 AND weight IS NULL) FROM `" + project + ".shop.prices`"); got != 23 {
		t.Errorf("rows were lost: %d", got)
	}
}

// flat is what a schema says, a line for each column.
func flat(schema string) []string {
	loaded, err := pipeline.Load(fstest.MapFS{
		"shop.yaml":            {Data: []byte("pipeline: shop\ndestination: {dataset: shop}\ntables: [{name: t, capture: {method: wal}}]\n")},
		"bigquery/shop/t.json": {Data: []byte(schema)},
	}, schemas.PipelineSchema())
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, c := range loaded[0].Tables[0].Contract.Columns {
		out = append(out, strings.Join([]string{c.Name, c.Type, c.Mode, c.Description}, " "))
	}
	return out
}

// TestContractAgreed: a change that the readers agree to is written, and lands; what
// people wrote into the contract stays.
func TestContractAgreed(t *testing.T) {
	t.Parallel()
	c := newContracted(t, `
pipeline: shop
destination: {dataset: shop}
tenants: {query: SELECT name FROM tenants, column: tenant, dataset: "of_{name}"}
tables:
  - {name: docs, key: [id], capture: {method: snapshot}, write: history}
`, `CREATE TABLE tenants (name text); INSERT INTO tenants VALUES ('a'), ('b');
	CREATE TABLE docs (id int PRIMARY KEY, tenant text NOT NULL, body text); INSERT INTO docs VALUES (1, 'a', 'x'), (2, 'b', 'y')`)
	if r := c.contract(); strings.Count(r.out, "\n") != 1 || r.code != 0 {
		t.Errorf("tables of tenants are described once: %+v", r)
	}
	const name = "bigquery/shop/docs.json"
	c.write(name, strings.Replace(c.read(name), `"mode": "NULLABLE",
    "name": "body"`, `"description": "what was <said>", "mode": "NULLABLE", "name": "body"`, 1))
	both := func() {
		for _, tenant := range []string{"a", "b"} {
			must(t, c.extractOn(c.deployed(), `{"tenant":"`+tenant+`"}`))
		}
	}
	both()
	c.exec(`ALTER TABLE docs ADD pages int; UPDATE docs SET pages = 7`)
	if err := c.extractOn(c.deployed(), `{"tenant":"a"}`); err == nil {
		t.Error("a column that no reader knows landed")
	}
	c.contract().contains(t, 0, "docs.json: written")
	if text := c.read(name); !strings.Contains(text, `"what was <said>"`) || !strings.Contains(text, `"pages"`) {
		t.Errorf("contract:\n%s", text)
	}
	both()
	if got := c.count("SELECT SUM(pages) FROM (SELECT pages FROM `" + project + ".of_a.docs` UNION ALL SELECT pages FROM `" + project + ".of_b.docs`)"); got != 14 {
		t.Errorf("%d pages landed, want 14", got)
	}
}

// TestContractOfTheLog: of the tables of a slot, the one that does not fit is left out,
// and the others go on.
func TestContractOfTheLog(t *testing.T) {
	t.Parallel()
	_, url := logicalServer(t)
	file := strings.ReplaceAll(contractFile, "changelog", "wal")
	w := newWorldOn(t, url, file, pricesSQL)
	c := contracted{w, t.TempDir()}
	c.write("shop.yaml", file)
	c.contract().contains(t, 0, "prices.json: written", "free.json: written")
	must(t, c.extractOn(c.deployed(), ""))
	c.exec(`ALTER TABLE prices ADD extra text`)
	c.exec(`UPDATE prices SET amount = amount + 1; UPDATE free SET name = 'more'; INSERT INTO prices (id, amount, extra) VALUES (100, 1, 'e'); DELETE FROM prices WHERE id = 20`)
	if class, _ := fault.Classify(c.extractOn(c.deployed(), "")); class != fault.Permanent {
		t.Error("an error that repeating mends")
	}
	c.same("shop", "free")
	if n := c.count("SELECT COUNTIF(price = id) FROM `" + project + ".shop.prices`"); n != 20 {
		t.Errorf("%d rows are as they were, want 20", n)
	}
	c.exec(`ALTER TABLE prices DROP extra`)
	must(t, c.extractOn(c.deployed(), ""))
	if n := c.count("SELECT COUNTIF(price = id + 1 AND NOT _deleted) + COUNTIF(id = 100) FROM `" + project + ".shop.prices`"); n != 20 {
		t.Errorf("%d rows followed, want 20", n)
	}
}

// TestContractNeeds: what keeps the command from describing a table names the file and
// the line, and the other tables are written.
func TestContractNeeds(t *testing.T) {
	t.Parallel()
	c := newContracted(t, contractFile, pricesSQL, `ALTER TABLE prices DROP CONSTRAINT prices_pkey`)
	c.contract().contains(t, 1, `shop.yaml:5: table "prices"`, "add a primary key", "free.json: written")
	c.contract("-table", "price").contains(t, 1, `there is no table "price"`)
	c.contract("-check", "-out", "x").contains(t, 2, "without -out")
	c.contract("prices").contains(t, 2, "takes 0 to 0 names")
	c.write("shop.yaml", "pipeline: shop\n")
	c.contract().contains(t, 1, `shop.yaml:1: the file has no "destination"`)
}

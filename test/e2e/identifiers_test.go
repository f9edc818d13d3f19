package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/api/iterator"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// A schema and a type of Postgres.
const (
	hostileSchema = `sch"ema'; DROP TABLE public.victim; --`
	hostileType   = `ty'p"e; --`
)

// The columns that name a row, are its cursor and its partition, and have it refused.
const (
	hostileKey    = `i"d; DROP TABLE public.victim; --`
	hostileSecond = `it's`
	hostileCursor = `when?`
	hostileDay    = `d.a/y`
	hostileNumber = `nu"m\`
)

// renamed are names of columns that BigQuery does not allow, and what carries them.
func renamed() map[string]string {
	return map[string]string{
		hostileKey: "the 'id'", hostileCursor: "when", hostileDay: "day of it", hostileNumber: "num",
		"a`b": "a'b", "`; DROP TABLE `victim.rows`; --": "drop", "a.b": "a b 2", `back\slash`: "back slash", "new\nline": "new line", "a\ttab": "a tab",
		"{dataset}": "dataset", "$1": "one", "%(x)s": "x", "🙂": "smile", `"`: "quote", "``": "backticks", "_version": "the version", "_PARTITIONTIME": "partition time",
		"ok?": "ok", "]]>*/": "end", "/*": "begin", "$$": "dollars", "$body$": "body", "'); SELECT pg_sleep(10); --": "sleep", `\'`: "escaped", "GRÖßE": "in capitals",
		"a]": "subscript",
	}
}

// allowed are names of columns that are carried as they are.
func allowed() []string {
	return []string{
		hostileSecond, "select", "from", "GROUP", "user", "a b", "' OR 1=1 --", "größe", "数量", "नाम", "100%s %d%n", "a:b<c>d#e|f&g=h+i", "2nd", "UserId",
		strings.Repeat("é", 31) + "x", "column_3", "k0", "k1", "gone", "changed", "t", "v", "s", "n", "d", "row", "action", "lsn", "_staging", "-", "#", "null", "--", "<<",
	}
}

// landedAs is the name of a column in BigQuery.
func landedAs(name string) string {
	if to, ok := renamed()[name]; ok {
		return to
	}
	return name
}

// hostileColumns are all columns, in one order.
func hostileColumns() []string {
	return append(allowed(), slices.Sorted(maps.Keys(renamed()))...)
}

func pgName(names ...string) string { return pgx.Identifier(names).Sanitize() }

// bqName quotes a name that has no backtick and no backslash.
func bqName(names ...string) string { return "`" + strings.Join(names, ".") + "`" }

// hostile is a table with hostile names.
type hostile struct {
	source       string // its name in Postgres
	name         string // and in BigQuery
	method, mode string
	deletes      bool // rows of it are deleted, and keys changed
}

func (h hostile) sql() string { return pgName(hostileSchema, h.source) }

// create makes the table with some rows, whose values are hostile, too.
func (h hostile) create(w *world) {
	w.t.Helper()
	var columns []string
	for _, name := range hostileColumns() {
		columns = append(columns, pgName(name)+" "+map[string]string{
			hostileKey: "bigint NOT NULL", hostileSecond: pgName(hostileSchema, hostileType) + " NOT NULL", hostileCursor: "timestamptz NOT NULL DEFAULT clock_timestamp()", hostileDay: "date", hostileNumber: "numeric",
		}[name])
		if last := len(columns) - 1; strings.HasSuffix(columns[last], " ") {
			columns[last] += "text"
		}
	}
	w.exec(fmt.Sprintf("CREATE TABLE %s (%s, PRIMARY KEY (%s, %s))", h.sql(), strings.Join(columns, ", "), pgName(hostileKey), pgName(hostileSecond)))
	w.exec(fmt.Sprintf("CREATE INDEX ON %s (%s, %s, %s)", h.sql(), pgName(hostileCursor), pgName(hostileKey), pgName(hostileSecond)))
	h.insert(w, 1, 12)
}

// hostileValues have something in them that ends a string somewhere.
const hostileValues = `E'\'; DROP TABLE public.victim; -- "` + "`" + `\\ \n {dataset} $1 %s ' || n`

func (h hostile) insert(w *world, from, to int) {
	w.t.Helper()
	var names, values []string
	for _, name := range hostileColumns() {
		value := map[string]string{hostileKey: "n", hostileSecond: hostileValues, hostileCursor: "clock_timestamp()", hostileDay: "date '2026-10-01' + n", hostileNumber: "n"}[name]
		if value == "" {
			value = hostileValues
		}
		names, values = append(names, pgName(name)), append(values, value)
	}
	w.exec(fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM generate_series(%d, %d) n", h.sql(), strings.Join(names, ", "), strings.Join(values, ", "), from, to))
}

// write changes rows in every way that the method sees.
func (h hostile) write(w *world) {
	w.t.Helper()
	key, cursor := pgName(hostileKey), pgName(hostileCursor)
	h.insert(w, 21, 23)
	w.exec(fmt.Sprintf("UPDATE %s SET %s = '\\', %s = NULL, %s = clock_timestamp() WHERE %s IN (2, 3)", h.sql(), pgName("new\nline"), pgName("' OR 1=1 --"), cursor, key))
	if h.deletes {
		w.exec(fmt.Sprintf("DELETE FROM %s WHERE %s IN (4, 5)", h.sql(), key))
		w.exec(fmt.Sprintf("UPDATE %s SET %s = 100 WHERE %s = 6", h.sql(), key, key))
	}
}

// declared is the table in the pipeline file.
func (h hostile) declared() map[string]any {
	out := map[string]any{
		"name": h.name, "key": []string{hostileKey, hostileSecond}, "write": h.mode, "columns": map[string]any{"rename": renamed()},
		"partition_by": map[string]any{"column": landedAs(hostileDay), "granularity": "month"}, "cluster_by": []string{"select", "a'b", hostileSecond},
	}
	capture := map[string]any{"method": h.method}
	if h.method == "watermark" {
		capture["cursor"] = hostileCursor
	}
	out["capture"] = capture
	switch h.mode {
	case "cdc":
		out["max_staleness"], out["deletes"] = "0s", "hard"
	case "append", "merge":
		out["deletes"] = "hard"
	}
	if h.source == h.name {
		return out
	}
	// Another name: by a query, which names its columns itself.
	var columns []string
	for _, name := range hostileColumns() {
		columns = append(columns, pgName(name)+" AS "+pgName(landedAs(name)))
	}
	delete(out, "columns")
	out["key"], capture["cursor"] = []string{landedAs(hostileKey), hostileSecond}, landedAs(hostileCursor)
	out["query"] = "SELECT " + strings.Join(columns, ", ") + " FROM " + pgName(h.source)
	out["also_changed_by"] = []map[string]any{{
		"table": h.source, "capture": map[string]any{"method": "changelog"}, "keys": "SELECT * FROM {changed} AS " + pgName("changed"),
	}}
	return out
}

// same fails unless BigQuery has the rows of Postgres, by their keys.
func (h hostile) same(w *world, after string) {
	w.t.Helper()
	var sides [2][]string
	names := hostileColumns()
	for i, name := range names {
		names[i] = "coalesce(" + pgName(name) + "::text, 'NULL')"
		if name == hostileCursor {
			names[i] = "''"
		}
	}
	rows, err := w.db.Query(w.t.Context(), fmt.Sprintf("SELECT concat_ws(' | ', %s) FROM %s WHERE %s IS DISTINCT FROM 'NaN'", strings.Join(names, ", "), h.sql(), pgName(hostileNumber)))
	if err != nil {
		w.t.Fatal(err)
	}
	if sides[0], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		w.t.Fatal(err)
	}
	names = hostileColumns()
	for i, name := range names {
		names[i] = "COALESCE(CAST(" + bqName(landedAs(name)) + " AS STRING), 'NULL')"
		if name == hostileCursor {
			names[i] = "''"
		}
	}
	from := bqName(project, "shop", h.name)
	if h.mode == "history" {
		from = "(" + newestOf(from, bqName(landedAs(hostileKey))+", "+bqName(hostileSecond)) + ")"
	}
	for _, row := range w.rows(fmt.Sprintf("SELECT CONCAT(%s) FROM %s AS it WHERE NOT _deleted", strings.Join(names, ", ' | ', "), from)) {
		sides[1] = append(sides[1], fmt.Sprint(row[0]))
	}
	slices.Sort(sides[0])
	slices.Sort(sides[1])
	if diff := cmp.Diff(sides[0], sides[1]); diff != "" || len(sides[0]) == 0 {
		w.t.Errorf("%s by %s into %s after %s (-Postgres +BigQuery):\n%s", h.name, h.method, h.mode, after, diff)
	}
}

// objects is what there is in Postgres but the control plane, and what the victim holds.
func (w *world) objects() string {
	w.t.Helper()
	return w.value(`SELECT string_agg(o, E'\n' ORDER BY o) FROM (
		SELECT n.nspname || ' ' || c.relname || ' ' || c.relkind::text || ' ' || (SELECT string_agg(attname || ' ' || atttypid::regtype::text || attnum, ', ' ORDER BY attnum) FROM pg_attribute a WHERE attrelid = c.oid) AS o
		  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname NOT IN ('tidemark', 'pg_toast', 'pg_catalog', 'information_schema')
		UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname <> 'tidemark'
		UNION ALL SELECT 'function ' || proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname NOT IN ('tidemark', 'pg_catalog', 'information_schema')
		UNION ALL SELECT 'role ' || rolname || rolsuper::text FROM pg_roles WHERE rolname NOT LIKE 'pg\_%' AND rolname = current_user
		UNION ALL SELECT 'victim ' || id FROM public.victim) AS s`)
}

// datasets are the tables of BigQuery, by dataset.
func (w *world) datasets() []string {
	w.t.Helper()
	var out []string
	for it := w.client.Datasets(w.t.Context()); ; {
		d, err := it.Next()
		if errors.Is(err, iterator.Done) {
			slices.Sort(out)
			return out
		}
		if err != nil {
			w.t.Fatal(err)
		}
		for tables := d.Tables(w.t.Context()); ; {
			t, err := tables.Next()
			if errors.Is(err, iterator.Done) {
				break
			}
			if err != nil {
				w.t.Fatal(err)
			}
			out = append(out, t.DatasetID+"."+t.TableID)
		}
	}
}

// victims makes a table on either side that nothing declares.
func (w *world) victims() {
	w.t.Helper()
	w.exec(`CREATE TABLE public.victim (id int); INSERT INTO public.victim SELECT generate_series(1, 5)`)
	must(w.t, w.client.Dataset("victim").Create(w.t.Context(), &bigquery.DatasetMetadata{}))
	w.rows("CREATE TABLE victim.rows AS SELECT 5 AS n")
}

// file is a pipeline file, in the part of YAML that is JSON.
func file(t *testing.T, pipeline map[string]any) string {
	t.Helper()
	text, err := json.Marshal(pipeline)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hostileTables are one for each capture method and write mode.
func hostileTables() []hostile {
	names := []string{
		"select", "my table", "Größe 01", "数量", "ग्राहक", "a‿b", "user-data", "ORDER", "order", "2024", "_hidden", "é" + strings.Repeat("x", 61), "--", "null", "T", "view",
	}
	var out []hostile
	for _, method := range []string{"watermark", "changelog", "wal", "snapshot"} {
		for _, mode := range []string{"append", "merge", "cdc", "history"} {
			out = append(out, hostile{name: names[len(out)], source: names[len(out)], method: method, mode: mode, deletes: method != "watermark"})
		}
	}
	return append(out, hostile{name: "all", source: "all", method: "snapshot", mode: "replace", deletes: true}, hostile{name: "of a query", source: `ta"ble'; DROP TABLE victim; --` + "`\\\n", method: "watermark", mode: "append", deletes: true})
}

// TestHostileIdentifiers: names are carried through every capture method and write mode,
// as they are or renamed, and nothing else happens on either side.
func TestHostileIdentifiers(t *testing.T) {
	t.Parallel()
	tables := hostileTables()
	declared := make([]map[string]any, len(tables))
	for i, h := range tables {
		declared[i] = h.declared()
	}
	w := newLogicalWorld(t, file(t, map[string]any{
		"pipeline": "shop", "source": map[string]any{"schema": hostileSchema}, "destination": map[string]any{"dataset": "shop"}, "tables": declared,
		"dedup": map[string]any{"every": "1h"},
	}))
	w.victims()
	w.exec("CREATE SCHEMA " + pgName(hostileSchema))
	w.exec("CREATE DOMAIN " + pgName(hostileSchema, hostileType) + " AS text")
	want := []string{"victim.rows"}
	for _, h := range tables {
		h.create(w)
		want = append(want, "shop."+h.name)
		if behind := map[string]string{"append": "_log", "merge": "_staging"}[h.mode]; behind != "" {
			want = append(want, "shop."+h.name+behind)
		}
	}
	before := w.objects()
	check := func(after string) {
		t.Helper()
		for _, h := range tables {
			h.same(w, after)
		}
	}
	w.tick()
	check("the first sight")
	for _, h := range tables {
		h.write(w)
	}
	w.tick()
	check("changes")
	must(t, w.extractOn(w.product, `{"full":true}`))
	check("a resync")
	w.dedup("")
	check("a clean-up")

	poisoned := 0
	for _, h := range tables {
		if h.method != "snapshot" {
			poisoned++
			w.exec(fmt.Sprintf("UPDATE %s SET %s = 'NaN', %s = clock_timestamp() WHERE %s = 7", h.sql(), pgName(hostileNumber), pgName(hostileCursor), pgName(hostileKey)))
		}
	}
	w.tick()
	if got := w.value(`SELECT count(DISTINCT name) FROM tidemark.rejects WHERE row->>$1 = '7' OR row->>$2 = '7'`, hostileKey, landedAs(hostileKey)); got != strconv.Itoa(poisoned) {
		t.Errorf("%s tables have kept the row that cannot be carried, want %d", got, poisoned)
	}
	for _, h := range tables {
		w.exec(fmt.Sprintf("UPDATE %s SET %s = 7, %s = clock_timestamp() WHERE %s = 7", h.sql(), pgName(hostileNumber), pgName(hostileCursor), pgName(hostileKey)))
	}
	w.tick()
	check("a row that was refused")

	if diff := cmp.Diff(before, w.objects()); diff != "" {
		t.Errorf("something else happened in Postgres (-before +after):\n%s", diff)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, w.datasets()); diff != "" {
		t.Errorf("tables of BigQuery (-want +got):\n%s", diff)
	}
	if n := w.count("SELECT n FROM victim.rows"); n != 5 {
		t.Errorf("the victim has %d", n)
	}
}

// TestHostileNamesAreRefused where BigQuery has no place for them, by name and with the
// way out, and the other tables go on.
func TestHostileNamesAreRefused(t *testing.T) {
	t.Parallel()
	var names []string
	for from := range renamed() {
		if from != hostileKey && from != hostileSecond && from != hostileDay && from != hostileNumber && from != hostileCursor {
			names = append(names, from)
		}
	}
	slices.Sort(names)
	declared := []map[string]any{{"name": "fine", "capture": map[string]any{"method": "snapshot"}}}
	sql := []string{`CREATE TABLE fine (id int PRIMARY KEY, "größe" text)`, `INSERT INTO fine VALUES (1, 'x')`}
	for i, name := range names {
		table := "t" + strconv.Itoa(i)
		declared = append(declared, map[string]any{"name": table, "capture": map[string]any{"method": "snapshot"}})
		sql = append(sql, fmt.Sprintf(`CREATE TABLE %s (id int PRIMARY KEY, "größe" text, %s text)`, table, pgName(name)))
	}
	w := newWorld(t, file(t, map[string]any{"pipeline": "shop", "destination": map[string]any{"dataset": "shop"}, "tables": declared}), sql...)
	err := w.extractOn(w.product, "")
	if class, _ := fault.Classify(err); class != fault.Permanent {
		t.Errorf("%v is %v", err, class)
	}
	w.same("shop", "fine")
	for i, name := range names {
		got := w.value(`SELECT error || ' ' || remedy FROM tidemark.runs WHERE name = $1 AND outcome = 'failed'`, "t"+strconv.Itoa(i))
		if !strings.Contains(got, fmt.Sprintf("column %q", name)) || !strings.Contains(got, "rename") {
			t.Errorf("the run of a table with the column %q says %s", name, got)
		}
	}
	if diff := cmp.Diff([]string{"shop.fine", "shop.fine_log"}, w.datasets()); diff != "" {
		t.Errorf("tables of BigQuery (-want +got):\n%s", diff)
	}
}

// TestHostileTenants: values and names of tenants end nothing.
func TestHostileTenants(t *testing.T) {
	t.Parallel()
	const column = `te"nant'; DROP TABLE public.victim; --`
	for _, method := range []string{"changelog", "snapshot"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, file(t, map[string]any{
				"pipeline": "shop", "destination": map[string]any{"dataset": "shop"},
				"tenants": map[string]any{"query": `SELECT id AS "i d", slug FROM tenants`, "column": column, "dataset": "of_{slug}"},
				"tables":  []map[string]any{{"name": "my docs", "capture": map[string]any{"method": method}, "columns": map[string]any{"rename": map[string]string{column: "tenant"}}}},
			}), fmt.Sprintf(`CREATE TABLE tenants (id text, slug text);
				INSERT INTO tenants VALUES ('x''; DROP TABLE public.victim; --', 'a'), ('\'' OR 1=1 --', 'b'), ('{slug}', 'c'), ('bad', 'b.d'), ('worse', '`+"`"+`; DROP');
				CREATE TABLE "my docs" (id int PRIMARY KEY, %[1]s text NOT NULL, body text);
				INSERT INTO "my docs" SELECT row_number() OVER (), id, slug FROM tenants, generate_series(1, 3)`, pgName(column)))
			w.victims()
			before := w.objects()
			each := func() {
				t.Helper()
				if err := w.extractOn(w.product, ""); err == nil {
					t.Error("tenants without a name for a dataset were taken")
				}
				for _, id := range []string{`x'; DROP TABLE public.victim; --`, `\' OR 1=1 --`, `{slug}`} {
					message, err := json.Marshal(map[string]any{"tenant": id})
					must(t, err)
					must(t, w.extractOn(w.product, string(message)))
				}
			}
			each()
			w.exec(`UPDATE "my docs" SET body = body || '!'; DELETE FROM "my docs" WHERE id % 3 = 0`)
			each()
			for _, slug := range []string{"a", "b", "c"} {
				if got := w.count("SELECT COUNTIF(body = '" + slug + "!' AND NOT _deleted) FROM `" + project + ".of_" + slug + ".my docs`"); got != 2 {
					t.Errorf("tenant %s has %d rows, want 2", slug, got)
				}
			}
			if diff := cmp.Diff(before, w.objects()); diff != "" {
				t.Errorf("something else happened in Postgres (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"of_a.my docs", "of_a.my docs_log", "of_b.my docs", "of_b.my docs_log", "of_c.my docs", "of_c.my docs_log", "victim.rows"}, w.datasets()); diff != "" {
				t.Errorf("tables of BigQuery (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHostileReverse: tables and columns of Postgres, and columns of the query, are
// named as they are in either mode.
func TestHostileReverse(t *testing.T) {
	t.Parallel()
	const target = `tar"get'; DROP TABLE public.victim; --` + "`\\\n"
	columns, selected := map[string]string{}, []string{"id AS " + bqName("the 'id'")}
	var defined []string
	for i, name := range hostileColumns() {
		if name == hostileKey {
			continue
		}
		from := landedAs(name)
		columns[from] = name
		selected = append(selected, fmt.Sprintf("CONCAT('it\\'s `%d` \\\\ \\n \"', CAST(id AS STRING)) AS %s", i, bqName(from)))
		defined = append(defined, pgName(name)+" text")
	}
	sync := func(name, mode, rows string) map[string]any {
		return map[string]any{
			"name": name, "mode": mode, "query": "SELECT " + strings.Join(selected, ", ") + " FROM UNNEST(GENERATE_ARRAY(" + rows + ")) AS id",
			"target": map[string]any{"table": target, "key": map[string]string{"the 'id'": hostileKey}, "columns": columns},
		}
	}
	w := newWorld(t, file(t, map[string]any{
		"pipeline": "shop", "source": map[string]any{"schema": hostileSchema}, "destination": map[string]any{"dataset": "shop"},
		"reverse_etl": []map[string]any{sync("updates", "update", "1, 5"), sync("upserts", "upsert", "4, 9")},
	}), "CREATE SCHEMA "+pgName(hostileSchema), fmt.Sprintf("CREATE TABLE %s (%s bigint PRIMARY KEY CHECK (%[2]s <> 9), untouched text DEFAULT 'as it was', %s)", pgName(hostileSchema, target), pgName(hostileKey), strings.Join(defined, ", ")))
	w.victims()
	w.exec(fmt.Sprintf("INSERT INTO %s (%s) SELECT generate_series(1, 6)", pgName(hostileSchema, target), pgName(hostileKey)))
	before := w.objects()
	must(t, w.reverse(`{"sync":"updates","dry_run":true}`))
	must(t, w.reverse(`{"sync":"updates"}`))
	must(t, w.reverse(`{"sync":"upserts"}`))
	var conditions []string
	for i, name := range hostileColumns() {
		if name != hostileKey {
			conditions = append(conditions, fmt.Sprintf(`%s = E'it\'s `+"`%d`"+` \\ \n "' || %s`, pgName(name), i, pgName(hostileKey)))
		}
	}
	got := w.value(fmt.Sprintf("SELECT string_agg(%s::text, ' ' ORDER BY %[1]s) FROM %s WHERE untouched = 'as it was' AND %s", pgName(hostileKey), pgName(hostileSchema, target), strings.Join(conditions, " AND ")))
	if got != "1 2 3 4 5 6 7 8" {
		t.Errorf("the rows %s are as the query has them, want 1 to 8", got)
	}
	if got := w.value(`SELECT string_agg(row->>$1, ' ') FROM tidemark.rejects`, hostileKey); got != "9" {
		t.Errorf("the rows %s were refused, want 9", got)
	}
	if diff := cmp.Diff(before, w.objects()); diff != "" {
		t.Errorf("something else happened in Postgres (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"victim.rows"}, w.datasets()); diff != "" {
		t.Errorf("tables of BigQuery (-want +got):\n%s", diff)
	}
}

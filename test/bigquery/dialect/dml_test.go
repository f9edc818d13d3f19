package dialect

import (
	"database/sql"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func dmlFixture(t *testing.T) *sql.Conn {
	t.Helper()
	conn := newDuckDB(t)
	exec(t, conn, `CREATE TABLE target (id BIGINT, v VARCHAR DEFAULT 'dv', n DECIMAL(38, 9), big VARCHAR, f DOUBLE)`)
	exec(t, conn, `INSERT INTO target VALUES (1, 'a', 1, '1', 1), (2, 'b', 2, '2', 2), (3, NULL, NULL, NULL, NULL)`)
	exec(t, conn, `CREATE TABLE source (id BIGINT, v VARCHAR)`)
	exec(t, conn, `INSERT INTO source VALUES (2, 'B'), (4, 'D')`)
	return conn
}

// change runs a DML statement as a server does and returns the table after it,
// or the message of the guard that stopped it.
func change(t *testing.T, conn *sql.Conn, statement string) string {
	t.Helper()
	out, err := TranslateStatement(statement, testOptions())
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	for _, g := range out.Guards {
		rows, err := fetch(t.Context(), conn, g.SQL)
		if err != nil {
			t.Fatalf("guard of %s: %v", statement, err)
		}
		if rows != "" {
			return g.Message
		}
	}
	exec(t, conn, out.SQL)
	rows, err := fetch(t.Context(), conn, "SELECT id, v, n, big, f FROM target ORDER BY id, v")
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestChanges(t *testing.T) {
	t.Parallel()
	const once = "UPDATE/MERGE must match at most one source row for each target row"
	for _, tc := range []struct{ statement, want string }{
		{"DELETE FROM target WHERE id = 1", "2|b|2|2|2;3|NULL|NULL|NULL|NULL"},
		{"DELETE d.target AS x WHERE x.v IS NULL OR x.id IN (SELECT id FROM source)", "1|a|1|1|1"},
		{"DELETE FROM `p.d.target` x WHERE EXISTS (SELECT 1 FROM target AS y WHERE y.id > x.id)", "3|NULL|NULL|NULL|NULL"},
		{"TRUNCATE TABLE target", ""},
		{"UPDATE target SET v = 'x', n = id + 1, big = id, f = id WHERE id = 2", "1|a|1|1|1;2|x|3|2|2;3|NULL|NULL|NULL|NULL"},
		{"UPDATE target AS x SET x.v = CONCAT(x.v, '!'), n = 1.5, big = NUMERIC '2.50' WHERE TRUE", "1|a!|1.5|2.5|1;2|b!|1.5|2.5|2;3|NULL|1.5|2.5|NULL"},
		{"UPDATE target x SET v = s.v, f = DEFAULT FROM source AS s WHERE x.id = s.id", "1|a|1|1|1;2|B|2|2|NULL;3|NULL|NULL|NULL|NULL"},
		{"UPDATE target x SET v = s.v FROM (SELECT 2 AS id, 'p' AS v UNION ALL SELECT 2, 'q') AS s WHERE x.id = s.id", once},
		{"INSERT INTO target (id, n, big, v) VALUES (4, 1, 12, DEFAULT), (5, 2.5, 0.5, 'e')", "1|a|1|1|1;2|b|2|2|2;3|NULL|NULL|NULL|NULL;4|dv|1|12|NULL;5|e|2.5|0.5|NULL"},
		{"INSERT target SELECT id + 10, v, id, id, id FROM source WHERE id = 4", "1|a|1|1|1;2|b|2|2|2;3|NULL|NULL|NULL|NULL;14|D|4|4|4"},
		{"INSERT INTO target (id, v) WITH s AS (SELECT 9 AS id) SELECT id, NULL FROM s", "1|a|1|1|1;2|b|2|2|2;3|NULL|NULL|NULL|NULL;9|NULL|NULL|NULL|NULL"},
		{"MERGE target AS x USING source AS s ON x.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v) WHEN NOT MATCHED BY SOURCE AND x.id = 1 THEN DELETE", "2|B|2|2|2;3|NULL|NULL|NULL|NULL;4|D|NULL|NULL|NULL"},
		{"MERGE INTO target x USING (SELECT 2 AS id, 'p' AS v UNION ALL SELECT 2, 'q') AS s ON x.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v", once},
		{"MERGE INTO target x USING (SELECT 2 AS id, 'p' AS v UNION ALL SELECT 2, 'q') AS s ON x.id = s.id WHEN MATCHED AND s.v = 'q' THEN DELETE", "1|a|1|1|1;3|NULL|NULL|NULL|NULL"},
		{"MERGE target USING (SELECT 7 AS id, 'g' AS v, 1 AS n, 2 AS big, 3 AS f) ON FALSE WHEN NOT MATCHED THEN INSERT ROW WHEN NOT MATCHED BY SOURCE THEN UPDATE SET v = 'gone'", "1|gone|1|1|1;2|gone|2|2|2;3|gone|NULL|NULL|NULL;7|g|1|2|3"},
		{"MERGE target x USING source s ON x.id = s.id WHEN MATCHED AND s.v = 'zz' THEN DELETE WHEN MATCHED THEN UPDATE SET f = 1 / 2", "1|a|1|1|1;2|b|2|2|0.5;3|NULL|NULL|NULL|NULL"},
	} {
		t.Run(tc.statement, func(t *testing.T) {
			t.Parallel()
			conn := dmlFixture(t)
			if diff := cmp.Diff(tc.want, change(t, conn, tc.statement)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

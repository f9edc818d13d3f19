package dialect

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		sql  string
		want Statement
	}{
		{"SELECT 1 ;", Statement{Kind: "SELECT", Body: "SELECT 1"}},
		{"INSERT INTO `p.d.t` (a) VALUES (1)", Statement{Kind: "INSERT", Target: [3]string{"p", "d", "t"}}},
		{"UPDATE d.t SET a = 1 WHERE TRUE", Statement{Kind: "UPDATE", Target: [3]string{"", "d", "t"}}},
		{"DELETE t WHERE TRUE", Statement{Kind: "DELETE", Target: [3]string{"", "", "t"}}},
		{"MERGE my-project-1.d.t USING s ON FALSE WHEN NOT MATCHED THEN INSERT ROW", Statement{Kind: "MERGE", Target: [3]string{"my-project-1", "d", "t"}}},
		{"TRUNCATE TABLE `p`.`d`.`t`", Statement{Kind: "TRUNCATE_TABLE", Target: [3]string{"p", "d", "t"}}},
		{"CREATE OR REPLACE VIEW `p.d.v` OPTIONS (description = 'x') AS\nSELECT a FROM d.t -- end", Statement{Kind: "CREATE_VIEW", Target: [3]string{"p", "d", "v"}, Body: "SELECT a FROM d.t", OrReplace: true, Options: map[string]string{"description": "'x'"}}},
		{"CREATE VIEW IF NOT EXISTS d.v (a, b) AS (SELECT 1, 2);", Statement{Kind: "CREATE_VIEW", Target: [3]string{"", "d", "v"}, Body: "(SELECT 1, 2)", IfNotExists: true, Columns: []ColumnDef{{Name: "a"}, {Name: "b"}}}},
		{
			"CREATE TABLE d.t (id INT64 NOT NULL OPTIONS (description = 'key'), n NUMERIC(10, 2) DEFAULT 1 + 1, tags ARRAY<STRUCT<a STRING, b ARRAY<INT64>>>, PRIMARY KEY (id) NOT ENFORCED) PARTITION BY TIMESTAMP_TRUNC(ts, MONTH) CLUSTER BY id, n OPTIONS (max_staleness = INTERVAL 10 MINUTE)",
			Statement{
				Kind: "CREATE_TABLE", Target: [3]string{"", "d", "t"}, PrimaryKey: []string{"id"}, PartitionBy: "TIMESTAMP_TRUNC(ts, MONTH)", ClusterBy: []string{"id", "n"},
				Options: map[string]string{"max_staleness": "INTERVAL 10 MINUTE"},
				Columns: []ColumnDef{
					{Name: "id", Type: "INT64", NotNull: true, Options: map[string]string{"description": "'key'"}},
					{Name: "n", Type: "NUMERIC(10, 2)", Default: "1 + 1"},
					{Name: "tags", Type: "ARRAY<STRUCT<a STRING, b ARRAY<INT64>>>"},
				},
			},
		},
		{"CREATE OR REPLACE TABLE d.t CLUSTER BY a AS SELECT 1 AS a", Statement{Kind: "CREATE_TABLE_AS_SELECT", Target: [3]string{"", "d", "t"}, OrReplace: true, ClusterBy: []string{"a"}, Body: "SELECT 1 AS a"}},
		{"DROP TABLE IF EXISTS d.t", Statement{Kind: "DROP_TABLE", Target: [3]string{"", "d", "t"}, IfExists: true}},
		{"DROP VIEW d.v", Statement{Kind: "DROP_VIEW", Target: [3]string{"", "d", "v"}}},
		{"CREATE SCHEMA IF NOT EXISTS `p.d`", Statement{Kind: "CREATE_SCHEMA", Target: [3]string{"p", "d", ""}, IfNotExists: true}},
		{"DROP SCHEMA d CASCADE", Statement{Kind: "DROP_SCHEMA", Target: [3]string{"", "d", ""}, Cascade: true}},
		{"ALTER TABLE d.t SET OPTIONS (max_staleness = INTERVAL 1 MINUTE)", Statement{Kind: "ALTER_TABLE", Target: [3]string{"", "d", "t"}, Options: map[string]string{"max_staleness": "INTERVAL 1 MINUTE"}}},
		{"ALTER TABLE IF EXISTS d.t RENAME TO u", Statement{Kind: "ALTER_TABLE", Target: [3]string{"", "d", "t"}, IfExists: true, Rename: "u"}},
		{"ALTER TABLE t ADD PRIMARY KEY (a, b) NOT ENFORCED", Statement{Kind: "ALTER_TABLE", Target: [3]string{"", "", "t"}, PrimaryKey: []string{"a", "b"}}},
		{"ALTER TABLE t ALTER COLUMN a SET DATA TYPE NUMERIC, ALTER COLUMN b DROP NOT NULL", Statement{Kind: "ALTER_TABLE", Target: [3]string{"", "", "t"}, Retyped: []ColumnDef{{Name: "a", Type: "NUMERIC"}}, Relaxed: []string{"b"}}},
		{"ALTER TABLE d.t ADD COLUMN IF NOT EXISTS a INT64, ADD COLUMN b STRING", Statement{Kind: "ALTER_TABLE", Target: [3]string{"", "d", "t"}, IfNotExists: true, Columns: []ColumnDef{{Name: "a", Type: "INT64"}, {Name: "b", Type: "STRING"}}}},
	} {
		got, err := Describe(tc.sql)
		if err != nil {
			t.Errorf("%s: %v", tc.sql, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s\n%s", tc.sql, diff)
		}
	}
}

func TestDescribeRefuses(t *testing.T) {
	t.Parallel()
	for sql, name := range map[string]string{
		"CREATE FUNCTION f() AS (1)":                "CREATE FUNCTION",
		"CREATE MATERIALIZED VIEW v AS SELECT 1":    "CREATE MATERIALIZED",
		"DROP INDEX i":                              "DROP INDEX",
		"ALTER TABLE t DROP COLUMN a":               "ALTER TABLE DROP COLUMN",
		"ALTER TABLE t RENAME COLUMN a TO b":        "ALTER TABLE RENAME COLUMN",
		"ALTER TABLE t ALTER a SET DATA TYPE INT64": "ALTER TABLE ALTER A",
		"CREATE TABLE t LIKE u":                     "CREATE TABLE LIKE",
		"EXPORT DATA OPTIONS () AS SELECT 1":        "statement EXPORT",
	} {
		_, err := Describe(sql)
		var u *Unsupported
		if !errors.As(err, &u) || u.Name != name {
			t.Errorf("%s: %v; want %q refused", sql, err, name)
		}
	}
}

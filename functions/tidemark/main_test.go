package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// TestUsage: what was asked for goes to the output, what is wrong to the errors, and the
// exit code tells them apart.
func TestUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("pipeline: shop\ndestination: {dataset: shop}\ntables: [{name: a.b, capture: {method: snapshot}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args     []string
		code     int
		out, err string
	}{
		"nothing":         {nil, 2, "", "tidemark retry [-tenant T] PIPELINE [TABLE]"},
		"help":            {[]string{"help"}, 0, "tidemark contract [-pipeline P]", ""},
		"-h":              {[]string{"-h"}, 0, "DATABASE_URL", ""},
		"unknown":         {[]string{"synch"}, 2, "", `there is no command "synch"; see tidemark help`},
		"a command's":     {[]string{"rejects", "-h"}, 0, "", "-rows"},
		"no pipeline":     {[]string{"retry"}, 2, "", "takes 1 to 2 names"},
		"too many":        {[]string{"run", "a", "b", "c"}, 2, "", `got ["a" "b" "c"]`},
		"unknown flag":    {[]string{"resync", "-now", "shop"}, 2, "", "-now"},
		"a flag too late": {[]string{"rejects", "shop", "t", "-rows"}, 2, "", `got ["shop" "t" "-rows"]`},
		"configuration":   {[]string{"run"}, 1, "", "a.yaml:3: table \"a.b\" has a name that BigQuery does not allow"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			tool := tool{out: &out, err: &errs, getenv: func(name string) string {
				return map[string]string{"TIDEMARK_PIPELINES": dir, "FUNCTION_TARGET": "Extract"}[name]
			}}
			if code := tool.main(t.Context(), test.args); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for got, want := range map[*bytes.Buffer]string{&out: test.out, &errs: test.err} {
				if !strings.Contains(got.String(), want) || want == "" && got.Len() > 0 {
					t.Errorf("printed %q, want %q in it", got, want)
				}
			}
		})
	}
}

func TestExit(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	tool := tool{err: &errs}
	if code := tool.exit(errors.Join(fault.Fix(errors.New("one"), "mend it"), errors.New("two"))); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if diff := cmp.Diff("tidemark: one\n  to do: mend it\ntidemark: two\n", errs.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

// TestTable: a row is a line, whatever the names in it.
func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tool := tool{out: &out}
	tool.table([][]string{{"table", "n"}, {"größe", "1"}, {"a\nb\x1b[2J'", "22"}})
	want := ` table        | n
--------------+----
 größe        | 1
 a\nb\x1b[2J' | 22
(2 rows)
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

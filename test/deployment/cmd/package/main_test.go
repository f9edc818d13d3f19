package main

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/test/deployment"
)

const mainFile = `
variable "greeting" {
  default = "hello"
}
locals {
  archives = { for name in ["a", "b"] : name => {
    "go.mod"          = "module example.com/x\n\ngo 1.26.0\n"
    "${name}/main.go" = "package main // ${var.greeting}\n"
  } }
}
`

func TestRunWritesArchives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := (deployment.Archive{"main.tf": mainFile}).Extract(dir); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	var stdout bytes.Buffer
	if err := run(t.Context(), []string{"-terraform", dir, "-out", out, "-vendor"}, &stdout); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"a.zip": {"a/main.go", "go.mod"}, "b.zip": {"b/main.go", "go.mod"},
		"a-vendored.zip": {"a/main.go", "go.mod"},
	} {
		z, err := zip.OpenReader(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range z.File {
			got = append(got, f.Name)
		}
		if err := z.Close(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		info, err := os.Stat(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if line := lineOf(stdout.String(), name); len(line) != 5 || line[1] != "2" || line[2] != strconv.FormatInt(info.Size(), 10) || line[3] != "0" || line[4] != "0" {
			t.Errorf("the table says of %s: %v", name, line)
		}
	}
}

// lineOf are the fields of the table's line for a file.
func lineOf(table, name string) []string {
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 0 && filepath.Base(fields[0]) == name {
			return fields
		}
	}
	return nil
}

func TestRunReportsErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := (deployment.Archive{"main.tf": "locals {\n  archives = { a = google_storage_bucket.a.name }\n}\n"}).Extract(dir); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-terraform", dir}, {"-terraform", filepath.Join(dir, "nowhere")}, {"-unknown"}} {
		if err := run(t.Context(), append(args, "-out", filepath.Join(dir, "out")), &bytes.Buffer{}); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
		t.Error("a folder was made for archives that cannot be told")
	}
}

package deployment_test

import (
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/test/deployment"
)

// TestArchivesHoldWhatIsNeeded: no test, nothing of another function, and one Go file
// at the root.
func TestArchivesHoldWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for _, f := range functions(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			folders := map[string]int{}
			for name := range f.archive {
				folder, _, _ := strings.Cut(name, "/")
				if folder == "functions" {
					folder = path.Dir(name)
				}
				folders[folder]++
				if strings.HasSuffix(name, "_test.go") || strings.Contains("/"+name, "/testdata/") || path.Clean(name) != name {
					t.Errorf("the archive has %s", name)
				}
			}
			for _, alone := range []string{"go.mod", "go.sum", "function.go", "functions/" + f.folder} {
				if folders[alone] != 1 {
					t.Errorf("the archive has %d of %s", folders[alone], alone)
				}
				delete(folders, alone)
			}
			if folders["shared"] == 0 || folders["schemas"] == 0 || len(folders) != 2 {
				t.Errorf("the archive has besides: %v", folders)
			}
			sameAsHere(t, f.archive)
		})
	}
}

// sameAsHere fails unless the archive has the files of the repository.
func sameAsHere(t *testing.T, archive deployment.Archive) {
	t.Helper()
	for name, content := range archive {
		if name == "function.go" {
			continue
		}
		here, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil || string(here) != content {
			t.Errorf("%s is not the file of the repository: %v", name, err)
		}
	}
	for _, pattern := range []string{"schemas/pipelines/*.yaml", "schemas/*.json", "schemas/postgres/*.sql", "schemas/bigquery/*"} {
		here, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(here) == 0 {
			t.Errorf("%s: nothing is there: %v", pattern, err)
		}
		for _, file := range here {
			name, err := filepath.Rel("../..", file)
			if _, ok := archive[filepath.ToSlash(name)]; err != nil || !ok {
				t.Errorf("the archive lacks %s", name)
			}
		}
	}
}

func TestZipIsTheSameForTheSameFiles(t *testing.T) {
	t.Parallel()
	archive := deployment.Archive{"b/b.go": "package b\n", "a.go": strings.Repeat("// a\n", 1000), "b/a.go": "package b\n"}
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := archive.WriteZip(w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same files differ")
	}
	z, err := zip.NewReader(bytes.NewReader(first.Bytes()), int64(first.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		if f.ExternalAttrs != 0 || !f.Modified.IsZero() && f.Modified.Year() > 1980 || f.Method != zip.Deflate {
			t.Errorf("%s has attributes %d, time %v and method %d", f.Name, f.ExternalAttrs, f.Modified, f.Method)
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(r); err != nil || string(content) != archive[f.Name] {
			t.Errorf("%s has other content: %v", f.Name, err)
		}
	}
	if diff := cmp.Diff([]string{"a.go", "b/a.go", "b/b.go"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestExtractStaysInTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := (deployment.Archive{"../a": ""}).Extract(filepath.Join(dir, "inner")); err == nil {
		t.Error("a path out of the folder was extracted")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}

// TestUnchangedCodeIsNotDeployed: an archive changes with what its function is made
// of, and with nothing else; Terraform deploys a function when its archive changes.
func TestUnchangedCodeIsNotDeployed(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{"functions", "schemas", "shared"} {
		if err := os.CopyFS(filepath.Join(root, dir), os.DirFS(filepath.Join("../..", dir))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(root, "terraform"), flat{os.DirFS(terraform)}); err != nil { // its folders may hold providers
		t.Fatal(err)
	}
	add := func(name, text string) {
		t.Helper()
		file, err := os.OpenFile(filepath.Join(root, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	add("go.mod", "module github.com/tidemark-data/tidemark\n")
	add("go.sum", "")
	before := archivesIn(t, filepath.Join(root, "terraform"))
	tests := []struct {
		file string
		want []string // the functions that are deployed for it
	}{
		{"README.md", nil},
		{"shared/extract/more_test.go", nil},
		{"shared/extract/testdata/rows.txt", nil},
		{"terraform/playbooks/failing.md", nil},
		{"functions/local/main.go", nil},
		{"functions/dedup/function.go", []string{"dedup"}},
		{"functions/reverseetl/more.go", []string{"reverse-etl"}},
		{"shared/telemetry/telemetry.go", []string{"dedup", "extract", "reverse-etl"}},
		{"schemas/pipelines/more.yaml", []string{"dedup", "extract", "reverse-etl"}},
		{"schemas/bigquery/messaging/tags.json", []string{"dedup", "extract", "reverse-etl"}},
		{"schemas/postgres/99999_more.sql", []string{"dedup", "extract", "reverse-etl"}},
		{"go.sum", []string{"dedup", "extract", "reverse-etl"}},
	}
	for _, test := range tests {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, test.file)), 0o755); err != nil {
			t.Fatal(err)
		}
		text := "\n// more\n"
		if filepath.Ext(test.file) == ".yaml" {
			text = "pipeline: more\ndestination: {dataset: more}\n"
		}
		add(test.file, text)
		after := archivesIn(t, filepath.Join(root, "terraform"))
		var changed []string
		for _, name := range slices.Sorted(maps.Keys(after)) {
			if !maps.Equal(before[name], after[name]) {
				changed = append(changed, name)
			}
		}
		if diff := cmp.Diff(test.want, changed); diff != "" {
			t.Errorf("%s is changed (-want +deployed):\n%s", test.file, diff)
		}
		before = after
	}
}

// flat is a file system without its folders.
type flat struct{ fs.FS }

// ReadDir leaves out what is no file.
func (f flat) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.FS, name)
	return slices.DeleteFunc(entries, fs.DirEntry.IsDir), err
}

func archivesIn(t *testing.T, dir string) map[string]deployment.Archive {
	t.Helper()
	m, err := deployment.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.Evaluate(nil)
	if err != nil {
		t.Fatal(err)
	}
	archives, err := v.Archives()
	if err != nil {
		t.Fatal(err)
	}
	return archives
}

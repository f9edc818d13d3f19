package deployment_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	"github.com/tidemark-data/tidemark/test/deployment"
	"github.com/tidemark-data/tidemark/test/deployment/buildpack"
)

// TestFunctions builds what Terraform would upload as Google would build it, and has
// the programs do their work.
func TestFunctions(t *testing.T) {
	t.Parallel()
	all := functions(t)
	binaries := map[string]string{}
	for _, f := range all {
		b := build(t, f.archive)
		binaries[f.name] = b.Binary
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			dropped := tidied(t, f.archive, b)
			reportBuild(t, f.archive, b, dropped)
			opensNothingAtImport(t, f, b.Binary)
			refusesAnotherEntryPoint(t, b.Binary)
		})
		t.Run(f.name+" vendored", func(t *testing.T) {
			t.Parallel()
			buildsWithoutNetwork(t, f)
		})
	}
	work(t, all, binaries)
}

// tidied fails unless `go mod tidy` did nothing but drop requirements that no file of
// the archive has use for; it returns those.
func tidied(t *testing.T, archive deployment.Archive, b *buildpack.Build) []string {
	t.Helper()
	before, after := requirements(t, []byte(archive["go.mod"])), requirements(t, read(t, b, "go.mod"))
	for module, version := range after {
		if before[module] != version {
			t.Errorf("tidy made %s %s of %q", module, version, before[module])
		}
	}
	known := strings.Split(archive["go.sum"], "\n")
	for line := range strings.Lines(string(read(t, b, "go.sum"))) {
		if !slices.Contains(known, strings.TrimSpace(line)) {
			t.Errorf("go.sum gained %s", line)
		}
	}
	imported := imports(t, archive)
	var dropped []string
	for module := range before {
		if _, kept := after[module]; kept {
			continue
		}
		dropped = append(dropped, module)
		for _, i := range imported {
			if i == module || strings.HasPrefix(i, module+"/") {
				t.Errorf("tidy dropped %s, and %s is imported", module, i)
			}
		}
	}
	slices.Sort(dropped)
	return dropped
}

// requirements are the modules a go.mod requires, with their versions, and the
// version of Go.
func requirements(t *testing.T, text []byte) map[string]string {
	t.Helper()
	file, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(file.Replace) > 0 || len(file.Exclude) > 0 || len(file.Tool) > 0 {
		t.Errorf("go.mod has more than requirements: a build would not see the same modules")
	}
	out := map[string]string{"go": file.Go.Version}
	for _, r := range file.Require {
		out[r.Mod.Path] = r.Mod.Version
	}
	return out
}

func read(t *testing.T, b *buildpack.Build, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(b.Source, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// imports are the import paths in the archive's Go files.
func imports(t *testing.T, archive deployment.Archive) []string {
	t.Helper()
	var out []string
	for name, content := range archive {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, content, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, path)
		}
	}
	return out
}

// reportBuild says what a build costs, and fails if it has the tools of the tests.
func reportBuild(t *testing.T, archive deployment.Archive, b *buildpack.Build, dropped []string) {
	t.Helper()
	var zipped bytes.Buffer
	if err := archive.WriteZip(&zipped); err != nil {
		t.Fatal(err)
	}
	modules, err := deployment.Downloads(t.Context(), b.Source)
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, m := range modules {
		size += m.Bytes
		for _, tool := range []string{"duckdb", "googlesql", "pgregory.net/rapid", "go-cmp", "goleak", "hashicorp"} {
			if strings.Contains(m.Module, tool) {
				t.Errorf("the function is built with %s", m.Module)
			}
		}
	}
	info, err := os.Stat(b.Binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("archive: %d files, %d KB zipped; program: %d MB; it needs %d modules, %d MB to download; dropped by tidy: %s; functions framework %s",
		len(archive), zipped.Len()>>10, info.Size()>>20, len(modules), size>>20, strings.Join(dropped, ", "), b.Framework)
}

// buildsWithoutNetwork builds from a vendor folder with an empty module cache.
func buildsWithoutNetwork(t *testing.T, f deployed) {
	t.Helper()
	archive, err := f.archive.Vendored(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := build(t, archive, "GOPROXY=off", "GOFLAGS=-mod=vendor", "GOMODCACHE="+t.TempDir())
	if !b.Vendored {
		t.Error("the build did not take the vendor folder for one")
	}
	if string(read(t, b, "go.mod")) != f.archive["go.mod"] {
		t.Error("the build changed go.mod")
	}
	launch(t, b.Binary, f.entryPoint).ready()
}

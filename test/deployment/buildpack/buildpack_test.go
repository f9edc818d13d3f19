package buildpack_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-data/tidemark/test/deployment"
	"github.com/tidemark-data/tidemark/test/deployment/buildpack"
)

const (
	goMod = `module example.com/hello

go 1.26.0

require github.com/GoogleCloudPlatform/functions-framework-go v0.0.0

replace github.com/GoogleCloudPlatform/functions-framework-go => ./framework
`
	function = `package function

import _ "github.com/GoogleCloudPlatform/functions-framework-go/functions"

func init() { println("registered") }
`
)

// hello is the source of a function with a functions framework of its own, which
// prints its port and ends.
func hello() deployment.Archive {
	return deployment.Archive{
		"go.mod": goMod, "go.sum": "", "function.go": function, ".googleconfig/app": "",
		"framework/go.mod":                 "module github.com/GoogleCloudPlatform/functions-framework-go\n\ngo 1.26.0\n",
		"framework/functions/functions.go": "package functions\n",
		"framework/funcframework/funcframework.go": `package funcframework

import "fmt"

func Start(port string) error {
	fmt.Println("port", port)
	return fmt.Errorf("stopped")
}
`,
	}
}

func run(t *testing.T, archive deployment.Archive) (*buildpack.Build, error) {
	t.Helper()
	var zipped bytes.Buffer
	if err := archive.WriteZip(&zipped); err != nil {
		t.Fatal(err)
	}
	return buildpack.Run(t.Context(), zipped.Bytes(), t.TempDir(), "GOPROXY=off")
}

func TestRun(t *testing.T) {
	t.Parallel()
	b, err := run(t, hello())
	if err != nil {
		t.Fatal(err)
	}
	if b.Vendored || b.Main != "example.com/hello/functions.local/app" || filepath.Base(b.Source) != "serverless_function_source_code" {
		t.Errorf("built %+v", b)
	}
	if _, err := os.Stat(filepath.Join(b.Source, "..", ".googleconfig")); err != nil {
		t.Errorf("a folder of the buildpacks was moved: %v", err)
	}
	var out, log bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), b.Binary)
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{"PORT=1234"}, &out, &log
	err = cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed || out.String() != "port 1234\n" {
		t.Errorf("the program ended with %v, having printed %q", err, &out)
	}
	if !strings.HasPrefix(log.String(), "registered\n") || !strings.Contains(log.String(), "stopped") {
		t.Errorf("the program logged %q", &log)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change  deployment.Archive // files to add or replace; empty ones of Go are removed
		mention string
	}{
		"a test of another package":    {deployment.Archive{"function_test.go": "package function_test\n"}, "multiple packages"},
		"a program for a generator":    {deployment.Archive{"gen.go": "//go:build ignore\n\npackage main\n"}, "multiple packages"},
		"no package at the root":       {deployment.Archive{"function.go": ""}, "no Go package"},
		"no import of the framework":   {deployment.Archive{"function.go": "package function\n"}, "does not import"},
		"a file that cannot be read":   {deployment.Archive{"b.go": "packag\n"}, "reading the package"},
		"no go.mod":                    {deployment.Archive{"go.mod": ""}, "no go.mod"},
		"a module path without a dot":  {deployment.Archive{"go.mod": strings.Replace(goMod, "example.com/hello", "hello/there", 1)}, "no dot"},
		"go.mod without the framework": {deployment.Archive{"go.mod": "module example.com/hello\n\ngo 1.26.0\n"}, "functions framework"},
		"a vendor folder without the framework": {deployment.Archive{
			"vendor/modules.txt": "# github.com/GoogleCloudPlatform/functions-framework-go v0.0.0 => ./framework\n## explicit; go 1.26.0\n# github.com/GoogleCloudPlatform/functions-framework-go => ./framework\n",
		}, "must include"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			archive := hello()
			maps.Copy(archive, test.change)
			maps.DeleteFunc(archive, func(file, content string) bool {
				return content == "" && file != "go.sum" && file != ".googleconfig/app"
			})
			_, err := run(t, archive)
			user, refused := errors.AsType[*buildpack.UserError](err)
			if !refused || !strings.Contains(user.Reason, test.mention) {
				t.Errorf("got %v, want a user's error with %q", err, test.mention)
			}
		})
	}
}

func TestRunReportsWhatDoesNotCompile(t *testing.T) {
	t.Parallel()
	archive := hello()
	archive["b.go"] = "package function\n\nvar x int = \"\"\n"
	if _, err := run(t, archive); err == nil || !strings.Contains(err.Error(), "b.go:3") {
		t.Errorf("got %v, want the compiler's error", err)
	}
}

func TestRunRefusesPathsOutOfTheArchive(t *testing.T) {
	t.Parallel()
	archive := hello()
	archive["../escaped"] = "x"
	if _, err := run(t, archive); err == nil {
		t.Error("a path out of the archive was unpacked")
	}
}

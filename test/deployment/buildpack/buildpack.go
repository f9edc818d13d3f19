package buildpack

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sourceDir is where the buildpack moves the source, and mainDir where it writes its
// main package, below the source.
const (
	sourceDir = "serverless_function_source_code"
	mainDir   = "functions.local/app"
	framework = "github.com/GoogleCloudPlatform/functions-framework-go"
)

// Build is a function, built.
type Build struct {
	// Binary is the program, which serves the function named by FUNCTION_TARGET.
	Binary string
	// Source is the folder of the module, with what the buildpack added.
	Source string
	// Main is the import path of the program.
	Main string
	// Vendored is true where the archive had a vendor folder: nothing is downloaded
	// then, and go.mod is left alone.
	Vendored bool
	// Framework is the version of the functions framework.
	Framework string

	environment []string
}

// UserError is what the buildpack reports of a source that it cannot build.
type UserError struct{ Reason string }

func (e *UserError) Error() string { return e.Reason }

// Run unpacks an archive in dir, an empty folder, and builds it. environment is added
// to that of the go command ("NAME=value").
func Run(ctx context.Context, archive []byte, dir string, environment ...string) (*Build, error) {
	root := filepath.Join(dir, "workspace")
	if err := unzip(archive, root); err != nil {
		return nil, err
	}
	b := &Build{
		Binary: filepath.Join(dir, "bin", "main"), Source: filepath.Join(root, sourceDir),
		environment: append([]string{"GOWORK=off"}, environment...),
	}
	if err := moveSource(root); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	importPath, err := b.importPath(ctx, root)
	if err != nil {
		return nil, err
	}
	if err := b.frameworkVersion(ctx); err != nil {
		return nil, err
	}
	folder := filepath.Join(b.Source, filepath.FromSlash(mainDir))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("making the main package: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "main.go"), mainFile(importPath), 0o644); err != nil {
		return nil, fmt.Errorf("writing the main package: %w", err)
	}
	b.Main = importPath + "/" + mainDir
	if !b.Vendored {
		if _, err := b.Go(ctx, "mod", "tidy"); err != nil {
			return nil, err
		}
	}
	if _, err := b.Go(ctx, "build", "-trimpath", "-o", b.Binary, folder); err != nil {
		return nil, err
	}
	return b, nil
}

// Go runs the go command in the module as the build does and returns its output.
func (b *Build) Go(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.Source
	cmd.Env = append(os.Environ(), b.environment...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running go %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}

func unzip(archive []byte, dir string) error {
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("unpacking %s: it leads out of the archive", f.Name)
		}
	}
	if err := os.CopyFS(dir, z); err != nil {
		return fmt.Errorf("unpacking the archive: %w", err)
	}
	return nil
}

// moveSource moves everything, but for the buildpacks' own folders, down one.
func moveSource(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("moving the source: %w", err)
	}
	if err := os.Mkdir(filepath.Join(root, sourceDir), 0o755); err != nil {
		return fmt.Errorf("moving the source: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".google") {
			continue
		}
		if err := os.Rename(filepath.Join(root, e.Name()), filepath.Join(root, sourceDir, e.Name())); err != nil {
			return fmt.Errorf("moving the source: %w", err)
		}
	}
	return nil
}

// check looks at the source as the buildpack does before it builds anything.
func (b *Build) check() error {
	_, imports, err := rootPackage(b.Source)
	if err != nil {
		return err
	}
	if !slices.Contains(imports, framework+"/functions") {
		return &UserError{"the package at the root does not import " + framework + "/functions: the buildpack would look for a function of the entry point's name in it"}
	}
	info, err := os.Stat(filepath.Join(b.Source, "go.mod"))
	if errors.Is(err, fs.ErrNotExist) {
		return &UserError{"the archive has no go.mod"}
	}
	if err != nil {
		return fmt.Errorf("looking at go.mod: %w", err)
	}
	if info.Mode().Perm()&0o200 == 0 {
		return &UserError{"go.mod exists but is not writable"}
	}
	if _, err := os.Stat(filepath.Join(b.Source, "go.sum")); err != nil {
		return &UserError{"the archive has no go.sum: the buildpack would resolve every version anew"}
	}
	_, err = os.Stat(filepath.Join(b.Source, "vendor"))
	b.Vendored = err == nil
	return nil
}

// rootPackage returns the name and the imports of the one package at the root. Every
// .go file counts, tests and files with build constraints included.
func rootPackage(dir string) (name string, imports []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", nil, fmt.Errorf("looking for the package: %w", err)
	}
	for _, f := range files {
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.ImportsOnly)
		if err != nil {
			return "", nil, &UserError{fmt.Sprintf("reading the package at the root: %v", err)}
		}
		if name != "" && name != file.Name.Name {
			return "", nil, &UserError{fmt.Sprintf("multiple packages at the root: %s and %s", name, file.Name.Name)}
		}
		name = file.Name.Name
		for _, i := range file.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return "", nil, fmt.Errorf("reading an import: %w", err)
			}
			imports = append(imports, path)
		}
	}
	if name == "" {
		return "", nil, &UserError{"there is no Go package at the root"}
	}
	return name, imports, nil
}

// importPath is what the generated main imports: the module, or a package of it if
// the application's root has a folder of the package's name.
func (b *Build) importPath(ctx context.Context, root string) (string, error) {
	module, err := b.Go(ctx, "list", "-m")
	if err != nil {
		return "", err
	}
	if first, _, _ := strings.Cut(module, "/"); !strings.Contains(first, ".") {
		return "", &UserError{"the first element of the module path has no dot: " + module}
	}
	name, _, err := rootPackage(b.Source)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(root, name)); err == nil {
		return module + "/" + name, nil
	}
	return module, nil
}

// frameworkVersion finds the functions framework in go.mod and, where dependencies are
// vendored, among them.
func (b *Build) frameworkVersion(ctx context.Context) error {
	var err error
	if b.Framework, err = b.Go(ctx, "list", "-m", "-f", "{{.Version}}", framework); err != nil {
		return &UserError{fmt.Sprintf("go.mod does not say which version of the functions framework is meant: %v", err)}
	}
	if _, err := os.Stat(filepath.Join(b.Source, "vendor", filepath.FromSlash(framework), "funcframework")); b.Vendored && err != nil {
		return &UserError{"vendored dependencies must include " + framework + "/funcframework"}
	}
	return nil
}

// mainFile is the program that the buildpack writes for functions that register
// themselves.
func mainFile(importPath string) []byte {
	return fmt.Appendf(nil, `package main

import (
	"log"
	"net/http"
	"os"

	"%s/funcframework"

	_ %q
)

func main() {
	for _, reserved := range []string{"/robots.txt", "/favicon.ico"} {
		http.HandleFunc(reserved, http.NotFound)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	if err := funcframework.Start(port); err != nil {
		log.Fatalf("the function cannot be served: %%v", err)
	}
}
`, framework, importPath)
}

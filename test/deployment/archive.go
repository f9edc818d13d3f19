package deployment

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/zclconf/go-cty/cty"
)

// Archive is what a function is built from: the contents of its files, by their path
// in the archive, with slashes.
type Archive map[string]string

// Archives returns the archives of local.archives, by the function's name.
func (v *Values) Archives() (map[string]Archive, error) {
	value, err := v.Local("archives")
	if err != nil {
		return nil, err
	}
	out := map[string]Archive{}
	functions, err := entries(value)
	if err != nil {
		return nil, fmt.Errorf("reading local.archives: %w", err)
	}
	for function, value := range functions {
		files, err := entries(value)
		if err != nil {
			return nil, fmt.Errorf("reading the archive of %s: %w", function, err)
		}
		out[function] = Archive{}
		for name, content := range files {
			if content.Type() != cty.String || content.IsNull() {
				return nil, fmt.Errorf("reading the archive of %s: %s is no text", function, name)
			}
			out[function][name] = content.AsString()
		}
	}
	return out, nil
}

// entries are the elements of an object or a map.
func entries(v cty.Value) (map[string]cty.Value, error) {
	if t := v.Type(); v.IsNull() || !t.IsObjectType() && !t.IsMapType() {
		return nil, errors.New("it is neither an object nor a map")
	}
	return v.AsValueMap(), nil
}

// WriteZip writes the archive as Terraform's archive_file does from source blocks:
// sorted, compressed, without times or modes, so that the same files are the same
// bytes. (The provider, up to 2.8.0, applies output_file_mode to files only, not to
// source blocks; who unpacks them takes its own default.)
func (a Archive) WriteZip(w io.Writer) error {
	z := zip.NewWriter(w)
	for _, name := range sortedKeys(a) {
		file, err := z.Create(name)
		if err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
		if _, err := io.WriteString(file, a[name]); err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("closing the archive: %w", err)
	}
	return nil
}

// Extract writes the files into a folder.
func (a Archive) Extract(dir string) error {
	for _, name := range sortedKeys(a) {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("extracting %s: it leads out of the folder", name)
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("extracting %s: %w", name, err)
		}
		if err := os.WriteFile(file, []byte(a[name]), 0o644); err != nil {
			return fmt.Errorf("extracting %s: %w", name, err)
		}
	}
	return nil
}

// Vendored returns the archive with its dependencies in vendor/, for builds without a
// network. It runs `go mod vendor` in a folder of its own.
func (a Archive) Vendored(ctx context.Context) (_ Archive, err error) {
	dir, err := os.MkdirTemp("", "tidemark-vendor-")
	if err != nil {
		return nil, fmt.Errorf("vendoring: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := a.Extract(dir); err != nil {
		return nil, err
	}
	if _, err := goIn(ctx, dir, "mod", "vendor"); err != nil {
		return nil, fmt.Errorf("vendoring: %w", err)
	}
	return read(dir)
}

// Downloads are the modules that a build of the archive takes. See Downloads.
func (a Archive) Downloads(ctx context.Context) (_ []Download, err error) {
	dir, err := os.MkdirTemp("", "tidemark-build-")
	if err != nil {
		return nil, fmt.Errorf("measuring downloads: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := a.Extract(dir); err != nil {
		return nil, err
	}
	return Downloads(ctx, dir)
}

// read is the archive of all files in a folder.
func read(dir string) (Archive, error) {
	a, files := Archive{}, os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		a[name] = string(content)
		return err //nolint:wrapcheck // wrapped below
	})
	if err != nil {
		return nil, fmt.Errorf("reading the folder: %w", err)
	}
	return a, nil
}

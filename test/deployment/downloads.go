package deployment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Download is a module that a build downloads where nothing is cached.
type Download struct {
	// Module is its path and version, path@version.
	Module string
	// Bytes is the size of its zip file.
	Bytes int64
}

// Downloads are the modules that building every package of the module in dir takes,
// by name. It downloads those that are not on this machine yet.
func Downloads(ctx context.Context, dir string) ([]Download, error) {
	listed, err := goIn(ctx, dir, "list", "-deps", "-f", "{{with .Module}}{{if .Version}}{{.Path}}@{{.Version}}{{end}}{{end}}", "./...")
	if err != nil {
		return nil, err
	}
	modules := slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(listed)))))
	described, err := goIn(ctx, dir, append([]string{"mod", "download", "-json"}, modules...)...)
	if err != nil {
		return nil, err
	}
	var out []Download
	for decoder := json.NewDecoder(bytes.NewReader(described)); ; {
		var module struct{ Path, Version, Zip string }
		if err := decoder.Decode(&module); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading what go downloaded: %w", err)
		}
		info, err := os.Stat(module.Zip)
		if err != nil {
			return nil, fmt.Errorf("measuring %s: %w", module.Path, err)
		}
		out = append(out, Download{module.Path + "@" + module.Version, info.Size()})
	}
}

// goIn runs the go command in a folder and returns what it prints.
func goIn(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running go %s: %w: %s", args[0], err, &stderr)
	}
	return out, nil
}

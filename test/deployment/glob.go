package deployment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// glob returns the regular files under root that match a pattern of Terraform's
// fileset, sorted, relative to root and with slashes: * and ? stay within a name, a
// name that is ** stands for any number of folders, {a,b} for either. A root that
// does not exist has no files. Links to folders are refused.
func glob(root, pattern string) ([]string, error) {
	choices, err := alternatives(pattern)
	if err != nil {
		return nil, fmt.Errorf("reading the pattern %q: %w", pattern, err)
	}
	found := map[string]bool{}
	for _, p := range choices {
		p = path.Clean(p)
		if path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") {
			return nil, fmt.Errorf("reading the pattern %q: it leads out of %s", pattern, root)
		}
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("reading the pattern %q: %w", pattern, err)
		}
		if err := expand(root, "", strings.Split(p, "/"), found); err != nil {
			return nil, fmt.Errorf("listing the files of %s: %w", root, err)
		}
	}
	return sortedKeys(found), nil
}

// expand adds the files of a folder, given relative to root, that match the names of
// a pattern.
func expand(root, folder string, names []string, found map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(root, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err //nolint:wrapcheck // glob wraps it
	}
	name, rest := names[0], names[1:]
	if name == "**" && len(rest) > 0 {
		if err := expand(root, folder, rest, found); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if ok, err := path.Match(name, e.Name()); name != "**" && (!ok || err != nil) {
			continue
		}
		file := path.Join(folder, e.Name())
		info, err := os.Stat(filepath.Join(root, file))
		if err != nil {
			return err //nolint:wrapcheck // glob wraps it
		}
		switch below := rest; {
		case info.IsDir() && (len(rest) > 0 || name == "**"):
			if e.Type()&fs.ModeSymlink != 0 {
				return fmt.Errorf("%s is a link to a folder", file)
			}
			if name == "**" {
				below = names
			}
			if err := expand(root, file, below, found); err != nil {
				return err
			}
		case info.Mode().IsRegular() && len(rest) == 0:
			found[file] = true
		}
	}
	return nil
}

// alternatives are the patterns that one with braces stands for. Terraform takes
// braces within one name of a path only, and none within others.
func alternatives(pattern string) ([]string, error) {
	before, rest, braces := strings.Cut(pattern, "{")
	if !braces {
		return []string{pattern}, nil
	}
	inside, after, closed := strings.Cut(rest, "}")
	if !closed || strings.ContainsAny(inside, "{/") {
		return nil, path.ErrBadPattern
	}
	tails, err := alternatives(after)
	if err != nil {
		return nil, err
	}
	var out []string
	for choice := range strings.SplitSeq(inside, ",") {
		for _, tail := range tails {
			out = append(out, before+choice+tail)
		}
	}
	return out, nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotInstalled is returned, wrapped, when no Postgres server is found on the
// machine. Its text says how to get one.
var ErrNotInstalled = errors.New("no Postgres server found on this machine (looked for initdb and postgres on the PATH, " +
	"in the folders of the usual packages and where pg_config points): run `make deps`, " +
	"or install the server yourself (Debian, Ubuntu: postgresql; Fedora: postgresql-server; Alpine, macOS: postgresql)")

// packageFolders is where packages put server binaries that they keep off the PATH.
func packageFolders() []string {
	return []string{
		"/usr/lib/postgresql/*/bin",              // Debian, Ubuntu
		"/usr/pgsql-*/bin",                       // the PostgreSQL project's own RPMs
		"/usr/libexec/postgresql*",               // Alpine
		"/opt/homebrew/opt/postgresql@*/bin",     // Homebrew on Apple silicon
		"/usr/local/opt/postgresql@*/bin",        // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/*@*/bin", // Homebrew on Linux
	}
}

// binaries returns the folder that holds both initdb and postgres.
func binaries(ctx context.Context) (string, error) {
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if dir := resolved(initdb); complete(dir) {
			return dir, nil
		}
	}
	for _, pattern := range packageFolders() {
		if dir, ok := newest(pattern); ok {
			return dir, nil
		}
	}
	out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output()
	if dir := strings.TrimSpace(string(out)); err == nil && complete(dir) {
		return dir, nil
	}
	return "", ErrNotInstalled
}

// resolved is the folder of a program's real file: postgres looks for its own
// companions there.
func resolved(program string) string {
	if target, err := filepath.EvalSymlinks(program); err == nil {
		program = target
	}
	return filepath.Dir(program)
}

func complete(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, program))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// newest is the complete folder with the highest version in its path.
func newest(pattern string) (string, bool) {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		return "", false
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return !complete(dir) })
	if len(dirs) == 0 {
		return "", false
	}
	return slices.MaxFunc(dirs, func(a, b string) int { return version(a) - version(b) }), true
}

// version is the first whole number in a path, 0 without one.
func version(path string) int {
	digits := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, err := strconv.Atoi(digits[0])
	if err != nil {
		return 0
	}
	return n
}

// Program is the path of another program of the server's packages, such as pgbench.
func (s *Server) Program(name string) (string, error) {
	path := filepath.Join(s.bin, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("finding %s beside the server (it may be in a package of its own, such as postgresql-contrib): %w", name, err)
	}
	return path, nil
}

// run runs one of the server's programs to its end and puts what it printed
// into the error.
func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("running %s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(string(out)))
	}
	return nil
}

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// build is the program functions/local, built once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tidemark-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "local")
	out, err := exec.Command("go", "build", "-o", path, "github.com/tidemark-data/tidemark/functions/local").CombinedOutput()
	if err != nil {
		return "", &buildError{err, string(out)}
	}
	return path, nil
})

type buildError struct {
	err    error
	output string
}

func (e *buildError) Error() string { return e.err.Error() + ": " + e.output }

func functions(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

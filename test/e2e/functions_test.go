package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// build builds the programs that are no function, once for all tests, and returns their
// folder.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tidemark-e2e-")
	if err != nil {
		return "", err
	}
	const from = "github.com/tidemark-data/tidemark/functions/"
	out, err := exec.Command("go", "build", "-o", dir, from+"local", from+"tidemark").CombinedOutput()
	if err != nil {
		return "", &buildError{err, string(out)}
	}
	return dir, nil
})

type buildError struct {
	err    error
	output string
}

func (e *buildError) Error() string { return e.err.Error() + ": " + e.output }

// program is a built program.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func functions(t *testing.T) string {
	t.Helper()
	return program(t, "local")
}

package typematrix_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/test/typematrix"
)

// TestTypesFile: schemas/TYPES.md says what the declaration says. Run with -update to
// write it.
func TestTypesFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "schemas", "TYPES.md")
	if *update() {
		if err := os.WriteFile(path, []byte(typematrix.Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(typematrix.Markdown(), string(written)); diff != "" {
		t.Errorf("schemas/TYPES.md is not up to date (-want +got):\n%s\nrun: cd test && go test ./typematrix -update", diff)
	}
}

// TestEveryCellIsDeclared, once, and every type has a column name of its own.
func TestEveryCellIsDeclared(t *testing.T) {
	t.Parallel()
	names := map[string]string{}
	for _, typ := range typematrix.Types() {
		if other, taken := names[typ.Name()]; taken {
			t.Errorf("%s %s and %s share the name %s", typ.SQL, typ.As, other, typ.Name())
		}
		names[typ.Name()] = typ.SQL
		for _, v := range typematrix.Values() {
			if c := typ.Cell(v); !c.Declared() || c.SQL == "" {
				t.Errorf("%s %s: %s is not declared, or more than once", typ.SQL, typ.As, v)
			}
		}
	}
}

// update is the flag that has the file written.
func update() *bool {
	f := flag.Lookup("update")
	if f == nil {
		return new(bool)
	}
	on := f.Value.String() == "true"
	return &on
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write schemas/TYPES.md")
	flag.Parse()
	os.Exit(m.Run())
}

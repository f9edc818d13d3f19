package pipeline_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTableNames: what BigQuery cannot name a table is refused with its line, before
// anything is read.
func TestTableNames(t *testing.T) {
	t.Parallel()
	allowed := []string{"orders", "_orders", "2024", "Größe 01", "ग्राहक", "お客様-表", "select", "a‿b"}
	refused := []string{"a.b", "a`b", "a'b", `a\"b`, `a\\b`, "a$20240101", "a*", "a/b", `a\nb`, "x; DROP TABLE y", "🙂", "a@b", "{a}", "a:b"}
	for i, name := range append(allowed, refused...) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(map[string]string{"a.yaml": "pipeline: a\ndestination: {dataset: a}\ntables:\n  - name: \"" + name + "\"\n    capture: {method: snapshot}\n"})
			if i < len(allowed) {
				if err != nil {
					t.Error(err)
				}
				return
			}
			want := "a.yaml:4: table "
			if err == nil || len(err.Error()) < len(want) {
				t.Fatalf("%q was taken: %v", name, err)
			}
			if diff := cmp.Diff(want, err.Error()[:len(want)]); diff != "" {
				t.Errorf("error (-want +got):\n%s\n%v", diff, err)
			}
		})
	}
}

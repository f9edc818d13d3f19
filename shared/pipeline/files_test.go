package pipeline_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// TestFilesThatWouldBeMisread are files and folders that a lenient reader takes
// for something else than was meant.
func TestFilesThatWouldBeMisread(t *testing.T) {
	t.Parallel()
	const good = "pipeline: a\ndestination: {dataset: d}\n"
	for name, c := range map[string]struct{ text, want string }{
		"a second document":      {good + "---\npipeline: b\n", "something follows the pipeline"},
		"an alias of itself":     {good + "tables: &t [*t]\n", "the alias *t contains itself"},
		"aliases that multiply":  {good + "tables:\n- &a [1,1,1,1,1,1,1,1,1,1]\n- &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n- &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n- &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n- [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n", "the file is too large"},
		"a cadence by name":      {good + "dedup: {every: '@daily'}\n", `"@daily" is neither`},
		"a day that never comes": {good + "dedup: {every: '0 0 30 2 *'}\n", "names no day that exists"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := pipeline.Load(fstest.MapFS{"p.yaml": {Data: []byte(c.text)}}, schemas.PipelineSchema())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
		})
	}
}

func TestFolderThatIsNotThere(t *testing.T) {
	t.Parallel()
	if p, err := pipeline.Load(os.DirFS(filepath.Join(t.TempDir(), "absent")), schemas.PipelineSchema()); err == nil {
		t.Errorf("a missing folder gave %d pipelines and no error", len(p))
	}
}

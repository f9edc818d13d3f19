// Package schemas embeds what users declare, so that a deployed function
// needs no files at run time: the pipeline files, the JSON Schema they are
// checked against, the contracts of their tables, and the SQL of the control
// plane.
package schemas

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed all:bigquery pipelines pipeline.schema.json postgres/*.sql
var files embed.FS

// Pipelines returns the embedded pipeline files, *.yaml at its root, with the
// contracts in its folder bigquery, as pipeline.Load reads them.
func Pipelines() fs.FS { return withContracts{pipelines: sub("pipelines"), all: files} }

const contractsDir = "bigquery"

// withContracts shows the folder of the contracts inside that of the pipelines.
type withContracts struct{ pipelines, all fs.FS }

// Open opens a file of either folder.
func (f withContracts) Open(name string) (fs.File, error) {
	if name == contractsDir || strings.HasPrefix(name, contractsDir+"/") {
		return f.all.Open(name) //nolint:wrapcheck // the error of a file system, as fs.FS has it
	}
	return f.pipelines.Open(name) //nolint:wrapcheck // as above
}

// ControlPlane returns the embedded control-plane migrations, *.sql at its root.
func ControlPlane() fs.FS { return sub("postgres") }

// PipelineSchema returns the text of pipeline.schema.json.
func PipelineSchema() []byte {
	text, err := files.ReadFile("pipeline.schema.json")
	if err != nil {
		panic(err) // the compiler embedded it
	}
	return text
}

func sub(dir string) fs.FS {
	root, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // dir is a constant above
	}
	return root
}

// Package schemas embeds what users declare, so that a deployed function
// needs no files at run time: the pipeline files, the JSON Schema they are
// checked against, and the SQL of the control plane.
package schemas

import (
	"embed"
	"io/fs"
)

//go:embed pipelines pipeline.schema.json postgres/*.sql
var files embed.FS

// Pipelines returns the embedded pipeline files, *.yaml at its root.
func Pipelines() fs.FS { return sub("pipelines") }

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

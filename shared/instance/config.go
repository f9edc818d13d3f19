// Package instance is what one function instance has: its configuration, read
// from the environment, and its connections, opened by the first message and
// kept for the next ones. It receives each message, hands it to the use case
// and answers Pub/Sub.
package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// Config is the environment of DESIGN.md, read and checked.
type Config struct {
	Source    cloudsql.Config
	Control   cloudsql.Config
	Warehouse warehouse.Config
	Pipelines []pipeline.Pipeline
}

// Load reads the configuration with getenv, such as os.Getenv. Everything that
// is wrong with it is in the one error it returns.
func Load(getenv func(string) string) (Config, error) {
	c := Config{
		Source: cloudsql.Config{
			URL: getenv("DATABASE_URL"), Instance: getenv("CLOUD_SQL_INSTANCE"), IPType: getenv("CLOUD_SQL_IP_TYPE"),
			User: getenv("DB_USER"), Name: getenv("DB_NAME"),
		},
		Warehouse: warehouse.Config{
			Project: getenv("GOOGLE_CLOUD_PROJECT"), Location: getenv("BIGQUERY_LOCATION"),
			Host: getenv("BIGQUERY_EMULATOR_HOST"), StorageHost: getenv("BIGQUERY_STORAGE_EMULATOR_HOST"),
		},
	}
	c.Control = c.Source
	if url := getenv("CONTROL_DATABASE_URL"); url != "" {
		c.Control = cloudsql.Config{URL: url}
	}
	c.Control.OwnerOf = controlplane.Schema
	problems := c.check()
	var err error
	if c.Pipelines, err = pipeline.Load(pipelineFiles(getenv), schemas.PipelineSchema()); err != nil {
		problems = append(problems, err.Error())
	}
	if len(problems) > 0 {
		return c, fault.Fix(errors.New("the configuration is wrong:\n"+strings.Join(problems, "\n")), "correct what is listed and deploy again")
	}
	return c, nil
}

func pipelineFiles(getenv func(string) string) fs.FS {
	if dir := getenv("TIDEMARK_PIPELINES"); dir != "" {
		return os.DirFS(dir)
	}
	return schemas.Pipelines()
}

// check lists what is wrong with the variables, each with its remedy.
func (c *Config) check() []string {
	var problems []string
	need := func(name, value, remedy string) {
		if value == "" {
			problems = append(problems, fmt.Sprintf("environment: %s is not set; %s", name, remedy))
		}
	}
	need("GOOGLE_CLOUD_PROJECT", c.Warehouse.Project, "set it to the project of the BigQuery datasets")
	if c.Source.URL == "" {
		need("CLOUD_SQL_INSTANCE", c.Source.Instance, "set it to project:region:instance, or set DATABASE_URL")
		need("DB_USER", c.Source.User, "set it to the function's IAM database user, or set DATABASE_URL")
		need("DB_NAME", c.Source.Name, "set it to the database, or set DATABASE_URL")
	}
	if i := c.Source.Instance; c.Source.URL == "" && i != "" && strings.Count(i, ":") < 2 {
		problems = append(problems, fmt.Sprintf("environment: CLOUD_SQL_INSTANCE is %q; set it to project:region:instance", i))
	}
	if t := c.Source.IPType; t != "" && !slices.Contains(cloudsql.IPTypes(), t) {
		problems = append(problems, fmt.Sprintf("environment: CLOUD_SQL_IP_TYPE is %q; set it to one of %s", t, strings.Join(cloudsql.IPTypes(), ", ")))
	}
	if (c.Warehouse.Host == "") != (c.Warehouse.StorageHost == "") {
		problems = append(problems, "environment: one of BIGQUERY_EMULATOR_HOST and BIGQUERY_STORAGE_EMULATOR_HOST is set; set both, or neither")
	}
	return problems
}

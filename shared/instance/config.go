// Package instance is what one function instance has: its configuration, read
// from the environment, and its connections, opened by the first message and
// kept for the next ones. It receives each message, hands it to the use case
// and answers Pub/Sub.
package instance

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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
	// HashKey is what columns are hashed with: at least minHashKey bytes, or none.
	HashKey []byte
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
	target := getenv("FUNCTION_TARGET")
	lands := target == "" || target == extractTarget
	if lands {
		problems = append(problems, c.landing(getenv)...)
	}
	var err error
	if c.Pipelines, err = pipeline.Load(pipelineFiles(getenv), schemas.PipelineSchema()); err != nil {
		problems = append(problems, err.Error())
	}
	if lands {
		problems = append(problems, c.missing()...)
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

// extractTarget is the function that lands rows, as FUNCTION_TARGET names it: what
// only the landing needs, the others are deployed without.
const extractTarget = "Extract"

// landing reads what the landing of rows needs beside BigQuery, and lists what is wrong
// with it.
func (c *Config) landing(getenv func(string) string) []string {
	var problems []string
	c.Warehouse.StagingBucket = getenv("TIDEMARK_STAGING_BUCKET")
	if c.Warehouse.StagingBucket != "" && (c.Warehouse.Host == "") != (getenv("STORAGE_EMULATOR_HOST") == "") {
		problems = append(problems, "environment: one of BIGQUERY_EMULATOR_HOST and STORAGE_EMULATOR_HOST is set, so that load jobs would not find their files; set both, or neither")
	}
	var err error
	if c.HashKey, err = hashKey(strings.TrimSpace(getenv("TIDEMARK_HASH_KEY"))); err != nil { // trimmed of the end of the line it was written as
		problems = append(problems, err.Error())
	}
	return problems
}

// missing lists the tables that cannot land for want of a bucket or of a hash key.
func (c *Config) missing() []string {
	var problems []string
	for _, p := range c.Pipelines {
		need := func(t pipeline.Table, what, remedy string) {
			problems = append(problems, pipeline.Problem{File: p.File, Line: t.Line, What: fmt.Sprintf("table %q %s", t.Name, what), Remedy: remedy}.String())
		}
		for _, t := range p.Tables {
			if t.Write == pipeline.WriteReplace && c.Warehouse.StagingBucket == "" {
				need(t, "is written by load jobs, which need a bucket, and TIDEMARK_STAGING_BUCKET is not set", "set it to a bucket in the location of the dataset, or write: merge")
			}
			if len(t.Columns.Hash) > 0 && c.HashKey == nil {
				need(t, "has hashed columns, and TIDEMARK_HASH_KEY holds no key for them", "set it to what `openssl rand -hex 32` prints, and keep it: with another key, equal values are no longer equal")
			}
		}
	}
	return problems
}

// minHashKey is in bytes: as long as what HMAC-SHA256 makes of it (RFC 2104, 3).
const minHashKey = sha256.Size

// hashKey decodes a key in hexadecimal or base64. Its error says nothing of the text.
func hashKey(text string) ([]byte, error) {
	const remedy = "set it to what `openssl rand -hex 32` prints"
	if text == "" {
		return nil, nil
	}
	key, err := hex.DecodeString(text)
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if err != nil {
			key, err = encoding.DecodeString(text)
		}
	}
	if err != nil {
		return nil, errors.New("environment: TIDEMARK_HASH_KEY is neither hexadecimal nor base64; " + remedy)
	}
	if len(key) < minHashKey {
		return nil, fmt.Errorf("environment: TIDEMARK_HASH_KEY has %d bytes, and less than %d can be guessed; %s", len(key), minHashKey, remedy)
	}
	return key, nil
}

// Command privileges writes the table of everything that the deployment grants
// into a document, from the plan that `terraform test -json -verbose` prints:
//
//	terraform test -json -verbose -filter=tests/wiring.tftest.hcl | privileges -document README.md
//
// With -check it compares instead, and exits with 1 where the document differs.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// The table stands between these two lines of the document.
const (
	begin = "<!-- privileges: written by make terraform-docs -->"
	end   = "<!-- privileges end -->"
)

// maxLine is the longest line of the plan that is read: it holds the schemas of
// the providers, of some megabytes.
const maxLine = 256 << 20

func main() {
	document := flag.String("document", "", "the Markdown file with the table")
	check := flag.Bool("check", false, "compare, and write nothing")
	flag.Parse()
	if err := run(os.Stdin, *document, *check); err != nil {
		fmt.Fprintln(os.Stderr, "privileges:", err)
		os.Exit(1)
	}
}

func run(plan io.Reader, document string, check bool) error {
	grants, err := readPlan(plan)
	if err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	text, err := os.ReadFile(document)
	if err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	want, err := replaceTable(string(text), table(grants))
	if err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	switch {
	case want == string(text):
		return nil
	case check:
		return fmt.Errorf("the table in %s is not that of the plan; run make terraform-docs, and commit it", document)
	}
	if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}

// grant is one row: who may do what, where.
type grant struct{ account, role, on, address string }

// readPlan returns the grants of the first plan among the lines.
func readPlan(r io.Reader) ([]grant, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var line struct {
			Plan *struct {
				Changes []change `json:"resource_changes"`
			} `json:"test_plan"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("a line is no JSON: %w", err)
		}
		if line.Plan == nil {
			continue
		}
		var grants []grant
		for _, c := range line.Plan.Changes {
			if strings.HasSuffix(c.Type, "_iam_member") {
				grants = append(grants, c.grant())
			}
		}
		return grants, nil
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return nil, errors.New("there is none; run terraform test with -json -verbose")
}

// change is a resource of a plan, as far as a grant needs it.
type change struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Change struct {
		After struct {
			Member     string `json:"member"`
			Role       string `json:"role"`
			Project    string `json:"project"`
			Dataset    string `json:"dataset_id"`
			Topic      string `json:"topic"`
			Sub        string `json:"subscription"`
			Service    string `json:"service"`
			Bucket     string `json:"bucket"`
			Secret     string `json:"secret_id"`
			Repository string `json:"repository"`
			Account    string `json:"service_account_id"`
			Condition  []struct {
				Title string `json:"title"`
			} `json:"condition"`
		} `json:"after"`
	} `json:"change"`
}

func (c *change) grant() grant {
	a := &c.Change.After
	account, _, _ := strings.Cut(strings.TrimPrefix(a.Member, "serviceAccount:"), "@")
	for domain, agent := range map[string]string{
		"@gcp-sa-pubsub.": "Pub/Sub's agent", "@gcp-sa-logging.": "Cloud Logging's agent", "@gcp-sa-bigquerydatatransfer.": "BigQuery Data Transfer's agent",
	} {
		if strings.Contains(a.Member, domain) {
			account = agent
		}
	}
	held := cmp.Or(
		name("dataset", a.Dataset), name("topic", a.Topic), name("subscription", a.Sub), name("function", a.Service),
		name("bucket", a.Bucket), name("secret", a.Secret), name("repository", a.Repository), name("account", a.Account), name("project", a.Project),
	)
	for _, condition := range a.Condition {
		held += ", only: " + condition.Title
	}
	role := a.Role
	if _, custom, ok := strings.Cut(role, "/roles/"); ok { // of the project
		role = "custom role " + custom
	}
	return grant{account, role, held, c.Type + "." + c.Name}
}

// name is a kind of resource and the last part of its id, or nothing.
func name(kind, id string) string {
	if id == "" {
		return ""
	}
	id = id[strings.LastIndex(id, "/")+1:]
	id, _, _ = strings.Cut(id, "@")
	return kind + " `" + id + "`"
}

func table(grants []grant) string {
	slices.SortFunc(grants, func(a, b grant) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.role, b.role), cmp.Compare(a.on, b.on))
	})
	var b strings.Builder
	b.WriteString("| account | role | on | from |\n|---|---|---|---|\n")
	for _, g := range grants {
		fmt.Fprintf(&b, "| %s | `%s` | %s | `%s` |\n", g.account, g.role, g.on, g.address)
	}
	return b.String()
}

func replaceTable(text, table string) (string, error) {
	before, rest, ok := strings.Cut(text, begin+"\n")
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("the lines %q and %q are not in it", begin, end)
	}
	return before + begin + "\n" + table + end + after, nil
}

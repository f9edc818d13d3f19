package typematrix

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed TYPES.head.md
var head string

// Markdown is the text of schemas/TYPES.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("\n| PostgreSQL | BigQuery | a row is kept in `tidemark.rejects` for | `as:` |\n|---|---|---|---|\n")
	for _, t := range Types() {
		if t.As != "" {
			continue
		}
		name := "`" + t.SQL + "`"
		if t.Note != "" {
			name += ": " + t.Note
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, t.BigQuery, strings.Join(t.kept(), "; "), t.others())
	}
	b.WriteString("\nDeclared under `as:`, these have values of their own that are kept:\n\n| PostgreSQL | `as:` | a row is kept for |\n|---|---|---|\n")
	for _, t := range Types() {
		if kept := t.kept(); t.As != "" && len(kept) > 0 {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", t.SQL, t.As, strings.Join(kept, "; "))
		}
	}
	b.WriteString("\nColumn names that stop a table until `rename` or the source gives another one: ")
	var names []string
	for _, n := range Names() {
		if n.Refused {
			names = append(names, code(n.Column))
		}
	}
	b.WriteString(strings.Join(names, ", ") + " (beside `id`).\n")
	return b.String()
}

// code quotes text as Markdown's code, whatever is in it.
func code(text string) string {
	if strings.Contains(text, "`") {
		return "`` " + text + " ``"
	}
	return "`" + text + "`"
}

// kept are the reasons for which rows are kept, each once.
func (t Type) kept() []string {
	var out []string
	seen := map[string]bool{}
	for _, v := range Values() {
		c := t.Cell(v)
		if c.Quarantined == 0 || seen[c.Quarantined.String()] {
			continue
		}
		seen[c.Quarantined.String()] = true
		reason := c.Quarantined.String()
		if c.Refused {
			reason += " (PostgreSQL 17)"
		}
		out = append(out, reason)
	}
	return out
}

// others are the types that may be declared instead, as the pipeline file names them.
func (t Type) others() string {
	offered := strings.Split(t.Offered, ", ")
	for i, name := range offered {
		offered[i] = strings.TrimSuffix(strings.TrimPrefix(name, "ARRAY<"), ">")
	}
	var out []string
	for i, name := range offered[1:] {
		// Of an array, STRING and JSON are the whole of it.
		if element := strings.HasPrefix(strings.Split(t.Offered, ", ")[i+1], "ARRAY<"); element && (name == "JSON" || name == "STRING") {
			continue
		}
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

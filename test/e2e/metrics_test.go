package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/tidemark-data/tidemark/test/deployment"
)

// counted fails unless Terraform's log-based metrics count the lines: each finds some,
// by its filter, with every label and the number that it takes from them.
func counted(t *testing.T, log []byte) {
	t.Helper()
	dir := os.Getenv("TERRAFORM_ROOT") // .ci/mutations names another
	if dir == "" {
		dir = "../../terraform"
	}
	m, err := deployment.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.Evaluate(map[string]cty.Value{"project": cty.StringVal("p"), "region": cty.StringVal("r-w1"), "location": cty.StringVal("EU")})
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := v.Local("log_metrics")
	if err != nil {
		t.Fatal(err)
	}
	resource, ok := m.Resource("google_logging_metric", "event")
	if !ok {
		t.Fatal("there are no metrics")
	}
	lines := jsonLines(t, log)
	for name, metric := range metrics.AsValueMap() {
		scope := map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(name), "value": metric})}
		attribute := func(path string) cty.Value {
			t.Helper()
			a, ok := resource.Attribute(path)
			if !ok {
				t.Fatalf("%s has no %s", resource.Address(), path)
			}
			value, err := v.Attribute(a, scope)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
		found := matching(t, lines, attribute("filter").AsString())
		if len(found) == 0 {
			t.Errorf("the metric %s counts none of the lines", name)
			continue
		}
		for label, extractor := range attribute("label_extractors").AsValueMap() {
			if key := extracted(t, extractor.AsString()); !slices.ContainsFunc(found, func(l map[string]any) bool { _, ok := l[key].(string); return ok }) {
				t.Errorf("the metric %s takes its label %s from %q, which no line has", name, label, key)
			}
		}
		if value := attribute("value_extractor"); !value.IsNull() {
			key := extracted(t, value.AsString())
			if slices.ContainsFunc(found, func(l map[string]any) bool { _, ok := l[key].(float64); return !ok }) {
				t.Errorf("the metric %s adds up %q, which a line does not have", name, key)
			}
		}
	}
}

// matching are the lines that a filter of jsonPayload fields matches; what it says of
// the resource is true of all.
func matching(t *testing.T, lines []map[string]any, filter string) []map[string]any {
	t.Helper()
	terms := regexp.MustCompile(`jsonPayload\.(\w+)="([^"]*)"`).FindAllStringSubmatch(filter, -1)
	if len(terms) == 0 {
		t.Fatalf("the filter says nothing of the line: %s", filter)
	}
	var out []map[string]any
	for _, l := range lines {
		if !slices.ContainsFunc(terms, func(term []string) bool { return l[term[1]] != term[2] }) {
			out = append(out, l)
		}
	}
	return out
}

// extracted is the key of an extractor: EXTRACT(jsonPayload.key).
func extracted(t *testing.T, extractor string) string {
	t.Helper()
	key := regexp.MustCompile(`^EXTRACT\(jsonPayload\.(\w+)\)$`).FindStringSubmatch(extractor)
	if key == nil {
		t.Fatalf("not an extractor of a line's field: %s", extractor)
	}
	return key[1]
}

// jsonLines are the lines of a log that are JSON objects.
func jsonLines(t *testing.T, log []byte) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range bytes.Lines(log) {
		from := bytes.Index(line, []byte(`{"time":`)) // the framework prints without an end of line
		if from < 0 || !bytes.HasSuffix(line, []byte("\n")) {
			continue
		}
		var l map[string]any
		if err := json.Unmarshal(line[from:], &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, l)
	}
	return out
}

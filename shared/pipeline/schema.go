package pipeline

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// schemaProblems turns the validator's tree of causes into one problem per
// mistake, each with the remedy its kind allows.
func (r *reader) schemaProblems(e *jsonschema.ValidationError) {
	if len(e.Causes) > 0 {
		for _, cause := range e.Causes {
			r.schemaProblems(cause)
		}
		return
	}
	at := pointer(e.InstanceLocation)
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		within := r.schemaAt(e)
		known := properties(within)
		for _, key := range k.Properties {
			if names := patterns(within); names != "" {
				r.problem(at+"/"+key, fmt.Sprintf("%q does not fit %s", key, place(e.InstanceLocation)), "it has to match "+names)
				continue
			}
			remedy := "known keys: " + strings.Join(known, ", ")
			if near := nearest(key, known); near != "" {
				remedy = fmt.Sprintf("did you mean %q? %s", near, remedy)
			}
			r.problem(at+"/"+key, fmt.Sprintf("unknown key %q in %s", key, place(e.InstanceLocation)), remedy)
		}
	case *kind.Required:
		for _, key := range k.Missing {
			r.problem(at, fmt.Sprintf("%s has no %q", place(e.InstanceLocation), key), fmt.Sprintf("add %s:", key))
		}
	case *kind.Enum:
		known := make([]string, len(k.Want))
		for i, w := range k.Want {
			known[i] = fmt.Sprint(w)
		}
		r.problem(at, fmt.Sprintf("%v is not a value of %s", k.Got, place(e.InstanceLocation)), "use one of: "+strings.Join(known, ", "))
	case *kind.Type:
		r.problem(at, fmt.Sprintf("%s is a %s", place(e.InstanceLocation), k.Got), "it has to be: "+strings.Join(k.Want, " or "))
	case *kind.Pattern:
		r.problem(at, fmt.Sprintf("%q does not fit %s", k.Got, place(e.InstanceLocation)), "it has to match "+k.Want)
	default:
		text := e.ErrorKind.LocalizedString(message.NewPrinter(language.English))
		r.problem(at, place(e.InstanceLocation)+": "+text, "correct the value")
	}
}

func (r *reader) schemaAt(e *jsonschema.ValidationError) *jsonschema.Schema {
	return r.schema.at(e.InstanceLocation)
}

// schemaNode walks a compiled schema along an instance location.
type schemaNode struct{ *jsonschema.Schema }

func (n schemaNode) at(location []string) *jsonschema.Schema {
	s := n.Schema
	for _, part := range location {
		for s != nil && s.Ref != nil {
			s = s.Ref
		}
		if s == nil {
			return nil
		}
		switch next, ok := s.Properties[part]; {
		case ok:
			s = next
		case s.Items2020 != nil:
			s = s.Items2020
		default:
			return nil
		}
	}
	for s != nil && s.Ref != nil {
		s = s.Ref
	}
	return s
}

func properties(s *jsonschema.Schema) []string {
	if s == nil {
		return nil
	}
	out := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// patterns is what the keys of a mapping have to match; "" for any.
func patterns(s *jsonschema.Schema) string {
	if s == nil {
		return ""
	}
	var out []string
	for pattern := range s.PatternProperties {
		out = append(out, pattern.String())
	}
	sort.Strings(out)
	return strings.Join(out, " or ")
}

func pointer(location []string) string {
	if len(location) == 0 {
		return ""
	}
	return "/" + strings.Join(location, "/")
}

// place names a location as a person would: tables[2].capture.
func place(location []string) string {
	if len(location) == 0 {
		return "the file"
	}
	var b strings.Builder
	for i, part := range location {
		switch {
		case strings.Trim(part, "0123456789") == "":
			b.WriteString("[" + part + "]")
		case i > 0:
			b.WriteString("." + part)
		default:
			b.WriteString(part)
		}
	}
	return b.String()
}

func sortMappings(m []Mapping, line func(from string) int) {
	slices.SortFunc(m, func(a, b Mapping) int {
		if d := line(a.From) - line(b.From); d != 0 {
			return d
		}
		return strings.Compare(a.From, b.From)
	})
}

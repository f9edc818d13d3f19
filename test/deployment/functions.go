package deployment

import (
	"crypto/md5"  //nolint:gosec // Terraform has this function
	"crypto/sha1" //nolint:gosec // Terraform has this function
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	ctyyaml "github.com/zclconf/go-cty-yaml"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions are Terraform's, by name, as https://developer.hashicorp.com/terraform/language/functions
// describes them. Left out are the impure ones, those of networks, keys and encodings
// that no file of ours calls, and those that mark values as sensitive.
func functions() map[string]function.Function {
	table := library()
	maps.Copy(table, ofStrings())
	maps.Copy(table, collections())
	maps.Copy(table, digests())
	maps.Copy(table, files())
	table["templatefile"] = templateFile(maps.Clone(table)) // not itself: a template may not include itself
	return table
}

// library are the functions that Terraform takes from cty, hcl and cty-yaml as they are.
func library() map[string]function.Function {
	return map[string]function.Function{
		"abs": stdlib.AbsoluteFunc, "can": tryfunc.CanFunc, "ceil": stdlib.CeilFunc, "chomp": stdlib.ChompFunc,
		"chunklist": stdlib.ChunklistFunc, "coalescelist": stdlib.CoalesceListFunc, "compact": stdlib.CompactFunc,
		"concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc, "csvdecode": stdlib.CSVDecodeFunc,
		"distinct": stdlib.DistinctFunc, "element": stdlib.ElementFunc, "flatten": stdlib.FlattenFunc,
		"floor": stdlib.FloorFunc, "format": stdlib.FormatFunc, "formatdate": stdlib.FormatDateFunc,
		"formatlist": stdlib.FormatListFunc, "indent": stdlib.IndentFunc, "join": stdlib.JoinFunc,
		"jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc, "keys": stdlib.KeysFunc,
		"log": stdlib.LogFunc, "lookup": stdlib.LookupFunc, "lower": stdlib.LowerFunc, "max": stdlib.MaxFunc,
		"merge": stdlib.MergeFunc, "min": stdlib.MinFunc, "parseint": stdlib.ParseIntFunc, "pow": stdlib.PowFunc,
		"range": stdlib.RangeFunc, "regex": stdlib.RegexFunc, "regexall": stdlib.RegexAllFunc,
		"reverse": stdlib.ReverseListFunc, "setintersection": stdlib.SetIntersectionFunc,
		"setproduct": stdlib.SetProductFunc, "setsubtract": stdlib.SetSubtractFunc, "setunion": stdlib.SetUnionFunc,
		"signum": stdlib.SignumFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc, "split": stdlib.SplitFunc,
		"strrev": stdlib.ReverseFunc, "substr": stdlib.SubstrFunc, "timeadd": stdlib.TimeAddFunc,
		"title": stdlib.TitleFunc, "tobool": stdlib.MakeToFunc(cty.Bool),
		"tolist":   stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
		"tomap":    stdlib.MakeToFunc(cty.Map(cty.DynamicPseudoType)),
		"tonumber": stdlib.MakeToFunc(cty.Number), "toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"tostring": stdlib.MakeToFunc(cty.String), "trim": stdlib.TrimFunc, "trimprefix": stdlib.TrimPrefixFunc,
		"trimspace": stdlib.TrimSpaceFunc, "trimsuffix": stdlib.TrimSuffixFunc, "try": tryfunc.TryFunc,
		"upper": stdlib.UpperFunc, "values": stdlib.ValuesFunc, "yamldecode": ctyyaml.YAMLDecodeFunc,
		"yamlencode": ctyyaml.YAMLEncodeFunc, "zipmap": stdlib.ZipmapFunc,
	}
}

func ofStrings() map[string]function.Function {
	return map[string]function.Function{
		"base64decode": text(1, func(s ...string) (string, error) {
			raw, err := base64.StdEncoding.DecodeString(s[0])
			if err == nil && !utf8.Valid(raw) {
				err = errors.New("what is decoded is no UTF-8")
			}
			return string(raw), err
		}),
		"base64encode": text(1, func(s ...string) (string, error) { return base64.StdEncoding.EncodeToString([]byte(s[0])), nil }),
		"endswith":     test(func(a, b string) bool { return strings.HasSuffix(a, b) }),
		"replace":      text(3, func(s ...string) (string, error) { return replace(s[0], s[1], s[2]) }),
		"startswith":   test(func(a, b string) bool { return strings.HasPrefix(a, b) }),
		"strcontains":  test(func(a, b string) bool { return strings.Contains(a, b) }),
		"urlencode":    text(1, func(s ...string) (string, error) { return url.QueryEscape(s[0]), nil }),
	}
}

// replace takes what is between slashes for a regular expression.
func replace(s, old, by string) (string, error) {
	if len(old) < 2 || old[0] != '/' || old[len(old)-1] != '/' {
		return strings.ReplaceAll(s, old, by), nil
	}
	expression, err := regexp.Compile(old[1 : len(old)-1])
	if err != nil {
		return "", fmt.Errorf("reading the regular expression: %w", err)
	}
	return expression.ReplaceAllString(s, by), nil
}

func collections() map[string]function.Function {
	return map[string]function.Function{
		// Null and the empty string are passed over.
		"coalesce": evaluated(nil, func(args []cty.Value) (cty.Value, error) {
			types := make([]cty.Type, len(args))
			for i, a := range args {
				types[i] = a.Type()
			}
			common, _ := convert.UnifyUnsafe(types)
			if common == cty.NilType {
				return cty.NilVal, errors.New("the arguments are of different types")
			}
			for _, a := range args {
				if !a.IsNull() && !a.RawEquals(cty.StringVal("")) {
					return convert.Convert(a, common)
				}
			}
			return cty.NilVal, errors.New("every argument is null or empty")
		}),
		"alltrue": booleans(true),
		"anytrue": booleans(false),
		"index": evaluated([]cty.Type{cty.DynamicPseudoType, cty.DynamicPseudoType}, func(args []cty.Value) (cty.Value, error) {
			if t := args[0].Type(); !t.IsListType() && !t.IsTupleType() {
				return cty.NilVal, errors.New("the first argument is no list")
			}
			for i, element := range args[0].AsValueSlice() {
				if equal := element.Equals(args[1]); equal.IsKnown() && equal.True() {
					return cty.NumberIntVal(int64(i)), nil
				}
			}
			return cty.NilVal, errors.New("no element is equal to the second argument")
		}),
		"length": evaluated([]cty.Type{cty.DynamicPseudoType}, func(args []cty.Value) (cty.Value, error) {
			switch {
			case args[0].Type() == cty.String:
				return stdlib.Strlen(args[0])
			case args[0].CanIterateElements():
				return cty.NumberIntVal(int64(args[0].LengthInt())), nil
			}
			return cty.NilVal, errors.New("the argument is neither a string nor a collection")
		}),
		"one": evaluated([]cty.Type{cty.DynamicPseudoType}, func(args []cty.Value) (cty.Value, error) {
			elements, err := elementsOf(args[0])
			if err != nil || len(elements) > 1 {
				return cty.NilVal, errors.Join(err, errors.New("the argument has more than one element, or is no list"))
			}
			if len(elements) == 0 {
				return cty.NullVal(elementType(args[0].Type())), nil
			}
			return elements[0], nil
		}),
		"sum": evaluated([]cty.Type{cty.DynamicPseudoType}, func(args []cty.Value) (cty.Value, error) {
			elements, err := elementsOf(args[0])
			if err != nil || len(elements) == 0 {
				return cty.NilVal, errors.Join(err, errors.New("the argument is no list of numbers"))
			}
			total := cty.Zero
			for _, e := range elements {
				number, err := convert.Convert(e, cty.Number)
				if err != nil || number.IsNull() {
					return cty.NilVal, errors.New("the argument is no list of numbers")
				}
				total = total.Add(number)
			}
			return total, nil
		}),
	}
}

// elementsOf are the elements of a list, a set or a tuple.
func elementsOf(v cty.Value) ([]cty.Value, error) {
	if t := v.Type(); !t.IsListType() && !t.IsSetType() && !t.IsTupleType() {
		return nil, fmt.Errorf("the argument is %s", t.FriendlyName())
	}
	return v.AsValueSlice(), nil
}

// elementType is that of a list or a set; of a tuple it is open.
func elementType(t cty.Type) cty.Type {
	if t.IsCollectionType() {
		return t.ElementType()
	}
	return cty.DynamicPseudoType
}

// booleans is all of a list, or any; null is false.
func booleans(all bool) function.Function {
	return evaluated([]cty.Type{cty.List(cty.Bool)}, func(args []cty.Value) (cty.Value, error) {
		for _, e := range args[0].AsValueSlice() {
			if (!e.IsNull() && e.True()) != all {
				return cty.BoolVal(!all), nil
			}
		}
		return cty.BoolVal(all), nil
	})
}

// digests are the hashes of strings and of files, in hexadecimal and in base64.
func digests() map[string]function.Function {
	table := map[string]function.Function{}
	for name, algorithm := range map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New} {
		for prefix, encode := range map[string]func([]byte) string{"": hex.EncodeToString, "base64": base64.StdEncoding.EncodeToString} {
			if prefix != "" && (name == "md5" || name == "sha1") {
				continue
			}
			digest := func(s string) string {
				h := algorithm()
				h.Write([]byte(s))
				return encode(h.Sum(nil))
			}
			table[prefix+name] = text(1, func(s ...string) (string, error) { return digest(s[0]), nil })
			table["file"+prefix+name] = text(1, func(s ...string) (string, error) {
				content, err := os.ReadFile(s[0])
				return digest(string(content)), err
			})
		}
	}
	return table
}

// files are the functions that read the disk; relative paths are of the working
// directory, as for Terraform.
func files() map[string]function.Function {
	return map[string]function.Function{
		"abspath": text(1, func(s ...string) (string, error) {
			path, err := filepath.Abs(s[0])
			return filepath.ToSlash(path), err
		}),
		"basename": text(1, func(s ...string) (string, error) { return filepath.Base(s[0]), nil }),
		"dirname":  text(1, func(s ...string) (string, error) { return filepath.Dir(s[0]), nil }),
		"file":     text(1, func(s ...string) (string, error) { return readText(s[0]) }),
		"filebase64": text(1, func(s ...string) (string, error) {
			content, err := os.ReadFile(s[0])
			return base64.StdEncoding.EncodeToString(content), err
		}),
		"fileexists": evaluated([]cty.Type{cty.String}, func(args []cty.Value) (cty.Value, error) {
			info, err := os.Stat(args[0].AsString())
			if errors.Is(err, os.ErrNotExist) {
				return cty.False, nil
			}
			if err == nil && !info.Mode().IsRegular() {
				err = fmt.Errorf("%s is no regular file", args[0].AsString())
			}
			return cty.True, err
		}),
		"fileset": evaluated([]cty.Type{cty.String, cty.String}, func(args []cty.Value) (cty.Value, error) {
			found, err := glob(args[0].AsString(), args[1].AsString())
			if err != nil || len(found) == 0 {
				return cty.SetValEmpty(cty.String), err
			}
			values := make([]cty.Value, len(found))
			for i, f := range found {
				values[i] = cty.StringVal(f)
			}
			return cty.SetVal(values), nil
		}),
	}
}

func readText(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err == nil && !utf8.Valid(content) {
		err = fmt.Errorf("%s is no UTF-8", path)
	}
	return string(content), err
}

// templateFile renders a file as a template that sees the given variables alone.
func templateFile(table map[string]function.Function) function.Function {
	return evaluated([]cty.Type{cty.String, cty.DynamicPseudoType}, func(args []cty.Value) (cty.Value, error) {
		path, variables := args[0].AsString(), args[1]
		if t := variables.Type(); !t.IsObjectType() && !t.IsMapType() {
			return cty.NilVal, errors.New("the variables of a template are an object or a map")
		}
		content, err := readText(path)
		if err != nil {
			return cty.NilVal, err
		}
		template, diags := hclsyntax.ParseTemplate([]byte(content), path, hcl.InitialPos)
		if diags.HasErrors() {
			return cty.NilVal, failure(diags)
		}
		if err := known(template, table); err != nil {
			return cty.NilVal, err
		}
		value, diags := template.Value(&hcl.EvalContext{Variables: variables.AsValueMap(), Functions: table})
		if diags.HasErrors() {
			return cty.NilVal, failure(diags)
		}
		return value, nil
	})
}

// text is a function of n strings that returns one.
func text(n int, f func(s ...string) (string, error)) function.Function {
	return function.New(&function.Spec{
		Params: parameters(slices.Repeat([]cty.Type{cty.String}, n)),
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			in := make([]string, len(args))
			for i, a := range args {
				in[i] = a.AsString()
			}
			out, err := f(in...)
			return cty.StringVal(out), err
		},
	})
}

// test is a function of two strings that is true or false.
func test(f func(a, b string) bool) function.Function {
	return evaluated([]cty.Type{cty.String, cty.String}, func(args []cty.Value) (cty.Value, error) {
		return cty.BoolVal(f(args[0].AsString(), args[1].AsString())), nil
	})
}

// evaluated is a function whose type is that of what it returns for these arguments.
// Without parameters it takes any number of values, null among them. It is called
// with known values only: those of a for expression are unknown while hcl checks it.
func evaluated(types []cty.Type, f func(args []cty.Value) (cty.Value, error)) function.Function {
	spec := &function.Spec{
		Params: parameters(types),
		Type: func(args []cty.Value) (cty.Type, error) {
			if !allKnown(args) {
				return cty.DynamicPseudoType, nil
			}
			value, err := f(args)
			if err != nil {
				return cty.NilType, err
			}
			return value.Type(), nil
		},
		Impl: func(args []cty.Value, returned cty.Type) (cty.Value, error) {
			if !allKnown(args) {
				return cty.UnknownVal(returned), nil
			}
			return f(args)
		},
	}
	if types == nil {
		spec.VarParam = &function.Parameter{Name: "values", Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true}
	}
	return function.New(spec)
}

func allKnown(args []cty.Value) bool {
	return !slices.ContainsFunc(args, func(v cty.Value) bool { return !v.IsWhollyKnown() })
}

func parameters(types []cty.Type) []function.Parameter {
	out := make([]function.Parameter, len(types))
	for i, t := range types {
		out[i] = function.Parameter{Name: fmt.Sprintf("argument %d", i+1), Type: t}
	}
	return out
}

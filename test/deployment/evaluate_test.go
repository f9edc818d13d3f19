package deployment_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/tidemark-data/tidemark/test/deployment"
)

// folder writes files and returns where.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := deployment.Archive(files).Extract(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// load parses files, and evaluates with the given variables.
func load(t *testing.T, set map[string]cty.Value, files map[string]string) (*deployment.Module, *deployment.Values) {
	t.Helper()
	module, err := deployment.Load(folder(t, files))
	if err != nil {
		t.Fatal(err)
	}
	values, err := module.Evaluate(set)
	if err != nil {
		t.Fatal(err)
	}
	return module, values
}

// local is a local's value as JSON.
func local(t *testing.T, values *deployment.Values, name string) string {
	t.Helper()
	value, err := values.Local(name)
	if err != nil {
		t.Fatal(err)
	}
	return text(t, value)
}

func text(t *testing.T, value cty.Value) string {
	t.Helper()
	out, err := ctyjson.Marshal(value, value.Type())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestVariables(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.tf": `
variable "plain" {}
variable "size" {
  type    = number
  default = "3"
}
variable "thing" {
  type = object({
    name  = string
    count = optional(number, 2)
    inner = optional(object({ a = optional(string, "x"), b = optional(string) }), {})
  })
  default = { name = "n" }
}
variable "never_null" {
  type     = string
  default  = "d"
  nullable = false
}
variable "maybe" {
  type    = string
  default = null
}
locals {
  all = { size = var.size, thing = var.thing, never_null = var.never_null, maybe = var.maybe }
}
`}
	_, values := load(t, nil, files)
	want := `{"maybe":null,"never_null":"d","size":3,"thing":{"count":2,"inner":{"a":"x","b":null},"name":"n"}}`
	if diff := cmp.Diff(want, local(t, values, "all")); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	_, values = load(t, map[string]cty.Value{
		"size": cty.NumberIntVal(5), "never_null": cty.NullVal(cty.String), "maybe": cty.StringVal("m"),
		"thing": cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal("o"), "inner": cty.ObjectVal(map[string]cty.Value{"b": cty.StringVal("y")})}),
	}, files)
	want = `{"maybe":"m","never_null":"d","size":5,"thing":{"count":2,"inner":{"a":"x","b":"y"},"name":"o"}}`
	if diff := cmp.Diff(want, local(t, values, "all")); diff != "" {
		t.Errorf("set (-want +got):\n%s", diff)
	}
	if _, err := values.Variable("plain"); !isUnset(err, "plain") {
		t.Errorf("a variable without a value: %v", err)
	}
	if _, err := values.Variable("plane"); err == nil || isUnset(err, "plane") {
		t.Errorf("a variable that is not declared: %v", err)
	}
}

func isUnset(err error, name string) bool {
	unset, ok := errors.AsType[*deployment.UnsetError](err)
	return ok && unset.Variable == name
}

func TestEvaluateRefusesVariables(t *testing.T) {
	t.Parallel()
	module, _ := load(t, nil, map[string]string{"a.tf": "variable \"n\" {\n type = number\n}\n"})
	for name, set := range map[string]map[string]cty.Value{
		"of another type": {"n": cty.StringVal("three")},
		"undeclared":      {"m": cty.NumberIntVal(1)},
	} {
		if _, err := module.Evaluate(set); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLocals(t *testing.T) {
	t.Parallel()
	module, values := load(t, nil, map[string]string{
		"a.tf": `
locals {
  sum     = local.two + local.one
  here    = file("${path.module}/b.txt")
  root    = path.root == path.module
  egg     = [local.hen]
  hen     = { egg = local.egg }
  self    = local.self
  planned = { id = google_pubsub_topic.tick.id }
  derived = try(local.planned.id, "hidden")
  unknown = try(uuid(), "hidden")
  child   = module.network.id
  each    = each.key
  space   = terraform.workspace
  absent  = local.nothing
  index   = local["one"]
}`,
		"b.tf":  "locals {\n  one = 1\n  two = local.one * 2\n}\n",
		"b.txt": "text",
	})
	for name, want := range map[string]string{"sum": "3", "here": `"text"`, "root": "true", "space": `"default"`} {
		if got := local(t, values, name); got != want {
			t.Errorf("local.%s: got %s, want %s", name, got, want)
		}
	}
	for name, reference := range map[string]string{
		"planned": "google_pubsub_topic.tick", "derived": "google_pubsub_topic.tick", "child": "module.network", "each": "each.key",
	} {
		_, err := values.Local(name)
		if planned, ok := errors.AsType[*deployment.NotEvaluableError](err); !ok || planned.Reference != reference {
			t.Errorf("local.%s: got %v, want an error naming %s", name, err, reference)
		}
	}
	for name, mention := range map[string]string{
		"egg": "egg -> hen -> egg", "hen": "hen -> egg -> hen", "self": "self -> self", "unknown": "uuid", "absent": "nothing", "index": `"local"`,
	} {
		if _, err := values.Local(name); err == nil || !strings.Contains(err.Error(), mention) {
			t.Errorf("local.%s: got %v, want an error with %s", name, err, mention)
		}
	}
	if got := local(t, values, "sum"); got != "3" {
		t.Errorf("after the errors: %s", got)
	}
	if n := len(module.Locals()); n != 16 {
		t.Errorf("%d locals", n)
	}
}

// TestTerraformFunctions has what Terraform 1.11.4 itself gives for each expression.
func TestTerraformFunctions(t *testing.T) {
	t.Parallel()
	tests := [][2]string{
		{`alltrue([true, null])`, `false`},
		{`alltrue([])`, `true`},
		{`anytrue([false, null, true])`, `true`},
		{`anytrue([])`, `false`},
		{`base64decode(base64encode("a b"))`, `"a b"`},
		{`base64sha256("a")`, `"ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs="`},
		{`can(tonumber("x"))`, `false`},
		{`coalesce(null, "", "a", "b")`, `"a"`},
		{`coalesce(null, 0, 1)`, `0`},
		{`try(coalesce(null, ""), "none")`, `"none"`},
		{`compact(["a", "", null])`, `["a"]`},
		{`distinct(["b", "a", "b"])`, `["b","a"]`},
		{`endswith("a_test.go", "_test.go")`, `true`},
		{`[for f in ["a", "b_"] : f if !endswith(f, "_")]`, `["a"]`},
		{`flatten([["a"], [], ["b", ["c"]]])`, `["a","b","c"]`},
		{`format("%s-%03d", "a", 7)`, `"a-007"`},
		{`index(["a", "b"], "b")`, `1`},
		{`jsonencode({ b = 1, a = [true, null] })`, `"{\"a\":[true,null],\"b\":1}"`},
		{`length("héllo")`, `5`},
		{`length({ a = 1, b = 2 })`, `2`},
		{`length(toset(["a", "a"]))`, `1`},
		{`lookup({ a = 1 }, "b", 2)`, `2`},
		{`md5("a")`, `"0cc175b9c0f1b6a831c399e269772661"`},
		{`merge({ a = 1 }, { b = "x", a = 2 })`, `{"a":2,"b":"x"}`},
		{`one([])`, `null`},
		{`one(toset(["a"]))`, `"a"`},
		{`try(one(["a", "b"]), "many")`, `"many"`},
		{`regex("^([0-9]+)([hms])$", "90m")`, `["90","m"]`},
		{`regexall("([0-9]+)([hms])", "1h30m")`, `[["1","h"],["30","m"]]`},
		{`replace("a.b.c", ".", "-")`, `"a-b-c"`},
		{`replace("a1b22", "/[0-9]+/", "($0)")`, `"a(1)b(22)"`},
		{`setsubtract(["a", "b"], ["a"])`, `["b"]`},
		{`setunion(["go.mod"], toset(["b", "a"]))`, `["a","b","go.mod"]`},
		{`sha1("a")`, `"86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"`},
		{`sha256("a")`, `"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"`},
		{`sort(["b", "a"])`, `["a","b"]`},
		{`startswith("abc", "ab")`, `true`},
		{`strcontains("abc", "bc")`, `true`},
		{`sum([1, "2", 3.5])`, `6.5`},
		{`try(sum([]), "empty")`, `"empty"`},
		{`toset(["b", "a"])`, `["a","b"]`},
		{`tostring(540)`, `"540"`},
		{`trimsuffix("a.gserviceaccount.com", ".gserviceaccount.com")`, `"a"`},
		{`urlencode("a b/c")`, `"a+b%2Fc"`},
		{`yamldecode("a: [1, two]\nb: {c: null}")`, `{"a":[1,"two"],"b":{"c":null}}`},
		{`zipmap(["a", "b"], [1, 2])`, `{"a":1,"b":2}`},
		{`{ for k, v in { a = [1], b = [] } : k => sum(v) if length(v) > 0 }`, `{"a":1}`},
		{`basename("/a/b.c")`, `"b.c"`},
		{`dirname("/a/b.c")`, `"/a"`},
		{`file("${path.module}/text.txt")`, `"text"`},
		{`filesha256("${path.module}/text.txt") == sha256("text")`, `true`},
		{`filebase64("${path.module}/text.txt")`, `"dGV4dA=="`},
		{`can(file("${path.module}/binary"))`, `false`},
		{`filemd5("${path.module}/binary") != ""`, `true`},
		{`fileexists("${path.module}/text.txt")`, `true`},
		{`fileexists("${path.module}/nowhere")`, `false`},
		{`fileset(path.module, "*.txt")`, `["text.txt"]`},
		{`templatefile("${path.module}/t.tftpl", { who = "you", list = ["a", "b"] })`, `"hello you: a; b; "`},
		{`can(templatefile("${path.module}/t.tftpl", { who = "you" }))`, `false`},
		{`can(templatefile("${path.module}/loop.tftpl", {}))`, `false`},
	}
	files := map[string]string{
		"text.txt": "text", "binary": "\xff\xfe", "t.tftpl": "hello ${who}: %{ for x in list }${x}; %{ endfor }",
		"loop.tftpl": `${templatefile("loop.tftpl", {})}`,
	}
	for _, test := range tests {
		expression, want := test[0], test[1]
		t.Run(expression, func(t *testing.T) {
			t.Parallel()
			own := map[string]string{"a.tf": "locals {\n  value = " + expression + "\n}\n"}
			for name, content := range files {
				own[name] = content
			}
			_, values := load(t, nil, own)
			if got := local(t, values, "value"); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestFileset(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"a.go": "", "b.txt": "", "c/a.go": "", "c/d/a.go": "", "c/d/b.sql": "", ".hidden/a.go": "", "e/go.mod": "", "a.tf": "",
	})
	for pattern, want := range map[string]string{
		"*.go": "a.go", "**/*.go": ".hidden/a.go a.go c/a.go c/d/a.go", "c/**/*.go": "c/a.go c/d/a.go", "c/**": "c/a.go c/d/a.go c/d/b.sql",
		"c/*": "c/a.go", "{c,e}/*": "c/a.go e/go.mod", "*.{go,txt}": "a.go b.txt", "?.go": "a.go", "c/./*.go": "c/a.go", "absent/**": "",
		"[ab].*": "a.go a.tf b.txt", "**/d/*": "c/d/a.go c/d/b.sql", "{a,b}.{go,txt}": "a.go b.txt", "**.go": "a.go", "**": ".hidden/a.go a.go a.tf b.txt c/a.go c/d/a.go c/d/b.sql e/go.mod",
	} {
		module, err := deployment.Load(folder(t, map[string]string{
			"a.tf": "variable \"dir\" {}\nlocals {\n  files = join(\" \", sort(fileset(var.dir, \"" + pattern + "\")))\n}\n",
		}))
		if err != nil {
			t.Fatal(err)
		}
		values, err := module.Evaluate(map[string]cty.Value{"dir": cty.StringVal(dir)})
		if err != nil {
			t.Fatal(err)
		}
		if got := local(t, values, "files"); got != `"`+want+`"` {
			t.Errorf("%s: got %s, want %s", pattern, got, want)
		}
	}
}

func TestFilesetRefuses(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"a.tf": "locals {\n  out = fileset(path.module, \"../*\")\n  bad = fileset(path.module, \"[\")\n  link = fileset(path.module, \"**/*.go\")\n  nested = fileset(path.module, \"{a,{b,c}}\")\n  folders = fileset(path.module, \"{a/b,c}\")\n}\n", "b/a.go": ""})
	if err := os.Symlink(filepath.Join(dir, "b"), filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	module, err := deployment.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	values, err := module.Evaluate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range module.Locals() {
		if value, err := values.Local(name); err == nil {
			t.Errorf("local.%s is %s", name, text(t, value))
		}
	}
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.tf": `
variable "ip_type" {
  type    = string
  default = "PUBLIC"
  validation {
    condition     = contains(["PUBLIC", "PRIVATE"], var.ip_type)
    error_message = "ip_type: ${var.ip_type} is none of PUBLIC, PRIVATE."
  }
  validation {
    condition     = var.ip_type == "PUBLIC" || var.network != null
    error_message = "ip_type PRIVATE needs network."
  }
}
variable "network" {
  type    = string
  default = null
}
variable "unset" {
  validation {
    condition     = length(var.unset) > 3
    error_message = "too short"
  }
}
`}
	for value, want := range map[string][]deployment.Invalid{
		"PUBLIC":  nil,
		"PRIVATE": {{Variable: "ip_type", Message: "ip_type PRIVATE needs network."}},
		"public": {
			{Variable: "ip_type", Message: "ip_type: public is none of PUBLIC, PRIVATE."},
			{Variable: "ip_type", Message: "ip_type PRIVATE needs network."},
		},
	} {
		_, values := load(t, map[string]cty.Value{"ip_type": cty.StringVal(value)}, files)
		got, err := values.Invalid()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", value, diff)
		}
	}
	_, values := load(t, map[string]cty.Value{"unset": cty.NumberIntVal(1)}, files)
	if invalid, err := values.Invalid(); err == nil {
		t.Errorf("a condition that cannot be evaluated: %v", invalid)
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	module, values := load(t, nil, map[string]string{"a.tf": `
terraform {
  required_version = ">= 1.9"
}
variable "region" {
  description = <<-EOT
    Where.
  EOT
  type        = string
  default     = "europe-west1"
}
output "endpoint" {
  description = "The address."
  value       = google_pubsub_subscription.tick["extract"].push_config[0].push_endpoint
}
locals { functions = { extract = { topic = "t" } } }
data "archive_file" "function" {
  for_each = local.functions
  dynamic "source" {
    for_each = local.archives[each.key]
    content {
      filename = source.key
      content  = source.value
    }
  }
  dynamic "other" {
    for_each = [1]
    iterator = it
    content {
      a = it.value + source.key
    }
  }
}
resource "google_pubsub_subscription" "tick" {
  for_each = local.functions
  name     = "${each.value.topic}-${var.region}"
  push_config {
    push_endpoint = data.archive_file.function[each.key].output_path
    oidc_token {
      audience = [for f in local.functions : f.topic][0]
    }
  }
}
`})
	type attribute struct {
		path, source string
		references   []string
	}
	got := map[string][]attribute{}
	for _, b := range module.Blocks {
		for _, a := range b.Attributes {
			got[b.Address()] = append(got[b.Address()], attribute{a.Path, a.Source, a.References})
		}
	}
	want := map[string][]attribute{
		"terraform": {{"required_version", `">= 1.9"`, nil}},
		"data.archive_file.function": {
			{"for_each", "local.functions", []string{"local.functions"}},
			{"dynamic.source.for_each", "local.archives[each.key]", []string{"each.key", "local.archives"}},
			{"source.filename", "source.key", nil},
			{"source.content", "source.value", nil},
			{"dynamic.other.for_each", "[1]", nil},
			{"dynamic.other.iterator", "it", []string{"it"}},
			{"other.a", "it.value + source.key", []string{"source.key"}},
		},
		"google_pubsub_subscription.tick": {
			{"for_each", "local.functions", []string{"local.functions"}},
			{"name", `"${each.value.topic}-${var.region}"`, []string{"each.value", "var.region"}},
			{"push_config.push_endpoint", "data.archive_file.function[each.key].output_path", []string{"data.archive_file.function", "each.key"}},
			{"push_config.oidc_token.audience", "[for f in local.functions : f.topic][0]", []string{"local.functions"}},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(attribute{})); diff != "" {
		t.Errorf("blocks (-want +got):\n%s", diff)
	}
	if v := module.Variables["region"]; v.Description != "Where.\n" || v.Type != "string" || !v.HasDefault || !v.Nullable {
		t.Errorf("variable %+v", v)
	}
	if o := module.Outputs["endpoint"]; o.Description != "The address." || !cmp.Equal(o.Value.References, []string{"google_pubsub_subscription.tick"}) {
		t.Errorf("output %+v", o)
	}
	b, ok := module.Resource("google_pubsub_subscription", "tick")
	if want := []string{"data.archive_file.function", "each.key", "each.value", "local.functions", "var.region"}; !ok || !cmp.Equal(b.References(), want) {
		t.Errorf("references %v", b.References())
	}
	name, ok := b.Attribute("name")
	value, err := values.Attribute(name, map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"value": cty.ObjectVal(map[string]cty.Value{"topic": cty.StringVal("t")})})})
	if err != nil || !ok || text(t, value) != `"t-europe-west1"` {
		t.Errorf("the name is %#v, %v", value, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"nothing":            {"a.txt": ""},
		"JSON":               {"a.tf": "", "b.tf.json": "{}"},
		"an override":        {"a.tf": "", "a_override.tf": ""},
		"no HCL":             {"a.tf": "variable {"},
		"a bare attribute":   {"a.tf": "a = 1"},
		"a variable twice":   {"a.tf": `variable "a" {}`, "b.tf": `variable "a" {}`},
		"a local twice":      {"a.tf": "locals {\n a = 1\n}\n", "b.tf": "locals {\n a = 1\n}\n"},
		"an output twice":    {"a.tf": "output \"a\" {\n value = 1\n}\n", "b.tf": "output \"a\" {\n value = 1\n}\n"},
		"a wrong default":    {"a.tf": "variable \"a\" {\n type = number\n default = \"x\"\n}\n"},
		"a null default":     {"a.tf": "variable \"a\" {\n type = number\n default = null\n nullable = false\n}\n"},
		"no type":            {"a.tf": "variable \"a\" {\n type = strin\n}\n"},
		"a description of 1": {"a.tf": "variable \"a\" {\n description = true\n}\n"},
		"half a validation":  {"a.tf": "variable \"a\" {\n validation {\n condition = true\n }\n}\n"},
	} {
		if _, err := deployment.Load(folder(t, files)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestOurFilesAreEvaluable: every local of the deployment is evaluated, or is known to
// a plan alone, or waits for a variable; none calls a function that is missing here.
func TestOurFilesAreEvaluable(t *testing.T) {
	t.Parallel()
	module, err := deployment.Load(terraform)
	if err != nil {
		t.Fatal(err)
	}
	values, err := module.Evaluate(nil)
	if err != nil {
		t.Fatal(err)
	}
	evaluated := 0
	for _, name := range module.Locals() {
		_, err := values.Local(name)
		_, planned := errors.AsType[*deployment.NotEvaluableError](err)
		_, unset := errors.AsType[*deployment.UnsetError](err)
		if err != nil && !planned && !unset {
			t.Error(err)
		}
		if err == nil {
			evaluated++
		}
	}
	if evaluated < len(module.Locals())/2 {
		t.Errorf("%d of %d locals are evaluated", evaluated, len(module.Locals()))
	}
}

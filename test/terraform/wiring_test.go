package terraform_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/tidemark-data/tidemark/test/deployment"
)

// resource returns the block of a resource.
func resource(t *testing.T, m *deployment.Module, address string) deployment.Block {
	t.Helper()
	resourceType, name, _ := strings.Cut(address, ".")
	b, ok := m.Resource(resourceType, name)
	if !ok {
		t.Fatalf("there is no resource %s", address)
	}
	return b
}

// planned evaluates an attribute of one instance of a resource, as a plan would,
// with ids that tell the instances apart.
func planned(t *testing.T, v *deployment.Values, b deployment.Block, path, key string, value cty.Value) string {
	t.Helper()
	a, ok := b.Attribute(path)
	if !ok {
		t.Fatalf("%s has no %s", b.Address(), path)
	}
	got, err := v.Attribute(a, scope(key, value))
	if err != nil {
		t.Fatalf("%s[%q] %s: %v", b.Address(), key, path, err)
	}
	return got.AsString()
}

// scope is what one instance of a resource may refer to.
func scope(key string, value cty.Value) map[string]cty.Value {
	each := func(attributes func(name string) map[string]cty.Value) cty.Value {
		all := map[string]cty.Value{}
		for _, name := range names {
			all[name] = cty.ObjectVal(attributes(name))
		}
		return cty.ObjectVal(all)
	}
	text := func(format, name string) cty.Value { return cty.StringVal(fmt.Sprintf(format, name)) }
	topics := func(suffix string) cty.Value {
		return each(func(name string) map[string]cty.Value {
			return map[string]cty.Value{"id": text("topic-of-%s"+suffix, name), "name": text("name-of-%s"+suffix, name)}
		})
	}
	account := func(name string) map[string]cty.Value {
		return map[string]cty.Value{"email": text("%s@accounts", name), "member": text("serviceAccount:%s@accounts", name), "id": text("id-of-%s", name)}
	}
	return map[string]cty.Value{
		"each": cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(key), "value": value}),
		"google_pubsub_topic": cty.ObjectVal(map[string]cty.Value{
			"tick": topics(""), "dead_letter": topics("-dead"),
		}),
		"google_pubsub_subscription": cty.ObjectVal(map[string]cty.Value{"push": topics("")}),
		"google_cloudfunctions2_function": cty.ObjectVal(map[string]cty.Value{"function": each(func(name string) map[string]cty.Value {
			uri := cty.ObjectVal(map[string]cty.Value{"uri": text("https://%s", name)})
			return map[string]cty.Value{"name": text("service-of-%s", name), "service_config": cty.TupleVal([]cty.Value{uri})}
		})}),
		"google_service_account": cty.ObjectVal(map[string]cty.Value{
			"function": each(account), "push": cty.ObjectVal(account("push")), "build": cty.ObjectVal(account("build")),
		}),
		"google_storage_bucket_object": cty.ObjectVal(map[string]cty.Value{"source": each(func(name string) map[string]cty.Value {
			return map[string]cty.Value{"bucket": cty.StringVal("bucket"), "name": text("archive-of-%s", name)}
		})}),
	}
}

var names = []string{"dedup", "extract", "reverse-etl"}

// TestWiring: each topic is pushed to the function that reads it, as the account
// that may call it; each function is built from its own archive and runs as itself.
func TestWiring(t *testing.T) {
	t.Parallel()
	v, m := evaluate(t, base(root+"/tests/pipelines")), load(t)
	functions, err := v.Local("functions")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ resource, attribute, want string }{
		{"google_cloudfunctions2_function.function", "name", "tidemark-%s"},
		{"google_cloudfunctions2_function.function", "service_config.service_account_email", "%s@accounts"},
		{"google_cloudfunctions2_function.function", "build_config.source.storage_source.object", "archive-of-%s"},
		{"google_cloudfunctions2_function.function", "build_config.service_account", "id-of-build"},
		{"google_pubsub_topic.tick", "name", "tidemark-%s"},
		{"google_pubsub_topic.dead_letter", "name", "tidemark-%s-dead-letter"},
		{"google_pubsub_subscription.push", "topic", "topic-of-%s"},
		{"google_pubsub_subscription.push", "push_config.push_endpoint", "https://%[1]s/topic-of-%[1]s"},
		{"google_pubsub_subscription.push", "push_config.oidc_token.audience", "https://%s"},
		{"google_pubsub_subscription.push", "push_config.oidc_token.service_account_email", "push@accounts"},
		{"google_pubsub_subscription.push", "dead_letter_policy.dead_letter_topic", "topic-of-%s-dead"},
		{"google_pubsub_subscription.dead_letter", "topic", "topic-of-%s-dead"},
		{"google_pubsub_topic_iam_member.function", "topic", "name-of-%s"},
		{"google_pubsub_topic_iam_member.function", "member", "serviceAccount:%s@accounts"},
		{"google_cloud_run_service_iam_member.push", "service", "service-of-%s"},
		{"google_cloud_run_service_iam_member.push", "member", "serviceAccount:push@accounts"},
		{"google_sql_user.function", "name", "tidemark-%s@test-project.iam"},
	}
	for _, test := range tests {
		b := resource(t, m, test.resource)
		for _, name := range names {
			want := test.want
			if strings.Contains(want, "%") {
				want = fmt.Sprintf(want, name)
			}
			if got := planned(t, v, b, test.attribute, name, functions.GetAttr(name)); got != want {
				t.Errorf("%s[%q] %s is %q, want %q", test.resource, name, test.attribute, got, want)
			}
		}
	}
}

// TestScheduleWiring: each schedule publishes its own message to its function.
func TestScheduleWiring(t *testing.T) {
	t.Parallel()
	v, m := evaluate(t, base(root+"/tests/pipelines")), load(t)
	b := resource(t, m, "google_cloud_scheduler_job.tick")
	schedules, err := v.Local("schedules")
	if err != nil {
		t.Fatal(err)
	}
	for key, s := range schedules.AsValueMap() {
		function := s.GetAttr("function").AsString()
		if got, want := planned(t, v, b, "pubsub_target.topic_name", key, s), "topic-of-"+function; got != want {
			t.Errorf("%s publishes to %q, want %q", key, got, want)
		}
		data, err := base64.StdEncoding.DecodeString(planned(t, v, b, "pubsub_target.data", key, s))
		if want := fmt.Sprintf(`{"cadence":%q}`, s.GetAttr("message").GetAttr("cadence").AsString()); err != nil || string(data) != want {
			t.Errorf("%s publishes %s, want %s (%v)", key, data, want, err)
		}
		if got, want := planned(t, v, b, "name", key, s), "tidemark-"+key; got != want || !strings.HasPrefix(key, function+"-") {
			t.Errorf("%s is called %q, want %q", key, got, want)
		}
	}
}

// TestValidations: what is wrong with a variable is said with its remedy, and
// nothing is wrong with what is right.
func TestValidations(t *testing.T) {
	t.Parallel()
	object := func(pairs ...any) cty.Value {
		attributes := map[string]cty.Value{}
		for i := 0; i < len(pairs); i += 2 {
			value, ok := pairs[i+1].(cty.Value)
			if !ok {
				value = cty.StringVal(fmt.Sprint(pairs[i+1]))
			}
			attributes[fmt.Sprint(pairs[i])] = value
		}
		return cty.ObjectVal(attributes)
	}
	existing := []any{"name", "app", "instance", "data-project:europe-west1:pg"}
	with := func(pairs ...any) cty.Value { return object(append(slices.Clone(existing), pairs...)...) }
	network := object("network", "projects/p/global/networks/n", "subnetwork", "projects/p/regions/r/subnetworks/s")
	byHand := object("run", cty.False)
	tests := []struct {
		name string
		set  map[string]cty.Value
		want string // beginning of the message; empty: all is right
	}{
		{"nothing but what is needed", nil, ""},
		{"private", map[string]cty.Value{"database": with("ip_type", "PRIVATE"), "network": network}, ""},
		{"a new instance", map[string]cty.Value{"database": object("name", "app", "grants", object("deployer", "me@example.com")), "instance": object("name", "pg")}, ""},
		{"a project's name", map[string]cty.Value{"project": cty.StringVal("My Project")}, "project: write the project's id"},
		{"a continent", map[string]cty.Value{"region": cty.StringVal("EU")}, "region: write a region"},
		{"a location in small letters", map[string]cty.Value{"location": cty.StringVal("eu")}, "location: write EU, US or a region"},
		{"a level that there is not", map[string]cty.Value{"log_level": cty.StringVal("loud")}, "log_level: write debug"},
		{"a key", map[string]cty.Value{"hash_key": cty.StringVal("projects/p/secrets/s/versions/12")}, ""},
		{"whichever key is the latest", map[string]cty.Value{"hash_key": cty.StringVal("projects/p/secrets/s/versions/latest")}, "hash_key: write projects/"},
		{"a label in capitals", map[string]cty.Value{"labels": object("Team", "data")}, "labels: lower-case"},
		{"our own label", map[string]cty.Value{"labels": object("managed-by", "me")}, "labels: lower-case"},
		{"a function that there is not", map[string]cty.Value{"functions": object("verify", cty.EmptyObjectVal)}, "functions: the names are"},
		{"memory in another unit", map[string]cty.Value{"functions": object("extract", object("memory", "512MB"))}, "functions: write memory as"},
		{"no instances", map[string]cty.Value{"functions": object("extract", object("max_instances", cty.NumberIntVal(0)))}, "functions: max_instances is"},
		{"an e-mail for a channel", map[string]cty.Value{"alerts": object("channels", cty.ListVal([]cty.Value{cty.StringVal("me@example.com")}))}, "alerts.channels: write the full names"},
		{"a budget of nothing", map[string]cty.Value{"alerts": object("billed_bytes", cty.NumberIntVal(0))}, "alerts: rejects is 0 or more"},
		{"a network's short name", map[string]cty.Value{"network": object("network", "default", "subnetwork", "default")}, "network: write projects/"},
		{"an instance's short name", map[string]cty.Value{"database": object("name", "app", "instance", "pg")}, "database.instance: write project:region:instance"},
		{"no instance", map[string]cty.Value{"database": object("name", "app")}, "Set either database.instance"},
		{"two instances", map[string]cty.Value{"instance": object("name", "pg"), "database": with("grants", byHand)}, "Set either database.instance"},
		{"an address of no kind", map[string]cty.Value{"database": with("ip_type", "private"), "network": network}, "database.ip_type: write PUBLIC"},
		{"private without a network", map[string]cty.Value{"database": with("ip_type", "PRIVATE")}, "database.ip_type PRIVATE and PSC need"},
		{"a database with a blank", map[string]cty.Value{"database": object("name", "the app", "instance", "p:r:i")}, "database.name: write"},
		{"a user without a password", map[string]cty.Value{"database": with("grants", object("user", "postgres"))}, "database.grants: set user and password_secret_version together"},
		{"a global secret", map[string]cty.Value{"database": with("grants", object("user", "postgres", "password_secret_version", "projects/p/secrets/s/versions/1"))}, "database.grants.password_secret_version: Cloud SQL reads regional"},
		{"nobody to run the grants", map[string]cty.Value{"database": object("name", "app"), "instance": object("name", "pg")}, "database.grants.deployer: name"},
		{"an instance in capitals", map[string]cty.Value{"database": object("name", "app", "grants", byHand), "instance": object("name", "PG")}, "instance.name: lower-case"},
		{"an old Postgres", map[string]cty.Value{"database": object("name", "app", "grants", byHand), "instance": object("name", "pg", "version", "POSTGRES_13")}, "instance.version: write POSTGRES_14"},
		{"an edition that there is not", map[string]cty.Value{"database": object("name", "app", "grants", byHand), "instance": object("name", "pg", "edition", "BUSINESS")}, "instance.edition: write"},
		{"an availability that there is not", map[string]cty.Value{"database": object("name", "app", "grants", byHand), "instance": object("name", "pg", "availability_type", "HIGH")}, "instance.availability_type: write"},
		{"an hour that there is not", map[string]cty.Value{"database": object("name", "app", "grants", byHand), "instance": object("name", "pg", "backup_start", "24:00")}, "instance.backup_start: write"},
		{"a flag of ours", map[string]cty.Value{"database": object("name", "app", "grants", byHand), "instance": object("name", "pg", "flags", object("cloudsql.logical_decoding", "on"))}, "instance.flags: cloudsql.iam"},
	}
	m := load(t)
	tested := map[string]bool{}
	for _, test := range tests {
		variables := base("")
		maps.Copy(variables, test.set)
		v, err := m.Evaluate(variables)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		invalid, err := v.Invalid()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		var messages []string
		for _, i := range invalid {
			messages = append(messages, i.Message)
			tested[i.Message] = true
		}
		if test.want == "" && len(messages) > 0 || test.want != "" && (len(messages) != 1 || !strings.HasPrefix(messages[0], test.want)) {
			t.Errorf("%s: refused for %q, want %q", test.name, messages, test.want)
		}
	}
	for _, variable := range m.Variables {
		for _, validation := range variable.Validations {
			if text := strings.Trim(validation.ErrorMessage.Source, `"`); !tested[text] {
				t.Errorf("%s: no test breaks it", validation.ErrorMessage.Position)
			}
		}
	}
}

// TestPlaybooks: every alert has one, of a length that Cloud Monitoring takes, and
// each is linked from the document.
func TestPlaybooks(t *testing.T) {
	t.Parallel()
	document := text(t, root+"/README.md")
	files, err := filepath.Glob(root + "/playbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		playbook := text(t, file)
		if len(playbook) < 300 || len(playbook) >= 8192 {
			t.Errorf("%s has %d bytes; Cloud Monitoring takes 8191", file, len(playbook))
		}
		if !strings.Contains(document, "(playbooks/"+filepath.Base(file)+")") {
			t.Errorf("%s is not linked", file)
		}
		found[strings.TrimSuffix(filepath.Base(file), ".md")] = true
	}
	alerts := local[map[string]any](t, evaluate(t, base(root+"/tests/pipelines/wal")), "alerts") // with all there are
	for name := range alerts {
		if !found[name] {
			t.Errorf("the alert %s has no playbook", name)
		}
	}
	if len(found) != len(alerts) {
		t.Errorf("playbooks %v for the alerts %v", found, slices.Collect(maps.Keys(alerts)))
	}
}

// TestPrivilegesAreDocumented: the table of the document, written from the plan,
// has every role that the files grant, and no others.
func TestPrivilegesAreDocumented(t *testing.T) {
	t.Parallel()
	role := regexp.MustCompile(`roles/[a-zA-Z.]+`)
	_, table, _ := strings.Cut(text(t, root+"/README.md"), "<!-- privileges:")
	table, _, _ = strings.Cut(table, "<!-- privileges end")
	files, err := filepath.Glob(root + "/*.tf")
	if err != nil {
		t.Fatal(err)
	}
	granted := map[string]bool{}
	for _, file := range files {
		for _, r := range role.FindAllString(text(t, file), -1) {
			granted[r] = true
		}
	}
	documented := map[string]bool{}
	for _, r := range role.FindAllString(table, -1) {
		documented[r] = true
	}
	if diff := cmp.Diff(granted, documented); diff != "" {
		t.Errorf("roles (-granted +documented; make terraform-docs writes them):\n%s", diff)
	}
	for _, b := range load(t).Blocks {
		if strings.HasSuffix(b.Type, "_iam_member") && !strings.Contains(table, "`"+b.Type+"."+b.Name+"`") {
			t.Errorf("%s.%s is not in the table; make terraform-docs writes it", b.Type, b.Name)
		}
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

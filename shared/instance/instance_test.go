package instance_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
	"github.com/tidemark-data/tidemark/shared/telemetry"
	"github.com/tidemark-data/tidemark/shared/tick"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func from(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"shop.yaml": "pipeline: shop\ndestination: {dataset: shop}\n"})
	connector := cloudsql.Config{Instance: "p:r:i", User: "tidemark@p.iam", Name: "shop"}
	url := cloudsql.Config{URL: "postgres://u@h/d"}
	control := func(c cloudsql.Config) cloudsql.Config { c.OwnerOf = "tidemark"; return c }
	private := connector
	private.IPType = "PRIVATE"
	tests := []struct {
		name      string
		variables map[string]string
		want      instance.Config
	}{
		{
			"production",
			map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "BIGQUERY_LOCATION": "EU", "CLOUD_SQL_INSTANCE": "p:r:i", "DB_USER": "tidemark@p.iam", "DB_NAME": "shop"},
			instance.Config{Source: connector, Control: control(connector), Warehouse: warehouse.Config{Project: "p", Location: "EU"}},
		},
		{
			"by private IP",
			map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "CLOUD_SQL_INSTANCE": "p:r:i", "CLOUD_SQL_IP_TYPE": "PRIVATE", "DB_USER": "tidemark@p.iam", "DB_NAME": "shop"},
			instance.Config{Source: private, Control: control(private), Warehouse: warehouse.Config{Project: "p"}},
		},
		{
			"by URL, on emulators",
			map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": "postgres://u@h/d", "BIGQUERY_EMULATOR_HOST": "a:1", "BIGQUERY_STORAGE_EMULATOR_HOST": "a:2"},
			instance.Config{Source: url, Control: control(url), Warehouse: warehouse.Config{Project: "p", Host: "a:1", StorageHost: "a:2"}},
		},
		{
			"with what lands rows",
			map[string]string{
				"GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": "postgres://u@h/d", "TIDEMARK_STAGING_BUCKET": "b",
				"TIDEMARK_HASH_KEY": strings.Repeat("0a", 32) + "\n",
			},
			instance.Config{
				Source: url, Control: control(url), Warehouse: warehouse.Config{Project: "p", StagingBucket: "b"},
				HashKey: bytes.Repeat([]byte{10}, 32),
			},
		},
		{
			"with all of it on emulators",
			map[string]string{
				"GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": "postgres://u@h/d", "BIGQUERY_EMULATOR_HOST": "a:1", "BIGQUERY_STORAGE_EMULATOR_HOST": "a:2",
				"TIDEMARK_STAGING_BUCKET": "b", "STORAGE_EMULATOR_HOST": "a:3",
			},
			instance.Config{Source: url, Control: control(url), Warehouse: warehouse.Config{Project: "p", Host: "a:1", StorageHost: "a:2", StagingBucket: "b"}},
		},
		{
			"the control plane apart",
			map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "CLOUD_SQL_INSTANCE": "p:r:i", "DB_USER": "tidemark@p.iam", "DB_NAME": "shop", "CONTROL_DATABASE_URL": "postgres://u@h/d"},
			instance.Config{Source: connector, Control: control(url), Warehouse: warehouse.Config{Project: "p"}},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.variables["TIDEMARK_PIPELINES"] = dir
			got, err := instance.Load(from(test.variables))
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Pipelines) != 1 || got.Pipelines[0].Name != "shop" {
				t.Errorf("pipelines %+v", got.Pipelines)
			}
			got.Pipelines = nil
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Load (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadEmbedded(t *testing.T) {
	t.Parallel()
	got, err := instance.Load(from(map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": "postgres://u@h/d"}))
	if err != nil || len(got.Pipelines) == 0 {
		t.Errorf("Load = %+v, %v", got, err)
	}
}

// TestLoadReportsEverything that is wrong, variables and files, in one permanent
// error.
func TestLoadReportsEverything(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{
		"a.yaml": "pipeline: shop\ndestination: {dataset: d}\ndefaults: {evry: 1m}\n",
		"b.yaml": "pipeline: other\n",
	})
	_, err := instance.Load(from(map[string]string{"BIGQUERY_EMULATOR_HOST": "a:1", "TIDEMARK_PIPELINES": dir, "CLOUD_SQL_IP_TYPE": "private"}))
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
		t.Fatalf("%v is %v with the remedy %q", err, class, remedy)
	}
	want := []string{
		"the configuration is wrong:",
		"environment: GOOGLE_CLOUD_PROJECT is not set; set it to the project of the BigQuery datasets",
		"environment: CLOUD_SQL_INSTANCE is not set; set it to project:region:instance, or set DATABASE_URL",
		"environment: DB_USER is not set; set it to the function's IAM database user, or set DATABASE_URL",
		"environment: DB_NAME is not set; set it to the database, or set DATABASE_URL",
		`environment: CLOUD_SQL_IP_TYPE is "private"; set it to one of PUBLIC, PRIVATE, PSC`,
		"environment: one of BIGQUERY_EMULATOR_HOST and BIGQUERY_STORAGE_EMULATOR_HOST is set; set both, or neither",
		`a.yaml:3: unknown key "evry" in defaults; did you mean "every"? known keys: batch_rows, deletes, every, max_reject_percent, schema_changes, write`,
		`b.yaml:1: the file has no "destination"; add destination:`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

func TestLoadShortInstance(t *testing.T) {
	t.Parallel()
	_, err := instance.Load(from(map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "CLOUD_SQL_INSTANCE": "shop:main", "DB_USER": "u", "DB_NAME": "d"}))
	if err == nil || !strings.Contains(err.Error(), `CLOUD_SQL_INSTANCE is "shop:main"; set it to project:region:instance`) {
		t.Errorf("error %v", err)
	}
}

func TestLoadStorageHostAlone(t *testing.T) {
	t.Parallel()
	_, err := instance.Load(from(map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": "postgres://u@h/d", "BIGQUERY_STORAGE_EMULATOR_HOST": "a:2"}))
	if err == nil || !strings.Contains(err.Error(), "set both, or neither") {
		t.Errorf("error %v", err)
	}
}

// landing declares a table that needs a bucket, one that needs a key and one that
// needs neither, though its old rows go by load job.
const landing = `pipeline: shop
destination: {dataset: shop}
tables:
  - {name: stats, capture: {method: snapshot}, write: replace}
  - {name: customers, capture: {method: wal}, columns: {hash: [email]}}
  - {name: orders, capture: {method: wal}, partition_by: {column: at}}
`

// TestLoadForLanding: what only the landing of rows needs, Extract refuses to begin
// without, and the other functions are deployed without.
func TestLoadForLanding(t *testing.T) {
	t.Parallel()
	const (
		bucket = "shop.yaml:4: table \"stats\" is written by load jobs, which need a bucket, and TIDEMARK_STAGING_BUCKET is not set; " +
			"set it to a bucket in the location of the dataset, or write: merge"
		key = "shop.yaml:5: table \"customers\" has hashed columns, and TIDEMARK_HASH_KEY holds no key for them; " +
			"set it to what `openssl rand -hex 32` prints, and keep it: with another key, equal values are no longer equal"
		emulators = "environment: one of BIGQUERY_EMULATOR_HOST and STORAGE_EMULATOR_HOST is set, so that load jobs would not find their files; set both, or neither"
	)
	good := strings.Repeat("Ab", 32)
	tests := []struct {
		name      string
		variables map[string]string
		want      []string
	}{
		{"Extract without both", map[string]string{"FUNCTION_TARGET": "Extract"}, []string{bucket, key}},
		{"every function without both", nil, []string{bucket, key}},
		{"without a bucket", map[string]string{"TIDEMARK_HASH_KEY": good}, []string{bucket}},
		{"without a key", map[string]string{"TIDEMARK_STAGING_BUCKET": "b"}, []string{key}},
		{"with a blank key", map[string]string{"TIDEMARK_STAGING_BUCKET": "b", "TIDEMARK_HASH_KEY": " \n"}, []string{key}},
		{"with both", map[string]string{"TIDEMARK_STAGING_BUCKET": "b", "TIDEMARK_HASH_KEY": good}, nil},
		{"another function", map[string]string{"FUNCTION_TARGET": "Dedup"}, nil},
		{
			"a key that is none",
			map[string]string{"TIDEMARK_STAGING_BUCKET": "b", "TIDEMARK_HASH_KEY": "my key"},
			[]string{"environment: TIDEMARK_HASH_KEY is neither hexadecimal nor base64; set it to what `openssl rand -hex 32` prints", key},
		},
		{"files on the emulator alone", map[string]string{"TIDEMARK_STAGING_BUCKET": "b", "TIDEMARK_HASH_KEY": good, "STORAGE_EMULATOR_HOST": "a:3"}, []string{emulators}},
		{
			"BigQuery on the emulator alone",
			map[string]string{"TIDEMARK_STAGING_BUCKET": "b", "TIDEMARK_HASH_KEY": good, "BIGQUERY_EMULATOR_HOST": "a:1", "BIGQUERY_STORAGE_EMULATOR_HOST": "a:2"},
			[]string{emulators},
		},
	}
	dir := folder(t, map[string]string{"shop.yaml": landing})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			variables := map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": "postgres://u@h/d", "TIDEMARK_PIPELINES": dir}
			maps.Copy(variables, test.variables)
			_, err := instance.Load(from(variables))
			if len(test.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if class, _ := fault.Classify(err); err == nil || class != fault.Permanent {
				t.Fatalf("%v is %v", err, class)
			}
			if diff := cmp.Diff(test.want, strings.Split(err.Error(), "\n")[1:]); diff != "" {
				t.Errorf("Load (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHashKey: in whichever form a key comes it is the same; one that can be guessed
// is refused, and no error says what it was.
func TestHashKey(t *testing.T) {
	t.Parallel()
	key := []byte("\xfb\xff\xbf a key of 32 bytes, or more..")
	load := func(text string) ([]byte, error) {
		c, err := instance.Load(from(map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": "postgres://u@h/d", "TIDEMARK_HASH_KEY": text}))
		return c.HashKey, err
	}
	for _, text := range []string{
		hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), " " + hex.EncodeToString(key) + "\r\n",
		base64.StdEncoding.EncodeToString(key), base64.URLEncoding.EncodeToString(key), base64.RawStdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key),
	} {
		if got, err := load(text); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%q is read as %q, %v", text, got, err)
		}
	}
	for _, text := range []string{
		hex.EncodeToString(key[:31]), base64.StdEncoding.EncodeToString(key[:31]), "correct horse battery staple", hex.EncodeToString(key)[1:] + "!", "=",
	} {
		got, err := load(text)
		if err == nil || got != nil {
			t.Errorf("%q is read as %q", text, got)
		} else if len(text) > 1 && strings.Contains(err.Error(), text) {
			t.Errorf("the error gives the key away: %v", err)
		}
	}
}

const secret = "hunter2"

// environment sets what a handler reads; everything else of the machine's is cleared.
func environment(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, name := range []string{
		"CLOUD_SQL_INSTANCE", "CLOUD_SQL_IP_TYPE", "DB_USER", "DB_NAME", "DATABASE_URL", "CONTROL_DATABASE_URL", "GOOGLE_CLOUD_PROJECT", "BIGQUERY_LOCATION",
		"BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST", "TIDEMARK_PIPELINES", "LOG_LEVEL",
	} {
		t.Setenv(name, variables[name])
	}
}

// delivery is the event of a message published now, or as long ago as age.
func delivery(t *testing.T, data string, age time.Duration) event.Event {
	t.Helper()
	e := event.New()
	e.SetID("event-1")
	e.SetSource("//pubsub.googleapis.com/")
	e.SetType("google.cloud.pubsub.topic.v1.messagePublished")
	body := fmt.Sprintf(`{"message":{"data":%q,"messageId":"m-1","publishTime":%q}}`, base64.StdEncoding.EncodeToString([]byte(data)), time.Now().Add(-age).Format(time.RFC3339Nano))
	if err := e.SetData(event.ApplicationJSON, []byte(body)); err != nil {
		t.Fatal(err)
	}
	return e
}

// handle has one event handled and returns the answer and the log lines.
func handle(t *testing.T, e event.Event) (lines []map[string]any, log string, answer error) {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stderr := os.Stderr
	os.Stderr = file
	var i instance.Instance
	handler := i.Handler("extract", func(context.Context, *instance.Connections, tick.Delivery) error {
		return errors.New("the work began")
	})
	answer = handler(t.Context(), e)
	os.Stderr = stderr
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	for decoder.More() {
		var line map[string]any
		if err := decoder.Decode(&line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, line)
	}
	return lines, string(text), answer
}

func TestHandlerAnswers(t *testing.T) { //nolint:paralleltest // environment and standard error belong to the process
	dir := folder(t, map[string]string{"shop.yaml": "pipeline: shop\ndestination: {dataset: shop}\n"})
	reachable := func(url string) map[string]string {
		return map[string]string{"GOOGLE_CLOUD_PROJECT": "p", "DATABASE_URL": url, "TIDEMARK_PIPELINES": dir}
	}
	closed := "postgres://user:" + secret + "@127.0.0.1:1/database" // nothing listens on port 1
	tests := []struct {
		name      string
		variables map[string]string
		data      string
		age       time.Duration
		ack       bool
		want      []map[string]any // of each log line
	}{
		{
			"wrong configuration: nobody is helped by trying again", nil, `{"cadence":"1m"}`, 0, true,
			[]map[string]any{{"severity": "ERROR", "class": "permanent", "remedy": "correct what is listed and deploy again"}},
		},
		{
			"malformed URL", reachable("postgres://user:" + secret + "@host:port/database"), `{"cadence":"1m"}`, 0, true,
			[]map[string]any{{"severity": "ERROR", "class": "permanent", "remedy": "write postgres://user:password@host:port/database"}},
		},
		{
			"malformed URL of the control plane", func() map[string]string {
				v := reachable(closed)
				v["CONTROL_DATABASE_URL"] = "postgres://user:" + secret + "%zz@host/database"
				return v
			}(), `{"cadence":"1m"}`, 0, true,
			[]map[string]any{{"severity": "ERROR", "class": "permanent", "remedy": "write postgres://user:password@host:port/database"}},
		},
		{
			"unreachable database", reachable(closed), `{"cadence":"1m"}`, 0, false,
			[]map[string]any{{"severity": "ERROR", "class": "transient", "remedy": "nothing listens at that address: check host and port, and that the server is up"}},
		},
		{ // it has yet to be recorded
			"unreadable message while the database is away", reachable(closed), `{"cadense":"1m"}`, 0, false,
			[]map[string]any{{"severity": "ERROR", "class": "transient"}},
		},
		{
			"unreadable message and wrong configuration", nil, `{"cadense":"1m"}`, 0, true,
			[]map[string]any{{"severity": "ERROR", "class": "permanent"}},
		},
		{
			"stale tick: dropped before anything is opened", reachable(closed), `{"cadence":"1m"}`, time.Hour, true,
			[]map[string]any{{"severity": "INFO", "message": "dropped: the tick is too old, the next one does its work"}},
		},
		{
			"an operator's run is never stale", reachable(closed), `{"pipeline":"shop","tenant":"acme"}`, time.Hour, false,
			[]map[string]any{{"severity": "ERROR", "class": "transient", "pipeline": "shop", "tenant": "acme"}},
		},
	}
	for _, test := range tests { //nolint:paralleltest // as above
		t.Run(test.name, func(t *testing.T) {
			environment(t, test.variables)
			lines, text, answer := handle(t, delivery(t, test.data, test.age))
			if (answer == nil) != test.ack {
				t.Errorf("answer %v, want an acknowledgement: %t", answer, test.ack)
			}
			if answer != nil && (strings.Contains(answer.Error(), "%") || strings.Contains(answer.Error(), "database")) {
				t.Errorf("the answer says %q: the framework prints it as a format", answer)
			}
			if strings.Contains(text, secret) {
				t.Errorf("the log has the password: %s", text)
			}
			if len(lines) != len(test.want) {
				t.Fatalf("%d log lines: %s", len(lines), text)
			}
			for i, line := range lines {
				want := map[string]any{"run": "m-1", "kind": "extract"}
				if test.want[i]["severity"] == "ERROR" {
					want["message"], want["data"] = string(telemetry.Failed), test.data
				}
				maps.Copy(want, test.want[i])
				maps.DeleteFunc(line, func(k string, _ any) bool { _, asked := want[k]; return !asked })
				if diff := cmp.Diff(want, line); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestHandlerTriesToConnectAgain: a failure to connect is not kept.
func TestHandlerTriesToConnectAgain(t *testing.T) {
	var i instance.Instance
	handler := i.Handler("dedup", func(context.Context, *instance.Connections, tick.Delivery) error { return nil })
	environment(t, nil)
	if answer := handler(t.Context(), delivery(t, "", 0)); answer != nil {
		t.Errorf("wrong configuration: %v", answer)
	}
	t.Setenv("GOOGLE_CLOUD_PROJECT", "p")
	t.Setenv("DATABASE_URL", "postgres://user:"+secret+"@127.0.0.1:1/database")
	if answer := handler(t.Context(), delivery(t, "", 0)); answer == nil {
		t.Error("the first failure was kept: the database was not tried")
	}
}

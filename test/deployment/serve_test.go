package deployment_test

import (
	"errors"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// opensNothingAtImport starts a function with nothing to connect to, then with a
// database and a BigQuery that count who connects: it listens either way, and
// connects for its first message and not before.
func opensNothingAtImport(t *testing.T, f deployed, binary string) {
	t.Helper()
	bare := launch(t, binary, f.entryPoint).ready()
	if log := bare.log.String(); log != "" {
		t.Errorf("it logged before its first message: %s", log)
	}
	// Without a configuration no delivery will ever do: it is acknowledged and logged.
	if status := bare.push(f.topic, ""); status != http.StatusOK && status != http.StatusNoContent {
		t.Errorf("without a configuration it answered %d", status)
	}
	lines := bare.lines()
	if len(lines) != 1 || lines[0]["severity"] != "ERROR" || lines[0]["class"] != "permanent" || lines[0]["remedy"] == "" {
		t.Errorf("without a configuration it logged %v", lines)
	}

	host, connections := counting(t)
	s := launch(t, binary, f.entryPoint, "DATABASE_URL=postgres://user@"+host+"/app?sslmode=disable", "GOOGLE_CLOUD_PROJECT="+project,
		"BIGQUERY_EMULATOR_HOST="+host, "BIGQUERY_STORAGE_EMULATOR_HOST="+host, "PUBSUB_EMULATOR_HOST="+host).ready()
	if n := connections.Load(); n != 0 {
		t.Errorf("it opened %d connections before its first message", n)
	}
	if status := s.push(f.topic, ""); status != http.StatusInternalServerError {
		t.Errorf("with a database that hangs up it answered %d, want 500 to have the message again", status)
	}
	if connections.Load() == 0 {
		t.Error("its first message opened no connection: the count tells nothing")
	}
}

// counting is a server that hangs up on everybody and counts them.
func counting(t *testing.T) (host string, connections *atomic.Int64) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = &atomic.Int64{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String(), connections
}

// refusesAnotherEntryPoint: an entry point that the program does not have ends it, so
// that the deployment fails rather than its messages.
func refusesAnotherEntryPoint(t *testing.T, binary string) {
	t.Helper()
	s := launch(t, binary, "Extrakt")
	select {
	case <-s.process.Exited():
	case <-t.Context().Done():
		t.Fatal("it went on")
	}
	if _, failed := errors.AsType[*exec.ExitError](s.process.Err()); !failed {
		t.Errorf("it ended with %v, want a status other than 0", s.process.Err())
	}
	if !strings.Contains(s.log.String(), "Extrakt") {
		t.Errorf("it did not say which function it lacks: %s", s.log)
	}
}

// work has the three functions do what they are for, once for a push and once for a
// CloudEvent.
func work(t *testing.T, all []deployed, binaries map[string]string) {
	t.Helper()
	c := newCloud(t)
	servers := map[string]*server{}
	topics := map[string]string{}
	for _, f := range all {
		servers[f.entryPoint] = launch(t, binaries[f.name], f.entryPoint, c.environment...).ready()
		topics[f.entryPoint] = f.topic
	}
	deliver := func(how func(topic, data string) int, function, data string) {
		t.Helper()
		if status := how(topics[function], data); status != http.StatusOK && status != http.StatusNoContent {
			t.Fatalf("%s answered %d:\n%s", function, status, servers[function].log)
		}
	}
	expect := func(what string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %d, want %d", what, got, want)
		}
	}
	change := func() { c.exec(`UPDATE items SET name = name || '!', updated_at = clock_timestamp() WHERE id <= 5`) }
	extract, dedup, reverse := servers["Extract"], servers["Dedup"], servers["ReverseETL"]

	deliver(extract.push, "Extract", `{"cadence":"1m"}`)
	expect("rows of the view", c.count("shop.items"), 10)
	change()
	deliver(extract.event, "Extract", `{"pipeline":"shop"}`)
	expect("rows of the view after a change", c.count("shop.items"), 10)
	expect("versions after a change", c.count("shop.items_log"), 15)

	deliver(dedup.push, "Dedup", `{"cadence":"90m"}`)
	expect("versions after a clean-up", c.count("shop.items_log"), 10)
	change()
	deliver(extract.push, "Extract", `{"cadence":"1m"}`)
	deliver(dedup.event, "Dedup", `{"pipeline":"shop"}`)
	expect("versions after another clean-up", c.count("shop.items_log"), 10)

	deliver(reverse.push, "ReverseETL", `{"cadence":"15m"}`)
	expect("scores", c.rows(`SELECT count(*) FROM scores WHERE score = id / 4.0`), 10)
	c.exec(`UPDATE scores SET score = 0 WHERE id = 7`)
	deliver(reverse.event, "ReverseETL", `{"sync":"scores"}`)
	expect("scores after one was lost", c.rows(`SELECT count(*) FROM scores WHERE score = id / 4.0`), 10)

	expect("runs", c.rows(`SELECT count(*) FROM tidemark.runs WHERE outcome = 'ok'`), 7)
	for name, s := range servers {
		if lines := s.lines(); slices.ContainsFunc(lines, func(l map[string]any) bool { return l["severity"] == "ERROR" }) {
			t.Errorf("%s logged an error: %v", name, lines)
		}
	}
}

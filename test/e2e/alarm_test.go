package e2e_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-data/tidemark/test/stack"
)

// lines keeps what the functions log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(l.text.String(), "\n")
}

// TestBrakeRaisesTheAlarm: a sync that its brakes stopped is a permanent failure, as the
// alert of failing syncs counts them, with what to send in the remedy.
func TestBrakeRaisesTheAlarm(t *testing.T) {
	t.Parallel()
	var log lines
	s := startWith(t, stack.Options{Log: &log}, map[string]string{"crm": `
pipeline: crm
destination: {dataset: crm}
reverse_etl:
  - {name: emptied, mode: mirror, query: SELECT 1 AS id LIMIT 0, target: {table: contacts, key: {id: id}}}
`}, `CREATE TABLE contacts (id int PRIMARY KEY); INSERT INTO contacts SELECT generate_series(1, 100)`)
	must(t, s.Push(t.Context(), "ReverseETL", `{"pipeline":"crm","sync":"emptied"}`)) // acknowledged: to try again changes nothing
	conn := connect(t, s.DatabaseURL())
	if got := scan[string](t, conn, `SELECT outcome || ' ' || (SELECT count(*) FROM contacts) FROM tidemark.runs WHERE name = 'emptied'`); got != "failed 100" {
		t.Errorf("run and contacts: %s", got)
	}
	type line struct {
		Severity, Message, Kind, Pipeline, Sync, Class, Remedy string
	}
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		for _, text := range log.all() {
			_, text, _ = strings.Cut(text, `{"time":`) // after the framework's warnings, which end no line
			var got line
			if json.Unmarshal([]byte(`{"time":`+text), &got) != nil || got.Message != "failed" {
				continue
			}
			if got.Severity != "ERROR" || got.Kind != "reverse_etl" || got.Pipeline != "crm" || got.Sync != "emptied" || got.Class != "permanent" || !strings.Contains(got.Remedy, `"override":`) {
				t.Errorf("logged %+v", got)
			}
			return
		}
		select {
		case <-poll.C: // the log comes through a pipe, after the answer
		case <-deadline.C:
			t.Fatalf("no failure is logged:\n%s", s.LastLog())
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
)

func TestKeep(t *testing.T) {
	t.Parallel()
	tests := []struct {
		cadence pipeline.Cadence
		lasts   time.Duration
		want    []string
	}{
		{"1m", 150 * time.Second, []string{"00:00:00", "00:01:00", "00:02:00"}}, // at once, too
		{"*/5 * * * *", 11 * time.Minute, []string{"00:05:00", "00:10:00"}},
		{"CRON_TZ=Asia/Kathmandu 0 6 * * *", 24 * time.Hour, []string{"00:15:00"}}, // UTC+5:45
		{"never", time.Minute, nil},
	}
	for _, test := range tests {
		t.Run(string(test.cadence), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // its clock begins at midnight UTC
				ctx, cancel := context.WithTimeout(t.Context(), test.lasts)
				defer cancel()
				var got []string
				keep(ctx, test.cadence, func() { got = append(got, time.Now().UTC().Format(time.TimeOnly)) })
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("ticks (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestDoors(t *testing.T) {
	t.Parallel()
	p := pipeline.Pipeline{Tables: []pipeline.Table{{Every: "1m"}}, Dedup: &pipeline.Dedup{Every: "90m"}, ReverseETL: []pipeline.Sync{{Every: "15m"}}}
	got := map[string][]pipeline.Cadence{}
	for _, d := range doors() {
		got[d.function+" "+d.topic] = d.cadences(p)
	}
	want := map[string][]pipeline.Cadence{
		"Extract " + tick.TopicExtract: {"1m"}, "Dedup " + tick.TopicDedup: {"90m"}, "ReverseETL " + tick.TopicReverseETL: {"15m"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("doors (-want +got):\n%s", diff)
	}
}

// pushed is a push body as the functions framework reads it.
type pushed struct {
	Subscription string
	Message      struct {
		Data        []byte
		Attributes  map[string]string
		MessageID   string
		PublishTime time.Time
	}
}

func TestPost(t *testing.T) {
	t.Parallel()
	published := time.Date(2026, 5, 1, 10, 0, 0, 123456789, time.FixedZone("", 3600))
	for _, status := range []int{200, 204, 299, 300, 404, 500, 503} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			var got pushed
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != "/Extract" || r.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%s %s of %s", r.Method, r.URL, r.Header.Get("Content-Type"))
				}
				if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
					t.Error(err)
				}
				w.WriteHeader(status)
			}))
			defer server.Close()
			p := pusher{url: server.URL + "/Extract", subscription: "projects/p/subscriptions/s"}
			err := p.post(t.Context(), &pubsub.Message{ID: "m-1", Data: []byte(`{"cadence":"1m"}`), Attributes: map[string]string{"a": "b"}, PublishTime: published})
			if (err == nil) != (status < 300) {
				t.Errorf("status %d: %v", status, err)
			}
			want := pushed{Subscription: "projects/p/subscriptions/s"}
			want.Message.Data, want.Message.Attributes = []byte(`{"cadence":"1m"}`), map[string]string{"a": "b"}
			want.Message.MessageID, want.Message.PublishTime = "m-1", published.UTC()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPostToNobody(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	if err := (&pusher{url: server.URL}).post(t.Context(), &pubsub.Message{}); err == nil {
		t.Error("a push to a closed port succeeded")
	}
}

// TestRelay: what is published is posted to the function of the topic, again
// after a failure, and acknowledged once the function has answered well.
func TestRelay(t *testing.T) {
	emulator := pstest.NewServer()
	t.Cleanup(func() { _ = emulator.Close() })
	t.Setenv("PUBSUB_EMULATOR_HOST", emulator.Addr)
	attempts := make(chan pushed, 16)
	failed := false
	function := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body pushed
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		if !failed { // one message: one request at a time
			failed = true
			w.WriteHeader(http.StatusInternalServerError)
		}
		attempts <- body
	}))
	t.Cleanup(function.Close)

	ctx, cancel := context.WithCancel(t.Context())
	r, err := newRelay(ctx, "p", function.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.deliver(ctx, door{function: "Extract", topic: tick.TopicExtract}); err != nil {
		t.Fatal(err)
	}
	if err := r.publisher.Publish(ctx, tick.TopicExtract, tick.Message{Cadence: "1m"}); err != nil {
		t.Fatal(err)
	}
	first, second := <-attempts, <-attempts
	for look := time.NewTicker(time.Millisecond); emulator.Messages()[0].Acks == 0; <-look.C {
		if t.Context().Err() != nil {
			t.Fatal("it was never acknowledged")
		}
	}
	if diff := cmp.Diff(first, second); diff != "" || string(first.Message.Data) != `{"cadence":"1m"}` || first.Message.MessageID == "" {
		t.Errorf("pushed %+v, then (-first +second):\n%s", first, diff)
	}
	cancel()
	r.close(t.Context()) // waits for what is under way
	if messages := emulator.Messages(); len(messages) != 1 {
		t.Errorf("%d messages", len(messages))
	}
	again, err := newRelay(t.Context(), "p", function.URL)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	if err := again.deliver(ended, door{function: "Extract", topic: tick.TopicExtract}); err != nil { // topic and subscription are there
		t.Error(err)
	}
	end()
	again.close(t.Context())
}

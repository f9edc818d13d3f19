package pubsub_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"

	"github.com/tidemark-data/tidemark/test/pubsub"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Started by an import of the Google libraries.
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
		// The client's Receive leaves it behind, waiting for a stopped ticker (pubsub v2.8.0, iterator.go).
		goleak.IgnoreAnyFunction("cloud.google.com/go/pubsub/v2.(*messageIterator).streamKeepAliveHandler"),
	)
}

// The official client, pointed at the server by the environment alone,
// publishes, and gets again what it did not acknowledge.
func TestClientPublishesAndReceivesAgainAfterNack(t *testing.T) {
	server := start(t)
	t.Setenv("PUBSUB_EMULATOR_HOST", server.Host())
	client, err := pubsubapi.NewClient(t.Context(), "local")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	const topic, subscription = "projects/local/topics/ticks", "projects/local/subscriptions/ticks"
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(),
		&pubsubpb.Subscription{Name: subscription, Topic: topic, AckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	publisher := client.Publisher(topic)
	defer publisher.Stop()
	if _, err := publisher.Publish(t.Context(), &pubsubapi.Message{Data: []byte(`{"cadence":"1m"}`)}).Get(t.Context()); err != nil {
		t.Fatal(err)
	}

	ctx, done := context.WithCancel(t.Context())
	defer done()
	var deliveries atomic.Int32
	err = client.Subscriber(subscription).Receive(ctx, func(_ context.Context, message *pubsubapi.Message) {
		if string(message.Data) != `{"cadence":"1m"}` {
			t.Errorf("received %q", message.Data)
		}
		if deliveries.Add(1) == 1 {
			message.Nack()
			return
		}
		message.Ack()
		done()
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := deliveries.Load(); got != 2 {
		t.Errorf("deliveries: got %d, want 2", got)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	t.Parallel()
	host, port, err := net.SplitHostPort(start(t).Host())
	if err != nil {
		t.Fatal(err)
	}
	if !net.ParseIP(host).IsLoopback() {
		t.Errorf("listens on %s, want the loopback interface", host)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pubsub.Start(t.Context(), pubsub.Options{Port: number}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("starting on a taken port: got %v, want EADDRINUSE", err)
	}
}

func start(t *testing.T) *pubsub.Server {
	t.Helper()
	server, err := pubsub.Start(t.Context(), pubsub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

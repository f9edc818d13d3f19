package tick_test

import (
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/tick"
)

func TestPublisher(t *testing.T) {
	server := pstest.NewServer()
	t.Cleanup(func() { _ = server.Close() })
	t.Setenv("PUBSUB_EMULATOR_HOST", server.Addr)
	if _, err := server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/" + tick.TopicExtract}); err != nil {
		t.Fatal(err)
	}
	p := tick.NewPublisher("p")
	want := []tick.Message{{Cadence: "1m", Pipeline: "shop", Tenant: "acme"}, {Pipeline: "shop", Full: true}}
	if err := p.Publish(t.Context(), tick.TopicExtract, want...); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), tick.TopicExtract); err != nil {
		t.Fatal(err)
	}
	// It has returned, so that Pub/Sub has them.
	byText := map[string]bool{}
	for _, m := range server.Messages() {
		byText[string(m.Data)] = true
	}
	if diff := cmp.Diff(map[string]bool{`{"cadence":"1m","pipeline":"shop","tenant":"acme"}`: true, `{"pipeline":"shop","full":true}`: true}, byText); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if err := p.Publish(t.Context(), "no-such-topic", want...); fault.GRPCCode(err) != codes.NotFound {
		t.Errorf("publishing to a topic that is missing: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestPublisherConnectsLate: an instance that never publishes opens nothing.
func TestPublisherConnectsLate(t *testing.T) {
	t.Parallel()
	if err := tick.NewPublisher("").Close(); err != nil { // no project would be an error
		t.Error(err)
	}
}

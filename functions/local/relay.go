package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// relay pulls from the emulator and posts what comes as a push subscription
// would: the answer's status acknowledges or not.
type relay struct {
	project, base string
	client        *pubsub.Client
	publisher     *tick.Publisher
	pulls         sync.WaitGroup
}

func newRelay(ctx context.Context, project, base string) (*relay, error) {
	client, err := pubsub.NewClient(context.WithoutCancel(ctx), project)
	if err != nil {
		return nil, fmt.Errorf("opening the Pub/Sub emulator: %w", err)
	}
	return &relay{project: project, base: base, client: client, publisher: tick.NewPublisher(project)}, nil
}

func (r *relay) close(ctx context.Context) {
	r.pulls.Wait()
	if err := r.publisher.Close(); err != nil {
		slog.WarnContext(ctx, "closing the publisher", "error", err)
	}
	if err := r.client.Close(); err != nil {
		slog.WarnContext(ctx, "closing the Pub/Sub emulator", "error", err)
	}
}

// deliver creates a function's topic and subscription, and from then on posts
// its messages until the context ends.
func (r *relay) deliver(ctx context.Context, d door) error {
	topic := "projects/" + r.project + "/topics/" + d.topic
	subscription := "projects/" + r.project + "/subscriptions/" + d.topic
	_, err := r.client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: topic})
	if err != nil && fault.GRPCCode(err) != codes.AlreadyExists {
		return fmt.Errorf("creating %s: %w", topic, err)
	}
	_, err = r.client.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{Name: subscription, Topic: topic, AckDeadlineSeconds: 600})
	if err != nil && fault.GRPCCode(err) != codes.AlreadyExists {
		return fmt.Errorf("creating %s: %w", subscription, err)
	}
	subscriber := r.client.Subscriber(subscription)
	subscriber.ReceiveSettings.MaxOutstandingMessages = 4
	push := pusher{url: r.base + "/" + d.function, topic: topic, subscription: subscription, failures: map[string]int{}}
	r.pulls.Go(func() {
		if err := subscriber.Receive(ctx, push.push); err != nil && ctx.Err() == nil {
			slog.ErrorContext(ctx, "receiving from the Pub/Sub emulator", "subscription", subscription, "error", err)
		}
	})
	return nil
}

// pusher posts the messages of one subscription.
type pusher struct {
	url, topic, subscription string

	mu       sync.Mutex
	failures map[string]int // by message
}

func (p *pusher) push(ctx context.Context, m *pubsub.Message) {
	err := p.post(ctx, m)
	p.mu.Lock()
	if err == nil {
		delete(p.failures, m.ID)
	} else {
		p.failures[m.ID]++
	}
	failures := p.failures[m.ID]
	p.mu.Unlock()
	if err == nil {
		m.Ack()
		return
	}
	slog.WarnContext(ctx, "not acknowledged; it will be delivered again", "url", p.url, "message_id", m.ID, "attempt", failures, "error", err)
	pause := time.NewTimer(min(time.Duration(failures)*time.Second, 30*time.Second)) // the emulator has no back-off
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	m.Nack()
}

// post sends the body that a push subscription sends, with the headers of the
// CloudEvent that it is turned into: the framework can do that itself only where
// the topic is in the path, and a function among others is served at its name
// alone. (Pub/Sub: receive messages from push subscriptions.)
func (p *pusher) post(ctx context.Context, m *pubsub.Message) error {
	body, err := json.Marshal(map[string]any{
		"subscription": p.subscription,
		"message": map[string]any{
			"data": m.Data, "attributes": m.Attributes, "messageId": m.ID, "publishTime": m.PublishTime.UTC().Format(time.RFC3339Nano),
		},
	})
	if err != nil {
		return fmt.Errorf("writing the push body: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("preparing the push: %w", err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": m.ID,
		"Ce-Type": "google.cloud.pubsub.topic.v1.messagePublished", "Ce-Source": "//pubsub.googleapis.com/" + p.topic,
	} {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("pushing: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("the function answered %s", response.Status)
	}
	return nil
}

package tick

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"cloud.google.com/go/pubsub/v2"
)

// The topics, each read by the function of its name.
const (
	TopicExtract    = "tidemark-extract"
	TopicDedup      = "tidemark-dedup"
	TopicReverseETL = "tidemark-reverse-etl"
)

// Publisher publishes messages to the topics of one project. It connects when
// the first message is published.
type Publisher struct {
	project string

	mu     sync.Mutex
	client *pubsub.Client
	topics map[string]*pubsub.Publisher
}

// NewPublisher returns a publisher; it does not connect.
func NewPublisher(project string) *Publisher {
	return &Publisher{project: project, topics: map[string]*pubsub.Publisher{}}
}

// Publish sends the messages and returns once Pub/Sub has all of them.
func (p *Publisher) Publish(ctx context.Context, topic string, messages ...Message) error {
	publisher, err := p.topic(ctx, topic)
	if err != nil {
		return err
	}
	results := make([]*pubsub.PublishResult, 0, len(messages))
	for _, m := range messages {
		data, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("writing a message: %w", err)
		}
		results = append(results, publisher.Publish(ctx, &pubsub.Message{Data: data}))
	}
	for _, r := range results {
		if _, err := r.Get(ctx); err != nil {
			return fmt.Errorf("publishing to %s: %w", topic, err)
		}
	}
	return nil
}

func (p *Publisher) topic(ctx context.Context, name string) (*pubsub.Publisher, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil {
		client, err := pubsub.NewClient(context.WithoutCancel(ctx), p.project)
		if err != nil {
			return nil, fmt.Errorf("opening Pub/Sub: %w", err)
		}
		p.client = client
	}
	if p.topics[name] == nil {
		publisher := p.client.Publisher(name)
		publisher.PublishSettings.DelayThreshold = 0 // few messages, each awaited
		p.topics[name] = publisher
	}
	return p.topics[name], nil
}

// Close flushes and disconnects.
func (p *Publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.topics {
		t.Stop()
	}
	if p.client == nil {
		return nil
	}
	if err := p.client.Close(); err != nil {
		return fmt.Errorf("closing Pub/Sub: %w", err)
	}
	return nil
}

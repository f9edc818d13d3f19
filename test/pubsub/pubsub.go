// Package pubsub is the local stack's Pub/Sub: the in-memory server that Google
// ships beside its client, on a loopback port.
//
// It does topics, subscriptions, acknowledgement deadlines and redelivery as the
// official client uses them. It does not deliver pushes and has no dead-letter
// topics: functions/local pulls and delivers, as Pub/Sub's push would.
package pubsub

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"cloud.google.com/go/pubsub/v2/pstest"
)

// Options say how the server is started.
type Options struct {
	// Port is the TCP port on the loopback interface; 0: a free one.
	Port int
}

// Server is a running Pub/Sub emulator.
type Server struct {
	fake *pstest.Server
}

// Start starts a server. Its data lives in memory, as long as it does.
func Start(ctx context.Context, options Options) (*Server, error) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(options.Port))
	if err := probe(ctx, address); err != nil {
		return nil, err
	}
	return &Server{fake: pstest.NewServerWithAddress(address)}, nil
}

// Host is the value for PUBSUB_EMULATOR_HOST: host:port.
func (s *Server) Host() string { return s.fake.Addr }

// Close ends the server and its connections. Its messages are gone.
func (s *Server) Close() error {
	if err := s.fake.Close(); err != nil {
		return fmt.Errorf("closing the Pub/Sub emulator: %w", err)
	}
	return nil
}

// probe finds out whether the address can be had: pstest panics where it cannot.
func probe(ctx context.Context, address string) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("starting the Pub/Sub emulator: %w", err)
	}
	if err := listener.Close(); err != nil {
		return fmt.Errorf("starting the Pub/Sub emulator: %w", err)
	}
	return nil
}

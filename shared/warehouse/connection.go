package warehouse

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	storage "cloud.google.com/go/bigquery/storage/apiv1"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// connection is one AppendRows call. Answers come in the order of requests; they
// are received as they come, so that a server waiting for us to read never
// stops reading us.
type connection struct {
	calls   storagepb.BigQueryWrite_AppendRowsClient
	cancel  context.CancelFunc
	answers chan answered
	ended   chan struct{}
}

type answered struct {
	response *storagepb.AppendRowsResponse
	err      error
}

// connect opens a connection to a stream. The header routes it to the stream's
// region; for a bidirectional call the library cannot know it.
func connect(ctx context.Context, client *storage.BigQueryWriteClient, stream string) (*connection, error) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "x-goog-request-params", "write_stream="+url.QueryEscape(stream)))
	calls, err := client.AppendRows(ctx)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("opening the write stream: %w", err)
	}
	c := &connection{calls: calls, cancel: cancel, answers: make(chan answered, inFlight+1), ended: make(chan struct{})}
	go c.receive(ctx)
	return c, nil
}

func (c *connection) receive(ctx context.Context) {
	defer close(c.ended)
	for {
		response, err := c.calls.Recv()
		select {
		case c.answers <- answered{response, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (c *connection) answer(ctx context.Context) (*storagepb.AppendRowsResponse, error) {
	select {
	case a := <-c.answers:
		return a.response, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *connection) close() {
	c.cancel()
	<-c.ended
}

// decodeRow turns a row's message back into JSON, for people to read.
func decodeRow(descriptor *descriptorpb.DescriptorProto, row []byte) (json.RawMessage, error) {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("row.proto"), Syntax: proto.String("proto2"), MessageType: []*descriptorpb.DescriptorProto{descriptor},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("decoding a refused row: %w", err)
	}
	message := dynamicpb.NewMessage(file.Messages().Get(0))
	if err := proto.Unmarshal(row, message); err != nil {
		return nil, fmt.Errorf("decoding a refused row: %w", err)
	}
	text, err := protojson.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("decoding a refused row: %w", err)
	}
	return text, nil
}

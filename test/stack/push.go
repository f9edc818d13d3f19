package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// pushes numbers the messages of this process.
var pushes atomic.Int64 //nolint:gochecknoglobals // ids have to differ between stacks too

// Push posts a message to a function as a push subscription would, and waits for
// its answer: nil is an acknowledgement, an error means Pub/Sub would deliver again.
// message is the JSON of DESIGN.md, such as {"cadence":"1m"}.
func (s *Stack) Push(ctx context.Context, function, message string) error {
	body, err := json.Marshal(map[string]any{
		"subscription": "projects/" + Project + "/subscriptions/by-hand",
		"message": map[string]any{
			"data": []byte(message), "messageId": "push-" + strconv.FormatInt(pushes.Add(1), 10),
			"publishTime": time.Now().UTC().Format(time.RFC3339Nano),
		},
	})
	if err != nil {
		return fmt.Errorf("writing the push body: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.FunctionURL(function), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("preparing the push to %s: %w", function, err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("pushing to %s: %w", function, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", function, err)
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("pushing to %s: it answered %s: %s", function, response.Status, answer)
	}
	return nil
}

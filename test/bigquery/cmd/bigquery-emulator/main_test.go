package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--project", "p"}, in)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(line, "export BIGQUERY_EMULATOR_HOST="), " ")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/bigquery/v2/projects/p/datasets", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("datasets.list answers %s, %v", resp.Status, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), []string{"--rest", "0.0.0.0:0"}, io.Discard); err == nil {
		t.Error("the emulator listened on an address that is not loopback")
	}
}

package warehouse

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestStreamIsNotOvertaken: BigQuery has received a request when the client leaves
// the connection, and gets to it when the next connection has stored a row.
func TestStreamIsNotOvertaken(t *testing.T) {
	t.Parallel()
	left, answered, first, second := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := &storageServer{refuse: refusing("0")}
	s.after = func(int) error { // holds the lock
		switch len(s.rows) {
		case 1:
			close(first)
		case 2:
			close(second)
		}
		return nil
	}
	s.received = func(ctx context.Context, connection, request int) {
		switch {
		case connection == 0 && request == 1:
			select {
			case <-ctx.Done():
				close(left)
				<-first
			case <-time.After(100 * time.Millisecond): // the client waits for the answer
				close(answered)
			}
		case connection == 1 && request == 1:
			select {
			case <-left:
				<-second
			case <-answered:
			}
		}
	}
	got, err := write(t, s, 1, 1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(written{Stored: numbers(4, 0), Refused: refused("0"), Rows: 3}, got, rowID()); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
}

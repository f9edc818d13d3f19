//go:build !googlesql

package analyzer

import (
	"errors"
	"testing"
)

func TestUnavailable(t *testing.T) {
	t.Parallel()
	if Available {
		t.Error("Available is true without the tag")
	}
	if _, err := Analyze(t.Context(), "SELECT 1", Options{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v; want ErrUnavailable", err)
	}
}

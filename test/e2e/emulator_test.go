package e2e_test

import (
	"syscall"
	"testing"

	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// TestAnotherEmulator starts the functions with nothing changed but the two
// variables: everything goes to the other server, nothing to the first.
func TestAnotherEmulator(t *testing.T) {
	t.Parallel()
	s := startStack(t, itemsFile(byHand), itemsSQL+`; INSERT INTO items SELECT n, 'item' FROM generate_series(1, 10) n`)
	other, err := emulator.Start(t.Context(), emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, other.Close()) })
	must(t, s.StopFunctions(syscall.SIGTERM))
	if err := s.StartFunctions(t.Context(), "BIGQUERY_EMULATOR_HOST="+other.RESTHost(), "BIGQUERY_STORAGE_EMULATOR_HOST="+other.StorageHost()); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), "Extract", `{}`); err != nil {
		t.Fatal(err)
	}
	if n := other.Calls()["BatchCommitWriteStreams"]; n != 1 {
		t.Errorf("the other emulator saw %d commits, want 1", n)
	}
	if calls := s.BigQuery().Calls(); len(calls) != 0 {
		t.Errorf("the first emulator was called: %v", calls)
	}
}

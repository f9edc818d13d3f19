package child_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemark-data/tidemark/test/child"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A child that is killed with its parent is tested where children matter, in
// package postgres.

func TestStopAsksFirst(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	process, _ := start(t, `trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done`, folder)
	if err := process.Err(); err != nil {
		t.Errorf("error of a running child: %v", err)
	}
	if err := process.Stop(syscall.SIGTERM, time.Minute); err != nil {
		t.Fatal(err)
	}
	exit, ok := errors.AsType[*exec.ExitError](process.Err())
	if !ok || exit.ExitCode() != 7 {
		t.Errorf("the child ended with %v, want status 7", process.Err())
	}
	if err := process.Stop(syscall.SIGTERM, time.Minute); err != nil {
		t.Errorf("stopping it again: %v", err)
	}
	if _, err := os.Stat(folder); err != nil {
		t.Errorf("a folder meant for the case that we die is gone: %v", err)
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	t.Parallel()
	process, _ := start(t, `trap '' TERM; echo ready; while :; do sleep 0.01; done`)
	if err := process.Stop(syscall.SIGTERM, 50*time.Millisecond); err == nil {
		t.Error("no error says that it had to be killed")
	}
	exit, ok := errors.AsType[*exec.ExitError](process.Err())
	if !ok || exit.ExitCode() != -1 {
		t.Errorf("the child ended with %v, want a signal", process.Err())
	}
}

func TestExitedTellsOfAnEnd(t *testing.T) {
	t.Parallel()
	process, in := start(t, `echo ready; read line`)
	select {
	case <-process.Exited():
		t.Fatal("it ended early")
	default:
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	<-process.Exited()
	if process.Err() != nil {
		t.Errorf("the child ended with %v, want status 0", process.Err())
	}
}

func TestStartReportsAMissingProgram(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(t.TempDir(), "absent"))
	if _, err := child.Start(cmd, syscall.SIGTERM); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that it does not exist", err)
	}
}

// start runs a script and waits for its first line.
func start(t *testing.T, script string, remove ...string) (*child.Process, io.Writer) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "/bin/sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	process, err := child.Start(cmd, syscall.SIGTERM, remove...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Stop(syscall.SIGKILL, time.Minute) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	return process, in
}

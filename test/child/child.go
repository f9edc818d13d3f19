// Package child starts the processes of a local stack so that none of them
// outlives the process that started it, however that one ends.
//
// A watchdog does it rather than Linux's parent-death signal: that signal comes
// when the thread that forked ends, and Go moves goroutines between threads and
// ends threads at will. The watchdog is a shell that blocks reading a pipe whose
// only writing end we hold. The kernel closes that end when we end, SIGKILL
// included; the shell then ends the child and removes what it was told to.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// watchdogScript gets the child's process id, the signal to end it with, and
// the folders to remove after it. It gives the child ten seconds.
const watchdogScript = `
cat >/dev/null
pid=$1 signal=$2
shift 2
kill -"$signal" "$pid" 2>/dev/null
n=0
while kill -0 "$pid" 2>/dev/null; do
	n=$((n + 1))
	[ "$n" -lt 100 ] || kill -KILL "$pid" 2>/dev/null
	sleep 0.1
done
[ "$#" -eq 0 ] || rm -rf -- "$@"
`

// Process is a started child. It is safe for concurrent use.
type Process struct {
	cmd      *exec.Cmd
	exited   chan struct{}
	err      error // of Wait; read after exited is closed
	watchdog *exec.Cmd
	lifeline io.Closer
}

// Start starts cmd in a process group of its own, so that a Ctrl-C at the
// terminal reaches us alone and we stop the child in order. If this process ends
// first, cmd gets the signal orphaned and the folders in remove are deleted.
// cmd must not have been made with a context: Stop ends it.
func Start(cmd *exec.Cmd, orphaned syscall.Signal, remove ...string) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	if err := p.watch(orphaned, remove); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	go p.wait()
	return p, nil
}

// watch starts the watchdog. It runs apart from any context: ending it early is
// what it exists to prevent.
func (p *Process) watch(orphaned syscall.Signal, remove []string) error {
	args := append([]string{
		"-c", watchdogScript, "watchdog",
		strconv.Itoa(p.cmd.Process.Pid), strconv.Itoa(int(orphaned)),
	}, remove...)
	// The arguments are data to a constant script.
	watchdog := exec.CommandContext(context.Background(), "/bin/sh", args...)
	watchdog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	lifeline, err := watchdog.StdinPipe()
	if err != nil {
		return fmt.Errorf("opening the watchdog's pipe: %w", err)
	}
	if err := watchdog.Start(); err != nil {
		return errors.Join(fmt.Errorf("starting the watchdog: %w", err), lifeline.Close())
	}
	p.watchdog, p.lifeline = watchdog, lifeline
	return nil
}

// wait reaps the child, then the watchdog: killed before its pipe closes, it
// never sees the end of file and so never signals a process id that is free again.
func (p *Process) wait() {
	p.err = p.cmd.Wait()
	_ = p.watchdog.Process.Kill()
	_ = p.watchdog.Wait()
	_ = p.lifeline.Close()
	close(p.exited)
}

// Pid is the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Exited is closed once the child has ended and been reaped.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err is how the child ended: nil for status 0, an *exec.ExitError else. It is
// nil as long as the child runs.
func (p *Process) Err() error {
	select {
	case <-p.exited:
		return p.err
	default:
		return nil
	}
}

// Signal sends sig to the child; a child that has ended is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling process %d: %w", p.Pid(), err)
	}
	return nil
}

// Stop sends sig, waits up to grace for the child to end, then kills it and
// waits for that. It reports an error if killing was needed or failed, and none
// for the child's own exit status: see Err.
func (p *Process) Stop(sig syscall.Signal, grace time.Duration) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.exited
	return fmt.Errorf("stopping process %d: it ignored signal %v for %v and was killed", p.Pid(), sig, grace)
}

// ignoreExit drops the error of a child that we killed ourselves.
func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

package stack

import (
	"io"
	"sync"
)

// tail passes on what is written and keeps the end of it for error messages.
type tail struct {
	mu   sync.Mutex
	kept []byte
	next io.Writer
}

const tailBytes = 8 << 10

// Write never fails for what becomes of the text afterwards: a full disk must not
// stop the process that logs.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - tailBytes; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	_, _ = t.next.Write(p)
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}

// Package capture keeps what a command prints, up to a limit over both
// streams: each stream in its own file, and both in one in the order in which
// they arrived.
package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The files of a capture.
const (
	Output = "output" // both streams in the order in which they arrived
	Stdout = "stdout"
	Stderr = "stderr"
)

// Capture is the output of one command.
type Capture struct {
	// Stdout and Stderr are the write ends for the command.
	Stdout, Stderr *os.File
	// Full is closed when the limit is passed.
	Full chan struct{}

	stdout, stderr *stream

	mu       sync.Mutex
	combined *os.File
	left     int64
	written  int64
	wg       sync.WaitGroup
}

// stream is one pipe and the file it ends in.
type stream struct {
	r, w *os.File
	file *os.File
}

// drainGrace is how long the last words may take after the last process ended.
const drainGrace = 5 * time.Second

// New makes the files in dir and begins to read.
func New(dir string, limit int64) (*Capture, error) {
	c := &Capture{Full: make(chan struct{}), left: limit}
	var err error
	if c.combined, err = create(dir, Output); err != nil {
		return nil, err
	}
	if c.stdout, err = newStream(dir, Stdout); err != nil {
		return nil, err
	}
	if c.stderr, err = newStream(dir, Stderr); err != nil {
		return nil, err
	}
	c.Stdout, c.Stderr = c.stdout.w, c.stderr.w
	for _, s := range []*stream{c.stdout, c.stderr} {
		c.wg.Add(1)
		go c.pump(s)
	}
	return c, nil
}

func create(dir, name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("capture output: %w", err)
	}
	return f, nil
}

func newStream(dir, name string) (*stream, error) {
	f, err := create(dir, name)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("capture output: %w", err)
	}
	return &stream{r, w, f}, nil
}

// pump copies until every writer is gone. Behind the limit it reads on and
// drops, so that nothing hangs on a full pipe before it is killed.
func (c *Capture) pump(s *stream) {
	defer c.wg.Done()
	buf := make([]byte, 64<<10)
	for {
		n, err := s.r.Read(buf)
		if n > 0 {
			c.keep(s, buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (c *Capture) keep(s *stream, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	over := int64(len(b)) > c.left
	if over {
		b = b[:c.left]
	}
	c.left -= int64(len(b))
	_, err := s.file.Write(b)
	_, err2 := c.combined.Write(b)
	c.written += int64(len(b))
	// Output that cannot be stored is output lost: the run ends as if it had
	// said too much.
	if over || errors.Join(err, err2) != nil {
		c.left = 0
		select {
		case <-c.Full:
		default:
			close(c.Full)
		}
	}
}

// Started lets go of the write ends, which the command holds from here on.
func (c *Capture) Started() {
	c.stdout.w.Close()
	c.stderr.w.Close()
}

// Finish waits for the last words and returns how many bytes were kept.
func (c *Capture) Finish() int64 {
	for _, s := range []*stream{c.stdout, c.stderr} {
		s.r.SetReadDeadline(time.Now().Add(drainGrace))
	}
	c.wg.Wait()
	for _, s := range []*stream{c.stdout, c.stderr} {
		s.r.Close()
		s.file.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.combined.Close()
	return c.written
}

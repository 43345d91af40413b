package git

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// work has a request performed, by a child when one is configured.
func (c *Cloner) work(ctx context.Context, req *workRequest, pack io.Reader, report func(Progress)) (*workResult, error) {
	if req.Limits == (Limits{}) {
		req.Limits = c.cfg.Limits
	}
	if len(c.cfg.Child) > 0 {
		return c.delegate(ctx, req, pack, report)
	}
	return perform(ctx, req, pack, report)
}

// delegate runs one request in a child: request and pack on its stdin, nothing
// in its environment, and the stage's lock held by it too.
func (c *Cloner) delegate(ctx context.Context, req *workRequest, pack io.Reader, report func(Progress)) (*workResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.cfg.Child[0], c.cfg.Child[1:]...)
	cmd.Env = []string{"GOTRACEBACK=none"}
	cmd.Dir = req.Dir
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = 5 * time.Second
	var stderr complaints
	cmd.Stderr = &stderr
	if req.stage != nil {
		cmd.ExtraFiles = []*os.File{req.stage.lock}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start unpacker: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start unpacker: %w", err)
	}
	line, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	// The child dies with the thread that starts it, so that thread is kept
	// until the child has ended (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start unpacker: %w", err)
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		feed(stdin, append(line, '\n'), pack)
	}()
	res, err := listen(stdout, report)
	if err != nil {
		cancel()
	}
	if req.hangUp != nil {
		req.hangUp() // whatever the server still has to say
	}
	waitErr := cmd.Wait()
	<-fed
	if errors.Is(err, errNoResult) {
		return nil, obituary(req, waitErr, stderr.kept.String())
	}
	return res, err
}

// feed writes the request and the pack. A child that hangs up early has said
// why, or has died, and a stream that breaks is noted by its reader: the feed
// has no errors of its own.
func feed(stdin io.WriteCloser, line []byte, pack io.Reader) {
	_, err := stdin.Write(line)
	if err == nil && pack != nil {
		_, _ = io.CopyBuffer(struct{ io.Writer }{stdin}, struct{ io.Reader }{pack}, make([]byte, 256<<10))
	}
	_ = stdin.Close()
}

var errNoResult = errors.New("the unpacker said nothing")

// listen reads messages until the result.
func listen(r io.Reader, report func(Progress)) (*workResult, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil, errNoResult
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, fmt.Errorf("read unpacker's message: %w", err)
		}
		switch {
		case m.Progress != nil:
			report(*m.Progress)
		case m.Error != nil:
			return nil, m.Error.err()
		case m.Result != nil:
			return m.Result, nil
		}
	}
}

// obituary explains a child that ended without a result.
func obituary(req *workRequest, err error, complaint string) error {
	for _, sign := range []string{"out of memory", "cannot allocate memory", "address space", "failed to create new OS thread"} {
		if strings.Contains(complaint, sign) {
			return &LimitError{Cap: CapMemory, Limit: req.Limits.MemoryBytes}
		}
	}
	first, _, _ := strings.Cut(strings.TrimSpace(complaint), "\n")
	return fmt.Errorf("the unpacker died: %v: %q", err, first)
}

// complaints keeps the first part of what a child writes to stderr.
type complaints struct{ kept bytes.Buffer }

func (c *complaints) Write(p []byte) (int, error) {
	if room := 8<<10 - c.kept.Len(); room > 0 {
		c.kept.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

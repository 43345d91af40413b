package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/docker/supervisor"
)

// outcome is how a throw-away container ended.
type outcome struct {
	code    int
	oom     bool
	timeout bool
	flood   bool // it wrote more than the log takes
	disk    bool // it wrote more than it may to disk
}

// nobody is the user that untrusted code builds as when we are root.
const nobody = 65532

// user is who the container runs as: the owner of the folders it writes to.
func user() string {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = nobody, nobody
	}
	return fmt.Sprintf("%d:%d", uid, gid)
}

// run starts a container with everything taken away that installing packages
// does not need, copies its output to log, and removes it, also when the
// context ends. Its standard input is empty, so that whatever asks a question
// gets no answer but the end of the file.
func (b *Builder) run(ctx context.Context, c engine.Container, log io.Writer) (out outcome, err error) {
	c.ReadOnlyRoot, c.Init = true, !c.NoLog
	c.CapDrop, c.SecurityOpt, c.IPC = []string{"ALL"}, []string{"no-new-privileges"}, "private"
	c.MemoryBytes, c.Processes = b.cfg.Limits.MemoryBytes+supervisor.ReserveBytes, b.cfg.Limits.Processes+supervisor.Reserve
	c.User = user()
	e := b.cfg.Engine
	id, err := e.Create(ctx, c)
	if err != nil {
		return out, err
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, e.Remove(clean, id))
	}()
	if err := e.Start(ctx, id); err != nil {
		return out, err
	}
	wall := b.cfg.Limits.Wall
	if c.NoLog {
		wall += time.Minute // the supervisor is asked first
	}
	limited, stop := context.WithTimeout(ctx, wall)
	defer stop()
	w := &bounded{w: log, left: b.cfg.Limits.LogBytes, full: stop}
	logged := make(chan error, 1)
	go func() {
		if c.NoLog { // the supervisor keeps it
			logged <- nil
			return
		}
		logged <- e.Logs(limited, id, true, w, w)
	}()
	out.code, err = e.Wait(limited, id)
	if err == nil {
		err = <-logged
	}
	switch {
	case ctx.Err() != nil:
		return out, ctx.Err()
	case w.flooded():
		out.flood = true
		return out, nil
	case limited.Err() != nil:
		out.timeout = true
		return out, nil
	case err != nil:
		return out, err
	}
	st, err := e.Inspect(ctx, id)
	out.oom = st.OOMKilled || out.code == 137
	return out, err
}

// bounded is a writer that calls full when more comes than it takes. Standard
// output and error share it.
type bounded struct {
	mu   sync.Mutex
	w    io.Writer
	left int64
	full func()
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if int64(len(p)) > b.left {
		b.left = -1
		b.full()
		return 0, errors.New("the output is larger than its limit")
	}
	b.left -= int64(len(p))
	return b.w.Write(p)
}

func (b *bounded) flooded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left < 0
}

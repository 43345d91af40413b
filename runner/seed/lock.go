package seed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/repromill/repromill/results/atomicfile"
)

// lease is the right to seed a repository. File locks do not hold on every shared
// file system, so it is a file with a name in it whose time is set again and
// again. Should two hold it for a moment, both write the same bytes to the same
// places.
type lease struct {
	path, who string
	lost      atomic.Bool
	stop      chan struct{}
	done      sync.WaitGroup
}

// lock returns when this process may seed, or done when another has.
func (c *Config) lock(ctx context.Context, w Want) (l *lease, done bool, err error) {
	path := filepath.Join(c.Dir, "seeding", w.folder()+"--"+w.Commit)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, false, err
	}
	var seen time.Time // time of the file as the holder set it
	since := c.Now()   // by our own clock, since clocks of nodes differ
	for told := false; ; {
		if _, err := os.Stat(w.marker(c.Dir)); err == nil {
			return nil, true, nil
		}
		err := atomicfile.Once(path, []byte(c.Who), 0o644)
		if err == nil {
			return c.hold(path), false, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, false, err
		}
		if info, err := os.Stat(path); err == nil && !info.ModTime().Equal(seen) {
			seen, since = info.ModTime(), c.Now()
		}
		if c.Now().Sub(since) > c.Stale {
			if err := atomicfile.Write(path, []byte(c.Who), atomicfile.Options{}); err != nil {
				return nil, false, err
			}
			return c.hold(path), false, nil
		}
		if !told {
			told = true
			c.Tell(fmt.Sprintf("%s: another seed is at work on it", w))
		}
		select {
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		case <-time.After(min(c.Stale/4, time.Second)):
		}
	}
}

func (c *Config) hold(path string) *lease {
	l := &lease{path: path, who: c.Who, stop: make(chan struct{})}
	l.done.Go(func() {
		t := time.NewTicker(c.Stale / 6)
		defer t.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-t.C:
				if b, err := os.ReadFile(path); err == nil && string(b) != l.who {
					l.lost.Store(true)
					return
				}
				now := time.Now()
				_ = os.Chtimes(path, now, now) // whoever finds it stale takes over, which does no harm
			}
		}
	})
	return l
}

func (l *lease) release() {
	close(l.stop)
	l.done.Wait()
	if b, err := os.ReadFile(l.path); err == nil && string(b) == l.who {
		_ = os.Remove(l.path) // else it is stale, in a while
	}
}

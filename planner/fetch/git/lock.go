package git

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Locks are flock(2): the kernel drops one when its last holder is gone, however
// it went. A lock's open file is also handed to the child, so that nobody
// sweeps a staging folder while an orphaned child may still write to it.

// lockFile opens and locks path, waiting until ctx ends. wait false gives up at
// once with a nil file.
func lockFile(ctx context.Context, path string, wait bool) (*os.File, error) {
	pause := 5 * time.Millisecond
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(f, path) {
			return f, nil
		}
		_ = f.Close()
		switch {
		case err == nil:
			continue // it was swept between open and lock
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("lock %s: %w", path, err)
		case !wait:
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
			pause = min(2*pause, 200*time.Millisecond)
		}
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// stage is a private folder that becomes visible by a rename or is removed.
type stage struct {
	dir  string
	lock *os.File
}

// newStage makes a staging folder under tmp. Its lock exists before it does.
func newStage(tmp string) (*stage, error) {
	name := make([]byte, 8)
	if _, err := rand.Read(name); err != nil {
		return nil, fmt.Errorf("name staging folder: %w", err)
	}
	dir := filepath.Join(tmp, hex.EncodeToString(name))
	var lock *os.File
	err := fs.ErrNotExist
	for try := 0; try < 3 && errors.Is(err, fs.ErrNotExist); try++ { // whoever empties a mirror's tmp removes it
		if err := os.MkdirAll(tmp, 0o700); err != nil {
			return nil, fmt.Errorf("create staging area: %w", err)
		}
		lock, err = lockFile(context.Background(), dir+".lock", true)
	}
	if err != nil {
		return nil, err
	}
	s := &stage{dir, lock}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("create staging folder: %w", err), s.remove())
	}
	return s, nil
}

// remove deletes what is left of the stage; after a publish, its lock alone.
func (s *stage) remove() error {
	err := os.RemoveAll(s.dir)
	if rerr := os.Remove(s.dir + ".lock"); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	_ = s.lock.Close()
	return err
}

// sweep removes the stages whose makers are gone.
func sweep(tmp string) error {
	entries, err := os.ReadDir(tmp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("list staging area: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(tmp, strings.TrimSuffix(e.Name(), ".lock"))
		lock, err := lockFile(context.Background(), dir+".lock", false)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the area itself is gone: somebody found it empty
		} else if err != nil {
			return err
		}
		if lock == nil {
			continue // somebody is at work in it
		}
		if err := (&stage{dir, lock}).remove(); err != nil {
			return fmt.Errorf("sweep %s: %w", dir, err)
		}
	}
	return nil
}

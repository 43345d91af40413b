package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/results/atomicfile"
)

// runLock is an exclusive lock on one run, held by an flock(2) that the kernel
// drops when the process dies. Its file is removed on release.
type runLock struct {
	f    *os.File
	path string
}

// lockPrefix begins with a character that no run id begins with.
const lockPrefix = ".lock-"

func (d *Dataset) lockPath(runID string) string {
	return filepath.Join(d.root, stagingDir, lockPrefix+runID)
}

// errLocked says that another process holds the lock.
var errLocked = errors.New("the run is locked by another process")

// tryLock takes the lock of a run or returns errLocked.
func (d *Dataset) tryLock(runID string) (*runLock, error) {
	path := d.lockPath(runID)
	if err := atomicfile.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock run %s: %w", runID, err)
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lock run %s: %w", runID, err)
		}
		if err := flock(f, unix.LOCK_EX); err != nil {
			err = errors.Join(err, f.Close())
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errLocked
			}
			return nil, fmt.Errorf("lock run %s: %w", runID, err)
		}
		// The holder before us may have removed the file that we locked.
		if same(f, path) {
			return &runLock{f, path}, nil
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("lock run %s: %w", runID, err)
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func same(f *os.File, path string) bool {
	a, aerr := f.Stat()
	b, berr := os.Stat(path)
	return aerr == nil && berr == nil && os.SameFile(a, b)
}

// lock waits for the lock of a run.
func (d *Dataset) lock(ctx context.Context, runID string) (*runLock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.LockWait, errLocked)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := d.tryLock(runID)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errLocked) {
				return nil, fmt.Errorf("commit run %s: %w, for more than %s", runID, errLocked, d.cfg.LockWait)
			}
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// inProgress reports whether some process holds the lock, without making one.
func (d *Dataset) inProgress(runID string) bool {
	f, err := os.Open(d.lockPath(runID))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(flock(f, unix.LOCK_EX), unix.EWOULDBLOCK)
}

// release gives the lock back. The file goes first, while nobody else can hold
// it.
func (l *runLock) release() error {
	err := os.Remove(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.f.Close())
}

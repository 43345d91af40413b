package local

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/capture"
	"github.com/repromill/repromill/runner/folder"
	"github.com/repromill/repromill/runner/tree"
)

// The files of an attempt; the package comment says what each is for.
const (
	fileAttempt = folder.Attempt
	fileWorker  = "worker.json"
	fileExit    = "exit.json"
	fileCancel  = "cancel"
	fileLock    = "lock"
	fileOutput  = capture.Output
	fileStdout  = capture.Stdout
	fileStderr  = capture.Stderr
	fileNetwork = "network.jsonl"
	dirScratch  = "scratch"
)

// attempt is one on disk.
type attempt struct{ folder.Folder }

func attemptIn(dir string) attempt { return attempt{folder.Folder{Dir: dir, Point: "local"}} }

// lock takes the attempt's lock if it is free at once; nil means that it is
// not. Closing the file gives it back.
func (at attempt) lock(how int) (*os.File, error) {
	f, err := os.OpenFile(at.Path(fileLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return nil, nil
	}
	return nil, fmt.Errorf("take lock: %w", err)
}

// begun reports whether a worker has taken the attempt, or it ended without one.
func (at attempt) begun() bool { return at.Has(fileWorker) || at.Has(fileExit) }

// running describes an attempt whose lock is held.
func (at attempt) running(rec *record) (runner.Status, error) {
	var w work
	err := at.Read(fileWorker, &w)
	if errors.Is(err, os.ErrNotExist) || err == nil && !w.Running {
		return runner.Status{Phase: runner.Pending, Since: rec.Submitted}, nil
	}
	return runner.Status{Phase: runner.Running, Since: w.Started, Started: w.Started, Placement: w.Placement}, err
}

// tidy removes what only serves a running attempt.
func (at attempt) tidy() {
	_ = tree.Remove(at.Path(dirScratch)) // what cannot be removed is in nobody's way
	at.Tidy(fileAttempt, fileWorker, fileExit)
	if info, err := os.Stat(at.Path("worker.log")); err == nil && info.Size() == 0 {
		os.Remove(at.Path("worker.log"))
	}
}

package runner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// DrivenError says that another process drives the run.
type DrivenError struct {
	RunID string
	PID   int // 0 when it is not known
}

func (e *DrivenError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("run %s is being driven by %s; %s", e.RunID, who, e.UserError())
}

// UserError returns what to do instead.
func (e *DrivenError) UserError() string { return "follow it with `repromill watch " + e.RunID + "`" }

// lock makes this process the only driver of the run. The kernel gives the
// lock back when the process ends, however it ends.
func (r *Runner) lock(id string) (release func() error, err error) {
	path := filepath.Join(r.runDir(id), "lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock run: %w", err)
	}
	l := flock.New(path)
	err = r.step(stepLock, func() error {
		// [Runner.Driver] holds the lock for a moment when it looks; a driver
		// holds it for longer.
		for i := range 5 {
			ok, err := l.TryLock()
			if err != nil {
				return fmt.Errorf("lock run: %w", err)
			}
			if ok {
				break
			}
			if i == 4 {
				return &DrivenError{id, lockHolder(path)}
			}
			time.Sleep(10 * time.Millisecond)
		}
		return os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l.Close, nil
}

func lockHolder(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// Driver returns the process that drives the run at this moment, if any does.
func (r *Runner) Driver(id string) (pid int, driven bool, err error) {
	path := filepath.Join(r.runDir(id), "lock")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	l := flock.New(path)
	defer l.Close()
	ok, err := l.TryRLock()
	if err != nil {
		return 0, false, fmt.Errorf("look at the lock of run %s: %w", id, err)
	}
	return lockHolder(path), !ok, nil
}

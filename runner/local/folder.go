package local

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/capture"
)

// The files of an attempt; the package comment says what each is for.
const (
	fileAttempt = "attempt.json"
	fileWorker  = "worker.json"
	fileExit    = "exit.json"
	fileCancel  = "cancel"
	fileLock    = "lock"
	fileOutput  = capture.Output
	fileStdout  = capture.Stdout
	fileStderr  = capture.Stderr
	fileNetwork = "network.jsonl"
	dirScratch  = "scratch"
	tmpSuffix   = ".tmp"
)

// folder is one attempt on disk.
type folder struct{ dir string }

// name is unique on the machine: two installations may hold the same key.
func (at folder) name() string {
	sum := sha256.Sum256([]byte(at.dir))
	return filepath.Base(at.dir) + "-" + hex.EncodeToString(sum[:4])
}

// lock takes the attempt's lock if it is free at once; nil means that it is
// not. Closing the file gives it back.
func (at folder) lock(how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(at.dir, fileLock), os.O_CREATE|os.O_RDWR, 0o600)
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

func (at folder) has(name string) bool {
	_, err := os.Lstat(filepath.Join(at.dir, name))
	return err == nil
}

// begun reports whether a worker has taken the attempt, or it ended without one.
func (at folder) begun() bool { return at.has(fileWorker) || at.has(fileExit) }

func (at folder) read(name string, v any) error {
	b, err := os.ReadFile(filepath.Join(at.dir, name))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(at.dir, name), err)
	}
	return nil
}

// write replaces a file as a whole. Only the holder of the lock writes, so the
// temporary name is fixed and a dead writer leaves at most one behind, which
// the next write or tidy takes away. durable survives a loss of power.
func (at folder) write(name string, v any, durable bool, hook func(string)) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	hook("local:" + name + ":before")
	path := filepath.Join(at.dir, name)
	f, err := os.OpenFile(path+tmpSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil && durable {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	hook("local:" + name + ":rename")
	if err == nil {
		err = os.Rename(path+tmpSuffix, path)
	}
	if err == nil && durable {
		err = atomicfile.SyncDir(at.dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	hook("local:" + name + ":after")
	return nil
}

// exit reads the final status; ok is false while there is none.
func (at folder) exit() (st runner.Status, ok bool, err error) {
	err = at.read(fileExit, &st)
	if errors.Is(err, os.ErrNotExist) {
		return st, false, nil
	}
	return st, err == nil, err
}

// running describes an attempt whose lock is held.
func (at folder) running(rec *record) (runner.Status, error) {
	var w work
	err := at.read(fileWorker, &w)
	if errors.Is(err, os.ErrNotExist) || err == nil && !w.Running {
		return runner.Status{Phase: runner.Pending, Since: rec.Submitted}, nil
	}
	return runner.Status{Phase: runner.Running, Since: w.Started, Started: w.Started, Placement: w.Placement}, err
}

// checkKey refuses a folder that belongs to another key with the same hash.
func (at folder) checkKey(key runner.AttemptKey) error {
	var rec record
	if err := at.read(fileAttempt, &rec); err != nil {
		return err
	}
	if rec.Key != key.String() {
		return fmt.Errorf("submit %s: its folder %s holds %s", key, at.dir, rec.Key)
	}
	return nil
}

func (at folder) markCancelled(hook func(string)) error {
	if at.has(fileCancel) {
		return nil
	}
	hook("local:cancel:before")
	f, err := os.OpenFile(filepath.Join(at.dir, fileCancel), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("ask for the end: %w", err)
	}
	f.Close()
	hook("local:cancel:after")
	return nil
}

// tidy removes what only serves a running attempt.
func (at folder) tidy() {
	scratch := filepath.Join(at.dir, dirScratch)
	if os.RemoveAll(scratch) != nil {
		// Folders that the command made unreadable for their owner.
		filepath.WalkDir(scratch, func(p string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
		os.RemoveAll(scratch)
	}
	for _, f := range []string{fileAttempt, fileWorker, fileExit} {
		os.Remove(filepath.Join(at.dir, f+tmpSuffix))
	}
	if info, err := os.Stat(filepath.Join(at.dir, "worker.log")); err == nil && info.Size() == 0 {
		os.Remove(filepath.Join(at.dir, "worker.log"))
	}
}

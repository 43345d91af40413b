// Package pod is what runs inside of a pod: a worker that takes one attempt
// from a folder on the run's volume, runs it in the same sandbox as on one
// machine, says on its standard output what happens, and commits how it ended.
//
// A cluster runs an attempt at least once: a preempted pod is followed by
// another. It is counted exactly once:
//
//	attempt.json   what to run, written once by the submitter
//	pristine/N     each writable folder as it was before the first pod
//	begun          from here on a pod puts the writable folders back first
//	owner          the pod that has the attempt; another one stops itself
//	pods/UID/      what one pod did: its streams and its record
//	cancel         somebody asked for the end
//	exit.json      how it ended; the first to link it in decides, for good
//
// The submitter and every pod see the volume at the same path, so the paths of
// an attempt mean the same everywhere. Nothing else connects the two: a
// submitter that is gone for a week reads the folder and knows.
package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/tree"
)

const (
	fileAttempt = "attempt.json"
	fileBegun   = "begun"
	fileOwner   = "owner"
	fileCancel  = "cancel"
	fileExit    = "exit.json"
	dirPristine = "pristine"
	dirPods     = "pods"
)

// Folder is the path of one attempt on the volume.
type Folder string

// Record is attempt.json.
type Record struct {
	Key          string         `json:"key"`
	Submitted    time.Time      `json:"submitted"`
	Attempt      runner.Attempt `json:"attempt"` // limits filled in
	AllowPrivate []string       `json:"allow_private,omitempty"`
}

func (f Folder) path(name ...string) string {
	return filepath.Join(append([]string{string(f)}, name...)...)
}

// ErrTaken is returned by Create for a folder that belongs to another attempt.
var ErrTaken = errors.New("the folder belongs to another attempt")

// Create makes the folder with its record, or finds it made for the same key.
func (f Folder) Create(rec Record) error {
	if err := os.MkdirAll(string(f), 0o755); err != nil {
		return fmt.Errorf("make attempt folder: %w", err)
	}
	if err := f.once(fileAttempt, rec); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	got, err := f.Record()
	if err == nil && got.Key != rec.Key {
		err = fmt.Errorf("%w: %s", ErrTaken, got.Key)
	}
	return err
}

// Record reads what to run; its error wraps [fs.ErrNotExist] where no attempt was made.
func (f Folder) Record() (rec Record, err error) { return rec, f.read(fileAttempt, &rec) }

// Exit reads how the attempt ended; ok is false while it has not.
func (f Folder) Exit() (st runner.Status, ok bool, err error) {
	err = f.read(fileExit, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return st, false, nil
	}
	return st, err == nil, err
}

// Conclude commits how the attempt ended, unless that is decided already, and
// returns what holds.
func (f Folder) Conclude(st runner.Status) (runner.Status, error) {
	if err := f.once(fileExit, st); err != nil && !errors.Is(err, fs.ErrExist) {
		return st, err
	}
	got, ok, err := f.Exit()
	if err == nil && !ok {
		err = errors.New("conclude attempt: its end was committed and is gone")
	}
	return got, err
}

// Begun reports whether a pod has begun with the attempt.
func (f Folder) Begun() bool { return f.has(fileBegun) }

// Cancel asks for the end of the attempt.
func (f Folder) Cancel() error {
	return atomicfile.Write(f.path(fileCancel), nil, atomicfile.Options{})
}

// Cancelled reports whether somebody asked for the end.
func (f Folder) Cancelled() bool { return f.has(fileCancel) }

// Output is the path of the combined output of the pod that has the attempt;
// "" while no pod has begun.
func (f Folder) Output() string {
	owner, err := os.ReadFile(f.path(fileOwner))
	if err != nil {
		return ""
	}
	// The pod names its own attempts as this folder is named: by the key's hash.
	name := f.path(dirPods, string(owner), filepath.Base(string(f)), "output")
	if _, err := os.Stat(name); err != nil {
		return ""
	}
	return name
}

// Running is how the pod that has the attempt sees it.
func (f Folder) Running() (st runner.Status, ok bool) {
	owner, err := os.ReadFile(f.path(fileOwner))
	if err != nil {
		return st, false
	}
	err = f.read(filepath.Join(dirPods, string(owner), fileSeen), &st)
	return st, err == nil
}

func (f Folder) has(name string) bool {
	_, err := os.Lstat(f.path(name))
	return err == nil
}

func (f Folder) read(name string, v any) error {
	b, err := os.ReadFile(f.path(name))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", f.path(name), err)
	}
	return nil
}

// write replaces a file as a whole.
func (f Folder) write(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return atomicfile.Write(f.path(name), append(b, '\n'), atomicfile.Options{})
}

// once writes a file that nobody has written yet; its error wraps
// [fs.ErrExist] when somebody has.
func (f Folder) once(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return atomicfile.Once(f.path(name), append(b, '\n'), 0o644)
}

// begin makes the writable folders what they were before any pod had them: it
// keeps a copy of them the first time, and puts that back every other time.
func (f Folder) begin(writable []string) error {
	if f.Begun() {
		for i, dir := range writable {
			if err := f.restore(i, dir); err != nil {
				return fmt.Errorf("put %s back: %w", dir, err)
			}
		}
		return nil
	}
	for i, dir := range writable {
		kept := f.path(dirPristine, fmt.Sprint(i))
		if _, err := os.Lstat(kept); err == nil {
			continue
		}
		tmp := kept + ".tmp"
		if err := tree.Remove(tmp); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
		if err := copyInto(dir, tmp); err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
		if err := os.Rename(tmp, kept); err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
	}
	return atomicfile.Write(f.path(fileBegun), nil, atomicfile.Options{})
}

func (f Folder) restore(i int, dir string) error {
	kept := f.path(dirPristine, fmt.Sprint(i))
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		b, err := os.ReadFile(kept)
		if err != nil {
			return err
		}
		return os.WriteFile(dir, b, info.Mode().Perm())
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list { // the folder itself is a mount
		if err := tree.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	list, err = os.ReadDir(kept)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := copyInto(filepath.Join(kept, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// copyInto copies folders, regular files and symbolic links, links as they
// are, to a name that is free.
func copyInto(from, to string) error {
	type made struct {
		path string
		mode fs.FileMode
	}
	var dirs []made
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dst := to + strings.TrimPrefix(path, from)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch e.Type() {
		case fs.ModeDir:
			dirs = append(dirs, made{dst, info.Mode().Perm()})
			return os.Mkdir(dst, 0o700)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		case 0:
			return copyFile(path, dst, info.Mode().Perm())
		}
		return nil
	})
	// From the deepest up: a folder that may not be written is filled first.
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = os.Chmod(dirs[i].path, dirs[i].mode)
	}
	return err
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(mode), out.Close())
}

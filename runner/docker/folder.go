package docker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/capture"
	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/sandbox"
)

// The files of an attempt; the package comment says what each is for.
const (
	fileAttempt = "attempt.json"
	fileBegun   = "begun"
	fileSpec    = "spec.json"
	fileCancel  = "cancel"
	fileStatus  = "status.json"
	fileLock    = "lock"
	fileNetwork = "network.jsonl"
	dirOut      = "out"
	dirHome     = "home"
	dirNet      = "net"
	tmpSuffix   = ".tmp"
)

// folder is one attempt on disk.
type folder struct{ dir string }

func (at folder) path(name string) string { return filepath.Join(at.dir, name) }

// container is unique on the machine: two installations may hold the same key.
func (at folder) container() string {
	sum := sha256.Sum256([]byte(at.dir))
	return "repromill-" + filepath.Base(at.dir) + "-" + hex.EncodeToString(sum[:4])
}

// lock waits for the attempt's lock; closing the file gives it back.
func (at folder) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(at.path(fileLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("take lock: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (at folder) has(name string) bool {
	_, err := os.Lstat(at.path(name))
	return err == nil
}

func (at folder) read(name string, v any) error {
	b, err := os.ReadFile(at.path(name))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", at.path(name), err)
	}
	return nil
}

// write replaces a file as a whole and durably. Only the holder of the lock
// writes, so the temporary name is fixed.
func (at folder) write(name string, v any, hook func(string)) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	hook("docker:" + name + ":before")
	path := at.path(name)
	f, err := os.OpenFile(path+tmpSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+tmpSuffix, path)
	}
	if err == nil {
		err = atomicfile.SyncDir(at.dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	hook("docker:" + name + ":after")
	return nil
}

// mark makes an empty file, durably.
func (at folder) mark(name string, hook func(string)) error {
	if at.has(name) {
		return nil
	}
	hook("docker:" + name + ":before")
	f, err := os.OpenFile(at.path(name), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), atomicfile.SyncDir(at.dir))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	hook("docker:" + name + ":after")
	return nil
}

// status reads the final status; ok is false while there is none.
func (at folder) status() (st runner.Status, ok bool, err error) {
	err = at.read(fileStatus, &st)
	if errors.Is(err, os.ErrNotExist) {
		return st, false, nil
	}
	return st, err == nil, err
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

// prepare makes what the container is shown, fresh, and hands over what the
// command may write.
func (at folder) prepare(rec record, own owner) error {
	a := rec.Attempt
	spec := supervisor.Spec{
		Argv: a.Argv, Dir: a.Dir, Env: a.Env, Writable: a.Writable, Proxy: len(a.Network.Hosts) > 0,
		Wall: a.Limits.Wall, OutputBytes: a.Limits.OutputBytes, FileBytes: a.Limits.FileBytes, DiskBytes: a.Limits.DiskBytes, Processes: a.Limits.Processes,
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(at.path(fileSpec), b, 0o644); err != nil {
		return err
	}
	for _, name := range []string{dirOut, dirHome} {
		if err := errors.Join(removeAll(at.path(name)), os.Mkdir(at.path(name), 0o700)); err != nil {
			return err
		}
		if err := own.take(at.path(name)); err != nil {
			return err
		}
	}
	if spec.Proxy {
		if err := os.MkdirAll(at.path(dirNet), 0o755); err != nil {
			return err
		}
	}
	for _, w := range a.Writable {
		if err := own.take(w); err != nil {
			return err
		}
	}
	return nil
}

// owner is whom the command's files belong to.
type owner struct {
	uid, gid int
	change   bool // the caller may and must hand files over
}

func (o owner) take(path string) error {
	if !o.change {
		return nil
	}
	return sandbox.HandOver(path, o.uid, o.gid)
}

// forget takes an attempt back to where nothing has begun.
func (at folder) forget() error {
	err := os.Remove(at.path(fileBegun))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// exit reads how the command ended. The file is untrusted: it is opened as a
// regular file of this folder or not at all, and only so much is read.
func (at folder) exit() (supervisor.Exit, error) {
	f, err := openRegular(at.path(dirOut), supervisor.ExitFile)
	if err != nil {
		return supervisor.Exit{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return supervisor.Exit{}, err
	}
	return supervisor.DecodeExit(b)
}

// openRegular opens a regular file in a folder of untrusted code, following
// nothing and waiting for nothing.
func openRegular(dir, name string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, &os.PathError{Op: "open", Path: filepath.Join(dir, name), Err: errors.Join(err, errors.New("it is no regular file"))}
	}
	return f, nil
}

// keep moves what was printed out of the folder of untrusted code, into one
// that is ours. The container is gone.
func (at folder) keep(limit int64) error {
	for _, name := range []string{capture.Output, capture.Stdout, capture.Stderr} {
		if at.has(name) {
			continue
		}
		in, err := openRegular(at.path(dirOut), name)
		if err != nil {
			in = nil // never written, or replaced by the command: nothing is kept
		}
		if err := copyBounded(at.path(name), in, limit); err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return nil
}

func copyBounded(to string, in *os.File, limit int64) error {
	out, err := os.OpenFile(to+tmpSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if in != nil {
		_, err = io.Copy(out, io.LimitReader(in, limit))
		in.Close()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(to+tmpSuffix, to)
}

// output returns the combined output from a byte on, at most limit bytes of it.
func (at folder) output(from, limit int64) (io.ReadCloser, error) {
	dir := at.dir
	if !at.has(capture.Output) {
		dir = at.path(dirOut)
	}
	f, err := openRegular(dir, capture.Output)
	if errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return section{io.NewSectionReader(f, from, max(0, min(info.Size(), limit)-from)), f}, nil
}

type section struct {
	*io.SectionReader
	io.Closer
}

// tail is the end of what was kept of a stream, as one line.
func (at folder) tail(name string) string {
	f, err := os.Open(at.path(name))
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 2000 {
		f.Seek(-2000, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, 2000))
	return string(bytes.TrimSpace(b))
}

// tidy removes what only serves a running attempt; the output's folder goes
// last, and shows that something may be left.
func (at folder) tidy() error {
	err := errors.Join(removeAll(at.path(dirHome)), removeAll(at.path(dirNet)), os.RemoveAll(at.path(fileSpec)))
	if info, serr := os.Stat(at.path("proxy.log")); serr == nil && info.Size() == 0 {
		err = errors.Join(err, os.Remove(at.path("proxy.log")))
	}
	if err != nil {
		return err
	}
	return removeAll(at.path(dirOut))
}

// removeAll removes a folder in which foreign code may have taken away its own
// permissions.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

var handleRE = regexp.MustCompile(`^[0-9a-f]{16}$`)

// UnknownHandleError is a handle that names no attempt in this folder.
type UnknownHandleError struct{ Handle runner.Handle }

func (e *UnknownHandleError) Error() string {
	return fmt.Sprintf("no attempt %q among this machine's containers; submit it first", string(e.Handle))
}

func (e *Executor) folder(h runner.Handle) folder {
	return folder{filepath.Join(e.cfg.Dir, string(h))}
}

// open finds a submitted attempt.
func (e *Executor) open(h runner.Handle) (folder, record, error) {
	if !handleRE.MatchString(string(h)) {
		return folder{}, record{}, &UnknownHandleError{h}
	}
	at := e.folder(h)
	var rec record
	err := at.read(fileAttempt, &rec)
	if errors.Is(err, os.ErrNotExist) {
		return folder{}, record{}, &UnknownHandleError{h}
	}
	return at, rec, err
}

package docker

import (
	"bytes"
	"context"
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

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/capture"
	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/folder"
	"github.com/repromill/repromill/runner/sandbox"
	"github.com/repromill/repromill/runner/tree"
)

// The files of an attempt; the package comment says what each is for.
const (
	fileAttempt = folder.Attempt
	fileBegun   = "begun"
	fileSpec    = "spec.json"
	fileCancel  = "cancel"
	fileStatus  = "status.json"
	fileLock    = "lock"
	fileNetwork = "network.jsonl"
	dirOut      = "out"
	dirHome     = "home"
	dirNet      = "net"
)

// attempt is one on disk.
type attempt struct{ folder.Folder }

func attemptIn(dir string) attempt { return attempt{folder.Folder{Dir: dir, Point: "docker"}} }

// container is the name of its container.
func (at attempt) container() string { return "repromill-" + at.Name() }

// lock waits for the attempt's lock; closing the file gives it back.
func (at attempt) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(at.Path(fileLock), os.O_CREATE|os.O_RDWR, 0o600)
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

// prepare makes what the container is shown, fresh, and hands over what the
// command may write.
func (at attempt) prepare(rec record, own owner) error {
	a := rec.Attempt
	spec := supervisor.Spec{
		Argv: a.Argv, Dir: a.Dir, Env: a.Env, Writable: a.Writable, Proxy: len(a.Network.Hosts) > 0,
		Wall: a.Limits.Wall, OutputBytes: a.Limits.OutputBytes, FileBytes: a.Limits.FileBytes, DiskBytes: a.Limits.DiskBytes, Processes: a.Limits.Processes,
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(at.Path(fileSpec), b, 0o644); err != nil {
		return err
	}
	for _, name := range []string{dirOut, dirHome} {
		if err := errors.Join(tree.Remove(at.Path(name)), os.Mkdir(at.Path(name), 0o700)); err != nil {
			return err
		}
		if err := own.take(at.Path(name)); err != nil {
			return err
		}
	}
	if spec.Proxy {
		if err := os.MkdirAll(at.Path(dirNet), 0o755); err != nil {
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
func (at attempt) forget() error {
	err := os.Remove(at.Path(fileBegun))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// exit reads how the command ended. The file is untrusted: it is opened as a
// regular file of this folder or not at all, and only so much is read.
func (at attempt) exit() (supervisor.Exit, error) {
	f, err := openRegular(at.Path(dirOut), supervisor.ExitFile)
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
func (at attempt) keep(limit int64) error {
	for _, name := range []string{capture.Output, capture.Stdout, capture.Stderr} {
		if at.Has(name) {
			continue
		}
		in, err := openRegular(at.Path(dirOut), name)
		if err != nil {
			in = nil // never written, or replaced by the command: nothing is kept
		}
		if err := copyBounded(at.Path(name), in, limit); err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return nil
}

func copyBounded(to string, in *os.File, limit int64) error {
	out, err := os.OpenFile(to+folder.TmpSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
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
	return os.Rename(to+folder.TmpSuffix, to)
}

// output returns the combined output from a byte on, at most limit bytes of it.
func (at attempt) output(from, limit int64) (io.ReadCloser, error) {
	dir := at.Dir
	if !at.Has(capture.Output) {
		dir = at.Path(dirOut)
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
func (at attempt) tail(name string) string {
	f, err := os.Open(at.Path(name))
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
func (at attempt) tidy() error {
	err := errors.Join(tree.Remove(at.Path(dirHome)), tree.Remove(at.Path(dirNet)), os.RemoveAll(at.Path(fileSpec)))
	if info, serr := os.Stat(at.Path("proxy.log")); serr == nil && info.Size() == 0 {
		err = errors.Join(err, os.Remove(at.Path("proxy.log")))
	}
	if err != nil {
		return err
	}
	return tree.Remove(at.Path(dirOut))
}

var handleRE = regexp.MustCompile(`^[0-9a-f]{16}$`)

// UnknownHandleError is a handle that names no attempt in this folder.
type UnknownHandleError struct{ Handle runner.Handle }

func (e *UnknownHandleError) Error() string {
	return fmt.Sprintf("no attempt %q among this machine's containers; submit it first", string(e.Handle))
}

func (e *Executor) folder(h runner.Handle) attempt {
	return attemptIn(filepath.Join(e.cfg.Dir, string(h)))
}

// open finds a submitted attempt.
func (e *Executor) open(h runner.Handle) (attempt, record, error) {
	if !handleRE.MatchString(string(h)) {
		return attempt{}, record{}, &UnknownHandleError{h}
	}
	at := e.folder(h)
	var rec record
	err := at.Read(fileAttempt, &rec)
	if errors.Is(err, os.ErrNotExist) {
		return attempt{}, record{}, &UnknownHandleError{h}
	}
	return at, rec, err
}

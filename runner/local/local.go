// Package local runs attempts on this machine, each under a worker process of
// its own that outlives the program which submitted it.
//
// An attempt is a folder named by the hash of its key:
//
//	attempt.json   what to run, written before anything starts
//	lock           held with flock(2) from submission to the worker's end
//	worker.json    the worker has begun; from here on nothing starts it again
//	output         both streams in the order in which they arrived
//	stdout, stderr each stream by itself
//	network.jsonl  requests to the proxy, where the attempt had hosts to reach
//	cancel         somebody asked for the end
//	exit.json      how it ended, written last
//
// The submitter takes the lock and the worker inherits the locked descriptor,
// so there is no moment at which an attempt runs and its lock is free, and no
// pid is ever trusted. exit.json means final; a held lock means running; a
// free lock with worker.json and no exit.json means that the worker died
// without a word: what it left is swept and the attempt is lost for good.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/folder"
	"github.com/repromill/repromill/runner/sandbox"
)

// Config says where attempts live and how their workers start.
type Config struct {
	// Dir holds the attempts; it is made when it lacks. Required.
	Dir string
	// Self is the command line that runs [WorkerMain] in this program; the
	// attempt's folder is appended. Required.
	Self []string
	// Sandbox says how commands are isolated; its Init is required.
	Sandbox sandbox.Config
	// AllowPrivate lists "host:port" pairs that may lie at a private address,
	// such as a package index in the house. It is the user's word.
	AllowPrivate []string
	// Limits replace zero fields of an attempt's own. Their zero fields are 24
	// hours, 64 MiB of output, three quarters of the machine's memory, 4096
	// processes and threads, and 64 GiB for one file.
	Limits runner.Limits
	Now    func() time.Time // nil is time.Now
	// Hook is called around every durable step, with points such as
	// "local:attempt.json:before"; nil is none.
	Hook func(point string)
}

// Executor runs attempts in worker processes on this machine.
type Executor struct {
	cfg   Config
	probe func() sandbox.Capabilities
}

var (
	_ runner.Executor = (*Executor)(nil)
	_ runner.Logger   = (*Executor)(nil)
)

// New returns an executor over the attempts in cfg.Dir. Any number of
// executors in any number of processes may share the folder.
func New(cfg Config) (*Executor, error) {
	if cfg.Dir == "" || len(cfg.Self) == 0 || len(cfg.Sandbox.Init) == 0 {
		return nil, errors.New("new local executor: Dir, Self and Sandbox.Init are required")
	}
	dir, err := folder.Root(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("new local executor: %w", err)
	}
	cfg.Dir = dir
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Hook == nil {
		cfg.Hook = func(string) {}
	}
	return &Executor{cfg: cfg, probe: sync.OnceValue(func() sandbox.Capabilities { return sandbox.Probe(cfg.Sandbox) })}, nil
}

// Capabilities says what isolation this machine allows. The answer is found
// once per executor.
func (e *Executor) Capabilities() sandbox.Capabilities { return e.probe() }

// record is attempt.json: all that the worker needs to know.
type record struct {
	Key          string         `json:"key"`
	Submitted    time.Time      `json:"submitted"`
	Attempt      runner.Attempt `json:"attempt"` // limits filled in
	Sandbox      sandbox.Config `json:"sandbox"` // layer decided
	AllowPrivate []string       `json:"allow_private,omitempty"`
	Gaps         []string       `json:"gaps,omitempty"` // why no stronger layer was taken
}

// work is worker.json.
type work struct {
	PID       int              `json:"pid"`
	Taken     time.Time        `json:"taken"`
	Running   bool             `json:"running"` // the command itself has started
	Started   time.Time        `json:"started,omitzero"`
	Placement runner.Placement `json:"placement,omitzero"`
	Remains   sandbox.Remains  `json:"remains,omitzero"`
}

// Submit starts the attempt under a worker, or adopts the one that is there:
// whatever has begun with this key is never begun again.
func (e *Executor) Submit(ctx context.Context, a runner.Attempt) (runner.Handle, error) {
	h := runner.Handle(a.Key.Hash())
	at := e.folder(h)
	if err := os.MkdirAll(at.Dir, 0o755); err != nil {
		return "", fmt.Errorf("make attempt folder: %w", err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		lock, err := at.lock(syscall.LOCK_EX)
		if err != nil {
			return "", err
		}
		if lock != nil {
			err := e.submitLocked(ctx, at, lock, a)
			lock.Close() // a worker that was started keeps its own descriptor
			if err != nil {
				return "", err
			}
			return h, nil
		}
		if at.begun() {
			return h, at.CheckKey(a.Key)
		}
		// Another submitter is at it; it may yet die before it starts anything.
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("submit %s: %w", a.Key, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// submitLocked starts the attempt unless it has begun; the caller holds lock.
func (e *Executor) submitLocked(ctx context.Context, at attempt, lock *os.File, a runner.Attempt) error {
	if at.begun() {
		return at.CheckKey(a.Key)
	}
	rec, err := e.record(a)
	if err != nil {
		return err
	}
	if err := at.Write(fileAttempt, rec, folder.Power, e.cfg.Hook); err != nil {
		return err
	}
	e.cfg.Hook("local:spawn:before")
	if err := e.spawn(ctx, at, lock); err != nil {
		return fmt.Errorf("start worker for %s: %w", a.Key, err)
	}
	e.cfg.Hook("local:spawn:after")
	return nil
}

// record decides the layer and the limits of an attempt.
func (e *Executor) record(a runner.Attempt) (*record, error) {
	rec := &record{Key: a.Key.String(), Submitted: e.cfg.Now().UTC(), Attempt: a, Sandbox: e.cfg.Sandbox, AllowPrivate: e.cfg.AllowPrivate}
	rec.Attempt.Limits = fill(a.Limits, e.cfg.Limits)
	if a.NoSandbox {
		rec.Sandbox.Layer = sandbox.None
	} else {
		if rec.Sandbox.Layer == sandbox.Auto {
			found := e.probe()
			rec.Sandbox = found.Apply(rec.Sandbox)
			rec.Gaps = found.Problems
		}
		if rec.Sandbox.Layer == sandbox.None {
			return nil, &sandbox.UnavailableError{Problems: rec.Gaps}
		}
	}
	spec := sandbox.Spec{Argv: a.Argv, Dir: a.Dir, Env: a.Env, Writable: a.Writable, ReadOnly: a.ReadOnly}
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("submit %s: %w", a.Key, err)
	}
	return rec, nil
}

// Defaults of runner.Limits.
const (
	defaultWall        = 24 * time.Hour
	defaultOutputBytes = 64 << 20
	defaultProcesses   = 4096
	defaultFileBytes   = 64 << 30
)

func fill(l, defaults runner.Limits) runner.Limits {
	l.Wall = firstPositive(l.Wall, defaults.Wall, defaultWall)
	l.OutputBytes = firstPositive(l.OutputBytes, defaults.OutputBytes, defaultOutputBytes)
	l.MemoryBytes = firstPositive(l.MemoryBytes, defaults.MemoryBytes, machineMemory()*3/4)
	l.Processes = firstPositive(l.Processes, defaults.Processes, defaultProcesses)
	l.FileBytes = firstPositive(l.FileBytes, defaults.FileBytes, defaultFileBytes)
	return l
}

func firstPositive[T int | int64 | time.Duration](values ...T) T {
	for _, v := range values {
		if v > 0 {
			return v
		}
	}
	return 0
}

// machineMemory is the machine's memory in bytes, 0 where it cannot be read.
func machineMemory() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib int64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err != nil {
		return 0
	}
	return kib << 10
}

// spawn starts the worker with the locked descriptor and returns when the
// worker has written worker.json.
func (e *Executor) spawn(ctx context.Context, at attempt, lock *os.File) error {
	log, err := os.OpenFile(at.Path("worker.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	argv := append(append([]string{}, e.cfg.Self...), at.Dir)
	cmd := exec.Command(argv[0], argv[1:]...)
	// The worker gets nothing of this process's environment: it runs beside
	// untrusted code.
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{lock, w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	go cmd.Wait() // it may outlive this process, and leaves no zombie if it does not
	ready := make(chan bool, 1)
	go func() {
		var b [1]byte
		n, _ := r.Read(b[:])
		ready <- n == 1
	}()
	select {
	case <-ctx.Done():
		return ctx.Err() // submitting again finds out what became of it
	case ok := <-ready:
		if ok || at.begun() {
			return nil
		}
	}
	text, _ := os.ReadFile(log.Name())
	return fmt.Errorf("it ended before it began: %s", strings.TrimSpace(string(text[max(0, len(text)-2000):])))
}

// Observe says where the attempt stands. It changes nothing but one thing: an
// attempt whose worker has died is swept and becomes final.
func (e *Executor) Observe(ctx context.Context, h runner.Handle) (runner.Status, error) {
	at, rec, err := e.open(h)
	if err != nil {
		return runner.Status{}, err
	}
	st, err := e.observe(ctx, at, rec)
	if err != nil {
		return runner.Status{}, fmt.Errorf("observe %s: %w", rec.Key, err)
	}
	st.Stdout, st.Stderr = at.Path(fileStdout), at.Path(fileStderr)
	return st, nil
}

func (e *Executor) observe(ctx context.Context, at attempt, rec *record) (runner.Status, error) {
	if st, ok, err := at.Status(fileExit); ok || err != nil {
		return st, err
	}
	lock, err := at.lock(syscall.LOCK_SH)
	if err != nil {
		return runner.Status{}, err
	}
	if lock == nil {
		return at.running(rec)
	}
	lock.Close()
	// The worker may have ended between the two looks.
	if st, ok, err := at.Status(fileExit); ok || err != nil {
		return st, err
	}
	if !at.begun() {
		return runner.Status{Phase: runner.Pending, Since: rec.Submitted, Message: "its submission was interrupted before anything started; submit it again"}, nil
	}
	return e.settleLost(ctx, at, rec)
}

// settleLost sweeps after a worker that died and makes the loss final.
func (e *Executor) settleLost(ctx context.Context, at attempt, rec *record) (runner.Status, error) {
	lock, err := at.lock(syscall.LOCK_EX)
	if err != nil {
		return runner.Status{}, err
	}
	if lock == nil {
		return at.running(rec) // another observer is settling it
	}
	defer lock.Close()
	if st, ok, err := at.Status(fileExit); ok || err != nil {
		return st, err
	}
	var w work
	if err := at.Read(fileWorker, &w); err != nil {
		return runner.Status{}, err
	}
	if err := w.Remains.Sweep(ctx); err != nil {
		return runner.Status{}, err
	}
	at.tidy()
	now := e.cfg.Now().UTC()
	st := runner.Status{
		Phase: runner.Failed, Reason: runner.ReasonLost, Since: now, ExitCode: -1, Started: w.Started, Finished: now, Placement: w.Placement,
		Message: "the worker process died without a word: it was killed, or the machine went down; trying again is safe",
	}
	return st, at.Write(fileExit, st, folder.Power, e.cfg.Hook)
}

// Cancel asks for the end of the attempt and returns when it has ended.
func (e *Executor) Cancel(ctx context.Context, h runner.Handle) error {
	at, rec, err := e.open(h)
	if err != nil {
		return err
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if _, ok, err := at.Status(fileExit); ok || err != nil {
			return err
		}
		if err := at.Mark(fileCancel, e.cfg.Hook); err != nil {
			return err
		}
		if done, err := e.cancelIdle(ctx, at, rec); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cancel %s: it was asked to end and has not yet: %w", rec.Key, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// cancelIdle settles an attempt that no worker holds; done is false while one does.
func (e *Executor) cancelIdle(ctx context.Context, at attempt, rec *record) (done bool, err error) {
	lock, err := at.lock(syscall.LOCK_EX)
	if err != nil || lock == nil {
		return false, err
	}
	defer lock.Close()
	if _, ok, err := at.Status(fileExit); ok || err != nil {
		return true, err
	}
	if at.begun() {
		lock.Close()
		_, err := e.settleLost(ctx, at, rec)
		return err == nil, err
	}
	now := e.cfg.Now().UTC()
	st := runner.Status{Phase: runner.Cancelled, Reason: runner.ReasonCancelled, Since: now, ExitCode: -1, Finished: now, Message: "cancelled before it started"}
	return true, at.Write(fileExit, st, folder.Power, e.cfg.Hook)
}

// Logs returns the combined output from a byte on, as far as it is written.
func (e *Executor) Logs(_ context.Context, h runner.Handle, fromByte int64) (io.ReadCloser, error) {
	at, rec, err := e.open(h)
	if err != nil {
		return nil, err
	}
	if fromByte < 0 {
		return nil, fmt.Errorf("read logs of %s: offset %d is negative", rec.Key, fromByte)
	}
	f, err := os.Open(at.Path(fileOutput))
	if errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read logs of %s: %w", rec.Key, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read logs of %s: %w", rec.Key, err)
	}
	return section{io.NewSectionReader(f, fromByte, max(0, info.Size()-fromByte)), f}, nil
}

type section struct {
	*io.SectionReader
	io.Closer
}

var handleRE = regexp.MustCompile(`^[0-9a-f]{16}$`)

// UnknownHandleError is a handle that names no attempt in this folder.
type UnknownHandleError struct{ Handle runner.Handle }

func (e *UnknownHandleError) Error() string {
	return fmt.Sprintf("no attempt %q on this machine; submit it first", string(e.Handle))
}

func (e *Executor) folder(h runner.Handle) attempt {
	return attemptIn(filepath.Join(e.cfg.Dir, string(h)))
}

// open finds a submitted attempt.
func (e *Executor) open(h runner.Handle) (attempt, *record, error) {
	if !handleRE.MatchString(string(h)) {
		return attempt{}, nil, &UnknownHandleError{h}
	}
	at := e.folder(h)
	var rec record
	err := at.Read(fileAttempt, &rec)
	if errors.Is(err, os.ErrNotExist) {
		return attempt{}, nil, &UnknownHandleError{h}
	}
	return at, &rec, err
}

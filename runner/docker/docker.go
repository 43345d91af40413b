// Package docker runs attempts in containers of Docker's engine.
//
// A container needs nobody once it runs: its first process is this program's
// own supervisor (runner/docker/supervisor), which holds the time, output and
// disk limits and writes the output and the end into a folder. So this program
// and, with live restore, even the engine may die and come back. An attempt is
// a folder named by the hash of its key:
//
//	attempt.json   what to run, written before anything is made
//	begun          written before the container starts; without the container
//	               it means that the attempt is lost, and never begun again
//	spec.json      what the supervisor is told
//	out/           the supervisor's: output, stdout, stderr, exit.json
//	home/          the command's home folder
//	net/           sockets of the proxy, where the attempt had hosts to reach
//	cancel         somebody asked for the end
//	status.json    how it ended, written last; the container is removed then
//
// The container's name is made from the key, so that a second submission finds
// the first one's. out/ and home/ belong to untrusted code: nothing in them is
// followed, and nothing is ever copied out of a container by the engine.
package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/folder"
)

// Config says where attempts live and how containers are made.
type Config struct {
	// Dir holds the attempts; it is made when it lacks. Required.
	Dir string
	// Connect opens the engine. It is called when the engine is first needed,
	// and again after it failed. Required.
	Connect func(context.Context) (*engine.Engine, error)
	// Program is the path of a static Linux binary that runs
	// [supervisor.Main] when it is called with ProgramArgs. Required.
	Program     string
	ProgramArgs []string
	// Proxy is the command line that runs [ProxyMain]; the attempt's folder is
	// appended. Required for attempts with hosts to reach.
	Proxy []string
	// Image runs attempts that name none.
	Image string
	// AllowPrivate lists "host:port" pairs that may lie at a private address.
	// It is the user's word.
	AllowPrivate []string
	// UID and GID are the command's when the caller is root; 0 means 65532.
	UID, GID int
	CPUs     float64 // per attempt; 0 means all
	// Limits replace zero fields of an attempt's own. Their zero fields are 24
	// hours, 64 MiB of output, three quarters of the engine's memory, 4096
	// processes and threads, 64 GiB for one file and for all that is written.
	Limits runner.Limits
	Now    func() time.Time // nil is time.Now
	// Hook is called around every durable step, with points such as
	// "docker:attempt.json:before"; nil is none.
	Hook func(point string)
}

// Executor runs attempts in containers.
type Executor struct {
	cfg Config

	mu   sync.Mutex
	eng  *engine.Engine
	info engine.Info
}

var (
	_ runner.Executor = (*Executor)(nil)
	_ runner.Logger   = (*Executor)(nil)
)

// New returns an executor over the attempts in cfg.Dir. It does not need the
// engine yet. Any number of executors in any number of processes may share the
// folder.
func New(cfg Config) (*Executor, error) {
	if cfg.Dir == "" || cfg.Connect == nil || cfg.Program == "" {
		return nil, errors.New("new docker executor: Dir, Connect and Program are required")
	}
	dir, err := folder.Root(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("new docker executor: %w", err)
	}
	cfg.Dir = dir
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Hook == nil {
		cfg.Hook = func(string) {}
	}
	return &Executor{cfg: cfg}, nil
}

// engine returns the connection to the engine, and what it is.
func (e *Executor) engine(ctx context.Context) (*engine.Engine, engine.Info, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.eng != nil {
		return e.eng, e.info, nil
	}
	eng, err := e.cfg.Connect(ctx)
	if err != nil {
		return nil, engine.Info{}, err
	}
	info, err := eng.Info(ctx)
	if err == nil {
		err = suits(eng, info)
	}
	if err != nil {
		return nil, engine.Info{}, errors.Join(err, eng.Close())
	}
	e.eng, e.info = eng, info
	return eng, info, nil
}

// UnsuitableError is an engine that answers and cannot run attempts.
type UnsuitableError struct{ Why, Fix string }

func (e *UnsuitableError) Error() string {
	return "this Docker engine cannot run attempts: " + e.Why + "; " + e.Fix
}

// UserError returns what to do.
func (e *UnsuitableError) UserError() string { return e.Fix }

func suits(eng *engine.Engine, info engine.Info) error {
	switch {
	case !eng.Local():
		return &UnsuitableError{"it is at " + eng.Host() + ", which does not see this machine's files", "unset DOCKER_HOST, or run repromill on the engine's machine"}
	case info.OS != "linux":
		return &UnsuitableError{"it runs " + info.OS + " containers", "switch it to Linux containers"}
	}
	return nil
}

// record is attempt.json.
type record struct {
	Key       string         `json:"key"`
	Submitted time.Time      `json:"submitted"`
	Attempt   runner.Attempt `json:"attempt"` // limits and image filled in
	Engine    string         `json:"engine"`  // its id
	Container string         `json:"container"`
	Sandbox   []string       `json:"sandbox"`
	Missing   []string       `json:"missing,omitempty"`
	Private   []string       `json:"allow_private,omitempty"`
}

// Submit starts the attempt in a container, or adopts the one that is there.
func (e *Executor) Submit(ctx context.Context, a runner.Attempt) (runner.Handle, error) {
	h := runner.Handle(a.Key.Hash())
	at := e.folder(h)
	if err := os.MkdirAll(at.Dir, 0o755); err != nil {
		return "", fmt.Errorf("make attempt folder: %w", err)
	}
	lock, err := at.lock(ctx)
	if err != nil {
		return "", fmt.Errorf("submit %s: %w", a.Key, err)
	}
	defer lock.Close()
	if err := e.submitLocked(ctx, at, a); err != nil {
		return "", err
	}
	return h, nil
}

func (e *Executor) submitLocked(ctx context.Context, at attempt, a runner.Attempt) error {
	if at.Has(fileStatus) {
		return at.CheckKey(a.Key)
	}
	var rec record
	if at.Has(fileBegun) {
		if err := at.CheckKey(a.Key); err != nil {
			return err
		}
		if err := at.Read(fileAttempt, &rec); err != nil {
			return err
		}
	}
	if rec.Key == "" {
		eng, info, err := e.engine(ctx)
		if err != nil {
			return err
		}
		if rec, err = e.record(ctx, eng, info, at, a); err != nil {
			return err
		}
		if err := at.Write(fileAttempt, rec, folder.Power, e.cfg.Hook); err != nil {
			return err
		}
		if err := at.prepare(rec, e.owner(info)); err != nil {
			return fmt.Errorf("prepare %s: %w", a.Key, err)
		}
		if err := e.create(ctx, eng, info, at, rec); err != nil {
			return err
		}
	}
	return e.begin(ctx, at, rec)
}

// create makes the container. One with the same name and key, which an earlier
// submission made and never started, is replaced: its limits may be older.
func (e *Executor) create(ctx context.Context, eng *engine.Engine, info engine.Info, at attempt, rec record) error {
	c := e.container(info, at, rec)
	e.cfg.Hook("docker:create:before")
	_, err := eng.Create(ctx, c)
	if errors.Is(err, engine.ErrConflict) {
		st, ierr := eng.Inspect(ctx, rec.Container)
		switch {
		case ierr != nil:
			return ierr
		case st.Labels[labelKey] != rec.Key || st.Status != "created":
			return fmt.Errorf("submit %s: the container name %s is taken", rec.Key, rec.Container)
		}
		if err := eng.Remove(ctx, rec.Container); err != nil {
			return err
		}
		_, err = eng.Create(ctx, c)
	}
	if errors.Is(err, engine.ErrNotFound) {
		return &UnsuitableError{fmt.Sprintf("it does not have the image %q", rec.Attempt.Image), "fetch it with `docker pull " + rec.Attempt.Image + "`, or run again to have it built"}
	}
	if err != nil {
		return fmt.Errorf("submit %s: %w", rec.Key, err)
	}
	e.cfg.Hook("docker:create:after")
	return nil
}

// begin starts a container that was made and never started.
func (e *Executor) begin(ctx context.Context, at attempt, rec record) error {
	eng, info, err := e.engine(ctx)
	if err != nil {
		return err
	}
	if info.ID != rec.Engine {
		return otherEngine(rec)
	}
	st, err := eng.Inspect(ctx, rec.Container)
	if errors.Is(err, engine.ErrNotFound) && at.Has(fileBegun) {
		return nil // Observe says that it is lost
	}
	if err != nil || st.Status != "created" {
		return err
	}
	if len(rec.Attempt.Network.Hosts) > 0 {
		if err := e.startProxy(ctx, at); err != nil {
			return fmt.Errorf("submit %s: %w", rec.Key, err)
		}
	}
	if err := at.Mark(fileBegun, e.cfg.Hook); err != nil {
		return err
	}
	e.cfg.Hook("docker:start:before")
	if err := eng.Start(ctx, rec.Container); err != nil && ctx.Err() == nil {
		// Nothing ran: what was made is taken away, so that another try begins anew.
		bg, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		return errors.Join(startError(rec, err), eng.Remove(bg, rec.Container), at.forget(), at.tidy())
	} else if err != nil {
		return err
	}
	e.cfg.Hook("docker:start:after")
	return nil
}

// cleanupTime bounds what is done after the caller's context has ended.
const cleanupTime = 20 * time.Second

func otherEngine(rec record) error {
	return &UnsuitableError{fmt.Sprintf("attempt %s runs in another one (id %s)", rec.Key, rec.Engine), "set DOCKER_HOST to the engine that it was submitted to"}
}

// Observe says where the attempt stands. It changes nothing but one thing: an
// attempt whose container has ended is settled and becomes final.
func (e *Executor) Observe(ctx context.Context, h runner.Handle) (runner.Status, error) {
	at, rec, err := e.open(h)
	if err != nil {
		return runner.Status{}, err
	}
	st, err := e.observe(ctx, at, rec)
	if err != nil {
		return runner.Status{}, fmt.Errorf("observe %s: %w", rec.Key, err)
	}
	return st, nil
}

func (e *Executor) observe(ctx context.Context, at attempt, rec record) (runner.Status, error) {
	if st, ok, err := at.Status(fileStatus); ok || err != nil {
		e.sweep(ctx, at, rec)
		return st, err
	}
	eng, info, err := e.engine(ctx)
	if err != nil {
		return runner.Status{}, err
	}
	if info.ID != rec.Engine {
		return runner.Status{}, otherEngine(rec)
	}
	c, err := eng.Inspect(ctx, rec.Container)
	switch {
	case errors.Is(err, engine.ErrNotFound) && !at.Has(fileBegun):
		return runner.Status{Phase: runner.Pending, Since: rec.Submitted, Message: "its submission was interrupted before anything started; submit it again"}, nil
	case errors.Is(err, engine.ErrNotFound):
		return e.settle(ctx, eng, info, at, rec)
	case err != nil:
		return runner.Status{}, err
	case c.Status == "created":
		return runner.Status{Phase: runner.Pending, Since: rec.Submitted}, nil
	case c.Running || c.Status == "restarting":
		st := runner.Status{Phase: runner.Running, Since: c.Started, Started: c.Started, Placement: e.placement(info, rec)}
		if c.Paused {
			st.Message = "its container is paused; `docker unpause " + rec.Container + "` lets it go on"
		}
		return st, nil
	}
	return e.settle(ctx, eng, info, at, rec)
}

// sweep takes away what an observer left that died after the status was
// written. The status holds either way, so nothing is said of a failure.
func (e *Executor) sweep(ctx context.Context, at attempt, rec record) {
	if !at.Has(dirOut) {
		return
	}
	eng, info, err := e.engine(ctx)
	if err != nil || info.ID != rec.Engine {
		return
	}
	if eng.Remove(ctx, rec.Container) == nil {
		at.tidy()
	}
}

// Cancel kills the container and returns when the attempt has ended.
func (e *Executor) Cancel(ctx context.Context, h runner.Handle) error {
	at, rec, err := e.open(h)
	if err != nil {
		return err
	}
	if _, ok, err := at.Status(fileStatus); ok || err != nil {
		return err
	}
	eng, info, err := e.engine(ctx)
	if err != nil {
		return err
	}
	if info.ID != rec.Engine {
		return otherEngine(rec)
	}
	if err := at.Mark(fileCancel, e.cfg.Hook); err != nil {
		return err
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		if err := eng.Kill(ctx, rec.Container, "KILL"); err != nil && !errors.Is(err, engine.ErrConflict) && !errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("cancel %s: %w", rec.Key, err)
		}
		c, err := eng.Inspect(ctx, rec.Container)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("cancel %s: %w", rec.Key, err)
		}
		if !c.Running && c.Status != "restarting" {
			_, err := e.settle(ctx, eng, info, at, rec)
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cancel %s: it was asked to end and has not yet: %w", rec.Key, ctx.Err())
		case <-time.After(wait):
		}
	}
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
	r, err := at.output(fromByte, rec.Attempt.Limits.OutputBytes)
	if err != nil {
		return nil, fmt.Errorf("read logs of %s: %w", rec.Key, err)
	}
	return r, nil
}

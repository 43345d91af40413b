package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/gpu"
	"github.com/repromill/repromill/runner/local"
	"github.com/repromill/repromill/runner/sandbox"
	"github.com/repromill/repromill/runner/tree"
)

// Exit statuses of a worker, which a Job's pod failure policy knows. Whatever
// the command did, a worker that has committed it ends with 0.
const (
	ExitCommitted = 0
	ExitRefused   = 65 // the attempt cannot be run as it stands: no other pod can either
	ExitAgain     = 75 // this pod could not do it, another one may
)

// Config is one worker.
type Config struct {
	Folder Folder
	// UID names this pod among all that ever get the attempt; Node is the
	// node's name.
	UID, Node string
	// Self and Init are the command lines of [local.WorkerMain] and
	// [sandbox.InitMain] in this program; Probe is that of [ProbeMain].
	Self, Init, Probe []string
	// ProbeReadOnly are the paths that Probe needs in a sandbox.
	ProbeReadOnly []string
	Events        io.Writer // one [runner.Event] a line
	Now           func() time.Time
	// Hook is called around every durable step, with points such as
	// "pod:begin:before"; nil is none.
	Hook func(point string)
}

// fileSeen is what the pod last saw of its attempt, below pods/UID.
const fileSeen = "seen.json"

// Main is the command "worker FOLDER": the names of the pod and its node come
// in the environment variables POD_UID and NODE_NAME. self is this program
// with its hidden entry points "__worker", "__sandbox-init" and "__probe".
func Main(args []string, self string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: repromill worker FOLDER   (a pod of a run calls it; FOLDER is the attempt on the run's volume)")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	w := Config{
		Folder: Folder(args[0]), UID: os.Getenv("POD_UID"), Node: os.Getenv("NODE_NAME"),
		Self: []string{self, "__worker"}, Init: []string{self, "__sandbox-init"}, Probe: []string{self, "__probe"}, ProbeReadOnly: []string{self},
		Events: os.Stdout, Now: time.Now,
	}
	code, err := w.Run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "repromill worker:", err)
	}
	return code
}

// Run runs the attempt to its end and returns the exit status. When ctx ends
// the command is stopped: as cancelled if somebody asked for that, else as
// interrupted, which commits nothing, since another pod begins anew.
func (c Config) Run(ctx context.Context) (int, error) {
	if c.Hook == nil {
		c.Hook = func(string) {}
	}
	if c.UID == "" {
		return ExitRefused, errors.New("POD_UID is not set: the pod's template has to pass it on")
	}
	if _, done, err := c.Folder.Exit(); done || err != nil {
		return code(err), err
	}
	rec, err := c.Folder.Record()
	if err != nil {
		return ExitAgain, err // the volume may not be there yet
	}
	w := &worker{Config: c, rec: rec}
	if err := w.step("own", func() error { return atomicfile.Write(c.Folder.path(fileOwner), []byte(c.UID), atomicfile.Options{}) }); err != nil {
		return ExitAgain, err
	}
	w.say(runner.PhaseChanged, map[string]any{"phase": runner.Pending, "pod": c.UID, "node": c.Node, "again": c.Folder.Begun()})
	if err := w.step("begin", func() error { return c.Folder.begin(rec.Attempt.Writable) }); err != nil {
		return ExitAgain, err
	}
	st, err := w.execute(ctx)
	if err != nil {
		return ExitAgain, err
	}
	return w.conclude(st)
}

func code(err error) int {
	if err != nil {
		return ExitAgain
	}
	return ExitCommitted
}

// worker is a pod at work on its attempt.
type worker struct {
	Config
	rec  Record
	seq  int64
	read int64 // of the output
}

func (w *worker) step(name string, fn func() error) error {
	w.Hook("pod:" + name + ":before")
	err := fn()
	if err == nil {
		w.Hook("pod:" + name + ":after")
	}
	return err
}

// say writes one event. Nobody may be listening; the volume is what counts.
func (w *worker) say(kind runner.EventKind, data any) {
	body, err := json.Marshal(data)
	if err != nil {
		return
	}
	w.seq++
	k := w.rec.Attempt.Key
	line, err := json.Marshal(runner.Event{Seq: w.seq, RunID: k.RunID, Stage: k.Stage, Time: w.Now().UTC(), Kind: kind, Data: body})
	if err == nil {
		w.Events.Write(append(line, '\n'))
	}
}

// execute runs the attempt as on one machine, in a folder of this pod's own.
func (w *worker) execute(ctx context.Context) (runner.Status, error) {
	e, err := local.New(local.Config{Dir: w.Folder.path(dirPods, w.UID), Self: w.Self, Sandbox: sandbox.Config{Init: w.Init}, AllowPrivate: w.rec.AllowPrivate, Now: w.Now})
	if err != nil {
		return runner.Status{}, err
	}
	if refused, err := w.probe(ctx, e); err != nil || refused.Phase.Final() {
		return refused, err
	}
	var user interface{ UserError() string }
	h, err := e.Submit(ctx, w.rec.Attempt)
	if errors.As(err, &user) {
		return runner.Status{Phase: runner.Failed, Reason: runner.ReasonStart, Message: err.Error(), Since: w.Now().UTC(), Finished: w.Now().UTC(), ExitCode: -1}, nil
	} else if err != nil {
		return runner.Status{}, err
	}
	return w.follow(ctx, e, h)
}

// pollEvery is how often the worker looks at its attempt.
const pollEvery = 100 * time.Millisecond

// follow waits for the end of the attempt, passes its output on, and stops it
// when the pod has to go or another pod has taken over.
func (w *worker) follow(ctx context.Context, e *local.Executor, h runner.Handle) (runner.Status, error) {
	var seen runner.Phase
	for tick := 0; ; tick++ {
		st, err := e.Observe(context.WithoutCancel(ctx), h)
		if err != nil {
			return st, err
		}
		if st.Phase != seen {
			seen = st.Phase
			st.Placement.Node = w.Node
			if err := w.Folder.write(filepath.Join(dirPods, w.UID, fileSeen), st); err != nil {
				return st, err
			}
			w.say(runner.PhaseChanged, map[string]any{"attempt": w.rec.Key, "phase": st.Phase, "reason": st.Reason, "message": st.Message})
		}
		w.pass(e, h)
		if st.Phase.Final() {
			return st, nil
		}
		if tick%10 == 9 && !w.owns() {
			return st, errors.Join(errors.New("another pod has taken the attempt over"), w.stop(e, h))
		}
		if ctx.Err() != nil || w.Folder.Cancelled() {
			if err := w.stop(e, h); err != nil {
				return st, err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollEvery):
		}
	}
}

// stopTime is how long ending a command may take: less than the grace that a
// pod is given.
const stopTime = 20 * time.Second

func (w *worker) stop(e *local.Executor, h runner.Handle) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return e.Cancel(ctx, h)
}

func (w *worker) owns() bool {
	b, err := os.ReadFile(w.Folder.path(fileOwner))
	return err != nil || string(b) == w.UID // what cannot be read says nothing
}

// pass writes new output as events.
func (w *worker) pass(e *local.Executor, h runner.Handle) {
	r, err := e.Logs(context.Background(), h, w.read)
	if err != nil {
		return
	}
	defer r.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			w.read += int64(n)
			w.say(runner.Log, map[string]any{"attempt": w.rec.Key, "message": string(buf[:n])})
		}
		if err != nil {
			return
		}
	}
}

// conclude commits the end, unless it is the end of this pod only.
func (w *worker) conclude(st runner.Status) (int, error) {
	cancelled := w.Folder.Cancelled()
	switch {
	case st.Reason == runner.ReasonCancelled && !cancelled:
		w.say(runner.PhaseChanged, map[string]any{"attempt": w.rec.Key, "phase": runner.Pending, "reason": "interrupted", "message": "the pod was told to end; another one begins anew"})
		return ExitAgain, errors.New("the pod was told to end before its attempt had ended")
	case st.Reason == runner.ReasonLost:
		return ExitAgain, errors.New(st.Message)
	case !w.owns():
		return ExitAgain, errors.New("another pod has taken the attempt over")
	}
	st.Placement.Node = w.Node
	if w.rec.Attempt.GPUs > 0 {
		seen := gpu.Look("/")
		st.Placement.GPUUUIDs, st.Placement.Driver = append(st.Placement.GPUUUIDs, seen.UUIDs...), seen.Driver
	}
	err := w.step("exit", func() error {
		_, err := w.Folder.Conclude(st)
		return err
	})
	if err == nil {
		_ = tree.Remove(w.Folder.path(dirPristine)) // no pod begins anew after this
	}
	return code(err), err
}

package local

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/capture"
	"github.com/repromill/repromill/runner/folder"
	"github.com/repromill/repromill/runner/sandbox"
	"github.com/repromill/repromill/runner/sandbox/proxy"
)

// Worker runs one attempt in a process of its own. The zero value works.
type Worker struct {
	Now  func() time.Time
	Hook func(point string)
}

// WorkerMain is the hidden command that [Config].Self names; args is the
// attempt's folder. Its result is the exit status.
func WorkerMain(args []string) int { return Worker{}.Main(args) }

// The descriptors that Submit hands to a worker. The lock is held for as long
// as its one is open.
const (
	lockFD  = 3
	readyFD = 4
)

// cancelPoll is how often a worker looks whether somebody asked for the end.
const cancelPoll = 50 * time.Millisecond

// Main runs the attempt in the folder args[0] to its end.
func (w Worker) Main(args []string) int {
	if w.Now == nil {
		w.Now = time.Now
	}
	if w.Hook == nil {
		w.Hook = func(string) {}
	}
	// No descriptor may reach the command: the lock's would keep it held when
	// this process is dead.
	err := sandbox.KeepDescriptors()
	if len(args) != 1 || err != nil || !holdsLock(args[0]) {
		fmt.Fprintln(os.Stderr, "this command is started by repromill itself to run an attempt, and not by hand")
		return 2
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT)
	r := &run{Worker: w, at: attemptIn(args[0]), stop: stop}
	if err := r.take(os.NewFile(readyFD, "ready")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	st := r.execute()
	r.at.tidy()
	if err := r.conclude(st); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// holdsLock reports whether this process was given the attempt's locked
// descriptor, which only Submit does.
func holdsLock(dir string) bool {
	var want, got syscall.Stat_t
	if syscall.Stat(filepath.Join(dir, fileLock), &want) != nil || syscall.Fstat(lockFD, &got) != nil {
		return false
	}
	return want.Dev == got.Dev && want.Ino == got.Ino && syscall.Flock(lockFD, syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// run is one attempt under way.
type run struct {
	Worker
	at    attempt
	rec   record
	work  work
	stop  chan os.Signal
	cause cause

	network *proxy.FileLog
}

// take makes the attempt this worker's own and says so to the submitter.
func (r *run) take(ready *os.File) error {
	defer ready.Close()
	if r.at.begun() {
		return fmt.Errorf("%s has begun already", r.at.Dir)
	}
	if err := r.at.Read(fileAttempt, &r.rec); err != nil {
		return err
	}
	if err := sandbox.AdoptOrphans(); err != nil {
		return err
	}
	r.work = work{PID: os.Getpid(), Taken: r.Now().UTC(), Remains: sandbox.Plan(r.at.Name())}
	// Not durable: after a loss of power nothing runs, and beginning again is right.
	if err := r.at.Write(fileWorker, r.work, folder.Process, r.Hook); err != nil {
		return err
	}
	_, err := ready.Write([]byte{1})
	if err != nil {
		return nil // the submitter is gone; the attempt is not
	}
	return nil
}

// conclude writes the last word. A full disk may have room again later, and
// without that word the attempt would count as lost.
func (r *run) conclude(st runner.Status) (err error) {
	for range 60 {
		if err = r.at.Write(fileExit, st, folder.Power, r.Hook); err == nil {
			return nil
		}
		time.Sleep(time.Second)
	}
	return err
}

// cause is the first reason for which this worker ended the command.
type cause struct {
	mu     sync.Mutex
	reason runner.Reason
}

func (c *cause) set(r runner.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == runner.ReasonNone {
		c.reason = r
	}
}

func (c *cause) get() runner.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// execute runs the command and says how it ended.
func (r *run) execute() runner.Status {
	if r.at.Has(fileCancel) {
		return r.status(sandbox.Result{}, runner.Cancelled, runner.ReasonCancelled, "cancelled before it started")
	}
	out, err := capture.New(r.at.Dir, r.rec.Attempt.Limits.OutputBytes)
	if err != nil {
		return r.status(sandbox.Result{}, runner.Failed, runner.ReasonStart, err.Error())
	}
	p, err := sandbox.Start(r.rec.Sandbox, r.spec(out))
	out.Started()
	if err != nil {
		out.Finish()
		return r.status(sandbox.Result{}, runner.Failed, runner.ReasonStart, err.Error())
	}
	ended := make(chan struct{})
	go r.guard(p, out, ended)
	res := p.Wait()
	close(ended)
	sandbox.SweepOrphans()
	written := out.Finish()
	st := r.judge(res)
	st.Usage.OutputBytes = written
	return st
}

func (r *run) spec(out *capture.Capture) sandbox.Spec {
	a := r.rec.Attempt
	spec := sandbox.Spec{
		Name: r.at.Name(), Argv: a.Argv, Dir: a.Dir, Env: a.Env, Writable: a.Writable, ReadOnly: a.ReadOnly, GPUs: a.GPUs,
		Scratch: r.at.Path(dirScratch), Stdout: out.Stdout, Stderr: out.Stderr,
		Limits: sandbox.Limits{MemoryBytes: a.Limits.MemoryBytes, Processes: a.Limits.Processes, FileBytes: a.Limits.FileBytes},
	}
	if len(a.Network.Hosts) > 0 {
		r.network = &proxy.FileLog{Path: r.at.Path(fileNetwork), Now: r.Now}
		spec.Proxy = &proxy.Config{Allow: a.Network.Hosts, AllowPrivate: r.rec.AllowPrivate, Log: r.network.Add}
	}
	spec.BeforeRun = func(pl sandbox.Placement, rem sandbox.Remains) error {
		host, _ := os.Hostname()
		r.work.Running, r.work.Started, r.work.Remains = true, r.Now().UTC(), rem
		r.work.Placement = runner.Placement{Node: host, Sandbox: pl.Layers, Missing: slices.Concat(pl.Missing, r.rec.Gaps)}
		if a.GPUs == 0 {
			r.work.Placement.SKU = "cpu"
		}
		return r.at.Write(fileWorker, r.work, folder.Process, r.Hook)
	}
	return spec
}

// guard ends the command when its time or output is used up, or when somebody
// asks for it.
func (r *run) guard(p *sandbox.Process, out *capture.Capture, ended chan struct{}) {
	wall := time.NewTimer(r.rec.Attempt.Limits.Wall)
	defer wall.Stop()
	poll := time.NewTicker(cancelPoll)
	defer poll.Stop()
	for {
		reason := runner.ReasonNone
		select {
		case <-ended:
			return
		case <-wall.C:
			reason = runner.ReasonTimeout
		case <-out.Full:
			reason = runner.ReasonOutputLimit
		case <-r.stop:
			reason = runner.ReasonLost
		case <-poll.C:
			if r.at.Has(fileCancel) {
				reason = runner.ReasonCancelled
			}
		}
		if reason != runner.ReasonNone {
			r.cause.set(reason)
			p.Kill()
			return
		}
	}
}

// judge turns the end of the command into a phase and a reason.
func (r *run) judge(res sandbox.Result) runner.Status {
	l := r.rec.Attempt.Limits
	ownEnd := res.Signal == 0 && res.StartError == "" // it was over before our kill arrived
	switch why := r.cause.get(); {
	case why == runner.ReasonOutputLimit:
		return r.status(res, runner.Failed, why, fmt.Sprintf("wrote more than %d bytes of output; print less, or raise the limit", l.OutputBytes))
	case res.Limit != "":
		return r.status(res, runner.Failed, runner.ReasonResource, limitMessage(res.Limit, l))
	case why == runner.ReasonTimeout && !ownEnd:
		return r.status(res, runner.Failed, why, fmt.Sprintf("ran longer than %v; choose a smaller run, or raise the limit", l.Wall))
	case why == runner.ReasonCancelled && !ownEnd:
		return r.status(res, runner.Cancelled, why, "cancelled while it ran")
	case why == runner.ReasonLost && !ownEnd:
		return r.status(res, runner.Failed, why, "the worker was asked to terminate, as at a shutdown; trying again is safe")
	case res.StartError != "":
		return r.status(res, runner.Failed, runner.ReasonStart, res.StartError)
	case res.Signal != 0:
		return r.status(res, runner.Failed, runner.ReasonSignal, "ended by signal "+syscall.Signal(res.Signal).String())
	case res.Code != 0:
		return r.status(res, runner.Failed, runner.ReasonExit, fmt.Sprintf("ended with status %d", res.Code))
	}
	return r.status(res, runner.Succeeded, runner.ReasonNone, "")
}

func limitMessage(hit sandbox.Resource, l runner.Limits) string {
	switch hit {
	case sandbox.Memory:
		return fmt.Sprintf("used more than %d MiB of memory", l.MemoryBytes>>20)
	case sandbox.Processes:
		return fmt.Sprintf("started more than %d processes and threads", l.Processes)
	}
	return fmt.Sprintf("wrote a file of more than %d bytes", l.FileBytes)
}

func (r *run) status(res sandbox.Result, phase runner.Phase, why runner.Reason, message string) runner.Status {
	now := r.Now().UTC()
	st := runner.Status{Phase: phase, Reason: why, Message: message, Since: now, ExitCode: res.Code, Started: r.work.Started, Finished: now, Placement: r.work.Placement}
	if res.Started.IsZero() || res.StartError != "" {
		st.ExitCode = -1
	}
	if !res.Started.IsZero() {
		wall := res.Finished.Sub(res.Started).Seconds()
		st.Usage = runner.Usage{CPUSeconds: res.CPUSeconds, MaxRSSBytes: res.MaxRSSBytes, WallSeconds: wall, GPUHours: wall * float64(r.rec.Attempt.GPUs) / 3600}
	}
	if phase == runner.Failed {
		if refused := r.network.Refused(); refused != "" {
			st.Message += "; the network was refused: " + refused
		}
	}
	return st
}

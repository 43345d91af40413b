package docker

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/capture"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/folder"
	"github.com/repromill/repromill/runner/sandbox/proxy"
)

// settle makes the end of an attempt final, whose container does not run or is
// gone: it keeps the output, writes the status and removes the container.
func (e *Executor) settle(ctx context.Context, eng *engine.Engine, info engine.Info, at attempt, rec record) (runner.Status, error) {
	lock, err := at.lock(ctx)
	if err != nil {
		return runner.Status{}, err
	}
	defer lock.Close()
	if st, ok, err := at.Status(fileStatus); ok || err != nil {
		return st, err // another observer was first
	}
	c, err := eng.Inspect(ctx, rec.Container)
	gone := errors.Is(err, engine.ErrNotFound)
	if err != nil && !gone {
		return runner.Status{}, err
	}
	if gone { // here; another engine may have it
		if info, err = eng.Info(ctx); err != nil {
			return runner.Status{}, err
		}
		if info.ID != rec.Engine {
			return runner.Status{}, otherEngine(rec)
		}
	}
	cancelled := at.Has(fileCancel)
	if c.Running || c.Status == "restarting" || !cancelled && (c.Status == "created" || gone && !at.Has(fileBegun)) {
		// A submitter was at it meanwhile.
		return runner.Status{Phase: runner.Pending, Since: rec.Submitted}, nil
	}
	st := e.judge(info, at, rec, c, gone)
	if err := at.keep(rec.Attempt.Limits.OutputBytes); err != nil {
		return st, err
	}
	st.Stdout, st.Stderr = at.Path(capture.Stdout), at.Path(capture.Stderr)
	if st.Reason == runner.ReasonLost {
		if words := at.tail(capture.Stderr); words != "" {
			st.Message += "; its last words: " + clip(words)
		}
	}
	if err := at.Write(fileStatus, st, folder.Power, e.cfg.Hook); err != nil {
		return st, err
	}
	e.cfg.Hook("docker:remove:before")
	err = errors.Join(eng.Remove(ctx, rec.Container), at.tidy())
	e.cfg.Hook("docker:remove:after")
	return st, err
}

func clip(s string) string {
	if len(s) > 300 {
		return "…" + s[len(s)-300:]
	}
	return s
}

// judge turns the end of a container into a phase and a reason.
func (e *Executor) judge(info engine.Info, at attempt, rec record, c engine.State, gone bool) runner.Status {
	now := e.cfg.Now().UTC()
	st := runner.Status{Since: now, ExitCode: -1, Started: c.Started, Finished: c.Finished, Placement: e.placement(info, rec)}
	if st.Finished.IsZero() {
		st.Finished = now
	}
	cancelled := at.Has(fileCancel)
	end := func(phase runner.Phase, why runner.Reason, format string, args ...any) runner.Status {
		st.Phase, st.Reason, st.Message = phase, why, fmt.Sprintf(format, args...)
		return st
	}
	x, err := at.exit()
	switch {
	case err == nil:
		e.measure(&st, rec, x)
		return e.judgeExit(st, rec, x, proxy.RefusedIn(at.Path(fileNetwork)))
	case cancelled && c.Started.IsZero() && (!gone || !at.Has(fileBegun)):
		return end(runner.Cancelled, runner.ReasonCancelled, "cancelled before it started")
	case cancelled:
		return end(runner.Cancelled, runner.ReasonCancelled, "cancelled while it ran")
	case c.OOMKilled:
		return end(runner.Failed, runner.ReasonResource, "used more than %d MiB of memory", rec.Attempt.Limits.MemoryBytes>>20)
	case gone:
		return end(runner.Failed, runner.ReasonLost, "its container was removed by somebody; trying again is safe")
	}
	return end(runner.Failed, runner.ReasonLost, "its container was killed (status %d), or the engine or the machine went down; trying again is safe", c.ExitCode)
}

func (e *Executor) measure(st *runner.Status, rec record, x supervisor.Exit) {
	st.ExitCode = x.Code
	// The supervisor's clock is this machine's. Times that cannot be are not
	// taken from a file that untrusted code could have written.
	if x.Started.After(rec.Submitted.Add(-time.Minute)) && !x.Finished.Before(x.Started) && x.Finished.Before(st.Since.Add(time.Minute)) {
		st.Started, st.Finished = x.Started, x.Finished
	}
	if !st.Started.IsZero() {
		wall := max(0, st.Finished.Sub(st.Started).Seconds())
		st.Usage = runner.Usage{
			CPUSeconds: max(0, x.CPUSeconds), MaxRSSBytes: max(0, x.MaxRSSBytes), OutputBytes: max(0, x.OutputBytes),
			WallSeconds: wall, GPUHours: wall * float64(rec.Attempt.GPUs) / 3600,
		}
	}
}

func (e *Executor) judgeExit(st runner.Status, rec record, x supervisor.Exit, refused string) runner.Status {
	l := rec.Attempt.Limits
	end := func(phase runner.Phase, why runner.Reason, format string, args ...any) runner.Status {
		st.Phase, st.Reason, st.Message = phase, why, fmt.Sprintf(format, args...)
		if phase == runner.Failed && refused != "" {
			st.Message += "; the network was refused: " + refused
		}
		return st
	}
	switch {
	case x.StartError != "":
		st.ExitCode = -1
		return end(runner.Failed, runner.ReasonStart, "%s", x.StartError)
	case x.Cause == supervisor.Output:
		return end(runner.Failed, runner.ReasonOutputLimit, "wrote more than %d bytes of output; print less, or raise the limit", l.OutputBytes)
	case x.Cause == supervisor.Memory:
		return end(runner.Failed, runner.ReasonResource, "used more than %d MiB of memory", l.MemoryBytes>>20)
	case x.Cause == supervisor.Processes:
		return end(runner.Failed, runner.ReasonResource, "started more than %d processes and threads", l.Processes)
	case x.Cause == supervisor.FileSize:
		return end(runner.Failed, runner.ReasonResource, "wrote a file of more than %d bytes", l.FileBytes)
	case x.Cause == supervisor.Disk:
		return end(runner.Failed, runner.ReasonResource, "wrote more than %d MiB to disk; choose a smaller run, or raise the limit", l.DiskBytes>>20)
	case x.Cause == supervisor.DiskFull:
		return end(runner.Failed, runner.ReasonResource, "the disk is full; make room with `repromill cache prune --keep SIZE`, and run again")
	case x.Cause == supervisor.Timeout:
		return end(runner.Failed, runner.ReasonTimeout, "ran longer than %v; choose a smaller run, or raise the limit", l.Wall)
	case x.Cause == supervisor.Terminated:
		return end(runner.Failed, runner.ReasonLost, "the engine ended its container, as at a shutdown; trying again is safe")
	case x.Cause == supervisor.LostProxy:
		return end(runner.Failed, runner.ReasonLost, "its way to the network died; trying again is safe")
	case x.Signal != 0:
		return end(runner.Failed, runner.ReasonSignal, "ended by signal %s", syscall.Signal(x.Signal))
	case x.Code != 0:
		return end(runner.Failed, runner.ReasonExit, "ended with status %d", x.Code)
	}
	return end(runner.Succeeded, runner.ReasonNone, "")
}

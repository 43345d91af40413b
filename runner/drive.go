package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/runner/tree"
)

// errCancelled is returned by the stages when somebody asked to cancel.
var errCancelled = errors.New("the run was cancelled")

// ErrLeave, as the cause with which the context of Drive ends, makes it leave
// the attempts that run as they are, for the next driver to adopt.
var ErrLeave = errors.New("the driver leaves and what it started goes on")

// cleanupTime bounds what is still done after the caller's context has ended.
const cleanupTime = 30 * time.Second

// drive is one driver's work on one run.
type drive struct {
	*Runner
	run      store.Run
	req      Request
	exec     Executor
	plan     *spec.Plan
	stages   map[string]store.Stage
	attempts map[string]store.Attempt
	dir      string
	cause    string // why stages that were begun before are begun again
	// inherited are the attempts of earlier drivers, by key.
	inherited map[string]bool
	// looks is called between observations of the attempt that runs; nil is nothing.
	looks func(context.Context) (stop string, err error)
	// pending are events of the current stage that are told once, with its end.
	pending []store.Event
	models  map[string]*located // models in folders, by path
}

// Drive takes a run from wherever it stands to its end, or to the next point
// where it needs somebody:
//
//   - the outcome's State is Planned when the plan waits for approval;
//   - when ctx ends, what is running is stopped, what was finished is kept, the
//     state is Interrupted and the error is the context's;
//   - an error of ours or of the user's leaves the state Failed;
//   - Done and Cancelled are final, and driving such a run returns its outcome.
//
// From every other state, and after a kill at any moment, driving the run
// again goes on where it stood: work that is still running is adopted, work
// that was finished is not repeated. A run that another process drives gives a
// [DrivenError].
func (r *Runner) Drive(ctx context.Context, id string) (out Outcome, err error) {
	run, err := r.cfg.Store.Run(ctx, id)
	if err != nil {
		return out, err
	}
	if run.State.Final() {
		return r.Outcome(ctx, id)
	}
	unlock, err := r.lock(id)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	d, err := r.begin(ctx, id)
	if err != nil {
		return out, err
	}
	if d.run.State.Final() { // the driver before us finished it just now
		return r.Outcome(ctx, id)
	}
	watched, stop := d.watchCancel(ctx)
	out, err = d.all(watched)
	stop()
	if err == nil {
		return out, nil
	}
	if errors.Is(context.Cause(watched), errCancelled) {
		err = errCancelled
	}
	return d.stop(ctx, err)
}

// cancelPoll is how often a driver looks whether somebody asked to cancel.
const cancelPoll = 200 * time.Millisecond

// watchCancel returns a context that ends, with errCancelled as its cause, when
// somebody asks to cancel the run.
func (d *drive) watchCancel(ctx context.Context) (_ context.Context, stop func()) {
	watched, end := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func(id string) {
		defer close(done)
		for sleep(watched, cancelPoll) == nil {
			if run, err := d.cfg.Store.Run(watched, id); err == nil && run.CancelRequested != "" {
				end(errCancelled)
			}
		}
	}(d.run.ID)
	return watched, func() { end(nil); <-done }
}

// begin reads where the run stands.
func (r *Runner) begin(ctx context.Context, id string) (*drive, error) {
	d := &drive{Runner: r}
	var err error
	if d.run, err = r.cfg.Store.Run(ctx, id); err != nil {
		return nil, err
	}
	if d.req, err = r.Request(ctx, id); err != nil {
		return nil, err
	}
	if d.exec, err = r.executor(d.req); err != nil {
		return nil, err
	}
	d.Runner = r.at(r.executorName(d.req))
	d.dir = d.runDir(id)
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make run folder: %w", err)
	}
	if d.stages, err = r.cfg.Store.Stages(ctx, id); err != nil {
		return nil, err
	}
	list, err := r.cfg.Store.Attempts(ctx, id)
	if err != nil {
		return nil, err
	}
	d.attempts, d.inherited = map[string]store.Attempt{}, map[string]bool{}
	for _, a := range list {
		d.attempts[a.Key], d.inherited[a.Key] = a, true
	}
	switch d.run.State {
	case store.Interrupted:
		d.cause = "interrupted"
	case store.Failed:
		d.cause = "an error: " + d.run.Error
	default:
		d.cause = "the driver ended without a word"
	}
	return d, nil
}

// all goes through the stages.
func (d *drive) all(ctx context.Context) (out Outcome, err error) {
	if err := d.removeLeftovers(); err != nil {
		return out, err
	}
	if err := d.planning(ctx); err != nil {
		return out, err
	}
	if err := d.servable(); err != nil {
		return out, err
	}
	if ok, err := d.approved(ctx); err != nil || !ok {
		return Outcome{RunID: d.run.ID, State: store.Planned, PlanHash: d.plan.Hash, Started: d.run.Created}, err
	}
	if err := d.setState(ctx, store.Running, ""); err != nil {
		return out, err
	}
	prepared, err := stage(ctx, d, StagePrepare, d.prepare)
	if err != nil {
		return out, err
	}
	executed, err := stage(ctx, d, StageExecute, func(ctx context.Context) (Executed, string, error) { return d.execute(ctx, prepared) })
	if err != nil {
		return out, err
	}
	collected, err := stage(ctx, d, StageCollect, func(ctx context.Context) (Collected, string, error) { return d.collect(ctx, executed) })
	if err != nil {
		return out, err
	}
	suited, err := d.suites(ctx)
	if err != nil {
		return out, err
	}
	out, err = stage(ctx, d, StageCommit, func(ctx context.Context) (Outcome, string, error) {
		return d.commit(ctx, prepared, executed, collected, suited)
	})
	if err != nil {
		return out, err
	}
	return d.finish(ctx, out)
}

// stage runs one stage, or returns what it gave when it is finished. A stage
// that returns a word for why it had nothing to do is skipped.
func stage[T any](ctx context.Context, d *drive, name string, fn func(context.Context) (out T, skipped string, err error)) (out T, err error) {
	before, begun := d.stages[name]
	if begun && before.State != store.StageStarted {
		if err := json.Unmarshal(before.Output, &out); err != nil {
			return out, fmt.Errorf("decode the output of stage %s: %w", name, err)
		}
		return out, nil
	}
	if err := d.check(ctx); err != nil {
		return out, err
	}
	started := map[string]any{"attempt": before.Attempt + 1}
	if begun {
		started["cause"] = d.cause
	}
	if _, err := d.cfg.Store.StartStage(ctx, d.run.ID, name, event(name, StageStarted, started)); err != nil {
		return out, err
	}
	from := d.cfg.Now()
	d.pending = nil
	out, skipped, err := fn(ctx)
	if err != nil {
		return out, err
	}
	body, err := json.Marshal(out)
	if err != nil {
		return out, fmt.Errorf("encode the output of stage %s: %w", name, err)
	}
	state, ev := store.StageFinished, event(name, StageFinished, map[string]any{"seconds": d.cfg.Now().Sub(from).Seconds()})
	if skipped != "" {
		state, ev = store.StageSkipped, event(name, StageSkipped, map[string]any{"reason": skipped})
	}
	return out, d.cfg.Store.FinishStage(ctx, d.run.ID, name, state, body, append(d.pending, ev)...)
}

// check returns why the run should not go on: the caller's context, or a
// cancellation that somebody asked for.
func (d *drive) check(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	run, err := d.cfg.Store.Run(ctx, d.run.ID)
	if err != nil {
		return err
	}
	if run.CancelRequested != "" {
		d.run = run
		return errCancelled
	}
	return nil
}

func (d *drive) setState(ctx context.Context, to store.State, why string) error {
	data := map[string]any{"run": to}
	if why != "" {
		data["reason"] = why
	}
	return d.cfg.Store.SetState(ctx, d.run.ID, to, why, event("", PhaseChanged, data))
}

// planning gets the plan from the store, the request or the planner.
func (d *drive) planning(ctx context.Context) error {
	p, err := d.Plan(ctx, d.run.ID)
	if err == nil {
		d.plan = p
		return nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := d.check(ctx); err != nil {
		return err
	}
	var events []store.Event
	if d.req.Plan != nil {
		p = d.req.Plan
		reseal(p)
		for _, s := range []string{StageResolve, StageFetch, StagePlan} {
			events = append(events, event(s, StageSkipped, map[string]any{"reason": "the plan was given"}))
		}
	} else {
		if err := d.setState(ctx, store.Planning, ""); err != nil {
			return err
		}
		if p, err = d.askPlanner(ctx); err != nil {
			return err
		}
	}
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	d.plan = p
	return d.cfg.Store.SavePlan(ctx, d.run.ID, body, p.Hash, events...)
}

// reseal gives a plan that was edited by hand its own hash, and says so in it.
func reseal(p *spec.Plan) {
	if want := p.ComputeHash(); p.Hash != want {
		if p.Hash != "" {
			p.Warnings = append(p.Warnings, spec.Warning{Code: "plan_edited", Message: "the plan was changed after it was made with the hash " + p.Hash})
		}
		p.Hash = want
	}
}

func (d *drive) askPlanner(ctx context.Context) (*spec.Plan, error) {
	var emitErr error
	emit := func(stage string, kind EventKind, data any) {
		if err := d.cfg.Store.Append(ctx, d.run.ID, event(stage, kind, data)); err != nil && emitErr == nil {
			emitErr = err
		}
	}
	p, err := d.cfg.Planner.Plan(ctx, PlanRequest{
		RunID: d.run.ID, Target: d.req.Target, Repo: d.req.Repo, Commit: d.req.Commit, Wishes: d.req.Wishes,
	}, emit)
	if err = errors.Join(err, emitErr); err != nil {
		return nil, err
	}
	p.Seal()
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("the planner made a plan that cannot be run: %w", err)
	}
	return p, nil
}

// approved reports whether the run may go on. Nothing has to be approved when
// nothing would be executed.
func (d *drive) approved(ctx context.Context) (bool, error) {
	if err := d.check(ctx); err != nil {
		return false, err
	}
	run, err := d.cfg.Store.Run(ctx, d.run.ID)
	if err != nil {
		return false, err
	}
	d.run = run
	if run.ApprovedBy != "" {
		return true, nil
	}
	by := ""
	switch {
	case d.req.Yes && d.req.By != "":
		by = d.req.By
	case d.req.Yes:
		by = "request"
	case len(d.eligible(nil)) == 0 && !d.attemptable():
		by = "nothing to execute"
	default:
		if run.State != store.Planned {
			return false, d.setState(ctx, store.Planned, "")
		}
		return false, nil
	}
	return true, d.Approve(ctx, d.run.ID, by)
}

// finish removes the working folders and closes the run.
func (d *drive) finish(ctx context.Context, out Outcome) (Outcome, error) {
	if !d.req.KeepWork {
		if err := errors.Join(d.removeWork(), tree.Remove(d.answers())); err != nil {
			return out, err
		}
	}
	out.State, out.Finished = store.Done, d.cfg.Now().UTC()
	body, err := json.Marshal(out)
	if err != nil {
		return out, fmt.Errorf("encode outcome: %w", err)
	}
	return out, d.cfg.Store.Finish(ctx, d.run.ID, store.Done, string(out.Verdict), body,
		event("", RunFinished, map[string]any{"verdict": out.Verdict, "reason": out.Reason, "manifest": out.Manifest}))
}

// stop records why the driver ends before the run does.
func (d *drive) stop(ctx context.Context, cause error) (Outcome, error) {
	bg, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	out := Outcome{RunID: d.run.ID, Started: d.run.Created}
	switch {
	case errors.Is(cause, errCancelled):
		return d.cancelled(bg)
	case ctx.Err() != nil:
		out.State, out.Reason = store.Interrupted, "interrupted"
		if errors.Is(context.Cause(ctx), ErrLeave) {
			out.Reason = ErrLeave.Error()
		}
		return out, errors.Join(cause, d.setState(bg, store.Interrupted, out.Reason))
	}
	out.State, out.Reason = store.Failed, cause.Error()
	if err := d.setState(bg, store.Failed, cause.Error()); err != nil {
		return out, errors.Join(cause, fmt.Errorf("and it could not be recorded: %w", err))
	}
	return out, cause
}

// Cancel asks for the run to be cancelled. The process that drives it stops
// what is running and ends it; when none does, that is done here. Cancelling a
// cancelled run is not an error.
func (r *Runner) Cancel(ctx context.Context, id, by string) (store.State, error) {
	run, err := r.cfg.Store.Run(ctx, id)
	switch {
	case err != nil:
		return "", err
	case run.State == store.Cancelled:
		return run.State, nil
	case run.State == store.Done:
		return run.State, &UserError{fmt.Sprintf("run %s is done", id), "its results stay; nothing was cancelled"}
	}
	if err := r.cfg.Store.RequestCancel(ctx, id, by); err != nil {
		return run.State, err
	}
	unlock, err := r.lock(id)
	var driven *DrivenError
	if errors.As(err, &driven) {
		return run.State, nil
	}
	if err != nil {
		return run.State, err
	}
	d, err := r.begin(ctx, id)
	if err == nil && !d.run.State.Final() {
		_, err = d.cancelled(ctx)
	}
	if err = errors.Join(err, unlock()); err != nil {
		return run.State, err
	}
	run, err = r.cfg.Store.Run(ctx, id)
	return run.State, err
}

// cancelled stops every open attempt and closes the run.
func (d *drive) cancelled(ctx context.Context) (Outcome, error) {
	run, err := d.cfg.Store.Run(ctx, d.run.ID)
	if err != nil {
		return Outcome{}, err
	}
	list, err := d.cfg.Store.Attempts(ctx, d.run.ID)
	if err != nil {
		return Outcome{}, err
	}
	out := Outcome{
		RunID: run.ID, State: store.Cancelled, PlanHash: run.PlanHash, Started: run.Created,
		Reason: "cancelled by " + run.CancelRequested,
	}
	for _, a := range list {
		if !a.Final {
			if err := d.stopAttempt(ctx, &a); err != nil {
				return out, err
			}
		}
		out.Spend.WallSeconds += a.Spend.WallSeconds
		out.Spend.GPUHours += a.Spend.GPUHours
		out.Spend.USD += a.Spend.USD
	}
	if err := errors.Join(d.removeLeftovers(), d.removeWork()); err != nil {
		return out, err
	}
	out.Finished = d.cfg.Now().UTC()
	body, err := json.Marshal(out)
	if err != nil {
		return out, fmt.Errorf("encode outcome: %w", err)
	}
	return out, d.cfg.Store.Finish(ctx, run.ID, store.Cancelled, "", body,
		event("", RunCancelled, map[string]any{"by": run.CancelRequested}))
}

// The folders of a run.
func (d *drive) work() string   { return filepath.Join(d.dir, "work") }   // the current unit's tree, always at this path
func (d *drive) source() string { return filepath.Join(d.dir, "source") } // what every unit's tree is copied from
func (d *drive) venv() string   { return filepath.Join(d.dir, "venv") }
func (d *drive) bin() string    { return filepath.Join(d.dir, "bin") } // python and python3, where the system lacks one
func (d *drive) units() string  { return filepath.Join(d.dir, "units") }
func (d *drive) cache() string  { return filepath.Join(d.dir, "cache") } // of the package installer

// tmpSuffix ends the name of a folder that is being written.
const tmpSuffix = ".tmp"

// removeLeftovers removes what a driver that was killed was writing.
func (d *drive) removeLeftovers() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("read run folder: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), tmpSuffix) {
			continue
		}
		if err := d.step(stepClean, func() error { return tree.Remove(filepath.Join(d.dir, e.Name())) }); err != nil {
			return err
		}
	}
	return nil
}

// removeWork removes everything of the run's folder but what is small and
// worth keeping: the lock.
func (d *drive) removeWork() error {
	return d.step(stepRemove, func() error {
		var errs []error
		for _, dir := range []string{d.work(), d.units(), d.source(), d.venv(), d.bin(), d.cache()} {
			errs = append(errs, tree.Remove(dir))
		}
		return errors.Join(errs...)
	})
}

package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/kueue"
	"github.com/repromill/repromill/runner/seed"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/suites/throughput"
)

func (a *app) submitCmd() *cobra.Command {
	var f runFlags
	var purpose, format string
	var explain, dryRun bool
	cmd := &cobra.Command{
		Use:   "submit TARGET | -f PLAN",
		Short: "Send a run to the cluster's queue and return",
		Long: `Plan, approve, and leave the run to a process in the background, which submits
its commands as Kueue Jobs and commits what they give. The cluster needs nothing
of that process: when it dies, ` + "`repromill run --resume ID`" + ` goes on from the Jobs.

--explain says whether the run would ever fit into the queue, in which flavour,
and how long the wait may be; --dry-run prints the Jobs as kubectl takes them, one
that brings weights and data sets to the cluster's cache included where they are
missing there. Neither submits anything.`,
		Example: `  repromill submit 2604.08075 --yes
  repromill submit 2604.08075 --queue reserved --explain
  repromill submit -f plan.json --dry-run | kubectl diff -f -
  repromill submit -f plan.json --dry-run -o json | kubectl apply --dry-run=server -f -
  repromill watch 01K9…`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) > 0) == (f.planFile != "") {
				return usererrf("see `repromill submit --help`", "submit takes one of TARGET and -f PLAN")
			}
			if format != "" && !dryRun {
				return usererrf("add --dry-run, which prints the Jobs and submits nothing", "-o is about what --dry-run prints")
			}
			if format != "" && format != "yaml" && format != "json" {
				return usererrf("use yaml or json", "-o %q is no format of Jobs", format)
			}
			f.executor = clusterExecutor
			if purpose != "" {
				f.executor += ":" + purpose
			}
			if err := f.defaults(a, cmd); err != nil {
				return err
			}
			if err := a.checkFolder("paths.results"); err != nil {
				return err
			}
			var err error
			if a.serving, err = f.serving(f.judge); err != nil {
				return err
			}
			if explain || dryRun {
				return a.previewJobs(cmd.Context(), &f, args, dryRun, firstOf(format, map[bool]string{true: "json"}[a.jsonOut], "yaml"))
			}
			return a.submit(cmd.Context(), &f, args)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.repo, "repo", "", "use the code at `URL or DIR` instead of the links that are found")
	fl.StringVar(&f.commit, "commit", "", "use this commit, branch or tag of the code")
	f.wishFlags.add(fl)
	fl.StringVarP(&f.planFile, "file", "f", "", "submit the plan in `PLAN` (- is standard input) instead of planning")
	fl.StringVar(&purpose, "queue", "", "`PURPOSE` of the queue in the configuration, such as small (the default) or reserved")
	f.serveFlags.add(fl)
	f.shards(fl)
	fl.BoolVarP(&f.yes, "yes", "y", false, "approve in advance")
	fl.BoolVar(&explain, "explain", false, "say whether it fits and how long it may wait; submit nothing")
	fl.BoolVar(&dryRun, "dry-run", false, "print the Jobs; submit nothing")
	fl.StringVarP(&format, "output", "o", "", "how --dry-run prints them: `FORMAT` yaml, a document each (the default), or json, a List")
	fl.StringVar(&f.key, "key", "", "idempotency `KEY`: the same key is the same run")
	fl.DurationVar(&f.maxWall, "max-wall", 0, "stop after this much running time, such as 90m")
	fl.Float64Var(&f.maxUSD, "max-usd", 0, "stop when this much money is spent, at the prices of the configuration")
	fl.Float64Var(&f.maxGPUHours, "max-gpu-hours", 0, "stop when this many GPU-hours are used")
	return cmd
}

// clusterOf connects to the queue of an executor's name.
func (a *app) clusterOf(executor string) (*kueue.Executor, error) {
	for _, q := range a.queues() {
		if q.executor == executor {
			return a.kueue(q.name, nil)
		}
	}
	return nil, usererrf("name a queue of the configuration (queues.PURPOSE)", "no queue is configured for %q", executor)
}

func (a *app) submit(ctx context.Context, f *runFlags, args []string) error {
	e, err := a.clusterOf(f.executor)
	if err != nil {
		return err
	}
	if err := e.Ready(ctx); err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	if _, err := st.outside(); err != nil {
		return err
	}
	req, err := a.newRequest(ctx, f, args)
	if err != nil {
		return err
	}
	req.Yes = false // the way to approval is gone here, the rest in the background
	run, _, err := st.runner.Create(ctx, req)
	if err != nil {
		return err
	}
	ui := a.ui()
	out, err := a.driveWatched(ctx, st, ui, run.ID)
	if err != nil {
		return a.afterDrive(ctx, st, err, run.ID)
	}
	if out.State != store.Planned {
		return a.showOutcome(ctx, st, out)
	}
	if ok, err := a.approval(ctx, st, f, run.ID); err != nil || !ok {
		return err
	}
	pid, log, err := a.driveDetached(run.ID)
	if err != nil {
		return err
	}
	if a.jsonOut {
		return a.printJSON(map[string]any{"run_id": run.ID, "driven_by": pid, "log": log})
	}
	fmt.Fprintf(a.stdout, "run %s is submitted; follow it: repromill watch %s\n", run.ID, run.ID)
	return nil
}

// driveDetached leaves a run to a process of its own.
func (a *app) driveDetached(id string) (pid int, log string, err error) {
	argv, err := self("run")
	if err != nil {
		return 0, "", err
	}
	log = filepath.Join(a.cfg.String("paths.state"), "runs", id, "driver.log")
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return 0, "", fmt.Errorf("start driver: %w", err)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, "", fmt.Errorf("start driver: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], append(argv[1:], "--resume", id, "--yes")...)
	for k, v := range a.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, "", fmt.Errorf("start driver: %w", err)
	}
	pid = cmd.Process.Pid
	return pid, log, cmd.Process.Release()
}

// preview is what becomes of one run of a plan.
type preview struct {
	Run string `json:"run"`
	kueue.Explanation
}

// previewJobs explains the Jobs of what a plan selects, or prints them.
func (a *app) previewJobs(ctx context.Context, f *runFlags, args []string, dryRun bool, format string) error {
	e, err := a.clusterOf(f.executor)
	if err != nil {
		return err
	}
	target := ""
	if len(args) > 0 {
		target = args[0]
	}
	p, err := a.makePlan(ctx, &f.planFlags, target, f.planFile)
	if err != nil {
		return err
	}
	attempts, err := a.exampleAttempts(p, f.sharding)
	if err != nil {
		return err
	}
	if dryRun {
		return a.printJobs(e, p, attempts, format)
	}
	list := []preview{}
	for _, at := range attempts {
		if why := a.overNodes(p, at); why != "" {
			list = append(list, preview{at.Key.Stage, kueue.Explanation{Queue: e.Queue(), Fits: "never", Reason: why}})
			continue
		}
		x, err := e.Explain(ctx, at)
		if err != nil {
			return err
		}
		list = append(list, preview{firstOf(at.Key.Arm, at.Key.Stage), x})
	}
	if a.jsonOut {
		return a.printJSON(list)
	}
	a.printPreviews(list)
	return nil
}

// printJobs prints what would be submitted, in the order in which it would be.
func (a *app) printJobs(e *kueue.Executor, p *spec.Plan, attempts []runner.Attempt, format string) error {
	var objects []any
	for _, at := range attempts {
		if why := a.overNodes(p, at); why != "" {
			fmt.Fprintf(a.stderr, "%s: %s\n", at.Key.Stage, clean(why))
			list, err := a.servings(e, p, at)
			if err != nil {
				return err
			}
			objects = append(objects, list...)
			continue
		}
		o, err := e.Manifest(at)
		if err != nil {
			return err
		}
		objects = append(objects, o)
	}
	write := kueue.YAML
	if format == "json" {
		write = kueue.JSON
	}
	b, err := write(objects...)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		fmt.Fprintln(a.stderr, "the plan selects no run, so nothing would be submitted")
	}
	_, err = a.stdout.Write(b)
	return err
}

// exampleAttempts are those of a plan's selected runs and suites.
func (a *app) exampleAttempts(p *spec.Plan, sharding runner.Sharding) (out []runner.Attempt, err error) {
	for i := range p.Runs {
		if p.Runs[i].Selected {
			out = append(out, a.exampleAttempt(&p.Runs[i]))
		}
	}
	for _, s := range p.Suites {
		if !s.Selected {
			continue
		}
		list, err := a.exampleSuite(s, sharding)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// exampleSuite are the attempts of a suite: of the first round of one that measures
// throughput, and of the first block where arms are asked one after another, as
// later ones are the same.
func (a *app) exampleSuite(s spec.Suite, sharding runner.Sharding) (out []runner.Attempt, err error) {
	key := runner.AttemptKey{RunID: "RUN", Stage: runner.StageSuite(s.ID)}
	folder := filepath.Join(a.cfg.String("cluster.volume"), "repromill", "runs", "RUN", "answers", s.ID)
	switch {
	case s.Kind == "throughput":
		for _, t := range throughput.Turns(s, 0) {
			at, err := runner.TurnAttempt(key, t, a.serving, filepath.Join(folder, "turns", t.Name))
			if err != nil {
				return nil, err
			}
			out = append(out, at)
		}
	case s.Kind != "accuracy" || slices.ContainsFunc(s.Arms, func(x spec.Arm) bool { return a.serving.URL(x) != "" }):
	case runner.Apart(s):
		for _, arm := range s.Arms {
			at, err := runner.PartAttempt(key, arm, 0, a.serving, filepath.Join(folder, "apart", arm.Name))
			if err != nil {
				return nil, err
			}
			out = append(out, at)
		}
	default:
		at, err := sharding.Attempt(key, s, a.serving, filepath.Join(folder, "shards"))
		if err != nil {
			return nil, err
		}
		if out, err = a.exampleSeed(key, s, at.Shards.Servers); err != nil {
			return nil, err
		}
		out = append(out, at)
	}
	return out, nil
}

// exampleSeed is the attempt that fills the cluster's cache for a suite, none
// where all is there already, or where this machine would fill it from a mirror.
func (a *app) exampleSeed(key runner.AttemptKey, s spec.Suite, servers []runner.Sidecar) ([]runner.Attempt, error) {
	if a.cfg.String("mirror") != "" {
		return nil, nil
	}
	files, err := a.askers().Files(s)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(a.cfg.String("cluster.volume"), "repromill", "cache")
	missing, err := seed.Missing(dir, runner.SeedWants(s, servers, files))
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	key.Arm = "seed"
	return []runner.Attempt{runner.SeedAttempt(key, dir, missing)}, nil
}

// exampleAttempt is an attempt of a run that does not exist yet: the Job of a
// real one differs in names only, since the command is not in it.
func (a *app) exampleAttempt(r *spec.Run) runner.Attempt {
	work := filepath.Join(a.cfg.String("cluster.volume"), "repromill", "runs", "RUN", "work")
	return runner.Attempt{
		Key:  runner.AttemptKey{RunID: "RUN", Stage: runner.StageExecute, Arm: r.ID},
		Argv: r.Argv, Dir: work, Writable: []string{work}, GPUs: r.GPUs.Min, Limits: runner.Limits{Wall: time.Duration(r.TimeoutS) * time.Second},
	}
}

func (a *app) printPreviews(list []preview) {
	if len(list) == 0 {
		fmt.Fprintln(a.stdout, "the plan selects no run, so nothing would be submitted")
		return
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, x := range list {
		fmt.Fprintf(w, "run\t%s\n", clean(x.Run))
		fmt.Fprintf(w, "queue\t%s (%s)\n", x.Queue, firstOf(x.ClusterQueue, "no ClusterQueue"))
		for _, name := range []string{"cpu", "memory", "nvidia.com/gpu"} {
			if q := x.Requests[name]; q != "" {
				fmt.Fprintf(w, "asks for\t%s %s\n", q, name)
			}
		}
		fmt.Fprintf(w, "fits\t%s: %s\n", x.Fits, clean(x.Reason))
		if x.Flavor != "" {
			fmt.Fprintf(w, "flavour\t%s\n", x.Flavor)
		}
		if x.Fix != "" {
			fmt.Fprintf(w, "fix\t%s\n", x.Fix)
		}
		if x.Wait != nil {
			fmt.Fprintf(w, "wait\t%s\n", waitText(*x.Wait))
		}
	}
	w.Flush()
}

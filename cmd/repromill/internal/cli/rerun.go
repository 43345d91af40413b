package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pip"
	"github.com/repromill/repromill/runner/repeat"
	"github.com/repromill/repromill/runner/store"
)

// rerunFlags are the options of `rerun`.
type rerunFlags struct {
	runFlags
	with      string
	fresh     bool
	tolerance float64
}

var rerunOutcomes = []string{string(repeat.Same), string(repeat.Differs), string(repeat.Incomplete), "environment"}

func (a *app) rerunCmd() *cobra.Command {
	f := rerunFlags{}
	cmd := &cobra.Command{
		Use:   "rerun RUN | BUNDLE",
		Short: "Repeat a run, and compare what comes of it",
		Long: `Carry out the same plan on the same commit with the same packages once more, here
or on another executor, and compare verdicts, numbers, environment, duration and
cost. RUN is an id; BUNDLE a file of ` + "`repromill bundle`" + `, also of another machine.

A number is the same when it lies within what the seeds of both runs spread, else
within the claim's tolerance, else within --tolerance. The outcome is same, differs
or incomplete; differences of the environment are listed beside it.

The plan is shown and approved as with ` + "`repromill run`" + `. Of a bundle, nothing that
names this machine's programs, endpoints or isolation is taken over: say it again
with --server, --endpoint and --image.`,
		Example: `  repromill rerun 01K9…
  repromill rerun repromill-01K9….zip --yes --fail-on differs,incomplete
  repromill rerun 01K9… --executor docker --json
  repromill rerun 01K9… --with 01KA…`,
		Args: exactArgs(1, "one run id or bundle"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, v := range f.failOn {
				if !slices.Contains(rerunOutcomes, v) {
					return usererrf("outcomes are "+strings.Join(rerunOutcomes, ", "), "--fail-on %q is no outcome of a repetition", v)
				}
			}
			if !(f.tolerance > 0 && f.tolerance < 1) {
				return usererrf("give a fraction such as 0.01", "--tolerance %g is no fraction", f.tolerance)
			}
			fails := f.failOn
			f.failOn = nil
			if err := f.defaults(a, cmd); err != nil {
				return err
			}
			return a.rerun(cmd.Context(), &f, args[0], fails)
		},
	}
	fl := cmd.Flags()
	f.serveFlags.add(fl)
	fl.StringVar(&f.executor, "executor", "", "where to run; as the original if left out")
	fl.StringVar(&f.image, "image", "", "with docker: run in the image `REF` as it is and install nothing")
	fl.StringVar(&f.with, "with", "", "compare with run `ID`, which is there, instead of running anything")
	fl.BoolVar(&f.fresh, "fresh", false, "install the versions that are found now, not those of the original")
	fl.BoolVarP(&f.yes, "yes", "y", false, "approve in advance")
	fl.BoolVar(&f.noSandbox, "no-sandbox", false, "run the code without isolation where none is possible; it is recorded")
	fl.BoolVar(&f.keepWork, "keep-work", false, "leave the working folders for inspection")
	fl.Float64Var(&f.tolerance, "tolerance", 0.01, "how far numbers without a tolerance of their own may lie apart, as a fraction")
	fl.StringSliceVar(&f.failOn, "fail-on", nil, "exit 3 on these outcomes, comma separated: same, differs, incomplete, environment")
	fl.Float64Var(&f.maxGPUHours, "max-gpu-hours", 0, "stop when this many GPU-hours are used")
	fl.Float64Var(&f.maxUSD, "max-usd", 0, "stop when this much money is spent, at the prices of the configuration")
	fl.DurationVar(&f.maxWall, "max-wall", 0, "stop after this much running time, such as 90m")
	return cmd
}

// original is the run that is repeated.
type original struct {
	repeat.Side
	req  *runner.Request // how it was asked for, where that is known
	ours bool            // it was made by this installation
}

func (a *app) rerun(ctx context.Context, f *rerunFlags, what string, fails []string) error {
	if err := a.checkFolder("paths.results"); err != nil {
		return err
	}
	var err error
	if a.serving, err = f.serving(""); err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	first, err := a.original(ctx, st, what)
	if err != nil {
		return err
	}
	id := f.with
	if id == "" {
		if id, err = a.repeatRun(ctx, st, f, first); err != nil || id == "" {
			return err
		}
	}
	second, err := a.committedRun(ctx, st, id)
	if err != nil {
		return err
	}
	rep := repeat.Compare(first.Side, second.Side, repeat.Options{Relative: f.tolerance})
	if a.jsonOut {
		err = a.printJSON(rep)
	} else {
		var b bytes.Buffer
		if err = rep.Text(&b); err == nil {
			_, err = a.stdout.Write([]byte(clean(b.String())))
		}
	}
	if err == nil && rep.Fails(fails) {
		err = &exitError{exitFailOn}
	}
	return err
}

// original reads the run that an argument names: a bundle where there is such a
// file, else a run of this installation.
func (a *app) original(ctx context.Context, st *stack, what string) (original, error) {
	info, err := os.Stat(what)
	if err != nil || info.IsDir() {
		if strings.HasSuffix(what, ".zip") || strings.ContainsRune(what, os.PathSeparator) {
			return original{}, usererrf("give the id of a run, or a file of `repromill bundle`", "there is no bundle %q", what)
		}
		return a.committedRun(ctx, st, what)
	}
	b, err := a.openBundle(what)
	if err != nil {
		return original{}, err
	}
	defer b.b.Close()
	o := original{}
	if o.Plan, err = b.b.Plan(); err != nil {
		return o, fmt.Errorf("%s: %w", what, err)
	}
	if o.Outcome, err = b.b.Outcome(); err != nil {
		return o, fmt.Errorf("%s: %w", what, err)
	}
	if o.req, err = b.b.Request(); err != nil {
		return o, fmt.Errorf("%s: %w", what, err)
	}
	o.RunID = b.RunID
	return o, nil
}

// committedRun reads a finished run of this installation.
func (a *app) committedRun(ctx context.Context, st *stack, id string) (original, error) {
	o := original{ours: true}
	if run, err := st.store.Find(ctx, id); err == nil {
		id = run.ID
		if !run.State.Final() {
			return o, usererrf("finish it with: repromill run --resume "+id, "run %s is %s and has no outcome yet", id, run.State)
		}
		if req, err := st.runner.Request(ctx, id); err == nil {
			o.req = &req
		}
	} else if !errors.Is(err, store.ErrNotFound) {
		return o, err
	}
	o.RunID = id
	for name, into := range map[string]any{"plan.json": &o.Plan, "outcome.json": &o.Outcome} {
		b, err := st.data.Attachment(id, name)
		if errors.Is(err, fs.ErrNotExist) {
			return o, usererrf("only finished runs of a plan can be repeated; `repromill results list` lists what is committed", "run %q has no committed %s", id, strings.TrimSuffix(name, ".json"))
		}
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			return o, fmt.Errorf("read %s of run %s: %w", name, id, err)
		}
	}
	return o, o.Plan.Validate()
}

// repeatRun carries out the original's plan once more and returns the run's id;
// empty where it was not approved.
func (a *app) repeatRun(ctx context.Context, st *stack, f *rerunFlags, first original) (string, error) {
	req, err := a.repeated(f, first)
	if err != nil {
		return "", err
	}
	if first.ours {
		if err := st.useMirrorOf(ctx, a, first.RunID); err != nil {
			return "", err
		}
	}
	if _, err := st.outside(); err != nil {
		return "", err
	}
	f.executor = req.Executor
	if err := a.chooseExecutor(ctx, &f.runFlags); err != nil {
		return "", err
	}
	req.Executor, req.Mirror = f.executor, a.cfg.String("mirror")
	if err := a.clusterReady(ctx, f.executor); err != nil {
		return "", err
	}
	run, _, err := st.runner.Create(ctx, req)
	if err != nil {
		return "", err
	}
	out, err := a.driveOne(ctx, st, &f.runFlags, run.ID)
	if err != nil {
		fmt.Fprintf(a.stderr, "once it is finished, compare with: repromill rerun %s --with %s\n", first.RunID, run.ID)
		return "", err
	}
	if out.Manifest == "" {
		return "", a.showOutcome(ctx, st, out)
	}
	return run.ID, nil
}

// repeated is what is asked for: the original's plan, commit and packages. What a
// stranger's bundle says of programs, endpoints and isolation is not obeyed.
func (a *app) repeated(f *rerunFlags, first original) (runner.Request, error) {
	plan := *first.Plan
	req := f.request(a, plan.Target.Input, runner.Wishes{})
	req.Plan = &plan
	was := first.req
	if was == nil {
		was = &runner.Request{Executor: first.Outcome.Executor}
	}
	if req.Executor == "" {
		req.Executor = cmp.Or(was.Executor, first.Outcome.Executor, "auto")
	}
	if !f.fresh && req.Image == "" {
		req.Lock = strings.Join(pip.Pins(first.Outcome.Packages()), "\n")
	}
	if first.ours {
		if req.Image == "" && req.Executor == was.Executor {
			req.Image = was.Image
		}
		// What this invocation says of serving goes over it when it is driven.
		req.Serving, req.Answers = was.Serving, was.Answers
		return req, nil
	}
	if was.Image != "" && req.Image == "" && strings.HasPrefix(req.Executor, "docker") {
		return req, usererrf("add --image "+shellWord(was.Image)+", or --executor local", "the original ran in the image %s, which the bundle only names", was.Image)
	}
	// A key of ours must not go where a stranger's plan says.
	for _, suite := range plan.Suites {
		for _, arm := range suite.Arms {
			if suite.Selected && req.Serving.URL(spec.Arm{Name: arm.Name, Model: arm.Model}) == "" && len(req.Serving.Servers) == 0 {
				return req, usererrf("say how with --server or --endpoint "+shellWord(arm.Name+"=URL"), "the bundle does not decide how the arm %s is served here (the original: %s)", arm.Name, servedBy(first.Outcome, arm.Name))
			}
		}
	}
	return req, nil
}

func servedBy(o runner.Outcome, arm string) string {
	return cmp.Or(o.Endpoints[arm], o.Servers[arm], o.Servers[""], "not recorded")
}

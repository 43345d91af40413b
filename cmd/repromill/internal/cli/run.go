package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/store"
)

// runFlags are the options of `run`.
type runFlags struct {
	planFlags
	serveFlags
	planFile    string
	executor    string
	image       string
	resume      string
	yes         bool
	noSandbox   bool
	keepWork    bool
	key         string
	failOn      []string
	maxGPUHours float64
	maxUSD      float64
	maxWall     time.Duration
	workers     int
	sharding    runner.Sharding
	again       bool
	page, card  string // files for the report
}

func (a *app) runCmd() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run TARGET | -f PLAN | --resume ID | --from FILE",
		Short: "Plan, approve, execute, commit results, print the verdict",
		Long: `Plan the smallest run that checks the target's claims, ask for approval, execute
it in a sandbox, commit the results as Parquet, and print the verdict.

A run can be stopped at any moment, by Ctrl-C or worse, and taken up again with
--resume: nothing that was finished is done twice. With --from, every line is a
target; a bad line never stops the rest, and the same command again goes on with
what is left.`,
		Example: `  repromill run 2604.08075
  repromill run --yes --max-wall 1h https://autoarxiv.org/abs/2604.08075
  repromill run ./my-checkout --yes
  repromill run ./my-checkout --data imagenet=/data/imagenet --seeds 3 --sku h200
  repromill run --executor docker 2604.08075
  repromill plan 2604.08075 -o plan.json && repromill run -f plan.json
  repromill run nvidia/Qwen3.6-27B-NVFP4 --baseline Qwen/Qwen3.6-27B-FP8 --margin 1pt \
      --endpoint nvfp4=http://host:8001/v1 --endpoint fp8=http://host:8002/v1
  repromill run nvidia/Qwen3.6-27B-NVFP4 --baseline Qwen/Qwen3.6-27B-FP8 --server vllm
  repromill run ./tiny-nvfp4 --baseline ./tiny --suites synthetic-choice --margin 2pt
  repromill run ./tiny --quantize fp8,nvfp4,nvfp4-w4a4 --suites synthetic-choice,throughput
  repromill run --from papers.txt --yes --max-usd 20
  repromill run --resume 01K9…`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.defaults(a, cmd); err != nil {
				return err
			}
			return a.run(cmd.Context(), &f, args)
		},
	}
	fl := cmd.Flags()
	f.planFlags.add(fl)
	f.serveFlags.add(fl)
	fl.StringVarP(&f.planFile, "file", "f", "", "run the plan in `PLAN` (- is standard input) instead of planning")
	fl.StringVar(&f.executor, "executor", "auto", "where to run: auto, local, docker, kueue, or kueue:PURPOSE for another of the queues of the configuration")
	fl.StringVar(&f.image, "image", "", "with docker: run in the image `REF` as it is and install nothing; it is recorded")
	f.shards(fl)
	fl.StringVar(&f.resume, "resume", "", "take up run `ID` where it stood")
	fl.BoolVarP(&f.yes, "yes", "y", false, "approve in advance")
	fl.BoolVar(&f.noSandbox, "no-sandbox", false, "run the code without isolation where none is possible; it is recorded")
	fl.BoolVar(&f.keepWork, "keep-work", false, "leave the working folders for inspection")
	fl.StringVar(&f.key, "key", "", "idempotency `KEY`: the same key is the same run")
	fl.BoolVar(&f.again, "again", false, "with --from: run targets again that the same file has run before")
	fl.StringSliceVar(&f.failOn, "fail-on", nil, "exit 3 on these verdicts, comma separated")
	fl.Float64Var(&f.maxGPUHours, "max-gpu-hours", 0, "stop when this many GPU-hours are used")
	fl.Float64Var(&f.maxUSD, "max-usd", 0, "stop when this much money is spent, at the prices of the configuration")
	fl.DurationVar(&f.maxWall, "max-wall", 0, "stop after this much running time, such as 90m")
	fl.StringVar(&f.page, "html", "", "write the report into `FILE`, one page that needs nothing else")
	fl.StringVar(&f.card, "card", "", "draw the verdict into `FILE`, which ends in .png or .svg")
	fl.IntVar(&f.workers, "concurrency", 0, "with --from: targets worked on at once")
	return cmd
}

// shards adds the options of suites on a cluster.
func (f *runFlags) shards(fl *pflag.FlagSet) {
	fl.IntVar(&f.sharding.Of, "shards", 0, "with kueue: ask each suite of questions in `N` blocks, which begin and end one after the other (one for some 250 questions)")
	fl.IntVar(&f.sharding.Parallel, "parallel", 0, "with kueue: ask `N` blocks at a time, each with servers of its own (1); not with --arms one-after-another")
}

// defaults fills in what the configuration says, and refuses what no run can
// mean.
func (f *runFlags) defaults(a *app, cmd *cobra.Command) error {
	if v, ok := a.cfg.Float("caps.gpu_hours"); ok && !cmd.Flags().Changed("max-gpu-hours") {
		f.maxGPUHours = v
	}
	if v, ok := a.cfg.Float("caps.usd"); ok && !cmd.Flags().Changed("max-usd") {
		f.maxUSD = v
	}
	if d := a.cfg.Duration("caps.wall"); d > 0 && !cmd.Flags().Changed("max-wall") {
		f.maxWall = d
	}
	if f.maxGPUHours < 0 || f.maxUSD < 0 || f.maxWall < 0 {
		return usererrf("give a positive number, or leave the cap out", "a cap cannot be negative")
	}
	if f.from != "" && f.page+f.card != "" {
		return usererrf("`repromill results show RUN --html` prints one", "--html and --card are for one run")
	}
	for _, name := range []string{f.page, f.card} {
		if info, err := os.Stat(filepath.Dir(name)); err != nil || !info.IsDir() {
			return usererrf("name a file in a folder that is there", "cannot write the report to %q: %s is no folder", name, filepath.Dir(name))
		}
	}
	if ext := filepath.Ext(f.card); f.card != "" && ext != ".png" && ext != ".svg" {
		return usererrf("end its name in .png or .svg", "--card %q has no format", f.card)
	}
	if f.sharding.Of < 0 || f.sharding.Parallel < 0 {
		return usererrf("give a positive number, or leave it out", "--shards and --parallel cannot be negative")
	}
	if f.workers == 0 {
		v, _ := a.cfg.Float("concurrency")
		f.workers = int(v)
	}
	known := []string{"aligned", "partially_aligned", "inconclusive", "not_attempted", "not_checkable", "equivalent", "worse", "better", "not_worse", "regression", "undecided"}
	for _, v := range f.failOn {
		if !slices.Contains(known, v) {
			return usererrf("verdicts are "+strings.Join(known, ", "), "--fail-on %q is no verdict", v)
		}
	}
	return nil
}

func (f *runFlags) request(a *app, target string, w runner.Wishes) runner.Request {
	return runner.Request{
		Serving: a.serving, Target: target, Wishes: w, Repo: f.repo, Commit: f.commit, Mirror: a.cfg.String("mirror"),
		Executor: f.executor, Image: f.image, Yes: f.yes, By: firstOf(a.env["USER"], a.env["LOGNAME"], "unknown"),
		NoSandbox: f.noSandbox, KeepWork: f.keepWork, Key: f.key, Sharding: f.sharding,
		Caps: runner.Caps{GPUHours: f.maxGPUHours, USD: f.maxUSD, Wall: f.maxWall},
	}
}

func (a *app) run(ctx context.Context, f *runFlags, args []string) error {
	given := 0
	for _, is := range []bool{len(args) > 0, f.planFile != "", f.resume != "", f.from != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return usererrf("see `repromill run --help`", "run takes one of TARGET, -f PLAN, --resume ID and --from FILE")
	}
	if err := a.checkFolder("paths.results"); err != nil {
		return err
	}
	var err error
	if v := a.cfg.String("server.how"); v != "" && len(f.servers) == 0 {
		f.servers = []string{v}
	}
	if a.serving, err = f.serving(f.judge); err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	id := f.resume
	if id != "" {
		run, err := st.store.Find(ctx, id)
		if err != nil {
			return notFound(err, id)
		}
		id = run.ID
		if err := st.useMirrorOf(ctx, a, id); err != nil {
			return err
		}
	}
	// A mirror that is not there is said before a run is made.
	if _, err := st.outside(); err != nil {
		return err
	}
	if f.resume == "" {
		if err := a.chooseExecutor(ctx, f); err != nil {
			return err
		}
	}
	if err := a.clusterReady(ctx, f.executor); err != nil {
		return err
	}
	if f.from != "" {
		return a.runBatch(ctx, st, f)
	}
	if id == "" {
		req, err := a.newRequest(ctx, f, args)
		if err != nil {
			return err
		}
		run, _, err := st.runner.Create(ctx, req)
		if err != nil {
			return err
		}
		id = run.ID
	}
	out, err := a.driveOne(ctx, st, f, id)
	if err != nil {
		return err
	}
	if err := a.showOutcome(ctx, st, out); err != nil {
		return err
	}
	if err := st.writeReport(out, f.page, f.card); err != nil {
		return err
	}
	return failOn(f.failOn, out)
}

func (a *app) newRequest(ctx context.Context, f *runFlags, args []string) (runner.Request, error) {
	f.preflight = true // before anything is spent
	if f.planFile == "" {
		name, err := a.quantized(ctx, &f.planFlags, args[0])
		if err != nil {
			return runner.Request{}, err
		}
		w, err := f.wishes(ctx, a)
		return f.request(a, a.expand(name), w), err
	}
	p, err := a.makePlan(ctx, &f.planFlags, "", f.planFile)
	if err != nil {
		return runner.Request{}, err
	}
	req := f.request(a, p.Target.Input, runner.Wishes{})
	req.Plan = p
	return req, nil
}

// readPlan reads a plan document. One that was edited by hand gets the hash of
// what it says.
func (a *app) readPlan(name string) (*spec.Plan, error) {
	r := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usererrf("give a file written by `repromill plan -o FILE`", "cannot read the plan: %v", err)
		}
		defer f.Close()
		r = f
	}
	p, err := spec.Decode(r)
	if err != nil {
		return nil, usererrf("`repromill plan TARGET -o FILE` writes one; its JSON Schema is printed by `repromill plan --schema`", "%s: %v", name, err)
	}
	if p.Hash != p.ComputeHash() {
		p.Warnings = append(p.Warnings, spec.Warning{Code: "edited", Message: "the plan was edited after it was made: its hash did not fit and was made again"})
		p.Seal()
	}
	return p, nil
}

// driveOne drives a run to its end, asking for approval where a person can be
// asked.
func (a *app) driveOne(ctx context.Context, st *stack, f *runFlags, id string) (runner.Outcome, error) {
	ui := a.ui()
	ui.note("run " + id)
	out, err := a.driveWatched(ctx, st, ui, id)
	if err != nil || out.State != store.Planned {
		return out, a.afterDrive(ctx, st, err, id)
	}
	if ok, err := a.approval(ctx, st, f, id); err != nil || !ok {
		return out, err
	}
	out, err = a.driveWatched(ctx, st, ui, id)
	return out, a.afterDrive(ctx, st, err, id)
}

// approval shows a plan and asks for approval where it was not given in
// advance, and stores it.
func (a *app) approval(ctx context.Context, st *stack, f *runFlags, id string) (ok bool, err error) {
	p, err := st.runner.Plan(ctx, id)
	if err != nil {
		return false, err
	}
	width, color := a.style(a.stderr)
	if !a.jsonOut {
		planView{a.stderr, width, painter(color)}.print(p)
	}
	ok = f.yes
	if !ok {
		if ok, err = a.ask(ctx, "run this"); err != nil {
			if ctx.Err() != nil {
				return false, a.afterDrive(ctx, st, err, id)
			}
			return false, usererrf("approve it with: repromill run --resume "+id+" --yes", "run %s is planned and waits for approval, and %v", id, err)
		}
	}
	if !ok {
		fmt.Fprintf(a.stderr, "not approved; `repromill run --resume %s` asks again, `repromill cancel %s` gives it up\n", id, id)
		return false, nil
	}
	if err := st.runner.Approve(ctx, id, firstOf(a.env["USER"], a.env["LOGNAME"], "unknown")); err != nil {
		return false, err
	}
	return true, nil
}

// afterDrive says how to go on with a run that was not brought to its end.
func (a *app) afterDrive(ctx context.Context, st *stack, err error, id string) error {
	var driven *runner.DrivenError
	switch {
	case err == nil || a.jsonOut || errors.As(err, &driven):
	case errors.Is(err, context.Canceled):
		fmt.Fprintf(a.stderr, "stopped; go on with: repromill run --resume %s\n", id)
	default:
		// A run that failed before it had a plan is begun anew just as well.
		if _, perr := st.runner.Plan(ctx, id); perr == nil {
			fmt.Fprintf(a.stderr, "run %s stopped by an error; what was finished is kept, go on with: repromill run --resume %s\n", id, id)
		}
	}
	return err
}

// ask puts a yes-or-no question to the person at the terminal.
func (a *app) ask(ctx context.Context, what string) (bool, error) {
	if f, ok := a.stdin.(*os.File); !ok {
		return false, errors.New("nobody can be asked")
	} else if _, tty := isTerminal(f); !tty {
		return false, errors.New("standard input is no terminal, so nobody can be asked")
	}
	fmt.Fprintf(a.stderr, "\n%s? [y/N] ", what)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case s := <-answer:
		return s == "y" || s == "yes", nil
	}
}

// expand turns a folder as a shell's user means it into one that means the
// same to every later process.
func (a *app) expand(target string) string {
	switch {
	case strings.HasPrefix(target, "~/"):
		return filepath.Join(a.env["HOME"], target[2:])
	case target == "." || target == ".." || strings.HasPrefix(target, "./") || strings.HasPrefix(target, "../"):
		if abs, err := filepath.Abs(target); err == nil {
			return abs
		}
	}
	return target
}

func (a *app) runBatch(ctx context.Context, st *stack, f *runFlags) error {
	if !f.yes {
		return usererrf("add --yes, with --max-wall or --max-usd to bound each run", "a batch cannot ask for approval")
	}
	if err := f.quantizeFlags.check(false); err != nil {
		return err
	}
	items, err := a.readTargets(f.from)
	if err != nil {
		return err
	}
	f.preflight = true
	w, err := f.wishes(ctx, a)
	if err != nil {
		return err
	}
	wishes, err := json.Marshal(w)
	if err != nil {
		return err
	}
	salt := ""
	if f.again {
		salt = a.now().UTC().Format(time.RFC3339Nano)
	}
	batch(ctx, items, f.workers, func(ctx context.Context, it *batchItem) {
		req := f.request(a, a.expand(it.Target), w)
		sum := sha256.Sum256(fmt.Appendf(nil, "batch\x00%s\x00%s\x00%s\x00%s\x00%s", it.Target, f.repo, f.commit, salt, wishes))
		req.Key = hex.EncodeToString(sum[:])
		run, created, err := st.runner.Create(ctx, req)
		if err != nil {
			it.fail(a.explain(err))
			return
		}
		it.RunID = run.ID
		if !a.quiet && !a.jsonOut {
			verb := "started"
			if !created {
				verb = "taken up"
			}
			fmt.Fprintf(a.stderr, "%s: %s as run %s\n", clean(it.Target), verb, run.ID)
		}
		out, err := st.runner.Drive(ctx, run.ID)
		if err != nil {
			it.fail(a.explain(err))
			return
		}
		it.Status, it.Detail = string(out.State), out.Reason
		if out.Verdict != "" {
			it.Status = string(out.Verdict)
		}
		if err := failOn(f.failOn, out); err != nil {
			it.code = exitFailOn
		}
	})
	if a.jsonOut {
		if err := a.printJSON(items); err != nil {
			return err
		}
	} else {
		batchTable(a.stdout, items)
	}
	return batchExit(ctx, items)
}

// fail records an error in the item's own line.
func (it *batchItem) fail(err error) {
	it.Status, it.Detail, it.code = "failed", err.Error(), exitOurs
	var user interface{ UserError() string }
	if errors.As(err, &user) {
		it.Fix, it.code = user.UserError(), exitUser
	}
}

func failOn(verdicts []string, out runner.Outcome) error {
	if slices.Contains(verdicts, string(out.Verdict)) {
		return &exitError{exitFailOn}
	}
	return nil
}

func notFound(err error, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return usererrf("`repromill status` lists the runs", "there is no run %q", id)
	}
	return err
}

// showOutcome prints the report of a committed run, or says where the run
// stands.
func (a *app) showOutcome(ctx context.Context, st *stack, out runner.Outcome) error {
	if out.Manifest == "" {
		if a.jsonOut {
			return a.printJSON(out)
		}
		fmt.Fprintf(a.stdout, "run %s is %s\n", out.RunID, out.State)
		if out.Reason != "" {
			fmt.Fprintf(a.stdout, "  %s\n", clean(out.Reason))
		}
		return nil
	}
	if a.jsonOut {
		return a.printJSON(out)
	}
	return a.printReport(ctx, st, out.RunID, a.stdout)
}

func (a *app) printReport(_ context.Context, st *stack, runID string, w io.Writer) error {
	rep, err := st.report(runID)
	if err != nil {
		return err
	}
	width, color := a.style(w)
	return rep.Terminal(w, reportStyle(width, color))
}

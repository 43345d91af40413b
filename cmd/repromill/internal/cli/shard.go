package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/harness"
)

// shardFlags are the options of `shard`.
type shardFlags struct {
	serveFlags
	judge                   string
	plan, suite, shard, dir string
}

func (a *app) shardCmd() *cobra.Command {
	var f shardFlags
	cmd := &cobra.Command{
		Use:   "shard -f PLAN --shard I/N --dir DIR",
		Short: "Ask one block of a suite's questions, to be merged with the others",
		Long: `Ask the I-th of N blocks of the order in which a plan asks a suite's questions, of
all arms, and keep the answers in a folder. Blocks may be asked by different
machines; every one needs the same plan. The same command again goes on where it
stopped, and asks nothing twice.

A block decides nothing by itself: repromill merge says what the blocks that are
there come to, and whether more are needed.`,
		Example: `  repromill plan nvidia/Qwen3.6-27B-NVFP4 --baseline Qwen/Qwen3.6-27B-FP8 --suites mmlu-pro -o plan.json
  repromill shard -f plan.json --shard 1/4 --dir shards/1 --endpoint fp8=http://a:8000/v1 --endpoint nvfp4=http://b:8000/v1
  repromill merge -f plan.json shards/1`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.shard(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.plan, "file", "f", "", "the plan: `PLAN`, written by `repromill plan -o`")
	fl.StringVar(&f.suite, "suite", "", "which of the plan's suites, where it selects several")
	fl.StringVar(&f.shard, "shard", "", "which block of how many: `I/N`, from 1/N to N/N")
	fl.StringVar(&f.dir, "dir", "", "keep the answers in `DIR`, a folder for this block alone")
	fl.StringVar(&f.judge, "judge", "", "endpoint of the model that judges, for suites that need one: `URL`")
	f.serveFlags.add(fl)
	return cmd
}

func parseShard(s string) (harness.Shard, error) {
	i, n, ok := strings.Cut(s, "/")
	index, err1 := strconv.Atoi(i)
	of, err2 := strconv.Atoi(n)
	if !ok || err1 != nil || err2 != nil || of < 1 || index < 1 || index > of {
		return harness.Shard{}, usererrf("write I/N with I from 1 to N, such as 2/8", "--shard %q names no block", s)
	}
	return harness.Shard{Index: index - 1, Of: of}, nil
}

// planned is the suite of a plan that is meant.
func planned(p *spec.Plan, name string) (spec.Suite, error) {
	var names []string
	var out []spec.Suite
	for _, s := range p.Suites {
		if s.Kind == "accuracy" && (s.Selected && name == "" || s.ID == name) {
			out = append(out, s)
		}
		if s.Selected {
			names = append(names, s.ID)
		}
	}
	switch {
	case len(out) == 1:
		return out[0], nil
	case len(names) == 0:
		return spec.Suite{}, usererrf("plan a model, with --suites", "the plan selects no suite")
	}
	return spec.Suite{}, usererrf("name one of them with --suite: "+strings.Join(names, ", "), "the plan selects %d suites, and %q is none of them", len(names), name)
}

func (a *app) shard(ctx context.Context, f *shardFlags) error {
	if f.plan == "" || f.shard == "" || f.dir == "" {
		return usererrf("see `repromill shard --help`", "-f, --shard and --dir are needed")
	}
	block, err := parseShard(f.shard)
	if err != nil {
		return err
	}
	p, err := a.readPlan(f.plan)
	if err != nil {
		return err
	}
	s, err := planned(p, f.suite)
	if err != nil {
		return err
	}
	at, err := f.serving(f.judge)
	if err != nil {
		return err
	}
	b := a.askers()
	if why := b.Refusal(s, at); why != "" {
		return usererrf("correct the plan, or name another suite of it with --suite", "suite %s: %s", s.ID, why)
	}
	if err := at.Missing([]spec.Suite{s}); err != nil {
		return err
	}
	ui := a.ui()
	ui.start(s.ID + " " + f.shard)
	defer ui.abandon()
	res, err := b.Run(ctx, accuracy.Job{Suite: s, Serving: at, Dir: f.dir, Shard: block, Progress: func(p harness.Progress) {
		ui.progress(int64(p.Done), int64(p.Total), "answers", fmt.Sprintf("%d questions complete", p.Questions))
	}})
	if err != nil {
		if errors.Is(err, context.Canceled) && !a.jsonOut {
			fmt.Fprintln(a.stderr, "stopped; the same command goes on")
		}
		return err
	}
	ui.finish(fmt.Sprintf("%d questions, %d requests", res.Used, res.Paid.Requests))
	if a.jsonOut {
		return a.printJSON(res)
	}
	fmt.Fprintf(a.stdout, "block %s of %s: %s of %s questions asked, kept in %s\n", f.shard, s.ID, grouped(res.Used), grouped(res.Questions), f.dir)
	a.printArms(res)
	return nil
}

// askers carries out suites without a store of runs.
func (a *app) askers() *accuracy.Bench {
	s := &stack{outside: sync.OnceValues(a.pipeline)}
	return s.bench(a)
}

func (a *app) printArms(res harness.Result) {
	for _, arm := range res.Arms {
		var out []string
		for _, o := range sortedKeys(arm.Outcomes) {
			out = append(out, fmt.Sprintf("%s %d", strings.ReplaceAll(string(o), "_", " "), arm.Outcomes[o]))
		}
		fmt.Fprintf(a.stdout, "  %s  %.2f %% over %s: %s\n", clean(arm.Arm), 100*arm.Score, answersWords(arm.Answers), strings.Join(out, ", "))
	}
	for _, w := range res.Warnings {
		fmt.Fprintf(a.stdout, "  %s\n", clean(w))
	}
}

// merged is what `merge --json` prints for a suite.
type merged struct {
	Suite    string         `json:"suite"`
	Folders  []string       `json:"folders"`
	Complete bool           `json:"complete"` // every question of the suite is there
	Enough   bool           `json:"enough"`   // more blocks would change no verdict
	Result   harness.Result `json:"result"`
}

func (a *app) mergeCmd() *cobra.Command {
	var f runFlags
	var plan string
	var commit bool
	cmd := &cobra.Command{
		Use:   "merge -f PLAN DIR...",
		Short: "Say what the blocks of suites come to, and whether more are needed",
		Long: `Take the answers of blocks that repromill shard has asked, of one suite or of
several, and say what they come to. A method that may stop early looks at the
questions from the beginning of the order on, as far as they are complete, so that
blocks beyond the decision need not be asked.

With --commit the merged answers become a run like any other: with a verdict, a
report, and rows in Parquet. Neither servers nor keys are needed.`,
		Example: `  repromill merge -f plan.json shards/1 shards/2
  repromill merge -f plan.json shards/* --json
  repromill merge -f plan.json shards/* --commit --fail-on worse`,
		RunE: func(cmd *cobra.Command, dirs []string) error {
			if err := f.defaults(a, cmd); err != nil {
				return err
			}
			if plan == "" || len(dirs) == 0 {
				return usererrf("see `repromill merge --help`", "-f and at least one folder are needed")
			}
			return a.merge(cmd.Context(), &f, plan, dirs, commit)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&plan, "file", "f", "", "the plan that the blocks were asked by: `PLAN`")
	fl.BoolVar(&commit, "commit", false, "make a run of them and commit it")
	fl.StringVar(&f.key, "key", "", "with --commit, idempotency `KEY`: the same key is the same run")
	fl.StringSliceVar(&f.failOn, "fail-on", nil, "exit 3 on these verdicts, comma separated")
	return cmd
}

func (a *app) merge(ctx context.Context, f *runFlags, plan string, dirs []string, commit bool) error {
	p, err := a.readPlan(plan)
	if err != nil {
		return err
	}
	bySuite := map[string][]string{}
	for _, dir := range dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return fmt.Errorf("find folder of answers: %w", err)
		}
		suite, _, err := harness.Declared(abs)
		if err != nil {
			return err
		}
		if slices.Contains(bySuite[suite], abs) {
			return usererrf("name each folder once", "%s stands twice", dir)
		}
		bySuite[suite] = append(bySuite[suite], abs)
	}
	b := a.askers()
	var out []merged
	for _, suite := range sortedKeys(bySuite) {
		i := slices.IndexFunc(p.Suites, func(s spec.Suite) bool { return s.ID == suite && s.Selected })
		if i < 0 {
			return usererrf("give the plan that the blocks were asked by", "the plan does not select suite %s, whose answers are in %s", suite, bySuite[suite][0])
		}
		res, err := b.Run(ctx, accuracy.Job{Suite: p.Suites[i], From: bySuite[suite]})
		if err != nil {
			return err
		}
		out = append(out, state(suite, bySuite[suite], res))
	}
	if commit {
		return a.commitMerged(ctx, f, p, bySuite)
	}
	if a.jsonOut {
		if err := a.printJSON(out); err != nil {
			return err
		}
	} else {
		a.printMerged(out)
	}
	for _, m := range out {
		for _, c := range m.Result.Comparisons {
			if slices.Contains(f.failOn, string(c.Result.Verdict)) {
				return &exitError{exitFailOn}
			}
		}
	}
	return nil
}

// state says whether more blocks could change what is known.
func state(suite string, dirs []string, res harness.Result) merged {
	return merged{Suite: suite, Folders: dirs, Result: res, Complete: res.Complete(), Enough: res.Complete() || res.Decided()}
}

func (a *app) printMerged(list []merged) {
	for _, m := range list {
		fmt.Fprintf(a.stdout, "%s: %d folders, %s of %s questions used\n", m.Suite, len(m.Folders), grouped(m.Result.Used), grouped(m.Result.Questions))
		a.printArms(m.Result)
		for _, c := range m.Result.Comparisons {
			r := c.Result
			fmt.Fprintf(a.stdout, "  %s against %s: %+.2f points over %s questions, %s (%s)\n", clean(c.Candidate), clean(c.Baseline), 100*r.Diff, grouped(r.Used),
				strings.ReplaceAll(string(r.Verdict), "_", " "), r.Method)
		}
		switch {
		case m.Complete:
			fmt.Fprintln(a.stdout, "  every question is answered")
		case m.Enough:
			fmt.Fprintln(a.stdout, "  decided: no more blocks are needed")
		default:
			fmt.Fprintln(a.stdout, "  more blocks are needed, from the beginning of the order on")
		}
	}
}

// commitMerged makes a run of answers that are there.
func (a *app) commitMerged(ctx context.Context, f *runFlags, p *spec.Plan, answers map[string][]string) error {
	if err := a.checkFolder("paths.results"); err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	f.yes = true // what would be approved has been paid for
	req := f.request(a, p.Target.Input, runner.Wishes{})
	req.Plan, req.Answers = p, answers
	run, _, err := st.runner.Create(ctx, req)
	if err != nil {
		return err
	}
	out, err := a.driveOne(ctx, st, f, run.ID)
	if err != nil {
		return err
	}
	if err := a.showOutcome(ctx, st, out); err != nil {
		return err
	}
	return failOn(f.failOn, out)
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/compare"
)

type loadCompareFlags struct {
	loadFlags
	arms, models     []string
	sku, method      string
	gpuCounts        []int
	rounds, repeated int
	together         bool
	floors           []float64
	margin           string
}

func (a *app) loadCompareCmd() *cobra.Command {
	var f loadCompareFlags
	cmd := &cobra.Command{
		Use:   "compare BASELINE CANDIDATE",
		Short: "Say by which factor one server is faster than another",
		Long: `Measure two servers in interleaved blocks on the same schedules, and say by which
factor they differ in throughput, TTFT and TPOT, with intervals.

Each of BASELINE and CANDIDATE is the address of a server, or how one is started:
vllm, sglang, repromill, docker:IMAGE or a command with {port}. A server that is started
here is started anew in every round. How fast a server is differs from start to
start, and no number of requests to one process shows that: of servers that were
started once, figures are shown and no verdict is given.

Ratios at equal configuration compare the arms load by load. Ratios with --floor
compare each arm at the load that gives most output per GPU while every user
still gets that many tokens per second. They answer different questions and are
never mixed.`,
		Example: `  repromill load compare http://a:8000/v1 http://b:8000/v1 --concurrency 1,16,64
  repromill load compare vllm vllm --models Qwen/Qwen3.6-27B-FP8,nvidia/Qwen3.6-27B-NVFP4 \
      --arms fp8,nvfp4 --concurrency 4,16,64,256 --floor 30,60 --rounds 3 --plot frontier.svg
  repromill load compare 'repromill load server --port {port}' \
      'repromill load server --port {port} --step 4ms' --concurrency 8 --requests 100`,
		Args: exactArgs(2, "a baseline and a candidate"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.loadCompare(cmd.Context(), &f, args) },
	}
	fl := cmd.Flags()
	f.register(fl)
	fl.StringSliceVar(&f.arms, "arms", []string{"baseline", "candidate"}, "names of the two")
	fl.StringSliceVar(&f.models, "models", nil, "models of the two, where they differ")
	fl.IntSliceVar(&f.gpuCounts, "gpus", nil, "GPUs of each server, one number or two (default: one, or what vllm's and sglang's flags say)")
	fl.StringVar(&f.sku, "sku", "", "GPU model, for the results")
	fl.IntVar(&f.rounds, "rounds", 3, "rounds; in each, servers that are started here are started anew")
	fl.IntVar(&f.repeated, "repeats", 2, "times each cell is measured in a round")
	fl.BoolVar(&f.together, "together", false, "keep servers that are started here up beside each other during a round, where there are GPUs for both")
	fl.Float64SliceVar(&f.floors, "floor", nil, "interactivity floors in tokens/s to each user, for best configurations")
	fl.StringVar(&f.margin, "margin", "2%", "difference within which arms count as equal")
	fl.StringVar(&f.method, "method", "", "paired_t, welch_t or nested_bootstrap (default: paired_t)")
	fl.StringSliceVar(&f.plots, "plot", nil, "draw the frontiers of both into `FILE`s ending in .svg or .png")
	fl.StringSliceVar(&f.failOn, "fail-on", nil, "exit 3 on: worse, undecided, refused, void")
	return cmd
}

func (f *loadCompareFlags) check(args []string) (compare.Options, error) {
	var o compare.Options
	margin, err := points("margin", f.margin)
	switch {
	case err != nil:
		return o, err
	case margin <= 0:
		return o, usererrf("give a margin such as 2%", "--margin %s is out of range", f.margin)
	case len(f.arms) != 2 || f.arms[0] == f.arms[1] || f.arms[0] == "" || f.arms[1] == "":
		return o, usererrf("give two names: --arms fp8,nvfp4", "--arms %s does not name two arms", strings.Join(f.arms, ","))
	case len(f.models) > 2 || len(f.gpuCounts) > 2 || slices.ContainsFunc(f.gpuCounts, func(n int) bool { return n < 1 }):
		return o, usererrf("give one value for both or two, separated by a comma", "--models or --gpus has not one or two values")
	case len(f.floors) == 0 && pick(f.gpuCounts, 0) != pick(f.gpuCounts, 1):
		return o, usererrf("give --floor with the tokens/s that each user must get, to compare best configurations", "servers of %d and %d GPUs are not in one configuration", f.gpuCounts[0], f.gpuCounts[1])
	case f.rounds < 1 || f.repeated < 1 || f.rounds*f.repeated > 1000:
		return o, usererrf("give 1 or more of both", "--rounds %d and --repeats %d are out of range", f.rounds, f.repeated)
	case f.model != "" && len(f.models) > 0:
		return o, usererrf("give --models alone", "--model and --models say different things")
	}
	for _, on := range f.failOn {
		if !slices.Contains([]string{"worse", "undecided", "refused", "void"}, on) {
			return o, usererrf("choose worse, undecided, refused or void", "--fail-on %q is not known", on)
		}
	}
	o.Margin, o.Seed = margin, f.seed
	for _, m := range compare.Methods() {
		if m.Name() == f.method {
			o.Method = m
		}
	}
	if o.Method == nil && f.method != "" {
		return o, usererrf("choose paired_t, welch_t or nested_bootstrap", "--method %q is not known", f.method)
	}
	return o, nil
}

func pick[T any](x []T, i int) (v T) {
	if len(x) > 0 {
		v = x[min(i, len(x)-1)]
	}
	return v
}

func (a *app) loadCompare(ctx context.Context, f *loadCompareFlags, args []string) error {
	o, err := f.check(args)
	if err != nil {
		return err
	}
	if err := a.checkPlots(f.plots); err != nil {
		return err
	}
	fail := f.failOn
	f.failOn, f.repeats = nil, 1
	specs, err := a.loadSpecs(&f.loadFlags)
	if err != nil {
		return err
	}
	f.urls = []string{"http://unused"} // each arm has its own
	cfg, stop, err := a.contestConfig(ctx, &f.loadFlags)
	if err != nil {
		return err
	}
	defer stop()
	c := bench.Contest{Specs: specs, Rounds: f.rounds, Repeats: f.repeated, Together: f.together || isURL(args[0]) && isURL(args[1])}
	for i, how := range args {
		arm, err := a.compareArm(f, cfg, i, how)
		if err != nil {
			return err
		}
		c.Arms = append(c.Arms, arm)
	}
	began := a.now()
	out, blocks, failed := a.contest(ctx, c, "load")
	if failed != nil && len(blocks) == 0 {
		return failed
	}
	if len(blocks) > 0 {
		if err := out.compare(blocks, f.floors, o); err != nil {
			return err
		}
		if len(f.plots) > 0 {
			curves, ttft := contestCurves(out.Arms, out.measured, blocks)
			if err := a.drawFrontier(f.plots, strings.Join(out.Arms, " and ")+out.simulated()+", crosses span all blocks", ttft, curves); err != nil {
				return err
			}
		}
		if !f.noSave {
			if err := a.saveContest(context.WithoutCancel(ctx), out, "load", strings.Join(out.Arms, " against "), f.seed, began); err != nil {
				return err
			}
		}
	}
	if err := a.showContest(out, nil); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return out.verdict(fail)
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// compareArm is one side of the comparison.
func (a *app) compareArm(f *loadCompareFlags, cfg bench.Config, i int, how string) (bench.Arm, error) {
	model := f.model
	if len(f.models) > 0 {
		model = pick(f.models, i)
	}
	arm := bench.Arm{Name: f.arms[i], Setup: compare.Setup{SKU: f.sku, GPUs: pick(f.gpuCounts, i)}}
	if isURL(how) {
		cfg.Model = model
		arm.Start = foreign(cfg, how)
		return arm, nil
	}
	cfg.Model = "" // the only one that the server has, under whatever name
	var err error
	arm.Start, err = a.served(cfg, how, spec.Arm{Name: arm.Name, Model: model, SKU: f.sku, GPUs: arm.Setup.GPUs})
	return arm, err
}

// compare asks both questions. What cannot be compared is a warning: the blocks
// are there all the same.
func (o *contested) compare(blocks []compare.Block, floors []float64, opt compare.Options) error {
	var err error
	if o.Results, err = compare.Equal(blocks, o.Arms[0], o.Arms[1], opt); o.refused(&err) != nil {
		return err
	}
	for _, floor := range floors {
		best, err := compare.Best(blocks, o.Arms[0], o.Arms[1], floor, opt)
		if o.refused(&err) != nil {
			return err
		}
		o.Results = append(o.Results, best...)
	}
	return nil
}

// refused turns the refusal of a comparison into a warning.
func (o *contested) refused(err *error) error {
	var terms *compare.TermsError
	if errors.As(*err, &terms) {
		o.Warnings, *err = append(o.Warnings, terms.Error()), nil
	}
	return *err
}

func (o *contested) simulated() string {
	if o.Simulated {
		return " (simulated)"
	}
	return ""
}

// showContest prints what a contest gave; more is printed after the ratios.
func (a *app) showContest(o *contested, more func()) error {
	if a.jsonOut {
		return a.printJSON(o)
	}
	if o.Simulated {
		fmt.Fprintln(a.stdout, "\nsimulated: the servers have no model")
	}
	a.printRatios(o.Results)
	if more != nil {
		more()
	}
	for _, w := range o.Warnings {
		fmt.Fprintf(a.stdout, "warning: %s\n", clean(w))
	}
	if o.RunID != "" {
		fmt.Fprintf(a.stdout, "saved as run %s in %s\n", o.RunID, o.Dataset)
	}
	return nil
}

func (o *contested) verdict(fail []string) error {
	for _, on := range fail {
		hit := on == "void" && slices.ContainsFunc(o.Blocks, func(b contestBlock) bool { return b.Void })
		for _, c := range o.Results {
			hit = hit || string(c.Verdict) == on
		}
		if hit {
			return &exitError{exitFailOn}
		}
	}
	return nil
}

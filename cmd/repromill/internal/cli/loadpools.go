package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/load/measure"
	"github.com/repromill/repromill/suites/load/simserver"
)

type loadPoolsFlags struct {
	loadFlags
	shared           []string
	rounds, repeated int
	simulate         bool
	sim              simserver.Config
	shortSim         simserver.Config
}

const (
	sharedArm = "shared"
	dualArm   = "dual"
)

func (a *app) loadPoolsCmd() *cobra.Command {
	var f loadPoolsFlags
	cmd := &cobra.Command{
		Use:   "pools",
		Short: "Compare a short and a long pool of servers with one shared pool",
		Long: `Measure the same schedules on servers that are one shared pool, and on servers
that are split into a pool for short requests and one for long ones. Requests go
to a pool by the total tokens expected of them: input, and --osl or a percentile
of the outputs so far of their class. Shown side by side are GPU time per
request, preemptions and TTFT.

--shared names the servers of the shared pool; without it those of both pools
are shared, so that only the routing differs. With --simulate servers without a
model are started for each round: as many for the shared pool as for the two
pools together.`,
		Example: `  repromill load pools --simulate --rate 12 --mix 0.9:128x64,0.1:6000x300 --threshold 1000
  repromill load pools --short http://a:8000/v1 --long http://b:8000/v1 --rate 8 --trace prod.jsonl
  repromill load pools --short http://a:8000/v1 --long http://b:8000/v1 \
      --shared http://c:8000/v1,http://d:8000/v1 --rate 8 --mix 0.9:512x128,0.1:16000x512 --threshold 4096`,
		Args: exactArgs(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.loadPools(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	f.register(fl)
	fl.StringSliceVar(&f.short, "short", nil, "endpoints for requests of few expected tokens")
	fl.StringSliceVar(&f.long, "long", nil, "endpoints for the others")
	fl.StringSliceVar(&f.shared, "shared", nil, "endpoints of the shared pool (default: those of both pools)")
	fl.IntVar(&f.threshold, "threshold", 8192, "expected input and output tokens from which on a request is long")
	fl.Float64Var(&f.percentile, "percentile", 0, "expect this percentile of past output lengths of the request's class (0: expect all that is asked for)")
	fl.IntVar(&f.rounds, "rounds", 3, "rounds; simulated servers are started anew in each")
	fl.IntVar(&f.repeated, "repeats", 1, "times each cell is measured in a round")
	fl.BoolVar(&f.simulate, "simulate", false, "start simulated servers instead of --short and --long: one of each, and two shared ones")
	fl.IntVar(&f.sim.KVTokens, "kv-tokens", 40_000, "with --simulate, tokens that a server's KV cache holds")
	fl.IntVar(&f.sim.MaxBatch, "max-num-seqs", 64, "with --simulate, sequences that a long or shared server runs at once")
	fl.IntVar(&f.shortSim.MaxBatch, "short-max-num-seqs", 128, "with --simulate, sequences that a short server runs at once")
	fl.DurationVar(&f.sim.StepBase, "step", 20*time.Millisecond, "with --simulate, time of a step; a client that shares two processors with the servers is too late for much shorter ones")
	fl.IntVar(&f.sim.PrefillBudget, "max-num-batched-tokens", 2048, "with --simulate, prompt tokens read in one step")
	return cmd
}

func (f *loadPoolsFlags) check() error {
	switch {
	case f.simulate && len(f.short)+len(f.long)+len(f.shared) > 0:
		return usererrf("leave out --simulate, or the endpoints", "--simulate starts its own servers")
	case !f.simulate && (len(f.short) == 0 || len(f.long) == 0):
		return usererrf("give --short and --long, or --simulate", "two pools are needed")
	case f.rounds < 1 || f.repeated < 1 || f.rounds*f.repeated > 1000:
		return usererrf("give 1 or more of both", "--rounds %d and --repeats %d are out of range", f.rounds, f.repeated)
	case f.threshold < 1 || f.percentile < 0 || f.percentile > 100:
		return usererrf("give a number of tokens, and a percentile from 0 to 100", "--threshold %d or --percentile %g is out of range", f.threshold, f.percentile)
	}
	return nil
}

func (a *app) loadPools(ctx context.Context, f *loadPoolsFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	f.repeats = 1
	specs, err := a.loadSpecs(&f.loadFlags)
	if err != nil {
		return err
	}
	short, long := f.short, f.long
	f.short, f.long, f.urls = nil, nil, []string{"http://unused"} // each arm has its own
	cfg, stop, err := a.contestConfig(ctx, &f.loadFlags)
	if err != nil {
		return err
	}
	defer stop()
	// Arms that share servers must not be under load at the same time, and are
	// not: cells are measured one after another.
	c := bench.Contest{Specs: specs, Rounds: f.rounds, Repeats: f.repeated, Together: !f.simulate, Arms: []bench.Arm{{Name: sharedArm}, {Name: dualArm}}}
	n := len(short) + len(long)
	switch {
	case f.simulate:
		n = 2
		c.Arms[0].Start, c.Arms[1].Start = f.simulated(cfg, false), f.simulated(cfg, true)
	default:
		pool := f.shared
		if len(pool) == 0 {
			pool = slices.Concat(short, long)
		}
		if n != len(pool) {
			return usererrf("give as many endpoints in --shared as in --short and --long together", "%d shared servers cannot be compared with %d in pools", len(pool), n)
		}
		c.Arms[0].Start = foreign(cfg, pool...)
		c.Arms[1].Start = func(context.Context) (bench.Up, error) {
			return bench.Up{Config: f.dual(cfg, short, long)}, nil
		}
	}
	for i := range c.Arms {
		c.Arms[i].Setup = compare.Setup{GPUs: n}
	}
	began := a.now()
	out, blocks, failed := a.contest(ctx, c, "load-pools")
	if failed != nil && len(blocks) == 0 {
		return failed
	}
	f.classes(out)
	if len(blocks) > 0 {
		if err := out.compare(blocks, nil, compare.Options{Seed: f.seed}); err != nil {
			return err
		}
		if !f.noSave {
			if err := a.saveContest(context.WithoutCancel(ctx), out, "load-pools", "two pools against a shared one", f.seed, began); err != nil {
				return err
			}
		}
	}
	if err := a.showContest(out, func() { a.printPools(out) }); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

// dual routes to a short and a long pool; what it learns of lengths begins anew.
func (f *loadPoolsFlags) dual(cfg bench.Config, short, long []string) bench.Config {
	split := &load.Split{Threshold: f.threshold, Percentile: f.percentile}
	for i := range short {
		split.ShortPool = append(split.ShortPool, i)
	}
	for i := range long {
		split.LongPool = append(split.LongPool, len(short)+i)
	}
	cfg.URLs, cfg.Router = slices.Concat(short, long), split
	return cfg
}

// simulated starts two servers, as one pool or as two.
func (f *loadPoolsFlags) simulated(cfg bench.Config, dual bool) func(context.Context) (bench.Up, error) {
	return func(ctx context.Context) (bench.Up, error) {
		long, short := f.sim, f.sim
		if dual {
			short.MaxBatch = f.shortSim.MaxBatch
		}
		first, stopFirst, err := childServer(ctx, short)
		if err != nil {
			return bench.Up{}, err
		}
		second, stopSecond, err := childServer(ctx, long)
		if err != nil {
			stopFirst()
			return bench.Up{}, err
		}
		up := bench.Up{Config: cfg, Fresh: true, Stop: func() error { stopFirst(); stopSecond(); return nil }}
		if dual {
			up.Config = f.dual(cfg, []string{first}, []string{second})
		} else {
			up.Config.URLs = []string{first, second}
		}
		return up, nil
	}
}

// printPools sets the two side by side.
func (a *app) printPools(o *contested) {
	w := a.stdout
	title := "ALL BLOCKS"
	if slices.ContainsFunc(o.Blocks, func(b contestBlock) bool { return b.Void }) {
		title += ", VOID ONES TOO"
	}
	fmt.Fprintf(w, "\n%-26s %22s %22s\n", title, sharedArm, dualArm)
	line := func(name string, of func(*armTotals) string) {
		fmt.Fprintf(w, "%-26s %22s %22s\n", name, of(o.Totals[sharedArm]), of(o.Totals[dualArm]))
	}
	count := func(v *float64) string {
		if v == nil {
			return "–"
		}
		return fmt.Sprintf("%.0f", *v)
	}
	line("requests", func(t *armTotals) string { return fmt.Sprint(t.Requests) })
	line("preemptions", func(t *armTotals) string { return count(t.Preemptions) })
	line("GPU s per request", func(t *armTotals) string {
		if t.GPUSeconds == nil || t.Requests == 0 {
			return "–"
		}
		return fmt.Sprintf("%.4f", *t.GPUSeconds/float64(t.Requests))
	})
	for _, class := range []string{load.Short, load.Long} {
		line("TTFT of "+class+" requests", func(t *armTotals) string {
			d := t.Classes[class]
			return pair(d.P(50), d.P(99))
		})
	}
}

// classes sorts all requests into short and long by what is asked for, in either
// arm, and sums up their TTFT.
func (f *loadPoolsFlags) classes(o *contested) {
	byArm := map[string]map[string]*load.Result{}
	for _, m := range o.measured {
		if byArm[m.Arm.Name] == nil {
			byArm[m.Arm.Name] = map[string]*load.Result{load.Short: {}, load.Long: {}}
		}
		for _, r := range m.Cell.Result.Records {
			class := load.Short
			if r.ISLTarget+r.OSLTarget >= f.threshold {
				class = load.Long
			}
			to := byArm[m.Arm.Name][class]
			to.Records = append(to.Records, r)
		}
	}
	for arm, classes := range byArm {
		o.Totals[arm].Classes = map[string]measure.Dist{}
		for class, res := range classes {
			o.Totals[arm].Classes[class] = measure.Sum(res, measure.Config{Seed: f.seed}).Whole.TTFTIntended
		}
	}
}

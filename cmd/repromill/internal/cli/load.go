package cli

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/repromill/repromill/results/plot"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/measure"
	"github.com/repromill/repromill/suites/load/simserver"
	"github.com/repromill/repromill/suites/servers"
)

type loadFlags struct {
	urls, short, long          []string
	model, arrivals, trace     string
	unit                       time.Duration
	rates                      []float64
	concurrency, isl, osl      []int
	spread, burstiness         float64
	requests, warmup, repeats  int
	duration, timeout, nullITL time.Duration
	seed                       uint64
	slo, server                string
	find, completions, eos     bool
	continuous, noCheck        bool
	noSave                     bool
	share, percentile          float64
	threshold, maxOpen         int
	failOn                     []string
	mix                        string
	plots                      []string
	gpus                       int
}

// loadReport is what `load --json` prints.
type loadReport struct {
	Model     string   `json:"model"`
	Endpoints []string `json:"endpoints"`
	Servers   []string `json:"servers"` // engine and version of each
	// Facts are of a server that was started for the measurement.
	Facts     *servers.Facts `json:"facts,omitempty"`
	Simulated bool           `json:"simulated"`
	Cells     []*bench.Cell  `json:"cells"`
	Goodput   *float64       `json:"goodput_rate,omitempty"` // highest rate that met the SLO
	Warnings  []string       `json:"warnings,omitempty"`
	RunID     string         `json:"run_id,omitempty"`
	Dataset   string         `json:"dataset,omitempty"`
}

func (a *app) loadCmd() *cobra.Command {
	var f loadFlags
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Measure the throughput and latency of an OpenAI-compatible endpoint",
		Long: `Send requests to an OpenAI-compatible server by a schedule that is fixed before
the first is sent, and say what users wait for: TTFT, TPOT, ITL, end-to-end
latency, throughput and goodput, with intervals.

With --rate requests arrive in open loop, whatever became of those before them,
and latencies count from the moment at which each was meant to be sent. With
--concurrency a fixed number is in flight (closed loop). Lists make a sweep.

Before each cell the same schedule is replayed against a built-in server without
a model, to prove that this program is not the bottleneck. A cell whose numbers
are not the server's (late client, cached prompts, outputs cut short, a server
that restarted) is marked void. A percentile that the sample is too small for is
not printed; the number of requests it takes is.

Keys come from OPENAI_API_KEY, the address from --url or OPENAI_BASE_URL.`,
		Example: `  repromill load --url http://127.0.0.1:8000/v1 --rate 1,2,4 --isl 1024 --osl 128
  repromill load --server vllm --model Qwen/Qwen3-8B-FP8 --concurrency 1,8,64
  repromill load --url http://127.0.0.1:8000/v1 --concurrency 1,8,64 --requests 500
  repromill load --url http://127.0.0.1:8000/v1 --rate 1 --slo ttft=500ms,tpot=50ms --find-goodput
  repromill load --short http://a:8000/v1 --long http://b:8000/v1 --threshold 4096 --rate 8
  repromill load server --port 8000 & # a simulated server to try it on`,
		Args: exactArgs(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.load(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	f.register(fl)
	fl.StringSliceVar(&f.urls, "url", nil, "endpoint, with or without /v1; several are one shared pool")
	fl.StringVar(&f.server, "server", "", "start the server by `HOW`, and stop it afterwards: vllm, sglang, repromill, docker:IMAGE or a command with {port} and {model}")
	fl.IntVar(&f.repeats, "repeats", 1, "times each cell is measured, with new prompts")
	fl.StringVar(&f.slo, "slo", "", "what a request must keep to count: `ttft=500ms,tpot=50ms,e2e=10s`")
	fl.BoolVar(&f.find, "find-goodput", false, "search for the highest rate at which --share of the requests keep the SLO")
	fl.Float64Var(&f.share, "share", 0.99, "share of requests that must keep the SLO")
	fl.StringSliceVar(&f.short, "short", nil, "dual pool: endpoints for requests of few expected tokens")
	fl.StringSliceVar(&f.long, "long", nil, "dual pool: endpoints for the others")
	fl.IntVar(&f.threshold, "threshold", 8192, "dual pool: expected input and output tokens from which on a request is long")
	fl.Float64Var(&f.percentile, "percentile", 0, "dual pool: expect this percentile of past output lengths (0: expect --osl)")
	fl.StringSliceVar(&f.failOn, "fail-on", nil, "exit 3 on: void, errors, slo")
	fl.StringSliceVar(&f.plots, "plot", nil, "draw throughput against interactivity and TTFT into `FILE`s ending in .svg or .png")
	fl.IntVar(&f.gpus, "gpus", 1, "GPUs of the server, for figures per GPU")
	cmd.AddCommand(a.loadCompareCmd(), a.loadPoolsCmd(), a.loadSelfCheckCmd(), a.loadServerCmd())
	return cmd
}

// register adds the flags that say what is sent.
func (f *loadFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&f.model, "model", "", "model as the server names it (default: the only one it serves)")
	fl.Float64SliceVar(&f.rates, "rate", nil, "requests per second, open loop; a list is a sweep")
	fl.IntSliceVar(&f.concurrency, "concurrency", nil, "requests in flight, closed loop; a list is a sweep")
	fl.IntSliceVar(&f.isl, "isl", []int{512}, "input tokens; a list is a sweep")
	fl.IntSliceVar(&f.osl, "osl", []int{128}, "output tokens; a list is a sweep")
	fl.Float64Var(&f.spread, "spread", 0, "draw lengths uniformly from this share below to this share above")
	fl.IntVar(&f.requests, "requests", 0, "measured requests of a cell (default: 400, or what --duration holds)")
	fl.DurationVar(&f.duration, "duration", 0, "open loop: how long requests arrive, instead of --requests")
	fl.IntVar(&f.warmup, "warmup", -1, "requests before them that do not count (default: the concurrency, or 10)")
	fl.StringVar(&f.arrivals, "arrivals", "", "poisson, gamma or constant")
	fl.Float64Var(&f.burstiness, "burstiness", 1, "shape of gamma arrivals: 1 is Poisson, less is burstier")
	fl.StringVar(&f.trace, "trace", "", "replay arrivals and lengths from a `FILE` of JSON lines (timestamp, input_length, output_length)")
	fl.DurationVar(&f.unit, "trace-unit", time.Millisecond, "unit of the trace's timestamps")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of arrivals, lengths and prompts")
	fl.BoolVar(&f.completions, "completions", false, "use /v1/completions instead of chat")
	fl.BoolVar(&f.eos, "stop-at-eos", false, "let the model stop by itself (otherwise ignore_eos is asked for)")
	fl.BoolVar(&f.continuous, "continuous-usage", false, "ask for token counts in every chunk (vLLM)")
	fl.DurationVar(&f.timeout, "timeout", 10*time.Minute, "of one request")
	fl.IntVar(&f.maxOpen, "max-open", 0, "requests in flight at most, open loop; what waits counts as waiting")
	fl.BoolVar(&f.noCheck, "no-self-check", false, "do not prove first that this program is fast enough")
	fl.DurationVar(&f.nullITL, "self-check-itl", 10*time.Millisecond, "pace of the self-check's streams")
	fl.BoolVar(&f.noSave, "no-save", false, "do not commit requests, metrics and servers to the results")
	fl.StringVar(&f.mix, "mix", "", "kinds of requests with their shares, instead of --isl and --osl: `SHARE:ISLxOSL,…`")
}

func (a *app) load(ctx context.Context, f *loadFlags) error {
	specs, err := a.loadSpecs(f)
	if err != nil {
		return err
	}
	if err := a.checkPlots(f.plots); err != nil {
		return err
	}
	cfg, err := a.benchConfig(f)
	if err != nil {
		return err
	}
	u := a.ui()
	defer u.abandon()
	var facts *servers.Facts
	if f.server != "" {
		srv, stop, err := a.loadServer(ctx, u, f, &cfg)
		if err != nil {
			return err
		}
		defer stop()
		told := srv.Facts()
		facts = &told
	}
	if !a.quiet {
		cfg.Progress = func(l bench.Live) { u.progress(int64(l.Done), int64(l.Total), "requests", liveLine(l)) }
	}
	if !f.noCheck {
		null, stop, err := nullServer(ctx, f.nullITL)
		if err != nil {
			return err
		}
		defer stop()
		cfg.NullURL, cfg.NullITL = null, f.nullITL
	}
	b, err := bench.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer b.Close()
	out := &loadReport{Model: b.Model(), Endpoints: cfg.URLs, Simulated: b.Simulated(), Warnings: b.Warnings, Facts: facts}
	for _, id := range b.Identities {
		out.Servers = append(out.Servers, strings.TrimSpace(id.Engine+" "+id.Version))
	}
	if !a.jsonOut {
		a.printLoadHead(out)
	}
	began := a.now()
	seen := func(c *bench.Cell) {
		u.abandon()
		out.Cells = append(out.Cells, c)
		if !a.jsonOut {
			a.printCellRow(c)
		}
	}
	err = a.loadCells(ctx, f, b, specs, u, seen, out)
	if err != nil && len(out.Cells) == 0 {
		return err
	}
	if len(f.plots) > 0 && len(out.Cells) > 0 {
		curve, ttft := sweepCurve(out.Model, out.Cells, f.gpus)
		if plotErr := a.drawFrontier(f.plots, out.title(), ttft, []plot.Curve{curve}); plotErr != nil {
			return errors.Join(err, plotErr)
		}
	}
	if !f.noSave {
		if saveErr := a.saveLoad(context.WithoutCancel(ctx), b, out, f, began); saveErr != nil {
			return errors.Join(err, saveErr)
		}
	}
	if a.jsonOut {
		if jsonErr := a.printJSON(out); jsonErr != nil {
			return jsonErr
		}
	} else {
		a.printLoadFoot(out, f)
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return loadVerdict(out, f)
}

func (r *loadReport) title() string {
	t := strings.Join(r.Servers, ", ")
	if r.Simulated {
		t += " (simulated)"
	}
	return t + ", 95 % intervals"
}

func (a *app) loadCells(ctx context.Context, f *loadFlags, b *bench.Bench, specs []load.Spec, u *ui, seen func(*bench.Cell), out *loadReport) error {
	for _, s := range specs {
		if f.find {
			u.start("searching for the highest rate that keeps the SLO")
			_, best, err := b.Search(ctx, s, f.share, seen)
			if err != nil {
				return err
			}
			out.Goodput = &best
			continue
		}
		for r := range f.repeats {
			if ctx.Err() != nil {
				return nil
			}
			u.start("measuring " + bench.Name(s))
			c, err := b.Cell(ctx, s, r)
			if err != nil {
				return err
			}
			seen(c)
		}
	}
	return nil
}

func loadVerdict(out *loadReport, f *loadFlags) error {
	for _, c := range out.Cells {
		for _, on := range f.failOn {
			hit := false
			switch on {
			case "void":
				hit = c.Void
			case "errors":
				hit = c.Summary.Sent > c.Summary.Statuses[load.OK]
			case "slo":
				hit = f.slo != "" && c.Summary.Whole.SLOFraction < f.share
			}
			if hit {
				return &exitError{exitFailOn}
			}
		}
	}
	return nil
}

// loadSpecs is the sweep that the flags ask for.
func (a *app) loadSpecs(f *loadFlags) ([]load.Spec, error) {
	for _, on := range f.failOn {
		if !slices.Contains([]string{"void", "errors", "slo"}, on) {
			return nil, usererrf("choose void, errors or slo", "--fail-on %q is not known", on)
		}
	}
	modes := 0
	for _, given := range []bool{len(f.rates) > 0, len(f.concurrency) > 0, f.trace != ""} {
		if given {
			modes++
		}
	}
	switch {
	case modes != 1:
		return nil, usererrf("give one of --rate (open loop), --concurrency (closed loop) and --trace", "there are %d ways of sending, and it takes one", modes)
	case f.find && (len(f.rates) != 1 || f.slo == ""):
		return nil, usererrf("give --rate with the rate to begin at, and --slo", "--find-goodput has nothing to search for")
	case f.duration > 0 && len(f.rates) == 0:
		return nil, usererrf("give --requests", "--duration needs --rate")
	case f.repeats < 1:
		return nil, usererrf("give 1 or more", "--repeats %d is out of range", f.repeats)
	}
	base := load.Spec{Seed: f.seed, Requests: f.requests, Arrivals: f.arrivals, Burstiness: f.burstiness}
	if f.trace != "" {
		b, err := os.ReadFile(a.expand(f.trace))
		if err != nil {
			return nil, usererrf("give a file of JSON lines", "read trace: %v", err)
		}
		base.Mode, base.Arrivals = load.Open, load.Trace
		base.Warmup = max(0, f.warmup)
		if base.Trace, err = load.ParseTrace(b, f.unit); err != nil {
			return nil, err
		}
		_, err = load.NewSchedule(base)
		return []load.Spec{base}, err
	}
	lengths, err := f.lengths(base)
	if err != nil {
		return nil, err
	}
	var out []load.Spec
	for _, s := range lengths {
		for _, r := range f.rates {
			s.Mode, s.Rate = load.Open, r
			out = append(out, f.sized(s, 10))
		}
		for _, c := range f.concurrency {
			s.Mode, s.Concurrency = load.Closed, c
			out = append(out, f.sized(s, c))
		}
	}
	for _, s := range out {
		if _, err := load.NewSchedule(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lengths are the sweep's specs by what their requests are.
func (f *loadFlags) lengths(base load.Spec) (out []load.Spec, err error) {
	if f.mix != "" {
		base.Mix, err = load.ParseMix(f.mix, f.spread)
		return []load.Spec{base}, err
	}
	for _, isl := range f.isl {
		for _, osl := range f.osl {
			base.ISL, base.OSL = load.Length{Mean: isl, Spread: f.spread}, load.Length{Mean: osl, Spread: f.spread}
			out = append(out, base)
		}
	}
	return out, nil
}

// sized sets how many requests a cell sends.
func (f *loadFlags) sized(s load.Spec, warmup int) load.Spec {
	switch {
	case s.Requests > 0:
	case f.duration > 0:
		s.Requests = max(1, int(math.Ceil(s.Rate*f.duration.Seconds())))
	default:
		s.Requests = 400
	}
	if s.Warmup = f.warmup; f.warmup < 0 {
		s.Warmup = warmup
	}
	return s
}

func (a *app) benchConfig(f *loadFlags) (bench.Config, error) {
	cfg := bench.Config{URLs: f.urls, Model: f.model, Key: endpoint.KeyFor("load", a.getenv), Chat: !f.completions, Continuous: f.continuous, EOS: f.eos,
		MaxOpen: f.maxOpen, Timeout: f.timeout, Drain: f.timeout, Seed: f.seed, Now: a.now}
	var err error
	if cfg.SLO, err = parseSLO(f.slo); err != nil {
		return cfg, err
	}
	if (len(f.short) > 0) != (len(f.long) > 0) {
		return cfg, usererrf("give both --short and --long", "a dual pool has two pools")
	}
	if len(f.short) > 0 {
		if len(f.urls) > 0 {
			return cfg, usererrf("compare both with `repromill load pools`", "--url and --short, --long are two ways of routing")
		}
		split := &load.Split{Threshold: f.threshold, Percentile: f.percentile}
		for i := range f.short {
			split.ShortPool = append(split.ShortPool, i)
		}
		for i := range f.long {
			split.LongPool = append(split.LongPool, len(f.short)+i)
		}
		cfg.URLs, cfg.Router = slices.Concat(f.short, f.long), split
	}
	if f.server != "" && len(cfg.URLs) > 0 {
		return cfg, usererrf("give --url for a server that runs, --server for one that is to be started", "--server and --url, --short, --long exclude each other")
	}
	if f.server != "" {
		return cfg, server.CheckTemplate(f.server)
	}
	if len(cfg.URLs) == 0 {
		if v := a.getenv("OPENAI_BASE_URL"); v != "" {
			cfg.URLs = []string{v}
		} else {
			return cfg, usererrf("give --url http://HOST:PORT/v1 or set OPENAI_BASE_URL; `repromill load server` starts a simulated one", "no endpoint was given")
		}
	}
	return cfg, nil
}

// parseSLO reads ttft=500ms,tpot=50ms,e2e=10s.
func parseSLO(s string) (measure.SLO, error) {
	var out measure.SLO
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		d, err := time.ParseDuration(strings.TrimSpace(value))
		if n, numErr := strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil && numErr == nil {
			d, err = time.Duration(n*float64(time.Millisecond)), nil // a bare number is milliseconds, as elsewhere
		}
		if err != nil || d <= 0 {
			return out, usererrf("write --slo ttft=500ms,tpot=50ms,e2e=10s", "--slo %q has no duration", part)
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "ttft":
			out.TTFT = d.Seconds()
		case "tpot":
			out.TPOT = d.Seconds()
		case "e2e", "e2el":
			out.E2E = d.Seconds()
		default:
			return out, usererrf("write --slo ttft=500ms,tpot=50ms,e2e=10s", "--slo names %q", name)
		}
	}
	return out, nil
}

// nullServer starts the self-check's server.
func nullServer(ctx context.Context, itl time.Duration) (url string, stop func(), err error) {
	return childServer(ctx, simserver.Config{Null: true, ITL: itl})
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/calibrate"
	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/target"
)

// estimateFlags say what is to be estimated.
type estimateFlags struct {
	skus        []string
	gpus        int
	precision   string
	engine      string
	isl, osl    int
	concurrency int
	rate        float64
	requests    int
	terms       string
	calibration string
	layouts     int
}

func (a *app) estimateCmd() *cobra.Command {
	var f estimateFlags
	var file string
	cmd := &cobra.Command{
		Use:   "estimate MODEL | TARGET | -f PLAN",
		Short: "GPUs, hours and money before anything is spent, with intervals",
		Long: `Say for every GPU of the catalogue whether a model fits, on how many, how fast it
answers, and what a number of requests takes in GPU-hours and money.

MODEL is a model of the Hugging Face Hub, a folder with its config.json, or a
config.json (paths start with ./, ../, / or ~/). Intervals run from the 10 % to
the 90 % quantile; they come from errors on GPUs and models that the fit had not
seen. GPU-hours are reserved ones: they hold the start of the server.

A paper, a repository or a plan document is estimated as a whole: its runs and
suites with image pulls, starts, early stopping and retries, on-demand and owned
prices apart. What cannot be known is null, with the reason. Queueing is left
out.`,
		Example: `  repromill estimate nvidia/Qwen3.6-27B-NVFP4 --mirror examples/mirror
  repromill estimate ./config.json --sku b200,h200 --isl 8192 --osl 1024 --concurrency 64
  repromill estimate Qwen/Qwen3-32B --precision fp8 --requests 12000 --json
  repromill estimate 2604.08075 --sku a100,h100
  repromill estimate -f plan.json --json
  repromill estimate backtest measured.csv --configs configs/ --leave-out sku`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case file != "" && len(args) == 0:
				return a.estimateFile(cmd.Context(), &f, file)
			case len(args) == 1 && file == "":
				return a.estimateOne(cmd.Context(), &f, args[0])
			}
			return usererrf("see `repromill estimate --help`", "estimate takes one of a model, a target and -f PLAN")
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&file, "file", "f", "", "estimate the plan document in `PLAN`; - is standard input")
	fl.StringSliceVar(&f.skus, "sku", nil, "only these `GPUs`, by id or as drivers name them")
	fl.IntVar(&f.gpus, "gpus", 0, "this many GPUs instead of as few as hold the model")
	fl.StringVar(&f.precision, "precision", "", "serve in this `FORMAT` instead of the checkpoint's: bf16, fp8, nvfp4, nvfp4/nvfp4/fp8, …")
	fl.StringVar(&f.engine, "engine", "vllm", "serving `ENGINE`, with a version where it matters: vllm-0.19.0, sglang, trtllm")
	fl.IntVar(&f.isl, "isl", 1024, "`TOKENS` of a prompt")
	fl.IntVar(&f.osl, "osl", 1024, "`TOKENS` of an answer")
	fl.IntVar(&f.concurrency, "concurrency", 64, "requests in flight; 0 sends all at once")
	fl.Float64Var(&f.rate, "rate", 0, "requests per second instead of a closed loop")
	fl.IntVar(&f.requests, "requests", 1000, "`NUMBER` of requests of the job")
	fl.StringVar(&f.terms, "terms", string(sku.OnDemand), "how GPUs are paid for: on_demand or owned")
	fl.StringVar(&f.calibration, "calibration", "", "use the calibration in `FILE` instead of the one that comes with the program")
	fl.IntVar(&f.layouts, "layouts", 0, "show every layout of at most `N` GPUs: TP, PP, experts, servers")
	cmd.AddCommand(a.estimateTrainingCmd(), a.estimateSKUsCmd(), a.estimateRowsCmd(), a.estimateBacktestCmd(), a.estimateCalibrateCmd())
	return cmd
}

// estimated is what `estimate --json` prints.
type estimated struct {
	Model       string            `json:"model"`
	Precision   string            `json:"precision"`
	Parameters  float64           `json:"parameters"`
	Engine      string            `json:"engine"`
	Load        serving.Workload  `json:"load"`
	Requests    int               `json:"requests"`
	Offers      []calibrate.Offer `json:"offers"`
	Hosted      *hostedCost       `json:"hosted,omitempty"`
	Warnings    []string          `json:"warnings,omitempty"`
	Calibration calibrationInfo   `json:"calibration"`
}

// hostedCost is what a host that bills by token asks for the same requests.
type hostedCost struct {
	Price sku.TokenPrice `json:"price"`
	USD   float64        `json:"usd"`
}

type calibrationInfo struct {
	Rows    int      `json:"rows"`
	Sources []string `json:"sources"`
}

func (f *estimateFlags) check() (serving.Workload, error) {
	w := serving.Workload{ISL: f.isl, OSL: f.osl, Concurrency: f.concurrency, Rate: f.rate}
	const most = 100_000_000
	for name, v := range map[string]int{"--isl": f.isl, "--osl": f.osl, "--requests": f.requests} {
		if v < 1 || v > most {
			return w, usererrf("give a number from 1 to 100000000", "%s is %d", name, v)
		}
	}
	switch {
	case f.concurrency < 0 || f.concurrency > most:
		return w, usererrf("give the requests in flight, or 0 to send all at once", "--concurrency is %d", f.concurrency)
	case !(f.rate >= 0 && f.rate <= most):
		return w, usererrf("give requests per second", "--rate is %v", f.rate)
	case f.layouts < 0 || f.layouts > 1024:
		return w, usererrf("give the most GPUs of a layout, up to 1024", "--layouts is %d", f.layouts)
	case f.gpus < 0 || f.gpus > 4096:
		return w, usererrf("give a number of GPUs, or 0 for as few as hold the model", "--gpus is %d", f.gpus)
	case f.terms != string(sku.OnDemand) && f.terms != string(sku.Owned):
		return w, usererrf("write on_demand or owned", "--terms is %q", f.terms)
	}
	if f.rate > 0 {
		w.Concurrency = 0
	}
	return w, nil
}

// estimateOne tells a model from what has to be planned first: papers, code.
func (a *app) estimateOne(ctx context.Context, f *estimateFlags, name string) error {
	if p := a.expand(name); filepath.IsAbs(p) {
		if info, err := os.Stat(filepath.Join(p, "config.json")); err != nil || info.IsDir() {
			if info, err := os.Stat(p); err == nil && info.IsDir() {
				return a.estimateTarget(ctx, f, name)
			}
		}
		return a.estimateModel(ctx, f, name)
	}
	t, err := target.Parse(name)
	if err != nil {
		return err
	}
	if t.Kind != target.HFModel {
		return a.estimateTarget(ctx, f, name)
	}
	return a.estimateModel(ctx, f, name)
}

func (a *app) estimateModel(ctx context.Context, f *estimateFlags, name string) error {
	load, err := f.check()
	if err != nil {
		return err
	}
	skus, err := findSKUs(f.skus)
	if err != nil {
		return err
	}
	cal, err := a.calibration(f.calibration)
	if err != nil {
		return err
	}
	m, err := a.readModel(ctx, name)
	if err != nil {
		return err
	}
	shape, err := shapeFor(m, f.precision)
	if err != nil {
		return err
	}
	prices, err := a.prices()
	if err != nil {
		return err
	}
	price := func(id string) (sku.Price, bool) { return prices(id, sku.Terms(f.terms)) }
	hosted, err := a.hostedPrices()
	if err != nil {
		return err
	}
	ask := calibrate.Ask{Shape: shape, Load: load, Requests: f.requests, Framework: f.engine, GPUs: f.gpus, Price: price, Now: a.now()}
	if f.layouts > 0 {
		return a.printLayouts(cal, ask, skus, f.layouts)
	}
	out := estimated{
		Model: m.ID, Precision: shape.Precision.String(), Parameters: shape.Total, Engine: f.engine, Load: load, Requests: f.requests,
		Offers: cal.Offers(ask, skus), Warnings: shape.Warnings, Calibration: calibrationInfo{cal.Rows, cal.Sources},
	}
	if p, ok := hosted(m.ID, shape.Total); ok {
		out.Hosted = &hostedCost{p, float64(f.requests) * (float64(f.isl)*p.In + float64(f.osl)*p.Out) / 1e6}
	}
	if a.jsonOut {
		return a.printJSON(out)
	}
	return a.printOffers(&out)
}

// shapeFor is the model in the format asked for, with the format to compare.
func shapeFor(m *model.Model, precision string) (*serving.Shape, error) {
	var p serving.Precision
	var err error
	if precision != "" {
		if p, err = serving.ParsePrecision(precision); err != nil {
			return nil, err
		}
	}
	s, err := serving.NewShape(m, p)
	if err != nil {
		return nil, err
	}
	other := map[model.Format]string{model.FormatFP8: "nvfp4", model.FormatNVFP4: "fp8"}[s.Weights]
	if other != "" {
		if p, err = serving.ParsePrecision(other); err != nil {
			return nil, err
		}
		p.KV = s.KV
		if s.Alternative, err = serving.NewShape(m, p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readModel reads the configuration of a model of the hub or of a folder.
func (a *app) readModel(ctx context.Context, name string) (*model.Model, error) {
	name = a.expand(name)
	if filepath.IsAbs(name) {
		return readLocalModel(name)
	}
	t, err := target.Parse(name)
	if err != nil {
		return nil, err
	}
	if t.Kind != target.HFModel {
		return nil, usererrf("name a model such as Qwen/Qwen3-32B, or ./config.json", "%q is no model but %s", name, t.Kind)
	}
	pl, err := a.pipeline()
	if err != nil {
		return nil, err
	}
	got, err := pl.Intake.Model(ctx, t.ID, t.Revision)
	if err != nil {
		return nil, err
	}
	if len(got.Config) == 0 {
		return nil, usererrf("download config.json and name it: repromill estimate ./config.json", "%s has no config.json that can be read (access: %s)", t.ID, got.Access)
	}
	return model.Parse(model.Input{ID: t.ID, Config: got.Config, HFQuant: got.Quant})
}

func readLocalModel(path string) (*model.Model, error) {
	const fix = "name a config.json, or a folder that holds one"
	info, err := os.Stat(path)
	if err != nil {
		return nil, usererrf(fix, "cannot read %s: %v", path, errors.Unwrap(err))
	}
	file := path
	if info.IsDir() {
		file = filepath.Join(path, "config.json")
	}
	config, err := readBounded(file)
	if err != nil {
		return nil, usererrf(fix, "cannot read %s: %v", file, err)
	}
	quant, err := readBounded(filepath.Join(filepath.Dir(file), "hf_quant_config.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, usererrf(fix, "cannot read hf_quant_config.json: %v", err)
	}
	id := filepath.Base(path)
	if id == "config.json" {
		id = filepath.Base(filepath.Dir(path))
	}
	return model.Parse(model.Input{ID: strings.TrimSuffix(id, ".json"), Config: config, HFQuant: quant})
}

// readBounded reads a small regular file.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > model.MaxConfig {
		return nil, errors.New("it is no file of at most 16 MiB")
	}
	return os.ReadFile(path)
}

func findSKUs(names []string) ([]*sku.SKU, error) {
	if len(names) == 0 {
		return sku.Catalogue(), nil
	}
	var out []*sku.SKU
	for _, n := range names {
		s, err := sku.Find(n)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (a *app) calibration(path string) (*calibrate.Calibration, error) {
	if path == "" {
		path = a.expand(a.cfg.String("calibration"))
	}
	if path == "" {
		return calibrate.Shipped()
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, usererrf("name a file written by `repromill estimate calibrate`", "cannot read calibration: %v", err)
	}
	defer f.Close()
	return calibrate.Read(f)
}

func (a *app) printOffers(e *estimated) error {
	load := fmt.Sprintf("%d in flight", e.Load.Concurrency)
	switch {
	case e.Load.Rate > 0:
		load = fmt.Sprintf("%g a second", e.Load.Rate)
	case e.Load.Offline():
		load = "all at once"
	}
	_, color := a.style(a.stdout)
	p := painter(color)
	fmt.Fprintf(a.stdout, "%s  %.3g B parameters, %s (weights/activations/cache), %s\n", p.bold(clean(e.Model)), e.Parameters/1e9, e.Precision, clean(e.Engine))
	fmt.Fprintf(a.stdout, "%d requests of %d tokens in, %d out, %s. Ranges are 10 %% to 90 %%.\n\n", e.Requests, e.Load.ISL, e.Load.OSL, load)
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "GPU\tGPUS\tMATH\tTOKENS/S\tPER GPU\tTTFT\tTPOT\tGPU-HOURS\tUSD\tCONFIDENCE\t")
	for _, o := range e.Offers {
		if !o.Fit.Fits {
			fmt.Fprintf(w, "%s\t-\t%s\tdoes not fit\t\t\t\t\t\t\t\n", o.SKU, firstOf(o.Fit.Math, "-"))
			continue
		}
		var marks []string
		if o.Cheapest {
			marks = append(marks, "cheapest")
		}
		if o.Fastest {
			marks = append(marks, "fastest")
		}
		usd := "-"
		if o.USD != nil {
			usd = between(*o.USD)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.SKU, o.Fit.Layout.GPUs, o.Fit.Math, between(*o.Throughput), sig(o.PerGPU.P50),
			seconds(o.TTFT), seconds(o.TPOT), between(*o.GPUHours), usd, o.Confidence, strings.Join(marks, ", "))
	}
	w.Flush()
	a.explainOffers(e)
	return nil
}

// explainOffers says what the numbers rest on.
func (a *app) explainOffers(e *estimated) {
	say := func(format string, args ...any) { fmt.Fprintf(a.stdout, format+"\n", args...) }
	say("")
	var unpriced []string
	for _, o := range e.Offers {
		if !o.Fit.Fits {
			say("%s: %s", o.SKU, o.Fit.Why)
			continue
		}
		say("%s: %s; most time goes to %s; %.1f GB of weights a GPU, room for %d sequences", o.SKU, o.SupportedBy, o.Dominant, o.Fit.Weights/1e9, o.Fit.Batch)
		if r := o.NVFP4OverFP8; r != nil {
			say("  NVFP4 over FP8 at equal configuration: %.2f (%.2f to %.2f)", r.P50, r.P10, r.P90)
		}
		if o.Price != nil {
			say("  %s USD an hour, %s%s: %s", priceText(o.Price), o.Price.Terms, since(o.Price.AsOf), o.Price.Source)
		}
		if o.Price == nil {
			unpriced = append(unpriced, o.SKU)
		}
		for _, s := range o.Assumptions {
			say("  %s", clean(s))
		}
	}
	if len(unpriced) > 0 {
		say("\nNo price is known for %s; set `prices: {%s: 3.50}` in config.yaml.", strings.Join(unpriced, ", "), unpriced[0])
	}
	if h := e.Hosted; h != nil {
		say("\nBilled by token the same requests cost %s USD: %s, %g USD a million tokens in and %g out%s (%s).", sig(h.USD), clean(firstOf(h.Price.Host, "host")), h.Price.In, h.Price.Out,
			since(h.Price.AsOf), h.Price.Kind)
	}
	say("\nFitted to %d measured rows of %s.", e.Calibration.Rows, clean(strings.Join(e.Calibration.Sources, ", ")))
}

func since(asOf string) string {
	if asOf == "" {
		return ""
	}
	return " as of " + asOf
}

func priceText(p *sku.Price) string {
	if p.Low == p.High {
		return fmt.Sprintf("%.2f", p.Mid)
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", p.Mid, p.Low, p.High)
}

// between is an interval in three digits.
func between(i estimators.Interval) string {
	return sig(i.P50) + " (" + sig(i.P10) + "–" + sig(i.P90) + ")"
}

// sig is a number in two to three digits, without an exponent.
func sig(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v/100, 'f', 0, 64) + "00"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func seconds(s float64) string {
	if s < 1 {
		return sig(s*1e3) + " ms"
	}
	return sig(s) + " s"
}

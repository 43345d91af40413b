package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/estimators/training"
)

// trainingFlags describe a job. Sizes take k, M, B and T.
type trainingFlags struct {
	network, params, active, trainable, tokens, items, flop string
	job                                                     training.Job
	method, class                                           string
	gpus                                                    int
	skus                                                    []string
	checks                                                  bool
}

func (a *app) estimateTrainingCmd() *cobra.Command {
	var f trainingFlags
	cmd := &cobra.Command{
		Use:   "training [NETWORK]",
		Short: "GPU-hours, memory and money of training and fine-tuning, from operations",
		Long: `Count the operations of a training, a fine-tuning or an evaluation, and divide
them by what code of the kind reaches of each GPU. NETWORK is a name whose size is
published, such as gpt2, resnet50 or vit_base_patch16, or one that states its size,
such as llama-7b. Memory counts weights, gradients, optimizer and activations of
one GPU.

--checks holds the counts against costs that authors state.`,
		Example: `  repromill estimate training gpt2 --tokens 295B --gpus 8 --sku a100-40gb,h100
  repromill estimate training llama-7b --method lora-4bit --tokens 15M --recompute full
  repromill estimate training resnet50 --items 115M --precision fp16
  repromill estimate training --checks`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if f.checks {
				return a.printAnchors()
			}
			if len(args) == 1 {
				f.network = args[0]
			}
			return a.estimateTraining(&f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.params, "params", "", "parameters, such as 124M or 7B")
	fl.StringVar(&f.active, "active", "", "parameters that a token multiplies with, for mixtures of experts")
	fl.StringVar(&f.trainable, "trainable", "", "parameters of the adapters")
	fl.StringVar(&f.tokens, "tokens", "", "tokens of all epochs")
	fl.StringVar(&f.items, "items", "", "images or other items of all epochs")
	fl.StringVar(&f.flop, "item-flop", "", "operations of one item, forward")
	fl.IntVar(&f.job.Layers, "layers", 0, "layers, for attention and activations")
	fl.IntVar(&f.job.Hidden, "hidden", 0, "width")
	fl.IntVar(&f.job.Heads, "heads", 0, "attention heads, where scores are stored")
	fl.IntVar(&f.job.Context, "context", 0, "tokens of a sequence")
	fl.IntVar(&f.job.Vocab, "vocab", 0, "vocabulary")
	fl.IntVar(&f.job.MicroBatch, "micro-batch", 1, "sequences that a GPU works on at once")
	fl.IntVar(&f.job.ZeRO, "zero", 0, "ZeRO stage, 0 to 3")
	fl.StringVar(&f.method, "method", "full", "full, lora, lora-4bit or forward")
	fl.StringVar(&f.class, "class", "", "pretraining, finetuning, vision, diffusion or small; empty is unknown code")
	fl.StringVar(&f.job.Precision, "precision", "bf16", "bf16, fp16, fp8, tf32 or fp32")
	fl.StringVar(&f.job.Optimizer, "optimizer", "adamw", "adamw, adam8bit, paged, sgd, lion, adafactor or none")
	fl.StringVar(&f.job.Recompute, "recompute", "none", "activations computed again: none, selective or full")
	fl.IntVar(&f.gpus, "gpus", 0, "this many GPUs instead of as few as hold the job")
	fl.StringSliceVar(&f.skus, "sku", nil, "only these GPUs")
	fl.BoolVar(&f.checks, "checks", false, "hold the counts against costs that authors state")
	return cmd
}

// quantity reads "124M", "7b", "1.5e9".
func quantity(flag, s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	unit := 1.0
	digits := s
	if u := strings.IndexByte("kmbt", s[len(s)-1]|0x20); u >= 0 {
		unit, digits = []float64{1e3, 1e6, 1e9, 1e12}[u], s[:len(s)-1]
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(v > 0) || v*unit > 1e24 {
		return 0, usererrf("write a number such as 124M, 7B or 1.5e9", "--%s is %q", flag, s)
	}
	return v * unit, nil
}

func (f *trainingFlags) fill() error {
	j := &f.job
	for _, x := range []struct {
		flag, text string
		to         *float64
	}{{"params", f.params, &j.Params}, {"active", f.active, &j.Active}, {"trainable", f.trainable, &j.Trainable}, {"tokens", f.tokens, &j.Tokens}, {"items", f.items, &j.Items},
		{"item-flop", f.flop, &j.ItemFLOPs}} {
		v, err := quantity(x.flag, x.text)
		if err != nil {
			return err
		}
		*x.to = v
	}
	for _, x := range []struct{ flag, value, allowed string }{
		{"method", f.method, "full lora lora-4bit forward"}, {"class", f.class, " pretraining finetuning vision diffusion small"}, {"precision", j.Precision, "bf16 fp16 fp8 tf32 fp32"},
		{"optimizer", j.Optimizer, "adamw adam8bit paged sgd lion adafactor none"}, {"recompute", j.Recompute, "none selective full"},
	} {
		ok := false
		for _, w := range strings.Split(x.allowed, " ") {
			ok = ok || w == x.value
		}
		if !ok {
			return usererrf("write one of "+strings.TrimSpace(x.allowed), "--%s is %q", x.flag, x.value)
		}
	}
	for flag, v := range map[string]int{"layers": j.Layers, "hidden": j.Hidden, "heads": j.Heads, "context": j.Context, "vocab": j.Vocab, "micro-batch": j.MicroBatch, "gpus": f.gpus, "zero": j.ZeRO} {
		if v < 0 || v > 100_000_000 || (flag == "zero" && v > 3) {
			return usererrf("give a number that can be meant", "--%s is %d", flag, v)
		}
	}
	j.Method, j.Class = training.Method(f.method), training.Class(f.class)
	if f.network == "" {
		return nil
	}
	n, ok := training.Find(f.network)
	if !ok {
		return usererrf("give --params, and --layers, --hidden and --context for attention", "no size is published under the name %q", f.network)
	}
	if j.Params == 0 {
		j.Params = n.Params
	}
	if j.ItemFLOPs == 0 && j.Tokens == 0 {
		j.ItemFLOPs = n.ItemFLOPs
	}
	if j.Layers == 0 && j.Hidden == 0 {
		j.Layers, j.Hidden = n.Layers, n.Hidden
		if j.Context == 0 {
			j.Context = n.Context
		}
	}
	if j.Class == "" {
		j.Class = n.Class
	}
	return nil
}

// trained is one line of `estimate training --json`.
type trained struct {
	*training.Cost
	USD      *estimators.Interval `json:"usd,omitempty"`       // on demand
	OwnedUSD *estimators.Interval `json:"owned_usd,omitempty"` // the cost of ownership
}

func (a *app) estimateTraining(f *trainingFlags) error {
	if err := f.fill(); err != nil {
		return err
	}
	skus, err := findSKUs(f.skus)
	if err != nil {
		return err
	}
	price, err := a.prices()
	if err != nil {
		return err
	}
	list := make([]trained, 0, len(skus))
	for _, g := range skus {
		c, err := f.job.Estimate(g, f.gpus)
		var missing *training.MissingError
		if errors.As(err, &missing) {
			return usererrf("give --tokens with --params or a network, or --items with --item-flop", "not known: %s", missing.What)
		}
		if err != nil {
			return err
		}
		t := trained{Cost: c}
		for terms, at := range map[sku.Terms]**estimators.Interval{sku.OnDemand: &t.USD, sku.Owned: &t.OwnedUSD} {
			if p, ok := price(g.ID, terms); ok {
				*at = &estimators.Interval{P10: c.GPUHours.P10 * p.Low, P50: c.GPUHours.P50 * p.Mid, P90: c.GPUHours.P90 * p.High}
			}
		}
		list = append(list, t)
	}
	if a.jsonOut {
		return a.printJSON(list)
	}
	first := list[0]
	fmt.Fprintf(a.stdout, "%.3g operations, %.3g with recomputation. Ranges are 10 %% to 90 %%.\n\n", first.Operations.Model, first.Operations.Computed)
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "GPU\tGPUS\tGB A GPU\tUTILISATION\tGPU-HOURS\tWALL\tUSD ON DEMAND\tUSD OWNED")
	usd := func(i *estimators.Interval) string {
		if i == nil {
			return "-"
		}
		return between(*i)
	}
	for _, t := range list {
		if !t.Memory.Fits {
			fmt.Fprintf(w, "%s\t%d\t%.0f\tdoes not fit\t\t\t\t\n", t.SKU, t.GPUs, t.Memory.Total/1e9)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%.0f–%.0f %% of %s\t%s\t%s\t%s\t%s\n", t.SKU, t.GPUs, t.Memory.Total/1e9, 100*t.Utilisation.P10, 100*t.Utilisation.P90, t.Format,
			between(t.GPUHours), duration(t.Wall.P50), usd(t.USD), usd(t.OwnedUSD))
	}
	w.Flush()
	for _, s := range append(first.Assumptions, first.Sources...) {
		fmt.Fprintln(a.stdout, clean(s))
	}
	return nil
}

func (a *app) printAnchors() error {
	checks, err := training.Checks()
	if err != nil {
		return err
	}
	if a.jsonOut {
		return a.printJSON(checks)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tGPUS\tSTATED GPU-HOURS\tESTIMATE\tIMPLIED UTILISATION\tINSIDE\tSTATED BY")
	inside := 0
	for _, c := range checks {
		if c.Inside {
			inside++
		}
		fmt.Fprintf(w, "%s\t%d × %s\t%s\t%s (%s–%s)\t%.1f %%\t%v\t%s\n", c.Anchor, c.GPUs, c.SKU, sig(c.Stated), sig(c.P50), sig(c.P10), sig(c.P90), 100*c.Reach, c.Inside, c.Source)
	}
	w.Flush()
	fmt.Fprintf(a.stdout, "\n%d of %d inside the interval of 80 %%\n", inside, len(checks))
	return nil
}

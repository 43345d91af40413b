package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/repromill/repromill/planner"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
)

// planFlags say what to plan from.
type planFlags struct {
	wishFlags
	quantizeFlags
	repo   string
	commit string
	from   string
}

func (f *planFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.repo, "repo", "", "use the code at `URL or DIR` instead of the links that are found")
	fl.StringVar(&f.commit, "commit", "", "use this commit, branch or tag of the code")
	f.wishFlags.add(fl)
	f.quantizeFlags.add(fl)
	fl.StringVar(&f.from, "from", "", "read targets from `FILE`, one a line; - is standard input")
}

func (a *app) planCmd() *cobra.Command {
	var f planFlags
	var out, file, explain string
	var workers int
	var schema bool
	cmd := &cobra.Command{
		Use:   "plan TARGET | -f PLAN | --from FILE",
		Short: "Show facts, claims and the smallest run that can check them; nothing is executed",
		Long: `Read the paper, find its code, read the code without executing anything, and
propose the smallest run that can check the claims, each choice with the place it
was read from. The plan is a JSON document that can be edited and run.

What the plan could not know it names with the option that supplies it: --data,
--checkpoint and --set. With -f the options are applied to a plan that is there.`,
		Example: `  repromill plan 2604.08075
  repromill plan https://github.com/owner/repo/tree/main/sub -o plan.json
  repromill plan 1709.00103 --repo ./checkout --json
  repromill plan 2604.08075 --preflight --sku b200 --seeds 3
  repromill plan ./checkout --data imagenet=/data/imagenet --checkpoint r50.pth=./r50.pth
  repromill plan 2604.08075 --explain environment.python
  repromill plan -f plan.json --set N=4 -o bound.json
  repromill plan diff plan.json bound.json
  repromill plan nvidia/Qwen3.6-27B-NVFP4 --baseline Qwen/Qwen3.6-27B-FP8 --margin 1pt
  repromill plan ./tiny-nvfp4 --baseline ./tiny --suites synthetic-choice
  repromill plan ./tiny --quantize fp8,nvfp4,nvfp4-w4a4 --suites synthetic-choice,throughput
  repromill plan --from papers.txt --json > plans.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case schema:
				_, err := a.stdout.Write(spec.SchemaJSON)
				return err
			case f.from != "" && len(args) == 0 && file == "" && explain == "":
				return a.planBatch(cmd.Context(), &f, workers)
			case len(args) == 1 && f.from == "" && file == "":
				return a.planOne(cmd.Context(), &f, args[0], "", out, explain)
			case len(args) == 0 && f.from == "" && file != "":
				return a.planOne(cmd.Context(), &f, "", file, out, explain)
			default:
				return usererrf("see `repromill plan --help`", "plan takes one of TARGET, -f PLAN and --from FILE; --explain goes with the first two")
			}
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVar(&f.preflight, "preflight", false, "look whether every URL, checkpoint and gated id that the chosen runs need is alive and open to the present token")
	cmd.Flags().StringVarP(&file, "file", "f", "", "work on the plan in `PLAN` (- is standard input) instead of planning")
	cmd.Flags().StringVar(&explain, "explain", "", "print where `FIELD` of the plan comes from, such as environment.python")
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the plan document to `FILE`")
	cmd.Flags().IntVar(&workers, "concurrency", 2, "with --from: targets worked on at once")
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the plan document")
	cmd.AddCommand(a.planDiffCmd())
	return cmd
}

func (f *planFlags) request(a *app, target string, w runner.Wishes) runner.PlanRequest {
	return runner.PlanRequest{Target: a.expand(target), Repo: a.expand(f.repo), Commit: f.commit, Wishes: w}
}

// makePlan plans a target, or reads the plan in a file, with what the options
// ask of it.
func (a *app) makePlan(ctx context.Context, f *planFlags, target, file string) (*spec.Plan, error) {
	var p *spec.Plan
	target, err := a.quantized(ctx, f, target)
	if err != nil {
		return nil, err
	}
	if file != "" {
		if p, err = a.readPlan(file); err != nil {
			return nil, err
		}
	}
	w, err := f.wishes(ctx, a)
	if err != nil {
		return nil, err
	}
	pl, err := a.pipeline()
	if err != nil {
		return nil, err
	}
	if f.sku != "" {
		if pl.Costs.SKUs, err = findSKUs([]string{f.sku}); err != nil {
			return nil, err
		}
	}
	ui := a.ui()
	defer ui.abandon()
	if p != nil {
		return p, pl.Apply(ctx, p, w, ui.emit)
	}
	return pl.Plan(ctx, f.request(a, target, w), ui.emit)
}

func (a *app) planOne(ctx context.Context, f *planFlags, target, file, out, explain string) error {
	const fix = "give -o a file in a folder that can be written"
	if info, err := os.Stat(filepath.Dir(out)); err != nil || !info.IsDir() {
		return usererrf(fix, "cannot write the plan to %q: %s is no folder", out, filepath.Dir(out))
	}
	p, err := a.makePlan(ctx, f, target, file)
	if err != nil {
		return err
	}
	if out != "" {
		var b bytes.Buffer
		if err := p.Encode(&b); err != nil {
			return err
		}
		if err := atomicfile.Write(out, b.Bytes(), atomicfile.Options{}); err != nil {
			return usererrf(fix, "cannot write the plan: %v", err)
		}
	}
	if explain != "" {
		e, err := planner.Explain(p, explain)
		if err != nil {
			return err
		}
		return a.explainPlan(e)
	}
	return a.showPlan(a.stdout, p)
}

func (a *app) showPlan(w io.Writer, p *spec.Plan) error {
	if a.jsonOut {
		return p.Encode(w)
	}
	width, color := a.style(w)
	planView{w, width, painter(color)}.print(p)
	return nil
}

// plannedItem is one line of `plan --from FILE --json`.
type plannedItem struct {
	batchItem
	Plan *spec.Plan `json:"plan,omitempty"`
}

func (a *app) planBatch(ctx context.Context, f *planFlags, workers int) error {
	if err := f.quantizeFlags.check(false); err != nil {
		return err
	}
	pl, err := a.pipeline()
	if err != nil {
		return err
	}
	items, err := a.readTargets(f.from)
	if err != nil {
		return err
	}
	w, err := f.wishes(ctx, a)
	if err != nil {
		return err
	}
	plans := make([]*spec.Plan, len(items))
	index := map[*batchItem]int{}
	for i := range items {
		index[&items[i]] = i
	}
	batch(ctx, items, workers, func(ctx context.Context, it *batchItem) {
		p, err := pl.Plan(ctx, f.request(a, it.Target, w), func(string, runner.EventKind, any) {})
		if err != nil {
			it.fail(a.explain(err))
			return
		}
		it.Status, it.Detail = "planned", "nothing can be run"
		for _, r := range p.Runs {
			if r.Selected {
				it.Detail = r.Command
			}
		}
		plans[index[it]] = p
	})
	if a.jsonOut {
		list := make([]plannedItem, len(items))
		for i := range items {
			list[i] = plannedItem{items[i], plans[i]}
		}
		if err := a.printJSON(list); err != nil {
			return err
		}
	} else {
		batchTable(a.stdout, items)
	}
	return batchExit(ctx, items)
}

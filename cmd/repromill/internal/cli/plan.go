package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
)

// planFlags say what to plan from.
type planFlags struct {
	repo   string
	commit string
	from   string
	skus   []string
}

func (f *planFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.repo, "repo", "", "use the code at `URL or DIR` instead of the links that are found")
	fl.StringVar(&f.commit, "commit", "", "use this commit, branch or tag of the code")
	fl.StringVar(&f.from, "from", "", "read targets from `FILE`, one a line; - is standard input")
}

func (a *app) planCmd() *cobra.Command {
	var f planFlags
	var out string
	var workers int
	var schema bool
	cmd := &cobra.Command{
		Use:   "plan TARGET | --from FILE",
		Short: "Show facts, claims and the smallest run that can check them; nothing is executed",
		Long: `Read the paper, find its code, read the code without executing anything, and
propose the smallest run that can check the claims, each choice with the place it
was read from. The plan is a JSON document that can be edited and run.`,
		Example: `  repromill plan 2604.08075
  repromill plan https://github.com/owner/repo/tree/main/sub -o plan.json
  repromill plan 1709.00103 --repo ./checkout --json
  repromill plan --from papers.txt --json > plans.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case schema:
				_, err := a.stdout.Write(spec.SchemaJSON)
				return err
			case f.from != "" && len(args) == 0:
				return a.planBatch(cmd.Context(), &f, workers)
			case len(args) == 1 && f.from == "":
				return a.planOne(cmd.Context(), &f, args[0], out)
			default:
				return usererrf("see `repromill plan --help`", "plan takes one of TARGET and --from FILE")
			}
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the plan document to `FILE`")
	cmd.Flags().StringSliceVar(&f.skus, "sku", nil, "estimate the cost on these `GPUs` instead of those rented most")
	cmd.Flags().IntVar(&workers, "concurrency", 2, "with --from: targets worked on at once")
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the plan document")
	return cmd
}

func (f *planFlags) request(a *app, target string) runner.PlanRequest {
	return runner.PlanRequest{Target: a.expand(target), Repo: a.expand(f.repo), Commit: f.commit}
}

func (a *app) planOne(ctx context.Context, f *planFlags, target, out string) error {
	const fix = "give -o a file in a folder that can be written"
	if info, err := os.Stat(filepath.Dir(out)); err != nil || !info.IsDir() {
		return usererrf(fix, "cannot write the plan to %q: %s is no folder", out, filepath.Dir(out))
	}
	pl, err := a.pipeline()
	if err != nil {
		return err
	}
	if pl.Costs.SKUs, err = chosenSKUs(f.skus); err != nil {
		return err
	}
	ui := a.ui()
	p, err := pl.Plan(ctx, f.request(a, target), ui.emit)
	ui.abandon()
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
	pl, err := a.pipeline()
	if err != nil {
		return err
	}
	items, err := a.readTargets(f.from)
	if err != nil {
		return err
	}
	plans := make([]*spec.Plan, len(items))
	index := map[*batchItem]int{}
	for i := range items {
		index[&items[i]] = i
	}
	batch(ctx, items, workers, func(ctx context.Context, it *batchItem) {
		p, err := pl.Plan(ctx, f.request(a, it.Target), func(string, runner.EventKind, any) {})
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

package cli

import (
	"context"
	"fmt"

	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
)

// plannedCost is what `estimate TARGET --json` and `estimate -f PLAN --json`
// print.
type plannedCost struct {
	Target    string          `json:"target"`
	PlanHash  string          `json:"plan_hash"`
	Estimates []spec.Estimate `json:"estimates"`
}

// estimateFile estimates a plan document.
func (a *app) estimateFile(ctx context.Context, f *estimateFlags, file string) error {
	p, err := a.readPlan(file)
	if err != nil {
		return err
	}
	pl, err := a.pipeline()
	if err != nil {
		return err
	}
	if pl.Costs.SKUs, err = chosenSKUs(f.skus); err != nil {
		return err
	}
	if pl.Costs.Calibration, err = a.calibration(f.calibration); err != nil {
		return err
	}
	if err := pl.Estimate(ctx, p); err != nil {
		return err
	}
	return a.printCosts(p)
}

// estimateTarget plans a target and shows what it takes.
func (a *app) estimateTarget(ctx context.Context, f *estimateFlags, target string) error {
	pl, err := a.pipeline()
	if err != nil {
		return err
	}
	if pl.Costs.SKUs, err = chosenSKUs(f.skus); err != nil {
		return err
	}
	if pl.Costs.Calibration, err = a.calibration(f.calibration); err != nil {
		return err
	}
	ui := a.ui()
	p, err := pl.Plan(ctx, runner.PlanRequest{Target: a.expand(target)}, ui.emit)
	ui.abandon()
	if err != nil {
		return err
	}
	return a.printCosts(p)
}

// chosenSKUs are those that are named; none leaves the choice to the estimate.
func chosenSKUs(names []string) ([]*sku.SKU, error) {
	if len(names) == 0 {
		return nil, nil
	}
	return findSKUs(names)
}

func (a *app) printCosts(p *spec.Plan) error {
	if a.jsonOut {
		return a.printJSON(plannedCost{p.Target.Input, p.Hash, p.Estimates})
	}
	p = printable(p)
	width, color := a.style(a.stdout)
	v := planView{a.stdout, width, painter(color)}
	v.head(p)
	for _, r := range p.Runs {
		if r.Selected {
			v.row("run", oneLine(r.Command)+where(r.Evidence))
			for i, w := range r.Work {
				v.row(label(i, "work"), fmt.Sprintf("%s = %s (%s)%s", w.Name, w.Value, w.Kind, where(w.Evidence)))
			}
		}
	}
	v.suites(p)
	v.costs(p.Estimates)
	return nil
}

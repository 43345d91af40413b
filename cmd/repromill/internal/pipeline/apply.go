package pipeline

import (
	"context"

	"github.com/repromill/repromill/planner"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
)

// Apply does to a plan what its user asks: binds, makes the environment for a
// GPU model, sets the seeds, and looks at what the chosen runs need.
func (p *Pipeline) Apply(ctx context.Context, plan *spec.Plan, w runner.Wishes, emit Emit) error {
	if err := planner.Bind(plan, w.Bind); err != nil {
		return err
	}
	if w.Compare != nil {
		if err := rechoose(plan, *w.Compare); err != nil {
			return err
		}
	}
	if w.SKU != "" {
		if err := planner.ForSKU(plan, w.SKU); err != nil {
			return err
		}
	}
	if w.Seeds > 0 {
		if err := planner.Seeds(plan, w.Seeds); err != nil {
			return err
		}
	}
	if w.Preflight {
		return p.preflight(ctx, plan, emit)
	}
	return nil
}

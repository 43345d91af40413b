package pipeline

import (
	"context"
	"fmt"
	"path"

	costs "github.com/repromill/repromill/estimators/job"
	"github.com/repromill/repromill/planner/intake"
	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
)

// Estimate attaches what a plan takes to it. The structure of every model that
// a suite serves is read first; one that cannot be read leaves its arms without
// an estimate, which the plan says, and is no error.
func (p *Pipeline) Estimate(ctx context.Context, plan *spec.Plan) error {
	c := p.Costs
	c.Models = map[string]*model.Model{}
	for id, m := range p.Costs.Models {
		c.Models[id] = m
	}
	for _, s := range plan.Suites {
		for _, a := range s.Arms {
			if _, tried := c.Models[a.Model]; tried {
				continue
			}
			m, err := p.Structure(ctx, a.Model, a.Revision)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				m = nil
			}
			c.Models[a.Model] = m
		}
	}
	list, err := costs.Estimate(plan, c)
	if err != nil {
		return fmt.Errorf("estimate the plan: %w", err)
	}
	plan.Estimates = list
	return nil
}

// Structure reads the configuration of a model of the hub or in a folder.
func (p *Pipeline) Structure(ctx context.Context, id, revision string) (*model.Model, error) {
	t, err := target.Parse(id)
	if err != nil {
		return nil, err
	}
	if t.Kind == target.Local && intake.IsCheckpoint(t.Path) {
		got, err := intake.Folder(ctx, t.Path)
		if err != nil {
			return nil, err
		}
		return model.Parse(model.Input{ID: path.Base(t.Path), Config: got.Config, HFQuant: got.Quant})
	}
	if t.Kind != target.HFModel || p.Intake == nil {
		return nil, fmt.Errorf("%s is no model of the hub", id)
	}
	if revision == "" {
		revision = t.Revision
	}
	got, err := p.Intake.Model(ctx, t.ID, revision)
	if err != nil {
		return nil, err
	}
	return model.Parse(model.Input{ID: t.ID, Config: got.Config, HFQuant: got.Quant})
}

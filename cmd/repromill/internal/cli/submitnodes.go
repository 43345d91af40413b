package cli

import (
	"path/filepath"
	"time"

	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/kueue"
)

// servings are, for each arm of a chosen suite that takes more GPUs than a server of its
// model has, what serves it over several nodes.
func (a *app) servings(e *kueue.Executor, p *spec.Plan) (out []any, err error) {
	for i := range p.Suites {
		s := &p.Suites[i]
		if !s.Selected {
			continue
		}
		for _, arm := range s.Arms {
			g, err := sku.Find(firstOf(arm.SKU, p.Environment.SKU))
			if err != nil || arm.GPUs <= serving.ServerGPUs(g) {
				continue
			}
			work := filepath.Join(a.cfg.String("cluster.volume"), "repromill", "runs", "RUN", "work")
			client := runner.Attempt{
				Key: runner.AttemptKey{RunID: "RUN", Stage: runner.StageSuite(s.ID), Arm: arm.Name}, Dir: work, Writable: []string{work}, Limits: runner.Limits{Wall: 24 * time.Hour},
			}
			if filepath.IsAbs(arm.Model) {
				client.ReadOnly = []string{arm.Model}
			}
			list, err := e.ServingManifests(kueue.Serving{Arm: arm, NodeGPUs: serving.ServerGPUs(g), Client: client})
			if err != nil {
				return nil, err
			}
			out = append(out, list...)
		}
	}
	return out, nil
}

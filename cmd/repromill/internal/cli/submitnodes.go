package cli

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/kueue"
)

// printServings prints, for each arm that takes more GPUs than a server of its
// model has, what serves it over several nodes.
func (a *app) printServings(e *kueue.Executor, p *spec.Plan) error {
	for i := range p.Suites {
		s := &p.Suites[i]
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
			y, err := e.ServingManifest(kueue.Serving{Arm: arm, NodeGPUs: serving.ServerGPUs(g), Client: client})
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "---\n%s", y)
		}
	}
	return nil
}

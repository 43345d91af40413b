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

// mostNodeGPUs is how many GPUs a server has at most, of any model in the catalogue.
const mostNodeGPUs = 8

// nodeGPUs is how many GPUs of a model a node of the cluster has: of the model that
// pods are kept to where none is named.
func (a *app) nodeGPUs(model string) int {
	g, err := sku.Find(firstOf(model, a.cfg.String("cluster.product")))
	if err != nil {
		return mostNodeGPUs
	}
	return serving.ServerGPUs(g)
}

// suiteOf is the suite that an attempt's shards are of, nil for another attempt.
func suiteOf(p *spec.Plan, at runner.Attempt) *spec.Suite {
	for i := range p.Suites {
		if at.Shards != nil && at.Key.Stage == runner.StageSuite(p.Suites[i].ID) {
			return &p.Suites[i]
		}
	}
	return nil
}

// overNodes says why no pod holds the servers of an attempt, "" where one does.
func (a *app) overNodes(p *spec.Plan, at runner.Attempt) string {
	s := suiteOf(p, at)
	if s == nil {
		return ""
	}
	return runner.OverNodes(*s, at.Shards.Servers, p.Environment.SKU, a.nodeGPUs)
}

// servings are, for each arm of an attempt that takes more GPUs than a node has, what
// serves it over several nodes.
func (a *app) servings(e *kueue.Executor, p *spec.Plan, at runner.Attempt) (out []any, err error) {
	s := suiteOf(p, at)
	for _, srv := range at.Shards.Servers {
		arm := runner.ArmOf(*s, srv)
		n := a.nodeGPUs(firstOf(arm.SKU, p.Environment.SKU))
		if srv.GPUs <= n {
			continue
		}
		client := runner.Attempt{
			Key: runner.AttemptKey{RunID: "RUN", Stage: at.Key.Stage, Arm: arm.Name}, Dir: at.Dir, Writable: at.Writable, Limits: runner.Limits{Wall: 24 * time.Hour},
		}
		if filepath.IsAbs(arm.Model) {
			client.ReadOnly = []string{arm.Model}
		}
		list, err := e.ServingManifests(kueue.Serving{Server: srv, TP: arm.TP, NodeGPUs: n, Client: client})
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

package runner

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/repromill/repromill/runner/store"
)

// Uses is what an unfinished run needs of what could otherwise be made again.
type Uses struct {
	RunID string
	// Preparing is set while a process drives the run and has not prepared it:
	// it may be reading anything.
	Preparing bool
	Repo      string // its code
	Commit    string
	Image     *Image // that its commands run in, once it is prepared
	// Models are what its suites serve.
	Models []string
}

// Uses lists what unfinished runs need.
func (r *Runner) Uses(ctx context.Context) ([]Uses, error) {
	var out []Uses
	f := store.Filter{States: []store.State{store.Created, store.Planning, store.Planned, store.Approved, store.Running, store.Interrupted, store.Failed}, Limit: 1000}
	for {
		runs, err := r.cfg.Store.List(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, run := range runs {
			u, err := r.uses(ctx, run)
			if err != nil {
				return nil, err
			}
			out = append(out, u)
		}
		if len(runs) < f.Limit {
			return out, nil
		}
		f.Before = &runs[len(runs)-1]
	}
}

func (r *Runner) uses(ctx context.Context, run store.Run) (Uses, error) {
	u := Uses{RunID: run.ID}
	_, driven, err := r.Driver(run.ID)
	if err != nil {
		return u, err
	}
	if p, err := r.Plan(ctx, run.ID); err == nil {
		u.Repo, u.Commit = p.Source.Repo, p.Source.Commit
		for _, s := range p.Suites {
			for _, a := range s.Arms {
				u.Models = append(u.Models, a.Model)
			}
		}
	}
	stages, err := r.cfg.Store.Stages(ctx, run.ID)
	if err != nil {
		return u, err
	}
	s, begun := stages[StagePrepare]
	u.Preparing = driven && (!begun || s.State == store.StageStarted)
	if begun && s.State != store.StageStarted {
		var prep Prepared
		if err := json.Unmarshal(s.Output, &prep); err != nil {
			return u, fmt.Errorf("decode what run %s prepared: %w", run.ID, err)
		}
		u.Image = prep.Image
	}
	return u, nil
}

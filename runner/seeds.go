package runner

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/seed"
	"github.com/repromill/repromill/suites/data"
)

// Seeds fills a cache from this machine.
type Seeds interface {
	Seed(ctx context.Context, dir string, wants []seed.Want, tell func(string)) error
}

// Seed is what an attempt brings to a cache; Dir is one of Attempt.Writable.
type Seed struct {
	Dir   string
	Wants []seed.Want
}

// shared is the folder with weights and data sets that pods see read-only.
func (d *drive) shared() string { return filepath.Join(d.cfg.Dir, "cache") }

// SeedWants are the weights of a suite's arms and the data sets that it reads.
func SeedWants(s spec.Suite, servers []Sidecar, files []data.File) (out []seed.Want) {
	for _, f := range files {
		i := slices.IndexFunc(out, func(w seed.Want) bool { return w.Repo == f.Repo && w.Commit == f.Commit })
		if i < 0 {
			i = len(out)
			out = append(out, seed.Want{Kind: seed.Dataset, Repo: f.Repo, Commit: f.Commit})
		}
		out[i].Files = append(out[i].Files, seed.File{Path: f.Path, SHA256: f.SHA256})
	}
	for i, a := range s.Arms {
		if a.Revision == "" || filepath.IsAbs(a.Model) || servers[i].Engine == "" {
			continue // a server of which nobody knows that it reads the hub
		}
		w := seed.Want{Kind: seed.Model, Repo: a.Model, Commit: a.Revision}
		if !slices.ContainsFunc(out, func(x seed.Want) bool { return x.Kind == w.Kind && x.Repo == w.Repo && x.Commit == w.Commit }) {
			out = append(out, w)
		}
	}
	return out
}

// SeedAttempt is how what is missing is brought to the cache in dir.
func SeedAttempt(key AttemptKey, dir string, missing []seed.Want) Attempt {
	return Attempt{Key: key, Dir: dir, Writable: []string{dir}, Network: Network{Hosts: []string{"the hub"}}, Seed: &Seed{Dir: dir, Wants: missing}}
}

// seed makes sure that pods need no network for a suite. Nothing is done where
// all of it is there, whoever brought it.
func (d *drive) seed(ctx context.Context, s spec.Suite, servers []Sidecar) error {
	var files []data.File
	if s.Kind == "accuracy" {
		var err error
		if files, err = d.cfg.Suites.Files(s); err != nil {
			return err
		}
	}
	missing, err := seed.Missing(d.shared(), SeedWants(s, servers, files))
	if err != nil || len(missing) == 0 {
		return err
	}
	tell := func(what string) {
		_ = d.cfg.Store.Append(ctx, d.run.ID, event(StageSuite(s.ID), Progress, map[string]any{"message": "seeding: " + what})) // what is lost is only seen later
	}
	if d.req.Mirror != "" && d.cfg.Seeds != nil {
		return d.cfg.Seeds.Seed(ctx, d.shared(), missing, tell)
	}
	if err := os.MkdirAll(d.shared(), 0o755); err != nil {
		return fmt.Errorf("make the cluster's cache: %w", err)
	}
	for n := 0; ; n++ {
		key := AttemptKey{RunID: d.run.ID, Stage: StageSuite(s.ID), Arm: "seed", N: n}
		if rec, known := d.attempts[key.String()]; known && rec.Final && d.inherited[key.String()] {
			continue // something is missing yet: it has failed, or somebody emptied the cache
		}
		tell(fmt.Sprintf("a pod brings %d repositories to the cluster's cache", len(missing)))
		a := SeedAttempt(key, d.shared(), missing)
		a.Limits.Wall = d.wallLimit(0, 0)
		st, err := d.attempt(ctx, a)
		switch {
		case err != nil:
			return err
		case st.Phase == Succeeded:
			return nil
		case st.Reason == ReasonLost && n+1 < d.cfg.MaxTries:
			continue
		}
		return &UserError{fmt.Sprintf("weights and data sets of suite %s are not in the cluster's cache: %s", s.ID, st.Message),
			"remove the cause and take the run up again, with: repromill run --resume " + d.run.ID + "; what is there stays"}
	}
}

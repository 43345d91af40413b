package runner

import (
	"context"
	"fmt"

	"github.com/repromill/repromill/planner/fetch/git"
)

// Cloned is the Source over a cloner: it names the exact commit of the plan,
// which is as a rule in the cloner's cache since the planning.
func Cloned(c *git.Cloner) Source { return cloned{c} }

type cloned struct{ c *git.Cloner }

// Checkout returns the folder of the commit in the cache.
func (s cloned) Checkout(ctx context.Context, repo, commit string, submodules bool) (string, error) {
	co, err := s.c.Checkout(ctx, git.Request{Repo: repo, Ref: commit, Submodules: submodules})
	if err != nil {
		return "", err
	}
	if commit != "" && co.Commit != commit {
		return "", fmt.Errorf("check out %s: got commit %s instead of %s", repo, co.Commit, commit)
	}
	return co.Dir, nil
}

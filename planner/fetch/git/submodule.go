package git

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// maxSubmodules bounds how many addresses one checkout can be made to visit.
const maxSubmodules = 64

// submodules adds the submodules of a tree to it, within the bounds of the
// whole checkout.
type submodules struct {
	job    *job
	stage  *stage
	wanted bool
	done   []Submodule
}

// add handles the gitlinks of one tree; parent is the repository that holds
// them and chain the repositories above, parent included. What cannot or may
// not be fetched is reported as skipped; only limits and failures to reach a
// server end the checkout.
func (s *submodules) add(ctx context.Context, parent string, chain []string, links []gitlink, all *treeResult) error {
	for _, l := range links {
		skip := func(why string) {
			all.Skipped = append(all.Skipped, Skipped{Path: l.Path, Why: why})
		}
		if !s.wanted {
			skip(fmt.Sprintf("submodule of %q at %s, not asked for", l.URL, l.Commit))
			continue
		}
		if len(chain) > s.job.budget.limits.SubmoduleDepth {
			skip(fmt.Sprintf("submodule of %q is nested deeper than %d", l.URL, s.job.budget.limits.SubmoduleDepth))
			continue
		}
		if s.job.visits++; s.job.visits > maxSubmodules {
			skip(fmt.Sprintf("submodule of %q: more than %d submodules", l.URL, maxSubmodules))
			continue
		}
		at, refused := submoduleURL(parent, l.URL)
		if refused != "" {
			skip(fmt.Sprintf("%s: %q", refused, l.URL))
			continue
		}
		src, err := s.job.locate(at)
		if err == nil && slices.Contains(chain, src.name()) {
			skip(fmt.Sprintf("submodule loop: %s contains itself", src.name()))
			continue
		}
		if _, plain := src.(*plainSource); plain {
			skip(fmt.Sprintf("submodule of %q: a folder without .git has no commit %s", at, l.Commit))
			continue
		}
		var res *workResult
		if err == nil {
			res, err = src.extract(ctx, resolved{want: l.Commit, commit: l.Commit}, s.stage, l.Path)
		}
		if why := absent(err); why != "" {
			skip(fmt.Sprintf("submodule of %q: %s", at, why))
			continue
		} else if err != nil {
			return fmt.Errorf("submodule %q: %w", l.Path, err)
		}
		s.job.spend(&res.Tree)
		all.merge(&res.Tree)
		s.done = append(s.done, Submodule{Path: l.Path, URL: src.name(), Commit: res.Commit})
		inner := append(slices.Clone(chain), src.name())
		if err := s.add(ctx, src.name(), inner, res.Tree.Modules, all); err != nil {
			return err
		}
	}
	return nil
}

// absent returns why a submodule is not to be had, or "" for success and for
// errors that are not about the submodule.
func absent(err error) string {
	var (
		repo   *RepoError
		ref    *RefError
		mirror *NotInMirrorError
	)
	switch {
	case errors.As(err, &repo):
		return repo.Why
	case errors.As(err, &ref):
		return ref.Why
	case errors.As(err, &mirror):
		return "it is not in the mirror"
	}
	return ""
}

func (t *treeResult) merge(sub *treeResult) {
	t.Files = append(t.Files, sub.Files...)
	t.Bytes += sub.Bytes
	t.Skipped = append(t.Skipped, sub.Skipped...)
	t.Copied = append(t.Copied, sub.Copied...)
	t.LFS = append(t.LFS, sub.LFS...)
}

// locate finds where a repository's commits come from. It dials nothing.
func (j *job) locate(repo string) (source, error) {
	if filepath.IsAbs(repo) {
		return j.openFolder(filepath.Clean(repo), "")
	}
	r, err := j.c.parseRemote(repo)
	if err != nil {
		return nil, err
	}
	if j.c.cfg.Mirror != "" {
		return j.inMirror(r)
	}
	return &remoteSource{job: j, remote: r}, nil
}

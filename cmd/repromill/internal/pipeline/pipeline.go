// Package pipeline turns a pasted target into a plan: it parses, reads the
// paper or model, checks out the code and hands the facts to the planner. It is
// the one place that knows both the way to the outside and the pure planner.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	costs "github.com/repromill/repromill/estimators/job"
	"github.com/repromill/repromill/planner"
	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/fetch/git"
	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/intake"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
	"github.com/repromill/repromill/runner"
)

// Pipeline makes plans. It is safe for concurrent use.
type Pipeline struct {
	Intake    *intake.Intake
	Client    *fetch.Client // that Intake asks through
	Cloner    *git.Cloner
	CreatedBy string
	Costs     costs.Config     // prices and GPUs of estimates
	Now       func() time.Time // nil means time.Now
}

// Emit reports progress; see runner.Planner.
type Emit = func(stage string, kind runner.EventKind, data any)

// message is the data of the events that the pipeline emits.
type message struct {
	Message string `json:"message,omitempty"`
}

// Plan makes the plan for a request. What cannot be checked is a plan that
// says so; the error is a mistake in the input, or a failure of ours.
func (p *Pipeline) Plan(ctx context.Context, req runner.PlanRequest, emit Emit) (*spec.Plan, error) {
	j := &job{Pipeline: p, req: req, emit: emit}
	if err := j.stage(runner.StageResolve, func() (string, error) { return j.resolve(ctx) }); err != nil {
		return nil, err
	}
	if err := j.stage(runner.StageFetch, func() (string, error) { return j.fetch(ctx) }); err != nil {
		return nil, err
	}
	var plan *spec.Plan
	err := j.stage(runner.StagePlan, func() (done string, err error) {
		plan, err = j.plan(ctx)
		if err != nil {
			return "", err
		}
		return summary(plan), nil
	})
	return plan, err
}

type job struct {
	*Pipeline
	req  runner.PlanRequest
	emit Emit

	target   spec.Target
	in       planner.Input
	checkout *git.Checkout
	// candidate is the model that is the target.
	candidate *intake.Model
}

func (j *job) stage(name string, fn func() (string, error)) error {
	j.emit(name, runner.StageStarted, nil)
	done, err := fn()
	if err != nil {
		return err
	}
	j.emit(name, runner.StageFinished, message{done})
	return nil
}

func (j *job) warn(code, format string, args ...any) {
	j.in.Warnings = append(j.in.Warnings, spec.Warning{Code: code, Message: fmt.Sprintf(format, args...)})
}

// resolve parses the target and reads what is said about it.
func (j *job) resolve(ctx context.Context) (string, error) {
	t, err := target.Parse(j.req.Target)
	if err != nil {
		return "", err
	}
	j.target = t
	switch t.Kind {
	case target.ArXiv:
		return j.paper(ctx)
	case target.HFModel:
		return j.model(ctx)
	case target.Local:
		if intake.IsCheckpoint(t.Path) && j.req.Repo == "" {
			return j.checkpoint(ctx)
		}
		fallthrough
	case target.Git:
		repo := target.CloneURL(t)
		j.in.Source.Candidates = []spec.Candidate{{URL: repo, StatedBy: "user", Rank: 1, Reason: "it is the target"}}
		return t.Kind + " " + t.ID, nil
	default:
		what := map[string]string{target.HFDataset: "a dataset", target.HFSpace: "a Space", target.OpenReview: "an OpenReview forum"}[t.Kind]
		if j.req.Repo == "" {
			return "", &Error{Msg: fmt.Sprintf("%s is %s, which names no code by itself", t.ID, what),
				Fix: "give the code with --repo URL or DIR, or plan the paper or model it belongs to"}
		}
		return t.Kind + " " + t.ID, nil
	}
}

// notInMirror says once, and shortly, that a mirror lacks a paper or model.
func notInMirror(id string, err error) error {
	var missing *fetch.NotInMirrorError
	if !errors.As(err, &missing) {
		return err
	}
	return &Error{Msg: fmt.Sprintf("the mirror does not hold %s: the file %s is missing", id, missing.File),
		Fix: "fill it where there is a network with `repromill mirror add --dir MIRROR " + id + "`, or leave out --mirror"}
}

func (j *job) paper(ctx context.Context) (string, error) {
	p, err := j.Intake.Paper(ctx, j.target.ID, j.target.Version)
	if err != nil {
		return "", outside(ctx, notInMirror(j.target.ID, err))
	}
	j.target.Version = p.Version
	j.target.URL = p.URL
	j.in.Paper = &p.Paper
	for _, ps := range p.Passages {
		j.in.Passages = append(j.in.Passages, planner.Passage{Where: ps.Where, Text: ps.Text})
	}
	j.in.Source.Candidates = append(p.Links, p.Mentions...)
	j.in.Source.Facts = append(j.in.Source.Facts, p.Facts...)
	j.in.Warnings = append(j.in.Warnings, p.Warnings...)
	return fmt.Sprintf("%s%s  %s", p.ID, p.Version, p.Title), nil
}

func (j *job) model(ctx context.Context) (string, error) {
	m, err := j.Intake.Model(ctx, j.target.ID, j.target.Revision)
	if err != nil {
		return "", outside(ctx, notInMirror(j.target.ID, err))
	}
	j.target.Revision = m.Revision
	j.in.Model, j.candidate = &m.Model, m
	j.in.Warnings = append(j.in.Warnings, m.Warnings...)
	return m.ID + " @ " + m.Revision, nil
}

// fetch checks out the first candidate that can be had. Mentions are never
// tried: a repository that a paper only names is not its code.
func (j *job) fetch(ctx context.Context) (string, error) {
	src := &j.in.Source
	if j.req.Repo != "" {
		t, err := target.Parse(j.req.Repo)
		if err != nil {
			return "", fmt.Errorf("--repo: %w", err)
		}
		if t.Kind != target.Git && t.Kind != target.Local {
			return "", &Error{Msg: fmt.Sprintf("--repo %s is a %s, not code", j.req.Repo, t.Kind), Fix: "give a git URL or a folder"}
		}
		user := spec.Candidate{URL: target.CloneURL(t), StatedBy: "user", Rank: 1, Reason: "given with --repo"}
		for i := range src.Candidates {
			src.Candidates[i].Rank++
		}
		src.Candidates = append([]spec.Candidate{user}, src.Candidates...)
		return j.take(ctx, &src.Candidates[0], t)
	}
	if j.candidate != nil && j.target.Kind == target.Local {
		return "a model in a folder: nothing to check out", nil
	}
	if j.target.Kind == target.Git || j.target.Kind == target.Local {
		return j.take(ctx, &src.Candidates[0], j.target)
	}
	for i := range src.Candidates {
		c := &src.Candidates[i]
		if !stated(c.StatedBy) {
			continue
		}
		t, err := target.Parse(c.URL)
		if err == nil && t.Kind != target.Git {
			err = fmt.Errorf("it is a %s, not a repository", t.Kind)
		}
		if err != nil {
			c.Reason = strings.TrimPrefix(c.Reason+"; not used: "+err.Error(), "; ")
			continue
		}
		done, err := j.take(ctx, c, t)
		if err == nil {
			return done, nil
		}
		if ctx.Err() != nil || !unavailable(err) {
			return "", err
		}
		c.Reason = strings.TrimPrefix(c.Reason+"; not to be had: "+err.Error(), "; ")
		j.warn("code_link_dead", "the code at %s is not to be had: %v", c.URL, err)
	}
	if j.in.Model != nil {
		return "a model: nothing to check out", nil
	}
	return "no code found", nil
}

// stated reports whether somebody states the link to be the paper's code.
func stated(by string) bool { return by != "" && by != "mention" }

// unavailable reports whether the next candidate is worth a try: the
// repository is gone, private, too large or not in the mirror.
func unavailable(err error) bool {
	var repo *git.RepoError
	var ref *git.RefError
	var limit *git.LimitError
	var mirror *git.NotInMirrorError
	var missing *fetch.NotInMirrorError
	return errors.As(err, &repo) || errors.As(err, &ref) || errors.As(err, &limit) || errors.As(err, &mirror) || errors.As(err, &missing)
}

// refAge is how long it is believed where the branch of a linked repository
// stands: as long as the page that links it.
const refAge = 24 * time.Hour

// take checks out a candidate and makes it the plan's source.
func (j *job) take(ctx context.Context, c *spec.Candidate, t spec.Target) (string, error) {
	ref := j.req.Commit
	if ref == "" {
		ref = t.Ref
	}
	req := git.Request{Repo: target.CloneURL(t), Ref: ref}
	if c.StatedBy != "user" { // who names a repository wants it as it is at this moment
		req.MaxAge = refAge
	}
	co, err := j.Cloner.Checkout(ctx, req)
	if err != nil {
		return "", outside(ctx, err)
	}
	j.checkout = co
	c.Chosen = true
	src := &j.in.Source
	src.Repo, src.Commit, src.Ref = co.Repo, co.Commit, co.Ref
	src.StatedBy, src.Note, src.Simulated = c.StatedBy, c.Note, c.Simulated
	if t.Kind == target.Git {
		src.Subdir = t.Path
	}
	if !co.CommitDate.IsZero() {
		d := co.CommitDate.UTC()
		src.CommitDate = &d
	}
	j.sourceFacts(co)
	return fmt.Sprintf("%s @ %s, %s, %s", co.Repo, co.Commit[:12], Count(int64(co.Files), "file"), Size(co.Bytes)), nil
}

// Count is a number of things in words.
func Count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Size is a number of bytes the way a person reads them.
func Size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}

// sourceFacts records what of the commit is not in the checkout.
func (j *job) sourceFacts(co *git.Checkout) {
	src := &j.in.Source
	fact := func(name, value, file string) {
		src.Facts = append(src.Facts, spec.Fact{Name: name, Value: value, Kind: spec.Measured, Evidence: []spec.Evidence{{File: file}}})
	}
	const most = 200
	for _, s := range co.Skipped[:min(most, len(co.Skipped))] {
		fact("skipped_file", s.Why, s.Path)
	}
	for _, l := range co.LFS[:min(most, len(co.LFS))] {
		fact("lfs_pointer", fmt.Sprintf("%d bytes, sha256 %s", l.Size, l.OID), l.Path)
	}
	if n := len(co.Skipped); n > 0 {
		j.warn("files_skipped", "not checked out of the commit: %s (links, unsafe names, submodules); see source.facts", Count(int64(n), "path"))
	}
	if n := len(co.LFS); n > 0 {
		j.warn("lfs_pointers", "not fetched: the content of %s that git LFS keeps elsewhere", Count(int64(n), "file"))
	}
	if co.Dirty {
		j.warn("dirty_worktree", "the folder has changes that are not committed; what runs is commit %s", co.Commit[:12])
	}
}

func (j *job) plan(ctx context.Context) (*spec.Plan, error) {
	j.in.Target = j.target
	j.in.Options.CreatedBy = j.CreatedBy
	if j.checkout != nil {
		facts, err := inspect.Dir(ctx, j.checkout.Dir, inspect.Config{})
		if err != nil {
			return nil, fmt.Errorf("read the code: %w", err)
		}
		j.in.Repo = facts
	}
	p, err := planner.Plan(j.in)
	if err != nil {
		return nil, err
	}
	if err := j.suites(ctx, p); err != nil {
		return nil, err
	}
	w := j.req.Wishes
	w.Compare = nil // the suites have it
	if err := j.Apply(ctx, p, w, j.emit); err != nil {
		return nil, err
	}
	return p, j.Estimate(ctx, p)
}

func summary(p *spec.Plan) string {
	for _, r := range p.Runs {
		if r.Selected {
			return p.Shown(r.Command)
		}
	}
	var chosen []string
	for _, s := range p.Suites {
		if s.Selected {
			chosen = append(chosen, s.ID)
		}
	}
	if chosen != nil {
		return "suites " + strings.Join(chosen, ", ")
	}
	return "nothing can be run"
}

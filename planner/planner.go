// Package planner turns facts into a plan: what a paper or a repository
// claims, which documented command would check it, in which environment, and
// how its numbers are read.
//
// It is pure. What it cannot know is an outcome in the plan (a warning, a
// status, a claim that no run checks), never an error, and nothing is executed
// while planning.
package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/claim"
	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/recipe"
	"github.com/repromill/repromill/planner/spec"
)

// Input is everything that planning knows.
type Input struct {
	Target   spec.Target
	Paper    *spec.Paper    // nil when the target is no paper
	Passages []Passage      // of the paper; the abstract is taken from Paper when none is given
	Model    *spec.Model    // nil when the target is no model
	Source   spec.Source    // empty Repo when no code was found
	Repo     *inspect.Facts // nil when there is no checkout
	Warnings []spec.Warning // of the steps before
	Options  Options
}

// Passage is a stretch of the paper's text.
type Passage struct {
	Where string // abstract, "table 2", "section 4", …
	Text  string
}

// Options are the user's choices. The zero value is ready to use.
type Options struct {
	CreatedBy string // name and version of the program
	MaxClaims int    // 0 means 40
	// GPUs are the models that the environment is judged for; nil means
	// [recipe.GPUs].
	GPUs []recipe.GPU
}

// Plan makes the plan and seals it. The error is for a plan that breaks its own
// schema, which is a fault of this package.
func Plan(in Input) (*spec.Plan, error) {
	if in.Options.MaxClaims == 0 {
		in.Options.MaxClaims = 40
	}
	if in.Options.GPUs == nil {
		in.Options.GPUs = recipe.GPUs()
	}
	p := &planning{in: in, plan: &spec.Plan{
		CreatedBy: in.Options.CreatedBy, Target: in.Target, Source: in.Source, Paper: in.Paper, Model: in.Model,
		Environment: spec.Environment{Manager: "unknown"}, Runs: []spec.Run{}, Claims: []spec.Claim{},
		Warnings: slices.Clone(in.Warnings),
	}}
	switch {
	case in.Model != nil:
		p.model()
	case in.Repo == nil:
		p.paperClaims()
		p.noCode()
	default:
		if err := p.repository(); err != nil {
			return nil, err
		}
	}
	sharePlaceholders(p.plan)
	Flags(p.plan)
	p.plan.Seal()
	if err := p.plan.Validate(); err != nil {
		return nil, fmt.Errorf("plan breaks its schema: %w", err)
	}
	return p.plan, nil
}

type planning struct {
	in     Input
	plan   *spec.Plan
	claims []*stated
	// commands are those that the checkout documents, and givers those of them
	// that give the number of a claim.
	commands []*recipe.Command
	givers   map[*stated]map[string]bool
}

// stated is a claim with how it was read.
type stated struct {
	claim.Claim
	file  string // of the repository; "" for the paper
	where string
	id    string
}

func (p *planning) warn(code, msg string, at ...spec.Evidence) {
	p.plan.Warnings = append(p.plan.Warnings, spec.Warning{Code: code, Message: msg, Evidence: at})
}

func (p *planning) model() {
	p.plan.Environment.Manager = "none"
}

// noCode keeps the claims and says that nothing can check them.
func (p *planning) noCode() {
	for _, c := range p.claims {
		p.emit(c, "paper_only")
	}
	if p.in.Source.Repo == "" {
		p.warn("no_code", "no code was found for this paper, so no run can check its claims; name a repository to plan with it")
	} else {
		p.warn("no_checkout", "the code at "+p.in.Source.Repo+" was not read")
	}
}

func (p *planning) repository() error {
	f := p.in.Repo
	p.plan.Warnings = append(p.plan.Warnings, f.Warnings...)
	if f.Readme == "" {
		p.warn("no_readme", "the repository has no README; commands were looked for in its scripts")
	}
	if f.Licence == "" {
		p.warn("no_licence", "no licence was recognised at the root of the repository")
	}
	p.paperClaims()
	paper := len(p.claims)
	p.repoClaims()
	if f.Unsupported != "" {
		p.warn("unsupported_language", fmt.Sprintf("the repository is written in %s (%d files), and its documents run no Python; this version plans Python only", f.Unsupported, f.Languages[f.Unsupported]))
		p.emitAll("paper_only")
		return nil
	}
	cmds := recipe.Commands(f)
	var rows []recipe.Row
	for _, c := range p.claims[paper:] {
		rows = append(rows, recipe.Row{File: c.file, Claim: &c.Claim})
	}
	cmds = append(cmds, recipe.Adapt(f, cmds, rows)...)
	p.commands, p.givers = cmds, map[*stated]map[string]bool{}
	choice := recipe.Choose(f, cmds, p.bonus(paper))
	p.plan.Decisions = append(p.plan.Decisions, choice.Decisions...)
	p.plan.Warnings = append(p.plan.Warnings, choice.Warnings...)
	p.plan.Runs = append(p.plan.Runs, choice.Runs...)
	for i := range p.plan.Runs {
		if r := &p.plan.Runs[i]; choice.Commands[r.ID] != nil {
			r.Seeding = seeding(f, choice.Commands[r.ID], r)
		}
	}
	if err := p.environment(choice); err != nil {
		return err
	}
	p.work(choice)
	p.tie(choice, paper)
	p.blocked(choice)
	return nil
}

// environment plans what the minimal run needs.
func (p *planning) environment(choice *recipe.Choice) error {
	cmd := &recipe.Command{Cwd: "."}
	if choice.Minimal != nil {
		cmd = choice.Minimal.Command
	}
	env := recipe.ForEntry(p.in.Repo, cmd, p.in.Source.CommitDate)
	for i := range p.plan.Runs {
		if run := &p.plan.Runs[i]; run.Kind == "minimal" {
			fit, err := recipe.Fit(p.in.Repo, env, cmd, run, p.in.Options.GPUs, p.in.Source.CommitDate)
			if err != nil {
				return err
			}
			env.SKUs = fit
			break
		}
	}
	for i := range p.plan.Runs {
		if run := &p.plan.Runs[i]; env.Legacy != "" {
			if run.Status == "auto" {
				run.Status, run.Selected = "legacy_env", false
			}
			need(run, "environment", env.Python.Version, "legacy_env", env.Legacy)
		}
	}
	p.plan.Environment = env.Environment
	if env.Manager == "conda" {
		p.warn("conda_environment", "the environment is one of conda: an executor that builds from the package index alone, as the local one does, cannot make it")
	}
	p.plan.Decisions = append(p.plan.Decisions, env.Decisions...)
	p.plan.Warnings = append(p.plan.Warnings, env.Warnings...)
	return nil
}

// blocked says why no run is selected.
func (p *planning) blocked(choice *recipe.Choice) {
	for _, r := range p.plan.Runs {
		if r.Selected {
			return
		}
	}
	if choice.Minimal == nil {
		return
	}
	var reasons []string
	for _, r := range p.plan.Runs {
		if r.Kind == "minimal" {
			reasons = r.Reasons
		}
	}
	p.warn("nothing_selected", "the best run cannot start as it is: "+strings.Join(reasons, "; "), choice.Minimal.Evidence)
}

// bonus favours commands beside which a number is stated, and commands that
// give the numbers which the paper claims.
func (p *planning) bonus(paper int) func(*recipe.Command) (float64, string) {
	numbers := map[string]int{}
	return func(c *recipe.Command) (float64, string) {
		points, why := 0.0, ""
		for _, cl := range p.claims[paper:] {
			if !recipe.Result(&cl.Claim) {
				continue
			}
			switch recipe.Near(p.in.Repo, c, cl.file, &cl.Claim) {
			case 3:
				if points < 30 {
					points, why = 30, "its expected output is shown"
				}
			case 2:
				if points < 22 {
					points, why = 22, "a result is stated beside it"
				}
			}
		}
		if paper == 0 || c.Entry == "" || len(numbers) > 60 {
			return points, why
		}
		n, ok := numbers[c.Entry]
		if !ok {
			found := recipe.Numbers(p.in.Repo, c)
			for _, cl := range p.claims[:paper] {
				if rules, _, _ := recipe.Tie(&cl.Claim, "x", found); len(rules) > 0 {
					n++
				}
			}
			numbers[c.Entry] = n
		}
		if n > 0 {
			points += 8 * float64(min(n, 3))
			why = strings.TrimPrefix(why+"; gives numbers that the paper claims", "; ")
		}
		return points, why
	}
}

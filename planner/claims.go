package planner

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/claim"
	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/recipe"
	"github.com/repromill/repromill/planner/spec"
)

// paperClaims reads the abstract and the passages of the paper.
func (p *planning) paperClaims() {
	passages := p.in.Passages
	if len(passages) == 0 && p.in.Paper != nil && p.in.Paper.Abstract != "" {
		passages = []Passage{{Where: "abstract", Text: p.in.Paper.Abstract}}
	}
	seen := map[string]bool{}
	for _, ps := range passages {
		text := ps.Text
		found := claim.FromText(strings.Join(strings.Fields(text), " "), func(int) int { return 0 })
		if strings.Contains(text, "|") && strings.Contains(text, "---") {
			for i, t := range markdown.Scan(text).Tables {
				found = append(found, claim.FromTable(t, i+1)...)
			}
		}
		for _, c := range found {
			k := identity(&c)
			if seen[k] || len(p.claims) >= p.in.Options.MaxClaims {
				continue
			}
			seen[k] = true
			p.claims = append(p.claims, &stated{Claim: c, where: ps.Where})
		}
	}
}

// identity tells claims apart: the same metric with the same value on the same
// data is one claim, however often it is stated.
func identity(c *claim.Claim) string {
	f := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return strconv.FormatFloat(*v, 'g', -1, 64)
	}
	return strings.Join([]string{c.Key.String(), f(c.Value), f(c.Lo), f(c.Hi), c.Dataset}, "|")
}

// tableRows bounds how many claims of one table are kept.
const tableRows = 80

// repoClaims reads the documents: prose, tables and shown output. A metric that
// the paper itself claims is left to the paper.
func (p *planning) repoClaims() {
	paper := map[string]bool{}
	for _, c := range p.claims {
		paper[c.Key.String()] = true
	}
	seen := map[string]bool{}
	var found []*stated
	for i := range p.in.Repo.Docs {
		d := &p.in.Repo.Docs[i]
		if d.CI || strings.Count(d.Path, "/") > 3 || isHistory(d.Path) {
			continue
		}
		var all []claim.Claim
		for j := range d.Doc.Paras {
			para := &d.Doc.Paras[j]
			if len(para.Text) < 20_000 {
				prose := claim.FromText(para.Text, para.LineAt)
				for k := range prose {
					prose[k].Around = para.Text
				}
				all = append(all, prose...)
				all = append(all, claim.FromBare(para.Text, commandBefore(d, para.Line), para.LineAt)...)
			}
		}
		for j, t := range d.Doc.Tables {
			rows := claim.FromTable(t, j+1)
			all = append(all, rows[:min(len(rows), tableRows)]...)
		}
		all = append(all, recipe.Grids(d)...)
		for j, o := range d.Outputs {
			if j < 3000 {
				all = append(all, claim.FromOutput(o.Text, o.Line, o.Block+1)...)
			}
		}
		for _, c := range all {
			if k := identity(&c) + d.Path; !seen[k] {
				seen[k] = true
				found = append(found, &stated{Claim: c, file: d.Path, where: d.Path})
			}
		}
		if len(found) > 2000 {
			break
		}
	}
	p.claims = append(p.claims, found...)
}

// commandBefore is the command within twelve lines before a paragraph, or "".
func commandBefore(d *inspect.Document, line int) string {
	text := ""
	for _, c := range d.Commands {
		if c.Block >= 0 && c.Line < line && c.Line > line-12 {
			text = c.Text
		}
	}
	return text
}

var historyRE = regexp.MustCompile(`(?i)^(?:changelog|changes|history|contributing|code_of_conduct|security|news|releases?)\b`)

func isHistory(p string) bool { return historyRE.MatchString(path.Base(p)) }

// tie binds claims to the runs that give their numbers, keeps the claims that
// matter and writes them into the plan.
func (p *planning) tie(choice *recipe.Choice, paper int) {
	bound := map[*stated][]*binding{}
	why := map[*stated]string{}
	var unread []func() // expectations of numbers that no rule reads; those that are read come first
	claimed := map[string]bool{}
	for _, c := range p.claims[:paper] {
		claimed[c.Key.String()] = true
	}
	for i := range p.plan.Runs {
		run := &p.plan.Runs[i]
		cmd := choice.Commands[run.ID]
		if cmd == nil {
			continue
		}
		numbers := recipe.Numbers(p.in.Repo, cmd)
		taken := map[string]*stated{}
		for _, c := range p.ordered(cmd, paper) {
			reason := p.speaks(cmd, c)
			if reason == "" && c.file != "" && p.paperHas(c, paper) {
				p.expect(run, c)
				why[c] = "the paper claims the same metric"
				continue
			}
			if other := taken[c.Key.String()]; reason == "" && other != nil {
				reason = "the run's number is compared with the claim at " + place(other)
			}
			var rules []spec.Collect
			var from []recipe.Number
			if reason == "" {
				rules, from, reason = recipe.Tie(&c.Claim, c.Key.String(), numbers)
			}
			if reason != "" {
				if why[c] == "" {
					why[c] = reason
				}
				if reason != notForCommand && recipe.Near(p.in.Repo, cmd, c.file, &c.Claim) >= 2 && recipe.Result(&c.Claim) {
					unread = append(unread, func() { p.expect(run, c) })
				}
				continue
			}
			taken[c.Key.String()] = c
			alone := c.file != "" && recipe.Near(p.in.Repo, cmd, c.file, &c.Claim) < 2 && !p.only(cmd, c)
			bound[c] = append(bound[c], &binding{run: run, rules: rules, from: from, alone: alone})
		}
	}
	p.write(bound, why, paper)
	for _, f := range unread {
		f()
	}
	p.nothingStated(choice)
}

// nothingStated says of runs that neither train nor evaluate a model by their
// own names and could check nothing, because nothing is
// stated anywhere and they give no number, that they only show that the code
// runs.
func (p *planning) nothingStated(choice *recipe.Choice) {
	for _, c := range p.claims {
		if c.file == "" {
			return // the paper states what its code gives
		}
	}
	var smoke, selected *spec.Run
	for i := range p.plan.Runs {
		r := &p.plan.Runs[i]
		if (r.Status == "auto" || r.Status == "manual_data") && len(r.Collect) == 0 && r.Expects == nil && r.Route == "recompute" && !recipe.Measures(p.in.Repo, choice.Commands[r.ID]) {
			r.Status = "smoke_only"
			need(r, "result", "", "smoke_only", "no number is stated for it, and none is known to be printed: it shows that the code runs")
			if r.Kind == "smoke" {
				smoke = r
			} else if r.Selected {
				selected, r.Selected = r, false
			}
		}
	}
	switch {
	case selected == nil:
	case smoke != nil:
		smoke.Selected = true
	default:
		r := *selected
		r.ID, r.Kind, r.Selected = recipe.FreeID(p.plan.Runs, "smoke"), "smoke", true
		p.plan.Runs = append(p.plan.Runs, r)
		p.plan.Decisions = slices.DeleteFunc(p.plan.Decisions, func(d spec.Decision) bool { return d.What == "smoke run" })
		p.decide("smoke run", r.Command, "that the code runs is all that can be checked")
	}
}

type binding struct {
	run   *spec.Run
	rules []spec.Collect
	from  []recipe.Number
	alone bool // the only value stated, and the only command that gives it
}

// paperHas says that the paper claims the metric itself.
func (p *planning) paperHas(c *stated, paper int) bool {
	for _, o := range p.claims[:paper] {
		if claim.Match(o.Key, c.Key) > 0 {
			return true
		}
	}
	return false
}

// ordered lists the paper's claims, then the repository's by how close they
// stand to the command.
func (p *planning) ordered(cmd *recipe.Command, paper int) []*stated {
	out := append([]*stated(nil), p.claims...)
	near := map[*stated]int{}
	for _, c := range out[paper:] {
		near[c] = recipe.Near(p.in.Repo, cmd, c.file, &c.Claim)
	}
	rest := out[paper:]
	sort.SliceStable(rest, func(i, j int) bool { return near[rest[i]] > near[rest[j]] })
	return out
}

const notForCommand = "it is not stated for this command"

// speaks says why a run cannot speak to a claim, or "".
func (p *planning) speaks(cmd *recipe.Command, c *stated) string {
	if c.file != "" {
		if recipe.Near(p.in.Repo, cmd, c.file, &c.Claim) < 2 && !p.only(cmd, c) && !p.alone(cmd, c) {
			return notForCommand
		}
		return ""
	}
	if c.Relation == "absolute" && c.Dataset != "" && !names(cmd, c.Dataset) {
		return "it is stated for " + c.Dataset + ", which the command does not name"
	}
	if c.Relation == "absolute" {
		for _, o := range p.claims {
			if o != c && o.file == "" && o.Relation == "absolute" && o.Key == c.Key && o.Dataset == c.Dataset {
				return "the paper states several values of it, and the command does not say which"
			}
		}
	}
	return ""
}

// only says that the README states one value of the metric, on a data set that
// the command names: then it can mean no other run.
func (p *planning) only(cmd *recipe.Command, c *stated) bool {
	if c.file != p.in.Repo.Readme || c.Source != claim.Prose || c.Dataset == "" || !names(cmd, c.Dataset) {
		return false
	}
	for _, o := range p.claims {
		if o != c && o.file == c.file && o.Key.Base == c.Key.Base && o.Key.Effect == c.Key.Effect {
			return false
		}
	}
	return true
}

// alone says that the README states one value of the metric, and that of all
// documented commands only this one gives the metric.
func (p *planning) alone(cmd *recipe.Command, c *stated) bool {
	if c.file != p.in.Repo.Readme || c.Source != claim.Prose || c.Relation != "absolute" {
		return false
	}
	for _, o := range p.claims {
		if o != c && o.Key.Base == c.Key.Base && o.Key.Effect == c.Key.Effect {
			return false
		}
	}
	givers := p.givers[c]
	if givers == nil {
		givers = map[string]bool{}
		for _, o := range p.commands {
			if o.Role != recipe.RoleRun || o.Missing != "" || o.Doc < 0 {
				continue
			}
			if rules, _, _ := recipe.Tie(&c.Claim, "x", recipe.Numbers(p.in.Repo, o)); len(rules) > 0 {
				givers[giver(o)] = true
			}
		}
		p.givers[c] = givers
	}
	return len(givers) == 1 && givers[giver(cmd)]
}

// giver tells documented commands apart; a limited copy of one counts as it.
func giver(c *recipe.Command) string { return fmt.Sprintf("%d:%d", c.Doc, c.Line) }

func names(cmd *recipe.Command, dataset string) bool {
	squash := func(s string) string {
		return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s))
	}
	text := squash(cmd.Display + " " + cmd.Context + " " + strings.Join(cmd.Section, " ") + " " + cmd.Entry)
	return strings.Contains(text, squash(dataset))
}

// expect records the value that the repository states for this very run.
func (p *planning) expect(run *spec.Run, c *stated) {
	if run.Expects != nil || c.Value == nil || run.Kind == "smoke" {
		return
	}
	run.Expects = &spec.Expectation{Metric: c.Key.String(), Value: *c.Value, Unit: c.Unit, Dataset: c.Dataset, Direction: direction(&c.Claim), Tolerance: c.Tolerance(place(c))}
}

func place(c *stated) string {
	if c.file == "" {
		return c.where
	}
	return fmt.Sprintf("%s:%d", c.file, c.Line)
}

// direction says which way is better for what is measured: of an effect, the
// larger one.
func direction(c *claim.Claim) string {
	if c.Relation != "absolute" {
		return "higher"
	}
	return claim.Better(c.Key.Base)
}

// write puts the claims into the plan: those that a run checks, then the
// paper's others, then the repository's others up to the limit.
func (p *planning) write(bound map[*stated][]*binding, why map[*stated]string, paper int) {
	n := 0
	for i, c := range p.claims {
		if why[c] == "the paper claims the same metric" {
			p.decide("claim at "+place(c), "left out", "the paper claims the same metric, and the repository's own value says what its authors expect of the run")
			continue
		}
		tied := len(bound[c]) > 0
		if i >= paper && !tied && n >= p.in.Options.MaxClaims {
			continue
		}
		checkable := "numeric"
		if !tied && i < paper {
			checkable = "paper_only"
		}
		if judgeRE.MatchString(c.Text) {
			checkable = "judge_needed"
		}
		p.emit(c, checkable)
		n++
		for _, b := range bound[c] {
			p.bind(c, b)
		}
		if reason := why[c]; !tied && (i < paper || reason != "" && reason != notForCommand) {
			p.decide("claim "+c.id, "checked by no run", why[c])
		}
	}
	for i := range p.plan.Runs {
		run := &p.plan.Runs[i]
		if run.Selected && len(run.Collect) == 0 {
			p.plan.Warnings = append(p.plan.Warnings, nothingToCollect(run))
		}
	}
}

func nothingToCollect(r *spec.Run) spec.Warning {
	return spec.Warning{Code: "nothing_to_collect", Evidence: r.Evidence,
		Message: fmt.Sprintf("run %s gives no number that is known from its source or its documents, so it can check no claim", r.ID)}
}

var judgeRE = regexp.MustCompile(`(?i)judged? by|GPT-?4 (?:judge|evaluat)|human (?:evaluat|rat|prefer)|user study|LLM-as-a-judge|performance level of ChatGPT`)

func (p *planning) decide(what, chosen, because string) {
	p.plan.Decisions = append(p.plan.Decisions, spec.Decision{What: what, Chosen: chosen, Because: because})
}

func (p *planning) bind(c *stated, b *binding) {
	r := b.run
	r.Collect = append(r.Collect, b.rules...)
	if r.Kind == "smoke" {
		return
	}
	r.ClaimIDs = append(r.ClaimIDs, c.id)
	p.route(c, r.Route)
	if r.Expects == nil && c.file != "" && c.Value != nil {
		p.expect(r, c)
	}
	if r.Kind != "minimal" {
		return
	}
	places := make([]string, 0, len(b.from))
	for _, n := range b.from {
		s := n.At.File
		if n.At.Line > 0 {
			s = fmt.Sprintf("%s:%d", n.At.File, n.At.Line)
		}
		places = append(places, s)
	}
	because := "its name stands at " + strings.Join(places, ", ")
	if b.alone {
		because += "; it is the only value stated and the only command that gives it"
	}
	p.decide("metric of "+c.id, describe(b.rules[0]), because)
	if c.Unit == "%" && b.rules[0].Unit == "" && b.rules[0].Scale == 0 {
		p.warn("unit_not_stated", fmt.Sprintf("claim %s is in percent, and %s does not show whether the number is a percentage or a fraction", c.id, places[0]), b.from[0].At)
	}
}

func describe(r spec.Collect) string {
	if r.Kind == "stdout_regex" {
		return "standard output, " + r.Pattern
	}
	return r.Path + " " + r.Pointer
}

func (p *planning) route(c *stated, route string) {
	for i := range p.plan.Claims {
		if p.plan.Claims[i].ID == c.id && p.plan.Claims[i].Route == "" {
			p.plan.Claims[i].Route = route
		}
	}
}

func (p *planning) emitAll(checkable string) {
	for i, c := range p.claims {
		if i < p.in.Options.MaxClaims {
			p.emit(c, checkable)
		}
	}
}

// emit writes one claim into the plan.
func (p *planning) emit(c *stated, checkable string) {
	c.id = "c" + strconv.Itoa(len(p.plan.Claims)+1)
	s := spec.Claim{
		ID: c.id, Text: clip(c.Text), Metric: c.Key.String(), Value: c.Value, ValueLo: c.Lo, ValueHi: c.Hi, Unit: c.Unit, Relation: c.Relation,
		Baseline: c.Baseline, Dataset: c.Dataset, Direction: direction(&c.Claim), Tolerance: c.Tolerance(place(c)), Checkable: checkable,
	}
	if c.file == "" {
		s.Where.Paper = c.where
	} else {
		s.Where.File, s.Where.Line = c.file, c.Line
	}
	p.plan.Claims = append(p.plan.Claims, s)
}

func clip(s string) string {
	if len(s) <= 500 {
		return s
	}
	s = s[:497]
	for len(s) > 0 && s[len(s)-1] >= 0x80 {
		s = s[:len(s)-1]
	}
	return s + "..."
}

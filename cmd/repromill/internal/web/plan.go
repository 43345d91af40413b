package web

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/report"
)

// source is where something was read.
type source struct {
	Text  string
	URL   string
	Quote string
}

// fact is one line of what was found.
type fact struct {
	Label string
	Value string
	URL   string
	Kind  string // published, derived, …
	From  []source
}

// planRun is a run of the plan as it is shown.
type planRun struct {
	*spec.Run
	Shown string
	From  []source
	Needs []string
	How   string
}

type planClaim struct {
	ID, Value, Text, At string
	Dataset             string
	Status              string // what the run does about it
	Checked             bool
}

// planEstimate is a line of the cost table; the bars are in percent of the
// largest of the table.
type planEstimate struct {
	spec.Estimate
	HoursText, WallText, USDText, OwnedText string
	Bar                                     template.HTML
	Chosen                                  bool
}

// planView is a plan as the pages show it.
type planView struct {
	*spec.Plan
	Title      string
	ByLine     string
	Facts      []fact
	Main       *planRun
	Others     []planRun
	Claims     []planClaim
	Costs      []planEstimate
	CostReason string
	Supported  []string
	Assumed    []string
	Decisions  []spec.Decision
	Warnings   []spec.Warning
	Hours      float64
	Commit     string
}

func viewPlan(p *spec.Plan) *planView {
	v := &planView{Plan: p, Title: p.Target.Input, Commit: p.Source.Commit}
	if p.Paper != nil {
		v.Title = p.Paper.Title
		v.ByLine = strings.Join(p.Paper.Authors[:min(6, len(p.Paper.Authors))], ", ")
		if n := len(p.Paper.Authors); n > 6 {
			v.ByLine += fmt.Sprintf(" and %d more", n-6)
		}
	} else if p.Model != nil {
		v.Title = p.Model.ID
	}
	v.facts()
	v.runs()
	v.claims()
	v.costs()
	v.Decisions = p.Decisions
	for _, w := range p.Warnings {
		if w.Code != "nothing_selected" {
			v.Warnings = append(v.Warnings, w)
		}
	}
	v.Hours, _ = expected(p)
	return v
}

func sources(p *spec.Plan, list []spec.Evidence) (out []source) {
	for _, e := range list[:min(3, len(list))] {
		s := source{Quote: clean(e.Quote)}
		switch {
		case e.File != "":
			s.Text = e.File
			if e.Line > 0 {
				s.Text += ":" + strconv.Itoa(e.Line)
			}
			s.URL = atCommit(p, e)
		case e.URL != "":
			s.Text, s.URL = e.URL, link(e.URL)
			if e.Field != "" {
				s.Text += " " + e.Field
			}
		}
		out = append(out, s)
	}
	return out
}

// atCommit is the address of a line of the repository, where its host is known
// to show lines.
func atCommit(p *spec.Plan, e spec.Evidence) string {
	if !strings.HasPrefix(p.Source.Repo, "https://github.com/") || len(p.Source.Commit) != 40 || p.Source.StatedBy == "mirror" {
		return ""
	}
	u := strings.TrimSuffix(p.Source.Repo, ".git") + "/blob/" + p.Source.Commit + "/" + e.File
	if e.Line > 0 {
		u += "#L" + strconv.Itoa(e.Line)
	}
	return u
}

func (v *planView) add(label, value string, kind spec.Kind, ev []spec.Evidence) {
	if value != "" {
		v.Facts = append(v.Facts, fact{Label: label, Value: clean(value), Kind: string(kind), From: sources(v.Plan, ev)})
	}
}

// facts lists what was found, each with where.
func (v *planView) facts() {
	p := v.Plan
	if x := p.Paper; x != nil {
		v.add("paper", x.ID+x.Version+", "+strings.Join(x.Categories, ", "), spec.Published, x.Evidence)
	}
	if m := p.Model; m != nil {
		v.add("model", m.ID+" at "+m.Revision[:min(12, len(m.Revision))], spec.Published, nil)
		for _, f := range m.Facts[:min(12, len(m.Facts))] {
			v.add(words(f.Name), f.Value, f.Kind, f.Evidence)
		}
	}
	if p.Source.Repo != "" {
		var ev []spec.Evidence
		for _, c := range p.Source.Candidates {
			if c.Chosen {
				ev = c.Evidence
			}
		}
		commit := p.Source.Commit[:min(12, len(p.Source.Commit))]
		v.add("code", p.Source.Repo+" at "+commit+", stated by "+words(p.Source.StatedBy), spec.Published, ev)
		v.Facts[len(v.Facts)-1].URL = link(p.Source.Repo)
	} else if p.Model == nil {
		v.add("code", "none found", spec.Derived, nil)
	}
	if n := len(p.Source.Candidates); n > 1 {
		v.add("other code links", strconv.Itoa(n-1)+" more were found and not chosen", spec.Derived, nil)
	}
	e := &p.Environment
	if e.Manager != "" {
		text := e.Manager
		if text == "none" {
			text = "nothing to install"
		}
		if n := len(e.Requirements); n > 0 {
			var names []string
			for _, r := range e.Requirements[:min(5, n)] {
				names = append(names, r.Spec)
			}
			text += ": " + strings.Join(names, ", ")
			if n > 5 {
				text += fmt.Sprintf(" and %d more", n-5)
			}
		}
		var ev []spec.Evidence
		if len(e.Requirements) > 0 {
			ev = e.Requirements[0].Evidence
		}
		v.add("environment", text, spec.Derived, ev)
	}
	v.add("Python", e.Python.Version, e.Python.Kind, e.Python.Evidence)
	v.add("framework", strings.TrimSpace(e.Framework.Name+" "+e.Framework.Version), e.Framework.Kind, e.Framework.Evidence)
	v.add("CUDA", e.CUDA.Version, e.CUDA.Kind, e.CUDA.Evidence)
}

func (v *planView) runs() {
	p := v.Plan
	main := slices.IndexFunc(p.Runs, func(r spec.Run) bool { return r.Selected })
	if main < 0 {
		main = slices.IndexFunc(p.Runs, func(r spec.Run) bool { return r.Kind == "minimal" })
	}
	for i := range p.Runs {
		r := &p.Runs[i]
		x := planRun{Run: r, Shown: clean(p.Shown(r.Command)), From: sources(p, r.Evidence), How: howRun(r)}
		for _, n := range r.Needs {
			text := n.Reason
			if n.Flag != "" {
				text = n.Flag + ": " + text
			}
			x.Needs = append(x.Needs, clean(text))
		}
		if i == main {
			v.Main = &x
		} else {
			v.Others = append(v.Others, x)
		}
	}
}

func howRun(r *spec.Run) string {
	gpu := "no GPU needed"
	if r.GPUs.Min == 1 {
		gpu = "1 GPU"
	} else if r.GPUs.Min > 1 {
		gpu = fmt.Sprintf("%d GPUs", r.GPUs.Min)
	}
	parts := []string{words(r.Route), gpu}
	if r.TimeoutS > 0 {
		parts = append(parts, "at most "+report.Seconds(float64(r.TimeoutS)))
	}
	if n := len(r.Seeds); n > 1 {
		parts = append(parts, fmt.Sprintf("%d seeds", n))
	} else {
		parts = append(parts, "1 seed")
	}
	return strings.Join(parts, " · ")
}

func (v *planView) claims() {
	checked := func(c spec.Claim) bool { return v.Main != nil && slices.Contains(v.Main.ClaimIDs, c.ID) }
	for _, c := range v.Plan.Claims {
		x := planClaim{ID: clean(c.ID), Text: clean(c.Text), Dataset: clean(c.Dataset), Checked: checked(c), At: c.Where.Paper}
		if c.Where.File != "" {
			x.At = fmt.Sprintf("%s:%d", c.Where.File, c.Where.Line)
		}
		unit := c.Unit
		switch {
		case c.ValueLo != nil && c.ValueHi != nil:
			x.Value = words(c.Metric) + " " + report.WithUnit(report.Exact(*c.ValueLo)+"–"+report.Exact(*c.ValueHi), unit)
		case c.Value != nil:
			x.Value = words(c.Metric) + " " + report.WithUnit(report.Exact(*c.Value), unit)
		}
		x.Value = clean(x.Value)
		switch {
		case x.Checked:
			x.Status = "checked by this run"
		case c.Checkable == "numeric":
			x.Status = "not checked by this run"
		default:
			x.Status = words(c.Checkable)
		}
		v.Claims = append(v.Claims, x)
	}
	slices.SortStableFunc(v.Claims, func(a, b planClaim) int {
		return cmp.Compare(map[bool]int{true: 0, false: 1}[a.Checked], map[bool]int{true: 0, false: 1}[b.Checked])
	})
}

func (v *planView) costs() {
	best := chosenEstimate(v.Plan)
	most := 0.0
	for _, e := range v.Plan.Estimates {
		if e.Scope == "" && e.GPUHours != nil {
			most = max(most, e.GPUHours.P90)
		}
	}
	seen := map[string]bool{}
	for i := range v.Plan.Estimates {
		e := v.Plan.Estimates[i]
		if e.Scope != "" {
			continue
		}
		x := planEstimate{Estimate: e, HoursText: interval(e.GPUHours), WallText: secondsInterval(e.WallS), USDText: interval(e.USD), OwnedText: interval(e.OwnedUSD), Chosen: best != nil && e.SKU == best.SKU}
		if e.GPUHours != nil && most > 0 {
			x.Bar = costBar(e.GPUHours, most)
		}
		if e.Fits == "no" {
			x.HoursText = "does not fit"
		}
		v.Costs = append(v.Costs, x)
		if e.Reason != "" && !seen[e.Reason] {
			seen[e.Reason] = true
			v.CostReason = firstOf(v.CostReason, e.Reason)
		}
	}
	if best != nil {
		v.Supported, v.Assumed = best.SupportedBy, best.Assumptions
	}
}

// costBar draws an interval on the scale of its table.
func costBar(i *spec.Interval, most float64) template.HTML {
	x := func(v float64) float64 { return 1 + 118*min(1, max(0, v/most)) }
	return template.HTML(fmt.Sprintf(`<svg class="bar" viewBox="0 0 120 14" width="120" height="14" aria-hidden="true">`+
		`<rect class="fill-line" x="0" y="6" width="120" height="2" rx="1"/><rect class="fill-sky" x="%.1f" y="3" width="%.1f" height="8" rx="3"/>`+
		`<rect class="fill-blue" x="%.1f" y="1" width="2.5" height="12" rx="1"/></svg>`, x(i.P10), max(2, x(i.P90)-x(i.P10)), x(i.P50)-1.25))
}

// SKUFits sums up on which GPUs the environment works.
func (v *planView) SKUFits() (out []string) {
	by := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(v.Environment.SKUs)) {
		status := words(v.Environment.SKUs[id].Status)
		by[status] = append(by[status], id)
	}
	for _, s := range slices.Sorted(maps.Keys(by)) {
		out = append(out, s+": "+strings.Join(by[s], ", "))
	}
	return out
}

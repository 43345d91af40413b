package cli

import (
	"fmt"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// suites prints what is compared, what each suite takes and can tell, and what the
// others lack.
func (v planView) suites(p *spec.Plan) {
	if len(p.Suites) == 0 {
		return
	}
	for i, a := range p.Suites[0].Arms {
		text := v.paint.bold(a.Name) + "  " + a.Model
		if a.Revision != "" {
			text += " @ " + short(a.Revision)
		}
		if len(a.Flags) > 0 {
			text += ": " + strings.Join(a.Flags, " ")
		}
		if i == 0 && len(p.Suites[0].Arms) > 1 {
			text += "  (baseline)"
		}
		v.row(label(i, "arms"), text)
	}
	for i, s := range p.Suites[0].Settings {
		text := fmt.Sprintf("%s: %s  (%s", s.Setting, strings.Join(settingValues(s), " against "), s.Class)
		if s.Why != "" {
			text += ": " + s.Why
		}
		v.row(label(i, "served"), text+")")
	}
	n := 0
	for _, s := range p.Suites {
		if s.Selected && s.Status == "auto" {
			v.suite(label(n, "suites"), &s)
			n++
		}
	}
	n = 0
	for _, s := range p.Suites {
		if !s.Selected || s.Status != "auto" {
			v.row(label(n, "not run"), s.ID+": "+strings.Join(s.Reasons, "; "))
			n++
		}
	}
}

func settingValues(s spec.Setting) []string {
	out := make([]string, len(s.Values))
	for i, x := range s.Values {
		if out[i] = x; x == "" {
			out[i] = "(default)"
		}
	}
	return out
}

func (v planView) suite(name string, s *spec.Suite) {
	if l := s.Load; s.Kind == "throughput" && l != nil {
		v.throughput(name, s, l)
		return
	}
	how := strings.Trim(s.Variant+", "+s.Grader.Rule+"@"+s.Grader.Version, ", @")
	text := fmt.Sprintf("%s (%s)  %s questions × %d", v.paint.bold(s.ID), how, grouped(s.Questions), max(s.Repeats, 1))
	if len(s.Dataset.Files) > 0 {
		text += fmt.Sprintf(", %s @ %s", s.Dataset.Repo, short(s.Dataset.Files[0].Commit))
	}
	v.row(name, text)
	for _, r := range s.Reasons {
		v.row("", r)
	}
	if o := s.Outlook; o != nil {
		text := answersWords(o.Answers)
		if t := o.PromptTokens + o.OutputTokens; t > 0 {
			text += fmt.Sprintf(", about %.3g M tokens (%s)", float64(t)/1e6, o.Kind)
		}
		v.row("", text+", without an early stop")
		if s.Compare != nil {
			can := "enough"
			if !o.Enough {
				can = v.paint.yellow(fmt.Sprintf("not enough: %d repeats would be", o.RepeatsNeeded))
			}
			v.row("", fmt.Sprintf("can tell differences of %.2f points, the margin is %.2f: %s", 100*o.Resolves, 100*s.Compare.Margin, can))
		}
	}
	if s.Placing == spec.OneAfterAnother {
		v.row("", "arms are served one after another, on a cluster")
	}
	if c := s.Compare; c != nil {
		v.row("", fmt.Sprintf("decided by %s, alpha %v per side, %s", c.Method, c.Alpha, c.Stop))
	}
}

// throughput prints the cells of a throughput suite.
func (v planView) throughput(name string, s *spec.Suite, l *spec.Load) {
	var lengths, places []string
	for i := range min(len(l.ISL), len(l.OSL)) {
		lengths = append(lengths, fmt.Sprintf("%d/%d", l.ISL[i], l.OSL[i]))
	}
	what := "in flight"
	for _, c := range l.Concurrencies {
		places = append(places, fmt.Sprint(c))
	}
	for _, r := range l.Rates {
		what, places = "requests/s", append(places, fmt.Sprintf("%g", r))
	}
	v.row(name, fmt.Sprintf("%s  %d cells × %d starts of each arm", v.paint.bold(s.ID), len(lengths)*len(places), max(1, s.Repeats)))
	v.row("", fmt.Sprintf("%s tokens in/out, %s %s, %s loop", strings.Join(lengths, ", "), strings.Join(places, ", "), what, l.Mode))
	text := "compared at equal configuration"
	for i, f := range l.Floors {
		text += []string{", and at the best that gives each user ", " or "}[min(i, 1)] + fmt.Sprintf("%g", f)
	}
	if len(l.Floors) > 0 {
		text += " tokens/s"
	}
	for i, n := range l.TP {
		text += []string{", also with tensor parallelism ", ", "}[min(i, 1)] + fmt.Sprint(n)
	}
	v.row("", text)
}

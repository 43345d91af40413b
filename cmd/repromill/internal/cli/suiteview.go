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
	if c := s.Compare; c != nil {
		v.row("", fmt.Sprintf("decided by %s, alpha %v per side, %s", c.Method, c.Alpha, c.Stop))
	}
}

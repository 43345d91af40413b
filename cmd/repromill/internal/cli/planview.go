package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// planView prints a plan on one screen: what, why, where it says so, what it
// needs and what was changed.
type planView struct {
	w     io.Writer
	width int
	paint painter
}

func (v planView) print(p *spec.Plan) {
	p = printable(p)
	v.head(p)
	v.environment(&p.Environment)
	v.runs(p.Runs)
	v.claims(p.Claims)
	v.suites(p)
	v.costs(p.Estimates)
	for i, d := range p.Decisions {
		text := fmt.Sprintf("%s: %s, because %s", d.What, d.Chosen, d.Because)
		if len(d.Over) > 0 {
			text += "; instead of " + strings.Join(d.Over[:min(3, len(d.Over))], ", ")
			if n := len(d.Over) - 3; n > 0 {
				text += fmt.Sprintf(" and %d more", n)
			}
		}
		if i == 8 {
			v.row("", fmt.Sprintf("… %d more with --json", len(p.Decisions)-i))
			break
		}
		v.row(label(i, "why"), text)
	}
	for i, w := range p.Warnings {
		v.row(label(i, "warning"), v.paint.yellow(w.Message))
	}
	v.row("hash", p.Hash)
}

func (v planView) head(p *spec.Plan) {
	if p.Source.Note != "" {
		v.row("note", v.paint.yellow(p.Source.Note))
	}
	if p.Paper != nil {
		v.row("paper", fmt.Sprintf("%s%s  %s", p.Paper.ID, p.Paper.Version, v.paint.bold(p.Paper.Title)))
	}
	if m := p.Model; m != nil {
		v.row("model", fmt.Sprintf("%s @ %s", v.paint.bold(m.ID), short(m.Revision)))
		for i, f := range m.Facts {
			v.row(label(i, "facts"), fmt.Sprintf("%s = %s (%s)", f.Name, f.Value, f.Kind))
			if i == 11 && len(m.Facts) > 12 {
				v.row("", fmt.Sprintf("… %d more with --json", len(m.Facts)-12))
				break
			}
		}
	}
	switch {
	case p.Source.Repo != "":
		text := p.Source.Repo + " @ " + short(p.Source.Commit)
		if p.Source.StatedBy != "" {
			text += "  (stated by: " + strings.ReplaceAll(p.Source.StatedBy, "_", " ") + ")"
		}
		v.row("code", text)
	case p.Model == nil:
		v.row("code", v.paint.yellow("none found"))
	}
	if n := len(p.Source.Candidates); n > 1 {
		v.row("", fmt.Sprintf("%d code links were found; --json lists them all", n))
	}
}

func (v planView) environment(e *spec.Environment) {
	if e.Manager == "" {
		return
	}
	parts := []string{e.Manager}
	if e.Python.Version != "" {
		parts = append(parts, "Python "+e.Python.Version+where(e.Python.Evidence))
	}
	if e.Framework.Name != "" {
		parts = append(parts, strings.TrimSpace(e.Framework.Name+" "+e.Framework.Version)+where(e.Framework.Evidence))
	}
	if e.CUDA.Version != "" {
		parts = append(parts, "CUDA "+e.CUDA.Version+where(e.CUDA.Evidence))
	}
	if n := len(e.Requirements); n > 0 {
		names := make([]string, 0, 4)
		for _, r := range e.Requirements[:min(4, n)] {
			names = append(names, r.Spec)
		}
		text := strings.Join(names, ", ")
		if n > 4 {
			text += fmt.Sprintf(" and %d more", n-4)
		}
		parts = append(parts, text)
	}
	if e.Manager == "none" {
		parts[0] = "nothing to install"
	}
	v.row("environment", strings.Join(parts, " · "))
}

func (v planView) runs(runs []spec.Run) {
	shown := 0
	for _, r := range runs {
		if !r.Selected {
			continue
		}
		shown++
		v.row("run", v.paint.bold(oneLine(r.Command))+where(r.Evidence))
		detail := []string{r.Kind, strings.ReplaceAll(r.Route, "_", " "), "status " + r.Status}
		if r.Cwd != "" && r.Cwd != "." {
			detail = append(detail, "in "+r.Cwd)
		}
		detail = append(detail, fmt.Sprintf("%d GPUs", r.GPUs.Min), fmt.Sprintf("at most %d s", r.TimeoutS))
		v.row("", strings.Join(detail, " · "))
		for _, s := range r.Setup {
			v.row("", "first: "+strings.Join(s.Argv, " "))
		}
		for _, p := range r.Patches {
			v.row("", fmt.Sprintf("changed %s:%d  %s → %s  (%s)", p.File, p.Line, p.Before, p.After, p.Reason))
		}
		v.collects(r.Collect)
	}
	others := 0
	for _, r := range runs {
		if r.Selected {
			continue
		}
		others++
		if others > 4 {
			continue
		}
		text := r.Kind + " · " + r.Status + " · " + oneLine(r.Command) + where(r.Evidence)
		if len(r.Reasons) > 0 {
			text += ": " + strings.Join(r.Reasons, "; ")
		}
		v.row(label(others-1, "not run"), text)
	}
	if others > 4 {
		v.row("", fmt.Sprintf("… %d more with --json", others-4))
	}
	if shown == 0 {
		v.row("run", v.paint.yellow("nothing can be run"))
	}
}

// collects says for each metric where it is read, the first place first.
func (v planView) collects(rules []spec.Collect) {
	var order []string
	from := map[string][]string{}
	for _, c := range rules {
		at := strings.TrimSpace(c.Path + " " + c.Pointer)
		if c.Kind == "stdout_regex" {
			at = "its output"
		}
		if from[c.Metric] == nil {
			order = append(order, c.Metric)
		}
		if !slices.Contains(from[c.Metric], at) {
			from[c.Metric] = append(from[c.Metric], at)
		}
	}
	for _, m := range order {
		v.row("", "reads "+m+" from "+strings.Join(from[m], ", else "))
	}
}

func (v planView) claims(claims []spec.Claim) {
	for i, c := range claims {
		if i == 10 {
			v.row("", fmt.Sprintf("… %d more with --json", len(claims)-i))
			return
		}
		at := c.Where.Paper
		if c.Where.File != "" {
			at = fmt.Sprintf("%s:%d", c.Where.File, c.Where.Line)
		}
		text := fmt.Sprintf("%s  %s", c.ID, claimValue(c))
		if c.Dataset != "" {
			text += " on " + c.Dataset
		}
		text += fmt.Sprintf("  (%s, %s)", at, strings.ReplaceAll(c.Checkable, "_", " "))
		v.row(label(i, "claims"), text)
	}
}

func claimValue(c spec.Claim) string {
	unit := ""
	if c.Unit != "" {
		unit = " " + c.Unit
	}
	switch {
	case c.ValueLo != nil && c.ValueHi != nil:
		return fmt.Sprintf("%s %g–%g%s", c.Metric, *c.ValueLo, *c.ValueHi, unit)
	case c.Value != nil:
		return fmt.Sprintf("%s %g%s", c.Metric, *c.Value, unit)
	default:
		return oneLine(c.Text)
	}
}

func (v planView) suites(p *spec.Plan) {
	for i, s := range p.Suites {
		v.row(label(i, "suites"), fmt.Sprintf("%s  %s, %d questions × %d, %d arms", s.ID, s.Kind, s.Questions, s.Repeats, len(s.Arms)))
	}
}

// row prints one label and a text that wraps under itself.
func (v planView) row(name, text string) {
	const indent = 13
	for i, line := range wrap(text, max(v.width-indent, 30)) {
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(v.w, "%s%s\n", v.paint.dim(fmt.Sprintf("%-*s", indent, name)), line)
	}
}

func label(i int, s string) string {
	if i > 0 {
		return ""
	}
	return s
}

// where is the first place of a fact, in brackets.
func where(ev []spec.Evidence) string {
	for _, e := range ev {
		switch {
		case e.File != "" && e.Line > 0:
			return fmt.Sprintf("  [%s:%d]", e.File, e.Line)
		case e.File != "":
			return "  [" + e.File + "]"
		case e.URL != "":
			return "  [" + e.URL + "]"
		}
	}
	return ""
}

func short(commit string) string { return commit[:min(12, len(commit))] }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

package cli

import (
	"fmt"
	"io"
	"maps"
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
	main := mainRun(p)
	v.main(p, main)
	v.bindings(p.Bindings)
	v.preflight(p.Preflight)
	v.others(p, main)
	v.claims(p, main)
	v.suites(p)
	v.costs(p.Estimates)
	v.decisions(p, main)
	v.warnings(p.Warnings)
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
		// Of a folder's files the hash over all is shown.
		facts := slices.DeleteFunc(slices.Clone(m.Facts), func(f spec.Fact) bool { return f.Name == "sha256" })
		for i, f := range facts {
			v.row(label(i, "facts"), fmt.Sprintf("%s = %s (%s)", f.Name, f.Value, f.Kind))
			if i == 11 && len(facts) > 12 {
				v.row("", fmt.Sprintf("… %d more with --json", len(facts)-12))
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
	case p.Model == nil && p.Target.Kind != "hf_model":
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
	v.skus(e)
}

// skus says on which GPU models the environment works, those with the same
// answer together; of the one that was asked for, all that moves.
func (v planView) skus(e *spec.Environment) {
	if e.SKU != "" {
		fit := e.SKUs[e.SKU]
		text := "made for " + e.SKU + ": " + strings.ReplaceAll(fit.Status, "_", " ")
		if fit.BaseImage != "" {
			text += ", " + fit.BaseImage
		}
		v.row("", text)
		for _, d := range fit.Deviations {
			v.row("", fmt.Sprintf("changed %s  %s → %s  (%s)", d.What, firstOf(d.Declared, "not stated"), d.Used, d.Reason))
		}
		return
	}
	var order []string
	by := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(e.SKUs)) {
		status := strings.ReplaceAll(e.SKUs[id].Status, "_", " ")
		if by[status] == nil {
			order = append(order, status)
		}
		by[status] = append(by[status], id)
	}
	for _, status := range order {
		ids := by[status]
		text := status + ": " + strings.Join(ids[:min(4, len(ids))], ", ")
		if len(ids) > 4 {
			text += fmt.Sprintf(" and %d more", len(ids)-4)
		}
		if fit := e.SKUs[ids[0]]; len(fit.Deviations) > 0 {
			d := fit.Deviations[0]
			text += fmt.Sprintf("  (%s %s → %s)", d.What, firstOf(d.Declared, "not stated"), d.Used)
		}
		v.row("", text)
	}
}

// others are the runs beside the main one, each on a line or two.
func (v planView) others(p *spec.Plan, main *spec.Run) {
	n := 0
	for i := range p.Runs {
		r := &p.Runs[i]
		if r == main {
			continue
		}
		if n++; n > 4 {
			continue
		}
		status := strings.ReplaceAll(r.Status, "_", " ")
		if r.Selected {
			status = "runs too"
		}
		text := r.Kind + " · " + status + " · " + ellipsis(oneLine(p.Shown(r.Command)), 100) + where(r.Evidence)
		var why []string
		for _, x := range r.Needs {
			if x.Flag != "" {
				x.Reason += ", give " + quoteFlag(x.Flag)
			}
			why = append(why, x.Reason)
		}
		if len(r.Needs) == 0 && r.Status != "auto" {
			why = r.Reasons
		}
		if len(why) > 0 {
			text += ": " + strings.Join(why, "; ")
		}
		v.row(label(n-1, "also"), text)
	}
	if n > 4 {
		v.row("", fmt.Sprintf("… %d more with --json", n-4))
	}
}

func ellipsis(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return strings.TrimSpace(string(r[:n-1])) + "…"
	}
	return s
}

// decisions tell why, those about the main run and the environment first; what
// is shown above already is not said again.
func (v planView) decisions(p *spec.Plan, main *spec.Run) {
	kind := ""
	if main != nil {
		kind = main.Kind
	}
	rank := func(d spec.Decision) int {
		switch {
		case d.What == kind+" run":
			return 0
		case strings.HasPrefix(d.What, "metric of "):
			return 2
		case strings.HasSuffix(d.What, " run"), strings.HasPrefix(d.What, "claim "):
			return 3
		}
		return 1
	}
	list := slices.Clone(p.Decisions)
	slices.SortStableFunc(list, func(a, b spec.Decision) int { return rank(a) - rank(b) })
	for i, d := range list {
		if i == 6 {
			v.row("", fmt.Sprintf("… %d more with --json; --explain FIELD tells all of one", len(list)-i))
			return
		}
		text := d.What
		if r := rank(d); r == 1 || r == 3 {
			text += ": " + ellipsis(oneLine(p.Shown(d.Chosen)), 80)
		}
		text += ", because " + d.Because
		for j, o := range d.Over {
			if j == 2 {
				text += fmt.Sprintf(" and %d more", len(d.Over)-j)
				break
			}
			text += map[bool]string{true: "; instead of ", false: ", "}[j == 0] + ellipsis(oneLine(o), 110)
		}
		v.row(label(i, "why"), text)
	}
}

func (v planView) warnings(list []spec.Warning) {
	n := 0
	for _, w := range list {
		if w.Code == "nothing_selected" { // what is missing says it
			continue
		}
		if n++; n <= 6 {
			v.row(label(n-1, "warning"), v.paint.yellow(w.Message))
		}
	}
	if n > 6 {
		v.row("", fmt.Sprintf("… %d more with --json", n-6))
	}
}

// claims lists those that the main run checks first.
func (v planView) claims(p *spec.Plan, main *spec.Run) {
	list := slices.Clone(p.Claims)
	checked := func(c spec.Claim) bool { return main != nil && slices.Contains(main.ClaimIDs, c.ID) }
	slices.SortStableFunc(list, func(a, b spec.Claim) int {
		return map[bool]int{true: 0, false: 1}[checked(a)] - map[bool]int{true: 0, false: 1}[checked(b)]
	})
	for i, c := range list {
		if i == 6 && len(list) > 7 {
			v.row("", fmt.Sprintf("… %d more with --json", len(list)-i))
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
		text += "  [" + at + "]"
		switch {
		case checked(c):
			text += "  checked by this run"
			if c.Tolerance != nil {
				text += toleranceWords(c.Tolerance)
			}
		case c.Checkable == "numeric":
			text += "  not checked by this run"
		default:
			text += "  " + strings.ReplaceAll(c.Checkable, "_", " ")
		}
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

// indented prints a text that wraps under itself, after a lead.
func (v planView) indented(lead, text string) {
	for _, line := range wrap(text, max(v.width-len(lead), 30)) {
		fmt.Fprintf(v.w, "%s%s\n", lead, line)
		lead = strings.Repeat(" ", len(lead))
	}
}

// evidenceLine is one place with its words.
func evidenceLine(e spec.Evidence) string {
	at := strings.TrimSpace(strings.Trim(where([]spec.Evidence{e}), " []") + " " + e.Field)
	if e.Quote != "" {
		at += "  “" + oneLine(e.Quote) + "”"
	}
	return at
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

package cli

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/repromill/repromill/cmd/repromill/internal/pipeline"
	"github.com/repromill/repromill/planner/spec"
)

// mainRun is the run that the plan is about: the selected one, else the minimal
// one, which something stands against; nil when there is none.
func mainRun(p *spec.Plan) *spec.Run {
	i := slices.IndexFunc(p.Runs, func(r spec.Run) bool { return r.Selected })
	if i < 0 {
		i = slices.IndexFunc(p.Runs, func(r spec.Run) bool { return r.Kind == "minimal" })
	}
	if i < 0 {
		return nil
	}
	return &p.Runs[i]
}

func (v planView) main(p *spec.Plan, r *spec.Run) {
	if r == nil {
		if slices.ContainsFunc(p.Suites, func(s spec.Suite) bool { return s.Selected }) {
			return
		}
		v.row("run", v.paint.yellow("nothing can be run"))
		return
	}
	v.row("run", v.paint.bold(oneLine(p.Shown(r.Command)))+where(r.Evidence))
	status := "ready to run"
	if !r.Selected || r.Status != "auto" && len(r.Needs) > 0 {
		status = v.paint.yellow("nothing can be run yet: " + strings.ReplaceAll(r.Status, "_", " "))
	}
	detail := []string{r.Kind + " run", strings.ReplaceAll(r.Route, "_", " "), status}
	if r.Cwd != "" && r.Cwd != "." {
		detail = append(detail, "in "+r.Cwd)
	}
	v.row("", strings.Join(append(detail, gpuWords(r.GPUs), "at most "+timeLimit(r.TimeoutS), seedWords(r)), " · "))
	for _, s := range r.Setup {
		text := "first: " + p.Shown(strings.Join(s.Argv, " "))
		if s.Network {
			text += " (needs the network, which the local executor refuses)"
		}
		v.row("", text)
	}
	for _, c := range r.Patches {
		v.row("", fmt.Sprintf("changed %s:%d  %s → %s  (%s)", c.File, c.Line, c.Before, c.After, c.Reason))
	}
	v.fetched(r)
	v.expects(r)
	v.collects(r.Collect)
	v.needs(p, r)
}

// fetched says what the code fetches while it runs, and the option that gives
// it instead, since an attempt of the local executor has no network.
func (v planView) fetched(r *spec.Run) {
	for _, x := range r.Assets {
		if x.Access != "auto" {
			continue
		}
		text := "fetches " + x.Name + " from the network"
		if flag := map[string]string{"dataset": "--data", "checkpoint": "--checkpoint"}[x.Kind]; !strings.ContainsAny(x.Name, " \t") {
			text += "; given with " + flag + " " + shellWord(path.Base(x.Name)+"=PATH") + " it does not"
		} else {
			text = "fetches from the network by " + strings.TrimSuffix(strings.TrimPrefix(x.Name, "what "), " fetches")
		}
		v.row("", text)
	}
}

func gpuWords(n spec.GPUNeed) string {
	switch {
	case n.Min == 1:
		return "1 GPU"
	case n.Min == 0 && n.Hint != "":
		return "no GPU needed (" + n.Hint + ")"
	case n.Min == 0:
		return "no GPU needed"
	}
	return fmt.Sprintf("%d GPUs", n.Min)
}

// timeLimit is a bound in seconds, 0 for none of the plan's own.
func timeLimit(s int) string {
	switch {
	case s == 0:
		return "the executor's time limit"
	case s >= 7200 && s%3600 == 0:
		return fmt.Sprintf("%d h", s/3600)
	case s >= 120 && s%60 == 0:
		return fmt.Sprintf("%d min", s/60)
	}
	return fmt.Sprintf("%d s", s)
}

// seedWords say how often a run is executed, and how the seed reaches it.
func seedWords(r *spec.Run) string {
	text := "1 seed"
	if n := len(r.Seeds); n > 1 {
		text = fmt.Sprintf("%d seeds, %d to %d", n, r.Seeds[0], r.Seeds[n-1])
	}
	switch s := r.Seeding; {
	case s == nil:
	case s.By == "exempt":
		text = "deterministic, 1 execution"
	case s.By == "none":
		text += " (it takes none)"
	default:
		text += " (" + s.Name + ")"
	}
	return text
}

func (v planView) expects(r *spec.Run) {
	x := r.Expects
	if x == nil {
		return
	}
	text := strings.TrimSpace(fmt.Sprintf("should give %s %g %s", x.Metric, x.Value, x.Unit))
	if x.Dataset != "" {
		text += " on " + x.Dataset
	}
	if x.Tolerance != nil {
		text += toleranceWords(x.Tolerance)
	}
	v.row("", text)
}

// toleranceWords say how far a value may lie off, and who says so; nothing for
// a range, which has no width beyond it.
func toleranceWords(t *spec.Tolerance) string {
	switch {
	case t.Value == 0:
		return ""
	case t.Kind == "relative":
		return fmt.Sprintf(", within %.3g %% (%s)", 100*t.Value, t.Source)
	}
	return fmt.Sprintf(", within %.4g (%s)", t.Value, t.Source)
}

// needs says what stands against a run, and the command that supplies it.
func (v planView) needs(p *spec.Plan, r *spec.Run) {
	var flags []string
	for i, n := range r.Needs {
		if n.Flag != "" && !slices.Contains(flags, n.Flag) {
			flags = append(flags, n.Flag)
		}
		text := n.Reason
		if n.Flag != "" {
			text = v.paint.bold(quoteFlag(n.Flag)) + " : " + n.Reason
		}
		v.row(label(i, "missing"), text)
	}
	if len(flags) == 0 {
		return
	}
	words := []string{"repromill plan", shellWord(p.Target.Input)}
	for _, f := range flags {
		words = append(words, quoteFlag(f))
	}
	v.row("give it", strings.Join(words, " "))
}

// quoteFlag makes an option fit for a shell.
func quoteFlag(f string) string {
	name, val, _ := strings.Cut(f, " ")
	return name + " " + shellWord(val)
}

// shellWord quotes a word for a POSIX shell where it needs that.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@=+,%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (v planView) bindings(list []spec.Binding) {
	for i, b := range list {
		text := b.Name + " = " + b.Value
		if b.Kind != "set" {
			at := b.Path
			if b.URL != "" {
				at = b.URL
			}
			text = b.Name + " = " + at
			if b.SHA256 != "" {
				text += fmt.Sprintf("  (%s, %s, sha256 %s)", pipeline.Count(b.Files, "file"), pipeline.Size(b.Bytes), short(b.SHA256))
			}
		}
		if b.For != "" && b.For != b.Name {
			text += "  for " + b.For
		}
		if b.Place != "" {
			text += "  shown at " + b.Place
		}
		v.row(label(i, "bound"), text)
	}
}

func (v planView) preflight(list []spec.Preflight) {
	for i, f := range list {
		status := strings.ReplaceAll(f.Status, "_", " ")
		if f.Status == "gated" || f.Status == "missing" || f.Status == "unreachable" {
			status = v.paint.yellow(status)
		}
		text := status + "  " + f.Name
		if f.URL != "" {
			text += "  " + f.URL
		}
		if f.Bytes > 0 {
			text += "  " + pipeline.Size(f.Bytes)
		}
		if f.Reason != "" {
			text += "  (" + f.Reason + ")"
		}
		v.row(label(i, "preflight"), text)
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

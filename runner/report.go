package runner

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/verdict"
)

// Report returns the page of a run whose results are committed.
func (r *Runner) Report(ctx context.Context, id string) (*report.Report, error) {
	out, err := r.Outcome(ctx, id)
	if err != nil {
		return nil, err
	}
	if out.Manifest == "" {
		return nil, &UserError{fmt.Sprintf("run %s is %s and has no report", id, out.State), "run it again"}
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(out.Manifest), "report.json"))
	if err != nil {
		return nil, fmt.Errorf("read the report of run %s: %w", id, err)
	}
	return report.Parse(b)
}

// report is the page that stands beside the rows of a run.
func (rec *Record) report(root, manifest string, counts []report.TableCount) *report.Report {
	p, o := rec.Plan, rec.Outcome
	rep := &report.Report{
		Schema: report.SchemaV1, RunID: rec.Run.ID, PlanHash: p.Hash, Created: rec.Run.Created, Finished: o.Finished,
		Notices: rec.notices(), Verdict: string(o.Verdict), Reason: rec.why(),
		Target: report.Target{Input: p.Target.Input, Kind: p.Target.Kind, ID: p.Target.ID, Version: p.Target.Version, URL: p.Target.URL},
		Claims: []report.Claim{}, Runs: []report.Run{}, Cost: rec.cost(),
		Results: report.Results{Root: root, Manifest: manifest, Tables: counts},
		Look: []report.Hint{{
			Shows:   "every number of this run",
			Command: report.DuckDB(root, schema.Version, schema.Metrics, rec.Run.ID, "plan_run, metric, value, unit, seed, ci_lo, ci_hi, file, line"),
		}},
		Rerun: rec.rerun(filepath.Join(filepath.Dir(manifest), "plan.json")),
	}
	if len(o.Suites) > 0 {
		rep.Look[0] = report.Hint{Shows: "every answer of this run",
			Command: report.DuckDB(root, schema.Version, schema.Samples, rec.Run.ID, "suite, arm, item_id, repeat, outcome, score, extracted, reference, output_tokens, latency_s")}
	}
	if x := p.Paper; x != nil {
		rep.Paper = &report.Paper{ID: x.ID, Version: x.Version, Title: x.Title, Authors: x.Authors, URL: x.URL}
	}
	if x := p.Model; x != nil {
		rep.Model = &report.Model{ID: x.ID, Revision: x.Revision}
	}
	if s := p.Source; s.Repo != "" {
		rep.Source = &report.Source{Repo: s.Repo, Commit: s.Commit, Subdir: s.Subdir, StatedBy: s.StatedBy, Note: s.Note, Simulated: s.Simulated}
	}
	for i, v := range o.Claims {
		rep.Claims = append(rep.Claims, reportClaim(p.Claims[i], v))
	}
	for _, r := range p.Runs {
		if r.Selected {
			rep.Runs = append(rep.Runs, rec.reportRun(r))
		}
	}
	for _, d := range o.Deviations {
		rep.Deviations = append(rep.Deviations, report.Deviation(d))
	}
	for _, r := range p.Runs {
		for _, pt := range r.Patches {
			if r.Selected {
				rep.Deviations = append(rep.Deviations, report.Deviation{
					What: fmt.Sprintf("%s:%d (run %s)", pt.File, pt.Line, r.ID), Declared: pt.Before, Used: pt.After, Reason: pt.Reason,
				})
			}
		}
	}
	for _, w := range p.Warnings {
		rep.Warnings = append(rep.Warnings, report.Warning{Code: w.Code, Message: w.Message})
	}
	return rep
}

func (rec *Record) notices() (out []string) {
	s := rec.Plan.Source
	if s.Note != "" {
		out = append(out, s.Note)
	}
	if s.Simulated {
		out = append(out, "The code simulates the system that the paper measured; every number below is from the simulation.")
	}
	if rec.Request.NoSandbox {
		out = append(out, "The code ran without isolation, as was asked for.")
	}
	return out
}

// why is what a reader must know of the run beyond the verdicts on its claims.
func (rec *Record) why() string {
	o := rec.Outcome
	switch {
	case o.Stopped != "":
		return "Stopped early: " + o.Stopped + "."
	case o.InstallFailed != "":
		return "Nothing was executed: " + o.InstallFailed
	case len(o.Suites) > 0:
		var out []string
		for _, s := range o.Suites {
			if s.Refused != "" {
				out = append(out, s.Suite+" was not attempted")
			}
		}
		return strings.Join(out, "; ")
	case len(o.Units) == 0 && len(o.Refused) > 0:
		return "Nothing was executed: " + o.Refused[0].Reason
	case len(o.Units) == 0:
		return "Nothing was executed: the plan selects no run."
	}
	return ""
}

func reportClaim(c spec.Claim, v verdict.Row) report.Claim {
	out := report.Claim{
		ID: c.ID, Text: c.Text, Metric: c.Metric, Unit: v.Unit, Relation: c.Relation, Baseline: c.Baseline,
		Direction: c.Direction, Dataset: c.Dataset, Verdict: string(v.Verdict), Reason: v.Reason,
		Stated: report.Place{Paper: c.Where.Paper, File: c.Where.File, Line: c.Where.Line},
		Read:   report.Place{File: v.File, Line: v.Line, Quote: v.Quote},
	}
	if v.Reported != nil || v.ReportedLo != nil || v.ReportedHi != nil {
		out.Reported = &report.Quantity{Value: v.Reported, Lo: v.ReportedLo, Hi: v.ReportedHi}
	}
	if v.Measured != nil {
		n := int64(v.Seeds)
		out.Measured = &report.Quantity{Value: v.Measured, Simulated: v.Simulated}
		if v.Seeds > 1 {
			level := 0.95
			out.Measured.Lo, out.Measured.Hi, out.Measured.Level = v.MeasuredLo, v.MeasuredHi, &level
			out.Measured.N, out.Measured.Method = &n, "mean over seeds"
		}
	}
	if t := v.Tolerance; t != nil {
		out.Tolerance = &report.Tolerance{Value: t.Value, Kind: t.Kind, Source: t.Source}
	}
	return out
}

// reportRun sums up the executions of one run of the plan.
func (rec *Record) reportRun(r spec.Run) report.Run {
	o := rec.Outcome
	out := report.Run{ID: r.ID, Kind: r.Kind, Command: rec.Plan.Shown(r.Command), Cwd: r.Cwd, Seeds: seedWords(&r), Status: "skipped", Executor: o.Executor, NoSandbox: rec.Request.NoSandbox}
	if out.Command == "" {
		out.Command = strings.Join(r.Argv, " ")
	}
	if i := slices.IndexFunc(o.Refused, func(x Refusal) bool { return x.Run == r.ID }); i >= 0 {
		out.Reason = o.Refused[i].Reason
	} else {
		out.Reason = o.InstallFailed
	}
	wall, cpu := 0.0, 0.0
	for _, u := range o.Units {
		if u.Run != r.ID {
			continue
		}
		code := u.Status.ExitCode
		out.Status, out.Reason, out.Exit = string(u.Status.Phase), u.Reason, &code
		out.SKU, out.Sandbox, out.Missing = u.Status.Placement.SKU, u.Status.Placement.Sandbox, u.Status.Placement.Missing
		out.Log = u.Status.Stdout
	}
	for _, a := range rec.Attempts {
		arm, _, _ := strings.Cut(a.Arm, "+setup")
		if a.Stage != StageExecute || arm != r.ID {
			continue
		}
		wall += a.Spend.WallSeconds
		if st, err := decodeStatus(a); err == nil {
			cpu += st.Usage.CPUSeconds
		}
		out.WallS, out.CPUS = &wall, &cpu
	}
	return out
}

// seedWords say with which seeds a run was to be executed, and how they reach
// its code.
func seedWords(r *spec.Run) string {
	text := "1 seed"
	if n := len(r.Seeds); n > 1 {
		text = fmt.Sprintf("%d seeds, %d to %d", n, r.Seeds[0], r.Seeds[n-1])
	} else if n == 1 {
		text = fmt.Sprintf("1 seed, %d", r.Seeds[0])
	}
	switch s := r.Seeding; {
	case s == nil:
		return text
	case s.By == "exempt":
		return "1 execution, deterministic: " + s.Reason
	case s.By == "none":
		return text + ", not passed: " + s.Reason
	default:
		return text + ", passed by " + s.Name
	}
}

func (rec *Record) cost() report.Cost {
	o, row := rec.Outcome, rec.runRow()
	c := report.Cost{SKU: o.Placement.SKU, GPUs: int(row.GPUs.V)}
	if len(rec.Attempts) == 0 {
		return c
	}
	s := o.Spend
	c.WallS.Measured, c.CPUS.Measured = &s.WallSeconds, row.CPUS.Ptr()
	if c.GPUs > 0 {
		c.GPUHours.Measured, c.USD.Measured = &s.GPUHours, &s.USD
	}
	for _, e := range rec.Plan.Estimates {
		if e.Scope != "" || e.SKU != c.SKU {
			continue
		}
		expected(&c.WallS, e.WallS)
		if c.GPUs > 0 || e.GPUs > 0 {
			expected(&c.GPUHours, e.GPUHours)
			expected(&c.USD, e.USD)
		}
	}
	return c
}

// expected puts an estimate beside what was measured.
func expected(a *report.Amount, iv *spec.Interval) {
	if iv != nil {
		v := *iv
		a.P10, a.P50, a.P90 = &v.P10, &v.P50, &v.P90
	}
}

// rerun is the command that does the same again.
func (rec *Record) rerun(planFile string) string {
	q := rec.Request
	argv := []string{"repromill", "run"}
	fromFile := q.Plan != nil || len(rec.Outcome.Suites) > 0
	if fromFile {
		argv = append(argv, "-f", word(planFile))
		q.Repo, q.Commit = "", ""
		if len(rec.Outcome.Suites) == 0 { // suites read their data sets again
			q.Mirror = ""
		}
		for _, arm := range slices.Sorted(maps.Keys(rec.Outcome.Endpoints)) {
			argv = append(argv, "--endpoint", word(arm+"="+rec.Outcome.Endpoints[arm]))
		}
		for _, arm := range slices.Sorted(maps.Keys(rec.Outcome.Servers)) {
			argv = append(argv, "--server", word(strings.TrimPrefix(arm+"="+rec.Outcome.Servers[arm], "=")))
		}
	}
	for _, f := range [][2]string{{"--mirror", q.Mirror}, {"--repo", q.Repo}, {"--commit", q.Commit}, {"--executor", executorFlag(q)}, {"--image", q.Image}} {
		if f[1] != "" {
			argv = append(argv, f[0], word(f[1]))
		}
	}
	argv = append(argv, q.Wishes.options()...)
	if c := q.Caps; c.GPUHours > 0 {
		argv = append(argv, "--max-gpu-hours", strconv.FormatFloat(c.GPUHours, 'g', -1, 64))
	}
	if c := q.Caps; c.USD > 0 {
		argv = append(argv, "--max-usd", strconv.FormatFloat(c.USD, 'g', -1, 64))
	}
	if c := q.Caps; c.Wall > 0 {
		argv = append(argv, "--max-wall", c.Wall.String())
	}
	if fromFile {
		return strings.Join(append(argv, "--yes"), " ")
	}
	return strings.Join(append(argv, word(q.Target), "--yes"), " ")
}

// executorFlag is the executor that a repeated run has to name: the machine's
// own programs and containers give different environments.
func executorFlag(q Request) string {
	if q.Executor == "local" || q.Executor == "auto" {
		return ""
	}
	return q.Executor
}

// word quotes s for a POSIX shell where it needs that; the line is shown to
// people and never executed here.
func word(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@=+,%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

package runner

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/collect"
	"github.com/repromill/repromill/runner/verdict"
)

// collect reads the numbers out of what each unit wrote.
func (d *drive) collect(ctx context.Context, ex Executed) (out Collected, skipped string, err error) {
	if len(ex.Units) == 0 {
		return out, "nothing was executed", nil
	}
	for _, u := range ex.Units {
		r := d.specRun(u.Run)
		if u.Status.Reason == ReasonWrongSKU {
			for _, c := range r.Collect {
				out.Missing = append(out.Missing, Missing{u.Run, u.SeedIndex, c.Metric, "void: " + u.Reason})
			}
			continue
		}
		results, err := collect.All(ctx, collect.Source{
			Dir: filepath.Join(d.dir, u.Dir, filepath.FromSlash(r.Cwd)), Stdout: u.Status.Stdout, Stderr: u.Status.Stderr,
		}, r.Collect)
		if errors.Is(err, fs.ErrNotExist) { // the command removed its own folder
			results = nil
			for _, c := range r.Collect {
				results = append(results, collect.Result{Metric: c.Metric, NotFound: "the working directory is gone"})
			}
			err = nil
		}
		if err != nil {
			return out, "", err
		}
		for _, res := range results {
			if res.Value == nil {
				out.Missing = append(out.Missing, Missing{u.Run, u.SeedIndex, res.Metric, res.NotFound})
				continue
			}
			m := Measured{u.Run, u.Seed, u.SeedIndex, u.Key, *res.Value}
			out.Metrics = append(out.Metrics, m)
			d.pending = append(d.pending, event(StageCollect, MetricRead, m))
		}
	}
	return out, "", nil
}

func (d *drive) specRun(id string) *spec.Run {
	i := slices.IndexFunc(d.plan.Runs, func(r spec.Run) bool { return r.ID == id })
	return &d.plan.Runs[i]
}

// judge compares what was measured with what is claimed.
func (d *drive) judge(prep Prepared, ex Executed, col Collected) []verdict.Row {
	refused := slices.Concat(prep.Refused, ex.Refused)
	var runs []verdict.Run
	for _, r := range d.plan.Runs {
		v := verdict.Run{Spec: r, Simulated: d.plan.Source.Simulated}
		if i := slices.IndexFunc(refused, func(x Refusal) bool { return x.Run == r.ID }); i >= 0 {
			v.Reason = refused[i].Reason
		} else if !r.Selected {
			if v.Reason = d.refusal(&r); v.Reason == "" {
				v.Reason = "the plan does not select it"
			}
		} else if prep.InstallFailed != "" {
			v.Attempted, v.Reason = true, prep.InstallFailed
		}
		for _, u := range ex.Units {
			if u.Run == r.ID {
				v.Attempted = true
				if u.Reason != "" {
					v.Reason = u.Reason
				}
			}
		}
		for _, m := range col.Metrics {
			if m.Run == r.ID && !math.IsNaN(m.Value.Value) {
				v.Values = append(v.Values, verdict.Value{
					Metric: m.Metric, Seed: m.Seed, Value: m.Value.Value, Unit: m.Unit, Quote: m.Quote, File: m.File, Line: m.Line,
				})
			}
		}
		for _, m := range col.Missing {
			if m.Run == r.ID {
				v.Missing = append(v.Missing, verdict.Metric{Metric: m.Metric, Reason: m.Reason})
			}
		}
		runs = append(runs, v)
	}
	return verdict.Judge(d.plan.Claims, runs)
}

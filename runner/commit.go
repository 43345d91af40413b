package runner

import (
	"context"
	"fmt"
	"slices"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/runner/verdict"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/harness"
	"github.com/repromill/repromill/suites/throughput"
)

// logTail bounds each captured stream that is kept with the results.
const logTail = 256 << 10

// commit judges the claims and hands everything to the results.
func (d *drive) commit(ctx context.Context, prep Prepared, ex Executed, col Collected, suited []SuiteOutcome) (out Outcome, skipped string, err error) {
	out = Outcome{
		RunID: d.run.ID, State: store.Running, PlanHash: d.plan.Hash, Stopped: ex.Stopped,
		Simulated: d.plan.Source.Simulated, Claims: d.judge(prep, ex, col), Metrics: col.Metrics, Missing: col.Missing,
		Units: ex.Units, Refused: slices.Concat(prep.Refused, ex.Refused), InstallFailed: prep.InstallFailed, Deviations: prep.Deviations,
		Executor: d.executorName(d.req), Python: prep.python(), Image: prep.Image, Lock: prep.Lock, Started: d.run.Created, Finished: d.cfg.Now().UTC(),
	}
	out.Verdict, out.Reason = verdict.Overall(out.Claims)
	out.Suites = suited
	out.Simulated = out.Simulated || slices.ContainsFunc(suited, SuiteOutcome.simulated)
	if len(suited) > 0 {
		out.Endpoints, out.Servers = d.endpoints(), d.serving().Servers
		joint, why, compared := judgeSuites(d.plan, suited)
		scored := slices.ContainsFunc(suited, func(o SuiteOutcome) bool { return o.Result != nil || o.Throughput != nil })
		switch out.Reason = why; {
		case compared:
			out.Verdict = joint
		case scored && why == "":
			out.Reason = "scores of one model, without anything to compare with"
		case !scored && out.Verdict == verdict.NotCheckable:
			out.Verdict = verdict.NotAttempted
		}
	}
	if d.req.KeepWork && len(ex.Units) > 0 {
		out.WorkDir = d.dir
	}
	rec := &Record{Run: d.run, Request: d.req, Plan: d.plan, Version: d.cfg.Version, Logs: map[string][]byte{}}
	if rec.Attempts, err = d.cfg.Store.Attempts(ctx, d.run.ID); err != nil {
		return out, "", err
	}
	for _, a := range rec.Attempts {
		out.Spend.WallSeconds += a.Spend.WallSeconds
		out.Spend.GPUHours += a.Spend.GPUHours
		out.Spend.USD += a.Spend.USD
		st, err := decodeStatus(a)
		if err != nil {
			return out, "", err
		}
		out.Placement = st.Placement
		name := fmt.Sprintf("%s-%s-s%d-n%d", safeName(a.Stage), safeName(a.Arm), a.Shard, a.N)
		if _, taken := rec.Logs[name+".out"]; taken { // two arms may be alike once made safe
			name += fmt.Sprintf("-%d", len(rec.Logs))
		}
		rec.Logs[name+".out"], rec.Logs[name+".err"] = tail(st.Stdout, logTail), tail(st.Stderr, logTail)
	}
	for _, o := range suited {
		spent := o.spend()
		out.Spend.WallSeconds += spent.WallSeconds
		out.Spend.GPUHours += spent.GPUHours
		out.Spend.USD += spent.USD
		if r := o.Throughput; r != nil {
			if r.Stopped != "" {
				out.Stopped = o.Suite + ": " + r.Stopped
			}
		}
		if r := o.Result; r != nil {
			if r.Stopped != "" && r.Used < r.Questions && !slices.ContainsFunc(r.Comparisons, func(c harness.Compared) bool { return c.Result.Verdict != compare.Undecided }) {
				out.Stopped = o.Suite + ": " + r.Stopped
			}
		}
	}
	rec.answers = func(ctx context.Context, o SuiteOutcome, f func(harness.Answer) error) error {
		s := d.plan.Suites[slices.IndexFunc(d.plan.Suites, func(s spec.Suite) bool { return s.ID == o.Suite })]
		return d.cfg.Suites.Answers(ctx, d.job(s), *o.Result, f)
	}
	rec.throughput = func(o SuiteOutcome, f func(throughput.Rows) error) error {
		s := d.plan.Suites[slices.IndexFunc(d.plan.Suites, func(s spec.Suite) bool { return s.ID == o.Suite })]
		return d.cfg.Throughput.Rows(d.throughputJob(s), *o.Throughput, f)
	}
	for _, row := range out.Claims {
		d.pending = append(d.pending, event(StageCommit, VerdictGiven, row))
	}
	if rec.Events, err = d.allEvents(ctx); err != nil {
		return out, "", err
	}
	rec.Outcome = out
	err = d.step(stepCommit, func() error {
		out.Manifest, err = d.cfg.Results.Commit(ctx, rec)
		return err
	})
	if err != nil {
		return out, "", fmt.Errorf("commit results: %w", err)
	}
	return out, "", nil
}

func (d *drive) allEvents(ctx context.Context) (out []Event, err error) {
	const page = 1000
	for {
		var after int64
		if len(out) > 0 {
			after = out[len(out)-1].Seq
		}
		list, err := d.Events(ctx, d.run.ID, after, page)
		out = append(out, list...)
		if err != nil || len(list) < page {
			return out, err
		}
	}
}
